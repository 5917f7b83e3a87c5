//! Frames that views have still to look at.
//!
//! ```text
//!   published --> [ frame | frame | frame ] --> each view that a frame may matter to, in its turn
//!                   from                          its places in the frames: `Pending`
//! ```
//! To look at a frame of 400 events for 1,000 views with filters takes 50 ms, in which nothing else of the shard
//! would run. So a frame waits until every view has had its turn, and each view remembers which it lacks.
//! The memory is bounded: then the oldest frames go, and who lacks them starts anew behind them, as if their news
//! had been lost.
//!
//! Invariants:
//! 1. Frames are in the order of offsets, and do not overlap.
//! 2. `left` of a frame counts the views that have it among their `Pending`. A frame that nobody lacks is not at
//!    the front.
//! 3. `held_bytes` is the sum over all frames. The memory of one write is counted once, with its first frame here.

use std::collections::VecDeque;
use std::mem;
use std::ops::Range;
use std::sync::Arc;

use strandline_storage::frame::Frame;
use strandline_storage::offset::Offset;

use super::view_set::ViewSet;
use crate::stream::view::{Pending, ViewId};
use crate::stream::wanted::Wanted;

/// Memory for so many hits, and so many events by their topics, is kept for the next frame.
const SPARE_HITS_MAX: usize = 4096;
const SPARE_EVENTS_MAX: usize = 4096;

/// In place of a topic: the view asks of each.
const ASKS: u32 = u32::MAX;

/// Which views a frame may matter to: each with a topic that it wants, as long as these are not too many.
pub(super) struct Hits {
    pairs: Vec<(ViewId, u32)>,
    pairs_max: usize,
    views: Option<ViewSet>,
}

impl Hits {
    /// Adds the views that want a topic of the frame.
    pub(super) fn add(&mut self, found: &[ViewId], topic: u32) {
        if self.views.is_none() && self.pairs.len() + found.len() > self.pairs_max {
            let mut views = ViewSet::default();
            // Their memory goes with them: the frame may wait for long.
            mem::take(&mut self.pairs).into_iter().for_each(|(view_id, _)| views.add(view_id));
            self.views = Some(views);
        }
        match &mut self.views {
            Some(views) => found.iter().for_each(|view_id| views.add(*view_id)),
            None => self.pairs.extend(found.iter().map(|view_id| (*view_id, topic))),
        }
    }

    /// The pairs, sorted.
    fn into_pairs(self) -> Vec<(ViewId, u32)> {
        let Hits { mut pairs, views, .. } = self;
        match views {
            Some(views) => pairs.extend(views.iter().map(|view_id| (view_id, ASKS))),
            // Those of one topic are.
            None if pairs.last().is_some_and(|(_, topic)| *topic > 0) => pairs.sort_unstable(),
            None => {}
        }
        pairs
    }
}

/// The frames.
pub(super) struct Waiting {
    frames: VecDeque<Entry>,
    held_bytes: usize,
    held_bytes_max: usize,
    /// Up to where frames went that somebody lacked.
    lost_to: Offset,
    /// A frame's memory that the next one can have.
    spare: (Vec<(ViewId, u32)>, Grouped),
}

struct Entry {
    frame: Arc<Frame>,
    from: Offset,
    /// Views, each with a topic of the frame that it wants, or once with [`ASKS`]; sorted.
    hits: Vec<(ViewId, u32)>,
    grouped: Grouped,
    left: usize,
    held_bytes: usize,
}

/// The events of a frame by their topics.
#[derive(Default)]
struct Grouped {
    /// Where the events of each topic end in `indexes`; empty if there is but one topic.
    ends: Vec<u32>,
    indexes: Vec<u32>,
}

impl Grouped {
    fn fill(&mut self, frame: &Frame, events: Range<usize>, topics: usize) {
        self.ends.clear();
        self.indexes.clear();
        if topics < 2 {
            return;
        }
        let number = |index: usize| u32::try_from(index).expect("events of a frame have 32 bits");
        self.ends.resize(topics, 0);
        for index in events.clone() {
            self.ends[frame.event(index).topic_index()] += 1;
        }
        // Now the counts; then where each begins; in the end where it ends.
        let mut begin = 0;
        for end in &mut self.ends {
            begin += mem::replace(end, begin);
        }
        self.indexes.resize(events.len(), 0);
        for index in events {
            let place = &mut self.ends[frame.event(index).topic_index()];
            self.indexes[*place as usize] = number(index);
            *place += 1;
        }
    }

    fn of(&self, topic: u32) -> &[u32] {
        let topic = topic as usize;
        let begin = topic.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.indexes[begin as usize..self.ends[topic] as usize]
    }

    /// The events of several topics.
    fn merged(&self, topics: impl Iterator<Item = u32>) -> Indexes<'static> {
        let mut merged = topics.map(|topic| self.of(topic)).collect::<Vec<_>>().concat();
        merged.sort_unstable();
        Indexes::Merged(merged)
    }

    fn bytes(&self) -> usize {
        (self.ends.len() + self.indexes.len()) * size_of::<u32>()
    }
}

/// What a view finds in place of a frame that it lacks.
pub(super) enum Lacked<'a> {
    /// It, which of its events have a topic that the view wants, and how many patterns were compared to find that.
    Frame(&'a Arc<Frame>, Indexes<'a>, usize),
    /// It has gone: the view goes on from here.
    Lost(Offset),
}

/// Indexes of events in a frame, in order.
pub(super) enum Indexes<'a> {
    All(Range<usize>),
    Of(&'a [u32]),
    Merged(Vec<u32>),
}

impl Indexes<'_> {
    pub(super) fn len(&self) -> usize {
        match self {
            Indexes::All(all) => all.len(),
            Indexes::Of(some) => some.len(),
            Indexes::Merged(some) => some.len(),
        }
    }

    pub(super) fn at(&self, place: usize) -> usize {
        match self {
            Indexes::All(all) => all.start + place,
            Indexes::Of(some) => some[place] as usize,
            Indexes::Merged(some) => some[place] as usize,
        }
    }
}

impl Waiting {
    /// None yet; they will take at most about so much memory.
    pub(super) fn new(held_bytes_max: usize) -> Self {
        Waiting {
            frames: VecDeque::new(),
            held_bytes: 0,
            held_bytes_max,
            lost_to: Offset::ZERO,
            spare: Default::default(),
        }
    }

    /// Empty memory for the hits of the next frame; with more than so many pairs it keeps the views alone.
    pub(super) fn take_spare_hits(&mut self, pairs_max: usize) -> Hits {
        Hits { pairs: mem::take(&mut self.spare.0), pairs_max, views: None }
    }

    /// Adds a frame of which everything from `from` on is new, with the views that it may matter to, each with
    /// the topics that it wants. `tell` is called with each view once.
    pub(super) fn push(
        &mut self,
        frame: &Arc<Frame>,
        from: Offset,
        hits: Hits,
        mut tell: impl FnMut(ViewId, Pending),
    ) {
        let hits = hits.into_pairs();
        if hits.is_empty() {
            self.spare.0 = hits;
            return;
        }
        let topics = frame.topics().len();
        let mut grouped = mem::take(&mut self.spare.1);
        grouped.fill(frame, frame.index_at(from)..frame.len(), topics);
        let (mut left, mut hit) = (0, 0);
        for run in hits.chunk_by(|one, other| one.0 == other.0) {
            tell(run[0].0, Pending { from, hit, seen: 0 });
            left += 1;
            hit += u32::try_from(run.len()).expect("views and topics are few");
        }
        let is_of_same_write =
            self.frames.back().is_some_and(|last| Arc::ptr_eq(last.frame.buffer(), frame.buffer()));
        let buffer_bytes = if is_of_same_write { 0 } else { frame.buffer().capacity() };
        let held_bytes = buffer_bytes + own_bytes(&hits, &grouped);
        self.held_bytes += held_bytes;
        self.frames.push_back(Entry {
            frame: frame.clone(),
            from,
            hits,
            grouped,
            left,
            held_bytes,
        });
        while self.held_bytes > self.held_bytes_max {
            let Some(lost) = self.pop_front() else { break };
            self.lost_to = lost;
        }
        self.let_go();
    }

    /// What a view, `view_id`, has to look at, of which it has perhaps seen some.
    pub(super) fn find(&self, view_id: ViewId, wanted: &Wanted, pending: Pending) -> Lacked<'_> {
        let Some(at) = self.position(pending) else { return Lacked::Lost(self.lost_to) };
        let Entry { frame, from, hits, grouped, .. } = &self.frames[at];
        let hits = &hits[pending.hit as usize..];
        let topics = &hits[..hits.partition_point(|(other, _)| *other == view_id)];
        let all = || Indexes::All(frame.index_at(*from)..frame.len());
        let mut compared = 0;
        let indexes = if let [(_, ASKS)] = topics {
            compared = frame.topics().len() * wanted.patterns().len();
            let names = (0..).zip(frame.topics());
            let of_it: Vec<u32> = names
                .filter(|(_, (_, name))| wanted.matches(name))
                .map(|(topic, _)| topic)
                .collect();
            if of_it.len() == frame.topics().len() {
                all()
            } else {
                grouped.merged(of_it.into_iter())
            }
        } else if topics.len() == frame.topics().len() {
            all()
        } else if let [(_, topic)] = topics {
            Indexes::Of(grouped.of(*topic))
        } else {
            grouped.merged(topics.iter().map(|(_, topic)| *topic))
        };
        Lacked::Frame(frame, indexes, compared)
    }

    /// A view does not lack a frame any more.
    pub(super) fn looked_at(&mut self, pending: Pending) {
        if let Some(at) = self.position(pending) {
            self.frames[at].left -= 1;
            self.let_go();
        }
    }

    /// All of them are lost.
    pub(super) fn clear(&mut self) {
        while self.pop_front().is_some() {}
    }

    /// The memory that it holds.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        let is_counted = |entry: &Entry| {
            size_of::<(ViewId, u32)>() * entry.hits.capacity() <= 2 * entry.held_bytes
        };
        assert!(self.frames.iter().all(is_counted), "memory for hits that is not counted");
        self.held_bytes
    }

    /// Whether it holds nothing.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        assert!(!self.frames.is_empty() || self.held_bytes == 0, "what has gone is not counted");
        self.frames.is_empty()
    }

    fn position(&self, pending: Pending) -> Option<usize> {
        // Nearly always there is but one.
        if self.frames.front().is_some_and(|first| first.from == pending.from) {
            return Some(0);
        }
        self.frames.binary_search_by_key(&pending.from, |entry| entry.from).ok()
    }

    /// Lets those go that nobody lacks.
    fn let_go(&mut self) {
        while self.frames.front().is_some_and(|first| first.left == 0) {
            self.pop_front();
        }
    }

    /// Lets the oldest go; returns its end.
    fn pop_front(&mut self) -> Option<Offset> {
        let Entry { frame, mut hits, grouped, held_bytes, .. } = self.frames.pop_front()?;
        let buffer_bytes = held_bytes - own_bytes(&hits, &grouped);
        self.held_bytes -= held_bytes;
        if let Some(next) = self.frames.front_mut()
            && Arc::ptr_eq(next.frame.buffer(), frame.buffer())
        {
            next.held_bytes += buffer_bytes;
            self.held_bytes += buffer_bytes;
        }
        if hits.capacity() <= SPARE_HITS_MAX && grouped.indexes.capacity() <= SPARE_EVENTS_MAX {
            hits.clear();
            self.spare = (hits, grouped);
        }
        Some(frame.end_offset())
    }
}

/// What is kept of a frame beside itself, here and by the views.
fn own_bytes(hits: &[(ViewId, u32)], grouped: &Grouped) -> usize {
    let views = hits.chunk_by(|one, other| one.0 == other.0).count();
    size_of_val(hits) + views * size_of::<Pending>() + grouped.bytes()
}
