//! A data directory that is made beside its place, and takes that once it is whole.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, RenameFlags};
use strandline_storage::{
    data_dir::{DataDir, MARKER_FILE_NAME, MARKER_TEMPORARY_FILE_NAME, lock},
    error::OpenError,
    io::{Disk, LockMode, real::RealDisk},
};

use super::destination::{Destination, DestinationError};
use super::directory::is_dir;
use crate::stderr::tell;

/// How the name of one that is not whole yet ends; it begins with a dot.
const ENDING: &str = ".unfinished";

/// A data directory under a temporary name, beside the place where it belongs.
pub struct Staged {
    /// Where it belongs.
    to: PathBuf,
    /// There is one there, and the caller keeps it from being used.
    is_replaced: bool,
    data: DataDir,
    /// Before the lock: nobody else begins there while it is removed.
    unfinished: Unfinished,
    /// Keeps a second one from being made for the same place at the same time.
    lock: <RealDisk as Disk>::Lock,
}

/// The directory under its temporary name: it goes with this, whatever fails.
struct Unfinished {
    path: PathBuf,
    is_kept: bool,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.is_kept
            && let Err(error) = remove(&self.path)
        {
            tell!("warning: {error}");
        }
    }
}

impl Staged {
    /// Begins one, and removes what a run before left of it.
    pub fn begin(destination: &Destination) -> Result<Staged, DestinationError> {
        let to = destination.path();
        let name = to.file_name().ok_or_else(|| {
            let error = io::Error::other("give a directory by its name");
            DestinationError::io(to)(error)
        })?;
        let mut temporary = std::ffi::OsString::from(".");
        temporary.push(name);
        temporary.push(ENDING);
        let parent = parent_of(to);
        if !is_dir(&parent).map_err(OpenError::io("looking at", &parent))? {
            fs::create_dir_all(&parent).map_err(OpenError::io("making the directory", &parent))?;
        }
        let path = parent.join(temporary);
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(OpenError::io("making the directory", &path)(error).into());
            }
            _ => {}
        }
        let refused =
            |what: &str| DestinationError::Refused { path: path.clone(), what: what.to_owned() };
        let lock = match lock(&RealDisk, &path, LockMode::Exclusive) {
            Err(OpenError::Locked { .. }) => {
                return Err(refused(
                    "in use: another `backup` or `restore` to the same place runs",
                ));
            }
            locked => locked?,
        };
        if !is_left_over(&path)? {
            return Err(refused(
                "it is in the way, and holds something else than what an interrupted `backup` or `restore` left: move it \
                 away, or remove it",
            ));
        }
        let unfinished = Unfinished { path, is_kept: false };
        empty(&unfinished.path, |path| RealDisk.sync_dir(path))?;
        let data = DataDir::open(&RealDisk, &unfinished.path)?;
        let is_replaced = !destination.is_empty();
        Ok(Staged { to: to.to_owned(), is_replaced, data, unfinished, lock })
    }

    /// The directory as it is now.
    pub fn data(&self) -> &DataDir {
        &self.data
    }

    /// Gives it its place. What was there, an older one, is removed afterwards: at any moment one of the
    /// two is there, and whole. What has come into an empty place meanwhile stays, and this fails.
    pub fn finish(self) -> Result<(), OpenError> {
        // In this order: what fails removes it while the lock is held.
        let Staged { lock: held, to, is_replaced, data, mut unfinished } = self;
        let path = data.path();
        let failed = |error| OpenError::io("putting into its place", &to)(error);
        RealDisk.sync_dir(path).map_err(failed)?;
        // It gets the name of one that is being made, and is removed under it: nobody else begins there meanwhile.
        let _old =
            if is_replaced { Some(lock(&RealDisk, &to, LockMode::Exclusive)?) } else { None };
        if is_replaced {
            let exchanged = rustix::fs::renameat_with(CWD, path, CWD, &to, RenameFlags::EXCHANGE);
            exchanged.map_err(|errno| failed(errno.into()))?;
        } else {
            fs::rename(path, &to).map_err(failed)?;
        }
        // Under its name there is nothing now, or what was replaced, which stays until that is on the disk.
        unfinished.is_kept = true;
        RealDisk.sync_dir(&parent_of(&to)).map_err(failed)?;
        if is_replaced {
            remove(path)?;
        }
        drop(held);
        Ok(())
    }
}

fn parent_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Whether a directory of this name is what a run before left: its name says that it is ours, and so has its marker to,
/// if there is anything.
fn is_left_over(path: &Path) -> Result<bool, OpenError> {
    let metadata = fs::symlink_metadata(path).map_err(OpenError::io("looking at", path))?;
    if metadata.is_symlink() {
        return Ok(false);
    }
    let names = RealDisk.list(path).map_err(OpenError::io("listing", path))?;
    let is_empty = names.iter().all(|name| name == MARKER_TEMPORARY_FILE_NAME);
    match DataDir::open_existing(&RealDisk, path) {
        Err(error @ OpenError::Io { .. }) if !is_empty => Err(error),
        opened => Ok(is_empty || opened.is_ok()),
    }
}

/// Removes a directory that is ours.
fn remove(path: &Path) -> Result<(), OpenError> {
    empty(path, |path| RealDisk.sync_dir(path))?;
    fs::remove_dir(path).map_err(OpenError::io("removing", path))
}

/// Removes what is in a directory that is ours, its marker last: what is left if this is cut short, by the power too, is
/// known still.
fn empty(path: &Path, sync: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), OpenError> {
    let failed = |error| OpenError::io("removing what was left in", path)(error);
    let mut marker = None;
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let is_dir = entry.file_type().map_err(failed)?.is_dir();
        let is_marker = entry.file_name() == MARKER_FILE_NAME;
        let entry = entry.path();
        match (is_marker, is_dir) {
            (true, _) => marker = Some(entry),
            (false, true) => fs::remove_dir_all(&entry).map_err(failed)?,
            (false, false) => fs::remove_file(&entry).map_err(failed)?,
        }
    }
    let Some(marker) = marker else { return Ok(()) };
    sync(path).map_err(failed)?;
    fs::remove_file(marker).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A power cut kept what the directory held and took the marker: the next run took it for somebody else's.
    #[test]
    fn the_marker_goes_once_it_is_on_the_disk_that_all_else_is_gone() {
        let name = format!("strandline-staged-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a free name");
        let data = DataDir::open(&RealDisk, &path).expect("a new one");
        fs::create_dir_all(path.join("default/main")).expect("space");
        fs::write(path.join("default/main/earliest"), "1").expect("space");
        drop(data);
        let names = || RealDisk.list(&path).expect("a directory");
        let mut synced = false;
        let refused = empty(&path, |synced_path| {
            assert_eq!((synced_path, names()), (path.as_path(), vec![MARKER_FILE_NAME.to_owned()]));
            synced = true;
            Err(io::Error::other("it cannot be synced"))
        });
        assert!(synced && refused.is_err(), "{refused:?}");
        assert_eq!(names(), [MARKER_FILE_NAME], "it may be all that tells whose it is");
        remove(&path).expect("it is ours");
        assert!(!path.exists());
    }
}
