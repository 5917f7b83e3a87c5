//! Two generations of a segment, as a rewrite leaves them that was cut short.

use super::*;
use crate::index::{
    IndexHeader, SectionKind,
    stub::{StubLimits, make_stub},
};

/// The log with a second generation of its second segment beside the first, and the names of both.
pub(super) fn with_two() -> (TestLog, SegmentName, SegmentName) {
    let log = log();
    let name = log.segments[1].0;
    let next = name.next_generation().expect("the second");
    for file in [SegmentFile::Log, SegmentFile::Index] {
        log.write(&log.path(next, file), &log.disk.bytes(&log.path(name, file)).expect("a file"));
    }
    (log, name, next)
}

/// It was taken out with the word that nothing is lost, and events were lost that it had.
#[test]
fn an_older_generation_that_may_hold_what_is_lost_is_kept_and_named() {
    for is_damaged in [true, false] {
        let (log, name, next) = with_two();
        if is_damaged {
            let frame = Position::new(log.segments[1].1[1].position + 70);
            log.disk.flip_bit(&log.path(next, SegmentFile::Log), frame, 1);
        }
        let before = log.disk.bytes(&log.path(name, SegmentFile::Log)).expect("a file");
        let lost: &[(u64, u64)] = if is_damaged { &[(24, 28)] } else { &[] };
        let repaired = check_repair(&log.disk, 56, lost);
        let step = repaired.plan.steps.iter().find(|step| step.action == Action::Discard);
        let told = step.expect("the older").damage.to_string();
        assert_eq!(told.contains("may hold them still"), is_damaged, "{told}");
        let kept = repaired.asides[0].join(name.log_file_name());
        assert_eq!(log.disk.bytes(&kept), Some(before));
    }
}

/// A start opens the log by the older one then, and `verify` said that it removes that.
#[test]
fn a_generation_whose_log_file_is_gone_does_not_count() {
    let (log, name, next) = with_two();
    log.disk.remove(&log.path(next, SegmentFile::Log)).expect("a file");
    let found = verify(&log.disk, Path::new(DIR), &mut |finding| panic!("{finding}"));
    let notes = found.expect("not in use").notes;
    let [note] = &notes[..] else { panic!("{notes:?}") };
    assert!(note.contains(&next.index_file_name()), "{note}");
    let opened = open(&log.disk.fork(1)).expect("by the older one");
    assert_eq!(read(&opened, &[]), ((0..56).collect(), vec![]));
    let repaired = check_repair(&log.disk, 56, &[]);
    assert_eq!(repaired.plan.steps.len(), 1);
    assert!(log.disk.bytes(&log.path(name, SegmentFile::Log)).is_some());
}

/// The log file of the older one goes first. Where its index was still there, and that of the newer one was damaged, a start
/// refused the log, and a repair took the older one for the segment: a gap came in the place of events that were all there.
#[test]
fn an_older_index_alone_stands_for_nothing() {
    let (log, name, next) = with_two();
    log.disk.remove(&log.path(name, SegmentFile::Log)).expect("a file");
    log.disk.flip_bit(&log.path(next, SegmentFile::Index), Position::new(100), 1);
    let opened = open(&log.disk.fork(1)).expect("its frames say all");
    assert_eq!(read(&opened, &[]), ((0..56).collect(), vec![]));
    check_repair(&log.disk, 56, &[]);
}

/// The log with the older index alone beside the newer generation, whose index is damaged; and the path of the older. A
/// rewrite of that may have left a log file without an index.
fn with_older_index(is_third_there: bool) -> (TestLog, PathBuf) {
    let (log, name, next) = with_two();
    if is_third_there {
        let third = log.path(next.next_generation().expect("the third"), SegmentFile::Log);
        log.write(&third, &log.disk.bytes(&log.path(next, SegmentFile::Log)).expect("a file"));
    }
    log.disk.remove(&log.path(name, SegmentFile::Log)).expect("a file");
    log.disk.flip_bit(&log.path(next, SegmentFile::Index), Position::new(100), 1);
    let older = log.path(name, SegmentFile::Index);
    (log, older)
}

/// It lay there for as long as the server ran, and stood for the segment once the newer one was a stub that was damaged.
#[test]
fn an_older_index_alone_goes_when_the_newer_one_is_made_anew() {
    let (log, older) = with_older_index(false);
    open(&log.disk).expect("the frames of the newer one say all");
    assert_eq!(log.disk.bytes(&older), None);
}

/// A read of it that fails kept the log from being opened.
#[test]
fn an_older_index_alone_need_not_be_readable() {
    for is_third_there in [false, true] {
        let (log, older) = with_older_index(is_third_there);
        log.disk.make_unreadable(&older, 0..4096);
        let found = verify(&log.disk, Path::new(DIR), &mut |_| ()).expect("not in use");
        let doubts: Vec<_> = found.notes.iter().filter(|note| note.contains("nobody")).collect();
        assert!(doubts.is_empty(), "{doubts:?}");
        let opened = open(&log.disk).expect("the frames of the newer one say all");
        assert_eq!(read(&opened, &[]), ((0..56).collect(), vec![]));
    }
}

/// A start refused the log: it took none of the two, where a rewrite that has no index never counted.
#[test]
fn a_damaged_index_beside_a_rewrite_without_one_is_made_anew() {
    let (log, name, next) = with_two();
    log.disk.remove(&log.path(next, SegmentFile::Index)).expect("a file");
    log.disk.flip_bit(&log.path(name, SegmentFile::Index), Position::new(100), 1);
    check_repair(&log.disk.fork(1), 56, &[]);
    let opened = open(&log.disk).expect("its frames say all");
    assert_eq!(read(&opened, &[]), ((0..56).collect(), vec![]));
    assert_eq!(log.disk.bytes(&log.path(next, SegmentFile::Log)), None);
    assert!(log.disk.bytes(&log.path(name, SegmentFile::Index)).is_some());
}

/// Where the frames do not say all, nothing of either goes.
#[test]
fn a_start_that_takes_no_generation_removes_none() {
    let (log, name, next) = with_two();
    log.disk.remove(&log.path(next, SegmentFile::Index)).expect("a file");
    log.disk.flip_bit(&log.path(name, SegmentFile::Index), Position::new(100), 1);
    let frame = Position::new(log.segments[1].1[1].position + 70);
    log.disk.flip_bit(&log.path(name, SegmentFile::Log), frame, 1);
    assert!(open(&log.disk).is_err());
    for path in [log.path(next, SegmentFile::Log), log.path(name, SegmentFile::Log)] {
        assert!(log.disk.bytes(&path).is_some());
    }
}

/// A start took the newer one, and a repair the stub: events that were there were gone behind that.
#[test]
fn a_damaged_stub_is_no_better_than_a_newer_generation_whose_index_is_damaged() {
    for (is_stub_damaged, is_third_there) in [(true, false), (false, false), (true, true)] {
        let (log, older) = with_older_index(is_third_there);
        let index = log.disk.bytes(&older).expect("a file");
        let stub = make_stub(&index, &StubLimits::default()).expect("an index of ours");
        let gone = IndexHeader::decode(&stub).expect("a stub").section(SectionKind::GONE);
        assert!(gone.bytes > 0, "it had topics");
        log.write(&older, &stub);
        if is_stub_damaged {
            log.disk.flip_bit(&older, gone.position, 3);
        }
        let kept = match is_stub_damaged {
            true => (0..56).collect::<Vec<u64>>(),
            false => (0..20).chain(32..56).collect(),
        };
        let started = log.disk.fork(1);
        assert_eq!(read(&open(&started).expect("one of them"), &[]), (kept.clone(), vec![]));
        repaired(&log.disk);
        assert_eq!(read(&open(&log.disk).expect("the same"), &[]), (kept, vec![]));
    }
}

/// A start took the older one, and removed the newer, of which `verify` said that it is the segment and its index damaged.
#[test]
fn an_older_generation_that_is_whole_counts_for_verify_too() {
    for is_stub in [true, false] {
        let (log, older, next) = with_two();
        log.disk.flip_bit(&log.path(next, SegmentFile::Index), Position::new(100), 1);
        if is_stub {
            let index = log.path(older, SegmentFile::Index);
            let stub = make_stub(&log.disk.bytes(&index).expect("a file"), &StubLimits::default());
            log.write(&index, &stub.expect("an index of ours"));
            log.disk.remove(&log.path(older, SegmentFile::Log)).expect("a file");
        }
        let found = verify(&log.disk, Path::new(DIR), &mut |finding| panic!("{finding}"));
        let notes = found.expect("not in use").notes;
        let left: Vec<_> = notes.iter().filter(|note| note.contains("cut short")).collect();
        assert!(matches!(left[..], [one] if one.contains(&next.log_file_name())), "{notes:?}");
        drop(open(&log.disk).expect("one of them"));
        for file in [SegmentFile::Log, SegmentFile::Index] {
            assert_eq!(log.disk.bytes(&log.path(next, file)), None, "{is_stub}");
        }
    }
}

/// Nobody knows which of them counts: a start names what it cannot read, and `verify` found nothing wrong.
#[test]
fn a_newer_generation_that_cannot_be_read_is_told() {
    let (log, _, next) = with_two();
    log.disk.make_unreadable(&log.path(next, SegmentFile::Index), 0..4096);
    let error = open(&log.disk).err().expect("either may count").to_string();
    assert!(error.contains(&next.index_file_name()), "{error}");
    let mut found = Vec::new();
    let verified =
        verify(&log.disk, Path::new(DIR), &mut |finding| found.push(finding.file.clone()));
    assert_eq!(found, [log.path(next, SegmentFile::Index)]);
    let notes = verified.expect("not in use").notes;
    assert!(!notes.iter().any(|note| note.contains("the next start removes it")), "{notes:?}");
    // The command's exit code goes by that: a start removes what is to be discarded.
    let repaired = repaired(&log.disk);
    let [step] = &repaired.plan.steps[..] else { panic!("{repaired:?}") };
    assert_eq!((step.name, &step.action), (next, &Action::Unread));
    assert_eq!(read(&open(&log.disk).expect("by the older one"), &[]).1, []);
}
