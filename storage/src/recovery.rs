//! From a directory to the state of a log: which segments there are, where the log ends, what its
//! topics are. Every rule here has the crash that made it necessary in `docs/DURABILITY.md`.
//!
//! ```text
//! the newest good snapshot        its state is where all begins; nothing below the first offset that was kept
//!                                 when it was made is looked at
//! for each segment below it, in offset order:
//!   whose .idx is a stub          gone on purpose, be the rest of it damaged
//!   with a valid .idx             opened, and no more; if it was rewritten since, its topics are to be counted
//! for each segment behind it, or where the .idx of one below is damaged or missing:
//!   whose .idx is a stub         gone on purpose: its state delta is taken, and its log file removed; a damaged one
//!                                is made anew, if that is still there
//!   with a valid .idx            taken from it
//!   whose .idx cannot be read    the same as without one
//!   without, not the last        scanned; ends at its successor's base, which it must reach
//!   without, the last            scanned; the first invalid frame ends it, unless a header behind
//!                                says that more had been synced: then nothing is cut
//!   scanned ones                 made durable, what was prepared behind their frames given back (unless there is an
//!                                .idx, and they are not the last), and their .idx written and synced; if
//!                                compaction has taken events, with what these had added to the state: from what
//!                                is left of the .idx, or from the snapshot
//! ```
//! A last segment without events gets no `.idx`: the new active segment, which every start begins,
//! has the same base and is renamed over it.
//!
//! A log that ends before any of its snapshots, or before its end mark, has lost what was synced, and is not opened;
//! neither is one whose last segment, which the mark names, is not there, or whose events have added to the state what
//! nobody knows any more ([`crate::remains`]).
//!
//! Invariants:
//! 1. What is returned is on the device, however it was read.
//! 2. Nothing that was synced is cut; where that is in doubt, nothing is changed and the log is not
//!    opened.

use std::{collections::HashSet, io, path::Path};

use crate::{
    active_file::WriteMode,
    clock::PastStep,
    config::SyncMode,
    data_dir,
    end_mark::{self, EndMark},
    error::{Corruption, OpenError},
    index::TopicSummary,
    io::{Access, Disk, DiskFile, LockMode, is_unreadable},
    offset::{Offset, Position},
    once::IdWindow,
    segment::{SegmentHeader, SegmentName, Tag},
    segment_set::{SealedSegment, SegmentSet},
    snapshot::{Snapshot, read},
    state::LogState,
    stored_index::StoredIndex,
    topic::TopicNumber,
    topics::TopicTable,
};

mod checks;
mod durable;
mod files;
mod indexed;
mod known;
mod scanned;
mod stubs;
mod tail;

use files::Found;

/// What opening a log found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenReport {
    /// The log's tag from now on.
    pub tag: Tag,
    /// Whether the tag is new: the log is, or it ended uncleanly in a sync mode in which readers may
    /// have seen what is lost.
    pub is_new_tag: bool,
    /// How frames are written.
    pub write_mode: WriteMode,
    /// Where the log ends.
    pub end: Offset,
    /// Whether the last run closed it, or there was none.
    pub is_clean: bool,
    /// The segments that had no index.
    pub scanned: Vec<ScannedSegment>,
    /// Indexes that were damaged, or missing though a rewrite had made them, and were made anew: nothing is lost.
    pub remade: Vec<Corruption>,
    /// Stubs that are damaged, or cannot be read, of segments whose events are gone: a snapshot knows what they said.
    pub damaged: Vec<Corruption>,
    /// Where the last segment was cut, if there was something behind its last frame.
    pub cut: Option<Corruption>,
}

/// A segment that recovery had to scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScannedSegment {
    /// Which.
    pub name: SegmentName,
    /// How many events it holds.
    pub events: u64,
    /// How many bytes of frames.
    pub bytes: u64,
}

/// A log as recovery found it.
pub(crate) struct Recovered<D: Disk> {
    pub(crate) segments: SegmentSet<D>,
    pub(crate) topics: TopicTable,
    pub(crate) state: LogState,
    pub(crate) start: Offset,
    pub(crate) end: Offset,
    pub(crate) last_time_ms: u64,
    /// Topics that may have fewer events than the table says.
    pub(crate) lessened: HashSet<TopicNumber>,
    pub(crate) snapshot: SnapshotUsed,
    /// What is wrong with the end mark, if that says nothing.
    pub(crate) damaged_mark: Option<Corruption>,
    /// And with its steps.
    pub(crate) damaged_steps: Option<Corruption>,
    /// When the times of events went ahead, as far as anything says so.
    pub(crate) steps: Vec<PastStep>,
    pub(crate) report: OpenReport,
}

impl<D: Disk> Recovered<D> {
    /// Nothing before it is kept, as far as anything says so: segments that are gone, settings, rewritten segments.
    pub(crate) fn kept_from(&self) -> Offset {
        self.kept_for_good().max(self.segments.kept_from())
    }

    /// The same as far as it is said whatever becomes of the segments that are there.
    pub(crate) fn kept_for_good(&self) -> Offset {
        self.start.max(self.state.rules.keep_from())
    }
}

/// The snapshot that a log was opened from, and how far the log has gone on since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SnapshotUsed {
    /// Its length; 0 if there was none.
    pub(crate) bytes: u64,
    /// How many sealed segments, or stubs, lie behind it,
    pub(crate) segments_behind: u64,
    /// and how many bytes of files they have.
    pub(crate) bytes_behind: u64,
}

/// Takes the log's lock; makes its directory if there is none.
pub(crate) fn lock<D: Disk>(disk: &D, dir: &Path) -> Result<D::Lock, OpenError> {
    match disk.list(dir) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            disk.create_dir(dir).map_err(OpenError::io("making the directory", dir))?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(OpenError::NotOurs { dir: dir.to_owned(), what: "it is not a directory" });
        }
        Err(error) => return Err(OpenError::io("listing", dir)(error)),
    }
    data_dir::lock(disk, dir, LockMode::Exclusive)
}

/// What recovery has made. One that failed, and is tried again with more space, finds it made the second time.
#[derive(Default)]
pub(crate) struct Made {
    scanned: Vec<ScannedSegment>,
    remade: Vec<Corruption>,
    cut: Option<Corruption>,
}

impl Made {
    fn note_scanned(&mut self, segment: ScannedSegment) {
        self.scanned.retain(|known| known.name != segment.name);
        self.scanned.push(segment);
    }

    fn note_remade(&mut self, index: Corruption) {
        self.remade.retain(|known| known.file != index.file);
        self.remade.push(index);
    }
}

/// Recovers the log in `dir`, whose lock is held, and adds to what was `made`, also where it fails.
pub(crate) fn recover<D: Disk>(
    disk: &D,
    dir: &Path,
    window: IdWindow,
    made: &mut Made,
) -> Result<Recovered<D>, OpenError> {
    let (found, snapshots) = files::list_files(disk, dir)?;
    let (mut snapshot, lost) = files::newest_snapshot(disk, dir, &snapshots)?;
    let known = snapshot.as_ref().map_or(Offset::ZERO, Snapshot::offset);
    let begin = match &snapshot {
        Some(snapshot) => {
            let older = snapshots.iter().filter(|offset| **offset < known).copied();
            read::begin_by(disk, dir, snapshot.header(), &older.collect::<Vec<_>>())?
        }
        None => Offset::ZERO,
    };
    let found = found.into_iter().filter(|found| found.name.base_offset >= begin).collect();
    let mut outlived = Vec::new();
    let found = files::newest_generations(disk, dir, found, &mut outlived)?;
    let (mark, damaged_mark) = match end_mark::read(disk, dir)? {
        Some(Ok(mark)) => (Some(mark), None),
        Some(Err(damage)) => (None, Some(damage)),
        None => (None, None),
    };
    let (steps, damaged_steps) = match end_mark::read_steps(disk, dir)? {
        Ok(steps) => (steps, None),
        Err(damage) => (Vec::new(), Some(damage)),
    };
    let lost = match lost {
        // It alone may say why nothing is there before.
        Some(lost) if found.first().is_some_and(|first| first.name.base_offset > begin) => {
            return Err(lost);
        }
        // Another explains what it would have.
        lost => lost.filter(|_| snapshot.is_none()),
    };
    let last_base = found.last().map(|found| found.name.base_offset);
    if let Some((name, synced)) = end_mark::missing(mark, last_base) {
        let path = dir.join(name.log_file_name());
        return Err(corrupt(&path, Position::default(), end_mark::lost_with_last(synced)));
    }
    // A log without a sealed segment begins there as well.
    let mut segments = SegmentSet::default();
    segments.push_retired(begin..begin);
    let mut recovery = Recovery {
        disk,
        dir,
        segments,
        topics: TopicTable::default(),
        state: LogState::new(window),
        lessened: HashSet::new(),
        end: begin,
        last_time_ms: 0,
        snapshots: &snapshots,
        mark,
        lost,
        known_by: None,
        behind: SnapshotUsed::default(),
        damaged: Vec::new(),
        made,
    };
    // Of which of them an id that comes is older is not known yet.
    let ahead_ms = steps.iter().fold(0, |sum: u64, step| sum.saturating_add(step.ahead_ms));
    recovery.state.ids.lag(ahead_ms);
    if let Some(snapshot) = &mut snapshot {
        recovery.load(snapshot)?;
    }
    let mut last = Last::None;
    for (index, segment) in found.iter().enumerate() {
        let successor = found.get(index + 1).map(|next| next.name.base_offset);
        recovery.known_by = snapshot.as_ref().filter(|_| segment.name.base_offset < known);
        let is_taken = match recovery.known_by {
            Some(snapshot) => recovery.known(segment, snapshot, &mut last)?,
            None => false,
        };
        let is_taken = is_taken || (segment.has_index && recovery.stub(segment)?);
        if !is_taken {
            let header = recovery.check_header(segment)?;
            recovery.check_contiguity(segment)?;
            last = recovery.segment(segment, &header, successor)?;
        }
        if recovery.is_known() && recovery.end > known {
            let path = dir.join(segment.name.log_file_name());
            let what = format!("it goes on to {}, over the snapshot at {known}", recovery.end);
            return Err(corrupt(&path, Position::default(), what));
        }
    }
    recovery.check_end()?;
    if !recovery.made.scanned.is_empty() {
        disk.sync_dir(dir).map_err(OpenError::io("syncing the directory", dir))?;
    }
    for name in outlived {
        // Should the index that is made anew be damaged once more, when its events are gone, this one would stand for them.
        for path in [name.index_file_name(), name.log_file_name()].map(|file| dir.join(file)) {
            disk.remove_if_there(&path).map_err(OpenError::io("removing", &path))?;
        }
    }
    for ScannedSegment { name, bytes, .. } in &recovery.made.scanned {
        // The last block of what was prepared for more: why the frames end there need not be seen again.
        let has_successor = last_base.is_some_and(|last| name.base_offset < last);
        if let Ok(file) = disk.open(&dir.join(name.log_file_name()), Access::Write)
            && scanned::may_shorten(&file, has_successor)
        {
            let _ = file.set_size(*bytes);
        }
    }
    let floors = recovery.state.rules.floors().iter();
    let floors: Vec<_> = floors.map(|(topic, floor)| (topic.to_owned(), floor)).collect();
    recovery.topics.clear_former_lives(&floors);
    let (tag, is_new_tag) = match &last {
        Last::Segment { header, is_clean } if *is_clean || header.sync == SyncMode::Commit => {
            (header.tag, false)
        }
        _ => (Tag::random(), true),
    };
    let report = OpenReport {
        tag,
        is_new_tag,
        write_mode: WriteMode::Buffered,
        end: recovery.end,
        is_clean: match last {
            Last::None => true,
            Last::Segment { is_clean, .. } => is_clean,
        },
        scanned: std::mem::take(&mut recovery.made.scanned),
        remade: std::mem::take(&mut recovery.made.remade),
        damaged: recovery.damaged,
        cut: recovery.made.cut.take(),
    };
    Ok(Recovered {
        start: recovery.segments.start(),
        segments: recovery.segments,
        topics: recovery.topics,
        state: recovery.state,
        lessened: recovery.lessened,
        snapshot: recovery.behind,
        damaged_mark,
        damaged_steps,
        steps,
        end: recovery.end,
        last_time_ms: recovery.last_time_ms,
        report,
    })
}

/// How the log ended, from its last segment.
enum Last {
    None,
    Segment { header: SegmentHeader, is_clean: bool },
}

struct Recovery<'a, D: Disk> {
    disk: &'a D,
    dir: &'a Path,
    segments: SegmentSet<D>,
    topics: TopicTable,
    state: LogState,
    /// Topics of segments that were rewritten since they were counted.
    lessened: HashSet<TopicNumber>,
    end: Offset,
    last_time_ms: u64,
    /// The offsets of the snapshots, the newest first. Everything below was synced,
    snapshots: &'a [Offset],
    /// and everything below the synced offset of the end mark.
    mark: Option<EndMark>,
    /// What is wrong with the newest snapshot that is not sound.
    lost: Option<OpenError>,
    /// The snapshot, if the segment that is taken in lies below it: it has taken in what that says.
    known_by: Option<&'a Snapshot>,
    behind: SnapshotUsed,
    damaged: Vec<Corruption>,
    made: &'a mut Made,
}

impl<D: Disk> Recovery<'_, D> {
    fn is_known(&self) -> bool {
        self.known_by.is_some()
    }

    /// Takes in what a segment says beside topics, unless the snapshot has.
    fn add_state(&mut self, path: &Path, index: &StoredIndex<D::File>) -> Result<(), OpenError> {
        if self.is_known() {
            return Ok(());
        }
        index.add_to(&mut self.state).map_err(OpenError::io("reading", path))
    }

    fn note_behind(&mut self, bytes: u64) {
        if !self.is_known() {
            self.behind.segments_behind += 1;
            self.behind.bytes_behind += bytes;
        }
    }

    fn push_sealed(&mut self, segment: SealedSegment<D>) {
        self.note_behind(segment.file_bytes());
        self.segments.push(segment);
    }

    fn add_topic(
        &mut self,
        path: &Path,
        header: &SegmentHeader,
        end: Offset,
        name: &str,
        topic: &TopicSummary,
    ) -> Result<(), OpenError> {
        let is_inside = topic.event_count > 0
            && topic.first_offset >= header.base_offset
            && topic.last_offset >= topic.first_offset
            && topic.last_offset < end;
        if !is_inside {
            let what = format!("the offsets of topic `{name}` are not those of the segment");
            return Err(corrupt(path, Position::default(), what));
        }
        self.topics
            .declare(topic.number, name)
            .map_err(|conflict| corrupt(path, Position::default(), conflict.to_string()))?;
        if self.is_known() {
            // The snapshot has counted them, be it as another generation.
            self.lessened.insert(topic.number);
            return Ok(());
        }
        self.topics.add_events(
            topic.number,
            topic.event_count,
            topic.first_offset,
            topic.last_offset,
            topic.last_time_ms,
        );
        Ok(())
    }
}

/// What the disk does not give back of an index is as good as damaged, where the segment itself is there to make another of
/// it.
fn unless_unreadable<T>(
    found: &Found,
    index_path: &Path,
    read: Result<Option<T>, OpenError>,
) -> Result<Option<T>, OpenError> {
    match read {
        Err(OpenError::Io { action: "reading", file, source })
            if found.has_log && file == index_path && is_unreadable(&source) =>
        {
            Ok(None)
        }
        read => read,
    }
}

/// The error for damage.
fn corrupt(file: &Path, position: Position, what: String) -> OpenError {
    OpenError::Corrupt(Corruption { file: file.to_owned(), position, what })
}

#[cfg(test)]
mod tests;
