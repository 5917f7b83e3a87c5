//! Frames whose body is compressed: those that compaction writes.
//!
//! ```text
//! 0                  4
//! +------------------+------------+------------+
//! | archive's length | zstd frame | zstd frame |     the body; the header's checksum of it covers all
//! +------------------+------------+------------+
//! ```
//! Together the zstd frames are the archive. The second begins with the event records, whose bytes are so unlike the texts
//! before them that each is shorter with codes of its own. Readers take any number of frames: there was one before.
//!
//! What reading costs is the copies that zstd makes, of earlier bytes to later places, some 13 ns each: so
//! fewer, longer ones are looked for ([`MATCH_BYTES_MIN`], [`SKIPPED_BYTES`]).
//!
//! No dictionary: frames of 128 KiB are long enough. Measured (package index / JSON events of 160 bytes): level 1 makes
//! 24.4 % and 18.7 % of their bytes at 630 and 690 MB/s; with a dictionary trained on them 24.0 % and 18.7 %, at 560
//! and 570 MB/s; level 3 with it 22.8 %, at 280 MB/s.

use std::{cell::RefCell, io::Cursor};

use zstd_safe::{CCtx, CParameter, DCtx, ParamSwitch};

use super::{
    EVENTS_MAX, FRAME_ALIGN_BYTES, FRAME_HEADER_BYTES, Frame, FrameError, FrameFlags, FrameMeta,
    Seed,
    encode::{encoded_bytes_max, frame_bytes_max, header_of, number_topics},
    header::BODY_BYTES_MAX,
};
use crate::{
    buffer::DiskBuffer,
    event::{
        StagedEvent,
        archive::{self, BODY_ALIGN_BYTES},
    },
    offset::Offset,
};

const LENGTH_BYTES: usize = 4;
const LEVEL: i32 = 1;
/// Shorter copies are not looked for: the bytes themselves are read faster.
const MATCH_BYTES_MIN: u32 = 7;
/// So many places are passed over before the next pair at which a copy may begin.
const SKIPPED_BYTES: u32 = 2;
/// So many places are remembered, one for four bytes of a frame; level 1 has one for sixteen. What is remembered longer
/// makes up for the copies that are too short.
const HASH_BITS: u32 = 15;

thread_local! {
    static DECODER: RefCell<DCtx<'static>> = RefCell::new(DCtx::create());
    static ENCODER: RefCell<CCtx<'static>> = RefCell::new(encoder());
}

fn encoder() -> CCtx<'static> {
    let mut encoder = CCtx::create();
    let parameters = [
        CParameter::CompressionLevel(LEVEL),
        CParameter::MinMatch(MATCH_BYTES_MIN),
        CParameter::TargetLength(SKIPPED_BYTES),
        CParameter::HashLog(HASH_BITS),
        // Whoever wants to pass over places is taken to want no entropy coding either.
        CParameter::LiteralCompressionMode(ParamSwitch::Enable),
    ];
    for parameter in parameters {
        encoder.set_parameter(parameter).expect("a parameter that zstd has");
    }
    encoder
}

/// A buffer with the place of a header and the archive behind it.
pub(super) fn decompress(body: &[u8]) -> Result<DiskBuffer, FrameError> {
    let wrong = FrameError::Content { what: "compressed body" };
    let Some((length, compressed)) = body.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(wrong);
    };
    let bytes = u32::from_le_bytes(*length) as usize;
    if bytes == 0 || bytes > BODY_BYTES_MAX {
        return Err(wrong);
    }
    let mut out = behind_header(bytes);
    let done = DECODER.with_borrow_mut(|decoder| decoder.decompress(&mut out, compressed));
    match done {
        Ok(done) if done == bytes => Ok(out.into_inner()),
        _ => Err(wrong),
    }
}

/// Room for `bytes` that zstd writes behind the place of a header. It is not zeroed before that.
fn behind_header(bytes: usize) -> Cursor<DiskBuffer> {
    let mut buffer = DiskBuffer::with_capacity(FRAME_HEADER_BYTES + bytes);
    buffer.extend_zeroes(FRAME_HEADER_BYTES);
    let mut out = Cursor::new(buffer);
    out.set_position(FRAME_HEADER_BYTES as u64);
    out
}

/// Makes a frame of `events` that stands for the offsets up to `end_offset`, compressed if that makes
/// it shorter. Returns it as it is read, and the bytes to be stored.
///
/// # Panics
///
/// As [`super::encode()`] does; and if there are no events, or one lies at or behind `end_offset`.
pub fn encode_compressed(
    meta: &FrameMeta,
    end_offset: Offset,
    events: &[StagedEvent],
    seed: Seed,
) -> (Frame, DiskBuffer) {
    assert!(!events.is_empty() && events.len() <= EVENTS_MAX, "{} events", events.len());
    assert!(meta.synced_offset <= meta.base_offset, "nothing of this frame is synced yet");
    let first = events.first().expect("not empty").offset;
    let last = events.last().expect("not empty").offset;
    assert!(first >= meta.base_offset && last < end_offset, "events lie in their frame");

    let shares_bytes: usize = events.iter().map(|staged| encoded_bytes_max(&staged.event)).sum();
    let mut plain = DiskBuffer::with_capacity(frame_bytes_max(shares_bytes));
    plain.extend_zeroes(FRAME_HEADER_BYTES);
    let (topics, topic_indexes) = number_topics(events);
    archive::encode_body(meta.base_offset, &topics, events, &topic_indexes, &mut plain);
    let body_bytes = plain.len() - FRAME_HEADER_BYTES;
    assert!(body_bytes <= BODY_BYTES_MAX, "a frame of {body_bytes} bytes");
    debug_assert!(FRAME_HEADER_BYTES.is_multiple_of(BODY_ALIGN_BYTES));

    let archive = &plain.as_slice()[FRAME_HEADER_BYTES..];
    let parts = archive.split_at(archive::records_at(archive.len(), events.len()));
    let bytes_max = [parts.0, parts.1].map(|part| zstd_safe::compress_bound(part.len()));
    let mut stored =
        DiskBuffer::zeroed(FRAME_HEADER_BYTES + LENGTH_BYTES + bytes_max.iter().sum::<usize>());
    let out = &mut stored.as_mut_slice()[FRAME_HEADER_BYTES..];
    let length = u32::try_from(body_bytes).expect("at most BODY_BYTES_MAX");
    out[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
    let mut compressed_bytes = 0;
    for part in [parts.0, parts.1] {
        let out = &mut out[LENGTH_BYTES + compressed_bytes..];
        let done = ENCODER.with_borrow_mut(|encoder| encoder.compress2(out, part));
        compressed_bytes += done.expect("room for the worst case");
    }
    let is_shorter = (FRAME_HEADER_BYTES + LENGTH_BYTES + compressed_bytes)
        .next_multiple_of(FRAME_ALIGN_BYTES)
        < plain.len().next_multiple_of(FRAME_ALIGN_BYTES);
    let flags = if is_shorter { FrameFlags::COMPRESSED } else { FrameFlags::NONE };
    if is_shorter {
        stored.truncate(FRAME_HEADER_BYTES + LENGTH_BYTES + compressed_bytes);
    } else {
        stored.clear();
        stored.extend_from_slice(plain.as_slice());
    }
    let meta = FrameMeta { flags, ..*meta };
    let body = &stored.as_slice()[FRAME_HEADER_BYTES..];
    let mut header = header_of(&meta, end_offset, events.len(), body, seed);
    let header_bytes = header.encode(seed);
    for buffer in [&mut stored, &mut plain] {
        buffer.as_mut_slice()[..FRAME_HEADER_BYTES].copy_from_slice(&header_bytes);
        buffer.pad_to(FRAME_ALIGN_BYTES);
    }
    (Frame { header, buffer: std::sync::Arc::new(plain), start: 0, body_bytes }, stored)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        event::NewEvent,
        frame::{FrameHeader, Trust},
        segment::Incarnation,
        topic::{Topic, TopicNumber},
    };

    fn seed() -> Seed {
        Seed::of(&Incarnation::new(*b"0123456789abcdef"))
    }

    fn frame(data: &[Vec<u8>]) -> (Frame, DiskBuffer) {
        let topic = Topic::parse("a").expect("a topic");
        let staged = |(offset, data): (u64, &Vec<u8>)| StagedEvent {
            offset: Offset::new(offset),
            time_ms: 1_000,
            topic_number: TopicNumber::new(1),
            event: NewEvent::json(topic.clone(), Bytes::copy_from_slice(data)),
        };
        let events: Vec<_> = (12..).step_by(2).zip(data).map(staged).collect();
        let meta = FrameMeta {
            base_offset: Offset::new(10),
            commit_time_ms: 1,
            synced_offset: Offset::new(10),
            previous_checksum: 7,
            flags: FrameFlags::NONE,
        };
        encode_compressed(&meta, Offset::new(100), &events, seed())
    }

    #[test]
    fn what_is_stored_is_read_back_and_stands_for_its_whole_range() {
        let data: Vec<_> = (0..40_u8).map(|byte| vec![byte; 2_000]).collect();
        let (made, stored) = frame(&data);
        assert!(made.is_compressed() && stored.len() == 4096);
        let read = Frame::parse(stored, seed(), Trust::Bytecheck).expect("a frame");
        assert_eq!((read.base_offset(), read.end_offset()), (Offset::new(10), Offset::new(100)));
        for frame in [&made, &read] {
            assert!(frame.events().map(|event| event.data()).eq(data.iter().map(|data| &data[..])));
            assert_eq!(frame.frame_bytes(), 4096, "in its file");
        }
    }

    #[test]
    fn records_are_a_part_of_their_own_and_one_part_is_read_as_well() {
        let data: Vec<_> = (0..40_u8).map(|byte| vec![byte; 2_000]).collect();
        let (made, stored) = frame(&data);
        let body_bytes = made.header().body_bytes as usize;
        let body = &stored.as_slice()[FRAME_HEADER_BYTES..][..body_bytes];
        let plain = decompress(body).expect("an archive");
        let (length, parts) = body.split_at(LENGTH_BYTES);
        let archive = &plain.as_slice()[FRAME_HEADER_BYTES..];
        assert_eq!(length, u32::try_from(archive.len()).expect("short").to_le_bytes());

        let first_bytes = zstd_safe::find_frame_compressed_size(parts).expect("a zstd frame");
        let (first, second) = parts.split_at(first_bytes);
        assert_eq!(zstd_safe::find_frame_compressed_size(second), Ok(second.len()));
        let mut records = vec![0; archive.len()];
        let records_bytes = zstd_safe::decompress(&mut records[..], second).expect("a zstd frame");
        assert_eq!(records_bytes, data.len() * 36 + 16);
        assert!(archive.ends_with(&records[..records_bytes]));
        assert!(decompress(&[length, first].concat()).is_err(), "half of it");

        let mut whole = vec![0; zstd_safe::compress_bound(archive.len())];
        let bytes = zstd_safe::compress(&mut whole[..], archive, LEVEL).expect("room");
        let read = decompress(&[length, &whole[..bytes]].concat()).expect("as it was before");
        assert_eq!(read.as_slice(), plain.as_slice());
    }

    #[test]
    fn what_does_not_get_shorter_is_stored_as_it_is() {
        let (made, stored) = frame(&[vec![1]]);
        assert!(!made.is_compressed());
        assert_eq!(made.as_bytes(), stored.as_slice());
        assert!(Frame::parse(stored, seed(), Trust::Bytecheck).is_ok());
    }

    #[test]
    fn a_body_that_lies_about_its_length_is_refused() {
        let (_, stored) = frame(&[vec![3; 50_000]]);
        let body_bytes =
            FrameHeader::decode(stored.as_slice(), seed()).expect("a header").body_bytes;
        let body = &stored.as_slice()[FRAME_HEADER_BYTES..][..body_bytes as usize];
        assert!(decompress(body).is_ok());
        for length in [0_u32, 1, 50_000, u32::MAX, 1 << 30] {
            let mut body = body.to_vec();
            body[..4].copy_from_slice(&length.to_le_bytes());
            assert!(decompress(&body).is_err(), "{length}");
        }
        assert!(decompress(&body[..body.len() - 1]).is_err());
        assert!(decompress(&[]).is_err());
    }
}
