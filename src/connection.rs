//! One socket's life: heads, bodies, answers in order, deadlines, and the hand-over to a stream.
//!
//! ```text
//!            +-- reader: head -> operation -> body -> answer, or the promise of one --+
//!   socket --+                                                                        +-- one task
//!            +-- writer: answers in the order of their requests, as many as are ready --+
//! ```
//! The reader does not wait for an answer: while appends are on their way to the disk it reads on, so
//! that pipelined requests share a frame, within limits. Both sides are one task; the read that waits
//! for the client stays the same operation all the while.

mod inbound;
mod outbox;

use std::{
    future::{Future, poll_fn},
    io,
    os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd},
    pin::pin,
    rc::Rc,
    task::Poll,
    time::Duration,
};

use monoio::{
    io::{OwnedWriteHalf, Splitable},
    net::TcpStream,
    time::Instant,
};

use crate::{
    append::{AckAnswer, AppendForm, LineAppends, WholeForm},
    health, history,
    http::{
        admission,
        body::{BodyDecoder, BodyPiece},
        head::{BodyLength, Head},
        query::{HistoryRequest, StreamRequest},
        request::{HeadParser, Parsed},
        response::{self, AnswerTo},
        route::Operation,
    },
    pages,
    problem::{Problem, ProblemKind},
    reading::{self, Reading},
    shard::{Place, Shard},
    sse,
    stream::{compression::Encoding, live::LiveLog},
    websocket::{self, frames::Accepted},
};
use inbound::{BodyFault, Came, Inbound};
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

/// Serves a connection until it ends, or hands it over to a stream.
pub(crate) async fn serve(shard: Rc<Shard>, stream: TcpStream, place: Place) {
    let socket = stream.as_raw_fd();
    let (read_half, write_half) = stream.into_split();
    let outbox = Outbox::default();
    let stall = Duration::from_millis(shard.config().limits.send_stall_ms);
    let reader = Reader {
        shard: &shard,
        outbox: &outbox,
        inbound: Inbound::new(read_half),
        parser: HeadParser::default(),
    };
    let outcome = both(reader.run(), outbox.write_all(write_half, socket, stall)).await;
    let Some((next, inbound, write_half)) = outcome else { return };
    drop(outbox);
    let (read_half, early_bytes) = inbound.into_parts();
    let stream = read_half.reunite(write_half).expect("they are halves of one socket");
    // SAFETY: the runtime gives the descriptor up, so that it has no other owner.
    let socket = unsafe { OwnedFd::from_raw_fd(stream.into_raw_fd()) };
    // From here on it is a subscriber, which needs no task, nor anything of what HTTP needed.
    let (live, guard) = (shard.live(), place);
    let taken_over = match next {
        Next::Sse(request, encoding, to) => {
            sse::serve::serve(socket, &to, *request, encoding, live, guard)
        }
        Next::WebSocket(request, accepted) => {
            websocket::session::serve(socket, &accepted, *request, &early_bytes, live, guard)
        }
        Next::Request | Next::Close => Ok(()),
    };
    if let Err(error) = taken_over {
        tracing::warn!(%error, "cannot watch a subscriber's socket");
    }
}

/// Runs the two sides until both have ended, or the writer has failed: then nobody is there.
/// The reader is polled first: what it pushes is seen by the writer in the same turn.
async fn both(
    reading: impl Future<Output = (Next, Inbound)>,
    writing: impl Future<Output = io::Result<Option<OwnedWriteHalf<TcpStream>>>>,
) -> Option<(Next, Inbound, OwnedWriteHalf<TcpStream>)> {
    let (mut reading, mut writing) = (pin!(reading), pin!(writing));
    let (mut read, mut written) = (None, None);
    poll_fn(|context| {
        if read.is_none()
            && let Poll::Ready(outcome) = reading.as_mut().poll(context)
        {
            read = Some(outcome);
        }
        if written.is_none()
            && let Poll::Ready(outcome) = writing.as_mut().poll(context)
        {
            match outcome {
                Ok(half) => written = Some(half),
                Err(_) => return Poll::Ready(()),
            }
        }
        if read.is_some() && written.is_some() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    let (next, inbound) = read?;
    Some((next, inbound, written??))
}

/// The side that reads requests.
struct Reader<'a> {
    shard: &'a Rc<Shard>,
    outbox: &'a Outbox,
    inbound: Inbound,
    parser: HeadParser,
}

impl Reader<'_> {
    async fn run(mut self) -> (Next, Inbound) {
        let next = self.read_requests().await;
        match next {
            Next::Sse(..) | Next::WebSocket(..) => self.outbox.close(Ending::KeepSocket),
            _ => {
                self.outbox.close(Ending::Shutdown);
                let linger_ms = self.shard.config().limits.linger_ms;
                self.inbound.linger(linger_ms, || self.outbox.is_flushed()).await;
            }
        }
        (next, self.inbound)
    }

    async fn read_requests(&mut self) -> Next {
        let limits = &self.shard.config().limits;
        let (requests_max, bytes_max) = (limits.pipelined_requests_max, limits.pipelined_bytes_max);
        let mut head_began = None;
        loop {
            if !self.outbox.room(requests_max, bytes_max).await {
                return Next::Close;
            }
            match self.parser.parse(self.inbound.bytes()) {
                Parsed::Incomplete => {
                    if let Some(next) = self.fill_head(&mut head_began).await {
                        return next;
                    }
                }
                Parsed::Refused(problem) => {
                    self.push_problem(&problem, &AnswerTo::unreadable());
                    return Next::Close;
                }
                Parsed::Request { head, bytes } => {
                    head_began = None;
                    self.inbound.take(bytes);
                    match self.serve_request(head).await {
                        Next::Request => {}
                        next => return next,
                    }
                }
            }
        }
    }

    /// Waits for more of a head, or for the first byte of one.
    async fn fill_head(&mut self, head_began: &mut Option<Instant>) -> Option<Next> {
        let limits = &self.shard.config().limits;
        let (outbox, now) = (self.outbox, Instant::now());
        let idle = Duration::from_millis(limits.idle_ms);
        let is_amid = !self.inbound.bytes().is_empty();
        let came = if is_amid {
            let began = *head_began.get_or_insert(now);
            let deadline = began + Duration::from_millis(limits.head_ms);
            self.inbound.fill(deadline, None, || None).await
        } else if self.shard.drain().is_on() {
            return Some(Next::Close);
        } else {
            // Who waits for answers is not idle.
            let extend = || (!outbox.is_flushed()).then(|| Instant::now() + idle);
            self.inbound.fill(now + idle, Some(self.shard.drain()), extend).await
        };
        match came {
            Ok(Came::Bytes) => None,
            Ok(Came::Late) if is_amid => {
                let detail = format!("the head did not come whole within {} ms", limits.head_ms);
                let problem = Problem::new(ProblemKind::RequestTimeout, detail);
                self.push_problem(&problem, &AnswerTo::unreadable());
                Some(Next::Close)
            }
            _ => Some(Next::Close),
        }
    }

    async fn serve_request(&mut self, head: Head) -> Next {
        let mut to = AnswerTo::new(&head);
        to.date = self.shard.date();
        to.keep_alive &= !self.shard.drain().is_on();
        let next = match self.accept(&head, &mut to) {
            Ok(Operation::AppendRaw { topic }) => {
                let form = AppendForm::of_topic(&head, topic, self.shard.config());
                self.append(&head, &to, form).await
            }
            Ok(Operation::AppendEvents) => {
                let form = AppendForm::of_events(&head, self.shard.config());
                self.append(&head, &to, form).await
            }
            Ok(operation) => {
                // A body that nobody asked for is not read: nobody can tell then where the next
                // request begins.
                to.keep_alive &= is_without_body(&head);
                match self.read(operation, &head, &to) {
                    Ok(Reply::Item(item)) => {
                        self.outbox.push(item);
                        follow(&to)
                    }
                    // What takes the socket over begins behind all answers.
                    Ok(Reply::Next(next)) if self.outbox.flushed().await => next,
                    Ok(Reply::Next(_)) => Next::Close,
                    Err(problem) => self.refuse(problem, &head, &to),
                }
            }
            Err(problem) => self.refuse(problem, &head, &to),
        };
        self.parser.recycle(head);
        next
    }

    /// Checks who asks, and what for. CORS fields are in `to` even if it is refused.
    fn accept(&self, head: &Head, to: &mut AnswerTo) -> Result<Operation, Problem> {
        admission::admit(head, self.shard.origins(), to)
    }

    /// Answers everything but an append.
    fn read(&self, operation: Operation, head: &Head, to: &AnswerTo) -> Result<Reply, Problem> {
        let mut out = Vec::new();
        match operation {
            Operation::AppendRaw { .. } | Operation::AppendEvents => {
                unreachable!("an append has a body to read")
            }
            Operation::Home => pages::write_home(to, &mut out),
            Operation::Asset(asset) => pages::write_asset(asset, to, &mut out),
            Operation::Problems => pages::write_problems(to, &mut out),
            Operation::ProblemPage(entry) => pages::write_problem_page(entry, to, &mut out),
            Operation::Live => health::write_live(to, &mut out),
            Operation::Ready | Operation::Healthy => health::write_ready(self.shard, to, &mut out),
            Operation::Options { allow } => response::write_options(head, allow, to, &mut out),
            operation @ (Operation::Stream { .. }
            | Operation::History
            | Operation::Topics
            | Operation::Topic { .. }) => {
                let (live, is_stopping) = (self.shard.live(), self.shard.drain().is_on());
                let item = match reading::read(operation, head, to, live, is_stopping)? {
                    Reading::Ready(bytes) => Item::Ready(bytes),
                    Reading::Pending(answer) => Item::Pending(answer),
                    Reading::Lines(request) => {
                        Item::Streamed(lines_of_history(live.clone(), *request, to.clone()))
                    }
                    Reading::Sse(request, encoding) => {
                        return Ok(Reply::Next(Next::Sse(request, encoding, Box::new(to.clone()))));
                    }
                    Reading::WebSocket(request, accepted) => {
                        return Ok(Reply::Next(Next::WebSocket(request, accepted)));
                    }
                };
                return Ok(Reply::Item(item));
            }
        }
        Ok(Reply::Item(Item::Ready(out)))
    }

    async fn append(
        &mut self,
        head: &Head,
        to: &AnswerTo,
        form: Result<AppendForm, Problem>,
    ) -> Next {
        let form = form.and_then(|form| {
            if head.body_length() == BodyLength::Unstated {
                let detail = "an append states Content-Length, or is sent in chunks";
                return Err(Problem::new(ProblemKind::LengthRequired, detail));
            }
            let decoder = BodyDecoder::new(head.body_length(), form.body_limit())?;
            Ok((form, decoder))
        });
        let (form, decoder) = match form {
            Ok(form) => form,
            Err(problem) => return self.refuse(problem, head, to),
        };
        if head.expects_continue() && self.inbound.bytes().is_empty() {
            self.outbox.push(Item::Ready(response::CONTINUE.to_vec()));
        }
        match form {
            AppendForm::Whole(form) => self.append_whole(form, decoder, to).await,
            AppendForm::Lines(lines) => self.append_lines(*lines, decoder, to).await,
        }
    }

    /// The body is one append.
    async fn append_whole(&mut self, form: WholeForm, decoder: BodyDecoder, to: &AnswerTo) -> Next {
        let stall_ms = self.shard.config().limits.body_stall_ms;
        let body = match self.inbound.body(decoder, stall_ms).await {
            Ok(body) => body,
            Err(fault) => return self.fault(fault, to),
        };
        let is_minimal = form.is_minimal();
        match form.events(body) {
            Ok(parsed) => {
                let event_bytes = parsed.events.iter().map(|event| event.data.len()).sum();
                let answer = AckAnswer::submit(self.shard.log(), parsed, is_minimal, to);
                self.outbox.push(Item::Append { answer, event_bytes });
                follow(to)
            }
            // The body has been read: the connection can go on.
            Err(problem) => {
                self.push_problem(&problem, to);
                if problem.closes() { Next::Close } else { follow(to) }
            }
        }
    }

    /// Each line of the body is an event, appended while others still come.
    async fn append_lines(
        &mut self,
        mut lines: LineAppends,
        mut decoder: BodyDecoder,
        to: &AnswerTo,
    ) -> Next {
        let shard = self.shard;
        let stall_ms = shard.config().limits.body_stall_ms;
        let outcome = loop {
            let came = self.inbound.bytes();
            let mut input = came;
            let step = loop {
                match decoder.next(&mut input) {
                    Ok(BodyPiece::Data(data)) => {
                        if let Err(problem) = lines.take(data, shard.log()) {
                            break Some(Err(problem));
                        }
                    }
                    Ok(BodyPiece::More) => break None,
                    Ok(BodyPiece::End) => break Some(Ok(())),
                    Err(problem) => break Some(Err(problem)),
                }
            };
            let taken = came.len() - input.len();
            self.inbound.take(taken);
            match step {
                Some(outcome) => break outcome.and_then(|()| lines.end(shard.log())),
                None => lines.submit(shard.log()),
            }
            if let Err(problem) = lines.room().await {
                break Err(problem);
            }
            match self.inbound.fill_body(stall_ms).await {
                Ok(()) => {}
                Err(BodyFault::Refused(problem)) => break Err(problem),
                // What is on its way goes on; nothing more is appended.
                Err(BodyFault::Cut) => return Next::Close,
            }
        };
        let is_whole = decoder.is_ended();
        let mut out = Vec::new();
        let mut to = to.clone();
        to.keep_alive &= is_whole;
        lines.finish(outcome, shard.log(), &to, &mut out).await;
        self.outbox.push(Item::Ready(out));
        follow(&to)
    }

    fn fault(&self, fault: BodyFault, to: &AnswerTo) -> Next {
        if let BodyFault::Refused(problem) = fault {
            self.push_problem(&problem.closing(), to);
        }
        Next::Close
    }

    /// Refuses a request whose body, if it has one, was not read.
    fn refuse(&self, problem: Problem, head: &Head, to: &AnswerTo) -> Next {
        let problem = if is_without_body(head) { problem } else { problem.closing() };
        self.push_problem(&problem, to);
        if problem.closes() { Next::Close } else { follow(to) }
    }

    fn push_problem(&self, problem: &Problem, to: &AnswerTo) {
        let mut out = Vec::new();
        response::write_problem(problem, to, &mut out);
        self.outbox.push(Item::Ready(out));
    }
}

/// What a read is answered with.
enum Reply {
    Item(Item),
    Next(Next),
}

fn lines_of_history(
    live: Rc<LiveLog>,
    request: HistoryRequest,
    to: AnswerTo,
) -> outbox::StreamedAnswer {
    Box::new(move |mut writer| {
        Box::pin(async move {
            let send = async |bytes| writer.send(bytes).await;
            let is_whole = history::lines(live, request, to, send).await;
            (writer, is_whole)
        })
    })
}

fn follow(to: &AnswerTo) -> Next {
    if to.keep_alive { Next::Request } else { Next::Close }
}

fn is_without_body(head: &Head) -> bool {
    matches!(head.body_length(), BodyLength::Unstated | BodyLength::Sized(0))
}
