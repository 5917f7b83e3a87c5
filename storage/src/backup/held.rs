//! Which log a directory holds and how far that goes: what has to be known before a backup takes its place.

use std::{collections::BTreeSet, path::Path};

use super::attempts::{Attempts, is_gone};
use crate::{
    config::SyncMode,
    error::OpenError,
    frame::FrameError,
    io::{Access, Disk, DiskFile},
    listing::{self, Listed},
    offset::Offset,
    rewrite,
    scan::{FrameScan, ScanEnd},
    segment::{SegmentBegun, Tag},
    snapshot::read,
};

/// What the last segment of a log says about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LastSegment {
    /// The log's tag; `None` if it has no segment, or none whose header can be read.
    pub tag: Option<Tag>,
    /// How appends to it count as done; `None` once it is sealed.
    pub sync: Option<SyncMode>,
}

/// Reads what the last segment of the log in `dir` says. Nothing is locked: a server may be writing there, and what was
/// listed be gone.
pub fn last_segment<D: Disk>(disk: &D, dir: &Path) -> Result<LastSegment, OpenError> {
    let mut attempts = Attempts::default();
    loop {
        let names = disk.list(dir).map_err(OpenError::io("listing", dir))?;
        match last_of(disk, dir, &names) {
            Err(error) if is_gone(&error) && attempts.may_pass(&error) => {}
            said => return said,
        }
    }
}

fn last_of<D: Disk>(disk: &D, dir: &Path, names: &[String]) -> Result<LastSegment, OpenError> {
    let Some(last) = listing::segments(names).pop() else { return Ok(LastSegment::default()) };
    if last.has_index
        && let Some(index) = listing::index_header(disk, dir, last.name)?
    {
        return Ok(LastSegment { tag: Some(index.tag), sync: None });
    }
    let path = dir.join(last.name.log_file_name());
    let file = disk.open(&path, Access::Read).map_err(OpenError::io("opening", &path))?;
    // What is given back meanwhile has no header any more, and is not damaged.
    file.hold().map_err(OpenError::io("opening", &path))?;
    let header = rewrite::read_header(&file).map_err(OpenError::io("reading", &path))?;
    Ok(header.map_or_else(
        |_| LastSegment::default(),
        |header| LastSegment { tag: Some(header.tag), sync: Some(header.sync) },
    ))
}

/// Which segments a log has at a moment, and which of them take appends, or did not long ago: so that a server can be
/// asked which one it writes, in between two looks, though it begins and seals any number of them meanwhile.
#[derive(Debug)]
pub struct SegmentsSeen {
    bases: BTreeSet<Offset>,
    begun: Vec<SegmentBegun>,
}

impl SegmentsSeen {
    /// Takes down where and when the segments were begun that have no index, as far as they can be read: the one that
    /// takes appends is among them, and in a copy that was started since it has one.
    pub fn now<D: Disk>(disk: &D, dir: &Path) -> Result<SegmentsSeen, OpenError> {
        SegmentsSeen::take(disk, dir, |listed| !listed.has_index)
    }

    /// The same a while later, and with it of those that were not there before: what took appends in between is among
    /// one or the other, if it was not removed already.
    pub fn since<D: Disk>(&self, disk: &D, dir: &Path) -> Result<SegmentsSeen, OpenError> {
        SegmentsSeen::take(disk, dir, |listed| {
            !listed.has_index || !self.bases.contains(&listed.name.base_offset)
        })
    }

    fn take<D: Disk>(
        disk: &D,
        dir: &Path,
        is_wanted: impl Fn(&Listed) -> bool,
    ) -> Result<SegmentsSeen, OpenError> {
        let names = disk.list(dir).map_err(OpenError::io("listing", dir))?;
        let listed = listing::segments(&names);
        let begun = listed.iter().filter(|listed| is_wanted(listed)).filter_map(|listed| {
            let file = disk.open(&dir.join(listed.name.log_file_name()), Access::Read).ok()?;
            Some(rewrite::read_header(&file).ok()?.ok()?.begun())
        });
        let begun = begun.collect();
        Ok(SegmentsSeen {
            bases: listed.iter().map(|listed| listed.name.base_offset).collect(),
            begun,
        })
    }

    /// Where and when they were begun.
    pub fn begun(&self) -> &[SegmentBegun] {
        &self.begun
    }
}

/// Where the log in `dir` ends, as far as it can be read; nobody writes to it meanwhile.
pub fn end_of<D: Disk>(disk: &D, dir: &Path) -> Result<Offset, OpenError> {
    let names = disk.list(dir).map_err(OpenError::io("listing", dir))?;
    let snapshot = read::offsets(&names).first().copied().unwrap_or_default();
    let Some(last) = listing::segments(&names).pop() else { return Ok(snapshot) };
    if last.has_index
        && let Some(index) = listing::index_header(disk, dir, last.name)?
    {
        return Ok(snapshot.max(index.end_offset));
    }
    let end = snapshot.max(last.name.base_offset);
    let path = dir.join(last.name.log_file_name());
    let reading = OpenError::io("reading", &path);
    let file = disk.open(&path, Access::Read).map_err(OpenError::io("opening", &path))?;
    let header = match rewrite::read_header(&file).map_err(OpenError::io("reading", &path))? {
        Ok(header) => header,
        Err(_) => return Ok(end),
    };
    let mut frames = FrameScan::new(&file, &header);
    let mut next = || match frames.next_frame()? {
        Ok(_) => Ok(true),
        Err(ScanEnd::Invalid(FrameError::Lost { .. })) => Ok(frames.step_over_lost()?.is_some()),
        Err(_) => Ok(false),
    };
    loop {
        match next() {
            Ok(true) => {}
            Ok(false) => return Ok(end.max(frames.end().end_offset)),
            Err(error) => return Err(reading(error)),
        }
    }
}
