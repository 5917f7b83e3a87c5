//! Whatever stands in a log's files: opening it, reading it, `verify`, `dump`, `repair` and `restore` up to any place end
//! without a panic, and a log that opens is sound afterwards.
//!
//! The input is either the files themselves, or a list of changes to the files of a small log, whose checksums may be
//! made right again behind the changes.

#![no_main]

use std::{collections::BTreeMap, ops::ControlFlow, path::Path, sync::LazyLock};

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use strandline_storage::{
    append::{Append, OffsetScope, ProducerClaim, ProducerId},
    config::LogConfig,
    control::{Control, TopicsDeleted},
    event::{EventId, NewEvent},
    index::{self, SectionKind},
    io::{Access, Disk, DiskFile, sim::SimDisk},
    log::{Log, Now},
    offset::{Offset, Position},
    reader::{ReadQuery, Reader},
    repair,
    restore::{Until, restore_log},
    selection::Order,
    settings::{LogRetention, LogSettings},
    stopped::StoppedLog,
    topic::Topic,
    verify::verify,
};

#[path = "recovery/mended.rs"]
mod mended;

const DIR: &str = "/log";
const RESTORED: &str = "/restored";
const NOW: Now = Now { wall_ms: 1_750_000_000_000, boot_ms: 1_000 };
/// Limits were looked at.
const LATER: Now = Now { wall_ms: 1_750_000_002_000, boot_ms: 3_000 };

/// Sealed segments, the older of which were rewritten (compressed), stubs or snapshots of what is gone, what says how
/// far limits had reached and how far it was synced, and a segment without an index, of a process that was killed.
static SMALL_LOG: LazyLock<SimDisk> = LazyLock::new(|| {
    let mut disk = SimDisk::new(1);
    for round in 0..4 {
        let mut log = open(&disk, DIR).expect("a sound log");
        if round == 2 {
            let retain = LogRetention { count: Some(12), ..LogRetention::default() };
            let control = Control::Log(LogSettings { retain });
            log.append_control(&control, NOW).expect("staged");
        }
        for number in 0..6 {
            let topic = Topic::parse(if number % 2 == 0 { "a" } else { "b/c" }).expect("a topic");
            let id = Some(EventId::parse(&format!("{round}/{number}")).expect("an id"));
            let event = NewEvent { id, ..NewEvent::json(topic, Bytes::from_static(b"1")) };
            log.append(vec![event], NOW).expect("staged");
            log.run_ops(NOW);
        }
        let id = ProducerId::parse("p").expect("a name");
        let producer = Some(ProducerClaim { id, epoch: 1, seq: round, scope: OffsetScope::Topic });
        let topic = Topic::parse("b/c").expect("a topic");
        let events = vec![NewEvent::json(topic, Bytes::from_static(b"2"))];
        log.append(Append { events, expected: None, producer }, NOW).expect("staged");
        let deleted = TopicsDeleted::of(vec![if round == 3 { "a".into() } else { "b/d".into() }]);
        log.append_control(&Control::Deleted(deleted), NOW).expect("staged");
        log.run_ops(NOW);
        log.run_ops(LATER);
        drop(log);
        disk = disk.kill();
    }
    let names = disk.list(Path::new(DIR)).expect("the directory");
    for ending in ["earliest", "end.mark", ".snap", ".1.log", ".3.log", ".3.idx"] {
        assert!(names.iter().any(|name| name.ends_with(ending)), "{ending}: {names:?}");
    }
    for kind in [SectionKind::IDS, SectionKind::PRODUCERS, SectionKind::CONTROLS] {
        let has_some = |name: &&String| {
            let bytes = disk.bytes(&Path::new(DIR).join(name)).expect("listed");
            let header = index::IndexHeader::decode(&bytes);
            name.ends_with(".idx") && header.is_ok_and(|header| header.section(kind).bytes > 0)
        };
        assert!(names.iter().any(|name| has_some(&name)), "{kind}: {names:?}");
    }
    // What is sound stays as it is: else a layout has changed, and what is mended would not get beyond its checksums.
    let mended = disk.fork(1);
    mend(&mended);
    for path in names.iter().map(|name| Path::new(DIR).join(name)) {
        assert!(
            mended.bytes(&path) == disk.bytes(&path),
            "{} has its checksums elsewhere",
            path.display()
        );
    }
    disk
});

fn open(disk: &SimDisk, dir: &str) -> Option<Log<SimDisk>> {
    let config = LogConfig {
        segment_bytes: 64 << 10,
        frame_bytes_target: 16 << 10,
        frame_bytes_max: 64 << 10,
        event_bytes_max: 32 << 10,
        preallocate_bytes_min: 16 << 10,
        preallocate_bytes_max: 16 << 10,
        blocks_from_bytes: 1,
        reserve_bytes: 16 << 10,
        compress_after_s: 0,
        snapshot_segments: 1,
        ..LogConfig::default()
    };
    Log::open(disk.clone(), Path::new(dir), config, NOW).ok().map(|(log, _)| log)
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else { return };
    let disk = if kind % 4 == 0 { from_bytes(rest) } else { from_changes(rest) };
    if kind % 4 == 1 {
        mend(&disk);
    }
    look(&disk);
    let place = u64::from(kind >> 4) * 2;
    restore(
        &disk,
        match kind >> 2 & 3 {
            0 => Until::End,
            1 => Until::TimeMs(NOW.wall_ms + place),
            _ => Until::Offset(Offset::new(place)),
        },
    );
    if let Some(log) = open(&disk, DIR) {
        read(&log);
        drop(log);
        let disk = disk.kill();
        assert!(open(&disk, DIR).is_some(), "a log that opened opens again");
    } else {
        let _ = repair::repair(&disk, Path::new(DIR), NOW);
        look(&disk);
        drop(open(&disk, DIR));
    }
});

/// What is restored may be as rotten as what it was made of, and is read all the same.
fn restore(disk: &SimDisk, until: Until) {
    let disk = &disk.fork(2);
    disk.create_dir(Path::new(RESTORED)).expect("a free name");
    if restore_log(disk, Path::new(DIR), Path::new(RESTORED), until, NOW).is_ok()
        && let Some(log) = open(disk, RESTORED)
    {
        read(&log);
    }
}

/// The input is a `.log`, and from the half on an `.idx`.
fn from_bytes(data: &[u8]) -> SimDisk {
    let disk = SimDisk::new(1);
    disk.create_dir(Path::new(DIR)).expect("an empty disk");
    let (log, index) = data.split_at(data.len() / 2);
    for (name, content) in
        [("00000000000000000000.1.log", log), ("00000000000000000000.1.idx", index)]
    {
        let file = disk.create(&Path::new(DIR).join(name), Access::Write).expect("a new file");
        file.write_at(content, Position::default()).expect("space");
    }
    disk
}

/// Five bytes are one change: which file, where, and what. More than some tens leave nothing to find.
fn from_changes(data: &[u8]) -> SimDisk {
    let disk = SMALL_LOG.fork(1);
    for change in data.chunks_exact(5).take(50) {
        let mut names = disk.list(Path::new(DIR)).expect("the directory");
        names.sort_unstable();
        if names.is_empty() {
            return disk;
        }
        let path = Path::new(DIR).join(&names[usize::from(change[0]) % names.len()]);
        let at = u64::from(u16::from_le_bytes([change[1], change[2]]));
        let Ok(file) = disk.open(&path, Access::Write) else { continue };
        match change[3] % 16 {
            0 => drop(disk.remove(&path)),
            1 => drop(file.set_size(at)),
            2 => drop(file.write_at(&[change[4]; 4096], Position::new(at))),
            // Headers are where most of it is decided.
            3..8 => drop(file.write_at(&change[4..], Position::new(at % 192))),
            _ => drop(file.write_at(&change[4..], Position::new(at))),
        }
    }
    disk
}

/// Makes the checksums of all files right.
fn mend(disk: &SimDisk) {
    let mut names = disk.list(Path::new(DIR)).expect("the directory");
    // A log file comes before its index.
    names.sort_unstable_by(|left, right| right.cmp(left));
    let mut end_checksums = BTreeMap::new();
    for name in names {
        let path = Path::new(DIR).join(&name);
        let Some(mut bytes) = disk.bytes(&path) else { continue };
        match name.rsplit_once('.') {
            Some((segment, "log")) => {
                let last = mended::segment(&mut bytes);
                end_checksums.extend(last.map(|checksum| (segment.to_owned(), checksum)));
            }
            Some((segment, "idx")) => {
                mended::index(&mut bytes, end_checksums.get(segment).copied())
            }
            Some((_, "snap")) => mended::snapshot(&mut bytes),
            _ => mended::slots(&mut bytes),
        }
        if let Ok(file) = disk.open(&path, Access::Write) {
            let _ = file.write_at(&bytes, Position::default());
        }
    }
}

fn look(disk: &SimDisk) {
    let _ = verify(disk, Path::new(DIR), &mut |_| ());
    let _ = repair::plan(disk, Path::new(DIR));
    if let Ok(stopped) = StoppedLog::open(disk, Path::new(DIR)) {
        let _ = stopped.read(&everything(Order::Ascending), &mut |_| ControlFlow::Continue(()));
    }
}

fn read(log: &Log<SimDisk>) {
    for order in [Order::Ascending, Order::Descending] {
        let mut reader = Reader::new(log.segments().clone(), &everything(order));
        // A gap is passed over, any other error ends it.
        for _ in 0..1000 {
            match reader.next_blocking() {
                Ok(None) => break,
                Ok(Some(hits)) => hits.events().for_each(|event| drop(event.data().to_vec())),
                Err(_) => {}
            }
        }
    }
}

fn everything(order: Order) -> ReadQuery {
    ReadQuery { topics: Vec::new(), from: Offset::ZERO, end: Offset::MAX, order }
}
