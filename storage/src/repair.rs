//! Makes a damaged log one that opens again, and loses nothing that can be read.
//!
//! Recovery refuses a log that is damaged below what had been synced, and readers pass over rotten frames of
//! sealed segments: only a person may decide that what is gone is gone. What a repair then does, by what it
//! finds in each segment:
//!
//! ```text
//! its .idx is damaged, its frames are not   the index is made anew from them
//! frames are damaged, or its header is      it is written anew as its next generation: every frame that can
//!                                           be read, and a gap frame for what lies between (frame/gap.rs); a
//!                                           header is made anew from the index, or guessed from the frames
//! its .log is missing, or all of it         a segment that holds nothing but a gap frame
//! the last one, which holds no frame more   it goes whole, and the log has another tag
//! an older generation beside a sound one    it goes: a repair before was interrupted
//! a snapshot is damaged, or not readable    it goes: the one before it and the indexes say the same
//! the log ends before a snapshot of it      a gap frame for what lies between
//! ```
//! Offsets never change, and a gap is named to whoever reads over it. So the log keeps its tag, and cursors
//! stay good, but where its end is lost and offsets will be given out a second time, or where the header of
//! its last segment is, which alone says whether readers may have seen more.
//!
//! What goes is moved into a directory `damaged-<ms since 1970>` inside the log's, *after* what replaces it
//! has its name and is synced. After a crash in between both generations are there: the log is not opened,
//! and a second repair goes on.

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
};

use crate::{
    clock::Now,
    config::SyncMode,
    error::{Corruption, OpenError},
    io::{Disk, LockMode},
    log::NEXT_FILE_NAME,
    offset::{Offset, Position},
    op::{PrepareJob, RollJob, WriteMode},
    rewrite::SegmentWriter,
    seal,
    segment::{
        FIRST_FRAME_POSITION, Incarnation, SEGMENT_VERSION, SegmentFile, SegmentHeader,
        SegmentName, Tag,
    },
    snapshot::{self, read},
    verify::{SegmentFiles, check_segment, lock_shared},
};

/// Why there is nothing before the first file of a log whose snapshots are all damaged.
const FORGOTTEN: &str = "no snapshot is whole that says what was here; topics, settings, ids and producers of then are \
                         forgotten, too";

mod aside;
pub(crate) mod salvage;
#[cfg(test)]
mod tests;

use aside::Aside;
use salvage::{Damaged, Survey};

/// What a repair would do, segment by segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepairPlan {
    /// In the order of the log.
    pub steps: Vec<Step>,
    /// Damage that no repair can mend: frames that contradict those of other segments, segments that
    /// overlap. With any of it nothing is done.
    pub beyond: Vec<Corruption>,
}

/// What a repair does about one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which: one of its files, and what is wrong with it.
    pub damage: Corruption,
    /// What is done.
    pub action: Action,
    name: SegmentName,
    successor: Option<Offset>,
}

/// What is done about a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Its index is made anew.
    Reindex,
    /// It is written anew.
    Rewrite {
        /// How many events can be read, and stay.
        kept_events: u64,
        /// What cannot, in offset order.
        lost: Vec<Lost>,
    },
    /// A segment takes its place that only says what is lost.
    Fill {
        /// All of it.
        lost: Lost,
        /// The tag to be written into it, that of a segment beside it.
        tag: Tag,
    },
    /// It goes: nobody knows what was in it, not even how much. The log ends before it, under a new tag.
    Abandon,
    /// It goes: the next generation holds all of it.
    Discard,
    /// A snapshot goes: the log is opened from another, or from its indexes.
    SetAside,
}

/// Events that are lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The first.
    pub from: Offset,
    /// The first behind them.
    pub to: Offset,
    /// What stands there instead.
    pub what: String,
}

impl fmt::Display for Lost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "events from {} to {} are lost: {}", self.from, self.to, self.what)
    }
}

/// What a repair did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repaired {
    /// What it did.
    pub plan: RepairPlan,
    /// Where the files are that it took out.
    pub aside: PathBuf,
    /// The log's tag from now on, if it is another.
    pub new_tag: Option<Tag>,
}

/// Says what a repair of the log in `dir` would do, and changes nothing. Reads all of it.
pub fn plan<D: Disk>(disk: &D, dir: &Path) -> Result<RepairPlan, OpenError> {
    let _lock = lock_shared(disk, dir)?;
    Planner::run(disk, dir)
}

/// Does what [`plan`] says. `None` if there was nothing to do, or something is beyond repair: the log would not open
/// after it either, and what is there now tells a person more than what a repair makes of it.
pub fn repair<D: Disk>(disk: &D, dir: &Path, now: Now) -> Result<Option<Repaired>, OpenError> {
    let _lock = disk.lock_dir(dir, LockMode::Exclusive).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked { dir: dir.to_owned() },
        _ => OpenError::io("locking", dir)(error),
    })?;
    let plan = Planner::run(disk, dir)?;
    if plan.steps.is_empty() || !plan.beyond.is_empty() {
        return Ok(None);
    }
    let mut repair =
        Repair { disk, dir, now, aside: Aside::create(disk, dir, now)?, new_tag: None };
    // What an interrupted one left goes first: its name may be needed.
    let (discarded, others): (Vec<_>, Vec<_>) =
        plan.steps.iter().partition(|step| step.action == Action::Discard);
    for step in discarded.into_iter().chain(others) {
        repair.step(step)?;
    }
    let (aside, new_tag) = (repair.aside.into_path(), repair.new_tag);
    Ok(Some(Repaired { plan, aside, new_tag }))
}

/// Goes over a log, and decides.
struct Planner<'a, D: Disk> {
    disk: &'a D,
    dir: &'a Path,
    plan: RepairPlan,
    /// Where the log ends so far.
    end: Offset,
    /// Of the first segment of which it could be read.
    tag: Option<Tag>,
    /// The offsets of the snapshots, the newest first.
    snapshots: Vec<Offset>,
    /// There are snapshots, and none is whole.
    is_forgotten: bool,
}

impl<D: Disk> Planner<'_, D> {
    fn run(disk: &D, dir: &Path) -> Result<RepairPlan, OpenError> {
        let names = disk.list(dir).map_err(OpenError::io("listing", dir))?;
        let snapshots = read::offsets(&names);
        let begin = read::known_begin(disk, dir, &snapshots)?;
        let is_forgotten = begin.is_none() && !snapshots.is_empty();
        let end = begin.unwrap_or_default();
        let plan = RepairPlan::default();
        let mut planner = Planner { disk, dir, plan, end, tag: None, snapshots, is_forgotten };
        let segments = planner.list(&names)?;
        for files in &segments {
            planner.tag = planner.tag.or(planner.tag_of(files)?);
        }
        for (index, files) in segments.iter().enumerate() {
            let successor = segments.get(index + 1).map(|next| next.name.base_offset);
            planner.segment(files, successor)?;
        }
        planner.check_snapshots()?;
        Ok(planner.plan)
    }

    /// Up to where a segment from `base` on may go of which nothing is known: no segment goes over a snapshot, and
    /// behind the last one alone a snapshot knows that the log went on.
    fn bound(&self, base: Offset, successor: Option<Offset>) -> Option<Offset> {
        let snapshot = self.snapshots.iter().rev().find(|offset| **offset > base).copied();
        successor.into_iter().chain(snapshot).min()
    }

    fn check_snapshots(&mut self) -> Result<(), OpenError> {
        if let Some(to) = self.snapshots.first().copied() {
            self.fill(to, "the files at the end are missing, or cut");
        }
        for offset in self.snapshots.clone() {
            let damage = match read::read(self.disk, self.dir, offset) {
                Ok(read) => read.err(),
                Err(OpenError::Io { source, .. }) => {
                    let file = self.dir.join(snapshot::file_name(offset));
                    let what = format!("it cannot be read: {source}");
                    Some(Corruption { file, position: Position::default(), what })
                }
                Err(error) => return Err(error),
            };
            if let Some(damage) = damage {
                let (action, name) = (Action::SetAside, SegmentName::first_generation(offset));
                self.plan.steps.push(Step { damage, action, name, successor: None });
            }
        }
        Ok(())
    }

    /// What is missing up to an offset becomes gaps.
    fn fill(&mut self, to: Offset, why: &str) {
        while self.end < to {
            let from = self.end;
            let until = self.bound(from, Some(to)).unwrap_or(to);
            let lost = Lost { from, to: until, what: why.to_owned() };
            let name = SegmentName::first_generation(from);
            let file = self.dir.join(name.log_file_name());
            let damage = Corruption { file, position: Position::default(), what: lost.to_string() };
            let (action, successor) = (Action::Fill { lost, tag: self.any_tag() }, Some(until));
            self.plan.steps.push(Step { damage, action, name, successor });
            self.end = until;
        }
    }

    /// The segments in offset order, one generation of each: the newest that has a sound index, else the
    /// oldest. All others go.
    fn list(&mut self, names: &[String]) -> Result<Vec<SegmentFiles>, OpenError> {
        let mut all: BTreeMap<SegmentName, SegmentFiles> = BTreeMap::new();
        for file_name in names {
            if let Some((name, file)) = SegmentName::parse(file_name)
                && name.base_offset >= self.end
            {
                let files = all.entry(name).or_insert_with(|| SegmentFiles::none(name));
                match file {
                    SegmentFile::Log => files.has_log = true,
                    SegmentFile::Index => files.has_index = true,
                }
            }
        }
        let all: Vec<SegmentFiles> = all.into_values().collect();
        let mut chosen = Vec::new();
        for same in all.chunk_by(|left, right| left.name.base_offset == right.name.base_offset) {
            let mut best = &same[0];
            for files in &same[1..] {
                if files.has_index && self.has_sound_index(files)? {
                    best = files;
                }
            }
            for files in same.iter().filter(|files| files.name != best.name) {
                let what = format!("{} stands for the same events", best.name.log_file_name());
                self.step(files, what, Action::Discard);
            }
            chosen.push(*best);
        }
        Ok(chosen)
    }

    fn has_sound_index(&self, files: &SegmentFiles) -> Result<bool, OpenError> {
        let Some((index, _)) = salvage::read_index(self.disk, self.dir, files.name)? else {
            return Ok(false);
        };
        if index.is_stub() || !files.has_log {
            return Ok(index.is_stub());
        }
        let damaged = Damaged::open(self.disk, self.dir, files.name, true, None)?;
        let header = damaged.header.as_ref().filter(|_| damaged.has_good_header);
        Ok(header.is_some_and(|header| index.belongs_to(header)))
    }

    fn step(&mut self, files: &SegmentFiles, what: String, action: Action) {
        let file_name = match files.has_log {
            true => files.name.log_file_name(),
            false => files.name.index_file_name(),
        };
        let damage =
            Corruption { file: self.dir.join(file_name), position: Position::default(), what };
        self.plan.steps.push(Step { damage, action, name: files.name, successor: None });
    }

    fn segment(
        &mut self,
        files: &SegmentFiles,
        successor: Option<Offset>,
    ) -> Result<(), OpenError> {
        let base = files.name.base_offset;
        if base > self.end {
            let why = match self.end == Offset::ZERO && self.is_forgotten {
                true => FORGOTTEN,
                false => "a file is missing",
            };
            self.fill(base, why);
        }
        if base < self.end {
            let what = format!("the segment before it goes on to {}", self.end);
            let file = self.dir.join(files.name.log_file_name());
            self.plan.beyond.push(Corruption { file, position: Position::default(), what });
        }
        let checked = check_segment(self.disk, self.dir, files, successor);
        let Some(first) = checked.findings.first().cloned() else {
            self.end = checked.end.unwrap_or(checked.end_without_frames);
            return Ok(());
        };
        if !files.has_log {
            return self.missing_log(files, first, successor);
        }
        let damaged = Damaged::open(self.disk, self.dir, files.name, files.has_index, successor)?;
        let Some(header) = &damaged.header else {
            self.unknown(files, first, successor);
            return Ok(());
        };
        let mut survey = Survey::new(header);
        self.end = damaged.read(&mut survey)?;
        let index_path = self.dir.join(files.name.index_file_name());
        let action = if !survey.lost.is_empty() || !damaged.has_good_header {
            Action::Rewrite { kept_events: survey.events(), lost: survey.lost }
        } else if checked.findings.iter().all(|finding| finding.file == index_path) {
            Action::Reindex
        } else if survey.is_damaged {
            // Only frames without events, which recorded the synced offset.
            Action::Rewrite { kept_events: survey.events(), lost: Vec::new() }
        } else {
            self.plan.beyond.extend(checked.findings);
            return Ok(());
        };
        self.plan.steps.push(Step { damage: first, action, name: files.name, successor });
        Ok(())
    }

    /// A `.log` that is not there, whose index is.
    fn missing_log(
        &mut self,
        files: &SegmentFiles,
        damage: Corruption,
        successor: Option<Offset>,
    ) -> Result<(), OpenError> {
        let index = salvage::read_index(self.disk, self.dir, files.name)?;
        let index = index.map(|(header, _)| header);
        let end = index.as_ref().map(|index| index.end_offset);
        let end = end.or_else(|| self.bound(files.name.base_offset, successor));
        let tag = index.map_or_else(|| self.any_tag(), |index| index.tag);
        let (name, from) = (files.name, files.name.base_offset);
        let action = match end {
            Some(to) if to > from => {
                let what = "a file is missing".to_owned();
                Action::Fill { lost: Lost { from, to, what }, tag }
            }
            Some(_) => Action::Discard,
            None => Action::Abandon,
        };
        self.end = end.unwrap_or(from);
        self.plan.steps.push(Step { damage, action, name, successor });
        Ok(())
    }

    /// A segment of which neither file says what it is.
    fn unknown(&mut self, files: &SegmentFiles, damage: Corruption, successor: Option<Offset>) {
        let (from, name) = (files.name.base_offset, files.name);
        let successor = self.bound(from, successor);
        let action = match successor {
            Some(to) if to > from => {
                let what = "the header of its file is damaged, and its index too".to_owned();
                Action::Fill { lost: Lost { from, to, what }, tag: self.any_tag() }
            }
            Some(_) => Action::Discard,
            None => Action::Abandon,
        };
        self.end = successor.unwrap_or(from);
        self.plan.steps.push(Step { damage, action, name, successor });
    }

    fn tag_of(&self, files: &SegmentFiles) -> Result<Option<Tag>, OpenError> {
        if files.has_log {
            let damaged = Damaged::open(self.disk, self.dir, files.name, files.has_index, None)?;
            let known = damaged.header.filter(|_| !damaged.is_guessed);
            return Ok(known.map(|header| header.tag));
        }
        let index = salvage::read_index(self.disk, self.dir, files.name)?;
        let index = index.map(|(header, _)| header);
        Ok(index.map(|index| index.tag))
    }

    /// The tag for a segment that is made in place of one that is lost: of any that is there. It only
    /// counts in the last, whose own index says it then.
    fn any_tag(&self) -> Tag {
        self.tag.unwrap_or_else(Tag::random)
    }
}

/// Does what was decided.
struct Repair<'a, D: Disk> {
    disk: &'a D,
    dir: &'a Path,
    now: Now,
    aside: Aside<'a, D>,
    new_tag: Option<Tag>,
}

impl<D: Disk> Repair<'_, D> {
    fn step(&mut self, step: &Step) -> Result<(), OpenError> {
        let name = step.name;
        match &step.action {
            Action::Discard => self.aside.take(name),
            Action::SetAside => self.aside.take_snapshot(&step.damage.file),
            Action::Reindex => self.reindex(name, step.successor),
            Action::Rewrite { .. } => {
                let new = self.next(name)?;
                let damaged = self.open(name, step.successor)?;
                let known = damaged.header.as_ref().expect("the plan has seen it");
                let header = SegmentHeader { incarnation: Incarnation::random(), ..known.clone() };
                let mut writer = SegmentWriter::create(self.disk, self.dir, new, &header)?;
                damaged.read(&mut writer)?;
                writer.finish(damaged.carried.as_ref())?;
                if damaged.is_guessed && step.successor.is_none() {
                    self.new_tag = Some(header.tag);
                }
                self.aside.take(name)
            }
            Action::Fill { lost, tag } => {
                let is_there = self.aside.has(name)?;
                let new = if is_there { self.next(name)? } else { name };
                let header = self.header(name.base_offset, *tag);
                let mut writer = SegmentWriter::create(self.disk, self.dir, new, &header)?;
                writer.add_gap(lost.to, &lost.what)?;
                writer.finish(None)?;
                if is_there { self.aside.take(name) } else { Ok(()) }
            }
            Action::Abandon => self.abandon(name),
        }
    }

    fn open(
        &self,
        name: SegmentName,
        successor: Option<Offset>,
    ) -> Result<Damaged<D::File>, OpenError> {
        let has_index = self.aside.has_index(name)?;
        Damaged::open(self.disk, self.dir, name, has_index, successor)
    }

    fn next(&self, name: SegmentName) -> Result<SegmentName, OpenError> {
        name.next_generation().ok_or_else(|| {
            let error = io::Error::other("it was rewritten too often");
            OpenError::io("rewriting", &self.dir.join(name.log_file_name()))(error)
        })
    }

    fn header(&self, base_offset: Offset, tag: Tag) -> SegmentHeader {
        SegmentHeader {
            version: SEGMENT_VERSION,
            base_offset,
            created_at_ms: self.now.wall_ms,
            incarnation: Incarnation::random(),
            tag,
            // Nothing of it was ever not synced.
            sync: SyncMode::Commit,
        }
    }

    /// The frames are sound: the damaged index goes aside, and theirs takes its name.
    fn reindex(&mut self, name: SegmentName, successor: Option<Offset>) -> Result<(), OpenError> {
        let mut damaged = self.open(name, successor)?;
        // What it says is of no use, its end neither.
        damaged.forget_index();
        let header = damaged.header.clone().expect("the plan has seen it");
        let mut survey = Survey::new(&header);
        damaged.read(&mut survey)?;
        let (index, end) = survey.into_index();
        self.aside.copy(&name.index_file_name())?;
        seal::write_index(self.disk, self.dir, name, &index.finish(&end))?;
        self.disk.sync_dir(self.dir).map_err(OpenError::io("syncing the directory", self.dir))
    }

    /// One rename takes the file out and gives the log its new tag: after a crash there is never one
    /// without the other.
    fn abandon(&mut self, name: SegmentName) -> Result<(), OpenError> {
        let tag = Tag::random();
        if self.aside.has(name)? {
            self.aside.copy_if_there(&name.log_file_name())?;
        }
        begin_successor(self.disk, self.dir, self.header(name.base_offset, tag))?;
        self.new_tag = Some(tag);
        self.aside.take_index(name)
    }
}

/// Makes a new last segment without frames, whose name replaces what has it.
pub(crate) fn begin_successor<D: Disk>(
    disk: &D,
    dir: &Path,
    header: SegmentHeader,
) -> Result<(), OpenError> {
    let name = SegmentName::first_generation(header.base_offset);
    let temporary = dir.join(NEXT_FILE_NAME);
    let path = dir.join(name.log_file_name());
    let prepare =
        PrepareJob { path: temporary.clone(), mode: WriteMode::Buffered, to: FIRST_FRAME_POSITION };
    let next = prepare.run(disk).map_err(OpenError::io("preparing", &temporary))?;
    let roll = RollJob { next, header, dir: dir.to_owned(), from: temporary, to: path.clone() };
    roll.run(disk).map_err(OpenError::io("creating", &path)).map(|_| ())
}
