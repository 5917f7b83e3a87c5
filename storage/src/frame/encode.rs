//! Making a frame of staged events.

use std::{collections::HashMap, hash::BuildHasherDefault, sync::Arc};

use super::{
    EVENTS_MAX, FRAME_ALIGN_BYTES, FRAME_HEADER_BYTES, Frame, FrameHeader, FrameMeta, Seed,
    header::{BODY_BYTES_MAX, padded_bytes},
};
use crate::{
    buffer::DiskBuffer,
    event::{NewEvent, StagedEvent, archive},
    offset::Offset,
    topic::{NumberHasher, TopicNumber},
};

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
/// As [`FrameRow::push`] does.
pub fn encode(
    meta: &FrameMeta,
    events: &[StagedEvent],
    seed: Seed,
    mut buffer: DiskBuffer,
) -> Frame {
    buffer.clear();
    let place = encode_behind(meta, events, seed, &mut buffer);
    place.frame_in(&Arc::new(buffer))
}

/// Frames that are made one behind the other in one buffer, for one write.
#[derive(Debug, Default)]
pub struct FrameRow {
    buffer: DiskBuffer,
    places: Vec<Place>,
}

impl FrameRow {
    /// An empty one with room for `bytes` before it has to grow.
    pub fn with_capacity(bytes: usize) -> Self {
        FrameRow { buffer: DiskBuffer::with_capacity(bytes), places: Vec::with_capacity(1) }
    }

    /// How many bytes its frames take.
    pub fn bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Makes a frame of `events` behind the others, and gives its header.
    ///
    /// # Panics
    ///
    /// If offsets do not ascend from `meta.base_offset`, times descend, there are more than
    /// [`EVENTS_MAX`] events, or the frame exceeds [`FRAME_BYTES_MAX`](super::FRAME_BYTES_MAX): staging sees to all
    /// of it.
    pub fn push(&mut self, meta: &FrameMeta, events: &[StagedEvent], seed: Seed) -> FrameHeader {
        let place = encode_behind(meta, events, seed, &mut self.buffer);
        let header = place.header;
        self.places.push(place);
        header
    }

    /// The frames, in their order, and the memory that all of them lie in: what is to be written.
    pub fn finish(self) -> (impl Iterator<Item = Frame>, Arc<DiskBuffer>) {
        let buffer = Arc::new(self.buffer);
        let shared = Arc::clone(&buffer);
        (self.places.into_iter().map(move |place| place.frame_in(&shared)), buffer)
    }
}

/// Where a frame lies in the buffer that it was encoded into.
#[derive(Debug)]
struct Place {
    header: FrameHeader,
    start: usize,
    body_bytes: usize,
}

impl Place {
    /// The frame; `buffer` is the one that it was encoded into.
    fn frame_in(self, buffer: &Arc<DiskBuffer>) -> Frame {
        let Place { header, start, body_bytes } = self;
        Frame { header, buffer: Arc::clone(buffer), start, body_bytes }
    }
}

/// Makes a frame of `events` behind what `buffer` holds, which are whole blocks.
fn encode_behind(
    meta: &FrameMeta,
    events: &[StagedEvent],
    seed: Seed,
    buffer: &mut DiskBuffer,
) -> Place {
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
    let start = buffer.len();
    assert!(start.is_multiple_of(FRAME_ALIGN_BYTES), "a frame begins on a block");
    buffer.reserve(frame_bytes_max(shares_bytes));
    buffer.extend_zeroes(FRAME_HEADER_BYTES);
    if !events.is_empty() {
        let (topics, topic_indexes) = number_topics(events);
        archive::encode_body(meta.base_offset, &topics, events, &topic_indexes, buffer);
    }
    let body = start + FRAME_HEADER_BYTES;
    let body_bytes = buffer.len() - body;
    assert!(body_bytes <= BODY_BYTES_MAX, "a frame of {body_bytes} bytes");
    let stored = &buffer.as_slice()[body..];
    let mut header = header_of(meta, end_offset, events.len(), stored, seed);
    let header_bytes = header.encode(seed);
    buffer.as_mut_slice()[start..body].copy_from_slice(&header_bytes);
    buffer.pad_to(FRAME_ALIGN_BYTES);
    Place { header, start, body_bytes }
}

/// The header of a frame with this body, as it is stored; its own checksum is set when it is encoded.
pub(super) fn header_of(
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
pub(super) fn number_topics(events: &[StagedEvent]) -> (Vec<(TopicNumber, &str)>, Vec<u16>) {
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
