//! Rewriting segments.

use super::*;

/// Long enough after all appends for every sealed segment to be rewritten.
pub(super) const MUCH_LATER_MS: u64 = 700_000;

pub(super) fn rule(log: &mut Log<SimDisk>, pattern: &str, retain: crate::settings::TopicRetention) {
    let settings = crate::settings::TopicSettings { retain, ..Default::default() };
    let rule = TopicRule { pattern: pattern.into(), settings: Some(settings) };
    log.append_control(&Control::Topic(rule), now(1)).expect("staged");
}

pub(super) fn offsets_of(log: &Log<SimDisk>, topic: &str) -> Vec<u64> {
    let query = ReadQuery {
        topics: vec![crate::topic::TopicPattern::parse(topic).expect("a pattern")],
        from: log.start(),
        end: log.segments().end(),
        order: Order::Ascending,
    };
    let mut reader = crate::reader::Reader::new(log.segments().clone(), &query);
    let mut offsets = Vec::new();
    while let Some(hits) = reader.next_blocking().expect("readable") {
        let hits = log.rules().floors().filter(hits);
        offsets.extend(hits.events().map(|event| event.offset().get()));
    }
    offsets
}

#[test]
fn rewritten_segments_hold_the_same_events_in_fewer_bytes() {
    let disk = SimDisk::new(5);
    let mut log = mixed(&disk, 200);
    let before: Vec<_> = ["keep", "keys", "gone"].map(|topic| offsets_of(&log, topic)).into();
    let set = log.segments().clone();
    let bytes = |set: &SegmentSet<SimDisk>| set.iter().map(|one| one.file_bytes()).sum::<u64>();
    log.run_ops(now(MUCH_LATER_MS));
    assert!(log.segments().iter().all(|segment| segment.name().generation == 2));
    assert!(bytes(log.segments()) * 2 < bytes(&set), "compressed");
    let after: Vec<_> = ["keep", "keys", "gone"].map(|topic| offsets_of(&log, topic)).into();
    assert_eq!(before, after);
    let query = ReadQuery {
        topics: Vec::new(),
        from: Offset::ZERO,
        end: set.end(),
        order: Order::Descending,
    };
    let mut reader = crate::reader::Reader::new(set.clone(), &query);
    let mut read = 0;
    while let Some(hits) = reader.next_blocking().expect("who has the old files reads them") {
        read += hits.len();
    }
    assert_eq!(read as u64, set.end().get());
    let names: Vec<_> = log_files(&disk);
    assert_eq!(names.len(), log.segments().len() + 1, "the old files are gone: {names:?}");
    log.run_ops(now(2 * MUCH_LATER_MS));
    assert!(log.segments().iter().all(|segment| segment.name().generation == 2), "once");
    let disk = disk.power_cut();
    assert!(offsets_of(&open(&disk), "keys").starts_with(&before[1]));
}

/// What could be read when the looser limit was answered vanished when the rewrite ended.
#[test]
fn a_rewrite_that_is_under_way_lets_nothing_go_that_a_looser_limit_keeps() {
    use crate::settings::TopicRetention;
    let is_rewrite = |op: &Op<SimDisk>| matches!(op, Op::Job { job: Job::Compact(_), .. });
    for (strict, loose) in [
        (TopicRetention { count: Some(1), ..Default::default() }, TopicRetention::default()),
        (
            TopicRetention { count: Some(1), ..Default::default() },
            TopicRetention { count: Some(1_000), ..Default::default() },
        ),
    ] {
        let disk = SimDisk::new(7);
        let mut log = mixed(&disk, 200);
        rule(&mut log, "gone", strict);
        let mut held = hold(&mut log, &disk, is_rewrite);
        let before = offsets_of(&log, "gone");
        assert!(before.len() > 100, "it is under way, and nothing has gone yet");
        rule(&mut log, "gone", loose);
        hold(&mut log, &disk, |_| false);
        let rewrite = held.pop().expect("one is under way");
        assert!(held.is_empty(), "one at a time");
        log.complete(rewrite.run(&disk), now(3));
        log.run_ops(now(MUCH_LATER_MS));
        assert_eq!(offsets_of(&log, "gone"), before);
        assert!(offsets_of(&open(&disk.power_cut()), "gone").starts_with(&before));
    }
}

/// Else an application that sets limits of new rooms all the time would keep all rewrites from their ends.
#[test]
fn a_looser_limit_of_what_has_nothing_sealed_ends_no_rewrite() {
    use crate::settings::TopicRetention;
    let is_rewrite = |op: &Op<SimDisk>| matches!(op, Op::Job { job: Job::Compact(_), .. });
    for new in ["rooms/new", "rooms/*", "*/none"] {
        let disk = SimDisk::new(7);
        let mut log = mixed(&disk, 200);
        rule(&mut log, "rooms/**", TopicRetention { count: Some(5), ..Default::default() });
        rule(&mut log, "gone", TopicRetention { count: Some(1), ..Default::default() });
        let mut held = hold(&mut log, &disk, is_rewrite);
        let before = offsets_of(&log, "gone").len();
        rule(&mut log, new, TopicRetention::default());
        hold(&mut log, &disk, |_| false);
        log.complete(held.pop().expect("one is under way").run(&disk), now(3));
        assert!(offsets_of(&log, "gone").len() < before, "{new}");
    }
}

/// Else who began to read before a rewrite would read what was deleted.
#[test]
fn a_floor_stays_as_long_as_anybody_reads_what_it_hides() {
    let disk = SimDisk::new(6);
    let mut log = mixed(&disk, 200);
    let reader = log.segments().clone();
    let deleted = TopicsDeleted::of(vec!["gone".into()]);
    log.append_control(&Control::Deleted(deleted), now(1)).expect("staged");
    log.run_ops(now(2));
    let floor = log.rules().floors().of("gone");
    // The rest of it is in the segment that is written.
    for number in 0..100 {
        log.append(vec![event("keep", &format!("{number:->500}"))], now(3)).expect("staged");
        log.run_ops(now(3));
    }
    assert!(floor > Offset::ZERO && log.segments().end() > floor);
    for look in 1..4 {
        log.run_ops(now(look * MUCH_LATER_MS));
        assert!(log.segments().iter().all(|segment| segment.name().generation > 1));
        assert_eq!(log.rules().floors().of("gone"), floor);
    }
    drop(reader);
    for look in 4..7 {
        log.run_ops(now(look * MUCH_LATER_MS));
    }
    assert!(log.rules().floors().is_empty());
    assert_eq!(offsets_of(&log, "gone"), Vec::<u64>::new());
}

/// Else who was under way when limits of the log passed what was deleted would read it.
#[test]
fn a_floor_stays_as_long_as_anybody_reads_what_limits_have_passed() {
    let disk = SimDisk::new(6);
    let mut log = mixed(&disk, 200);
    let reader = log.segments().clone();
    let deleted = TopicsDeleted::of(vec!["gone".into()]);
    log.append_control(&Control::Deleted(deleted), now(1)).expect("staged");
    log.run_ops(now(2));
    let floor = log.rules().floors().of("gone");
    keep(&mut log, crate::settings::LogRetention { count: Some(1), ..Default::default() });
    log.run_ops(now(5_000));
    assert!(log.start() > floor && floor > Offset::ZERO);
    assert_eq!(log.rules().floors().of("gone"), floor, "the segment that is written holds some");
    for number in 0..200 {
        log.append(vec![event("keep", &format!("{number:->500}"))], now(5_000)).expect("staged");
        log.run_ops(now(5_000));
    }
    for look in 2..5 {
        log.run_ops(now(look * 10_000));
        assert!(log.unsealed_start() > floor && log.segments().is_empty());
        assert_eq!(log.rules().floors().of("gone"), floor, "somebody reads what has gone");
    }
    drop(reader);
    for look in 5..8 {
        log.run_ops(now(look * 10_000));
    }
    let floors = log.rules().floors();
    assert!(floors.is_empty());
    assert!(floors.settled() > floor, "frames in memory are not believed");
}

#[test]
fn dead_events_go_and_what_they_had_added_to_the_state_stays() {
    let disk = SimDisk::new(6);
    let mut log = open(&disk);
    log.append(
        vec![NewEvent { id: Some(EventId::parse("x").expect("an id")), ..event("gone", "0") }],
        now(1),
    )
    .expect("new");
    log.append(claimed(0, 0, "0"), now(1)).expect("the next");
    log.run_ops(now(1));
    drop(log);
    let disk = disk.power_cut();
    let mut log = mixed(&disk, 200);
    let end = log.segments().end().get();
    let latest = crate::settings::TopicRetention { latest_per_key: true, ..Default::default() };
    rule(&mut log, "ke*/none", latest);
    rule(&mut log, "keys", latest);
    rule(
        &mut log,
        "keep",
        crate::settings::TopicRetention { count: Some(7), ..Default::default() },
    );
    let deleted = TopicsDeleted::of(vec!["gone".into(), "a".into()]);
    log.append_control(&Control::Deleted(deleted), now(1)).expect("staged");
    log.run_ops(now(2));
    assert_eq!(offsets_of(&log, "gone"), Vec::<u64>::new(), "hidden at once");
    let last = log.last_of("gone").expect("it had events");
    log.run_ops(now(MUCH_LATER_MS));
    log.run_ops(now(2 * MUCH_LATER_MS));
    for check in 0..2 {
        let (keep, keys) = (offsets_of(&log, "keep"), offsets_of(&log, "keys"));
        assert_eq!(keep.len(), 7, "check {check}");
        assert!(
            keep.iter().all(|offset| end.saturating_sub(*offset) < 30),
            "the newest: {keep:?} of {end}"
        );
        assert!(keys.len() >= 10 && keys.len() < 20, "about one a key: {keys:?}");
        assert_eq!(log.last_of("gone"), Some(last));
        let retried =
            NewEvent { id: Some(EventId::parse("x").expect("an id")), ..event("gone", "0") };
        let retried = log.append(vec![retried], now(3)).expect("a duplicate");
        assert_eq!((retried.first, retried.duplicates), (Offset::ZERO, 1), "check {check}");
        assert_eq!(log.append(claimed(0, 0, "0"), now(3)).map(|done| done.duplicates), Ok(1));
        assert!(log.rules().for_topic("keys").is_some());
        let floors = log.rules().floors().len();
        assert_eq!(floors, if check == 0 { 2 } else { 0 }, "gone once all below is sealed");
        log = open(&disk.power_cut());
        log.run_ops(now(3 * MUCH_LATER_MS)); // what this start has sealed is counted as well
    }
}

/// Whatever operation of the disk is the last of a rewrite: the log opens, and holds what it held.
#[test]
fn a_crash_in_a_rewrite_leaves_either_the_old_segment_or_the_new_one() {
    let mut crashes = 0;
    for crash_after in 0.. {
        let disk = SimDisk::new(crash_after);
        let mut log = mixed(&disk, 40);
        let deleted = TopicsDeleted::of(vec!["gone".into()]);
        let (visible, keep) = (log.visible(), offsets_of(&log, "keep"));
        disk.crash_after(Some(crash_after));
        log.append_control(&Control::Deleted(deleted), now(2)).expect("staged");
        log.run_ops(now(2));
        log.run_ops(now(MUCH_LATER_MS));
        let is_done = !disk.is_crashed();
        crashes += usize::from(!is_done);
        for (end, disk) in [("a cut", disk.fork(1).power_cut()), ("a kill", disk.kill())] {
            let log = open(&disk);
            let when = format!("{end} after {crash_after}");
            let is_deleted = log.visible() == visible.plus(1);
            assert!(is_deleted || log.visible() == visible, "{when}");
            assert_eq!(offsets_of(&log, "keep")[..keep.len()], keep[..], "{when}");
            assert_eq!(offsets_of(&log, "gone").is_empty(), is_deleted, "{when}");
        }
        if is_done {
            break;
        }
    }
    assert!(crashes > 10, "it crashed {crashes} times");
}

/// Calls `live` with a log of which much is to be rewritten, and a fault that strikes in its course, once or several
/// times in a row: each operation in turn, until `live` says that some are left.
fn with_each_fault(faults: &[Fault], live: impl Fn(&SimDisk, &mut Log<SimDisk>) -> usize) {
    for (fault, times) in faults.iter().flat_map(|fault| [1, 2, 3].map(|times| (*fault, times))) {
        for after in 0.. {
            let disk = SimDisk::new(after);
            drop(mixed(&disk, 40));
            let (mut log, _) = open_with(&disk, LogConfig { snapshot_segments: 1, ..tiny() });
            log.run_ops(now(2));
            (0..times).for_each(|_| disk.arm(fault, after));
            if live(&disk, &mut log) > 0 {
                assert!(after > 0, "{fault:?} never struck");
                break;
            }
        }
    }
}

/// The sealed segments that hold events, as who looks at the directory sees them; of the others no log file is there.
fn listed(disk: &SimDisk) -> Vec<SegmentName> {
    let dir = Path::new(DIR);
    let names = disk.list(dir).expect("the directory");
    let mut listed = crate::listing::segments(&names);
    listed.retain(|listed| {
        let is_stub =
            listed.has_index && crate::listing::is_stub(disk, dir, listed.name).expect("readable");
        assert!(!is_stub || !names.contains(&listed.name.log_file_name()), "{names:?}");
        listed.has_index && !is_stub
    });
    listed.into_iter().map(|listed| listed.name).collect()
}

fn segment_names(log: &Log<SimDisk>) -> Vec<SegmentName> {
    log.segments().iter().map(|segment| segment.name()).collect()
}

/// Of [`mixed`].
const TOPICS: [&str; 3] = ["keep", "keys", "gone"];

const AT_THE_END: [Fault; 3] = [Fault::SyncDirFails, Fault::ReadFails, Fault::RemoveFails];

/// The new generation would count more than what the old one becomes.
#[test]
fn a_rewrite_that_fails_at_its_end_leaves_nothing_that_comes_back() {
    with_each_fault(&AT_THE_END, |disk, log| {
        let one = crate::settings::TopicRetention { count: Some(1), ..Default::default() };
        rule(log, "gone", one);
        log.run_ops(now(3));
        let young = crate::settings::TopicRetention { age_s: Some(60), ..Default::default() };
        TOPICS.iter().for_each(|topic| rule(log, topic, young));
        log.run_ops(now(4));
        // What fails is tried again, and does not fail more often than that.
        (1..6).for_each(|look| log.run_ops(now(look * MUCH_LATER_MS)));
        let left = disk.disarm();
        if log.poisoned().is_some() {
            return left;
        }
        let shown = |log: &Log<SimDisk>| TOPICS.map(|topic| offsets_of(log, topic));
        let before = shown(log);
        assert_eq!(listed(disk), segment_names(log));
        assert_eq!(log.snapshot_totals().segments_behind, 0, "{:?}", log.take_notices());
        assert_eq!(before.concat().is_empty(), log.damaged_segments() == 0);
        assert_eq!(shown(&open(&disk.fork(1).power_cut())), before);
        left
    });
}

/// A log of which a rewrite has left something, as long as the faults are armed and if `after` syncs of its directory
/// end with the rewrite's last.
fn after_a_rewrite_that_could_not_be_taken_back(after: u64) -> (SimDisk, Log<SimDisk>) {
    let disk = SimDisk::new(after);
    let mut log = mixed(&disk, 40);
    disk.arm(Fault::SyncDirFails, after);
    (0..20).for_each(|_| disk.arm(Fault::RemoveFails, 0));
    let one = crate::settings::TopicRetention { count: Some(1), ..Default::default() };
    rule(&mut log, "gone", one);
    log.run_ops(now(3));
    (disk, log)
}

/// What of a rewrite could not be taken back does not stand in for a segment that limits of the log have removed.
#[test]
fn a_segment_goes_with_what_a_rewrite_of_it_has_left() {
    let mut left = 0;
    for after in 0..10 {
        let (disk, mut log) = after_a_rewrite_that_could_not_be_taken_back(after);
        disk.disarm();
        left += usize::from(listed(&disk) != segment_names(&log));
        keep(&mut log, crate::settings::LogRetention { count: Some(1), ..Default::default() });
        log.run_ops(now(2_000));
        assert!(log.poisoned().is_some() || log.segments().is_empty());
        assert_eq!(listed(&disk), segment_names(&log));
    }
    assert!(left > 1, "a rewrite left something behind {left} times");
}

/// The next start would take it for the segment, and what was dead when it was written is read again meanwhile.
#[test]
fn what_a_rewrite_has_left_goes_before_the_log_ends() {
    let mut left = 0;
    for after in 0..10 {
        let (disk, mut log) = after_a_rewrite_that_could_not_be_taken_back(after);
        rule(&mut log, "gone", crate::settings::TopicRetention::default());
        log.run_ops(now(3));
        disk.disarm();
        if log.poisoned().is_some() {
            continue;
        }
        left += usize::from(listed(&disk) != segment_names(&log));
        let shown = offsets_of(&log, "gone");
        close(&mut log);
        let kept = offsets_of(&open(&disk.kill()), "gone");
        assert!(shown.iter().all(|offset| kept.contains(offset)), "{shown:?} became {kept:?}");
    }
    assert!(left > 1, "a rewrite left something behind {left} times");
}

/// What was dead when a rewrite or a removal failed is read again once nothing decides over it any more.
#[test]
fn what_is_shown_after_a_rewrite_that_failed_is_there_after_a_restart() {
    use crate::settings::TopicRetention;
    let some = TopicRetention { count: Some(7), ..Default::default() };
    let young = TopicRetention { age_s: Some(60), ..Default::default() };
    for (retain, boot_ms) in [(some, 3), (young, 70_000)] {
        with_each_fault(&AT_THE_END, |disk, log| {
            TOPICS.iter().for_each(|topic| rule(log, topic, retain));
            log.run_ops(now(boot_ms));
            TOPICS.iter().for_each(|topic| rule(log, topic, TopicRetention::default()));
            log.run_ops(now(boot_ms));
            (1..5).for_each(|look| log.run_ops(now(boot_ms + 20_000 * look)));
            let left = disk.disarm();
            if log.poisoned().is_some() {
                return left;
            }
            for disk in [disk.fork(1).kill(), disk.fork(2).power_cut()] {
                let restarted = open(&disk);
                for topic in TOPICS {
                    let (shown, kept) = (offsets_of(log, topic), offsets_of(&restarted, topic));
                    let is_kept = shown.iter().all(|offset| kept.contains(offset));
                    assert!(is_kept, "{topic}: {shown:?} were shown, and {kept:?} are there");
                }
            }
            left
        });
    }
}

/// A write that found the disk full may have taken a part of a block. Past its last whole block a file cannot be read
/// directly, and a read of it ends there.
#[test]
fn a_file_that_ends_within_a_block_is_rewritten_like_any_other() {
    for more_bytes in [512, 1024, 4095, 4097] {
        let disk = SimDisk::new(more_bytes);
        drop(mixed(&disk, 40));
        let mut log = open(&disk);
        for segment in log.segments().iter() {
            let file = disk.open(&segment.log_path(), Access::Write).expect("a segment");
            file.set_size(file.size().expect("a size") + more_bytes).expect("space");
        }
        let before = offsets_of(&log, "keep");
        log.run_ops(now(MUCH_LATER_MS));
        assert_eq!(log.damaged_segments(), 0, "{:?}", log.take_notices());
        assert!(log.segments().iter().all(|segment| segment.name().generation == 2));
        assert_eq!(offsets_of(&log, "keep"), before);
    }
}

#[test]
fn a_damaged_segment_is_left_as_it_is_and_keeps_no_other() {
    let disk = SimDisk::new(7);
    let mut log = mixed(&disk, 100);
    let files = log_files(&disk);
    let path = files[0].clone();
    disk.flip_bit(&path, Position::new(9_000), 3);
    let bytes = disk.bytes(&path).expect("a file");
    log.run_ops(now(MUCH_LATER_MS));
    assert_eq!(log.damaged_segments(), 1, "found when it was to be rewritten");
    keep(&mut log, crate::settings::LogRetention { count: Some(10), ..Default::default() });
    log.run_ops(now(2 * MUCH_LATER_MS));
    assert!(disk.bytes(&path).as_deref() == Some(&bytes[..]), "not a byte of it changes");
    assert!(log_files(&disk).len() <= 3, "the others are gone: {:?}", log_files(&disk));
    let disk = disk.power_cut();
    assert_eq!(open(&disk).visible(), log.visible());
}

/// The log kept what it had called damaged until a scrub had read all of it, up to a week.
#[test]
fn a_read_that_fails_once_damages_no_segment() {
    use crate::settings::{LogRetention, TopicRetention};
    let one = LogRetention { count: Some(1), ..Default::default() };
    for is_whole in [false, true] {
        for after in 0.. {
            let disk = SimDisk::new(7);
            let mut log = mixed(&disk, 100);
            let before = log.segments().len();
            disk.arm(Fault::ReadFails, after);
            match is_whole {
                true => keep(&mut log, one),
                false => rule(
                    &mut log,
                    "keys",
                    TopicRetention { latest_per_key: true, ..Default::default() },
                ),
            }
            (1..4).for_each(|look| log.run_ops(now(look * MUCH_LATER_MS)));
            let notices = log.take_notices();
            assert_eq!(log.damaged_segments(), 0, "read {after}: {notices:?}");
            match is_whole {
                true => assert_eq!(log.segments().iter().count(), 0, "read {after}: {notices:?}"),
                false => {
                    let is_new = |segment: &Arc<SealedSegment<_>>| segment.name().generation > 1;
                    assert!(before > 2 && log.segments().iter().all(is_new), "read {after}");
                }
            }
            if disk.disarm() > 0 {
                assert!(after > 4, "it struck {after} times");
                break;
            }
        }
    }
}

/// A topic that was deleted, one each second, had a rewrite that fails begun anew each second.
#[test]
fn a_rewrite_that_failed_is_not_tried_again_before_its_time() {
    let disk = SimDisk::new(7);
    let mut log = mixed(&disk, 100);
    let deletion = |topic: &str| Control::Deleted(TopicsDeleted::of(vec![topic.into()]));
    log.append_control(&deletion("gone"), now(3)).expect("staged");
    let mut held = hold(&mut log, &disk, |op| matches!(op, Op::Job { job: Job::Compact(_), .. }));
    // Behind the try whether the file can be written past the page cache.
    disk.arm(Fault::WriteFails, 1);
    let rewrite = held.pop().expect("it is begun at once");
    log.complete(rewrite.run(&disk), now(3));
    assert_eq!(disk.disarm(), 0, "it has struck");
    let rewritten = |log: &Log<SimDisk>| log.compaction_totals().segments;
    log.append_control(&deletion("keys"), now(1_000)).expect("staged");
    log.run_ops(now(1_000));
    assert_eq!(rewritten(&log), 0, "though what was deleted is sealed");
    log.run_ops(now(60_003));
    assert!(rewritten(&log) > 2);
}

/// Neither of what a stub is made of, nor of what a rewrite carries over: else background work would meet it first for
/// ever.
#[test]
fn a_damaged_index_keeps_no_other_segment() {
    use crate::index::SectionKind;
    let one = crate::settings::LogRetention { count: Some(1), ..Default::default() };
    let gone = crate::settings::TopicRetention { age_s: Some(60), ..Default::default() };
    let (topics, ids) = (SectionKind::TOPICS, SectionKind::IDS);
    let cases = [(topics, 0), (ids, 0), (ids, 1), (ids, 2)];
    let cases = cases.into_iter().flat_map(|case| [(case, true), (case, false)]);
    for ((kind, case), is_readable) in cases {
        let disk = SimDisk::new(9);
        let mut log = open(&disk);
        for number in 0..100 {
            let id = Some(EventId::parse(&format!("{number}")).expect("an id"));
            let new = NewEvent { id, ..event("gone", &format!("{number:->500}")) };
            log.append(vec![new], now(1)).expect("staged");
            log.run_ops(now(2));
        }
        let first = Arc::clone(log.segments().iter().next().expect("a sealed segment"));
        let section = first.index().header().section(kind);
        let middle = section.position.plus(section.bytes / 2);
        match is_readable {
            true => disk.flip_bit(&first.index_path(), middle, 3),
            false => disk.make_unreadable(&first.index_path(), middle.get()..middle.get() + 1),
        }
        let before = log.segments().len();
        match case {
            0 => keep(&mut log, one),
            1 => {}
            _ => rule(&mut log, "gone", gone),
        }
        (1..4).for_each(|look| log.run_ops(now(look * MUCH_LATER_MS)));
        let which = format!("case {case}, readable: {is_readable}");
        assert_eq!(log.damaged_segments(), 1, "{which}: {:?}", log.take_notices());
        let mut others = log.segments().iter().filter(|segment| segment.name() != first.name());
        match case {
            1 => {
                assert!(before > 2 && others.all(|segment| segment.name().generation == 2));
                assert_eq!(log.segments().len(), before);
            }
            _ => assert_eq!(others.count(), 0, "{which}"),
        }
        assert!(log.segments().iter().any(|segment| segment.name() == first.name()));
    }
}

/// A segment that was rewritten already is rewritten again for a deletion, though nothing was sealed since.
#[test]
fn a_deletion_reaches_segments_that_were_rewritten_before() {
    let disk = SimDisk::new(5);
    let mut log = mixed(&disk, 100);
    log.run_ops(now(MUCH_LATER_MS));
    assert!(log.segments().iter().all(|segment| segment.name().generation == 2));
    let events = |log: &Log<SimDisk>| {
        log.segments().iter().map(|one| one.index().header().event_count).sum::<u64>()
    };
    let (before, end) = (events(&log), log.segments().end());
    let deleted = TopicsDeleted::of(vec!["gone".into()]);
    log.append_control(&Control::Deleted(deleted), now(MUCH_LATER_MS)).expect("staged");
    log.run_ops(now(MUCH_LATER_MS + 1));
    assert_eq!((events(&log), log.segments().end()), (before / 3 * 2, end));
}
