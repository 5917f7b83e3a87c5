//! A sealed segment is rewritten without its dead events, in long compressed frames, while it is read.
//!
//! ```text
//! 4711.1.log + .idx  --read-->  4711.2.log.tmp --sync, rename-->  4711.2.log
//!                               4711.2.idx.tmp --sync, rename-->  4711.2.idx, sync of the directory:
//!                                                                 from here on it is the segment
//!                               4711.1.log goes, and after it 4711.1.idx
//! ```
//! Offsets never change: a frame stands for a run of offsets of which it may hold few. What the events
//! that go had added to the state of the log (ids, producers, control events, topics) is carried over.
//! Readers that have the old files open go on reading them. A segment that cannot be read to its end is
//! left as it is, and so is every byte of it. One with gaps that a repair has named is left until the log as a
//! whole keeps none of it: of what topics the lost events were nobody knows, and readers have to be told of them.
//! Where the log keeps only what is behind some offset of the segment, a frame says so (`frame/kept.rs`).
//!
//! Mostly it goes by offset. A full disk has space for little, so there it goes by what a segment needs and gives
//! ([`Turn`]), and one that found too little keeps no other waiting ([`NoSpace`]). What has to be looked through is not before
//! what is known to be worth it, and its turns go round: a look takes long, may find nothing, and counts for nothing if rules
//! change meanwhile, which may be so each time.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{
    compaction::{self, Limits, Look, NoSpace, Turn},
    error::OpenError,
    event::StagedEvent,
    index::stub::StubLimits,
    io::{Access, Disk, DiskFile, Space},
    offset::Offset,
    pace::{Pace, PacedFile},
    packer::Packer,
    read_ahead::AheadFile,
    reserve::RESERVE_FILE_NAME,
    retire::{self, Leftover, RetireJob},
    segment::SegmentName,
    segment_set::{SealedSegment, SegmentSet},
    settle,
    topic::{Topic, TopicNumber},
};

mod judging;
mod old;

use judging::Newer;
use old::{Topics, carried, frames_of, numbers_of, producers, read_topics};

/// See [`crate::op::Job::Compact`].
pub struct CompactJob<D: Disk> {
    pub(crate) dir: PathBuf,
    pub(crate) segments: Arc<SegmentSet<D>>,
    pub(crate) limits: Limits,
    /// Of what the log keeps nothing before, so much is known to the next start whatever becomes of the segments.
    pub(crate) recorded: Offset,
    /// Segments that were never rewritten are, once they are so old.
    pub(crate) compress_after_ms: u64,
    /// Not these.
    pub(crate) skipped: HashSet<SegmentName>,
    /// Those that found no space: others go before them.
    pub(crate) no_space: HashMap<SegmentName, NoSpace>,
    /// The time on the boot clock.
    pub(crate) now_boot_ms: u64,
    /// What frees most of what there is needs to go first, and the reserve may be used.
    pub(crate) is_disk_full: bool,
    /// When segments were last looked through.
    pub(crate) looked_at: HashMap<SegmentName, Look>,
    /// Where the one begins that was looked through last, whether that counts or not: the next are those behind it.
    pub(crate) last_look: Option<Offset>,
    /// What of the state a stub need not keep.
    pub(crate) stub_limits: StubLimits,
    /// Whether it also looks for floors that are done with.
    pub(crate) settles: bool,
    pub(crate) pace: Pace,
    /// Raised when the log closes, as nobody waits for a rewrite then, and when limits are loosened.
    pub(crate) is_cancelled: Arc<AtomicBool>,
}

/// What a rewrite came to.
pub enum CompactOutcome<D: Disk> {
    /// Nothing needs one.
    Nothing {
        /// Nothing is left of these topics below these floors.
        settled: Vec<(String, Offset)>,
    },
    /// A segment was looked through, and few enough of its events are dead.
    Looked {
        /// Which.
        name: SegmentName,
        /// Nothing is left of these topics below these floors: should looks never end, floors do.
        settled: Vec<(String, Offset)>,
    },
    /// A segment has been rewritten.
    Replaced {
        /// Its new generation.
        segment: Arc<SealedSegment<D>>,
        /// How many events went.
        dropped: u64,
        /// The topics that had some of them.
        topics: Vec<TopicNumber>,
        /// The length of its two files before and after.
        bytes: (u64, u64),
    },
    /// All of a segment's events were dead: it is a stub now.
    Retired {
        /// Which.
        name: SegmentName,
        /// Its topics.
        topics: Vec<TopicNumber>,
        /// How long its files were.
        bytes: u64,
        /// What of it could not be removed.
        left: Option<Leftover>,
    },
    /// There was no space for what was to take a segment's place: it is as it was.
    NoSpace {
        /// Which.
        name: SegmentName,
        /// What failed.
        error: OpenError,
        /// How much there was.
        found: NoSpace,
    },
    /// A rewrite failed or was cancelled, and taking it back failed: what is there of it has to go before anything else
    /// is done.
    Left {
        /// Why the first of them that failed did.
        error: OpenError,
        /// What stays of it.
        left: Leftover,
    },
    /// A segment cannot be read to its end, and is left as it is.
    Damaged {
        /// Which.
        name: SegmentName,
        /// What is wrong.
        reason: String,
    },
}

/// What is to be done with a segment.
#[derive(Clone, Copy)]
struct Task {
    turn: Turn,
    /// Which of the segments.
    place: usize,
    /// What is known of it should it find no space.
    found: NoSpace,
}

impl<D: Disk> CompactJob<D> {
    /// Rewrites the first segment that needs it, or looks through the next that may; on a full disk the one whose turn it is.
    pub(crate) fn run(self, disk: &D) -> Result<CompactOutcome<D>, OpenError> {
        match self.run_once(disk) {
            // A read may fail, or bring a wrong bit, and the next one be right: what is called damaged stays until a scrub.
            Ok(CompactOutcome::Damaged { .. }) => self.run_once(disk),
            done => done,
        }
    }

    fn run_once(&self, disk: &D) -> Result<CompactOutcome<D>, OpenError> {
        let segments = Arc::clone(&self.segments);
        let available_bytes = self.available_bytes(disk);
        if self.has_counts()
            && let Some(task) = self.dead_whatever_counts_say(available_bytes)
        {
            return self.carry_out(disk, task);
        }
        let counted = self.has_counts().then(|| self.judge_counting(available_bytes));
        let mut next: Option<(Turn, Task)> = None;
        let mut oldest: Option<(u64, Task)> = None;
        for (place, segment) in segments.iter().enumerate() {
            if self.is_cancelled() {
                return Ok(cancelled());
            }
            if !self.is_candidate(segment) {
                continue;
            }
            let name = segment.name();
            let judged = match &counted {
                Some(counted) => counted.get(&place).cloned().unwrap_or(Ok(None)),
                None => read_topics(segment)
                    .map(|topics| self.judge(segment, &topics, &Newer::new(), available_bytes)),
            };
            let (turn, needed_bytes) = match judged {
                Ok(Some(judged)) => judged,
                Ok(None) => continue,
                Err(reason) => return Ok(CompactOutcome::Damaged { name, reason }),
            };
            let found = NoSpace { available_bytes, needed_bytes, at_boot_ms: self.now_boot_ms };
            let task = Task { turn, place, found };
            let found = self.no_space.get(&name);
            if let Some(found) = found.filter(|one| !one.is_over(available_bytes, needed_bytes)) {
                if oldest.is_none_or(|(at_boot_ms, _)| found.at_boot_ms < at_boot_ms) {
                    oldest = Some((found.at_boot_ms, task));
                }
                continue;
            }
            if turn == Turn::Retire || (turn != Turn::Look && !self.is_disk_full) {
                return self.carry_out(disk, task);
            }
            // Looks come in turns: those behind the last one, then what else there is, and then the first of them again.
            let is_passed = turn == Turn::Look && Some(segment.base()) <= self.last_look;
            let turn = if is_passed { Turn::LookAgain } else { turn };
            if next.is_none_or(|(best, _)| turn < best) {
                next = Some((turn, task));
            }
        }
        let newest = self.no_space.values().map(|found| found.at_boot_ms).max();
        let may_try_again = NoSpace::is_long_ago(newest.unwrap_or(0), self.now_boot_ms);
        let again = oldest.map(|(_, task)| task).filter(|_| may_try_again);
        let first = next.filter(|(turn, _)| *turn != Turn::LookAgain || again.is_none());
        if let Some(task) = first.map(|(_, task)| task).or(again) {
            return self.carry_out(disk, task);
        }
        Ok(CompactOutcome::Nothing { settled: self.settled() })
    }

    /// The first segment of which all is dead without any limit by count: it goes before every index is read for those. While
    /// there is space it is looked for no further than the first that is not.
    fn dead_whatever_counts_say(&self, available_bytes: u64) -> Option<Task> {
        for (place, segment) in self.segments.iter().enumerate() {
            if self.is_cancelled() {
                return None;
            }
            if !self.is_candidate(segment) {
                continue;
            }
            let Ok(topics) = read_topics(segment) else { continue };
            let found = self.no_space.get(&segment.name());
            match self.judge(segment, &topics, &Newer::new(), available_bytes) {
                Some((turn @ Turn::Retire, needed_bytes))
                    if found.is_none_or(|found| found.is_over(available_bytes, needed_bytes)) =>
                {
                    let at_boot_ms = self.now_boot_ms;
                    let found = NoSpace { available_bytes, needed_bytes, at_boot_ms };
                    return Some(Task { turn, place, found });
                }
                _ if !self.is_disk_full => return None,
                _ => {}
            }
        }
        None
    }

    /// The floors that are done with, if it looks for them.
    fn settled(&self) -> Vec<(String, Offset)> {
        match self.settles {
            true => settle::settled(&self.segments, self.limits.rules.floors(), &self.is_cancelled),
            false => Vec::new(),
        }
    }

    /// Nobody waits for it any more, or it would let go what stays: nothing is put in place from here on.
    fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Relaxed)
    }

    /// How much space there is for what takes a segment's place: on a full disk that of the reserve too.
    fn available_bytes(&self, disk: &D) -> u64 {
        let free_bytes = match disk.space(&self.dir) {
            Ok(Space { total_bytes, free_bytes }) if total_bytes > 0 => free_bytes,
            // Some file systems do not say.
            _ => return u64::MAX,
        };
        if !self.is_disk_full {
            return free_bytes;
        }
        let reserve = disk.open(&self.dir.join(RESERVE_FILE_NAME), Access::Read);
        let reserve_bytes = reserve.and_then(|file| file.allocated_bytes());
        free_bytes.saturating_add(reserve_bytes.unwrap_or(0))
    }

    fn carry_out(&self, disk: &D, task: Task) -> Result<CompactOutcome<D>, OpenError> {
        let segment = self.segments.iter().nth(task.place).expect("it was looked at");
        let topics = match read_topics(segment) {
            Ok(topics) => topics,
            Err(reason) => return Ok(CompactOutcome::Damaged { name: segment.name(), reason }),
        };
        let newer = match task.turn {
            Turn::Retire => Newer::new(),
            _ => self.newer_events(task.place, &topics),
        };
        let (topics, newer) = (&topics, &newer);
        let done = match task.turn {
            Turn::Retire => self.retire(disk, segment, topics),
            Turn::Look => {
                // Else one that has to be looked through again and again would never be compressed.
                let has_space = segment.file_bytes() <= task.found.available_bytes;
                let must = !self.is_disk_full && has_space && self.is_due(segment);
                self.rewrite(disk, segment, topics, newer, must)
            }
            _ => self.rewrite(disk, segment, topics, newer, true),
        };
        match done {
            Err(error) if error.is_full() => {
                let (name, found) = (segment.name(), task.found);
                Ok(CompactOutcome::NoSpace { name, error, found })
            }
            done => done,
        }
    }

    fn retire(
        &self,
        disk: &D,
        segment: &Arc<SealedSegment<D>>,
        topics: &Topics,
    ) -> Result<CompactOutcome<D>, OpenError> {
        if self.is_cancelled() {
            return Ok(cancelled());
        }
        let (dir, limits) = (self.dir.clone(), self.stub_limits);
        let (name, bytes) = (segment.name(), segment.file_bytes());
        let job = RetireJob { dir, segment: Arc::clone(segment), limits };
        let left = match job.put_stub_if(disk, || !self.is_cancelled()) {
            Ok(Some(left)) => left,
            Ok(None) => return Ok(cancelled()),
            Err(OpenError::Corrupt(damage)) => {
                return Ok(CompactOutcome::Damaged { name, reason: damage.to_string() });
            }
            Err(error) => return Err(error),
        };
        // It is gone, and stays so: nobody judges it anew by limits that have become looser.
        let left = left.clear(disk, &self.dir).is_err().then_some(left);
        let topics = numbers_of(topics);
        Ok(CompactOutcome::Retired { name, topics, bytes, left })
    }

    fn rewrite(
        &self,
        disk: &D,
        segment: &Arc<SealedSegment<D>>,
        topics: &Topics,
        newer: &Newer,
        must: bool,
    ) -> Result<CompactOutcome<D>, OpenError> {
        let old = segment.name();
        let damaged = |reason: String| CompactOutcome::Damaged { name: old, reason };
        let mut judges = self.judges(segment, topics, newer);
        // Past the page cache where that is possible: it is read once, and the pages would have to be given back.
        let direct = disk.open(&segment.log_path(), Access::Direct);
        let file = direct.map_or_else(|_| Arc::clone(segment.log_file()), Arc::new);
        let file = &AheadFile::new(PacedFile::new(file, self.pace.clone()));
        let latest = match self.latest_keys(segment, file, topics) {
            Ok(latest) => latest,
            Err(reason) => return Ok(damaged(reason)),
        };
        if !must {
            let counted = self.count_dead(segment, file, judges.clone(), &latest);
            if self.is_cancelled() {
                return Ok(cancelled());
            }
            match counted {
                Ok(dead) if !compaction::pays(dead, segment.index().header().event_count) => {
                    return Ok(CompactOutcome::Looked { name: old, settled: self.settled() });
                }
                Ok(_) => {}
                Err(reason) => return Ok(damaged(reason)),
            }
        }
        let name = SegmentName { generation: old.generation + 1, ..old };
        let mut writer =
            Packer::create(disk, &self.dir, name, segment.header(), self.pace.clone())?;
        let kept_from = segment.index().kept_from().unwrap_or_default();
        writer.keep_from(kept_from.max(self.limits.keep_from));
        let controls_from = self.controls_kept_from(segment);
        let (mut dropped, mut is_left) = (0, self.says_alone(segment));
        let mut lessened = HashSet::new();
        for frame in frames_of(segment, file) {
            if self.is_cancelled() {
                return Ok(cancelled());
            }
            let frame = match frame {
                Ok(frame) => frame,
                Err(reason) => return Ok(damaged(reason)),
            };
            let names: Vec<Topic> = frame.topics().map(|(_, name)| Topic::of_known(name)).collect();
            for (event, is_dead) in judges.judge(&frame, &latest) {
                if is_dead {
                    dropped += 1;
                    lessened.insert(event.topic_number());
                    continue;
                }
                is_left |= event.kind().is_data() || event.offset() >= controls_from;
                let topic = &names[event.topic_index()];
                let staged = StagedEvent {
                    offset: event.offset(),
                    time_ms: event.time_ms(),
                    topic_number: event.topic_number(),
                    event: event.to_new(topic),
                };
                writer.push(staged, frame.header().commit_time_ms)?;
            }
        }
        if !is_left {
            drop(writer);
            return self.retire(disk, segment, topics);
        }
        let carried = carried(segment, topics, writer.index());
        let carried = carried.and_then(|carried| Ok((carried, producers(segment, writer.seed())?)));
        let (carried, producers) = match carried {
            Ok(carried) => carried,
            Err(error) => return Ok(damaged(format!("index: {error}"))),
        };
        let is_wanted = || !self.is_cancelled();
        let rewritten = match writer.finish_if(segment.end(), &carried, producers, is_wanted) {
            Ok(false) => return Ok(cancelled()),
            Ok(true) => SealedSegment::open(disk, &self.dir, name),
            Err(error) => Err(error),
        };
        let rewritten = match rewritten {
            // A limit that has become looser since: what goes by the former one may be read by now.
            Ok(_) if self.is_cancelled() => return self.take_back(disk, name, None),
            Ok(rewritten) => rewritten,
            Err(error) => return self.take_back(disk, name, Some(error)),
        };
        // The new generation is the segment now, whatever becomes of the old one: the next start removes
        // what stays of it.
        for file_name in [old.log_file_name(), old.index_file_name()] {
            let _ = retire::remove(disk, &self.dir.join(file_name));
        }
        let _ = disk.sync_dir(&self.dir);
        let bytes = (segment.file_bytes(), rewritten.file_bytes());
        let topics = lessened.into_iter().collect();
        Ok(CompactOutcome::Replaced { segment: Arc::new(rewritten), dropped, topics, bytes })
    }

    /// After a rewrite that failed, or was cancelled, the old generation is the segment. The new one must not be there at
    /// the next start: it would count, without events that were read until then (limits may have become looser), or
    /// beside a stub with events that are gone.
    fn take_back(
        &self,
        disk: &D,
        name: SegmentName,
        failed: Option<OpenError>,
    ) -> Result<CompactOutcome<D>, OpenError> {
        let left = Leftover::Rewrite(name);
        match (left.clear(disk, &self.dir), failed) {
            (Ok(()), None) => Ok(cancelled()),
            (Ok(()), Some(error)) => Err(error),
            (Err(again), failed) => {
                Ok(CompactOutcome::Left { error: failed.unwrap_or(again), left })
            }
        }
    }
}

fn cancelled<D: Disk>() -> CompactOutcome<D> {
    CompactOutcome::Nothing { settled: Vec::new() }
}
