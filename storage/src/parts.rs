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
    Stored(StoredPart),
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

/// What is read from another file while it is written.
pub(crate) struct StoredPart {
    bytes: u64,
    /// In files with this seed.
    checksum: (Seed, u32),
    read: Box<dyn Fn(Take<'_>) -> io::Result<()>>,
}

/// Who takes bytes, piece by piece.
type Take<'a> = &'a mut dyn FnMut(&[u8]) -> io::Result<()>;

impl StoredPart {
    /// So many bytes, with this checksum in files with that seed; `read` hands them over.
    pub fn new(
        bytes: u64,
        checksum: (Seed, u32),
        read: impl Fn(Take<'_>) -> io::Result<()> + 'static,
    ) -> StoredPart {
        StoredPart { bytes, checksum, read: Box::new(read) }
    }

    /// Hands over its bytes; it fails where they are not those that were there when it was made.
    fn take_pieces(&self, take: Take<'_>) -> io::Result<()> {
        let (seed, checksum) = self.checksum;
        let mut hasher = seed.hasher();
        (self.read)(&mut |piece| {
            hasher.update(piece);
            take(piece)
        })?;
        match hasher.finalize() == checksum {
            true => Ok(()),
            false => Err(io::Error::new(io::ErrorKind::InvalidData, "the file reads differently")),
        }
    }
}

impl Part<'_> {
    /// Its length.
    pub fn len(&self) -> u64 {
        match self {
            Part::Bytes(bytes) => bytes.len() as u64,
            Part::Producers(list) => (list.len * ProducerEntry::BYTES) as u64,
            Part::Stored(stored) => stored.bytes,
        }
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Hands over its bytes, piece by piece.
    pub fn take_pieces(&self, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let list = match self {
            Part::Bytes(bytes) => return take(bytes),
            Part::Producers(list) => list,
            Part::Stored(stored) => return stored.take_pieces(&mut take),
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
        if let Part::Stored(stored) = self {
            assert!(stored.checksum.0 == seed, "it was made for that file");
            return stored.checksum.1;
        }
        let mut hasher = seed.hasher();
        let taken = self.take_pieces(|piece| {
            hasher.update(piece);
            Ok(())
        });
        taken.expect("it is in memory");
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

    /// All of them, where none is stored in a file.
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

    #[test]
    fn what_reads_differently_when_it_is_written_is_refused() {
        let seed = Seed::of(&Incarnation::new([7; 16]));
        for (now, is_same) in [(b"abc", true), (b"abd", false)] {
            let stored = StoredPart::new(3, (seed, seed.crc(b"abc")), |take| take(now));
            let part = Part::Stored(stored);
            assert_eq!((part.len(), part.crc(seed)), (3, seed.crc(b"abc")));
            let mut taken = Vec::new();
            let done = part.take_pieces(|piece| {
                taken.extend_from_slice(piece);
                Ok(())
            });
            assert_eq!((done.is_ok(), &taken[..]), (is_same, &now[..]));
        }
    }
}
