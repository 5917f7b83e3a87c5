//! Snapshots of logs on the simulated disk, with all that a state can consist of.

use std::{collections::BTreeMap, ops::ControlFlow, path::Path, path::PathBuf};

use super::*;
use crate::{
    append::{Append, OffsetScope, ProducerClaim, ProducerId},
    backup::{Reach, back_up_log},
    config::LogConfig,
    control::{Control, TopicRule, TopicTrimmed, TopicsDeleted},
    end_mark::END_MARK_FILE_NAME,
    error::{OpenError, ReadError},
    event::{EventId, NewEvent},
    io::{
        Access, Disk, DiskFile,
        sim::{Fault, SimDisk, rng::SimRng},
    },
    log::{
        Log, Notice,
        tests::{DIR, append_each, event, now, tiny},
    },
    offset::Position,
    reader::ReadQuery,
    recovery::OpenReport,
    repair,
    restore::{Until, first_cut, restore_log},
    segment::SegmentName,
    selection::Order,
    settings::{LogRetention, LogSettings, TopicRetention, TopicSettings},
    stopped::{StoppedLog, Taker},
    topic::TopicNumber,
    verify::verify,
};

mod copies;
mod damage;
mod golden;
mod ground;
mod opening;

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

fn write(disk: &SimDisk, path: &Path, bytes: &[u8]) {
    let file = disk.open(path, Access::Write).or_else(|_| disk.create(path, Access::Write));
    let file = file.expect("a file");
    file.write_at(bytes, Position::default()).expect("space");
    file.sync_data().expect("a disk that works");
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
    // A log of before: a snapshot alone proves the loss.
    remove(&disk, &Path::new(DIR).join(END_MARK_FILE_NAME));
    disk
}
