//! The topics of a log: name -> number, count, first and last event. Pure.
//!
//! A topic gets its number when its first event is staged, and is *listed* once that event is
//! visible: what a crash could take back is counted nowhere. Numbers are dense from 0, so that the
//! entries are one array.
//!
//! A log may hold millions of topics. For each there is one entry (56 bytes), its name in one
//! allocation shared with the events that carry it, about 8 bytes of hash table, which holds numbers
//! alone and finds names through the entries, and about 28 bytes of ordered map for pages: some 120
//! bytes and the name. (A `HashMap` with the name as its key would add 40.)

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    ops::Bound,
};

use hashbrown::HashTable;

use crate::{
    offset::Offset,
    topic::{Topic, TopicNumber, TopicPattern},
};

/// The topics of one log.
#[derive(Debug, Default)]
pub struct TopicTable {
    /// By number. `None` where a number was never seen: its segments are gone.
    entries: Vec<Option<Entry>>,
    /// The numbers, by the hash of their names.
    numbers: HashTable<u32>,
    hasher: RandomState,
    /// The listed ones, by name.
    listed: BTreeMap<Topic, TopicNumber>,
}

#[derive(Debug)]
struct Entry {
    topic: Topic,
    count: u64,
    /// Behind `last` as long as there never was an event.
    first: Offset,
    last: Offset,
    /// Of the first event since there was none; after a start, perhaps of one that came later.
    first_time_ms: u64,
    last_time_ms: u64,
}

/// What is known of a topic, or of its events in one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSummary {
    /// Its name.
    pub topic: Topic,
    /// Its number.
    pub number: TopicNumber,
    /// How many visible events it has.
    pub count: u64,
    /// The first of them.
    pub first: Offset,
    /// The last of them.
    pub last: Offset,
    /// When the last was appended, in milliseconds since 1970.
    pub last_time_ms: u64,
}

/// Two files of a log disagree on which topic has a number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("topic number {number} is both `{known}` and `{claimed}`")]
pub struct TopicConflict {
    /// The number; or another topic has the claimed name.
    pub number: u32,
    /// The name known so far.
    pub known: String,
    /// The name that was read now.
    pub claimed: String,
}

impl TopicTable {
    /// How many topics are listed.
    pub fn len(&self) -> usize {
        self.listed.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    /// The number of a topic, listed or only staged.
    pub fn number_of(&self, topic: &str) -> Option<TopicNumber> {
        let hash = self.hasher.hash_one(topic);
        self.numbers
            .find(hash, |number| self.name_at(*number) == topic)
            .copied()
            .map(TopicNumber::new)
    }

    /// The number of a topic; a new one if it has none yet.
    pub fn assign(&mut self, topic: &Topic) -> TopicNumber {
        if let Some(number) = self.number_of(topic) {
            return number;
        }
        let number = u32::try_from(self.entries.len()).expect("a log has fewer than 2^32 topics");
        self.insert(number, topic.clone());
        TopicNumber::new(number)
    }

    /// Learns from a file that a topic has this number.
    pub fn declare(&mut self, number: TopicNumber, topic: &str) -> Result<(), TopicConflict> {
        let conflict = |number: u32, known: &str| TopicConflict {
            number,
            known: known.to_owned(),
            claimed: topic.to_owned(),
        };
        let index = number.get() as usize;
        if let Some(Some(entry)) = self.entries.get(index) {
            let known = entry.topic.as_str();
            return if known == topic { Ok(()) } else { Err(conflict(number.get(), known)) };
        }
        if let Some(other) = self.number_of(topic) {
            return Err(conflict(other.get(), topic));
        }
        let parsed = Topic::parse_reserved(topic)
            .map_err(|error| conflict(number.get(), &error.to_string()))?;
        self.insert(number.get(), parsed);
        Ok(())
    }

    /// Adds one visible event to a topic that has its number already. Events come in offset order.
    pub fn add_event(&mut self, number: TopicNumber, offset: Offset, time_ms: u64) {
        self.add_events(number, 1, offset, offset, time_ms);
    }

    /// Adds `count` visible events to a topic that has its number already, the first and the last of
    /// which are given. Parts of a log come in offset order.
    pub fn add_events(
        &mut self,
        number: TopicNumber,
        count: u64,
        first: Offset,
        last: Offset,
        last_time_ms: u64,
    ) {
        let entry = self.entries[number.get() as usize].as_mut();
        let entry = entry.expect("a topic has its number before its events are visible");
        if entry.count == 0 {
            entry.first = first;
            entry.first_time_ms = last_time_ms;
            self.listed.insert(entry.topic.clone(), number);
        } else {
            assert!(entry.last < first, "the events of a topic come in offset order");
        }
        entry.count += count;
        entry.last = last;
        entry.last_time_ms = last_time_ms;
    }

    /// Learns of a topic that has its number already that its last event so far is gone.
    pub fn note_last(&mut self, number: TopicNumber, last: Offset, last_time_ms: u64) {
        let entry = self.entries[number.get() as usize].as_mut();
        let entry = entry.expect("a topic has its number before anything is said of it");
        if entry.first > entry.last {
            entry.first = last;
        }
        entry.last = entry.last.max(last);
        entry.last_time_ms = entry.last_time_ms.max(last_time_ms);
    }

    /// Every event of a topic up to its last so far is gone.
    pub fn clear(&mut self, number: TopicNumber) {
        let Some(Some(entry)) = self.entries.get_mut(number.get() as usize) else { return };
        entry.count = 0;
        entry.first = entry.last;
        self.listed.remove(entry.topic.as_str());
    }

    /// Clears the topics whose last event lies below what is kept of them.
    pub fn clear_below(&mut self, floors: &[(String, Offset)]) {
        for (topic, floor) in floors {
            if let Some(number) = self.number_of(topic)
                && self.last_ever(topic).is_some_and(|last| last < *floor)
            {
                self.clear(number);
                continue;
            }
            // Its former life does not make it old. (Late rather than early.)
            let number = self.number_of(topic).map_or(usize::MAX, |number| number.get() as usize);
            if let Some(Some(entry)) = self.entries.get_mut(number)
                && entry.first < *floor
            {
                entry.first_time_ms = entry.last_time_ms;
            }
        }
    }

    /// Of the `count` topics from number `from` on, those that `is_over` says are over, given a name and
    /// the times of the first and the last event; and where to go on, from the first again at the end.
    pub fn find_over(
        &self,
        from: usize,
        count: usize,
        mut is_over: impl FnMut(&str, u64, u64) -> bool,
    ) -> (Vec<String>, usize) {
        let end = self.entries.len().min(from.saturating_add(count));
        let entries = self.entries.get(from..end).unwrap_or_default().iter().flatten();
        let with_events = entries.filter(|entry| entry.count > 0);
        let over = with_events.filter(|entry| {
            let topic = entry.topic.as_str();
            !topic.starts_with('$') && is_over(topic, entry.first_time_ms, entry.last_time_ms)
        });
        let names = over.map(|entry| entry.topic.as_str().to_owned()).collect();
        (names, if end == self.entries.len() { 0 } else { end })
    }

    /// What is left of a topic, as somebody has counted it.
    pub fn recount(&mut self, number: TopicNumber, count: u64, first: Offset) {
        let Some(Some(entry)) = self.entries.get_mut(number.get() as usize) else { return };
        if entry.count > 0 && count > 0 {
            (entry.count, entry.first) = (count, first);
        }
    }

    /// What is known of a listed topic.
    pub fn get(&self, topic: &str) -> Option<TopicSummary> {
        self.summary(self.number_of(topic)?)
    }

    /// The last event that a topic ever had, be it gone.
    pub fn last_ever(&self, topic: &str) -> Option<Offset> {
        let number = self.number_of(topic)?;
        let entry = self.entries.get(number.get() as usize)?.as_ref()?;
        (entry.first <= entry.last).then_some(entry.last)
    }

    /// The name of a number.
    pub fn topic(&self, number: TopicNumber) -> Option<&Topic> {
        self.entries.get(number.get() as usize)?.as_ref().map(|entry| &entry.topic)
    }

    /// At most `limit` listed topics whose names begin with the bytes of `prefix` and come behind
    /// `after`, ordered by name.
    pub fn page(&self, prefix: &str, after: Option<&str>, limit: usize) -> Vec<TopicSummary> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        self.listed
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(|(topic, _)| topic.starts_with(prefix))
            .take(limit)
            .filter_map(|(_, number)| self.summary(*number))
            .collect()
    }

    /// The numbers of the listed topics that a pattern matches; `None` if more than `looked_at_max`
    /// would have to be looked at.
    pub fn matching(
        &self,
        pattern: &TopicPattern,
        looked_at_max: usize,
    ) -> Option<Vec<TopicNumber>> {
        let prefix = pattern.literal_prefix();
        let mut numbers = Vec::new();
        let listed = self.listed.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        for (looked_at, (topic, number)) in
            listed.take_while(|(topic, _)| topic.starts_with(prefix)).enumerate()
        {
            if looked_at == looked_at_max {
                return None;
            }
            if pattern.matches(topic) {
                numbers.push(*number);
            }
        }
        Some(numbers)
    }

    fn summary(&self, number: TopicNumber) -> Option<TopicSummary> {
        let entry = self.entries.get(number.get() as usize)?.as_ref()?;
        (entry.count > 0).then(|| TopicSummary {
            topic: entry.topic.clone(),
            number,
            count: entry.count,
            first: entry.first,
            last: entry.last,
            last_time_ms: entry.last_time_ms,
        })
    }

    fn name_at(&self, number: u32) -> &str {
        let entry = self.entries[number as usize].as_ref();
        entry.expect("the hash table holds known numbers").topic.as_str()
    }

    fn insert(&mut self, number: u32, topic: Topic) {
        let index = number as usize;
        if index >= self.entries.len() {
            self.entries.resize_with(index + 1, || None);
        }
        let hash = self.hasher.hash_one(topic.as_str());
        self.entries[index] = Some(Entry {
            topic,
            count: 0,
            first: Offset::MAX,
            last: Offset::ZERO,
            first_time_ms: 0,
            last_time_ms: 0,
        });
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.numbers.insert_unique(hash, number, |number| {
            let entry = entries[*number as usize].as_ref();
            hasher.hash_one(entry.expect("the hash table holds known numbers").topic.as_str())
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: &str) -> Topic {
        Topic::parse(name).expect("a topic")
    }

    fn names(page: &[TopicSummary]) -> Vec<&str> {
        page.iter().map(|summary| summary.topic.as_str()).collect()
    }

    #[test]
    fn numbers_come_at_staging_and_listing_with_the_first_visible_event() {
        let mut table = TopicTable::default();
        let a = table.assign(&topic("a"));
        let b = table.assign(&topic("b/c"));
        assert_eq!((a, b), (TopicNumber::new(0), TopicNumber::new(1)));
        assert_eq!(table.assign(&topic("a")), a);
        assert_eq!((table.len(), table.get("a")), (0, None), "not visible yet");
        table.add_event(b, Offset::new(7), 70);
        table.add_event(b, Offset::new(9), 90);
        let summary = table.get("b/c").expect("listed");
        assert_eq!(
            (summary.count, summary.first, summary.last),
            (2, Offset::new(7), Offset::new(9))
        );
        assert_eq!(summary.last_time_ms, 90);
        assert_eq!(table.topic(b), Some(&topic("b/c")));
    }

    #[test]
    fn pages_go_by_bytes() {
        let mut table = TopicTable::default();
        for (offset, name) in (0..).zip(["b", "a/b", "a", "ab", "a/c", "é"]) {
            let number = table.assign(&topic(name));
            table.add_event(number, Offset::new(offset), 0);
        }
        assert_eq!(names(&table.page("", None, 9)), ["a", "a/b", "a/c", "ab", "b", "é"]);
        assert_eq!(names(&table.page("a/", None, 9)), ["a/b", "a/c"]);
        assert_eq!(names(&table.page("a", Some("a/b"), 2)), ["a/c", "ab"]);
        assert_eq!(names(&table.page("a", Some(""), 1)), ["a"]);
        assert!(table.page("a", Some("b"), 9).is_empty());
        assert!(table.page("zz", None, 9).is_empty());
    }

    #[test]
    fn files_that_disagree_are_found_out() {
        let mut table = TopicTable::default();
        table.declare(TopicNumber::new(3), "a").expect("the first to claim it");
        table.declare(TopicNumber::new(3), "a").expect("the same again");
        assert!(table.declare(TopicNumber::new(3), "b").is_err());
        assert!(table.declare(TopicNumber::new(4), "a").is_err());
        assert!(table.declare(TopicNumber::new(4), "a//b").is_err());
        assert_eq!(table.assign(&topic("new")), TopicNumber::new(4), "behind all known numbers");
        table.declare(TopicNumber::new(1), "$groups/x").expect("reserved topics are topics");
    }
}
