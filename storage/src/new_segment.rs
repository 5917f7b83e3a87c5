//! The two files of a segment that is written anew: by compaction, a repair, a restore.
//!
//! ```text
//! 1  <name>.log.tmp                written whole, and synced; renamed to <name>.log
//! 2  <name>.idx.tmp -> <name>.idx  the same
//! 3  the directory synced          from here on it is the segment
//! ```
//! What is not finished takes no space: it is removed when it is dropped, and a start removes temporary files.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    buffer::DiskBuffer,
    error::OpenError,
    io::{Access, Disk, DiskFile},
    offset::Position,
    pace::{Pace, PacedFile},
    parts::Parts,
    seal::{self, TEMPORARY_ENDING},
    segment::{SegmentHeader, SegmentName},
};

/// So much is written at once: a frame alone may be a few KiB.
const WRITE_BYTES: usize = 256 << 10;

/// The log file of a segment, under a temporary name.
pub(crate) struct NewSegment<D: Disk> {
    disk: D,
    dir: PathBuf,
    name: SegmentName,
    temporary: PathBuf,
    pace: Pace,
    file: PacedFile<D::File>,
    /// What is still to be written, and where.
    gathered: DiskBuffer,
    gathered_at: Position,
    is_named: bool,
}

impl<D: Disk> Drop for NewSegment<D> {
    fn drop(&mut self) {
        if !self.is_named {
            let _ = self.disk.remove(&self.temporary);
        }
    }
}

impl<D: Disk> NewSegment<D> {
    /// Begins a segment in `dir` with its header. `is_direct`: past the page cache where that is possible, so
    /// that what is written pushes nothing out, and no sync of a frame waits for it; everything that is
    /// written then is aligned as [`Access::Direct`] says. It is written at this `pace`.
    pub(crate) fn create(
        disk: &D,
        dir: &Path,
        name: SegmentName,
        header: &SegmentHeader,
        is_direct: bool,
        pace: Pace,
    ) -> Result<Self, OpenError> {
        assert_eq!(name.base_offset, header.base_offset, "a segment is named by its base");
        let temporary = dir.join(format!("{}{TEMPORARY_ENDING}", name.log_file_name()));
        disk.remove_if_there(&temporary).map_err(OpenError::io("removing", &temporary))?;
        let created = disk
            .create(&temporary, Access::Write)
            .map_err(OpenError::io("creating", &temporary))?;
        let mut block = DiskBuffer::default();
        block.extend_from_slice(&header.encode());
        let start = Position::default();
        let file = match is_direct.then(|| disk.open(&temporary, Access::Direct)) {
            Some(Ok(direct)) if direct.write_at(block.as_slice(), start).is_ok() => direct,
            _ => created,
        };
        let file = PacedFile::new(Arc::new(file), pace.clone());
        let (disk, dir) = (disk.clone(), dir.to_owned());
        let gathered_at = start.plus(block.len() as u64);
        let gathered = DiskBuffer::with_capacity(WRITE_BYTES);
        let new = NewSegment {
            disk,
            dir,
            name,
            temporary,
            pace,
            file,
            gathered,
            gathered_at,
            is_named: false,
        };
        new.file
            .write_all_at(block.as_slice(), start)
            .map_err(OpenError::io("writing", &new.temporary))?;
        Ok(new)
    }

    /// What it is called until it is finished.
    pub(crate) fn path(&self) -> &Path {
        &self.temporary
    }

    /// Writes all of `bytes` behind what was written before, with the next [`NewSegment::sync`] at the latest.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), OpenError> {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    /// Makes durable what was written.
    pub(crate) fn sync(&mut self) -> Result<(), OpenError> {
        self.flush()?;
        self.file.sync_data().map_err(OpenError::io("syncing", &self.temporary))
    }

    fn flush(&mut self) -> Result<(), OpenError> {
        self.file
            .write_all_at(self.gathered.as_slice(), self.gathered_at)
            .map_err(OpenError::io("writing", &self.temporary))?;
        self.gathered_at = self.gathered_at.plus(self.gathered.len() as u64);
        self.gathered.clear();
        Ok(())
    }

    /// Makes it the segment, durably, with its index.
    pub(crate) fn finish(self, index: Parts<'_>) -> Result<(), OpenError> {
        self.finish_if(index, || true).map(|_| ())
    }

    /// The same if, with all of it written, it `is_wanted` still; whether it was.
    pub(crate) fn finish_if(
        mut self,
        index: Parts<'_>,
        is_wanted: impl FnOnce() -> bool,
    ) -> Result<bool, OpenError> {
        self.sync()?;
        let NewSegment { disk, dir, name, .. } = &self;
        seal::write_index_aside(disk, dir, *name, index, self.pace.clone())?;
        if !is_wanted() {
            seal::forget_index(disk, dir, *name);
            return Ok(false);
        }
        let path = dir.join(name.log_file_name());
        if let Err(error) = disk.rename(&self.temporary, &path) {
            seal::forget_index(disk, dir, *name);
            return Err(OpenError::io("renaming", &self.temporary)(error));
        }
        self.is_named = true;
        let NewSegment { disk, dir, name, .. } = &self;
        if let Err(error) = seal::name_index(disk, dir, *name) {
            // Without its index it counts for nothing, and would keep the space that was missing.
            let _ = disk.remove(&path);
            return Err(error);
        }
        disk.sync_dir(dir).map_err(OpenError::io("syncing the directory", dir))?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::SyncMode,
        io::sim::SimDisk,
        offset::Offset,
        segment::{Incarnation, SEGMENT_VERSION, Tag},
    };

    /// A limit that is looser may come while all of it is being written: the last look is when nothing has its name.
    #[test]
    fn what_is_not_wanted_any_more_gets_no_name_and_leaves_nothing() {
        let (disk, dir) = (SimDisk::new(1), Path::new("/log"));
        disk.create_dir(dir).expect("an empty disk");
        let header = SegmentHeader {
            version: SEGMENT_VERSION,
            base_offset: Offset::ZERO,
            created_at_ms: 1,
            incarnation: Incarnation::new([7; 16]),
            tag: Tag::parse("test1").expect("a tag"),
            sync: SyncMode::Commit,
        };
        let name = SegmentName::first_generation(Offset::ZERO);
        let index = || Parts::from(vec![1; 100]);
        let names = || {
            let mut names = disk.list(dir).expect("a directory");
            names.sort_unstable();
            names
        };
        for is_wanted in [false, true] {
            let new = NewSegment::create(&disk, dir, name, &header, true, Pace::alone());
            let mut is_written = false;
            let finished = new.expect("space").finish_if(index(), || {
                is_written = names().iter().all(|name| name.ends_with(TEMPORARY_ENDING));
                is_wanted
            });
            assert_eq!((finished.expect("a disk that works"), is_written), (is_wanted, true));
            let named = [name.index_file_name(), name.log_file_name()];
            assert_eq!(names(), if is_wanted { &named[..] } else { &[] });
        }
    }
}
