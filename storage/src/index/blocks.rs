//! Where frames begin, as indexes store it: the number of a block of the log file, 32 bits.

use crate::{buffer::ALIGN_BYTES, offset::Position};

const BLOCK_BYTES: u64 = ALIGN_BYTES as u64;

/// The number of the block that begins at a frame's position.
pub(super) fn block_of(position: Position) -> u32 {
    assert!(position.get().is_multiple_of(BLOCK_BYTES), "a frame begins on a block");
    u32::try_from(position.get() / BLOCK_BYTES).expect("a segment is below 16 TiB")
}

/// Where a block begins.
pub(super) fn position_of(block: u32) -> Position {
    Position::new(u64::from(block) * BLOCK_BYTES)
}
