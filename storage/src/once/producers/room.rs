//! Who is forgotten, so that there is room for others.
//!
//! A producer that was silent for long counts for none from then on, but keeps its number, and so its place in memory, until
//! somebody needs that, or as long as a segment that is not sealed may know it by its number:
//! ```text
//! known = remembered + silent          remembered <= producers_max
//! ```
//! The silent ones are counted where nobody else would be admitted, and not before somebody more may be silent: a look at a
//! million takes milliseconds. Who comes back or is taken back afterwards is counted as that happens. They give their numbers
//! back while others come, some at a time: a million at once would hold up the shard for many milliseconds.
//!
//! Invariant: so many as `count` says are forgotten at `at_s`.

use super::{FORGOTTEN_S, Last, Producers};
use crate::{error::AppendError, offset::Offset, once::NameHash};

/// Of so many in a row those that are silent give their numbers back at the same time.
const AT_ONCE: u32 = 256;

/// Those that count for none, and have their numbers.
#[derive(Debug, Default)]
pub(super) struct Silent {
    /// When they were counted.
    at_s: u32,
    count: usize,
    /// Before that time nobody else is silent.
    more_from_s: u32,
    /// The number that is looked at next for one that is given back.
    next: u32,
    /// None can be given back while the unsealed part of the log begins here.
    none_before: Option<Offset>,
}

impl Silent {
    fn has(&self, last: &Last) -> bool {
        last.events > 0 && last.is_forgotten(self.at_s)
    }

    /// What is known of a producer has changed.
    pub fn note(&mut self, before: &Last, now: &Last) {
        self.count = self.count + usize::from(self.has(now)) - usize::from(self.has(before));
        if self.has(now) {
            self.none_before = None;
        }
        if now.events > 0 {
            self.more_from_s = self.more_from_s.min(now.time_s.saturating_add(FORGOTTEN_S));
        }
    }
}

impl Producers {
    /// Makes room for one more producer, by forgetting those that were silent for long.
    ///
    /// Who appended at `unsealed` or behind it keeps its number: a segment that is not sealed may know it by that.
    pub fn make_room(
        &mut self,
        hash: &NameHash,
        time_s: u32,
        unsealed: Offset,
    ) -> Result<(), AppendError> {
        if self.len() < self.producers_max {
            return Ok(());
        }
        let known = self.numbers.find(hash);
        if known.is_some_and(|number| !self.silent.has(self.lasts.get(number))) {
            return Ok(());
        }
        if self.remembered() >= self.producers_max && time_s >= self.silent.more_from_s {
            self.count_silent(time_s);
        }
        self.forget_some(unsealed);
        if self.remembered() < self.producers_max {
            return Ok(());
        }
        Err(AppendError::TooManyProducers { producers_max: self.producers_max as u64 })
    }

    fn remembered(&self) -> usize {
        self.len() - self.silent.count
    }

    fn count_silent(&mut self, time_s: u32) {
        let (mut count, mut oldest_s) = (0, u32::MAX);
        for last in self.lasts.iter().filter(|last| last.events > 0) {
            if last.is_forgotten(time_s) {
                count += 1;
            } else {
                oldest_s = oldest_s.min(last.time_s);
            }
        }
        let (next, more_from_s) = (self.silent.next, oldest_s.saturating_add(FORGOTTEN_S));
        self.silent = Silent { at_s: time_s, count, more_from_s, next, none_before: None };
    }

    /// Forgets the next of the silent ones, if one can be, and those beside it.
    fn forget_some(&mut self, unsealed: Offset) {
        if self.silent.count == 0 || self.silent.none_before == Some(unsealed) {
            return;
        }
        let end = u32::try_from(self.lasts.len()).expect("numbers are u32");
        let known = self.len();
        let mut looked_at = 0;
        while looked_at < end {
            let numbers = self.silent.next..end.min(self.silent.next + AT_ONCE);
            looked_at += AT_ONCE;
            self.silent.next = if numbers.end == end { 0 } else { numbers.end };
            for number in numbers {
                let last = self.lasts.get(number);
                if self.silent.has(last) && last.first < unsealed {
                    self.forget(number);
                }
            }
            if self.len() < known {
                return;
            }
        }
        self.silent.none_before = Some(unsealed);
    }
}

#[cfg(test)]
mod tests;
