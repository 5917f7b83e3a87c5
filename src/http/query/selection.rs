//! Which events a stream or a history is about.

use strandline_storage::{event::EventType, topic::TopicPattern};

use super::{
    form::Parameter,
    values::{Once, invalid, text},
};
use crate::{
    input::{LogName, not_yet, quoted},
    problem::{Problem, ProblemKind},
    stream::filter::{self, Condition, Filter, FilterError},
};

/// The most patterns, and the most types, that one reader may ask for.
pub const CHOICES_MAX: usize = 64;
/// The events that a reader wants.
pub(super) struct Selection {
    pub log: LogName,
    pub topics: Vec<TopicPattern>,
    pub types: Vec<EventType>,
    pub filter: Option<Filter>,
}

/// The parameters that stream and history share.
#[derive(Default)]
pub(super) struct SelectionParser {
    log: Once<LogName>,
    topics: Vec<TopicPattern>,
    types: Vec<EventType>,
    filter: Once<Condition>,
    where_text: Once<Condition>,
}

impl SelectionParser {
    /// Takes the parameter if it is one of these.
    pub fn take(&mut self, parameter: &Parameter<'_>) -> Result<bool, Problem> {
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
                    Problem::new((&error).into(), detail)
                })?;
                push_choice(&mut self.types, event_type, parameter)?;
            }
            "filter" => {
                let condition = condition(parameter, filter::parse_json)?;
                self.filter.set(parameter, condition)?;
            }
            "where" => {
                let condition = condition(parameter, filter::parse_text)?;
                self.where_text.set(parameter, condition)?;
            }
            "wait" => return Err(not_yet("the parameter \"wait\"")),
            "_" => {}
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// What was asked for.
    pub fn finish(self) -> Result<Selection, Problem> {
        let topics = if self.topics.is_empty() { vec![TopicPattern::all()] } else { self.topics };
        let conditions = self.filter.0.into_iter().chain(self.where_text.0).collect();
        let filter = Filter::new(conditions)
            .map_err(|error| error.problem("parameters \"filter\" and \"where\""))?;
        Ok(Selection { log: self.log.or_default(), topics, types: self.types, filter })
    }
}

fn condition(
    parameter: &Parameter<'_>,
    parse: impl FnOnce(&str) -> Result<Condition, FilterError>,
) -> Result<Condition, Problem> {
    let source = || format!("parameter {}", quoted(&parameter.name));
    parse(text(parameter)?).map_err(|error| error.problem(&source()))
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

#[cfg(test)]
mod tests {
    use super::super::{HistoryRequest, StreamRequest, TopicsRequest, Transport};
    use super::*;

    fn stream(query: &str) -> Result<StreamRequest, Problem> {
        StreamRequest::parse(query.as_bytes(), None, Transport::Sse)
    }

    fn refused(query: &str) -> (ProblemKind, String) {
        let problem = stream(query).expect_err(query);
        (problem.kind(), problem.detail().to_owned())
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

    /// API §4: "`filter`, `where`: both given: both must hold".
    #[test]
    fn filters_in_both_spellings() {
        let filter = |query: &str| stream(query).expect(query).filter;
        let text = filter("where=data.price+%3E+100+and+type%3D%3D%22trade%22").expect("a filter");
        let json =
            "filter=%7B%22field%22%3A%22data.price%22%2C%22op%22%3A%22gt%22%2C%22value%22%3A1e2%7D";
        let both = filter(&format!("where=type%20==%20%22trade%22&{json}"));
        assert_eq!(both, Some(text.clone()));
        assert_ne!(filter(json), both);
        assert_eq!(filter("filter={}"), None);
        assert_eq!(filter("filter=%7b%7d&where=exists+key"), filter("where=key%20exists"));
        let history = HistoryRequest::parse(b"where=type==%22trade%22%20and%20data.price%3E100");
        assert_eq!(history.unwrap().filter, Some(text));
    }

    /// API §6: "An error names the place."
    #[test]
    fn a_bad_filter_is_refused_with_its_place() {
        for (query, detail) in [
            ("where=data.a+%3D+1", "parameter \"where\": column 8: write == for ="),
            ("where=", "parameter \"where\": column 1: expected a comparison"),
            ("filter=", "parameter \"filter\": is empty, which is not JSON"),
            ("filter={\"all\":[1]}", "parameter \"filter\": all[0]: is not an object"),
        ] {
            let (kind, got) = refused(query);
            assert_eq!(kind, ProblemKind::InvalidFilter, "{query}");
            assert!(got.starts_with(detail), "{query}: {got}");
        }
    }

    #[test]
    fn a_filter_is_given_once_and_is_utf_8() {
        for query in ["where=exists+key&where=exists+key", "filter={}&filter={}", "where=%ff"] {
            assert_eq!(refused(query).0, ProblemKind::InvalidParameter, "{query}");
        }
    }

    /// API §10: "`wait=` (long-poll)".
    #[test]
    fn what_comes_later_is_501() {
        assert_eq!(refused("wait=1").0, ProblemKind::NotYet);
    }
}
