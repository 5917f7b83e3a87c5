//! What only the owner can tell readers: of the part of the log that is not sealed, and of its topics.

use std::{
    collections::{HashMap, VecDeque},
    io,
    ops::Range,
    rc::Rc,
    sync::Arc,
};

use monoio::task::JoinHandle;
use strandline_storage::{
    buffer::DiskBuffer,
    error::{Corruption, ReadError},
    frame::{Frame, Trust},
    io::{ReadIo, real::RealDisk},
    log::{UnsealedPiece, UnsealedRead},
    offset::Offset,
    reader::{Hits, ReadQuery, TopicCount, count_topics},
    selection::{Order, Selection},
    topic::TopicPattern,
    topics::TopicSummary,
};

use super::Owner;
use crate::log_calls::{LogStats, UnsealedPart};

/// So many bytes of frames are looked at in one step of counting.
const RECOUNT_BUDGET_BYTES: usize = 1 << 20;

/// So often topics are counted for one request, while segments are sealed meanwhile. What was told then was as it had been
/// before a trim.
const COUNTS_MAX: usize = 4;

/// So many reads of one request are in flight.
const READS_MAX: usize = 4;

/// A topic that is to be counted anew.
struct Pending {
    summary: TopicSummary,
    /// The first offset of it that is kept.
    from: Offset,
    /// What of it is not sealed, if that is known without reading it.
    unsealed: Option<TopicCount>,
}

impl Owner {
    /// How the log stands.
    pub(super) async fn stats(self: &Rc<Self>) -> LogStats {
        let space = self.space().await;
        let log = self.log.borrow();
        let segments = log.segments();
        LogStats {
            earliest: log.start().get(),
            visible: log.visible().get(),
            durable: log.synced().get(),
            staged_bytes: log.staged_bytes() as u64,
            segments: segments.len() as u64,
            segment_bytes: segments.iter().map(|segment| segment.file_bytes()).sum(),
            damaged_segments: log.damaged_segments() as u64,
            topics: log.topics().len() as u64,
            ids: log.ids().len() as u64,
            producers: log.producers().len() as u64,
            compaction: log.compaction_totals(),
            retired_segments: log.retired_segments(),
            scrub: log.scrub_totals(),
            snapshots: log.snapshot_totals(),
            disk: space,
        }
    }

    /// A page of topics that have events. Prefix and place are bytes and may end within a character,
    /// and the table is asked in characters: so more than asked for is looked at.
    pub(super) async fn topics(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Vec<TopicSummary> {
        let mut page = Vec::new();
        let mut place = after.map(|after| whole_characters(after).to_owned());
        while page.len() < limit {
            let asked = limit - page.len();
            let prefix_text = whole_characters(prefix);
            let some = self.log.borrow().topics().page(prefix_text, place.as_deref(), asked);
            place = some.last().map(|last| last.topic.as_str().to_owned());
            let is_last = some.len() < asked;
            let asked = some.into_iter().filter(|summary| {
                let name = summary.topic.as_bytes();
                name.starts_with(prefix)
                    && after.is_none_or(|after| name > after)
                    && !name.starts_with(b"$")
            });
            page.extend(self.counted(asked.collect()).await);
            if is_last {
                break;
            }
        }
        page
    }

    /// What is known of a topic that has events.
    pub(super) async fn topic(&self, name: &str) -> Option<TopicSummary> {
        let summary = self.log.borrow().topics().get(name)?;
        self.counted(vec![summary]).await.pop()
    }

    /// The summaries of topics, in the order of their names, counted anew where events before those that
    /// are kept are in them; without those that have none any more.
    async fn counted(&self, mut summaries: Vec<TopicSummary>) -> Vec<TopicSummary> {
        for _ in 1..COUNTS_MAX {
            let names: Vec<_> = summaries.iter().map(|summary| summary.topic.clone()).collect();
            let (found, is_whole) = self.counted_once(summaries).await;
            if is_whole {
                return found;
            }
            let log = self.log.borrow();
            summaries = names.iter().filter_map(|name| log.topics().get(name)).collect();
        }
        self.counted_once(summaries).await.0
    }

    /// The same, and whether all could be counted: not where a segment was sealed meanwhile, or a read has failed.
    async fn counted_once(&self, mut summaries: Vec<TopicSummary>) -> (Vec<TopicSummary>, bool) {
        let (mut pending, mut is_whole): (Vec<Pending>, _) = (Vec::new(), true);
        let segments = {
            let mut log = self.log.borrow_mut();
            summaries.retain(|summary| {
                let (is_less, from) =
                    (log.take_lessened(summary.number), log.keeps_from(&summary.topic));
                let is_gone = summary.last < from;
                if is_gone {
                    log.clear_topic(summary.number);
                } else if summary.first < from || is_less {
                    let unsealed = log.count_unsealed(summary.number, from);
                    pending.push(Pending { summary: summary.clone(), from, unsealed });
                }
                !is_gone
            });
            log.segments().clone()
        };
        let wanted: Vec<_> =
            pending.iter().map(|pending| (pending.summary.topic.clone(), pending.from)).collect();
        let sealed = count_topics(&segments, &self.reads, &wanted).await.unwrap_or_default();
        let mut counted = HashMap::with_capacity(pending.len());
        for (at, pending) in pending.into_iter().enumerate() {
            let number = pending.summary.number;
            let kept = match sealed.get(at) {
                Some(sealed) => self.kept(&pending, *sealed, segments.end()).await,
                None => None,
            };
            is_whole &= kept.is_some();
            counted.insert(number, self.note_counted(&pending.summary, kept));
        }
        let known = summaries.into_iter().map(|mut summary| {
            let kept = counted.get(&summary.number).copied().flatten();
            let TopicCount { count, first } =
                kept.unwrap_or(TopicCount { count: summary.count, first: Some(summary.first) });
            (summary.count, summary.first) = (count, first.unwrap_or(summary.first));
            summary
        });
        (known.filter(|summary| summary.count > 0).collect(), is_whole)
    }

    /// What is kept of a topic of which so much is sealed, up to `place`; `None` if that cannot be
    /// counted now.
    async fn kept(
        &self,
        pending: &Pending,
        sealed: TopicCount,
        sealed_end: Offset,
    ) -> Option<TopicCount> {
        let mut counted = sealed;
        if let Some(unsealed) = pending.unsealed {
            counted.add(unsealed);
            return Some(counted);
        }
        // A frame that has events of it before and behind the first that is kept.
        let topics = vec![TopicPattern::of_topic(&pending.summary.topic)];
        let (mut place, end) = (pending.from.max(sealed_end), pending.summary.last.plus(1));
        while place < end {
            let order = Order::Ascending;
            let query = ReadQuery { topics: topics.clone(), from: place, end, order };
            let part = self.unsealed(query, RECOUNT_BUDGET_BYTES).await.ok()?;
            if part.considered <= place {
                return None; // A segment was sealed meanwhile.
            }
            for hits in &part.hits {
                let first = hits.events().next().map(|event| event.offset());
                counted.add(TopicCount { count: hits.len() as u64, first });
            }
            place = part.considered;
        }
        Some(counted)
    }

    /// Keeps in mind what was counted of a topic, unless it has got events meanwhile, and gives it back.
    /// What could not be counted is told as it was, and counted another time.
    fn note_counted(&self, summary: &TopicSummary, kept: Option<TopicCount>) -> Option<TopicCount> {
        let mut log = self.log.borrow_mut();
        let is_current = log.topics().last_ever(&summary.topic) == Some(summary.last);
        match kept {
            Some(TopicCount { count, first: Some(first) }) if is_current => {
                log.recount_topic(&TopicSummary { count, first, ..summary.clone() });
            }
            Some(TopicCount { first: None, .. }) if is_current => log.clear_topic(summary.number),
            _ => log.note_lessened(summary.number),
        }
        kept
    }

    /// The part of a query that is not sealed: frames in memory, and frames read from the disk.
    pub(super) async fn unsealed(
        &self,
        query: ReadQuery,
        budget_bytes: usize,
    ) -> Result<UnsealedPart, ReadError> {
        let (plan, visible) = {
            let log = self.log.borrow();
            (log.plan_unsealed(&query, budget_bytes), log.visible())
        };
        let is_ascending = query.order == Order::Ascending;
        if is_ascending && query.from < plan.start && query.from < query.end {
            // A segment was sealed since the caller looked: it reads that first.
            return Ok(UnsealedPart { hits: Vec::new(), considered: query.from });
        }
        let selection = Selection::new(&query.topics);
        let from = query.from.max(plan.start);
        let range = from..query.end.min(visible).max(from);
        let mut hits = Vec::with_capacity(plan.pieces.len());
        let mut pieces = plan.pieces.into_iter();
        let mut begun: VecDeque<Begun> = VecDeque::with_capacity(READS_MAX);
        loop {
            while begun.len() < READS_MAX
                && let Some(piece) = pieces.next()
            {
                begun.push_back(self.begin(piece));
            }
            match begun.pop_front() {
                None => break,
                Some(Begun::Frame(frame)) => {
                    hits.push(Hits::of_frame(&frame, &selection, range.clone(), query.order));
                }
                Some(Begun::Read(read, bytes)) => {
                    let (mut frames, gap) = frames_of(&read, bytes.await)?;
                    if !is_ascending {
                        // The gap lies behind the frames, so it comes first.
                        frames.reverse();
                        if gap.is_some() {
                            frames.clear();
                        }
                    }
                    hits.extend(frames.iter().map(|frame| {
                        Hits::of_frame(frame, &selection, range.clone(), query.order)
                    }));
                    let Some(gap) = gap else { continue };
                    if hits.is_empty() {
                        return Err(gap.into());
                    }
                    // What was found before the gap goes first: who is told of it goes on behind it.
                    let considered = if is_ascending { gap.offsets.start } else { gap.offsets.end };
                    let considered = considered.clamp(range.start, range.end);
                    hits.push(Hits::none(considered, query.order));
                    return Ok(UnsealedPart { hits, considered });
                }
            }
        }
        // Behind the last frame there may be more that was considered and holds nothing.
        hits.push(Hits::none(plan.considered, query.order));
        Ok(UnsealedPart { hits, considered: plan.considered })
    }

    /// The offset of the first unsealed event that is not older than `time_ms`, the visible offset if
    /// there is none, where damage begins if that hides it: a search that halves what is left by looking at a frame in the middle.
    /// Where no unsealed event is older, lost ones before them whose time nobody knows are not either.
    pub(super) async fn unsealed_offset_at_time(&self, time_ms: u64) -> Result<Offset, ReadError> {
        let (mut low, mut high) = {
            let log = self.log.borrow();
            (log.unsealed_start(), log.visible())
        };
        let mut has_older = false;
        while low < high {
            let middle = low.plus(high.since(low) / 2);
            let Probe { place, frame, damaged_from } = self.probe(middle, high).await?;
            let Some(frame) = frame.filter(|frame| !frame.is_empty()) else {
                match damaged_from {
                    Some(from) if place >= high => high = from.max(low),
                    // Nothing is there: compaction took it, or a segment was sealed meanwhile, and its
                    // events are older than those behind it.
                    _ => low = place.plus(1),
                }
                continue;
            };
            let index = frame.index_at_time(time_ms);
            if index == frame.len() {
                has_older = true;
                low = frame.end_offset();
            } else if index > 0 {
                return Ok(frame.event(index).offset());
            } else {
                high = damaged_from.unwrap_or(frame.base_offset()).max(low);
            }
        }
        let gaps = self.log.borrow().segments().timeless_gaps_at_end();
        Ok(gaps.filter(|_| !has_older).unwrap_or(low))
    }

    /// Looks at the frame of an unsealed offset, or else at the first behind it that is not damaged, below `end`.
    async fn probe(&self, from: Offset, end: Offset) -> Result<Probe, ReadError> {
        let mut probe = Probe { place: from, frame: None, damaged_from: None };
        while probe.place < end {
            let next = probe.place.plus(1);
            let query = ReadQuery {
                topics: Vec::new(),
                from: probe.place,
                end: next,
                order: Order::Ascending,
            };
            match self.unsealed(query, 1).await {
                Ok(part) => {
                    probe.frame = part.hits.into_iter().find_map(|hits| hits.frame);
                    return Ok(probe);
                }
                Err(ReadError::Gap { from: lost, to, .. }) => {
                    probe.damaged_from.get_or_insert(lost.min(from));
                    probe.place = to.max(next);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(probe)
    }

    /// Begins to read what has to be read.
    fn begin(&self, piece: UnsealedPiece<RealDisk>) -> Begun {
        match piece {
            UnsealedPiece::Frame(frame) => Begun::Frame(frame),
            UnsealedPiece::Read(read) => {
                let (reads, file) = (self.reads.clone(), read.file.clone());
                let (position, len) = (read.position, read.len);
                let bytes = monoio::spawn(async move { reads.read(&file, position, len).await });
                Begun::Read(read, bytes)
            }
        }
    }
}

/// What [`Owner::probe`] met.
struct Probe {
    /// Where it looked last.
    place: Offset,
    /// None if nothing is there, or nothing that can be read.
    frame: Option<Arc<Frame>>,
    /// Where damage begins, if it met any.
    damaged_from: Option<Offset>,
}

/// A piece of what is not sealed: there, or on its way.
enum Begun {
    Frame(Arc<Frame>),
    Read(UnsealedRead<RealDisk>, JoinHandle<io::Result<DiskBuffer>>),
}

/// The frames of a read, up to the first that cannot be had.
fn frames_of(
    read: &UnsealedRead<RealDisk>,
    bytes: io::Result<DiskBuffer>,
) -> Result<(Vec<Arc<Frame>>, Option<UnsealedGap>), ReadError> {
    let bytes = bytes.map_err(|source| ReadError::Io { file: read.path.clone(), source })?;
    let bytes = Arc::new(bytes);
    let mut frames: Vec<Arc<Frame>> = Vec::new();
    let mut next = 0;
    while next < read.len {
        // We wrote it, and its checksum tells whether the disk gave back the same.
        match Frame::parse_at(&bytes, next, read.seed, Trust::Checksum) {
            Ok(frame) => {
                next += frame.frame_bytes();
                frames.push(Arc::new(frame));
            }
            Err(error) => {
                let start = frames.last().map_or(read.offsets.start, |last| last.end_offset());
                let corruption = Corruption {
                    file: read.path.clone(),
                    position: read.position.plus(next as u64),
                    what: error.to_string(),
                };
                let offsets = start..read.offsets.end;
                return Ok((frames, Some(UnsealedGap { offsets, corruption })));
            }
        }
    }
    Ok((frames, None))
}

/// Frames that were written and cannot be read back.
struct UnsealedGap {
    offsets: Range<Offset>,
    corruption: Corruption,
}

impl From<UnsealedGap> for ReadError {
    fn from(gap: UnsealedGap) -> Self {
        let UnsealedGap { offsets: Range { start: from, end: to }, corruption } = gap;
        ReadError::Gap { from, to, corruption }
    }
}

/// The longest start of `bytes` that is text.
fn whole_characters(bytes: &[u8]) -> &str {
    bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid())
}
