//! Topics that are added in any order, and taken in the order of their names.
//!
//! Of a million topics none lies near, and to read each from where it lies in the order of names waits for
//! memory each time. So what is written of a topic is copied once, to the end of one of some parts, each of
//! which holds the names between two others. A part is small enough for a core's own cache, where it is
//! sorted and read, unless many names differ only behind their keys (below): then it is what sorting all
//! names is, and as large.
//!
//! A part is a sequence of items:
//! ```text
//! 0            1               2         10
//! +------------+---------------+---------+------+---------+
//! | name bytes | details bytes | key u64 | name | details |
//! +------------+---------------+---------+------+---------+
//! | 0          | 4             | key u64 | place u32      |      a topic that takes too much
//! +------------+---------------+---------+----------------+
//! ```
//! The key is the eight bytes of the name that come behind what nearly all names have in common. Those decide
//! nearly always.

use std::ops::Range;

use crate::fields::{u32_at, u64_at};

/// Names are copied up to this length, so that what is copied is bounded: about 55 bytes of a topic whose
/// name is as long as most.
pub(super) const NAME_BYTES_MAX: usize = 48;
/// So many topics are in a part: some 300 KiB with what sorts it. Few where that is tested.
const PART_TOPICS: usize = if cfg!(test) { 16 } else { 4096 };
/// There are so many parts at most: each ends in a page of its own, and they are written to in turns.
const PARTS_MAX: usize = 512;
/// So many names for each part are looked at to tell where one begins.
const SAMPLES_A_PART: usize = 16;
const SAMPLES_MIN: usize = 32;

const DETAILS_BYTES_AT: usize = 1;
const KEY_AT: usize = 2;
const NAME_AT: usize = KEY_AT + size_of::<u64>();
const PLACE_BYTES: u8 = 4;
/// About how much an item takes beside its name.
const ITEM_BYTES: usize = NAME_AT + 22;

/// Topics on their way to the order of their names.
pub(super) struct ByName<'a> {
    /// What all names begin with, or nearly all.
    common: &'a [u8],
    /// The lowest key of each part but for the first.
    bounds: Vec<u64>,
    parts: Vec<Vec<u8>>,
}

/// A topic.
#[derive(Clone, Copy)]
pub(super) enum Item<'p> {
    /// Its name, and what is written behind it.
    Whole { name: &'p [u8], details: &'p [u8] },
    /// Its place.
    At(u32),
}

/// How many of so many names should be looked at before [`ByName::new`].
pub(super) fn sample_count(topics: usize) -> usize {
    (part_count(topics) * SAMPLES_A_PART).max(SAMPLES_MIN).min(topics)
}

fn part_count(topics: usize) -> usize {
    topics.div_ceil(PART_TOPICS).clamp(1, PARTS_MAX)
}

impl<'a> ByName<'a> {
    /// None of so many topics yet; `sample` is some of their names.
    pub fn new(topics: usize, sample: &[&'a [u8]]) -> ByName<'a> {
        let common = in_common(sample);
        let count = part_count(topics);
        let mut bounds = Vec::new();
        if count > 1 {
            let mut keys: Vec<u64> = sample.iter().map(|name| key_of(common, name)).collect();
            keys.sort_unstable();
            bounds.extend((1..count).map(|part| keys[part * keys.len() / count]));
        }
        let name_bytes = sample.iter().map(|name| name.len().min(NAME_BYTES_MAX)).sum::<usize>();
        let item_bytes = name_bytes / sample.len().max(1) + ITEM_BYTES;
        let room = topics.div_ceil(count) * item_bytes;
        let parts = (0..count).map(|_| Vec::with_capacity(room)).collect();
        ByName { common, bounds, parts }
    }

    /// Adds a topic with a name of at most [`NAME_BYTES_MAX`] bytes and at most 255 bytes of details.
    pub fn add(&mut self, name: &[u8], write_details: impl FnOnce(&mut Vec<u8>)) {
        let part = self.part(name, name.len());
        let details_bytes_at = part.len() - NAME_AT + DETAILS_BYTES_AT;
        part.extend_from_slice(name);
        let details_at = part.len();
        write_details(part);
        part[details_bytes_at] = u8::try_from(part.len() - details_at).expect("short details");
    }

    /// Adds a topic of which only the place is given back.
    pub fn add_place(&mut self, name: &[u8], place: u32) {
        self.part(name, 0).extend_from_slice(&place.to_le_bytes());
    }

    /// The part that a topic belongs to, and in it the head of its item, which has a place instead of a name
    /// if that takes no bytes.
    fn part(&mut self, name: &[u8], name_bytes: usize) -> &mut Vec<u8> {
        let key = key_of(self.common, name);
        let part = &mut self.parts[self.bounds.partition_point(|bound| *bound <= key)];
        let mut head = [0; NAME_AT];
        head[0] = u8::try_from(name_bytes).expect("a short name");
        head[DETAILS_BYTES_AT] = PLACE_BYTES;
        head[KEY_AT..].copy_from_slice(&key.to_le_bytes());
        part.extend_from_slice(&head);
        part
    }

    /// At least as many bytes as the topics that are copied take in TOPICS, but for what is around them.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(Vec::len).sum()
    }

    /// Gives all topics in the order of their names, up to so many at a time. `name_at` tells the name of the
    /// topic at a place.
    pub fn take_all<'n>(
        self,
        at_a_time: usize,
        name_at: impl Fn(u32) -> &'n [u8],
        mut take: impl FnMut(&[Item]),
    ) {
        let mut order = Vec::new();
        for part in self.parts {
            order.clear();
            let mut at = 0;
            while at < part.len() {
                order.push((u64_at(&part, at + KEY_AT), at));
                at = item_ranges(&part, at).1.end;
            }
            sort(&mut order, |at| match item_at(&part, at) {
                Item::Whole { name, .. } => name,
                Item::At(place) => name_at(place),
            });
            let mut items = Vec::with_capacity(at_a_time.min(order.len()));
            for order in order.chunks(at_a_time) {
                items.clear();
                items.extend(order.iter().map(|(_, at)| item_at(&part, *at)));
                take(&items);
            }
        }
    }
}

/// Where the name and the details of an item lie.
fn item_ranges(part: &[u8], at: usize) -> (Range<usize>, Range<usize>) {
    let name_at = at + NAME_AT;
    let details_at = name_at + usize::from(part[at]);
    (name_at..details_at, details_at..details_at + usize::from(part[at + DETAILS_BYTES_AT]))
}

fn item_at(part: &[u8], at: usize) -> Item<'_> {
    let (name, details) = item_ranges(part, at);
    match name.is_empty() {
        true => Item::At(u32_at(part, details.start)),
        false => Item::Whole { name: &part[name], details: &part[details] },
    }
}

/// Sorts items by their names; each is given as its key and where it is.
fn sort<'n>(order: &mut [(u64, usize)], name_of: impl Fn(usize) -> &'n [u8]) {
    order.sort_unstable_by_key(|(key, _)| *key);
    for same in order.chunk_by_mut(|(key, _), (next, _)| key == next) {
        if same.len() > 1 {
            same.sort_unstable_by_key(|(_, at)| name_of(*at));
        }
    }
}

/// A number that is never above that of a later name.
fn key_of(common: &[u8], name: &[u8]) -> u64 {
    let Some(rest) = name.strip_prefix(common) else {
        return if name < common { 0 } else { u64::MAX };
    };
    if let Some(key) = rest.first_chunk() {
        return u64::from_be_bytes(*key);
    }
    // One that ends comes before those that go on.
    let mut key = [0; size_of::<u64>()];
    key[..rest.len()].copy_from_slice(rest);
    u64::from_be_bytes(key)
}

/// What all of some names begin with.
fn in_common<'a>(names: &[&'a [u8]]) -> &'a [u8] {
    let Some((first, names)) = names.split_first() else { return &[] };
    names.iter().fold(first, |common, name| {
        let shared = || common.iter().zip(*name).take_while(|(one, other)| one == other).count();
        if name.starts_with(common) { common } else { &common[..shared()] }
    })
}
