//! The table beside a list.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

impl LineTable {
    /// How many items there are, if they are where they should be.
    pub fn check(&self, hash_of: impl Fn(u32) -> u64) -> usize {
        let mut beyond: HashMap<usize, u32> = HashMap::new();
        let mut items = 0;
        for end in 0..self.buckets.len() {
            let bucket = self.buckets.at(end);
            for slot in (0..SLOTS).filter(|slot| bucket.tags[*slot] != FREE) {
                let hash = hash_of(bucket.numbers[slot]);
                assert_eq!(bucket.tags[slot], tag_of(hash));
                let mut at = self.home(hash);
                while at != end {
                    *beyond.entry(at).or_default() += 1;
                    at = self.next(at);
                }
                items += 1;
            }
        }
        for at in 0..self.buckets.len() {
            assert_eq!(
                self.buckets.at(at).beyond,
                beyond.get(&at).copied().unwrap_or(0),
                "beyond {at}"
            );
        }
        assert_eq!(items, self.items);
        items
    }
}

/// Hashes that share homes and tags, most of them the last home.
fn hash_of(number: u32) -> u64 {
    let last = u64::from(u32::MAX);
    let home = [last, 0, last, 1 << 31, last][number as usize % 5] & !0xf_ffff;
    (home << 32) | (u64::from(number / 5 % 3) << UNUSED_BITS)
}

proptest! {
    #[test]
    fn it_holds_what_a_list_would(
        steps in prop::collection::vec((0_u32..240, 0_u8..8), 1..600),
        expected in prop_oneof![Just(0_usize), Just(70), Just(1_000)],
    ) {
        let mut table = LineTable::new(expected);
        let mut list: Vec<u32> = Vec::new();
        for (number, kind) in steps {
            let hash = hash_of(number);
            let at = list.iter().position(|item| *item == number);
            if table.is_full() {
                let mut grown = table.grown();
                for item in &list {
                    grown.put(hash_of(*item), *item, |_| false);
                }
                table = grown;
            }
            match kind {
                0..5 => {
                    // Those of one hash that are equally odd are the same.
                    let is_same =
                        |other: u32| hash_of(other) == hash && other % 2 == number % 2;
                    let at = list.iter().position(|item| is_same(*item));
                    let old = at.map(|at| std::mem::replace(&mut list[at], number));
                    if old.is_none() {
                        list.push(number);
                    }
                    prop_assert_eq!(table.put(hash, number, is_same), old);
                }
                5 => {
                    // Another of the same hash and oddness.
                    prop_assert_eq!(table.renumber(hash, number, number + 30), at.is_some());
                    at.inspect(|at| list[*at] += 30);
                }
                _ => {
                    prop_assert_eq!(table.remove(hash, number), at.is_some());
                    at.map(|at| list.swap_remove(at));
                }
            }
            let found = table.find(hash, |other| other == number);
            prop_assert_eq!(found.is_some(), list.contains(&number));
            prop_assert_eq!(table.check(hash_of), list.len());
        }
    }
}

#[test]
fn an_item_takes_few_bytes_and_finds_room_however_many_come() {
    // Some huge pages of them.
    const EXPECTED: u32 = 500_000;
    let hash_of = |number: u32| u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let (mut table, mut has_moved) = (LineTable::new(EXPECTED as usize), false);
    for number in 0..EXPECTED * 2 {
        if number == EXPECTED {
            let bytes = table.memory_bytes();
            assert!(bytes * 10 <= 104 * EXPECTED as usize, "{bytes}");
        }
        if table.is_full() {
            let mut grown = table.grown();
            let mut known = 0;
            for (item, hash) in table.hashes_in(0..table.len()) {
                if let Some(hash) = hash {
                    assert_eq!(hash >> UNUSED_BITS, hash_of(item) >> UNUSED_BITS);
                    known += 1;
                }
                grown.put(hash.unwrap_or(hash_of(item)), item, |_| false);
            }
            let is_large = table.len() >= 1 << 14;
            assert_eq!(known > number / 4 * 3, is_large, "{known} of {number} hashes");
            assert!(is_large || known == 0);
            (table, has_moved) = (grown, has_moved || is_large);
        }
        table.put(hash_of(number), number, |_| false);
    }
    assert!(has_moved);
    assert_eq!(table.check(hash_of), EXPECTED as usize * 2);
    for number in 0..EXPECTED * 2 {
        assert_eq!(table.find(hash_of(number), |other| other == number), Some(number));
        assert!(table.remove(hash_of(number), number));
    }
    assert_eq!(table.check(hash_of), 0, "and nothing is left of what was removed");
}

#[test]
fn a_search_ends_where_each_of_two_buckets_has_items_behind_it() {
    let hash = |home: u64, number: u32| (home << 63) | (u64::from(number) << UNUSED_BITS);
    let mut table = LineTable::new(0).grown();
    table = table.grown();
    assert_eq!(table.buckets.len(), 2);
    let first: Vec<u32> = (1..12).collect();
    for number in &first {
        assert_eq!(table.put(hash(0, *number), *number, |_| false), None);
    }
    first[..10].iter().for_each(|number| assert!(table.remove(hash(0, *number), *number)));
    for number in 21..31 {
        assert_eq!(table.put(hash(1, number), number, |_| false), None);
    }
    assert!((0..2).all(|at| table.buckets.at(at).beyond > 0));
    for home in 0..2 {
        assert_eq!(table.find(hash(home, 99), |_| true), None);
    }
    assert_eq!(table.find(hash(0, 11), |number| number == 11), Some(11));
    assert_eq!(table.find(hash(1, 30), |number| number == 30), Some(30));
}
