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

/// Files that have a second name in the directory, and had one before anything took their place.
#[derive(Default)]
pub(super) struct Held {
    file_names: Vec<String>,
}

impl Held {
    /// Whether a file of that name is one of them.
    pub(super) fn has(&self, file_name: &str) -> bool {
        self.file_names.iter().any(|held| held == file_name)
    }
}

/// Whether a file system gives this file no second name, as some never do: it is moved once it is replaced.
fn has_no_links(error: &io::Error) -> bool {
    use io::ErrorKind::{
        CrossesDevices, InvalidInput, PermissionDenied, TooManyLinks, Unsupported,
    };
    let has_none = [CrossesDevices, InvalidInput, PermissionDenied, TooManyLinks, Unsupported];
    has_none.contains(&error.kind())
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

    /// Gives both files of a segment a second name here, durably, before another takes their place: from then on they are
    /// kept, whoever removes the first.
    pub(super) fn hold(&self, name: SegmentName) -> Result<Held, OpenError> {
        self.hold_files([name.log_file_name(), name.index_file_name()])
    }

    /// The same of its index alone, which is copied if it gets no second name.
    pub(super) fn keep_index(&self, name: SegmentName) -> Result<Held, OpenError> {
        let file_name = name.index_file_name();
        let held = self.hold_files([file_name.clone()])?;
        if !held.has(&file_name) {
            self.copy_if_there(&file_name)?;
        }
        Ok(held)
    }

    fn hold_files(&self, file_names: impl IntoIterator<Item = String>) -> Result<Held, OpenError> {
        let mut held = Held::default();
        let linked = file_names.into_iter().try_for_each(|file_name| {
            let from = self.dir.join(&file_name);
            match self.disk.link(&from, &self.path.join(&file_name)) {
                Ok(()) => held.file_names.push(file_name),
                Err(error) if error.kind() == io::ErrorKind::NotFound || has_no_links(&error) => {}
                Err(error) => return Err(OpenError::io("linking", &from)(error)),
            }
            Ok(())
        });
        match linked.and_then(|()| self.sync_names_of(&self.path)) {
            Ok(()) => Ok(held),
            Err(error) => {
                self.forget(&held);
                Err(error)
            }
        }
    }

    /// Removes the second names of files that are still in their place.
    pub(super) fn forget(&self, held: &Held) {
        for file_name in &held.file_names {
            self.forget_copy(file_name);
        }
    }

    /// Where nothing takes the place of files: removes the second names of those that still have the first. If nobody can
    /// tell, both stay.
    fn forget_untaken(&self, held: &Held) {
        let Ok(names) = self.disk.list(self.dir) else { return };
        for file_name in held.file_names.iter().filter(|held| names.contains(held)) {
            self.forget_copy(file_name);
        }
    }

    /// Moves both files of a segment out of the log, which another stands for already.
    pub(super) fn take(&self, name: SegmentName) -> Result<(), OpenError> {
        let held = self.hold(name)?;
        self.take_held(name, &held).inspect_err(|_| self.forget_untaken(&held))
    }

    /// The same, of one that is held as far as it can be; the index last, as nothing opens without the other.
    pub(super) fn take_held(&self, name: SegmentName, held: &Held) -> Result<(), OpenError> {
        self.take_files([name.log_file_name(), name.index_file_name()], held)
    }

    /// Moves the index of a segment out of the log, which is held as far as it can be.
    pub(super) fn take_held_index(&self, name: SegmentName, held: &Held) -> Result<(), OpenError> {
        self.take_files([name.index_file_name()], held)
    }

    /// Moves a file out of the log.
    pub(super) fn take_path(&self, path: &Path) -> Result<(), OpenError> {
        let name = path.file_name().and_then(|name| name.to_str()).expect("its name is ours");
        let held = self.hold_files([name.to_owned()])?;
        self.take_files([name.to_owned()], &held).inspect_err(|_| self.forget_untaken(&held))
    }

    fn take_files(
        &self,
        file_names: impl IntoIterator<Item = String>,
        held: &Held,
    ) -> Result<(), OpenError> {
        for file_name in file_names {
            let from = self.dir.join(&file_name);
            // Of two names of the same file a rename would leave both.
            let taken = match held.has(&file_name) {
                true => self.disk.remove(&from),
                false => self.disk.rename(&from, &self.path.join(&file_name)),
            };
            match taken {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(OpenError::io("moving", &from)(error));
                }
                _ => {}
            }
        }
        self.sync_names_of(&self.path)?;
        self.sync_names_of(self.dir)
    }

    fn sync_names_of(&self, dir: &Path) -> Result<(), OpenError> {
        self.disk.sync_dir(dir).map_err(OpenError::io("syncing the directory", dir))
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

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn what_a_file_system_without_second_names_says_is_no_failure() {
        for error in [Errno::XDEV, Errno::INVAL, Errno::PERM, Errno::MLINK, Errno::NOSYS] {
            assert!(has_no_links(&error.into()), "{error}");
        }
        for error in [Errno::IO, Errno::NOSPC, Errno::NOENT] {
            assert!(!has_no_links(&error.into()), "{error}");
        }
    }
}
