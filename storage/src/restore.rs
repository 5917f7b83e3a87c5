//! A log of its own, made of a backup, that ends where the backup does or where a person says.
//!
//! Sealed segments that end before the cut are copied. The one in which the cut lies, and what is not sealed,
//! are written anew (`rewrite.rs`); a stub there says what was before the cut (`index/stub.rs`), and where that is a time the
//! log ends behind the last event of which the stub shows that it was older. Before the first segment that is more than a
//! stub it is cut by a time alone. Behind them comes an empty segment with a *new* tag: cursors of the
//! log that was backed up are another log's here, since that may have gone on. Snapshots behind the cut are left
//! out: what is before it adds up to the same without them. Before the offset from which on the log had kept
//! anything it cannot be cut (`first_cut.rs`).

mod first_cut;

use std::{io, path::Path};

use crate::{
    backup::copy_file,
    clock::Now,
    config::SyncMode,
    earliest,
    end_mark::{self, END_MARK_FILE_NAME, EndMark},
    error::{Corruption, OpenError},
    frame::FrameError,
    frame::Seed,
    index::{Carried, IndexHeader, cut::Cut, stub::cut_stub},
    io::{Access, Disk, DiskFile},
    listing::{self, Listed},
    offset::{Offset, Position},
    repair::{mend::begin_successor, salvage},
    rewrite::{self, SegmentWriter},
    scan::{self, FrameScan, ScanEnd},
    segment::{Incarnation, SEGMENT_VERSION, SegmentHeader, SegmentName, Tag},
    snapshot::{self, read},
};

use self::first_cut::lead_on;
pub use self::first_cut::{FirstCut, first_cut};

/// Where a restored log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Where the backup does.
    End,
    /// Before this offset.
    Offset(Offset),
    /// Before the first event appended at this time or later, in milliseconds since 1970.
    TimeMs(u64),
}

/// What was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Where the log ends.
    pub end: Offset,
    /// Its tag.
    pub tag: Tag,
    /// How many segments hold its events.
    pub segments: u64,
}

/// Restores the log in `from`, whose lock the caller has, into the directory `to`, which is there and empty.
pub fn restore_log<D: Disk>(
    disk: &D,
    from: &Path,
    to: &Path,
    until: Until,
    now: Now,
) -> Result<Restored, OpenError> {
    let names = disk.list(from).map_err(OpenError::io("listing", from))?;
    let snapshots = read::offsets(&names);
    let before = before_cut(disk, from, &snapshots, until)?;
    let begin = read::begin(disk, from, &before)?;
    let mut segments = listing::readable_from(disk, from, &names, begin)?;
    let mark = end_mark::read_sound(disk, from)?;
    let steps = end_mark::read_steps(disk, from)?.unwrap_or_default();
    let last_base = segments.last().map(|listed| listed.name.base_offset);
    let missing = end_mark::missing(mark, last_base).map(|(name, _)| name);
    segments.extend(missing.map(|name| Listed { name, has_index: false }));
    let begins = read::begin(disk, from, &snapshots)?;
    if !snapshots.is_empty() && !lead_on(disk, from, &segments, begin..begins)? {
        let what =
            "no snapshot before the cut says what the log was where it begins now: cut later";
        let error = io::Error::new(io::ErrorKind::InvalidInput, what);
        return Err(OpenError::io("restoring", from)(error));
    }
    let mut restore =
        Restore { disk, from, to, until, end: begin, is_cut: false, missing, segments: 0 };
    for name in listing::stubs_before(disk, from, &names, begin)? {
        // Should the newest snapshot be damaged one day, the one before it needs them.
        restore.copy(&name.index_file_name(), None)?;
    }
    for (index, listed) in segments.iter().enumerate() {
        let successor = segments.get(index + 1).map(|next| next.name.base_offset);
        if !restore.segment(listed, successor)? {
            break;
        }
    }
    if let Some(newest) = before.first().filter(|newest| **newest > restore.end) {
        return Err(read::ends_before(from, *newest, restore.end));
    }
    if let Some(mark) = mark.filter(|mark| !restore.is_cut && mark.synced > restore.end) {
        let file = from.join(END_MARK_FILE_NAME);
        return Err(OpenError::Corrupt(read::lost_behind(&file, mark.synced, restore.end)));
    }
    for offset in before.iter().filter(|offset| **offset <= restore.end) {
        restore.copy(&snapshot::file_name(*offset), None)?;
    }
    earliest::copy(disk, &earliest::records(disk, from)?, to, restore.end)?;
    disk.sync_dir(to).map_err(OpenError::io("syncing the directory", to))?;
    let tag = Tag::random();
    let header = SegmentHeader {
        version: SEGMENT_VERSION,
        base_offset: restore.end,
        created_at_ms: now.wall_ms,
        incarnation: Incarnation::random(),
        tag,
        sync: SyncMode::Commit,
    };
    begin_successor(disk, to, header)?;
    let mark = EndMark { active: restore.end, synced: restore.end };
    end_mark::write_anew(disk, to, &mark, &steps)?;
    Ok(Restored { end: restore.end, tag, segments: restore.segments })
}

/// Those of the snapshots that do not lie behind the cut, the newest first.
fn before_cut<D: Disk>(
    disk: &D,
    from: &Path,
    snapshots: &[Offset],
    until: Until,
) -> Result<Vec<Offset>, OpenError> {
    let mut before = Vec::new();
    for offset in snapshots.iter().copied() {
        let is_before = match until {
            Until::End => true,
            Until::Offset(cut) => offset <= cut,
            Until::TimeMs(cut) => read::passed_over(read::read_header(disk, from, offset))?
                .is_some_and(|header| header.last_time_ms < cut),
        };
        if is_before {
            before.push(offset);
        }
    }
    Ok(before)
}

struct Restore<'a, D: Disk> {
    disk: &'a D,
    from: &'a Path,
    to: &'a Path,
    until: Until,
    end: Offset,
    /// It ends before the backup does, as a person said.
    is_cut: bool,
    /// The last segment, if the end mark alone knows of it.
    missing: Option<SegmentName>,
    segments: u64,
}

impl<D: Disk> Restore<'_, D> {
    /// Takes over what is wanted of a segment; `false` if that ends in it, or before it.
    fn segment(&mut self, listed: &Listed, successor: Option<Offset>) -> Result<bool, OpenError> {
        let name = listed.name;
        if name.base_offset != self.end {
            let what = format!("the backup holds no events from {} to here", self.end);
            return Err(self.corrupt(name, Position::default(), what));
        }
        if matches!(self.until, Until::Offset(cut) if name.base_offset >= cut) {
            self.is_cut = true;
            return Ok(false);
        }
        if self.missing == Some(name) {
            let what = "is missing: the log went on in it";
            return Err(self.corrupt(name, Position::default(), what.to_owned()));
        }
        let index = match listed.has_index {
            true => listing::index_header(self.disk, self.from, name)?,
            false => None,
        };
        let Some(index) = index else { return self.rewrite(name, successor) };
        if index.is_stub() {
            // Before all that is kept no offset is one to cut at: the log that is made begins behind it, and whoever
            // asked for that refuses it.
            let is_refused = self.segments == 0 && matches!(self.until, Until::Offset(_));
            if !self.is_whole(&index) && !is_refused {
                self.is_cut = true;
                self.cut_stub(name)?;
                return Ok(false);
            }
            self.copy(&name.index_file_name(), None)?;
            self.end = index.end_offset;
            return Ok(true);
        }
        if !self.is_whole(&index) {
            return self.rewrite(name, Some(index.end_offset));
        }
        self.copy(&name.log_file_name(), Some(index.end_position))?;
        self.copy(&name.index_file_name(), None)?;
        self.end = index.end_offset;
        self.segments += 1;
        Ok(true)
    }

    /// Whether all of a segment lies before the cut.
    fn is_whole(&self, index: &IndexHeader) -> bool {
        match self.until {
            Until::End => true,
            Until::Offset(cut) => index.end_offset <= cut,
            Until::TimeMs(cut) => index.last_time_ms < cut,
        }
    }

    /// Where it is cut.
    fn cut(&self) -> Cut {
        match self.until {
            Until::End => Cut::Offset(Offset::MAX),
            Until::Offset(cut) => Cut::Offset(cut),
            Until::TimeMs(cut_ms) => Cut::TimeMs(cut_ms),
        }
    }

    /// Takes over what a stub says of the events before the cut that lies in it.
    fn cut_stub(&mut self, name: SegmentName) -> Result<(), OpenError> {
        let file_name = name.index_file_name();
        let (from, to) = (self.from.join(&file_name), self.to.join(&file_name));
        let read = || {
            let file = self.disk.open(&from, Access::Read)?;
            let mut bytes = vec![0; usize::try_from(file.size()?).map_err(io::Error::other)?];
            file.read_exact_at(&mut bytes, Position::default())?;
            Ok(bytes)
        };
        let stub = cut_stub(&read().map_err(OpenError::io("reading", &from))?, self.cut());
        let stub = stub.map_err(|error| {
            let (file, position, what) = (from, Position::default(), error.to_string());
            OpenError::Corrupt(Corruption { file, position, what })
        })?;
        let Some((header, bytes)) = stub else { return Ok(()) };
        let copy = self.disk.create(&to, Access::Write).map_err(OpenError::io("creating", &to))?;
        let written = copy.write_all_at(&bytes, Position::default());
        written.and_then(|()| copy.sync_data()).map_err(OpenError::io("writing", &to))?;
        self.end = header.end_offset;
        Ok(())
    }

    fn copy(&self, file_name: &str, end: Option<Position>) -> Result<(), OpenError> {
        let (from, to) = (self.from.join(file_name), self.to.join(file_name));
        let file = self.disk.open(&from, Access::Read).map_err(OpenError::io("opening", &from))?;
        let size = file.size().map_err(OpenError::io("reading", &from))?;
        let end = Position::new(end.map_or(size, |end| end.get().min(size)));
        let copy = self.disk.create(&to, Access::Write).map_err(OpenError::io("creating", &to))?;
        copy_file((&file, &from), (&copy, &to), end)
    }

    fn corrupt(&self, name: SegmentName, position: Position, what: String) -> OpenError {
        let file = self.from.join(name.log_file_name());
        OpenError::Corrupt(Corruption { file, position, what })
    }

    /// What the events that compaction took had added to the state of the log, as far as they lie before the cut.
    fn carried(
        &self,
        name: SegmentName,
        header: &SegmentHeader,
        writer: &SegmentWriter<D>,
    ) -> Result<Option<Carried>, OpenError> {
        let index = match salvage::read_index(self.disk, self.from, name) {
            Err(OpenError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
            read => read?,
        };
        let Some((index, carried)) = index.filter(|(index, _)| index.belongs_to(header)) else {
            if writer.index().says_all(writer.end()) {
                return Ok(None);
            }
            let what = "the index of this rewritten segment is damaged or missing: of events that are gone from it, it \
                        alone knows what they had added to the state of the log";
            return Err(self.corrupt(name, Position::default(), what.to_owned()));
        };
        let carried = writer.carried(&index, &carried, self.cut());
        let carried =
            carried.map_err(|error| self.corrupt(name, Position::default(), error.to_string()))?;
        Ok(Some(carried))
    }

    /// Writes anew what lies before the cut, and before `end` if the segment is not the last.
    fn rewrite(&mut self, name: SegmentName, end: Option<Offset>) -> Result<bool, OpenError> {
        let path = self.from.join(name.log_file_name());
        let file = self.disk.open(&path, Access::Read).map_err(OpenError::io("opening", &path))?;
        let reading = |error: io::Error| OpenError::io("reading", &path)(error);
        let header = rewrite::read_header(&file)
            .map_err(reading)?
            .map_err(|what| self.corrupt(name, Position::default(), what))?;
        if header.base_offset != name.base_offset {
            let what = format!("its header says that it begins at {}", header.base_offset);
            return Err(self.corrupt(name, Position::default(), what));
        }
        let new = SegmentHeader { incarnation: Incarnation::random(), ..header.clone() };
        let mut writer = SegmentWriter::create(self.disk, self.to, name, &new)?;
        let mut frames = FrameScan::new(&file, &header);
        let is_over = loop {
            let at = frames.end();
            if matches!(self.until, Until::Offset(cut) if at.end_offset >= cut) {
                self.is_cut = true;
                break true;
            }
            if end.is_some_and(|end| at.end_offset >= end) {
                break false;
            }
            match frames.next_frame().map_err(reading)? {
                Ok((frame, position)) => {
                    let cut = match self.until {
                        Until::End => Offset::MAX,
                        Until::Offset(cut) => cut,
                        Until::TimeMs(time_ms) => {
                            let index = frame.index_at_time(time_ms);
                            match index < frame.len() {
                                true => frame.event(index).offset(),
                                false => Offset::MAX,
                            }
                        }
                    };
                    if cut > frame.base_offset() || frame.is_empty() {
                        writer
                            .add(&frame, cut)?
                            .map_err(|error| self.corrupt(name, position, error.to_string()))?;
                    }
                    if cut < frame.end_offset() {
                        self.is_cut = true;
                        break true;
                    }
                }
                Err(ScanEnd::Invalid(FrameError::Lost { why })) => {
                    let lost = frames.step_over_lost().map_err(reading)?;
                    let Some((lost, ..)) = lost else {
                        return Err(self.corrupt(name, at.end_position, why));
                    };
                    let to = match self.until {
                        Until::Offset(cut) => lost.end.min(cut),
                        _ => lost.end,
                    };
                    writer.add_gap(to, &why)?;
                }
                Err(why) => {
                    let seed = Seed::of(&header.incarnation);
                    let is_torn = end.is_none()
                        && scan::synced_beyond(&file, seed, at.end_position, at.end_offset)
                            .map_err(reading)?
                            .is_none();
                    if !is_torn {
                        return Err(self.corrupt(name, at.end_position, why.to_string()));
                    }
                    break true;
                }
            }
        };
        self.end = writer.end();
        if self.end == name.base_offset {
            drop(writer);
        } else {
            let carried = match name.generation {
                1 => None, // Its frames say all of it.
                _ => self.carried(name, &header, &writer)?,
            };
            writer.finish(carried.as_ref())?;
            self.segments += 1;
        }
        Ok(!is_over)
    }
}

#[cfg(test)]
mod tests;
