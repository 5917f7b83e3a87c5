//! How long to wait before a connection is made again.
//!
//! What the last stream asked for (`retry:`) is the first pause, and each attempt in a row that comes to nothing doubles
//! it. A server that answers has not taken the stream yet: it may have no place for it.

use std::time::Duration;

/// The first pause where no stream has asked for one.
const FIRST: Duration = Duration::from_millis(100);
/// Doubled up to this, unless a stream asks for more,
const LAST: Duration = Duration::from_secs(5);
/// and no stream is waited for longer.
const ASKED_MAX: Duration = Duration::from_secs(60);

/// The pauses of one who comes back again and again.
#[derive(Debug)]
pub struct Reconnect {
    first: Duration,
    failures: u32,
}

impl Default for Reconnect {
    fn default() -> Self {
        Reconnect { first: FIRST, failures: 0 }
    }
}

impl Reconnect {
    /// A stream asks for this pause.
    pub fn asked(&mut self, retry: Duration) {
        self.first = retry.clamp(FIRST, ASKED_MAX);
    }

    /// A stream was taken: what comes to nothing from now on is counted anew.
    pub fn taken(&mut self) {
        self.failures = 0;
    }

    /// The pause now that a connection has ended or could not be made.
    pub fn pause(&mut self) -> Duration {
        let doubled = self.first.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        doubled.min(LAST.max(self.first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses_ms(reconnect: &mut Reconnect, count: usize) -> Vec<u128> {
        (0..count).map(|_| reconnect.pause().as_millis()).collect()
    }

    #[test]
    fn pauses_double_until_a_stream_is_taken() {
        let mut reconnect = Reconnect::default();
        let doubled = [100, 200, 400, 800, 1600, 3200, 5000, 5000];
        assert_eq!(pauses_ms(&mut reconnect, 8), doubled);
        reconnect.taken();
        assert_eq!(pauses_ms(&mut reconnect, 2), [100, 200]);
    }

    /// A full server answers, and says when to come again: that is no stream that was taken.
    #[test]
    fn what_a_stream_asks_for_is_waited_for() {
        let mut reconnect = Reconnect::default();
        reconnect.asked(Duration::from_millis(2000));
        assert_eq!(pauses_ms(&mut reconnect, 3), [2000, 4000, 5000]);
        reconnect.taken();
        reconnect.asked(Duration::from_millis(1500));
        assert_eq!(pauses_ms(&mut reconnect, 2), [1500, 3000]);
        reconnect.asked(Duration::from_millis(9000));
        assert_eq!(pauses_ms(&mut reconnect, 1), [9000]);
        // Who asks for none at all would be asked without end.
        reconnect.asked(Duration::ZERO);
        reconnect.taken();
        assert_eq!(pauses_ms(&mut reconnect, 2), [100, 200]);
        reconnect.asked(Duration::MAX);
        assert_eq!(pauses_ms(&mut reconnect, 70), [60_000; 70]);
    }
}
