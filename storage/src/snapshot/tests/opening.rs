//! A log is opened from its snapshots: it is the same with fewer, and what was counted before a rewrite is counted anew.

use super::*;

#[test]
fn a_log_is_the_same_with_all_snapshots_and_with_fewer_and_without() {
    for seed in 0..20 {
        let disk = filled(seed, 200);
        assert_eq!(verified(&disk), 0);
        let paths = snapshots(&disk);
        assert_eq!(paths.len(), 2, "the newest two are kept");
        let expected = state(&open(&disk.fork(1)).0);
        for removed in [&paths[..1], &paths[1..], &paths[..]] {
            let disk = disk.fork(1);
            removed.iter().for_each(|path| remove(&disk, path));
            same(&state(&open(&disk).0), &expected, &format!("seed {seed}, without {removed:?}"));
        }
    }
}

#[test]
fn what_lies_below_a_snapshot_is_not_read_again() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk);
    append_each(&mut log, 100);
    drop(log);
    let disk = disk.kill();
    let expected = state(&open(&disk.fork(1)).0);
    // The last section of the first index is not among what stays in memory.
    let path = Path::new(DIR).join("00000000000000000000.1.idx");
    let bytes = disk.bytes(&path).expect("an index");
    disk.flip_bit(&path, Position::new(bytes.len() as u64 - 1), 0);
    let (log, report) = open(&disk.fork(1));
    same(&state(&log), &expected, "with snapshots");
    assert_eq!(report.scanned.len(), 1, "the last one alone");
    snapshots(&disk).iter().for_each(|path| remove(&disk, path));
    let (log, report) = open(&disk);
    same(&state(&log), &expected, "without");
    assert_eq!(report.scanned.len(), 2, "its index is made anew");
}

#[test]
fn a_newer_snapshot_is_refused_by_name() {
    let disk = filled(2, 200);
    let path = &snapshots(&disk)[0];
    let mut bytes = disk.bytes(path).expect("a snapshot");
    bytes[8] += 1;
    let crc = crc_without_field(&bytes[..SNAPSHOT_HEADER_BYTES]);
    bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    write(&disk, path, &bytes);
    assert!(matches!(refused(&disk), OpenError::NewerVersion { .. }));
}

/// Counts are those of the generation that was counted: what was rewritten since is counted anew.
#[test]
fn topics_of_rewritten_segments_are_to_be_counted() {
    let disk = SimDisk::new(7);
    let compacting = LogConfig { compress_after_s: 0, ..config() };
    let (mut log, _) = open(&disk);
    for number in 0..120 {
        let topic = if number % 3 == 0 { "kept" } else { "gone" };
        log.append(vec![event(topic, "1")], now(2)).expect("staged");
        log.run_ops(now(3));
    }
    let made = log.snapshot_totals().made;
    assert!(made > 0);
    let deleted = Control::Deleted(TopicsDeleted::of(vec!["gone".into()]));
    log.append_control(&deleted, now(3)).expect("staged");
    drop(log);
    let disk = disk.kill();
    let (mut log, _) =
        Log::open(disk.clone(), Path::new(DIR), compacting, now(1)).expect("it opens");
    log.append(vec![event("gone", "1")], now(3)).expect("staged");
    log.run_ops(now(100_000));
    assert!(log.compaction_totals().segments > 0);
    drop(log);
    let (mut log, _) = open(&disk.kill());
    let number = log.topics().number_of("kept").expect("known");
    assert!(log.take_lessened(number) && !log.take_lessened(number), "said once");
}
