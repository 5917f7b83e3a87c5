//! Which blocks of a simulated file take up space, and to which of them nothing was ever written.

use std::{collections::BTreeSet, ops::Range};

use super::rng::SimRng;

/// What a disk may read, change and write back for one sector: a power cut may damage all of it.
pub const BLOCK_BYTES: usize = 4096;

/// The blocks of a file, by their number in it.
#[derive(Clone, Debug, Default)]
pub(super) struct Blocks {
    /// All that take up space.
    taken: BTreeSet<usize>,
    /// Those of them that nothing was written to.
    unwritten: BTreeSet<usize>,
}

impl Blocks {
    /// How many bytes of disk they take up.
    pub(super) fn space_bytes(&self) -> usize {
        self.taken.len() * BLOCK_BYTES
    }

    /// How many bytes of disk more they would take up with all blocks of these bytes.
    pub(super) fn space_needed(&self, position: usize, len: usize) -> usize {
        blocks_of(position, len).filter(|block| !self.taken.contains(block)).count() * BLOCK_BYTES
    }

    /// Whether all blocks of these bytes are there, and nothing was ever written to any of them.
    pub(super) fn is_unwritten(&self, position: usize, len: usize) -> bool {
        len > 0 && blocks_of(position, len).all(|block| self.unwritten.contains(&block))
    }

    /// Something is written to all blocks of these bytes.
    pub(super) fn write(&mut self, position: usize, len: usize) {
        self.taken.extend(blocks_of(position, len));
        self.may_be_written(position, len);
    }

    /// Something may have been written to those that are there of the blocks of these bytes.
    pub(super) fn may_be_written(&mut self, position: usize, len: usize) {
        for block in blocks_of(position, len) {
            self.unwritten.remove(&block);
        }
    }

    /// Takes up space for what lies between two positions.
    pub(super) fn take(&mut self, from: usize, to: usize) {
        for block in blocks_of(from, to.saturating_sub(from)) {
            if self.taken.insert(block) {
                self.unwritten.insert(block);
            }
        }
    }

    /// Where the blocks end that a disk gives which has too few of what lies between two positions: some of the first,
    /// fewer than all, no more new ones than fit into `free_bytes`.
    pub(super) fn given_end(
        &self,
        from: usize,
        to: usize,
        free_bytes: usize,
        rng: &mut SimRng,
    ) -> usize {
        let blocks = blocks_of(from, to.saturating_sub(from));
        let most = match (rng.below(4), blocks.len()) {
            (_, 0) | (0, _) => 0,
            (1, count) => rng.index(count),
            (_, count) => count - 1,
        };
        let mut left = free_bytes / BLOCK_BYTES;
        let is_given = |block: &usize| {
            if self.taken.contains(block) {
                return true;
            }
            let is_left = left > 0;
            left -= usize::from(is_left);
            is_left
        };
        let last = blocks.take(most).take_while(is_given).last();
        last.map_or(from, |block| (block + 1) * BLOCK_BYTES)
    }

    /// The file has `len` bytes and no more.
    pub(super) fn cut(&mut self, len: usize) {
        self.taken.retain(|block| block * BLOCK_BYTES < len);
        self.unwritten.retain(|block| block * BLOCK_BYTES < len);
    }
}

fn blocks_of(position: usize, len: usize) -> Range<usize> {
    position / BLOCK_BYTES..(position + len).div_ceil(BLOCK_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_is_not_all_there_the_first_are_given_and_no_more_than_there_are() {
        let (mut none, mut most) = (0, 0);
        for seed in 0..200 {
            let mut blocks = Blocks::default();
            blocks.write(0, BLOCK_BYTES);
            let free = if seed % 2 == 0 { 100 } else { 2 };
            let free_bytes = free * BLOCK_BYTES + 1;
            let end = blocks.given_end(0, 5 * BLOCK_BYTES, free_bytes, &mut SimRng::new(seed));
            blocks.take(0, end);
            let space_bytes = blocks.space_bytes();
            let limit = if free == 2 { 3 } else { 4 } * BLOCK_BYTES;
            assert!(space_bytes <= limit);
            assert_eq!(blocks.space_needed(0, space_bytes), 0, "the first of them");
            none += usize::from(space_bytes == BLOCK_BYTES);
            most += usize::from(space_bytes == limit);
        }
        assert!(none > 20 && most > 20, "{none} {most}");
        let end = Blocks::default().given_end(4096, 4096, usize::MAX, &mut SimRng::new(1));
        assert_eq!(end, 4096, "nothing was asked for");
    }

    #[test]
    fn they_are_unwritten_until_something_is_written_to_them() {
        let mut blocks = Blocks::default();
        blocks.write(0, BLOCK_BYTES);
        assert!(!blocks.is_unwritten(BLOCK_BYTES, 1), "a hole is no block");
        blocks.take(0, 4 * BLOCK_BYTES);
        assert!(!blocks.is_unwritten(0, 1), "zeroes were written");
        assert!(blocks.is_unwritten(BLOCK_BYTES, 3 * BLOCK_BYTES));
        assert!(!blocks.is_unwritten(BLOCK_BYTES, 3 * BLOCK_BYTES + 1), "the file ends before");
        blocks.write(2 * BLOCK_BYTES, 1);
        assert!(blocks.is_unwritten(BLOCK_BYTES, BLOCK_BYTES));
        assert!(!blocks.is_unwritten(BLOCK_BYTES, BLOCK_BYTES + 1));
        blocks.cut(3 * BLOCK_BYTES);
        assert!(!blocks.is_unwritten(3 * BLOCK_BYTES, 1));
        blocks.may_be_written(BLOCK_BYTES, 1);
        assert!(!blocks.is_unwritten(BLOCK_BYTES, 1), "it was on its way");
        assert_eq!(blocks.space_bytes(), 3 * BLOCK_BYTES);
    }
}
