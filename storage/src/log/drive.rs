//! What the log does next, and what follows from an outcome.

use std::sync::Arc;

use super::{Close, InFlight, JobState, Log, Notice, Now, OpId, Poison};
use crate::{
    control::Control,
    frame::{self, EVENTS_MAX, FRAME_ALIGN_BYTES, FrameFlags, FrameMeta, FrameRow},
    index::builder::{Added, OFFSETS_MAX},
    io::Disk,
    mutation::{self, Mutation},
    offset::Offset,
    once::NumberedProducer,
    op::{Op, OpOutcome},
    staging::{Gathered, Staging},
};

/// See [`Log::control_room_bytes`]: room for some deletions and changes of settings.
const CONTROL_ROOM_BYTES: u64 = 64 << 10;

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
        self.jobs.end_waits(now);
        self.apply_limits(now);
        let op = self
            .next_sync(now)
            .or_else(|| self.next_frame(now))
            .or_else(|| self.next_last_word(now))
            .or_else(|| self.next_job(now))?;
        self.outstanding += 1;
        Some(op)
    }

    /// When to ask [`Log::next_op`] again though nothing has happened, on the boot clock. Once it has
    /// said `None`, that is in the future.
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
            self.rules_due_boot_ms(),
            self.idle_due_boot_ms(),
            self.further_due_boot_ms(),
            retry(jobs.extend),
            retry(jobs.prepare),
            retry(jobs.mark),
            self.mark_due_boot_ms(),
            retry(jobs.seal),
            retry(jobs.retire),
            retry(jobs.keep),
            retry(jobs.compact),
            retry(jobs.clear),
            retry(jobs.reserve),
            retry(jobs.close),
            retry(jobs.snapshot),
            retry(jobs.scrub).filter(|_| !self.segments.is_empty()),
            self.retention_due_boot_ms(),
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
                let InFlight { frames, position } = self.commit.write(id);
                let bytes: usize = frames.iter().map(|(frame, _)| frame.frame_bytes()).sum();
                match result {
                    Ok(written) if written == bytes => {
                        self.filling.note_write(*position, bytes as u64, now.boot_ms);
                        self.commit.write_done(id, now.boot_ms);
                    }
                    Ok(written) => {
                        self.poison(format!("write of {bytes} bytes took only {written}"));
                    }
                    Err(error) => self.poison(format!("write: {error}")),
                }
            }
            OpOutcome::Sync { id, result } => match result {
                Ok(()) => self.commit.sync_done(id),
                #[cfg(mutations)]
                Err(_) if mutation::is_planted(Mutation::SyncRetried) => self.commit.retry_sync(),
                Err(error) => self.poison(format!("sync: {error}")),
            },
            OpOutcome::Job { outcome, .. } => self.complete_job(outcome, now),
        }
        if self.poison.is_none() {
            self.publish();
        }
    }

    pub(super) fn poison(&mut self, reason: String) {
        let poison = Poison { first_unsynced: self.commit.synced_end(), reason };
        self.notices.push(Notice::Poisoned(poison.clone()));
        self.poison = Some(poison);
        // Nobody will be told of it: what is staged was never acknowledged.
        self.staging = Staging::new(self.config.staged_bytes_max);
    }

    /// Hands what has become visible to readers.
    fn publish(&mut self) {
        while let Some(write) = self.commit.take_visible() {
            self.publish_write(write);
        }
    }

    fn publish_write(&mut self, write: InFlight) {
        let mut position = write.position;
        for (frame, ids) in write.frames {
            let active = self.unsealed.back_mut().expect("there is always an active segment");
            let producers = self.state.producers.unsettled(frame.end_offset()).copied();
            let producers: Vec<NumberedProducer> = producers.collect();
            active.add(&frame, position, &self.topics, &ids, &producers);
            position = position.plus(frame.frame_bytes() as u64);
            if frame.is_empty() {
                continue;
            }
            if frame.topics().len() > 1 {
                self.topics.look(frame.topics().map(|(number, _)| number));
            }
            for ((number, _), added) in frame.topics().zip(active.index.last_added()) {
                let Added { event_count, first_offset, last_offset, last_time_ms } = added;
                self.topics.add_events(
                    number,
                    event_count,
                    first_offset,
                    last_offset,
                    last_time_ms,
                );
            }
            for event in frame.events().filter(|event| !event.kind().is_data()) {
                self.tail.controls += 1;
                if let Some(control) = Control::decode(event.kind(), event.data()) {
                    let is_for_sealed = self.has_sealed_events_of(&control);
                    if is_for_sealed && self.state.rules.loosens(&control) {
                        // What it lets go by the old limits may be read from here on.
                        self.cancel_compaction();
                    }
                    let raised = self.state.rules.apply(&control, event.offset());
                    // What stands behind it in the same frame may have begun the topic anew.
                    let goes_on = |(topic, _): &(String, Offset)| {
                        let behind = frame.events().rev();
                        let mut behind =
                            behind.take_while(|behind| behind.offset() > event.offset());
                        behind.any(|behind| behind.topic() == topic)
                    };
                    let is_trim = matches!(control, Control::Trimmed(_));
                    match is_trim && !raised.iter().any(goes_on) {
                        true => self.topics.clear_below(&raised),
                        false => self.topics.clear_former_lives(&raised),
                    }
                    self.last_control = event.offset();
                    if matches!(control, Control::Log(_)) {
                        self.last_log_setting = event.offset();
                        self.settle_limits();
                    }
                    self.jobs.ends_for_space |= self.jobs.disk_full && !raised.is_empty();
                    self.rules_changed(is_for_sealed);
                    self.hurry_looks(&control, is_for_sealed);
                }
            }
            self.state.producers.settle(frame.end_offset());
            self.recent.push(Arc::clone(&frame));
            self.published.push(frame);
        }
    }

    pub(super) fn op_id(&mut self) -> OpId {
        self.ops += 1;
        OpId::new(self.ops)
    }

    fn next_sync(&mut self, now: Now) -> Option<Op<D>> {
        let is_draining = self.close != Close::Open && self.staging.is_empty();
        self.note_rules(now);
        // What a rule lets go is freed once that is synced, and a full disk waits for it.
        let is_freeing = self.jobs.disk_full && !self.are_rules_synced();
        let is_wanted = self.jobs.rolling || is_draining || is_freeing;
        let all = (is_wanted && self.commit.writes_in_flight() == 0)
            || self.rules_due_boot_ms().is_some_and(|due_ms| due_ms <= now.boot_ms);
        let is_skipped = self.jobs.rolling && mutation::is_planted(Mutation::RollWithoutBarrier);
        if !self.commit.wants_sync(now.boot_ms, all) || is_skipped {
            return None;
        }
        let id = self.op_id();
        self.commit.sync_started(id);
        Some(Op::Sync { id, file: Arc::clone(&self.tail.file.file) })
    }

    /// The next frame of what is staged.
    fn next_frame(&mut self, now: Now) -> Option<Op<D>> {
        if self.staging.is_empty() || self.has_setting_that_waits() {
            return None;
        }
        if self.jobs.rolling && !self.take_back_roll() {
            // The next segment's file may have met the full disk after the roll was decided.
            self.note_shortage(self.jobs.prepare);
            return None;
        }
        // Waiting makes frames larger and so fewer. One that is full already has nothing to wait for.
        let is_full = self.staging.staged_bytes() >= self.config.frame_bytes_target;
        let is_idle = std::mem::take(&mut self.is_idle);
        let depth = match self.depth.get() {
            _ if is_full => self.config.writes_in_flight_max,
            _ if self.counts_on_idle && !is_idle => 1,
            depth => depth,
        };
        let in_flight = self.commit.in_flight();
        if in_flight >= depth {
            self.has_waited |= in_flight >= self.depth.get();
            return None;
        }
        let gathered = self.staging.gather(self.config.frame_bytes_target, EVENTS_MAX);
        let may_use_room = self.is_control_on_full_disk(gathered);
        match self.room_for(frame::frame_bytes_max(gathered.bytes), may_use_room) {
            Room::Ready => {
                self.depth.frame_started(self.has_waited);
                self.has_waited = false;
                Some(self.start_write(gathered, FrameFlags::NONE, now))
            }
            Room::Extend => {
                self.filling.wait(self.commit.is_still(), now.boot_ms);
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
                    && !self.jobs.rolling
                    && self.is_reach_settled();
                if !is_done {
                    return None;
                }
                FrameFlags::CLEAN_END
            }
            Close::Ending => return None,
        };
        if !self.has_room_for_last_word() {
            return None;
        }
        if flags.has(FrameFlags::CLEAN_END) {
            self.close = Close::Ending;
        }
        Some(self.start_write(Gathered::default(), flags, now))
    }

    /// When an idle log should record its synced offset.
    fn idle_due_boot_ms(&self) -> Option<u64> {
        let is_unstated = self.has_room_for_last_word() && self.commit.synced_end() > self.stated;
        self.rest_boot_ms().filter(|_| is_unstated)
    }

    /// Whether an empty frame fits below the prepared end: [`Log::next_op`] sees to it that it does.
    pub(super) fn has_room_for_last_word(&self) -> bool {
        self.tail.end.plus(FRAME_ALIGN_BYTES as u64) <= self.tail.file.prepared
    }

    /// Whether a frame of at most `bytes` can be written at the tail, with or without the room of
    /// control events.
    fn room_for(&mut self, bytes: usize, may_use_room: bool) -> Room {
        let end = self.tail.end.plus(bytes as u64);
        if may_use_room && end <= self.tail.file.prepared {
            return Room::Ready;
        }
        // A frame that is longer than a segment gets one of its own.
        let offsets = self.commit.submitted_end().since(self.tail.base);
        if (end.get() > self.segment_bytes() && offsets > 0) || offsets > OFFSETS_MAX / 2 {
            return Room::Roll;
        }
        let with_room = end.plus(self.control_room_bytes());
        if with_room > self.tail.file.prepared {
            self.jobs.needed = with_room;
            return Room::Extend;
        }
        Room::Ready
    }

    /// So much below the prepared end is left to control events, which free space on a full disk.
    pub(super) fn control_room_bytes(&self) -> u64 {
        let align_bytes = FRAME_ALIGN_BYTES as u64;
        let room_bytes = CONTROL_ROOM_BYTES.min(self.config.reserve_bytes);
        room_bytes.min(self.segment_bytes() / 16 / align_bytes * align_bytes)
    }

    /// Whether a full disk has room for so many control events, of at most so many bytes, behind what is staged: each
    /// frame that takes some of it begins a block.
    pub(super) fn has_control_room(&self, batch: (usize, usize)) -> bool {
        let frames =
            self.staging.gather_all_before(batch, self.config.frame_bytes_target, EVENTS_MAX);
        let frame_bytes = |frame: Gathered| frame::frame_bytes_max(frame.bytes) as u64;
        self.tail.end.plus(frames.map(frame_bytes).sum()) <= self.tail.file.prepared
    }

    /// Whether these are control events alone, which a full disk has to take.
    fn is_control_on_full_disk(&mut self, gathered: Gathered) -> bool {
        self.jobs.disk_full
            && self.staging.front(gathered.events).iter().all(|staged| !staged.event.kind.is_data())
    }

    /// A full disk has no next segment for a roll that was decided: what is staged now, control events
    /// alone, goes behind the end of this one if that is prepared.
    fn take_back_roll(&mut self) -> bool {
        let gathered = self.staging.gather(self.config.frame_bytes_target, EVENTS_MAX);
        let end = self.tail.end.plus(frame::frame_bytes_max(gathered.bytes) as u64);
        let is_possible = self.is_control_on_full_disk(gathered)
            && self.jobs.roll == JobState::Idle
            && self.jobs.next_file.is_none()
            && end <= self.tail.file.prepared;
        if is_possible {
            self.jobs.rolling = false;
            self.jobs.is_roll_taken_back = true;
        }
        is_possible
    }

    /// Another frame behind `row` in the same write, if that has room for it, and the file.
    fn next_in_write(&self, row: &FrameRow, base: Offset, bytes_max: usize) -> Option<Gathered> {
        if self.staging.is_empty() || row.bytes() >= bytes_max {
            return None;
        }
        let gathered = self.staging.gather(self.config.frame_bytes_target, EVENTS_MAX);
        let bytes = row.bytes() + frame::frame_bytes_max(gathered.bytes);
        let end = self.tail.end.plus(bytes as u64);
        let has_room = bytes <= bytes_max
            && end.plus(self.control_room_bytes()) <= self.tail.file.prepared
            && end.get() <= self.segment_bytes()
            && base.since(self.tail.base) <= OFFSETS_MAX / 2;
        has_room.then_some(gathered)
    }

    /// How long a write may be: what waits is spread over all that may be in flight.
    fn write_bytes(&self) -> usize {
        let share_bytes = self.staging.staged_bytes() / self.config.writes_in_flight_max;
        share_bytes.min(self.config.write_bytes_max)
    }

    /// Begins the write of a frame, and of others behind it if a lot waits.
    fn start_write(&mut self, first: Gathered, flags: FrameFlags, now: Now) -> Op<D> {
        let (synced_offset, bytes_max) = (self.commit.synced_end(), self.write_bytes());
        let position = self.tail.end;
        let mut row = FrameRow::with_capacity(frame::frame_bytes_max(first.bytes).max(bytes_max));
        let mut base_offset = self.commit.submitted_end();
        let (mut next, mut all_ids) = (Some(first), Vec::with_capacity(1));
        while let Some(gathered) = next {
            let meta = FrameMeta {
                base_offset,
                commit_time_ms: now.wall_ms,
                synced_offset,
                previous_checksum: self.tail.previous_checksum,
                flags,
            };
            let events = self.staging.front(gathered.events);
            self.topics.number_all(events);
            let header = row.push(&meta, events, self.tail.seed);
            self.staging.release(gathered);
            self.tail.previous_checksum = header.checksum;
            // What is written is not taken back any more.
            let mut ids = Vec::with_capacity(gathered.events.min(self.state.ids.unsettled_count()));
            ids.extend(self.state.ids.unsettled(header.end_offset));
            self.state.ids.settle(header.end_offset);
            all_ids.push(ids);
            base_offset = header.end_offset;
            next = self.next_in_write(&row, base_offset, bytes_max);
        }
        self.tail.end = position.plus(row.bytes() as u64);
        assert!(self.tail.end <= self.tail.file.prepared, "frames stay below the prepared end");
        self.stated = synced_offset;
        self.frames_begun.add_one();

        let (frames, buffer) = row.finish();
        let frames = frames.map(Arc::new).zip(all_ids).collect();
        let id = self.op_id();
        self.filling.begin_write(self.commit.is_still(), now.boot_ms);
        self.commit.start(id, base_offset, InFlight { frames, position });
        Op::Write { id, file: Arc::clone(&self.tail.file.file), buffer, position }
    }
}
