//! Tables that grow piece by piece, so that growing never copies what is there, and lists in them.

use crate::topic::TopicNumber;

/// Items of a piece; the first piece grows up to it.
const PIECE: usize = 1024;
/// None of the places that there are.
const NONE: u32 = u32::MAX;

/// Items by place, from 0.
#[derive(Debug)]
pub(super) struct Pieces<T> {
    pieces: Vec<Vec<T>>,
}

impl<T> Default for Pieces<T> {
    fn default() -> Self {
        Pieces { pieces: Vec::new() }
    }
}

impl<T> Pieces<T> {
    pub fn len(&self) -> usize {
        let full = self.pieces.len().saturating_sub(1) * PIECE;
        full + self.pieces.last().map_or(0, Vec::len)
    }

    pub fn get(&self, place: u32) -> &T {
        &self.pieces[place as usize / PIECE][place as usize % PIECE]
    }

    pub fn get_mut(&mut self, place: u32) -> &mut T {
        &mut self.pieces[place as usize / PIECE][place as usize % PIECE]
    }

    /// Adds an item; returns its place.
    pub fn push(&mut self, item: T) -> u32 {
        let place = u32::try_from(self.len()).ok().filter(|place| *place < NONE);
        match self.pieces.last_mut() {
            Some(last) if last.len() < PIECE => last.push(item),
            last => {
                let room = if last.is_some() { PIECE } else { 1 };
                let mut piece = Vec::with_capacity(room);
                piece.push(item);
                self.pieces.push(piece);
            }
        }
        place.expect("fewer than 2^32 - 1 items")
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.pieces.iter().flatten()
    }

    pub fn memory_bytes(&self) -> usize {
        let items: usize = self.pieces.iter().map(Vec::capacity).sum();
        items * size_of::<T>() + self.pieces.capacity() * size_of::<Vec<T>>()
    }
}

/// Places by the numbers of topics: 4 bytes for each of 1,024 numbers in a row of which any has one.
#[derive(Debug, Default)]
pub(super) struct Places {
    pages: Vec<Option<Box<[u32; PIECE]>>>,
}

impl Places {
    pub fn get(&self, number: TopicNumber) -> Option<u32> {
        let number = number.get() as usize;
        let place = self.pages.get(number / PIECE)?.as_ref()?[number % PIECE];
        (place != NONE).then_some(place)
    }

    pub fn put(&mut self, number: TopicNumber, place: u32) {
        let number = number.get() as usize;
        if self.pages.len() <= number / PIECE {
            self.pages.resize_with(number / PIECE + 1, || None);
        }
        let page = &mut self.pages[number / PIECE];
        page.get_or_insert_with(|| Box::new([NONE; PIECE]))[number % PIECE] = place;
    }

    pub fn memory_bytes(&self) -> usize {
        let pages = self.pages.iter().flatten().count();
        pages * PIECE * size_of::<u32>() + self.pages.capacity() * size_of::<usize>()
    }
}

const LINK_BYTES: u32 = 12;

/// Bytes that grow at their end, many at the same time.
#[derive(Debug, Default)]
pub(super) struct Chains {
    links: Pieces<Link>,
}

#[derive(Debug)]
struct Link {
    bytes: [u8; LINK_BYTES as usize],
    /// The next link; of the last one, how many bytes it has, from [`NONE`] down.
    next: u32,
}

const _: () = assert!(size_of::<Link>() == 16);

impl Link {
    /// How many bytes it has, if it is the last.
    fn used(&self) -> Option<u32> {
        let used = NONE - self.next;
        (used <= LINK_BYTES).then_some(used)
    }
}

/// Where some bytes in [`Chains`] begin and end.
#[derive(Debug)]
pub(super) struct Chain {
    first: u32,
    last: u32,
}

impl Default for Chain {
    fn default() -> Self {
        Chain { first: NONE, last: NONE }
    }
}

impl Chains {
    /// Puts bytes behind those of a chain.
    pub fn extend(&mut self, chain: &mut Chain, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let has_last = chain.last != NONE;
            let used = if has_last { self.links.get(chain.last).used() } else { Some(LINK_BYTES) };
            let mut used = used.expect("it is the last");
            if used == LINK_BYTES {
                let link = self.links.push(Link { bytes: Default::default(), next: NONE });
                assert!(link < NONE - LINK_BYTES, "fewer than 2^32 - 13 links");
                match has_last {
                    true => self.links.get_mut(chain.last).next = link,
                    false => chain.first = link,
                }
                (chain.last, used) = (link, 0);
            }
            let count = bytes.len().min((LINK_BYTES - used) as usize);
            let (fits, rest) = bytes.split_at(count);
            let link = self.links.get_mut(chain.last);
            link.bytes[used as usize..used as usize + count].copy_from_slice(fits);
            link.next = NONE - used - u32::try_from(count).expect("at most a link's");
            bytes = rest;
        }
    }

    /// Looks at where a chain ends, so that it is near when it grows.
    pub fn look(&self, chain: &Chain) -> u32 {
        if chain.last == NONE { 0 } else { self.links.get(chain.last).next }
    }

    /// Looks at where a chain begins, so that it is near when it is read.
    pub fn look_first(&self, chain: &Chain) -> u32 {
        if chain.first == NONE { 0 } else { self.links.get(chain.first).next }
    }

    /// Appends the bytes of a chain to `out`.
    pub fn read(&self, chain: &Chain, out: &mut Vec<u8>) {
        let mut at = chain.first;
        while at != NONE {
            let link = self.links.get(at);
            let used = link.used();
            out.extend_from_slice(&link.bytes[..used.unwrap_or(LINK_BYTES) as usize]);
            at = if used.is_some() { NONE } else { link.next };
        }
    }

    pub fn memory_bytes(&self) -> usize {
        self.links.memory_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_keep_their_places() {
        let mut pieces = Pieces::default();
        for item in 0..5_000_u32 {
            assert_eq!(pieces.push(item), item);
        }
        *pieces.get_mut(1_024) = 7;
        assert_eq!((pieces.len(), *pieces.get(1_024), *pieces.get(4_999)), (5_000, 7, 4_999));
        assert_eq!(pieces.iter().count(), 5_000);
        assert!(pieces.memory_bytes() < 22_000, "{}", pieces.memory_bytes());
    }

    #[test]
    fn numbers_that_were_never_put_have_no_place() {
        let mut places = Places::default();
        places.put(TopicNumber::new(2_000), 5);
        for (number, place) in [(2_000, Some(5)), (1_999, None), (3, None), (1 << 31, None)] {
            assert_eq!(places.get(TopicNumber::new(number)), place);
        }
    }

    #[test]
    fn chains_that_grow_in_turn_are_read_whole() {
        let mut chains = Chains::default();
        let mut all: Vec<(Chain, Vec<u8>)> = Vec::new();
        all.resize_with(50, Default::default);
        for turn in 0..2_000_usize {
            let (chain, bytes) = &mut all[turn * 7 % 50];
            let more: Vec<u8> = (0..turn % 31).map(|byte| u8::try_from(byte).unwrap()).collect();
            chains.extend(chain, &more);
            bytes.extend(more);
        }
        for (chain, bytes) in &all {
            let mut read = Vec::new();
            chains.read(chain, &mut read);
            assert_eq!(&read, bytes);
        }
    }
}
