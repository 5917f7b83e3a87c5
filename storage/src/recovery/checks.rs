//! What must be true of segments that recovery takes in: where it is not, the log is not opened.

use std::{io, path::PathBuf};

use super::{Recovery, corrupt, files::Found};
use crate::{
    end_mark::END_MARK_FILE_NAME,
    error::OpenError,
    io::{Access, Disk, DiskFile},
    offset::{Offset, Position},
    segment::{SEGMENT_HEADER_BYTES, SEGMENT_VERSION, SegmentError, SegmentHeader},
    snapshot::{self, read},
};

impl<D: Disk> Recovery<'_, D> {
    /// The header of a segment's log file. A file gets its name after its header is synced, so
    /// whatever is wrong with it is no torn write.
    pub(super) fn check_header(&self, found: &Found) -> Result<SegmentHeader, OpenError> {
        let path = self.dir.join(found.name.log_file_name());
        let corrupt = |what: String| corrupt(&path, Position::default(), what);
        if !found.has_log {
            return Err(corrupt("is missing, but its index is there".to_owned()));
        }
        let file = self.disk.open(&path, Access::Read).map_err(OpenError::io("opening", &path))?;
        let mut bytes = vec![0; SEGMENT_HEADER_BYTES];
        match file.read_exact_at(&mut bytes, Position::default()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(corrupt("the file is shorter than its header".to_owned()));
            }
            Err(error) => return Err(OpenError::io("reading", &path)(error)),
        }
        let header = SegmentHeader::decode(&bytes).map_err(|error| match error {
            SegmentError::NewerVersion { version } => OpenError::NewerVersion {
                file: path.clone(),
                version,
                version_max: SEGMENT_VERSION,
            },
            error => corrupt(error.to_string()),
        })?;
        if header.base_offset != found.name.base_offset {
            return Err(corrupt(format!(
                "its header says that it begins at {}",
                header.base_offset
            )));
        }
        Ok(header)
    }

    /// A segment begins where the one before it ended.
    pub(super) fn check_contiguity(&mut self, found: &Found) -> Result<(), OpenError> {
        let base = found.name.base_offset;
        if base > self.end {
            if let Some(lost) = self.lost.take() {
                // It alone may say that nothing before is there on purpose, but for what a power cut has brought back.
                return Err(lost);
            }
            let dir = self.dir.to_owned();
            return Err(OpenError::MissingSegment { dir, from: self.end, to: base });
        }
        if base < self.end {
            let path = self.dir.join(found.name.log_file_name());
            let what = format!("the segment before it goes on to {}", self.end);
            return Err(corrupt(&path, Position::default(), what));
        }
        Ok(())
    }

    /// A sealed log file is as long as its index says, or longer.
    pub(super) fn check_length(&self, found: &Found, end: Position) -> Result<(), OpenError> {
        let path = self.dir.join(found.name.log_file_name());
        let file = self.disk.open(&path, Access::Read).map_err(OpenError::io("opening", &path))?;
        let size = file.size().map_err(OpenError::io("reading", &path))?;
        if size < end.get() {
            let what = format!("the file ends here, but its index says that frames go on to {end}");
            return Err(corrupt(&path, Position::new(size), what));
        }
        Ok(())
    }

    /// A log had been synced up to its newest snapshot, and as far as its end mark says.
    pub(super) fn check_end(&self) -> Result<(), OpenError> {
        match self.synced_beyond(self.end) {
            Some((synced, file)) => {
                Err(OpenError::Corrupt(read::lost_behind(&file, synced, self.end)))
            }
            None => Ok(()),
        }
    }

    /// How far the log had been synced, if that is further than `end`, and which file says so.
    pub(super) fn synced_beyond(&self, end: Offset) -> Option<(Offset, PathBuf)> {
        let by_snapshot =
            self.snapshots.first().map(|newest| (*newest, snapshot::file_name(*newest)));
        let by_mark = self.mark.map(|mark| (mark.synced, END_MARK_FILE_NAME.to_owned()));
        let furthest = by_snapshot.into_iter().chain(by_mark).max_by_key(|(synced, _)| *synced);
        let (synced, file_name) = furthest.filter(|(synced, _)| *synced > end)?;
        Some((synced, self.dir.join(file_name)))
    }
}
