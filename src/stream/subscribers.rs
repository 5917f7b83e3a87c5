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
//!    round, or because its socket is full and will say when it is not, or because it waits for a chunk that has
//!    gone and will be called when that is back.
//! 3. A subscription that is `Behind` is in `behind`, or in the hands of a reader; once, and no other of its number is.

mod alarms;
mod begun;
mod behind;
mod ending;
mod gone;
mod port;
mod pushing;
mod sends;
mod serving;
mod session;
mod slab;
mod slot;
mod talking;
#[cfg(test)]
pub(crate) mod testing;
mod watch;
mod wheel;
mod wire;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use bytes::Bytes;
use smallvec::SmallVec;
use strandline_storage::frame::Frame;
use strandline_storage::offset::Offset;

use self::begun::BegunChunks;
use self::behind::Behind;
use self::gone::Gone;
pub use self::port::Port;
use self::sends::Sends;
use self::serving::serve_all;
pub use self::session::{End, Session};
use self::slab::Slab;
pub use self::slab::SlotId;
use self::slot::{Many, Phase, Slot, Sub, SubState, Subs};
use self::watch::Watch;
use self::wheel::{TICK_MS, Wheel, ticks};
use super::catch_up::Turns;
use super::chunk::Render;
use super::gaps::ReportedGaps;
use super::subscription::Subscription;
use super::view::{Member, ViewKey};
use super::views::Views;
use crate::local::Guard;
use crate::log_handle::LogHandle;
use crate::problem::CloseCode;
use crate::runtime::Slice;
use crate::shutdown::Drain;

/// What has come in is read into one buffer for all connections of a shard.
const RECEIVE_BYTES: usize = 64 * 1024;

/// The connections of one shard that stream one log.
pub struct Subscribers {
    inner: RefCell<Inner>,
    watch: RefCell<Watch>,
    log: Rc<LogHandle>,
    turns: Turns,
    drain: Drain,
    gaps: Arc<ReportedGaps>,
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
    /// Chunks that sockets have taken a part of.
    begun: Rc<BegunChunks>,
    /// Those among them that have gone, and that sockets would take more of.
    gone: Gone,
    /// Connections that are still to be told of the drain.
    to_drain: Vec<SlotId>,
    is_draining: bool,
    input: Box<[u8]>,
    tick: u32,
    /// To members of views, since the slice began.
    sends: Sends,
    /// Of who works for them now.
    slice: Slice,
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

impl Inner {
    /// Nobody yet, on a log that is visible up to `visible`.
    fn new(visible: Offset) -> Self {
        Inner {
            views: Views::new(visible),
            slots: Slab::default(),
            wheel: Wheel::default(),
            ready: VecDeque::new(),
            rung: Vec::new(),
            behind: Behind::default(),
            begun: Rc::default(),
            gone: Gone::default(),
            to_drain: Vec::new(),
            is_draining: false,
            input: vec![0; RECEIVE_BYTES].into(),
            tick: 0,
            sends: Sends::default(),
            slice: Slice::begin(),
        }
    }
}

impl Subscribers {
    /// Nobody yet; they will be served until the shard ends, and told of `drain`.
    pub fn start(
        log: Rc<LogHandle>,
        turns: Turns,
        drain: Drain,
        gaps: Arc<ReportedGaps>,
    ) -> io::Result<Rc<Self>> {
        let inner = Inner::new(log.visible());
        let watch = Watch::new()?;
        let subscribers = Rc::new_cyclic(|me| Subscribers {
            inner: RefCell::new(inner),
            watch: RefCell::new(watch),
            log,
            turns,
            drain: drain.clone(),
            gaps,
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

    /// The next frame became visible.
    pub(super) fn publish(&self, frame: &Arc<Frame>) {
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
        inner.slice = Slice::begin();
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

    /// A connection has something to do.
    fn queue(&mut self, id: SlotId) {
        if let Some(slot) = self.slots.get_mut(id)
            && !std::mem::replace(&mut slot.is_queued, true)
        {
            self.ready.push_back(id);
        }
    }
}
