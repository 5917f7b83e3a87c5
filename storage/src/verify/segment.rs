//! One segment: its header, every frame, and its index against the frames. Knows no other segment, so
//! that several are checked at the same time.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    end_mark::{self, END_MARK_FILE_NAME},
    error::Corruption,
    frame::{Frame, FrameError, Seed},
    index::{
        self, Carried, IndexBuilder, IndexHeader, SectionKind, SegmentEnd,
        gone::{GoneTopic, decode_gone},
    },
    io::{Access, Disk, DiskFile},
    offset::{Offset, Position},
    scan::{self, FrameScan, ScanEnd},
    segment::{SEGMENT_HEADER_BYTES, SegmentHeader},
    topic::TopicNumber,
    verify::{Progress, SegmentFiles},
};

/// What was found in one segment.
#[derive(Debug, Default)]
pub(crate) struct CheckedSegment {
    pub(crate) findings: Vec<Corruption>,
    pub(super) notes: Vec<String>,
    pub(super) frames: u64,
    pub(super) events: u64,
    /// Where its frames end; `None` if they could not be looked at to the end,
    pub(crate) end: Option<Offset>,
    /// and then where it ends at least.
    pub(crate) end_without_frames: Offset,
    /// Its topics in the order in which they came, and the frame that named each first.
    pub(crate) topics: Vec<(TopicNumber, Arc<str>, Position)>,
    /// Those of whose events there the last is gone, as its index says.
    pub(crate) gone: Vec<GoneTopic>,
    /// The times of its first and last event.
    pub(super) times: Option<Times>,
}

/// From when to when the events of a segment are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) first_ms: u64,
    pub(super) first_offset: Offset,
    /// Of the frame that the first event is in.
    pub(super) position: Position,
    pub(super) last_ms: u64,
}

/// How far the frames of a segment must reach.
#[derive(Clone, Copy, Debug)]
enum Reach {
    /// Up to here, its index says.
    Position(Position),
    /// Up to the first offset of the segment behind it, whatever lies behind.
    Offset(Offset),
    /// It is the last: up to the first invalid frame, if nothing says that more had been synced; at least this had.
    Torn(Offset),
}

/// The check of one segment.
pub(super) struct SegmentCheck<'a, D: Disk> {
    disk: &'a D,
    dir: &'a Path,
    progress: &'a Progress,
    /// Where the end mark says that the log had been synced to.
    synced: Offset,
    /// Where it ends, if its index says so, or another segment follows.
    known_end: Option<Offset>,
    checked: CheckedSegment,
    /// The names of its topics by number, and back.
    names: HashMap<TopicNumber, Arc<str>>,
    numbers: HashMap<Arc<str>, TopicNumber>,
}

impl<'a, D: Disk> SegmentCheck<'a, D> {
    /// Checks a segment, which ends where its successor begins if it has one, and must reach `synced` if it has none.
    pub(super) fn run(
        disk: &'a D,
        dir: &'a Path,
        files: &SegmentFiles,
        successor: Option<Offset>,
        synced: Offset,
        progress: &'a Progress,
    ) -> CheckedSegment {
        let mut check = SegmentCheck {
            disk,
            dir,
            progress,
            synced,
            known_end: None,
            checked: CheckedSegment::default(),
            names: HashMap::new(),
            numbers: HashMap::new(),
        };
        let seen = check.check(files, successor);
        // An index, and what lies behind the last frame, are no work to speak of.
        progress.add(files.bytes.saturating_sub(seen));
        check.checked
    }

    fn finding(&mut self, file_name: &str, position: Position, what: impl ToString) {
        let file = self.path(file_name);
        self.checked.findings.push(Corruption { file, position, what: what.to_string() });
    }

    fn note(&mut self, file_name: &str, what: &str) {
        self.checked.notes.push(format!("{}: {what}", self.path(file_name).display()));
    }

    fn path(&self, file_name: &str) -> PathBuf {
        self.dir.join(file_name)
    }

    /// Returns how many bytes of it were told as progress.
    fn check(&mut self, files: &SegmentFiles, successor: Option<Offset>) -> u64 {
        let mut seen = 0;
        self.check_files(files, successor, &mut seen);
        seen
    }

    fn check_files(&mut self, files: &SegmentFiles, successor: Option<Offset>, seen: &mut u64) {
        let index = if files.has_index { self.check_index(files) } else { None };
        let log_name = files.name.log_file_name();
        let has_sound_index = index.is_some();
        let index = index.filter(|(index, _)| self.check_place(files, index));
        let is_misplaced = has_sound_index && index.is_none();
        if let Some((index, bytes)) = index.as_ref().filter(|(index, _)| index.is_stub()) {
            self.checked.gone = gone_of(index, bytes);
            self.checked.end = Some(index.end_offset);
            if files.has_log {
                self.note(&log_name, "its events are gone on purpose; the next start removes it");
            }
            return;
        }
        // What is known of its end if its frames cannot be looked at.
        let index_end = index.as_ref().map(|(header, _)| header.end_offset);
        self.known_end = index_end.or(successor);
        self.checked.end_without_frames = self.known_end.unwrap_or(files.name.base_offset);
        if !files.has_log && is_misplaced {
            return;
        }
        if !files.has_log {
            let index_name = files.name.index_file_name();
            if !files.has_index {
                // Only the end mark knows of it.
                let what = end_mark::lost_with_last(self.synced);
                return self.finding(&log_name, Position::default(), what);
            }
            let what = format!("its {log_name} is missing");
            return self.finding(&index_name, Position::default(), what);
        }
        let file = match self.disk.open(&self.dir.join(&log_name), Access::Read) {
            Ok(file) => file,
            Err(error) => return self.unreadable(&log_name, Position::default(), &error),
        };
        let Some(header) = self.check_header(files, &file) else { return };
        let index = index.filter(|(index, _)| self.check_pair(files, &header, index));
        if let (Some((index, _)), Ok(size)) = (&index, file.size())
            && size < index.end_position.get()
        {
            let what = format!("the file ends here, its frames at position {}", index.end_position);
            return self.finding(&log_name, Position::new(size), what);
        }
        let reach = match (&index, successor) {
            (Some((index, _)), _) => Reach::Position(index.end_position),
            (None, Some(successor)) => Reach::Offset(successor),
            (None, None) => Reach::Torn(self.synced),
        };
        let Some((end, builder)) = self.check_frames(&log_name, &file, &header, reach, seen) else {
            return;
        };
        let Some(builder) = builder else {
            // What is damaged there was named.
            self.checked.end = Some(self.known_end.unwrap_or(end.end_offset));
            return;
        };
        self.checked.end = Some(end.end_offset);
        let is_missed = !files.has_index && files.name.generation > 1;
        match index {
            Some((index, bytes)) => {
                self.checked.gone = gone_of(&index, &bytes);
                self.check_rebuilt(files, &index, &bytes, &end, &builder);
            }
            None if is_missed && !builder.says_all(end.end_offset) => {
                let what = "is missing: of events that are gone from its segment it alone said all that they had \
                            added to the state of the log";
                self.finding(&files.name.index_file_name(), Position::default(), what);
            }
            None => {}
        }
    }

    fn unreadable(&mut self, file_name: &str, position: Position, error: &io::Error) {
        self.finding(file_name, position, format!("cannot be read: {error}"));
    }

    fn check_header(&mut self, files: &SegmentFiles, file: &D::File) -> Option<SegmentHeader> {
        let log_name = files.name.log_file_name();
        let mut bytes = vec![0; SEGMENT_HEADER_BYTES];
        let header = match file.read_exact_at(&mut bytes, Position::default()) {
            Ok(()) => SegmentHeader::decode(&bytes).map_err(|error| error.to_string()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err("the file ends inside its header".to_owned())
            }
            Err(error) => Err(format!("cannot be read: {error}")),
        };
        let header = match header {
            Ok(header) => header,
            Err(what) => {
                self.finding(&log_name, Position::default(), what);
                return None;
            }
        };
        if header.base_offset != files.name.base_offset {
            let what = format!(
                "its header says that it begins at offset {}, its name says {}",
                header.base_offset, files.name.base_offset
            );
            self.finding(&log_name, Position::default(), what);
            return None;
        }
        Some(header)
    }

    /// The index by itself: its checksums, blocks and lists.
    fn check_index(&mut self, files: &SegmentFiles) -> Option<(IndexHeader, Vec<u8>)> {
        let index_name = files.name.index_file_name();
        let path = self.dir.join(&index_name);
        let bytes = self.disk.open(&path, Access::Read).and_then(|file| {
            let size = usize::try_from(file.size()?).map_err(io::Error::other)?;
            let mut bytes = vec![0; size];
            file.read_exact_at(&mut bytes, Position::default())?;
            Ok(bytes)
        });
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) => {
                self.unreadable(&index_name, Position::default(), &error);
                return None;
            }
        };
        if let Err(error) = index::check_all(&bytes) {
            let position = IndexHeader::decode(&bytes).ok().and_then(|header| match &error {
                index::IndexError::Checksum { section } => Some(header.section(*section).position),
                _ => None,
            });
            self.finding(&index_name, position.unwrap_or_default(), error);
            return None;
        }
        let header = IndexHeader::decode(&bytes).expect("all of it was checked");
        Some((header, bytes))
    }

    /// Whether an index that stands alone, or a stub, has the name of the segment that it is of.
    fn check_place(&mut self, files: &SegmentFiles, index: &IndexHeader) -> bool {
        // A log file beside it says more.
        let is_beside = files.has_log && !index.is_stub();
        if is_beside || index.base_offset == files.name.base_offset {
            return true;
        }
        let what = format!("it says that it begins at {}", index.base_offset);
        self.finding(&files.name.index_file_name(), Position::default(), what);
        false
    }

    /// Whether an index belongs to the log file beside it.
    fn check_pair(
        &mut self,
        files: &SegmentFiles,
        header: &SegmentHeader,
        index: &IndexHeader,
    ) -> bool {
        if index.belongs_to(header) && index.tag == header.tag {
            return true;
        }
        let what = format!(
            "is the index of another file: of incarnation {} from offset {}, not {} from offset {}",
            index.incarnation, index.base_offset, header.incarnation, header.base_offset
        );
        let index_name = files.name.index_file_name();
        self.finding(&index_name, Position::default(), what);
        false
    }

    /// Goes over the frames. Returns where they end, and an index built from them unless any of them
    /// was damaged; `None` if the file could not be read to the end.
    fn check_frames(
        &mut self,
        log_name: &str,
        file: &D::File,
        header: &SegmentHeader,
        reach: Reach,
        seen: &mut u64,
    ) -> Option<(SegmentEnd, Option<IndexBuilder>)> {
        let mut scan = FrameScan::new(file, header);
        let mut builder = Some(IndexBuilder::new(header));
        loop {
            let end = scan.end();
            self.progress.add(end.end_position.get() - *seen);
            *seen = end.end_position.get();
            let reached = match reach {
                Reach::Position(position) => end.end_position >= position,
                Reach::Offset(offset) => end.end_offset >= offset,
                Reach::Torn(_) => false,
            };
            if reached {
                return Some((end, builder));
            }
            let step = self.check_next(log_name, file, header, reach, &mut scan, &mut builder);
            match step {
                Ok(true) => {}
                Ok(false) => return Some((end, builder)),
                Err(error) => {
                    self.unreadable(log_name, end.end_position, &error);
                    return None;
                }
            }
        }
    }

    /// Checks what stands at the next place; `false` if no frame follows.
    fn check_next(
        &mut self,
        log_name: &str,
        file: &D::File,
        header: &SegmentHeader,
        reach: Reach,
        scan: &mut FrameScan<'_, D::File>,
        builder: &mut Option<IndexBuilder>,
    ) -> io::Result<bool> {
        let end = scan.end();
        let why = match scan.next_frame()? {
            Ok((frame, position)) => {
                self.check_frame(log_name, &frame, position);
                if let Some(Err(error)) = builder.as_mut().map(|index| index.add(&frame, position))
                {
                    self.finding(log_name, position, error);
                    *builder = None;
                }
                return Ok(true);
            }
            Err(why) => why,
        };
        if let ScanEnd::Invalid(FrameError::Lost { why }) = &why
            && let Some((lost, position, frame_bytes)) = scan.step_over_lost()?
        {
            let what = format!("events from {} to {} are lost: {why}", lost.start, lost.end);
            self.note(log_name, &what);
            if let Some(builder) = builder {
                builder.add_gap(lost, position, frame_bytes);
            }
            return Ok(true);
        }
        let mut what = why.to_string();
        if let Reach::Torn(synced_at_least) = reach {
            let seed = Seed::of(&header.incarnation);
            let proof = scan::synced_beyond(file, seed, end.end_position, end.end_offset)?;
            if proof.is_none() && end.end_offset < synced_at_least {
                let what = format!(
                    "{why}: the log ends at offset {} here, but had been synced up to {synced_at_least}, as \
                     {END_MARK_FILE_NAME} says",
                    end.end_offset
                );
                self.finding(log_name, end.end_position, what);
                *builder = None;
                return Ok(scan.step_over()?.is_some());
            }
            let Some((position, synced)) = proof else {
                let is_blank = matches!(
                    why,
                    ScanEnd::Invalid(FrameError::Blank | FrameError::Truncated { bytes: 0, .. })
                );
                if !is_blank {
                    let what = format!(
                        "ends at position {} (offset {}) with a torn write that nothing shows to have \
                         been synced: {why}",
                        end.end_position, end.end_offset
                    );
                    self.note(log_name, &what);
                }
                return Ok(false);
            };
            what = format!(
                "{why}; this had been synced: the frame at position {position} says that everything \
                 below offset {synced} was"
            );
        }
        *builder = None;
        if let Ok((frame, position)) = scan.next_readable()? {
            // Who reads finds it: no event is lost.
            self.finding(log_name, position, what);
            self.check_frame(log_name, &frame, position);
            return Ok(true);
        }
        let lost = scan.step_over()?;
        // What lies behind its end is no frame of it: writes of a killed process may have landed there.
        let ends_here = |to: Offset| self.known_end.is_some_and(|end| to > end);
        let is_followed = lost.as_ref().is_some_and(|lost| !ends_here(lost.end));
        let lost_end = match lost {
            Some(lost) if is_followed => lost.end,
            _ => self.known_end.unwrap_or(end.end_offset),
        };
        if end.end_offset < lost_end {
            what = format!("{what}; events from {} to {lost_end} cannot be read", end.end_offset);
        }
        self.finding(log_name, end.end_position, what);
        Ok(is_followed)
    }

    fn check_frame(&mut self, log_name: &str, frame: &Frame, position: Position) {
        self.checked.frames += 1;
        self.checked.events += frame.len() as u64;
        for (number, name) in frame.topics() {
            let named = self.names.get(&number).map(|known| **known == *name);
            if named == Some(true) {
                continue;
            }
            if named == Some(false) || self.numbers.contains_key(name) {
                let what = format!("topic {number} is `{name}` here, and another elsewhere");
                self.finding(log_name, position, what);
            } else {
                let name: Arc<str> = name.into();
                self.names.insert(number, name.clone());
                self.numbers.insert(name.clone(), number);
                self.checked.topics.push((number, name, position));
            }
        }
        let mut events = frame.events();
        let Some(first) = events.next() else { return };
        let last_ms = events.next_back().unwrap_or(first).time_ms();
        if let Some(times) = &mut self.checked.times {
            let before_ms = std::mem::replace(&mut times.last_ms, last_ms);
            if first.time_ms() < before_ms {
                let what = format!("the time of event {} is before the one before", first.offset());
                self.finding(log_name, position, what);
            }
        } else {
            let (first_ms, first_offset) = (first.time_ms(), first.offset());
            self.checked.times = Some(Times { first_ms, first_offset, position, last_ms });
        }
    }

    /// The index against one that says what the frames say.
    fn check_rebuilt(
        &mut self,
        files: &SegmentFiles,
        index: &IndexHeader,
        bytes: &[u8],
        end: &SegmentEnd,
        builder: &IndexBuilder,
    ) {
        // What a rewrite took over from the index before is in no frame.
        let rebuilt = match files.name.generation {
            1 => builder.finish(end),
            _ => builder.finish_carrying(end, &Carried::of_index(index, bytes)),
        };
        if rebuilt == bytes {
            return;
        }
        let same = rebuilt.iter().zip(bytes).take_while(|(left, right)| left == right).count();
        let position = Position::new(same as u64);
        let section = index.sections.iter().find(|section| section.end() > position);
        let what = match section {
            Some(section) if section.position <= position => {
                format!("{} does not say what the frames say", section.kind)
            }
            _ => "does not say what the frames say".to_owned(),
        };
        self.finding(&files.name.index_file_name(), position, what);
    }
}

/// The topics of whose events the last is gone, as a sound index says.
pub(crate) fn gone_of(header: &IndexHeader, bytes: &[u8]) -> Vec<GoneTopic> {
    let gone = &bytes[header.section(SectionKind::GONE).range()];
    decode_gone(gone, header.base_offset, header.end_offset).expect("all of it was checked")
}
