//! Subscriptions that the rings cannot serve, and those who read the log for them.
//!
//! At most [`TURNS_MAX`] readers work at once on a shard, first come, first served. A reader takes one
//! subscription and sends it pages of its view: pages that somebody read before it, or that it reads
//! now and leaves for the others, if there are any. It lets go of it when the ring can serve it again,
//! when its socket is full (so that being slow costs a number), or when it has sent enough while others
//! wait.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use strandline_storage::error::ReadError;
use strandline_storage::offset::Offset;
use strandline_storage::rules::Floors;
use strandline_storage::selection::Order;

use super::super::catch_up::{Parked, ReadPage, TURN_BYTES_MAX, TURNS_MAX, Turn};
use super::super::chunk::{Render, RingPlace, Word};
use super::super::gaps::ReportedGaps;
use super::super::pages::{Page, PagePlace};
use super::super::start::ResetReason;
use super::super::view::ViewId;
use super::super::wanted::Wanted;
use super::super::whole_log::WholeLog;
use super::slot::{Phase, Served, SubState, Subs};
use super::{End, Inner, SlotId, Subscribers};
use crate::local::Signal;
use crate::problem::CloseCode;
use crate::runtime::end_slice;

/// A turn ends after so many reads, also where they find nothing to send.
const TURN_READS_MAX: usize = 64;

/// A subscription that is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Job {
    pub(super) id: SlotId,
    pub(super) number: u16,
}

/// Who waits for a reader.
#[derive(Default)]
pub(super) struct Behind {
    waiting: VecDeque<Job>,
    /// Of those, and of what readers have in hand, the jobs whose subscription has ended.
    left: HashSet<Job>,
    readers: usize,
    /// Pages that are being read, by where they begin.
    loading: HashMap<(ViewId, Offset), Rc<Signal>>,
}

impl Behind {
    /// A subscription has fallen behind. One that has the number of another which ended so takes over its job: a client
    /// that comes and goes has one at a time.
    pub(super) fn push(&mut self, job: Job) {
        if !self.left.remove(&job) {
            self.waiting.push_back(job);
        }
    }

    /// A subscription ends that was behind. Its job is over when its turn comes.
    pub(super) fn leave(&mut self, job: Job) {
        self.left.insert(job);
    }

    /// Starts a reader for each that waits, up to their number.
    pub(super) fn start_readers(&mut self, owner: &Subscribers) {
        while self.readers < TURNS_MAX.min(self.readers + self.waiting.len()) {
            let Some(owner) = owner.me.upgrade() else { return };
            self.readers += 1;
            monoio::spawn(read_on(owner));
            if self.readers >= self.waiting.len() {
                return;
            }
        }
    }
}

/// What a reader does next for a subscription.
enum Step {
    /// Nothing more.
    Over,
    /// It has sent so many bytes.
    Sent(usize),
    /// Somebody reads the very page.
    Wait(Rc<Signal>),
    /// A page is missing.
    Read(Missing),
}

struct Missing {
    view_id: ViewId,
    render: Rc<dyn Render>,
    wanted: Rc<Wanted>,
    from: Offset,
    until: Offset,
    /// The page must not go beyond `until`.
    is_exact: bool,
}

/// So many topics that were deleted during a read are compared with what it wanted.
const DELETED_MAX: usize = 256;

/// Whether anything that is wanted from `from` on was deleted, trimmed or dropped by a rewrite since.
fn concerns(now: &Arc<Floors>, before: &Arc<Floors>, from: Offset, wanted: &Wanted) -> bool {
    if Arc::ptr_eq(now, before) {
        return false;
    }
    let is_rewritten = now.settled() > before.settled() && now.settled() > from;
    is_rewritten
        || now
            .raised_since(before, DELETED_MAX)
            .is_none_or(|topics| topics.iter().any(|topic| wanted.matches(topic)))
}

/// Serves who is behind until nobody is.
async fn read_on(owner: Rc<Subscribers>) {
    loop {
        let turn = owner.turns.wait().await.expect("turns outlive their waiters");
        let job = {
            let mut inner = owner.inner.borrow_mut();
            let job = inner.behind.waiting.pop_front();
            inner.behind.readers -= usize::from(job.is_none());
            job
        };
        let Some(job) = job else { return };
        owner.catch_up(job, &turn).await;
    }
}

impl Subscribers {
    async fn catch_up(&self, job: Job, turn: &Turn) {
        let (mut sent_bytes, mut reads) = (0, 0);
        loop {
            let step = {
                let mut inner = self.inner.borrow_mut();
                inner.views.hide(&self.log.floors());
                inner.step(job, self.log.earliest())
            };
            match step {
                Step::Over => return,
                Step::Sent(bytes) => {
                    sent_bytes += bytes;
                    turn.end_slice_if_over().await;
                }
                Step::Wait(loaded) => loaded.wait().await,
                Step::Read(missing) => {
                    self.read(job, missing, turn).await;
                    reads += 1;
                    // What was read is sent before anybody else can have it thrown away.
                    continue;
                }
            }
            let mut inner = self.inner.borrow_mut();
            let is_wanted = turn.is_wanted_by_others() || !inner.behind.waiting.is_empty();
            if is_wanted && (sent_bytes >= TURN_BYTES_MAX || reads >= TURN_READS_MAX) {
                return inner.behind.waiting.push_back(job);
            }
        }
    }

    /// Reads a page, and keeps it for all.
    async fn read(&self, job: Job, missing: Missing, turn: &Turn) {
        let Missing { view_id, render, wanted, from, until, is_exact } = missing;
        // An exact walk ends where it was to: at the start of the ring or of a page, or at a chunk's end, and no
        // page goes beyond its walk. So it may go on for as long as that is not beyond `until` by now. The ring's
        // start never is before it, as that only moves forward; where a page has come in its way meanwhile, the
        // log is read anew. One that ends too early does no harm: the next begins there.
        let parked = self.inner.borrow_mut().views.unpark(view_id, from);
        let parked = parked.filter(|parked| !is_exact || parked.end() <= until);
        let mut reading = parked.unwrap_or_else(|| {
            let end = if is_exact { until } else { self.log.visible() };
            let range = from..end;
            let walk = WholeLog::new(self.log.clone(), wanted.clone(), range, Order::Ascending);
            Box::new(Parked::new(walk))
        });
        let loaded = Rc::new(Signal::new());
        self.inner.borrow_mut().behind.loading.insert((view_id, from), loaded.clone());
        let (floors, concerned) = (self.log.floors(), wanted);
        let outcome = reading.read(turn, render.as_ref(), until).await;
        // A page of what has been deleted meanwhile is of no use; the log is read again.
        let is_valid = !concerns(&self.log.floors(), &floors, from, &concerned);
        let is_stuck = !is_valid || matches!(&outcome, Ok(read) if read.page.end <= from);
        {
            let mut inner = self.inner.borrow_mut();
            inner.behind.loading.remove(&(view_id, from));
            // The view may have ended meanwhile, and another may have its number.
            let slot = inner.slots.get_mut(job.id);
            let sub = slot.and_then(|slot| slot.sub_mut(job.number)).map(|sub| sub.view);
            let is_there =
                sub == Some(view_id) && Rc::ptr_eq(&inner.views.get(view_id).render, &render);
            if is_there {
                match outcome {
                    Ok(ReadPage { page, goes_on }) if page.end > from && is_valid => {
                        inner.views.add_page(view_id, from, page);
                        if goes_on {
                            inner.views.park(view_id, reading);
                        }
                    }
                    Ok(_) => {}
                    Err(failure) => inner.fail(job, from, failure, self.log.earliest(), &self.gaps),
                }
            }
        }
        loaded.raise();
        self.wake();
        if is_stuck {
            end_slice().await;
        }
    }
}

impl Inner {
    /// Sends a subscription that is behind what there is for it, from `earliest` on.
    fn step(&mut self, job: Job, earliest: Offset) -> Step {
        let step = self.step_if_behind(job, earliest);
        if matches!(step, Step::Over) {
            self.behind.left.remove(&job);
        }
        step
    }

    fn step_if_behind(&mut self, job: Job, earliest: Offset) -> Step {
        let Job { id, number } = job;
        let Some(slot) = self.slots.get_mut(id) else { return Step::Over };
        if !matches!(slot.phase, Phase::Open) {
            return Step::Over;
        }
        match slot.sub_mut(number) {
            Some(sub) if sub.state == SubState::Behind => {}
            _ => return Step::Over,
        }
        let stepped = match slot.prepare() {
            Ok(true) => self.step_prepared(job, earliest),
            Ok(false) => Ok(self.stall(job)),
            Err(error) => Err(error),
        };
        self.go_on_reading(id);
        stepped.unwrap_or_else(|_| {
            self.remove(id);
            Step::Over
        })
    }

    fn stall(&mut self, Job { id, number }: Job) -> Step {
        if let Some(sub) = self.slots.get_mut(id).and_then(|slot| slot.sub_mut(number)) {
            sub.state = SubState::Stalled;
        }
        Step::Over
    }

    fn step_prepared(&mut self, job: Job, earliest: Offset) -> io::Result<Step> {
        let Job { id, number } = job;
        let slot = self.slots.get_mut(id).expect("it was looked at");
        if slot.serve(number, &mut self.views, &self.begun, self.tick)? != Served::Behind {
            // Whatever the ring has that its socket did not take is found when it has space.
            slot.sub_mut(number).expect("it was looked at").state = SubState::Live;
            return Ok(Step::Over);
        }
        let sub = slot.sub_mut(number).expect("it was looked at");
        let (view_id, from) = (sub.view, sub.place.next());
        let view = self.views.get(view_id);
        let RingPlace::Behind(ring) = view.ring.place_of(from) else {
            unreachable!("the ring could not serve it");
        };
        let is_divisible = view.render.is_divisible();
        // Inside a chunk of the ring it must meet that chunk's end.
        let is_inside_ring = from >= view.ring.start();
        let (until, is_exact) = match view.pages.place_of(from) {
            // Its segment is still there: limits of the log hold for who reads, too. Who lacks nothing of
            // what has gone, as its view had nothing there, is not told of it.
            PagePlace::Page(page) if page.next_event(from).is_some_and(|next| next < earliest) => {
                return self.pass_over(job, ResetReason::Expired, earliest).map(Step::Sent);
            }
            PagePlace::Page(page) => return self.send_page(job, &page),
            PagePlace::Indivisible(end) => (end, true),
            PagePlace::Missing(Some(next)) if next < ring => (next, !is_divisible),
            PagePlace::Missing(_) => (ring, is_inside_ring || !is_divisible),
        };
        if let Some(loaded) = self.behind.loading.get(&(view_id, from)) {
            return Ok(Step::Wait(loaded.clone()));
        }
        let (render, wanted) = (view.render.clone(), view.key.wanted.clone());
        Ok(Step::Read(Missing { view_id, render, wanted, from, until, is_exact }))
    }

    fn send_page(&mut self, job: Job, page: &Page) -> io::Result<Step> {
        let Job { id, number } = job;
        let slot = self.slots.get_mut(id).expect("it was looked at");
        let super::Slot { wire, subs, beat_tick, .. } = slot;
        let (sub, is_one) = match subs {
            Subs::One { sub, .. } => (sub, true),
            Subs::Many(many) => {
                let sub = many.subs.iter_mut().find(|sub| sub.number == number);
                (sub.expect("it was looked at"), false)
            }
        };
        let next = sub.place.next();
        let first = page.chunks.partition_point(|chunk| chunk.end <= next);
        let chunks = &page.chunks[first..];
        let inside = chunks.first().and_then(|chunk| chunk.position_of(next));
        if let Some(hidden) = page.hidden
            && hidden.last >= next
            && hidden.said_at > sub.told_deleted
        {
            // Said once for all that was deleted up to now, however much of it follows.
            sub.told_deleted = self.views.floors().latest().max(hidden.said_at);
            let follows = chunks.first().map_or(page.end, |chunk| chunk.start);
            let from = if hidden.first.max(next) < follows { follows } else { next };
            sub.place.jumped(from);
            sub.has_sent = true;
            let mut text = Vec::new();
            let word = Word::Reset { reason: ResetReason::Deleted, from };
            self.views.get(sub.view).render.say(word, &mut text);
            wire.append(&text)?;
            if is_one {
                *beat_tick = self.tick;
            }
            return Ok(Step::Sent(text.len()));
        }
        let bytes = chunks.iter().map(|chunk| chunk.bytes.len()).sum();
        let view = self.views.get(sub.view);
        let is_taken = chunks.is_empty()
            || wire.push(&mut sub.place, view, &self.begun, inside, chunks.iter())?;
        // A page may have nothing for it, and is then no sign of life.
        if sub.place.next() > next {
            sub.has_sent = true;
            if is_one {
                *beat_tick = self.tick;
            }
        }
        if !is_taken {
            return Ok(self.stall(job));
        }
        sub.place.considered(page.end);
        let view_id = sub.view;
        self.views.drop_sent(view_id, page.end);
        Ok(Step::Sent(bytes))
    }

    /// The log, which begins at `earliest`, could not be read from `from` on.
    fn fail(
        &mut self,
        job: Job,
        from: Offset,
        failure: ReadError,
        earliest: Offset,
        gaps: &ReportedGaps,
    ) {
        let slot = self.slots.get_mut(job.id).filter(|slot| matches!(slot.phase, Phase::Open));
        let Some(sub) = slot.and_then(|slot| slot.sub_mut(job.number)) else { return };
        if sub.place.next() != from || sub.state != SubState::Behind {
            return;
        }
        let (reason, to) = match failure {
            ReadError::Gap { from: lost, to, .. } => {
                gaps.report(lost, to, &failure);
                (ResetReason::Gap, to.max(from))
            }
            // The first segment that is left may hold what is gone as well.
            ReadError::Expired { earliest: left } => {
                (ResetReason::Expired, left.max(earliest).max(from))
            }
            ReadError::Io { .. } => {
                tracing::error!(error = %failure, "a subscriber's part of the log cannot be read");
                return self.end(job.id, End::Close(CloseCode::CannotRead));
            }
        };
        if self.pass_over(job, reason, to).is_err() {
            self.remove(job.id);
        }
    }

    /// A subscription goes on at `to`, and is told; returns in how many bytes.
    fn pass_over(&mut self, job: Job, reason: ResetReason, to: Offset) -> io::Result<usize> {
        let slot = self.slots.get_mut(job.id).expect("it was looked at");
        let sub = slot.sub_mut(job.number).expect("it was looked at");
        sub.place.jumped(to);
        sub.has_sent = true;
        let mut text = Vec::new();
        self.views.get(sub.view).render.say(Word::Reset { reason, from: to }, &mut text);
        slot.wire.append(&text)?;
        Ok(text.len())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use bytes::Bytes;
    use smallvec::SmallVec;

    use super::super::Port;
    use super::super::slot::{Many, Slot};
    use super::super::testing;
    use super::*;
    use crate::stream::chunk::Chunk;

    /// A subscription for which the ring has nothing; and its client.
    fn add_behind(inner: &mut Inner) -> (Job, UnixStream) {
        let (id, client) = testing::add(inner, SubState::Behind);
        (Job { id, number: 0 }, client)
    }

    /// Keeps a page of the view for everything, of one chunk of 1,000 bytes.
    fn add_page(inner: &mut Inner, start: u64, end: u64) {
        let (start, end) = (Offset::new(start), Offset::new(end));
        let chunk = Chunk::whole(start, end, Bytes::from_static(&[b'x'; 1000]));
        inner.views.add_page(ViewId(0), start, Page { end, chunks: [chunk].into(), hidden: None });
    }

    fn is_sent(inner: &mut Inner, job: Job) -> bool {
        matches!(inner.step(job, Offset::ZERO), Step::Sent(1000))
    }

    #[test]
    fn who_is_alone_leaves_no_page_behind_that_it_was_sent() {
        let mut inner = Inner::new(Offset::new(10));
        let (job, _client) = add_behind(&mut inner);
        add_page(&mut inner, 0, 5);
        let one_bytes = inner.views.bytes();
        add_page(&mut inner, 5, 10);
        assert!(is_sent(&mut inner, job));
        assert_eq!(inner.views.bytes(), one_bytes, "the second is still to be sent");
        assert!(is_sent(&mut inner, job));
        assert_eq!(inner.views.bytes(), 0);
        assert!(matches!(inner.step(job, Offset::ZERO), Step::Over), "it has caught up");
    }

    /// Each page of a search that finds nothing put the heartbeat off, as if it had been sent.
    #[test]
    fn a_page_without_an_event_puts_no_heartbeat_off() {
        let mut inner = Inner::new(Offset::new(10));
        let (job, _client) = add_behind(&mut inner);
        let beat_tick = |inner: &mut Inner| inner.slots.get_mut(job.id).map(|slot| slot.beat_tick);
        let nothing = Page { end: Offset::new(5), chunks: [].into(), hidden: None };
        inner.views.add_page(ViewId(0), Offset::ZERO, nothing);
        add_page(&mut inner, 5, 10);
        inner.tick = 7;
        assert!(matches!(inner.step(job, Offset::ZERO), Step::Sent(0)));
        assert_eq!(beat_tick(&mut inner), Some(0));
        assert!(is_sent(&mut inner, job));
        assert_eq!(beat_tick(&mut inner), Some(7));
    }

    #[test]
    fn who_is_not_alone_leaves_pages_to_the_others() {
        let mut inner = Inner::new(Offset::new(10));
        let (first, _client) = add_behind(&mut inner);
        let (second, _other_client) = add_behind(&mut inner);
        add_page(&mut inner, 0, 10);
        for job in [first, second] {
            assert!(is_sent(&mut inner, job));
            assert!(inner.views.bytes() > 0);
        }
    }

    /// A session that left a subscription and began another had a job for each: they took the readers of others, and
    /// the line had no end.
    #[test]
    fn a_session_that_comes_and_goes_has_one_job_at_a_time() {
        testing::on_a_shard(|subscribers| {
            let mut inner = subscribers.inner.borrow_mut();
            let (socket, _client) = UnixStream::pair().expect("a pair of sockets");
            // As while it is called.
            let many = Many { session: None, subs: SmallVec::new(), is_settling: false };
            let subs = Subs::Many(Box::new(many));
            let id = inner.slots.insert(Slot::new(socket.into(), subs, 1, 0, testing::guard()));
            let job = Job { id, number: 1 };
            let come = |inner: &mut Inner| {
                let (key, render) = (testing::everything(), Rc::new(testing::Unsaid));
                let mut port = Port { inner, owner: &subscribers, id };
                port.join(1, &key, render, Offset::ZERO, false);
                inner.fall_behind(id, 1);
                inner.behind.waiting.len()
            };
            let go = |inner: &mut Inner| Port { inner, owner: &subscribers, id }.leave(1);
            assert_eq!(come(&mut inner), 1);
            for _ in 0..3 {
                assert!(go(&mut inner));
                assert_eq!(come(&mut inner), 1, "its number stands in line");
            }
            assert_eq!(inner.behind.waiting.pop_front(), Some(job));
            assert!(go(&mut inner));
            assert_eq!(come(&mut inner), 0, "a reader has it in hand");
            assert!(go(&mut inner));
            assert!(matches!(inner.step(job, Offset::ZERO), Step::Over));
            assert_eq!(come(&mut inner), 1, "that one has let go of it");
        });
    }
}
