//! From a time to an offset. An event's time is never before that of the event before it, so the
//! events from a time on are those from an offset on.

use crate::{
    error::ReadError,
    io::{Disk, ReadIo},
    offset::Offset,
    reader::{run::Run, walk::Found},
    segment_set::{SealedSegment, SegmentSet},
    selection::Order,
};

/// The offset of the first event of the sealed part that was appended at `time_ms` or later; `None`
/// if there is none, and the answer is in what is not sealed yet. Reads at most one block.
///
/// Where damage hides it, the offset at which the damage begins: who reads from there is told.
pub async fn offset_at_time<D: Disk, I: ReadIo<D>>(
    set: &SegmentSet<D>,
    io: &I,
    time_ms: u64,
) -> Result<Option<Offset>, ReadError> {
    let Some(segment) = set.first_at_time(time_ms) else { return Ok(None) };
    if let Some(lost) = set.lost_before_time(time_ms) {
        return Ok(Some(lost));
    }
    let blocks = segment.blocks();
    let block = blocks.at_time(time_ms);
    let edges = [blocks.edge(block), blocks.edge(block + 1)];
    let run = Run::of_readable_blocks(segment, io, &edges, Order::Ascending).await?;
    // Damage hides it if no event behind that is of before that time.
    let mut hidden = None;
    for found in &run.found {
        let read = match found {
            Found::Frame { header, position } => run.frame(segment, io, header, *position).await?,
            _ => {
                hidden = hidden.or(Some(found.offsets().start));
                continue;
            }
        };
        match read {
            Ok(frame) => {
                let index = frame.index_at_time(time_ms);
                if index > 0 {
                    hidden = None;
                }
                if index < frame.len() {
                    let first = frame.event(index).offset();
                    return Ok(Some(hidden.map_or(first, |from| first_lost(segment, from))));
                }
            }
            Err(gap) => hidden = hidden.or(Some(gap.offsets.start)),
        }
    }
    Ok(Some(hidden.map_or(edges[1].offset, |from| first_lost(segment, from))))
}

/// Where the damage begins that hides an event. A gap of a repair has the time of the last event before it, and so have those
/// that it touches: they may stand in blocks before.
fn first_lost<D: Disk>(segment: &SealedSegment<D>, from: Offset) -> Offset {
    if segment.behind_lost(from) > from { segment.lost_before(from) } else { from }
}
