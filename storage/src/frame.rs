//! A frame: what one commit writes. A header that can be trusted alone, the events of the commit as
//! one archive, zeroes up to the next block.
//!
//! Little-endian throughout.
//! ```text
//! 0        4         6       8             16           24              32               40
//! +--------+---------+-------+-------------+------------+---------------+----------------+--
//! | magic  | version | flags | base offset | end offset | synced offset | commit time ms | ..
//! +--------+---------+-------+-------------+------------+---------------+----------------+--
//! 40            44           48          52                  56     60           64     4096 * n
//! +-------------+------------+-----------+-------------------+------+------------+------+--------+
//! | event count | body bytes | body crc  | previous checksum | zero | header crc | body | zeroes |
//! +-------------+------------+-----------+-------------------+------+------------+------+--------+
//! ```
//! `base offset` to `end offset`, half-open, is the run of offsets that the frame stands for; it may
//! hold fewer events (compaction takes some out), but none outside. A frame of no events has no body:
//! it records the synced offset. The body is described in [`crate::event::archive`].
//!
//! Both checksums are CRC-32 (IEEE) that begin with the segment's [`Seed`] instead of 0. The header's
//! covers bytes 0 to 60, and so the body's; it *is* the checksum of the frame. `previous checksum`
//! is that of the frame before in the same segment, or [`Seed::chain_start`].
//!
//! Invariants:
//! 1. A frame begins on a multiple of 4096 and is one long: no two commits share a physical sector,
//!    whose read-modify-write at a power cut would damage an acknowledged frame.
//! 2. `synced offset <= base offset <= end offset`, and a frame holds at most [`EVENTS_MAX`] events.
//! 3. A header is valid without its body: a rotten body is stepped over, and the gap is named.

use std::{collections::HashMap, fmt, ops::Range, sync::Arc};

use crate::{
    buffer::{ALIGN_BYTES, DiskBuffer},
    event::{
        EventView, NewEvent, StagedEvent,
        archive::{self, BODY_ALIGN_BYTES, Body, BodyBounds, BodyError},
    },
    offset::Offset,
    segment::Incarnation,
    topic::TopicNumber,
};

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

const MAGIC: [u8; 4] = *b"SLFR";
const HEADER_CRC_AT: usize = 60;
const BODY_BYTES_MAX: usize = FRAME_BYTES_MAX - FRAME_HEADER_BYTES;

const _: () = assert!(FRAME_HEADER_BYTES.is_multiple_of(BODY_ALIGN_BYTES));
const _: () = assert!(FRAME_BYTES_MAX.is_multiple_of(FRAME_ALIGN_BYTES));

/// What every checksum of a segment's frames begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(u32);

impl Seed {
    /// The seed of a segment's frames.
    pub fn of(incarnation: &Incarnation) -> Seed {
        Seed(crc32fast::hash(&incarnation.bits()))
    }

    /// What the first frame of a segment has as its `previous_checksum`.
    pub fn chain_start(self) -> u32 {
        self.crc(b"first frame")
    }

    fn crc(self, bytes: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.0);
        hasher.update(bytes);
        hasher.finalize()
    }
}

/// What a frame says about itself beyond its events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameFlags(u16);

impl FrameFlags {
    /// Nothing.
    pub const NONE: FrameFlags = FrameFlags(0);
    /// The log was closed behind this frame: nothing was written after it, so nothing visible can
    /// have been lost.
    pub const CLEAN_END: FrameFlags = FrameFlags(1);

    const KNOWN: u16 = 1;

    /// Whether all of `flags` are set.
    pub fn has(self, flags: FrameFlags) -> bool {
        self.0 & flags.0 == flags.0
    }
}

/// What the writer knows about a frame besides its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameMeta {
    /// Where the frame before it ended.
    pub base_offset: Offset,
    /// Wall clock at the commit.
    pub commit_time_ms: u64,
    /// Everything below it was on the device when the frame was made; at most `base_offset`.
    pub synced_offset: Offset,
    /// The checksum of the frame before it, or [`Seed::chain_start`].
    pub previous_checksum: u32,
    /// What else it says.
    pub flags: FrameFlags,
}

/// The first 64 bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// The first offset that it stands for.
    pub base_offset: Offset,
    /// The first offset behind those.
    pub end_offset: Offset,
    /// How many events it holds.
    pub event_count: u32,
    /// Wall clock at the commit.
    pub commit_time_ms: u64,
    /// Everything below it was on the device when the frame was made.
    pub synced_offset: Offset,
    /// The checksum of the frame before it, or [`Seed::chain_start`].
    pub previous_checksum: u32,
    /// The length of the body, without padding.
    pub body_bytes: u32,
    /// What the body's checksum must be.
    pub body_checksum: u32,
    /// What else it says.
    pub flags: FrameFlags,
    /// The checksum of the frame: of the header, which holds the body's.
    pub checksum: u32,
}

/// Why bytes are no frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// There are only zeroes where a header would be: nothing was written here yet.
    #[error("nothing was written here")]
    Blank,
    /// The bytes end before the frame does.
    #[error("{bytes} bytes, but the frame has {frame_bytes}")]
    Truncated {
        /// How many there are.
        bytes: usize,
        /// How many the frame has.
        frame_bytes: usize,
    },
    /// Something else stands here.
    #[error("no frame begins here")]
    Magic,
    /// The header is damaged, or belongs to another incarnation.
    #[error("checksum of the frame header does not match")]
    HeaderChecksum,
    /// The header holds and the body is damaged: the next frame is where the header says.
    #[error("checksum of the frame body does not match")]
    BodyChecksum,
    /// A newer program wrote it.
    #[error("frame format {version} with flags {flags:#x} is newer than {FRAME_VERSION}")]
    NewerVersion {
        /// Its format.
        version: u16,
        /// Its flags.
        flags: u16,
    },
    /// The checksum holds and the content does not: no program of ours wrote it.
    #[error("{what} in the frame is out of range")]
    Content {
        /// Which field.
        what: &'static str,
    },
    /// The same, in the body.
    #[error("frame body: {0}")]
    Body(#[from] BodyError),
}

impl FrameHeader {
    /// The header that `bytes` begin with; what lies behind its 64 bytes is not looked at.
    pub fn decode(bytes: &[u8], seed: Seed) -> Result<FrameHeader, FrameError> {
        let Some(bytes) = bytes.first_chunk::<FRAME_HEADER_BYTES>() else {
            let frame_bytes = FRAME_ALIGN_BYTES;
            return Err(FrameError::Truncated { bytes: bytes.len(), frame_bytes });
        };
        if bytes.iter().all(|byte| *byte == 0) {
            return Err(FrameError::Blank);
        }
        if bytes[0..4] != MAGIC {
            return Err(FrameError::Magic);
        }
        let checksum = u32_at(bytes, HEADER_CRC_AT);
        if seed.crc(&bytes[..HEADER_CRC_AT]) != checksum {
            return Err(FrameError::HeaderChecksum);
        }
        let (version, flags) = (u16_at(bytes, 4), u16_at(bytes, 6));
        if version > FRAME_VERSION || flags & !FrameFlags::KNOWN != 0 {
            return Err(FrameError::NewerVersion { version, flags });
        }
        let header = FrameHeader {
            base_offset: Offset::new(u64_at(bytes, 8)),
            end_offset: Offset::new(u64_at(bytes, 16)),
            synced_offset: Offset::new(u64_at(bytes, 24)),
            commit_time_ms: u64_at(bytes, 32),
            event_count: u32_at(bytes, 40),
            body_bytes: u32_at(bytes, 44),
            body_checksum: u32_at(bytes, 48),
            previous_checksum: u32_at(bytes, 52),
            flags: FrameFlags(flags),
            checksum,
        };
        header.check(version, u32_at(bytes, 56))?;
        Ok(header)
    }

    fn check(&self, version: u16, reserved: u32) -> Result<(), FrameError> {
        let span = self.end_offset.since(self.base_offset);
        let events = u64::from(self.event_count);
        let wrong = |what| Err(FrameError::Content { what });
        if version == 0 {
            return wrong("version");
        }
        if self.end_offset < self.base_offset || self.end_offset > Offset::MAX {
            return wrong("end offset");
        }
        if self.synced_offset > self.base_offset {
            return wrong("synced offset");
        }
        if events > span || events > EVENTS_MAX as u64 || span > u64::from(u32::MAX) {
            return wrong("event count");
        }
        if self.body_bytes as usize > BODY_BYTES_MAX || (events == 0) != (self.body_bytes == 0) {
            return wrong("body length");
        }
        if reserved != 0 {
            return wrong("reserved field");
        }
        Ok(())
    }

    /// How many bytes the frame takes in its file, padding included.
    pub fn frame_bytes(&self) -> usize {
        frame_bytes(self.body_bytes as usize)
    }

    fn encode(&self, seed: Seed) -> [u8; FRAME_HEADER_BYTES] {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&FRAME_VERSION.to_le_bytes());
        bytes[6..8].copy_from_slice(&self.flags.0.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.base_offset.get().to_le_bytes());
        bytes[16..24].copy_from_slice(&self.end_offset.get().to_le_bytes());
        bytes[24..32].copy_from_slice(&self.synced_offset.get().to_le_bytes());
        bytes[32..40].copy_from_slice(&self.commit_time_ms.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.event_count.to_le_bytes());
        bytes[44..48].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.body_checksum.to_le_bytes());
        bytes[52..56].copy_from_slice(&self.previous_checksum.to_le_bytes());
        let checksum = seed.crc(&bytes[..HEADER_CRC_AT]);
        bytes[HEADER_CRC_AT..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    fn bounds(&self) -> BodyBounds {
        BodyBounds {
            base_offset: self.base_offset,
            end_offset: self.end_offset,
            event_count: self.event_count as usize,
        }
    }
}

fn frame_bytes(body_bytes: usize) -> usize {
    (FRAME_HEADER_BYTES + body_bytes).next_multiple_of(FRAME_ALIGN_BYTES)
}

fn u16_at(bytes: &[u8; FRAME_HEADER_BYTES], at: usize) -> u16 {
    u16::from_le_bytes(*bytes[at..].first_chunk().expect("inside the header"))
}

fn u32_at(bytes: &[u8; FRAME_HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("inside the header"))
}

fn u64_at(bytes: &[u8; FRAME_HEADER_BYTES], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("inside the header"))
}

/// An upper bound of an event's share of a frame, its topic's name included.
pub fn encoded_bytes_max(event: &NewEvent) -> usize {
    archive::share_bytes_max(event)
}

/// An upper bound of the length of a frame whose events have shares of `shares_bytes` in all.
pub fn frame_bytes_max(shares_bytes: usize) -> usize {
    frame_bytes(archive::BODY_OVERHEAD_BYTES_MAX + shares_bytes)
}

/// Makes a frame of `events` in `buffer`, whose content is replaced.
///
/// # Panics
///
/// If offsets do not ascend from `meta.base_offset`, times descend, there are more than
/// [`EVENTS_MAX`] events, or the frame exceeds [`FRAME_BYTES_MAX`]: staging sees to all of it.
pub fn encode(
    meta: &FrameMeta,
    events: &[StagedEvent],
    seed: Seed,
    mut buffer: DiskBuffer,
) -> Frame {
    assert!(events.len() <= EVENTS_MAX, "{} events in a frame", events.len());
    assert!(meta.synced_offset <= meta.base_offset, "nothing of this frame is synced yet");
    let mut end_offset = meta.base_offset;
    let mut last_time_ms = 0;
    for staged in events {
        assert!(staged.offset >= end_offset, "offsets ascend");
        assert!(staged.time_ms >= last_time_ms, "times do not descend");
        end_offset = staged.offset.plus(1);
        last_time_ms = staged.time_ms;
    }

    let shares_bytes = events.iter().map(|staged| encoded_bytes_max(&staged.event)).sum();
    buffer.clear();
    buffer.reserve(frame_bytes_max(shares_bytes));
    buffer.extend_zeroes(FRAME_HEADER_BYTES);
    if !events.is_empty() {
        let (topics, topic_indexes) = number_topics(events);
        archive::encode_body(meta.base_offset, &topics, events, &topic_indexes, &mut buffer);
    }
    let body_bytes = buffer.len() - FRAME_HEADER_BYTES;
    assert!(body_bytes <= BODY_BYTES_MAX, "a frame of {body_bytes} bytes");
    let mut header = FrameHeader {
        base_offset: meta.base_offset,
        end_offset,
        event_count: u32::try_from(events.len()).expect("at most EVENTS_MAX"),
        commit_time_ms: meta.commit_time_ms,
        synced_offset: meta.synced_offset,
        previous_checksum: meta.previous_checksum,
        body_bytes: u32::try_from(body_bytes).expect("at most BODY_BYTES_MAX"),
        body_checksum: seed.crc(&buffer.as_slice()[FRAME_HEADER_BYTES..]),
        flags: meta.flags,
        checksum: 0,
    };
    let header_bytes = header.encode(seed);
    header.checksum = u32_at(&header_bytes, HEADER_CRC_AT);
    buffer.as_mut_slice()[..FRAME_HEADER_BYTES].copy_from_slice(&header_bytes);
    buffer.pad_to(FRAME_ALIGN_BYTES);
    Frame { header, buffer: Arc::new(buffer), start: 0 }
}

/// The table of the topics that `events` use, and for each event its place in it.
fn number_topics(events: &[StagedEvent]) -> (Vec<(TopicNumber, &str)>, Vec<u16>) {
    let mut topics: Vec<(TopicNumber, &str)> = Vec::new();
    let mut places: HashMap<TopicNumber, u16> = HashMap::new();
    let mut indexes = Vec::with_capacity(events.len());
    let mut last: Option<(TopicNumber, u16)> = None;
    for staged in events {
        let number = staged.topic_number;
        let index = match last {
            Some((last_number, index)) if last_number == number => index,
            _ => *places.entry(number).or_insert_with(|| {
                let index = u16::try_from(topics.len()).expect("no more topics than events");
                topics.push((number, &staged.event.topic));
                index
            }),
        };
        last = Some((number, index));
        indexes.push(index);
    }
    (topics, indexes)
}

/// How far bytes are trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Where they came from is in doubt (recovery, verification, foreign files): the padding is
    /// looked at as well.
    Bytecheck,
    /// We wrote them or checked them before: whatever a damaged byte could do is caught by the
    /// checksums.
    Checksum,
}

/// A frame in memory; shared as `Arc<Frame>`, and read in place.
///
/// Invariants: `buffer` holds `header.frame_bytes()` bytes from `start`, which is a multiple of
/// [`FRAME_ALIGN_BYTES`]; if the frame has a body, [`Body::check`] accepted it or [`encode`] wrote it.
pub struct Frame {
    header: FrameHeader,
    buffer: Arc<DiskBuffer>,
    start: usize,
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
        if seed.crc(body) != header.body_checksum {
            return Err(FrameError::BodyChecksum);
        }
        if trust == Trust::Bytecheck && padding.iter().any(|byte| *byte != 0) {
            return Err(FrameError::Content { what: "padding" });
        }
        if !body.is_empty() {
            Body::check(body, header.bounds())?;
        }
        Ok(Frame { header, buffer: buffer.clone(), start })
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

    /// The memory that it lies in; a frame that was just encoded is all of it.
    pub fn buffer(&self) -> &Arc<DiskBuffer> {
        &self.buffer
    }

    /// Its bytes, padding included.
    pub fn as_bytes(&self) -> &[u8] {
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
    pub fn topics(&self) -> impl Iterator<Item = (TopicNumber, &str)> {
        self.body().into_iter().flat_map(Body::topics)
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
        let body_bytes = self.header.body_bytes as usize;
        let start = self.start + FRAME_HEADER_BYTES;
        let bytes = &self.buffer.as_slice()[start..start + body_bytes];
        // SAFETY: `Body::check` accepted these very bytes when the frame was parsed, or `encode`
        // wrote them; an `Arc<DiskBuffer>` gives nobody a way to change them, since we hold a clone;
        // and they begin 64 bytes behind a block boundary, in memory aligned to blocks.
        (body_bytes > 0).then(|| unsafe { Body::access_checked(bytes, self.header.base_offset) })
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
