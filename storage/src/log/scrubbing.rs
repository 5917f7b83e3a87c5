//! When sealed segments are read again, and what follows.

use std::{path::PathBuf, sync::Arc};

use super::{Close, JobState, Log, Notice, Now};
use crate::{
    index::SegmentEnd,
    io::Disk,
    offset::Offset,
    op::Job,
    pace::Pace,
    scrub::{ScrubJob, ScrubOutcome},
    segment::SegmentName,
    segment_set::SealedSegment,
};

/// The first pass begins so long after the log was opened: a start has enough to do.
pub(super) const SCRUB_FIRST_MS: u64 = 3_600_000;

/// How far a pass has come.
pub(super) struct Scrubbing<D: Disk> {
    /// The segment that it is in, and where the next step begins.
    place: Option<(Arc<SealedSegment<D>>, SegmentEnd)>,
    /// Everything before it has been read.
    done: Offset,
    bytes: u64,
    /// How often damage had been found when it came to its segment.
    damages_at_begin: u64,
    /// The snapshots that were found to be damaged when they were read last.
    damaged_snapshots: Vec<PathBuf>,
    totals: ScrubTotals,
}

impl<D: Disk> Default for Scrubbing<D> {
    fn default() -> Self {
        let totals = ScrubTotals::default();
        let damaged_snapshots = Vec::new();
        Scrubbing {
            place: None,
            done: Offset::ZERO,
            bytes: 0,
            damages_at_begin: 0,
            damaged_snapshots,
            totals,
        }
    }
}

/// What scrubbing has done since the log was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubTotals {
    /// Bytes that were read.
    pub bytes: u64,
    /// Passes over all sealed segments.
    pub passes: u64,
}

impl<D: Disk> Log<D> {
    /// What scrubbing has done since the log was opened.
    pub fn scrub_totals(&self) -> ScrubTotals {
        self.scrubbing.totals
    }

    pub(super) fn next_scrub(&mut self) -> Option<Job<D>> {
        if self.jobs.scrub != JobState::Idle || self.close != Close::Open {
            return None;
        }
        let (segment, from) = match self.scrubbing.place.take() {
            Some((segment, from)) => (segment, Some(from)),
            None => match self.segments.first_ending_behind(self.scrubbing.done) {
                Some(segment) => (Arc::clone(segment), None),
                None => {
                    // What there was behind it has gone meanwhile.
                    self.scrubbing.done = Offset::ZERO;
                    (Arc::clone(self.segments.iter().next()?), None)
                }
            },
        };
        self.jobs.scrub = JobState::Running;
        if from.is_none() {
            self.scrubbing.damages_at_begin = self.compaction.damages;
        }
        let begins = from.is_none() && self.scrubbing.done == Offset::ZERO;
        let snapshots = begins.then(|| self.dir.clone());
        Some(Job::Scrub(ScrubJob {
            segment,
            from,
            snapshots,
            pace: Pace::beside(&self.frames_begun, false).assuming_appends(),
        }))
    }

    /// A segment goes: scrubbing does not keep it open between two steps.
    pub(super) fn forget_scrubbing(&mut self, name: SegmentName) {
        self.scrubbing.place.take_if(|(segment, _)| segment.name() == name);
    }

    pub(super) fn scrubbed(&mut self, outcome: ScrubOutcome<D>, now: Now) {
        let ScrubOutcome { segment, next, bytes, damage, snapshots } = outcome;
        self.scrubbing.bytes += bytes;
        self.scrubbing.totals.bytes += bytes;
        // One that was replaced or removed meanwhile is not damaged: its files are gone.
        let is_current = self.segments.iter().any(|known| Arc::ptr_eq(known, &segment));
        match damage {
            Some(reason) if is_current => self.note_damage(segment.name(), reason),
            // Every step since its begin has found nothing, or there would be no such step as this one; and
            // nobody else has.
            None if is_current
                && next.is_none()
                && self.compaction.damages == self.scrubbing.damages_at_begin =>
            {
                self.note_sound(segment.name());
            }
            _ => {}
        }
        if let Some(damaged) = snapshots {
            let now_damaged = damaged.iter().map(|damage| damage.file.clone()).collect();
            let known = std::mem::replace(&mut self.scrubbing.damaged_snapshots, now_damaged);
            let news = damaged.into_iter().filter(|damage| !known.contains(&damage.file));
            self.notices.extend(news.map(Notice::SnapshotDamaged));
        }
        match next {
            Some(end) if is_current => self.scrubbing.place = Some((segment, end)),
            // It was rewritten meanwhile: what has taken its place is read from its begin on.
            _ if !is_current && self.segments.find(segment.base()).is_some() => {}
            _ => self.scrubbing.done = segment.end(),
        }
        let rest_ms = bytes.saturating_mul(1_000) / self.config.scrub_bytes_per_s;
        let is_over = self.scrubbing.place.is_none() && self.scrubbing.done >= self.segments.end();
        if !is_over {
            self.jobs.scrub = JobState::after(now, rest_ms.max(1), false);
            return;
        }
        let bytes = std::mem::take(&mut self.scrubbing.bytes);
        self.scrubbing.done = Offset::ZERO;
        self.scrubbing.totals.passes += 1;
        let damaged = self.damaged_segments();
        self.notices.push(Notice::Scrubbed { bytes, damaged });
        let interval_ms = self.config.scrub_interval_s.saturating_mul(1_000).max(1);
        self.jobs.scrub = JobState::after(now, interval_ms, false);
    }
}
