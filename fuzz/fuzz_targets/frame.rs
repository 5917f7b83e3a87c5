//! Any bytes are a frame or an error, and a frame is read to its last byte without a panic.
//!
//! The input is tried as it is, and as a body behind a header whose checksums are right: else
//! nothing but checksums would be tested.

#![no_main]

use libfuzzer_sys::fuzz_target;
use strandline_storage::{
    buffer::DiskBuffer,
    config::SyncMode,
    frame::{Frame, FrameHeader, Seed, Trust},
    index::{self, IndexBuilder, SegmentEnd},
    offset::Offset,
    segment::{FIRST_FRAME_POSITION, Incarnation, SegmentHeader, Tag},
};

const INCARNATION: Incarnation = Incarnation::new([7; 16]);

fuzz_target!(|data: &[u8]| {
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

/// A frame whose counts are the first bytes of the input, and whose body is the rest.
fn with_good_checksums(data: &[u8]) -> Option<DiskBuffer> {
    let ([base, span, count, flags], body) = data.split_first_chunk::<4>()?;
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
    header.extend_from_slice(&u16::from(*flags).to_le_bytes());
    header.extend_from_slice(&u64::from(*base).to_le_bytes());
    header.extend_from_slice(&(u64::from(*base) + u64::from(*span)).to_le_bytes());
    header.extend_from_slice(&[0; 16]);
    header.extend_from_slice(&u32::from(*count).to_le_bytes());
    header.extend_from_slice(&body_bytes.to_le_bytes());
    header.extend_from_slice(&crc(body).to_le_bytes());
    header.extend_from_slice(&[0; 8]);
    header.extend_from_slice(&crc(&header).to_le_bytes());
    let mut buffer = DiskBuffer::default();
    buffer.extend_from_slice(&header);
    buffer.extend_from_slice(body);
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
