//! Frames wait for the views, and each view has its turn.

use super::*;
use crate::event_json::sample;

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
    let mut views =
        Views::with_limits(Offset::ZERO, Limits { waiting_bytes: bytes_max, ..Limits::default() });
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

/// Each pair of a view and a topic was kept: those of one frame took more than all that waits may take, so that the frame
/// was let go before anybody had looked at it.
#[test]
fn many_topics_and_many_views_take_no_memory_for_each_pair() {
    let limits = Limits { waiting_bytes: 32 << 10, pairs: 1_000, ..Limits::default() };
    let mut views = Views::with_limits(Offset::ZERO, limits);
    let types: Vec<String> = (0..100).map(|at| format!("t{at}")).collect();
    let each = types.iter().map(|name| join(&mut views, &key(&["b/*", "d"], &["x", name])));
    let each: Vec<ViewId> = each.collect();
    let names: Vec<String> =
        (0..100).map(|at| format!("{}/{at} x", if at < 60 { "b" } else { "c" })).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).chain(["d x"]).collect();
    views.publish(&frame(0, &names));
    assert!(views.waiting.held_bytes() <= 32 << 10, "{} bytes", views.waiting.held_bytes());
    let expected: String = (0..60).chain([100]).map(|offset| format!("{offset} ")).collect();
    for view_id in each {
        look_at_all(&mut views, view_id);
        assert_eq!(read(&mut views, view_id, 0), Some(expected.clone()));
    }
    assert!(views.waiting.is_empty());
}

/// Eight connections that hang up may have 131,072 patterns: each counted as one step.
#[test]
fn patterns_that_come_and_go_are_steps() {
    let mut views = Views::new(Offset::ZERO);
    let view = join(&mut views, &key(&["a", "b/*", "c/**"], &[]));
    join(&mut views, &key(&["a", "b/*", "c/**"], &[]));
    assert_eq!((views.take_pattern_steps(), views.take_pattern_steps()), (3, 0));
    views.leave(view, 1);
    assert_eq!(views.take_pattern_steps(), 0);
    views.leave(view, 0);
    assert_eq!(views.take_pattern_steps(), 3);
}

/// An array of 4 MiB was encoded, and compressed, in one step.
#[test]
fn a_long_frame_is_looked_at_in_several_turns() {
    let mut views = Views::with_limits(Offset::ZERO, Limits { look_bytes: 2, ..Limits::default() });
    let [view, other] = [&["x"][..], &["y"]].map(|types| join(&mut views, &key(&["a"], types)));
    views.publish(&frame(10, &["a x", "a y", "a x", "a x", "a y"]));
    assert!(views.look_at_next(view).is_some());
    assert_eq!((views.considered(view).get(), read(&mut views, view, 0)), (11, None));
    assert_eq!(read(&mut views, view, 10), some("10 "));
    views.publish(&frame(15, &["a x"]));
    look_at_all(&mut views, view);
    assert_eq!(views.considered(view).get(), 16);
    assert_eq!(read(&mut views, view, 10), some("10 12 13 15 "));
    assert_eq!(due(&mut views), [view, other]);
    assert_eq!(read(&mut views, other, 10), some("11 14 "));
    assert!(views.waiting.is_empty());
}

/// Their data is next to nothing: what is said around it was not counted.
#[test]
fn many_short_events_are_looked_at_in_several_turns_too() {
    let mut views = Views::new(Offset::ZERO);
    let view = join(&mut views, &key(&["a"], &[]));
    let events = (0..2_000).map(|_| sample::json("a", Bytes::from_static(b"1"))).collect();
    views.publish(&Arc::new(sample::frame(0, 0, events)));
    assert!(views.look_at_next(view).is_some());
    assert!((500..1_500).contains(&views.considered(view).get()));
    look_at_all(&mut views, view);
    assert_eq!(read(&mut views, view, 0).map(|text| text.len()), Some(2 * 2_000));
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
