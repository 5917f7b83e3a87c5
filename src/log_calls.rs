//! What is asked of a log's owner, how it is answered, and the way there from another shard.

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use strandline_storage::{
    append::{Append, ProducerPlace},
    config::SyncMode,
    error::{AppendError, ReadError},
    frame::{self, Frame},
    io::Space,
    log::{CompactionTotals, ScrubTotals, SnapshotTotals},
    offset::Offset,
    reader::{Hits, ReadQuery},
    segment::SegmentBegun,
    settings::{LogSettings, TopicSettings},
    topics::TopicSummary,
};

use crate::{
    local::{Kept, Promise, Signal, promise},
    mesh::{Caller, Full, Receiver},
};

/// Why an append was refused: nothing of it will ever be read.
pub type AppendRefused = AppendError;

/// Events that are as durable as the log promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acked {
    /// The offset of the first event; of a duplicate, where that was.
    pub first: Offset,
    /// The offset of the last event.
    pub last: Offset,
    /// How many of them were there already.
    pub duplicates: u64,
    /// How far the producer has come, if one was named.
    pub producer: Option<ProducerPlace>,
    /// What the log promises.
    pub sync: SyncMode,
}

/// Appends that stand in a row, such as the lines of one body: once one of them is refused, all that
/// were submitted after it are, wherever they were on their way. So what was appended is what stood
/// before the refusal, and a client can go on from there.
#[derive(Clone, Debug, Default)]
pub struct AppendChain(Arc<ChainState>);

#[derive(Debug, Default)]
struct ChainState {
    is_broken: AtomicBool,
    /// The offset that the last of them waits for.
    wait: AtomicU64,
}

impl AppendChain {
    /// Whether an append of the chain was refused.
    pub(crate) fn is_broken(&self) -> bool {
        self.0.is_broken.load(Ordering::Acquire)
    }

    /// An append of the chain was refused.
    pub(crate) fn break_off(&self) {
        self.0.is_broken.store(true, Ordering::Release);
    }

    /// The next append of the chain has to wait for so much: returns what for, so that it is not answered before
    /// one that it follows.
    pub(crate) fn wait_behind(&self, wait: Offset) -> Offset {
        // The owner of the log alone asks.
        wait.max(Offset::new(self.0.wait.fetch_max(wait.get(), Ordering::Relaxed)))
    }
}

/// Resolves once the append is durable, or what was told of it; dropping it undoes nothing.
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

    /// The answer of an owner on another shard, to [`LogRequest::Append`].
    pub(super) fn there(kept: Kept<LogAnswer>) -> Self {
        AckFuture(Acking::There(kept))
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
    /// [`LogHandle::segments`](crate::log_handle::LogHandle::segments) anew.
    pub considered: Offset,
}

/// What is set for a topic or pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundSettings {
    /// For exactly this one.
    pub own: Option<TopicSettings>,
    /// What holds for a topic: its own, or those of a pattern. None for a pattern.
    pub holding: Option<TopicSettings>,
}

/// How a log stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogStats {
    /// The first offset that is kept.
    pub earliest: u64,
    /// The first that readers do not see.
    pub visible: u64,
    /// The first that may not be on the device.
    pub durable: u64,
    /// Bytes that wait for the disk.
    pub staged_bytes: u64,
    /// Sealed segments.
    pub segments: u64,
    /// The length of their files.
    pub segment_bytes: u64,
    /// Those known to be damaged.
    pub damaged_segments: u64,
    /// Topics that have events, as far as they were counted.
    pub topics: u64,
    /// Ids of events that are remembered.
    pub ids: u64,
    /// Producers that are remembered.
    pub producers: u64,
    /// What compaction has done since the log was opened.
    pub compaction: CompactionTotals,
    /// How many segments were removed whole, since the start.
    pub retired_segments: u64,
    /// What scrubbing has.
    pub scrub: ScrubTotals,
    /// What was written down of the log's state.
    pub snapshots: SnapshotTotals,
    /// The space of its disk, if that is known.
    pub disk: Option<Space>,
}

/// The number of a call from one shard to a log's owner, until it is answered.
pub(crate) type CallId = usize;

/// What a shard asks of a log's owner.
pub(crate) enum LogRequest {
    Append { append: Append, chain: Option<AppendChain> },
    Unsealed { query: ReadQuery, budget_bytes: usize },
    Topics { prefix: Vec<u8>, after: Option<Vec<u8>>, limit: usize },
    Topic { name: String },
    LogSettings,
    TopicSettings { pattern: String },
    Stats,
    OffsetAtTime { time_ms: u64 },
}

/// What the owner answers.
pub(crate) enum LogAnswer {
    Append(Result<Acked, AppendRefused>),
    Unsealed(Result<UnsealedPart, ReadError>),
    Topics(Vec<TopicSummary>),
    Topic(Option<TopicSummary>),
    LogSettings(LogSettings, SegmentBegun),
    TopicSettings(FoundSettings),
    Stats(Box<LogStats>),
    OffsetAtTime(Result<Offset, ReadError>),
}

/// A request on its way, and an answer on its way back.
pub(crate) type Call = (CallId, LogRequest);
pub(crate) type Answer = (CallId, LogAnswer);

impl LogRequest {
    /// What it weighs in a mailbox.
    pub(super) fn weight_bytes(&self) -> usize {
        match self {
            LogRequest::Append { append: Append { events, producer, .. }, .. } => {
                let name_bytes = producer.as_ref().map_or(0, |claim| claim.id.as_str().len());
                name_bytes + events.iter().map(frame::encoded_bytes_max).sum::<usize>()
            }
            LogRequest::Topics { prefix, .. } => prefix.len(),
            _ => size_of::<Self>(),
        }
    }
}

/// This shard's side of the mailboxes to the owner's.
pub(crate) struct Guest {
    caller: Caller<Call, Answer>,
    pub(super) frames: Receiver<Arc<Frame>>,
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
    pub(super) fn try_call(&self, request: LogRequest) -> Result<Kept<LogAnswer>, LogRequest> {
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
    pub(super) async fn call(&self, mut request: LogRequest) -> Option<LogAnswer> {
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
    pub(super) fn take_answers(&self) {
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
