//! Space for the day when there is none: a file beside the log, given back to a start or to what frees
//! space when that finds none. A file that is there stays over a restart: a start on a full disk costs nothing.
//!
//! It is as large as what may have to be written then: a segment anew, its index, or its stub. So it grows with the
//! log's longest segment, ahead of what is prepared for data: when the disk is full it is as large as it has to be.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    active_file::{allocate, is_refusal, write_zeroes},
    buffer::ALIGN_BYTES,
    config::LogConfig,
    error::OpenError,
    io::{Access, Disk, DiskFile, Space, is_full},
    offset::Position,
};

/// Its name.
pub(crate) const RESERVE_FILE_NAME: &str = "reserve.tmp";

/// An empty log has one that is no larger than one of so many parts of the disk,
const RESERVE_SHARE: u64 = 50;
/// but on a small one so large: a new segment is begun with half of it.
const RESERVE_BYTES_MIN: u64 = 2 << 20;
/// And never more than one of so many parts.
const RESERVE_SHARE_MIN: u64 = 4;

/// An index is longer than the frames that it is of by so large a part of them at most. A topic's entry has the name,
/// which the frame has as well, and 34 bytes at most for the 48 that the frame has beside it; but its block of 4096 bytes may be
/// filled to seven eighths alone, and FENCE can have a name once more for each block: 655 bytes for 526, with names of 478.
/// An id or a producer costs an eighth more there than in the frame at most. A stub has each name once and [`STUB_TOPIC_BYTES`],
/// and so is shorter than the frames as they were written.
const INDEX_SHARE_MORE: u64 = 4;

/// So much a stub has of a topic at most, beside its name.
pub(crate) const STUB_TOPIC_BYTES: u64 = 19;

/// The files `earliest`, of two blocks, and `end.mark`, of four, are made anew beside what is there of them.
const MARKS_BYTES: u64 = 6 * ALIGN_BYTES as u64;

/// A segment is no longer than one of so many parts of the disk: a rewrite needs space of its own.
const SEGMENT_SHARE: u64 = 16;

/// What the size of a reserve follows from, beside what the log holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReserveRule {
    /// See [`LogConfig::reserve_bytes`]; 0: none.
    pub(crate) bytes: u64,
    /// How large the disk is; 0 where that is not known.
    pub(crate) disk_bytes: u64,
    /// How long segments may become.
    pub(crate) segment_bytes: u64,
}

/// The most that anything takes that frees space: a rewrite of the longest segment, its index, its stub.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// The longest file of frames, the active one as far as it is prepared.
    pub(crate) log_bytes: u64,
    /// The longest index there is, and what its stub may have beside that.
    pub(crate) index_bytes: u64,
    /// What the indexes of the segments will have that have none yet: on a full disk they take it of the reserve, and
    /// there has to be enough left then.
    pub(crate) unsealed_index_bytes: u64,
}

impl ReserveRule {
    /// For a log with this configuration, in which segments are as long as this disk allows.
    pub(crate) fn of<D: Disk>(disk: &D, dir: &Path, config: &LogConfig) -> ReserveRule {
        ReserveRule {
            bytes: config.reserve_bytes,
            disk_bytes: disk.space(dir).map_or(0, |space| space.total_bytes),
            segment_bytes: config.segment_bytes,
        }
    }

    /// How large the reserve of a log is that needs no more.
    fn bytes_min(&self) -> u64 {
        let disk_bytes = if self.disk_bytes == 0 { u64::MAX } else { self.disk_bytes };
        let bytes_min = RESERVE_BYTES_MIN.min(disk_bytes / RESERVE_SHARE_MIN);
        let share_bytes = (disk_bytes / RESERVE_SHARE).max(bytes_min);
        self.bytes.min(share_bytes) & !(ALIGN_BYTES as u64 - 1)
    }

    /// No index of frames that take up so much is longer.
    pub(crate) fn index_bytes_max(log_bytes: u64) -> u64 {
        log_bytes.saturating_add(log_bytes / INDEX_SHARE_MORE)
    }

    /// How large it has to be for one that needs so much: never more than for a whole segment, and for the indexes that
    /// are to come.
    pub(crate) fn wanted_bytes(&self, needs: Needs) -> u64 {
        if self.bytes == 0 {
            return 0;
        }
        let needed_bytes = Self::index_bytes_max(needs.log_bytes).max(needs.index_bytes);
        let freeing_bytes = needed_bytes.min(Self::index_bytes_max(self.segment_bytes));
        // By an eighth at a time, or it would grow with each frame.
        let step_bytes = needs.unsealed_index_bytes.next_power_of_two() / 8;
        let unsealed_bytes = needs.unsealed_index_bytes.next_multiple_of(step_bytes.max(1));
        let blocks = |bytes: u64| bytes.next_multiple_of(ALIGN_BYTES as u64);
        let wanted_bytes = blocks(freeing_bytes) + blocks(unsealed_bytes) + MARKS_BYTES;
        blocks(wanted_bytes.max(self.bytes_min()))
    }
}

/// See [`crate::op::Job::Reserve`].
pub struct ReserveJob {
    pub(crate) path: PathBuf,
    /// So much of it is there, whole.
    pub(crate) from_bytes: u64,
    /// So much is to be; 0: it is given back.
    pub(crate) to_bytes: u64,
    /// It grows only where the disk has so much left.
    pub(crate) free_bytes_min: u64,
}

impl ReserveJob {
    /// Makes the file, or lengthens or shortens it, or removes it. Where it fails what was there still is.
    pub(crate) fn run<D: Disk>(&self, disk: &D) -> io::Result<()> {
        let dir = self.path.parent().expect("it lies in the log's directory");
        if self.to_bytes == 0 {
            return remove(disk, dir);
        }
        let known = match self.from_bytes {
            0 => None,
            _ => match disk.open(&self.path, Access::Write) {
                Ok(file) => Some(file),
                // Somebody took it: it is made anew.
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            },
        };
        let from_bytes = if known.is_some() { self.from_bytes } else { 0 };
        if self.to_bytes <= from_bytes {
            return known.map_or(Ok(()), |file| file.set_size(self.to_bytes));
        }
        if known.is_none() {
            remove(disk, dir)?;
        }
        // Some file systems do not say, and one that fails to is met again by what asks for blocks.
        let known_bytes = disk.space(dir).ok().filter(|space| space.total_bytes > 0);
        let wanted_bytes = self.free_bytes_min.max(self.to_bytes - from_bytes);
        if known_bytes.is_some_and(|Space { free_bytes, .. }| free_bytes < wanted_bytes) {
            // Trying would take from others what there is, for a moment.
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = match known {
            Some(file) => file,
            None => disk.create(&self.path, Access::Write)?,
        };
        // Else a power cut may leave its length, and none of its blocks.
        let filled = self.fill(disk, &file, from_bytes).and_then(|()| match file.sync_data() {
            // There were blocks for it. Data does not wait for one that cannot be synced.
            Err(error) if from_bytes > 0 => Err(io::Error::other(format!("sync: {error}"))),
            synced => synced,
        });
        if filled.is_err() {
            // A part of it would be in the way of what is to use the rest.
            let _ = match from_bytes {
                0 => disk.remove(&self.path),
                _ => file.set_size(from_bytes),
            };
        }
        filled
    }

    /// With blocks, or with zeroes where the file system gives no blocks for the asking, or only says so.
    fn fill<D: Disk>(&self, disk: &D, file: &D::File, from_bytes: u64) -> io::Result<()> {
        let (from, to) = (Position::new(from_bytes), Position::new(self.to_bytes));
        if allocate(file, from, to)? && file.allocated_bytes()? >= self.to_bytes {
            return Ok(());
        }
        let written = match disk.open(&self.path, Access::Direct) {
            Ok(direct) => match write_zeroes(&direct, from, to, |_| true) {
                Err(error) if is_refusal(&error) => write_zeroes(file, from, to, |_| true),
                written => written,
            },
            Err(_) => write_zeroes(file, from, to, |_| true),
        };
        written.map(|_| ())
    }
}

/// How much of it is there, if that is whole. One that is no use is removed, and
/// so is one that has holes, as some copies make: it would give nothing back. (On a file system that compresses it is
/// made anew at every start.)
pub(crate) fn find<D: Disk>(disk: &D, dir: &Path, rule: &ReserveRule) -> Result<u64, OpenError> {
    let path = dir.join(RESERVE_FILE_NAME);
    let look = || {
        let (size, allocated_bytes) = match disk.open(&path, Access::Read) {
            Ok(file) => (file.size()?, file.allocated_bytes()?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        let is_whole = allocated_bytes >= size && size.is_multiple_of(ALIGN_BYTES as u64);
        if rule.bytes > 0 && size > 0 && is_whole {
            return Ok(size);
        }
        remove(disk, dir)?;
        Ok(0)
    };
    look().map_err(OpenError::io("looking for", &path))
}

/// Gives it back, so that others can have its space at once.
pub(crate) fn give_back<D: Disk>(disk: &D, dir: &Path) -> Result<(), OpenError> {
    remove(disk, dir).map_err(OpenError::io("removing", &dir.join(RESERVE_FILE_NAME)))?;
    disk.sync_dir(dir).map_err(OpenError::io("syncing the directory", dir))
}

/// Takes what is left of a disk on which a start has given it back, up to so many bytes, before others do. How much that is.
pub(crate) fn take_rest<D: Disk>(disk: &D, dir: &Path, bytes_max: u64) -> u64 {
    // A file may take more than its blocks.
    for eighths in (4..=8).rev() {
        let free_bytes = disk.space(dir).map_or(bytes_max, |space| space.free_bytes);
        let to_bytes = bytes_max.min(free_bytes / 8 * eighths) & !(ALIGN_BYTES as u64 - 1);
        let path = dir.join(RESERVE_FILE_NAME);
        let job = ReserveJob { path, from_bytes: 0, to_bytes, free_bytes_min: 0 };
        match job.run(disk) {
            Ok(()) => return to_bytes,
            Err(error) if is_full(&error) => {}
            Err(_) => break,
        }
    }
    0
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

fn remove<D: Disk>(disk: &D, dir: &Path) -> io::Result<()> {
    disk.remove_if_there(&dir.join(RESERVE_FILE_NAME))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    #[test]
    fn it_is_as_large_as_what_the_log_may_need_and_never_more_than_for_a_segment() {
        // The disk, a segment; the longest log file, the longest index; the reserve, without indexes that are to come.
        let cases = [
            // A log without much in it.
            (0, 256 * MIB, 0, 0, 16 * MIB),
            (1024 * GIB, 256 * MIB, 0, 0, 16 * MIB),
            (1024 * GIB, 256 * MIB, 12 * MIB, 100, 16 * MIB),
            (500 * MIB, 31 * MIB, MIB, 0, 10 * MIB),
            (64 * MIB, 4 * MIB, MIB, 0, 2 * MIB),
            (4 * MIB, MIB, 0, 0, MIB),
            // It follows the longest file, or the longest index.
            (1024 * GIB, 256 * MIB, 64 * MIB, 0, 80 * MIB + 24 * KIB),
            (0, 256 * MIB, 64 * MIB, 0, 80 * MIB + 24 * KIB),
            (1024 * GIB, 256 * MIB, 64 * MIB + 4 * KIB, 0, 80 * MIB + 8 * KIB + 24 * KIB),
            (1024 * GIB, 256 * MIB, 16 * MIB, 37 * MIB, 37 * MIB + 24 * KIB),
            (1024 * GIB, 256 * MIB, 16 * MIB, 37 * MIB + 1, 37 * MIB + 4 * KIB + 24 * KIB),
            (1024 * GIB, 256 * MIB, 256 * MIB, 50 * MIB, 320 * MIB + 24 * KIB),
            // One frame may be longer than a segment of a small disk.
            (64 * MIB, 4 * MIB, 16 * MIB, 20 * MIB, 5 * MIB + 24 * KIB),
            (1024 * GIB, 256 * MIB, 264 * MIB, 500 * MIB, 320 * MIB + 24 * KIB),
            (1024 * GIB, 256 * MIB, u64::MAX, u64::MAX, 320 * MIB + 24 * KIB),
        ];
        for (disk_bytes, segment_bytes, log_bytes, index_bytes, wanted_bytes) in cases {
            let rule = ReserveRule { bytes: 16 * MIB, disk_bytes, segment_bytes };
            let needs = Needs { log_bytes, index_bytes, unsealed_index_bytes: 0 };
            assert_eq!(rule.wanted_bytes(needs), wanted_bytes, "{rule:?} {needs:?}");
            let unsealed_index_bytes = 40 * MIB;
            let more = rule.wanted_bytes(Needs { unsealed_index_bytes, ..needs });
            assert!(more >= 40 * MIB && more <= wanted_bytes + 40 * MIB);
            assert!(wanted_bytes <= 16 * MIB || more == wanted_bytes + 40 * MIB);
            let a_little_less = Needs { unsealed_index_bytes: 39 * MIB, ..needs };
            assert_eq!(rule.wanted_bytes(a_little_less), more, "in steps");
            let none = ReserveRule { bytes: 0, ..rule };
            assert_eq!(none.wanted_bytes(needs), 0);
        }
    }
}
