//! Hashes of names by number, and their numbers. Pure.
//!
//! 16 bytes a hash and some 9 of hash table. The hashes lie in pieces that whoever has a clone goes on
//! reading while others come; a piece that changes meanwhile is copied.
//!
//! Invariant: the table has exactly the numbers that are neither free nor yet to come.

use std::sync::Arc;

use super::{Mixer, NameHash, PRODUCERS_MAX};
use crate::line_table::LineTable;

/// Hashes of a piece; the first piece grows up to it.
const PIECE: usize = 1024;
/// The places of so many hashes are fetched before they are changed.
const AT_ONCE: usize = 32;

/// Hashes by number, from 0.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hashes {
    pieces: Vec<Arc<Vec<NameHash>>>,
}

impl Hashes {
    /// The hash of a number that was given.
    pub fn get(&self, number: u32) -> &NameHash {
        &self.pieces[number as usize / PIECE][number as usize % PIECE]
    }

    fn len(&self) -> usize {
        let full = self.pieces.len().saturating_sub(1) * PIECE;
        full + self.pieces.last().map_or(0, |last| last.len())
    }

    fn push(&mut self, hash: NameHash) -> u32 {
        let number = u32::try_from(self.len()).expect("fewer than 2^32 names");
        match self.pieces.last_mut().filter(|last| last.len() < PIECE) {
            Some(last) => Arc::make_mut(last).push(hash),
            None => {
                let room = if self.pieces.is_empty() { 1 } else { PIECE };
                let mut piece = Vec::with_capacity(room);
                piece.push(hash);
                self.pieces.push(Arc::new(piece));
            }
        }
        number
    }

    fn set(&mut self, number: u32, hash: NameHash) {
        let piece = Arc::make_mut(&mut self.pieces[number as usize / PIECE]);
        piece[number as usize % PIECE] = hash;
    }

    fn memory_bytes(&self) -> usize {
        let hashes: usize = self.pieces.iter().map(|piece| piece.capacity()).sum();
        hashes * size_of::<NameHash>() + self.pieces.capacity() * size_of::<usize>()
    }
}

/// Hashes, each of which has a number.
#[derive(Debug)]
pub(crate) struct HashNumbers {
    hashes: Hashes,
    table: LineTable,
    mixer: Mixer,
    /// Numbers that have no hash any more, and are given again.
    free: Vec<u32>,
}

impl Default for HashNumbers {
    fn default() -> Self {
        HashNumbers {
            hashes: Hashes::default(),
            table: LineTable::full_with(PRODUCERS_MAX),
            mixer: Mixer::random(),
            free: Vec::new(),
        }
    }
}

impl HashNumbers {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.hashes.len() - self.free.len()
    }

    /// The hashes by number.
    pub fn hashes(&self) -> &Hashes {
        &self.hashes
    }

    /// The hashes by number, and no more.
    pub fn into_hashes(self) -> Hashes {
        self.hashes
    }

    /// The number of a hash.
    pub fn find(&self, hash: &NameHash) -> Option<u32> {
        self.table.find(self.mixer.mix(hash), |number| self.hashes.get(number) == hash)
    }

    /// Gives a number to a hash that has none.
    pub fn add(&mut self, hash: NameHash) -> u32 {
        if self.table.is_full() {
            self.grow();
        }
        let number = match self.free.pop() {
            Some(number) => {
                self.hashes.set(number, hash);
                number
            }
            None => self.hashes.push(hash),
        };
        self.table.put(self.mixer.mix(&hash), number, |_| false);
        number
    }

    /// Takes the number of a hash back: another one gets it.
    pub fn remove(&mut self, number: u32) {
        let hash = self.mixer.mix(self.hashes.get(number));
        assert!(self.table.remove(hash, number), "a number is taken back once");
        self.free.push(number);
    }

    fn grow(&mut self) {
        let larger = self.table.grown();
        let before = std::mem::replace(&mut self.table, larger);
        let mut numbers = before.items_in(0..before.len()).peekable();
        while numbers.peek().is_some() {
            let some: Vec<(u64, u32)> = numbers
                .by_ref()
                .take(AT_ONCE)
                .map(|number| (self.mixer.mix(self.hashes.get(number)), number))
                .collect();
            some.iter().for_each(|(hash, _)| self.table.prefetch(*hash));
            for (hash, number) in some {
                self.table.put(hash, number, |_| false);
            }
        }
        self.table.collapse_soon();
    }

    /// About how much memory they take.
    pub fn memory_bytes(&self) -> usize {
        let free = self.free.capacity() * size_of::<u32>();
        self.hashes.memory_bytes() + self.table.memory_bytes() + free
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_clone_reads_what_was_there() {
        let mut numbers = HashNumbers::default();
        for number in 0..2_500_u32 {
            assert_eq!(numbers.add([u64::from(number), 7]), number);
        }
        let shared = numbers.hashes().clone();
        for number in [3, 1_024, 2_499] {
            numbers.remove(number);
        }
        let again = [1, 2, 3].map(|name| numbers.add([name, 8]));
        assert_eq!((again, numbers.len()), ([2_499, 1_024, 3], 2_500));
        assert_eq!(numbers.add([0, 9]), 2_500);
        for number in 0..2_500 {
            assert_eq!(shared.get(number), &[u64::from(number), 7]);
        }
        assert_eq!((numbers.hashes().get(3), numbers.find(&[3, 7])), (&[3, 8], None));
    }

    proptest! {
        #[test]
        fn each_hash_has_the_number_that_it_was_given(
            steps in prop::collection::vec((any::<bool>(), 0_u64..300), 0..2_000),
        ) {
            let mut numbers = HashNumbers::default();
            let mut model: HashMap<NameHash, u32> = HashMap::new();
            for (is_added, name) in steps {
                let hash = [name, name / 3];
                prop_assert_eq!(numbers.find(&hash), model.get(&hash).copied());
                match model.get(&hash) {
                    None if is_added => drop(model.insert(hash, numbers.add(hash))),
                    Some(number) if !is_added => {
                        numbers.remove(*number);
                        model.remove(&hash);
                    }
                    _ => {}
                }
                prop_assert_eq!(numbers.len(), model.len());
            }
            for (hash, number) in model {
                prop_assert_eq!(numbers.find(&hash), Some(number));
                prop_assert_eq!(numbers.hashes().get(number), &hash);
            }
        }
    }
}
