//! `strandline backup`: a second data directory, of a running server or a stopped one.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::Instant,
};

use clap::Args;
use indicatif::HumanBytes;
use serde::Deserialize;
use strandline_storage::{
    backup::{BackedUp, Reach, back_up_log, last_segment},
    data_dir::{DEFAULT_LOG, DEFAULT_TENANT, DataDir},
    error::OpenError,
    io::real::RealDisk,
    offset::Offset,
    segment::Tag,
    verify::{lock_shared, verify_with},
};

use super::client::{Client, ServerAddress};
use super::directory::{self, DirectoryError};
use super::progress::Watched;
use super::staged::Staged;
use super::target::{Existing, Target, TargetError};
use crate::runtime::run_when_idle;

/// Makes or renews a backup of a data directory, beside the running server or without one.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  strandline backup /backup/strandline
  strandline backup --data /srv/strandline --url http://127.0.0.1:7400 /backup/strandline
  strandline backup /backup/strandline && rsync -aH /backup/strandline elsewhere:

DIR is always one complete data directory: the new state is made beside it, verified, and takes its place in \
one step. Files that never change are hard links where DIR is on the same file system, and copied where it is \
not; a backup that is renewed copies only what is new. Only an older backup of the same log is replaced, unless \
--replace says so, and never a directory that a server has. What the server has not synced is never in it. Beside a \
running server it works where the processor would be idle, so that appends do not wait for it.

A backup on the same disk does not outlive the disk: copy DIR on to another.
`strandline restore` makes a data directory of it, up to an offset or a time if wanted.

Exit codes: 0 backed up and verified, 1 failure (the backup before is untouched), 2 usage.")]
pub struct BackupArguments {
    #[command(flatten)]
    server: ServerAddress,
    /// The data directory of the server
    #[arg(long, value_name = "DIR", default_value = "./strandline-data")]
    data: PathBuf,
    /// Takes all the time of the processor that it can get, though a server runs
    #[arg(long)]
    fast: bool,
    /// Replaces what is in DIR though it is no older backup of this very log; never what a server has
    #[arg(long)]
    replace: bool,
    /// Keeps a backup though there is damage in it, which is in the log itself
    #[arg(long)]
    keep_damaged: bool,
    /// Where the backup is, or is to be
    #[arg(value_name = "DIR")]
    to: PathBuf,
}

/// Why there is no new backup.
#[derive(Debug, thiserror::Error)]
enum BackupError {
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("{} stays as it is: {what}; name another directory, or --replace it", dir.display())]
    NoBackupOfIt { dir: PathBuf, what: String },
    #[error("{0}")]
    Server(String),
    #[error(
        "the backup has {findings} findings, as above, and is not kept: repair the log, or keep it as it is \
         with --keep-damaged"
    )]
    Damaged { findings: u64 },
}

/// Runs the command.
pub fn run(arguments: &BackupArguments) -> ExitCode {
    match back_up(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn back_up(arguments: &BackupArguments) -> Result<(), BackupError> {
    let begun = Instant::now();
    let to = &arguments.to;
    let data = DataDir::open_existing(&RealDisk, &arguments.data).map_err(DirectoryError::from)?;
    let target = Target::examine(to, data.path())?;
    // Its locks are held until it is replaced.
    let previous = target.existing()?;
    if let Some(previous) = &previous {
        check_previous(arguments, previous, |tenant, log| {
            let dir = data.log_dir(tenant, log);
            match dir.is_dir() {
                // A file that went between listing and opening says nothing; the end of all this looks again.
                true => last_segment(&RealDisk, &dir).ok().map(|last| (last.tag, None)),
                false => None,
            }
        })?;
    }
    let staged = Staged::begin(&target)?;
    let made = back_up_into(arguments, &data, previous.as_ref(), staged.data());
    match made {
        Ok(()) => staged.finish()?,
        Err(error) => {
            staged.abandon()?;
            return Err(error);
        }
    }
    eprintln!("{}: verified, in {:.1} s", to.display(), begun.elapsed().as_secs_f64());
    Ok(())
}

/// Whether what is in the place of the backup may go, now that so much is known of the logs.
fn check_previous(
    arguments: &BackupArguments,
    previous: &Existing,
    now: impl FnMut(&str, &str) -> Option<(Option<Tag>, Option<Offset>)>,
) -> Result<(), BackupError> {
    match previous.objection(now) {
        Some(what) if !arguments.replace => {
            Err(BackupError::NoBackupOfIt { dir: arguments.to.clone(), what })
        }
        _ => Ok(()),
    }
}

fn back_up_into(
    arguments: &BackupArguments,
    data: &DataDir,
    previous: Option<&Existing>,
    target: &DataDir,
) -> Result<(), BackupError> {
    let mut findings = 0;
    let logs = directory::names_in(data.path())?;
    let is_running = |(tenant, log): &(String, String)| {
        let locked = lock_shared(&RealDisk, &data.log_dir(tenant, log));
        matches!(locked, Err(OpenError::Locked { .. }))
    };
    let is_gentle = !arguments.fast && logs.iter().any(is_running);
    if is_gentle {
        run_when_idle();
    }
    let mut all_done = Vec::new();
    for (tenant, log) in logs {
        let from = data.log_dir(&tenant, &log);
        let to = target.create_log_dir(&RealDisk, &tenant, &log)?;
        let previous = previous.map(|previous| previous.data.log_dir(&tenant, &log));
        let previous = previous.as_deref().filter(|dir| dir.is_dir());
        let done = back_up_one(arguments, &tenant, &log, &from, previous, &to)?;
        eprintln!(
            "{}: up to offset {}; {} files linked, {} copied ({})",
            from.display(),
            done.end,
            done.linked,
            done.copied,
            HumanBytes(done.copied_bytes)
        );
        findings += verify_one(&to, is_gentle)?;
        all_done.push((tenant, log, done));
    }
    if findings > 0 && !arguments.keep_damaged {
        return Err(BackupError::Damaged { findings });
    }
    if let Some(previous) = previous {
        check_previous(arguments, previous, |tenant, log| {
            let mut same = all_done.iter().filter(|done| done.0 == tenant && done.1 == log);
            same.next().map(|(.., done)| (done.tag, Some(done.end)))
        })?;
    }
    Ok(())
}

/// What is asked of the server: how far it has synced, and of which history.
#[derive(Deserialize)]
struct Ends {
    durable: u64,
    tag: String,
}

fn back_up_one(
    arguments: &BackupArguments,
    tenant: &str,
    log: &str,
    from: &Path,
    previous: Option<&Path>,
    to: &Path,
) -> Result<BackedUp, BackupError> {
    match lock_shared(&RealDisk, from) {
        // Held until all is copied: no server starts meanwhile.
        Ok(_lock) => Ok(back_up_log(&RealDisk, from, previous, to, Reach::Stopped)?),
        Err(OpenError::Locked { .. }) => {
            let ends = ask(arguments, tenant, log)?;
            let reach = Reach::Synced(Offset::new(ends.durable));
            let done = back_up_log(&RealDisk, from, previous, to, reach)?;
            match done.tag {
                Some(tag) if tag.as_str() != ends.tag => Err(BackupError::Server(format!(
                    "the server at {} has another log than {}: give the one that runs there with --url",
                    arguments.server.url,
                    from.display()
                ))),
                _ => Ok(done),
            }
        }
        Err(error) => Err(error.into()),
    }
}

fn ask(arguments: &BackupArguments, tenant: &str, log: &str) -> Result<Ends, BackupError> {
    let failed = |what: String| {
        BackupError::Server(format!(
            "a server has {tenant}/{log} open, and has to say how far it has synced: {what}"
        ))
    };
    if tenant != DEFAULT_TENANT {
        return Err(failed("it is not of the default tenant".to_owned()));
    }
    let client = Client::new(&arguments.server).map_err(|error| failed(error.to_string()))?;
    let log = if log == DEFAULT_LOG { String::new() } else { format!("&log={log}") };
    let answer = client.get(&format!("/api/v1/events/history?limit=1{log}"), &[]);
    let text = answer
        .map_err(|error| failed(error.to_string()))?
        .into_body()
        .read_to_string()
        .map_err(|error| failed(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| failed(format!("an odd answer: {error}")))
}

/// Names what is wrong with a log of the backup, and counts it.
fn verify_one(log: &Path, is_gentle: bool) -> Result<u64, BackupError> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads = if is_gentle { 1 } else { cores };
    let watched = Watched::start();
    let verified = verify_with(&RealDisk, log, threads, watched.progress(), &mut |finding| {
        watched.suspend(|| eprintln!("{finding}"));
    })?;
    Ok(verified.findings)
}
