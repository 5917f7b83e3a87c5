//! The frames of one segment file, one after the other, until something stands there that is not
//! the next frame.
//!
//! Reads in large pieces; a frame is parsed where it lies in the piece.

use std::{fmt, io, ops::Range, sync::Arc};

use crate::{
    buffer::DiskBuffer,
    frame::{
        FRAME_ALIGN_BYTES, FRAME_BYTES_MAX, FRAME_HEADER_BYTES, Frame, FrameError, FrameHeader,
        Seed, Trust,
    },
    index::{IndexError, SegmentEnd},
    io::DiskFile,
    misplaced::BehindDamage,
    offset::{Offset, Position},
    segment::{FIRST_FRAME_POSITION, SegmentHeader},
};

/// How much is read at once.
pub const SCAN_BYTES: usize = 1 << 20;

const _: () = assert!(SCAN_BYTES.is_multiple_of(FRAME_ALIGN_BYTES));

/// Why a scan ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScanEnd {
    /// What stands there is no whole frame.
    Invalid(FrameError),
    /// The next segment begins here.
    Successor,
    /// It is a frame, but what it says contradicts those before it.
    Content(IndexError),
    /// It is a whole frame, but not the next one.
    OutOfChain {
        /// What does not fit.
        what: &'static str,
    },
}

impl fmt::Display for ScanEnd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ScanEnd::Invalid(error) => error.fmt(formatter),
            ScanEnd::Successor => formatter.write_str("the next segment begins here"),
            ScanEnd::Content(error) => error.fmt(formatter),
            ScanEnd::OutOfChain { what } => {
                write!(formatter, "a frame, but not the next one: its {what} does not fit")
            }
        }
    }
}

/// Walks over the frames of a segment.
pub struct FrameScan<'a, F> {
    pieces: Pieces<'a, F>,
    seed: Seed,
    /// Where the next frame must be, and what it must refer to.
    end: SegmentEnd,
}

impl<'a, F: DiskFile> FrameScan<'a, F> {
    /// Begins at the first frame of the segment with this header.
    pub fn new(file: &'a F, header: &SegmentHeader) -> Self {
        FrameScan::with_seed(file, Seed::of(&header.incarnation), header.base_offset)
    }

    /// The same for a segment of whose header no more is known.
    pub fn with_seed(file: &'a F, seed: Seed, base_offset: Offset) -> Self {
        FrameScan {
            pieces: Pieces::new(file, Position::default()),
            seed,
            end: SegmentEnd {
                end_offset: base_offset,
                end_position: FIRST_FRAME_POSITION,
                end_checksum: seed.chain_start(),
            },
        }
    }

    /// Goes on behind a frame that another scan gave.
    pub fn behind(file: &'a F, header: &SegmentHeader, end: SegmentEnd) -> Self {
        FrameScan { end, ..FrameScan::new(file, header) }
    }

    /// Reads so much at once (a multiple of [`FRAME_ALIGN_BYTES`]) instead of [`SCAN_BYTES`].
    pub fn in_steps_of(mut self, read_bytes: usize) -> Self {
        self.pieces.read_bytes = read_bytes;
        self
    }

    /// Behind the last frame that it gave.
    pub fn end(&self) -> SegmentEnd {
        self.end
    }

    /// The next frame and its position, or why there is none. Fails if the file cannot be read.
    pub fn next_frame(&mut self) -> io::Result<Result<(Frame, Position), ScanEnd>> {
        self.next_by(Trust::Bytecheck)
    }

    /// The same of one that readers find to be whole: its padding may be damaged, and the frame before it may be another
    /// than it says, as where a write of the disk has landed on that one.
    pub fn next_readable(&mut self) -> io::Result<Result<(Frame, Position), ScanEnd>> {
        self.next_by(Trust::Checksum)
    }

    fn next_by(&mut self, trust: Trust) -> io::Result<Result<(Frame, Position), ScanEnd>> {
        let position = self.end.end_position;
        let frame = match self.pieces.frame_at(position, self.seed, trust)? {
            Ok(frame) => frame,
            Err(error) => return Ok(Err(ScanEnd::Invalid(error))),
        };
        if frame.base_offset() != self.end.end_offset {
            return Ok(Err(ScanEnd::OutOfChain { what: "base offset" }));
        }
        let is_chained = frame.header().previous_checksum == self.end.end_checksum;
        if trust == Trust::Bytecheck && !is_chained {
            return Ok(Err(ScanEnd::OutOfChain { what: "previous checksum" }));
        }
        self.end = SegmentEnd {
            end_offset: frame.end_offset(),
            end_position: position.plus(frame.frame_bytes() as u64),
            end_checksum: frame.header().checksum,
        };
        Ok(Ok((frame, position)))
    }

    /// Goes on behind what stopped it, if that is a frame which stands for lost events: those, its
    /// position, and its length.
    pub fn step_over_lost(&mut self) -> io::Result<Option<(Range<Offset>, Position, usize)>> {
        let SegmentEnd { end_offset, end_position, .. } = self.end;
        match self.pieces.frame_at(end_position, self.seed, Trust::Bytecheck)? {
            Err(FrameError::Lost { .. }) => {}
            _ => return Ok(None),
        }
        // One that begins elsewhere, as a copy of it does, says nothing of what is lost here.
        if self.header_at(end_position)?.is_none_or(|header| header.base_offset != end_offset) {
            return Ok(None);
        }
        let lost = self.step_over()?.filter(|lost| !lost.is_empty());
        let frame_bytes = self.end.end_position.get() - end_position.get();
        Ok(lost.map(|lost| (lost, end_position, usize::try_from(frame_bytes).expect("a frame"))))
    }

    /// Goes on behind what stopped it: behind a frame with a good header and a rotten body, else at
    /// the frame that the segment goes on with (`misplaced`). Returns the offsets that are passed over,
    /// or `None` if no frame follows.
    ///
    /// That frame may stand where it was stopped: then the one before is lost, as where a write of the disk has put
    /// something that was taken for that. Readers find the same ([`crate::reader`]).
    pub fn step_over(&mut self) -> io::Result<Option<Range<Offset>>> {
        let SegmentEnd { end_offset: from, end_position: at, .. } = self.end;
        let here = self.header_at(at)?.filter(|header| header.base_offset == from);
        if let Some(header) = here {
            self.end = SegmentEnd {
                end_offset: header.end_offset,
                end_position: at.plus(header.frame_bytes() as u64),
                end_checksum: header.checksum,
            };
            return Ok(Some(from..header.end_offset));
        }
        let Some((header, position)) = self.behind_damage(at, from)? else { return Ok(None) };
        self.end = SegmentEnd {
            end_offset: header.base_offset,
            end_position: position,
            end_checksum: header.previous_checksum,
        };
        Ok(Some(from..header.base_offset))
    }

    /// The frame that the segment goes on with, behind damage that begins at a position and an offset, and where it stands.
    fn behind_damage(
        &mut self,
        at: Position,
        from: Offset,
    ) -> io::Result<Option<(FrameHeader, Position)>> {
        let mut behind = BehindDamage::new((from, at));
        let mut position = at;
        while self.pieces.bytes_at(position, FRAME_HEADER_BYTES)?.len() >= FRAME_HEADER_BYTES {
            let header = self.header_at(position)?.filter(|header| header.base_offset >= from);
            if header.is_some_and(|header| behind.take(header, position)) {
                break;
            }
            position = position.plus(FRAME_ALIGN_BYTES as u64);
        }
        Ok(behind.next(position))
    }

    /// The header of this segment that stands there, if one does.
    fn header_at(&mut self, position: Position) -> io::Result<Option<FrameHeader>> {
        let bytes = self.pieces.bytes_at(position, FRAME_HEADER_BYTES)?;
        Ok(FrameHeader::decode(bytes, self.seed).ok())
    }
}

/// The first frame header behind `from` which says that more than `cut` had been synced when it was
/// written: its position, and what it says. Headers have checksums of their own, so a rotten body
/// does not silence one.
pub fn synced_beyond<F: DiskFile>(
    file: &F,
    seed: Seed,
    from: Position,
    cut: Offset,
) -> io::Result<Option<(Position, Offset)>> {
    let mut pieces = Pieces::new(file, from);
    let mut position = from;
    loop {
        let bytes = pieces.bytes_at(position, FRAME_HEADER_BYTES)?;
        if bytes.len() < FRAME_HEADER_BYTES {
            return Ok(None);
        }
        if let Ok(header) = FrameHeader::decode(bytes, seed)
            && header.synced_offset > cut
        {
            return Ok(Some((position, header.synced_offset)));
        }
        position = position.plus(FRAME_ALIGN_BYTES as u64);
    }
}

/// A window over a file.
struct Pieces<'a, F> {
    file: &'a F,
    piece: Arc<DiskBuffer>,
    /// Where `piece` begins in the file.
    start: Position,
    /// How much is read at once.
    read_bytes: usize,
}

impl<'a, F: DiskFile> Pieces<'a, F> {
    fn new(file: &'a F, start: Position) -> Self {
        Pieces { file, piece: Arc::new(DiskBuffer::default()), start, read_bytes: SCAN_BYTES }
    }

    fn frame_at(
        &mut self,
        position: Position,
        seed: Seed,
        trust: Trust,
    ) -> io::Result<Result<Frame, FrameError>> {
        let header = match FrameHeader::decode(self.bytes_at(position, FRAME_HEADER_BYTES)?, seed) {
            Ok(header) => header,
            Err(error) => return Ok(Err(error)),
        };
        self.bytes_at(position, header.frame_bytes().min(FRAME_BYTES_MAX))?;
        let start = self.index_of(position).expect("the window was moved over it");
        Ok(Frame::parse_at(&self.piece, start, seed, trust))
    }

    /// The bytes from `position` to the end of the window, which are at least `len` unless the file
    /// ends before.
    fn bytes_at(&mut self, position: Position, len: usize) -> io::Result<&[u8]> {
        let there = self.index_of(position).map_or(0, |index| self.piece.len() - index);
        if there < len {
            self.read(position, len.max(self.read_bytes))?;
        }
        let index = self.index_of(position).unwrap_or(self.piece.len());
        Ok(&self.piece.as_slice()[index..])
    }

    fn index_of(&self, position: Position) -> Option<usize> {
        let index = usize::try_from(position.get().checked_sub(self.start.get())?).ok()?;
        (index <= self.piece.len()).then_some(index)
    }

    /// Moves the window to `position`. What it has of it already is not read again.
    fn read(&mut self, position: Position, len: usize) -> io::Result<()> {
        // No more memory than there are bytes: many segments are much shorter than a piece. Whole blocks, as a direct
        // read is, also where a write that was cut short has left the file's end within one.
        let left_bytes = self.file.size()?.saturating_sub(position.get());
        let len = usize::try_from(left_bytes).map_or(len, |left| left.min(len));
        let len = len.next_multiple_of(FRAME_ALIGN_BYTES);
        let from = self.index_of(position).unwrap_or(self.piece.len());
        let there = (self.piece.len() - from).min(len);
        // A direct read begins on a boundary.
        let there = there - there % FRAME_ALIGN_BYTES;
        // A frame of the last piece may still be in use; then that memory stays with it.
        match Arc::get_mut(&mut self.piece).filter(|piece| piece.len() == len) {
            Some(piece) => piece.as_mut_slice().copy_within(from..from + there, 0),
            None => {
                let mut piece = DiskBuffer::zeroed(len);
                let old = &self.piece.as_slice()[from..from + there];
                piece.as_mut_slice()[..there].copy_from_slice(old);
                self.piece = Arc::new(piece);
            }
        }
        let piece = Arc::get_mut(&mut self.piece).expect("it is ours alone");
        self.start = position;
        let rest = &mut piece.as_mut_slice()[there..];
        match self.file.read_all_at(rest, position.plus(there as u64)) {
            Ok(read) => piece.truncate(there + read),
            Err(error) => {
                piece.clear();
                return Err(error);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::{io::sim::rng::SimRng, segment::SegmentFile, testing::TestLog};

    /// A file that counts what is read of it.
    struct Counted<F> {
        file: F,
        read_bytes: AtomicU64,
    }

    impl<F: DiskFile> DiskFile for Counted<F> {
        fn size(&self) -> io::Result<u64> {
            self.file.size()
        }

        fn read_at(&self, bytes: &mut [u8], position: Position) -> io::Result<usize> {
            let is_whole = |bytes: u64| bytes.is_multiple_of(FRAME_ALIGN_BYTES as u64);
            assert!(is_whole(position.get()) && is_whole(bytes.len() as u64), "a direct read");
            let read = self.file.read_at(bytes, position)?;
            self.read_bytes.fetch_add(read as u64, Ordering::Relaxed);
            Ok(read)
        }

        fn write_at(&self, _: &[u8], _: Position) -> io::Result<usize> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn sync_data(&self) -> io::Result<()> {
            Ok(())
        }

        fn set_size(&self, _: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    /// However long frames and pieces are, and whether frames are kept or not.
    #[test]
    fn every_byte_is_read_once() {
        let mut rng = SimRng::new(1);
        for case in 0..40 {
            let mut log = TestLog::new(case);
            let count = 1 + rng.below(30);
            let frames: Vec<_> = (0..count)
                .map(|_| {
                    let len = usize::try_from(rng.below(40_000)).expect("short");
                    vec![("a", vec![b'x'; len])]
                })
                .collect();
            let name = log.add_sealed(&frames);
            let set = log.set();
            let header = set.iter().next().expect("a segment").header().clone();
            let file = log.open(name, SegmentFile::Log);
            let counted = Counted { file, read_bytes: AtomicU64::new(0) };
            let steps = 1 + usize::try_from(rng.below(20)).expect("few");
            let mut scan = FrameScan::new(&counted, &header).in_steps_of(steps * FRAME_ALIGN_BYTES);
            let mut kept = Vec::new();
            for at in &log.segments[0].1 {
                let (frame, position) = scan.next_frame().expect("it works").expect("a frame");
                assert_eq!((position.get(), frame.base_offset().get()), (at.position, at.base));
                if rng.below(2) == 0 {
                    kept.push(frame);
                }
            }
            let read_bytes = counted.read_bytes.load(Ordering::Relaxed);
            assert_eq!(read_bytes, counted.size().expect("a file") - FIRST_FRAME_POSITION.get());
            for frame in kept {
                let data = frame.events().next().expect("one").data().to_vec();
                assert!(data.iter().all(|byte| *byte == b'x'), "case {case}");
            }
        }
    }
}
