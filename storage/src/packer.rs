//! Events of a segment that is rewritten become frames that are as long as they may be, compressed.
//!
//! Where the log keeps only what is behind some offset, `from`, a frame says so ([`kept`]). It cannot stand for the
//! offsets of events that stay, as control events do as long as their segment:
//! ```text
//! c..c.......cc|from..    c control events, . what is gone
//! [ ][ kept ][  ..        its end is `from`, or the first of the control events right before that
//! ```
//! Where nothing is left from there on it stands for the offsets up to the segment's end: some frame has to.

use std::path::Path;

use crate::{
    error::{Corruption, OpenError},
    event::StagedEvent,
    frame::{self, EVENTS_MAX, Frame, FrameFlags, FrameMeta, Seed, Trust, kept},
    index::{Carried, IndexBuilder, SegmentEnd},
    io::Disk,
    new_segment::NewSegment,
    offset::Offset,
    pace::{PACE_BYTES, Pace, Turns},
    parts::Part,
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
    created_at_ms: u64,
    /// The log keeps nothing before it, which is still to be said.
    kept_from: Option<Offset>,
    /// Control events before it, in a row.
    held: Vec<StagedEvent>,
    /// Where the next frame goes, with which base, behind which checksum.
    end: SegmentEnd,
    /// How much was written since the last sync.
    unsynced_bytes: usize,
    turns: Turns,
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
            new: NewSegment::create(disk, dir, name, &header, true, pace.clone())?,
            seed,
            index: IndexBuilder::carrying(&header),
            pending: Vec::new(),
            pending_bytes: 0,
            commit_time_ms: 0,
            created_at_ms: header.created_at_ms,
            kept_from: None,
            held: Vec::new(),
            end,
            unsynced_bytes: 0,
            turns: Turns::beside(pace),
        })
    }

    /// The log keeps nothing before `from`, which lies before the segment's end: events before that are control
    /// events.
    pub(crate) fn keep_from(&mut self, from: Offset) {
        self.kept_from = Some(from);
    }

    pub(crate) fn index(&self) -> &IndexBuilder {
        &self.index
    }

    /// What the checksums of its files begin with.
    pub(crate) fn seed(&self) -> Seed {
        self.seed
    }

    pub(crate) fn push(
        &mut self,
        event: StagedEvent,
        commit_time_ms: u64,
    ) -> Result<(), OpenError> {
        if self.kept_from.is_none_or(|from| event.offset >= from) {
            self.say_kept()?;
            self.add(event)?;
        } else {
            let is_next = |last: &StagedEvent| last.offset.plus(1) == event.offset;
            if !self.held.last().is_some_and(is_next) {
                self.add_held()?;
            }
            self.held.push(event);
        }
        self.commit_time_ms = commit_time_ms;
        Ok(())
    }

    /// Says from where on the log keeps anything, unless that was said.
    fn say_kept(&mut self) -> Result<(), OpenError> {
        let Some(from) = self.kept_from.take() else { return Ok(()) };
        if !self.holds_up_to(from) {
            self.add_held()?;
        }
        let kept_from = self.held.first().map_or(from, |first| first.offset);
        if let Some(last) = self.pending.last() {
            self.write_frame(last.offset.plus(1))?;
        }
        let base = self.end.end_offset;
        if base < kept_from {
            let (time_ms, checksum) = (self.created_at_ms, self.end.end_checksum);
            let (_, bytes) = kept::encode(base, kept_from, time_ms, self.seed, checksum);
            let frame = Frame::parse(bytes.clone(), self.seed, Trust::Checksum);
            self.write(&frame.expect("a frame of ours"), bytes.as_slice())?;
        }
        self.add_held()
    }

    /// Whether the control events that are held stand right before `from`.
    fn holds_up_to(&self, from: Offset) -> bool {
        self.held.last().is_some_and(|last| last.offset.plus(1) == from)
    }

    fn add_held(&mut self) -> Result<(), OpenError> {
        std::mem::take(&mut self.held).into_iter().try_for_each(|event| self.add(event))
    }

    fn add(&mut self, event: StagedEvent) -> Result<(), OpenError> {
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
        self.turns.worked_on(bytes as u64);
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
        self.write(&frame, stored.as_slice())?;
        self.turns.worked_on(self.pending_bytes as u64);
        self.pending.clear();
        self.pending_bytes = 0;
        self.wrote(stored.len())
    }

    fn write(&mut self, frame: &Frame, stored: &[u8]) -> Result<(), OpenError> {
        let position = self.end.end_position;
        self.new.write(stored)?;
        self.index.add(frame, position).map_err(|error| {
            let what = error.to_string();
            OpenError::Corrupt(Corruption { file: self.new.path().to_owned(), position, what })
        })?;
        self.end = SegmentEnd {
            end_offset: frame.end_offset(),
            end_position: position.plus(stored.len() as u64),
            end_checksum: frame.header().checksum,
        };
        Ok(())
    }

    fn wrote(&mut self, written: usize) -> Result<(), OpenError> {
        self.unsynced_bytes += written;
        if self.unsynced_bytes < PACE_BYTES {
            return Ok(());
        }
        self.unsynced_bytes = 0;
        self.new.sync()
    }

    /// Makes it the segment, durably, if it `is_wanted` still when all of it is written; whether it was.
    /// What the segment had added to the state of the log is `carried`, and PRODUCERS beside that.
    pub(crate) fn finish_if(
        mut self,
        end_offset: Offset,
        carried: &Carried,
        producers: Part<'_>,
        is_wanted: impl FnOnce() -> bool,
    ) -> Result<bool, OpenError> {
        if self.kept_from.is_some_and(|from| !self.holds_up_to(from)) {
            self.kept_from = Some(end_offset);
        }
        self.say_kept()?;
        if !self.pending.is_empty() {
            self.write_frame(end_offset)?;
        }
        assert_eq!(self.end.end_offset, end_offset, "its frames stand for all offsets");
        let end = self.end;
        self.new.finish_if(self.index.parts_carrying(&end, carried, producers), is_wanted)
    }
}
