//! What is deleted or rewritten is in no ring and no page.

use super::*;

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
