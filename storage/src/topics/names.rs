//! The names of topics, one behind the other in pieces of memory that never move and never change
//! once they are full: whoever shares them reads them on another thread while more are added. Pure.

use std::sync::Arc;

/// How long a piece is.
const PIECE_BYTES: usize = 64 << 10;
const PLACE_BITS: u32 = 48;

/// Where a name lies: its place in 48 bits, and its length, at most 512, in 16.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

/// Names, by place. A clone shares all full pieces.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    full: Vec<Arc<String>>,
    last: String,
}

impl Names {
    /// Adds a name, which is not empty.
    pub fn add(&mut self, name: &str) -> NamePlace {
        assert!(!name.is_empty(), "a topic has a name");
        if self.last.len() + name.len() > PIECE_BYTES {
            // The next one will be as long; the first grows with what is in it.
            let next = String::with_capacity(PIECE_BYTES);
            self.full.push(Arc::new(std::mem::replace(&mut self.last, next)));
        }
        let at = self.full.len() * PIECE_BYTES + self.last.len();
        self.last.push_str(name);
        NamePlace::new(at, name.len())
    }

    /// The name at a place that [`Names::add`] gave, or that of what this was cloned from.
    pub fn get(&self, place: NamePlace) -> &str {
        let (piece, at) = self.find(place);
        &piece[at..at + place.len()]
    }

    /// The same as bytes, which are not looked at.
    pub fn bytes(&self, place: NamePlace) -> &[u8] {
        let (piece, at) = self.find(place);
        &piece.as_bytes()[at..at + place.len()]
    }

    fn find(&self, place: NamePlace) -> (&String, usize) {
        let (piece, at) = (place.at() / PIECE_BYTES, place.at() % PIECE_BYTES);
        (self.full.get(piece).map_or(&self.last, |piece| &**piece), at)
    }

    /// About how much memory it takes.
    pub fn memory_bytes(&self) -> usize {
        self.full.len() * (PIECE_BYTES + size_of::<Arc<String>>()) + self.last.capacity()
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
        let mut places: Vec<_> = (0..1_000).map(|number| names.add(&name(number))).collect();
        let shared = names.clone();
        places.extend((1_000..2_000).map(|number| names.add(&name(number))));
        assert!(names.full.len() > 2 && Arc::strong_count(&names.full[0]) == 2);
        for (number, place) in places.iter().enumerate() {
            assert!(!place.is_none());
            assert_eq!(names.get(*place), name(number));
            assert_eq!(names.bytes(*place), name(number).as_bytes());
            if number < 1_000 {
                assert_eq!(shared.get(*place), name(number));
            }
        }
    }
}
