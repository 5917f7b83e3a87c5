//! Readers that are under way while their log goes on: segments are rewritten and removed beneath them. Each event that
//! stays is given once, in order, and none that was deleted by then.

use std::{ops::Range, sync::Arc};

use strandline_storage::{
    error::ReadError,
    io::sim::{SimDisk, rng::SimRng},
    log::Log,
    offset::Offset,
    reader::{Hits, ReadQuery, Reader, Resting},
    selection::Order,
    topic::TopicPattern,
};

use crate::simulation::{
    Process,
    model::{Fate, Model, patterns},
    to_usize,
};

/// So many are under way at a time.
const READERS_MAX: usize = 3;

/// A reader of the sealed part of a log.
pub struct Held {
    place: Place,
    given: Given,
}

/// What a reader was asked for, and what it has given.
struct Given {
    topics: Vec<TopicPattern>,
    /// What it is to look at.
    range: Range<usize>,
    order: Order,
    found: Vec<u64>,
    /// Whether what it reads has been rewritten or removed since it began.
    is_overtaken: bool,
}

enum Place {
    Reading(Reader<SimDisk>),
    Resting(Resting),
}

/// Begins a reader, or goes on with one for a few steps.
pub fn read_on(readers: &mut Vec<Held>, process: &Process, rng: &mut SimRng, model: &mut Model) {
    let log = &process.log;
    if readers.len() < READERS_MAX && rng.chance(40) {
        readers.extend(Held::begin(log, rng));
    }
    if readers.is_empty() {
        return;
    }
    let held = readers.swap_remove(rng.index(readers.len()));
    readers.extend(held.go_on(log, rng, model));
}

impl Held {
    fn begin(log: &Log<SimDisk>, rng: &mut SimRng) -> Option<Held> {
        let (start, end) = (to_usize(log.start()), to_usize(log.segments().end()));
        let length = end.checked_sub(start).filter(|length| *length > 0)?;
        let range = match rng.chance(70) {
            true => start..end,
            false => {
                let from = start + rng.index(length);
                from..from + 1 + rng.index(end - from)
            }
        };
        let topics = if rng.chance(70) { Vec::new() } else { patterns(rng) };
        let order = *rng.pick(&[Order::Ascending, Order::Ascending, Order::Descending]);
        let at = |offset: usize| Offset::new(offset as u64);
        let (from, end) = (at(range.start), at(range.end));
        let query = ReadQuery { topics: topics.clone(), from, end, order };
        let place = Place::Reading(Reader::new(Arc::clone(log.segments()), &query));
        let given = Given { topics, range, order, found: Vec::new(), is_overtaken: false };
        Some(Held { place, given })
    }

    /// Reads some of what is left; `None` once that is all.
    fn go_on(self, log: &Log<SimDisk>, rng: &mut SimRng, model: &mut Model) -> Option<Held> {
        let Held { place, mut given } = self;
        let mut reader = match place {
            Place::Reading(mut reader) => {
                let is_same = Arc::ptr_eq(reader.set(), log.segments());
                // Another shard may not know of them yet.
                if !is_same && rng.chance(70) {
                    given.is_overtaken = true;
                    reader.follow(Arc::clone(log.segments()));
                }
                reader
            }
            Place::Resting(resting) => {
                given.is_overtaken = true;
                resting.wake(Arc::clone(log.segments()))
            }
        };
        for _ in 0..*rng.pick(&[1, 2, 10]) {
            match reader.next_blocking() {
                Ok(Some(hits)) => given.take(log, hits, model),
                Ok(None) => {
                    given.check(log, model);
                    return None;
                }
                // What that is about the check looks at: nothing of it may be there.
                Err(ReadError::Expired { .. }) => given.is_overtaken = true,
                Err(error) => panic!("nothing is damaged, but: {error}"),
            }
        }
        let place = match rng.chance(20) {
            true => Place::Resting(reader.rest()),
            false => Place::Reading(reader),
        };
        Some(Held { place, given })
    }
}

impl Given {
    /// Takes hits, as whoever hands them out does.
    fn take(&mut self, log: &Log<SimDisk>, hits: Hits, model: &Model) {
        let hits = log.rules().floors().filter(hits);
        let fates = model.fates(model.seen);
        for event in hits.events() {
            model.check_event(&event);
            let offset = event.offset();
            assert_ne!(fates.of(to_usize(offset)), Fate::Goes, "{offset} was deleted");
            self.found.push(offset.get());
        }
    }

    /// All is given that is there and was.
    fn check(&self, log: &Log<SimDisk>, model: &mut Model) {
        model.tally.overtaken += u64::from(self.is_overtaken);
        let is_next = |pair: &[u64]| match self.order {
            Order::Ascending => pair[0] < pair[1],
            Order::Descending => pair[0] > pair[1],
        };
        assert!(self.found.windows(2).all(is_next), "in order and once: {:?}", self.found);
        let fates = model.fates(model.seen);
        let wanted = model.wanted(&self.topics, self.range.clone());
        for offset in &self.found {
            assert!(wanted.contains(offset), "nobody asked for {offset}");
        }
        let start = log.start().get();
        let is_there = |offset: &u64| {
            *offset >= start && fates.of(to_usize(Offset::new(*offset))) == Fate::Stays
        };
        let is_missed = |offset: &u64| is_there(offset) && !self.found.contains(offset);
        let missed = wanted.into_iter().find(is_missed);
        assert_eq!(missed, None, "of {:?}, kept from {start}", self.range);
    }
}
