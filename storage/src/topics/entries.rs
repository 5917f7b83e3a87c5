//! What is known of topics, by number, in pages: nothing is copied when there are more.

use super::names::NamePlace;
use crate::offset::Offset;

/// Entries of a page.
const PAGE: usize = 256;

/// What is known of topics, by number.
#[derive(Debug, Default)]
pub(super) struct Entries {
    /// `None` where no number of a page was ever seen.
    pages: Vec<Option<Box<[Entry; PAGE]>>>,
    /// Behind the largest number.
    pub(super) end: u32,
}

/// What is known of one.
#[derive(Clone, Copy, Debug)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
        let entry = &self.pages.get(number / PAGE)?.as_ref()?[number % PAGE];
        (!entry.name.is_none()).then_some(entry)
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut Entry> {
        let number = number as usize;
        let entry = &mut self.pages.get_mut(number / PAGE)?.as_mut()?[number % PAGE];
        (!entry.name.is_none()).then_some(entry)
    }

    pub(super) fn put(&mut self, number: u32, entry: Entry) {
        self.end = self.end.max(number.checked_add(1).expect("a log has fewer than 2^32 topics"));
        let number = number as usize;
        if self.pages.len() <= number / PAGE {
            self.pages.resize_with(number / PAGE + 1, || None);
        }
        let page = &mut self.pages[number / PAGE];
        page.get_or_insert_with(|| Box::new([Entry::NONE; PAGE]))[number % PAGE] = entry;
    }

    /// The memory that it takes.
    pub(super) fn memory_bytes(&self) -> usize {
        let pages = self.pages.iter().flatten().count();
        pages * PAGE * size_of::<Entry>() + self.pages.capacity() * size_of::<usize>()
    }
}
