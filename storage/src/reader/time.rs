//! From a time to an offset. An event's time is never before that of the event before it, so the
//! events from a time on are those from an offset on.

use crate::{
    error::ReadError,
    io::{Disk, ReadIo},
    offset::Offset,
    reader::{run::Run, walk::Found},
    segment_set::SegmentSet,
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
    let blocks = segment.blocks();
    let block = blocks.at_time(time_ms);
    let edges = [blocks.edge(block), blocks.edge(block + 1)];
    let run = Run::of_readable_blocks(segment, io, &edges, Order::Ascending).await?;
    for found in &run.found {
        let Found::Frame { header, position } = found else {
            return Ok(Some(found.offsets().start));
        };
        match run.frame(segment, io, header, *position).await? {
            Ok(frame) => {
                let index = frame.index_at_time(time_ms);
                if index < frame.len() {
                    return Ok(Some(frame.event(index).offset()));
                }
            }
            Err(gap) => return Ok(Some(gap.offsets.start)),
        }
    }
    Ok(Some(edges[1].offset))
}
