//! The window of ids, beside a list.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

/// Few different first halves, as somebody may make them on purpose.
fn hash(id: u64) -> NameHash {
    [id % 3, id]
}

fn entry(id: u64, offset: u64, time_ms: u64) -> IdEntry {
    IdEntry { hash: hash(id), fingerprint: id, offset: Offset::new(offset), time_ms }
}

fn found(ids: &Ids, id: u64, time_ms: u64) -> Option<u64> {
    ids.get(&hash(id), time_ms).map(|entry| entry.offset.get())
}

impl Ids {
    /// So many entries have come and gone.
    fn after(dropped: u64, window: IdWindow, secret: Option<[u64; 2]>) -> Ids {
        let mut ids = Ids { dropped, settled: dropped, ..Ids::new(window) };
        ids.mixer.secret = secret.unwrap_or(ids.mixer.secret);
        ids
    }
}

/// Gives all small hashes the same place.
const NO_SECRET: [u64; 2] = [0, 0];

#[test]
fn places_are_a_secret() {
    let hash = |number: u64| [7, number];
    let of =
        |ids: &Ids| (0..100).map(|number| ids.mixer.mix(&hash(number)) >> 32).collect::<Vec<_>>();
    let window = IdWindow { events: 2, time_ms: 100 };
    let (mut some, others) = (of(&Ids::new(window)), of(&Ids::new(window)));
    assert_ne!(some, others, "of two logs");
    some.sort_unstable();
    some.dedup();
    assert_eq!(some.len(), 100, "and differ where a half of the hash does not");
    let none = of(&Ids::after(0, window, Some(NO_SECRET)));
    assert!(none.iter().all(|home| *home == 0), "other tests rest on that");
}

/// A full window goes round the end of 32 bits, and every id is found by its newest entry alone.
#[test]
fn numbers_of_32_bits_wrap() {
    let window = IdWindow { events: 1_000, time_ms: u64::MAX };
    let mut ids = Ids::after(u64::from(u32::MAX) - 1_500, window, None);
    for id in 0..4_000 {
        ids.push(entry(id, id, id));
        ids.settle(Offset::new((id + 1).saturating_sub(50)));
        if id >= 50 {
            assert_eq!(found(&ids, id - 50, id), Some(id - 50));
        }
        assert_eq!(found(&ids, id, id), Some(id));
        assert_eq!(found(&ids, id.wrapping_sub(999), id), id.checked_sub(999));
        assert_eq!(found(&ids, id.wrapping_sub(1_000), id), None, "it has left the window");
    }
    assert!(ids.dropped > u64::from(u32::MAX) + 1_000);
    assert_eq!(ids.iter().len(), 1_000);
    ids.take_back(Offset::new(3_950));
    assert_eq!((found(&ids, 3_949, 4_000), found(&ids, 3_950, 4_000)), (Some(3_949), None));
}

#[test]
fn a_window_of_no_ids_gives_those_that_are_staged_to_whoever_writes_them() {
    let mut ids = Ids::new(IdWindow { events: 0, time_ms: 100 });
    for offset in 0..3 {
        ids.push(entry(offset, offset, 0));
    }
    assert_eq!((found(&ids, 0, 0), ids.len(), ids.iter().len()), (None, 0, 0));
    assert!(ids.unsettled(Offset::new(2)).eq(&[entry(0, 0, 0), entry(1, 1, 0)]));
    ids.settle(Offset::new(2));
    assert!(ids.unsettled(Offset::new(9)).eq(&[entry(2, 2, 0)]));
    assert_eq!(ids.entries.len(), 1);
}

#[test]
fn an_id_is_remembered_for_the_window_and_not_a_millisecond_longer() {
    let mut ids = Ids::new(IdWindow { events: 2, time_ms: 100 });
    ids.push(entry(1, 10, 1_000));
    assert_eq!(found(&ids, 1, 1_099), Some(10));
    assert_eq!(found(&ids, 1, 1_100), None);
    ids.push(entry(2, 11, 1_000));
    ids.push(entry(3, 12, 1_000));
    assert_eq!(found(&ids, 1, 1_000), None, "two others came");
    assert_eq!((found(&ids, 2, 1_000), found(&ids, 3, 1_000)), (Some(11), Some(12)));
    ids.take_back(Offset::new(12));
    assert_eq!((found(&ids, 2, 1_000), found(&ids, 3, 1_000)), (Some(11), None));
    assert_eq!(found(&ids, 1, 1_000), Some(10), "one of them was taken back");
    ids.push(entry(3, 12, 1_000));
    ids.push(entry(1, 13, 1_000));
    ids.take_back(Offset::new(12));
    assert_eq!(found(&ids, 1, 1_000), Some(10), "and so was its own successor");
    ids.push(entry(3, 12, 1_000));
    ids.settle(Offset::new(13));
    assert_eq!((ids.len(), ids.entries.len()), (2, 2), "what is settled is forgotten");

    let mut ids = Ids::new(IdWindow { events: 2, time_ms: 0 });
    ids.push(entry(1, 10, 1_000));
    ids.push(entry(2, 11, 1_000));
    for below in [11, 12] {
        ids.settle(Offset::new(below));
    }
    assert_eq!((ids.entries.len(), found(&ids, 2, 1_000)), (0, None), "a window without time");
}

/// More than find room in a table before it grows.
const IDS: u64 = 30;
/// An interpreter takes half an hour for many.
const STEPS: usize = if cfg!(miri) { 60 } else { 400 };

proptest! {
    #[test]
    fn it_remembers_what_a_list_would(
        steps in prop::collection::vec((0_u64..IDS, 0_u64..40, 0_u8..10), 1..STEPS),
        before in prop_oneof![Just(0), u64::from(u32::MAX) - 60..u64::from(u32::MAX) + 2],
        secret in prop_oneof![Just(Some(NO_SECRET)), Just(None), any::<[u64; 2]>().prop_map(Some)],
        events in prop_oneof![Just(7_usize), Just(40)],
    ) {
        let window = IdWindow { events, time_ms: 100 * events as u64 / 7 };
        let mut ids = Ids::after(before, window, secret);
        let mut all: Vec<IdEntry> = Vec::new();
        let (mut offset, mut time_ms, mut settled) = (0, 0, 0);
        for (id, wait_ms, kind) in steps {
            time_ms += wait_ms;
            if kind == 0 {
                let from = settled.max(offset - offset.min(5));
                ids.take_back(Offset::new(from));
                all.retain(|entry| entry.offset.get() < from);
                continue;
            }
            if kind == 1 {
                settled = offset;
                ids.settle(Offset::new(settled));
                prop_assert!(ids.entries.len() <= window.events);
                continue;
            }
            if found(&ids, id, time_ms).is_some() {
                continue; // a duplicate is not appended
            }
            ids.push(entry(id, offset, time_ms));
            all.push(entry(id, offset, time_ms));
            offset += 1;
            for id in 0..IDS {
                let last = all.iter().rev().take(window.events).find(|entry| entry.hash[1] == id);
                let expected = last
                    .filter(|entry| time_ms < entry.time_ms + window.time_ms)
                    .map(|entry| entry.offset.get());
                prop_assert_eq!(found(&ids, id, time_ms), expected);
            }
            let different: HashSet<_> = ids.entries.iter().map(|entry| entry.hash).collect();
            let hash_of = |number| ids.mixer.mix(&ids.at(number).hash);
            prop_assert_eq!(ids.places.check(hash_of), different.len());
        }
    }
}
