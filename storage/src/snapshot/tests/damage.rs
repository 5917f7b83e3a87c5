//! Damaged snapshots, logs that end before theirs, and what a repair and a scrub make of them.

use super::*;

/// Any damage is seen, whatever byte it is in.
#[test]
fn a_damaged_snapshot_is_passed_over() {
    let disk = filled(2, 200);
    let expected = state(&open(&disk.fork(1)).0);
    let path = &snapshots(&disk)[0];
    let bytes = disk.bytes(path).expect("a snapshot");
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        assert!(Snapshot::decode(&damaged).is_err(), "byte {at}");
        assert!(Snapshot::decode(&bytes[..at]).is_err(), "cut at {at}");
    }
    for at in (0..bytes.len()).step_by(97) {
        let disk = disk.fork(1);
        disk.flip_bit(path, Position::new(at as u64), 3);
        assert_eq!(verified(&disk), 1, "byte {at}");
        let (mut log, _) = open(&disk);
        same(&state(&log), &expected, &format!("byte {at}"));
        log.run_ops(now(3));
        drop(log);
        assert_eq!(verified(&disk), 0, "another one took its place");
    }
}

/// A snapshot that cannot be read, and that nobody needs, is a finding, and goes in time.
#[test]
fn an_unreadable_snapshot_is_passed_over() {
    for seed in 0..5 {
        for place in 0..2 {
            let disk = if seed % 2 == 0 { retained(seed) } else { filled(seed, 200) };
            let (log, _) = open(&disk.fork(1));
            let start = log.start();
            let expected = state_from(&log, start);
            let path = &snapshots(&disk)[place];
            disk.make_unreadable(path, 0..u64::MAX);
            assert_eq!(verified(&disk), 1);
            let (mut log, _) = open(&disk.fork(1));
            assert_eq!(log.start(), start);
            same(
                &state_from(&log, start),
                &expected,
                &format!("seed {seed}, without {}", path.display()),
            );
            drop(log);
            let goes_on = disk.fork(1);
            (log, _) = open(&goes_on);
            fill(&mut log, &mut SimRng::new(seed), 200);
            assert!(!snapshots(&goes_on).contains(path), "two newer ones are good");
            let plan = repair::plan(&disk, Path::new(DIR)).expect("readable");
            assert!(plan.steps.iter().all(|step| step.action == repair::Action::SetAside));
            assert_eq!((plan.steps.len(), plan.beyond.len()), (1, 0), "{plan:?}");
            repair::repair(&disk, Path::new(DIR), now(1)).expect("done").expect("something to do");
            assert_eq!(verified(&disk), 0);
            same(&state_from(&open(&disk).0, start), &expected, "repaired");
        }
    }
}

/// A log of which nothing is gone needs none: it was refused for one that the disk did not give back, and opened without it
/// where it was damaged.
#[test]
fn snapshots_that_cannot_be_read_keep_no_log_from_opening_that_is_whole_without_them() {
    let disk = filled(1, 200);
    let (log, _) = open(&disk.fork(1));
    let expected = state_from(&log, Offset::ZERO);
    assert_eq!(log.start(), Offset::ZERO);
    drop(log);
    let unreadable = |disk: &SimDisk| {
        snapshots(disk).iter().for_each(|path| disk.make_unreadable(path, 0..u64::MAX));
    };
    unreadable(&disk);
    same(&state_from(&open(&disk).0, Offset::ZERO), &expected, "without any");
    // Where they alone may say why nothing is there before, they are named.
    let disk = retained(0);
    unreadable(&disk);
    let newest = snapshots(&disk).swap_remove(0);
    let OpenError::Io { file, .. } = refused(&disk) else { panic!("it is no damage") };
    assert_eq!(file, newest);
}

/// What had been synced cannot be missing: neither whole files, nor frames, nor an index that says less.
#[test]
fn a_log_that_ends_before_its_snapshot_is_not_opened_but_repaired() {
    let disk = filled(3, 200);
    let newest = read::offsets(&names(&disk))[0];
    let segments: Vec<_> =
        names(&disk).iter().filter_map(|name| SegmentName::parse(name)).collect();
    let last_below = segments.iter().rfind(|(name, _)| name.base_offset < newest).expect("one").0;
    let without = cut_short(&disk);
    // The frames alone of what is the last one then.
    let torn = disk.fork(1);
    for (name, file) in segments.iter().filter(|(name, _)| *name > last_below) {
        remove(&torn, &Path::new(DIR).join(name.file_name(*file)));
    }
    remove(&torn, &Path::new(DIR).join(last_below.index_file_name()));
    let log = torn.open(&Path::new(DIR).join(last_below.log_file_name()), Access::Write);
    log.expect("a file").set_size(4096).expect("shorter");
    // A log of before, of which a snapshot alone proves the loss.
    remove(&torn, &Path::new(DIR).join(END_MARK_FILE_NAME));
    for disk in [without, torn] {
        assert!(matches!(refused(&disk), OpenError::Corrupt(_)));
        assert!(verified(&disk) > 0);
        let repaired = repair::repair(&disk, Path::new(DIR), now(1)).expect("a plan");
        let repaired = repaired.expect("something to do");
        assert!(repaired.plan.beyond.is_empty() && repaired.new_tag.is_some(), "{repaired:?}");
        assert_eq!(verified(&disk), 0);
        let (log, report) = open(&disk);
        assert_eq!(report.end, newest, "no offset is given out again");
        assert!(!log.segments().is_empty());
    }
}

#[test]
fn a_repair_takes_damaged_snapshots_out() {
    let disk = filled(4, 200);
    for path in snapshots(&disk) {
        disk.flip_bit(&path, Position::new(300), 0);
    }
    let plan = repair::plan(&disk, Path::new(DIR)).expect("readable");
    assert_eq!(plan.steps.len(), 2);
    let expected = state(&open(&disk.fork(1)).0);
    repair::repair(&disk, Path::new(DIR), now(1)).expect("done").expect("something to do");
    assert_eq!((snapshots(&disk).len(), verified(&disk)), (0, 0));
    same(&state(&open(&disk).0), &expected, "the indexes say all of it");
}

/// What a repair did not find was counted once.
#[test]
fn topics_are_counted_anew_where_a_repair_has_left_a_gap() {
    let mut too_large = [0, 0];
    for seed in 0..5 {
        let disk = SimDisk::new(seed);
        let (mut log, _) = open(&disk);
        let append = |log: &mut Log<SimDisk>, count: usize| {
            for number in 0..count {
                let topic = format!("rooms/{}", number % 70);
                log.append(vec![event(&topic, "1")], now(2)).expect("staged");
                log.run_ops(now(3));
            }
        };
        append(&mut log, 200);
        drop(log);
        let disk = disk.kill();
        let mut logs = names(&disk);
        logs.retain(|name| name.ends_with(".log"));
        // The last frames of a segment, and all of the one behind the next.
        let path = Path::new(DIR).join(&logs[0]);
        for block in 4..disk.bytes(&path).expect("a file").len() as u64 / 4096 {
            disk.flip_bit(&path, Position::new(4096 * block + 100), 0);
        }
        remove(&disk, &Path::new(DIR).join(&logs[2]));
        remove(&disk, &Path::new(DIR).join(logs[2].replace(".log", ".idx")));
        repair::repair(&disk, Path::new(DIR), now(1)).expect("done").expect("something to do");
        assert_eq!(verified(&disk), 0);
        let made_anew = disk.fork(1);
        let (mut log, _) = open(&made_anew);
        append(&mut log, 70);
        assert!(log.snapshot_totals().made > 0);
        drop(log);
        for (disk, too_large) in [disk, made_anew.kill()].iter().zip(&mut too_large) {
            let without = disk.fork(1);
            snapshots(&without).iter().for_each(|path| remove(&without, path));
            let (without, _) = open(&without);
            let (mut log, _) = open(disk);
            for topic in log.topics().page("", None, usize::MAX) {
                let name = &topic.topic;
                let count = without.topics().get(name).map_or(0, |topic| topic.count);
                if topic.count != count {
                    *too_large += 1;
                    assert!(log.take_lessened(topic.number), "{name}: {} is {count}", topic.count);
                }
            }
        }
    }
    assert!(too_large.iter().all(|count| *count > 20), "{too_large:?}");
}

/// A log that is idle makes no new one, and nobody opens it: then the scrub sees it.
#[test]
fn a_scrub_finds_a_damaged_snapshot_and_reports_it_once() {
    let disk = filled(1, 100);
    let scrubbed = LogConfig { scrub_interval_s: 100, scrub_bytes_per_s: 1 << 20, ..config() };
    let (mut log, _) = Log::open(disk.clone(), Path::new(DIR), scrubbed, now(1)).expect("it opens");
    let passes = log.scrub_totals().passes;
    assert!(scrub_snapshots(&mut log, 4_000_000).is_empty());
    let path = &snapshots(&disk)[1];
    disk.flip_bit(path, Position::new(300), 3);
    let damaged = path.display().to_string();
    assert_eq!(scrub_snapshots(&mut log, 4_110_000), [damaged]);
    assert!(scrub_snapshots(&mut log, 4_220_000).is_empty(), "said once");
    assert!(log.scrub_totals().passes >= passes + 3);
}

/// What a scrub that begins at this time says of snapshots: those that are damaged, and why none was read.
fn scrub_snapshots(log: &mut Log<SimDisk>, from_ms: u64) -> Vec<String> {
    let mut now_ms = from_ms;
    while now_ms < from_ms + 90_000 {
        log.run_ops(now(now_ms));
        now_ms = log.deadline().expect("limits of time").max(now_ms + 1);
    }
    let said = log.take_notices().into_iter().filter_map(|notice| match notice {
        Notice::SnapshotDamaged(damage) => Some(damage.file.display().to_string()),
        Notice::SnapshotsUnread { reason } => Some(reason),
        Notice::Scrubbed { damaged, .. } => {
            assert_eq!(damaged, 0);
            None
        }
        _ => None,
    });
    said.collect()
}

/// A pass whose list of them failed passed over them all, and said that everything was sound.
#[test]
fn a_scrub_that_cannot_list_the_snapshots_says_so_once() {
    let disk = filled(1, 100);
    let scrubbed = LogConfig { scrub_interval_s: 100, scrub_bytes_per_s: 1 << 20, ..config() };
    let (mut log, _) = Log::open(disk.clone(), Path::new(DIR), scrubbed, now(1)).expect("it opens");
    assert!(scrub_snapshots(&mut log, 4_000_000).is_empty());
    let damaged = snapshots(&disk)[1].clone();
    disk.flip_bit(&damaged, Position::new(300), 3);
    let damaged = damaged.display().to_string();
    assert_eq!(scrub_snapshots(&mut log, 4_110_000), [damaged]);
    let unread = format!("listing {DIR}: simulated error of a directory");
    disk.arm(Fault::ListFails, 0);
    assert_eq!(scrub_snapshots(&mut log, 4_220_000).concat(), unread);
    disk.arm(Fault::ListFails, 0);
    assert!(scrub_snapshots(&mut log, 4_330_000).is_empty(), "said once");
    assert_eq!(disk.disarm(), 0);
    assert!(scrub_snapshots(&mut log, 4_440_000).is_empty(), "what was known stays so");
    disk.arm(Fault::ListFails, 0);
    assert_eq!(scrub_snapshots(&mut log, 4_550_000).concat(), unread, "anew, once it had passed");
}
