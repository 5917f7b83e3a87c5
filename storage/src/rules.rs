//! What control events have come to: the settings that hold, and which events are gone. Pure.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::{
    control::{self, Control, TopicRule},
    event::{EventKind, EventView},
    frame::Frame,
    index::StoredControl,
    offset::Offset,
    reader::Hits,
    settings::{LogSettings, TopicExpiry, TopicSettings},
    topic::TopicPattern,
};

/// The first offset that is kept of each topic that was deleted or trimmed.
///
/// Readers of all shards share it; a change makes another one.
#[derive(Clone, Debug, Default)]
pub struct Floors {
    by_topic: HashMap<Arc<str>, Offset>,
}

impl Floors {
    /// Whether nothing was deleted or trimmed.
    pub fn is_empty(&self) -> bool {
        self.by_topic.is_empty()
    }

    /// Whether any topic of a frame has events below its floor there.
    pub fn concern(&self, frame: &Frame) -> bool {
        !self.is_empty() && frame.topics().any(|(_, topic)| self.of(topic) > frame.base_offset())
    }

    /// Whether an event is gone.
    pub fn hide(&self, event: &EventView<'_>) -> bool {
        event.offset() < self.of(event.topic())
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

    /// How many topics have one.
    pub fn len(&self) -> usize {
        self.by_topic.len()
    }

    /// The first offset of a topic that is kept.
    pub fn of(&self, topic: &str) -> Offset {
        self.by_topic.get(topic).copied().unwrap_or(Offset::ZERO)
    }

    /// The topics that have one, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Offset)> {
        self.by_topic.iter().map(|(topic, floor)| (&**topic, *floor))
    }

    /// Everything of a topic before an offset is gone. A floor never goes down.
    pub fn raise(&mut self, topic: &str, floor: Offset) {
        match self.by_topic.get_mut(topic) {
            Some(known) => *known = floor.max(*known),
            None => drop(self.by_topic.insert(topic.into(), floor)),
        }
    }

    /// Forgets floors that lie at or below the first offset that the log keeps at all.
    pub fn forget_below(&mut self, start: Offset) {
        self.by_topic.retain(|_, floor| *floor > start);
    }
}

/// The settings of a log and its topics, and what they, deletions and trims have taken away.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    log: LogSettings,
    topics: BTreeMap<Box<str>, TopicSettings>,
    floors: Arc<Floors>,
    /// What settings that do not hold any more have let go.
    keep_from: Offset,
}

impl Rules {
    /// The settings of the log.
    pub fn log(&self) -> &LogSettings {
        &self.log
    }

    /// The first offset that settings, which do not hold any more, had kept.
    pub fn keep_from(&self) -> Offset {
        self.keep_from
    }

    /// What was set, by topic or pattern.
    pub fn topics(&self) -> impl ExactSizeIterator<Item = (&str, &TopicSettings)> {
        self.topics.iter().map(|(pattern, settings)| (&**pattern, settings))
    }

    /// What was set for exactly this topic or pattern.
    pub fn set_for(&self, pattern: &str) -> Option<&TopicSettings> {
        self.topics.get(pattern)
    }

    /// What holds for a topic: its own settings, else those of the longest pattern that matches it: the
    /// one that fixes more levels (`a/*` before `a/**`), then the one with the longer text.
    pub fn for_topic(&self, topic: &str) -> Option<&TopicSettings> {
        self.topics.get(topic).or_else(|| {
            let with_wildcard = self.topics.iter().filter(|(text, _)| text.contains('*'));
            let patterns = with_wildcard.filter_map(|(text, settings)| {
                let pattern = TopicPattern::parse(text).ok()?;
                (pattern.exact().is_none() && pattern.matches(topic)).then_some((text, settings))
            });
            let levels = |text: &str| text.split('/').filter(|level| *level != "**").count();
            let longest = patterns.max_by_key(|(text, _)| (levels(text), text.len(), *text));
            longest.map(|(_, settings)| settings)
        })
    }

    /// Whether any topic may be over some day.
    pub fn have_expiry(&self) -> bool {
        self.topics.values().any(|settings| {
            let TopicExpiry { age_s, idle_s } = settings.expire;
            age_s.or(idle_s).is_some()
        })
    }

    /// Whether a topic with a first and a last event of these times is over.
    pub fn is_over(&self, topic: &str, first_ms: u64, last_ms: u64, now_ms: u64) -> bool {
        let Some(settings) = self.for_topic(topic) else { return false };
        let has_passed = |since_ms: u64, limit_s: Option<u64>| {
            limit_s.is_some_and(|limit_s| {
                now_ms >= since_ms.saturating_add(limit_s.saturating_mul(1_000))
            })
        };
        let TopicExpiry { age_s, idle_s } = settings.expire;
        has_passed(first_ms, age_s) || has_passed(last_ms, idle_s)
    }

    /// Which events are gone.
    pub fn floors(&self) -> &Arc<Floors> {
        &self.floors
    }

    /// Takes in a control event, in the order of the log. Returns the topics whose floor it has raised.
    pub fn apply(&mut self, control: &Control, offset: Offset) -> Vec<(String, Offset)> {
        match control {
            Control::Log(settings) => self.log = *settings,
            Control::Topic(TopicRule { pattern, settings: Some(settings) }) => {
                self.topics.insert(pattern.as_str().into(), *settings);
            }
            Control::Topic(TopicRule { pattern, settings: None }) => {
                self.topics.remove(pattern.as_str());
            }
            Control::Deleted(deleted) => {
                let floors = Arc::make_mut(&mut self.floors);
                for topic in &deleted.topics {
                    floors.raise(topic, offset);
                    if deleted.with_settings {
                        self.topics.remove(topic.as_str());
                    }
                }
                return deleted.topics.iter().map(|topic| (topic.clone(), offset)).collect();
            }
            Control::Trimmed(trimmed) => {
                let floor = trimmed.before().min(offset);
                Arc::make_mut(&mut self.floors).raise(&trimmed.topic, floor);
                return vec![(trimmed.topic.clone(), floor)];
            }
        }
        Vec::new()
    }

    /// The same from a segment's index.
    pub fn apply_stored(&mut self, stored: &StoredControl) -> Vec<(String, Offset)> {
        // What cannot be understood was checked when it was appended; a newer program's is skipped.
        let control = Control::decode(stored.kind, &stored.data);
        if stored.kind == EventKind::LogSettings {
            self.keep_from =
                self.keep_from.max(control::kept_from(&stored.data)).min(stored.offset);
        }
        control.map_or_else(Vec::new, |control| self.apply(&control, stored.offset))
    }

    /// The log keeps nothing before this offset any more.
    pub fn forget_below(&mut self, start: Offset) {
        if self.floors.iter().any(|(_, floor)| floor <= start) {
            Arc::make_mut(&mut self.floors).forget_below(start);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        control::{TopicTrimmed, TopicsDeleted},
        settings::TopicRetention,
    };

    fn counting(count: u64) -> TopicSettings {
        let retain = TopicRetention { count: Some(count), ..TopicRetention::default() };
        TopicSettings { retain, ..TopicSettings::default() }
    }

    #[test]
    fn the_exact_topic_wins_and_then_the_longest_pattern() {
        let mut rules = Rules::default();
        for (count, pattern) in [(1, "**"), (2, "a/**"), (3, "a/*/c"), (4, "a/b/c"), (5, "b")] {
            let rule = TopicRule { pattern: pattern.into(), settings: Some(counting(count)) };
            rules.apply(&Control::Topic(rule), Offset::ZERO);
        }
        let of = |rules: &Rules, topic| rules.for_topic(topic).and_then(|set| set.retain.count);
        assert_eq!(of(&rules, "a/b/c"), Some(4));
        assert_eq!(of(&rules, "a/x/c"), Some(3));
        assert_eq!(of(&rules, "a/x"), Some(2));
        assert_eq!((of(&rules, "b"), of(&rules, "b/c")), (Some(5), Some(1)));
        let one_level = TopicRule { pattern: "a/*".into(), settings: Some(counting(6)) };
        rules.apply(&Control::Topic(one_level), Offset::ZERO);
        assert_eq!((of(&rules, "a/x"), of(&rules, "a/x/y")), (Some(6), Some(2)));
        let gone = TopicRule { pattern: "a/b/c".into(), settings: None };
        rules.apply(&Control::Topic(gone), Offset::ZERO);
        assert_eq!(of(&rules, "a/b/c"), Some(3));
    }

    #[test]
    fn floors_only_go_up() {
        let mut rules = Rules::default();
        let trim = |before| Control::Trimmed(TopicTrimmed { topic: "a".into(), before });
        rules.apply(&trim(7), Offset::new(10));
        rules.apply(&trim(5), Offset::new(11));
        assert_eq!(rules.floors().of("a"), Offset::new(7));
        rules.apply(&trim(99), Offset::new(12));
        assert_eq!(rules.floors().of("a"), Offset::new(12), "what comes later is not gone");
        let deleted = TopicsDeleted::of(vec!["a".into(), "b".into()]);
        rules.apply(&Control::Deleted(deleted), Offset::new(20));
        assert_eq!(
            (rules.floors().of("b"), rules.floors().of("c")),
            (Offset::new(20), Offset::ZERO)
        );
        rules.forget_below(Offset::new(20));
        assert!(rules.floors().is_empty());
    }
}
