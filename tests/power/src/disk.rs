//! A file system in memory that keeps apart what was synced and what was not, and can lose power.
//!
//! What a file holds and what a directory names are the simulated disk's own (`Content`, `Names`):
//! here they are behind system calls, so that the real server runs on them.
//!
//! ```text
//! write O_DSYNC  -> durable when it returns      fsync, fdatasync -> what was written before
//! other writes   -> any sectors may survive      fsync of a dir   -> its names
//! cut            -> from now on every operation fails, whatever was not durable is lost or torn
//! restore        -> works again, for files opened from then on
//! ```
//! Invariants:
//! 1. A cut happens between two operations or in the middle of one, never while two are half done: the
//!    state is behind one lock.
//! 2. A file handle of before a cut never works again: a write that a killed server left in the kernel
//!    must not land in the life after the power came back.

mod calls;
mod state;

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
};

use strandline_storage::io::sim::{
    Fault,
    names::{Inode, Names},
    rng::SimRng,
};

use state::State;

/// The inode of the root directory.
pub const ROOT: Inode = 1;

/// What an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A file of so many bytes, on so many bytes of disk, of so many names.
    File { size_bytes: usize, space_bytes: usize, names: u32 },
}

/// A file system that can lose power.
pub struct PowerDisk {
    state: Mutex<State>,
}

type Locked<'a> = MutexGuard<'a, State>;

impl PowerDisk {
    /// An empty file system; what a cut leaves follows from `seed`.
    pub fn new(seed: u64) -> Self {
        let state = State {
            rng: SimRng::new(seed),
            files: BTreeMap::new(),
            dirs: BTreeMap::from([(ROOT, Names::default())]),
            next_inode: ROOT + 1,
            epoch: 1,
            operations: 0,
            cut_at: None,
            is_cut: false,
            faults: Vec::new(),
            struck: Vec::new(),
            space_bytes_max: None,
            writes_into_blocks: 0,
        };
        PowerDisk { state: Mutex::new(state) }
    }

    /// Cuts the power now, unless that has happened.
    pub fn cut(&self) {
        self.lock().cut();
    }

    /// Cuts the power in the middle of the n-th operation from now.
    pub fn cut_after(&self, operations: u64) {
        let mut state = self.lock();
        state.cut_at = Some(state.operations + operations.max(1));
    }

    /// Whether the power is off.
    pub fn is_cut(&self) -> bool {
        self.lock().is_cut
    }

    /// The power comes back. All faults are over.
    pub fn restore(&self) {
        let mut state = self.lock();
        state.epoch += 1;
        (state.is_cut, state.cut_at) = (false, None);
        state.faults.clear();
        state.struck.clear();
        state.space_bytes_max = None;
    }

    /// Makes an operation fail: the one after the next `after` that the fault fits.
    pub fn arm(&self, fault: Fault, after: u64) {
        self.lock().faults.push((fault, after));
    }

    /// No operation fails any more that has not failed yet.
    pub fn disarm(&self) {
        self.lock().faults.clear();
    }

    /// No operation fails any more, and none has.
    pub fn restore_faults(&self) {
        let mut state = self.lock();
        state.faults.clear();
        state.struck.clear();
    }

    /// The faults that have struck since the power came back.
    pub fn struck(&self) -> Vec<Fault> {
        self.lock().struck.clone()
    }

    /// Limits the space to what files take up now and so much more.
    pub fn limit_space(&self, bytes_more: usize) {
        let mut state = self.lock();
        state.space_bytes_max = Some(state.space_bytes() + bytes_more);
    }

    /// There is space again.
    pub fn end_limit(&self) {
        self.lock().space_bytes_max = None;
    }

    /// How many synced writes went into blocks of a file that had been asked for and never written.
    pub fn writes_into_blocks(&self) -> u64 {
        self.lock().writes_into_blocks
    }

    /// How many operations there were.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    fn lock(&self) -> Locked<'_> {
        self.state.lock().expect("no panic while the disk is locked")
    }
}

#[cfg(test)]
mod tests {
    use fuser::Errno;

    use super::*;

    fn file(disk: &PowerDisk) -> (Inode, u64) {
        disk.create(ROOT, "a", false).expect("a file")
    }

    #[test]
    fn what_was_synced_survives_a_cut_and_handles_do_not() {
        for seed in 0..100 {
            let disk = PowerDisk::new(seed);
            let handle = file(&disk);
            disk.write(handle, 0, &[1; 4096], true).expect("written");
            disk.write(handle, 4096, &[2; 4096], false).expect("written");
            disk.sync_dir(ROOT).expect("synced");
            disk.cut();
            assert!(disk.lookup(ROOT, "a").is_err(), "nothing works without power");
            disk.restore();
            let (inode, _) = disk.lookup(ROOT, "a").expect("its name was synced");
            assert!(disk.write(handle, 0, &[3; 4096], true).is_err(), "of a life before");
            let handle = (inode, disk.open(inode).expect("there"));
            let mut bytes = [0; 4096];
            assert_eq!(disk.read(handle, 0, &mut bytes, false).expect("read"), 4096);
            assert_eq!(bytes, [1; 4096]);
        }
    }

    #[test]
    fn what_was_not_synced_may_go_and_so_may_a_name() {
        let (mut lost_bytes, mut lost_names) = (0, 0);
        for seed in 0..100 {
            let disk = PowerDisk::new(seed);
            let handle = file(&disk);
            disk.write(handle, 0, &[1; 4096], false).expect("written");
            disk.cut_after(1);
            disk.list(ROOT).expect_err("the power goes");
            disk.cut();
            disk.restore();
            match disk.lookup(ROOT, "a") {
                Err(_) => lost_names += 1,
                Ok((_, kind)) => {
                    let whole = Kind::File { size_bytes: 4096, space_bytes: 4096, names: 1 };
                    lost_bytes += usize::from(kind != whole);
                }
            }
        }
        assert!(lost_bytes > 5 && lost_names > 5, "{lost_bytes} {lost_names}");
    }

    #[test]
    fn a_file_knows_its_names_and_stays_while_it_has_one() {
        let disk = PowerDisk::new(1);
        let names = |inode| match disk.kind(inode) {
            Ok(Kind::File { names, .. }) => names,
            other => panic!("{other:?}"),
        };
        let (inode, handle) = file(&disk);
        disk.write((inode, handle), 0, &[1; 4096], true).expect("written");
        let (dir, _) = disk.create(ROOT, "backup", true).expect("a directory");
        disk.link(inode, dir, "b").expect("linked");
        assert_eq!(names(inode), 2);
        let (other, _) = disk.create(ROOT, ".backup", true).expect("a directory");
        disk.exchange(ROOT, ["backup", ".backup"]).expect("both are there");
        assert_eq!(disk.lookup(ROOT, "backup"), Ok((other, Kind::Directory)));
        assert_eq!(disk.exchange(ROOT, ["backup", "c"]), Err(Errno::ENOENT));
        disk.remove(ROOT, "a", false).expect("removed");
        assert_eq!(names(inode), 1);
        disk.sync_dir(ROOT).expect("synced");
        disk.sync_dir(dir).expect("synced");
        disk.cut();
        disk.restore();
        assert_eq!(names(inode), 1, "by its other name it is still there");
        disk.remove(dir, "b", false).expect("removed");
        assert_eq!(names(inode), 0);
    }

    #[test]
    fn blocks_that_a_full_disk_does_not_give_can_be_asked_for_again() {
        for seed in 0..50 {
            let disk = PowerDisk::new(seed);
            let handle = file(&disk);
            disk.arm(Fault::AllocateFindsNoSpace, 0);
            assert_eq!(disk.allocate(handle, 0, 16384), Err(Errno::ENOSPC));
            assert_eq!(disk.struck(), [Fault::AllocateFindsNoSpace]);
            disk.allocate(handle, 0, 16384).expect("there is space");
            let (_, kind) = disk.lookup(ROOT, "a").expect("it is there");
            assert_eq!(kind, Kind::File { size_bytes: 16384, space_bytes: 16384, names: 1 });
        }
    }

    #[test]
    fn blocks_that_were_asked_for_take_what_is_written_and_synced() {
        for seed in 0..100 {
            let disk = PowerDisk::new(seed);
            let handle = file(&disk);
            disk.write(handle, 0, &[1; 4096], false).expect("written");
            disk.allocate(handle, 4096, 8192).expect("there is space");
            disk.sync(handle).expect("synced");
            disk.sync_dir(ROOT).expect("synced");
            disk.write(handle, 4096, &[2; 4096], true).expect("written");
            assert_eq!(disk.writes_into_blocks(), 1);
            disk.write(handle, 0, &[3; 4096], true).expect("written");
            assert_eq!(disk.writes_into_blocks(), 1, "that was written before");
            disk.limit_space(4096);
            let full = disk.allocate(handle, 12288, 8192).expect_err("full");
            assert_eq!(i32::from(full), libc::ENOSPC);
            disk.cut();
            disk.restore();
            let handle = (handle.0, disk.open(handle.0).expect("there"));
            let mut bytes = [9; 12288];
            assert_eq!(disk.read(handle, 0, &mut bytes, false).expect("read"), 12288);
            assert_eq!((bytes[0], bytes[4096], bytes[8192]), (3, 2, 0));
        }
    }

    #[test]
    fn a_full_disk_and_armed_faults_are_told() {
        let disk = PowerDisk::new(1);
        let handle = file(&disk);
        disk.limit_space(8192);
        assert!(disk.write(handle, 0, &[1; 8192], true).is_ok());
        let full = disk.write(handle, 8192, &[1; 4096], true).expect_err("full");
        assert_eq!(i32::from(full), libc::ENOSPC);
        disk.arm(Fault::WriteIsShort, 0);
        assert!(disk.write(handle, 0, &[1; 8192], false).expect("short") < 8192);
        disk.arm(Fault::SyncFails, 1);
        assert!(
            disk.sync(handle).is_ok() && disk.sync(handle).is_err() && disk.sync(handle).is_ok()
        );
        assert_eq!(disk.struck(), [Fault::WriteIsShort, Fault::SyncFails]);
    }

    #[test]
    fn what_is_asked_and_a_link_fail_once_as_well() {
        let disk = PowerDisk::new(1);
        let (inode, _) = file(&disk);
        (0..2).for_each(|_| disk.arm(Fault::StatFails, 0));
        assert!(disk.lookup(ROOT, "a").is_err() && disk.kind(inode).is_err());
        assert!(disk.lookup(ROOT, "a").is_ok() && disk.kind(inode).is_ok());
        disk.arm(Fault::SpaceFails, 0);
        assert!(disk.space().is_err() && disk.space().is_ok());
        disk.arm(Fault::OpenFails, 0);
        assert!(disk.open_dir().is_err() && disk.open_dir().is_ok());
        disk.arm(Fault::ListFails, 1);
        assert!(disk.list(ROOT).is_ok() && disk.list_on().is_err() && disk.list_on().is_ok());
        disk.arm(Fault::LinkFails, 0);
        assert!(disk.link(inode, ROOT, "b").is_err() && disk.lookup(ROOT, "b").is_err());
        disk.link(inode, ROOT, "b").expect("linked");
    }
}
