//! A disk without space.

use super::*;

#[test]
fn a_full_disk_refuses_and_comes_back() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    append_each(&mut log, 1);
    disk.limit_space(Some(disk.space_bytes()));
    let mut appended = 1;
    while log.append(vec![event("a", &appended.to_string())], now(2)).is_ok() {
        appended += 1;
        log.run_ops(now(2));
        assert!(appended < 1_000, "the disk is full");
    }
    assert!(log.is_disk_full() && log.poisoned().is_none());
    assert_eq!(log.append(vec![event("a", "x")], now(3)), Err(AppendError::DiskFull));
    for boot_ms in [1_002, 1_500, 5_000, 9_000] {
        log.run_ops(now(boot_ms));
        let next_ms = log.deadline().expect("it is tried again");
        assert!(next_ms > boot_ms, "a driver would spin at {boot_ms}");
    }
    disk.limit_space(None);
    let retry_ms = log.deadline().expect("it is tried again");
    log.run_ops(now(retry_ms));
    assert!(!log.is_disk_full());
    assert_eq!(log.visible(), log.next());
    append_each(&mut log, 3);
}

#[test]
fn what_a_full_disk_holds_up_can_be_taken_back() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    append_each(&mut log, 1);
    disk.limit_space(Some(disk.space_bytes()));
    while log.append(vec![event("a", "x")], now(2)).is_ok() {
        log.run_ops(now(2));
    }
    assert!(log.next() > log.visible(), "some wait for space");
    assert_eq!(log.refuse_staged(), log.visible());
    disk.limit_space(None);
    log.run_ops(now(60_000));
    assert!(!log.is_disk_full(), "though nothing waits");
    let appended = log.append(vec![event("a", "y")], now(60_000)).expect("there is space");
    assert_eq!(appended.first, log.visible(), "no offset is lost");
    log.run_ops(now(60_000));
    assert_eq!(log.visible(), appended.wait);
}

#[test]
fn a_new_segment_ends_the_shortage_of_the_old_one() {
    let disk = SimDisk::new(1);
    let config = LogConfig { frame_bytes_target: 32 << 10, reserve_bytes: 0, ..tiny() };
    let (mut log, _) = open_with(&disk, config);
    let mut held = None;
    let mut run = |log: &mut Log<SimDisk>, boot_ms: u64| {
        while let Some(op) = log.next_op(now(boot_ms)) {
            match &op {
                Op::Job { job: Job::Extend(job), .. } if job.to == Position::new(64 << 10) => {
                    held = Some(op);
                }
                _ => log.complete(op.run(&disk), now(boot_ms)),
            }
        }
        held.take()
    };
    // A frame waits for an extension, and then with more goes into the next segment, which is there.
    let mut extension = None;
    for number in 0..9 {
        append(&mut log, &format!("{number}"));
        extension = extension.or(run(&mut log, 2));
    }
    let visible = log.visible();
    assert_eq!(visible, Offset::new(8), "the ninth has no room");
    append(&mut log, &format!("\"{}\"", "x".repeat(28 << 10)));
    assert!(run(&mut log, 2).is_none());
    disk.limit_space(Some(disk.space_bytes()));
    let extension = extension.expect("it is under way");
    log.complete(extension.run(&disk), now(2));
    assert!(log.is_disk_full());
    assert_eq!(log.refuse_staged(), visible);
    log.run_ops(now(2));
    assert_eq!(log_files(&disk).len(), 2, "it has rolled");
    log.run_ops(now(60_000));
    let appended = log.append(vec![event("a", "y")], now(60_000)).expect("there is a place for it");
    log.run_ops(now(60_000));
    assert_eq!((appended.first, log.visible()), (visible, appended.wait));
}

#[test]
fn a_full_disk_refuses_what_has_no_room_and_the_log_still_ends() {
    let disk = SimDisk::new(2);
    let mut log = open(&disk);
    append_each(&mut log, 3);
    disk.limit_space(Some(disk.space_bytes()));
    while !log.is_disk_full() {
        let _ = log.append(vec![event("a", &"x".repeat(3_000))], now(2));
        log.run_ops(now(2));
    }
    log.refuse_staged();
    let deleted = |topic: &str| Control::Deleted(TopicsDeleted::of(vec![topic.into()]));
    let mut taken = 0;
    while log.append_control(&deleted(&format!("t/{taken}")), now(3)).is_ok() {
        log.run_ops(now(3));
        taken += 1;
        assert!(taken < 100, "there is room for ever");
    }
    assert!(taken > 0, "there is room for some");
    log.begin_close();
    for step in 0..5 {
        log.run_ops(now(4_000 + 2_000 * step));
    }
    assert!(log.is_closed(), "nothing waits for space that does not come");
}

/// A `DELETE`, a trim, retention and compaction work on a full disk, and appends go on by themselves.
#[test]
fn a_full_disk_takes_what_frees_it_and_goes_on() {
    for case in 0..4 {
        let disk = SimDisk::new(case);
        disk.limit_space(Some(600 << 10));
        let (mut log, _) = open_with(&disk, LogConfig { reserve_bytes: 48 << 10, ..tiny() });
        let mut appended = 0;
        if case == 3 {
            // What is over goes by itself.
            let expire = crate::settings::TopicExpiry { age_s: Some(2), idle_s: None };
            let settings = crate::settings::TopicSettings { expire, ..Default::default() };
            let rule = TopicRule { pattern: "gone".into(), settings: Some(settings) };
            log.append_control(&Control::Topic(rule), now(1)).expect("there is space");
        }
        let batch = |number: u64| {
            let mut rng = crate::io::sim::rng::SimRng::new(number);
            let noise: String =
                rng.bytes(900).iter().map(|byte| char::from(byte % 94 + 33)).collect();
            vec![event("gone", &noise), event("keep", &format!("{number}"))]
        };
        while log.append(batch(appended), now(1)).is_ok() {
            log.run_ops(now(2));
            if log.is_disk_full() {
                log.refuse_staged();
            } else {
                appended += 1;
            }
        }
        assert!(log.is_disk_full() && appended > 50, "{appended}");
        assert_eq!(log.append(batch(0), now(3)), Err(AppendError::DiskFull));
        let retain = crate::settings::LogRetention { count: Some(20), ..Default::default() };
        let control = match case {
            0 => Some(Control::Log(crate::settings::LogSettings { retain })),
            1 => Some(Control::Deleted(TopicsDeleted::of(vec!["gone".into()]))),
            2 => {
                let before = 2 * appended - 20;
                Some(Control::Trimmed(TopicTrimmed { topic: "gone".into(), before }))
            }
            _ => None,
        };
        if let Some(control) = control {
            log.append_control(&control, now(3)).expect("control events have room");
        }
        for step in 0..10 {
            log.run_ops(now(3_000 + 3_000 * step));
        }
        assert!(!log.is_disk_full(), "case {case}: space is there again within 30 s");
        let more = log.append(batch(appended), now(40_000)).expect("there is space");
        log.run_ops(now(40_000));
        assert_eq!(log.visible(), more.wait);
        let disk = disk.power_cut();
        let log = open(&disk);
        assert_eq!(log.visible(), more.wait, "case {case}");
    }
}

/// What is dead in the active segment is freed as well: it is ended, with the reserve if need be.
#[test]
fn a_deletion_frees_a_full_disk_though_all_events_are_in_the_active_segment() {
    let disk = SimDisk::new(5);
    disk.limit_space(Some(1400 << 10));
    let config = LogConfig { segment_bytes: 1 << 20, reserve_bytes: 96 << 10, ..tiny() };
    let (mut log, _) = open_with(&disk, config.clone());
    let batch = |number: u64| {
        let mut rng = crate::io::sim::rng::SimRng::new(number);
        let noise: String = rng.bytes(900).iter().map(|byte| char::from(byte % 94 + 33)).collect();
        vec![event("gone", &noise), event("keep", &format!("{number}"))]
    };
    let mut appended = 0;
    while !log.is_disk_full() {
        let _ = log.append(batch(appended), now(1));
        log.run_ops(now(2));
        appended += 1;
    }
    log.refuse_staged();
    assert!(log.segments().is_empty(), "all is in the active one");
    let deleted = TopicsDeleted::of(vec!["gone".into()]);
    log.append_control(&Control::Deleted(deleted), now(3)).expect("control events have room");
    for step in 0..10 {
        log.run_ops(now(3_000 + 3_000 * step));
    }
    assert!(!log.is_disk_full(), "space is there again within 30 s");
    let more = log.append(batch(appended), now(40_000)).expect("there is space");
    log.run_ops(now(40_000));
    assert_eq!(log.visible(), more.wait);
    let (log, _) = open_with(&disk.power_cut(), config);
    assert_eq!(log.visible(), more.wait);
    assert!(log.topics().get("keep").is_some_and(|topic| topic.count >= appended - 2));
}

/// However often, though each time as much is appended as there is room for, and nothing has the time to free any:
/// what is the reserve's stays so.
#[test]
fn restarts_on_a_full_disk_cost_nothing_that_lasts() {
    let mut disk = SimDisk::new(7);
    disk.limit_space(Some(800 << 10));
    let config = LogConfig { reserve_bytes: 96 << 10, ..tiny() };
    let mut rng = crate::io::sim::rng::SimRng::new(3);
    let mut batch = || {
        let noise = rng.bytes(900);
        let text: String = noise.iter().map(|byte| char::from(byte % 94 + 33)).collect();
        vec![event("gone", &text), event("keep", "y")]
    };
    let run = |log: &mut Log<SimDisk>, disk: &SimDisk| {
        while let Some(op) = log.next_op(now(2)) {
            match op {
                Op::Job { job: Job::Compact(_) | Job::Snapshot(_) | Job::Scrub(_), .. } => {}
                op => log.complete(op.run(disk), now(2)),
            }
        }
    };
    let (mut log, _) = open_with(&disk, config.clone());
    for _ in 0..60 {
        run(&mut log, &disk);
        while log.append(batch(), now(1)).is_ok() {
            run(&mut log, &disk);
        }
        assert!(log.is_disk_full());
        drop(log);
        disk = disk.kill();
        log = open_with(&disk, config.clone()).0;
    }
    assert!(log.visible().get() > 100, "{}", log.visible());
    log.run_ops(now(1));
    let deleted = TopicsDeleted::of(vec!["gone".into()]);
    log.append_control(&Control::Deleted(deleted), now(1)).expect("there is room");
    for step in 0..10 {
        log.run_ops(now(3_000 + 3_000 * step));
    }
    assert!(!log.is_disk_full(), "space is there again within 30 s");
    log.append(batch(), now(60_000)).expect("there is space");
}

/// After a power cut on some file systems, or in a copy, the reserve may be as long as it was and hold nothing.
#[test]
fn a_reserve_that_is_a_hole_is_made_anew() {
    let disk = SimDisk::new(2);
    let mut log = open(&disk);
    log.run_ops(now(1));
    drop(log);
    let path = Path::new(DIR).join("reserve.tmp");
    let bytes = u64::try_from(reserve_len(&disk)).expect("small");
    disk.remove(&path).expect("it was made");
    let hole = disk.create(&path, Access::Write).expect("a new file");
    hole.set_size(bytes).expect("a hole needs no space");
    drop(hole);
    let disk = disk.kill();
    let mut log = open(&disk);
    log.run_ops(now(1));
    let before = disk.space_bytes();
    drop(log);
    disk.remove(&path).expect("the reserve");
    assert_eq!(before - disk.space_bytes(), usize::try_from(bytes).expect("small"));
}

/// Events of so many topics that the log does not know yet, each with a name of `name_bytes`.
fn of_new_topics(first: usize, count: usize, name_bytes: usize) -> Vec<NewEvent> {
    let name = |number: usize| {
        let levels = "x".repeat(100) + "/";
        format!("{number:0>6}/{}", levels.repeat(5))[..name_bytes - 1].to_owned() + "y"
    };
    (first..first + count).map(|number| event(&name(number), "1")).collect()
}

/// The index of a tail with many topics is longer than what is free. What was prepared behind the tail has room for it,
/// and is given back before it is written.
#[test]
fn a_start_on_a_full_disk_has_the_room_behind_the_tail_for_its_index() {
    let disk = SimDisk::new(4);
    let config = LogConfig { segment_bytes: 1 << 20, reserve_bytes: 0, ..tiny() };
    let prepared = LogConfig {
        preallocate_bytes_min: 768 << 10,
        preallocate_bytes_max: 768 << 10,
        ..config.clone()
    };
    let (mut log, _) = open_with(&disk, prepared);
    for first in (0..600).step_by(20) {
        log.append(of_new_topics(first, 20, 400), now(1)).expect("there is space");
        log.run_ops(now(2));
    }
    let visible = log.visible();
    drop(log);
    let disk = disk.kill();
    disk.limit_space(Some(disk.space_bytes()));
    let (log, _) = open_with(&disk, config);
    assert_eq!((log.visible(), log.topics().len()), (visible, 600));
    let index = log.segments().iter().next().expect("it is sealed").index().header().index_bytes;
    assert!(index > 256 << 10, "{index}");
}

/// How long the reserve is.
fn reserve_len(disk: &SimDisk) -> usize {
    disk.bytes(&Path::new(DIR).join("reserve.tmp")).map_or(0, |bytes| bytes.len())
}

/// The longest file of frames, with a quarter more, but no more than for a full segment.
fn reserve_len_min(disk: &SimDisk, config: &LogConfig) -> usize {
    let lens = log_files(disk).into_iter().map(|path| disk.bytes(&path).expect("listed").len());
    let segment = usize::try_from(config.segment_bytes).expect("small");
    let longest = lens.max().unwrap_or(0).min(segment);
    longest + longest / 4
}

/// With a topic for each event an index is as long as its segment, and so is a stub. However full the disk was when a
/// segment was to be sealed: it is, what goes by rule goes, and a start finds room for the index of the tail.
#[test]
fn a_full_disk_has_room_for_indexes_and_stubs_of_many_topics() {
    let config = LogConfig { segment_bytes: 256 << 10, ..tiny() };
    let mut starved = 0;
    for case in 0..16 {
        let disk = SimDisk::new(case);
        disk.limit_space(Some((2 << 20) + usize::try_from(case).expect("small") * (40 << 10)));
        let (mut log, _) = open_with(&disk, config.clone());
        log.run_ops(now(1));
        let mut count = 0;
        while log.append(of_new_topics(count, 20, 400), now(1)).is_ok() {
            log.run_ops(now(2));
            // It is whole, or it was given back.
            let len = reserve_len(&disk);
            assert!(len == 0 || len >= reserve_len_min(&disk, &config), "{count}: {len}");
            count += 20;
        }
        assert!(log.is_disk_full() && count > 500, "{count}");
        log.refuse_staged();
        let space = disk.space(Path::new(DIR)).expect("known");
        starved += usize::from(space.free_bytes < 150 << 10);
        let visible = log.visible();
        drop(log);
        let disk = disk.kill();
        let (mut log, report) = open_with(&disk, config.clone());
        assert_eq!(log.visible(), visible);
        assert!(!report.scanned.is_empty(), "the tail had no index");
        log.run_ops(now(1));
        let retain = crate::settings::LogRetention { count: Some(20), ..Default::default() };
        let control = Control::Log(crate::settings::LogSettings { retain });
        log.append_control(&control, now(3)).expect("control events have room");
        for step in 0..10 {
            log.run_ops(now(3_000 + 3_000 * step));
        }
        assert!(!log.is_disk_full(), "case {case}: space is there again within 30 s");
        let more = log.append(of_new_topics(count, 20, 400), now(40_000)).expect("space");
        log.run_ops(now(40_000));
        assert_eq!(log.visible(), more.wait);
        assert!(reserve_len(&disk) >= reserve_len_min(&disk, &config));
        assert_eq!(open_with(&disk.power_cut(), config.clone()).0.visible(), more.wait);
    }
    assert!(starved > 0, "a stub has no room without the reserve");
}

/// One that was as large as logs of before had it stays, and grows where there is space. Where there is none, data takes
/// nothing, and nothing is given back and taken again.
#[test]
fn a_reserve_of_before_grows_once_there_is_space_and_is_shortened_once_it_is_of_no_use() {
    let disk = SimDisk::new(8);
    let config = LogConfig { segment_bytes: 256 << 10, preallocate_rest_bytes_max: 0, ..tiny() };
    let bytes_min = usize::try_from(config.reserve_bytes).expect("small");
    let mut rng = crate::io::sim::rng::SimRng::new(3);
    let (mut log, _) = open_with(&disk, config.clone());
    for _ in 0..80 {
        let noise = rng.bytes(7_000);
        append(&mut log, &noise.iter().map(|byte| char::from(byte % 94 + 33)).collect::<String>());
        log.run_ops(now(2));
    }
    assert!(reserve_len(&disk) >= 320 << 10);
    drop(log);
    let path = Path::new(DIR).join("reserve.tmp");
    let reserve = disk.open(&path, Access::Write).expect("a reserve");
    reserve.set_size(bytes_min as u64).expect("shorter");
    let disk = disk.kill();
    disk.limit_space(Some(disk.space_bytes() + (40 << 10)));
    let (mut log, _) = open_with(&disk, config.clone());
    log.run_ops(now(2));
    let mut lens = Vec::new();
    for step in 1..20 {
        let at = now(3_000 * step);
        log.run_ops(at);
        assert!(log.is_disk_full() && log.deadline().is_some_and(|next_ms| next_ms > at.boot_ms));
        lens.push(reserve_len(&disk));
    }
    lens.dedup();
    assert!(lens == [bytes_min] || lens == [bytes_min, 0] || lens == [0], "{lens:?}");
    disk.limit_space(None);
    log.run_ops(now(70_000));
    assert!(!log.is_disk_full());
    assert!(reserve_len(&disk) >= 320 << 10);
    let retain = crate::settings::LogRetention { count: Some(1), ..Default::default() };
    keep(&mut log, retain);
    log.run_ops(now(72_000));
    assert!(log.segments().is_empty(), "all is gone");
    let len = reserve_len(&disk);
    assert!(len < 160 << 10 && len >= reserve_len_min(&disk, &config), "{len}");
}

/// Nothing of it gets shorter.
fn noise(number: u64, bytes: usize) -> String {
    let mut rng = crate::io::sim::rng::SimRng::new(number);
    rng.bytes(bytes).iter().map(|byte| char::from(byte % 94 + 33)).collect()
}

/// Segments that are more than five times as long as the reserve of a log without much in it.
fn long_segments() -> LogConfig {
    LogConfig { segment_bytes: 512 << 10, reserve_bytes: 96 << 10, ..tiny() }
}

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

/// The reserve could not grow, and what asked for more went: what there is was enough from there on, but nobody said so, and
/// appends found a full disk on an empty one until the next start.
#[test]
fn a_reserve_that_is_enough_again_is_not_waited_for() {
    let disk = SimDisk::new(9);
    let config = LogConfig { preallocate_rest_bytes_max: 0, ..long_segments() };
    let (mut log, _) = open_with(&disk, config.clone());
    for number in 0..80 {
        append(&mut log, &noise(number, 7_000));
        log.run_ops(now(2));
    }
    drop(log);
    let path = Path::new(DIR).join("reserve.tmp");
    let reserve = disk.open(&path, Access::Write).expect("a reserve");
    reserve.set_size(160 << 10).expect("shorter");
    let disk = disk.kill();
    // Room for stubs, and not for a reserve that is as long as a segment.
    disk.limit_space(Some(disk.space_bytes() + (100 << 10)));
    let (mut log, _) = open_with(&disk, config);
    log.run_ops(now(2));
    assert!(log.is_disk_full());
    keep(&mut log, crate::settings::LogRetention { count: Some(1), ..Default::default() });
    for step in 1..10 {
        log.run_ops(now(3_000 * step));
    }
    assert!(log.segments().is_empty(), "all is gone");
    assert_eq!(reserve_len(&disk), 160 << 10, "it is long enough");
    assert!(!log.is_disk_full());
    append(&mut log, "more");
}

/// Grown for an extension that the disk refused, it was made shorter at once, which had the extension tried again, and the
/// reserve grow again for that: without end.
#[test]
fn a_reserve_that_has_grown_for_an_extension_stays_that_long() {
    for left in (0..40).map(|step| step * (32 << 10)) {
        let disk = SimDisk::new(10);
        let config = LogConfig {
            segment_bytes: 1 << 20,
            reserve_bytes: 96 << 10,
            frame_bytes_max: 900 << 10,
            staged_bytes_max: 4 << 20,
            ..tiny()
        };
        let (mut log, _) = open_with(&disk, config);
        append(&mut log, "first");
        log.run_ops(now(2));
        disk.limit_space(Some(disk.space_bytes() + left));
        let batch: Vec<_> = (0..90).map(|number| event("a", &noise(number, 7_000))).collect();
        log.append(batch, now(3)).expect("staged");
        for boot_ms in [3, 400, 1_100, 2_200] {
            for turn in 0.. {
                let Some(op) = log.next_op(now(boot_ms)) else { break };
                log.complete(op.run(&disk), now(boot_ms));
                assert!(turn < 300, "{left} bytes left, {boot_ms} ms: it does not come to rest");
            }
        }
        let full = log.take_notices();
        let full = full.iter().filter(|notice| matches!(notice, Notice::DiskFull)).count();
        assert!(full <= 4, "{left} bytes left: told {full} times");
    }
}
