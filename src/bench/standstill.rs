//! When the machine stood still: what waited because of that says nothing about a server.
//!
//! The host of a virtual machine stops its cores for 4 to 25 ms at a time, each for itself, once the machine
//! has used up what it is allowed of a tenth of a second. No counter inside tells (`steal` stays zero), and ten
//! stops a second delay more than one acknowledgement in a hundred: a p99 then measures the host. So, as jHiccup
//! does it (Gil Tene), somebody who has nothing to do looks how late it gets to do that:
//!
//! ```text
//! watch     |....|....|....|              stop noted            |....|....    sleeps to 1 ms from now, each time
//!                          ^ deadline     [deadline, woken)     ^ woken more than 3 ms late
//! sample            due ------------------------------------------> now       overlaps: was under way then
//! ```
//! A thread for each core that the load or the server may use is pinned there and is real-time: it runs before
//! anything else that the core does. A usual thread would be late because others work, and that is their doing;
//! without the right to real-time threads there is no watch.
//!
//! What must hold:
//! 1. A stop is noted before anything that it delayed can be recorded: the watch of the core that stood runs
//!    there before the load receives, or the server sends, what had to wait.
//! 2. What is not known for certain is no excuse. Stops of less than 3 ms are not seen, those of 4 ms always; what
//!    piled up in a stop, and is late because of that, began after it and counts as ever.
//! 3. A stop is of a core. A server that stops (`SIGSTOP`, a lock, a long commit) leaves its core to the watch, which
//!    is on time. But the threads are the load's: if all of its process is stopped, that is seen as a stop of the
//!    machine, as is a kernel that holds a core for 3 ms without letting a real-time thread run. What the host
//!    does for a disk on a core of its own, and is stopped in, is not seen: that looks like a slow disk.
//!
//! Watching takes 0.01 cores of each core, and it keeps cores from sleeping deeply: where load and server waited
//! for a slow disk on a virtual machine, 256 publishers appended 79,000 events a second with it and 49,000
//! without. Where the machine was at its limit it stood more often for it: the p99 of all was 7 to 10 ms with it,
//! and 4 to 8 without. Figures with and without are not to be compared; so it is asked for (`--watch-stops`).

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
};

use rustix::{
    process::Pid,
    thread::{ClockId, CpuSet, clock_nanosleep_absolute, sched_getaffinity, sched_setaffinity},
    time::Timespec,
};
use serde::Serialize;

use super::{net::now_ns, number::as_f64};

/// A watch sleeps for so long at a time.
const SLEEP_NS: u64 = 1_000_000;
/// Who wakes later than this was stopped. A kernel that is busy with packets makes a real-time thread wait for a
/// millisecond at times.
const LATE_NS: u64 = 3_000_000;
/// So many stops are remembered, of which the last few matter: what is recorded ended just now, so that whatever
/// overlaps a stop that is forgotten overlaps one that is not.
const STOPS_KEPT_MAX: usize = 64;
/// If load and server may use more cores these are not watched: of many some stand at any time, and nothing is told by that.
const CORES_MAX: usize = 8;

/// One time at which a core stood, in ns of [`now_ns`]; the end is not part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// When it was to go on.
    pub begin_ns: u64,
    /// When it did.
    pub end_ns: u64,
}

/// How often and how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Standstill {
    /// Stops; two cores that stood at the same time count once.
    pub count: u64,
    /// How long they were together.
    pub total_ms: f64,
}

/// The stops so far, the last of them apart from each other and in order.
#[derive(Debug, Default)]
struct Noted {
    kept: VecDeque<Stop>,
    count: u64,
    total_ns: u64,
}

impl Noted {
    /// Adds one, which ended later than the others or at the same time as one that it overlaps; becomes one with
    /// what it touches.
    fn add(&mut self, mut stop: Stop) {
        self.count += 1;
        self.total_ns += stop.end_ns - stop.begin_ns;
        while let Some(last) = self.kept.pop_back_if(|last| last.end_ns >= stop.begin_ns) {
            self.count -= 1;
            let common_ns =
                last.end_ns.min(stop.end_ns).saturating_sub(last.begin_ns.max(stop.begin_ns));
            self.total_ns -= common_ns;
            stop = Stop {
                begin_ns: last.begin_ns.min(stop.begin_ns),
                end_ns: last.end_ns.max(stop.end_ns),
            };
        }
        if self.kept.len() == STOPS_KEPT_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back(stop);
    }

    /// Whether what was due at `due_ns` and there at `now_ns` was under way in one that is remembered.
    fn overlaps(&self, due_ns: u64, now_ns: u64) -> bool {
        let after_due = self.kept.iter().rev().take_while(|stop| due_ns < stop.end_ns);
        after_due.into_iter().any(|stop| stop.begin_ns < now_ns)
    }
}

/// What the watches know, for whoever records latencies.
#[derive(Debug, Default)]
pub struct Stops {
    /// The end of the last one: what was due later has seen none.
    last_end_ns: AtomicU64,
    noted: Mutex<Noted>,
}

impl Stops {
    /// Takes note of a stop that has just ended.
    pub fn note(&self, stop: Stop) {
        let mut noted = self.noted();
        noted.add(stop);
        // Whoever sees this end finds the stop behind the lock.
        self.last_end_ns.fetch_max(stop.end_ns, Ordering::Release);
    }

    /// Whether what was due at `due_ns` and there at `now_ns`, just now, was under way in a stop.
    #[inline]
    pub fn overlap(&self, due_ns: u64, now_ns: u64) -> bool {
        due_ns < self.last_end_ns.load(Ordering::Acquire) && self.noted().overlaps(due_ns, now_ns)
    }

    /// How much there was since `before`, which is 0 or an earlier [`mark`](Self::mark).
    pub fn since(&self, before: Mark) -> Standstill {
        let Mark { count, total_ns } = self.mark();
        Standstill {
            // Two that were counted before may have become one.
            count: count.saturating_sub(before.count),
            total_ms: as_f64(total_ns - before.total_ns) / 1e6,
        }
    }

    /// How much there was so far.
    pub fn mark(&self) -> Mark {
        let noted = self.noted();
        Mark { count: noted.count, total_ns: noted.total_ns }
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().expect("nobody panics with it")
    }
}

/// How much there was up to some time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mark {
    count: u64,
    total_ns: u64,
}

/// Watches until it is dropped.
#[derive(Debug)]
pub struct Watch {
    stops: Arc<Stops>,
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Watch {
    /// Watches the cores that this thread and these processes may use. An error says why that cannot be: for want
    /// of the right to real-time threads, or because there are more than `CORES_MAX`.
    pub fn start(processes: &[u32]) -> io::Result<Watch> {
        let mut cores = cores_of(None)?;
        for process in processes {
            // One that has gone uses none.
            let pid = i32::try_from(*process).ok().and_then(Pid::from_raw);
            cores.extend(pid.and_then(|pid| cores_of(Some(pid)).ok()).unwrap_or_default());
        }
        if cores.len() > CORES_MAX {
            let what = format!("load and server may use {} cores, too many to watch", cores.len());
            return Err(io::Error::other(what));
        }
        let mut watch =
            Watch { stops: Arc::default(), is_over: Arc::default(), threads: Vec::new() };
        let (began, begins) = mpsc::channel();
        for core in &cores {
            let (core, began) = (*core, began.clone());
            let (stops, is_over) = (watch.stops.clone(), watch.is_over.clone());
            let thread = thread::Builder::new().name(format!("watch {core}")).spawn(move || {
                let ready = stay_on(core).and_then(|()| run_first());
                let ready = ready.map_err(|error| {
                    let what = format!("watching core {core} by a real-time thread: {error}");
                    io::Error::new(error.kind(), what)
                });
                let is_ready = ready.is_ok();
                // Whoever waits for it may have gone because of another.
                let _ = began.send(ready);
                if is_ready {
                    look(&stops, &is_over);
                }
            })?;
            watch.threads.push(thread);
        }
        for _ in &cores {
            begins.recv().expect("each thread says so")?;
        }
        Ok(watch)
    }

    /// What it knows.
    pub fn stops(&self) -> &Arc<Stops> {
        &self.stops
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // It does nothing that could panic, and if it did it has told.
            let _ = thread.join();
        }
    }
}

fn cores_of(process: Option<Pid>) -> io::Result<BTreeSet<usize>> {
    let set = sched_getaffinity(process)?;
    Ok((0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect())
}

/// Keeps this thread on a core, also on one that the thread which started it may not use.
fn stay_on(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

/// Makes this a real-time thread, of the lowest rank among them: it runs before all that are usual.
fn run_first() -> io::Result<()> {
    let (this_thread, param) = (0, libc::sched_param { sched_priority: 1 });
    // SAFETY: it sets the policy of the calling thread, and reads `param`, which outlives the call.
    let result =
        unsafe { libc::sched_setscheduler(this_thread, libc::SCHED_FIFO, &raw const param) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sleeps, and notes when that took too long.
fn look(stops: &Stops, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        let deadline_ns = now_ns() + SLEEP_NS;
        // A signal wakes it early, and that is not late.
        let _ = clock_nanosleep_absolute(ClockId::Monotonic, &timespec(deadline_ns));
        let woken_ns = now_ns();
        if woken_ns > deadline_ns + LATE_NS {
            stops.note(Stop { begin_ns: deadline_ns, end_ns: woken_ns });
        }
    }
}

fn timespec(at_ns: u64) -> Timespec {
    let part = |ns: u64| i64::try_from(ns).expect("a u64 of ns has 2^34 seconds");
    Timespec { tv_sec: part(at_ns / 1_000_000_000), tv_nsec: part(at_ns % 1_000_000_000) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stops(all: &[(u64, u64)]) -> Stops {
        let stops = Stops::default();
        for (begin_ns, end_ns) in all {
            stops.note(Stop { begin_ns: *begin_ns, end_ns: *end_ns });
        }
        stops
    }

    #[test]
    fn what_was_under_way_in_a_stop_overlaps_it() {
        let stops = stops(&[(100, 120), (200, 230)]);
        for (due, now, overlaps) in [
            (50, 90, false),
            // It was there when the stop began, or came to be due when it ended.
            (50, 100, false),
            (120, 150, false),
            (150, 180, false),
            (230, 300, false),
            (90, 101, true),
            (119, 150, true),
            (90, 130, true),
            (105, 110, true),
            (150, 201, true),
            (229, 240, true),
            (210, 220, true),
            (50, 300, true),
        ] {
            assert_eq!(stops.overlap(due, now), overlaps, "{due} to {now}");
        }
        assert!(!Stops::default().overlap(0, u64::MAX));
    }

    #[test]
    fn cores_that_stand_together_count_once() {
        let ms = 1_000_000;
        let stops = stops(&[(10 * ms, 20 * ms), (12 * ms, 22 * ms), (30 * ms, 35 * ms)]);
        let begin = stops.mark();
        assert_eq!(stops.since(Mark::default()), Standstill { count: 2, total_ms: 17.0 });
        // One that contains both before, and one that is contained.
        stops.note(Stop { begin_ns: 9 * ms, end_ns: 36 * ms });
        stops.note(Stop { begin_ns: 20 * ms, end_ns: 30 * ms });
        assert_eq!(stops.since(Mark::default()), Standstill { count: 1, total_ms: 27.0 });
        assert_eq!(stops.since(begin), Standstill { count: 0, total_ms: 10.0 });
        assert!(!stops.overlap(36 * ms, 40 * ms), "a later end is not forgotten for an earlier");
    }

    #[test]
    fn few_are_remembered_and_all_are_counted() {
        let kept = u64::try_from(STOPS_KEPT_MAX).unwrap();
        let all: Vec<_> = (0..10 * kept).map(|at| (at * 100, at * 100 + 10)).collect();
        let stops = stops(&all);
        assert_eq!(stops.noted().kept.len(), STOPS_KEPT_MAX);
        assert_eq!(stops.since(Mark::default()).count, 10 * kept);
        // What began in a forgotten one and is there now has been under way in the others too.
        let now = 10 * kept * 100;
        assert!(stops.overlap(5, now) && !stops.overlap(now - 90, now));
        assert!(stops.overlap(now - 91, now));
    }

    proptest! {
        /// Whatever overlaps one of all stops is found as long as it ended after the oldest that is kept, and
        /// the stops together are as long as their union.
        #[test]
        fn what_is_remembered_is_enough(
            mut all in prop::collection::vec((0..4000_u64, 1..6_u64), 1..300),
            samples in prop::collection::vec((0..4100_u64, 1..100_u64), 50),
        ) {
            all.sort_by_key(|(begin, length)| begin + length);
            let all: Vec<_> = all.into_iter().map(|(begin, length)| (begin, begin + length)).collect();
            let stops = stops(&all);
            let stands = |at: u64| all.iter().any(|(begin, end)| (*begin..*end).contains(&at));
            let total_ns = (0..4010).filter(|at| stands(*at)).count();
            prop_assert_eq!(stops.mark().total_ns, u64::try_from(total_ns).unwrap());
            let oldest_ns = stops.noted().kept.front().unwrap().begin_ns;
            for (due, took) in samples {
                let now = due + took;
                let overlaps = all.iter().any(|(begin, end)| due < *end && *begin < now);
                prop_assert_eq!(stops.overlap(due, now), overlaps && now > oldest_ns);
            }
        }
    }
}
