//! `strandline import`: what `export` wrote, or CloudEvents of others, into a running server.
//!
//! Records are sent in batches of lines, each a request; a refusal names the record at which the server
//! stopped. Ids of events go with them, so that an import that is repeated within the log's window of ids
//! appends nothing twice.
//!
//! A record is an object, which shows JSON data without the white space around it, and CR and LF as spaces: what was
//! appended as a body of other bytes is another event to the log. So where the log says that another event has an id, it
//! is asked for that event, and where that gives the very record it counts as a duplicate.

use std::{io::BufReader, ops::Range, path::PathBuf, process::ExitCode};

use clap::Args;
use serde::Deserialize;
use serde_json::value::RawValue;
use strandline_storage::topic::Topic;

use super::client::{Client, ClientError, Refusal, ServerAddress};
use super::counted::counted;
use super::number::number;
use super::pattern;
use super::progress;
use super::records::{self, Conversion, Format, ReadError};
use super::source;
use crate::stderr::tell;

/// A request holds at most so many lines,
const BATCH_LINES_MAX: u64 = 10_000;
/// and closes once it holds so many bytes.
const BATCH_BYTES: usize = 1 << 20;

/// Appends the events of an export, or of a batch of CloudEvents.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  strandline import everything.ndjson
  strandline export --url http://old:7400 | strandline import --url http://new:7400
  strandline import --format cloudevents --topic orders batch.json    # the topic of those without a subject
  strandline import --make-ids old- everything.ndjson    # may be repeated: nothing is appended twice
  strandline import --new-ids back- deleted.ndjson       # though the log remembers their ids

Events keep everything but offset and time, which the log gives them. Those with an id that the log has seen \
within its window are recognised, and counted as duplicates, also where the events themselves are gone since \
(`DELETE` of a topic): --new-ids brings those back. The subject of a CloudEvent becomes its topic, and one that has none \
needs --topic; with --subject-as-header all go to --topic, and the subject is kept as the header ce-subject. The source of a foreign CloudEvent is kept as the header ce-source, \
and is a part of its id here.

Exit codes: 0 all acknowledged, 1 failure (says which record, and how to go on), 2 usage.")]
pub struct ImportArguments {
    #[command(flatten)]
    server: ServerAddress,
    /// How the events are written down
    #[arg(long, value_enum, default_value_t = Format::Ndjson)]
    format: Format,
    /// The topic of events that name none
    #[arg(long, value_parser = pattern::topic)]
    topic: Option<Topic>,
    /// Keeps the subject of CloudEvents as the header ce-subject: all are appended to --topic
    #[arg(long, requires = "topic")]
    subject_as_header: bool,
    /// Gives events without an id one: this and their old offset, or else `#` and which record of the input it is
    #[arg(long, value_name = "PREFIX")]
    make_ids: Option<String>,
    /// Gives every event a new id: this and its old id, or else `@` and its old offset, or `#` and which record of the input it is. So events come back that a DELETE took
    #[arg(long, value_name = "PREFIX", conflicts_with = "make_ids")]
    new_ids: Option<String>,
    /// Passes over so many records at the start
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = number(0..=u64::MAX))]
    skip: u64,
    /// The file to import; `-` or none is standard input
    file: Option<PathBuf>,
}

/// Runs the command.
pub fn run(arguments: &ImportArguments) -> ExitCode {
    if arguments.subject_as_header && arguments.format != Format::Cloudevents {
        tell!("error: --subject-as-header is for --format cloudevents");
        return ExitCode::from(2);
    }
    match import(arguments) {
        Ok(Counts { events, duplicates: 0 }) => {
            tell!("imported {}", counted(events, "event"));
        }
        Ok(Counts { events, duplicates }) => {
            tell!(
                "imported {}, of which the log had {duplicates} already: appended {}\n\
                 warning: those {duplicates} were not appended again, since the log has seen their ids. If they are \
                 gone from it (DELETE, trim, retention) and are wanted back: --new-ids PREFIX appends them as new",
                counted(events, "event"),
                events - duplicates
            );
        }
        Err(error) => {
            tell!("error: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    /// That the log has now, duplicates among them.
    events: u64,
    duplicates: u64,
}

fn import(arguments: &ImportArguments) -> Result<Counts, ClientError> {
    let client = Client::new(&arguments.server);
    let (input, size_bytes) = source::open(arguments.file.as_deref())?;
    let bar = progress::bytes_bar(size_bytes);
    let input = BufReader::with_capacity(BATCH_BYTES, bar.wrap_read(input));
    let conversion = Conversion {
        topic: arguments.topic.clone(),
        subject_as_header: arguments.subject_as_header,
        id_prefix: arguments.make_ids.clone(),
        new_ids: arguments.new_ids.clone(),
    };
    let mut batch =
        Batch { client, body: Vec::new(), records: Vec::new(), counts: Counts::default() };
    let (mut failure, mut records) = (None, 0);
    let read = records::for_each(input, arguments.format, &mut |number, record| {
        records = number;
        if number <= arguments.skip || record.is_empty() {
            return Ok(());
        }
        let line = match arguments.format {
            Format::Ndjson => conversion.of_event(record, number)?,
            Format::Cloudevents => conversion.of_cloud_event(record, number)?,
        };
        batch.push(number, &line);
        if batch.body.len() >= BATCH_BYTES || batch.records.len() as u64 >= BATCH_LINES_MAX {
            batch.send().map_err(|error| {
                failure = Some(error);
                String::new()
            })?;
            bar.set_message(format!("{} events", batch.counts.events));
        }
        Ok(())
    });
    if let Some(error) = failure {
        return Err(error);
    }
    // What came before a bad record is sent: so it is known where to go on.
    batch.send()?;
    bar.finish_and_clear();
    match read {
        Ok(()) => {
            if records < arguments.skip {
                let records = counted(records, "record");
                tell!("note: --skip {} is more than there are: {records}", arguments.skip);
            }
            Ok(batch.counts)
        }
        Err(ReadError::Record(number, what)) => {
            let advice = go_on(number, "mend it and");
            Err(ClientError::Local(format!("record {number}: {what}; {advice}")))
        }
        Err(ReadError::Input(what)) => {
            let number = records.max(arguments.skip) + 1;
            let advice = go_on(number, "mend it and");
            Err(ClientError::Local(format!("{what}, at record {number}; {advice}")))
        }
    }
}

/// Lines that wait for one request.
struct Batch {
    client: Client,
    body: Vec<u8>,
    /// The number of the record of each line, and where in `body` the line ends.
    records: Vec<(u64, usize)>,
    counts: Counts,
}

/// What of the answer to a stream of lines counts here.
#[derive(Deserialize)]
struct Answer {
    count: u64,
    #[serde(default)]
    duplicates: u64,
}

/// What of a page of the history counts here.
#[derive(Deserialize)]
struct Page {
    events: Vec<Box<RawValue>>,
}

impl Batch {
    fn push(&mut self, number: u64, line: &[u8]) {
        self.body.extend_from_slice(line);
        self.records.push((number, self.body.len()));
    }

    fn send(&mut self) -> Result<(), ClientError> {
        let (mut sent, mut lines_max) = (0, self.records.len());
        while sent < self.records.len() {
            let lines = sent..(sent + lines_max).min(self.records.len());
            (sent, lines_max) = match self.send_lines(lines.clone())? {
                None => (lines.end, lines_max * 2),
                // The next one is likely to be known as well: what follows it would be sent in vain.
                Some(known) => (known + 1, 1),
            };
        }
        self.body.clear();
        self.records.clear();
        Ok(())
    }

    /// Sends these lines, up to one that the log has though it takes it for another: then returns which.
    fn send_lines(&mut self, lines: Range<usize>) -> Result<Option<usize>, ClientError> {
        let (first, last) = (self.records[lines.start].0, self.records[lines.end - 1].0);
        let doubt_from = |first: u64, what: String| {
            ClientError::Connection(format!(
                "{what}; records {first} to {last} may or may not be imported: with ids the same \
                 import can be repeated, else look at the end of the log before going on"
            ))
        };
        let doubt = |what| doubt_from(first, what);
        let body = &self.body[self.line(lines.start).start..self.line(lines.end - 1).end];
        match self.client.post("/api/v1/events", "application/x-ndjson", body) {
            Ok(mut answer) => {
                let text =
                    answer.body_mut().read_to_string().map_err(|error| doubt(error.to_string()))?;
                let answer: Answer =
                    serde_json::from_str(&text).map_err(|_| doubt("an odd answer".to_owned()))?;
                self.counts.events += answer.count;
                self.counts.duplicates += answer.duplicates;
                Ok(None)
            }
            Err(ClientError::Refused(refusal)) => {
                let line = refusal.line.and_then(|line| usize::try_from(line.checked_sub(1)?).ok());
                let refused = line.map_or(lines.start, |line| lines.start + line);
                let refused = if lines.contains(&refused) { refused } else { lines.start };
                if line.is_some() && self.is_known(refused, &refusal) {
                    self.counts.events += (refused - lines.start) as u64 + 1;
                    self.counts.duplicates += refusal.duplicates.unwrap_or(0) + 1;
                    return Ok(Some(refused));
                }
                let number = self.records[refused].0;
                if refusal.leaves_doubt() {
                    return Err(doubt_from(number, refusal.to_string()));
                }
                let advice = go_on(number, refusal.what_first());
                Err(ClientError::Local(format!("record {number}: {refusal}; {advice}")))
            }
            Err(ClientError::Unreachable(what)) => {
                let advice = go_on(first, "once it is back,");
                Err(ClientError::Unreachable(format!("{what}; {advice}")))
            }
            Err(ClientError::Connection(what)) => Err(doubt(what)),
            Err(error) => Err(error),
        }
    }

    /// Where in the body a line stands.
    fn line(&self, index: usize) -> Range<usize> {
        let start = index.checked_sub(1).map_or(0, |before| self.records[before].1);
        start..self.records[index].1
    }

    /// Whether the event for which the log refuses a line is the one that the line is of. False also where that event
    /// cannot be had: it may be gone.
    fn is_known(&self, index: usize, refusal: &Refusal) -> bool {
        let Some(offset) = refusal.offset.filter(|_| refusal.is("id-conflict")) else {
            return false;
        };
        let path = format!("/api/v1/events/history?from={offset}&limit=1");
        let text = self.client.get(&path, &[]).ok();
        let text = text.and_then(|mut answer| answer.body_mut().read_to_string().ok());
        let page = text.and_then(|text| serde_json::from_str::<Page>(&text).ok());
        let line = &self.body[self.line(index)];
        let is_of = |event: &RawValue| records::is_line_of(line, event.get());
        page.is_some_and(|page| page.events.first().is_some_and(|event| is_of(event)))
    }
}

/// What is imported when this record is the first that is not, and what to do.
fn go_on(number: u64, first: &str) -> String {
    match number {
        1 => format!("nothing is imported: {first} try again"),
        _ => format!("those before it are imported: {first} go on with --skip {}", number - 1),
    }
}
