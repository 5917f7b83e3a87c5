//! How an append is known again, and what its answers may be. Pure.
//!
//! ```text
//! plain      sent once, whatever becomes of it                 publishers 0, 3, 500, 503, ..
//! ids        Event-Id, or the `id` of each event of an array   publishers 1, 4, 501, ..
//! producer   Producer-Id, Producer-Epoch, Producer-Seq         publishers 2, 5, 502, ..
//! ```
//! The last two send an append again until they are told its offset, and begin no other before. What a
//! server may know of a producer is one of some [`World`]s: a lost answer makes two of one, and each
//! answer that comes leaves those that it agrees with. If none is left, the promise was broken.

use serde_json::Value;

use crate::{
    client::Head,
    ledger::{EventName, MORTAL},
};

/// How a publisher's appends are known again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Not at all.
    Plain,
    /// Each event by its id.
    Ids,
    /// By the publisher's name, epoch and sequence.
    Producer,
}

impl Way {
    /// That of a publisher, always the same.
    pub fn of(publisher: u32) -> Way {
        [Way::Plain, Way::Ids, Way::Producer][(publisher % MORTAL % 3) as usize]
    }
}

/// The how-manieth append of which life of a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub epoch: u64,
    pub seq: u64,
}

/// An append: one event to a topic's path, or several as an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Of its first event.
    pub first: EventName,
    pub padding_bytes: usize,
    /// Of a producer's.
    pub claim: Option<Claim>,
}

impl Batch {
    /// Its events.
    pub fn names(&self) -> Vec<EventName> {
        (0..self.first.of).map(|at| EventName { at, ..self.first }).collect()
    }

    /// The number of the scope in which a producer's sequence counts: the topic, or for arrays the log.
    pub fn scope(&self) -> usize {
        usize::from(self.first.of > 1)
    }
}

/// An answer, as it came.
#[derive(Debug)]
pub struct Answer {
    pub head: Head,
    /// Null if there was none.
    pub body: Value,
}

/// What an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The append is stored, by this request, from this offset on.
    Stored { first: u64 },
    /// It had been stored; its first offset if that is told, and how far the producer is.
    Known { first: Option<u64>, last: Option<Claim> },
    /// The id at this offset is that of another event.
    Conflict { offset: u64 },
    /// Appends of the producer are missing before.
    Gap { expected_seq: u64 },
    /// The producer has begun this epoch.
    Stale { epoch: u64 },
    /// Another request with its ids is on its way.
    InFlight,
    /// It is not stored, and never will be by this request.
    Refused,
    /// The same, as the disk is full: it was not stored before either.
    Full,
    /// It may or may not be stored.
    InDoubt,
}

impl Reply {
    /// What an answer says to a batch.
    pub fn of(batch: &Batch, answer: &Answer) -> Result<Reply, String> {
        let wrong = |what: &str| Err(format!("{}: {what}: {answer:?}", batch.first));
        let way = Way::of(batch.first.publisher);
        let problem = answer.body["type"].as_str().and_then(|at| at.strip_prefix("/problems/"));
        if way == Way::Ids && id_window_s(answer).is_none() {
            return wrong("no window of ids");
        }
        let last = answer.head.number("producer-epoch").zip(answer.head.number("producer-seq"));
        let last = last.map(|(epoch, seq)| Claim { epoch, seq });
        Ok(match (answer.head.status, problem) {
            (201, _) => {
                let (first, count) =
                    (answer.head.number("event-offset"), u64::from(batch.first.of));
                let duplicates = match batch.first.of {
                    1 => u64::from(answer.body["duplicate"] == true),
                    _ => answer.body["duplicates"].as_u64().unwrap_or(0),
                };
                if first.is_none() || first != answer.body["offset"].as_u64() {
                    return wrong("no offset, or two");
                }
                match duplicates {
                    0 if last != batch.claim => return wrong("another place of the producer"),
                    0 => Reply::Stored { first: first.unwrap_or_default() },
                    _ if duplicates == count => Reply::Known { first, last },
                    _ => return wrong("an append that is there in part"),
                }
            }
            (204, _) if answer.head.field("event-duplicate") == Some("true") && last.is_some() => {
                Reply::Known { first: answer.head.number("event-offset"), last }
            }
            (422, Some("id-conflict")) => match answer.body["offset"].as_u64() {
                Some(offset) => Reply::Conflict { offset },
                None => return wrong("no offset"),
            },
            (409, Some("producer-gap")) => {
                let received = answer.head.number("producer-received-seq");
                match answer.head.number("producer-expected-seq") {
                    Some(expected_seq) if received == batch.claim.map(|claim| claim.seq) => {
                        Reply::Gap { expected_seq }
                    }
                    _ => return wrong("no sequences"),
                }
            }
            (403, Some("stale-epoch")) => match answer.head.number("producer-epoch") {
                Some(epoch) => Reply::Stale { epoch },
                None => return wrong("no epoch"),
            },
            (409, Some("append-in-flight")) => Reply::InFlight,
            // A write failed: of what had been sent nobody knows what the disk has taken.
            (503, Some("read-only")) => Reply::InDoubt,
            (503, Some("overloaded" | "draining")) => Reply::Refused,
            (507, Some("disk-full")) => Reply::Full,
            _ => return wrong("no answer to expect"),
        })
    }
}

/// How long ids are remembered, as an answer states it.
pub fn id_window_s(answer: &Answer) -> Option<u64> {
    answer.head.field("event-id-window")?.split("seconds=").nth(1)?.parse().ok()
}

/// What is known of a batch with ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdsKnown {
    /// It is not in the log.
    Never,
    /// It may be.
    InDoubt,
    /// It is, from this offset on.
    At(u64),
}

/// Whether an answer to a batch with ids can be true. `is_other` is one whose last event has the id of
/// another with other bytes.
pub fn check_ids(
    batch: &Batch,
    known: IdsKnown,
    is_other: bool,
    reply: Reply,
) -> Result<(), String> {
    let is_right = match (known, reply) {
        (_, Reply::Refused | Reply::InDoubt) => true,
        // What is there is known again, and needs no space.
        (known, Reply::Full) => !matches!(known, IdsKnown::At(_)),
        (IdsKnown::Never, Reply::Stored { .. }) => true,
        (IdsKnown::InDoubt, Reply::Stored { .. } | Reply::Known { first: Some(_), .. }) => true,
        (IdsKnown::InDoubt, Reply::InFlight) => true,
        (IdsKnown::At(first), Reply::Known { first: Some(told), .. }) => !is_other && told == first,
        (IdsKnown::At(first), Reply::Conflict { offset }) => {
            is_other && offset == first + u64::from(batch.first.of) - 1
        }
        _ => false,
    };
    if is_right {
        return Ok(());
    }
    let other = if is_other { " with other bytes" } else { "" };
    Err(format!("{}{other}, known as {known:?}, was answered {reply:?}", batch.first))
}

/// The last append of a producer in one scope; none if it was never seen.
type World = Option<(Claim, Option<u64>)>;

/// What the server may know of a producer.
#[derive(Debug)]
pub struct Producer {
    /// By scope.
    worlds: [Vec<World>; 2],
}

impl Default for Producer {
    fn default() -> Producer {
        Producer { worlds: [vec![None], vec![None]] }
    }
}

impl Producer {
    /// An answer to a batch has come: whether it can be true.
    pub fn answered(&mut self, batch: &Batch, reply: Reply) -> Result<(), String> {
        let claim = batch.claim.expect("a producer's batch has one");
        let worlds = &mut self.worlds[batch.scope()];
        match reply {
            Reply::Refused => return Ok(()),
            Reply::InDoubt => {
                self.lost(batch);
                return Ok(());
            }
            _ => {}
        }
        let before = worlds.clone();
        worlds.retain(|world| agrees(world, claim, reply));
        if reply == Reply::Full && !worlds.is_empty() {
            // One that was sent before, and nobody waited for, may still come.
            *worlds = before;
            return Ok(());
        }
        if worlds.is_empty() {
            let name = batch.first;
            return Err(format!(
                "{name} as {claim:?} of a producer at {before:?} was answered {reply:?}"
            ));
        }
        match reply {
            Reply::Stored { first } => *worlds = vec![Some((claim, Some(first)))],
            Reply::Known { first: Some(first), .. } => *worlds = vec![Some((claim, Some(first)))],
            _ => {}
        }
        Ok(())
    }

    /// The answer to a batch was lost, or says nothing.
    pub fn lost(&mut self, batch: &Batch) {
        let claim = batch.claim.expect("a producer's batch has one");
        let worlds = &mut self.worlds[batch.scope()];
        if worlds.iter().any(|world| is_next(world, claim)) {
            worlds.push(Some((claim, None)));
        }
    }

    /// The last epoch and the last sequence of a scope, of all that may be.
    pub fn last(&self, scope: usize) -> Option<Claim> {
        let claims = self.worlds[scope].iter().flatten().map(|(claim, _)| *claim);
        claims.max_by_key(|claim| (claim.epoch, claim.seq))
    }
}

fn is_next(world: &World, claim: Claim) -> bool {
    match world {
        None => claim.seq == 0,
        Some((last, _)) if claim.epoch == last.epoch => claim.seq == last.seq + 1,
        Some((last, _)) => claim.epoch > last.epoch && claim.seq == 0,
    }
}

/// Whether a server that knows this of a producer answers so.
fn agrees(world: &World, claim: Claim, reply: Reply) -> bool {
    let is_before = |last: Claim| claim.epoch == last.epoch && claim.seq <= last.seq;
    match (reply, *world) {
        (Reply::Stored { .. }, _) => is_next(world, claim),
        (Reply::Full, None) => true,
        (Reply::Full, Some((last, _))) => !is_before(last),
        (Reply::Gap { expected_seq }, None) => expected_seq == 0 && claim.seq > 0,
        (Reply::Gap { expected_seq }, Some((last, _))) => {
            claim.epoch == last.epoch && claim.seq > expected_seq && expected_seq == last.seq + 1
        }
        (Reply::Stale { epoch }, Some((last, _))) => claim.epoch < epoch && epoch == last.epoch,
        // Where it is nobody remembers but of the last.
        (Reply::Known { first, last: told }, Some((last, offset))) => {
            let is_there = match first {
                Some(first) => claim == last && offset.is_none_or(|offset| offset == first),
                None => claim != last,
            };
            is_before(last) && told == Some(last) && is_there
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn batch(publisher: u32, of: u32, claim: Option<Claim>) -> Batch {
        let first = EventName { publisher, batch: 7, at: 0, of };
        Batch { first, padding_bytes: 0, claim }
    }

    fn answer(status: u16, fields: &str, body: Value) -> Answer {
        let fields = fields.lines().filter_map(|line| line.trim().split_once(": "));
        let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Answer { head: Head { status, fields }, body }
    }

    const WINDOW: &str = "event-offset: 4\nevent-id-window: events=1000000, seconds=600";

    #[test]
    fn what_answers_to_ids_say() {
        let (one, three) = (batch(1, 1, None), batch(1, 3, None));
        let of = |batch, status, fields, body| Reply::of(batch, &answer(status, fields, body));
        assert_eq!(of(&one, 201, WINDOW, json!({"offset": 4})), Ok(Reply::Stored { first: 4 }));
        let known = Ok(Reply::Known { first: Some(4), last: None });
        assert_eq!(of(&one, 201, WINDOW, json!({"offset": 4, "duplicate": true})), known);
        assert_eq!(of(&three, 201, WINDOW, json!({"offset": 4, "duplicates": 3})), known);
        let conflict = json!({"offset": 4, "type": "/problems/id-conflict"});
        assert_eq!(of(&one, 422, WINDOW, conflict), Ok(Reply::Conflict { offset: 4 }));
        for (wrong, what) in [
            (of(&three, 201, WINDOW, json!({"offset": 4, "duplicates": 2})), "in part"),
            (of(&one, 201, WINDOW, json!({"offset": 5})), "no offset, or two"),
            (of(&one, 201, "event-offset: 4", json!({"offset": 4})), "no window"),
            (of(&one, 422, WINDOW, json!({"type": "/problems/id-conflict"})), "no offset"),
            (of(&one, 500, WINDOW, json!({})), "no answer to expect"),
            (of(&one, 204, WINDOW, json!({})), "no answer to expect"),
        ] {
            assert!(wrong.as_ref().is_err_and(|wrong| wrong.contains(what)), "{wrong:?}");
        }
    }

    #[test]
    fn ids_are_stored_once_and_stand_where_they_stood() {
        let check = |known, is_other, reply| check_ids(&batch(1, 3, None), known, is_other, reply);
        let (stored, known) =
            (Reply::Stored { first: 4 }, Reply::Known { first: Some(4), last: None });
        check(IdsKnown::Never, false, stored).expect("right");
        check(IdsKnown::InDoubt, false, stored).expect("right");
        check(IdsKnown::InDoubt, false, known).expect("right");
        check(IdsKnown::At(4), false, known).expect("right");
        check(IdsKnown::At(4), true, Reply::Conflict { offset: 6 }).expect("right");
        check(IdsKnown::InDoubt, false, Reply::Full).expect("right");
        for (before, is_other, reply) in [
            (IdsKnown::Never, false, known),
            (IdsKnown::Never, false, Reply::InFlight),
            (IdsKnown::At(4), false, Reply::InFlight),
            (IdsKnown::At(4), false, stored),
            (IdsKnown::At(5), false, known),
            (IdsKnown::At(4), false, Reply::Conflict { offset: 6 }),
            (IdsKnown::At(4), false, Reply::Full),
            (IdsKnown::At(4), true, Reply::Full),
            (IdsKnown::At(4), true, known),
            (IdsKnown::At(4), true, stored),
            (IdsKnown::At(4), true, Reply::Conflict { offset: 5 }),
        ] {
            check(before, is_other, reply).expect_err("wrong");
        }
    }

    fn place(epoch: u64, seq: u64) -> Batch {
        batch(2, 1, Some(Claim { epoch, seq }))
    }

    fn known(first: Option<u64>, epoch: u64, seq: u64) -> Reply {
        Reply::Known { first, last: Some(Claim { epoch, seq }) }
    }

    #[test]
    fn what_answers_to_a_producer_say() {
        let of = |status, fields, body| Reply::of(&place(3, 8), &answer(status, fields, body));
        let fields = "producer-epoch: 3\nproducer-seq: 8\nevent-offset: 4\nevent-duplicate: true";
        assert_eq!(of(201, fields, json!({"offset": 4})), Ok(Reply::Stored { first: 4 }));
        assert_eq!(of(204, fields, Value::Null), Ok(known(Some(4), 3, 8)));
        let gap = "producer-expected-seq: 7\nproducer-received-seq: 8";
        let body = json!({"type": "/problems/producer-gap"});
        assert_eq!(of(409, gap, body.clone()), Ok(Reply::Gap { expected_seq: 7 }));
        of(409, "producer-expected-seq: 7\nproducer-received-seq: 9", body)
            .expect_err("of another");
        of(201, "event-offset: 4", json!({"offset": 4})).expect_err("says no place");
        of(204, "event-offset: 4", Value::Null).expect_err("says no place");
    }

    #[test]
    fn each_answer_leaves_the_worlds_that_it_agrees_with() {
        let mut producer = Producer::default();
        producer.answered(&place(0, 0), Reply::Stored { first: 4 }).expect("right");
        producer.answered(&place(0, 0), known(Some(4), 0, 0)).expect("right");
        producer.answered(&place(0, 2), Reply::Gap { expected_seq: 1 }).expect("right");
        producer.lost(&place(0, 1));
        assert_eq!(producer.last(0), Some(Claim { epoch: 0, seq: 1 }));
        producer.answered(&place(0, 1), Reply::Full).expect("it may have come to nothing");
        // It was stored, says the answer to the one before.
        producer.answered(&place(0, 0), known(None, 0, 1)).expect("right");
        producer.answered(&place(0, 1), Reply::Stored { first: 9 }).expect_err("stored twice");
    }

    #[test]
    fn a_producer_that_stands_elsewhere_is_told() {
        for (sent, reply) in [
            (place(0, 1), known(Some(5), 0, 1)),
            (place(0, 1), known(None, 0, 1)),
            (place(0, 1), known(Some(4), 0, 2)),
            (place(0, 1), Reply::Stored { first: 4 }),
            (place(0, 0), known(Some(4), 0, 1)),
            (place(0, 2), Reply::Gap { expected_seq: 1 }),
            (place(0, 3), Reply::Gap { expected_seq: 3 }),
            (place(0, 3), Reply::Stored { first: 5 }),
            (place(0, 2), Reply::Stale { epoch: 1 }),
            (place(0, 1), Reply::Gap { expected_seq: 0 }),
            (place(0, 1), Reply::Full),
            (place(0, 0), Reply::Full),
        ] {
            let mut producer = Producer::default();
            producer.answered(&place(0, 0), Reply::Stored { first: 3 }).expect("right");
            producer.answered(&place(0, 1), Reply::Stored { first: 4 }).expect("right");
            producer.answered(&sent, reply).expect_err("wrong");
        }
        let mut producer = Producer::default();
        producer.answered(&place(1, 0), Reply::Stored { first: 3 }).expect("right");
        producer.answered(&place(0, 5), Reply::Stale { epoch: 1 }).expect("right");
        producer.answered(&place(0, 5), known(None, 1, 0)).expect_err("that epoch has ended");
    }
}
