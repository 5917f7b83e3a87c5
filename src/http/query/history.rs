//! What the query of a history can say.

use strandline_storage::{event::EventType, offset::Offset, topic::TopicPattern};

use super::{
    form::{Form, Parameter},
    selection::{Selection, SelectionParser},
    values::{
        Once, cursor, event_limit, invalid, start_from, text, time_ms, unknown, whole_number,
    },
};
use crate::{
    input::LogName,
    problem::Problem,
    stream::{
        cursor::{Cursor, GivenCursor, StartFrom},
        filter::Filter,
    },
};

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
    /// Events that this matches; all if absent.
    pub filter: Option<Filter>,
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
        let Selection { log, topics, types, filter } = selection.finish()?;
        Ok(HistoryRequest {
            log,
            topics,
            types,
            filter,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::ProblemKind;

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
}
