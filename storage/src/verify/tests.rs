use super::*;
use crate::{
    io::{
        Access, DiskFile,
        sim::{SimDisk, rng::SimRng},
    },
    segment::SegmentFile,
    testing::TestLog,
};

/// What `verify` finds, one line each, without the directory.
fn findings(log: &TestLog) -> Vec<String> {
    let mut lines = Vec::new();
    verify(&log.disk, &log.dir, &mut |finding| lines.push(finding.to_string()))
        .expect("a directory that is not in use");
    lines.iter().map(|line| line.replace("/log/", "")).collect()
}

fn is_sound(log: &TestLog) -> bool {
    findings(log).is_empty()
}

fn frames(count: usize) -> Vec<Vec<(&'static str, Vec<u8>)>> {
    let topics = ["a", "rooms/1/messages", "rooms/2/messages", "a"];
    (0..count)
        .map(|frame| {
            topics.iter().map(|topic| (*topic, vec![7; frame * 900 % 5000])).collect::<Vec<_>>()
        })
        .collect()
}

fn sound_log() -> TestLog {
    let mut log = TestLog::new(1);
    log.add_sealed(&frames(5));
    log.add_sealed(&frames(3));
    log.add_unsealed(&frames(4));
    log
}

#[test]
fn a_sound_log_has_no_findings_and_is_counted() {
    let log = sound_log();
    let verified =
        verify(&log.disk, &log.dir, &mut |finding| panic!("{finding}")).expect("not in use");
    let expected = Verified {
        segments: 3,
        frames: 12,
        events: 48,
        topics: 3,
        bytes: verified.bytes,
        end: Offset::new(48),
        findings: 0,
        notes: Vec::new(),
    };
    assert_eq!(verified, expected);
}

/// On several threads the same is found, in the same order, and the progress ends at the whole.
#[test]
fn many_threads_find_the_same() {
    let mut log = TestLog::new(1);
    for segment in 0..9 {
        log.add_sealed(&frames(segment % 4 + 1));
    }
    log.add_unsealed(&frames(4));
    for segment in [0, 3, 4, 8] {
        let (name, places) = &log.segments[segment];
        let path = log.path(*name, SegmentFile::Log);
        log.disk.flip_bit(&path, Position::new(places[0].position + 100), 0);
    }
    let (name, _) = log.segments[6];
    log.disk.remove(&log.path(name, SegmentFile::Index)).expect("a file");
    let alone = findings(&log);
    assert_eq!(alone.len(), 4);
    for threads in [2, 3, 16] {
        let (mut lines, progress) = (Vec::new(), Progress::default());
        let verified = verify_with(&log.disk, &log.dir, threads, &progress, &mut |finding| {
            lines.push(finding.to_string().replace("/log/", ""));
        });
        let verified = verified.expect("not in use");
        assert_eq!(lines, alone, "{threads} threads");
        assert!(progress.bytes() > 0);
        assert_eq!((progress.bytes(), progress.bytes_total()), (verified.bytes, verified.bytes));
    }
}

/// What only shows over all segments: topics and times.
#[test]
fn segments_that_contradict_each_other_are_found() {
    let mut log = TestLog::new(1);
    log.add_sealed(&frames(2));
    log.forget_topics_and_time();
    let name = log.add_sealed(&[vec![("b", vec![1])]]);
    let file = name.log_file_name();
    assert_eq!(
        findings(&log),
        [
            format!("{file} at position 4096: topic 0 is `b` here, and another elsewhere"),
            format!("{file} at position 4096: the time of event 8 is before the one before"),
        ]
    );
}

#[test]
fn an_empty_directory_is_sound() {
    assert!(is_sound(&TestLog::new(1)));
}

#[test]
fn it_changes_nothing_and_shares_the_directory_only_with_readers() {
    let log = sound_log();
    let list = || {
        let mut names = log.disk.list(&log.dir).expect("a directory");
        names.sort_unstable();
        names
    };
    let before = list();
    let shared = log.disk.lock_dir(&log.dir, LockMode::Shared).expect("nobody has it");
    assert!(is_sound(&log));
    drop(shared);
    assert_eq!(list(), before);
    let _exclusive = log.disk.lock_dir(&log.dir, LockMode::Exclusive).expect("nobody has it");
    let refused = verify(&log.disk, &log.dir, &mut |_| ());
    assert!(matches!(refused, Err(OpenError::Locked { .. })), "{refused:?}");
}

/// Every byte of the index, of the headers, and samples of all others: no bit goes unnoticed.
#[test]
fn every_flipped_bit_is_found() {
    let log = sound_log();
    let mut rng = SimRng::new(2);
    for (name, places) in &log.segments[..2] {
        for file in [SegmentFile::Log, SegmentFile::Index] {
            let path = log.path(*name, file);
            let size = log.disk.bytes(&path).expect("a file").len() as u64;
            let is_header = |at: u64| {
                at < 80
                    || places
                        .iter()
                        .any(|frame| (frame.position..frame.position + 64).contains(&at))
            };
            for at in 0..size {
                if file == SegmentFile::Log && !is_header(at) && at % 211 != 0 {
                    continue;
                }
                if file == SegmentFile::Index && at > 600 && at % 29 != 0 {
                    continue;
                }
                let bit = u32::try_from(rng.below(8)).expect("a bit");
                log.disk.flip_bit(&path, Position::new(at), bit);
                assert!(!is_sound(&log), "bit {bit} of byte {at} of {}", path.display());
                log.disk.flip_bit(&path, Position::new(at), bit);
            }
        }
    }
    assert!(is_sound(&log));
}

#[test]
fn damage_is_named_with_file_position_and_what_is_lost() {
    let log = sound_log();
    let (name, places) = &log.segments[0];
    let path = log.path(*name, SegmentFile::Log);
    log.disk.flip_bit(&path, Position::new(places[1].position + 100), 0);
    log.disk.flip_bit(&path, Position::new(places[3].position + 10), 0);
    assert_eq!(
        findings(&log),
        [
            "00000000000000000000.1.log at position 8192: checksum of the frame body does not match; \
             events from 4 to 8 cannot be read",
            "00000000000000000000.1.log at position 20480: checksum of the frame header does not \
             match; events from 12 to 16 cannot be read",
        ]
    );
}

/// Behind the last frame of a segment none follows that says what is lost; the segment behind it is whole.
#[test]
fn what_is_lost_at_the_end_of_a_segment_is_named_there() {
    let log = sound_log();
    let (name, places) = &log.segments[0];
    let path = log.path(*name, SegmentFile::Log);
    log.disk.flip_bit(&path, Position::new(places[4].position + 10), 0);
    let expected = format!(
        "00000000000000000000.1.log at position {}: checksum of the frame header does not match; events from 16 \
         to 20 cannot be read",
        places[4].position
    );
    assert_eq!(findings(&log), [expected]);
}

#[test]
fn missing_files_are_found() {
    for (missing, expected) in [
        (0, "events from 0 to 20 are missing before this segment"),
        (1, "events from 20 to 32 are missing before this segment"),
    ] {
        let log = sound_log();
        for file in [SegmentFile::Log, SegmentFile::Index] {
            log.disk.remove(&log.path(log.segments[missing].0, file)).expect("a file");
        }
        let found = findings(&log);
        assert!(found.iter().any(|line| line.contains(expected)), "{found:?}");
    }
    let log = sound_log();
    log.disk.remove(&log.path(log.segments[1].0, SegmentFile::Log)).expect("a file");
    assert_eq!(
        findings(&log),
        ["00000000000000000020.1.idx at position 0: its 00000000000000000020.1.log is missing"]
    );
}

#[test]
fn an_index_that_is_not_written_yet_is_no_finding() {
    let log = sound_log();
    log.disk.remove(&log.path(log.segments[1].0, SegmentFile::Index)).expect("a file");
    assert!(is_sound(&log));
}

#[test]
fn swapped_and_foreign_files_are_found() {
    let swap = |log: &TestLog, file| {
        let [left, right] = [0, 1].map(|index: usize| log.path(log.segments[index].0, file));
        let [left_bytes, right_bytes] =
            [&left, &right].map(|path| log.disk.bytes(path).expect("a file"));
        log.write(&left, &right_bytes);
        log.write(&right, &left_bytes);
    };
    for file in [SegmentFile::Log, SegmentFile::Index] {
        let log = sound_log();
        swap(&log, file);
        assert!(findings(&log).len() >= 2, "{:?}", findings(&log));
    }
    let log = sound_log();
    swap(&log, SegmentFile::Log);
    swap(&log, SegmentFile::Index);
    assert!(!is_sound(&log));

    // The index of another log whose segment begins at the same offset.
    let log = sound_log();
    let mut other = TestLog::new(9);
    other.add_sealed(&[]);
    other.add_sealed(&frames(5));
    let bytes = other.disk.bytes(&other.path(other.segments[1].0, SegmentFile::Index));
    log.write_index(log.segments[0].0, &bytes.expect("a file"));
    let found = findings(&log);
    assert!(found.len() == 1 && found[0].contains("is the index of another file"), "{found:?}");
}

#[test]
fn an_index_that_says_something_else_is_found() {
    let mut log = TestLog::new(1);
    log.add_sealed(&frames(5));
    // A sound index of the same incarnation, but of a log of other topics.
    let mut other = TestLog::new(2);
    let mut changed = frames(5);
    changed[2][1].0 = "rooms/3/messages";
    other.add_sealed(&changed);
    let bytes = other.disk.bytes(&other.path(other.segments[0].0, SegmentFile::Index));
    log.write_index(log.segments[0].0, &bytes.expect("a file"));
    assert!(!is_sound(&log));
}

#[test]
fn a_torn_tail_is_a_note_and_damage_below_what_was_synced_a_finding() {
    let log = sound_log();
    let (name, places) = &log.segments[2];
    let path = log.path(*name, SegmentFile::Log);
    let last = places.last().expect("frames");
    log.disk.flip_bit(&path, Position::new(last.position + 70), 0);
    let verified = verify(&log.disk, &log.dir, &mut |finding| panic!("{finding}"));
    let verified = verified.expect("not in use");
    assert_eq!((verified.findings, verified.end), (0, Offset::new(44)));
    assert!(verified.notes[0].contains("torn write"), "{:?}", verified.notes);

    // The last frame says that those before it had been synced.
    let log = sound_log();
    log.disk.flip_bit(&path, Position::new(places[1].position + 70), 0);
    let found = findings(&log);
    assert!(found.len() == 1 && found[0].contains("this had been synced"), "{found:?}");
}

#[test]
fn other_files_are_named() {
    let log = sound_log();
    for (file_name, is_finding) in [
        ("next.log.tmp", false),
        ("00000000000000000032.1.log.cut-1", false),
        ("README", false),
        ("backup.log", true),
    ] {
        let path = log.dir.join(file_name);
        log.write(&path, b"x");
        let mut found = 0;
        let verified = verify(&log.disk, &log.dir, &mut |_| found += 1).expect("not in use");
        assert_eq!(
            (found == 1, verified.notes.len() == 1),
            (is_finding, !is_finding),
            "{file_name}"
        );
        log.disk.remove(&path).expect("a file");
    }
}

/// Whatever stands in the files, `verify` says something or nothing, and does not panic.
#[test]
fn garbage_does_not_panic() {
    for seed in 0..150 {
        let rng = &mut SimRng::new(seed);
        let log = sound_log();
        let (name, _) = *rng.pick(&log.segments);
        let file = if rng.chance(50) { SegmentFile::Log } else { SegmentFile::Index };
        let Ok(file) = log.disk.open(&log.path(name, file), Access::Write) else { continue };
        let size = file.size().expect("a file");
        for _ in 0..rng.between(1, 5) {
            let garbage = {
                let len = rng.index(200);
                rng.bytes(len)
            };
            file.write_at(&garbage, Position::new(rng.below(size))).expect("space");
        }
        if rng.chance(30) {
            file.set_size(rng.below(size)).expect("space");
        }
        findings(&log);
    }
}

#[test]
fn a_file_that_cannot_be_read_is_a_finding() {
    let log = sound_log();
    let disk: &SimDisk = &log.disk;
    disk.make_unreadable(&log.path(log.segments[0].0, SegmentFile::Log), 8192..8200);
    let found = findings(&log);
    assert!(found.len() == 1 && found[0].contains("cannot be read"), "{found:?}");
}
