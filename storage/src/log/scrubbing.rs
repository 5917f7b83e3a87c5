//! When sealed segments are read again, and what follows.

use std::{path::PathBuf, sync::Arc};

use super::{Close, JobState, Log, Notice, Now};
use crate::{
    error::Corruption,
    index::SegmentEnd,
    io::Disk,
    offset::Offset,
    op::Job,
    pace::Pace,
    scrub::{ScrubJob, ScrubOutcome},
    segment::SegmentName,
    segment_set::{SealedSegment, SegmentSet},
};

/// The first pass begins so long after the log was opened: a start has enough to do.
pub(super) const SCRUB_FIRST_MS: u64 = 3_600_000;

/// How far a pass has come. The first one since the log was opened begins somewhere in it, goes on to its end, and then from
/// the first segment to where it began: with restarts that end it before it is done all segments are read in the end.
pub(super) struct Scrubbing<D: Disk> {
    /// The segment that it is in, and where the next step begins.
    place: Option<(Arc<SealedSegment<D>>, SegmentEnd)>,
    /// Where the first pass begins, of 2^64 parts of the log.
    first_part: u64,
    /// Where the pass began; `None` between two of them.
    begin: Option<Offset>,
    /// It has come to the end of the log, and goes on from the first segment.
    has_turned: bool,
    /// Everything before it has been read, of what is behind the begin, or before it once that is what is read.
    done: Offset,
    bytes: u64,
    /// How often damage had been found when it came to its segment.
    damages_at_begin: u64,
    /// The snapshots that were found to be damaged when they were read last.
    damaged_snapshots: Vec<PathBuf>,
    /// Which snapshots there are could not be asked when they were to be read last.
    are_snapshots_unread: bool,
    totals: ScrubTotals,
}

impl<D: Disk> Scrubbing<D> {
    /// Of a log that was opened now.
    pub(super) fn new(now: Now) -> Scrubbing<D> {
        Scrubbing {
            place: None,
            // Spreads times evenly that lie close to each other, or as far from each other as the ones before.
            first_part: now.wall_ms.wrapping_mul(0x9E37_79B9_7F4A_7C15),
            begin: None,
            has_turned: false,
            done: Offset::ZERO,
            bytes: 0,
            damages_at_begin: 0,
            damaged_snapshots: Vec::new(),
            are_snapshots_unread: false,
            totals: ScrubTotals::default(),
        }
    }

    /// Begins a pass over the segments, of which there are some.
    fn begin(&mut self, segments: &SegmentSet<D>, first: &SealedSegment<D>) {
        let offsets = u128::from(segments.end().since(segments.start()));
        let part = (offsets * u128::from(std::mem::take(&mut self.first_part))) >> 64;
        let from = segments.start().plus(u64::try_from(part).expect("a part of them"));
        // Behind the last that is there there may be some of which all is gone.
        let begin =
            segments.first_ending_behind(from).map_or(first.base(), |segment| segment.base());
        (self.begin, self.done, self.has_turned) = (Some(begin), begin, false);
    }

    /// The segment that a pass reads next: those from its begin on, and then those before it.
    fn next<'a>(&mut self, segments: &'a SegmentSet<D>) -> Option<&'a Arc<SealedSegment<D>>> {
        let next = segments.first_ending_behind(self.done);
        if next.is_some() && !self.has_turned {
            return next;
        }
        if !self.has_turned {
            (self.has_turned, self.done) = (true, Offset::ZERO);
        }
        let begin = self.begin?;
        segments.first_ending_behind(self.done).filter(|segment| segment.base() < begin)
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
        let first = self.segments.iter().next()?;
        let begins = self.scrubbing.begin.is_none();
        if begins {
            self.scrubbing.begin(&self.segments, first);
        }
        let (segment, from) = match self.scrubbing.place.take() {
            Some((segment, from)) => (segment, Some(from)),
            // What was left has gone meanwhile: the pass is over once something was read.
            None => (Arc::clone(self.scrubbing.next(&self.segments).unwrap_or(first)), None),
        };
        self.jobs.scrub = JobState::Running;
        if from.is_none() {
            self.scrubbing.damages_at_begin = self.compaction.damages;
        }
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
        if let Some(checked) = snapshots {
            self.note_snapshots(checked);
        }
        match next {
            Some(end) if is_current => self.scrubbing.place = Some((segment, end)),
            // It was rewritten meanwhile: what has taken its place is read from its begin on.
            _ if !is_current && self.segments.find(segment.base()).is_some() => {}
            _ => self.scrubbing.done = segment.end(),
        }
        let rest_ms = bytes.saturating_mul(1_000) / self.config.scrub_bytes_per_s;
        let scrubbing = &mut self.scrubbing;
        if scrubbing.place.is_some() || scrubbing.next(&self.segments).is_some() {
            self.jobs.scrub = JobState::after(now, rest_ms.max(1), false);
            return;
        }
        let bytes = std::mem::take(&mut self.scrubbing.bytes);
        self.scrubbing.begin = None;
        self.scrubbing.totals.passes += 1;
        let damaged = self.damaged_segments();
        self.notices.push(Notice::Scrubbed { bytes, damaged });
        let interval_ms = self.config.scrub_interval_s.saturating_mul(1_000).max(1);
        self.jobs.scrub = JobState::after(now, interval_ms, false);
    }

    /// Tells what is damaged in snapshots, or that they were not read, once as long as it stays so.
    fn note_snapshots(&mut self, checked: Result<Vec<Corruption>, String>) {
        let was_unread = self.scrubbing.are_snapshots_unread;
        self.scrubbing.are_snapshots_unread = checked.is_err();
        match checked {
            Ok(damaged) => {
                let now_damaged = damaged.iter().map(|damage| damage.file.clone()).collect();
                let known = std::mem::replace(&mut self.scrubbing.damaged_snapshots, now_damaged);
                let news = damaged.into_iter().filter(|damage| !known.contains(&damage.file));
                self.notices.extend(news.map(Notice::SnapshotDamaged));
            }
            // What is known of them stays known.
            Err(_) if was_unread => {}
            Err(reason) => self.notices.push(Notice::SnapshotsUnread { reason }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        io::sim::{SimDisk, rng::SimRng},
        log::tests::now,
        testing::TestLog,
    };

    /// One that was to begin where all is gone never ended.
    #[test]
    fn a_pass_reads_each_segment_once_wherever_it_begins() {
        let mut log = TestLog::new(5);
        for _ in 0..5 {
            log.add_sealed(&[vec![("a", vec![]); 10]]);
        }
        let set = log.set();
        let names: Vec<_> = set.iter().map(|segment| segment.name()).collect();
        for gone in [vec![], vec![4], vec![3, 4], vec![0], vec![2, 4]] {
            let set = gone.iter().fold((*set).clone(), |set, at| set.without(names[*at]));
            let mut begins = std::collections::BTreeSet::new();
            for opened_at in 0..50 {
                let mut scrubbing = Scrubbing::<SimDisk>::new(now(opened_at));
                scrubbing.begin(&set, set.iter().next().expect("some are left"));
                begins.insert(scrubbing.begin);
                let mut read = Vec::new();
                while let Some(segment) = scrubbing.next(&set) {
                    read.push(segment.base());
                    scrubbing.done = segment.end();
                    assert!(read.len() <= set.len(), "without {gone:?}: {read:?}");
                }
                read.sort_unstable();
                assert!(
                    read.into_iter().eq(set.iter().map(|segment| segment.base())),
                    "without {gone:?}"
                );
            }
            assert_eq!(begins.len(), set.len(), "it may begin with any");
        }
    }

    /// A server that is restarted each day, more or less, of whose log a day is enough to read a part: how many days at most
    /// lie between two times at which a segment is read.
    fn days_without(part: usize) -> u64 {
        const DAY_MS: u64 = 24 * 3_600_000;
        const DAYS: u64 = 1_000;
        let mut log = TestLog::new(5);
        for _ in 0..40 {
            log.add_sealed(&[vec![("a", vec![]); 10]]);
        }
        let (set, rng) = (log.set(), &mut SimRng::new(1));
        let mut last_day = vec![0; set.len()];
        let mut days_max = 0;
        for day in 1..=DAYS {
            let started = day * DAY_MS + rng.below(60_000);
            let mut scrubbing = Scrubbing::<SimDisk>::new(now(started));
            scrubbing.begin(&set, set.iter().next().expect("the first"));
            for _ in 0..set.len() / part {
                let Some(next) = scrubbing.next(&set).cloned() else { break };
                scrubbing.done = next.end();
                let place = set.iter().position(|segment| segment.base() == next.base());
                let last = &mut last_day[place.expect("it is one of them")];
                days_max = days_max.max(day - std::mem::replace(last, day));
            }
        }
        last_day.into_iter().map(|last| DAYS - last).fold(days_max, u64::max)
    }

    #[test]
    fn daily_restarts_leave_no_segment_unread_for_long() {
        assert_eq!(days_without(1), 1, "all of it each day");
        let (half, third) = (days_without(2), days_without(3));
        assert!(half <= 13 && third <= 24, "{half} and {third} days");
    }
}
