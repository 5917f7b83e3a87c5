//! What is to be done with a segment, and what has to be looked up for that.

use std::{
    cmp::Reverse,
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};

use super::{
    CompactJob,
    old::{Topics, frames_of, read_topics},
};
use crate::{
    compaction::{self, Hidden, LatestKeys, Look, Prospect, TopicJudge, Turn},
    error::ReadError,
    event::EventView,
    frame::Frame,
    io::Disk,
    offset::Offset,
    read_ahead::AheadFile,
    reader::{ReadQuery, Reader},
    segment_set::SealedSegment,
    selection::Order,
    topic::TopicPattern,
};

/// How many events topics with a limit by count have in the segments behind one.
pub(super) type Newer = HashMap<String, u64>;

/// What is to be done with a segment, if anything, and how much space it should need; or what is wrong with its index.
pub(super) type Judged = Result<Option<(Turn, u64)>, String>;

/// Judges of topics. A topic without one has no event that is dead, or the index does not know it: no limits of it were
/// looked at.
#[derive(Clone, Default)]
pub(super) struct Judges<'a> {
    places: HashMap<&'a str, usize>,
    judges: Vec<TopicJudge>,
}

impl Judges<'_> {
    /// The events of the segment's next frame, and whether each is dead.
    pub(super) fn judge<'f>(
        &mut self,
        frame: &'f Frame,
        latest: &LatestKeys,
    ) -> impl Iterator<Item = (EventView<'f>, bool)> {
        let Judges { places, judges } = self;
        let place = |(_, name)| places.get(name).copied();
        // A frame may have a topic for each of its events.
        let of_topics: Vec<_> = match judges.is_empty() {
            true => Vec::new(),
            false => frame.topics().map(place).collect(),
        };
        frame.events().map(move |event| {
            let place = of_topics.get(event.topic_index()).copied().flatten();
            let is_dead = event.kind().is_data()
                && place.is_some_and(|place| judges[place].is_dead(&event, latest));
            (event, is_dead)
        })
    }
}

impl<D: Disk> CompactJob<D> {
    fn has_topic_limits(&self) -> bool {
        let rules = &self.limits.rules;
        rules.topics().len() > 0 || !rules.floors().is_empty()
    }

    /// Whether a segment was never rewritten, and is old enough to be.
    pub(super) fn is_due(&self, segment: &SealedSegment<D>) -> bool {
        let last_ms = segment.index().header().last_time_ms;
        segment.name().generation == 1
            && self.limits.now_ms >= last_ms.saturating_add(self.compress_after_ms)
    }

    /// Whether there may be something to do with a segment.
    pub(super) fn is_candidate(&self, segment: &SealedSegment<D>) -> bool {
        !self.skipped.contains(&segment.name())
            && segment.end() > self.limits.keep_from
            && segment.index().gaps().len() == 0
            && (self.has_topic_limits()
                || self.is_due(segment)
                || self.may_have_controls_alone(segment))
    }

    /// Whether all that a rewrite has left of a segment may be control events that the log keeps no longer.
    fn may_have_controls_alone(&self, segment: &SealedSegment<D>) -> bool {
        let passed = self.limits.keep_from.get().saturating_sub(segment.base().get());
        segment.name().generation > 1 && segment.index().header().event_count <= passed
    }

    /// Control events of a segment before this count no more than dead ones: the log keeps nothing before it, and the
    /// next start will know that without the segment, or from its stub if it is the first.
    pub(super) fn controls_kept_from(&self, segment: &SealedSegment<D>) -> Offset {
        let keep_from = self.limits.keep_from;
        if segment.base() == self.segments.start() {
            keep_from
        } else {
            keep_from.min(self.recorded)
        }
    }

    /// Whether nothing but a segment itself tells the next start how far limits have reached: that stays where a segment
    /// before it does, as what is damaged, or what readers were told is gone from there would be back.
    pub(super) fn says_alone(&self, segment: &SealedSegment<D>) -> bool {
        let said = segment.index().kept_from().unwrap_or_default();
        segment.base() != self.segments.start() && said.min(self.limits.keep_from) > self.recorded
    }

    /// Whether any topic has a limit by count.
    pub(super) fn has_counts(&self) -> bool {
        self.limits.rules.topics().any(|(_, set)| set.retain.count.is_some())
    }

    /// The judgements of all candidates, by place, or what is wrong with their indexes. What topics have in the segments
    /// behind decides: each index is read once, from the last one to the first.
    pub(super) fn judge_counting(&self, available_bytes: u64) -> HashMap<usize, Judged> {
        let mut newer = Newer::new();
        let mut judged = HashMap::new();
        for (place, segment) in self.segments.iter().enumerate().rev() {
            if self.is_cancelled() {
                break;
            }
            let topics = read_topics(segment);
            if self.is_candidate(segment) {
                let judgement = match &topics {
                    Ok(topics) => Ok(self.judge(segment, topics, &newer, available_bytes)),
                    Err(reason) => Err(reason.clone()),
                };
                judged.insert(place, judgement);
            }
            // An index that cannot be read counts nothing: more is kept.
            for (name, summary) in topics.unwrap_or_default() {
                if self.limits.of(&name).count_max.is_some() {
                    *newer.entry(name).or_default() += summary.event_count;
                }
            }
        }
        judged
    }

    /// How many events each topic with a limit by count has in the segments behind one.
    pub(super) fn newer_events(&self, place: usize, topics: &Topics) -> Newer {
        let limited = topics.iter().filter(|(name, _)| self.limits.of(name).count_max.is_some());
        let mut newer: Newer = limited.map(|(name, _)| (name.clone(), 0)).collect();
        if newer.is_empty() {
            return newer;
        }
        for segment in self.segments.iter().skip(place + 1) {
            if self.is_cancelled.load(Ordering::Relaxed) {
                break;
            }
            // An index that cannot be read counts nothing: more is kept.
            for (name, summary) in read_topics(segment).unwrap_or_default() {
                if let Some(count) = newer.get_mut(&name) {
                    *count += summary.event_count;
                }
            }
        }
        newer
    }

    /// What is to be done with a segment, if anything, and how much space it should need.
    pub(super) fn judge(
        &self,
        segment: &SealedSegment<D>,
        topics: &Topics,
        newer: &Newer,
        available_bytes: u64,
    ) -> Option<(Turn, u64)> {
        let header = segment.index().header();
        let (mut dead, mut events, mut hidden) = (0, 0, Hidden::default());
        let controls_from = self.controls_kept_from(segment);
        let mut passed_controls = 0;
        for (name, summary) in topics {
            // Control events stay as long as their segment.
            if name.starts_with('$') {
                let is_passed = summary.last_offset < controls_from;
                passed_controls += if is_passed { summary.event_count } else { 0 };
                continue;
            }
            let limits = self.limits.of(name);
            events += summary.event_count;
            let newer = newer.get(name).copied().unwrap_or(0);
            dead += limits.dead_at_least(summary, newer);
            hidden = hidden.or(limits.hides(summary, newer, header.first_time_ms));
        }
        let now = Look { end: self.segments.end(), at_ms: self.limits.now_ms };
        let span_ms = header.last_time_ms.saturating_sub(header.first_time_ms);
        let is_worth_a_look = match self.looked_at.get(&segment.name()) {
            Some(look) => look.is_over(hidden, segment.base(), span_ms, now),
            None => hidden != Hidden::default(),
        };
        let is_dead = dead + passed_controls == header.event_count;
        let dead = if is_dead { header.event_count } else { dead };
        let stays = is_dead && self.says_alone(segment);
        if stays && events == 0 {
            return None;
        }
        let prospect =
            Prospect { bytes: segment.file_bytes(), events: header.event_count, dead, stays };
        let turn = if is_dead || compaction::pays(dead, events) {
            prospect.turn(available_bytes)
        } else if is_worth_a_look {
            Turn::Look
        } else if self.is_due(segment) && prospect.bytes <= available_bytes {
            Turn::Compress { bytes: Reverse(prospect.bytes) }
        } else {
            return None;
        };
        Some((turn, prospect.bytes_after()))
    }

    /// The newest event of each of the segment's keys, in topics of which only that is kept.
    pub(super) fn latest_keys(
        &self,
        segment: &SealedSegment<D>,
        file: &AheadFile<D::File>,
        topics: &Topics,
    ) -> Result<LatestKeys, String> {
        let mut latest = LatestKeys::default();
        let ruled: HashMap<&str, TopicPattern> = topics
            .iter()
            .filter(|(name, _)| self.limits.of(name).latest_per_key)
            .filter_map(|(name, _)| Some((name.as_str(), TopicPattern::parse(name).ok()?)))
            .collect();
        if ruled.is_empty() {
            return Ok(latest);
        }
        for frame in frames_of(segment, file) {
            for event in frame?.events().filter(|event| ruled.contains_key(event.topic())) {
                if let Some(key) = event.key() {
                    latest.add(event.topic(), key, event.offset());
                }
            }
            if self.is_cancelled.load(Ordering::Relaxed) {
                return Ok(latest);
            }
        }
        if latest.is_empty() {
            return Ok(latest);
        }
        let (from, end, order) = (segment.end(), self.segments.end(), Order::Ascending);
        let query = ReadQuery { topics: ruled.into_values().collect(), from, end, order };
        let mut reader = Reader::new(Arc::clone(&self.segments), &query);
        while !self.is_cancelled.load(Ordering::Relaxed) {
            match reader.next_blocking() {
                Ok(Some(hits)) => {
                    for event in hits.events() {
                        if let Some(key) = event.key() {
                            latest.supersede(event.topic(), key, event.offset());
                        }
                    }
                }
                // What cannot be read supersedes nothing.
                Err(ReadError::Gap { .. } | ReadError::Expired { .. }) => {}
                Ok(None) | Err(_) => break,
            }
        }
        Ok(latest)
    }

    /// The judges of those of a segment's topics of which any event may be dead.
    pub(super) fn judges<'a>(
        &self,
        segment: &SealedSegment<D>,
        topics: &'a Topics,
        newer: &Newer,
    ) -> Judges<'a> {
        let first_time_ms = segment.index().header().first_time_ms;
        let mut judges = Judges::default();
        for (name, summary) in topics {
            let newer = newer.get(name).copied().unwrap_or(0);
            let limits = self.limits.of(name);
            let may_be_dead = limits.dead_at_least(summary, newer) > 0
                || limits.hides(summary, newer, first_time_ms) != Hidden::default();
            if may_be_dead {
                judges.places.insert(name, judges.judges.len());
                judges.judges.push(TopicJudge::new(limits, summary.event_count, newer));
            }
        }
        judges
    }

    /// How many events are dead; so far only, if the job is cancelled.
    pub(super) fn count_dead(
        &self,
        segment: &SealedSegment<D>,
        file: &AheadFile<D::File>,
        mut judges: Judges<'_>,
        latest: &LatestKeys,
    ) -> Result<u64, String> {
        let mut dead = 0;
        for frame in frames_of(segment, file) {
            let frame = frame?;
            dead +=
                judges.judge(&frame, latest).map(|(_, is_dead)| u64::from(is_dead)).sum::<u64>();
            if self.is_cancelled.load(Ordering::Relaxed) {
                break;
            }
        }
        Ok(dead)
    }
}
