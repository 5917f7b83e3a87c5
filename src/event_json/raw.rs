//! Raw appends: the body, byte for byte, is an event's data, and header fields say the rest.
//!
//! ```text
//! Content-Type                          data                      content type kept, form
//! -----------------------------------   -----------------------   --------------------------------
//! none, x-www-form-urlencoded           JSON                      application/json, JSON
//!                                       other UTF-8               text/plain, text
//!                                       else                      application/octet-stream, binary
//! application/json, text/json, *+json   JSON, else 400            as given, JSON
//! text/*                                UTF-8                     as given, text
//!                                       else                      as given, binary
//! application/x-ndjson                  lines, each JSON          application/json, JSON
//! any other                             anything                  as given, binary
//! ```
//! Bytes that begin with a byte order mark are not JSON; without a content type they are text.

use std::borrow::Cow;

use bytes::Bytes;
use strandline_storage::{
    append::OffsetScope,
    event::{DataForm, EventKey, EventKind, EventType, NewEvent},
    topic::Topic,
};

use super::{
    fields::{decoded, invalid, name_problem, set, shown},
    headers::{HeaderList, Headers},
    media_type::{MediaClass, MediaType},
    terms::{AppendTerms, TermField, Terms},
};
use crate::{
    input::{not_yet, quoted},
    json::check,
    problem::{Problem, ProblemKind},
};

/// What the head of a raw append says about its event, or about each of its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawAppend {
    content: Content,
    event_type: EventType,
    key: Option<EventKey>,
    headers: HeaderList,
    terms: Option<Box<AppendTerms>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    /// Nothing useful was said: the data decides.
    Guess,
    /// Each line is JSON.
    Lines,
    Json(Cow<'static, str>),
    Text(Cow<'static, str>),
    Binary(Cow<'static, str>),
}

impl RawAppend {
    /// Reads the header fields of the request, names in any case.
    pub fn from_fields<'a>(
        fields: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<RawAppend, Problem> {
        let (mut content, mut event_type, mut key) = (None, None, None);
        let (mut headers, mut terms) = (Headers::default(), Terms::default());
        for (name, value) in fields {
            match Field::of(name) {
                Field::ContentType => set(&mut content, name, parse_content_type(name, value)?)?,
                Field::ContentEncoding => check_encoding(value)?,
                Field::EventType => set(&mut event_type, name, parse_type(name, value)?)?,
                Field::EventKey => set(&mut key, name, parse_key(name, value)?)?,
                Field::EventHeader(header) => headers
                    .push(header, &decoded(name, value)?)
                    .map_err(|what| Problem::new(ProblemKind::InvalidHeader, what))?,
                Field::Term(field) => terms.take(field, name, value)?,
                Field::Later => return Err(not_yet(&shown(name))),
                Field::Other => {}
            }
        }
        let content = content.unwrap_or(Content::Guess);
        if content == Content::Lines {
            terms.refuse_lines()?;
        }
        Ok(RawAppend {
            content,
            event_type: event_type.unwrap_or_default(),
            key,
            headers: headers.finish(),
            terms: terms.finish(OffsetScope::Topic)?,
        })
    }

    /// What the append asks for beside its event.
    pub fn terms(&self) -> Option<&AppendTerms> {
        self.terms.as_deref()
    }

    /// Whether each line of the body is an event.
    pub fn is_lines(&self) -> bool {
        self.content == Content::Lines
    }

    /// The event whose data is `data`: the whole body, or one line of it.
    pub fn event(&self, topic: Topic, data: Bytes) -> Result<NewEvent, Problem> {
        let not_json = |error| Problem::new(ProblemKind::InvalidJson, format!("the data {error}"));
        let (content_type, form) = match &self.content {
            Content::Guess => match (check::check(&data), std::str::from_utf8(&data)) {
                (Ok(_), _) => (Cow::Borrowed(""), DataForm::Json),
                (Err(_), Ok(_)) => (Cow::Borrowed("text/plain"), DataForm::Text),
                (Err(_), Err(_)) => (Cow::Borrowed("application/octet-stream"), DataForm::Binary),
            },
            Content::Lines => {
                check::check(&data).map_err(not_json)?;
                (Cow::Borrowed(""), DataForm::Json)
            }
            Content::Json(content_type) => {
                check::check(&data).map_err(not_json)?;
                (content_type.clone(), DataForm::Json)
            }
            Content::Text(content_type) => (content_type.clone(), text_form(&data)),
            Content::Binary(content_type) => (content_type.clone(), DataForm::Binary),
        };
        Ok(NewEvent {
            topic,
            event_type: self.event_type.clone(),
            id: self.terms().and_then(|terms| terms.event_id.clone()),
            key: self.key.clone(),
            headers: self.headers.clone(),
            content_type,
            form,
            kind: EventKind::Data,
            data,
        })
    }
}

/// How data is shown that calls itself text: "text that is not UTF-8 counts as binary".
pub fn text_form(data: &[u8]) -> DataForm {
    if std::str::from_utf8(data).is_ok() { DataForm::Text } else { DataForm::Binary }
}

/// The header fields that say something about an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field<'a> {
    /// `Content-Type`
    ContentType,
    /// `Content-Encoding`
    ContentEncoding,
    /// `Event-Type`
    EventType,
    /// `Event-Key`
    EventKey,
    /// `Event-Header-<Name>`
    EventHeader(&'a str),
    /// What the append as a whole asks for.
    Term(TermField),
    /// Reserved for a later version.
    Later,
    /// Nothing of ours.
    Other,
}

impl<'a> Field<'a> {
    /// What the field of this name, in any case, is about.
    pub fn of(name: &'a str) -> Field<'a> {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        let begins = |prefix: &str| {
            let start = name.get(..prefix.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        };
        // One comparison rules out nearly all fields of a request.
        match name.as_bytes().first().map(u8::to_ascii_lowercase) {
            Some(b'c') if is("content-type") => Field::ContentType,
            Some(b'c') if is("content-encoding") => Field::ContentEncoding,
            Some(b'c') if begins("ce-") => Field::Later,
            Some(b'e') if begins("event-header-") => {
                Field::EventHeader(&name["event-header-".len()..])
            }
            Some(b'e') if is("event-type") => Field::EventType,
            Some(b'e') if is("event-key") => Field::EventKey,
            Some(b'e') if is("event-ephemeral") => Field::Later,
            Some(b'e' | b'i' | b'p') => TermField::of(name).map_or(Field::Other, Field::Term),
            _ => Field::Other,
        }
    }
}

fn parse_content_type(name: &str, value: &[u8]) -> Result<Content, Problem> {
    let text = std::str::from_utf8(value).map_err(|_| invalid(name, "is not ASCII"))?;
    let media =
        MediaType::parse(text).map_err(|what| invalid(name, &format!("cannot be used: {what}")))?;
    Ok(match media.class {
        MediaClass::Json => Content::Json(stored(media.stored)),
        MediaClass::Lines => Content::Lines,
        MediaClass::Form => Content::Guess,
        MediaClass::CloudEvents => {
            return Err(not_yet(&format!("the content type {}", quoted(text))));
        }
        MediaClass::Text => Content::Text(stored(media.stored)),
        MediaClass::Other => Content::Binary(stored(media.stored)),
    })
}

/// A content type as an event keeps it: the usual ones cost no memory.
pub fn stored(content_type: &str) -> Cow<'static, str> {
    const USUAL: [&str; 3] = ["", "text/plain", "application/octet-stream"];
    match USUAL.iter().find(|usual| **usual == content_type) {
        Some(usual) => Cow::Borrowed(usual),
        None => Cow::Owned(content_type.to_owned()),
    }
}

/// Refuses every content coding but the one that changes nothing.
pub fn check_encoding(value: &[u8]) -> Result<(), Problem> {
    if value.trim_ascii().eq_ignore_ascii_case(b"identity") {
        return Ok(());
    }
    let coding = quoted(&String::from_utf8_lossy(value));
    let detail = format!("a body with Content-Encoding {coding} is not taken");
    Err(Problem::new(ProblemKind::UnsupportedEncoding, detail))
}

/// The type that the field of this name gives.
pub fn parse_type(name: &str, value: &[u8]) -> Result<EventType, Problem> {
    let text = decoded(name, value)?;
    EventType::parse(&text).map_err(|error| name_problem(name, &text, &error))
}

/// The key that the field of this name gives.
pub fn parse_key(name: &str, value: &[u8]) -> Result<EventKey, Problem> {
    let text = decoded(name, value)?;
    EventKey::parse(&text).map_err(|error| name_problem(name, &text, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &[(&str, &str)]) -> Result<RawAppend, Problem> {
        RawAppend::from_fields(fields.iter().map(|(name, value)| (*name, value.as_bytes())))
    }

    fn event(content_type: Option<&str>, data: &'static [u8]) -> Result<NewEvent, Problem> {
        let fields: Vec<_> =
            content_type.map(|value| ("content-type", value)).into_iter().collect();
        head(&fields)?.event(Topic::parse("a").unwrap(), Bytes::from_static(data))
    }

    fn kept(content_type: Option<&str>, data: &'static [u8]) -> (String, DataForm) {
        let event = event(content_type, data).unwrap();
        assert_eq!(event.data, data, "byte for byte");
        (event.content_type.into(), event.form)
    }

    /// API §2: "None, or `application/x-www-form-urlencoded` (what `curl -d` sends): JSON if it
    /// parses, else `text/plain` if UTF-8, else `application/octet-stream`".
    #[test]
    fn without_a_content_type_the_data_decides() {
        for content_type in [None, Some("application/x-www-form-urlencoded")] {
            let json = (String::new(), DataForm::Json);
            let text = ("text/plain".to_owned(), DataForm::Text);
            let binary = ("application/octet-stream".to_owned(), DataForm::Binary);
            assert_eq!(kept(content_type, b" {\"a\": 1}\n"), json);
            assert_eq!(kept(content_type, b"42"), json);
            assert_eq!(kept(content_type, b"hello"), text);
            assert_eq!(kept(content_type, b"{\"a\":"), text);
            assert_eq!(kept(content_type, b""), text);
            assert_eq!(kept(content_type, b"\xef\xbb\xbf{}"), text, "a byte order mark is no JSON");
            assert_eq!(kept(content_type, b"\xff\xfe"), binary);
            assert_eq!(kept(content_type, b"{\"a\":\"\xff\"}"), binary);
        }
        let deep: &[u8] =
            Box::leak(["[".repeat(65), "]".repeat(65)].concat().into_boxed_str()).as_bytes();
        assert_eq!(kept(None, deep).1, DataForm::Text, "too deep to be JSON of ours");
    }

    /// API §2: "JSON types must be valid JSON (depth at most 64)."
    #[test]
    fn json_types_must_be_json() {
        assert_eq!(kept(Some("application/json"), b"[1]"), (String::new(), DataForm::Json));
        let hal = ("application/hal+json".to_owned(), DataForm::Json);
        assert_eq!(kept(Some("application/hal+json"), b"{}"), hal);
        for data in [&b""[..], b"{", b"\"\xff\"", b"\xef\xbb\xbf1", b"1 2"] {
            let problem = event(Some("application/json"), data).unwrap_err();
            assert_eq!(problem.kind(), ProblemKind::InvalidJson);
        }
        let problem = event(Some("application/json"), b"[1,\n2,]").unwrap_err();
        assert_eq!(problem.detail(), "the data is not JSON: expected value at line 2, column 3");
    }

    /// API §2: "Text that is not UTF-8 counts as binary, whatever it says."
    #[test]
    fn text_and_binary() {
        let typed = |content_type, data| kept(Some(content_type), data).1;
        assert_eq!(typed("text/html", b"<p>"), DataForm::Text);
        assert_eq!(typed("text/plain; charset=utf-8", b"\xff"), DataForm::Binary);
        assert_eq!(typed("image/png", b"<p>"), DataForm::Binary);
        assert_eq!(typed("application/octet-stream", b"{}"), DataForm::Binary);
        assert_eq!(event(Some("json"), b"{}").unwrap_err().kind(), ProblemKind::InvalidHeader);
    }

    /// API §2: "`Event-Type`, .. `Event-Key`, `Event-Header-<Name>`; values are percent-encoded UTF-8.
    /// On raw NDJSON, type, key and headers apply to every line".
    #[test]
    fn fields_say_the_rest() {
        let append = head(&[
            ("Host", "x"),
            ("CONTENT-TYPE", "application/x-ndjson"),
            ("event-type", "pr%C3%A9is"),
            ("Event-Key", "a%20b"),
            ("Event-Header-Trace-Id", "%E2%82%AC%0A"),
            ("Event-Header-X", ""),
        ])
        .unwrap();
        assert!(append.is_lines());
        let event = append.event(Topic::parse("t").unwrap(), Bytes::from_static(b"{}")).unwrap();
        assert_eq!(event.event_type.as_str(), "préis");
        assert_eq!(event.key.unwrap().as_str(), "a b");
        let headers: Vec<_> = event.headers.iter().map(|(n, v)| (&**n, &**v)).collect();
        assert_eq!(headers, [("trace-id", "€\n"), ("x", "")]);
        assert_eq!((&*event.content_type, event.form), ("", DataForm::Json));
        let bad = append.event(Topic::parse("t").unwrap(), Bytes::from_static(b"x")).unwrap_err();
        assert_eq!(bad.kind(), ProblemKind::InvalidJson);
    }

    #[test]
    fn fields_that_cannot_be_used_are_refused() {
        let kind = |fields: &[(&str, &str)]| head(fields).unwrap_err().kind();
        assert_eq!(kind(&[("Event-Type", "%ff")]), ProblemKind::InvalidHeader);
        assert_eq!(kind(&[("Event-Type", "100%")]), ProblemKind::InvalidHeader);
        assert_eq!(kind(&[("Event-Type", "a%0Ab")]), ProblemKind::InvalidName);
        assert_eq!(kind(&[("Event-Type", "")]), ProblemKind::InvalidName);
        assert_eq!(kind(&[("Event-Type", "a"), ("event-type", "a")]), ProblemKind::InvalidHeader);
        assert_eq!(kind(&[("Event-Key", "%20a")]), ProblemKind::InvalidName);
        assert_eq!(kind(&[("Event-Header-", "a")]), ProblemKind::InvalidHeader);
        let twice = [("Event-Header-A", "1"), ("event-header-a", "2")];
        assert_eq!(kind(&twice), ProblemKind::InvalidHeader);
        let long = "k".repeat(129);
        assert_eq!(kind(&[("Event-Key", &long)]), ProblemKind::InvalidName);
    }

    /// API §1: "Types `error`, `open`, `ping` and `connection.*` are reserved"; §9: 422.
    #[test]
    fn reserved_types_are_422() {
        for name in ["error", "open", "ping", "connection.reset"] {
            let problem = head(&[("Event-Type", name)]).unwrap_err();
            assert_eq!((problem.kind(), problem.status()), (ProblemKind::ReservedType, 422));
        }
    }

    /// API §2: "A request `Content-Encoding` is 415 until delivered."
    #[test]
    fn compressed_bodies_are_415() {
        assert_eq!(head(&[("Content-Encoding", "gzip")]).unwrap_err().status(), 415);
        assert!(head(&[("Content-Encoding", "identity")]).is_ok());
    }

    /// API §10: "`ce-*` headers and `application/cloudevents*` .., `Event-Ephemeral`".
    #[test]
    fn what_comes_later_is_501() {
        for name in ["ce-id", "CE-Type", "Event-Ephemeral"] {
            assert_eq!(head(&[(name, "x")]).unwrap_err().status(), 501, "{name}");
        }
        let cloud_event = [("Content-Type", "application/cloudevents+json; charset=UTF-8")];
        assert_eq!(head(&cloud_event).unwrap_err().status(), 501);
    }

    #[test]
    fn an_event_has_its_id_and_an_append_its_terms() {
        let append = head(&[("Idempotency-Key", "\"x\""), ("Expected-Offset", "7")]).unwrap();
        let event = append.event(Topic::parse("t").unwrap(), Bytes::new()).unwrap();
        assert_eq!(event.id.unwrap().as_str(), "x");
        assert_eq!(append.terms().unwrap().expected_offset, Some(7));
        let fields = [("Producer-Id", "p"), ("Producer-Epoch", "0"), ("Producer-Seq", "1")];
        let producer = head(&fields).unwrap().terms().unwrap().producer.clone().unwrap();
        assert_eq!((producer.seq, producer.scope), (1, OffsetScope::Topic));
    }

    /// API §2: "On raw NDJSON, .. an id is 400"; "`Expected-Offset: N`: .. 400 for streams".
    #[test]
    fn an_id_for_many_events_is_400() {
        for name in ["Event-Id", "Idempotency-Key", "Expected-Offset", "Producer-Seq"] {
            let fields = [(name, "1"), ("Content-Type", "application/x-ndjson")];
            let problem = head(&fields).unwrap_err();
            assert_eq!(problem.kind(), ProblemKind::InvalidHeader, "{name}");
        }
    }
}
