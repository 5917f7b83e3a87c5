//! What a log does while it rests: it writes zeroes further ahead of its tail than while it works, since there are no
//! commits that would wait for them. The next burst then begins with none beside it.
//!
//! ```text
//! append .. last commit .. idle_frame_ms: the last word .. zeroes, a step at a time .. nothing until the next append
//!                                                            |
//!                                          an append comes:  +-- ends behind the piece that is under way
//! ```
//!
//! Limits, each of which ends it: `preallocate_rest_bytes_max`; as much as this segment and the one before it hold,
//! so that a small log stays small; the end of the segment; a sixteenth of what the disk has free. It never makes a
//! disk full: what is refused is asked for again behind the next append.

use super::{Close, JobState, Log, Now};
use crate::{frame::FRAME_ALIGN_BYTES, io::Disk, offset::Position};

/// At rest the log takes no more of the disk ahead of its tail than one of so many parts of what is free.
const FREE_SHARE: u64 = 16;

/// How far the next step goes.
pub(super) struct Further {
    pub(super) to: Position,
    /// So much must be free on the disk.
    pub(super) free_bytes_min: u64,
}

impl<D: Disk> Log<D> {
    /// From when on a log counts as resting that has nothing under way; `None` if it has.
    pub(super) fn rest_boot_ms(&self) -> Option<u64> {
        let is_still = self.staging.is_empty()
            && self.commit.is_still()
            && !self.jobs.rolling
            && self.close == Close::Open;
        is_still.then(|| self.last_append_boot_ms.saturating_add(self.config.idle_frame_ms))
    }

    /// When the next step is due: with the last word, which [`Log::next_op`] puts first.
    pub(super) fn further_due_boot_ms(&self) -> Option<u64> {
        let due_boot_ms = self.rest_boot_ms()?;
        let may_begin = self.jobs.extend == JobState::Idle
            && self.jobs.reserve != JobState::Running
            && !self.jobs.disk_full
            && !self.is_space_owed()
            && self.jobs.rest_asked_boot_ms != Some(self.last_append_boot_ms);
        (may_begin && self.further().is_some()).then_some(due_boot_ms)
    }

    /// The next step, if it is due.
    pub(super) fn next_further(&self, now: Now) -> Option<Further> {
        self.further_due_boot_ms().filter(|due_ms| *due_ms <= now.boot_ms)?;
        self.further()
    }

    /// `None` if that would be less than the smallest step of a log that works: one that gets an event now and then
    /// does not extend for each.
    fn further(&self) -> Option<Further> {
        let (end, prepared) = (self.tail.end.get(), self.tail.file.prepared.get());
        let ahead_bytes = self.config.preallocate_rest_bytes_max.min(self.held_bytes());
        let limit = end.saturating_add(ahead_bytes).min(self.segment_bytes());
        let to = limit.min(prepared.saturating_add(self.config.preallocate_bytes_max));
        let to = to - to % FRAME_ALIGN_BYTES as u64;
        let is_worth_it = to >= prepared.saturating_add(self.config.preallocate_bytes_min);
        let free_bytes_min = to.saturating_sub(end).saturating_mul(FREE_SHARE);
        is_worth_it.then_some(Further { to: Position::new(to), free_bytes_min })
    }

    /// What this segment and the one before it hold; not if all events of that one are gone.
    fn held_bytes(&self) -> u64 {
        let full = self.unsealed.iter().nth_back(1);
        let full = full.map(|before| (before.end.end_offset, before.end.end_position.get()));
        let sealed = || self.segments.iter().next_back();
        let sealed = || sealed().map(|before| (before.end(), before.file_bytes()));
        let before = full.or_else(sealed).filter(|(end, _)| *end > self.keep_from);
        self.tail.end.get().saturating_add(before.map_or(0, |(_, bytes)| bytes))
    }
}
