//! Thousands of sockets watched in bulk: one epoll instance of a shard, itself watched by its ring.
//!
//! A socket is registered once, for everything, edge-triggered: the kernel tells of what *comes to be*,
//! so an idle socket costs no operation, no buffer and no system call. Where there was more to read
//! than was read, or no space to send, whoever owns the socket remembers it.

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use monoio::net::TcpStream;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use super::slab::SlotId;

/// How many events are taken at once.
const EVENTS_MAX: usize = 256;

/// What came to be of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) id: SlotId,
    /// There is something to read, or its end.
    pub(super) is_readable: bool,
    /// Nothing comes behind what there is to read.
    pub(super) is_end: bool,
    /// There is space again.
    pub(super) is_writable: bool,
}

/// The sockets of a shard.
pub(super) struct Watch {
    epoll: OwnedFd,
    /// The same descriptor once more, in the hands of the runtime, which waits for it.
    waited: Rc<TcpStream>,
    readiness: Option<Pin<Box<dyn Future<Output = io::Result<()>>>>>,
    events: Vec<epoll::Event>,
}

impl Watch {
    /// Watches nothing yet. To be made on a shard's thread.
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let copy = epoll.try_clone()?.into_raw_fd();
        // SAFETY: the descriptor was just duplicated and has no other owner. It is no socket, which
        // matters to nobody: it is only waited for, by the same operation of the ring or of epoll.
        let waited = TcpStream::from_std(unsafe { std::net::TcpStream::from_raw_fd(copy) })?;
        Ok(Watch {
            epoll,
            waited: Rc::new(waited),
            readiness: None,
            events: Vec::with_capacity(EVENTS_MAX),
        })
    }

    /// Tells of everything that happens to `socket` from now on, until it is closed.
    pub(super) fn add(&self, socket: BorrowedFd<'_>, id: SlotId) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        Ok(epoll::add(&self.epoll, socket, EventData::new_u64(id.to_bits()), flags)?)
    }

    /// Ready when there are changes to be taken.
    pub(super) fn poll_changes(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let waited = &self.waited;
        let readiness = self.readiness.get_or_insert_with(|| {
            let waited = waited.clone();
            Box::pin(async move { waited.readable(false).await })
        });
        let result = ready!(readiness.as_mut().poll(context));
        self.readiness = None;
        Poll::Ready(result)
    }

    /// Takes the changes that are there, at most so many at once; whether there may be more.
    pub(super) fn take(&mut self, mut tell: impl FnMut(Change)) -> io::Result<bool> {
        self.events.clear();
        let timeout = Duration::ZERO.try_into().expect("no time fits");
        let spare = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(self.epoll.as_fd(), spare, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &self.events {
            let flags = event.flags;
            let ends = EventFlags::HUP | EventFlags::RDHUP | EventFlags::ERR;
            tell(Change {
                id: SlotId::from_bits(event.data.u64()),
                is_readable: flags.intersects(EventFlags::IN | ends),
                is_end: flags.intersects(ends),
                is_writable: flags.intersects(EventFlags::OUT | ends),
            });
        }
        Ok(self.events.len() == EVENTS_MAX)
    }
}
