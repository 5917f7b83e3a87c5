//! Space for the day when there is none: a file of zeroes beside the log, given back to a start or to what frees
//! space when that finds none. A file that is there stays over a restart: a start on a full disk costs nothing.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    active_file::{is_refusal, write_zeroes},
    buffer::ALIGN_BYTES,
    config::LogConfig,
    error::OpenError,
    io::{Access, Disk, DiskFile},
    offset::Position,
};

/// Its name.
pub(crate) const RESERVE_FILE_NAME: &str = "reserve.tmp";

/// It is no larger than one of so many parts of the disk,
const RESERVE_SHARE: u64 = 50;
/// but on a small one so large: a new segment is begun with half of it.
const RESERVE_BYTES_MIN: u64 = 2 << 20;
/// And never more than one of so many parts.
const RESERVE_SHARE_MIN: u64 = 4;

/// A segment is no longer than one of so many parts of the disk: a rewrite needs space of its own.
const SEGMENT_SHARE: u64 = 16;

/// See [`crate::op::Job::Reserve`].
pub struct ReserveJob {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    pub(crate) keep: bool,
}

impl ReserveJob {
    /// Makes a file of zeroes, or removes it.
    pub(crate) fn run<D: Disk>(self, disk: &D) -> io::Result<()> {
        let dir = self.path.parent().expect("it lies in the log's directory");
        remove(disk, dir)?;
        if !self.keep {
            return Ok(());
        }
        let end = Position::new(reserve_bytes(disk, dir, self.bytes)?);
        if disk.space(dir)?.free_bytes < end.get() {
            // Trying would take from others what there is, for a moment.
            return Err(io::ErrorKind::StorageFull.into());
        }
        let start = Position::default();
        let created = disk.create(&self.path, Access::Write)?;
        let written = match disk.open(&self.path, Access::Direct) {
            Ok(direct) => match write_zeroes(&direct, start, end, |_| true) {
                Err(error) if is_refusal(&error) => write_zeroes(&created, start, end, |_| true),
                written => written,
            },
            Err(_) => write_zeroes(&created, start, end, |_| true),
        };
        // Else a power cut may leave its length, and none of its blocks.
        let written = written.and_then(|_| created.sync_data());
        if written.is_err() {
            // A part of it would be in the way of what is to use the rest.
            let _ = disk.remove(&self.path);
        }
        written
    }
}

/// Whether the whole of it is there, if there is to be one of `bytes` at most. Another one is removed, and so is
/// a hole of that length, as some copies make: it would give nothing back. (On a file system that compresses it is
/// made anew at every start.)
pub(crate) fn is_there<D: Disk>(disk: &D, dir: &Path, bytes: u64) -> Result<bool, OpenError> {
    let path = dir.join(RESERVE_FILE_NAME);
    let look = || {
        let (size, allocated_bytes) = match disk.open(&path, Access::Read) {
            Ok(file) => (file.size()?, file.allocated_bytes()?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let is_long = bytes > 0 && size == reserve_bytes(disk, dir, bytes)?;
        let is_whole = is_long && allocated_bytes >= size;
        if !is_whole {
            remove(disk, dir)?;
        }
        Ok(is_whole)
    };
    look().map_err(OpenError::io("looking for", &path))
}

/// Gives it back, so that others can have its space at once.
pub(crate) fn give_back<D: Disk>(disk: &D, dir: &Path) -> Result<(), OpenError> {
    remove(disk, dir).map_err(OpenError::io("removing", &dir.join(RESERVE_FILE_NAME)))?;
    disk.sync_dir(dir).map_err(OpenError::io("syncing the directory", dir))
}

/// How long segments may become on this disk.
pub(crate) fn segment_bytes<D: Disk>(disk: &D, dir: &Path, config: &LogConfig) -> u64 {
    let Ok(space) = disk.space(dir) else { return config.segment_bytes };
    if space.total_bytes == 0 {
        // Some file systems do not say.
        return config.segment_bytes;
    }
    let share_bytes = space.total_bytes / SEGMENT_SHARE;
    let bytes_max = (share_bytes & !(ALIGN_BYTES as u64 - 1)).max(LogConfig::SEGMENT_BYTES_MIN);
    config.segment_bytes.min(bytes_max)
}

fn reserve_bytes<D: Disk>(disk: &D, dir: &Path, bytes: u64) -> io::Result<u64> {
    let total_bytes = match disk.space(dir)?.total_bytes {
        0 => u64::MAX,
        known => known,
    };
    let bytes_min = RESERVE_BYTES_MIN.min(total_bytes / RESERVE_SHARE_MIN);
    let share_bytes = (total_bytes / RESERVE_SHARE).max(bytes_min);
    Ok(bytes.min(share_bytes) & !(ALIGN_BYTES as u64 - 1))
}

fn remove<D: Disk>(disk: &D, dir: &Path) -> io::Result<()> {
    disk.remove_if_there(&dir.join(RESERVE_FILE_NAME))
}
