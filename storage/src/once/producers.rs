//! How far each producer has come: its epoch, its last sequence, and where that append is.
//!
//! 48 bytes a producer and some 9 of hash table: 58 MB for a million. A producer that was silent for
//! [`FORGOTTEN_S`] counts as never seen.
//!
//! Each has a number, by which segments that are not sealed yet know it too (`index/delta`): it has that
//! number as long as one of them may name it. What such a segment says of it is not known here, where it
//! may have gone on.
//!
//! Invariant: `lasts` has as many places as numbers were given; those of free numbers have no events.

use std::collections::VecDeque;

use super::{
    NameHash, hash_name,
    hashes::{HashNumbers, Hashes},
};
use crate::{
    append::{OffsetScope, ProducerClaim, ProducerPlace},
    error::AppendError,
    fields::{u32_at, u64_at},
    offset::Offset,
    parts::ProducerList,
    pieces::Pieces,
};

mod room;

use room::Silent;

/// A producer that was silent for so long may begin anew: a week, as Durable Streams has it.
pub const FORGOTTEN_S: u32 = 7 * 24 * 3600;
/// The same in milliseconds.
pub const FORGOTTEN_MS: u64 = 1_000 * FORGOTTEN_S as u64;
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
    /// How long an entry of PRODUCERS is (`index/delta`).
    pub(crate) const BYTES: usize = 48;

    /// The entry of PRODUCERS.
    pub(crate) fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let [low, high] = self.hash;
        let numbers = [low, high, self.epoch, self.seq, self.first.get()];
        for (number, to) in numbers.iter().zip(bytes.chunks_exact_mut(8)) {
            to.copy_from_slice(&number.to_le_bytes());
        }
        bytes[40..44].copy_from_slice(&self.events.to_le_bytes());
        bytes[44..].copy_from_slice(&self.time_s.to_le_bytes());
        bytes
    }

    /// What 48 bytes say.
    pub(crate) fn decode(bytes: &[u8]) -> ProducerEntry {
        ProducerEntry {
            hash: [u64_at(bytes, 0), u64_at(bytes, 8)],
            epoch: u64_at(bytes, 16),
            seq: u64_at(bytes, 24),
            first: Offset::new(u64_at(bytes, 32)),
            events: u32_at(bytes, 40),
            time_s: u32_at(bytes, 44),
        }
    }

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
    /// It was accepted before; this is the last one that was and that its answer need rest on.
    Duplicate(ProducerEntry),
}

/// The last append of a producer that has a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NumberedProducer {
    /// Its number in its log.
    pub number: u32,
    /// The append.
    pub entry: ProducerEntry,
}

/// The producers of a log.
#[derive(Debug)]
pub struct Producers {
    numbers: HashNumbers,
    /// By number.
    lasts: Pieces<Last>,
    /// Each append that is not visible yet, oldest first.
    staged: VecDeque<Staged>,
    /// So many are remembered at most.
    producers_max: usize,
    silent: Silent,
}

/// The last append of a producer, but for the hash.
#[derive(Clone, Copy, Debug)]
struct Last {
    epoch: u64,
    seq: u64,
    first: Offset,
    events: u32,
    time_s: u32,
}

const _: () = assert!(size_of::<Last>() == 32);

#[derive(Debug)]
struct Staged {
    producer: NumberedProducer,
    /// What was known before.
    before: Option<Last>,
}

impl Last {
    const NONE: Last = Last { epoch: 0, seq: 0, first: Offset::ZERO, events: 0, time_s: 0 };

    fn of(entry: &ProducerEntry) -> Last {
        let ProducerEntry { hash: _, epoch, seq, first, events, time_s } = *entry;
        Last { epoch, seq, first, events, time_s }
    }

    fn entry(&self, hash: NameHash) -> ProducerEntry {
        let Last { epoch, seq, first, events, time_s } = *self;
        ProducerEntry { hash, epoch, seq, first, events, time_s }
    }

    fn is_forgotten(&self, time_s: u32) -> bool {
        time_s >= self.time_s.saturating_add(FORGOTTEN_S)
    }
}

/// An offset that lies on the border of four bytes: with a number it takes twelve.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Halves([u32; 2]);

impl Halves {
    fn of(offset: Offset) -> Halves {
        let bytes = offset.get().to_be_bytes();
        let half = |at: usize| u32::from_be_bytes(*bytes[at..].first_chunk().expect("8 bytes"));
        Halves([half(0), half(4)])
    }
}

impl Default for Producers {
    fn default() -> Self {
        Producers {
            numbers: HashNumbers::default(),
            lasts: Pieces::default(),
            staged: VecDeque::new(),
            producers_max: PRODUCERS_MAX,
            silent: Silent::default(),
        }
    }
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
        self.numbers.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All, in no order.
    pub fn iter(&self) -> impl Iterator<Item = ProducerEntry> {
        self.numbered().map(|known| known.entry)
    }

    fn numbered(&self) -> impl Iterator<Item = NumberedProducer> {
        let numbered = (0..).zip(self.lasts.iter()).filter(|(_, last)| last.events > 0);
        numbered.map(|(number, last)| NumberedProducer {
            number,
            entry: last.entry(*self.hashes().get(number)),
        })
    }

    /// Those that are not forgotten at a time, ordered by where they last appended.
    pub(crate) fn into_sorted(self, time_s: u32) -> ProducerList<'static> {
        let Producers { numbers, lasts, .. } = self;
        let hashes = numbers.into_hashes();
        let mut sorted = Vec::with_capacity(lasts.len());
        for (number, last) in (0..).zip(lasts.iter()) {
            if last.events > 0 && !last.is_forgotten(time_s) {
                sorted.push((Halves::of(last.first), number));
            }
        }
        sorted.sort_unstable_by(|(left, one), (right, other)| {
            left.cmp(right).then_with(|| hashes.get(*one).cmp(hashes.get(*other)))
        });
        ProducerList::new(sorted.len(), move |place| {
            let (_, number) = sorted[place];
            lasts.get(number).entry(*hashes.get(number))
        })
    }

    /// Their hashes, by number.
    pub(crate) fn hashes(&self) -> &Hashes {
        self.numbers.hashes()
    }

    /// The entry of a producer.
    pub fn get(&self, hash: &NameHash) -> Option<ProducerEntry> {
        let number = self.numbers.find(hash)?;
        Some(self.lasts.get(number).entry(*hash))
    }

    /// Judges a claim at a time; nothing changes.
    pub fn judge(
        &self,
        hash: &NameHash,
        claim: &ProducerClaim,
        time_s: u32,
    ) -> Result<Judged, AppendError> {
        let known = self.get(hash).filter(|entry| !Last::of(entry).is_forgotten(time_s));
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
            Some(known) if given_seq <= known.seq => {
                Ok(Judged::Duplicate(self.repeated(known, given_seq)))
            }
            Some(known) if given_seq == known.seq + 1 => Ok(Judged::Next),
            Some(known) => Err(AppendError::ProducerGap { expected_seq: known.seq + 1, given_seq }),
        }
    }

    /// The append that a repeat of this sequence number rests on: the last one of its producer that is visible, or is not
    /// behind it. One behind it may yet be taken back, and what is repeated is there all the same.
    fn repeated(&self, known: ProducerEntry, seq: u64) -> ProducerEntry {
        let number = self.numbers.find(&known.hash);
        let is_its_own = |staged: &&Staged| Some(staged.producer.number) == number;
        let mut found = known;
        for staged in self.staged.iter().rev().filter(is_its_own) {
            match staged.before.filter(|before| before.epoch == known.epoch) {
                Some(before) if found.seq > seq => found = before.entry(known.hash),
                _ => break,
            }
        }
        found
    }

    /// An append of a producer was staged; it may be taken back.
    pub fn stage(&mut self, entry: ProducerEntry) {
        let (number, before) = self.put_numbered(&entry);
        self.staged.push_back(Staged { producer: NumberedProducer { number, entry }, before });
    }

    /// Learns of an append that is durable, in the order of the log.
    pub fn put(&mut self, entry: ProducerEntry) {
        self.put_numbered(&entry);
    }

    fn put_numbered(&mut self, entry: &ProducerEntry) -> (u32, Option<Last>) {
        if let Some(number) = self.numbers.find(&entry.hash) {
            return (number, Some(self.replace(number, Last::of(entry))));
        }
        let number = self.numbers.add(entry.hash);
        if number as usize == self.lasts.len() {
            self.lasts.push(Last::NONE);
        }
        self.replace(number, Last::of(entry));
        (number, None)
    }

    /// Returns what was known before.
    fn replace(&mut self, number: u32, last: Last) -> Last {
        let before = std::mem::replace(self.lasts.get_mut(number), last);
        self.silent.note(&before, &last);
        before
    }

    fn forget(&mut self, number: u32) {
        self.numbers.remove(number);
        self.replace(number, Last::NONE);
    }

    /// The appends below an offset that may be taken back, in the order of the log.
    pub(crate) fn unsettled(&self, below: Offset) -> impl Iterator<Item = &NumberedProducer> {
        let producers = self.staged.iter().map(|staged| &staged.producer);
        producers.take_while(move |producer| producer.entry.first < below)
    }

    /// What lies below `visible` will not be taken back.
    pub fn settle(&mut self, visible: Offset) {
        while self.staged.front().is_some_and(|staged| staged.producer.entry.first < visible) {
            self.staged.pop_front();
        }
    }

    /// Takes back the appends from an offset on, which were never written.
    pub fn take_back(&mut self, from: Offset) {
        while let Some(Staged { producer, before }) =
            self.staged.pop_back_if(|staged| staged.producer.entry.first >= from)
        {
            match before {
                Some(before) => _ = self.replace(producer.number, before),
                None => self.forget(producer.number),
            }
        }
    }

    /// About how much memory it takes.
    pub fn memory_bytes(&self) -> usize {
        let staged = self.staged.capacity() * size_of::<Staged>();
        self.numbers.memory_bytes() + self.lasts.memory_bytes() + staged
    }
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
    fn a_repeat_rests_on_nothing_behind_it_that_may_be_taken_back() {
        let mut producers = Producers::default();
        let hash = producer_hash(&claim(0, 0), "a");
        let judge = |producers: &Producers, seq| producers.judge(&hash, &claim(1, seq), 0);
        let other = ProducerEntry { hash: producer_hash(&claim(0, 0), "b"), ..entry(1, 0, 9, 0) };
        for (seq, first) in [(0, 10), (1, 11)] {
            producers.stage(entry(1, seq, first, 0));
        }
        producers.settle(Offset::new(12));
        producers.stage(entry(1, 2, 12, 0));
        producers.stage(other);
        producers.stage(entry(1, 3, 13, 0));
        let duplicate = |seq, first| Ok(Judged::Duplicate(entry(1, seq, first, 0)));
        assert_eq!(judge(&producers, 3), duplicate(3, 13));
        assert_eq!(judge(&producers, 2), duplicate(2, 12));
        assert_eq!(judge(&producers, 1), duplicate(1, 11), "it is visible");
        assert_eq!(judge(&producers, 0), duplicate(1, 11), "all that is known of it");
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
        assert_eq!(producers.get(&hash), Some(entry(0, 1, 11, 0)));
        producers.take_back(Offset::new(5));
        assert_eq!(producers.get(&hash), Some(entry(0, 0, 10, 0)), "what is durable stays");
    }
}
