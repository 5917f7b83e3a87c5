//! A log: append, commit, read what is not sealed yet, roll, seal. It owns everything below it.
//!
//! It is a state machine that does no I/O after it was opened: [`Log::append`] stages,
//! [`Log::next_op`] says what to do next, [`Log::complete`] takes the outcome. How the operations are
//! done is the driver's business (see [`crate::op`]), and so is the time ([`Now`]).
//!
//! ```text
//! append -> staging -> frame -> Op::Write (several in flight) -> synced -> published, acknowledged
//!                        |
//!                        +-- does not fit the segment: roll
//!
//! roll:  frames in flight drain -> old segment synced -> Job::Roll (header, sync, name, sync of the
//!        directory) -> the next frame goes into the new segment; Job::Seal indexes the old one
//! ```
//!
//! Invariants:
//! 1. `start <= synced <= visible <= next`, and with `sync = commit` visible is synced.
//! 2. A frame is only written below the prepared end of its segment, up to which the size of the file and
//!    its blocks are durable, and only once the segment before is synced to its end.
//! 3. After a failed or short write or a failed sync nothing is handed out, acknowledged or published
//!    any more; what was visible stays readable.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{
    active_file::NewFile,
    clock::EventClock,
    config::LogConfig,
    frame::{Frame, Seed},
    group_commit::{CommitDepth, GroupCommit},
    io::Disk,
    offset::{Offset, Position},
    once::{Fingerprints, IdEntry, Ids, Producers},
    pace::FramesBegun,
    reader::{TopicCount, count_frames},
    reserve::ReserveRule,
    rules::Rules,
    segment::{FIRST_FRAME_POSITION, SegmentBegun, SegmentHeader, SegmentName, Tag},
    segment_set::{SealedSegment, SegmentSet},
    staging::Staging,
    state::LogState,
    topic::TopicNumber,
    topics::{TopicSummary, TopicTable},
    unsealed::{RecentFrames, Unsealed},
};
pub use crate::{
    active_file::WriteMode,
    append::Appended,
    clock::{ClockNotice, Now},
    group_commit::OpId,
    op::{Job, JobOutcome, JobThread, Op, OpOutcome},
};

mod appending;
mod compacting;
mod drive;
mod filling;
mod jobs;
mod keeping;
mod marking;
mod notice;
mod opening;
mod plan;
mod reserving;
mod resting;
mod scrubbing;
mod snapshots;

use appending::Novelty;
use compacting::Compaction;
pub use compacting::CompactionTotals;
use filling::Filling;
use jobs::{JobState, Jobs};
use keeping::Kept;
use marking::Marked;
pub use notice::{Notice, Poison};
pub use plan::{UnsealedPiece, UnsealedPlan, UnsealedRead};
pub use scrubbing::ScrubTotals;
use scrubbing::Scrubbing;
pub use snapshots::SnapshotTotals;
use snapshots::Snapshots;

/// The name of the file that is prepared to be the next segment. Found at a start, it is removed.
pub(crate) const NEXT_FILE_NAME: &str = "next.log.tmp";

/// One log, opened for appending.
pub struct Log<D: Disk> {
    disk: D,
    dir: PathBuf,
    /// Held until the log was closed and let go.
    lock: Option<D::Lock>,
    config: LogConfig,
    tag: Tag,
    /// Limits by count, bytes and age keep nothing before it; never goes back.
    keep_from: Offset,
    /// What they will keep nothing before once that is written down, and what was.
    kept: Kept,
    /// When limits are looked at again,
    retention_boot_ms: u64,
    /// and when topics, for whether they are over.
    expiry_boot_ms: u64,
    /// Since when what decides over events is not synced.
    rules_wait_since_boot_ms: Option<u64>,
    /// The last control event that is visible,
    last_control: Offset,
    /// and the last that set something for the log itself.
    last_log_setting: Offset,
    /// The topic that is looked at next for whether it is over, by number.
    expiry_from: u32,
    /// Whether it was said that one that is over cannot be deleted.
    is_expiry_refused: bool,
    /// What the next staged event gets.
    next: Offset,
    clock: EventClock,
    topics: TopicTable,
    /// Of all that is visible, and with what is staged where that may not happen twice.
    state: LogState,
    fingerprints: Fingerprints,
    /// Room for what ids say of an append.
    novelties: Vec<Novelty>,
    staging: Staging,
    commit: GroupCommit<InFlight>,
    depth: CommitDepth,
    frames_begun: FramesBegun,
    /// Whether what is staged has waited for a place in flight.
    has_waited: bool,
    /// Whether the driver tells when it is idle, and whether it has since the last frame.
    counts_on_idle: bool,
    is_idle: bool,
    segments: Arc<SegmentSet<D>>,
    /// Full ones, oldest first, and the active one.
    unsealed: VecDeque<Unsealed<D>>,
    tail: Tail<D>,
    filling: Filling,
    recent: RecentFrames,
    published: Vec<Arc<Frame>>,
    notices: Vec<Notice>,
    jobs: Jobs<D>,
    compaction: Compaction,
    /// Segments that are gone and still open.
    gone: Vec<Arc<SealedSegment<D>>>,
    /// The files that sealed segments were written through, while somebody still reads by them.
    written: Vec<(SegmentName, Weak<D::File>)>,
    scrubbing: Scrubbing<D>,
    snapshots: Snapshots,
    marked: Marked,
    reserve_rule: ReserveRule,
    /// Ids given out, and operations whose outcome is still to come.
    ops: u64,
    outstanding: usize,
    /// The largest synced offset that the header of a frame states.
    stated: Offset,
    last_append_boot_ms: u64,
    close: Close,
    /// Tells what works for long, and may be left undone, that the log closes.
    is_ending: Arc<AtomicBool>,
    poison: Option<Poison>,
}

/// A write that is under way.
struct InFlight {
    /// What it writes, one behind the other, each with the ids of its events that have one.
    frames: Vec<(Arc<Frame>, Vec<IdEntry>)>,
    /// Where the first of them begins.
    position: Position,
}

/// The end of the active segment, where frames are written.
struct Tail<D: Disk> {
    base: Offset,
    begun: SegmentBegun,
    seed: Seed,
    file: NewFile<D>,
    /// Where the next frame goes.
    end: Position,
    previous_checksum: u32,
    /// How many of the events that are visible in it are control events.
    controls: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Close {
    Open,
    /// No more appends; what is staged goes out.
    Draining,
    /// The frame that says so is on its way.
    Ending,
}

impl<D: Disk> Log<D> {
    /// Tells how long the thread that commits has been busy in all its life: on a busy one fewer frames
    /// are in flight at a time. Whoever does not tell has the usual two.
    pub fn note_busy(&mut self, busy_ms: u64, now: Now) {
        self.depth.note_time(now.boot_ms, busy_ms);
    }

    /// The driver will tell when the thread that commits has nothing else to do ([`Log::note_idle`]), as long
    /// as the log [is gathering](Log::is_gathering). Until then what is staged waits for the frame that is
    /// under way, and gathers, though more may be.
    pub fn count_on_idle(&mut self) {
        self.counts_on_idle = true;
    }

    /// Whether what is staged could begin as a frame, and waits for one that is under way only because more
    /// may come meanwhile.
    pub fn is_gathering(&self) -> bool {
        let in_flight = self.commit.in_flight();
        self.counts_on_idle
            && self.poison.is_none()
            && !self.staging.is_empty()
            && (1..self.depth.get()).contains(&in_flight)
            && !self.jobs.rolling
            && self.jobs.needed <= self.tail.file.prepared
    }

    /// The thread that commits has nothing else to do: to gather for longer would cost only time. It says
    /// nothing of what is staged later, when nothing [gathers](Log::is_gathering) now.
    pub fn note_idle(&mut self) {
        self.is_idle = self.is_gathering();
    }

    /// Whether the thread that commits has hardly a moment to spare, by what [`Log::note_busy`] told: then
    /// larger frames, and so fewer, shorten the wait for all. Not while the log is being closed.
    pub fn is_short_of_time(&self) -> bool {
        self.depth.get() == 1 && self.close == Close::Open
    }

    /// How many writes are on their way to the device.
    pub fn writes_in_flight(&self) -> usize {
        self.commit.in_flight()
    }

    /// The frames with events that became visible since the last call, in order.
    pub fn take_published(&mut self) -> Vec<Arc<Frame>> {
        std::mem::take(&mut self.published)
    }

    /// What an operator should know, since the last call.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Takes no more appends from now on; what is staged is committed, and then a frame that says
    /// that the log ended cleanly. Go on with [`Log::next_op`] until [`Log::is_closed`].
    pub fn begin_close(&mut self) {
        if self.close == Close::Open {
            self.close = Close::Draining;
            self.cancel_compaction();
            self.cancel_snapshot();
            self.frames_begun.end();
            if matches!(self.jobs.clear, JobState::Waiting { .. }) {
                self.jobs.clear = JobState::Idle;
            }
            self.keep_once_more();
            self.is_ending.store(true, Ordering::Relaxed);
        }
    }

    /// Whether [`Log::begin_close`] was called.
    pub fn is_closing(&self) -> bool {
        self.close != Close::Open
    }

    /// Whether nothing is under way and nothing more will be.
    pub fn is_closed(&self) -> bool {
        let ended = match self.close {
            Close::Open => false,
            Close::Draining | Close::Ending => {
                let is_written =
                    self.is_at_end() && self.is_reach_settled() && self.is_end_marked();
                self.poison.is_some() || (is_written && self.is_cleared())
            }
        };
        ended && self.outstanding == 0
    }

    /// Whether nothing more will be written to the log, and all that was is synced.
    fn is_at_end(&self) -> bool {
        match self.close {
            Close::Open => false,
            // A full disk has no place for the last frame: the next start recovers, as after a crash.
            Close::Draining => self.jobs.disk_full && self.commit.is_still(),
            Close::Ending => self.commit.is_clean(),
        }
    }

    /// Lets others open the directory, though this value may live on: once nothing is under way.
    pub fn release(&mut self) {
        assert!(self.is_closed(), "a log is closed before it is let go");
        self.lock = None;
    }

    /// The first offset that is kept.
    pub fn start(&self) -> Offset {
        self.keep_from.max(self.segments.start())
    }

    /// Every event below it is on the device.
    pub fn synced(&self) -> Offset {
        self.commit.synced_end()
    }

    /// Readers see every event below it, and none from it on.
    pub fn visible(&self) -> Offset {
        self.commit.visible_end()
    }

    /// What the next append gets.
    pub fn next(&self) -> Offset {
        self.next
    }

    /// The first offset that is in no sealed segment.
    pub fn unsealed_start(&self) -> Offset {
        self.unsealed.front().map_or(self.tail.base, |oldest| oldest.header.base_offset)
    }

    /// The name of this history of the log.
    pub fn tag(&self) -> &Tag {
        &self.tag
    }

    /// The segment that takes appends.
    pub fn active(&self) -> SegmentBegun {
        self.tail.begun
    }

    /// Why it takes no more writes, if so.
    pub fn poisoned(&self) -> Option<&Poison> {
        self.poison.as_ref()
    }

    /// Whether appends are refused until there is space on the disk.
    pub fn is_disk_full(&self) -> bool {
        self.jobs.disk_full
    }

    /// Its limits.
    pub fn config(&self) -> &LogConfig {
        &self.config
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How frames are written.
    pub fn write_mode(&self) -> WriteMode {
        self.tail.file.mode
    }

    /// The sealed segments; another set after each seal.
    pub fn segments(&self) -> &Arc<SegmentSet<D>> {
        &self.segments
    }

    /// Its topics, counting what is visible.
    pub fn topics(&self) -> &TopicTable {
        &self.topics
    }

    /// A topic is known to have so many events from `first` on: what [`Log::keeps_from`] says was
    /// counted.
    pub fn recount_topic(&mut self, summary: &TopicSummary) {
        self.topics.recount(summary.number, summary.count, summary.first);
    }

    /// The events of a topic at or behind `from` that are visible and not sealed; `None` if nobody knows
    /// without reading a frame.
    pub fn count_unsealed(&self, number: TopicNumber, from: Offset) -> Option<TopicCount> {
        let mut counted = TopicCount::default();
        for segment in self.unsealed.iter().filter(|segment| segment.end.end_offset > from) {
            let Some(summary) = segment.index.topic(number) else { continue };
            if summary.last_offset < from {
                continue;
            }
            if summary.first_offset >= from {
                let (count, first) = (summary.event_count, Some(summary.first_offset));
                counted.add(TopicCount { count, first });
                continue;
            }
            let frames = segment.index.topic_frames(number);
            let (here, straddling) = count_frames(&frames, summary.last_offset, from);
            if straddling.is_some() {
                return None;
            }
            counted.add(here);
        }
        Some(counted)
    }

    /// Nothing of a topic is left.
    pub fn clear_topic(&mut self, number: TopicNumber) {
        self.topics.clear(number);
    }

    /// The settings that hold, and what is gone.
    pub fn rules(&self) -> &Rules {
        &self.state.rules
    }

    /// The ids that are remembered.
    pub fn ids(&self) -> &Ids {
        &self.state.ids
    }

    /// How far producers have come.
    pub fn producers(&self) -> &Producers {
        &self.state.producers
    }

    /// How many encoded bytes are staged.
    pub fn staged_bytes(&self) -> usize {
        self.staging.staged_bytes()
    }

    /// Does all that there is to do, blocking, until nothing is left to do at this moment. For tools,
    /// and for drivers without io_uring.
    pub fn run_ops(&mut self, now: Now) {
        while let Some(op) = self.next_op(now) {
            let outcome = op.run(&self.disk);
            self.complete(outcome, now);
        }
    }
}

impl<D: Disk> Tail<D> {
    fn new(header: &SegmentHeader, file: NewFile<D>) -> Self {
        let seed = Seed::of(&header.incarnation);
        Tail {
            base: header.base_offset,
            begun: header.begun(),
            seed,
            file,
            end: FIRST_FRAME_POSITION,
            previous_checksum: seed.chain_start(),
            controls: 0,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
