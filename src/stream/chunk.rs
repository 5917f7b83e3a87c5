//! A run of a view's events, encoded once for all who send it, and the short ring of recent runs.
//!
//! ```text
//!            start of the ring                                   end of what was considered
//!                  v                                                        v
//!   offsets  ------[  chunk 40..44  ]......[ chunk 51..52 ][ chunk 52..60 ]..|---->
//! ```
//! A chunk spans from its first event to one past its last. What lies between two chunks of a ring,
//! and behind its last one, was looked at and holds nothing for this view.
//!
//! Invariants of a [`Ring`]:
//! 1. Chunks are in offset order and do not overlap.
//! 2. Every matching event from `start` up to what was considered is in exactly one chunk.
//! 3. `bytes` is the sum of the chunks' lengths.

use std::collections::VecDeque;

use bytes::Bytes;
use strandline_storage::event::EventView;
use strandline_storage::offset::Offset;

/// A chunk ends behind the event with which it reaches this length: what a send can carry without
/// costing more, and little enough that a stalled subscriber which holds one holds little.
pub const CHUNK_BYTES_TARGET: usize = 16 * 1024;

/// How the events of a view become bytes on a wire. The edges implement it; a stream only carries
/// what comes out.
pub trait Render {
    /// Puts what stands before the first event of a chunk.
    fn open(&self, _out: &mut Vec<u8>) {}

    /// Puts one event.
    fn event(&self, event: &EventView<'_>, out: &mut Vec<u8>);

    /// Ends a chunk that began at the start of `out`; returns which part of `out` is to be sent.
    fn close(&self, out: &mut Vec<u8>) -> std::ops::Range<usize> {
        0..out.len()
    }
}

/// The bytes of a run of a view's events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The offset of its first event.
    pub start: Offset,
    /// One past the offset of its last event.
    pub end: Offset,
    /// What a subscriber sends.
    pub bytes: Bytes,
}

/// Gathers events into chunks of about [`CHUNK_BYTES_TARGET`].
pub struct ChunkBuilder<'a> {
    render: &'a dyn Render,
    scratch: &'a mut Vec<u8>,
    span: Option<(Offset, Offset)>,
}

impl<'a> ChunkBuilder<'a> {
    /// A builder that encodes into `scratch`, whose content it discards.
    pub fn new(render: &'a dyn Render, scratch: &'a mut Vec<u8>) -> Self {
        scratch.clear();
        ChunkBuilder { render, scratch, span: None }
    }

    /// Adds an event; returns the chunk that it completed, if it did.
    pub fn push(&mut self, event: &EventView<'_>) -> Option<Chunk> {
        let (offset, render) = (event.offset(), self.render);
        self.put(offset, |out| render.event(event, out))
    }

    /// Returns the chunk that was begun, if there is one.
    pub fn finish(mut self) -> Option<Chunk> {
        self.take()
    }

    fn put(&mut self, offset: Offset, encode: impl FnOnce(&mut Vec<u8>)) -> Option<Chunk> {
        let start = match self.span {
            Some((start, end)) => {
                assert!(offset >= end, "events come in offset order");
                start
            }
            None => {
                self.render.open(self.scratch);
                offset
            }
        };
        encode(self.scratch);
        self.span = Some((start, offset.plus(1)));
        if self.scratch.len() >= CHUNK_BYTES_TARGET { self.take() } else { None }
    }

    fn take(&mut self) -> Option<Chunk> {
        let (start, end) = self.span.take()?;
        let range = self.render.close(self.scratch);
        // Copied out, so that the chunk holds what it needs and no spare capacity.
        let bytes = Bytes::copy_from_slice(&self.scratch[range]);
        self.scratch.clear();
        Some(Chunk { start, end, bytes })
    }
}

/// The recent chunks of a view.
#[derive(Debug)]
pub struct Ring {
    chunks: VecDeque<Chunk>,
    start: Offset,
    bytes: usize,
}

/// What a ring has for a subscriber that has considered everything below `next`.
#[derive(Debug, PartialEq, Eq)]
pub enum RingRead {
    /// Chunks were put into the batch (none, if nothing matched); now everything below is considered.
    Through(Offset),
    /// The ring cannot serve it: read the log, at least up to this offset if visible, and ask again.
    Behind(Offset),
}

impl Ring {
    /// An empty ring that covers offsets from `start` on.
    pub fn new(start: Offset) -> Self {
        Ring { chunks: VecDeque::new(), start, bytes: 0 }
    }

    /// The first offset it covers.
    pub fn start(&self) -> Offset {
        self.start
    }

    /// The bytes that its chunks hold.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether it holds no chunk.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Adds the newest chunk.
    pub fn push(&mut self, chunk: Chunk) {
        let end = self.chunks.back().map_or(self.start, |last| last.end);
        assert!(chunk.start >= end && chunk.end > chunk.start, "chunks come in offset order");
        self.bytes += chunk.bytes.len();
        self.chunks.push_back(chunk);
    }

    /// Lets the oldest chunk go; returns its bytes, 0 if there is none.
    pub fn evict_oldest(&mut self) -> usize {
        let Some(chunk) = self.chunks.pop_front() else { return 0 };
        self.start = chunk.end;
        self.bytes -= chunk.bytes.len();
        chunk.bytes.len()
    }

    /// Forgets everything, and covers offsets from `start` on; returns the bytes that were held.
    pub fn restart(&mut self, start: Offset) -> usize {
        self.chunks.clear();
        self.start = start;
        std::mem::take(&mut self.bytes)
    }

    /// Puts chunks for a subscriber at `next` into `batch`, until it holds `bytes_max` or
    /// `chunks_max`; a first chunk is put whatever its length. Offsets below `considered` have been
    /// looked at for this ring.
    pub fn read(
        &self,
        next: Offset,
        considered: Offset,
        batch: &mut Vec<Chunk>,
        (bytes_max, chunks_max): (usize, usize),
    ) -> RingRead {
        if next < self.start {
            return RingRead::Behind(self.start);
        }
        let first = self.chunks.partition_point(|chunk| chunk.end <= next);
        if let Some(chunk) = self.chunks.get(first)
            && chunk.start < next
        {
            // It begins inside a chunk, whose bytes cannot be divided.
            return RingRead::Behind(chunk.end);
        }
        let mut bytes = 0;
        for chunk in self.chunks.range(first..) {
            let full = bytes + chunk.bytes.len() > bytes_max || batch.len() >= chunks_max;
            if full && !batch.is_empty() {
                return RingRead::Through(batch[batch.len() - 1].end);
            }
            bytes += chunk.bytes.len();
            batch.push(chunk.clone());
        }
        RingRead::Through(considered.max(next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_BOUND: (usize, usize) = (usize::MAX, usize::MAX);

    fn offset(offset: u64) -> Offset {
        Offset::new(offset)
    }

    fn chunk(start: u64, end: u64) -> Chunk {
        Chunk { start: offset(start), end: offset(end), bytes: Bytes::from(vec![b'x'; 10]) }
    }

    fn ring() -> Ring {
        let mut ring = Ring::new(offset(38));
        ring.push(chunk(40, 44));
        ring.push(chunk(51, 52));
        ring.push(chunk(52, 60));
        ring
    }

    fn read(ring: &Ring, next: u64) -> (Vec<u64>, RingRead) {
        let mut batch = Vec::new();
        let read = ring.read(offset(next), offset(65), &mut batch, NO_BOUND);
        (batch.iter().map(|chunk| chunk.start.get()).collect(), read)
    }

    #[test]
    fn a_subscriber_gets_what_it_has_not_considered() {
        let ring = ring();
        assert_eq!(read(&ring, 38), (vec![40, 51, 52], RingRead::Through(offset(65))));
        assert_eq!(read(&ring, 40), (vec![40, 51, 52], RingRead::Through(offset(65))));
        assert_eq!(read(&ring, 44), (vec![51, 52], RingRead::Through(offset(65))));
        assert_eq!(read(&ring, 47), (vec![51, 52], RingRead::Through(offset(65))));
        assert_eq!(read(&ring, 52), (vec![52], RingRead::Through(offset(65))));
        assert_eq!(read(&ring, 60), (vec![], RingRead::Through(offset(65))));
        assert_eq!(read(&ring, 70), (vec![], RingRead::Through(offset(70))));
    }

    #[test]
    fn who_is_behind_or_inside_a_chunk_reads_the_log_to_its_end() {
        let ring = ring();
        assert_eq!(read(&ring, 37), (vec![], RingRead::Behind(offset(38))));
        assert_eq!(read(&ring, 41), (vec![], RingRead::Behind(offset(44))));
        assert_eq!(read(&ring, 53), (vec![], RingRead::Behind(offset(60))));
    }

    #[test]
    fn a_batch_is_bounded_but_never_empty() {
        let ring = ring();
        let mut batch = Vec::new();
        assert_eq!(
            ring.read(offset(38), offset(65), &mut batch, (5, 9)),
            RingRead::Through(offset(44))
        );
        assert_eq!(batch.len(), 1);
        batch.clear();
        assert_eq!(
            ring.read(offset(38), offset(65), &mut batch, (20, 9)),
            RingRead::Through(offset(52))
        );
        batch.clear();
        assert_eq!(
            ring.read(offset(38), offset(65), &mut batch, (1000, 2)),
            RingRead::Through(offset(52))
        );
        assert_eq!(batch.len(), 2);
    }

    #[test]
    fn eviction_and_restart_count_their_bytes() {
        let mut ring = ring();
        assert_eq!(ring.bytes(), 30);
        assert_eq!(ring.evict_oldest(), 10);
        assert_eq!((ring.start(), ring.bytes()), (offset(44), 20));
        assert_eq!(read(&ring, 43).1, RingRead::Behind(offset(44)));
        assert_eq!(ring.restart(offset(80)), 20);
        assert!(ring.is_empty());
        assert_eq!(ring.evict_oldest(), 0);
        assert_eq!(read(&ring, 79).1, RingRead::Behind(offset(80)));
    }

    #[test]
    fn a_builder_closes_chunks_at_their_target() {
        struct Bracketed;
        impl Render for Bracketed {
            fn open(&self, out: &mut Vec<u8>) {
                out.push(b'[');
            }
            fn event(&self, _: &EventView<'_>, _: &mut Vec<u8>) {}
            fn close(&self, out: &mut Vec<u8>) -> std::ops::Range<usize> {
                out.push(b']');
                0..out.len()
            }
        }
        let mut scratch = vec![1, 2, 3];
        let mut builder = ChunkBuilder::new(&Bracketed, &mut scratch);
        assert_eq!(builder.put(offset(3), |out| out.extend_from_slice(b"a")), None);
        let big = vec![b'b'; CHUNK_BYTES_TARGET];
        let chunk = builder.put(offset(5), |out| out.extend_from_slice(&big)).expect("complete");
        assert_eq!((chunk.start, chunk.end), (offset(3), offset(6)));
        assert_eq!(chunk.bytes.len(), CHUNK_BYTES_TARGET + 3);
        assert_eq!(builder.put(offset(6), |out| out.extend_from_slice(b"c")), None);
        let chunk = builder.finish().expect("begun");
        assert_eq!((chunk.start, &chunk.bytes[..]), (offset(6), &b"[c]"[..]));
    }
}
