//! Published frames on their way to the views of one log on one shard.
//!
//! ```text
//!   frame --> topics --> matcher --> views --> which of the frame's events --> chunk --> ring
//!                                                                                   '--> due
//! ```
//! Each topic of a frame is matched once, whatever the number of views; an event costs nothing for a
//! view that does not match it. A view encodes what it wants once, into its ring, and is then *due*: its
//! members have something to send.
//!
//! Invariants:
//! 1. Every view's ring has considered every offset from its start up to `considered`.
//! 2. `considered` never passes the visible offset, and never goes back.
//! 3. `ring_bytes` is the sum over all rings, and at most `ring_bytes_max` after each frame; the same
//!    for pages.
//! 4. A view is in `holding` exactly when its ring holds a chunk.
//! 5. No ring and no page holds an event that `floors` hides.

mod holding;

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use strandline_storage::frame::Frame;
use strandline_storage::offset::Offset;
use strandline_storage::rules::Floors;

use self::holding::Holding;
use super::catch_up::Parked;
use super::chunk::{Chunk, ChunkBuilder, LIVE_CHUNK_BYTES, Render};
use super::matching::TopicMatcher;
use super::pages::Page;
use super::view::{Member, View, ViewId, ViewKey};

/// A view's ring takes at most this much memory: a few sends' worth. Who is further behind reads the
/// log, whose recent frames are in memory too.
pub const VIEW_RING_BYTES_MAX: usize = 1024 * 1024;

/// All rings of a log on a shard take at most this much memory together; then the views give up their
/// oldest chunks in turn. Counted is what a chunk holds ([`Chunk::held_bytes`]), which may be an eighth longer.
pub const SHARD_RING_BYTES_MAX: usize = 32 * 1024 * 1024;

/// All pages of a log on a shard take at most this much memory together; the oldest go first.
pub const SHARD_PAGES_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Entries of pages below which no sweep is worth it.
const PAGES_SWEEP_MIN: usize = 1024;

/// Of more topics that are deleted at once it is not asked which views they concern: all.
const HIDDEN_TOPICS_MAX: usize = 1024;

/// So many reads of the log stand ready to go on where the last page ended.
const PARKED_MAX: usize = 16;

/// The views of one log on one shard.
pub struct Views {
    views: Vec<Option<View>>,
    free: Vec<ViewId>,
    by_key: HashMap<ViewKey, ViewId>,
    matcher: TopicMatcher<ViewId>,
    due: VecDeque<ViewId>,
    considered: Offset,
    /// The next one to give up a chunk comes first.
    holding: Holding,
    ring_bytes: usize,
    ring_bytes_max: usize,
    /// Those that were made, in that order. Pages and views may have gone since.
    pages: VecDeque<MadePage>,
    /// How many were made.
    pages_made: u64,
    page_bytes: usize,
    /// At so many entries those that are left behind are swept out.
    pages_sweep: usize,
    parked: VecDeque<ViewId>,
    /// Which events were deleted or trimmed, as far as that is known here.
    floors: Arc<Floors>,
    scratch: Scratch,
}

/// A page that was made, by its number.
struct MadePage {
    view_id: ViewId,
    start: Offset,
    number: u64,
}

/// What a frame is taken apart with; kept so that its memory is.
#[derive(Default)]
struct Scratch {
    encoded: Vec<u8>,
    found: Vec<ViewId>,
    /// Views, each with a topic of the frame that it wants.
    hits: Vec<(ViewId, usize)>,
    /// Of each topic of the frame, the events.
    by_topic: Vec<Vec<usize>>,
}

impl Views {
    /// No views yet; frames are expected from `visible` on.
    pub fn new(visible: Offset) -> Self {
        Self::with_limit(visible, SHARD_RING_BYTES_MAX)
    }

    fn with_limit(visible: Offset, ring_bytes_max: usize) -> Self {
        Views {
            views: Vec::new(),
            free: Vec::new(),
            by_key: HashMap::new(),
            matcher: TopicMatcher::new(),
            due: VecDeque::new(),
            considered: visible,
            holding: Holding::new(),
            ring_bytes: 0,
            ring_bytes_max,
            pages: VecDeque::new(),
            pages_made: 0,
            page_bytes: 0,
            pages_sweep: PAGES_SWEEP_MIN,
            parked: VecDeque::new(),
            floors: Arc::default(),
            scratch: Scratch::default(),
        }
    }

    /// Adds a member to the view of `key`, which `render` renders if it is new; returns its view and
    /// its position there.
    pub fn join(
        &mut self,
        key: &ViewKey,
        member: Member,
        render: impl FnOnce() -> Rc<dyn Render>,
    ) -> (ViewId, u32) {
        let view_id = match self.by_key.get(key) {
            Some(view_id) => *view_id,
            None => self.add_view(key.clone(), render()),
        };
        (view_id, self.get_mut(view_id).members.add(member))
    }

    /// Takes a member out, and the view with the last one. Returns the member that stands at
    /// `position` now, if another moved there.
    pub fn leave(&mut self, view_id: ViewId, position: u32) -> Option<Member> {
        let view = self.get_mut(view_id);
        let moved = view.members.remove(position);
        if view.members.is_empty() {
            self.drop_view(view_id);
        }
        moved
    }

    /// A view that has members.
    pub(super) fn get(&self, view_id: ViewId) -> &View {
        self.views[view_id.0 as usize].as_ref().expect("a view lives as long as its members")
    }

    /// A view that has members.
    pub(super) fn get_mut(&mut self, view_id: ViewId) -> &mut View {
        self.views[view_id.0 as usize].as_mut().expect("a view lives as long as its members")
    }

    /// Everything below has been looked at for every view, as far as its ring reaches.
    pub(super) fn considered(&self) -> Offset {
        self.considered
    }

    /// How many views there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// The bytes that all rings and pages hold.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.ring_bytes + self.page_bytes
    }

    /// Whether any view has a member to be served.
    pub fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// The view whose members are to be served next. [`Views::served`] says how far that went.
    pub fn first_due(&mut self) -> Option<ViewId> {
        loop {
            let view_id = *self.due.front()?;
            // One that ended since may have left its number, and its place in the queue, to another.
            match &self.views[view_id.0 as usize] {
                Some(view) if view.is_due => return Some(view_id),
                _ => self.due.pop_front(),
            };
        }
    }

    /// The first view that is due has had its turn; `is_done`: all its members have been served.
    pub fn served(&mut self, is_done: bool) {
        let Some(view_id) = self.due.pop_front() else { return };
        if let Some(view) = &mut self.views[view_id.0 as usize]
            && view.is_due
        {
            view.is_due = !is_done;
            if !is_done {
                self.due.push_back(view_id);
            }
        }
    }

    /// Gives a frame to the views that it may matter to. One that was seen already is ignored; one
    /// that comes after a lost one makes every ring start anew.
    pub fn publish(&mut self, frame: &Frame) {
        if frame.end_offset() <= self.considered {
            return;
        }
        if frame.base_offset() > self.considered {
            self.restart(frame.base_offset());
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        self.give(frame, &mut scratch);
        self.scratch = scratch;
        self.considered = frame.end_offset();
        while self.ring_bytes > self.ring_bytes_max {
            let Some(view_id) = self.holding.pop_front() else { break };
            let ring = &mut self.get_mut(view_id).ring;
            let freed = ring.evict_oldest();
            if !ring.is_empty() {
                self.holding.push_back(view_id);
            }
            self.ring_bytes -= freed;
        }
    }

    /// Everything below `visible` can be read. Where the news of a frame was lost, subscribers will
    /// read it from the log.
    pub fn advance(&mut self, visible: Offset) {
        if visible > self.considered {
            self.restart(visible);
        }
    }

    /// These events are gone from now on. What was encoded of the topics concerned is forgotten: whoever
    /// lacks some of it reads the log, which shows what is left. Other views do not notice.
    pub fn hide(&mut self, floors: &Arc<Floors>) {
        if Arc::ptr_eq(&self.floors, floors) {
            return;
        }
        let before = std::mem::replace(&mut self.floors, floors.clone());
        let mut concerned = Vec::new();
        match floors.raised_since(&before, HIDDEN_TOPICS_MAX) {
            Some(topics) => {
                let mut of_topic = Vec::new();
                for topic in &topics {
                    self.matcher.matches(topic, &mut of_topic);
                    concerned.extend_from_slice(&of_topic);
                }
            }
            None => concerned.extend(self.by_key.values().copied()),
        }
        // A rewrite has dropped events of which something was encoded when they were new.
        let settled = floors.settled();
        if settled > before.settled() {
            let is_older = |view_id: &ViewId| self.get(*view_id).holds_below(settled);
            concerned.extend(self.by_key.values().copied().filter(is_older));
        }
        concerned.sort_unstable();
        concerned.dedup();
        concerned.into_iter().for_each(|view_id| self.forget(view_id));
    }

    /// Which events were deleted or trimmed, as far as that is known here.
    pub(super) fn floors(&self) -> &Arc<Floors> {
        &self.floors
    }

    /// Forgets what was encoded for a view.
    fn forget(&mut self, view_id: ViewId) {
        let view = self.views[view_id.0 as usize].as_mut().expect("it has members");
        self.holding.remove(view_id);
        if view.parked.take().is_some() {
            self.parked.retain(|other| *other != view_id);
        }
        self.ring_bytes -= view.ring.forget();
        self.page_bytes -= std::mem::take(&mut view.pages).bytes();
    }

    /// Keeps what was read for a view, from `start` on.
    pub(super) fn add_page(&mut self, view_id: ViewId, start: Offset, page: Page) {
        self.pages_made += 1;
        let number = self.pages_made;
        self.page_bytes += page.bytes();
        self.page_bytes -= self.get_mut(view_id).pages.insert(start, number, page);
        self.pages.push_back(MadePage { view_id, start, number });
        // The newest stays in any case: somebody is about to send it.
        while self.page_bytes > SHARD_PAGES_BYTES_MAX && self.pages.len() > 1 {
            let Some(MadePage { view_id, start, number }) = self.pages.pop_front() else { break };
            if let Some(view) = &mut self.views[view_id.0 as usize] {
                self.page_bytes -= view.pages.remove(start, number);
            }
        }
        // What has gone otherwise has left entries behind.
        if self.pages.len() >= self.pages_sweep {
            let views = &self.views;
            self.pages.retain(|&MadePage { view_id, start, number }| {
                let view = views[view_id.0 as usize].as_ref();
                view.is_some_and(|view| view.pages.holds(start, number))
            });
            self.pages_sweep = (2 * self.pages.len()).max(PAGES_SWEEP_MIN);
        }
    }

    /// A member of a view has taken all before `next`: nobody wants that any more if it is the only one. The
    /// memory is used for its next page while the processor has it near still: 8 % of what catching up costs.
    pub(super) fn drop_sent(&mut self, view_id: ViewId, next: Offset) {
        let view = self.get_mut(view_id);
        if view.members.len() == 1 {
            self.page_bytes -= view.pages.remove_before(next);
        }
    }

    /// Keeps a read that may go on later.
    pub(super) fn park(&mut self, view_id: ViewId, parked: Box<Parked>) {
        if self.get_mut(view_id).parked.replace(parked).is_none() {
            self.parked.push_back(view_id);
        }
        if self.parked.len() > PARKED_MAX
            && let Some(oldest) = self.parked.pop_front()
            && let Some(view) = &mut self.views[oldest.0 as usize]
        {
            view.parked = None;
        }
    }

    /// Takes the read of a view that goes on at `next`, if one was kept.
    pub(super) fn unpark(&mut self, view_id: ViewId, next: Offset) -> Option<Box<Parked>> {
        let parked = self.get_mut(view_id).parked.take_if(|parked| parked.next() == next)?;
        self.parked.retain(|other| *other != view_id);
        Some(parked)
    }

    fn add_view(&mut self, key: ViewKey, render: Rc<dyn Render>) -> ViewId {
        let view_id = self.free.pop().unwrap_or_else(|| {
            self.views.push(None);
            ViewId(u32::try_from(self.views.len() - 1).expect("fewer views than connections"))
        });
        for pattern in key.wanted.patterns() {
            self.matcher.insert(pattern, view_id);
        }
        self.by_key.insert(key.clone(), view_id);
        self.views[view_id.0 as usize] = Some(View::new(key, render, self.considered));
        view_id
    }

    fn drop_view(&mut self, view_id: ViewId) {
        let view = self.views[view_id.0 as usize].take().expect("it is dropped once");
        self.by_key.remove(&view.key);
        for pattern in view.key.wanted.patterns() {
            self.matcher.remove(pattern, view_id);
        }
        self.holding.remove(view_id);
        if view.parked.is_some() {
            self.parked.retain(|other| *other != view_id);
        }
        self.ring_bytes -= view.ring.held_bytes();
        self.page_bytes -= view.pages.bytes();
        self.free.push(view_id);
    }

    fn restart(&mut self, start: Offset) {
        assert!(start > self.considered, "what was considered stays so");
        for index in 0..self.views.len() {
            let Some(view) = &mut self.views[index] else { continue };
            self.ring_bytes -= view.ring.restart(start);
            self.mark_due(ViewId(u32::try_from(index).expect("views are numbered by 32 bits")));
        }
        self.holding = Holding::new();
        self.considered = start;
        assert_eq!(self.ring_bytes, 0, "no ring holds anything");
    }

    fn mark_due(&mut self, view_id: ViewId) {
        let view = self.get_mut(view_id);
        view.members.start_round();
        if !std::mem::replace(&mut view.is_due, true) {
            self.due.push_back(view_id);
        }
    }

    fn give(&mut self, frame: &Frame, scratch: &mut Scratch) {
        let Scratch { found, hits, by_topic, .. } = scratch;
        hits.clear();
        let topics = frame.topics().len();
        for (index, (_, topic)) in frame.topics().enumerate() {
            found.clear();
            self.matcher.matches_distinct(topic, found);
            hits.extend(found.iter().map(|view_id| (*view_id, index)));
        }
        if hits.is_empty() {
            return;
        }
        let events = frame.index_at(self.considered.max(frame.base_offset()))..frame.len();
        if topics > 1 {
            hits.sort_unstable();
            by_topic.resize_with(topics.max(by_topic.len()), Vec::new);
            by_topic.iter_mut().for_each(Vec::clear);
            for index in events.clone() {
                by_topic[frame.event(index).topic_index()].push(index);
            }
        }
        let hits = std::mem::take(&mut scratch.hits);
        for run in hits.chunk_by(|one, other| one.0 == other.0) {
            let view_id = run[0].0;
            if run.len() == topics {
                self.encode(view_id, frame, events.clone(), &mut scratch.encoded);
            } else if let [(_, topic)] = run {
                let indexes = scratch.by_topic[*topic].iter().copied();
                self.encode(view_id, frame, indexes, &mut scratch.encoded);
            } else {
                let topics = run.iter().map(|(_, topic)| &scratch.by_topic[*topic]);
                let mut indexes: Vec<usize> = topics.flatten().copied().collect();
                indexes.sort_unstable();
                self.encode(view_id, frame, indexes.into_iter(), &mut scratch.encoded);
            }
        }
        scratch.hits = hits;
    }

    fn encode(
        &mut self,
        view_id: ViewId,
        frame: &Frame,
        indexes: impl Iterator<Item = usize>,
        scratch: &mut Vec<u8>,
    ) {
        let view = self.views[view_id.0 as usize].as_mut().expect("it was found");
        let (held, was_empty) = (view.ring.held_bytes(), view.ring.is_empty());
        let hiding = self.floors.concern(frame).then_some(&*self.floors);
        let render = view.render.clone();
        let mut builder = ChunkBuilder::new(render.as_ref(), LIVE_CHUNK_BYTES, scratch);
        let (mut has_news, mut has_cut) = (false, false);
        let mut put = |ring: &mut super::chunk::Ring, chunk: Option<Chunk>| {
            if let Some(chunk) = chunk {
                ring.push(chunk);
                has_news = true;
            }
        };
        for index in indexes {
            let event = frame.event(index);
            if !view.key.wanted.takes(&event) {
                continue;
            }
            if hiding.is_some_and(|floors| floors.hide(&event)) {
                // It was deleted before anybody could see it, and whoever wanted it is told: by who
                // reads the log.
                builder.discard();
                view.ring.restart(event.offset().plus(1));
                has_cut = true;
            } else {
                put(&mut view.ring, builder.push(&event));
            }
        }
        put(&mut view.ring, builder.finish());
        if !has_news && !has_cut {
            return;
        }
        while view.ring.held_bytes() > VIEW_RING_BYTES_MAX {
            view.ring.evict_oldest();
        }
        let (holds, is_empty) = (view.ring.held_bytes(), view.ring.is_empty());
        self.ring_bytes = self.ring_bytes - held + holds;
        match (was_empty, is_empty) {
            (true, false) => self.holding.push_back(view_id),
            (false, true) => self.holding.remove(view_id),
            _ => (),
        }
        self.mark_due(view_id);
    }
}

#[cfg(test)]
mod tests;
