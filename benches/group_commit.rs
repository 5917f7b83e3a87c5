//! Appends through the log to a real disk: how many events a second reach the device, by how many
//! publishers wait for each other, and by the way to write.
//!
//! ```text
//! cargo bench --bench group_commit [-- FILTER]
//! ```
//! `own_code` is the time that the log itself takes for an append and all that follows from it, without
//! the disk and waiting for it: as it is, of events with ids, and of 64 producers.
//!
//! Each publisher has one 256-byte event in flight, as `owner` would stage them. The operations are
//! done by a few threads, one write each, so that several can be in flight. Files go to the directory
//! in `STRANDLINE_BENCH_DIR`, or the current one: a `/tmp` in memory would measure nothing.

use std::{
    env, fs,
    hint::black_box,
    path::PathBuf,
    process,
    sync::mpsc,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use strandline_storage::{
    append::{Append, OffsetScope, ProducerClaim, ProducerId},
    config::{LogConfig, SyncMode},
    event::{EventId, NewEvent},
    io::real::RealDisk,
    log::{Log, Now, Op, OpOutcome},
    offset::Offset,
    topic::Topic,
};

/// As many as writes can be in flight, and one for jobs.
const THREADS: usize = 5;
const EVENT_BYTES: usize = 256;

fn now(started: Instant) -> Now {
    let wall_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    Now {
        wall_ms: u64::try_from(wall_ms).expect("before the year 10889"),
        boot_ms: u64::try_from(started.elapsed().as_millis()).expect("a short run"),
    }
}

/// A log whose operations are done by threads.
struct Driven {
    log: Log<RealDisk>,
    ops: Vec<mpsc::Sender<Op<RealDisk>>>,
    outcomes: mpsc::Receiver<OpOutcome<RealDisk>>,
    next_thread: usize,
    started: Instant,
    dir: PathBuf,
    event: NewEvent,
}

impl Driven {
    fn open(sync: SyncMode) -> Self {
        let parent = env::var_os("STRANDLINE_BENCH_DIR").map_or(PathBuf::from("."), PathBuf::from);
        let dir = parent.join(format!("bench-log-{}", process::id()));
        fs::remove_dir_all(&dir).ok();
        let started = Instant::now();
        let config = LogConfig { sync, ..LogConfig::default() };
        let (log, report) =
            Log::open(RealDisk, &dir, config, now(started)).expect("a log in the bench directory");
        if sync == SyncMode::Commit {
            eprintln!("writes are {}", report.write_mode);
        }
        let (outcome, outcomes) = mpsc::channel();
        let ops = (0..THREADS)
            .map(|_| {
                let (sender, ops) = mpsc::channel::<Op<RealDisk>>();
                let outcome = outcome.clone();
                thread::spawn(move || {
                    for op in ops {
                        if outcome.send(op.run(&RealDisk)).is_err() {
                            break;
                        }
                    }
                });
                sender
            })
            .collect();
        let data = Bytes::from(format!("\"{}\"", "x".repeat(EVENT_BYTES - 2)));
        let event = NewEvent::json(Topic::parse("bench/events").expect("a topic"), data);
        Driven { log, ops, outcomes, next_thread: 0, started, dir, event }
    }

    /// Hands out what there is to do: jobs to the last thread, all else to the others in turn.
    fn hand_out(&mut self) {
        while let Some(op) = self.log.next_op(now(self.started)) {
            let thread = if matches!(op, Op::Job { .. }) {
                THREADS - 1
            } else {
                self.next_thread = (self.next_thread + 1) % (THREADS - 1);
                self.next_thread
            };
            self.ops[thread].send(op).expect("the threads live as long as the log");
        }
    }

    /// Appends `events` from `publishers`, each of which waits for its acknowledgement before it
    /// appends again; returns when all are acknowledged.
    fn run(&mut self, publishers: u64, events: u64) -> Duration {
        let began = Instant::now();
        let first = self.log.next();
        let end = first.plus(events);
        let mut acknowledged = first;
        while acknowledged < end {
            let room = publishers - self.log.next().since(acknowledged);
            for _ in 0..room.min(end.since(self.log.next())) {
                let batch = vec![self.event.clone()];
                self.log.append(batch, now(self.started)).expect("staged");
            }
            self.hand_out();
            let outcome = self.outcomes.recv().expect("an operation is under way");
            self.log.complete(outcome, now(self.started));
            while let Ok(outcome) = self.outcomes.try_recv() {
                self.log.complete(outcome, now(self.started));
            }
            black_box(self.log.take_published());
            acknowledged = self.log.visible().max(Offset::ZERO);
        }
        began.elapsed()
    }
}

/// How an append is known again.
#[derive(Clone, Copy)]
enum Once {
    Unknown,
    Id,
    Producer,
}

impl Once {
    fn name(self) -> &'static str {
        match self {
            Once::Unknown => "plain",
            Once::Id => "with an id",
            Once::Producer => "of a producer",
        }
    }

    /// The append of a number.
    fn append(self, number: u64, event: &NewEvent) -> Append {
        const PRODUCERS: u64 = 64;
        let mut append = Append::from(vec![event.clone()]);
        match self {
            Once::Unknown => {}
            Once::Id => {
                append.events[0].id = EventId::parse(&format!("event-{number}")).ok();
            }
            Once::Producer => {
                let name = format!("producer-{}", number % PRODUCERS);
                let id = ProducerId::parse(&name).expect("a name");
                let (epoch, seq, scope) = (0, number / PRODUCERS, OffsetScope::Topic);
                append.producer = Some(ProducerClaim { id, epoch, seq, scope });
            }
        }
        append
    }
}

impl Driven {
    /// Appends `events` and returns how long the log's own code took for them.
    fn own_time(&mut self, once: Once, appended: &mut u64, events: u64) -> Duration {
        let mut took = Duration::ZERO;
        let end = self.log.next().plus(events);
        while self.log.visible() < end {
            let room = 256 - self.log.next().since(self.log.visible());
            let count = room.min(end.since(self.log.next()));
            let numbers = *appended..*appended + count;
            *appended += count;
            let appends: Vec<_> = numbers.map(|number| once.append(number, &self.event)).collect();
            let time = now(self.started);
            let began = Instant::now();
            for append in appends {
                self.log.append(append, time).expect("staged");
            }
            let ops: Vec<_> = std::iter::from_fn(|| self.log.next_op(time)).collect();
            took += began.elapsed();
            for op in ops {
                let thread = if matches!(op, Op::Job { .. }) { THREADS - 1 } else { 0 };
                self.ops[thread].send(op).expect("the threads live as long as the log");
            }
            let outcome = self.outcomes.recv().expect("an operation is under way");
            let time = now(self.started);
            let began = Instant::now();
            self.log.complete(outcome, time);
            black_box(self.log.take_published());
            took += began.elapsed();
        }
        took
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.dir).ok();
    }
}

fn group_commit(criterion: &mut Criterion) {
    for sync in [SyncMode::Commit, SyncMode::Interval { interval_ms: 100 }] {
        let mut group = criterion.benchmark_group(format!("group_commit/{sync}"));
        group.sample_size(10).throughput(Throughput::Elements(1));
        for publishers in [1, 16, 64, 256] {
            let mut driven = Driven::open(sync);
            group.bench_function(format!("{publishers} publishers"), |bencher| {
                bencher.iter_custom(|events| driven.run(publishers, events));
            });
        }
    }
}

fn own_code(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("own_code");
    group.sample_size(20).throughput(Throughput::Elements(1));
    for once in [Once::Unknown, Once::Id, Once::Producer] {
        let (mut driven, mut appended) = (Driven::open(SyncMode::Commit), 0);
        group.bench_function(once.name(), |bencher| {
            bencher.iter_custom(|events| driven.own_time(once, &mut appended, events));
        });
    }
}

criterion_group!(benches, group_commit, own_code);
criterion_main!(benches);
