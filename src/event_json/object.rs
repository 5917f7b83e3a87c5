//! Event objects: what an event says of itself inside JSON.
//!
//! ```text
//! {"topic": string                  required, unless the request names one
//!  "data": any                      kept as its bytes stand; with a text/* content_type, a string's characters
//!  "data_base64": string            instead of data, for bytes; neither is empty data
//!  "content_type": string           default: application/json for data, application/octet-stream for
//!                                   data_base64, text/plain for none
//!  "type": string, "id": string, "key": string, "headers": {string: string}}
//! ```

use bytes::Bytes;
use serde_json::value::RawValue;
use strandline_storage::{
    event::{EventId, EventKey, EventKind, EventType, NewEvent},
    topic::Topic,
};

use super::{
    data::{Content, content_of},
    faults::{invalid, member, not_an_object, not_json, text_of, within},
    fields::name_problem,
    headers::{HeaderList, Headers},
    media_type::{MediaClass, MediaType},
    raw::stored,
};
use crate::{
    input::{not_yet, quoted},
    json::{
        check,
        members::{self, Members},
    },
    problem::{Problem, ProblemKind},
};

/// The most events of one array.
pub const ARRAY_EVENTS_MAX: usize = 10_000;

static NAMES: [&str; 8] =
    ["topic", "data", "data_base64", "content_type", "type", "id", "key", "headers"];

/// The events of a JSON body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedEvents {
    /// The events, at least one.
    pub events: Vec<NewEvent>,
    /// Whether the body was an array: its answer is the one for many.
    pub is_array: bool,
}

/// Parses one event object, or an array of them; all are refused when one is.
pub fn parse_events(body: &Bytes, default_topic: Option<&Topic>) -> Result<ParsedEvents, Problem> {
    let text = check::utf8(body).map_err(|error| not_json("the body", &error))?;
    if text.trim_start_matches([' ', '\t', '\r', '\n']).as_bytes().first() != Some(&b'[') {
        let event = parse_event(body, default_topic)?;
        return Ok(ParsedEvents { events: vec![event], is_array: false });
    }
    let mut events = Vec::new();
    Members::parse_array(text, &NAMES, |index, members| {
        if index == ARRAY_EVENTS_MAX {
            let detail = format!("an array has at most {ARRAY_EVENTS_MAX} events");
            return Err(Problem::new(ProblemKind::TooManyEvents, detail));
        }
        let event = event_of_members(&members, default_topic, body)
            .map_err(|problem| within(&format!("event {}", index + 1), &problem))?;
        events.push(event);
        Ok(())
    })
    .map_err(|error| not_an_object("the body", "an array of objects", text, &error))??;
    if events.is_empty() {
        return Err(Problem::new(ProblemKind::EmptyAppend, "the array has no events"));
    }
    Ok(ParsedEvents { events, is_array: true })
}

/// Parses one event object: a body, or a line of one. Its data is a slice of `text`.
pub fn parse_event(text: &Bytes, default_topic: Option<&Topic>) -> Result<NewEvent, Problem> {
    let object = check::utf8(text).map_err(|error| not_json("the event", &error))?;
    let members = Members::parse(object, &NAMES)
        .map_err(|error| not_an_object("the event", "a JSON object", object, &error))?;
    event_of_members(&members, default_topic, text)
}

fn event_of_members(
    members: &Members<'_, 8>,
    default_topic: Option<&Topic>,
    source: &Bytes,
) -> Result<NewEvent, Problem> {
    if let Some(fault) = members.fault() {
        return Err(Problem::new(ProblemKind::InvalidEvent, fault.to_owned()));
    }
    let fields = EventFields {
        topic: members.get("topic"),
        event_type: members.get("type"),
        type_name: "type",
        id: members.get("id"),
        id_name: "id",
        key: members.get("key"),
        headers: members.get("headers"),
        content_type: members.get("content_type"),
        data: members.get("data"),
        data_base64: members.get("data_base64"),
    };
    new_event(&fields, default_topic, source)
}

/// The members that make an event, wherever they stand.
#[derive(Debug, Clone, Copy)]
pub struct EventFields<'a> {
    /// `topic`
    pub topic: Option<&'a RawValue>,
    /// `type`, or `event` in a WebSocket message.
    pub event_type: Option<&'a RawValue>,
    /// Which of the two it is called.
    pub type_name: &'static str,
    /// `id`, or `event_id` in a WebSocket message.
    pub id: Option<&'a RawValue>,
    /// Which of the two it is called.
    pub id_name: &'static str,
    /// `key`
    pub key: Option<&'a RawValue>,
    /// `headers`
    pub headers: Option<&'a RawValue>,
    /// `content_type`
    pub content_type: Option<&'a RawValue>,
    /// `data`
    pub data: Option<&'a RawValue>,
    /// `data_base64`
    pub data_base64: Option<&'a RawValue>,
}

/// Makes an event of its members, which are slices of `source`.
pub fn new_event(
    fields: &EventFields<'_>,
    default_topic: Option<&Topic>,
    source: &Bytes,
) -> Result<NewEvent, Problem> {
    let topic = match fields.topic {
        Some(value) => {
            let name = text_of("topic", value)?;
            Topic::parse(&name).map_err(|error| {
                let detail = format!("member \"topic\": {} {error}", quoted(&name));
                Problem::new(ProblemKind::InvalidTopic, detail)
            })?
        }
        None => default_topic.cloned().ok_or_else(|| {
            invalid("member \"topic\" is missing, and no `?topic=` stands for it")
        })?,
    };
    let event_type = match fields.event_type {
        Some(value) => {
            let name = text_of(fields.type_name, value)?;
            EventType::parse(&name)
                .map_err(|error| name_problem(&member(fields.type_name), &name, &error))?
        }
        None => EventType::message(),
    };
    let id = match fields.id {
        Some(value) => {
            let name = text_of(fields.id_name, value)?;
            let id = EventId::parse(&name);
            Some(id.map_err(|error| name_problem(&member(fields.id_name), &name, &error))?)
        }
        None => None,
    };
    let key = match fields.key {
        Some(value) => {
            let name = text_of("key", value)?;
            let key = EventKey::parse(&name);
            Some(key.map_err(|error| name_problem(&member("key"), &name, &error))?)
        }
        None => None,
    };
    let headers = fields.headers.map(headers_of).transpose()?.unwrap_or_default();
    let content_type =
        fields.content_type.map(|value| text_of("content_type", value)).transpose()?;
    let media = content_type
        .as_deref()
        .map(MediaType::parse)
        .transpose()
        .map_err(|what| invalid(&format!("member \"content_type\": {what}")))?;
    // Reserved wherever an event's type is given: else the same event would be one thing here, and
    // another one day as a request of its own.
    if let Some(MediaType { class: MediaClass::CloudEvents, stored }) = media {
        return Err(not_yet(&format!("the content type {}", quoted(stored))));
    }
    let Content { content_type, form, data } =
        content_of(fields.data, fields.data_base64, media.as_ref(), source)?;
    let kind = EventKind::Data;
    Ok(NewEvent {
        topic,
        event_type,
        id,
        key,
        headers,
        content_type: stored(content_type),
        form,
        kind,
        data,
    })
}

fn headers_of(value: &RawValue) -> Result<HeaderList, Problem> {
    let mut headers = Headers::default();
    let end = members::for_each_member(value, |name, value| {
        let text = members::string(value)
            .ok_or_else(|| format!("header {} is not a string", quoted(name)))?;
        headers.push(name, &text)
    });
    match end {
        Some(Ok(())) => Ok(headers.finish()),
        Some(Err(what)) => Err(invalid(&format!("member \"headers\": {what}"))),
        None => Err(invalid("member \"headers\" is not an object of strings")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use strandline_storage::event::DataForm;

    use super::*;

    fn parse(text: &str) -> Result<NewEvent, Problem> {
        parse_event(&Bytes::copy_from_slice(text.as_bytes()), None)
    }

    fn refused(text: &str) -> (ProblemKind, String) {
        let problem = parse(text).expect_err(text);
        (problem.kind(), problem.detail().to_owned())
    }

    fn array(text: &str) -> Result<ParsedEvents, Problem> {
        parse_events(&Bytes::copy_from_slice(text.as_bytes()), None)
    }

    /// API §2, "Event object".
    #[test]
    fn everything_that_an_event_can_say() {
        let event = parse(
            r#" {"topic":"a/b","data":{"x": 1.50,"y":[ ]},"content_type":"application/ld+json",
                "type":"tr\u0061de","id":"i","key":"k","headers":{"Trace-Id":"1","b":"\n"}} "#,
        )
        .unwrap();
        assert_eq!(event.topic.as_str(), "a/b");
        assert_eq!(event.data, r#"{"x": 1.50,"y":[ ]}"#, "kept as its bytes stand");
        assert_eq!(&*event.content_type, "application/ld+json");
        assert_eq!(event.event_type.as_str(), "trade");
        assert_eq!(event.id.unwrap().as_str(), "i");
        assert_eq!(event.key.unwrap().as_str(), "k");
        let headers: Vec<_> = event.headers.iter().map(|(n, v)| (&**n, &**v)).collect();
        assert_eq!(headers, [("b", "\n"), ("trace-id", "1")]);
        assert_eq!(event.form, DataForm::Json);

        let event = parse(r#"{"topic":"a","data":null}"#).unwrap();
        assert_eq!(
            (&*event.content_type, event.form, &event.data[..]),
            ("", DataForm::Json, &b"null"[..])
        );
        assert!(event.event_type.is_message());
    }

    /// API §2: "`data` .. (with a `text/*` `content_type`, a string's characters) or `data_base64`,
    /// not both, neither is empty data".
    #[test]
    fn data_in_all_its_forms() {
        let kept = |text: &str| {
            let event = parse(text).unwrap();
            (event.content_type.into_owned(), event.form, event.data)
        };
        let is = |content_type: &str, form, data: &'static [u8]| {
            (content_type.to_owned(), form, Bytes::from_static(data))
        };
        for (members, wanted) in [
            (
                r#""data":"a\n€","content_type":"text/plain""#,
                is("text/plain", DataForm::Text, "a\n€".as_bytes()),
            ),
            (r#""data":"a\n""#, is("", DataForm::Json, br#""a\n""#)),
            (r#""data":"\ud800""#, is("", DataForm::Json, br#""\ud800""#)),
            (r#""data":"<p>","content_type":"text/html""#, is("text/html", DataForm::Text, b"<p>")),
            (r#""data":[1],"content_type":"image/x""#, is("image/x", DataForm::Binary, b"[1]")),
            (
                r#""data_base64":"/wA=""#,
                is("application/octet-stream", DataForm::Binary, b"\xff\x00"),
            ),
            (
                r#""data_base64":"YQ==","content_type":"text/plain""#,
                is("text/plain", DataForm::Text, b"a"),
            ),
            (
                r#""data_base64":"/w==","content_type":"text/plain""#,
                is("text/plain", DataForm::Binary, b"\xff"),
            ),
            (
                r#""data_base64":"W10=","content_type":"application/json""#,
                is("", DataForm::Json, b"[]"),
            ),
            (r#""data_base64":"""#, is("application/octet-stream", DataForm::Binary, b"")),
            (r#""key":"k""#, is("text/plain", DataForm::Text, b"")),
            (r#""content_type":"image/png""#, is("image/png", DataForm::Binary, b"")),
        ] {
            assert_eq!(kept(&format!("{{\"topic\":\"a\",{members}}}")), wanted, "{members}");
        }
        for (members, kind) in [
            (r#""data":1,"data_base64":"YQ==""#, ProblemKind::InvalidEvent),
            (r#""data_base64":"YQ""#, ProblemKind::InvalidEvent),
            (r#""data_base64":"Y Q==""#, ProblemKind::InvalidEvent),
            (r#""data_base64":"_w==""#, ProblemKind::InvalidEvent),
            (r#""data_base64":5"#, ProblemKind::InvalidEvent),
            (r#""data_base64":"e30h","content_type":"application/json""#, ProblemKind::InvalidJson),
            (r#""content_type":"application/json""#, ProblemKind::InvalidJson),
            (r#""data":1,"content_type":"text/plain""#, ProblemKind::InvalidEvent),
            (r#""data":"\ud800","content_type":"text/plain""#, ProblemKind::InvalidEvent),
            (r#""data":1,"content_type":"""#, ProblemKind::InvalidEvent),
            (r#""data":1,"content_type":null"#, ProblemKind::InvalidEvent),
            (r#""data":{},"content_type":"application/cloudevents+json""#, ProblemKind::NotYet),
        ] {
            assert_eq!(refused(&format!("{{\"topic\":\"a\",{members}}}")).0, kind, "{members}");
        }
    }

    /// API: "unknown JSON members of a *request* are refused by name"; §2: "A repeated member is 400."
    #[test]
    fn members_are_strict() {
        let (kind, detail) = refused(r#"{"topic":"a","datta":1}"#);
        assert_eq!((kind, &*detail), (ProblemKind::InvalidEvent, "unknown member \"datta\""));
        let (_, detail) = refused(r#"{"topic":"a","data":1,"data":1}"#);
        assert_eq!(detail, "member \"data\" is given twice");
        for text in [
            r#"{"data":1}"#,
            r#"{"topic":1}"#,
            r#"{"topic":null}"#,
            r#"{"topic":"a","key":null}"#,
            r#"{"topic":"a","headers":[]}"#,
            r#"{"topic":"a","headers":{"a":1}}"#,
            r#"{"topic":"a","headers":{"a":"1","A":"2"}}"#,
            r#"{"topic":"a","headers":{"a b":"1"}}"#,
            r#"{"topic":"a","headers":{"":"1"}}"#,
            "1",
            "\"a\"",
            "null",
        ] {
            assert_eq!(refused(text).0, ProblemKind::InvalidEvent, "{text}");
        }
        for topic in ["", "a//b", "/a", "a/", "a/../b", "$sys/a", "a/$b", "a/*", "a\\u0000"] {
            let text = format!("{{\"topic\":\"{topic}\"}}");
            assert_eq!(refused(&text).0, ProblemKind::InvalidTopic, "{text}");
        }
        assert_eq!(refused(r#"{"topic":"a","key":""}"#).0, ProblemKind::InvalidName);
        assert_eq!(refused(r#"{"topic":"a","type":"a\nb"}"#).0, ProblemKind::InvalidName);
        assert_eq!(refused(r#"{"topic":"a","type":"ping"}"#).0, ProblemKind::ReservedType);
        assert_eq!(refused(r#"{"topic":"a","id":""}"#).0, ProblemKind::InvalidName);
        assert_eq!(refused(r#"{"topic":"a","id":1}"#).0, ProblemKind::InvalidEvent);
        for text in
            ["", "{", "{\"topic\":\"a\"} x", "{\"topic\":\"a\",}", "\u{feff}{\"topic\":\"a\"}"]
        {
            assert_eq!(refused(text).0, ProblemKind::InvalidJson, "{text:?}");
        }
        let problem = parse_event(&Bytes::from_static(b"{\"topic\":\"\xff\"}"), None).unwrap_err();
        assert_eq!(problem.kind(), ProblemKind::InvalidJson);
    }

    #[test]
    fn depth_is_that_of_the_data() {
        let event = |depth: usize| {
            parse(&format!(
                "{{\"topic\":\"a\",\"data\":{}{}}}",
                "[".repeat(depth),
                "]".repeat(depth)
            ))
        };
        assert!(event(64).is_ok());
        assert_eq!(event(65).unwrap_err().kind(), ProblemKind::InvalidJson);
        assert!(event(100_000).is_err());
    }

    /// API §2: "`topic` (required unless `?topic=`)".
    #[test]
    fn the_query_can_name_the_topic() {
        let topic = Topic::parse("q").unwrap();
        let parse =
            |text: &'static str| parse_event(&Bytes::from_static(text.as_bytes()), Some(&topic));
        assert_eq!(parse("{}").unwrap().topic.as_str(), "q");
        assert_eq!(parse(r#"{"topic":"a"}"#).unwrap().topic.as_str(), "a");
    }

    /// API §2: "an array is appended whole or not at all; `[]` is 400"; "An array has at most 10,000
    /// events (413)."
    #[test]
    fn arrays() {
        let events = array(r#" [{"topic":"a","data":1}, {"topic":"b","data":{"c":2}}] "#).unwrap();
        assert!(events.is_array);
        let data: Vec<_> = events.events.iter().map(|event| &event.data[..]).collect();
        assert_eq!(data, [&b"1"[..], b"{\"c\":2}"]);
        assert!(!array(r#"{"topic":"a"}"#).unwrap().is_array);

        assert_eq!(array("[]").unwrap_err().kind(), ProblemKind::EmptyAppend);
        let problem = array(r#"[{"topic":"a"},{"topic":""}]"#).unwrap_err();
        assert_eq!(problem.kind(), ProblemKind::InvalidTopic);
        assert!(problem.detail().starts_with("event 2: "), "{problem}");
        assert_eq!(array("[{\"topic\":\"a\"},1]").unwrap_err().kind(), ProblemKind::InvalidEvent);
        for text in ["[{\"topic\":\"a\"},]", "[{\"topic\":\"a\"}", "[[]]", "[{}] {}"] {
            assert!(array(text).is_err(), "{text}");
        }

        let many = |count: usize| format!("[{}]", vec!["{\"topic\":\"a\"}"; count].join(","));
        assert_eq!(array(&many(10_000)).unwrap().events.len(), 10_000);
        let problem = array(&many(10_001)).unwrap_err();
        assert_eq!((problem.kind(), problem.status()), (ProblemKind::TooManyEvents, 413));
    }

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused(text in "[\\[\\]{}:,\"a0 ]{0,30}") {
            let _ = array(&text);
        }

        #[test]
        fn data_is_kept_as_its_bytes_stand(data in prop::sample::select(vec![
            "0", "-1.50e+3", "\"a\\u0062\"", "[ 1 ,\n2]", "{\"b\":1,\"a\":{ }}", "true", "\"é\"",
        ]), spaces in "[ \n\t\r]{0,4}") {
            let event = parse(&format!("{{{spaces}\"topic\":\"a\",\"data\":{spaces}{data}{spaces}}}"));
            prop_assert_eq!(event.unwrap().data, data);
        }
    }
}
