//! What is known of topics, by number, in pages: nothing is copied when there are more.

use zerocopy::FromZeros;

use super::names::NamePlace;
use crate::{
    huge_page::{HUGE_PAGE_BYTES, HugePage},
    offset::Offset,
};

/// Entries of a small page, which those of the first numbers lie in.
const SMALL: usize = 256;
/// So many numbers are the first.
const FIRST: usize = 256 * SMALL;
/// Entries of a large page.
const LARGE: usize = HUGE_PAGE_BYTES / size_of::<Entry>();

/// What is known of topics, by number.
#[derive(Debug, Default)]
pub(super) struct Entries {
    /// `None` where no number of a page was ever seen.
    small: Vec<Option<Box<[Entry; SMALL]>>>,
    /// The same, behind them.
    large: Vec<Option<Box<HugePage<[Entry; LARGE]>>>>,
    /// Behind the largest number.
    pub(super) end: u32,
}

/// What is known of one.
#[derive(Clone, Copy, Debug, FromZeros)]
pub(super) struct Entry {
    /// None where the number was never seen: its segments are gone.
    pub(super) name: NamePlace,
    /// Behind `last` as long as there never was an event.
    pub(super) first: Offset,
    pub(super) last: Offset,
    pub(super) count: U48,
    pub(super) last_time_ms: U48,
    /// Of the first event since there was none, or shortly after it; after a start, perhaps of one that
    /// came later.
    pub(super) first_time_s: u32,
}

/// A number below 2^48: times of events are, and a topic has fewer events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromZeros)]
pub(super) struct U48([u8; 6]);

impl U48 {
    pub(super) fn new(value: u64) -> U48 {
        assert!(value >> 48 == 0, "times and counts are below 2^48");
        let bytes = value.to_le_bytes();
        U48(*bytes.first_chunk().expect("8 bytes"))
    }

    pub(super) fn get(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
    }
}

const _: () = assert!(size_of::<Entry>() == 40);

impl Entry {
    pub(super) const NONE: Entry = Entry {
        name: NamePlace::NONE,
        first: Offset::MAX,
        last: Offset::ZERO,
        count: U48([0; 6]),
        last_time_ms: U48([0; 6]),
        first_time_s: 0,
    };

    pub(super) fn first_time_ms(&self) -> u64 {
        u64::from(self.first_time_s) * 1_000
    }

    /// Late rather than early.
    pub(super) fn set_first_time_ms(&mut self, time_ms: u64) {
        self.first_time_s = u32::try_from(time_ms.div_ceil(1_000)).unwrap_or(u32::MAX);
    }
}

impl Entries {
    pub(super) fn get(&self, number: u32) -> Option<&Entry> {
        let number = number as usize;
        let entry = match number.checked_sub(FIRST) {
            Some(number) => &self.large.get(number / LARGE)?.as_ref()?.0[number % LARGE],
            None => &self.small.get(number / SMALL)?.as_ref()?[number % SMALL],
        };
        (!entry.name.is_none()).then_some(entry)
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut Entry> {
        let number = number as usize;
        let entry = match number.checked_sub(FIRST) {
            Some(number) => &mut self.large.get_mut(number / LARGE)?.as_mut()?.0[number % LARGE],
            None => &mut self.small.get_mut(number / SMALL)?.as_mut()?[number % SMALL],
        };
        (!entry.name.is_none()).then_some(entry)
    }

    pub(super) fn put(&mut self, number: u32, entry: Entry) {
        self.end = self.end.max(number.checked_add(1).expect("a log has fewer than 2^32 topics"));
        let number = number as usize;
        let Some(number) = number.checked_sub(FIRST) else {
            let page = page_at(&mut self.small, number / SMALL);
            page.get_or_insert_with(|| Box::new([Entry::NONE; SMALL]))[number % SMALL] = entry;
            return;
        };
        let page = page_at(&mut self.large, number / LARGE).get_or_insert_with(HugePage::zeroed);
        page.0[number % LARGE] = entry;
        // Numbers are given in a row.
        if number % LARGE == LARGE - 1 {
            page.collapse_soon();
        }
    }

    /// The memory that it takes.
    pub(super) fn memory_bytes(&self) -> usize {
        let (small, large) = (self.small.iter().flatten(), self.large.iter().flatten());
        small.count() * SMALL * size_of::<Entry>()
            + large.count() * HUGE_PAGE_BYTES
            + (self.small.capacity() + self.large.capacity()) * size_of::<usize>()
    }
}

fn page_at<T>(pages: &mut Vec<Option<T>>, at: usize) -> &mut Option<T> {
    if pages.len() <= at {
        pages.resize_with(at + 1, || None);
    }
    &mut pages[at]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topics::names::Names;

    #[test]
    fn entries_are_where_they_were_put_and_nowhere_else() {
        let mut names = Names::default();
        let mut entries = Entries::default();
        let (first, large) = (u32::try_from(FIRST).unwrap(), u32::try_from(LARGE).unwrap());
        let last = first + 2 * large;
        let numbers = [
            0,
            255,
            256,
            first - 1,
            first,
            first + large - 1,
            first + large,
            last - 1,
            last + large,
        ];
        for number in numbers {
            let name = names.add(&number.to_string());
            entries
                .put(number, Entry { name, last: Offset::new(u64::from(number)), ..Entry::NONE });
            assert_eq!(entries.end, number + 1);
        }
        for number in numbers {
            let entry = entries.get_mut(number).expect("it was put");
            assert_eq!(entry.last, Offset::new(u64::from(number)));
            let name = entry.name;
            assert_eq!(names.get(name), number.to_string());
            assert_eq!(entries.get(number).map(|entry| entry.name), Some(name));
            for other in [number + 1, number.saturating_sub(1)] {
                assert_eq!(entries.get(other).is_some(), numbers.contains(&other), "{other}");
            }
        }
        assert!(entries.get(last).is_none() && entries.get(u32::MAX).is_none());
    }
}
