//! A sealed segment, and what of it stays in memory.
//!
//! It never changes, so all shards share it. It keeps its two files open and holds the resident part of
//! its index: where its blocks begin ([`Blocks`]), and which topics are *not* in it. Everything else is
//! read on demand, by whoever asks, in its own way ([`ReadIo`]).

use std::{
    io,
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
    io::{Access, Disk, DiskFile, ReadIo, is_unreadable},
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
        let (log_path, log_file) = open_log(disk, dir, name)?;
        let header = read_header(&log_file, &log_path)?;
        if header.base_offset != name.base_offset {
            let what = format!("it begins at offset {}, not as its name says", header.base_offset);
            return Err(corrupt(&log_path, what));
        }
        Self::with_index(disk, dir, name, header, log_file)
    }

    /// The same of a segment whose header is known, and what is wrong with the one in its log file: that is damage of this
    /// segment alone.
    pub(crate) fn open_known(
        disk: &D,
        dir: &Path,
        name: SegmentName,
        header: SegmentHeader,
    ) -> Result<(Self, Option<String>), OpenError> {
        let (log_path, log_file) = open_log(disk, dir, name)?;
        let damage = header_damage(&log_file, &log_path, &header)?;
        Ok((Self::with_index(disk, dir, name, header, log_file)?, damage))
    }

    fn with_index(
        disk: &D,
        dir: &Path,
        name: SegmentName,
        header: SegmentHeader,
        log_file: D::File,
    ) -> Result<Self, OpenError> {
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

    /// Reads its header once more, from this handle of its log file; the error is what is wrong with it.
    pub(crate) fn check_header(&self, file: &impl DiskFile) -> Result<(), String> {
        match header_damage(file, &self.log_path(), &self.header) {
            Ok(None) => Ok(()),
            Ok(Some(damage)) => Err(damage),
            Err(error) => Err(error.to_string()),
        }
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

    /// Behind the lost events that begin at an offset, and those that touch them; the offset if none do.
    pub(crate) fn behind_lost(&self, from: Offset) -> Offset {
        self.index.gaps().fold(from, |end, gap| if gap.start == end { gap.end } else { end })
    }

    /// Where the lost events begin that end at an offset, and those that touch them; the offset if none do.
    pub(crate) fn lost_before(&self, to: Offset) -> Offset {
        self.index
            .gaps()
            .rev()
            .fold(to, |start, gap| if gap.end == start { gap.start } else { start })
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

    /// Where all the blocks begin and end in which one write of the disk can have put a frame of these, be it that it hides
    /// those before it and behind it; if these have no more than `bytes_max`.
    ///
    /// It lies over headers of the block before them, or begins where theirs end: it reaches no farther than it is long.
    pub fn beside(&self, edges: &[Edge], bytes_max: u64) -> Option<[Edge; 2]> {
        let (first, last) = (edges.first()?.position, edges.last()?.position);
        let lens = edges.windows(2).map(|edges| edges[1].position.get() - edges[0].position.get());
        let longest = lens.max()?;
        let before = self.frames.partition_point(|frame| frame.position < first);
        let before = self.edge(before.saturating_sub(1)).position.get().saturating_sub(longest);
        let start = self.frames.partition_point(|frame| frame.position.get() <= before);
        let end = self.frames.partition_point(|frame| frame.position < last.plus(longest));
        let beside = [self.edge(start.saturating_sub(1)), self.edge(end)];
        let bytes = beside[1].position.get() - beside[0].position.get();
        (bytes <= bytes_max).then_some(beside)
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

fn open_log<D: Disk>(
    disk: &D,
    dir: &Path,
    name: SegmentName,
) -> Result<(PathBuf, D::File), OpenError> {
    let path = dir.join(name.file_name(SegmentFile::Log));
    let file = disk.open(&path, Access::Read).map_err(io_error("opening", &path))?;
    Ok((path, file))
}

/// What is wrong with the header of a log file that is to have this one; the error may pass.
fn header_damage<F: DiskFile>(
    file: &F,
    path: &Path,
    header: &SegmentHeader,
) -> Result<Option<String>, OpenError> {
    let damage = match read_header(file, path) {
        Ok(read) if read == *header => return Ok(None),
        Ok(_) => Corruption {
            file: path.to_owned(),
            position: Position::default(),
            what: "it has the header of another file".to_owned(),
        },
        Err(OpenError::Io { source, .. }) if !is_unreadable(&source) => {
            return Err(io_error("reading", path)(source));
        }
        Err(OpenError::Corrupt(damage)) => damage,
        Err(error) => return Ok(Some(error.to_string())),
    };
    Ok(Some(damage.to_string()))
}

fn read_header<F: DiskFile>(file: &F, path: &Path) -> Result<SegmentHeader, OpenError> {
    let mut bytes = DiskBuffer::zeroed(SEGMENT_HEADER_BYTES);
    match file.read_exact_at(bytes.as_mut_slice(), Position::default()) {
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
            return Err(io_error("reading", path)(error));
        }
        _ => {}
    }
    SegmentHeader::decode(bytes.as_slice()).map_err(|error| match error {
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
