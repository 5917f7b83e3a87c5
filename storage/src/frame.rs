//! A frame: what one commit writes. A header that can be trusted alone, the events of the commit as
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
//! A frame that stands for events which are lost is described in [`gap`].

use std::{collections::HashMap, fmt, hash::BuildHasherDefault, ops::Range, sync::Arc};

use crate::{
    buffer::{ALIGN_BYTES, DiskBuffer},
    event::{
        EventView, NewEvent, StagedEvent,
        archive::{self, BODY_ALIGN_BYTES, Body},
    },
    offset::Offset,
    topic::{NumberHasher, Topic, TopicNumber},
};

pub(crate) mod compressed;
pub mod gap;
pub mod header;

pub use compressed::encode_compressed;
pub use header::{FrameError, FrameFlags, FrameHeader, FrameMeta, Seed};

use header::{BODY_BYTES_MAX, padded_bytes};

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

/// An upper bound of an event's share of a frame, its topic's name included.
pub fn encoded_bytes_max(event: &NewEvent) -> usize {
    archive::share_bytes_max(event)
}

/// An upper bound of the length of a frame whose events have shares of `shares_bytes` in all.
pub fn frame_bytes_max(shares_bytes: usize) -> usize {
    padded_bytes(archive::BODY_OVERHEAD_BYTES_MAX + shares_bytes)
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
    let stored = &buffer.as_slice()[FRAME_HEADER_BYTES..];
    let mut header = header_of(meta, end_offset, events.len(), stored, seed);
    let header_bytes = header.encode(seed);
    buffer.as_mut_slice()[..FRAME_HEADER_BYTES].copy_from_slice(&header_bytes);
    buffer.pad_to(FRAME_ALIGN_BYTES);
    Frame { header, buffer: Arc::new(buffer), start: 0, body_bytes }
}

/// The header of a frame with this body, as it is stored; its own checksum is set when it is encoded.
fn header_of(
    meta: &FrameMeta,
    end_offset: Offset,
    events: usize,
    stored: &[u8],
    seed: Seed,
) -> FrameHeader {
    FrameHeader {
        base_offset: meta.base_offset,
        end_offset,
        event_count: u32::try_from(events).expect("at most EVENTS_MAX"),
        commit_time_ms: meta.commit_time_ms,
        synced_offset: meta.synced_offset,
        previous_checksum: meta.previous_checksum,
        body_bytes: u32::try_from(stored.len()).expect("at most BODY_BYTES_MAX"),
        body_checksum: seed.crc(stored),
        flags: meta.flags,
        checksum: 0,
    }
}

/// Room for so many topics of a frame from the start: as many as a gathered one may well have.
const PLACES_EXPECTED: usize = 2_048;

/// The table of the topics that `events` use, and for each event its place in it.
fn number_topics(events: &[StagedEvent]) -> (Vec<(TopicNumber, &str)>, Vec<u16>) {
    let mut topics: Vec<(TopicNumber, &str)> = Vec::new();
    let mut places: HashMap<TopicNumber, u16, BuildHasherDefault<NumberHasher>> =
        HashMap::with_capacity_and_hasher(events.len().min(PLACES_EXPECTED), Default::default());
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
/// [`encode`] wrote it. A frame that was not compressed lies there as it lies in its file.
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
            return Err(FrameError::Content { what: "padding" });
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

    /// Its events below `end_offset` as a frame of another segment, or at another place of the chain: as it
    /// is read, and the bytes to be stored. A frame that stays whole and is not compressed keeps its body.
    /// `None` if a topic is spelled as no topic is.
    pub fn rewritten(
        &self,
        end_offset: Offset,
        seed: Seed,
        previous_checksum: u32,
    ) -> Option<(Frame, DiskBuffer)> {
        let mut header = self.header;
        if end_offset < header.end_offset || header.flags.has(FrameFlags::COMPRESSED) {
            let names: Option<Vec<Topic>> =
                self.topics().map(|(_, name)| Topic::parse_reserved(name).ok()).collect();
            let names = names?;
            let staged = |event: EventView<'_>| StagedEvent {
                offset: event.offset(),
                time_ms: event.time_ms(),
                topic_number: event.topic_number(),
                event: event.to_new(&names[event.topic_index()]),
            };
            let below = self.events().take_while(|event| event.offset() < end_offset);
            let events: Vec<StagedEvent> = below.map(staged).collect();
            let meta = FrameMeta {
                base_offset: header.base_offset,
                commit_time_ms: header.commit_time_ms,
                synced_offset: header.synced_offset,
                previous_checksum,
                flags: FrameFlags::NONE,
            };
            return Some(match events.is_empty() {
                true => {
                    let frame = encode(&meta, &[], seed, DiskBuffer::default());
                    let stored = (*frame.buffer).clone();
                    (frame, stored)
                }
                false => {
                    let end_offset = end_offset.min(header.end_offset);
                    encode_compressed(&meta, end_offset, &events, seed)
                }
            });
        }
        let body = FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + self.body_bytes;
        let mut buffer = DiskBuffer::default();
        buffer.extend_from_slice(self.as_bytes());
        header.previous_checksum = previous_checksum;
        header.body_checksum = seed.crc(&buffer.as_slice()[body]);
        let header_bytes = header.encode(seed);
        buffer.as_mut_slice()[..FRAME_HEADER_BYTES].copy_from_slice(&header_bytes);
        let stored = buffer.clone();
        let body_bytes = self.body_bytes;
        Some((Frame { header, buffer: Arc::new(buffer), start: 0, body_bytes }, stored))
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

    /// The memory that it lies in; a frame that was just encoded is all of it.
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
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        event::{DataForm, EventId, EventKey, EventKind, EventType},
        segment::Incarnation,
        topic::Topic,
    };

    fn seed() -> Seed {
        Seed::of(&Incarnation::new(*b"0123456789abcdef"))
    }

    fn meta(base_offset: u64) -> FrameMeta {
        FrameMeta {
            base_offset: Offset::new(base_offset),
            commit_time_ms: 1_763_700_000_000,
            synced_offset: Offset::new(base_offset),
            previous_checksum: seed().chain_start(),
            flags: FrameFlags::NONE,
        }
    }

    fn staged(offset: u64, topic: &str, data: &'static str) -> StagedEvent {
        let topic = Topic::parse_reserved(topic).expect("a topic");
        StagedEvent {
            offset: Offset::new(offset),
            time_ms: 1_763_700_000_000 + offset,
            topic_number: TopicNumber::new(u32::try_from(topic.len()).expect("short")),
            event: NewEvent::json(topic, Bytes::from_static(data.as_bytes())),
        }
    }

    fn reparse(frame: &Frame) -> Result<Frame, FrameError> {
        Frame::parse_at(frame.buffer(), 0, seed(), Trust::Bytecheck)
    }

    #[test]
    fn everything_of_an_event_comes_back() {
        let plain = staged(7, "a", "{}");
        let mut full = staged(9, "rooms/42/messages", "\u{0}\u{1}");
        full.time_ms = archive::TIME_MS_END - 1;
        full.event.event_type = EventType::parse("a-long-type-name").expect("a type");
        full.event.id = Some(EventId::parse("id").expect("an id"));
        full.event.key = Some(EventKey::parse("a key of more than eight bytes").expect("a key"));
        full.event.headers =
            vec![("a".into(), "b".into()), ("x-longer-name".into(), "and a longer value".into())];
        full.event.content_type = "text/plain".into();
        full.event.form = DataForm::Text;
        let frame = encode(&meta(7), &[plain, full], seed(), DiskBuffer::default());
        let frame = reparse(&frame).expect("a frame");
        assert_eq!((frame.base_offset(), frame.end_offset()), (Offset::new(7), Offset::new(10)));
        assert_eq!(frame.len(), 2);

        let event = frame.event(0);
        assert_eq!(event.offset(), Offset::new(7));
        assert_eq!((event.topic(), event.topic_number()), ("a", TopicNumber::new(1)));
        assert_eq!((event.event_type(), event.content_type()), ("message", "application/json"));
        assert_eq!((event.id(), event.key(), event.headers().len()), (None, None, 0));
        assert_eq!((event.form(), event.kind()), (DataForm::Json, EventKind::Data));
        assert_eq!(event.data(), b"{}");

        let event = frame.event(1);
        assert_eq!(event.offset(), Offset::new(9));
        assert_eq!(event.time_ms(), archive::TIME_MS_END - 1);
        assert_eq!(event.topic(), "rooms/42/messages");
        assert_eq!((event.event_type(), event.content_type()), ("a-long-type-name", "text/plain"));
        assert_eq!(event.id(), Some("id"));
        assert_eq!(event.key(), Some("a key of more than eight bytes"));
        assert_eq!(
            event.headers().collect::<Vec<_>>(),
            [("a", "b"), ("x-longer-name", "and a longer value")]
        );
        assert_eq!((event.form(), event.data()), (DataForm::Text, &b"\0\x01"[..]));
    }

    #[test]
    fn a_frame_of_no_events_is_one_block_without_a_body() {
        let clean_end = FrameMeta { flags: FrameFlags::CLEAN_END, ..meta(3) };
        let frame = encode(&clean_end, &[], seed(), DiskBuffer::zeroed(9000));
        let frame = reparse(&frame).expect("a frame");
        assert_eq!((frame.len(), frame.frame_bytes()), (0, 4096));
        assert_eq!(frame.end_offset(), Offset::new(3));
        assert!(frame.header().flags.has(FrameFlags::CLEAN_END));
        assert_eq!(frame.events().len(), 0);
        assert_eq!(frame.topics().count(), 0);
        assert_eq!(frame.index_at(Offset::ZERO), 0);
    }

    #[test]
    fn the_header_is_read_without_the_body() {
        let frame = encode(&meta(0), &[staged(0, "a", "{}")], seed(), DiskBuffer::default());
        let mut bytes = DiskBuffer::clone(frame.buffer());
        bytes.as_mut_slice()[70] ^= 1;
        assert_eq!(FrameHeader::decode(bytes.as_slice(), seed()).as_ref(), Ok(frame.header()));
        assert_eq!(
            Frame::parse(bytes, seed(), Trust::Checksum).map(|_| ()),
            Err(FrameError::BodyChecksum)
        );
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let frame = encode(&meta(0), &[staged(0, "a", "{}")], seed(), DiskBuffer::default());
        for bit in 0..frame.frame_bytes() * 8 {
            let mut bytes = DiskBuffer::clone(frame.buffer());
            bytes.as_mut_slice()[bit / 8] ^= 1 << (bit % 8);
            assert!(Frame::parse(bytes, seed(), Trust::Bytecheck).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn another_incarnation_is_not_read() {
        let other = Seed::of(&Incarnation::new([1; 16]));
        let frame = encode(&meta(0), &[staged(0, "a", "{}")], other, DiskBuffer::default());
        assert_eq!(reparse(&frame).map(|_| ()), Err(FrameError::HeaderChecksum));
    }

    #[test]
    fn what_is_no_frame_is_named() {
        let parse = |bytes| Frame::parse(bytes, seed(), Trust::Checksum).map(|_| ());
        assert_eq!(parse(DiskBuffer::zeroed(4096)), Err(FrameError::Blank));
        assert!(matches!(parse(DiskBuffer::zeroed(63)), Err(FrameError::Truncated { .. })));
        let frame = encode(&meta(0), &[staged(0, "a", "{}")], seed(), DiskBuffer::default());
        let mut bytes = DiskBuffer::clone(frame.buffer());
        bytes.truncate(4095);
        let truncated = FrameError::Truncated { bytes: 4095, frame_bytes: 4096 };
        assert_eq!(parse(bytes), Err(truncated));
        let mut bytes = DiskBuffer::zeroed(4096);
        bytes.as_mut_slice()[100] = 1;
        assert_eq!(parse(bytes), Err(FrameError::Blank));
    }

    #[test]
    fn several_frames_share_a_buffer() {
        let first = encode(&meta(0), &[staged(0, "a", "{}")], seed(), DiskBuffer::default());
        let second = encode(&meta(1), &[staged(1, "b", "[]")], seed(), DiskBuffer::default());
        let mut bytes = DiskBuffer::clone(first.buffer());
        bytes.extend_from_slice(second.as_bytes());
        let bytes = Arc::new(bytes);
        let frame = Frame::parse_at(&bytes, 4096, seed(), Trust::Checksum).expect("a frame");
        assert_eq!(frame.event(0).data(), b"[]");
        assert_eq!(frame.as_bytes(), second.as_bytes());
        let past = Frame::parse_at(&bytes, 8192, seed(), Trust::Checksum);
        assert!(matches!(past.map(|_| ()), Err(FrameError::Truncated { bytes: 0, .. })));
    }

    #[test]
    fn events_are_found_by_offset_and_time() {
        let events = [
            staged(10, "a", "0"),
            staged(13, "a", "1"),
            staged(14, "b", "2"),
            staged(20, "a", "3"),
        ];
        let frame = encode(&meta(10), &events, seed(), DiskBuffer::default());
        for (offset, index) in [(0, 0), (10, 0), (11, 1), (13, 1), (14, 2), (15, 3), (21, 4)] {
            assert_eq!(frame.index_at(Offset::new(offset)), index, "{offset}");
            assert_eq!(frame.index_at_time(1_763_700_000_000 + offset), index, "{offset}");
        }
        let backwards: Vec<_> = frame.events().rev().map(|event| event.offset().get()).collect();
        assert_eq!(backwards, [20, 14, 13, 10]);
    }

    #[test]
    fn a_body_that_breaks_an_invariant_is_refused_though_its_checksum_holds() {
        let events = [staged(10, "a", "0"), staged(11, "a", "1")];
        let good = encode(&meta(10), &events, seed(), DiskBuffer::default());
        let root_at = FRAME_HEADER_BYTES + good.header().body_bytes as usize - 16;
        let event_at = root_at - 36;
        for (place, value, what) in [
            (event_at, 0, "offset"),
            (event_at, 2, "offset"),
            (event_at + 8, 0, "time"),
            (event_at + 10, 1, "topic"),
            (event_at + 12, 3, "form"),
            (event_at + 13, 5, "kind"),
            (event_at + 14, 1, "reserved field"),
        ] {
            let mut bytes = DiskBuffer::clone(good.buffer());
            bytes.as_mut_slice()[place] = value;
            reseal(&mut bytes, good.header());
            let error = Frame::parse(bytes, seed(), Trust::Checksum).map(|_| ()).expect_err(what);
            assert_eq!(error, FrameError::Body(archive::BodyError::Event { what, index: 1 }));
        }
        // The lists of the root.
        for place in [root_at, root_at + 4, root_at + 8, root_at + 12] {
            let mut bytes = DiskBuffer::clone(good.buffer());
            bytes.as_mut_slice()[place] ^= 0x40;
            reseal(&mut bytes, good.header());
            assert!(Frame::parse(bytes, seed(), Trust::Checksum).is_err(), "{place}");
        }
    }

    #[test]
    fn the_bound_of_an_events_share_is_tight_and_holds() {
        // Nothing fits into eight bytes and every length is odd, so that nothing is saved.
        for (texts, count) in [(9, 1), (11, 7), (13, 300)] {
            let events: Vec<StagedEvent> = (0..count)
                .map(|number| {
                    let name = "n".repeat(texts);
                    let mut staged = staged(number, &format!("{name}{number:03}"), "1");
                    staged.topic_number = TopicNumber::new(u32::try_from(number).expect("few"));
                    staged.event.event_type = EventType::parse(&name).expect("a type");
                    staged.event.id = Some(EventId::parse(&name).expect("an id"));
                    staged.event.headers = vec![(name.clone().into(), name.into())];
                    staged
                })
                .collect();
            let frame = encode(&meta(0), &events, seed(), DiskBuffer::default());
            let shares: usize = events.iter().map(|staged| encoded_bytes_max(&staged.event)).sum();
            let body_bytes = frame.header().body_bytes as usize;
            let bytes_max = shares + archive::BODY_OVERHEAD_BYTES_MAX;
            assert!(body_bytes <= bytes_max, "{body_bytes} {bytes_max}");
            assert!(bytes_max - body_bytes <= 6 * (events.len() + 1), "{body_bytes} {bytes_max}");
        }
    }

    fn reseal(bytes: &mut DiskBuffer, header: &FrameHeader) {
        let mut header = *header;
        let body = FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + header.body_bytes as usize;
        header.body_checksum = seed().crc(&bytes.as_slice()[body]);
        let header_bytes = header.encode(seed());
        bytes.as_mut_slice()[..FRAME_HEADER_BYTES].copy_from_slice(&header_bytes);
    }
}
