//! Thousands of random lives of a log: appends, commits in any order, faults, crashes at any
//! operation, and recovery, compared with a model at every step.
//!
//! A life is a list of steps that a seed gives. Each step makes its own random choices, from a seed of
//! its own, so that a step means the same when others are left out: a life that fails is shortened as
//! long as it still fails, and what is left is told.
//!
//! A failed run prints its seed; `STRANDLINE_SEED=n` repeats it, `STRANDLINE_RUNS=n` has more of them, and
//! `STRANDLINE_FIRST=n` others.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind, set_hook, take_hook};

use strandline_storage::{
    clock::LEAP_HOLD_MS,
    config::LogConfig,
    error::OpenError,
    io::{
        Disk,
        sim::{FAULTS, Fault, SimDisk, rng::SimRng},
    },
    log::Now,
    segment::SegmentName,
};

mod backups;
mod full;
mod losses;
mod mending;
mod readers;
mod rot;
mod rot_beside;
#[path = "../simulation/mod.rs"]
mod simulation;
mod steps;

use backups::Backup;
use readers::Held;
use simulation::{
    BEGIN, DIR, Process, Tally,
    controls::{limit, removal},
    from_environment,
    model::Model,
    shrink::shrunk,
};
use steps::{Step, StepKind, life, retention, sync_mode};

/// How many runs there are without being told.
const RUNS: u64 = 4000;

/// Where writes may be so long, and each batch has a frame of its own, this many appends come at once: enough for
/// writes of several frames.
const WRITE_BYTES_MAX: usize = 1 << 20;
const BURST: usize = 8;

/// Synced events are a prefix of what survives, which is a prefix of what was appended.
#[test]
fn a_log_keeps_what_it_promised() {
    let seeds = match from_environment("STRANDLINE_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let first = from_environment("STRANDLINE_FIRST").unwrap_or(0);
            first..first + from_environment("STRANDLINE_RUNS").unwrap_or(RUNS)
        }
    };
    let is_whole = seeds.end - seeds.start >= RUNS;
    let mut tally = Tally::default();
    for seed in seeds {
        let steps = life(seed);
        match outcome(seed, &steps) {
            Some(met) => tally += met,
            None => tell_failure(seed, &steps),
        }
    }
    println!("{tally:?}");
    // Half of what was met when this was written.
    let Tally { rows, rows_cut, into_blocks, back_to_zeroes, .. } = tally;
    let is_met = rows > 750 && rows_cut > 50 && into_blocks > 2_900 && back_to_zeroes > 150;
    let Tally { rewritten, removed, snapshots, .. } = tally;
    let is_met = is_met && rewritten > 1_650 && removed > 4_000 && snapshots > 5_800;
    let Tally { rooms, spaces_back, ids_anew, epochs, fenced, forgotten, over, .. } = tally;
    let is_met = is_met && rooms > 45 && spaces_back > 48 && ids_anew > 2_400 && over > 370;
    let is_met = is_met && epochs > 290 && fenced > 150 && forgotten > 14;
    let is_met = is_met && tally.doubts_over > 11;
    let Tally { backups, backups_renewed, cuts, overtaken, .. } = tally;
    let is_met = is_met && backups > 1_100 && backups_renewed > 800 && cuts > 500;
    let is_met = is_met && overtaken > 650;
    let Tally { rotten_files, remade, refused, repairs, forgotten_by_repairs, .. } = tally;
    let is_met = is_met && rotten_files > 650 && remade > 130 && refused > 50;
    let is_met = is_met && repairs > 210 && forgotten_by_repairs > 40;
    assert!(is_met || !is_whole, "lives are not what they are meant to be any more: {tally:?}");
}

/// How a life went; `None` if it failed.
fn outcome(seed: u64, steps: &[Step]) -> Option<Tally> {
    catch_unwind(AssertUnwindSafe(|| Life::new(seed, false).live(steps))).ok()
}

/// Shortens a life that fails, tells it, and fails.
fn tell_failure(seed: u64, steps: &[Step]) {
    let hook = take_hook();
    set_hook(Box::new(|_| {}));
    let short = shrunk(steps, |fewer| outcome(seed, fewer).is_none());
    set_hook(hook);
    eprintln!(
        "run failed; repeat it with STRANDLINE_SEED={seed}. Of its {} steps, {} are enough:",
        steps.len(),
        short.len()
    );
    let told = catch_unwind(AssertUnwindSafe(|| Life::new(seed, true).live(&short)));
    resume_unwind(told.expect_err("it failed a moment ago"));
}

/// A log while it lives.
struct Life {
    rng: SimRng,
    disk: SimDisk,
    model: Model,
    config: LogConfig,
    now: Now,
    process: Option<Process>,
    /// What may have made an open or a write fail.
    trouble: bool,
    /// Whether that may be more than a want of space, since the process began or before.
    may_poison: bool,
    /// How much space the disk has, if it is short of it.
    space_bytes: Option<usize>,
    /// The newest that is whole.
    backup: Option<Backup>,
    /// Those that are under way.
    readers: Vec<Held>,
    narrated: bool,
}

impl Life {
    fn new(seed: u64, narrated: bool) -> Self {
        let mut rng = SimRng::new(!seed);
        let disk = SimDisk::new(rng.next_u64());
        disk.refuse_direct(rng.chance(30));
        disk.refuse_allocation(rng.chance(30));
        disk.create_dir(DIR.as_ref()).expect("an empty disk");
        let frame_bytes_max = *rng.pick(&[16 << 10, 32 << 10]);
        let config = LogConfig {
            segment_bytes: *rng.pick(&[8 << 10, 16 << 10, 32 << 10, 64 << 10, 512 << 10]),
            frame_bytes_target: *rng.pick(&[1, 4 << 10, 16 << 10]),
            frame_bytes_max,
            event_bytes_max: frame_bytes_max - (8 << 10),
            staged_bytes_max: 64 << 10,
            writes_in_flight_max: *rng.pick(&[1, 2, 4, 8]),
            write_bytes_max: *rng.pick(&[1, 16 << 10, WRITE_BYTES_MAX]),
            sync: sync_mode(&mut rng),
            idle_frame_ms: 100,
            preallocate_bytes_min: *rng.pick(&[4 << 10, 16 << 10]),
            preallocate_bytes_max: 32 << 10,
            blocks_from_bytes: *rng.pick(&[1, 1 << 10, 64 << 10]),
            recent_frames_bytes_max: *rng.pick(&[0, 16 << 10, 1 << 20]),
            id_window_events: *rng.pick(&[3, 8, 1_000_000, 1_000_000]),
            id_window_s: *rng.pick(&[1, 60, 1_000_000_000, 1_000_000_000]),
            scrub_interval_s: *rng.pick(&[1, 1_000_000]),
            scrub_bytes_per_s: 1 << 20,
            reserve_bytes: *rng.pick(&[0, 16 << 10]),
            compress_after_s: *rng.pick(&[0, 1, 1_000_000_000]),
            snapshot_segments: *rng.pick(&[1, 1, 2, 8]),
            preallocate_rest_bytes_max: *rng.pick(&[0, 64 << 20]),
        };
        let (model, process) = (Model::default(), None);
        Life {
            rng,
            disk,
            model,
            config,
            now: BEGIN,
            process,
            trouble: false,
            may_poison: false,
            space_bytes: None,
            backup: None,
            readers: Vec::new(),
            narrated,
        }
    }

    fn live(mut self, steps: &[Step]) -> Tally {
        self.tell(&format!("{:?}", self.config));
        for step in steps {
            self.rng = SimRng::new(step.seed);
            self.disk.reseed(step.seed);
            self.step(step.kind);
            if self.model.has_lost_settings() {
                return self.end_without_settings();
            }
        }
        // At the end all trouble is over: the log opens, and goes on opening after a last power cut.
        self.process = None;
        self.end_trouble();
        self.mend_if_refused();
        if self.model.has_lost_settings() {
            return self.end_without_settings();
        }
        for _ in 0..2 {
            self.disk = self.disk.power_cut();
            self.tell("a last power cut");
            self.model.look_at_files(&self.disk);
            self.model.forget_start(&self.disk);
            let opened = Process::open(&self.disk, self.config.clone(), self.now, &mut self.model);
            let mut process = opened.expect("there is no more trouble");
            process.check_reads(&mut self.rng, &self.model);
            process.append(&mut self.rng, &mut self.model, self.now);
            process.settle(&mut self.rng, &mut self.model, self.now);
            process.append_taken(&mut self.rng, &mut self.model, self.now);
            process.check_reads(&mut self.rng, &self.model);
        }
        self.model.look_at_files(&self.disk);
        if !self.model.rotten.is_empty() || !self.model.rotten_files.is_empty() {
            self.find_rot();
        }
        self.check_backup();
        self.tally()
    }

    fn tally(self) -> Tally {
        Tally { into_blocks: self.disk.writes_into_blocks(), ..self.model.tally }
    }

    fn step(&mut self, kind: StepKind) {
        match kind {
            StepKind::Open if self.process.is_none() => self.open(),
            StepKind::ChangeSync => self.config.sync = sync_mode(&mut self.rng),
            StepKind::DiskSettles => self.disk_settles(),
            StepKind::Arm => self.arm(10),
            StepKind::Fuse => self.light_fuse(20),
            StepKind::FillDisk => {
                self.space_bytes = Some(full::fill(&self.disk, &mut self.rng));
                self.tell("the disk is full");
            }
            StepKind::BackUp => self.back_up(),
            StepKind::RotBeside => {
                if self.process.as_ref().is_none_or(|process| !process.disk.is_crashed())
                    && let Some(rotten) =
                        rot_beside::rot_beside(&self.disk, &mut self.rng, &mut self.model)
                {
                    self.model.tally.rotten_files += 1;
                    self.tell(&rotten);
                }
            }
            StepKind::Repair if self.process.is_none() => self.repair(),
            StepKind::Repair => {}
            StepKind::Kill | StepKind::PowerCut => self.crash(kind == StepKind::PowerCut),
            _ => {
                let Some(process) = self.process.take() else { return };
                if process.disk.is_crashed() {
                    self.readers.clear();
                    self.tell("the fuse burnt");
                } else {
                    self.process = self.use_log(process, kind);
                }
            }
        }
    }

    /// Opens the log, perhaps with a crash or a fault while it recovers.
    fn open(&mut self) {
        if self.rng.chance(25) {
            self.light_fuse(60);
        }
        if self.rng.chance(10) {
            self.arm(20);
        }
        let has_reserve =
            self.config.reserve_bytes > 0 && full::has_reserve(&self.disk, &self.config);
        self.model.look_at_files(&self.disk);
        self.model.forget_start(&self.disk);
        match Process::open(&self.disk, self.config.clone(), self.now, &mut self.model) {
            Ok(process) => {
                self.tell(&format!("opened at {}", process.log.visible()));
                self.process = Some(process);
            }
            Err(error) => {
                self.tell(&format!("not opened: {error}"));
                // What it needs is what the reserve is for.
                let is_full = self.space_bytes.is_some() && !has_reserve;
                if rot_beside::may_refuse(&self.disk, &self.model, &error) {
                    self.model.tally.refused += 1;
                } else {
                    assert!(self.trouble || is_full, "nothing was wrong, but: {error}");
                    self.check_refusal(&error);
                }
                // Trying again without a restart must be as good.
                if self.disk.is_crashed() || self.rng.chance(50) {
                    let is_power_cut = self.rng.chance(50);
                    self.crash(is_power_cut);
                } else {
                    self.end_trouble();
                }
            }
        }
    }

    /// A crash is no damage, and rot is none that keeps a log from opening; but where the index of a rotten segment cannot
    /// be read just then, nothing is whole that says what was in it.
    fn check_refusal(&self, error: &OpenError) {
        let is_rotten = match error {
            OpenError::Io { .. } => return,
            OpenError::Corrupt(damage) if self.model.may_misread => {
                let name =
                    damage.file.file_name().and_then(|name| SegmentName::parse(name.to_str()?));
                name.is_some_and(|(name, _)| {
                    self.model.is_rotten(name) || self.model.rotten_index(name).is_some()
                })
            }
            _ => false,
        };
        assert!(is_rotten, "a crash is no damage: {error}");
    }

    /// Does one thing with an open log; gives it back unless it was closed.
    fn use_log(&mut self, mut process: Process, kind: StepKind) -> Option<Process> {
        let Life { rng, model, now, .. } = self;
        match kind {
            StepKind::Append => {
                process.append(rng, model, *now);
                let LogConfig { frame_bytes_target, write_bytes_max, .. } = process.log.config();
                if (*frame_bytes_target, *write_bytes_max) == (1, WRITE_BYTES_MAX) {
                    (1..BURST).for_each(|_| process.append(rng, model, *now));
                }
                // A driver may gather several appends before it asks what to do.
                if rng.chance(70) {
                    process.start_ops(model, *now);
                }
                if process.log.is_disk_full() && rng.chance(30) {
                    process.refuse_staged(model);
                }
            }
            StepKind::Complete => {
                process.start_ops(model, *now);
                if !process.pending.is_empty() {
                    process.complete(rng.index(process.pending.len()), model, *now);
                    process.start_ops(model, *now);
                }
            }
            StepKind::Retain => {
                process.control(&retention(rng), model, *now);
                process.start_ops(model, *now);
            }
            StepKind::Remove | StepKind::Limit => {
                let control = match kind {
                    StepKind::Remove => removal(model, rng),
                    _ => limit(rng),
                };
                process.control(&control, model, *now);
                process.start_ops(model, *now);
                self.tell(&format!("{control:?}"));
            }
            StepKind::Settle => {
                process.settle(rng, model, *now);
                if rng.chance(50) {
                    // Limits are looked at once a second.
                    now.boot_ms += 1_000;
                    now.wall_ms += 1_000;
                    model.passes(*now);
                    let visible = process.log.visible();
                    process.settle(rng, model, *now);
                    // What waited for space that limits have freed came behind their look.
                    if process.log.visible() == visible {
                        process.check_gone(model, *now);
                    }
                }
            }
            StepKind::Wait => {
                // After a week producers are forgotten.
                let passed_ms = match rng.chance(4) {
                    true => 8 * 24 * 3_600_000,
                    false => *rng.pick(&[1, 10, 120, 5_000, 90_000, LEAP_HOLD_MS]),
                };
                now.boot_ms += passed_ms;
                // The wall clock goes along, stands still, goes back, or leaps.
                now.wall_ms = match rng.below(10) {
                    0 => now.wall_ms,
                    1 => now.wall_ms - rng.below(10_000),
                    2 => now.wall_ms + 10 * 60 * 60 * 1000,
                    _ => now.wall_ms + passed_ms,
                };
                model.passes(*now);
                process.start_ops(model, *now);
                self.tell(&format!("{passed_ms} ms pass, {} under way", process.pending.len()));
            }
            StepKind::MakeRoom => {
                if let Some(told) = self.make_room(&mut process) {
                    self.tell(&told);
                }
            }
            StepKind::FreeDisk => {
                let is_full = process.log.is_disk_full();
                self.end_trouble();
                if is_full && process.is_sound() {
                    let Life { rng, model, now, .. } = self;
                    process.pass(full::PROMISED_MS, rng, model, now);
                    model.tally.spaces_back += 1;
                    assert!(process.is_sound(), "a full disk is no reason to stop");
                    assert!(!process.log.is_disk_full(), "there is space, and it is not used");
                    assert_eq!(process.log.visible(), process.log.next(), "what waits goes on");
                }
                self.tell(&format!("there is space again, it was full: {is_full}"));
            }
            StepKind::Rot => {
                if let Some(rotten) = rot::rot(&self.disk, &process.log, rng, model) {
                    self.tell(&rotten);
                }
            }
            StepKind::CheckReads => {
                // A read that fails is reported as such: its retry is another test's business.
                self.disk.disarm();
                self.disk.crash_after(None);
                process.check_reads(&mut self.rng, &self.model);
            }
            StepKind::ReadOn => {
                self.disk.disarm();
                self.disk.crash_after(None);
                readers::read_on(&mut self.readers, &process, rng, model);
            }
            StepKind::Close => {
                self.readers.clear();
                self.model.tally.note_background(&process.log);
                let closed = process.close(&mut self.rng, &mut self.model, self.now);
                self.tell(&format!("closed: {closed}"));
                return None;
            }
            _ => {}
        }
        if let Some(poison) = process.log.poisoned().filter(|_| !self.may_poison) {
            panic!("neither want of space nor what is asked ends a log, but: {}", poison.reason);
        }
        if matches!(kind, StepKind::Append | StepKind::Complete | StepKind::Settle) {
            self.tell(&format!("{kind:?}, {} under way", process.pending.len()));
        }
        Some(process)
    }

    /// On a disk that is full, and has no other fault, somebody deletes what is there; `None` if it is not full.
    fn make_room(&mut self, process: &mut Process) -> Option<String> {
        let space_bytes = self.space_bytes?;
        let has_reserve = full::has_reserve(&self.disk, &self.config);
        let is_right = process.log.is_disk_full() && self.config.reserve_bytes > 0 && has_reserve;
        if !is_right || !process.is_sound() {
            return None;
        }
        self.disk.disarm();
        self.disk.crash_after(None);
        let Life { rng, model, now, .. } = self;
        let told = process.make_room(rng, model, now);
        assert!(process.is_sound(), "a full disk is no reason to stop");
        model.tally.rooms += 1;
        let free_bytes = full::free_bytes(&self.disk, space_bytes);
        if free_bytes >= full::needed_bytes(process.log.config()) {
            model.tally.rooms_enough += 1;
            assert!(!process.log.is_disk_full(), "{free_bytes} bytes are free");
            assert_eq!(process.log.visible(), process.log.next(), "what waits goes on");
        }
        Some(told)
    }

    /// Ends the process in one of two ways.
    fn crash(&mut self, is_power_cut: bool) {
        if let Some(process) = &self.process {
            self.model.tally.note_background(&process.log);
        }
        self.tell(if is_power_cut { "power cut" } else { "kill" });
        (self.process, self.readers) = (None, Vec::new());
        self.model.tally.note_end(&self.disk);
        self.disk = if is_power_cut { self.disk.power_cut() } else { self.disk.kill() };
        self.may_poison = false;
        // It may be as full as it was.
        let space_bytes = self.space_bytes.filter(|_| self.rng.chance(50));
        self.end_trouble();
        // Files whose removal a power cut has taken back had their blocks all the time: no disk gives them away before.
        self.space_bytes = space_bytes.map(|bytes| bytes.max(self.disk.space_bytes()));
        self.disk.limit_space(self.space_bytes);
        self.disk_settles();
    }

    fn disk_settles(&mut self) {
        for index in (0..self.disk.late_writes()).rev() {
            match self.rng.below(4) {
                0 => {
                    self.disk.land_late(index);
                    self.tell("a write of a killed process lands");
                }
                1 => self.disk.drop_late(index),
                _ => {}
            }
        }
        if self.rng.chance(20) {
            self.disk.evict_clean_pages();
        }
    }

    fn light_fuse(&mut self, operations_max: u64) {
        let operations = self.rng.between(1, operations_max);
        self.tell(&format!("a fuse of {operations}"));
        self.disk.crash_after(Some(operations));
        (self.trouble, self.may_poison) = (true, true);
    }

    fn arm(&mut self, after_max: u64) {
        let (fault, after) = (*self.rng.pick(&FAULTS), self.rng.below(after_max));
        self.tell(&format!("{fault:?} after {after}"));
        self.disk.arm(fault, after);
        self.trouble = true;
        // Want of space, and what is only asked for, end no log.
        let ends_nothing = [
            Fault::CreateFails,
            Fault::AllocateFindsNoSpace,
            Fault::RenameFindsNoSpace,
            Fault::ListFails,
            Fault::StatFails,
            Fault::SpaceFails,
            Fault::LinkFails,
        ];
        self.may_poison |= !ends_nothing.contains(&fault);
        self.model.may_misread |=
            matches!(fault, Fault::ReadFails | Fault::OpenFails | Fault::StatFails);
    }

    fn end_trouble(&mut self) {
        self.model.may_misread = false;
        self.disk.disarm();
        self.disk.crash_after(None);
        self.disk.limit_space(None);
        self.space_bytes = None;
        self.trouble = false;
    }

    fn tell(&self, what: &str) {
        if self.narrated {
            let Model { events, safe, seen, .. } = &self.model;
            eprintln!(
                "{:>6} appended {:>4} seen {seen:>4} safe {safe:>4}: {what}",
                self.disk.operations(),
                events.len()
            );
        }
    }
}
