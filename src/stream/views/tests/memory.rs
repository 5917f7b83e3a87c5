//! What rings and pages hold, and when they let go.

use super::*;
use crate::event_json::sample;

#[test]
fn rings_and_pages_are_bounded_together() {
    let one_bytes = {
        let mut views = Views::new(Offset::ZERO);
        join(&mut views, &key(&["a"], &[]));
        publish(&mut views, &frame(10, &["a"]));
        views.bytes()
    };
    let mut views = Views::with_limits(
        Offset::ZERO,
        Limits { ring_bytes: 3 * one_bytes + 1, ..Limits::default() },
    );
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

/// One whose text is longer than a ring may be was encoded for nothing, and again from the log for whoever wanted it.
#[test]
fn the_newest_event_stays_however_long_it_is() {
    let mut views = Views::new(Offset::ZERO);
    let view = join(&mut views, &key(&["a"], &[]));
    let data = Bytes::from(vec![b'7'; VIEW_RING_BYTES_MAX + 1]);
    let long = |base| sample::frame(base, 0, vec![sample::json("a", data.clone())]);
    publish(&mut views, &Arc::new(long(0)));
    assert_eq!(read(&mut views, view, 0).map(|text| text.len()), Some(data.len() + 1));
    publish(&mut views, &Arc::new(long(1)));
    assert_eq!(read(&mut views, view, 0), None, "the one before does not");
    assert_eq!(read(&mut views, view, 1).map(|text| text.len()), Some(data.len() + 1));
}
