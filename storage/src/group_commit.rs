//! Writes of frames on their way to the device, and the offsets that move when they arrive. Pure.
//!
//! ```text
//!              start()        written()              synced             take_visible()
//!   staging ------------> slots ------> contiguous ------------> ready ---------------> readers, acks
//!                       (any order)       prefix
//! ```
//!
//! What "synced" takes depends on how frames are written ([`Durability`]): a write with `O_DSYNC` is
//! synced when it completes; a buffered one when an `fdatasync` completes that was *handed out after*
//! the write had completed, since the kernel promises nothing for writes that it was still doing.
//!
//! Invariants:
//! 1. Only the contiguous prefix of completed writes counts. A frame behind a hole may be on the
//!    device and is yet not synced: recovery would cut at the hole.
//! 2. Frames become visible in the order in which they were started.
//! 3. `synced <= visible <= written <= submitted`; without [`Durability::Deferred`], visible is
//!    synced.

use std::{collections::VecDeque, fmt};

use crate::{
    mutation::{self, Mutation},
    offset::Offset,
};

/// Tells the outcome of an operation to the one who waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(u64);

impl OpId {
    /// The `number`th operation of a log since it was opened.
    pub const fn new(number: u64) -> Self {
        OpId(number)
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for OpId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// What makes a frame durable, and whether readers wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Each write is on the device when it completes.
    EachWrite,
    /// Writes end in the page cache; readers and acknowledgements wait for the sync that follows.
    FollowingSync,
    /// Writes end in the page cache, and that is enough for readers and acknowledgements. A sync
    /// follows within so many milliseconds, or when the segment ends.
    Deferred {
        /// `None`: the kernel writes back when it likes.
        interval_ms: Option<u64>,
    },
}

#[derive(Debug)]
struct Slot<W> {
    id: OpId,
    end: Offset,
    written: bool,
    write: W,
}

/// The frames of one log between staging and visible, a write of one or several at a time. `W` is whatever travels
/// with each write.
#[derive(Debug)]
pub struct GroupCommit<W> {
    durability: Durability,
    /// Started, in order; the first is not written yet, those behind it may be.
    slots: VecDeque<Slot<W>>,
    /// Written without a hole before them, but not yet taken as visible; with the end of each.
    ready: VecDeque<(Offset, W)>,
    /// How many writes were started, done (without a hole), synced and taken, ever.
    started: u64,
    written: u64,
    synced: u64,
    taken: u64,
    /// The same as offsets.
    submitted_end: Offset,
    written_end: Offset,
    synced_end: Offset,
    visible_end: Offset,
    /// The sync under way, and what it will have covered: `written` when it was handed out.
    sync: Option<(OpId, u64, Offset)>,
    /// When the first frame was written that no sync covers yet.
    dirty_since_boot_ms: Option<u64>,
}

impl<W> GroupCommit<W> {
    /// Nothing is under way, and all below `end` is synced.
    pub fn new(durability: Durability, end: Offset) -> Self {
        GroupCommit {
            durability,
            slots: VecDeque::new(),
            ready: VecDeque::new(),
            started: 0,
            written: 0,
            synced: 0,
            taken: 0,
            submitted_end: end,
            written_end: end,
            synced_end: end,
            visible_end: end,
            sync: None,
            dirty_since_boot_ms: None,
        }
    }

    /// How many writes are under way, for the limit on them: those whose
    /// acknowledgements still wait for the disk.
    pub fn in_flight(&self) -> usize {
        let done = match self.durability {
            Durability::EachWrite | Durability::Deferred { .. } => self.written,
            // Else every append would get a frame of its own while a sync is under way.
            Durability::FollowingSync => self.synced,
        };
        usize::try_from(self.started - done).expect("frames in flight fit in memory")
    }

    /// Whether no write and no sync is under way.
    pub fn is_still(&self) -> bool {
        self.slots.is_empty() && self.sync.is_none()
    }

    /// Whether all that was started is synced.
    pub fn is_clean(&self) -> bool {
        self.synced == self.started
    }

    /// A write whose last frame ends at `end` has been handed out as operation `id`.
    pub fn start(&mut self, id: OpId, end: Offset, write: W) {
        assert!(end >= self.submitted_end, "writes are started in offset order");
        self.submitted_end = end;
        self.started += 1;
        self.slots.push_back(Slot { id, end, written: false, write });
    }

    /// How many writes have not completed.
    pub fn writes_in_flight(&self) -> usize {
        self.slots.iter().filter(|slot| !slot.written).count()
    }

    /// What the write `id` writes.
    pub fn write(&self, id: OpId) -> &W {
        let slot = self.slots.iter().find(|slot| slot.id == id);
        &slot.expect("a write that is under way").write
    }

    /// The write `id` has completed, whole.
    pub fn write_done(&mut self, id: OpId, now_boot_ms: u64) {
        let slot = self.slots.iter_mut().find(|slot| slot.id == id);
        let slot = slot.expect("a write that completes was started, and completes once");
        assert!(!slot.written, "a write completes once");
        slot.written = true;
        while self.slots.front().is_some_and(|slot| slot.written) {
            let Some(slot) = self.slots.pop_front() else { break };
            self.written += 1;
            self.written_end = slot.end;
            self.ready.push_back((slot.end, slot.write));
            let is_synced = self.durability == Durability::EachWrite
                || mutation::is_planted(Mutation::AcknowledgeBeforeSync);
            if is_synced {
                self.synced = self.written;
                self.synced_end = self.written_end;
            } else {
                self.dirty_since_boot_ms.get_or_insert(now_boot_ms);
            }
        }
    }

    /// Whether a sync should be handed out now. `all` asks for one whatever the mode, as long as
    /// there is something to sync.
    pub fn wants_sync(&self, now_boot_ms: u64, all: bool) -> bool {
        if self.sync.is_some() || self.synced == self.written {
            return false;
        }
        match self.durability {
            Durability::EachWrite => false,
            Durability::FollowingSync => true,
            Durability::Deferred { .. } => {
                all || self.sync_due_boot_ms().is_some_and(|due_ms| due_ms <= now_boot_ms)
            }
        }
    }

    /// When the next sync is due by the interval.
    pub fn sync_due_boot_ms(&self) -> Option<u64> {
        let Durability::Deferred { interval_ms: Some(interval_ms) } = self.durability else {
            return None;
        };
        if self.sync.is_some() {
            return None;
        }
        self.dirty_since_boot_ms.map(|since_ms| since_ms.saturating_add(interval_ms))
    }

    /// Whether there is something to sync, and that is not under way.
    pub fn is_to_be_synced(&self) -> bool {
        self.dirty_since_boot_ms.is_some() && self.sync.is_none()
    }

    /// A sync has been handed out as operation `id`: it covers what was written by now.
    pub fn sync_started(&mut self, id: OpId) {
        assert!(self.sync.is_none(), "one sync at a time");
        self.sync = Some((id, self.written, self.written_end));
        self.dirty_since_boot_ms = None;
    }

    /// The sync under way is handed out once more: what a planted bug does.
    #[cfg(mutations)]
    pub(crate) fn retry_sync(&mut self) {
        self.sync = None;
    }

    /// The sync `id` has succeeded.
    pub fn sync_done(&mut self, id: OpId) {
        let (started, written, end) = self.sync.take().expect("a sync that completes was started");
        assert_eq!(started, id, "one sync at a time");
        self.synced = written;
        self.synced_end = end;
    }

    /// What was started and not taken as visible yet, in order.
    pub fn pending(&self) -> impl DoubleEndedIterator<Item = &W> {
        let ready = self.ready.iter().map(|(_, write)| write);
        ready.chain(self.slots.iter().map(|slot| &slot.write))
    }

    /// Takes the next write that has become visible.
    pub fn take_visible(&mut self) -> Option<W> {
        let visible = match self.durability {
            Durability::EachWrite | Durability::FollowingSync => self.synced,
            Durability::Deferred { .. } => self.written,
        };
        if self.taken == visible {
            return None;
        }
        let (end, write) = self.ready.pop_front().expect("what is visible has been written");
        self.taken += 1;
        self.visible_end = end;
        Some(write)
    }

    /// Every event below it is on the device.
    pub fn synced_end(&self) -> Offset {
        self.synced_end
    }

    /// Every event below it has been taken by [`GroupCommit::take_visible`].
    pub fn visible_end(&self) -> Offset {
        self.visible_end
    }

    /// The end of the last frame that was started.
    pub fn submitted_end(&self) -> Offset {
        self.submitted_end
    }
}

/// How many frames may be in flight: few, and more only while latency and not the processor is the
/// limit.
///
/// A commit costs processor time whatever is in it (about 20 us: the doorbell of the disk alone leaves
/// the virtual machine), so on a busy shard more frames in flight mean smaller frames and fewer events a
/// second. 256 publishers, one in flight each: 121k appends a second with 1, 112k with 2. On a shard
/// that has time, or before a slow device, more frames in flight shorten the wait for a place: 64
/// publishers: 79k with 1, 85k with 2. (Taken while the machine had other work; on a quiet one 64
/// publishers showed no clear difference.) So one is in flight while the thread has other work, and others
/// begin when it is about to idle, where the driver tells it (`Log::note_idle`): 64 publishers 119k appends a
/// second where two could always be, 133k with that (medians of four runs in turns). How many others, the rule decides:
/// every [`WINDOW_MS`] it looks how much of that time the thread was busy, whatever with:
///
/// ```text
/// busy < 50 %, and appends have waited for a place  ->  one more
/// busy < 80 %                                       ->  at least 2
/// busy > 70 %                                       ->  one fewer, down to 2
/// busy > 85 %                                       ->  one fewer, down to 1
/// ```
#[derive(Clone, Debug)]
pub struct CommitDepth {
    depth: usize,
    depth_max: usize,
    /// When the window began, and how long the thread had been busy by then; None until it was told.
    window: Option<(u64, u64)>,
    frames: u64,
    /// How many of the frames were started late: appends had waited for a place.
    late: u64,
}

/// The rule looks this often.
pub const WINDOW_MS: u64 = 50;

/// Where the rule begins.
const DEPTH_FIRST: usize = 2;

impl CommitDepth {
    /// Begins at 2, stays there unless it is told the time, and never goes beyond `depth_max`.
    pub fn new(depth_max: usize) -> Self {
        assert!(depth_max > 0, "at least one frame must be in flight");
        let depth = DEPTH_FIRST.min(depth_max);
        CommitDepth { depth, depth_max, window: None, frames: 0, late: 0 }
    }

    /// How many frames may be in flight now.
    pub fn get(&self) -> usize {
        self.depth
    }

    /// A frame was started; `late` says that its events had waited for a place.
    pub fn frame_started(&mut self, late: bool) {
        self.frames += 1;
        self.late += u64::from(late);
    }

    /// By the boot clock it is `now_boot_ms`, and the thread that commits has been busy for `busy_ms` in
    /// all its life.
    pub fn note_time(&mut self, now_boot_ms: u64, busy_ms: u64) {
        if let Some((began_boot_ms, busy_before_ms)) = self.window {
            let window_ms = now_boot_ms.saturating_sub(began_boot_ms);
            if window_ms < WINDOW_MS {
                return;
            }
            self.decide(busy_ms.saturating_sub(busy_before_ms) * 100 / window_ms);
        }
        self.window = Some((now_boot_ms, busy_ms));
        (self.frames, self.late) = (0, 0);
    }

    fn decide(&mut self, busy_percent: u64) {
        let depth = match busy_percent {
            0..50 if self.late * 2 > self.frames => self.depth + 1,
            0..80 if self.depth < DEPTH_FIRST => DEPTH_FIRST,
            0..70 => self.depth,
            70..=85 if self.depth > DEPTH_FIRST => self.depth - 1,
            70..=85 => self.depth,
            _ => self.depth - 1,
        };
        self.depth = depth.clamp(1, self.depth_max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(durability: Durability) -> GroupCommit<char> {
        GroupCommit::new(durability, Offset::new(10))
    }

    fn id(number: u64) -> OpId {
        OpId::new(number)
    }

    fn drain(commit: &mut GroupCommit<char>) -> String {
        std::iter::from_fn(|| commit.take_visible()).collect()
    }

    /// Starts frames a, b and c of one event each, as operations 1, 2 and 3.
    fn start_three(commit: &mut GroupCommit<char>) {
        for (number, frame) in (1..).zip(['a', 'b', 'c']) {
            commit.start(id(number), Offset::new(10 + number), frame);
        }
    }

    #[test]
    fn only_the_contiguous_prefix_is_synced() {
        let mut commit = commit(Durability::EachWrite);
        start_three(&mut commit);
        assert_eq!(commit.in_flight(), 3);
        commit.write_done(id(3), 0);
        commit.write_done(id(2), 0);
        assert_eq!((drain(&mut commit).as_str(), commit.synced_end()), ("", Offset::new(10)));
        assert_eq!(commit.in_flight(), 3, "a hole keeps those behind it in flight");
        commit.write_done(id(1), 0);
        assert_eq!(commit.synced_end(), Offset::new(13));
        assert_eq!((drain(&mut commit).as_str(), commit.visible_end()), ("abc", Offset::new(13)));
        assert!(commit.is_still() && commit.is_clean());
        assert!(!commit.wants_sync(0, true));
    }

    #[test]
    fn a_sync_covers_only_what_was_written_before_it_was_handed_out() {
        let mut commit = commit(Durability::FollowingSync);
        start_three(&mut commit);
        commit.write_done(id(1), 0);
        assert!(commit.wants_sync(0, false));
        commit.sync_started(id(4));
        commit.write_done(id(2), 0);
        commit.write_done(id(3), 0);
        assert!(!commit.wants_sync(0, true), "one at a time");
        assert_eq!(drain(&mut commit), "");
        commit.sync_done(id(4));
        assert_eq!((drain(&mut commit).as_str(), commit.synced_end()), ("a", Offset::new(11)));
        assert_eq!(commit.in_flight(), 2, "b and c are written, but wait for the next sync");
        commit.sync_started(id(5));
        commit.sync_done(id(5));
        assert_eq!((drain(&mut commit).as_str(), commit.synced_end()), ("bc", Offset::new(13)));
        assert!(commit.is_clean());
    }

    #[test]
    fn deferred_syncs_let_visible_run_ahead() {
        let mut commit = commit(Durability::Deferred { interval_ms: Some(50) });
        start_three(&mut commit);
        commit.write_done(id(1), 1_000);
        commit.write_done(id(3), 1_010);
        assert_eq!(drain(&mut commit), "a");
        assert_eq!((commit.visible_end(), commit.synced_end()), (Offset::new(11), Offset::new(10)));
        assert_eq!(commit.sync_due_boot_ms(), Some(1_050));
        assert!(!commit.wants_sync(1_049, false) && commit.wants_sync(1_049, true));
        assert!(commit.wants_sync(1_050, false));
        commit.sync_started(id(4));
        commit.write_done(id(2), 1_060);
        commit.sync_done(id(4));
        assert_eq!(commit.synced_end(), Offset::new(11));
        assert_eq!((drain(&mut commit).as_str(), commit.visible_end()), ("bc", Offset::new(13)));
        assert_eq!(commit.sync_due_boot_ms(), Some(1_110));
    }

    #[test]
    fn never_means_at_the_end_of_the_segment() {
        let mut commit = commit(Durability::Deferred { interval_ms: None });
        start_three(&mut commit);
        commit.write_done(id(1), 0);
        assert_eq!(commit.sync_due_boot_ms(), None);
        assert!(!commit.wants_sync(u64::MAX, false) && commit.wants_sync(0, true));
    }

    /// Runs the rule for `windows`, each busy for so many percent.
    fn run(depth: &mut CommitDepth, windows: u64, busy_percent: u64, late: bool) -> usize {
        let (mut now_ms, mut busy_ms) = depth.window.unwrap_or_default();
        for _ in 0..windows {
            for _ in 0..10 {
                depth.frame_started(late);
            }
            now_ms += WINDOW_MS;
            busy_ms += WINDOW_MS * busy_percent / 100;
            depth.note_time(now_ms, busy_ms);
        }
        depth.get()
    }

    #[test]
    fn depth_grows_only_while_the_processor_idles_and_appends_wait() {
        let run = |busy_percent, late| run(&mut CommitDepth::new(8), 20, busy_percent, late);
        assert_eq!(run(100, true), 1, "the processor is the limit");
        assert_eq!(run(75, true), 2, "it has some time left");
        assert_eq!(run(10, true), 8, "the device is the limit");
        assert_eq!(run(10, false), 2, "nobody waits");
        assert_eq!(CommitDepth::new(1).get(), 1);
    }

    #[test]
    fn depth_follows_the_load() {
        let mut depth = CommitDepth::new(8);
        assert_eq!(run(&mut depth, 1, 0, true), 2, "the first look begins a window");
        assert_eq!(run(&mut depth, 9, 10, true), 8);
        assert_eq!(run(&mut depth, 9, 80, true), 2);
        assert_eq!(run(&mut depth, 9, 95, true), 1);
        assert_eq!(run(&mut depth, 9, 80, true), 1, "it does not swing to and fro");
        assert_eq!(run(&mut depth, 1, 60, false), 2);
        let now_ms = depth.window.expect("it was told the time").0;
        depth.note_time(now_ms + WINDOW_MS - 1, u64::MAX);
        assert_eq!(depth.get(), 2, "the window is not over");
    }
}
