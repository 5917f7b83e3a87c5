//! What clients sent, what they were told, what they saw, and whether a log agrees.
//!
//! An event's name says who sent it, in which batch, and where in it: `<publisher>.<batch>.<at>.<of>`. A
//! batch is sent once, or so that it is known again, and so each name is in the log once or not at all;
//! in the latter case the publisher's batches follow each other without a gap (`once.rs`).
//!
//! Publishers from [`MORTAL`] on append to topics of which only the newest events are kept: theirs may be
//! gone, so that segments are rewritten and removed, but what is there must be right. Offsets of what is
//! gone are passed over.
//!
//! Publishers from [`ROOMS`] on have a topic that is deleted and trimmed as they know (`room.rs`): of theirs what was let go must be
//! gone for ever, and all else is there.
//!
//! Once the log itself is limited its first events go, whoever sent them: where it begins never goes back, and from
//! there on all is as before. A subscriber that is behind is told so.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    ops::Range,
    sync::{Mutex, MutexGuard},
};

use crate::{
    let_go::{Done, LetGo},
    once::Way,
};

/// The first publisher whose events do not stay.
pub const MORTAL: u32 = 500;
/// The first whose topic is deleted and trimmed.
pub const ROOMS: u32 = 1000;

/// A promise that was broken, and how.
#[derive(Debug)]
pub struct Broken(pub String);

impl fmt::Display for Broken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Broken {}

/// The name of one event.
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
    /// Whether it may be gone.
    pub fn is_mortal(&self) -> bool {
        (MORTAL..ROOMS).contains(&self.publisher)
    }

    /// Whether it stays unless the log itself lets it go.
    fn stays(&self) -> bool {
        self.publisher < MORTAL
    }

    /// The name in an event's data.
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
    log: BTreeMap<u64, EventName>,
    /// By publisher: the offset of the last event that was acknowledged.
    acknowledged_last: BTreeMap<u32, u64>,
    broken: Option<String>,
    refused: u64,
    asked: [u64; 5],
    is_limited: bool,
    /// Where a limited log was last found to begin.
    earliest: u64,
    /// What a subscriber was told is gone.
    passed_over: Vec<Range<u64>>,
    let_go: LetGo,
}

/// What was sent once more, or out of turn, and answered as it must be.
#[derive(Clone, Copy, Debug)]
pub enum Asked {
    /// An append whose answer was lost, and that was stored.
    WasThere = 0,
    /// One that was not.
    WasNotThere = 1,
    /// An append that had been acknowledged.
    Again = 2,
    /// Other bytes with its ids, or what is not the producer's turn.
    Wrong = 3,
    /// An append that was on its way, or just there.
    Twice = 4,
}

/// What was counted in a run.
#[derive(Clone, Copy)]
pub struct Counts {
    acknowledged: usize,
    refused: u64,
    seen: usize,
    stored: usize,
    asked: [u64; 5],
}

impl fmt::Display for Counts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { acknowledged, refused, seen, stored, asked } = self;
        let [was_there, was_not_there, again, wrong, twice] = asked;
        write!(
            formatter,
            "{acknowledged} events acknowledged, {refused} appends refused, {seen} pushed, {stored} stored; \
             of {} appends in doubt {was_there} were there, {twice} sent twice at once, {again} known again, {wrong} refused for what they say",
            was_there + was_not_there
        )
    }
}

impl Counts {
    /// Whether there is some of everything, as a run of some length has.
    pub fn check_all_asked(&self) -> Result<(), Broken> {
        match self.asked.iter().all(|count| *count > 0) {
            true => Ok(()),
            false => Err(Broken(format!("something never happened: {self}"))),
        }
    }
}

impl Ledger {
    /// A batch was acknowledged; its first event has this offset.
    pub fn acknowledged(&self, first: u64, batch: &[EventName]) {
        let mut state = self.lock();
        let (publisher, last) = (batch[0].publisher, first + batch.len() as u64 - 1);
        if let Some(before) = state.acknowledged_last.insert(publisher, last)
            && before >= first
        {
            let name = batch[0];
            state.break_off(format!(
                "{name} is at {first}, what {publisher} sent before at {before}"
            ));
        }
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

    /// Something was asked, and the answer was right.
    pub fn asked(&self, what: Asked) {
        self.lock().asked[what as usize] += 1;
    }

    /// A subscriber, who reads everything from the beginning and resumes, was sent an event.
    pub fn seen(&self, offset: u64, name: EventName) {
        let mut state = self.lock();
        let expected = state.seen_next;
        if offset < expected {
            state.break_off(format!("a subscriber that expected {expected} was sent {offset}"));
        }
        state.seen_next = offset + 1;
        state.seen.insert(offset, name);
    }

    /// From now on the log itself may let its first events go.
    pub fn limit(&self) {
        self.lock().is_limited = true;
    }

    /// Whether it may.
    pub fn is_limited(&self) -> bool {
        self.lock().is_limited
    }

    /// Up to where subscribers were told so far that all has gone.
    pub fn passed_to(&self) -> u64 {
        self.lock().passed_over.iter().map(|passed| passed.end).max().unwrap_or_default()
    }

    /// A limited log begins here; before that was asked subscribers were told that all before `passed_to` has gone.
    pub fn begins_at(&self, earliest: u64, passed_to: u64) {
        let mut state = self.lock();
        if earliest < passed_to {
            state.break_off(format!(
                "a subscriber was told that all before {passed_to} has gone, and the log begins at {earliest}"
            ));
        }
        let before = std::mem::replace(&mut state.earliest, earliest);
        if earliest < before {
            state.break_off(format!("the log began at {before}, and now at {earliest}"));
        }
    }

    /// A subscriber was told that what is before `from` is gone.
    pub fn passed_over(&self, from: u64) {
        let mut state = self.lock();
        if !state.is_limited {
            state.break_off(format!("a subscriber was told that all before {from} has gone"));
        }
        let next = state.seen_next;
        state.passed_over.push(next..from);
        state.seen_next = next.max(from);
    }

    /// Whether the limit of the log has let go what nothing else would have.
    pub fn check_limited(&self) -> Result<(), Broken> {
        let state = self.lock();
        let mut gone = state.acknowledged.range(..state.earliest);
        match gone.any(|(_, name)| name.stays()) {
            true => Ok(()),
            false => Err(Broken("the limit of the log has let nothing go".to_owned())),
        }
    }

    /// Somebody asks for all of a room below an offset to go.
    pub fn let_go_asked(&self, room: u32, below: u64) {
        self.lock().let_go.asked(room, below);
    }

    /// That was answered.
    pub fn let_go(&self, room: u32, done: Done) {
        let mut state = self.lock();
        state.let_go.answered(room);
        state.let_go.count(done);
    }

    /// A room was found as it has to be.
    pub fn looked(&self) {
        self.lock().let_go.count(Done::Looked);
    }

    /// What is let go by now: whoever begins to read sees none of it.
    pub fn gone(&self) -> LetGo {
        self.lock().let_go.clone()
    }

    /// Takes what somebody read who began when so much was `gone`.
    pub fn check_gone(&self, gone: &LetGo, read: &[(u64, EventName)]) -> Result<(), Broken> {
        let back = read.iter().find(|(offset, name)| gone.is_gone(name.publisher, *offset));
        match back {
            None => Ok(()),
            Some((offset, name)) => Err(Broken(format!(
                "offset {offset}: {name}, which was deleted or trimmed, is there"
            ))),
        }
    }

    /// A run in which no room was deleted, trimmed and looked at shows less than it should.
    pub fn check_let_go(&self) -> Result<(), Broken> {
        let let_go = self.gone();
        match let_go.has_all() {
            true => Ok(()),
            false => Err(Broken(format!("something never happened: {let_go}"))),
        }
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
            asked: state.asked,
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
        let end = self.lock().log.last_key_value().map_or(0, |(offset, _)| offset + 1);
        end.saturating_sub(overlap)
    }

    /// Takes what was read from `from` to the end of the log. The order of all events that were ever
    /// read is looked at if `is_whole`.
    pub fn check(
        &self,
        from: u64,
        read: &[(u64, EventName)],
        is_whole: bool,
    ) -> Result<(), Broken> {
        let mut state = self.lock();
        let broken = |offset: u64, what: String| Err(Broken(format!("offset {offset}: {what}")));
        let mut end = from;
        for (offset, name) in read {
            if *offset < end {
                return broken(*offset, "it comes twice, or out of order".to_owned());
            }
            end = offset + 1;
            if let Some(before) = state.log.insert(*offset, *name).filter(|before| before != name) {
                return broken(*offset, format!("{before} was there before, now it is {name}"));
            }
            for (who, told) in
                [("acknowledged", &state.acknowledged), ("sent to a subscriber", &state.seen)]
            {
                if let Some(told) = told.get(offset).filter(|told| *told != name) {
                    return broken(*offset, format!("{told} was {who}, but {name} is there"));
                }
            }
            let is_passed = state.passed_over.iter().any(|passed| passed.contains(offset));
            // What is let go after it was read may have gone before a slow subscriber came to it.
            let is_let_go = state.let_go.may_be_gone(name.publisher, *offset);
            let is_sent = is_passed || is_let_go || state.seen.contains_key(offset);
            if !name.is_mortal() && *offset < state.seen_next && !is_sent {
                return broken(*offset, format!("{name} is there, but no subscriber was sent it"));
            }
        }
        let there: HashSet<u64> = read.iter().map(|(offset, _)| *offset).collect();
        let State { acknowledged, seen, log, let_go, .. } = &mut *state;
        for (who, known) in [
            ("acknowledged", &*acknowledged),
            ("sent to a subscriber", &*seen),
            ("read before", &*log),
        ] {
            let stays = known.range(from..end).filter(|(_, name)| !name.is_mortal());
            for (offset, name) in stays.filter(|(offset, _)| !there.contains(offset)) {
                if !let_go.may_be_gone(name.publisher, *offset) {
                    return broken(*offset, format!("{name}, which was {who}, is gone"));
                }
                let_go.found_gone(name.publisher, *offset);
            }
        }
        // Of a limited log some may have gone before it was read.
        if is_whole { check_order(&state.log, !state.is_limited) } else { Ok(()) }
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

/// Each event once, and a publisher's batches in the order in which it sent them; of a log without gaps (`is_whole`)
/// batches whole, and all of them where none is given up.
fn check_order(log: &BTreeMap<u64, EventName>, is_whole: bool) -> Result<(), Broken> {
    let mut last: BTreeMap<u32, (u32, u32)> = BTreeMap::new();
    let mut begun: BTreeMap<u32, u32> = BTreeMap::new();
    for (offset, name) in log {
        let EventName { publisher, batch, at, of } = *name;
        let broken = |what: &str| Err(Broken(format!("offset {offset}: {name} is {what}")));
        if last.insert(publisher, (batch, at)).is_some_and(|before| before >= (batch, at)) {
            return broken("doubled or out of order");
        }
        if !is_whole {
            continue;
        }
        let others = (*offset - u64::from(at)..).zip(0..of);
        let is_all_there = others
            .into_iter()
            .all(|(offset, at)| log.get(&offset) == Some(&EventName { at, ..*name }));
        if !is_all_there && name.stays() {
            return broken("of a batch that is there in part");
        }
        if at == 0 && name.stays() && Way::of(publisher) != Way::Plain {
            let next = begun.entry(publisher).or_default();
            if std::mem::replace(next, batch + 1) != batch {
                return broken("there, and one that was sent before is not");
            }
        }
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
        ledger.promised().expect("nothing is broken");
        ledger.check(0, read, true).err().map_or(String::new(), |broken| broken.0)
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
        assert!(changed(|read| _ = read.remove(1)).contains("acknowledged, is gone"));
        assert!(changed(|read| read.truncate(5)).contains("in part"));
        assert!(changed(|read| read[2].1 = batch(1, 0, 1)[0]).contains("doubled"));
        assert!(changed(|read| read[0].1.batch = 9).contains("was acknowledged"));
        assert!(changed(|read| read.swap(3, 4)).contains("out of order"));
    }

    #[test]
    fn what_is_sent_until_it_is_there_leaves_no_gap() {
        let check = |publisher| {
            let ledger = Ledger::default();
            let names = [batch(publisher, 0, 1), batch(publisher, 2, 1)].concat();
            let read: Vec<_> = (0..).zip(names).collect();
            ledger.check(0, &read, true).err().map_or(String::new(), |broken| broken.0)
        };
        assert_eq!(check(0), "", "one that is sent once may have failed");
        assert!(check(1).contains("one that was sent before is not"));
        assert!(check(2).contains("one that was sent before is not"));
        assert_eq!(check(MORTAL + 1), "", "it is gone");
    }

    #[test]
    fn what_a_publisher_sends_comes_behind_what_it_sent() {
        let ledger = Ledger::default();
        ledger.acknowledged(5, &batch(1, 0, 2));
        ledger.acknowledged(4, &batch(2, 0, 1));
        ledger.promised().expect("nothing is broken");
        ledger.acknowledged(3, &batch(1, 1, 1));
        assert!(ledger.promised().expect_err("before").0.contains("sent before at 6"));
    }

    #[test]
    fn a_run_that_asked_nothing_says_so() {
        let ledger = Ledger::default();
        for what in [Asked::WasThere, Asked::WasNotThere, Asked::Again, Asked::Twice] {
            ledger.asked(what);
            ledger.counts().check_all_asked().expect_err("not all");
        }
        ledger.asked(Asked::Wrong);
        ledger.counts().check_all_asked().expect("all");
    }

    #[test]
    fn mortal_events_may_be_gone_and_others_may_not() {
        let ledger = Ledger::default();
        ledger.acknowledged(0, &batch(MORTAL, 0, 2));
        ledger.acknowledged(2, &batch(1, 0, 1));
        ledger
            .check(0, &[(1, batch(MORTAL, 0, 2)[1]), (2, batch(1, 0, 1)[0])], true)
            .expect("fine");
        ledger.check(0, &[(2, batch(1, 0, 1)[0])], true).expect("fine");
        ledger.acknowledged(3, &batch(1, 1, 1));
        ledger.acknowledged(4, &batch(1, 2, 1));
        let gone = ledger.check(3, &[(4, batch(1, 2, 1)[0])], false).expect_err("gone");
        assert!(gone.0.contains("acknowledged, is gone"), "{gone}");
    }

    #[test]
    fn what_was_let_go_of_a_room_stays_gone_and_the_rest_is_there() {
        let ledger = Ledger::default();
        let (first, second) = (batch(ROOMS, 0, 1)[0], batch(ROOMS, 1, 1)[0]);
        ledger.acknowledged(0, &[first]);
        ledger.acknowledged(1, &[second]);
        let gone = |from, read: &[_]| ledger.check(from, read, true).is_err();
        assert!(gone(0, &[(1, second)]), "nobody has let it go");
        ledger.let_go_asked(ROOMS, 1);
        let before = ledger.gone();
        ledger.check_gone(&before, &[(0, first)]).expect("it may be there");
        assert!(!gone(0, &[(0, first), (1, second)]) && !gone(0, &[(1, second)]));
        // Somebody has found it gone by now.
        ledger.check_gone(&before, &[(0, first)]).expect("who began to read before");
        let back = ledger.check_gone(&ledger.gone(), &[(0, first)]).expect_err("it is back");
        assert!(back.0.contains("deleted or trimmed, is there"), "{back}");
        ledger.acknowledged(2, &batch(1, 0, 1));
        assert!(gone(0, &[(2, batch(1, 0, 1)[0])]), "what is not below is not let go");
        ledger.let_go_asked(ROOMS, 2);
        ledger.let_go(ROOMS, Done::Deleted);
        assert!(!gone(0, &[(2, batch(1, 0, 1)[0])]));
        ledger.check_gone(&ledger.gone(), &[(1, second)]).expect_err("it is back");
    }

    #[test]
    fn what_was_let_go_before_a_subscriber_came_to_it_need_not_be_sent() {
        let ledger = Ledger::default();
        let (first, second) = (batch(ROOMS, 0, 1)[0], batch(ROOMS, 1, 1)[0]);
        ledger.let_go_asked(ROOMS, 1);
        ledger.seen(2, batch(1, 0, 1)[0]);
        let read = [(0, first), (1, second), (2, batch(1, 0, 1)[0])];
        let missed = ledger.check(0, &read, false).expect_err("the second stays");
        assert!(missed.0.starts_with("offset 1: "), "{missed}");
        ledger.let_go_asked(ROOMS, 2);
        ledger.check(0, &read, false).expect("both may have been gone by then");
    }

    #[test]
    fn a_limited_log_begins_later_and_later_and_says_so() {
        let ledger = Ledger::default();
        let names = [batch(1, 0, 2), batch(1, 1, 1)].concat();
        ledger.acknowledged(0, &names[..2]);
        ledger.acknowledged(2, &names[2..]);
        ledger.limit();
        ledger.check_limited().expect_err("nothing has gone");
        ledger.begins_at(1, 0);
        ledger.check_limited().expect("an event has gone");
        ledger.passed_over(2);
        ledger.check(1, &[(1, names[1]), (2, names[2])], true).expect("fine");
        ledger.promised().expect("fine");
        ledger.begins_at(0, 0);
        assert!(ledger.promised().expect_err("back").0.contains("began at 1"));
    }

    #[test]
    fn nobody_is_told_that_more_has_gone_than_has() {
        let ledger = Ledger::default();
        ledger.limit();
        ledger.passed_over(9);
        ledger.begins_at(9, ledger.passed_to());
        ledger.promised().expect("fine");
        ledger.passed_over(12);
        ledger.begins_at(10, ledger.passed_to());
        assert!(ledger.promised().expect_err("two are there").0.contains("begins at 10"));
    }

    #[test]
    fn nothing_is_passed_over_in_a_log_without_a_limit() {
        let ledger = Ledger::default();
        ledger.passed_over(2);
        assert!(ledger.promised().expect_err("gone").0.contains("all before 2 has gone"));
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
        ledger.check(0, &log(), true).expect("fine");
        let mut changed = log();
        changed[2].1.publisher = 3;
        assert!(
            ledger.check(0, &changed, true).expect_err("changed").0.contains("was there before")
        );
    }
}
