use bytes::Bytes;
use strandline_storage::buffer::DiskBuffer;
use strandline_storage::event::{EventType, EventView, NewEvent, StagedEvent};
use strandline_storage::frame::{self, FrameFlags, FrameMeta, Seed};
use strandline_storage::segment::Incarnation;
use strandline_storage::topic::{Topic, TopicNumber, TopicPattern};

use super::super::chunk::{RingPlace, Word};
use super::super::compression::Encoding;
use super::super::view::Rendering;
use super::super::wanted::Wanted;
use super::*;

const SSE: Rendering =
    Rendering::Sse { is_object: false, is_chunked: false, encoding: Encoding::Identity };

/// A frame of one event a topic, from `base` on; a topic may be followed by ` type`.
fn frame(base: u64, topics: &[&str]) -> Frame {
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
    frame::encode(&meta, &events, seed, DiskBuffer::with_capacity(4096))
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

/// What a view has for a member that has considered everything below `next`; `None` if it is behind.
fn read(views: &Views, view_id: ViewId, next: u64) -> Option<String> {
    let view = views.get(view_id);
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

fn due(views: &mut Views) -> Vec<ViewId> {
    let mut due = Vec::new();
    while let Some(view_id) = views.first_due() {
        due.push(view_id);
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
    views.publish(&frame(10, &["x", "a/b", "cc trade"]));
    assert_eq!(due(&mut views), [exact, pattern, all, typed]);
    views.publish(&frame(13, &["x", "y", "z"]));
    assert_eq!(due(&mut views), [all]);
    assert_eq!(views.considered(), Offset::new(16));
    assert_eq!(read(&views, exact, 10), some("11 "));
    assert_eq!(read(&views, pattern, 10), some("11 "));
    assert_eq!(read(&views, all, 10), some("10 11 12 13 14 15 "));
    assert_eq!(read(&views, all, 11), some("11 12 13 14 15 "));
    assert_eq!(read(&views, typed, 10), some("12 "));
    let held = [exact, pattern, all, typed].map(|id| views.get(id).ring.held_bytes());
    assert_eq!(views.bytes(), held.iter().sum::<usize>());
    assert!(held.iter().all(|held| *held > 18), "places and marks count too");
}

#[test]
fn a_view_of_several_topics_gets_their_events_in_order() {
    let mut views = Views::new(Offset::ZERO);
    let view = join(&mut views, &key(&["a", "c/*"], &[]));
    views.publish(&frame(0, &["c/1", "b", "a", "c/2", "b", "a", "c/1"]));
    assert_eq!(read(&views, view, 0), some("0 2 3 5 6 "));
    // What was seen already is not seen again.
    views.publish(&frame(5, &["a", "c/1", "a", "c/3", "b"]));
    assert_eq!(read(&views, view, 7), some("7 8 "));
}

#[test]
fn subscribers_share_a_view_and_the_last_one_takes_it_along() {
    let mut views = Views::new(Offset::ZERO);
    let (one, other) = (key(&["a", "b"], &[]), key(&["b", "a", "a"], &[]));
    let first = join(&mut views, &one);
    assert_eq!(join(&mut views, &other), first);
    assert_eq!(views.len(), 1);
    views.publish(&frame(0, &["a", "b"]));
    views.leave(first, 0);
    assert_eq!(read(&views, first, 0), some("0 1 "));
    views.leave(first, 0);
    assert_eq!((views.len(), views.bytes()), (0, 0));
    assert_eq!(views.first_due(), None);
    views.publish(&frame(2, &["a"]));
    let late = join(&mut views, &key(&["a"], &[]));
    assert_eq!(read(&views, late, 2), None);
    assert_eq!(read(&views, late, 3), some(""));
}

#[test]
fn a_lost_frame_is_read_from_the_log_and_an_old_one_is_ignored() {
    let mut views = Views::new(Offset::ZERO);
    let all = join(&mut views, &key(&[], &[]));
    views.publish(&frame(0, &["a"]));
    due(&mut views);
    views.publish(&frame(5, &["a"]));
    assert_eq!(due(&mut views), [all]);
    assert_eq!(read(&views, all, 1), None);
    assert_eq!(read(&views, all, 5), some("5 "));
    views.publish(&frame(1, &["a", "a", "a", "a"]));
    assert_eq!(read(&views, all, 5), some("5 "));
    views.advance(Offset::new(9));
    assert_eq!(due(&mut views), [all]);
    assert_eq!(read(&views, all, 6), None);
    views.advance(Offset::new(7));
    views.publish(&frame(9, &["a"]));
    assert_eq!(read(&views, all, 9), some("9 "));
}

#[test]
fn rings_and_pages_are_bounded_together() {
    let one_bytes = {
        let mut views = Views::new(Offset::ZERO);
        join(&mut views, &key(&["a"], &[]));
        views.publish(&frame(10, &["a"]));
        views.bytes()
    };
    let mut views = Views::with_limit(Offset::ZERO, 3 * one_bytes + 1);
    let ids = ["a", "b", "c"].map(|topic| join(&mut views, &key(&[topic], &[])));
    for (topic, base) in ["a", "b", "c"].into_iter().cycle().zip(0..30) {
        views.publish(&frame(base, &[topic]));
        assert!(views.bytes() <= 3 * one_bytes + 1);
    }
    assert_eq!(read(&views, ids[2], 29), some("29 "));
    assert_eq!(read(&views, ids[0], 0), None);
    let big = Bytes::from(vec![b'x'; 1 << 20]);
    for start in 0..20 {
        let end = Offset::new(start + 1);
        let chunk = Chunk::whole(Offset::new(start), end, big.clone());
        views.add_page(
            ids[0],
            Offset::new(start),
            Page { end, chunks: [chunk].into(), hidden: None },
        );
        assert!(views.page_bytes <= SHARD_PAGES_BYTES_MAX);
    }
    assert!(views.page_bytes > SHARD_PAGES_BYTES_MAX / 2, "they are kept while there is room");
    for view_id in ids {
        views.leave(view_id, 0);
    }
    assert_eq!(views.bytes(), 0);
}

/// Pages are for others: they stay as long as there is any.
#[test]
fn who_is_alone_in_a_view_leaves_no_pages() {
    let mut views = Views::new(Offset::ZERO);
    let view_id = join(&mut views, &key(&["a"], &[]));
    let add = |views: &mut Views, start, end| {
        let end = Offset::new(end);
        let chunk = Chunk::whole(Offset::new(start), end, Bytes::from_static(b"0123"));
        views.add_page(
            view_id,
            Offset::new(start),
            Page { end, chunks: [chunk].into(), hidden: None },
        );
    };
    add(&mut views, 0, 5);
    add(&mut views, 5, 9);
    views.drop_sent(view_id, Offset::new(5));
    let begins = |views: &Views, at| views.get(view_id).pages.begins_at(Offset::new(at));
    assert!(!begins(&views, 0) && begins(&views, 5), "it has the first one");
    join(&mut views, &key(&["a"], &[]));
    views.drop_sent(view_id, Offset::new(9));
    assert!(begins(&views, 5), "another may lack it");
    views.leave(view_id, 0);
    views.drop_sent(view_id, Offset::new(9));
    assert_eq!(views.bytes(), 0);
}

/// A page was taken for one of before that had begun where it does, and dropped before it was sent.
#[test]
fn the_newest_page_stays_wherever_others_have_begun() {
    let mut views = Views::new(Offset::ZERO);
    let alone = join(&mut views, &key(&["a"], &[]));
    let many = join(&mut views, &key(&["b"], &[]));
    let add = |views: &mut Views, view_id, start, bytes: usize| {
        let (start, end) = (Offset::new(start), Offset::new(start + 1));
        let chunk = Chunk::whole(start, end, Bytes::from(vec![b'x'; bytes]));
        views.add_page(view_id, start, Page { end, chunks: [chunk].into(), hidden: None });
    };
    for _ in 0..3 {
        add(&mut views, alone, 0, 10);
        views.drop_sent(alone, Offset::new(1));
    }
    for start in 0..8 {
        add(&mut views, many, start, (1 << 20) - 300);
    }
    for _ in 0..3 {
        add(&mut views, alone, 0, 1 << 20);
        assert!(views.get(alone).pages.begins_at(Offset::ZERO), "it is about to be sent");
        assert!(views.page_bytes <= SHARD_PAGES_BYTES_MAX);
        views.drop_sent(alone, Offset::new(1));
    }
}

#[test]
fn what_is_deleted_is_in_no_ring_and_no_page() {
    let mut views = Views::new(Offset::ZERO);
    let view_id = join(&mut views, &key(&["**"], &[]));
    views.publish(&frame(0, &["a", "b", "a"]));
    assert_eq!(read(&views, view_id, 0).as_deref(), Some("0 1 2 "));
    let page = Page { end: Offset::new(3), chunks: Rc::new([]), hidden: None };
    views.add_page(view_id, Offset::ZERO, page);
    assert!(views.bytes() > 0);

    let mut floors = Floors::default();
    floors.raise("a", Offset::new(5), Offset::new(5));
    let floors = Arc::new(floors);
    views.hide(&floors);
    assert_eq!((read(&views, view_id, 0), views.bytes()), (None, 0), "it reads the log");
    assert_eq!(read(&views, view_id, 3).as_deref(), Some(""), "who had everything still has");
    // Frames that were on their way when it was deleted, and later ones.
    views.publish(&frame(3, &["a", "b"]));
    views.publish(&frame(5, &["a", "b"]));
    assert_eq!(read(&views, view_id, 3), None, "it lacks one that is gone: it reads the log");
    assert_eq!(read(&views, view_id, 4).as_deref(), Some("4 5 6 "));
    views.hide(&floors);
    assert_eq!(read(&views, view_id, 4).as_deref(), Some("4 5 6 "), "nothing has changed");
}

/// Each deletion made every view forget everything, and every subscriber read the log.
#[test]
fn a_deletion_costs_nothing_to_views_that_it_does_not_concern() {
    let mut views = Views::new(Offset::ZERO);
    let [exact, pattern, other] =
        [&["runs/1"][..], &["runs/*"], &["rooms/**", "x"]].map(|patterns| {
            let id = join(&mut views, &key(patterns, &[]));
            let page = Page { end: Offset::new(1), chunks: Rc::new([]), hidden: None };
            views.add_page(id, Offset::ZERO, page);
            id
        });
    views.publish(&frame(1, &["runs/1", "rooms/1", "runs/2"]));
    views.publish(&frame(4, &["rooms/1", "other"]));
    let mut floors = Floors::default();
    floors.raise("other", Offset::new(6), Offset::new(6));
    let bytes = views.bytes();
    views.hide(&Arc::new(floors.clone()));
    assert_eq!(views.bytes(), bytes, "nobody asks for that one");
    floors.raise("runs/2", Offset::new(6), Offset::new(6));
    views.hide(&Arc::new(floors.clone()));
    assert_eq!(read(&views, exact, 1), some("1 "));
    assert_eq!(read(&views, pattern, 1), None);
    assert_eq!(read(&views, other, 1), some("2 4 "));
    let page_of = |views: &Views, id| views.get(id).pages.begins_at(Offset::ZERO);
    assert!(page_of(&views, exact) && page_of(&views, other) && !page_of(&views, pattern));
    // Who had the last of them lacks nothing, though much else has gone by since.
    assert_eq!(read(&views, pattern, 4), some(""));
    for topic in 0..2_000 {
        floors.raise(&format!("many/{topic}"), Offset::new(6), Offset::new(6));
    }
    views.hide(&Arc::new(floors));
    assert_eq!((read(&views, other, 1), read(&views, other, 5)), (None, some("")));
    views.publish(&frame(6, &["rooms/1", "runs/1"]));
    assert_eq!((read(&views, other, 5), read(&views, exact, 5)), (some("6 "), some("7 ")));
}

/// What a rewrite of a sealed segment has dropped is in no ring any more; what is newer stays.
#[test]
fn what_a_rewrite_has_dropped_is_in_no_ring_and_no_page() {
    let mut views = Views::new(Offset::ZERO);
    let old = join(&mut views, &key(&["a"], &[]));
    views.publish(&frame(0, &["a", "b", "a"]));
    views.publish(&frame(3, &["c", "c"]));
    let new = join(&mut views, &key(&["**"], &[]));
    views.publish(&frame(5, &["a", "b"]));
    assert_eq!(read(&views, old, 0), some("0 2 5 "));
    let mut floors = Floors::default();
    floors.settle_to(Offset::new(5));
    views.hide(&Arc::new(floors.clone()));
    assert_eq!((read(&views, old, 0), read(&views, new, 5)), (None, some("5 6 ")));
    let page = Page { end: Offset::new(3), chunks: Rc::new([]), hidden: None };
    views.add_page(new, Offset::ZERO, page);
    floors.settle_to(Offset::new(6));
    views.hide(&Arc::new(floors.clone()));
    assert_eq!((read(&views, new, 5), views.bytes()), (None, 0));
}

/// Several deletions may be seen at once: an expiry is one of up to 200 topics.
#[test]
fn deletions_that_are_seen_at_once_concern_the_views_of_all_their_topics() {
    let mut views = Views::new(Offset::ZERO);
    let ids = ["a", "b", "c"].map(|topic| join(&mut views, &key(&[topic], &[])));
    views.publish(&frame(0, &["a", "b", "c"]));
    let mut floors = Floors::default();
    floors.raise("a", Offset::new(5), Offset::new(5));
    floors.raise("b", Offset::new(5), Offset::new(5));
    views.hide(&Arc::new(floors));
    assert_eq!(ids.map(|id| read(&views, id, 0)), [None, None, some("2 ")]);
}
