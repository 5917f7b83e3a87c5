//! The sealed segments of a log, in offset order, and what of each stays in memory.
//!
//! A [`SealedSegment`] never changes, so all shards share it. It keeps its two files open and holds
//! the resident part of its index: where its blocks begin (`Blocks`), and which topics are *not* in
//! it. Everything else is read on demand, by whoever asks, in its own way ([`ReadIo`]).

use std::{
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    buffer::DiskBuffer,
    error::{Corruption, OpenError, ReadError},
    frame::Seed,
    index::{
        INDEX_HEADER_BYTES, INDEX_VERSION, IndexError, IndexHeader, ResidentIndex,
        resident::FramePlaces,
    },
    io::{Access, Disk, DiskFile, ReadIo},
    offset::{Offset, Position},
    segment::{
        FIRST_FRAME_POSITION, SEGMENT_HEADER_BYTES, SEGMENT_VERSION, SegmentError, SegmentFile,
        SegmentHeader, SegmentName,
    },
};

/// A segment that will never change again, with its index.
pub struct SealedSegment<D: Disk> {
    name: SegmentName,
    header: SegmentHeader,
    seed: Seed,
    index: ResidentIndex,
    dir: Arc<Path>,
    log_file: Arc<D::File>,
    index_file: Arc<D::File>,
}

impl<D: Disk> SealedSegment<D> {
    /// Opens the two files of a segment in `dir`. Blocks, and reads only the log's header and the
    /// resident part of the index.
    ///
    /// [`OpenError::Corrupt`] if either is damaged, or they do not belong together; what is wrong
    /// elsewhere is found by who reads there.
    pub fn open(disk: &D, dir: &Path, name: SegmentName) -> Result<Self, OpenError> {
        let log_path = dir.join(name.file_name(SegmentFile::Log));
        let log_file =
            disk.open(&log_path, Access::Read).map_err(io_error("opening", &log_path))?;
        let header = read_header(&log_file, &log_path)?;
        if header.base_offset != name.base_offset {
            let what = format!("it begins at offset {}, not as its name says", header.base_offset);
            return Err(corrupt(&log_path, what));
        }
        let index_path = dir.join(name.file_name(SegmentFile::Index));
        let index_file =
            disk.open(&index_path, Access::Read).map_err(io_error("opening", &index_path))?;
        let index = read_resident(&index_file, &index_path)?;
        if !index.header().belongs_to(&header) {
            return Err(corrupt(&index_path, "it is the index of another file"));
        }
        Ok(SealedSegment {
            name,
            seed: Seed::of(&header.incarnation),
            header,
            index,
            dir: dir.into(),
            log_file: Arc::new(log_file),
            index_file: Arc::new(index_file),
        })
    }

    /// Its name.
    pub fn name(&self) -> SegmentName {
        self.name
    }

    /// The header of its log file.
    pub fn header(&self) -> &SegmentHeader {
        &self.header
    }

    /// The first offset that it stands for.
    pub fn base(&self) -> Offset {
        self.header.base_offset
    }

    /// The first offset behind those.
    pub fn end(&self) -> Offset {
        self.index.header().end_offset
    }

    /// What the checksums of its frames begin with.
    pub fn seed(&self) -> Seed {
        self.seed
    }

    /// The resident part of its index.
    pub fn index(&self) -> &ResidentIndex {
        &self.index
    }

    /// Whether this is the only handle of it, and nobody reads its files.
    pub fn is_unread(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1
            && [&self.log_file, &self.index_file].iter().all(|file| Arc::strong_count(file) == 1)
    }

    /// The file with its frames.
    pub fn log_file(&self) -> &Arc<D::File> {
        &self.log_file
    }

    /// Its index file.
    pub fn index_file(&self) -> &Arc<D::File> {
        &self.index_file
    }

    /// The path of the file with its frames.
    pub fn log_path(&self) -> PathBuf {
        self.dir.join(self.name.file_name(SegmentFile::Log))
    }

    /// The path of its index file.
    pub fn index_path(&self) -> PathBuf {
        self.dir.join(self.name.file_name(SegmentFile::Index))
    }

    /// How many bytes its two files have.
    pub fn file_bytes(&self) -> u64 {
        let header = self.index.header();
        header.end_position.get() + header.index_bytes
    }

    /// Where its blocks begin.
    pub(crate) fn blocks(&self) -> Blocks<'_> {
        let header = self.index.header();
        let end = Edge { offset: header.end_offset, position: header.end_position };
        Blocks { frames: self.index.frames(), end }
    }

    /// The mean length of its frames; one block if it has none.
    pub(crate) fn mean_frame_bytes(&self) -> u64 {
        let header = self.index.header();
        let bytes = header.end_position.get().saturating_sub(FIRST_FRAME_POSITION.get());
        bytes.checked_div(header.frame_count).unwrap_or(0).max(FIRST_FRAME_POSITION.get())
    }

    /// Reads a part of its log file; fewer bytes if that ends before.
    pub(crate) async fn read_log<I: ReadIo<D>>(
        &self,
        io: &I,
        start: Position,
        end: Position,
    ) -> Result<DiskBuffer, ReadError> {
        let len = usize::try_from(end.get().saturating_sub(start.get())).expect("reads are small");
        io.read(&self.log_file, start, len)
            .await
            .map_err(|source| ReadError::Io { file: self.log_path(), source })
    }
}

/// Where a block of a segment begins, and with which offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Edge {
    pub offset: Offset,
    pub position: Position,
}

/// The blocks into which the index cuts a segment. A block begins with the first frame that starts in
/// a stretch of 64 KiB, and ends where the next one begins: never inside a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Blocks<'a> {
    frames: FramePlaces<'a>,
    end: Edge,
}

impl Blocks<'_> {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.frames.len()
    }

    /// Where block `index` begins; of the one behind the last, where the segment ends.
    pub fn edge(&self, index: usize) -> Edge {
        self.frames
            .get(index)
            .map_or(self.end, |frame| Edge { offset: frame.base_offset, position: frame.position })
    }

    /// The block that holds an offset of the segment.
    pub fn holding(&self, offset: Offset) -> Option<usize> {
        if offset >= self.end.offset {
            return None;
        }
        self.frames.partition_point(|frame| frame.base_offset <= offset).checked_sub(1)
    }

    /// The begin and the end of the block that holds a position.
    pub fn around(&self, position: Position) -> Option<(Edge, Edge)> {
        if position >= self.end.position {
            return None;
        }
        let behind = self.frames.partition_point(|frame| frame.position <= position);
        Some((self.edge(behind.checked_sub(1)?), self.edge(behind)))
    }

    /// The block where the first event at or after `time_ms` is, or the one before it.
    pub fn at_time(&self, time_ms: u64) -> usize {
        self.frames.partition_point(|frame| frame.time_ms < time_ms).saturating_sub(1)
    }
}

fn io_error(action: &'static str, file: &Path) -> impl Fn(io::Error) -> OpenError {
    move |source| OpenError::Io { action, file: file.to_owned(), source }
}

fn corrupt(file: &Path, what: impl ToString) -> OpenError {
    OpenError::Corrupt(Corruption {
        file: file.to_owned(),
        position: Position::default(),
        what: what.to_string(),
    })
}

fn read_header<F: DiskFile>(file: &F, path: &Path) -> Result<SegmentHeader, OpenError> {
    let mut bytes = vec![0; SEGMENT_HEADER_BYTES];
    match file.read_exact_at(&mut bytes, Position::default()) {
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
            return Err(io_error("reading", path)(error));
        }
        _ => {}
    }
    SegmentHeader::decode(&bytes).map_err(|error| match error {
        SegmentError::NewerVersion { version } => {
            OpenError::NewerVersion { file: path.to_owned(), version, version_max: SEGMENT_VERSION }
        }
        error => corrupt(path, error),
    })
}

fn read_resident<F: DiskFile>(file: &F, path: &Path) -> Result<ResidentIndex, OpenError> {
    let reading = io_error("reading", path);
    let refused = |error| match error {
        IndexError::NewerVersion { version } => {
            OpenError::NewerVersion { file: path.to_owned(), version, version_max: INDEX_VERSION }
        }
        error => corrupt(path, error),
    };
    let size = file.size().map_err(io_error("reading", path))?;
    if size < INDEX_HEADER_BYTES as u64 {
        return Err(corrupt(path, format!("{size} bytes are too few for an index")));
    }
    let mut bytes = vec![0; INDEX_HEADER_BYTES];
    file.read_exact_at(&mut bytes, Position::default()).map_err(&reading)?;
    let header = IndexHeader::decode(&bytes).map_err(refused)?;
    if header.index_bytes != size {
        let error = IndexError::Length { bytes: size, bytes_expected: header.index_bytes };
        return Err(refused(error));
    }
    bytes.resize(usize::try_from(header.resident_bytes).expect("no longer than the file"), 0);
    let rest = Position::new(INDEX_HEADER_BYTES as u64);
    file.read_exact_at(&mut bytes[INDEX_HEADER_BYTES..], rest).map_err(&reading)?;
    ResidentIndex::decode(&bytes).map_err(refused)
}

/// The sealed part of a log. A clone shares the segments.
pub struct SegmentSet<D: Disk> {
    segments: Vec<Arc<SealedSegment<D>>>,
    /// What was taken out on purpose behind `start`, in offset order.
    retired: Vec<Range<Offset>>,
    start: Offset,
    end: Offset,
}

impl<D: Disk> Clone for SegmentSet<D> {
    fn clone(&self) -> Self {
        let SegmentSet { segments, retired, start, end } = self;
        SegmentSet {
            segments: segments.clone(),
            retired: retired.clone(),
            start: *start,
            end: *end,
        }
    }
}

impl<D: Disk> Default for SegmentSet<D> {
    fn default() -> Self {
        SegmentSet {
            segments: Vec::new(),
            retired: Vec::new(),
            start: Offset::ZERO,
            end: Offset::ZERO,
        }
    }
}

impl<D: Disk> SegmentSet<D> {
    /// The set of these segments, which are in offset order.
    pub fn new(segments: impl IntoIterator<Item = SealedSegment<D>>) -> Self {
        let mut set = SegmentSet::default();
        for segment in segments {
            set.push(segment);
        }
        set
    }

    /// Adds the segment behind the last.
    ///
    /// # Panics
    ///
    /// If it begins before the end of the last.
    pub fn push(&mut self, segment: impl Into<Arc<SealedSegment<D>>>) {
        let segment = segment.into();
        assert!(segment.base() >= self.end, "segments are in offset order");
        if self.segments.is_empty() && self.retired.is_empty() && self.start == self.end {
            self.start = segment.base();
        }
        self.end = segment.end();
        self.segments.push(segment);
    }

    /// Adds offsets behind the last whose events are gone on purpose.
    pub fn push_retired(&mut self, offsets: Range<Offset>) {
        assert!(offsets.start >= self.end, "segments are in offset order");
        self.end = offsets.end;
        if self.segments.is_empty() {
            self.start = self.end;
        } else {
            self.retired.push(offsets);
        }
    }

    /// The set with one more segment, behind the last.
    #[must_use]
    pub fn with(&self, segment: impl Into<Arc<SealedSegment<D>>>) -> Self {
        let mut set = self.clone();
        set.push(segment);
        set
    }

    /// The set without the events of a segment.
    #[must_use]
    pub fn without(&self, name: SegmentName) -> Self {
        let mut set = SegmentSet::default();
        let mut retired = self.retired.iter().cloned().peekable();
        for segment in &self.segments {
            while let Some(offsets) = retired.next_if(|offsets| offsets.start < segment.base()) {
                set.push_retired(offsets);
            }
            if segment.name() == name {
                set.push_retired(segment.base()..segment.end());
            } else {
                set.push(Arc::clone(segment));
            }
        }
        retired.for_each(|offsets| set.push_retired(offsets));
        set.end = self.end;
        if set.segments.is_empty() {
            set.start = set.end;
        }
        set
    }

    /// The set with another generation of a segment in its place.
    ///
    /// # Panics
    ///
    /// If no segment of the set stands for the same offsets.
    #[must_use]
    pub fn with_replaced(&self, segment: Arc<SealedSegment<D>>) -> Self {
        let mut set = self.clone();
        let place = set.segments.iter().position(|known| known.base() == segment.base());
        let known = &mut set.segments[place.expect("a segment is replaced by its own like")];
        assert_eq!(known.end(), segment.end(), "and stands for the same offsets");
        *known = segment;
        set
    }

    /// Whether these offsets were taken out on purpose.
    pub fn is_retired(&self, offsets: &Range<Offset>) -> bool {
        let mut from = offsets.start;
        for retired in &self.retired {
            if retired.start <= from && from < retired.end {
                from = retired.end;
            }
        }
        from >= offsets.end
    }

    /// How many segments.
    pub fn len(&self) -> usize {
        self.segments.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// The segments in offset order.
    pub fn iter(
        &self,
    ) -> impl DoubleEndedIterator<Item = &Arc<SealedSegment<D>>> + ExactSizeIterator {
        self.segments.iter()
    }

    /// The first offset that is kept; [`SegmentSet::end`] if no segment is.
    pub fn start(&self) -> Offset {
        self.start
    }

    /// The first offset that the log kept when its segments were rewritten, as far as they say: what was before it
    /// is gone, or some of it is.
    pub fn kept_from(&self) -> Offset {
        let kept = self.segments.iter().filter_map(|segment| segment.index().kept_from());
        kept.max().unwrap_or(self.start)
    }

    /// The first offset behind the sealed part; 0 if there is none.
    pub fn end(&self) -> Offset {
        self.end
    }

    /// The offset from which on the sealed part holds events of `oldest_ms` or later, and at most one
    /// block of older ones; `None` if it holds none.
    pub fn kept_at_time(&self, oldest_ms: u64) -> Option<Offset> {
        let segment = self.first_at_time(oldest_ms)?;
        let blocks = segment.blocks();
        Some(blocks.edge(blocks.at_time(oldest_ms)).offset)
    }

    /// The segment that holds an offset.
    pub fn find(&self, offset: Offset) -> Option<&Arc<SealedSegment<D>>> {
        self.first_ending_behind(offset).filter(|segment| segment.base() <= offset)
    }

    /// The first segment that ends behind an offset: the one that holds it, or the next.
    pub(crate) fn first_ending_behind(&self, offset: Offset) -> Option<&Arc<SealedSegment<D>>> {
        self.segments.get(self.segments.partition_point(|segment| segment.end() <= offset))
    }

    /// The last segment that begins before an offset.
    pub(crate) fn last_beginning_before(&self, offset: Offset) -> Option<&Arc<SealedSegment<D>>> {
        let behind = self.segments.partition_point(|segment| segment.base() < offset);
        self.segments.get(behind.checked_sub(1)?)
    }

    /// The first segment that holds an event appended at `time_ms` or later.
    pub(crate) fn first_at_time(&self, time_ms: u64) -> Option<&Arc<SealedSegment<D>>> {
        self.segments.iter().find(|segment| {
            let header = segment.index().header();
            header.event_count > 0 && header.last_time_ms >= time_ms
        })
    }
}
