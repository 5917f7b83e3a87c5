//! What each operation's query can say.

use strandline_storage::{
    event::EventType,
    offset::Offset,
    topic::{Topic, TopicPattern},
};

use super::form::{Form, Parameter};
use crate::{
    input::{LogName, not_yet, quoted},
    problem::{Problem, ProblemKind},
    stream::cursor::{Cursor, GivenCursor, StartFrom, parse_offset, parse_time_ms},
};

/// The most patterns, and the most types, that one reader may ask for.
pub const CHOICES_MAX: usize = 64;
/// Seconds between heartbeats, unless asked for otherwise.
pub const HEARTBEAT_S_DEFAULT: u16 = 15;
/// The most seconds between heartbeats.
pub const HEARTBEAT_S_MAX: u16 = 300;
/// The most events of one history page.
pub const HISTORY_EVENTS_MAX: u32 = 10_000;

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

/// The events that a reader wants.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Selection {
    log: LogName,
    topics: Vec<TopicPattern>,
    types: Vec<EventType>,
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
                subscribes |= parameter.name != "log";
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
        let header = last_event_id.map(GivenCursor::of_header).unwrap_or_default();
        let cursor = [header, camel.or_default(), snake.or_default(), upper.or_default()]
            .into_iter()
            .find(|given| *given != GivenCursor::None)
            .unwrap_or_default();
        let from = from.0;
        subscribes |= from.is_some() || cursor != GivenCursor::None;
        let Selection { log, topics, types } = selection.finish();
        Ok(StreamRequest {
            log,
            topics,
            types,
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

/// The order of a history page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Oldest first.
    #[default]
    Ascending,
    /// Newest first.
    Descending,
}

/// `GET /api/v1/events/history`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryRequest {
    /// The log.
    pub log: LogName,
    /// Events of any of these, 1 to 64; `**` if none was given.
    pub topics: Vec<TopicPattern>,
    /// Events of any of these types; all types if empty.
    pub types: Vec<EventType>,
    /// The first offset wanted; `None` is the earliest.
    pub from: Option<Offset>,
    /// Only what follows this cursor; wins over `from`.
    pub cursor: Option<Cursor>,
    /// Only events below this offset: where a page of a descending history goes on.
    pub before: Option<Offset>,
    /// Only events at or after this time, in milliseconds since 1970.
    pub since_ms: Option<u64>,
    /// Only events before this time, in milliseconds since 1970.
    pub until_ms: Option<u64>,
    /// The order.
    pub order: Order,
    /// The most events wanted, 1 to 10,000, if the request says so.
    pub limit: Option<u32>,
    /// How many matching events to pass over first.
    pub skip: u64,
}

impl HistoryRequest {
    /// The events of a page when the request does not say.
    pub const LIMIT_DEFAULT: u32 = 100;

    /// Reads the query.
    pub fn parse(query: &[u8]) -> Result<HistoryRequest, Problem> {
        let mut selection = SelectionParser::default();
        let (mut from, mut given, mut before) = (Once::default(), Once::default(), Once::default());
        let (mut since_ms, mut until_ms) = (Once::default(), Once::default());
        let (mut order, mut limit, mut skip) = (Once::default(), Once::default(), Once::default());
        for parameter in Form::new(query) {
            let parameter = parameter?;
            if selection.take(&parameter)? {
                continue;
            }
            match &*parameter.name {
                "from" => from.set(&parameter, history_from(&parameter)?)?,
                "last_event_id" => given.set(&parameter, cursor(&parameter)?)?,
                "before" => {
                    let offset = whole_number(&parameter, 0..=Offset::MAX.get())?;
                    before.set(&parameter, Offset::new(offset))?;
                }
                "since" => since_ms.set(&parameter, time_ms(&parameter)?)?,
                "until" => until_ms.set(&parameter, time_ms(&parameter)?)?,
                "order" => order.set(
                    &parameter,
                    match text(&parameter)? {
                        "asc" => Order::Ascending,
                        "desc" => Order::Descending,
                        _ => return Err(invalid(&parameter, "is neither asc nor desc")),
                    },
                )?,
                "limit" => limit.set(&parameter, event_limit(&parameter)?)?,
                "offset" => {
                    skip.set(&parameter, whole_number(&parameter, 0..=Offset::MAX.get())?)?;
                }
                _ => return Err(unknown(&parameter)),
            }
        }
        let Selection { log, topics, types } = selection.finish();
        Ok(HistoryRequest {
            log,
            topics,
            types,
            from: from.or_default(),
            cursor: match given.or_default() {
                GivenCursor::Cursor(cursor) => Some(cursor),
                GivenCursor::None | GivenCursor::Unknown => None,
            },
            before: before.0,
            since_ms: since_ms.0,
            until_ms: until_ms.0,
            order: order.or_default(),
            limit: limit.0,
            skip: skip.or_default(),
        })
    }
}

/// `GET /api/v1/topics`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicsRequest {
    /// The log.
    pub log: LogName,
    /// The bytes that the topics begin with; they may end within a character.
    pub prefix: Vec<u8>,
    /// Only topics behind this one, in byte order.
    pub after: Option<Vec<u8>>,
    /// The most topics wanted, 1 to 10,000.
    pub limit: u32,
}

impl TopicsRequest {
    /// The topics of a page when the request does not say.
    pub const LIMIT_DEFAULT: u32 = 100;

    /// Reads the query.
    pub fn parse(query: &[u8]) -> Result<TopicsRequest, Problem> {
        let (mut log, mut prefix) = (Once::default(), Once::default());
        let (mut after, mut limit) = (Once::default(), Once::default());
        for parameter in Form::new(query) {
            let parameter = parameter?;
            match &*parameter.name {
                "log" => log.set(&parameter, LogName::parse(text(&parameter)?)?)?,
                "prefix" => prefix.set(&parameter, parameter.value.to_vec())?,
                "after" => after.set(&parameter, parameter.value.to_vec())?,
                "limit" => limit.set(&parameter, event_limit(&parameter)?)?,
                "_" => {}
                _ => return Err(unknown(&parameter)),
            }
        }
        Ok(TopicsRequest {
            log: log.or_default(),
            prefix: prefix.or_default(),
            after: after.0,
            limit: limit.0.unwrap_or(TopicsRequest::LIMIT_DEFAULT),
        })
    }
}

/// Which of the append resources a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendTarget {
    /// `POST /api/v1/topics/{topic}/events`: the path names the topic.
    Topic,
    /// `POST /api/v1/events`: the events name it, or `?topic=` does.
    Events,
}

/// The query of an append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendRequest {
    /// The log.
    pub log: LogName,
    /// The topic of the events that do not name one.
    pub topic: Option<Topic>,
}

impl AppendRequest {
    /// Reads the query.
    pub fn parse(query: &[u8], target: AppendTarget) -> Result<AppendRequest, Problem> {
        let (mut log, mut topic) = (Once::default(), Once::default());
        for parameter in Form::new(query) {
            let parameter = parameter?;
            match &*parameter.name {
                "log" => log.set(&parameter, LogName::parse(text(&parameter)?)?)?,
                "topic" if target == AppendTarget::Events => {
                    let name = text(&parameter)?;
                    let parsed = Topic::parse(name).map_err(|error| {
                        let detail = format!("topic {} {error}", quoted(name));
                        Problem::new(ProblemKind::InvalidTopic, detail)
                    })?;
                    topic.set(&parameter, parsed)?;
                }
                "scope" => return Err(not_yet("the parameter \"scope\"")),
                "_" => {}
                _ => return Err(unknown(&parameter)),
            }
        }
        Ok(AppendRequest { log: log.or_default(), topic: topic.0 })
    }
}

/// The query of a resource that has no parameter but the log: one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainRequest {
    /// The log.
    pub log: LogName,
}

impl PlainRequest {
    /// Reads the query.
    pub fn parse(query: &[u8]) -> Result<PlainRequest, Problem> {
        let mut log = Once::default();
        for parameter in Form::new(query) {
            let parameter = parameter?;
            match &*parameter.name {
                "log" => log.set(&parameter, LogName::parse(text(&parameter)?)?)?,
                "_" => {}
                _ => return Err(unknown(&parameter)),
            }
        }
        Ok(PlainRequest { log: log.or_default() })
    }
}

/// The parameters that stream and history share.
#[derive(Default)]
struct SelectionParser {
    log: Once<LogName>,
    topics: Vec<TopicPattern>,
    types: Vec<EventType>,
}

impl SelectionParser {
    /// Takes the parameter if it is one of these.
    fn take(&mut self, parameter: &Parameter<'_>) -> Result<bool, Problem> {
        match &*parameter.name {
            "log" => self.log.set(parameter, LogName::parse(text(parameter)?)?)?,
            "topic" => {
                let name = text(parameter)?;
                let pattern = TopicPattern::parse(name).map_err(|error| {
                    let detail = format!("pattern {} {error}", quoted(name));
                    Problem::new(ProblemKind::InvalidPattern, detail)
                })?;
                push_choice(&mut self.topics, pattern, parameter)?;
            }
            "type" => {
                let name = text(parameter)?;
                let event_type = EventType::parse(name).map_err(|error| {
                    let detail = format!("type {} {error}", quoted(name));
                    Problem::new(ProblemKind::InvalidName, detail)
                })?;
                push_choice(&mut self.types, event_type, parameter)?;
            }
            "filter" | "where" | "wait" => {
                return Err(not_yet(&format!("the parameter {}", quoted(&parameter.name))));
            }
            "_" => {}
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn finish(self) -> Selection {
        let topics = if self.topics.is_empty() { vec![TopicPattern::all()] } else { self.topics };
        Selection { log: self.log.or_default(), topics, types: self.types }
    }
}

fn push_choice<T: PartialEq>(
    choices: &mut Vec<T>,
    choice: T,
    parameter: &Parameter<'_>,
) -> Result<(), Problem> {
    if choices.len() == CHOICES_MAX {
        return Err(invalid(parameter, &format!("comes more than {CHOICES_MAX} times")));
    }
    choices.push(choice);
    Ok(())
}

/// The value of a parameter that takes one.
struct Once<T>(Option<T>);

impl<T> Default for Once<T> {
    fn default() -> Self {
        Once(None)
    }
}

impl<T> Once<T> {
    fn set(&mut self, parameter: &Parameter<'_>, value: T) -> Result<(), Problem> {
        match self.0.replace(value) {
            None => Ok(()),
            Some(_) => {
                let detail = format!("parameter {} is given twice", quoted(&parameter.name));
                Err(Problem::new(ProblemKind::InvalidParameter, detail))
            }
        }
    }

    fn or_default(self) -> T
    where
        T: Default,
    {
        self.0.unwrap_or_default()
    }
}

fn unknown(parameter: &Parameter<'_>) -> Problem {
    let detail = format!("unknown parameter {}", quoted(&parameter.name));
    Problem::new(ProblemKind::UnknownParameter, detail)
}

fn invalid(parameter: &Parameter<'_>, what: &str) -> Problem {
    let value = quoted(&String::from_utf8_lossy(&parameter.value));
    let detail = format!("parameter {}: {value} {what}", quoted(&parameter.name));
    Problem::new(ProblemKind::InvalidParameter, detail)
}

fn text<'a>(parameter: &'a Parameter<'_>) -> Result<&'a str, Problem> {
    std::str::from_utf8(&parameter.value).map_err(|_| invalid(parameter, "is not UTF-8"))
}

/// A number in plain decimal digits.
fn whole_number(
    parameter: &Parameter<'_>,
    range: std::ops::RangeInclusive<u64>,
) -> Result<u64, Problem> {
    let wanted = || {
        let what = format!("is not a number from {} to {}", range.start(), range.end());
        invalid(parameter, &what)
    };
    let number = parse_offset(text(parameter)?).ok_or_else(wanted)?.get();
    if range.contains(&number) { Ok(number) } else { Err(wanted()) }
}

fn event_limit(parameter: &Parameter<'_>) -> Result<u32, Problem> {
    let limit = whole_number(parameter, 1..=u64::from(HISTORY_EVENTS_MAX))?;
    Ok(u32::try_from(limit).expect("at most 10,000"))
}

fn truth(parameter: &Parameter<'_>) -> Result<bool, Problem> {
    match text(parameter)? {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(invalid(parameter, "is neither true nor false")),
    }
}

fn time_ms(parameter: &Parameter<'_>) -> Result<u64, Problem> {
    parse_time_ms(text(parameter)?)
        .ok_or_else(|| invalid(parameter, "is not an RFC 3339 time, such as 2026-11-21T09:08:08Z"))
}

fn start_from(parameter: &Parameter<'_>) -> Result<StartFrom, Problem> {
    StartFrom::parse(text(parameter)?).map_err(|what| invalid(parameter, &what))
}

/// `from` of a history: `None` is the earliest.
fn history_from(parameter: &Parameter<'_>) -> Result<Option<Offset>, Problem> {
    match start_from(parameter)? {
        StartFrom::Earliest => Ok(None),
        StartFrom::Offset(offset) => Ok(Some(offset)),
        StartFrom::Latest | StartFrom::Last(_) | StartFrom::Time(_) => {
            Err(invalid(parameter, "is neither earliest nor an offset"))
        }
    }
}

/// A cursor parameter; empty is absent.
fn cursor(parameter: &Parameter<'_>) -> Result<GivenCursor, Problem> {
    let text = text(parameter)?;
    if text.is_empty() {
        return Ok(GivenCursor::None);
    }
    match Cursor::parse(text) {
        Ok(cursor) => Ok(GivenCursor::Cursor(cursor)),
        Err(_) => {
            let name = quoted(&parameter.name);
            let detail = format!("parameter {name}: {} is not a cursor", quoted(text));
            Err(Problem::new(ProblemKind::InvalidCursor, detail))
        }
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
    use super::*;

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

    /// API: "Unknown query parameters .. are refused by name (`_` alone is ignored)".
    #[test]
    fn unknown_parameters_are_refused_by_name() {
        let (kind, detail) = refused("topics=a");
        assert_eq!(kind, ProblemKind::UnknownParameter);
        assert_eq!(detail, "unknown parameter \"topics\"");
        for query in ["Topic=a", "=1", "__=1", "since=2026-11-21T09:08:08Z", "limit=1"] {
            assert_eq!(refused(query).0, ProblemKind::UnknownParameter, "{query}");
        }
        assert!(stream("_=1&_=2").is_ok());
        let history = HistoryRequest::parse(b"heartbeat=1").unwrap_err();
        assert_eq!(history.kind(), ProblemKind::UnknownParameter);
        let topics = TopicsRequest::parse(b"topic=a").unwrap_err();
        assert_eq!(topics.kind(), ProblemKind::UnknownParameter);
    }

    /// API §4: "`topic` .. may be repeated (OR); at most 64".
    #[test]
    fn at_most_64_patterns() {
        let query = |count: usize| vec!["topic=a"; count].join("&");
        assert_eq!(stream(&query(64)).unwrap().topics.len(), 64);
        assert_eq!(refused(&query(65)).0, ProblemKind::InvalidParameter);
    }

    /// Issue 3 §6: "a number as `from` .. negative, not a number, 2^64".
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
        assert!(parse("", "1.a").subscribes);
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

    /// Issue 3 §3: filters come next: "answer 501"; API §10: "`wait=` (long-poll)".
    #[test]
    fn what_comes_later_is_501() {
        for query in ["filter={}", "where=a", "wait=1"] {
            assert_eq!(refused(query).0, ProblemKind::NotYet, "{query}");
        }
        let scope = AppendRequest::parse(b"scope=log", AppendTarget::Topic).unwrap_err();
        assert_eq!(scope.kind(), ProblemKind::NotYet);
    }

    /// API §4: "`format` (SSE only)".
    #[test]
    fn a_websocket_carries_whole_events() {
        let parse = |query: &[u8]| StreamRequest::parse(query, None, Transport::WebSocket);
        assert!(parse(b"format=event").is_ok());
        assert_eq!(parse(b"format=data").unwrap_err().kind(), ProblemKind::InvalidParameter);
        assert!(!parse(b"heartbeat=30&log=main").unwrap().subscribes);
        for query in ["topic=a", "type=a", "from=latest", "last_event_id=1.a"] {
            assert!(parse(query.as_bytes()).unwrap().subscribes, "{query}");
        }
    }

    /// API §7.
    #[test]
    fn history() {
        let request = HistoryRequest::parse(b"").unwrap();
        assert_eq!((request.from, request.limit, request.skip), (None, None, 0));
        assert_eq!(request.order, Order::Ascending);
        let request = HistoryRequest::parse(
            b"from=5&since=2026-11-21T09:08:08Z&until=2026-11-21T10:08:08+01:00&order=desc\
              &limit=10000&offset=7&topic=a&type=b&last_event_id=41.k3f9q&before=9",
        )
        .unwrap();
        assert_eq!(request.from, Some(Offset::new(5)));
        assert_eq!(request.before, Some(Offset::new(9)));
        assert_eq!(request.since_ms, request.until_ms, "a space in a time counts as `+`");
        assert_eq!(
            (request.order, request.limit, request.skip),
            (Order::Descending, Some(10_000), 7)
        );
        assert_eq!(request.cursor.unwrap().next(), Offset::new(42));
        for query in [
            "before=",
            "before=latest",
            "limit=0",
            "limit=10001",
            "limit=-1",
            "limit=",
            "offset=-1",
            "from=latest",
            "from=-5",
            "order=up",
            "since=yesterday",
            "until=",
            "offset=18446744073709551616",
        ] {
            let problem = HistoryRequest::parse(query.as_bytes()).expect_err(query);
            assert_eq!(problem.kind(), ProblemKind::InvalidParameter, "{query}");
        }
    }

    /// API §8: "`prefix` is bytes".
    #[test]
    fn topics() {
        let request = TopicsRequest::parse(b"prefix=a%2F%e2%82&after=a/b&limit=3").unwrap();
        assert_eq!(request.prefix, b"a/\xe2\x82");
        assert_eq!(request.after.as_deref(), Some(&b"a/b"[..]));
        assert_eq!(request.limit, 3);
        assert_eq!(TopicsRequest::parse(b"").unwrap().limit, 100);
    }

    /// API §2: "`topic` (required unless `?topic=`)".
    #[test]
    fn appends() {
        let request = AppendRequest::parse(b"topic=a/b&log=main", AppendTarget::Events).unwrap();
        assert_eq!(request.topic.unwrap().as_str(), "a/b");
        let unknown = AppendRequest::parse(b"topic=a", AppendTarget::Topic).unwrap_err();
        assert_eq!(unknown.kind(), ProblemKind::UnknownParameter);
        for query in ["topic=a/*", "topic=$a", "topic="] {
            let problem = AppendRequest::parse(query.as_bytes(), AppendTarget::Events).unwrap_err();
            assert_eq!(problem.kind(), ProblemKind::InvalidTopic, "{query}");
        }
        assert!(PlainRequest::parse(b"log=main&_=1").is_ok());
        assert!(PlainRequest::parse(b"limit=1").is_err());
    }
}
