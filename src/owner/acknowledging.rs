//! Appends, and their answers once what they rest on is durable.

use std::time::{Duration, Instant};

use strandline_storage::{
    append::{Append, Appended, TakenBack},
    error::AppendError,
    offset::Offset,
};

use super::Owner;
use crate::{
    clock,
    local::{Promise, promise},
    log_calls::{AckFuture, Acked, AppendChain, AppendRefused, CallId, LogAnswer},
};

/// Who appended, and is told when it is durable.
pub(super) enum AckTo {
    Here(Promise<Result<Acked, AppendRefused>>),
    There { guest: usize, call: CallId },
}

/// An answer that waits for what it rests on.
pub(super) struct Waiter {
    since: Instant,
    /// How many events the append has.
    events: u64,
    result: Result<Acked, AppendRefused>,
    to: AckTo,
    chain: Option<AppendChain>,
}

/// What the answer to an append takes of the shard's time, with the request that follows it: nearly all of
/// it is two system calls.
const ANSWER: Duration = Duration::from_micros(4);

impl Owner {
    /// Appends for a task of this shard.
    pub(crate) fn append_local(&self, append: Append, chain: Option<AppendChain>) -> AckFuture {
        let (promise, kept) = promise();
        self.append(append, chain, AckTo::Here(promise));
        AckFuture::here(kept)
    }

    pub(super) fn append(&self, append: Append, chain: Option<AppendChain>, to: AckTo) {
        if chain.as_ref().is_some_and(AppendChain::is_broken) {
            return self.refuse(to, chain.as_ref(), AppendError::AfterRefused);
        }
        let (since, events) = (Instant::now(), append.events.len() as u64);
        let appended = self.log.borrow_mut().append(append, clock::now_at(since));
        let (wait, result) = match appended {
            Ok(Appended { first, last, wait, duplicates, producer, .. }) => {
                let sync = self.shared.sync();
                (wait, Ok(Acked { first, last, duplicates, producer, sync }))
            }
            Err(error) => {
                let Some(wait) = error.rests_on(self.log.borrow().next()) else {
                    return self.refuse(to, chain.as_ref(), error);
                };
                if let Some(chain) = &chain {
                    chain.break_off();
                }
                (wait, Err(error))
            }
        };
        let wait = chain.as_ref().map_or(wait, |chain| chain.wait_behind(wait));
        if wait <= self.told_visible.get() {
            // Nothing may be under way that would tell of it later; and what is may yet be refused.
            self.count(events, since.elapsed(), &result);
            return self.answer_append(to, result);
        }
        self.waiting.borrow_mut().push(wait, Waiter { since, events, result, to, chain });
        self.work.raise();
    }

    fn count(&self, events: u64, took: Duration, result: &Result<Acked, AppendRefused>) {
        let metrics = self.shared.metrics();
        match result {
            Ok(acked) => {
                metrics.appends.add(1);
                metrics.events.add(events);
                metrics.duplicates.add(acked.duplicates);
                metrics.append_time.add(took);
            }
            Err(_) => metrics.refused.add(1),
        }
    }

    fn refuse(&self, to: AckTo, chain: Option<&AppendChain>, error: AppendError) {
        if let Some(chain) = chain {
            chain.break_off();
        }
        self.shared.metrics().refused.add(1);
        self.answer_append(to, Err(error));
    }

    fn answer_append(&self, to: AckTo, result: Result<Acked, AppendRefused>) {
        match to {
            AckTo::Here(promise) => promise.keep(result),
            AckTo::There { guest, call } => {
                self.guests[guest].calls.answer((call, LogAnswer::Append(result)));
            }
        }
    }

    /// Whether all that waits is answered in less time than a write takes.
    pub(super) fn is_soon_answered(&self) -> bool {
        let waiting = u32::try_from(self.waiting.borrow().len()).unwrap_or(u32::MAX);
        ANSWER.saturating_mul(waiting) < self.write_took.get()
    }

    pub(super) fn acknowledge_up_to(&self, visible: Offset) {
        let now = Instant::now();
        loop {
            let waiter = self.waiting.borrow_mut().take_up_to(visible);
            let Some(Waiter { since, events, result, to, .. }) = waiter else { return };
            self.count(events, now.saturating_duration_since(since), &result);
            self.answer_append(to, result);
        }
    }

    pub(super) fn refuse_waiters(&self, error: &AppendError) {
        let refused = self.waiting.borrow_mut().take_behind(Offset::ZERO);
        for (_, waiter) in refused {
            self.refuse(waiter.to, waiter.chain.as_ref(), error.clone());
        }
    }

    /// The disk is full: refuses all that wait for what it has no room for. Control events have moved forward, and
    /// their answers with them.
    pub(super) fn refuse_taken_back(&self, taken: &TakenBack) {
        let behind = self.waiting.borrow_mut().take_behind(taken.from);
        for (wait, waiter) in behind {
            let first = waiter.result.as_ref().map(|acked| acked.first);
            let Some(moved_by) = first.ok().and_then(|first| taken.moved_by(first)) else {
                self.refuse(waiter.to, waiter.chain.as_ref(), AppendError::DiskFull);
                continue;
            };
            let moved = |offset: Offset| Offset::new(offset.get() - moved_by);
            let result = waiter.result.map(|acked| Acked {
                first: moved(acked.first),
                last: moved(acked.last),
                ..acked
            });
            self.waiting.borrow_mut().push(moved(wait), Waiter { result, ..waiter });
        }
        self.work.raise();
    }
}
