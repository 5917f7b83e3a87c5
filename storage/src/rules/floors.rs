//! The first offset that is kept of each topic that was deleted or trimmed. Pure.
//!
//! Readers of all shards share it, and a change makes another one of it, which shares all but what has
//! changed: a table of 64 tables of 64 buckets, found by the hash of the topic, each behind a pointer
//! that counts its owners. A change copies two tables and a bucket: at 100,000 topics some 25 entries,
//! 2 us. What is the same in two of them is found by comparing pointers, so what has changed between
//! them costs what has changed.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Arc, OnceLock},
};

use crate::{event::EventView, frame::Frame, offset::Offset, reader::Hits};

/// Tables of a table, and buckets of a table.
const FAN: usize = 64;

/// The first offset that is kept of each topic that was deleted or trimmed.
#[derive(Clone, Debug)]
pub struct Floors {
    tables: Vec<Option<Arc<Table>>>,
    len: usize,
    /// No floor is above it.
    highest: Offset,
    /// No deletion or trim has come behind it.
    latest: Offset,
    /// No floor that was forgotten because nothing is left below it was above it, and no segment of which
    /// a rewrite has dropped events goes on behind it.
    settled: Offset,
}

/// What is gone of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Floor {
    /// The first offset that is kept.
    from: Offset,
    /// The event of the log that says so.
    said_at: Offset,
}

/// Everything of a part that is not empty.
#[derive(Clone, Debug)]
struct Table {
    buckets: Vec<Option<Arc<Bucket>>>,
    /// No floor is below it.
    lowest: Offset,
}

#[derive(Clone, Debug)]
struct Bucket {
    /// By name.
    floors: Vec<(Arc<str>, Floor)>,
    lowest: Offset,
}

impl Default for Floors {
    fn default() -> Self {
        let (highest, latest, settled) = (Offset::ZERO, Offset::ZERO, Offset::ZERO);
        Floors { tables: Vec::new(), len: 0, highest, latest, settled }
    }
}

/// The table and the bucket of a topic: the same in all of a process, so that any two can be compared.
fn place_of(topic: &str) -> (usize, usize) {
    static HASHER: OnceLock<RandomState> = OnceLock::new();
    let hash = HASHER.get_or_init(RandomState::new).hash_one(topic);
    let hash = usize::try_from(hash % (FAN * FAN) as u64).expect("below 4096");
    (hash / FAN, hash % FAN)
}

fn none<T>() -> Vec<Option<Arc<T>>> {
    (0..FAN).map(|_| None).collect()
}

impl Bucket {
    fn find(&self, topic: &str) -> Result<usize, usize> {
        self.floors.binary_search_by(|(known, _)| (**known).cmp(topic))
    }

    fn look(&mut self) {
        let lowest = self.floors.iter().map(|(_, floor)| floor.from).min();
        self.lowest = lowest.unwrap_or(Offset::MAX);
    }
}

impl Table {
    fn look(&mut self) {
        let lowest = self.buckets.iter().flatten().map(|bucket| bucket.lowest).min();
        self.lowest = lowest.unwrap_or(Offset::MAX);
    }
}

impl Floors {
    /// Whether nothing was deleted or trimmed.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many topics have one.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The event of the log that has deleted or trimmed a topic last; the first offset if none ever has.
    pub fn latest(&self) -> Offset {
        self.latest
    }

    /// Up to where sealed segments alone say what is kept: floors up to there are forgotten once no segment
    /// holds anything below them, rewrites have dropped events that no floor hides, and frames that are still
    /// in memory may hold all of that. What was sealed when these floors were made reaches at least so far.
    pub fn settled(&self) -> Offset {
        self.settled
    }

    /// Whether something may have been deleted since `before` of which these floors say nothing any more.
    pub fn may_have_skipped(&self, before: &Floors) -> bool {
        self.settled != before.settled && self.latest != before.latest
    }

    /// The event of the log that says what is gone of a topic; the first offset if nothing is.
    pub fn said_at(&self, topic: &str) -> Offset {
        self.find(topic).map_or(Offset::ZERO, |floor| floor.said_at)
    }

    /// Whether any topic of a frame has events below its floor there.
    pub fn concern(&self, frame: &Frame) -> bool {
        // What is live is mostly newer than everything that was deleted.
        !self.is_empty()
            && self.highest > frame.base_offset()
            && frame.topics().any(|(_, topic)| self.of(topic) > frame.base_offset())
    }

    /// Whether an event is gone.
    pub fn hide(&self, event: &EventView<'_>) -> bool {
        event.offset() < self.highest && event.offset() < self.of(event.topic())
    }

    /// What is left of hits.
    #[must_use]
    pub fn filter(&self, mut hits: Hits) -> Hits {
        if let Some(frame) = &hits.frame
            && self.concern(frame)
        {
            hits.picks = hits.picks.retain(frame, |event| !self.hide(event));
            if hits.picks.is_empty() {
                hits.frame = None;
            }
        }
        hits
    }

    /// The first offset of a topic that is kept.
    pub fn of(&self, topic: &str) -> Offset {
        self.find(topic).map_or(Offset::ZERO, |floor| floor.from)
    }

    fn find(&self, topic: &str) -> Option<Floor> {
        if self.is_empty() {
            return None;
        }
        let (table, bucket) = place_of(topic);
        let bucket = self.tables[table].as_ref()?.buckets[bucket].as_ref()?;
        Some(bucket.floors[bucket.find(topic).ok()?].1)
    }

    /// The topics that have one, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Offset)> {
        let buckets = self.tables.iter().flatten().flat_map(|table| table.buckets.iter().flatten());
        buckets.flat_map(|bucket| bucket.floors.iter().map(|(topic, floor)| (&**topic, floor.from)))
    }

    /// Everything of a topic before an offset is gone, as the event of the log at `said_at` says. A floor
    /// never goes down.
    pub fn raise(&mut self, topic: &str, floor: Offset, said_at: Offset) {
        if self.of(topic) >= floor {
            return;
        }
        if self.tables.is_empty() {
            self.tables = none();
        }
        let (table, bucket) = place_of(topic);
        let table = self.tables[table]
            .get_or_insert_with(|| Arc::new(Table { buckets: none(), lowest: Offset::MAX }));
        let table = Arc::make_mut(table);
        let bucket = table.buckets[bucket]
            .get_or_insert_with(|| Arc::new(Bucket { floors: Vec::new(), lowest: Offset::MAX }));
        let bucket = Arc::make_mut(bucket);
        match bucket.find(topic) {
            Ok(at) => bucket.floors[at].1 = Floor { from: floor, said_at },
            Err(at) => {
                bucket.floors.insert(at, (topic.into(), Floor { from: floor, said_at }));
                self.len += 1;
            }
        }
        bucket.look();
        table.look();
        self.highest = self.highest.max(floor);
        self.latest = self.latest.max(said_at);
    }

    /// Forgets the floor of a topic, if it still is this one: nothing is left below it.
    pub fn forget(&mut self, topic: &str, floor: Offset) {
        if self.of(topic) != floor || floor == Offset::ZERO {
            return;
        }
        let (table, bucket) = place_of(topic);
        self.keep(table, bucket, |known, _| known != topic);
        self.settled = self.settled.max(floor);
    }

    /// Sealed segments alone say what is kept up to `end`.
    pub fn settle_to(&mut self, end: Offset) {
        self.settled = self.settled.max(end);
    }

    /// Whether any floor lies at or below an offset.
    pub fn reach_below(&self, start: Offset) -> bool {
        self.tables.iter().flatten().any(|table| table.lowest <= start)
    }

    /// Forgets floors that lie at or below the first offset that the log keeps at all. Costs what is
    /// forgotten, and not what there is.
    pub fn forget_below(&mut self, start: Offset) {
        for table in 0..self.tables.len() {
            for bucket in 0..FAN {
                let Some(here) = &self.tables[table] else { break };
                if here.lowest > start {
                    break;
                }
                if here.buckets[bucket].as_ref().is_some_and(|bucket| bucket.lowest <= start) {
                    self.keep(table, bucket, |_, floor| floor > start);
                }
            }
        }
    }

    /// Keeps of a bucket, which is there, only some.
    fn keep(&mut self, table: usize, bucket: usize, is_kept: impl Fn(&str, Offset) -> bool) {
        let place = &mut self.tables[table];
        let here = Arc::make_mut(place.as_mut().expect("it is there"));
        let entry = &mut here.buckets[bucket];
        let floors = Arc::make_mut(entry.as_mut().expect("it is there"));
        let before = floors.floors.len();
        floors.floors.retain(|(topic, floor)| is_kept(topic, floor.from));
        self.len -= before - floors.floors.len();
        floors.look();
        if floors.floors.is_empty() {
            *entry = None;
        }
        here.look();
        if here.buckets.iter().all(Option::is_none) {
            *place = None;
        }
    }

    /// The topics whose floor is higher than it was `before`; `None` if these are more than `count_max`, or
    /// some of them may have been forgotten again.
    pub fn raised_since<'a>(&'a self, before: &Floors, count_max: usize) -> Option<Vec<&'a str>> {
        if self.may_have_skipped(before) {
            return None;
        }
        let mut raised = Vec::new();
        for (at, table) in self.tables.iter().enumerate() {
            let (Some(table), old) = (table, before.tables.get(at).and_then(Option::as_ref)) else {
                continue;
            };
            if old.is_some_and(|old| Arc::ptr_eq(old, table)) {
                continue;
            }
            for (at, bucket) in table.buckets.iter().enumerate() {
                let (Some(bucket), old) = (bucket, old.and_then(|old| old.buckets[at].as_ref()))
                else {
                    continue;
                };
                if old.is_some_and(|old| Arc::ptr_eq(old, bucket)) {
                    continue;
                }
                for (topic, floor) in &bucket.floors {
                    let known = old.and_then(|old| Some(old.floors[old.find(topic).ok()?].1));
                    if known.is_none_or(|known| known.from < floor.from) {
                        if raised.len() == count_max {
                            return None;
                        }
                        raised.push(&**topic);
                    }
                }
            }
        }
        Some(raised)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Raise(u32, u64),
        Forget(u32),
        ForgetBelow(u64),
        /// What is there now is shared from here on.
        Share,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0..500_u32, 1..10_000_u64).prop_map(|(topic, floor)| Step::Raise(topic, floor)),
            1 => (0..500_u32).prop_map(Step::Forget),
            1 => (0..10_000_u64).prop_map(Step::ForgetBelow),
            1 => Just(Step::Share),
        ]
    }

    fn content(floors: &Floors) -> BTreeMap<String, u64> {
        floors.iter().map(|(topic, floor)| (topic.to_owned(), floor.get())).collect()
    }

    /// An interpreter takes half an hour for many.
    const STEPS: usize = if cfg!(miri) { 50 } else { 200 };

    proptest! {
        /// The same as a map, and what was shared before stays what it was.
        #[test]
        fn floors_are_a_map_of_which_every_version_stays(steps in prop::collection::vec(step(), 0..STEPS)) {
            let (mut floors, mut model) = (Floors::default(), BTreeMap::<String, u64>::new());
            let mut shared = Vec::new();
            for step in steps {
                match step {
                    Step::Raise(topic, floor) => {
                        let topic = format!("t/{topic}");
                        floors.raise(&topic, Offset::new(floor), Offset::new(floor + 1));
                        let known = model.entry(topic).or_default();
                        *known = floor.max(*known);
                    }
                    Step::Forget(topic) => {
                        let topic = format!("t/{topic}");
                        let floor = floors.of(&topic);
                        floors.forget(&topic, floor.plus(1));
                        prop_assert_eq!(floors.of(&topic), floor, "it has become another");
                        floors.forget(&topic, floor);
                        model.remove(&topic);
                    }
                    Step::ForgetBelow(start) => {
                        let start = Offset::new(start);
                        let reaches = model.values().any(|floor| *floor <= start.get());
                        prop_assert_eq!(floors.reach_below(start), reaches);
                        floors.forget_below(start);
                        model.retain(|_, floor| *floor > start.get());
                    }
                    Step::Share => shared.push((floors.clone(), model.clone())),
                }
            }
            prop_assert_eq!(content(&floors), model.clone());
            prop_assert_eq!(floors.len(), model.len());
            prop_assert!(model.values().all(|floor| *floor <= floors.highest.get()));
            prop_assert!(model.values().all(|floor| *floor < floors.latest().get()));
            for (old, was) in shared {
                prop_assert_eq!(content(&old), was.clone());
                let Some(raised) = floors.raised_since(&old, usize::MAX) else {
                    prop_assert!(floors.may_have_skipped(&old), "no limit");
                    continue;
                };
                let mut raised: Vec<String> = raised.into_iter().map(str::to_owned).collect();
                raised.sort_unstable();
                let wanted: Vec<String> = model.iter()
                    .filter(|(topic, floor)| was.get(*topic).is_none_or(|was| was < floor))
                    .map(|(topic, _)| topic.clone())
                    .collect();
                prop_assert_eq!(floors.raised_since(&old, wanted.len()).is_some(), true);
                if !wanted.is_empty() {
                    prop_assert!(floors.raised_since(&old, wanted.len() - 1).is_none());
                }
                prop_assert_eq!(raised, wanted);
            }
        }
    }

    /// It was a map that each deletion copied whole while any shard had it: 100,000 of them took minutes.
    #[test]
    fn a_deletion_costs_the_same_however_many_there_were() {
        let mut floors = Arc::new(Floors::default());
        let mut shared = Arc::clone(&floors);
        for topic in 0..20_000_u64 {
            Arc::make_mut(&mut floors).raise(
                &format!("runs/{topic}"),
                Offset::new(topic + 1),
                Offset::new(topic + 1),
            );
            assert_eq!(floors.raised_since(&shared, 10).map(|raised| raised.len()), Some(1));
            let same = |one: &Option<Arc<Table>>, other: &Option<Arc<Table>>| match (one, other) {
                (Some(one), Some(other)) => Arc::ptr_eq(one, other),
                (one, other) => one.is_none() && other.is_none(),
            };
            let changed =
                floors.tables.iter().zip(&shared.tables).filter(|(one, other)| !same(one, other));
            assert!(changed.count() <= 1, "all but one table is shared");
            shared = Arc::clone(&floors);
        }
        assert_eq!(floors.len(), 20_000);
    }
}
