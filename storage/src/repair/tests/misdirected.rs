//! Writes of the disk that have landed elsewhere: readers find all that they have not fallen on, and so does a repair.

use super::*;

/// Frames of one to three blocks, three of them without events, one behind the other.
fn frames() -> Vec<Vec<(&'static str, Vec<u8>)>> {
    let lens = [100, 0, 100, 100, 5000, 0, 9000, 100, 0, 100, 100, 100];
    let frame = |len| if len == 0 { vec![] } else { vec![("a", vec![7; len])] };
    lens.into_iter().map(frame).collect()
}

fn new_log(is_sealed: bool) -> TestLog {
    let mut log = TestLog::new(1);
    if is_sealed {
        log.add_sealed(&frames());
    }
    log.add_unsealed(&frames());
    log
}

/// Puts what begins at `from` over what lies at `to`.
fn misdirect(log: &TestLog, from: u64, to: u64, len: u64) {
    let path = path(log, 0, SegmentFile::Log);
    let bytes = log.disk.bytes(&path).expect("a file");
    let [from, len] = [from, len].map(|at| usize::try_from(at).expect("short"));
    log.disk.misdirect(&path, Position::new(to), &bytes[from..from + len]);
}

/// The copy of an empty frame is taken for the one that stood behind it, of which nothing is left: the next one, which
/// begins farther on than was expected then, was lost with it.
#[test]
fn a_frame_behind_one_that_a_copy_of_an_empty_one_lies_over_is_found() {
    for is_sealed in [true, false] {
        let log = new_log(is_sealed);
        let places = &log.segments[0].1;
        let (from, to) = (places[1].position, places[2].position);
        misdirect(&log, from, to, 4096);
        assert_eq!(exported_gaps(&log.disk), [(1, 2)]);
        let found = findings(&log.disk);
        assert!(found.iter().any(|found| found.contains("events from 1 to 2")), "{found:?}");
        if is_sealed {
            let opened = open(&log.disk.fork(1)).expect("its index is whole");
            assert_eq!(read(&opened, &["a"]).1, [(1, 2)]);
        }
        check_repair(&log.disk, log.end().get(), &[(1, 2)]);
    }
}

/// A write of the disk has landed one frame too early: readers find its events there, and so does the repair.
#[test]
fn a_frame_that_lies_where_one_without_events_was_keeps_its_events() {
    for is_sealed in [true, false] {
        let mut log = TestLog::new(1);
        let frames = [vec![("a", vec![7; 5000])], vec![], vec![("a", vec![8; 5000])], vec![]];
        if is_sealed {
            log.add_sealed(&frames);
            log.add_unsealed(&[vec![("a", vec![7; 100])]]);
        } else {
            log.add_unsealed(&frames);
        }
        let path = path(&log, 0, SegmentFile::Log);
        let bytes = log.disk.bytes(&path).expect("a file");
        let places: Vec<_> = log.segments[0].1.iter().map(|place| place.position).collect();
        let misdirected = usize::try_from(places[2]).expect("short")..;
        let len = usize::try_from(places[3] - places[2]).expect("short");
        log.disk.misdirect(&path, Position::new(places[1]), &bytes[misdirected][..len]);
        let found = findings(&log.disk);
        assert!(!found.is_empty() && found.iter().all(|one| !one.contains("events")), "{found:?}");
        assert_eq!(exported_gaps(&log.disk), []);
        let plan = check_repair(&log.disk, log.end().get(), &[]).plan;
        let [Step { action: Action::Rewrite { kept_events: 2, lost, .. }, .. }] = &plan.steps[..]
        else {
            panic!("{plan:?}");
        };
        assert!(lost.is_empty());
    }
}

/// Each frame on each block, but for the last three: they say of all others that they had been synced.
#[test]
fn a_write_that_landed_elsewhere_costs_no_more_than_it_has_fallen_on() {
    for is_sealed in [true, false] {
        let places = new_log(is_sealed).segments[0].1.clone();
        let end = places[places.len() - 3].position;
        for from in &places {
            for to in (places[0].position..end).step_by(4096).filter(|to| *to != from.position) {
                let log = new_log(is_sealed);
                let len = from.bytes.min(end - to);
                misdirect(&log, from.position, to, len);
                let mut lost = exported_gaps(&log.disk);
                lost.retain(|(from, to)| from < to);
                let is_hit = |offset| {
                    let hit = places.iter().find(|frame| (frame.base..frame.end).contains(&offset));
                    let hit = hit.expect("of one");
                    hit.position < to + len && to < hit.position + hit.bytes
                };
                let all_hit = lost.iter().all(|(from, to)| (*from..*to).all(is_hit));
                let told = format!("{is_sealed}, {from:?} at {to}: {lost:?}");
                assert!(all_hit, "{told}");
                check_repair(&log.disk, log.end().get(), &merged(lost));
            }
        }
    }
}
