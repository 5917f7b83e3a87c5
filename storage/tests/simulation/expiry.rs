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
    model::{Fate, Kept, Model},
    now_or_panic, read, to_usize,
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
            let has_passed = |kept: Option<&Kept>, limit_s: Option<u64>| {
                let since_ms = kept.map(|kept| kept.time_ms);
                since_ms.zip(limit_s).is_some_and(|(ms, limit_s)| late_ms >= ms + limit_s * 1_000)
            };
            let is_over = has_passed(life.first().copied(), limit.age_s)
                || has_passed(life.last().copied(), limit.idle_s);
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
            let is_over =
                limit_s.is_some_and(|limit_s| late_ms >= since_ms + (limit_s + 1) * 1_000);
            assert!(!is_over, "{topic} is over by {limit:?} since {late_ms}, and is there");
        }
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

    /// The events of a topic before `end` since it was deleted last.
    fn life_of(&self, topic: &str, end: usize) -> Vec<&Kept> {
        let mut life = Vec::new();
        for kept in &self.events[..end] {
            if kept.event.topic.as_str() == topic {
                life.push(kept);
            } else if let Some(Control::Deleted(deleted)) =
                Control::decode(kept.event.kind, &kept.event.data)
                && deleted.topics.iter().any(|deleted| deleted == topic)
            {
                life.clear();
            }
        }
        life
    }
}
