//! A frame that says how far the limits of its log had reached when its segment was rewritten.
//!
//! It has no events and no body, and yet stands for offsets: what those were is gone on purpose, and the log
//! keeps nothing before its end. So readers that come back are told so, and not led over it in silence, after
//! the next start as well. A program that does not know this reads over it as over any frame.

use crate::{
    buffer::DiskBuffer,
    frame::{FRAME_ALIGN_BYTES, FRAME_HEADER_BYTES, Frame, FrameFlags, FrameHeader, Seed},
    offset::Offset,
};

/// Makes the frame for the offsets from `base` to `kept_from`, at least one and less than 2^32.
pub fn encode(
    base: Offset,
    kept_from: Offset,
    commit_time_ms: u64,
    seed: Seed,
    previous_checksum: u32,
) -> (FrameHeader, DiskBuffer) {
    let is_right = base < kept_from && kept_from.since(base) <= u64::from(u32::MAX);
    assert!(is_right, "nothing is kept from {base} to {kept_from}");
    let mut header = FrameHeader {
        base_offset: base,
        end_offset: kept_from,
        event_count: 0,
        commit_time_ms,
        synced_offset: base,
        previous_checksum,
        body_bytes: 0,
        body_checksum: seed.crc(&[]),
        flags: FrameFlags::NONE,
        checksum: 0,
    };
    let mut buffer = DiskBuffer::default();
    buffer.extend_zeroes(FRAME_HEADER_BYTES);
    let header_bytes = header.encode(seed);
    buffer.as_mut_slice().copy_from_slice(&header_bytes);
    buffer.pad_to(FRAME_ALIGN_BYTES);
    (header, buffer)
}

/// From where on a log keeps anything whose segment holds this frame, if it says so.
pub fn kept_from(frame: &Frame) -> Option<Offset> {
    (frame.is_empty() && frame.base_offset() < frame.end_offset()).then(|| frame.end_offset())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        frame::{FrameMeta, Trust},
        segment::Incarnation,
    };

    #[test]
    fn it_is_an_empty_frame_that_stands_for_offsets() {
        let seed = Seed::of(&Incarnation::new([7; 16]));
        let (base, kept) = (Offset::new(40), Offset::new(52));
        let (header, bytes) = encode(base, kept, 5, seed, 9);
        assert_eq!(FrameHeader::decode(bytes.as_slice(), seed), Ok(header));
        let frame = Frame::parse(bytes, seed, Trust::Bytecheck).expect("a frame");
        assert_eq!((frame.len(), frame.frame_bytes()), (0, FRAME_ALIGN_BYTES));
        assert_eq!(kept_from(&frame), Some(kept));
        // A repair that writes its segment anew does not lose it.
        let (copy, _) =
            frame.rewritten(Offset::MAX, Seed::of(&Incarnation::new([8; 16])), 3).expect("one");
        assert_eq!(kept_from(&copy), Some(kept));
        let meta = FrameMeta {
            base_offset: base,
            commit_time_ms: 5,
            synced_offset: base,
            previous_checksum: 9,
            flags: FrameFlags::NONE,
        };
        let idle = crate::frame::encode(&meta, &[], seed, DiskBuffer::default());
        assert_eq!(kept_from(&idle), None, "one that records the synced offset");
    }
}
