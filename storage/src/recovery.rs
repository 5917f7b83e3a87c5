//! From a directory to the state of a log: which segments there are, where the log ends, what its
//! topics are. Every rule here has the crash that made it necessary in `docs/DURABILITY.md`.
//!
//! ```text
//! the newest good snapshot        its state is where all begins; nothing below the first offset that was kept
//!                                 when it was made is looked at
//! for each segment below it, in offset order:
//!   whose .idx is a stub          gone on purpose
//!   with a valid .idx             opened, and no more; if it was rewritten since, its topics are to be counted
//! for each segment behind it, or where the .idx of one below is damaged:
//!   whose .idx is a stub         gone on purpose: its state delta is taken, and its log file removed
//!   with a valid .idx            taken from it
//!   without, not the last        scanned; ends at its successor's base, which it must reach
//!   without, the last            scanned; the first invalid frame ends it, unless a header behind
//!                                says that more had been synced: then nothing is cut
//!   scanned ones                 made durable, and their .idx written and synced
//! ```
//! A last segment without events gets no `.idx`: the new active segment, which every start begins,
//! has the same base and is renamed over it.
//!
//! A log that ends before any of its snapshots has lost what was synced, and is not opened.
//!
//! Invariants:
//! 1. What is returned is on the device, however it was read.
//! 2. Nothing that was synced is cut; where that is in doubt, nothing is changed and the log is not
//!    opened.

use std::{collections::HashSet, io, path::Path};

use crate::{
    config::SyncMode,
    error::{Corruption, OpenError},
    frame::{FRAME_VERSION, FrameError, Seed},
    index::TopicSummary,
    io::{Access, Disk, DiskFile, LockMode},
    listing,
    mutation::{self, Mutation},
    offset::{Offset, Position},
    once::IdWindow,
    op::WriteMode,
    scan::{self, ScanEnd},
    seal,
    segment::{
        SEGMENT_HEADER_BYTES, SEGMENT_VERSION, SegmentError, SegmentHeader, SegmentName, Tag,
    },
    segment_set::{SealedSegment, SegmentSet},
    snapshot::{self, Snapshot, read},
    state::LogState,
    stored_index::StoredIndex,
    topic::TopicNumber,
    topics::{TopicConflict, TopicTable},
};

mod durable;
mod files;
mod tail;

use files::Found;
use tail::TailScan;

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
    pub(crate) report: OpenReport,
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
    disk.lock_dir(dir, LockMode::Exclusive).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked { dir: dir.to_owned() },
        _ => OpenError::io("locking", dir)(error),
    })
}

/// Recovers the log in `dir`, whose lock is held.
pub(crate) fn recover<D: Disk>(
    disk: &D,
    dir: &Path,
    window: IdWindow,
) -> Result<Recovered<D>, OpenError> {
    let (found, snapshots) = files::list_files(disk, dir)?;
    let (snapshot, damaged) = files::newest_snapshot(disk, dir, &snapshots)?;
    let known = snapshot.as_ref().map_or(Offset::ZERO, Snapshot::offset);
    let begin = match &snapshot {
        Some(snapshot) => {
            let older = snapshots.iter().filter(|offset| **offset < known).copied();
            read::begin_by(disk, dir, snapshot.header(), &older.collect::<Vec<_>>())?
        }
        None => Offset::ZERO,
    };
    let found = found.into_iter().filter(|found| found.name.base_offset >= begin).collect();
    let found = files::newest_generations(disk, dir, found)?;
    if let Some(damage) = damaged
        && found.first().is_some_and(|first| first.name.base_offset > begin)
    {
        // It alone may say why nothing is there before.
        return Err(OpenError::Corrupt(damage));
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
        synced_end: snapshots.first().copied().unwrap_or_default(),
        is_known: false,
        behind: SnapshotUsed::default(),
        scanned: Vec::new(),
        cut: None,
    };
    if let Some(snapshot) = &snapshot {
        recovery.load(snapshot)?;
    }
    let mut last = Last::None;
    for (index, segment) in found.iter().enumerate() {
        let successor = found.get(index + 1).map(|next| next.name.base_offset);
        recovery.is_known = segment.name.base_offset < known;
        let is_taken = match snapshot.as_ref().filter(|_| recovery.is_known) {
            Some(snapshot) => recovery.known(segment, snapshot, &mut last)?,
            None => false,
        };
        let is_taken = is_taken || (segment.has_index && recovery.stub(segment)?);
        if !is_taken {
            let header = recovery.check_header(segment)?;
            recovery.check_contiguity(segment)?;
            last = recovery.segment(segment, &header, successor)?;
        }
        if recovery.is_known && recovery.end > known {
            let path = dir.join(segment.name.log_file_name());
            let what = format!("it goes on to {}, over the snapshot at {known}", recovery.end);
            return Err(corrupt(&path, Position::default(), what));
        }
    }
    recovery.check_end(&snapshots)?;
    if !recovery.scanned.is_empty() {
        disk.sync_dir(dir).map_err(OpenError::io("syncing the directory", dir))?;
    }
    for ScannedSegment { name, bytes, .. } in &recovery.scanned {
        // What was prepared for more is of no use any more, and a full disk may need it for the next segment.
        if let Ok(file) = disk.open(&dir.join(name.log_file_name()), Access::Write) {
            let _ = file.set_size(*bytes);
        }
    }
    let floors = recovery.state.rules.floors().iter();
    let floors: Vec<_> = floors.map(|(topic, floor)| (topic.to_owned(), floor)).collect();
    recovery.topics.clear_below(&floors);
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
        scanned: recovery.scanned,
        cut: recovery.cut,
    };
    Ok(Recovered {
        start: recovery.segments.start(),
        segments: recovery.segments,
        topics: recovery.topics,
        state: recovery.state,
        lessened: recovery.lessened,
        snapshot: recovery.behind,
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
    /// Everything below was synced, as there is a snapshot of it.
    synced_end: Offset,
    /// The segment that is taken in lies below the snapshot, which has taken in what it says.
    is_known: bool,
    behind: SnapshotUsed,
    scanned: Vec<ScannedSegment>,
    cut: Option<Corruption>,
}

impl<D: Disk> Recovery<'_, D> {
    /// Begins with the state of a snapshot.
    fn load(&mut self, snapshot: &Snapshot) -> Result<(), OpenError> {
        let path = self.dir.join(snapshot::file_name(snapshot.offset()));
        let conflict =
            |error: TopicConflict| corrupt(&path, Position::default(), error.to_string());
        snapshot.for_each_topic(|topic| {
            let number = topic.number;
            self.topics.declare(number, topic.name).map_err(conflict)?;
            if topic.count > 0 {
                let (first, last) = (topic.first, topic.last);
                self.topics.add_events(number, topic.count, first, last, topic.first_time_ms);
            }
            self.topics.note_last(number, topic.last, topic.last_time_ms);
            if topic.is_lessened {
                self.lessened.insert(number);
            }
            Ok::<(), OpenError>(())
        })?;
        snapshot.add_to(&mut self.state);
        self.last_time_ms = snapshot.header().last_time_ms;
        self.behind.bytes = snapshot.header().file_bytes;
        Ok(())
    }

    /// Takes in a segment that lies below the snapshot by opening it. `false` if it must be looked at like any
    /// other: its index is missing or damaged.
    fn known(
        &mut self,
        found: &Found,
        snapshot: &Snapshot,
        last: &mut Last,
    ) -> Result<bool, OpenError> {
        self.check_contiguity(found)?;
        if !found.has_index {
            return Ok(false);
        }
        let path = self.dir.join(found.name.index_file_name());
        let Some(header) = listing::index_header(self.disk, self.dir, found.name)? else {
            return Ok(false);
        };
        if header.base_offset != found.name.base_offset {
            return Ok(false);
        }
        let counted = snapshot.segment(found.name.base_offset);
        if header.is_stub() {
            // Before all that is kept it is known that events are gone.
            if counted.is_some() && !self.segments.is_empty() {
                let Some(index) = StoredIndex::read(self.disk, &path)? else { return Ok(false) };
                self.lessened.extend(snapshot.lessened_by(&index, false));
            }
            self.remove_retired_log(found)?;
            self.segments.push_retired(header.base_offset..header.end_offset);
            self.end = header.end_offset;
            return Ok(true);
        }
        if !found.has_log || header.end_offset == header.base_offset {
            return Ok(false);
        }
        let segment = match SealedSegment::open(self.disk, self.dir, found.name) {
            Ok(segment) => segment,
            Err(OpenError::Corrupt(_)) => return Ok(false),
            Err(error) => return Err(error),
        };
        self.check_length(found, header.end_position)?;
        let is_as_counted = counted.is_some_and(|counted| {
            counted.generation == found.name.generation
                && counted.incarnation == segment.header().incarnation
        });
        if !is_as_counted {
            let Some(index) = StoredIndex::read(self.disk, &path)? else { return Ok(false) };
            let has_gaps = segment.index().gaps().len() > 0;
            self.lessened.extend(snapshot.lessened_by(&index, has_gaps));
        }
        *last = Last::Segment { header: segment.header().clone(), is_clean: false };
        self.end = segment.end();
        self.segments.push(segment);
        Ok(true)
    }

    /// A log that has a snapshot had been synced up to its offset.
    fn check_end(&self, snapshots: &[Offset]) -> Result<(), OpenError> {
        match snapshots.first() {
            Some(newest) if *newest > self.end => {
                Err(read::ends_before(self.dir, *newest, self.end))
            }
            _ => Ok(()),
        }
    }

    /// The header of a segment's log file. A file gets its name after its header is synced, so
    /// whatever is wrong with it is no torn write.
    fn check_header(&self, found: &Found) -> Result<SegmentHeader, OpenError> {
        let path = self.dir.join(found.name.log_file_name());
        let corrupt = |what: String| corrupt(&path, Position::default(), what);
        if !found.has_log {
            return Err(corrupt("is missing, but its index is there".to_owned()));
        }
        let file = self.disk.open(&path, Access::Read).map_err(OpenError::io("opening", &path))?;
        let mut bytes = vec![0; SEGMENT_HEADER_BYTES];
        match file.read_exact_at(&mut bytes, Position::default()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(corrupt("the file is shorter than its header".to_owned()));
            }
            Err(error) => return Err(OpenError::io("reading", &path)(error)),
        }
        let header = SegmentHeader::decode(&bytes).map_err(|error| match error {
            SegmentError::NewerVersion { version } => OpenError::NewerVersion {
                file: path.clone(),
                version,
                version_max: SEGMENT_VERSION,
            },
            error => corrupt(error.to_string()),
        })?;
        if header.base_offset != found.name.base_offset {
            return Err(corrupt(format!(
                "its header says that it begins at {}",
                header.base_offset
            )));
        }
        Ok(header)
    }

    /// Takes in a segment whose events are gone on purpose; `false` if it is another.
    fn stub(&mut self, found: &Found) -> Result<bool, OpenError> {
        let path = self.dir.join(found.name.index_file_name());
        let Some(index) = StoredIndex::read(self.disk, &path)? else { return Ok(false) };
        let header = index.header();
        if !header.is_stub() {
            return Ok(false);
        }
        if header.base_offset != found.name.base_offset {
            let what = format!("it says that it begins at {}", header.base_offset);
            return Err(corrupt(&path, Position::default(), what));
        }
        self.check_contiguity(found)?;
        let (base, end) = (header.base_offset, header.end_offset);
        index.for_each_topic(|name, topic| {
            self.topics
                .declare(topic.number, name)
                .map_err(|conflict| corrupt(&path, Position::default(), conflict.to_string()))?;
            self.topics.note_last(topic.number, topic.last_offset, topic.last_time_ms);
            Ok::<_, OpenError>(())
        })?;
        self.add_gone(&path, &index)?;
        if !mutation::is_planted(Mutation::DeltasNotReplayed) {
            self.add_state(&index);
        }
        self.segments.push_retired(base..end);
        self.end = end;
        self.last_time_ms = self.last_time_ms.max(index.header().last_time_ms);
        self.note_behind(index.header().index_bytes);
        self.remove_retired_log(found)?;
        Ok(true)
    }

    /// Finishes a removal that was cut short.
    fn remove_retired_log(&self, found: &Found) -> Result<(), OpenError> {
        if !found.has_log {
            return Ok(());
        }
        // The stub's name comes first, and may be what the kernel alone knows.
        self.disk.sync_dir(self.dir).map_err(OpenError::io("syncing the directory", self.dir))?;
        let path = self.dir.join(found.name.log_file_name());
        self.disk.remove(&path).map_err(OpenError::io("removing", &path))
    }

    /// Takes in what a segment says beside topics, unless the snapshot has.
    fn add_state(&mut self, index: &StoredIndex) {
        if !self.is_known {
            index.add_to(&mut self.state);
        }
    }

    fn note_behind(&mut self, bytes: u64) {
        if !self.is_known {
            self.behind.segments_behind += 1;
            self.behind.bytes_behind += bytes;
        }
    }

    /// A segment begins where the one before it ended.
    fn check_contiguity(&self, found: &Found) -> Result<(), OpenError> {
        let base = found.name.base_offset;
        if base > self.end {
            let dir = self.dir.to_owned();
            return Err(OpenError::MissingSegment { dir, from: self.end, to: base });
        }
        if base < self.end {
            let path = self.dir.join(found.name.log_file_name());
            let what = format!("the segment before it goes on to {}", self.end);
            return Err(corrupt(&path, Position::default(), what));
        }
        Ok(())
    }

    /// Takes in one segment: from its index if that is valid, else by scanning it.
    fn segment(
        &mut self,
        found: &Found,
        header: &SegmentHeader,
        successor: Option<Offset>,
    ) -> Result<Last, OpenError> {
        let path = self.dir.join(found.name.log_file_name());
        let last = |is_clean| Last::Segment { header: header.clone(), is_clean };
        if found.has_index && self.take_from_index(found, header)? {
            // A last segment that is sealed was sealed by a start that went no further: whether the
            // run before it ended cleanly is not known any more.
            return Ok(last(false));
        }
        let file = self.disk.open(&path, Access::Write).map_err(OpenError::io("opening", &path))?;
        let scan =
            TailScan::run(&file, header, successor).map_err(OpenError::io("reading", &path))?;
        if let ScanEnd::Invalid(FrameError::NewerVersion { version, .. }) = &scan.why {
            return Err(OpenError::NewerVersion {
                file: path,
                version: u32::from(*version),
                version_max: u32::from(FRAME_VERSION),
            });
        }
        if let Some(successor) = successor {
            if scan.end.end_offset != successor {
                let what = format!("{}, but the next segment begins at {successor}", scan.why);
                return Err(corrupt(&path, scan.end.end_position, what));
            }
        } else {
            self.check_cut(&path, &file, header, &scan)?;
        }
        if mutation::is_planted(Mutation::IndexAheadOfSegment) && scan.index.event_count() > 0 {
            seal::write_index(self.disk, self.dir, found.name, &scan.index.finish(&scan.end))?;
            self.disk.sync_dir(self.dir).map_err(OpenError::io("syncing", self.dir))?;
        }
        durable::make_durable(
            self.disk,
            self.dir,
            &path,
            &file,
            header,
            &scan,
            successor.is_none(),
        )?;
        if scan.end.end_offset == header.base_offset {
            // Only the last can be without events; the new active segment takes its name.
            return Ok(last(scan.is_clean));
        }
        let is_clean = scan.is_clean;
        self.take_scanned(found, header, &path, scan)?;
        Ok(last(is_clean))
    }

    /// Nothing that was synced is cut.
    fn check_cut(
        &mut self,
        path: &Path,
        file: &D::File,
        header: &SegmentHeader,
        scan: &TailScan,
    ) -> Result<(), OpenError> {
        let seed = Seed::of(&header.incarnation);
        let proof = scan::synced_beyond(file, seed, scan.end.end_position, scan.end.end_offset)
            .map_err(OpenError::io("reading", path))?;
        let proof = proof.filter(|_| !mutation::is_planted(Mutation::NoHoleCheck));
        if proof.is_none() && scan.end.end_offset < self.synced_end {
            let what = format!(
                "{}: the log ends at offset {} here, but a snapshot says that everything below {} had been \
                 synced",
                scan.why, scan.end.end_offset, self.synced_end
            );
            return Err(corrupt(path, scan.end.end_position, what));
        }
        if let Some((position, synced)) = proof {
            let what = format!(
                "{}: the log ends at offset {} here, but the frame at position {position} says that \
                 everything below {synced} had been synced",
                scan.why, scan.end.end_offset
            );
            return Err(corrupt(path, scan.end.end_position, what));
        }
        if scan.why != ScanEnd::Invalid(FrameError::Blank) {
            self.cut = Some(Corruption {
                file: path.to_owned(),
                position: scan.end.end_position,
                what: scan.why.to_string(),
            });
        }
        Ok(())
    }

    fn take_scanned(
        &mut self,
        found: &Found,
        header: &SegmentHeader,
        path: &Path,
        scan: TailScan,
    ) -> Result<(), OpenError> {
        let bytes = scan.index.finish(&scan.end);
        seal::write_index(self.disk, self.dir, found.name, &bytes)?;
        for (name, topic) in scan.index.topics() {
            self.add_topic(path, header, scan.end.end_offset, name, &topic)?;
        }
        if !self.is_known {
            self.state.add_delta(scan.index.delta());
        }
        self.push_sealed(SealedSegment::open(self.disk, self.dir, found.name)?);
        self.end = scan.end.end_offset;
        self.last_time_ms = self.last_time_ms.max(scan.index.last_time_ms());
        self.scanned.push(ScannedSegment {
            name: found.name,
            events: scan.index.event_count(),
            bytes: scan.end.end_position.get(),
        });
        Ok(())
    }

    /// Takes in a segment from its index, if it has a valid one: its state delta, and where it ends.
    fn take_from_index(
        &mut self,
        found: &Found,
        header: &SegmentHeader,
    ) -> Result<bool, OpenError> {
        let path = self.dir.join(found.name.index_file_name());
        let Some(index) = StoredIndex::read(self.disk, &path)? else {
            if found.name.generation == 1 {
                return Ok(false);
            }
            // It alone knows what the events that compaction took had added to the state.
            let what = "the index of a rewritten segment is damaged".to_owned();
            return Err(corrupt(&path, Position::default(), what));
        };
        let end = index.header().end_offset;
        if !index.header().belongs_to(header) || end == header.base_offset {
            return Ok(false);
        }
        self.check_length(found, index.header().end_position)?;
        // Some at a time, so that the waits for what is known of them overlap.
        let mut some = SomeTopics::default();
        index.for_each_topic(|name, topic| {
            some.push(name, topic);
            if some.topics.len() < SomeTopics::COUNT {
                return Ok(());
            }
            self.add_topics(&path, header, end, &mut some)
        })?;
        self.add_topics(&path, header, end, &mut some)?;
        self.add_gone(&path, &index)?;
        self.add_state(&index);
        self.push_sealed(SealedSegment::open(self.disk, self.dir, found.name)?);
        self.end = end;
        self.last_time_ms = self.last_time_ms.max(index.header().last_time_ms);
        Ok(true)
    }

    fn push_sealed(&mut self, segment: SealedSegment<D>) {
        self.note_behind(segment.file_bytes());
        self.segments.push(segment);
    }

    /// A sealed log file is as long as its index says, or longer.
    fn check_length(&self, found: &Found, end: Position) -> Result<(), OpenError> {
        let path = self.dir.join(found.name.log_file_name());
        let file = self.disk.open(&path, Access::Read).map_err(OpenError::io("opening", &path))?;
        let size = file.size().map_err(OpenError::io("reading", &path))?;
        if size < end.get() {
            let what = format!("the file ends here, but its index says that frames go on to {end}");
            return Err(corrupt(&path, Position::new(size), what));
        }
        Ok(())
    }

    fn add_gone(&mut self, path: &Path, index: &StoredIndex) -> Result<(), OpenError> {
        for topic in index.gone() {
            self.topics
                .declare(topic.number, &topic.name)
                .map_err(|conflict| corrupt(path, Position::default(), conflict.to_string()))?;
            self.topics.note_last(topic.number, topic.last_offset, topic.last_time_ms);
        }
        Ok(())
    }

    fn add_topics(
        &mut self,
        path: &Path,
        header: &SegmentHeader,
        end: Offset,
        some: &mut SomeTopics,
    ) -> Result<(), OpenError> {
        self.topics.look_at_names(some.topics.iter().map(|(_, topic)| topic.number));
        let mut start = 0;
        for (name_end, topic) in &some.topics {
            self.add_topic(path, header, end, &some.names[start..*name_end], topic)?;
            start = *name_end;
        }
        some.clear();
        Ok(())
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
        if self.is_known {
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

/// Topics of an index, with the ends of their names among all of those.
#[derive(Default)]
struct SomeTopics {
    names: String,
    topics: Vec<(usize, TopicSummary)>,
}

impl SomeTopics {
    const COUNT: usize = 64;

    fn push(&mut self, name: &str, topic: &TopicSummary) {
        self.names.push_str(name);
        self.topics.push((self.names.len(), *topic));
    }

    fn clear(&mut self) {
        self.names.clear();
        self.topics.clear();
    }
}

/// The error for damage.
fn corrupt(file: &Path, position: Position, what: String) -> OpenError {
    OpenError::Corrupt(Corruption { file: file.to_owned(), position, what })
}

#[cfg(test)]
mod tests;
