//! A segment that has no index file yet: the active one, and full ones whose seal is under way.
//!
//! Its visible frames are known by place, and by an index that grows with them and is the same as
//! the one that its seal will write. The newest frames are also kept in memory, over all unsealed
//! segments together, up to a limit ([`RecentFrames`]).

use std::{ops::Range, path::PathBuf, sync::Arc};

use crate::{
    frame::{Frame, HeldFrames, Seed},
    index::{IndexBuilder, SegmentEnd},
    io::Disk,
    offset::{Offset, Position},
    once::{IdEntry, NumberedProducer},
    segment::{FIRST_FRAME_POSITION, SegmentHeader, SegmentName},
    topic::{TopicNumber, TopicPattern},
    topics::TopicTable,
};

/// A pattern that may match more topics than this is read by scanning.
const TOPICS_LOOKED_UP_MAX: usize = 4_096;

/// A segment without an index file.
pub struct Unsealed<D: Disk> {
    pub(crate) name: SegmentName,
    pub(crate) header: SegmentHeader,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<D::File>,
    pub(crate) seed: Seed,
    /// Of the visible frames. A seal shares it once it is complete.
    pub(crate) index: Arc<IndexBuilder>,
    /// Behind the last visible frame.
    pub(crate) end: SegmentEnd,
}

/// A frame that holds events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EventFrame {
    pub(crate) offsets: (Offset, Offset),
    pub(crate) position: Position,
    pub(crate) bytes: usize,
}

impl<D: Disk> Unsealed<D> {
    /// A segment that holds no frame yet.
    pub(crate) fn new(
        name: SegmentName,
        header: SegmentHeader,
        path: PathBuf,
        file: Arc<D::File>,
    ) -> Self {
        let seed = Seed::of(&header.incarnation);
        let end = SegmentEnd {
            end_offset: header.base_offset,
            end_position: FIRST_FRAME_POSITION,
            end_checksum: seed.chain_start(),
        };
        let index = Arc::new(IndexBuilder::new(&header));
        Unsealed { name, header, path, file, seed, index, end }
    }

    /// A frame of it has become visible, of which these events have ids and these appends are producers'.
    pub(crate) fn add(
        &mut self,
        frame: &Frame,
        position: Position,
        topics: &TopicTable,
        ids: &[IdEntry],
        producers: &[NumberedProducer],
    ) {
        let place = (self.end.end_offset, self.end.end_position);
        assert_eq!((frame.base_offset(), position), place, "frames become visible in order");
        let index = Arc::get_mut(&mut self.index);
        let index = index.expect("a segment that grows is not being sealed");
        index.add_ours(frame, position, topics, (ids, producers));
        self.end = SegmentEnd {
            end_offset: frame.end_offset(),
            end_position: position.plus(frame.frame_bytes() as u64),
            end_checksum: frame.header().checksum,
        };
    }

    /// Its visible frames that hold events and overlap `range`, in offset order.
    pub(crate) fn frames_in(
        &self,
        range: &Range<Offset>,
    ) -> impl DoubleEndedIterator<Item = EventFrame> {
        let frames = self.index.frames();
        let begun = frames.partition_point(|frame| frame.base_offset <= range.start);
        let behind = frames.partition_point(|frame| frame.base_offset < range.end);
        let first = begun.saturating_sub(1);
        let start = range.start;
        (first..behind.max(first)).filter_map(move |index| {
            let frame = frames[index];
            let end = frames.get(index + 1).map_or(self.end.end_offset, |next| next.base_offset);
            (end > start && end > frame.base_offset).then_some(EventFrame {
                offsets: (frame.base_offset, end),
                position: frame.position,
                bytes: frame.frame_bytes,
            })
        })
    }

    /// Where the frames are that hold events of matching topics, in file order; `None` if all are
    /// asked for, or if so many that scanning costs less.
    pub(crate) fn positions_of(
        &self,
        patterns: &[TopicPattern],
        topics: &TopicTable,
    ) -> Option<Vec<Position>> {
        if patterns.is_empty() {
            return None;
        }
        let mut numbers: Vec<TopicNumber> = Vec::new();
        for pattern in patterns {
            match pattern.exact() {
                Some(topic) => numbers.extend(topics.number_of(topic)),
                None => numbers.extend(topics.matching(pattern, TOPICS_LOOKED_UP_MAX)?),
            }
        }
        numbers.sort_unstable();
        numbers.dedup();
        let known = numbers.iter().filter_map(|number| self.index.topic(*number));
        let events: u64 = known.map(|topic| topic.event_count).sum();
        if events > self.index.frames().len() as u64 / 2 {
            return None;
        }
        let frames = numbers.iter().flat_map(|number| self.index.topic_frames(*number));
        let mut positions: Vec<Position> = frames.map(|frame| frame.position).collect();
        positions.sort_unstable();
        positions.dedup();
        Some(positions)
    }
}

/// The newest visible frames, in memory: those that subscribers a little behind ask for.
///
/// Invariant: they are contiguous, and the last is the last visible frame that holds events.
#[derive(Debug)]
pub struct RecentFrames {
    held: HeldFrames,
    bytes_max: usize,
}

impl RecentFrames {
    /// None yet, and never more than `bytes_max` bytes of memory, but for a write that alone takes more.
    pub fn new(bytes_max: usize) -> Self {
        RecentFrames { held: HeldFrames::default(), bytes_max }
    }

    /// Adds the next frame, and forgets the oldest that have no room any more.
    pub fn push(&mut self, frame: Arc<Frame>) {
        self.held.push(frame);
        while self.held.bytes() > self.bytes_max && !self.held.is_one_write() {
            self.held.let_oldest_go();
        }
    }

    /// The frame that begins at `base`, if it is still here.
    pub fn get(&self, base: Offset) -> Option<&Arc<Frame>> {
        let frames = self.held.frames();
        let index = frames.partition_point(|frame| frame.base_offset() < base);
        frames.get(index).filter(|frame| frame.base_offset() == base)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;

    use bytes::Bytes;

    use super::*;
    use crate::{
        buffer::DiskBuffer,
        event::{NewEvent, StagedEvent},
        frame::{FrameFlags, FrameMeta, FrameRow},
        segment::Incarnation,
        topic::Topic,
    };

    /// A write of so many frames of one event each, from `base` on, in memory for `bytes`.
    fn write(base: u64, frames: u64, bytes: usize) -> (Vec<Arc<Frame>>, Weak<DiskBuffer>) {
        let seed = Seed::of(&Incarnation::new([7; 16]));
        let mut row = FrameRow::with_capacity(bytes);
        for offset in (base..base + frames).map(Offset::new) {
            let topic = Topic::parse("a").expect("a topic");
            let event = NewEvent::json(topic, Bytes::from_static(b"1"));
            let topic_number = TopicNumber::new(0);
            let meta = FrameMeta {
                base_offset: offset,
                commit_time_ms: 0,
                synced_offset: Offset::ZERO,
                previous_checksum: 0,
                flags: FrameFlags::NONE,
            };
            row.push(&meta, &[StagedEvent { offset, time_ms: 0, topic_number, event }], seed);
        }
        let (frames, buffer) = row.finish();
        (frames.map(Arc::new).collect(), Arc::downgrade(&buffer))
    }

    /// What is in memory, and not only what of it is a frame that can still be asked for.
    #[test]
    fn recent_frames_hold_no_more_memory_than_their_limit() {
        const BYTES_MAX: usize = 256 << 10;
        let mut recent = RecentFrames::new(BYTES_MAX);
        let mut buffers: Vec<Weak<DiskBuffer>> = Vec::new();
        let mut next = 0;
        for round in 0..300_u64 {
            let (frames, room) = (1 + round % 7, if round % 3 == 0 { 64 << 10 } else { 0 });
            let (written, buffer) = write(next, frames, room);
            buffers.push(buffer);
            for frame in written {
                recent.push(frame);
                let held: Vec<_> = buffers.iter().filter_map(Weak::upgrade).collect();
                let held_bytes: usize = held.iter().map(|buffer| buffer.capacity()).sum();
                // (The frames that are pushed next are held by this test.)
                assert!(held_bytes <= BYTES_MAX, "{held_bytes} bytes in round {round}");
                assert!(
                    round < 50 || held_bytes > BYTES_MAX / 2,
                    "{held_bytes}: it is made use of"
                );
                next += 1;
                assert!(recent.get(Offset::new(next - 1)).is_some(), "the last is always here");
            }
        }
        // One that is longer alone is all there is, and the next one takes its place.
        let (written, buffer) = write(next, 3, 2 * BYTES_MAX);
        written.into_iter().for_each(|frame| recent.push(frame));
        let kept = (next..next + 3).filter(|base| recent.get(Offset::new(*base)).is_some());
        assert_eq!((kept.count(), buffer.strong_count()), (3, 3));
        let (written, _) = write(next + 3, 2, 0);
        written.into_iter().for_each(|frame| recent.push(frame));
        assert_eq!(buffer.strong_count(), 0);
        assert!(recent.get(Offset::new(next + 3)).is_some());
    }
}
