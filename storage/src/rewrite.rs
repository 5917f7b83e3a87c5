//! Writes a segment anew, frame by frame, with its index: for a repair and for a restore.
//!
//! Bodies of frames stay as they are but for compressed ones; headers are made anew, since the file has another
//! incarnation and so another seed of all checksums.
use std::{io, ops::Range, path::Path};

use crate::{
    buffer::DiskBuffer,
    error::OpenError,
    frame::{
        Frame, Seed,
        gap::{self, GAP_OFFSETS_MAX},
    },
    index::{
        Carried, IndexBuilder, IndexError, IndexHeader, SegmentEnd,
        cut::{Cut, carried_below},
    },
    io::{Disk, DiskFile},
    new_segment::NewSegment,
    offset::{Offset, Position},
    pace::Pace,
    segment::{FIRST_FRAME_POSITION, SEGMENT_HEADER_BYTES, SegmentHeader, SegmentName},
};

/// A segment that is being written.
pub(crate) struct SegmentWriter<D: Disk> {
    new: NewSegment<D>,
    seed: Seed,
    created_at_ms: u64,
    index: IndexBuilder,
    end: SegmentEnd,
}

impl<D: Disk> SegmentWriter<D> {
    /// Begins a segment with this header in `dir`, under a temporary name.
    pub fn create(
        disk: &D,
        dir: &Path,
        name: SegmentName,
        header: &SegmentHeader,
    ) -> Result<Self, OpenError> {
        let new = NewSegment::create(disk, dir, name, header, false, Pace::alone())?;
        let seed = Seed::of(&header.incarnation);
        Ok(SegmentWriter {
            new,
            seed,
            created_at_ms: header.created_at_ms,
            index: IndexBuilder::new(header),
            end: SegmentEnd {
                end_offset: header.base_offset,
                end_position: FIRST_FRAME_POSITION,
                end_checksum: seed.chain_start(),
            },
        })
    }

    /// The first offset behind what was added.
    pub fn end(&self) -> Offset {
        self.end.end_offset
    }

    /// What was added.
    pub fn index(&self) -> &IndexBuilder {
        &self.index
    }

    /// Adds the events of a frame of any segment that lie below `cut`; it must begin where the last one
    /// ended. The inner error says why it does not fit to those before; then nothing was added.
    pub fn add(&mut self, frame: &Frame, cut: Offset) -> Result<Result<(), IndexError>, OpenError> {
        assert_eq!(frame.base_offset(), self.end(), "frames follow each other");
        let rewritten = frame.rewritten(cut, self.seed, self.end.end_checksum);
        let Some((frame, stored)) = rewritten else {
            return Ok(Err(IndexError::Content { what: "the name of a topic" }));
        };
        if let Err(error) = self.index.add(&frame, self.end.end_position) {
            return Ok(Err(error));
        }
        self.end.end_checksum = frame.header().checksum;
        self.end.end_offset = frame.end_offset();
        self.write(stored.as_slice())?;
        Ok(Ok(()))
    }

    /// Adds that the events up to `to` are lost, and why.
    pub fn add_gap(&mut self, to: Offset, why: &str) -> Result<(), OpenError> {
        while self.end() < to {
            let from = self.end();
            let until = Offset::new(to.get().min(from.get() + GAP_OFFSETS_MAX));
            let (header, bytes) =
                gap::encode(from, until, self.created_at_ms, why, self.seed, self.end.end_checksum);
            let lost: Range<Offset> = from..until;
            self.index.add_gap(lost, self.end.end_position, bytes.len());
            self.end.end_checksum = header.checksum;
            self.end.end_offset = until;
            self.write(bytes.as_slice())?;
        }
        Ok(())
    }

    fn write(&mut self, frame: &[u8]) -> Result<(), OpenError> {
        self.end.end_position = self.end.end_position.plus(frame.len() as u64);
        self.new.write(frame)
    }

    /// What of an index, which belongs to the segment that is cut here, still holds.
    pub fn carried(
        &self,
        header: &IndexHeader,
        carried: &Carried,
        cut: Cut,
    ) -> Result<Carried, IndexError> {
        carried_below(carried, header, cut, self.end.end_offset, &self.index)
    }

    /// Gives both files their names, durably. Returns how it ends. What a sound index of the segment said of
    /// the state of the log is carried over; without one the frames say it.
    pub fn finish(self, carried: Option<&Carried>) -> Result<SegmentEnd, OpenError> {
        let SegmentWriter { new, index, end, .. } = self;
        let index = match carried {
            Some(carried) => index.finish_carrying(&end, carried),
            None => index.finish(&end),
        };
        new.finish(index.into())?;
        Ok(end)
    }
}

/// The header of a segment's log file, if it can be read and is good; else why not.
pub(crate) fn read_header<F: DiskFile>(file: &F) -> io::Result<Result<SegmentHeader, String>> {
    let mut bytes = DiskBuffer::zeroed(SEGMENT_HEADER_BYTES);
    match file.read_exact_at(bytes.as_mut_slice(), Position::default()) {
        Ok(()) => Ok(SegmentHeader::decode(bytes.as_slice()).map_err(|error| error.to_string())),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Ok(Err("the file ends inside its header".to_owned()))
        }
        Err(error) => Err(error),
    }
}
