//! How often lives of a log have come by what they are meant to come by.

use std::ops::AddAssign;

use strandline_storage::{io::sim::SimDisk, log::Log};

/// What frames begin with, and nothing else does at the beginning of a block.
const FRAME_MAGIC: &[u8] = b"SLFR";

/// Whether a write has three frames or more, so that one lies between others.
pub fn is_row(written: &[u8]) -> bool {
    written.chunks(4096).filter(|block| block.starts_with(FRAME_MAGIC)).count() >= 3
}

/// How often lives of a log have come by what they are meant to come by.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Writes of three frames or more that completed.
    pub rows: u64,
    /// And such as were under way when their process ended.
    pub rows_cut: u64,
    /// Those of them that went into blocks to which nothing had been written.
    pub rows_cut_in_blocks: u64,
    /// Durable writes into blocks to which nothing had been written, not even zeroes.
    pub into_blocks: u64,
    /// Zeroes behind blocks: a step behind one, or what the next file begins with.
    pub back_to_zeroes: u64,
    /// Lives in which segments were rewritten, and segments that were removed, and snapshots made, in them.
    pub rewritten: u64,
    pub removed: u64,
    pub snapshots: u64,
    /// How often something was deleted on a full disk,
    pub rooms: u64,
    /// and that freed enough to go on;
    pub rooms_enough: u64,
    /// and how often a disk was full, and had space again by itself.
    pub spaces_back: u64,
    /// Events that were appended anew under an id that had left the window.
    pub ids_anew: u64,
    /// Producers that began another epoch, that were refused for theirs had ended, and that were forgotten.
    pub epochs: u64,
    pub fenced: u64,
    pub forgotten: u64,
    /// Topics that were over.
    pub over: u64,
    /// How often limits by age have gone by the clock again, as is known, after a start at which that was doubted.
    pub doubts_over: u64,
    /// Backups of a running log, of which some were begun with the one before.
    pub backups: u64,
    pub backups_renewed: u64,
    /// Logs that were restored up to an offset or a time before the end of a backup.
    pub cuts: u64,
    /// Readers beneath whom segments were rewritten or removed.
    pub overtaken: u64,
    /// Files beside the frames of which the disk has lost something; indexes that starts have made anew, and starts that
    /// have refused a log.
    pub rotten_files: u64,
    pub remade: u64,
    pub refused: u64,
    /// Repairs, and how often one had to say that something is forgotten.
    pub repairs: u64,
    pub forgotten_by_repairs: u64,
}

impl Tally {
    /// What a log has done in the background since it was opened.
    pub fn note_background(&mut self, log: &Log<SimDisk>) {
        self.rewritten += u64::from(log.compaction_totals().bytes_after > 0);
        self.removed += log.retired_segments();
        self.snapshots += log.snapshot_totals().made;
    }

    /// What is under way now is cut off: the process on this disk ends, or has crashed.
    pub fn note_end(&mut self, disk: &SimDisk) {
        let of_others = disk.late_writes();
        let killed = disk.fork(0).kill();
        for index in of_others..killed.late_writes() {
            let (buffer, _, is_into_blocks) = killed.late_write(index);
            if is_row(buffer.as_slice()) {
                self.rows_cut += 1;
                self.rows_cut_in_blocks += u64::from(is_into_blocks);
            }
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        let Tally {
            rows,
            rows_cut,
            rows_cut_in_blocks,
            into_blocks,
            back_to_zeroes,
            rewritten,
            removed,
            snapshots,
            rooms,
            rooms_enough,
            spaces_back,
            ids_anew,
            epochs,
            fenced,
            forgotten,
            over,
            doubts_over,
            backups,
            backups_renewed,
            cuts,
            overtaken,
            rotten_files,
            remade,
            refused,
            repairs,
            forgotten_by_repairs,
        } = other;
        self.rows += rows;
        self.rows_cut += rows_cut;
        self.rows_cut_in_blocks += rows_cut_in_blocks;
        self.into_blocks += into_blocks;
        self.back_to_zeroes += back_to_zeroes;
        self.rewritten += rewritten;
        self.removed += removed;
        self.snapshots += snapshots;
        self.rooms += rooms;
        self.rooms_enough += rooms_enough;
        self.spaces_back += spaces_back;
        self.ids_anew += ids_anew;
        self.epochs += epochs;
        self.fenced += fenced;
        self.forgotten += forgotten;
        self.over += over;
        self.doubts_over += doubts_over;
        self.backups += backups;
        self.backups_renewed += backups_renewed;
        self.cuts += cuts;
        self.overtaken += overtaken;
        self.rotten_files += rotten_files;
        self.remade += remade;
        self.refused += refused;
        self.repairs += repairs;
        self.forgotten_by_repairs += forgotten_by_repairs;
    }
}
