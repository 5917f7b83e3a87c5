//! A snapshot in the making: what the one before said, and what the index of each segment behind it adds.
//!
//! A fold over the log, as recovery is one: see `recovery.rs` and [`crate::state`]. Some 100 bytes and the name
//! for each topic while it lasts.

use std::{collections::BTreeMap, path::Path};

use crate::{
    error::{Corruption, OpenError},
    index::{TopicSummary, delta},
    io::DiskFile,
    offset::{Offset, Position},
    once::IdWindow,
    parts::{Part, Parts},
    segment::Incarnation,
    snapshot::{Assembled, LiveSegment, Snapshot, TopicAt, rules::StoredRules, segments, topics},
    state::LogState,
    stored_index::StoredIndex,
    topic::TopicNumber,
    topics::TopicConflict,
};

/// See the head of this file.
pub(crate) struct Fold {
    /// What has been taken in ends here.
    offset: Offset,
    last_time_ms: u64,
    /// Of the segment that ends there.
    incarnation: Option<Incarnation>,
    topics: BTreeMap<u32, Folded>,
    state: LogState,
}

struct Folded {
    name: Box<str>,
    count: u64,
    first: Offset,
    last: Offset,
    first_time_ms: u64,
    last_time_ms: u64,
    is_lessened: bool,
}

impl Fold {
    /// Of a log from its beginning on. Of ids so many milliseconds by the times of events do not count in their `window`.
    pub(crate) fn new(window: IdWindow, ids_ahead_ms: u64) -> Fold {
        let mut state = LogState::new(window);
        state.ids.lag(ids_ahead_ms);
        Fold {
            offset: Offset::ZERO,
            last_time_ms: 0,
            incarnation: None,
            topics: BTreeMap::new(),
            state,
        }
    }

    /// From a snapshot on.
    pub(crate) fn of(snapshot: &mut Snapshot, window: IdWindow, ids_ahead_ms: u64) -> Fold {
        let mut fold = Fold::new(window, ids_ahead_ms);
        snapshot.give_to(&mut fold.state);
        let header = snapshot.header();
        fold.offset = header.offset;
        fold.last_time_ms = header.last_time_ms;
        fold.incarnation = Some(header.incarnation);
        let added = snapshot.for_each_topic(|topic| {
            let folded = Folded {
                name: topic.name.into(),
                count: topic.count,
                first: topic.first,
                last: topic.last,
                first_time_ms: topic.first_time_ms,
                last_time_ms: topic.last_time_ms,
                is_lessened: topic.is_lessened,
            };
            fold.topics.insert(topic.number.get(), folded);
            Ok::<(), std::convert::Infallible>(())
        });
        let Ok(()) = added;
        fold
    }

    /// What a running log knows, but for what lies behind an offset: a bug that is planted.
    #[cfg(mutations)]
    pub(crate) fn of_live(
        topics: &crate::topics::TopicTable,
        state: &LogState,
        offset: Offset,
        last_time_ms: u64,
        incarnation: Incarnation,
    ) -> Fold {
        let mut fold = Fold::new(state.ids.window(), state.ids.ahead_ms());
        state.ids.iter().filter(|id| id.offset < offset).for_each(|id| fold.state.ids.push(*id));
        let is_below = |first: Offset, events: u32| first.plus(events.into()) <= offset;
        for entry in state.producers.iter().filter(|entry| is_below(entry.first, entry.events)) {
            fold.state.producers.put(entry);
        }
        fold.state.rules = state.rules.clone();
        let listed = topics.page("", None, usize::MAX);
        for topic in listed.iter().filter(|topic| topic.first < offset) {
            let last = topic.last.min(offset.previous().unwrap_or_default());
            let folded = Folded {
                name: topic.topic.as_str().into(),
                count: topic.count.min(last.since(topic.first) + 1),
                first: topic.first,
                last,
                first_time_ms: topic.last_time_ms,
                last_time_ms: topic.last_time_ms,
                is_lessened: false,
            };
            fold.topics.insert(topic.number.get(), folded);
        }
        Fold { offset, last_time_ms, incarnation: Some(incarnation), ..fold }
    }

    /// What has been taken in ends here.
    pub(crate) fn offset(&self) -> Offset {
        self.offset
    }

    /// Takes in the segment that begins where the last one ended, or what is left of it.
    /// After an error it is good for nothing.
    pub(crate) fn add<F: DiskFile>(
        &mut self,
        index: &StoredIndex<F>,
        path: &Path,
    ) -> Result<(), OpenError> {
        let conflict = |conflict: TopicConflict| corrupt(path, conflict.to_string());
        let header = index.header();
        assert_eq!(header.base_offset, self.offset, "segments are taken in in order");
        index.for_each_topic(|name, summary| self.add_events(name, summary)).map_err(conflict)?;
        for gone in index.gone() {
            let topic = self.topic(gone.number.get(), &gone.name).map_err(conflict)?;
            topic.note_last(gone.last_offset, gone.last_time_ms);
        }
        index.add_to(&mut self.state).map_err(OpenError::io("reading", path))?;
        self.offset = header.end_offset;
        self.last_time_ms = self.last_time_ms.max(header.last_time_ms);
        self.incarnation = Some(header.incarnation);
        Ok(())
    }

    /// These topics may have fewer events than had been counted: a segment has been rewritten.
    pub(crate) fn lessen(&mut self, topics: Vec<TopicNumber>) {
        for number in topics {
            if let Some(topic) = self.topics.get_mut(&number.get()) {
                topic.is_lessened = true;
            }
        }
    }

    fn add_events(&mut self, name: &str, summary: &TopicSummary) -> Result<(), TopicConflict> {
        let topic = self.topic(summary.number.get(), name)?;
        if topic.count == 0 {
            topic.first = summary.first_offset;
            topic.first_time_ms = summary.last_time_ms;
        }
        topic.count += summary.event_count;
        topic.note_last(summary.last_offset, summary.last_time_ms);
        Ok(())
    }

    /// The entry of a number, which has this name.
    fn topic(&mut self, number: u32, name: &str) -> Result<&mut Folded, TopicConflict> {
        let topic = self.topics.entry(number).or_insert_with(|| Folded {
            name: name.into(),
            count: 0,
            first: Offset::ZERO,
            last: Offset::ZERO,
            first_time_ms: 0,
            last_time_ms: 0,
            is_lessened: false,
        });
        if *topic.name != *name {
            let (known, claimed) = (topic.name.to_string(), name.to_owned());
            return Err(TopicConflict { number, known, claimed });
        }
        Ok(topic)
    }

    /// The parts of the snapshot's file. `segments` are those below its offset that hold events. Of the silence of producers
    /// `producers_ahead_ms` by the times of events do not count.
    ///
    /// # Panics
    ///
    /// If nothing was taken in.
    pub(crate) fn finish(
        mut self,
        segments: &[LiveSegment],
        producers_ahead_ms: u64,
    ) -> Parts<'static> {
        let kept_from = segments.first().map_or(self.offset, |segment| segment.base);
        let (encoded, topic_count) = self.encode_topics(kept_from);
        let LogState { ids, producers, rules } = &mut self.state;
        rules.forget_below(kept_from);
        // An append comes later than all of these: it asks for none that is too old by now.
        let young = ids.iter().filter(|entry| ids.is_inside(entry, self.last_time_ms));
        let encoded_ids = delta::encode_ids(young, Offset::ZERO);
        let now_s = delta::seconds(self.last_time_ms.saturating_sub(producers_ahead_ms));
        let (controls, floors) = StoredRules::of(rules, kept_from).encode();
        let producers = std::mem::take(producers).into_sorted(now_s);
        let sections = [
            segments::encode(segments).into(),
            encoded.into(),
            encoded_ids.into(),
            Part::Producers(producers),
            controls.into(),
            floors.into(),
        ];
        let snapshot = Assembled {
            offset: self.offset,
            kept_from,
            last_time_ms: self.last_time_ms,
            incarnation: self.incarnation.expect("something was taken in"),
            topic_count,
            sections,
        };
        snapshot.assemble()
    }

    fn encode_topics(&self, kept_from: Offset) -> (Vec<u8>, u64) {
        let floors = self.state.rules.floors();
        let (mut bytes, mut next) = (Vec::new(), 0);
        for (number, topic) in &self.topics {
            let floor = floors.of(&topic.name).max(kept_from);
            let has_events = topic.count > 0 && topic.last >= floor;
            let is_cut = topic.first < floors.of(&topic.name);
            let entry = TopicAt {
                number: TopicNumber::new(*number),
                name: &topic.name,
                count: if has_events { topic.count } else { 0 },
                first: topic.first,
                last: topic.last,
                // Its former life does not make it old.
                first_time_ms: if is_cut { topic.last_time_ms } else { topic.first_time_ms },
                last_time_ms: topic.last_time_ms,
                is_lessened: topic.is_lessened && has_events,
            };
            topics::encode(&mut bytes, &entry, next);
            next = u64::from(*number) + 1;
        }
        (bytes, self.topics.len() as u64)
    }
}

impl Folded {
    fn note_last(&mut self, last: Offset, time_ms: u64) {
        self.last = self.last.max(last);
        self.last_time_ms = self.last_time_ms.max(time_ms);
    }
}

pub(super) fn corrupt(path: &Path, what: String) -> OpenError {
    OpenError::Corrupt(Corruption { file: path.to_owned(), position: Position::default(), what })
}
