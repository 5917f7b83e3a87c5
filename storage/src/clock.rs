//! The time of an event: the larger of the wall clock and the event before it.
//!
//! All later times, retention and every window hang on it, and a time once given out is never taken
//! back. So a wall clock that leaps far ahead of what `CLOCK_BOOTTIME` (which nobody can set) says is
//! not believed at once:
//!
//! ```text
//!            wall > expected + LEAP_MS_MAX
//!   follows ------------------------------> doubts: times go on from the boot clock
//!      ^  ^                                    |  |
//!      |  +-- wall is back near the expected --+  |
//!      +----- the leap has lasted LEAP_HOLD_MS ---+
//! ```
//! A leap has lasted if the clock has gone on since as the boot clock has: another one begins anew.
//!
//! `expected` is the wall clock at the last moment that it was believed, plus what the boot clock
//! counted since. Slow drift and small steps move it along. A clock set back is harmless: times stand
//! still until it has caught up.

use crate::event::archive::TIME_MS_END;

/// The two clocks, read together by the caller; nothing in this crate reads a clock
/// (but `pace`, for its rests).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since 1970, UTC, as the wall clock has it.
    pub wall_ms: u64,
    /// Milliseconds of `CLOCK_BOOTTIME`: it counts through suspend and is never set.
    pub boot_ms: u64,
}

/// A wall clock this far ahead of the boot clock has leapt.
pub const LEAP_MS_MAX: u64 = 60 * 60 * 1000;

/// A leap is followed once it has lasted so long.
pub const LEAP_HOLD_MS: u64 = 10 * 60 * 1000;

/// What the clock did that an operator should know. Told once for each change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockNotice {
    /// The wall clock leapt ahead; event times do not follow it for now.
    Leapt {
        /// How far it is ahead of what was expected, in milliseconds.
        ahead_ms: u64,
    },
    /// It came back before it was followed.
    CameBack,
    /// It stayed there, and is followed from now on.
    Followed {
        /// How far event times jump, in milliseconds.
        ahead_ms: u64,
    },
}

/// Gives events their times.
#[derive(Clone, Debug)]
pub struct EventClock {
    /// The time of the last event.
    last_ms: u64,
    /// When the wall clock was last believed.
    believed: Now,
    /// What it was when it turned out to be too far ahead.
    doubted: Option<Now>,
}

impl EventClock {
    /// A clock that believes the wall clock as it is `now`, and goes on behind the event that was
    /// given `last_ms` (0 if there is none).
    pub fn new(now: Now, last_ms: u64) -> Self {
        EventClock { last_ms, believed: now, doubted: None }
    }

    /// The time of the next event, never before that of the last, and what there is to report.
    pub fn event_time(&mut self, now: Now) -> (u64, Option<ClockNotice>) {
        let (wall_ms, notice) = self.believable(now);
        self.last_ms = self.last_ms.max(wall_ms.min(TIME_MS_END - 1));
        (self.last_ms, notice)
    }

    /// The time of the last event.
    pub fn last_ms(&self) -> u64 {
        self.last_ms
    }

    fn believable(&mut self, now: Now) -> (u64, Option<ClockNotice>) {
        let elapsed_ms = now.boot_ms.saturating_sub(self.believed.boot_ms);
        let expected_ms = self.believed.wall_ms.saturating_add(elapsed_ms);
        let ahead_ms = now.wall_ms.saturating_sub(expected_ms);
        if ahead_ms <= LEAP_MS_MAX {
            // A clock set far back does not move what is expected: its way home is no leap.
            if expected_ms.saturating_sub(now.wall_ms) <= LEAP_MS_MAX {
                self.believed = now;
            }
            let came_back = self.doubted.take().is_some();
            return (now.wall_ms, came_back.then_some(ClockNotice::CameBack));
        }
        match self.doubted.filter(|doubted| is_on_its_way(*doubted, now)) {
            None => {
                self.doubted = Some(now);
                (expected_ms, Some(ClockNotice::Leapt { ahead_ms }))
            }
            Some(Now { boot_ms, .. }) if now.boot_ms.saturating_sub(boot_ms) < LEAP_HOLD_MS => {
                (expected_ms, None)
            }
            Some(_) => {
                self.doubted = None;
                self.believed = now;
                (now.wall_ms, Some(ClockNotice::Followed { ahead_ms }))
            }
        }
    }
}

/// Whether the clock has only gone on since it was `doubted`: one that leaps once more has to last anew.
fn is_on_its_way(doubted: Now, now: Now) -> bool {
    let elapsed_ms = now.boot_ms.saturating_sub(doubted.boot_ms);
    doubted.wall_ms.saturating_add(elapsed_ms).abs_diff(now.wall_ms) <= LEAP_MS_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Now = Now { wall_ms: 1_700_000_000_000, boot_ms: 5_000 };

    /// `boot_ms` later, with the wall clock `wall_ms` ahead of that.
    fn later(boot_ms: u64, wall_ms: i64) -> Now {
        Now {
            wall_ms: (START.wall_ms + boot_ms).checked_add_signed(wall_ms).expect("in range"),
            boot_ms: START.boot_ms + boot_ms,
        }
    }

    #[test]
    fn times_never_go_back() {
        let mut clock = EventClock::new(START, 0);
        assert_eq!(clock.event_time(START), (START.wall_ms, None));
        assert_eq!(clock.event_time(later(10, -5_000)), (START.wall_ms, None));
        assert_eq!(clock.event_time(later(20, 0)), (START.wall_ms + 20, None));
        let mut behind = EventClock::new(START, START.wall_ms + 99);
        assert_eq!(behind.event_time(later(1, 0)), (START.wall_ms + 99, None));
    }

    #[test]
    fn a_leap_is_reported_once_and_followed_after_it_has_lasted() {
        let mut clock = EventClock::new(START, 0);
        let leap = LEAP_MS_MAX + 1;
        let ahead = i64::try_from(leap).expect("an hour fits");
        assert_eq!(
            clock.event_time(later(1_000, ahead)),
            (START.wall_ms + 1_000, Some(ClockNotice::Leapt { ahead_ms: leap }))
        );
        let held = 1_000 + LEAP_HOLD_MS - 1;
        assert_eq!(clock.event_time(later(held, ahead)), (START.wall_ms + held, None));
        let followed = 1_000 + LEAP_HOLD_MS;
        assert_eq!(
            clock.event_time(later(followed, ahead)),
            (START.wall_ms + followed + leap, Some(ClockNotice::Followed { ahead_ms: leap }))
        );
        assert_eq!(clock.event_time(later(followed + 1, ahead)).1, None, "it is believed now");
    }

    /// The first was by hours, and nobody looked while it lasted; the second is by years.
    #[test]
    fn a_leap_that_leaps_again_has_to_last_anew() {
        let mut clock = EventClock::new(START, 0);
        let (hours, years) = (10 * 3_600_000, 15 * 365 * 24 * 3_600_000_i64);
        let (first, second) = (later(1_000, hours), 1_000 + 2 * LEAP_HOLD_MS);
        assert!(matches!(clock.event_time(first).1, Some(ClockNotice::Leapt { .. })));
        let ahead_ms = years.cast_unsigned();
        let told = Some(ClockNotice::Leapt { ahead_ms });
        assert_eq!(clock.event_time(later(second, years)), (START.wall_ms + second, told));
        let held = second + LEAP_HOLD_MS - 1;
        assert_eq!(clock.event_time(later(held, years)), (START.wall_ms + held, None));
        let followed = second + LEAP_HOLD_MS;
        let told = Some(ClockNotice::Followed { ahead_ms });
        let time_ms = START.wall_ms + followed + ahead_ms;
        assert_eq!(clock.event_time(later(followed, years)), (time_ms, told));
    }

    #[test]
    fn a_leap_that_goes_away_leaves_no_trace() {
        let mut clock = EventClock::new(START, 0);
        let ahead = i64::try_from(LEAP_MS_MAX * 24).expect("a day fits");
        assert!(matches!(clock.event_time(later(1, ahead)).1, Some(ClockNotice::Leapt { .. })));
        assert_eq!(clock.event_time(later(2, 0)), (START.wall_ms + 2, Some(ClockNotice::CameBack)));
    }

    #[test]
    fn an_hour_ahead_is_no_leap_and_drift_adds_up() {
        let mut clock = EventClock::new(START, 0);
        let hour = i64::try_from(LEAP_MS_MAX).expect("an hour fits");
        assert_eq!(clock.event_time(later(1, hour)).1, None);
        assert_eq!(clock.event_time(later(2, 2 * hour)).1, None);
    }

    #[test]
    fn the_way_back_from_a_clock_set_far_back_is_no_leap() {
        let mut clock = EventClock::new(START, 0);
        let day = i64::try_from(LEAP_MS_MAX * 24).expect("a day fits");
        assert_eq!(clock.event_time(later(0, 0)), (START.wall_ms, None));
        assert_eq!(clock.event_time(later(1, -day)), (START.wall_ms, None));
        assert_eq!(clock.event_time(later(2, 0)), (START.wall_ms + 2, None));
    }
}
