//! The clocks, read when they are needed: the only file of the server that does so.

use std::{
    cell::{Cell, LazyCell},
    time::{Duration, Instant},
};

use rustix::time::{ClockId, Timespec, clock_gettime};
use strandline_storage::clock::Now;

/// [`now_at`] reads the clocks again after so long.
const RECENT: Duration = Duration::from_millis(1);

thread_local! {
    static READ_LAST: Cell<Option<(Instant, Now)>> = const { Cell::new(None) };
    /// One moment on the clock that costs little, and on the other.
    static ANCHOR: LazyCell<(Duration, Instant)> = LazyCell::new(|| (coarse(), Instant::now()));
}

/// Both clocks.
pub fn now() -> Now {
    Now { wall_ms: unix_ms(), boot_ms: boot_ms() }
}

/// Both clocks `at` a moment that was just read, or up to 1 ms before: many appends in a row need not read
/// them all, which takes 25 ns a clock.
pub fn now_at(at: Instant) -> Now {
    match READ_LAST.get() {
        Some((read, now)) if at.saturating_duration_since(read) < RECENT => now,
        _ => {
            let now = now();
            READ_LAST.set(Some((at, now)));
            now
        }
    }
}

/// Now, some milliseconds more or less, at a third of what [`Instant::now`] costs.
pub fn coarse_instant() -> Instant {
    let (coarse_then, then) = ANCHOR.with(|anchor| **anchor);
    then + coarse().saturating_sub(coarse_then)
}

/// Of the clock that [`Instant`]s are read from, as of the last tick.
fn coarse() -> Duration {
    duration(clock_gettime(ClockId::MonotonicCoarse))
}

/// Milliseconds since 1970, by the wall clock; 0 before.
pub fn unix_ms() -> u64 {
    read_ms(ClockId::Realtime)
}

/// Seconds since 1970, by the wall clock; 0 before. It may be some milliseconds behind the others, and
/// costs a fraction of them.
pub fn unix_s() -> u64 {
    u64::try_from(clock_gettime(ClockId::RealtimeCoarse).tv_sec).unwrap_or(0)
}

/// Milliseconds since the machine started, also while it slept.
pub fn boot_ms() -> u64 {
    read_ms(ClockId::Boottime)
}

/// Milliseconds that this thread has run for. A system call, unlike the others.
pub fn busy_ms() -> u64 {
    read_ms(ClockId::ThreadCPUTime)
}

fn read_ms(clock: ClockId) -> u64 {
    u64::try_from(duration(clock_gettime(clock)).as_millis()).unwrap_or(u64::MAX)
}

/// Since the clock's beginning; nothing before it.
fn duration(time: Timespec) -> Duration {
    time.try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_clocks_are_read_again_after_a_millisecond() {
        let at = Instant::now();
        let read = now_at(at);
        READ_LAST.set(Some((at, Now { wall_ms: 1, boot_ms: 2 })));
        assert_eq!(now_at(at + RECENT / 2).wall_ms, 1);
        assert!(now_at(at + RECENT).wall_ms >= read.wall_ms);
        assert!(now_at(at + RECENT + RECENT / 2).boot_ms >= read.boot_ms);
    }

    #[test]
    fn the_coarse_clock_goes_along() {
        let about = Duration::from_millis(500);
        for _ in 0..3 {
            let before = Instant::now();
            let coarse = coarse_instant();
            assert!(before - about <= coarse && coarse <= Instant::now() + about);
            std::thread::sleep(Duration::from_millis(30));
            assert!(coarse_instant() > coarse);
        }
    }
}
