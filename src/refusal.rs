//! What a request is told for which the server has no place.
//!
//! | request | answer |
//! |---|---|
//! | for an event stream | `200`, `retry:`, `connection.closing`, the end: an `EventSource` gives up for ever at 503 |
//! | `/livez`, `/readyz`, `/healthz`, a preflight | what they always get: a full server lives, and is ready |
//! | that could never be served (400, 403, 404, ...) | what it always gets: to come back would not help |
//! | anything else | `503` and `Retry-After` |
//!
//! Each answer is the connection's last.

use crate::{
    append::{self, AppendForm},
    health,
    http::{
        admission,
        head::{BodyLength, Head},
        operation::{Change, Operation},
        request::{HeadParser, Parsed},
        response::{self, AnswerTo},
    },
    problem::{CloseCode, Problem, ProblemKind},
    reading::{self, Reading},
    settings::ChangeForm,
    shard::Shard,
    sse,
    stream::compression::Encoding,
};

/// Places come free as others leave, which takes longer than a queue for the disk does.
const RETRY_AFTER_S: u32 = 2;

/// What was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// How long the request is, its body included; None if nobody can tell.
    pub(crate) request_bytes: Option<u64>,
}

/// Puts into `out`, in place of what is in it, the answer to the request that `came` begins with. None
/// if its head has not come whole.
pub(crate) fn answer(shard: &Shard, came: &[u8], out: &mut Vec<u8>) -> Option<Refused> {
    out.clear();
    let (head, head_bytes) = match HeadParser::default().parse(came) {
        Parsed::Incomplete => return None,
        Parsed::Refused(problem) => {
            response::write_problem(&problem, &AnswerTo::unreadable(shard.date()), out);
            return Some(Refused { request_bytes: None });
        }
        Parsed::Request { head, bytes } => (head, bytes),
    };
    let mut to = AnswerTo::new(&head);
    to.date = shard.date();
    to.keep_alive = false;
    match admission::admit(&head, shard.origins(), &mut to) {
        Ok(Operation::Live) => health::write_live(&to, out),
        Ok(Operation::Ready | Operation::Healthy) => health::write_ready(shard, &to, out),
        Ok(Operation::Options { allow }) => response::write_options(&head, allow, &to, out),
        Ok(operation) => {
            let is_append =
                matches!(operation, Operation::AppendRaw { .. } | Operation::AppendEvents);
            match judge(shard, operation, &head, &to) {
                Ok(Wants::Events) => write_stream(&to, out),
                judged => {
                    let mut problem = judged.err().unwrap_or_else(|| no_place(shard));
                    if is_append {
                        problem = append::refused_by_head(problem, &head, shard.log());
                    }
                    response::write_problem(&problem, &to, out);
                }
            }
        }
        Err(problem) => response::write_problem(&problem, &to, out),
    }
    let body_bytes = match head.body_length() {
        BodyLength::Unstated => Some(0),
        BodyLength::Sized(bytes) => Some(bytes),
        BodyLength::Chunked => None,
    };
    let head_bytes = u64::try_from(head_bytes).expect("a head is short");
    Some(Refused { request_bytes: body_bytes.map(|bytes| bytes.saturating_add(head_bytes)) })
}

/// What a request is for that would be served.
enum Wants {
    Events,
    Other,
}

/// Fails with what its head alone is refused for.
fn judge(
    shard: &Shard,
    operation: Operation,
    head: &Head,
    to: &AnswerTo,
) -> Result<Wants, Problem> {
    let config = shard.config();
    match operation {
        Operation::AppendRaw { topic } => {
            AppendForm::of_topic(head, topic, config)?.decoder(head, config)?;
        }
        Operation::AppendEvents => {
            AppendForm::of_events(head, config)?.decoder(head, config)?;
        }
        // Only the log knows whether the path is to be blamed.
        Operation::Change(
            Change::SetTopics { is_operation: true, .. }
            | Change::Delete { is_operation: true, .. },
        ) => {}
        Operation::Change(change) => {
            ChangeForm::new(change, head)?.decoder(head)?;
        }
        operation @ (Operation::Stream { .. }
        | Operation::History
        | Operation::Topics
        | Operation::Topic { .. }
        | Operation::Pattern { .. }
        | Operation::Logs
        | Operation::Log { .. }) => {
            let unsent = shard.workspace().unsent();
            match reading::read(operation, head, to, shard.live(), unsent, false)? {
                // The head of a stream is there at once.
                Reading::Sse(..) | Reading::Ready(_) => return Ok(Wants::Events),
                // Nothing of it has begun.
                Reading::Pending(_) | Reading::Lines(_) | Reading::WebSocket(..) => {}
            }
        }
        _ => {}
    }
    Ok(Wants::Other)
}

fn write_stream(to: &AnswerTo, out: &mut Vec<u8>) {
    if to.head_only {
        sse::serve::write_head(to, Encoding::Identity, out);
    } else {
        sse::serve::write_not_now(CloseCode::Overloaded, to, out);
    }
}

fn no_place(shard: &Shard) -> Problem {
    let max = shard.connections().limit().max();
    let detail = format!("all {max} places for connections are taken");
    Problem::new(ProblemKind::Overloaded, detail).retry_after(RETRY_AFTER_S)
}
