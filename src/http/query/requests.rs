//! What the queries of the other operations can say.

use strandline_storage::{append::OffsetScope, offset::Offset, topic::Topic};

use super::{
    form::Form,
    values::{Once, event_limit, invalid, text, unknown},
};
use crate::{
    input::{LogName, quoted},
    problem::{Problem, ProblemKind},
    stream::cursor::{parse_offset, parse_time_ms},
};

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
    /// Of what `Expected-Offset` is the next offset.
    pub scope: Option<OffsetScope>,
}

impl AppendRequest {
    /// Reads the query.
    pub fn parse(query: &[u8], target: AppendTarget) -> Result<AppendRequest, Problem> {
        let (mut log, mut topic) = (Once::default(), Once::default());
        let mut scope = Once::default();
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
                "scope" => {
                    let value = match text(&parameter)? {
                        "topic" => OffsetScope::Topic,
                        "log" => OffsetScope::Log,
                        _ => return Err(invalid(&parameter, "is neither topic nor log")),
                    };
                    scope.set(&parameter, value)?;
                }
                "_" => {}
                _ => return Err(unknown(&parameter)),
            }
        }
        Ok(AppendRequest { log: log.or_default(), topic: topic.0, scope: scope.0 })
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

    /// Reads the query of a resource that has no parameter at all: a log, whose name is in the path.
    pub fn parse_without_log(query: &[u8]) -> Result<(), Problem> {
        for parameter in Form::new(query) {
            let parameter = parameter?;
            if parameter.name != "_" {
                return Err(unknown(&parameter));
            }
        }
        Ok(())
    }
}

/// Up to where a topic is trimmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrimBefore {
    /// The first offset that is kept.
    Offset(Offset),
    /// Events that are older go, in milliseconds since 1970.
    TimeMs(u64),
}

/// `POST /api/v1/topics/{topic}/trim`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrimRequest {
    /// The log.
    pub log: LogName,
    /// Up to where.
    pub before: TrimBefore,
}

impl TrimRequest {
    /// Reads the query.
    pub fn parse(query: &[u8]) -> Result<TrimRequest, Problem> {
        let (mut log, mut before) = (Once::default(), Once::default());
        for parameter in Form::new(query) {
            let parameter = parameter?;
            match &*parameter.name {
                "log" => log.set(&parameter, LogName::parse(text(&parameter)?)?)?,
                "before" => {
                    let value = text(&parameter)?;
                    let offset = parse_offset(value).map(TrimBefore::Offset);
                    let time = || parse_time_ms(value).map(TrimBefore::TimeMs);
                    let place = offset.or_else(time).ok_or_else(|| {
                        invalid(&parameter, "is neither an offset nor an RFC 3339 time")
                    })?;
                    before.set(&parameter, place)?;
                }
                "_" => {}
                _ => return Err(unknown(&parameter)),
            }
        }
        let before = before.0.ok_or_else(|| {
            let detail =
                "parameter \"before\" is missing: the first offset that is kept, or a time";
            Problem::new(ProblemKind::InvalidParameter, detail)
        })?;
        Ok(TrimRequest { log: log.or_default(), before })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    /// API §8: "`trim?before=` (first offset kept, or a time)".
    #[test]
    fn trims() {
        let before = |query: &[u8]| TrimRequest::parse(query).map(|request| request.before);
        assert_eq!(before(b"before=7&log=main"), Ok(TrimBefore::Offset(Offset::new(7))));
        assert_eq!(before(b"before=1970-01-01T00:00:01Z"), Ok(TrimBefore::TimeMs(1000)));
        for query in
            ["", "before=", "before=-1", "before=7.tag", "before=1&before=2", "before=1&x=1"]
        {
            assert_eq!(before(query.as_bytes()).unwrap_err().status(), 400, "{query}");
        }
        assert!(PlainRequest::parse_without_log(b"_=1").is_ok());
        assert!(PlainRequest::parse_without_log(b"log=main").is_err());
    }

    /// API §2: "with `?scope=log` of the log's".
    #[test]
    fn a_scope_is_the_topic_or_the_log() {
        let scope = |query: &[u8]| AppendRequest::parse(query, AppendTarget::Topic);
        assert_eq!(scope(b"").unwrap().scope, None);
        assert_eq!(scope(b"scope=log").unwrap().scope, Some(OffsetScope::Log));
        assert_eq!(scope(b"scope=topic").unwrap().scope, Some(OffsetScope::Topic));
        for query in [&b"scope=Log"[..], b"scope=", b"scope=log&scope=log"] {
            assert_eq!(scope(query).unwrap_err().kind(), ProblemKind::InvalidParameter);
        }
    }
}
