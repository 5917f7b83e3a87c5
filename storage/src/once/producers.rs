//! How far each producer has come: its epoch, its last sequence, and where that append is.
//!
//! 48 bytes a producer, in a hash table: 100 MB for a million. A producer that was silent for
//! [`FORGOTTEN_S`] counts as never seen.

use std::collections::VecDeque;

use hashbrown::{HashTable, hash_table::Entry};

use super::{NameHash, hash_name};
use crate::{
    append::{OffsetScope, ProducerClaim, ProducerPlace},
    error::AppendError,
    offset::Offset,
};

/// A producer that was silent for so long may begin anew: a week, as Durable Streams has it.
pub const FORGOTTEN_S: u32 = 7 * 24 * 3600;
/// So many producers of a log are known.
pub const PRODUCERS_MAX: usize = 1_000_000;

/// The last append of a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerEntry {
    /// Of its scope and name.
    pub hash: NameHash,
    /// Its epoch.
    pub epoch: u64,
    /// Its sequence.
    pub seq: u64,
    /// Its first event.
    pub first: Offset,
    /// How many events.
    pub events: u32,
    /// When, in seconds since 1970.
    pub time_s: u32,
}

impl ProducerEntry {
    /// What an answer says of it.
    pub fn place(&self) -> ProducerPlace {
        ProducerPlace { epoch: self.epoch, seq: self.seq }
    }
}

/// What a claim comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// It is the next one.
    Next,
    /// It was accepted before; this is the last one that was.
    Duplicate(ProducerEntry),
}

/// The producers of a log.
#[derive(Debug, Default)]
pub struct Producers {
    entries: HashTable<ProducerEntry>,
    /// Each append that is not visible yet, oldest first.
    staged: VecDeque<Staged>,
    /// Before that time nobody can be forgotten, as far as is known.
    full_until_s: u32,
}

#[derive(Debug)]
struct Staged {
    entry: ProducerEntry,
    /// What was known before.
    before: Option<ProducerEntry>,
}

/// The hash of a producer in its scope: a topic, or the log.
pub(crate) fn producer_hash(claim: &ProducerClaim, topic: &str) -> NameHash {
    let scope = match claim.scope {
        OffsetScope::Topic => topic,
        OffsetScope::Log => "",
    };
    // Neither holds a control character.
    hash_name(&[scope, "\0", claim.id.as_str()].concat())
}

impl Producers {
    /// How many are known.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &ProducerEntry> {
        self.entries.iter()
    }

    /// The entry of a producer.
    pub fn get(&self, hash: &NameHash) -> Option<&ProducerEntry> {
        self.entries.find(hash[0], |entry| entry.hash == *hash)
    }

    /// Judges a claim at a time; nothing changes.
    pub fn judge(
        &self,
        hash: &NameHash,
        claim: &ProducerClaim,
        time_s: u32,
    ) -> Result<Judged, AppendError> {
        let known = self.get(hash).filter(|entry| !is_forgotten(entry, time_s));
        let (given_epoch, given_seq) = (claim.epoch, claim.seq);
        match known {
            None if given_seq == 0 => Ok(Judged::Next),
            None => Err(AppendError::ProducerGap { expected_seq: 0, given_seq }),
            Some(known) if given_epoch < known.epoch => {
                Err(AppendError::StaleEpoch { epoch: known.epoch, given_epoch })
            }
            Some(known) if given_epoch > known.epoch => match given_seq {
                0 => Ok(Judged::Next),
                _ => Err(AppendError::EpochStart { given_seq }),
            },
            Some(known) if given_seq <= known.seq => Ok(Judged::Duplicate(*known)),
            Some(known) if given_seq == known.seq + 1 => Ok(Judged::Next),
            Some(known) => Err(AppendError::ProducerGap { expected_seq: known.seq + 1, given_seq }),
        }
    }

    /// Makes room for one more producer, by forgetting those that were silent for long.
    pub fn make_room(&mut self, hash: &NameHash, time_s: u32) -> Result<(), AppendError> {
        if self.entries.len() < PRODUCERS_MAX || self.get(hash).is_some() {
            return Ok(());
        }
        // A look at all of them takes milliseconds: none in vain.
        if time_s >= self.full_until_s {
            self.entries.retain(|entry| !is_forgotten(entry, time_s));
            if self.entries.len() < PRODUCERS_MAX {
                return Ok(());
            }
            let oldest_s = self.entries.iter().map(|entry| entry.time_s).min().unwrap_or(0);
            self.full_until_s = oldest_s.saturating_add(FORGOTTEN_S);
        }
        Err(AppendError::TooManyProducers { producers_max: PRODUCERS_MAX as u64 })
    }

    /// An append of a producer was staged; it may be taken back.
    pub fn stage(&mut self, entry: ProducerEntry) {
        let before = self.put(entry);
        self.staged.push_back(Staged { entry, before });
    }

    /// Learns of an append that is durable, in the order of the log.
    pub fn put(&mut self, entry: ProducerEntry) -> Option<ProducerEntry> {
        match self.entries.entry(
            entry.hash[0],
            |known| known.hash == entry.hash,
            |known| known.hash[0],
        ) {
            Entry::Occupied(mut known) => Some(std::mem::replace(known.get_mut(), entry)),
            Entry::Vacant(place) => {
                place.insert(entry);
                None
            }
        }
    }

    /// The appends below an offset that may be taken back, in the order of the log.
    pub fn unsettled(&self, below: Offset) -> impl Iterator<Item = &ProducerEntry> {
        let entries = self.staged.iter().map(|staged| &staged.entry);
        entries.take_while(move |entry| entry.first < below)
    }

    /// What lies below `visible` will not be taken back.
    pub fn settle(&mut self, visible: Offset) {
        while self.staged.front().is_some_and(|staged| staged.entry.first < visible) {
            self.staged.pop_front();
        }
    }

    /// Takes back the appends from an offset on, which were never written.
    pub fn take_back(&mut self, from: Offset) {
        while let Some(Staged { entry, before }) =
            self.staged.pop_back_if(|staged| staged.entry.first >= from)
        {
            match before {
                Some(before) => drop(self.put(before)),
                None => {
                    let hash = entry.hash;
                    let known = self.entries.find_entry(hash[0], |entry| entry.hash == hash);
                    drop(known.map(|known| known.remove()));
                }
            }
        }
    }

    /// About how much memory it takes.
    pub fn memory_bytes(&self) -> usize {
        self.entries.allocation_size() + self.staged.capacity() * size_of::<Staged>()
    }
}

fn is_forgotten(entry: &ProducerEntry, time_s: u32) -> bool {
    time_s >= entry.time_s.saturating_add(FORGOTTEN_S)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::append::ProducerId;

    fn claim(epoch: u64, seq: u64) -> ProducerClaim {
        let id = ProducerId::parse("p").expect("a name");
        ProducerClaim { id, epoch, seq, scope: OffsetScope::Topic }
    }

    fn entry(epoch: u64, seq: u64, first: u64, time_s: u32) -> ProducerEntry {
        let hash = producer_hash(&claim(0, 0), "a");
        ProducerEntry { hash, epoch, seq, first: Offset::new(first), events: 1, time_s }
    }

    #[test]
    fn sequences_go_up_by_one_and_epochs_fence() {
        let mut producers = Producers::default();
        let hash = producer_hash(&claim(0, 0), "a");
        assert_ne!(hash, producer_hash(&claim(0, 0), "b"), "each topic has its own sequence");
        let judge = |producers: &Producers, epoch, seq, time_s| {
            producers.judge(&hash, &claim(epoch, seq), time_s)
        };
        let gap =
            |expected_seq, given_seq| Err(AppendError::ProducerGap { expected_seq, given_seq });
        assert_eq!(judge(&producers, 3, 0, 0), Ok(Judged::Next));
        assert_eq!(judge(&producers, 3, 1, 0), gap(0, 1));
        producers.stage(entry(3, 0, 10, 0));
        assert_eq!(judge(&producers, 3, 0, 0), Ok(Judged::Duplicate(entry(3, 0, 10, 0))));
        assert_eq!(judge(&producers, 3, 1, 0), Ok(Judged::Next));
        assert_eq!(judge(&producers, 3, 2, 0), gap(1, 2));
        let stale = Err(AppendError::StaleEpoch { epoch: 3, given_epoch: 2 });
        assert_eq!(judge(&producers, 2, 1, 0), stale);
        assert_eq!(judge(&producers, 4, 1, 0), Err(AppendError::EpochStart { given_seq: 1 }));
        assert_eq!(judge(&producers, 4, 0, 0), Ok(Judged::Next));
        assert_eq!(judge(&producers, 2, 0, FORGOTTEN_S), Ok(Judged::Next), "a week of silence");
    }

    #[test]
    fn what_was_never_written_is_taken_back() {
        let mut producers = Producers::default();
        let hash = producer_hash(&claim(0, 0), "a");
        producers.stage(entry(0, 0, 10, 0));
        producers.settle(Offset::new(11));
        producers.stage(entry(0, 1, 11, 0));
        producers.stage(entry(1, 0, 12, 0));
        producers.take_back(Offset::new(12));
        assert_eq!(producers.get(&hash), Some(&entry(0, 1, 11, 0)));
        producers.take_back(Offset::new(5));
        assert_eq!(producers.get(&hash), Some(&entry(0, 0, 10, 0)), "what is durable stays");
    }

    #[test]
    fn a_million_producers_take_at_most_150_mb() {
        let mut producers = Producers::default();
        for number in 0..PRODUCERS_MAX as u64 {
            let hash = hash_name(&number.to_string());
            producers.put(ProducerEntry { hash, ..entry(0, 0, number, 1_000) });
        }
        assert!(producers.memory_bytes() < 150_000_000, "{}", producers.memory_bytes());
        let hash = hash_name("one more");
        assert!(producers.make_room(&hash, 1_000).is_err());
        assert!(producers.make_room(&hash, 1_000 + FORGOTTEN_S).is_ok());
        assert!(producers.is_empty());
    }
}
