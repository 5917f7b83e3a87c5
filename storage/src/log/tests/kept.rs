//! What limits have let go, over starts and rewrites.

use super::*;

/// A log that is one segment of 200 events in frames of 8 KiB, sealed, closed and opened again.
fn one_long_segment(disk: &SimDisk, compress_after_s: u64) -> Log<SimDisk> {
    let config =
        LogConfig { segment_bytes: 4 << 20, compress_after_s, frame_bytes_target: 1, ..tiny() };
    let (mut log, _) = open_with(disk, config.clone());
    for number in 0..200_u64 {
        let at = now(number * 1_000);
        if number % 50 == 10 {
            let settings = Some(crate::settings::TopicSettings::default());
            let rule = TopicRule { pattern: format!("b/{number}"), settings };
            log.append_control(&Control::Topic(rule), at).expect("staged");
        }
        log.append(vec![event("a", &format!("{number:->5000}"))], at).expect("staged");
        log.run_ops(at);
    }
    close(&mut log);
    drop(log);
    open_with(disk, config).0
}

/// The segment was still there, so nothing told a reader on its way that a rewrite had taken what it came to.
#[test]
fn who_is_on_its_way_to_what_a_limit_has_let_go_inside_a_segment_is_told() {
    use crate::{
        error::ReadError,
        reader::Reader,
        settings::{LogRetention, LogSettings},
    };
    let disk = SimDisk::new(4);
    let mut log = one_long_segment(&disk, 1);
    let query = |from, end, order| ReadQuery { topics: Vec::new(), from, end, order };
    let on_its_way = |log: &Log<SimDisk>, order| {
        Reader::new(Arc::clone(log.segments()), &query(Offset::new(5), log.segments().end(), order))
    };
    let [mut late, mut back] =
        [Order::Ascending, Order::Descending].map(|order| on_its_way(&log, order));
    let retain = LogRetention { count: Some(100), ..LogRetention::default() };
    log.append_control(&Control::Log(LogSettings { retain }), now(200_000)).expect("staged");
    log.run_ops(now(300_000));
    log.run_ops(now(360_000));
    let (set, start) = (log.segments(), log.start());
    assert_eq!(set.iter().map(|segment| segment.name().generation).collect::<Vec<_>>(), [2]);
    assert!(start > Offset::new(50), "the limit ends in it");
    late.follow(Arc::clone(set));
    let told = late.next_blocking().map(|hits| hits.is_some());
    assert!(matches!(told, Err(ReadError::Expired { earliest }) if earliest == start), "{told:?}");
    let next = late.next_blocking().expect("said once").expect("what is kept");
    assert!(next.events().next().is_some_and(|event| event.offset() >= start));
    // Who begins at what is kept lacks nothing, nor does who goes the other way.
    let mut soon = Reader::new(Arc::clone(set), &query(start, set.end(), Order::Ascending));
    while soon.next_blocking().expect("nothing is passed over").is_some() {}
    back.follow(Arc::clone(set));
    while back.next_blocking().expect("nothing is passed over").is_some() {}
}

/// How far a limit of the log reached inside a segment was known in memory alone, though a rewrite dropped events
/// by it: after a restart readers went over them without a word.
#[test]
fn what_a_limit_has_let_go_inside_a_segment_stays_gone() {
    use crate::settings::LogRetention;
    let none = LogRetention::default();
    for (retain, at_ms) in [
        (LogRetention { bytes: Some(800 << 10), ..none }, 300_000),
        (LogRetention { age_s: Some(250), ..none }, 300_000),
        (LogRetention { count: Some(100), ..none }, 300_000),
    ] {
        for loses_files in [false, true] {
            let disk = SimDisk::new(4);
            let mut log = one_long_segment(&disk, 1);
            assert_eq!(log.segments().len(), 1);
            log.append_control(
                &Control::Log(crate::settings::LogSettings { retain }),
                now(200_000),
            )
            .expect("staged");
            log.run_ops(now(at_ms));
            log.run_ops(now(at_ms + 60_000));
            let start = log.start();
            assert!(start > Offset::new(20) && start < Offset::new(200), "{retain:?}: {start}");
            let segment = log.segments().iter().next().expect("a segment");
            let index = segment.index().header();
            assert_eq!((segment.base(), segment.name().generation), (Offset::ZERO, 2));
            // Settings stay with their segment.
            let dropped = 204 - index.event_count;
            assert!(dropped + 4 >= start.get(), "{retain:?}: {dropped} went, kept from {start}");
            let index_path = segment.index_path();
            drop(log);
            let disk = disk.power_cut();
            if loses_files {
                // A setting right before what is kept may be said to be kept.
                disk.remove(&index_path).expect("a file");
                disk.remove(&Path::new(DIR).join("earliest")).expect("a file");
                make_anew(&disk);
            }
            let start = Offset::new(start.get() - u64::from(loses_files));
            for life in 0..3 {
                let (mut log, _) = open_with(&disk, LogConfig { segment_bytes: 4 << 20, ..tiny() });
                assert!(log.start() >= start, "{retain:?}: {} after {start}", log.start());
                // The limit is lifted: what is gone stays gone.
                keep(&mut log, none);
                log.run_ops(now(at_ms + 61_000 + life));
                assert!(log.start() >= start, "{retain:?}: {} after {start}", log.start());
                close(&mut log);
            }
        }
    }
}

/// The index of a rewritten segment that is missing is made anew, of its frames alone.
fn make_anew(disk: &SimDisk) {
    open_error(disk);
    let repaired = crate::repair::repair(disk, Path::new(DIR), now(0)).expect("a disk that works");
    let steps = repaired.expect("something to repair").plan.steps;
    let made = |step: &crate::repair::Step| matches!(step.action, crate::repair::Action::Reindex { forgotten } if forgotten.ids);
    assert!(steps.len() == 1 && made(&steps[0]), "{steps:?}");
}

/// Control events stay as long as their segment, also those before all that is kept.
#[test]
fn a_rewritten_segment_says_from_where_on_it_was_kept() {
    let cases: [(&[u64], Option<u64>); 6] = [
        (&[], Some(20)),
        (&[3, 7], Some(20)),
        (&[0, 1, 25], Some(20)),
        (&[18, 19], Some(18)),
        (&[5, 17, 19, 20], Some(19)),
        (&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19], None),
    ];
    let config = LogConfig { segment_bytes: 1 << 20, compress_after_s: 1, ..tiny() };
    for (controls, kept_from) in cases {
        let kept_from = kept_from.map(Offset::new);
        let disk = SimDisk::new(4);
        let (mut log, _) = open_with(&disk, config.clone());
        for number in 0..40 {
            if controls.contains(&number) {
                let settings = Some(crate::settings::TopicSettings::default());
                let rule = TopicRule { pattern: format!("a/{number}"), settings };
                log.append_control(&Control::Topic(rule), now(1)).expect("staged");
            } else {
                append(&mut log, &number.to_string());
            }
            log.run_ops(now(1));
        }
        close(&mut log);
        drop(log);
        let (mut log, _) = open_with(&disk, config.clone());
        keep(&mut log, crate::settings::LogRetention { count: Some(21), ..Default::default() });
        log.run_ops(now(60_000));
        assert_eq!(log.start(), Offset::new(20));
        let segment = log.segments().iter().next().expect("a segment").clone();
        assert_eq!((segment.name().generation, segment.index().kept_from()), (2, kept_from));
        let controls_before = controls.iter().filter(|offset| **offset < 20).count();
        assert_eq!(segment.index().header().event_count, 20 + controls_before as u64);
        drop(log);
        let disk = disk.power_cut();
        let found =
            crate::verify::verify(&disk, Path::new(DIR), &mut |finding| panic!("{finding}"));
        found.expect("not in use");
        // Its frames alone say the same; where events are gone, once a person has said that the rest may be forgotten.
        disk.remove(&segment.index_path()).expect("a file");
        if kept_from.is_some() {
            make_anew(&disk);
        }
        let (mut log, _) = open_with(&disk, config.clone());
        let again = log.segments().iter().next().expect("a segment").index().kept_from();
        assert_eq!(again, kept_from);
        assert!(log.start() >= kept_from.unwrap_or_default());
        let settings =
            controls.iter().all(|number| log.rules().set_for(&format!("a/{number}")).is_some());
        assert!(settings, "what was set stays so");
        log.run_ops(now(60_001));
        assert_eq!(
            kept(&log),
            numbers(40)[20..]
                .iter()
                .enumerate()
                .filter(|(at, _)| { !controls.contains(&(20 + *at as u64)) })
                .map(|(_, data)| data.clone())
                .collect::<Vec<_>>()
        );
    }
}

/// Limits are not what they were after a start: a sealed file is looked at by blocks of events and an unsealed one by
/// frames, others have become shorter, the clock was put back. Readers are told nothing else all the same.
#[test]
fn what_readers_were_told_is_gone_does_not_come_back() {
    use crate::settings::LogRetention;
    let none = LogRetention::default();
    for retain in [
        LogRetention { bytes: Some(300 << 10), ..none },
        LogRetention { age_s: Some(50), ..none },
        LogRetention { count: Some(70), ..none },
    ] {
        for (life, is_power_cut) in [false, true].into_iter().enumerate() {
            let disk = SimDisk::new(life as u64);
            let config = LogConfig {
                segment_bytes: 1 << 20,
                compress_after_s: 1_000_000,
                frame_bytes_target: 1,
                ..tiny()
            };
            let (mut log, _) = open_with(&disk, config.clone());
            let settings = crate::settings::LogSettings { retain };
            log.append_control(&Control::Log(settings), now(1)).expect("staged");
            for number in 0..150_u64 {
                let at = now(number * 1_000);
                log.append(vec![event("a", &format!("{number:->5000}"))], at).expect("staged");
                log.run_ops(at);
                log.run_ops(now(number * 1_000 + 999));
            }
            let start = log.start();
            assert!(start > Offset::new(40), "{retain:?}: {start}");
            drop(log);
            let mut disk = if is_power_cut { disk.power_cut() } else { disk.kill() };
            for boot_ms in [0, 1, 5_000] {
                let (mut log, _) = open_with(&disk, config.clone());
                assert!(log.start() >= start, "{retain:?}: {} after {start}", log.start());
                log.run_ops(now(boot_ms));
                assert!(log.start() >= start, "{retain:?}: {} after {start}", log.start());
                drop(log);
                disk = disk.power_cut();
            }
        }
    }
}

/// A log of six events that are older than its limit, and were told to be gone.
fn all_told_gone(disk: &SimDisk, sync: SyncMode) -> (Log<SimDisk>, LogConfig) {
    let config = LogConfig { segment_bytes: 1 << 20, sync, ..tiny() };
    let (mut log, _) = open_with(disk, config.clone());
    keep(&mut log, crate::settings::LogRetention { age_s: Some(60), ..Default::default() });
    append_each(&mut log, 5);
    log.run_ops(now(70_000));
    assert_eq!(log.start(), Offset::new(6));
    (log, config)
}

/// Where readers see what is not synced, what they were told of it was not written down when it was: an orderly stop
/// and a clock that was put back brought all of it back.
#[test]
fn after_a_stop_nothing_comes_back_whatever_was_synced_before() {
    for sync in [SyncMode::Commit, SyncMode::Interval { interval_ms: 1_000_000 }, SyncMode::Never] {
        for is_power_cut in [false, true] {
            let disk = SimDisk::new(1);
            let (mut log, config) = all_told_gone(&disk, sync);
            log.begin_close();
            log.run_ops(now(70_001));
            assert!(log.is_closed());
            drop(log);
            let mut disk = if is_power_cut { disk.power_cut() } else { disk };
            for boot_ms in [0, 1] {
                let (mut log, report) = open_with(&disk, config.clone());
                assert!(report.is_clean || boot_ms > 0, "{sync:?}");
                assert_eq!(log.start(), Offset::new(6), "{sync:?}");
                log.run_ops(now(boot_ms));
                assert_eq!(log.start(), Offset::new(6), "{sync:?}");
                drop(log);
                disk = disk.power_cut();
            }
        }
    }
}

/// Whatever operation of the disk is the last: a log that says that it ended cleanly knows what was told.
#[test]
fn a_stop_that_is_cut_off_is_none_before_it_is_known_what_is_gone() {
    for sync in [SyncMode::Interval { interval_ms: 1_000_000 }, SyncMode::Never] {
        let (mut clean, mut unclean) = (0, 0);
        for crash_after in 1.. {
            let disk = SimDisk::new(crash_after);
            let (mut log, config) = all_told_gone(&disk, sync);
            disk.crash_after(Some(crash_after));
            log.begin_close();
            log.run_ops(now(70_001));
            let is_done = !disk.is_crashed();
            drop(log);
            let (log, report) = open_with(&disk.power_cut(), config);
            assert!(!report.is_clean || log.start() == Offset::new(6), "after {crash_after}");
            clean += usize::from(report.is_clean);
            unclean += usize::from(!report.is_clean);
            if is_done {
                break;
            }
        }
        assert!(clean > 1 && unclean > 3, "{clean} were clean, {unclean} were not");
    }
}

/// As soon as that is synced; and once, not with each operation.
#[test]
fn what_was_told_before_it_was_synced_is_written_down_once_it_is() {
    for sync in [SyncMode::Interval { interval_ms: 80_000 }, SyncMode::Never] {
        let disk = SimDisk::new(2);
        let (mut log, config) = all_told_gone(&disk, sync);
        assert_eq!(log.synced(), Offset::ZERO);
        let mut written = 0;
        // What comes is not gone, and as it is one look at the limits, they move no further.
        for number in 0..300_u64 {
            let at = now(70_001 + number * 100);
            log.append(vec![event("a", &format!("{number}"))], at).expect("staged");
            while let Some(op) = log.next_op(at) {
                written += usize::from(matches!(op, Op::Job { job: Job::Keep(_), .. }));
                let outcome = op.run(&disk);
                log.complete(outcome, at);
            }
        }
        assert!(log.synced() >= Offset::new(6) && log.start() == Offset::new(6), "{sync:?}");
        assert_eq!(written, 1, "{sync:?}");
        let disk = disk.power_cut();
        let (log, _) = open_with(&disk, config);
        assert_eq!(log.start(), Offset::new(6), "{sync:?}");
    }
}

/// Topics are deleted every now and then: that says nothing of what limits of the log have let go.
#[test]
fn what_is_set_for_topics_alone_keeps_nothing_from_being_written_down() {
    let disk = SimDisk::new(3);
    let config = LogConfig { segment_bytes: 1 << 20, sync: SyncMode::Never, ..tiny() };
    let (mut log, _) = open_with(&disk, config.clone());
    keep(&mut log, crate::settings::LogRetention { age_s: Some(60), ..Default::default() });
    append_each(&mut log, 5);
    close(&mut log);
    drop(log);
    let (mut log, _) = open_with(&disk, config.clone());
    let deleted = Control::Deleted(TopicsDeleted::of(vec!["b".into()]));
    log.append_control(&deleted, now(10)).expect("staged");
    log.run_ops(now(70_000));
    assert_eq!((log.synced(), log.start()), (Offset::new(6), Offset::new(7)));
    drop(log);
    let (log, _) = open_with(&disk.power_cut(), config);
    assert_eq!(log.start(), Offset::new(6));
}

/// A setting of the log that a power cut takes back leaves nothing behind.
#[test]
fn what_a_setting_has_let_go_that_is_not_synced_is_not_written_down() {
    let disk = SimDisk::new(3);
    let config = LogConfig {
        segment_bytes: 1 << 20,
        sync: SyncMode::Never,
        // Zeroes that are written behind the setting are synced, and it with them.
        preallocate_bytes_min: 64 << 10,
        preallocate_bytes_max: 128 << 10,
        preallocate_rest_bytes_max: 0,
        ..tiny()
    };
    let (mut log, _) = open_with(&disk, config.clone());
    append_each(&mut log, 5);
    close(&mut log);
    drop(log);
    let (mut log, _) = open_with(&disk, config.clone());
    keep(&mut log, crate::settings::LogRetention { count: Some(2), ..Default::default() });
    log.run_ops(now(900));
    assert_eq!((log.synced(), log.start()), (Offset::new(5), Offset::new(4)));
    drop(log);
    let mut lost = 0;
    for seed in 0..20 {
        let (log, _) = open_with(&disk.fork(seed).power_cut(), config.clone());
        if log.visible() == Offset::new(5) {
            assert_eq!(log.start(), Offset::ZERO);
            lost += 1;
        }
    }
    assert!(lost > 3, "it was lost {lost} times");
}

/// Also what could not be written down when it was told; and no stop waits for a disk that takes nothing.
#[test]
fn a_stop_tries_once_more_to_write_down_what_is_gone() {
    for faults in [1, 2] {
        let disk = SimDisk::new(4);
        let config = LogConfig { segment_bytes: 1 << 20, ..tiny() };
        let (mut log, _) = open_with(&disk, config.clone());
        append_each(&mut log, 5);
        let retain = crate::settings::LogRetention { count: Some(2), ..Default::default() };
        let control = Control::Log(crate::settings::LogSettings { retain });
        log.append_control(&control, now(5_000)).expect("staged");
        let mut tries = 0;
        for is_ending in [false, true] {
            if is_ending {
                log.begin_close();
            }
            while let Some(op) = log.next_op(now(5_000)) {
                if matches!(op, Op::Job { job: Job::Keep(_), .. }) {
                    tries += 1;
                    (tries <= faults).then(|| disk.arm(Fault::WriteFails, 0));
                }
                let outcome = op.run(&disk);
                log.complete(outcome, now(5_000));
            }
            assert_eq!(log.start(), Offset::new(4), "it holds all the same");
        }
        assert!(log.is_closed());
        assert_eq!(tries, 2);
        drop(log);
        let (log, report) = open_with(&disk.power_cut(), config);
        assert!(report.is_clean);
        assert_eq!(log.start(), Offset::new(if faults == 1 { 4 } else { 0 }));
    }
}

/// The log's last word has room where it is; a new segment might find none.
#[test]
fn a_stop_begins_no_segment() {
    let disk = SimDisk::new(5);
    let config = LogConfig { sync: SyncMode::Never, ..tiny() };
    let (mut log, _) = open_with(&disk, config.clone());
    keep(&mut log, crate::settings::LogRetention { age_s: Some(60), ..Default::default() });
    append(&mut log, &"x".repeat(40 << 10));
    log.run_ops(now(2));
    log.run_ops(now(70_000));
    assert_eq!((log.synced(), log.start()), (Offset::ZERO, Offset::new(2)));
    log.begin_close();
    while let Some(op) = log.next_op(now(70_001)) {
        if let Op::Job { job, .. } = &op {
            assert!(!matches!(job, Job::Prepare(_) | Job::Roll(_)), "all was gone, and it stops");
        }
        let outcome = op.run(&disk);
        log.complete(outcome, now(70_001));
    }
    assert!(log.is_closed());
    drop(log);
    let (log, report) = open_with(&disk.power_cut(), config);
    assert!(report.is_clean);
    assert_eq!(log.start(), Offset::new(2));
}

/// What is being written down when a log stops, and fails, frees no disk any more: nobody is told.
#[test]
fn what_is_not_written_down_in_a_stop_is_not_told() {
    let disk = SimDisk::new(6);
    let (mut log, _) = open_with(&disk, tiny());
    append_each(&mut log, 5);
    let retain = crate::settings::LogRetention { count: Some(2), ..Default::default() };
    let control = Control::Log(crate::settings::LogSettings { retain });
    log.append_control(&control, now(5_000)).expect("staged");
    while let Some(op) = log.next_op(now(5_000)) {
        if matches!(op, Op::Job { job: Job::Keep(_), .. }) {
            log.begin_close();
            disk.arm(Fault::WriteFails, 0);
        }
        let outcome = op.run(&disk);
        log.complete(outcome, now(5_000));
    }
    assert!(log.is_closed());
    assert_eq!(log.start(), Offset::ZERO);
}

/// A try that fails before all is synced is not the last one of a stop.
#[test]
fn a_stop_tries_again_once_all_is_synced() {
    let disk = SimDisk::new(7);
    let config = LogConfig { segment_bytes: 1 << 20, sync: SyncMode::Never, ..tiny() };
    let (mut log, _) = open_with(&disk, config.clone());
    keep(&mut log, crate::settings::LogRetention { age_s: Some(60), ..Default::default() });
    append_each(&mut log, 2);
    close(&mut log);
    drop(log);
    let (mut log, _) = open_with(&disk, config.clone());
    append_each(&mut log, 3);
    let mut ends = Vec::new();
    for is_ending in [false, true] {
        if is_ending {
            log.begin_close();
        }
        // The first try of the stop is made beside the sync, and fails as the one before it did.
        let mut later = Vec::new();
        while let Some(op) = log.next_op(now(70_000)) {
            if let Op::Job { job: Job::Keep(keep), .. } = &op {
                ends.push(keep.record.end);
                (ends.len() <= 2).then(|| disk.arm(Fault::WriteFails, 0));
            }
            if is_ending && ends.len() < 2 {
                later.push(op);
                continue;
            }
            let outcome = op.run(&disk);
            log.complete(outcome, now(70_000));
            for op in later.drain(..) {
                let outcome = Op::run(op, &disk);
                log.complete(outcome, now(70_000));
            }
        }
        assert!(later.is_empty());
        assert_eq!(log.start(), Offset::new(6), "it holds all the same");
    }
    assert!(log.is_closed());
    assert_eq!(ends, [Offset::new(3), Offset::new(3), Offset::new(6)]);
    drop(log);
    let (log, report) = open_with(&disk.power_cut(), config);
    assert!(report.is_clean);
    assert_eq!(log.start(), Offset::new(6));
}

/// Ten thousand topics are looked at for two seconds, 200 at a time: limits are looked at once a second meanwhile.
#[test]
fn how_far_limits_reach_is_written_down_once_a_second() {
    let disk = SimDisk::new(8);
    let (mut log, _) = open_with(&disk, LogConfig { segment_bytes: 1 << 20, ..tiny() });
    let expire = crate::settings::TopicExpiry { age_s: Some(1_000), idle_s: None };
    let settings = crate::settings::TopicSettings { expire, ..Default::default() };
    let rule = TopicRule { pattern: "**".into(), settings: Some(settings) };
    log.append_control(&Control::Topic(rule), now(1)).expect("staged");
    keep(&mut log, crate::settings::LogRetention { count: Some(100), ..Default::default() });
    for number in 0..100 {
        let topics = (0..100).map(|topic| format!("{number}/{topic}"));
        let events: Vec<_> = topics.map(|topic| event(&topic, "")).collect();
        log.append(events, now(1)).expect("staged");
        log.run_ops(now(2));
    }
    let mut written = 0;
    for boot_ms in (1_100..3_000).step_by(20) {
        append(&mut log, "one more that one less is kept for");
        while let Some(op) = log.next_op(now(boot_ms)) {
            written += usize::from(matches!(op, Op::Job { job: Job::Keep(_), .. }));
            let outcome = op.run(&disk);
            log.complete(outcome, now(boot_ms));
        }
    }
    assert_eq!(written, 2);
}
