//! Numbers by hashes: a hash table of which a search, an insertion and a removal touch one line of the
//! processor's caches, and all the same.
//!
//! ```text
//! bucket, one line:   0 tags, 10 x u16, of which 0 is a free slot   20 beyond u32   24 numbers, 10 x u32
//! hash:               its upper 30 bits say the home, a bucket; the lowest 16 of these are the tag (of 0: 1)
//! ```
//! Where there are 2^14 buckets or more, bucket and tag say all 30 bits, and no others are ever used: an item moves to a
//! larger table without a look at what it was the hash of, which lies far away ([`LineTable::hashes_in`]).
//!
//! An item lies in its home or, if that was full, in the next bucket that was not. `beyond` of a bucket
//! counts those that have found it full and lie behind it: a search ends where there is none, and
//! removal leaves nothing behind. Where as many are there as were expected, a bucket has 6.2 on average,
//! 1 of 14 has found its home full, and an item takes 10.4 bytes.
//!
//! What a table costs is memory that is far: of a million each is in another page, and to go there takes
//! longer than anything else that an append does. Tried, and dearer by `own_code` of the bench
//! `group_commit`, or no better:
//!
//! - `hashbrown`, which was here before, has tags apart: two lines for an insertion and for a removal. 7 bits of
//!   tag and groups of 16 send 6 of 100 searches to a number and to the entry that it stands for, in vain.
//! - All in the order of hashes (linear probing): the processor foresees no end of loops that move items, and
//!   begins nothing that comes behind them. A bucket takes the same few instructions whatever is in it.
//! - Tags apart in 3 MB, 30 to a line, which are nearer to search: what follows is farther.
//! - Two lines a bucket, so that 1 of 70 finds its home full.
//!
//! Whoever can choose hashes can fill a bucket and those behind it, and so make the table a list.
//! Hashes should be mixed with a secret.
//!
//! Invariants: from an item's home to the bucket before its own, all buckets count it in `beyond`, which
//! counts no other; there are at most [`ITEMS_PER_BUCKET_MAX`] items a bucket on average.

use std::ops::Range;

use zerocopy::FromZeros;

use crate::prefetch::prefetch;

mod buckets;

use buckets::Buckets;

const SLOTS: usize = 10;
/// With so many on average, 1 of 7 items has found its home full: it has to grow.
const ITEMS_PER_BUCKET_MAX: usize = 7;
/// What is expected has 6.2 a bucket: 31 in 5.
const ITEMS_OF_A_STEP: usize = 31;
const BUCKETS_OF_A_STEP: usize = 5;
const FREE: u16 = 0;
/// So many bits of a hash are not used.
const UNUSED_BITS: u32 = 34;
const USED_BITS: u32 = 64 - UNUSED_BITS;

/// A table.
#[derive(Debug)]
pub(crate) struct LineTable {
    buckets: Buckets,
    items: usize,
    /// So many are expected.
    items_expected: usize,
}

#[derive(Clone, Debug, FromZeros)]
#[repr(C, align(64))]
struct Bucket {
    tags: [u16; SLOTS],
    beyond: u32,
    numbers: [u32; SLOTS],
}

const _: () = assert!(size_of::<Bucket>() == 64);

impl Bucket {
    const EMPTY: Bucket = Bucket { tags: [FREE; SLOTS], beyond: 0, numbers: [0; SLOTS] };

    /// The slots that have a tag, as bits.
    #[inline]
    fn slots_with(&self, tag: u16) -> u32 {
        let mut slots = 0;
        for (slot, there) in self.tags.iter().enumerate() {
            slots |= u32::from(*there == tag) << slot;
        }
        slots
    }
}

fn tag_of(hash: u64) -> u16 {
    let [low, high, ..] = (hash >> UNUSED_BITS).to_le_bytes();
    u16::from_le_bytes([low, high]).max(FREE + 1)
}

impl LineTable {
    /// Without items, and without memory until it is [`LineTable::grown`].
    pub fn new(items_expected: usize) -> LineTable {
        LineTable { buckets: Buckets::new(0), items: 0, items_expected }
    }

    /// The same where memory matters more: it is full with so many, and has no room for more.
    pub fn full_with(items_max: usize) -> LineTable {
        let buckets = items_max.div_ceil(ITEMS_PER_BUCKET_MAX);
        LineTable::new(buckets.div_ceil(BUCKETS_OF_A_STEP) * ITEMS_OF_A_STEP)
    }

    /// Whether it takes no more items.
    pub fn is_full(&self) -> bool {
        self.items >= self.buckets.len() * ITEMS_PER_BUCKET_MAX
    }

    /// A larger one that has no items yet: it does not know their hashes.
    ///
    /// What is expected is reached by doubling, and passed in steps of a quarter.
    pub fn grown(&self) -> LineTable {
        let (len, items_expected) = (self.buckets.len(), self.items_expected);
        let mut buckets = items_expected / ITEMS_OF_A_STEP * BUCKETS_OF_A_STEP + 1;
        if len >= buckets {
            buckets = len + len.div_ceil(4);
        }
        while buckets > 1 && buckets.div_ceil(2) > len {
            buckets = buckets.div_ceil(2);
        }
        LineTable { buckets: Buckets::new(buckets), items: 0, items_expected }
    }

    fn home(&self, hash: u64) -> usize {
        let home = ((hash >> UNUSED_BITS) * self.buckets.len() as u64) >> USED_BITS;
        usize::try_from(home).expect("less than the number of buckets")
    }

    fn next(&self, at: usize) -> usize {
        if at + 1 == self.buckets.len() { 0 } else { at + 1 }
    }

    /// The bucket and the slot of an item with a hash that is the one. Some with other hashes are asked
    /// after too.
    fn place(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<(usize, usize)> {
        let tag = tag_of(hash);
        let home = self.home(hash);
        let (mut at, mut bucket) = (home, self.buckets.get(home)?);
        loop {
            let mut slots = bucket.slots_with(tag);
            while slots != 0 {
                let slot = slots.trailing_zeros() as usize;
                if is_it(bucket.numbers[slot]) {
                    return Some((at, slot));
                }
                slots &= slots - 1;
            }
            if bucket.beyond == 0 {
                return None;
            }
            at = self.next(at);
            // Of few buckets each can have items behind it, those of the one in the other.
            if at == home {
                return None;
            }
            bucket = self.buckets.at(at);
        }
    }

    /// The number of an item with a hash that is the one; `is_it` knows those with other hashes too.
    pub fn find(&self, hash: u64, is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        self.place(hash, is_it).map(|(at, slot)| self.buckets.at(at).numbers[slot])
    }

    /// Fetches where an item with a hash is or comes, so that it is near when something is done with it.
    pub fn prefetch(&self, hash: u64) {
        if let Some(bucket) = self.buckets.get(self.home(hash)) {
            prefetch(bucket);
        }
    }

    /// Adds an item in the place of one with the same hash that is the same; returns that one's number.
    /// `is_same` knows those with other hashes too.
    ///
    /// # Panics
    ///
    /// If it is full.
    pub fn put(&mut self, hash: u64, number: u32, is_same: impl FnMut(u32) -> bool) -> Option<u32> {
        if let Some((at, slot)) = self.place(hash, is_same) {
            return Some(std::mem::replace(&mut self.buckets.at_mut(at).numbers[slot], number));
        }
        assert!(!self.is_full(), "a table with room");
        self.items += 1;
        let mut at = self.home(hash);
        loop {
            let bucket = self.buckets.at_mut(at);
            let free = bucket.slots_with(FREE);
            if free != 0 {
                let slot = free.trailing_zeros() as usize;
                (bucket.tags[slot], bucket.numbers[slot]) = (tag_of(hash), number);
                return None;
            }
            bucket.beyond += 1;
            at = self.next(at);
        }
    }

    /// Gives an item another number; returns whether there is that item.
    pub fn renumber(&mut self, hash: u64, number: u32, new_number: u32) -> bool {
        let place = self.place(hash, |there| there == number);
        if let Some((at, slot)) = place {
            self.buckets.at_mut(at).numbers[slot] = new_number;
        }
        place.is_some()
    }

    /// Removes an item; returns whether there was that item.
    pub fn remove(&mut self, hash: u64, number: u32) -> bool {
        let Some((end, slot)) = self.place(hash, |there| there == number) else { return false };
        self.items -= 1;
        self.buckets.at_mut(end).tags[slot] = FREE;
        let mut at = self.home(hash);
        while at != end {
            self.buckets.at_mut(at).beyond -= 1;
            at = self.next(at);
        }
        true
    }

    /// It has all the items that it was made for: its memory becomes huge pages, if it is much.
    pub fn collapse_soon(&self) {
        self.buckets.collapse_soon();
    }

    /// How many buckets there are.
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// The numbers of the items in some buckets.
    pub fn items_in(&self, buckets: Range<usize>) -> impl Iterator<Item = u32> {
        buckets.flat_map(|at| {
            let bucket = self.buckets.at(at);
            (0..SLOTS).filter(|slot| bucket.tags[*slot] != FREE).map(|slot| bucket.numbers[slot])
        })
    }

    /// The same with their hashes (as far as these are used) where the table says them.
    pub fn hashes_in(&self, buckets: Range<usize>) -> impl Iterator<Item = (u32, Option<u64>)> {
        let is_large = self.buckets.len() >= 1 << (USED_BITS - u16::BITS);
        buckets.flat_map(move |at| {
            let bucket = self.buckets.at(at);
            // The smallest of which this is the home: there are at most 2^16 of them, each with another tag.
            let begin = ((at as u64) << USED_BITS).div_ceil(self.buckets.len() as u64);
            let before = if at == 0 { self.buckets.len() - 1 } else { at - 1 };
            // Else another may be the home of some.
            let is_home = self.buckets.at(before).beyond == 0;
            let hash = move |tag: u16| {
                let used = begin + (u64::from(tag).wrapping_sub(begin) & u64::from(u16::MAX));
                // A tag of 1 stands for 0 as well.
                (is_large && is_home && tag > FREE + 1).then_some(used << UNUSED_BITS)
            };
            let slots = (0..SLOTS).filter(|slot| bucket.tags[*slot] != FREE);
            slots.map(move |slot| (bucket.numbers[slot], hash(bucket.tags[slot])))
        })
    }

    /// How much memory it takes.
    pub fn memory_bytes(&self) -> usize {
        self.buckets.memory_bytes()
    }
}

#[cfg(test)]
mod tests;
