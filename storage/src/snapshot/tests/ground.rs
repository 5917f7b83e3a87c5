//! Where retention took much: stubs before all that is kept are merged into a snapshot, the ground.

use super::*;

/// A log from which retention had taken all that was sealed when its newest snapshot was made: that is a ground.
fn taken_whole(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    let (mut log, _) = open(&disk);
    let rng = &mut SimRng::new(seed);
    fill(&mut log, rng, 60);
    keep(&mut log, 1);
    for _ in 0..400 {
        fill(&mut log, rng, 1);
        let offsets = read::offsets(&names(&disk));
        if offsets.len() > 1 && offsets[0] == ground(&disk) {
            drop(log);
            return disk.kill();
        }
    }
    panic!("{:?}", names(&disk));
}

fn stubs(disk: &SimDisk) -> usize {
    let names = names(disk);
    names.iter().filter(|name| name.ends_with(".idx")).count()
}

#[test]
fn stubs_before_all_that_is_kept_are_merged_and_nothing_is_forgotten() {
    for seed in 0..20 {
        let disk = retained(seed);
        assert!(stubs(&disk) < 10, "{:?}", names(&disk));
        assert_eq!(verified(&disk), 0);
        let (log, report) = open(&disk.fork(1));
        let known: Vec<_> = (0..report.end.get()).map(Offset::new).collect();
        assert!(log.start() > Offset::new(100), "{}", log.start());
        // Of each topic the last offset, of all ids the places, of the producers the last append.
        let mut control =
            Log::open(SimDisk::new(9), Path::new(DIR), config(), now(1)).expect("new").0;
        keep(&mut control, 1_000_000);
        fill(&mut control, &mut SimRng::new(seed), 300);
        assert_eq!(control.next().get(), known.len() as u64);
        for topic in control.topics().page("", None, usize::MAX) {
            assert_eq!(log.topics().last_ever(&topic.topic), Some(topic.last), "{topic:?}");
            assert_eq!(log.topics().number_of(&topic.topic), Some(topic.number));
        }
        let ids = |log: &Log<SimDisk>| {
            log.ids().iter().map(|id| (id.offset, id.hash)).collect::<Vec<_>>()
        };
        assert_eq!(ids(&log), ids(&control));
        for known in control.producers().iter() {
            let entry = log.producers().get(&known.hash).expect("known");
            assert_eq!((entry.epoch, entry.first), (known.epoch, known.first));
        }
    }
}

/// A ground is no reason to take from the snapshot before it what that needs, nor is a copy the place to.
#[test]
fn either_of_the_newest_two_snapshots_is_enough_if_one_is_a_ground() {
    for seed in 0..10 {
        let disk = taken_whole(seed);
        assert_eq!(verified(&disk), 0);
        let (log, _) = open(&disk.fork(1));
        let start = log.start();
        let expected = state_from(&log, start);
        let copy = disk.fork(1);
        let backup = backed_up(&copy).expect("backed up");
        let restored = Path::new("/restored");
        copy.create_dir(restored).expect("a free name");
        restore_log(&copy, &backup, restored, Until::End, now(1)).expect("restored");
        let offsets = read::offsets(&names(&disk));
        for offset in &offsets[..2] {
            let context = format!("seed {seed}, without {offset}");
            let name = file_name(*offset);
            let disk = disk.fork(1);
            disk.flip_bit(&Path::new(DIR).join(&name), Position::new(300), 0);
            assert_eq!(verified(&disk), 1, "{context}");
            same(&state_from(&open(&disk.fork(1)).0, start), &expected, &context);
            let backup = backed_up(&disk).expect("backed up");
            let (log, _) = Log::open(disk, &backup, config(), now(1)).expect("it opens");
            assert_eq!(log.start(), start);
            same(&state_from(&log, start), &expected, &context);
            for dir in [backup.as_path(), restored] {
                let copy = copy.fork(1);
                copy.flip_bit(&dir.join(&name), Position::new(300), 0);
                let (log, _) = Log::open(copy, dir, config(), now(1)).expect("it opens");
                assert_eq!(log.start(), start);
                same(&state_from(&log, start), &expected, &format!("{context}, {}", dir.display()));
            }
        }
    }
}

/// What a power cut has brought back of them is no beginning: the log was called damaged, or a file missing, where snapshots alone
/// say why nothing is there, and the disk may give them back another time.
#[test]
fn snapshots_that_cannot_be_read_are_named_also_where_something_below_the_ground_is_back() {
    let before = filled(5, 100);
    let disk = retained(5);
    let first = names(&before).into_iter().filter_map(|name| SegmentName::parse(&name));
    let first = first.map(|(segment, _)| segment).min().expect("a segment");
    assert_eq!(first.base_offset, Offset::ZERO);
    for name in [first.log_file_name(), first.index_file_name()] {
        let path = Path::new(DIR).join(name);
        assert!(disk.bytes(&path).is_none());
        write(&disk, &path, &before.bytes(&path).expect("a file"));
    }
    let snapshots = snapshots(&disk);
    snapshots.iter().for_each(|path| disk.make_unreadable(path, 0..u64::MAX));
    let OpenError::Io { file, .. } = refused(&disk) else { panic!("it is no damage") };
    assert_eq!(file, snapshots[0]);
}

/// A power cut may keep some removals and not others.
#[test]
fn what_is_left_below_the_merged_stubs_counts_for_nothing() {
    let before = filled(5, 100);
    let disk = retained(5);
    let expected = state(&open(&disk.fork(1)).0);
    let ground = ground(&disk);
    assert!(ground > Offset::ZERO);
    for name in names(&before) {
        let Some((segment, _)) = SegmentName::parse(&name) else { continue };
        let path = Path::new(DIR).join(&name);
        if segment.base_offset >= ground || disk.open(&path, Access::Read).is_ok() {
            continue;
        }
        let disk = disk.fork(1);
        write(&disk, &path, &before.bytes(&path).expect("a file"));
        assert_eq!(verified(&disk), 0, "{name}");
        let (copy, dir, to) = (disk.fork(1), Path::new(DIR), Path::new("/restored"));
        copy.create_dir(to).expect("a free name");
        let first = first_cut(&copy, dir).expect("readable").expect("its beginning is gone");
        let until = Until::Offset(first.cut);
        let restored = restore_log(&copy, dir, to, until, now(1));
        assert_eq!(restored.expect("it can be cut there").end, first.cut, "{name}");
        let damaged = disk.fork(1);
        damaged.flip_bit(&Path::new(DIR).join(file_name(ground)), Position::new(20), 0);
        assert_eq!(verified(&damaged), 1, "{name}, and the ground is damaged");
        same(&state(&open(&damaged).0), &expected, &name);
        let (mut log, _) = open(&disk);
        same(&state(&log), &expected, &name);
        fill(&mut log, &mut SimRng::new(1), 60);
        assert!(!names(&disk).contains(&name), "the next snapshot clears {name} away");
    }
}

#[test]
fn a_hole_that_no_snapshot_explains_is_a_lost_file() {
    let disk = retained(6);
    let expected = state(&open(&disk.fork(1)).0);
    remove(&disk, &Path::new(DIR).join(file_name(ground(&disk))));
    // Another snapshot says as well that nothing is kept there, and knows all that was.
    assert_eq!(verified(&disk), 0);
    let (mut log, _) = open(&disk.fork(1));
    same(&state(&log), &expected, "without the ground");
    fill(&mut log, &mut SimRng::new(1), 100);
    snapshots(&disk).iter().for_each(|path| disk.flip_bit(path, Position::new(300), 0));
    match refused(&disk) {
        OpenError::Corrupt(damage) => assert_eq!(damage.file, snapshots(&disk)[0]),
        other => panic!("{other}"),
    }
    let repaired = repair::repair(&disk, Path::new(DIR), now(1)).expect("done");
    let first = &repaired.expect("something to do").plan.steps[0];
    assert!(first.damage.what.contains("settings, ids and producers"), "{}", first.damage.what);
    assert_eq!(verified(&disk), 0);
    open(&disk);
}
