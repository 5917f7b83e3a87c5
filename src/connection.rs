//! One socket's life: heads, bodies, answers in order, deadlines, and the hand-over to a stream.
//!
//! ```text
//!            +-- reader: head -> operation -> body -> answer, or the promise of one --+
//!   socket --+                                                                        +-- one task
//!            +-- writer: answers in the order of their requests, as many as are ready --+
//! ```
//! The reader does not wait for an answer: while appends are on their way to the disk it reads on, so
//! that pipelined requests share a frame, within limits. Both sides are one task.
//!
//! It does wait where the order would show (RFC 9112, 9.3.2). An answer that tells of the log is made up
//! when those before it are known, so it has what was appended before. An append is begun when all answers
//! before it are made up, but those to appends, so they have nothing of it; until then no more is read than has
//! come with it, so that it takes no memory of its own. A change waits for what is before it, and is waited
//! for by what is behind.
//!
//! What comes is read into memory that all connections of the shard share, and served from there:
//! nearly all requests come whole. What does not, or cannot be served without waiting, is kept in the
//! connection's own buffer and goes on from there. So a connection that waits holds no buffer.

mod bodies;
mod deadline;
mod inbound;
mod judging;
mod outbox;

use std::{
    future::{Future, poll_fn},
    io,
    os::fd::OwnedFd,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use monoio::time::Instant;

use crate::{
    append::{AppendForm, KnownHead, OwnValues, RepeatedAppend, RepeatedHeads},
    http::{
        body::BodyDecoder,
        query::StreamRequest,
        request::HeadParser,
        response::{self, AnswerTo},
    },
    problem::{Problem, ProblemKind},
    settings::ChangeForm,
    shard::{Place, Shard},
    socket::Socket,
    sse,
    stream::compression::Encoding,
    websocket::{self, frames::Accepted},
};
use inbound::{Came, Inbound};
use outbox::{Ending, Item, Outbox};

/// What follows a request.
enum Next {
    /// The next one.
    Request,
    /// The end, once all answers have left.
    Close,
    /// An event stream, whose answer's head has not been sent.
    Sse(Box<StreamRequest>, Encoding, Box<AnswerTo>),
    /// A WebSocket, whose handshake was accepted and is not answered yet.
    WebSocket(Box<StreamRequest>, Accepted),
}

/// A request whose head has been judged.
enum Begun {
    /// It is answered, or refused.
    Answered(Next),
    /// Something takes the socket over, once all answers before have left.
    TakenOver(Next),
    /// A change of settings and the like; what it may have of a body is to be read.
    Change { form: Box<ChangeForm>, decoder: BodyDecoder, to: AnswerTo },
    /// An append, whose body is to be read.
    Append { form: AppendForm, decoder: BodyDecoder, to: AnswerTo },
}

/// Serves a connection until it ends, or hands it over to a stream.
pub(crate) async fn serve(
    shard: Rc<Shard>,
    repeated: Rc<RepeatedHeads>,
    socket: OwnedFd,
    place: Place,
) {
    let socket = match shard.sockets().add(socket) {
        Ok(socket) => Rc::new(socket),
        Err(error) => return tracing::warn!(%error, "cannot watch a connection's socket"),
    };
    let Some((next, early_bytes)) = serve_http(&shard, &repeated, &socket).await else { return };
    let socket = Rc::into_inner(socket).expect("neither side has it any more");
    // From here on it is a subscriber, which needs no task, nor anything of what HTTP needed.
    let (live, guard) = (shard.live(), place);
    let taken_over = match next {
        Next::Sse(request, encoding, to) => socket
            .into_fd()
            .and_then(|socket| sse::serve::serve(socket, &to, *request, encoding, live, guard)),
        Next::WebSocket(request, accepted) => socket.into_fd().and_then(|socket| {
            websocket::session::serve(socket, &accepted, *request, &early_bytes, live, guard)
        }),
        Next::Request | Next::Close => Ok(()),
    };
    if let Err(error) = taken_over {
        tracing::warn!(%error, "cannot watch a subscriber's socket");
    }
}

/// Serves requests; what follows when all answers have left, and what has come of it already. None if
/// the client is gone.
async fn serve_http(
    shard: &Rc<Shard>,
    repeated: &RepeatedHeads,
    socket: &Rc<Socket>,
) -> Option<(Next, Vec<u8>)> {
    let outbox = Outbox::default();
    let stall = Duration::from_millis(shard.config().limits.send_stall_ms);
    let mut reader = Reader {
        shard,
        repeated,
        outbox: &outbox,
        inbound: Inbound::new(socket.clone(), shard.drain()),
        parser: HeadParser::default(),
        begun: None,
    };
    let next = {
        // Pinned here: a future that is handed over by value takes its place twice.
        let reading = pin!(reader.run());
        both(reading, pin!(outbox.write_all(socket, shard.workspace(), stall))).await?
    };
    Some((next, reader.inbound.into_rest()))
}

/// Runs the two sides until both have ended, or the writer has failed: then nobody is there.
/// The reader is polled first: what it pushes is seen by the writer in the same turn.
async fn both<T>(
    mut reading: Pin<&mut impl Future<Output = T>>,
    mut writing: Pin<&mut impl Future<Output = io::Result<()>>>,
) -> Option<T> {
    let (mut read, mut is_written) = (None, false);
    poll_fn(|context| {
        if read.is_none()
            && let Poll::Ready(outcome) = reading.as_mut().poll(context)
        {
            read = Some(outcome);
        }
        if !is_written && let Poll::Ready(outcome) = writing.as_mut().poll(context) {
            if outcome.is_err() {
                return Poll::Ready(None);
            }
            is_written = true;
        }
        if is_written && read.is_some() { Poll::Ready(read.take()) } else { Poll::Pending }
    })
    .await
}

/// The side that reads requests.
struct Reader<'a> {
    shard: &'a Rc<Shard>,
    repeated: &'a RepeatedHeads,
    outbox: &'a Outbox,
    inbound: Inbound<'a>,
    parser: HeadParser,
    /// What goes on behind the requests that came with it and were served in one go.
    begun: Option<Begun>,
}

impl Reader<'_> {
    async fn run(&mut self) -> Next {
        let next = self.read_requests().await;
        match next {
            Next::Sse(..) | Next::WebSocket(..) => self.outbox.close(Ending::KeepSocket),
            _ => {
                self.outbox.close(Ending::Shutdown);
                let linger_ms = self.shard.config().limits.linger_ms;
                let outbox = self.outbox;
                self.inbound.linger(linger_ms, || outbox.is_flushed()).await;
            }
        }
        next
    }

    async fn read_requests(&mut self) -> Next {
        let limits = &self.shard.config().limits;
        let mut head_began = None;
        loop {
            if !self.outbox.room(limits).await {
                return Next::Close;
            }
            let Some(begun) = self.begun.take().or_else(|| self.begin_kept(&mut head_began)) else {
                if !self.outbox.has_room(limits) {
                    continue;
                }
                match self.fill_head(&mut head_began).await {
                    Some(next) => return next,
                    None => continue,
                }
            };
            head_began = None;
            let next = match begun {
                Begun::Answered(next) => next,
                Begun::TakenOver(next) if self.outbox.flushed().await => next,
                Begun::TakenOver(_) => Next::Close,
                // Boxed, as few connections ever need what these keep while they wait.
                Begun::Change { form, decoder, to } => {
                    Box::pin(self.change(form, decoder, to)).await
                }
                Begun::Append { .. } if !self.outbox.made().await => Next::Close,
                Begun::Append { form: AppendForm::Whole(form), decoder, to } => {
                    Box::pin(self.append_whole(form, decoder, to)).await
                }
                Begun::Append { form: AppendForm::Lines(lines), decoder, to } => {
                    Box::pin(self.append_lines(lines, decoder, to)).await
                }
            };
            match next {
                Next::Request => {}
                next => return next,
            }
        }
    }

    /// Serves of what is kept what can be served in one go, and begins what follows; None if that has not come
    /// whole, or there is no room for answers.
    fn begin_kept(&mut self, head_began: &mut Option<Instant>) -> Option<Begun> {
        let kept = self.inbound.lend();
        let taken = self.serve_at_once(kept.bytes());
        self.inbound.take_back(kept);
        self.inbound.take(taken);
        if taken > 0 {
            *head_began = None;
        }
        self.begun.take()
    }

    /// Waits for more of a head, or for the first byte of one.
    async fn fill_head(&mut self, head_began: &mut Option<Instant>) -> Option<Next> {
        let limits = &self.shard.config().limits;
        let is_amid = !self.inbound.bytes().is_empty();
        let came = if is_amid {
            let began = *head_began.get_or_insert_with(Instant::now);
            let deadline = began + Duration::from_millis(limits.head_ms);
            let drain_head = Duration::from_millis(limits.drain_head_ms);
            self.inbound.fill_head(deadline, drain_head).await
        } else {
            self.inbound.rest();
            let mut is_waiting = false;
            poll_fn(|context| {
                // Mostly it is an answer that the task was woken for.
                if is_waiting && !self.inbound.has_news() {
                    return Poll::Pending;
                }
                let polled = self.poll_requests(context);
                is_waiting = polled.is_pending();
                polled
            })
            .await
        };
        match came {
            Ok(Came::Bytes) => None,
            Ok(Came::Late) if is_amid => {
                let detail = format!("the head did not come whole within {} ms", limits.head_ms);
                let problem = Problem::new(ProblemKind::RequestTimeout, detail);
                self.push_problem(&problem, &AnswerTo::unreadable(self.shard.date()));
                Some(Next::Close)
            }
            _ => Some(Next::Close),
        }
    }

    /// Serves requests as they come, while none of them needs anything but its own bytes. Ready when
    /// something is kept or begun, or at the end.
    fn poll_requests(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Came>> {
        let (shard, outbox) = (self.shard, self.outbox);
        let limits = &shard.config().limits;
        while outbox.has_room(limits) {
            let mut input = shard.workspace().input();
            match self.inbound.poll_into(&mut input, context) {
                Poll::Pending => {
                    drop(input);
                    if self.inbound.poll_drain(context).is_ready() {
                        return Poll::Ready(Ok(Came::Draining));
                    }
                    // Who waits for answers is not idle.
                    let idle = Duration::from_millis(limits.idle_ms);
                    ready!(self.inbound.poll_idle(idle, || !outbox.is_flushed(), context));
                    return Poll::Ready(Ok(Came::Late));
                }
                Poll::Ready(Ok(Came::Bytes)) => {}
                Poll::Ready(ended) => return Poll::Ready(ended),
            }
            let taken = self.serve_at_once(&input);
            self.inbound.keep(&input[taken..]);
            if self.begun.is_some() || taken < input.len() {
                break;
            }
        }
        Poll::Ready(Ok(Came::Bytes))
    }

    /// Serves the requests in `bytes` that came whole and do not have to wait for anything; returns how
    /// many bytes they took.
    fn serve_at_once(&mut self, bytes: &[u8]) -> usize {
        let limits = &self.shard.config().limits;
        let mut rest = bytes;
        while !rest.is_empty() && self.begun.is_none() && self.outbox.has_room(limits) {
            if let Some(next) = self.serve_repeated(&mut rest) {
                if !matches!(next, Next::Request) {
                    self.begun = Some(Begun::Answered(next));
                }
                continue;
            }
            let mut head = self.shard.workspace().head();
            let begun = match self.parser.parse_into(&mut head, rest) {
                Ok(None) => break,
                Ok(Some(head_bytes)) => {
                    rest = &rest[head_bytes..];
                    self.begin(&head, !rest.is_empty())
                }
                Err(problem) => self.refuse_unreadable(&problem),
            };
            let begun = match begun {
                Begun::Append { form: AppendForm::Whole(form), decoder, to } => {
                    match decoder.sized_bytes_left().map(usize::try_from) {
                        Some(Ok(body_bytes))
                            if body_bytes <= rest.len() && self.outbox.is_made() =>
                        {
                            let (body, behind) = rest.split_at(body_bytes);
                            rest = behind;
                            let body = Bytes::copy_from_slice(body);
                            let next = self.append_body(&form, OwnValues::default(), body, &to);
                            if to.keep_alive {
                                let body_limit = form.body_limit(self.shard.config());
                                let append = RepeatedAppend { form, to, body_bytes, body_limit };
                                self.repeated.learn(&head, append);
                            }
                            Begun::Answered(next)
                        }
                        _ => Begun::Append { form: AppendForm::Whole(form), decoder, to },
                    }
                }
                begun => begun,
            };
            if !matches!(begun, Begun::Answered(Next::Request)) {
                self.begun = Some(begun);
            }
        }
        bytes.len() - rest.len()
    }

    /// Serves an append off the front of `rest` whose head is known, and whose body has come whole.
    fn serve_repeated(&mut self, rest: &mut &[u8]) -> Option<Next> {
        if self.parser.is_amid() || !self.outbox.is_made() {
            return None;
        }
        let KnownHead { head_bytes, body_bytes, append, own } = self.repeated.find(rest)?;
        let body = rest[head_bytes..].get(..body_bytes)?;
        *rest = &rest[head_bytes + body_bytes..];
        self.shard.counts().own().requests.add(1);
        let mut to = append.to.clone();
        to.date = self.shard.date();
        to.keep_alive &= !self.shard.drain().is_on();
        Some(self.append_body(&append.form, own, Bytes::copy_from_slice(body), &to))
    }

    fn push_problem(&self, problem: &Problem, to: &AnswerTo) {
        let mut out = Vec::new();
        response::write_problem(problem, to, &mut out);
        self.outbox.push(Item::Ready(out));
    }
}

fn follow(to: &AnswerTo) -> Next {
    if to.keep_alive { Next::Request } else { Next::Close }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn future_bytes<A, B, C, D, F>(_: impl FnOnce(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_connection_that_waits_is_small() {
        let bytes = future_bytes(serve);
        assert!(bytes <= 2048, "the task of a connection takes {bytes} bytes");
    }
}
