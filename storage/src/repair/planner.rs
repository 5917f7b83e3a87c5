//! Goes over a damaged log, and decides what a repair does about each segment. Changes nothing.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    Action, Lost, RepairPlan, Step,
    belonging::{self, Belonging},
    known::Knowing,
    salvage::{self, Damaged, Survey},
};
use crate::{
    end_mark::{self, EndMark},
    error::{Corruption, OpenError},
    index::IndexHeader,
    io::Disk,
    listing,
    offset::{Offset, Position},
    remains::Forgotten,
    segment::{SegmentName, Tag},
    snapshot::{self, read},
    verify::{SegmentFiles, check_segment},
};

mod bounds;
mod generations;
mod missing;

/// Why there is nothing before the first file of a log whose snapshots are all damaged.
const FORGOTTEN: &str = "no snapshot is whole that says what was here; topics, settings, ids and producers of then are \
                         forgotten, too";

/// Goes over a log, and decides.
pub(super) struct Planner<'a, D: Disk> {
    disk: &'a D,
    dir: &'a Path,
    plan: RepairPlan,
    /// Where the log ends so far: it never goes back ([`Planner::goes_on_to`]).
    end: Offset,
    /// The generation that counts of each segment of which there is a file.
    names: BTreeMap<Offset, SegmentName>,
    /// Of the first segment of which it could be read.
    tag: Option<Tag>,
    /// The offsets of the snapshots, the newest first, but for those that have another's name.
    snapshots: Vec<Offset>,
    mark: Option<EndMark>,
    /// The last segment that is there.
    last: Option<SegmentFiles>,
    belonging: Belonging<'a>,
    /// There are snapshots, and none is whole.
    is_forgotten: bool,
    knowing: Knowing,
}

impl<'a, D: Disk> Planner<'a, D> {
    pub fn run(disk: &'a D, dir: &'a Path) -> Result<RepairPlan, OpenError> {
        let names = disk.list(dir).map_err(OpenError::io("listing", dir))?;
        let all_snapshots = read::offsets(&names);
        let begin = read::known_begin(disk, dir, &all_snapshots)?;
        let mut snapshots = Vec::new();
        for offset in &all_snapshots {
            if !read::is_misnamed(disk, dir, *offset)? {
                snapshots.push(*offset);
            }
        }
        let is_forgotten = begin.is_none() && !snapshots.is_empty();
        let end = begin.unwrap_or_default();
        let plan = RepairPlan::default();
        let (tag, knowing) = (None, Knowing::default());
        let names_by_base = BTreeMap::new();
        let mut planner = Planner {
            disk,
            dir,
            plan,
            end,
            names: names_by_base,
            tag,
            snapshots,
            mark: None,
            last: None,
            belonging: Belonging::new(dir),
            is_forgotten,
            knowing,
        };
        let mark = planner.read_mark()?;
        planner.mark = mark;
        let newest = planner.snapshots.first().copied().unwrap_or_default();
        planner.plan.synced = mark.map_or(newest, |mark| mark.synced.max(newest));
        let mut segments = planner.list(&names)?;
        planner.last = segments.last().copied();
        let last_base = planner.last.map(|files| files.name.base_offset);
        segments
            .extend(end_mark::missing(mark, last_base).map(|(name, _)| SegmentFiles::none(name)));
        for files in &segments {
            planner.tag = planner.tag.or(planner.tag_of(files)?);
        }
        for (index, files) in segments.iter().enumerate() {
            // A file that only has the name of a segment says nothing of where the one before it ends.
            let successor = match segments.get(index + 1) {
                Some(next) if planner.says_where_another_ends(next)? => Some(next.name.base_offset),
                _ => None,
            };
            let successor = planner.clipped(files, successor)?;
            planner.segment(files, successor)?;
        }
        planner.check_end()?;
        planner.check_snapshots(&all_snapshots)?;
        planner.plan.beyond.append(&mut planner.belonging.wrong);
        planner.plan.name_what_others_may_hold();
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

    /// What comes next lies behind what was looked at, whatever the file says that is looked at now: else a gap would be
    /// made over sound segments.
    fn goes_on_to(&mut self, end: Offset) {
        self.end = self.end.max(end);
    }

    /// What is missing at the end becomes a gap, unless who says that cannot be right.
    fn check_end(&mut self) -> Result<(), OpenError> {
        if self.end >= self.plan.synced {
            return Ok(());
        }
        if let Some(last) = self.last {
            let mut wrong = belonging::wrong_mark(self.dir, self.end, self.mark, &last);
            if let Some(newest) = self.snapshots.first().filter(|newest| **newest > self.end) {
                let snapshot = belonging::wrong_snapshot(self.disk, self.dir, *newest, &last)?;
                wrong = wrong.or(snapshot);
            }
            if let Some(damage) = wrong {
                if !self.plan.beyond.contains(&damage) {
                    self.plan.beyond.push(damage);
                }
                return Ok(());
            }
        }
        let tag = self.end_tag();
        self.fill(self.plan.synced, "the files at the end are missing, or cut", tag)
    }

    fn check_snapshots(&mut self, all: &[Offset]) -> Result<(), OpenError> {
        let mut is_newest = true;
        for offset in all.iter().copied() {
            let damage = match read::read(self.disk, self.dir, offset) {
                Ok(Ok(snapshot)) => {
                    self.belonging.snapshot(&snapshot, std::mem::take(&mut is_newest));
                    None
                }
                Ok(Err(damage)) => Some(damage),
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
    fn fill(&mut self, to: Offset, why: &str, tag: Tag) -> Result<(), OpenError> {
        while self.end < to {
            let from = self.end;
            let until = self.bound(from, Some(to)).unwrap_or(to);
            let lost = Lost { from, to: until, what: why.to_owned() };
            // A file without events may have the name: nothing is written over it.
            let name = self.names.get(&from).copied();
            let name = name.unwrap_or(SegmentName::first_generation(from));
            let file = self.dir.join(name.log_file_name());
            let damage = Corruption { file, position: Position::default(), what: lost.to_string() };
            let (action, successor) = (self.gap(name, lost, tag)?, Some(until));
            self.plan.steps.push(Step { damage, action, name, successor });
            self.goes_on_to(until);
        }
        Ok(())
    }

    /// A gap takes the place of a segment.
    fn gap(&mut self, name: SegmentName, lost: Lost, tag: Tag) -> Result<Action, OpenError> {
        let remains = self.knowing.remains_of_lost(self.disk, self.dir, name, lost.to)?;
        self.belonging.gone(name, remains.gone());
        Ok(Action::Fill { lost, tag, forgotten: remains.lacking(true) })
    }

    /// One of its files.
    fn path_of(&self, files: &SegmentFiles) -> PathBuf {
        self.dir.join(match files.has_log || !files.has_index {
            true => files.name.log_file_name(),
            false => files.name.index_file_name(),
        })
    }

    fn step(&mut self, files: &SegmentFiles, what: String, action: Action) {
        let (file, position) = (self.path_of(files), Position::default());
        let damage = Corruption { file, position, what };
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
            let (file, position) = (self.path_of(files), Position::default());
            self.plan.beyond.push(Corruption { file, position, what });
            return Ok(());
        }
        if base > self.end {
            if let Some(last) = self.last.filter(|last| last.name < files.name)
                && let Some(damage) = belonging::wrong_mark(self.dir, self.end, self.mark, &last)
            {
                // Only the mark knows of it.
                self.plan.beyond.push(damage);
                return Ok(());
            }
            let why = match self.end == Offset::ZERO && self.is_forgotten {
                true => FORGOTTEN,
                false => "a file is missing",
            };
            self.fill(base, why, self.any_tag())?;
        }
        if base < self.end {
            let (file, what) = match files.has_log || files.has_index {
                true => {
                    (self.path_of(files), format!("the segment before it goes on to {}", self.end))
                }
                // The end mark alone knows of it.
                false => {
                    let log_name = files.name.log_file_name();
                    let what =
                        format!("it tells of {log_name}, and the log goes on to {}", self.end);
                    (self.dir.join(end_mark::END_MARK_FILE_NAME), what)
                }
            };
            self.plan.beyond.push(Corruption { file, position: Position::default(), what });
        }
        let checked = check_segment(self.disk, self.dir, files, successor, self.plan.synced);
        let Some(first) = checked.findings.first().cloned() else {
            self.goes_on_to(checked.end.unwrap_or(checked.end_without_frames));
            self.belonging.sound(files, &checked);
            return self.belonging.segment(self.disk, files, self.end);
        };
        let index = self.index_header(files, successor)?;
        if !files.has_log || index.is_some_and(|index| index.is_stub()) {
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
            return self.unknown(files, first, successor);
        };
        let mut survey = Survey::new(header);
        self.goes_on_to(damaged.read(&mut survey)?);
        if damaged.has_unreadable_end() {
            // An acknowledged event may be there which nothing yet says was synced.
            self.plan.beyond.extend(checked.findings);
            return Ok(());
        }
        let index_path = self.dir.join(files.name.index_file_name());
        let forgotten = self.forgotten(files.name, &damaged, &survey)?;
        let ends_too_early = successor.is_none() && self.end < self.plan.synced;
        let has_nothing = survey.lost.is_empty() && damaged.has_good_header && self.end == base;
        if ends_too_early && has_nothing {
            // The gap behind it takes its place, and all that is damaged in it, and its index, goes with it.
            return Ok(());
        }
        let mut successor = successor;
        let action = if !survey.lost.is_empty() || !damaged.has_good_header {
            Action::Rewrite { kept_events: survey.events(), lost: survey.lost, forgotten }
        } else if checked.findings.iter().all(|finding| finding.file == index_path) {
            Action::Reindex { forgotten }
        } else if survey.is_damaged || damaged.has_unreadable_behind() {
            // Only frames without events, which recorded the synced offset, or what lies behind all events.
            Action::Rewrite { kept_events: survey.events(), lost: Vec::new(), forgotten }
        } else if ends_too_early {
            // All that is there is sound: what is missing behind it is filled at the end. Then it is not the last one
            // any more, and nothing may lie behind its events that cannot be read.
            if damaged.has_unreadable() {
                successor = Some(self.end);
                Action::Rewrite { kept_events: survey.events(), lost: Vec::new(), forgotten }
            } else if first.file == index_path {
                Action::Reindex { forgotten }
            } else {
                return Ok(());
            }
        } else {
            self.plan.beyond.extend(checked.findings);
            return Ok(());
        };
        self.plan.steps.push(Step { damage: first, action, name: files.name, successor });
        Ok(())
    }

    /// What of the state of the log is not known any more, as a segment of which events are gone, or lost, has no
    /// whole index.
    fn forgotten(
        &mut self,
        name: SegmentName,
        damaged: &Damaged<D::File>,
        survey: &Survey,
    ) -> Result<Forgotten, OpenError> {
        let carried = damaged.carried.as_ref().filter(|_| survey.lost.is_empty());
        self.belonging.read(name, survey, carried);
        if survey.index().says_all(self.end) {
            return Ok(Forgotten::default());
        }
        let (disk, dir, has_lost) = (self.disk, self.dir, !survey.lost.is_empty());
        let remains = self.knowing.remains(disk, dir, name, damaged, self.end, has_lost)?;
        if carried.is_none() {
            self.belonging.gone(name, remains.gone());
        }
        Ok(remains.forgotten(survey.index(), self.end, has_lost))
    }

    /// Whether the segment before it ends where its name says: an index that is damaged may be of that name, and one of
    /// another segment is not.
    fn says_where_another_ends(&self, files: &SegmentFiles) -> Result<bool, OpenError> {
        if files.has_index {
            let header = listing::index_header(self.disk, self.dir, files.name);
            let header = header.ok().flatten();
            if header.is_none_or(|header| header.base_offset == files.name.base_offset) {
                return Ok(true);
            }
        }
        Ok(files.has_log && self.shows_where_it_belongs(files)?)
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

    /// The header of a segment's index, be the rest of that damaged, if it is sound and can be true.
    fn index_header(
        &self,
        files: &SegmentFiles,
        successor: Option<Offset>,
    ) -> Result<Option<IndexHeader>, OpenError> {
        if !files.has_index {
            return Ok(None);
        }
        let header = salvage::read_index_header(self.disk, self.dir, files.name)?;
        let bound = self.bound(files.name.base_offset, successor);
        Ok(header.filter(|header| bound.is_none_or(|bound| header.end_offset <= bound)))
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
