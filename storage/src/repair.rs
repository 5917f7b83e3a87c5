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
//! the log ends before a snapshot of it, or  a gap frame for what lies between
//! before its end mark
//! its end mark is damaged                   it goes: a start writes another
//! ```
//! Offsets never change, and a gap is named to whoever reads over it. So the log keeps its tag, and cursors
//! stay good, but where its end is lost, so that nobody knows whether offsets will be given out a second time, or
//! where the header of its last segment is, which alone says whether readers may have seen more.
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
    end_mark::{self, EndMark},
    error::{Corruption, OpenError},
    index::IndexHeader,
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
    /// overlap, files that do not belong to the log. With any of it nothing is done.
    pub beyond: Vec<Corruption>,
    /// The log's tag from then on, if its end is lost.
    new_tag: Option<Tag>,
    /// How far the log had been synced at least, by what is outside of its segments.
    synced: Offset,
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
    /// A snapshot goes: the log is opened from another, or from its indexes. Or the end mark does.
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
    let mut repair = Repair {
        disk,
        dir,
        now,
        aside: Aside::create(disk, dir, now)?,
        new_tag: plan.new_tag,
        synced: plan.synced,
    };
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
        let mark = planner.read_mark()?;
        let newest = planner.snapshots.first().copied().unwrap_or_default();
        planner.plan.synced = mark.map_or(newest, |mark| mark.synced.max(newest));
        let mut segments = planner.list(&names)?;
        let last_base = segments.last().map(|files| files.name.base_offset);
        segments
            .extend(end_mark::missing(mark, last_base).map(|(name, _)| SegmentFiles::none(name)));
        for files in &segments {
            planner.tag = planner.tag.or(planner.tag_of(files)?);
        }
        for (index, files) in segments.iter().enumerate() {
            // A file that only has the name of a segment says nothing of where the one before it ends.
            let successor = match segments.get(index + 1) {
                Some(next) if next.has_index || planner.shows_where_it_belongs(next)? => {
                    Some(next.name.base_offset)
                }
                _ => None,
            };
            planner.segment(files, successor)?;
        }
        planner.check_snapshots()?;
        Ok(planner.plan)
    }

    /// What the end mark says, if it is sound; else it goes.
    fn read_mark(&mut self) -> Result<Option<EndMark>, OpenError> {
        let damage = match end_mark::read(self.disk, self.dir) {
            Ok(read) => match read.transpose() {
                Ok(mark) => return Ok(mark),
                Err(damage) => damage,
            },
            Err(OpenError::Io { source, file, .. }) => {
                let what = format!("it cannot be read: {source}");
                Corruption { file, position: Position::default(), what }
            }
            Err(error) => return Err(error),
        };
        let (action, name) = (Action::SetAside, SegmentName::first_generation(Offset::ZERO));
        self.plan.steps.push(Step { damage, action, name, successor: None });
        Ok(None)
    }

    /// Up to where a segment from `base` on may go of which nothing is known: no segment goes over a snapshot, and
    /// behind the last one alone a snapshot or the end mark knows that the log went on.
    fn bound(&self, base: Offset, successor: Option<Offset>) -> Option<Offset> {
        let snapshot = self.snapshots.iter().rev().find(|offset| **offset > base).copied();
        let known = successor.into_iter().chain(snapshot).min();
        known.or(Some(self.plan.synced).filter(|synced| *synced > base))
    }

    fn check_snapshots(&mut self) -> Result<(), OpenError> {
        if self.end < self.plan.synced {
            let tag = self.end_tag();
            self.fill(self.plan.synced, "the files at the end are missing, or cut", tag);
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
    fn fill(&mut self, to: Offset, why: &str, tag: Tag) {
        while self.end < to {
            let from = self.end;
            let until = self.bound(from, Some(to)).unwrap_or(to);
            let lost = Lost { from, to: until, what: why.to_owned() };
            let name = SegmentName::first_generation(from);
            let file = self.dir.join(name.log_file_name());
            let damage = Corruption { file, position: Position::default(), what: lost.to_string() };
            let (action, successor) = (Action::Fill { lost, tag }, Some(until));
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
        let damaged = Damaged::open(self.disk, self.dir, files.name, true, None, self.plan.synced)?;
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
        if base > self.end && !self.shows_where_it_belongs(files)? {
            let what = format!(
                "the log ends at offset {} before it, and nothing in it shows that it is a part of the log",
                self.end
            );
            let file_name = match files.has_log {
                true => files.name.log_file_name(),
                false => files.name.index_file_name(),
            };
            let (file, position) = (self.dir.join(file_name), Position::default());
            self.plan.beyond.push(Corruption { file, position, what });
            return Ok(());
        }
        if base > self.end {
            let why = match self.end == Offset::ZERO && self.is_forgotten {
                true => FORGOTTEN,
                false => "a file is missing",
            };
            self.fill(base, why, self.any_tag());
        }
        if base < self.end {
            let what = format!("the segment before it goes on to {}", self.end);
            let file = self.dir.join(files.name.log_file_name());
            self.plan.beyond.push(Corruption { file, position: Position::default(), what });
        }
        let checked = check_segment(self.disk, self.dir, files, successor, self.plan.synced);
        let Some(first) = checked.findings.first().cloned() else {
            self.end = checked.end.unwrap_or(checked.end_without_frames);
            return Ok(());
        };
        if !files.has_log {
            return self.missing_log(files, first, successor);
        }
        let damaged = Damaged::open(
            self.disk,
            self.dir,
            files.name,
            files.has_index,
            successor,
            self.plan.synced,
        )?;
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
        } else if successor.is_none() && self.end < self.plan.synced {
            // All that is there is sound: what is missing behind it is filled at the end.
            return Ok(());
        } else {
            self.plan.beyond.extend(checked.findings);
            return Ok(());
        };
        self.plan.steps.push(Step { damage: first, action, name: files.name, successor });
        Ok(())
    }

    /// Whether a segment before which others are missing is more than a file that has the name of one: a gap that was
    /// made up to it would be of events that never were.
    fn shows_where_it_belongs(&self, files: &SegmentFiles) -> Result<bool, OpenError> {
        if !files.has_log {
            // The end mark knows of one that has no index either.
            return Ok(!files.has_index || self.index_of(files)?.is_some());
        }
        let damaged = Damaged::open(
            self.disk,
            self.dir,
            files.name,
            files.has_index,
            None,
            self.plan.synced,
        )?;
        let Some(header) = &damaged.header else { return Ok(false) };
        if !damaged.is_guessed {
            return Ok(true);
        }
        // Where the header is lost, a frame says so.
        let mut survey = Survey::new(header);
        damaged.read(&mut survey)?;
        Ok(survey.events() > 0)
    }

    /// A `.log` that is not there, whose index is, or which the end mark names.
    fn missing_log(
        &mut self,
        files: &SegmentFiles,
        damage: Corruption,
        successor: Option<Offset>,
    ) -> Result<(), OpenError> {
        let index = self.index_of(files)?;
        let end = index.as_ref().map(|index| index.end_offset);
        let end = end.or_else(|| self.bound(files.name.base_offset, successor));
        let tag = match index {
            Some(index) => index.tag,
            None => self.tag_before(successor),
        };
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
        let behind = successor;
        let successor = self.bound(from, successor);
        let action = match successor {
            Some(to) if to > from => {
                let what = "the header of its file is damaged, and its index too".to_owned();
                Action::Fill { lost: Lost { from, to, what }, tag: self.tag_before(behind) }
            }
            Some(_) => Action::Discard,
            None => Action::Abandon,
        };
        self.end = successor.unwrap_or(from);
        self.plan.steps.push(Step { damage, action, name, successor });
    }

    fn tag_of(&self, files: &SegmentFiles) -> Result<Option<Tag>, OpenError> {
        if files.has_log {
            let synced = self.plan.synced;
            let damaged =
                Damaged::open(self.disk, self.dir, files.name, files.has_index, None, synced)?;
            let known = damaged.header.filter(|_| !damaged.is_guessed);
            return Ok(known.map(|header| header.tag));
        }
        Ok(self.index_of(files)?.map(|index| index.tag))
    }

    fn index_of(&self, files: &SegmentFiles) -> Result<Option<IndexHeader>, OpenError> {
        if !files.has_index {
            return Ok(None);
        }
        let index = salvage::read_index(self.disk, self.dir, files.name)?;
        Ok(index.map(|(header, _)| header))
    }

    /// The tag for a segment that is made in place of one that is lost: where that was the last, another than the
    /// log had.
    fn tag_before(&mut self, successor: Option<Offset>) -> Tag {
        match successor {
            Some(_) => self.any_tag(),
            None => self.end_tag(),
        }
    }

    /// The tag of a log whose end is lost: how far it went nobody knows, and so not either which offsets will be
    /// given out a second time.
    fn end_tag(&mut self) -> Tag {
        *self.plan.new_tag.get_or_insert_with(Tag::random)
    }

    /// A tag that does not count, as it does in the last segment alone: of any that is there.
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
    synced: Offset,
}

impl<D: Disk> Repair<'_, D> {
    fn step(&mut self, step: &Step) -> Result<(), OpenError> {
        let name = step.name;
        match &step.action {
            Action::Discard => self.aside.take(name),
            Action::SetAside => self.aside.take_path(&step.damage.file),
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
        Damaged::open(self.disk, self.dir, name, has_index, successor, self.synced)
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
