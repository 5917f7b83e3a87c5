//! Where a log can be cut at the earliest.
//!
//! Of a log whose beginning is gone stubs may be left, and a snapshot says what came before those. Up to the first
//! event that is there a cut would leave nothing, though the log had events: whoever asks for one is told instead.

use std::{io, ops::Range, path::Path};

use super::{Until, before_cut};
use crate::{
    error::OpenError,
    frame::FrameError,
    io::{Access, Disk},
    listing::{self, Listed},
    offset::Offset,
    rewrite,
    scan::{FrameScan, ScanEnd},
    snapshot::read,
};

/// The beginning of a log that has lost its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstCut {
    /// Nothing that was before this is kept.
    pub begin: Offset,
    /// The first offset at which the log can be cut and has events, or if it has none, where it ends.
    pub cut: Offset,
}

/// Where the log in `from`, whose lock the caller has, can be cut at the earliest; `None` if nothing at its beginning is
/// gone, so that it can be cut anywhere.
pub fn first_cut<D: Disk>(disk: &D, from: &Path) -> Result<Option<FirstCut>, OpenError> {
    let names = disk.list(from).map_err(OpenError::io("listing", from))?;
    let snapshots = read::offsets(&names);
    let mut cut = Offset::ZERO;
    let begins = read::begin(disk, from, &snapshots)?;
    // What is known before a cut depends on the cut: a later one may be taken by another snapshot.
    loop {
        let before = before_cut(disk, from, &snapshots, Until::Offset(cut))?;
        let begin = read::begin(disk, from, &before)?;
        let segments = listing::readable_from(disk, from, &names, begin)?;
        let is_known = snapshots.is_empty() || lead_on(disk, from, &segments, begin..begins)?;
        if !is_known {
            match snapshots.iter().rev().find(|offset| **offset > cut) {
                Some(next) => cut = *next,
                None => return Ok(None), // A restore says what is wrong.
            }
            continue;
        }
        let (begin, event) = first_kept(disk, from, &segments)?;
        let Some(begin) = begin.filter(|begin| *begin > Offset::ZERO) else { return Ok(None) };
        let Some(event) = event else { return Ok(Some(FirstCut { begin, cut: begin })) };
        if event < cut {
            return Ok(Some(FirstCut { begin, cut }));
        }
        cut = event.plus(1);
    }
}

/// Whether what segments say from where a cut is known on leads to where the log begins now, without a hole: the stubs in
/// between may be gone, and where their removal was cut short some are left.
pub(super) fn lead_on<D: Disk>(
    disk: &D,
    from: &Path,
    segments: &[Listed],
    range: Range<Offset>,
) -> Result<bool, OpenError> {
    let mut end = range.start;
    for listed in segments {
        if listed.name.base_offset > end {
            return Ok(false);
        }
        if end >= range.end {
            break;
        }
        let index = match listed.has_index {
            true => listing::index_header(disk, from, listed.name)?,
            false => None,
        };
        let Some(index) = index else { return Ok(false) };
        end = index.end_offset;
    }
    Ok(true)
}

/// Where the first of the segments begins that is more than a stub, and the first event from there on.
fn first_kept<D: Disk>(
    disk: &D,
    from: &Path,
    segments: &[Listed],
) -> Result<(Option<Offset>, Option<Offset>), OpenError> {
    let mut begin = None;
    for listed in segments {
        if listed.has_index && listing::is_stub(disk, from, listed.name)? {
            continue;
        }
        begin = begin.or(Some(listed.name.base_offset));
        let event = first_event(disk, from, *listed)?;
        if event.is_some() {
            return Ok((begin, event));
        }
    }
    Ok((begin, None))
}

/// The first event that a segment has, or where a gap begins before it. What is damaged ends it: a restore names that.
fn first_event<D: Disk>(
    disk: &D,
    from: &Path,
    segment: Listed,
) -> Result<Option<Offset>, OpenError> {
    let path = from.join(segment.name.log_file_name());
    let reading = |error: io::Error| OpenError::io("reading", &path)(error);
    let file = disk.open(&path, Access::Read).map_err(OpenError::io("opening", &path))?;
    let Ok(header) = rewrite::read_header(&file).map_err(reading)? else { return Ok(None) };
    let mut frames = FrameScan::new(&file, &header);
    loop {
        let at = frames.end().end_offset;
        match frames.next_frame().map_err(reading)? {
            Ok((frame, _)) if frame.is_empty() => {}
            Ok((frame, _)) => return Ok(Some(frame.event(0).offset())),
            Err(ScanEnd::Invalid(FrameError::Lost { .. })) => return Ok(Some(at)),
            Err(_) => return Ok(None),
        }
    }
}
