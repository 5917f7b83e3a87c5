//! The one task that serves the connections of a shard: it sleeps until anything happens to any of them, then
//! works in slices until nothing is left to do.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Weak;
use std::task::Poll;
use std::time::{Duration, Instant};

use monoio::time::Sleep;

use super::wheel::TICK_MS;
use super::{End, Inner, SlotId, Subscribers};
use crate::epoll::Change;
use crate::problem::CloseCode;
use crate::runtime::give_way;
use crate::shutdown::Drain;

/// So many steps go by between two looks at the clock: 8 sends, or members that need none, such as those that
/// fall behind or are full, of which there may be 100,000 in a row.
pub(super) const STEPS_PER_LOOK: u32 = 8 * SEND_STEPS;

/// What a send counts, and whatever else is done for a connection: a few microseconds.
pub(super) const SEND_STEPS: u32 = 8;

/// Serves the subscribers of a shard until they are dropped.
pub(super) async fn serve_all(subscribers: Weak<Subscribers>, drain: Drain) {
    let mut draining = Some(Box::pin(async move { drain.begun().await }));
    let mut alarm: Option<(Instant, Pin<Box<Sleep>>)> = None;
    loop {
        // The task is woken by what it looks after, so it must not keep that alive.
        let is_there = poll_fn(|context| {
            let Some(subscribers) = subscribers.upgrade() else { return Poll::Ready(false) };
            if let Some(drain) = &mut draining
                && drain.as_mut().poll(context).is_ready()
            {
                draining = None;
                return Poll::Ready(true);
            }
            if subscribers.has_work() {
                return Poll::Ready(true);
            }
            if subscribers.watch.borrow_mut().poll_changes(context).is_ready() {
                return Poll::Ready(true);
            }
            if let Some(at) = subscribers.next_alarm() {
                let is_set = alarm.as_ref().is_some_and(|(set, _)| *set <= at);
                if !is_set {
                    let rest = at.saturating_duration_since(Instant::now());
                    alarm = Some((at, Box::pin(monoio::time::sleep(rest))));
                }
                if let Some((_, sleep)) = &mut alarm
                    && sleep.as_mut().poll(context).is_ready()
                {
                    alarm = None;
                    return Poll::Ready(true);
                }
            }
            subscribers.waker.set(Some(context.waker().clone()));
            Poll::Pending
        });
        if !is_there.await {
            return;
        }
        loop {
            let Some(subscribers) = subscribers.upgrade() else { return };
            let has_more = subscribers.work();
            subscribers.note_live();
            drop(subscribers);
            if !has_more {
                break;
            }
            give_way().await;
        }
    }
}

impl Subscribers {
    /// Works for a slice; returns whether there is more to do.
    fn work(&self) -> bool {
        let mut inner = self.inner.borrow_mut();
        let slice = inner.sends.begin_slice();
        inner.tick = self.tick();
        inner.slice = slice;
        inner.begun.set_tick(inner.tick);
        inner.views.hide(&self.log.floors());
        let taken = self.watch.borrow().take(|id, change| inner.note(id, change));
        let has_more_changes = taken.unwrap_or_else(|error| {
            tracing::error!(%error, "cannot wait for sockets");
            false
        });
        if self.drain.is_on() && !inner.is_draining {
            inner.begin_drain();
        }
        inner.take_alarms();
        let mut steps = 0;
        loop {
            let mut is_idle = true;
            if let Some(id) = inner.ready.pop_front() {
                inner.run(self, id);
                (is_idle, steps) = (false, steps + SEND_STEPS);
            }
            if let Some(id) = inner.rung.pop() {
                inner.ring(self, id);
                (is_idle, steps) = (false, steps + SEND_STEPS);
            }
            if let Some(id) = inner.to_drain.pop() {
                inner.end(id, End::Close(CloseCode::Drained));
                (is_idle, steps) = (false, steps + SEND_STEPS);
            }
            if inner.views.is_going_round() {
                let looked_at = inner.views.go_round();
                steps += u32::try_from(looked_at).expect("a few at a time");
                is_idle = false;
            }
            if inner.views.has_due() {
                steps += inner.serve_due(&slice);
                is_idle = false;
            }
            inner.behind.start_readers(self);
            steps = steps.saturating_add(inner.views.take_pattern_steps());
            if is_idle {
                return has_more_changes;
            }
            if steps >= STEPS_PER_LOOK {
                if slice.is_over() {
                    return true;
                }
                steps = 0;
            }
        }
    }

    /// Tells those who read the log of the slice that is over.
    fn note_live(&self) {
        let inner = self.inner.borrow();
        self.turns.note_live(inner.views.has_due().then_some(inner.slice.length()));
    }

    fn has_work(&self) -> bool {
        let inner = self.inner.borrow();
        !inner.ready.is_empty()
            || !inner.rung.is_empty()
            || !inner.to_drain.is_empty()
            || inner.views.is_going_round()
            || inner.views.has_due()
    }

    /// When the next alarm rings.
    fn next_alarm(&self) -> Option<Instant> {
        let tick = self.inner.borrow().wheel.next_tick()?;
        Some(self.began + Duration::from_millis(u64::from(tick) * TICK_MS))
    }
}

impl Inner {
    fn note(&mut self, id: SlotId, change: Change) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        let mut is_due = false;
        if change.is_writable && slot.wire.is_full {
            slot.wire.is_full = false;
            is_due = true;
        }
        if change.is_readable {
            slot.has_input = true;
            slot.has_end |= change.is_end;
            is_due = true;
        }
        if is_due {
            self.queue(id);
        }
    }

    fn begin_drain(&mut self) {
        self.is_draining = true;
        self.to_drain = self.slots.ids();
    }
}
