//! What the log does next, and what follows from an outcome.

use std::{io, sync::Arc};

use super::{Close, InFlight, JobState, Log, NEXT_FILE_NAME, Notice, Now, OpId, Poison, Tail};
use crate::{
    buffer::DiskBuffer,
    error::OpenError,
    frame::{self, EVENTS_MAX, FRAME_ALIGN_BYTES, FrameFlags, FrameMeta},
    io::Disk,
    offset::Position,
    op::{ExtendJob, Job, JobOutcome, NewFile, Op, OpOutcome, PrepareJob, RollJob},
    seal::{SealJob, SealOutcome},
    segment::{FIRST_FRAME_POSITION, Incarnation, SEGMENT_VERSION, SegmentHeader, SegmentName},
    staging::{Gathered, Staging},
    unsealed::Unsealed,
};

/// A job that failed for want of space is tried again so often.
const DISK_FULL_RETRY_MS: u64 = 1_000;
/// A seal that failed is tried again so often: it writes the whole index anew.
const SEAL_RETRY_MS: u64 = 10_000;

/// What a frame of some length needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    /// It can be written.
    Ready,
    /// The segment must be prepared further.
    Extend,
    /// It goes into a new segment.
    Roll,
}

impl<D: Disk> Log<D> {
    /// What to do next; `None` if there is nothing until the next append, outcome or
    /// [`Log::deadline`]. Ask until it says `None`.
    pub fn next_op(&mut self, now: Now) -> Option<Op<D>> {
        if self.poison.is_some() {
            return None;
        }
        let op = self
            .next_sync(now)
            .or_else(|| self.next_frame(now))
            .or_else(|| self.next_last_word(now))
            .or_else(|| self.next_job(now))?;
        self.outstanding += 1;
        Some(op)
    }

    /// When to ask [`Log::next_op`] again though nothing has happened, on the boot clock.
    pub fn deadline(&self) -> Option<u64> {
        if self.poison.is_some() {
            return None;
        }
        let retry = |state: JobState| match state {
            JobState::Waiting { until_boot_ms, .. } => Some(until_boot_ms),
            JobState::Idle | JobState::Running => None,
        };
        let jobs = &self.jobs;
        [
            self.commit.sync_due_boot_ms(),
            self.idle_due_boot_ms(),
            retry(jobs.extend),
            retry(jobs.prepare),
            retry(jobs.seal),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Takes the outcome of an operation; each exactly once.
    pub fn complete(&mut self, outcome: OpOutcome<D>, now: Now) {
        assert!(self.outstanding > 0, "an outcome belongs to an operation");
        self.outstanding -= 1;
        if self.poison.is_some() {
            // Nothing is acknowledged any more; a seal that came through is used by the next start.
            return;
        }
        match outcome {
            OpOutcome::Write { id, result } => {
                let frame_bytes = self.commit.frame(id).frame.frame_bytes();
                match result {
                    Ok(written) if written == frame_bytes => {
                        self.commit.write_done(id, now.boot_ms);
                    }
                    Ok(written) => {
                        self.poison(format!("write of {frame_bytes} bytes took only {written}"));
                    }
                    Err(error) => self.poison(format!("write: {error}")),
                }
            }
            OpOutcome::Sync { id, result } => match result {
                Ok(()) => self.commit.sync_done(id),
                Err(error) => self.poison(format!("sync: {error}")),
            },
            OpOutcome::Job { outcome, .. } => self.complete_job(outcome, now),
        }
        if self.poison.is_none() {
            self.publish();
        }
    }

    fn poison(&mut self, reason: String) {
        let poison = Poison { first_unsynced: self.commit.synced_end(), reason };
        self.notices.push(Notice::Poisoned(poison.clone()));
        self.poison = Some(poison);
        // Nobody will be told of it: what is staged was never acknowledged.
        self.staging = Staging::new(self.config.staged_bytes_max);
    }

    /// Hands what has become visible to readers.
    fn publish(&mut self) {
        while let Some(InFlight { frame, position }) = self.commit.take_visible() {
            let active = self.unsealed.back_mut().expect("there is always an active segment");
            active.add(&frame, position);
            if frame.is_empty() {
                continue;
            }
            for event in frame.events() {
                self.topics.add_event(event.topic_number(), event.offset(), event.time_ms());
            }
            self.recent.push(Arc::clone(&frame));
            self.published.push(frame);
        }
    }

    fn op_id(&mut self) -> OpId {
        self.ops += 1;
        OpId::new(self.ops)
    }

    fn next_sync(&mut self, now: Now) -> Option<Op<D>> {
        let is_draining = self.close != Close::Open && self.staging.is_empty();
        let all = (self.jobs.rolling || is_draining) && self.commit.writes_in_flight() == 0;
        if !self.commit.wants_sync(now.boot_ms, all) {
            return None;
        }
        let id = self.op_id();
        self.commit.sync_started(id);
        Some(Op::Sync { id, file: Arc::clone(&self.tail.file.file) })
    }

    /// The next frame of what is staged.
    fn next_frame(&mut self, now: Now) -> Option<Op<D>> {
        if self.staging.is_empty() || self.jobs.rolling {
            return None;
        }
        if self.commit.in_flight() >= self.depth.get() {
            self.has_waited = true;
            return None;
        }
        let gathered = self.staging.gather(self.config.frame_bytes_target, EVENTS_MAX);
        match self.room_for(frame::frame_bytes_max(gathered.bytes)) {
            Room::Ready => {
                self.depth.frame_started(gathered.events, self.has_waited, now.boot_ms);
                self.has_waited = false;
                Some(self.start_frame(gathered, FrameFlags::NONE, now))
            }
            Room::Extend => {
                self.note_shortage(self.jobs.extend);
                None
            }
            Room::Roll => {
                self.jobs.rolling = true;
                self.note_shortage(self.jobs.prepare);
                self.next_sync(now)
            }
        }
    }

    /// An empty frame that records the synced offset: when the log has been idle, and at its end.
    fn next_last_word(&mut self, now: Now) -> Option<Op<D>> {
        let flags = match self.close {
            Close::Open => {
                self.idle_due_boot_ms().filter(|due_ms| *due_ms <= now.boot_ms)?;
                FrameFlags::NONE
            }
            Close::Draining => {
                let is_done = self.staging.is_empty()
                    && self.commit.is_still()
                    && self.commit.is_clean()
                    && !self.jobs.rolling;
                if !is_done {
                    return None;
                }
                FrameFlags::CLEAN_END
            }
            Close::Ending => return None,
        };
        // It may lie past `segment_bytes`: no segment is begun for it.
        let end = self.tail.end.plus(FRAME_ALIGN_BYTES as u64);
        if end > self.tail.file.prepared {
            self.jobs.needed = end;
            return None;
        }
        if flags.has(FrameFlags::CLEAN_END) {
            self.close = Close::Ending;
        }
        Some(self.start_frame(Gathered::default(), flags, now))
    }

    /// When an idle log should record its synced offset.
    fn idle_due_boot_ms(&self) -> Option<u64> {
        let is_idle = self.staging.is_empty()
            && self.commit.is_still()
            && !self.jobs.rolling
            && self.close == Close::Open;
        (is_idle && self.commit.synced_end() > self.stated)
            .then(|| self.last_append_boot_ms.saturating_add(self.config.idle_frame_ms))
    }

    /// Whether a frame of at most `bytes` can be written at the tail.
    fn room_for(&mut self, bytes: usize) -> Room {
        let end = self.tail.end.plus(bytes as u64);
        // A frame that is longer than a segment gets one of its own.
        let has_events = self.commit.submitted_end() > self.tail.base;
        if end.get() > self.config.segment_bytes && has_events {
            return Room::Roll;
        }
        if end > self.tail.file.prepared {
            self.jobs.needed = end;
            return Room::Extend;
        }
        Room::Ready
    }

    fn start_frame(&mut self, gathered: Gathered, flags: FrameFlags, now: Now) -> Op<D> {
        let synced_offset = self.commit.synced_end();
        let meta = FrameMeta {
            base_offset: self.commit.submitted_end(),
            commit_time_ms: now.wall_ms,
            synced_offset,
            previous_checksum: self.tail.previous_checksum,
            flags,
        };
        let buffer = DiskBuffer::with_capacity(frame::frame_bytes_max(gathered.bytes));
        let events = self.staging.front(gathered.events);
        let frame = Arc::new(frame::encode(&meta, events, self.tail.seed, buffer));
        self.staging.release(gathered);

        let position = self.tail.end;
        self.tail.end = position.plus(frame.frame_bytes() as u64);
        assert!(self.tail.end <= self.tail.file.prepared, "frames stay below the prepared end");
        self.tail.previous_checksum = frame.header().checksum;
        self.stated = synced_offset;
        let id = self.op_id();
        let buffer = Arc::clone(frame.buffer());
        self.commit.start(id, frame.end_offset(), InFlight { frame, position });
        Op::Write { id, file: Arc::clone(&self.tail.file.file), buffer, position }
    }

    fn next_job(&mut self, now: Now) -> Option<Op<D>> {
        let job = self
            .next_roll(now)
            .or_else(|| self.next_extension(now))
            .or_else(|| self.next_preparation(now))
            .or_else(|| self.next_seal(now))?;
        Some(Op::Job { id: self.op_id(), job })
    }

    /// The barrier: nothing of the old segment is under way, and all of it is synced.
    fn next_roll(&mut self, now: Now) -> Option<Job<D>> {
        let is_drained = self.commit.is_still() && self.commit.is_clean();
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

    /// More zeroes, when a frame waits for them or half of the last step is used up.
    fn next_extension(&mut self, now: Now) -> Option<Job<D>> {
        if !self.jobs.extend.may_start(now) || self.jobs.rolling {
            return None;
        }
        let prepared = self.tail.file.prepared;
        let is_needed = self.jobs.needed > prepared;
        let ahead_bytes = prepared.get() - self.tail.end.get();
        let is_wanted = ahead_bytes < self.jobs.step_bytes / 2
            && prepared.get() < self.config.segment_bytes
            && self.close == Close::Open;
        if !is_needed && !is_wanted {
            return None;
        }
        let limit = self.config.segment_bytes.max(self.jobs.needed.get());
        let wanted = prepared.get().saturating_add(self.jobs.step_bytes);
        let to = Position::new(wanted.max(self.jobs.needed.get()).min(limit));
        self.jobs.step_bytes = (self.jobs.step_bytes * 2).min(self.config.preallocate_bytes_max);
        self.jobs.extend = JobState::Running;
        let file = Arc::clone(&self.tail.file.zeroing);
        Some(Job::Extend(ExtendJob { file, from: prepared, to }))
    }

    /// The next segment's file, once half of this one is used.
    fn next_preparation(&mut self, now: Now) -> Option<Job<D>> {
        let jobs = &mut self.jobs;
        let is_wanted = jobs.rolling
            || (self.tail.end.get() > self.config.segment_bytes / 2 && self.close == Close::Open);
        let is_there = jobs.next_file.is_some() || jobs.roll == JobState::Running;
        if !is_wanted || is_there || !jobs.prepare.may_start(now) {
            return None;
        }
        jobs.prepare = JobState::Running;
        let to = FIRST_FRAME_POSITION.plus(jobs.step_bytes.min(self.config.segment_bytes));
        let path = self.dir.join(NEXT_FILE_NAME);
        Some(Job::Prepare(PrepareJob { path, mode: self.tail.file.mode, to }))
    }

    /// The index of the oldest full segment.
    fn next_seal(&mut self, now: Now) -> Option<Job<D>> {
        let is_wanted = self.unsealed.len() > 1 && self.close == Close::Open;
        if !is_wanted || !self.jobs.seal.may_start(now) {
            return None;
        }
        self.jobs.seal = JobState::Running;
        Some(Job::Seal(SealJob::of(&self.unsealed[0], &self.dir)))
    }

    fn complete_job(&mut self, outcome: JobOutcome<D>, now: Now) {
        match outcome {
            JobOutcome::Extended { to, result } => self.extended(to, result, now),
            JobOutcome::Prepared(result) => self.prepared(result, now),
            JobOutcome::Rolled { next: result, header } => match result {
                Ok(file) => self.rolled(file, header),
                Err(error) => self.poison(format!("beginning a segment: {error}")),
            },
            JobOutcome::Sealed(result) => self.sealed(result, now),
        }
    }

    fn extended(&mut self, to: Position, result: io::Result<()>, now: Now) {
        match result {
            Ok(()) => {
                self.jobs.extend = JobState::Idle;
                self.tail.file.prepared = to;
                self.space_is_back();
            }
            Err(error) if is_full(&error) => {
                self.jobs.extend = JobState::after(now, DISK_FULL_RETRY_MS, true);
                self.jobs.step_bytes = self.config.preallocate_bytes_min;
                if self.jobs.needed > self.tail.file.prepared {
                    self.space_is_short();
                }
            }
            // The sync covers frames as well where they are written through the page cache.
            Err(error) => self.poison(format!("preparing the segment: {error}")),
        }
    }

    fn prepared(&mut self, result: io::Result<NewFile<D>>, now: Now) {
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
                self.space_is_back();
            }
            Err(error) => {
                self.jobs.prepare = JobState::after(now, DISK_FULL_RETRY_MS, is_full(&error));
                self.jobs.step_bytes = self.config.preallocate_bytes_min;
                if is_full(&error) {
                    if self.jobs.rolling {
                        self.space_is_short();
                    }
                } else if self.jobs.rolling {
                    self.poison(format!("preparing a segment: {error}"));
                } else {
                    self.notices.push(Notice::PrepareFailed { reason: error.to_string() });
                }
            }
        }
    }

    fn rolled(&mut self, file: NewFile<D>, header: SegmentHeader) {
        self.jobs.roll = JobState::Idle;
        self.jobs.rolling = false;
        self.jobs.needed = Position::default();
        let name = SegmentName::first_generation(header.base_offset);
        let path = self.dir.join(name.log_file_name());
        self.tail = Tail::new(&header, file);
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
                self.segments = Arc::new(self.segments.with(outcome.segment));
            }
            Err(error) => {
                self.jobs.seal = JobState::after(now, SEAL_RETRY_MS, false);
                self.notices.push(Notice::SealFailed { reason: error.to_string() });
            }
        }
    }

    /// A frame needs what this job gives.
    fn note_shortage(&mut self, job: JobState) {
        if matches!(job, JobState::Waiting { is_full: true, .. }) {
            self.space_is_short();
        }
    }

    fn space_is_short(&mut self) {
        if !self.jobs.disk_full {
            self.jobs.disk_full = true;
            self.notices.push(Notice::DiskFull);
        }
    }

    fn space_is_back(&mut self) {
        if self.jobs.disk_full {
            self.jobs.disk_full = false;
            self.notices.push(Notice::DiskSpaceBack);
        }
    }
}

impl JobState {
    fn may_start(self, now: Now) -> bool {
        match self {
            JobState::Idle => true,
            JobState::Running => false,
            JobState::Waiting { until_boot_ms, .. } => until_boot_ms <= now.boot_ms,
        }
    }

    fn after(now: Now, wait_ms: u64, is_full: bool) -> JobState {
        JobState::Waiting { until_boot_ms: now.boot_ms.saturating_add(wait_ms), is_full }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
