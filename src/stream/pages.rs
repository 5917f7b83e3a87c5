//! Parts of the log that a view's laggards have read, encoded: a herd that comes back at once, each
//! with a cursor of its own, shares them.
//!
//! ```text
//!   offsets  ---[ page: chunk  chunk ]--[ page, nothing matched ]------[ page: chunk ]--->
//!               ^ start              ^ end
//! ```
//! A page covers the offsets from its start to its end: each event of the view in between is in one of
//! its chunks. Pages may overlap where readers began at different places; each is whole by itself, so
//! that it makes no difference which one serves a reader.

use std::collections::BTreeMap;
use std::rc::Rc;

use strandline_storage::offset::Offset;

use super::chunk::Chunk;

/// What a page costs beside its chunks, about.
const PAGE_COST_BYTES: usize = 128;

/// How many pages before a place are looked at for one that covers it: they begin in the order of
/// offsets, but end in any.
const LOOK_BACK: usize = 4;

/// A part of the log as a view's subscribers get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// Everything from its start up to here has been considered.
    pub(super) end: Offset,
    /// In offset order.
    pub(super) chunks: Rc<[Chunk]>,
    /// What is not in it, though it was to be.
    pub(super) hidden: Option<Hidden>,
}

/// Events that readers would have got, and that a deletion or trim has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hidden {
    /// The first of them.
    pub first: Offset,
    /// And the last.
    pub last: Offset,
    /// The last event of the log that has deleted any of them.
    pub said_at: Offset,
}

impl Hidden {
    /// These and others behind them.
    #[must_use]
    pub fn and(self, more: Hidden) -> Hidden {
        Hidden {
            first: self.first.min(more.first),
            last: self.last.max(more.last),
            said_at: self.said_at.max(more.said_at),
        }
    }
}

impl Page {
    /// The first event that it holds for a subscriber at `next`, or `next` if that stands inside a chunk.
    pub(super) fn next_event(&self, next: Offset) -> Option<Offset> {
        let chunk = self.chunks.iter().find(|chunk| chunk.end > next)?;
        Some(chunk.start.max(next))
    }

    /// The memory that it holds, about.
    pub(super) fn bytes(&self) -> usize {
        let chunks: usize = self.chunks.iter().map(Chunk::held_bytes).sum();
        chunks + size_of_val(&*self.chunks) + PAGE_COST_BYTES
    }
}

/// What pages have for a subscriber that has considered everything below an offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PagePlace {
    /// A page covers it.
    Page(Page),
    /// It stands inside a chunk that cannot be divided: read the log up to this offset.
    Indivisible(Offset),
    /// None does; one begins at this offset, if any comes behind.
    Missing(Option<Offset>),
}

/// The pages of a view.
#[derive(Debug, Default)]
pub(super) struct Pages {
    by_start: BTreeMap<Offset, Kept>,
}

#[derive(Debug)]
struct Kept {
    /// Another page may come to begin where this one does.
    number: u64,
    page: Page,
}

impl Pages {
    /// Where a subscriber at `next` goes on.
    pub(super) fn place_of(&self, next: Offset) -> PagePlace {
        let mut place = None;
        for (_, Kept { page, .. }) in self.by_start.range(..=next).rev().take(LOOK_BACK) {
            if page.end <= next {
                continue;
            }
            let first = page.chunks.iter().find(|chunk| chunk.end > next);
            match first {
                Some(chunk) if chunk.position_of(next).is_none() => {
                    place.get_or_insert(PagePlace::Indivisible(chunk.end));
                }
                _ => return PagePlace::Page(page.clone()),
            }
        }
        place.unwrap_or_else(|| {
            let behind = self.by_start.range(next..).next();
            PagePlace::Missing(behind.map(|(start, _)| *start))
        })
    }

    /// Adds a page that begins at `start`, with a number of its own; returns the bytes of the one it replaces.
    pub(super) fn insert(&mut self, start: Offset, number: u64, page: Page) -> usize {
        assert!(start < page.end, "a page covers something");
        self.by_start
            .insert(start, Kept { number, page })
            .map_or(0, |replaced| replaced.page.bytes())
    }

    /// Lets the page of this number go that begins at `start`; returns its bytes, 0 if it has gone.
    pub(super) fn remove(&mut self, start: Offset, number: u64) -> usize {
        if !self.holds(start, number) {
            return 0;
        }
        self.by_start.remove(&start).map_or(0, |kept| kept.page.bytes())
    }

    /// Lets the pages go that have nothing from `next` on; returns their bytes.
    pub(super) fn remove_before(&mut self, next: Offset) -> usize {
        let before = self.by_start.range(..next).filter(|(_, kept)| kept.page.end <= next);
        let starts: Vec<Offset> = before.map(|(start, _)| *start).collect();
        let removed = starts.iter().filter_map(|start| self.by_start.remove(start));
        removed.map(|kept| kept.page.bytes()).sum()
    }

    /// Whether the page of this number that begins at `start` is there.
    pub(super) fn holds(&self, start: Offset, number: u64) -> bool {
        self.by_start.get(&start).is_some_and(|kept| kept.number == number)
    }

    /// Whether a page begins there.
    #[cfg(test)]
    pub(super) fn begins_at(&self, start: Offset) -> bool {
        self.by_start.contains_key(&start)
    }

    /// What all of them hold, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.by_start.values().map(|kept| kept.page.bytes()).sum()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn offset(offset: u64) -> Offset {
        Offset::new(offset)
    }

    fn page(end: u64, chunks: &[(u64, u64)]) -> Page {
        let chunk = |(start, end): &(u64, u64)| {
            Chunk::whole(offset(*start), offset(*end), Bytes::from_static(b"1234567890"))
        };
        Page { end: offset(end), chunks: chunks.iter().map(chunk).collect(), hidden: None }
    }

    #[test]
    fn a_reader_is_served_by_any_page_that_covers_its_place() {
        let mut pages = Pages::default();
        let (long, short) = (page(100, &[(10, 20), (50, 90)]), page(32, &[]));
        assert_eq!(pages.insert(offset(10), 1, long.clone()), 0);
        assert_eq!(pages.insert(offset(30), 1, short.clone()), 0);
        assert_eq!(pages.place_of(offset(10)), PagePlace::Page(long.clone()));
        assert_eq!(pages.place_of(offset(20)), PagePlace::Page(long.clone()));
        assert_eq!(pages.place_of(offset(31)), PagePlace::Page(short));
        assert_eq!(pages.place_of(offset(32)), PagePlace::Page(long.clone()));
        assert_eq!(pages.place_of(offset(95)), PagePlace::Page(long));
        assert_eq!(pages.place_of(offset(15)), PagePlace::Indivisible(offset(20)));
        assert_eq!(pages.place_of(offset(5)), PagePlace::Missing(Some(offset(10))));
        assert_eq!(pages.place_of(offset(100)), PagePlace::Missing(None));
    }

    #[test]
    fn a_page_says_what_it_has_next_for_a_reader() {
        let page = page(100, &[(10, 20), (50, 90)]);
        let next: Vec<_> =
            [5, 10, 12, 20, 60, 90].map(|at| page.next_event(offset(at))).into_iter().collect();
        let want = [Some(10), Some(10), Some(12), Some(50), Some(60), None];
        assert_eq!(next, want.map(|at| at.map(offset)));
    }

    #[test]
    fn bytes_are_counted() {
        let mut pages = Pages::default();
        let one = page(100, &[(10, 20), (50, 90)]);
        pages.insert(offset(10), 1, one.clone());
        pages.insert(offset(30), 1, page(32, &[]));
        let chunk = one.chunks[0].held_bytes() + size_of::<Chunk>();
        assert_eq!(pages.bytes(), 2 * (PAGE_COST_BYTES + chunk));
        assert_eq!(pages.insert(offset(10), 2, page(11, &[])), one.bytes());
        assert_eq!(pages.remove(offset(10), 1), 0, "that one was replaced");
        assert_eq!(pages.remove(offset(10), 2), PAGE_COST_BYTES);
        assert_eq!(pages.remove(offset(10), 2), 0);
        assert_eq!(pages.bytes(), PAGE_COST_BYTES);
    }

    #[test]
    fn what_ends_before_a_place_goes_and_what_reaches_beyond_it_stays() {
        let mut pages = Pages::default();
        for (start, end) in [(0, 10), (5, 20), (10, 21), (30, 40)] {
            pages.insert(offset(start), 1, page(end, &[(start, end)]));
        }
        let all = pages.bytes();
        let one = page(10, &[(0, 10)]).bytes();
        assert_eq!(pages.remove_before(offset(20)), 2 * one);
        let starts = [0, 5, 10, 30].map(|start| pages.begins_at(offset(start)));
        assert_eq!(starts, [false, false, true, true]);
        assert_eq!(pages.bytes(), all - 2 * one);
    }
}
