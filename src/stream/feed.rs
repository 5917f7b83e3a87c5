//! What one subscriber is to send next, wherever it comes from.
//!
//! ```text
//!            ring cannot serve it            its turn                 chunks, gaps
//!   Live -----------------------> Waiting -----------> Reading <---------------------> Paused
//!     ^                              ^                                                    |
//!     |                              '----------- others wait, or the range ended --------|
//!     '------------------------------------- ring can serve it ---------------------------'
//! ```
//! The feed holds what it read until the socket has taken it. A socket that stays full is told to the
//! feed ([`Feed::stalled`]), which then lets go of everything: chunks, frames and turn. What had not
//! been taken is found again from the subscriber's place, so being slow costs a number.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use strandline_storage::error::ReadError;
use strandline_storage::offset::Offset;
use strandline_storage::selection::Order;

use super::catch_up::{CatchUp, Turn};
use super::chunk::{Chunk, Render, RingRead};
use super::follow::Attachment;
use super::live::LiveLog;
use super::subscription::Subscription;
use super::view::{ViewKey, Wanted};
use super::whole_log::WholeLog;
use crate::local::Kept;

/// One subscriber's share of a view.
pub struct Feed {
    live: Rc<LiveLog>,
    wanted: Rc<Wanted>,
    render: Rc<dyn Render>,
    attachment: Attachment,
    place: Subscription,
    /// Read, and not yet taken by the socket.
    pending: Vec<Chunk>,
    /// Once `pending` is taken, everything below has been considered.
    through: Offset,
    failure: Option<ReadError>,
    work: Work,
}

enum Work {
    Live,
    Waiting(Kept<Turn>),
    Reading(Pin<Box<dyn Future<Output = ReadDone>>>),
    Paused(Box<CatchUp>),
}

struct ReadDone {
    catch_up: Box<CatchUp>,
    chunks: Vec<Chunk>,
    considered: Result<Offset, ReadError>,
}

/// What a feed has.
#[derive(Debug)]
pub enum Fed {
    /// [`Feed::pending`] is not empty.
    Chunks,
    /// Part of the log cannot be had: the feed stands behind it, and the client must be told.
    Gap {
        /// The first event that is missing.
        from: Offset,
        /// Where the feed goes on.
        to: Offset,
        /// What is wrong, for the operator.
        why: ReadError,
    },
    /// Retention has passed the feed: it goes on with what is kept.
    Expired {
        /// The first event that is kept.
        earliest: Offset,
    },
    /// The log cannot be read now. The feed stands where it stood.
    Failed(ReadError),
}

impl Feed {
    /// A feed of what `key` wants, from `from` on.
    pub fn new(live: &Rc<LiveLog>, key: ViewKey, render: Rc<dyn Render>, from: Offset) -> Self {
        let wanted = Rc::new(key.wanted.clone());
        let attachment = live.follow().join(key, || render.clone());
        Feed {
            live: live.clone(),
            wanted,
            render,
            attachment,
            place: Subscription::new(from),
            pending: Vec::new(),
            through: from,
            failure: None,
            work: Work::Live,
        }
    }

    /// Where the subscriber stands.
    pub fn place(&mut self) -> &mut Subscription {
        &mut self.place
    }

    /// What the socket is to take now, in order.
    pub fn pending(&self) -> &[Chunk] {
        &self.pending
    }

    /// The socket took the first `count` of [`Feed::pending`].
    pub fn taken(&mut self, count: usize) {
        for chunk in self.pending.drain(..count) {
            self.place.took(&chunk);
        }
        self.settle();
    }

    /// The socket has been full for long.
    pub fn stalled(&mut self) {
        self.pending.clear();
        self.through = self.place.next();
        self.failure = None;
        self.work = Work::Live;
    }

    /// Ready when there is something to send or to say; asks again from then on what the ring has.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Fed> {
        loop {
            if !self.pending.is_empty() {
                return Poll::Ready(Fed::Chunks);
            }
            self.settle();
            if let Some(failure) = self.failure.take() {
                return Poll::Ready(self.fail(failure));
            }
            match &mut self.work {
                Work::Live => {
                    if !self.read_ring() {
                        self.work = Work::Waiting(self.live.turns().wait());
                    } else if self.pending.is_empty() {
                        self.attachment.wait(context.waker());
                        return Poll::Pending;
                    }
                }
                Work::Waiting(turn) => {
                    let turn = ready!(Pin::new(turn).poll(context)).expect("turns outlive feeds");
                    self.work = Work::Paused(Box::new(CatchUp::new(turn, self.walk())));
                }
                Work::Paused(_) => self.resume(),
                Work::Reading(read) => {
                    let done = ready!(read.as_mut().poll(context));
                    self.pending = done.chunks;
                    match done.considered {
                        Ok(considered) => self.through = considered,
                        Err(failure) => self.failure = Some(failure),
                    }
                    self.work = Work::Paused(done.catch_up);
                    // What was found out shows in the place before the next read begins.
                    self.settle();
                }
            }
        }
    }

    /// Goes on reading, unless the ring can serve it or others wait.
    fn resume(&mut self) {
        if self.read_ring() {
            self.work = Work::Live;
            return;
        }
        let Work::Paused(mut catch_up) = std::mem::replace(&mut self.work, Work::Live) else {
            unreachable!("only a paused read is resumed");
        };
        if catch_up.is_over() || catch_up.is_at_end() {
            // The turn goes to the next in line; if there is none, it comes back at once.
            drop(catch_up);
            self.work = Work::Waiting(self.live.turns().wait());
            return;
        }
        let render = self.render.clone();
        self.work = Work::Reading(Box::pin(async move {
            let mut chunks = Vec::new();
            let considered = catch_up.next(render.as_ref(), &mut chunks).await;
            ReadDone { catch_up, chunks, considered }
        }));
    }

    /// Takes what the view's ring has; false if it cannot serve the subscriber.
    fn read_ring(&mut self) -> bool {
        match self.attachment.read(self.place.next(), &mut self.pending) {
            RingRead::Through(end) => {
                self.through = end;
                self.settle();
                true
            }
            RingRead::Behind(_) => false,
        }
    }

    fn settle(&mut self) {
        if self.pending.is_empty() {
            self.place.considered(self.through);
        }
    }

    fn walk(&self) -> WholeLog {
        let range = self.place.next()..self.live.log().visible();
        WholeLog::new(self.live.log().clone(), self.wanted.clone(), range, Order::Ascending)
    }

    fn fail(&mut self, failure: ReadError) -> Fed {
        match failure {
            ReadError::Gap { from, to, .. } => {
                let (from, to) = (from.max(self.place.next()), to.max(self.place.next()));
                self.place.jumped(to);
                self.through = to;
                Fed::Gap { from, to, why: failure }
            }
            ReadError::Expired { earliest } => {
                let earliest = earliest.max(self.place.next());
                self.place.jumped(earliest);
                self.through = earliest;
                Fed::Expired { earliest }
            }
            ReadError::Io { .. } => {
                self.work = Work::Live;
                Fed::Failed(failure)
            }
        }
    }
}
