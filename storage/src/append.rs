//! One append: its events, and what must hold for it to happen. Pure.
//!
//! ```text
//! producer   who sends it, and the how-manieth of its appends it is      -> happens once
//! ids        of single events, within a window                           -> each happens once
//! expected   the offset of the topic or the log that it builds on        -> or not at all
//! ```
//! They are looked at in this order. An answer that rests on what others have appended (a duplicate, a
//! refusal) may leave only once that is as durable as the log promises; of what is durable, at once.

use std::sync::Arc;

use crate::{
    event::{NameError, NewEvent, check_name},
    offset::Offset,
};

/// Events to append: all of them, in a row, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Append {
    /// The events.
    pub events: Vec<NewEvent>,
    /// What the log must be at.
    pub expected: Option<ExpectedOffset>,
    /// Who sends it; its events then have no ids.
    pub producer: Option<ProducerClaim>,
}

impl From<Vec<NewEvent>> for Append {
    fn from(events: Vec<NewEvent>) -> Append {
        Append { events, expected: None, producer: None }
    }
}

/// What the next offset must be: of the topic of the events (all have the same), one more than that
/// of its last event ever; of the log, what the next event gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpectedOffset {
    /// The offset.
    pub offset: u64,
    /// Of what.
    pub scope: OffsetScope,
}

/// Whose next offset is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetScope {
    /// The topic's.
    Topic,
    /// The log's.
    Log,
}

/// The name that a producer gives itself, at most 256 bytes; a clone shares its text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProducerId(Arc<str>);

impl ProducerId {
    /// The longest name.
    pub const BYTES_MAX: usize = 256;

    /// The name that a request gives.
    pub fn parse(text: &str) -> Result<ProducerId, NameError> {
        check_name(text, ProducerId::BYTES_MAX)?;
        Ok(ProducerId(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Which of a producer's appends this is. Its sequence counts from 0 in each epoch, by one an
/// append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerClaim {
    /// Who.
    pub id: ProducerId,
    /// Which life of it: a later one fences the earlier ones off. At most [`PRODUCER_NUMBER_MAX`].
    pub epoch: u64,
    /// The how-manieth of that life. At most [`PRODUCER_NUMBER_MAX`].
    pub seq: u64,
    /// Where the sequence counts.
    pub scope: OffsetScope,
}

impl ProducerClaim {
    /// How the first of an append's events carries the claim: `t EPOCH SEQ EVENTS NAME`, `l` for `t`
    /// where the log is the scope.
    pub(crate) fn encode(&self, events: u32) -> String {
        let scope = match self.scope {
            OffsetScope::Topic => "t",
            OffsetScope::Log => "l",
        };
        let [mut epoch, mut seq, mut count] = [itoa::Buffer::new(); 3];
        let numbers = [epoch.format(self.epoch), seq.format(self.seq), count.format(events)];
        let [epoch, seq, count] = numbers;
        let (words, id) = ([scope, epoch, seq, count], self.id.as_str());
        let words_bytes: usize = words.iter().map(|word| word.len() + 1).sum();
        // Exactly as much as it takes: a header keeps it without room behind it.
        let mut text = String::with_capacity(words_bytes + id.len());
        for word in words {
            text.push_str(word);
            text.push(' ');
        }
        text.push_str(id);
        text
    }

    /// Reads what [`ProducerClaim::encode`] wrote: the claim, and how many events the append has.
    pub(crate) fn decode(text: &str) -> Option<(ProducerClaim, u32)> {
        let mut parts = text.splitn(5, ' ');
        let scope = match parts.next()? {
            "t" => OffsetScope::Topic,
            "l" => OffsetScope::Log,
            _ => return None,
        };
        let (epoch, seq) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let events = parts.next()?.parse().ok().filter(|events| *events > 0)?;
        let id = ProducerId::parse(parts.next()?).ok()?;
        Some((ProducerClaim { id, epoch, seq, scope }, events))
    }
}

/// The largest epoch and sequence: what a double holds exactly, as Durable Streams has it.
pub const PRODUCER_NUMBER_MAX: u64 = (1 << 53) - 1;

/// The place of an append in the log.
///
/// Its answer may leave once [`crate::log::Log::visible`] has reached `wait`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The offset of its first event; of a duplicate, where that was.
    pub first: Offset,
    /// The offset of its last event.
    pub last: Offset,
    /// When readers see all that the answer rests on.
    pub wait: Offset,
    /// How many of its events were there already.
    pub duplicates: u64,
    /// The time of its new events, in milliseconds since 1970.
    pub time_ms: u64,
    /// What the log knows of the producer, if one was named.
    pub producer: Option<ProducerPlace>,
}

/// How far a producer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerPlace {
    /// Its epoch.
    pub epoch: u64,
    /// The last sequence that was accepted.
    pub seq: u64,
}

/// What became of staged appends when the disk was full.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TakenBack {
    /// What was to stand from here on is taken back, and will never be read,
    pub from: Offset,
    /// but for control events, which free space: the first offset that each append of them was to have, and the
    /// one that it has now.
    pub kept: Vec<(Offset, Offset)>,
}

impl TakenBack {
    /// By how much the append has moved whose first offset was to be `first`; `None` if it is not kept.
    pub fn moved_by(&self, first: Offset) -> Option<u64> {
        let at = self.kept.binary_search_by_key(&first, |(before, _)| *before).ok()?;
        let (before, now) = self.kept[at];
        Some(before.since(now))
    }
}

impl Appended {
    /// Whether nothing of it is new.
    pub fn is_duplicate(&self, events: u64) -> bool {
        self.duplicates == events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As it has always been: a claim that is not understood any more is a producer that is forgotten.
    #[test]
    fn a_claim_has_these_words() {
        for (scope, text) in
            [(OffsetScope::Topic, "t 3 7 2 a b 7"), (OffsetScope::Log, "l 3 7 2 a b 7")]
        {
            let id = ProducerId::parse("a b 7").expect("a name");
            let claim = ProducerClaim { id, epoch: 3, seq: 7, scope };
            assert_eq!(claim.encode(2), text);
            assert_eq!(ProducerClaim::decode(text), Some((claim, 2)));
        }
    }

    #[test]
    fn a_claim_is_read_as_it_was_written() {
        for scope in [OffsetScope::Topic, OffsetScope::Log] {
            let id = ProducerId::parse("a b 7").expect("a name");
            let claim = ProducerClaim { id, epoch: PRODUCER_NUMBER_MAX, seq: 0, scope };
            assert_eq!(ProducerClaim::decode(&claim.encode(9)), Some((claim, 9)));
        }
        for text in ["", "t", "x 1 1 1 a", "t 1 1 0 a", "t 1 1 1 ", "t -1 1 1 a"] {
            assert_eq!(ProducerClaim::decode(text), None, "{text}");
        }
    }
}
