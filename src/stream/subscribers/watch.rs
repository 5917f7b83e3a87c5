//! The sockets of a shard's streams, waited for in bulk ([`crate::epoll`]).

use std::future::Future;
use std::io;
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::slab::SlotId;
use crate::epoll::{Change, Epoll};

/// How many changes are taken at once.
const CHANGES_MAX: usize = 256;

/// The sockets of a shard, by their slots.
pub(super) struct Watch {
    epoll: Rc<Epoll>,
    /// Kept from one wait to the next: the ring is asked once.
    readiness: Option<Pin<Box<dyn Future<Output = io::Result<()>>>>>,
}

impl Watch {
    /// Watches nothing yet. To be made on a shard's thread.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Watch { epoll: Rc::new(Epoll::new(CHANGES_MAX)?), readiness: None })
    }

    /// Tells of everything that happens to `socket` from now on, until it is closed.
    pub(super) fn add(&self, socket: BorrowedFd<'_>, id: SlotId) -> io::Result<()> {
        self.epoll.add(socket, id.to_bits())
    }

    /// Ready when there are changes to be taken.
    pub(super) fn poll_changes(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let readiness = self.readiness.get_or_insert_with(|| {
            let epoll = self.epoll.clone();
            Box::pin(async move { epoll.changed().await })
        });
        let result = ready!(readiness.as_mut().poll(context));
        self.readiness = None;
        Poll::Ready(result)
    }

    /// Takes the changes that are there, at most so many at once; whether there may be more.
    pub(super) fn take(&self, mut tell: impl FnMut(SlotId, Change)) -> io::Result<bool> {
        self.epoll.take(|change| tell(SlotId::from_bits(change.token), change))
    }
}
