//! Frames there and back, and every way in which bytes are none.

use bytes::Bytes;

use super::*;
use crate::{
    event::{DataForm, EventId, EventKey, EventKind, EventType, NewEvent, StagedEvent},
    segment::Incarnation,
    topic::Topic,
};

fn seed() -> Seed {
    Seed::of(&Incarnation::new(*b"0123456789abcdef"))
}

fn meta(base_offset: u64) -> FrameMeta {
    FrameMeta {
        base_offset: Offset::new(base_offset),
        commit_time_ms: 1_763_700_000_000,
        synced_offset: Offset::new(base_offset),
        previous_checksum: seed().chain_start(),
        flags: FrameFlags::NONE,
    }
}

fn staged(offset: u64, topic: &str, data: &'static str) -> StagedEvent {
    let topic = Topic::parse_reserved(topic).expect("a topic");
    StagedEvent {
        offset: Offset::new(offset),
        time_ms: 1_763_700_000_000 + offset,
        topic_number: TopicNumber::new(u32::try_from(topic.len()).expect("short")),
        event: NewEvent::json(topic, Bytes::from_static(data.as_bytes())),
    }
}

fn reparse(frame: &Frame) -> Result<Frame, FrameError> {
    Frame::parse_at(frame.buffer(), 0, seed(), Trust::Bytecheck)
}

#[test]
fn frames_of_a_row_are_those_that_are_made_alone() {
    let events: Vec<StagedEvent> = (7..12).map(|offset| staged(offset, "a", "{}")).collect();
    let mut row = FrameRow::default();
    let first = row.push(&meta(7), &events[..2], seed());
    let behind = FrameMeta { previous_checksum: first.checksum, ..meta(9) };
    row.push(&behind, &events[2..], seed());
    let bytes = row.bytes();
    let (frames, buffer) = row.finish();
    let frames: Vec<Frame> = frames.collect();
    let alone = [
        encode(&meta(7), &events[..2], seed(), DiskBuffer::default()),
        encode(&behind, &events[2..], seed(), DiskBuffer::default()),
    ];
    assert_eq!(frames.len(), 2);
    let mut written = Vec::new();
    for (frame, alone) in frames.iter().zip(&alone) {
        assert_eq!(frame.header(), alone.header());
        assert_eq!(frame.as_bytes(), alone.as_bytes());
        assert!(frame.events().map(|event| event.offset()).eq(alone.events().map(|e| e.offset())));
        written.extend_from_slice(alone.as_bytes());
    }
    assert_eq!((buffer.as_slice(), bytes), (&written[..], written.len()));
}

#[test]
fn everything_of_an_event_comes_back() {
    let plain = staged(7, "a", "{}");
    let mut full = staged(9, "rooms/42/messages", "\u{0}\u{1}");
    full.time_ms = archive::TIME_MS_END - 1;
    full.event.event_type = EventType::parse("a-long-type-name").expect("a type");
    full.event.id = Some(EventId::parse("id").expect("an id"));
    full.event.key = Some(EventKey::parse("a key of more than eight bytes").expect("a key"));
    full.event.headers =
        vec![("a".into(), "b".into()), ("x-longer-name".into(), "and a longer value".into())];
    full.event.content_type = "text/plain".into();
    full.event.form = DataForm::Text;
    let frame = encode(&meta(7), &[plain, full], seed(), DiskBuffer::default());
    let frame = reparse(&frame).expect("a frame");
    assert_eq!((frame.base_offset(), frame.end_offset()), (Offset::new(7), Offset::new(10)));
    assert_eq!(frame.len(), 2);

    let event = frame.event(0);
    assert_eq!(event.offset(), Offset::new(7));
    assert_eq!((event.topic(), event.topic_number()), ("a", TopicNumber::new(1)));
    assert_eq!((event.event_type(), event.content_type()), ("message", "application/json"));
    assert_eq!((event.id(), event.key(), event.headers().len()), (None, None, 0));
    assert_eq!((event.form(), event.kind()), (DataForm::Json, EventKind::Data));
    assert_eq!(event.data(), b"{}");

    let event = frame.event(1);
    assert_eq!(event.offset(), Offset::new(9));
    assert_eq!(event.time_ms(), archive::TIME_MS_END - 1);
    assert_eq!(event.topic(), "rooms/42/messages");
    assert_eq!((event.event_type(), event.content_type()), ("a-long-type-name", "text/plain"));
    assert_eq!(event.id(), Some("id"));
    assert_eq!(event.key(), Some("a key of more than eight bytes"));
    assert_eq!(
        event.headers().collect::<Vec<_>>(),
        [("a", "b"), ("x-longer-name", "and a longer value")]
    );
    assert_eq!((event.form(), event.data()), (DataForm::Text, &b"\0\x01"[..]));
}

#[test]
fn a_frame_of_no_events_is_one_block_without_a_body() {
    let clean_end = FrameMeta { flags: FrameFlags::CLEAN_END, ..meta(3) };
    let frame = encode(&clean_end, &[], seed(), DiskBuffer::zeroed(9000));
    let frame = reparse(&frame).expect("a frame");
    assert_eq!((frame.len(), frame.frame_bytes()), (0, 4096));
    assert_eq!(frame.end_offset(), Offset::new(3));
    assert!(frame.header().flags.has(FrameFlags::CLEAN_END));
    assert_eq!(frame.events().len(), 0);
    assert_eq!(frame.topics().count(), 0);
    assert_eq!(frame.index_at(Offset::ZERO), 0);
}

#[test]
fn the_header_is_read_without_the_body() {
    let frame = encode(&meta(0), &[staged(0, "a", "{}")], seed(), DiskBuffer::default());
    let mut bytes = DiskBuffer::clone(frame.buffer());
    bytes.as_mut_slice()[70] ^= 1;
    assert_eq!(FrameHeader::decode(bytes.as_slice(), seed()).as_ref(), Ok(frame.header()));
    assert_eq!(
        Frame::parse(bytes, seed(), Trust::Checksum).map(|_| ()),
        Err(FrameError::BodyChecksum)
    );
}

#[test]
fn every_flipped_bit_is_found() {
    let frame = encode(&meta(0), &[staged(0, "a", "{}")], seed(), DiskBuffer::default());
    for bit in 0..frame.frame_bytes() * 8 {
        let mut bytes = DiskBuffer::clone(frame.buffer());
        bytes.as_mut_slice()[bit / 8] ^= 1 << (bit % 8);
        assert!(Frame::parse(bytes, seed(), Trust::Bytecheck).is_err(), "bit {bit}");
    }
}

#[test]
fn another_incarnation_is_not_read() {
    let other = Seed::of(&Incarnation::new([1; 16]));
    let frame = encode(&meta(0), &[staged(0, "a", "{}")], other, DiskBuffer::default());
    assert_eq!(reparse(&frame).map(|_| ()), Err(FrameError::HeaderChecksum));
}

#[test]
fn what_is_no_frame_is_named() {
    let parse = |bytes| Frame::parse(bytes, seed(), Trust::Checksum).map(|_| ());
    assert_eq!(parse(DiskBuffer::zeroed(4096)), Err(FrameError::Blank));
    assert!(matches!(parse(DiskBuffer::zeroed(63)), Err(FrameError::Truncated { .. })));
    let frame = encode(&meta(0), &[staged(0, "a", "{}")], seed(), DiskBuffer::default());
    let mut bytes = DiskBuffer::clone(frame.buffer());
    bytes.truncate(4095);
    let truncated = FrameError::Truncated { bytes: 4095, frame_bytes: 4096 };
    assert_eq!(parse(bytes), Err(truncated));
    let mut bytes = DiskBuffer::zeroed(4096);
    bytes.as_mut_slice()[100] = 1;
    assert_eq!(parse(bytes), Err(FrameError::Blank));
}

#[test]
fn several_frames_share_a_buffer() {
    let first = encode(&meta(0), &[staged(0, "a", "{}")], seed(), DiskBuffer::default());
    let second = encode(&meta(1), &[staged(1, "b", "[]")], seed(), DiskBuffer::default());
    let mut bytes = DiskBuffer::clone(first.buffer());
    bytes.extend_from_slice(second.as_bytes());
    let bytes = Arc::new(bytes);
    let frame = Frame::parse_at(&bytes, 4096, seed(), Trust::Checksum).expect("a frame");
    assert_eq!(frame.event(0).data(), b"[]");
    assert_eq!(frame.as_bytes(), second.as_bytes());
    let past = Frame::parse_at(&bytes, 8192, seed(), Trust::Checksum);
    assert!(matches!(past.map(|_| ()), Err(FrameError::Truncated { bytes: 0, .. })));
}

#[test]
fn events_are_found_by_offset_and_time() {
    let events =
        [staged(10, "a", "0"), staged(13, "a", "1"), staged(14, "b", "2"), staged(20, "a", "3")];
    let frame = encode(&meta(10), &events, seed(), DiskBuffer::default());
    for (offset, index) in [(0, 0), (10, 0), (11, 1), (13, 1), (14, 2), (15, 3), (21, 4)] {
        assert_eq!(frame.index_at(Offset::new(offset)), index, "{offset}");
        assert_eq!(frame.index_at_time(1_763_700_000_000 + offset), index, "{offset}");
    }
    let backwards: Vec<_> = frame.events().rev().map(|event| event.offset().get()).collect();
    assert_eq!(backwards, [20, 14, 13, 10]);
}

#[test]
fn a_body_that_breaks_an_invariant_is_refused_though_its_checksum_holds() {
    let events = [staged(10, "a", "0"), staged(11, "a", "1")];
    let good = encode(&meta(10), &events, seed(), DiskBuffer::default());
    let root_at = FRAME_HEADER_BYTES + good.header().body_bytes as usize - 16;
    let event_at = root_at - 36;
    for (place, value, what) in [
        (event_at, 0, "offset"),
        (event_at, 2, "offset"),
        (event_at + 8, 0, "time"),
        (event_at + 10, 1, "topic"),
        (event_at + 12, 3, "form"),
        (event_at + 13, 5, "kind"),
        (event_at + 14, 1, "reserved field"),
    ] {
        let mut bytes = DiskBuffer::clone(good.buffer());
        bytes.as_mut_slice()[place] = value;
        reseal(&mut bytes, good.header());
        let error = Frame::parse(bytes, seed(), Trust::Checksum).map(|_| ()).expect_err(what);
        assert_eq!(error, FrameError::Body(archive::BodyError::Event { what, index: 1 }));
    }
    // The lists of the root.
    for place in [root_at, root_at + 4, root_at + 8, root_at + 12] {
        let mut bytes = DiskBuffer::clone(good.buffer());
        bytes.as_mut_slice()[place] ^= 0x40;
        reseal(&mut bytes, good.header());
        assert!(Frame::parse(bytes, seed(), Trust::Checksum).is_err(), "{place}");
    }
}

#[test]
fn the_bound_of_an_events_share_is_tight_and_holds() {
    // Nothing fits into eight bytes and every length is odd, so that nothing is saved.
    // An interpreter takes minutes for many in one buffer.
    let many = if cfg!(miri) { 30 } else { 300 };
    for (texts, count) in [(9, 1), (11, 7), (13, many)] {
        let events: Vec<StagedEvent> = (0..count)
            .map(|number| {
                let name = "n".repeat(texts);
                let mut staged = staged(number, &format!("{name}{number:03}"), "1");
                staged.topic_number = TopicNumber::new(u32::try_from(number).expect("few"));
                staged.event.event_type = EventType::parse(&name).expect("a type");
                staged.event.id = Some(EventId::parse(&name).expect("an id"));
                staged.event.headers = vec![(name.clone().into(), name.into())];
                staged
            })
            .collect();
        let frame = encode(&meta(0), &events, seed(), DiskBuffer::default());
        let shares: usize = events.iter().map(|staged| encoded_bytes_max(&staged.event)).sum();
        let body_bytes = frame.header().body_bytes as usize;
        let bytes_max = shares + archive::BODY_OVERHEAD_BYTES_MAX;
        assert!(body_bytes <= bytes_max, "{body_bytes} {bytes_max}");
        assert!(bytes_max - body_bytes <= 6 * (events.len() + 1), "{body_bytes} {bytes_max}");
    }
}

fn reseal(bytes: &mut DiskBuffer, header: &FrameHeader) {
    let mut header = *header;
    let body = FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + header.body_bytes as usize;
    header.body_checksum = seed().crc(&bytes.as_slice()[body]);
    let header_bytes = header.encode(seed());
    bytes.as_mut_slice()[..FRAME_HEADER_BYTES].copy_from_slice(&header_bytes);
}
