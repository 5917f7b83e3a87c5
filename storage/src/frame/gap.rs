//! A frame that stands for events which are lost, so that the segment can be read over them.
//!
//! ```text
//! 0        64         72     64 + body bytes   a multiple of 4096
//! +--------+----------+-----+--------+
//! | header | STRLNGAP | why | zeroes |
//! +--------+----------+-----+--------+
//! ```
//! The header is that of any frame, and valid: `base offset` to `end offset` is what is lost, and the chain
//! goes on. Its body is no archive, and its body checksum is the *complement* of what it should be. So
//! whoever reads the segment finds a rotten body, names the gap and goes on behind it, as any program of
//! this format always did; one that knows this says what a repair found there.

use crate::{
    buffer::DiskBuffer,
    frame::{FRAME_ALIGN_BYTES, FRAME_HEADER_BYTES, FrameFlags, FrameHeader, Seed},
    offset::Offset,
};

const MAGIC: [u8; 8] = *b"STRLNGAP";
/// The longest text that is kept.
const WHY_BYTES_MAX: usize = 1024;
/// What one frame can stand for.
pub const GAP_OFFSETS_MAX: u64 = u32::MAX as u64;

/// Makes the frame for the offsets from `base` to `end`, at least one and at most [`GAP_OFFSETS_MAX`].
pub fn encode(
    base: Offset,
    end: Offset,
    commit_time_ms: u64,
    why: &str,
    seed: Seed,
    previous_checksum: u32,
) -> (FrameHeader, DiskBuffer) {
    assert!(base < end && end.since(base) <= GAP_OFFSETS_MAX, "a gap from {base} to {end}");
    let why = &why[..why.floor_char_boundary(WHY_BYTES_MAX)];
    let mut buffer = DiskBuffer::default();
    buffer.extend_zeroes(FRAME_HEADER_BYTES);
    buffer.extend_from_slice(&MAGIC);
    buffer.extend_from_slice(why.as_bytes());
    let body = &buffer.as_slice()[FRAME_HEADER_BYTES..];
    let mut header = FrameHeader {
        base_offset: base,
        end_offset: end,
        // How many there were is not known. A frame with a body has at least one.
        event_count: 1,
        commit_time_ms,
        synced_offset: base,
        previous_checksum,
        body_bytes: u32::try_from(body.len()).expect("a short text"),
        body_checksum: !seed.crc(body),
        flags: FrameFlags::NONE,
        checksum: 0,
    };
    let header_bytes = header.encode(seed);
    buffer.as_mut_slice()[..FRAME_HEADER_BYTES].copy_from_slice(&header_bytes);
    buffer.pad_to(FRAME_ALIGN_BYTES);
    (header, buffer)
}

/// What a repair found, if this body is that of such a frame.
pub(super) fn decode(body: &[u8], body_checksum: u32, header_checksum: u32) -> Option<String> {
    let why = body.strip_prefix(&MAGIC)?;
    if body_checksum != !header_checksum || why.len() > WHY_BYTES_MAX {
        return None;
    }
    String::from_utf8(why.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        frame::{Frame, FrameError, Trust},
        segment::Incarnation,
    };

    #[test]
    fn it_is_a_frame_whose_body_says_what_is_lost() {
        let seed = Seed::of(&Incarnation::new([7; 16]));
        let (base, end) = (Offset::new(40), Offset::new(52));
        for why in ["checksum of the frame body does not match", "", &"ä".repeat(2000)] {
            let (header, bytes) = encode(base, end, 5, why, seed, 9);
            assert_eq!(bytes.len(), FRAME_ALIGN_BYTES);
            assert_eq!(FrameHeader::decode(bytes.as_slice(), seed), Ok(header));
            assert_eq!((header.base_offset, header.end_offset), (base, end));
            assert_eq!(header.previous_checksum, 9);
            let parsed = Frame::parse(bytes.clone(), seed, Trust::Bytecheck);
            let Err(FrameError::Lost { why: told }) = parsed else { panic!("it is no frame") };
            assert!(why.starts_with(&told) && (told.len() == why.len() || told.len() > 1000));
            // One that rots itself is damage again.
            let mut rotten = bytes.clone();
            rotten.as_mut_slice()[FRAME_HEADER_BYTES + 3] ^= 1;
            let parsed = Frame::parse(rotten, seed, Trust::Checksum);
            assert!(matches!(parsed, Err(FrameError::BodyChecksum)));
        }
    }
}
