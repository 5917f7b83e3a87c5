//! Tables that grow piece by piece, so that growing never copies what is there. Pure.

/// Items of a piece; the first piece grows up to it.
const PIECE: usize = 1024;
/// None of the places that there are.
const NONE: u32 = u32::MAX;

/// Items by place, from 0.
#[derive(Debug)]
pub(crate) struct Pieces<T> {
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

/// Places by numbers: 4 bytes for each of 1,024 numbers in a row of which any has one.
#[derive(Debug, Default)]
pub(crate) struct Places {
    pages: Vec<Option<Box<[u32; PIECE]>>>,
}

impl Places {
    pub fn get(&self, number: u32) -> Option<u32> {
        let number = number as usize;
        let place = self.pages.get(number / PIECE)?.as_ref()?[number % PIECE];
        (place != NONE).then_some(place)
    }

    pub fn put(&mut self, number: u32, place: u32) {
        let number = number as usize;
        if self.pages.len() <= number / PIECE {
            self.pages.resize_with(number / PIECE + 1, || None);
        }
        let page = &mut self.pages[number / PIECE];
        page.get_or_insert_with(|| Box::new([NONE; PIECE]))[number % PIECE] = place;
    }

    /// The numbers that have places, with those, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32)> {
        let pages = (0..).step_by(PIECE).zip(&self.pages);
        let pages = pages.filter_map(|(first, page)| Some((first, page.as_ref()?)));
        pages.flat_map(|(first, page)| {
            let numbers = (first..).zip(page.iter().copied());
            numbers.filter(|(_, place)| *place != NONE)
        })
    }

    pub fn memory_bytes(&self) -> usize {
        let pages = self.pages.iter().flatten().count();
        pages * PIECE * size_of::<u32>() + self.pages.capacity() * size_of::<usize>()
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
        places.put(2_000, 5);
        for (number, place) in [(2_000, Some(5)), (1_999, None), (3, None), (1 << 31, None)] {
            assert_eq!(places.get(number), place);
        }
        places.put(7, 6);
        assert_eq!(places.iter().collect::<Vec<_>>(), [(7, 6), (2_000, 5)]);
    }
}
