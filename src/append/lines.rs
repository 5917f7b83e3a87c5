//! A body of lines, each an event, appended while others still come.
//!
//! Lines gather into batches, so that a long body costs a commit now and then and not one for each
//! line; what came with one read is submitted before the next, so that a slow writer's line does not
//! wait. The bytes on their way to the disk are bounded: beyond that no more of the body is read.
//!
//! Batches are submitted in the order of their lines, as one chain: none after a line that is refused
//! here, and none that is taken after one that the log refused (overloaded, full, read-only). So what
//! was appended is exactly what stands before the line that the answer names.

use std::collections::VecDeque;

use bytes::Bytes;
use strandline_storage::{
    event::NewEvent,
    frame::{self, EVENTS_MAX},
    offset::Offset,
    topic::Topic,
};

use crate::{
    config::ServerConfig,
    event_json::{RawAppend, parse_event},
    http::response::{self, AnswerTo, Appended},
    log_handle::{AckFuture, AppendChain, LogHandle},
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

/// Events that were submitted together.
struct Batch {
    ack: AckFuture,
    first_line: u64,
    events: u64,
    bytes: usize,
}

/// An append of lines on its way.
pub(crate) struct LineAppends {
    content: LineContent,
    is_minimal: bool,
    lines: Lines,
    gathered: Vec<NewEvent>,
    gathered_bytes: usize,
    gathered_line: u64,
    chain: AppendChain,
    /// Why the log refused the first batch that it refused.
    refused: Option<Problem>,
    in_flight: VecDeque<Batch>,
    in_flight_bytes: usize,
    batch_bytes: usize,
    in_flight_bytes_max: usize,
    appended: u64,
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
            gathered_line: 0,
            chain: AppendChain::default(),
            refused: None,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            batch_bytes: config.limits.line_batch_bytes,
            in_flight_bytes_max: config.limits.lines_in_flight_bytes_max,
            appended: 0,
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
                LineContent::Data { raw, topic } => raw.event(topic, bytes),
                LineContent::Object { topic } => parse_event(&bytes, topic.as_ref()),
            };
            event.map(|event| (number, event)).map_err(|problem| LineError { number, problem })
        });
        match parsed {
            Ok((number, event)) => {
                if self.gathered.is_empty() {
                    self.gathered_line = number;
                }
                self.gathered_bytes += frame::encoded_bytes_max(&event);
                self.gathered.push(event);
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
        if self.gathered.is_empty() {
            return;
        }
        let events = std::mem::take(&mut self.gathered);
        let bytes = std::mem::take(&mut self.gathered_bytes);
        self.in_flight_bytes += bytes;
        self.in_flight.push_back(Batch {
            first_line: self.gathered_line,
            events: events.len() as u64,
            bytes,
            ack: log.submit_next(&self.chain, events),
        });
    }

    /// Waits until more of the body may be read. Fails with what refused a batch.
    pub(crate) async fn room(&mut self) -> Result<(), Problem> {
        while self.in_flight_bytes > self.in_flight_bytes_max {
            self.next_ack().await?;
        }
        Ok(())
    }

    async fn next_ack(&mut self) -> Result<(), Problem> {
        let Some(batch) = self.in_flight.pop_front() else { return Ok(()) };
        self.in_flight_bytes -= batch.bytes;
        match batch.ack.await {
            Ok(acked) => {
                self.appended += batch.events;
                self.first.get_or_insert(acked.first);
                self.last = Some(acked.last);
                Ok(())
            }
            Err(error) => {
                let problem = Problem::from(&error).with("line", batch.first_line);
                self.refused.get_or_insert_with(|| problem.clone());
                Err(problem)
            }
        }
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
            let _ = self.next_ack().await; // a refusal is kept in `refused`
        }
        // What the log refused first is of an earlier line than whatever ended the reading.
        let outcome = self.refused.take().map_or(outcome, Err);
        let problem = match (outcome, self.first, self.last) {
            (Ok(()), Some(first), Some(last)) => {
                let appended = Appended {
                    first: first.get(),
                    last: last.get(),
                    count: self.appended,
                    is_many: true,
                    tag: log.tag().as_str(),
                    sync: log.sync().name(),
                };
                return response::write_appended(&appended, self.is_minimal, to, out);
            }
            (Ok(()), ..) => Problem::new(ProblemKind::EmptyAppend, "the body holds no line"),
            (Err(problem), ..) => problem,
        };
        let mut problem = problem.with("appended", self.appended).with("duplicates", 0);
        if let Some(last) = self.last {
            problem = problem.with("last", last.get());
        }
        response::write_problem(&problem, to, out);
    }
}
