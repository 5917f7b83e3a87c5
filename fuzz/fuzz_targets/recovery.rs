//! Whatever stands in a log's files: opening it, reading it, `verify`, `dump` and `repair` end without a
//! panic, and a log that opens is sound afterwards.
//!
//! The input is either the files themselves, or a list of changes to the files of a small log.

#![no_main]

use std::{ops::ControlFlow, path::Path, sync::LazyLock};

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use strandline_storage::{
    config::LogConfig,
    control::Control,
    event::NewEvent,
    io::{Access, Disk, DiskFile, sim::SimDisk},
    log::{Log, Now},
    offset::{Offset, Position},
    reader::{ReadQuery, Reader},
    repair,
    selection::Order,
    settings::{LogRetention, LogSettings},
    stopped::StoppedLog,
    topic::Topic,
    verify::verify,
};

const DIR: &str = "/log";
const NOW: Now = Now { wall_ms: 1_750_000_000_000, boot_ms: 1_000 };

/// Sealed segments, the older of which were rewritten (compressed), a stub, snapshots, and a segment without an
/// index, of a process that was killed.
static SMALL_LOG: LazyLock<SimDisk> = LazyLock::new(|| {
    let mut disk = SimDisk::new(1);
    for round in 0..4 {
        let mut log = open(&disk).expect("a sound log");
        if round == 2 {
            let retain = LogRetention { count: Some(8), ..LogRetention::default() };
            let control = Control::Log(LogSettings { retain });
            log.append_control(&control, NOW).expect("staged");
        }
        for number in 0..6 {
            let topic = Topic::parse(if number % 2 == 0 { "a" } else { "b/c" }).expect("a topic");
            log.append(vec![NewEvent::json(topic, Bytes::from_static(b"1"))], NOW).expect("staged");
            log.run_ops(NOW);
        }
        drop(log);
        disk = disk.kill();
    }
    disk
});

fn open(disk: &SimDisk) -> Option<Log<SimDisk>> {
    let config = LogConfig {
        segment_bytes: 64 << 10,
        frame_bytes_target: 16 << 10,
        frame_bytes_max: 64 << 10,
        event_bytes_max: 32 << 10,
        preallocate_bytes_min: 16 << 10,
        preallocate_bytes_max: 16 << 10,
        blocks_from_bytes: 1,
        compress_after_s: 0,
        snapshot_segments: 1,
        ..LogConfig::default()
    };
    Log::open(disk.clone(), Path::new(DIR), config, NOW).ok().map(|(log, _)| log)
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else { return };
    let disk = if kind % 4 == 0 { from_bytes(rest) } else { from_changes(rest) };
    look(&disk);
    if let Some(log) = open(&disk) {
        read(&log);
        drop(log);
        let disk = disk.kill();
        assert!(open(&disk).is_some(), "a log that opened opens again");
    } else {
        let _ = repair::repair(&disk, Path::new(DIR), NOW);
        look(&disk);
        drop(open(&disk));
    }
});

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

/// Five bytes are one change: which file, where, and what.
fn from_changes(data: &[u8]) -> SimDisk {
    let disk = SMALL_LOG.fork(1);
    for change in data.chunks_exact(5) {
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
            _ => drop(file.write_at(&change[4..], Position::new(at))),
        }
    }
    disk
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
