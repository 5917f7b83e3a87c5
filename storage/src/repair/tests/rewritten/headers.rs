//! The header of a `.log` is rotten, and its index is damaged as well, but not all of it.

use super::*;

/// In the header of a `.log`.
const IN_HEADER: Position = Position::new(40);

/// Nothing but the part that is damaged was to be forgotten; all of it was.
#[test]
fn what_is_sound_in_the_index_of_a_segment_without_a_header_is_kept() {
    for (snapshot_segments, kind) in [1, NEVER].into_iter().flat_map(|n| ALL.map(|kind| (n, kind)))
    {
        let context = format!("{kind:?}, {snapshot_segments}");
        let disk = compacted(snapshot_segments);
        let expected = read(&open_with(&disk.fork(1), NEVER).0, &[]);
        disk.flip_bit(&path_of("log"), IN_HEADER, 1);
        if !damage(&disk, kind) {
            continue;
        }
        let taken = match snapshot_segments {
            NEVER => taken_by(kind),
            _ => Forgotten::default(),
        };
        let repaired = repaired(&disk);
        let [Step { action: Action::Rewrite { lost, forgotten: told, .. }, .. }] =
            &repaired.plan.steps[..]
        else {
            panic!("{context}: {repaired:?}");
        };
        assert_eq!((lost.len(), *told), (0, taken), "{context}");
        check_sound(&disk, &context);
        snapshots(&disk).iter().for_each(|path| disk.remove(path).expect("a file"));
        let (mut log, _) = open_with(&disk, NEVER);
        assert_eq!(read(&log, &[]), expected, "{context}");
        assert_eq!(forgotten(&mut log), taken, "{context}");
    }
}

/// Nor are lost events forgotten of which a sound part tells.
#[test]
fn what_is_lost_of_a_segment_without_a_header_its_damaged_index_remembers() {
    for kind in [SectionKind::FRAMES, SectionKind::FILTER] {
        let disk = filled(NEVER);
        let expected = open_with(&disk.fork(1), NEVER).0;
        let name = SegmentName::first_generation(Offset::ZERO);
        let path = |file| Path::new(DIR).join(name.file_name(file));
        disk.flip_bit(&path(SegmentFile::Log), IN_HEADER, 1);
        disk.flip_bit(&path(SegmentFile::Log), Position::new(4096 + 70), 1);
        assert!(damage_index(&disk, &path(SegmentFile::Index), Damage::Section(kind)));
        let repaired = repaired(&disk);
        let [Step { action: Action::Rewrite { lost, forgotten: told, .. }, .. }] =
            &repaired.plan.steps[..]
        else {
            panic!("{kind}: {repaired:?}");
        };
        assert!(lost.len() == 1 && told.is_nothing(), "{kind}: {repaired:?}");
        check_sound(&disk, &format!("{kind}"));
        let mut log = open_with(&disk, NEVER).0;
        for topic in TOPICS {
            assert_eq!(log.last_of(topic), expected.last_of(topic), "{kind}: {topic}");
        }
        assert_eq!(forgotten(&mut log), Forgotten::default(), "{kind}");
    }
}

/// Of a last segment the index says where it ends, and under which tag: its damaged end was cut as if it was torn, in silence.
#[test]
fn where_a_last_segment_without_a_header_ends_its_damaged_index_says() {
    let mut log = TestLog::new(1);
    log.add_sealed(&[vec![("a", vec![7; 100]); 4]]);
    log.add_sealed(&[vec![("b", vec![7; 100]); 4], vec![("b", vec![8; 100]); 2]]);
    log.disk.flip_bit(&path(&log, 1, SegmentFile::Log), IN_HEADER, 1);
    flip(&log, 1, 1, 10);
    log.disk.flip_bit(&path(&log, 1, SegmentFile::Index), Position::new(600), 0);
    let repaired = check_repair(&log.disk, 10, &[(8, 10)]);
    assert_eq!(repaired.new_tag, None);
    assert_eq!(*open(&log.disk).expect("it was repaired").tag(), Tag::parse("test1").expect("one"));
}

/// Its name makes an index none of a segment: the frames say whose it is. One that was sound was believed, and all of them
/// were lost.
#[test]
fn an_index_of_another_file_says_nothing_of_a_segment_without_a_header() {
    for is_sound in [true, false] {
        let (log, other) = (log(), disguised());
        log.disk.flip_bit(&path(&log, 1, SegmentFile::Log), IN_HEADER, 1);
        log.write(&path(&log, 1, SegmentFile::Index), &other);
        if !is_sound {
            log.disk.flip_bit(&path(&log, 1, SegmentFile::Index), Position::new(600), 0);
        }
        check_repair(&log.disk, 56, &[]);
    }
}

/// The index of another file that has the name of the second of [`log`], and ends in the middle of that.
fn disguised() -> Vec<u8> {
    let mut other = TestLog::new(2);
    for _ in 0..2 {
        other.add_sealed(&[vec![("x", vec![7; 100]); 10]]);
    }
    other.add_sealed(&[vec![("x", vec![7; 100]); 6]]);
    other.disk.bytes(&path(&other, 2, SegmentFile::Index)).expect("it is sealed")
}
