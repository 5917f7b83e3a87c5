//! Checks every frame, checksum, chain and index of a log's directory, and changes nothing.
//!
//! What it calls a finding is damage or a file where none belongs. Not findings are what a crash
//! leaves and the next start clears away: a torn tail of the last segment of which nothing shows that
//! it had been synced, temporary files, a segment whose index was not written yet.
//!
//! An index is compared with one that is built anew from the frames: the same frames give the same
//! bytes, so all lookups are equal if the bytes are.
//!
//! A snapshot is checked whole, and that topics have the same numbers in it, and that the log did not end before
//! it; nor before its end mark, nor without the segment that this names as the last.
//!
//! Topics have the same numbers in all of that, also those that an index alone knows, as their events are gone.
//!
//! A segment is checked by itself (`segment.rs`), so that several are at the same time; what holds over
//! all of them (that each begins where the one before ended, the numbers of topics, the order of times)
//! is checked as they come in, in offset order.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{
    data_dir::{is_aside, lock},
    earliest::EARLIEST_FILE_NAME,
    end_mark::{self, END_MARK_FILE_NAME, EndMark},
    error::{Corruption, OpenError},
    index::gone::GoneTopic,
    io::{Access, Disk, DiskFile, LockMode, is_unreadable},
    listing,
    offset::{Offset, Position},
    reserve::RESERVE_FILE_NAME,
    seal::TEMPORARY_ENDING,
    segment::{SegmentFile, SegmentName},
    snapshot::{self, read},
    topic::TopicNumber,
};

mod names;
mod parallel;
mod segment;
#[cfg(test)]
mod tests;

pub(crate) use names::TopicNames;
use segment::SegmentCheck;
pub(crate) use segment::{CheckedSegment, gone_of};

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
    /// The bytes of their files.
    pub bytes: u64,
    /// Where the log ends.
    pub end: Offset,
    /// How many findings there were.
    pub findings: u64,
    /// What is worth knowing and not damage, one line each.
    pub notes: Vec<String>,
}

/// How far a check has come, for whoever wants to show it from another thread.
#[derive(Debug, Default)]
pub struct Progress {
    bytes: AtomicU64,
    bytes_total: AtomicU64,
}

impl Progress {
    /// How many bytes have been looked at.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How many there are; 0 before the files have been listed.
    pub fn bytes_total(&self) -> u64 {
        self.bytes_total.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Checks the log in `dir` on this thread alone: see [`verify_with`].
pub fn verify<D: Disk>(
    disk: &D,
    dir: &Path,
    on_finding: &mut dyn FnMut(&Corruption),
) -> Result<Verified, OpenError> {
    verify_with(disk, dir, 1, &Progress::default(), on_finding)
}

/// Checks the log in `dir`, under a shared lock, on so many threads, and calls `on_finding` on this one
/// for each thing that is wrong, in the order of the log whatever thread saw it.
///
/// Fails if the directory is in use or cannot be listed; a file that cannot be read is a finding.
pub fn verify_with<D: Disk>(
    disk: &D,
    dir: &Path,
    threads: usize,
    progress: &Progress,
    on_finding: &mut dyn FnMut(&Corruption),
) -> Result<Verified, OpenError> {
    let _lock = lock_shared(disk, dir)?;
    let mut checker = Checker {
        disk,
        dir,
        on_finding,
        verified: Verified::default(),
        names: TopicNames::default(),
        gone: Vec::new(),
        last_time_ms: 0,
        is_last_damaged: false,
    };
    let mark = checker.read_mark()?;
    let (mut segments, snapshots) = checker.list()?;
    let last_base = segments.last().map(|files| files.name.base_offset);
    segments.extend(end_mark::missing(mark, last_base).map(|(name, _)| SegmentFiles::none(name)));
    let synced = mark.map_or(Offset::ZERO, |mark| mark.synced);
    let bytes = segments.iter().map(|files| files.bytes).sum();
    progress.bytes_total.store(bytes, Ordering::Relaxed);
    let check = |index: usize| {
        let successor = segments.get(index + 1).map(|next| next.name.base_offset);
        SegmentCheck::run(disk, dir, &segments[index], successor, synced, progress)
    };
    parallel::in_order(segments.len(), threads, check, |index, checked| {
        checker.take(&segments[index], checked);
    });
    checker.verified.segments = segments.len() as u64;
    checker.verified.topics = checker.names.len() as u64;
    checker.verified.bytes = bytes;
    if checker.verified.end < synced && !checker.is_last_damaged {
        let what = read::lost_behind(&dir.join(END_MARK_FILE_NAME), synced, checker.verified.end);
        checker.report(&what);
    }
    checker.check_gone();
    checker.check_snapshots(&snapshots)?;
    let verified = checker.verified;
    Ok(verified)
}

/// Takes the lock that keeps a server from starting, and lets others look at the same time.
pub fn lock_shared<D: Disk>(disk: &D, dir: &Path) -> Result<D::Lock, OpenError> {
    lock(disk, dir, LockMode::Shared)
}

/// The files of a segment that are there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentFiles {
    pub(crate) name: SegmentName,
    pub(crate) has_log: bool,
    pub(crate) has_index: bool,
    /// Of both; of one that cannot be opened, none.
    bytes: u64,
}

impl SegmentFiles {
    /// None of the two.
    pub(crate) fn none(name: SegmentName) -> Self {
        SegmentFiles { name, has_log: false, has_index: false, bytes: 0 }
    }
}

/// Checks one segment by itself, which ends where its successor begins if it has one, and must reach `synced` if it
/// has none.
pub(crate) fn check_segment<D: Disk>(
    disk: &D,
    dir: &Path,
    files: &SegmentFiles,
    successor: Option<Offset>,
    synced: Offset,
) -> CheckedSegment {
    SegmentCheck::run(disk, dir, files, successor, synced, &Progress::default())
}

/// What can only be seen over all segments: where each begins, topics, times.
struct Checker<'a, D: Disk> {
    disk: &'a D,
    dir: &'a Path,
    on_finding: &'a mut dyn FnMut(&Corruption),
    verified: Verified,
    names: TopicNames,
    /// What indexes say of topics whose events are gone.
    gone: Vec<(SegmentName, Vec<GoneTopic>)>,
    last_time_ms: u64,
    /// Something was found in the last segment that was taken in.
    is_last_damaged: bool,
}

impl<D: Disk> Checker<'_, D> {
    fn finding(&mut self, file_name: &str, position: Position, what: impl ToString) {
        let file = self.dir.join(file_name);
        self.report(&Corruption { file, position, what: what.to_string() });
    }

    fn report(&mut self, finding: &Corruption) {
        self.verified.findings += 1;
        (self.on_finding)(finding);
    }

    fn note(&mut self, file_name: &str, what: &str) {
        self.verified.notes.push(format!("{}: {what}", self.dir.join(file_name).display()));
    }

    /// What the end mark says, if it is sound.
    fn read_mark(&mut self) -> Result<Option<EndMark>, OpenError> {
        match end_mark::read_steps(self.disk, self.dir) {
            // Ids and producers may be forgotten early, and nothing is lost.
            Ok(Err(damage)) => self.note(END_MARK_FILE_NAME, &damage.what),
            Err(error @ OpenError::NewerVersion { .. }) => return Err(error),
            // A file that cannot be opened is told below.
            Ok(Ok(_)) | Err(_) => {}
        }
        match end_mark::read(self.disk, self.dir) {
            Ok(Some(Ok(mark))) => return Ok(Some(mark)),
            Ok(Some(Err(damage))) => self.report(&damage),
            Ok(None) => {}
            Err(error @ OpenError::NewerVersion { .. }) => return Err(error),
            Err(error) => self.finding(END_MARK_FILE_NAME, Position::default(), error),
        }
        Ok(None)
    }

    /// The segments in offset order, and the snapshots, the newest first.
    fn list(&mut self) -> Result<(Vec<SegmentFiles>, Vec<Offset>), OpenError> {
        let mut segments: BTreeMap<SegmentName, SegmentFiles> = BTreeMap::new();
        let mut names = self.disk.list(self.dir).map_err(OpenError::io("listing", self.dir))?;
        names.sort_unstable();
        let snapshots = read::offsets(&names);
        let begin = read::begin(self.disk, self.dir, &snapshots)?;
        self.verified.end = begin;
        for file_name in names {
            if let Some((name, file)) = SegmentName::parse(&file_name) {
                if name.base_offset < begin {
                    // An older snapshot may need a stub one day.
                    if file == SegmentFile::Log || !listing::is_stub(self.disk, self.dir, name)? {
                        self.note(&file_name, "its events are gone on purpose; it will be removed");
                    }
                    continue;
                }
                let files = segments.entry(name).or_insert_with(|| SegmentFiles::none(name));
                match file {
                    SegmentFile::Log => files.has_log = true,
                    SegmentFile::Index => files.has_index = true,
                }
                let opened = self.disk.open(&self.dir.join(&file_name), Access::Read);
                files.bytes += opened.and_then(|file| file.size()).unwrap_or(0);
            } else if snapshot::offset_of(&file_name).is_some() {
                // It is looked at when the end of the log is known.
            } else if file_name == EARLIEST_FILE_NAME {
                // It may be damaged, and nothing is lost.
            } else if file_name == END_MARK_FILE_NAME {
                // What it says was looked at before.
            } else if file_name == RESERVE_FILE_NAME {
                // Space for the day when there is none.
            } else if file_name.ends_with(TEMPORARY_ENDING) {
                self.note(&file_name, "a temporary file, which the next start removes");
            } else if is_kept_aside(&file_name) {
                self.note(&file_name, "what a repair kept aside");
            } else if file_name.ends_with(".log") || file_name.ends_with(".idx") {
                let what = "stray file: its name is not that of a segment";
                self.finding(&file_name, Position::default(), what);
            } else {
                self.note(&file_name, "not a file of the log");
            }
        }
        let all: Vec<SegmentFiles> = segments.into_values().collect();
        let mut chosen = Vec::new();
        for same in all.chunk_by(|left, right| left.name.base_offset == right.name.base_offset) {
            let (newest, is_certain) = self.choose(same)?;
            let why = match is_certain {
                true => "left by a rewrite that was cut short; the next start removes it",
                false => {
                    "another generation of a segment of which one cannot be read: which counts nobody knows"
                }
            };
            for (index, files) in same.iter().enumerate() {
                let file = if files.has_log { SegmentFile::Log } else { SegmentFile::Index };
                match index == newest {
                    true => chosen.push(*files),
                    false => self.note(&files.name.file_name(file), why),
                }
            }
        }
        Ok((chosen, snapshots))
    }

    /// The place of the generation of a segment that counts: the newest that is whole, as for a start. If none is, the newest
    /// that has its index, unless its log file has gone since. And whether that is certain: a start fails by what it cannot
    /// read.
    fn choose(&self, same: &[SegmentFiles]) -> Result<(usize, bool), OpenError> {
        if same.len() == 1 {
            return Ok((0, true));
        }
        let counting = listing::counting(same, |files| files.has_index);
        let is_log_alone = counting.iter().filter(|files| files.has_log).count() == 1;
        let is_newest_alone = is_log_alone
            && counting.last().is_some_and(|newest| newest.has_log && newest.has_index);
        for (index, files) in same.iter().enumerate().rev() {
            let SegmentFiles { name, has_log, has_index, .. } = *files;
            let is_older = is_newest_alone && index + 1 < counting.len();
            match listing::is_whole(self.disk, self.dir, name, has_log, has_index) {
                Ok(true) => return Ok((index, true)),
                Ok(false) => {}
                Err(OpenError::Io { source, .. }) if is_older && is_unreadable(&source) => {}
                // Whoever checks this one tells what cannot be read.
                Err(OpenError::Io { .. }) => return Ok((index, false)),
                Err(error) => return Err(error),
            }
        }
        let mut newest = 0;
        for (index, files) in same.iter().enumerate().filter(|(_, files)| files.has_index) {
            if files.has_log || listing::is_stub(self.disk, self.dir, files.name)? {
                newest = index;
            }
        }
        Ok((newest, true))
    }

    /// Checks every snapshot against itself, against the end of the log, and against the numbers of topics.
    fn check_snapshots(&mut self, offsets: &[Offset]) -> Result<(), OpenError> {
        for offset in offsets {
            let file_name = snapshot::file_name(*offset);
            let end = self.verified.end;
            if *offset > end {
                let what = format!("the log ends at {end}, before what this is a snapshot of");
                self.finding(&file_name, Position::default(), what);
            }
            match read::read(self.disk, self.dir, *offset) {
                Ok(Ok(snapshot)) => {
                    let checked = snapshot.for_each_topic(|topic| {
                        let (number, name) = (topic.number, topic.name);
                        self.check_topic(&file_name, number, name, Position::default());
                        Ok::<(), Infallible>(())
                    });
                    let Ok(()) = checked;
                }
                Ok(Err(damage)) => self.report(&damage),
                Err(error @ OpenError::NewerVersion { .. }) => return Err(error),
                Err(error) => self.finding(&file_name, Position::default(), error),
            }
        }
        Ok(())
    }

    /// Takes in what was found of the next segment by itself.
    fn take(&mut self, files: &SegmentFiles, checked: CheckedSegment) {
        self.check_base(files);
        self.is_last_damaged = !checked.findings.is_empty();
        checked.findings.iter().for_each(|finding| self.report(finding));
        self.verified.notes.extend(checked.notes);
        self.verified.frames += checked.frames;
        self.verified.events += checked.events;
        self.verified.end = match checked.end {
            Some(end) => end,
            None => self.verified.end.max(checked.end_without_frames),
        };
        let log_name = files.name.log_file_name();
        for (number, name, position) in checked.topics {
            self.check_topic(&log_name, number, &name, position);
        }
        self.gone.push((files.name, checked.gone));
        if let Some(times) = checked.times {
            if times.first_ms < self.last_time_ms {
                let what =
                    format!("the time of event {} is before the one before", times.first_offset);
                self.finding(&log_name, times.position, what);
            }
            self.last_time_ms = times.last_ms;
        }
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

    /// Topics whose events are gone keep their numbers; they do not count as topics of the log any more.
    fn check_gone(&mut self) {
        for (segment, topics) in std::mem::take(&mut self.gone) {
            let file_name = segment.index_file_name();
            for topic in topics {
                self.check_topic(&file_name, topic.number, &topic.name, Position::default());
            }
        }
    }

    /// A topic has one number and one name in all segments.
    fn check_topic(
        &mut self,
        file_name: &str,
        number: TopicNumber,
        name: &str,
        position: Position,
    ) {
        if let Some(what) = self.names.check(number, name) {
            self.finding(file_name, position, what);
        }
    }
}

/// Whether a file holds what a repair cut off a segment.
pub(crate) fn is_kept_aside(file_name: &str) -> bool {
    is_aside(file_name)
        || file_name
            .split_once(".cut-")
            .is_some_and(|(segment, _)| SegmentName::parse(segment).is_some())
}
