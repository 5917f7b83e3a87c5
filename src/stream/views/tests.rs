use bytes::Bytes;
use strandline_storage::buffer::DiskBuffer;
use strandline_storage::event::{EventType, EventView, NewEvent, StagedEvent};
use strandline_storage::frame::{self, FrameFlags, FrameMeta, Seed};
use strandline_storage::segment::Incarnation;
use strandline_storage::topic::{Topic, TopicNumber, TopicPattern};

use super::super::chunk::{Chunk, RingPlace, Word};
use super::super::compression::Encoding;
use super::super::view::Rendering;
use super::super::wanted::Wanted;
use super::*;

mod deletions;
mod memory;
mod model;
mod turns;

const SSE: Rendering =
    Rendering::Sse { is_object: false, is_chunked: false, encoding: Encoding::Identity };

/// A frame of one event a topic, from `base` on; a topic may be followed by ` type`.
fn frame(base: u64, topics: &[&str]) -> Arc<Frame> {
    let seed = Seed::of(&Incarnation::new([7; 16]));
    let mut numbers: Vec<&str> = topics.to_vec();
    numbers.sort_unstable();
    let events: Vec<StagedEvent> = topics
        .iter()
        .zip(base..)
        .map(|(text, offset)| {
            let (topic, event_type) = text.split_once(' ').unwrap_or((text, "message"));
            let number = numbers.iter().position(|other| other.starts_with(topic));
            let topic = Topic::parse(topic).expect("a topic");
            let data = Bytes::from(format!("{offset}"));
            let mut event = NewEvent::json(topic, data);
            event.event_type = EventType::parse(event_type).expect("a type");
            let number = number.expect("it is there").try_into().expect("a small number");
            StagedEvent {
                offset: Offset::new(offset),
                time_ms: 1,
                topic_number: TopicNumber::new(number),
                event,
            }
        })
        .collect();
    let meta = FrameMeta {
        base_offset: Offset::new(base),
        commit_time_ms: 1,
        synced_offset: Offset::ZERO,
        previous_checksum: seed.chain_start(),
        flags: FrameFlags::default(),
    };
    Arc::new(frame::encode(&meta, &events, seed, DiskBuffer::with_capacity(4096)))
}

struct Numbers;

impl Render for Numbers {
    fn event(&self, event: &EventView<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(event.data());
        out.push(b' ');
    }

    fn say(&self, _: Word, _: &mut Vec<u8>) {}
}

fn key(patterns: &[&str], types: &[&str]) -> ViewKey {
    let pattern = |text: &&str| TopicPattern::parse(text).expect("a pattern");
    let event_type = |text: &&str| EventType::parse(text).expect("a type");
    let patterns = patterns.iter().map(pattern).collect();
    let types = types.iter().map(event_type).collect();
    ViewKey { wanted: Rc::new(Wanted::new(patterns, types)), rendering: SSE }
}

fn join(views: &mut Views, key: &ViewKey) -> ViewId {
    views.join(key, Member { slot: 0, number: 0 }, || Rc::new(Numbers)).0
}

/// Publishes a frame, and lets every view look at it.
fn publish(views: &mut Views, frame: &Arc<Frame>) {
    views.publish(frame);
    for number in 0..views.views.len() {
        if views.views[number].is_some() {
            look_at_all(views, ViewId(u32::try_from(number).expect("a few")));
        }
    }
}

fn look_at_all(views: &mut Views, view_id: ViewId) {
    while views.look_at_next(view_id).is_some() {}
}

/// What a view has for a member that has considered everything below `next`; `None` if it is behind.
fn read(views: &mut Views, view_id: ViewId, next: u64) -> Option<String> {
    let view = views.up_to_date(view_id);
    let (first, skip) = match view.ring.place_of(Offset::new(next)) {
        RingPlace::Chunks(first) => (first, 0),
        RingPlace::Inside(first, skip) => (first, skip),
        RingPlace::Behind(_) => return None,
    };
    let bytes: Vec<u8> =
        view.ring.chunks_from(first).flat_map(|chunk| chunk.bytes.to_vec()).skip(skip).collect();
    Some(String::from_utf8(bytes).expect("digits"))
}

fn some(text: &str) -> Option<String> {
    Some(text.into())
}

/// The views that have something for their members.
fn due(views: &mut Views) -> Vec<ViewId> {
    while views.is_going_round() {
        views.go_round();
    }
    let mut due = Vec::new();
    while let Some(view_id) = views.first_due() {
        look_at_all(views, view_id);
        if views.get_mut(view_id).members.next().is_some() {
            due.push(view_id);
        }
        views.served(true);
    }
    due.sort_unstable();
    due
}

#[test]
fn a_view_gets_what_matches_and_only_then_it_is_due() {
    let mut views = Views::new(Offset::new(10));
    let exact = join(&mut views, &key(&["a/b"], &[]));
    let pattern = join(&mut views, &key(&["a/*", "c"], &[]));
    let all = join(&mut views, &key(&[], &[]));
    let typed = join(&mut views, &key(&[], &["trade"]));
    publish(&mut views, &frame(10, &["x", "a/b", "cc trade"]));
    assert_eq!(due(&mut views), [exact, pattern, all, typed]);
    publish(&mut views, &frame(13, &["x", "y", "z"]));
    assert_eq!(due(&mut views), [all]);
    assert_eq!(views.considered(all), Offset::new(16));
    assert_eq!(read(&mut views, exact, 10), some("11 "));
    assert_eq!(read(&mut views, pattern, 10), some("11 "));
    assert_eq!(read(&mut views, all, 10), some("10 11 12 13 14 15 "));
    assert_eq!(read(&mut views, all, 11), some("11 12 13 14 15 "));
    assert_eq!(read(&mut views, typed, 10), some("12 "));
    let held = [exact, pattern, all, typed].map(|id| views.get(id).ring.held_bytes());
    assert_eq!(views.bytes(), held.iter().sum::<usize>());
    assert!(held.iter().all(|held| *held > 18), "places and marks count too");
}

#[test]
fn a_view_of_several_topics_gets_their_events_in_order() {
    let mut views = Views::new(Offset::ZERO);
    let view = join(&mut views, &key(&["a", "c/*"], &[]));
    publish(&mut views, &frame(0, &["c/1", "b", "a", "c/2", "b", "a", "c/1"]));
    assert_eq!(read(&mut views, view, 0), some("0 2 3 5 6 "));
    // What was seen already is not seen again.
    publish(&mut views, &frame(5, &["a", "c/1", "a", "c/3", "b"]));
    assert_eq!(read(&mut views, view, 7), some("7 8 "));
}

#[test]
fn subscribers_share_a_view_and_the_last_one_takes_it_along() {
    let mut views = Views::new(Offset::ZERO);
    let (one, other) = (key(&["a", "b"], &[]), key(&["b", "a", "a"], &[]));
    let first = join(&mut views, &one);
    assert_eq!(join(&mut views, &other), first);
    assert_eq!(views.len(), 1);
    publish(&mut views, &frame(0, &["a", "b"]));
    views.leave(first, 0);
    assert_eq!(read(&mut views, first, 0), some("0 1 "));
    views.leave(first, 0);
    assert_eq!((views.len(), views.bytes()), (0, 0));
    assert_eq!(views.first_due(), None);
    publish(&mut views, &frame(2, &["a"]));
    let late = join(&mut views, &key(&["a"], &[]));
    assert_eq!(read(&mut views, late, 2), None);
    assert_eq!(read(&mut views, late, 3), some(""));
}

#[test]
fn a_lost_frame_is_read_from_the_log_and_an_old_one_is_ignored() {
    let mut views = Views::new(Offset::ZERO);
    let all = join(&mut views, &key(&[], &[]));
    publish(&mut views, &frame(0, &["a"]));
    due(&mut views);
    publish(&mut views, &frame(5, &["a"]));
    assert_eq!(due(&mut views), [all]);
    assert_eq!(read(&mut views, all, 1), None);
    assert_eq!(read(&mut views, all, 5), some("5 "));
    publish(&mut views, &frame(1, &["a", "a", "a", "a"]));
    assert_eq!(read(&mut views, all, 5), some("5 "));
    views.advance(Offset::new(9));
    assert_eq!(due(&mut views), [all]);
    assert_eq!(read(&mut views, all, 6), None);
    views.advance(Offset::new(7));
    publish(&mut views, &frame(9, &["a"]));
    assert_eq!(read(&mut views, all, 9), some("9 "));
}
