//! The end of a log in memory, on each shard.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    sync::Arc,
};

use strandline_storage::{frame::Frame, offset::Offset};

/// The frames that became visible last, as far as this shard got them: contiguous, at most
/// `bytes_max`.
#[derive(Debug)]
pub struct RecentFrames {
    frames: RefCell<VecDeque<Arc<Frame>>>,
    bytes: Cell<usize>,
    bytes_max: usize,
}

impl RecentFrames {
    pub(crate) fn new(bytes_max: usize) -> Self {
        RecentFrames { frames: RefCell::default(), bytes: Cell::new(0), bytes_max }
    }

    /// The frame that holds `offset`; the next one begins at its `end_offset`.
    pub fn frame_at(&self, offset: Offset) -> Option<Arc<Frame>> {
        let frames = self.frames.borrow();
        let index = frames.partition_point(|frame| frame.end_offset() <= offset);
        frames.get(index).filter(|frame| frame.base_offset() <= offset).cloned()
    }

    /// From which offset to which (not included) the frames reach; `None` if there are none.
    pub fn range(&self) -> Option<(Offset, Offset)> {
        let frames = self.frames.borrow();
        Some((frames.front()?.base_offset(), frames.back()?.end_offset()))
    }

    pub(super) fn push(&self, frame: Arc<Frame>) {
        let mut frames = self.frames.borrow_mut();
        if frames.back().is_some_and(|last| last.end_offset() != frame.base_offset()) {
            frames.clear();
            self.bytes.set(0);
        }
        self.bytes.set(self.bytes.get() + frame.frame_bytes());
        frames.push_back(frame);
        while self.bytes.get() > self.bytes_max {
            let Some(oldest) = frames.pop_front() else { break };
            self.bytes.set(self.bytes.get() - oldest.frame_bytes());
        }
    }
}
