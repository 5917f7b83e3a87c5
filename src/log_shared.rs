//! What all shards know of a log without asking: a few atomics and one list, into which its owner alone
//! stores.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use arc_swap::{ArcSwap, Guard};
use strandline_storage::{
    config::SyncMode,
    io::real::RealDisk,
    log::{Log, WriteMode},
    mutation::{self, Mutation},
    offset::Offset,
    once::IdWindow,
    rules::Floors,
    segment::Tag,
    segment_set::SegmentSet,
};

use crate::metrics::LogMetrics;

/// What all shards know of a log. Only its owner stores into it.
pub struct LogShared {
    tag: Tag,
    sync: SyncMode,
    write_mode: WriteMode,
    id_window: IdWindow,
    /// One for each shard, each on cache lines of its own.
    views: Box<[ShardView]>,
    synced: AtomicU64,
    earliest: AtomicU64,
    segments: ArcSwap<SegmentSet<RealDisk>>,
    floors: ArcSwap<Floors>,
    poisoned: OnceLock<String>,
    disk_full: AtomicBool,
    closed: AtomicBool,
    /// How many segments that are gone were closed.
    segments_closed: AtomicU64,
    metrics: LogMetrics,
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
    /// How long the ids of events are remembered.
    pub id_window: IdWindow,
    /// The first offset that readers do not see.
    pub visible: Offset,
    /// The first offset that may not be on the device.
    pub synced: Offset,
    /// The first offset still kept.
    pub earliest: Offset,
    /// The sealed segments.
    pub segments: Arc<SegmentSet<RealDisk>>,
    /// Which events were deleted.
    pub floors: Arc<Floors>,
}

impl LogFacts {
    /// What a log says of itself now.
    pub fn of(log: &Log<RealDisk>) -> Self {
        LogFacts {
            tag: *log.tag(),
            sync: log.config().sync,
            write_mode: log.write_mode(),
            id_window: log.config().id_window(),
            visible: log.visible(),
            synced: log.synced(),
            earliest: log.start(),
            segments: log.segments().clone(),
            floors: log.rules().floors().clone(),
        }
    }
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
            id_window: facts.id_window,
            views: (0..shards).map(view).collect(),
            synced: AtomicU64::new(facts.synced.get()),
            earliest: AtomicU64::new(facts.earliest.get()),
            segments: ArcSwap::new(facts.segments),
            floors: ArcSwap::new(facts.floors),
            poisoned: OnceLock::new(),
            disk_full: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            segments_closed: AtomicU64::new(0),
            metrics: LogMetrics::default(),
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

    /// How long the ids of events are remembered.
    pub fn id_window(&self) -> IdWindow {
        self.id_window
    }

    /// The first offset that readers on `shard` do not see.
    pub fn visible(&self, shard: usize) -> Offset {
        Offset::new(self.views[shard].visible.load(Ordering::Acquire))
    }

    /// The end of the last frame whose news found the mailbox of `shard` full.
    pub fn missed(&self, shard: usize) -> Offset {
        Offset::new(self.views[shard].missed.load(Ordering::Acquire))
    }

    /// The first offset that may not be on the device.
    pub fn synced(&self) -> Offset {
        Offset::new(self.synced.load(Ordering::Acquire))
    }

    /// The first offset still kept.
    pub fn earliest(&self) -> Offset {
        Offset::new(self.earliest.load(Ordering::Acquire))
    }

    /// The sealed segments.
    pub fn segments(&self) -> Arc<SegmentSet<RealDisk>> {
        self.segments.load_full()
    }

    /// The sealed segments, if they are others than `known`: that they are the same costs next to nothing.
    pub fn segments_since(
        &self,
        known: &Arc<SegmentSet<RealDisk>>,
    ) -> Option<Arc<SegmentSet<RealDisk>>> {
        let segments = self.segments.load();
        (!Arc::ptr_eq(&segments, known)).then(|| Guard::into_inner(segments))
    }

    /// Which events were deleted or trimmed.
    pub fn floors(&self) -> Arc<Floors> {
        self.floors.load_full()
    }

    /// Why the log takes no more writes, if it does not.
    pub fn poisoned(&self) -> Option<&str> {
        self.poisoned.get().map(String::as_str)
    }

    /// Whether the log was closed.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Whether appends are refused until the disk has space.
    pub fn is_disk_full(&self) -> bool {
        self.disk_full.load(Ordering::Acquire)
    }

    /// How many segments that are gone were closed: nobody reads them any more.
    pub fn segments_closed(&self) -> u64 {
        self.segments_closed.load(Ordering::Acquire)
    }

    /// What the owner has counted. It alone adds.
    pub fn metrics(&self) -> &LogMetrics {
        &self.metrics
    }

    /// By the owner, before any acknowledgement or push: every shard sees events up to `visible`.
    ///
    /// `synced` is stored first, and each with `Release`: who reads with `Acquire` that something is visible also sees what
    /// the owner had stored before: how far the log is synced, and what [`LogShared::store_kept`] told.
    pub(crate) fn store_visible(&self, visible: Offset, synced: Offset) {
        self.synced.store(synced.get(), Ordering::Release);
        let is_one = mutation::is_planted(Mutation::VisibleToOneShard);
        for view in self.views.iter().take(if is_one { 1 } else { self.views.len() }) {
            view.visible.store(visible.get(), Ordering::Release);
        }
    }

    /// By the owner: a frame that ends here did not fit into the mailbox of `shard`.
    pub(crate) fn store_missed(&self, shard: usize, end: Offset) {
        self.views[shard].missed.store(end.get(), Ordering::Release);
    }

    /// By the owner, when a segment was sealed or retired, or events have gone; before
    /// [`LogShared::store_visible`] tells of what made them go.
    pub(crate) fn store_kept(
        &self,
        segments: &Arc<SegmentSet<RealDisk>>,
        floors: &Arc<Floors>,
        earliest: Offset,
    ) {
        // Who sees a segment gone also sees that it was meant to go. (`Relaxed`: nobody but the owner stores into it, and that
        // is who reads it here.)
        if earliest.get() != self.earliest.load(Ordering::Relaxed) {
            self.earliest.store(earliest.get(), Ordering::Release);
        }
        let (known_floors, known_segments) = (self.floors.load(), self.segments.load());
        let are_new = !Arc::ptr_eq(&known_segments, segments);
        // Who sees that segments alone decide up to somewhere sees those that do.
        let are_first = floors.latest() == known_floors.latest();
        if are_new && are_first {
            self.segments.store(segments.clone());
        }
        if !Arc::ptr_eq(&known_floors, floors) {
            self.floors.store(floors.clone());
        }
        if are_new && !are_first {
            self.segments.store(segments.clone());
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

    /// By the owner: a segment that is gone was closed. (`Release`: who sees the count also sees that its
    /// files were let go, which a sweep looks for.)
    pub(crate) fn store_segment_closed(&self) {
        self.segments_closed.fetch_add(1, Ordering::Release);
    }

    /// By the owner: the log was closed.
    pub(crate) fn store_closed(&self) {
        self.closed.store(true, Ordering::Release);
    }
}
