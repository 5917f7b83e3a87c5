//! The index of a segment while it grows: answers from memory what the sealed one answers from its
//! file, and becomes that file.
//!
//! It keeps every frame's place, and for each topic its summary, the first frame that holds its
//! events, and those behind as a list encoded as in the file. A topic that is in one frame alone
//! costs one entry of a table, one of a hash map, and its name.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    ops::Range,
};

use crate::{
    frame::{Frame, Seed},
    index::{
        INDEX_HEADER_BYTES, IndexError, IndexHeader, Section, SectionKind, StateDelta, delta,
        filter,
        resident::{FRAMES_STEP_BYTES, FramePlace, block_of, position_of},
        topics::{ListReader, TopicFrame, TopicSummary, TopicsWriter, write_list_entry},
    },
    offset::{Offset, Position},
    segment::{FIRST_FRAME_POSITION, SegmentHeader},
    topic::TopicNumber,
};

/// How a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentEnd {
    /// The first offset behind it.
    pub end_offset: Offset,
    /// Where its last frame ends.
    pub end_position: Position,
    /// The checksum of its last frame, or [`Seed::chain_start`] if there is none.
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
    topics: Vec<TopicState>,
    places: HashMap<TopicNumber, u32, BuildHasherDefault<NumberHasher>>,
    names: String,
    list_bytes: usize,
    delta: StateDelta,
    /// What is lost, in offset order.
    gaps: Vec<Range<Offset>>,
    /// What the frame that is being added holds of each of its topics.
    tallies: Vec<Tally>,
    /// Which of them are new to the segment.
    new_numbers: Vec<TopicNumber>,
}

#[derive(Debug)]
struct TopicState {
    name_at: usize,
    name_bytes: usize,
    summary: TopicSummary,
    first_block: u32,
    first_events: u64,
    last_block: u32,
    last_first_offset: Offset,
    /// The list behind its first entry.
    more: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    event_count: u64,
    first_offset: Offset,
    last_offset: Offset,
    last_time_ms: u64,
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
            topics: Vec::new(),
            places: HashMap::default(),
            names: String::new(),
            list_bytes: 0,
            delta: StateDelta::default(),
            gaps: Vec::new(),
            tallies: Vec::new(),
            new_numbers: Vec::new(),
        }
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
        assert!(position >= self.end_position, "frames are added in file order");
        assert!(frame.base_offset() >= self.end_offset, "frames are added in offset order");
        let block = block_of(position);
        self.check(frame, block)?;

        let mut tallies = std::mem::take(&mut self.tallies);
        tallies.clear();
        tallies.resize(frame.topics().len(), Tally::default());
        let mut times = None;
        for event in frame.events() {
            let (offset, time_ms) = (event.offset(), event.time_ms());
            let tally = &mut tallies[event.topic_index()];
            if tally.event_count == 0 {
                tally.first_offset = offset;
            }
            tally.event_count += 1;
            tally.last_offset = offset;
            tally.last_time_ms = time_ms;
            times = Some((times.map_or(time_ms, |(first_ms, _)| first_ms), time_ms));
        }
        for ((number, name), tally) in frame.topics().zip(&tallies) {
            if tally.event_count > 0 {
                self.add_topic(number, name, block, tally);
            }
        }
        self.tallies = tallies;
        self.delta.add(frame);

        if let Some((first_ms, last_ms)) = times {
            if self.event_count == 0 {
                self.first_time_ms = first_ms;
            }
            self.last_time_ms = last_ms;
        }
        self.frames.push(FramePlace {
            base_offset: frame.base_offset(),
            time_ms: times.map_or(self.last_time_ms, |(first_ms, _)| first_ms),
            position,
            frame_bytes: frame.frame_bytes(),
        });
        self.event_count += frame.len() as u64;
        self.end_offset = frame.end_offset();
        self.end_position = position.plus(frame.frame_bytes() as u64);
        Ok(())
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
        self.new_numbers.clear();
        for (number, name) in frame.topics() {
            match self.places.get(&number) {
                None => self.new_numbers.push(number),
                Some(place) => {
                    let topic = &self.topics[*place as usize];
                    if self.name(topic) != name || topic.last_block >= block {
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

    fn add_topic(&mut self, number: TopicNumber, name: &str, block: u32, tally: &Tally) {
        let here = (block, tally.first_offset);
        if let Some(place) = self.places.get(&number) {
            let topic = &mut self.topics[*place as usize];
            let before = topic.more.capacity();
            let last = (topic.last_block, topic.last_first_offset);
            write_list_entry(&mut topic.more, last, here, tally.event_count);
            self.list_bytes += topic.more.capacity() - before;
            (topic.last_block, topic.last_first_offset) = here;
            topic.summary.event_count += tally.event_count;
            topic.summary.last_offset = tally.last_offset;
            topic.summary.last_time_ms = tally.last_time_ms;
            return;
        }
        let place = u32::try_from(self.topics.len()).expect("fewer than 2^32 topics");
        self.places.insert(number, place);
        self.topics.push(TopicState {
            name_at: self.names.len(),
            name_bytes: name.len(),
            summary: TopicSummary {
                number,
                event_count: tally.event_count,
                first_offset: tally.first_offset,
                last_offset: tally.last_offset,
                last_time_ms: tally.last_time_ms,
            },
            first_block: block,
            first_events: tally.event_count,
            last_block: block,
            last_first_offset: tally.first_offset,
            more: Vec::new(),
        });
        self.names.push_str(name);
    }

    fn name(&self, topic: &TopicState) -> &str {
        &self.names[topic.name_at..topic.name_at + topic.name_bytes]
    }

    /// The header of the segment's log file.
    pub fn header(&self) -> &SegmentHeader {
        &self.header
    }

    /// The first offset behind the frames added so far.
    pub fn end_offset(&self) -> Offset {
        self.end_offset
    }

    /// How many events they hold.
    pub fn event_count(&self) -> u64 {
        self.event_count
    }

    /// The last event's time; 0 if there is none.
    pub fn last_time_ms(&self) -> u64 {
        self.last_time_ms
    }

    /// About how much memory it takes.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + self.frames.capacity() * size_of::<FramePlace>()
            + self.topics.capacity() * size_of::<TopicState>()
            + self.places.capacity() * size_of::<(TopicNumber, u32)>()
            + self.names.capacity()
            + self.list_bytes
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

    /// The topics that have events in the segment, in the order in which they came.
    pub fn topics(&self) -> impl ExactSizeIterator<Item = (&str, &TopicSummary)> {
        self.topics.iter().map(|topic| (self.name(topic), &topic.summary))
    }

    /// What the segment knows of a topic; `None` if it holds none of its events.
    pub fn topic(&self, number: TopicNumber) -> Option<&TopicSummary> {
        self.places.get(&number).map(|place| &self.topics[*place as usize].summary)
    }

    /// The frames that hold a topic's events, in file order.
    pub fn topic_frames(&self, number: TopicNumber) -> impl Iterator<Item = TopicFrame> {
        let topic = self.places.get(&number).map(|place| &self.topics[*place as usize]);
        topic.into_iter().flat_map(|topic| {
            let first_offset = topic.summary.first_offset;
            let first = TopicFrame {
                position: position_of(topic.first_block),
                first_offset,
                event_count: topic.first_events,
            };
            let mut more = ListReader::after(&topic.more, topic.first_block, first_offset);
            let more = std::iter::from_fn(move || {
                more.next_frame().expect("a list is read as it was written")
            });
            std::iter::once(first).chain(more)
        })
    }

    /// The bytes of the `.idx` file. Takes some 0.3 us a topic.
    pub fn finish(&self, end: &SegmentEnd) -> Vec<u8> {
        let base = self.header.base_offset;
        let carried = Carried {
            ids: delta::encode_ids(self.delta.ids(), base),
            producers: delta::encode_producers(self.delta.producers().iter()),
            controls: delta::encode_controls(self.delta.controls(), base),
            gone: Vec::new(),
            last_time_ms: self.last_time_ms,
        };
        self.finish_carrying(end, &carried)
    }

    /// The same for a segment that was rewritten.
    pub fn finish_carrying(&self, end: &SegmentEnd, carried: &Carried) -> Vec<u8> {
        assert!(end.end_offset >= self.end_offset, "a segment ends behind its frames");
        assert!(end.end_position >= self.end_position, "a segment ends behind its frames");
        let seed = Seed::of(&self.header.incarnation);
        let mut writer = TopicsWriter::new(self.header.base_offset, self.first_time_ms, seed);
        let mut sorted: Vec<&TopicState> = self.topics.iter().collect();
        sorted.sort_unstable_by_key(|topic| self.name(topic));
        let mut list = Vec::new();
        for topic in sorted {
            list.clear();
            let first = topic.summary.first_offset;
            write_list_entry(&mut list, (0, first), (topic.first_block, first), topic.first_events);
            list.extend_from_slice(&topic.more);
            writer.add(self.name(topic).as_bytes(), &topic.summary, &list);
        }
        writer.finish();
        let names = self.topics.iter().map(|topic| self.name(topic).as_bytes());
        let filter = filter::encode(self.topics.len(), names);
        let mut other: Vec<(SectionKind, &[u8])> =
            vec![(SectionKind::TOPICS, &writer.topics), (SectionKind::LISTS, &writer.lists)];
        for (kind, content) in [
            (SectionKind::IDS, &carried.ids),
            (SectionKind::PRODUCERS, &carried.producers),
            (SectionKind::CONTROLS, &carried.controls),
            (SectionKind::GONE, &carried.gone),
        ] {
            if !content.is_empty() {
                other.push((kind, content));
            }
        }
        let (frames, gaps) = (self.sparse_frames(), self.encoded_gaps());
        let mut resident: Vec<(SectionKind, &[u8])> = vec![
            (SectionKind::FRAMES, &frames),
            (SectionKind::FENCE, &writer.fence),
            (SectionKind::FILTER, &filter),
        ];
        if !gaps.is_empty() {
            resident.push((SectionKind::GAPS, &gaps));
        }
        self.assemble(end, self.last_time_ms.max(carried.last_time_ms), seed, &resident, &other)
    }

    fn encoded_gaps(&self) -> Vec<u8> {
        let ends = self.gaps.iter().flat_map(|lost| [lost.start, lost.end]);
        ends.flat_map(|offset| offset.get().to_le_bytes()).collect()
    }

    fn sparse_frames(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut step = None;
        for frame in &self.frames {
            let this_step = Some(frame.position.get() / FRAMES_STEP_BYTES);
            if this_step > step {
                bytes.extend_from_slice(&frame.encode());
                step = this_step;
            }
        }
        bytes
    }

    fn assemble(
        &self,
        end: &SegmentEnd,
        last_time_ms: u64,
        seed: Seed,
        resident: &[(SectionKind, &[u8])],
        other: &[(SectionKind, &[u8])],
    ) -> Vec<u8> {
        let mut position = Position::new(INDEX_HEADER_BYTES as u64);
        let mut sections = Vec::new();
        let mut resident_bytes = position.get();
        for (index, (kind, content)) in resident.iter().chain(other).enumerate() {
            let section = Section {
                kind: *kind,
                checksum: seed.crc(content),
                position,
                bytes: content.len() as u64,
            };
            position = section.end();
            sections.push(section);
            if index < resident.len() {
                resident_bytes = position.get();
            }
        }
        let header = IndexHeader {
            base_offset: self.header.base_offset,
            end_offset: end.end_offset,
            end_position: end.end_position,
            end_checksum: end.end_checksum,
            incarnation: self.header.incarnation,
            tag: self.header.tag,
            first_time_ms: self.first_time_ms,
            last_time_ms,
            event_count: self.event_count,
            frame_count: self.frames.len() as u64,
            topic_count: self.topics.len() as u64,
            resident_bytes,
            index_bytes: position.get(),
            sections,
        };
        let mut bytes = header.encode().to_vec();
        for (_, content) in resident.iter().chain(other) {
            bytes.extend_from_slice(content);
        }
        bytes
    }
}

/// Spreads topic numbers, which count up from 0, over a hash map; nobody outside chooses them.
#[derive(Debug, Default)]
struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0 ^ u64::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
