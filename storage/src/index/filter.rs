//! A Bloom filter over the names of a segment's topics: "not in here" without reading anything.
//!
//! ```text
//! 0         4
//! +---------+------+
//! | hashes  | bits |      bit n is bit n % 8 of byte n / 8
//! +---------+------+
//! ```
//! 10 bits a topic and 7 hashes let through about 1 of 100 names that are not there. The hash is
//! FNV-1a of 64 bits, mixed as MurmurHash3 ends; its halves `a` and `b` give the bits
//! `(a + i * (b | 1)) % bits` for `i` from 0.

use crate::index::IndexError;

const BITS_PER_TOPIC: usize = 10;
const HASHES: u32 = 7;
const HASHES_MAX: u32 = 32;
const BITS_AT: usize = 4;
/// So many names are hashed at the same time.
const LANES: usize = 4;

/// A filter that is made of one name after the other.
pub(crate) struct FilterWriter {
    bytes: Vec<u8>,
}

impl FilterWriter {
    /// Of so many names, none of them yet.
    pub(crate) fn new(topic_count: usize) -> FilterWriter {
        let bits_bytes = (topic_count * BITS_PER_TOPIC).div_ceil(8);
        let mut bytes = vec![0; BITS_AT + bits_bytes];
        bytes[..BITS_AT].copy_from_slice(&HASHES.to_le_bytes());
        FilterWriter { bytes }
    }

    /// Adds some of them: several take hardly longer than one.
    pub(crate) fn add_all(&mut self, names: &[&[u8]]) {
        let (some, rest) = names.as_chunks::<LANES>();
        for names in some {
            hashes(*names).into_iter().for_each(|hash| self.add_hash(hash));
        }
        rest.iter().for_each(|name| self.add_hash(hash(name)));
    }

    fn add_hash(&mut self, hash: u64) {
        let bits = &mut self.bytes[BITS_AT..];
        for bit in bits_of(hash, HASHES, bits.len()) {
            bits[bit / 8] |= 1 << (bit % 8);
        }
    }

    /// The filter's bytes.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// The filter of some names.
#[cfg(test)]
pub(crate) fn encode<'a>(topic_count: usize, names: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut filter = FilterWriter::new(topic_count);
    filter.add_all(&names.collect::<Vec<_>>());
    filter.finish()
}

/// Checks that bytes are a filter.
pub(crate) fn check(bytes: &[u8]) -> Result<(), IndexError> {
    let hashes = bytes.first_chunk().map(|hashes| u32::from_le_bytes(*hashes));
    match hashes {
        Some(1..=HASHES_MAX) => Ok(()),
        _ => Err(IndexError::Content { what: "filter" }),
    }
}

/// Whether a name may be among those of a checked filter; if not, it is not.
pub(crate) fn may_contain(bytes: &[u8], name: &[u8]) -> bool {
    let Some((hashes, bits)) = bytes.split_first_chunk() else { return true };
    let bits_bytes = bits.len();
    bits_bytes > 0
        && bits_of(hash(name), u32::from_le_bytes(*hashes), bits_bytes)
            .all(|bit| bits[bit / 8] & (1 << (bit % 8)) != 0)
}

fn bits_of(hash: u64, hashes: u32, bits_bytes: usize) -> impl Iterator<Item = usize> {
    let bit_count = bits_bytes as u64 * 8;
    // Two divisions instead of one a bit: none of the sums wraps.
    let (first, step) = (hash & u64::from(u32::MAX), (hash >> 32) | 1);
    let (mut bit, step) = (first % bit_count, step % bit_count);
    (0..hashes).map(move |_| {
        let this = bit;
        bit += step;
        if bit >= bit_count {
            bit -= bit_count;
        }
        usize::try_from(this).expect("below the number of bits")
    })
}

fn hash(name: &[u8]) -> u64 {
    let [hash] = hashes([name]);
    hash
}

/// Each is a chain of multiplications that wait for one another; those of several names do not.
fn hashes<const N: usize>(names: [&[u8]; N]) -> [u64; N] {
    let mut hashes = [0xcbf2_9ce4_8422_2325_u64; N];
    let step = |hash: &mut u64, byte: u8| {
        *hash = (*hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    };
    let all_have = names.iter().map(|name| name.len()).min().unwrap_or(0);
    let heads = names.map(|name| &name[..all_have]);
    for at in 0..all_have {
        hashes.iter_mut().zip(heads).for_each(|(hash, head)| step(hash, head[at]));
    }
    for (hash, name) in hashes.iter_mut().zip(names) {
        name[all_have..].iter().for_each(|byte| step(hash, *byte));
    }
    hashes.map(mix)
}

fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_let_through_and_few_others() {
        let name = |number: usize| format!("rooms/{number}/messages").into_bytes();
        let names: Vec<_> = (0..10_000).map(name).collect();
        let filter = encode(names.len(), names.iter().map(Vec::as_slice));
        assert_eq!(check(&filter), Ok(()));
        assert!(names.iter().all(|name| may_contain(&filter, name)));
        let others = (10_000..110_000).filter(|other| may_contain(&filter, &name(*other))).count();
        assert!(others < 1_500, "{others} of 100000 others");
    }

    #[test]
    fn bits_are_those_of_the_format() {
        for (number, bits_bytes) in (0..1_000).zip([1, 2, 3, 125, 1_250_001].into_iter().cycle()) {
            let name = format!("rooms/{number}").into_bytes();
            let hash = hash(&name);
            let bits: Vec<_> =
                bits_of(hash, HASHES_MAX, bits_bytes).map(|bit| bit as u64).collect();
            let (first, step) = (hash & 0xffff_ffff, (hash >> 32) | 1);
            let of_format = (0..32).map(|turn| (first + turn * step) % (bits_bytes as u64 * 8));
            assert_eq!(bits, of_format.collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_filter_of_nothing_lets_nothing_through() {
        let filter = encode(0, std::iter::empty());
        assert_eq!(check(&filter), Ok(()));
        assert!(!may_contain(&filter, b"a"));
    }

    #[test]
    fn the_hash_is_part_of_the_format() {
        assert_eq!(hash(b"rooms/42/messages"), 0x8d60b0c5d7598761);
    }

    #[test]
    fn hashes_of_several_names_are_those_of_each() {
        let names: Vec<_> = (0..40).map(|number| "abcd/".repeat(number * 7 % 40)).collect();
        for names in names.windows(LANES) {
            let names: [&[u8]; LANES] = std::array::from_fn(|lane| names[lane].as_bytes());
            assert_eq!(hashes(names), names.map(hash));
        }
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for bytes in [&[][..], &[7, 0, 0], &[0, 0, 0, 0], &[33, 0, 0, 0]] {
            assert!(check(bytes).is_err(), "{bytes:?}");
        }
    }
}
