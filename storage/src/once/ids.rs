//! The ids of the newest events of a log, within a window of time and number.
//!
//! 40 bytes an id and some 10 of hash table (`line_table`): 50 MB for a full window of a million.
//!
//! An event that is staged may still be refused, when the disk turns out to be full: until it is settled
//! nothing is forgotten for it, so that taking it back leaves everything as it was.
//!
//! Invariants: entries are in offset order, and so in the order of their times; `places` has exactly
//! the newest entry of each hash.

use std::{collections::VecDeque, ops::Range};

use super::{Mixer, NameHash};
use crate::{line_table::LineTable, offset::Offset};

/// The places of so many entries are fetched before they are changed.
const AT_ONCE: usize = 32;

/// How long ids are remembered: whichever ends first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdWindow {
    /// So many of them.
    pub events: usize,
    /// Milliseconds, by the times of events but for what these went ahead ([`Ids::lag`]).
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
    /// Times are so far ahead that they had not passed for what is remembered.
    ahead_ms: u64,
    entries: VecDeque<IdEntry>,
    /// How many entries have been dropped from the front, ever. Entries are numbered from the first one ever.
    dropped: u64,
    /// The number of the first entry that may be taken back.
    settled: u64,
    /// Of those: the entry whose place they have taken.
    replaced: VecDeque<(u64, u64)>,
    /// By hash: the number of an entry, in 32 bits that wrap.
    places: LineTable,
    mixer: Mixer,
}

impl Ids {
    /// None yet.
    pub fn new(window: IdWindow) -> Ids {
        Ids {
            window,
            ahead_ms: 0,
            entries: VecDeque::new(),
            dropped: 0,
            settled: 0,
            replaced: VecDeque::new(),
            places: LineTable::new(window.events),
            mixer: Mixer::random(),
        }
    }

    /// How long it remembers.
    pub fn window(&self) -> IdWindow {
        self.window
    }

    /// So many milliseconds that the times of events went ahead do not count in the window.
    pub fn lag(&mut self, ahead_ms: u64) {
        self.ahead_ms = ahead_ms;
    }

    /// See [`Ids::lag`].
    #[cfg(mutations)]
    pub(crate) fn ahead_ms(&self) -> u64 {
        self.ahead_ms
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
        let number =
            self.places.find(self.mixer.mix(hash), |number| self.at(number).hash == *hash)?;
        let is_among_newest = self.next() - self.number(number) <= self.window.events as u64;
        let entry = self.at(number);
        (is_among_newest && self.is_inside(entry, time_ms)).then_some(entry)
    }

    /// Fetches what [`Ids::get`] and [`Ids::push`] will ask for: it is on its way while something else is
    /// done.
    pub fn prefetch(&self, hash: &NameHash) {
        self.places.prefetch(self.mixer.mix(hash));
    }

    /// The same for some entries: the memory of all of their places is on its way at the same time.
    fn prefetch_some(&self, indexes: Range<usize>) {
        self.entries.range(indexes).for_each(|entry| self.prefetch(&entry.hash));
    }

    /// Whether an append at `time_ms` comes before an entry has left the window by its age.
    pub(crate) fn is_inside(&self, entry: &IdEntry, time_ms: u64) -> bool {
        let passed_ms = time_ms.saturating_sub(self.ahead_ms);
        passed_ms < entry.time_ms.saturating_add(self.window.time_ms)
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
        if self.places.is_full() {
            self.grow();
        }
        let number = self.next();
        self.entries.push_back(entry);
        if let Some(old) = self.put(low_bits(number)) {
            self.replaced.push_back((number, self.number(old)));
        }
    }

    /// Gives an entry the place of its hash; returns the number of the one that had it.
    fn put(&mut self, number: u32) -> Option<u32> {
        let (entries, dropped) = (&self.entries, low_bits(self.dropped));
        let hash_of = |number: u32| &entries[number.wrapping_sub(dropped) as usize].hash;
        let hash = hash_of(number);
        self.places.put(self.mixer.mix(hash), number, |known| hash_of(known) == hash)
    }

    fn grow(&mut self) {
        self.places = self.places.grown();
        for start in (0..self.entries.len()).step_by(AT_ONCE) {
            let end = self.entries.len().min(start + AT_ONCE);
            self.prefetch_some(start..end);
            for number in start..end {
                self.put(low_bits(self.dropped + number as u64));
            }
        }
        self.places.collapse_soon();
    }

    /// How many entries may be taken back.
    pub fn unsettled_count(&self) -> usize {
        usize::try_from(self.next() - self.settled).expect("no more than there are")
    }

    /// The entries that may be taken back and lie below an offset.
    pub fn unsettled(&self, below: Offset) -> impl Iterator<Item = &IdEntry> {
        let start = usize::try_from(self.settled - self.dropped).expect("an index");
        self.entries.range(start..).take_while(move |entry| entry.offset < below)
    }

    /// The events below an offset stay: what has left the window is forgotten.
    pub fn settle(&mut self, below: Offset) {
        let settled = self.unsettled(below).count() as u64;
        if settled == 0 {
            return;
        }
        self.settled += settled;
        while self.replaced.front().is_some_and(|(number, _)| *number < self.settled) {
            self.replaced.pop_front();
        }
        let settled = usize::try_from(self.settled - self.dropped).expect("an index");
        let time_ms = self.entries[settled - 1].time_ms;
        let surplus = settled.saturating_sub(self.window.events);
        let old = self.entries.range(surplus..settled);
        let old = old.take_while(|entry| !self.is_inside(entry, time_ms)).count();
        self.drop_front(surplus + old);
    }

    /// Forgets so many entries, the oldest.
    fn drop_front(&mut self, count: usize) {
        for start in (0..count).step_by(AT_ONCE) {
            let now = AT_ONCE.min(count - start);
            self.prefetch_some(0..now);
            for entry in self.entries.drain(..now) {
                // A newer entry of the same id may have taken its place.
                self.places.remove(self.mixer.mix(&entry.hash), low_bits(self.dropped));
                self.dropped += 1;
            }
        }
    }

    /// Forgets the events from an offset on, which were never written.
    pub fn take_back(&mut self, from: Offset) {
        while let Some(last) = self.entries.back().copied().filter(|last| last.offset >= from) {
            let number = self.next() - 1;
            let old = self.replaced.pop_back_if(|(taker, _)| *taker == number);
            let (hash, bits) = (self.mixer.mix(&last.hash), low_bits(number));
            match old {
                Some((_, old)) if old >= self.dropped => {
                    self.places.renumber(hash, bits, low_bits(old));
                }
                _ => drop(self.places.remove(hash, bits)),
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
        self.entries.capacity() * size_of::<IdEntry>() + self.places.memory_bytes()
    }
}

fn low_bits(number: u64) -> u32 {
    u32::try_from(number & u64::from(u32::MAX)).expect("masked to 32 bits")
}

#[cfg(test)]
mod tests;
