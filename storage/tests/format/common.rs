//! What the tests of formats share: deterministic events, and strategies for random ones.

use bytes::Bytes;
use proptest::prelude::*;
use strandline_storage::{
    buffer::DiskBuffer,
    config::SyncMode,
    event::{DataForm, EventId, EventKey, EventType, NewEvent, StagedEvent},
    frame::{self, Frame, FrameFlags, FrameMeta, Seed},
    offset::Offset,
    segment::{Incarnation, SEGMENT_VERSION, SegmentHeader, Tag},
    topic::{Topic, TopicNumber},
};

/// A segment header that never differs.
pub fn segment_header(base_offset: u64) -> SegmentHeader {
    SegmentHeader {
        version: SEGMENT_VERSION,
        base_offset: Offset::new(base_offset),
        created_at_ms: 1_763_700_000_000,
        incarnation: Incarnation::new(*b"strandline tests"),
        tag: Tag::parse("k3f9q").expect("a tag"),
        sync: SyncMode::Commit,
    }
}

/// The seed of a segment with [`segment_header`].
pub fn seed() -> Seed {
    Seed::of(&segment_header(0).incarnation)
}

/// A frame of `events`, which begin at `base_offset` or later.
pub fn frame_of(base_offset: u64, previous_checksum: u32, events: &[StagedEvent]) -> Frame {
    let meta = FrameMeta {
        base_offset: Offset::new(base_offset),
        commit_time_ms: 1_763_700_000_500,
        synced_offset: Offset::new(base_offset),
        previous_checksum,
        flags: FrameFlags::NONE,
    };
    frame::encode(&meta, events, seed(), DiskBuffer::default())
}

/// An event of JSON data in a topic.
pub fn staged(
    offset: u64,
    time_ms: u64,
    topic_number: u32,
    topic: &str,
    data: &[u8],
) -> StagedEvent {
    let topic = Topic::parse_reserved(topic).expect("a topic");
    StagedEvent {
        offset: Offset::new(offset),
        time_ms,
        topic_number: TopicNumber::new(topic_number),
        event: NewEvent::json(topic, Bytes::copy_from_slice(data)),
    }
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z]{1,20}", "[^\\p{Cc}\\s]{1,40}"]
}

/// Any event of topic `t/<number>`, with its number.
pub fn new_event() -> impl Strategy<Value = (u32, NewEvent)> {
    let names = (
        prop::option::of(name()),
        prop::option::of(name()),
        prop::option::of(name()),
        prop::collection::vec(("[a-zA-Z!#$%&'*+.^_`|~-]{1,20}", "[^\\p{Cc}]{0,30}"), 0..4),
        prop_oneof![Just(""), Just("application/json"), Just("text/plain; charset=utf-8")],
    );
    let forms = prop_oneof![Just(DataForm::Json), Just(DataForm::Text), Just(DataForm::Binary)];
    let data = prop::collection::vec(any::<u8>(), 0..300);
    (0..20u32, names, forms, data).prop_map(
        |(number, (event_type, id, key, headers, content_type), form, data)| {
            let topic = Topic::parse(&format!("topics/{number}")).expect("a topic");
            let mut event = NewEvent::json(topic, Bytes::from(data));
            let event_type = event_type.and_then(|text| EventType::parse(&text).ok());
            event.event_type = event_type.unwrap_or_default();
            event.id = id.map(|text| EventId::parse(&text).expect("an id"));
            event.key = key.and_then(|text| EventKey::parse(&text).ok());
            event.headers = headers
                .into_iter()
                .map(|(name, value)| (name.into_boxed_str(), value.into_boxed_str()))
                .collect();
            event.content_type = content_type.into();
            event.form = form;
            (number, event)
        },
    )
}

/// Events that may stand in one frame, with gaps between their offsets.
pub fn staged_events(count_max: usize) -> impl Strategy<Value = Vec<StagedEvent>> {
    let steps = (0..5u64, 0..100_000_000_000u64);
    prop::collection::vec((steps, new_event()), 0..count_max).prop_map(|events| {
        let (mut offset, mut time_ms) = (1000, 1_763_700_000_000);
        events
            .into_iter()
            .map(|((gap, wait_ms), (number, event))| {
                (offset, time_ms) = (offset + gap, time_ms + wait_ms);
                offset += 1;
                StagedEvent {
                    offset: Offset::new(offset - 1),
                    time_ms,
                    topic_number: TopicNumber::new(number),
                    event,
                }
            })
            .collect()
    })
}
