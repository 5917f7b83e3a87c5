//! Where a segment ends at the latest, be its end lost.

use super::Planner;
use crate::{
    error::OpenError,
    io::Disk,
    offset::Offset,
    repair::salvage::{Damaged, Survey},
    snapshot::read,
    verify::SegmentFiles,
};

impl<D: Disk> Planner<'_, D> {
    /// Up to where a segment from `base` on may go of which nothing is known: no segment goes over a snapshot, and
    /// behind the last one alone a snapshot or the end mark knows that the log went on.
    pub(super) fn bound(&self, base: Offset, successor: Option<Offset>) -> Option<Offset> {
        let snapshot = self.snapshots.iter().rev().find(|offset| **offset > base).copied();
        let known = successor.into_iter().chain(snapshot).min();
        known.or(Some(self.plan.synced).filter(|synced| *synced > base))
    }

    /// Where a segment ends at the latest behind which others may be missing: before the snapshot that its frames do not
    /// pass, as no segment goes over one. That is whole: a stray one that is damaged says nothing of where a segment ends.
    pub(super) fn clipped(
        &self,
        files: &SegmentFiles,
        successor: Option<Offset>,
    ) -> Result<Option<Offset>, OpenError> {
        let Some(end) = successor.filter(|_| files.has_log) else { return Ok(successor) };
        let is_inside = |offset: &&Offset| files.name.base_offset < **offset && **offset < end;
        let mut frames_end = None;
        for offset in self.snapshots.iter().rev().filter(is_inside) {
            if read::passed_over(read::read(self.disk, self.dir, *offset))?.is_none() {
                continue;
            }
            let reached = match frames_end {
                Some(reached) => reached,
                None => *frames_end.insert(self.frames_end(files, end)?),
            };
            if reached <= *offset {
                return Ok(Some(*offset));
            }
        }
        Ok(successor)
    }

    /// Up to where a segment's frames go that can be read, if it ends there at the latest.
    fn frames_end(&self, files: &SegmentFiles, end: Offset) -> Result<Offset, OpenError> {
        let (name, synced) = (files.name, self.plan.synced);
        let damaged = Damaged::open(self.disk, self.dir, name, files.has_index, Some(end), synced)?;
        let Some(header) = &damaged.header else { return Ok(name.base_offset) };
        let mut survey = Survey::new(header);
        let end = damaged.read(&mut survey)?;
        let lost = survey.lost.last().filter(|lost| lost.to == end);
        Ok(lost.map_or(end, |lost| lost.from))
    }
}
