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

mod recent;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use strandline_storage::{
    append::Append,
    config::SyncMode,
    error::{AppendError, ReadError},
    frame::Frame,
    io::{real::RealDisk, uring::UringReads},
    log::WriteMode,
    offset::Offset,
    once::IdWindow,
    reader::{ReadQuery, offset_at_time},
    rules::Floors,
    segment::{SegmentBegun, Tag},
    segment_set::SegmentSet,
    settings::LogSettings,
    topics::TopicSummary,
};

pub use recent::RecentFrames;

use crate::{
    local::{Budget, Kept, Signal, SignalWait},
    log_calls::{
        AckFuture, Acked, AppendChain, AppendRefused, FoundSettings, Guest, LogAnswer, LogRequest,
        LogStats, UnsealedPart,
    },
    log_shared::LogShared,
    metrics::LogMetrics,
    owner::{Follower, Owner},
};

/// What reaches a shard of a log's progress, in order.
pub enum News<'a> {
    /// The next frame became visible.
    Frame(&'a Arc<Frame>),
    /// Everything below is visible; frames below it that were not given are to be read from the log.
    Visible(Offset),
    /// The log takes no more writes ([`LogHandle::poisoned`]), or was closed.
    Ended,
}

/// Where the log's owner is, seen from this shard.
pub(crate) enum Seat {
    /// On this shard.
    Owner(Rc<Owner>),
    /// On another.
    Guest(Guest),
}

type Listener = Rc<dyn Fn(News<'_>)>;

/// All readers of a shard together ask for no more of what is not sealed than this before they need it.
const AHEAD_BYTES_MAX: usize = 16 << 20;

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
    /// How many segments had been closed when its files were looked through last.
    swept: Cell<u64>,
    ahead: Rc<Budget>,
}

impl LogHandle {
    pub(crate) fn new(
        shard: usize,
        shared: Arc<LogShared>,
        seat: Seat,
        recent_bytes_max: usize,
        reads: UringReads,
    ) -> Self {
        let told = Cell::new(shared.visible(shard));
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
            swept: Cell::new(0),
            ahead: Budget::new(AHEAD_BYTES_MAX),
        }
    }

    /// The name of this history of the log.
    pub fn tag(&self) -> &Tag {
        self.shared.tag()
    }

    /// When an append counts as done.
    pub fn sync(&self) -> SyncMode {
        self.shared.sync()
    }

    /// The first offset that readers do not see.
    pub fn visible(&self) -> Offset {
        self.shared.visible(self.shard)
    }

    /// The first offset that may not be on the device.
    pub fn synced(&self) -> Offset {
        self.shared.synced()
    }

    /// The first offset still kept.
    pub fn earliest(&self) -> Offset {
        self.shared.earliest()
    }

    /// Why the log takes no more writes, if it does not.
    pub fn poisoned(&self) -> Option<&str> {
        self.shared.poisoned()
    }

    /// Whether appends are refused until there is space on the disk.
    pub fn is_disk_full(&self) -> bool {
        self.shared.is_disk_full()
    }

    /// Whether the log was closed.
    pub fn is_closed(&self) -> bool {
        self.shared.is_closed()
    }

    /// How frames are written.
    pub fn write_mode(&self) -> WriteMode {
        self.shared.write_mode()
    }

    /// How long the ids of events are remembered.
    pub fn id_window(&self) -> IdWindow {
        self.shared.id_window()
    }

    /// Appends all of the events, which are not none, or nothing; resolves once they are durable.
    pub async fn append(&self, append: impl Into<Append>) -> Result<Acked, AppendRefused> {
        self.submit(append).await
    }

    /// [`LogHandle::submit`] as the next of a chain: refused if one before it was.
    pub fn submit_next(&self, chain: &AppendChain, append: impl Into<Append>) -> AckFuture {
        self.submit_in(Some(chain.clone()), append.into())
    }

    /// The same in two steps: appends happen in the order of the calls. A full mailbox refuses at
    /// once.
    pub fn submit(&self, append: impl Into<Append>) -> AckFuture {
        self.submit_in(None, append.into())
    }

    fn submit_in(&self, chain: Option<AppendChain>, append: Append) -> AckFuture {
        assert!(!append.events.is_empty(), "an append has events");
        match &self.seat {
            Seat::Owner(owner) => owner.append_local(append, chain),
            Seat::Guest(guest) => match guest.try_call(LogRequest::Append { append, chain }) {
                Ok(kept) => AckFuture::there(kept),
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
        self.shared.segments()
    }

    /// The sealed segments, if they are others than `known`.
    pub fn segments_since(
        &self,
        known: &Arc<SegmentSet<RealDisk>>,
    ) -> Option<Arc<SegmentSet<RealDisk>>> {
        self.shared.segments_since(known)
    }

    /// Which events were deleted or trimmed.
    pub fn floors(&self) -> Arc<Floors> {
        self.shared.floors()
    }

    /// Reads of files by this shard's ring.
    pub fn reads(&self) -> &UringReads {
        &self.reads
    }

    /// Bytes of frames that this shard's readers may have before they need them.
    pub fn ahead(&self) -> &Rc<Budget> {
        &self.ahead
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

    /// A page of the topics whose names begin with `prefix` and come after `after`, in order of name; fewer than
    /// `limit` if these are the last. `None` when the server ends.
    pub async fn topics(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Option<Vec<TopicSummary>> {
        let request =
            LogRequest::Topics { prefix: prefix.to_vec(), after: after.map(<[u8]>::to_vec), limit };
        match self.ask(request).await {
            Some(LogAnswer::Topics(topics)) => Some(topics),
            _ => None,
        }
    }

    /// What is known of one topic; `None` if it was never used.
    pub async fn topic(&self, name: &str) -> Option<TopicSummary> {
        match self.ask(LogRequest::Topic { name: name.to_owned() }).await {
            Some(LogAnswer::Topic(topic)) => topic,
            _ => None,
        }
    }

    /// How the log stands; `None` when the server ends.
    pub async fn stats(&self) -> Option<LogStats> {
        match self.ask(LogRequest::Stats).await {
            Some(LogAnswer::Stats(stats)) => Some(*stats),
            _ => None,
        }
    }

    /// What the log's owner has counted.
    pub fn metrics(&self) -> &LogMetrics {
        self.shared.metrics()
    }

    /// The settings of the log, and the segment that takes appends; `None` when the server ends.
    pub async fn log_settings(&self) -> Option<(LogSettings, SegmentBegun)> {
        match self.ask(LogRequest::LogSettings).await {
            Some(LogAnswer::LogSettings(settings, active)) => Some((settings, active)),
            _ => None,
        }
    }

    /// What is set for a topic or pattern; `None` when the server ends.
    pub async fn topic_settings(&self, pattern: &str) -> Option<FoundSettings> {
        match self.ask(LogRequest::TopicSettings { pattern: pattern.to_owned() }).await {
            Some(LogAnswer::TopicSettings(found)) => Some(found),
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
        self.close_what_is_gone();
        self.tell_missed();
    }

    fn tell<'a>(&self, news: impl Fn() -> News<'a>) {
        // A listener may call anything here but `subscribe`.
        for listener in self.listeners.borrow().iter() {
            listener(news());
        }
    }
}

impl Follower for LogHandle {
    fn publish(&self, frame: Arc<Frame>) {
        self.recent.push(frame.clone());
        self.told.set(self.told.get().max(frame.end_offset()));
        self.tell(|| News::Frame(&frame));
        self.changed.raise();
    }

    fn tell_missed(&self) {
        let missed = self.shared.missed(self.shard);
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

    fn close_what_is_gone(&self) {
        let closed = self.shared.segments_closed();
        if self.swept.replace(closed) != closed {
            self.reads.sweep();
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
