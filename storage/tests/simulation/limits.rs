//! What limits of a log and of its topics may have let go by now, and what they must have.

use strandline_storage::{
    clock::{LEAP_HOLD_MS, LEAP_MS_MAX, Now},
    control::{Control, TopicRule},
    event::EventKind,
    settings::LogRetention,
    topic::TopicPattern,
};

use super::model::{Fate, Kept, Model, to_usize};

/// The latest time that the log's clock may have come to. It looks at the two clocks whenever it likes, and when it
/// does follows from what it has to do; so this is not its time, but no time that it gives is later.
#[derive(Clone, Copy, Debug, Default)]
pub struct LatestTime {
    ms: u64,
    boot_ms: u64,
    /// Since when the wall clock has been too far ahead to be believed, for all that may not have been looked at.
    leapt_since_boot_ms: Option<u64>,
}

impl LatestTime {
    pub fn ms(&self) -> u64 {
        self.ms
    }

    /// A log that is opened believes the wall clock.
    fn opened(&mut self, now: Now) {
        let ms = self.ms.max(now.wall_ms);
        *self = LatestTime { ms, boot_ms: now.boot_ms, leapt_since_boot_ms: None };
    }

    /// Where its last event is far behind that, limits do not at once.
    fn opened_for_limits(&mut self, now: Now, last_ms: u64) {
        self.opened(now);
        if is_far_ahead(now, last_ms) {
            (self.ms, self.leapt_since_boot_ms) = (last_ms, Some(now.boot_ms));
        }
    }

    fn passes(&mut self, now: Now) {
        self.ms += now.boot_ms.saturating_sub(self.boot_ms);
        self.boot_ms = self.boot_ms.max(now.boot_ms);
        if now.wall_ms <= self.ms + LEAP_MS_MAX {
            self.ms = self.ms.max(now.wall_ms);
            return;
        }
        let since_ms = *self.leapt_since_boot_ms.get_or_insert(now.boot_ms);
        if now.boot_ms - since_ms >= LEAP_HOLD_MS {
            (self.ms, self.leapt_since_boot_ms) = (now.wall_ms, None);
        }
    }
}

/// The earliest time that what goes by its age must have come to: that of the last event, but not at once where the log
/// was opened far behind that, or before it. The log looks at the clocks whenever it likes here, too: at some moments
/// it is known that it does, at all others it may.
#[derive(Clone, Debug, Default)]
pub struct EarliestTime {
    /// `None`: it goes by the time of events.
    doubt: Option<Doubt>,
}

/// Offsets are those of the wall clock from the boot clock.
#[derive(Clone, Debug)]
struct Doubt {
    /// The lowest that may be believed.
    believed_ms: i64,
    /// The lowest and the highest since the wall clock has done nothing but go on: any of them may be what is doubted.
    steady_ms: (i64, i64),
    /// Since when it is known that it has been looked at since, by the boot clock.
    looked_since_ms: Option<u64>,
}

impl EarliestTime {
    fn opened(&mut self, now: Now, last_ms: u64) {
        let is_doubted = is_far_ahead(now, last_ms) || now.wall_ms < last_ms;
        let at = offset_ms(now);
        self.doubt = is_doubted.then(|| Doubt {
            believed_ms: at.min(offset_ms(Now { wall_ms: last_ms, ..now })),
            steady_ms: (at, at),
            looked_since_ms: Some(now.boot_ms),
        });
    }

    /// It may be looked at the clocks now.
    fn passes(&mut self, now: Now) {
        let Some(doubt) = &mut self.doubt else { return };
        let at = offset_ms(now);
        let (lowest, highest) = doubt.steady_ms;
        doubt.steady_ms = (lowest.min(at), highest.max(at));
        if doubt.steady_ms.1 - doubt.steady_ms.0 > HOUR_MS {
            (doubt.steady_ms, doubt.looked_since_ms) = ((at, at), None);
        }
        // What is further behind moves nothing.
        if doubt.believed_ms - at <= HOUR_MS {
            doubt.believed_ms = doubt.believed_ms.min(at);
        }
    }

    /// It has been looked at them: tells whether that has ended a doubt.
    fn looked(&mut self, now: Now, last_ms: u64) -> bool {
        self.passes(now);
        let Some(doubt) = &mut self.doubt else { return false };
        let at = offset_ms(now);
        let since_ms = *doubt.looked_since_ms.get_or_insert(now.boot_ms);
        let is_near = at - doubt.believed_ms <= HOUR_MS;
        if !is_near && now.boot_ms - since_ms < LEAP_HOLD_MS {
            return false;
        }
        doubt.believed_ms = doubt.believed_ms.max(at);
        let is_over = now.wall_ms >= last_ms;
        if is_over {
            self.doubt = None;
        }
        is_over
    }

    /// What it has come to, if the last event has this time.
    pub fn ms(&self, now: Now, last_ms: u64) -> u64 {
        let Some(doubt) = &self.doubt else { return last_ms };
        let expected_ms = now.boot_ms.checked_add_signed(doubt.believed_ms);
        last_ms.min(now.wall_ms).min(expected_ms.expect("after 1970"))
    }
}

const HOUR_MS: i64 = LEAP_MS_MAX.cast_signed();

fn offset_ms(now: Now) -> i64 {
    now.wall_ms.cast_signed() - now.boot_ms.cast_signed()
}

fn is_far_ahead(now: Now, last_ms: u64) -> bool {
    last_ms > 0 && now.wall_ms > last_ms + LEAP_MS_MAX
}

impl Model {
    /// It is so late, and limits may have been looked at since it is.
    pub fn passes(&mut self, now: Now) {
        let before_ms = self.latest_limit.ms;
        self.in_use.passes(now);
        self.latest.passes(now);
        self.latest_limit.passes(now);
        self.earliest_limit.passes(now);
        if self.latest_limit.ms > before_ms {
            self.look_at_limits();
        }
    }

    /// A log was opened, and shows what it has; `is_marked`: its end mark was written.
    pub fn begins(&mut self, now: Now, is_marked: bool) {
        let last_ms = self.events.last().map_or(0, |kept| kept.time_ms);
        self.in_use.begins(now, last_ms, is_marked);
        self.latest.opened(now);
        self.latest_limit.opened_for_limits(now, last_ms);
        self.earliest_limit.opened(now, last_ms);
        // What was told to be gone without being synced is back, if a power cut has taken the events behind it.
        self.reach = self.reach.min(self.seen);
        self.look_at_limits();
    }

    /// Limits may be looked at now: notes what goes by those that hold.
    pub fn look_at_limits(&mut self) {
        let LogRetention { age_s, bytes, count } = self.log_retention();
        let by_count = count.map_or(0, |count| self.seen.saturating_sub(to_usize(count)));
        let by_age =
            age_s.map_or(0, |age_s| self.first_since(oldest_ms(self.latest_limit.ms, age_s)));
        // How many events so many bytes are is the log's own business.
        let by_bytes = bytes.map_or(0, |_| self.seen);
        self.reach = self.reach.max(by_count).max(by_age).max(by_bytes);
        for (pattern, age_s) in self.topic_ages() {
            let oldest_ms = oldest_ms(self.latest_limit.ms, age_s);
            let old =
                self.events[..self.safe].iter_mut().take_while(|kept| kept.time_ms < oldest_ms);
            let of_pattern =
                old.filter(|kept| kept.event.kind.is_data() && pattern.matches(&kept.event.topic));
            of_pattern.for_each(|kept| kept.may_be_gone = true);
        }
    }

    /// The log says that it keeps nothing before `start`: was it told so?
    pub fn check_start(&self, start: usize) {
        if start <= self.reach {
            return;
        }
        // Segments at the beginning go once all in them is dead.
        let fates = self.fates(self.events.len());
        let stays = (self.reach..start).find(|offset| fates.of(*offset) == Fate::Stays);
        assert_eq!(stays, None, "kept from {start} on, and {} was allowed", self.reach);
    }

    /// Limits were looked at a moment ago, and nothing is under way. Those by age have the log look at the clocks as well.
    pub fn looked(&mut self, now: Now) {
        let LogRetention { age_s, .. } = self.log_retention();
        // Of deletions that nobody has read not even the time is known.
        if age_s.is_some()
            && self.unread.is_empty()
            && self.earliest_limit.looked(now, self.last_ms())
        {
            self.tally.doubts_over += 1;
        }
    }

    /// After that, what must be gone by count and age is. By age a log is cut at a frame, or at a block of a segment, be
    /// it one too early; `edge` is where the last one begins that may be kept for the sake of an event.
    pub fn check_gone(&self, start: usize, now: Now, edge: impl Fn(usize) -> usize) {
        let LogRetention { age_s, count, .. } = self.log_retention();
        let by_count = count.map_or(0, |count| self.seen.saturating_sub(to_usize(count)));
        assert!(start >= by_count, "kept from {start} on, by count it is {by_count}");
        let Some(age_s) = age_s else { return };
        let late_ms = self.earliest_limit.ms(now, self.last_ms());
        let young = self.first_since(oldest_ms(late_ms, age_s));
        let by_age = if young < self.seen { edge(young) } else { young };
        assert!(start >= by_age, "kept from {start} on, by age it is {by_age} for {young}");
    }

    /// The first visible event of a time, or a later one.
    fn first_since(&self, time_ms: u64) -> usize {
        self.events[..self.seen].partition_point(|kept| kept.time_ms < time_ms)
    }

    /// What holds for the log: what was set last of what is visible.
    fn log_retention(&self) -> LogRetention {
        let visible = self.events[..self.seen].iter();
        let last = visible.rev().find(|kept| kept.event.kind == EventKind::LogSettings);
        match last.and_then(control) {
            Some(Control::Log(settings)) => settings.retain,
            _ => LogRetention::default(),
        }
    }

    /// For how long events of topics are kept. Nothing goes by what is not synced.
    fn topic_ages(&self) -> Vec<(TopicPattern, u64)> {
        let mut ages: Vec<(TopicPattern, u64)> = Vec::new();
        let synced = self.events[..self.safe].iter();
        let rules = synced.filter(|kept| !kept.event.kind.is_data()).filter_map(control);
        for control in rules {
            let Control::Topic(TopicRule { pattern, settings }) = control else { continue };
            ages.retain(|(known, _)| known.as_str() != pattern);
            let age_s = settings.and_then(|settings| settings.retain.age_s);
            let pattern = TopicPattern::parse(&pattern).expect("a pattern");
            ages.extend(age_s.map(|age_s| (pattern, age_s)));
        }
        ages
    }
}

/// What is older than this is too old.
fn oldest_ms(now_ms: u64, age_s: u64) -> u64 {
    now_ms.saturating_sub(age_s * 1_000)
}

fn control(kept: &Kept) -> Option<Control> {
    Control::decode(kept.event.kind, &kept.event.data)
}
