//! A disk without space.

use super::*;
use crate::{frame::FRAME_ALIGN_BYTES, reserve::RESERVE_FILE_NAME, seal::TEMPORARY_ENDING};

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
    assert_eq!(log.refuse_staged().from, log.visible());
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
    assert_eq!(log.refuse_staged().from, visible);
    log.run_ops(now(2));
    assert_eq!(log_files(&disk).len(), 2, "it has rolled");
    log.run_ops(now(60_000));
    let appended = log.append(vec![event("a", "y")], now(60_000)).expect("there is a place for it");
    log.run_ops(now(60_000));
    assert_eq!((appended.first, log.visible()), (visible, appended.wait));
}

/// What waits for the next segment is refused, and a deletion goes behind the end of this one: nothing waits any more.
#[test]
fn a_log_whose_roll_was_taken_back_finds_the_space_that_there_is_again() {
    let disk = SimDisk::new(1);
    let config = LogConfig { reserve_bytes: 0, preallocate_bytes_min: 64 << 10, ..tiny() };
    let (mut log, _) = open_with(&disk, LogConfig { preallocate_bytes_max: 64 << 10, ..config });
    append_each(&mut log, 1);
    disk.limit_space(Some(disk.space_bytes()));
    log.append(vec![event("a", &noise(1, 59 << 10))], now(2)).expect("staged");
    log.run_ops(now(2));
    assert!(log.is_disk_full(), "it has no room in this segment");
    log.refuse_staged();
    let deleted = Control::Deleted(TopicsDeleted::of(vec!["b".into()]));
    let deletion = log.append_control(&deleted, now(3)).expect("there is room");
    log.run_ops(now(3));
    assert_eq!((log.visible(), log_files(&disk).len()), (deletion.wait, 1), "it is in this one");
    assert!(log.is_disk_full());
    disk.limit_space(None);
    for _ in 0..3 {
        let retry_ms = log.deadline().expect("it is tried again");
        log.run_ops(now(retry_ms));
    }
    assert!(!log.is_disk_full(), "though nothing waits");
    append_each(&mut log, 3);
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

/// What frees space was staged in the turn in which the disk turned out to be full, between events that it has no
/// room for.
#[test]
fn control_events_are_not_taken_back_with_what_a_full_disk_has_no_room_for() {
    let disk = SimDisk::new(3);
    let config = LogConfig { segment_bytes: 1 << 20, reserve_bytes: 96 << 10, ..tiny() };
    let (mut log, _) = open_with(&disk, config.clone());
    append_each(&mut log, 3);
    disk.limit_space(Some(disk.space_bytes()));
    let large = || vec![event("b", &noise(1, 3_000))];
    let deleted = Control::Deleted(TopicsDeleted::of(vec!["a".into()]));
    let trimmed = Control::Trimmed(TopicTrimmed { topic: "b".into(), before: 4 });
    for _ in 0..70 {
        log.append(large(), now(2)).expect("staged");
    }
    let deletion = log.append_control(&deleted, now(2)).expect("staged").first;
    let last = log.append(large(), now(2)).expect("staged").first;
    let trim = log.append_control(&trimmed, now(2)).expect("staged").first;
    log.run_ops(now(2));
    assert!(log.is_disk_full() && log.visible() < deletion, "some were written, and no more");
    let (from, kept) = (log.visible(), log.visible().plus(1));
    let taken = log.refuse_staged();
    assert_eq!(taken, TakenBack { from, kept: vec![(deletion, from), (trim, kept)] });
    assert_eq!(taken.moved_by(trim), Some(trim.since(kept)));
    assert_eq!(taken.moved_by(last), None, "it is refused");
    log.run_ops(now(3));
    assert!(log.is_disk_full(), "there is no more space than before");
    assert_eq!(log.visible(), kept.plus(1), "they are in the log");
    assert_eq!(log.rules().floors().of("a"), from);
    let (log, _) = open_with(&disk.power_cut(), config);
    assert_eq!((log.visible(), log.rules().floors().of("a")), (kept.plus(1), from));
}

/// Where each has a frame of its own, each takes a block of the room: more were taken than have one, and those waited
/// for space that nobody freed.
#[test]
fn as_many_control_events_are_taken_on_a_full_disk_as_have_room_for_their_frames() {
    let disk = SimDisk::new(4);
    let long = LogConfig { segment_bytes: 1 << 20, reserve_bytes: 96 << 10, ..tiny() };
    let (mut log, _) = open_with(&disk, LogConfig { frame_bytes_target: 1, ..long });
    append_each(&mut log, 3);
    disk.limit_space(Some(disk.space_bytes()));
    while !log.is_disk_full() {
        log.append(vec![event("b", &noise(1, 3_000))], now(2)).expect("staged");
        log.run_ops(now(2));
    }
    log.refuse_staged();
    let trimmed = Control::Trimmed(TopicTrimmed { topic: "none".into(), before: 4 });
    let mut taken = 0;
    while log.append_control(&trimmed, now(3)).is_ok() {
        taken += 1;
        assert!(taken < 1_000, "the disk is full");
    }
    let blocks = log.control_room_bytes() / FRAME_ALIGN_BYTES as u64;
    assert!(taken >= blocks, "{taken} have the room of {blocks}");
    // As many are kept where others are refused.
    let next = log.next();
    assert_eq!(log.refuse_staged().kept.len() as u64, taken);
    log.run_ops(now(3));
    assert!(log.is_disk_full(), "there is no more space than before");
    assert_eq!((log.visible(), log.next()), (next, next), "each that was taken is written");
}

/// A `DELETE`, a trim, retention and compaction work on a full disk, and appends go on by themselves, also where nothing
/// is synced otherwise.
#[test]
fn a_full_disk_takes_what_frees_it_and_goes_on() {
    for (seed, case) in (0..4).chain(0..4).enumerate() {
        let sync = if seed < 4 { SyncMode::Commit } else { SyncMode::Never };
        let disk = SimDisk::new(case);
        disk.limit_space(Some(600 << 10));
        let (mut log, _) = open_with(&disk, LogConfig { sync, reserve_bytes: 48 << 10, ..tiny() });
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
        if sync == SyncMode::Never {
            log.begin_close();
            log.run_ops(now(40_000));
        }
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

/// Those beyond the first few waited until all topics of the log had been looked at again.
#[test]
fn a_full_disk_ends_one_topic_after_the_other_without_a_wait() {
    let disk = SimDisk::new(6);
    let config = LogConfig { segment_bytes: 1 << 20, reserve_bytes: 96 << 10, ..tiny() };
    let (mut log, _) = open_with(&disk, config);
    let expire = crate::settings::TopicExpiry { age_s: Some(60), idle_s: None };
    let settings = Some(crate::settings::TopicSettings { expire, ..Default::default() });
    let rule = TopicRule { pattern: "t/*".into(), settings };
    log.append_control(&Control::Topic(rule), now(1)).expect("staged");
    for number in 0..40 {
        log.append(vec![event(&format!("t/{number}"), "1")], now(1)).expect("staged");
    }
    for batch in 0..20 {
        let others = (0..100).map(|number| event(&format!("others/{batch}/{number}"), "1"));
        log.append(others.collect::<Vec<_>>(), now(1)).expect("staged");
        log.run_ops(now(2));
    }
    disk.limit_space(Some(disk.space_bytes()));
    while !log.is_disk_full() {
        log.append(vec![event("a", &noise(1, 9_000))], now(50_000)).expect("staged");
        log.run_ops(now(50_000));
    }
    log.refuse_staged();
    let left = |log: &Log<SimDisk>| log.topics().page("t/", None, 100).len();
    // What would free space is under way.
    let mut jobs = Vec::new();
    let mut run = |log: &mut Log<SimDisk>, boot_ms: u64| {
        while let Some(op) = log.next_op(now(boot_ms)) {
            match &op {
                Op::Job { .. } => jobs.push(op),
                _ => log.complete(op.run(&disk), now(boot_ms)),
            }
        }
    };
    let mut boot_ms = 50_000;
    while log.expiry_from != 0 {
        boot_ms += 20;
        run(&mut log, boot_ms);
    }
    assert_eq!((boot_ms < 51_000, left(&log)), (true, 40), "none is over yet");
    for step in 0..4 {
        run(&mut log, 70_000 + 20 * step);
    }
    assert_eq!((log.is_disk_full(), left(&log)), (true, 0));
}

/// Each of several deletions, one after the other, took a segment and its index of the reserve.
#[test]
fn a_segment_of_control_events_alone_is_not_ended_for_space() {
    let disk = SimDisk::new(1);
    let config = LogConfig { segment_bytes: 16 << 10, preallocate_bytes_min: 8 << 10, ..tiny() };
    let (mut log, _) = open_with(&disk, config);
    for has_data in [false, true] {
        log.jobs.disk_full = false;
        if has_data {
            append(&mut log, "0");
        }
        let deleted = Control::Deleted(TopicsDeleted::of(vec!["a".into()]));
        log.append_control(&deleted, now(1)).expect("staged");
        log.run_ops(now(2));
        (log.jobs.disk_full, log.jobs.ends_for_space) = (true, true);
        log.end_segment_for_space();
        assert_eq!(log.jobs.rolling, has_data);
    }
}

/// From its first moment on such a log refuses appends, and nothing later would say why.
#[test]
fn a_start_that_took_its_reserve_says_that_the_disk_is_full() {
    let disk = SimDisk::new(1);
    let config = LogConfig { reserve_bytes: 96 << 10, ..tiny() };
    let (mut log, _) = open_with(&disk, config.clone());
    append_each(&mut log, 3);
    drop(log);
    let disk = disk.kill();
    // Others have taken all there is, and more than was prepared behind the tail.
    disk.limit_space(Some(disk.space_bytes() - (32 << 10)));
    let (mut log, _) = open_with(&disk, config);
    assert_eq!(log.append(vec![event("a", "3")], now(1)), Err(AppendError::DiskFull));
    assert_eq!((log.is_disk_full(), log.take_notices()), (true, vec![Notice::DiskFull]));
    log.run_ops(now(1));
    disk.limit_space(None);
    log.run_ops(now(60_000));
    let mut told = log.take_notices();
    told.retain(|notice| matches!(notice, Notice::DiskFull | Notice::DiskSpaceBack));
    assert_eq!((log.is_disk_full(), told), (false, vec![Notice::DiskSpaceBack]));
    append_each(&mut log, 1);
}

/// In a start each segment that has no index yet takes one. No more were reckoned with than of a log whose seals keep up, and
/// nothing when a log ended, which seals none.
#[test]
fn a_full_disk_has_room_for_the_indexes_of_all_segments_that_have_none() {
    for is_closed in [true, false] {
        let disk = SimDisk::new(1);
        let config = LogConfig { segment_bytes: 8 << 10, frame_bytes_target: 1, ..tiny() };
        let (mut log, _) = open_with(&disk, config.clone());
        let mut seals = Vec::new();
        let mut run = |log: &mut Log<SimDisk>| {
            while let Some(op) = log.next_op(now(2)) {
                match &op {
                    Op::Job { job: Job::Seal(_), .. } => seals.push(op),
                    _ => log.complete(op.run(&disk), now(2)),
                }
            }
        };
        for number in 0..30 {
            append(&mut log, &noise(number, 6_000));
            if !is_closed {
                run(&mut log);
            }
        }
        if is_closed {
            log.begin_close();
            run(&mut log);
            assert!(log.is_closed());
        }
        assert_eq!((log.synced(), log_files(&disk).len()), (Offset::new(30), 30));
        assert!(log.segments().is_empty(), "none has an index");
        drop(log);
        let disk = disk.kill();
        disk.limit_space(Some(disk.space_bytes()));
        let (log, report) = open_with(&disk, config);
        assert_eq!((log.visible(), report.is_clean), (Offset::new(30), is_closed));
        assert_eq!(log.segments().len(), 30);
    }
}

/// A directory whose blocks are full takes another for a name, and there may be none: nothing of the log is in doubt.
#[test]
fn a_segment_whose_name_finds_no_space_is_begun_once_there_is_some() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    // The first two tries to begin the second segment.
    (0..2).for_each(|_| disk.arm(Fault::RenameFindsNoSpace, 0));
    let mut appended = 0;
    while log.append(vec![event("a", &appended.to_string())], now(1)).is_ok() {
        appended += 1;
        log.run_ops(now(2));
        assert!(appended < 100, "the segment is full");
    }
    assert_eq!((log.is_disk_full(), log.poisoned()), (true, None));
    assert_eq!(log.take_notices(), [Notice::DiskFull]);
    let is_left = disk.bytes(&Path::new(DIR).join(NEXT_FILE_NAME)).is_some();
    assert!(!is_left, "the file without a name takes the space that was missing");
    for (boot_ms, notices) in [(1_500, vec![]), (3_000, vec![Notice::DiskSpaceBack])] {
        assert!(log.deadline().is_some_and(|next_ms| next_ms <= boot_ms), "it is tried again");
        log.run_ops(now(boot_ms));
        assert_eq!(log.take_notices(), notices);
    }
    assert_eq!(log.visible(), Offset::new(appended), "what waited goes on");
    assert_eq!(log_files(&disk).len(), 2);
    let (log, _) = open_with(&disk.power_cut(), tiny());
    assert_eq!(log.visible(), Offset::new(appended));
}

/// Of a segment, an index, a stub, a rewrite, a snapshot, of where the log begins: each in turn is the one.
#[test]
fn a_name_that_finds_no_space_ends_nothing_and_leaves_nothing() {
    let left = |disk: &SimDisk| {
        let mut names = disk.list(Path::new(DIR)).expect("a directory");
        let stays = [NEXT_FILE_NAME, RESERVE_FILE_NAME];
        names.retain(|name| name.ends_with(TEMPORARY_ENDING) && !stays.contains(&&**name));
        names
    };
    let mut struck = 0;
    for (reserve_bytes, renames) in
        [0, 16 << 10].into_iter().flat_map(|reserve| (0..60).map(move |renames| (reserve, renames)))
    {
        let disk = SimDisk::new(renames);
        let config = LogConfig { snapshot_segments: 1, reserve_bytes, ..tiny() };
        let (mut log, _) = open_with(&disk, config);
        disk.arm(Fault::RenameFindsNoSpace, renames);
        keep(&mut log, crate::settings::LogRetention { count: Some(90), ..Default::default() });
        for number in 0..120 {
            // Refused as long as a segment has no name.
            let _ = log.append(vec![event("a", &noise(number, 3_000))], now(1));
            log.run_ops(now(2));
        }
        assert_eq!(left(&disk), [""; 0], "after {renames}");
        (1..4).for_each(|minutes| log.run_ops(now(60_000 * minutes)));
        assert_eq!((log.is_disk_full(), log.poisoned()), (false, None), "after {renames}");
        log.append(vec![event("a", "last")], now(200_000)).expect("there is space");
        log.run_ops(now(200_000));
        assert_eq!((log.visible(), left(&disk)), (log.next(), vec![]), "after {renames}");
        struck += 1 - disk.disarm();
    }
    assert!(struck > 40, "{struck} of the 120 were met");
}

/// What a file was to have is not kept from others by a part of it.
#[test]
fn a_segment_that_finds_no_space_for_its_zeroes_leaves_none_of_them() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    let next = Path::new(DIR).join(NEXT_FILE_NAME);
    // Until the next one is to be prepared.
    let prepare = loop {
        append(&mut log, &noise(1, 2_000));
        let held = hold(&mut log, &disk, |op| matches!(op, Op::Job { job: Job::Prepare(_), .. }));
        if let Some(op) = held.into_iter().next() {
            break op;
        }
    };
    let before = disk.space_bytes();
    disk.limit_space(Some(before + (8 << 10)));
    log.complete(prepare.run(&disk), now(2));
    assert!(disk.bytes(&next).is_none() && disk.space_bytes() == before);
    disk.limit_space(None);
    log.run_ops(now(60_000));
    append_each(&mut log, 20);
    assert_eq!(log.visible(), log.next());
}

/// It waits for the processor as rewrites do, and they may wait behind it.
#[test]
fn a_snapshot_that_is_under_way_when_the_disk_becomes_full_ends() {
    let disk = SimDisk::new(1);
    let config = LogConfig { snapshot_segments: 2, compress_after_s: u64::MAX, ..tiny() };
    let (mut log, _) = open_with(&disk, config);
    let is_snapshot = |op: &Op<SimDisk>| matches!(op, Op::Job { job: Job::Snapshot(_), .. });
    let snapshot = loop {
        append(&mut log, &noise(1, 7_000));
        let held = hold(&mut log, &disk, is_snapshot);
        if let Some(op) = held.into_iter().next() {
            break op;
        }
    };
    disk.limit_space(Some(disk.space_bytes()));
    while log.append(vec![event("a", &noise(2, 7_000))], now(2)).is_ok() {
        assert!(hold(&mut log, &disk, is_snapshot).is_empty(), "one is under way");
    }
    assert!(log.is_disk_full());
    disk.limit_space(None);
    let made = snapshot.run(&disk);
    let is_ended = matches!(&made, OpOutcome::Job { outcome: JobOutcome::Snapshot(Ok(None)), .. });
    assert!(is_ended, "nobody waits behind it");
    log.complete(made, now(3));
    assert_eq!(log.snapshot_totals().made, 0);
    log.run_ops(now(60_000));
    append_each(&mut log, 100);
    assert!(!log.is_disk_full() && log.snapshot_totals().made > 0, "there is space again");
}

/// A frame waits for the next segment, and there is no file handle for that just then: the log was read-only until a restart.
#[test]
fn what_a_process_lacks_for_a_moment_ends_no_log() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    let mut failures = 0;
    let mut fail = |log: &mut Log<SimDisk>, boot_ms: u64| {
        while let Some(op) = log.next_op(now(boot_ms)) {
            let mut outcome = op.run(&disk);
            if let OpOutcome::Job { outcome: JobOutcome::Prepared(result), .. } = &mut outcome {
                *result = Err(rustix::io::Errno::MFILE.into());
                failures += 1;
            }
            log.complete(outcome, now(boot_ms));
        }
    };
    for number in 0..30 {
        log.append(vec![event("a", &noise(number, 7_000))], now(2)).expect("staged");
        fail(&mut log, 2);
    }
    assert!(log.visible() < log.next(), "they wait");
    for step in 1..4 {
        let retry_ms = log.deadline().expect("it is tried again");
        assert!(retry_ms <= 2 + 1_000 * step, "{retry_ms}");
        fail(&mut log, retry_ms);
    }
    assert!(log.poisoned().is_none() && !log.is_disk_full());
    let retry_ms = log.deadline().expect("it is tried again");
    log.run_ops(now(retry_ms));
    assert_eq!(log.visible(), log.next());
    assert!(failures > 2, "{failures}");
}
