//! A repair looks again at what it has done: what shows then is mended too, and what was done is told however it ends.

use super::*;
use crate::{data_dir::ASIDE_PREFIX, io::sim::Fault, rewrite};

fn begun(disk: &SimDisk) -> Repair<'_, SimDisk> {
    Repair::begin(disk, Path::new(DIR)).expect("not in use")
}

/// What the round of that number takes out, if all are begun at the same time.
pub(super) fn aside(round: u64) -> PathBuf {
    Path::new(DIR).join(format!("{ASIDE_PREFIX}{}", now().wall_ms + round))
}

/// The last segment is lost, and with it where the log ends.
fn lose_end(log: &TestLog, disk: &SimDisk) {
    let (name, frames) = &log.segments[3];
    let file = log.path(*name, SegmentFile::Log);
    disk.flip_bit(&file, Position::new(30), 1);
    for frame in frames {
        disk.flip_bit(&file, Position::new(frame.position + 70), 1);
    }
}

/// Bit rot comes at any time: also while the rest is mended.
#[test]
fn what_shows_behind_a_round_is_mended_in_the_next() {
    for is_end_first in [false, true] {
        let log = log();
        let lose_frame = || flip(&log, 0, 1, 70);
        if is_end_first {
            lose_end(&log, &log.disk)
        } else {
            lose_frame()
        }
        let mut repair = begun(&log.disk);
        if is_end_first {
            lose_frame()
        } else {
            lose_end(&log, &log.disk)
        }
        assert_eq!((repair.steps().len(), repair.done()), (1, None), "only what was there then");
        repair.mend(now()).expect("a disk that works");
        let is_abandoned = repair.steps().iter().map(|step| step.action == Action::Abandon);
        assert_eq!(is_abandoned.collect::<Vec<_>>(), [!is_end_first]);
        repair.mend(now()).expect("a disk that works");
        assert_eq!(repair.steps(), []);
        let repaired = repair.end().expect("there was damage");
        assert_eq!((repaired.plan.steps.len(), &repaired.left[..]), (2, &[][..]));
        assert_eq!(repaired.asides, [aside(0), aside(1)]);
        for (segment, round) in [(0, u64::from(is_end_first)), (3, u64::from(!is_end_first))] {
            let names = log.disk.list(&aside(round)).expect("it is kept");
            assert!(names.contains(&log.segments[segment].0.log_file_name()), "{names:?}");
        }
        let opened = open(&log.disk).expect("it was repaired");
        assert_eq!(repaired.new_tag, Some(*opened.tag()), "the end first: {is_end_first}");
        assert_eq!(read(&opened, &[]).1, [(4, 8)]);
    }
}

/// Where it goes on and on somebody has to look at the disk.
#[test]
fn what_is_left_after_the_last_round_is_named() {
    let log = log();
    flip(&log, 0, 1, 70);
    let mut repair = begun(&log.disk);
    for segment in 1..ROUNDS_MAX {
        flip(&log, segment, 1, 70);
        repair.mend(now()).expect("a disk that works");
        assert_eq!(repair.steps().len(), 1, "that of segment {segment}");
    }
    let newer = log.segments[0].0.next_generation().expect("the second");
    let index = log.path(newer, SegmentFile::Index);
    log.disk.flip_bit(&index, Position::new(600), 0);
    repair.mend(now()).expect("a disk that works");
    assert_eq!(repair.steps(), [], "there were enough");
    let repaired = repair.end().expect("there was damage");
    assert_eq!(repaired.plan.steps.len(), ROUNDS_MAX);
    assert_eq!(repaired.asides, (0..ROUNDS_MAX as u64).map(aside).collect::<Vec<_>>());
    let left: Vec<&Path> = repaired.left.iter().map(|damage| damage.file.as_path()).collect();
    assert_eq!(left, [index.as_path()]);
}

/// It was forgotten, with the directory and the tag.
#[test]
fn what_was_done_is_told_where_a_later_round_fails() {
    let log = log();
    lose_end(&log, &log.disk);
    let mut repair = begun(&log.disk);
    flip(&log, 0, 1, 70);
    repair.mend(now()).expect("a disk that works");
    let first = repair.done().expect("a round").clone();
    assert_eq!((&first.asides[..], first.new_tag.is_some()), (&[aside(0)][..], true));
    log.disk.limit_space(Some(log.disk.space_bytes()));
    assert!(matches!(repair.mend(now()), Err(OpenError::Io { .. })));
    assert_eq!(repair.done(), Some(&first));
    log.disk.list(&aside(1)).expect_err("it is empty");
}

/// Wherever a round fails, and where the look behind it does: each directory that it leaves is told, and holds something, and
/// the tag is told that the log has.
#[test]
fn what_was_done_is_told_wherever_a_round_fails() {
    let log = log();
    flip(&log, 0, 1, 70);
    log.disk.flip_bit(&path(&log, 1, SegmentFile::Index), Position::new(600), 0);
    log.disk.remove(&path(&log, 2, SegmentFile::Log)).expect("a file");
    lose_end(&log, &log.disk);
    let old_tag = Tag::parse("test1").expect("a tag");
    let faults = [
        Fault::ListFails,
        Fault::OpenFails,
        Fault::ReadFails,
        Fault::CreateFails,
        Fault::LinkFails,
        Fault::WriteFails,
        Fault::WriteFindsNoSpace,
        Fault::SyncFails,
        Fault::SyncDirFails,
        Fault::RenameFails,
        Fault::RenameFindsNoSpace,
    ];
    let (mut with_aside, mut with_tag) = (0, 0);
    for fault in faults {
        for after in 0.. {
            let disk = log.disk.fork(after);
            let mut repair = begun(&disk);
            disk.arm(fault, after);
            let outcome = repair.mend(now());
            if disk.disarm() > 0 {
                outcome.expect("no operation has failed");
                assert!(after > 0, "{fault:?} has struck");
                break;
            }
            let told = repair.done().map_or(&[][..], |done| &done.asides[..]);
            let kept = disk.list(&aside(0)).ok();
            let left: Vec<PathBuf> = kept.iter().map(|_| aside(0)).collect();
            assert_eq!(left, told, "{fault:?} after {after}");
            assert!(kept.is_none_or(|names| !names.is_empty()), "{fault:?} after {after}");
            with_aside += left.len();
            let last = disk.open(&path(&log, 3, SegmentFile::Log), Access::Read).expect("a file");
            let header = rewrite::read_header(&last).expect("a disk that works").ok();
            let tag = header.map(|header| header.tag).filter(|tag| *tag != old_tag);
            let told = repair.done().and_then(|done| done.new_tag);
            // Whether a directory that was not synced has the name nobody knows.
            if fault != Fault::SyncDirFails || told.is_some() {
                assert_eq!(told, tag, "{fault:?} after {after}");
            }
            with_tag += u64::from(told.is_some());
        }
    }
    assert!(with_aside > 20 && with_tag > 5, "{with_aside} and {with_tag}");
}

/// It was removed, and a rename of which an error is told may have been done.
#[test]
fn the_copy_of_an_index_stays_where_nobody_knows_whether_another_has_its_name() {
    for (fault, is_kept) in [
        (Fault::WriteFails, false),
        (Fault::SyncFails, false),
        (Fault::RenameFails, true),
        (Fault::RenameFindsNoSpace, false),
    ] {
        let log = log();
        let index = path(&log, 1, SegmentFile::Index);
        log.disk.flip_bit(&index, Position::new(600), 0);
        let damaged = log.disk.bytes(&index).expect("a file");
        let mut repair = begun(&log.disk);
        // The copy is written, and synced, before the index is.
        let after = u64::from(matches!(fault, Fault::WriteFails | Fault::SyncFails));
        log.disk.arm(fault, after);
        repair.mend(now()).expect_err("it is told");
        assert_eq!(log.disk.disarm(), 0, "{fault:?} has struck");
        let copy = aside(0).join(index.file_name().expect("a name"));
        assert_eq!(log.disk.bytes(&copy), is_kept.then_some(damaged), "{fault:?}");
    }
}

/// Nothing was told: a start removed the damaged file, and nobody had kept it, where no file has a second name.
#[test]
fn a_file_that_is_replaced_and_not_taken_out_is_told() {
    for is_missing in [false, true] {
        let log = log();
        let (file, index) = (path(&log, 1, SegmentFile::Log), path(&log, 1, SegmentFile::Index));
        if is_missing {
            log.disk.remove(&file).expect("a file");
        } else {
            flip(&log, 1, 1, 70);
        }
        let left = if is_missing { &index } else { &file };
        let all = if is_missing { vec![index.clone()] } else { vec![file.clone(), index.clone()] };
        let before = log.disk.bytes(left).expect("a file");
        // Both files of the newer one are named, and that is synced, before it.
        for (fault, after) in
            [(Fault::RenameFails, 2), (Fault::RenameFindsNoSpace, 2), (Fault::SyncDirFails, 1)]
        {
            let disk = log.disk.fork(1);
            disk.keep_apart(&aside(0));
            let mut repair = begun(&disk);
            disk.arm(fault, after);
            repair.mend(now()).expect_err("it is told");
            assert_eq!(disk.disarm(), 0, "it has struck");
            let done = repair.done().expect("the newer one").clone();
            assert_eq!(done.in_place, all, "{fault:?}");
            assert_eq!(disk.bytes(left), Some(before.clone()), "{fault:?}");
            drop(repair);
            let opened = disk.fork(2);
            open(&opened).expect("by the newer one");
            assert_eq!(opened.bytes(left), None, "a start removes it: {fault:?}");
            let again = repaired(&disk);
            assert_eq!(again.in_place, Vec::<PathBuf>::new(), "{fault:?}");
            let kept = again.asides[0].join(left.file_name().expect("a name"));
            assert_eq!(disk.bytes(&kept), Some(before.clone()), "a repair keeps it: {fault:?}");
        }
    }
}

/// It was said that not all is done.
#[test]
fn a_round_that_was_done_is_told_from_one_that_was_not() {
    let log = log();
    flip(&log, 0, 1, 70);
    let (mut failed, mut unseen) = (0, 0);
    for after in 0.. {
        let disk = log.disk.fork(after);
        let mut repair = begun(&disk);
        disk.arm(Fault::ListFails, after);
        let outcome = repair.mend(now());
        if disk.disarm() > 0 {
            outcome.expect("no operation has failed");
            assert!(!repair.is_unseen());
            break;
        }
        outcome.expect_err("it is told");
        let is_unseen = repair.is_unseen();
        drop(repair);
        assert_eq!(is_unseen, planned(&disk).steps.is_empty(), "after {after}");
        failed += 1;
        unseen += u64::from(is_unseen);
    }
    assert!(unseen > 0 && failed > unseen, "{unseen} of {failed}");
}
