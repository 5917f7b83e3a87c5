//! The jobs of a log: what of a segment's life blocks, when each step is due, and what follows.
//!
//! ```text
//! extend: zeroes or blocks ahead of the tail (filling.rs),
//!         most of the zeroes at rest;
//!         before it, the reserve
//!         (reserving.rs)                    prepare: the next segment's file, half a segment ahead
//! roll:   that file becomes the segment     seal:    the full one gets its index
//! keep:   how far limits have reached is written down (keeping.rs)
//! mark:   how far all is synced is written down outside of the segments (marking.rs)
//! retire: a sealed one whose events are gone goes (keeping.rs)
//! compact: another is rewritten without its dead events (compacting.rs)
//! clear:  what that could not remove goes (compacting.rs)
//! snapshot: the state at the end of the sealed part is written down (snapshots.rs)
//! ```

use std::{io, sync::Arc};

use super::{
    Close, Log, NEXT_FILE_NAME, Notice, Now, Tail, resting::Further, scrubbing::SCRUB_FIRST_MS,
};
use crate::{
    active_file::{ExtendJob, Fill, Headway, NewFile, PrepareJob, RollJob, WriteMode},
    config::LogConfig,
    error::OpenError,
    frame::FRAME_ALIGN_BYTES,
    io::{Disk, is_full, is_passing},
    mutation::{self, Mutation},
    offset::Position,
    op::{Job, JobOutcome, Op},
    pace::Pace,
    seal::{SealJob, SealOutcome},
    segment::{FIRST_FRAME_POSITION, Incarnation, SEGMENT_VERSION, SegmentHeader, SegmentName},
    unsealed::Unsealed,
};

/// A job that failed for want of space is tried again so often.
const DISK_FULL_RETRY_MS: u64 = 1_000;
/// A seal that failed is tried again so often: it writes the whole index anew.
const SEAL_RETRY_MS: u64 = 10_000;
/// While more full segments wait behind one, its index is made at usual priority and without rests: each takes memory
/// until it has its own, and is scanned after a crash.
const SEALS_BEHIND_MAX: usize = 2;

/// The jobs: at most one of each kind is under way.
pub(super) struct Jobs<D: Disk> {
    pub(super) extend: JobState,
    pub(super) prepare: JobState,
    pub(super) roll: JobState,
    pub(super) mark: JobState,
    pub(super) seal: JobState,
    pub(super) keep: JobState,
    pub(super) retire: JobState,
    pub(super) compact: JobState,
    pub(super) clear: JobState,
    pub(super) reserve: JobState,
    pub(super) scrub: JobState,
    pub(super) snapshot: JobState,
    pub(super) close: JobState,
    /// So much of the reserve is there.
    pub(super) reserve_bytes: u64,
    /// How far the active segment may be prepared with what the reserve has grown to.
    pub(super) reserve_for: Position,
    /// What frees space has found none: the reserve is to be given back.
    pub(super) needs_reserve: bool,
    /// It was given back, or could not be made as large as it has to be: nothing else takes space before it is there again.
    pub(super) owes_reserve: bool,
    /// It was said that it could not be made, and it has not been since.
    pub(super) is_reserve_refused: bool,
    /// What was retired last found no space, nor a reserve: the others may have some.
    pub(super) retires_in_vain: bool,
    /// Much of the active segment may be dead, and the disk is full: it is to be ended, so that it can be
    /// rewritten, be it with the reserve.
    pub(super) ends_for_space: bool,
    /// How much the next extension adds.
    pub(super) step_bytes: u64,
    /// Tells the extension under way how fast it has to be.
    pub(super) headway: Arc<Headway>,
    /// When the last append was, if zeroes at rest behind it are under way, or the disk had no space for them:
    /// before there is another, it is not asked again.
    pub(super) rest_asked_boot_ms: Option<u64>,
    /// How far the segment must be prepared for the frame that waits.
    pub(super) needed: Position,
    /// The prepared file of the next segment.
    pub(super) next_file: Option<NewFile<D>>,
    /// A frame waits for a new segment.
    pub(super) rolling: bool,
    /// None does any more, as the disk was full: without that file nothing would find that there is space again.
    pub(super) is_roll_taken_back: bool,
    /// A frame waits for space on the disk.
    pub(super) disk_full: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JobState {
    Idle,
    Running,
    /// It failed, and may be tried again then.
    Waiting {
        until_boot_ms: u64,
        /// For want of space.
        is_full: bool,
    },
}

impl<D: Disk> Log<D> {
    pub(super) fn next_job(&mut self, now: Now) -> Option<Op<D>> {
        self.end_segment_for_space();
        self.end_reserve_debt();
        let job = self
            .next_roll(now)
            .or_else(|| self.next_mark(now))
            .or_else(|| self.next_extension(now))
            .or_else(|| self.next_preparation())
            .or_else(|| self.next_seal())
            .or_else(|| self.next_reserve())
            .or_else(|| self.next_keep())
            .or_else(|| self.next_retirement())
            .or_else(|| self.next_clear())
            .or_else(|| self.next_close(now))
            .or_else(|| self.next_compaction(now))
            .or_else(|| self.next_snapshot())
            .or_else(|| self.next_scrub())?;
        Some(Op::Job { id: self.op_id(), job })
    }

    /// The barrier: nothing of the old segment is under way, and all of it is synced.
    fn next_roll(&mut self, now: Now) -> Option<Job<D>> {
        let is_clean = self.commit.is_clean() || mutation::is_planted(Mutation::RollWithoutBarrier);
        let is_drained = self.commit.is_still() && is_clean;
        if !self.jobs.rolling || !is_drained || self.jobs.extend == JobState::Running {
            return None;
        }
        if self.jobs.roll == JobState::Running {
            return None;
        }
        let next = self.jobs.next_file.take()?;
        self.jobs.roll = JobState::Running;
        let header = SegmentHeader {
            version: SEGMENT_VERSION,
            base_offset: self.commit.submitted_end(),
            created_at_ms: now.wall_ms,
            incarnation: Incarnation::random(),
            tag: self.tag,
            sync: self.config.sync,
        };
        let name = SegmentName::first_generation(header.base_offset);
        Some(Job::Roll(RollJob {
            next,
            header,
            dir: self.dir.clone(),
            from: self.dir.join(NEXT_FILE_NAME),
            to: self.dir.join(name.log_file_name()),
        }))
    }

    /// More room, when a frame waits for it or little is left. A log that has grown to the largest step has
    /// one whole step left when the next begins: frames at the disk's own speed use up half of one meanwhile,
    /// or more, and would wait.
    ///
    /// An extension rests between its pieces, so that commits have the disk, as long as it is ahead of what
    /// is used ([`Headway`]) and nobody waits for it.
    ///
    /// While the log rests it goes further ahead (resting.rs).
    fn next_extension(&mut self, now: Now) -> Option<Job<D>> {
        if self.jobs.extend == JobState::Running {
            self.note_headway(now);
        }
        if self.jobs.extend != JobState::Idle || self.jobs.rolling || self.is_space_owed() {
            return None;
        }
        if !self.has_room_for_last_word() {
            // It may lie past `segment_bytes`: no segment is begun for it.
            let end = self.tail.end.plus(FRAME_ALIGN_BYTES as u64);
            self.jobs.needed = self.jobs.needed.max(end);
        }
        let prepared = self.tail.file.prepared;
        let is_needed = self.jobs.needed > prepared;
        let ahead_bytes = prepared.get() - self.tail.end.get();
        let is_wanted = ahead_bytes < self.left_bytes_min()
            && prepared.get() < self.segment_bytes()
            && self.close == Close::Open;
        let (to, fill, free_bytes_min) = if is_needed || is_wanted {
            let limit = self.segment_bytes().max(self.jobs.needed.get());
            let wanted = prepared.get().saturating_add(self.jobs.step_bytes);
            let to = Position::new(wanted.max(self.jobs.needed.get()).min(limit));
            if self.lacks_reserve_for(to) {
                return self.next_growth(to, 0);
            }
            let step_bytes = self.jobs.step_bytes * 2;
            self.jobs.step_bytes = step_bytes.min(self.config.preallocate_bytes_max);
            (to, self.next_fill(), None)
        } else {
            let Further { to, free_bytes_min } = self.next_further(now)?;
            if self.lacks_reserve_for(to) {
                self.jobs.rest_asked_boot_ms = Some(self.last_append_boot_ms);
                return self.next_growth(to, free_bytes_min);
            }
            self.jobs.rest_asked_boot_ms = Some(self.last_append_boot_ms);
            self.filling.rest();
            (to, Fill::Zeroes, Some((self.dir.clone(), free_bytes_min)))
        };
        self.jobs.extend = JobState::Running;
        let headway = Arc::new(Headway::begin(ahead_bytes));
        if is_needed {
            headway.hurry();
        }
        self.jobs.headway = Arc::clone(&headway);
        let file = Arc::clone(&self.tail.file.zeroing);
        Some(Job::Extend(ExtendJob { file, from: prepared, to, fill, headway, free_bytes_min }))
    }

    /// What a step is to be filled with that is not made at rest. The page cache writes zeroes back when it likes.
    fn next_fill(&mut self) -> Fill {
        match self.tail.file.mode {
            WriteMode::Direct => self.filling.choose(),
            WriteMode::Buffered => Fill::Zeroes,
        }
    }

    /// With less ahead of the tail the log is extended while it works.
    fn left_bytes_min(&self) -> u64 {
        let step_bytes = self.jobs.step_bytes;
        let is_largest = step_bytes == self.config.preallocate_bytes_max;
        if is_largest { step_bytes } else { step_bytes / 2 }
    }

    fn note_headway(&self, now: Now) {
        let (headway, prepared) = (&self.jobs.headway, self.tail.file.prepared);
        let left_bytes = prepared.get().saturating_sub(self.tail.end.get());
        headway.note_left(left_bytes);
        let is_needed = self.jobs.needed > prepared;
        let is_closing = self.close != Close::Open;
        if is_needed || self.jobs.rolling || is_closing {
            headway.hurry();
        }
        let works = self.rest_boot_ms().is_none_or(|rest_ms| rest_ms > now.boot_ms);
        // With that much left it was begun at rest.
        let is_enough = is_closing || (works && left_bytes >= self.left_bytes_min());
        if is_enough && !is_needed {
            headway.stop();
        }
    }

    /// The next segment's file, once half of this one is used.
    fn next_preparation(&mut self) -> Option<Job<D>> {
        let segment_bytes = self.segment_bytes();
        let jobs = &self.jobs;
        let is_near = self.tail.end.get() > segment_bytes / 2 || jobs.is_roll_taken_back;
        let is_wanted = jobs.rolling || (is_near && self.close == Close::Open);
        let is_there = jobs.next_file.is_some() || jobs.roll == JobState::Running;
        if !is_wanted || is_there || jobs.prepare != JobState::Idle {
            return None;
        }
        if !jobs.ends_for_space && (self.is_space_owed() || self.lacks_reserve()) {
            return None;
        }
        let jobs = &mut self.jobs;
        jobs.prepare = JobState::Running;
        let to = FIRST_FRAME_POSITION.plus(jobs.step_bytes.min(segment_bytes));
        let path = self.dir.join(NEXT_FILE_NAME);
        let fill = match self.tail.file.mode {
            WriteMode::Direct if to.get() < segment_bytes => self.filling.prepare(),
            WriteMode::Direct | WriteMode::Buffered => self.next_fill(),
        };
        Some(Job::Prepare(PrepareJob { path, mode: self.tail.file.mode, to, fill }))
    }

    /// The index of the oldest full segment.
    fn next_seal(&mut self) -> Option<Job<D>> {
        let is_wanted = self.unsealed.len() > 1 && self.close == Close::Open;
        if !is_wanted || self.jobs.seal != JobState::Idle {
            return None;
        }
        self.jobs.seal = JobState::Running;
        let is_urgent = self.unsealed.len() > SEALS_BEHIND_MAX + 2 || self.jobs.disk_full;
        let pace = Pace::beside(&self.frames_begun, is_urgent);
        Some(Job::Seal(SealJob::of(
            &self.unsealed[0],
            &self.dir,
            &self.topics,
            &self.state.producers,
            pace,
        )))
    }

    pub(super) fn complete_job(&mut self, outcome: JobOutcome<D>, now: Now) {
        match outcome {
            JobOutcome::Extended(result) => self.extended(result, now),
            JobOutcome::Prepared(result) => self.prepared(result, now),
            JobOutcome::Rolled { next: result, header } => match result {
                Ok(file) => self.rolled(file, header),
                Err(error)
                    if is_full(&error)
                        && !mutation::is_planted(Mutation::NoSpaceForNameIsFinal) =>
                {
                    self.jobs.roll = JobState::Idle;
                    self.refuse_preparation(now);
                }
                Err(error) => self.poison(format!("beginning a segment: {error}")),
            },
            JobOutcome::Marked { job, result } => self.mark_written(&job, result, now),
            JobOutcome::Sealed(result) => self.sealed(result, now),
            JobOutcome::Closed => self.closed(),
            JobOutcome::Scrubbed(outcome) => self.scrubbed(*outcome, now),
            JobOutcome::Reserved { job, result } => self.reserved(&job, result, now),
            JobOutcome::Compacted(result) => self.compacted(result, now),
            JobOutcome::Cleared(result) => self.cleared(result, now),
            JobOutcome::Snapshot(result) => self.snapshot_made(result, now),
            JobOutcome::Kept { job, result } => self.kept(&job, result, now),
            JobOutcome::Retired { name, result } => self.retired(name, result, now),
        }
    }

    fn extended(&mut self, result: io::Result<(Position, Fill)>, now: Now) {
        match result {
            Ok((to, _)) if to == self.tail.file.prepared => self.jobs.extend = JobState::Idle,
            Ok((to, fill)) => {
                self.jobs.extend = JobState::Idle;
                self.jobs.rest_asked_boot_ms = None;
                self.filling.note_filled(to, fill);
                self.tail.file.prepared = to;
                self.space_is_back();
            }
            Err(error) if is_full(&error) => self.refuse_extension(now),
            // The sync covers frames as well where they are written through the page cache.
            Err(error) => self.poison(format!("preparing the segment: {error}")),
        }
    }

    /// The disk has no space for it, or for what the reserve has to be then.
    pub(super) fn refuse_extension(&mut self, now: Now) {
        self.jobs.extend = JobState::after(now, DISK_FULL_RETRY_MS, true);
        self.filling.refuse();
        self.jobs.step_bytes = self.config.preallocate_bytes_min;
        if self.jobs.needed > self.tail.file.prepared {
            self.space_is_short();
        }
    }

    fn prepared(&mut self, result: io::Result<NewFile<D>>, now: Now) {
        self.filling.end_preparation();
        let result = result.and_then(|file| {
            if file.mode == self.tail.file.mode {
                return Ok(file);
            }
            Err(io::Error::new(io::ErrorKind::Unsupported, "O_DIRECT is refused all at once"))
        });
        match result {
            Ok(file) => {
                self.jobs.prepare = JobState::Idle;
                self.jobs.next_file = Some(file);
                // A frame that waits for it also waits for its name, which may find no space.
                if !self.jobs.rolling {
                    self.space_is_back();
                }
            }
            Err(error) if is_full(&error) => self.refuse_preparation(now),
            Err(error) => {
                self.jobs.prepare = JobState::after(now, DISK_FULL_RETRY_MS, false);
                self.jobs.step_bytes = self.config.preallocate_bytes_min;
                // What the process lacks just then leaves nothing in doubt: who waits for the file waits for the next try.
                if self.jobs.rolling && !is_passing(&error) {
                    self.poison(format!("preparing a segment: {error}"));
                } else {
                    self.notices.push(Notice::PrepareFailed { reason: error.to_string() });
                }
            }
        }
    }

    /// The disk has no space for the next segment's file, or for the name of that: then there is none any more.
    fn refuse_preparation(&mut self, now: Now) {
        self.jobs.prepare = JobState::after(now, DISK_FULL_RETRY_MS, true);
        self.jobs.step_bytes = self.config.preallocate_bytes_min;
        self.jobs.needs_reserve |= self.jobs.ends_for_space && self.jobs.reserve_bytes > 0;
        if self.jobs.rolling {
            self.space_is_short();
        }
    }

    fn rolled(&mut self, file: NewFile<D>, header: SegmentHeader) {
        self.jobs.roll = JobState::Idle;
        self.jobs.rolling = false;
        self.jobs.ends_for_space = false;
        self.jobs.needed = Position::default();
        self.jobs.reserve_for = Position::default();
        let name = SegmentName::first_generation(header.base_offset);
        let path = self.dir.join(name.log_file_name());
        self.filling.begin_file(file.prepared, file.fill);
        self.tail = Tail::new(&header, file);
        // An extension of the old file that found the disk full is of no use any more, and nothing
        // else would say that what waits has a place now.
        self.space_is_back();
        // That the segment exists says that the one before was synced to its end.
        self.stated = header.base_offset;
        self.unsealed.push_back(Unsealed::new(
            name,
            header,
            path,
            Arc::clone(&self.tail.file.file),
        ));
    }

    fn sealed(&mut self, result: Result<SealOutcome<D>, OpenError>, now: Now) {
        match result {
            Ok(outcome) => {
                self.jobs.seal = JobState::Idle;
                let sealed = self.unsealed.pop_front().expect("a full segment was sealed");
                assert_eq!(sealed.name, outcome.name, "segments are sealed in order");
                self.written.retain(|(_, file)| file.strong_count() > 0);
                self.written.push((sealed.name, Arc::downgrade(&sealed.file)));
                self.snapshots.note_sealed(outcome.segment.file_bytes());
                self.segments = Arc::new(self.segments.with(outcome.segment));
                if let Some(reason) = outcome.damage {
                    self.note_damage(sealed.name, reason);
                }
            }
            Err(error) => {
                self.note_full(&error);
                self.jobs.seal = JobState::after(now, SEAL_RETRY_MS, false);
                self.notices.push(Notice::SealFailed { reason: error.to_string() });
            }
        }
    }

    /// A frame needs what this job gives.
    pub(super) fn note_shortage(&mut self, job: JobState) {
        if matches!(job, JobState::Waiting { is_full: true, .. }) || self.is_space_owed() {
            self.space_is_short();
        }
    }

    pub(super) fn space_is_short(&mut self) {
        if !self.jobs.disk_full {
            self.jobs.disk_full = true;
            self.notices.push(Notice::DiskFull);
            self.hurry_compaction();
            // What frees space may wait behind it, on a thread that has what others leave of the processor.
            self.cancel_snapshot();
            self.free_space();
        }
    }

    pub(super) fn space_is_back(&mut self) {
        if self.jobs.disk_full && !self.is_space_owed() {
            self.jobs.disk_full = false;
            self.jobs.is_roll_taken_back = false;
            self.notices.push(Notice::DiskSpaceBack);
        }
    }
}

impl<D: Disk> Jobs<D> {
    /// None is under way.
    pub(super) fn new(
        config: &LogConfig,
        now: Now,
        reserve_bytes: u64,
        owes_reserve: bool,
    ) -> Self {
        let scrub_first_ms = SCRUB_FIRST_MS.min(config.scrub_interval_s.saturating_mul(1_000));
        Jobs {
            extend: JobState::Idle,
            prepare: JobState::Idle,
            roll: JobState::Idle,
            mark: JobState::Idle,
            seal: JobState::Idle,
            keep: JobState::Idle,
            retire: JobState::Idle,
            compact: JobState::Idle,
            clear: JobState::Idle,
            reserve: JobState::Idle,
            scrub: JobState::after(now, scrub_first_ms, false),
            snapshot: JobState::Idle,
            close: JobState::Idle,
            reserve_bytes,
            reserve_for: Position::default(),
            needs_reserve: false,
            retires_in_vain: false,
            owes_reserve,
            is_reserve_refused: false,
            ends_for_space: false,
            step_bytes: config.preallocate_bytes_min,
            headway: Arc::default(),
            rest_asked_boot_ms: None,
            needed: Position::default(),
            next_file: None,
            rolling: false,
            is_roll_taken_back: false,
            disk_full: owes_reserve,
        }
    }

    /// Whether something is under way for which the reserve may have been given back.
    pub(super) fn is_freeing(&self) -> bool {
        [self.seal, self.retire, self.compact, self.clear].contains(&JobState::Running)
    }

    /// What waits for a time that has come may start again.
    pub(super) fn end_waits(&mut self, now: Now) {
        let Jobs { extend, prepare, mark, seal, retire, compact, reserve, scrub, close, .. } = self;
        let (clear, snapshot, keep) = (&mut self.clear, &mut self.snapshot, &mut self.keep);
        let freeing = [seal, retire, compact, clear, close];
        for state in
            [extend, prepare, mark, reserve, scrub, snapshot, keep].into_iter().chain(freeing)
        {
            if matches!(*state, JobState::Waiting { until_boot_ms, .. } if until_boot_ms <= now.boot_ms)
            {
                *state = JobState::Idle;
            }
        }
    }
}

impl JobState {
    pub(super) fn after(now: Now, wait_ms: u64, is_full: bool) -> JobState {
        JobState::Waiting { until_boot_ms: now.boot_ms.saturating_add(wait_ms), is_full }
    }
}
