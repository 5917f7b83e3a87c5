//! `strandline repair`: makes a damaged log one that opens again, and keeps what it takes out.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use strandline_storage::{
    error::OpenError,
    io::real::RealDisk,
    remains::Forgotten,
    repair::{self, Action, Repair, RepairPlan, Repaired, Step},
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
What was done is looked at again before it is called repaired: damage that it had hidden is named, and mended, too.

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
    match arguments.yes {
        true => mend(log),
        false => propose(log, arguments.directory.path()),
    }
}

/// Says what would be done. Whether there is no damage.
fn propose(log: &Path, named: &Path) -> Result<bool, DirectoryError> {
    let plan = directory::when_free(|| repair::plan(&RealDisk, log))?;
    if does_nothing(&plan) {
        return nothing_is_done(log, &plan);
    }
    plan.steps.iter().try_for_each(describe)?;
    // What a rewrite has left that was cut short is no damage: a start removes it.
    let is_sound = plan.steps.iter().all(|step| step.action == Action::Discard);
    if !is_sound {
        say("then it is looked at again: what this has hidden is named, and mended, too")?;
    }
    let dir = shell::word(named);
    say(&format!("nothing was changed; to do this: strandline repair {dir} --yes"))?;
    Ok(is_sound)
}

/// Nothing is wrong, or something is in the way.
fn does_nothing(plan: &RepairPlan) -> bool {
    plan.steps.is_empty() || !plan.beyond.is_empty()
}

/// By a plan that has no steps, or with which something is in the way. Whether there is no damage.
fn nothing_is_done(log: &Path, plan: &RepairPlan) -> Result<bool, DirectoryError> {
    for damage in &plan.beyond {
        say(&format!(
            "beyond repair: {damage}: take the file out if it does not belong there, restore a backup, or \
             `strandline export` the rest"
        ))?;
    }
    let is_sound = plan.beyond.is_empty();
    let why = match is_sound {
        true => "nothing to repair",
        false => "nothing is changed: it would not open after it either",
    };
    say(&format!("{}: {why}", log.display()))?;
    Ok(is_sound)
}

/// Says what is to be done, and does it, until nothing shows any more. Whether there is no damage left.
fn mend(log: &Path) -> Result<bool, DirectoryError> {
    let mut repair = match directory::when_free(|| Repair::begin(&RealDisk, log)) {
        Ok(repair) => repair,
        Err(error @ OpenError::Locked { .. }) => return unless_it_mends(log, error),
        Err(error) => return Err(error.into()),
    };
    if let Err(error) = mend_all(&mut repair) {
        let how = match repair.is_unseen() {
            true => "it ended before it was looked at again",
            false => "not all is done",
        };
        for line in repair.done().map_or_else(Vec::new, |done| told(log, how, done)) {
            say(&line)?;
        }
        return Err(error);
    }
    let repaired = match repair.end() {
        Ok(repaired) => repaired,
        Err(plan) => return nothing_is_done(log, &plan),
    };
    let is_whole = repaired.left.is_empty();
    for damage in &repaired.left {
        say(&format!("beyond repair: {damage}"))?;
    }
    let how = if is_whole { "repaired" } else { "not repaired: it would not open" };
    told(log, how, &repaired).iter().try_for_each(|line| say(line))?;
    Ok(is_whole)
}

/// Who else only looks at a log, as `verify` does, is in the way of a repair that has something to do. One that has not is not refused.
fn unless_it_mends(log: &Path, error: OpenError) -> Result<bool, DirectoryError> {
    let plan = repair::plan(&RealDisk, log)?;
    if does_nothing(&plan) { nothing_is_done(log, &plan) } else { Err(error.into()) }
}

/// Round by round.
fn mend_all(repair: &mut Repair<'_, RealDisk>) -> Result<(), DirectoryError> {
    while !repair.steps().is_empty() {
        repair.steps().iter().try_for_each(describe)?;
        repair.mend(clock::now())?;
    }
    Ok(())
}

/// How a repair ended, and what has come of what was taken out, and of cursors.
fn told(log: &Path, how: &str, done: &Repaired) -> Vec<String> {
    let mut lines = vec![format!("{}: {how}{}", log.display(), kept_in(&done.asides))];
    lines.extend(done.in_place.iter().map(|file| {
        format!(
            "{} is replaced, and still in its place: do not start before another repair, as a start removes it",
            file.display()
        )
    }));
    lines.extend(done.new_tag.map(|tag| {
        format!(
            "how far the log and its readers had come is not known any more: the log's tag is {tag} now"
        )
    }));
    lines
}

/// Where what was taken out is, as a line goes on; nothing may have been.
fn kept_in(asides: &[PathBuf]) -> String {
    let asides: Vec<String> = asides.iter().map(|aside| aside.display().to_string()).collect();
    match asides.is_empty() {
        true => String::new(),
        false => format!("; what was taken out is kept in {}", asides.join(" and ")),
    }
}

/// Says what is wrong, and what is done about it.
fn describe(step: &Step) -> Result<(), DirectoryError> {
    description(step).iter().try_for_each(|line| say(line))
}

fn description(step: &Step) -> Vec<String> {
    let is_left = step.action == Action::Discard;
    let what = format!("{}: {}", if is_left { "left over" } else { "damaged" }, step.damage);
    let mut lines = vec![what];
    let mut add = |line: &str| lines.push(format!("  {line}"));
    match &step.action {
        Action::Reindex { forgotten } if forgotten.is_nothing() => {
            add("its index is made anew; nothing is lost");
        }
        Action::Reindex { .. } => {
            add("its index is made anew from the events of its segment; none of those is lost");
        }
        Action::Restub { .. } => add(
            "it stands for events that are gone by a limit or a deletion, and is made anew; none is lost",
        ),
        Action::Rewrite { kept_events, lost, .. } => {
            add(&format!("it is written anew with the {kept_events} events that can be read"));
            lost.iter().for_each(|lost| add(&lost.to_string()));
        }
        Action::Fill { lost, .. } => add(&format!("a gap takes its place: {lost}")),
        Action::Abandon => add(
            "it is taken out whole: nothing in it can be read, and nothing says how much there was. The log \
             ends before it, and gets a new tag",
        ),
        Action::Discard | Action::Unread => add("it is taken out, and kept"),
        Action::SetAside => add("it is taken out; nothing is lost"),
    }
    match &step.action {
        Action::Reindex { forgotten } | Action::Restub { forgotten } => {
            warn(&mut lines, GONE, forgotten);
        }
        Action::Rewrite { lost, forgotten, .. } if lost.is_empty() => {
            warn(&mut lines, GONE, forgotten);
        }
        Action::Rewrite { forgotten, .. } => {
            warn(&mut lines, &format!("lost, or {GONE}"), forgotten);
        }
        Action::Fill { forgotten, .. } => warn(&mut lines, "lost", forgotten),
        Action::Abandon | Action::Discard | Action::Unread | Action::SetAside => {}
    }
    lines
}

/// What of events that `are` not there any more is forgotten with their index.
fn warn(lines: &mut Vec<String>, are: &str, forgotten: &Forgotten) {
    if forgotten.is_nothing() {
        return;
    }
    lines.push(format!("  of events that are {are}, this is forgotten: {forgotten}"));
    if forgotten.ids || forgotten.producers {
        let who = "  who sends such an event again, as after an answer that was lost, may append it a second time";
        lines.push(who.to_owned());
    }
}

/// One line on standard output; nobody reading it is no failure.
fn say(line: &str) -> Result<(), DirectoryError> {
    progress::nobody_reads_is_fine(writeln!(io::stdout(), "{line}")).map_err(DirectoryError::Output)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use strandline_storage::{
        data_dir::lock, end_mark::END_MARK_FILE_NAME, io::LockMode, segment::Tag,
        verify::lock_shared,
    };

    use super::*;

    /// What was described was not done, as the files were others by then, nothing was said, and the exit code was 0.
    #[test]
    fn what_is_true_when_it_is_done_counts() {
        let name = format!("strandline-repair-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).expect("a new directory");
        assert!(mend(&dir).expect("not in use"), "another has repaired it");
        fs::write(dir.join("00000000000000000025.1.log"), []).expect("space");
        assert!(!mend(&dir).expect("not in use"), "there is a stray file now");
        let names: Vec<_> = fs::read_dir(&dir).expect("it").map(|one| one.expect("it")).collect();
        assert_eq!(names.len(), 1, "nothing is changed");
        fs::remove_dir_all(&dir).expect("ours");
    }

    /// It was refused beside a `verify`, with nothing to do.
    #[test]
    fn who_looks_at_a_log_stops_only_what_changes_it() {
        let name = format!("strandline-repair-beside-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).expect("a new directory");
        let looks = lock_shared(&RealDisk, &dir).expect("nobody has it");
        assert!(mend(&dir).expect("not refused"), "it is sound");
        let stray = dir.join("00000000000000000025.1.log");
        fs::write(&stray, []).expect("space");
        assert!(!mend(&dir).expect("not refused"), "something is in the way");
        fs::remove_file(stray).expect("ours");
        let mark = dir.join(END_MARK_FILE_NAME);
        fs::write(&mark, "no mark").expect("space");
        let refused = mend(&dir);
        let is_locked = matches!(refused, Err(DirectoryError::Open(OpenError::Locked { .. })));
        assert!(is_locked && mark.exists(), "{refused:?}");
        drop(looks);
        assert!(mend(&dir).expect("free"), "it is mended");
        assert!(!mark.exists());
        let serves = lock(&RealDisk, &dir, LockMode::Exclusive).expect("nobody has it");
        assert!(mend(&dir).is_err(), "it is in use");
        drop(serves);
        fs::remove_dir_all(&dir).expect("ours");
    }

    /// Where a later round failed nothing said where the files were that an earlier one had taken out.
    #[test]
    fn what_was_done_is_told_with_its_directories_and_the_tag() {
        let mut done = Repaired {
            plan: RepairPlan::default(),
            asides: Vec::new(),
            in_place: Vec::new(),
            new_tag: None,
            left: Vec::new(),
        };
        let told = |done: &Repaired| told(Path::new("/log"), "not all is done", done);
        assert_eq!(told(&done), ["/log: not all is done"]);
        done.asides = vec!["/log/damaged-17".into(), "/log/damaged-18".into()];
        let kept = "/log: not all is done; what was taken out is kept in /log/damaged-17 and /log/damaged-18";
        assert_eq!(told(&done), [kept]);
        done.new_tag = Some(Tag::parse("test1").expect("a tag"));
        let lines = told(&done);
        assert!(lines[0] == kept && lines[1].ends_with("the log's tag is test1 now"), "{lines:?}");
        done.in_place.push("/log/00000000000000000020.1.log".into());
        let lines = told(&done);
        assert!(lines[1].starts_with("/log/00000000000000000020.1.log is replaced"), "{lines:?}");
    }
}
