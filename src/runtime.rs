//! Monoio runtimes as Strandline needs them, and the end of a slice.
//!
//! A shard's thread has a ring of its own, built on that thread, with `DEFER_TASKRUN`: completions wait
//! until the thread asks for them instead of interrupting it. Where io_uring is refused (containers
//! often do) the epoll driver takes its place; it does file I/O on the calling thread, so that commits
//! then go to the disk thread.
//!
//! **Slices.** Monoio looks at completions, timers and other threads' wakers only when its run queue is
//! empty, and a task that wakes itself goes to the *front* of that queue: a long job that yields in
//! the usual way starves everything else for as long as it lasts. So a job works for at most
//! [`SLICE_US`], then awaits [`end_slice`], a read of an eventfd that is always readable: it comes
//! back only by way of the ring, with whatever else had completed (a test holds the difference). Work
//! that is long and can wait awaits [`give_way`]: it comes back *behind* that, and all that follows.

use std::{
    cell::{Cell, OnceCell},
    fs::File,
    future::Future,
    io,
    rc::Rc,
    time::{Duration, Instant},
};

use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};
use rustix::{
    event::{EventfdFlags, eventfd},
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};
use strandline_storage::io::uring::check_available;

/// How long a job may hold its shard while others wait. An append beside pushes waits for two of these: until
/// it is looked at, and until it is told that it is durable. With 1,000 subscribers and 16 publishers as fast
/// as they are acknowledged, 1 ms gave 7.1 million deliveries a second, this 12.6 and 0.25 ms 14.0, of which
/// the slowest hundredth took 6.5, 8.5 and 14.5 ms. It costs nothing that could be measured at low rates.
pub const SLICE_US: u64 = 500;

/// Submission places of a ring; completions have twice as many, and the kernel keeps what exceeds them.
const RING_ENTRIES: u32 = 1024;

/// What carries a shard's I/O.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// io_uring for sockets, files and commits.
    IoUring,
    /// epoll for sockets; files block, so that commits go to the disk thread.
    Epoll,
}

impl Driver {
    /// What this machine allows ([`check_available`]), and why it is not io_uring if it is not.
    pub fn detect() -> (Driver, Option<io::Error>) {
        match check_available() {
            Ok(()) => (Driver::IoUring, None),
            Err(error) => (Driver::Epoll, Some(error)),
        }
    }
}

/// Before long work goes on, tasks that were woken run, and those that they wake, so many deep: a socket's
/// readiness, its connection, the owner of the log, the write that it begins.
const WAKES_DEEP: usize = 4;

/// Long work gives way so many times in a row at most: it must not starve either.
const WAYS_GIVEN_MAX: usize = 4;

thread_local! {
    static IS_SHARD: Cell<bool> = const { Cell::new(false) };
    /// Something is to be handed to the kernel before long work goes on.
    static IS_HURRIED: Cell<bool> = const { Cell::new(false) };
    static ALWAYS_READY: OnceCell<Option<Rc<monoio::fs::File>>> = const { OnceCell::new() };
}

/// Runs `future` on this thread, with timers, until it is done. The thread counts as a shard from then
/// on: a panic on it ends the process ([`abort_on_shard_panic`]). `is_alone`: no other shard rings it.
pub fn block_on<F: Future>(driver: Driver, is_alone: bool, future: F) -> io::Result<F::Output> {
    IS_SHARD.set(true);
    match driver {
        Driver::IoUring => {
            let best = if is_alone { Completions::Deferred } else { Completions::Cooperative };
            let mut runtime = build_ring(best)
                .or_else(|_| build_ring(Completions::Cooperative))
                .or_else(|_| build_ring(Completions::Interrupting))?;
            Ok(runtime.block_on(async {
                let ready = always_ready().and_then(monoio::fs::File::from_std)?;
                ALWAYS_READY
                    .with(|cell| cell.set(Some(Rc::new(ready))))
                    .map_err(|_| one_runtime())?;
                Ok::<_, io::Error>(future.await)
            })?)
        }
        Driver::Epoll => {
            let mut runtime = RuntimeBuilder::<LegacyDriver>::new().enable_timer().build()?;
            Ok(runtime.block_on(async {
                ALWAYS_READY.with(|cell| cell.set(None)).map_err(|_| one_runtime())?;
                Ok::<_, io::Error>(future.await)
            })?)
        }
    }
}

fn one_runtime() -> io::Error {
    io::Error::other("a thread runs one runtime in its life")
}

type RingRuntime = monoio::Runtime<monoio::time::TimeDriver<IoUringDriver>>;

/// How a ring tells its thread of completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Completions {
    /// They wait until the thread asks for them (Linux 6.1). 64 publishers: 139k appends a second (124k
    /// with `Cooperative`, 111k with `Interrupting`); 256: no difference.
    ///
    /// A job that holds the thread holds them up, whatever system calls it makes; but monoio looks at
    /// completions only when its queue is empty, so that such a job holds them up anyway: [`end_slice`].
    /// Not where other shards ring: when one has rung before the thread rests, monoio submits without
    /// asking, and a shard that is always rung would never learn of its completions.
    Deferred,
    /// They wait for the thread's next system call (Linux 5.19).
    Cooperative,
    /// They interrupt it.
    Interrupting,
}

fn build_ring(completions: Completions) -> io::Result<RingRuntime> {
    let mut ring = io_uring::IoUring::builder();
    match completions {
        Completions::Deferred => {
            ring.setup_single_issuer().setup_defer_taskrun();
        }
        Completions::Cooperative => {
            ring.setup_coop_taskrun();
        }
        Completions::Interrupting => {}
    }
    RuntimeBuilder::<IoUringDriver>::new()
        .uring_builder(ring)
        .with_entries(RING_ENTRIES)
        .enable_timer()
        .build()
}

/// An eventfd that can be read 2^64 - 2 times, one at a time.
fn always_ready() -> io::Result<File> {
    let file = File::from(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::SEMAPHORE)?);
    rustix::io::write(&file, &(u64::MAX - 1).to_le_bytes()[..])?;
    Ok(file)
}

/// Ends a slice: everything else that can run on this shard runs before it resolves.
pub async fn end_slice() {
    let ready = ALWAYS_READY.with(|cell| cell.get().cloned().flatten());
    let Some(ready) = ready else {
        // epoll has no operation that is always ready but not at once; a timer is looked at as late as
        // everything else.
        return monoio::time::sleep(Duration::from_millis(1)).await;
    };
    let (result, _) = ready.read_at(Box::new([0_u8; 8]), 0).await;
    if let Err(error) = result {
        tracing::error!(%error, "the eventfd of a slice cannot be read");
    }
}

/// Ends a slice of long work: everything that can run now runs before it resolves, with what follows from
/// it, and what others wait for ([`hurry`]) is in the kernel's hands.
///
/// [`end_slice`] alone puts a job *among* those that the ring has woken, often before them: each step on
/// the way of an append (readiness, request, write, its completion, the answer) then waited for a
/// slice of its own.
pub async fn give_way() {
    for _ in 0..WAYS_GIVEN_MAX {
        IS_HURRIED.set(false);
        end_slice().await;
        for _ in 0..WAKES_DEEP {
            // A spawned task stands behind all that are in the queue, and whom it wakes behind those again.
            monoio::spawn(async {}).await;
        }
        if !IS_HURRIED.get() {
            break;
        }
    }
}

/// Whether [`give_way`] takes no longer than what others do meanwhile: the ring has something that is always ready,
/// where epoll takes a timer.
pub fn gives_way_at_once() -> bool {
    ALWAYS_READY.with(|cell| cell.get().is_some_and(Option::is_some))
}

/// What was just begun is waited for: long work lets the ring submit it before it goes on.
pub fn hurry() {
    IS_HURRIED.set(true);
}

/// How long a job has been at it.
#[derive(Clone, Copy, Debug)]
pub struct Slice {
    until: Instant,
    length: Duration,
}

impl Slice {
    /// A slice that begins now.
    pub fn begin() -> Self {
        Slice::of(Duration::from_micros(SLICE_US))
    }

    /// A slice that begins now, for work that has another share of the shard.
    pub fn of(length: Duration) -> Self {
        Slice { until: Instant::now() + length, length }
    }

    /// How long it is meant to be.
    pub fn length(&self) -> Duration {
        self.length
    }

    /// Whether it is time for others.
    pub fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }
}

/// The cores that this process may run on, in order.
pub fn allowed_cores() -> Vec<usize> {
    match sched_getaffinity(None) {
        Ok(set) => (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect(),
        Err(_) => Vec::new(),
    }
}

/// Pins this thread to a core.
pub fn pin_to(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

/// How long a thread asks to run in a row, in ns: longer than what any other gets that does not ask (0.7 to
/// 3 ms, by kernel and cores).
const LONG_SLICE_NS: u64 = 5_000_000;

/// Lets whatever wakes up on this thread's core run before it goes on, for a thread that is busy.
///
/// On the core that gets a disk's interrupts the kernel's workers complete direct writes, in several
/// steps. A thread that was busy there, with pushes or as the load of a bench, made each commit wait 2 to
/// 3 ms for the last of them (`perf sched timehist`). Who asks for long slices (sched(7), since Linux
/// 6.12) gets no less of the core, and is behind those that wake up with short ones.
///
/// A thread that somebody gave another policy keeps it.
pub fn let_others_first() -> io::Result<()> {
    ask_for_slices(LONG_SLICE_NS)
}

/// Sets how long this thread asks to run in a row; not where somebody gave it another policy.
fn ask_for_slices(slice_ns: u64) -> io::Result<()> {
    set_share(rustix::process::getpriority_process(None)?, slice_ns)
}

/// Sets how nice this thread is, and for how long it asks to run in a row; not where somebody gave it another
/// policy.
fn set_share(nice: i32, slice_ns: u64) -> io::Result<()> {
    let this_thread = 0;
    // SAFETY: it asks for the policy of the calling thread, and touches no memory.
    if unsafe { libc::sched_getscheduler(this_thread) } != libc::SCHED_OTHER {
        return Ok(());
    }
    let attributes = libc::sched_attr {
        size: u32::try_from(size_of::<libc::sched_attr>()).expect("a small struct"),
        sched_policy: u32::try_from(libc::SCHED_OTHER).expect("it is 0"),
        sched_flags: 0,
        sched_nice: nice,
        sched_priority: 0,
        sched_runtime: slice_ns,
        sched_deadline: 0,
        sched_period: 0,
    };
    let flags = 0_u32;
    // SAFETY: the kernel reads `size` bytes of `attributes`, which outlive the call, and writes none.
    let result = unsafe {
        libc::syscall(libc::SYS_sched_setattr, this_thread, &raw const attributes, flags)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes this thread one that runs where nothing else wants to: on any core that the process may use,
/// when it would be idle (`SCHED_IDLE`). Threads inherit the core of the shard that starts them.
///
/// Its I/O is of the usual class, which has to be said: else it were of the idle one, as the thread is, and
/// that would have the others wait for it (`IO_CLASS`).
///
/// It asks for the longest slices as well: the policy counts only beside threads of its own group (autogroups and
/// cgroups, sched(7)), and the kernel's workers, which complete commits, are in another. (Beside a thread that computes for
/// 1.2 ms of 6: p99 of acknowledgements 1.5 ms with the policy alone, 0.8 with these slices, 0.66 beside none.)
pub fn run_when_idle() {
    if let Err(error) = set_io_class() {
        tracing::warn!(%error, "commits may wait for background work");
    }
    run_on_any_core();
    // Before the policy, with which it stays, and which has none of its own.
    if let Err(error) = ask_for_slices(LONGEST_SLICE_NS) {
        tracing::warn!(%error, "commits may wait for background work");
    }
    let param = libc::sched_param { sched_priority: 0 };
    // SAFETY: it sets the policy of the calling thread (0), and reads `param`, which outlives the call.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const param) } != 0 {
        tracing::warn!(error = %io::Error::last_os_error(), "background work runs at usual priority");
    }
}

/// Makes this thread one that takes what others leave, on any core that the process may use, and a tenth of one that
/// is never idle: for work that has to keep up with theirs. It is nice, and asks for slices that are longer than
/// those of a shard, which therefore goes on as soon as it wakes up (since Linux 6.12). (Of `SCHED_IDLE` three thousandths of a core
/// that is busy are left, which would be too little.)
pub fn run_behind_others() {
    run_on_any_core();
    if let Err(error) = set_share(BEHIND_NICE, LONGEST_SLICE_NS) {
        tracing::warn!(%error, "seals run at usual priority");
    }
}

/// Its weight is 110 where the usual one is 1024 (`sched_prio_to_weight`).
const BEHIND_NICE: i32 = 10;
/// How long a thread may ask to run in a row at the most, in ns.
const LONGEST_SLICE_NS: u64 = 100_000_000;
const _: () = assert!(LONGEST_SLICE_NS > LONG_SLICE_NS);

fn run_on_any_core() {
    let process = rustix::process::getpid();
    if let Ok(set) = sched_getaffinity(Some(process)) {
        // The main thread is pinned to no core. Else this one stays where it is.
        let _ = sched_setaffinity(None, &set);
    }
}

/// `IOPRIO_CLASS_BE` at its last level. The kernel derives the idle class from `SCHED_IDLE`, and `mq-deadline`
/// lets what is of that wait while others have anything under way. Of a sync this is a priority turned over: a
/// commit's write that takes the drive's cache along waits for the sync that is under way, which waits for a
/// timer. One of a hundred commits beside 200 syncs a second took 8 ms where it takes 0.6 now, as without syncs.
const IO_CLASS: libc::c_int = (2 << 13) | 7;

/// Gives this thread's I/O the [`IO_CLASS`].
fn set_io_class() -> io::Result<()> {
    // `IOPRIO_WHO_PROCESS`, of which 0 is the calling thread.
    let (who_process, this_thread): (libc::c_int, libc::c_int) = (1, 0);
    // SAFETY: it takes three numbers, and touches no memory.
    let result = unsafe { libc::syscall(libc::SYS_ioprio_set, who_process, this_thread, IO_CLASS) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// From now on a panic on a shard's thread ends the process, also where panics unwind (tests): a shard
/// must not die alone with buffers that the kernel still writes.
pub fn abort_on_shard_panic() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            before(info);
            if IS_SHARD.get() {
                std::process::abort();
            }
        }));
    });
}

/// Raises the number of files this process may open to what it is allowed; returns the number.
pub fn raise_file_limit() -> Option<u64> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, "cannot raise the limit of open files");
            return getrlimit(Resource::Nofile).current;
        }
    }
    limit.current
}

#[cfg(test)]
mod tests {
    use std::{
        pin::Pin,
        task::{Context, Poll},
    };

    use super::*;
    use crate::local::promise;

    #[test]
    fn what_runs_when_idle_has_io_of_the_usual_class() {
        let (of_process, itself): (libc::c_int, libc::c_int) = (1, 0);
        let thread = std::thread::spawn(move || {
            run_when_idle();
            // SAFETY: it takes two numbers, and touches no memory.
            unsafe { libc::syscall(libc::SYS_ioprio_get, of_process, itself) }
        });
        assert_eq!(thread.join().expect("no panic"), libc::c_long::from(IO_CLASS));
    }

    /// The policy and the slices of this thread.
    fn scheduling() -> (u32, u64) {
        // SAFETY: all of it is numbers.
        let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
        let size = u32::try_from(size_of::<libc::sched_attr>()).expect("a small struct");
        let (this_thread, flags) = (0, 0_u32);
        // SAFETY: the kernel writes at most `size` bytes to `attributes`, which outlive the call.
        let result = unsafe {
            libc::syscall(libc::SYS_sched_getattr, this_thread, &raw mut attributes, size, flags)
        };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        (attributes.sched_policy, attributes.sched_runtime)
    }

    #[test]
    fn what_runs_when_idle_is_behind_who_wakes_up_on_its_core() {
        let idle = u32::try_from(libc::SCHED_IDLE).expect("a small number");
        let (has_slices, usual) = std::thread::spawn(|| {
            let_others_first().expect("of the usual policy");
            (scheduling().1 == LONG_SLICE_NS, scheduling().1)
        })
        .join()
        .expect("no panic");
        let found = std::thread::spawn(|| {
            run_when_idle();
            scheduling()
        });
        // Before Linux 6.12 no thread may ask for slices.
        let slices = if has_slices { LONGEST_SLICE_NS } else { usual };
        assert_eq!(found.join().expect("no panic"), (idle, slices));
    }

    /// The usual way to yield, which monoio's own tasks have: wake yourself, be pending once.
    struct SelfWake(bool);

    impl Future for SelfWake {
        type Output = ();
        fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
            if std::mem::replace(&mut self.0, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        }
    }

    fn spin(time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            std::hint::spin_loop();
        }
    }

    /// How many slices of a job go by until a 5 ms timer rings: of 200, each of 1 ms, that end in the given way.
    fn slices_until_a_timer(driver: Driver, by_slices: bool) -> usize {
        std::thread::spawn(move || {
            block_on(driver, true, async move {
                let (slices, rang) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(None)));
                let timer = monoio::spawn({
                    let (slices, rang) = (slices.clone(), rang.clone());
                    async move {
                        monoio::time::sleep(Duration::from_millis(5)).await;
                        rang.set(Some(slices.get()));
                    }
                });
                let job = monoio::spawn(async move {
                    for _ in 0..200 {
                        spin(Duration::from_millis(1));
                        slices.set(slices.get() + 1);
                        if by_slices { end_slice().await } else { SelfWake(false).await }
                    }
                });
                job.await;
                timer.await;
                rang.get().expect("the timer rang")
            })
            .expect("a runtime")
        })
        .join()
        .expect("no panic")
    }

    #[test]
    fn a_slice_lets_timers_run_where_a_self_wake_starves_them() {
        let (driver, _) = Driver::detect();
        let by_slices = slices_until_a_timer(driver, true);
        assert!(by_slices < 100, "{by_slices} slices of a ms for a timer of 5 ms");
        if driver == Driver::IoUring {
            let by_self_wake = slices_until_a_timer(driver, false);
            assert!(
                by_self_wake > 150,
                "monoio has mended its yield ({by_self_wake} slices): then `end_slice` can go"
            );
        }
    }

    /// How many slices of a long job go by until `others`, which begin with it, are through.
    fn slices_until<F: Future<Output = ()> + 'static>(
        gives_way: bool,
        others: impl FnOnce() -> F + Send + 'static,
    ) -> usize {
        std::thread::spawn(move || {
            block_on(Driver::detect().0, true, async move {
                let (slices, seen) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
                let others = monoio::spawn({
                    let (slices, seen) = (slices.clone(), seen.clone());
                    let others = others();
                    async move {
                        others.await;
                        seen.set(slices.get());
                    }
                });
                let job = monoio::spawn(async move {
                    for _ in 0..20 {
                        slices.set(slices.get() + 1);
                        if gives_way { give_way().await } else { end_slice().await }
                    }
                });
                job.await;
                others.await;
                seen.get()
            })
            .expect("a runtime")
        })
        .join()
        .expect("no panic")
    }

    #[test]
    fn long_work_waits_for_all_that_follows_from_a_completion() {
        // Tasks that wake each other, as a request, its append and its write do.
        let chain = || async {
            let (mut wakes, mut woken): (Vec<_>, Vec<_>) = (0..3).map(|_| promise::<()>()).unzip();
            let last = woken.pop().expect("three");
            for (woken, wakes) in woken.into_iter().zip(wakes.split_off(1)) {
                monoio::spawn(async move {
                    woken.await;
                    wakes.keep(());
                });
            }
            end_slice().await;
            wakes.pop().expect("the first").keep(());
            last.await;
        };
        assert_eq!(slices_until(true, chain), 1);
        if Driver::detect().0 == Driver::IoUring {
            assert!(slices_until(false, chain) > 1, "then `give_way` is not needed");
        }
    }

    #[test]
    fn long_work_waits_until_the_kernel_has_what_others_wait_for() {
        let operation = |is_hurried: bool| {
            move || async move {
                // With few tasks monoio submits between them.
                for _ in 0..32 {
                    monoio::spawn(end_slice());
                }
                end_slice().await;
                if is_hurried {
                    hurry();
                }
                // An operation of the ring, which begins only when the ring submits.
                end_slice().await;
            }
        };
        if Driver::detect().0 == Driver::IoUring {
            assert_eq!(slices_until(true, operation(true)), 1);
            assert_eq!(slices_until(true, operation(false)), 2, "then `hurry` is not needed");
        }
    }

    #[test]
    fn a_slice_ends_on_the_epoll_driver_too() {
        let late = slices_until_a_timer(Driver::Epoll, true);
        assert!(late < 100, "{late} slices of a ms for a timer of 5 ms");
    }
}
