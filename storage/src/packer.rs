//! Events of a segment that is rewritten become frames that are as long as they may be, compressed.

use std::path::Path;

use crate::{
    error::{Corruption, OpenError},
    event::StagedEvent,
    frame::{self, EVENTS_MAX, FrameFlags, FrameMeta, Seed},
    index::{Carried, IndexBuilder, SegmentEnd},
    io::Disk,
    new_segment::NewSegment,
    offset::Offset,
    pace::{PACE_BYTES, Pace},
    segment::{FIRST_FRAME_POSITION, Incarnation, SegmentHeader, SegmentName},
};

/// Frames gather events up to this length: long enough to compress well, short enough that one event
/// costs a tenth of a millisecond to read.
const FRAME_BYTES_TARGET: usize = 128 << 10;

/// The next generation of a segment, while it is written: events become frames as long as they may be.
pub(crate) struct Packer<D: Disk> {
    new: NewSegment<D>,
    seed: Seed,
    index: IndexBuilder,
    pending: Vec<StagedEvent>,
    pending_bytes: usize,
    commit_time_ms: u64,
    /// Where the next frame goes, with which base, behind which checksum.
    end: SegmentEnd,
    /// How much was written since the last sync.
    unsynced_bytes: usize,
}

impl<D: Disk> Packer<D> {
    pub(crate) fn create(
        disk: &D,
        dir: &Path,
        name: SegmentName,
        old: &SegmentHeader,
        pace: Pace,
    ) -> Result<Self, OpenError> {
        let header = SegmentHeader { incarnation: Incarnation::random(), ..old.clone() };
        let seed = Seed::of(&header.incarnation);
        let end = SegmentEnd {
            end_offset: header.base_offset,
            end_position: FIRST_FRAME_POSITION,
            end_checksum: seed.chain_start(),
        };
        Ok(Packer {
            new: NewSegment::create(disk, dir, name, &header, true, pace)?,
            seed,
            index: IndexBuilder::new(&header),
            pending: Vec::new(),
            pending_bytes: 0,
            commit_time_ms: 0,
            end,
            unsynced_bytes: 0,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.index.event_count() == 0
    }

    pub(crate) fn index(&self) -> &IndexBuilder {
        &self.index
    }

    pub(crate) fn push(
        &mut self,
        event: StagedEvent,
        commit_time_ms: u64,
    ) -> Result<(), OpenError> {
        let bytes = frame::encoded_bytes_max(&event.event);
        let is_full = self.pending_bytes + bytes > FRAME_BYTES_TARGET;
        let is_far = self
            .pending
            .first()
            .is_some_and(|_| event.offset.since(self.end.end_offset) >= u64::from(u32::MAX));
        if (is_full && !self.pending.is_empty()) || self.pending.len() == EVENTS_MAX || is_far {
            let end = self.pending.last().expect("not empty").offset.plus(1);
            self.write_frame(end)?;
        }
        self.pending_bytes += bytes;
        self.pending.push(event);
        self.commit_time_ms = commit_time_ms;
        Ok(())
    }

    /// Writes what is pending as the frame that stands for all offsets up to `end_offset`.
    fn write_frame(&mut self, end_offset: Offset) -> Result<(), OpenError> {
        let meta = FrameMeta {
            base_offset: self.end.end_offset,
            commit_time_ms: self.commit_time_ms,
            synced_offset: self.end.end_offset,
            previous_checksum: self.end.end_checksum,
            flags: FrameFlags::NONE,
        };
        let (frame, stored) = frame::encode_compressed(&meta, end_offset, &self.pending, self.seed);
        let position = self.end.end_position;
        self.new.write(stored.as_slice())?;
        self.index.add(&frame, position).map_err(|error| {
            let what = error.to_string();
            OpenError::Corrupt(Corruption { file: self.new.path().to_owned(), position, what })
        })?;
        self.end = SegmentEnd {
            end_offset,
            end_position: position.plus(stored.len() as u64),
            end_checksum: frame.header().checksum,
        };
        self.pending.clear();
        self.pending_bytes = 0;
        self.wrote(stored.len())
    }

    fn wrote(&mut self, written: usize) -> Result<(), OpenError> {
        self.unsynced_bytes += written;
        if self.unsynced_bytes < PACE_BYTES {
            return Ok(());
        }
        self.unsynced_bytes = 0;
        self.new.sync()
    }

    /// Makes it the segment, durably.
    pub(crate) fn finish(mut self, end_offset: Offset, carried: &Carried) -> Result<(), OpenError> {
        if !self.pending.is_empty() {
            self.write_frame(end_offset)?;
        }
        let end = SegmentEnd { end_offset, ..self.end };
        self.new.finish(&self.index.finish_carrying(&end, carried))
    }
}
