//! Compares what a log shows to who reads it with the model.

use std::{
    future::Future,
    ops::Range,
    pin::pin,
    task::{Context, Poll, Waker},
};

use strandline_storage::{
    io::{
        BlockingReads,
        sim::{SimDisk, rng::SimRng},
    },
    log::Log,
    offset::Offset,
    reader::{ReadQuery, offset_at_time},
    selection::Order,
    topic::TopicPattern,
};

use super::{
    Process,
    model::{self, Fate, Fates, Model},
    read, to_usize,
};

impl Process {
    /// Compares what is read, and what topics are listed.
    pub fn check_reads(&self, rng: &mut SimRng, model: &Model) {
        self.check_events(rng, model);
        let visible = to_usize(self.log.visible());
        self.check_topics(model, visible, &model.fates(visible));
    }

    /// Reads by offset, time, topic and pattern, forward and backward, and compares.
    pub fn check_events(&self, rng: &mut SimRng, model: &Model) {
        let visible = to_usize(self.log.visible());
        // After a failed sync the page cache may drop what readers had seen and the device never got.
        let is_poisoned = self.log.poisoned().is_some();
        let readable = if is_poisoned { to_usize(self.log.synced()) } else { visible };
        let start = to_usize(self.log.start()).min(readable);
        let first = self.log.segments().iter().next().map(|segment| segment.base());
        let first = first.unwrap_or_else(|| self.log.unsealed_start());
        assert!(self.log.start() >= first, "nothing is there before {first}");
        let fates = &model.fates(visible);
        self.check_read(Vec::new(), start..readable, Order::Ascending, model, fates);
        for _ in 0..3 {
            let from = start + rng.index(readable - start + 1);
            let end = from + rng.index(readable - from + 1);
            let order = *rng.pick(&[Order::Ascending, Order::Descending]);
            self.check_read(model::patterns(rng), from..end, order, model, fates);
        }
        if visible > 0 {
            let near_ms = model.events[rng.index(visible)].time_ms;
            let time_ms = (near_ms + rng.below(3)).saturating_sub(1);
            let sealed = self.log.unsealed_start();
            let expected = model.offsets_at_time(time_ms, to_usize(sealed), fates);
            let is_kept = expected[0].is_none_or(|offset| to_usize(offset) >= start);
            let found = offset_at_time(self.log.segments(), &BlockingReads, time_ms);
            let found = now_or_panic(found);
            let found = found.expect("damage is no reason to find nothing");
            if self.may_be_lost(model).is_empty() {
                // Or where a block begins whose first events are gone, and were older: nothing is read before it.
                let begins_before = |(found, first): (Offset, Offset)| {
                    let between = to_usize(found)..to_usize(first).max(to_usize(found));
                    let order = Order::Ascending;
                    let (read, _) = read_offsets(&self.log, Vec::new(), between, order, model);
                    found < first && read.is_empty()
                };
                let is_before = found.zip(expected[0]).is_some_and(begins_before);
                let is_right = !is_kept || expected.contains(&found) || is_before;
                assert!(is_right, "at {time_ms}: {found:?}, not {expected:?}");
            } else {
                self.check_found(time_ms, found, model, fates);
            }
        }
    }

    /// Ranges of events that the disk may have lost.
    pub fn may_be_lost(&self, model: &Model) -> Vec<Range<usize>> {
        model.may_be_lost(self.log.segments().iter().map(|segment| segment.name()))
    }

    /// Damage may hide what is looked for: who begins to read where it was found misses nothing that can be read.
    fn check_found(&self, time_ms: u64, found: Option<Offset>, model: &Model, fates: &Fates) {
        let lost = self.may_be_lost(model);
        let sealed_end = to_usize(self.log.unsealed_start());
        let begin = found.map_or(sealed_end, to_usize);
        let from = model.events.partition_point(|kept| kept.time_ms < time_ms);
        let missed = (from.max(to_usize(self.log.start()))..begin.min(sealed_end)).find(|offset| {
            fates.of(*offset) == Fate::Stays && !lost.iter().any(|lost| lost.contains(offset))
        });
        assert_eq!(missed, None, "at {time_ms}: {found:?}, behind what is there");
    }

    /// Compares what is listed with what is there. Of a topic that has events below the start of the log
    /// somebody who asks counts anew what is left.
    fn check_topics(&self, model: &Model, visible: usize, fates: &Fates) {
        let start = self.log.start().get();
        let mut listed = std::collections::BTreeMap::new();
        for topic in self.log.topics().page("", None, usize::MAX) {
            listed.insert(topic.topic.as_str().to_owned(), topic);
        }
        for (name, _, _, last, last_time_ms) in model.topics(visible) {
            let all = model.offsets_of(&name, 0..visible);
            // Of what topics events were that a repair has taken out nobody knows any more.
            let is_given_up = |at: &u64| {
                model.given_up.iter().any(|lost| lost.contains(&to_usize(Offset::new(*at))))
            };
            let is_forgotten =
                model.has_forgotten(to_usize(Offset::new(last)), |lost| lost.last_offsets);
            if all.iter().any(is_given_up) || is_forgotten {
                listed.remove(&name);
                continue;
            }
            let fate = |offset: &u64| fates.of(to_usize(Offset::new(*offset)));
            let is_gone = all.iter().all(|offset| fate(offset) == Fate::Goes);
            let Some(topic) = listed.remove(&name) else {
                let may_go = all.iter().all(|at| *at < start || fate(at) != Fate::Stays);
                assert!(may_go, "{name} is not listed");
                continue;
            };
            assert!(!is_gone, "{name} is listed, and deleted");
            assert_eq!((topic.last.get(), topic.last_time_ms), (last, last_time_ms), "{name}");
            assert_eq!(self.log.topics().last_ever(&name), Some(topic.last));
            let is_whole = all.iter().all(|offset| fate(offset) == Fate::Stays);
            if is_whole && topic.first.get() >= start {
                let range = to_usize(Offset::new(start))..visible;
                let offsets = model.offsets_of(&name, range);
                assert_eq!(
                    (topic.count, topic.first.get()),
                    (offsets.len() as u64, offsets[0]),
                    "{name}"
                );
            }
        }
        assert!(listed.is_empty(), "nobody appended to {:?}", listed.keys());
    }

    fn check_read(
        &self,
        topics: Vec<TopicPattern>,
        range: Range<usize>,
        order: Order,
        model: &Model,
        fates: &Fates,
    ) {
        let mut wanted = model.wanted(&topics, range.clone());
        if order == Order::Descending {
            wanted.reverse();
        }
        let (found, lost) = read_offsets(&self.log, topics, range, order, model);
        model.check_lost(&lost, &self.may_be_lost(model));
        let is_lost = |offset: u64| lost.iter().any(|lost| lost.contains(&Offset::new(offset)));
        wanted.retain(|offset| !is_lost(*offset));
        let segments: Vec<_> = self.log.segments().iter().map(|segment| segment.name()).collect();
        let may_go = found.iter().map(|at| to_usize(Offset::new(*at)));
        let may_go = may_go.filter(|at| fates.of(*at) == Fate::MayGo);
        let visible = to_usize(self.log.visible());
        model.read_at.borrow_mut().extend(may_go.map(|at| (at, visible)));
        // Of what may be gone whatever is there comes in its place.
        wanted.retain(|offset| match fates.of(to_usize(Offset::new(*offset))) {
            Fate::Stays => true,
            Fate::MayGo => found.contains(offset),
            Fate::Goes => false,
        });
        assert_eq!(found, wanted, "kept from {}, sealed: {segments:?}", self.log.start());
    }
}

/// The offsets of the events that a query finds, which are compared with the model, and the ranges
/// that are reported as lost.
pub fn read_offsets(
    log: &Log<SimDisk>,
    topics: Vec<TopicPattern>,
    range: Range<usize>,
    order: Order,
    model: &Model,
) -> (Vec<u64>, Vec<Range<Offset>>) {
    let (from, end) = (Offset::new(range.start as u64), Offset::new(range.end as u64));
    let query = ReadQuery { topics, from, end, order };
    let (hits, lost) = now_or_panic(read::read(log, &BlockingReads, &query));
    let mut found = Vec::new();
    // As whoever hands out what was read.
    let hits: Vec<_> = hits.into_iter().map(|hits| log.rules().floors().filter(hits)).collect();
    for event in hits.iter().flat_map(|hits| hits.events()) {
        model.check_event(&event);
        found.push(event.offset().get());
    }
    (found, lost)
}

/// Runs a future that never waits.
pub(super) fn now_or_panic<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("simulated reads are ready at once"),
    }
}
