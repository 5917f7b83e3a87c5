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

#[test]
fn rings_and_pages_are_bounded_together() {
    let one_bytes = {
        let mut views = Views::new(Offset::ZERO);
        join(&mut views, &key(&["a"], &[]));
        publish(&mut views, &frame(10, &["a"]));
        views.bytes()
    };
    let mut views = Views::with_limits(Offset::ZERO, 3 * one_bytes + 1, WAITING_BYTES_MAX);
    let ids = ["a", "b", "c"].map(|topic| join(&mut views, &key(&[topic], &[])));
    for (topic, base) in ["a", "b", "c"].into_iter().cycle().zip(0..30) {
        publish(&mut views, &frame(base, &[topic]));
        assert!(views.bytes() <= 3 * one_bytes + 1);
    }
    assert_eq!(read(&mut views, ids[2], 29), some("29 "));
    assert_eq!(read(&mut views, ids[0], 0), None);
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
    publish(&mut views, &frame(0, &["a", "b", "a"]));
    assert_eq!(read(&mut views, view_id, 0).as_deref(), Some("0 1 2 "));
    let page = Page { end: Offset::new(3), chunks: Rc::new([]), hidden: None };
    views.add_page(view_id, Offset::ZERO, page);
    assert!(views.bytes() > 0);

    let mut floors = Floors::default();
    floors.raise("a", Offset::new(5), Offset::new(5));
    let floors = Arc::new(floors);
    views.hide(&floors);
    assert_eq!((read(&mut views, view_id, 0), views.bytes()), (None, 0), "it reads the log");
    assert_eq!(read(&mut views, view_id, 3).as_deref(), Some(""), "who had everything still has");
    // Frames that were on their way when it was deleted, and later ones.
    publish(&mut views, &frame(3, &["a", "b"]));
    publish(&mut views, &frame(5, &["a", "b"]));
    assert_eq!(read(&mut views, view_id, 3), None, "it lacks one that is gone: it reads the log");
    assert_eq!(read(&mut views, view_id, 4).as_deref(), Some("4 5 6 "));
    views.hide(&floors);
    assert_eq!(read(&mut views, view_id, 4).as_deref(), Some("4 5 6 "), "nothing has changed");
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
    publish(&mut views, &frame(1, &["runs/1", "rooms/1", "runs/2"]));
    publish(&mut views, &frame(4, &["rooms/1", "other"]));
    let mut floors = Floors::default();
    floors.raise("other", Offset::new(6), Offset::new(6));
    let bytes = views.bytes();
    views.hide(&Arc::new(floors.clone()));
    assert_eq!(views.bytes(), bytes, "nobody asks for that one");
    floors.raise("runs/2", Offset::new(6), Offset::new(6));
    views.hide(&Arc::new(floors.clone()));
    assert_eq!(read(&mut views, exact, 1), some("1 "));
    assert_eq!(read(&mut views, pattern, 1), None);
    assert_eq!(read(&mut views, other, 1), some("2 4 "));
    let page_of = |views: &Views, id| views.get(id).pages.begins_at(Offset::ZERO);
    assert!(page_of(&views, exact) && page_of(&views, other) && !page_of(&views, pattern));
    // Who had the last of them lacks nothing, though much else has gone by since.
    assert_eq!(read(&mut views, pattern, 4), some(""));
    for topic in 0..2_000 {
        floors.raise(&format!("many/{topic}"), Offset::new(6), Offset::new(6));
    }
    views.hide(&Arc::new(floors));
    assert_eq!((read(&mut views, other, 1), read(&mut views, other, 5)), (None, some("")));
    publish(&mut views, &frame(6, &["rooms/1", "runs/1"]));
    assert_eq!((read(&mut views, other, 5), read(&mut views, exact, 5)), (some("6 "), some("7 ")));
}

/// What a rewrite of a sealed segment has dropped is in no ring any more; what is newer stays.
#[test]
fn what_a_rewrite_has_dropped_is_in_no_ring_and_no_page() {
    let mut views = Views::new(Offset::ZERO);
    let old = join(&mut views, &key(&["a"], &[]));
    publish(&mut views, &frame(0, &["a", "b", "a"]));
    publish(&mut views, &frame(3, &["c", "c"]));
    let new = join(&mut views, &key(&["**"], &[]));
    publish(&mut views, &frame(5, &["a", "b"]));
    assert_eq!(read(&mut views, old, 0), some("0 2 5 "));
    let mut floors = Floors::default();
    floors.settle_to(Offset::new(5));
    views.hide(&Arc::new(floors.clone()));
    assert_eq!((read(&mut views, old, 0), read(&mut views, new, 5)), (None, some("5 6 ")));
    let page = Page { end: Offset::new(3), chunks: Rc::new([]), hidden: None };
    views.add_page(new, Offset::ZERO, page);
    floors.settle_to(Offset::new(6));
    views.hide(&Arc::new(floors.clone()));
    assert_eq!((read(&mut views, new, 5), views.bytes()), (None, 0));
}

/// Several deletions may be seen at once: an expiry is one of up to 200 topics.
#[test]
fn deletions_that_are_seen_at_once_concern_the_views_of_all_their_topics() {
    let mut views = Views::new(Offset::ZERO);
    let ids = ["a", "b", "c"].map(|topic| join(&mut views, &key(&[topic], &[])));
    publish(&mut views, &frame(0, &["a", "b", "c"]));
    let mut floors = Floors::default();
    floors.raise("a", Offset::new(5), Offset::new(5));
    floors.raise("b", Offset::new(5), Offset::new(5));
    views.hide(&Arc::new(floors));
    assert_eq!(ids.map(|id| read(&mut views, id, 0)), [None, None, some("2 ")]);
}

/// 1,000 views with filters looked at a frame of 400 events within `publish`: for 50 ms nothing else of the shard ran.
#[test]
fn a_frame_waits_for_the_views_and_each_looks_at_it_in_its_turn() {
    let mut views = Views::new(Offset::ZERO);
    let [first, second] = [&["x"][..], &["y"]].map(|types| join(&mut views, &key(&["a"], types)));
    views.publish(&frame(0, &["a x", "a y", "a x"]));
    assert_eq!([first, second].map(|id| views.considered(id)), [Offset::ZERO; 2]);
    assert_eq!(read(&mut views, first, 0), some(""), "it has not looked yet");
    assert_eq!(views.look_at_next(first), Some(3));
    assert_eq!(views.look_at_next(first), None);
    assert_eq!(read(&mut views, first, 0), some("0 2 "));
    assert_eq!([first, second].map(|id| views.considered(id).get()), [3, 0]);
    // Who comes now does not get what was before.
    let late = join(&mut views, &key(&["a"], &[]));
    assert_eq!((views.look_at_next(late), read(&mut views, late, 2)), (None, None));
    views.publish(&frame(3, &["a x"]));
    assert_eq!(due(&mut views), [first, second, late]);
    assert_eq!(read(&mut views, second, 0), some("1 "));
    assert_eq!(read(&mut views, late, 3), some("3 "));
    assert!(views.waiting.is_empty());
}

#[test]
fn a_frame_that_nobody_lacks_any_more_is_let_go() {
    let mut views = Views::new(Offset::ZERO);
    let [first, second] = ["a", "b"].map(|topic| join(&mut views, &key(&[topic], &[])));
    views.publish(&frame(0, &["c"]));
    assert!(views.waiting.is_empty(), "nobody wants it");
    views.publish(&frame(1, &["a", "b"]));
    views.publish(&frame(3, &["b"]));
    look_at_all(&mut views, first);
    views.leave(second, 0);
    assert!(views.waiting.is_empty(), "who lacked it has gone");
    // Its number, and its place among those that are due, are another's now.
    let other = join(&mut views, &key(&["c"], &[]));
    assert_eq!((other, views.look_at_next(other)), (second, None));
    assert_eq!(due(&mut views), [first]);
    views.publish(&frame(4, &["c", "b"]));
    assert_eq!(due(&mut views), [other]);
    assert_eq!(read(&mut views, other, 4), some("4 "));
}

#[test]
fn who_lacks_too_much_starts_anew_behind_it_and_others_do_not_notice() {
    let bytes_max = 3 * 4096;
    let mut views = Views::with_limits(Offset::ZERO, SHARD_RING_BYTES_MAX, bytes_max);
    let [quick, slow] = ["a", "*"].map(|topic| join(&mut views, &key(&[topic], &[])));
    for base in 0..10 {
        views.publish(&frame(base, &["a"]));
        assert!(views.waiting.held_bytes() <= bytes_max);
        look_at_all(&mut views, quick);
    }
    assert_eq!(read(&mut views, quick, 0), some("0 1 2 3 4 5 6 7 8 9 "));
    assert_eq!(views.considered(slow), Offset::ZERO);
    look_at_all(&mut views, slow);
    assert_eq!(read(&mut views, slow, 7), None);
    assert_eq!(read(&mut views, slow, 8), some("8 9 "));
    assert_eq!(due(&mut views), [quick, slow]);
    assert!(views.waiting.is_empty());
}

/// What concerns all views is done for each when it is touched, and the turns go round in slices.
#[test]
fn a_lost_frame_reaches_all_views_by_and_by() {
    let mut views = Views::new(Offset::ZERO);
    let ids: Vec<ViewId> =
        (0..100).map(|at| join(&mut views, &key(&[&format!("{at}")], &[]))).collect();
    for at in 0..100 {
        publish(&mut views, &frame(at, &[&format!("{at}")]));
    }
    due(&mut views);
    views.publish(&frame(200, &["7"]));
    assert!(!views.waiting.is_empty() && views.bytes() > 0);
    assert!(views.go_round() < 100 && views.is_going_round(), "not all at once");
    assert_eq!(read(&mut views, ids[99], 99), None, "who is touched is up to date");
    assert_eq!(due(&mut views), ids);
    assert_eq!(read(&mut views, ids[7], 200), some("200 "));
    assert_eq!(views.bytes(), views.get(ids[7]).ring.held_bytes());
}

/// One that went round from the start whenever something new concerned all would never come to the last.
#[test]
fn views_are_brought_up_to_date_all_of_them_however_often_frames_are_lost() {
    let mut views = Views::new(Offset::ZERO);
    let ids: Vec<ViewId> =
        (0..20).map(|at| join(&mut views, &key(&[&format!("{at}")], &[]))).collect();
    let mut reached = Vec::new();
    for lost in 1..=3 {
        views.advance(Offset::new(lost));
        views.go_round();
        while let Some(view_id) = views.first_due() {
            reached.push(view_id);
            views.served(true);
        }
    }
    reached.sort_unstable();
    reached.dedup();
    assert_eq!(reached, ids);
}

/// A round counted the views at its start: one that was added took the turn of another.
#[test]
fn views_are_brought_up_to_date_also_when_some_join_meanwhile() {
    let mut views = Views::new(Offset::ZERO);
    let ids: Vec<ViewId> =
        (0..20).map(|at| join(&mut views, &key(&[&format!("{at}")], &[]))).collect();
    views.advance(Offset::new(1));
    views.go_round();
    assert_eq!(views.first_due(), Some(ids[0]));
    while views.first_due().is_some() {
        views.served(true);
    }
    views.advance(Offset::new(2));
    join(&mut views, &key(&["late"], &[]));
    assert_eq!(due(&mut views), ids);
}

mod model {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::super::subscription::Subscription;
    use super::*;

    const TOPICS: [&str; 5] = ["a", "a x", "b", "c", "c x"];
    const READERS: usize = 6;

    #[derive(Clone, Debug)]
    enum Step {
        /// A frame becomes visible, and is published, or its news is lost.
        Publish {
            topics: Vec<usize>,
            is_lost: bool,
        },
        /// The shard learns how far the log has come.
        Advance,
        /// A reader comes, from so many offsets before the end.
        Join {
            reader: usize,
            key: usize,
            back: u64,
        },
        Leave {
            reader: usize,
        },
        /// The view whose turn it is looks at so many frames, and serves so many members.
        Turn {
            frames: usize,
            members: usize,
        },
        /// A reader's socket has space.
        Serve {
            reader: usize,
        },
        /// Some views are brought up to date.
        GoRound,
        /// Everything of a topic is deleted, also what is on its way.
        Delete {
            topic: usize,
        },
        /// A rewrite drops every third event.
        Rewrite {
            back: u64,
        },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (vec(0..TOPICS.len(), 1..5), prop::bool::weighted(0.15))
                .prop_map(|(topics, is_lost)| Step::Publish { topics, is_lost }),
            1 => Just(Step::Advance),
            3 => (0..READERS, 0..6_usize, 0..8_u64)
                .prop_map(|(reader, key, back)| Step::Join { reader, key, back }),
            2 => (0..READERS).prop_map(|reader| Step::Leave { reader }),
            6 => (0..4_usize, 0..3_usize)
                .prop_map(|(frames, members)| Step::Turn { frames, members }),
            2 => (0..READERS).prop_map(|reader| Step::Serve { reader }),
            1 => Just(Step::GoRound),
            1 => (0..TOPICS.len()).prop_map(|topic| Step::Delete { topic }),
            1 => (0..6_u64).prop_map(|back| Step::Rewrite { back }),
        ]
    }

    fn key_of(number: usize) -> ViewKey {
        match number {
            0 => key(&["a"], &[]),
            1 => key(&["a", "c"], &[]),
            2 => key(&["b", "c"], &["message"]),
            3 => key(&["*"], &["x"]),
            4 => key(&["**"], &[]),
            _ => key(&["c"], &["x"]),
        }
    }

    struct Reader {
        key: ViewKey,
        view_id: ViewId,
        position: u32,
        from: u64,
        place: Subscription,
        seen: Vec<u64>,
    }

    struct World {
        views: Views,
        /// Of each event of the log, the topic and type.
        log: Vec<&'static str>,
        floors: Floors,
        /// Deleted, or dropped.
        gone: Vec<bool>,
        readers: Vec<Option<Reader>>,
    }

    fn matches(key: &ViewKey, text: &str) -> bool {
        let (topic, event_type) = text.split_once(' ').unwrap_or((text, "message"));
        let types = key.wanted.types();
        let is_of_type = types.iter().any(|wanted| AsRef::<str>::as_ref(wanted) == event_type);
        key.wanted.matches(topic) && (types.is_empty() || is_of_type)
    }

    impl World {
        fn new() -> Self {
            World {
                views: Views::with_limits(Offset::ZERO, 1_500, 4 * 4096),
                log: Vec::new(),
                floors: Floors::default(),
                gone: Vec::new(),
                readers: (0..READERS).map(|_| None).collect(),
            }
        }

        fn end(&self) -> u64 {
            self.log.len() as u64
        }

        /// As a connection does: what the ring has, and the log where it has not.
        fn serve(&mut self, reader: usize) {
            let end = self.end();
            loop {
                let Some(one) = &mut self.readers[reader] else { return };
                let next = one.place.next();
                let view = self.views.up_to_date(one.view_id);
                let (first, inside) = match view.ring.place_of(next) {
                    RingPlace::Chunks(first) => (first, None),
                    RingPlace::Inside(first, at) => (first, Some(at)),
                    RingPlace::Behind(until) => {
                        assert!(until.get() <= end, "the log has so much");
                        for at in next.get()..until.get() {
                            let index = usize::try_from(at).expect("a small log");
                            if matches(&one.key, self.log[index]) && !self.gone[index] {
                                one.seen.push(at);
                            }
                        }
                        one.place.considered(until);
                        continue;
                    }
                };
                let mut skip = inside.unwrap_or(0);
                for chunk in view.ring.chunks_from(first) {
                    let text = std::str::from_utf8(&chunk.bytes[skip..]).expect("digits");
                    for at in text.split_whitespace() {
                        let at: u64 = at.parse().expect("an offset");
                        let index = usize::try_from(at).expect("a small log");
                        assert!(!self.gone[index], "{at} has gone");
                        one.seen.push(at);
                    }
                    if skip > 0 {
                        one.place.took_rest_of(chunk);
                    } else {
                        one.place.took(chunk);
                    }
                    skip = 0;
                }
                one.place.considered(self.views.considered(one.view_id));
                return;
            }
        }

        fn turn(&mut self, frames: usize, members: usize) {
            let Some(view_id) = self.views.first_due() else { return };
            for _ in 0..frames {
                if self.views.look_at_next(view_id).is_none() {
                    break;
                }
            }
            for _ in 0..members {
                let Some(member) = self.views.get_mut(view_id).members.next() else {
                    return self.views.served(true);
                };
                self.serve(member.slot as usize);
            }
            self.views.served(false);
        }

        fn leave(&mut self, reader: usize) {
            let Some(one) = self.readers[reader].take() else { return };
            self.check(&one);
            if let Some(moved) = self.views.leave(one.view_id, one.position) {
                let other = self.readers[moved.slot as usize].as_mut().expect("it is a member");
                other.position = one.position;
            }
        }

        /// Everything so far, in order, once; what has gone meanwhile may be missing.
        fn check(&self, one: &Reader) {
            let mut seen = one.seen.iter().copied().peekable();
            for at in one.from..one.place.next().get() {
                let index = usize::try_from(at).expect("a small log");
                let is_seen = seen.next_if_eq(&at).is_some();
                let is_wanted = matches(&one.key, self.log[index]);
                assert!(is_seen <= is_wanted, "{at} is nothing for it");
                assert!(is_seen || !is_wanted || self.gone[index], "{at} is missing");
            }
            assert_eq!(seen.next(), None, "nothing twice, nothing from before");
        }

        fn take(&mut self, step: Step) {
            match step {
                Step::Publish { topics, is_lost } => {
                    let base = self.end();
                    let topics: Vec<&str> = topics.into_iter().map(|topic| TOPICS[topic]).collect();
                    self.log.extend_from_slice(&topics);
                    self.gone.resize(self.log.len(), false);
                    for index in usize::try_from(base).expect("small")..self.log.len() {
                        let topic = self.log[index].split(' ').next().expect("a topic");
                        self.gone[index] = self.floors.of(topic).get() > index as u64;
                    }
                    if !is_lost {
                        self.views.publish(&frame(base, &topics));
                    }
                }
                Step::Advance => self.views.advance(Offset::new(self.end())),
                Step::Join { reader, key, back } => {
                    self.leave(reader);
                    let key = key_of(key);
                    let slot = u32::try_from(reader).expect("a few");
                    let member = Member { slot, number: 0 };
                    let (view_id, position) = self.views.join(&key, member, || Rc::new(Numbers));
                    let from = self.end().saturating_sub(back);
                    let place = Subscription::new(Offset::new(from));
                    let seen = Vec::new();
                    self.readers[reader] =
                        Some(Reader { key, view_id, position, from, place, seen });
                    self.serve(reader);
                }
                Step::Leave { reader } => self.leave(reader),
                Step::Turn { frames, members } => self.turn(frames, members),
                Step::Serve { reader } => self.serve(reader),
                Step::GoRound => {
                    self.views.go_round();
                }
                Step::Delete { topic } => {
                    let topic = TOPICS[topic].split(' ').next().expect("a topic");
                    // One behind the end: the next frame may be on its way.
                    let end = Offset::new(self.end() + 1);
                    self.floors.raise(topic, end, end);
                    for (index, text) in self.log.iter().enumerate() {
                        self.gone[index] |= text.split(' ').next() == Some(topic);
                    }
                    self.views.hide(&Arc::new(self.floors.clone()));
                }
                Step::Rewrite { back } => {
                    let settled = self.end().saturating_sub(back);
                    self.floors.settle_to(Offset::new(settled));
                    for at in (0..settled).filter(|at| at % 3 == 0) {
                        self.gone[usize::try_from(at).expect("small")] = true;
                    }
                    self.views.hide(&Arc::new(self.floors.clone()));
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// Whatever comes between: everybody gets what it wants, once and in order, without being asked in the end.
        #[test]
        fn nobody_lacks_anything(steps in vec(step(), 1..80)) {
            let mut world = World::new();
            for step in steps {
                world.take(step);
                prop_assert!(world.views.ring_bytes <= 1_500);
                prop_assert!(world.views.waiting.held_bytes() <= 4 * 4096);
            }
            world.take(Step::Advance);
            while world.views.is_going_round() {
                world.views.go_round();
            }
            while world.views.has_due() {
                world.turn(3, 2);
            }
            prop_assert!(world.views.waiting.is_empty());
            let held = world.views.views.iter().flatten().map(|view| view.ring.held_bytes());
            prop_assert_eq!(world.views.ring_bytes, held.sum::<usize>());
            for reader in 0..READERS {
                if let Some(one) = &world.readers[reader] {
                    world.check(one);
                    // What lies behind it is nothing for it.
                    let next = usize::try_from(one.place.next().get()).expect("a small log");
                    let rest = world.log.iter().zip(&world.gone).skip(next);
                    for (text, is_gone) in rest {
                        prop_assert!(!matches(&one.key, text) || *is_gone);
                    }
                }
                world.leave(reader);
            }
            prop_assert_eq!((world.views.len(), world.views.ring_bytes), (0, 0));
            prop_assert_eq!(world.views.holding.pop_front(), None);
        }
    }
}
