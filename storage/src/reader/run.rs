//! What one read of a segment fetches, and the frames in it.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use crate::{
    buffer::DiskBuffer,
    error::ReadError,
    frame::{Frame, FrameHeader, Trust},
    io::{Disk, ReadIo, is_unreadable},
    offset::{Offset, Position},
    reader::{
        BESIDE_BYTES_MAX, RUN_BYTES_MAX, RUN_HOLE_BYTES_MAX,
        walk::{Found, Gap, fill_gaps, is_missed_at_an_edge, walk},
    },
    segment_set::{Blocks, Edge, SealedSegment},
    selection::Order,
};

/// A frame that the index names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameAt {
    pub position: Position,
    /// The offset of an event in it.
    pub offset: Offset,
}

/// Bytes of a segment, and the frames in them that were not handed out yet, in the reader's order.
pub(crate) struct Run {
    position: Position,
    bytes: Arc<DiskBuffer>,
    pub found: VecDeque<Found>,
}

impl Run {
    /// Nothing.
    pub fn empty() -> Self {
        Run { position: Position::default(), bytes: Arc::default(), found: VecDeque::new() }
    }

    /// How much was read.
    pub fn read_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Reads whole blocks and finds what stands in them; `edges` are theirs, with the end. What is missed where one of them
    /// begins or ends is looked for beside them: a write of the disk may have put it there.
    pub async fn of_blocks<D: Disk, I: ReadIo<D>>(
        segment: &SealedSegment<D>,
        io: &I,
        edges: &[Edge],
        order: Order,
    ) -> Result<Run, ReadError> {
        let (mut first, end) = (edges[0], edges[edges.len() - 1]);
        let mut bytes = segment.read_log(io, first.position, end.position).await?;
        let mut found = walk(bytes.as_slice(), edges, segment.seed());
        if is_missed_at_an_edge(&found, edges)
            && let Some(beside) = segment.blocks().beside(edges, BESIDE_BYTES_MAX)
        {
            let [start, end] = beside;
            match segment.read_log(io, start.position, end.position).await {
                Ok(more) => {
                    found = fill_gaps(found, &walk(more.as_slice(), &beside, segment.seed()));
                    (first, bytes) = (start, more);
                }
                // It is no news of these blocks.
                Err(ReadError::Io { source, .. }) if is_unreadable(&source) => {}
                Err(error) => return Err(error),
            }
        }
        let mut found = VecDeque::from(found);
        if order == Order::Descending {
            found.make_contiguous().reverse();
        }
        Ok(Run { position: first.position, bytes: Arc::new(bytes), found })
    }

    /// The same, and what the disk does not give back is a gap: of a whole run that cannot be read, even
    /// when asked twice, the block that comes first is asked for alone, and is the gap if it fails too.
    pub async fn of_readable_blocks<D: Disk, I: ReadIo<D>>(
        segment: &SealedSegment<D>,
        io: &I,
        edges: &[Edge],
        order: Order,
    ) -> Result<Run, ReadError> {
        let first = match order {
            Order::Ascending => &edges[..2],
            Order::Descending => &edges[edges.len() - 2..],
        };
        let mut failure = None;
        for edges in [edges, edges, first] {
            match Run::of_blocks(segment, io, edges, order).await {
                Err(ReadError::Io { source, .. }) if is_unreadable(&source) => {
                    failure = Some(source)
                }
                outcome => return outcome,
            }
        }
        let what = failure.map_or_else(String::new, |source| format!("cannot be read: {source}"));
        let (offsets, position) = (first[0].offset..first[1].offset, first[0].position);
        let found = VecDeque::from([Found::Gap(Gap { offsets, position, what })]);
        Ok(Run { position, bytes: Arc::default(), found })
    }

    /// Reads frames that the index names, ascending, lying in `span`. Holds as many of them, from
    /// the end that `order` begins with, as are found to be where the index says.
    pub async fn of_frames<D: Disk, I: ReadIo<D>>(
        segment: &SealedSegment<D>,
        io: &I,
        frames: &[FrameAt],
        span: Range<Position>,
        order: Order,
    ) -> Result<Run, ReadError> {
        let bytes = segment.read_log(io, span.start, span.end).await?;
        let find = |frame: &FrameAt| {
            let skip = usize::try_from(frame.position.get() - span.start.get()).ok()?;
            let header = FrameHeader::decode(bytes.as_slice().get(skip..)?, segment.seed()).ok()?;
            let (begin, end) = segment.blocks().around(frame.position)?;
            let holds = (header.base_offset..header.end_offset).contains(&frame.offset)
                && header.base_offset >= begin.offset
                && header.end_offset <= end.offset
                && frame.position.plus(header.frame_bytes() as u64) <= end.position;
            holds.then_some(Found::Frame { header, position: frame.position })
        };
        let found = match order {
            Order::Ascending => frames.iter().map_while(find).collect(),
            Order::Descending => frames.iter().rev().map_while(find).collect(),
        };
        Ok(Run { position: span.start, bytes: Arc::new(bytes), found })
    }

    /// The frame with this header; what is wrong if it cannot be had.
    pub async fn frame<D: Disk, I: ReadIo<D>>(
        &self,
        segment: &SealedSegment<D>,
        io: &I,
        header: &FrameHeader,
        position: Position,
    ) -> Result<Result<Frame, Gap>, ReadError> {
        let skip = usize::try_from(position.get() - self.position.get()).expect("in this run");
        let frame = if skip + header.frame_bytes() <= self.bytes.len() {
            Frame::parse_at(&self.bytes, skip, segment.seed(), Trust::Checksum)
        } else {
            // Longer than it was guessed to be.
            let end = position.plus(header.frame_bytes() as u64);
            let bytes = match segment.read_log(io, position, end).await {
                Err(ReadError::Io { .. }) => segment.read_log(io, position, end).await,
                read => read,
            };
            let bytes = match bytes {
                Err(ReadError::Io { source, .. }) if is_unreadable(&source) => {
                    let offsets = header.base_offset..header.end_offset;
                    let what = format!("cannot be read: {source}");
                    return Ok(Err(Gap { offsets, position, what }));
                }
                bytes => Arc::new(bytes?),
            };
            Frame::parse_at(&bytes, 0, segment.seed(), Trust::Checksum)
        };
        let what = match frame {
            Ok(frame) if frame.header() == header => return Ok(Ok(frame)),
            Ok(_) => "the frame changed while it was read".to_owned(),
            Err(error) => error.to_string(),
        };
        Ok(Err(Gap { offsets: header.base_offset..header.end_offset, position, what }))
    }
}

/// Where the blocks that a scan reads next begin, and where they end: as many as one read takes, but
/// at least one. `None` once the segment has nothing of `left`.
pub(super) fn blocks_to_scan(
    blocks: Blocks<'_>,
    left: &Range<Offset>,
    order: Order,
) -> Option<Vec<Edge>> {
    let bytes = |first: usize, end: usize| {
        blocks.edge(end).position.get() - blocks.edge(first).position.get()
    };
    let (mut first, mut end);
    match order {
        Order::Ascending => {
            first = blocks.holding(left.start)?;
            end = first + 1;
            while end < blocks.count()
                && blocks.edge(end).offset < left.end
                && bytes(first, end + 1) <= RUN_BYTES_MAX
            {
                end += 1;
            }
        }
        Order::Descending => {
            first = blocks.holding(left.end.previous()?)?;
            end = first + 1;
            while first > 0
                && blocks.edge(first).offset > left.start
                && bytes(first - 1, end) <= RUN_BYTES_MAX
            {
                first -= 1;
            }
        }
    }
    Some((first..=end).map(|index| blocks.edge(index)).collect())
}

/// Which of the `frames` one read fetches next, and from where to where: neighbours that lie close
/// together. A frame's length is not known yet; `guess_bytes` is what is read of the last one. `None`
/// if one lies outside of the segment.
pub(super) fn frames_to_fetch(
    blocks: Blocks<'_>,
    frames: &VecDeque<FrameAt>,
    guess_bytes: u64,
    order: Order,
) -> Option<(Range<usize>, Range<Position>)> {
    let reach = |frame: &FrameAt| {
        let (_, end) = blocks.around(frame.position)?;
        Some(end.position.min(frame.position.plus(guess_bytes)))
    };
    let bytes = |span: &Range<Position>| span.end.get().saturating_sub(span.start.get());
    let first = match order {
        Order::Ascending => 0,
        Order::Descending => frames.len().checked_sub(1)?,
    };
    let mut chosen = first..first + 1;
    let mut span = frames.get(first)?.position..reach(frames.get(first)?)?;
    loop {
        let next = match order {
            Order::Ascending => Some(chosen.end),
            Order::Descending => chosen.start.checked_sub(1),
        };
        let Some((next, frame)) = next.and_then(|next| Some((next, frames.get(next)?))) else {
            return Some((chosen, span));
        };
        let end = reach(frame)?;
        let wider = span.start.min(frame.position)..span.end.max(end);
        let hole = match order {
            Order::Ascending => frame.position.get().saturating_sub(span.end.get()),
            Order::Descending => span.start.get().saturating_sub(end.get()),
        };
        if hole > RUN_HOLE_BYTES_MAX || bytes(&wider) > RUN_BYTES_MAX {
            return Some((chosen, span));
        }
        chosen = chosen.start.min(next)..chosen.end.max(next + 1);
        span = wider;
    }
}
