//! Settings, deletions, limits, expiry.

use super::*;

#[test]
fn settings_and_deletions_hold_after_a_power_cut() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    append_each(&mut log, 10);
    let settings = Some(crate::settings::TopicSettings::default());
    let rule = Control::Topic(TopicRule { pattern: "a/*".into(), settings });
    let trimmed = Control::Trimmed(TopicTrimmed { topic: "a".into(), before: 5 });
    let deleted = Control::Deleted(TopicsDeleted::of(vec!["b".into()]));
    for control in [&rule, &trimmed, &deleted] {
        log.append_control(control, now(3)).expect("staged");
    }
    assert!(log.rules().floors().is_empty(), "not before it is durable");
    log.run_ops(now(3));
    append_each(&mut log, 50);
    let mut disk = disk;
    for _ in 0..2 {
        disk = disk.power_cut();
        log = open(&disk);
        let floors = log.rules().floors();
        assert_eq!((floors.of("a"), floors.of("b")), (Offset::new(5), Offset::new(12)));
        assert_eq!(log.rules().for_topic("a/x"), settings.as_ref());
    }
}

#[test]
fn limits_let_old_segments_go_and_nothing_else() {
    use crate::settings::LogRetention;
    let none = LogRetention::default();
    for (retain, at_boot_ms) in [
        (LogRetention { count: Some(30), ..none }, 5_000),
        (LogRetention { bytes: Some(100 << 10), ..none }, 5_000),
        (LogRetention { age_s: Some(60), ..none }, 70_000),
    ] {
        let disk = SimDisk::new(3);
        let mut log = open(&disk);
        append_each(&mut log, 100);
        let files = log_files(&disk).len();
        keep(&mut log, retain);
        log.run_ops(now(at_boot_ms));
        assert!(log.deadline().is_none_or(|boot_ms| boot_ms > at_boot_ms), "a driver would spin");
        let start = log.start();
        assert!(start > Offset::ZERO && start <= log.visible(), "{retain:?}");
        if let Some(count) = retain.count {
            assert_eq!(start, Offset::new(101 - count));
        }
        assert!(log_files(&disk).len() < files, "{retain:?}: files are gone");
        let data = kept(&log);
        let from = usize::try_from(start.get()).expect("small").min(100);
        assert_eq!(data, numbers(100)[from..][..data.len()]);
        let expired = ReadQuery {
            topics: Vec::new(),
            from: Offset::ZERO,
            end: log.visible(),
            order: Order::Ascending,
        };
        let mut reader = crate::reader::Reader::new(log.segments().clone(), &expired);
        let first = reader.next_blocking();
        assert!(matches!(first, Err(crate::error::ReadError::Expired { .. })), "{first:?}");
        let disk = disk.power_cut();
        let mut log = open(&disk);
        assert_eq!((log.visible(), log.last_of("a")), (Offset::new(101), Some(Offset::new(99))));
        log.run_ops(now(at_boot_ms));
        assert!(log.start() >= start, "{retain:?}: what is gone stays gone");
        append_each(&mut log, 10);
        assert_eq!(log.topics().get("a").map(|topic| topic.last), Some(Offset::new(110)));
    }
}

/// Whatever operation of the disk is the last: each segment is whole, or gone for a stated reason.
#[test]
fn a_crash_while_segments_go_leaves_a_log_that_opens() {
    for crash_after in 0..400 {
        let disk = SimDisk::new(crash_after);
        let mut log = open(&disk);
        append_each(&mut log, 60);
        disk.crash_after(Some(crash_after));
        keep(&mut log, crate::settings::LogRetention { count: Some(10), ..Default::default() });
        let is_done = !disk.is_crashed();
        let disk = disk.power_cut();
        let mut log = open(&disk);
        log.run_ops(now(5_000));
        if log.visible() == Offset::new(60) {
            continue; // The setting itself did not reach the disk.
        }
        assert_eq!(log.visible(), Offset::new(61), "crash after {crash_after}");
        assert_eq!(log.start(), Offset::new(51));
        let data = kept(&log);
        assert_eq!(data, numbers(60)[51..]);
        if is_done {
            assert!(crash_after > 5, "it never crashed");
            return;
        }
    }
    panic!("the removal never ends");
}

#[test]
fn settings_are_kept_of_so_many_topics_and_patterns_and_no_more() {
    let disk = SimDisk::new(7);
    let mut log = open(&disk);
    let set = |log: &mut Log<SimDisk>, pattern: &str| {
        let settings = Some(crate::settings::TopicSettings::default());
        let rule = TopicRule { pattern: pattern.into(), settings };
        let set = log.append_control(&Control::Topic(rule), now(1)).map(|_| ());
        log.run_ops(now(1));
        set
    };
    for number in 0..crate::rules::PATTERNS_SET_MAX {
        set(&mut log, &format!("{number}/*")).expect("room");
    }
    let too_many = |what, count| Err(AppendError::TooManySettings { count, what });
    assert_eq!(set(&mut log, "one/*/more"), too_many("patterns", 1_000));
    assert_eq!(set(&mut log, "7/*"), Ok(()), "that one is there");
    assert_eq!(set(&mut log, "topic"), Ok(()));
    let gone = TopicRule { pattern: "7/*".into(), settings: None };
    log.append_control(&Control::Topic(gone), now(1)).expect("staged");
    log.run_ops(now(1));
    assert_eq!(set(&mut log, "one/*/more"), Ok(()));
    assert_eq!(log.rules().topics().len(), 1_001);
}

#[test]
fn a_removal_that_fails_half_way_is_finished_later() {
    // The first is that of a new segment.
    for after in 1..4 {
        let disk = SimDisk::new(after);
        let mut log = mixed(&disk, 60);
        disk.arm(Fault::SyncDirFails, after);
        keep(&mut log, crate::settings::LogRetention { count: Some(10), ..Default::default() });
        log.run_ops(now(5_000));
        log.run_ops(now(50_000));
        let notices = log.take_notices();
        let start = log.segments().start();
        assert!(
            start.plus(60) > log.visible(),
            "it has gone on: {start}, {:?} {:?}",
            log.poisoned().cloned(),
            notices
        );
        assert!(log_files(&disk).len() <= 3, "{:?}", log_files(&disk));
    }
}

#[test]
fn a_topic_that_is_used_again_is_not_as_old_as_its_former_life() {
    use crate::settings::{TopicExpiry, TopicSettings};
    let disk = SimDisk::new(9);
    let mut log = open(&disk);
    let expire = TopicExpiry { age_s: Some(60), idle_s: None };
    let settings = Some(TopicSettings { expire, ..Default::default() });
    let rule = TopicRule { pattern: "a".into(), settings };
    log.append_control(&Control::Topic(rule), now(1)).expect("staged");
    log.run_ops(now(1));
    append_each(&mut log, 50);
    log.run_ops(now(70_000));
    assert!(log.topics().get("a").is_none(), "it is over");
    log.append(vec![event("a", "new")], now(71_000)).expect("staged");
    log.run_ops(now(71_000));
    let disk = disk.power_cut();
    let mut log = open(&disk);
    log.run_ops(now(72_000));
    assert!(log.topics().get("a").is_some(), "it has just begun anew");
}

/// A deletion that is refused for good was tried again for ever, and nothing else came to its end.
#[test]
fn a_topic_that_no_event_may_delete_keeps_no_other_from_ending() {
    use crate::settings::{TopicExpiry, TopicSettings};
    let disk = SimDisk::new(10);
    let (mut log, _) = open_with(&disk, LogConfig { event_bytes_max: 230, ..tiny() });
    let expire = TopicExpiry { age_s: Some(60), idle_s: None };
    let settings = Some(TopicSettings { expire, ..Default::default() });
    let rule = TopicRule { pattern: "t/**".into(), settings };
    log.append_control(&Control::Topic(rule), now(1)).expect("staged");
    // More than one event can name, and two that none can.
    let long = |letter: &str| format!("t/{0}/{0}", letter.repeat(110));
    let names = (0..300).map(|number| match number {
        20 => long("x"),
        120 => long("y"),
        _ => format!("t/{number}"),
    });
    log.append(names.map(|name| event(&name, "1")).collect::<Vec<_>>(), now(1)).expect("staged");
    log.run_ops(now(1));
    for step in 0..100 {
        log.run_ops(now(70_000 + 100 * step));
    }
    let left: Vec<_> = log.topics().page("t/", None, 100);
    let left: Vec<_> = left.iter().map(|topic| topic.topic.to_string()).collect();
    assert_eq!(left, [long("x"), long("y")]);
    let refused = log.take_notices().into_iter().filter_map(|notice| match notice {
        Notice::ExpiryRefused { topic, .. } => Some(topic),
        _ => None,
    });
    assert_eq!(refused.collect::<Vec<_>>(), [long("x")], "said once");
}

/// A clock that leaps decades ahead, and is set right again, ends nothing.
#[test]
fn a_clock_that_leaps_ends_no_topic() {
    use crate::settings::{TopicExpiry, TopicSettings};
    let disk = SimDisk::new(9);
    let mut log = open(&disk);
    let expire = TopicExpiry { age_s: None, idle_s: Some(3_600) };
    let settings = Some(TopicSettings { expire, ..Default::default() });
    let rule = TopicRule { pattern: "**".into(), settings };
    log.append_control(&Control::Topic(rule), now(1)).expect("staged");
    append_each(&mut log, 5);
    log.run_ops(now(2_000));
    let leapt = Now { wall_ms: now(0).wall_ms + 500_000_000_000, boot_ms: 4_000 };
    log.run_ops(leapt);
    log.run_ops(Now { boot_ms: 6_000, ..leapt });
    assert!(log.topics().get("a").is_some());
}

#[test]
fn topics_are_over_so_long_after_their_first_or_last_event() {
    use crate::settings::{TopicExpiry, TopicSettings};
    let disk = SimDisk::new(9);
    let mut log = open(&disk);
    for (pattern, age_s, idle_s) in [("old/*", Some(60), None), ("idle/*", None, Some(60))] {
        let expire = TopicExpiry { age_s, idle_s };
        let settings = Some(TopicSettings { expire, ..Default::default() });
        let rule = TopicRule { pattern: pattern.into(), settings };
        log.append_control(&Control::Topic(rule), now(1)).expect("staged");
    }
    for at_ms in [1_000, 40_000] {
        let topics = ["old/a", "idle/a", "kept/a"];
        log.append(Vec::from(topics.map(|topic| event(topic, "1"))), now(at_ms)).expect("staged");
        log.run_ops(now(at_ms));
    }
    let listed = |log: &Log<SimDisk>| {
        ["old/a", "idle/a", "kept/a"].map(|topic| log.topics().get(topic).is_some())
    };
    log.run_ops(now(60_000));
    assert_eq!(listed(&log), [true, true, true]);
    log.run_ops(now(61_001));
    assert_eq!(listed(&log), [false, true, true], "a minute after its first event");
    log.run_ops(now(101_001));
    assert_eq!(listed(&log), [false, false, true], "a minute after its last event");
    log.append(vec![event("idle/a", "2")], now(102_000)).expect("staged");
    log.run_ops(now(102_000));
    assert_eq!(listed(&log), [false, true, true], "it begins anew");
    let disk = disk.power_cut();
    assert_eq!(listed(&open(&disk)), [false, true, true]);
}

/// Sets that topics are over so long after their first or last event.
fn set_expiry(log: &mut Log<SimDisk>, topic: &str, age_s: Option<u64>, idle_s: Option<u64>) {
    let expire = crate::settings::TopicExpiry { age_s, idle_s };
    let settings = Some(crate::settings::TopicSettings { expire, ..Default::default() });
    let rule = TopicRule { pattern: topic.into(), settings };
    log.append_control(&Control::Topic(rule), now(1)).expect("staged");
}

/// Their deletion was taken for a change of the rules, by which the next were looked for at once.
#[test]
fn topics_that_are_over_end_some_at_a_time() {
    let disk = SimDisk::new(9);
    let mut log = open(&disk);
    set_expiry(&mut log, "**", Some(60), None);
    for first in [0, 250] {
        let topics = (first..first + 250).map(|number| event(&format!("t/{number}"), "1"));
        log.append(topics.collect::<Vec<_>>(), now(1_000)).expect("staged");
        log.run_ops(now(1_000));
    }
    let left = |log: &Log<SimDisk>| {
        (0..500).filter(|number| log.topics().get(&format!("t/{number}")).is_some()).count()
    };
    assert_eq!(left(&log), 500);
    let (mut at_ms, mut steps) = (61_001, vec![500]);
    while steps.last() != Some(&0) {
        log.run_ops(now(at_ms));
        steps.push(left(&log));
        at_ms = log.deadline().expect("there are limits").max(at_ms + 1);
    }
    assert!(steps.windows(2).all(|step| step[0] - step[1] <= 200), "{steps:?}");
    assert!(at_ms < 61_001 + 2_000, "{at_ms}");
}

/// Each trim made it as young as its last event, so that its age never ended it.
#[test]
fn a_topic_that_is_trimmed_is_as_old_as_before() {
    let disk = SimDisk::new(9);
    let mut log = open(&disk);
    set_expiry(&mut log, "a", Some(60), None);
    for at_ms in [1_000, 30_000, 50_000] {
        let last = log.append(vec![event("a", "1")], now(at_ms)).expect("staged").first;
        let trimmed = TopicTrimmed { topic: "a".into(), before: last.get() };
        log.append_control(&Control::Trimmed(trimmed), now(at_ms)).expect("staged");
        log.run_ops(now(at_ms));
        assert_eq!(log.keeps_from("a"), last);
    }
    log.run_ops(now(60_000));
    assert!(log.topics().get("a").is_some());
    log.run_ops(now(61_001));
    assert!(log.topics().get("a").is_none(), "a minute after its first event");
}

/// It was as old as what the trim had taken, and ended with that. What stands before the trim in its frame makes it no younger.
#[test]
fn a_topic_that_begins_anew_in_the_frame_of_a_trim_is_as_young_as_that() {
    for begins_anew in [true, false] {
        let disk = SimDisk::new(9);
        let mut log = open(&disk);
        set_expiry(&mut log, "a", Some(60), None);
        let first = log.append(vec![event("a", "1")], now(1_000)).expect("staged").first;
        log.run_ops(now(1_000));
        let trim = |log: &mut Log<SimDisk>| {
            let trimmed = TopicTrimmed { topic: "a".into(), before: first.get() + 1 };
            log.append_control(&Control::Trimmed(trimmed), now(40_000)).expect("staged");
        };
        if begins_anew {
            trim(&mut log);
        }
        log.append(vec![event("a", "2")], now(40_000)).expect("staged");
        if !begins_anew {
            trim(&mut log);
        }
        log.run_ops(now(40_000));
        assert_eq!(log.keeps_from("a"), first.plus(1));
        log.run_ops(now(61_001));
        assert_eq!(log.topics().get("a").is_some(), begins_anew, "a minute after its first event");
        log.run_ops(now(100_001));
        assert!(log.topics().get("a").is_none(), "a minute after the one behind the trim");
    }
}

/// How far the limit before had reached was told a moment after the looser one was answered. Told before it is written
/// down, it would come back after a power cut.
#[test]
fn what_is_there_when_a_looser_limit_of_the_log_is_answered_stays() {
    use crate::settings::{LogRetention, LogSettings};
    let count = |count| {
        let retain = LogRetention { count, ..Default::default() };
        Control::Log(LogSettings { retain })
    };
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    append_each(&mut log, 100);
    log.append_control(&count(Some(50)), now(1)).expect("staged");
    let held = hold_keeping(&mut log, &disk, 5_000);
    assert_eq!((held.len(), log.start()), (1, Offset::ZERO), "it is not written down");
    // More events: it would go further, which is not begun.
    append(&mut log, "more");
    assert!(hold_keeping(&mut log, &disk, 7_000).is_empty());
    log.append_control(&count(None), now(7_000)).expect("staged");
    assert!(hold_keeping(&mut log, &disk, 7_000).is_empty());
    assert_eq!(log.rules().log().retain.count, Some(50), "the looser one waits");
    for op in held {
        log.complete(op.run(&disk), now(7_001));
    }
    assert_eq!(log.start(), Offset::new(51), "what was begun is gone before the answer");
    log.run_ops(now(9_000));
    assert_eq!((log.rules().log().retain.count, log.start()), (None, Offset::new(51)));

    // Where the looser one is on its way already, nothing is begun by the one before.
    log.append_control(&count(Some(50)), now(9_001)).expect("staged");
    log.run_ops(now(9_001));
    let start = log.start();
    append_each(&mut log, 20);
    log.append_control(&count(None), now(9_002)).expect("staged");
    let held = hold_at(&mut log, &disk, 12_000);
    assert!(!held.is_empty());
    for op in held {
        log.complete(op.run(&disk), now(12_000));
    }
    log.run_ops(now(15_000));
    assert_eq!((log.rules().log().retain.count, log.start()), (None, start));
}

/// Does all but to write down how far limits reach, at a time.
fn hold_keeping(log: &mut Log<SimDisk>, disk: &SimDisk, boot_ms: u64) -> Vec<Op<SimDisk>> {
    let mut held = Vec::new();
    while let Some(op) = log.next_op(now(boot_ms)) {
        match &op {
            Op::Job { job: Job::Keep(_), .. } => held.push(op),
            _ => log.complete(op.run(disk), now(boot_ms)),
        }
    }
    held
}

/// It had an event on its way whenever it was looked at, and was never over.
#[test]
fn a_busy_topic_is_over_by_its_age_and_once() {
    let disk = SimDisk::new(9);
    let mut log = open(&disk);
    set_expiry(&mut log, "old", Some(60), None);
    set_expiry(&mut log, "idle", None, Some(60));
    let both = || vec![event("old", "1"), event("idle", "1")];
    log.append(both(), now(1_000)).expect("staged");
    log.run_ops(now(1_000));
    log.append(both(), now(61_001)).expect("staged");
    let held = hold_at(&mut log, &disk, 61_001);
    assert!(!held.is_empty(), "its end is on its way");
    // Another life begins behind it, before anybody sees that.
    log.append(both(), now(61_002)).expect("staged");
    let more = hold_at(&mut log, &disk, 65_000);
    for op in held.into_iter().chain(more) {
        log.complete(op.run(&disk), now(65_000));
    }
    log.run_ops(now(65_000));
    let count = |topic| log.topics().get(topic).map_or(0, |topic| topic.count);
    assert_eq!((count("old"), count("idle")), (1, 3));
}

/// Holds all writes, at a time.
fn hold_at(log: &mut Log<SimDisk>, disk: &SimDisk, boot_ms: u64) -> Vec<Op<SimDisk>> {
    let mut held = Vec::new();
    while let Some(op) = log.next_op(now(boot_ms)) {
        match &op {
            Op::Write { .. } => held.push(op),
            _ => log.complete(op.run(disk), now(boot_ms)),
        }
    }
    held
}

#[test]
fn a_topic_is_not_over_whose_expiry_is_being_taken_away() {
    for is_written in [false, true] {
        let disk = SimDisk::new(9);
        let mut log = open(&disk);
        set_expiry(&mut log, "a", Some(60), Some(30));
        append(&mut log, "1");
        log.run_ops(now(1));
        set_expiry(&mut log, "a", None, None);
        let held = if is_written { hold_at(&mut log, &disk, 2) } else { Vec::new() };
        assert_eq!(held.is_empty(), !is_written);
        let more = hold_at(&mut log, &disk, 70_000);
        for op in held.into_iter().chain(more) {
            log.complete(op.run(&disk), now(70_000));
        }
        log.run_ops(now(75_000));
        assert!(log.topics().get("a").is_some(), "{is_written}");
    }
}

/// What a limit has let go does not come back with a looser one.
#[test]
fn what_is_gone_stays_gone_when_a_limit_is_loosened() {
    use crate::settings::LogRetention;
    let disk = SimDisk::new(3);
    let mut log = open(&disk);
    append_each(&mut log, 20);
    keep(&mut log, LogRetention { count: Some(5), ..Default::default() });
    let start = log.start();
    assert_eq!(start, Offset::new(16));
    keep(&mut log, LogRetention::default());
    assert_eq!(log.start(), start);
    let mut disk = disk;
    for _ in 0..2 {
        disk = disk.power_cut();
        let mut log = open(&disk);
        assert_eq!(log.start(), start, "after a restart");
        append_each(&mut log, 30);
    }
}

/// The segments behind the damaged one went at once: a start that did not know how far the limit had reached began with
/// the one that stays, and readers went over the others without a word.
#[test]
fn behind_a_damaged_segment_goes_what_is_written_down_to_be_gone() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    append_each(&mut log, 100);
    let names: Vec<_> = log.segments().iter().map(|segment| segment.name()).collect();
    assert!(names.len() > 3, "{names:?}");
    log.note_damage(names[0], "it could not be read".to_owned());
    let retain = crate::settings::LogRetention { count: Some(1), ..Default::default() };
    let control = Control::Log(crate::settings::LogSettings { retain });
    log.append_control(&control, now(5_000)).expect("staged");
    let mut failed = 0;
    while let Some(op) = log.next_op(now(5_000)) {
        if matches!(op, Op::Job { job: Job::Keep(_), .. }) {
            disk.arm(Fault::WriteFails, 0);
            failed += 1;
        }
        let outcome = op.run(&disk);
        log.complete(outcome, now(5_000));
    }
    assert_eq!(failed, 1);
    let left = |log: &Log<SimDisk>| log.segments().iter().map(|it| it.name()).collect::<Vec<_>>();
    assert_eq!(left(&log), names, "the limit holds, and is in memory alone");
    let start = log.start();
    assert!(start > names[2].base_offset);
    assert!(log.deadline().is_some_and(|due_ms| due_ms <= 6_000), "it is tried again");
    log.run_ops(now(6_000));
    assert_eq!(left(&log), names[..1]);
    drop(log);
    let (log, _) = open_with(&disk.power_cut(), tiny());
    assert_eq!(log.start(), start);
}

/// A directory of this machine's disk, removed at the end.
struct RealDir(PathBuf);

impl Drop for RealDir {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// It took 2 ms a MiB of all that had been retired meanwhile: a stop waited for minutes.
#[test]
fn a_log_that_ends_gives_back_no_more_than_the_step_that_is_under_way() {
    use crate::io::real::RealDisk;
    let dir = std::env::temp_dir().join(format!("strandline-closing-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    let dir = RealDir(dir);
    let config = LogConfig {
        segment_bytes: 4 << 20,
        frame_bytes_target: 1 << 20,
        frame_bytes_max: 4 << 20,
        staged_bytes_max: 8 << 20,
        preallocate_bytes_min: 1 << 20,
        preallocate_bytes_max: 4 << 20,
        ..tiny()
    };
    let (mut log, _) =
        Log::open(RealDisk, &dir.0, config.clone(), now(0)).expect("an empty directory");
    let data = "x".repeat(50_000);
    for _ in 0..15 {
        let events = (0..20).map(|_| event("a", &data));
        log.append(events.collect::<Vec<_>>(), now(1)).expect("staged");
        log.run_ops(now(1));
    }
    assert_eq!(log.segments().len(), 3);
    let retain = crate::settings::LogRetention { count: Some(1), ..Default::default() };
    let control = Control::Log(crate::settings::LogSettings { retain });
    log.append_control(&control, now(2)).expect("staged");
    let mut closing = None;
    while let Some(op) = log.next_op(now(2)) {
        match op {
            Op::Job { id, job: Job::Close(job) } => {
                assert!(closing.replace((id, job)).is_none(), "one at a time");
            }
            op => {
                let outcome = op.run(&RealDisk);
                log.complete(outcome, now(2));
            }
        }
    }
    let (id, job) = closing.expect("segments are gone");
    assert_eq!((log.segments().len(), log.gone.len()), (0, 2), "and the others wait");

    let file = Arc::clone(job.segment.log_file());
    let size = file.size().expect("it is open");
    assert!(size > 3 << 20);
    let mut steps = 0;
    job.run_with(|| {
        steps += 1;
        if steps == 2 {
            log.begin_close();
        }
    });
    assert_eq!((steps, file.size().expect("it is open")), (2, size - (2 << 20)));
    assert!(!log.is_closed(), "the outcome is still to come");
    log.complete(OpOutcome::Job { id, outcome: JobOutcome::Closed }, now(3));
    log.run_ops(now(3));
    assert!(log.is_closed(), "no other is begun");
    drop(log);
    let (_, report) = Log::open(RealDisk, &dir.0, config, now(0)).expect("it ended in order");
    assert_eq!((report.is_clean, report.end), (true, Offset::new(301)));
}

/// Nothing but a full segment brought a sync there, and what rules let go waits for one.
#[test]
fn what_rules_let_go_is_freed_where_nothing_else_is_synced() {
    use crate::settings::LogRetention;
    for sync in [SyncMode::Never, SyncMode::Interval { interval_ms: 1_000_000 }] {
        let disk = SimDisk::new(5);
        let (mut log, _) = open_with(&disk, LogConfig { sync, ..tiny() });
        append_each(&mut log, 100);
        let files = log_files(&disk).len();
        keep(&mut log, LogRetention { count: Some(10), ..LogRetention::default() });
        log.run_ops(now(900));
        assert_eq!(log_files(&disk).len(), files, "a power cut may take the limit back");
        let due_ms = log.deadline().expect("a sync");
        assert!(due_ms <= 1_010, "it is due at {due_ms}");
        log.run_ops(now(due_ms));
        log.run_ops(now(due_ms + 1_000));
        assert!(log_files(&disk).len() < files, "{sync:?}: files are gone");
        assert_eq!(log.synced(), log.visible());

        // All of them are too old, and nothing more comes.
        keep(&mut log, LogRetention { age_s: Some(60), ..LogRetention::default() });
        for boot_ms in [100_000, 101_500, 103_000] {
            log.run_ops(now(boot_ms));
        }
        assert_eq!(kept(&log), Vec::<String>::new(), "{sync:?}");
        let (again, _) = open_with(&disk.power_cut(), LogConfig { sync, ..tiny() });
        assert_eq!(kept(&again), Vec::<String>::new(), "{sync:?}");
    }
}
