//! What a log keeps: limits are looked at once a second, and when the disk is full.

use std::{collections::HashSet, io, sync::Arc};

use super::{Close, JobState, Jobs, Log, Notice, Now};
use crate::{
    config::LogConfig,
    control::{Control, TopicsDeleted},
    earliest::{KeepJob, Record},
    error::{AppendError, OpenError},
    event::EventKind,
    index::{delta, stub::StubLimits},
    io::{Disk, is_full},
    mutation::{self, Mutation},
    offset::Offset,
    once::producers::FORGOTTEN_MS,
    op::Job,
    retention,
    retire::{CloseJob, RetireJob},
    segment::SegmentName,
    segment_set::SealedSegment,
    topics::FoundOver,
};

/// Limits are looked at so often.
const RETENTION_MS: u64 = 1_000;
/// A removal that failed is tried again so often.
const RETIRE_RETRY_MS: u64 = 10_000;
/// So often it is looked whether a segment that is gone is still read.
const CLOSE_LOOK_MS: u64 = 1_000;
/// So many topics are looked at at once for whether they are over,
const EXPIRY_TOPICS: u32 = 200;
/// fewer where there are more patterns than so many,
const EXPIRY_PATTERNS: usize = 100;
/// and the next ones so much later.
const EXPIRY_MS: u64 = 20;
/// A full disk has room for a deletion of so many, whatever their names.
const EXPIRY_TOPICS_FULL: usize = 16;
/// Where syncs are rarer, or there are none, what decides over events is synced so long after it was written.
const RULES_SYNC_MS: u64 = 1_000;
/// An idle segment that holds only events that are gone is ended once it has so many bytes.
const ENDED_BYTES_MIN: u64 = 1 << 20;

/// How far limits reach. Of what is synced nobody is told that it is gone before that is written down, unless writing
/// fails.
#[derive(Debug)]
pub(super) struct Kept {
    /// They keep nothing before it.
    wanted: Offset,
    /// What the next start will know of, at least, whatever becomes of the segments.
    pub(super) durable: Offset,
    /// So much was synced when the last try to write it down began, which failed.
    failed_at: Option<Offset>,
    /// Where the next is written; `None`: into a new file.
    slot: Option<usize>,
}

impl Kept {
    /// Of a log that was opened; as far as only rewritten segments say it, that is to be written down.
    pub(super) fn new(keep_from: Offset, durable: Offset) -> Kept {
        Kept { wanted: keep_from, durable, failed_at: None, slot: None }
    }
}

impl<D: Disk> Log<D> {
    /// How long a segment may become.
    pub(super) fn segment_bytes(&self) -> u64 {
        let configured = self.config.segment_bytes;
        let bytes_min = LogConfig::SEGMENT_BYTES_MIN.min(configured);
        retention::segment_bytes(configured, &self.state.rules.log().retain, bytes_min)
    }

    /// When limits are to be looked at again; `None` if there are none.
    pub(super) fn retention_due_boot_ms(&self) -> Option<u64> {
        let retain = &self.state.rules.log().retain;
        let has_limits = retain.age_s.or(retain.bytes).or(retain.count).is_some();
        let limits = has_limits.then_some(self.retention_boot_ms);
        let expiry = self.state.rules.have_expiry().then_some(self.expiry_boot_ms);
        let due_ms = limits.into_iter().chain(expiry).min();
        due_ms.filter(|_| self.close == Close::Open)
    }

    /// Looks at the limits and for topics that are over, if it is time.
    pub(super) fn apply_limits(&mut self, now: Now) {
        if self.retention_due_boot_ms().is_none_or(|due_ms| due_ms > now.boot_ms) {
            return;
        }
        if self.retention_boot_ms <= now.boot_ms {
            self.look_at_limits(now);
        }
        if self.expiry_boot_ms <= now.boot_ms {
            self.end_topics(now);
        }
    }

    fn look_at_limits(&mut self, now: Now) {
        self.retention_boot_ms = now.boot_ms.saturating_add(RETENTION_MS);
        let retain = self.state.rules.log().retain;
        let visible = self.visible();
        let oldest_ms = retain.age_s.map(|age_s| {
            let (time_ms, notice) = self.clock.limit_time(now);
            self.notices.extend(notice.map(Notice::Clock));
            time_ms.saturating_sub(age_s.saturating_mul(1_000))
        });
        let unsealed_bytes = self.unsealed.iter().map(|segment| segment.end.end_position.get());
        let (from, by_age) = retention::sealed_keep_from(
            &retain,
            &self.segments,
            visible,
            unsealed_bytes.sum(),
            oldest_ms,
        );
        let by_age = by_age.unwrap_or_else(|| self.unsealed_kept_at_time(oldest_ms.unwrap_or(0)));
        self.kept.wanted = self.kept.wanted.max(from.max(by_age).min(visible));
        if self.is_written_down(self.kept.wanted) {
            self.keep_from = self.kept.wanted;
        }
        self.forget_floors();
        self.end_stale_segment();
    }

    /// Limits have changed: what those before wanted, and nothing has been written down of, stays.
    pub(super) fn settle_limits(&mut self) {
        self.kept.wanted = self.keep_from;
    }

    /// Whether settings of the log are staged while it is written down how far those before have reached. They may be looser,
    /// and that would be told after the answer to them, so they are not written before.
    pub(super) fn has_setting_that_waits(&self) -> bool {
        let is_setting = |kind| kind == EventKind::LogSettings;
        let mut staged = self.staging.events().map(|staged| staged.event.kind);
        self.jobs.keep == JobState::Running && staged.any(is_setting)
    }

    /// Whether settings of the log are being written.
    fn writes_setting(&self) -> bool {
        let frames = self.commit.pending().flat_map(|write| &write.frames);
        let mut events = frames.flat_map(|(frame, _)| frame.events());
        events.any(|event| event.kind() == EventKind::LogSettings)
    }

    /// Whether it is written down that limits have reached `from`, as far as it may be. What readers see without a
    /// sync, be it an event or a setting of the log, a power cut takes back, and the log is another then: nothing of
    /// it is written down before it is synced.
    fn is_written_down(&self, from: Offset) -> bool {
        let is_setting_synced = self.last_log_setting < self.synced().max(Offset::new(1));
        self.kept.durable >= from.min(self.synced()) || !is_setting_synced
    }

    /// Whether that goes for all that readers were told is gone: what they were told before it was synced follows once
    /// it is, and what could not be written down is tried again.
    fn is_told_written_down(&self) -> bool {
        self.is_written_down(self.keep_from) || mutation::is_planted(Mutation::ReachNotFollowed)
    }

    /// Whether a log that closes may say that it ended cleanly: what cannot be written down, tried once all was
    /// synced, is not waited for.
    pub(super) fn is_reach_settled(&self) -> bool {
        let is_waiting = matches!(self.jobs.keep, JobState::Waiting { .. });
        self.is_told_written_down() || (is_waiting && self.kept.failed_at == Some(self.synced()))
    }

    /// Tries at once what waits for its next try: the log closes.
    pub(super) fn keep_once_more(&mut self) {
        self.kept.failed_at = None;
    }

    /// Writes down how far limits reach, if readers are to be told more than before, or were.
    pub(super) fn next_keep(&mut self) -> Option<Job<D>> {
        let is_further = self.kept.wanted > self.keep_from && self.close == Close::Open;
        let may_begin = match self.jobs.keep {
            JobState::Idle => is_further || !self.is_told_written_down(),
            JobState::Waiting { .. } => self.close != Close::Open && !self.is_reach_settled(),
            JobState::Running => false,
        };
        if !may_begin || self.writes_setting() {
            return None;
        }
        self.jobs.keep = JobState::Running;
        let (keep_from, end) = (self.kept.wanted, self.synced());
        let record = Record { kept_from: keep_from.min(end), end };
        Some(Job::Keep(KeepJob { dir: self.dir.clone(), record, slot: self.kept.slot, keep_from }))
    }

    pub(super) fn kept(&mut self, job: &KeepJob, result: io::Result<()>, now: Now) {
        let failed_at = result.is_err().then_some(job.record.end);
        let had_failed = std::mem::replace(&mut self.kept.failed_at, failed_at).is_some();
        match result {
            Ok(()) => {
                self.jobs.keep = JobState::Idle;
                self.keep_from = self.keep_from.max(job.keep_from);
                self.kept.durable = self.kept.durable.max(job.record.kept_from);
                self.kept.slot = Some(job.next_slot());
            }
            Err(error) => {
                if self.close == Close::Open {
                    // It holds all the same: else a full disk would stay so.
                    self.keep_from = self.keep_from.max(job.keep_from);
                }
                self.jobs.keep = JobState::after(now, RETENTION_MS, is_full(&error));
                self.jobs.needs_reserve |= is_full(&error)
                    && self.jobs.disk_full
                    && self.jobs.reserve_bytes > 0
                    && self.is_retirement_kept_waiting();
                self.kept.slot = None;
                if !had_failed {
                    let reason = format!("writing down what is kept: {error}");
                    self.notices.push(Notice::RetireFailed { reason });
                }
            }
        }
        self.forget_floors();
        self.end_stale_segment();
    }

    /// The same for a segment of which much may be dead, on a full disk: once it is ended it is rewritten.
    pub(super) fn end_segment_for_space(&mut self) {
        if !self.jobs.ends_for_space {
            return;
        }
        // Control events stay as long as their segment: one that has nothing else would give nothing.
        let active = self.unsealed.back().expect("there is always an active segment");
        let has_data = active.index.event_count() > self.tail.controls;
        let is_long = self.tail.end.get() >= self.ended_bytes_min();
        let is_worth_it = self.jobs.disk_full && is_long && has_data;
        self.jobs.ends_for_space = is_worth_it;
        if is_worth_it && self.may_end_early() && self.visible() > self.tail.base {
            self.jobs.rolling = true;
        }
    }

    /// Whether the segment may end before it is full: nothing is on its way into it. Not once the log closes: another
    /// one may find no space, and the log's last word has some where it is.
    fn may_end_early(&self) -> bool {
        let is_still = self.staging.is_empty() && self.commit.is_still() && self.commit.is_clean();
        is_still && self.close == Close::Open
    }

    /// A shorter segment is not ended before it is full.
    fn ended_bytes_min(&self) -> u64 {
        ENDED_BYTES_MIN.min(self.segment_bytes() / 2)
    }

    /// Deletes topics that are over: some are looked at each time, so that this takes no millisecond.
    fn end_topics(&mut self, now: Now) {
        self.expiry_boot_ms = now.boot_ms.saturating_add(RETENTION_MS);
        if !self.state.rules.have_expiry() || !self.has_room_for_expiry() {
            return;
        }
        // Not the wall clock: one that leaps would end everything.
        let (now_ms, notice) = self.clock.limit_time(now);
        self.notices.extend(notice.map(Notice::Clock));
        let rules = &self.state.rules;
        let is_over =
            |topic: &str, first_ms, last_ms| rules.is_over(topic, first_ms, last_ms, now_ms);
        // Each may have to be compared with every pattern.
        let share = 1 + u32::try_from(rules.pattern_count() / EXPIRY_PATTERNS).unwrap_or(u32::MAX);
        let count = (EXPIRY_TOPICS / share).max(1);
        let from = self.expiry_from;
        let (mut over, next) = self.topics.find_over(from, count, is_over);
        self.expiry_from = next;
        if !over.is_empty() {
            self.keep_what_goes_on(&mut over, now_ms);
        }
        if self.jobs.disk_full && over.len() > EXPIRY_TOPICS_FULL {
            over.truncate(EXPIRY_TOPICS_FULL);
            self.expiry_from = over.last().map_or(next, |last| last.number + 1);
        }
        if self.expiry_from != 0 {
            self.expiry_boot_ms = now.boot_ms.saturating_add(EXPIRY_MS);
        }
        let topics: Vec<String> = over.into_iter().map(|over| over.topic).collect();
        if topics.is_empty() {
            return;
        }
        if self.end_all(&topics, now).is_err() {
            // They are found again.
            self.expiry_from = from;
            self.expiry_boot_ms = now.boot_ms.saturating_add(RETENTION_MS);
        }
    }

    /// Deletes topics, by as many events as it takes where one must not be so long. A topic that none can name stays, and
    /// keeps no other from ending. The error: later they may be deleted.
    fn end_all(&mut self, topics: &[String], now: Now) -> Result<(), AppendError> {
        let deleted = Control::Deleted(TopicsDeleted::of(topics.to_vec()));
        let refused = match self.append_control(&deleted, now) {
            Err(
                refused @ (AppendError::EventTooLarge { .. } | AppendError::BatchTooLarge { .. }),
            ) => refused,
            done => return done.map(|_| ()),
        };
        if topics.len() > 1 {
            let (some, others) = topics.split_at(topics.len() / 2);
            self.end_all(some, now)?;
            return self.end_all(others, now);
        }
        if !std::mem::replace(&mut self.is_expiry_refused, true) {
            let (topic, reason) = (topics.concat(), refused.to_string());
            self.notices.push(Notice::ExpiryRefused { topic, reason });
        }
        Ok(())
    }

    /// Of topics that are over by what is visible, takes out those that are not by what is on its way: their
    /// deletion comes behind that.
    fn keep_what_goes_on(&self, over: &mut Vec<FoundOver>, now_ms: u64) {
        let mut rules = self.state.rules.clone();
        let mut deleted = HashSet::new();
        for control in self.controls_on_their_way() {
            match control {
                // What comes behind its deletion is another life of a topic.
                Control::Deleted(topics) => deleted.extend(topics.topics),
                // Where it stands does not matter to settings.
                Control::Topic(_) => drop(rules.apply(&control, Offset::ZERO)),
                Control::Log(_) | Control::Trimmed(_) => {}
            }
        }
        over.retain(|FoundOver { topic, first_ms, last_ms, .. }| {
            // One that has an event on its way is not idle, but it may be old.
            let is_busy = self.last_of(topic) != self.topics.last_ever(topic);
            let last_ms = if is_busy { now_ms } else { *last_ms };
            !deleted.contains(topic) && rules.is_over(topic, *first_ms, last_ms, now_ms)
        });
    }

    /// The control events that are staged or being written, in order.
    fn controls_on_their_way(&self) -> impl Iterator<Item = Control> {
        let frames = self.commit.pending().flat_map(|write| &write.frames);
        let written = frames.flat_map(|(frame, _)| {
            let controls = frame.events().filter(|event| !event.kind().is_data());
            controls.filter_map(|event| Control::decode(event.kind(), event.data()))
        });
        let staged = self.staging.events().map(|staged| &staged.event);
        let staged = staged.filter(|event| !event.kind.is_data());
        written.chain(staged.filter_map(|event| Control::decode(event.kind, &event.data)))
    }

    /// Where all that limits a log is how old its topics may become, this is what frees a full disk. Half of the
    /// room for that is left to those who delete something by hand.
    fn has_room_for_expiry(&self) -> bool {
        let half_bytes = usize::try_from(self.control_room_bytes() / 2).unwrap_or(usize::MAX);
        !self.jobs.disk_full || self.has_control_room((1, half_bytes))
    }

    /// The frame of the unsealed part in which, or behind which, the first event of `oldest_ms` or
    /// later stands; or segments of lost events right before it that are as old as that.
    fn unsealed_kept_at_time(&self, oldest_ms: u64) -> Offset {
        let first = self.unsealed.iter().find(|segment| segment.index.event_count() > 0);
        if first.is_none_or(|segment| segment.index.first_time_ms() >= oldest_ms)
            && let Some(gaps) = self.segments.timeless_segments_at_end()
        {
            return gaps;
        }
        let found = self.unsealed.iter().find_map(|segment| {
            let index = segment.index.frame_index_at_time(oldest_ms)?;
            Some(segment.index.frames()[index].base_offset)
        });
        found.unwrap_or(self.visible())
    }

    /// Begins a new segment if all events of the active one are gone: else an idle log keeps them.
    fn end_stale_segment(&mut self) {
        let is_stale = self.keep_from >= self.visible() && self.visible() > self.tail.base;
        if is_stale && self.may_end_early() && self.tail.end.get() >= self.ended_bytes_min() {
            self.jobs.rolling = true;
        }
    }

    /// The oldest sealed segment, if all of its events are gone.
    pub(super) fn next_retirement(&mut self) -> Option<Job<D>> {
        let is_idle = self.jobs.retire == JobState::Idle;
        if !is_idle || self.close != Close::Open || !self.are_rules_synced() {
            return None;
        }
        let mut gone = self.segments.iter().take_while(|segment| segment.end() <= self.keep_from);
        let first = gone.next()?;
        // One that is damaged stays, and keeps no other of which the next start knows that it is gone: it would find
        // the log beginning with the one that stays.
        let segment = if self.is_sound(first.name()) {
            first
        } else {
            let mut known = gone.take_while(|segment| segment.end() <= self.kept.durable);
            known.find(|segment| self.is_sound(segment.name()))?
        };
        let segment = Arc::clone(segment);
        if self.jobs.compact == JobState::Running {
            // Space that is short does not wait for a rewrite, which may take minutes: unless that may be what gives some.
            if self.jobs.disk_full && !self.jobs.retires_in_vain {
                self.cancel_compaction();
            }
            return None;
        }
        self.jobs.retire = JobState::Running;
        let limits = self.stub_limits();
        Some(Job::Retire(RetireJob { dir: self.dir.clone(), segment, limits }))
    }

    /// Whether a segment stays only because it is not written down how far limits have reached: it lies behind a damaged one.
    fn is_retirement_kept_waiting(&self) -> bool {
        let gone = self.segments.iter().take_while(|segment| segment.end() <= self.keep_from);
        let mut behind = gone.skip_while(|segment| self.is_sound(segment.name()));
        behind.any(|segment| self.is_sound(segment.name()) && segment.end() > self.kept.durable)
    }

    /// Whether what decides over events is on the device: where readers see more than that, a power cut
    /// could take back the rule and leave what it had done.
    pub(super) fn are_rules_synced(&self) -> bool {
        self.are_controls_synced() && self.keep_from <= self.synced()
    }

    /// When they have to be: where nothing else brings a sync, as in a log that syncs never, what they let go would stay.
    pub(super) fn rules_due_boot_ms(&self) -> Option<u64> {
        let since_ms = self.rules_wait_since_boot_ms.filter(|_| self.commit.is_to_be_synced())?;
        Some(since_ms.saturating_add(RULES_SYNC_MS))
    }

    /// Notes since when they are not.
    pub(super) fn note_rules(&mut self, now: Now) {
        let since_ms = self.rules_wait_since_boot_ms.unwrap_or(now.boot_ms);
        self.rules_wait_since_boot_ms = (!self.are_rules_synced()).then_some(since_ms);
    }

    fn are_controls_synced(&self) -> bool {
        self.last_control < self.synced().max(Offset::new(1))
    }

    /// What of the state nobody asks for any more, by the time of the last event.
    pub(super) fn stub_limits(&self) -> StubLimits {
        let (now_ms, window_ms) = (self.clock.last_ms(), self.config.id_window().time_ms);
        let since = |ahead_ms, span_ms| now_ms.saturating_sub(ahead_ms).saturating_sub(span_ms);
        StubLimits {
            ids_since_ms: since(self.ids_ahead_ms(), window_ms),
            producers_since_s: delta::seconds(since(self.producers_ahead_ms(), FORGOTTEN_MS)),
        }
    }

    pub(super) fn retired(&mut self, name: SegmentName, result: Result<(), OpenError>, now: Now) {
        match result {
            Ok(()) => {
                self.jobs.retire = JobState::Idle;
                self.jobs.retires_in_vain = false;
                self.note_retired(name);
                self.segments = Arc::new(self.segments.expired(name));
                self.forget_floors();
                self.retry_for_space();
            }
            Err(OpenError::Corrupt(damage)) => {
                // It would never become a stub: the next one does.
                self.jobs.retire = JobState::Idle;
                self.note_damage(name, damage.to_string());
            }
            Err(error) => {
                self.note_full(&error);
                self.jobs.retires_in_vain = error.is_full() && self.jobs.reserve_bytes == 0;
                self.jobs.retire = JobState::after(now, RETIRE_RETRY_MS, false);
                self.notices.push(Notice::RetireFailed { reason: error.to_string() });
            }
        }
    }

    /// The disk is full: what can be freed is freed at once.
    pub(super) fn free_space(&mut self) {
        self.retention_boot_ms = 0;
        self.expiry_boot_ms = 0;
        self.compact_at_once();
    }

    /// The rules have changed: what goes by them is looked for at once. What is not asked for keeps its pace, or a topic
    /// deleted each second would have a rewrite that has failed begun again each second.
    pub(super) fn hurry_looks(&mut self, control: &Control, is_for_sealed: bool) {
        if self.jobs.disk_full {
            return self.free_space();
        }
        self.retention_boot_ms = 0;
        if matches!(control, Control::Topic(_)) {
            self.expiry_boot_ms = 0;
        }
        if is_for_sealed {
            self.look_at_sealed();
        }
    }

    pub(super) fn compact_at_once(&mut self) {
        if matches!(self.jobs.compact, JobState::Waiting { .. }) {
            self.jobs.compact = JobState::Idle;
        }
    }

    /// A segment will not be in the set any more.
    pub(super) fn note_gone(&mut self, name: SegmentName) {
        let segment = self.segments.iter().find(|segment| segment.name() == name);
        self.gone.extend(segment.cloned());
        self.forget_scrubbing(name);
    }

    /// Closes what is gone once nobody reads it any more, where nobody waits for that.
    pub(super) fn next_close(&mut self, now: Now) -> Option<Job<D>> {
        if self.jobs.close != JobState::Idle || self.gone.is_empty() || self.close != Close::Open {
            return None;
        }
        self.written.retain(|(_, file)| file.strong_count() > 0);
        let written = &self.written;
        let is_unread = |segment: &mut Arc<SealedSegment<D>>| {
            segment.is_unread() && written.iter().all(|(name, _)| *name != segment.name())
        };
        // One at a time: a log that ends waits for no more than that.
        let Some(segment) = self.gone.extract_if(.., is_unread).next() else {
            self.jobs.close = JobState::after(now, CLOSE_LOOK_MS, false);
            if self.jobs.disk_full {
                // It has what is gone open, and it would take space.
                self.cancel_snapshot();
            }
            return None;
        };
        self.jobs.close = JobState::Running;
        let (is_urgent, is_cancelled) = (self.jobs.disk_full, Arc::clone(&self.is_ending));
        Some(Job::Close(CloseJob { segment, is_urgent, is_cancelled }))
    }

    /// Its space is back: what was done without it may go on.
    pub(super) fn closed(&mut self) {
        self.jobs.close = JobState::Idle;
        self.forget_floors();
        if self.jobs.disk_full {
            self.retry_for_space();
            self.compact_at_once();
        }
    }

    /// There is more space: what waits for some need not wait for its next look.
    pub(super) fn retry_for_space(&mut self) {
        let Jobs { extend, prepare, reserve, keep, .. } = &mut self.jobs;
        for state in [extend, prepare, reserve, keep] {
            if matches!(*state, JobState::Waiting { is_full: true, .. }) {
                *state = JobState::Idle;
            }
        }
    }

    /// The first offset of a topic that is kept.
    pub fn keeps_from(&self, topic: &str) -> Offset {
        self.state.rules.floors().of(topic).max(self.start())
    }
}
