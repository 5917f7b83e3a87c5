//! The log over the simulated disk, with the driver in the tests' hands.

use std::{collections::BTreeMap, path::PathBuf};

use bytes::Bytes;

use std::sync::atomic::Ordering;

use super::*;
use crate::{
    append::{Append, ExpectedOffset, OffsetScope, ProducerClaim, ProducerId, ProducerPlace},
    control::{Control, TopicRule, TopicTrimmed, TopicsDeleted},
    error::{AppendError, Corruption},
    event::{EventId, NewEvent},
    io::{
        Access, DiskFile,
        sim::{Fault, SimDisk},
    },
    reader::ReadQuery,
    scan::FrameScan,
    selection::Order,
    topic::Topic,
};

pub(crate) const DIR: &str = "/log";

pub(crate) fn now(boot_ms: u64) -> Now {
    Now { wall_ms: 1_700_000_000_000 + boot_ms, boot_ms }
}

pub(crate) fn tiny() -> LogConfig {
    LogConfig {
        segment_bytes: 64 << 10,
        frame_bytes_target: 8 << 10,
        frame_bytes_max: 64 << 10,
        event_bytes_max: 60 << 10,
        staged_bytes_max: 256 << 10,
        preallocate_bytes_min: 16 << 10,
        preallocate_bytes_max: 32 << 10,
        recent_frames_bytes_max: 16 << 10,
        reserve_bytes: 16 << 10,
        id_window_s: 100_000,
        ..LogConfig::default()
    }
}

pub(crate) fn event(topic: &str, data: &str) -> NewEvent {
    NewEvent::json(Topic::parse(topic).expect("a topic"), Bytes::copy_from_slice(data.as_bytes()))
}

pub(crate) fn open_with(disk: &SimDisk, config: LogConfig) -> (Log<SimDisk>, OpenReport) {
    Log::open(disk.clone(), Path::new(DIR), config, now(0)).expect("the log opens")
}

pub(crate) fn open(disk: &SimDisk) -> Log<SimDisk> {
    open_with(disk, tiny()).0
}

pub(crate) fn open_error(disk: &SimDisk) -> OpenError {
    match Log::open(disk.clone(), Path::new(DIR), tiny(), now(0)) {
        Ok(_) => panic!("the log opened"),
        Err(error) => error,
    }
}

pub(crate) fn append(log: &mut Log<SimDisk>, data: &str) -> Appended {
    log.append(vec![event("a", data)], now(1)).expect("staged")
}

/// Appends one event after the other, each in its own frame, to their end.
pub(crate) fn append_each(log: &mut Log<SimDisk>, count: usize) {
    for number in 0..count {
        append(log, &format!("{number}"));
        log.run_ops(now(2));
        assert!(log.deadline().is_none_or(|boot_ms| boot_ms > 2), "a driver would spin");
    }
}

pub(crate) fn close(log: &mut Log<SimDisk>) {
    log.begin_close();
    log.run_ops(now(3));
    assert!(log.is_closed());
}

pub(crate) fn log_files(disk: &SimDisk) -> Vec<PathBuf> {
    let mut names = disk.list(Path::new(DIR)).expect("the directory");
    names.retain(|name| name.ends_with(".log"));
    names.sort();
    names.into_iter().map(|name| Path::new(DIR).join(name)).collect()
}

/// All events below the visible offset, as the files have them.
pub(crate) fn stored(disk: &SimDisk, visible: Offset) -> Vec<String> {
    let mut events = BTreeMap::new();
    for path in log_files(disk) {
        let file = disk.open(&path, Access::Read).expect("a segment");
        let mut bytes = vec![0; 4096];
        file.read_exact_at(&mut bytes, Position::default()).expect("a header");
        let header = SegmentHeader::decode(&bytes).expect("a header");
        let mut frames = FrameScan::new(&file, &header);
        // A later segment says more about its offsets than what lies behind the end of this one.
        events.split_off(&header.base_offset);
        while let Ok((frame, _)) = frames.next_frame().expect("readable") {
            for event in frame.events() {
                let data = String::from_utf8(event.data().to_vec()).expect("text");
                events.insert(event.offset(), data);
            }
        }
    }
    events.split_off(&visible);
    assert_eq!(events.len() as u64, visible.get(), "no gap");
    events.into_values().collect()
}

pub(crate) fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

/// Runs jobs and syncs at once, and gives writes back instead of doing them.
pub(crate) fn hold_writes(log: &mut Log<SimDisk>, disk: &SimDisk) -> Vec<Op<SimDisk>> {
    let mut held = Vec::new();
    while let Some(op) = log.next_op(now(2)) {
        match op {
            Op::Write { .. } => held.push(op),
            op => log.complete(op.run(disk), now(2)),
        }
    }
    held
}

#[test]
fn what_is_acknowledged_is_there_after_a_power_cut() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let mut log = open(&disk);
        append_each(&mut log, 100);
        assert_eq!((log.synced(), log.visible()), (Offset::new(100), Offset::new(100)));
        assert!(log.segments().len() > 2, "it has rolled and sealed");
        let tag = *log.tag();
        let disk = disk.power_cut();
        let (log, report) = open_with(&disk, tiny());
        assert_eq!((log.visible(), *log.tag()), (Offset::new(100), tag));
        assert!(!report.is_clean && !report.is_new_tag);
        assert_eq!(stored(&disk, log.visible()), numbers(100));
        assert_eq!(log.topics().get("a").expect("listed").count, 100);
    }
}

#[test]
fn a_clean_close_is_known_and_every_start_begins_a_segment() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    append_each(&mut log, 3);
    close(&mut log);
    assert_eq!(log.append(vec![event("a", "late")], now(4)), Err(AppendError::Closed));
    drop(log);
    let (mut log, report) = open_with(&disk, tiny());
    assert!(report.is_clean && report.cut.is_none());
    assert_eq!(report.scanned.len(), 1);
    append_each(&mut log, 1);
    assert_eq!(log.visible(), Offset::new(4));
    drop(log);
    assert_eq!(log_files(&disk).len(), 2);
    // One that holds no events is replaced by the next.
    drop(open(&disk));
    drop(open(&disk));
    assert_eq!(log_files(&disk).len(), 3);
}

#[test]
fn frames_in_flight_become_visible_in_order() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    append(&mut log, "0");
    let first = hold_writes(&mut log, &disk);
    append(&mut log, "1");
    append(&mut log, "2");
    let second = hold_writes(&mut log, &disk);
    append(&mut log, "3");
    assert!(log.next_op(now(2)).is_none(), "two frames are in flight");
    assert_eq!((first.len(), second.len()), (1, 1));
    for op in second {
        log.complete(op.run(&disk), now(2));
    }
    assert_eq!((log.synced(), log.take_published().len()), (Offset::ZERO, 0));
    for op in first {
        log.complete(op.run(&disk), now(2));
    }
    assert_eq!((log.synced(), log.next()), (Offset::new(3), Offset::new(4)));
    let published: Vec<u64> =
        log.take_published().iter().map(|frame| frame.end_offset().get()).collect();
    assert_eq!(published, [1, 3], "batches that waited together share a frame");
    log.run_ops(now(2));
    assert_eq!(log.visible(), Offset::new(4));
}

#[test]
fn a_roll_is_a_barrier() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    let big = format!("\"{}\"", "x".repeat(30 << 10));
    append(&mut log, &big);
    log.run_ops(now(2));
    append(&mut log, "1");
    let held = hold_writes(&mut log, &disk);
    append(&mut log, &big);
    assert!(hold_writes(&mut log, &disk).is_empty(), "a frame of the old segment is in flight");
    assert_eq!(log_files(&disk).len(), 1);
    for op in held {
        log.complete(op.run(&disk), now(2));
    }
    log.run_ops(now(2));
    assert_eq!(log_files(&disk).len(), 2);
    assert_eq!(log.visible(), Offset::new(3));
    assert_eq!(log.segments().len(), 1, "the old one is sealed");
    assert_eq!(log.unsealed_start(), Offset::new(2));
}

#[test]
fn a_frame_longer_than_a_segment_gets_one_of_its_own() {
    let disk = SimDisk::new(1);
    let config = LogConfig { segment_bytes: 16 << 10, ..tiny() };
    let (mut log, _) = open_with(&disk, config.clone());
    append(&mut log, "0");
    append(&mut log, &format!("\"{}\"", "x".repeat(50 << 10)));
    append(&mut log, "2");
    log.run_ops(now(2));
    assert_eq!(log.visible(), Offset::new(3));
    assert_eq!(log_files(&disk).len(), 3);
    drop(log);
    let (log, _) = open_with(&disk.power_cut(), config);
    assert_eq!(log.visible(), Offset::new(3));
}

#[test]
fn a_failed_or_short_write_poisons() {
    for fault in [Fault::WriteFails, Fault::WriteIsShort] {
        let disk = SimDisk::new(1);
        let mut log = open(&disk);
        append_each(&mut log, 2);
        append(&mut log, "2");
        let held = hold_writes(&mut log, &disk);
        append(&mut log, "3");
        let more = hold_writes(&mut log, &disk);
        disk.arm(fault, 0);
        for op in held.into_iter().chain(more) {
            log.complete(op.run(&disk), now(2));
        }
        assert_eq!(log.poisoned().expect("poisoned").first_unsynced, Offset::new(2));
        assert_eq!((log.synced(), log.visible()), (Offset::new(2), Offset::new(2)));
        assert!(log.next_op(now(9)).is_none());
        let refused = log.append(vec![event("a", "4")], now(9));
        assert!(matches!(refused, Err(AppendError::Poisoned { .. })));
        let query = ReadQuery {
            topics: Vec::new(),
            from: Offset::ZERO,
            end: Offset::MAX,
            order: Order::Ascending,
        };
        let plan = log.plan_unsealed(&query, 1 << 20);
        assert_eq!((plan.pieces.len(), plan.considered), (2, Offset::new(2)), "reads go on");
        log.begin_close();
        assert!(log.is_closed());
        drop(log);
        disk.disarm();
        let log = open(&disk.power_cut());
        assert!(log.visible() >= Offset::new(2));
    }
}

#[test]
fn without_direct_writes_a_sync_follows() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        disk.refuse_direct(true);
        let (mut log, report) = open_with(&disk, tiny());
        assert_eq!(
            (report.write_mode, log.write_mode()),
            (WriteMode::Buffered, WriteMode::Buffered)
        );
        append(&mut log, "0");
        let write = log.next_op(now(2)).expect("a write");
        log.complete(write.run(&disk), now(2));
        assert_eq!(log.visible(), Offset::ZERO, "written is not synced");
        let sync = log.next_op(now(2)).expect("a sync");
        append(&mut log, "1");
        let write = log.next_op(now(2)).expect("a write beside the sync");
        log.complete(write.run(&disk), now(2));
        log.complete(sync.run(&disk), now(2));
        assert_eq!(log.visible(), Offset::new(1), "the second was written after the sync began");
        log.run_ops(now(2));
        assert_eq!(log.visible(), Offset::new(2));
        append_each(&mut log, 60);
        let disk = disk.power_cut();
        let (log, _) = open_with(&disk, tiny());
        assert_eq!(log.visible(), Offset::new(62));
        assert_eq!(stored(&disk, log.visible())[2..], numbers(60));
    }
}

#[test]
fn a_failed_sync_poisons_and_what_it_left_in_the_page_cache_is_not_trusted() {
    for seed in 0..40 {
        let disk = SimDisk::new(seed);
        disk.refuse_direct(seed % 2 == 0);
        let config = if seed % 2 == 0 {
            tiny()
        } else {
            LogConfig { sync: SyncMode::Interval { interval_ms: 10 }, ..tiny() }
        };
        let (mut log, _) = open_with(&disk, config.clone());
        append_each(&mut log, 3);
        log.run_ops(now(50));
        let synced = log.synced();
        assert_eq!(synced, Offset::new(3));
        append(&mut log, "3");
        disk.arm(Fault::SyncFails, 0);
        log.run_ops(now(100));
        log.run_ops(now(200));
        assert_eq!(log.poisoned().expect("poisoned").first_unsynced, synced);
        drop(log);
        disk.disarm();
        // The process is restarted; what it finds may be in the page cache alone.
        let disk = disk.kill();
        let (log, _) = open_with(&disk, config.clone());
        let visible = log.visible();
        assert!(visible >= synced);
        drop(log);
        let disk = disk.power_cut();
        let (log, _) = open_with(&disk, config);
        assert!(log.visible() >= visible, "seed {seed}: what was visible was taken back");
        stored(&disk, log.visible());
    }
}

#[test]
fn a_failed_sync_of_an_extension_poisons_whatever_it_failed_for() {
    let disk = SimDisk::new(1);
    disk.refuse_direct(true);
    let (mut log, _) = open_with(&disk, LogConfig { reserve_bytes: 0, ..tiny() });
    let extension = loop {
        append(&mut log, "0");
        let mut held = None;
        while let Some(op) = log.next_op(now(2)) {
            match op {
                Op::Job { job: Job::Extend(_), .. } => held = Some(op),
                op => log.complete(op.run(&disk), now(2)),
            }
        }
        if let Some(extension) = held {
            break extension;
        }
    };
    append(&mut log, "1");
    let write = log.next_op(now(2)).expect("a frame");
    assert!(matches!(write, Op::Write { .. }));
    log.complete(write.run(&disk), now(2));
    let visible = log.visible();
    assert!(visible < log.next(), "it waits for its sync");
    // The same file, and so the page that the frame is in.
    disk.arm(Fault::SyncFails, 0);
    log.complete(extension.run(&disk), now(2));
    log.run_ops(now(60_000));
    assert_eq!(log.poisoned().expect("poisoned").first_unsynced, visible);
    assert_eq!(log.visible(), visible);
}

#[test]
fn zeroing_has_rests_until_what_is_left_is_used_up_or_the_log_closes() {
    let config = LogConfig {
        preallocate_bytes_min: 256 << 10,
        preallocate_bytes_max: 256 << 10,
        segment_bytes: 1 << 20,
        reserve_bytes: 0,
        ..tiny()
    };
    for is_closed in [false, true] {
        let disk = SimDisk::new(1);
        let (mut log, _) = open_with(&disk, config.clone());
        let (mut held, mut began_at) = (None, 0);
        let mut count = 0;
        let is_urgent = |op: &Op<SimDisk>| match op {
            Op::Job { job: Job::Extend(job), .. } => job.is_urgent.load(Ordering::Relaxed),
            _ => unreachable!("it is an extension"),
        };
        loop {
            append(&mut log, "0");
            count += 1;
            while let Some(op) = log.next_op(now(2)) {
                match op {
                    Op::Job { job: Job::Extend(_), .. } => {
                        assert!(!is_urgent(&op), "nobody waits for it yet");
                        began_at = count;
                        held = Some(op);
                    }
                    op => log.complete(op.run(&disk), now(2)),
                }
            }
            let Some(extension) = &held else { continue };
            if is_closed {
                log.begin_close();
                while let Some(op) = log.next_op(now(2)) {
                    log.complete(op.run(&disk), now(2));
                }
                assert!(is_urgent(extension), "the end waits for it");
                break;
            }
            if is_urgent(extension) {
                break;
            }
        }
        assert!(is_closed || count > began_at, "a quarter of what was left had to go first");
        log.complete(held.expect("it is held").run(&disk), now(2));
    }
}

#[test]
fn an_empty_frame_that_a_failed_sync_lost_takes_nothing_with_it() {
    let sync = SyncMode::Interval { interval_ms: 10 };
    // No extension, whose sync would make it durable.
    let config = LogConfig { sync, preallocate_bytes_min: 32 << 10, ..tiny() };
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let (mut log, _) = open_with(&disk, config.clone());
        append_each(&mut log, 1);
        log.run_ops(now(20));
        assert_eq!(log.synced(), Offset::new(1));
        // The empty frame is written, and while it is synced the next frame is.
        log.run_ops(now(101));
        let Some(Op::Sync { id, file }) = log.next_op(now(111)) else { panic!("a sync") };
        let sync = file.begin_sync();
        append(&mut log, "1");
        log.run_ops(now(112));
        disk.arm(Fault::SyncFails, 0);
        log.complete(OpOutcome::Sync { id, result: sync.complete() }, now(112));
        assert!(log.poisoned().is_some());
        drop((log, file));

        let disk = disk.kill();
        let (log, _) = open_with(&disk, config.clone());
        assert_eq!(log.visible(), Offset::new(2));
        drop(log);
        let disk = disk.power_cut();
        let (log, _) = open_with(&disk, config.clone());
        assert_eq!(stored(&disk, log.visible()), ["0", "1"], "seed {seed}");
    }
}

#[test]
fn interval_lets_readers_run_ahead_and_an_unclean_end_gives_a_new_tag() {
    let config = LogConfig { sync: SyncMode::Interval { interval_ms: 50 }, ..tiny() };
    let disk = SimDisk::new(1);
    let (mut log, _) = open_with(&disk, config.clone());
    append_each(&mut log, 2);
    assert_eq!((log.visible(), log.synced()), (Offset::new(2), Offset::ZERO));
    assert_eq!(log.deadline(), Some(52));
    log.run_ops(now(52));
    assert_eq!(log.synced(), Offset::new(2));
    let tag = *log.tag();
    close(&mut log);
    drop(log);
    let (mut log, report) = open_with(&disk, config.clone());
    assert_eq!((*log.tag(), report.is_new_tag), (tag, false));
    append_each(&mut log, 1);
    drop(log);
    let (log, report) = open_with(&disk.power_cut(), config);
    assert!(report.is_new_tag && *log.tag() != tag);
}

#[test]
fn an_idle_log_records_its_synced_offset_once() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    append_each(&mut log, 1);
    assert_eq!(log.deadline(), Some(101), "100 ms behind the append");
    assert!(log.next_op(now(100)).is_none());
    let op = log.next_op(now(101)).expect("an empty frame");
    assert!(matches!(op, Op::Write { .. }));
    log.complete(op.run(&disk), now(101));
    assert_eq!((log.deadline(), log.take_published().len()), (None, 1));
    assert!(log.next_op(now(1_000)).is_none());
    // So even damage to the last frame with events is told from a torn write.
    drop(log);
    let path = &log_files(&disk)[0];
    disk.flip_bit(path, Position::new(4096 + 100), 0);
    assert!(matches!(open_error(&disk), OpenError::Corrupt(Corruption { .. })));
}

#[test]
fn a_segment_that_is_full_to_the_block_still_records_its_synced_offset() {
    let disk = SimDisk::new(1);
    let config = LogConfig { segment_bytes: 32 << 10, ..tiny() };
    let (mut log, _) = open_with(&disk, config);
    append_each(&mut log, 7);
    assert_eq!(log_files(&disk).len(), 1);
    let due_ms = log.deadline().expect("an empty frame is due");
    log.run_ops(now(due_ms));
    assert_eq!((log.deadline(), log_files(&disk).len()), (None, 1));
    close(&mut log);
    drop(log);
    let (log, report) = open_with(&disk, tiny());
    assert!(report.is_clean && log.visible() == Offset::new(7));
}

#[test]
fn limits_are_kept_to_the_byte() {
    let disk = SimDisk::new(1);
    let config = LogConfig { event_bytes_max: 1_000, ..tiny() };
    let (mut log, _) = open_with(&disk, config);
    let data = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    append(&mut log, &data(1_000));
    assert_eq!(
        log.append(vec![event("a", &data(1_001))], now(1)),
        Err(AppendError::EventTooLarge { event_bytes: 1_001, event_bytes_max: 1_000 })
    );
    let batch: Vec<NewEvent> = (0..70).map(|_| event("a", &data(1_000))).collect();
    assert!(matches!(log.append(batch, now(1)), Err(AppendError::BatchTooLarge { .. })));
    assert_eq!(log.next(), Offset::new(1), "refused whole");
    let batch = |_| (0..50).map(|_| event("a", &data(1_000))).collect::<Vec<_>>();
    let staged = (0..20).map(batch).map(|batch| log.append(batch, now(1))).collect::<Vec<_>>();
    assert!(matches!(staged.last(), Some(Err(AppendError::Overloaded { .. }))));
    log.run_ops(now(2));
    assert_eq!(log.visible(), log.next());
}

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
fn a_torn_end_is_cut_and_a_hole_before_synced_frames_is_not() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    append_each(&mut log, 3);
    drop(log);
    let path = log_files(&disk)[0].clone();
    // The third frame: nothing says that it had been synced.
    let torn = disk.fork(1);
    torn.flip_bit(&path, Position::new(4096 * 3 + 70), 0);
    let (log, report) = open_with(&torn.kill(), tiny());
    assert_eq!(log.visible(), Offset::new(2));
    assert_eq!(report.cut.expect("a cut").position, Position::new(4096 * 3));
    // The second: the third was made when it had been.
    disk.flip_bit(&path, Position::new(4096 * 2 + 70), 0);
    match open_error(&disk.kill()) {
        OpenError::Corrupt(corruption) => {
            assert_eq!(corruption.position, Position::new(4096 * 2));
            assert_eq!(corruption.file, path);
        }
        other => panic!("{other}"),
    }
}

#[test]
fn damage_that_no_crash_makes_is_named() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    append_each(&mut log, 40);
    drop(log);
    let files = log_files(&disk);
    assert!(files.len() > 2);

    let header = disk.fork(1);
    header.flip_bit(&files[2], Position::new(20), 0);
    assert!(matches!(open_error(&header.kill()), OpenError::Corrupt(_)));

    let missing = disk.fork(2);
    missing.remove(&files[1]).expect("removed");
    missing.remove(&files[1].with_extension("idx")).expect("removed");
    assert!(matches!(open_error(&missing.kill()), OpenError::MissingSegment { .. }));

    let index = disk.fork(3);
    index.flip_bit(&files[0].with_extension("idx"), Position::new(20), 0);
    let (log, report) = open_with(&index.kill(), tiny());
    assert_eq!(log.visible(), Offset::new(40));
    assert_eq!(report.scanned.len(), 2, "a rotten index is built again");
}

#[test]
fn one_process_at_a_time() {
    let disk = SimDisk::new(1);
    let _log = open(&disk);
    assert!(matches!(open_error(&disk), OpenError::Locked { .. }));
}

#[test]
fn plans_name_memory_and_files_in_order() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open_with(&disk, LogConfig { segment_bytes: 256 << 10, ..tiny() });
    append_each(&mut log, 10);
    let query = |from, end, order| ReadQuery {
        topics: Vec::new(),
        from: Offset::new(from),
        end: Offset::new(end),
        order,
    };
    let plan = log.plan_unsealed(&query(0, 99, Order::Ascending), 1 << 20);
    assert_eq!((plan.considered, plan.pieces.len()), (Offset::new(10), 5), "one read, 4 in memory");
    match &plan.pieces[0] {
        UnsealedPiece::Read(read) => {
            assert_eq!(read.offsets, Offset::ZERO..Offset::new(6));
            assert_eq!((read.position, read.len), (Position::new(4096), 6 * 4096));
        }
        UnsealedPiece::Frame(_) => panic!("it is not in memory any more"),
    }
    let plan = log.plan_unsealed(&query(2, 99, Order::Ascending), 4096);
    assert_eq!((plan.considered, plan.pieces.len()), (Offset::new(3), 1));
    let plan = log.plan_unsealed(&query(2, 8, Order::Descending), 1 << 20);
    assert_eq!((plan.considered, plan.pieces.len()), (Offset::new(2), 3));
    assert!(
        matches!(&plan.pieces[0], UnsealedPiece::Frame(frame) if frame.base_offset() == Offset::new(7))
    );
    assert!(
        matches!(&plan.pieces[2], UnsealedPiece::Read(read) if read.offsets.start == Offset::new(2))
    );
    let plan = log.plan_unsealed(&query(10, 99, Order::Ascending), 4096);
    assert_eq!((plan.considered, plan.pieces.len()), (Offset::new(10), 0));
}

fn with_id(id: &str, data: &str) -> NewEvent {
    NewEvent { id: Some(EventId::parse(id).expect("an id")), ..event("a", data) }
}

fn claimed(epoch: u64, seq: u64, data: &str) -> Append {
    let id = ProducerId::parse("p").expect("a name");
    let producer = Some(ProducerClaim { id, epoch, seq, scope: OffsetScope::Topic });
    Append { events: vec![event("a", data)], expected: None, producer }
}

/// Issue 5: "It survives `kill -9`, recovery".
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
    assert!(matches!(conflict, Err(AppendError::IdConflict { .. })));
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

#[test]
fn what_a_full_disk_refused_is_not_remembered() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    log.append(claimed(0, 0, "0"), now(1)).expect("the next");
    log.append(vec![with_id("x", "1")], now(1)).expect("new");
    assert_eq!(log.refuse_staged(), Offset::ZERO);
    assert_eq!(log.append(claimed(0, 0, "0"), now(1)).map(|next| next.duplicates), Ok(0));
    assert_eq!(log.append(vec![with_id("x", "1")], now(1)).map(|new| new.duplicates), Ok(0));
}

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

/// What is read from the first offset that is kept.
fn kept(log: &Log<SimDisk>) -> Vec<String> {
    let query = ReadQuery {
        topics: vec![crate::topic::TopicPattern::parse("**").expect("a pattern")],
        from: log.start(),
        end: log.visible(),
        order: Order::Ascending,
    };
    let mut reader = crate::reader::Reader::new(log.segments().clone(), &query);
    let mut data = Vec::new();
    while let Some(hits) = reader.next_blocking().expect("readable") {
        data.extend(
            hits.events().map(|event| String::from_utf8(event.data().to_vec()).expect("text")),
        );
    }
    data
}

fn keep(log: &mut Log<SimDisk>, retain: crate::settings::LogRetention) {
    let settings = crate::settings::LogSettings { retain };
    log.append_control(&Control::Log(settings), now(1)).expect("staged");
    log.run_ops(now(2));
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
        assert_eq!(data, numbers(60)[51..][..data.len()]);
        if is_done {
            assert!(crash_after > 5, "it never crashed");
            return;
        }
    }
    panic!("the removal never ends");
}

/// Long enough after all appends for every sealed segment to be rewritten.
const MUCH_LATER_MS: u64 = 700_000;

fn keyed(topic: &str, key: &str, data: &str) -> NewEvent {
    let key = Some(crate::event::EventKey::parse(key).expect("a key"));
    NewEvent { key, ..event(topic, data) }
}

fn rule(log: &mut Log<SimDisk>, pattern: &str, retain: crate::settings::TopicRetention) {
    let settings = crate::settings::TopicSettings { retain, ..Default::default() };
    let rule = TopicRule { pattern: pattern.into(), settings: Some(settings) };
    log.append_control(&Control::Topic(rule), now(1)).expect("staged");
}

/// A log of several sealed segments with events of three topics and ten keys.
fn mixed(disk: &SimDisk, batches: usize) -> Log<SimDisk> {
    let mut log = open(disk);
    for number in 0..batches {
        let data = |text: &str| format!("{text}{number:->500}");
        let batch = vec![
            keyed("keep", "k", &data("x")),
            keyed("keys", &format!("k{}", number % 10), &data("y")),
            event("gone", &data("z")),
        ];
        log.append(batch, now(1)).expect("staged");
        log.run_ops(now(2));
    }
    log
}

fn offsets_of(log: &Log<SimDisk>, topic: &str) -> Vec<u64> {
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
    for crash_after in (0..).step_by(3) {
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
        let disk = if crash_after % 2 == 0 { disk.power_cut() } else { disk.kill() };
        let log = open(&disk);
        let is_deleted = log.visible() == visible.plus(1);
        assert!(is_deleted || log.visible() == visible, "crash after {crash_after}");
        assert_eq!(offsets_of(&log, "keep")[..keep.len()], keep[..], "crash after {crash_after}");
        assert_eq!(offsets_of(&log, "gone").is_empty(), is_deleted, "crash after {crash_after}");
        if is_done {
            break;
        }
    }
    assert!(crashes > 10, "it crashed {crashes} times");
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

/// Issue 5: "`DELETE`, trim, retention and compaction work on a full disk", and appends go on by
/// themselves.
#[test]
fn a_full_disk_takes_what_frees_it_and_goes_on() {
    for case in 0..3 {
        let disk = SimDisk::new(case);
        disk.limit_space(Some(600 << 10));
        let (mut log, _) = open_with(&disk, LogConfig { reserve_bytes: 48 << 10, ..tiny() });
        let mut appended = 0;
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
            0 => Control::Log(crate::settings::LogSettings { retain }),
            1 => Control::Deleted(TopicsDeleted::of(vec!["gone".into()])),
            _ => Control::Trimmed(TopicTrimmed { topic: "gone".into(), before: 2 * appended - 20 }),
        };
        log.append_control(&control, now(3)).expect("control events have room");
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

#[test]
fn a_scrub_finds_rot_and_reports_it_once() {
    let disk = SimDisk::new(8);
    let config = LogConfig { scrub_interval_s: 100, scrub_bytes_per_s: 1 << 20, ..tiny() };
    let (mut log, _) = open_with(&disk, config);
    append_each(&mut log, 100);
    let notices = |log: &mut Log<SimDisk>, boot_ms: u64| {
        let mut now_ms = boot_ms;
        while now_ms < boot_ms + 90_000 {
            log.run_ops(now(now_ms));
            now_ms = log.deadline().expect("limits of time").max(now_ms + 1);
        }
        let notices = log.take_notices();
        let of_scrub = notices
            .into_iter()
            .filter(|notice| matches!(notice, Notice::Scrubbed { .. } | Notice::Damaged { .. }));
        of_scrub.collect::<Vec<_>>()
    };
    let first = notices(&mut log, 100_000);
    assert!(
        matches!(first[..], [Notice::Scrubbed { damaged: 0, bytes }] if bytes > 100_000),
        "{first:?}"
    );
    let path = log_files(&disk)[1].clone();
    disk.flip_bit(&path, Position::new(9_000), 3);
    let second = notices(&mut log, 210_000);
    assert!(
        matches!(second[..], [Notice::Damaged { .. }, Notice::Scrubbed { damaged: 1, .. }]),
        "{second:?}"
    );
    let third = notices(&mut log, 320_000);
    assert!(matches!(third[..], [Notice::Scrubbed { damaged: 1, .. }]), "{third:?}");
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

/// What is dead in the active segment is freed as well: it is ended, with the reserve if need be.
#[test]
fn a_deletion_frees_a_full_disk_though_all_events_are_in_the_active_segment() {
    let disk = SimDisk::new(5);
    disk.limit_space(Some(700 << 10));
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
