//! A disk in memory that fails in every way that we know of, the same way for the same seed.
//!
//! A [`SimDisk`] is the disk as *one process* has it. [`SimDisk::kill`] and [`SimDisk::power_cut`]
//! end that process, whose handles fail from then on, and return the disk as the next one finds it:
//!
//! | | page cache, names | writes in flight | locks |
//! |---|---|---|---|
//! | `kill` | stay as they were | may still land, when the test says so: [`SimDisk::land_late`] | released |
//! | `power_cut` | what was not synced survives, tears or vanishes, in any order | tear or vanish | released |
//!
//! - A write through [`Access::DirectSync`] is durable when it is complete; all others when a sync
//!   that began after them is. Several may be in flight: [`SimFile::begin_write`].
//! - A power cut during a write may damage the rest of each 4 KiB block that it touches.
//! - A full disk that is asked for blocks keeps some of those that it gave before it said no: ext4 makes the
//!   file longer with each piece, others set its length once all are there.
//! - A sync that failed leaves the page cache clean, and showing what the device does not have.
//! - [`SimDisk::crash_after`] crashes in the middle of the n-th operation from now, so that a crash
//!   can happen inside recovery or a job; [`SimDisk::arm`] makes an operation fail.
//!
//! Nothing here reads a clock, and all choices come from the seed.

use std::{
    collections::BTreeMap,
    error::Error,
    fmt, io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, atomic::AtomicBool},
};

use self::{
    names::{Inode, Names},
    rng::SimRng,
    state::State,
};
use super::Access;
use crate::{buffer::DiskBuffer, offset::Position};

mod blocks;
pub mod content;
mod file;
mod file_system;
pub mod names;
pub mod rng;
mod state;

pub use file::{PendingSync, PendingWrite, SimFile};
pub use file_system::SimLock;

/// The error of every operation of a process that has crashed.
#[derive(Clone, Copy, Debug)]
pub struct SimulatedCrash;

impl fmt::Display for SimulatedCrash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the simulated process has crashed")
    }
}

impl Error for SimulatedCrash {}

/// What an operation can be made to do instead of succeeding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A write fails; some of its sectors may have landed.
    WriteFails,
    /// A write lands in part and says so.
    WriteIsShort,
    /// A write finds the disk full.
    WriteFindsNoSpace,
    /// What asks for blocks finds the disk full, and may have some of them all the same.
    AllocateFindsNoSpace,
    /// A sync of a file fails: nobody knows what reached the disk, and the page cache counts as
    /// clean.
    SyncFails,
    /// A sync of a directory fails.
    SyncDirFails,
    /// A read fails.
    ReadFails,
    /// A file or a directory cannot be created: there is no space for the name.
    CreateFails,
    /// A file cannot be removed.
    RemoveFails,
    /// A file cannot be opened, nor a directory to be locked.
    OpenFails,
    /// A file cannot be renamed.
    RenameFails,
    /// A renaming finds the disk full: its directory needs another block.
    RenameFindsNoSpace,
    /// A directory cannot be listed.
    ListFails,
    /// The length of a file cannot be set.
    SetSizeFails,
    /// Nobody says how long a file is, how much of the disk it takes, nor how many names it has.
    StatFails,
    /// Nobody says how much space the disk has.
    SpaceFails,
    /// A file cannot be given a second name.
    LinkFails,
    /// A durable write lands whole, in blocks of the same file that it was not meant for, and says
    /// that all is well.
    WriteIsMisdirected,
}

/// All kinds of [`Fault`] that a disk tells of. What it does not tell of is damage, which a log finds
/// when it reads.
pub const FAULTS: [Fault; 17] = [
    Fault::WriteFails,
    Fault::WriteIsShort,
    Fault::WriteFindsNoSpace,
    Fault::AllocateFindsNoSpace,
    Fault::SyncFails,
    Fault::SyncDirFails,
    Fault::ReadFails,
    Fault::CreateFails,
    Fault::RemoveFails,
    Fault::OpenFails,
    Fault::RenameFails,
    Fault::RenameFindsNoSpace,
    Fault::ListFails,
    Fault::SetSizeFails,
    Fault::StatFails,
    Fault::SpaceFails,
    Fault::LinkFails,
];

/// A simulated disk, as one process has it. Clones share the disk and the process.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    process: u64,
}

impl SimDisk {
    /// An empty disk; all that will happen to it follows from `seed`.
    pub fn new(seed: u64) -> Self {
        let state = State {
            rng: SimRng::new(seed),
            files: BTreeMap::new(),
            dirs: BTreeMap::from([(PathBuf::from("/"), Names::default())]),
            dirs_durable: BTreeMap::from([(PathBuf::from("/"), true)]),
            in_flight: BTreeMap::new(),
            locks: Vec::new(),
            stale: Vec::new(),
            process: 0,
            crashed: false,
            next_id: 1,
            operations: 0,
            crash_at: None,
            faults: Vec::new(),
            direct_refused: false,
            allocation_refused: false,
            apart: None,
            flag: None,
            listed_before: None,
            space_bytes_max: None,
            writes_into_blocks: 0,
        };
        SimDisk { state: Arc::new(Mutex::new(state)), process: 0 }
    }

    /// A copy that shares nothing with this one and goes on differently: one moment, many futures.
    /// Handles of this disk do not work on it; the process is the same, so open files anew.
    pub fn fork(&self, seed: u64) -> SimDisk {
        let mut state = self.lock().clone();
        state.rng = SimRng::new(seed);
        SimDisk { state: Arc::new(Mutex::new(state)), process: self.process }
    }

    /// What happens from now on follows from `seed` alone, whatever happened before.
    pub fn reseed(&self, seed: u64) {
        self.lock().rng = SimRng::new(seed);
    }

    /// Whether `O_DIRECT` is refused, as old kernels' tmpfs does.
    pub fn refuse_direct(&self, refused: bool) {
        self.lock().direct_refused = refused;
    }

    /// Whether the file system gives no blocks without a write, as NFS before 4.2.
    pub fn refuse_allocation(&self, refused: bool) {
        self.lock().allocation_refused = refused;
    }

    /// This directory is on another file system than the rest: no file has a name in both.
    pub fn keep_apart(&self, dir: &Path) {
        self.lock().apart = Some(dir.to_owned());
    }

    /// Raises `flag` as soon as a file has this name: what happens elsewhere at that very moment.
    pub fn raise_when_named(&self, path: &Path, flag: Arc<AtomicBool>) {
        self.lock().flag = Some((path.to_owned(), flag));
    }

    /// The next listing of this directory gives what is in it now, whatever becomes of that until then: files come and go
    /// while it is read.
    pub fn list_as_of_now(&self, dir: &Path) {
        let mut state = self.lock();
        let names = state.names(dir).expect("a directory").list();
        state.listed_before = Some((dir.to_owned(), names));
    }

    /// Limits the space that all files together take up.
    pub fn limit_space(&self, bytes_max: Option<usize>) {
        self.lock().space_bytes_max = bytes_max;
    }

    /// The space that all named files take up.
    pub fn space_bytes(&self) -> usize {
        self.lock().space_bytes()
    }

    /// Makes an operation fail: the one after the next `after` that `fault` fits.
    pub fn arm(&self, fault: Fault, after: u64) {
        self.lock().faults.push((fault, after));
    }

    /// Disarms all faults that have not struck, and says how many.
    pub fn disarm(&self) -> usize {
        std::mem::take(&mut self.lock().faults).len()
    }

    /// How many operations there have been.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Crashes this process in its `operations`-th operation from now (1 is the next), which may or
    /// may not take effect; `None` takes the fuse out.
    pub fn crash_after(&self, operations: Option<u64>) {
        let mut state = self.lock();
        state.crash_at = operations.map(|count| state.operations + count.max(1));
    }

    /// Whether this process has crashed or ended. Its handles fail with [`SimulatedCrash`].
    pub fn is_crashed(&self) -> bool {
        let state = self.lock();
        state.crashed || state.process != self.process
    }

    /// Whether an error is [`SimulatedCrash`].
    pub fn is_crash(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<SimulatedCrash>())
    }

    /// Ends the process and returns the disk for the next one. The page cache stays; writes that
    /// were in flight may still land.
    pub fn kill(&self) -> SimDisk {
        let mut state = self.lock();
        state.end_process();
        state.drop_nameless();
        SimDisk { state: Arc::clone(&self.state), process: state.process }
    }

    /// Cuts the power and returns the disk for the next process.
    pub fn power_cut(&self) -> SimDisk {
        let mut state = self.lock();
        state.end_process();
        state.lose_power();
        SimDisk { state: Arc::clone(&self.state), process: state.process }
    }

    /// How many writes of earlier processes are still in flight.
    pub fn late_writes(&self) -> usize {
        self.lock().late_ids().len()
    }

    /// Lets the `index`-th write of an earlier process land.
    pub fn land_late(&self, index: usize) {
        let mut state = self.lock();
        let id = state.late_ids()[index];
        state.land(id);
    }

    /// Lets those sectors of the `index`-th write of an earlier process land, durably, that are `taken` by their
    /// place in it, and never the others.
    pub fn land_late_sectors(&self, index: usize, taken: impl Fn(usize) -> bool) {
        let mut state = self.lock();
        let id = state.late_ids()[index];
        state.land_sectors(id, taken);
    }

    /// What the `index`-th write of an earlier process writes, and where; whether that is into blocks of the file
    /// that nothing was ever written to.
    pub fn late_write(&self, index: usize) -> (Arc<DiskBuffer>, Position, bool) {
        let state = self.lock();
        let write = &state.in_flight[&state.late_ids()[index]];
        let content = &state.files[&write.inode];
        let is_into_blocks = content.is_unwritten(write.position, write.buffer.len());
        (Arc::clone(&write.buffer), Position::new(write.position as u64), is_into_blocks)
    }

    /// How many durable writes have gone into blocks of a file that nothing had ever been written to.
    pub fn writes_into_blocks(&self) -> u64 {
        self.lock().writes_into_blocks
    }

    /// Lets the `index`-th write of an earlier process never land.
    pub fn drop_late(&self, index: usize) {
        let mut state = self.lock();
        let id = state.late_ids()[index];
        state.in_flight.remove(&id);
    }

    /// Makes the page cache forget clean pages: what a failed sync left there is gone.
    pub fn evict_clean_pages(&self) {
        for content in self.lock().files.values_mut() {
            content.evict_clean_pages();
        }
    }

    /// The bytes of a file as a buffered reader sees them.
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.lock();
        let inode = state.find(path).ok()?;
        Some(state.files[&inode].bytes().to_vec())
    }

    /// Flips one bit of a file, on the device.
    pub fn flip_bit(&self, path: &Path, position: Position, bit: u32) {
        let mut state = self.lock();
        let inode = state.find(path).expect("the file to damage");
        state.file(inode).flip_bit(to_usize(position.get()), bit);
    }

    /// Garbles the sector at a position of a file, on the device.
    pub fn garble_sector(&self, path: &Path, position: Position) {
        let noise = self.lock().rng.bytes(content::SECTOR_BYTES);
        let start = to_usize(position.get()) / content::SECTOR_BYTES * content::SECTOR_BYTES;
        self.misdirect(path, Position::new(start as u64), &noise);
    }

    /// A write that was meant for elsewhere lands in a file, within its length, durably, and nobody is told.
    pub fn misdirect(&self, path: &Path, position: Position, bytes: &[u8]) {
        let mut state = self.lock();
        let inode = state.find(path).expect("the file to damage");
        let (content, start) = (state.file(inode), to_usize(position.get()));
        let room = content.size_bytes().saturating_sub(start).min(bytes.len());
        content.write(start, &bytes[..room], true);
    }

    /// Makes reads of a part of a file fail from now on.
    pub fn make_unreadable(&self, path: &Path, positions: Range<u64>) {
        let mut state = self.lock();
        let inode = state.find(path).expect("the file to damage");
        state.file(inode).make_unreadable(to_usize(positions.start)..to_usize(positions.end));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while the disk is locked")
    }

    /// Begins an operation of this process; the flag says that it crashes in the middle.
    fn begin(&self) -> io::Result<(MutexGuard<'_, State>, bool)> {
        let mut state = self.lock();
        if state.crashed || state.process != self.process {
            return Err(crash());
        }
        state.operations += 1;
        if state.crash_at == Some(state.operations) {
            state.crashed = true;
        }
        let crashes = state.crashed;
        Ok((state, crashes))
    }

    fn file(&self, inode: Inode, access: Access) -> SimFile {
        SimFile { disk: self.clone(), inode, access }
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        writeln!(formatter, "SimDisk of process {} after {}:", self.process, state.operations)?;
        for (dir, names) in &state.dirs {
            for name in names.list() {
                let inode = names.get(&name).expect("a listed name");
                let bytes = state.files[&inode].size_bytes();
                writeln!(
                    formatter,
                    "  {} inode {inode}, {bytes} bytes",
                    dir.join(&name).display()
                )?;
            }
        }
        write!(formatter, "  {} in flight", state.in_flight.len())
    }
}

fn crash() -> io::Error {
    io::Error::other(SimulatedCrash)
}

fn split(path: &Path) -> io::Result<(PathBuf, String)> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let name = path.file_name().and_then(|name| name.to_str());
    Ok((dir.to_owned(), name.ok_or(io::ErrorKind::InvalidInput)?.to_owned()))
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a simulated file fits into memory")
}

#[cfg(test)]
mod tests;
