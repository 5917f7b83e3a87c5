//! The index of a segment while it grows: answers from memory what the sealed one answers from its
//! file, and becomes that file.
//!
//! It keeps every frame's place, and for each topic its summary, the first frame that holds its
//! events, and those behind as a list encoded as in the file. A topic that is in one frame alone
//! takes 60 bytes and its name, which the log of a growing segment has anyway (`IndexBuilder::add_ours`);
//! lists take 16 bytes for about two frames. Nothing is ever copied to a larger place, so that no frame
//! waits for that, and to drop it all frees few pieces of memory.

use std::ops::Range;

use crate::{
    frame::{Frame, kept},
    index::{
        IndexError, IndexHeader, SectionKind, StateDelta,
        resident::{FramePlace, block_of, position_of},
        topics::{ListReader, TopicFrame, TopicSummary, write_list_entry},
    },
    offset::{Offset, Position},
    once::{IdEntry, NumberedProducer},
    pieces::{Pieces, Places},
    segment::{FIRST_FRAME_POSITION, SegmentHeader},
    topic::TopicNumber,
    topics::{
        TopicTable,
        names::{NamePlace, Names},
    },
};

mod chains;
mod write;

use chains::{Chain, Chains};

/// So many offsets a segment stands for at most: a log begins another one long before, and an event
/// takes more than 30 bytes of it.
pub const OFFSETS_MAX: u64 = u32::MAX as u64;

/// Of how many topics what is known is looked at before they are written.
const LOOKED_AT: usize = 64;

/// How a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentEnd {
    /// The first offset behind it.
    pub end_offset: Offset,
    /// Where its last frame ends.
    pub end_position: Position,
    /// The checksum of its last frame, or [`Seed::chain_start`](crate::frame::Seed::chain_start) if there is none.
    pub end_checksum: u32,
}

/// What the index of a segment says that was rewritten, beside what its frames say: what the events
/// that are gone had added to the state of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// IDS.
    pub ids: Vec<u8>,
    /// PRODUCERS.
    pub producers: Vec<u8>,
    /// CONTROLS.
    pub controls: Vec<u8>,
    /// GONE.
    pub gone: Vec<u8>,
    /// The last event's time, be it gone.
    pub last_time_ms: u64,
    /// REMADE.
    pub is_remade: bool,
}

impl Carried {
    /// What an index says, which is given whole and was checked.
    pub fn of_index(header: &IndexHeader, bytes: &[u8]) -> Carried {
        let section = |kind| bytes[header.section(kind).range()].to_vec();
        Carried {
            ids: section(SectionKind::IDS),
            producers: section(SectionKind::PRODUCERS),
            controls: section(SectionKind::CONTROLS),
            gone: section(SectionKind::GONE),
            last_time_ms: header.last_time_ms,
            is_remade: header.is_remade(),
        }
    }
}

/// The index of an unsealed segment.
#[derive(Debug)]
pub struct IndexBuilder {
    header: SegmentHeader,
    frames: Vec<FramePlace>,
    end_offset: Offset,
    end_position: Position,
    event_count: u64,
    first_time_ms: u64,
    last_time_ms: u64,
    topics: Pieces<TopicState>,
    places: Places,
    /// Of frames that were added by [`IndexBuilder::add`].
    names: Names,
    /// The lists of topics behind their first entries.
    lists: Chains,
    delta: StateDelta,
    /// What it adds to the state of its log is known: frames are not asked.
    is_carrying: bool,
    /// An entry of a list while it is made.
    entry: Vec<u8>,
    /// What is lost, in offset order.
    gaps: Vec<Range<Offset>>,
    /// The log kept nothing before it, a frame says.
    kept_from: Option<Offset>,
    /// What the frame that was added last holds of each of its topics.
    tallies: Vec<Tally>,
    /// The places of those topics; none if one is new to the segment.
    found: Vec<Option<u32>>,
    /// The times of its first and its last event.
    times: Option<(u64, u64)>,
    /// Which of them are new to the segment.
    new_numbers: Vec<TopicNumber>,
}

/// Offsets count from the segment's base.
#[derive(Debug)]
struct TopicState {
    name: NamePlace,
    last_time_ms: u64,
    number: TopicNumber,
    event_count: u32,
    first_offset: u32,
    last_offset: u32,
    first_block: u32,
    last_block: u32,
    /// Of the frame that was added last.
    last_first_offset: u32,
    /// The list behind its first entry.
    more: Chain,
    /// Of the first frame.
    first_events: u16,
}

const _: () = assert!(size_of::<TopicState>() == 56);

/// What a frame holds of one of its topics. Offsets count from the segment's base.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    event_count: u16,
    first_offset: u32,
    last_offset: u32,
    last_time_ms: u64,
}

/// What a frame holds of one of its topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Added {
    pub event_count: u64,
    pub first_offset: Offset,
    pub last_offset: Offset,
    pub last_time_ms: u64,
}

impl IndexBuilder {
    /// The index of a segment that holds no frame yet.
    pub fn new(header: &SegmentHeader) -> IndexBuilder {
        IndexBuilder {
            end_offset: header.base_offset,
            header: header.clone(),
            frames: Vec::new(),
            end_position: FIRST_FRAME_POSITION,
            event_count: 0,
            first_time_ms: 0,
            last_time_ms: 0,
            topics: Pieces::default(),
            places: Places::default(),
            names: Names::default(),
            lists: Chains::default(),
            delta: StateDelta::new(header.base_offset),
            is_carrying: false,
            entry: Vec::new(),
            gaps: Vec::new(),
            kept_from: None,
            tallies: Vec::new(),
            found: Vec::new(),
            times: None,
            new_numbers: Vec::new(),
        }
    }

    /// The index of one that is rewritten, which ends with [`IndexBuilder::parts_carrying`].
    pub(crate) fn carrying(header: &SegmentHeader) -> IndexBuilder {
        IndexBuilder { is_carrying: true, ..IndexBuilder::new(header) }
    }

    /// Adds the next frame, which begins at `position`.
    ///
    /// Refuses one whose topic table contradicts itself or a frame before, or whose times descend: a
    /// writer of ours makes none. After a refusal nothing of the frame is in the index. That no two
    /// topics share a name is for the log's topic table to see.
    ///
    /// # Panics
    ///
    /// If it lies before the end of the frame added before: its caller walks the file forwards.
    pub fn add(&mut self, frame: &Frame, position: Position) -> Result<(), IndexError> {
        self.check_place(frame.base_offset(), position);
        let block = block_of(position);
        self.check(frame, block)?;
        self.tally(frame);
        let tallies = std::mem::take(&mut self.tallies);
        self.find_places(frame);
        for (index, (number, name)) in frame.topics().enumerate() {
            let (place, tally) = (self.found[index], &tallies[index]);
            match place {
                _ if tally.event_count == 0 => {}
                Some(place) => self.add_to_known(place, block, tally),
                None => {
                    let name = self.names.add(name);
                    self.add_new(number, name, block, tally);
                }
            }
        }
        self.tallies = tallies;
        if !self.is_carrying {
            self.delta.add(frame);
        }
        self.add_place(frame, position);
        Ok(())
    }

    /// Adds the next frame of a log whose own frames are all that the segment has: it is not checked
    /// against those before, names stay where the log has them, and ids and appends of producers are known.
    ///
    /// # Panics
    ///
    /// If it lies before the end of the frame added before, or `topics` lacks one of its topics.
    pub(crate) fn add_ours(
        &mut self,
        frame: &Frame,
        position: Position,
        topics: &TopicTable,
        (ids, producers): (&[IdEntry], &[NumberedProducer]),
    ) {
        self.check_place(frame.base_offset(), position);
        let block = block_of(position);
        self.tally(frame);
        let tallies = std::mem::take(&mut self.tallies);
        self.find_places(frame);
        for (index, (number, _)) in frame.topics().enumerate() {
            let (place, tally) = (self.found[index], &tallies[index]);
            match place {
                _ if tally.event_count == 0 => {}
                Some(place) => self.add_to_known(place, block, tally),
                None => {
                    let name = topics.name_place(number);
                    let name = name.expect("a topic has its number before its events are visible");
                    self.add_new(number, name, block, tally);
                }
            }
        }
        self.tallies = tallies;
        self.delta.add_known(frame, ids, producers);
        self.add_place(frame, position);
    }

    /// What the frame that was added last holds of each of its topics, in the order of its table.
    pub(crate) fn last_added(&self) -> impl Iterator<Item = Added> {
        self.tallies.iter().map(|tally| Added {
            event_count: u64::from(tally.event_count),
            first_offset: self.offset_at(tally.first_offset),
            last_offset: self.offset_at(tally.last_offset),
            last_time_ms: tally.last_time_ms,
        })
    }

    fn check_place(&self, base: Offset, position: Position) {
        assert!(position >= self.end_position, "frames are added in file order");
        assert!(base >= self.end_offset, "frames are added in offset order");
    }

    /// Counts what a frame holds of each of its topics, and notes its first and its last time.
    fn tally(&mut self, frame: &Frame) {
        self.tallies.clear();
        self.tallies.resize(frame.topics().len(), Tally::default());
        self.times = None;
        let base = self.header.base_offset;
        for event in frame.events() {
            let offset = u32::try_from(event.offset().since(base)).expect("the span was checked");
            let time_ms = event.time_ms();
            let tally = &mut self.tallies[event.topic_index()];
            if tally.event_count == 0 {
                tally.first_offset = offset;
            }
            tally.event_count += 1;
            tally.last_offset = offset;
            tally.last_time_ms = time_ms;
            self.times = Some((self.times.map_or(time_ms, |(first_ms, _)| first_ms), time_ms));
        }
    }

    fn add_place(&mut self, frame: &Frame, position: Position) {
        self.kept_from = kept::kept_from(frame).or(self.kept_from);
        if let Some((first_ms, last_ms)) = self.times {
            if self.event_count == 0 {
                self.first_time_ms = first_ms;
            }
            self.last_time_ms = last_ms;
        }
        self.frames.push(FramePlace {
            base_offset: frame.base_offset(),
            time_ms: self.times.map_or(self.last_time_ms, |(first_ms, _)| first_ms),
            position,
            frame_bytes: frame.frame_bytes(),
        });
        self.event_count += frame.len() as u64;
        self.end_offset = frame.end_offset();
        self.end_position = position.plus(frame.frame_bytes() as u64);
    }

    /// Adds a frame of so many bytes that stands for events which are lost ([`crate::frame::gap`]).
    ///
    /// # Panics
    ///
    /// If it lies before the end of the frame added before.
    pub fn add_gap(&mut self, lost: Range<Offset>, position: Position, frame_bytes: usize) {
        assert!(position >= self.end_position, "frames are added in file order");
        assert!(lost.start >= self.end_offset, "frames are added in offset order");
        self.frames.push(FramePlace {
            base_offset: lost.start,
            time_ms: self.last_time_ms,
            position,
            frame_bytes,
        });
        self.end_offset = lost.end;
        self.end_position = position.plus(frame_bytes as u64);
        self.gaps.push(lost);
    }

    fn check(&mut self, frame: &Frame, block: u32) -> Result<(), IndexError> {
        let wrong = |what| Err(IndexError::Content { what });
        if frame.events().next().is_some_and(|event| event.time_ms() < self.last_time_ms) {
            return wrong("the order of times");
        }
        if frame.end_offset().since(self.header.base_offset) > OFFSETS_MAX {
            return wrong("the number of offsets of a segment");
        }
        self.new_numbers.clear();
        for (number, name) in frame.topics() {
            match self.places.get(number.get()) {
                None => self.new_numbers.push(number),
                Some(place) => {
                    let topic = self.topics.get(place);
                    if self.names.get(topic.name) != name || topic.last_block >= block {
                        return wrong("a frame's topic table");
                    }
                }
            }
        }
        self.new_numbers.sort_unstable();
        if self.new_numbers.windows(2).any(|pair| pair[0] == pair[1]) {
            return wrong("a frame's topic table");
        }
        Ok(())
    }

    /// Finds the places of all topics of a frame, and looks at what lies there and at the ends of their
    /// lists: the processor waits for the memory of many at the same time, and would for each alone if all
    /// that follows was done of one before the next.
    fn find_places(&mut self, frame: &Frame) {
        self.found.clear();
        self.found.extend(frame.topics().map(|(number, _)| self.places.get(number.get())));
        if self.found.len() > 1 {
            let known = || self.found.iter().flatten().map(|place| self.topics.get(*place));
            let ends = known().map(|topic| u64::from(topic.last_block)).sum::<u64>();
            let used = known().map(|topic| u64::from(self.lists.look(&topic.more))).sum::<u64>();
            std::hint::black_box((ends, used));
        }
    }

    /// Adds what a frame holds of a topic that the segment has already.
    fn add_to_known(&mut self, place: u32, block: u32, tally: &Tally) {
        let topic = self.topics.get_mut(place);
        let base = self.header.base_offset;
        let last = (topic.last_block, base.plus(u64::from(topic.last_first_offset)));
        let here = (block, base.plus(u64::from(tally.first_offset)));
        self.entry.clear();
        write_list_entry(&mut self.entry, last, here, u64::from(tally.event_count));
        self.lists.extend(&mut topic.more, &self.entry);
        (topic.last_block, topic.last_first_offset) = (block, tally.first_offset);
        topic.event_count += u32::from(tally.event_count);
        topic.last_offset = tally.last_offset;
        topic.last_time_ms = tally.last_time_ms;
    }

    fn add_new(&mut self, number: TopicNumber, name: NamePlace, block: u32, tally: &Tally) {
        let place = self.topics.push(TopicState {
            name,
            last_time_ms: tally.last_time_ms,
            number,
            event_count: u32::from(tally.event_count),
            first_offset: tally.first_offset,
            last_offset: tally.last_offset,
            first_block: block,
            last_block: block,
            last_first_offset: tally.first_offset,
            more: Chain::default(),
            first_events: tally.event_count,
        });
        self.places.put(number.get(), place);
    }

    fn offset_at(&self, offset: u32) -> Offset {
        self.header.base_offset.plus(u64::from(offset))
    }

    fn summary(&self, topic: &TopicState) -> TopicSummary {
        TopicSummary {
            number: topic.number,
            event_count: u64::from(topic.event_count),
            first_offset: self.offset_at(topic.first_offset),
            last_offset: self.offset_at(topic.last_offset),
            last_time_ms: topic.last_time_ms,
        }
    }

    /// The header of the segment's log file.
    pub fn header(&self) -> &SegmentHeader {
        &self.header
    }

    /// The first offset behind the frames added so far.
    pub fn end_offset(&self) -> Offset {
        self.end_offset
    }

    /// Whether the frames say all that their segment, which ends there, has ever added to the state of its log.
    pub(crate) fn says_all(&self, end: Offset) -> bool {
        self.event_count == end.since(self.header.base_offset)
    }

    /// Whether any of them says that events are lost.
    pub(crate) fn has_gaps(&self) -> bool {
        !self.gaps.is_empty()
    }

    /// How many events they hold.
    pub fn event_count(&self) -> u64 {
        self.event_count
    }

    /// The first event's time; 0 if there is none.
    pub fn first_time_ms(&self) -> u64 {
        self.first_time_ms
    }

    /// The last event's time; 0 if there is none.
    pub fn last_time_ms(&self) -> u64 {
        self.last_time_ms
    }

    /// About how much memory it takes.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + self.frames.capacity() * size_of::<FramePlace>()
            + self.topics.memory_bytes()
            + self.places.memory_bytes()
            + self.names.memory_bytes()
            + self.lists.memory_bytes()
            + self.delta.memory_bytes()
    }

    /// Every frame, in file order.
    pub fn frames(&self) -> &[FramePlace] {
        &self.frames
    }

    /// The place in [`IndexBuilder::frames`] of the frame that stands for an offset; `None` if it
    /// lies before the segment or behind its last frame.
    pub fn frame_index_at(&self, offset: Offset) -> Option<usize> {
        if offset >= self.end_offset {
            return None;
        }
        self.frames.partition_point(|frame| frame.base_offset <= offset).checked_sub(1)
    }

    /// The place in [`IndexBuilder::frames`] of a frame in which, or behind which, the first event
    /// appended at `time_ms` or later stands; `None` if there is no such event.
    pub fn frame_index_at_time(&self, time_ms: u64) -> Option<usize> {
        if self.event_count == 0 || time_ms > self.last_time_ms {
            return None;
        }
        Some(self.frames.partition_point(|frame| frame.time_ms < time_ms).saturating_sub(1))
    }

    /// What the segment adds to the state of its log, beside topics.
    pub fn delta(&self) -> &StateDelta {
        &self.delta
    }

    /// How many topics have events in the segment.
    pub fn topic_count(&self) -> usize {
        self.topics.len()
    }

    /// The topics that have events in the segment, in the order in which they came; of frames that
    /// [`IndexBuilder::add`] has added.
    pub fn topics(&self) -> impl Iterator<Item = (&str, TopicSummary)> {
        self.topics.iter().map(|topic| (self.names.get(topic.name), self.summary(topic)))
    }

    /// What the segment knows of a topic; `None` if it holds none of its events.
    pub fn topic(&self, number: TopicNumber) -> Option<TopicSummary> {
        self.places.get(number.get()).map(|place| self.summary(self.topics.get(place)))
    }

    /// The frames that hold a topic's events, in file order.
    pub fn topic_frames(&self, number: TopicNumber) -> Vec<TopicFrame> {
        let Some(place) = self.places.get(number.get()) else { return Vec::new() };
        let topic = self.topics.get(place);
        let first_offset = self.offset_at(topic.first_offset);
        let mut frames = vec![TopicFrame {
            position: position_of(topic.first_block),
            first_offset,
            event_count: u64::from(topic.first_events),
        }];
        let mut more = Vec::new();
        self.lists.read(&topic.more, &mut more);
        let mut more = ListReader::after(&more, topic.first_block, first_offset);
        while let Some(frame) = more.next_frame().expect("a list is read as it was written") {
            frames.push(frame);
        }
        frames
    }
}
