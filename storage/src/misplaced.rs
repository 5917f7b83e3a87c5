//! Which of the frames that stand behind damage the segment goes on with.
//!
//! Frames lie in the order of their offsets, so it is the first one whose header is sound. But a write of the disk that has
//! landed elsewhere has put a frame, or a row of them, where others were:
//!
//! ```text
//! A B C D E F G H     as they were written
//! A F G D E F G H     landed too early: behind them stands what is of lower offsets. It goes on with D
//! A     D E B C H     and too late: what B and C have fits between A and D. It goes on with D, too
//! ```
//! A row that is longer than any write is where it belongs.

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
}

impl Row {
    fn new(header: FrameHeader, position: Position) -> Self {
        let end = position.plus(header.frame_bytes() as u64);
        Row { first: header, last: header, start: position, end }
    }

    /// Adds a frame, if it is the next.
    fn goes_on_with(&mut self, header: &FrameHeader, position: Position) -> bool {
        let is_next = position == self.end
            && header.base_offset == self.last.end_offset
            && header.previous_checksum == self.last.checksum;
        if is_next {
            (self.last, self.end) = (*header, position.plus(header.frame_bytes() as u64));
        }
        is_next
    }

    fn bytes(&self) -> u64 {
        self.end.get() - self.start.get()
    }
}

impl BehindDamage {
    /// Of damage that begins there: what is missed from an offset on.
    pub fn new(from: (Offset, Position)) -> Self {
        BehindDamage { from, next: None, late: None }
    }

    /// Takes the next sound header of frames that begin at the missed offset, or farther on. Whether no more are needed.
    pub fn take(&mut self, header: FrameHeader, position: Position) -> bool {
        let (missed, from) = self.from;
        let Some(next) = &mut self.next else {
            self.next = Some(Row::new(header, position));
            return false;
        };
        if let Some(late) = &mut self.late {
            if !late.goes_on_with(&header, position) {
                return true;
            }
        } else if !next.goes_on_with(&header, position) {
            // A copy of the frame that follows is less sure to be whole than that.
            let is_copy_here = next.start == from && header.base_offset < next.first.end_offset;
            if !is_copy_here && header.base_offset >= next.first.base_offset {
                return true;
            }
            self.late = Some(Row::new(header, position));
        }
        let fits = |late: &Row| {
            late.first.base_offset == missed
                && late.last.end_offset <= next.first.base_offset
                && late.bytes() <= next.start.get() - from.get()
        };
        if let Some(home) = self.late.take_if(|late| !fits(late)) {
            *next = home;
        }
        self.late.is_none() && next.bytes() > WRITE_BYTES_MAX
    }

    /// The frame that it goes on with, and where that stands.
    pub fn next(&self) -> Option<(FrameHeader, Position)> {
        self.next.as_ref().map(|next| (next.first, next.start))
    }
}
