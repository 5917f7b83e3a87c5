//! Everything of a damaged segment that can be read, and what lies between.

use std::{cell::Cell, io, path::Path};

use crate::{
    buffer::DiskBuffer,
    config::SyncMode,
    error::OpenError,
    frame::{FRAME_ALIGN_BYTES, Frame, FrameError, FrameHeader, Seed, Trust},
    index::{self, Carried, IndexBuilder, IndexError, IndexHeader, SegmentEnd},
    io::{Access, Disk, DiskFile, is_unreadable, lenient::Lenient},
    listing,
    offset::{Offset, Position},
    repair::Lost,
    rewrite::{self, SegmentWriter},
    scan::{self, FrameScan, ScanEnd},
    segment::{
        FIRST_FRAME_POSITION, Incarnation, SEGMENT_VERSION, SegmentHeader, SegmentName, Tag,
    },
};

/// A damaged segment, and what is known of it.
pub(super) struct Damaged<F> {
    file: Lenient<F>,
    /// From its file, or from its index where that is rotten. `None`: both are, and so are all frames.
    pub(super) header: Option<SegmentHeader>,
    pub(super) has_good_header: bool,
    /// The header is a guess, but for where it begins: no more is known than what its frames say.
    pub(super) is_guessed: bool,
    seed: Option<Seed>,
    /// Where its frames must end, if its index says so.
    index: Option<IndexHeader>,
    /// What that says of the state of the log.
    pub(super) carried: Option<Carried>,
    successor: Option<Offset>,
    /// If it is the last, it had been synced so far at least.
    synced: Offset,
    /// Where a start would cut it, once that was found.
    torn_at: Cell<Option<Position>>,
}

/// Who takes what is read.
pub(super) trait Sink {
    /// The next frame; the inner error says that it does not fit to those before it.
    fn frame(
        &mut self,
        frame: &Frame,
        position: Position,
    ) -> Result<Result<(), IndexError>, OpenError>;
    /// Everything from the last frame's end to `to` is lost.
    fn lost(&mut self, to: Offset, what: &str) -> Result<(), OpenError>;
    /// The next frame is damaged, or what lies before it, and no event is.
    fn passed_over(&mut self) {}
}

impl<F: DiskFile> Damaged<F> {
    /// Opens a segment whose `.log` is there.
    pub(super) fn open<D: Disk<File = F>>(
        disk: &D,
        dir: &Path,
        name: SegmentName,
        has_index: bool,
        successor: Option<Offset>,
        synced: Offset,
    ) -> Result<Self, OpenError> {
        let path = dir.join(name.log_file_name());
        let file = disk.open(&path, Access::Read).map_err(OpenError::io("opening", &path))?;
        let file = Lenient::new(file);
        let header = rewrite::read_header(&file).map_err(OpenError::io("reading", &path))?;
        let header = header.ok().filter(|header| header.base_offset == name.base_offset);
        let has_good_header = header.is_some();
        let seed = match &header {
            Some(header) => Some(Seed::of(&header.incarnation)),
            None => find_seed(&file).map_err(OpenError::io("reading", &path))?,
        };
        let index = if has_index { read_index(disk, dir, name)? } else { None };
        let index = index.filter(|(index, _)| match &header {
            Some(header) => index.belongs_to(header),
            // Its name makes it none of these frames: they say whose it is, if any of them is sound.
            None => {
                index.base_offset == name.base_offset
                    && seed.is_none_or(|seed| seed == index.seed())
            }
        });
        let (mut index, carried) = index.unzip();
        let mut header = header.or_else(|| index.as_ref().map(header_of_index));
        let seed = seed.or(index.as_ref().map(IndexHeader::seed));
        if header.is_none() {
            // An index that is damaged elsewhere says it, too: its frames show that it is theirs.
            index = if has_index { read_index_header(disk, dir, name)? } else { None };
            index = index.filter(|index| {
                let can_end_there = successor.is_none_or(|successor| index.end_offset <= successor);
                can_end_there && seed == Some(index.seed())
            });
            header = index.as_ref().map(header_of_index);
        }
        let is_guessed = header.is_none();
        let header = header.or_else(|| {
            seed.map(|_| SegmentHeader {
                version: SEGMENT_VERSION,
                base_offset: name.base_offset,
                created_at_ms: 0,
                incarnation: Incarnation::random(),
                tag: Tag::random(),
                sync: SyncMode::Commit,
            })
        });
        Ok(Damaged {
            file,
            header,
            has_good_header,
            is_guessed,
            seed,
            index,
            carried,
            successor,
            synced,
            torn_at: Cell::default(),
        })
    }

    /// Where it ends, if that does not hang on its frames.
    pub(super) fn known_end(&self) -> Option<Offset> {
        self.index.as_ref().map(|index| index.end_offset).or(self.successor)
    }

    /// Whether the disk does not give back some of what was read, if nothing is lost, which is known to be behind all events
    /// then. Of a last segment nobody knows it: an acknowledged event may be there which nothing yet says was synced.
    pub(super) fn has_unreadable_behind(&self) -> bool {
        self.has_unreadable() && !self.is_last()
    }

    /// Whether the disk does not give back some of what was read.
    pub(super) fn has_unreadable(&self) -> bool {
        self.file.has_failed()
    }

    /// Whether a start would cut the last segment where the disk does not give back what lies behind.
    pub(super) fn has_unreadable_end(&self) -> bool {
        self.torn_at.get().is_some_and(|position| self.file.has_failed_behind(position))
    }

    /// Does not believe what its index says of its end.
    pub(super) fn forget_index(&mut self) {
        self.index = None;
    }

    /// Hands over all of its frames that can be read. Returns where it ends.
    ///
    /// The last segment, of which nothing else says where it ends, goes as far as what a header or the end mark
    /// states to have been synced, and the whole frames behind that.
    pub(super) fn read(&self, sink: &mut impl Sink) -> Result<Offset, OpenError> {
        let (Some(header), Some(seed)) = (&self.header, self.seed) else {
            let end = self.known_end().unwrap_or_default();
            sink.lost(end, "the header of the segment is damaged, and it has no index")?;
            return Ok(end);
        };
        let reading = OpenError::io("reading", Path::new("a damaged segment"));
        let mut frames = FrameScan::with_seed(&self.file, seed, header.base_offset);
        let mut at = header.base_offset;
        let outcome = (|| {
            loop {
                let end = frames.end();
                let reached = match (&self.index, self.successor) {
                    (Some(index), _) => end.end_position >= index.end_position,
                    (None, Some(successor)) => end.end_offset >= successor,
                    (None, None) => false,
                };
                if reached {
                    return Ok(Ok(()));
                }
                let why = match self.next(&mut frames, seed, sink)? {
                    Ok((frame, position)) => {
                        let taken = match sink.frame(&frame, position) {
                            Ok(taken) => taken,
                            Err(error) => return Ok(Err(error)),
                        };
                        if let Err(error) = taken
                            && let Err(error) = sink.lost(frame.end_offset(), &error.to_string())
                        {
                            return Ok(Err(error));
                        }
                        at = frame.end_offset();
                        continue;
                    }
                    Err(ScanEnd::Invalid(FrameError::Lost { why })) => why,
                    Err(why) => why.to_string(),
                };
                if self.is_torn_at(end, seed)? {
                    self.torn_at.set(Some(end.end_position));
                    return Ok(Ok(()));
                }
                let Some(lost) = frames.step_over()? else {
                    // Of the last segment nothing says that there was more, or it is made up for behind it.
                    let is_last = self.is_last();
                    return Ok(if is_last { Ok(()) } else { sink.lost(end.end_offset, &why) });
                };
                // What a header says must not reach past what is known of the whole.
                let to = self.known_end().map_or(lost.end, |end| lost.end.min(end));
                if let Err(error) = sink.lost(to, &why) {
                    return Ok(Err(error));
                }
                at = to;
                if lost.end > to {
                    return Ok(Ok(()));
                }
            }
        })();
        outcome.map_err(reading)??;
        match self.known_end() {
            Some(end) if end > at => {
                sink.lost(end, "the file holds no frames of them")?;
                Ok(end)
            }
            _ => Ok(at),
        }
    }

    /// The next frame, also one that readers alone find to be whole.
    fn next(
        &self,
        frames: &mut FrameScan<'_, Lenient<F>>,
        seed: Seed,
        sink: &mut impl Sink,
    ) -> io::Result<Result<(Frame, Position), ScanEnd>> {
        let next = frames.next_frame()?;
        let may_be_readable = match &next {
            Err(ScanEnd::Invalid(FrameError::Padding)) => true,
            Err(ScanEnd::OutOfChain { .. }) => !self.is_torn_at(frames.end(), seed)?,
            _ => false,
        };
        if !may_be_readable {
            return Ok(next);
        }
        let readable = frames.next_readable()?;
        if readable.is_ok() {
            sink.passed_over();
        }
        Ok(readable)
    }

    /// Whether it is the last segment, as far as is known.
    fn is_last(&self) -> bool {
        self.index.is_none() && self.successor.is_none()
    }

    /// Whether no frame is where the last segment goes on, and nothing shows that one was synced there: a start cuts it.
    fn is_torn_at(&self, end: SegmentEnd, seed: Seed) -> io::Result<bool> {
        if !self.is_last() || end.end_offset < self.synced {
            return Ok(false);
        }
        let proof = scan::synced_beyond(&self.file, seed, end.end_position, end.end_offset)?;
        Ok(proof.is_none())
    }
}

/// The seed of a segment whose header is lost, from the first frame whose body agrees to it.
fn find_seed<F: DiskFile>(file: &F) -> io::Result<Option<Seed>> {
    let mut position = FIRST_FRAME_POSITION;
    let size = file.size()?;
    let mut block = DiskBuffer::zeroed(FRAME_ALIGN_BYTES);
    while position.get() + FRAME_ALIGN_BYTES as u64 <= size {
        file.read_exact_at(block.as_mut_slice(), position)?;
        if let Some(seed) = Seed::solve(block.as_slice())
            && let Ok(header) = FrameHeader::decode(block.as_slice(), seed)
            && header.event_count > 0
            && size - position.get() >= header.frame_bytes() as u64
        {
            let mut frame = DiskBuffer::zeroed(header.frame_bytes());
            file.read_exact_at(frame.as_mut_slice(), position)?;
            if Frame::parse(frame, seed, Trust::Bytecheck).is_ok() {
                return Ok(Some(seed));
            }
        }
        position = position.plus(FRAME_ALIGN_BYTES as u64);
    }
    Ok(None)
}

/// What a rotten header said, as far as the index tells. That nothing is lost behind the end of a sealed
/// segment holds in every sync mode.
fn header_of_index(index: &IndexHeader) -> SegmentHeader {
    SegmentHeader {
        version: SEGMENT_VERSION,
        base_offset: index.base_offset,
        created_at_ms: index.first_time_ms,
        incarnation: index.incarnation,
        tag: index.tag,
        sync: SyncMode::Commit,
    }
}

/// The header of the index of a segment, be the rest of that damaged, if it is sound and the segment's.
pub(super) fn read_index_header<D: Disk>(
    disk: &D,
    dir: &Path,
    name: SegmentName,
) -> Result<Option<IndexHeader>, OpenError> {
    let header = match listing::index_header(disk, dir, name) {
        Err(OpenError::Io { source, .. }) if is_unreadable(&source) => None,
        header => header?,
    };
    Ok(header.filter(|header| header.base_offset == name.base_offset))
}

/// An index's header and what it says of the state of the log, if all of it is sound, and of the segment that has its
/// name: otherwise recovery does not believe it either.
pub(crate) fn read_index<D: Disk>(
    disk: &D,
    dir: &Path,
    name: SegmentName,
) -> Result<Option<(IndexHeader, Carried)>, OpenError> {
    let path = dir.join(name.index_file_name());
    let read = || {
        let file = disk.open(&path, Access::Read)?;
        let mut bytes = vec![0; usize::try_from(file.size()?).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, Position::default())?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) => {
            let resident = index::check_all(&bytes).ok();
            let header = resident.map(|resident| resident.header().clone());
            let header = header.filter(|header| header.base_offset == name.base_offset);
            Ok(header.map(|header| {
                let carried = Carried::of_index(&header, &bytes);
                (header, carried)
            }))
        }
        Err(error) if is_unreadable(&error) => Ok(None),
        Err(error) => Err(OpenError::io("reading", &path)(error)),
    }
}

/// Counts what is read, and names what is lost.
pub(super) struct Survey {
    index: IndexBuilder,
    pub(super) lost: Vec<Lost>,
    /// Whether anything was passed over, be it without events.
    pub(super) is_damaged: bool,
    end: SegmentEnd,
}

impl Survey {
    pub(super) fn new(header: &SegmentHeader) -> Self {
        let end = SegmentEnd {
            end_offset: header.base_offset,
            end_position: FIRST_FRAME_POSITION,
            end_checksum: Seed::of(&header.incarnation).chain_start(),
        };
        Survey { index: IndexBuilder::new(header), lost: Vec::new(), is_damaged: false, end }
    }

    /// The index of what was read, of a segment of which nothing is lost.
    pub(super) fn into_index(self) -> (IndexBuilder, SegmentEnd) {
        (self.index, self.end)
    }

    pub(super) fn index(&self) -> &IndexBuilder {
        &self.index
    }

    pub(super) fn events(&self) -> u64 {
        self.index.event_count()
    }
}

impl Sink for Survey {
    fn frame(
        &mut self,
        frame: &Frame,
        position: Position,
    ) -> Result<Result<(), IndexError>, OpenError> {
        let added = self.index.add(frame, position);
        if added.is_ok() {
            self.end = SegmentEnd {
                end_offset: frame.end_offset(),
                end_position: position.plus(frame.frame_bytes() as u64),
                end_checksum: frame.header().checksum,
            };
        }
        Ok(added)
    }

    fn lost(&mut self, to: Offset, what: &str) -> Result<(), OpenError> {
        let from = std::mem::replace(&mut self.end.end_offset, to);
        self.is_damaged = true;
        match self.lost.last_mut() {
            Some(last) if last.to == from => last.to = to,
            _ if from < to => self.lost.push(Lost { from, to, what: what.to_owned() }),
            _ => {}
        }
        Ok(())
    }

    fn passed_over(&mut self) {
        self.is_damaged = true;
    }
}

impl<D: Disk> Sink for SegmentWriter<D> {
    fn frame(
        &mut self,
        frame: &Frame,
        _position: Position,
    ) -> Result<Result<(), IndexError>, OpenError> {
        self.add(frame, Offset::MAX)
    }

    fn lost(&mut self, to: Offset, what: &str) -> Result<(), OpenError> {
        self.add_gap(to, what)
    }
}
