//! An append request on its way to an acknowledgement.
//!
//! ```text
//! head --[`AppendForm`]--> how its body is read --> events --> LogHandle::submit --> [`AckAnswer`]
//! ```
//! A head is judged before any of its body is read: what can be refused is refused at once. How the
//! body comes is the connection's business; nothing here touches a socket.

mod agreement;
mod lines;
mod repeated;
mod shape;

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use strandline_storage::{
    append::{Append, ExpectedOffset, OffsetScope},
    event::NewEvent,
    once::IdWindow,
    segment::Tag,
    topic::Topic,
};

pub use agreement::assert_known_heads_agree;
pub(crate) use lines::LineAppends;
pub(crate) use repeated::{KnownHead, OwnValues, RepeatedAppend, RepeatedHeads};

use crate::{
    config::ServerConfig,
    event_json::{AppendTerms, EventsForm, ParsedEvents, RawAppend, parse_events, producer_and_id},
    http::{
        appended::{self, Appended, ID_WINDOW_FIELD, ProducerAnswer, id_window_text},
        body::{BodyDecoder, BodyLimit},
        head::{BodyLength, FieldName, Head},
        query::{AppendRequest, AppendTarget},
        response::{self, AnswerTo},
    },
    input::check_log,
    log_calls::{AckFuture, Acked, AppendRefused},
    log_handle::LogHandle,
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
    scope: OffsetScope,
    is_minimal: bool,
}

/// A body that was read: what it appends, and how that is answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct WholeAppend {
    append: Append,
    is_many: bool,
    is_minimal: bool,
}

impl WholeAppend {
    /// How much data its events have.
    pub(crate) fn data_bytes(&self) -> usize {
        self.append.events.iter().map(|event| event.data.len()).sum()
    }
}

enum WholeContent {
    /// The body is an event's data.
    Raw { raw: RawAppend, topic: Topic },
    /// The body is an event object or an array of them; this topic is for those that name none.
    Objects { topic: Option<Topic>, terms: Option<Box<AppendTerms>> },
}

impl AppendForm {
    /// `POST /api/v1/topics/{topic}/events`.
    pub(crate) fn of_topic(
        head: &Head,
        topic: Topic,
        config: &ServerConfig,
    ) -> Result<AppendForm, Problem> {
        let request = parse_query(head, AppendTarget::Topic)?;
        let (raw, is_minimal) = (RawAppend::from_fields(head.fields())?, prefers_minimal(head));
        let scope = scope(&request, raw.terms())?;
        if raw.is_lines() {
            return Ok(AppendForm::Lines(Box::new(LineAppends::of_data(
                raw, topic, is_minimal, config,
            ))));
        }
        let content = WholeContent::Raw { raw, topic };
        Ok(AppendForm::Whole(WholeForm { content, scope, is_minimal }))
    }

    /// `POST /api/v1/events`.
    pub(crate) fn of_events(head: &Head, config: &ServerConfig) -> Result<AppendForm, Problem> {
        let request = parse_query(head, AppendTarget::Events)?;
        let (form, is_minimal) = (EventsForm::from_fields(head.fields())?, prefers_minimal(head));
        Ok(match form {
            EventsForm::Lines => {
                scope(&request, None)?;
                let lines = LineAppends::of_objects(request.topic, is_minimal, config);
                AppendForm::Lines(Box::new(lines))
            }
            EventsForm::Json(terms) => {
                let scope = scope(&request, terms.as_deref())?;
                let content = WholeContent::Objects { topic: request.topic, terms };
                AppendForm::Whole(WholeForm { content, scope, is_minimal })
            }
        })
    }

    /// What takes the body out of the bytes behind its head. Fails where its length is not stated, or is too
    /// large.
    pub(crate) fn decoder(
        &self,
        head: &Head,
        config: &ServerConfig,
    ) -> Result<BodyDecoder, Problem> {
        if head.body_length() == BodyLength::Unstated {
            let detail = "an append states Content-Length, or is sent in chunks";
            return Err(Problem::new(ProblemKind::LengthRequired, detail));
        }
        BodyDecoder::new(head.body_length(), self.body_limit(config))
    }

    /// How long the body may be.
    fn body_limit(&self, config: &ServerConfig) -> BodyLimit {
        match self {
            AppendForm::Lines(_) => BodyLimit::Endless,
            AppendForm::Whole(form) => form.body_limit(config),
        }
    }
}

impl WholeForm {
    /// How long the body may be.
    pub(crate) fn body_limit(&self, config: &ServerConfig) -> BodyLimit {
        match self.content {
            WholeContent::Raw { .. } => {
                BodyLimit::Event { bytes_max: config.log.event_bytes_max as u64 }
            }
            WholeContent::Objects { .. } => {
                BodyLimit::Whole { bytes_max: config.limits.array_bytes_max }
            }
        }
    }

    /// The refusal of an append of this form whose body was not understood, or did not come; whether objects
    /// have ids nobody knows then. Where that is known [`WholeForm::read`] says it.
    pub(crate) fn refused(&self, problem: Problem, log: &LogHandle) -> Problem {
        match &self.content {
            WholeContent::Raw { raw, .. }
                if raw.terms().is_some_and(|terms| terms.event_id.is_some()) =>
            {
                with_id_window(problem, log.id_window())
            }
            _ => problem,
        }
    }

    /// What a whole body appends, at least one event; `window` is asked where objects have ids and are refused.
    /// (A head with an id and what does not go with it has been refused already.)
    pub(crate) fn read(
        &self,
        body: Bytes,
        own: OwnValues,
        window: impl FnOnce() -> IdWindow,
    ) -> Result<WholeAppend, Problem> {
        let (parsed, terms) = match &self.content {
            WholeContent::Raw { raw, topic } => {
                let topic = own.topic.unwrap_or_else(|| topic.clone());
                let events = vec![raw.event(topic, body)?];
                (ParsedEvents { events, is_array: false }, raw.terms())
            }
            WholeContent::Objects { topic, terms } => {
                (parse_events(&body, topic.as_ref())?, terms.as_deref())
            }
        };
        let ParsedEvents { events, is_array: is_many } = parsed;
        let mut append = match terms {
            Some(terms) => {
                let have_ids = events.iter().any(|event| event.id.is_some());
                self.on_terms(events, terms).map_err(|problem| match have_ids {
                    true => with_id_window(problem, window()),
                    false => problem,
                })?
            }
            None => Append::from(events),
        };
        own.fields.put_into(&mut append);
        Ok(WholeAppend { append, is_many, is_minimal: self.is_minimal })
    }

    fn on_terms(&self, events: Vec<NewEvent>, terms: &AppendTerms) -> Result<Append, Problem> {
        let AppendTerms { expected_offset, producer, .. } = terms;
        if producer.is_some() && events.iter().any(|event| event.id.is_some()) {
            return Err(producer_and_id());
        }
        let has_several_topics = || events.iter().any(|event| event.topic != events[0].topic);
        if expected_offset.is_some() && has_several_topics() {
            let detail = "Expected-Offset is for events of one topic, and the array has several";
            return Err(Problem::new(ProblemKind::InvalidHeader, detail));
        }
        let expected = expected_offset.map(|offset| ExpectedOffset { offset, scope: self.scope });
        Ok(Append { events, expected, producer: producer.clone() })
    }
}

/// Of what `Expected-Offset` is the next offset.
fn scope(request: &AppendRequest, terms: Option<&AppendTerms>) -> Result<OffsetScope, Problem> {
    let has_condition = terms.is_some_and(|terms| terms.expected_offset.is_some());
    if request.scope.is_some() && !has_condition {
        let detail = "parameter \"scope\" is that of Expected-Offset, which is missing";
        return Err(Problem::new(ProblemKind::InvalidParameter, detail));
    }
    Ok(request.scope.unwrap_or(OffsetScope::Topic))
}

fn parse_query(head: &Head, target: AppendTarget) -> Result<AppendRequest, Problem> {
    let request = AppendRequest::parse(head.query().unwrap_or_default().as_bytes(), target)?;
    check_log(&request.log)?;
    Ok(request)
}

/// Adds to the refusal of an append how long ids are remembered, where its head states one: who is refused
/// decides whether a retry is safe.
pub(crate) fn refused_by_head(problem: Problem, head: &Head, log: &LogHandle) -> Problem {
    let names = [FieldName::EventId, FieldName::IdempotencyKey];
    match names.into_iter().any(|name| head.value(name).is_some()) {
        true => with_id_window(problem, log.id_window()),
        false => problem,
    }
}

fn with_id_window(problem: Problem, window: IdWindow) -> Problem {
    problem.with_field(ID_WINDOW_FIELD, id_window_text(window))
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
    /// Where an event has an id.
    id_window: Option<IdWindow>,
    /// The sequence that a producer stated.
    producer_seq: Option<u64>,
    tag: Tag,
    to: AnswerTo,
}

impl AckAnswer {
    /// Submits an append, and makes the answer of what becomes of it.
    pub(crate) fn submit(log: &LogHandle, append: WholeAppend, to: &AnswerTo) -> Self {
        let WholeAppend { append, is_many, is_minimal } = append;
        let has_id = append.events.iter().any(|event| event.id.is_some());
        AckAnswer {
            count: append.events.len() as u64,
            is_many,
            is_minimal,
            id_window: has_id.then(|| log.id_window()),
            producer_seq: append.producer.as_ref().map(|claim| claim.seq),
            tag: *log.tag(),
            to: to.clone(),
            ack: log.submit(append),
        }
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
                let producer = acked.producer.map(|place| ProducerAnswer {
                    epoch: place.epoch,
                    seq: place.seq,
                    is_last: self.producer_seq == Some(place.seq),
                });
                let appended = Appended {
                    first: acked.first.get(),
                    last: acked.last.get(),
                    count: self.count,
                    duplicates: acked.duplicates,
                    is_many: self.is_many,
                    tag: self.tag.as_str(),
                    sync: acked.sync.name(),
                    id_window: self.id_window,
                    producer,
                };
                appended::write_appended(&appended, self.is_minimal, &self.to, out);
            }
            Err(error) => {
                let mut problem = Problem::from(error);
                if let Some(window) = self.id_window {
                    problem = with_id_window(problem, window);
                }
                response::write_problem(&problem, &self.to, out);
            }
        }
    }
}
