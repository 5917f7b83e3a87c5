//! The shape of a head: its bytes, but for places at which heads of the same shape have other values.
//!
//! ```text
//! POST /api/v1/topics/ .topic. /events HTTP/1.1 CRLF Host: a CRLF Event-Id:  .id. CRLF Content-Length:  .n. CRLF CRLF
//! '------ piece -----'         '------------- piece -------------'                '------- piece -----'     'piece'
//! ```
//! What a head means is decided by its bytes. Here every byte is the known head's, but in the places; a
//! value ends with the first byte that cannot be in it, which is where the parser ends it too, and each is
//! checked by what checks it in any other head. So a head of a known shape means what that one means, with
//! its own values. Whatever is less than plain (another case or order of fields, a space more, a value that
//! is refused) is of another shape, or none, and is parsed.

use std::{ops::Range, str};

use strandline_storage::topic::Topic;

use crate::{
    event_json::{FieldUse, FieldValues, ValueField},
    http::{
        framing::parse_length,
        head::{FieldName, Head},
        topic_path::topic,
    },
};

/// In a head with more places those that come last are as they are.
const PLACES_MAX: usize = 16;

const TOPICS: &str = "/api/v1/topics/";
const EVENTS: &str = "/events";

/// What stands in a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PlaceOf {
    /// The topic in the path, and `/events`.
    Topic,
    /// `Content-Length`
    Length,
    /// A field of ours.
    Value(ValueField),
    /// A field that nobody reads.
    Unread,
}

/// The bytes that a value may have. Those of a path are RFC 3986's `pchar` and `/`: all that need not be
/// asked for their meaning in a request line.
const PATH: u8 = 1;
const DIGIT: u8 = 2;
const GRAPHIC: u8 = 4;
const PRINTED: u8 = 8;

static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0x20_u8;
    while byte < 0x7f {
        let is_path = byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'-' | b'.'
                    | b'_'
                    | b'~'
                    | b'!'
                    | b'$'
                    | b'&'
                    | b'\''
                    | b'('
                    | b')'
                    | b'*'
                    | b'+'
                    | b','
                    | b';'
                    | b'='
                    | b':'
                    | b'@'
                    | b'/'
                    | b'%'
            );
        let is_graphic = byte.is_ascii_graphic();
        classes[byte as usize] = PRINTED
            | if is_graphic { GRAPHIC } else { 0 }
            | if byte.is_ascii_digit() { DIGIT } else { 0 }
            | if is_path { PATH } else { 0 };
        byte += 1;
    }
    classes
};

impl PlaceOf {
    fn class(self) -> u8 {
        match self {
            PlaceOf::Topic => PATH,
            PlaceOf::Length => DIGIT,
            PlaceOf::Value(_) => GRAPHIC,
            PlaceOf::Unread => PRINTED,
        }
    }

    /// How many of the first `bytes` are its value. For a topic, `/events` is the piece behind it.
    fn value_bytes(self, bytes: &[u8]) -> Option<usize> {
        let class = self.class();
        let is_other = |byte: &u8| CLASSES[usize::from(*byte)] & class == 0;
        let value = &bytes[..bytes.iter().position(is_other)?];
        match self {
            PlaceOf::Topic => value.strip_suffix(EVENTS.as_bytes()).map(<[u8]>::len),
            _ => Some(value.len()),
        }
    }

    /// How many bytes behind a value say that it ends there.
    fn end_bytes(self) -> usize {
        match self {
            PlaceOf::Topic => EVENTS.len() + 1,
            _ => 1,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    of: PlaceOf,
    range: Range<usize>,
}

/// The places of a head at which others may differ, in order.
#[derive(Debug)]
pub(super) struct Places(Vec<Place>);

impl Places {
    /// Those of a head that asks for an append and was found to be fine, unless it says something twice.
    pub(super) fn of(head: &Head) -> Option<Places> {
        let bytes = head.bytes();
        let (mut places, mut known) = (Vec::with_capacity(PLACES_MAX), Vec::new());
        let topic = head.path().strip_prefix(TOPICS).and_then(|rest| rest.strip_suffix(EVENTS));
        if let Some(topic) = topic {
            let start = head.path_range().start + TOPICS.len();
            places.push(Place { of: PlaceOf::Topic, range: start..start + topic.len() });
        }
        for (name, field, range) in head.value_ranges() {
            let of = match (field, FieldUse::of(name)) {
                (Some(FieldName::ContentLength), _) => PlaceOf::Length,
                (_, FieldUse::Value(value)) => PlaceOf::Value(value),
                (None, FieldUse::None) => PlaceOf::Unread,
                (Some(_), FieldUse::None) | (_, FieldUse::Meaning) => continue,
            };
            if let PlaceOf::Value(value) = of {
                if known.contains(&discriminant(value)) {
                    return None;
                }
                known.push(discriminant(value));
            }
            places.push(Place { of, range });
        }
        // What would not be found again where it stands is as it is.
        places.retain(|Place { of, range }| {
            !range.is_empty() && of.value_bytes(&bytes[range.start..]) == Some(range.len())
        });
        places.truncate(PLACES_MAX);
        Some(Places(places))
    }

    /// The hash of what is not in the places, and of where they are.
    pub(super) fn hash(&self, bytes: &[u8]) -> u32 {
        let (mut hasher, mut start) = (crc32fast::Hasher::new(), 0);
        for Place { range, .. } in &self.0 {
            hasher.update(&bytes[start..range.start]);
            hasher.update(b"\0");
            start = range.end;
        }
        hasher.update(&bytes[start..]);
        hasher.finalize()
    }
}

fn discriminant(value: ValueField) -> std::mem::Discriminant<ValueField> {
    std::mem::discriminant(&value)
}

/// What a head has in its places; what it has not is the known head's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Values {
    pub(super) topic: Option<Topic>,
    pub(super) body_bytes: Option<u64>,
    pub(super) fields: FieldValues,
}

impl Values {
    fn take(&mut self, of: PlaceOf, value: &[u8]) -> Option<()> {
        match of {
            PlaceOf::Topic => self.topic = Some(topic(str::from_utf8(value).ok()?).ok()?),
            PlaceOf::Length => self.body_bytes = Some(parse_length(value)?),
            PlaceOf::Value(field) => self.fields.take(field, value)?,
            PlaceOf::Unread => {}
        }
        Some(())
    }
}

/// A head, and the places at which others may differ.
#[derive(Debug)]
pub(super) struct Shape {
    head: Box<[u8]>,
    places: Box<[Place]>,
}

impl Shape {
    pub(super) fn new(head: &[u8], places: Places) -> Shape {
        Shape { head: head.into(), places: places.0.into() }
    }

    /// How long the head is that `bytes` begin with, and what it has in its places; `None` if it is of another
    /// shape, or would be refused. The last piece ends with the empty line that ends a head, and nothing before
    /// it holds one: no value has a line's end.
    pub(super) fn read(&self, bytes: &[u8]) -> Option<(usize, Values)> {
        let mut others = [const { None }; PLACES_MAX];
        let (mut at, mut known_at) = (0, 0);
        for (Place { of, range }, other) in self.places.iter().zip(&mut others) {
            let piece = &self.head[known_at..range.start];
            let rest = bytes[at..].strip_prefix(piece)?;
            at += piece.len();
            known_at = range.end;
            // What is the known head's own, up to where it ends, was found to be fine: most values are.
            if rest.starts_with(&self.head[range.start..range.end + of.end_bytes()]) {
                at += range.len();
            } else {
                let found = at..at + of.value_bytes(rest)?;
                at = found.end;
                *other = Some(found);
            }
        }
        let last = &self.head[known_at..];
        if !bytes[at..].starts_with(last) {
            return None;
        }
        let mut values = Values::default();
        for (place, other) in self.places.iter().zip(others) {
            if let Some(found) = other {
                values.take(place.of, &bytes[found])?;
            }
        }
        Some((at + last.len(), values))
    }
}
