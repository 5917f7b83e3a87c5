//! SEGMENTS: which segments below a snapshot held events, and as which generation they had been counted.

use crate::{index::varint, offset::Offset, segment::Incarnation, snapshot::SnapshotError};

/// A segment that held events when a snapshot was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveSegment {
    /// The first offset that it stands for.
    pub base: Offset,
    /// The first offset behind those.
    pub end: Offset,
    /// Its generation.
    pub generation: u32,
    /// The incarnation of its log file.
    pub incarnation: Incarnation,
}

/// The bytes of SEGMENTS.
pub(super) fn encode(segments: &[LiveSegment]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut before = Offset::ZERO;
    for segment in segments {
        varint::write(&mut bytes, segment.base.since(before));
        varint::write(&mut bytes, segment.end.since(segment.base));
        varint::write(&mut bytes, u64::from(segment.generation));
        bytes.extend_from_slice(&segment.incarnation.bits());
        before = segment.end;
    }
    bytes
}

/// The entries of SEGMENTS, which must lie below `end`.
pub(super) fn decode(mut bytes: &[u8], end: Offset) -> Result<Vec<LiveSegment>, SnapshotError> {
    let wrong = || SnapshotError::Content { what: "SEGMENTS" };
    let mut segments = Vec::new();
    let mut before = Offset::ZERO;
    while !bytes.is_empty() {
        let mut next = |from: Offset| {
            let step = varint::read(&mut bytes)?;
            let offset = from.get().checked_add(step).map(Offset::new);
            offset.filter(|offset| *offset <= end).ok_or_else(wrong)
        };
        let base = next(before)?;
        let segment_end = next(base)?;
        let generation = u32::try_from(varint::read(&mut bytes)?).map_err(|_| wrong())?;
        let (incarnation, rest) = bytes.split_first_chunk::<16>().ok_or_else(wrong)?;
        bytes = rest;
        if segment_end == base || generation == 0 {
            return Err(wrong());
        }
        let incarnation = Incarnation::new(*incarnation);
        segments.push(LiveSegment { base, end: segment_end, generation, incarnation });
        before = segment_end;
    }
    Ok(segments)
}
