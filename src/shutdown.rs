//! The drain, in order.
//!
//! ```text
//! running --stop()--> draining: no new connections; subscribers are told; requests are answered
//!         --every shard has no connection, or drain_ms is over--> closing: the owner closes the log
//!         --closed--> ended: every shard returns, and its thread with it
//! running --the owner cannot start: nothing is to be closed--> ended
//! ```
//! A log is closed only when nothing can append any more, and a shard's runtime ends only after the log
//! was closed: no write of the disk is ever cut off.

use std::{
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
};

use crate::{
    local::{Signal, SignalWait},
    mesh::Doorbell,
};

const RUNNING: u8 = 0;
const DRAINING: u8 = 1;
const ENDED: u8 = 2;

/// Where the server is on its way to the end; shared by all threads.
#[derive(Debug)]
pub struct Control {
    phase: AtomicU8,
    /// Shards that have no connections any more, or gave up waiting for them.
    quiet_shards: AtomicUsize,
    doorbells: Vec<Arc<Doorbell>>,
}

impl Control {
    pub(crate) fn new(doorbells: Vec<Arc<Doorbell>>) -> Self {
        Control { phase: AtomicU8::new(RUNNING), quiet_shards: AtomicUsize::new(0), doorbells }
    }

    /// Begins the drain; again and again does no more.
    pub fn stop(&self) {
        let begun =
            self.phase.compare_exchange(RUNNING, DRAINING, Ordering::AcqRel, Ordering::Acquire);
        if begun.is_ok() {
            self.ring_all();
        }
    }

    /// Whether it has begun.
    pub fn is_draining(&self) -> bool {
        self.phase.load(Ordering::Acquire) != RUNNING
    }

    /// By each shard, once: it takes part in no request any more.
    pub(crate) fn shard_is_quiet(&self) {
        self.quiet_shards.fetch_add(1, Ordering::AcqRel);
        self.ring_all();
    }

    /// Of so many shards that cannot start: nobody waits for them. Where the owner of the log is one of them
    /// nobody closes that, and nothing was written to it.
    pub(crate) fn cannot_start(&self, shards: usize, has_owner: bool) {
        self.quiet_shards.fetch_add(shards, Ordering::AcqRel);
        if has_owner {
            self.phase.store(ENDED, Ordering::Release);
        }
        self.ring_all();
    }

    pub(crate) fn are_all_quiet(&self) -> bool {
        self.quiet_shards.load(Ordering::Acquire) == self.doorbells.len()
    }

    /// By the owner of the log, when that is closed.
    pub(crate) fn end(&self) {
        self.phase.store(ENDED, Ordering::Release);
        self.ring_all();
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.phase.load(Ordering::Acquire) == ENDED
    }

    fn ring_all(&self) {
        for doorbell in &self.doorbells {
            doorbell.ring();
        }
    }
}

/// The drain as the tasks of one shard see it.
#[derive(Clone, Debug)]
pub struct Drain {
    control: Arc<Control>,
    /// Raised each time the shard's doorbell was rung for a change of phase.
    moved: Rc<Signal>,
}

impl Drain {
    pub(crate) fn new(control: Arc<Control>) -> Self {
        Drain { control, moved: Rc::new(Signal::new()) }
    }

    /// Whether no new work is to begin: answers say `Connection: close`.
    pub fn is_on(&self) -> bool {
        self.control.is_draining()
    }

    /// Resolves when the drain begins, at once if it has.
    pub async fn begun(&self) {
        self.until(Control::is_draining).await;
    }

    pub(crate) async fn all_quiet(&self) {
        self.until(Control::are_all_quiet).await;
    }

    pub(crate) async fn ended(&self) {
        self.until(Control::has_ended).await;
    }

    /// A subscriber's wait that can be made anew at will: look at [`Drain::is_on`] first.
    pub fn moved(&self) -> SignalWait<'_> {
        self.moved.wait()
    }

    async fn until(&self, is_reached: impl Fn(&Control) -> bool) {
        loop {
            let moved = self.moved.wait();
            if is_reached(&self.control) {
                return;
            }
            moved.await;
        }
    }

    /// By the shard, when its doorbell was rung; `seen` is what it saw before. Returns whether the server has ended by
    /// what it has just told its tasks: who looked anew could learn of an end that they never hear of.
    pub(crate) fn look(&self, seen: &mut (u8, usize)) -> bool {
        let now = (
            self.control.phase.load(Ordering::Acquire),
            self.control.quiet_shards.load(Ordering::Acquire),
        );
        if *seen != now {
            *seen = now;
            self.moved.raise();
        }
        seen.0 == ENDED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_ends_once_its_tasks_are_told() {
        for _ in 0..1000 {
            let control = Arc::new(Control::new(Vec::new()));
            let drain = Drain::new(control.clone());
            let owner = std::thread::spawn(move || control.end());
            let (told, mut seen) = (drain.moved(), (RUNNING, 0));
            while !drain.look(&mut seen) {
                std::hint::spin_loop();
            }
            assert!(told.is_over());
            owner.join().unwrap();
        }
    }
}
