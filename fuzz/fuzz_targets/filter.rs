//! Filters from any bytes, over any JSON: a text is a filter or refused, a filter has one canonical form
//! and survives being written in either spelling, and what it says of an event is what the slow and
//! obvious model says.
//!
//! The input is a filter up to the first zero byte, and data behind it.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use strandline::json::check;
use strandline::stream::filter::{
    COMPARISONS_MAX, Condition, Filter, model, parse_json, parse_text,
};
use strandline_storage::buffer::DiskBuffer;
use strandline_storage::event::{DataForm, EventKey, NewEvent, StagedEvent};
use strandline_storage::frame::{self, Frame, FrameFlags, FrameMeta, Seed};
use strandline_storage::offset::Offset;
use strandline_storage::segment::Incarnation;
use strandline_storage::topic::{Topic, TopicNumber};

fn frame_of(data: &[u8], form: DataForm) -> Frame {
    let event = NewEvent {
        form,
        key: Some(EventKey::parse("k").expect("a key")),
        headers: vec![("a".into(), "b".into())],
        ..NewEvent::json(Topic::parse("a/b").expect("a topic"), Bytes::copy_from_slice(data))
    };
    let staged = StagedEvent {
        offset: Offset::ZERO,
        time_ms: 1_763_700_000_007,
        topic_number: TopicNumber::new(0),
        event,
    };
    let meta = FrameMeta {
        base_offset: Offset::ZERO,
        commit_time_ms: staged.time_ms,
        synced_offset: Offset::ZERO,
        previous_checksum: 0,
        flags: FrameFlags::default(),
    };
    let seed = Seed::of(&Incarnation::new([7; 16]));
    frame::encode(&meta, &[staged], seed, DiskBuffer::with_capacity(4096))
}

/// Whether every group has a spelling as text.
fn has_text(condition: &Condition) -> bool {
    match condition {
        Condition::Test(_) => true,
        Condition::Not(inner) => has_text(inner),
        Condition::All(inner) | Condition::Any(inner) => {
            inner.len() > 1 && inner.iter().all(has_text)
        }
    }
}

fn follow(condition: &Condition, frames: &[(Frame, bool)]) {
    assert!(condition.comparisons() <= COMPARISONS_MAX);
    // Written out, a filter may be longer or deeper than it came.
    if let Ok(again) = parse_json(&model::to_json(condition)) {
        assert_eq!(again, *condition);
    }
    if has_text(condition)
        && let Ok(again) = parse_text(&model::to_text(condition))
    {
        assert_eq!(again, *condition);
    }
    let canonical = condition.clone().canonical();
    assert_eq!(canonical.clone().canonical(), canonical);
    let filter = Filter::new(vec![condition.clone()]).expect("within the limits");
    assert_eq!(filter, Filter::new(vec![canonical.clone(), canonical]).expect("the same"));
    for (frame, is_json) in frames {
        let event = frame.event(0);
        let is_met = filter.as_ref().is_none_or(|filter| filter.matches(&event));
        if *is_json {
            assert_eq!(is_met, model::holds(condition, &event), "{condition:?}");
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let end = input.iter().position(|byte| *byte == 0).unwrap_or(input.len());
    let (text, data) = (&input[..end], input.get(end + 1..).unwrap_or_default());
    let Ok(text) = std::str::from_utf8(text) else { return };
    // Data that claims to be JSON and is not does no harm, though nobody says what it means.
    let is_json = check::check(data).is_ok();
    let frames =
        [(frame_of(data, DataForm::Json), is_json), (frame_of(data, DataForm::Binary), true)];
    for condition in [parse_json(text), parse_text(text)].into_iter().flatten() {
        follow(&condition, &frames);
    }
});
