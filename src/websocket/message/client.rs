//! Messages from clients.

mod subscribe;

use bytes::Bytes;
use serde_json::value::RawValue;
use strandline_storage::append::{Append, ExpectedOffset, OffsetScope};

pub use subscribe::Subscribe;
use subscribe::subscribe;

use crate::{
    event_json::{self, EventFields},
    input::quoted,
    json::{
        check,
        members::{self, Members},
    },
    problem::{Problem, ProblemKind},
    stream::cursor::parse_offset,
};

static NAMES: [&str; 19] = [
    "type",
    "id",
    "topics",
    "types",
    "from",
    "last_event_id",
    "log",
    "filter",
    "where",
    "subscription",
    "topic",
    "event",
    "data",
    "data_base64",
    "event_id",
    "key",
    "headers",
    "content_type",
    "expected_offset",
];

type MessageMembers<'a> = Members<'a, 19>;

/// A message from a client.
#[derive(Debug, Clone, PartialEq)]
pub enum ClientMessage {
    /// Opens a subscription.
    Subscribe(Subscribe),
    /// Ends one.
    Unsubscribe {
        /// What the answer is called.
        id: Option<MessageId>,
        /// Which.
        subscription: u32,
    },
    /// Appends an event.
    Publish {
        /// What the answer is called; without one there is none, but for errors.
        id: Option<MessageId>,
        /// One event, and the offset that it builds on.
        append: Box<Append>,
    },
    /// Asks for a `pong`.
    Ping {
        /// What the answer is called.
        id: Option<MessageId>,
    },
}

/// The `id` of a message, as its bytes came: a JSON number or string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageId(Box<str>);

impl MessageId {
    /// The longest id: a number as it stands, a string without its quotes and escapes. As its bytes
    /// came a string may be six times as long, and two quotes.
    pub const BYTES_MAX: usize = 128;

    fn of(value: &RawValue) -> Option<MessageId> {
        let text = value.get();
        let bytes = match text.as_bytes().first() {
            // Half a surrogate pair has no UTF-8: then its escapes are counted as they stand.
            Some(b'"') => {
                members::string(value).map_or(text.len() - "\"\"".len(), |string| string.len())
            }
            Some(b'-' | b'0'..=b'9') => text.len(),
            _ => return None,
        };
        (bytes <= MessageId::BYTES_MAX).then(|| MessageId(text.into()))
    }

    /// The JSON text.
    pub fn as_json(&self) -> &str {
        &self.0
    }
}

/// A message that cannot be followed; the connection stays.
#[derive(Debug, Clone, PartialEq)]
pub struct MessageError {
    /// The message's `id`, if it could be read.
    pub id: Option<MessageId>,
    /// Why.
    pub problem: Problem,
}

/// Parses a message. The data of a `publish` is a slice of `text`.
pub fn parse(text: &Bytes) -> Result<ClientMessage, MessageError> {
    let object = match check::utf8(text) {
        Ok(object) => object,
        Err(_) => return Err(MessageError { id: None, problem: bad_format() }),
    };
    let members = match Members::parse(object, &NAMES) {
        Ok(members) => members,
        Err(_) => {
            let problem = match check::check(text) {
                Ok(_) => invalid("a message is a JSON object"),
                Err(_) => bad_format(),
            };
            return Err(MessageError { id: None, problem });
        }
    };
    let id = members.get("id").and_then(MessageId::of);
    message(&members, id.clone(), text).map_err(|problem| MessageError { id, problem })
}

fn message(
    members: &MessageMembers<'_>,
    id: Option<MessageId>,
    text: &Bytes,
) -> Result<ClientMessage, Problem> {
    if let Some(fault) = members.fault() {
        return Err(invalid(fault));
    }
    if members.get("id").is_some() && id.is_none() {
        let bytes_max = MessageId::BYTES_MAX;
        let detail =
            format!("member \"id\" is not a number or string of at most {bytes_max} bytes");
        return Err(invalid(&detail));
    }
    let message_type = members.get("type").ok_or_else(|| invalid("member \"type\" is missing"))?;
    match text_of("type", message_type)?.as_str() {
        "subscribe" => {
            let taken = ["topics", "types", "from", "last_event_id", "log", "filter", "where"];
            only(members, &taken)?;
            Ok(ClientMessage::Subscribe(subscribe(members, id)?))
        }
        "unsubscribe" => {
            only(members, &["subscription"])?;
            let value = members.get("subscription");
            let number = value.and_then(|value| value.get().parse().ok()).filter(|n| *n > 0);
            let subscription = number
                .ok_or_else(|| invalid("member \"subscription\" is not the number of one"))?;
            Ok(ClientMessage::Unsubscribe { id, subscription })
        }
        "publish" => {
            let taken = [
                "topic",
                "event",
                "data",
                "data_base64",
                "event_id",
                "key",
                "headers",
                "content_type",
                "expected_offset",
            ];
            only(members, &taken)?;
            let append = Box::new(publish(members, text)?);
            Ok(ClientMessage::Publish { id, append })
        }
        "ping" => {
            only(members, &[])?;
            Ok(ClientMessage::Ping { id })
        }
        other => Err(invalid(&format!(
            "unknown type {}: it is subscribe, unsubscribe, publish or ping",
            quoted(other)
        ))),
    }
}

fn publish(members: &MessageMembers<'_>, text: &Bytes) -> Result<Append, Problem> {
    let topic = members.get("topic");
    if topic.is_none() {
        return Err(Problem::new(ProblemKind::InvalidEvent, "member \"topic\" is missing"));
    }
    let expected = match members.get("expected_offset") {
        Some(value) => {
            let offset = parse_offset(value.get())
                .ok_or_else(|| invalid("member \"expected_offset\" is not an offset"))?;
            Some(ExpectedOffset { offset: offset.get(), scope: OffsetScope::Topic })
        }
        None => None,
    };
    let fields = EventFields {
        topic,
        event_type: members.get("event"),
        type_name: "event",
        id: members.get("event_id"),
        id_name: "event_id",
        key: members.get("key"),
        headers: members.get("headers"),
        content_type: members.get("content_type"),
        data: members.get("data"),
        data_base64: members.get("data_base64"),
    };
    let event = event_json::new_event(&fields, None, text)?;
    Ok(Append { events: vec![event], expected, producer: None })
}

/// Refuses members that belong to another type of message.
fn only(members: &MessageMembers<'_>, taken: &[&str]) -> Result<(), Problem> {
    let mut all = vec!["type", "id"];
    all.extend_from_slice(taken);
    match members.first_outside(&all) {
        None => Ok(()),
        Some(name) => Err(invalid(&format!("member \"{name}\" does not belong to this type"))),
    }
}

fn text_of(name: &str, value: &RawValue) -> Result<String, Problem> {
    let text = members::string(value);
    let text = text.ok_or_else(|| invalid(&format!("member \"{name}\" is not a string")))?;
    Ok(text.into_owned())
}

fn invalid(detail: &str) -> Problem {
    Problem::new(ProblemKind::InvalidMessage, detail.to_owned())
}

/// What is said to everything that is not JSON: the contract has these words.
fn bad_format() -> Problem {
    invalid("Invalid message format")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use strandline_storage::event::DataForm;

    use super::*;

    pub(super) fn ok(text: &str) -> ClientMessage {
        parse(&Bytes::copy_from_slice(text.as_bytes())).expect(text)
    }

    pub(super) fn refused(text: &str) -> (Option<String>, ProblemKind, String) {
        let error = parse(&Bytes::copy_from_slice(text.as_bytes())).expect_err(text);
        let id = error.id.map(|id| id.as_json().to_owned());
        (id, error.problem.kind(), error.problem.detail().to_owned())
    }

    /// API §5: `{"type":"publish","id":8,"topic":"a/b","event":"trade","data":{},..,"key":"..",
    /// "headers":{},"content_type":".."}`.
    #[test]
    fn publish_messages() {
        let text = Bytes::from_static(
            br#"{"type":"publish","id":"p-8","topic":"a/b","event":"trade","data":{"x": 1},"key":"k","headers":{"H":"v"},"content_type":"application/ld+json"}"#,
        );
        let Ok(ClientMessage::Publish { id, append }) = parse(&text) else {
            panic!("not a publish")
        };
        let event = &append.events[0];
        assert_eq!((append.events.len(), append.expected), (1, None));
        assert_eq!(id.unwrap().as_json(), "\"p-8\"", "as its bytes came");
        assert_eq!((event.topic.as_str(), event.event_type.as_str()), ("a/b", "trade"));
        assert_eq!((&event.data[..], event.form), (&br#"{"x": 1}"#[..], DataForm::Json));
        let place = text.windows(8).position(|bytes| bytes == br#"{"x": 1}"#).unwrap();
        assert_eq!(event.data.as_ptr(), text[place..].as_ptr(), "a slice of the message");

        for (members, kind) in [
            (r#""data":1"#, ProblemKind::InvalidEvent),
            (r#""topic":"a//b""#, ProblemKind::InvalidTopic),
            (r#""topic":"$a""#, ProblemKind::InvalidTopic),
            (r#""topic":"a","event":"ping""#, ProblemKind::ReservedType),
            (r#""topic":"a","event_id":"""#, ProblemKind::InvalidName),
            (r#""topic":"a","event_id":1"#, ProblemKind::InvalidEvent),
            (r#""topic":"a","expected_offset":-1"#, ProblemKind::InvalidMessage),
            (r#""topic":"a","expected_offset":"1""#, ProblemKind::InvalidMessage),
            (r#""topic":"a","expected_offset":1.0"#, ProblemKind::InvalidMessage),
            (r#""topic":"a","colour":1"#, ProblemKind::InvalidMessage),
            (r#""topic":"a","log":"main""#, ProblemKind::InvalidMessage),
            (r#""topic":"a","data":1,"data_base64":"""#, ProblemKind::InvalidEvent),
        ] {
            let (id, got, _) = refused(&format!(r#"{{{members},"type":"publish","id":1}}"#));
            assert_eq!((id.as_deref(), got), (Some("1"), kind), "{members}");
        }
    }

    /// API §5: `"event_id":".."`, `"expected_offset":5`.
    #[test]
    fn a_publish_may_happen_once_and_on_a_condition() {
        let text = r#"{"type":"publish","topic":"a","event_id":"x","expected_offset":5}"#;
        let ClientMessage::Publish { append, .. } = ok(text) else { panic!("not a publish") };
        assert_eq!(append.events[0].id.as_ref().unwrap().as_str(), "x");
        let expected = ExpectedOffset { offset: 5, scope: OffsetScope::Topic };
        assert_eq!(append.expected, Some(expected));
    }

    /// API §5: `{"type":"unsubscribe","id":9,"subscription":2}`, `{"type":"ping"}`.
    #[test]
    fn unsubscribe_and_ping() {
        let id = |text: &str| Some(MessageId(text.into()));
        assert_eq!(
            ok(r#"{"type":"unsubscribe","id":9,"subscription":2}"#),
            ClientMessage::Unsubscribe { id: id("9"), subscription: 2 }
        );
        assert_eq!(ok(r#"{"type":"ping"}"#), ClientMessage::Ping { id: None });
        assert_eq!(
            ok(r#"{"ty\u0070e":"ping","id":-1.5e3}"#),
            ClientMessage::Ping { id: id("-1.5e3") }
        );
        for subscription in ["0", "-1", "1.0", "\"1\"", "4294967296", "null"] {
            let text = format!(r#"{{"type":"unsubscribe","subscription":{subscription}}}"#);
            assert_eq!(refused(&text).1, ProblemKind::InvalidMessage, "{text}");
        }
        assert_eq!(refused(r#"{"type":"unsubscribe"}"#).1, ProblemKind::InvalidMessage);
    }

    /// API §5: "An error in one message answers that message (`id` if it had one; not JSON: `Invalid
    /// message format`)".
    #[test]
    fn what_is_not_a_message() {
        for text in ["", "{", "nul", "{\"type\":\"ping\"", "{\"type\":\"ping\"} x", "\u{feff}{}"] {
            let (id, kind, detail) = refused(text);
            assert_eq!((id, kind), (None, ProblemKind::InvalidMessage), "{text}");
            assert_eq!(detail, "Invalid message format", "{text}");
        }
        assert_eq!(
            parse(&Bytes::from_static(b"\xff")).unwrap_err().problem.detail(),
            "Invalid message format"
        );
        for text in ["[]", "5", "null", "{}", "{\"type\":1}", "{\"type\":\"dance\"}"] {
            let (id, kind, detail) = refused(text);
            assert_eq!((id, kind), (None, ProblemKind::InvalidMessage), "{text}");
            assert_ne!(detail, "Invalid message format", "{text}");
        }
        let (id, _, detail) = refused(r#"{"colour":1,"type":"ping","id":"x"}"#);
        assert_eq!((id.as_deref(), &*detail), (Some("\"x\""), "unknown member \"colour\""));
        let (_, _, detail) = refused(r#"{"type":"ping","type":"ping"}"#);
        assert_eq!(detail, "member \"type\" is given twice");
    }

    #[test]
    fn ids_are_scalars_of_bounded_length() {
        let (long_text, long_number) = (format!("\"{}\"", "x".repeat(129)), "1".repeat(129));
        for id in ["null", "true", "{}", "[1]", &long_text, &long_number] {
            let (got, kind, _) = refused(&format!(r#"{{"type":"ping","id":{id}}}"#));
            assert_eq!((got, kind), (None, ProblemKind::InvalidMessage), "{id}");
        }
        let escaped = "\\u0078".repeat(128);
        for id in ["x".repeat(128), escaped, "\\ud800".repeat(21)].map(|id| format!("\"{id}\"")) {
            let text = format!(r#"{{"type":"ping","id":{id}}}"#);
            let wanted = ClientMessage::Ping { id: Some(MessageId(id.into())) };
            assert_eq!(ok(&text), wanted, "128 bytes, quotes and escapes not counted");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused(text in "[\\[\\]{}:,\"a0 ]{0,30}") {
            let _ = parse(&Bytes::from(text));
        }
    }
}
