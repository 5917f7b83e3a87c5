//! `strandline repair`: cuts a damaged last segment, and keeps what it cut.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use strandline_storage::{
    error::Corruption,
    io::real::RealDisk,
    repair::{self, Cut, RepairPlan},
    verify::verify,
};

use super::directory::{self, DirectoryError};
use crate::clock;

/// Cuts the last segment of a stopped server's log where its damage begins, so that the server can start
/// again. Without --yes it only says what it would do.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  strandline repair ./strandline-data
  strandline repair ./strandline-data --yes

What is cut off stays beside the segment as a file that ends in `.cut-1`. The log gets a new tag: readers \
that come back with an old cursor are told that the log is another one (`reset`, `other_log`). Damage in \
the middle of a log is not repaired: readers are told of the gap and go on behind it.

Exit codes: 0 nothing to do, or done; 1 there is damage that was not repaired, or failure (in use by a \
server, ...); 2 usage.")]
pub struct RepairArguments {
    /// A data directory, or the directory of one log in it
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Do it
    #[arg(long)]
    yes: bool,
}

/// Runs the command.
pub fn run(arguments: &RepairArguments) -> ExitCode {
    match repair_all(arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether there is no damage left.
fn repair_all(arguments: &RepairArguments) -> Result<bool, DirectoryError> {
    let mut is_sound = true;
    for log in directory::logs_in(&arguments.dir)? {
        is_sound &= repair_log(&log, arguments)?;
    }
    Ok(is_sound)
}

fn repair_log(log: &Path, arguments: &RepairArguments) -> Result<bool, DirectoryError> {
    let plan = directory::when_free(|| repair::plan(&RealDisk, log))?;
    let mut others: Vec<Corruption> = Vec::new();
    let cut_file = match &plan {
        RepairPlan::Cut(cut) => Some(cut.corruption.file.clone()),
        _ => None,
    };
    verify(&RealDisk, log, &mut |finding| {
        if Some(&finding.file) != cut_file.as_ref() {
            others.push(finding.clone());
        }
    })?;
    for finding in &others {
        say(&format!("not repairable by this command: {finding}"))?;
    }
    let RepairPlan::Cut(cut) = plan else {
        if others.is_empty() {
            say(&format!("{}: nothing to repair", log.display()))?;
        } else {
            say(
                "readers are told of these gaps and go on behind them; restore the files from a backup",
            )?;
        }
        return Ok(others.is_empty());
    };
    if !arguments.yes {
        describe(&cut)?;
        let dir = arguments.dir.display();
        say(&format!("nothing was changed; to do this: strandline repair {dir} --yes"))?;
        return Ok(false);
    }
    let repaired = directory::when_free(|| repair::repair(&RealDisk, log, clock::now()))?;
    if let Some(repaired) = repaired {
        say(&format!(
            "{} was cut: the log ends at offset {} now, and its tag is {}",
            repaired.cut.corruption.file.display(),
            repaired.cut.end,
            repaired.tag
        ))?;
        say(&format!(
            "the {} bytes behind it are kept in {}",
            repaired.kept_bytes,
            repaired.kept.display()
        ))?;
        if repaired.unreadable_bytes > 0 {
            say(&format!("{} of them could not be read", repaired.unreadable_bytes))?;
        }
    }
    Ok(others.is_empty())
}

fn describe(cut: &Cut) -> Result<(), DirectoryError> {
    say(&format!("damaged: {}", cut.corruption))?;
    let end = cut.end;
    match cut.synced {
        Some(synced) => say(&format!(
            "a repair would cut the log there: it would end at offset {end}. Events from {end} to \
             {synced}, which had been acknowledged, and any behind them would no longer be read: \
             `strandline dump` writes out before what of them is whole"
        )),
        None => say(&format!(
            "a repair would take the whole file out of the log, which would end at offset {end}"
        )),
    }
}

/// One line on standard output; nobody reading it is no failure.
fn say(line: &str) -> Result<(), DirectoryError> {
    match writeln!(io::stdout(), "{line}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(DirectoryError::Output(error))
        }
        _ => Ok(()),
    }
}
