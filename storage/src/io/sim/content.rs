//! What a simulated file holds: as the running system sees it, and as the device would keep it.
//!
//! ```text
//!   write ----> cache (every read sees it) + changes (not durable) ---- sync ----> durable
//!   DSYNC write -----------------------------------------------------------------> cache + durable,
//!                                       and the lengths before, if it makes the file longer
//!   power cut:  durable + any sectors of any changes, some damage, any of the sizes it had -> both
//!   failed sync: some sectors of the changes reach durable, *all* changes count as clean
//! ```
//!
//! Invariant: without a failed sync, applying all `changes` to `durable` gives `cache`.

use std::{ops::Range, sync::Arc};

pub use super::blocks::BLOCK_BYTES;
use super::{blocks::Blocks, rng::SimRng};

/// What a disk writes whole or not at all.
pub const SECTOR_BYTES: usize = 512;

/// How much of what was not durable a power cut leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// Nothing.
    Nothing,
    /// Everything, as if the cut had come a little later.
    Everything,
    /// Any sectors of any writes, with damage.
    Mixed,
}

/// A change that the device has not confirmed.
#[derive(Clone, Debug)]
enum Change {
    /// `is_part` says that it is a piece of a longer write, which covers the blocks around it.
    Write {
        position: usize,
        bytes: Vec<u8>,
        is_part: bool,
    },
    Resize {
        len: usize,
    },
}

/// The bytes of a file. Disks that were made of one another share them until one of them changes them: tests make many,
/// and few files of each are written.
#[derive(Clone, Debug, Default)]
pub struct Content {
    cache: Arc<Vec<u8>>,
    durable: Arc<Vec<u8>>,
    changes: Vec<Change>,
    /// How many changes have been made durable or were lost: `changes[0]` has this number.
    changes_settled: u64,
    blocks: Blocks,
    unreadable: Vec<Range<usize>>,
    /// Whether a sync failed, so that `cache` may show what no device has.
    sync_failed: bool,
}

impl Content {
    /// Its length in bytes.
    pub fn size_bytes(&self) -> usize {
        self.cache.len()
    }

    /// How many bytes of disk it takes up.
    pub fn space_bytes(&self) -> usize {
        self.blocks.space_bytes()
    }

    /// How many bytes of disk it would take up more after a write of `len` bytes.
    pub fn space_needed(&self, position: usize, len: usize) -> usize {
        self.blocks.space_needed(position, len)
    }

    /// All its bytes as a buffered reader sees them.
    pub fn bytes(&self) -> &[u8] {
        &self.cache
    }

    /// Copies what lies at `position`; returns how much. `direct` looks past the page cache.
    /// `None` if a part of it cannot be read.
    pub fn read(&self, position: usize, into: &mut [u8], direct: bool) -> Option<usize> {
        let end = self.cache.len().min(position.saturating_add(into.len()));
        if position >= end {
            return Some(0);
        }
        if self.unreadable.iter().any(|bad| bad.start < end && position < bad.end) {
            return None;
        }
        let on_device = (direct && self.sync_failed).then(|| self.on_device());
        let from = on_device.as_ref().unwrap_or(&*self.cache);
        into[..end - position].copy_from_slice(&from[position..end]);
        Some(end - position)
    }

    /// Takes a write; it is durable at once if `durable`.
    pub fn write(&mut self, position: usize, bytes: &[u8], durable: bool) {
        if bytes.is_empty() {
            return;
        }
        self.blocks.write(position, bytes.len());
        // A drive has other sectors for those that it could not read any more, once they are written.
        let end = position + bytes.len();
        self.unreadable.retain(|bad| bad.start < position || end < bad.end);
        let is_longer = position + bytes.len() > self.cache.len();
        overwrite(Arc::make_mut(&mut self.cache), position, bytes);
        if durable {
            if is_longer {
                self.settle_sizes();
            }
            overwrite(Arc::make_mut(&mut self.durable), position, bytes);
            // A device keeps the order of writes to one sector: what waits below must not come back.
            for change in &mut self.changes {
                if let Change::Write { position: start, bytes: older, .. } = change {
                    overlay(older, *start, bytes, position);
                }
            }
        } else {
            let bytes = bytes.to_vec();
            self.changes.push(Change::Write { position, bytes, is_part: false });
        }
    }

    /// Some sectors of a write that is still in flight reach the device, unconfirmed.
    pub fn write_some_sectors(&mut self, position: usize, bytes: &[u8], rng: &mut SimRng) {
        for (start, piece) in sectors_of(position, bytes) {
            if rng.chance(50) {
                self.write(start, piece, false);
                if let Some(Change::Write { is_part, .. }) = self.changes.last_mut() {
                    *is_part = true;
                }
            }
        }
    }

    /// Sets the length, filling with zeroes.
    pub fn resize(&mut self, len: usize) {
        Arc::make_mut(&mut self.cache).resize(len, 0);
        self.blocks.cut(len);
        self.changes.push(Change::Resize { len });
    }

    /// Takes up space for what lies between two positions, and gives the file that length if it was shorter.
    pub fn allocate(&mut self, from: usize, to: usize) {
        if to > self.cache.len() {
            self.resize(to);
        }
        self.blocks.take(from, to);
    }

    /// Takes up space for the first of these blocks alone, of which fewer than all and no more than `free_bytes` were
    /// given. The length goes along with them, or stays.
    pub fn allocate_some(&mut self, from: usize, to: usize, free_bytes: usize, rng: &mut SimRng) {
        let end = self.blocks.given_end(from, to, free_bytes, rng);
        if end > from.max(self.cache.len()) && rng.chance(50) {
            self.resize(end);
        }
        self.blocks.take(from, end);
    }

    /// Whether it has all these blocks, and nothing was ever written to any of them.
    pub fn is_unwritten(&self, position: usize, len: usize) -> bool {
        self.blocks.is_unwritten(position, len)
    }

    /// A mark for [`Content::sync_to`]: all changes made so far.
    pub fn sync_mark(&self) -> u64 {
        self.changes_settled + self.changes.len() as u64
    }

    /// Makes the changes before `mark` durable.
    pub fn sync_to(&mut self, mark: u64) {
        for change in self.take_changes(mark) {
            match change {
                Change::Write { position, bytes, .. } => {
                    overwrite(Arc::make_mut(&mut self.durable), position, &bytes);
                }
                Change::Resize { len } => Arc::make_mut(&mut self.durable).resize(len, 0),
            }
        }
    }

    /// A sync that fails: some sectors of the changes before `mark` reach the device, and the page
    /// cache holds all of them to be clean: no later sync writes them.
    pub fn fail_sync_to(&mut self, mark: u64, rng: &mut SimRng) {
        self.sync_failed = true;
        for change in self.take_changes(mark) {
            if let Change::Write { position, bytes, .. } = change {
                for (start, piece) in sectors_of(position, &bytes) {
                    if start < self.durable.len() && rng.chance(30) {
                        let room = piece.len().min(self.durable.len() - start);
                        overwrite(Arc::make_mut(&mut self.durable), start, &piece[..room]);
                    }
                }
            }
        }
    }

    /// Drops clean pages from the cache: reads see what the device has.
    pub fn evict_clean_pages(&mut self) {
        if self.sync_failed {
            self.cache = Arc::new(self.on_device());
        }
    }

    /// Loses power, with writes `in_flight` (position, bytes); `stale` are blocks of older files
    /// that the file system may have given to this one.
    pub fn lose_power(
        &mut self,
        in_flight: &[(usize, &[u8])],
        survival: Survival,
        stale: &[Vec<u8>],
        rng: &mut SimRng,
    ) {
        let mut sizes = vec![self.durable.len()];
        let mut bytes = self.durable.to_vec();
        let mut size = self.durable.len();
        let changes = std::mem::take(&mut self.changes);
        self.changes_settled += changes.len() as u64;
        for change in &changes {
            match change {
                Change::Write { position, bytes: written, is_part } => {
                    size = size.max(position + written.len());
                    survive(&mut bytes, *position, written, survival, rng);
                    if survival == Survival::Mixed && !is_part && rng.chance(20) {
                        damage_neighbours(&mut bytes, *position, written.len(), rng);
                    }
                }
                Change::Resize { len } => {
                    size = *len;
                    if survival == Survival::Everything
                        || (survival == Survival::Mixed && rng.chance(50))
                    {
                        bytes.resize(*len, 0);
                    }
                }
            }
            sizes.push(size);
        }
        for (position, written) in in_flight {
            size = size.max(position + written.len());
            sizes.push(size);
            survive(&mut bytes, *position, written, survival, rng);
            if survival == Survival::Mixed && rng.chance(20) {
                damage_neighbours(&mut bytes, *position, written.len(), rng);
            }
        }
        let kept = match survival {
            Survival::Nothing => self.durable.len(),
            Survival::Everything => size,
            Survival::Mixed => *rng.pick(&sizes),
        };
        // A size may become durable before what lies below it: such blocks read as zeroes, or show
        // what an older file left there.
        while bytes.len() < kept {
            let room = BLOCK_BYTES.min(kept - bytes.len());
            if survival == Survival::Mixed && !stale.is_empty() && rng.chance(25) {
                let block = rng.pick(stale);
                bytes.extend_from_slice(&block[..room.min(block.len())]);
            } else {
                bytes.extend(std::iter::repeat_n(0, room));
            }
        }
        bytes.truncate(kept);
        self.blocks.cut(kept);
        for (position, written) in in_flight {
            self.blocks.may_be_written(*position, written.len());
        }
        self.durable = Arc::new(bytes);
        self.cache = Arc::clone(&self.durable);
        self.sync_failed = false;
    }

    /// Changes one bit, on the device and in the cache.
    pub fn flip_bit(&mut self, position: usize, bit: u32) {
        for bytes in [&mut self.cache, &mut self.durable] {
            if let Some(byte) = Arc::make_mut(bytes).get_mut(position) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }

    /// From now on reads that touch `range` fail.
    pub fn make_unreadable(&mut self, range: Range<usize>) {
        self.unreadable.push(range);
    }

    /// Makes the lengths that the file had durable, in their order: where the last is, none before comes back, and nothing
    /// that it has cut off. They stay among the changes, which are counted, and change nothing any more.
    fn settle_sizes(&mut self) {
        for place in 0..self.changes.len() {
            let (older, newer) = self.changes.split_at_mut(place);
            let Change::Resize { len } = newer[0] else { continue };
            Arc::make_mut(&mut self.durable).resize(len, 0);
            for change in older {
                if let Change::Write { position, bytes, .. } = change {
                    bytes.truncate(len.saturating_sub(*position));
                    *position = (*position).min(len);
                }
            }
            newer[0] = Change::Write { position: 0, bytes: Vec::new(), is_part: true };
        }
    }

    fn take_changes(&mut self, mark: u64) -> Vec<Change> {
        let count = mark.saturating_sub(self.changes_settled);
        let count = usize::try_from(count).expect("as many as there are").min(self.changes.len());
        self.changes_settled += count as u64;
        self.changes.drain(..count).collect()
    }

    /// What a read past the page cache finds: dirty pages are written before it.
    fn on_device(&self) -> Vec<u8> {
        let mut bytes = self.durable.to_vec();
        for change in &self.changes {
            match change {
                Change::Write { position, bytes: written, .. } => {
                    overwrite(&mut bytes, *position, written);
                }
                Change::Resize { len } => bytes.resize(*len, 0),
            }
        }
        bytes.resize(self.cache.len(), 0);
        bytes
    }
}

/// Puts what a power cut leaves of a write that was not durable into `bytes`.
fn survive(
    bytes: &mut Vec<u8>,
    position: usize,
    written: &[u8],
    survival: Survival,
    rng: &mut SimRng,
) {
    let percent = match survival {
        Survival::Nothing => return,
        Survival::Everything => 100,
        Survival::Mixed => *rng.pick(&[0, 0, 20, 50, 80, 95, 100, 100]),
    };
    for (start, piece) in sectors_of(position, written) {
        if rng.chance(percent) {
            overwrite(bytes, start, piece);
        }
    }
}

/// Garbles a sector that was not written but shares a 4 KiB block with the write.
fn damage_neighbours(bytes: &mut [u8], position: usize, len: usize, rng: &mut SimRng) {
    let end = position + len;
    let first = (position / BLOCK_BYTES * BLOCK_BYTES, position);
    let last = (end, end.next_multiple_of(BLOCK_BYTES));
    for (start, end) in [first, last] {
        let end = end.min(bytes.len());
        if start < end && rng.chance(60) {
            let hit = start + rng.index(end - start);
            let sector = hit / SECTOR_BYTES * SECTOR_BYTES;
            let garbled = sector.max(start)..(sector + SECTOR_BYTES).min(end);
            let noise = rng.bytes(garbled.len());
            bytes[garbled].copy_from_slice(&noise);
        }
    }
}

/// The parts of a write that lie in different sectors, with their positions.
fn sectors_of(position: usize, bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let start = position + done;
        let room = SECTOR_BYTES - start % SECTOR_BYTES;
        let piece = &bytes[done..bytes.len().min(done + room)];
        done += piece.len();
        (!piece.is_empty()).then_some((start, piece))
    })
}

fn overwrite(target: &mut Vec<u8>, position: usize, bytes: &[u8]) {
    let end = position + bytes.len();
    if target.len() < end {
        target.resize(end, 0);
    }
    target[position..end].copy_from_slice(bytes);
}

/// Copies the part of `newer` that overlaps `older` into it.
fn overlay(older: &mut [u8], older_start: usize, newer: &[u8], newer_start: usize) {
    let start = older_start.max(newer_start);
    let end = (older_start + older.len()).min(newer_start + newer.len());
    if start < end {
        older[start - older_start..end - older_start]
            .copy_from_slice(&newer[start - newer_start..end - newer_start]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Survival; 3] = [Survival::Nothing, Survival::Everything, Survival::Mixed];

    #[test]
    fn synced_bytes_survive_every_power_cut() {
        for seed in 0..200 {
            let mut rng = SimRng::new(seed);
            let mut content = Content::default();
            content.write(0, &[1; 8192], false);
            content.sync_to(content.sync_mark());
            content.write(8192, &[2; 4096], true);
            content.write(12288, &[3; 4096], false);
            content.lose_power(&[(16384, &[4; 4096])], ALL[rng.index(3)], &[], &mut rng);
            assert!(content.size_bytes() >= 12288);
            assert_eq!(&content.bytes()[..8192], &[1; 8192]);
            assert_eq!(&content.bytes()[8192..12288], &[2; 4096]);
        }
    }

    #[test]
    fn unsynced_bytes_survive_whole_torn_or_not_at_all() {
        let (mut whole, mut torn, mut none, mut short) = (0, 0, 0, 0);
        for seed in 0..400 {
            let mut content = Content::default();
            content.write(0, &[1; 4096], false);
            let mut rng = SimRng::new(seed);
            content.lose_power(&[], Survival::Mixed, &[], &mut rng);
            let ones = content.bytes().iter().filter(|byte| **byte == 1).count();
            match (content.size_bytes(), ones) {
                (0, _) => short += 1,
                (_, 4096) => whole += 1,
                (_, 0) => none += 1,
                _ => torn += 1,
            }
            assert_eq!(ones % SECTOR_BYTES, 0, "sectors are whole");
        }
        assert!(whole > 20 && torn > 20 && none > 20 && short > 20);
    }

    #[test]
    fn a_write_may_damage_the_rest_of_its_block_and_nothing_more() {
        let mut damaged = 0;
        for seed in 0..400 {
            let mut content = Content::default();
            content.write(0, &[1; 3 * BLOCK_BYTES], true);
            content.write(BLOCK_BYTES + 1000, &[2; 100], false);
            content.lose_power(&[], Survival::Mixed, &[], &mut SimRng::new(seed));
            let bytes = content.bytes();
            assert!(bytes[..BLOCK_BYTES].iter().all(|byte| *byte == 1));
            assert!(bytes[2 * BLOCK_BYTES..].iter().all(|byte| *byte == 1));
            let rest = bytes[BLOCK_BYTES..2 * BLOCK_BYTES].iter();
            damaged += usize::from(rest.filter(|byte| **byte > 2).count() > 0);
        }
        assert!(damaged > 10);
    }

    #[test]
    fn a_failed_sync_is_believed_by_the_page_cache_alone() {
        let mut rng = SimRng::new(3);
        let mut content = Content::default();
        content.write(0, &[1; 8192], false);
        content.sync_to(content.sync_mark());
        content.write(0, &[2; 8192], false);
        content.fail_sync_to(content.sync_mark(), &mut rng);
        content.sync_to(content.sync_mark());
        assert_eq!(content.bytes(), &[2; 8192], "the cache shows it");
        let mut direct = vec![0; 8192];
        assert_eq!(content.read(0, &mut direct, true), Some(8192));
        assert!(direct.contains(&1), "the device does not have it all");
        content.lose_power(&[], Survival::Everything, &[], &mut rng);
        assert_eq!(content.bytes(), direct);
    }

    #[test]
    fn an_older_unsynced_write_never_comes_back_over_a_durable_one() {
        for seed in 0..100 {
            let mut content = Content::default();
            content.write(0, &[0; 8192], false);
            content.write(4096, &[9; 4096], true);
            content.lose_power(&[], Survival::Mixed, &[], &mut SimRng::new(seed));
            assert_eq!(&content.bytes()[4096..8192], &[9; 4096]);
        }
    }

    #[test]
    fn a_sync_covers_only_what_was_written_before_it_began() {
        let mut content = Content::default();
        content.write(0, &[1; 512], false);
        let mark = content.sync_mark();
        content.write(512, &[2; 512], false);
        content.sync_to(mark);
        content.lose_power(&[], Survival::Nothing, &[], &mut SimRng::new(0));
        assert_eq!(content.bytes(), &[1; 512]);
    }

    #[test]
    fn a_size_may_become_durable_before_its_bytes_and_show_stale_ones() {
        let stale = vec![vec![7; BLOCK_BYTES]];
        let mut seen = false;
        for seed in 0..400 {
            let mut content = Content::default();
            content.write(0, &[1; 2 * BLOCK_BYTES], false);
            content.lose_power(&[], Survival::Mixed, &stale, &mut SimRng::new(seed));
            seen |= content.bytes().contains(&7);
        }
        assert!(seen);
    }

    #[test]
    fn space_is_counted_in_blocks_that_were_written() {
        let mut content = Content::default();
        content.resize(1 << 20);
        assert_eq!(content.space_bytes(), 0, "a hole takes none");
        assert_eq!(content.space_needed(4000, 200), 2 * BLOCK_BYTES);
        content.write(4000, &[1; 200], true);
        assert_eq!(content.space_bytes(), 2 * BLOCK_BYTES);
        assert_eq!(content.space_needed(4000, 200), 0);
    }

    #[test]
    fn what_is_allocated_takes_space_and_is_zero_and_no_longer_than_it_was_before_a_sync() {
        let (mut short, mut long) = (0, 0);
        for seed in 0..100 {
            let mut content = Content::default();
            content.write(0, &[1; BLOCK_BYTES], true);
            content.allocate(BLOCK_BYTES, 4 * BLOCK_BYTES);
            assert_eq!((content.size_bytes(), content.space_bytes()), (4 * 4096, 4 * 4096));
            content.allocate(0, BLOCK_BYTES);
            assert_eq!(content.size_bytes(), 4 * BLOCK_BYTES, "nothing is shortened");
            let mut cut = content.clone();
            cut.lose_power(&[], Survival::Mixed, &[], &mut SimRng::new(seed));
            match cut.size_bytes() {
                BLOCK_BYTES => short += 1,
                size => long += usize::from(size == 4 * BLOCK_BYTES),
            }
            assert_eq!(cut.space_bytes(), cut.size_bytes());
            content.sync_to(content.sync_mark());
            content.lose_power(&[], Survival::Nothing, &[], &mut SimRng::new(seed));
            assert_eq!(content.bytes()[..BLOCK_BYTES], [1; BLOCK_BYTES]);
            assert_eq!(content.bytes()[BLOCK_BYTES..], [0; 3 * BLOCK_BYTES]);
        }
        assert!(short > 20 && long > 20 && short + long == 100, "{short} and {long}");
    }

    #[test]
    fn the_length_goes_along_with_blocks_that_a_full_disk_gives_or_stays() {
        let (mut none, mut as_long, mut longer) = (0, 0, 0);
        for seed in 0..200 {
            let mut rng = SimRng::new(seed);
            let mut content = Content::default();
            content.write(0, &[1; BLOCK_BYTES], true);
            let free_bytes = if seed % 2 == 0 { usize::MAX } else { 2 * BLOCK_BYTES + 1 };
            content.allocate_some(0, 5 * BLOCK_BYTES, free_bytes, &mut rng);
            let (size, space) = (content.size_bytes(), content.space_bytes());
            match space {
                BLOCK_BYTES => none += 1,
                _ if size == BLOCK_BYTES => as_long += 1,
                _ => longer += usize::from(size == space),
            }
            content.lose_power(&[], Survival::Mixed, &[], &mut rng);
            assert_eq!(content.bytes()[..BLOCK_BYTES], [1; BLOCK_BYTES]);
            assert!(content.size_bytes() == BLOCK_BYTES || content.size_bytes() == size);
        }
        assert!(none > 20 && as_long > 20 && longer > 20 && none + as_long + longer == 200);
    }

    /// A file was cut, and a write behind its end was durable before the cut was synced: the sync took that off.
    #[test]
    fn what_is_durable_behind_a_cut_stays_though_the_cut_is_synced_later() {
        for survival in
            [None, Some(Survival::Nothing), Some(Survival::Everything), Some(Survival::Mixed)]
        {
            let mut content = Content::default();
            content.write(0, &[1; 4 * BLOCK_BYTES], true);
            content.write(2 * BLOCK_BYTES, &[2; BLOCK_BYTES], false);
            content.resize(BLOCK_BYTES);
            content.write(BLOCK_BYTES, &[3; BLOCK_BYTES], true);
            let mark = content.sync_mark();
            match survival {
                None => content.sync_to(mark),
                Some(survival) => content.lose_power(&[], survival, &[], &mut SimRng::new(7)),
            }
            content.lose_power(&[], Survival::Nothing, &[], &mut SimRng::new(8));
            let expected = [[1; BLOCK_BYTES], [3; BLOCK_BYTES]].concat();
            assert!(content.bytes() == expected, "{survival:?}: {} bytes", content.size_bytes());
        }
    }
}
