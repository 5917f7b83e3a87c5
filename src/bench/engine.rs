//! The loop: one thread that sleeps until a socket is ready or an event is due.
//!
//! ```text
//! poll ----- subscribers
//!   \------- control ----- publishers, timer      looked at between subscribers too: an acknowledgement
//!                                                 does not wait behind ten thousand deliveries
//! ```
//! It never spins: on a machine where server and client share a core's siblings, or a disk's interrupts,
//! a client that spins slows what it measures.

use std::io;

use super::{
    check::Violation,
    link::{BUFFER_BYTES, Link},
    load::{Load, Publisher},
    net::{self, Interest, Poll, Ready, Timer, now_ns},
    record::Meter,
    subscriber::{Arrival, Seen, Subscriber},
    target::{From, PublisherWire, SubscriberWire, Target},
};

/// After so many subscribers the control poll is looked at,
const SUBSCRIBERS_PER_LOOK: usize = 16;
/// or after so many bytes that they got.
const BYTES_PER_LOOK: u64 = 256 << 10;
/// In a closed loop, nobody publishes while a subscriber has so many bytes to receive at once: else more
/// comes than this thread can read, and how far it is behind is all that its latencies say.
const BEHIND_BYTES: u64 = 64 << 10;
const TOKEN_CONTROL: u64 = u64::MAX;
const TOKEN_TIMER: u64 = u64::MAX - 1;

/// Why a run cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// Our side, or the machine.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The server refused, or broke a connection that appends.
    #[error("publisher {publisher}: {reason}")]
    Publisher {
        /// Whose.
        publisher: u32,
        /// In whose words.
        reason: String,
    },
    /// What was waited for did not come.
    #[error("{0}")]
    Patience(String),
    /// Somebody wants no outcome any more.
    #[error("stopped")]
    Stopped,
}

/// All connections of a run.
pub struct Engine<'t, T: Target> {
    target: &'t T,
    poll: Poll,
    control: Poll,
    timer: Timer,
    /// A place for each subscriber; empty where it has hung up or was closed.
    subscribers: Vec<Option<Subscriber<T::Subscriber>>>,
    publishers: Vec<Publisher<T::Publisher>>,
    /// Subscribers that are not ready yet.
    connecting: usize,
    /// How many connections were begun.
    connections: u64,
    /// Where all receive into.
    buffer: Vec<u8>,
    ready: Vec<Ready>,
    /// Subscribers that may have more than was received of them.
    again: Vec<u32>,
    /// Somebody had [`BEHIND_BYTES`] to receive, in this turn or the last.
    is_behind: bool,
    /// Publishers that wait until nobody has, and since when one does.
    held: Vec<usize>,
    held_since_ns: u64,
    control_ready: Vec<Ready>,
    /// Acknowledgements.
    pub acks: Meter,
    /// What subscribers have seen.
    pub seen: Seen,
    /// Bytes that subscribers received since the beginning, as they came: in chunks, compressed.
    pub received_bytes: u64,
    /// Subscribers that were hung up on.
    pub hang_ups: u64,
    /// How long publishers were held back, as far as that has ended.
    held_ns: u64,
    /// How events are sent.
    load: Load,
    /// When the last thing happened: a delivery, an answer, a subscriber that became ready.
    pub last_news_ns: u64,
}

impl<'t, T: Target> Engine<'t, T> {
    /// Without a connection yet; with places for `subscribers` and `publishers`.
    pub fn new(
        target: &'t T,
        payload_bytes: usize,
        subscribers: usize,
        publishers: usize,
    ) -> io::Result<Engine<'t, T>> {
        let (poll, control, timer) = (Poll::new()?, Poll::new()?, Timer::new()?);
        poll.add(&control, TOKEN_CONTROL, Interest::Read)?;
        control.add(&timer, TOKEN_TIMER, Interest::Read)?;
        Ok(Engine {
            target,
            poll,
            control,
            timer,
            subscribers: (0..subscribers).map(|_| None).collect(),
            publishers: Vec::with_capacity(publishers),
            connecting: 0,
            connections: 0,
            buffer: vec![0; BUFFER_BYTES],
            ready: Vec::new(),
            again: Vec::new(),
            is_behind: false,
            held: Vec::new(),
            held_since_ns: 0,
            held_ns: 0,
            control_ready: Vec::new(),
            acks: Meter::default(),
            seen: Seen::new(payload_bytes, subscribers, publishers),
            received_bytes: 0,
            hang_ups: 0,
            load: Load::Still,
            last_news_ns: now_ns(),
        })
    }

    /// Begins the connection of the next publisher.
    pub fn add_publisher(&mut self) -> io::Result<()> {
        let index = u32::try_from(self.publishers.len()).expect("there are few publishers");
        let mut wire = self.target.publisher(index);
        let mut out = Vec::new();
        wire.hello(&mut out);
        let socket = net::connect(self.target.address(), self.connections, None)?;
        self.connections += 1;
        let link = Link::new(socket, u64::from(index), &self.control, out)?;
        self.publishers.push(Publisher::new(index, link, wire));
        Ok(())
    }

    /// Begins the connection of subscriber `index`, whose place is empty. `receive_buffer_bytes` bounds
    /// what the kernel keeps for it.
    pub fn add_subscriber(
        &mut self,
        index: u32,
        start: &From,
        receive_buffer_bytes: Option<usize>,
    ) -> io::Result<()> {
        let mut wire = self.target.subscriber(index, start);
        let mut out = Vec::new();
        wire.hello(&mut out);
        let address = self.target.address();
        let socket = net::connect(address, self.connections, receive_buffer_bytes)?;
        self.connections += 1;
        let link = Link::new(socket, u64::from(index), &self.poll, out)?;
        let place = &mut self.subscribers[place(index)];
        assert!(place.is_none(), "a place is given once");
        *place = Some(Subscriber::new(link, wire));
        self.connecting += 1;
        Ok(())
    }

    /// Closes a subscriber's connection.
    pub fn close_subscriber(&mut self, index: u32) {
        if let Some(mut subscriber) = self.subscribers[place(index)].take() {
            self.connecting -= usize::from(!subscriber.ready);
            // It is gone: what it makes of its last bytes is nobody's business.
            let _ = subscriber.go_apart(&mut self.seen);
        }
    }

    /// Subscribers whose subscription does not hold yet.
    pub fn connecting(&self) -> usize {
        self.connecting
    }

    /// Whether the subscriber is connected, and its subscription holds.
    pub fn is_ready(&self, index: u32) -> bool {
        self.subscriber(index).is_some_and(|subscriber| subscriber.ready)
    }

    /// The subscriber, if it is connected.
    pub fn subscriber(&self, index: u32) -> Option<&Subscriber<T::Subscriber>> {
        self.subscribers[place(index)].as_ref()
    }

    /// Whether all publishers may send.
    pub fn publishers_ready(&self) -> bool {
        self.publishers.iter().all(Publisher::is_ready)
    }

    /// Whether everything that was sent is answered.
    pub fn publishers_done(&self) -> bool {
        self.publishers.iter().all(Publisher::is_done)
    }

    /// How long some publisher was held back in all, because we were behind with what subscribers have.
    pub fn held_ns(&self) -> u64 {
        let goes_on = !self.held.is_empty();
        self.held_ns + if goes_on { now_ns() - self.held_since_ns } else { 0 }
    }

    /// How many events each publisher has sent.
    pub fn published(&self) -> Vec<u32> {
        self.publishers.iter().map(Publisher::sent).collect()
    }

    /// How many events of each publisher are acknowledged.
    pub fn acknowledged(&self) -> Vec<u32> {
        self.publishers.iter().map(Publisher::acknowledged).collect()
    }

    /// Keeps the cursor of each delivery from now on; returns those kept so far.
    pub fn keep_cursors(&mut self, keep: bool) -> Vec<Box<[u8]>> {
        self.seen.keep_cursors = keep;
        std::mem::take(&mut self.seen.cursors)
    }

    /// Sends as `load` says from now on.
    pub fn set_load(&mut self, load: Load) -> Result<(), BenchError> {
        self.load = load;
        let now = now_ns();
        for index in 0..self.publishers.len() {
            self.refill(index, now)?;
        }
        Ok(())
    }

    /// Nothing more becomes due in an open loop.
    pub fn end_schedule(&mut self) {
        if let Load::Open(schedule) = &mut self.load {
            schedule.end_at(now_ns());
        }
    }

    /// Whether an open loop has sent all that was due before its end.
    pub fn schedule_is_over(&self) -> bool {
        !matches!(&self.load, Load::Open(schedule) if !schedule.is_over())
    }

    /// A subscriber reads nothing from now on.
    pub fn pause(&mut self, index: u32) -> io::Result<()> {
        match &mut self.subscribers[place(index)] {
            Some(subscriber) => {
                subscriber.go_apart(&mut self.seen).map_err(io::Error::other)?;
                subscriber.link.pause(&self.poll)
            }
            None => Ok(()),
        }
    }

    /// It reads again.
    pub fn resume(&mut self, index: u32) -> io::Result<()> {
        match &mut self.subscribers[place(index)] {
            Some(subscriber) => subscriber.link.resume(&self.poll),
            None => Ok(()),
        }
    }

    /// Sleeps until something is ready or due, at most until `until_ns`, and does what is to be done.
    pub fn turn(&mut self, until_ns: u64) -> Result<(), BenchError> {
        let due_ns = self.send_due()?;
        self.timer.arm(due_ns.unwrap_or(u64::MAX).min(until_ns))?;
        let mut ready = std::mem::take(&mut self.ready);
        let again = std::mem::take(&mut self.again).into_iter();
        self.poll.wait(&mut ready, again.len() == 0 && self.held.is_empty())?;
        let told = ready
            .iter()
            .filter(|one| one.token != TOKEN_CONTROL)
            .map(|one| (u32::try_from(one.token).expect("a subscriber's index"), Some(*one)));
        if ready.iter().any(|one| one.token == TOKEN_CONTROL) {
            self.control()?;
        }
        self.send_due()?;
        let (mut served, mut looked_bytes) = (0, self.received_bytes);
        let mut is_behind = false;
        for (index, told) in told.chain(again.map(|index| (index, None))) {
            let bytes = self.received_bytes - looked_bytes;
            if served >= SUBSCRIBERS_PER_LOOK || bytes >= BYTES_PER_LOOK {
                self.control()?;
                self.send_due()?;
                (served, looked_bytes) = (0, self.received_bytes);
            }
            let before = self.received_bytes;
            self.serve_subscriber(index, told);
            if self.received_bytes - before >= BEHIND_BYTES {
                (is_behind, self.is_behind) = (true, true);
            }
            served += 1;
        }
        self.ready = ready;
        self.forget_what_is_old();
        self.is_behind = is_behind;
        if !is_behind && !self.held.is_empty() {
            self.held_ns += now_ns() - self.held_since_ns;
            for index in std::mem::take(&mut self.held) {
                self.refill(index, now_ns())?;
            }
        }
        Ok(())
    }

    /// Keeps what subscribers share within its bounds: who is far behind goes its own way.
    fn forget_what_is_old(&mut self) {
        let Some(place) = self.seen.to_forget() else { return };
        for index in 0..self.subscribers.len() {
            let late = self.subscribers[index].as_mut().filter(|one| one.is_before(place));
            let Some(Err(reason)) = late.map(|one| one.go_apart(&mut self.seen)) else { continue };
            let index = u32::try_from(index).expect("there are few subscribers");
            self.hang_up(index, reason);
        }
        self.seen.forget(place);
    }

    /// Serves publishers that are ready.
    fn control(&mut self) -> Result<(), BenchError> {
        let mut ready = std::mem::take(&mut self.control_ready);
        self.control.wait(&mut ready, false)?;
        for one in &ready {
            if one.token == TOKEN_TIMER {
                self.timer.take()?;
            } else {
                let index = usize::try_from(one.token).expect("a publisher's index");
                self.serve_publisher(index, *one)?;
            }
        }
        self.control_ready = ready;
        Ok(())
    }

    /// Sends what is due in an open loop; returns when the next is due, unless its publisher has to wait
    /// for an answer first.
    fn send_due(&mut self) -> Result<Option<u64>, BenchError> {
        let Load::Open(mut schedule) = self.load else { return Ok(None) };
        let now = now_ns();
        let mut next = None;
        while !schedule.is_over() {
            let due_ns = schedule.due_ns();
            if due_ns > now {
                next = Some(due_ns);
                break;
            }
            let publisher = &mut self.publishers[place(schedule.publisher())];
            if !publisher.has_room(schedule.window) {
                break;
            }
            publisher.push(&self.seen.payloads, due_ns);
            let flushed = publisher.link.flush();
            flushed.map_err(|error| publisher_error(publisher.index, &error))?;
            schedule.advance();
        }
        self.load = Load::Open(schedule);
        Ok(next)
    }

    /// Makes and sends what the load allows now.
    fn refill(&mut self, index: usize, now: u64) -> Result<(), BenchError> {
        let publisher = &mut self.publishers[index];
        loop {
            let before = publisher.sent();
            match self.load {
                Load::Still => publisher.fill(&self.seen.payloads, 0, now),
                Load::Closed { window } => publisher.fill(&self.seen.payloads, window, now),
                Load::Open(_) => {}
            }
            let flushed = publisher.link.flush();
            flushed.map_err(|error| publisher_error(publisher.index, &error))?;
            // A socket that took everything tells nobody: more may be allowed at once.
            if publisher.link.unsent_bytes() > 0 || publisher.sent() == before {
                return Ok(());
            }
        }
    }

    fn serve_publisher(&mut self, index: usize, ready: Ready) -> Result<(), BenchError> {
        let publisher = &mut self.publishers[index];
        let number = publisher.index;
        let done = publisher.link.note(ready);
        done.map_err(|error| publisher_error(number, &error))?;
        if ready.writable {
            publisher.connected();
        }
        let mut now = now_ns();
        while publisher.link.may_have_more() {
            let received = publisher.link.receive(&mut self.buffer);
            let Some(bytes) = received.map_err(|error| publisher_error(number, &error))? else {
                break;
            };
            now = now_ns();
            let acks = &mut self.acks;
            let taken = publisher.take(&self.buffer[..bytes], |due_ns| acks.record(due_ns, now));
            let taken =
                taken.map_err(|reason| BenchError::Publisher { publisher: number, reason })?;
            publisher.link.keep(&self.buffer[taken..bytes]);
            self.last_news_ns = now;
        }
        if self.is_behind && matches!(self.load, Load::Closed { .. }) {
            if self.held.is_empty() {
                self.held_since_ns = now;
            }
            self.held.push(index);
            return Ok(());
        }
        self.refill(index, now)
    }

    /// Receives once of a subscriber, of which something was told or more may be there.
    fn serve_subscriber(&mut self, index: u32, ready: Option<Ready>) {
        // It may have been closed by an earlier event of this turn.
        let Some(subscriber) = &mut self.subscribers[place(index)] else { return };
        let served = (|| -> Result<(), String> {
            subscriber.queued &= ready.is_some();
            if let Some(ready) = ready {
                subscriber.link.note(ready).map_err(|error| error.to_string())?;
            }
            if !subscriber.link.may_have_more() {
                return Ok(());
            }
            let kept_bytes = subscriber.link.kept_bytes();
            let received = subscriber.link.receive(&mut self.buffer);
            let Some(bytes) = received.map_err(|error| error.to_string())? else { return Ok(()) };
            self.received_bytes += u64::try_from(bytes - kept_bytes).expect("the buffer's size");
            let now = now_ns();
            self.last_news_ns = now;
            let arrival = Arrival { index, bytes: &self.buffer[..bytes], now_ns: now };
            subscriber.take(arrival, &mut self.seen)?;
            if !subscriber.ready && subscriber.wire.is_ready() {
                subscriber.ready = true;
                self.connecting -= 1;
            }
            if subscriber.link.unsent_bytes() > 0 {
                subscriber.link.flush().map_err(|error| error.to_string())?;
            }
            if subscriber.link.may_have_more() && !std::mem::replace(&mut subscriber.queued, true) {
                self.again.push(index);
            }
            Ok(())
        })();
        if let Err(reason) = served {
            self.hang_up(index, reason);
        }
    }

    fn hang_up(&mut self, index: u32, reason: String) {
        self.hang_ups += 1;
        self.seen.checker.report(Violation::HangUp { subscriber: index, reason });
        self.close_subscriber(index);
    }
}

fn publisher_error(publisher: u32, error: &io::Error) -> BenchError {
    BenchError::Publisher { publisher, reason: error.to_string() }
}

fn place(index: u32) -> usize {
    usize::try_from(index).expect("usize has at least 32 bits")
}
