//! What a head asks for: everything is judged here that needs no body, and answered that needs no waiting.

use std::rc::Rc;

use super::{
    Begun, Next, Reader, follow,
    outbox::{self, Item},
};
use crate::{
    append::{self, AppendForm},
    health, history,
    http::{
        admission,
        body::BodyDecoder,
        head::{BodyLength, Head},
        operation::{Change, Operation},
        query::HistoryRequest,
        response::{self, AnswerTo},
    },
    monitoring, pages,
    problem::Problem,
    reading::{self, Reading},
    settings::{self, ChangeForm},
    stream::live::LiveLog,
    unsent::Held,
};

/// What a read is answered with.
enum Reply {
    Item(Item),
    Next(Next),
}

impl Reader<'_> {
    /// Judges a head, and does everything that needs no body and no waiting. `body_has_come` says that
    /// something follows the head already.
    pub(super) fn begin(&self, head: &Head, body_has_come: bool) -> Begun {
        self.shard.counts().own().requests.add(1);
        let mut to = AnswerTo::new(head);
        to.date = self.shard.date();
        to.keep_alive &= !self.shard.drain().is_on();
        let config = self.shard.config();
        match self.accept(head, &mut to) {
            Ok(Operation::AppendRaw { topic }) => {
                let form = AppendForm::of_topic(head, topic, config);
                self.begin_append(head, to, form, body_has_come)
            }
            Ok(Operation::AppendEvents) => {
                self.begin_append(head, to, AppendForm::of_events(head, config), body_has_come)
            }
            Ok(Operation::Change(change)) => match self.begin_change(&change, head) {
                Ok((form, decoder)) => {
                    self.ask_for_body(head, body_has_come);
                    Begun::Change { form: Box::new(form), decoder, to }
                }
                Err(problem) => {
                    let (problem, next) = refusal(problem, head, &to);
                    let answer =
                        settings::refuse(change, problem, self.shard.live().log().clone(), to);
                    self.outbox.push(Item::Pending(Box::pin(answer)));
                    Begun::Answered(next)
                }
            },
            Ok(operation) => {
                // A body that nobody asked for is not read: nobody can tell then where the next
                // request begins.
                to.keep_alive &= is_without_body(head);
                match self.read(operation, head, &to) {
                    Ok(Reply::Item(item)) => {
                        self.outbox.push(item);
                        Begun::Answered(follow(&to))
                    }
                    Ok(Reply::Next(next)) => Begun::TakenOver(next),
                    Err(problem) => self.refuse(problem, head, &to),
                }
            }
            Err(problem) => self.refuse(problem, head, &to),
        }
    }

    fn begin_change(
        &self,
        change: &Change,
        head: &Head,
    ) -> Result<(ChangeForm, BodyDecoder), Problem> {
        let form = ChangeForm::new(change.clone(), head)?;
        let decoder = form.decoder(head)?;
        Ok((form, decoder))
    }

    fn begin_append(
        &self,
        head: &Head,
        to: AnswerTo,
        form: Result<AppendForm, Problem>,
        body_has_come: bool,
    ) -> Begun {
        let form = form.and_then(|form| {
            let decoder = form.decoder(head, self.shard.config())?;
            Ok((form, decoder))
        });
        let (form, decoder) = match form {
            Ok(form) => form,
            Err(problem) => {
                let problem = append::refused_by_head(problem, head, self.shard.log());
                return self.refuse(problem, head, &to);
            }
        };
        self.ask_for_body(head, body_has_come);
        Begun::Append { form, decoder, to }
    }

    /// The head is accepted: a client that waits to be told so before it sends the body is.
    fn ask_for_body(&self, head: &Head, body_has_come: bool) {
        if head.expects_continue() && !body_has_come {
            self.outbox.push(Item::Ready(response::CONTINUE.to_vec()));
        }
    }

    /// Checks who asks, and what for. CORS fields are in `to` even if it is refused.
    fn accept(&self, head: &Head, to: &mut AnswerTo) -> Result<Operation, Problem> {
        admission::admit(head, self.shard.origins(), to)
    }

    /// Answers everything but an append.
    fn read(&self, operation: Operation, head: &Head, to: &AnswerTo) -> Result<Reply, Problem> {
        let mut out = Vec::new();
        match operation {
            Operation::AppendRaw { .. } | Operation::AppendEvents | Operation::Change(_) => {
                unreachable!("it has a body to read")
            }
            Operation::Home => pages::write_home(to, &mut out),
            Operation::Asset(asset) => pages::write_asset(asset, to, &mut out),
            Operation::Problems => pages::write_problems(to, &mut out),
            Operation::ProblemPage(entry) => pages::write_problem_page(entry, to, &mut out),
            Operation::Live => health::write_live(to, &mut out),
            Operation::Ready | Operation::Healthy => {
                // Appends before it may be what fills the disk.
                let answer = health::ready(self.shard.clone(), to.clone());
                return Ok(Reply::Item(Item::Pending(Box::pin(answer))));
            }
            Operation::Metrics => {
                let answer = monitoring::answer(self.shard.clone(), to.clone());
                return Ok(Reply::Item(Item::Pending(Box::pin(answer))));
            }
            Operation::Options { allow } => response::write_options(head, allow, to, &mut out),
            operation @ (Operation::Stream { .. }
            | Operation::History
            | Operation::Topics
            | Operation::Topic { .. }
            | Operation::Pattern { .. }
            | Operation::Logs
            | Operation::Log { .. }) => {
                let (live, is_stopping) = (self.shard.live(), self.shard.drain().is_on());
                let unsent = self.shard.workspace().unsent();
                let item = match reading::read(operation, head, to, live, unsent, is_stopping)? {
                    Reading::Ready(bytes) => Item::Ready(bytes),
                    Reading::Pending(answer) => Item::Pending(answer),
                    Reading::Lines(request) => {
                        let (live, held) = (live.clone(), unsent.hold(0));
                        Item::Streamed(lines_of_history(live, *request, held, to.clone()))
                    }
                    Reading::Sse(request, encoding) => {
                        self.shard.counts().own().streams.add(1);
                        return Ok(Reply::Next(Next::Sse(request, encoding, Box::new(to.clone()))));
                    }
                    Reading::WebSocket(request, accepted) => {
                        self.shard.counts().own().streams.add(1);
                        return Ok(Reply::Next(Next::WebSocket(request, accepted)));
                    }
                };
                return Ok(Reply::Item(item));
            }
        }
        Ok(Reply::Item(Item::Ready(out)))
    }

    /// Refuses a request whose body, if it has one, was not read.
    fn refuse(&self, problem: Problem, head: &Head, to: &AnswerTo) -> Begun {
        let (problem, next) = refusal(problem, head, to);
        self.push_problem(&problem, to);
        Begun::Answered(next)
    }

    /// Refuses what is no request: nobody can tell where another would begin.
    pub(super) fn refuse_unreadable(&self, problem: &Problem) -> Begun {
        self.push_problem(problem, &AnswerTo::unreadable(self.shard.date()));
        Begun::Answered(Next::Close)
    }
}

/// How a request is refused whose body, if it has one, was not read, and what follows it.
fn refusal(problem: Problem, head: &Head, to: &AnswerTo) -> (Problem, Next) {
    let problem = if is_without_body(head) { problem } else { problem.closing() };
    let next = if problem.closes() { Next::Close } else { follow(to) };
    (problem, next)
}

fn lines_of_history(
    live: Rc<LiveLog>,
    request: HistoryRequest,
    held: Held,
    to: AnswerTo,
) -> outbox::StreamedAnswer {
    Box::new(move |mut writer| {
        Box::pin(async move {
            let send = async |bytes: Vec<u8>| writer.send(&bytes).await;
            let is_whole = history::lines(live, request, held, to, send).await;
            (writer, is_whole)
        })
    })
}

fn is_without_body(head: &Head) -> bool {
    matches!(head.body_length(), BodyLength::Unstated | BodyLength::Sized(0))
}
