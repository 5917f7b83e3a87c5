//! An index, in memory and in its file, against a list of everything that was put in.

use std::collections::BTreeMap;

use crate::common::{frame_of, seed, segment_header, staged};
use proptest::prelude::*;
use strandline_storage::{
    frame::Frame,
    index::{
        self, FramePlace, IndexBuilder, IndexError, IndexHeader, ResidentIndex, SegmentEnd,
        TopicFrame, TopicList, TopicSummary,
    },
    offset::{Offset, Position},
    segment::FIRST_FRAME_POSITION,
    topic::{TopicNumber, TopicPattern},
};

const BASE_OFFSET: u64 = 5_000;

/// A segment's frames and where they lie.
struct Segment {
    frames: Vec<(Frame, Position)>,
    names: Vec<String>,
    end: SegmentEnd,
}

/// What a frame is made of: for each event how many offsets before it are skipped, how much later it
/// is, its topic, and its data's length.
type Plan = Vec<(u64, u64, usize, usize)>;

fn plans() -> impl Strategy<Value = (usize, Vec<Plan>)> {
    (1..300usize).prop_flat_map(|topics| {
        let event =
            (0..3u64, 0..5u64, 0..topics, prop_oneof![9 => 0..50usize, 1 => 0..30_000usize]);
        (Just(topics), prop::collection::vec(prop::collection::vec(event, 0..8), 0..120))
    })
}

fn segment(topics: usize, plans: &[Plan]) -> Segment {
    let names: Vec<String> = (0..topics)
        .map(|number| match number % 3 {
            0 => format!("rooms/{number}/messages"),
            1 => format!("rooms/{number}"),
            _ => format!("ä{number}/{}", "long/".repeat(number % 10) + "end"),
        })
        .collect();
    let mut end = SegmentEnd {
        end_offset: Offset::new(BASE_OFFSET),
        end_position: FIRST_FRAME_POSITION,
        end_checksum: seed().chain_start(),
    };
    let mut time_ms = 1_763_700_000_000;
    let mut frames = Vec::new();
    for plan in plans {
        let mut offset = end.end_offset.get();
        let mut events = Vec::new();
        for (skipped, later_ms, topic, data_bytes) in plan {
            (offset, time_ms) = (offset + skipped, time_ms + later_ms);
            let number = u32::try_from(topic + 7).expect("few topics");
            events.push(staged(offset, time_ms, number, &names[*topic], &vec![b'1'; *data_bytes]));
            offset += 1;
        }
        let frame = frame_of(end.end_offset.get(), end.end_checksum, &events);
        let position = end.end_position;
        end = SegmentEnd {
            end_offset: frame.end_offset(),
            end_position: position.plus(frame.frame_bytes() as u64),
            end_checksum: frame.header().checksum,
        };
        frames.push((frame, position));
    }
    Segment { frames, names, end }
}

impl Segment {
    fn builder(&self) -> IndexBuilder {
        let mut builder = IndexBuilder::new(&segment_header(BASE_OFFSET));
        for (frame, position) in &self.frames {
            builder.add(frame, *position).expect("a frame of ours");
        }
        builder
    }

    /// Offset, time, topic and frame of every event.
    fn events(&self) -> Vec<(Offset, u64, String, Position)> {
        let events = self.frames.iter().flat_map(|(frame, position)| {
            frame
                .events()
                .map(|event| (event.offset(), event.time_ms(), event.topic().to_owned(), *position))
        });
        events.collect()
    }

    /// What the index must say of each topic, by name.
    fn topics(&self) -> BTreeMap<String, (TopicSummary, Vec<TopicFrame>)> {
        let mut topics: BTreeMap<String, (TopicSummary, Vec<TopicFrame>)> = BTreeMap::new();
        for (frame, position) in &self.frames {
            for event in frame.events() {
                let first = TopicSummary {
                    number: event.topic_number(),
                    event_count: 0,
                    first_offset: event.offset(),
                    last_offset: event.offset(),
                    last_time_ms: event.time_ms(),
                };
                let (summary, frames) =
                    topics.entry(event.topic().to_owned()).or_insert((first, Vec::new()));
                summary.event_count += 1;
                summary.last_offset = event.offset();
                summary.last_time_ms = event.time_ms();
                match frames.last_mut() {
                    Some(last) if last.position == *position => last.event_count += 1,
                    _ => frames.push(TopicFrame {
                        position: *position,
                        first_offset: event.offset(),
                        event_count: 1,
                    }),
                }
            }
        }
        topics
    }

    /// The position of the frame that stands for an offset.
    fn frame_of(&self, offset: Offset) -> Option<Position> {
        let mut frames = self.frames.iter();
        frames
            .find(|(frame, _)| frame.base_offset() <= offset && offset < frame.end_offset())
            .map(|(_, position)| *position)
    }
}

/// Reads from an index file only what a reader would, and says how many bytes that was.
struct FileReader<'a> {
    bytes: &'a [u8],
    read_bytes: usize,
}

impl FileReader<'_> {
    fn read(&mut self, position: Position, len: usize) -> &[u8] {
        self.read_bytes += len;
        let start = usize::try_from(position.get()).expect("inside the file");
        &self.bytes[start..start + len]
    }

    fn topics(
        &mut self,
        resident: &ResidentIndex,
        pattern: &TopicPattern,
    ) -> Vec<(String, TopicSummary, Vec<TopicFrame>)> {
        let blocks = resident.topic_blocks(pattern);
        let (position, len) = resident.topic_blocks_place(&blocks);
        let bytes = self.read(position, len).to_vec();
        let mut blocks = resident.read_topics(&bytes, blocks).expect("whole blocks");
        let mut found = Vec::new();
        while let Some(entry) = blocks.next_entry().expect("a good block") {
            if pattern.matches(entry.name) {
                let frames = match entry.list().expect("a good list") {
                    TopicList::Here(frames) => frames,
                    TopicList::Stored(list) => {
                        let bytes = self.read(list.position, list.list_bytes);
                        list.decode(bytes).expect("a good list")
                    }
                };
                found.push((entry.name.to_owned(), entry.summary, frames));
            }
        }
        found
    }
}

fn check_seek(segment: &Segment, builder: &IndexBuilder, resident: &ResidentIndex) {
    let end = segment.end.end_offset.get();
    for offset in (BASE_OFFSET - 2..end + 2).map(Offset::new) {
        let wanted = segment.frame_of(offset);
        let exact = builder.frame_index_at(offset).map(|index| builder.frames()[index].position);
        assert_eq!(exact, wanted, "{offset}");
        let sparse = resident.frame_at(offset).map(|place| place.position);
        assert_eq!(sparse.is_some(), wanted.is_some(), "{offset}");
        if let (Some(sparse), Some(wanted)) = (sparse, wanted) {
            assert!(sparse <= wanted && wanted.get() - sparse.get() <= 64 << 10, "{offset}");
        }
    }
    let events = segment.events();
    let times = events.iter().flat_map(|(_, time_ms, ..)| [time_ms - 1, *time_ms, time_ms + 1]);
    for time_ms in times {
        let wanted = events.iter().find(|event| event.1 >= time_ms).map(|event| event.3);
        let exact = builder.frame_index_at_time(time_ms);
        let exact = exact.map(|index| builder.frames()[index].position);
        let sparse = resident.frame_at_time(time_ms).map(|place| place.position);
        assert_eq!(exact.is_some(), wanted.is_some(), "{time_ms}");
        assert_eq!(sparse.is_some(), wanted.is_some(), "{time_ms}");
        // No event at or behind the time lies before where the reader begins.
        assert!(exact <= wanted && sparse <= wanted, "{time_ms}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_index_finds_everything_and_nothing_else((topics, plans) in plans()) {
        let segment = segment(topics, &plans);
        let builder = segment.builder();
        let bytes = builder.finish(&segment.end);
        let resident = index::check_all(&bytes).expect("a good index");
        let header = resident.header();
        prop_assert_eq!(header.end_offset, segment.end.end_offset);
        prop_assert_eq!(header.end_position, segment.end.end_position);
        prop_assert_eq!(header.end_checksum, segment.end.end_checksum);
        prop_assert!(header.belongs_to(&segment_header(BASE_OFFSET)));
        check_seek(&segment, &builder, &resident);

        let model = segment.topics();
        let mut reader = FileReader { bytes: &bytes, read_bytes: 0 };
        for name in &segment.names {
            let pattern = TopicPattern::parse(name).expect("a pattern");
            reader.read_bytes = 0;
            let found = reader.topics(&resident, &pattern);
            prop_assert!(reader.read_bytes <= 4096 + 4 * plans.len(), "{}", reader.read_bytes);
            let wanted = model.get(name).map(|(summary, frames)| (name, summary, frames));
            let one = found.iter().map(|(name, summary, frames)| (name, summary, frames)).next();
            prop_assert_eq!(one, wanted);
        }
        for pattern in ["**", "rooms/**", "rooms/*", "rooms/*/messages", "*/long/**", "rooms/1", "z"] {
            let pattern = TopicPattern::parse(pattern).expect("a pattern");
            let found: BTreeMap<_, _> = reader
                .topics(&resident, &pattern)
                .into_iter()
                .map(|(name, summary, frames)| (name, (summary, frames)))
                .collect();
            let matching = model.iter().filter(|(name, _)| pattern.matches(name));
            let wanted: BTreeMap<_, _> =
                matching.map(|(name, value)| (name.clone(), value.clone())).collect();
            prop_assert_eq!(found, wanted, "{}", pattern);
        }
        for (name, (summary, frames)) in &model {
            prop_assert_eq!(builder.topic(summary.number), Some(*summary));
            let in_memory = builder.topic_frames(summary.number);
            prop_assert_eq!(&in_memory, frames, "{}", name);
        }
        prop_assert_eq!(builder.topic_count(), model.len());
        prop_assert_eq!(builder.topic(TopicNumber::new(3)), None);
        prop_assert_eq!(builder.topic_frames(TopicNumber::new(3)).len(), 0);
    }

    #[test]
    fn a_flipped_bit_is_found_where_it_is_read(
        (topics, plans) in plans(),
        place in any::<prop::sample::Index>(),
        bit in 0..8u8,
    ) {
        let segment = segment(topics, &plans);
        let good = segment.builder().finish(&segment.end);
        let mut bytes = good.clone();
        bytes[place.index(good.len())] ^= 1 << bit;
        prop_assert!(index::check_all(&bytes).is_err());
        // What the reader still reads, it reads as it was written.
        if let Ok(resident) = ResidentIndex::decode(&bytes) {
            let read = |bytes: &[u8]| -> Result<Vec<(String, TopicSummary, TopicList)>, IndexError> {
                let blocks = 0..resident.topic_block_count();
                let (position, len) = resident.topic_blocks_place(&blocks);
                let start = usize::try_from(position.get()).expect("inside the file");
                let mut topics = resident.read_topics(&bytes[start..start + len], blocks)?;
                let mut found = Vec::new();
                while let Some(entry) = topics.next_entry()? {
                    let mut list = entry.list()?;
                    if let TopicList::Stored(stored) = &list {
                        let start = usize::try_from(stored.position.get()).expect("inside");
                        let bytes = &bytes[start..start + stored.list_bytes];
                        list = TopicList::Here(stored.decode(bytes)?);
                    }
                    found.push((entry.name.to_owned(), entry.summary, list));
                }
                Ok(found)
            };
            if let Ok(found) = read(&bytes) {
                prop_assert_eq!(found, read(&good).expect("a good index"));
            }
        }
    }

    #[test]
    fn a_cut_index_is_refused((topics, plans) in plans(), place in any::<prop::sample::Index>()) {
        let segment = segment(topics, &plans);
        let bytes = segment.builder().finish(&segment.end);
        prop_assert!(index::check_all(&bytes[..place.index(bytes.len())]).is_err());
    }
}

#[test]
fn an_empty_segment_has_an_index() {
    let segment = segment(1, &[]);
    let bytes = segment.builder().finish(&segment.end);
    let resident = index::check_all(&bytes).expect("a good index");
    assert_eq!(resident.frame_at(Offset::new(BASE_OFFSET)), None);
    assert_eq!(resident.frame_at_time(0), None);
    assert!(!resident.may_contain("rooms/0/messages"));
    assert_eq!(resident.topic_blocks(&TopicPattern::all()), 0..0);
    assert_eq!(IndexHeader::decode(&bytes).expect("a header").index_bytes, bytes.len() as u64);
}

#[test]
fn frames_that_contradict_each_other_are_refused_and_leave_nothing() {
    let mut builder = IndexBuilder::new(&segment_header(0));
    let first = frame_of(0, 0, &[staged(0, 50, 1, "a", b"1")]);
    builder.add(&first, FIRST_FRAME_POSITION).expect("the first frame");
    let next = Position::new(8192);
    for events in [
        // Another name for the same number; a number twice; an earlier time.
        vec![staged(1, 60, 2, "b", b"1"), staged(2, 60, 1, "c", b"1")],
        vec![staged(1, 49, 2, "b", b"1")],
    ] {
        let frame = frame_of(1, 0, &events);
        assert!(matches!(builder.add(&frame, next), Err(IndexError::Content { .. })));
        assert_eq!((builder.event_count(), builder.topic_count()), (1, 1));
    }
    let place = FramePlace {
        base_offset: Offset::ZERO,
        time_ms: 50,
        position: FIRST_FRAME_POSITION,
        frame_bytes: 4096,
    };
    assert_eq!(builder.frames(), [place]);
}
