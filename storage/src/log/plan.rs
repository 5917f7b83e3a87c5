//! Which unsealed frames a reader needs, and where each is: in memory, or in a file.
//!
//! The plan is made by the shard that owns the log and carried out by whoever asked: it names files
//! and frames, and never a frame past the visible offset. Direct writes are read directly: a buffered
//! reader beside them costs a third of the commits.

use std::{ops::Range, path::PathBuf, sync::Arc};

use super::Log;
use crate::{
    frame::{Frame, Seed},
    io::Disk,
    offset::{Offset, Position},
    reader::ReadQuery,
    selection::Order,
    topic::TopicPattern,
    unsealed::{EventFrame, Unsealed},
};

/// Neighbouring frames in one file are read together, up to this many bytes: a direct read has a fixed cost,
/// and one of 128 KiB at a time gets a third of what the disk gives.
const READ_BYTES_MAX: usize = 1 << 20;

/// How to get at the unsealed part of what a query asks for.
pub struct UnsealedPlan<D: Disk> {
    /// The first offset that is not sealed. Where the query begins before it, the sealed segments
    /// have to be read first: they may have become more since the query was made.
    pub start: Offset,
    /// The frames that may hold hits, in the query's order.
    pub pieces: Vec<UnsealedPiece<D>>,
    /// Ascending: with these pieces everything from the query's `from` up to here (not included) is
    /// considered. Descending: everything from here (included) up to its `end`.
    pub considered: Offset,
}

/// One frame in memory, or some in a file.
pub enum UnsealedPiece<D: Disk> {
    /// A frame.
    Frame(Arc<Frame>),
    /// Frames to be read.
    Read(UnsealedRead<D>),
}

/// Whole frames, one behind the other, of one file.
pub struct UnsealedRead<D: Disk> {
    /// The file, opened as it is written: position and length are multiples of the block.
    pub file: Arc<D::File>,
    /// Its name, for errors.
    pub path: PathBuf,
    /// Where the first frame begins.
    pub position: Position,
    /// How many bytes they take.
    pub len: usize,
    /// What their checksums begin with.
    pub seed: Seed,
    /// From the first frame's base to the last one's end.
    pub offsets: Range<Offset>,
}

impl<D: Disk> Log<D> {
    /// Finds the unsealed frames that `query` needs, of about `bytes_max` bytes at most and at least
    /// one.
    pub fn plan_unsealed(&self, query: &ReadQuery, bytes_max: usize) -> UnsealedPlan<D> {
        let start = self.unsealed_start();
        let from = query.from.max(start);
        let end = query.end.min(self.visible()).max(from);
        let mut planner =
            Planner { log: self, range: from..end, pieces: Vec::new(), bytes: 0, bytes_max };
        let is_ascending = query.order == Order::Ascending;
        let considered = if is_ascending {
            planner.walk(self.unsealed.iter(), &query.topics, Order::Ascending)
        } else {
            planner.walk(self.unsealed.iter().rev(), &query.topics, Order::Descending)
        };
        let all = if is_ascending {
            query.end.min(self.visible()).max(query.from)
        } else {
            from.min(query.end)
        };
        UnsealedPlan { start, pieces: planner.pieces, considered: considered.unwrap_or(all) }
    }
}

struct Planner<'a, D: Disk> {
    log: &'a Log<D>,
    range: Range<Offset>,
    pieces: Vec<UnsealedPiece<D>>,
    bytes: usize,
    bytes_max: usize,
}

impl<'a, D: Disk> Planner<'a, D> {
    /// Takes frames until there are enough bytes; then says how far it came.
    fn walk(
        &mut self,
        segments: impl Iterator<Item = &'a Unsealed<D>>,
        patterns: &[TopicPattern],
        order: Order,
    ) -> Option<Offset> {
        for segment in segments {
            let mut frames: Vec<EventFrame> = segment.frames_in(&self.range).collect();
            if frames.is_empty() {
                continue;
            }
            if let Some(wanted) = segment.positions_of(patterns, &self.log.topics) {
                frames.retain(|frame| wanted.binary_search(&frame.position).is_ok());
            }
            if order == Order::Descending {
                frames.reverse();
            }
            for frame in frames {
                if self.bytes > 0 && self.bytes + frame.bytes > self.bytes_max {
                    let (base, end) = frame.offsets;
                    return Some(if order == Order::Ascending { base } else { end });
                }
                self.bytes += frame.bytes;
                self.take(segment, frame, order);
            }
        }
        None
    }

    fn take(&mut self, segment: &Unsealed<D>, frame: EventFrame, order: Order) {
        let (base, end) = frame.offsets;
        if let Some(recent) = self.log.recent.get(base) {
            self.pieces.push(UnsealedPiece::Frame(Arc::clone(recent)));
            return;
        }
        if let Some(UnsealedPiece::Read(read)) = self.pieces.last_mut()
            && Arc::ptr_eq(&read.file, &segment.file)
            && read.len + frame.bytes <= READ_BYTES_MAX
        {
            if order == Order::Ascending && read.position.plus(read.len as u64) == frame.position {
                read.len += frame.bytes;
                read.offsets.end = end;
                return;
            }
            if order == Order::Descending
                && frame.position.plus(frame.bytes as u64) == read.position
            {
                read.position = frame.position;
                read.len += frame.bytes;
                read.offsets.start = base;
                return;
            }
        }
        self.pieces.push(UnsealedPiece::Read(UnsealedRead {
            file: Arc::clone(&segment.file),
            path: segment.path.clone(),
            position: frame.position,
            len: frame.bytes,
            seed: segment.seed,
            offsets: base..end,
        }));
    }
}
