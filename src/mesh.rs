//! Bounded mailboxes between shards; the only cross-thread code.
//!
//! ```text
//! shard A                                             shard B
//! Caller  --requests (messages_max, bytes_max)-->  Server
//!         <--answers (a place is reserved by each request)--
//! Sender  --notices (advisory: a full box drops)-->  Receiver
//!                    B's Doorbell: one wake-up for whatever came since B last looked
//! ```
//!
//! A mailbox has one sending and one receiving shard: a ring of slots with a tail that only the sender
//! moves and a head that only the receiver moves. There is no lock on this way. Each shard has one
//! [`Doorbell`] for all its mailboxes, rung after a message was put; only the ring that finds it
//! silent wakes the shard's task, since a wake costs a system call on both sides.
//!
//! Invariants:
//! 1. `tail - head` is the number of messages in the box, at most `messages_max`.
//! 2. A slot is written by the sender before its `tail` passes it (Release), and emptied by the receiver
//!    before its `head` does; so no slot is ever touched by two threads at once.
//! 3. `bytes` is what the messages in the box weigh; at most `bytes_max`, or one message that is heavier.
//! 4. A request that was accepted has its answer's place: `unanswered <= answers_max`, so that
//!    [`Server::answer`] never fails and no acknowledgement is dropped.
//! 5. A receiver that silences the doorbell and then finds every box empty is woken by whatever comes
//!    later: [`Doorbell::ring`] is an exchange, and so ordered against the silencing.
//!
//! `tests/loom` compiles this file with loom's types and tries every order of its steps.

use std::{
    cell::Cell,
    fmt,
    task::{Context, Poll, Waker},
};

#[cfg(loom)]
use loom::{
    cell::UnsafeCell,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};
#[cfg(not(loom))]
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

/// How much a mailbox holds before it refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MailboxLimits {
    /// The number of messages, at least 1.
    pub messages_max: usize,
    /// What they may weigh together; a single heavier message still fits into an empty box.
    pub bytes_max: usize,
}

/// A message that found no room; it comes back whole.
pub struct Full<T>(pub T);

impl<T> fmt::Debug for Full<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Full(..)")
    }
}

/// Wakes a shard's task, once for many messages.
#[derive(Debug)]
pub struct Doorbell {
    /// Set by the first message since the shard last looked.
    rung: AtomicBool,
    /// The shard's task. Locked when the task goes to sleep and by the one ring that wakes it.
    sleeper: Mutex<Option<Waker>>,
}

impl Default for Doorbell {
    fn default() -> Self {
        Self::new()
    }
}

impl Doorbell {
    /// A silent doorbell.
    pub fn new() -> Self {
        Doorbell { rung: AtomicBool::new(false), sleeper: Mutex::new(None) }
    }

    /// Says that there is something to look at. Call it after the message is in its box, or after an
    /// atomic that the shard is to see was stored.
    pub fn ring(&self) {
        if self.rung.swap(true, Ordering::AcqRel) {
            return;
        }
        let sleeper = self.sleeper.lock().expect("no holder panics").clone();
        if let Some(waker) = sleeper {
            waker.wake();
        }
    }

    /// Ready once it has been rung, and silent again from then on: look into every box *after* it.
    pub fn poll_rung(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.rung.swap(false, Ordering::AcqRel) {
            return Poll::Ready(());
        }
        {
            let mut sleeper = self.sleeper.lock().expect("no holder panics");
            if !sleeper.as_ref().is_some_and(|known| known.will_wake(context.waker())) {
                *sleeper = Some(context.waker().clone());
            }
        }
        // A ring between the first look and the registration woke nobody: look again.
        if self.rung.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Forgets the task, because its runtime ends: a later ring wakes nobody.
    pub fn forget_sleeper(&self) {
        self.sleeper.lock().expect("no holder panics").take();
    }
}

#[cfg(not(loom))]
#[derive(Debug)]
struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    fn new(value: T) -> Self {
        UnsafeCell(std::cell::UnsafeCell::new(value))
    }

    fn with_mut<R>(&self, work: impl FnOnce(*mut T) -> R) -> R {
        work(self.0.get())
    }
}

/// A message and what it weighs, or nothing.
type Slot<T> = Option<(T, usize)>;

/// The ring that a [`Sender`] and a [`Receiver`] share.
struct Ring<T> {
    slots: Box<[UnsafeCell<Slot<T>>]>,
    /// Messages ever taken; moved by the receiver alone.
    head: AtomicUsize,
    /// Messages ever put; moved by the sender alone.
    tail: AtomicUsize,
    /// Only the sender adds, only the receiver subtracts.
    bytes: AtomicUsize,
    bytes_max: usize,
}

// SAFETY: the slots are what keeps `Ring` from being `Sync`. Invariant 2 of the module: a slot between
// `head` and `tail` belongs to the only receiver, any other to the only sender, and it changes hands by
// a Release store and an Acquire load of the counter that passes it. `T: Send`, as it changes threads.
unsafe impl<T: Send> Sync for Ring<T> {}

/// The sending end of a mailbox: one shard has it.
pub struct Sender<T> {
    ring: Arc<Ring<T>>,
    doorbell: Arc<Doorbell>,
    /// The counter as last stored. A `Cell`, so that the type is not `Sync`: there is one sender.
    tail: Cell<usize>,
}

/// The receiving end of a mailbox: one shard has it.
pub struct Receiver<T> {
    ring: Arc<Ring<T>>,
    /// The counter as last stored. A `Cell`, so that the type is not `Sync`: there is one receiver.
    head: Cell<usize>,
}

/// A mailbox whose receiver is woken by `doorbell`.
pub fn mailbox<T: Send>(
    limits: MailboxLimits,
    doorbell: Arc<Doorbell>,
) -> (Sender<T>, Receiver<T>) {
    assert!(limits.messages_max > 0, "a mailbox holds at least one message");
    let ring = Arc::new(Ring {
        slots: (0..limits.messages_max).map(|_| UnsafeCell::new(None)).collect(),
        head: AtomicUsize::new(0),
        tail: AtomicUsize::new(0),
        bytes: AtomicUsize::new(0),
        bytes_max: limits.bytes_max,
    });
    let receiver = Receiver { ring: ring.clone(), head: Cell::new(0) };
    (Sender { ring, doorbell, tail: Cell::new(0) }, receiver)
}

impl<T: Send> Sender<T> {
    /// Puts a message that weighs `bytes`, and rings. `Full` where it would pass a limit.
    pub fn try_send(&self, message: T, bytes: usize) -> Result<(), Full<T>> {
        let ring = &*self.ring;
        let tail = self.tail.get();
        let queued = tail.wrapping_sub(ring.head.load(Ordering::Acquire));
        assert!(queued <= ring.slots.len(), "invariant 1: the receiver never passes the sender");
        if queued == ring.slots.len() {
            return Err(Full(message));
        }
        // Only this thread adds: behind our back the sum can only become smaller.
        let queued_bytes = ring.bytes.load(Ordering::Relaxed);
        if queued > 0 && queued_bytes.saturating_add(bytes) > ring.bytes_max {
            return Err(Full(message));
        }
        ring.bytes.fetch_add(bytes, Ordering::Relaxed);
        ring.slots[tail % ring.slots.len()].with_mut(|slot| {
            // SAFETY: `tail - head < slots`, so the receiver has emptied this slot or never had it,
            // which the Acquire load of `head` made visible; and there is one sender (invariant 2).
            let empty = unsafe { (*slot).replace((message, bytes)).is_none() };
            assert!(empty, "invariant 2: a slot is emptied before it is used again");
        });
        self.tail.set(tail.wrapping_add(1));
        ring.tail.store(tail.wrapping_add(1), Ordering::Release);
        self.doorbell.ring();
        Ok(())
    }
}

impl<T> Sender<T> {
    /// Rings without a message: for an atomic that the receiver is to see.
    pub fn ring(&self) {
        self.doorbell.ring();
    }
}

impl<T: Send> Receiver<T> {
    /// Takes the oldest message.
    pub fn try_take(&self) -> Option<T> {
        let ring = &*self.ring;
        let head = self.head.get();
        if ring.tail.load(Ordering::Acquire) == head {
            return None;
        }
        let (message, bytes) = ring.slots[head % ring.slots.len()].with_mut(|slot| {
            // SAFETY: `head < tail`, so the sender has filled this slot, which the Acquire load of
            // `tail` made visible, and keeps away from it until `head` passes it (invariant 2).
            unsafe { (*slot).take() }
                .expect("invariant 2: a slot is filled before the tail passes it")
        });
        ring.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.head.set(head.wrapping_add(1));
        ring.head.store(head.wrapping_add(1), Ordering::Release);
        Some(message)
    }
}

/// How much one shard may ask of another before it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallLimits {
    /// Requests that wait to be looked at, in number and weight.
    pub requests: MailboxLimits,
    /// Requests without an answer so far: the places of the answers.
    pub unanswered_max: usize,
}

/// The side that asks.
pub struct Caller<Q, A> {
    requests: Sender<Q>,
    answers: Receiver<A>,
    unanswered: Cell<usize>,
    unanswered_max: usize,
}

/// The side that answers.
pub struct Server<Q, A> {
    requests: Receiver<Q>,
    answers: Sender<A>,
}

/// A pair of mailboxes: requests one way, an answer for each of them the other way, in any order.
pub fn call_pair<Q: Send, A: Send>(
    limits: CallLimits,
    caller_doorbell: Arc<Doorbell>,
    server_doorbell: Arc<Doorbell>,
) -> (Caller<Q, A>, Server<Q, A>) {
    let (request_sender, request_receiver) = mailbox(limits.requests, server_doorbell);
    let answer_limits =
        MailboxLimits { messages_max: limits.unanswered_max, bytes_max: usize::MAX };
    let (answer_sender, answer_receiver) = mailbox(answer_limits, caller_doorbell);
    let caller = Caller {
        requests: request_sender,
        answers: answer_receiver,
        unanswered: Cell::new(0),
        unanswered_max: limits.unanswered_max,
    };
    (caller, Server { requests: request_receiver, answers: answer_sender })
}

impl<Q: Send, A: Send> Caller<Q, A> {
    /// Asks, and reserves the place of the answer. `Full` means that requests of this caller wait
    /// for their answers: once the next one has come, there may be room.
    pub fn try_call(&self, request: Q, bytes: usize) -> Result<(), Full<Q>> {
        if self.unanswered.get() == self.unanswered_max {
            return Err(Full(request));
        }
        self.requests.try_send(request, bytes)?;
        self.unanswered.set(self.unanswered.get() + 1);
        Ok(())
    }

    /// Takes the next answer, and with it frees a place.
    pub fn try_take_answer(&self) -> Option<A> {
        let answer = self.answers.try_take()?;
        let unanswered = self.unanswered.get();
        assert!(unanswered > 0, "invariant 4: an answer belongs to a request");
        self.unanswered.set(unanswered - 1);
        Some(answer)
    }

    /// Requests that have no answer so far.
    pub fn unanswered(&self) -> usize {
        self.unanswered.get()
    }
}

impl<Q: Send, A: Send> Server<Q, A> {
    /// Takes the oldest request; whoever takes it answers it, once.
    pub fn try_take_request(&self) -> Option<Q> {
        self.requests.try_take()
    }

    /// Answers a request that was taken.
    pub fn answer(&self, answer: A) {
        // Answers weigh nothing here: what each may hold was bounded when it was asked for.
        self.answers.try_send(answer, 0).expect("invariant 4: each request reserved this place");
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{
        sync::atomic::AtomicUsize as Count,
        task::{Wake, Waker},
        thread,
    };

    use super::*;

    struct Counted(Count);

    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn limits(messages_max: usize, bytes_max: usize) -> MailboxLimits {
        MailboxLimits { messages_max, bytes_max }
    }

    #[test]
    fn a_mailbox_refuses_by_number_and_by_weight_and_keeps_the_order() {
        let (sender, receiver) = mailbox(limits(3, 10), Arc::new(Doorbell::new()));
        sender.try_send('a', 4).unwrap();
        sender.try_send('b', 6).unwrap();
        assert_eq!(sender.try_send('c', 1).unwrap_err().0, 'c', "11 of 10 bytes");
        sender.try_send('c', 0).unwrap();
        assert_eq!(sender.try_send('d', 0).unwrap_err().0, 'd', "4 of 3 messages");
        assert_eq!(receiver.try_take(), Some('a'));
        sender.try_send('d', 4).unwrap();
        assert_eq!(
            std::iter::from_fn(|| receiver.try_take()).collect::<String>(),
            "bcd",
            "in the order sent"
        );
    }

    #[test]
    fn a_message_heavier_than_the_box_fits_when_it_is_alone() {
        let (sender, receiver) = mailbox(limits(3, 10), Arc::new(Doorbell::new()));
        sender.try_send(1, 1000).unwrap();
        sender.try_send(2, 0).unwrap_err();
        assert_eq!(receiver.try_take(), Some(1));
        sender.try_send(2, 0).unwrap();
    }

    #[test]
    fn many_messages_wake_once() {
        let doorbell = Arc::new(Doorbell::new());
        let (sender, receiver) = mailbox(limits(8, 8), doorbell.clone());
        let wakes = Arc::new(Counted(Count::new(0)));
        let waker = Waker::from(wakes.clone());
        let mut context = Context::from_waker(&waker);
        assert!(doorbell.poll_rung(&mut context).is_pending());
        for message in 0..5 {
            sender.try_send(message, 1).unwrap();
        }
        assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
        assert!(doorbell.poll_rung(&mut context).is_ready());
        assert_eq!(std::iter::from_fn(|| receiver.try_take()).count(), 5);
        assert!(doorbell.poll_rung(&mut context).is_pending());
        sender.try_send(5, 1).unwrap();
        assert_eq!(wakes.0.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn every_accepted_request_has_a_place_for_its_answer() {
        let bell = || Arc::new(Doorbell::new());
        let limits = CallLimits { requests: limits(2, 100), unanswered_max: 3 };
        let (caller, server) = call_pair::<u32, u32>(limits, bell(), bell());
        caller.try_call(1, 1).unwrap();
        caller.try_call(2, 1).unwrap();
        assert_eq!(caller.try_call(3, 1).unwrap_err().0, 3, "two wait to be looked at");
        let taken: Vec<u32> = std::iter::from_fn(|| server.try_take_request()).collect();
        caller.try_call(3, 1).unwrap();
        assert_eq!(caller.try_call(4, 1).unwrap_err().0, 4, "three have no answer");
        for request in taken.into_iter().rev() {
            server.answer(request * 10);
        }
        assert_eq!(caller.try_take_answer(), Some(20));
        caller.try_call(4, 1).unwrap();
        server.answer(server.try_take_request().unwrap() * 10);
        assert_eq!(caller.try_take_answer(), Some(10));
        assert_eq!(caller.try_take_answer(), Some(30));
        assert_eq!((caller.try_take_answer(), caller.unanswered()), (None, 1));
    }

    #[test]
    fn two_threads_pass_everything_in_order() {
        let (sender, receiver) = mailbox(limits(7, 1 << 20), Arc::new(Doorbell::new()));
        let producer = thread::spawn(move || {
            for number in 0..20_000_u64 {
                let mut message = Box::new(number);
                while let Err(Full(back)) = sender.try_send(message, 1) {
                    message = back;
                    thread::yield_now();
                }
            }
        });
        let mut expected = 0;
        while expected < 20_000 {
            match receiver.try_take() {
                Some(number) => {
                    assert_eq!(*number, expected);
                    expected += 1;
                }
                None => thread::yield_now(),
            }
        }
        producer.join().unwrap();
    }
}
