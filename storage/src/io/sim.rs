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
    sync::{Arc, Mutex, MutexGuard},
};

use self::{
    content::{BLOCK_BYTES, Content, Survival},
    names::{Inode, Names},
    rng::SimRng,
};
use super::{Access, Disk, DiskFile, LockMode, Space};
use crate::{
    buffer::{ALIGN_BYTES, DiskBuffer},
    offset::Position,
};

pub mod content;
pub mod names;
pub mod rng;

/// How many blocks of removed files are kept, to turn up in new ones after a power cut.
const STALE_BLOCKS_MAX: usize = 32;

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
    /// A sync of a file fails: nobody knows what reached the disk, and the page cache counts as
    /// clean.
    SyncFails,
    /// A sync of a directory fails.
    SyncDirFails,
    /// A read fails.
    ReadFails,
    /// A file cannot be created.
    CreateFails,
    /// A durable write lands whole, in blocks of the same file that it was not meant for, and says
    /// that all is well.
    WriteIsMisdirected,
}

/// All kinds of [`Fault`] that a disk tells of. What it does not tell of is damage, which a log finds
/// when it reads.
pub const FAULTS: [Fault; 7] = [
    Fault::WriteFails,
    Fault::WriteIsShort,
    Fault::WriteFindsNoSpace,
    Fault::SyncFails,
    Fault::SyncDirFails,
    Fault::ReadFails,
    Fault::CreateFails,
];

/// A write that was given to the disk and is not complete.
#[derive(Clone, Debug)]
struct InFlight {
    inode: Inode,
    process: u64,
    position: usize,
    buffer: Arc<DiskBuffer>,
    durable: bool,
}

#[derive(Clone, Debug)]
struct HeldLock {
    dir: PathBuf,
    mode: LockMode,
    id: u64,
}

#[derive(Clone, Debug)]
struct State {
    rng: SimRng,
    files: BTreeMap<Inode, Content>,
    dirs: BTreeMap<PathBuf, Names>,
    /// Directories that a power cut would keep for certain.
    dirs_durable: BTreeMap<PathBuf, bool>,
    in_flight: BTreeMap<u64, InFlight>,
    locks: Vec<HeldLock>,
    stale: Vec<Vec<u8>>,
    /// The process whose handles work.
    process: u64,
    crashed: bool,
    next_id: u64,
    operations: u64,
    crash_at: Option<u64>,
    faults: Vec<(Fault, u64)>,
    direct_refused: bool,
    space_bytes_max: Option<usize>,
}

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
            space_bytes_max: None,
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
        let mut state = self.lock();
        let inode = state.find(path).expect("the file to damage");
        let noise = state.rng.bytes(content::SECTOR_BYTES);
        let start = to_usize(position.get()) / content::SECTOR_BYTES * content::SECTOR_BYTES;
        let content = state.file(inode);
        let room = content.size_bytes().saturating_sub(start).min(noise.len());
        content.write(start, &noise[..room], true);
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

impl State {
    fn find(&self, path: &Path) -> io::Result<Inode> {
        let (dir, name) = split(path)?;
        let names = self.dirs.get(&dir).ok_or(io::ErrorKind::NotFound)?;
        names.get(&name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn names(&mut self, dir: &Path) -> io::Result<&mut Names> {
        self.dirs.get_mut(dir).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn file(&mut self, inode: Inode) -> &mut Content {
        self.files.get_mut(&inode).expect("a file lives while it is open")
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Whether a fault strikes the operation that `fault` fits and that is happening now.
    fn strikes(&mut self, fault: Fault) -> bool {
        let mut struck = false;
        self.faults.retain_mut(|(armed, after)| {
            if *armed != fault || struck {
                return true;
            }
            struck = *after == 0;
            *after = after.saturating_sub(1);
            !struck
        });
        struck
    }

    fn space_bytes(&self) -> usize {
        let named = self.dirs.values().flat_map(|names| {
            names.list().into_iter().filter_map(|name| names.get(&name)).collect::<Vec<_>>()
        });
        named.map(|inode| self.files[&inode].space_bytes()).sum()
    }

    fn end_process(&mut self) {
        self.process += 1;
        self.crashed = false;
        self.crash_at = None;
        self.faults.clear();
        self.locks.clear();
    }

    fn late_ids(&self) -> Vec<u64> {
        let late = self.in_flight.iter().filter(|(_, write)| write.process != self.process);
        late.map(|(id, _)| *id).collect()
    }

    fn land(&mut self, id: u64) {
        let write = self.in_flight.remove(&id).expect("a write in flight");
        let InFlight { inode, position, buffer, durable, .. } = write;
        if let Some(content) = self.files.get_mut(&inode) {
            content.write(position, buffer.as_slice(), durable);
        }
    }

    /// Some sectors of late writes to a file that is about to be read land before the read.
    fn land_some_sectors(&mut self, inode: Inode) {
        for id in self.late_ids() {
            let write = &self.in_flight[&id];
            if write.inode == inode && self.rng.chance(30) {
                let (position, buffer) = (write.position, Arc::clone(&write.buffer));
                let content = self.files.get_mut(&inode).expect("a file that is read");
                content.write_some_sectors(position, buffer.as_slice(), &mut self.rng);
            }
        }
    }

    fn lose_power(&mut self) {
        let in_flight = std::mem::take(&mut self.in_flight);
        let survival = *self.rng.pick(&[
            Survival::Nothing,
            Survival::Everything,
            Survival::Mixed,
            Survival::Mixed,
            Survival::Mixed,
            Survival::Mixed,
        ]);
        for (inode, content) in &mut self.files {
            let writes: Vec<(usize, &[u8])> = in_flight
                .values()
                .filter(|write| write.inode == *inode)
                .map(|write| (write.position, write.buffer.as_slice()))
                .collect();
            content.lose_power(&writes, survival, &self.stale, &mut self.rng);
        }
        for names in self.dirs.values_mut() {
            names.lose_power(survival, &mut self.rng);
        }
        let lost: Vec<PathBuf> = self
            .dirs_durable
            .iter()
            .filter(|(_, durable)| !**durable)
            .map(|(dir, _)| dir.clone())
            .collect();
        for dir in lost {
            let survives = survival == Survival::Everything
                || (survival == Survival::Mixed && self.rng.chance(50));
            if !survives {
                self.dirs.retain(|path, _| !path.starts_with(&dir));
                self.dirs_durable.retain(|path, _| !path.starts_with(&dir));
            }
        }
        self.drop_nameless();
    }

    /// Frees files without a name. Only right when no process has them open.
    fn drop_nameless(&mut self) {
        let mut kept: Vec<Inode> = self.dirs.values().flat_map(Names::inodes).collect();
        kept.extend(self.in_flight.values().map(|write| write.inode));
        kept.sort_unstable();
        let (stale, files) = (&mut self.stale, &mut self.files);
        files.retain(|inode, content| {
            let keep = kept.binary_search(inode).is_ok();
            if !keep {
                stale.extend(content.bytes().chunks_exact(BLOCK_BYTES).map(<[u8]>::to_vec));
            }
            keep
        });
        let excess = stale.len().saturating_sub(STALE_BLOCKS_MAX);
        stale.drain(..excess);
    }

    /// Takes a write of this process, or says why not.
    fn write(&mut self, write: &InFlight) -> io::Result<usize> {
        let InFlight { inode, position, durable, .. } = *write;
        let bytes = write.buffer.as_slice();
        let mut taken = bytes.len();
        let mut outcome = Ok(bytes.len());
        let needed = self.files[&inode].space_needed(position, bytes.len());
        let free = self.space_bytes_max.map(|max| max.saturating_sub(self.space_bytes()));
        if self.strikes(Fault::WriteFindsNoSpace) || free.is_some_and(|free| needed > free) {
            taken = 0;
            outcome = Err(io::ErrorKind::StorageFull.into());
        } else if self.strikes(Fault::WriteFails) {
            taken = 0;
            outcome = Err(io::Error::other("simulated write error"));
            let State { files, rng, .. } = self;
            let content = files.get_mut(&inode).expect("a file lives while it is open");
            content.write_some_sectors(position, bytes, rng);
        } else if self.strikes(Fault::WriteIsShort) {
            let sectors = bytes.len().div_ceil(content::SECTOR_BYTES);
            taken = self.rng.index(sectors) * content::SECTOR_BYTES;
            outcome = Ok(taken);
        } else if durable && self.strikes(Fault::WriteIsMisdirected) {
            let blocks = self.file(inode).size_bytes().saturating_sub(bytes.len()) / BLOCK_BYTES;
            let position = self.rng.index(blocks + 1) * BLOCK_BYTES;
            self.file(inode).write(position, bytes, durable);
            return outcome;
        }
        self.file(inode).write(position, &bytes[..taken], durable);
        outcome
    }
}

/// An open file of a simulated disk.
pub struct SimFile {
    disk: SimDisk,
    inode: Inode,
    access: Access,
}

/// A write in flight: it is complete when [`PendingWrite::complete`] is called, in any order.
///
/// One that is dropped stays in flight, as a real one would.
#[must_use = "a write that is not completed stays in flight"]
#[derive(Debug)]
pub struct PendingWrite {
    disk: SimDisk,
    started: io::Result<u64>,
}

/// A sync in flight: it covers the writes that had completed when it began.
#[must_use = "a sync that is not completed makes nothing durable"]
#[derive(Debug)]
pub struct PendingSync {
    disk: SimDisk,
    inode: Inode,
    started: io::Result<u64>,
}

impl SimFile {
    /// Starts a write of the whole buffer.
    pub fn begin_write(&self, buffer: Arc<DiskBuffer>, position: Position) -> PendingWrite {
        PendingWrite { disk: self.disk.clone(), started: self.start_write(buffer, position) }
    }

    /// Starts a sync.
    pub fn begin_sync(&self) -> PendingSync {
        let started = self.disk.begin().and_then(|(mut state, crashes)| {
            let mark = state.file(self.inode).sync_mark();
            if crashes { Err(crash()) } else { Ok(mark) }
        });
        PendingSync { disk: self.disk.clone(), inode: self.inode, started }
    }

    fn start_write(&self, buffer: Arc<DiskBuffer>, position: Position) -> io::Result<u64> {
        let (mut state, crashes) = self.disk.begin()?;
        if self.access == Access::Read {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.check_aligned(buffer.as_slice(), position)?;
        let position = to_usize(position.get());
        let end = position + buffer.len();
        let overlaps = |other: &InFlight| {
            other.inode == self.inode
                && other.process == self.disk.process
                && other.position < end
                && position < other.position + other.buffer.len()
        };
        assert!(
            !state.in_flight.values().any(overlaps),
            "two writes in flight to the same bytes, at {position}: which one lands last is chance"
        );
        let write = InFlight {
            inode: self.inode,
            process: self.disk.process,
            position,
            buffer,
            durable: self.access == Access::DirectSync,
        };
        let id = state.new_id();
        state.in_flight.insert(id, write);
        if crashes { Err(crash()) } else { Ok(id) }
    }

    fn is_direct(&self) -> bool {
        matches!(self.access, Access::Direct | Access::DirectSync)
    }

    fn check_aligned(&self, bytes: &[u8], position: Position) -> io::Result<()> {
        let aligned = bytes.as_ptr().align_offset(ALIGN_BYTES) == 0
            && bytes.len().is_multiple_of(ALIGN_BYTES)
            && position.get().is_multiple_of(ALIGN_BYTES as u64);
        if self.is_direct() && !aligned {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(())
    }
}

impl PendingWrite {
    /// Lets it land, or fail if a fault is armed; what the kernel would say.
    pub fn complete(self) -> io::Result<usize> {
        let id = self.started?;
        let (mut state, crashes) = self.disk.begin()?;
        if crashes {
            return Err(crash());
        }
        let write = state.in_flight.remove(&id).expect("a write is completed once");
        state.write(&write)
    }
}

impl PendingSync {
    /// Lets it finish, or fail if a fault is armed; what the kernel would say.
    pub fn complete(self) -> io::Result<()> {
        let mark = self.started?;
        let (mut state, crashes) = self.disk.begin()?;
        if crashes {
            if state.rng.chance(50) {
                state.file(self.inode).sync_to(mark);
            }
            return Err(crash());
        }
        if state.strikes(Fault::SyncFails) {
            let State { files, rng, .. } = &mut *state;
            let content = files.get_mut(&self.inode).expect("a file lives while it is open");
            content.fail_sync_to(mark, rng);
            // Some file systems only look for space when they write back.
            return Err(io::Error::new(io::ErrorKind::StorageFull, "simulated sync error"));
        }
        state.file(self.inode).sync_to(mark);
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn size(&self) -> io::Result<u64> {
        let (mut state, crashes) = self.disk.begin()?;
        if crashes {
            return Err(crash());
        }
        Ok(state.file(self.inode).size_bytes() as u64)
    }

    fn read_at(&self, bytes: &mut [u8], position: Position) -> io::Result<usize> {
        let (mut state, crashes) = self.disk.begin()?;
        if crashes {
            return Err(crash());
        }
        self.check_aligned(bytes, position)?;
        if state.strikes(Fault::ReadFails) {
            return Err(io::Error::other("simulated read error"));
        }
        state.land_some_sectors(self.inode);
        let read = state.file(self.inode).read(to_usize(position.get()), bytes, self.is_direct());
        read.ok_or_else(|| io::Error::other("simulated bad sector"))
    }

    fn write_at(&self, bytes: &[u8], position: Position) -> io::Result<usize> {
        self.check_aligned(bytes, position)?;
        let mut buffer = DiskBuffer::with_capacity(bytes.len());
        buffer.extend_from_slice(bytes);
        self.begin_write(Arc::new(buffer), position).complete()
    }

    fn sync_data(&self) -> io::Result<()> {
        self.begin_sync().complete()
    }

    fn set_size(&self, size_bytes: u64) -> io::Result<()> {
        let (mut state, crashes) = self.disk.begin()?;
        if self.access == Access::Read {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        if !crashes || state.rng.chance(50) {
            state.file(self.inode).resize(to_usize(size_bytes));
        }
        if crashes { Err(crash()) } else { Ok(()) }
    }
}

/// A lock on a directory of a simulated disk.
pub struct SimLock {
    disk: SimDisk,
    id: u64,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.lock().locks.retain(|lock| lock.id != self.id);
    }
}

impl Disk for SimDisk {
    type File = SimFile;
    type Lock = SimLock;

    fn lock_dir(&self, dir: &Path, mode: LockMode) -> io::Result<SimLock> {
        let (mut state, crashes) = self.begin()?;
        state.names(dir)?;
        if crashes {
            return Err(crash());
        }
        let free_for = |held: &HeldLock| {
            held.dir != dir || (mode == LockMode::Shared && held.mode == LockMode::Shared)
        };
        if !state.locks.iter().all(free_for) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let id = state.new_id();
        state.locks.push(HeldLock { dir: dir.to_owned(), mode, id });
        Ok(SimLock { disk: self.clone(), id })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let (mut state, crashes) = self.begin()?;
        if crashes {
            return Err(crash());
        }
        let mut names = state.names(dir)?.list();
        // A directory lists its names in no order.
        for index in (1..names.len()).rev() {
            let other = state.rng.index(index + 1);
            names.swap(index, other);
        }
        Ok(names)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let (mut state, crashes) = self.begin()?;
        let parent = dir.parent().ok_or(io::ErrorKind::InvalidInput)?;
        if !state.dirs.contains_key(parent) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if !crashes || state.rng.chance(50) {
            state.dirs.entry(dir.to_owned()).or_default();
            state.dirs_durable.insert(dir.to_owned(), !crashes);
        }
        if crashes { Err(crash()) } else { Ok(()) }
    }

    fn create(&self, path: &Path, access: Access) -> io::Result<SimFile> {
        let (mut state, crashes) = self.begin()?;
        if state.direct_refused && matches!(access, Access::Direct | Access::DirectSync) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let (dir, name) = split(path)?;
        if state.names(&dir)?.get(&name).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if state.strikes(Fault::CreateFails) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let inode = state.new_id();
        if !crashes || state.rng.chance(50) {
            state.files.insert(inode, Content::default());
            state.names(&dir)?.link(&name, inode);
        }
        if crashes { Err(crash()) } else { Ok(self.file(inode, access)) }
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<SimFile> {
        let (state, crashes) = self.begin()?;
        if crashes {
            return Err(crash());
        }
        if state.direct_refused && matches!(access, Access::Direct | Access::DirectSync) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(self.file(state.find(path)?, access))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (mut state, crashes) = self.begin()?;
        let inode = state.find(from)?;
        let ((from_dir, from_name), (to_dir, to_name)) = (split(from)?, split(to)?);
        state.names(&to_dir)?;
        if !crashes || state.rng.chance(50) {
            if from_dir == to_dir {
                state.names(&to_dir)?.rename(&from_name, &to_name, inode);
            } else {
                state.names(&to_dir)?.link(&to_name, inode);
                state.names(&from_dir)?.unlink(&from_name);
            }
        }
        if crashes { Err(crash()) } else { Ok(()) }
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (mut state, crashes) = self.begin()?;
        let inode = state.find(from)?;
        let (dir, name) = split(to)?;
        if state.names(&dir)?.get(&name).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if !crashes || state.rng.chance(50) {
            state.names(&dir)?.link(&name, inode);
        }
        if crashes { Err(crash()) } else { Ok(()) }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let (mut state, crashes) = self.begin()?;
        state.find(path)?;
        let (dir, name) = split(path)?;
        if !crashes || state.rng.chance(50) {
            state.names(&dir)?.unlink(&name);
        }
        if crashes { Err(crash()) } else { Ok(()) }
    }

    fn space(&self, _: &Path) -> io::Result<Space> {
        // A large disk on which others have left little.
        let state = self.lock();
        let total_bytes = 1 << 40;
        let free_bytes = match state.space_bytes_max {
            Some(bytes_max) => bytes_max.saturating_sub(state.space_bytes()) as u64,
            None => total_bytes,
        };
        Ok(Space { total_bytes, free_bytes })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let (mut state, crashes) = self.begin()?;
        if state.strikes(Fault::SyncDirFails) {
            return Err(io::Error::other("simulated sync error"));
        }
        if !crashes || state.rng.chance(50) {
            state.names(dir)?.sync();
        }
        if crashes { Err(crash()) } else { Ok(()) }
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
mod tests {
    use super::*;

    fn aligned(byte: u8, blocks: usize) -> Arc<DiskBuffer> {
        let mut buffer = DiskBuffer::zeroed(blocks * ALIGN_BYTES);
        buffer.as_mut_slice().fill(byte);
        Arc::new(buffer)
    }

    fn disk(seed: u64) -> (SimDisk, PathBuf) {
        let disk = SimDisk::new(seed);
        disk.create_dir(Path::new("/log")).expect("a directory");
        (disk, PathBuf::from("/log/a"))
    }

    #[test]
    fn writes_in_flight_complete_in_any_order_and_are_durable() {
        for seed in 0..50 {
            let (disk, path) = disk(seed);
            let file = disk.create(&path, Access::DirectSync).expect("a file");
            disk.sync_dir(Path::new("/log")).expect("names");
            let first = file.begin_write(aligned(1, 1), Position::new(0));
            let second = file.begin_write(aligned(2, 1), Position::new(4096));
            assert_eq!(second.complete().expect("the second"), 4096);
            let disk = disk.power_cut();
            let bytes = disk.bytes(&path).expect("its name was synced");
            assert!(bytes[4096..].iter().all(|byte| *byte == 2));
            assert!(bytes[..4096].iter().all(|byte| *byte <= 1), "whole sectors or none");
            assert!(SimDisk::is_crash(&first.complete().expect_err("of a dead process")));
            assert!(SimDisk::is_crash(&file.size().expect_err("of a dead process")));
        }
    }

    #[test]
    fn a_write_lands_after_its_process_was_killed() {
        let (disk, path) = disk(1);
        let file = disk.create(&path, Access::DirectSync).expect("a file");
        assert_eq!(file.write_at(aligned(1, 2).as_slice(), Position::new(0)).expect("8192"), 8192);
        let pending = file.begin_write(aligned(2, 1), Position::new(4096));
        let disk = disk.kill();
        drop(pending);
        assert_eq!((disk.late_writes(), disk.bytes(&path).expect("a")[4096]), (1, 1));
        disk.land_late(0);
        assert_eq!((disk.late_writes(), disk.bytes(&path).expect("a")[4096]), (0, 2));
    }

    #[test]
    fn a_late_write_hits_the_old_file_when_a_new_one_took_its_name() {
        let (disk, path) = disk(1);
        let file = disk.create(&path, Access::DirectSync).expect("a file");
        let _pending = file.begin_write(aligned(2, 1), Position::new(0));
        let disk = disk.kill();
        let temporary = Path::new("/log/b");
        disk.create(temporary, Access::Write).expect("a file").set_size(4096).expect("a size");
        disk.rename(temporary, &path).expect("a rename");
        disk.land_late(0);
        assert_eq!(disk.bytes(&path).expect("a"), [0; 4096]);
    }

    #[test]
    fn killing_keeps_what_was_not_synced_and_a_later_power_cut_takes_it() {
        let mut lost = 0;
        for seed in 0..50 {
            let (disk, path) = disk(seed);
            let file = disk.create(&path, Access::Write).expect("a file");
            file.write_at(b"hello", Position::new(0)).expect("5");
            let disk = disk.kill();
            assert_eq!(disk.bytes(&path).expect("a"), b"hello");
            lost +=
                usize::from(disk.power_cut().bytes(&path).is_none_or(|bytes| bytes != b"hello"));
        }
        assert!((10..50).contains(&lost));
    }

    #[test]
    fn a_fuse_crashes_in_the_middle_of_an_operation() {
        let (mut kept, mut lost) = (0, 0);
        for seed in 0..100 {
            let (disk, path) = disk(seed);
            disk.crash_after(Some(2));
            let file = disk.create(&path, Access::Write).expect("the first");
            let error = disk.rename(&path, Path::new("/log/b")).expect_err("the second");
            assert!(SimDisk::is_crash(&error) && disk.is_crashed());
            assert!(SimDisk::is_crash(&file.sync_data().expect_err("after the crash")));
            let disk = disk.kill();
            match disk.list(Path::new("/log")).expect("names")[0].as_str() {
                "a" => lost += 1,
                _ => kept += 1,
            }
        }
        assert!(kept > 10 && lost > 10);
    }

    #[test]
    fn armed_faults_strike_once() {
        let (disk, path) = disk(1);
        let file = disk.create(&path, Access::Write).expect("a file");
        disk.arm(Fault::WriteIsShort, 1);
        assert_eq!(file.write_at(&[1; 1024], Position::new(0)).expect("whole"), 1024);
        assert!(file.write_at(&[1; 1024], Position::new(0)).expect("short") < 1024);
        assert_eq!(file.write_at(&[1; 1024], Position::new(0)).expect("whole"), 1024);
        disk.arm(Fault::SyncFails, 0);
        assert!(file.sync_data().is_err() && file.sync_data().is_ok());
        disk.limit_space(Some(4096));
        let error = file.write_at(&[1; 10], Position::new(4096)).expect_err("full");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(file.write_at(&[1; 10], Position::new(0)).expect("space it has"), 10);
    }

    #[test]
    fn direct_access_wants_alignment_and_may_be_refused() {
        let (disk, path) = disk(1);
        let file = disk.create(&path, Access::Direct).expect("a file");
        let buffer = aligned(1, 1);
        for (from, to, position) in [(0, 512, 0), (512, 4096, 0), (0, 4096, 512)] {
            let bytes = &buffer.as_slice()[from..to];
            let error = file.write_at(bytes, Position::new(position)).expect_err("not aligned");
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
        disk.refuse_direct(true);
        assert!(disk.open(&path, Access::DirectSync).is_err());
        assert!(disk.open(&path, Access::Write).is_ok());
    }

    #[test]
    fn locks_exclude_and_die_with_their_process() {
        let (disk, _) = disk(1);
        let dir = Path::new("/log");
        let shared = disk.lock_dir(dir, LockMode::Shared).expect("free");
        assert!(disk.lock_dir(dir, LockMode::Shared).is_ok());
        assert!(disk.lock_dir(dir, LockMode::Exclusive).is_err());
        drop(shared);
        let held = disk.lock_dir(dir, LockMode::Exclusive).expect("free");
        let disk = disk.kill();
        let _taken = disk.lock_dir(dir, LockMode::Exclusive).expect("free again");
        drop(held);
        assert!(disk.lock_dir(dir, LockMode::Shared).is_err(), "the old lock took nothing along");
    }

    #[test]
    #[should_panic(expected = "two writes in flight to the same bytes")]
    fn writes_in_flight_must_not_overlap() {
        let (disk, path) = disk(1);
        let file = disk.create(&path, Access::DirectSync).expect("a file");
        let _first = file.begin_write(aligned(1, 2), Position::new(0));
        let _second = file.begin_write(aligned(1, 1), Position::new(4096));
    }
}
