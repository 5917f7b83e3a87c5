//! When the state of a log is written down, and what follows.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::{Close, JobState, Log, Notice, Now};
use crate::{
    error::OpenError,
    io::Disk,
    offset::Offset,
    op::Job,
    pace::Pace,
    recovery::SnapshotUsed,
    snapshot::job::{SnapshotJob, SnapshotOutcome},
};

/// One that could not be made is tried again after so long.
const RETRY_MS: u64 = 60_000;

/// What a log knows of its snapshots.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    newest: SnapshotUsed,
    /// How much of what lies behind was there when the one that is being made was begun.
    begun: SnapshotUsed,
    is_cancelled: Arc<AtomicBool>,
    totals: SnapshotTotals,
}

/// What snapshots have come to since the log was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotTotals {
    /// How many were made.
    pub made: u64,
    /// Of which offset the newest of those is.
    pub offset: Offset,
    /// The length of the newest, be it older than this opening; 0 if there is none.
    pub bytes: u64,
    /// Segments sealed since the newest: an opening reads their indexes beside it.
    pub segments_behind: u64,
    /// Stubs that were merged into one of them.
    pub merged_stubs: u64,
}

impl Snapshots {
    /// Of a log that was opened from one.
    pub(super) fn new(newest: SnapshotUsed) -> Snapshots {
        Snapshots { newest, ..Snapshots::default() }
    }

    /// Another segment has been sealed.
    pub(super) fn note_sealed(&mut self, bytes: u64) {
        self.newest.segments_behind += 1;
        self.newest.bytes_behind += bytes;
    }
}

impl<D: Disk> Log<D> {
    /// What snapshots have come to since the log was opened.
    pub fn snapshot_totals(&self) -> SnapshotTotals {
        let Snapshots { newest, totals, .. } = &self.snapshots;
        SnapshotTotals { bytes: newest.bytes, segments_behind: newest.segments_behind, ..*totals }
    }

    /// Ends the one that is being made.
    pub(super) fn cancel_snapshot(&self) {
        self.snapshots.is_cancelled.store(true, Ordering::Relaxed);
    }

    /// The next one, if the log has grown by so many segments, and by as much as the last one is long: then they
    /// cost no more than a part of what was appended.
    pub(super) fn next_snapshot(&mut self) -> Option<Job<D>> {
        let SnapshotUsed { bytes, segments_behind, bytes_behind } = self.snapshots.newest;
        let is_due = segments_behind >= (self.config.snapshot_segments as u64).max(1)
            && bytes_behind >= bytes;
        // It takes space, and frees next to none.
        let has_space = !self.jobs.disk_full && !self.is_space_owed();
        if !is_due || !has_space || self.close != Close::Open {
            return None;
        }
        if self.jobs.snapshot != JobState::Idle {
            return None;
        }
        self.jobs.snapshot = JobState::Running;
        self.snapshots.begun = self.snapshots.newest;
        self.snapshots.is_cancelled = Arc::default();
        Some(Job::Snapshot(Box::new(SnapshotJob {
            dir: self.dir.clone(),
            segments: Arc::clone(&self.segments),
            window: self.config.id_window(),
            ids_ahead_ms: self.ids_ahead_ms(),
            producers_ahead_ms: self.producers_ahead_ms(),
            stubs_min: self.config.snapshot_segments,
            pace: Pace::beside(&self.frames_begun, false),
            is_cancelled: Arc::clone(&self.snapshots.is_cancelled),
            #[cfg(mutations)]
            live: self.live_snapshot(),
        })))
    }

    /// The bug that [`crate::mutation::Mutation::SnapshotFromLiveMemory`] plants: what is known now, but for what
    /// lies behind the end.
    #[cfg(mutations)]
    fn live_snapshot(&self) -> Option<Vec<u8>> {
        use crate::{
            mutation,
            snapshot::{fold::Fold, job::live},
        };
        if !mutation::is_planted(mutation::Mutation::SnapshotFromLiveMemory) {
            return None;
        }
        let segments: Vec<_> = self.segments.iter().map(|segment| live(segment)).collect();
        let incarnation = segments.last()?.incarnation;
        let (end, time_ms) = (self.segments.end(), self.clock.last_ms());
        let ahead_ms = self.producers_ahead_ms();
        let fold = Fold::of_live(&self.topics, &self.state, end, time_ms, incarnation);
        Some(fold.finish(&segments, ahead_ms).to_vec())
    }

    pub(super) fn snapshot_made(
        &mut self,
        result: Result<Option<SnapshotOutcome>, OpenError>,
        now: Now,
    ) {
        match result {
            Ok(None) => self.jobs.snapshot = JobState::Idle,
            Ok(Some(outcome)) => {
                self.jobs.snapshot = JobState::Idle;
                let Snapshots { newest, begun, totals, .. } = &mut self.snapshots;
                newest.segments_behind -= begun.segments_behind;
                newest.bytes_behind -= begun.bytes_behind;
                newest.bytes = outcome.bytes;
                totals.made += 1;
                totals.offset = outcome.offset;
                totals.merged_stubs += outcome.merged_stubs as u64;
            }
            Err(error) => {
                self.jobs.snapshot = JobState::after(now, RETRY_MS, false);
                self.notices.push(Notice::SnapshotFailed { reason: error.to_string() });
            }
        }
    }
}
