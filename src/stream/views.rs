//! Published frames on their way to the views of one log on one shard.
//!
//! ```text
//!   frame --> topics --> matcher --> views that are due --> in its turn each: which of the frame's events
//!      '-----------------------> waiting -------------------^                      --> chunk --> ring --> members
//! ```
//! Each topic of a frame is matched once, whatever the number of views; an event costs nothing for a
//! view that does not match it. A view that a frame may matter to is *due*: in its turn it encodes what it
//! wants once, into its ring, and if there was anything its members have something to send. Turns are for whoever
//! serves them to slice, so nothing here takes a time that grows with the number of views but what tells them.
//!
//! What concerns all views, a lost frame or a rewrite, begins an *era*: each view is brought up to date when it is
//! touched, and all of them by and by ([`Views::go_round`]).
//!
//! Invariants, of views that are up to date:
//! 1. A view's ring has considered every offset from its start up to `Views::considered` of it: where the first
//!    frame begins that it has still to look at, the end of what it encoded of that one, or the end of what was published.
//! 2. That never passes the visible offset, and never goes back.
//! 3. No ring and no page holds an event that `floors` hides.
//!
//! And of all:
//! 4. `ring_bytes` is the sum over all rings, and at most its limit after each turn; the same for pages.
//! 5. A view is in `holding` exactly when its ring holds a chunk.
//! 6. A view with something `pending` is in `due`.

mod holding;
mod looking;
mod view_set;
mod waiting;

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use strandline_storage::frame::Frame;
use strandline_storage::offset::Offset;
use strandline_storage::rules::Floors;

use self::holding::Holding;
use self::view_set::ViewSet;
use self::waiting::Waiting;
use super::catch_up::Parked;
use super::chunk::Render;
use super::matching::TopicMatcher;
use super::pages::Page;
use super::view::{Member, Moved, View, ViewId, ViewKey};

/// A view's ring takes at most this much memory, or one event: a few sends' worth. Who is further behind reads the
/// log, whose recent frames are in memory too.
pub const VIEW_RING_BYTES_MAX: usize = 1024 * 1024;

/// All rings of a log on a shard take at most this much memory together; then the views give up their
/// oldest chunks in turn. Counted is what a chunk holds ([`Chunk::held_bytes`](super::chunk::Chunk::held_bytes)), which may be an eighth longer.
pub const SHARD_RING_BYTES_MAX: usize = 32 * 1024 * 1024;

/// All pages of a log on a shard take at most this much memory together; the oldest go first.
pub const SHARD_PAGES_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The frames that views have still to look at take at most so much memory, which is that of the log's recent frames
/// for the most part.
pub const WAITING_BYTES_MAX: usize = 16 * 1024 * 1024;

/// So many views in a row are brought up to date.
const VIEWS_A_STEP: usize = 8;

/// Entries of pages below which no sweep is worth it.
const PAGES_SWEEP_MIN: usize = 1024;

/// Of more topics that are deleted at once it is not asked which views they concern: all.
const HIDDEN_TOPICS_MAX: usize = 1024;

/// So many reads of the log stand ready to go on where the last page ended.
const PARKED_MAX: usize = 16;

/// How much the views of a log on a shard may hold, and do at a time.
struct Limits {
    /// All rings together.
    ring_bytes: usize,
    /// Frames that views have still to look at.
    waiting_bytes: usize,
    /// A frame with more pairs of a view and a topic keeps the views alone, each of which asks for its topics in its turn:
    /// 1,000 views and a thousand topics would be a million pairs, more than all that waits may take.
    pairs: usize,
    /// A view looks at events of so many bytes at a time: at a frame, mostly. An array that is appended as a whole may be
    /// 4 MiB, which take 10 ms to compress.
    look_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            ring_bytes: SHARD_RING_BYTES_MAX,
            waiting_bytes: WAITING_BYTES_MAX,
            pairs: 64 * 1024,
            look_bytes: 128 * 1024,
        }
    }
}

/// The views of one log on one shard.
pub struct Views {
    views: Vec<Option<View>>,
    free: Vec<ViewId>,
    by_key: HashMap<ViewKey, ViewId>,
    matcher: TopicMatcher<ViewId>,
    /// Patterns that were put there or taken out, and that nobody has asked for.
    pattern_steps: usize,
    due: VecDeque<ViewId>,
    /// The end of what was published.
    considered: Offset,
    waiting: Waiting,
    /// The number of the last thing that concerns all views.
    era: u64,
    /// The last era that began with a lost frame, and where rings start since.
    restarted: (u64, Offset),
    /// The last era that began with a rewrite of what is older than [`Floors::settled`].
    settled: u64,
    /// The last era for which all are to forget everything.
    forgotten: u64,
    /// The view to be brought up to date next, and how many there are still.
    round_at: usize,
    round_left: usize,
    /// The next one to give up a chunk comes first.
    holding: Holding,
    ring_bytes: usize,
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
    /// What frames are taken apart with; kept so that its memory is.
    encoded: Vec<u8>,
    found: Vec<ViewId>,
    limits: Limits,
}

/// A page that was made, by its number.
struct MadePage {
    view_id: ViewId,
    start: Offset,
    number: u64,
}

impl Views {
    /// No views yet; frames are expected from `visible` on.
    pub fn new(visible: Offset) -> Self {
        Self::with_limits(visible, Limits::default())
    }

    fn with_limits(visible: Offset, limits: Limits) -> Self {
        Views {
            views: Vec::new(),
            free: Vec::new(),
            by_key: HashMap::new(),
            matcher: TopicMatcher::new(),
            pattern_steps: 0,
            due: VecDeque::new(),
            considered: visible,
            waiting: Waiting::new(limits.waiting_bytes),
            era: 0,
            restarted: (0, visible),
            settled: 0,
            forgotten: 0,
            round_at: 0,
            round_left: 0,
            holding: Holding::new(),
            ring_bytes: 0,
            pages: VecDeque::new(),
            pages_made: 0,
            page_bytes: 0,
            pages_sweep: PAGES_SWEEP_MIN,
            parked: VecDeque::new(),
            floors: Arc::default(),
            encoded: Vec::new(),
            found: Vec::new(),
            limits,
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
    pub fn leave(&mut self, view_id: ViewId, position: u32) -> Option<Moved> {
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

    /// A view that has members, which holds nothing that is hidden or that frames were lost behind.
    pub(super) fn up_to_date(&mut self, view_id: ViewId) -> &View {
        self.bring_up_to_date(view_id);
        self.get(view_id)
    }

    /// Everything below has been looked at for a view, as far as its ring reaches. It is up to date.
    pub(super) fn considered(&self, view_id: ViewId) -> Offset {
        let view = self.get(view_id);
        assert!(view.era == self.era, "it was brought up to date");
        // Of the frame that it is looking at it may have encoded some.
        view.pending.front().map_or(self.considered, |pending| pending.from.max(view.ring.end()))
    }

    /// How many patterns have come or gone since this was asked, which takes about a microsecond each: a connection may have
    /// 16,384, and all of them go with it.
    pub(super) fn take_pattern_steps(&mut self) -> u32 {
        u32::try_from(std::mem::take(&mut self.pattern_steps)).unwrap_or(u32::MAX)
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

    /// Whether a view has something to look at, or a member to be served.
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
            view.is_due = !is_done || !view.pending.is_empty();
            if view.is_due {
                self.due.push_back(view_id);
            }
        }
    }

    /// Tells the views that it may matter to of a frame. One that was seen already is ignored; one
    /// that comes after a lost one makes every ring start anew.
    pub fn publish(&mut self, frame: &Arc<Frame>) {
        if frame.end_offset() <= self.considered {
            return;
        }
        if frame.base_offset() > self.considered {
            self.restart(frame.base_offset());
        }
        let from = std::mem::replace(&mut self.considered, frame.end_offset());
        let mut hits = self.waiting.take_spare_hits(self.limits.pairs);
        for (index, (_, topic)) in (0..).zip(frame.topics()) {
            self.matcher.matches_distinct(topic, &mut self.found);
            hits.add(&self.found, index);
        }
        let (views, due) = (&mut self.views, &mut self.due);
        self.waiting.push(frame, from, hits, |view_id, pending| {
            let view =
                views[view_id.0 as usize].as_mut().expect("the matcher knows those with members");
            view.pending.push_back(pending);
            if !std::mem::replace(&mut view.is_due, true) {
                due.push_back(view_id);
            }
        });
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
        let mut concerned = ViewSet::default();
        match floors.raised_since(&before, HIDDEN_TOPICS_MAX) {
            Some(topics) => {
                let mut of_topic = Vec::new();
                for topic in &topics {
                    self.matcher.matches(topic, &mut of_topic);
                    of_topic.iter().for_each(|view_id| concerned.add(*view_id));
                }
            }
            None => {
                self.begin_era();
                self.forgotten = self.era;
            }
        }
        // A rewrite has dropped events of which something was encoded when they were new.
        if floors.settled() > before.settled() {
            self.begin_era();
            self.settled = self.era;
        }
        concerned.iter().for_each(|view_id| self.forget(view_id));
    }

    /// Which events were deleted or trimmed, as far as that is known here.
    pub(super) fn floors(&self) -> &Arc<Floors> {
        &self.floors
    }

    /// Something concerns all views.
    fn begin_era(&mut self) {
        self.era += 1;
        // It goes on where it was: who comes last would else never have a turn.
        self.round_left = self.views.len();
    }

    /// Whether there may be views that are not up to date.
    pub fn is_going_round(&self) -> bool {
        self.round_left > 0
    }

    /// Brings some more views up to date; returns how many it looked at.
    pub fn go_round(&mut self) -> usize {
        let count = self.round_left.min(VIEWS_A_STEP);
        for _ in 0..count {
            if self.round_at >= self.views.len() {
                self.round_at = 0;
            }
            if self.views[self.round_at].is_some() {
                let number = u32::try_from(self.round_at).expect("views are numbered by 32 bits");
                self.bring_up_to_date(ViewId(number));
            }
            self.round_at += 1;
        }
        self.round_left -= count;
        count
    }

    /// Does for a view what concerned all of them since it was touched last.
    fn bring_up_to_date(&mut self, view_id: ViewId) {
        let view = self.views[view_id.0 as usize].as_mut().expect("it has members");
        let era = std::mem::replace(&mut view.era, self.era);
        if era == self.era {
            return;
        }
        let (restarted, start) = self.restarted;
        if era < restarted {
            self.ring_bytes -= view.ring.restart(start);
            self.holding.remove(view_id);
            view.pending.retain(|pending| pending.from >= start);
            self.start_round(view_id);
        }
        let settled = self.floors.settled();
        let is_rewritten = era < self.settled && self.get(view_id).holds_below(settled);
        if era < self.forgotten || is_rewritten {
            self.forget(view_id);
        }
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
        self.bring_up_to_date(view_id);
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
        self.bring_up_to_date(view_id);
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
        self.bring_up_to_date(view_id);
        let parked = self.get_mut(view_id).parked.take_if(|parked| parked.next() == next)?;
        self.parked.retain(|other| *other != view_id);
        Some(parked)
    }

    fn add_view(&mut self, key: ViewKey, render: Rc<dyn Render>) -> ViewId {
        let view_id = self.free.pop().unwrap_or_else(|| {
            self.views.push(None);
            // It lies on the way of a round that is under way, which must not end before its last view.
            self.round_left += usize::from(self.round_left > 0);
            ViewId(u32::try_from(self.views.len() - 1).expect("fewer views than connections"))
        });
        self.pattern_steps += key.wanted.patterns().len();
        for pattern in key.wanted.patterns() {
            self.matcher.insert(pattern, view_id);
        }
        self.by_key.insert(key.clone(), view_id);
        self.views[view_id.0 as usize] = Some(View::new(key, render, self.considered, self.era));
        view_id
    }

    fn drop_view(&mut self, view_id: ViewId) {
        let view = self.views[view_id.0 as usize].take().expect("it is dropped once");
        self.by_key.remove(&view.key);
        self.pattern_steps += view.key.wanted.patterns().len();
        for pattern in view.key.wanted.patterns() {
            self.matcher.remove(pattern, view_id);
        }
        self.holding.remove(view_id);
        if view.parked.is_some() {
            self.parked.retain(|other| *other != view_id);
        }
        for pending in view.pending {
            self.waiting.looked_at(pending);
        }
        self.ring_bytes -= view.ring.held_bytes();
        self.page_bytes -= view.pages.bytes();
        self.free.push(view_id);
    }

    /// Frames before `start` were lost: what rings hold from before is of no use, and everybody reads the log up to there.
    fn restart(&mut self, start: Offset) {
        assert!(start > self.considered, "what was considered stays so");
        self.considered = start;
        self.waiting.clear();
        self.begin_era();
        self.restarted = (self.era, start);
    }

    /// A view has something for its members.
    fn start_round(&mut self, view_id: ViewId) {
        self.get_mut(view_id).members.start_round();
        self.make_due(view_id);
    }

    fn make_due(&mut self, view_id: ViewId) {
        if !std::mem::replace(&mut self.get_mut(view_id).is_due, true) {
            self.due.push_back(view_id);
        }
    }

    /// Lets the oldest chunks go where all rings together hold too much.
    fn evict(&mut self) {
        while self.ring_bytes > self.limits.ring_bytes {
            let Some(view_id) = self.holding.pop_front() else { break };
            let ring = &mut self.get_mut(view_id).ring;
            let freed = ring.evict_oldest();
            if !ring.is_empty() {
                self.holding.push_back(view_id);
            }
            self.ring_bytes -= freed;
        }
    }
}

#[cfg(test)]
mod tests;
