//! `strandline dump`: writes the events of a stopped server as NDJSON.

use std::{
    io::{self, BufWriter, Write},
    ops::ControlFlow,
    process::ExitCode,
};

use clap::Args;
use strandline_storage::{
    error::ReadError,
    io::real::RealDisk,
    offset::Offset,
    reader::{Hits, ReadQuery},
    selection::Order,
    stopped::StoppedLog,
    topic::TopicPattern,
};

use super::directory::{self, DirectoryArguments, DirectoryError};
use super::number::number;
use super::pattern;
use super::progress;
use crate::{event_json::push_event, stderr::tell, timestamp::TimeText};

/// Writes the events of a stopped server to standard output, one JSON object a line, as `GET
/// /api/v1/events/history` gives them and `import` takes them. Changes nothing, also after a crash.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  strandline dump ./strandline-data > everything.ndjson
  strandline dump ./strandline-data --topic 'rooms/*/messages' --from 64000 --limit 100
  strandline dump ./strandline-data --control    # also what was said about the log: settings, deletes, trims

Events that cannot be read are named on standard error, and the rest follows.

Exit codes: 0 fine, 1 events are missing, or failure (in use by a server, ...), 2 usage.")]
pub struct DumpArguments {
    #[command(flatten)]
    directory: DirectoryArguments,
    /// Only topics that this matches; may be repeated [default: all]
    #[arg(long, value_name = "PATTERN", value_parser = pattern::pattern)]
    topic: Vec<TopicPattern>,
    /// The first offset wanted
    #[arg(long, value_name = "OFFSET", default_value_t = 0, value_parser = number(0..=Offset::MAX.get()))]
    from: u64,
    /// At most so many events
    #[arg(long, value_name = "N", value_parser = number(0..=u64::MAX))]
    limit: Option<u64>,
    /// Also the log's own events, of the topic `$log`, which no reader gets and no import takes
    #[arg(long, conflicts_with = "topic")]
    control: bool,
}

/// Runs the command.
pub fn run(arguments: &DumpArguments) -> ExitCode {
    match dump(arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            tell!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all events could be read.
fn dump(arguments: &DumpArguments) -> Result<bool, DirectoryError> {
    let Some(dir) = directory::log_in(arguments.directory.path())? else { return Ok(true) };
    let log = directory::when_free(|| StoppedLog::open(&RealDisk, &dir))?;
    let query = ReadQuery {
        topics: arguments.topic.clone(),
        from: Offset::new(arguments.from),
        end: Offset::MAX,
        order: Order::Ascending,
    };
    let mut lines = Lines {
        out: BufWriter::with_capacity(256 << 10, io::stdout().lock()),
        line: Vec::new(),
        time: TimeText::default(),
        left: arguments.limit.unwrap_or(u64::MAX),
        has_control: arguments.control,
    };
    let mut is_whole = true;
    let mut output = Ok(());
    if lines.left > 0 {
        log.read(&query, &mut |part| match part {
            Ok(hits) => {
                output = lines.write(&hits);
                match output.is_err() || lines.left == 0 {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            }
            Err(error) => {
                is_whole = false;
                warn(&error);
                ControlFlow::Continue(())
            }
        })?;
    }
    progress::nobody_reads_is_fine(output.and_then(|()| lines.out.flush()))
        .map_err(DirectoryError::Output)?;
    Ok(is_whole)
}

fn warn(error: &ReadError) {
    match error {
        ReadError::Gap { from, to, corruption } if to <= from => {
            tell!("warning: events from {from} on are lost: {corruption}");
        }
        error => tell!("warning: {error}"),
    }
}

struct Lines<W: Write> {
    out: W,
    line: Vec<u8>,
    time: TimeText,
    /// How many more are wanted.
    left: u64,
    /// Whether those that say something about the log are.
    has_control: bool,
}

impl<W: Write> Lines<W> {
    fn write(&mut self, hits: &Hits) -> io::Result<()> {
        for event in hits.events() {
            if self.left == 0 {
                break;
            }
            if !event.kind().is_data() && !self.has_control {
                continue;
            }
            self.left -= 1;
            self.line.clear();
            push_event(&mut self.line, &event, &mut self.time);
            self.line.push(b'\n');
            self.out.write_all(&self.line)?;
        }
        Ok(())
    }
}
