//! What frees a full disk, and in which order.

use super::*;

/// Does what the log asks for, as far as it is one of a full disk's, and says which thread each job that frees space is for.
fn run_noting(log: &mut Log<SimDisk>, disk: &SimDisk, now: Now) -> Vec<(bool, JobThread)> {
    let mut threads = Vec::new();
    while let Some(op) = log.next_op(now) {
        if let Op::Job { job: job @ (Job::Compact(_) | Job::Close(_)), .. } = &op {
            threads.push((log.is_disk_full(), job.thread()));
        }
        log.complete(op.run(disk), now);
    }
    threads
}

/// A log on a disk that is full of these batches, none of them compressed, and that has a reserve as logs of before had it:
/// it cannot grow.
fn full_of(disk: &SimDisk, batch: impl Fn(u64) -> Vec<NewEvent>) -> (SimDisk, Log<SimDisk>) {
    let as_written = LogConfig { compress_after_s: u64::MAX, ..long_segments() };
    let (mut log, _) = open_with(disk, as_written);
    for number in 0.. {
        if disk.space_bytes() > 4 << 20 {
            break;
        }
        log.append(batch(number), now(1)).expect("space");
        log.run_ops(now(2));
    }
    drop(log);
    let config = long_segments();
    let path = Path::new(DIR).join("reserve.tmp");
    let reserve = disk.open(&path, Access::Write).expect("a reserve");
    assert!(reserve.size().expect("known") > config.segment_bytes);
    reserve.set_size(config.reserve_bytes).expect("shorter");
    let disk = disk.kill();
    disk.limit_space(Some(disk.space_bytes() + (20 << 10)));
    let (mut log, _) = open_with(&disk, config);
    log.run_ops(now(2));
    assert!(log.is_disk_full() && log.segments().len() >= 5);
    (disk, log)
}

/// Deletes what is of a topic, and waits for space, for less than 30 s.
fn free_by_deleting(log: &mut Log<SimDisk>, disk: &SimDisk) -> Vec<(bool, JobThread)> {
    let deleted = TopicsDeleted::of(vec!["gone".into()]);
    log.append_control(&Control::Deleted(deleted), now(3)).expect("control events have room");
    let mut threads = Vec::new();
    let mut boot_ms = 3;
    while boot_ms < 30_000 {
        threads.extend(run_noting(log, disk, now(boot_ms)));
        boot_ms = log.deadline().expect("it is tried again").max(boot_ms + 1);
    }
    assert!(!log.is_disk_full(), "space is there again within 30 s");
    for number in 0..50 {
        log.append(vec![event("keep", &noise(number, 7_000))], now(40_000)).expect("space");
        log.run_ops(now(40_000));
    }
    assert_eq!(log.visible(), log.next());
    threads
}

/// How often a rewrite found no space, of segments whose name begins like that.
fn failures(log: &mut Log<SimDisk>, name: &str) -> usize {
    let found_none = |notice: &Notice| match notice {
        Notice::CompactFailed { reason } => reason.contains(&format!("/{name}")),
        _ => false,
    };
    log.take_notices().iter().filter(|notice| found_none(notice)).count()
}

fn is_live(log: &Log<SimDisk>, disk: &SimDisk) {
    let keep = log.topics().get("keep").expect("a topic").count;
    assert!(log.topics().get("gone").is_none_or(|topic| topic.count == 0));
    let (opened, _) = open_with(&disk.power_cut(), long_segments());
    assert_eq!(opened.visible(), log.visible());
    assert_eq!(opened.topics().get("keep").expect("a topic").count, keep);
}

/// The first segments are plain, all of them lives, and what they would be compressed has no space.
#[test]
fn segments_that_are_all_dead_free_a_full_disk_whatever_lies_before_them() {
    let disk = SimDisk::new(1);
    let topic = |number| if number < 130 { "keep" } else { "gone" };
    let (disk, mut log) =
        full_of(&disk, |number| vec![event(topic(number), &noise(number, 7_000))]);
    let threads = free_by_deleting(&mut log, &disk);
    assert!(log.retired_segments() >= 3, "{}", log.retired_segments());
    assert!(failures(&mut log, "") <= 1, "what has no space is not tried");
    // What frees it is not to depend on what others leave of the cores.
    let urgent = threads.iter().filter(|(is_full, _)| *is_full).map(|(_, thread)| *thread);
    assert!(urgent.clone().count() > 0 && urgent.clone().all(|thread| thread == JobThread::Seal));
    let usual = threads.iter().filter(|(is_full, _)| !*is_full).map(|(_, thread)| *thread);
    assert!(usual.clone().count() > 0 && usual.clone().all(|thread| thread != JobThread::Seal));
    is_live(&log, &disk);
}

/// Half of most segments lives, which is twice as long as the reserve; less of one, which makes room for the next.
#[test]
fn what_a_short_rewrite_frees_makes_room_for_longer_ones() {
    let disk = SimDisk::new(2);
    let topic = |number: u64| {
        let every = if (120..195).contains(&number) { 10 } else { 2 };
        if number.is_multiple_of(every) { "keep" } else { "gone" }
    };
    let (disk, mut log) =
        full_of(&disk, |number| vec![event(topic(number), &noise(number, 7_000))]);
    free_by_deleting(&mut log, &disk);
    assert!(log.compaction_totals().segments >= 3, "{:?}", log.compaction_totals());
    is_live(&log, &disk);
}

/// Most events of the first segments are dead, but they are short: nearly all of its bytes have to be written again.
#[test]
fn a_segment_that_finds_no_space_keeps_no_other_from_being_freed() {
    let disk = SimDisk::new(3);
    let batch = |number: u64| match number {
        0..60 => {
            let short = (0..20).map(|_| event("gone", "0"));
            short.chain([event("keep", &noise(number, 7_000))]).collect()
        }
        _ if number.is_multiple_of(8) => vec![event("keep", &noise(number, 7_000))],
        _ => vec![event("gone", &noise(number, 7_000))],
    };
    let (disk, mut log) = full_of(&disk, batch);
    free_by_deleting(&mut log, &disk);
    // With what there is beside the reserve, and with that.
    let failures = failures(&mut log, "00000000000000000000.2.log");
    assert!((1..=2).contains(&failures), "{failures}: not again before there is more");
    log.run_ops(now(100_000));
    assert!(log.segments().iter().all(|segment| segment.name().generation > 1));
    is_live(&log, &disk);
}

/// A rewrite that rests between its pieces, and goes by offset, would have a full disk wait for it.
#[test]
fn a_rewrite_that_has_time_makes_way_when_the_disk_is_full() {
    let disk = SimDisk::new(4);
    let mut log = mixed(&disk, 200);
    let deleted = TopicsDeleted::of(vec!["gone".into()]);
    log.append_control(&Control::Deleted(deleted), now(1)).expect("staged");
    let mut held = hold(&mut log, &disk, |op| matches!(op, Op::Job { job: Job::Compact(_), .. }));
    let rewrite = held.pop().expect("one is begun");
    let is_cancelled = match &rewrite {
        Op::Job { job: Job::Compact(job), .. } => Arc::clone(&job.is_cancelled),
        op => panic!("{op:?}"),
    };
    disk.limit_space(Some(disk.space_bytes()));
    while log.append(vec![event("keep", &noise(1, 7_000))], now(2)).is_ok() {
        log.run_ops(now(2));
    }
    assert!(is_cancelled.load(std::sync::atomic::Ordering::Relaxed));
    log.complete(rewrite.run(&disk), now(3));
    let threads = run_noting(&mut log, &disk, now(3));
    assert_eq!(threads.first(), Some(&(true, JobThread::Seal)), "it begins anew, at once");
    let begun = hold(&mut log, &disk, |op| matches!(op, Op::Job { job: Job::Compact(_), .. }));
    assert!(begun.is_empty());
}

/// Most of each segment lives, which is more than there is space for: one is tried again each minute, whatever the wall clock
/// does. It was that clock which said when: set back by a day it had nothing tried for a day, and where it went on by leaps
/// everything was tried at each look.
#[test]
fn what_finds_no_space_is_tried_again_each_minute_whatever_the_wall_clock_says() {
    let clocks: [fn(u64) -> Now; 3] = [
        now,
        |boot_ms| Now { wall_ms: now(boot_ms).wall_ms - 86_400_000, boot_ms },
        |boot_ms| Now { wall_ms: now(boot_ms * 100).wall_ms, boot_ms },
    ];
    let topic = |number: u64| if number.is_multiple_of(3) { "gone" } else { "keep" };
    for (number, clock) in clocks.into_iter().enumerate() {
        let (disk, mut log) =
            full_of(&SimDisk::new(5), |number| vec![event(topic(number), &noise(number, 7_000))]);
        disk.limit_space(Some(disk.space_bytes()));
        let deleted = Control::Deleted(TopicsDeleted::of(vec!["gone".into()]));
        log.append_control(&deleted, now(3)).expect("control events have room");
        let mut failures_until = |from_ms, until_ms, clock: fn(u64) -> Now| {
            let mut boot_ms = from_ms;
            while boot_ms < until_ms {
                run_noting(&mut log, &disk, clock(boot_ms));
                boot_ms = log.deadline().expect("it is tried again").max(boot_ms + 1);
            }
            failures(&mut log, "")
        };
        let at_first = failures_until(3, 59_000, now);
        let later = failures_until(59_000, 59_000 + 300_000, clock);
        assert!(log.is_disk_full() && at_first > 1, "nothing has space");
        assert!((4..=6).contains(&later), "clock {number}: {later} times in 5 minutes");
    }
}

/// Does what the log asks for, for 30 s.
fn run_for_half_a_minute(log: &mut Log<SimDisk>, disk: &SimDisk) {
    let mut boot_ms = 3;
    while boot_ms < 30_000 {
        run_noting(log, disk, now(boot_ms));
        let Some(next_ms) = log.deadline() else { return };
        boot_ms = next_ms.max(boot_ms + 1);
    }
}

/// A start has given its reserve back and used some of it. Others take what there is on the disk, and a deletion had no space
/// to free any with.
#[test]
fn what_a_start_has_left_of_its_reserve_frees_a_disk_that_others_fill() {
    let disk = SimDisk::new(1);
    let config = LogConfig { reserve_bytes: 96 << 10, ..tiny() };
    let (mut log, _) = open_with(&disk, config.clone());
    for number in 0..100 {
        log.append(vec![event("gone", &noise(number, 3_000))], now(1)).expect("space");
        log.run_ops(now(2));
    }
    assert!(log.segments().len() > 3);
    drop(log);
    let disk = disk.kill();
    disk.limit_space(Some(disk.space_bytes() - (32 << 10)));
    let (mut log, _) = open_with(&disk, config.clone());
    assert_eq!(log.take_notices(), [Notice::DiskFull]);
    drop(log);
    // Also where it was started once more.
    let disk = disk.kill();
    (log, _) = open_with(&disk, config);
    disk.limit_space(Some(disk.space_bytes()));
    log.run_ops(now(3));
    let deleted = TopicsDeleted::of(vec!["gone".into()]);
    log.append_control(&Control::Deleted(deleted), now(3)).expect("control events have room");
    run_for_half_a_minute(&mut log, &disk);
    assert!(!log.is_disk_full(), "space is there again within 30 s");
    log.append(vec![event("a", "1")], now(60_000)).expect("there is space");
}

/// Limits of the log reach over a damaged segment. What lies behind it goes once that is written down, for which there is no
/// space but that of the reserve.
#[test]
fn what_lies_behind_a_damaged_segment_frees_a_full_disk() {
    let disk = SimDisk::new(7);
    let (mut log, _) = open_with(&disk, LogConfig { compress_after_s: 0, ..long_segments() });
    for number in 0..250 {
        log.append(vec![event("a", &noise(number, 7_000))], now(1)).expect("space");
        log.run_ops(now(2));
    }
    assert!(log.segments().len() >= 3);
    disk.limit_space(Some(disk.space_bytes()));
    while log.append(vec![event("a", &noise(1, 7_000))], now(2)).is_ok() {
        log.run_ops(now(2));
    }
    assert!(log.is_disk_full() && disk.bytes(&Path::new(DIR).join("reserve.tmp")).is_some());
    log.refuse_staged();
    let first = log.segments().iter().next().expect("a segment").name();
    log.note_damage(first, "rot".to_owned());
    let retain = crate::settings::LogRetention { count: Some(1), ..Default::default() };
    let settings = crate::settings::LogSettings { retain };
    log.append_control(&Control::Log(settings), now(3)).expect("control events have room");
    run_for_half_a_minute(&mut log, &disk);
    let left: Vec<_> = log.segments().iter().map(|segment| segment.name()).collect();
    assert_eq!(left, [first]);
    assert!(!log.is_disk_full(), "space is there again within 30 s");
}

/// It would have the space for which it was given back. A rewrite may take long.
#[test]
fn a_reserve_is_not_made_anew_beneath_what_it_was_given_back_for() {
    let (disk, mut log) = full_of(&SimDisk::new(6), |number| {
        let topic = if number.is_multiple_of(10) { "keep" } else { "gone" };
        vec![event(topic, &noise(number, 7_000))]
    });
    let deleted = TopicsDeleted::of(vec!["gone".into()]);
    log.append_control(&Control::Deleted(deleted), now(3)).expect("control events have room");
    let has_reserve = || disk.bytes(&Path::new(DIR).join("reserve.tmp")).is_some();
    let mut rewrites = Vec::new();
    for boot_ms in [3, 6_000, 12_000, 20_000] {
        while let Some(op) = log.next_op(now(boot_ms)) {
            match op {
                // What fails for want of space has the reserve given back.
                Op::Job { job: Job::Compact(_), .. } if !has_reserve() => rewrites.push(op),
                op => log.complete(op.run(&disk), now(boot_ms)),
            }
        }
        assert!(rewrites.is_empty() || !has_reserve(), "made anew at {boot_ms} ms");
    }
    let rewrite = rewrites.pop().expect("it was given back for one");
    let before = log.compaction_totals().segments;
    log.complete(rewrite.run(&disk), now(20_000));
    assert_eq!(log.compaction_totals().segments, before + 1, "it had the space");
    let mut boot_ms = 20_000;
    while boot_ms < 50_000 {
        run_noting(&mut log, &disk, now(boot_ms));
        boot_ms = log.deadline().expect("there is more to do").max(boot_ms + 1);
    }
    assert!(!log.is_disk_full() && has_reserve());
}

/// It was owed, as there had been no space for it, and then could not be made for another reason: appends were refused until
/// a restart, on a disk with space.
#[test]
fn a_reserve_that_the_disk_refuses_for_another_reason_keeps_no_data_waiting() {
    for is_given_back in [false, true] {
        let (disk, mut log) = full_of(&SimDisk::new(6), |number| {
            let topic = if number.is_multiple_of(10) { "keep" } else { "gone" };
            vec![event(topic, &noise(number, 7_000))]
        });
        let has_reserve = || disk.bytes(&Path::new(DIR).join("reserve.tmp")).is_some();
        if is_given_back {
            let deleted = TopicsDeleted::of(vec!["gone".into()]);
            log.append_control(&Control::Deleted(deleted), now(3)).expect("they have room");
            while has_reserve() {
                let op = log.next_op(now(3)).expect("what frees space finds none");
                log.complete(op.run(&disk), now(3));
            }
        }
        assert!(log.is_disk_full(), "given back: {is_given_back}");
        assert!(!(is_given_back && has_reserve()));
        disk.limit_space(None);
        let mut tries = 0;
        let mut run = |log: &mut Log<SimDisk>, boot_ms: u64| {
            while let Some(op) = log.next_op(now(boot_ms)) {
                let makes_one = match &op {
                    Op::Job { job: Job::Reserve(job), .. } => job.to_bytes > 0,
                    _ => false,
                };
                if makes_one {
                    disk.arm(Fault::StatFails, 0);
                    tries += 1;
                }
                let outcome = op.run(&disk);
                assert_eq!(disk.disarm(), 0, "it has struck");
                log.complete(outcome, now(boot_ms));
            }
        };
        (1..6).for_each(|step| run(&mut log, 6_000 * step));
        assert!(!log.is_disk_full(), "given back: {is_given_back}");
        for number in 0..100 {
            log.append(vec![event("keep", &noise(number, 7_000))], now(40_000)).expect("space");
            run(&mut log, 40_000 + 100 * number);
        }
        assert!(log.visible() == log.next() && tries > 1, "{tries}");
        let is_told = |notice: &Notice| matches!(notice, Notice::ReserveFailed { .. });
        let told = log.take_notices().iter().filter(|notice| is_told(notice)).count();
        assert_eq!(told, 1, "in {tries} tries");
    }
}

/// Want of file handles for a moment let data take the space that had just been freed for it.
#[test]
fn a_reserve_that_cannot_be_made_for_a_moment_stays_owed() {
    let (disk, mut log) =
        full_of(&SimDisk::new(6), |number| vec![event("keep", &noise(number, 7_000))]);
    disk.limit_space(None);
    let mut has_failed = false;
    while let Some(op) = log.next_op(now(6_000)) {
        let mut outcome = op.run(&disk);
        if let OpOutcome::Job { outcome: JobOutcome::Reserved { job, result }, .. } = &mut outcome {
            assert!(job.to_bytes > 0 && !has_failed, "tried once in a while");
            *result = Err(rustix::io::Errno::MFILE.into());
            has_failed = true;
        }
        log.complete(outcome, now(6_000));
    }
    assert!(has_failed && log.is_disk_full(), "it comes first");
    log.run_ops(now(12_000));
    assert!(!log.is_disk_full());
}
