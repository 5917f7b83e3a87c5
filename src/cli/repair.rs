//! `strandline repair`: makes a damaged log one that opens again, and keeps what it takes out.

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use clap::Args;
use strandline_storage::{
    io::real::RealDisk,
    remains::Forgotten,
    repair::{self, Action, Step},
    shell,
};

use super::directory::{self, DirectoryArguments, DirectoryError};
use super::progress;
use crate::{clock, stderr::tell};

/// Makes a damaged log of a stopped server one that opens again, without losing anything that can be
/// read. Without --yes it only says what it would do.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  strandline repair ./strandline-data
  strandline repair ./strandline-data --yes

A damaged segment is written anew: every event that can be read stays, under its offset, and what cannot is \
kept as a gap, which readers are told of. So is a segment whose file is missing. A damaged index is made anew \
from its events; if some of them are lost, or gone by a limit or a deletion, and neither the rest of it nor a snapshot knows what is remembered of them \
(ids, producers, last offsets of topics), that is forgotten, and said before. The files that are taken out are kept in `damaged-<ms since 1970>` inside the log's directory. \
Only where the end of the log is lost, or the last file has lost its header, and so nobody knows how far readers had \
come, does the log get a new tag: readers that come back with an old cursor are told that it is another one (`reset`, `other_log`).

If there is a backup, look there first: it may hold what is damaged here.

A file that is not what its name says, or is of another log, is named, and nothing is changed: take it out, and ask again. \
What was done is looked at again before it is called repaired.

Exit codes: 0 nothing to do, or done; 1 there is damage that was not repaired, or failure (in use by a \
server, ...); 2 usage.")]
pub struct RepairArguments {
    #[command(flatten)]
    directory: DirectoryArguments,
    /// Do it
    #[arg(long)]
    yes: bool,
}

/// Why events are not there any more that nobody misses.
const GONE: &str = "gone from it by a limit or a deletion";

/// Runs the command.
pub fn run(arguments: &RepairArguments) -> ExitCode {
    match repair_all(arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            tell!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether there is no damage left.
fn repair_all(arguments: &RepairArguments) -> Result<bool, DirectoryError> {
    let mut is_sound = true;
    for log in directory::logs_in(arguments.directory.path())? {
        is_sound &= repair_log(&log, arguments)?;
    }
    Ok(is_sound)
}

fn repair_log(log: &Path, arguments: &RepairArguments) -> Result<bool, DirectoryError> {
    let plan = directory::when_free(|| repair::plan(&RealDisk, log))?;
    for damage in &plan.beyond {
        say(&format!(
            "beyond repair: {damage}: take the file out if it does not belong there, restore a backup, or \
             `strandline export` the rest"
        ))?;
    }
    if !plan.beyond.is_empty() {
        say(&format!("{}: nothing is changed: it would not open after it either", log.display()))?;
        return Ok(false);
    }
    if plan.steps.is_empty() {
        say(&format!("{}: nothing to repair", log.display()))?;
        return Ok(true);
    }
    for step in &plan.steps {
        describe(step)?;
    }
    if !arguments.yes {
        let dir = shell::word(arguments.directory.path());
        say(&format!("nothing was changed; to do this: strandline repair {dir} --yes"))?;
        // What a rewrite has left that was cut short is no damage: a start removes it.
        return Ok(plan.steps.iter().all(|step| step.action == Action::Discard));
    }
    let repaired = directory::when_free(|| repair::repair(&RealDisk, log, clock::now()))?;
    let mut is_whole = true;
    if let Some(repaired) = repaired {
        is_whole = repaired.left.is_empty();
        for damage in &repaired.left {
            say(&format!("beyond repair: {damage}"))?;
        }
        let how = if is_whole { "repaired" } else { "not repaired: it would not open" };
        let mut kept = repaired.aside.display().to_string();
        for aside in &repaired.aside_later {
            kept = format!("{kept} and {}", aside.display());
        }
        say(&format!("{}: {how}; what was taken out is kept in {kept}", log.display()))?;
        if let Some(tag) = repaired.new_tag {
            say(&format!(
                "how far the log and its readers had come is not known any more: the log's tag is {tag} now"
            ))?;
        }
    }
    Ok(is_whole)
}

fn describe(step: &Step) -> Result<(), DirectoryError> {
    let is_left = step.action == Action::Discard;
    say(&format!("{}: {}", if is_left { "left over" } else { "damaged" }, step.damage))?;
    match &step.action {
        Action::Reindex { forgotten } if forgotten.is_nothing() => {
            say("  its index is made anew; nothing is lost")
        }
        Action::Reindex { forgotten } => {
            say("  its index is made anew from the events of its segment; none of those is lost")?;
            warn(GONE, forgotten)
        }
        Action::Restub { forgotten } => {
            say(
                "  it stands for events that are gone by a limit or a deletion, and is made anew; none is lost",
            )?;
            warn(GONE, forgotten)
        }
        Action::Rewrite { kept_events, lost, forgotten } => {
            say(&format!("  it is written anew with the {kept_events} events that can be read"))?;
            lost.iter().try_for_each(|lost| say(&format!("  {lost}")))?;
            let are = if lost.is_empty() { GONE.to_owned() } else { format!("lost, or {GONE}") };
            warn(&are, forgotten)
        }
        Action::Fill { lost, forgotten, .. } => {
            say(&format!("  a gap takes its place: {lost}"))?;
            warn("lost", forgotten)
        }
        Action::Abandon => say(
            "  it is taken out whole: nothing in it can be read, and nothing says how much there was. The log \
             ends before it, and gets a new tag",
        ),
        Action::Discard => say("  it is taken out, and kept"),
        Action::SetAside => say("  it is taken out; nothing is lost"),
    }
}

/// What of events that `are` not there any more is forgotten with their index.
fn warn(are: &str, forgotten: &Forgotten) -> Result<(), DirectoryError> {
    if forgotten.is_nothing() {
        return Ok(());
    }
    say(&format!("  of events that are {are}, this is forgotten: {forgotten}"))?;
    if forgotten.ids || forgotten.producers {
        say(
            "  who sends such an event again, as after an answer that was lost, may append it a second time",
        )?;
    }
    Ok(())
}

/// One line on standard output; nobody reading it is no failure.
fn say(line: &str) -> Result<(), DirectoryError> {
    progress::nobody_reads_is_fine(writeln!(io::stdout(), "{line}")).map_err(DirectoryError::Output)
}
