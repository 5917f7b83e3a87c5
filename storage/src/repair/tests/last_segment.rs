//! Damage at the end of the last segment, behind which nothing says how much there was.

use super::*;

/// Damage in the last segment below what had been synced: only what is damaged is lost, and since no
/// offset will be given out twice the log keeps its tag.
#[test]
fn nothing_behind_the_damage_of_a_last_segment_is_lost() {
    for seed in 0..20 {
        let rng = &mut SimRng::new(seed);
        let (tag, disk) = killed_log(seed, 10);
        let mut names = disk.list(Path::new(DIR)).expect("the directory");
        names.retain(|name| name.ends_with(".log"));
        let path = Path::new(DIR).join(names.iter().max().expect("a segment"));
        let frame = rng.between(0, 8);
        disk.flip_bit(&path, Position::new((frame + 1) * 4096 + rng.below(64)), 2);
        assert!(matches!(open(&disk), Err(OpenError::Corrupt(_))), "seed {seed}");
        let before = disk.bytes(&path).expect("a file");
        let repaired = check_repair(&disk, 10, &[(frame, frame + 1)]);
        assert_eq!(repaired.new_tag, None);
        let kept = repaired.asides[0].join(path.file_name().expect("a name"));
        assert_eq!(disk.bytes(&kept), Some(before), "seed {seed}");
        assert_eq!(*open(&disk).expect("it was repaired").tag(), tag);
    }
}

/// What a log has written when it was idle or closed costs nothing; that no frame follows it made it nobody's business.
#[test]
fn a_last_frame_without_events_is_left_out() {
    let mut log = TestLog::new(1);
    log.add_sealed(&[vec![("a", vec![7; 100])], vec![]]);
    log.add_unsealed(&[vec![("a", vec![7; 100])]]);
    flip(&log, 0, 1, 10);
    let plan = check_repair(&log.disk, 2, &[]).plan;
    assert_eq!(rewritten_whole(&plan), 1);
}

/// Without its index nobody looks behind the events of a segment; but reads of what is before failed with it, so that a start
/// refused the log, and a repair had nothing to do.
#[test]
fn what_cannot_be_read_behind_all_events_is_left_out() {
    let mut log = TestLog::new(1);
    log.add_sealed(&[vec![("a", vec![7; 100])], vec![]]);
    log.add_unsealed(&[vec![("a", vec![7; 100])]]);
    let empty = log.segments[0].1[1].position;
    log.disk.make_unreadable(&path(&log, 0, SegmentFile::Log), empty..empty + 512);
    log.disk.flip_bit(&path(&log, 0, SegmentFile::Index), Position::new(100), 1);
    let plan = check_repair(&log.disk, 2, &[]).plan;
    assert_eq!(rewritten_whole(&plan), 1);
}

/// Nothing yet says that the last events were synced, and they were acknowledged: where the disk does not give them back a repair
/// left them out in silence, with all behind, and their offsets were given out a second time under the same tag.
#[test]
fn what_cannot_be_read_of_a_last_segment_is_not_left_out() {
    for (unreadable, before) in [(512, false), (u64::MAX / 2, false), (512, true)] {
        let (_, disk) = killed_log(1, 10);
        let mut names = disk.list(Path::new(DIR)).expect("the directory");
        names.retain(|name| name.ends_with(".log"));
        let path = Path::new(DIR).join(names.iter().max().expect("a segment"));
        let last = 10 * 4096;
        disk.make_unreadable(&path, last..last + unreadable);
        if before {
            // What can be named as lost says nothing of the end.
            disk.make_unreadable(&path, last - 2 * 4096..last - 2 * 4096 + 512);
        }
        assert!(matches!(open(&disk.fork(1)), Err(OpenError::Io { .. })));
        let plan = planned(&disk);
        assert!(plan.steps.is_empty() && !plan.beyond.is_empty(), "{plan:?}");
    }
}
