//! Sealed segments are read again now and then, so that rot is found while there still is a backup.
//!
//! A step reads a few MiB, on a thread that runs when nothing else wants to; between two steps the
//! disk rests. Frames are checked as recovery checks them, the index whole. The snapshots are read whole as well, where
//! a pass begins. What seems damaged is read once more: a read may fail, or bring a wrong bit, and the next one be right.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    buffer::{ALIGN_BYTES, DiskBuffer},
    error::{Corruption, OpenError},
    index::{self, SegmentEnd},
    io::{Access, Disk, DiskFile},
    offset::Position,
    pace::{Pace, PacedFile},
    scan::FrameScan,
    segment_set::SealedSegment,
    snapshot::{self, read},
};

/// A step reads so much, and then the frame that it is in.
pub const STEP_BYTES: u64 = 4 << 20;

/// See [`crate::op::Job::Scrub`].
pub struct ScrubJob<D: Disk> {
    pub(crate) segment: Arc<SealedSegment<D>>,
    /// Where the step before it ended; `None` at the begin of the segment.
    pub(crate) from: Option<SegmentEnd>,
    /// Where the snapshots are, if they are to be read.
    pub(crate) snapshots: Option<PathBuf>,
    pub(crate) pace: Pace,
}

/// What a step found.
pub struct ScrubOutcome<D: Disk> {
    /// The segment.
    pub segment: Arc<SealedSegment<D>>,
    /// Where the next step begins; `None` at the end of the segment.
    pub next: Option<SegmentEnd>,
    /// How much it has read.
    pub bytes: u64,
    /// What is damaged.
    pub damage: Option<String>,
    /// What is damaged in snapshots, if they were to be read; the error says why nobody knows which there are.
    pub snapshots: Option<Result<Vec<Corruption>, String>>,
}

impl<D: Disk> ScrubJob<D> {
    /// Reads a part of the segment.
    pub(crate) fn run(self, disk: &D) -> ScrubOutcome<D> {
        let ScrubJob { segment, from, snapshots, pace } = self;
        // A scrub may come to a segment as it goes: it reads what it has open then.
        let past_the_cache = |path: &Path, otherwise: &Arc<D::File>| {
            // What the page cache holds says little about the device.
            let direct = disk.open(path, Access::Direct);
            PacedFile::new(direct.map_or_else(|_| Arc::clone(otherwise), Arc::new), pace.clone())
        };
        let file = past_the_cache(&segment.log_path(), segment.log_file());
        let mut outcome = ScrubOutcome {
            segment: segment.clone(),
            next: None,
            bytes: 0,
            damage: None,
            snapshots: None,
        };
        if let Some(dir) = snapshots {
            let checked = check_snapshots(disk, &dir);
            outcome.bytes += checked.as_ref().map_or(0, |(_, bytes)| *bytes);
            outcome.snapshots = Some(checked.map(|(damaged, _)| damaged));
        }
        if from.is_none() {
            let index = past_the_cache(&segment.index_path(), segment.index_file());
            match twice(|| check_index(&index)) {
                Ok(bytes) => outcome.bytes += bytes,
                Err(what) => outcome.damage = Some(format!("index: {what}")),
            }
            drop(index);
            if outcome.damage.is_none() {
                outcome.damage = twice(|| segment.check_header(&file)).err();
            }
            if outcome.damage.is_some() {
                return outcome;
            }
        }
        match twice(|| scan(&file, &segment, from)) {
            Ok((next, bytes)) => {
                outcome.next = next;
                outcome.bytes += bytes;
            }
            Err(what) => outcome.damage = Some(what),
        }
        outcome
    }
}

/// What is damaged in the snapshots of a log, and how many bytes those have that are not.
fn check_snapshots<D: Disk>(disk: &D, dir: &Path) -> Result<(Vec<Corruption>, u64), String> {
    let names = disk.list(dir).map_err(|error| OpenError::io("listing", dir)(error).to_string())?;
    let (mut damaged, mut bytes) = (Vec::new(), 0);
    for offset in read::offsets(&names) {
        match read::read(disk, dir, offset) {
            Ok(Ok(snapshot)) => bytes += snapshot.header().file_bytes,
            Ok(Err(damage)) => damaged.push(damage),
            // It was not among the newest any more.
            Err(OpenError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let file = dir.join(snapshot::file_name(offset));
                let (position, what) = (Position::default(), error.to_string());
                damaged.push(Corruption { file, position, what });
            }
        }
    }
    Ok((damaged, bytes))
}

/// What a check finds, or finds when it is made once more if it failed.
fn twice<T>(check: impl Fn() -> Result<T, String>) -> Result<T, String> {
    check().or_else(|_| check())
}

/// Checks an index whole; how long it is.
fn check_index(file: &impl DiskFile) -> Result<u64, String> {
    let size = file.size().map_err(|error| error.to_string())?;
    let len = usize::try_from(size).expect("an index fits in memory");
    let mut bytes = DiskBuffer::zeroed(len.next_multiple_of(ALIGN_BYTES));
    let read = file.read_all_at(bytes.as_mut_slice(), Position::default());
    bytes.truncate(read.map_err(|error| error.to_string())?);
    index::check_all(bytes.as_slice()).map(|_| size).map_err(|error| error.to_string())
}

/// Checks the frames of one step; where the next one begins, and how much was read.
fn scan<D: Disk>(
    file: &PacedFile<D::File>,
    segment: &SealedSegment<D>,
    from: Option<SegmentEnd>,
) -> Result<(Option<SegmentEnd>, u64), String> {
    let mut frames = match from {
        Some(end) => FrameScan::behind(file, segment.header(), end),
        None => FrameScan::new(file, segment.header()),
    };
    let start = frames.end().end_position;
    let end = segment.index().header().end_position;
    loop {
        let at = frames.end();
        let read_bytes = at.end_position.get() - start.get();
        if at.end_position >= end {
            let is_whole = at.end_offset == segment.end();
            let short = || format!("its frames end at offset {}", at.end_offset);
            return if is_whole { Ok((None, read_bytes)) } else { Err(short()) };
        }
        if read_bytes >= STEP_BYTES {
            return Ok((Some(at), read_bytes));
        }
        match frames.next_frame() {
            Ok(Ok(_)) => {}
            Ok(Err(why)) => {
                // What a repair has named is no news.
                if !matches!(frames.step_over_lost(), Ok(Some(_))) {
                    return Err(format!("at position {}: {why}", at.end_position));
                }
            }
            Err(error) => return Err(format!("at position {}: {error}", at.end_position)),
        }
    }
}
