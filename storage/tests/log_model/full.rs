//! A disk that has no space, and stays so: what frees space goes through and frees it, in time; and once there is some
//! appends go on by themselves.

use std::path::Path;

use strandline_storage::{
    append::TakenBack,
    config::{LogConfig, SyncMode},
    control::{Control, TopicTrimmed, TopicsDeleted},
    event::EventKind,
    io::sim::{SimDisk, rng::SimRng},
    log::{Log, Now},
    segment::SegmentName,
    settings::{LogRetention, LogSettings},
};

use crate::simulation::{
    DIR, Process,
    model::{Fate, Model, TOPICS},
    to_usize,
};

/// Space is there again, and used, after so long at most.
pub const PROMISED_MS: u64 = 30_000;

/// What else may be on the disk, so that less is left for the log: of that, so much.
const SPARE_BYTES: [usize; 4] = [0, 4 << 10, 16 << 10, 64 << 10];

/// Others take all the space but a little; returns what is left for the log, with what it has.
pub fn fill(disk: &SimDisk, rng: &mut SimRng) -> usize {
    let space_bytes = disk.space_bytes() + *rng.pick(&SPARE_BYTES);
    disk.limit_space(Some(space_bytes));
    space_bytes
}

/// Whether there is what a log keeps for that day: four times as much as a segment is begun with.
pub fn has_reserve(disk: &SimDisk, config: &LogConfig) -> bool {
    let reserve = disk.bytes(&Path::new(DIR).join("reserve.tmp"));
    reserve.is_some_and(|reserve| reserve.len() as u64 >= 4 * config.preallocate_bytes_min)
}

/// How much space there is.
pub fn free_bytes(disk: &SimDisk, space_bytes: usize) -> usize {
    space_bytes.saturating_sub(disk.space_bytes())
}

/// So much an append needs at most, and what is kept for another day beside it: a reserve for the longest segment, an
/// extension or another file, and an index.
pub fn needed_bytes(config: &LogConfig) -> usize {
    let bytes = 2 * config.segment_bytes + 2 * config.frame_bytes_max as u64;
    usize::try_from(bytes + config.preallocate_bytes_max).expect("small")
}

impl Process {
    /// All that waits for space is answered with a refusal, as a server does.
    pub fn refuse_staged(&mut self, model: &mut Model) {
        let taken = self.log.refuse_staged();
        model.refuse(&taken);
        assert_eq!(to_usize(self.log.next()), model.events.len(), "and the next gets its offset");
    }

    /// So much time passes, in which all that begins completes at once.
    pub fn pass(&mut self, passed_ms: u64, rng: &mut SimRng, model: &mut Model, now: &mut Now) {
        let until_ms = now.boot_ms + passed_ms;
        loop {
            self.settle(rng, model, *now);
            if now.boot_ms >= until_ms || self.disk.is_crashed() {
                return;
            }
            let next_ms = self.log.deadline().unwrap_or(until_ms).clamp(now.boot_ms, until_ms);
            now.wall_ms += next_ms - now.boot_ms;
            now.boot_ms = next_ms;
            model.passes(*now);
        }
    }

    /// Somebody deletes, trims or limits what is there: no segment that holds nothing else is there soon after. Tells
    /// how it went.
    pub fn make_room(&mut self, rng: &mut SimRng, model: &mut Model, now: &mut Now) -> String {
        let controls = match rng.below(3) {
            0 => {
                let late = (1..=model.topics_made).map(|number| format!("late/{number}"));
                let topics = TOPICS.iter().map(|topic| (*topic).to_owned()).chain(late);
                vec![Control::Deleted(TopicsDeleted::of(topics.collect()))]
            }
            1 => {
                let before = model.events.len() as u64;
                let trimmed = |topic: &&str| TopicTrimmed { topic: (*topic).to_owned(), before };
                TOPICS.iter().map(|topic| Control::Trimmed(trimmed(topic))).collect()
            }
            _ => {
                let retain = LogRetention { count: Some(1), ..LogRetention::default() };
                vec![Control::Log(LogSettings { retain })]
            }
        };
        // Else what was staged before would keep it waiting.
        self.refuse_staged(model);
        let mut taken = Vec::new();
        let mut end = 0;
        for control in controls {
            self.settle(rng, model, *now);
            let is_full = self.log.is_disk_full();
            let appended = self.log.append_control(&control, *now);
            taken.push(appended.is_ok());
            if let Ok(appended) = appended {
                model.append(vec![control.event()], appended.time_ms);
                // One for which space was hoped waits for it where there is no room, as an event does.
                end = if is_full { model.events.len() } else { end };
            }
        }
        let sealed: Vec<SegmentName> = names(&self.log).collect();
        self.pass(PROMISED_MS, rng, model, now);
        if taken.iter().all(|taken| *taken) && self.is_sound() {
            assert!(to_usize(self.log.visible()) >= end, "what frees space is not written");
            let is_written = self.log.visible() == self.log.next();
            assert!(is_written || self.log.is_disk_full(), "there is space, and it is not used");
            // Where nothing is synced otherwise it is for the sake of a full disk.
            if self.log.config().sync == SyncMode::Commit || self.log.is_disk_full() {
                self.check_freed(&sealed, model);
            }
        }
        format!("{taken:?} of what frees space is taken, full: {}", self.log.is_disk_full())
    }

    /// Nothing keeps it from its work.
    pub fn is_sound(&self) -> bool {
        !self.disk.is_crashed() && self.log.poisoned().is_none()
    }

    /// None of the segments that were there holds nothing but what is gone.
    fn check_freed(&self, sealed: &[SegmentName], model: &Model) {
        let fates = model.fates(model.seen);
        let start = to_usize(self.log.start());
        for segment in self.log.segments().iter() {
            let name = segment.name();
            // One that is damaged stays until it was read again, also where a read has failed that would not fail now.
            let is_damaged = model.is_rotten(name) || self.damaged.contains(&name);
            if !sealed.contains(&name) || is_damaged {
                continue;
            }
            let mut offsets = to_usize(segment.base())..to_usize(segment.end());
            let is_gone = offsets.all(|offset| {
                let is_data = model.events[offset].event.kind == EventKind::Data;
                offset < start || (is_data && fates.of(offset) == Fate::Goes)
            });
            assert!(!is_gone, "all of {name:?} is gone, and it is there");
        }
    }
}

impl Model {
    /// What had not been written from an offset on was refused, but for control events that free space.
    pub fn refuse(&mut self, taken: &TakenBack) {
        let from = to_usize(taken.from);
        let refused = self.events.split_off(from);
        self.boundaries.retain(|start| *start < from);
        self.taken.retain(|taken| taken.first < from);
        let mut unread = self.unread.split_off(&from);
        for (before, now) in &taken.kept {
            let kept = refused[to_usize(*before) - from].clone();
            assert!(!kept.event.kind.is_data(), "{before} frees no space, and is not refused");
            assert_eq!(to_usize(*now), self.events.len(), "it takes the next offset");
            if let Some(late_ms) = unread.remove(&to_usize(*before)) {
                self.unread.insert(self.events.len(), late_ms);
            }
            self.boundaries.push(self.events.len());
            self.events.push(kept);
        }
    }
}

fn names(log: &Log<SimDisk>) -> impl Iterator<Item = SegmentName> {
    log.segments().iter().map(|segment| segment.name())
}
