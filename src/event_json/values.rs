//! The fields whose values differ from append to append of one publisher, each by itself: a head that is
//! like another but for them says the same but for them.

use std::str;

use strandline_storage::{
    append::{Append, PRODUCER_NUMBER_MAX, ProducerClaim, ProducerId},
    event::{EventId, EventKey, EventType},
};

use super::{
    raw::{Field, parse_key, parse_type},
    terms::{TermField, number, parse_id, parse_producer},
};

/// What a field of a head is to whoever knows a head like it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldUse {
    /// Its value goes into the append, and changes nothing else of it.
    Value(ValueField),
    /// Its value may decide anything.
    Meaning,
    /// Nothing of an append's own.
    None,
}

/// A field whose value goes into the append as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueField {
    /// `Event-Type`
    Type,
    /// `Event-Key`
    Key,
    /// `Event-Id` or `Idempotency-Key`
    Id,
    /// `Expected-Offset`
    ExpectedOffset,
    /// `Producer-Id`
    ProducerId,
    /// `Producer-Epoch`
    ProducerEpoch,
    /// `Producer-Seq`
    ProducerSeq,
}

impl FieldUse {
    /// What the field of this name, in any case, is.
    pub fn of(name: &str) -> FieldUse {
        FieldUse::Value(match Field::of(name) {
            Field::EventType => ValueField::Type,
            Field::EventKey => ValueField::Key,
            Field::Term(TermField::EventId | TermField::IdempotencyKey) => ValueField::Id,
            Field::Term(TermField::ExpectedOffset) => ValueField::ExpectedOffset,
            Field::Term(TermField::ProducerId) => ValueField::ProducerId,
            Field::Term(TermField::ProducerEpoch) => ValueField::ProducerEpoch,
            Field::Term(TermField::ProducerSeq) => ValueField::ProducerSeq,
            Field::ContentType | Field::ContentEncoding | Field::EventHeader(_) | Field::Later => {
                return FieldUse::Meaning;
            }
            Field::Other => return FieldUse::None,
        })
    }
}

/// The values that one head gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldValues {
    event_type: Option<EventType>,
    key: Option<EventKey>,
    id: Option<EventId>,
    expected_offset: Option<u64>,
    producer_id: Option<ProducerId>,
    producer_epoch: Option<u64>,
    producer_seq: Option<u64>,
}

impl FieldValues {
    /// Takes the value of a field, which has not been taken before. `None` if it would be refused.
    pub fn take(&mut self, field: ValueField, value: &[u8]) -> Option<()> {
        // Names are for what is told of a refusal, which is not told here.
        match field {
            ValueField::Type => self.event_type = Some(parse_type("", value).ok()?),
            ValueField::Key => self.key = Some(parse_key("", value).ok()?),
            ValueField::Id => self.id = Some(parse_id("", value).ok()?),
            ValueField::ExpectedOffset => {
                self.expected_offset = Some(number("", value, u64::MAX).ok()?);
            }
            ValueField::ProducerId => self.producer_id = Some(parse_producer("", value).ok()?),
            ValueField::ProducerEpoch => {
                self.producer_epoch = Some(number("", value, PRODUCER_NUMBER_MAX).ok()?);
            }
            ValueField::ProducerSeq => {
                self.producer_seq = Some(number("", value, PRODUCER_NUMBER_MAX).ok()?);
            }
        }
        Some(())
    }

    /// Puts them into an append that a head made which has the same fields. A field of an event that they
    /// have stands in heads of raw appends alone, whose one event it is about.
    pub fn put_into(self, append: &mut Append) {
        let FieldValues { event_type, key, id, expected_offset, .. } = self;
        if let [event] = &mut append.events[..] {
            event.event_type = event_type.unwrap_or(std::mem::take(&mut event.event_type));
            event.key = key.or(event.key.take());
            event.id = id.or(event.id.take());
        }
        if let (Some(offset), Some(expected)) = (expected_offset, &mut append.expected) {
            expected.offset = offset;
        }
        if let Some(producer) = &mut append.producer {
            let ProducerClaim { id, epoch, seq, .. } = producer;
            *epoch = self.producer_epoch.unwrap_or(*epoch);
            *seq = self.producer_seq.unwrap_or(*seq);
            if let Some(own) = self.producer_id {
                *id = own;
            }
        }
    }
}
