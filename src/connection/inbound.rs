//! What comes in on a connection: a buffer of its own only while there is something to keep, and bodies
//! out of it.

use std::{
    future::{Future, poll_fn},
    io, mem,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use monoio::time::Instant;

use super::deadline::Deadline;
use crate::{
    clock,
    config::Limits,
    http::body::{BodyDecoder, BodyPiece},
    local::SignalWait,
    problem::{Problem, ProblemKind},
    shutdown::Drain,
    socket::Socket,
};

/// What is read at first of a request that did not come whole.
const BUFFER_BYTES_MIN: usize = 2 * 1024;

/// The buffer of a connection on which much comes: a read's fixed cost vanishes.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Bytes that have come and were not taken yet.
///
/// Invariant: `start <= buffer.len()`; what is before `start` was taken.
pub(super) struct Inbound<'a> {
    socket: Rc<Socket>,
    drain: &'a Drain,
    /// The wait for the drain to begin, for as long as the connection lives.
    drain_moved: Option<SignalWait<'a>>,
    deadline: Deadline,
    /// When something came last, some milliseconds more or less.
    last_came: Instant,
    /// When something was still to come as the server began to drain.
    drained: Option<Instant>,
    buffer: Vec<u8>,
    start: usize,
    /// How much the next read asks for at least.
    read_bytes: usize,
    is_ended: bool,
}

/// What has come and was not taken, while somebody else has it.
pub(super) struct Lent {
    buffer: Vec<u8>,
    start: usize,
}

impl Lent {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..]
    }
}

/// How a wait for bytes ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// There are more.
    Bytes,
    /// There will be no more.
    End,
    /// The deadline has passed.
    Late,
    /// The server began to drain.
    Draining,
}

/// Why a body did not come whole.
#[derive(Debug)]
pub(super) enum BodyFault {
    /// The client was lost: nobody is there for an answer.
    Lost,
    /// The request is refused.
    Refused(Problem),
}

impl From<Problem> for BodyFault {
    fn from(problem: Problem) -> Self {
        BodyFault::Refused(problem)
    }
}

impl<'a> Inbound<'a> {
    pub(super) fn new(socket: Rc<Socket>, drain: &'a Drain) -> Self {
        Inbound {
            socket,
            drain,
            drain_moved: None,
            deadline: Deadline::default(),
            last_came: Instant::now(),
            drained: None,
            buffer: Vec::new(),
            start: 0,
            read_bytes: BUFFER_BYTES_MIN,
            is_ended: false,
        }
    }

    /// What has come and was not taken.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// Gives out what has come and was not taken, until [`Inbound::take_back`].
    pub(super) fn lend(&mut self) -> Lent {
        Lent { buffer: mem::take(&mut self.buffer), start: mem::take(&mut self.start) }
    }

    /// Takes it back as it was.
    pub(super) fn take_back(&mut self, lent: Lent) {
        assert!(self.buffer.is_empty(), "nothing comes meanwhile");
        Lent { buffer: self.buffer, start: self.start } = lent;
    }

    /// Takes bytes off the front.
    pub(super) fn take(&mut self, bytes: usize) {
        self.start += bytes;
        assert!(self.start <= self.buffer.len(), "only what has come can be taken");
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        }
    }

    /// Gives back the memory of a connection that waits for its next request.
    pub(super) fn rest(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = Vec::new();
        }
    }

    /// What has come beyond the last request.
    pub(super) fn into_rest(mut self) -> Vec<u8> {
        self.buffer.drain(..self.start);
        self.buffer
    }

    /// Keeps what came by [`Inbound::poll_into`] and was not taken.
    pub(super) fn keep(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Reads into a buffer that is not this connection's own, while that is empty.
    pub(super) fn poll_into(
        &mut self,
        buffer: &mut Vec<u8>,
        context: &Context<'_>,
    ) -> Poll<io::Result<Came>> {
        assert!(self.buffer.is_empty(), "what came first is served first");
        if self.is_ended {
            return Poll::Ready(Ok(Came::End));
        }
        let read_bytes = ready!(self.socket.poll_recv(buffer, context))?;
        self.last_came = clock::coarse_instant().into();
        self.is_ended = read_bytes == 0;
        Poll::Ready(Ok(if self.is_ended { Came::End } else { Came::Bytes }))
    }

    /// Whether anything has happened that ends a wait by [`Inbound::poll_into`], [`Inbound::poll_drain`] and
    /// [`Inbound::poll_idle`]. If not, they need not be polled again in the same task.
    pub(super) fn has_news(&self) -> bool {
        let has_moved = self.drain_moved.as_ref().is_none_or(SignalWait::is_over);
        self.socket.may_read() || has_moved || self.deadline.has_rung()
    }

    /// Ready when nothing has come for `idle`, unless that is the connection's own doing.
    pub(super) fn poll_idle(
        &mut self,
        idle: Duration,
        is_busy: impl Fn() -> bool,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        loop {
            ready!(self.deadline.poll(self.last_came + idle, context));
            if !is_busy() {
                return Poll::Ready(());
            }
            self.last_came = Instant::now();
        }
    }

    /// Ready once the server drains.
    pub(super) fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.drain.is_on() {
                return Poll::Ready(());
            }
            let moved = self.drain_moved.get_or_insert_with(|| self.drain.moved());
            ready!(Pin::new(moved).poll(context));
            self.drain_moved = None;
        }
    }

    /// Waits for more of a head until `deadline`, and once the server drains for `drain_head` at most.
    pub(super) async fn fill_head(
        &mut self,
        deadline: Instant,
        drain_head: Duration,
    ) -> io::Result<Came> {
        if self.is_ended {
            return Ok(Came::End);
        }
        self.make_room();
        poll_fn(|context| {
            if self.poll_drained(drain_head, context).is_ready() {
                return Poll::Ready(Ok(Came::Draining));
            }
            if let Poll::Ready(outcome) = self.poll_read(context) {
                return Poll::Ready(outcome);
            }
            self.poll_late(deadline, drain_head, context).map(|()| Ok(Came::Late))
        })
        .await
    }

    /// Ready once `rest` has passed since the server began to drain: what is still to come of a request has
    /// to come in that time, also where it never stalls.
    fn poll_drained(&mut self, rest: Duration, context: &mut Context<'_>) -> Poll<()> {
        ready!(self.poll_drain(context));
        let began = *self.drained.get_or_insert_with(Instant::now);
        self.deadline.poll(began + rest, context)
    }

    /// Ready once `deadline` has passed, unless the time that a drain leaves ends before: of both, the one
    /// timer rings for the earlier.
    fn poll_late(
        &mut self,
        deadline: Instant,
        rest: Duration,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        match self.drained {
            Some(began) if began + rest <= deadline => Poll::Pending,
            _ => self.deadline.poll(deadline, context),
        }
    }

    /// Waits for more bytes until `deadline`. When that has passed, `extend` may give a later one.
    pub(super) async fn fill(
        &mut self,
        mut deadline: Instant,
        extend: impl Fn() -> Option<Instant>,
    ) -> io::Result<Came> {
        if self.is_ended {
            return Ok(Came::End);
        }
        self.make_room();
        poll_fn(|context| {
            if let Poll::Ready(outcome) = self.poll_read(context) {
                return Poll::Ready(outcome);
            }
            while self.deadline.poll(deadline, context).is_ready() {
                match extend() {
                    Some(later) => deadline = later,
                    None => return Poll::Ready(Ok(Came::Late)),
                }
            }
            Poll::Pending
        })
        .await
    }

    fn poll_read(&mut self, context: &Context<'_>) -> Poll<io::Result<Came>> {
        let space = self.buffer.capacity() - self.buffer.len();
        let read_bytes = ready!(self.socket.poll_recv(&mut self.buffer, context))?;
        // Asks for more after a read that was filled, and for less when little comes.
        self.read_bytes = match read_bytes {
            _ if read_bytes == space => (self.read_bytes * 4).min(BUFFER_BYTES_MAX),
            _ if read_bytes < self.read_bytes / 4 => (self.read_bytes / 4).max(BUFFER_BYTES_MIN),
            _ => self.read_bytes,
        };
        self.is_ended = read_bytes == 0;
        Poll::Ready(Ok(if self.is_ended { Came::End } else { Came::Bytes }))
    }

    /// Makes room for a read, and gives back a large buffer of which little is used.
    fn make_room(&mut self) {
        let held = self.buffer.len() - self.start;
        let fits = self.buffer.capacity() - self.buffer.len() >= self.read_bytes / 2;
        let is_too_large = self.buffer.capacity() > 4 * (held + self.read_bytes);
        if fits && !is_too_large && self.buffer.len() < self.buffer.capacity() {
            return;
        }
        if is_too_large || self.buffer.capacity() < held + self.read_bytes {
            let mut buffer = Vec::with_capacity(held + self.read_bytes);
            buffer.extend_from_slice(self.bytes());
            self.buffer = buffer;
        } else {
            self.buffer.drain(..self.start);
        }
        self.start = 0;
    }

    /// Waits for more of a body.
    async fn wait_for_body(&mut self, limits: &Limits) -> io::Result<Came> {
        if self.is_ended {
            return Ok(Came::End);
        }
        self.make_room();
        let stall = Instant::now() + Duration::from_millis(limits.body_stall_ms);
        let drain_body = Duration::from_millis(limits.drain_body_ms);
        poll_fn(|context| {
            if self.poll_drained(drain_body, context).is_ready() {
                return Poll::Ready(Ok(Came::Draining));
            }
            if let Poll::Ready(outcome) = self.poll_read(context) {
                return Poll::Ready(outcome);
            }
            self.poll_late(stall, drain_body, context).map(|()| Ok(Came::Late))
        })
        .await
    }

    /// Reads on until more of a body has come that may pause where it is: nothing is kept of it. False if
    /// nothing came for a while; then the peer is asked whether it is still there.
    pub(super) async fn fill_pausing_body(&mut self, limits: &Limits) -> Result<bool, BodyFault> {
        match self.wait_for_body(limits).await {
            Ok(Came::Late) => match self.socket.probe_peer() {
                Ok(()) => Ok(false),
                Err(_) => Err(BodyFault::Lost),
            },
            came => body_has_come(came, limits).map(|()| true),
        }
    }

    /// Reads on until more of a body has come.
    pub(super) async fn fill_body(&mut self, limits: &Limits) -> Result<(), BodyFault> {
        body_has_come(self.wait_for_body(limits).await, limits)
    }

    /// A whole body.
    pub(super) async fn body(
        &mut self,
        mut decoder: BodyDecoder,
        limits: &Limits,
    ) -> Result<Bytes, BodyFault> {
        let stated = decoder.sized_bytes_left().map(usize::try_from);
        // A stated size is believed as far as the bytes that go with it have come.
        let mut body = match stated {
            Some(Ok(bytes)) => Vec::with_capacity(bytes.min(2 * self.bytes().len() + 4096)),
            _ => Vec::new(),
        };
        loop {
            let before = self.bytes();
            let mut input = before;
            let mut is_whole = false;
            loop {
                match decoder.next(&mut input)? {
                    BodyPiece::Data(data) => body.extend_from_slice(data),
                    BodyPiece::More => break,
                    BodyPiece::End => {
                        is_whole = true;
                        break;
                    }
                }
            }
            let taken = before.len() - input.len();
            self.take(taken);
            if is_whole {
                return Ok(Bytes::from(body));
            }
            self.fill_body(limits).await?;
        }
    }

    /// Reads and drops whatever comes, until the client ends or `linger_ms` after all answers are with
    /// the kernel: a socket closed with unread bytes would take the answers with it.
    pub(super) async fn linger(&mut self, linger_ms: u64, is_flushed: impl Fn() -> bool) {
        let linger = Duration::from_millis(linger_ms);
        let flushed_before = std::cell::Cell::new(false);
        loop {
            self.take(self.bytes().len());
            let extend = || {
                // The wait counts from the moment when the answers have left.
                let again = !flushed_before.get();
                flushed_before.set(is_flushed());
                again.then(|| Instant::now() + linger)
            };
            flushed_before.set(is_flushed());
            match self.fill(Instant::now() + linger, extend).await {
                Ok(Came::Bytes) => {}
                _ => return,
            }
        }
    }
}

/// What a wait for more of a body came to.
fn body_has_come(came: io::Result<Came>, limits: &Limits) -> Result<(), BodyFault> {
    let (kind, detail) = match came {
        Ok(Came::Bytes) => return Ok(()),
        Ok(Came::Late) => {
            let detail = format!("nothing of the body came for {} ms", limits.body_stall_ms);
            (ProblemKind::RequestTimeout, detail)
        }
        Ok(Came::Draining) => {
            let detail = "the server is stopping, and the body has not ended";
            (ProblemKind::Draining, detail.to_owned())
        }
        // It may have ended its side alone, and reads.
        Ok(Came::End) => {
            let detail = "the connection ended before the body did";
            (ProblemKind::InvalidBody, detail.to_owned())
        }
        Err(_) => return Err(BodyFault::Lost),
    };
    Err(Problem::new(kind, detail).closing().into())
}
