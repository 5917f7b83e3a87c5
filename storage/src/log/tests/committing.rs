//! Frames on their way to the disk: in flight, in order, over the end of a segment, and when they may wait.

use super::*;

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
fn a_lot_that_waits_goes_out_in_writes_of_several_frames() {
    for frames_lost in [false, true] {
        let disk = SimDisk::new(1);
        let config = LogConfig {
            frame_bytes_target: 8 << 10,
            writes_in_flight_max: 2,
            write_bytes_max: 24 << 10,
            segment_bytes: 256 << 10,
            preallocate_bytes_min: 256 << 10,
            preallocate_bytes_max: 256 << 10,
            ..tiny()
        };
        let (mut log, _) = open_with(&disk, config.clone());
        let event = format!("\"{}\"", "x".repeat(3_000));
        for _ in 0..20 {
            append(&mut log, &event);
        }
        let writes = hold_writes(&mut log, &disk);
        assert_eq!(writes.len(), 2, "writes_in_flight_max");
        let bytes: Vec<usize> = writes.iter().map(written_bytes).collect();
        assert_eq!(
            bytes,
            [24 << 10, 16 << 10],
            "no more than write_bytes_max, and a share of what waits"
        );
        if frames_lost {
            // The second lands, the first does not: nothing of either was acknowledged, and nothing comes back.
            let mut writes = writes.into_iter();
            let (lost, landed) = (writes.next(), writes.next().expect("the second"));
            log.complete(landed.run(&disk), now(2));
            assert_eq!((log.visible(), log.synced()), (Offset::ZERO, Offset::ZERO));
            drop((log, lost));
            let (log, _) = open_with(&disk.power_cut(), config);
            assert_eq!(log.visible(), Offset::ZERO);
            continue;
        }
        for write in writes {
            log.complete(write.run(&disk), now(2));
        }
        let published = log.take_published();
        let ends: Vec<u64> = published.iter().map(|frame| frame.end_offset().get()).collect();
        assert_eq!(ends, [2, 4, 6, 8, 10], "each frame for itself, in order");
        log.run_ops(now(2));
        assert_eq!(log.visible(), Offset::new(20));
        let disk = disk.power_cut();
        let (log, _) = open_with(&disk, config);
        assert_eq!(log.visible(), Offset::new(20));
        assert_eq!(stored(&disk, log.visible()), vec![event; 20]);
    }
}

fn written_bytes(op: &Op<SimDisk>) -> usize {
    match op {
        Op::Write { buffer, .. } => buffer.len(),
        _ => panic!("a write"),
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

/// Runs everything but seals; returns those.
fn hold_seals(log: &mut Log<SimDisk>, disk: &SimDisk) -> Vec<Op<SimDisk>> {
    hold(log, disk, |op| matches!(op, Op::Job { job: Job::Seal(_), .. }))
}

#[test]
fn a_seal_takes_its_time_unless_others_wait_for_it() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    let big = format!("\"{}\"", "x".repeat(40 << 10));
    let thread = |op: &Op<SimDisk>| match op {
        Op::Job { job, .. } => job.thread(),
        op => panic!("{op:?} is no job"),
    };
    let mut seals = Vec::new();
    for _ in 0..6 {
        append(&mut log, &big);
        seals.extend(hold_seals(&mut log, &disk));
    }
    assert_eq!((seals.len(), log_files(&disk).len()), (1, 6), "one at a time, and nobody waits");
    let mut threads = Vec::new();
    while let Some(seal) = seals.pop() {
        threads.push(thread(&seal));
        log.complete(seal.run(&disk), now(2));
        seals.extend(hold_seals(&mut log, &disk));
    }
    use JobThread::{Prompt, Seal};
    assert_eq!(threads, [Seal, Prompt, Seal, Seal, Seal]);
    assert_eq!(log.segments().len(), 5);

    append(&mut log, &big);
    let seal = hold_seals(&mut log, &disk).pop().expect("one more is full");
    log.begin_close();
    assert_eq!(thread(&seal), Prompt, "a log that ends waits for it");
    log.complete(seal.run(&disk), now(2));
    log.run_ops(now(2));
    assert!(log.is_closed());
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
fn a_segment_that_is_full_to_the_block_still_records_its_synced_offset() {
    let disk = SimDisk::new(1);
    let config = LogConfig { segment_bytes: 32 << 10, ..tiny() };
    let (mut log, _) = open_with(&disk, config);
    append_each(&mut log, 7);
    assert_eq!(log_files(&disk).len(), 1);
    let due_ms = log.deadline().expect("an empty frame is due");
    log.run_ops(now(due_ms));
    assert_eq!(log_files(&disk).len(), 1);
    assert_eq!(log.deadline(), Some(10_000), "but for the end mark nothing is left to do");
    close(&mut log);
    drop(log);
    let (log, report) = open_with(&disk, tiny());
    assert!(report.is_clean && log.visible() == Offset::new(7));
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
    assert_eq!(log.take_published().len(), 1);
    assert_eq!(log.deadline(), Some(10_000), "but for the end mark nothing is left to do");
    assert!(log.next_op(now(1_000)).is_none());
    // So even damage to the last frame with events is told from a torn write.
    drop(log);
    let path = &log_files(&disk)[0];
    disk.flip_bit(path, Position::new(4096 + 100), 0);
    assert!(matches!(open_error(&disk), OpenError::Corrupt(Corruption { .. })));
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
    log.note_idle();
    assert!(begin(&mut log).is_none(), "what comes after that gathers");
    log.complete(third.run(&disk), now(2));
    log.run_ops(now(2));
    assert_eq!(log.visible(), log.next());
}
