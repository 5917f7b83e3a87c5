//! The reserve of a log: as large as the log needs it, ahead of what is prepared for data.
//!
//! ```text
//! grows:      in the background, up to what the log may need as it is; until then nothing else takes space, if that fails
//!             before an extension that makes it need more: without the one there is not the other. The next segment's file
//!             waits for what those before it make it need. So it does in a log that ends, as long as that writes what is staged
//! given back: when what frees space finds none; nothing else takes that space before the reserve is whole again, and it is
//!             not made anew beneath what it was given back for
//! shortened:  to half or less, once the log needs no more, nor the extension that it has grown for
//! ```

use std::io;

use super::{Close, JobState, Jobs, Log, Notice, Now};
use crate::{
    error::OpenError,
    frame::FRAME_ALIGN_BYTES,
    io::{Disk, is_full, is_unreadable},
    offset::Position,
    op::Job,
    reserve::{self, Needs, RESERVE_FILE_NAME, ReserveJob, ReserveRule, STUB_TOPIC_BYTES},
    segment::FIRST_FRAME_POSITION,
    segment_set::Longest,
};

/// The reserve is tried for again so often, and not sooner than so long after it was given back.
const RESERVE_RETRY_MS: u64 = 5_000;

impl<D: Disk> Log<D> {
    /// How large the reserve has to be once the active segment is prepared up to `prepared`.
    fn reserve_bytes_at(&self, prepared: Position) -> u64 {
        let Longest { log_bytes, index_bytes, rewritten_index_bytes } = self.segments.longest();
        let full = self.unsealed.iter().rev().skip(1).map(|segment| segment.end.end_position.get());
        // However many wait, and why: a start makes all of them.
        let unsealed_index_bytes = self.unsealed.iter().map(|segment| {
            let frames_bytes = segment.end.end_position.get();
            let bytes = segment.index.bytes_max().min(ReserveRule::index_bytes_max(frames_bytes));
            bytes.next_multiple_of(FRAME_ALIGN_BYTES as u64)
        });
        // What was rewritten may have had a longer file: its stub names topics of this log, each once.
        let stub_bytes = match rewritten_index_bytes {
            0 => 0,
            bytes => {
                let topics_bytes = STUB_TOPIC_BYTES * self.topics.len() as u64;
                bytes + self.topics.names_bytes_max() + topics_bytes
            }
        };
        // The active one's has what frees space for a whole segment takes: more only where its one frame is longer than that.
        let frames_bytes = prepared.get() - FIRST_FRAME_POSITION.get();
        let segment_bytes = self.reserve_rule.segment_bytes;
        let longer_bytes = frames_bytes.saturating_sub(segment_bytes);
        // (Without one, room for control events and for the last word lies behind it.)
        let room_bytes = segment_bytes / 16 + 2 * FRAME_ALIGN_BYTES as u64;
        let active_index_bytes = match longer_bytes > room_bytes {
            true => ReserveRule::index_bytes_max(longer_bytes),
            false => 0,
        };
        self.reserve_rule.wanted_bytes(Needs {
            log_bytes: full.fold(log_bytes.max(prepared.get()), u64::max),
            index_bytes: index_bytes.max(stub_bytes),
            unsealed_index_bytes: unsealed_index_bytes.sum::<u64>() + active_index_bytes,
        })
    }

    /// Whether an extension up to there has to wait for a larger reserve. Not where the disk makes none for another
    /// reason than that it is full.
    pub(super) fn lacks_reserve_for(&self, to: Position) -> bool {
        let wanted_bytes = self.reserve_bytes_at(to);
        wanted_bytes > self.jobs.reserve_bytes
            && wanted_bytes > self.reserve_bytes_at(self.tail.file.prepared)
            && self.may_grow_reserve()
    }

    /// Whether the next segment has to wait for a larger reserve, as there may be no space for the indexes of those before it.
    pub(super) fn lacks_reserve(&self) -> bool {
        let prepared = self.tail.file.prepared;
        self.jobs.reserve_bytes < self.reserve_bytes_at(prepared) && self.may_grow_reserve()
    }

    fn may_grow_reserve(&self) -> bool {
        let fails = matches!(self.jobs.reserve, JobState::Waiting { is_full: false, .. });
        self.takes_data() && !fails
    }

    /// Whether there may be more data than the segment holds. (A log that ends writes what is staged.)
    fn takes_data(&self) -> bool {
        self.close == Close::Open || !self.staging.is_empty()
    }

    /// The larger reserve that an extension waits for, if the disk has `free_bytes_min` left.
    pub(super) fn next_growth(&mut self, to: Position, free_bytes_min: u64) -> Option<Job<D>> {
        if self.jobs.reserve != JobState::Idle {
            return None;
        }
        self.jobs.reserve_for = self.jobs.reserve_for.max(to);
        Some(self.change_reserve(self.reserve_bytes_at(to), free_bytes_min))
    }

    /// What a start has left of the reserve that it took is that again, though it is less: others would take it, and what
    /// frees space would find none.
    pub(super) fn take_rest(&mut self) {
        if self.jobs.owes_reserve {
            let wanted_bytes = self.reserve_bytes_at(self.tail.file.prepared);
            self.jobs.reserve_bytes = reserve::take_rest(&self.disk, &self.dir, wanted_bytes);
        }
    }

    /// Less is needed than when the reserve could not grow, as a segment was sealed or is gone: what there is is enough, and
    /// others may have space again.
    pub(super) fn end_reserve_debt(&mut self) {
        let has_bytes = self.jobs.reserve_bytes;
        if self.jobs.owes_reserve
            && self.jobs.reserve != JobState::Running
            && has_bytes > 0
            && has_bytes >= self.reserve_bytes_at(self.tail.file.prepared)
        {
            self.jobs.owes_reserve = false;
            self.retry_for_space();
            self.space_is_back();
        }
    }

    /// Keeps the reserve, and gives it back when what frees space needs some.
    pub(super) fn next_reserve(&mut self) -> Option<Job<D>> {
        let has_bytes = self.jobs.reserve_bytes;
        if self.jobs.needs_reserve && has_bytes > 0 {
            let is_possible = matches!(
                self.jobs.reserve,
                JobState::Idle | JobState::Waiting { is_full: true, .. }
            );
            return is_possible.then(|| self.change_reserve(0, 0));
        }
        if self.jobs.reserve != JobState::Idle || !self.takes_data() {
            return None;
        }
        if has_bytes == 0 && self.jobs.owes_reserve && self.jobs.is_freeing() {
            return None;
        }
        let prepared = self.tail.file.prepared;
        let bytes = self.reserve_bytes_at(prepared);
        if has_bytes < bytes {
            return Some(self.change_reserve(bytes, 0));
        }
        let bytes = self.reserve_bytes_at(prepared.max(self.jobs.reserve_for));
        let is_of_no_use = has_bytes / 2 >= bytes && has_bytes > bytes && self.close == Close::Open;
        is_of_no_use.then(|| self.change_reserve(bytes, 0))
    }

    fn change_reserve(&mut self, to_bytes: u64, free_bytes_min: u64) -> Job<D> {
        self.jobs.reserve = JobState::Running;
        let path = self.dir.join(RESERVE_FILE_NAME);
        let from_bytes = self.jobs.reserve_bytes;
        Job::Reserve(ReserveJob { path, from_bytes, to_bytes, free_bytes_min })
    }

    pub(super) fn reserved(&mut self, job: &ReserveJob, result: io::Result<()>, now: Now) {
        let bytes = job.to_bytes;
        match result {
            Ok(()) if bytes > 0 => {
                self.jobs.reserve = JobState::Idle;
                self.jobs.is_reserve_refused = false;
                let is_shorter = bytes < std::mem::replace(&mut self.jobs.reserve_bytes, bytes);
                if !is_shorter {
                    self.jobs.rest_asked_boot_ms = None;
                }
                if std::mem::take(&mut self.jobs.owes_reserve) || is_shorter {
                    self.retry_for_space();
                    self.space_is_back();
                }
            }
            Ok(()) => self.given_back(now),
            Err(error) if bytes > 0 && is_full(&error) => {
                if self.jobs.reserve_bytes >= self.reserve_bytes_at(self.tail.file.prepared) {
                    // It is as large as it has to be without the extension.
                    self.jobs.reserve = JobState::Idle;
                    let is_at_rest = job.free_bytes_min > 0;
                    // One may have begun meanwhile: it needed no larger one any more.
                    if !is_at_rest && self.jobs.extend == JobState::Idle {
                        self.refuse_extension(now);
                    }
                    return;
                }
                self.jobs.reserve = JobState::after(now, RESERVE_RETRY_MS, true);
                // What space there is is the reserve's: nobody else takes of it.
                self.jobs.owes_reserve = true;
                self.space_is_short();
            }
            Err(error) => {
                self.jobs.reserve = JobState::after(now, RESERVE_RETRY_MS, false);
                if bytes > 0 && !std::mem::replace(&mut self.jobs.is_reserve_refused, true) {
                    self.notices.push(Notice::ReserveFailed { reason: error.to_string() });
                }
                // It is no want of space, and may last: data does not wait for it, be it owed.
                let may_last = bytes > 0 && is_unreadable(&error);
                if may_last && std::mem::take(&mut self.jobs.owes_reserve) {
                    self.retry_for_space();
                    self.space_is_back();
                }
            }
        }
    }

    fn given_back(&mut self, now: Now) {
        self.jobs.reserve_bytes = 0;
        // Others take nothing of it: what frees space is tried at once, the reserve some time later.
        self.jobs.owes_reserve = true;
        self.jobs.needs_reserve = false;
        self.jobs.reserve = JobState::after(now, RESERVE_RETRY_MS, true);
        let Jobs { seal, keep, retire, compact, clear, prepare, ends_for_space, .. } =
            &mut self.jobs;
        let prepare = ends_for_space.then_some(prepare);
        for state in [seal, keep, retire, compact, clear].into_iter().chain(prepare) {
            if matches!(*state, JobState::Waiting { .. }) {
                *state = JobState::Idle;
            }
        }
    }

    /// Whether what space there is belongs to the reserve. (The last word of a log takes some all the same.)
    pub(super) fn is_space_owed(&self) -> bool {
        self.jobs.owes_reserve && self.takes_data()
    }

    /// Something that frees space has failed for want of it.
    pub(super) fn note_full(&mut self, error: &OpenError) {
        self.jobs.needs_reserve |= error.is_full() && self.jobs.reserve_bytes > 0;
    }
}
