//! Requests that have a body to read: appends, and changes of settings and the like.

use bytes::Bytes;

use super::{Next, Reader, follow, inbound::BodyFault, outbox::Item};
use crate::{
    append::{AckAnswer, LineAppends, OwnValues, WholeForm},
    http::{
        body::{BodyDecoder, BodyPiece},
        response::AnswerTo,
    },
    settings::ChangeForm,
};

impl Reader<'_> {
    /// The body is one append.
    pub(super) async fn append_whole(
        &mut self,
        form: WholeForm,
        decoder: BodyDecoder,
        to: AnswerTo,
    ) -> Next {
        match self.inbound.body(decoder, &self.shard.config().limits).await {
            Ok(body) => self.append_body(&form, OwnValues::default(), body, &to),
            Err(BodyFault::Refused(problem)) => {
                let problem = form.refused(problem.closing(), self.shard.log());
                self.push_problem(&problem, &to);
                Next::Close
            }
            Err(BodyFault::Lost) => Next::Close,
        }
    }

    pub(super) fn append_body(
        &self,
        form: &WholeForm,
        own: OwnValues,
        body: Bytes,
        to: &AnswerTo,
    ) -> Next {
        match form.read(body, own, || self.shard.log().id_window()) {
            Ok(append) => {
                let event_bytes = append.data_bytes();
                let answer = AckAnswer::submit(self.shard.log(), append, to);
                self.outbox.push(Item::Append { answer, event_bytes });
                follow(to)
            }
            // The body has been read: the connection can go on.
            Err(problem) => {
                let problem = form.refused(problem, self.shard.log());
                self.push_problem(&problem, to);
                if problem.closes() { Next::Close } else { follow(to) }
            }
        }
    }

    /// Waits for all that was asked for before, which the change is to find made, and for the change,
    /// which is to be found by what is asked for behind it.
    pub(super) async fn change(
        &mut self,
        form: Box<ChangeForm>,
        decoder: BodyDecoder,
        to: AnswerTo,
    ) -> Next {
        match self.inbound.body(decoder, &self.shard.config().limits).await {
            Ok(body) => {
                if !self.outbox.flushed().await {
                    return Next::Close;
                }
                let mut out = Vec::new();
                form.make(body, self.shard.log(), &to, &mut out).await;
                self.outbox.push(Item::Ready(out));
                follow(&to)
            }
            Err(BodyFault::Refused(problem)) => {
                let answer = form.refuse(problem.closing(), self.shard.live().log().clone(), to);
                self.outbox.push(Item::Pending(Box::pin(answer)));
                Next::Close
            }
            Err(BodyFault::Lost) => Next::Close,
        }
    }

    /// Each line of the body is an event, appended while others still come.
    pub(super) async fn append_lines(
        &mut self,
        mut lines: Box<LineAppends>,
        mut decoder: BodyDecoder,
        mut to: AnswerTo,
    ) -> Next {
        let shard = self.shard;
        let limits = &shard.config().limits;
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
                    // As where it is cut short: the lines that have come whole go on.
                    Err(problem) => {
                        lines.submit(shard.log());
                        break Some(Err(problem.with("line", lines.line_number())));
                    }
                }
            };
            let taken = came.len() - input.len();
            self.inbound.take(taken);
            match step {
                Some(outcome) => break outcome.and_then(|()| lines.end(shard.log())),
                None => lines.submit(shard.log()),
            }
            if let Err(problem) = lines.room(shard.log()).await {
                break Err(problem);
            }
            // Inside a line its beginning is kept, which must not be for ever. Between lines nothing is, and
            // they come when there is something to tell.
            let filled = match lines.is_between() {
                true => self.inbound.fill_pausing_body(limits).await,
                false => self.inbound.fill_body(limits).await.map(|()| true),
            };
            match filled {
                Ok(true) => {}
                // A client that waits for its next line is told by then if one before it was refused.
                Ok(false) => {
                    if let Err(problem) = lines.settle(shard.log()).await {
                        break Err(problem);
                    }
                }
                Err(BodyFault::Refused(problem)) => {
                    break Err(problem.with("line", lines.line_number()));
                }
                // What is on its way goes on; nothing more is appended.
                Err(BodyFault::Lost) => return Next::Close,
            }
        };
        let is_whole = decoder.is_ended();
        let mut out = Vec::new();
        to.keep_alive &= is_whole;
        lines.finish(outcome, shard.log(), &to, &mut out).await;
        self.outbox.push(Item::Ready(out));
        follow(&to)
    }
}
