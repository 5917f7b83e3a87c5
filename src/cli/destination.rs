//! Where a data directory is to be made: looked at before anything is made there.
//!
//! What takes the place of a directory removes it. So the path is resolved through symlinks, and refused where it
//! is the source itself, lies in a data directory, or has the source in it; a server's, whose lock is held, in any
//! case. What is the same is told by device and inode, since one directory may have several names.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use strandline_storage::{
    backup::{end_of, last_segment},
    data_dir::{DataDir, MARKER_FILE_NAME, lock},
    error::OpenError,
    io::{Disk, LockMode, real::RealDisk},
    offset::Offset,
    segment::Tag,
};

use super::directory::{self, DirectoryError};

/// Why nothing can be made there.
#[derive(Debug, thiserror::Error)]
pub enum DestinationError {
    /// It cannot be looked at.
    #[error("{}: {source}", path.display())]
    Io {
        /// The path, or what it depends on.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It cannot be what is wanted; nothing was changed.
    #[error("{}: {what}", path.display())]
    Refused {
        /// Its path.
        path: PathBuf,
        /// Why, and what to do.
        what: String,
    },
    /// What is there cannot be looked at.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// Nothing can be made there.
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl DestinationError {
    /// What the kernel said of a path.
    pub fn io(path: &Path) -> impl FnOnce(io::Error) -> DestinationError {
        move |source| DestinationError::Io { path: path.to_owned(), source }
    }
}

/// A path that is free, or holds a directory that is no other's.
#[derive(Debug)]
pub struct Destination {
    path: PathBuf,
    is_empty: bool,
}

impl Destination {
    /// Looks at the path `named`, where a directory is to be made of the data directory `source`.
    pub fn examine(named: &Path, source: &Path) -> Result<Destination, DestinationError> {
        let path = resolve(named).map_err(DestinationError::io(named))?;
        let refused = |what: String| DestinationError::Refused { path: named.to_owned(), what };
        let source_id = id(source).map_err(DestinationError::io(source))?;
        let is_source = |path: &Path| match id(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            id => Ok(id? == source_id),
        };
        if is_source(&path).map_err(DestinationError::io(named))? {
            return Err(refused(format!("it is {} itself", source.display())));
        }
        for above in path.ancestors().skip(1) {
            let is_data = || Ok(is_source(above)? || above.join(MARKER_FILE_NAME).try_exists()?);
            if is_data().map_err(DestinationError::io(above))? {
                let above = above.display();
                return Err(refused(format!(
                    "it lies in the data directory {above}: name one outside"
                )));
            }
        }
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Destination { path, is_empty: true });
            }
            Err(error) => return Err(DestinationError::io(named)(error)),
        };
        if !metadata.is_dir() {
            return Err(refused("it is not a directory".to_owned()));
        }
        let its_id = (metadata.dev(), metadata.ino());
        let real_source = fs::canonicalize(source).map_err(DestinationError::io(source))?;
        for above in real_source.ancestors() {
            if id(above).map_err(DestinationError::io(above))? == its_id {
                let source = source.display();
                return Err(refused(format!("{source} lies in it: name a directory beside")));
            }
        }
        let is_mount_point = match path.parent() {
            Some(parent) => id(parent).map_err(DestinationError::io(parent))?.0 != its_id.0,
            None => true,
        };
        if is_mount_point {
            return Err(refused("it is a mount point: name a directory in it".to_owned()));
        }
        let mut entries = fs::read_dir(&path).map_err(DestinationError::io(named))?;
        let is_empty = entries.next().is_none();
        Ok(Destination { path, is_empty })
    }

    /// Its path, without symlinks.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// The data directory that is there, whose locks are held from now on; `None` if there is none.
    pub fn existing(&self) -> Result<Option<Existing>, DestinationError> {
        if self.is_empty {
            return Ok(None);
        }
        let data = DataDir::open_existing(&RealDisk, &self.path).map_err(DirectoryError::from)?;
        let mut logs = Vec::new();
        for (tenant, log) in directory::names_in(&self.path)? {
            let dir = data.log_dir(&tenant, &log);
            let lock = || lock(&RealDisk, &dir, LockMode::Exclusive);
            let lock = directory::when_free(lock).map_err(|error| match error {
                OpenError::Locked { dir: path } => {
                    let what = "it is in use by a server, or by another command, such as a backup that takes its \
                                place: wait for that, or name a directory of its own";
                    DestinationError::Refused { path, what: what.to_owned() }
                }
                error => DirectoryError::from(error).into(),
            })?;
            let tag = last_segment(&RealDisk, &dir).map_err(DirectoryError::from)?.tag;
            let end = end_of(&RealDisk, &dir).map_err(DirectoryError::from)?;
            logs.push(ExistingLog { tenant, log, tag, end, _lock: lock });
        }
        Ok(Some(Existing { data, logs }))
    }
}

/// A data directory that may be replaced. No server has it, and none gets it while this is there.
pub struct Existing {
    /// The directory.
    pub data: DataDir,
    /// The logs in it.
    pub logs: Vec<ExistingLog>,
}

/// A log of it.
pub struct ExistingLog {
    /// The name of its tenant,
    pub tenant: String,
    /// and its own.
    pub log: String,
    /// Its tag; `None` if nothing in it says one.
    pub tag: Option<Tag>,
    /// Where it ends.
    pub end: Offset,
    _lock: <RealDisk as Disk>::Lock,
}

impl Existing {
    /// Why these directories are not to be replaced by what is, or will be, the log of the same name there: `now`
    /// gives its tag, and its end as far as it is known, or fails to look.
    pub fn objection(
        &self,
        mut now: impl FnMut(&str, &str) -> Result<Option<(Option<Tag>, Option<Offset>)>, OpenError>,
    ) -> Result<Option<String>, OpenError> {
        for old in &self.logs {
            let ExistingLog { tenant, log, end, .. } = old;
            let what = match (now(tenant, log)?, old.tag) {
                // Nothing that could be lost, or told from anything else.
                (_, None) if *end == Offset::ZERO => continue,
                (None, _) => "there is no such log in --data".to_owned(),
                (_, None) => "its tag cannot be read".to_owned(),
                (Some((tag, _)), Some(old_tag)) if tag != Some(old_tag) => format!(
                    "its tag is {old_tag}, that of the log in --data {}: it is of another log, or of this one \
                     before an unclean end, a repair or a restore gave it a new tag",
                    tag.map_or_else(|| "is not known".to_owned(), |tag| tag.to_string()),
                ),
                (Some((_, Some(new_end))), _) if new_end < *end => {
                    format!("the log in --data ends before, at offset {new_end}")
                }
                _ => continue,
            };
            return Ok(Some(format!("it holds {tenant}/{log} up to offset {end}, and {what}")));
        }
        Ok(None)
    }
}

/// Where a directory is, or will be: without symlinks as far as there is anything.
fn resolve(named: &Path) -> io::Result<PathBuf> {
    let mut at = std::path::absolute(named)?;
    let mut missing = Vec::new();
    loop {
        match fs::canonicalize(&at) {
            Ok(mut path) => {
                path.extend(missing.iter().rev());
                return Ok(path);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let name = at.file_name().map(ToOwned::to_owned);
                let is_there = match fs::symlink_metadata(&at) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => false,
                    looked => looked.map(|_| true)?,
                };
                let (Some(name), false) = (name, is_there) else {
                    let what = "a symlink, or `..`, leads nowhere";
                    return Err(io::Error::new(io::ErrorKind::NotFound, what));
                };
                missing.push(name);
                at.pop();
            }
            Err(error) => return Err(error),
        }
    }
}

/// What tells a directory from others, whatever its name.
fn id(path: &Path) -> io::Result<(u64, u64)> {
    fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}
