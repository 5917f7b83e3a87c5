//! When the times of events went ahead of the boot clock, and how far.

use std::collections::VecDeque;

use crate::once::producers::FORGOTTEN_MS;

/// Clocks that run apart are no step before they are so far apart.
const STEP_MS_MIN: u64 = 1_000;
/// So many are known apart from each other.
pub const STEPS_MAX: usize = 64;

/// The steps that count, in the order in which they came.
#[derive(Clone, Debug, Default)]
pub(super) struct Steps {
    /// When the last event was given its time, on the boot clock.
    last_boot_ms: i64,
    /// How far times were from the boot clock when they were behind most since the last step. They stand still while a
    /// clock is set back, and go on from there.
    least_ms: Option<i64>,
    steps: VecDeque<Step>,
    /// How often they have changed.
    noted: u64,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    /// When it was noticed, on the boot clock: of one before a start as if the log had been in use until then.
    boot_ms: i64,
    past: PastStep,
}

/// A step, for the next start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PastStep {
    /// No event behind it has an earlier time: milliseconds since 1970.
    pub time_ms: u64,
    /// How far times went ahead, in milliseconds.
    pub ahead_ms: u64,
}

impl PastStep {
    /// What it comes to where the event behind it, or the last, has this time.
    fn up_to(&self, time_ms: u64) -> Option<PastStep> {
        let ahead_ms = self.ahead_ms.saturating_sub(self.time_ms.saturating_sub(time_ms));
        let is_one = ahead_ms >= STEP_MS_MIN;
        is_one.then(|| PastStep { time_ms: self.time_ms.min(time_ms), ahead_ms })
    }
}

impl Steps {
    /// Those before an event of `last_ms`, the last, after which a log was not in use until now. One that was to lead
    /// further has come to as much as events have followed it.
    pub(super) fn of(past: &[PastStep], boot_ms: u64, last_ms: u64) -> Steps {
        let boot_ms = boot_ms.cast_signed();
        let mut behind_ms = 0;
        let mut steps = VecDeque::new();
        for past in past.iter().rev().filter_map(|past| past.up_to(last_ms)).take(STEPS_MAX) {
            let used_ms = (last_ms - past.time_ms).saturating_sub(behind_ms);
            let boot_ms = boot_ms.saturating_sub_unsigned(used_ms);
            steps.push_front(Step { boot_ms, past });
            behind_ms = behind_ms.saturating_add(past.ahead_ms);
        }
        Steps { last_boot_ms: boot_ms, least_ms: None, noted: steps.len() as u64, steps }
    }

    /// An event is given its time, or will be: what was foreseen is less if the clock is set back before.
    pub(super) fn note(&mut self, boot_ms: u64, time_ms: u64) {
        self.last_boot_ms = boot_ms.cast_signed();
        if let Some(expected) = self.steps.pop_back_if(|step| time_ms < step.past.time_ms) {
            let past = expected.past.up_to(time_ms);
            self.steps.extend(past.map(|past| Step { past, ..expected }));
            self.noted += 1;
        }
        let apart_ms = time_ms.cast_signed() - self.last_boot_ms;
        let least_ms = *self.least_ms.get_or_insert(apart_ms);
        let ahead_ms = u64::try_from(apart_ms - least_ms).unwrap_or(0);
        if ahead_ms >= STEP_MS_MIN {
            self.make_room();
            let past = PastStep { time_ms, ahead_ms };
            self.steps.push_back(Step { boot_ms: self.last_boot_ms, past });
            self.noted += 1;
        }
        if ahead_ms >= STEP_MS_MIN || apart_ms < least_ms {
            self.least_ms = Some(apart_ms);
        }
    }

    /// Forgets what counts for nothing any more. If there are as many as can be, two become one, at the place of the later: the
    /// earlier one counts for longer than it has to rather than not at all. Those two are taken behind which the way to the
    /// one before is the shortest then, so that they stay apart evenly.
    fn make_room(&mut self) {
        let from_ms = self.last_boot_ms.saturating_sub_unsigned(FORGOTTEN_MS);
        while self.steps.pop_front_if(|step| step.boot_ms <= from_ms).is_some() {}
        if self.steps.len() < STEPS_MAX {
            return;
        }
        let way = |place: &usize| self.steps[*place].boot_ms - self.steps[place - 2].boot_ms;
        let Some(place) = (2..self.steps.len()).min_by_key(way) else { return };
        let Some(later) = self.steps.remove(place) else { return };
        let kept = &mut self.steps[place - 1];
        let ahead_ms = kept.past.ahead_ms.saturating_add(later.past.ahead_ms);
        *kept = Step { past: PastStep { ahead_ms, ..later.past }, ..later };
    }

    /// How far times went ahead in the `span_ms` before the last event.
    pub(super) fn ahead_ms(&self, span_ms: u64) -> u64 {
        let is_inside =
            |step: &&Step| self.last_boot_ms < step.boot_ms.saturating_add_unsigned(span_ms);
        let inside = self.steps.iter().rev().take_while(is_inside);
        inside.fold(0, |sum, step| sum.saturating_add(step.past.ahead_ms))
    }

    /// How often they have changed: what is written down is right as long as they have not.
    pub(super) fn noted(&self) -> u64 {
        self.noted
    }

    /// What the next start has to know.
    pub(super) fn past(&self) -> Vec<PastStep> {
        self.steps.iter().map(|step| step.past).collect()
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

    /// A server that is started each hour of a year, and runs for ten minutes.
    #[test]
    fn what_counts_for_nothing_any_more_goes_however_many_there_are() {
        let (run, idle) = (TEN_MINUTES, 5 * TEN_MINUTES);
        let mut steps = Steps::default();
        let mut time_ms = 1_000_000;
        steps.note(0, time_ms);
        for start in 0..365 * 24 {
            time_ms += idle;
            steps.note(start * run, time_ms);
            time_ms += run;
            steps.note(start * run + run, time_ms);
        }
        let in_a_week = FORGOTTEN_MS / run * idle;
        let ahead_ms = steps.ahead_ms(FORGOTTEN_MS);
        assert!(
            (in_a_week..in_a_week * 102 / 100).contains(&ahead_ms),
            "{ahead_ms} of {in_a_week}"
        );
        let past = steps.past();
        let again = Steps::of(&past, 7, time_ms);
        assert_eq!((again.ahead_ms(FORGOTTEN_MS), again.past()), (ahead_ms, past));
    }

    /// The clock was two hours fast at a start, and set right; then the machine stood still for half an hour.
    #[test]
    fn a_start_by_a_fast_clock_that_is_set_right_comes_to_what_it_was() {
        let (minute, hour) = (60_000, 3_600_000);
        let mut steps = Steps::default();
        let last_ms = 5_000_000;
        steps.note(0, last_ms);
        steps.note(0, last_ms + 2 * hour);
        // Nothing more was written before it was killed.
        let killed = Steps::of(&steps.past(), 7, last_ms + 3 * minute);
        assert_eq!(killed.ahead_ms(TEN_MINUTES), 3 * minute, "no later than the last event");
        steps.note(minute, last_ms + 21 * minute);
        assert_eq!(steps.ahead_ms(TEN_MINUTES), 21 * minute);
        steps.note(2 * minute, last_ms + 52 * minute);
        assert_eq!(steps.ahead_ms(TEN_MINUTES), 51 * minute);
        let past = steps.past();
        assert!(past.is_sorted_by_key(|step| step.time_ms), "{past:?}");
        assert_eq!(steps.noted(), 3, "each is written down");
        // One that came to nothing is none.
        steps.note(3 * minute, last_ms + 60 * minute);
        steps.note(3 * minute, last_ms + 53 * minute);
        assert_eq!((steps.ahead_ms(TEN_MINUTES), steps.noted()), (51 * minute, 5));
    }

    /// The log was started anew twice, after an hour and after half of one, and once more without an event in between.
    #[test]
    fn a_start_goes_on_with_the_steps_that_came_about() {
        let (hour, half) = (3_600_000, 1_800_000);
        let start = |past: &[PastStep], boot_ms, last_ms, wall_ms| {
            let mut steps = Steps::of(past, boot_ms, last_ms);
            steps.note(boot_ms, last_ms);
            steps.note(boot_ms, wall_ms);
            steps
        };
        let first = start(&[], 1_000, 5_000_000, 5_000_000 + hour);
        assert_eq!(first.ahead_ms(TEN_MINUTES), hour);
        let in_vain = start(&first.past(), 50, 5_000_000, 5_100_000 + hour);
        assert_eq!(in_vain.ahead_ms(TEN_MINUTES), 100_000 + hour, "no event lay behind the first");
        // An event had come a minute after the first start. The machine has started since.
        let last_ms = 5_060_000 + hour;
        let mut second = start(&first.past(), 7, last_ms, last_ms + half);
        assert_eq!((second.noted(), second.ahead_ms(TEN_MINUTES)), (2, hour + half));
        let mut at = |boot_ms| {
            second.note(boot_ms, last_ms + half + boot_ms - 7);
            second.ahead_ms(TEN_MINUTES)
        };
        assert_eq!((at(7 + 539_999), at(7 + 540_000)), (hour + half, half), "a minute is over");
        assert_eq!((at(7 + 599_999), at(7 + 600_000)), (half, 0));
        let third = Steps::of(&second.past(), 9, last_ms + half + 600_000);
        assert_eq!(third.past(), second.past());
        assert_eq!((third.ahead_ms(TEN_MINUTES), third.ahead_ms(u64::MAX)), (0, hour + half));
        assert_eq!(third.ahead_ms(TEN_MINUTES + 1), half);
        assert_eq!(third.ahead_ms(TEN_MINUTES + 60_001), hour + half);
    }
}
