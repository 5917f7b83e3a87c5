//! Starts on a disk without space.

use super::*;

/// A frame that is longer than a segment has an index that may be longer, too: a log that ended behind it had no reserve for
/// that, and its next start found no space.
#[test]
fn a_full_disk_has_room_for_the_index_of_a_last_frame_that_is_longer_than_a_segment() {
    for is_closed in [true, false] {
        let disk = SimDisk::new(1);
        let config = LogConfig {
            frame_bytes_max: 1 << 20,
            staged_bytes_max: 4 << 20,
            preallocate_rest_bytes_max: 0,
            ..tiny()
        };
        let (mut log, _) = open_with(&disk, config.clone());
        append(&mut log, "first");
        log.append(of_new_topics(0, 1_000, 400), now(1)).expect("staged");
        if is_closed {
            close(&mut log);
        } else {
            log.run_ops(now(2));
        }
        assert_eq!((log.synced(), log_files(&disk).len()), (Offset::new(1_001), 2));
        drop(log);
        let disk = disk.kill();
        disk.limit_space(Some(disk.space_bytes()));
        let (log, _) = open_with(&disk, config);
        assert_eq!(log.visible(), Offset::new(1_001));
        let last = log.segments().iter().last().expect("it is sealed");
        assert!(last.index().header().index_bytes > 300 << 10);
    }
}

/// The first try has made some indexes when it finds no more space, and the second finds them there: the server's log told of
/// the others alone.
#[test]
fn a_start_that_was_tried_twice_tells_of_all_that_it_has_made() {
    let mut halved = 0;
    for left in (0..8).map(|step| step * (16 << 10)) {
        let disk = SimDisk::new(1);
        let config = LogConfig { segment_bytes: 8 << 10, frame_bytes_target: 1, ..tiny() };
        let (mut log, _) = open_with(&disk, config.clone());
        for number in 0..30 {
            append(&mut log, &noise(number, 6_000));
        }
        close(&mut log);
        assert!(log.segments().is_empty(), "none has an index");
        drop(log);
        let disk = disk.kill();
        disk.limit_space(Some(disk.space_bytes() + left));
        let (mut log, report) = open_with(&disk, config);
        let is_second = log.take_notices().contains(&Notice::DiskFull);
        halved += usize::from(is_second && left > 0);
        let scanned: Vec<_> = report.scanned.iter().map(|one| one.name.base_offset.get()).collect();
        assert_eq!(scanned, (0..30).collect::<Vec<_>>(), "{left} bytes left");
    }
    assert!(halved > 0, "it never came to a second try");
}
