//! For how long a log has been in use since something was appended: what is remembered for a while is remembered for so
//! long, whatever clocks do meanwhile.

use strandline_storage::clock::Now;

/// Clocks may run apart by so much.
const TOLERANCE_MS: u64 = 1_000;
/// The least that is noticed of a while in which a log was not in use.
const STEP_MS_MIN: u64 = 1_000;

/// When something was appended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moment {
    pub time_ms: u64,
    boot_ms: u64,
    life: u64,
}

/// How a log is used.
#[derive(Clone, Debug, Default)]
pub struct InUse {
    /// It was opened so often.
    life: u64,
    opened_boot_ms: u64,
    /// The time of the last event then.
    opened_last_ms: u64,
    /// Of each former life: from when to when it was in use, on the boot clock.
    former: Vec<(u64, u64)>,
    /// Those that came a while behind the last event, and have written that down.
    late_starts: Vec<LateStart>,
    now: Now,
    /// So far the wall clock has fallen behind the boot clock in all: times stood still meanwhile, and may have caught up.
    behind_ms: u64,
}

#[derive(Clone, Copy, Debug)]
struct LateStart {
    life: u64,
    /// No event of it has an earlier time.
    time_ms: u64,
    /// The log was not in use for so long, by the times of its events.
    ahead_ms: u64,
}

impl LateStart {
    /// It was no later than an event of this time.
    fn leads_to(&mut self, time_ms: u64) {
        let less_ms = self.time_ms.saturating_sub(time_ms);
        self.time_ms -= less_ms;
        self.ahead_ms = self.ahead_ms.saturating_sub(less_ms);
        // A shorter while is not noticed.
        if self.ahead_ms < STEP_MS_MIN {
            self.ahead_ms = 0;
        }
    }
}

impl InUse {
    /// A log whose last event has this time was opened; `is_marked`: it has written that down.
    pub fn begins(&mut self, now: Now, last_ms: u64, is_marked: bool) {
        if self.life > 0 {
            self.former.push((self.opened_boot_ms, self.now.boot_ms));
        }
        self.passes(now);
        self.late_starts.iter_mut().for_each(|start| start.leads_to(last_ms));
        let ahead_ms = now.wall_ms.saturating_sub(last_ms);
        if last_ms > 0 && is_marked && ahead_ms >= STEP_MS_MIN {
            let (life, time_ms) = (self.life + 1, now.wall_ms);
            self.late_starts.push(LateStart { life, time_ms, ahead_ms });
        }
        self.behind_ms += last_ms.saturating_sub(now.wall_ms);
        self.life += 1;
        (self.opened_boot_ms, self.opened_last_ms) = (now.boot_ms, last_ms);
    }

    /// What it has written down of its starts is lost.
    pub fn forget_starts(&mut self) {
        self.late_starts.clear();
    }

    pub fn passes(&mut self, now: Now) {
        let passed_ms = now.boot_ms.saturating_sub(self.now.boot_ms);
        self.behind_ms += (self.now.wall_ms + passed_ms).saturating_sub(now.wall_ms);
        self.now = now;
    }

    /// Whether that was since the log was opened.
    pub fn is_of_this_life(&self, then: Moment) -> bool {
        then.life == self.life
    }

    /// Something is appended now that is given this time.
    pub fn moment(&mut self, time_ms: u64) -> Moment {
        self.late_starts.iter_mut().for_each(|start| start.leads_to(time_ms));
        Moment { time_ms, boot_ms: self.now.boot_ms, life: self.life }
    }

    /// What was appended then must be remembered for `span_ms`, and no event can have a later time than `latest_ms`.
    pub fn is_remembered(&self, then: Moment, span_ms: u64, latest_ms: u64) -> bool {
        let before_ms = match self.is_of_this_life(then) {
            true => 0,
            false => {
                let since = self.late_starts.iter().filter(|start| start.life > then.life);
                let before = since.filter(|start| start.life < self.life);
                let unused_ms: u64 = before.map(|start| start.ahead_ms).sum();
                let by_times_ms = self.opened_last_ms.saturating_sub(then.time_ms);
                // Times may have stood still meanwhile.
                by_times_ms.saturating_sub(unused_ms).max(self.used_before_ms(then))
            }
        };
        latest_ms < then.time_ms.saturating_add(span_ms)
            || before_ms + self.used_ms(then) + TOLERANCE_MS < span_ms
    }

    /// It may be, at an event of `time_ms`.
    pub fn may_be_remembered(&self, then: Moment, span_ms: u64, time_ms: u64) -> bool {
        let span_ms = span_ms.saturating_add(TOLERANCE_MS);
        time_ms < then.time_ms.saturating_add(span_ms)
            || self.used_ms(then) < span_ms.saturating_add(self.behind_ms)
    }

    /// How long since then, in former lives.
    fn used_before_ms(&self, then: Moment) -> u64 {
        let lives = (1..).zip(&self.former).filter(|(life, _)| *life >= then.life);
        lives
            .map(|(life, (from_ms, to_ms))| {
                let from_ms = if life == then.life { then.boot_ms } else { *from_ms };
                to_ms.saturating_sub(from_ms)
            })
            .sum()
    }

    /// How long since then, in this life.
    fn used_ms(&self, then: Moment) -> u64 {
        let from_ms = if self.is_of_this_life(then) { then.boot_ms } else { self.opened_boot_ms };
        self.now.boot_ms - from_ms
    }
}
