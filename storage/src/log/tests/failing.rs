//! Writes and syncs that fail: the log turns read-only, and the next start trusts nothing of it.

use super::*;

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

/// Its index was made again every ten seconds, and no segment was sealed or removed any more. Nor had a scrub ever read a
/// header.
#[test]
fn a_segment_whose_header_is_lost_is_sealed_and_keeps_no_other() {
    const HOUR_MS: u64 = 3_600_000;
    for is_readable in [true, false] {
        let disk = SimDisk::new(1);
        let mut log = open(&disk);
        append_each(&mut log, 3);
        let path = log_files(&disk)[0].clone();
        match is_readable {
            true => disk.flip_bit(&path, Position::new(100), 3),
            false => disk.make_unreadable(&path, 0..512),
        }
        append_each(&mut log, 47);
        (1..4).for_each(|step| log.run_ops(now(10_000 * step)));
        let names: Vec<_> = log.segments().iter().map(|segment| segment.name()).collect();
        assert!(names.len() >= 3 && log.unsealed.len() == 1, "{names:?}");
        assert_eq!(log.damaged_segments(), 1, "{:?}", log.take_notices());
        let sealed = usize::try_from(log.segments().end().get()).expect("few");
        let all = [numbers(3), numbers(47)].concat();
        assert_eq!(kept(&log)[..sealed], all[..sealed], "its frames are there");
        let is_pass = |notice: &Notice| matches!(notice, Notice::Scrubbed { damaged: 1, .. });
        for step in 0..20 {
            log.run_ops(now(2 * HOUR_MS + 1_000 * step));
        }
        assert!(log.take_notices().iter().any(is_pass) && log.damaged_segments() == 1);
        keep(&mut log, crate::settings::LogRetention { count: Some(1), ..Default::default() });
        log.run_ops(now(3 * HOUR_MS));
        let left: Vec<_> = log.segments().iter().map(|segment| segment.name()).collect();
        assert_eq!(left, names[..1]);
    }
}
