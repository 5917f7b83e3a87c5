//! The log over the simulated disk, with the driver in the tests' hands.

mod committing;
mod compacting;
mod doubting;
mod failing;
mod filling;
mod floors;
mod freeing;
mod full_disk;
mod full_start;
mod keeping;
mod kept;
mod looking;
mod loosening;
mod once;
mod opening;
mod reserving;
mod resting;
mod said_alone;
mod scrubbing;
mod settings_alone;

use std::{collections::BTreeMap, path::PathBuf};

use bytes::Bytes;

use super::*;
use crate::{
    append::{
        Append, ExpectedOffset, OffsetScope, ProducerClaim, ProducerId, ProducerPlace, TakenBack,
    },
    config::SyncMode,
    control::{Control, TopicRule, TopicTrimmed, TopicsDeleted},
    error::{AppendError, Corruption, OpenError},
    event::{EventId, NewEvent},
    io::{
        Access, DiskFile,
        sim::{Fault, SimDisk},
    },
    reader::ReadQuery,
    recovery::OpenReport,
    scan::FrameScan,
    selection::Order,
    topic::Topic,
};

pub(crate) const DIR: &str = "/log";

pub(crate) fn now(boot_ms: u64) -> Now {
    Now { wall_ms: 1_700_000_000_000 + boot_ms, boot_ms }
}

pub(crate) fn tiny() -> LogConfig {
    LogConfig {
        segment_bytes: 64 << 10,
        frame_bytes_target: 8 << 10,
        frame_bytes_max: 64 << 10,
        event_bytes_max: 60 << 10,
        staged_bytes_max: 256 << 10,
        preallocate_bytes_min: 16 << 10,
        preallocate_bytes_max: 32 << 10,
        recent_frames_bytes_max: 16 << 10,
        reserve_bytes: 16 << 10,
        id_window_s: 100_000,
        ..LogConfig::default()
    }
}

/// Segments that are more than five times as long as the reserve of a log without much in it.
fn long_segments() -> LogConfig {
    LogConfig { segment_bytes: 512 << 10, reserve_bytes: 96 << 10, ..tiny() }
}

/// Nothing of it gets shorter.
fn noise(number: u64, bytes: usize) -> String {
    let mut rng = crate::io::sim::rng::SimRng::new(number);
    rng.bytes(bytes).iter().map(|byte| char::from(byte % 94 + 33)).collect()
}

pub(crate) fn event(topic: &str, data: &str) -> NewEvent {
    NewEvent::json(Topic::parse(topic).expect("a topic"), Bytes::copy_from_slice(data.as_bytes()))
}

/// Events of so many topics that the log does not know yet, each with a name of `name_bytes`.
fn of_new_topics(first: usize, count: usize, name_bytes: usize) -> Vec<NewEvent> {
    let name = |number: usize| {
        let levels = "x".repeat(100) + "/";
        format!("{number:0>6}/{}", levels.repeat(5))[..name_bytes - 1].to_owned() + "y"
    };
    (first..first + count).map(|number| event(&name(number), "1")).collect()
}

pub(crate) fn open_with(disk: &SimDisk, config: LogConfig) -> (Log<SimDisk>, OpenReport) {
    Log::open(disk.clone(), Path::new(DIR), config, now(0)).expect("the log opens")
}

pub(crate) fn open(disk: &SimDisk) -> Log<SimDisk> {
    open_with(disk, tiny()).0
}

pub(crate) fn open_error(disk: &SimDisk) -> OpenError {
    match Log::open(disk.clone(), Path::new(DIR), tiny(), now(0)) {
        Ok(_) => panic!("the log opened"),
        Err(error) => error,
    }
}

pub(crate) fn append(log: &mut Log<SimDisk>, data: &str) -> Appended {
    log.append(vec![event("a", data)], now(1)).expect("staged")
}

/// Appends one event after the other, each in its own frame, to their end.
pub(crate) fn append_each(log: &mut Log<SimDisk>, count: usize) {
    for number in 0..count {
        append(log, &format!("{number}"));
        log.run_ops(now(2));
        assert!(log.deadline().is_none_or(|boot_ms| boot_ms > 2), "a driver would spin");
    }
}

pub(crate) fn close(log: &mut Log<SimDisk>) {
    log.begin_close();
    log.run_ops(now(3));
    assert!(log.is_closed());
}

pub(crate) fn log_files(disk: &SimDisk) -> Vec<PathBuf> {
    let mut names = disk.list(Path::new(DIR)).expect("the directory");
    names.retain(|name| name.ends_with(".log"));
    names.sort();
    names.into_iter().map(|name| Path::new(DIR).join(name)).collect()
}

/// All events below the visible offset, as the files have them.
pub(crate) fn stored(disk: &SimDisk, visible: Offset) -> Vec<String> {
    let mut events = BTreeMap::new();
    for path in log_files(disk) {
        let file = disk.open(&path, Access::Read).expect("a segment");
        let mut bytes = vec![0; 4096];
        file.read_exact_at(&mut bytes, Position::default()).expect("a header");
        let header = SegmentHeader::decode(&bytes).expect("a header");
        let mut frames = FrameScan::new(&file, &header);
        // A later segment says more about its offsets than what lies behind the end of this one.
        events.split_off(&header.base_offset);
        while let Ok((frame, _)) = frames.next_frame().expect("readable") {
            for event in frame.events() {
                let data = String::from_utf8(event.data().to_vec()).expect("text");
                events.insert(event.offset(), data);
            }
        }
    }
    events.split_off(&visible);
    assert_eq!(events.len() as u64, visible.get(), "no gap");
    events.into_values().collect()
}

pub(crate) fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

/// Runs jobs and syncs at once, and gives writes back instead of doing them.
pub(crate) fn hold_writes(log: &mut Log<SimDisk>, disk: &SimDisk) -> Vec<Op<SimDisk>> {
    hold(log, disk, |op| matches!(op, Op::Write { .. }))
}

/// Runs everything but these; returns them.
fn hold(
    log: &mut Log<SimDisk>,
    disk: &SimDisk,
    is_held: impl Fn(&Op<SimDisk>) -> bool,
) -> Vec<Op<SimDisk>> {
    let mut held = Vec::new();
    while let Some(op) = log.next_op(now(2)) {
        if is_held(&op) {
            held.push(op);
        } else {
            log.complete(op.run(disk), now(2));
        }
    }
    held
}

/// One event with a key.
fn keyed(topic: &str, key: &str, data: &str) -> NewEvent {
    let key = Some(crate::event::EventKey::parse(key).expect("a key"));
    NewEvent { key, ..event(topic, data) }
}

/// A log of several sealed segments with events of three topics and ten keys.
fn mixed(disk: &SimDisk, batches: usize) -> Log<SimDisk> {
    let mut log = open(disk);
    for number in 0..batches {
        let data = |text: &str| format!("{text}{number:->500}");
        let batch = vec![
            keyed("keep", "k", &data("x")),
            keyed("keys", &format!("k{}", number % 10), &data("y")),
            event("gone", &data("z")),
        ];
        log.append(batch, now(1)).expect("staged");
        log.run_ops(now(2));
    }
    log
}

/// What is read from the first offset that is kept.
fn kept(log: &Log<SimDisk>) -> Vec<String> {
    let query = ReadQuery {
        topics: vec![crate::topic::TopicPattern::parse("**").expect("a pattern")],
        from: log.start(),
        end: log.visible(),
        order: Order::Ascending,
    };
    let mut reader = crate::reader::Reader::new(log.segments().clone(), &query);
    let mut data = Vec::new();
    while let Some(hits) = reader.next_blocking().expect("readable") {
        data.extend(
            hits.events().map(|event| String::from_utf8(event.data().to_vec()).expect("text")),
        );
    }
    data
}

/// Sets the limits of the log.
fn keep(log: &mut Log<SimDisk>, retain: crate::settings::LogRetention) {
    let settings = crate::settings::LogSettings { retain };
    log.append_control(&Control::Log(settings), now(1)).expect("staged");
    log.run_ops(now(2));
}

/// One event of a producer.
fn claimed(epoch: u64, seq: u64, data: &str) -> Append {
    let id = ProducerId::parse("p").expect("a name");
    let producer = Some(ProducerClaim { id, epoch, seq, scope: OffsetScope::Topic });
    Append { events: vec![event("a", data)], expected: None, producer }
}

#[test]
fn limits_are_kept_to_the_byte() {
    let disk = SimDisk::new(1);
    let config = LogConfig { event_bytes_max: 1_000, ..tiny() };
    let (mut log, _) = open_with(&disk, config);
    let data = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    append(&mut log, &data(1_000));
    assert_eq!(
        log.append(vec![event("a", &data(1_001))], now(1)),
        Err(AppendError::EventTooLarge { event_bytes: 1_001, event_bytes_max: 1_000 })
    );
    let batch: Vec<NewEvent> = (0..70).map(|_| event("a", &data(1_000))).collect();
    assert!(matches!(log.append(batch, now(1)), Err(AppendError::BatchTooLarge { .. })));
    assert_eq!(log.next(), Offset::new(1), "refused whole");
    let batch = |_| (0..50).map(|_| event("a", &data(1_000))).collect::<Vec<_>>();
    let staged = (0..20).map(batch).map(|batch| log.append(batch, now(1))).collect::<Vec<_>>();
    assert!(matches!(staged.last(), Some(Err(AppendError::Overloaded { .. }))));
    log.run_ops(now(2));
    assert_eq!(log.visible(), log.next());
}

#[test]
fn plans_name_memory_and_files_in_order() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open_with(&disk, LogConfig { segment_bytes: 256 << 10, ..tiny() });
    append_each(&mut log, 10);
    let query = |from, end, order| ReadQuery {
        topics: Vec::new(),
        from: Offset::new(from),
        end: Offset::new(end),
        order,
    };
    let plan = log.plan_unsealed(&query(0, 99, Order::Ascending), 1 << 20);
    assert_eq!((plan.considered, plan.pieces.len()), (Offset::new(10), 5), "one read, 4 in memory");
    match &plan.pieces[0] {
        UnsealedPiece::Read(read) => {
            assert_eq!(read.offsets, Offset::ZERO..Offset::new(6));
            assert_eq!((read.position, read.len), (Position::new(4096), 6 * 4096));
        }
        UnsealedPiece::Frame(_) => panic!("it is not in memory any more"),
    }
    let plan = log.plan_unsealed(&query(2, 99, Order::Ascending), 4096);
    assert_eq!((plan.considered, plan.pieces.len()), (Offset::new(3), 1));
    let plan = log.plan_unsealed(&query(2, 8, Order::Descending), 1 << 20);
    assert_eq!((plan.considered, plan.pieces.len()), (Offset::new(2), 3));
    assert!(
        matches!(&plan.pieces[0], UnsealedPiece::Frame(frame) if frame.base_offset() == Offset::new(7))
    );
    assert!(
        matches!(&plan.pieces[2], UnsealedPiece::Read(read) if read.offsets.start == Offset::new(2))
    );
    let plan = log.plan_unsealed(&query(10, 99, Order::Ascending), 4096);
    assert_eq!((plan.considered, plan.pieces.len()), (Offset::new(10), 0));
}
