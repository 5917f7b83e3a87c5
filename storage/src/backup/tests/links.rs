//! Files that a backup shares with the log.

use super::*;

/// The first start seals a segment up to its frames without events; another, which finds no index, scans it no further than
/// to where the next segment begins.
#[test]
fn a_start_shortens_no_file_that_a_backup_shares() {
    for is_shared in [true, false] {
        let disk = SimDisk::new(7);
        let open =
            |disk: &SimDisk| Log::open(disk.clone(), Path::new(DIR), small_segments(), now());
        let (mut log, _) = open(&disk).expect("new");
        append_numbers(&mut log, 5);
        log.begin_close();
        log.run_ops(now());
        assert!(log.is_closed());
        drop(log);
        let disk = disk.kill();
        let (mut log, _) = open(&disk).expect("a sound log");
        append_numbers(&mut log, 40);
        let first = log.segments().iter().next().expect("it was sealed").name();
        if is_shared {
            back_up(&disk, TO, None, Reach::Synced(log.visible()));
        }
        drop(log);
        let disk = disk.kill();
        let path = |file| Path::new(DIR).join(first.file_name(file));
        let len = || disk.bytes(&path(SegmentFile::Log)).expect("it is there").len();
        let before = len();
        disk.remove(&path(SegmentFile::Index)).expect("it was there");
        let (log, report) = open(&disk).expect("its frames are there");
        assert!(report.scanned.iter().any(|scanned| scanned.name == first));
        assert_eq!(log.visible(), Offset::new(45));
        drop(log);
        if is_shared {
            let found = verify(&disk, Path::new(TO), &mut |finding| panic!("{finding}"));
            assert_eq!(found.expect("not in use").end, Offset::new(45));
        }
        assert_eq!(len() < before, !is_shared);
    }
}
