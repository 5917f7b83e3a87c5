//! What the head of an append asks for beside its events: to happen once, or on a condition.
//!
//! ```text
//! Event-Id, Idempotency-Key       of the one event, in quotes or not
//! Expected-Offset: 42             of the topic, or with ?scope=log of the log
//! Producer-Id, -Epoch, -Seq       all three: who sends it, and the how-manieth of its appends it is
//! ```
//! All of it is about one append, so a body of lines, which is many, has none of it.

use strandline_storage::{
    append::{OffsetScope, PRODUCER_NUMBER_MAX, ProducerClaim, ProducerId},
    event::EventId,
};

use super::fields::{decoded, invalid, name_problem, set};
use crate::{problem::Problem, stream::cursor::parse_offset};

/// One of the fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TermField {
    /// `Event-Id`
    EventId,
    /// `Idempotency-Key`
    IdempotencyKey,
    /// `Expected-Offset`
    ExpectedOffset,
    /// `Producer-Id`
    ProducerId,
    /// `Producer-Epoch`
    ProducerEpoch,
    /// `Producer-Seq`
    ProducerSeq,
}

impl TermField {
    /// The field of this name, in any case.
    pub fn of(name: &str) -> Option<TermField> {
        const FIELDS: [(&str, TermField); 6] = [
            ("event-id", TermField::EventId),
            ("idempotency-key", TermField::IdempotencyKey),
            ("expected-offset", TermField::ExpectedOffset),
            ("producer-id", TermField::ProducerId),
            ("producer-epoch", TermField::ProducerEpoch),
            ("producer-seq", TermField::ProducerSeq),
        ];
        let found = FIELDS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, field)| *field)
    }
}

/// What an append asks for; most ask for nothing.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct AppendTerms {
    /// The id of its one event.
    pub event_id: Option<EventId>,
    /// What the next offset must be; of what, the query says.
    pub expected_offset: Option<u64>,
    /// Who sends it.
    pub producer: Option<ProducerClaim>,
}

/// The fields while they are gathered.
#[derive(Debug, Default)]
pub(super) struct Terms {
    event_id: Option<EventId>,
    expected_offset: Option<u64>,
    producer_id: Option<ProducerId>,
    producer_epoch: Option<u64>,
    producer_seq: Option<u64>,
    /// The first of them, as its name was spelt.
    first_name: Option<String>,
}

impl Terms {
    /// Takes one field.
    pub fn take(&mut self, field: TermField, name: &str, value: &[u8]) -> Result<(), Problem> {
        self.first_name.get_or_insert_with(|| name.to_owned());
        match field {
            // Both spellings may give it, if they agree.
            TermField::EventId | TermField::IdempotencyKey => {
                let id = parse_id(name, value)?;
                if *self.event_id.get_or_insert(id.clone()) != id {
                    return Err(invalid(name, "gives another id than the field before it"));
                }
                Ok(())
            }
            TermField::ExpectedOffset => {
                set(&mut self.expected_offset, name, number(name, value, u64::MAX)?)
            }
            TermField::ProducerId => set(&mut self.producer_id, name, parse_producer(name, value)?),
            TermField::ProducerEpoch => {
                set(&mut self.producer_epoch, name, number(name, value, PRODUCER_NUMBER_MAX)?)
            }
            TermField::ProducerSeq => {
                set(&mut self.producer_seq, name, number(name, value, PRODUCER_NUMBER_MAX)?)
            }
        }
    }

    /// Refuses all of them, for a body of lines.
    pub fn refuse_lines(&self) -> Result<(), Problem> {
        match &self.first_name {
            None => Ok(()),
            Some(name) => Err(invalid(
                name,
                "belongs to one append, and a body of application/x-ndjson is many",
            )),
        }
    }

    /// Refuses an id where the event objects have them.
    pub fn refuse_id(&self) -> Result<(), Problem> {
        match &self.event_id {
            None => Ok(()),
            Some(_) => {
                Err(invalid("Event-Id", "is for raw appends: use the object's member \"id\""))
            }
        }
    }

    /// What was asked for, if anything was. Sequences of a producer count in `scope`.
    pub fn finish(self, scope: OffsetScope) -> Result<Option<Box<AppendTerms>>, Problem> {
        if self.first_name.is_none() {
            return Ok(None);
        }
        let Terms { event_id, expected_offset, producer_id, producer_epoch, producer_seq, .. } =
            self;
        let producer = match (producer_id, producer_epoch, producer_seq) {
            (None, None, None) => None,
            (Some(id), Some(epoch), Some(seq)) => Some(ProducerClaim { id, epoch, seq, scope }),
            (id, epoch, _) => {
                let missing = match (id, epoch) {
                    (None, _) => "Producer-Id",
                    (_, None) => "Producer-Epoch",
                    _ => "Producer-Seq",
                };
                let what = "is missing: Producer-Id, Producer-Epoch and Producer-Seq go together";
                return Err(invalid(missing, what));
            }
        };
        if producer.is_some() && event_id.is_some() {
            return Err(producer_and_id());
        }
        Ok(Some(Box::new(AppendTerms { event_id, expected_offset, producer })))
    }
}

/// An append is known again by its producer's sequence or by ids, not by both.
pub fn producer_and_id() -> Problem {
    invalid("Producer-Id", "and an event id say twice when an append is a duplicate: use one")
}

/// The id that the field of this name gives. Both spellings take off a pair of quotes around it, or a retry
/// in the other one would be another event; quotes that belong to an id are percent-encoded.
pub(super) fn parse_id(name: &str, value: &[u8]) -> Result<EventId, Problem> {
    let inner = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    let text = decoded(name, inner.unwrap_or(value))?;
    EventId::parse(&text).map_err(|error| name_problem(name, &text, &error))
}

/// The producer that the field of this name gives.
pub(super) fn parse_producer(name: &str, value: &[u8]) -> Result<ProducerId, Problem> {
    let text = decoded(name, value)?;
    ProducerId::parse(&text).map_err(|error| name_problem(name, &text, &error))
}

/// A whole number in plain digits.
pub(super) fn number(name: &str, value: &[u8], number_max: u64) -> Result<u64, Problem> {
    let text = std::str::from_utf8(value).unwrap_or_default();
    let number = parse_offset(text).map(|number| number.get()).filter(|n| *n <= number_max);
    number.ok_or_else(|| {
        let number_max = number_max.min(strandline_storage::offset::Offset::MAX.get());
        invalid(name, &format!("is not a whole number from 0 to {number_max}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::ProblemKind;

    fn terms(fields: &[(&str, &str)]) -> Result<AppendTerms, Problem> {
        let mut terms = Terms::default();
        for (name, value) in fields {
            let field = TermField::of(name).expect("a known name");
            terms.take(field, name, value.as_bytes())?;
        }
        Ok(*terms.finish(OffsetScope::Topic)?.expect("something is asked for"))
    }

    fn id(fields: &[(&str, &str)]) -> Result<String, ProblemKind> {
        let terms = terms(fields).map_err(|problem| problem.kind())?;
        Ok(terms.event_id.expect("an id").as_str().to_owned())
    }

    #[test]
    fn most_ask_for_nothing() {
        assert_eq!(Terms::default().finish(OffsetScope::Topic), Ok(None));
    }

    /// API §2: "`Event-Id` (other spelling `Idempotency-Key`, quotes around it stripped; two that
    /// differ: 400)"; "values are percent-encoded UTF-8".
    #[test]
    fn an_id_has_two_spellings() {
        assert_eq!(id(&[("Event-Id", "a%20b%E2%82%AC")]).as_deref(), Ok("a b€"));
        assert_eq!(id(&[("idempotency-key", "\"8e03\"")]).as_deref(), Ok("8e03"));
        assert_eq!(id(&[("Idempotency-Key", "8e03")]).as_deref(), Ok("8e03"));
        assert_eq!(id(&[("Event-Id", "\"8e03\"")]).as_deref(), Ok("8e03"));
        assert_eq!(id(&[("Event-Id", "%228e03%22")]).as_deref(), Ok("\"8e03\""), "part of the id");
        assert_eq!(id(&[("Event-Id", "\"\"a\"\"")]).as_deref(), Ok("\"a\""), "one pair");
        for value in ["\"a", "a\"", "\"", "a\"b", "\"%22"] {
            let both = [("Idempotency-Key", value), ("Event-Id", value)];
            let whole = value.replace("%22", "\"");
            assert_eq!(id(&both).as_deref(), Ok(whole.as_str()), "no pair");
        }
        assert_eq!(id(&[("Event-Id", "a"), ("Idempotency-Key", "\"a\"")]).as_deref(), Ok("a"));
        for fields in [
            [("Event-Id", "a"), ("Idempotency-Key", "\"b\"")],
            [("Event-Id", "a"), ("Event-Id", "b")],
            [("Event-Id", "%22a%22"), ("Idempotency-Key", "\"a\"")],
        ] {
            assert_eq!(id(&fields), Err(ProblemKind::InvalidHeader), "{fields:?}");
        }
        for value in ["", "\"\"", "%0A", "%20a", "\" a\"", &"i".repeat(257)] {
            for name in ["Idempotency-Key", "Event-Id"] {
                assert_eq!(id(&[(name, value)]), Err(ProblemKind::InvalidName), "{name}: {value}");
            }
        }
        assert_eq!(id(&[("Event-Id", "%ff")]), Err(ProblemKind::InvalidHeader));
    }

    /// API §2: "`Producer-Id`, `Producer-Epoch`, `Producer-Seq`": all three or none, and whole numbers
    /// that a double holds.
    #[test]
    fn a_producer_says_all_three() {
        let all = [("Producer-Id", "p%20q"), ("Producer-Epoch", "3"), ("producer-seq", "0")];
        let claim = terms(&all).unwrap().producer.expect("a claim");
        assert_eq!((claim.id.as_str(), claim.epoch, claim.seq), ("p q", 3, 0));
        for missing in 0..3 {
            let kept = all.iter().enumerate().filter(|(at, _)| *at != missing);
            let some: Vec<_> = kept.map(|(_, field)| *field).collect();
            let problem = terms(&some).unwrap_err();
            assert_eq!(problem.kind(), ProblemKind::InvalidHeader);
            assert!(problem.detail().to_lowercase().contains(&all[missing].0.to_lowercase()));
        }
        assert!(terms(&[("Producer-Seq", "9007199254740991"), all[0], all[1]]).is_ok());
        for number in ["9007199254740992", "-1", "+1", "01", "1.0", "", "x", " 1", "1e3", "\u{661}"]
        {
            let problem = terms(&[("Producer-Seq", number), all[0], all[1]]).unwrap_err();
            assert_eq!(problem.kind(), ProblemKind::InvalidHeader, "{number}");
        }
        let with_id = [all[0], all[1], all[2], ("Event-Id", "a")];
        assert_eq!(terms(&with_id).unwrap_err().status(), 400);
        assert_eq!(terms(&[all[0], all[0]]).unwrap_err().kind(), ProblemKind::InvalidHeader);
        assert_eq!(terms(&[("Producer-Id", "")]).unwrap_err().kind(), ProblemKind::InvalidName);
    }

    #[test]
    fn an_expected_offset_is_an_offset() {
        let expected =
            |value| terms(&[("Expected-Offset", value)]).map(|terms| terms.expected_offset);
        assert_eq!(expected("0"), Ok(Some(0)));
        assert_eq!(expected("123456789012345"), Ok(Some(123_456_789_012_345)));
        for value in ["", "-1", "1.k3f9q", "18446744073709551616", "*"] {
            let problem = expected(value).unwrap_err();
            assert_eq!(problem.kind(), ProblemKind::InvalidHeader, "{value}");
        }
    }
}
