//! A log as any shard sees it: append, look at what is visible, follow what comes.
//!
//! ```text
//!   all shards                     one shard each                     the owner's shard
//!   LogShared: tag, visible,  <--  LogHandle: recent frames,   --->   Owner: the Log itself
//!   synced, earliest, sealed       who follows, calls under way  mesh
//! ```
//! The owner stores the visible offset for *all* shards before any acknowledgement or published frame
//! leaves: whoever got an acknowledgement finds the event on every shard. Published frames are only a
//! hint, which a full mailbox drops; the visible offset is what counts, and what a shard missed it reads
//! from the log.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use arc_swap::ArcSwap;
use strandline_storage::{
    config::SyncMode,
    error::{AppendError, ReadError},
    event::NewEvent,
    frame::{self, Frame},
    io::{real::RealDisk, uring::UringReads},
    log::WriteMode,
    offset::Offset,
    reader::{Hits, ReadQuery, offset_at_time},
    segment::Tag,
    segment_set::SegmentSet,
    topics::TopicSummary,
};

use crate::{
    local::{Kept, Promise, Signal, SignalWait, promise},
    mesh::{Caller, Full, Receiver},
    owner::Owner,
};

/// What all shards know of a log. Only its owner stores into it.
pub struct LogShared {
    tag: Tag,
    sync: SyncMode,
    write_mode: WriteMode,
    /// One for each shard, each on cache lines of its own.
    views: Box<[ShardView]>,
    synced: AtomicU64,
    earliest: AtomicU64,
    segments: ArcSwap<SegmentSet<RealDisk>>,
    poisoned: OnceLock<String>,
    disk_full: AtomicBool,
    closed: AtomicBool,
}

/// What the owner tells one shard without a message.
#[derive(Debug)]
#[repr(align(128))]
struct ShardView {
    /// The first offset that readers do not see.
    visible: AtomicU64,
    /// The end of the last frame whose news found the shard's mailbox full.
    missed: AtomicU64,
}

/// What a log says of itself when it is opened, or after a commit.
pub struct LogFacts {
    /// The name of this history of the log.
    pub tag: Tag,
    /// When an append counts as done.
    pub sync: SyncMode,
    /// How frames are written.
    pub write_mode: WriteMode,
    /// The first offset that readers do not see.
    pub visible: Offset,
    /// The first offset that may not be on the device.
    pub synced: Offset,
    /// The first offset still kept.
    pub earliest: Offset,
    /// The sealed segments.
    pub segments: Arc<SegmentSet<RealDisk>>,
}

impl LogShared {
    /// The shared part of a log that was opened.
    pub fn new(facts: LogFacts, shards: usize) -> Self {
        let view = |_| ShardView {
            visible: AtomicU64::new(facts.visible.get()),
            missed: AtomicU64::new(0),
        };
        LogShared {
            tag: facts.tag,
            sync: facts.sync,
            write_mode: facts.write_mode,
            views: (0..shards).map(view).collect(),
            synced: AtomicU64::new(facts.synced.get()),
            earliest: AtomicU64::new(facts.earliest.get()),
            segments: ArcSwap::new(facts.segments),
            poisoned: OnceLock::new(),
            disk_full: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }

    /// The name of this history of the log.
    pub fn tag(&self) -> &Tag {
        &self.tag
    }

    /// When an append counts as done.
    pub fn sync(&self) -> SyncMode {
        self.sync
    }

    /// How frames are written.
    pub fn write_mode(&self) -> WriteMode {
        self.write_mode
    }

    /// By the owner, before any acknowledgement or push: every shard sees events up to `visible`.
    pub(crate) fn store_visible(&self, visible: Offset, synced: Offset) {
        self.synced.store(synced.get(), Ordering::Release);
        for view in &self.views {
            view.visible.store(visible.get(), Ordering::Release);
        }
    }

    /// By the owner: a frame that ends here did not fit into the mailbox of `shard`.
    pub(crate) fn store_missed(&self, shard: usize, end: Offset) {
        self.views[shard].missed.store(end.get(), Ordering::Release);
    }

    /// By the owner, when a segment was sealed or retired.
    pub(crate) fn store_segments(&self, segments: &Arc<SegmentSet<RealDisk>>, earliest: Offset) {
        if !Arc::ptr_eq(&self.segments.load(), segments) {
            self.segments.store(segments.clone());
            self.earliest.store(earliest.get(), Ordering::Release);
        }
    }

    /// By the owner: the log takes no more writes, and why.
    pub(crate) fn store_poisoned(&self, reason: String) {
        let _ = self.poisoned.set(reason);
    }

    /// By the owner: appends are refused for want of space, or are taken again.
    pub(crate) fn store_disk_full(&self, is_full: bool) {
        self.disk_full.store(is_full, Ordering::Release);
    }

    /// By the owner: the log was closed.
    pub(crate) fn store_closed(&self) {
        self.closed.store(true, Ordering::Release);
    }
}

/// Why an append was refused: nothing of it will ever be read.
pub type AppendRefused = AppendError;

/// Events that are as durable as the log promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acked {
    /// The offset of the first event.
    pub first: Offset,
    /// The offset of the last event.
    pub last: Offset,
    /// What the log promises.
    pub sync: SyncMode,
}

/// Appends that stand in a row, such as the lines of one body: once one of them is refused, all that
/// were submitted after it are, wherever they were on their way. So what was appended is what stood
/// before the refusal, and a client can go on from there.
#[derive(Clone, Debug, Default)]
pub struct AppendChain(Arc<AtomicBool>);

impl AppendChain {
    /// Whether an append of the chain was refused.
    pub(crate) fn is_broken(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// An append of the chain was refused.
    pub(crate) fn break_off(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Resolves once the append is durable, in the order of offsets; dropping it undoes nothing.
#[must_use = "the append goes on, but nobody learns how it ended"]
pub struct AckFuture(Acking);

enum Acking {
    Here(Kept<Result<Acked, AppendRefused>>),
    There(Kept<LogAnswer>),
}

impl AckFuture {
    /// The answer of an owner on this shard.
    pub(crate) fn here(kept: Kept<Result<Acked, AppendRefused>>) -> Self {
        AckFuture(Acking::Here(kept))
    }
}

impl Future for AckFuture {
    type Output = Result<Acked, AppendRefused>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let ack = match &mut self.0 {
            Acking::Here(kept) => ready!(Pin::new(kept).poll(context)),
            Acking::There(kept) => match ready!(Pin::new(kept).poll(context)) {
                Some(LogAnswer::Append(result)) => Some(result),
                Some(_) => unreachable!("an append is answered by its result"),
                None => None,
            },
        };
        // A broken promise: the owner is gone, which happens when the server ends.
        Poll::Ready(ack.unwrap_or(Err(AppendError::Closed)))
    }
}

/// The part of the log that is not sealed, or as much of it as a budget allowed.
pub struct UnsealedPart {
    /// What was found, in the query's order.
    pub hits: Vec<Hits>,
    /// How far the query has been answered: going on from here misses nothing. Where it stands at the
    /// query's start and nothing was found, that part has been sealed meanwhile: take
    /// [`LogHandle::segments`] anew.
    pub considered: Offset,
}

/// What reaches a shard of a log's progress, in order.
pub enum News<'a> {
    /// The next frame became visible.
    Frame(&'a Arc<Frame>),
    /// Everything below is visible; frames below it that were not given are to be read from the log.
    Visible(Offset),
    /// The log takes no more writes ([`LogHandle::poisoned`]), or was closed.
    Ended,
}

/// The number of a call from one shard to a log's owner, until it is answered.
pub(crate) type CallId = usize;

/// What a shard asks of a log's owner.
pub(crate) enum LogRequest {
    Append { events: Vec<NewEvent>, chain: Option<AppendChain> },
    Unsealed { query: ReadQuery, budget_bytes: usize },
    Topics { prefix: Vec<u8>, after: Option<Vec<u8>>, limit: usize },
    Topic { name: String },
    OffsetAtTime { time_ms: u64 },
}

/// What the owner answers.
pub(crate) enum LogAnswer {
    Append(Result<Acked, AppendRefused>),
    Unsealed(Result<UnsealedPart, ReadError>),
    Topics(Vec<TopicSummary>),
    Topic(Option<TopicSummary>),
    OffsetAtTime(Result<Offset, ReadError>),
}

/// A request on its way, and an answer on its way back.
pub(crate) type Call = (CallId, LogRequest);
pub(crate) type Answer = (CallId, LogAnswer);

/// The frames that became visible last, as far as this shard got them: contiguous, at most
/// `bytes_max`.
#[derive(Debug)]
pub struct RecentFrames {
    frames: RefCell<VecDeque<Arc<Frame>>>,
    bytes: Cell<usize>,
    bytes_max: usize,
}

impl RecentFrames {
    pub(crate) fn new(bytes_max: usize) -> Self {
        RecentFrames { frames: RefCell::default(), bytes: Cell::new(0), bytes_max }
    }

    /// The frame that holds `offset`; the next one begins at its `end_offset`.
    pub fn frame_at(&self, offset: Offset) -> Option<Arc<Frame>> {
        let frames = self.frames.borrow();
        let index = frames.partition_point(|frame| frame.end_offset() <= offset);
        frames.get(index).filter(|frame| frame.base_offset() <= offset).cloned()
    }

    /// From which offset to which (not included) the frames reach; `None` if there are none.
    pub fn range(&self) -> Option<(Offset, Offset)> {
        let frames = self.frames.borrow();
        Some((frames.front()?.base_offset(), frames.back()?.end_offset()))
    }

    fn push(&self, frame: Arc<Frame>) {
        let mut frames = self.frames.borrow_mut();
        if frames.back().is_some_and(|last| last.end_offset() != frame.base_offset()) {
            frames.clear();
            self.bytes.set(0);
        }
        self.bytes.set(self.bytes.get() + frame.frame_bytes());
        frames.push_back(frame);
        while self.bytes.get() > self.bytes_max {
            let Some(oldest) = frames.pop_front() else { break };
            self.bytes.set(self.bytes.get() - oldest.frame_bytes());
        }
    }
}

/// Where the log's owner is, seen from this shard.
pub(crate) enum Seat {
    /// On this shard.
    Owner(Rc<Owner>),
    /// On another.
    Guest(Guest),
}

/// This shard's side of the mailboxes to the owner's.
pub(crate) struct Guest {
    pub(crate) caller: Caller<Call, Answer>,
    pub(crate) frames: Receiver<Arc<Frame>>,
    calls: RefCell<Calls>,
    /// Raised when an answer came: there is room for another request.
    room: Signal,
}

#[derive(Default)]
struct Calls {
    promises: Vec<Option<Promise<LogAnswer>>>,
    free: Vec<CallId>,
}

impl Guest {
    pub(crate) fn new(caller: Caller<Call, Answer>, frames: Receiver<Arc<Frame>>) -> Self {
        Guest { caller, frames, calls: RefCell::default(), room: Signal::new() }
    }

    /// Sends a request now, or gives it back.
    fn try_call(&self, request: LogRequest) -> Result<Kept<LogAnswer>, LogRequest> {
        let bytes = request.weight_bytes();
        let mut calls = self.calls.borrow_mut();
        let id = calls.free.last().copied().unwrap_or(calls.promises.len());
        if let Err(Full((_, request))) = self.caller.try_call((id, request), bytes) {
            return Err(request);
        }
        let (promise, kept) = promise();
        if calls.free.pop().is_some() {
            calls.promises[id] = Some(promise);
        } else {
            calls.promises.push(Some(promise));
        }
        Ok(kept)
    }

    /// Sends a request of the server's own, as soon as there is room.
    async fn call(&self, mut request: LogRequest) -> Option<LogAnswer> {
        loop {
            let room = self.room.wait();
            match self.try_call(request) {
                Ok(kept) => return kept.await,
                Err(back) => request = back,
            }
            room.await;
        }
    }

    /// Hands out the answers that came.
    fn take_answers(&self) {
        let mut came = false;
        while let Some((id, answer)) = self.caller.try_take_answer() {
            came = true;
            let promise = {
                let mut calls = self.calls.borrow_mut();
                calls.free.push(id);
                calls.promises[id].take().expect("an answer belongs to a call under way")
            };
            promise.keep(answer);
        }
        if came {
            self.room.raise();
        }
    }
}

impl LogRequest {
    /// What it weighs in a mailbox.
    fn weight_bytes(&self) -> usize {
        match self {
            LogRequest::Append { events, .. } => events.iter().map(frame::encoded_bytes_max).sum(),
            LogRequest::Topics { prefix, .. } => prefix.len(),
            _ => size_of::<Self>(),
        }
    }
}

type Listener = Rc<dyn Fn(News<'_>)>;

/// A log on one shard.
pub struct LogHandle {
    shard: usize,
    shared: Arc<LogShared>,
    seat: Seat,
    recent: RecentFrames,
    listeners: RefCell<Vec<Listener>>,
    /// The visible offset that this shard's listeners know.
    told: Cell<Offset>,
    told_end: Cell<bool>,
    changed: Signal,
    reads: UringReads,
}

impl LogHandle {
    pub(crate) fn new(
        shard: usize,
        shared: Arc<LogShared>,
        seat: Seat,
        recent_bytes_max: usize,
        reads: UringReads,
    ) -> Self {
        let told = Cell::new(Offset::new(shared.views[shard].visible.load(Ordering::Acquire)));
        LogHandle {
            shard,
            shared,
            seat,
            recent: RecentFrames::new(recent_bytes_max),
            listeners: RefCell::default(),
            told,
            told_end: Cell::new(false),
            changed: Signal::new(),
            reads,
        }
    }

    /// The name of this history of the log.
    pub fn tag(&self) -> &Tag {
        &self.shared.tag
    }

    /// When an append counts as done.
    pub fn sync(&self) -> SyncMode {
        self.shared.sync
    }

    /// The first offset that readers do not see.
    pub fn visible(&self) -> Offset {
        Offset::new(self.shared.views[self.shard].visible.load(Ordering::Acquire))
    }

    /// The first offset that may not be on the device.
    pub fn synced(&self) -> Offset {
        Offset::new(self.shared.synced.load(Ordering::Acquire))
    }

    /// The first offset still kept.
    pub fn earliest(&self) -> Offset {
        Offset::new(self.shared.earliest.load(Ordering::Acquire))
    }

    /// Why the log takes no more writes, if it does not.
    pub fn poisoned(&self) -> Option<&str> {
        self.shared.poisoned.get().map(String::as_str)
    }

    /// Whether appends are refused until there is space on the disk.
    pub fn is_disk_full(&self) -> bool {
        self.shared.disk_full.load(Ordering::Acquire)
    }

    /// Whether the log was closed.
    pub fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }

    /// How frames are written.
    pub fn write_mode(&self) -> WriteMode {
        self.shared.write_mode
    }

    /// Appends all of `events`, which are not empty, or none; resolves once they are durable.
    pub async fn append(&self, events: Vec<NewEvent>) -> Result<Acked, AppendRefused> {
        self.submit(events).await
    }

    /// [`LogHandle::submit`] as the next of a chain: refused if one before it was.
    pub fn submit_next(&self, chain: &AppendChain, events: Vec<NewEvent>) -> AckFuture {
        self.submit_in(Some(chain.clone()), events)
    }

    /// The same in two steps: appends happen in the order of the calls. A full mailbox refuses at
    /// once.
    pub fn submit(&self, events: Vec<NewEvent>) -> AckFuture {
        self.submit_in(None, events)
    }

    fn submit_in(&self, chain: Option<AppendChain>, events: Vec<NewEvent>) -> AckFuture {
        assert!(!events.is_empty(), "an append has events");
        match &self.seat {
            Seat::Owner(owner) => owner.append_local(events, chain),
            Seat::Guest(guest) => match guest.try_call(LogRequest::Append { events, chain }) {
                Ok(kept) => AckFuture(Acking::There(kept)),
                Err(request) => {
                    if let LogRequest::Append { chain: Some(chain), .. } = &request {
                        chain.break_off();
                    }
                    let staged_bytes = request.weight_bytes() as u64;
                    let refused = Err(AppendError::Overloaded { staged_bytes });
                    AckFuture::here(Kept::ready(refused))
                }
            },
        }
    }

    /// The frames that this shard got last.
    pub fn recent(&self) -> &RecentFrames {
        &self.recent
    }

    /// What the owner has of `query` beyond the sealed segments, up to about `budget_bytes` of frames
    /// (at least one).
    pub async fn unsealed(
        &self,
        query: ReadQuery,
        budget_bytes: usize,
    ) -> Result<UnsealedPart, ReadError> {
        match self.ask(LogRequest::Unsealed { query, budget_bytes }).await {
            Some(LogAnswer::Unsealed(part)) => part,
            _ => Err(owner_is_gone()),
        }
    }

    /// The sealed segments.
    pub fn segments(&self) -> Arc<SegmentSet<RealDisk>> {
        self.shared.segments.load_full()
    }

    /// Reads of files by this shard's ring.
    pub fn reads(&self) -> &UringReads {
        &self.reads
    }

    /// Resolves when the visible offset moved after this call, or the log ended.
    pub fn changed(&self) -> SignalWait<'_> {
        self.changed.wait()
    }

    /// Calls `listener` with everything that happens to the log from now on, on this shard, in order.
    /// It must be quick, and must not subscribe.
    pub fn subscribe(&self, listener: Rc<dyn Fn(News<'_>)>) {
        self.listeners.borrow_mut().push(listener);
    }

    /// A page of the topics whose names begin with `prefix` and come after `after`, in order of name.
    pub async fn topics(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Vec<TopicSummary> {
        let request =
            LogRequest::Topics { prefix: prefix.to_vec(), after: after.map(<[u8]>::to_vec), limit };
        match self.ask(request).await {
            Some(LogAnswer::Topics(topics)) => topics,
            _ => Vec::new(),
        }
    }

    /// What is known of one topic; `None` if it was never used.
    pub async fn topic(&self, name: &str) -> Option<TopicSummary> {
        match self.ask(LogRequest::Topic { name: name.to_owned() }).await {
            Some(LogAnswer::Topic(topic)) => topic,
            _ => None,
        }
    }

    /// The offset of the first event that is not older than `time_ms`; the visible offset if there is
    /// none. Where damage hides it, the offset at which the damage begins.
    pub async fn offset_at_time(&self, time_ms: u64) -> Result<Offset, ReadError> {
        loop {
            let segments = self.segments();
            if let Some(offset) = offset_at_time(&segments, &self.reads, time_ms).await? {
                return Ok(offset);
            }
            let offset = match self.ask(LogRequest::OffsetAtTime { time_ms }).await {
                Some(LogAnswer::OffsetAtTime(offset)) => offset?,
                _ => return Err(owner_is_gone()),
            };
            // A segment that was sealed in between may have been looked at by neither.
            if self.segments().end() == segments.end() {
                return Ok(offset);
            }
        }
    }

    async fn ask(&self, request: LogRequest) -> Option<LogAnswer> {
        match &self.seat {
            Seat::Owner(owner) => Some(owner.clone().answer(request).await),
            Seat::Guest(guest) => guest.call(request).await,
        }
    }

    /// Takes what came by the mesh; called by the shard each time its doorbell was rung.
    pub(crate) fn take_mail(&self) {
        if let Seat::Guest(guest) = &self.seat {
            guest.take_answers();
            while let Some(frame) = guest.frames.try_take() {
                self.publish(frame);
            }
        }
        self.tell_missed();
    }

    /// The next frame that became visible. The visible offset has been stored.
    pub(crate) fn publish(&self, frame: Arc<Frame>) {
        self.recent.push(frame.clone());
        self.told.set(self.told.get().max(frame.end_offset()));
        self.tell(|| News::Frame(&frame));
        self.changed.raise();
    }

    /// Tells of frames that did not come, and of the log's end. (That `visible` has moved alone says
    /// nothing: the frames may be on their way.)
    pub(crate) fn tell_missed(&self) {
        let missed = Offset::new(self.shared.views[self.shard].missed.load(Ordering::Acquire));
        if missed > self.told.get() {
            self.told.set(missed);
            self.tell(|| News::Visible(missed));
            self.changed.raise();
        }
        let ended = self.poisoned().is_some() || self.is_closed();
        if ended && !self.told_end.replace(true) {
            self.tell(|| News::Ended);
            self.changed.raise();
        }
    }

    fn tell<'a>(&self, news: impl Fn() -> News<'a>) {
        // A listener may call anything here but `subscribe`.
        for listener in self.listeners.borrow().iter() {
            listener(news());
        }
    }
}

/// The owner's shard has ended: only when the whole server does.
fn owner_is_gone() -> ReadError {
    ReadError::Io {
        file: std::path::PathBuf::new(),
        source: std::io::Error::other("the server is ending"),
    }
}
