//! The topics of a log: name -> number, count, first and last event. Pure.
//!
//! A topic gets its number when the frame of its first event is begun, and is *listed* once that event is
//! visible: what a crash could take back is counted nowhere. Numbers are dense from 0, so that the
//! entries are one table.
//!
//! A log may hold millions of topics. Each takes, beside its name: an entry of 40 bytes; 9 to 12 in a
//! hash table (21 while it moves to a larger one), which holds numbers alone and finds names through
//! the entries; and 8 to 16 in the order of names, by which they are listed. Nothing here is ever copied
//! whole: entries lie in pages, names in pieces (`names`), and the hash table moves to a larger one by
//! and by (`numbers`), so that no append waits while a million topics move.

use std::{
    hash::{BuildHasher, RandomState},
    ops::ControlFlow,
};

use crate::{
    event::StagedEvent,
    offset::Offset,
    topic::{Topic, TopicNumber, TopicPattern, check_name},
};

mod entries;
pub(crate) mod names;
mod numbers;
mod order;

use entries::{Entries, Entry, U48};
use names::{NamePlace, Names};
use numbers::Numbers;
use order::Order;

/// Of how many topics what is known is looked at before it is used.
const LOOKED_AT: usize = 64;

/// The topics of one log.
#[derive(Debug)]
pub struct TopicTable {
    entries: Entries,
    names: Names,
    /// The numbers, by the hash of their names.
    numbers: Numbers,
    hasher: RandomState,
    /// The listed ones.
    listed: Order,
}

impl Default for TopicTable {
    fn default() -> Self {
        TopicTable {
            entries: Entries::default(),
            names: Names::default(),
            numbers: Numbers::default(),
            hasher: RandomState::new(),
            listed: Order::default(),
        }
    }
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

/// A topic that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundOver {
    /// Its number.
    pub number: u32,
    /// Its name.
    pub topic: String,
    /// When its first event was appended, or shortly after that.
    pub first_ms: u64,
    /// When its last was.
    pub last_ms: u64,
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
        self.len() == 0
    }

    /// The number of a topic, listed or only on its way to the disk.
    pub fn number_of(&self, topic: &str) -> Option<TopicNumber> {
        self.find_hashed(self.hash(topic), topic)
    }

    /// The same of a topic whose hash is known.
    fn find_hashed(&self, hash: u64, topic: &str) -> Option<TopicNumber> {
        let same = |number| self.is_named(TopicNumber::new(number), topic);
        self.numbers.find(hash, same).map(TopicNumber::new)
    }

    fn hash(&self, topic: &str) -> u64 {
        hash_of(&self.hasher, topic.as_bytes())
    }

    /// Gives events the numbers of their topics, new ones to topics that have none yet.
    ///
    /// What is known of a topic lies in four places, and of a million topics none of them is near: so each
    /// kind of place is looked at for many of them first, which the processor does at the same time, and
    /// not one behind the other for each topic.
    pub fn number_all(&mut self, events: &mut [StagedEvent]) {
        let mut of_a_topic = events.chunk_by_mut(|one, next| one.event.topic == next.event.topic);
        let mut some = Vec::with_capacity(LOOKED_AT);
        loop {
            let next = of_a_topic.by_ref().take(LOOKED_AT);
            some.extend(next.map(|events| (self.hash(&events[0].event.topic), events)));
            let hashes = || some.iter().map(|(hash, _)| *hash);
            // The first that it may be, which it nearly always is.
            let numbers: Vec<Option<TopicNumber>> = hashes().map(|hash| self.guess(hash)).collect();
            if numbers.len() > 1 {
                self.look_at_names(numbers.iter().flatten().copied());
            }
            if numbers.is_empty() {
                break;
            }
            for ((hash, events), number) in some.drain(..).zip(numbers) {
                let topic = &events[0].event.topic;
                let found = number.filter(|number| self.is_named(*number, topic));
                let number = found.unwrap_or_else(|| self.assign_hashed(hash, topic));
                events.iter_mut().for_each(|staged| staged.topic_number = number);
            }
        }
    }

    /// The number of the first topic that a hash may be of, which nearly always is the one.
    fn guess(&self, hash: u64) -> Option<TopicNumber> {
        self.numbers.find(hash, |_| true).map(TopicNumber::new)
    }

    /// Looks at the names of topics that may have these numbers, before they are compared: for the same reason.
    pub(crate) fn look_at_names(&self, numbers: impl Iterator<Item = TopicNumber>) {
        // Entries first: they say where names lie.
        let places: Vec<NamePlace> = numbers.filter_map(|number| self.name_place(number)).collect();
        names::look(places.iter().map(|place| self.names.bytes(*place)));
    }

    /// Looks at what is known of some topics that have their numbers, so that it is near when events are
    /// added to them: for the same reason.
    pub fn look(&self, numbers: impl Iterator<Item = TopicNumber>) {
        let entries = numbers.filter_map(|number| self.entries.get(number.get()));
        std::hint::black_box(entries.map(|entry| entry.last.get()).fold(0, u64::wrapping_add));
    }

    /// The number of a topic; a new one if it has none yet.
    pub fn assign(&mut self, topic: &Topic) -> TopicNumber {
        self.assign_hashed(self.hash(topic), topic)
    }

    /// The same, of a topic whose hash is known.
    fn assign_hashed(&mut self, hash: u64, topic: &Topic) -> TopicNumber {
        if let Some(number) = self.find_hashed(hash, topic) {
            return number;
        }
        let number = self.entries.end;
        self.insert(number, topic, hash);
        TopicNumber::new(number)
    }

    /// Learns from a file that a topic has this number.
    pub fn declare(&mut self, number: TopicNumber, topic: &str) -> Result<(), TopicConflict> {
        let conflict = |number: u32, known: &str| TopicConflict {
            number,
            known: known.to_owned(),
            claimed: topic.to_owned(),
        };
        if let Some(known) = self.name_of(number) {
            return if known == topic { Ok(()) } else { Err(conflict(number.get(), known)) };
        }
        let hash = self.hash(topic);
        if let Some(other) = self.find_hashed(hash, topic) {
            return Err(conflict(other.get(), topic));
        }
        check_name(topic).map_err(|error| conflict(number.get(), &error.to_string()))?;
        self.insert(number.get(), topic, hash);
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
        let entry = self.entries.get_mut(number.get());
        let entry = entry.expect("a topic has its number before its events are visible");
        let known = entry.count.get();
        if known > 0 {
            assert!(entry.last < first, "the events of a topic come in offset order");
        } else {
            entry.first = first;
            entry.set_first_time_ms(last_time_ms);
        }
        entry.count = U48::new(known + count);
        entry.last = last;
        entry.last_time_ms = U48::new(last_time_ms);
        if known == 0 {
            let name = self.names.bytes(entry.name);
            let (entries, names) = (&self.entries, &self.names);
            self.listed.insert(number.get(), name, |number| name_at(entries, names, number));
        }
    }

    /// Learns of a topic that has its number already that its last event so far is gone.
    pub fn note_last(&mut self, number: TopicNumber, last: Offset, last_time_ms: u64) {
        let entry = self.entries.get_mut(number.get());
        let entry = entry.expect("a topic has its number before anything is said of it");
        if entry.first > entry.last {
            entry.first = last;
        }
        entry.last = entry.last.max(last);
        entry.last_time_ms = U48::new(entry.last_time_ms.get().max(last_time_ms));
    }

    /// Every event of a topic up to its last so far is gone.
    pub fn clear(&mut self, number: TopicNumber) {
        let Some(entry) = self.entries.get_mut(number.get()) else { return };
        entry.first = entry.last;
        if std::mem::take(&mut entry.count) != U48::default() {
            let name = self.names.bytes(entry.name);
            let (entries, names) = (&self.entries, &self.names);
            self.listed.remove(name, |number| name_at(entries, names, number));
        }
    }

    /// Clears the topics whose last event lies below what is kept of them.
    pub fn clear_below(&mut self, floors: &[(String, Offset)]) {
        for (topic, floor) in floors {
            let Some(number) = self.number_of(topic) else { continue };
            let Some(entry) = self.entries.get_mut(number.get()) else { continue };
            if entry.first <= entry.last && entry.last < *floor {
                self.clear(number);
            }
        }
    }

    /// The same where what is gone of a topic was a life of its own, or may have been: after a start nobody knows.
    pub fn clear_former_lives(&mut self, floors: &[(String, Offset)]) {
        self.clear_below(floors);
        for (topic, floor) in floors {
            let Some(number) = self.number_of(topic) else { continue };
            let Some(entry) = self.entries.get_mut(number.get()) else { continue };
            if entry.first < *floor {
                // That does not make it old. (Late rather than early.)
                entry.set_first_time_ms(entry.last_time_ms.get());
            }
        }
    }

    /// Of the `count` topics from number `from` on, those that `is_over` says are over, given a name and
    /// the times of the first and the last event; and where to go on, from the first again at the end.
    pub fn find_over(
        &self,
        from: u32,
        count: u32,
        mut is_over: impl FnMut(&str, u64, u64) -> bool,
    ) -> (Vec<FoundOver>, u32) {
        let end = self.entries.end.min(from.saturating_add(count));
        let known = (from..end).filter_map(|number| Some((number, self.entries.get(number)?)));
        let with_events = known.filter(|(_, entry)| entry.count != U48::default());
        let over = with_events.filter_map(|(number, entry)| {
            let topic = self.names.get(entry.name);
            let (first_ms, last_ms) = (entry.first_time_ms(), entry.last_time_ms.get());
            let is_over = !topic.starts_with('$') && is_over(topic, first_ms, last_ms);
            is_over.then(|| FoundOver { number, topic: topic.to_owned(), first_ms, last_ms })
        });
        (over.collect(), if end == self.entries.end { 0 } else { end })
    }

    /// What is left of a topic, as somebody has counted it.
    pub fn recount(&mut self, number: TopicNumber, count: u64, first: Offset) {
        let Some(entry) = self.entries.get_mut(number.get()) else { return };
        if entry.count != U48::default() && count > 0 {
            (entry.count, entry.first) = (U48::new(count), first);
        }
    }

    /// What is known of a listed topic.
    pub fn get(&self, topic: &str) -> Option<TopicSummary> {
        self.summary(self.number_of(topic)?)
    }

    /// The last event that a topic ever had, be it gone.
    pub fn last_ever(&self, topic: &str) -> Option<Offset> {
        let entry = self.entries.get(self.number_of(topic)?.get())?;
        (entry.first <= entry.last).then_some(entry.last)
    }

    fn is_named(&self, number: TopicNumber, topic: &str) -> bool {
        self.name_place(number).is_some_and(|name| self.names.bytes(name) == topic.as_bytes())
    }

    /// The name of a number.
    pub fn name_of(&self, number: TopicNumber) -> Option<&str> {
        self.entries.get(number.get()).map(|entry| self.names.get(entry.name))
    }

    /// At most `limit` listed topics whose names begin with the bytes of `prefix` and come behind
    /// `after`, ordered by name.
    pub fn page(&self, prefix: &str, after: Option<&str>, limit: usize) -> Vec<TopicSummary> {
        let after = after.filter(|after| *after >= prefix);
        let mut page = Vec::new();
        self.walk(after.unwrap_or(prefix), |number, topic| {
            if Some(topic) == after {
                return ControlFlow::Continue(());
            }
            if page.len() == limit || !topic.starts_with(prefix) {
                return ControlFlow::Break(());
            }
            page.extend(self.summary(number));
            ControlFlow::Continue(())
        });
        page
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
        let mut looked_at = 0;
        self.walk(prefix, |number, topic| {
            if !topic.starts_with(prefix) {
                return ControlFlow::Break(());
            }
            looked_at += 1;
            if looked_at > looked_at_max {
                return ControlFlow::Break(());
            }
            if pattern.matches(topic) {
                numbers.push(number);
            }
            ControlFlow::Continue(())
        });
        (looked_at <= looked_at_max).then_some(numbers)
    }

    /// All names of this table, for who knows their places ([`TopicTable::name_place`]).
    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    /// Where the name of a number lies in [`TopicTable::names`].
    pub(crate) fn name_place(&self, number: TopicNumber) -> Option<NamePlace> {
        self.entries.get(number.get()).map(|entry| entry.name)
    }

    /// No more than so many bytes all names have together.
    pub(crate) fn names_bytes_max(&self) -> u64 {
        self.names.memory_bytes() as u64
    }

    /// About how much memory it takes.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + self.entries.memory_bytes()
            + self.numbers.memory_bytes()
            + self.names.memory_bytes()
            + self.listed.memory_bytes()
    }

    /// The listed topics in order, from the first whose name is not below `from` on.
    fn walk<'a>(
        &'a self,
        from: &str,
        mut take: impl FnMut(TopicNumber, &'a str) -> ControlFlow<()>,
    ) {
        let name_of = |number| name_at(&self.entries, &self.names, number);
        self.listed.walk(from.as_bytes(), name_of, |number| {
            let number = TopicNumber::new(number);
            take(number, self.name_of(number).expect("it is listed"))
        });
    }

    fn summary(&self, number: TopicNumber) -> Option<TopicSummary> {
        let entry = self.entries.get(number.get())?;
        let count = entry.count.get();
        (count > 0).then(|| TopicSummary {
            topic: Topic::of_known(self.names.get(entry.name)),
            number,
            count,
            first: entry.first,
            last: entry.last,
            last_time_ms: entry.last_time_ms.get(),
        })
    }

    fn insert(&mut self, number: u32, topic: &str, hash: u64) {
        let name = self.names.add(topic);
        self.entries.put(number, Entry { name, ..Entry::NONE });
        let (entries, names, hasher) = (&self.entries, &self.names, &self.hasher);
        self.numbers.add(hash, number, |numbers, hashes| {
            let name_of =
                |number: &u32| names.bytes(entries.get(*number).expect("numbers are known").name);
            // Names are looked at together, so that the waits for them overlap.
            names::look(numbers.iter().map(name_of));
            hashes.extend(numbers.iter().map(|number| hash_of(hasher, name_of(number))));
        });
    }
}

fn hash_of(hasher: &RandomState, name: &[u8]) -> u64 {
    hasher.hash_one(name)
}

fn name_at<'a>(entries: &Entries, names: &'a Names, number: u32) -> &'a [u8] {
    names.bytes(entries.get(number).expect("numbers are known").name)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::event::NewEvent;

    fn topic(name: &str) -> Topic {
        Topic::parse(name).expect("a topic")
    }

    fn staged(name: &str) -> StagedEvent {
        let event = NewEvent::json(topic(name), Bytes::from_static(b"1"));
        let (offset, topic_number) = (Offset::ZERO, TopicNumber::new(u32::MAX));
        StagedEvent { offset, time_ms: 0, topic_number, event }
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
        assert_eq!(table.name_of(b), Some("b/c"));
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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// So many topics that now and then the first that a hash finds is another.
        #[test]
        fn numbers_given_to_many_are_those_given_one_by_one(
            frames in vec(vec(prop_oneof![0..4_u32, 0..20_000_u32], 0..300), 1..8),
            declared in vec(0..20_000_u32, 0..4),
        ) {
            let (mut together, mut alone) = (TopicTable::default(), TopicTable::default());
            for number in 0..10_000 {
                let name = format!("t/{}", number * 2);
                prop_assert_eq!(together.assign(&topic(&name)), alone.assign(&topic(&name)));
            }
            for (turn, frame) in frames.into_iter().enumerate() {
                let names = frame.iter().map(|number| format!("t/{number}"));
                let mut events: Vec<StagedEvent> = names.map(|name| staged(&name)).collect();
                together.number_all(&mut events);
                for staged in &events {
                    let topic = &staged.event.topic;
                    prop_assert_eq!(staged.topic_number, alone.assign(topic));
                    prop_assert_eq!(together.name_of(staged.topic_number), Some(topic.as_str()));
                }
                if let Some(number) = declared.get(turn) {
                    let (name, place) = (format!("d/{number}"), TopicNumber::new(50_000 + number));
                    prop_assert_eq!(together.declare(place, &name), alone.declare(place, &name));
                }
            }
        }
    }
}
