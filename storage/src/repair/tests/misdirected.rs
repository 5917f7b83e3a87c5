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
        assert_eq!(rewritten_whole(&plan), 2);
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

/// Two faults in a row: of a frame and of the one behind it, which was put over another far behind. That one was taken for
/// what follows, and all that is sound in between was lost.
#[test]
fn what_was_put_behind_sound_frames_costs_none_of_them() {
    for (last, to) in [(3, 9), (4, 9), (3, 5), (3, 11)] {
        let mut log = TestLog::new(1);
        log.add_sealed(&vec![vec![("a", vec![7; 100])]; 12]);
        log.add_unsealed(&[vec![("a", vec![7; 100])]]);
        let places = log.segments[0].1.clone();
        let len = places[last].position + 4096 - places[3].position;
        let len = len.min(places[11].position + 4096 - places[to].position);
        misdirect(&log, places[3].position, places[to].position, len);
        let blank = vec![0; usize::try_from(len).expect("short")];
        let path = path(&log, 0, SegmentFile::Log);
        log.disk.misdirect(&path, Position::new(places[3].position), &blank);
        flip(&log, 0, 2, 10);
        let (last, to) = (last as u64, to as u64);
        let lost = merged(vec![(2, last + 1), (to, to + len / 4096)]);
        let opened = open(&log.disk.fork(1)).expect("its index is whole");
        assert_eq!(merged(read(&opened, &[]).1), lost, "{last} at {to}");
        assert_eq!(merged(exported_gaps(&log.disk)), lost, "{last} at {to}");
        check_repair(&log.disk, log.end().get(), &lost);
    }
}

/// Two writes have landed too early, one behind the other: the second says nothing of what stands before it.
#[test]
fn two_writes_that_landed_too_early_cost_no_more_than_they_have_fallen_on() {
    for (first, second) in [((15, 2), (17, 6)), ((12, 2), (13, 5)), ((12, 2), (18, 4))] {
        let mut log = TestLog::new(1);
        log.add_sealed(&vec![vec![("a", vec![7; 100])]; 20]);
        log.add_unsealed(&[vec![("a", vec![7; 100])]]);
        let places = log.segments[0].1.clone();
        for (from, to) in [first, second] {
            misdirect(&log, places[from].position, places[to].position, 4096);
        }
        let [one, other] = [first.1 as u64, second.1 as u64];
        let lost = merged(vec![(one, one + 1), (other, other + 1)]);
        let opened = open(&log.disk.fork(1)).expect("its index is whole");
        assert_eq!(merged(read(&opened, &[]).1), lost, "{first:?}, {second:?}");
        assert_eq!(merged(exported_gaps(&log.disk)), lost, "{first:?}, {second:?}");
        check_repair(&log.disk, log.end().get(), &lost);
    }
}

/// Frames of one to five blocks, one behind the other: some blocks of the index.
fn long_log(rng: &mut SimRng) -> TestLog {
    let frames: Vec<_> = (0..60)
        .map(|_| {
            let len = if rng.chance(40) { 100 } else { rng.index(20_000) };
            if rng.chance(5) { vec![] } else { vec![("a", vec![7; len])] }
        })
        .collect();
    let mut log = TestLog::new(1);
    log.add_sealed(&frames);
    log.add_unsealed(&[vec![("a", vec![7; 100])]]);
    log
}

/// A write of one frame or some, which has landed elsewhere: it has cost what it has fallen on, and what it was to
/// write if that is not there. Readers had lost a frame that lay on the other side of an edge of their blocks, and a repair
/// all that lies between a row of frames and its copy. (Seed 2580 was found among 4,000: a row that begins with a frame without
/// events has landed beyond an edge.)
#[test]
fn readers_and_a_repair_find_the_same_of_writes_that_landed_elsewhere() {
    let mut found_elsewhere = 0;
    for seed in (0..400).chain([2580]) {
        let rng = &mut SimRng::new(seed);
        let log = long_log(rng);
        let places = log.segments[0].1.clone();
        let first = rng.index(places.len() - 3);
        let last = first + rng.index(3);
        let (from, end) = (places[first].position, places[last].position + places[last].bytes);
        let log_end = places.last().map(|place| place.position + place.bytes).expect("frames");
        let to = match rng.chance(60) {
            true => {
                let near = (from + 4096 * rng.below(20)).saturating_sub(4096 * 10);
                near.clamp(4096, log_end - 4096)
            }
            false => rng.pick(&places).position,
        };
        let len = (end - from).min(log_end - to);
        let path = path(&log, 0, SegmentFile::Log);
        let bytes = log.disk.bytes(&path).expect("a file");
        let [at, until] = [from, from + len].map(|at| usize::try_from(at).expect("short"));
        let is_moved = rng.chance(50);
        if is_moved {
            let blank = vec![0; usize::try_from(end - from).expect("short")];
            log.disk.misdirect(&path, Position::new(from), &blank);
        }
        log.disk.misdirect(&path, Position::new(to), &bytes[at..until]);

        let opened = open(&log.disk.fork(1)).expect("its index is whole");
        let (offsets, gaps) = read(&opened, &[]);
        let gaps = merged(gaps);
        let told =
            format!("seed {seed}: {first}..={last} ({from}..{end}) at {to}, {is_moved}: {gaps:?}");
        let is_lost = |offset: u64| gaps.iter().any(|(from, to)| (*from..*to).contains(&offset));
        let is_hit = |offset: u64| {
            let place = places.iter().position(|frame| (frame.base..frame.end).contains(&offset));
            let place = place.expect("of one");
            let frame = &places[place];
            (frame.position < to + len && to < frame.position + frame.bytes)
                || (is_moved && (first..=last).contains(&place))
        };
        let all = 0..places[places.len() - 1].end;
        assert!(all.clone().filter(|offset| is_lost(*offset)).all(is_hit), "{told}");
        assert!(all.clone().all(|offset| is_lost(offset) != offsets.contains(&offset)), "{told}");
        let is_found = |offset: &u64| (places[first].base..places[last].end).contains(offset);
        found_elsewhere += usize::from(is_moved && from != to && offsets.iter().any(is_found));
        if planned(&log.disk).steps.is_empty() {
            assert!(gaps.is_empty(), "{told}");
            continue;
        }
        let mut exported = exported_gaps(&log.disk);
        exported.retain(|(from, to)| from < to);
        assert_eq!(merged(exported), gaps, "{told}");
        check_repair(&log.disk, log.end().get(), &gaps);
    }
    assert!(found_elsewhere > 0, "none of those that were moved was found");
}
