//! Thousands of random lives of a log: appends, commits in any order, faults, crashes at any
//! operation, and recovery, compared with a model at every step.
//!
//! A failed run prints its seed; `STRANDLINE_SEED=n` repeats it, `STRANDLINE_RUNS=n` has more of them.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use strandline_storage::{
    config::{LogConfig, SyncMode},
    error::OpenError,
    io::{
        Disk,
        sim::{FAULTS, SimDisk, rng::SimRng},
    },
    log::Now,
};

mod simulation;

use simulation::{BEGIN, DIR, Process, from_environment, model::Model};

/// How many runs there are without being told.
const RUNS: u64 = 4000;

/// Synced events are a prefix of what survives, which is a prefix of what was appended.
#[test]
fn a_log_keeps_what_it_promised() {
    if let Some(seed) = from_environment("STRANDLINE_SEED") {
        Life::new(seed).live();
        return;
    }
    for seed in 0..from_environment("STRANDLINE_RUNS").unwrap_or(RUNS) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| Life::new(seed).live())) {
            eprintln!("run failed; repeat it with STRANDLINE_SEED={seed}");
            resume_unwind(panic);
        }
    }
}

/// One random life of a log.
struct Life {
    rng: SimRng,
    disk: SimDisk,
    model: Model,
    config: LogConfig,
    now: Now,
    /// What may have made an open or a write fail.
    trouble: bool,
    narrated: bool,
}

impl Life {
    fn new(seed: u64) -> Self {
        let mut rng = SimRng::new(seed);
        let disk = SimDisk::new(rng.next_u64());
        disk.refuse_direct(rng.chance(30));
        disk.create_dir(DIR.as_ref()).expect("an empty disk");
        let frame_bytes_max = *rng.pick(&[16 << 10, 32 << 10]);
        let config = LogConfig {
            segment_bytes: *rng.pick(&[8 << 10, 16 << 10, 32 << 10, 64 << 10]),
            frame_bytes_target: *rng.pick(&[1, 4 << 10, 16 << 10]),
            frame_bytes_max,
            event_bytes_max: frame_bytes_max - (8 << 10),
            staged_bytes_max: 64 << 10,
            frames_in_flight_max: *rng.pick(&[1, 2, 4, 8]),
            sync: sync_mode(&mut rng),
            idle_frame_ms: 100,
            preallocate_bytes_min: *rng.pick(&[4 << 10, 16 << 10]),
            preallocate_bytes_max: 32 << 10,
            recent_frames_bytes_max: *rng.pick(&[0, 16 << 10, 1 << 20]),
            id_window_events: 1_000_000,
            id_window_s: 1_000_000_000,
            scrub_interval_s: *rng.pick(&[1, 1_000_000]),
            scrub_bytes_per_s: 1 << 20,
            reserve_bytes: *rng.pick(&[0, 16 << 10]),
            compress_after_s: *rng.pick(&[0, 1, 1_000_000_000]),
        };
        let narrated = from_environment("STRANDLINE_SEED").is_some();
        let model = Model::default();
        Life { rng, disk, model, config, now: BEGIN, trouble: false, narrated }
    }

    fn live(mut self) {
        self.tell(&format!("{:?}", self.config));
        for _ in 0..self.rng.between(1, 8) {
            if self.rng.chance(20) {
                self.config.sync = sync_mode(&mut self.rng);
            }
            let Some(process) = self.open() else { continue };
            self.run(process);
        }
        // At the end all trouble is over: the log opens, and goes on opening after a last power cut.
        self.end_trouble();
        for _ in 0..2 {
            self.disk = self.disk.power_cut();
            let opened = Process::open(&self.disk, self.config.clone(), self.now, &mut self.model);
            let mut process = opened.expect("there is no more trouble");
            process.check_reads(&mut self.rng, &self.model);
            process.append(&mut self.rng, &mut self.model, self.now);
            process.settle(&mut self.rng, &mut self.model, self.now);
            process.check_reads(&mut self.rng, &self.model);
            assert_eq!(process.log.visible(), process.log.next(), "an append goes through");
        }
    }

    /// Opens the log, perhaps with a crash or a fault while it recovers.
    fn open(&mut self) -> Option<Process> {
        if self.rng.chance(25) {
            let operations = self.rng.between(1, 60);
            self.tell(&format!("a fuse of {operations}"));
            self.disk.crash_after(Some(operations));
            self.trouble = true;
        }
        if self.rng.chance(10) {
            self.arm(20);
        }
        let opened = Process::open(&self.disk, self.config.clone(), self.now, &mut self.model);
        match opened {
            Ok(process) => {
                self.tell(&format!("opened at {}", process.log.visible()));
                Some(process)
            }
            Err(error) => {
                self.tell(&format!("not opened: {error}"));
                assert!(self.trouble, "nothing was wrong, but: {error}");
                assert!(matches!(error, OpenError::Io { .. }), "a crash is no damage: {error}");
                // Trying again without a restart must be as good.
                if self.disk.is_crashed() || self.rng.chance(50) {
                    self.crash();
                } else {
                    self.end_trouble();
                }
                None
            }
        }
    }

    /// Uses the log until it is closed or has crashed.
    fn run(&mut self, mut process: Process) {
        let steps = *self.rng.pick(&[3, 10, 30, 100]);
        for _ in 0..steps {
            if process.disk.is_crashed() {
                break;
            }
            self.step(&mut process);
        }
        if process.disk.is_crashed() {
            self.tell("the fuse burnt");
        } else if self.rng.chance(30) {
            let closed = process.close(&mut self.rng, &mut self.model, self.now);
            self.tell(&format!("closed: {closed}"));
            if closed && self.rng.chance(50) {
                // The next process finds the same disk, still powered.
                self.disk = self.disk.kill();
                self.disk_settles();
                return;
            }
        }
        self.crash();
    }

    fn step(&mut self, process: &mut Process) {
        let Life { rng, model, now, .. } = self;
        match rng.below(100) {
            0..35 => {
                process.append(rng, model, *now);
                // A driver may gather several appends before it asks what to do.
                if rng.chance(70) {
                    process.start_ops(*now);
                }
            }
            35..80 => {
                process.start_ops(*now);
                if process.pending() > 0 {
                    process.complete(rng.index(process.pending()), model, *now);
                    process.start_ops(*now);
                }
            }
            80..85 => process.settle(rng, model, *now),
            85..91 => {
                let passed_ms = *rng.pick(&[1, 10, 120, 5_000]);
                now.boot_ms += passed_ms;
                // The wall clock goes along, stands still, goes back, or leaps.
                now.wall_ms = match rng.below(10) {
                    0 => now.wall_ms,
                    1 => now.wall_ms - rng.below(10_000),
                    2 => now.wall_ms + 10 * 60 * 60 * 1000,
                    _ => now.wall_ms + passed_ms,
                };
                process.start_ops(*now);
            }
            91..95 => self.check_reads(process),
            95..97 => self.disk_settles(),
            97 => self.arm(10),
            _ => {
                let operations = rng.between(1, 20);
                self.disk.crash_after(Some(operations));
                self.trouble = true;
            }
        }
    }

    fn check_reads(&mut self, process: &Process) {
        // A read that fails is reported as such: its retry is another test's business.
        self.disk.disarm();
        self.disk.crash_after(None);
        process.check_reads(&mut self.rng, &self.model);
    }

    /// Ends the process in one of two ways.
    fn crash(&mut self) {
        let power_cut = self.rng.chance(50);
        self.tell(if power_cut { "power cut" } else { "kill" });
        self.disk = if power_cut { self.disk.power_cut() } else { self.disk.kill() };
        self.end_trouble();
        self.disk_settles();
    }

    /// Writes of killed processes land or do not, and the page cache forgets.
    fn disk_settles(&mut self) {
        for index in (0..self.disk.late_writes()).rev() {
            match self.rng.below(4) {
                0 => self.disk.land_late(index),
                1 => self.disk.drop_late(index),
                _ => {}
            }
        }
        if self.rng.chance(20) {
            self.disk.evict_clean_pages();
        }
    }

    fn arm(&mut self, after_max: u64) {
        let (fault, after) = (*self.rng.pick(&FAULTS), self.rng.below(after_max));
        self.tell(&format!("{fault:?} after {after}"));
        self.disk.arm(fault, after);
        self.trouble = true;
    }

    fn end_trouble(&mut self) {
        self.disk.disarm();
        self.disk.crash_after(None);
        self.disk.limit_space(None);
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

fn sync_mode(rng: &mut SimRng) -> SyncMode {
    match rng.below(10) {
        0 => SyncMode::Never,
        1 | 2 => SyncMode::Interval { interval_ms: 50 },
        _ => SyncMode::Commit,
    }
}
