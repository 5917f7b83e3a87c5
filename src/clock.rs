//! The clocks, read when they are needed: the only file of the server that does so.

use rustix::time::{ClockId, clock_gettime};
use strandline_storage::clock::Now;

/// Both clocks.
pub fn now() -> Now {
    Now { wall_ms: unix_ms(), boot_ms: boot_ms() }
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
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1000).saturating_add(nanoseconds / 1_000_000)
}
