//! The names of topics, one behind the other in pieces of memory that never move and never change
//! once they are full: whoever shares them reads them on another thread while more are added. Pure.

use std::sync::Arc;

use zerocopy::FromZeros;

use crate::huge_page::{HUGE_PAGE_BYTES, HugePage};

/// How long a piece is.
const PIECE_BYTES: usize = 64 << 10;
/// So many full pieces become one that is a huge page.
const PIECES_OF_A_HUGE_ONE: usize = HUGE_PAGE_BYTES / PIECE_BYTES;
const PLACE_BITS: u32 = 48;

/// Where a name lies: its place in 48 bits, and its length, at most 512, in 16.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromZeros)]
pub(crate) struct NamePlace(u64);

impl NamePlace {
    /// The place of no name.
    pub const NONE: NamePlace = NamePlace(0);

    fn new(at: usize, len: usize) -> NamePlace {
        let len = u16::try_from(len).expect("a topic is at most 512 bytes");
        assert!(at >> PLACE_BITS == 0, "names take less than 2^48 bytes");
        NamePlace((at as u64) | (u64::from(len) << PLACE_BITS))
    }

    /// Whether it is the place of no name.
    pub fn is_none(self) -> bool {
        self == NamePlace::NONE
    }

    fn at(self) -> usize {
        usize::try_from(self.0 & ((1 << PLACE_BITS) - 1)).expect("a place in memory")
    }

    fn len(self) -> usize {
        usize::try_from(self.0 >> PLACE_BITS).expect("16 bits")
    }
}

/// So many pieces as one. The memory lies in the box, not beside the counts of an `Arc`.
#[derive(Debug)]
struct HugePiece(Box<HugePage<[u8; HUGE_PAGE_BYTES]>>);

/// Names, by place. A clone shares all full pieces.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    huge: Vec<Arc<HugePiece>>,
    /// Behind those: fewer than make a huge one.
    full: Vec<Arc<Vec<u8>>>,
    last: Vec<u8>,
}

impl Names {
    /// Adds a name, which is not empty.
    pub fn add(&mut self, name: &str) -> NamePlace {
        assert!(!name.is_empty(), "a topic has a name");
        if self.last.len() + name.len() > PIECE_BYTES {
            // The next one will be as long; the first grows with what is in it.
            let next = Vec::with_capacity(PIECE_BYTES);
            self.full.push(Arc::new(std::mem::replace(&mut self.last, next)));
            if self.full.len() == PIECES_OF_A_HUGE_ONE {
                self.make_huge();
            }
        }
        let piece = self.huge.len() * PIECES_OF_A_HUGE_ONE + self.full.len();
        let at = piece * PIECE_BYTES + self.last.len();
        self.last.extend_from_slice(name.as_bytes());
        NamePlace::new(at, name.len())
    }

    /// Copies the full pieces to a huge one, which has them at the same places.
    fn make_huge(&mut self) {
        let mut page: Box<HugePage<[u8; HUGE_PAGE_BYTES]>> = HugePage::zeroed();
        for (piece, to) in self.full.drain(..).zip(page.0.chunks_mut(PIECE_BYTES)) {
            to[..piece.len()].copy_from_slice(&piece);
        }
        page.collapse_soon();
        self.huge.push(Arc::new(HugePiece(page)));
    }

    /// The name at a place that [`Names::add`] gave, or that of what this was cloned from.
    pub fn get(&self, place: NamePlace) -> &str {
        std::str::from_utf8(self.bytes(place)).expect("a place has the name that was put there")
    }

    /// The same as bytes, which are not looked at.
    pub fn bytes(&self, place: NamePlace) -> &[u8] {
        let (huge, at) = (place.at() / HUGE_PAGE_BYTES, place.at() % HUGE_PAGE_BYTES);
        if let Some(HugePiece(page)) = self.huge.get(huge).map(|huge| &**huge) {
            return &page.0[at..at + place.len()];
        }
        let (piece, at) = (at / PIECE_BYTES, at % PIECE_BYTES);
        let piece = self.full.get(piece).map_or(&self.last, |piece| &**piece);
        &piece[at..at + place.len()]
    }

    /// About how much memory it takes.
    pub fn memory_bytes(&self) -> usize {
        let full = self.full.len() * (PIECE_BYTES + size_of::<Arc<Vec<u8>>>());
        self.huge.len() * HUGE_PAGE_BYTES + full + self.last.capacity()
    }
}

/// Looks at some names, so that they are near when they are read: the processor waits for the memory of
/// many at the same time, and would for each alone if it was read before the next is looked at.
pub(crate) fn look<'a>(names: impl Iterator<Item = &'a [u8]>) {
    let ends = names.map(|name| u64::from(name[0]) + u64::from(name[name.len() - 1]));
    std::hint::black_box(ends.sum::<u64>());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_where_they_were_put_also_in_a_clone() {
        let mut names = Names::default();
        let name = |number: usize| format!("{number}/{}", "é".repeat(number % 250));
        let mut places: Vec<_> = (0..10_000).map(|number| names.add(&name(number))).collect();
        let shared = names.clone();
        places.extend((10_000..20_000).map(|number| names.add(&name(number))));
        assert!(shared.huge.len() == 1 && shared.full.len() > 1);
        assert!(names.huge.len() > 1 && Arc::strong_count(&names.huge[0]) == 2);
        for (number, place) in places.iter().enumerate() {
            assert!(!place.is_none());
            assert_eq!(names.get(*place), name(number));
            assert_eq!(names.bytes(*place), name(number).as_bytes());
            if number < 10_000 {
                assert_eq!(shared.get(*place), name(number));
            }
        }
    }
}
