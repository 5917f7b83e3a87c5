//! `strandline verify`: checks a data directory, and changes nothing.

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
    thread,
};

use clap::Args;
use serde::Serialize;
use strandline_storage::{
    error::Corruption,
    io::real::RealDisk,
    verify::{Verified, verify_with},
};

use super::counted::counted;
use super::directory::{self, DirectoryArguments, DirectoryError};
use super::number::number;
use super::progress::{self, Watched};
use crate::stderr::tell;

/// Checks every frame, checksum, chain and index of a stopped server's data. Changes nothing.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  strandline verify ./strandline-data
  strandline verify ./strandline-data --json | jq '.logs[].findings[]'
  strandline verify /backup/strandline/default/main

Each finding is one line on standard output: the file, the position in it, what is wrong. A torn end of \
the last segment that nothing shows to have been synced is what a crash leaves, and no finding. A running \
server's directory is in use: verify a backup of it (`strandline backup`).

Exit codes: 0 fine, 1 findings or failure (in use by a server, ...), 2 usage.")]
pub struct VerifyArguments {
    #[command(flatten)]
    directory: DirectoryArguments,
    /// Writes one JSON object to standard output, when all is done, instead of lines; its `error` says why
    /// not all was checked
    #[arg(long)]
    json: bool,
    /// How many threads read [default: as many as there are cores]
    #[arg(long, value_name = "N", value_parser = number::<u16>(1..=1024))]
    threads: Option<u16>,
}

/// What `--json` writes.
#[derive(Serialize)]
struct Report {
    /// Whether there is no finding in any log, and all of them were checked.
    sound: bool,
    logs: Vec<LogReport>,
    /// Why not all were.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Serialize)]
struct LogReport {
    dir: String,
    sound: bool,
    segments: u64,
    frames: u64,
    events: u64,
    topics: u64,
    /// The offset behind the last event.
    end: u64,
    bytes: u64,
    findings: Vec<FindingReport>,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct FindingReport {
    file: String,
    position: u64,
    what: String,
}

/// Runs the command.
pub fn run(arguments: &VerifyArguments) -> ExitCode {
    let outcome = match arguments.json {
        true => report_all(arguments),
        false => list_all(arguments),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            tell!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Names each finding as it is found; whether there was none.
fn list_all(arguments: &VerifyArguments) -> Result<bool, DirectoryError> {
    let logs = directory::logs_in(arguments.directory.path())?;
    if logs.is_empty() {
        tell!("{}: there is no log in it yet", arguments.directory.path().display());
    }
    let mut output: io::Result<()> = Ok(());
    let mut is_sound = true;
    for log in logs {
        let verified = check(arguments, &log, &mut |watched, finding| {
            watched.suspend(|| {
                if output.is_ok() {
                    output = writeln!(io::stdout(), "{finding}");
                }
            });
        })?;
        for note in &verified.notes {
            tell!("note: {note}");
        }
        tell!(
            "{}: {}, {}, {} of {}, up to offset {}: {}",
            log.display(),
            counted(verified.segments, "segment"),
            counted(verified.frames, "frame"),
            counted(verified.events, "event"),
            counted(verified.topics, "topic"),
            verified.end,
            match verified.findings {
                0 => "fine".to_owned(),
                count => counted(count, "finding"),
            }
        );
        is_sound &= verified.findings == 0;
    }
    progress::nobody_reads_is_fine(output).map_err(DirectoryError::Output)?;
    Ok(is_sound)
}

/// One JSON object for all, also where not all could be checked; whether nothing was found.
fn report_all(arguments: &VerifyArguments) -> Result<bool, DirectoryError> {
    let mut report = Report { sound: true, logs: Vec::new(), error: None };
    let checked = check_all(arguments, &mut report);
    if let Err(error) = &checked {
        report.sound = false;
        report.error = Some(error.to_string());
    }
    let text = serde_json::to_string_pretty(&report).expect("numbers and strings are JSON");
    let written = progress::nobody_reads_is_fine(writeln!(io::stdout(), "{text}"));
    checked?;
    written.map_err(DirectoryError::Output)?;
    Ok(report.sound)
}

/// Adds what is found in each log to a report.
fn check_all(arguments: &VerifyArguments, report: &mut Report) -> Result<(), DirectoryError> {
    for log in directory::logs_in(arguments.directory.path())? {
        let mut findings = Vec::new();
        let verified = check(arguments, &log, &mut |_, finding| {
            findings.push(FindingReport {
                file: finding.file.display().to_string(),
                position: finding.position.get(),
                what: finding.what.clone(),
            });
        })?;
        let sound = findings.is_empty();
        report.sound &= sound;
        report.logs.push(LogReport {
            dir: log.display().to_string(),
            sound,
            segments: verified.segments,
            frames: verified.frames,
            events: verified.events,
            topics: verified.topics,
            end: verified.end.get(),
            bytes: verified.bytes,
            findings,
            notes: verified.notes,
        });
    }
    Ok(())
}

/// Checks one log, with a bar where somebody may look at it.
fn check(
    arguments: &VerifyArguments,
    log: &Path,
    on_finding: &mut dyn FnMut(&Watched, &Corruption),
) -> Result<Verified, DirectoryError> {
    let cores = || thread::available_parallelism().map_or(1, usize::from);
    let threads = arguments.threads.map_or_else(cores, usize::from);
    let watched = Watched::start();
    let verified = directory::when_free(|| {
        verify_with(&RealDisk, log, threads, watched.progress(), &mut |finding| {
            on_finding(&watched, finding);
        })
    })?;
    Ok(verified)
}
