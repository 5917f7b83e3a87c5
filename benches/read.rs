//! How long it takes to read from a big log, page cache warm.
//!
//! ```text
//! cargo bench --bench read [-- FILTER]
//! STRANDLINE_BENCH_EVENTS=500000 cargo bench --bench read      a smaller log
//! ```
//! 5 million events of 100 bytes in 1,000 topics, in frames of 128 KiB and segments of 256 MiB; among
//! them 100 events of one topic (`needle`), and 10 of each of 50 (`needles/*`), spread evenly. The
//! figure that is promised: `needle` below 20 ms. Files go to the directory in `STRANDLINE_BENCH_DIR`,
//! or the current one.

use std::{
    env, fs,
    hint::black_box,
    path::{Path, PathBuf},
    process,
    sync::Arc,
};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use strandline_storage::{
    config::{LogConfig, SyncMode},
    event::NewEvent,
    io::real::RealDisk,
    log::{Log, Now},
    offset::Offset,
    reader::{ReadQuery, Reader},
    segment_set::SegmentSet,
    selection::Order,
    topic::{Topic, TopicPattern},
};

const EVENT_BYTES: usize = 100;
const TOPICS: usize = 1_000;
const BATCH: usize = 800;
const NEEDLES: usize = 100;
const NOW: Now = Now { wall_ms: 1_750_000_000_000, boot_ms: 1_000 };

/// Writes a log of so many events, and opens it again so that all of it is sealed.
fn write(dir: &Path, events: usize) -> Arc<SegmentSet<RealDisk>> {
    let config = LogConfig { sync: SyncMode::Never, ..LogConfig::default() };
    let (mut log, _) = Log::open(RealDisk, dir, config.clone(), NOW).expect("a new log");
    let data = Bytes::from(format!("\"{}\"", "x".repeat(EVENT_BYTES - 2)));
    let topic = |name: &str| Topic::parse(name).expect("a topic");
    let topics: Vec<Topic> = (0..TOPICS).map(|number| topic(&format!("bench/{number}"))).collect();
    let needles: Vec<Topic> = (0..50).map(|number| topic(&format!("needles/{number}"))).collect();
    let needle = topic("needle");
    let (every, every_small) = (events / NEEDLES, events / 500);
    for start in (0..events).step_by(BATCH) {
        let batch = (start..events.min(start + BATCH)).map(|number| {
            let topic = if number % every == every / 2 {
                &needle
            } else if number % every_small == 7 {
                &needles[number / every_small % needles.len()]
            } else {
                &topics[number * 7 % TOPICS]
            };
            NewEvent::json(topic.clone(), data.clone())
        });
        log.append(batch.collect::<Vec<_>>(), NOW).expect("staged");
        log.run_ops(NOW);
        log.take_published();
    }
    log.begin_close();
    log.run_ops(NOW);
    drop(log);
    let (log, _) = Log::open(RealDisk, dir, config, NOW).expect("it opens");
    log.segments().clone()
}

fn query(pattern: &str, order: Order) -> ReadQuery {
    let topics = vec![TopicPattern::parse(pattern).expect("a pattern")];
    ReadQuery { topics, from: Offset::ZERO, end: Offset::MAX, order }
}

/// Reads until `limit` events were found or there are no more; returns how many.
fn read(set: &Arc<SegmentSet<RealDisk>>, query: &ReadQuery, limit: usize) -> usize {
    let mut reader = Reader::new(set.clone(), query);
    let mut found = 0;
    while found < limit {
        let Some(hits) = reader.next_blocking().expect("a sound log") else { break };
        for event in hits.events() {
            black_box(event.data());
        }
        found += hits.len();
    }
    found
}

fn reading(criterion: &mut Criterion) {
    let parent = env::var_os("STRANDLINE_BENCH_DIR").map_or(PathBuf::from("."), PathBuf::from);
    let dir = parent.join(format!("bench-read-{}", process::id()));
    let events = env::var("STRANDLINE_BENCH_EVENTS").ok().and_then(|text| text.parse().ok());
    let events = events.unwrap_or(5_000_000);
    let set = write(&dir, events);
    let mut group = criterion.benchmark_group(format!("read of {events}"));
    group.sample_size(20);
    for (name, pattern, order, limit, expected) in [
        ("a topic of 100 events", "needle", Order::Ascending, usize::MAX, NEEDLES..NEEDLES + 1),
        ("a pattern of 50 small topics", "needles/*", Order::Ascending, usize::MAX, 400..501),
        ("the last event of a small topic", "needle", Order::Descending, 1, 1..2),
        ("the last 100 of a topic in every frame", "bench/7", Order::Descending, 100, 100..200),
        ("a topic that is not there", "nobody", Order::Ascending, usize::MAX, 0..1),
    ] {
        let query = query(pattern, order);
        let found = read(&set, &query, limit);
        assert!(expected.contains(&found), "{name}: {found}");
        group.bench_function(name, |bencher| bencher.iter(|| read(&set, &query, limit)));
    }
    group.throughput(Throughput::Elements(1_000_000.min(events as u64)));
    let all = query("**", Order::Ascending);
    group.bench_function("everything, a million events", |bencher| {
        bencher.iter(|| read(&set, &all, 1_000_000.min(events)));
    });
    let busy = query("bench/7", Order::Ascending);
    group.throughput(Throughput::Elements(events as u64));
    group.sample_size(10);
    group.bench_function("a topic in every frame, by scanning", |bencher| {
        bencher.iter(|| read(&set, &busy, usize::MAX));
    });
    group.finish();
    fs::remove_dir_all(&dir).ok();
}

criterion_group!(benches, reading);
criterion_main!(benches);
