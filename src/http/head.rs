//! A request head that has been accepted: what it asks for and its fields, with the known ones at hand.
//!
//! A head owns one copy of its bytes, into which everything else points: it outlives the buffer that
//! it arrived in, and costs no allocation when an old one is reused (`HeadParser::recycle`).

use std::ops::Range;

use super::authority::Authority;
use crate::problem::{Problem, ProblemKind};

/// A method, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Reads.
    Get,
    /// Reads the head of the answer alone.
    Head,
    /// Appends, or runs an operation.
    Post,
    /// Replaces settings.
    Put,
    /// Deletes.
    Delete,
    /// Known, and taken by nothing.
    Patch,
    /// Asks what is allowed; a browser's preflight.
    Options,
    /// Any other token.
    Unknown,
}

impl Method {
    /// Returns the method of this token. Methods are case-sensitive.
    pub fn of(token: &str) -> Self {
        match token {
            "GET" => Self::Get,
            "POST" => Self::Post,
            "HEAD" => Self::Head,
            "PUT" => Self::Put,
            "DELETE" => Self::Delete,
            "PATCH" => Self::Patch,
            "OPTIONS" => Self::Options,
            _ => Self::Unknown,
        }
    }

    /// The token; of an unknown method nobody keeps it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Head => "HEAD",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Patch => "PATCH",
            Self::Options => "OPTIONS",
            Self::Unknown => "this method",
        }
    }
}

/// The version of HTTP that the client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// No chunked coding, and the connection closes unless asked to stay.
    Http10,
    /// Everything.
    Http11,
}

/// How long the request's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// Neither Content-Length nor Transfer-Encoding: no body, and 411 where one is needed.
    Unstated,
    /// This many bytes.
    Sized(u64),
    /// As chunks, up to an empty one.
    Chunked,
}

macro_rules! field_names {
    ($($name:ident $text:literal)*) => {
        /// A header field that some part of the server reads.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum FieldName {
            $(#[doc = $text] $name,)*
        }

        const FIELD_NAMES: &[(FieldName, &str)] = &[$((FieldName::$name, $text),)*];
    };
}

field_names! {
    Host "host"
    Connection "connection"
    ContentLength "content-length"
    TransferEncoding "transfer-encoding"
    Expect "expect"
    ContentType "content-type"
    ContentEncoding "content-encoding"
    Accept "accept"
    AcceptEncoding "accept-encoding"
    Prefer "prefer"
    Origin "origin"
    AccessControlRequestMethod "access-control-request-method"
    AccessControlRequestHeaders "access-control-request-headers"
    AccessControlRequestPrivateNetwork "access-control-request-private-network"
    LastEventId "last-event-id"
    EventType "event-type"
    EventKey "event-key"
    EventId "event-id"
    IdempotencyKey "idempotency-key"
    EventEphemeral "event-ephemeral"
    ExpectedOffset "expected-offset"
    Upgrade "upgrade"
    SecWebsocketKey "sec-websocket-key"
    SecWebsocketVersion "sec-websocket-version"
    SecWebsocketProtocol "sec-websocket-protocol"
    SecWebsocketExtensions "sec-websocket-extensions"
    Authorization "authorization"
}

/// For each length of a name, the places in [`FIELD_NAMES`] of those that have it, as bits: most fields
/// of a request are told from all known ones by that alone.
static PLACES_BY_BYTES: [u64; 64] = {
    assert!(FIELD_NAMES.len() <= 64, "a place is a bit");
    let mut places_by_bytes = [0; 64];
    let mut place = 0;
    while place < FIELD_NAMES.len() {
        places_by_bytes[FIELD_NAMES[place].1.len()] |= 1 << place;
        place += 1;
    }
    places_by_bytes
};

impl FieldName {
    fn find(name: &str) -> Option<Self> {
        let mut places = *PLACES_BY_BYTES.get(name.len())?;
        while places != 0 {
            let (field, text) = FIELD_NAMES[places.trailing_zeros() as usize];
            if text.eq_ignore_ascii_case(name) {
                return Some(field);
            }
            places &= places - 1;
        }
        None
    }

    /// The field's name in lower case.
    pub fn text(self) -> &'static str {
        FIELD_NAMES[self as usize].1
    }
}

/// A range of the head's bytes. A head has at most 16 KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    start: u16,
    end: u16,
}

impl Span {
    pub(super) fn new(range: Range<usize>) -> Self {
        let fits = "a head has at most 16 KiB";
        let (start, end) = (u16::try_from(range.start), u16::try_from(range.end));
        Self { start: start.expect(fits), end: end.expect(fits) }
    }

    fn range(self) -> Range<usize> {
        usize::from(self.start)..usize::from(self.end)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Field {
    name: Span,
    value: Span,
    known: Option<FieldName>,
}

/// What the Connection field says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ConnectionOptions {
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
}

/// What the Expect field says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expectation {
    /// Nothing that is waited for.
    Nothing,
    /// The client waits for `100 Continue` before it sends its body.
    Continue,
    /// Something that nobody here knows.
    Unknown,
}

/// A request head that was accepted.
///
/// Invariants: `bytes` is the head as it came; every span lies within it; target, path, query and
/// field names are UTF-8; `host` is a valid authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    bytes: Vec<u8>,
    fields: Vec<Field>,
    /// The place in `fields`, counted from 1, of the first field of each known name; 0 is none.
    first: [u8; FIELD_NAMES.len()],
    pub(super) method: Method,
    pub(super) version: Version,
    pub(super) path: Span,
    pub(super) query: Option<Span>,
    pub(super) host: Option<Span>,
    pub(super) body_length: BodyLength,
    pub(super) connection: ConnectionOptions,
    pub(super) expectation: Expectation,
}

impl Default for Head {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            fields: Vec::new(),
            first: [0; FIELD_NAMES.len()],
            method: Method::Unknown,
            version: Version::Http11,
            path: Span::default(),
            query: None,
            host: None,
            body_length: BodyLength::Unstated,
            connection: ConnectionOptions::default(),
            expectation: Expectation::Nothing,
        }
    }
}

impl Head {
    /// Makes an empty head over `bytes`, with the memory of `self`.
    pub(super) fn reset(&mut self, bytes: &[u8]) {
        let (mut old_bytes, mut old_fields) =
            (std::mem::take(&mut self.bytes), std::mem::take(&mut self.fields));
        old_bytes.clear();
        old_bytes.extend_from_slice(bytes);
        old_fields.clear();
        *self = Self { bytes: old_bytes, fields: old_fields, ..Self::default() };
    }

    pub(super) fn push_field(&mut self, name: Span, value: Span) {
        let known = FieldName::find(self.text_at(name));
        self.fields.push(Field { name, value, known });
        if let Some(known) = known {
            let first = &mut self.first[known as usize];
            if *first == 0 {
                *first = u8::try_from(self.fields.len()).expect("a head has at most 64 fields");
            }
        }
    }

    fn text_at(&self, span: Span) -> &str {
        std::str::from_utf8(self.bytes_at(span)).expect("it was UTF-8 when it was parsed")
    }

    /// The head as it came, without an empty line before it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where in [`Head::bytes`] the path stands.
    pub fn path_range(&self) -> Range<usize> {
        self.path.range()
    }

    /// All fields in order: their names, which of the known ones they are, and where in [`Head::bytes`] their
    /// values stand; an empty one may stand anywhere.
    pub fn value_ranges(&self) -> impl Iterator<Item = (&str, Option<FieldName>, Range<usize>)> {
        let fields = self.fields.iter();
        fields.map(|field| (self.text_at(field.name), field.known, field.value.range()))
    }

    /// The request's method.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The client's version of HTTP.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The path, not decoded: it begins with `/`, or is `*` under OPTIONS.
    pub fn path(&self) -> &str {
        self.text_at(self.path)
    }

    /// What follows the first `?`, not decoded; Some("") when nothing does.
    pub fn query(&self) -> Option<&str> {
        self.query.map(|span| self.text_at(span))
    }

    /// The host that the client means: that of an absolute target, else the Host field. Only an
    /// HTTP/1.0 request can have none.
    pub fn host(&self) -> Option<Authority<'_>> {
        let text = self.text_at(self.host?);
        Some(Authority::parse(text).expect("it was a host when it was parsed"))
    }

    /// How long the body is.
    pub fn body_length(&self) -> BodyLength {
        self.body_length
    }

    /// Whether the client waits for `100 Continue` before it sends its body.
    pub fn expects_continue(&self) -> bool {
        self.expectation == Expectation::Continue
    }

    /// Fails with `expectation-failed` when the client expects what nobody here knows. The connection then
    /// ends: nobody can tell whether it sends its body all the same.
    pub fn check_expectation(&self) -> Result<(), Problem> {
        if self.expectation != Expectation::Unknown {
            return Ok(());
        }
        let detail = "the only expectation that is known is `100-continue`";
        Err(Problem::new(ProblemKind::ExpectationFailed, detail).closing())
    }

    /// Whether the client will use the connection again after the answer.
    pub fn keep_alive(&self) -> bool {
        match self.version {
            Version::Http11 => !self.connection.close,
            Version::Http10 => self.connection.keep_alive && !self.connection.close,
        }
    }

    /// Whether the request asks to go on as WebSocket: GET, HTTP/1.1, `Connection: upgrade` and
    /// `Upgrade: websocket`. Whether the handshake is a good one is another question.
    pub fn asks_for_websocket(&self) -> bool {
        self.method == Method::Get
            && self.version == Version::Http11
            && self.connection.upgrade
            && self.tokens(FieldName::Upgrade).any(|token| token.eq_ignore_ascii_case(b"websocket"))
    }

    /// The value of the first field of this name.
    pub fn value(&self, name: FieldName) -> Option<&[u8]> {
        self.span(name).map(|span| self.bytes_at(span))
    }

    pub(super) fn span(&self, name: FieldName) -> Option<Span> {
        let index = usize::from(self.first[name as usize]).checked_sub(1)?;
        Some(self.fields[index].value)
    }

    pub(super) fn bytes_at(&self, span: Span) -> &[u8] {
        &self.bytes[span.range()]
    }

    /// The values of all fields of this name, in order.
    pub fn values(&self, name: FieldName) -> impl Iterator<Item = &[u8]> {
        let first = match self.first[name as usize] {
            0 => self.fields.len(),
            index => usize::from(index) - 1,
        };
        self.fields[first..]
            .iter()
            .filter(move |field| field.known == Some(name))
            .map(|field| self.bytes_at(field.value))
    }

    /// The members of a comma-separated list, over all fields of this name, without the empty ones.
    /// Commas inside quoted strings separate too: no list that is read here has such.
    pub fn tokens(&self, name: FieldName) -> impl Iterator<Item = &[u8]> {
        self.values(name).flat_map(|value| {
            value
                .split(|byte| *byte == b',')
                .map(<[u8]>::trim_ascii)
                .filter(|token| !token.is_empty())
        })
    }

    /// The value of a field that may stand only once, as text.
    ///
    /// Fails with `invalid-header` when it is repeated or not UTF-8.
    pub fn text(&self, name: FieldName) -> Result<Option<&str>, Problem> {
        let Some(value) = self.value(name) else { return Ok(None) };
        if self.values(name).nth(1).is_some() {
            let detail = format!("the field {} stands more than once", name.text());
            return Err(Problem::new(ProblemKind::InvalidHeader, detail));
        }
        let not_utf8 = |_| {
            let detail = format!("the field {} is not UTF-8", name.text());
            Problem::new(ProblemKind::InvalidHeader, detail)
        };
        std::str::from_utf8(value).map(Some).map_err(not_utf8)
    }

    /// All fields in order, names as they came.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.fields.iter().map(|field| (self.text_at(field.name), self.bytes_at(field.value)))
    }
}

/// What is wrong with a head that is none.
pub(super) fn invalid(detail: &'static str) -> Problem {
    Problem::new(ProblemKind::InvalidHead, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::{HeadParser, Parsed};

    fn head(fields: &str) -> Head {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let Parsed::Request { head, .. } = HeadParser::default().parse(text.as_bytes()) else {
            panic!("{text:?} is no request")
        };
        head
    }

    #[test]
    fn every_known_field_is_found_by_its_name_in_any_case() {
        for (name, text) in FIELD_NAMES {
            assert_eq!(FieldName::find(&text.to_ascii_uppercase()), Some(*name));
            assert_eq!(name.text(), *text);
        }
        assert_eq!(FieldName::find("event-typ"), None);
    }

    #[test]
    fn a_field_that_may_stand_once_is_refused_when_it_stands_twice() {
        let twice = head("Event-Type: a\r\nX: y\r\nevent-type: a\r\n");
        let problem = twice.text(FieldName::EventType).unwrap_err();
        assert_eq!((problem.status(), problem.slug()), (400, "invalid-header"));
        assert_eq!(problem.detail(), "the field event-type stands more than once");
        assert_eq!(twice.values(FieldName::EventType).count(), 2);
    }

    /// As it is in a topic and in JSON.
    #[test]
    fn a_field_that_is_not_utf8_is_refused_when_it_is_read() {
        let text = b"GET / HTTP/1.1\r\nHost: a\r\nEvent-Key: \xff\r\n\r\n";
        let Parsed::Request { head, .. } = HeadParser::default().parse(text) else {
            panic!("fields that nobody reads may hold any bytes")
        };
        let problem = head.text(FieldName::EventKey).unwrap_err();
        assert_eq!((problem.status(), problem.slug()), (400, "invalid-header"));
        assert_eq!(head.value(FieldName::EventKey), Some(&b"\xff"[..]));
    }

    #[test]
    fn lists_are_read_over_all_their_fields() {
        let head = head("Accept: a/b, ,c/d\r\nX: y\r\naccept: e/f,\r\n");
        let tokens: Vec<_> = head.tokens(FieldName::Accept).collect();
        assert_eq!(tokens, [b"a/b", b"c/d", b"e/f"]);
        assert_eq!(head.tokens(FieldName::Upgrade).count(), 0);
    }
}
