//! `subscribe`: which events a client wants, and from where on.

use serde_json::value::RawValue;
use strandline_storage::{event::EventType, topic::TopicPattern};

use super::{MessageId, MessageMembers, invalid, text_of};
use crate::{
    http::query::CHOICES_MAX,
    input::{LogName, quoted},
    json::members,
    problem::{Problem, ProblemKind},
    stream::{
        cursor::{Cursor, GivenCursor, StartFrom},
        filter::{self, Filter},
    },
};

/// What a subscription is about.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscribe {
    /// What the answer is called.
    pub id: Option<MessageId>,
    /// The log; that of the connection if absent.
    pub log: Option<LogName>,
    /// Events of any of these, 1 to 64; `**` if none was given.
    pub topics: Vec<TopicPattern>,
    /// Events of any of these types; all types if empty.
    pub types: Vec<EventType>,
    /// Events that this matches; all if absent.
    pub filter: Option<Filter>,
    /// Where to begin without a cursor; `latest` if absent.
    pub from: Option<StartFrom>,
    /// What to resume from.
    pub cursor: GivenCursor,
}

pub(super) fn subscribe(
    members: &MessageMembers<'_>,
    id: Option<MessageId>,
) -> Result<Subscribe, Problem> {
    let log = match members.get("log") {
        Some(value) => Some(LogName::parse(&text_of("log", value)?)?),
        None => None,
    };
    let topics = choices(members, "topics", |name| {
        TopicPattern::parse(name).map_err(|error| {
            let detail = format!("pattern {} {error}", quoted(name));
            Problem::new(ProblemKind::InvalidPattern, detail)
        })
    })?;
    let types = choices(members, "types", |name| {
        EventType::parse(name).map_err(|error| {
            let detail = format!("type {} {error}", quoted(name));
            Problem::new((&error).into(), detail)
        })
    })?;
    let filter = filter(members)?;
    let from =
        match members.get("from") {
            Some(value) => {
                let text = text_or_number("from", value)?;
                Some(StartFrom::parse(&text).map_err(|what| {
                    invalid(&format!("member \"from\": {} {what}", quoted(&text)))
                })?)
            }
            None => None,
        };
    let cursor = match members.get("last_event_id") {
        Some(value) => {
            let text = text_or_number("last_event_id", value)?;
            match (text.as_str(), Cursor::parse(&text)) {
                ("", _) => GivenCursor::None,
                (_, Ok(cursor)) => GivenCursor::Cursor(cursor),
                (_, Err(_)) => {
                    let detail =
                        format!("member \"last_event_id\": {} is not a cursor", quoted(&text));
                    return Err(Problem::new(ProblemKind::InvalidCursor, detail));
                }
            }
        }
        None => GivenCursor::None,
    };
    let topics = topics.unwrap_or_else(|| vec![TopicPattern::all()]);
    Ok(Subscribe { id, log, topics, types: types.unwrap_or_default(), filter, from, cursor })
}

/// What `filter`, an object, and `where`, a text, say together.
fn filter(members: &MessageMembers<'_>) -> Result<Option<Filter>, Problem> {
    let mut conditions = Vec::new();
    if let Some(value) = members.get("filter") {
        let condition = filter::parse_json(value.get());
        conditions.push(condition.map_err(|error| error.problem("member \"filter\""))?);
    }
    if let Some(value) = members.get("where") {
        let condition = filter::parse_text(&text_of("where", value)?);
        conditions.push(condition.map_err(|error| error.problem("member \"where\""))?);
    }
    Filter::new(conditions).map_err(|error| error.problem("members \"filter\" and \"where\""))
}

/// The texts of an array member, parsed; `None` if it is absent.
fn choices<T>(
    members: &MessageMembers<'_>,
    name: &str,
    parse: impl Fn(&str) -> Result<T, Problem>,
) -> Result<Option<Vec<T>>, Problem> {
    let Some(value) = members.get(name) else { return Ok(None) };
    let wanted =
        || invalid(&format!("member \"{name}\" is not an array of 1 to {CHOICES_MAX} strings"));
    let elements = members::elements(value).ok_or_else(wanted)?;
    if elements.is_empty() || elements.len() > CHOICES_MAX {
        return Err(wanted());
    }
    let parsed = elements.into_iter().map(|element| {
        let text = members::string(element).ok_or_else(wanted)?;
        parse(&text)
    });
    parsed.collect::<Result<_, _>>().map(Some)
}

/// A string, or a whole number as if it were quoted.
fn text_or_number(name: &str, value: &RawValue) -> Result<String, Problem> {
    let digits = value.get().strip_prefix('-').unwrap_or(value.get());
    match digits.bytes().all(|byte| byte.is_ascii_digit()) {
        true => Ok(value.get().to_owned()),
        false => text_of(name, value),
    }
}

#[cfg(test)]
mod tests {
    use strandline_storage::offset::Offset;

    use super::super::{
        ClientMessage,
        tests::{ok, refused},
    };
    use super::*;

    fn subscribe(text: &str) -> Subscribe {
        match ok(text) {
            ClientMessage::Subscribe(subscribe) => subscribe,
            other => panic!("{other:?}"),
        }
    }

    /// API §5: `{"type":"subscribe","id":7,"topics":["a/*"],"types":["trade"],"from":"earliest",
    /// "last_event_id":"41.k3f9q",..,"log":"main"}`.
    #[test]
    fn subscribe_messages() {
        let message = subscribe(
            r#"{"type":"subscribe","id":7,"topics":["a/*"],"types":["trade"],"from":"earliest",
                "last_event_id":"41.k3f9q","log":"main"}"#,
        );
        assert_eq!(message.id.unwrap().as_json(), "7");
        assert_eq!(message.log, Some(LogName::default()));
        assert_eq!(message.topics, [TopicPattern::parse("a/*").unwrap()]);
        assert_eq!(message.types, [EventType::parse("trade").unwrap()]);
        assert_eq!(message.from, Some(StartFrom::Earliest));
        assert_eq!(message.cursor, GivenCursor::Cursor(Cursor::parse("41.k3f9q").unwrap()));

        let bare = subscribe(r#"{"type":"subscribe"}"#);
        assert_eq!(bare.topics, [TopicPattern::all()]);
        assert_eq!(
            (bare.id, bare.log, bare.from, bare.cursor),
            (None, None, None, GivenCursor::None)
        );

        let from = |from: &str| subscribe(&format!(r#"{{"type":"subscribe","from":{from}}}"#)).from;
        assert_eq!(from("42"), Some(StartFrom::Offset(Offset::new(42))));
        assert_eq!(from("\"42\""), Some(StartFrom::Offset(Offset::new(42))));
        assert_eq!(from("-5"), Some(StartFrom::Last(5)));
        let cursor =
            |id: &str| subscribe(&format!(r#"{{"type":"subscribe","last_event_id":{id}}}"#)).cursor;
        assert_eq!(cursor("\"\""), GivenCursor::None, "empty is absent");
        assert_eq!(cursor("41"), GivenCursor::Cursor(Cursor::parse("41").unwrap()));
    }

    /// API §4: "`filter`, `where`: both given: both must hold"; API §6: "An error names the place."
    #[test]
    fn subscribe_messages_with_filters() {
        let filter =
            |members: &str| subscribe(&format!(r#"{{"type":"subscribe",{members}}}"#)).filter;
        let text = filter(r#""where":"data.price > 100 and type == \"trade\"""#);
        let both =
            r#""where":"type == \"trade\"","filter":{"field":"data.price","op":"gt","value":1e2}"#;
        assert!(text.is_some());
        assert_eq!(filter(both), text);
        assert_eq!(filter(r#""filter":{}"#), None);
        let (_, _, detail) = refused(r#"{"type":"subscribe","where":"data.a = 1"}"#);
        assert_eq!(detail, "member \"where\": column 8: write == for =");
    }

    #[test]
    fn subscribe_messages_that_are_refused() {
        let many = format!(r#""topics":[{}]"#, vec!["\"a\""; 65].join(","));
        for (members, kind) in [
            (r#""topics":"a""#, ProblemKind::InvalidMessage),
            (r#""topics":[]"#, ProblemKind::InvalidMessage),
            (r#""topics":[1]"#, ProblemKind::InvalidMessage),
            (&many, ProblemKind::InvalidMessage),
            (r#""topics":["a//b"]"#, ProblemKind::InvalidPattern),
            (r#""types":[]"#, ProblemKind::InvalidMessage),
            (r#""types":["error"]"#, ProblemKind::ReservedType),
            (r#""types":["a",""]"#, ProblemKind::InvalidName),
            (r#""from":"x""#, ProblemKind::InvalidMessage),
            (r#""from":1.5"#, ProblemKind::InvalidMessage),
            (r#""from":1e3"#, ProblemKind::InvalidMessage),
            (r#""from":18446744073709551616"#, ProblemKind::InvalidMessage),
            (r#""from":null"#, ProblemKind::InvalidMessage),
            (r#""last_event_id":"?""#, ProblemKind::InvalidCursor),
            (r#""last_event_id":41.5"#, ProblemKind::InvalidMessage),
            (r#""log":"A""#, ProblemKind::InvalidName),
            (r#""filter":"{}""#, ProblemKind::InvalidFilter),
            (r#""filter":{"all":1}"#, ProblemKind::InvalidFilter),
            (r#""where":"data.a = 1""#, ProblemKind::InvalidFilter),
            (r#""where":{}"#, ProblemKind::InvalidMessage),
            (r#""topic":"a""#, ProblemKind::InvalidMessage),
        ] {
            let (id, got, _) = refused(&format!(r#"{{"type":"subscribe","id":1,{members}}}"#));
            assert_eq!((id.as_deref(), got), (Some("1"), kind), "{members}");
        }
    }
}
