//! Any events go into a frame and come back; any damage is found.

use crate::common::{frame_of, seed, staged_events};
use proptest::prelude::*;
use strandline_storage::{
    buffer::DiskBuffer,
    event::{EventView, StagedEvent},
    frame::{self, Frame, Trust},
};

fn same(view: &EventView<'_>, staged: &StagedEvent) -> bool {
    let event = &staged.event;
    let headers = event.headers.iter().map(|(name, value)| (&**name, &**value));
    let content_type = match &*event.content_type {
        "" => "application/json",
        content_type => content_type,
    };
    view.offset() == staged.offset
        && view.time_ms() == staged.time_ms
        && view.topic_number() == staged.topic_number
        && view.topic() == &*event.topic
        && view.event_type() == &*event.event_type
        && view.id() == event.id.as_deref()
        && view.key() == event.key.as_deref()
        && view.headers().eq(headers)
        && view.content_type() == content_type
        && view.form() == event.form
        && view.kind() == event.kind
        && view.data() == event.data
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn events_come_back(events in staged_events(40)) {
        let frame = frame_of(990, 7, &events);
        let mut buffer = DiskBuffer::default();
        buffer.extend_from_slice(frame.as_bytes());
        let frame = Frame::parse(buffer, seed(), Trust::Bytecheck).expect("a frame of ours");
        prop_assert_eq!(frame.len(), events.len());
        for (view, staged) in frame.events().zip(&events) {
            prop_assert!(same(&view, staged), "{:?} {:?}", view, staged);
        }
        for (index, staged) in events.iter().enumerate() {
            prop_assert_eq!(frame.index_at(staged.offset), index);
        }
        let topics: Vec<_> = frame.topics().collect();
        for view in frame.events() {
            prop_assert_eq!(topics[view.topic_index()], (view.topic_number(), view.topic()));
        }
        prop_assert!(topics.len() <= events.len());
    }

    #[test]
    fn no_frame_is_longer_than_was_said_before(events in staged_events(60)) {
        let shares = events.iter().map(|staged| frame::encoded_bytes_max(&staged.event)).sum();
        let bytes_max = frame::frame_bytes_max(shares);
        prop_assert!(frame_of(990, 7, &events).frame_bytes() <= bytes_max);
        for staged in events {
            let bytes_max = frame::frame_bytes_max(frame::encoded_bytes_max(&staged.event));
            let frame = frame_of(990, 7, &[staged]);
            let body_bytes = frame.header().body_bytes as usize;
            prop_assert!(frame.frame_bytes() <= bytes_max);
            prop_assert!(64 + body_bytes <= bytes_max);
        }
    }

    #[test]
    fn damage_is_found(
        events in staged_events(20),
        place in any::<prop::sample::Index>(),
        flip in 1..=255u8,
    ) {
        let mut buffer = DiskBuffer::clone(frame_of(990, 7, &events).buffer());
        let place = place.index(buffer.len());
        buffer.as_mut_slice()[place] ^= flip;
        prop_assert!(Frame::parse(buffer, seed(), Trust::Bytecheck).is_err());
    }
}
