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

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{
    compaction::{self, Limits, Look, TopicJudge},
    error::OpenError,
    event::StagedEvent,
    index::stub::StubLimits,
    io::{Access, Disk},
    offset::Offset,
    pace::{Pace, PacedFile},
    packer::Packer,
    retire::{self, Leftover, RetireJob},
    segment::SegmentName,
    segment_set::{SealedSegment, SegmentSet},
    settle,
    topic::{Topic, TopicNumber},
};

mod judging;
mod old;

use judging::Verdict;
use old::{Topics, carried, frames_of, numbers_of, read_topics};

/// See [`crate::op::Job::Compact`].
pub struct CompactJob<D: Disk> {
    pub(crate) dir: PathBuf,
    pub(crate) segments: Arc<SegmentSet<D>>,
    pub(crate) limits: Limits,
    /// Segments that were never rewritten are, once they are so old.
    pub(crate) compress_after_ms: u64,
    /// Not these.
    pub(crate) skipped: HashSet<SegmentName>,
    /// When segments were last looked through.
    pub(crate) looked_at: HashMap<SegmentName, Look>,
    /// What of the state a stub need not keep.
    pub(crate) stub_limits: StubLimits,
    /// Whether it also looks for floors that are done with.
    pub(crate) settles: bool,
    pub(crate) pace: Pace,
    /// Raised when the log closes: nobody waits for a rewrite.
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
    Looked(SegmentName),
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
    /// A rewrite failed, and so did taking it back: what is there of it has to go before anything else is done.
    Left {
        /// Why the rewrite failed.
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

impl<D: Disk> CompactJob<D> {
    /// Rewrites the first segment that needs it.
    pub(crate) fn run(self, disk: &D) -> Result<CompactOutcome<D>, OpenError> {
        let segments = Arc::clone(&self.segments);
        for (place, segment) in segments.iter().enumerate() {
            let name = segment.name();
            if self.is_cancelled.load(Ordering::Relaxed) {
                break;
            }
            if self.skipped.contains(&name) || segment.end() <= self.limits.keep_from {
                continue;
            }
            if segment.index().gaps().len() > 0 {
                continue;
            }
            let is_plain = name.generation == 1;
            if !is_plain && !self.has_topic_limits() {
                continue;
            }
            let last_ms = segment.index().header().last_time_ms;
            let is_due =
                is_plain && self.limits.now_ms >= last_ms.saturating_add(self.compress_after_ms);
            if !is_due && !self.has_topic_limits() {
                continue;
            }
            let topics = match read_topics(segment) {
                Ok(topics) => topics,
                Err(reason) => return Ok(CompactOutcome::Damaged { name, reason }),
            };
            let newer = self.newer_events(&segments, place, &topics)?;
            match self.judge(segment, &topics, &newer, is_due) {
                Verdict::Leave => {}
                Verdict::Retire => return self.retire(disk, segment, &topics),
                Verdict::Rewrite { must } => {
                    return self.rewrite(disk, segment, &topics, &newer, must);
                }
            }
        }
        let settled = match self.settles {
            true => settle::settled(&segments, self.limits.rules.floors(), &self.is_cancelled),
            false => Vec::new(),
        };
        Ok(CompactOutcome::Nothing { settled })
    }

    fn retire(
        &self,
        disk: &D,
        segment: &Arc<SealedSegment<D>>,
        topics: &Topics,
    ) -> Result<CompactOutcome<D>, OpenError> {
        let (dir, limits) = (self.dir.clone(), self.stub_limits);
        let (name, bytes) = (segment.name(), segment.file_bytes());
        let job = RetireJob { dir, segment: Arc::clone(segment), limits };
        let left = match job.put_stub(disk) {
            Ok(left) => left,
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
        newer: &HashMap<String, u64>,
        must: bool,
    ) -> Result<CompactOutcome<D>, OpenError> {
        let old = segment.name();
        let damaged = |reason: String| CompactOutcome::Damaged { name: old, reason };
        let mut judges: HashMap<&str, TopicJudge> = topics
            .iter()
            .map(|(name, summary)| {
                let newer = newer.get(name).copied().unwrap_or(0);
                let limits = self.limits.of(name);
                (name.as_str(), TopicJudge::new(limits, summary.event_count, newer))
            })
            .collect();
        // Past the page cache where that is possible: it is read once, and the pages would have to be given back.
        let direct = disk.open(&segment.log_path(), Access::Direct);
        let file = direct.map_or_else(|_| Arc::clone(segment.log_file()), Arc::new);
        let file = &PacedFile::new(file, self.pace.clone());
        let latest = match self.latest_keys(segment, file, topics) {
            Ok(latest) => latest,
            Err(reason) => return Ok(damaged(reason)),
        };
        if !must {
            let counted = self.count_dead(segment, file, judges.clone(), &latest);
            if self.is_cancelled.load(Ordering::Relaxed) {
                return Ok(CompactOutcome::Nothing { settled: Vec::new() });
            }
            match counted {
                Ok(dead) if !compaction::pays(dead, segment.index().header().event_count) => {
                    return Ok(CompactOutcome::Looked(old));
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
        let mut dropped = 0;
        let mut lessened = HashSet::new();
        for frame in frames_of(segment, file) {
            if self.is_cancelled.load(Ordering::Relaxed) {
                return Ok(CompactOutcome::Nothing { settled: Vec::new() });
            }
            let frame = match frame {
                Ok(frame) => frame,
                Err(reason) => return Ok(damaged(reason)),
            };
            let names: Vec<Topic> = frame
                .topics()
                .map(|(_, name)| Topic::parse_reserved(name).expect("a frame's topic"))
                .collect();
            for event in frame.events() {
                let judge = judges.get_mut(event.topic());
                // A topic that the index does not know has no limits that were looked at.
                if event.kind().is_data()
                    && judge.is_some_and(|judge| judge.is_dead(&event, &latest))
                {
                    dropped += 1;
                    lessened.insert(event.topic_number());
                    continue;
                }
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
        if writer.is_empty() {
            drop(writer);
            return self.retire(disk, segment, topics);
        }
        let carried = match carried(segment, topics, writer.index()) {
            Ok(carried) => carried,
            Err(error) => return Ok(damaged(format!("index: {error}"))),
        };
        let finished = writer.finish(segment.end(), &carried);
        let rewritten = match finished.and_then(|()| SealedSegment::open(disk, &self.dir, name)) {
            Ok(rewritten) => rewritten,
            Err(error) => return self.take_back(disk, name, error),
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

    /// After a rewrite that failed the old generation is the segment. The new one must not be there at the next start:
    /// it would count, without events that were read until then (limits may have become looser), or beside a stub
    /// with events that are gone.
    fn take_back(
        &self,
        disk: &D,
        name: SegmentName,
        error: OpenError,
    ) -> Result<CompactOutcome<D>, OpenError> {
        let left = Leftover::Rewrite(name);
        match left.clear(disk, &self.dir) {
            Ok(()) => Err(error),
            Err(_) => Ok(CompactOutcome::Left { error, left }),
        }
    }
}
