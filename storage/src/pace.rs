//! How what is written in the background leaves the disk to commits: a little at a time, synced, and then a rest.
//!
//! A commit waits for the drive's cache to be written back, so that must never be much. Nobody waits on a log to which
//! nothing was appended meanwhile: there it goes on at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// So much is written at a time, and then synced.
pub(crate) const PACE_BYTES: usize = 1 << 20;

/// It rests so long after each piece that somebody may have waited for.
const REST: Duration = Duration::from_millis(2);

/// How many frames a log has begun to write, for all who want to know whether any.
#[derive(Clone, Debug, Default)]
pub(crate) struct FramesBegun(Arc<AtomicU64>);

impl FramesBegun {
    pub(crate) fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// When somebody who writes in the background rests.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    frames: FramesBegun,
    frames_seen: u64,
    is_urgent: bool,
}

impl Pace {
    /// Beside a log that begins these `frames`; without any rest if `is_urgent`.
    pub(crate) fn beside(frames: &FramesBegun, is_urgent: bool) -> Self {
        Pace { frames: frames.clone(), frames_seen: frames.get(), is_urgent }
    }

    /// After each piece that was synced.
    pub(crate) fn rest(&mut self) {
        if self.is_due() {
            std::thread::sleep(REST);
        }
    }

    fn is_due(&mut self) -> bool {
        let frames = self.frames.get();
        let is_idle = std::mem::replace(&mut self.frames_seen, frames) == frames;
        !self.is_urgent && !is_idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rests_after_each_piece_beside_which_frames_were_begun() {
        let frames = FramesBegun::default();
        frames.add_one();
        let (mut pace, mut urgent) = (Pace::beside(&frames, false), Pace::beside(&frames, true));
        let due: Vec<_> = [0, 1, 3, 0]
            .map(|begun| {
                (0..begun).for_each(|_| frames.add_one());
                (pace.is_due(), urgent.is_due())
            })
            .into();
        assert_eq!(due, [(false, false), (true, false), (true, false), (false, false)]);
    }
}
