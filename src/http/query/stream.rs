//! What the query of a stream can say.

use strandline_storage::{event::EventType, topic::TopicPattern};

use super::{
    form::{Form, Parameter},
    selection::{Selection, SelectionParser},
    values::{Once, cursor, invalid, start_from, text, truth, unknown, whole_number},
};
use crate::{
    input::LogName,
    problem::Problem,
    stream::{
        cursor::{GivenCursor, StartFrom},
        filter::Filter,
    },
};

/// Seconds between heartbeats, unless asked for otherwise.
pub const HEARTBEAT_S_DEFAULT: u16 = 15;
/// The most seconds between heartbeats.
pub const HEARTBEAT_S_MAX: u16 = 300;
/// How a stream will be carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Server-Sent Events.
    Sse,
    /// WebSocket.
    WebSocket,
}

/// What an SSE event's `data` holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Format {
    /// The event's data alone.
    #[default]
    Data,
    /// The whole event as an object.
    Event,
}

/// `GET /api/v1/events/stream`, `/sse`, `/ws`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamRequest {
    /// The log.
    pub log: LogName,
    /// Events of any of these, 1 to 64; `**` if none was given.
    pub topics: Vec<TopicPattern>,
    /// Events of any of these types; all types if empty.
    pub types: Vec<EventType>,
    /// Events that this matches; all if absent.
    pub filter: Option<Filter>,
    /// Where to begin without a cursor; `latest` if absent.
    pub from: Option<StartFrom>,
    /// What to resume from: the strongest of header and parameters.
    pub cursor: GivenCursor,
    /// What SSE `data` holds.
    pub format: Format,
    /// Seconds between heartbeats, 1 to 300.
    pub heartbeat_s: u16,
    /// Whether heartbeats are `ping` events.
    pub ping: bool,
    /// Whether the answer may be compressed.
    pub compression: bool,
    /// Whether the query asks for anything that a subscription is about: then it opens
    /// subscription 1 of a WebSocket.
    pub subscribes: bool,
}

impl StreamRequest {
    /// Reads the query and the `Last-Event-ID` header.
    pub fn parse(
        query: &[u8],
        last_event_id: Option<&[u8]>,
        transport: Transport,
    ) -> Result<StreamRequest, Problem> {
        let mut selection = SelectionParser::default();
        let mut from = Once::default();
        let (mut camel, mut snake, mut upper) = (Once::default(), Once::default(), Once::default());
        let (mut format, mut heartbeat_s) = (Once::default(), Once::default());
        let (mut ping, mut compression) = (Once::default(), Once::default());
        let mut subscribes = false;
        for parameter in Form::new(query) {
            let parameter = parameter?;
            if selection.take(&parameter)? {
                subscribes |= !matches!(&*parameter.name, "log" | "_");
                continue;
            }
            match &*parameter.name {
                "from" => from.set(&parameter, start_from(&parameter)?)?,
                "lastEventId" => camel.set(&parameter, cursor(&parameter)?)?,
                "last_event_id" => snake.set(&parameter, cursor(&parameter)?)?,
                "lastEventID" => upper.set(&parameter, cursor(&parameter)?)?,
                "format" => format.set(&parameter, self::format(&parameter, transport)?)?,
                "heartbeat" => {
                    let range = 1..=u64::from(HEARTBEAT_S_MAX);
                    let seconds = whole_number(&parameter, range)?;
                    heartbeat_s.set(&parameter, u16::try_from(seconds).expect("at most 300"))?;
                }
                "ping" => ping.set(&parameter, truth(&parameter)?)?,
                "compression" => compression.set(&parameter, truth(&parameter)?)?,
                _ => return Err(unknown(&parameter)),
            }
        }
        let given = |cursor: &GivenCursor| *cursor != GivenCursor::None;
        let header = last_event_id.map(GivenCursor::of_header).unwrap_or_default();
        let in_query = [camel.or_default(), snake.or_default(), upper.or_default()];
        let in_query = in_query.into_iter().find(given).unwrap_or_default();
        let from = from.0;
        subscribes |= from.is_some() || given(&in_query);
        let cursor = if given(&header) { header } else { in_query };
        let Selection { log, topics, types, filter } = selection.finish()?;
        Ok(StreamRequest {
            log,
            topics,
            types,
            filter,
            from,
            cursor,
            format: format.or_default(),
            heartbeat_s: heartbeat_s.0.unwrap_or(HEARTBEAT_S_DEFAULT),
            ping: ping.or_default(),
            compression: compression.0.unwrap_or(true),
            subscribes,
        })
    }
}

fn format(parameter: &Parameter<'_>, transport: Transport) -> Result<Format, Problem> {
    match (text(parameter)?, transport) {
        ("event", _) => Ok(Format::Event),
        ("data", Transport::Sse) => Ok(Format::Data),
        ("data", Transport::WebSocket) => {
            Err(invalid(parameter, "is for Server-Sent Events; a WebSocket carries whole events"))
        }
        _ => Err(invalid(parameter, "is neither data nor event")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::HistoryRequest;
    use super::*;
    use crate::{problem::ProblemKind, stream::cursor::Cursor};

    fn stream(query: &str) -> Result<StreamRequest, Problem> {
        StreamRequest::parse(query.as_bytes(), None, Transport::Sse)
    }

    fn refused(query: &str) -> (ProblemKind, String) {
        let problem = stream(query).expect_err(query);
        (problem.kind(), problem.detail().to_owned())
    }

    fn cursor(text: &str) -> GivenCursor {
        GivenCursor::Cursor(Cursor::parse(text).unwrap())
    }

    /// API §4, the column "default".
    #[test]
    fn defaults_of_a_stream() {
        let request = stream("").unwrap();
        assert_eq!(request.log.as_str(), "main");
        assert_eq!(request.topics, [TopicPattern::all()]);
        assert!(request.types.is_empty());
        assert_eq!((request.from, request.cursor), (None, GivenCursor::None));
        assert_eq!((request.format, request.heartbeat_s), (Format::Data, 15));
        assert_eq!((request.ping, request.compression), (false, true));
        assert!(!request.subscribes, "API §5: a bare `/ws` opens none");
    }

    #[test]
    fn everything_that_a_stream_can_say() {
        let request = stream(
            "topic=a%2F*&topic=b/**&type=trade&type=quote&from=-5&format=event&heartbeat=300\
             &ping=true&compression=false&log=other&_=123",
        )
        .unwrap();
        let patterns: Vec<_> = request.topics.iter().map(TopicPattern::as_str).collect();
        assert_eq!(patterns, ["a/*", "b/**"]);
        assert_eq!(request.types.len(), 2);
        assert_eq!(request.from, Some(StartFrom::Last(5)));
        assert_eq!((request.format, request.heartbeat_s), (Format::Event, 300));
        assert_eq!((request.ping, request.compression), (true, false));
        assert_eq!(request.log.as_str(), "other");
        assert!(request.subscribes);
    }

    /// API §4: "`topic` .. may be repeated (OR); at most 64".
    #[test]
    fn at_most_64_patterns() {
        let query = |count: usize| vec!["topic=a"; count].join("&");
        assert_eq!(stream(&query(64)).unwrap().topics.len(), 64);
        assert_eq!(refused(&query(65)).0, ProblemKind::InvalidParameter);
    }

    /// Among them a number as `from` that is negative, none, or 2^64.
    #[test]
    fn values_are_strict() {
        for query in [
            "from=18446744073709551616",
            "from=",
            "from=x",
            "from=-0",
            "from=1.5",
            "heartbeat=0",
            "heartbeat=301",
            "heartbeat=-1",
            "heartbeat=",
            "heartbeat=15s",
            "heartbeat=015",
            "heartbeat=18446744073709551631",
            "ping=",
            "ping",
            "ping=1",
            "ping=TRUE",
            "compression=no",
            "format=json",
            "format=",
            "from=%ff",
            "heartbeat=1&heartbeat=2",
            "from=earliest&from=earliest",
            "from=2026-11-21",
        ] {
            assert_eq!(refused(query).0, ProblemKind::InvalidParameter, "{query}");
        }
        assert_eq!(refused("log=Main").0, ProblemKind::InvalidName);
        assert_eq!(refused("type=").0, ProblemKind::InvalidName);
        assert_eq!(refused("type=a&type=connection.reset").0, ProblemKind::ReservedType);
        for query in ["topic=", "topic=a//b", "topic=/a", "topic=..", "topic=$a", "topic=**/a"] {
            assert_eq!(refused(query).0, ProblemKind::InvalidPattern, "{query}");
        }
        assert_eq!(refused("topic=%00").0, ProblemKind::InvalidPattern);
        assert_eq!(refused("topic=%ff").0, ProblemKind::InvalidParameter);
        assert!(refused("from=x").1.contains("\"from\": \"x\""));
    }

    /// API §4: "`Last-Event-ID` header; `lastEventId`, `last_event_id`, `lastEventID` .. in this
    /// order of strength, all win over `from`; empty is absent".
    #[test]
    fn the_strongest_cursor_wins() {
        let parse = |query: &str, header: &str| {
            StreamRequest::parse(query.as_bytes(), Some(header.as_bytes()), Transport::Sse).unwrap()
        };
        let all = "lastEventID=3.a&last_event_id=2.a&lastEventId=1.a&from=earliest";
        assert_eq!(parse(all, "0.a").cursor, cursor("0.a"));
        assert_eq!(parse(all, "").cursor, cursor("1.a"));
        assert_eq!(parse("lastEventID=3.a&last_event_id=2.a", "").cursor, cursor("2.a"));
        assert_eq!(parse("lastEventID=3.a&last_event_id=&lastEventId=", "").cursor, cursor("3.a"));
        assert_eq!(parse("lastEventId=", "").cursor, GivenCursor::None);
        assert_eq!(parse("", "garbage").cursor, GivenCursor::Unknown);
        assert!(parse("lastEventId=1.a", "").subscribes);
        assert!(!parse("", "1.a").subscribes, "API §5: a cursor in the query opens subscription 1");
    }

    /// API §4: "`unknown` (not a cursor; as a *parameter* that is 400)".
    #[test]
    fn a_parameter_that_is_not_a_cursor_is_refused() {
        for name in ["lastEventId", "last_event_id", "lastEventID"] {
            assert_eq!(refused(&format!("{name}=garbage")).0, ProblemKind::InvalidCursor);
        }
        let history = HistoryRequest::parse(b"last_event_id=x").unwrap_err();
        assert_eq!(history.kind(), ProblemKind::InvalidCursor);
    }

    /// API §4: "`format` (SSE only)".
    #[test]
    fn a_websocket_carries_whole_events() {
        let parse = |query: &[u8]| StreamRequest::parse(query, None, Transport::WebSocket);
        assert!(parse(b"format=event").is_ok());
        assert_eq!(parse(b"format=data").unwrap_err().kind(), ProblemKind::InvalidParameter);
        assert!(!parse(b"heartbeat=30&log=main&_=1").unwrap().subscribes, "API: `_` is ignored");
        for query in [
            "topic=a",
            "type=a",
            "from=latest",
            "last_event_id=1.a",
            "filter={}",
            "where=exists+key",
        ] {
            assert!(parse(query.as_bytes()).unwrap().subscribes, "{query}");
        }
    }
}
