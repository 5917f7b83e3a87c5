//! Random damage of random files: what is left of a log that is repaired.

use super::*;
use crate::event::EventView;

/// An event's offset, topic and data.
type Event = (u64, String, Vec<u8>);

fn event_of(event: EventView<'_>) -> Event {
    (event.offset().get(), event.topic().to_owned(), event.data().to_vec())
}

/// What each of the log files holds.
fn contents(log: &TestLog) -> Vec<Vec<u8>> {
    let paths = (0..log.segments.len()).map(|segment| path(log, segment, SegmentFile::Log));
    paths.map(|path| log.disk.bytes(&path).expect("a file")).collect()
}

/// The offsets of the frames that are as they were, header and body.
fn offsets_of_whole_frames(log: &TestLog, before: &[Vec<u8>]) -> Vec<u64> {
    let mut offsets = Vec::new();
    for (segment, before) in before.iter().enumerate() {
        let now = log.disk.bytes(&path(log, segment, SegmentFile::Log)).unwrap_or_default();
        for frame in &log.segments[segment].1 {
            let range = |bytes: &[u8]| {
                let (from, len) = (to_usize(frame.position), to_usize(frame.bytes));
                bytes.get(from..from + len).map(<[u8]>::to_vec)
            };
            if range(&now) == range(before) {
                offsets.extend(frame.base..frame.base + 4);
            }
        }
    }
    offsets
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).expect("it fits in memory")
}

/// Whatever happens to the files: what is said is done, the log opens, no event of an undamaged frame is lost, none is
/// another than it was, and gaps name the rest.
#[test]
fn any_damage_is_repaired() {
    for seed in 0..300 {
        let rng = &mut SimRng::new(seed);
        let log = log();
        let before = contents(&log);
        let sound = open(&log.disk.fork(seed)).expect("a sound log");
        let (all, _) = read_all(sound.segments(), &everything(), event_of);
        for _ in 0..rng.between(1, 4) {
            let segment = rng.index(4);
            let file = if rng.chance(60) { SegmentFile::Log } else { SegmentFile::Index };
            let path = path(&log, segment, file);
            let Some(bytes) = log.disk.bytes(&path) else { continue };
            match rng.below(10) {
                0 => log.disk.remove(&path).expect("a file"),
                1 => {
                    let file = log.disk.open(&path, crate::io::Access::Write).expect("a file");
                    file.set_size(rng.below(bytes.len() as u64)).expect("space");
                }
                _ => {
                    let at = Position::new(rng.below(bytes.len() as u64));
                    log.disk.flip_bit(&path, at, 3);
                }
            }
        }
        let whole = offsets_of_whole_frames(&log, &before);
        let plan = planned(&log.disk);
        if plan.steps.is_empty() {
            continue;
        }
        assert!(plan.beyond.is_empty(), "seed {seed}: {plan:?}");
        assert_eq!(repaired(&log.disk).plan, plan, "seed {seed}");
        assert_eq!(planned(&log.disk), RepairPlan::default(), "seed {seed}");
        let opened =
            open(&log.disk).unwrap_or_else(|error| panic!("seed {seed}: {plan:?} {error}"));
        let (events, gaps) = read_all(opened.segments(), &everything(), event_of);
        let mut left = events.iter();
        let is_left = |event: &Event| left.by_ref().any(|other| other == event);
        let is_all_left = all.iter().filter(|event| whole.contains(&event.0)).all(is_left);
        assert!(is_all_left, "seed {seed}: {plan:?}, and gaps of {gaps:?}");
        let mut all = all.iter();
        let are_known = events.iter().all(|event| all.by_ref().any(|other| other == event));
        assert!(are_known, "seed {seed}: {plan:?}");
        let lost: u64 = merged(gaps).iter().map(|(from, to)| to - from).sum();
        assert_eq!(events.len() as u64 + lost, opened.visible().get(), "seed {seed}: {plan:?}");
    }
}
