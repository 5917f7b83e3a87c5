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

    /// Takes what was read of a copy, which was made when all below `holds` had been acknowledged or seen, or later.
    pub fn check_copy(&self, read: &[(u64, EventName)], holds: u64) -> Result<(), Broken> {
        let state = self.lock();
        let first = read.first().map_or(holds, |(offset, _)| *offset);
        let from = if state.is_limited { first } else { 0 };
        let broken = |offset: &u64, what: String| Err(Broken(format!("offset {offset}: {what}")));
        if let Some(pair) = read.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
            return broken(&pair[1].0, "it comes twice, or out of order".to_owned());
        }
        let there: BTreeMap<u64, EventName> = read.iter().copied().collect();
        for known in [&state.acknowledged, &state.seen] {
            for (offset, name) in known.range(from..) {
                match there.get(offset) {
                    Some(other) if other != name => {
                        return broken(offset, format!("{name} became {other}"));
                    }
                    None if name.stays() && *offset < holds => {
                        return broken(offset, format!("{name} is gone"));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
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
mod tests;
