//! How long a session goes on without a sign of life from its client.

use std::time::{Duration, Instant};

/// A connection without a sign of life ends after two heartbeats, but not sooner than this.
const SILENCE_S_MIN: u32 = 60;

/// The last sign of life from the client: something came in, or it took what was sent.
pub struct Life {
    seen: Instant,
    taken_bytes: u64,
    /// For so long neither may happen.
    silence_max_s: u32,
}

impl Life {
    pub fn new(now: Instant, heartbeat_s: u16) -> Self {
        let silence_max_s = (u32::from(heartbeat_s) * 2).max(SILENCE_S_MIN);
        Life { seen: now, taken_bytes: 0, silence_max_s }
    }

    /// Something came in.
    pub fn heard(&mut self, now: Instant) {
        self.seen = now;
    }

    /// It could take nothing until now: what it was owed had to be encoded.
    pub fn was_kept_waiting(&mut self, now: Instant) {
        self.seen = now;
    }

    /// Whether the client has gone without a word; `taken_bytes` is what it has taken in all.
    pub fn is_over(&mut self, taken_bytes: u64, now: Instant) -> bool {
        if taken_bytes > self.taken_bytes {
            self.taken_bytes = taken_bytes;
            self.seen = now;
        }
        now.duration_since(self.seen) >= Duration::from_secs(self.silence_max_s.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// API §5: "a connection ends for silence only when for the longer of 2 heartbeats and 60 s nothing
    /// came in *and* none of its queued bytes was taken (a slow reader is not a dead one)".
    #[test]
    fn a_connection_ends_after_two_heartbeats_or_a_minute_without_a_sign_of_life() {
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        let mut life = Life::new(began, 15);
        assert!(!life.is_over(0, after(59)));
        assert!(life.is_over(0, after(60)), "a minute is longer than two heartbeats");

        let mut life = Life::new(began, 100);
        assert!(!life.is_over(0, after(199)), "two heartbeats are longer than a minute");
        assert!(life.is_over(0, after(200)));

        let mut life = Life::new(began, 15);
        life.heard(after(50));
        assert!(!life.is_over(0, after(109)), "something came in");
        assert!(!life.is_over(1, after(110)), "a slow reader took a byte");
        assert!(!life.is_over(1, after(169)));
        life.was_kept_waiting(after(169));
        assert!(!life.is_over(1, after(228)), "it was sent nothing that it could take");
        assert!(life.is_over(1, after(229)), "what was taken before is no sign");
    }
}
