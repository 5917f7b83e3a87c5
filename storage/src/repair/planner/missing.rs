//! Segments whose `.log` is not there, or says nothing.

use super::Planner;
use crate::{
    error::{Corruption, OpenError},
    index::IndexHeader,
    io::Disk,
    listing,
    offset::Offset,
    repair::{Action, Lost, Step},
    verify::SegmentFiles,
};

impl<D: Disk> Planner<'_, D> {
    /// A `.log` that is not there, whose index is, or which the end mark names.
    pub(super) fn missing_log(
        &mut self,
        files: &SegmentFiles,
        damage: Corruption,
        successor: Option<Offset>,
    ) -> Result<(), OpenError> {
        let sound = self.index_of(files)?;
        let is_sound = sound.is_some();
        let index = match sound {
            Some(index) => Some(index),
            None => self.index_header(files, successor)?,
        };
        if !is_sound && let Some(end) = self.stub_end(files, index.as_ref(), successor)? {
            let (name, successor) = (files.name, Some(end));
            let (stub, forgotten) = self.knowing.stub(self.disk, self.dir, name, end)?;
            self.belonging.stub(name, &stub);
            let action = Action::Restub { forgotten };
            self.plan.steps.push(Step { damage, action, name, successor });
            self.goes_on_to(end);
            return Ok(());
        }
        let end = index.as_ref().map(|index| index.end_offset);
        let end = end.or_else(|| self.bound(files.name.base_offset, successor));
        if end.is_none() && self.is_index_of_another(files) {
            // As with one behind the end: that file is all that speaks of a segment there.
            self.plan.beyond.push(damage);
            return Ok(());
        }
        let tag = match index {
            Some(index) => index.tag,
            None => self.tag_before(successor),
        };
        let (name, from) = (files.name, files.name.base_offset);
        let action = match end {
            Some(to) if to > from => {
                let what = "a file is missing".to_owned();
                self.gap(name, Lost { from, to, what }, tag)?
            }
            Some(_) => Action::SetAside,
            None => Action::Abandon,
        };
        self.goes_on_to(end.unwrap_or(from));
        self.plan.steps.push(Step { damage, action, name, successor });
        Ok(())
    }

    /// Whether the index is there, and says that it is of a segment that begins elsewhere.
    fn is_index_of_another(&self, files: &SegmentFiles) -> bool {
        let header =
            files.has_index.then(|| listing::index_header(self.disk, self.dir, files.name));
        let header = header.and_then(Result::ok).flatten();
        header.is_some_and(|header| header.base_offset != files.name.base_offset)
    }

    /// Where a segment ends of which a damaged index is there, and no log file, if its events are known to be gone on
    /// purpose: its header says so, or a snapshot.
    fn stub_end(
        &mut self,
        files: &SegmentFiles,
        header: Option<&IndexHeader>,
        successor: Option<Offset>,
    ) -> Result<Option<Offset>, OpenError> {
        let base = files.name.base_offset;
        if !files.has_index {
            return Ok(None);
        }
        if let Some(header) = header.filter(|header| header.is_stub()) {
            return Ok(Some(header.end_offset));
        }
        let Some(end) = self.bound(base, successor) else { return Ok(None) };
        let are_gone = self.knowing.are_gone(self.disk, self.dir, &(base..end))?;
        Ok(Some(end).filter(|_| are_gone))
    }

    /// A segment of which no file says what it is, but for the header of its index at most.
    pub(super) fn unknown(
        &mut self,
        files: &SegmentFiles,
        damage: Corruption,
        successor: Option<Offset>,
    ) -> Result<(), OpenError> {
        let (from, name) = (files.name.base_offset, files.name);
        let index = self.index_header(files, successor)?;
        let end = index.as_ref().map(|index| index.end_offset);
        let end = end.or_else(|| self.bound(from, successor));
        let action = match end {
            Some(to) if to > from => {
                let what = "the header of its file is damaged, and its index too".to_owned();
                let tag = match index {
                    Some(index) => index.tag,
                    None => self.tag_before(successor),
                };
                self.gap(name, Lost { from, to, what }, tag)?
            }
            Some(_) => Action::SetAside,
            None => Action::Abandon,
        };
        self.goes_on_to(end.unwrap_or(from));
        self.plan.steps.push(Step { damage, action, name, successor: end });
        Ok(())
    }
}
