//! What control events have come to: the settings that hold, and which events are gone. Pure.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    control::{self, Control, TopicRule},
    event::EventKind,
    index::StoredControl,
    offset::Offset,
    settings::{LogSettings, TopicExpiry, TopicSettings},
    topic::TopicPattern,
};

mod floors;

pub use floors::Floors;

/// Settings are kept of so many topics, and no more: each is a part of the log and of the state that is
/// read at a start.
pub const TOPICS_SET_MAX: usize = 10_000;
/// And of so many patterns: every one may have to be compared with a topic.
pub const PATTERNS_SET_MAX: usize = 1_000;

/// The settings of a log and its topics, and what they, deletions and trims have taken away. A clone
/// shares all of it.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    log: LogSettings,
    topics: Arc<TopicRules>,
    floors: Arc<Floors>,
    /// What settings that do not hold any more have let go.
    keep_from: Offset,
}

/// What was set, by topic or pattern.
#[derive(Clone, Debug, Default)]
struct TopicRules {
    by_text: BTreeMap<Box<str>, TopicSettings>,
    /// The patterns with a wildcard among them, the longest first: which one that is stands at
    /// [`Rules::for_topic`].
    patterns: Vec<(TopicPattern, TopicSettings)>,
}

impl TopicRules {
    fn put(&mut self, pattern: &str, settings: TopicSettings) {
        self.remove(pattern);
        self.by_text.insert(pattern.into(), settings);
        // What is not parsed matches nothing: a newer program has set it.
        if let Ok(parsed) = TopicPattern::parse(pattern)
            && parsed.exact().is_none()
        {
            let at = self.patterns.partition_point(|(known, _)| rank(known) > rank(&parsed));
            self.patterns.insert(at, (parsed, settings));
        }
    }

    fn remove(&mut self, pattern: &str) {
        if self.by_text.remove(pattern).is_some() {
            self.patterns.retain(|(known, _)| known.as_str() != pattern);
        }
    }
}

/// By what one pattern is longer than another.
fn rank(pattern: &TopicPattern) -> (usize, usize, &str) {
    let text = pattern.as_str();
    (text.split('/').filter(|level| *level != "**").count(), text.len(), text)
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
        self.topics.by_text.iter().map(|(pattern, settings)| (&**pattern, settings))
    }

    /// What was set for exactly this topic or pattern.
    pub fn set_for(&self, pattern: &str) -> Option<&TopicSettings> {
        self.topics.by_text.get(pattern)
    }

    /// How many topics, or patterns if it is one, have settings where this one would be one too many.
    pub fn is_full_for(&self, pattern: &str) -> Option<usize> {
        let patterns = self.topics.patterns.len();
        let (count, count_max) = match pattern.contains('*') {
            true => (patterns, PATTERNS_SET_MAX),
            false => (self.topics.by_text.len() - patterns, TOPICS_SET_MAX),
        };
        (count >= count_max && self.set_for(pattern).is_none()).then_some(count)
    }

    /// What holds for a topic: its own settings, else those of the longest pattern that matches it: the
    /// one that fixes more levels (`a/*` before `a/**`), then the one with the longer text.
    pub fn for_topic(&self, topic: &str) -> Option<&TopicSettings> {
        let TopicRules { by_text, patterns } = &*self.topics;
        by_text.get(topic).or_else(|| {
            let longest = patterns.iter().find(|(pattern, _)| {
                topic.starts_with(pattern.literal_prefix()) && pattern.matches(topic)
            });
            longest.map(|(_, settings)| settings)
        })
    }

    /// How many patterns have to be compared with a topic.
    pub fn pattern_count(&self) -> usize {
        self.topics.patterns.len()
    }

    /// Whether any topic may be over some day.
    pub fn have_expiry(&self) -> bool {
        self.topics.by_text.values().any(|settings| {
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

    /// Whether topics may keep more events by a control event than by what holds before it.
    pub fn loosens(&self, control: &Control) -> bool {
        let Control::Topic(TopicRule { pattern, settings }) = control else { return false };
        let retain = settings.unwrap_or_default().retain;
        let is_looser = |before: &TopicSettings| retain.is_looser_than(&before.retain);
        if !pattern.contains('*') {
            return self.for_topic(pattern).is_some_and(is_looser);
        }
        match self.set_for(pattern) {
            Some(before) => is_looser(before),
            // It takes topics from any other pattern.
            None => self.topics.patterns.iter().any(|(_, before)| is_looser(before)),
        }
    }

    /// Takes in a control event, in the order of the log. Returns the topics whose floor it has raised.
    pub fn apply(&mut self, control: &Control, offset: Offset) -> Vec<(String, Offset)> {
        match control {
            Control::Log(settings) => self.log = *settings,
            Control::Topic(TopicRule { pattern, settings: Some(settings) }) => {
                Arc::make_mut(&mut self.topics).put(pattern, *settings);
            }
            Control::Topic(TopicRule { pattern, settings: None }) => {
                Arc::make_mut(&mut self.topics).remove(pattern);
            }
            Control::Deleted(deleted) => {
                let floors = Arc::make_mut(&mut self.floors);
                for topic in &deleted.topics {
                    floors.raise(topic, offset, offset);
                    if deleted.with_settings && self.topics.by_text.contains_key(topic.as_str()) {
                        Arc::make_mut(&mut self.topics).remove(topic);
                    }
                }
                return deleted.topics.iter().map(|topic| (topic.clone(), offset)).collect();
            }
            Control::Trimmed(trimmed) => {
                let floor = trimmed.before().min(offset);
                Arc::make_mut(&mut self.floors).raise(&trimmed.topic, floor, offset);
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

    /// Forgets the floors of topics up to an offset before which nobody reads any more. Tells whether there were some.
    pub fn forget_below(&mut self, start: Offset) -> bool {
        let reach_below = self.floors.reach_below(start);
        if reach_below {
            Arc::make_mut(&mut self.floors).forget_below(start);
        }
        reach_below
    }

    /// A rewrite has dropped events before `end`: see [`Floors::settled`].
    pub fn settle_to(&mut self, end: Offset) {
        if self.floors.settled() < end {
            Arc::make_mut(&mut self.floors).settle_to(end);
        }
    }

    /// Nothing is left of these topics below these floors.
    pub fn forget_floors(&mut self, settled: &[(String, Offset)]) {
        if !settled.is_empty() {
            let floors = Arc::make_mut(&mut self.floors);
            settled.iter().for_each(|(topic, floor)| floors.forget(topic, *floor));
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
    fn what_keeps_more_than_before_loosens() {
        let mut rules = Rules::default();
        let set = |pattern: &str, retain| {
            let settings = TopicSettings { retain, ..TopicSettings::default() };
            Control::Topic(TopicRule { pattern: pattern.into(), settings: Some(settings) })
        };
        let none = TopicRetention::default();
        let retain = TopicRetention { age_s: Some(5), count: Some(5), latest_per_key: true };
        assert!(!rules.loosens(&set("a/*", none)), "nothing held");
        rules.apply(&set("a/*", retain), Offset::ZERO);
        for (looser, stricter) in [
            (
                TopicRetention { age_s: Some(6), ..retain },
                TopicRetention { age_s: Some(4), ..retain },
            ),
            (TopicRetention { count: None, ..retain }, TopicRetention { count: Some(4), ..retain }),
            (TopicRetention { latest_per_key: false, ..retain }, retain),
        ] {
            for pattern in ["a/*", "a/b", "*/b"] {
                assert!(rules.loosens(&set(pattern, looser)), "{pattern} {looser:?}");
                assert!(!rules.loosens(&set(pattern, stricter)), "{pattern} {stricter:?}");
            }
            assert!(!rules.loosens(&set("b", looser)), "of no pattern");
        }
        let gone = TopicRule { pattern: "a/*".into(), settings: None };
        assert!(rules.loosens(&Control::Topic(gone)));
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
