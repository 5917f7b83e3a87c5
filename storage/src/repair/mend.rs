//! Does what a repair has decided: what replaces a file has its name and is synced before that goes, and that is kept aside
//! before anything takes its place.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    Action, Lost, RepairPlan, Step,
    aside::{Aside, Held},
    known::Knowing,
    salvage::{Damaged, Survey},
};
use crate::{
    active_file::{Fill, PrepareJob, RollJob, WriteMode},
    clock::Now,
    config::SyncMode,
    error::OpenError,
    io::{Disk, is_full},
    log::NEXT_FILE_NAME,
    offset::Offset,
    pace::Pace,
    parts::Parts,
    remains::Forgotten,
    rewrite::SegmentWriter,
    seal,
    segment::{
        FIRST_FRAME_POSITION, Incarnation, SEGMENT_VERSION, SegmentHeader, SegmentName, Tag,
    },
};

/// What was done, be it that not all was.
#[derive(Default)]
pub(super) struct Mended {
    /// Where the files are that were taken out, if any.
    pub(super) aside: Option<PathBuf>,
    /// The log's tag, if it is another.
    pub(super) new_tag: Option<Tag>,
    /// Files that newer ones have replaced, and that are neither taken out nor kept aside.
    pub(super) in_place: Vec<PathBuf>,
    /// How many steps were taken.
    steps: usize,
}

impl Mended {
    /// Whether the log is as it was.
    pub(super) fn is_nothing(&self) -> bool {
        let has_taken_none = self.aside.is_none() && self.in_place.is_empty() && self.steps == 0;
        has_taken_none && self.new_tag.is_none()
    }
}

/// Does what was decided.
pub(super) struct Mender<'a, D: Disk> {
    disk: &'a D,
    dir: &'a Path,
    now: Now,
    aside: Aside<'a, D>,
    /// The tag of a log whose end is lost.
    end_tag: Option<Tag>,
    new_tag: Option<Tag>,
    /// What is being replaced, and is not taken out yet.
    replaced: Option<Replaced>,
    synced: Offset,
    knowing: Knowing,
}

/// A segment that a newer generation takes the place of.
struct Replaced {
    name: SegmentName,
    new: SegmentName,
    /// Those of its files that are kept aside, whatever happens to it.
    held: Held,
}

impl<D: Disk> Mender<'_, D> {
    /// Takes all steps, or those before one that fails.
    pub fn run(
        disk: &D,
        dir: &Path,
        now: Now,
        plan: &RepairPlan,
    ) -> (Mended, Result<(), OpenError>) {
        let aside = match Aside::create(disk, dir, now) {
            Ok(aside) => aside,
            Err(error) => return (Mended::default(), Err(error)),
        };
        let (end_tag, new_tag) = (plan.new_tag, None);
        let (synced, knowing) = (plan.synced, Knowing::default());
        let replaced = None;
        let mut mender =
            Mender { disk, dir, now, aside, end_tag, new_tag, replaced, synced, knowing };
        // What an interrupted one left goes first: its name may be needed.
        let (discarded, others): (Vec<_>, Vec<_>) = plan
            .steps
            .iter()
            .partition(|step| matches!(step.action, Action::Discard | Action::Unread));
        let mut steps = 0;
        let outcome = discarded.into_iter().chain(others).try_for_each(|step| {
            mender.step(step)?;
            steps += 1;
            Ok(())
        });
        let (in_place, new_tag) = (mender.in_place(), mender.new_tag);
        (Mended { aside: mender.aside.end(), new_tag, in_place, steps }, outcome)
    }

    fn step(&mut self, step: &Step) -> Result<(), OpenError> {
        let name = step.name;
        match &step.action {
            Action::Discard | Action::Unread => self.aside.take(name),
            Action::SetAside => self.aside.take_path(&step.damage.file),
            Action::Reindex { .. } => self.reindex(name, step.successor),
            Action::Rewrite { lost, .. } => {
                let new = self.next(name)?;
                let damaged = self.open(name, step.successor)?;
                let known = damaged.header.as_ref().expect("the plan has seen it");
                let header = SegmentHeader { incarnation: Incarnation::random(), ..known.clone() };
                let mut writer = SegmentWriter::create(self.disk, self.dir, new, &header)?;
                damaged.read(&mut writer)?;
                let has_lost = !lost.is_empty();
                let carried = match &damaged.carried {
                    Some(carried) if !has_lost => carried.clone(),
                    _ => {
                        let (disk, dir, end) = (self.disk, self.dir, writer.end());
                        let remains =
                            self.knowing.remains(disk, dir, name, &damaged, end, has_lost)?;
                        remains.carried(writer.index(), end)
                    }
                };
                self.hold(name, new)?;
                writer.finish(Some(&carried))?;
                if damaged.is_guessed && step.successor.is_none() {
                    self.new_tag = Some(header.tag);
                }
                self.take_replaced()
            }
            Action::Fill { lost, tag, forgotten } => {
                let is_there = self.aside.has(name)?;
                // The index of a first generation says no more than its frames do.
                let new = self.next(name)?;
                let header = self.header(name.base_offset, *tag);
                let mut writer = SegmentWriter::create(self.disk, self.dir, new, &header)?;
                writer.add_gap(lost.to, &said_of(lost, forgotten))?;
                let (disk, dir) = (self.disk, self.dir);
                let remains = self.knowing.remains_of_lost(disk, dir, name, lost.to)?;
                let carried = remains.carried(writer.index(), lost.to);
                if is_there {
                    self.hold(name, new)?;
                }
                writer.finish(Some(&carried))?;
                if self.end_tag == Some(*tag) {
                    self.new_tag = self.end_tag;
                }
                self.take_replaced()
            }
            Action::Restub { .. } => {
                let end = step.successor.expect("the plan says where it ends");
                let (stub, _) = self.knowing.stub(self.disk, self.dir, name, end)?;
                self.replace_index(name, stub.into())
            }
            Action::Abandon => self.abandon(name),
        }
    }

    /// A newer generation is about to take the place of a segment: a start would remove what is left of this one from then
    /// on, and so it is kept aside before that.
    fn hold(&mut self, name: SegmentName, new: SegmentName) -> Result<(), OpenError> {
        let held = self.aside.hold(name)?;
        self.replaced = Some(Replaced { name, new, held });
        Ok(())
    }

    /// The newer generation has its name.
    fn take_replaced(&mut self) -> Result<(), OpenError> {
        if let Some(Replaced { name, held, .. }) = &self.replaced {
            self.aside.take_held(*name, held)?;
        }
        self.replaced = None;
        Ok(())
    }

    /// Of a segment that was to be replaced when something failed, the files that are neither taken out nor kept aside,
    /// though the newer ones have their names; where the directory cannot be listed, all that there may be. If they have
    /// none, nothing of it stays aside.
    fn in_place(&self) -> Vec<PathBuf> {
        let Some(Replaced { name, new, held }) = &self.replaced else { return Vec::new() };
        let files = |name: &SegmentName| [name.log_file_name(), name.index_file_name()];
        let names = self.disk.list(self.dir);
        let may_be_there =
            |file: &String| names.as_ref().map_or(true, |names| names.contains(file));
        if !files(new).iter().all(may_be_there) {
            self.aside.forget(held);
            return Vec::new();
        }
        let left = files(name).into_iter().filter(|file| may_be_there(file) && !held.has(file));
        left.map(|file| self.dir.join(file)).collect()
    }

    fn open(
        &self,
        name: SegmentName,
        successor: Option<Offset>,
    ) -> Result<Damaged<D::File>, OpenError> {
        let has_index = self.aside.has_index(name)?;
        Damaged::open(self.disk, self.dir, name, has_index, successor, self.synced)
    }

    /// The name of what takes the place of a segment; nothing is ever written over.
    fn next(&self, name: SegmentName) -> Result<SegmentName, OpenError> {
        let failed = |what| {
            let path = self.dir.join(name.log_file_name());
            OpenError::io("rewriting", &path)(io::Error::other(what))
        };
        let next = name.next_generation().ok_or_else(|| failed("it was rewritten too often"))?;
        match self.aside.has(next)? {
            true => Err(failed("there is a newer generation of it already")),
            false => Ok(next),
        }
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

    /// The frames are sound: the damaged index goes aside, and one that is made of them takes its name.
    fn reindex(&mut self, name: SegmentName, successor: Option<Offset>) -> Result<(), OpenError> {
        let mut damaged = self.open(name, successor)?;
        // What it says is of no use, its end neither.
        damaged.forget_index();
        let header = damaged.header.clone().expect("the plan has seen it");
        let mut survey = Survey::new(&header);
        damaged.read(&mut survey)?;
        let (index, end) = survey.into_index();
        let at = end.end_offset;
        let made = match index.says_all(at) {
            true => index.parts(&end),
            false => {
                let (disk, dir) = (self.disk, self.dir);
                let remains = self.knowing.remains(disk, dir, name, &damaged, at, false)?;
                index.finish_carrying(&end, &remains.carried(&index, at)).into()
            }
        };
        self.replace_index(name, made)
    }

    /// The damaged index is kept, and another takes its name.
    fn replace_index(&self, name: SegmentName, made: Parts<'_>) -> Result<(), OpenError> {
        let file_name = name.index_file_name();
        self.aside.copy_if_there(&file_name)?;
        let written = seal::write_index_aside(self.disk, self.dir, name, made, Pace::alone());
        if written.is_err() {
            self.aside.forget_copy(&file_name);
        }
        written?;
        let named = seal::name_index(self.disk, self.dir, name);
        if is_without_space(&named) {
            self.aside.forget_copy(&file_name);
        }
        named?;
        self.disk.sync_dir(self.dir).map_err(OpenError::io("syncing the directory", self.dir))
    }

    /// One rename takes the file out and gives the log its new tag: after a crash there is never one
    /// without the other.
    fn abandon(&mut self, name: SegmentName) -> Result<(), OpenError> {
        let tag = Tag::random();
        let (file_name, index_name) = (name.log_file_name(), name.index_file_name());
        if self.aside.has(name)? {
            self.aside.copy_if_there(&file_name)?;
        }
        // Without the log file nothing stands for it any more, and the index of the next one would go over it.
        let held =
            self.aside.keep_index(name).inspect_err(|_| self.aside.forget_copy(&file_name))?;
        let begun = begin_successor(self.disk, self.dir, self.header(name.base_offset, tag));
        if is_without_space(&begun) {
            self.aside.forget_copy(&file_name);
            self.aside.forget_copy(&index_name);
        }
        begun?;
        self.new_tag = Some(tag);
        self.aside.take_held_index(name, &held)
    }
}

/// Whether the disk was full, so that nothing has taken a name. After other errors that is not certain, and what is kept
/// aside may be all that is left.
fn is_without_space(named: &Result<(), OpenError>) -> bool {
    matches!(named, Err(OpenError::Io { source, .. }) if is_full(source))
}

/// What a gap says in the log.
fn said_of(lost: &Lost, forgotten: &Forgotten) -> String {
    match forgotten.is_nothing() {
        true => lost.what.clone(),
        false => format!("{}; forgotten with what is lost: {forgotten}", lost.what),
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
    let prepare = PrepareJob {
        path: temporary.clone(),
        mode: WriteMode::Buffered,
        to: FIRST_FRAME_POSITION,
        fill: Fill::Zeroes,
    };
    let next = prepare.run(disk).map_err(OpenError::io("preparing", &temporary))?;
    let roll = RollJob { next, header, dir: dir.to_owned(), from: temporary, to: path.clone() };
    roll.run(disk).map_err(OpenError::io("creating", &path)).map(|_| ())
}
