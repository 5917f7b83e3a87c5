//! When sealed segments are looked at for rewriting, and what follows.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{Close, JobState, Log, Notice, Now};
use crate::{
    compact::{CompactJob, CompactOutcome},
    compaction::{Limits, Look, NoSpace},
    control::{Control, TopicRule},
    error::OpenError,
    io::Disk,
    offset::Offset,
    op::Job,
    pace::Pace,
    retire::Leftover,
    segment::SegmentName,
    topic::{TopicNumber, TopicPattern},
};

/// Segments are looked at so often.
const LOOK_MS: u64 = 10_000;
/// A rewrite that failed is tried again after so long.
const RETRY_MS: u64 = 60_000;
/// A removal that failed is tried again after so long.
const CLEAR_RETRY_MS: u64 = 10_000;

/// So many topics are looked at for whether any of those of a pattern has events in a sealed segment.
const LOOSENED_TOPICS_MAX: usize = 1_000;

/// What compaction knows of the segments.
#[derive(Debug, Default)]
pub(super) struct Compaction {
    /// Those that are damaged.
    damaged: HashSet<SegmentName>,
    /// How often one was found to be.
    pub(super) damages: u64,
    /// Those that found no space, since they were last judged to have some.
    no_space: HashMap<SegmentName, NoSpace>,
    /// When they were last looked through.
    looked_at: HashMap<SegmentName, Look>,
    /// Where the one begins that was looked through last, outdated or not.
    last_look: Option<Offset>,
    /// How far the sealed part reached, and how many rewrites there were, when floors were looked at last.
    settled: Option<(Offset, u64)>,
    /// The same of the look that is under way.
    settling: Option<(Offset, u64)>,
    /// Topics that have lost events since they were counted.
    lessened: HashSet<TopicNumber>,
    /// The rules have changed since the one that is under way began: what it finds is outdated.
    is_outdated: bool,
    /// The last one failed, and is tried again when it is time.
    has_failed: bool,
    /// The one that is under way takes what it needs of the machine: the disk was full when it began.
    is_urgent: bool,
    /// Ends the one that is under way.
    is_cancelled: Arc<AtomicBool>,
    /// What could not be removed: until it is, nothing is judged and no floor forgotten.
    left: Option<Leftover>,
    /// How many rewrites there were, and what they came to, since the log was opened.
    totals: CompactionTotals,
    /// How many segments are stubs since then.
    retired: u64,
}

/// What compaction has done since the log was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactionTotals {
    /// Segments that were rewritten or removed.
    pub segments: u64,
    /// The length of their files before.
    pub bytes_before: u64,
    /// And after.
    pub bytes_after: u64,
}

impl Compaction {
    /// Of a log in which these topics have lost events since they were counted.
    pub(super) fn new(lessened: HashSet<TopicNumber>) -> Compaction {
        Compaction { lessened, ..Compaction::default() }
    }
}

impl<D: Disk> Log<D> {
    /// What compaction has done since the log was opened.
    pub fn compaction_totals(&self) -> CompactionTotals {
        self.compaction.totals
    }

    /// How many segments were removed whole since the log was opened, by limits of the log or by compaction.
    pub fn retired_segments(&self) -> u64 {
        self.compaction.retired
    }

    pub(super) fn note_retired(&mut self, name: SegmentName) {
        self.compaction.retired += 1;
        self.note_gone(name);
    }

    /// The sealed segments that are known to be damaged.
    pub fn damaged_segments(&self) -> usize {
        self.compaction.damaged.len()
    }

    fn note_look(&mut self, name: SegmentName, now: Now) {
        if self.compaction.is_outdated {
            return;
        }
        let (at_ms, notice) = self.clock.limit_time(now);
        self.notices.extend(notice.map(Notice::Clock));
        self.compaction.looked_at.insert(name, Look { end: self.segments.end(), at_ms });
    }

    /// A topic could not be counted: it is tried again.
    pub fn note_lessened(&mut self, number: TopicNumber) {
        self.compaction.lessened.insert(number);
    }

    /// The rules have changed: if for events in sealed segments, what was looked through is looked through again.
    pub(super) fn rules_changed(&mut self, for_sealed: bool) {
        if for_sealed {
            self.compaction.looked_at.clear();
            self.compaction.is_outdated = true;
        }
        (self.compaction.settled, self.compaction.settling) = (None, None);
    }

    /// Whether a topic has lost events since it was counted last; says so once.
    pub fn take_lessened(&mut self, number: TopicNumber) -> bool {
        self.compaction.lessened.remove(&number)
    }

    /// Whether a segment may be rewritten or removed.
    pub(super) fn is_sound(&self, name: SegmentName) -> bool {
        !self.compaction.damaged.contains(&name)
    }

    /// A sealed segment turned out to be damaged.
    pub fn note_damage(&mut self, name: SegmentName, reason: String) {
        self.compaction.damages += 1;
        if self.compaction.damaged.insert(name) {
            self.notices.push(Notice::Damaged { name, reason });
        }
    }

    /// All of a segment was read, and is right: what had been found was not on the disk, or was mended there.
    pub(super) fn note_sound(&mut self, name: SegmentName) {
        if self.compaction.damaged.remove(&name) {
            self.notices.push(Notice::SoundAgain { name });
        }
    }

    /// Whether what is said is for events that may be in a sealed segment, and are not gone: no rewrite lets others go by it,
    /// and none is worth more or less by it. To be asked before it holds.
    pub(super) fn has_sealed_events_of(&self, control: &Control) -> bool {
        let is_sealed = |topic: &str| {
            let kept = self.topics.get(topic).map(|found| found.first.max(self.keeps_from(topic)));
            kept.is_some_and(|first| first < self.unsealed_start())
        };
        let pattern = match control {
            Control::Log(_) => return true,
            Control::Topic(TopicRule { pattern, .. }) => pattern,
            Control::Deleted(deleted) => {
                return deleted.topics.iter().any(|topic| is_sealed(topic));
            }
            Control::Trimmed(trimmed) => return is_sealed(&trimmed.topic),
        };
        if !pattern.contains('*') {
            return is_sealed(pattern);
        }
        let Ok(pattern) = TopicPattern::parse(pattern) else { return false };
        let numbers = self.topics.matching(&pattern, LOOSENED_TOPICS_MAX);
        numbers.is_none_or(|numbers| {
            numbers.into_iter().filter_map(|number| self.topics.name_of(number)).any(is_sealed)
        })
    }

    /// The rules have changed: sealed segments are looked at by them at once, but for a rewrite that has failed.
    pub(super) fn look_at_sealed(&mut self) {
        if !self.compaction.has_failed {
            self.compact_at_once();
        }
    }

    /// Ends the rewrite that is under way.
    pub(super) fn cancel_compaction(&self) {
        self.compaction.is_cancelled.store(true, Ordering::Relaxed);
    }

    /// The disk has become full: a rewrite that rests and goes by offset is begun anew by what frees most.
    pub(super) fn hurry_compaction(&self) {
        if self.jobs.compact == JobState::Running && !self.compaction.is_urgent {
            self.cancel_compaction();
        }
    }

    pub(super) fn next_compaction(&mut self, now: Now) -> Option<Job<D>> {
        let is_idle = self.jobs.compact == JobState::Idle && self.jobs.retire != JobState::Running;
        if !is_idle || self.close != Close::Open || self.segments.is_empty() {
            return None;
        }
        if !self.are_rules_synced() || self.compaction.left.is_some() {
            return None;
        }
        let (now_ms, notice) = self.clock.limit_time(now);
        self.notices.extend(notice.map(Notice::Clock));
        self.jobs.compact = JobState::Running;
        self.compaction.is_cancelled = Arc::default();
        self.compaction.is_outdated = false;
        self.compaction.has_failed = false;
        self.compaction.is_urgent = self.jobs.disk_full;
        let at = (self.segments.end(), self.compaction.totals.segments);
        let settles = !self.state.rules.floors().is_empty() && self.compaction.settled != Some(at);
        self.compaction.settling = settles.then_some(at);
        let limits = Limits { rules: self.state.rules.clone(), keep_from: self.start(), now_ms };
        Some(Job::Compact(Box::new(CompactJob {
            dir: self.dir.clone(),
            segments: Arc::clone(&self.segments),
            limits,
            recorded: self.kept.durable,
            // On a full disk a segment that gets shorter is worth more than one that is read fast.
            compress_after_ms: match self.jobs.disk_full {
                true => 0,
                false => self.config.compress_after_s.saturating_mul(1_000),
            },
            skipped: self.compaction.damaged.clone(),
            no_space: self.compaction.no_space.clone(),
            now_boot_ms: now.boot_ms,
            is_disk_full: self.jobs.disk_full,
            looked_at: self.compaction.looked_at.clone(),
            last_look: self.compaction.last_look,
            stub_limits: self.stub_limits(),
            settles,
            pace: Pace::beside(&self.frames_begun, self.jobs.disk_full),
            is_cancelled: Arc::clone(&self.compaction.is_cancelled),
        })))
    }

    /// Nothing is left of these topics below these floors, but in segments that are gone and still read.
    fn settle(&mut self, mut settled: Vec<(String, Offset)>) {
        let looked_at = self.compaction.settling.take();
        let read_from = self.gone.iter().map(|segment| segment.base()).min();
        let found = settled.len();
        settled.retain(|(_, floor)| read_from.is_none_or(|base| *floor <= base));
        let is_whole =
            settled.len() == found && !self.compaction.is_cancelled.load(Ordering::Relaxed);
        self.compaction.settled = looked_at.filter(|_| is_whole);
        self.state.rules.forget_floors(&settled);
    }

    /// Forgets the floors that limits of the log have passed, once no file holds what they hide: a reader that was under way
    /// then, or that goes backward, goes by them.
    pub(super) fn forget_floors(&mut self) {
        let segments = self.segments.iter().chain(&self.gone);
        let read_from = segments.map(|segment| segment.base()).min();
        let read_from = read_from.unwrap_or(Offset::MAX).min(self.unsealed_start());
        let passed = read_from.min(self.start());
        if self.state.rules.forget_below(passed) {
            // Frames that are still in memory may hold it as well.
            self.state.rules.settle_to(passed);
        }
    }

    /// Removes what the last look has left, if anything; also when the log closes, or the next start would find it.
    pub(super) fn next_clear(&mut self) -> Option<Job<D>> {
        let left = self.compaction.left.filter(|_| self.jobs.clear == JobState::Idle)?;
        self.jobs.clear = JobState::Running;
        Some(Job::Clear { dir: self.dir.clone(), left })
    }

    /// Nothing is left, or removing it has failed: a log that closes does not wait for another try.
    pub(super) fn is_cleared(&self) -> bool {
        self.compaction.left.is_none() || self.jobs.clear != JobState::Idle
    }

    pub(super) fn cleared(&mut self, result: Result<(), OpenError>, now: Now) {
        match result {
            Ok(()) => {
                self.jobs.clear = JobState::Idle;
                self.compaction.left = None;
                self.retry_for_space();
            }
            Err(error) => {
                self.note_full(&error);
                self.jobs.clear = JobState::after(now, CLEAR_RETRY_MS, false);
                self.notices.push(Notice::CompactFailed { reason: error.to_string() });
            }
        }
    }

    pub(super) fn compacted(&mut self, result: Result<CompactOutcome<D>, OpenError>, now: Now) {
        // There may be more to do at once.
        self.jobs.compact = JobState::Idle;
        let done = match result {
            Ok(CompactOutcome::Nothing { settled }) => {
                // One that was cancelled has not looked at everything.
                if !self.compaction.is_cancelled.load(Ordering::Relaxed) {
                    self.jobs.compact = JobState::after(now, LOOK_MS, false);
                }
                return self.settle(settled);
            }
            Ok(CompactOutcome::Looked { name, settled }) => {
                self.compaction.last_look = Some(name.base_offset);
                self.note_look(name, now);
                let known = self.compaction.settled;
                self.settle(settled);
                // One that had no need to look for floors leaves that so.
                self.compaction.settled = self.compaction.settled.or(known);
                return;
            }
            Ok(CompactOutcome::Damaged { name, reason }) => return self.note_damage(name, reason),
            Ok(CompactOutcome::Replaced { segment, dropped, topics, bytes: (before, after) }) => {
                self.compaction.lessened.extend(topics);
                let name = segment.name();
                self.note_gone(SegmentName { generation: name.generation - 1, ..name });
                if dropped > 0 {
                    // Frames in memory and what was encoded of them still have those events.
                    self.state.rules.settle_to(segment.end());
                }
                self.segments =
                    Arc::new(self.segments.with_replaced(segment).passed(self.keep_from));
                self.note_look(name, now);
                (name, Some(dropped), before, after)
            }
            Ok(CompactOutcome::Retired { name, topics, bytes, left }) => {
                self.compaction.left = left;
                self.compaction.lessened.extend(topics);
                self.note_retired(name);
                if let Some(segment) = self.segments.find(name.base_offset) {
                    self.state.rules.settle_to(segment.end());
                }
                self.segments = Arc::new(self.segments.without(name).passed(self.keep_from));
                (name, None, bytes, 0)
            }
            Ok(CompactOutcome::NoSpace { name, error, found }) => {
                return self.compaction_found_no_space(name, &error, found, now);
            }
            Ok(CompactOutcome::Left { error, left }) => {
                self.compaction.left = Some(left);
                return self.compaction_failed(&error, now);
            }
            Err(error) => return self.compaction_failed(&error, now),
        };
        let (name, dropped, bytes_before, bytes_after) = done;
        let totals = &mut self.compaction.totals;
        totals.segments += 1;
        totals.bytes_before += bytes_before;
        totals.bytes_after += bytes_after;
        let is_there = |known| self.segments.iter().any(|segment| segment.name() == known);
        self.compaction.looked_at.retain(|known, _| is_there(*known));
        self.compaction.no_space.retain(|known, _| is_there(*known));
        self.retry_for_space();
        self.notices.push(Notice::Compacted { name, dropped, bytes_before, bytes_after });
    }

    /// What is known of that counts only if there is no reserve to try it with. Others may need less.
    fn compaction_found_no_space(
        &mut self,
        name: SegmentName,
        error: &OpenError,
        found: NoSpace,
        now: Now,
    ) {
        if self.jobs.reserve_bytes > 0 {
            return self.compaction_failed(error, now);
        }
        self.compaction.no_space.insert(name, found);
        self.notices.push(Notice::CompactFailed { reason: error.to_string() });
    }

    fn compaction_failed(&mut self, error: &OpenError, now: Now) {
        self.note_full(error);
        let wait_ms = if self.jobs.disk_full { LOOK_MS } else { RETRY_MS };
        self.compaction.has_failed = true;
        self.jobs.compact = JobState::after(now, wait_ms, false);
        self.notices.push(Notice::CompactFailed { reason: error.to_string() });
    }
}
