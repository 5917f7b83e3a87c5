//! The bytes of a file that is written whole, some of which are only made while they are written: what a
//! million producers come to is never in memory twice. Pure but for who takes the bytes.

use std::{borrow::Cow, io};

use crate::{frame::Seed, once::ProducerEntry};

/// Entries of PRODUCERS that are made at the same time: 48 KiB of them.
const AT_ONCE: usize = 1024;

/// A part of a file.
pub(crate) enum Part<'a> {
    Bytes(Cow<'a, [u8]>),
    Producers(ProducerList<'a>),
}

/// The entries of PRODUCERS, in their order.
pub(crate) struct ProducerList<'a> {
    len: usize,
    entry_at: Box<dyn Fn(usize) -> ProducerEntry + 'a>,
}

impl<'a> ProducerList<'a> {
    /// So many; `entry_at` knows each by its place.
    pub fn new(len: usize, entry_at: impl Fn(usize) -> ProducerEntry + 'a) -> ProducerList<'a> {
        ProducerList { len, entry_at: Box::new(entry_at) }
    }

    fn iter(&self) -> impl Iterator<Item = ProducerEntry> {
        (0..self.len).map(|place| (self.entry_at)(place))
    }
}

impl Part<'_> {
    /// Its length.
    pub fn len(&self) -> u64 {
        match self {
            Part::Bytes(bytes) => bytes.len() as u64,
            Part::Producers(list) => (list.len * ProducerEntry::BYTES) as u64,
        }
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Hands over its bytes, piece by piece.
    pub fn take_pieces<E>(&self, mut take: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let list = match self {
            Part::Bytes(bytes) => return take(bytes),
            Part::Producers(list) => list,
        };
        let mut entries = list.iter().peekable();
        let mut bytes = Vec::with_capacity(AT_ONCE.min(list.len) * ProducerEntry::BYTES);
        while entries.peek().is_some() {
            bytes.clear();
            entries.by_ref().take(AT_ONCE).for_each(|entry| bytes.extend(entry.encode()));
            take(&bytes)?;
        }
        Ok(())
    }

    /// Its checksum in files with this seed.
    pub fn crc(&self, seed: Seed) -> u32 {
        let mut hasher = seed.hasher();
        let taken = self.take_pieces(|piece| {
            hasher.update(piece);
            Ok::<(), std::convert::Infallible>(())
        });
        let Ok(()) = taken;
        hasher.finalize()
    }
}

impl From<Vec<u8>> for Part<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Part::Bytes(bytes.into())
    }
}

impl<'a> From<&'a [u8]> for Part<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Part::Bytes(bytes.into())
    }
}

/// The parts of a file, one behind the other.
pub(crate) struct Parts<'a>(pub Vec<Part<'a>>);

impl From<Vec<u8>> for Parts<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Parts(vec![bytes.into()])
    }
}

impl<'a> From<&'a [u8]> for Parts<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Parts(vec![bytes.into()])
    }
}

impl Parts<'_> {
    /// The length of the file.
    pub fn len(&self) -> u64 {
        self.0.iter().map(Part::len).sum()
    }

    /// Hands over the bytes of the file, piece by piece.
    pub fn take_pieces(&self, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        self.0.iter().try_for_each(|part| part.take_pieces(&mut take))
    }

    /// All of them.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(usize::try_from(self.len()).unwrap_or(0));
        let taken = self.take_pieces(|piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        });
        taken.expect("memory takes all");
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{index::delta::encode_producers, offset::Offset, segment::Incarnation};

    #[test]
    fn what_is_made_when_it_is_taken_is_what_would_have_been_made_before() {
        let entry = |number: usize| ProducerEntry {
            hash: [number as u64, 7],
            epoch: 8,
            seq: 9,
            first: Offset::new(number as u64),
            events: 10,
            time_s: 11,
        };
        let seed = Seed::of(&Incarnation::new([7; 16]));
        for len in [0, 1, 1_023, 1_024, 1_025, 5_000] {
            let list = Part::Producers(ProducerList::new(len, entry));
            let bytes = encode_producers((0..len).map(entry));
            assert_eq!((list.len(), list.is_empty()), (bytes.len() as u64, len == 0));
            assert_eq!(list.crc(seed), seed.crc(&bytes));
            let head = b"head".to_vec();
            let file = Parts(vec![head.clone().into(), list, Part::from(&b"end"[..])]);
            assert_eq!(file.len(), bytes.len() as u64 + 7);
            assert_eq!(file.to_vec(), [&head[..], &bytes, b"end"].concat());
        }
    }
}
