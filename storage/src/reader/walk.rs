//! The frames in a run of bytes of a segment, found by their headers.
//!
//! The index cuts a segment into blocks ([`crate::segment_set::Blocks`]) of whole frames. Inside a
//! block a frame begins where the one before it ended. Behind a rotten header the next one is looked for: on a
//! boundary of frames, with the checksum of this very file, of offsets that fit between the rotten one and the
//! end of the block. (No other frame of these offsets has that checksum: a process writes each place of a file once, a
//! start begins another file, a rewrite makes one with another checksum, and what a start has cut lies behind the last
//! block.) So it costs its own frame; and never more than the rest of its block, since where the next one begins is known
//! without it. Nothing is skipped in silence, all offsets that cannot be found are part of a named
//! [`Gap`].

use std::ops::Range;

use crate::{
    frame::{FRAME_ALIGN_BYTES, FrameHeader, Seed},
    misplaced::BehindDamage,
    offset::{Offset, Position},
    segment_set::Edge,
};

/// Part of a segment that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    pub offsets: Range<Offset>,
    pub position: Position,
    pub what: String,
}

/// What stands at a place of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A frame whose header is good; nobody looked at its body.
    Frame {
        header: FrameHeader,
        position: Position,
    },
    Gap(Gap),
}

impl Found {
    /// The offsets that it covers.
    pub fn offsets(&self) -> Range<Offset> {
        match self {
            Found::Frame { header, .. } => header.base_offset..header.end_offset,
            Found::Gap(gap) => gap.offsets.clone(),
        }
    }
}

/// Finds what stands in whole blocks of a segment. `edges` are where they begin and, as the last
/// one, where they end; `bytes` is what the file holds from the first edge on, and may be short.
pub(crate) fn walk(bytes: &[u8], edges: &[Edge], seed: Seed) -> Vec<Found> {
    let mut found = Vec::new();
    let Some(first) = edges.first() else { return found };
    for block in edges.windows(2) {
        let [mut at, end] = [block[0], block[1]];
        while at.position < end.position {
            let skip = usize::try_from(at.position.get() - first.position.get());
            let rest = skip.ok().and_then(|skip| bytes.get(skip..)).unwrap_or(&[]);
            match next_frame(rest, at, end, seed) {
                Ok(header) => {
                    let position = at.position;
                    at.position = position.plus(header.frame_bytes() as u64);
                    at.offset = header.end_offset;
                    found.push(Found::Frame { header, position });
                }
                Err(what) => {
                    let next = behind_damage(rest, at, end, seed);
                    let offsets = at.offset..next.offset;
                    // A frame of no events costs nothing.
                    if !offsets.is_empty() {
                        found.push(Found::Gap(Gap { offsets, position: at.position, what }));
                    }
                    at = next;
                }
            }
        }
        if at.offset != end.offset {
            let what = format!("frames end at offset {}, the index says {}", at.offset, end.offset);
            let offsets = at.offset.min(end.offset)..end.offset;
            found.push(Found::Gap(Gap { offsets, position: end.position, what }));
        }
    }
    found
}

/// The header of the frame that must begin at `at` and lie before `end`.
fn next_frame(bytes: &[u8], at: Edge, end: Edge, seed: Seed) -> Result<FrameHeader, String> {
    if bytes.is_empty() {
        return Err("the file ends here".to_owned());
    }
    let header = FrameHeader::decode(bytes, seed).map_err(|error| error.to_string())?;
    if header.base_offset != at.offset {
        return Err(format!("frame begins at offset {}, not at {}", header.base_offset, at.offset));
    }
    if at.position.plus(header.frame_bytes() as u64) > end.position
        || header.end_offset > end.offset
    {
        return Err(format!(
            "frame of {} bytes up to offset {} reaches behind its block, which ends at position {} and offset {}",
            header.frame_bytes(),
            header.end_offset,
            end.position,
            end.offset
        ));
    }
    Ok(header)
}

/// Where the frame begins that a block goes on with, if what stands at `at`, with which `bytes` begin, is not the one that
/// begins there; else its end.
///
/// It may be what stands there: then the one before it is lost, as where a write of the disk has put something that was
/// taken for that.
fn behind_damage(bytes: &[u8], at: Edge, end: Edge, seed: Seed) -> Edge {
    let positions = (0..).map(|block| at.position.plus(block * FRAME_ALIGN_BYTES as u64));
    let blocks = bytes.chunks(FRAME_ALIGN_BYTES).zip(positions);
    let blocks = blocks.take_while(|(_, position)| *position < end.position);
    let frames = blocks.filter_map(|(bytes, position)| {
        let header = FrameHeader::decode(bytes, seed).ok()?;
        // What an event holds of this file, were it published, is older: of lower offsets.
        let fits = header.base_offset >= at.offset
            && header.end_offset <= end.offset
            && position.plus(header.frame_bytes() as u64) <= end.position;
        fits.then_some((header, position))
    });
    let mut behind = BehindDamage::new((at.offset, at.position));
    for (header, position) in frames {
        if behind.take(header, position) {
            break;
        }
    }
    let next = behind.next(end.position);
    next.map_or(end, |(header, position)| Edge { position, offset: header.base_offset })
}

/// Whether what cannot be found of some blocks may stand beside them: it is missed where one of them begins or ends.
pub(crate) fn is_missed_at_an_edge(found: &[Found], edges: &[Edge]) -> bool {
    found.iter().any(|found| {
        let Found::Gap(Gap { offsets, .. }) = found else { return false };
        edges.iter().any(|edge| [offsets.start, offsets.end].contains(&edge.offset))
    })
}

/// Puts the frames that were found `beside` into the gaps that they fill.
pub(crate) fn fill_gaps(found: Vec<Found>, beside: &[Found]) -> Vec<Found> {
    let mut filled = Vec::with_capacity(found.len());
    for one in found {
        let Found::Gap(Gap { offsets, position, what }) = one else {
            filled.push(one);
            continue;
        };
        let mut from = offsets.start;
        let miss = |filled: &mut Vec<Found>, offsets: Range<Offset>| {
            if !offsets.is_empty() {
                filled.push(Found::Gap(Gap { offsets, position, what: what.clone() }));
            }
        };
        for frame in beside.iter().filter(|found| matches!(found, Found::Frame { .. })) {
            let Range { start, end } = frame.offsets();
            if start >= from && start < end && end <= offsets.end {
                miss(&mut filled, from..start);
                filled.push(frame.clone());
                from = end;
            }
        }
        miss(&mut filled, from..offsets.end);
    }
    filled
}
