//! Whether one log is the beginning of another: what has to be known before a backup takes another's place.
//!
//! A tag does not say it. A copy of a directory that went its own way has the tag as well, and so has a log whose
//! last files were lost. But each start begins a new file, of random bits that no other has ([`Incarnation`]), and
//! each frame of it has the checksum of the one before. So the last segment in which the older log has anything says
//! all: where the other has the very same file, and in it at the same place a frame with the same checksum, what
//! lies before is the same in both.
//! ```text
//! the other has        is the same if
//! the same file        its frames reach the same end with the same checksum; of one whose events are gone: no earlier end
//! a rewrite of it      both were first made in the same millisecond, and the rewrite does not end before
//! a stub of a rewrite  nobody can tell: its events are gone on purpose, and the segment before is asked
//! none, where it       nobody can tell: its events are gone on purpose
//!   begins later
//! none, or another     never
//! ```
//! What a repair has named as lost, or is damaged, is another matter: it may lie before that, and the older log may have it
//! still.

use std::{collections::BTreeSet, ops::Range, path::Path};

use crate::{
    earliest,
    error::OpenError,
    index::{IndexHeader, SectionKind, SegmentEnd},
    io::{Access, Disk, lenient::Lenient},
    listing::{self, Listed},
    offset::Offset,
    rewrite,
    scan::FrameScan,
    segment::{Incarnation, SegmentHeader, SegmentName},
    snapshot::read,
    stored_index::StoredIndex,
};

/// Whether a log is the beginning of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// It is.
    Proven,
    /// Nothing speaks against it; but nothing is left in the other of these events at the end of the older log:
    /// retention or compaction has taken them out.
    TakenOut(Range<Offset>),
    /// It is, but repairs of the other have named these offsets as lost, or they cannot be read there, and it still has
    /// events there: it may be the last that has them.
    Lost(Vec<Range<Offset>>),
    /// It is not.
    Differs {
        /// Where the two part, and how that is seen.
        what: String,
    },
}

/// Whether the log in `old` is the beginning of the one in `new`, in which something was found in the files with the names
/// in `damaged`. Nobody writes to either.
pub fn beginning_of<D: Disk>(
    disk: &D,
    old: &Path,
    new: &Path,
    damaged: &BTreeSet<String>,
) -> Result<Beginning, OpenError> {
    let (old, new) = (Side::list(disk, old)?, Side::list(disk, new)?);
    let mut taken_out: Option<Range<Offset>> = None;
    for listed in old.segments.iter().rev() {
        let Some(segment) = old.segment(listed)? else { continue };
        match new.compare(&segment, &old)? {
            Compared::Same => break,
            Compared::Gone if segment.is_stub => {}
            Compared::Gone => {
                let end = taken_out.map_or(segment.end.end_offset, |later| later.end);
                taken_out = Some(segment.name.base_offset..end);
            }
            Compared::Differs(what) => return Ok(Beginning::Differs { what }),
        }
    }
    let lost = lost_since(&old, &new, damaged)?;
    if !lost.is_empty() {
        return Ok(Beginning::Lost(lost));
    }
    Ok(taken_out.map_or(Beginning::Proven, Beginning::TakenOut))
}

/// What repairs of the newer log have named as lost, or cannot be read of its `damaged` files, has not passed its limits
/// since, and can be read in the older one.
fn lost_since<D: Disk>(
    old: &Side<'_, D>,
    new: &Side<'_, D>,
    damaged: &BTreeSet<String>,
) -> Result<Vec<Range<Offset>>, OpenError> {
    let records = earliest::records(new.disk, new.dir)?;
    let kept_from = records.iter().map(|record| record.kept_from).max().unwrap_or_default();
    let mut lost = Vec::new();
    for (at, listed) in new.segments.iter().enumerate() {
        let mut gaps = new.gaps(listed)?;
        if is_among(damaged, listed.name) {
            let next = new.segments.get(at + 1).map(|next| next.name.base_offset);
            gaps.extend(new.unreadable(listed, next));
        }
        for gap in gaps {
            let gap = gap.start.max(kept_from)..gap.end;
            for (at, listed) in old.segments.iter().enumerate() {
                let next = old.segments.get(at + 1).map(|next| next.name.base_offset);
                let meets = listed.name.base_offset < gap.end
                    && next.is_none_or(|next| next > gap.start)
                    && !gap.is_empty();
                if meets {
                    lost.extend(old.readable(listed, &gap));
                }
            }
        }
    }
    Ok(lost)
}

/// Whether a file of the segment is one of these.
fn is_among(names: &BTreeSet<String>, segment: SegmentName) -> bool {
    names.contains(&segment.log_file_name()) || names.contains(&segment.index_file_name())
}

enum Compared {
    Same,
    Gone,
    Differs(String),
}

/// A segment that stands for some offsets.
struct Segment {
    name: SegmentName,
    incarnation: Incarnation,
    is_sealed: bool,
    is_stub: bool,
    /// Behind the last frame that stands for any.
    end: SegmentEnd,
}

struct Side<'a, D: Disk> {
    disk: &'a D,
    dir: &'a Path,
    segments: Vec<Listed>,
    /// What lies before is gone on purpose.
    begin: Offset,
}

impl<'a, D: Disk> Side<'a, D> {
    fn list(disk: &'a D, dir: &'a Path) -> Result<Self, OpenError> {
        let names = disk.list(dir).map_err(OpenError::io("listing", dir))?;
        let begin = read::begin(disk, dir, &read::offsets(&names))?;
        Ok(Side { disk, dir, segments: listing::segments(&names), begin })
    }

    /// `None` if it stands for nothing, or its header cannot be read.
    fn segment(&self, listed: &Listed) -> Result<Option<Segment>, OpenError> {
        let name = listed.name;
        if listed.has_index
            && let Some(index) = listing::index_header(self.disk, self.dir, name)?
        {
            return Ok(Some(Segment {
                name,
                incarnation: index.incarnation,
                is_sealed: true,
                is_stub: index.is_stub(),
                end: SegmentEnd {
                    end_offset: index.end_offset,
                    end_position: index.end_position,
                    end_checksum: index.end_checksum,
                },
            }));
        }
        let Some((file, header)) = self.open_log(name)? else { return Ok(None) };
        let mut end = FrameScan::new(&file, &header).end();
        self.scan(name, &file, &header, |at| {
            if at.end_offset > end.end_offset {
                end = at;
            }
            true
        })?;
        let segment = Segment {
            name,
            incarnation: header.incarnation,
            is_sealed: false,
            is_stub: false,
            end,
        };
        Ok((end.end_offset > name.base_offset).then_some(segment))
    }

    /// What a repair has named as lost of it.
    fn gaps(&self, listed: &Listed) -> Result<Vec<Range<Offset>>, OpenError> {
        let has_gaps = |header: &IndexHeader| header.section(SectionKind::GAPS).bytes > 0;
        let header = match listed.has_index {
            true => listing::index_header(self.disk, self.dir, listed.name)?,
            false => None,
        };
        if !header.as_ref().is_some_and(has_gaps) {
            return Ok(Vec::new());
        }
        let index = StoredIndex::read(self.disk, &self.dir.join(listed.name.index_file_name()))?;
        Ok(index.map_or_else(Vec::new, |index| index.gaps().collect()))
    }

    /// The offsets of a segment that ends at `end`, if that is known, at which no frame can be read.
    fn unreadable(&self, listed: &Listed, end: Option<Offset>) -> Vec<Range<Offset>> {
        let end = end.unwrap_or(Offset::MAX);
        let Ok(Some((file, header))) = self.open_log(listed.name) else {
            return vec![listed.name.base_offset..end];
        };
        let (file, mut unreadable) = (Lenient::new(file), Vec::new());
        let mut frames = FrameScan::new(&file, &header);
        loop {
            let from = frames.end().end_offset;
            let passed = match frames.next_readable() {
                Ok(Ok(_)) => continue,
                Ok(Err(_)) => frames.step_over().ok().flatten(),
                Err(_) => None,
            };
            let is_end = passed.is_none();
            unreadable.push(passed.unwrap_or(from..end));
            if is_end {
                return unreadable;
            }
        }
    }

    /// Of some offsets those of frames that can be read and hold events there. What cannot be opened has none.
    fn readable(&self, listed: &Listed, wanted: &Range<Offset>) -> Vec<Range<Offset>> {
        let known = self.gaps(listed).unwrap_or_default();
        let is_known = known.iter().any(|gap| gap.start <= wanted.start && gap.end >= wanted.end);
        let Ok(Some((file, header))) = self.open_log(listed.name) else { return Vec::new() };
        let (file, mut readable) = (Lenient::new(file), Vec::<Range<Offset>>::new());
        let mut frames = FrameScan::new(&file, &header);
        // It is the same gap, most often, and need not be read for that each time.
        while !is_known && frames.end().end_offset < wanted.end {
            match frames.next_readable() {
                Ok(Ok((frame, _))) => {
                    if !frame.events().any(|event| wanted.contains(&event.offset())) {
                        continue;
                    }
                    let part =
                        frame.base_offset().max(wanted.start)..frame.end_offset().min(wanted.end);
                    match readable.last_mut() {
                        Some(last) if last.end == part.start => last.end = part.end,
                        _ => readable.push(part),
                    }
                }
                Ok(Err(_)) if matches!(frames.step_over(), Ok(Some(_))) => {}
                _ => break,
            }
        }
        readable
    }

    /// Its file and its header; `None` if that is damaged.
    fn open_log(&self, name: SegmentName) -> Result<Option<(D::File, SegmentHeader)>, OpenError> {
        let path = self.dir.join(name.log_file_name());
        let file = self.disk.open(&path, Access::Read).map_err(OpenError::io("opening", &path))?;
        let header = rewrite::read_header(&file).map_err(OpenError::io("reading", &path))?;
        Ok(header.ok().map(|header| (file, header)))
    }

    /// Shows `take` where each frame ends, until it has seen enough. What is damaged is passed over.
    fn scan(
        &self,
        name: SegmentName,
        file: &D::File,
        header: &SegmentHeader,
        mut take: impl FnMut(SegmentEnd) -> bool,
    ) -> Result<(), OpenError> {
        let mut frames = FrameScan::new(file, header);
        let mut next = || match frames.next_frame()? {
            Ok(_) => Ok(Some(frames.end())),
            Err(_) => Ok(frames.step_over()?.map(|_| frames.end())),
        };
        loop {
            let end = next().map_err(|error| {
                OpenError::io("reading", &self.dir.join(name.log_file_name()))(error)
            })?;
            if !end.is_some_and(&mut take) {
                return Ok(());
            }
        }
    }

    /// Compares a segment of an older log with what is here in its place.
    fn compare(&self, old: &Segment, old_side: &Side<'_, D>) -> Result<Compared, OpenError> {
        let base = old.name.base_offset;
        let listed = self.segments.iter().find(|listed| listed.name.base_offset == base);
        let Some(listed) = listed else {
            return Ok(match base < self.begin {
                true => Compared::Gone,
                false => Compared::Differs(format!("it has no file that begins at offset {base}")),
            });
        };
        let Some(new) = self.segment(listed)? else {
            let what = format!("its file from offset {base} on is empty, or cannot be read");
            return Ok(Compared::Differs(what));
        };
        let (old_end, new_end) = (old.end.end_offset, new.end.end_offset);
        if new_end < old_end || (old.is_sealed && new.is_sealed && new_end != old_end) {
            let what = format!("its file from offset {base} on ends at offset {new_end}");
            return Ok(Compared::Differs(what));
        }
        if old.incarnation == new.incarnation {
            return self.same_file(old, &new);
        }
        if old.name.generation == 1 && new.name.generation == 1 {
            let what = format!("its file from offset {base} on is another one");
            return Ok(Compared::Differs(what));
        }
        if old.is_stub || new.is_stub {
            return Ok(Compared::Gone);
        }
        // A rewrite takes over when its segment was first made, and nothing else of its header.
        let made = (old_side.open_log(old.name)?, self.open_log(new.name)?);
        let (Some((_, old_header)), Some((_, new_header))) = made else {
            let what = format!("of the file from offset {base} on nobody can say what it was");
            return Ok(Compared::Differs(what));
        };
        Ok(match old_header.created_at_ms == new_header.created_at_ms {
            true => Compared::Same,
            false => Compared::Differs(format!("its file from offset {base} on is another one")),
        })
    }

    /// The same for one of the same incarnation.
    fn same_file(&self, old: &Segment, new: &Segment) -> Result<Compared, OpenError> {
        let is_same = if new.is_stub {
            // A file is written to from one start to the next alone, so that its end says it.
            true
        } else if new.is_sealed && (old.is_sealed || old.end.end_position == new.end.end_position) {
            old.end == new.end
        } else {
            let mut is_met = false;
            if let Some((file, header)) = self.open_log(new.name)? {
                self.scan(new.name, &file, &header, |at| {
                    is_met |= at == old.end;
                    at.end_position < old.end.end_position
                })?;
            }
            is_met
        };
        let (base, end) = (old.name.base_offset, old.end.end_offset);
        Ok(match is_same {
            true => Compared::Same,
            false => Compared::Differs(format!(
                "its file from offset {base} on has other events before offset {end}"
            )),
        })
    }
}

#[cfg(test)]
mod tests;
