//! All that a repair does is in its first plan: damage that hides other damage is not looked at alone.

use super::*;
use crate::{
    end_mark::{self, END_MARK_FILE_NAME, EndMark},
    segment::FIRST_FRAME_POSITION,
};

/// Damages a file in one of the ways in which disks do.
fn damage(disk: &SimDisk, path: &Path, rng: &mut SimRng) {
    let Some(len) = disk.bytes(path).map(|bytes| bytes.len() as u64).filter(|len| *len > 0) else {
        return;
    };
    match rng.below(10) {
        0 => disk.remove(path).expect("a file"),
        1 => {
            let file = disk.open(path, Access::Write).expect("a file");
            file.set_size(rng.below(len)).expect("space");
        }
        2..=5 => {
            let at = rng.below(len);
            disk.make_unreadable(path, at..at + if rng.chance(70) { 512 } else { 16_384 });
        }
        _ => disk.flip_bit(path, Position::new(rng.below(len)), 3),
    }
}

#[test]
fn what_is_said_is_all_that_is_done() {
    let (mut mended, mut with_mark) = (0, 0);
    for seed in 0..400 {
        let rng = &mut SimRng::new(seed);
        let log = log();
        let has_mark = rng.chance(70);
        if has_mark {
            let synced = Offset::new(rng.between(40, 60));
            let mark = EndMark { active: Offset::new(40), synced };
            end_mark::write_anew(&log.disk, Path::new(DIR), &mark, &[]).expect("space");
        }
        for _ in 0..rng.between(1, 4) {
            // The last one most of all: where it ends nothing in it says.
            let segment = if rng.chance(40) { 3 } else { rng.index(4) };
            let kind = if rng.chance(60) { SegmentFile::Log } else { SegmentFile::Index };
            damage(&log.disk, &path(&log, segment, kind), rng);
        }
        if rng.chance(10) {
            damage(&log.disk, &Path::new(DIR).join(END_MARK_FILE_NAME), rng);
        }
        let plan = planned(&log.disk);
        if plan.steps.is_empty() || !plan.beyond.is_empty() {
            continue;
        }
        let done = repaired(&log.disk);
        assert_eq!(without_tags(&done.plan), without_tags(&plan), "seed {seed}");
        assert_eq!(done.left, [], "seed {seed}");
        let tag = done.new_tag.unwrap_or(Tag::parse("test1").expect("a tag"));
        assert_eq!(*open(&log.disk).expect("it was repaired").tag(), tag, "seed {seed}");
        mended += 1;
        with_mark += u64::from(has_mark);
    }
    assert!(mended > 200 && with_mark > 100, "{mended} and {with_mark}");
}

/// Says that all 56 events had been synced, the last 16 of them in the last segment.
fn say_all_was_synced(log: &TestLog) {
    let mark = EndMark { active: Offset::new(40), synced: Offset::new(56) };
    end_mark::write_anew(&log.disk, Path::new(DIR), &mark, &[]).expect("space");
}

/// The log, of whose last segment nothing but the header is left, though more had been synced.
fn with_last_emptied() -> TestLog {
    let log = log();
    say_all_was_synced(&log);
    let file = log.open(log.segments[3].0, SegmentFile::Log);
    file.set_size(FIRST_FRAME_POSITION.get()).expect("a file");
    file.sync_data().expect("a disk that works");
    log
}

/// Its index was made anew, of nothing, and what the gap took out then went over the copy of the damaged one.
#[test]
fn a_last_segment_that_holds_nothing_is_a_gap_alone() {
    let log = with_last_emptied();
    let index = path(&log, 3, SegmentFile::Index);
    let damaged = vec![7; 5000];
    log.write(&index, &damaged);
    let repaired = check_repair(&log.disk, 56, &[(40, 56)]);
    let [Step { action: Action::Fill { .. }, .. }] = &repaired.plan.steps[..] else {
        panic!("{repaired:?}");
    };
    let kept = repaired.asides[0].join(index.file_name().expect("a name"));
    assert_eq!(log.disk.bytes(&kept), Some(damaged));
}

/// A frame without events that had rotted was left out of it, and then the gap found its name taken: not all was done.
#[test]
fn a_last_segment_whose_frames_hold_nothing_is_a_gap_alone() {
    let mut log = log();
    log.disk.remove(&path(&log, 3, SegmentFile::Log)).expect("a file");
    log.segments.truncate(3);
    log.events.truncate(40);
    log.add_unsealed(&[vec![]]);
    say_all_was_synced(&log);
    flip(&log, 3, 0, 70);
    let repaired = check_repair(&log.disk, 56, &[(40, 56)]);
    let [Step { action: Action::Fill { .. }, .. }] = &repaired.plan.steps[..] else {
        panic!("{repaired:?}");
    };
}

/// A crash between the two renames of the gap had left its frames alone. The next gap then took the place of those, and the
/// segment was left beside it for another round.
#[test]
fn a_gap_takes_the_place_of_the_generation_that_counts() {
    let log = with_last_emptied();
    log.write(&path(&log, 3, SegmentFile::Index), &[7; 5000]);
    let next = log.segments[3].0.next_generation().expect("the second");
    let frames = log.disk.bytes(&path(&log, 3, SegmentFile::Log)).expect("a file");
    log.write(&log.path(next, SegmentFile::Log), &frames);
    let repaired = check_repair(&log.disk, 56, &[(40, 56)]);
    let actions: Vec<&Action> = repaired.plan.steps.iter().map(|step| &step.action).collect();
    assert!(matches!(actions[..], [Action::Discard, Action::Fill { .. }]), "{actions:?}");
    assert_eq!(repaired.asides.len(), 1);
}
