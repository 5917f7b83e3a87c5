//! `strandline append`: a file or a pipe, line by line, in batches.
//!
//! A batch is whatever has been read by the time the one before it is acknowledged, up to a bound:
//! a slow pipe is appended line by line at once, a large file in large pieces. Nothing that may have
//! been appended is sent a second time by itself: without event ids the server could not tell a repeat
//! from a new event, so a lost answer ends the command, and says which lines are in doubt. A batch of which
//! the server says that it had no room for any of it is sent again (`Client::post`).

use std::{
    io::{self, BufRead, BufReader, IsTerminal, Read},
    path::PathBuf,
    process::ExitCode,
    sync::mpsc::{Receiver, sync_channel},
    thread,
};

use clap::Args;
use serde::Serialize;
use serde_json::value::RawValue;
use strandline_storage::topic::Topic;

use super::client::{Client, ClientError, Refusal, ServerAddress};
use super::counted::counted;
use super::pattern;
use super::progress::bytes_bar;
use super::source;
use crate::stderr::tell;

/// A request holds at most so many lines,
const BATCH_LINES_MAX: usize = 10_000;
/// and closes once it holds so many bytes: several frames, so that the disk works while we read.
const BATCH_BYTES: usize = 1 << 20;
/// Lines that may wait between the reading thread and the sending one.
const QUEUED_LINES_MAX: usize = 20_000;

/// Appends the lines of a file or a pipe. Blank ones are passed over, but with --text they are events without data.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  strandline append --topic logs/web access.log
  tail -F app.log | strandline append --topic logs/app --type line
  strandline append --ndjson events.ndjson       # each line {\"topic\":\"a/b\",\"data\":...}

Exit codes: 0 all acknowledged, 1 failure (says which line), 2 usage.")]
pub struct AppendArguments {
    #[command(flatten)]
    server: ServerAddress,
    /// The topic of every line; each line is one event's data: JSON if it parses, else text
    #[arg(long, required_unless_present = "ndjson", conflicts_with = "ndjson", value_parser = pattern::topic)]
    topic: Option<Topic>,
    /// Each line is an event object, with its own topic
    #[arg(long)]
    ndjson: bool,
    /// The lines are text, even those that happen to be JSON, and those that are empty
    #[arg(long, conflicts_with = "ndjson")]
    text: bool,
    /// The type of every event
    #[arg(long = "type", value_name = "TYPE", conflicts_with = "ndjson")]
    event_type: Option<String>,
    /// The file to append; `-` or none is standard input
    file: Option<PathBuf>,
}

/// One event as the request's body spells it.
#[derive(Serialize)]
struct EventLine<'a> {
    topic: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a str>,
    data: EventData<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum EventData<'a> {
    Json(&'a RawValue),
    Text(&'a str),
}

/// Runs the command.
pub fn run(arguments: &AppendArguments) -> ExitCode {
    match append(arguments) {
        Ok(events) => {
            tell!("appended {}", counted(events, "event"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            tell!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn append(arguments: &AppendArguments) -> Result<u64, ClientError> {
    let client = Client::new(&arguments.server);
    let file = arguments.file.as_deref();
    if source::is_standard_input(file) && io::stdin().is_terminal() {
        tell!("reading lines from the terminal: Ctrl-D ends them");
    }
    let (input, size_bytes) = source::open(file)?;
    let progress = bytes_bar(size_bytes);
    let lines = read_lines(input);
    let (mut appended, mut lines_done) = (0, 0);
    let mut body = Vec::with_capacity(BATCH_BYTES + (64 << 10));
    while let Ok(first) = lines.recv() {
        body.clear();
        let mut batch_lines: u64 = 0;
        let (mut input_bytes, mut next, mut bad) = (0, Some(first), None);
        while let Some(line) = next {
            let encoded = line.map_err(|error| error.to_string()).and_then(|line| {
                input_bytes += line.len() as u64;
                encode_line(arguments, &line, &mut body)
            });
            if let Err(why) = encoded {
                bad = Some(why);
                break;
            }
            batch_lines += 1;
            let full = body.len() >= BATCH_BYTES || batch_lines >= BATCH_LINES_MAX as u64;
            next = if full { None } else { lines.try_recv().ok() };
        }
        appended += send(&client, &body, lines_done, batch_lines)?;
        lines_done += batch_lines;
        if let Some(why) = bad {
            let line = lines_done + 1;
            let advice = go_on(line, "mend it and");
            return Err(ClientError::Local(format!("line {line}: {why}; {advice}")));
        }
        progress.inc(input_bytes);
        progress.set_message(format!("{appended} events"));
    }
    progress.finish_and_clear();
    Ok(appended)
}

/// Sends one batch; returns how many events it appended (lines that are left blank append none).
fn send(
    client: &Client,
    body: &[u8],
    lines_done: u64,
    batch_lines: u64,
) -> Result<u64, ClientError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(0);
    }
    let answer = client.post("/api/v1/events", "application/x-ndjson", body);
    match answer {
        Ok(mut answer) => {
            let text = answer.body_mut().read_to_string().map_err(|error| {
                ClientError::Connection(doubt(lines_done, batch_lines, &error.to_string()))
            })?;
            let count = serde_json::from_str::<serde_json::Value>(&text)
                .ok()
                .and_then(|value| value.get("count")?.as_u64())
                .ok_or_else(|| {
                    ClientError::Connection(doubt(lines_done, batch_lines, "an odd answer"))
                })?;
            Ok(count)
        }
        Err(ClientError::Refused(refusal)) => Err(refused(&refusal, lines_done, batch_lines)),
        Err(ClientError::Unreachable(what)) if lines_done > 0 => {
            let advice = go_on(lines_done + 1, "once it is back,");
            Err(ClientError::Unreachable(format!("{what}; {advice}")))
        }
        Err(ClientError::Connection(what)) => {
            Err(ClientError::Connection(doubt(lines_done, batch_lines, &what)))
        }
        Err(error) => Err(error),
    }
}

/// What a refusal of a batch means for the lines.
fn refused(refusal: &Refusal, lines_done: u64, batch_lines: u64) -> ClientError {
    let line_of_batch = refusal.line.unwrap_or(1).clamp(1, batch_lines);
    if refusal.leaves_doubt() {
        let before = line_of_batch - 1;
        let what = refusal.to_string();
        return ClientError::Connection(doubt(lines_done + before, batch_lines - before, &what));
    }
    let line = lines_done + line_of_batch;
    let advice = go_on(line, refusal.what_first());
    ClientError::Local(format!("line {line}: {refusal}; {advice}"))
}

/// What is appended when `line` is the first that is not, and what to do.
fn go_on(line: u64, first: &str) -> String {
    match line {
        1 => format!("nothing is appended: {first} try again"),
        _ => format!(
            "lines up to {} are appended, the rest is not: {first} go on with `tail -n +{line}`",
            line - 1
        ),
    }
}

fn doubt(lines_done: u64, batch_lines: u64, what: &str) -> String {
    let (from, to) = (lines_done + 1, lines_done + batch_lines);
    let done = match lines_done {
        0 => String::new(),
        _ => format!("lines up to {lines_done} are appended, "),
    };
    format!(
        "{what}; {done}lines {from} to {to} may or may not be appended: look at the end of the topic before going on"
    )
}

/// Writes a line of the input as a line of the request's body, one for one, so that the server's
/// line numbers are ours.
fn encode_line(arguments: &AppendArguments, line: &[u8], body: &mut Vec<u8>) -> Result<(), String> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    if let Some(topic) = &arguments.topic {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let text = std::str::from_utf8(line)
            .map_err(|_| "not UTF-8, and binary data is for curl".to_owned())?;
        if !text.is_empty() || arguments.text {
            let json = if arguments.text { None } else { serde_json::from_str(text).ok() };
            let event = EventLine {
                topic,
                r#type: arguments.event_type.as_deref(),
                content_type: json.is_none().then_some("text/plain"),
                data: json.map_or(EventData::Text(text), EventData::Json),
            };
            serde_json::to_writer(&mut *body, &event).expect("strings and JSON are JSON");
        }
    } else {
        body.extend_from_slice(line);
    }
    body.push(b'\n');
    Ok(())
}

/// Reads lines on a thread of its own, so that a batch holds what has come while the one before it
/// was on its way. Each keeps its LF.
fn read_lines(input: Box<dyn Read + Send>) -> Receiver<io::Result<Vec<u8>>> {
    let (sender, receiver) = sync_channel(QUEUED_LINES_MAX);
    thread::spawn(move || {
        let mut input = BufReader::with_capacity(BATCH_BYTES, input);
        loop {
            let mut line = Vec::new();
            let read = match input.read_until(b'\n', &mut line) {
                Ok(0) => return,
                Ok(_) => Ok(line),
                Err(error) => Err(error),
            };
            let last = read.is_err();
            if sender.send(read).is_err() || last {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_disk_that_failed_in_doubt_is_what_was_not_acknowledged() {
        let told = |problem: &str, line| {
            let kind = format!("/problems/{problem}");
            let refusal = Refusal { status: 503, kind, line, ..Refusal::default() };
            refused(&refusal, 10, 5).to_string()
        };
        let doubt = told("read-only", Some(3));
        assert!(doubt.contains("up to 12 are appended, lines 13 to 15 may or may not"), "{doubt}");
        for whole in [None, Some(1)] {
            let doubt = told("read-only", whole);
            assert!(doubt.contains("up to 10 are appended, lines 11 to 15 may or"), "{doubt}");
        }
        let known = told("draining", Some(3));
        assert!(known.contains("up to 12 are appended, the rest is not"), "{known}");
        // Of no batch of ours: the last line of it, at most.
        assert!(told("read-only", Some(u64::MAX)).contains("lines 15 to 15 may or may not"));
    }
}
