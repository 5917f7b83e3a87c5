//! Frames of given events, for the tests of those who render them.

use bytes::Bytes;
use strandline_storage::{
    buffer::DiskBuffer,
    event::{NewEvent, StagedEvent},
    frame::{self, Frame, FrameFlags, FrameMeta, Seed},
    offset::Offset,
    segment::Incarnation,
    topic::{Topic, TopicNumber},
};

/// An event of JSON data.
pub fn json(topic: &str, data: Bytes) -> NewEvent {
    NewEvent::json(Topic::parse(topic).unwrap(), data)
}

/// A frame whose events have consecutive offsets and one time.
pub fn frame(base_offset: u64, time_ms: u64, events: Vec<NewEvent>) -> Frame {
    let meta = FrameMeta {
        base_offset: Offset::new(base_offset),
        commit_time_ms: time_ms,
        synced_offset: Offset::ZERO,
        previous_checksum: 0,
        flags: FrameFlags::default(),
    };
    let events: Vec<_> = (base_offset..)
        .zip(events)
        .map(|(offset, event)| StagedEvent {
            offset: Offset::new(offset),
            time_ms,
            topic_number: TopicNumber::new(0),
            event,
        })
        .collect();
    let seed = Seed::of(&Incarnation::new([7; 16]));
    frame::encode(&meta, &events, seed, DiskBuffer::with_capacity(4096))
}
