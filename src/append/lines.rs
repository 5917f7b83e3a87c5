//! A body of lines, each an event, appended while others still come.
//!
//! Lines gather into batches, so that a long body costs a commit now and then and not one for each
//! line; what came with one read is submitted before the next, so that a slow writer's line does not
//! wait. The bytes on their way to the disk are bounded: beyond that no more of the body is read.
//!
//! Batches are submitted in the order of their lines, as one chain: none after a line that is refused
//! here, and none that is taken after one that the log refused (overloaded, full, read-only). So what
//! was appended is exactly what stands before the line that the answer names.
//!
//! A batch happens whole or not at all, so one that is refused for an event's id is appended again in
//! parts: then that is known of a line, and not of a batch. Not behind a refusal: an id is answered at once,
//! and what was staged before it may be refused later, when the disk is full.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use bytes::Bytes;
use strandline_storage::{
    error::AppendError,
    event::NewEvent,
    frame::{self, EVENTS_MAX},
    offset::Offset,
    topic::Topic,
};

use super::with_id_window;
use crate::{
    config::ServerConfig,
    event_json::{RawAppend, parse_event},
    http::{
        appended::{self, Appended},
        response::{self, AnswerTo},
    },
    log_calls::{AckFuture, Acked, AppendChain},
    log_handle::LogHandle,
    ndjson::{Line, LineError, Lines},
    problem::{Problem, ProblemKind},
};

/// What a line is.
enum LineContent {
    /// An event's data; everything else is the same for all.
    Data { raw: Box<RawAppend>, topic: Topic },
    /// An event object; this topic is for those that name none.
    Object { topic: Option<Topic> },
}

/// An event, and the line that it stands in.
type LineEvent = (u64, NewEvent);

/// Events that were submitted together.
struct Batch {
    ack: AckFuture,
    first_line: u64,
    events: u64,
    bytes: usize,
    /// The events again, since one that has an id may have to be appended again: of this batch, or of
    /// one before it.
    kept: Option<Vec<LineEvent>>,
}

/// An append of lines on its way.
pub(crate) struct LineAppends {
    content: LineContent,
    is_minimal: bool,
    lines: Lines,
    gathered: Vec<LineEvent>,
    gathered_bytes: usize,
    /// Whether an event so far has an id.
    has_ids: bool,
    chain: AppendChain,
    /// Why the log refused the first batch that it refused.
    refused: Option<Problem>,
    in_flight: VecDeque<Batch>,
    in_flight_bytes: usize,
    batch_bytes: usize,
    in_flight_bytes_max: usize,
    /// Events that are there, and how many of them were there already.
    count: u64,
    duplicates: u64,
    first: Option<Offset>,
    last: Option<Offset>,
}

impl LineAppends {
    /// Lines that are the data of events of one topic.
    pub(super) fn of_data(
        raw: RawAppend,
        topic: Topic,
        is_minimal: bool,
        config: &ServerConfig,
    ) -> Self {
        let content = LineContent::Data { raw: Box::new(raw), topic };
        Self::new(content, config.log.event_bytes_max, is_minimal, config)
    }

    /// Lines that are event objects: each may be as long as one that is a body of its own, since what
    /// is limited is its data.
    pub(super) fn of_objects(
        topic: Option<Topic>,
        is_minimal: bool,
        config: &ServerConfig,
    ) -> Self {
        let line_bytes_max = usize::try_from(config.limits.array_bytes_max).unwrap_or(usize::MAX);
        Self::new(LineContent::Object { topic }, line_bytes_max, is_minimal, config)
    }

    fn new(
        content: LineContent,
        line_bytes_max: usize,
        is_minimal: bool,
        config: &ServerConfig,
    ) -> Self {
        LineAppends {
            content,
            is_minimal,
            lines: Lines::new(line_bytes_max),
            gathered: Vec::new(),
            gathered_bytes: 0,
            has_ids: false,
            chain: AppendChain::default(),
            refused: None,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            batch_bytes: config.limits.line_batch_bytes,
            in_flight_bytes_max: config.limits.lines_in_flight_bytes_max,
            count: 0,
            duplicates: 0,
            first: None,
            last: None,
        }
    }

    /// Takes a piece of the body. Fails at the first line that is no event; those before it go on.
    pub(crate) fn take(&mut self, piece: &[u8], log: &LogHandle) -> Result<(), Problem> {
        self.lines.push(Bytes::copy_from_slice(piece));
        while let Some(line) = self.lines.next_line() {
            self.gather(line, log)?;
        }
        Ok(())
    }

    /// The number of the first line that has not come whole, from 1.
    pub(crate) fn line_number(&self) -> u64 {
        self.lines.line_number()
    }

    /// Whether what came so far ends with a line: nothing of another is kept.
    pub(crate) fn is_between(&self) -> bool {
        self.lines.is_between()
    }

    /// The body has ended properly: what is left of it is a line too.
    pub(crate) fn end(&mut self, log: &LogHandle) -> Result<(), Problem> {
        if let Some(line) = self.lines.finish() {
            self.gather(line, log)?;
        }
        self.submit(log);
        Ok(())
    }

    fn gather(&mut self, line: Result<Line, LineError>, log: &LogHandle) -> Result<(), Problem> {
        let parsed = line.and_then(|Line { number, bytes }| {
            let event = match &self.content {
                LineContent::Data { raw, topic } => raw.event(topic.clone(), bytes),
                LineContent::Object { topic } => parse_event(&bytes, topic.as_ref()),
            };
            event.map(|event| (number, event)).map_err(|problem| LineError { number, problem })
        });
        match parsed {
            Ok((number, event)) => {
                self.has_ids |= event.id.is_some();
                self.gathered_bytes += frame::encoded_bytes_max(&event);
                self.gathered.push((number, event));
                if self.gathered_bytes >= self.batch_bytes || self.gathered.len() == EVENTS_MAX {
                    self.submit(log);
                }
                Ok(())
            }
            Err(LineError { number, problem }) => {
                self.submit(log);
                Err(problem.with("line", number))
            }
        }
    }

    /// Submits what was gathered.
    pub(crate) fn submit(&mut self, log: &LogHandle) {
        let Some((first_line, _)) = self.gathered.first() else { return };
        let first_line = *first_line;
        let gathered = std::mem::take(&mut self.gathered);
        let bytes = std::mem::take(&mut self.gathered_bytes);
        self.in_flight_bytes += bytes;
        let kept = self.has_ids.then(|| gathered.clone());
        self.in_flight.push_back(Batch {
            first_line,
            events: gathered.len() as u64,
            bytes,
            ack: log.submit_next(&self.chain, events_of(gathered)),
            kept,
        });
    }

    /// Waits until more of the body may be read. Fails with what refused a batch.
    pub(crate) async fn room(&mut self, log: &LogHandle) -> Result<(), Problem> {
        while self.in_flight_bytes > self.in_flight_bytes_max {
            self.next_ack(log).await?;
        }
        Ok(())
    }

    /// Waits until nothing is in flight. Fails with what refused a batch.
    pub(crate) async fn settle(&mut self, log: &LogHandle) -> Result<(), Problem> {
        while !self.in_flight.is_empty() {
            self.next_ack(log).await?;
        }
        Ok(())
    }

    async fn next_ack(&mut self, log: &LogHandle) -> Result<(), Problem> {
        let Some(batch) = self.in_flight.pop_front() else { return Ok(()) };
        self.in_flight_bytes -= batch.bytes;
        let error = match batch.ack.await {
            Ok(acked) => {
                self.add(&acked, batch.events);
                return Ok(());
            }
            Err(error) => error,
        };
        match (id_in_the_way(&error), batch.kept) {
            (Some(id), Some(kept)) if self.refused.is_none() => {
                self.append_in_parts(kept, id, log).await?;
                // All of it is there after all, as where an earlier batch of this body was what was in
                // flight. What came behind was refused with it.
                self.submit_again(log);
                Ok(())
            }
            _ => Err(self.refuse(&error, batch.first_line)),
        }
    }

    /// Appends a batch again, one that was refused for an event of this id: what stands before the first
    /// such event, and then one event after the other.
    async fn append_in_parts(
        &mut self,
        batch: Vec<LineEvent>,
        id: &str,
        log: &LogHandle,
    ) -> Result<(), Problem> {
        let mut parts = parts_of(batch, id);
        while let Some(part) = parts.pop_front() {
            let (line, count) = (part[0].0, part.len() as u64);
            let kept = (count > 1).then(|| part.clone());
            let error = match log.submit(events_of(part)).await {
                Ok(acked) => {
                    self.add(&acked, count);
                    continue;
                }
                Err(error) => error,
            };
            // Others may append an event of another of its ids meanwhile.
            let (Some(id), Some(kept)) = (id_in_the_way(&error), kept) else {
                return Err(self.refuse(&error, line));
            };
            let behind = std::mem::replace(&mut parts, parts_of(kept, id));
            parts.extend(behind);
        }
        Ok(())
    }

    /// Submits everything that is in flight again, as a chain of its own.
    fn submit_again(&mut self, log: &LogHandle) {
        self.chain = AppendChain::default();
        for batch in &mut self.in_flight {
            let kept = batch.kept.clone().expect("it stands behind an event with an id");
            batch.ack = log.submit_next(&self.chain, events_of(kept));
        }
    }

    fn add(&mut self, acked: &Acked, events: u64) {
        self.count += events;
        self.duplicates += acked.duplicates;
        self.first.get_or_insert(acked.first);
        self.last = Some(acked.last);
    }

    fn refuse(&mut self, error: &AppendError, line: u64) -> Problem {
        let problem = Problem::from(error).with("line", line);
        self.refused.get_or_insert_with(|| problem.clone());
        problem
    }

    /// Waits for everything that was submitted, and appends the answer: what the body came to, or the
    /// failure that ended it and what was appended before.
    pub(crate) async fn finish(
        mut self,
        outcome: Result<(), Problem>,
        log: &LogHandle,
        to: &AnswerTo,
        out: &mut Vec<u8>,
    ) {
        while !self.in_flight.is_empty() {
            let _ = self.next_ack(log).await; // a refusal is kept in `refused`
        }
        let id_window = self.has_ids.then(|| log.id_window());
        // What the log refused first is of an earlier line than whatever ended the reading.
        let outcome = self.refused.take().map_or(outcome, Err);
        let problem = match (outcome, self.first, self.last) {
            (Ok(()), Some(first), Some(last)) => {
                let appended = Appended {
                    first: first.get(),
                    last: last.get(),
                    count: self.count,
                    duplicates: self.duplicates,
                    is_many: true,
                    tag: log.tag().as_str(),
                    sync: log.sync().name(),
                    id_window,
                    producer: None,
                };
                return appended::write_appended(&appended, self.is_minimal, to, out);
            }
            (Ok(()), ..) => Problem::new(ProblemKind::EmptyAppend, "the body holds no line"),
            (Err(problem), ..) => problem,
        };
        let new = self.count - self.duplicates;
        let mut problem = problem.with("appended", new).with("duplicates", self.duplicates);
        if let Some(last) = self.last {
            problem = problem.with("last", last.get());
        }
        if let Some(window) = id_window {
            problem = with_id_window(problem, window);
        }
        response::write_problem(&problem, to, out);
    }
}

/// The id for which an append is refused whole.
fn id_in_the_way(error: &AppendError) -> Option<&str> {
    match error {
        AppendError::IdConflict { id, .. }
        | AppendError::IdTwice { id }
        | AppendError::IdInFlight { id } => Some(id),
        _ => None,
    }
}

/// What stands before the first event of this id, if anything does, and each event from there on.
fn parts_of(mut batch: Vec<LineEvent>, id: &str) -> VecDeque<Vec<LineEvent>> {
    let has_id = |(_, event): &LineEvent| event.id.as_deref() == Some(id);
    let rest = batch.split_off(batch.iter().position(has_id).unwrap_or(0));
    let before = (!batch.is_empty()).then_some(batch);
    before.into_iter().chain(rest.into_iter().map(|event| vec![event])).collect()
}

fn events_of(lines: Vec<LineEvent>) -> Vec<NewEvent> {
    lines.into_iter().map(|(_, event)| event).collect()
}
