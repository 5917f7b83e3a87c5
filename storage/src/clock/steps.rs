//! When the times of events went ahead of the boot clock, and how far.

use std::collections::VecDeque;

/// Clocks that run apart are no step before they are so far apart.
const STEP_MS_MIN: u64 = 1_000;
/// So many are known apart from each other, the newest.
const STEPS_MAX: usize = 64;

/// The newest steps, in the order in which they came.
#[derive(Clone, Debug, Default)]
pub(super) struct Steps {
    /// When the last event was given its time, on the boot clock.
    last_boot_ms: u64,
    /// How far times were from the boot clock when they were behind most since the last step. They stand still while a
    /// clock is set back, and go on from there.
    least_ms: Option<i64>,
    steps: VecDeque<Step>,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    /// When it was noticed, on the boot clock.
    boot_ms: u64,
    ahead_ms: u64,
}

impl Steps {
    /// An event is given its time.
    pub(super) fn note(&mut self, boot_ms: u64, time_ms: u64) {
        self.last_boot_ms = boot_ms;
        let apart_ms = time_ms.cast_signed() - boot_ms.cast_signed();
        let least_ms = *self.least_ms.get_or_insert(apart_ms);
        let ahead_ms = u64::try_from(apart_ms - least_ms).unwrap_or(0);
        if ahead_ms >= STEP_MS_MIN {
            if self.steps.len() == STEPS_MAX
                && let Some(oldest) = self.steps.pop_front()
                && let Some(next) = self.steps.front_mut()
            {
                // It counts for longer than it has to rather than not at all.
                next.ahead_ms += oldest.ahead_ms;
            }
            self.steps.push_back(Step { boot_ms, ahead_ms });
        }
        if ahead_ms >= STEP_MS_MIN || apart_ms < least_ms {
            self.least_ms = Some(apart_ms);
        }
    }

    /// How far times went ahead in the `span_ms` before the last event.
    pub(super) fn ahead_ms(&self, span_ms: u64) -> u64 {
        let is_inside = |step: &&Step| self.last_boot_ms < step.boot_ms.saturating_add(span_ms);
        self.steps.iter().rev().take_while(is_inside).map(|step| step.ahead_ms).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN_MINUTES: u64 = 600_000;

    /// At these moments of the boot clock times were so far ahead of it.
    fn after(moments: &[(u64, u64)]) -> Steps {
        let mut steps = Steps::default();
        moments.iter().for_each(|(boot_ms, apart_ms)| steps.note(*boot_ms, boot_ms + apart_ms));
        steps
    }

    #[test]
    fn a_step_counts_for_as_long_as_what_it_would_have_ended() {
        let set = [(10_000, 5_000_000), (10_001, 5_060_000)];
        assert_eq!(after(&set).ahead_ms(TEN_MINUTES), 60_000);
        let later = |boot_ms| after(&[set[0], set[1], (20_000, 5_065_000), (boot_ms, 5_065_000)]);
        assert_eq!(later(610_000).ahead_ms(TEN_MINUTES), 65_000);
        assert_eq!(later(610_001).ahead_ms(TEN_MINUTES), 5_000);
        assert_eq!(later(620_000).ahead_ms(TEN_MINUTES), 0);
        assert_eq!(later(620_000).ahead_ms(u64::MAX), 65_000);
    }

    #[test]
    fn clocks_that_run_apart_come_to_a_step() {
        let drift: Vec<_> = (0..100).map(|number| (number * 50, number * 30)).collect();
        let ahead_ms = after(&drift).ahead_ms(TEN_MINUTES);
        assert!((2_000..=99 * 30).contains(&ahead_ms), "{ahead_ms}");
        let jitter: Vec<_> = (0..10_000).map(|number| (number, number % 2)).collect();
        assert_eq!(after(&jitter).ahead_ms(TEN_MINUTES), 0);
    }

    /// A clock was set back by a minute, and right again: what was appended meanwhile has the time of then.
    #[test]
    fn times_that_stood_still_and_catch_up_step() {
        let back = [(10_000, 5_000_000), (40_000, 4_970_000), (41_000, 5_000_000)];
        assert_eq!(after(&back).ahead_ms(TEN_MINUTES), 30_000);
    }

    #[test]
    fn of_many_steps_none_is_forgotten() {
        let many: Vec<_> = (0..100).map(|number| (number, number * 1_000)).collect();
        let steps = after(&many);
        assert_eq!((steps.ahead_ms(TEN_MINUTES), steps.steps.len()), (99_000, STEPS_MAX));
    }
}
