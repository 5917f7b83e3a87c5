//! How long a start takes after a crash: a log whose last segment was never indexed, page cache warm.
//!
//! ```text
//! cargo bench --bench recovery [-- FILTER]
//! STRANDLINE_BENCH_MIB=1024 cargo bench --bench recovery       the figure that is promised: below 2 s
//! ```
//! 256-byte events of 1,000 topics, in frames of 128 KiB. Files go to the directory in
//! `STRANDLINE_BENCH_DIR`, or the current one.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process,
    time::{Duration, Instant},
};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use strandline_storage::{
    config::LogConfig,
    event::NewEvent,
    io::real::RealDisk,
    log::{Log, Now},
    topic::Topic,
};

const EVENT_BYTES: usize = 256;
const TOPICS: usize = 1_000;
const NOW: Now = Now { wall_ms: 1_750_000_000_000, boot_ms: 1_000 };

fn config() -> LogConfig {
    LogConfig { segment_bytes: 8 << 30, ..LogConfig::default() }
}

/// Writes a log of about `bytes` and leaves it as a crash would.
fn write(dir: &Path, bytes: u64) {
    let (mut log, _) = Log::open(RealDisk, dir, config(), NOW).expect("a new log");
    let data = Bytes::from(format!("\"{}\"", "x".repeat(EVENT_BYTES - 2)));
    let topics: Vec<Topic> = (0..TOPICS)
        .map(|number| Topic::parse(&format!("bench/{number}")).expect("a topic"))
        .collect();
    let mut written = 0;
    for round in 0.. {
        if written >= bytes {
            break;
        }
        let batch = (0..400).map(|index| {
            NewEvent::json(topics[(round * 400 + index) * 7 % TOPICS].clone(), data.clone())
        });
        log.append(batch.collect::<Vec<_>>(), NOW).expect("staged");
        log.run_ops(NOW);
        let frames = log.take_published();
        written += frames.iter().map(|frame| frame.frame_bytes() as u64).sum::<u64>();
    }
}

/// Undoes what the last start did: its segment, and the index of the one before.
fn forget_start(dir: &Path) {
    for entry in fs::read_dir(dir).expect("the log's directory") {
        let path = entry.expect("an entry").path();
        let is_first = path.file_name().is_some_and(|name| name == "00000000000000000000.1.log");
        if !is_first {
            fs::remove_file(path).expect("removed");
        }
    }
}

fn recovery(criterion: &mut Criterion) {
    let parent = env::var_os("STRANDLINE_BENCH_DIR").map_or(PathBuf::from("."), PathBuf::from);
    let dir = parent.join(format!("bench-recovery-{}", process::id()));
    let mib = env::var("STRANDLINE_BENCH_MIB").ok().and_then(|text| text.parse().ok());
    let bytes = mib.unwrap_or(128_u64) << 20;
    write(&dir, bytes);
    let mut group = criterion.benchmark_group("recovery");
    group.sample_size(10).throughput(Throughput::Bytes(bytes));
    group.bench_function(format!("{} MiB", bytes >> 20), |bencher| {
        bencher.iter_custom(|times| {
            let mut sum = Duration::ZERO;
            for _ in 0..times {
                forget_start(&dir);
                let began = Instant::now();
                let (log, _) = Log::open(RealDisk, &dir, config(), NOW).expect("it recovers");
                sum += began.elapsed();
                drop(log);
            }
            sum
        });
    });
    group.finish();
    fs::remove_dir_all(&dir).ok();
}

criterion_group!(benches, recovery);
criterion_main!(benches);
