//! Which generation of each segment counts, and which go.

use std::collections::BTreeMap;

use super::Planner;
use crate::{
    error::OpenError,
    io::Disk,
    listing,
    repair::{
        Action,
        salvage::{self, Damaged},
    },
    segment::{SegmentFile, SegmentName},
    verify::SegmentFiles,
};

impl<D: Disk> Planner<'_, D> {
    /// The segments in offset order, one generation of each: the newest that has a sound index, else the newest if it
    /// alone has a log file, and an index, as that of another goes before its index where this stands for it, else the
    /// oldest that has a log file, or is a stub, which has none. All others go. A start chooses the same, if it chooses.
    pub(super) fn list(&mut self, names: &[String]) -> Result<Vec<SegmentFiles>, OpenError> {
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
            if let Some(newest) = alone(same) {
                best = newest;
            } else {
                for files in same {
                    if files.has_log || self.is_stub(files)? {
                        best = files;
                        break;
                    }
                }
            }
            for files in same.iter().filter(|files| files.has_index && same.len() > 1) {
                if self.has_sound_index(files)? {
                    best = files;
                }
            }
            for files in same.iter().filter(|files| files.name != best.name) {
                let best_file = best.name.log_file_name();
                let stands = format!("{best_file} stands for the same events");
                match files.name > best.name && self.is_unread(files) {
                    true => self.step(
                        files,
                        format!("its index cannot be read, and {stands}"),
                        Action::Unread,
                    ),
                    false => self.step(files, stands, Action::Discard),
                }
            }
            // What takes its place takes it out: the others are gone by then.
            self.names.insert(best.name.base_offset, best.name);
            chosen.push(*best);
        }
        Ok(chosen)
    }

    /// Whether its events are gone on purpose, be the rest of its index damaged.
    fn is_stub(&self, files: &SegmentFiles) -> Result<bool, OpenError> {
        if !files.has_index {
            return Ok(false);
        }
        let header = salvage::read_index_header(self.disk, self.dir, files.name)?;
        Ok(header.is_some_and(|header| header.is_stub()))
    }

    /// Whether the disk does not give back its index: a start does not pass it over, as it may be the one that counts.
    fn is_unread(&self, files: &SegmentFiles) -> bool {
        let is_whole =
            listing::is_whole(self.disk, self.dir, files.name, files.has_log, files.has_index);
        matches!(is_whole, Err(OpenError::Io { .. }))
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
}

/// The newest of those generations of a segment that can have counted, if it has both files and no other has frames.
fn alone(same: &[SegmentFiles]) -> Option<&SegmentFiles> {
    let counting = listing::counting(same, |files| files.has_index);
    let newest = counting.last().filter(|newest| newest.has_log && newest.has_index)?;
    let with_log = counting.iter().filter(|files| files.has_log).count();
    (with_log == 1).then_some(newest)
}
