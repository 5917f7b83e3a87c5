//! What the file is filled with ahead of its tail: by what commits have taken.

use super::*;
use crate::active_file::Fill;

fn roomy() -> LogConfig {
    LogConfig {
        segment_bytes: 8 << 20,
        frame_bytes_max: 256 << 10,
        event_bytes_max: 128 << 10,
        preallocate_bytes_min: 256 << 10,
        preallocate_bytes_max: 512 << 10,
        reserve_bytes: 0,
        ..tiny()
    }
}

/// A log on a disk on which a commit takes so many milliseconds.
struct Timed {
    disk: SimDisk,
    log: Log<SimDisk>,
    boot_ms: u64,
    appended: Vec<String>,
    /// How many frames were written over zeroes, and into blocks.
    zeroes: usize,
    blocks: usize,
}

impl Timed {
    fn new(disk: SimDisk, config: LogConfig) -> Self {
        let (log, _) = open_with(&disk, config);
        Timed { disk, log, boot_ms: 1, appended: Vec::new(), zeroes: 0, blocks: 0 }
    }

    /// Appends events of so many bytes, each in a frame of its own.
    fn fill(&mut self, count: usize, bytes: usize, zeroes_ms: u64, blocks_ms: u64) {
        for _ in 0..count {
            let data = format!("\"{}{}\"", self.appended.len(), "x".repeat(bytes));
            let append = vec![event("a", &data)];
            self.log.append(append, now(self.boot_ms)).expect("staged");
            self.appended.push(data);
            while let Some(op) = self.log.next_op(now(self.boot_ms)) {
                if let Op::Write { position, .. } = &op {
                    match self.log.filling.fill_at(*position).expect("below the prepared end") {
                        Fill::Zeroes => {
                            (self.zeroes, self.boot_ms) =
                                (self.zeroes + 1, self.boot_ms + zeroes_ms)
                        }
                        Fill::Blocks => {
                            (self.blocks, self.boot_ms) =
                                (self.blocks + 1, self.boot_ms + blocks_ms)
                        }
                    }
                }
                self.log.complete(op.run(&self.disk), now(self.boot_ms));
            }
            assert_eq!(self.log.visible(), self.log.next());
        }
    }

    /// All is there after a power cut, and a start goes on with zeroes.
    fn assert_recovers(self, config: LogConfig) {
        let (disk, visible) = (self.disk, self.log.visible());
        drop(self.log);
        let disk = disk.power_cut();
        let (log, _) = open_with(&disk, config);
        assert_eq!(log.visible(), visible);
        assert_eq!(log.tail.file.fill, Fill::Zeroes);
        assert!(stored(&disk, visible) == self.appended);
    }
}

#[test]
fn long_commits_go_where_they_take_less_time_and_are_all_there_after_a_crash() {
    for (zeroes_ms, blocks_ms) in [(3, 2), (2, 3)] {
        let mut log = Timed::new(SimDisk::new(1), roomy());
        log.fill(300, 100 << 10, zeroes_ms, blocks_ms);
        let (zeroes, blocks) = (log.zeroes, log.blocks);
        if blocks_ms < zeroes_ms {
            assert!(blocks > 200, "{zeroes} over zeroes, {blocks} into blocks");
            assert!(log_files(&log.disk).len() > 2, "also behind a roll");
        } else {
            assert!(zeroes > 200, "{zeroes} over zeroes, {blocks} into blocks");
            assert!(blocks > 0, "once they were tried");
        }
        log.assert_recovers(roomy());
    }
}

#[test]
fn short_commits_have_zeroes_ahead() {
    let mut log = Timed::new(SimDisk::new(1), roomy());
    log.fill(300, 30 << 10, 3, 1);
    assert_eq!((log.zeroes, log.blocks), (300, 0));
    log.assert_recovers(roomy());
}

#[test]
fn there_are_zeroes_where_blocks_cannot_be_had_or_frames_are_buffered() {
    for is_buffered in [false, true] {
        let disk = SimDisk::new(1);
        if is_buffered {
            disk.refuse_direct(true)
        } else {
            disk.refuse_allocation(true)
        }
        let mut log = Timed::new(disk, roomy());
        log.fill(200, 100 << 10, 3, 1);
        assert_eq!((log.zeroes, log.blocks), (200, 0));
        log.assert_recovers(roomy());
    }
}

#[test]
fn a_log_at_rest_has_zeroes_ahead_whatever_was_faster() {
    let disk = SimDisk::new(1);
    let mut log = Timed::new(disk, LogConfig { segment_bytes: 32 << 20, ..roomy() });
    log.fill(70, 100 << 10, 3, 1);
    let prepared = log.log.tail.file.prepared;
    assert_eq!(log.log.filling.fill_at(log.log.tail.end), Some(Fill::Blocks));
    log.log.run_ops(now(log.boot_ms + 200));
    assert!(log.log.tail.file.prepared > prepared, "else this shows nothing");
    assert_eq!(log.log.filling.fill_at(prepared), Some(Fill::Zeroes));
}

/// A disk that is full when it is asked for blocks is no other than one that is full for zeroes.
#[test]
fn a_disk_without_blocks_refuses_and_comes_back() {
    let config = LogConfig { segment_bytes: 32 << 20, ..roomy() };
    let mut log = Timed::new(SimDisk::new(1), config);
    log.fill(70, 100 << 10, 3, 1);
    assert_eq!(log.log.filling.fill_at(log.log.tail.end), Some(Fill::Blocks));
    let space_bytes = log.disk.space_bytes();
    log.disk.limit_space(Some(space_bytes));
    let boot_ms = log.boot_ms;
    while !log.log.is_disk_full() {
        let data = "x".repeat(100 << 10);
        log.log.append(vec![event("a", &data)], now(boot_ms)).expect("staged");
        log.log.run_ops(now(boot_ms));
    }
    assert!(log.log.poisoned().is_none() && log.disk.space_bytes() <= space_bytes);
    log.log.refuse_staged();
    let visible = log.log.visible();
    log.disk.limit_space(None);
    log.log.run_ops(now(boot_ms + 2_000));
    assert!(!log.log.is_disk_full());
    log.log.append(vec![event("a", "x")], now(boot_ms + 2_000)).expect("there is space");
    log.log.run_ops(now(boot_ms + 2_000));
    assert_eq!(log.log.visible(), Offset::new(visible.get() + 1));
    let disk = log.disk.power_cut();
    let (reopened, _) = open_with(&disk, roomy());
    assert_eq!(reopened.visible(), Offset::new(visible.get() + 1));
}
