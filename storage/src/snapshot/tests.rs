use std::{collections::BTreeMap, ops::ControlFlow, path::Path, path::PathBuf};

use super::*;
use crate::{
    append::{Append, OffsetScope, ProducerClaim, ProducerId},
    backup::{Reach, back_up_log},
    config::LogConfig,
    control::{Control, TopicRule, TopicTrimmed, TopicsDeleted},
    error::{OpenError, ReadError},
    event::EventId,
    io::{
        Access, Disk, DiskFile,
        sim::{SimDisk, rng::SimRng},
    },
    log::{
        Log, Notice,
        tests::{DIR, append_each, event, now, tiny},
    },
    offset::Position,
    reader::ReadQuery,
    recovery::OpenReport,
    repair,
    restore::{Until, restore_log},
    segment::SegmentName,
    selection::Order,
    settings::{LogRetention, LogSettings, TopicRetention, TopicSettings},
    stopped::{StoppedLog, Taker},
    topic::TopicNumber,
    verify::verify,
};

fn config() -> LogConfig {
    LogConfig { snapshot_segments: 2, compress_after_s: 1_000_000_000, ..tiny() }
}

fn open(disk: &SimDisk) -> (Log<SimDisk>, OpenReport) {
    Log::open(disk.clone(), Path::new(DIR), config(), now(1)).expect("the log opens")
}

fn refused(disk: &SimDisk) -> OpenError {
    match Log::open(disk.clone(), Path::new(DIR), config(), now(1)) {
        Ok(_) => panic!("the log opened"),
        Err(error) => error,
    }
}

/// Appends all that a state can consist of.
fn fill(log: &mut Log<SimDisk>, rng: &mut SimRng, rounds: usize) {
    for _ in 0..rounds {
        let topic = format!("rooms/{}", rng.index(20));
        let mut new = event(&topic, "1");
        if rng.chance(30) {
            new.id = Some(EventId::parse(&format!("id-{}", log.next())).expect("an id"));
        }
        log.append(vec![new], now(2)).expect("staged");
        if rng.chance(20) {
            let id = ProducerId::parse(&format!("p{}", rng.index(5))).expect("a name");
            let (epoch, scope) = (log.next().get(), OffsetScope::Log);
            let producer = Some(ProducerClaim { id, epoch, seq: 0, scope });
            let append = Append { events: vec![event(&topic, "2")], expected: None, producer };
            log.append(append, now(2)).expect("the first of its epoch");
        }
        if rng.chance(10) {
            control(log, rng, &topic);
        }
        log.run_ops(now(3));
    }
}

fn control(log: &mut Log<SimDisk>, rng: &mut SimRng, topic: &str) {
    let settings = TopicSettings {
        retain: TopicRetention { count: Some(1_000), ..TopicRetention::default() },
        ..TopicSettings::default()
    };
    let control = match rng.below(4) {
        0 => Control::Deleted(TopicsDeleted::of(vec![topic.to_owned()])),
        1 => Control::Trimmed(TopicTrimmed { topic: topic.to_owned(), before: log.next().get() }),
        2 => Control::Topic(TopicRule { pattern: topic.to_owned(), settings: Some(settings) }),
        _ => Control::Topic(TopicRule { pattern: topic.to_owned(), settings: None }),
    };
    log.append_control(&control, now(2)).expect("staged");
}

fn keep(log: &mut Log<SimDisk>, count: u64) {
    let retain = LogRetention { count: Some(count), ..LogRetention::default() };
    log.append_control(&Control::Log(LogSettings { retain }), now(2)).expect("staged");
}

/// All that is known beside events, as text. Topics with events before their floor are counted by who asks.
fn state(log: &Log<SimDisk>) -> String {
    state_from(log, Offset::ZERO)
}

/// The same of a log that begins at an offset above 0: an older snapshot has counted what is gone since, and who
/// asks counts those topics anew as well.
fn state_from(log: &Log<SimDisk>, start: Offset) -> String {
    let mut lines = Vec::new();
    for topic in log.topics().page("", None, usize::MAX) {
        let (name, last) = (&topic.topic, log.topics().last_ever(&topic.topic));
        match log.rules().floors().of(name).max(start) {
            Offset::ZERO => lines.push(format!("{topic:?} {last:?}")),
            _ if topic.last < start => {}
            _ => lines.push(format!("{name} {} {last:?} {}", topic.number, topic.last_time_ms)),
        }
    }
    lines.extend(log.ids().iter().map(|id| format!("{id:?}")));
    let mut producers: Vec<_> = log.producers().iter().map(|known| format!("{known:?}")).collect();
    producers.sort();
    lines.extend(producers);
    let rules = log.rules();
    lines.push(format!("{:?} {}", rules.log(), rules.keep_from()));
    lines.extend(rules.topics().map(|rule| format!("{rule:?}")));
    let floors = rules.floors();
    let floors: BTreeMap<_, _> = floors
        .iter()
        .filter(|(_, floor)| *floor > start)
        .map(|(topic, floor)| (topic, (floor, floors.said_at(topic))))
        .collect();
    lines.push(format!("{floors:?}"));
    lines.join("\n")
}

/// Two states are the same; told by the first line that is not.
fn same(left: &str, right: &str, context: &str) {
    for (left, right) in left.lines().zip(right.lines()) {
        assert_eq!(left, right, "{context}");
    }
    assert_eq!(left.lines().count(), right.lines().count(), "{context}");
}

fn names(disk: &SimDisk) -> Vec<String> {
    let mut names = disk.list(Path::new(DIR)).expect("the directory");
    names.sort();
    names
}

fn snapshots(disk: &SimDisk) -> Vec<PathBuf> {
    let offsets = read::offsets(&names(disk));
    offsets.iter().map(|offset| Path::new(DIR).join(file_name(*offset))).collect()
}

fn remove(disk: &SimDisk, path: &Path) {
    disk.remove(path).expect("a file");
}

fn verified(disk: &SimDisk) -> u64 {
    verify(disk, Path::new(DIR), &mut |_| ()).expect("not in use").findings
}

/// A log with so many rounds in it, killed.
fn filled(seed: u64, rounds: usize) -> SimDisk {
    let disk = SimDisk::new(seed);
    let (mut log, _) = open(&disk);
    fill(&mut log, &mut SimRng::new(seed), rounds);
    assert!(log.snapshot_totals().made > 1, "{:?}", log.snapshot_totals());
    drop(log);
    disk.kill()
}

#[test]
fn a_log_is_the_same_with_all_snapshots_and_with_fewer_and_without() {
    for seed in 0..20 {
        let disk = filled(seed, 200);
        assert_eq!(verified(&disk), 0);
        let paths = snapshots(&disk);
        assert_eq!(paths.len(), 2, "the newest two are kept");
        let expected = state(&open(&disk.fork(1)).0);
        for removed in [&paths[..1], &paths[1..], &paths[..]] {
            let disk = disk.fork(1);
            removed.iter().for_each(|path| remove(&disk, path));
            same(&state(&open(&disk).0), &expected, &format!("seed {seed}, without {removed:?}"));
        }
    }
}

#[test]
fn what_lies_below_a_snapshot_is_not_read_again() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk);
    append_each(&mut log, 100);
    drop(log);
    let disk = disk.kill();
    let expected = state(&open(&disk.fork(1)).0);
    // The last section of the first index is not among what stays in memory.
    let path = Path::new(DIR).join("00000000000000000000.1.idx");
    let bytes = disk.bytes(&path).expect("an index");
    disk.flip_bit(&path, Position::new(bytes.len() as u64 - 1), 0);
    let (log, report) = open(&disk.fork(1));
    same(&state(&log), &expected, "with snapshots");
    assert_eq!(report.scanned.len(), 1, "the last one alone");
    snapshots(&disk).iter().for_each(|path| remove(&disk, path));
    let (log, report) = open(&disk);
    same(&state(&log), &expected, "without");
    assert_eq!(report.scanned.len(), 2, "its index is made anew");
}

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

#[test]
fn a_newer_snapshot_is_refused_by_name() {
    let disk = filled(2, 200);
    let path = &snapshots(&disk)[0];
    let mut bytes = disk.bytes(path).expect("a snapshot");
    bytes[8] += 1;
    let crc = crc_without_field(bytes.first_chunk().expect("a header"));
    bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    write(&disk, path, &bytes);
    assert!(matches!(refused(&disk), OpenError::NewerVersion { .. }));
}

fn write(disk: &SimDisk, path: &Path, bytes: &[u8]) {
    let file = disk.open(path, Access::Write).or_else(|_| disk.create(path, Access::Write));
    let file = file.expect("a file");
    file.write_at(bytes, Position::default()).expect("space");
    file.sync_data().expect("a disk that works");
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
    for disk in [without, torn] {
        assert!(matches!(refused(&disk), OpenError::Corrupt(_)));
        assert!(verified(&disk) > 0);
        let repaired = repair::repair(&disk, Path::new(DIR), now(1)).expect("a plan");
        let repaired = repaired.expect("something to do");
        assert_eq!((repaired.plan.beyond.len(), repaired.new_tag), (0, None), "{repaired:?}");
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

/// A log from which retention took much: 200 rounds, of which the last few events are kept.
fn retained(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    let (mut log, _) = open(&disk);
    let rng = &mut SimRng::new(seed);
    keep(&mut log, 60);
    fill(&mut log, rng, 300);
    let totals = log.snapshot_totals();
    assert!(totals.merged_stubs > 5, "{totals:?}");
    drop(log);
    disk.kill()
}

fn ground(disk: &SimDisk) -> Offset {
    let is_ground = |offset: &Offset| {
        let header = read::read_header(disk, Path::new(DIR), *offset).expect("readable");
        header.is_ok_and(|header| header.kept_from == *offset)
    };
    read::offsets(&names(disk)).into_iter().find(is_ground).unwrap_or_default()
}

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

/// A backup of a stopped log, with its directory.
fn backed_up(disk: &SimDisk) -> Result<PathBuf, OpenError> {
    let to = PathBuf::from("/backup");
    let _ = disk.create_dir(&to);
    back_up_log(disk, Path::new(DIR), None, &to, Reach::Stopped).map(|_| to)
}

/// A log whose files end before its newest snapshot.
fn cut_short(disk: &SimDisk) -> SimDisk {
    let disk = disk.fork(1);
    let newest = read::offsets(&names(&disk))[0];
    let segments: Vec<_> =
        names(&disk).iter().filter_map(|name| SegmentName::parse(name)).collect();
    let last_below = segments.iter().rfind(|(name, _)| name.base_offset < newest).expect("one").0;
    for (name, file) in segments.iter().filter(|(name, _)| *name >= last_below) {
        remove(&disk, &Path::new(DIR).join(name.file_name(*file)));
    }
    disk
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

/// What proves a loss is not left out, as if there was none.
#[test]
fn a_log_that_ends_before_its_snapshot_is_not_copied_as_a_shorter_one() {
    let disk = filled(3, 200);
    let newest = read::offsets(&names(&disk))[0];
    let short = cut_short(&disk);
    assert!(matches!(refused(&short), OpenError::Corrupt(_)));
    match backed_up(&short) {
        Err(OpenError::Corrupt(damage)) => assert_eq!(damage.file, snapshots(&short)[0]),
        other => panic!("{other:?}"),
    }
    let to = Path::new("/restored");
    for (until, is_refused) in [
        (Until::End, true),
        (Until::Offset(newest), true),
        (Until::TimeMs(u64::MAX), true),
        (Until::Offset(Offset::new(10)), false),
    ] {
        let short = short.fork(1);
        short.create_dir(to).expect("a free name");
        let restored = restore_log(&short, Path::new(DIR), to, until, now(1));
        match restored {
            Err(OpenError::Corrupt(_)) => assert!(is_refused, "{until:?}"),
            Ok(restored) => assert!(!is_refused, "{until:?}: {restored:?}"),
            Err(error) => panic!("{until:?}: {error}"),
        }
    }
    let stopped = StoppedLog::open(&short, Path::new(DIR)).expect("not in use");
    let read = |range: std::ops::Range<u64>| {
        let (mut end, mut gaps) = (0, Vec::new());
        let query = ReadQuery {
            topics: Vec::new(),
            from: Offset::new(range.start),
            end: Offset::new(range.end),
            order: Order::Ascending,
        };
        let take: Taker<'_> = &mut |part| {
            match part {
                Ok(hits) => end = hits.events().last().map_or(end, |e| e.offset().get() + 1),
                Err(ReadError::Gap { from, to, .. }) => gaps.push((from.get(), to.get())),
                Err(error) => panic!("{error}"),
            }
            ControlFlow::Continue(())
        };
        stopped.read(&query, take).expect("of this version");
        (end, gaps)
    };
    let (end, gaps) = read(0..u64::MAX);
    assert_eq!(gaps, [(end, newest.get())]);
    assert_eq!(read(end + 1..u64::MAX).1, [(end + 1, newest.get())]);
    assert_eq!(read(0..end).1, []);
    assert_eq!(read(newest.get()..u64::MAX).1, []);
}

/// An attempt before may have copied a snapshot that was damaged, and made anew since.
#[test]
fn a_backup_that_is_tried_again_takes_snapshots_anew() {
    let disk = filled(4, 100);
    let backup = backed_up(&disk).expect("backed up");
    let name = file_name(read::offsets(&names(&disk))[0]);
    remove(&disk, &backup.join(&name));
    write(&disk, &backup.join(&name), b"an old one");
    backed_up(&disk).expect("backed up");
    assert_eq!(disk.bytes(&backup.join(&name)), disk.bytes(&Path::new(DIR).join(&name)));
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

/// A log that is idle makes no new one, and nobody opens it: then the scrub sees it.
#[test]
fn a_scrub_finds_a_damaged_snapshot_and_reports_it_once() {
    let disk = filled(1, 100);
    let scrubbed = LogConfig { scrub_interval_s: 100, scrub_bytes_per_s: 1 << 20, ..config() };
    let (mut log, _) = Log::open(disk.clone(), Path::new(DIR), scrubbed, now(1)).expect("it opens");
    let pass = |log: &mut Log<SimDisk>, from_ms: u64| {
        let mut now_ms = from_ms;
        while now_ms < from_ms + 90_000 {
            log.run_ops(now(now_ms));
            now_ms = log.deadline().expect("limits of time").max(now_ms + 1);
        }
        let mut found = Vec::new();
        for notice in log.take_notices() {
            match notice {
                Notice::SnapshotDamaged(damage) => found.push(damage.file),
                Notice::Scrubbed { damaged, .. } => assert_eq!(damaged, 0),
                _ => {}
            }
        }
        found
    };
    let passes = log.scrub_totals().passes;
    assert!(pass(&mut log, 4_000_000).is_empty());
    let path = &snapshots(&disk)[1];
    disk.flip_bit(path, Position::new(300), 3);
    assert_eq!(pass(&mut log, 4_110_000).as_slice(), std::slice::from_ref(path));
    assert!(pass(&mut log, 4_220_000).is_empty(), "said once");
    assert!(log.scrub_totals().passes >= passes + 3);
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

/// Counts are those of the generation that was counted: what was rewritten since is counted anew.
#[test]
fn topics_of_rewritten_segments_are_to_be_counted() {
    let disk = SimDisk::new(7);
    let compacting = LogConfig { compress_after_s: 0, ..config() };
    let (mut log, _) = open(&disk);
    for number in 0..120 {
        let topic = if number % 3 == 0 { "kept" } else { "gone" };
        log.append(vec![event(topic, "1")], now(2)).expect("staged");
        log.run_ops(now(3));
    }
    let made = log.snapshot_totals().made;
    assert!(made > 0);
    let deleted = Control::Deleted(TopicsDeleted::of(vec!["gone".into()]));
    log.append_control(&deleted, now(3)).expect("staged");
    drop(log);
    let disk = disk.kill();
    let (mut log, _) =
        Log::open(disk.clone(), Path::new(DIR), compacting, now(1)).expect("it opens");
    log.append(vec![event("gone", "1")], now(3)).expect("staged");
    log.run_ops(now(100_000));
    assert!(log.compaction_totals().segments > 0);
    drop(log);
    let (mut log, _) = open(&disk.kill());
    let number = log.topics().number_of("kept").expect("known");
    assert!(log.take_lessened(number) && !log.take_lessened(number), "said once");
}

/// A backup of a log whose stubs were merged is one that opens, and can be cut wherever the log still is.
#[test]
fn a_backup_is_restored_to_any_offset_that_is_kept() {
    let disk = retained(8);
    let (from, to) = (Path::new("/backup"), Path::new("/restored"));
    disk.create_dir(from).expect("a free name");
    let done = back_up_log(&disk, Path::new(DIR), None, from, Reach::Stopped).expect("backed up");
    let found = verify(&disk, from, &mut |finding| panic!("{finding}")).expect("not in use");
    assert_eq!(found.end, done.end);
    let begin = ground(&disk);
    for cut in (begin.get()..=done.end.get()).step_by(7).map(Offset::new) {
        let disk = disk.fork(1);
        disk.create_dir(to).expect("a free name");
        let restored = restore_log(&disk, from, to, Until::Offset(cut), now(1)).expect("restored");
        let found = verify(&disk, to, &mut |finding| panic!("{finding}")).expect("not in use");
        let kept = disk.list(to).expect("listed");
        assert!(read::offsets(&kept).iter().all(|offset| *offset <= restored.end), "{kept:?}");
        let (log, report) = Log::open(disk, to, config(), now(1)).expect("it opens");
        assert_eq!((report.end, found.end), (restored.end, restored.end));
        assert!(restored.end >= cut.min(log.segments().end()), "{cut}: {restored:?}");
        assert!(log.start() >= begin, "{cut}: nothing is kept before {begin}, not {}", log.start());
        assert!(log.ids().iter().all(|id| id.offset < restored.end));
    }
    disk.create_dir(to).expect("a free name");
    let before = Until::Offset(Offset::new(begin.get() - 1));
    let refused = restore_log(&disk, from, to, before, now(1)).expect_err("nothing is kept there");
    assert!(refused.to_string().contains("cut later"), "{refused}");
}

/// `STRANDLINE_BLESS=1` writes it anew: a difference is a new version of the format, or a mistake.
#[test]
fn the_bytes_of_a_snapshot_are_what_they_were() {
    let topic = |number, name, count, first, last| TopicAt {
        number: TopicNumber::new(number),
        name,
        count,
        first: Offset::new(first),
        last: Offset::new(last),
        first_time_ms: if count > 0 { 1_763_700_000_000 } else { 0 },
        last_time_ms: 1_763_700_001_000,
        is_lessened: number == 7,
    };
    let topics = [
        topic(0, "rooms/42/messages", 3, 4_711_000, 4_711_900),
        topic(1, "käse", 0, 17, 17),
        topic(7, "$log", 1, 4_711_500, 4_711_500),
    ];
    let mut encoded = Vec::new();
    for (topic, next) in topics.iter().zip([0, 1, 2]) {
        topics::encode(&mut encoded, topic, next);
    }
    let segment = |base, end, generation| LiveSegment {
        base: Offset::new(base),
        end: Offset::new(end),
        generation,
        incarnation: Incarnation::new([u8::try_from(generation).expect("small"); 16]),
    };
    let live = [segment(4_000_000, 4_500_000, 3), segment(4_600_000, 4_712_000, 1)];
    let (offset, time_ms) = (Offset::new(4_711_000), 1_763_700_000_000);
    let id = IdEntry { hash: [1, 2], fingerprint: 3, offset, time_ms };
    let producer =
        ProducerEntry { hash: [4, 5], epoch: 6, seq: 7, first: offset, events: 8, time_s: 9 };
    let mut rules = crate::rules::Rules::default();
    let retain = LogRetention { age_s: Some(3_600), bytes: None, count: Some(1_000_000) };
    let settings = TopicSettings::default();
    let rule = TopicRule { pattern: "rooms/**".into(), settings: Some(settings) };
    rules.apply(&Control::Log(LogSettings { retain }), offset);
    rules.apply(&Control::Topic(rule), offset);
    rules.apply(&Control::Deleted(TopicsDeleted::of(vec!["käse".into()])), offset);
    let kept_from = Offset::new(4_000_000);
    let stored = rules::StoredRules::of(&rules, kept_from);
    let (controls, floors) = stored.encode();
    let parts = Parts {
        offset: Offset::new(4_712_000),
        kept_from,
        last_time_ms: 1_763_700_001_000,
        incarnation: Incarnation::new([7; 16]),
        topic_count: 3,
        sections: [
            segments::encode(&live),
            encoded,
            delta::encode_ids([id].iter(), Offset::ZERO),
            delta::encode_producers([producer].iter()),
            controls,
            floors,
        ],
    };
    let bytes = parts.assemble();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/snapshot.bin");
    if std::env::var_os("STRANDLINE_BLESS").is_some() {
        std::fs::write(&path, &bytes).expect("the golden file is written");
    }
    let golden = std::fs::read(&path).expect("the golden file is there");
    assert!(golden == bytes, "{} bytes, golden {}", bytes.len(), golden.len());

    let snapshot = Snapshot::decode(&golden).expect("a snapshot");
    assert_eq!((snapshot.segments(), snapshot.header().kept_from), (&live[..], kept_from));
    let mut known = Vec::new();
    let walked = snapshot.for_each_topic(|topic| {
        known.push(format!("{topic:?}"));
        Ok::<(), SnapshotError>(())
    });
    assert_eq!((walked, known), (Ok(()), topics.map(|topic| format!("{topic:?}")).to_vec()));
    let window = crate::once::IdWindow { events: 10, time_ms: 1_000 };
    let mut state = LogState::new(window);
    snapshot.add_to(&mut state);
    assert_eq!(state.ids.iter().collect::<Vec<_>>(), [&id]);
    assert_eq!(state.producers.iter().collect::<Vec<_>>(), [&producer]);
    assert_eq!((state.rules.log().retain, state.rules.floors().of("käse")), (retain, offset));
    assert_eq!(state.rules.floors().said_at("käse"), offset);
    assert_eq!(state.rules.set_for("rooms/**"), Some(&settings));
}
