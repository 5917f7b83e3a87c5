//! The directory inside a log's for what a repair takes out of it.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    buffer::DiskBuffer,
    clock::Now,
    data_dir::ASIDE_PREFIX,
    error::OpenError,
    io::{Access, Disk, DiskFile, lenient::Lenient},
    offset::Position,
    segment::SegmentName,
};

/// How much is copied at once.
const COPY_BYTES: usize = 1 << 20;

/// Where the files go.
pub(super) struct Aside<'a, D: Disk> {
    disk: &'a D,
    dir: &'a Path,
    path: PathBuf,
}

impl<'a, D: Disk> Aside<'a, D> {
    /// Makes a new directory in `dir`, named by the time.
    pub(super) fn create(disk: &'a D, dir: &'a Path, now: Now) -> Result<Self, OpenError> {
        let mut number = now.wall_ms;
        let path = loop {
            let path = dir.join(format!("{ASIDE_PREFIX}{number}"));
            match disk.list(&path) {
                Ok(_) => number += 1,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break path,
                Err(error) => return Err(OpenError::io("listing", &path)(error)),
            }
        };
        disk.create_dir(&path).map_err(OpenError::io("making the directory", &path))?;
        Ok(Aside { disk, dir, path })
    }

    /// Where what was taken out is. If nothing was, the directory goes: else each try on a full disk would leave one.
    pub(super) fn end(self) -> Option<PathBuf> {
        let is_kept = self.disk.remove_dir(&self.path).is_err();
        is_kept.then_some(self.path)
    }

    /// Whether the log has any file of a segment.
    pub(super) fn has(&self, name: SegmentName) -> Result<bool, OpenError> {
        let names = self.disk.list(self.dir).map_err(OpenError::io("listing", self.dir))?;
        Ok(names.contains(&name.log_file_name()) || names.contains(&name.index_file_name()))
    }

    /// Whether the log has the index of a segment.
    pub(super) fn has_index(&self, name: SegmentName) -> Result<bool, OpenError> {
        let names = self.disk.list(self.dir).map_err(OpenError::io("listing", self.dir))?;
        Ok(names.contains(&name.index_file_name()))
    }

    /// Moves both files of a segment out of the log; the index last, as nothing opens without the other.
    pub(super) fn take(&self, name: SegmentName) -> Result<(), OpenError> {
        self.take_file(&name.log_file_name())?;
        self.take_index(name)
    }

    /// Moves the index of a segment out of the log.
    pub(super) fn take_index(&self, name: SegmentName) -> Result<(), OpenError> {
        self.take_file(&name.index_file_name())?;
        self.sync()
    }

    /// Moves a file out of the log.
    pub(super) fn take_path(&self, path: &Path) -> Result<(), OpenError> {
        let name = path.file_name().and_then(|name| name.to_str()).expect("its name is ours");
        self.take_file(name)?;
        self.sync()
    }

    fn sync(&self) -> Result<(), OpenError> {
        for dir in [self.path.as_path(), self.dir] {
            self.disk.sync_dir(dir).map_err(OpenError::io("syncing the directory", dir))?;
        }
        Ok(())
    }

    fn take_file(&self, file_name: &str) -> Result<(), OpenError> {
        let from = self.dir.join(file_name);
        match self.disk.rename(&from, &self.path.join(file_name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(OpenError::io("moving", &from)(error))
            }
            _ => Ok(()),
        }
    }

    /// Copies a file that may be gone already.
    pub(super) fn copy_if_there(&self, file_name: &str) -> Result<(), OpenError> {
        match self.copy(file_name) {
            Err(OpenError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
            copied => copied,
        }
    }

    /// Copies a file that stays, or is replaced, durably; what cannot be read of it is zeroes.
    pub(super) fn copy(&self, file_name: &str) -> Result<(), OpenError> {
        let (from, to) = (self.dir.join(file_name), self.path.join(file_name));
        let file = self.disk.open(&from, Access::Read).map_err(OpenError::io("opening", &from))?;
        let file = Lenient::new(file);
        let copy = self.disk.create(&to, Access::Write).map_err(OpenError::io("writing", &to))?;
        let write = || {
            let size = file.size()?;
            let mut at = Position::default();
            while at.get() < size {
                let left = usize::try_from(size - at.get()).unwrap_or(usize::MAX);
                let mut piece = DiskBuffer::zeroed(left.min(COPY_BYTES));
                file.read_exact_at(piece.as_mut_slice(), at)?;
                // A segment is preallocated with zeroes, which need not be kept.
                if piece.as_slice().iter().any(|byte| *byte != 0) {
                    copy.write_all_at(piece.as_slice(), at)?;
                }
                at = at.plus(piece.len() as u64);
            }
            copy.sync_data()
        };
        let sync_dir = || self.disk.sync_dir(&self.path);
        let copied = write()
            .map_err(OpenError::io("writing", &to))
            .and_then(|()| sync_dir().map_err(OpenError::io("syncing the directory", &self.path)));
        if copied.is_err() {
            self.forget_copy(file_name);
        }
        copied
    }

    /// Removes the copy of a file that is still in its place: it takes the space that was missing.
    pub(super) fn forget_copy(&self, file_name: &str) {
        let _ = self.disk.remove(&self.path.join(file_name));
    }
}
