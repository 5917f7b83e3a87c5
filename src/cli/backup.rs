//! `strandline backup`: a second data directory, of a running server or a stopped one.

use std::{
    collections::BTreeSet,
    fmt,
    ops::Range,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use indicatif::HumanBytes;
use serde::{Deserialize, de::DeserializeOwned};
use strandline_storage::{
    backup::{
        BackedUp, Beginning, Reach, SegmentsSeen, back_up_again, beginning_of, end_of, last_segment,
    },
    config::SyncMode,
    data_dir::{DEFAULT_LOG, DEFAULT_TENANT, DataDir},
    error::{Corruption, OpenError},
    io::real::RealDisk,
    offset::Offset,
    segment::Tag,
    verify::{lock_shared, verify_with},
};

use super::client::{Client, ServerAddress};
use super::counted::counted;
use super::destination::{Destination, DestinationError, Existing, ExistingLog};
use super::directory::{self, DirectoryError};
use super::progress::Watched;
use super::staged::Staged;
use crate::{runtime::run_when_idle, stderr::tell};

/// What was acknowledged is waited for so long beyond the server's interval between syncs,
const SYNC_WAIT: Duration = Duration::from_secs(5);
/// and so long in all: an interval may be an hour.
const SYNC_WAIT_MAX: Duration = Duration::from_secs(60);
/// How often the server is asked meanwhile.
const SYNC_ASK_EVERY: Duration = Duration::from_millis(50);

/// So often a server is asked which file takes appends, and the directory is looked at: it may have been removed already.
const SAME_FILE_TRIES: u32 = 5;

/// Makes or renews a backup of a data directory, beside the running server or without one.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  strandline backup /backup/strandline
  strandline backup --data /srv/strandline --url http://127.0.0.1:7400 /backup/strandline
  strandline backup /backup/strandline && rsync -aH /backup/strandline elsewhere:

DIR is always one complete data directory: the new state is made beside it, verified, and takes its place in \
one step. Files that never change are hard links where DIR is on the same file system, and copied where it is \
not; a backup that is renewed copies only what is new. Only an older backup of the same log, with which that log \
begins, is replaced, unless --replace says so, and never a directory that a server has. What the server has not synced is never in it: what it had acknowledged is waited for, a minute at most, and named if it \
does not come (`serve --sync never`). Beside a \
running server it works where the processor would be idle, so that appends do not wait for it.

A backup on the same disk does not outlive the disk: copy DIR on to another.
`strandline restore` makes a data directory of it, up to an offset or a time if wanted.

Exit codes: 0 backed up and verified; 1 failure (the backup before is untouched), or the new backup lacks what is named, \
or keeps the damage that is named (--keep-damaged); 2 usage.")]
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
    Destination(#[from] DestinationError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("{} stays as it is: {what}; name another directory, or --replace it", dir.display())]
    NoBackupOfIt { dir: PathBuf, what: String },
    #[error("{0}")]
    Server(String),
    #[error(
        "the backup has {}, as above, in what was taken from the log, and is not kept: repair the log, or keep it as it is with \
         --keep-damaged, in another directory if the backup before has what is damaged",
        counted(*findings, "finding")
    )]
    Damaged { findings: u64 },
}

/// Runs the command.
pub fn run(arguments: &BackupArguments) -> ExitCode {
    match back_up(arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            tell!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all is in the backup, and sound.
fn back_up(arguments: &BackupArguments) -> Result<bool, BackupError> {
    let begun = Instant::now();
    let to = &arguments.to;
    let data = directory::data_dir(&arguments.data)?;
    let destination = Destination::examine(to, data.path())?;
    // Its locks are held until it is replaced.
    let previous = destination.existing()?;
    if let Some(previous) = &previous {
        check_previous(arguments, previous, |tenant, log| {
            let dir = data.log_dir(tenant, log);
            match directory::is_dir(&dir).map_err(OpenError::io("looking at", &dir))? {
                true => Ok(Some((last_segment(&RealDisk, &dir)?.tag, None))),
                false => Ok(None),
            }
        })?;
    }
    let staged = Staged::begin(&destination)?;
    let made = back_up_into(arguments, &data, previous.as_ref(), staged.data())?;
    staged.finish()?;
    let (to, seconds) = (to.display(), begun.elapsed().as_secs_f64());
    match made.findings {
        0 => tell!("{to}: verified, in {seconds:.1} s"),
        findings => {
            let findings = counted(findings, "finding");
            tell!("{to}: kept with {findings}, as above; the rest is verified");
        }
    }
    for (dir, missing) in &made.missing {
        tell!(
            "warning: events from {} to {} of {} are not in the backup: they had been acknowledged, and the \
             server has not synced them; it does once it is stopped in order, or runs with another --sync",
            missing.start,
            missing.end,
            dir.display()
        );
    }
    Ok(made.findings == 0 && made.missing.is_empty())
}

/// What is in a backup that should not be, and what is not that should.
#[derive(Debug, Default)]
struct Made {
    /// How much damage.
    findings: u64,
    /// Acknowledged events of a log's directory.
    missing: Vec<(PathBuf, Range<Offset>)>,
}

/// A log that was backed up.
struct Done {
    tenant: String,
    log: String,
    done: BackedUp,
    /// The names of the files in which something was found.
    damaged: BTreeSet<String>,
}

/// Whether what is in the place of the backup may go, now that so much is known of the logs.
fn check_previous(
    arguments: &BackupArguments,
    previous: &Existing,
    now: impl FnMut(&str, &str) -> Result<Option<(Option<Tag>, Option<Offset>)>, OpenError>,
) -> Result<(), BackupError> {
    if arguments.replace {
        return Ok(());
    }
    match previous.objection(now)? {
        Some(what) => Err(BackupError::NoBackupOfIt { dir: arguments.to.clone(), what }),
        None => Ok(()),
    }
}

fn back_up_into(
    arguments: &BackupArguments,
    data: &DataDir,
    previous: Option<&Existing>,
    into: &DataDir,
) -> Result<Made, BackupError> {
    let mut made = Made::default();
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
        let to = into.create_log_dir(&RealDisk, &tenant, &log)?;
        let previous = match previous.map(|previous| previous.data.log_dir(&tenant, &log)) {
            Some(dir) if directory::is_dir(&dir).map_err(OpenError::io("looking at", &dir))? => {
                Some(dir)
            }
            _ => None,
        };
        let previous = previous.as_deref();
        let one = One { arguments, tenant: &tenant, log: &log, from: &from, previous, to: &to };
        let (mut done, mut acknowledged) = one.back_up(&[])?;
        let place = arguments.to.join(&tenant).join(&log);
        let mut findings = verify_one(&to, is_gentle)?;
        let damaged = damaged_among(&done.second_hand, &findings);
        if !damaged.is_empty() {
            // The log may be sound: nobody has read what it has.
            (done, acknowledged) = one.back_up(&damaged)?;
            findings = verify_one(&to, is_gentle)?;
            for name in &damaged {
                let is_sound = findings.iter().all(|finding| !is_in(finding, name));
                let log_is = if is_sound { "sound" } else { "damaged as well" };
                tell!(
                    "note: {} of the backup before is damaged; that of the log is {log_is}, and was copied in its place",
                    place.join(name).display()
                );
            }
        }
        for finding in &findings {
            // A backup that is not kept has no file that could be looked at: the log has one of the same name.
            let told = match arguments.keep_damaged {
                true => in_dir(finding, &place),
                false => in_log(finding, &from),
            };
            tell!("{told}");
        }
        tell!(
            "{}: up to offset {}; {} linked, {} copied ({})",
            from.display(),
            done.end,
            counted(done.linked, "file"),
            done.copied,
            HumanBytes(done.copied_bytes)
        );
        made.findings += findings.len() as u64;
        if done.end < acknowledged {
            made.missing.push((from, done.end..acknowledged));
        }
        let damaged = findings.iter().filter_map(|finding| finding.file.file_name());
        let damaged = damaged.map(|name| name.to_string_lossy().into_owned()).collect();
        all_done.push(Done { tenant, log, done, damaged });
    }
    if made.findings > 0 && !arguments.keep_damaged {
        return Err(BackupError::Damaged { findings: made.findings });
    }
    if let Some(previous) = previous {
        check_previous(arguments, previous, |tenant, log| {
            let now = all_done.iter().find(|now| now.tenant == tenant && now.log == log);
            Ok(now.map(|now| (now.done.tag, Some(now.done.end))))
        })?;
        if !arguments.replace {
            check_beginning(arguments, previous, into, &all_done)?;
        }
    }
    Ok(made)
}

/// Whether each log in the place of the backup is the beginning of what was backed up now: a tag is kept by a copy
/// that went another way, too.
fn check_beginning(
    arguments: &BackupArguments,
    previous: &Existing,
    into: &DataDir,
    all_done: &[Done],
) -> Result<(), BackupError> {
    let (mut lost_of, none_damaged) = (Vec::new(), BTreeSet::new());
    for old in &previous.logs {
        let ExistingLog { tenant, log, end, .. } = old;
        let (before, now) = (previous.data.log_dir(tenant, log), into.log_dir(tenant, log));
        if !directory::is_dir(&now).map_err(OpenError::io("looking at", &now))? {
            continue; // Nothing was in it, or it would have been refused by now.
        }
        let done = all_done.iter().find(|done| done.tenant == *tenant && done.log == *log);
        let damaged = done.map(|done| &done.damaged).unwrap_or(&none_damaged);
        match beginning_of(&RealDisk, &before, &now, damaged)? {
            Beginning::Proven => {}
            Beginning::TakenOut(taken) => tell!(
                "note: the backup before held {tenant}/{log} up to offset {end}; of its events from {} to {} nothing \
                 is left in the log, so that it is the same log is known by its tag alone",
                taken.start,
                taken.end
            ),
            Beginning::Lost(lost) => {
                let parts: Vec<_> =
                    lost.iter().map(|lost| format!("{} to {}", lost.start, lost.end)).collect();
                lost_of.push(format!("{tenant}/{log} from offset {}", parts.join(", ")));
            }
            Beginning::Differs { what } => {
                let new_end = end_of(&RealDisk, &now)?;
                let what = format!(
                    "it holds {tenant}/{log} up to offset {end}, and the log in --data, up to offset {new_end}, does \
                     not go on from there: {what}. It lost its end and grew again, or is a copy that went another \
                     way, and what it does not have would be gone"
                );
                return Err(BackupError::NoBackupOfIt { dir: arguments.to.clone(), what });
            }
        }
    }
    if !lost_of.is_empty() {
        let what = format!(
            "it has {}, which the log in --data has lost, as repairs have named it, or cannot read: it may be the last that \
             has these events, and they would be gone. `strandline export --from` and `--until` show them",
            lost_of.join("; and ")
        );
        return Err(BackupError::NoBackupOfIt { dir: arguments.to.clone(), what });
    }
    Ok(())
}

/// What is asked of the server: of which history, how far it has synced, and how far it goes.
#[derive(Deserialize)]
struct Ends {
    durable: u64,
    tag: String,
    cursor: String,
}

impl Ends {
    /// The end of what readers may have seen: the cursor of the newest page says the last offset.
    fn visible(&self) -> Option<u64> {
        let (offset, _tag) = self.cursor.split_once('.')?;
        u64::try_from(offset.parse::<i64>().ok()?.checked_add(1)?).ok()
    }
}

/// And which of the logs with that tag it has.
#[derive(Deserialize)]
struct Active {
    /// Of the file that takes appends; a server from before this has none.
    segment: Option<String>,
}

/// One log that is backed up.
struct One<'a> {
    arguments: &'a BackupArguments,
    tenant: &'a str,
    log: &'a str,
    from: &'a Path,
    previous: Option<&'a Path>,
    to: &'a Path,
}

impl One<'_> {
    /// Also gives the end of what had been acknowledged when it began. The files with the names in `distrusted` are
    /// taken from the log alone.
    fn back_up(&self, distrusted: &[String]) -> Result<(BackedUp, Offset), BackupError> {
        let from = self.from;
        let take =
            |reach| back_up_again(&RealDisk, from, self.previous, self.to, reach, distrusted);
        match lock_shared(&RealDisk, from) {
            // Held until all is copied: no server starts meanwhile.
            Ok(_lock) => {
                let done = take(Reach::Stopped)?;
                let end = done.end;
                Ok((done, end))
            }
            Err(OpenError::Locked { .. }) => {
                let ends = self.ask()?;
                self.check_server()?;
                let acknowledged = Offset::new(ends.visible().unwrap_or(ends.durable));
                let durable = self.wait_until_durable(&ends, acknowledged)?;
                let done = take(Reach::Synced(durable))?;
                match done.tag {
                    Some(tag) if tag.as_str() != ends.tag => Err(self.other_log()),
                    _ => Ok((done, acknowledged)),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until what had been acknowledged is synced, if that comes by itself, and gives what is then.
    fn wait_until_durable(&self, ends: &Ends, acknowledged: Offset) -> Result<Offset, BackupError> {
        let interval = match last_segment(&RealDisk, self.from)?.sync {
            Some(SyncMode::Never) => return Ok(Offset::new(ends.durable)),
            Some(SyncMode::Interval { interval_ms }) => Duration::from_millis(interval_ms.into()),
            Some(SyncMode::Commit) | None => Duration::ZERO,
        };
        let until = Instant::now() + (interval + SYNC_WAIT).min(SYNC_WAIT_MAX);
        let mut durable = Offset::new(ends.durable);
        while durable < acknowledged && Instant::now() < until {
            thread::sleep(SYNC_ASK_EVERY);
            let now = self.ask()?;
            if now.tag != ends.tag {
                break;
            }
            durable = Offset::new(now.durable);
        }
        Ok(durable)
    }

    fn ask(&self) -> Result<Ends, BackupError> {
        let One { tenant, log, .. } = *self;
        if tenant != DEFAULT_TENANT {
            return Err(self.unsaid("it is not of the default tenant"));
        }
        let log = if log == DEFAULT_LOG { String::new() } else { format!("&log={log}") };
        self.get(&format!("/api/v1/events/history?order=desc&limit=1{log}"))
    }

    /// Whether the server has this very directory. A copy of it has the same tag, and whatever is said of how far that
    /// goes says nothing of this one; but every start begins a file of its own.
    fn check_server(&self) -> Result<(), BackupError> {
        for _ in 0..SAME_FILE_TRIES {
            let before = SegmentsSeen::now(&RealDisk, self.from)?;
            let said: Active = self.get(&format!("/api/v1/logs/{}", self.log))?;
            let Some(said) = said.segment else { return Ok(()) };
            // The server may have gone on by many segments: whoever makes way for all others waits for its turn.
            let after = before.since(&RealDisk, self.from)?;
            let mut here = before.begun().iter().chain(after.begun());
            // What is damaged here is told when it is copied.
            if after.begun().is_empty() || here.any(|begun| begun.to_string() == said) {
                return Ok(());
            }
            thread::sleep(SYNC_ASK_EVERY);
        }
        Err(self.other_log())
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, BackupError> {
        let text = Client::new(&self.arguments.server)
            .get(path, &[])
            .map_err(|error| self.unsaid(error))?
            .into_body()
            .read_to_string()
            .map_err(|error| self.unsaid(error))?;
        serde_json::from_str(&text)
            .map_err(|error| self.unsaid(format_args!("an odd answer: {error}")))
    }

    fn unsaid(&self, what: impl fmt::Display) -> BackupError {
        let One { tenant, log, .. } = self;
        BackupError::Server(format!(
            "a server has {tenant}/{log} open, and has to say how far it has synced: {what}"
        ))
    }

    fn other_log(&self) -> BackupError {
        BackupError::Server(format!(
            "the server at {} has another log than {}: give the one that runs there with --url",
            self.arguments.server.url,
            self.from.display()
        ))
    }
}

/// What is wrong with a log of the backup.
fn verify_one(log: &Path, is_gentle: bool) -> Result<Vec<Corruption>, BackupError> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads = if is_gentle { 1 } else { cores };
    let watched = Watched::start();
    let mut findings = Vec::new();
    let mut take = |finding: &Corruption| findings.push(finding.clone());
    verify_with(&RealDisk, log, threads, watched.progress(), &mut take)?;
    Ok(findings)
}

/// The same of the file of that name in another directory.
fn in_dir(finding: &Corruption, dir: &Path) -> Corruption {
    let file = finding.file.file_name().map_or_else(|| dir.to_owned(), |name| dir.join(name));
    Corruption { file, ..finding.clone() }
}

/// The same of the file of that name in the log, and which of the two was read if they are two: the log's may be sound.
fn in_log(finding: &Corruption, log: &Path) -> Corruption {
    let mut told = in_dir(finding, log);
    if is_other_file(&finding.file, &told.file) {
        told.what.push_str(" (read in a copy of this file, which is not kept)");
    }
    told
}

/// Whether both are there, and two.
fn is_other_file(left: &Path, right: &Path) -> bool {
    let id = |path: &Path| path.metadata().ok().map(|meta| (meta.dev(), meta.ino()));
    id(left).zip(id(right)).is_some_and(|(left, right)| left != right)
}

/// Which of the files that came from the backup before are damaged.
fn damaged_among(second_hand: &BTreeSet<String>, findings: &[Corruption]) -> Vec<String> {
    let damaged =
        second_hand.iter().filter(|name| findings.iter().any(|finding| is_in(finding, name)));
    damaged.cloned().collect()
}

/// Whether it was found in the file of this name.
fn is_in(finding: &Corruption, file_name: &str) -> bool {
    finding.file.file_name().is_some_and(|name| name == file_name)
}
