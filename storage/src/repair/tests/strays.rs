//! Files that have a name of the log's and are not what that says: nothing that is sound is touched on their account.

use super::*;
use crate::end_mark::{self, EndMark};

/// All files of the log, with what is in them.
pub(super) fn state(disk: &SimDisk) -> Vec<(String, Vec<u8>)> {
    let mut names = disk.list(Path::new(DIR)).expect("a directory");
    names.retain(|name| disk.bytes(&Path::new(DIR).join(name)).is_some());
    names.sort_unstable();
    let bytes = |name: &String| disk.bytes(&Path::new(DIR).join(name)).expect("a file");
    names.iter().map(|name| (name.clone(), bytes(name))).collect()
}

/// That the file is named, and nothing changed at all.
pub(super) fn check_left_alone(disk: &SimDisk, file: &Path, context: &str) {
    let before = state(disk);
    let planned = planned(disk);
    assert!(planned.beyond.iter().any(|damage| damage.file == file), "{context}: {planned:?}");
    let done = repair(disk, Path::new(DIR), now()).expect("not in use");
    let done = done.expect_err("nothing is done");
    assert_eq!(without_tags(&done), without_tags(&planned), "{context}");
    assert_eq!(state(disk), before, "{context}");
}

/// [`log`], all segments of which were rewritten once.
fn rewritten_log() -> TestLog {
    let mut log = log();
    for segment in 0..log.segments.len() {
        let name = log.segments[segment].0;
        let next = name.next_generation().expect("the second");
        for file in [SegmentFile::Log, SegmentFile::Index] {
            if let Some(bytes) = log.disk.bytes(&log.path(name, file)) {
                log.write(&log.path(next, file), &bytes);
                log.disk.remove(&log.path(name, file)).expect("a file");
            }
        }
        log.segments[segment].0 = next;
    }
    log
}

/// The log was said to end where the index did, in its middle, and gaps were made from there on: over a sound segment that
/// had the name of one of them, and of which no copy was kept. It never opened again.
#[test]
fn an_index_with_the_name_of_another_segment_costs_no_sound_one() {
    for (of, at) in [(0, 999), (1, 999), (2, 999), (0, 25), (2, 25), (0, 56), (2, 56)] {
        let log = rewritten_log();
        let stray = log.path(SegmentName::first_generation(Offset::new(at)), SegmentFile::Index);
        log.write(&stray, &log.disk.bytes(&path(&log, of, SegmentFile::Index)).expect("sealed"));
        let context = format!("of segment {of} at {at}");
        check_left_alone(&log.disk, &stray, &context);
        log.disk.remove(&stray).expect("a file");
        assert_eq!(planned(&log.disk), RepairPlan::default(), "{context}");
    }
}

/// Without the file whose name it has, an index of another segment says nothing of what is lost.
#[test]
fn an_index_of_another_segment_says_nothing_of_a_lost_one() {
    for (segment, lost) in [(0, (0, 20)), (1, (20, 32)), (2, (32, 40))] {
        for other in (0..3).filter(|other| *other != segment) {
            let log = rewritten_log();
            let bytes = log.disk.bytes(&path(&log, other, SegmentFile::Index)).expect("sealed");
            log.write(&path(&log, segment, SegmentFile::Index), &bytes);
            log.disk.remove(&path(&log, segment, SegmentFile::Log)).expect("a file");
            let found = findings(&log.disk);
            let said = format!("it says that it begins at {}", log.segments[other].1[0].base);
            assert!(found.iter().any(|found| found.contains(&said)), "{found:?}");
            let repaired = check_repair(&log.disk, 56, &[lost]);
            let index = log.segments[segment].0.index_file_name();
            assert_eq!(log.disk.bytes(&repaired.asides[0].join(index)), Some(bytes));
        }
    }
}

/// The gap for what is missing at the end had the name of the file without events that was there, which was gone then.
#[test]
fn a_gap_at_the_end_is_written_over_no_file() {
    for generation in 1..4 {
        let mut log = log();
        let (first, _, _) = log.add_log(&[]);
        let name = SegmentName { generation, ..first };
        let before = log.disk.bytes(&log.path(first, SegmentFile::Log)).expect("a file");
        log.disk.remove(&log.path(first, SegmentFile::Log)).expect("a file");
        log.write(&log.path(name, SegmentFile::Log), &before);
        let mark = EndMark { active: Offset::new(56), synced: Offset::new(60) };
        end_mark::write_anew(&log.disk, Path::new(DIR), &mark, &[]).expect("space");
        let repaired = check_repair(&log.disk, 60, &[(56, 60)]);
        assert!(repaired.new_tag.is_some());
        let kept = repaired.asides[0].join(name.log_file_name());
        assert_eq!(log.disk.bytes(&kept), Some(before), "{generation}");
    }
}
