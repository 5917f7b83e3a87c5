//! Thousands of sockets watched in bulk: one epoll instance of a shard, itself watched by its ring.
//!
//! A socket is registered once, for everything, edge-triggered: the kernel tells of what *comes to be*,
//! so an idle socket costs no operation, no buffer and no system call. Where there was more to read
//! than was read, or no space to send, whoever owns the socket remembers it.

use std::{
    cell::RefCell,
    io,
    os::fd::{AsFd, FromRawFd, IntoRawFd, OwnedFd},
    time::Duration,
};

use monoio::net::TcpStream;
use rustix::{
    event::epoll::{self, CreateFlags, EventData, EventFlags},
    io::Errno,
};

/// Sockets that are watched.
pub struct Epoll {
    epoll: OwnedFd,
    /// The same descriptor once more, in the hands of the runtime, which waits for it.
    waited: TcpStream,
    events: RefCell<Vec<epoll::Event>>,
    changes_max: usize,
}

/// What came to be of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// What it was added with.
    pub token: u64,
    /// There is something to read, or its end.
    pub is_readable: bool,
    /// Nothing comes behind what there is to read.
    pub is_end: bool,
    /// There is space to send into again.
    pub is_writable: bool,
}

impl Epoll {
    /// Watches nothing yet. To be made on a shard's thread. At most `changes_max` changes are taken at once.
    pub fn new(changes_max: usize) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let copy = epoll.try_clone()?.into_raw_fd();
        // SAFETY: the descriptor was just duplicated and has no other owner. It is no socket, which
        // matters to nobody: it is only waited for, by the same operation of the ring or of epoll.
        let waited = TcpStream::from_std(unsafe { std::net::TcpStream::from_raw_fd(copy) })?;
        Ok(Epoll { epoll, waited, events: RefCell::default(), changes_max })
    }

    /// Tells of everything that happens to `socket` from now on, until it is closed or removed.
    pub fn add(&self, socket: impl AsFd, token: u64) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        Ok(epoll::add(&self.epoll, socket, EventData::new_u64(token), flags)?)
    }

    /// Tells of `socket` no more.
    pub fn remove(&self, socket: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, socket)?)
    }

    /// Resolves when there are changes to be taken.
    pub async fn changed(&self) -> io::Result<()> {
        self.waited.readable(false).await
    }

    /// Takes the changes that are there, up to the most that are taken at once; whether there may be more.
    pub fn take(&self, mut tell: impl FnMut(Change)) -> io::Result<bool> {
        let mut events = self.events.take();
        events.clear();
        events.reserve_exact(self.changes_max);
        let timeout = Duration::ZERO.try_into().expect("no time fits");
        let space = rustix::buffer::spare_capacity(&mut events);
        let waited = epoll::wait(self.epoll.as_fd(), space, Some(&timeout));
        for event in &events {
            let flags = event.flags;
            let ends = EventFlags::HUP | EventFlags::RDHUP | EventFlags::ERR;
            tell(Change {
                token: event.data.u64(),
                is_readable: flags.intersects(EventFlags::IN | ends),
                is_end: flags.intersects(ends),
                is_writable: flags.intersects(EventFlags::OUT | ends),
            });
        }
        let has_more = events.len() >= self.changes_max;
        self.events.replace(events);
        match waited {
            Ok(_) | Err(Errno::INTR) => Ok(has_more),
            Err(error) => Err(error.into()),
        }
    }
}
