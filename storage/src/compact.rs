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
    compaction::{self, Hidden, LatestKeys, Limits, Look, TopicJudge},
    error::OpenError,
    event::StagedEvent,
    frame::Frame,
    index::{
        Carried, IndexBuilder, IndexError, IndexHeader, SectionKind, TopicSummary,
        gone::{self, GoneTopic},
        stub::StubLimits,
    },
    io::{Access, Disk, DiskFile},
    offset::Offset,
    pace::{Pace, PacedFile},
    packer::Packer,
    reader::{ReadQuery, Reader},
    retire::{self, Leftover, RetireJob},
    scan::FrameScan,
    segment::SegmentName,
    segment_set::{SealedSegment, SegmentSet},
    selection::Order,
    settle,
    topic::{Topic, TopicNumber, TopicPattern},
};

/// So much is read at once: a commit that comes meanwhile waits for it.
const READ_BYTES: usize = 256 << 10;
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

/// What is to be done with a segment.
enum Verdict {
    Leave,
    Retire,
    /// Rewrite it; unless `must`, only if it turns out to pay.
    Rewrite {
        must: bool,
    },
}

/// The topics of a segment, from its index.
type Topics = Vec<(String, TopicSummary)>;

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

    fn has_topic_limits(&self) -> bool {
        let rules = &self.limits.rules;
        rules.topics().len() > 0 || !rules.floors().is_empty()
    }

    /// How many events each topic with a limit by count has in the segments behind one.
    fn newer_events(
        &self,
        segments: &SegmentSet<D>,
        place: usize,
        topics: &Topics,
    ) -> Result<HashMap<String, u64>, OpenError> {
        let limited = topics.iter().filter(|(name, _)| self.limits.of(name).count_max.is_some());
        let mut newer: HashMap<String, u64> = limited.map(|(name, _)| (name.clone(), 0)).collect();
        if newer.is_empty() {
            return Ok(newer);
        }
        for segment in segments.iter().skip(place + 1) {
            if self.is_cancelled.load(Ordering::Relaxed) {
                break;
            }
            // An index that cannot be read counts nothing: more is kept.
            for (name, summary) in read_topics(segment).unwrap_or_default() {
                if let Some(count) = newer.get_mut(&name) {
                    *count += summary.event_count;
                }
            }
        }
        Ok(newer)
    }

    fn judge(
        &self,
        segment: &SealedSegment<D>,
        topics: &Topics,
        newer: &HashMap<String, u64>,
        is_due: bool,
    ) -> Verdict {
        let header = segment.index().header();
        let (mut dead, mut events, mut hidden) = (0, 0, Hidden::default());
        // Control events stay as long as their segment.
        for (name, summary) in topics.iter().filter(|(name, _)| !name.starts_with('$')) {
            let limits = self.limits.of(name);
            events += summary.event_count;
            dead += limits.dead_at_least(summary, newer.get(name).copied().unwrap_or(0));
            hidden = hidden.or(limits.hides(summary, header.first_time_ms));
        }
        if dead == header.event_count {
            return Verdict::Retire;
        }
        let now = Look { end: self.segments.end(), at_ms: self.limits.now_ms };
        let span_ms = header.last_time_ms.saturating_sub(header.first_time_ms);
        let is_worth_a_look = match self.looked_at.get(&segment.name()) {
            Some(look) => look.is_over(hidden, segment.base(), span_ms, now),
            None => hidden != Hidden::default(),
        };
        if is_due || compaction::pays(dead, events) {
            Verdict::Rewrite { must: true }
        } else if is_worth_a_look {
            Verdict::Rewrite { must: false }
        } else {
            Verdict::Leave
        }
    }

    /// The newest event of each of the segment's keys, in topics of which only that is kept.
    fn latest_keys(
        &self,
        segment: &SealedSegment<D>,
        file: &PacedFile<D::File>,
        topics: &Topics,
    ) -> Result<LatestKeys, String> {
        let mut latest = LatestKeys::default();
        let ruled: HashMap<&str, TopicPattern> = topics
            .iter()
            .filter(|(name, _)| self.limits.of(name).latest_per_key)
            .filter_map(|(name, _)| Some((name.as_str(), TopicPattern::parse(name).ok()?)))
            .collect();
        if ruled.is_empty() {
            return Ok(latest);
        }
        for frame in frames_of(segment, file) {
            for event in frame?.events().filter(|event| ruled.contains_key(event.topic())) {
                if let Some(key) = event.key() {
                    latest.add(event.topic(), key, event.offset());
                }
            }
            if self.is_cancelled.load(Ordering::Relaxed) {
                return Ok(latest);
            }
        }
        if latest.is_empty() {
            return Ok(latest);
        }
        let (from, end, order) = (segment.end(), self.segments.end(), Order::Ascending);
        let query = ReadQuery { topics: ruled.into_values().collect(), from, end, order };
        let mut reader = Reader::new(Arc::clone(&self.segments), &query);
        while !self.is_cancelled.load(Ordering::Relaxed) {
            match reader.next_blocking() {
                Ok(Some(hits)) => {
                    for event in hits.events() {
                        if let Some(key) = event.key() {
                            latest.supersede(event.topic(), key, event.offset());
                        }
                    }
                }
                // What cannot be read supersedes nothing.
                Err(
                    crate::error::ReadError::Gap { .. } | crate::error::ReadError::Expired { .. },
                ) => {}
                Ok(None) | Err(_) => break,
            }
        }
        Ok(latest)
    }

    /// How many events are dead; so far only, if the job is cancelled.
    fn count_dead(
        &self,
        segment: &SealedSegment<D>,
        file: &PacedFile<D::File>,
        mut judges: HashMap<&str, TopicJudge>,
        latest: &LatestKeys,
    ) -> Result<u64, String> {
        let mut dead = 0;
        for frame in frames_of(segment, file) {
            for event in frame?.events() {
                let judge = judges.get_mut(event.topic());
                let is_dead = event.kind().is_data()
                    && judge.is_some_and(|judge| judge.is_dead(&event, latest));
                dead += u64::from(is_dead);
            }
            if self.is_cancelled.load(Ordering::Relaxed) {
                break;
            }
        }
        Ok(dead)
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

fn numbers_of(topics: &Topics) -> Vec<TopicNumber> {
    topics.iter().map(|(_, summary)| summary.number).collect()
}

/// Every frame of a segment, up to its end; what is wrong where one cannot be read.
fn frames_of<'a, D: Disk>(
    segment: &SealedSegment<D>,
    file: &'a PacedFile<D::File>,
) -> impl Iterator<Item = Result<Frame, String>> + use<'a, D> {
    let mut scan = FrameScan::new(file, segment.header()).in_steps_of(READ_BYTES);
    let end = segment.index().header().end_position;
    let mut is_over = false;
    std::iter::from_fn(move || {
        if is_over || scan.end().end_position >= end {
            return None;
        }
        let frame = match scan.next_frame() {
            Ok(Ok((frame, _))) => Ok(frame),
            Ok(Err(why)) => Err(format!("at position {}: {why}", scan.end().end_position)),
            Err(error) => Err(error.to_string()),
        };
        is_over = frame.is_err();
        Some(frame)
    })
}

/// All topics of a segment.
fn read_topics<D: Disk>(segment: &SealedSegment<D>) -> Result<Topics, String> {
    let index = segment.index();
    let blocks = 0..index.topic_block_count();
    let (position, len) = index.topic_blocks_place(&blocks);
    let mut bytes = vec![0; len];
    segment.index_file().read_exact_at(&mut bytes, position).map_err(|error| error.to_string())?;
    let read = || {
        let mut topics = Vec::new();
        let mut entries = index.read_topics(&bytes, blocks)?;
        while let Some(entry) = entries.next_entry()? {
            topics.push((entry.name.to_owned(), entry.summary));
        }
        Ok(topics)
    };
    read().map_err(|error: IndexError| error.to_string())
}

/// What the rewritten segment's index takes over from the old one's.
fn carried<D: Disk>(
    segment: &SealedSegment<D>,
    topics: &Topics,
    index: &IndexBuilder,
) -> Result<Carried, IndexError> {
    let header = segment.index().header();
    let section = |kind| read_section(segment, header, kind);
    let base = segment.base();
    let old_gone = gone::decode_gone(&section(SectionKind::GONE)?, base, segment.end())?;
    let mut gone: HashMap<String, GoneTopic> =
        old_gone.into_iter().map(|topic| (topic.name.clone(), topic)).collect();
    for (name, summary) in topics {
        let is_last_kept =
            index.topic(summary.number).is_some_and(|kept| kept.last_offset == summary.last_offset);
        let is_newer = gone.get(name).is_none_or(|known| known.last_offset < summary.last_offset);
        if !is_last_kept && is_newer {
            gone.insert(
                name.clone(),
                GoneTopic {
                    name: name.clone(),
                    number: summary.number,
                    last_offset: summary.last_offset,
                    last_time_ms: summary.last_time_ms,
                },
            );
        }
    }
    let mut gone: Vec<_> = gone.into_values().collect();
    gone.sort_unstable_by(|left, right| left.name.cmp(&right.name));
    Ok(Carried {
        ids: section(SectionKind::IDS)?,
        producers: section(SectionKind::PRODUCERS)?,
        controls: section(SectionKind::CONTROLS)?,
        gone: gone::encode_gone(&gone, base),
        last_time_ms: header.last_time_ms,
    })
}

/// The content of a section of a segment's index.
fn read_section<D: Disk>(
    segment: &SealedSegment<D>,
    header: &IndexHeader,
    kind: SectionKind,
) -> Result<Vec<u8>, IndexError> {
    let section = header.section(kind);
    let mut bytes = vec![0; usize::try_from(section.bytes).expect("an index fits in memory")];
    let read = segment.index_file().read_exact_at(&mut bytes, section.position);
    let is_good =
        read.is_ok() && (bytes.is_empty() || header.seed().crc(&bytes) == section.checksum);
    if is_good { Ok(bytes) } else { Err(IndexError::Checksum { section: kind }) }
}
