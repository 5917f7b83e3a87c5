//! What a shard keeps of one connection that streams: its socket, and where each of its subscriptions
//! stands. An idle one is this and nothing else: no task, no timer, no buffer.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use bytes::Bytes;
use smallvec::SmallVec;
use strandline_storage::offset::Offset;

use super::super::chunk::RingPlace;
use super::super::subscription::Subscription;
use super::super::view::{Member, ViewId};
use super::super::views::Views;
use super::begun::BegunChunks;
use super::session::{End, Session};
use super::slab::{SlotId, place_bytes};
use super::wire::Wire;
use crate::local::Guard;

/// One connection.
pub(super) struct Slot {
    pub(super) wire: Wire,
    pub(super) subs: Subs,
    pub(super) phase: Phase,
    /// It is in the queue of connections with something to do.
    pub(super) is_queued: bool,
    /// There may be something to read.
    pub(super) has_input: bool,
    /// The end stands behind what there is to read; nothing tells of it again.
    pub(super) has_end: bool,
    /// Answers have left, and what came in waited for that.
    pub(super) has_room_again: bool,
    /// The tick of its alarm in the wheel.
    pub(super) alarm_tick: u32,
    /// The last tick from which the next heartbeat counts.
    pub(super) beat_tick: u32,
    pub(super) heartbeat_ticks: u32,
    /// What it has said though nobody asked it.
    pub(super) thrown_away_bytes: u32,
    /// Dropped with the connection.
    _guard: Guard,
}

// docs/PERFORMANCE.md, "What a subscriber costs": what each of thousands is kept in while it is idle. Who
// needs another field finds room among these, or says there what it costs.
const _: () = assert!(place_bytes::<Slot>() == 120);
const _: () = assert!(size_of::<Many>() == 80);
const _: () = assert!(size_of::<Member>() == 8);
const _: () = assert!(size_of::<SlotId>() == 8);

/// How far a connection has come.
#[derive(Debug)]
pub(super) enum Phase {
    Open,
    /// What it published is still to be acknowledged; then it ends like this.
    Settling(End),
    /// Its last bytes are on their way.
    Leaving {
        /// Our side has ended.
        is_shut: bool,
    },
}

/// The subscriptions of a connection.
pub(super) enum Subs {
    /// An event stream is one.
    One {
        sub: Sub,
        /// Whether its heartbeats are `ping` events.
        is_pinging: bool,
    },
    /// A session has any number, and a say of its own.
    Many(Box<Many>),
}

/// What a session has.
pub(super) struct Many {
    /// Absent only while it is called.
    pub(super) session: Option<Box<dyn Session>>,
    pub(super) subs: SmallVec<[Sub; 1]>,
    /// A task waits for the acknowledgements of what it published.
    pub(super) is_settling: bool,
}

/// One subscription.
#[derive(Debug)]
pub(super) struct Sub {
    pub(super) number: u16,
    pub(super) state: SubState,
    /// Whether anything left since the last heartbeat.
    pub(super) has_sent: bool,
    pub(super) view: ViewId,
    /// Its position among the view's members.
    pub(super) position: u32,
    pub(super) place: Subscription,
    /// It knows of all deletions and trims that the log has up to this event.
    pub(super) told_deleted: Offset,
}

/// What a subscription does.
///
/// ```text
///   Searching --> Live <--------------------------- the ring can serve it --.
///                   |                                                       |
///                   '-- the ring cannot --> Behind, in the queue for a turn to read the log
///                                             |  ^
///                                 socket full '--' socket has space
///                                          Stalled
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SubState {
    Searching,
    Live,
    Behind,
    Stalled,
}

/// What came of serving a subscription from its view's ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Served {
    /// It has everything, or its socket is full and says when it is not.
    Done,
    /// Everything was there to be sent, and something was.
    Sent,
    /// The ring cannot serve it.
    Behind,
}

impl Slot {
    pub(super) fn new(
        socket: OwnedFd,
        subs: Subs,
        heartbeat_ticks: u32,
        beat_tick: u32,
        guard: Guard,
    ) -> Self {
        Slot {
            wire: Wire::new(socket),
            subs,
            phase: Phase::Open,
            is_queued: false,
            has_input: false,
            has_end: false,
            has_room_again: false,
            alarm_tick: 0,
            beat_tick,
            heartbeat_ticks,
            thrown_away_bytes: 0,
            _guard: guard,
        }
    }

    /// The subscription of this number.
    pub(super) fn sub_mut(&mut self, number: u16) -> Option<&mut Sub> {
        match &mut self.subs {
            Subs::One { sub, .. } => Some(sub).filter(|sub| sub.number == number),
            Subs::Many(many) => many.subs.iter_mut().find(|sub| sub.number == number),
        }
    }

    /// Whether something that it appended is still without an answer.
    pub(super) fn has_appends(&self) -> bool {
        let Subs::Many(many) = &self.subs else { return false };
        many.session.as_ref().expect("it is not called now").has_appends()
    }

    /// All its subscriptions.
    pub(super) fn all_subs_mut(&mut self) -> &mut [Sub] {
        match &mut self.subs {
            Subs::One { sub, .. } => std::slice::from_mut(sub),
            Subs::Many(many) => &mut many.subs,
        }
    }

    /// Sends what comes before any event: what was begun, and a session's answers. Returns whether the
    /// socket takes more.
    pub(super) fn prepare(&mut self) -> io::Result<bool> {
        if !self.wire.flush()? {
            return Ok(false);
        }
        if let Subs::Many(many) = &mut self.subs
            && let Some(session) = &mut many.session
            && session.has_answers()
        {
            let answers = Bytes::from(session.take_answers());
            // Who stopped reading for want of room for answers has some now.
            self.has_room_again = self.has_input || session.has_input();
            return self.wire.send(answers);
        }
        Ok(true)
    }

    /// Sends a subscription what its view's ring has for it. [`Slot::prepare`] comes first.
    pub(super) fn serve(
        &mut self,
        number: u16,
        views: &mut Views,
        begun: &Rc<BegunChunks>,
        tick: u32,
    ) -> io::Result<Served> {
        let Slot { wire, subs, .. } = self;
        let (sub, is_one) = match subs {
            Subs::One { sub, .. } => (Some(sub).filter(|sub| sub.number == number), true),
            Subs::Many(many) => (many.subs.iter_mut().find(|sub| sub.number == number), false),
        };
        let Some(sub) = sub else { return Ok(Served::Done) };
        views.up_to_date(sub.view);
        let views = &*views;
        let view = views.get(sub.view);
        let (first, inside) = match view.ring.place_of(sub.place.next()) {
            RingPlace::Chunks(first) => (first, None),
            RingPlace::Inside(first, at) => (first, Some(at)),
            RingPlace::Behind(_) => return Ok(Served::Behind),
        };
        let chunks = view.ring.chunks_from(first);
        let has_news = chunks.len() > 0;
        let before = sub.place.next();
        let is_taken = !has_news || wire.push(&mut sub.place, view, begun, inside, chunks)?;
        if sub.place.next() != before {
            sub.has_sent = true;
            if is_one {
                self.beat_tick = tick;
            }
        }
        if !is_taken {
            return Ok(Served::Done);
        }
        sub.place.considered(views.considered(sub.view));
        Ok(if has_news { Served::Sent } else { Served::Done })
    }
}
