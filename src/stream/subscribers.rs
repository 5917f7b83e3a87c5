//! All connections of a shard that stream, and the one task that serves them.
//!
//! ```text
//!   frames --> views --> due -----.
//!                                 v
//!   sockets --> watch --> ready --> [ a slice of work ] --> sends
//!                                 ^         |
//!   wheel --> heartbeats ---------'         '--> behind --> up to `TURNS_MAX` readers of the log
//! ```
//! A connection is a `slot::Slot`, its socket is watched in bulk, its heartbeat is an entry in a wheel: an
//! idle one has no task, no timer and no buffer. When a view has something new its members are served
//! one after the other, each with everything that came since its last send, in one vectored send; so
//! at low load an event leaves at once, and under load sends grow by themselves. The work goes in
//! slices, between which everything else of the shard runs: ten thousand sends take about 30 ms, and
//! an acknowledgement must not wait behind them.
//!
//! Invariants:
//! 1. Nothing here is borrowed across an `.await`.
//! 2. A subscription that is `Live` and whose view has something for it is found again: by the view's
//!    round, or because its socket is full and will say when it is not.
//! 3. A subscription that is `Behind` is in `behind`, or in the hands of a reader.

mod behind;
mod ending;
mod port;
mod session;
mod slab;
mod slot;
mod watch;
mod wheel;
mod wire;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use monoio::time::Sleep;
use smallvec::SmallVec;
use strandline_storage::error::ReadError;
use strandline_storage::frame::Frame;
use strandline_storage::offset::Offset;

use self::behind::{Behind, Job};
pub use self::port::Port;
pub use self::session::{End, Session};
use self::slab::Slab;
pub use self::slab::SlotId;
use self::slot::{Many, Phase, Served, Slot, Sub, SubState, Subs};
use self::watch::{Change, Watch};
use self::wheel::{TICK_MS, Wheel};
use super::catch_up::Turns;
use super::chunk::{Render, Word};
use super::subscription::Subscription;
use super::view::{Member, ViewKey};
use super::views::Views;
use crate::clock;
use crate::local::Guard;
use crate::log_handle::LogHandle;
use crate::problem::CloseCode;
use crate::runtime::{Slice, give_way};
use crate::shutdown::Drain;

/// Who only listens has nothing to say; more than a pipelined request or two is a mistake or a flood.
/// (After a WebSocket's close it is what the client had sent before it could know.)
const THROWN_AWAY_BYTES_MAX: u32 = 8 * 1024 * 1024;

/// What has come in is read into one buffer for all connections of a shard.
const RECEIVE_BYTES: usize = 64 * 1024;

/// At the end, publishes that were taken have so long to be acknowledged: a commit's time, many times.
const SETTLE_MS: u64 = 2_000;

/// A stream that is told of its end has so long to take it, or a session to end its side.
const LEAVING_MS: u64 = 2_000;

/// So many sends go by between two looks at the clock.
const SENDS_PER_LOOK: u32 = 8;

/// The connections of one shard that stream one log.
pub struct Subscribers {
    inner: RefCell<Inner>,
    watch: RefCell<Watch>,
    log: Rc<LogHandle>,
    turns: Turns,
    drain: Drain,
    /// Of the task that serves them, while it sleeps.
    waker: Cell<Option<Waker>>,
    began: Instant,
    /// Numbers the searches of sessions.
    searches: Cell<u32>,
    me: Weak<Subscribers>,
}

struct Inner {
    views: Views,
    slots: Slab<Slot>,
    wheel: Wheel,
    ready: VecDeque<SlotId>,
    /// Connections whose alarm has rung.
    rung: Vec<SlotId>,
    behind: Behind,
    /// Connections that are still to be told of the drain.
    to_drain: Vec<SlotId>,
    is_draining: bool,
    input: Box<[u8]>,
    tick: u32,
}

/// How an event stream begins.
pub struct StreamStart {
    /// Which events, and how they look.
    pub key: ViewKey,
    /// Renders them.
    pub render: Rc<dyn Render>,
    /// The first offset wanted, where that is known already; else [`Subscribers::begin`] is called.
    pub from: Option<Offset>,
    /// Whether the client has been here before: it is told of what was deleted since.
    pub is_resumed: bool,
    /// What is sent first.
    pub text: Bytes,
    /// Seconds between heartbeats.
    pub heartbeat_s: u16,
    /// Whether heartbeats are `ping` events.
    pub is_pinging: bool,
}

impl Subscribers {
    /// Nobody yet; they will be served until the shard ends, and told of `drain`.
    pub fn start(log: Rc<LogHandle>, turns: Turns, drain: Drain) -> io::Result<Rc<Self>> {
        let inner = Inner {
            views: Views::new(log.visible()),
            slots: Slab::default(),
            wheel: Wheel::default(),
            ready: VecDeque::new(),
            rung: Vec::new(),
            behind: Behind::default(),
            to_drain: Vec::new(),
            is_draining: false,
            input: vec![0; RECEIVE_BYTES].into(),
            tick: 0,
        };
        let watch = Watch::new()?;
        let subscribers = Rc::new_cyclic(|me| Subscribers {
            inner: RefCell::new(inner),
            watch: RefCell::new(watch),
            log,
            turns,
            drain: drain.clone(),
            waker: Cell::new(None),
            began: Instant::now(),
            searches: Cell::new(0),
            me: me.clone(),
        });
        monoio::spawn(serve_all(Rc::downgrade(&subscribers), drain));
        Ok(subscribers)
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.inner.borrow().slots.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a connection is still there.
    pub fn has(&self, id: SlotId) -> bool {
        self.inner.borrow_mut().slots.get_mut(id).is_some()
    }

    /// How many views there are.
    pub fn view_count(&self) -> usize {
        self.inner.borrow().views.len()
    }

    /// The bytes of all chunks that are kept.
    pub fn chunk_bytes(&self) -> usize {
        self.inner.borrow().views.bytes()
    }

    /// The next frame became visible.
    pub(super) fn publish(&self, frame: &Frame) {
        let mut inner = self.inner.borrow_mut();
        inner.views.hide(&self.log.floors());
        inner.views.publish(frame);
        drop(inner);
        self.wake();
    }

    /// Everything below `visible` can be read, though its frames did not all come here.
    pub(super) fn advance(&self, visible: Offset) {
        self.inner.borrow_mut().views.advance(visible);
        self.wake();
    }

    /// Takes an event stream over; `guard` is dropped when it ends.
    pub fn add_stream(
        &self,
        socket: OwnedFd,
        start: StreamStart,
        guard: Guard,
    ) -> io::Result<SlotId> {
        let StreamStart { key, render, from, is_resumed, text, heartbeat_s, is_pinging } = start;
        let mut inner = self.inner.borrow_mut();
        inner.views.hide(&self.log.floors());
        inner.tick = self.tick();
        let sub = Sub {
            number: 0,
            state: if from.is_some() { SubState::Live } else { SubState::Searching },
            has_sent: false,
            // Set below: a member has a place first.
            view: super::view::ViewId(0),
            position: 0,
            place: Subscription::new(from.unwrap_or(Offset::ZERO)),
            told_deleted: inner.known_deleted(is_resumed),
        };
        let subs = Subs::One { sub, is_pinging };
        let id = inner.add(&self.watch.borrow(), socket, subs, heartbeat_s, guard)?;
        let member = Member { slot: id.index, number: 0 };
        let (view, position) = inner.views.join(&key, member, || render);
        let slot = inner.slots.get_mut(id).expect("it was added");
        let sub = slot.sub_mut(0).expect("it has one");
        (sub.view, sub.position) = (view, position);
        if slot.wire.send(text).is_err() {
            inner.remove(id);
        } else {
            inner.queue(id);
        }
        drop(inner);
        self.wake();
        Ok(id)
    }

    /// It is known where an event stream begins, and `text` says so.
    pub fn begin(&self, id: SlotId, from: Offset, text: &[u8]) {
        let mut inner = self.inner.borrow_mut();
        let Some(slot) = inner.slots.get_mut(id) else { return };
        if !matches!(slot.phase, Phase::Open) {
            return;
        }
        if slot.wire.append(text).is_err() {
            return inner.remove(id);
        }
        let sub = slot.sub_mut(0).expect("an event stream is one");
        (sub.state, sub.place) = (SubState::Live, Subscription::new(from));
        inner.queue(id);
        drop(inner);
        self.wake();
    }

    /// Takes a session over, with what has come in already; `guard` is dropped when it ends.
    pub fn add_session(
        &self,
        socket: OwnedFd,
        session: Box<dyn Session>,
        early: &[u8],
        heartbeat_s: u16,
        guard: Guard,
    ) -> io::Result<SlotId> {
        let mut inner = self.inner.borrow_mut();
        inner.tick = self.tick();
        let many = Many { session: Some(session), subs: SmallVec::new(), is_settling: false };
        let subs = Subs::Many(Box::new(many));
        let id = inner.add(&self.watch.borrow(), socket, subs, heartbeat_s, guard)?;
        inner.call(self, id, |session, port| {
            session.resume(port)?;
            if early.is_empty() { Ok(()) } else { session.receive(early, port) }
        });
        inner.queue(id);
        drop(inner);
        self.wake();
        Ok(id)
    }

    /// Ends a connection, in words.
    pub fn close(&self, id: SlotId, code: CloseCode) {
        self.inner.borrow_mut().end(id, End::Close(code));
        self.wake();
    }

    fn found(&self, id: SlotId, search: u32, found: Result<Offset, ReadError>) {
        let mut inner = self.inner.borrow_mut();
        if inner.slots.get_mut(id).is_none_or(|slot| !matches!(slot.phase, Phase::Open)) {
            return;
        }
        inner.call(self, id, |session, port| session.found(search, found, port));
        inner.queue(id);
        drop(inner);
        self.wake();
    }

    /// Hands a session the answers to what it appended, one after the other.
    async fn settle(self: Rc<Self>, id: SlotId) {
        loop {
            let append = self.inner.borrow_mut().next_append(id);
            let Some(append) = append else { return };
            let result = append.await;
            let mut inner = self.inner.borrow_mut();
            let Some(slot) = inner.slots.get_mut(id) else { return };
            // Nothing follows a goodbye.
            if matches!(slot.phase, Phase::Leaving { .. }) {
                return;
            }
            let Subs::Many(many) = &mut slot.subs else { return };
            many.session.as_mut().expect("it is not called now").acknowledged(result);
            inner.queue(id);
            drop(inner);
            self.wake();
        }
    }

    fn spawn_settle(&self, id: SlotId) {
        if let Some(me) = self.me.upgrade() {
            monoio::spawn(me.settle(id));
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Ticks since this began.
    fn tick(&self) -> u32 {
        let ticks = self.began.elapsed().as_millis() / u128::from(TICK_MS);
        u32::try_from(ticks).unwrap_or(u32::MAX)
    }

    /// When the next alarm rings.
    fn next_alarm(&self) -> Option<Instant> {
        let tick = self.inner.borrow().wheel.next_tick()?;
        Some(self.began + Duration::from_millis(u64::from(tick) * TICK_MS))
    }

    /// Works for a slice; returns whether there is more to do.
    fn work(&self) -> bool {
        let slice = Slice::begin();
        let mut inner = self.inner.borrow_mut();
        inner.tick = self.tick();
        inner.views.hide(&self.log.floors());
        let taken = self.watch.borrow_mut().take(|change| inner.note(change));
        let has_more_changes = taken.unwrap_or_else(|error| {
            tracing::error!(%error, "cannot wait for sockets");
            false
        });
        if self.drain.is_on() && !inner.is_draining {
            inner.begin_drain();
        }
        inner.take_alarms();
        let mut sends = 0;
        loop {
            let mut is_idle = true;
            if let Some(id) = inner.ready.pop_front() {
                inner.run(self, id);
                (is_idle, sends) = (false, sends + 1);
            }
            if let Some(id) = inner.rung.pop() {
                inner.ring(self, id);
                (is_idle, sends) = (false, sends + 1);
            }
            if let Some(id) = inner.to_drain.pop() {
                inner.end(id, End::Close(CloseCode::Drained));
                (is_idle, sends) = (false, sends + 1);
            }
            if inner.views.has_due() {
                sends += inner.serve_due(&slice);
                is_idle = false;
            }
            inner.behind.start_readers(self);
            if is_idle {
                return has_more_changes;
            }
            if sends >= SENDS_PER_LOOK {
                if slice.is_over() {
                    return true;
                }
                sends = 0;
            }
        }
    }

    fn has_work(&self) -> bool {
        let inner = self.inner.borrow();
        !inner.ready.is_empty()
            || !inner.rung.is_empty()
            || !inner.to_drain.is_empty()
            || inner.views.has_due()
    }
}

/// Serves the subscribers of a shard until they are dropped.
async fn serve_all(subscribers: Weak<Subscribers>, drain: Drain) {
    let mut draining = Some(Box::pin(async move { drain.begun().await }));
    let mut alarm: Option<(Instant, Pin<Box<Sleep>>)> = None;
    loop {
        // The task is woken by what it looks after, so it must not keep that alive.
        let is_there = poll_fn(|context| {
            let Some(subscribers) = subscribers.upgrade() else { return Poll::Ready(false) };
            if let Some(drain) = &mut draining
                && drain.as_mut().poll(context).is_ready()
            {
                draining = None;
                return Poll::Ready(true);
            }
            if subscribers.has_work() {
                return Poll::Ready(true);
            }
            if subscribers.watch.borrow_mut().poll_changes(context).is_ready() {
                return Poll::Ready(true);
            }
            if let Some(at) = subscribers.next_alarm() {
                let is_set = alarm.as_ref().is_some_and(|(set, _)| *set <= at);
                if !is_set {
                    let rest = at.saturating_duration_since(Instant::now());
                    alarm = Some((at, Box::pin(monoio::time::sleep(rest))));
                }
                if let Some((_, sleep)) = &mut alarm
                    && sleep.as_mut().poll(context).is_ready()
                {
                    alarm = None;
                    return Poll::Ready(true);
                }
            }
            subscribers.waker.set(Some(context.waker().clone()));
            Poll::Pending
        });
        if !is_there.await {
            return;
        }
        loop {
            let Some(subscribers) = subscribers.upgrade() else { return };
            let has_more = subscribers.work();
            drop(subscribers);
            if !has_more {
                break;
            }
            give_way().await;
        }
    }
}

impl Inner {
    fn add(
        &mut self,
        watch: &Watch,
        socket: OwnedFd,
        subs: Subs,
        heartbeat_s: u16,
        guard: Guard,
    ) -> io::Result<SlotId> {
        let heartbeat_ticks = ticks(u64::from(heartbeat_s) * 1000);
        let id = self.slots.insert(Slot::new(socket, subs, heartbeat_ticks, self.tick, guard));
        let slot = self.slots.get_mut(id).expect("it was inserted");
        if let Err(error) = watch.add(slot.wire.as_fd(), id) {
            self.slots.remove(id);
            return Err(error);
        }
        self.set_alarm(id, self.tick + heartbeat_ticks);
        if self.is_draining {
            self.to_drain.push(id);
        }
        Ok(id)
    }

    /// Up to where a subscription that begins now knows what was deleted: who was not here before never
    /// knew what is gone.
    fn known_deleted(&self, is_resumed: bool) -> Offset {
        if is_resumed { Offset::ZERO } else { self.views.floors().latest() }
    }

    fn set_alarm(&mut self, id: SlotId, tick: u32) {
        if let Some(slot) = self.slots.get_mut(id)
            && slot.alarm_tick != tick
        {
            slot.alarm_tick = tick;
            self.wheel.set(tick, id);
        }
    }

    /// A connection has something to do.
    fn queue(&mut self, id: SlotId) {
        if let Some(slot) = self.slots.get_mut(id)
            && !std::mem::replace(&mut slot.is_queued, true)
        {
            self.ready.push_back(id);
        }
    }

    fn note(&mut self, change: Change) {
        let Some(slot) = self.slots.get_mut(change.id) else { return };
        let mut is_due = false;
        if change.is_writable && slot.wire.is_full {
            slot.wire.is_full = false;
            is_due = true;
        }
        if change.is_readable {
            slot.has_input = true;
            slot.has_end |= change.is_end;
            is_due = true;
        }
        if is_due {
            self.queue(change.id);
        }
    }

    fn begin_drain(&mut self) {
        self.is_draining = true;
        self.to_drain = self.slots.ids();
    }

    /// Serves members of the view whose turn it is, for as long as the slice lasts; returns how many
    /// sends that took since the clock was looked at.
    fn serve_due(&mut self, slice: &Slice) -> u32 {
        let mut sends = 0;
        let Some(view_id) = self.views.first_due() else { return 0 };
        loop {
            let members = &mut self.views.get_mut(view_id).members;
            // Whoever is the only one may leave, and take the view along.
            let is_only_one = members.len() == 1;
            let Some(member) = members.next() else { break };
            sends += u32::from(self.serve(member));
            if is_only_one {
                break;
            }
            if sends >= SENDS_PER_LOOK {
                // Who has something to do by itself waits for a few sends, not for a whole round.
                if !self.ready.is_empty() || slice.is_over() {
                    self.views.served(false);
                    return sends;
                }
                sends = 0;
            }
        }
        self.views.served(true);
        sends
    }

    /// Serves one member of a view from its ring; returns whether that took a send.
    fn serve(&mut self, member: Member) -> bool {
        let Some((id, slot)) = self.slots.at_mut(member.slot) else { return false };
        let Some(sub) = slot.sub_mut(member.number) else { return false };
        let is_open = sub.state == SubState::Live && matches!(slot.phase, Phase::Open);
        if !is_open || slot.wire.is_full {
            return false;
        }
        let served = match slot.prepare() {
            Ok(true) => slot.serve(member.number, &self.views, self.tick),
            Ok(false) => return true,
            Err(error) => Err(error),
        };
        let is_full = slot.wire.is_full;
        self.go_on_reading(id);
        match served {
            Ok(Served::Sent) => true,
            Ok(Served::Done) => is_full,
            Ok(Served::Behind) => {
                self.fall_behind(id, member.number);
                false
            }
            Err(_) => {
                self.remove(id);
                true
            }
        }
    }

    /// A session whose answers have left takes up what came in meanwhile.
    fn go_on_reading(&mut self, id: SlotId) {
        if let Some(slot) = self.slots.get_mut(id)
            && std::mem::take(&mut slot.has_room_again)
        {
            self.queue(id);
        }
    }

    fn fall_behind(&mut self, id: SlotId, number: u16) {
        if let Some(sub) = self.slots.get_mut(id).and_then(|slot| slot.sub_mut(number)) {
            sub.state = SubState::Behind;
            self.behind.push(Job { id, number });
        }
    }

    /// Does what a connection has to do: reads, sends what waited, serves its subscriptions.
    fn run(&mut self, owner: &Subscribers, id: SlotId) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        slot.is_queued = false;
        if self.take_input(owner, id).is_err() {
            return self.remove(id);
        }
        let Some(slot) = self.slots.get_mut(id) else { return };
        let prepared = slot.prepare();
        self.go_on_reading(id);
        match prepared {
            Ok(true) => {}
            Ok(false) => return,
            Err(_) => return self.remove(id),
        }
        let Some(slot) = self.slots.get_mut(id) else { return };
        match slot.phase {
            Phase::Open => {}
            Phase::Settling(_) => return self.settle_or_leave(id),
            Phase::Leaving { .. } => return self.leave(id),
        }
        // Another begins each time: the first one may have more than the socket takes.
        let subs = slot.all_subs_mut();
        let numbers = subs.len();
        if numbers > 1 {
            subs.rotate_left(1);
        }
        for at in 0..numbers {
            let Some(slot) = self.slots.get_mut(id) else { return };
            let Some(sub) = slot.all_subs_mut().get_mut(at) else { break };
            let (number, state) = (sub.number, sub.state);
            match state {
                SubState::Live => {
                    self.serve(Member { slot: id.index, number });
                }
                SubState::Stalled if !slot.wire.is_full => self.fall_behind(id, number),
                _ => {}
            }
        }
    }

    /// Reads what has come in, once; an error is the end of the connection.
    fn take_input(&mut self, owner: &Subscribers, id: SlotId) -> Result<(), ()> {
        let Some(slot) = self.slots.get_mut(id) else { return Ok(()) };
        if matches!((&slot.phase, &slot.subs), (Phase::Open, Subs::Many(_))) {
            // What waited for room is taken up first.
            self.call(owner, id, |session, port| session.resume(port));
        }
        let Some(slot) = self.slots.get_mut(id) else { return Ok(()) };
        if let (Phase::Open, Subs::Many(many)) = (&slot.phase, &slot.subs)
            && !many.session.as_ref().expect("it is not called now").may_receive()
        {
            return Ok(());
        }
        if !slot.has_input {
            return Ok(());
        }
        let mut input = std::mem::take(&mut self.input);
        let received = slot.wire.receive(&mut input);
        let outcome = match received {
            Ok(None) => {
                slot.has_input = false;
                Ok(())
            }
            Ok(Some(0)) | Err(_) => Err(()),
            Ok(Some(count)) => {
                // Less than there was room for: nothing is left, and whatever comes is told of.
                slot.has_input = count == input.len() || slot.has_end;
                let is_open = matches!(slot.phase, Phase::Open);
                if is_open && matches!(slot.subs, Subs::Many(_)) {
                    self.call(owner, id, |session, port| session.receive(&input[..count], port));
                    Ok(())
                } else {
                    let count = u32::try_from(count).expect("a buffer is small");
                    slot.thrown_away_bytes = slot.thrown_away_bytes.saturating_add(count);
                    if slot.thrown_away_bytes > THROWN_AWAY_BYTES_MAX { Err(()) } else { Ok(()) }
                }
            }
        };
        self.input = input;
        if self.slots.get_mut(id).is_some_and(|slot| slot.has_input) {
            self.queue(id);
        }
        outcome
    }

    /// Calls a session, and does what follows from it.
    fn call(
        &mut self,
        owner: &Subscribers,
        id: SlotId,
        call: impl FnOnce(&mut dyn Session, &mut Port<'_>) -> Result<(), End>,
    ) {
        let Some(Subs::Many(many)) = self.slots.get_mut(id).map(|slot| &mut slot.subs) else {
            return;
        };
        let mut session = many.session.take().expect("it is called by one at a time");
        let outcome = call(session.as_mut(), &mut Port { inner: self, owner, id });
        let has_appends = session.has_appends();
        let Some(Subs::Many(many)) = self.slots.get_mut(id).map(|slot| &mut slot.subs) else {
            unreachable!("a session does not remove itself");
        };
        many.session = Some(session);
        if has_appends && !std::mem::replace(&mut many.is_settling, true) {
            owner.spawn_settle(id);
        }
        if let Err(end) = outcome {
            self.end(id, end);
        }
    }

    fn next_append(&mut self, id: SlotId) -> Option<crate::log_handle::AckFuture> {
        let Subs::Many(many) = &mut self.slots.get_mut(id)?.subs else { return None };
        let append = many.session.as_mut().expect("it is not called now").next_append();
        many.is_settling = append.is_some();
        if append.is_none() {
            self.queue(id);
        }
        append
    }

    /// Takes the alarms that are due; thousands may be, so they ring one after the other.
    fn take_alarms(&mut self) {
        while let Some((tick, ids)) = self.wheel.take_due(self.tick) {
            for id in ids {
                if let Some(slot) = self.slots.get_mut(id)
                    && slot.alarm_tick == tick
                {
                    slot.alarm_tick = 0;
                    self.rung.push(id);
                }
            }
        }
    }

    fn ring(&mut self, owner: &Subscribers, id: SlotId) {
        match self.slots.get_mut(id).map(|slot| &slot.phase) {
            None => {}
            Some(Phase::Settling(_)) => {
                tracing::warn!("publishes of a connection end without an acknowledgement");
                self.say_goodbye(id);
            }
            Some(Phase::Leaving { .. }) => self.remove(id),
            Some(Phase::Open) => self.beat_if_due(owner, id),
        }
    }

    fn beat_if_due(&mut self, owner: &Subscribers, id: SlotId) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        let due = slot.beat_tick.saturating_add(slot.heartbeat_ticks);
        if due > self.tick {
            return self.set_alarm(id, due);
        }
        slot.beat_tick = self.tick;
        let next = self.tick + slot.heartbeat_ticks;
        self.set_alarm(id, next);
        let slot = self.slots.get_mut(id).expect("it is there");
        match &slot.subs {
            Subs::Many(_) => {
                self.call(owner, id, |session, port| session.beat(port));
                self.queue(id);
            }
            Subs::One { .. } => {
                if self.beat_stream(id).is_err() {
                    self.remove(id);
                }
            }
        }
    }

    /// A stream's heartbeat: with a cursor if the client's would take it back over what held nothing
    /// for it. Where something waits to be taken, that is sign enough.
    fn beat_stream(&mut self, id: SlotId) -> io::Result<()> {
        let Some(slot) = self.slots.get_mut(id) else { return Ok(()) };
        if !slot.prepare()? {
            return Ok(());
        }
        let Subs::One { sub, is_pinging } = &mut slot.subs else { return Ok(()) };
        let word = match look_ahead(sub, &self.views) {
            Some(next) if *is_pinging || sub.place.has_moved_silently() => {
                sub.place.told();
                Word::Ping { next, now_ms: clock::unix_ms() }
            }
            _ => Word::Heartbeat,
        };
        let mut text = Vec::new();
        self.views.get(sub.view).render.say(word, &mut text);
        slot.wire.send(text.into()).map(|_| ())
    }
}

/// How far a subscription has come, nothing that its view has seen since being for it; `None` before it
/// has begun.
fn look_ahead(sub: &mut Sub, views: &Views) -> Option<Offset> {
    use super::chunk::RingPlace;
    match sub.state {
        SubState::Searching => return None,
        SubState::Live => {
            let ring = &views.get(sub.view).ring;
            if let RingPlace::Chunks(first) = ring.place_of(sub.place.next())
                && ring.chunks_from(first).len() == 0
            {
                sub.place.considered(views.considered());
            }
        }
        SubState::Behind | SubState::Stalled => {}
    }
    Some(sub.place.next())
}

/// Milliseconds as ticks, at least one.
fn ticks(ms: u64) -> u32 {
    u32::try_from((ms / TICK_MS).max(1)).unwrap_or(u32::MAX)
}
