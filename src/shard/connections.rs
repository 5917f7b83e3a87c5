//! How many connections there are, and room for how many.
//!
//! The limit is the whole server's, as the number of files is that it protects: the kernel spreads
//! connections over shards by chance, and with a fixed share for each a shard would refuse while others
//! have room (with 16 shards of 1,000 places, from about 15,000 connections on).

use std::{
    cell::Cell,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::local::{Guard, Leave, Signal, SignalWait};

/// The places of the whole server; shared by its shards. It guards no other memory: relaxed will do.
#[derive(Debug)]
pub struct ConnectionLimit {
    taken: AtomicUsize,
    max: usize,
    refusals_max: usize,
}

impl ConnectionLimit {
    /// Room for so many connections; beyond it each shard may be refusing so many at a time.
    pub(crate) fn new(max: usize, refusals_max: usize) -> Self {
        ConnectionLimit { taken: AtomicUsize::new(0), max, refusals_max }
    }

    /// How many places are taken, on all shards.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// How many there are.
    pub fn max(&self) -> usize {
        self.max
    }

    /// How many a shard may be refusing at a time.
    pub fn refusals_max(&self) -> usize {
        self.refusals_max
    }

    fn has_room(&self) -> bool {
        self.taken() < self.max
    }

    fn take(&self) -> bool {
        let one_more = |taken| (taken < self.max).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }
}

/// The connections of one shard.
#[derive(Debug)]
pub struct Connections {
    limit: Arc<ConnectionLimit>,
    open: Cell<usize>,
    changed: Signal,
}

impl Connections {
    /// None so far.
    pub(crate) fn new(limit: Arc<ConnectionLimit>) -> Self {
        Connections { limit, open: Cell::new(0), changed: Signal::new() }
    }

    /// The places that all shards share.
    pub fn limit(&self) -> &ConnectionLimit {
        &self.limit
    }

    /// How many are open on this shard.
    pub fn open(&self) -> usize {
        self.open.get()
    }

    /// Whether there is a place: another shard may yet take it.
    pub(crate) fn has_room(&self) -> bool {
        self.limit.has_room()
    }

    /// A place for one more, if there is one.
    pub(crate) fn admit(self: &Rc<Self>) -> Option<Place> {
        self.limit.take().then(|| {
            self.open.set(self.open.get() + 1);
            Guard::new(self.clone())
        })
    }

    /// Resolves once a place was given back on this shard, after this call.
    pub(crate) fn changed(&self) -> SignalWait<'_> {
        self.changed.wait()
    }

    /// Resolves once none is open on this shard.
    pub(crate) async fn none_left(&self) {
        while self.open.get() > 0 {
            self.changed.wait().await;
        }
    }
}

/// A connection's place, for as long as it is open.
pub type Place = Guard;

impl Leave for Connections {
    fn left(&self) {
        let Connections { limit, open, changed } = self;
        limit.taken.fetch_sub(1, Ordering::Relaxed);
        open.set(open.get() - 1);
        changed.raise();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_shared_and_come_back() {
        let limit = Arc::new(ConnectionLimit::new(3, 1));
        let [one, other] = [(); 2].map(|()| Rc::new(Connections::new(limit.clone())));
        let held: Vec<_> = [&one, &one, &other].map(|shard| shard.admit()).into();
        assert!(held.iter().all(Option::is_some));
        assert!(one.admit().is_none() && !other.has_room());
        assert_eq!((one.open(), other.open(), limit.taken()), (2, 1, 3));
        drop(held);
        assert_eq!((one.open(), other.open(), limit.taken()), (0, 0, 0));
        assert!(other.admit().is_some());
    }

    #[test]
    fn threads_never_take_more_than_there_is() {
        let limit = ConnectionLimit::new(5, 1);
        let taken: usize = std::thread::scope(|scope| {
            let take = || (0..4).filter(|_| limit.take()).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!((taken, limit.taken()), (5, 5));
    }
}
