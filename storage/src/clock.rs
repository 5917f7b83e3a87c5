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
//!
//! A start knows no such moment. New events get the time of the wall clock, which is right nearly always: the log
//! was not in use for a while. But what goes by its age would be gone for ever where it is wrong. So *limits* go by a
//! time of their own until nothing speaks for another one than that of events: a wall clock that is far ahead of the
//! last event is doubted there as if it had leapt, and one that is behind it is believed: the event may have had its
//! time from a clock that was wrong.
//!
//! What is remembered for a while, so that nothing is appended twice, goes by time in which the log was in use: steps
//! of times that the boot clock knows nothing of (`steps`) do not count, be it that a clock was set, or that the
//! server was not running. The next start is told of them (`end_mark/steps.rs`).

mod steps;

use crate::event::archive::TIME_MS_END;

use steps::Steps;
pub use steps::{PastStep, STEPS_MAX};

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
    wall: WallClock,
    /// What limits go by, until that is the time of events.
    limits: Option<WallClock>,
    steps: Steps,
}

impl EventClock {
    /// A clock that believes the wall clock as it is `now`, and goes on behind the event that was
    /// given `last_ms` (0 if there is none). What is known of steps before is `past`.
    pub fn new(now: Now, last_ms: u64, past: &[PastStep]) -> Self {
        let wall = WallClock { believed: now, doubted: None };
        let is_far_ahead = last_ms > 0 && now.wall_ms > last_ms.saturating_add(LEAP_MS_MAX);
        let limits = if is_far_ahead {
            let believed = Now { wall_ms: last_ms, ..now };
            Some(WallClock { believed, doubted: Some(now) })
        } else {
            (now.wall_ms < last_ms).then(|| wall.clone())
        };
        let mut steps = Steps::of(past, now.boot_ms, last_ms);
        if last_ms > 0 {
            steps.note(now.boot_ms, last_ms);
            // The first event will have that time: what it comes to is known before it is acknowledged.
            steps.note(now.boot_ms, last_ms.max(now.wall_ms.min(TIME_MS_END - 1)));
        }
        EventClock { last_ms, wall, limits, steps }
    }

    /// The time of the next event, never before that of the last, and what there is to report.
    pub fn event_time(&mut self, now: Now) -> (u64, Option<ClockNotice>) {
        let (time_ms, notice) = self.next_time(now);
        self.steps.note(now.boot_ms, time_ms);
        self.last_ms = time_ms;
        (time_ms, notice)
    }

    /// So many milliseconds by the times of events did not pass for what is remembered for `span_ms`.
    pub fn ahead_ms(&self, span_ms: u64) -> u64 {
        self.steps.ahead_ms(span_ms)
    }

    /// How often the steps have changed that are known.
    pub(crate) fn steps_noted(&self) -> u64 {
        self.steps.noted()
    }

    /// What the next start has to know of them.
    pub(crate) fn past_steps(&self) -> Vec<PastStep> {
        self.steps.past()
    }

    fn next_time(&mut self, now: Now) -> (u64, Option<ClockNotice>) {
        let (wall_ms, notice) = self.wall.believable(now);
        (self.last_ms.max(wall_ms.min(TIME_MS_END - 1)), notice)
    }

    /// How late it is for what goes by its age, and what there is to report: not later than an event would have it now,
    /// and after a start perhaps earlier.
    pub fn limit_time(&mut self, now: Now) -> (u64, Option<ClockNotice>) {
        let (event_ms, notice) = self.next_time(now);
        let Some(limits) = &mut self.limits else { return (event_ms, notice) };
        let (limit_ms, _) = limits.believable(now);
        if limit_ms >= event_ms {
            self.limits = None;
        }
        (limit_ms.min(event_ms), notice)
    }

    /// The time of the last event.
    pub fn last_ms(&self) -> u64 {
        self.last_ms
    }
}

/// The wall clock, as far as it is believed.
#[derive(Clone, Debug)]
struct WallClock {
    /// When it was last believed.
    believed: Now,
    /// What it was when it turned out to be too far ahead.
    doubted: Option<Now>,
}

impl WallClock {
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
        let mut clock = EventClock::new(START, 0, &[]);
        assert_eq!(clock.event_time(START), (START.wall_ms, None));
        assert_eq!(clock.event_time(later(10, -5_000)), (START.wall_ms, None));
        assert_eq!(clock.event_time(later(20, 0)), (START.wall_ms + 20, None));
        let mut behind = EventClock::new(START, START.wall_ms + 99, &[]);
        assert_eq!(behind.event_time(later(1, 0)), (START.wall_ms + 99, None));
    }

    #[test]
    fn a_leap_is_reported_once_and_followed_after_it_has_lasted() {
        let mut clock = EventClock::new(START, 0, &[]);
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
        let mut clock = EventClock::new(START, 0, &[]);
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
        let mut clock = EventClock::new(START, 0, &[]);
        let ahead = i64::try_from(LEAP_MS_MAX * 24).expect("a day fits");
        assert!(matches!(clock.event_time(later(1, ahead)).1, Some(ClockNotice::Leapt { .. })));
        assert_eq!(clock.event_time(later(2, 0)), (START.wall_ms + 2, Some(ClockNotice::CameBack)));
    }

    /// The clock at a start, behind an event of `START`.
    fn started(now: Now) -> EventClock {
        EventClock::new(now, START.wall_ms, &[])
    }

    #[test]
    fn limits_follow_a_start_far_behind_the_last_event_once_that_has_lasted() {
        let week = i64::try_from(LEAP_MS_MAX * 24 * 7).expect("a week fits");
        let mut clock = started(later(0, week));
        assert_eq!(clock.event_time(later(1, week)), (later(1, week).wall_ms, None));
        let held = LEAP_HOLD_MS - 1;
        for boot_ms in [1, 5_000, held] {
            let limit = clock.limit_time(later(boot_ms, week));
            assert_eq!(limit, (START.wall_ms + boot_ms, None), "as if it had not been stopped");
        }
        let followed = later(LEAP_HOLD_MS, week);
        assert_eq!(clock.limit_time(followed), (followed.wall_ms, None));
        let next = later(LEAP_HOLD_MS + 1, week);
        assert_eq!(
            (clock.limit_time(next), clock.event_time(next)),
            ((next.wall_ms, None), (next.wall_ms, None))
        );
    }

    #[test]
    fn limits_do_not_go_by_what_a_wrong_clock_has_given_an_event() {
        let years = i64::try_from(LEAP_MS_MAX * 24 * 365 * 14).expect("14 years fit");
        let mut clock = started(later(0, years));
        assert_eq!(clock.event_time(later(1, years)).0, later(1, years).wall_ms);
        assert_eq!(clock.limit_time(later(2, years)).0, START.wall_ms + 2);
        // The clock is right again before it was followed,
        let corrected = later(30_000, 0);
        assert_eq!(clock.limit_time(corrected).0, corrected.wall_ms);
        let last_ms = clock.event_time(corrected).0;
        assert_eq!(last_ms, later(1, years).wall_ms, "times of events never go back");
        assert_eq!(clock.limit_time(later(LEAP_HOLD_MS, 0)).0, later(LEAP_HOLD_MS, 0).wall_ms);
        // and at the next start.
        let mut clock = EventClock::new(later(60_000, 0), last_ms, &[]);
        assert_eq!(clock.limit_time(later(60_001, 0)).0, later(60_001, 0).wall_ms);
    }

    #[test]
    fn an_ordinary_start_has_one_time() {
        let hour = i64::try_from(LEAP_MS_MAX).expect("an hour fits");
        for (now, last_ms) in [(START, 0), (START, START.wall_ms), (later(0, hour), START.wall_ms)]
        {
            let mut clock = EventClock::new(now, last_ms, &[]);
            assert_eq!(clock.limit_time(now), (now.wall_ms, None));
        }
    }

    #[test]
    fn looking_at_limits_gives_no_time_to_events() {
        let hour = i64::try_from(LEAP_MS_MAX).expect("an hour fits");
        let mut clock = EventClock::new(START, 0, &[]);
        assert_eq!(clock.event_time(START).0, START.wall_ms);
        assert_eq!(clock.limit_time(later(1, hour)).0, later(1, hour).wall_ms);
        assert_eq!(clock.event_time(later(2, 0)).0, later(2, 0).wall_ms);
    }

    #[test]
    fn an_hour_ahead_is_no_leap_and_drift_adds_up() {
        let mut clock = EventClock::new(START, 0, &[]);
        let hour = i64::try_from(LEAP_MS_MAX).expect("an hour fits");
        assert_eq!(clock.event_time(later(1, hour)).1, None);
        assert_eq!(clock.event_time(later(2, 2 * hour)).1, None);
    }

    #[test]
    fn the_way_back_from_a_clock_set_far_back_is_no_leap() {
        let mut clock = EventClock::new(START, 0, &[]);
        let day = i64::try_from(LEAP_MS_MAX * 24).expect("a day fits");
        assert_eq!(clock.event_time(later(0, 0)), (START.wall_ms, None));
        assert_eq!(clock.event_time(later(1, -day)), (START.wall_ms, None));
        assert_eq!(clock.event_time(later(2, 0)), (START.wall_ms + 2, None));
    }
}
