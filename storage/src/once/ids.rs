//! The ids of the newest events of a log, within a window of time and number.
//!
//! 40 bytes an id and some 10 of hash table: 50 MB for a full window of a million.
//!
//! An event that is staged may still be refused, when the disk turns out to be full: until it is settled
//! nothing is forgotten for it, so that taking it back leaves everything as it was.
//!
//! Invariants: entries are in offset order, and so in the order of their times; `places` has exactly
//! the newest entry of each hash.

use std::collections::VecDeque;

use hashbrown::{HashTable, hash_table::Entry};

use super::NameHash;
use crate::offset::Offset;

/// How long ids are remembered: whichever ends first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdWindow {
    /// So many of them.
    pub events: usize,
    /// Milliseconds, by the times of events.
    pub time_ms: u64,
}

/// An event that had an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdEntry {
    /// The id's hash.
    pub hash: NameHash,
    /// What the event says.
    pub fingerprint: u64,
    /// Where it is.
    pub offset: Offset,
    /// When it was appended.
    pub time_ms: u64,
}

/// The ids that are remembered.
#[derive(Debug)]
pub struct Ids {
    window: IdWindow,
    entries: VecDeque<IdEntry>,
    /// How many entries have been dropped from the front, ever. Entries are numbered from the first one ever.
    dropped: u64,
    /// The number of the first entry that may be taken back.
    settled: u64,
    /// Of those: the entry whose place they have taken.
    replaced: VecDeque<(u64, u64)>,
    /// By hash: the number of an entry, in 32 bits that wrap.
    places: HashTable<u32>,
}

impl Ids {
    /// None yet.
    pub fn new(window: IdWindow) -> Ids {
        Ids {
            window,
            entries: VecDeque::new(),
            dropped: 0,
            settled: 0,
            replaced: VecDeque::new(),
            places: HashTable::new(),
        }
    }

    /// How long it remembers.
    pub fn window(&self) -> IdWindow {
        self.window
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.entries.len().min(self.window.events)
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The event of an id, for an append at `time_ms`.
    pub fn get(&self, hash: &NameHash, time_ms: u64) -> Option<&IdEntry> {
        let number = self.places.find(hash[0], |number| self.at(*number).hash == *hash)?;
        let is_among_newest = self.next() - self.number(*number) <= self.window.events as u64;
        let entry = self.at(*number);
        (is_among_newest && self.is_inside(entry, time_ms)).then_some(entry)
    }

    fn is_inside(&self, entry: &IdEntry, time_ms: u64) -> bool {
        time_ms < entry.time_ms.saturating_add(self.window.time_ms)
    }

    /// The number of the next entry.
    fn next(&self) -> u64 {
        self.dropped + self.entries.len() as u64
    }

    /// The number of an entry that is there, from its low bits.
    fn number(&self, bits: u32) -> u64 {
        self.dropped + u64::from(bits.wrapping_sub(low_bits(self.dropped)))
    }

    fn at(&self, number: u32) -> &IdEntry {
        let dropped = low_bits(self.dropped);
        &self.entries[number.wrapping_sub(dropped) as usize]
    }

    /// Adds the next event with an id.
    pub fn push(&mut self, entry: IdEntry) {
        debug_assert!(self.entries.back().is_none_or(|last| last.offset < entry.offset));
        if self.window.events == 0 {
            return;
        }
        let number = self.next();
        self.entries.push_back(entry);
        let (entries, dropped) = (&self.entries, low_bits(self.dropped));
        let hash_at = |number: &u32| entries[number.wrapping_sub(dropped) as usize].hash;
        match self.places.entry(
            entry.hash[0],
            |known| hash_at(known) == entry.hash,
            |known| hash_at(known)[0],
        ) {
            Entry::Occupied(mut known) => {
                let old = std::mem::replace(known.get_mut(), low_bits(number));
                let old = self.dropped + u64::from(old.wrapping_sub(dropped));
                self.replaced.push_back((number, old));
            }
            Entry::Vacant(place) => drop(place.insert(low_bits(number))),
        }
    }

    /// The events below an offset stay: what has left the window is forgotten.
    pub fn settle(&mut self, below: Offset) {
        let is_below = |entry: &&IdEntry| entry.offset < below;
        let start = usize::try_from(self.settled - self.dropped).expect("an index");
        let settled = self.entries.iter().skip(start).take_while(is_below).count();
        if settled == 0 {
            return;
        }
        self.settled += settled as u64;
        while self.replaced.front().is_some_and(|(number, _)| *number < self.settled) {
            self.replaced.pop_front();
        }
        let time_ms = self.entries[start + settled - 1].time_ms;
        while self.settled - self.dropped > self.window.events as u64
            || self.dropped < self.settled
                && self.entries.front().is_some_and(|first| !self.is_inside(first, time_ms))
        {
            self.drop_front();
        }
    }

    fn drop_front(&mut self) {
        let Some(first) = self.entries.front().copied() else { return };
        let number = low_bits(self.dropped);
        // A newer entry of the same id may have taken its place.
        if let Ok(place) = self.places.find_entry(first.hash[0], |known| *known == number) {
            place.remove();
        }
        self.entries.pop_front();
        self.dropped += 1;
    }

    /// Forgets the events from an offset on, which were never written.
    pub fn take_back(&mut self, from: Offset) {
        while let Some(last) = self.entries.back().copied().filter(|last| last.offset >= from) {
            let number = self.next() - 1;
            let old = self.replaced.pop_back_if(|(taker, _)| *taker == number);
            let place = self.places.find_entry(last.hash[0], |known| *known == low_bits(number));
            if let Ok(mut place) = place {
                match old {
                    Some((_, old)) if old >= self.dropped => *place.get_mut() = low_bits(old),
                    _ => drop(place.remove()),
                }
            }
            self.entries.pop_back();
        }
        self.settled = self.settled.min(self.next());
    }

    /// The entries, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &IdEntry> + ExactSizeIterator {
        self.entries.iter().skip(self.entries.len() - self.len())
    }

    /// About how much memory it takes.
    pub fn memory_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<IdEntry>() + self.places.allocation_size()
    }
}

fn low_bits(number: u64) -> u32 {
    u32::try_from(number & u64::from(u32::MAX)).expect("masked to 32 bits")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(id: u64, offset: u64, time_ms: u64) -> IdEntry {
        // Few different first halves, so that hashes share buckets.
        IdEntry { hash: [id % 3, id], fingerprint: id, offset: Offset::new(offset), time_ms }
    }

    fn found(ids: &Ids, id: u64, time_ms: u64) -> Option<u64> {
        ids.get(&[id % 3, id], time_ms).map(|entry| entry.offset.get())
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

    proptest! {
        #[test]
        fn it_remembers_what_a_list_would(
            steps in prop::collection::vec((0_u64..12, 0_u64..40, 0_u8..10), 1..200),
        ) {
            let window = IdWindow { events: 7, time_ms: 100 };
            let mut ids = Ids::new(window);
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
                for id in 0..12 {
                    let last = all.iter().rev().take(window.events).find(|entry| entry.hash[1] == id);
                    let expected = last
                        .filter(|entry| time_ms < entry.time_ms + window.time_ms)
                        .map(|entry| entry.offset.get());
                    prop_assert_eq!(found(&ids, id, time_ms), expected);
                }
            }
        }
    }
}
