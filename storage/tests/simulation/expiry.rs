//! Topics that are over: the log deletes them itself, and none that is not.

use strandline_storage::{
    control::{Control, TopicRule, TopicsDeleted},
    event::EventView,
    io::{BlockingReads, sim::SimDisk},
    log::{Log, Now},
    offset::Offset,
    reader::ReadQuery,
    selection::Order,
    settings::TopicExpiry,
    topic::{Topic, TopicPattern},
};

use super::{
    Process,
    model::{Fate, Fates, Kept, Model},
    read,
    reading::now_or_panic,
    to_usize,
};

impl Process {
    /// The log may have appended a deletion: what it says is known once that is visible.
    pub(super) fn note_deletion(&self, model: &mut Model) {
        if to_usize(self.log.next()) == model.events.len() {
            return;
        }
        let deletion = Control::Deleted(TopicsDeleted::of(Vec::new())).event();
        model.unread.insert(model.events.len(), model.latest_limit.ms());
        model.append(vec![deletion], model.last_ms());
        assert_eq!(to_usize(self.log.next()), model.events.len(), "one deletion at a time");
    }
}

/// Learns what the deletions say that were written, and never shown before the end of their process.
pub(super) fn read_deletions(log: &Log<SimDisk>, model: &mut Model) {
    for offset in model.unread.keys().copied().collect::<Vec<_>>() {
        let at = |offset: usize| Offset::new(offset as u64);
        let (from, end, order) = (at(offset), at(offset + 1), Order::Ascending);
        let query = ReadQuery { topics: Vec::new(), from, end, order };
        let (hits, _) = now_or_panic(read::read(log, &BlockingReads, &query));
        hits.iter().flat_map(|hits| hits.events()).for_each(|event| model.read_deletion(&event));
        assert!(!model.unread.contains_key(&offset), "nothing is gone yet that was never seen");
    }
}

impl Model {
    /// Learns what a deletion says that the log has appended itself: all of its topics were over by then.
    pub fn read_deletion(&mut self, event: &EventView<'_>) {
        let offset = to_usize(event.offset());
        let Some(late_ms) = self.unread.remove(&offset) else { return };
        let Some(Control::Deleted(deleted)) = Control::decode(event.kind(), event.data()) else {
            panic!("the log has appended {:?} by itself", event.kind());
        };
        for topic in &deleted.topics {
            self.tally.over += 1;
            let limit = self.expiry_of(topic, offset);
            let life = self.life_of(topic, offset);
            let mut known = life.iter().rev();
            let last = match self.cut_topics.contains(topic) {
                true => known.find(|(_, kept)| !kept.may_be_gone).or(life.first()),
                false => known.next(),
            };
            let has_passed = |kept: Option<&(usize, &Kept)>, limit_s: Option<u64>| {
                let since_ms = kept.map(|(_, kept)| kept.time_ms);
                since_ms.zip(limit_s).is_some_and(|(ms, limit_s)| late_ms >= ms + limit_s * 1_000)
            };
            let is_over = has_passed(life.first(), limit.age_s) || has_passed(last, limit.idle_s);
            assert!(is_over, "{topic} is deleted at {late_ms}, and is not over by {limit:?}");
        }
        let kept = &mut self.events[offset];
        kept.event = Control::Deleted(deleted).event();
        kept.time_ms = event.time_ms();
    }

    /// Topics were looked at, and nothing is under way: none is there that is over for certain.
    pub fn check_over(&self, start: usize, now: Now) {
        let seen = self.seen;
        let Some(last_ms) = self.events[..seen].last().map(|kept| kept.time_ms) else { return };
        if self.safe < seen || !self.unread.is_empty() {
            return;
        }
        let late_ms = self.earliest_limit.ms(now, last_ms);
        let fates = self.fates(seen);
        for (topic, ..) in self.topics(seen) {
            if topic.starts_with('$') {
                continue;
            }
            let limit = self.expiry_of(&topic, seen);
            let all = self.offsets_of(&topic, 0..seen);
            let at = |offset: &u64| usize::try_from(*offset).expect("small");
            let Some(last) = all.last().map(at) else { continue };
            if last < start || fates.of(last) != Fate::Stays {
                continue;
            }
            // A start knows of a topic's first event only that it is no younger than the last one in its segment. Late
            // rather than early, and in whole seconds.
            let since_ms = self.events[last].time_ms;
            let limit_s = limit.age_s.into_iter().chain(limit.idle_s).min();
            let has_passed = |since_ms, limit_s: Option<u64>| {
                limit_s.is_some_and(|limit_s| late_ms >= since_ms + (limit_s + 1) * 1_000)
            };
            let first_ms = self.known_since(&topic, &fates);
            let is_over = has_passed(since_ms, limit_s)
                || first_ms.is_some_and(|first_ms| has_passed(first_ms, limit.age_s));
            assert!(!is_over, "{topic} is over by {limit:?} since {late_ms}, and is there");
        }
    }

    /// When the first event of a topic was appended, or at least one in the same frame, if the log that is open has seen
    /// that, and that the topic was never without one since.
    fn known_since(&self, topic: &str, fates: &Fates) -> Option<u64> {
        let life = self.life_of(topic, self.seen);
        let (first, kept) = *life.first()?;
        // No limit has let any go, and no trim all.
        let is_certain = first >= self.reach
            && fates.of(first) != Fate::MayGo
            && !self.was_ever_without(topic, first);
        let in_one_frame = life.iter().take_while(|(_, kept)| kept.seen <= first);
        let since_ms = in_one_frame.map(|(_, kept)| kept.appended.time_ms).max()?;
        (is_certain && self.in_use.is_of_this_life(kept.appended)).then_some(since_ms)
    }

    /// What ends a topic by the settings before `end`. No topic matches two patterns.
    fn expiry_of(&self, topic: &str, end: usize) -> TopicExpiry {
        let topic = Topic::parse(topic).expect("a topic");
        let controls = self.events[..end].iter().rev().filter(|kept| !kept.event.kind.is_data());
        let rules = controls.filter_map(|kept| Control::decode(kept.event.kind, &kept.event.data));
        let found = rules.into_iter().find_map(|control| match control {
            Control::Topic(TopicRule { pattern, settings }) => {
                let pattern = TopicPattern::parse(&pattern).expect("a pattern");
                pattern.matches(&topic).then(|| settings.unwrap_or_default().expire)
            }
            _ => None,
        });
        found.unwrap_or_default()
    }

    /// The events of a topic before `end`, with their offsets, since it was deleted last.
    fn life_of(&self, topic: &str, end: usize) -> Vec<(usize, &Kept)> {
        let mut life = Vec::new();
        for (offset, kept) in self.events[..end].iter().enumerate() {
            if kept.event.topic.as_str() == topic {
                life.push((offset, kept));
            } else if let Some(Control::Deleted(deleted)) =
                Control::decode(kept.event.kind, &kept.event.data)
                && deleted.topics.iter().any(|deleted| deleted == topic)
            {
                life.clear();
            }
        }
        life
    }

    /// Whether a trim has ever let go all that a topic had from an event on.
    fn was_ever_without(&self, topic: &str, first: usize) -> bool {
        let mut last = first;
        self.events[first..self.seen].iter().enumerate().any(|(at, kept)| {
            if kept.event.topic.as_str() == topic {
                last = first + at;
                return false;
            }
            match Control::decode(kept.event.kind, &kept.event.data) {
                Some(Control::Trimmed(trimmed)) => {
                    trimmed.topic == topic && (last as u64) < trimmed.before
                }
                _ => false,
            }
        })
    }
}
