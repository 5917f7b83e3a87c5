//! Snapshots are made in the background, of files alone.
//!
//! ```text
//! 1  <offset>.snap.tmp   written and synced; renamed; the directory synced: it counts
//! 2  what nobody needs any more goes: other snapshots, and the stubs that these have taken in
//! ```
//! Up to three are kept. The newest two: either is enough to open the log, should the other be damaged, and so no
//! file goes that lies behind where the log begins by one of them, be the other a ground. And one
//! at or before the first event that is kept, into which the stubs before that are merged: it alone lets a restored
//! log end anywhere, and it says that what is not there before it is gone on purpose. Stubs between segments that
//! hold events stay.
//!
//! Whatever a crash leaves of this is whole: a snapshot too many, or stubs that a snapshot has taken in.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{
    error::OpenError,
    io::{Access, Disk, DiskFile},
    listing,
    offset::Offset,
    once::IdWindow,
    pace::{Pace, PacedFile},
    parts::Parts,
    retire,
    seal::TEMPORARY_ENDING,
    segment::{SegmentFile, SegmentName},
    segment_set::{SealedSegment, SegmentSet},
    snapshot::{
        LiveSegment, Snapshot, file_name,
        fold::{Fold, corrupt},
        read,
    },
    stored_index::StoredIndex,
};

/// See [`crate::op::Job::Snapshot`].
pub struct SnapshotJob<D: Disk> {
    pub(crate) dir: PathBuf,
    /// The sealed part as it is when the job is made: the snapshot is of its end.
    pub(crate) segments: Arc<SegmentSet<D>>,
    /// Ids that are older are not kept.
    pub(crate) window: IdWindow,
    /// But for so many milliseconds by the times of events.
    pub(crate) ids_ahead_ms: u64,
    /// The same for producers.
    pub(crate) producers_ahead_ms: u64,
    /// So many stubs before the first event that is kept are merged.
    pub(crate) stubs_min: usize,
    pub(crate) pace: Pace,
    /// Raised when the log closes, as nobody waits for a snapshot, and when the disk is full: it frees nothing.
    pub(crate) is_cancelled: Arc<AtomicBool>,
    /// A snapshot of what a running log knows, for the mutation that takes it from there.
    #[cfg(mutations)]
    pub(crate) live: Option<Vec<u8>>,
}

/// What making a snapshot came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotOutcome {
    /// Of which offset the newest one is.
    pub offset: Offset,
    /// Its length.
    pub bytes: u64,
    /// How many stubs were merged into one.
    pub merged_stubs: usize,
}

/// A part of the sealed log.
enum Part<D: Disk> {
    Live(Arc<SealedSegment<D>>),
    /// Its events are gone, and its index is a stub, or becomes one.
    Stub(SegmentName),
}

impl<D: Disk> SnapshotJob<D> {
    /// Makes a snapshot, and removes what is not needed any more. `None` if it was cancelled.
    pub(crate) fn run(self, disk: &D) -> Result<Option<SnapshotOutcome>, OpenError> {
        let end = self.segments.end();
        let live: Vec<LiveSegment> = self.segments.iter().map(|segment| live(segment)).collect();
        let kept_from = live.first().map_or(end, |first| first.base);
        let names = disk.list(&self.dir).map_err(OpenError::io("listing", &self.dir))?;
        let parts = self.parts(&names);
        let mut files = Files { disk, dir: &self.dir, known: BTreeMap::new() };
        for offset in read::offsets(&names) {
            files.known.insert(offset, None);
        }

        let bytes = match files.good(end)? {
            true => None,
            false => {
                let Some(bytes) = self.bytes(disk, &mut files, &parts, end, &live)? else {
                    return Ok(None);
                };
                Some(bytes)
            }
        };
        let bytes = match bytes {
            Some(bytes) => {
                self.write(disk, end, &bytes)?;
                files.note_written(end, kept_from);
                bytes.len()
            }
            None => files.size(end)?,
        };
        let mut ground = files.newest_ground(kept_from)?;
        let before =
            parts.range(..kept_from).filter(|(base, _)| **base >= ground.unwrap_or_default());
        if kept_from > ground.unwrap_or_default() && before.count() >= self.stubs_min.max(1) {
            match self.bytes(disk, &mut files, &parts, kept_from, &[]) {
                Ok(Some(bytes)) => {
                    self.write(disk, kept_from, &bytes)?;
                    files.note_written(kept_from, kept_from);
                    ground = Some(kept_from);
                }
                Ok(None) => return Ok(None),
                // The one before was lost, with the stubs that it had taken in: there will be one again when
                // nothing is kept any more before a snapshot that is there. Or a stub cannot be read, or is damaged: what is not
                // needed any more goes all the same.
                Err(
                    OpenError::MissingSegment { .. } | OpenError::Corrupt(_) | OpenError::Io { .. },
                ) => {}
                Err(error) => return Err(error),
            }
        }
        let merged_stubs = self.clear(disk, &mut files, &names, kept_from, ground)?;
        Ok(Some(SnapshotOutcome { offset: end, bytes, merged_stubs }))
    }

    /// It would take space, or nobody waits for it.
    fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Relaxed)
    }

    /// What the sealed part consists of, by where each begins.
    fn parts(&self, names: &[String]) -> BTreeMap<Offset, Part<D>> {
        let mut parts = BTreeMap::new();
        for listed in listing::segments(names) {
            let base = listed.name.base_offset;
            if listed.has_index && base < self.segments.end() {
                parts.insert(base, Part::Stub(listed.name));
            }
        }
        for segment in self.segments.iter() {
            parts.insert(segment.base(), Part::Live(Arc::clone(segment)));
        }
        parts
    }

    /// The parts of the snapshot at `target`, of which `live` are the segments that hold events. `None` if it
    /// was cancelled.
    fn bytes(
        &self,
        disk: &D,
        files: &mut Files<'_, D>,
        parts: &BTreeMap<Offset, Part<D>>,
        target: Offset,
        live: &[LiveSegment],
    ) -> Result<Option<Parts<'static>>, OpenError> {
        #[cfg(mutations)]
        if let Some(bytes) = self.live.as_ref().filter(|_| target == self.segments.end()) {
            return Ok(Some(bytes.clone().into()));
        }
        let mut base = files.newest(target)?;
        let mut fold = match &mut base {
            Some(base) => Fold::of(base, self.window, self.ids_ahead_ms),
            None => Fold::new(self.window, self.ids_ahead_ms),
        };
        while fold.offset() < target {
            if self.is_cancelled() {
                return Ok(None);
            }
            let from = fold.offset();
            let part = parts.get(&from).ok_or_else(|| {
                let dir = self.dir.clone();
                OpenError::MissingSegment { dir, from, to: target }
            })?;
            let (index, path) = self.index(disk, part)?;
            fold.add(&index, &path)?;
        }
        // What was counted as another generation, or is gone since. (What lies before all that is kept is
        // known to be gone.)
        let start = live.first().map_or(target, |first| first.base);
        if let Some(base) = &base {
            for counted in base.segments().iter().filter(|counted| counted.base >= start) {
                let now = live.binary_search_by_key(&counted.base, |segment| segment.base);
                if now.is_ok_and(|place| live[place] == *counted) {
                    continue;
                }
                let Some(part) = parts.get(&counted.base) else { continue };
                let index = match part {
                    Part::Live(_) => Some(self.index(disk, part)?),
                    // Its events are gone, whatever else it says.
                    Part::Stub(_) => self.index(disk, part).ok(),
                };
                let has_gaps =
                    matches!(part, Part::Live(segment) if segment.index().gaps().len() > 0);
                fold.lessen(match index {
                    Some((index, _)) => base.lessened_by(&index, has_gaps),
                    None => base.topics_in(&(counted.base..counted.end)),
                });
            }
        }
        if self.is_cancelled() {
            return Ok(None);
        }
        let bytes = fold.finish(live, self.producers_ahead_ms);
        Ok((!self.is_cancelled()).then_some(bytes))
    }

    fn index(
        &self,
        disk: &D,
        part: &Part<D>,
    ) -> Result<(StoredIndex<D::File>, PathBuf), OpenError> {
        let (index, path) = match part {
            Part::Live(segment) => {
                let path = segment.index_path();
                (StoredIndex::of_file(segment.index_file(), &path)?, path)
            }
            Part::Stub(name) => {
                let path = self.dir.join(name.index_file_name());
                let index = StoredIndex::read(disk, &path)?;
                (index.filter(|index| index.header().is_stub()), path)
            }
        };
        match index {
            Some(index) => Ok((index, path)),
            None => Err(corrupt(&path, "the index is damaged".to_owned())),
        }
    }

    /// Writes a snapshot under its name, durably.
    fn write(&self, disk: &D, offset: Offset, bytes: &Parts<'_>) -> Result<(), OpenError> {
        let path = self.dir.join(file_name(offset));
        let temporary = self.dir.join(format!("{}{TEMPORARY_ENDING}", file_name(offset)));
        retire::remove(disk, &temporary)?;
        let write = || {
            let file = disk.create(&temporary, Access::Write)?;
            PacedFile::new(Arc::new(file), self.pace.clone()).write_synced(bytes)?;
            disk.rename(&temporary, &path)
        };
        if let Err(error) = write() {
            let _ = disk.remove(&temporary);
            return Err(OpenError::io("writing", &temporary)(error));
        }
        disk.sync_dir(&self.dir).map_err(OpenError::io("syncing the directory", &self.dir))
    }

    /// Removes snapshots beside the newest two and `ground`, and the stubs that this has taken in and neither of
    /// those two needs. Returns how many those were.
    fn clear(
        &self,
        disk: &D,
        files: &mut Files<'_, D>,
        names: &[String],
        kept_from: Offset,
        ground: Option<Offset>,
    ) -> Result<usize, OpenError> {
        // One that a killed process had made may have a name that the kernel alone knows.
        disk.sync_dir(&self.dir).map_err(OpenError::io("syncing the directory", &self.dir))?;
        let mut kept: Vec<Offset> = ground.into_iter().collect();
        let offsets: Vec<Offset> = files.known.keys().rev().copied().collect();
        // Where a log begins that is opened from one of the newest two.
        let mut begins = Vec::new();
        for offset in &offsets {
            match files.kind(*offset)? {
                Kind::Good { kept_from } if begins.len() < 2 => {
                    begins.push(kept_from);
                    kept.push(*offset);
                }
                // It may be good, and the one that is missing.
                Kind::Unreadable
                    if begins.len() < 2 || (ground.is_none() && *offset <= kept_from) =>
                {
                    kept.push(*offset);
                }
                _ => {}
            }
        }
        for offset in offsets.iter().filter(|offset| !kept.contains(offset)) {
            retire::remove(disk, &self.dir.join(file_name(*offset)))?;
        }
        // While one alone is good, the log must open without it.
        let (Some(ground), [newest, second]) = (ground, begins.as_slice()) else { return Ok(0) };
        let ground = ground.min(*newest).min(*second);
        let mut merged = 0;
        for (name, file) in names.iter().filter_map(|name| SegmentName::parse(name)) {
            // Older generations beside it, and a log file whose removal was cut short, are no more than that.
            if name.base_offset < ground {
                retire::remove(disk, &self.dir.join(name.file_name(file)))?;
                merged += usize::from(file == SegmentFile::Index);
            }
        }
        Ok(merged)
    }
}

/// The snapshots that are there, and what each is, as far as they were looked at.
struct Files<'a, D: Disk> {
    disk: &'a D,
    dir: &'a Path,
    known: BTreeMap<Offset, Option<Kind>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It may be good: it is not used, and not removed while there are not enough others.
    Unreadable,
    Damaged,
    /// It says that nothing before an offset is kept; it is a ground if that is its own.
    Good {
        kept_from: Offset,
    },
}

impl<D: Disk> Files<'_, D> {
    fn kind(&mut self, offset: Offset) -> Result<Kind, OpenError> {
        if let Some(Some(kind)) = self.known.get(&offset) {
            return Ok(*kind);
        }
        self.read(offset)?;
        Ok(self.known.get(&offset).copied().flatten().unwrap_or(Kind::Damaged))
    }

    /// Whether there is a good one at an offset.
    fn good(&mut self, offset: Offset) -> Result<bool, OpenError> {
        let is_there = self.known.contains_key(&offset);
        Ok(is_there && matches!(self.kind(offset)?, Kind::Good { .. }))
    }

    fn note_written(&mut self, offset: Offset, kept_from: Offset) {
        self.known.insert(offset, Some(Kind::Good { kept_from }));
    }

    /// The newest good one at or before an offset.
    fn newest(&mut self, offset: Offset) -> Result<Option<Snapshot>, OpenError> {
        let offsets: Vec<Offset> = self.known.range(..=offset).rev().map(|(at, _)| *at).collect();
        for offset in offsets {
            if let Some(snapshot) = self.read(offset)? {
                return Ok(Some(snapshot));
            }
        }
        Ok(None)
    }

    /// The newest at or before an offset that says that nothing before it is kept.
    fn newest_ground(&mut self, offset: Offset) -> Result<Option<Offset>, OpenError> {
        let offsets: Vec<Offset> = self.known.range(..=offset).rev().map(|(at, _)| *at).collect();
        for offset in offsets {
            if self.kind(offset)? == (Kind::Good { kept_from: offset }) {
                return Ok(Some(offset));
            }
        }
        Ok(None)
    }

    fn read(&mut self, offset: Offset) -> Result<Option<Snapshot>, OpenError> {
        let snapshot = match read::read(self.disk, self.dir, offset) {
            Ok(snapshot) => snapshot.ok(),
            Err(OpenError::Io { .. }) => {
                self.known.insert(offset, Some(Kind::Unreadable));
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let kind = snapshot.as_ref().map_or(Kind::Damaged, |snapshot| Kind::Good {
            kept_from: snapshot.header().kept_from,
        });
        self.known.insert(offset, Some(kind));
        Ok(snapshot)
    }

    fn size(&self, offset: Offset) -> Result<u64, OpenError> {
        let path = self.dir.join(file_name(offset));
        let opened = self.disk.open(&path, Access::Read).and_then(|file| file.size());
        opened.map_err(OpenError::io("reading", &path))
    }
}

/// What a snapshot says of a segment that holds events.
pub(crate) fn live<D: Disk>(segment: &SealedSegment<D>) -> LiveSegment {
    LiveSegment {
        base: segment.base(),
        end: segment.end(),
        generation: segment.name().generation,
        incarnation: segment.header().incarnation,
    }
}
