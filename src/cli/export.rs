//! `strandline export`: the events of a log as a file, of a running server or a stopped one.

use std::{
    fmt,
    io::{self, BufRead, BufReader, BufWriter, Write},
    ops::{ControlFlow, Range},
    path::PathBuf,
    process::ExitCode,
    str::FromStr,
};

use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;
use strandline_storage::{
    backup::last_segment, error::ReadError, io::real::RealDisk, offset::Offset, reader::ReadQuery,
    selection::Order, stopped::StoppedLog, topic::TopicPattern,
};

use super::client::{Client, ClientError, Refusal, ServerAddress};
use super::directory;
use super::pattern::pattern;
use super::place::Place;
use super::progress;
use super::records::{self, Format, Origin};
use crate::{event_json::push_event, stderr::tell, stream::cursor::Cursor, timestamp::TimeText};

/// Bytes written, and read from a server, at once.
const BUFFER_BYTES: usize = 256 << 10;

/// Writes the events of a log to standard output: of a running server, or with --data of a stopped one.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  strandline export > everything.ndjson
  strandline export --topic 'rooms/**' --from 2026-11-01T00:00:00Z --until 2026-12-01T00:00:00Z
  strandline export --format cloudevents | gzip > events.json.gz
  strandline export --data ./strandline-data > everything.ndjson    # no server runs there

A stopped log gives all that lies in its files, also of topics that were deleted and not compacted away yet. \
Events that cannot be read are named on standard error, and the rest follows. `strandline import` reads both \
formats. Where an offset that --from gives is not kept any more, the export begins with the log, says so and exits \
with 1; without --from nothing is missing.

Exit codes: 0 fine, 1 events are missing, or failure, 2 usage.")]
pub struct ExportArguments {
    #[command(flatten)]
    server: ServerAddress,
    /// Reads this data directory, or directory of one log, instead of asking a server
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The log that a server is asked for
    #[arg(long, default_value = "main", conflicts_with = "data")]
    log: String,
    /// How the events are written down
    #[arg(long, value_enum, default_value_t = Format::Ndjson)]
    format: Format,
    /// Only topics that this matches; may be repeated
    #[arg(long, value_name = "PATTERN", default_value = "**", value_parser = pattern)]
    topic: Vec<TopicPattern>,
    /// The first offset wanted, or a time: RFC 3339, of the first event; or what the log begins with
    #[arg(long, value_name = "OFFSET|TIME", default_value = "earliest")]
    from: Begin,
    /// The first offset not wanted any more, or a time
    #[arg(long, value_name = "OFFSET|TIME")]
    until: Option<Place>,
}

/// Where an export begins.
#[derive(Clone, Copy, Debug)]
enum Begin {
    /// With the first event that is kept, wherever that is.
    Earliest,
    At(Place),
}

impl fmt::Display for Begin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Begin::Earliest => formatter.write_str("the earliest"),
            Begin::At(place) => place.fmt(formatter),
        }
    }
}

impl FromStr for Begin {
    type Err = String;

    fn from_str(text: &str) -> Result<Begin, String> {
        match text {
            "earliest" => Ok(Begin::Earliest),
            place => place.parse().map(Begin::At),
        }
    }
}

/// Runs the command.
pub fn run(arguments: &ExportArguments) -> ExitCode {
    if let (Begin::At(from), Some(until)) = (arguments.from, arguments.until)
        && until.is_before(from)
    {
        tell!("error: --until {until} is before --from {from}");
        return ExitCode::from(2);
    }
    let mut out = Output::new(arguments);
    let exported = match &arguments.data {
        Some(_) => out.read_directory(arguments),
        None => out.read_server(arguments),
    };
    match exported.and_then(|is_whole| out.finish().map(|()| is_whole)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            tell!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Where the events go.
struct Output<'a> {
    out: BufWriter<io::StdoutLock<'a>>,
    format: Format,
    origin: Origin,
    events: u64,
    line: Vec<u8>,
    bar: indicatif::ProgressBar,
}

impl Output<'_> {
    fn new(arguments: &ExportArguments) -> Self {
        let log = match &arguments.data {
            Some(data) => {
                data.file_name().map_or_else(String::new, |name| name.display().to_string())
            }
            None => arguments.log.clone(),
        };
        Output {
            out: BufWriter::with_capacity(BUFFER_BYTES, io::stdout().lock()),
            format: arguments.format,
            // Its tag is read when the log is opened.
            origin: Origin { log, tag: String::new() },
            events: 0,
            line: Vec::new(),
            bar: progress::bytes_bar(None),
        }
    }

    /// Writes an event object; breaks once nobody reads any more.
    fn event(&mut self, object: &str) -> Result<ControlFlow<()>, String> {
        self.line.clear();
        match self.format {
            Format::Ndjson => self.line.extend_from_slice(object.as_bytes()),
            Format::Cloudevents => {
                self.line.extend_from_slice(if self.events == 0 { b"[" } else { b"," });
                self.line.push(b'\n');
                records::push_cloud_event(&mut self.line, object, &self.origin)?;
            }
        }
        if self.format == Format::Ndjson {
            self.line.push(b'\n');
        }
        self.events += 1;
        self.bar.inc(self.line.len() as u64);
        if self.events.is_multiple_of(1024) {
            self.bar.set_message(format!("{} events", self.events));
        }
        match self.out.write_all(&self.line) {
            Ok(()) => Ok(ControlFlow::Continue(())),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
            Err(error) => Err(format!("standard output: {error}")),
        }
    }

    fn finish(&mut self) -> Result<(), String> {
        self.bar.finish_and_clear();
        let end: &[u8] = match (self.format, self.events) {
            (Format::Ndjson, _) => b"",
            (Format::Cloudevents, 0) => b"[]\n",
            (Format::Cloudevents, _) => b"\n]\n",
        };
        match self.out.write_all(end).and_then(|()| self.out.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(format!("standard output: {error}"))
            }
            _ => Ok(()),
        }
    }

    /// Whether all events could be read.
    fn read_directory(&mut self, arguments: &ExportArguments) -> Result<bool, String> {
        let data = arguments.data.as_deref().expect("the caller has looked");
        let log = directory::log_in(data).map_err(|error| error.to_string())?;
        let Some(dir) = log else { return Ok(true) };
        self.origin.log =
            dir.file_name().map_or_else(String::new, |name| name.display().to_string());
        let told = |error| directory::DirectoryError::from(error).to_string();
        let log = directory::when_free(|| StoppedLog::open(&RealDisk, &dir)).map_err(told)?;
        if self.format == Format::Cloudevents {
            let last = last_segment(&RealDisk, &dir).map_err(told)?;
            self.origin.tag = last.tag.map_or_else(|| "unknown".to_owned(), |tag| tag.to_string());
        }
        let (mut is_whole, mut failure) = (true, None);
        let from = match arguments.from {
            Begin::At(Place::Offset(from)) => {
                let begin = log.kept_from().map_err(|error| error.to_string())?;
                is_whole &= !self.has_gone(from, begin, arguments.until);
                from
            }
            _ => Offset::ZERO,
        };
        let end = match arguments.until {
            Some(Place::Offset(end)) => end,
            _ => Offset::MAX,
        };
        let (topics, order) = (arguments.topic.clone(), Order::Ascending);
        let query = ReadQuery { topics, from, end, order };
        let (mut object, mut time) = (Vec::new(), TimeText::default());
        let from_ms = match arguments.from {
            Begin::At(Place::TimeMs(from_ms)) => Some(from_ms),
            _ => None,
        };
        let until_ms = match arguments.until {
            Some(Place::TimeMs(until_ms)) => Some(until_ms),
            _ => None,
        };
        log.read(&query, &mut |part| {
            let hits = match part {
                Ok(hits) => hits,
                Err(error) => {
                    if let ReadError::Gap { from, to, .. } = error {
                        let is_before =
                            |begin| time_at(&log, to..Offset::MAX).is_some_and(|time| time < begin);
                        let is_behind =
                            |end| time_before(&log, from).is_some_and(|time| time >= end);
                        if from_ms.is_some_and(is_before) {
                            return ControlFlow::Continue(());
                        }
                        if until_ms.is_some_and(is_behind) {
                            return ControlFlow::Break(());
                        }
                    }
                    is_whole = false;
                    self.bar.suspend(|| warn(&error));
                    return ControlFlow::Continue(());
                }
            };
            for event in hits.events().filter(|event| event.kind().is_data()) {
                if from_ms.is_some_and(|from_ms| event.time_ms() < from_ms) {
                    continue;
                }
                if until_ms.is_some_and(|until_ms| event.time_ms() >= until_ms) {
                    return ControlFlow::Break(());
                }
                object.clear();
                push_event(&mut object, &event, &mut time);
                match self.event(str::from_utf8(&object).expect("JSON is UTF-8")) {
                    Ok(ControlFlow::Continue(())) => {}
                    Ok(ControlFlow::Break(())) => return ControlFlow::Break(()),
                    Err(what) => {
                        failure = Some(what);
                        return ControlFlow::Break(());
                    }
                }
            }
            ControlFlow::Continue(())
        })
        .map_err(|error| error.to_string())?;
        failure.map_or(Ok(is_whole), Err)
    }

    /// Whether all events could be read.
    fn read_server(&mut self, arguments: &ExportArguments) -> Result<bool, String> {
        let client = Client::new(&arguments.server);
        let query = query_of(arguments);
        if self.format == Format::Cloudevents {
            let first = page(&client, &format!("{query}&from=earliest&limit=1"));
            self.origin.tag = first.map_err(|failure| failure.to_string())?.tag;
        }
        let (mut from, mut is_whole, mut has_begun) = (arguments.from, true, false);
        loop {
            let path = format!("{query}&{}", from_parameter(from));
            // The server cuts an answer where it cannot read on; a page goes so far too, and says where it can
            // again. Where lines were cut for another reason, it goes on with them.
            let answer = match self.read_lines(&client, &path, &mut from) {
                Ok(Lines::End) => return Ok(is_whole),
                Ok(Lines::Cut) => {
                    has_begun = true;
                    page(&client, &format!("{query}&{}", from_parameter(from)))
                }
                Err(failure) => Err(failure),
            };
            let page = match answer {
                Ok(page) => page,
                Err(Failure::Expired { earliest }) => {
                    let begin = Offset::new(earliest);
                    match from {
                        Begin::At(Place::Offset(from)) if !has_begun => {
                            is_whole &= !self.has_gone(from, begin, arguments.until);
                        }
                        _ => {
                            is_whole = false;
                            let missing = format!("events from {from} to {begin} are gone");
                            let why = "retention was faster";
                            self.bar.suspend(|| tell!("warning: {missing}: {why}"));
                        }
                    }
                    from = Begin::At(Place::Offset(begin));
                    if matches!(arguments.until, Some(Place::Offset(until)) if until <= begin) {
                        return Ok(is_whole);
                    }
                    continue;
                }
                Err(failure) => return Err(failure.to_string()),
            };
            for object in &page.events {
                if self.event(object.get())?.is_break() {
                    return Ok(is_whole);
                }
            }
            from = match (page.gap, page.next) {
                (Some(Gap { from, to }), _) => {
                    self.bar.suspend(|| tell!("warning: events from {from} to {to} are lost"));
                    is_whole = false;
                    Begin::At(Place::Offset(Offset::new(to)))
                }
                (None, Some(_)) => match Cursor::parse(&page.cursor) {
                    Ok(cursor) => Begin::At(Place::Offset(cursor.next())),
                    Err(_) => return Err(format!("an odd cursor: {}", page.cursor)),
                },
                (None, None) => return Ok(is_whole),
            };
        }
    }

    /// Whether some of the events from an offset on that were asked for are not kept any more, which is told.
    fn has_gone(&self, from: Offset, begin: Offset, until: Option<Place>) -> bool {
        let to = match until {
            Some(Place::Offset(until)) => until.min(begin),
            _ => begin,
        };
        if from >= to {
            return false;
        }
        let gone = format!("events from {from} to {to} are gone: the log begins at offset {begin}");
        self.bar.suspend(|| tell!("warning: {gone}"));
        true
    }

    /// Writes events of the history at `path`, line by line; `from` becomes where it goes on.
    fn read_lines(
        &mut self,
        client: &Client,
        path: &str,
        from: &mut Begin,
    ) -> Result<Lines, Failure> {
        let body = client.get(path, &[("Accept", "application/x-ndjson")])?.into_body();
        let mut lines = BufReader::with_capacity(BUFFER_BYTES, body.into_reader());
        let mut line = String::new();
        loop {
            line.clear();
            match lines.read_line(&mut line) {
                Ok(0) => return Ok(Lines::End),
                Ok(_) if line.ends_with('\n') => {}
                Ok(_) | Err(_) => return Ok(Lines::Cut),
            }
            let object = line.trim_end();
            let place: EventPlace = serde_json::from_str(object)
                .map_err(|error| format!("an event that is not one ({error}): {object}"))?;
            *from = Begin::At(Place::Offset(Offset::new(place.offset).plus(1)));
            if self.event(object)?.is_break() {
                return Ok(Lines::End);
            }
        }
    }
}

/// How an answer of lines ended.
enum Lines {
    /// Properly, or nobody reads them any more.
    End,
    /// It broke off.
    Cut,
}

/// Why a server's answer could not be written down.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// What was asked for lies before the log's first event.
    #[error("the log begins at offset {earliest}: what comes before is gone")]
    Expired { earliest: u64 },
    #[error("{0}")]
    Other(String),
}

impl From<String> for Failure {
    fn from(what: String) -> Failure {
        Failure::Other(what)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        if let ClientError::Refused(refusal) = &error
            && let Refusal { status: 410, earliest: Some(earliest), .. } = **refusal
        {
            return Failure::Expired { earliest };
        }
        Failure::Other(error.to_string())
    }
}

fn page(client: &Client, path: &str) -> Result<Page, Failure> {
    let answer = client.get(path, &[])?;
    let text = BufReader::with_capacity(BUFFER_BYTES, answer.into_body().into_reader());
    Ok(serde_json::from_reader(text).map_err(|error| format!("an odd answer: {error}"))?)
}

/// The history's path with all that does not change from one request to the next.
fn query_of(arguments: &ExportArguments) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let mut query = "/api/v1/events/history?order=asc".to_owned();
    for pattern in &arguments.topic {
        query.push_str(&format!("&topic={}", encoded(pattern.as_str())));
    }
    if arguments.log != "main" {
        query.push_str(&format!("&log={}", encoded(&arguments.log)));
    }
    match arguments.until {
        Some(Place::Offset(offset)) => query.push_str(&format!("&before={offset}")),
        Some(place) => query.push_str(&format!("&until={}", encoded(&place.to_string()))),
        None => {}
    }
    query
}

fn from_parameter(from: Begin) -> String {
    match from {
        // A log that retention has taken something of refuses an offset before its first.
        Begin::Earliest => "from=earliest".to_owned(),
        Begin::At(Place::Offset(offset)) => format!("from={offset}"),
        Begin::At(time) => {
            format!("since={}", utf8_percent_encode(&time.to_string(), NON_ALPHANUMERIC))
        }
    }
}

#[derive(Deserialize)]
struct EventPlace {
    offset: u64,
}

#[derive(Deserialize)]
struct Page {
    tag: String,
    events: Vec<Box<RawValue>>,
    cursor: String,
    next: Option<IgnoredAny>,
    gap: Option<Gap>,
}

#[derive(Deserialize)]
struct Gap {
    from: u64,
    to: u64,
}

fn warn(error: &ReadError) {
    match error {
        ReadError::Gap { from, to, corruption } if to <= from => {
            tell!("warning: events from {from} on are lost: {corruption}");
        }
        error => tell!("warning: {error}"),
    }
}
/// When the first event of a part of a log was appended, of whatever topic: by times one asks for a gap where it lies
/// between others.
fn time_at(log: &StoppedLog<RealDisk>, offsets: Range<Offset>) -> Option<u64> {
    let mut first = None;
    each_time(log, offsets, |time_ms| {
        first = Some(time_ms);
        ControlFlow::Break(())
    });
    first
}

/// The same of the last before an offset.
fn time_before(log: &StoppedLog<RealDisk>, end: Offset) -> Option<u64> {
    // Most often it is the one before; what was taken out leaves offsets without events.
    [1, 1 << 12, u64::MAX].into_iter().find_map(|reach| {
        let (mut last, begin) = (None, Offset::new(end.get().saturating_sub(reach)));
        each_time(log, begin..end, |time_ms| {
            last = Some(time_ms);
            ControlFlow::Continue(())
        });
        last
    })
}

fn each_time(
    log: &StoppedLog<RealDisk>,
    offsets: Range<Offset>,
    mut take: impl FnMut(u64) -> ControlFlow<()>,
) {
    let (topics, order) = (Vec::new(), Order::Ascending);
    let query = ReadQuery { topics, from: offsets.start, end: offsets.end, order };
    // What cannot be read is told by who asks.
    let _ = log.read(&query, &mut |part| match part {
        Ok(hits) => hits.events().try_for_each(|event| take(event.time_ms())),
        Err(_) => ControlFlow::Continue(()),
    });
}
