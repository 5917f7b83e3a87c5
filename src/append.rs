//! An append request on its way to an acknowledgement.
//!
//! ```text
//! head --[`AppendForm`]--> how its body is read --> events --> LogHandle::submit --> [`AckAnswer`]
//! ```
//! A head is judged before any of its body is read: what can be refused is refused at once. How the
//! body comes is the connection's business; nothing here touches a socket.

mod lines;
mod repeated;

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use strandline_storage::{segment::Tag, topic::Topic};

pub(crate) use lines::LineAppends;
pub(crate) use repeated::{RepeatedAppend, RepeatedHeads};

use crate::{
    config::ServerConfig,
    event_json::{EventsForm, ParsedEvents, RawAppend, parse_events},
    http::{
        body::BodyLimit,
        head::{FieldName, Head},
        query::{AppendRequest, AppendTarget},
        response::{self, AnswerTo, Appended},
    },
    log_handle::{AckFuture, Acked, AppendRefused, LogHandle},
    problem::{Problem, ProblemKind},
};

/// How the body of an append becomes events.
pub(crate) enum AppendForm {
    /// All of it at once.
    Whole(WholeForm),
    /// Line by line, while it comes.
    Lines(Box<LineAppends>),
}

/// A body that is one append, which happens whole or not at all.
pub(crate) struct WholeForm {
    content: WholeContent,
    bytes_max: u64,
    is_minimal: bool,
}

enum WholeContent {
    /// The body is an event's data.
    Raw { raw: RawAppend, topic: Topic },
    /// The body is an event object or an array of them; this topic is for those that name none.
    Objects { topic: Option<Topic> },
}

impl AppendForm {
    /// `POST /api/v1/topics/{topic}/events`.
    pub(crate) fn of_topic(
        head: &Head,
        topic: Topic,
        config: &ServerConfig,
    ) -> Result<AppendForm, Problem> {
        parse_query(head, AppendTarget::Topic)?;
        let (raw, is_minimal) = (RawAppend::from_fields(head.fields())?, prefers_minimal(head));
        if raw.is_lines() {
            return Ok(AppendForm::Lines(Box::new(LineAppends::of_data(
                raw, topic, is_minimal, config,
            ))));
        }
        Ok(AppendForm::Whole(WholeForm {
            content: WholeContent::Raw { raw, topic },
            bytes_max: config.log.event_bytes_max as u64,
            is_minimal,
        }))
    }

    /// `POST /api/v1/events`.
    pub(crate) fn of_events(head: &Head, config: &ServerConfig) -> Result<AppendForm, Problem> {
        let topic = parse_query(head, AppendTarget::Events)?.topic;
        let is_minimal = prefers_minimal(head);
        Ok(match EventsForm::from_fields(head.fields())? {
            EventsForm::Lines => {
                AppendForm::Lines(Box::new(LineAppends::of_objects(topic, is_minimal, config)))
            }
            EventsForm::Json => AppendForm::Whole(WholeForm {
                content: WholeContent::Objects { topic },
                bytes_max: config.limits.array_bytes_max,
                is_minimal,
            }),
        })
    }

    /// How long the body may be.
    pub(crate) fn body_limit(&self) -> BodyLimit {
        match self {
            AppendForm::Lines(_) => BodyLimit::Endless,
            AppendForm::Whole(WholeForm {
                content: WholeContent::Raw { .. }, bytes_max, ..
            }) => BodyLimit::Event { bytes_max: *bytes_max },
            AppendForm::Whole(WholeForm { bytes_max, .. }) => {
                BodyLimit::Whole { bytes_max: *bytes_max }
            }
        }
    }
}

impl WholeForm {
    /// Whether the answer is to be `204`.
    pub(crate) fn is_minimal(&self) -> bool {
        self.is_minimal
    }

    /// The events that a whole body holds, at least one.
    pub(crate) fn events(&self, body: Bytes) -> Result<ParsedEvents, Problem> {
        match &self.content {
            WholeContent::Raw { raw, topic } => {
                Ok(ParsedEvents { events: vec![raw.event(topic, body)?], is_array: false })
            }
            WholeContent::Objects { topic } => parse_events(&body, topic.as_ref()),
        }
    }
}

fn parse_query(head: &Head, target: AppendTarget) -> Result<AppendRequest, Problem> {
    let request = AppendRequest::parse(head.query().unwrap_or_default().as_bytes(), target)?;
    check_log(request.log.as_str())?;
    Ok(request)
}

/// There is one log so far.
pub(crate) fn check_log(name: &str) -> Result<(), Problem> {
    if name == "main" {
        return Ok(());
    }
    Err(Problem::new(ProblemKind::LogNotFound, format!("there is no log {name:?}")))
}

/// RFC 7240: `Prefer: return=minimal`, perhaps among others and with parameters.
fn prefers_minimal(head: &Head) -> bool {
    head.tokens(FieldName::Prefer).any(|preference| {
        let name = preference.split(|byte| *byte == b';').next().unwrap_or_default();
        let mut parts = name.splitn(2, |byte| *byte == b'=').map(<[u8]>::trim_ascii);
        let is_return = parts.next().is_some_and(|part| part.eq_ignore_ascii_case(b"return"));
        let value = parts.next().unwrap_or_default();
        is_return && (value == b"minimal" || value == b"\"minimal\"")
    })
}

/// The answer to an append, once it is durable.
pub(crate) struct AckAnswer {
    ack: AckFuture,
    count: u64,
    is_many: bool,
    is_minimal: bool,
    tag: Tag,
    to: AnswerTo,
}

impl AckAnswer {
    /// Submits events, and makes the answer of what becomes of them.
    pub(crate) fn submit(
        log: &LogHandle,
        parsed: ParsedEvents,
        is_minimal: bool,
        to: &AnswerTo,
    ) -> Self {
        let ParsedEvents { events, is_array: is_many } = parsed;
        let (count, tag) = (events.len() as u64, *log.tag());
        AckAnswer { ack: log.submit(events), count, is_many, is_minimal, tag, to: to.clone() }
    }

    /// Appends the answer to `out` when it is known.
    pub(crate) fn poll_into(&mut self, out: &mut Vec<u8>, context: &mut Context<'_>) -> Poll<()> {
        let result = ready!(Pin::new(&mut self.ack).poll(context));
        self.write_result(&result, out);
        Poll::Ready(())
    }

    fn write_result(&self, result: &Result<Acked, AppendRefused>, out: &mut Vec<u8>) {
        match result {
            Ok(acked) => {
                let appended = Appended {
                    first: acked.first.get(),
                    last: acked.last.get(),
                    count: self.count,
                    is_many: self.is_many,
                    tag: self.tag.as_str(),
                    sync: acked.sync.name(),
                };
                response::write_appended(&appended, self.is_minimal, &self.to, out);
            }
            Err(error) => response::write_problem(&Problem::from(error), &self.to, out),
        }
    }
}
