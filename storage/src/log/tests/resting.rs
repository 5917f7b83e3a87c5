//! Zeroes that are written while the log rests.

use super::*;
use crate::{
    active_file::{ExtendJob, ZEROING_BYTES},
    settings::LogRetention,
};

const REST_BYTES: u64 = 3 << 20;
/// Less than that is not worth a step.
const STEP_BYTES_MIN: u64 = 256 << 10;
/// When a log rests whose appends came at 1 ms.
const DUE_MS: u64 = 101;

fn roomy() -> LogConfig {
    LogConfig {
        segment_bytes: 8 << 20,
        preallocate_bytes_min: STEP_BYTES_MIN,
        preallocate_bytes_max: 1 << 20,
        preallocate_rest_bytes_max: REST_BYTES,
        reserve_bytes: 0,
        ..tiny()
    }
}

/// Appends events that take 52 KiB each.
fn fill(log: &mut Log<SimDisk>, count: usize) {
    let data = "x".repeat(50 << 10);
    for _ in 0..count {
        append(log, &data);
        log.run_ops(now(2));
    }
}

fn ahead_bytes(log: &Log<SimDisk>) -> u64 {
    log.tail.file.prepared.get() - log.tail.end.get()
}

/// Lets the log rest until its first step further ahead is under way.
fn begin_step(log: &mut Log<SimDisk>, disk: &SimDisk, boot_ms: u64) -> (OpId, ExtendJob<SimDisk>) {
    loop {
        match log.next_op(now(boot_ms)).expect("an extension") {
            Op::Job { id, job: Job::Extend(job) } => return (id, job),
            op => log.complete(op.run(disk), now(boot_ms)),
        }
    }
}

fn end_step(log: &mut Log<SimDisk>, (id, job): (OpId, ExtendJob<SimDisk>), disk: &SimDisk) {
    let outcome = Job::Extend(job).run(disk);
    log.complete(OpOutcome::Job { id, outcome }, now(DUE_MS));
}

/// Nothing is to be done before the end mark is due.
fn assert_sleeps(log: &mut Log<SimDisk>, boot_ms: u64) {
    assert!(log.next_op(now(boot_ms)).is_none());
    assert_eq!(log.deadline(), Some(10_000));
    assert!(log.next_op(now(9_999)).is_none());
}

#[test]
fn a_log_at_rest_has_zeroes_ahead_and_then_sleeps() {
    for sync in [SyncMode::Commit, SyncMode::Interval { interval_ms: 10 }, SyncMode::Never] {
        let disk = SimDisk::new(1);
        let config = LogConfig { sync, ..roomy() };
        let (mut log, _) = open_with(&disk, config.clone());
        fill(&mut log, 70);
        assert!(ahead_bytes(&log) <= REST_BYTES - STEP_BYTES_MIN, "else this shows nothing");
        log.run_ops(now(99));
        assert!(log.deadline().is_some_and(|due_ms| due_ms > 99), "a driver would spin");
        assert!(ahead_bytes(&log) <= REST_BYTES - STEP_BYTES_MIN, "it does not rest yet");
        log.run_ops(now(DUE_MS));
        if sync != SyncMode::Never {
            // The last word has its own sync.
            log.run_ops(now(DUE_MS + 10));
            assert_sleeps(&mut log, DUE_MS + 10);
        }
        assert!(log.next_op(now(9_999)).is_none());
        let ahead_bytes = ahead_bytes(&log);
        assert!(ahead_bytes <= REST_BYTES && ahead_bytes > REST_BYTES - STEP_BYTES_MIN);
        let path = &log_files(&disk)[0];
        let size = disk.bytes(path).map(|bytes| bytes.len() as u64);
        assert_eq!(size, Some(log.tail.file.prepared.get()));
        let (visible, end) = (log.visible(), log.tail.end.get());
        drop(log);
        let disk = disk.kill();
        let (log, _) = open_with(&disk, config);
        assert_eq!(log.visible(), visible);
        let size = disk.bytes(path).map(|bytes| bytes.len() as u64);
        assert_eq!(size, Some(end), "a start gives back what nobody needs any more");
    }
}

#[test]
fn a_log_that_gets_an_event_now_and_then_does_not_extend_for_each() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open_with(&disk, roomy());
    fill(&mut log, 70);
    log.run_ops(now(DUE_MS));
    let mut extensions = 0;
    for number in 1..=60 {
        let at = now(number * 1_000);
        log.append(vec![event("a", &"x".repeat(10 << 10))], at).expect("staged");
        for at in [at, now(number * 1_000 + 500)] {
            while let Some(op) = log.next_op(at) {
                extensions += u64::from(matches!(op, Op::Job { job: Job::Extend(_), .. }));
                log.complete(op.run(&disk), at);
            }
        }
    }
    // An event and the last word behind it take 16 KiB.
    assert!((3..=4).contains(&extensions), "{extensions}");
}

#[test]
fn a_small_log_stays_small() {
    let mut grown = Vec::new();
    for count in 0..80 {
        let disk = SimDisk::new(1);
        let (mut log, _) = open_with(&disk, roomy());
        fill(&mut log, count);
        let needed = log.tail.file.prepared;
        log.run_ops(now(DUE_MS));
        let (prepared, held_bytes) = (log.tail.file.prepared, log.tail.end.get());
        let allowed_bytes = held_bytes.min(REST_BYTES);
        assert!(prepared == needed || ahead_bytes(&log) <= allowed_bytes, "{count}");
        assert!(ahead_bytes(&log) + STEP_BYTES_MIN > allowed_bytes, "{count}");
        grown.push(prepared > needed);
        close(&mut log);
        drop(log);

        // Behind a start what was there before counts.
        let (mut log, _) = open_with(&disk, roomy());
        log.run_ops(now(DUE_MS));
        let allowed_bytes = (held_bytes + (64 << 10)).clamp(STEP_BYTES_MIN, REST_BYTES);
        assert!(ahead_bytes(&log) <= allowed_bytes, "{count}");
        assert!(ahead_bytes(&log) + STEP_BYTES_MIN + (64 << 10) > allowed_bytes, "{count}");
    }
    let first = grown.iter().position(|has_grown| *has_grown);
    assert!(first.is_some_and(|count| count > 5), "{first:?}");
}

#[test]
fn zeroes_end_where_the_segment_does() {
    let disk = SimDisk::new(1);
    let config = LogConfig { segment_bytes: 6 << 20, ..roomy() };
    let (mut log, _) = open_with(&disk, config);
    fill(&mut log, 70);
    let needed = log.tail.file.prepared;
    log.run_ops(now(DUE_MS));
    let prepared = log.tail.file.prepared;
    assert!(prepared > needed && prepared == Position::new(6 << 20));
    assert_sleeps(&mut log, DUE_MS);
}

#[test]
fn a_nearly_full_disk_is_left_alone_until_the_next_append() {
    for is_short in [true, false] {
        let disk = SimDisk::new(1);
        let (mut log, _) = open_with(&disk, roomy());
        fill(&mut log, 70);
        let needed = log.tail.file.prepared;
        let step = begin_step(&mut log, &disk, DUE_MS);
        let wanted_bytes = usize::try_from(step.1.to.get() - log.tail.end.get()).expect("little");
        let free_bytes = 16 * wanted_bytes - usize::from(is_short);
        disk.limit_space(Some(disk.space_bytes() + free_bytes));
        end_step(&mut log, step, &disk);
        assert_eq!(log.tail.file.prepared > needed, !is_short);
        if !is_short {
            log.run_ops(now(DUE_MS));
        }
        assert_sleeps(&mut log, DUE_MS);
        assert!(!log.is_disk_full() && log.take_notices().is_empty());

        // There is space again.
        disk.limit_space(None);
        log.append(vec![event("a", "x")], now(200)).expect("staged");
        log.run_ops(now(200));
        log.run_ops(now(300));
        assert!(ahead_bytes(&log) > REST_BYTES - STEP_BYTES_MIN);
    }
}

/// Its events have all been passed by a limit: what it held says nothing of what will come.
#[test]
fn a_log_that_has_nothing_left_is_a_small_one() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open_with(&disk, roomy());
    fill(&mut log, 70);
    keep(&mut log, LogRetention { age_s: Some(60), ..LogRetention::default() });
    log.run_ops(now(DUE_MS));
    assert!(ahead_bytes(&log) > REST_BYTES - STEP_BYTES_MIN);
    let full = log_files(&disk);
    log.run_ops(now(70_000));
    log.run_ops(now(80_000));
    assert!(log_files(&disk) != full, "another segment was begun");
    assert!(ahead_bytes(&log) <= 1 << 20, "{}", ahead_bytes(&log));
}

/// What it was asked behind counts, not what came meanwhile.
#[test]
fn a_refusal_that_comes_behind_another_append_is_of_the_one_before() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open_with(&disk, roomy());
    fill(&mut log, 70);
    let step = begin_step(&mut log, &disk, DUE_MS);
    log.append(vec![event("a", "x")], now(150)).expect("staged");
    log.run_ops(now(150));
    disk.limit_space(Some(disk.space_bytes()));
    end_step(&mut log, step, &disk);
    disk.limit_space(None);
    log.run_ops(now(300));
    assert!(ahead_bytes(&log) > REST_BYTES - STEP_BYTES_MIN);
}

/// A quota is full, which the disk does not tell.
#[test]
fn a_disk_that_is_full_all_the_same_is_asked_once() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open_with(&disk, roomy());
    fill(&mut log, 70);
    let step = begin_step(&mut log, &disk, DUE_MS);
    disk.arm(Fault::WriteFindsNoSpace, 0);
    end_step(&mut log, step, &disk);
    assert!(!log.is_disk_full() && log.poisoned().is_none());
    for boot_ms in [DUE_MS, 1_200, 5_000, 9_000] {
        assert!(log.next_op(now(boot_ms)).is_none());
        assert!(log.deadline().is_some_and(|due_ms| due_ms > boot_ms), "a driver would spin");
    }
    fill(&mut log, 1);
    assert_eq!(log.visible(), log.next());
}

#[test]
fn a_full_disk_is_not_asked() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open_with(&disk, roomy());
    fill(&mut log, 70);
    log.jobs.disk_full = true;
    log.run_ops(now(DUE_MS));
    assert_sleeps(&mut log, DUE_MS);
    assert!(ahead_bytes(&log) <= REST_BYTES - STEP_BYTES_MIN);
}

#[test]
fn an_append_ends_it_behind_the_piece_that_is_under_way() {
    for is_closed in [false, true] {
        let disk = SimDisk::new(1);
        let (mut log, _) = open_with(&disk, roomy());
        fill(&mut log, 70);
        let step = begin_step(&mut log, &disk, DUE_MS);
        assert!(log.next_op(now(DUE_MS)).is_none() && !step.1.headway.is_enough());
        let (from, to) = (step.1.from, step.1.to);
        assert!(to >= from.plus(2 * ZEROING_BYTES as u64), "else this shows nothing");
        log.append(vec![event("a", "x")], now(DUE_MS)).expect("staged");
        if is_closed {
            log.begin_close();
        }
        log.run_ops(now(DUE_MS));
        assert_eq!(log.visible(), log.next(), "no frame waits for it");
        assert!(step.1.headway.is_enough());
        end_step(&mut log, step, &disk);
        assert_eq!(log.tail.file.prepared, from.plus(ZEROING_BYTES as u64));
        if is_closed {
            log.run_ops(now(DUE_MS));
            assert!(log.is_closed());
            continue;
        }
        fill(&mut log, 20);
        log.run_ops(now(DUE_MS));
        assert!(ahead_bytes(&log) > REST_BYTES - STEP_BYTES_MIN, "it goes on at the next rest");
        let (log, _) = open_with(&disk.power_cut(), roomy());
        assert_eq!(log.visible(), Offset::new(91));
    }
}

#[test]
fn an_extension_that_a_working_log_needs_goes_on() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open_with(&disk, roomy());
    let mut extensions = 0;
    for _ in 0..100 {
        append(&mut log, &"x".repeat(50 << 10));
        while let Some(op) = log.next_op(now(2)) {
            let headway = match &op {
                Op::Job { job: Job::Extend(job), .. } => Some(Arc::clone(&job.headway)),
                _ => None,
            };
            if let Some(headway) = headway {
                extensions += 1;
                append(&mut log, "x");
                let mut held = Vec::new();
                while let Some(op) = log.next_op(now(2)) {
                    held.push(op);
                }
                assert!(!headway.is_enough());
                for op in held {
                    log.complete(op.run(&disk), now(2));
                }
            }
            log.complete(op.run(&disk), now(2));
        }
    }
    assert!(extensions > 4);
}
