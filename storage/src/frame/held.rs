//! Frames in a row that stay in memory for readers, and how much memory that is.
//!
//! The frames of one write lie in the memory that it was written from, which stays until the last of them is let go. So
//! it counts whole, with the first of them, and they are let go together: nothing is gained by fewer.

use std::{collections::VecDeque, sync::Arc};

use super::Frame;

/// Frames that are held, oldest first.
///
/// Invariant: those of one write are neighbours.
#[derive(Debug, Default)]
pub struct HeldFrames {
    frames: VecDeque<Arc<Frame>>,
    bytes: usize,
}

impl HeldFrames {
    /// Adds a frame behind the others.
    pub fn push(&mut self, frame: Arc<Frame>) {
        if !self.frames.back().is_some_and(|last| shares_memory(last, &frame)) {
            self.bytes += frame.buffer().capacity();
        }
        self.frames.push_back(frame);
    }

    /// Lets the frames of the oldest write go.
    pub fn let_oldest_go(&mut self) {
        let Some(oldest) = self.frames.pop_front() else { return };
        self.bytes -= oldest.buffer().capacity();
        while self.frames.front().is_some_and(|next| shares_memory(&oldest, next)) {
            self.frames.pop_front();
        }
    }

    /// Lets all go.
    pub fn clear(&mut self) {
        self.frames.clear();
        self.bytes = 0;
    }

    /// They themselves.
    pub fn frames(&self) -> &VecDeque<Arc<Frame>> {
        &self.frames
    }

    /// How much memory would be free without them, if nobody else held one.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether all of them are of one write.
    pub fn is_one_write(&self) -> bool {
        let ends = self.frames.front().zip(self.frames.back());
        ends.is_some_and(|(first, last)| shares_memory(first, last))
    }
}

fn shares_memory(a: &Frame, b: &Frame) -> bool {
    Arc::ptr_eq(a.buffer(), b.buffer())
}
