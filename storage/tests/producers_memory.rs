//! What many producers take of memory at any moment: while their segment is active, while the one before it is
//! sealed beside it, while a snapshot is made of one before and of that, while the log is opened, while a segment is
//! rewritten, and while one becomes a stub.
//!
//! Measured by the allocations of this process, beside a log with as many events of nobody.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    env, fs,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use strandline_storage::{
    append::{Append, OffsetScope, ProducerClaim, ProducerId},
    config::LogConfig,
    control::Control,
    event::NewEvent,
    io::real::RealDisk,
    log::{Log, Now, Op},
    op::Job,
    settings::{LogRetention, LogSettings},
    topic::Topic,
};

/// An eighth of those that a log knows, or a 32nd: tables are as full of them as of all, which `STRANDLINE_PRODUCERS=1000000`
/// asks for.
const PRODUCERS: u64 = if cfg!(debug_assertions) { 31_250 } else { 125_000 };
/// 150 MB for a million, of which 2 are for what does not grow with them: pieces that are read and written.
const PRODUCER_BYTES_MAX: u64 = 148;
const FIXED_BYTES_MAX: u64 = 2_000_000;
const BATCH: u64 = 500;
const ROUNDS: u64 = 5;
const NOW: Now = Now { wall_ms: 1_800_000_000_000, boot_ms: 1_000_000 };

/// Counts what is allocated.
struct Counting;

static NOW_BYTES: AtomicUsize = AtomicUsize::new(0);
static MOST_BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let bytes = NOW_BYTES.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST_BYTES.fetch_max(bytes, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        NOW_BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most that is allocated until it is asked for, beside what was there when it was begun.
struct Most(usize);

impl Most {
    fn begin() -> Most {
        let now = NOW_BYTES.load(Ordering::Relaxed);
        MOST_BYTES.store(now, Ordering::Relaxed);
        Most(now)
    }

    fn bytes(&self) -> usize {
        MOST_BYTES.load(Ordering::Relaxed).saturating_sub(self.0)
    }
}

#[derive(Debug, Default)]
struct Found {
    /// While no seal and no snapshot is made.
    active: usize,
    sealing: usize,
    snapshot: usize,
    opening: usize,
    rewriting: usize,
    retiring: usize,
}

fn producers() -> u64 {
    let asked = env::var("STRANDLINE_PRODUCERS").ok();
    asked.map_or(PRODUCERS, |count| count.parse().expect("a number"))
}

/// A segment holds an append of each, and a few more.
fn config() -> LogConfig {
    LogConfig {
        segment_bytes: (producers() * 128).next_multiple_of(4096),
        snapshot_segments: 1,
        compress_after_s: 1_000_000_000,
        reserve_bytes: 0,
        recent_frames_bytes_max: 1 << 20,
        ..LogConfig::default()
    }
}

/// Appends of `PRODUCERS` in turn, or of nobody. What is done beside a log is done when its active segment has
/// nearly an append of each.
fn run(dir: &Path, is_of_producers: bool) -> Found {
    let producers = producers();
    let mut found = Found::default();
    let begun = Most::begin();
    let (mut log, _) = Log::open(RealDisk, dir, config(), NOW).expect("a new log");
    let topic = Topic::parse("a").expect("a topic");
    let mut beside: Option<(u64, Op<RealDisk>)> = None;
    let mut made = 0;
    for number in 0..producers * ROUNDS {
        let event = NewEvent::json(topic.clone(), Bytes::from_static(b"1"));
        let mut append = Append::from(vec![event]);
        if is_of_producers {
            let id = ProducerId::parse(&format!("p{}", number % producers)).expect("a name");
            let (seq, scope) = (number / producers, OffsetScope::Log);
            append.producer = Some(ProducerClaim { id, epoch: 0, seq, scope });
        } else {
            // As long as the claim of the other is.
            append.events[0].headers.push(("producer".into(), "l 0 0 1 p00000".into()));
        }
        log.append(append, NOW).expect("the next of its producer");
        if !number.is_multiple_of(BATCH) {
            continue;
        }
        loop {
            while let Some(op) = log.next_op(NOW) {
                match op {
                    Op::Job { job: Job::Seal(_) | Job::Snapshot(_), .. } if beside.is_none() => {
                        beside = Some((number, op));
                    }
                    op => {
                        let outcome = op.run(&RealDisk);
                        log.complete(outcome, NOW);
                        drop(log.take_published());
                    }
                }
            }
            let Some((since, op)) = beside.take() else { break };
            let is_seal = matches!(op, Op::Job { job: Job::Seal(_), .. });
            if is_seal && number - since < producers * 9 / 10 {
                beside = Some((since, op));
                break;
            }
            found.active = found.active.max(begun.bytes());
            MOST_BYTES.store(NOW_BYTES.load(Ordering::Relaxed), Ordering::Relaxed);
            let outcome = op.run(&RealDisk);
            let most = begun.bytes();
            let place = if is_seal { &mut found.sealing } else { &mut found.snapshot };
            *place = most.max(*place);
            made += usize::from(!is_seal);
            log.complete(outcome, NOW);
            MOST_BYTES.store(NOW_BYTES.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
    assert!(made >= 3, "{made} snapshots");
    found.active = found.active.max(begun.bytes());
    drop(beside);
    drop(log);

    let begun = Most::begin();
    let (log, report) = Log::open(RealDisk, dir, config(), NOW).expect("it opens");
    found.opening = begun.bytes();
    if is_of_producers {
        assert_eq!(log.producers().len() as u64, producers);
        let lasts = report.end.get() - producers..report.end.get();
        let mut firsts: Vec<u64> = log.producers().iter().map(|known| known.first.get()).collect();
        firsts.sort_unstable();
        assert!(firsts.into_iter().eq(lasts), "the last append of each");
        assert!(log.producers().iter().all(|known| known.seq + 2 >= ROUNDS));
    }
    drop(log);
    (found.rewriting, found.retiring) = rewrite_and_retire(dir);
    found
}

/// What is allocated while the first segment is rewritten, and while segments become stubs.
fn rewrite_and_retire(dir: &Path) -> (usize, usize) {
    let config = LogConfig { compress_after_s: 1, ..config() };
    let mut now = Now { wall_ms: NOW.wall_ms + 100_000, boot_ms: NOW.boot_ms + 100_000 };
    let begun = Most::begin();
    let (mut log, _) = Log::open(RealDisk, dir, config, now).expect("it opens");
    let is_rewrite = |job: &Job<RealDisk>| matches!(job, Job::Compact(_));
    let is_done = |log: &Log<RealDisk>| log.compaction_totals().segments > 0;
    let rewriting = most_of(&mut log, now, &begun, is_rewrite, is_done);
    assert!(log.compaction_totals().segments > 0, "a segment was rewritten");

    let retain = LogRetention { count: Some(1), ..LogRetention::default() };
    log.append_control(&Control::Log(LogSettings { retain }), now).expect("staged");
    let is_retirement = |job: &Job<RealDisk>| matches!(job, Job::Retire(_));
    let is_done = |log: &Log<RealDisk>| log.retired_segments() > 1;
    let mut retiring = 0;
    while log.retired_segments() <= 1 {
        retiring = most_of(&mut log, now, &begun, is_retirement, is_done).max(retiring);
        now.wall_ms += 1_000;
        now.boot_ms += 1_000;
        assert!(now.boot_ms < NOW.boot_ms + 1_000_000, "segments are retired");
    }
    (rewriting, retiring)
}

/// The most that is allocated while jobs of a kind are done, among all that there is to do; until it is over.
fn most_of(
    log: &mut Log<RealDisk>,
    now: Now,
    begun: &Most,
    is_counted: impl Fn(&Job<RealDisk>) -> bool,
    is_over: impl Fn(&Log<RealDisk>) -> bool,
) -> usize {
    let mut most = 0;
    while !is_over(log) {
        let Some(op) = log.next_op(now) else { break };
        let is_counted = matches!(&op, Op::Job { job, .. } if is_counted(job));
        MOST_BYTES.store(NOW_BYTES.load(Ordering::Relaxed), Ordering::Relaxed);
        let outcome = op.run(&RealDisk);
        if is_counted {
            most = most.max(begun.bytes());
        }
        log.complete(outcome, now);
        drop(log.take_published());
    }
    most
}

#[test]
fn a_million_producers_take_at_most_150_mb_at_any_moment() {
    let parent = env::var_os("CARGO_TARGET_TMPDIR").map_or_else(env::temp_dir, PathBuf::from);
    let [plain, known] = [false, true].map(|is_of_producers| {
        let dir = parent.join(format!("producers-{is_of_producers}-{}", process::id()));
        let found = run(&dir, is_of_producers);
        fs::remove_dir_all(&dir).expect("nobody else uses it");
        found
    });
    println!("{plain:?}\n{known:?}");
    for (moment, known, plain) in [
        ("a segment is active", known.active, plain.active),
        ("another is sealed", known.sealing, plain.sealing),
        ("a snapshot is made", known.snapshot, plain.snapshot),
        ("the log is opened", known.opening, plain.opening),
        ("a segment is rewritten", known.rewriting, plain.rewriting),
        ("segments become stubs", known.retiring, plain.retiring),
    ] {
        let bytes = known.saturating_sub(plain) as u64;
        let bytes_max = FIXED_BYTES_MAX + PRODUCER_BYTES_MAX * producers();
        println!("while {moment}: {bytes} bytes for {} producers", producers());
        assert!(bytes < bytes_max, "while {moment}: {bytes} bytes, more than {bytes_max}");
    }
}
