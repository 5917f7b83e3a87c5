//! The log over the simulated disk, with the driver in the tests' hands.

mod compacting;
mod full_disk;
mod keeping;
mod once;

use std::{collections::BTreeMap, path::PathBuf};

use bytes::Bytes;

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
            Op::Job { job: Job::Extend(job), .. } => !job.headway.has_time(1, 4),
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
        assert!(is_closed || count > began_at, "a sixth of what was left had to go first");
        log.complete(held.expect("it is held").run(&disk), now(2));
    }
}

#[test]
fn a_log_that_counts_on_idle_gathers_until_it_is_told() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open_with(&disk, tiny());
    log.run_ops(now(2));
    let begin = |log: &mut Log<SimDisk>| {
        append(log, "1");
        log.next_op(now(2)).filter(|op| matches!(op, Op::Write { .. }))
    };
    let (first, second) = (begin(&mut log), begin(&mut log));
    assert!(first.is_some() && second.is_some(), "nobody said that there is a time for it");
    assert!(begin(&mut log).is_none() && !log.is_gathering(), "two are enough");
    for write in [first, second].into_iter().flatten() {
        log.complete(write.run(&disk), now(2));
    }
    log.run_ops(now(2));

    log.count_on_idle();
    let first = begin(&mut log).expect("nothing is under way");
    assert!(!log.is_gathering(), "nothing is staged");
    assert!(begin(&mut log).is_none(), "it gathers");
    assert!(log.is_gathering());
    log.note_idle();
    let second = log.next_op(now(2)).expect("to gather for longer would be in vain");
    assert!(begin(&mut log).is_none() && !log.is_gathering(), "two are enough for the idle, too");
    log.note_idle();
    assert!(log.next_op(now(2)).is_none());
    log.complete(second.run(&disk), now(2));
    assert!(log.next_op(now(2)).is_none() && !log.is_gathering(), "the first is still awaited");
    log.complete(first.run(&disk), now(2));
    let third = log.next_op(now(2)).expect("nothing is under way");
    log.complete(third.run(&disk), now(2));
    assert_eq!(log.visible(), log.next());
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
