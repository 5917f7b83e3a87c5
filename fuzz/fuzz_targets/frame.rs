//! Any bytes are a frame or an error, and a frame is read to its last byte without a panic.
//!
//! The input is tried as it is, and as a body behind a header whose checksums are right: else
//! nothing but checksums would be tested. That body may also be changes to what is sound, and is compressed as
//! compaction does it where the input says so.

#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use strandline_storage::{
    buffer::DiskBuffer,
    config::SyncMode,
    event::{EventId, EventKey, NewEvent, StagedEvent},
    frame::{self, FRAME_HEADER_BYTES, Frame, FrameFlags, FrameHeader, FrameMeta, Seed, Trust},
    index::{self, IndexBuilder, SegmentEnd},
    offset::Offset,
    segment::{FIRST_FRAME_POSITION, Incarnation, SegmentHeader, Tag},
    topic::{Topic, TopicNumber},
};

const INCARNATION: Incarnation = Incarnation::new([7; 16]);

/// In the flags of the input: the body is changes to [`SOUND_BODY`], and it is compressed.
const IS_CHANGES: u8 = 0x80;
const IS_COMPRESSED: u8 = 0x40;

const SOUND_EVENTS: u8 = 6;

/// The body of a frame from which compaction took every other event.
static SOUND_BODY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let events: Vec<_> = (0..SOUND_EVENTS)
        .map(|number| {
            let name = if number % 3 == 0 { "rooms/1" } else { "a" };
            let topic = Topic::parse(name).expect("a topic");
            let mut event = NewEvent::json(topic, Bytes::from_static(b"{\"n\":1}"));
            event.id = EventId::parse("an id").ok().filter(|_| number % 2 == 0);
            event.key = EventKey::parse("a key").ok().filter(|_| number % 3 == 1);
            event.headers = vec![("trace".into(), "7".into())];
            let (offset, time_ms) = (Offset::new(2 * u64::from(number)), u64::from(number));
            let topic_number = TopicNumber::new(u32::from(number % 3 == 0));
            StagedEvent { offset, time_ms, topic_number, event }
        })
        .collect();
    let meta = FrameMeta {
        base_offset: Offset::ZERO,
        commit_time_ms: 0,
        synced_offset: Offset::ZERO,
        previous_checksum: 0,
        flags: FrameFlags::NONE,
    };
    let frame = frame::encode(&meta, &events, Seed::of(&INCARNATION), DiskBuffer::default());
    let body_bytes = u32::from_le_bytes(frame.as_bytes()[44..48].try_into().expect("4 bytes"));
    frame.as_bytes()[FRAME_HEADER_BYTES..][..body_bytes as usize].to_vec()
});

fuzz_target!(init: check_sound(), |data: &[u8]| {
    let seed = Seed::of(&INCARNATION);
    let _ = FrameHeader::decode(data, seed);
    let _ = SegmentHeader::decode(data);
    let mut buffer = DiskBuffer::default();
    buffer.extend_from_slice(data);
    read(buffer);
    if let Some(buffer) = with_good_checksums(data) {
        read(buffer);
    }
});

/// Without a change it is a frame.
fn check_sound() {
    for flags in [IS_CHANGES, IS_CHANGES | IS_COMPRESSED] {
        let buffer = with_good_checksums(&[0, 0, 0, flags]).expect("long enough");
        let frame = Frame::parse(buffer, Seed::of(&INCARNATION), Trust::Bytecheck).expect("sound");
        assert_eq!(frame.len(), usize::from(SOUND_EVENTS));
    }
}

/// Three bytes are one change: where, and what.
fn changed(changes: &[u8]) -> Vec<u8> {
    let mut body = SOUND_BODY.clone();
    for change in changes.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % body.len();
        body[at] = change[2];
    }
    body
}

fn compressed(archive: &[u8]) -> Vec<u8> {
    let mut body = vec![0; 4 + zstd_safe::compress_bound(archive.len())];
    body[..4].copy_from_slice(&u32::try_from(archive.len()).expect("an input").to_le_bytes());
    let bytes = zstd_safe::compress(&mut body[4..], archive, 1).expect("room for the worst case");
    body.truncate(4 + bytes);
    body
}

/// A frame whose counts are the first bytes of the input, and whose body is the rest, or is made by it.
fn with_good_checksums(data: &[u8]) -> Option<DiskBuffer> {
    let (&[base, mut span, mut count, flags], rest) = data.split_first_chunk::<4>()?;
    let archive = if flags & IS_CHANGES == 0 {
        rest.to_vec()
    } else {
        (span, count) = (span.wrapping_add(2 * SOUND_EVENTS), count.wrapping_add(SOUND_EVENTS));
        changed(rest)
    };
    let (body, flags) = match flags & IS_COMPRESSED {
        0 => (archive, flags & 3),
        _ => (compressed(&archive), flags & 3 | 2),
    };
    let seed = crc32fast::hash(&INCARNATION.bits());
    let crc = |bytes: &[u8]| {
        let mut hasher = crc32fast::Hasher::new_with_initial(seed);
        hasher.update(bytes);
        hasher.finalize()
    };
    let body_bytes = u32::try_from(body.len()).ok()?;
    let mut header = Vec::new();
    header.extend_from_slice(b"SLFR");
    header.extend_from_slice(&1u16.to_le_bytes());
    header.extend_from_slice(&u16::from(flags).to_le_bytes());
    header.extend_from_slice(&u64::from(base).to_le_bytes());
    header.extend_from_slice(&(u64::from(base) + u64::from(span)).to_le_bytes());
    header.extend_from_slice(&[0; 16]);
    header.extend_from_slice(&u32::from(count).to_le_bytes());
    header.extend_from_slice(&body_bytes.to_le_bytes());
    header.extend_from_slice(&crc(&body).to_le_bytes());
    header.extend_from_slice(&[0; 8]);
    header.extend_from_slice(&crc(&header).to_le_bytes());
    let mut buffer = DiskBuffer::default();
    buffer.extend_from_slice(&header);
    buffer.extend_from_slice(&body);
    buffer.pad_to(4096);
    Some(buffer)
}

fn read(buffer: DiskBuffer) {
    let seed = Seed::of(&INCARNATION);
    if let Ok(frame) = Frame::parse(buffer.clone(), seed, Trust::Checksum) {
        read_events(&frame);
    }
    let Ok(frame) = Frame::parse(buffer, seed, Trust::Bytecheck) else { return };
    read_events(&frame);
    let header = SegmentHeader {
        version: 1,
        base_offset: Offset::ZERO,
        created_at_ms: 0,
        incarnation: INCARNATION,
        tag: Tag::parse("fuzz").expect("a tag"),
        sync: SyncMode::Commit,
    };
    let mut builder = IndexBuilder::new(&header);
    if builder.add(&frame, FIRST_FRAME_POSITION).is_ok() {
        let end = SegmentEnd {
            end_offset: frame.end_offset(),
            end_position: FIRST_FRAME_POSITION.plus(frame.frame_bytes() as u64),
            end_checksum: frame.header().checksum,
        };
        let mut names: Vec<&str> = frame.topics().map(|(_, name)| name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        let checked = index::check_all(&builder.finish(&end));
        assert!(checked.is_ok() || names.len() < count, "{checked:?}");
    }
}

fn read_events(frame: &Frame) {
    let topics: Vec<_> = frame.topics().collect();
    let mut last = None;
    for (index, event) in frame.events().enumerate() {
        assert!(last < Some(event.offset()), "offsets ascend");
        assert!(event.offset() >= frame.base_offset() && event.offset() < frame.end_offset());
        assert_eq!(topics[event.topic_index()], (event.topic_number(), event.topic()));
        assert_eq!(frame.index_at(event.offset()), index);
        last = Some(event.offset());
        let _ = (event.form(), event.kind(), event.time_ms(), event.data().to_vec());
        let _ = (event.event_type().to_owned(), event.content_type().to_owned());
        let _ = (event.id().map(str::to_owned), event.key().map(str::to_owned));
        let _ = event.headers().map(|(name, value)| name.len() + value.len()).sum::<usize>();
    }
    assert_eq!(frame.events().rev().count(), frame.len());
}
