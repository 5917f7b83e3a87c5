//! The accept loop of a shard.
//!
//! ```text
//! kernel's backlog --a slice's share at a time--> a place:  served
//!                                             \-> no place: refused (`refuse`)
//!                                              \-> neither: stays in the backlog
//! ```

use std::{
    cell::Cell,
    convert::Infallible,
    io,
    net::TcpListener,
    os::fd::OwnedFd,
    rc::Rc,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    net::{SocketFlags, accept_with, sockopt},
};

use super::refuse::Refusals;
use crate::{
    append::RepeatedHeads,
    connection,
    local::{Either, either},
    runtime::{Driver, end_slice},
    shard::{Place, Shard},
};

/// How long a shard waits when it cannot accept for want of files or memory: others must end first.
const ACCEPT_PAUSE_MS: u64 = 100;

/// Connections that are accepted in a row. Each costs about 10 us here, and its first request as much
/// again or a little more, before anything else of the shard has its turn; a slice is 1 ms.
const ACCEPTS_PER_SLICE: usize = 16;

/// A complaint about what may happen at every connection is made once in so many seconds.
const COMPLAINT_S: u64 = 10;

/// Where the connections of a shard come in. What that needs is had before the shard is called started.
pub(crate) struct Door {
    shard: Rc<Shard>,
    /// What its connections know of heads that come again and again.
    repeated: Rc<RepeatedHeads>,
    listener: TcpListener,
    /// The same socket, on which the runtime waits.
    watched: monoio::net::TcpListener,
    refusals: Refusals,
    cannot_accept: Complaint,
    is_full: Complaint,
}

/// When it was last made.
#[derive(Default)]
struct Complaint(Cell<Option<Instant>>);

impl Complaint {
    /// Whether to make it now.
    fn is_due(&self) -> bool {
        let (now, pause) = (Instant::now(), Duration::from_secs(COMPLAINT_S));
        let is_due = self.0.get().is_none_or(|last| now - last >= pause);
        if is_due {
            self.0.set(Some(now));
        }
        is_due
    }
}

impl Door {
    /// Fails where files or memory are wanting.
    pub(crate) fn open(shard: Rc<Shard>, listener: TcpListener) -> io::Result<Door> {
        // Whether something waits is asked of the ring; what does is then taken without waiting.
        listener.set_nonblocking(true)?;
        let watched = monoio::net::TcpListener::from_std(listener.try_clone()?)?;
        let refusals = Refusals::new(shard.clone())?;
        let (cannot_accept, is_full) = Default::default();
        let repeated = Rc::default();
        Ok(Door { shard, repeated, listener, watched, refusals, cannot_accept, is_full })
    }

    /// Accepts connections until the server drains.
    pub(crate) async fn run(self) {
        let serving = either(self.accept(), self.refusals.run());
        match either(self.shard.drain().begun(), serving).await {
            Either::Left(()) => {}
            Either::Right(Either::Left(never) | Either::Right(never)) => match never {},
        }
    }

    async fn accept(&self) -> Infallible {
        loop {
            self.room().await;
            let came = self.watched.readable(false).await;
            match came.and_then(|()| self.accept_some()) {
                Ok(true) => end_slice().await,
                Ok(false) => {}
                Err(error) => {
                    if self.cannot_accept.is_due() {
                        tracing::warn!(%error, "cannot accept connections for now");
                    }
                    monoio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
                }
            }
        }
    }

    /// Accepts what waits, up to a slice's share; returns whether it was that many.
    fn accept_some(&self) -> io::Result<bool> {
        // A ring waits by itself, and would not on a socket that says not to; epoll needs it.
        let flags = match self.shard.driver() {
            Driver::IoUring => SocketFlags::CLOEXEC,
            Driver::Epoll => SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        };
        for _ in 0..ACCEPTS_PER_SLICE {
            if !self.has_room() {
                return Ok(false);
            }
            match accept_with(&self.listener, flags) {
                Ok(socket) => self.take(socket),
                Err(Errno::AGAIN) => return Ok(false),
                Err(error) if is_of_one_connection(error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    fn take(&self, socket: OwnedFd) {
        let Some(place) = self.shard.connections().admit() else {
            if self.is_full.is_due() {
                let max = self.shard.connections().limit().max();
                tracing::warn!(max, "all places for connections are taken: more are refused");
            }
            // At worst another shard has just taken the last place, and this is one more than `max`.
            return self.refusals.take(socket);
        };
        if let Err(error) = self.serve(socket, place) {
            tracing::debug!(%error, "a connection ended before it was served");
        }
    }

    fn serve(&self, socket: OwnedFd, place: Place) -> io::Result<()> {
        sockopt::set_tcp_nodelay(&socket, true)?;
        let (shard, repeated) = (self.shard.clone(), self.repeated.clone());
        monoio::spawn(connection::serve(shard, repeated, socket, place));
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.shard.connections().has_room() || self.refusals.has_room()
    }

    /// Resolves once a connection that is accepted can be served, or refused. A place that another
    /// shard gives back is not told here: it is seen when a refusal ends, which has a deadline.
    async fn room(&self) {
        loop {
            let changed = (self.shard.connections().changed(), self.refusals.changed());
            if self.has_room() {
                return;
            }
            either(changed.0, changed.1).await;
        }
    }
}

/// Whether an error of `accept` says something of the connection alone (see accept(2)).
fn is_of_one_connection(error: Errno) -> bool {
    matches!(
        error,
        Errno::CONNABORTED
            | Errno::INTR
            | Errno::NETDOWN
            | Errno::PROTO
            | Errno::NOPROTOOPT
            | Errno::HOSTDOWN
            | Errno::NONET
            | Errno::HOSTUNREACH
            | Errno::OPNOTSUPP
            | Errno::NETUNREACH
    )
}
