//! Which events of a frame a reader gets: the same for sealed segments, the unsealed part and live
//! frames.
//!
//! A frame carries the table of its topics, so a pattern is matched once per topic of the frame and
//! not once per event; a frame all or none of whose topics match is decided without looking at one
//! event.

use std::{collections::HashSet, ops::Range, sync::Arc};

use crate::{
    event::EventView,
    frame::Frame,
    offset::Offset,
    topic::{Topic, TopicPattern},
};

/// Which end is read first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Order {
    /// The oldest event first.
    #[default]
    Ascending,
    /// The newest event first.
    Descending,
}

/// The topics that a reader asks for, made ready for matching.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Everything, reserved topics too.
    everything: bool,
    /// As they were given.
    sources: Vec<TopicPattern>,
    /// Those without wildcards, and those with.
    exact: HashSet<Topic>,
    patterns: Vec<TopicPattern>,
}

impl Selection {
    /// What any of the patterns matches; without a pattern, everything, reserved topics too.
    pub fn new(patterns: &[TopicPattern]) -> Self {
        let exact = patterns.iter().filter_map(TopicPattern::exact);
        Selection {
            everything: patterns.is_empty(),
            sources: patterns.to_vec(),
            exact: exact
                .map(|name| Topic::parse_reserved(name).expect("a parsed pattern"))
                .collect(),
            patterns: patterns
                .iter()
                .filter(|pattern| pattern.exact().is_none())
                .cloned()
                .collect(),
        }
    }

    /// Whether an event of this topic is wanted.
    pub fn matches(&self, topic: &str) -> bool {
        self.everything
            || self.exact.contains(topic)
            || self.patterns.iter().any(|pattern| pattern.matches(topic))
    }

    /// Whether it takes every event, or every one of a topic that is not reserved: then an index
    /// of topics cannot help.
    pub fn is_all(&self) -> bool {
        self.everything || self.patterns.iter().any(TopicPattern::is_all)
    }

    /// The patterns that it was made of.
    pub fn sources(&self) -> &[TopicPattern] {
        &self.sources
    }

    /// The events of `frame` that are wanted and whose offsets lie in `range`.
    pub fn pick(&self, frame: &Frame, range: Range<Offset>) -> Picks {
        let indexes = indexes_in(frame, &range);
        if indexes.is_empty() {
            return Picks::NONE;
        }
        if self.everything {
            return Picks(Kind::Range(indexes));
        }
        let wanted: Vec<bool> = frame.topics().map(|(_, name)| self.matches(name)).collect();
        if wanted.iter().all(|wanted| *wanted) {
            return Picks(Kind::Range(indexes));
        }
        if !wanted.contains(&true) {
            return Picks::NONE;
        }
        let index = |index: usize| u32::try_from(index).expect("a frame holds fewer events");
        let list: Vec<u32> = indexes
            .clone()
            .filter(|event| wanted[frame.event(*event).topic_index()])
            .map(index)
            .collect();
        if list.len() == indexes.len() {
            Picks(Kind::Range(indexes))
        } else {
            Picks(Kind::List(list.into()))
        }
    }
}

/// The events of a frame whose offsets lie in `range`, as indexes into the frame.
fn indexes_in(frame: &Frame, range: &Range<Offset>) -> Range<usize> {
    if frame.base_offset() >= range.start && frame.end_offset() <= range.end {
        return 0..frame.len();
    }
    frame.index_at(range.start)..frame.index_at(range.end)
}

/// Some events of one frame, as indexes in ascending order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picks(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// A run of events, perhaps all: the usual case, and free.
    Range(Range<usize>),
    List(Arc<[u32]>),
}

impl Picks {
    /// No event.
    pub const NONE: Picks = Picks(Kind::Range(0..0));

    /// All events of a frame.
    pub fn all(frame: &Frame) -> Self {
        Picks(Kind::Range(0..frame.len()))
    }

    /// How many events.
    pub fn len(&self) -> usize {
        match &self.0 {
            Kind::Range(range) => range.len(),
            Kind::List(list) => list.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The index in the frame of the `nth` pick, counted from 0 in ascending order.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn index(&self, nth: usize) -> usize {
        match &self.0 {
            Kind::Range(range) => {
                assert!(nth < range.len(), "pick {nth} of {}", range.len());
                range.start + nth
            }
            Kind::List(list) => list[nth] as usize,
        }
    }

    /// The indexes, ascending.
    pub fn indexes(&self) -> impl DoubleEndedIterator<Item = usize> + ExactSizeIterator {
        (0..self.len()).map(|nth| self.index(nth))
    }

    /// The first `count` of them, in ascending order.
    #[must_use]
    pub fn first(&self, count: usize) -> Picks {
        self.slice(0..count.min(self.len()))
    }

    /// The last `count` of them, in ascending order.
    #[must_use]
    pub fn last(&self, count: usize) -> Picks {
        self.slice(self.len().saturating_sub(count)..self.len())
    }

    /// Those of which `keep` says so.
    #[must_use]
    pub fn retain(&self, frame: &Frame, keep: impl Fn(&EventView<'_>) -> bool) -> Picks {
        let kept: Vec<u32> = self
            .indexes()
            .filter(|index| keep(&frame.event(*index)))
            .map(|index| u32::try_from(index).expect("a frame holds fewer events"))
            .collect();
        if kept.len() == self.len() { self.clone() } else { Picks(Kind::List(kept.into())) }
    }

    fn slice(&self, kept: Range<usize>) -> Picks {
        if kept.len() == self.len() {
            return self.clone();
        }
        Picks(match &self.0 {
            Kind::Range(range) => Kind::Range(range.start + kept.start..range.start + kept.end),
            Kind::List(list) => Kind::List(list[kept].into()),
        })
    }

    /// The picked events of the frame they were picked from, ascending.
    pub fn events<'a>(
        &'a self,
        frame: &'a Frame,
    ) -> impl DoubleEndedIterator<Item = EventView<'a>> + ExactSizeIterator {
        self.indexes().map(|index| frame.event(index))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        buffer::DiskBuffer,
        event::{DataForm, EventKind, EventType, NewEvent, StagedEvent},
        frame::{self, FrameFlags, FrameMeta, Seed},
        segment::Incarnation,
        topic::TopicNumber,
    };

    /// A frame from offset 100 on, with an event at each offset that has a topic here.
    fn frame(topics: &[Option<&str>]) -> Frame {
        let meta = FrameMeta {
            base_offset: Offset::new(100),
            commit_time_ms: 5,
            synced_offset: Offset::new(100),
            previous_checksum: 0,
            flags: FrameFlags::NONE,
        };
        let mut names: Vec<&str> = Vec::new();
        let mut events = Vec::new();
        for (offset, topic) in (100..).zip(topics) {
            let Some(topic) = topic else { continue };
            let number = names.iter().position(|name| name == topic).unwrap_or(names.len());
            if number == names.len() {
                names.push(topic);
            }
            events.push(StagedEvent {
                offset: Offset::new(offset),
                time_ms: offset,
                topic_number: TopicNumber::new(u32::try_from(number).expect("few topics")),
                event: NewEvent {
                    topic: Topic::parse_reserved(topic).expect("a topic"),
                    event_type: EventType::message(),
                    id: None,
                    key: None,
                    headers: Vec::new(),
                    content_type: "".into(),
                    form: DataForm::Json,
                    kind: EventKind::Data,
                    data: Bytes::from_static(b"1"),
                },
            });
        }
        let seed = Seed::of(&Incarnation::new([1; 16]));
        frame::encode(&meta, &events, seed, DiskBuffer::default())
    }

    fn picked(frame: &Frame, patterns: &[&str], range: Range<u64>) -> Vec<u64> {
        let patterns: Vec<TopicPattern> =
            patterns.iter().map(|text| TopicPattern::parse(text).expect("a pattern")).collect();
        let range = Offset::new(range.start)..Offset::new(range.end);
        let picks = Selection::new(&patterns).pick(frame, range);
        picks.events(frame).map(|event| event.offset().get()).collect()
    }

    #[test]
    fn topics_patterns_and_ranges_are_picked() {
        let frame = frame(&[Some("a"), Some("b/c"), None, Some("a"), Some("b/d"), Some("$x/a")]);
        assert_eq!(picked(&frame, &[], 0..1000), [100, 101, 103, 104, 105]);
        assert_eq!(picked(&frame, &["**"], 0..1000), [100, 101, 103, 104], "nothing reserved");
        assert_eq!(picked(&frame, &["a"], 0..1000), [100, 103]);
        assert_eq!(picked(&frame, &["b/*"], 0..1000), [101, 104]);
        assert_eq!(picked(&frame, &["b/d", "a"], 0..1000), [100, 103, 104]);
        assert_eq!(picked(&frame, &["b/d", "a"], 101..104), [103]);
        assert_eq!(picked(&frame, &["**"], 102..104), [103], "102 was compacted away");
        assert_eq!(picked(&frame, &["**"], 102..103), [0; 0]);
        assert_eq!(picked(&frame, &["nothing"], 0..1000), [0; 0]);
        assert_eq!(picked(&frame, &["**"], 0..100), [0; 0]);
        assert_eq!(picked(&frame, &["**"], 105..900), [0; 0]);
    }

    #[test]
    fn picks_are_cut_from_either_end() {
        for topics in [[Some("a"); 5], [Some("a"), Some("b"), Some("a"), Some("b"), Some("a")]] {
            let frame = frame(&topics);
            let picks = Selection::new(&[TopicPattern::parse("a").expect("a pattern")])
                .pick(&frame, Offset::ZERO..Offset::MAX);
            let all: Vec<usize> = picks.indexes().collect();
            for count in 0..7 {
                let kept = count.min(all.len());
                assert!(picks.first(count).indexes().eq(all[..kept].iter().copied()));
                assert!(picks.last(count).indexes().eq(all[all.len() - kept..].iter().copied()));
            }
        }
    }
}
