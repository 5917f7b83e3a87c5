//! Files of another log, sound in themselves: the log was called repaired, and did not open, or had gaps of events that
//! never were.

use super::{
    strays::{check_left_alone, state},
    *,
};
use crate::{
    end_mark::{self, EndMark},
    index::stub::{StubLimits, make_stub},
    listing,
    log::tests::{now as log_now, tiny},
    restore::{Until, restore_log},
};

/// Segments of 20, 12, 8, 16 and 16 events as in [`log`], of other topics; all but the last are sealed.
fn other_log() -> TestLog {
    let frames = |count: usize| {
        vec![["d", "e", "f", "d"].map(|topic| (topic, vec![8; 900])).to_vec(); count]
    };
    let mut log = TestLog::new(2);
    for count in [5, 3, 2, 4, 4] {
        log.add_sealed(&frames(count));
    }
    log.add_unsealed(&frames(1));
    log
}

fn copy(from: &TestLog, to: &TestLog, segment: usize, file: SegmentFile) -> PathBuf {
    let path = path(from, segment, file);
    to.write(&path, &from.disk.bytes(&path).expect("a file"));
    path
}

#[test]
fn a_segment_of_another_log_is_named_and_nothing_is_changed() {
    for segment in 0..3 {
        for is_damaged in [false, true] {
            let (log, other) = (log(), other_log());
            for file in [SegmentFile::Log, SegmentFile::Index] {
                copy(&other, &log, segment, file);
            }
            if is_damaged {
                flip(&log, 2 - segment.min(1), 0, 70);
            }
            // It has the numbers first, if it is the first.
            let named = path(&log, segment.max(1), SegmentFile::Log);
            check_left_alone(&log.disk, &named, &format!("{segment}, {is_damaged}"));
            assert!(open(&log.disk.fork(1)).is_err());
        }
    }
}

/// A gap was made up to where it ends, and topics of the other log were in it: `verify` found nothing, and no start took it.
#[test]
fn an_index_of_another_log_behind_the_end_is_named_and_nothing_is_changed() {
    let (log, other) = (log(), other_log());
    let stray = copy(&other, &log, 4, SegmentFile::Index);
    check_left_alone(&log.disk, &stray, "");
    assert!(open(&log.disk.fork(1)).is_err());
    // Nor does it say what was in a segment that is lost.
    log.disk.remove(&stray).expect("a file");
    let index = copy(&other, &log, 1, SegmentFile::Index);
    log.disk.remove(&path(&log, 1, SegmentFile::Log)).expect("a file");
    check_left_alone(&log.disk, &index, "");
}

/// As it stood in a gap that had taken them over.
#[test]
fn topics_whose_events_are_gone_are_compared_as_well() {
    let (log, other) = (log(), other_log());
    let index = path(&log, 1, SegmentFile::Index);
    let sound = log.disk.bytes(&index).expect("sealed");
    let other = other.disk.bytes(&index).expect("sealed");
    for (bytes, is_its) in [(sound, true), (other, false)] {
        log.write(&index, &make_stub(&bytes, &StubLimits::default()).expect("an index"));
        let found = findings(&log.disk);
        let names = |found: &String| found.contains(&index.display().to_string());
        assert_eq!(found.iter().any(names), !is_its, "{found:?}");
        assert_eq!(open(&log.disk.fork(1)).is_ok(), is_its);
        if is_its {
            assert_eq!(planned(&log.disk), RepairPlan::default());
        } else {
            check_left_alone(&log.disk, &index, "");
        }
    }
}

/// A log of so many events, each of 500 bytes, with snapshots, that was closed.
pub(super) fn snapshotted(topic: &str, events: usize) -> SimDisk {
    let disk = SimDisk::new(6);
    let config = LogConfig { snapshot_segments: 1, ..tiny() };
    let opened = Log::open(disk.clone(), Path::new(DIR), config, log_now(0));
    let mut log = opened.expect("a new log").0;
    for number in 0..events {
        log.append(vec![event(topic, &format!("{number:->500}"))], log_now(1)).expect("staged");
        log.run_ops(log_now(2));
    }
    assert!(log.snapshot_totals().made > 0);
    drop(log);
    disk.kill()
}

fn put(disk: &SimDisk, path: &Path, bytes: &[u8]) {
    let file = disk.create(path, Access::Write).expect("a free name");
    file.write_all_at(bytes, Position::default()).expect("space");
    file.sync_data().expect("a disk that works");
    disk.sync_dir(Path::new(DIR)).expect("a disk that works");
}

#[test]
fn a_snapshot_of_a_longer_log_makes_no_gap() {
    for topic in ["a", "b"] {
        let (disk, other) = (snapshotted("a", 60), snapshotted(topic, 200));
        let newest = &snapshots(&other)[0];
        put(&disk, newest, &other.bytes(newest).expect("a file"));
        check_left_alone(&disk, newest, topic);
        assert!(Log::open(disk.fork(1), Path::new(DIR), tiny(), log_now(3)).is_err());
        disk.remove(newest).expect("a file");
        let plan = planned(&disk);
        assert_eq!((plan.steps, plan.beyond), (vec![], vec![]));
    }
}

/// The log was called another's, and nothing was repaired: the snapshot has counted that very file, which was longer then.
#[test]
fn a_last_file_that_is_shorter_than_its_snapshot_has_counted_it_is_repaired() {
    let disk = snapshotted("a", 60);
    let newest = snapshot::read::offsets(&disk.list(Path::new(DIR)).expect("listed"))[0];
    let segments = listing::segments(&disk.list(Path::new(DIR)).expect("listed"));
    let (below, behind) =
        segments.split_at(segments.partition_point(|listed| listed.name.base_offset < newest));
    for listed in behind {
        disk.remove(&Path::new(DIR).join(listed.name.log_file_name())).expect("a file");
    }
    disk.remove(&Path::new(DIR).join(end_mark::END_MARK_FILE_NAME)).expect("a file");
    let last = below.last().expect("it is of one at least").name;
    disk.remove(&Path::new(DIR).join(last.index_file_name())).expect("a file");
    let path = Path::new(DIR).join(last.log_file_name());
    let file = disk.open(&path, Access::Write).expect("a file");
    // Behind a frame.
    file.set_size(file.size().expect("a file") / 8192 * 4096).expect("shorter");
    file.sync_data().expect("a disk that works");
    let repaired = repaired(&disk);
    assert!(repaired.plan.beyond.is_empty() && repaired.left.is_empty(), "{repaired:?}");
    assert_eq!(findings(&disk), Vec::<String>::new());
    let log = Log::open(disk, Path::new(DIR), tiny(), log_now(3)).expect("it is repaired").0;
    let (events, gaps) = read(&log, &[]);
    let kept = events.len() as u64;
    assert!((last.base_offset.get() + 1..newest.get()).contains(&kept), "{kept} of {newest}");
    assert_eq!((events, merged(gaps)), ((0..kept).collect(), vec![(kept, newest.get())]));
}

/// What a restore has written anew has another incarnation, and the snapshot beside it has counted the file of before.
#[test]
fn a_restored_log_is_not_called_anothers_by_its_snapshots() {
    let (disk, to) = (snapshotted("a", 60), Path::new("/restored"));
    let first = SegmentName::first_generation(Offset::ZERO);
    // So it is not copied as it is.
    disk.remove(&Path::new(DIR).join(first.index_file_name())).expect("a file");
    disk.create_dir(to).expect("a free name");
    let restored = restore_log(&disk, Path::new(DIR), to, Until::End, now());
    restored.expect("its frames are all there");
    assert!(!snapshot::read::offsets(&disk.list(to).expect("listed")).is_empty());
    let second = listing::segments(&disk.list(to).expect("listed"))[1].name;
    disk.flip_bit(&to.join(second.log_file_name()), Position::new(4096 + 70), 1);
    let repaired = repair(&disk, to, now()).expect("a disk that works").expect("damage");
    assert!(repaired.plan.beyond.is_empty(), "{repaired:?}");
    verify(&disk, to, &mut |finding| panic!("{finding}")).expect("not in use");
}

/// The name was believed.
#[test]
fn a_snapshot_with_the_name_of_another_offset_makes_no_gap() {
    let disk = snapshotted("a", 60);
    let own = &snapshots(&disk)[0];
    let stray = Path::new(DIR).join(snapshot::file_name(Offset::new(9_999)));
    put(&disk, &stray, &disk.bytes(own).expect("a file"));
    assert!(Log::open(disk.fork(1), Path::new(DIR), tiny(), log_now(3)).is_err());
    let repaired = repaired(&disk);
    let [Step { action: Action::SetAside, damage, .. }] = &repaired.plan.steps[..] else {
        panic!("{repaired:?}");
    };
    assert_eq!((&damage.file, repaired.new_tag), (&stray, None));
    assert_eq!(findings(&disk), Vec::<String>::new());
    let log = Log::open(disk, Path::new(DIR), tiny(), log_now(3)).expect("it is repaired").0;
    assert_eq!(read(&log, &[]), ((0..60).collect(), vec![]));
}

/// A gap was made up to what it says, and with a limit by count no event was left at the next start.
#[test]
fn an_end_mark_that_cannot_be_the_logs_makes_no_gap() {
    for (active, is_its) in
        [(0, false), (32, false), (40, true), (45, false), (56, true), (57, false), (80, false)]
    {
        let log = log();
        let (active, synced) = (Offset::new(active), Offset::new(90));
        let mark = EndMark { active, synced };
        end_mark::write_anew(&log.disk, Path::new(DIR), &mark, &[]).expect("space");
        assert!(open(&log.disk.fork(1)).is_err());
        if is_its {
            check_repair(&log.disk, 90, &[(56, 90)]);
            continue;
        }
        let path = Path::new(DIR).join(end_mark::END_MARK_FILE_NAME);
        check_left_alone(&log.disk, &path, &format!("{active}"));
        log.disk.remove(&path).expect("a file");
        let before = state(&log.disk);
        assert_eq!(planned(&log.disk), RepairPlan::default());
        assert_eq!(state(&log.disk), before);
    }
}

/// Damage that other damage hid: the index was not named, and `verify` found it when all was said to be repaired.
#[test]
fn an_index_and_the_end_that_are_damaged_at_once_are_one_repair() {
    let log = log();
    let mark = EndMark { active: Offset::new(40), synced: Offset::new(56) };
    end_mark::write_anew(&log.disk, Path::new(DIR), &mark, &[]).expect("space");
    log.disk.flip_bit(&path(&log, 2, SegmentFile::Index), Position::new(600), 0);
    let last = log.disk.open(&path(&log, 3, SegmentFile::Log), Access::Write).expect("a file");
    last.set_size(0).expect("shorter");
    last.sync_data().expect("a disk that works");
    check_repair(&log.disk, 56, &[(40, 56)]);
}
