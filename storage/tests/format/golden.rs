//! The bytes on disk are what they were: golden files hold frames, a segment header and an index made
//! of fixed input.
//!
//! A difference is a new format version, or a mistake. `STRANDLINE_BLESS=1` writes the files anew;
//! the old ones must then still be read, under another name.

use std::{env, fs, path::PathBuf, sync::Arc};

use crate::common::{frame_of, seed, segment_header, staged};
use bytes::Bytes;
use strandline_storage::{
    buffer::DiskBuffer,
    clock::PastStep,
    config::SyncMode,
    end_mark::{
        EndMark, Latest,
        steps::{self, LatestSteps},
    },
    event::{DataForm, EventId, EventKey, EventType, StagedEvent},
    frame::{self, Frame, FrameFlags, FrameMeta, Trust},
    index::{self, IndexBuilder, SegmentEnd, TopicList},
    offset::{Offset, Position},
    segment::{FIRST_FRAME_POSITION, SegmentHeader},
    topic::TopicPattern,
};

fn check(name: &str, bytes: &[u8]) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if env::var_os("STRANDLINE_BLESS").is_some() {
        fs::write(&path, bytes).expect("the golden file is written");
    }
    let golden = fs::read(&path).expect("the golden file is there");
    if golden != bytes {
        let place = golden.iter().zip(bytes).position(|(golden, byte)| golden != byte);
        panic!(
            "{name}: {} bytes, golden {}; first difference at {place:?}",
            bytes.len(),
            golden.len()
        );
    }
    golden
}

fn full_event() -> StagedEvent {
    let mut full = staged(4_711_002, 1_763_700_000_007, 9, "rooms/42/messages", b"");
    full.event.event_type = EventType::parse("message.created").expect("a type");
    full.event.id = Some(EventId::parse("3f6c1b9e-0001").expect("an id"));
    full.event.key = Some(EventKey::parse("käy").expect("a key"));
    full.event.headers = vec![
        ("trace".into(), "0123456789abcdef".into()),
        ("x".into(), String::new().into_boxed_str()),
    ];
    full.event.content_type = "text/plain".into();
    full.event.form = DataForm::Text;
    full.event.data = Bytes::from_static(b"two\nlines");
    full
}

fn frame() -> Frame {
    let mut trade = staged(4_711_000, 1_763_700_000_000, 3, "trades/EUR", b"{\"price\":1}");
    trade.event.event_type = EventType::parse("trade").expect("a type");
    let binary = {
        let mut binary = staged(4_711_003, (1 << 48) - 1, 3, "trades/EUR", b"\x00\xff");
        binary.event.form = DataForm::Binary;
        binary.event.content_type = "application/octet-stream".into();
        binary
    };
    frame_of(4_711_000, seed().chain_start(), &[trade, full_event(), binary])
}

#[test]
fn a_frame() {
    let golden = check("frame.bin", frame().as_bytes());
    let mut buffer = DiskBuffer::default();
    buffer.extend_from_slice(&golden);
    let frame = Frame::parse(buffer, seed(), Trust::Bytecheck).expect("the golden frame");
    assert_eq!((frame.base_offset().get(), frame.end_offset().get()), (4_711_000, 4_711_004));
    let trade = frame.event(0);
    assert_eq!((trade.offset().get(), trade.time_ms()), (4_711_000, 1_763_700_000_000));
    assert_eq!((trade.topic(), trade.event_type()), ("trades/EUR", "trade"));
    assert_eq!((trade.id(), trade.content_type()), (None, "application/json"));
    assert_eq!(trade.data(), b"{\"price\":1}");
    let full = frame.event(1);
    assert_eq!((full.topic(), full.topic_number().get()), ("rooms/42/messages", 9));
    assert_eq!((full.event_type(), full.content_type()), ("message.created", "text/plain"));
    assert_eq!((full.id(), full.key()), (Some("3f6c1b9e-0001"), Some("käy")));
    assert_eq!(full.headers().collect::<Vec<_>>(), [("trace", "0123456789abcdef"), ("x", "")]);
    assert_eq!((full.form(), full.data()), (DataForm::Text, &b"two\nlines"[..]));
    let binary = frame.event(2);
    assert_eq!((binary.form(), binary.time_ms()), (DataForm::Binary, (1 << 48) - 1));
}

#[test]
fn a_frame_without_events() {
    let meta = FrameMeta {
        base_offset: Offset::new(4_711_004),
        commit_time_ms: 1_763_700_000_100,
        synced_offset: Offset::new(4_711_004),
        previous_checksum: frame().header().checksum,
        flags: FrameFlags::CLEAN_END,
    };
    let frame = frame::encode(&meta, &[], seed(), DiskBuffer::default());
    let golden = check("frame_empty.bin", frame.as_bytes());
    let mut buffer = DiskBuffer::default();
    buffer.extend_from_slice(&golden);
    let frame = Frame::parse(buffer, seed(), Trust::Bytecheck).expect("the golden frame");
    assert!(frame.is_empty() && frame.header().flags.has(FrameFlags::CLEAN_END));
    assert_eq!(frame.header().synced_offset, Offset::new(4_711_004));
}

#[test]
fn a_segment_header() {
    let header =
        SegmentHeader { sync: SyncMode::Interval { interval_ms: 50 }, ..segment_header(4_711_000) };
    let golden = check("segment_header.bin", &header.encode());
    assert_eq!(SegmentHeader::decode(&golden), Ok(header));
}

#[test]
fn an_end_mark() {
    let (active, synced) = (Offset::new(4_711_000), Offset::new(4_711_004));
    let mark = EndMark { active, synced };
    let golden = check("end_mark.bin", &mark.encode(7));
    assert_eq!(Latest::decode(&golden).map(|latest| latest.mark), Ok(mark));
}

#[test]
fn steps_of_the_clock() {
    let at = |time_ms, ahead_ms| PastStep { time_ms, ahead_ms };
    let steps = vec![at(1_763_700_000_007, 1_209_600_000), at(1_763_700_600_000, 1_000)];
    let golden = check("end_mark_steps.bin", &steps::encode(&steps, 7));
    assert_eq!(LatestSteps::decode(&golden).map(|latest| latest.steps), Ok(steps));
}

#[test]
fn an_index() {
    let mut builder = IndexBuilder::new(&segment_header(4_711_000));
    let mut end = SegmentEnd {
        end_offset: Offset::new(4_711_000),
        end_position: FIRST_FRAME_POSITION,
        end_checksum: seed().chain_start(),
    };
    // 40 frames: `busy` in each, so that its list is a stored one; 400 topics once each, so that
    // TOPICS has several blocks.
    for number in 0..40u32 {
        let mut offset = end.end_offset.get();
        let time_ms = 1_763_700_000_000 + u64::from(number);
        let mut events = vec![staged(offset, time_ms, 0, "busy", b"{}")];
        for once in 0..10 {
            offset += 1 + u64::from(once % 2);
            let topic_number = 1 + number * 10 + once;
            let topic = format!("rooms/{topic_number}/messages");
            events.push(staged(offset, time_ms, topic_number, &topic, &[b'1'; 700]));
        }
        let frame = frame_of(end.end_offset.get(), end.end_checksum, &events);
        builder.add(&frame, end.end_position).expect("a frame of ours");
        end = SegmentEnd {
            end_offset: frame.end_offset(),
            end_position: end.end_position.plus(frame.frame_bytes() as u64),
            end_checksum: frame.header().checksum,
        };
    }
    let golden = check("index.bin", &builder.finish(&end));
    let resident = index::check_all(&golden).expect("the golden index");
    assert_eq!(resident.header().event_count, 440);
    assert_eq!(resident.header().topic_count, 401);
    assert!(resident.topic_block_count() > 1);
    assert_eq!(
        resident.frame_at(Offset::new(4_711_001)).expect("inside").position,
        FIRST_FRAME_POSITION
    );
    let pattern = TopicPattern::parse("busy").expect("a pattern");
    let blocks = resident.topic_blocks(&pattern);
    let (position, len) = resident.topic_blocks_place(&blocks);
    let mut topics =
        resident.read_topics(slice(&golden, position, len), blocks).expect("whole blocks");
    let busy = topics.next_entry().expect("a good block").expect("the first topic");
    assert_eq!((busy.name, busy.summary.event_count), ("busy", 40));
    let TopicList::Stored(list) = busy.list().expect("a good list") else {
        panic!("a list of 40 frames is stored");
    };
    let frames = list.decode(slice(&golden, list.position, list.list_bytes)).expect("a good list");
    assert_eq!(frames.len(), 40);
}

fn slice(bytes: &[u8], position: Position, len: usize) -> &[u8] {
    let start = usize::try_from(position.get()).expect("inside the file");
    &bytes[start..start + len]
}

#[test]
fn the_same_events_give_the_same_bytes() {
    let buffers: [Arc<DiskBuffer>; 2] = [frame().buffer().clone(), frame().buffer().clone()];
    assert_eq!(buffers[0], buffers[1]);
}
