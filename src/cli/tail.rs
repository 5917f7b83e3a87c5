//! `strandline tail`: prints events as they come, and goes on where it was.

use std::{
    fs,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{self, ExitCode},
    sync::{Arc, Mutex},
    thread,
};

use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustix::{
    event::{self, PollFd, PollFlags},
    io::Errno,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use strandline_storage::topic::TopicPattern;

use super::client::{Client, ClientError, LastSaid, ServerAddress, WireEvent, next_event};
use super::number::number;
use super::pattern::pattern;
use super::reconnect::Reconnect;
use crate::{stderr::tell, stream::cursor::StartFrom};

/// Bytes read from the stream at once.
const READ_BYTES: usize = 64 << 10;

/// Prints events as they come: the data alone, or with `--json` whole event objects.
///
/// A lost connection is made again by itself, from the last event that was printed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  strandline tail --topic 'rooms/*/messages'
  strandline tail --topic 'logs/**' --cursor .cursor    # every run goes on where the last one ended
  strandline tail --from earliest --json | jq .data

The cursor file is written after the events have been printed: a run that is killed, or loses the reader of \
its pipe, may print its last events again, and never passes one over. One that is there and says no cursor is named, and it begins at the earliest \
event, or where --from says.

Exit codes: 0 done (--limit reached, or the reader of a pipe went away), 1 failure, 2 usage.")]
pub struct TailArguments {
    #[command(flatten)]
    server: ServerAddress,
    /// A topic or a pattern (`*` one level, `**` any number); may be repeated
    #[arg(long, default_value = "**", value_parser = pattern)]
    topic: Vec<TopicPattern>,
    /// Only these types; may be repeated
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,
    /// Where to begin: earliest, latest, an offset, a time, or -N for the last N [default: latest]
    #[arg(long, allow_hyphen_values = true, value_parser = parse_from)]
    from: Option<String>,
    /// Keeps the cursor in this file, and begins where it says if it is there
    #[arg(long, value_name = "FILE")]
    cursor: Option<PathBuf>,
    /// Ends after so many events
    #[arg(long, value_name = "N", value_parser = number(1..=u64::MAX))]
    limit: Option<u64>,
    /// Prints whole event objects, one a line
    #[arg(long)]
    json: bool,
}

/// The text as it stands, if the server takes it.
fn parse_from(text: &str) -> Result<String, String> {
    StartFrom::parse(text).map(|_| text.to_owned())
}

/// What `tail` needs of an event object; the rest is passed on as it stands.
#[derive(Deserialize)]
struct EventObject<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    data_base64: Option<String>,
    content_type: String,
}

/// What the stream says of itself: each event of this has some of it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Notice {
    state: String,
    reason: String,
    from: u64,
    code: u16,
}

impl Notice {
    fn of(data: &str) -> Notice {
        serde_json::from_str(data).unwrap_or_default()
    }
}

/// Why the events of one connection ended.
enum Ended {
    /// `--limit`, or nobody reads our output any more.
    Done,
    /// The connection is gone: make it again.
    Lost(String),
}

/// Runs the command.
pub fn run(arguments: &TailArguments) -> ExitCode {
    match tail(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn tail(arguments: &TailArguments) -> Result<(), ClientError> {
    let client = Client::new(&arguments.server);
    let cursor = arguments.cursor.as_deref().map_or(Ok(None), load_cursor)?;
    let is_lost = cursor.as_deref() == Some("");
    if let (true, Some(path)) = (is_lost, &arguments.cursor) {
        let from = arguments.from.as_deref().unwrap_or("earliest");
        tell!("note: {} is empty: begins at {from}", path.display());
    }
    let printing = Arc::default();
    end_without_reader(Arc::clone(&printing));
    let mut tail = Tail {
        arguments,
        printing,
        is_lost,
        is_saved: cursor.is_some(),
        cursor: cursor.unwrap_or_default(),
        printed: 0,
        out: io::stdout().lock(),
        has_answered: false,
        reconnect: Reconnect::default(),
        told: Vec::new(),
    };
    loop {
        match tail.connection(&client) {
            Ok(Ended::Done) => return Ok(()),
            Ok(Ended::Lost(why)) => tail.tell_once(format!("{why}: connecting again")),
            // A first attempt that fails is more likely a wrong address than a restart.
            Err(error) if tail.has_answered && may_pass(&error) => {
                tail.tell_once(format!("{error}; trying again"));
            }
            Err(error) => return Err(error),
        }
        thread::sleep(tail.reconnect.pause());
    }
}

/// Ends this process once nobody reads its output any more, also while no event comes that would fail to be written;
/// but not while one is printed, or the cursor saved, for which `printing` is held.
fn end_without_reader(printing: Arc<Mutex<()>>) {
    thread::spawn(move || {
        let out = io::stdout();
        let mut poll = [PollFd::new(&out, PollFlags::empty())];
        // Without flags asked for only these come, and of a file or a terminal that is there nothing.
        while let Ok(_) | Err(Errno::INTR) = event::poll(&mut poll, None) {
            if poll[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) {
                let _not_printing = printing.lock();
                process::exit(0);
            } else if poll[0].revents().intersects(PollFlags::NVAL) {
                return;
            }
        }
    });
}

/// Whether a server that was there before may be back soon: it restarts, or has too much to do.
fn may_pass(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable(_) | ClientError::Connection(_) => true,
        ClientError::Refused(refusal) => matches!(refusal.status, 429 | 502..=504),
        ClientError::Local(_) => false,
    }
}

struct Tail<'a> {
    arguments: &'a TailArguments,
    /// The cursor to come back with: of the last event printed.
    cursor: String,
    /// The file of the cursor was there and did not say one: where to go on nobody knows.
    is_lost: bool,
    /// The file of the cursor has its name, also after a power cut.
    is_saved: bool,
    printed: u64,
    /// Held while an event is printed, and the cursor saved where it is the last that has come.
    printing: Arc<Mutex<()>>,
    out: io::StdoutLock<'a>,
    /// The server was there once.
    has_answered: bool,
    reconnect: Reconnect,
    /// What was told since the last stream that was taken: each attempt would tell it again.
    told: Vec<String>,
}

impl Tail<'_> {
    /// One connection, from the cursor to its end.
    fn connection(&mut self, client: &Client) -> Result<Ended, ClientError> {
        let mut path = "/api/v1/events/stream?format=event".to_owned();
        let topics = self.arguments.topic.iter().map(|topic| ("topic", topic.as_str()));
        let types = self.arguments.types.iter().map(|name| ("type", name.as_str()));
        for (name, value) in topics.chain(types) {
            path.push_str(&format!("&{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)));
        }
        // Unasked, the server goes on at the earliest event where it cannot go on at the cursor: with
        // `latest` it would pass over all that came meanwhile.
        let lost = (self.is_lost && self.cursor.is_empty()).then_some("earliest");
        if let Some(from) = self.arguments.from.as_deref().or(lost) {
            path.push_str(&format!("&from={}", utf8_percent_encode(from, NON_ALPHANUMERIC)));
        }
        let mut headers = vec![("Accept", "text/event-stream")];
        if !self.cursor.is_empty() {
            headers.push(("Last-Event-ID", &self.cursor));
        }
        let answer = client.get(&path, &headers)?;
        self.has_answered = true;
        let mut stream = BufReader::with_capacity(READ_BYTES, answer.into_body().into_reader());
        let mut said = LastSaid { id: self.cursor.clone(), retry: None };
        let printing = Arc::clone(&self.printing);
        loop {
            let event = next_event(&mut stream, &mut said);
            if let Some(retry) = said.retry.take() {
                self.reconnect.asked(retry);
            }
            let event = match event {
                Ok(Some(event)) => event,
                Ok(None) => return Ok(Ended::Lost("the stream ended".to_owned())),
                Err(error) => return Ok(Ended::Lost(format!("the connection broke ({error})"))),
            };
            let _printing = printing.lock();
            if self.take(&event)? {
                return Ok(Ended::Done);
            }
            // Nothing more has come yet: the moment to let the reader of a pipe see it.
            if stream.buffer().is_empty() && self.flush()? {
                return Ok(Ended::Done);
            }
        }
    }

    /// Takes an event of the stream; returns whether it was the last one wanted.
    fn take(&mut self, event: &WireEvent) -> Result<bool, ClientError> {
        match event.event.as_str() {
            "connection.established" => {
                self.reconnect.taken();
                self.told.clear();
                let notice = Notice::of(&event.data);
                if notice.state == "reset" {
                    let why = match notice.reason.as_str() {
                        "expired" => "the log does not keep what comes there any more",
                        "other_log" => "it is of another log",
                        "ahead" => "it lies beyond the end of the log",
                        _ => "it is no cursor",
                    };
                    let (reason, from) = (notice.reason, notice.from);
                    let (cannot, goes) = match (self.cursor.as_str(), &self.arguments.from) {
                        ("", Some(wanted)) => (format!("begin at offset {wanted}"), "begins"),
                        (cursor, _) => (format!("go on after cursor {cursor}"), "goes on"),
                    };
                    tell!("note: cannot {cannot}: {why} ({reason}); {goes} at offset {from}");
                }
            }
            "connection.reset" => {
                let Notice { reason, from, .. } = Notice::of(&event.data);
                tell!("note: events before offset {from} were passed over ({reason})");
            }
            "connection.closing" => {
                let Notice { reason, code, .. } = Notice::of(&event.data);
                self.tell_once(format!("note: the server ends the stream ({code}): {reason}"));
            }
            "ping" => {}
            _ => {
                if self.print(&event.data)? {
                    return Ok(true);
                }
                self.printed += 1;
                if Some(self.printed) == self.arguments.limit {
                    self.cursor.clone_from(&event.id);
                    self.flush()?;
                    return Ok(true);
                }
            }
        }
        self.cursor.clone_from(&event.id);
        Ok(false)
    }

    /// Tells something that has not been told since the last stream that was taken.
    fn tell_once(&mut self, what: String) {
        if !self.told.contains(&what) {
            tell!("{what}");
            self.told.push(what);
        }
    }

    /// Prints one event; returns whether nobody reads any more.
    fn print(&mut self, object: &str) -> Result<bool, ClientError> {
        let written = if self.arguments.json {
            writeln!(self.out, "{object}")
        } else {
            let event: EventObject<'_> = serde_json::from_str(object).map_err(|error| {
                ClientError::Connection(format!("an event that is not one ({error}): {object}"))
            })?;
            let text = event.data.map_or("", RawValue::get);
            if event.data_base64.is_some() {
                writeln!(self.out, "{}", event.data_base64.unwrap_or_default())
            } else if is_json(&event.content_type) {
                writeln!(self.out, "{text}")
            } else {
                writeln!(self.out, "{}", serde_json::from_str::<String>(text).unwrap_or_default())
            }
        };
        pipe_closed(written)
    }

    /// Lets go of what was printed, then notes the cursor; returns whether nobody reads any more.
    fn flush(&mut self) -> Result<bool, ClientError> {
        if pipe_closed(self.out.flush())? {
            return Ok(true);
        }
        if let Some(path) = &self.arguments.cursor {
            save_cursor(path, &self.cursor, !self.is_saved)?;
            self.is_saved = true;
        }
        Ok(false)
    }
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence == "application/json" || essence.ends_with("+json")
}

fn pipe_closed(written: io::Result<()>) -> Result<bool, ClientError> {
    match written {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(true),
        Err(error) => Err(ClientError::Local(format!("standard output: {error}"))),
    }
}

/// The first line of the file; `None` if there is no such file.
fn load_cursor(path: &Path) -> Result<Option<String>, ClientError> {
    match fs::File::open(path) {
        Ok(file) => {
            let mut line = String::new();
            BufReader::new(file)
                .read_line(&mut line)
                .map_err(|error| ClientError::Local(format!("{}: {error}", path.display())))?;
            Ok(Some(line.trim().to_owned()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ClientError::Local(format!("{}: {error}", path.display()))),
    }
}

/// Replaces the file whole, so that a kill or a power cut leaves the old cursor or the new one. The directory is synced
/// for a file that is new: without a cursor events would be passed over, with an old one they are printed again.
fn save_cursor(path: &Path, cursor: &str, is_new: bool) -> Result<(), ClientError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let save = || {
        let mut file = fs::File::create(&new)?;
        file.write_all(format!("{cursor}\n").as_bytes())?;
        file.sync_data()?;
        fs::rename(&new, path)?;
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        if is_new { fs::File::open(dir.unwrap_or(Path::new(".")))?.sync_all() } else { Ok(()) }
    };
    save().map_err(|error| ClientError::Local(format!("cursor file {}: {error}", path.display())))
}
