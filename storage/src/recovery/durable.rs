//! What recovery has read becomes durable before anybody else reads it.
//!
//! Reading proves little: it may have come from the drive's cache or from the page cache, and after
//! a failed sync the page cache shows, as clean, what the device never got; no later sync writes it.
//! So:
//! 1. `fdatasync`. That is enough for all that the kernel still knows to be dirty, and for the drive.
//! 2. Frames that no header behind them states to have been synced may stem from before a failed
//!    sync: they are read again past the page cache, and compared.
//! 3. Where the sync fails, where they differ, or where the file system has no direct reads, the kept
//!    part is copied to a new file, which is synced, checked, and renamed over the old one. (Not
//!    rewritten in place: a power cut in the middle could damage blocks that were acknowledged.)

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    buffer::DiskBuffer,
    error::OpenError,
    frame::FrameError,
    io::{Access, Disk, DiskFile},
    mutation::{self, Mutation},
    offset::Position,
    scan::{FrameScan, SCAN_BYTES, ScanEnd},
    seal::TEMPORARY_ENDING,
    segment::SegmentHeader,
};

use super::tail::TailScan;

/// Makes what `scan` found durable, in the file at `path`. Only the end of the last segment can hold
/// frames that were never synced: a segment is begun once the one before it is. Where an index that could not be read may go
/// on to frames without events behind those that were scanned, `keeps_rest` says so: a copy has them too.
pub(super) fn make_durable<D: Disk>(
    disk: &D,
    dir: &Path,
    path: &Path,
    file: &D::File,
    header: &SegmentHeader,
    scan: &TailScan,
    keeps_rest: bool,
) -> Result<(), OpenError> {
    if mutation::is_planted(Mutation::RecoveryDoesNotSync) {
        return Ok(());
    }
    let is_synced = file.sync_data().is_ok();
    let is_last = scan.why != ScanEnd::Successor;
    let in_doubt = is_last && scan.in_doubt_from < scan.end.end_position;
    if is_synced && (!in_doubt || device_agrees(disk, path, file, scan)?) {
        return Ok(());
    }
    let mut copy_path = path.as_os_str().to_owned();
    copy_path.push(TEMPORARY_ENDING);
    let copy_path = PathBuf::from(copy_path);
    let end = match keeps_rest {
        true => Position::new(file.size().map_err(OpenError::io("reading", path))?),
        false => scan.end.end_position,
    };
    copy(disk, file, &copy_path, end).map_err(OpenError::io("writing", &copy_path))?;
    check_copy(disk, &copy_path, header, scan).map_err(OpenError::io("reading", &copy_path))?;
    disk.rename(&copy_path, path).map_err(OpenError::io("replacing", path))?;
    disk.sync_dir(dir).map_err(OpenError::io("syncing the directory", dir))
}

/// Whether the frames in doubt are on the device as the page cache shows them.
fn device_agrees<D: Disk>(
    disk: &D,
    path: &Path,
    file: &D::File,
    scan: &TailScan,
) -> Result<bool, OpenError> {
    let refused = |error: &io::Error| {
        matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
    };
    let direct = match disk.open(path, Access::Direct) {
        Ok(direct) => direct,
        Err(error) if refused(&error) => return Ok(false),
        Err(error) => return Err(OpenError::io("opening", path)(error)),
    };
    let mut position = scan.in_doubt_from;
    let (mut shown, mut stored) = (DiskBuffer::default(), DiskBuffer::default());
    while position < scan.end.end_position {
        let len = piece_len(position, scan.end.end_position);
        resize(&mut shown, len);
        resize(&mut stored, len);
        file.read_exact_at(shown.as_mut_slice(), position)
            .map_err(OpenError::io("reading", path))?;
        match direct.read_exact_at(stored.as_mut_slice(), position) {
            Ok(()) => {}
            Err(error) if refused(&error) || error.kind() == io::ErrorKind::UnexpectedEof => {
                return Ok(false);
            }
            Err(error) => return Err(OpenError::io("reading", path)(error)),
        }
        if shown != stored {
            return Ok(false);
        }
        position = position.plus(len as u64);
    }
    Ok(true)
}

/// Copies the file up to `end` to a new file, and syncs that.
fn copy<D: Disk>(disk: &D, file: &D::File, path: &Path, end: Position) -> io::Result<()> {
    let copy = disk.create(path, Access::Write)?;
    let mut position = Position::default();
    let mut piece = DiskBuffer::default();
    while position < end {
        resize(&mut piece, piece_len(position, end));
        file.read_exact_at(piece.as_mut_slice(), position)?;
        copy.write_all_at(piece.as_slice(), position)?;
        position = position.plus(piece.len() as u64);
    }
    copy.sync_data()
}

/// The copy holds the frames that the scan found: the page cache may have dropped what it alone had.
fn check_copy<D: Disk>(
    disk: &D,
    path: &Path,
    header: &SegmentHeader,
    scan: &TailScan,
) -> io::Result<()> {
    let copy = disk.open(path, Access::Read)?;
    let mut frames = FrameScan::new(&copy, header);
    while frames.end().end_position < scan.end.end_position {
        match frames.next_frame()? {
            Ok(_frame) => {}
            Err(ScanEnd::Invalid(FrameError::Lost { .. }))
                if frames.step_over_lost()?.is_some() => {}
            Err(_) => break,
        }
    }
    if frames.end() != scan.end {
        return Err(io::Error::other("frames that were read before cannot be read any more"));
    }
    Ok(())
}

/// Makes a buffer `len` bytes long, whatever they are.
fn resize(buffer: &mut DiskBuffer, len: usize) {
    if len > buffer.len() {
        buffer.extend_zeroes(len - buffer.len());
    }
    buffer.truncate(len);
}

fn piece_len(position: Position, end: Position) -> usize {
    let left = end.get() - position.get();
    usize::try_from(left).map_or(SCAN_BYTES, |left| left.min(SCAN_BYTES))
}
