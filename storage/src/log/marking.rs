//! When it is written down how far the log has been synced, outside of its segments (`end_mark.rs`).
//!
//! At once when a segment has become the active one, when times have gone ahead, and at the end of a clean stop; some seconds
//! behind while the log goes on, so that of a server that was killed not much more is unprotected than what its last frames
//! state themselves.

use std::{io, path::Path};

use super::{Close, JobState, Log, Notice, Now};
use crate::{
    clock::EventClock,
    end_mark::{self, EndMark, MarkJob, MarkWritten},
    error::OpenError,
    io::{Disk, is_full},
    mutation::{self, Mutation},
    offset::Offset,
    op::Job,
};

/// The mark follows the log by so much at most: one write of a block, whatever the log does meanwhile.
const MARK_INTERVAL_MS: u64 = 10_000;
/// One that could not be written is tried again after so long.
const RETRY_MS: u64 = 60_000;

/// What a log knows of its end mark.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marked {
    /// What was written last; `None` if nobody knows.
    mark: Option<EndMark>,
    /// How many steps of times had been noted when they were written down last.
    steps_noted: u64,
    /// Before that they are not written, as the file has no place for them.
    steps_wait_boot_ms: u64,
    /// The last write failed: what the page cache shows of the file may not be on the device.
    is_doubtful: bool,
    boot_ms: u64,
}

impl Marked {
    /// Writes the mark of a log that begins its active segment at `end`, and the steps that its clock knows. A full disk may
    /// go on with the old one.
    pub(super) fn at_start<D: Disk>(
        disk: &D,
        dir: &Path,
        end: Offset,
        clock: &EventClock,
        now: Now,
    ) -> Result<Marked, OpenError> {
        let mark = EndMark { active: end, synced: end };
        let (mark, steps_noted) = match end_mark::write_anew(disk, dir, &mark, &clock.past_steps())
        {
            Ok(()) => (Some(mark), clock.steps_noted()),
            Err(OpenError::Io { source, .. }) if is_full(&source) => (None, 0),
            Err(error) => return Err(error),
        };
        let (is_doubtful, steps_wait_boot_ms) = (false, 0);
        Ok(Marked { mark, steps_noted, steps_wait_boot_ms, is_doubtful, boot_ms: now.boot_ms })
    }
}

impl<D: Disk> Log<D> {
    /// What the mark should say.
    fn end_mark(&self) -> EndMark {
        let synced = match mutation::is_planted(Mutation::MarkAheadOfSync) {
            true => self.commit.submitted_end(),
            false => self.commit.synced_end(),
        };
        EndMark { active: self.tail.base, synced: synced.max(self.tail.base) }
    }

    fn has_new_steps(&self) -> bool {
        self.marked.steps_noted != self.clock.steps_noted()
    }

    /// When steps are to be written, if there are new ones.
    fn steps_due_boot_ms(&self) -> Option<u64> {
        self.has_new_steps().then_some(self.marked.steps_wait_boot_ms)
    }

    /// Whether the mark says all, or cannot be written.
    pub(super) fn is_end_marked(&self) -> bool {
        self.marked.mark == Some(self.end_mark())
            && self.steps_due_boot_ms().is_none_or(|due| due > 0)
            || matches!(self.jobs.mark, JobState::Waiting { .. })
    }

    /// When the mark is to be written, if it does not say all.
    pub(super) fn mark_due_boot_ms(&self) -> Option<u64> {
        let wanted = self.end_mark();
        if self.jobs.mark != JobState::Idle {
            return None;
        }
        let steps_due_ms = self.steps_due_boot_ms();
        if self.marked.mark == Some(wanted) {
            return steps_due_ms;
        }
        let is_new = self.marked.mark.is_none_or(|mark| mark.active != wanted.active);
        if is_new || (self.close != Close::Open && self.is_at_end()) {
            return Some(0);
        }
        let due_ms = self.marked.boot_ms.saturating_add(MARK_INTERVAL_MS);
        Some(steps_due_ms.map_or(due_ms, |steps_ms| steps_ms.min(due_ms)))
    }

    pub(super) fn next_mark(&mut self, now: Now) -> Option<Job<D>> {
        self.mark_due_boot_ms().filter(|due_ms| *due_ms <= now.boot_ms)?;
        self.jobs.mark = JobState::Running;
        Some(Job::Mark(MarkJob {
            dir: self.dir.clone(),
            mark: self.end_mark(),
            steps: self.clock.past_steps(),
            steps_noted: self.clock.steps_noted(),
            has_new_steps: self.has_new_steps(),
            is_anew: self.marked.is_doubtful,
        }))
    }

    pub(super) fn mark_written(
        &mut self,
        job: &MarkJob,
        result: io::Result<MarkWritten>,
        now: Now,
    ) {
        match result {
            Ok(written) => {
                self.marked.mark = Some(job.mark);
                (self.marked.is_doubtful, self.marked.boot_ms) = (false, now.boot_ms);
                self.jobs.mark = JobState::Idle;
                match written {
                    MarkWritten::All => {
                        (self.marked.steps_noted, self.marked.steps_wait_boot_ms) =
                            (job.steps_noted, 0);
                    }
                    MarkWritten::WithoutSteps => {
                        self.marked.steps_wait_boot_ms = now.boot_ms.saturating_add(RETRY_MS);
                    }
                }
            }
            Err(error) => {
                self.jobs.mark = JobState::after(now, RETRY_MS, false);
                (self.marked.mark, self.marked.is_doubtful) = (None, true);
                self.notices.push(Notice::MarkFailed { reason: error.to_string() });
            }
        }
    }
}
