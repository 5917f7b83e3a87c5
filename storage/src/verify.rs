//! Checks every frame, checksum, chain and index of a log's directory, and changes nothing.
//!
//! What it calls a finding is damage or a file where none belongs. Not findings are what a crash
//! leaves and the next start clears away: a torn tail of the last segment of which nothing shows that
//! it had been synced, temporary files, a segment whose index was not written yet.
//!
//! An index is compared with one that is built anew from the frames: the same frames give the same
//! bytes, so all lookups are equal if the bytes are.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::Path,
    sync::Arc,
};

use crate::{
    error::{Corruption, OpenError},
    io::{Disk, LockMode},
    offset::{Offset, Position},
    seal::TEMPORARY_ENDING,
    segment::{SegmentFile, SegmentName},
    topic::TopicNumber,
};

mod segment;
#[cfg(test)]
mod tests;

/// What `verify` looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// How many segments.
    pub segments: u64,
    /// How many frames.
    pub frames: u64,
    /// How many events in them.
    pub events: u64,
    /// Of how many topics.
    pub topics: u64,
    /// Where the log ends.
    pub end: Offset,
    /// How many findings there were.
    pub findings: u64,
    /// What is worth knowing and not damage, one line each.
    pub notes: Vec<String>,
}

/// Checks the log in `dir`, under a shared lock, and calls `on_finding` for each thing that is wrong.
///
/// Fails if the directory is in use or cannot be listed; a file that cannot be read is a finding.
pub fn verify<D: Disk>(
    disk: &D,
    dir: &Path,
    on_finding: &mut dyn FnMut(&Corruption),
) -> Result<Verified, OpenError> {
    let _lock = lock_shared(disk, dir)?;
    let mut checker = Checker {
        disk,
        dir,
        on_finding,
        verified: Verified::default(),
        names: HashMap::new(),
        numbers: HashMap::new(),
        last_time_ms: 0,
    };
    let segments = checker.list()?;
    for (index, files) in segments.iter().enumerate() {
        checker.check_base(files);
        let successor = segments.get(index + 1).map(|next| next.name.base_offset);
        checker.check_segment(files, successor);
    }
    let Checker { mut verified, names, .. } = checker;
    verified.segments = segments.len() as u64;
    verified.topics = names.len() as u64;
    Ok(verified)
}

/// Takes the lock that keeps a server from starting, and lets others look at the same time.
pub fn lock_shared<D: Disk>(disk: &D, dir: &Path) -> Result<D::Lock, OpenError> {
    disk.lock_dir(dir, LockMode::Shared).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked { dir: dir.to_owned() },
        _ => OpenError::io("locking", dir)(error),
    })
}

/// The files of a segment that are there.
#[derive(Clone, Copy, Debug)]
struct SegmentFiles {
    name: SegmentName,
    has_log: bool,
    has_index: bool,
}

struct Checker<'a, D: Disk> {
    disk: &'a D,
    dir: &'a Path,
    on_finding: &'a mut dyn FnMut(&Corruption),
    verified: Verified,
    /// The names of the topics by number, and back: they hold over all segments.
    names: HashMap<TopicNumber, Arc<str>>,
    numbers: HashMap<Arc<str>, TopicNumber>,
    last_time_ms: u64,
}

impl<D: Disk> Checker<'_, D> {
    fn finding(&mut self, file_name: &str, position: Position, what: impl ToString) {
        let file = self.dir.join(file_name);
        self.verified.findings += 1;
        (self.on_finding)(&Corruption { file, position, what: what.to_string() });
    }

    fn note(&mut self, file_name: &str, what: &str) {
        self.verified.notes.push(format!("{}: {what}", self.dir.join(file_name).display()));
    }

    /// The segments in offset order.
    fn list(&mut self) -> Result<Vec<SegmentFiles>, OpenError> {
        let mut segments: BTreeMap<SegmentName, SegmentFiles> = BTreeMap::new();
        let mut names = self.disk.list(self.dir).map_err(OpenError::io("listing", self.dir))?;
        names.sort_unstable();
        for file_name in names {
            if let Some((name, file)) = SegmentName::parse(&file_name) {
                let none = SegmentFiles { name, has_log: false, has_index: false };
                let files = segments.entry(name).or_insert(none);
                match file {
                    SegmentFile::Log => files.has_log = true,
                    SegmentFile::Index => files.has_index = true,
                }
            } else if file_name.ends_with(TEMPORARY_ENDING) {
                self.note(&file_name, "a temporary file, which the next start removes");
            } else if is_kept_aside(&file_name) {
                self.note(&file_name, "a part that a repair cut off");
            } else if file_name.ends_with(".log") || file_name.ends_with(".idx") {
                let what = "stray file: its name is not that of a segment";
                self.finding(&file_name, Position::default(), what);
            } else {
                self.note(&file_name, "not a file of the log");
            }
        }
        Ok(segments.into_values().collect())
    }

    /// A segment must begin where the one before it ended.
    fn check_base(&mut self, files: &SegmentFiles) {
        let (base, end) = (files.name.base_offset, self.verified.end);
        let file = if files.has_log { SegmentFile::Log } else { SegmentFile::Index };
        let file_name = files.name.file_name(file);
        if base > end {
            let what = format!("events from {end} to {base} are missing before this segment");
            self.finding(&file_name, Position::default(), what);
        }
        if base < end {
            let what = format!("begins at offset {base}, but the segment before ends at {end}");
            self.finding(&file_name, Position::default(), what);
        }
    }
}

/// Whether a file holds what a repair cut off a segment.
pub(crate) fn is_kept_aside(file_name: &str) -> bool {
    file_name.split_once(".cut-").is_some_and(|(segment, _)| SegmentName::parse(segment).is_some())
}
