//! A run of a view's events, encoded once for all who send it, and the short ring of recent runs.
//!
//! ```text
//!            start of the ring                                   end of what was considered
//!                  v                                                        v
//!   offsets  ------[  chunk 40..44  ]......[ chunk 51..52 ][ chunk 52..60 ]..|---->
//! ```
//! A chunk spans from its first event to one past its last. What lies between two chunks of a ring,
//! and behind its last one, was looked at and holds nothing for this view. A chunk that is not
//! compressed remembers where its events begin, so that a subscriber can join in its middle.
//!
//! Invariants of a [`Ring`]:
//! 1. Chunks are in offset order and do not overlap.
//! 2. Every matching event from `start` up to what was considered is in exactly one chunk.
//! 3. `held_bytes` is the memory of its chunks, and of the places for them.

use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;
use strandline_storage::event::EventView;
use strandline_storage::offset::Offset;

use super::start::ResetReason;
use crate::problem::CloseCode;

/// A chunk of live events ends behind the event with which it reaches this length: what a send can
/// carry without costing more, and little enough that a stalled subscriber which holds one holds
/// little.
pub const LIVE_CHUNK_BYTES: usize = 16 * 1024;

/// The same for chunks that are made of the log for who is behind: larger ones compress better.
pub const PAGE_CHUNK_BYTES: usize = 32 * 1024;

/// What a chunk's bytes take beside themselves: the counter of those who send them, and what the allocator adds
/// to small things, about.
const BYTES_COST: usize = 48;

/// What a stream says between its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Somebody is here.
    Heartbeat,
    /// The same, and that everything below `next` has been considered.
    Ping {
        /// The first offset that has not been considered; none while the stream waits for one beyond the
        /// end, where no cursor is true.
        next: Option<Offset>,
        /// Milliseconds since 1970.
        now_ms: u64,
    },
    /// Something was passed over; it goes on with `from`.
    Reset {
        /// Why.
        reason: ResetReason,
        /// The first offset that may follow.
        from: Offset,
    },
    /// This is the end.
    Closing(CloseCode),
}

/// How the events of a view become bytes on a wire. The edges implement it; a stream only carries
/// what comes out.
pub trait Render {
    /// Puts what stands before the first event of a chunk.
    fn open(&self, _out: &mut Vec<u8>) {}

    /// Puts one event.
    fn event(&self, event: &EventView<'_>, out: &mut Vec<u8>);

    /// Ends a chunk that began at the start of `out`; returns which part of `out` is to be sent.
    fn close(&self, out: &mut Vec<u8>) -> Range<usize> {
        0..out.len()
    }

    /// Whether a chunk can be joined at any of its events ([`Render::tail`]).
    fn is_divisible(&self) -> bool {
        true
    }

    /// What is left of a chunk from byte `at` on, where an event begins, as a chunk of its own. Only
    /// called where chunks are divisible.
    fn tail(&self, chunk: &Bytes, at: usize) -> Bytes {
        chunk.slice(at..)
    }

    /// Puts a word of the stream's own, whole, as it stands on the wire between two chunks.
    fn say(&self, word: Word, out: &mut Vec<u8>);
}

/// Where an event of a chunk begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    offset: Offset,
    at: u32,
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
    /// Where its events after the first begin; none if it has but one, or cannot be divided.
    marks: Option<Rc<[Mark]>>,
}

impl Chunk {
    /// A chunk that cannot be joined in its middle.
    pub fn whole(start: Offset, end: Offset, bytes: Bytes) -> Self {
        Chunk { start, end, bytes, marks: None }
    }

    /// The memory that it holds, beside its own place, about: with one small event a chunk that is more than its
    /// bytes.
    pub fn held_bytes(&self) -> usize {
        // Counted like the bytes: those who hold it.
        let marks = self.marks.as_ref().map_or(0, |marks| size_of_val(&**marks) + BYTES_COST);
        self.bytes.len() + BYTES_COST + marks
    }

    /// Where in its bytes the first event at or after `offset`, which lies within it, begins; `None`
    /// where it cannot be divided.
    pub fn position_of(&self, offset: Offset) -> Option<usize> {
        if offset <= self.start {
            return Some(0);
        }
        let marks = self.marks.as_deref()?;
        let mark = marks.get(marks.partition_point(|mark| mark.offset < offset))?;
        Some(mark.at as usize)
    }
}

/// Gathers events into chunks of about a length.
pub struct ChunkBuilder<'a> {
    render: &'a dyn Render,
    scratch: &'a mut Vec<u8>,
    target_bytes: usize,
    span: Option<(Offset, Offset)>,
    marks: Vec<Mark>,
}

impl<'a> ChunkBuilder<'a> {
    /// A builder that encodes into `scratch`, whose content it discards.
    pub fn new(render: &'a dyn Render, target_bytes: usize, scratch: &'a mut Vec<u8>) -> Self {
        scratch.clear();
        if scratch.capacity() == 0 {
            scratch.reserve_exact(with_room(target_bytes));
        }
        ChunkBuilder { render, scratch, target_bytes, span: None, marks: Vec::new() }
    }

    /// Adds an event; returns the chunk that it completed, if it did.
    pub fn push(&mut self, event: &EventView<'_>) -> Option<Chunk> {
        let (offset, render) = (event.offset(), self.render);
        self.put(offset, |out| render.event(event, out))
    }

    /// How many bytes have been put for the chunk that was begun.
    pub fn begun_bytes(&self) -> usize {
        self.scratch.len()
    }

    /// Forgets the chunk that was begun.
    pub fn discard(&mut self) {
        self.span = None;
        self.marks.clear();
        self.scratch.clear();
    }

    /// Returns the chunk that was begun, if there is one.
    pub fn finish(mut self) -> Option<Chunk> {
        self.take()
    }

    fn put(&mut self, offset: Offset, encode: impl FnOnce(&mut Vec<u8>)) -> Option<Chunk> {
        let start = match self.span {
            Some((start, end)) => {
                assert!(offset >= end, "events come in offset order");
                // A position beyond 4 GiB cannot be: the chunk would have ended long before.
                if let Ok(at) = u32::try_from(self.scratch.len()) {
                    self.marks.push(Mark { offset, at });
                }
                start
            }
            None => {
                self.render.open(self.scratch);
                offset
            }
        };
        encode(self.scratch);
        self.span = Some((start, offset.plus(1)));
        if self.scratch.len() >= self.target_bytes { self.take() } else { None }
    }

    fn take(&mut self) -> Option<Chunk> {
        let (start, end) = self.span.take()?;
        let range = self.render.close(self.scratch);
        let marks = if self.render.is_divisible() && !self.marks.is_empty() {
            let skipped = u32::try_from(range.start).expect("what goes before a chunk is short");
            let moved = |mark: &Mark| Mark { at: mark.at - skipped, ..*mark };
            Some(self.marks.iter().map(moved).collect())
        } else {
            None
        };
        self.marks.clear();
        Some(Chunk { start, end, bytes: self.take_bytes(range), marks })
    }

    /// Takes a range of what was encoded, and empties the rest. A full chunk is what it was encoded into,
    /// as long as that is little longer: copied it would cost a reader of the log an eighth of its time.
    fn take_bytes(&mut self, range: Range<usize>) -> Bytes {
        let bytes = range.len();
        if with_room(bytes) >= self.scratch.capacity() {
            let next = Vec::with_capacity(self.scratch.capacity());
            return Bytes::from(std::mem::replace(self.scratch, next)).slice(range);
        }
        let copied = Bytes::copy_from_slice(&self.scratch[range]);
        if bytes >= self.target_bytes && self.scratch.len() < 2 * bytes {
            // It grew for large events: the next chunk may be as long.
            *self.scratch = Vec::with_capacity(with_room(bytes));
        }
        self.scratch.clear();
        copied
    }
}

/// A length, and room for some more.
fn with_room(bytes: usize) -> usize {
    bytes + bytes / 8
}

/// The recent chunks of a view.
#[derive(Debug)]
pub struct Ring {
    chunks: VecDeque<Chunk>,
    start: Offset,
    held_bytes: usize,
}

/// What a ring has for a subscriber that has considered everything below an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingPlace {
    /// The chunks from this one on; as many as there are, if it has nothing new.
    Chunks(usize),
    /// The rest of this chunk from a byte on, and then the chunks behind it.
    Inside(usize, usize),
    /// The ring cannot serve it: read the log, at least up to this offset if visible, and ask again.
    Behind(Offset),
}

impl Ring {
    /// An empty ring that covers offsets from `start` on.
    pub fn new(start: Offset) -> Self {
        Ring { chunks: VecDeque::new(), start, held_bytes: 0 }
    }

    /// The first offset it covers.
    pub fn start(&self) -> Offset {
        self.start
    }

    /// The end of the newest chunk, or where it starts if there is none.
    pub fn end(&self) -> Offset {
        self.chunks.back().map_or(self.start, |last| last.end)
    }

    /// The memory that it holds.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// How many chunks it holds.
    pub fn len(&self) -> usize {
        self.chunks.len()
    }

    /// Whether it holds no chunk.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Adds the newest chunk.
    pub fn push(&mut self, chunk: Chunk) {
        assert!(
            chunk.start >= self.end() && chunk.end > chunk.start,
            "chunks come in offset order"
        );
        if self.chunks.capacity() == 0 {
            // Most views are of one topic, where little happens.
            self.chunks.reserve_exact(1);
            self.held_bytes += self.places_bytes();
        }
        let before = self.places_bytes();
        self.held_bytes += chunk.held_bytes();
        self.chunks.push_back(chunk);
        self.held_bytes += self.places_bytes() - before;
    }

    /// Lets the oldest chunk go; returns the memory that it held, 0 if there is none.
    pub fn evict_oldest(&mut self) -> usize {
        let (held, places) = (self.held_bytes, self.places_bytes());
        let Some(chunk) = self.chunks.pop_front() else { return 0 };
        self.start = chunk.end;
        if self.chunks.len() <= self.chunks.capacity() / 4 {
            self.chunks.shrink_to(2 * self.chunks.len());
        }
        self.held_bytes -= chunk.held_bytes() + (places - self.places_bytes());
        held - self.held_bytes
    }

    /// Forgets everything, and covers offsets from `start` on; returns the memory that was held.
    pub fn restart(&mut self, start: Offset) -> usize {
        self.chunks = VecDeque::new();
        self.start = start;
        std::mem::take(&mut self.held_bytes)
    }

    fn places_bytes(&self) -> usize {
        self.chunks.capacity() * size_of::<Chunk>()
    }

    /// Forgets its chunks; who had all of them still lacks nothing. Returns the memory that was held.
    pub fn forget(&mut self) -> usize {
        self.restart(self.end())
    }

    /// Where a subscriber at `next` goes on.
    pub fn place_of(&self, next: Offset) -> RingPlace {
        if next < self.start {
            return RingPlace::Behind(self.start);
        }
        // Nearly everybody is at the end, or one chunk behind it.
        let first = match self.chunks.back() {
            None => 0,
            Some(last) if last.end <= next => self.chunks.len(),
            _ => self.chunks.partition_point(|chunk| chunk.end <= next),
        };
        match self.chunks.get(first) {
            Some(chunk) if chunk.start < next => match chunk.position_of(next) {
                Some(at) => RingPlace::Inside(first, at),
                None => RingPlace::Behind(chunk.end),
            },
            _ => RingPlace::Chunks(first),
        }
    }

    /// The chunks from the `first` on.
    pub fn chunks_from(&self, first: usize) -> impl ExactSizeIterator<Item = &Chunk> {
        self.chunks.range(first..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(offset: u64) -> Offset {
        Offset::new(offset)
    }

    fn chunk(start: u64, end: u64) -> Chunk {
        Chunk::whole(offset(start), offset(end), Bytes::from(vec![b'x'; 10]))
    }

    fn ring() -> Ring {
        let mut ring = Ring::new(offset(38));
        ring.push(chunk(40, 44));
        ring.push(chunk(51, 52));
        ring.push(chunk(52, 60));
        ring
    }

    #[test]
    fn a_subscriber_gets_what_it_has_not_considered() {
        let ring = ring();
        for (next, first) in [(38, 0), (40, 0), (44, 1), (47, 1), (52, 2), (60, 3), (70, 3)] {
            assert_eq!(ring.place_of(offset(next)), RingPlace::Chunks(first), "{next}");
        }
        let starts: Vec<u64> = ring.chunks_from(1).map(|chunk| chunk.start.get()).collect();
        assert_eq!(starts, [51, 52]);
        assert_eq!(Ring::new(offset(7)).place_of(offset(9)), RingPlace::Chunks(0));
    }

    #[test]
    fn who_is_behind_or_inside_an_indivisible_chunk_reads_the_log_to_its_end() {
        let ring = ring();
        assert_eq!(ring.place_of(offset(37)), RingPlace::Behind(offset(38)));
        assert_eq!(ring.place_of(offset(41)), RingPlace::Behind(offset(44)));
        assert_eq!(ring.place_of(offset(53)), RingPlace::Behind(offset(60)));
    }

    #[test]
    fn eviction_and_restart_count_their_bytes() {
        let mut ring = ring();
        let held = |ring: &Ring| {
            let chunks: usize = ring.chunks.iter().map(Chunk::held_bytes).sum();
            chunks + ring.chunks.capacity() * size_of::<Chunk>()
        };
        let all = ring.held_bytes();
        assert!(all == held(&ring) && all >= 3 * (10 + BYTES_COST + size_of::<Chunk>()));
        let freed = ring.evict_oldest();
        assert_eq!((ring.start(), ring.held_bytes()), (offset(44), all - freed));
        assert_eq!(ring.held_bytes(), held(&ring));
        assert_eq!(ring.place_of(offset(43)), RingPlace::Behind(offset(44)));
        assert_eq!(ring.restart(offset(80)), all - freed);
        assert_eq!((ring.is_empty(), ring.held_bytes()), (true, 0));
        assert_eq!(ring.evict_oldest(), 0);
        assert_eq!(ring.place_of(offset(79)), RingPlace::Behind(offset(80)));
        for start in 0..1_000 {
            ring.push(chunk(80 + start, 81 + start));
            assert_eq!(ring.held_bytes(), held(&ring));
        }
        while !ring.is_empty() {
            let before = ring.held_bytes();
            assert_eq!(before - ring.evict_oldest(), held(&ring));
            assert_eq!(ring.held_bytes(), held(&ring));
        }
        assert_eq!(ring.held_bytes(), 0, "places are given back too");
    }

    struct Bracketed {
        is_divisible: bool,
    }

    impl Render for Bracketed {
        fn open(&self, out: &mut Vec<u8>) {
            out.extend_from_slice(b"  [");
        }
        fn event(&self, _: &EventView<'_>, _: &mut Vec<u8>) {}
        fn close(&self, out: &mut Vec<u8>) -> Range<usize> {
            out.push(b']');
            2..out.len()
        }
        fn is_divisible(&self) -> bool {
            self.is_divisible
        }
        fn say(&self, _: Word, _: &mut Vec<u8>) {}
    }

    #[test]
    fn a_builder_closes_chunks_at_their_target() {
        let mut scratch = vec![1, 2, 3];
        let render = Bracketed { is_divisible: true };
        let mut builder = ChunkBuilder::new(&render, LIVE_CHUNK_BYTES, &mut scratch);
        assert_eq!(builder.put(offset(3), |out| out.extend_from_slice(b"a")), None);
        let big = vec![b'b'; LIVE_CHUNK_BYTES];
        let chunk = builder.put(offset(5), |out| out.extend_from_slice(&big)).expect("complete");
        assert_eq!((chunk.start, chunk.end), (offset(3), offset(6)));
        assert_eq!(chunk.bytes.len(), LIVE_CHUNK_BYTES + 3);
        assert_eq!(builder.put(offset(6), |out| out.extend_from_slice(b"c")), None);
        let chunk = builder.finish().expect("begun");
        assert_eq!((chunk.start, &chunk.bytes[..]), (offset(6), &b"[c]"[..]));
    }

    #[test]
    fn a_full_chunk_is_what_it_was_encoded_into_and_little_more() {
        let (render, mut scratch) = (Bracketed { is_divisible: true }, Vec::new());
        let mut builder = ChunkBuilder::new(&render, LIVE_CHUNK_BYTES, &mut scratch);
        let sizes =
            [vec![300; 400], vec![9_000; 8], vec![300; 200], vec![400_000, 2], vec![300; 200]];
        let texts: Vec<_> = sizes
            .concat()
            .into_iter()
            .zip((b'a'..=b'z').cycle())
            .map(|(n, c)| vec![c; n])
            .collect();
        let (mut chunks, mut copied) = (Vec::new(), 0);
        for (at, text) in (0..).zip(&texts) {
            let begun = builder.scratch.as_ptr_range();
            if let Some(chunk) = builder.put(offset(at), |out| out.extend_from_slice(text)) {
                copied += usize::from(!begun.contains(&chunk.bytes.as_ptr()));
                chunks.push(chunk);
            }
        }
        chunks.extend(builder.finish());
        let mut sent = Vec::new();
        for chunk in &chunks {
            sent.extend_from_slice(&chunk.bytes[1..chunk.bytes.len() - 1]);
        }
        assert!(sent == texts.concat(), "all is there");
        assert!(copied <= 6, "{copied} of {}", chunks.len());
        for chunk in chunks {
            let bytes = chunk.bytes.len();
            let held = chunk.bytes.try_into_mut().expect("nobody else has it").capacity();
            assert!(held <= with_room(bytes), "{held} for {bytes}");
        }
    }

    #[test]
    fn a_divisible_chunk_is_joined_at_any_event() {
        for is_divisible in [true, false] {
            let (render, mut scratch) = (Bracketed { is_divisible }, Vec::new());
            let mut builder = ChunkBuilder::new(&render, LIVE_CHUNK_BYTES, &mut scratch);
            for (at, text) in [(3, "a"), (5, "bb"), (9, "c")] {
                builder.put(offset(at), |out| out.extend_from_slice(text.as_bytes()));
            }
            let chunk = builder.finish().expect("begun");
            let tail = |next| {
                chunk.position_of(offset(next)).map(|at| render.tail(&chunk.bytes, at).to_vec())
            };
            assert_eq!(tail(3), Some(b"[abbc]".to_vec()));
            let of = |text: &[u8]| is_divisible.then(|| text.to_vec());
            assert_eq!(
                (tail(4), tail(5), tail(6), tail(9)),
                (of(b"bbc]"), of(b"bbc]"), of(b"c]"), of(b"c]"))
            );
            let mut ring = Ring::new(offset(0));
            ring.push(chunk);
            let inside = RingPlace::Inside(0, 4);
            let expected = if is_divisible { inside } else { RingPlace::Behind(offset(10)) };
            assert_eq!(ring.place_of(offset(7)), expected);
        }
    }
}
