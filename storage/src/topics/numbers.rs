//! The numbers of topics, by the hashes of their names. Pure.
//!
//! A table that is full is followed by a larger one, into which each new number takes some others
//! with it: no append waits while a million topics move. Until all are there both are asked; where no more
//! topics come that stays so.

use crate::line_table::LineTable;

/// So many buckets of the table before move with each new number: it is empty before the next is full.
const MOVED: usize = 3;

/// Numbers that are never removed.
#[derive(Debug)]
pub(super) struct Numbers {
    table: LineTable,
    /// The one before, and how many of its buckets have moved.
    before: Option<(LineTable, usize)>,
}

impl Default for Numbers {
    fn default() -> Self {
        Numbers { table: LineTable::new(0), before: None }
    }
}

impl Numbers {
    /// The number with a hash that is the one; `is_it` knows those with other hashes too.
    pub fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let before = self.before.as_ref();
        self.table.find(hash, &mut is_it).or_else(|| before?.0.find(hash, is_it))
    }

    /// Adds a number that is not there; `hashes_of` knows those of all that are.
    pub fn add(&mut self, hash: u64, number: u32, hashes_of: impl Fn(&[u32], &mut Vec<u64>)) {
        if self.table.is_full() {
            while self.before.is_some() {
                self.move_some(&hashes_of);
            }
            let larger = self.table.grown();
            self.before = Some((std::mem::replace(&mut self.table, larger), 0));
        }
        self.move_some(&hashes_of);
        self.table.put(hash, number, |_| false);
    }

    fn move_some(&mut self, hashes_of: &impl Fn(&[u32], &mut Vec<u64>)) {
        let Some((before, moved)) = &mut self.before else { return };
        let end = before.len().min(*moved + MOVED);
        let mut without = Vec::new();
        for (number, hash) in before.hashes_in(*moved..end) {
            match hash {
                Some(hash) => drop(self.table.put(hash, number, |_| false)),
                None => without.push(number),
            }
        }
        let mut hashes = Vec::with_capacity(without.len());
        hashes_of(&without, &mut hashes);
        for (number, hash) in without.into_iter().zip(hashes) {
            self.table.put(hash, number, |_| false);
        }
        *moved = end;
        if end == before.len() {
            self.before = None;
            self.table.collapse_soon();
        }
    }

    /// How much memory it takes.
    pub fn memory_bytes(&self) -> usize {
        let before = self.before.as_ref().map_or(0, |(before, _)| before.memory_bytes());
        self.table.memory_bytes() + before
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::*;

    /// Hashes of which some are the same.
    fn hash_of(number: u32) -> u64 {
        u64::from(number / 3).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn all_are_found_while_they_move(count in 0_u32..6_000, step in 1_u32..5) {
            let mut numbers = Numbers::default();
            let mut moved = false;
            for number in 0..count {
                let number = number * step;
                prop_assert_eq!(numbers.find(hash_of(number), |other| other == number), None);
                numbers.add(hash_of(number), number, |some, hashes| {
                    hashes.extend(some.iter().map(|number| hash_of(*number)));
                });
                moved |= numbers.before.is_some();
                if number.is_multiple_of(64) || number + 200 > count * step {
                    for earlier in [number, number / step / 2 * step, 0] {
                        let found = numbers.find(hash_of(earlier), |other| other == earlier);
                        prop_assert_eq!(found, Some(earlier));
                    }
                }
            }
            for number in 0..count * step {
                let found = numbers.find(hash_of(number), |other| other == number);
                prop_assert_eq!(found.is_some(), number.is_multiple_of(step));
            }
            prop_assert!(moved || count < 200);
        }
    }

    /// Of many the table says most hashes: a name is far away.
    #[test]
    fn many_move_without_a_look_at_their_names() {
        let mut numbers = Numbers::default();
        let asked = Cell::new(0);
        let hashes_of = |some: &[u32], hashes: &mut Vec<u64>| {
            asked.set(asked.get() + some.len());
            hashes.extend(some.iter().map(|number| hash_of(*number)));
        };
        for number in 0..200_000 {
            numbers.add(hash_of(number), number, hashes_of);
        }
        let asked_before = asked.get();
        for number in 200_000..600_000 {
            numbers.add(hash_of(number), number, hashes_of);
        }
        assert!(asked.get() - asked_before < 400_000, "they moved four times");
        for number in 0..600_000 {
            let found = numbers.find(hash_of(number), |other| other == number);
            assert_eq!(found, Some(number));
        }
    }
}
