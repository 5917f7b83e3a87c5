//! The owner of a log: drives its commits and publishes what became visible.
//!
//! ```text
//! append --> Log (staged) --> [end of the slice] --> next_op --> write, each a task of its own
//!                                                       ^                |
//!                                                       +--- complete <--+
//! complete --> visible offset stored for all shards --> acknowledgements, in order --> frames published
//! ```
//! Commits are started by one task that appends wake: it runs behind all that is already in the run
//! queue, so that whatever arrives in the same turn of the loop goes into the same frame. And by the end
//! of another: what waits is handed to the disk before the answers to what is durable are sent, unless
//! these take less time than a write. While one is under way the next begins when the shard would idle.
//!
//! Invariants:
//! 1. A write's task is never raced or dropped: the kernel would keep the buffer, and nobody would
//!    learn the outcome. `close` ends only when the log has seen every outcome.
//! 2. `waiting` is in the order of what answers rest on: an append on itself, a duplicate on the event that
//!    it repeats, a refusal on what others have appended. An answer about what readers see already leaves
//!    at once: it is true whatever becomes of what is staged.
//! 3. The visible offset is stored for all shards before any acknowledgement or frame leaves.

mod acknowledging;
mod hands;
mod notices;
mod outbox;
mod reads;
mod space;
#[cfg(test)]
pub(crate) mod testing;
mod waiting;

use std::{
    cell::{Cell, OnceCell, RefCell},
    future::Future,
    io,
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use strandline_storage::{
    error::AppendError,
    frame::Frame,
    group_commit::WINDOW_MS,
    io::{
        Disk, Space,
        real::RealDisk,
        uring::{UringFiles, UringReads},
    },
    log::{Log, Op, OpOutcome},
    offset::Offset,
};

pub(crate) use self::outbox::Outbox;
use self::{
    acknowledging::{AckTo, Waiter},
    hands::Hands,
    waiting::Waiting,
};
use crate::{
    clock,
    local::{Signal, either},
    log_calls::{Answer, Call, FoundSettings, LogAnswer, LogRequest},
    log_shared::LogShared,
    mesh::Server,
    runtime::{Driver, end_slice, give_way, hurry},
};

/// The owner's ends of the mailboxes to one other shard.
pub(crate) struct GuestSeat {
    pub(crate) shard: usize,
    pub(crate) calls: Server<Call, Answer>,
    pub(crate) frames: Outbox,
}

/// Who is told on the owner's own shard, without a mailbox.
pub(crate) trait Follower {
    /// The next frame that became visible. The visible offset has been stored.
    fn publish(&self, frame: Arc<Frame>);

    /// Frames did not come, or the log has ended. (That the visible offset has moved alone says nothing: the
    /// frames may be on their way.)
    fn tell_missed(&self);

    /// Closes what this shard's ring has of segments that nobody reads any more: what is open takes space.
    fn close_what_is_gone(&self);
}

/// A log on the shard that appends to it.
pub struct Owner {
    log: RefCell<Log<RealDisk>>,
    hands: Hands,
    reads: UringReads,
    shared: Arc<LogShared>,
    guests: Vec<GuestSeat>,
    /// Appends without an answer so far.
    waiting: RefCell<Waiting<Waiter>>,
    /// Raised when the log may have an operation to start.
    work: Signal,
    /// What was told to all shards last.
    told_visible: Cell<Offset>,
    told_synced: Cell<Offset>,
    /// How long the last write took.
    write_took: Cell<Duration>,
    /// When it was last told how busy the shard is.
    looked_boot_ms: Cell<u64>,
    /// What was last found of the disk's space, and whether it is being looked up.
    space: Cell<Option<Space>>,
    is_looking_up_space: Cell<bool>,
    /// The disk was asked, and failed to say.
    is_space_unknown: Cell<bool>,
    follower: OnceCell<Weak<dyn Follower>>,
}

impl Owner {
    pub(crate) fn new(
        mut log: Log<RealDisk>,
        disk: RealDisk,
        driver: Driver,
        files: Rc<UringFiles>,
        shared: Arc<LogShared>,
        guests: Vec<GuestSeat>,
    ) -> io::Result<Rc<Self>> {
        let reads = UringReads::new(files.clone());
        let hands = Hands::new(driver, disk, files)?;
        let space = hands.disk.space(log.dir());
        if driver == Driver::IoUring {
            log.count_on_idle();
        }
        let owner = Owner {
            told_visible: Cell::new(log.visible()),
            told_synced: Cell::new(log.synced()),
            write_took: Cell::new(Duration::ZERO),
            log: RefCell::new(log),
            hands,
            reads,
            shared,
            guests,
            waiting: RefCell::default(),
            work: Signal::new(),
            looked_boot_ms: Cell::new(0),
            space: Cell::new(None),
            is_looking_up_space: Cell::new(false),
            is_space_unknown: Cell::new(false),
            follower: OnceCell::new(),
        };
        // Known from the start on: whoever asks later while it is looked up gets what was known.
        owner.note_space(space);
        Ok(Rc::new(owner))
    }

    /// Takes the requests of other shards; called when the doorbell was rung. A mailbox bounds how
    /// many there are at once.
    pub(crate) fn take_mail(self: &Rc<Self>) {
        for (guest, seat) in self.guests.iter().enumerate() {
            while let Some((call, request)) = seat.calls.try_take_request() {
                match request {
                    LogRequest::Append { append, chain } => {
                        self.append(append, chain, AckTo::There { guest, call });
                    }
                    request => {
                        let owner = self.clone();
                        monoio::spawn(async move {
                            let answer = owner.clone().answer(request).await;
                            owner.guests[guest].calls.answer((call, answer));
                        });
                    }
                }
            }
        }
    }

    /// Answers a request of this shard or another.
    pub(crate) async fn answer(self: Rc<Self>, request: LogRequest) -> LogAnswer {
        match request {
            LogRequest::Append { append, chain } => {
                LogAnswer::Append(self.append_local(append, chain).await)
            }
            LogRequest::Unsealed { query, budget_bytes } => {
                LogAnswer::Unsealed(self.unsealed(query, budget_bytes).await)
            }
            LogRequest::Topics { prefix, after, limit } => {
                LogAnswer::Topics(self.topics(&prefix, after.as_deref(), limit).await)
            }
            LogRequest::Topic { name } => LogAnswer::Topic(self.topic(&name).await),
            LogRequest::LogSettings => {
                let log = self.log.borrow();
                LogAnswer::LogSettings(*log.rules().log(), log.active())
            }
            LogRequest::TopicSettings { pattern } => {
                let log = self.log.borrow();
                let (rules, is_topic) = (log.rules(), !pattern.contains('*'));
                let own = rules.set_for(&pattern).copied();
                let holding = if is_topic { rules.for_topic(&pattern).copied() } else { None };
                LogAnswer::TopicSettings(FoundSettings { own, holding })
            }
            LogRequest::Stats => LogAnswer::Stats(Box::new(self.stats().await)),
            LogRequest::OffsetAtTime { time_ms } => {
                LogAnswer::OffsetAtTime(self.unsealed_offset_at_time(time_ms).await)
            }
        }
    }

    /// Starts what the log wants to do, until it is closed and everything has ended.
    pub(crate) async fn run(self: Rc<Self>) {
        self.warn_of_little_space();
        loop {
            let work = self.work.wait();
            self.start_operations();
            let (is_closed, is_gathering, deadline) = {
                let log = self.log.borrow();
                (log.is_closed(), log.is_gathering(), log.deadline())
            };
            if is_closed {
                break;
            }
            if is_gathering {
                self.look_whether_idle().await;
                continue;
            }
            match deadline {
                Some(boot_ms) => {
                    let rest_ms = boot_ms.saturating_sub(clock::boot_ms());
                    either(work, monoio::time::sleep(Duration::from_millis(rest_ms))).await;
                }
                None => work.await,
            }
        }
        self.tell();
        self.refuse_waiters(&AppendError::Closed);
        // Tasks that wait for ever are not dropped with their runtime, and one may hold the owner.
        self.log.borrow_mut().release();
        self.shared.store_closed();
        self.tell_ended();
    }

    /// Tells the log that the shard is idle if nothing was appended by all that could run.
    async fn look_whether_idle(&self) {
        let next = self.log.borrow().next();
        give_way().await;
        let mut log = self.log.borrow_mut();
        if log.next() == next {
            log.note_idle();
        }
    }

    /// Where frames that became visible are told on this shard.
    pub(crate) fn set_follower(&self, follower: Weak<dyn Follower>) {
        self.follower.set(follower).expect("an owner has one follower on its shard");
    }

    /// Closes the log: nothing is appended any more, and [`Owner::run`] ends when all is written.
    pub(crate) fn close(&self) {
        self.log.borrow_mut().begin_close();
        self.work.raise();
    }

    /// Starts what the log wants to do; whether a write was among it.
    fn start_operations(self: &Rc<Self>) -> bool {
        let mut has_started = false;
        let now = clock::now();
        if now.boot_ms >= self.looked_boot_ms.get() + WINDOW_MS {
            self.looked_boot_ms.set(now.boot_ms);
            self.log.borrow_mut().note_busy(clock::busy_ms(), now);
        }
        loop {
            let operation = self.log.borrow_mut().next_op(now);
            let Some(operation) = operation else { break };
            has_started |= matches!(operation, Op::Write { .. });
            self.start(operation);
        }
        self.report_notices();
        self.share_kept();
        if has_started {
            hurry();
        }
        has_started
    }

    fn share_kept(&self) {
        let log = self.log.borrow();
        self.shared.store_kept(log.segments(), log.rules().floors(), log.start());
    }

    fn complete_with(
        self: &Rc<Self>,
        outcome: impl Future<Output = OpOutcome<RealDisk>> + 'static,
    ) {
        let owner = self.clone();
        monoio::spawn(async move {
            let outcome = outcome.await;
            owner.complete(outcome);
            let is_short_of_time = owner.log.borrow().is_short_of_time();
            if !is_short_of_time && owner.is_soon_answered() {
                // What the answers bring goes into the next frame. 64 publishers: 5.9 us an append where the
                // frame went first 6.3 (a commit costs 20), and 4 % fewer a second; 16: 9.2 and 9.5.
                return owner.tell();
            }
            if is_short_of_time {
                // What has come meanwhile goes into the next frame, which so are fewer.
                end_slice().await;
            }
            let has_started = owner.start_operations();
            let is_alone = has_started && owner.log.borrow().writes_in_flight() == 1;
            if is_alone && owner.hands.driver == Driver::IoUring {
                // The ring hands this frame to the kernel when the turn of the loop ends: the disk then
                // works on it while the answers to the last one are sent, a system call each.
                end_slice().await;
            }
            owner.tell();
        });
    }

    /// Takes an outcome, and stores what became visible by it for all shards.
    fn complete(&self, outcome: OpOutcome<RealDisk>) {
        let (visible, synced) = {
            let mut log = self.log.borrow_mut();
            log.complete(outcome, clock::now());
            self.shared.store_kept(log.segments(), log.rules().floors(), log.start());
            (log.visible(), log.synced())
        };
        if visible != self.told_visible.get() || synced != self.told_synced.get() {
            self.told_visible.set(visible);
            self.told_synced.set(synced);
            self.shared.store_visible(visible, synced);
        }
    }

    /// Tells everyone of what has become visible: whose append it was first.
    fn tell(&self) {
        self.acknowledge_up_to(self.told_visible.get());
        let (frames, poison) = {
            let mut log = self.log.borrow_mut();
            (log.take_published(), log.poisoned().cloned())
        };
        for frame in frames {
            self.publish(frame);
        }
        if let Some(poison) = poison {
            self.shared.store_poisoned(poison.reason.clone());
            self.refuse_waiters(&AppendError::Poisoned {
                first_unsynced: poison.first_unsynced,
                reason: poison.reason,
            });
            self.tell_ended();
        }
        self.work.raise();
    }

    /// Gives a frame to every shard that has room for it; who has none reads it from the log.
    fn publish(&self, frame: Arc<Frame>) {
        for guest in &self.guests {
            if !guest.frames.give(&frame) {
                self.shared.store_missed(guest.shard, frame.end_offset());
                // The shard may have emptied its mailbox, and looked for what it missed, between the
                // two lines above: without this it would learn of the frame with the next one.
                guest.frames.ring();
            }
        }
        if let Some(follower) = self.follower.get().and_then(Weak::upgrade) {
            follower.publish(frame);
        }
    }

    fn tell_ended(&self) {
        for guest in &self.guests {
            guest.frames.ring();
        }
        if let Some(follower) = self.follower.get().and_then(Weak::upgrade) {
            follower.tell_missed();
        }
    }
}
