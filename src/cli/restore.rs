//! `strandline restore`: a data directory of its own, made of a backup.

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
};

use clap::Args;
use strandline_storage::{
    backup::end_of,
    data_dir::DataDir,
    error::OpenError,
    io::real::RealDisk,
    offset::Offset,
    restore::{FirstCut, Until, first_cut, restore_log},
    verify::{lock_shared, verify_with},
};

use super::counted::counted;
use super::destination::{Destination, DestinationError};
use super::directory::{self, DirectoryError};
use super::place::Place;
use super::progress::Watched;
use super::staged::Staged;
use crate::{clock, stderr::tell};

/// Makes a data directory of a backup, up to an offset or a time if wanted.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  strandline restore /backup/strandline --data ./strandline-data
  strandline restore /backup/strandline --data ./before-the-mistake --until 2026-11-21T09:08:00Z
  strandline restore /backup/strandline --data ./first-million --until 1000000

The log that is made has a new tag: readers that come back with a cursor of the old one are told that it is \
another (`reset`, `other_log`), since the two go on differently from here. The backup stays as it is.

Exit codes: 0 restored and verified, 1 failure (nothing is left in DIR), 2 usage.")]
pub struct RestoreArguments {
    /// The backup: a data directory
    #[arg(value_name = "BACKUP")]
    backup: PathBuf,
    /// The data directory to be made; it is missing, or empty
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The first offset that is not restored any more, or a time: RFC 3339, of the first event that is not
    #[arg(long, value_name = "OFFSET|TIME")]
    until: Option<Place>,
}

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
enum RestoreError {
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Destination(#[from] DestinationError),
    #[error("{}: {source}: give what `strandline backup` has made", dir.display())]
    NoBackup { dir: PathBuf, source: io::Error },
    #[error("{} holds several logs, whose offsets have nothing to do with each other: give --until a time", .0.display())]
    SeveralLogs(PathBuf),
    #[error(
        "--until {cut} would leave no event: what was before offset {} is not kept in {}; cut at {} or later",
        first.begin,
        backup.display(),
        first.cut
    )]
    BeforeBegin { cut: Offset, first: FirstCut, backup: PathBuf },
    #[error(
        "the backup has {}, as above: `strandline repair` a copy of it, or use an older one",
        counted(*findings, "finding")
    )]
    Damaged { findings: u64 },
}

/// Runs the command.
pub fn run(arguments: &RestoreArguments) -> ExitCode {
    match restore(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn restore(arguments: &RestoreArguments) -> Result<(), RestoreError> {
    let backup = directory::data_dir(&arguments.backup).map_err(|error| match error {
        DirectoryError::Open(OpenError::Io { source, .. })
            if source.kind() == io::ErrorKind::NotFound =>
        {
            RestoreError::NoBackup { dir: arguments.backup.clone(), source }
        }
        error => error.into(),
    })?;
    let destination = Destination::examine(&arguments.data, &arguments.backup)?;
    if !destination.is_empty() {
        let what = "it is not empty: name a new directory with --data".to_owned();
        return Err(DestinationError::Refused { path: arguments.data.clone(), what }.into());
    }
    let logs = directory::names_in(backup.path())?;
    if logs.len() > 1 && matches!(arguments.until, Some(Place::Offset(_))) {
        return Err(RestoreError::SeveralLogs(arguments.backup.clone()));
    }
    let staged = Staged::begin(&destination)?;
    restore_all(arguments, &backup, &logs, staged.data())?;
    Ok(staged.finish()?)
}

fn restore_all(
    arguments: &RestoreArguments,
    backup: &DataDir,
    logs: &[(String, String)],
    into: &DataDir,
) -> Result<(), RestoreError> {
    let until = match arguments.until {
        None => Until::End,
        Some(Place::Offset(offset)) => Until::Offset(offset),
        Some(Place::TimeMs(time_ms)) => Until::TimeMs(time_ms),
    };
    for (tenant, log) in logs {
        let from = backup.log_dir(tenant, log);
        let to = into.create_log_dir(&RealDisk, tenant, log)?;
        let _lock =
            directory::when_free(|| lock_shared(&RealDisk, &from)).map_err(DirectoryError::from)?;
        verify(&from)?;
        if let Until::Offset(cut) = until {
            check_cut(cut, &from)?;
        }
        let restored = restore_log(&RealDisk, &from, &to, until, clock::now())?;
        let beyond = match arguments.until {
            Some(Place::Offset(cut)) => (restored.end > cut).then_some(cut),
            _ => None,
        };
        verify(&to)?;
        tell!(
            "{tenant}/{log}: restored up to offset {} in {}; its tag is {}",
            restored.end,
            counted(restored.segments, "segment"),
            restored.tag
        );
        if let Some(cut) = beyond {
            tell!(
                "note: of what was between {cut} and {} nothing is kept: the log goes on there",
                restored.end
            );
        }
        if let (Some(until), 0) = (arguments.until, restored.segments) {
            tell!("note: {tenant}/{log} is empty: the backup holds no event of it before {until}");
        }
    }
    Ok(())
}

/// Whether a log has events before the cut, or never had any there; told if it has all of them.
fn check_cut(cut: Offset, backup: &Path) -> Result<(), RestoreError> {
    if let Some(first) = first_cut(&RealDisk, backup)?.filter(|first| cut < first.cut) {
        return Err(RestoreError::BeforeBegin { cut, first, backup: backup.to_owned() });
    }
    let end = end_of(&RealDisk, backup)?;
    if cut > end {
        tell!("note: --until {cut} lies beyond the backup, which ends at offset {end}");
    }
    Ok(())
}

fn verify(log: &Path) -> Result<(), RestoreError> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let watched = Watched::start();
    let verified = verify_with(&RealDisk, log, threads, watched.progress(), &mut |finding| {
        watched.suspend(|| tell!("{finding}"));
    })?;
    match verified.findings {
        0 => Ok(()),
        findings => Err(RestoreError::Damaged { findings }),
    }
}
