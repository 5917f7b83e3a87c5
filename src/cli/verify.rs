//! `strandline verify`: checks a data directory, and changes nothing.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;
use strandline_storage::{io::real::RealDisk, verify::verify};

use super::directory::{self, DirectoryError};

/// Checks every frame, checksum, chain and index of a stopped server's data. Changes nothing.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  strandline verify ./strandline-data
  strandline verify /backup/strandline/default/main

Each finding is one line on standard output: the file, the position in it, what is wrong. A torn end of \
the last segment that nothing shows to have been synced is what a crash leaves, and no finding.

Exit codes: 0 fine, 1 findings or failure (in use by a server, ...), 2 usage.")]
pub struct VerifyArguments {
    /// A data directory, or the directory of one log in it
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Runs the command.
pub fn run(arguments: &VerifyArguments) -> ExitCode {
    match check(arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether there was nothing to find.
fn check(arguments: &VerifyArguments) -> Result<bool, DirectoryError> {
    let logs = directory::logs_in(&arguments.dir)?;
    if logs.is_empty() {
        eprintln!("{}: there is no log in it yet", arguments.dir.display());
    }
    let mut out = io::stdout().lock();
    let mut output: io::Result<()> = Ok(());
    let mut is_sound = true;
    for log in logs {
        let verified = directory::when_free(|| {
            verify(&RealDisk, &log, &mut |finding| {
                if output.is_ok() {
                    output = writeln!(out, "{finding}");
                }
            })
        })?;
        for note in &verified.notes {
            eprintln!("note: {note}");
        }
        eprintln!(
            "{}: {} segments, {} frames, {} events of {} topics, up to offset {}: {}",
            log.display(),
            verified.segments,
            verified.frames,
            verified.events,
            verified.topics,
            verified.end,
            match verified.findings {
                0 => "fine".to_owned(),
                1 => "1 finding".to_owned(),
                count => format!("{count} findings"),
            }
        );
        is_sound &= verified.findings == 0;
    }
    match output {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(DirectoryError::Output(error))
        }
        _ => Ok(is_sound),
    }
}
