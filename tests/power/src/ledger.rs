//! What clients sent, what they were told, what they saw, and whether a log agrees.
//!
//! An event's id says who sent it, in which batch, and where in it: `<publisher>.<batch>.<at>.<of>`. No
//! batch is sent twice, so each id is in the log once or not at all.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    sync::{Mutex, MutexGuard},
};

/// A promise that was broken, and how.
#[derive(Debug)]
pub struct Broken(pub String);

impl fmt::Display for Broken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Broken {}

/// The id of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventName {
    pub publisher: u32,
    pub batch: u32,
    pub at: u32,
    pub of: u32,
}

impl fmt::Display for EventName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}.{}.{}", self.publisher, self.batch, self.at, self.of)
    }
}

impl EventName {
    /// The id in an event's data.
    pub fn of_data(data: &serde_json::Value) -> Option<EventName> {
        let mut parts = data.get("id")?.as_str()?.split('.').map(str::parse);
        let mut next = || parts.next()?.ok();
        Some(EventName { publisher: next()?, batch: next()?, at: next()?, of: next()? })
    }
}

/// What is known of a log from outside.
#[derive(Default)]
pub struct Ledger(Mutex<State>);

#[derive(Default)]
struct State {
    acknowledged: BTreeMap<u64, EventName>,
    seen: BTreeMap<u64, EventName>,
    seen_next: u64,
    /// The log as it was last read, by offset.
    log: Vec<EventName>,
    broken: Option<String>,
    refused: u64,
}

/// What was counted in a run.
#[derive(Clone, Copy)]
pub struct Counts {
    acknowledged: usize,
    refused: u64,
    seen: usize,
    stored: usize,
}

impl fmt::Display for Counts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { acknowledged, refused, seen, stored } = self;
        write!(
            formatter,
            "{acknowledged} events acknowledged, {refused} appends refused, {seen} pushed, {stored} stored"
        )
    }
}

impl Ledger {
    /// A batch was acknowledged; its first event has this offset.
    pub fn acknowledged(&self, first: u64, batch: &[EventName]) {
        let mut state = self.lock();
        for (offset, name) in (first..).zip(batch) {
            if let Some(other) = state.acknowledged.insert(offset, *name) {
                state.break_off(format!("offset {offset} was given to {other} and to {name}"));
            }
        }
    }

    /// An append was refused.
    pub fn refused(&self) {
        self.lock().refused += 1;
    }

    /// A subscriber, who reads everything from the beginning and resumes, was sent an event.
    pub fn seen(&self, offset: u64, name: EventName) {
        let mut state = self.lock();
        let expected = state.seen_next;
        if offset != expected {
            state.break_off(format!("a subscriber that expected {expected} was sent {offset}"));
        }
        state.seen_next = offset + 1;
        state.seen.insert(offset, name);
    }

    /// Something that must never happen has happened.
    pub fn break_off(&self, what: String) {
        self.lock().break_off(what);
    }

    /// How much there is of everything.
    pub fn counts(&self) -> Counts {
        let state = self.lock();
        Counts {
            acknowledged: state.acknowledged.len(),
            refused: state.refused,
            seen: state.seen.len(),
            stored: state.log.len(),
        }
    }

    /// What must be in the log if it is read from now on: its length at least, and whether all that
    /// was said so far can be true.
    pub fn promised(&self) -> Result<u64, Broken> {
        let state = self.lock();
        if let Some(broken) = &state.broken {
            return Err(Broken(broken.clone()));
        }
        let acknowledged = state.acknowledged.last_key_value().map_or(0, |(offset, _)| offset + 1);
        Ok(acknowledged.max(state.seen_next))
    }

    /// Where to read on so that what was read before is compared once more.
    pub fn read_from(&self, overlap: u64) -> u64 {
        (self.lock().log.len() as u64).saturating_sub(overlap)
    }

    /// Takes what was read from `from` to the end of the log, which had to have `promised` events.
    pub fn check(&self, from: u64, read: &[(u64, EventName)], promised: u64) -> Result<(), Broken> {
        let mut state = self.lock();
        let end = from + read.len() as u64;
        if end < promised {
            return Err(Broken(format!(
                "the log ends at {end}, but {promised} were acknowledged or seen"
            )));
        }
        for (expected, (offset, name)) in (from..).zip(read) {
            let broken = |what: String| Err(Broken(format!("offset {offset}: {what}")));
            if *offset != expected {
                return broken(format!("{expected} was to come: a gap, or out of order"));
            }
            let index = usize::try_from(*offset).expect("a log that fits in memory");
            if let Some(before) = state.log.get(index) {
                if before != name {
                    return broken(format!("{before} was there before, now it is {name}"));
                }
            } else {
                state.log.push(*name);
            }
            for (who, told) in
                [("acknowledged", &state.acknowledged), ("sent to a subscriber", &state.seen)]
            {
                if let Some(told) = told.get(offset).filter(|told| *told != name) {
                    return broken(format!("{told} was {who}, but {name} is there"));
                }
            }
        }
        check_order(&state.log)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no panic while the ledger is locked")
    }
}

impl State {
    fn break_off(&mut self, what: String) {
        self.broken.get_or_insert(what);
    }
}

/// Each event once, batches whole, and a publisher's batches in the order in which it sent them.
fn check_order(log: &[EventName]) -> Result<(), Broken> {
    let mut names = HashSet::new();
    let mut last: BTreeMap<u32, u32> = BTreeMap::new();
    let mut at = 0;
    while at < log.len() {
        let first = log[at];
        let of = usize::try_from(first.of).expect("a batch that fits in memory");
        let whole = (0..).zip(log[at..].iter().take(of));
        let is_whole = whole.clone().all(|(index, name)| *name == EventName { at: index, ..first });
        if first.at != 0 || log.len() - at < of || !is_whole {
            return Err(Broken(format!("offset {at}: a batch is there in part: {first}")));
        }
        if last.insert(first.publisher, first.batch).is_some_and(|before| before >= first.batch) {
            return Err(Broken(format!("offset {at}: {first} is doubled or out of order")));
        }
        if !whole.map(|(_, name)| name).all(|name| names.insert(*name)) {
            return Err(Broken(format!("offset {at}: {first} is there twice")));
        }
        at += of;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(publisher: u32, batch: u32, of: u32) -> Vec<EventName> {
        (0..of).map(|at| EventName { publisher, batch, at, of }).collect()
    }

    fn log() -> Vec<(u64, EventName)> {
        let names = [batch(1, 0, 2), batch(2, 0, 1), batch(1, 1, 3)].concat();
        (0..).zip(names).collect()
    }

    fn check(read: &[(u64, EventName)]) -> String {
        let ledger = Ledger::default();
        ledger.acknowledged(0, &batch(1, 0, 2));
        ledger.seen(0, batch(1, 0, 2)[0]);
        let promised = ledger.promised().expect("nothing is broken");
        ledger.check(0, read, promised).err().map_or(String::new(), |broken| broken.0)
    }

    #[test]
    fn a_log_that_keeps_its_promises_passes() {
        assert_eq!(check(&log()), "");
    }

    #[test]
    fn whatever_is_wrong_is_told() {
        let changed = |change: fn(&mut Vec<(u64, EventName)>)| {
            let mut read = log();
            change(&mut read);
            check(&read)
        };
        assert!(changed(|read| read.truncate(1)).contains("acknowledged or seen"));
        assert!(changed(|read| _ = read.remove(2)).contains("a gap"));
        assert!(changed(|read| read[2].1 = batch(1, 0, 1)[0]).contains("doubled"));
        assert!(changed(|read| read.truncate(5)).contains("in part"));
        assert!(changed(|read| read[0].1.batch = 9).contains("was acknowledged"));
        assert!(changed(|read| read.swap(3, 4)).contains("a gap"));
    }

    #[test]
    fn a_subscriber_misses_nothing_and_sees_nothing_twice() {
        let ledger = Ledger::default();
        ledger.seen(0, batch(1, 0, 1)[0]);
        ledger.seen(0, batch(1, 0, 1)[0]);
        assert!(ledger.promised().expect_err("twice").0.contains("expected 1"));
    }

    #[test]
    fn what_was_there_stays() {
        let ledger = Ledger::default();
        ledger.check(0, &log(), 0).expect("fine");
        let mut changed = log();
        changed[2].1.publisher = 3;
        assert!(ledger.check(0, &changed, 0).expect_err("changed").0.contains("was there before"));
    }
}
