//! Which events of a sealed segment are dead, and whether it pays to rewrite it without them. Pure.
//!
//! An event is dead once the log or its topic keeps nothing before a later offset (limits, deletions,
//! trims); once its topic's age limit has passed it; once its topic has as many newer events as it may
//! have; and once a newer event of its topic has the same key, where only the latest of each is kept.
//! The last two are decided by what is sealed: what is not, the next rewrite counts.

use std::{cmp::Reverse, collections::HashMap};

use crate::{
    event::EventView,
    index::TopicSummary,
    offset::Offset,
    once::{NameHash, hash_name},
    rules::Rules,
    settings::TopicRetention,
};

/// A segment is rewritten when at least one of so many of its events is dead.
const DEAD_SHARE: u64 = 5;

/// A segment is not looked through for events that have become too old more often than this.
const LOOK_AGAIN_MS: u64 = 60_000;

/// A segment that found no space is tried again once there is more than then, or it needs less, by one of so many parts,
const SPACE_SHARE: u64 = 16;
/// or once none was tried for so long: a little more may do, and some file systems do not say how much there is.
const NO_SPACE_RETRY_MS: u64 = 60_000;

/// What decides over events.
#[derive(Debug)]
pub struct Limits {
    /// Settings, deletions and trims.
    pub rules: Rules,
    /// The log keeps nothing before it.
    pub keep_from: Offset,
    /// The time, in milliseconds since 1970.
    pub now_ms: u64,
}

impl Limits {
    /// What holds for one topic.
    pub fn of(&self, topic: &str) -> TopicLimits {
        let retain =
            self.rules.for_topic(topic).map_or_else(TopicRetention::default, |set| set.retain);
        TopicLimits {
            floor: self.rules.floors().of(topic).max(self.keep_from),
            oldest_ms: retain
                .age_s
                .map_or(0, |age_s| self.now_ms.saturating_sub(age_s.saturating_mul(1_000))),
            count_max: retain.count,
            latest_per_key: retain.latest_per_key,
        }
    }
}

/// What holds for one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicLimits {
    /// Nothing before it is kept.
    pub floor: Offset,
    /// Nothing older is kept.
    pub oldest_ms: u64,
    /// So many events are kept.
    pub count_max: Option<u64>,
    /// Only the newest event of each key is kept.
    pub latest_per_key: bool,
}

impl TopicLimits {
    /// How many of the topic's events in a segment are dead for certain, `newer` being how many it has
    /// in the segments behind.
    pub fn dead_at_least(&self, summary: &TopicSummary, newer: u64) -> u64 {
        // Times do not descend: the last is the latest.
        if summary.last_offset < self.floor || summary.last_time_ms < self.oldest_ms {
            return summary.event_count;
        }
        self.excess(summary.event_count, newer)
    }

    /// How many of the oldest of `count` events are beyond what the topic may have.
    pub fn excess(&self, count: u64, newer: u64) -> u64 {
        let Some(count_max) = self.count_max else { return 0 };
        count.saturating_add(newer).saturating_sub(count_max).min(count)
    }

    /// By what more of the topic's events in a segment, whose first one is of `first_time_ms`, may be dead than are for
    /// certain.
    pub fn hides(&self, summary: &TopicSummary, newer: u64, first_time_ms: u64) -> Hidden {
        if self.dead_at_least(summary, newer) == summary.event_count {
            return Hidden::default();
        }
        Hidden {
            by_floor: summary.first_offset < self.floor,
            by_age: first_time_ms < self.oldest_ms,
            by_key: self.latest_per_key,
        }
    }
}

/// By what more events of a segment may be dead than its index says: it has to be looked through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hidden {
    /// A deletion or a trim.
    pub by_floor: bool,
    /// Their age.
    pub by_age: bool,
    /// Newer events with the same keys.
    pub by_key: bool,
}

impl Hidden {
    /// Both.
    pub fn or(self, other: Hidden) -> Hidden {
        Hidden {
            by_floor: self.by_floor || other.by_floor,
            by_age: self.by_age || other.by_age,
            by_key: self.by_key || other.by_key,
        }
    }
}

/// When a segment was last looked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// How far the sealed part of the log reached.
    pub end: Offset,
    /// The time, in milliseconds since 1970.
    pub at_ms: u64,
}

impl Look {
    /// Whether a segment that begins at `base` and spans `span_ms` of time may have so many more dead events
    /// by `now` that it is worth looking again. Deletions and trims since then do not come here: they are
    /// looked for at once. By age a share of it dies in that share of its span. Keys are looked for anew
    /// when what lies behind has grown by a share: a log of n segments is read n log n times, not n².
    pub fn is_over(&self, hidden: Hidden, base: Offset, span_ms: u64, now: Look) -> bool {
        let grown = now.end.get().saturating_sub(self.end.get());
        let aged_ms = now.at_ms.saturating_sub(self.at_ms);
        (hidden.by_age && aged_ms >= (span_ms / DEAD_SHARE).max(LOOK_AGAIN_MS))
            || (hidden.by_key && grown > 0 && grown >= self.end.since(base) / DEAD_SHARE)
    }
}

/// Whether a segment with so many dead events is worth a rewrite.
pub fn pays(dead: u64, events: u64) -> bool {
    dead > 0 && dead.saturating_mul(DEAD_SHARE) >= events
}

/// What a segment has, as far as its index says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prospect {
    /// The length of its files.
    pub bytes: u64,
    /// Its events.
    pub events: u64,
    /// How many of them are dead for certain.
    pub dead: u64,
    /// Whether something of it stays, be all of them dead.
    pub stays: bool,
}

impl Prospect {
    /// How long it is taken to be without its dead events: as if all were of a length, and none got shorter.
    pub fn bytes_after(self) -> u64 {
        let live = u128::from(self.events.saturating_sub(self.dead));
        let bytes = u128::from(self.bytes) * live / u128::from(self.events.max(1));
        u64::try_from(bytes).expect("no more than before")
    }

    /// When it has its turn if so many events are dead that it pays to rewrite it, with so much space for that.
    pub fn turn(self, available_bytes: u64) -> Turn {
        let bytes = self.bytes_after();
        if self.dead == self.events && !self.stays {
            Turn::Retire
        } else if bytes <= available_bytes {
            Turn::Fits { gained: Reverse(self.bytes - bytes) }
        } else {
            Turn::Large { bytes }
        }
    }
}

/// When a segment has its turn on a full disk: first what needs least and gives most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Turn {
    /// All of it is dead: a stub takes its place.
    Retire,
    /// There should be space for what stays of it: those before that give more.
    Fits {
        /// How much it should give.
        gained: Reverse<u64>,
    },
    /// There is none, unless it gets much shorter by compression: those before that need less.
    Large {
        /// How much it should need.
        bytes: u64,
    },
    /// Nobody knows how much of it is dead before it is looked through.
    Look,
    /// Nothing may be dead, but it was never compressed, and there is space for it as it is: the longest first.
    Compress {
        /// The length of its files.
        bytes: Reverse<u64>,
    },
    /// As [`Turn::Look`], once the turns of those have come round.
    LookAgain,
}

/// That a segment found no space for what was to take its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSpace {
    /// How much there was.
    pub available_bytes: u64,
    /// How much it should have needed, by what was dead of it.
    pub needed_bytes: u64,
    /// When, on the boot clock: one that is set back would have a full disk stay so until it is there again, and one
    /// that leaps would have it tried at every look.
    pub at_boot_ms: u64,
}

impl NoSpace {
    /// Whether it is worth another try: others go before it until then.
    pub fn is_over(&self, available_bytes: u64, needed_bytes: u64) -> bool {
        let has_share = |bytes: u64, of: u64| bytes >= (of / SPACE_SHARE).max(1);
        has_share(available_bytes.saturating_sub(self.available_bytes), self.available_bytes)
            || has_share(self.needed_bytes.saturating_sub(needed_bytes), self.needed_bytes)
    }

    /// Whether the one that was tried the longest ago may be tried though nothing is known to have changed,
    /// `newest_boot_ms` being when any was.
    pub fn is_long_ago(newest_boot_ms: u64, now_boot_ms: u64) -> bool {
        now_boot_ms.saturating_sub(newest_boot_ms) >= NO_SPACE_RETRY_MS
    }
}

/// The newest event of each key of a segment, of topics of which only that is kept: at most one entry for
/// each of its events, however many keys there are behind it.
#[derive(Debug, Default)]
pub struct LatestKeys {
    newest: HashMap<NameHash, Offset>,
}

impl LatestKeys {
    /// Learns of an event of the segment; in any order.
    pub fn add(&mut self, topic: &str, key: &str, offset: Offset) {
        let newest = self.newest.entry(key_hash(topic, key)).or_insert(offset);
        *newest = offset.max(*newest);
    }

    /// Learns of an event behind the segment.
    pub fn supersede(&mut self, topic: &str, key: &str, offset: Offset) {
        if let Some(newest) = self.newest.get_mut(&key_hash(topic, key)) {
            *newest = offset.max(*newest);
        }
    }

    /// Whether the segment has no event with a key.
    pub fn is_empty(&self) -> bool {
        self.newest.is_empty()
    }

    /// Whether a newer event of the same key is known.
    pub fn is_superseded(&self, topic: &str, key: &str, offset: Offset) -> bool {
        self.newest.get(&key_hash(topic, key)).is_some_and(|newest| *newest > offset)
    }
}

fn key_hash(topic: &str, key: &str) -> NameHash {
    hash_name(&format!("{topic}\0{key}"))
}

/// Judges the events of one topic in a segment, in offset order.
#[derive(Clone, Debug)]
pub struct TopicJudge {
    limits: TopicLimits,
    /// So many of the next events are beyond what the topic may have.
    excess: u64,
}

impl TopicJudge {
    /// The judge of a topic that has `count` events in the segment and `newer` behind it.
    pub fn new(limits: TopicLimits, count: u64, newer: u64) -> TopicJudge {
        TopicJudge { limits, excess: limits.excess(count, newer) }
    }

    /// Whether the next event is dead.
    pub fn is_dead(&mut self, event: &EventView<'_>, latest: &LatestKeys) -> bool {
        let is_beyond = self.excess > 0;
        self.excess = self.excess.saturating_sub(1);
        is_beyond
            || event.offset() < self.limits.floor
            || event.time_ms() < self.limits.oldest_ms
            || (self.limits.latest_per_key
                && event
                    .key()
                    .is_some_and(|key| latest.is_superseded(event.topic(), key, event.offset())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::TopicNumber;

    fn summary(count: u64, first: u64, last: u64, last_time_ms: u64) -> TopicSummary {
        TopicSummary {
            number: TopicNumber::new(1),
            event_count: count,
            first_offset: Offset::new(first),
            last_offset: Offset::new(last),
            last_time_ms,
        }
    }

    #[test]
    fn a_topic_is_dead_up_to_its_floor_its_age_and_its_count() {
        let none = TopicLimits {
            floor: Offset::ZERO,
            oldest_ms: 0,
            count_max: None,
            latest_per_key: false,
        };
        let topic = summary(10, 100, 200, 5_000);
        assert_eq!(none.dead_at_least(&topic, 99), 0);
        let gone = TopicLimits { floor: Offset::new(201), latest_per_key: true, ..none };
        let nothing = Hidden::default();
        assert_eq!((gone.dead_at_least(&topic, 0), gone.hides(&topic, 0, 0)), (10, nothing));
        let trimmed = TopicLimits { floor: Offset::new(200), ..none };
        let hidden = Hidden { by_floor: true, ..Hidden::default() };
        assert_eq!((trimmed.dead_at_least(&topic, 0), trimmed.hides(&topic, 0, 0)), (0, hidden));
        let aged = TopicLimits { oldest_ms: 5_001, ..none };
        assert_eq!((aged.dead_at_least(&topic, 0), aged.hides(&topic, 0, 4_000)), (10, nothing));
        let aging = TopicLimits { oldest_ms: 5_000, ..none };
        let hidden = Hidden { by_age: true, ..Hidden::default() };
        assert_eq!((aging.dead_at_least(&topic, 0), aging.hides(&topic, 0, 4_000)), (0, hidden));
        let counted = TopicLimits { count_max: Some(12), ..none };
        let dead = [0, 2, 3, 12, 99].map(|newer| counted.dead_at_least(&topic, newer));
        assert_eq!(dead, [0, 0, 1, 10, 10]);
        let trimmed = TopicLimits { floor: Offset::new(200), ..counted };
        let hidden = [11, 12].map(|newer| trimmed.hides(&topic, newer, 0).by_floor);
        assert_eq!(hidden, [true, false]);
        assert_eq!([pays(0, 0), pays(1, 5), pays(1, 6), pays(6, 6)], [false, true, false, true]);
    }

    #[test]
    fn a_segment_is_looked_through_again_when_that_may_pay() {
        let at = |end, at_ms| Look { end: Offset::new(end), at_ms };
        let look = at(1_100, 1_000_000);
        let is_over = |hidden, now| look.is_over(hidden, Offset::new(100), 1_000_000, now);
        let key = Hidden { by_key: true, ..Hidden::default() };
        let grown = [1_100, 1_299, 1_300].map(|end| is_over(key, at(end, 9_000_000)));
        assert_eq!(grown, [false, false, true]);
        let age = Hidden { by_age: true, ..Hidden::default() };
        let aged = [1_000_000, 1_199_999, 1_200_000].map(|ms| is_over(age, at(9_999, ms)));
        assert_eq!(aged, [false, false, true]);
        let floor = Hidden { by_floor: true, ..Hidden::default() };
        assert!(!is_over(floor, at(9_999, 9_000_000)), "a new one forgets all looks");
    }

    #[test]
    fn on_a_full_disk_comes_first_what_needs_least_and_gives_most() {
        let turn = |dead, available| {
            let prospect = Prospect { bytes: 1_000, events: 10, dead, stays: false };
            (prospect.turn(available), prospect.bytes_after())
        };
        let fits = |gained| Turn::Fits { gained: Reverse(gained) };
        assert_eq!(turn(10, 0), (Turn::Retire, 0));
        assert_eq!(turn(8, 200), (fits(800), 200));
        assert_eq!(turn(8, 199), (Turn::Large { bytes: 200 }, 200));
        let compress = |bytes| Turn::Compress { bytes: Reverse(bytes) };
        let large = |bytes| Turn::Large { bytes };
        let mut turns = [
            compress(1),
            compress(2),
            Turn::Look,
            large(2),
            large(1),
            fits(1),
            fits(2),
            Turn::Retire,
        ];
        turns.sort();
        let (fit, other) = ([fits(2), fits(1)], [large(1), large(2)]);
        assert_eq!(turns[..5], [&[Turn::Retire][..], &fit, &other].concat());
        assert_eq!(turns[5..], [Turn::Look, compress(2), compress(1)]);
        let whole = Prospect { bytes: u64::MAX, events: u64::MAX, dead: 0, stays: false };
        assert_eq!(whole.bytes_after(), u64::MAX);
    }

    #[test]
    fn what_found_no_space_is_tried_again_when_there_is_more_or_it_needs_less() {
        let found = NoSpace { available_bytes: 160, needed_bytes: 320, at_boot_ms: 0 };
        let is_over = [(160, 320), (169, 301), (0, 400), (170, 320), (160, 300), (160, 0)]
            .map(|(available, needed)| found.is_over(available, needed));
        assert_eq!(is_over, [false, false, false, true, true, true]);
        let nothing = NoSpace { available_bytes: 0, needed_bytes: 0, at_boot_ms: 0 };
        assert!(!nothing.is_over(0, 0) && nothing.is_over(1, 0));
        let unknown = NoSpace { available_bytes: u64::MAX, ..found };
        assert!(!unknown.is_over(u64::MAX, 320), "it never says that there is more");
        assert!(!NoSpace::is_long_ago(1, 60_000) && NoSpace::is_long_ago(0, 60_000));
    }

    #[test]
    fn the_newest_of_a_key_stays() {
        let mut latest = LatestKeys::default();
        for offset in [5, 7] {
            latest.add("a", "k", Offset::new(offset));
        }
        latest.supersede("a", "k", Offset::new(9));
        latest.supersede("a", "l", Offset::new(9));
        let is_superseded =
            |topic, key, offset| latest.is_superseded(topic, key, Offset::new(offset));
        assert!(is_superseded("a", "k", 7) && !is_superseded("a", "k", 9));
        assert!(!is_superseded("b", "k", 7) && !is_superseded("a", "l", 7));
    }
}
