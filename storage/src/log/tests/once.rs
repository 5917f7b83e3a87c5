//! Ids, producers and expected offsets.

use super::*;
use crate::{
    backup::{Reach, back_up_log},
    control::TopicsDeleted,
    once::producers::FORGOTTEN_MS,
    restore::{Until, restore_log},
};

fn with_id(id: &str, data: &str) -> NewEvent {
    NewEvent { id: Some(EventId::parse(id).expect("an id")), ..event("a", data) }
}

/// Its segment was sealed, and the power went more than once.
#[test]
fn an_id_is_recognised_whatever_happened_in_between() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    let first = log.append(vec![with_id("x", "0")], now(1)).expect("new");
    let again = log.append(vec![with_id("x", "0")], now(1));
    assert_eq!(again, Err(AppendError::IdInFlight { id: "x".into() }));
    log.run_ops(now(2));
    append_each(&mut log, 99);
    assert!(log.segments().len() > 2, "it has rolled and sealed");
    let mut disk = disk;
    for _ in 0..3 {
        disk = disk.power_cut();
        log = open(&disk);
        let retried = log.append(vec![with_id("x", "0")], now(5)).expect("a duplicate");
        assert_eq!((retried.first, retried.last, retried.duplicates), (first.first, first.last, 1));
        assert!(retried.wait <= log.visible(), "it may be answered at once");
        assert_eq!(log.next(), Offset::new(100));
        let other = log.append(vec![with_id("x", "1")], now(5));
        assert_eq!(other, Err(AppendError::IdConflict { id: "x".into(), offset: first.first }));
        let late = now(tiny().id_window_s * 1_000 + 5);
        assert_eq!(log.append(vec![with_id("x", "1")], late).map(|new| new.duplicates), Ok(0));
        // (Staged, and lost in the next power cut.)
    }
}

/// The clock was slow, and was set right between an append and its retry: that was no ten minutes, and no week.
#[test]
fn a_clock_that_is_set_ahead_lets_nothing_be_appended_twice() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open_with(&disk, LogConfig { id_window_s: 600, ..tiny() });
    let at = |boot_ms, ahead_ms| Now { wall_ms: now(boot_ms).wall_ms + ahead_ms, boot_ms };
    let retry = |log: &mut Log<SimDisk>, at: Now| {
        let retried = log.append(vec![with_id("x", "0")], at).expect("new or a duplicate");
        (retried.duplicates, retried.time_ms)
    };
    assert_eq!(retry(&mut log, at(1_000, 0)), (0, at(1_000, 0).wall_ms));
    log.run_ops(at(1_000, 0));
    let fifty_minutes = 3_000_000;
    let set = at(2_000, fifty_minutes);
    assert_eq!(retry(&mut log, set), (1, set.wall_ms), "times of events follow it");
    assert_eq!(retry(&mut log, at(600_999, fifty_minutes)).0, 1);
    assert_eq!(retry(&mut log, at(601_000, fifty_minutes)).0, 0, "ten minutes");
    log.run_ops(at(601_000, fifty_minutes));

    let claim = |log: &mut Log<SimDisk>, at: Now| {
        log.append(claimed(0, 0, "0"), at).map(|appended| appended.duplicates)
    };
    let start_ms = 700_000;
    assert_eq!(claim(&mut log, at(start_ms, fifty_minutes)), Ok(0));
    log.run_ops(at(start_ms, fifty_minutes));
    let month = 30 * 24 * 3_600_000;
    let leapt_ms = start_ms + 1_000;
    assert_eq!(claim(&mut log, at(leapt_ms, month)), Ok(1), "not believed yet");
    let followed_ms = leapt_ms + crate::clock::LEAP_HOLD_MS;
    assert_eq!(claim(&mut log, at(followed_ms, month)), Ok(1));
    assert_eq!(log.clock.last_ms(), at(followed_ms, month).wall_ms);
    assert_eq!(claim(&mut log, at(start_ms + FORGOTTEN_MS - 1_000, month)), Ok(1));
    assert_eq!(claim(&mut log, at(start_ms + FORGOTTEN_MS + 1_000, month)), Ok(0), "a week");
}

/// The server was not running for longer than ids are remembered, and nobody could retry.
#[test]
fn time_in_which_a_log_was_not_in_use_does_not_count() {
    let disk = SimDisk::new(1);
    let config = LogConfig { id_window_s: 600, ..tiny() };
    let (mut log, _) = open_with(&disk, config.clone());
    log.append(vec![with_id("x", "0")], now(1_000)).expect("new");
    log.append(claimed(0, 0, "0"), now(1_000)).expect("new");
    log.run_ops(now(1_000));
    drop(log);
    let later = |boot_ms| Now { wall_ms: now(boot_ms).wall_ms + 2 * FORGOTTEN_MS, boot_ms };
    let opened = Log::open(disk.power_cut(), Path::new(DIR), config, later(5));
    let (mut log, _) = opened.expect("the log opens");
    let retry = |log: &mut Log<SimDisk>, at: Now| {
        log.append(vec![with_id("x", "0")], at).expect("new or a duplicate").duplicates
    };
    assert_eq!(retry(&mut log, later(2_000)), 1);
    let claimed = log.append(claimed(0, 0, "0"), later(2_000)).expect("a duplicate");
    assert_eq!((claimed.duplicates, claimed.time_ms), (1, later(2_000).wall_ms));
    assert_eq!(retry(&mut log, later(600_004)), 1);
    assert_eq!(retry(&mut log, later(600_005)), 0, "ten minutes since the start");
}

#[test]
fn a_log_that_is_started_again_soon_has_not_forgotten_what_was_before_it_was_down() {
    [1, 1_000].into_iter().for_each(started_again_soon);
}

/// Down for a fortnight, and started three times within ten minutes of use, with stubs, and snapshots or not, in between;
/// and its backup, restored.
fn started_again_soon(snapshot_segments: usize) {
    let fortnight = 2 * FORGOTTEN_MS;
    let config = LogConfig { id_window_s: 600, snapshot_segments, ..tiny() };
    let disk = SimDisk::new(1);
    let (mut log, _) = open_with(&disk, config.clone());
    let first = event("old", "first");
    let x = NewEvent { id: Some(EventId::parse("x").expect("an id")), ..first };
    log.append(vec![x.clone()], now(1_000)).expect("new");
    log.append(claimed(0, 0, "0"), now(1_000)).expect("new");
    log.run_ops(now(1_000));
    append_each(&mut log, 40);
    drop(log);
    let check = |log: &mut Log<SimDisk>, at: Now, expected: u64| {
        let claimed = log.append(claimed(0, 0, "0"), at).expect("a duplicate");
        assert_eq!(claimed.duplicates, 1, "the producer");
        let retried = log.append(vec![x.clone()], at).expect("new or a duplicate");
        assert_eq!(retried.duplicates, expected, "the id, {at:?}");
    };
    let mut disk = disk;
    for start in 1..4 {
        let later = |boot_ms| {
            let wall_ms = now(boot_ms).wall_ms + start * fortnight;
            Now { wall_ms, boot_ms }
        };
        disk = disk.power_cut();
        let opened = Log::open(disk.clone(), Path::new(DIR), config.clone(), later(5));
        let (mut log, _) = opened.expect("the log opens");
        check(&mut log, later(6), 1);
        // What had it is a stub then.
        let deleted = Control::Deleted(TopicsDeleted::of(vec!["old".into(), "a".into()]));
        log.append_control(&deleted, later(7)).expect("room");
        for _ in 0..40 {
            log.append(vec![event("a", "more")], later(8)).expect("room");
            log.run_ops(later(8));
        }
        log.run_ops(later(60_000));
        let is_gone = log.segments().iter().all(|segment| segment.base() > Offset::ZERO);
        assert_eq!((is_gone, log.snapshot_totals().made > 0), (true, snapshot_segments == 1));
        let last = log.append(vec![event("a", "in use for three minutes")], later(180_000));
        last.expect("room");
        log.run_ops(later(180_000));
        check(&mut log, later(180_001), 1);
    }
    let at = Now { wall_ms: now(0).wall_ms + 4 * fortnight, boot_ms: 5 };
    let (disk, to) = (disk.power_cut(), [Path::new("/backup"), Path::new("/restored")]);
    to.iter().for_each(|dir| disk.create_dir(dir).expect("space"));
    back_up_log(&disk, Path::new(DIR), None, to[0], Reach::Stopped).expect("sound");
    restore_log(&disk, to[0], to[1], Until::End, at).expect("sound");
    let (mut log, _) = Log::open(disk, to[1], config, at).expect("the log opens");
    let later = |boot_ms| Now { wall_ms: at.wall_ms + boot_ms, boot_ms };
    // Nine minutes of use, but for some milliseconds.
    check(&mut log, later(59_000), 1);
    check(&mut log, later(61_000), 0);
}

#[test]
fn the_events_of_an_array_that_are_there_are_not_appended_again() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    log.append(vec![with_id("x", "0")], now(1)).expect("new");
    log.run_ops(now(2));
    let batch = vec![event("a", "1"), with_id("x", "0"), with_id("y", "2"), with_id("y", "2")];
    let appended = log.append(batch, now(3)).expect("partly new");
    assert_eq!((appended.first, appended.last), (Offset::ZERO, Offset::new(2)));
    assert_eq!((appended.duplicates, appended.wait), (2, Offset::new(3)));
    let conflict = log.append(vec![event("a", "3"), with_id("z", "1"), with_id("z", "2")], now(3));
    assert_eq!(conflict, Err(AppendError::IdTwice { id: "z".into() }));
    assert_eq!(log.next(), Offset::new(3), "refused whole");
    log.run_ops(now(4));
    assert_eq!(stored(&disk, log.visible()), numbers(3));
}

#[test]
fn a_producer_goes_on_where_it_was_after_a_power_cut() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    for seq in 0..100 {
        let appended = log.append(claimed(0, seq, &seq.to_string()), now(1)).expect("the next");
        assert_eq!(appended.producer, Some(ProducerPlace { epoch: 0, seq }));
        log.run_ops(now(2));
    }
    let disk = disk.power_cut();
    let mut log = open(&disk);
    let retried = log.append(claimed(0, 99, "99"), now(3)).expect("a duplicate");
    assert_eq!((retried.first, retried.duplicates), (Offset::new(99), 1));
    let gap = log.append(claimed(0, 101, "x"), now(3));
    assert_eq!(gap, Err(AppendError::ProducerGap { expected_seq: 100, given_seq: 101 }));
    assert_eq!(log.append(claimed(1, 0, "100"), now(3)).map(|next| next.duplicates), Ok(0));
    let waits = log.append(claimed(1, 0, "100"), now(3)).expect("a duplicate");
    assert_eq!(waits.wait, Offset::new(101), "its answer rests on what is staged");
    let stale = log.append(claimed(0, 100, "x"), now(3));
    assert_eq!(stale, Err(AppendError::StaleEpoch { epoch: 1, given_epoch: 0 }));
    log.run_ops(now(4));
    assert_eq!(stored(&disk, log.visible()), numbers(101));
    let headers = |frame: &Frame| frame.event(0).headers().len();
    assert!(log.take_published().iter().all(|frame| headers(frame) == 0), "no reader sees it");
}

#[test]
fn an_expected_offset_counts_what_is_staged_and_what_is_in_flight() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    let expect = |log: &mut Log<SimDisk>, topic, offset, scope| {
        let events = vec![event(topic, "x")];
        let expected = Some(ExpectedOffset { offset, scope });
        log.append(Append { events, expected, producer: None }, now(1)).map(|done| done.first.get())
    };
    let refused = |expected_offset, given_offset| {
        Err(AppendError::Unexpected { expected_offset, given_offset })
    };
    use OffsetScope::{Log as OfLog, Topic as OfTopic};
    assert_eq!(expect(&mut log, "a", 1, OfTopic), refused(0, 1));
    assert_eq!(expect(&mut log, "a", 0, OfTopic), Ok(0));
    assert_eq!(expect(&mut log, "b", 0, OfTopic), Ok(1));
    assert_eq!(expect(&mut log, "a", 0, OfTopic), refused(1, 0), "staged");
    let held = hold_writes(&mut log, &disk);
    assert_eq!(expect(&mut log, "b", 1, OfTopic), refused(2, 1), "in flight");
    assert_eq!(expect(&mut log, "c", 1, OfLog), refused(2, 1));
    assert_eq!(expect(&mut log, "c", 2, OfLog), Ok(2));
    for op in held {
        log.complete(op.run(&disk), now(2));
    }
    log.run_ops(now(2));
    assert_eq!(expect(&mut log, "b", 1, OfTopic), refused(2, 1), "visible");
    assert_eq!(expect(&mut log, "b", 2, OfTopic), Ok(3));
}

/// Else it would be refused with what comes behind, when the disk turns out to be full.
#[test]
fn an_answer_waits_for_no_more_than_what_it_rests_on() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    log.append(vec![with_id("x", "0")], now(1)).expect("new");
    log.run_ops(now(2));
    log.append(claimed(0, 0, "1"), now(1)).expect("the next");
    let held = hold_writes(&mut log, &disk);
    append(&mut log, "2");
    let written = log.append(claimed(0, 0, "1"), now(3)).expect("a duplicate");
    assert_eq!((written.duplicates, written.wait), (1, Offset::new(2)), "on its way to the disk");
    let visible = log.append(vec![with_id("x", "0")], now(3)).expect("a duplicate");
    assert_eq!((visible.duplicates, visible.wait), (1, Offset::new(1)));
    let conflict = log.append(vec![with_id("x", "1")], now(3)).expect_err("another");
    assert_eq!(conflict.rests_on(log.next()), Some(Offset::new(1)));
    let gap = log.append(claimed(0, 7, "x"), now(3)).expect_err("a gap");
    assert_eq!(gap.rests_on(log.next()), Some(Offset::new(3)), "on all that is staged");
    log.append(claimed(0, 1, "2"), now(3)).expect("the next");
    let older = log.append(claimed(0, 0, "1"), now(3)).expect("a duplicate");
    assert_eq!((older.duplicates, older.wait), (1, written.wait), "not on the one behind it");
    for op in held {
        log.complete(op.run(&disk), now(4));
    }
    assert_eq!(log.visible(), written.wait);
}

#[test]
fn what_a_full_disk_refused_is_not_remembered() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    log.append(claimed(0, 0, "0"), now(1)).expect("the next");
    log.append(vec![with_id("x", "1")], now(1)).expect("new");
    assert_eq!(log.refuse_staged().from, Offset::ZERO);
    assert_eq!(log.append(claimed(0, 0, "0"), now(1)).map(|next| next.duplicates), Ok(0));
    assert_eq!(log.append(vec![with_id("x", "1")], now(1)).map(|new| new.duplicates), Ok(0));
}
