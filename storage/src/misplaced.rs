//! Which of the frames that stand behind damage the segment goes on with.
//!
//! Frames lie in the order of their offsets, so it is the first one whose header is sound. But a write of the disk that has
//! landed elsewhere has put a frame, or a row of them, where others were:
//!
//! ```text
//! A B C D E F G H     as they were written
//! A F G D E F G H     landed too early: behind them stands what is of lower offsets. It goes on with D
//! A F G D E     H     and is not where it belongs: there is room for it. It goes on with D all the same
//! A     D E B C H     landed too late: what B and C have fits between A and D. It goes on with D, too
//! A x   D E F C H     and B is damaged as well: between C and H is no room for D E F. It goes on with D
//! ```
//! A row that is longer than any write is where it belongs. Frames without events count for no room before a row and behind
//! it: who looks at a part of a segment may see them on the other side of its edge.

use crate::{
    frame::{FRAME_BYTES_MAX, FrameHeader},
    offset::{Offset, Position},
};

/// No write of the disk is longer: see [`LogConfig::write_bytes_max`](crate::config::LogConfig).
const WRITE_BYTES_MAX: u64 = FRAME_BYTES_MAX as u64;

/// Looks at the frames behind damage, in the order in which they stand there.
pub(crate) struct BehindDamage {
    /// Where it begins, and which offset is the first that is missed.
    from: (Offset, Position),
    next: Option<Row>,
    /// Stands behind `next`, and would fit before it.
    late: Option<Row>,
}

/// Frames of which each is the one behind the other.
#[derive(Clone, Copy)]
struct Row {
    first: FrameHeader,
    last: FrameHeader,
    start: Position,
    end: Position,
    /// From the first of them that stands for events to the end of the last.
    events: Option<(Position, Position)>,
}

impl Row {
    fn new(header: FrameHeader, position: Position) -> Self {
        let end = position.plus(header.frame_bytes() as u64);
        let events = (header.base_offset < header.end_offset).then_some((position, end));
        Row { first: header, last: header, start: position, end, events }
    }

    /// Adds a frame, if it is the next.
    fn goes_on_with(&mut self, header: &FrameHeader, position: Position) -> bool {
        let is_next = position == self.end
            && header.base_offset == self.last.end_offset
            && header.previous_checksum == self.last.checksum;
        if is_next {
            let one = Row::new(*header, position);
            (self.last, self.end) = (one.last, one.end);
            if let Some((start, end)) = one.events {
                self.events = Some((self.events.map_or(start, |(first, _)| first), end));
            }
        }
        is_next
    }

    /// How much room it needs.
    fn bytes(&self) -> u64 {
        self.events.map_or(0, |(start, end)| end.get() - start.get())
    }
}

impl BehindDamage {
    /// Of damage that begins there: what is missed from an offset on.
    pub fn new(from: (Offset, Position)) -> Self {
        BehindDamage { from, next: None, late: None }
    }

    /// Takes the next sound header of frames that begin at the missed offset, or farther on. Whether no more are needed.
    pub fn take(&mut self, header: FrameHeader, position: Position) -> bool {
        if !self.late.as_mut().is_some_and(|late| late.goes_on_with(&header, position)) {
            self.end_late(position, header.base_offset);
            let Some(next) = &mut self.next else {
                self.next = Some(Row::new(header, position));
                return false;
            };
            if !next.goes_on_with(&header, position) {
                // A copy of the frame that follows is less sure to be whole than that.
                let is_copy_here =
                    next.start == self.from.1 && header.base_offset < next.first.end_offset;
                if !is_copy_here && header.base_offset >= next.first.base_offset {
                    return true;
                }
                self.late = Some(Row::new(header, position));
            }
        }
        let next = self.next.as_ref().expect("there is one by now");
        let Some(late) = &self.late else { return next.bytes() > WRITE_BYTES_MAX };
        if late.last.end_offset >= next.last.end_offset && !self.is_of_before(late, next) {
            self.next = self.late.take();
        }
        false
    }

    /// Decides about what stands behind `next`, and ends where something of these offsets begins, or the segment ends.
    fn end_late(&mut self, at: Position, offset: Offset) {
        let (Some(late), Some(next)) = (self.late.take(), &self.next) else { return };
        let room_bytes = at.get().checked_sub(late.end.get());
        // What stands where damage begins has landed there, or belongs there: no room is missing before it.
        let has_no_room = next.start != self.from.1
            && late.bytes() <= WRITE_BYTES_MAX
            && late.last.end_offset <= next.first.base_offset
            && next.last.end_offset <= offset
            && room_bytes.is_some_and(|room_bytes| room_bytes < next.bytes());
        if !has_no_room && !self.is_of_before(&late, next) {
            self.next = Some(late);
        }
    }

    /// Whether what stands behind `next` is all that is missed before it, or the first of that, and may have stood there.
    fn is_of_before(&self, late: &Row, next: &Row) -> bool {
        let (missed, from) = self.from;
        late.first.base_offset == missed
            && late.last.end_offset <= next.first.base_offset
            && late.bytes() <= next.start.get() - from.get()
    }

    /// The frame that it goes on with, and where that stands, if no more are found up to an end.
    pub fn next(mut self, end: Position) -> Option<(FrameHeader, Position)> {
        self.end_late(end, Offset::MAX);
        self.next.map(|next| (next.first, next.start))
    }
}
