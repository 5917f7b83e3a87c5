//! A frame: what one commit writes, or one of several. A header that can be trusted alone, the events of the commit as
//! one archive, zeroes up to the next block.
//!
//! ```text
//! 0        64     64 + body bytes   a multiple of 4096
//! +--------+------+--------+
//! | header | body | zeroes |
//! +--------+------+--------+
//! ```
//! The header is described in [`header`], the body in [`crate::event::archive`]. `base offset` to
//! `end offset`, half-open, is the run of offsets that the frame stands for; it may hold fewer events
//! (compaction takes some out), but none outside. A frame of no events has no body: it records the
//! synced offset.
//!
//! Invariants:
//! 1. A frame begins on a multiple of 4096 and is one long: no two commits share a physical sector,
//!    whose read-modify-write at a power cut would damage an acknowledged frame.
//! 2. `synced offset <= base offset <= end offset`, and a frame holds at most [`EVENTS_MAX`] events.
//! 3. A header is valid without its body: a rotten body is stepped over, and the gap is named.
//! 4. A frame names the topics of its events, so that any frame is read without any other.
//!
//! A frame that stands for events which are lost is described in [`gap`], one for events that the log keeps no
//! more in [`kept`].

use std::{fmt, ops::Range, sync::Arc};

use crate::{
    buffer::{ALIGN_BYTES, DiskBuffer},
    event::{
        EventView,
        archive::{self, BODY_ALIGN_BYTES, Body},
    },
    offset::Offset,
    topic::TopicNumber,
};

pub(crate) mod compressed;
mod encode;
pub mod gap;
pub mod header;
mod held;
pub mod kept;
mod rewritten;

pub use compressed::encode_compressed;
pub use encode::{FrameRow, encode, encoded_bytes_max, frame_bytes_max};
pub use header::{FrameError, FrameFlags, FrameHeader, FrameMeta, Seed};
pub use held::HeldFrames;

/// The header's length.
pub const FRAME_HEADER_BYTES: usize = 64;
/// Frames begin on this boundary and are padded to it.
pub const FRAME_ALIGN_BYTES: usize = ALIGN_BYTES;
/// The format's own limit, whatever a log is configured to: what a damaged length can make a reader
/// allocate.
pub const FRAME_BYTES_MAX: usize = 16 << 20;
/// The most events of a frame: the frame's topics are counted in 16 bits.
pub const EVENTS_MAX: usize = 65_535;
/// The format that is written, and the newest that is read.
pub const FRAME_VERSION: u16 = 1;

const _: () = assert!(FRAME_HEADER_BYTES.is_multiple_of(BODY_ALIGN_BYTES));
const _: () = assert!(FRAME_BYTES_MAX.is_multiple_of(FRAME_ALIGN_BYTES));

/// How far bytes are trusted. Either way both checksums, the archive and the order of the events are
/// checked, so that no byte can make a reader panic: see [`archive`] for what that costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Where they came from is in doubt (recovery, verification, foreign files): the padding and the
    /// spelling of topics are looked at as well.
    Bytecheck,
    /// We wrote them, or checked them before.
    Checksum,
}

/// A frame in memory; shared as `Arc<Frame>`, and read in place.
///
/// Invariants: from `start`, which is a multiple of [`FRAME_ALIGN_BYTES`], `buffer` holds the header's
/// place and behind it an archive of `body_bytes`; if it has any, `Body::check` accepted it or
/// [`encode()`] wrote it. A frame that was not compressed lies there as it lies in its file.
pub struct Frame {
    header: FrameHeader,
    buffer: Arc<DiskBuffer>,
    start: usize,
    body_bytes: usize,
}

impl Frame {
    /// The frame that `buffer` begins with; what lies behind it is ignored.
    pub fn parse(buffer: DiskBuffer, seed: Seed, trust: Trust) -> Result<Frame, FrameError> {
        Frame::parse_at(&Arc::new(buffer), 0, seed, trust)
    }

    /// The frame at `start`, a multiple of [`FRAME_ALIGN_BYTES`], in a buffer that may hold more.
    pub fn parse_at(
        buffer: &Arc<DiskBuffer>,
        start: usize,
        seed: Seed,
        trust: Trust,
    ) -> Result<Frame, FrameError> {
        assert!(start.is_multiple_of(FRAME_ALIGN_BYTES), "a frame begins on a block");
        let bytes = buffer.as_slice().get(start..).unwrap_or_default();
        let header = FrameHeader::decode(bytes, seed)?;
        let Some(bytes) = bytes.get(..header.frame_bytes()) else {
            let frame_bytes = header.frame_bytes();
            return Err(FrameError::Truncated { bytes: bytes.len(), frame_bytes });
        };
        let (body, padding) = bytes[FRAME_HEADER_BYTES..].split_at(header.body_bytes as usize);
        let body_checksum = seed.crc(body);
        if body_checksum != header.body_checksum {
            return Err(match gap::decode(body, body_checksum, header.body_checksum) {
                Some(why) => FrameError::Lost { why },
                None => FrameError::BodyChecksum,
            });
        }
        if trust == Trust::Bytecheck && padding.iter().any(|byte| *byte != 0) {
            return Err(FrameError::Padding);
        }
        if header.flags.has(FrameFlags::COMPRESSED) {
            let buffer = compressed::decompress(body)?;
            let body = &buffer.as_slice()[FRAME_HEADER_BYTES..];
            Body::check(body, header.bounds(), trust == Trust::Bytecheck)?;
            let body_bytes = body.len();
            return Ok(Frame { header, buffer: Arc::new(buffer), start: 0, body_bytes });
        }
        if !body.is_empty() {
            Body::check(body, header.bounds(), trust == Trust::Bytecheck)?;
        }
        let body_bytes = body.len();
        Ok(Frame { header, buffer: buffer.clone(), start, body_bytes })
    }

    /// Its header.
    pub fn header(&self) -> &FrameHeader {
        &self.header
    }

    /// The first offset that it stands for.
    pub fn base_offset(&self) -> Offset {
        self.header.base_offset
    }

    /// The first offset behind those that it stands for.
    pub fn end_offset(&self) -> Offset {
        self.header.end_offset
    }

    /// How many events it holds.
    pub fn len(&self) -> usize {
        self.header.event_count as usize
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many bytes it takes in its file, padding included.
    pub fn frame_bytes(&self) -> usize {
        self.header.frame_bytes()
    }

    /// Whether it is compressed where it is stored.
    pub fn is_compressed(&self) -> bool {
        self.header.flags.has(FrameFlags::COMPRESSED)
    }

    /// The memory that it lies in; a frame that was [encoded alone](encode()) is all of it.
    pub fn buffer(&self) -> &Arc<DiskBuffer> {
        &self.buffer
    }

    /// The memory that it lay in, to be used again, unless somebody else still holds it.
    pub fn into_buffer(self) -> Option<DiskBuffer> {
        Arc::into_inner(self.buffer)
    }

    /// Its bytes, padding included, as they are stored.
    ///
    /// # Panics
    ///
    /// If it is compressed: then they are not kept.
    pub fn as_bytes(&self) -> &[u8] {
        assert!(!self.is_compressed(), "a compressed frame is kept as it is read");
        &self.buffer.as_slice()[self.start..self.start + self.frame_bytes()]
    }

    /// The event with this index, below [`Frame::len`].
    pub fn event(&self, index: usize) -> EventView<'_> {
        self.body().expect("an index below the event count").event(index)
    }

    /// Its events in offset order.
    pub fn events(&self) -> Events<'_> {
        Events { body: self.body(), range: 0..self.len() }
    }

    /// The topics of its events, each once, in the order of [`EventView::topic_index`].
    pub fn topics(&self) -> impl ExactSizeIterator<Item = (TopicNumber, &str)> {
        archive::topics(self.body())
    }

    /// The index of the first event at or behind `offset`; [`Frame::len`] if there is none.
    pub fn index_at(&self, offset: Offset) -> usize {
        self.partition_point(|event| event.offset() < offset)
    }

    /// The index of the first event appended at `time_ms` or later; [`Frame::len`] if there is none.
    pub fn index_at_time(&self, time_ms: u64) -> usize {
        self.partition_point(|event| event.time_ms() < time_ms)
    }

    fn partition_point(&self, before: impl Fn(&EventView<'_>) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            if before(&self.event(middle)) { low = middle + 1 } else { high = middle }
        }
        low
    }

    fn body(&self) -> Option<Body<'_>> {
        let start = self.start + FRAME_HEADER_BYTES;
        let bytes = &self.buffer.as_slice()[start..start + self.body_bytes];
        // SAFETY: `Body::check` accepted these very bytes when the frame was parsed, or `encode`
        // wrote them; an `Arc<DiskBuffer>` gives nobody a way to change them, since we hold a clone;
        // and they begin 64 bytes behind a block boundary, in memory aligned to blocks.
        (self.body_bytes > 0)
            .then(|| unsafe { Body::access_checked(bytes, self.header.base_offset) })
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "Frame({}..{}, {} events, {} bytes)",
            self.base_offset(),
            self.end_offset(),
            self.len(),
            self.frame_bytes()
        )
    }
}

/// The events of a frame, in offset order.
#[derive(Clone)]
pub struct Events<'a> {
    body: Option<Body<'a>>,
    range: Range<usize>,
}

impl<'a> Iterator for Events<'a> {
    type Item = EventView<'a>;

    fn next(&mut self) -> Option<EventView<'a>> {
        Some(self.body?.event(self.range.next()?))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.range.size_hint()
    }

    fn nth(&mut self, skipped: usize) -> Option<EventView<'a>> {
        Some(self.body?.event(self.range.nth(skipped)?))
    }
}

impl<'a> DoubleEndedIterator for Events<'a> {
    fn next_back(&mut self) -> Option<EventView<'a>> {
        Some(self.body?.event(self.range.next_back()?))
    }
}

impl ExactSizeIterator for Events<'_> {}

#[cfg(test)]
mod tests;
