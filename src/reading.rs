//! What a request for reading becomes: an answer, lines at the client's pace, or a stream.

use std::pin::Pin;
use std::rc::Rc;

use crate::history;
use crate::http::accept;
use crate::http::head::{FieldName, Head};
use crate::http::operation::{Operation, StreamForce};
use crate::http::query::{HistoryRequest, PlainRequest, StreamRequest, TopicsRequest, Transport};
use crate::http::response::AnswerTo;
use crate::input::check_log;
use crate::problem::{CloseCode, Problem, ProblemKind};
use crate::settings;
use crate::sse;
use crate::stream::compression::Encoding;
use crate::stream::live::LiveLog;
use crate::topics;
use crate::unsent::Unsent;
use crate::websocket::frames::{self, Accepted};

/// How a request for reading is answered.
pub enum Reading {
    /// With these bytes.
    Ready(Vec<u8>),
    /// With bytes that have to be looked up.
    Pending(Pin<Box<dyn Future<Output = Vec<u8>>>>),
    /// With history as lines.
    Lines(Box<HistoryRequest>),
    /// With Server-Sent Events, which take the socket over.
    Sse(Box<StreamRequest>, Encoding),
    /// With a WebSocket, which takes the socket over.
    WebSocket(Box<StreamRequest>, Accepted),
}

/// Decides how `operation` is answered, which must be one that reads the log. Pages are as long as what is
/// `unsent` leaves them. `is_stopping`: no new stream is begun.
pub fn read(
    operation: Operation,
    head: &Head,
    to: &AnswerTo,
    live: &Rc<LiveLog>,
    unsent: &Rc<Unsent>,
    is_stopping: bool,
) -> Result<Reading, Problem> {
    let query = head.query().unwrap_or_default();
    match operation {
        Operation::Stream { force } => stream(force, head, to, is_stopping),
        Operation::History => {
            let forms = ["application/json", "application/x-ndjson"];
            let form = accept::choose(head, &forms).ok_or_else(|| not_acceptable(&forms))?;
            let request = HistoryRequest::parse(query.as_bytes())?;
            check_log(&request.log)?;
            if to.head_only {
                let answer = history::head(live.clone(), request, forms[form], to.clone());
                return Ok(Reading::Pending(Box::pin(answer)));
            }
            Ok(match form {
                0 => {
                    let (live, query) = (live.clone(), query.to_owned());
                    let (mut held, to) = (unsent.hold(0), to.clone());
                    let page = async move {
                        let answer = history::page(live, request, query, &mut held, to).await;
                        held.resize(answer.len());
                        (answer, held)
                    };
                    // Begun when all answers before it are known: what was appended there is on it. A task
                    // of its own then, so that its turn to read ends also while the client takes nothing
                    // of them; what has come of it is held until then.
                    Reading::Pending(Box::pin(async move { monoio::spawn(page).await.0 }))
                }
                _ => Reading::Lines(Box::new(request)),
            })
        }
        Operation::Topics => {
            let request = TopicsRequest::parse(query.as_bytes())?;
            check_log(&request.log)?;
            let page = topics::list(live.clone(), request, unsent.hold(0), to.clone());
            Ok(Reading::Pending(Box::pin(page)))
        }
        Operation::Topic { topic } => {
            check_log(&PlainRequest::parse(query.as_bytes())?.log)?;
            Ok(Reading::Pending(Box::pin(topics::one(live.clone(), topic, to.clone()))))
        }
        Operation::Pattern { pattern } => {
            check_log(&PlainRequest::parse(query.as_bytes())?.log)?;
            let answer = settings::one_pattern(live.clone(), pattern, to.clone());
            Ok(Reading::Pending(Box::pin(answer)))
        }
        Operation::Logs => {
            PlainRequest::parse_without_log(query.as_bytes())?;
            Ok(Reading::Pending(Box::pin(settings::list_logs(live.clone(), to.clone()))))
        }
        Operation::Log { log } => {
            PlainRequest::parse_without_log(query.as_bytes())?;
            Ok(Reading::Pending(Box::pin(settings::one_log(live.clone(), log, to.clone()))))
        }
        other => unreachable!("{other:?} does not read the log"),
    }
}

fn stream(
    force: StreamForce,
    head: &Head,
    to: &AnswerTo,
    is_stopping: bool,
) -> Result<Reading, Problem> {
    let query = head.query().unwrap_or_default().as_bytes();
    let last_event_id = head.value(FieldName::LastEventId);
    if force.is_websocket(head) {
        let accepted = frames::accept(head)?;
        let request = StreamRequest::parse(query, last_event_id, Transport::WebSocket)?;
        check_log(&request.log)?;
        if is_stopping {
            return Err(Problem::new(ProblemKind::Draining, "the server is stopping"));
        }
        return Ok(Reading::WebSocket(Box::new(request), accepted));
    }
    let forms = ["text/event-stream"];
    accept::choose(head, &forms).ok_or_else(|| not_acceptable(&forms))?;
    let request = StreamRequest::parse(query, last_event_id, Transport::Sse)?;
    check_log(&request.log)?;
    let encoding =
        if request.compression { accept::choose_encoding(head) } else { Encoding::Identity };
    let mut out = Vec::new();
    if to.head_only {
        sse::serve::write_head(to, encoding, &mut out);
        return Ok(Reading::Ready(out));
    }
    if is_stopping {
        sse::serve::write_not_now(CloseCode::Drained, to, &mut out);
        return Ok(Reading::Ready(out));
    }
    Ok(Reading::Sse(Box::new(request), encoding))
}

fn not_acceptable(forms: &[&str]) -> Problem {
    let detail = format!("this path answers with {}", forms.join(" or "));
    Problem::new(ProblemKind::NotAcceptable, detail)
}
