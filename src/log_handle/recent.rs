//! The end of a log in memory, on each shard.

use std::{cell::RefCell, sync::Arc};

use strandline_storage::{
    frame::{Frame, HeldFrames},
    offset::Offset,
};

/// The frames that became visible last, as far as this shard got them: contiguous, at most
/// `bytes_max` of memory.
#[derive(Debug)]
pub struct RecentFrames {
    held: RefCell<HeldFrames>,
    bytes_max: usize,
}

impl RecentFrames {
    pub(crate) fn new(bytes_max: usize) -> Self {
        RecentFrames { held: RefCell::default(), bytes_max }
    }

    /// The frame that holds `offset`; the next one begins at its `end_offset`.
    pub fn frame_at(&self, offset: Offset) -> Option<Arc<Frame>> {
        let held = self.held.borrow();
        let frames = held.frames();
        let index = frames.partition_point(|frame| frame.end_offset() <= offset);
        frames.get(index).filter(|frame| frame.base_offset() <= offset).cloned()
    }

    pub(super) fn push(&self, frame: Arc<Frame>) {
        let mut held = self.held.borrow_mut();
        let last = held.frames().back();
        if last.is_some_and(|last| last.end_offset() != frame.base_offset()) {
            held.clear();
        }
        held.push(frame);
        while held.bytes() > self.bytes_max {
            held.let_oldest_go();
        }
    }
}
