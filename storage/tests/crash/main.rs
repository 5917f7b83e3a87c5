//! A crash at every operation of a log's life and of its recovery, and the crashes that have a name.

use std::path::Path;

use strandline_storage::{
    active_file::Fill,
    config::{LogConfig, SyncMode},
    control::{Control, TopicsDeleted},
    error::{AppendError, OpenError},
    io::{
        Access, Disk, DiskFile,
        sim::{Fault, SimDisk, rng::SimRng},
    },
    log::{Log, Now, Op},
    offset::Position,
    segment::SegmentName,
    settings::{LogRetention, LogSettings},
    snapshot,
};

mod damage;
mod rows;
#[path = "../simulation/mod.rs"]
mod simulation;

use simulation::{
    BEGIN, DIR, Process, Tally,
    controls::{limit, removal},
    from_environment,
    model::Model,
    to_usize,
};

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 32 << 10,
        frame_bytes_target: 4 << 10,
        frame_bytes_max: 16 << 10,
        event_bytes_max: 3 << 10,
        staged_bytes_max: 64 << 10,
        writes_in_flight_max: 4,
        preallocate_bytes_min: 8 << 10,
        preallocate_bytes_max: 16 << 10,
        blocks_from_bytes: 1,
        reserve_bytes: 16 << 10,
        compress_after_s: 0,
        snapshot_segments: 2,
        ..LogConfig::default()
    }
}

fn disk(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    disk.create_dir(DIR.as_ref()).expect("an empty disk");
    disk
}

fn open(disk: &SimDisk, model: &mut Model) -> Process {
    Process::open(disk, config(), BEGIN, model).expect("nothing is wrong with this log")
}

/// Lives of a log with everything in them: appends, rolls, seals, rewrites, retention, snapshots, idle frames, a clean
/// stop and perhaps a restart.
struct Script {
    config: LogConfig,
    lives: usize,
    rounds: usize,
    /// What the log keeps from a part of each life on.
    retain: LogRetention,
    /// How long an operation takes while zeroes are what the file was last filled with.
    zeroes_ms: u64,
    /// What a round begins with.
    append: fn(&mut Process, &mut SimRng, &mut Model, Now),
}

impl Script {
    /// With a restart, and three appends at a time.
    fn usual() -> Self {
        let append = |process: &mut Process, rng: &mut SimRng, model: &mut Model, now| {
            (0..3).for_each(|_| process.append(rng, model, now));
        };
        let retain = LogRetention { count: Some(20), ..LogRetention::default() };
        Script { config: config(), lives: 2, rounds: 12, retain, zeroes_ms: 0, append }
    }

    /// Ends early when the disk crashes.
    fn run(&self, disk: &SimDisk, rng: &mut SimRng, model: &mut Model) {
        let mut now = BEGIN;
        for _ in 0..self.lives {
            let opened = Process::open(disk, self.config.clone(), now, model);
            let Ok(mut process) = opened else { return };
            for round in 0..self.rounds {
                (self.append)(&mut process, rng, model, now);
                let control = match round % 12 {
                    3 => Some(removal(model, rng)),
                    7 => Some(Control::Log(LogSettings { retain: self.retain })),
                    11 => Some(limit(rng)),
                    _ => None,
                };
                if let Some(control) = control {
                    process.control(&control, model, now);
                }
                process.start_ops(model, now);
                // One is left under way now and then, so that a crash finds several.
                while process.pending.len() > usize::from(round % 3 == 0) && !disk.is_crashed() {
                    let is_beside_zeroes = process.fill == Fill::Zeroes;
                    now.boot_ms += if is_beside_zeroes { self.zeroes_ms } else { 0 };
                    process.complete(rng.index(process.pending.len()), model, now);
                    process.start_ops(model, now);
                }
                now.boot_ms += 60;
                now.wall_ms += 60;
            }
            process.settle(rng, model, now);
            // Limits are looked at once a second.
            now.boot_ms += 1000;
            process.settle(rng, model, now);
            process.check_gone(model, now);
            model.tally.note_background(&process.log);
            if disk.is_crashed() || !process.close(rng, model, now) {
                return;
            }
        }
    }

    /// Every operation of the script is the last one once, and so is every operation of the recovery
    /// behind some of them. Returns what they have met, and what the script does where nothing ends it.
    fn crash_at_every_operation(&self) -> (Tally, Tally) {
        let seed = from_environment("STRANDLINE_SEED").unwrap_or(1);
        let (mut tally, mut whole) = (Tally::default(), Tally::default());
        for direct_refused in [false, true] {
            for operation in 1.. {
                let mut rng = SimRng::new(seed);
                let mut model = Model::default();
                let disk = disk(seed + operation);
                disk.refuse_direct(direct_refused);
                disk.refuse_allocation(operation % 3 == 0);
                disk.crash_after(Some(operation));
                self.run(&disk, &mut rng, &mut model);
                tally += Tally { into_blocks: disk.writes_into_blocks(), ..model.tally };
                if !disk.is_crashed() {
                    assert!(operation > 200, "the script does a lot: {operation}");
                    whole = model.tally;
                    break;
                }
                tally.note_end(&disk);
                for disk in [disk.fork(seed + operation).kill(), disk.power_cut()] {
                    if operation % 19 == 0 {
                        self.crash_at_every_operation_of_recovery(&disk, &mut rng, &model);
                    }
                    self.recovers(&disk, &mut rng, &mut model.clone(), operation);
                }
            }
        }
        (tally, whole)
    }

    fn crash_at_every_operation_of_recovery(
        &self,
        disk: &SimDisk,
        rng: &mut SimRng,
        model: &Model,
    ) {
        for operation in 1.. {
            let (disk, mut model) = (disk.fork(operation), model.clone());
            disk.crash_after(Some(operation));
            let opened = Process::open(&disk, self.config.clone(), BEGIN, &mut model);
            if opened.is_ok() && !disk.is_crashed() {
                break;
            }
            let disk = if operation % 2 == 0 { disk.kill() } else { disk.power_cut() };
            self.recovers(&disk, rng, &mut model, operation);
        }
    }

    /// The log opens, reads as the model does, takes an append, and a power cut changes none of it.
    fn recovers(&self, disk: &SimDisk, rng: &mut SimRng, model: &mut Model, operation: u64) {
        let context = format!("crashed at operation {operation}, recovering from {disk:?}");
        let opened = Process::open(disk, self.config.clone(), BEGIN, model);
        let mut process = opened.unwrap_or_else(|error| panic!("{error}; {context}"));
        process.append(rng, model, BEGIN);
        process.settle(rng, model, BEGIN);
        process.append_taken(rng, model, BEGIN);
        process.check_reads(rng, model);
        let opened = Process::open(&disk.power_cut(), self.config.clone(), BEGIN, model);
        opened.unwrap_or_else(|error| panic!("{error}; {context}")).check_reads(rng, model);
    }
}

#[test]
fn a_crash_at_every_operation_loses_only_what_was_not_synced() {
    let (_, whole) = Script::usual().crash_at_every_operation();
    let Tally { rewritten, removed, snapshots, .. } = whole;
    assert!(![rewritten, removed, snapshots].contains(&0), "each of these is cut off: {whole:?}");
}

/// Fills a log with `batches`, settled, and hands back its process.
fn filled(disk: &SimDisk, rng: &mut SimRng, model: &mut Model, batches: usize) -> Process {
    let mut process = open(disk, model);
    for _ in 0..batches {
        process.append(rng, model, BEGIN);
        process.settle(rng, model, BEGIN);
    }
    process
}

/// The files of the log, by name.
fn files(disk: &SimDisk) -> Vec<(String, Vec<u8>)> {
    let mut names = disk.list(DIR.as_ref()).expect("the log's directory");
    names.sort();
    names
        .into_iter()
        .map(|name| {
            let bytes = disk.bytes(&Path::new(DIR).join(&name)).expect("a listed file");
            (name, bytes)
        })
        .collect()
}

/// Killed with four frames in flight: whatever lands later, and when, is not in the log.
#[test]
fn a_write_that_lands_after_its_process_was_killed_changes_nothing() {
    for seed in 0..200 {
        let mut rng = SimRng::new(seed);
        let mut model = Model::default();
        let mut process = filled(&disk(seed), &mut rng, &mut model, 3);
        for _ in 0..4 {
            process.append_new(&mut rng, &mut model, BEGIN);
            process.start_ops(&mut model, BEGIN);
        }
        let disk = process.disk.kill();
        let late = disk.late_writes();
        assert!(late > 0, "something is in flight");
        if rng.chance(50) {
            disk.land_late(rng.index(late));
        }
        let mut process = open(&disk, &mut model);
        process.append(&mut rng, &mut model, BEGIN);
        process.settle(&mut rng, &mut model, BEGIN);
        while disk.late_writes() > 0 {
            disk.land_late(0);
        }
        process.check_reads(&mut rng, &model);
        drop(process);
        let process = open(&disk.kill(), &mut model);
        process.check_reads(&mut rng, &model);
    }
}

/// A second frame that reached the device behind a first that did not: the log ends at the hole, and
/// what is appended there is not mistaken for what was there before.
#[test]
fn a_frame_behind_a_hole_never_comes_back() {
    for seed in 0..200 {
        let mut rng = SimRng::new(seed);
        let mut model = Model::default();
        let mut process = filled(&disk(seed), &mut rng, &mut model, 2);
        for _ in 0..3 {
            process.append_new(&mut rng, &mut model, BEGIN);
            process.start_ops(&mut model, BEGIN);
        }
        let behind = process.pending.len() - 1;
        process.complete(behind, &mut model, BEGIN);
        let mut disk = process.disk.power_cut();
        for _ in 0..3 {
            let mut process = open(&disk, &mut model);
            process.append(&mut rng, &mut model, BEGIN);
            process.settle(&mut rng, &mut model, BEGIN);
            process.check_reads(&mut rng, &model);
            disk = process.disk.power_cut();
        }
    }
}

/// A file that is used again holds frames of its life before, perhaps just where the next frame would
/// be, with the right offset: they are of another incarnation.
#[test]
fn a_frame_of_an_older_incarnation_is_never_taken() {
    let config = LogConfig { compress_after_s: 1_000_000, ..config() };
    let fill = |batches| {
        let mut rng = SimRng::new(7);
        let mut model = Model::default();
        let opened = Process::open(&disk(7), config.clone(), BEGIN, &mut model);
        let mut process = opened.expect("the log opens");
        for _ in 0..batches {
            process.append(&mut rng, &mut model, BEGIN);
            process.settle(&mut rng, &mut model, BEGIN);
        }
        (process.disk.kill(), model)
    };
    let ((old, _), (disk, mut model)) = (fill(12), fill(4));
    let path = Path::new(DIR).join("00000000000000000000.1.log");
    let (old, new) = (old.bytes(&path).expect("a file"), disk.bytes(&path).expect("a file"));
    let file = disk.open(&path, Access::Write).expect("a file");
    let blocks = old.chunks(4096).zip(new.chunks(4096));
    let mut replaced = 0;
    for (index, (old, new)) in (0..).zip(blocks) {
        if new.iter().all(|byte| *byte == 0) && old.iter().any(|byte| *byte != 0) {
            file.write_at(old, Position::new(index * 4096)).expect("written");
            replaced += 1;
        }
    }
    assert!(replaced > 0, "the longer log has frames where the shorter one has none");
    let appended = model.events.len();
    let process = open(&disk, &mut model);
    assert_eq!(to_usize(process.log.visible()), appended);
    process.check_reads(&mut SimRng::new(1), &model);
}

/// After a failed sync the page cache shows what the device does not have. Whoever recovers from
/// the cache must bring it to the device before anyone sees it.
#[test]
fn a_failed_sync_is_final_and_recovery_does_not_believe_the_page_cache() {
    for seed in 0..200 {
        let mut rng = SimRng::new(seed);
        let mut model = Model::default();
        let disk = disk(seed);
        disk.refuse_direct(true);
        let mut process = filled(&disk, &mut rng, &mut model, 3);
        // The first sync may be that of a file that is prepared or sealed, which may be tried again.
        for _ in 0..20 {
            if process.log.poisoned().is_some() {
                break;
            }
            disk.disarm();
            disk.arm(Fault::SyncFails, 0);
            process.append(&mut rng, &mut model, BEGIN);
            process.settle(&mut rng, &mut model, BEGIN);
        }
        assert!(process.log.poisoned().is_some(), "a sync of a commit fails");
        let batch = model.new_batch(&mut rng, 100);
        let refused = process.log.append(batch, BEGIN).expect_err("poisoned");
        assert!(matches!(refused, AppendError::Poisoned { .. }), "{refused}");
        process.check_reads(&mut rng, &model);
        drop(process);
        let process = open(&disk.kill(), &mut model);
        process.check_reads(&mut rng, &model);
        let process = open(&process.disk.power_cut(), &mut model);
        process.check_reads(&mut rng, &model);
    }
}

/// In the modes that show events before they are synced, a power cut that takes some back gives the
/// log a new tag; a clean stop keeps all of them, and the tag.
#[test]
fn what_readers_saw_is_taken_back_only_under_a_new_tag() {
    let mut taken_back = 0;
    for seed in 0..100 {
        let mut rng = SimRng::new(seed);
        let mut model = Model::default();
        let sync = *rng.pick(&[SyncMode::Never, SyncMode::Interval { interval_ms: 100 }]);
        let config = LogConfig { sync, ..config() };
        let mut disk = disk(seed);
        let opened = Process::open(&disk, config.clone(), BEGIN, &mut model);
        let mut process = opened.expect("an empty log");
        for _ in 0..5 {
            process.append(&mut rng, &mut model, BEGIN);
            process.settle(&mut rng, &mut model, BEGIN);
        }
        assert_eq!(process.log.visible(), process.log.next(), "readers do not wait for a sync");
        let (seen, tag) = (model.seen, model.tag.clone());
        let is_clean = rng.chance(50);
        if is_clean {
            assert!(process.close(&mut rng, &mut model, BEGIN));
        } else {
            drop(process);
        }
        disk = disk.power_cut();
        // The model refuses a loss under the old tag.
        drop(Process::open(&disk, config, BEGIN, &mut model).expect("recovered"));
        if is_clean {
            assert_eq!((model.seen, &model.tag), (seen, &tag), "a clean stop takes nothing back");
        } else {
            assert_ne!(model.tag, tag, "nobody knows what was taken back");
        }
        taken_back += usize::from(model.seen < seen);
    }
    assert!(taken_back > 10, "the power cuts of this test take something: {taken_back}");
}

/// A full disk refuses appends and loses nothing, and there is no restart in the way back.
#[test]
fn a_full_disk_refuses_and_recovers() {
    let mut rng = SimRng::new(1);
    let mut model = Model::default();
    let disk = disk(1);
    let mut process = filled(&disk, &mut rng, &mut model, 2);
    disk.limit_space(Some(disk.space_bytes()));
    let mut now = BEGIN;
    for _ in 0..40 {
        process.append(&mut rng, &mut model, now);
        process.settle(&mut rng, &mut model, now);
    }
    assert!(process.log.is_disk_full() && process.log.poisoned().is_none());
    process.check_reads(&mut rng, &model);
    disk.limit_space(None);
    now.boot_ms += 10_000;
    process.settle(&mut rng, &mut model, now);
    assert_eq!(process.log.visible(), process.log.next(), "what waited went through");
    let before = model.events.len();
    process.append(&mut rng, &mut model, now);
    assert!(model.events.len() > before, "appends are taken again");
    process.settle(&mut rng, &mut model, now);
    drop(process);
    open(&disk.power_cut(), &mut model).check_reads(&mut rng, &model);
}

/// One process at a time, whatever they are; the lock dies with its process.
#[test]
fn a_log_is_locked_while_it_is_open() {
    let disk = disk(1);
    let mut model = Model::default();
    let process = open(&disk, &mut model);
    let second = Log::open(disk.clone(), Path::new(DIR), config(), BEGIN).err();
    assert!(matches!(second, Some(OpenError::Locked { .. })), "{second:?}");
    let disk = disk.kill();
    open(&disk, &mut model);
    drop(process);
}

/// A killed process leaves no file that a later one would take for a segment's, or would not use.
#[test]
fn only_segments_and_snapshots_are_left_behind_after_many_crashes() {
    let mut rng = SimRng::new(5);
    let mut model = Model::default();
    let mut disk = disk(5);
    for _ in 0..30 {
        disk.crash_after(Some(rng.between(1, 100)));
        Script::usual().run(&disk, &mut rng, &mut model);
        disk = if rng.chance(50) { disk.kill() } else { disk.power_cut() };
    }
    drop(open(&disk, &mut model));
    for (name, _) in files(&disk) {
        let is_known = SegmentName::parse(&name).is_some()
            || snapshot::offset_of(&name).is_some()
            || ["reserve.tmp", "earliest", "end.mark"].contains(&name.as_str());
        assert!(is_known, "{name} is left behind");
    }
}

/// While the event that deletes all topics is on its way to the disk, nothing of them is removed: a
/// power cut may take it back.
#[test]
fn a_deletion_removes_nothing_before_it_is_synced() {
    for seed in 0..30 {
        let mut rng = SimRng::new(seed);
        let mut model = Model::default();
        let mut process = filled(&disk(seed), &mut rng, &mut model, 20);
        assert!(!process.log.segments().is_empty(), "something could be removed");
        let visible = to_usize(process.log.visible());
        let topics = model.topics(visible).into_iter().map(|(topic, ..)| topic).collect();
        let deleted = Control::Deleted(TopicsDeleted::of(topics));
        process.log.append_control(&deleted, BEGIN).expect("staged");
        // All that the log wants goes on but for that write, which has not even begun.
        let mut now = BEGIN;
        for _ in 0..20 {
            while let Some(op) = process.log.next_op(now) {
                if !matches!(op, Op::Write { .. }) {
                    process.log.complete(op.run(&process.disk), now);
                }
            }
            now.boot_ms += 60_000;
        }
        let process = open(&process.disk.power_cut(), &mut model);
        process.check_reads(&mut rng, &model);
    }
}
