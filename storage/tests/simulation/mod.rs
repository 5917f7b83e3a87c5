//! Drives a log over a simulated disk as a shard would, but with each operation completing when the
//! test says so, and compares it with a model at every step.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use strandline_storage::{
    active_file::{Fill, NewFile},
    append::{Append, ExpectedOffset, OffsetScope},
    compact::CompactOutcome,
    config::{LogConfig, SyncMode},
    end_mark::{self, END_MARK_FILE_NAME},
    error::{AppendError, Corruption, OpenError},
    event::NewEvent,
    io::sim::{PendingSync, PendingWrite, SimDisk, rng::SimRng},
    log::{Job, JobOutcome, Log, Notice, Now, Op, OpId, OpOutcome},
    offset::Offset,
    segment::SegmentName,
};

pub mod beside;
pub mod controls;
mod expiry;
mod in_use;
pub mod limits;
pub mod model;
pub mod once;
mod read;
mod reading;
pub mod shrink;
mod tally;

use expiry::read_deletions;
use model::Model;
pub use reading::read_offsets;
pub use tally::{Tally, is_row};

/// Where the log lives.
pub const DIR: &str = "/log";

/// For how long events are kept. Some are what passes at once, so that there are events of exactly that age.
pub const AGES_S: [u64; 4] = [1, 5, 90, 3_600];

/// When the first test begins: a day in 2026.
pub const BEGIN: Now = Now { wall_ms: 1_800_000_000_000, boot_ms: 1_000_000 };

/// An operation that the log asked for and that is not complete.
pub enum Pending {
    Write { id: OpId, len: usize, is_row: bool, write: PendingWrite },
    Sync { id: OpId, sync: PendingSync },
    Job { id: OpId, job: Job<SimDisk> },
}

/// A process that has the log open.
pub struct Process {
    pub disk: SimDisk,
    pub log: Log<SimDisk>,
    /// Under way, in no order.
    pub pending: Vec<Pending>,
    /// Behind the last event that was published.
    published: usize,
    /// Where each frame begins that was.
    frames: Vec<usize>,
    /// What the file, or the next one, was last filled with.
    pub fill: Fill,
    /// Whether readers see what is not synced: what they are told is gone of it is written down later.
    shows_early: bool,
    /// Whether writing that down has failed, or the stub of a segment was not synced: it was told all the same.
    has_keep_failed: bool,
    /// The segments that were said to be damaged.
    pub damaged: HashSet<SegmentName>,
    /// The snapshots of which that was said.
    pub damaged_snapshots: HashSet<PathBuf>,
}

/// Whether a start that found this end has written its end mark: a full disk may go on with the old one.
fn is_marked(disk: &SimDisk, end: Offset) -> bool {
    let bytes = disk.bytes(&Path::new(DIR).join(END_MARK_FILE_NAME)).unwrap_or_default();
    end_mark::Latest::decode(&bytes).is_ok_and(|latest| latest.mark.active == end)
}

impl Process {
    /// Opens the log and compares what it shows with what may have survived.
    pub fn open(
        disk: &SimDisk,
        config: LogConfig,
        now: Now,
        model: &mut Model,
    ) -> Result<Process, OpenError> {
        let shows_early = config.sync != SyncMode::Commit;
        // An open that fails half-way may have sealed the last segment, or begun one in this mode.
        let tag_may_change = model.tag_may_change;
        model.tag_may_change |= shows_early || model.showed_early;
        // A start makes that anew.
        let is_mark_rotten = model.is_mark_rotten(disk);
        let are_steps_rotten = model.are_steps_rotten(disk);
        let (log, report) = Log::open(disk.clone(), Path::new(DIR), config, now)?;
        assert_eq!(log.tag(), &report.tag);
        model.check_report(&report, disk.is_crashed());
        model.note_mended(disk);
        let visible = to_usize(log.visible());
        model.tag_may_change = tag_may_change;
        model.recovered(visible, log.tag().as_str());
        read_deletions(&log, model);
        if are_steps_rotten {
            model.in_use.forget_starts();
        }
        model.begins(now, is_marked(disk, log.visible()));
        let start = to_usize(log.start());
        model.check_start(start);
        assert!(
            start >= model.start,
            "kept from {start} on, after nothing before {} was",
            model.start
        );
        model.start = start;
        (model.tag_may_change, model.showed_early) = (shows_early, shows_early);
        let mut process = Process {
            disk: disk.clone(),
            log,
            pending: Vec::new(),
            published: visible,
            frames: Vec::new(),
            fill: Fill::Zeroes,
            shows_early,
            has_keep_failed: false,
            damaged: HashSet::new(),
            damaged_snapshots: HashSet::new(),
        };
        process.hear_damaged_mark(is_mark_rotten, are_steps_rotten);
        assert_eq!(process.log.next(), process.log.visible(), "nothing is staged");
        assert_eq!(process.log.synced(), process.log.visible(), "all that is read is synced");
        Ok(process)
    }

    /// Appends a batch that fits.
    pub fn append(&mut self, rng: &mut SimRng, model: &mut Model, now: Now) {
        model.passes(now);
        if rng.chance(10) {
            return self.retry(rng, model, now);
        }
        if rng.chance(10) {
            return self.produce(rng, model, now);
        }
        if rng.chance(10) {
            return self.append_expecting(rng, model, now);
        }
        self.append_new(rng, model, now);
    }

    /// Appends a batch of events that are not there yet.
    pub fn append_new(&mut self, rng: &mut SimRng, model: &mut Model, now: Now) {
        let batch = model.new_batch(rng, self.log.config().event_bytes_max);
        self.append_batch(batch, model, now);
    }

    /// Appends these events, which are not there yet.
    pub fn append_batch(&mut self, batch: Vec<NewEvent>, model: &mut Model, now: Now) {
        model.passes(now);
        let expected = model.events.len();
        // It may be refused: the queue is full, the log is poisoned or closing.
        if let Ok(appended) = self.log.append(batch.clone(), now) {
            assert_eq!(to_usize(appended.first), expected, "offsets are in a row");
            assert_eq!(to_usize(appended.wait), expected + batch.len());
            assert_eq!(appended.duplicates, 0);
            let earlier_ms = model.events.last().map_or(0, |kept| kept.time_ms);
            assert!(appended.time_ms >= earlier_ms, "time goes on");
            assert!(self.log.poisoned().is_none(), "a poisoned log takes nothing");
            model.append(batch, appended.time_ms);
        }
    }

    /// Appends to a topic if the next offset of it, or of the log, is as expected: it may not be.
    fn append_expecting(&mut self, rng: &mut SimRng, model: &mut Model, now: Now) {
        let mut events = model.new_batch(rng, self.log.config().event_bytes_max);
        let topic = events[0].topic.clone();
        events.iter_mut().for_each(|event| event.topic = topic.clone());
        let (scope, next) = match rng.chance(70) {
            true => (OffsetScope::Topic, model.next_of(topic.as_str())),
            false => (OffsetScope::Log, model.events.len() as u64),
        };
        let is_forgotten = scope == OffsetScope::Topic
            && next.checked_sub(1).is_some_and(|last| {
                model.has_forgotten(to_usize(Offset::new(last)), |forgotten| forgotten.last_offsets)
            });
        let offset = *rng.pick(&[next, next, next.saturating_sub(1), next + 1, 0]);
        let expected = Some(ExpectedOffset { offset, scope });
        let append = Append { events: events.clone(), expected, producer: None };
        match self.log.append(append, now) {
            Ok(appended) => {
                let is_right = offset == next || is_forgotten;
                assert!(is_right, "{offset} was expected, and {scope:?} had {next}");
                assert_eq!(to_usize(appended.first), model.events.len());
                model.append(events, appended.time_ms);
            }
            Err(AppendError::Unexpected { expected_offset, .. }) if is_forgotten => {
                assert!(expected_offset <= next, "it has gone on to {expected_offset}");
            }
            Err(AppendError::Unexpected { expected_offset, given_offset }) => {
                assert_eq!((expected_offset, given_offset), (next, offset), "{scope:?}");
                assert_ne!(offset, next);
            }
            Err(_) => {}
        }
    }

    /// Starts what the log wants to be done.
    pub fn start_ops(&mut self, model: &mut Model, now: Now) {
        loop {
            let op = self.log.next_op(now);
            self.note_deletion(model);
            let Some(op) = op else { return };
            self.pending.push(match op {
                Op::Write { id, file, buffer, position } => {
                    let (len, is_row) = (buffer.len(), is_row(buffer.as_slice()));
                    Pending::Write { id, len, is_row, write: file.begin_write(buffer, position) }
                }
                Op::Sync { id, file } => Pending::Sync { id, sync: file.begin_sync() },
                Op::Job { id, job } => Pending::Job { id, job },
            });
        }
    }

    /// Completes the `index`-th of the operations under way.
    pub fn complete(&mut self, index: usize, model: &mut Model, now: Now) {
        let mut failed = false;
        let outcome = match self.pending.swap_remove(index) {
            Pending::Write { id, len, is_row, write } => {
                let result = write.complete();
                failed = result.as_ref().ok() != Some(&len);
                model.tally.rows += u64::from(is_row && !failed);
                OpOutcome::Write { id, result }
            }
            Pending::Sync { id, sync } => {
                let result = sync.complete();
                failed = result.is_err();
                OpOutcome::Sync { id, result }
            }
            Pending::Job { id, job } => {
                let outcome = job.run(&self.disk);
                if let JobOutcome::Extended(Ok((_, fill)))
                | JobOutcome::Prepared(Ok(NewFile { fill, .. })) = &outcome
                {
                    let before = std::mem::replace(&mut self.fill, *fill);
                    // At rest there are only zeroes, which nobody chose.
                    let is_choice = self.log.config().preallocate_rest_bytes_max == 0;
                    let is_back = is_choice && (before, *fill) == (Fill::Blocks, Fill::Zeroes);
                    model.tally.back_to_zeroes += u64::from(is_back);
                }
                self.has_keep_failed |= match &outcome {
                    JobOutcome::Kept { result, .. } => result.is_err(),
                    // Its stub counts for this process, and may not be on the device.
                    JobOutcome::Compacted(Ok(CompactOutcome::Retired { left, .. })) => {
                        left.is_some()
                    }
                    _ => false,
                };
                OpOutcome::Job { id, outcome }
            }
        };
        let synced = self.log.synced();
        model.passes(now);
        self.log.complete(outcome, now);
        if failed {
            assert!(self.log.poisoned().is_some(), "a failed write or sync poisons the log");
            assert_eq!(self.log.synced(), synced, "and syncs nothing");
        }
        self.hear_notices(model);
        self.observe(model);
    }

    /// Damage is said once of each segment in which there is some, and not taken back as long as it is there.
    fn hear_notices(&mut self, model: &Model) {
        let is_crashed = self.disk.is_crashed();
        for notice in self.log.take_notices() {
            match notice {
                Notice::Damaged { name, reason } => {
                    let is_rotten = model.is_rotten(name) || model.rotten_index(name).is_some();
                    let is_true = is_rotten || model.may_misread || is_crashed;
                    assert!(is_true, "nothing is wrong with {name:?}, but: {reason}");
                    assert!(self.damaged.insert(name), "{name:?} is said to be damaged twice");
                }
                Notice::SoundAgain { name } => {
                    assert!(self.damaged.remove(&name), "nobody said that {name:?} was damaged");
                    let is_rotten = model.is_rotten(name) || model.rotten_index(name).is_some();
                    assert!(!is_rotten, "{name:?} is still rotten");
                }
                Notice::SnapshotDamaged(Corruption { file, what, .. }) => {
                    let is_true = model.is_rotten_file(&file) || model.may_misread || is_crashed;
                    assert!(is_true, "nothing is wrong with {}, but: {what}", file.display());
                    self.damaged_snapshots.insert(file);
                }
                Notice::EndMarkDamaged(damage) => panic!("a start made it anew, but: {damage}"),
                _ => {}
            }
        }
    }

    /// A start tells of an end mark that says nothing, and of no other.
    fn hear_damaged_mark(&mut self, is_rotten: bool, are_steps_rotten: bool) {
        let is_mark = |notice: &Notice| matches!(notice, Notice::EndMarkDamaged(_));
        let is_steps = |notice: &Notice| matches!(notice, Notice::StepsDamaged(_));
        let notices = self.log.take_notices();
        assert_eq!(notices.iter().any(is_mark), is_rotten, "{notices:?}");
        assert_eq!(notices.iter().any(is_steps), are_steps_rotten, "{notices:?}");
    }

    /// Starts and completes operations until none is left.
    pub fn settle(&mut self, rng: &mut SimRng, model: &mut Model, now: Now) {
        self.start_ops(model, now);
        while !self.pending.is_empty() && !self.disk.is_crashed() {
            self.complete(rng.index(self.pending.len()), model, now);
            self.start_ops(model, now);
        }
        self.note_start(model);
    }

    /// Appends where nothing keeps it from going through any more, nor what was acknowledged before.
    pub fn append_taken(&mut self, rng: &mut SimRng, model: &mut Model, mut now: Now) {
        // What found no space, or failed, is tried again later.
        for _ in 0..20 {
            let Some(deadline_ms) = self.log.deadline().filter(|_| self.log.is_disk_full()) else {
                break;
            };
            now.boot_ms = now.boot_ms.max(deadline_ms);
            self.settle(rng, model, now);
        }
        let before = model.events.len();
        self.append_new(rng, model, now);
        let (is_full, poisoned) = (self.log.is_disk_full(), self.log.poisoned());
        let is_taken = model.events.len() > before;
        assert!(is_taken, "an append is refused; full disk: {is_full}, poisoned: {poisoned:?}");
        self.settle(rng, model, now);
        assert_eq!(self.log.visible(), self.log.next(), "an append goes through");
    }

    /// With nothing under way it is written down what readers were told is gone, as far as that is synced, and so is
    /// the setting that has let it go.
    fn note_start(&self, model: &mut Model) {
        let synced = to_usize(self.log.synced());
        let is_whole = self.pending.is_empty() && !self.disk.is_crashed();
        let is_sound = self.log.poisoned().is_none() && !self.has_keep_failed;
        if is_whole && is_sound && model.is_setting_synced(synced) {
            model.start = model.start.max(to_usize(self.log.start()).min(synced));
        }
    }

    /// Closes the log; all that was appended is safe if that succeeds. Tells whether it did.
    pub fn close(mut self, rng: &mut SimRng, model: &mut Model, mut now: Now) -> bool {
        self.log.begin_close();
        self.settle(rng, model, now);
        // What found no space, or failed, is tried again later.
        for _ in 0..20 {
            let Some(deadline_ms) = self.log.deadline().filter(|_| !self.log.is_closed()) else {
                break;
            };
            now.boot_ms = now.boot_ms.max(deadline_ms);
            self.settle(rng, model, now);
        }
        if self.disk.is_crashed() {
            return false;
        }
        assert!(self.log.is_closed(), "nothing is under way, and the log does not end");
        let whole = self.log.poisoned().is_none() && !self.log.is_disk_full();
        if whole {
            assert_eq!(to_usize(self.log.synced()), model.events.len(), "a close commits all");
            model.tag_may_change = false;
        }
        whole
    }

    /// Checks what holds at every moment, and notes what nobody may take back from here on.
    fn observe(&mut self, model: &mut Model) {
        let Process { log, published, frames, .. } = self;
        assert!(log.start() <= log.visible() && log.synced() <= log.visible());
        assert!(log.visible() <= log.next());
        assert_eq!(to_usize(log.next()), model.events.len(), "what was staged keeps its offset");
        for frame in log.take_published() {
            assert_eq!(to_usize(frame.base_offset()), *published, "frames are in order");
            for event in frame.events() {
                model.read_deletion(&event);
                model.check_event(&event);
            }
            frames.push(*published);
            *published = to_usize(frame.end_offset());
        }
        assert_eq!(to_usize(log.visible()), *published, "what is visible was published");
        assert!(to_usize(log.synced()) >= model.safe, "synced goes on");
        assert!(*published >= model.seen, "visible goes on");
        if log.config().sync == SyncMode::Commit {
            assert_eq!(log.synced(), log.visible(), "readers see only what no crash can take");
        }
        // What was looked at before this goes by what was visible then.
        model.check_start(to_usize(log.start()));
        if !self.shows_early && !self.has_keep_failed {
            assert!(to_usize(log.start()) >= model.start, "what is gone stays gone");
            model.start = to_usize(log.start());
        }
        model.safe = to_usize(log.synced());
        model.seen = *published;
        model.look_at_limits();
    }

    /// Limits were looked at a moment ago, and all that follows is done: compares what is gone with what must be.
    pub fn check_gone(&self, model: &mut Model, now: Now) {
        let is_whole = self.pending.is_empty() && !self.disk.is_crashed();
        if !is_whole || self.log.poisoned().is_some() || self.has_keep_failed {
            return;
        }
        let unsealed = to_usize(self.log.unsealed_start());
        let edge = |offset| {
            let sealed = self.log.segments().iter().map(|segment| to_usize(segment.base()));
            let sealed = sealed.take_while(|base| *base <= offset).last();
            if offset < unsealed {
                return sealed.unwrap_or(0);
            }
            let frame = self.frames.partition_point(|base| *base <= offset).checked_sub(2);
            frame.map_or(unsealed, |frame| self.frames[frame].max(unsealed))
        };
        model.looked(now);
        model.check_gone(to_usize(self.log.start()), now, edge);
        if !self.log.is_disk_full() {
            model.check_over(to_usize(self.log.start()), now);
        }
    }
}

pub fn to_usize(offset: Offset) -> usize {
    usize::try_from(offset.get()).expect("small")
}

/// A number that the environment gives, to repeat one run or to have more of them.
pub fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} of {text:?} is no number")))
}
