//! How long opening a log of many sealed segments takes, page cache warm.
//!
//! ```text
//! cargo bench --bench opening [-- CASE ...]        cases: see `CASES`; without one all but the largest
//! ```
//! Each case writes a log of 500 sealed segments, lets it do what it wants in the background, opens it some times,
//! and says how long that took; then the same without its snapshots, as every log was opened before there were any.
//! Files go to the directory in `STRANDLINE_BENCH_DIR`, or the current one.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process,
    time::Instant,
};

use bytes::Bytes;
use strandline_storage::{
    append::{Append, OffsetScope, ProducerClaim, ProducerId},
    config::LogConfig,
    event::{EventId, NewEvent},
    io::real::RealDisk,
    log::{Log, Now},
    recovery::OpenReport,
    topic::Topic,
};

const SEGMENTS: usize = 500;
const ROUNDS: usize = 7;
const BATCH_EVENTS: usize = 10_000;
const BEGIN_MS: u64 = 1_750_000_000_000;

/// What a log consists of.
struct Case {
    name: &'static str,
    events_per_segment: usize,
    topics: usize,
    has_ids: bool,
    producers: usize,
}

const CASES: [Case; 5] = [
    Case { name: "small", events_per_segment: 10_000, topics: 1_000, has_ids: false, producers: 0 },
    Case {
        name: "topics",
        events_per_segment: 10_000,
        topics: 100_000,
        has_ids: false,
        producers: 0,
    },
    Case { name: "ids", events_per_segment: 10_000, topics: 1_000, has_ids: true, producers: 0 },
    Case {
        name: "producers",
        events_per_segment: 10_000,
        topics: 1_000,
        has_ids: false,
        producers: 10_000,
    },
    Case {
        name: "large",
        events_per_segment: 100_000,
        topics: 1_000,
        has_ids: false,
        producers: 0,
    },
];

fn config(case: &Case) -> LogConfig {
    // A batch is one frame, and so many of them fill a segment.
    let batch_bytes = if case.has_ids { 900 << 10 } else { 640 << 10 };
    let batches = (case.events_per_segment / BATCH_EVENTS) as u64;
    LogConfig {
        segment_bytes: batches * batch_bytes,
        frame_bytes_target: 4 << 20,
        compress_after_s: 1_000_000_000,
        reserve_bytes: 0,
        ..LogConfig::default()
    }
}

fn now(number: usize) -> Now {
    // A second a batch: the window of ids is a part of the log.
    let ms = number as u64 * 1_000;
    Now { wall_ms: BEGIN_MS + ms, boot_ms: 1_000 + ms }
}

fn write(dir: &Path, case: &Case) {
    let (mut log, _) = Log::open(RealDisk, dir, config(case), now(0)).expect("a new log");
    let topics: Vec<Topic> = (0..case.topics)
        .map(|number| Topic::parse(&format!("rooms/{number}/messages")).expect("a topic"))
        .collect();
    let data = Bytes::from_static(b"{\"n\":1}");
    let mut written = 0;
    for number in 0.. {
        if log.segments().len() >= SEGMENTS {
            break;
        }
        if case.producers > 0 {
            let id = ProducerId::parse(&format!("p{}", number % case.producers)).expect("a name");
            let seq = (number / case.producers) as u64;
            let claim = ProducerClaim { id, epoch: 0, seq, scope: OffsetScope::Log };
            let events = vec![NewEvent::json(topics[0].clone(), data.clone())];
            let append = Append { events, expected: None, producer: Some(claim) };
            log.append(append, now(number)).expect("staged");
        }
        let batch = (0..BATCH_EVENTS).map(|_| {
            written += 1;
            let topic = topics[written * 7 % case.topics].clone();
            let mut event = NewEvent::json(topic, data.clone());
            if case.has_ids {
                event.id = Some(EventId::parse(&format!("id-{written}")).expect("an id"));
            }
            event
        });
        log.append(batch.collect::<Vec<_>>(), now(number)).expect("staged");
        log.run_ops(now(number));
        drop(log.take_published());
    }
}

fn measure(parent: &Path, case: &Case) {
    let dir = parent.join(format!("bench-opening-{}-{}", case.name, process::id()));
    let kept = env::var_os("STRANDLINE_BENCH_KEEP");
    let kept = kept.map(|_| parent.join(format!("bench-opening-{}", case.name)));
    let dir = kept.clone().unwrap_or(dir);
    if !dir.exists() {
        write(&dir, case);
    }
    // The first start may find a cold page cache, and makes what is missing.
    let (mut log, report) = open(&dir, case, 0);
    log.run_ops(now(2_000_000));
    println!(
        "{}: {} segments, {} events, {} topics",
        case.name,
        log.segments().len(),
        report.end,
        log.topics().len()
    );
    drop(log);
    let snapshots = || {
        let names = fs::read_dir(&dir).expect("the log's directory").flatten();
        names
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|end| end == "snap"))
    };
    let bytes: u64 = snapshots().map(|path| path.metadata().map_or(0, |file| file.len())).sum();
    println!("  snapshots: {} with {} KiB", snapshots().count(), bytes >> 10);
    time("opened", &dir, case);
    for path in snapshots() {
        fs::remove_file(path).expect("a file");
    }
    time("without snapshots", &dir, case);
    if kept.is_none() {
        fs::remove_dir_all(&dir).ok();
    }
}

fn open(dir: &Path, case: &Case, round: usize) -> (Log<RealDisk>, OpenReport) {
    Log::open(RealDisk, dir, config(case), now(1_000_000 + round)).expect("it opens")
}

fn time(what: &str, dir: &Path, case: &Case) {
    let mut times_ms = Vec::new();
    for round in 0..=ROUNDS {
        let began = Instant::now();
        let opened = open(dir, case, round);
        if round > 0 {
            times_ms.push(began.elapsed().as_secs_f64() * 1e3);
        }
        drop(opened);
    }
    times_ms.sort_by(f64::total_cmp);
    let (least, most) = (times_ms[0], times_ms[ROUNDS - 1]);
    println!("  {what}: {least:.1} to {most:.1} ms, median {:.1} ms", times_ms[ROUNDS / 2]);
}

fn main() {
    let parent = env::var_os("STRANDLINE_BENCH_DIR").map_or(PathBuf::from("."), PathBuf::from);
    let wanted: Vec<String> = env::args().skip(1).filter(|name| !name.starts_with('-')).collect();
    for case in &CASES {
        if wanted.iter().any(|name| name == case.name)
            || (wanted.is_empty() && case.name != "large")
        {
            measure(&parent, case);
        }
    }
}
