//! The reserve: as large as what a full disk has to write.

use super::*;

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

/// However often, though each time as much is appended as there is room for, and nothing has the time to free any:
/// what is the reserve's stays so.
#[test]
fn restarts_on_a_full_disk_cost_nothing_that_lasts() {
    restart_on_a_full_disk(0);
}

/// What a disk cannot say of its space it says where there is none.
#[test]
fn a_disk_that_never_says_how_much_space_it_has_is_freed_as_any_other() {
    restart_on_a_full_disk(10_000);
}

/// Each life of the disk fails so often to say how much space it has.
fn restart_on_a_full_disk(silences: usize) {
    let mut disk = SimDisk::new(7);
    let silence = |disk: &SimDisk| (0..silences).for_each(|_| disk.arm(Fault::SpaceFails, 0));
    silence(&disk);
    disk.limit_space(Some(800 << 10));
    let config = LogConfig { reserve_bytes: 96 << 10, ..tiny() };
    let mut number = 0;
    let mut batch = || {
        number += 1;
        vec![event("gone", &noise(number, 900)), event("keep", "y")]
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
        silence(&disk);
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
    assert!(silences == 0 || (1..silences).contains(&disk.disarm()), "it was asked");
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
    let (mut log, _) = open_with(&disk, config.clone());
    for number in 0..80 {
        append(&mut log, &noise(number, 7_000));
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
    reserve.set_size(168 << 10).expect("shorter");
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
    assert_eq!(reserve_len(&disk), 168 << 10, "it is long enough");
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

/// The reserve grows for an extension, a segment begins meanwhile that needs no larger one, and an extension of that is under
/// way when the disk refuses the growth: which is no answer to that extension, and no second one begins beside it, over
/// frames that were written by then.
#[test]
fn a_growth_that_is_refused_is_not_taken_for_the_extension_that_is_under_way() {
    let mut met = 0;
    for grown in 1..8 {
        let disk = SimDisk::new(11);
        let config = LogConfig {
            segment_bytes: 128 << 10,
            reserve_bytes: 16 << 10,
            preallocate_rest_bytes_max: 0,
            ..tiny()
        };
        let (mut log, _) = open_with(&disk, config);
        let (mut growths, mut extensions) = (0, Vec::new());
        let is_growth = |op: &Op<SimDisk>| match op {
            Op::Job { job: Job::Reserve(job), .. } => job.to_bytes > job.from_bytes,
            _ => false,
        };
        // Up to the growth that is to be refused.
        let growth = (0..100).find_map(|number| {
            append(&mut log, &noise(number, 5_000));
            while let Some(op) = log.next_op(now(2)) {
                growths += usize::from(is_growth(&op));
                if is_growth(&op) && growths == grown {
                    return Some(op);
                }
                log.complete(op.run(&disk), now(2));
            }
            None
        });
        // Once it is as large as for a whole segment it grows no more.
        let Some(growth) = growth else { break };
        // It has no room in the segment, unless that is short.
        append(&mut log, &noise(1, 59_000));
        while let Some(op) = log.next_op(now(2)) {
            if matches!(op, Op::Job { job: Job::Extend(_), .. }) {
                extensions.push(op);
            } else {
                assert!(!is_growth(&op), "one at a time");
                log.complete(op.run(&disk), now(2));
            }
        }
        let Some(extension) = extensions.pop() else { continue };
        met += 1;
        disk.limit_space(Some(disk.space_bytes()));
        log.complete(growth.run(&disk), now(3));
        disk.limit_space(None);
        while let Some(op) = log.next_op(now(2_000)) {
            let begins = matches!(op, Op::Job { job: Job::Extend(_), .. });
            assert!(!begins, "a second extension begins beside the first");
            log.complete(op.run(&disk), now(2_000));
        }
        log.complete(extension.run(&disk), now(2_001));
        log.run_ops(now(2_001));
        assert_eq!(log.visible(), log.next());
        assert_eq!(open(&disk.power_cut()).visible(), log.visible());
    }
    assert!(met > 0, "it never came to that");
}
