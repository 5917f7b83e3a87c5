//! When which publisher sends its next event.
//!
//! ```text
//! Still                nothing is sent; what was begun is completed
//! Closed { window }    each publisher sends as long as fewer than `window` events wait for their answers
//! Open(Schedule)       events are due at fixed times, whatever the server does
//! ```

use std::collections::VecDeque;

use super::{
    link::Link,
    payload::{Payloads, Stamp},
    target::PublisherWire,
};

/// A publisher that has so many bytes to send makes no more events.
const UNSENT_BYTES_MAX: usize = 256 << 10;

/// How events are sent.
#[derive(Clone, Copy, Debug)]
pub enum Load {
    /// Not at all.
    Still,
    /// As fast as they are acknowledged.
    Closed {
        /// Events of each publisher without an answer.
        window: u32,
    },
    /// As they become due.
    Open(Schedule),
}

/// Due times at a fixed rate, and whose turn it is.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    begin_ns: u64,
    period_ns: f64,
    publishers: u32,
    /// The event that is due next.
    next: u64,
    /// Nothing is due from then on.
    end_ns: u64,
    /// A publisher that has so many events without an answer waits: its next one is late, and its
    /// latency says so.
    pub window: u32,
}

impl Schedule {
    /// `rate_per_s` events a second from `begin_ns` on, by `publishers` in turn.
    pub fn new(rate_per_s: f64, publishers: u32, window: u32, begin_ns: u64) -> Schedule {
        assert!(rate_per_s > 0.0 && publishers > 0, "somebody sends something");
        let period_ns = 1e9 / rate_per_s;
        Schedule { begin_ns, period_ns, publishers, next: 0, end_ns: u64::MAX, window }
    }

    /// Nothing is due from `end_ns` on; what was due before it is still to be sent.
    pub fn end_at(&mut self, end_ns: u64) {
        self.end_ns = end_ns;
    }

    /// Whether nothing is due any more.
    pub fn is_over(&self) -> bool {
        self.due_ns() >= self.end_ns
    }

    /// When the next event is due.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a run has fewer than 2^53 events, and lasts less than 2^53 ns"
    )]
    pub fn due_ns(&self) -> u64 {
        self.begin_ns + (self.next as f64 * self.period_ns) as u64
    }

    /// Who sends it.
    pub fn publisher(&self) -> u32 {
        u32::try_from(self.next % u64::from(self.publishers)).expect("less than a u32")
    }

    /// It is sent.
    pub fn advance(&mut self) {
        self.next += 1;
    }
}

/// One connection that appends.
#[derive(Debug)]
pub struct Publisher<W> {
    /// Its number.
    pub index: u32,
    /// Its socket.
    pub link: Link,
    wire: W,
    ready: bool,
    /// How many events it has sent, and which of them have an answer.
    sent: u32,
    acknowledged: u32,
    /// How many events of the batch under way are still to be sent.
    batch_left: u32,
    /// When those without an answer were due.
    due_ns: VecDeque<u64>,
    payload: Vec<u8>,
}

impl<W: PublisherWire> Publisher<W> {
    /// One whose connection was begun.
    pub fn new(index: u32, link: Link, wire: W) -> Publisher<W> {
        Publisher {
            index,
            link,
            wire,
            ready: false,
            sent: 0,
            acknowledged: 0,
            batch_left: 0,
            due_ns: VecDeque::new(),
            payload: Vec::new(),
        }
    }

    /// Whether it may send events.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// The connection is made.
    pub fn connected(&mut self) {
        self.ready = self.wire.is_ready();
    }

    /// How many events have been sent.
    pub fn sent(&self) -> u32 {
        self.sent
    }

    /// How many of them are acknowledged.
    pub fn acknowledged(&self) -> u32 {
        self.acknowledged
    }

    /// Whether everything is answered.
    pub fn is_done(&self) -> bool {
        self.acknowledged == self.sent && self.batch_left == 0
    }

    /// Whether the event of an open loop can be sent now.
    pub fn has_room(&self, window: u32) -> bool {
        self.ready
            && (self.batch_left > 0 || self.waiting() < window)
            && self.link.unsent_bytes() < UNSENT_BYTES_MAX
    }

    /// Events without an answer.
    fn waiting(&self) -> u32 {
        self.sent - self.acknowledged
    }

    /// Makes one event.
    pub fn push(&mut self, payloads: &Payloads, due_ns: u64) {
        if self.batch_left == 0 {
            self.batch_left = self.wire.batch_events();
        }
        let stamp = Stamp { publisher: self.index, sequence: self.sent, due_ns };
        payloads.write(stamp, &mut self.payload);
        self.wire.push_event(&self.payload, &mut self.link.out);
        self.sent = self.sent.checked_add(1).expect("fewer than 2^32 events a publisher");
        self.batch_left -= 1;
        self.due_ns.push_back(due_ns);
    }

    /// Makes as many events as a closed loop of `window` allows; with 0, completes the batch that was
    /// begun.
    pub fn fill(&mut self, payloads: &Payloads, window: u32, now_ns: u64) {
        let batch = self.wire.batch_events();
        while self.ready
            && self.link.unsent_bytes() < UNSENT_BYTES_MAX
            && (self.batch_left > 0 || self.waiting() + batch <= window)
        {
            self.push(payloads, now_ns);
        }
    }

    /// Takes received bytes; returns how many it is done with. Calls `on_ack` with the due time of each
    /// event that is acknowledged.
    pub fn take(&mut self, input: &[u8], mut on_ack: impl FnMut(u64)) -> Result<usize, String> {
        let (taken, count) = self.wire.take_acks(input, &mut self.link.out)?;
        self.ready = self.ready || self.wire.is_ready();
        if count > self.waiting() {
            let waiting = self.waiting();
            return Err(format!("{count} events are acknowledged where {waiting} wait"));
        }
        self.acknowledged += count;
        for _ in 0..count {
            on_ack(self.due_ns.pop_front().expect("one for each that waits"));
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_times_do_not_drift() {
        let mut schedule = Schedule::new(3.0, 2, 1, 1000);
        let mut all = Vec::new();
        for _ in 0..7 {
            all.push((schedule.due_ns() - 1000, schedule.publisher()));
            schedule.advance();
        }
        let third = 333_333_333;
        assert_eq!(all[0], (0, 0));
        assert_eq!(all[1], (third, 1));
        assert_eq!(all[3], (1_000_000_000, 1));
        assert_eq!(all[6], (2_000_000_000, 0));
    }

    #[test]
    fn a_schedule_is_over_when_what_was_due_is_sent() {
        let mut schedule = Schedule::new(1000.0, 1, 1, 0);
        schedule.end_at(2_000_000);
        assert!(!schedule.is_over());
        schedule.advance();
        assert!(!schedule.is_over());
        schedule.advance();
        assert!(schedule.is_over());
    }
}
