//! Logs that are opened again: after a close, a crash, and damage.

use super::*;

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
