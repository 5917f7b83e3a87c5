//! The state of a simulated disk: what is in flight, what fails, and what a crash leaves.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    Fault,
    content::{self, BLOCK_BYTES, Content, Survival},
    names::{Inode, Names},
    rng::SimRng,
    split,
};
use crate::{buffer::DiskBuffer, io::LockMode};

/// How many blocks of removed files are kept, to turn up in new ones after a power cut.
const STALE_BLOCKS_MAX: usize = 32;

/// A write that was given to the disk and is not complete.
#[derive(Clone, Debug)]
pub(super) struct WriteInFlight {
    pub(super) inode: Inode,
    pub(super) process: u64,
    pub(super) position: usize,
    pub(super) buffer: Arc<DiskBuffer>,
    pub(super) durable: bool,
}

#[derive(Clone, Debug)]
pub(super) struct HeldLock {
    pub(super) dir: PathBuf,
    pub(super) mode: LockMode,
    pub(super) id: u64,
}

#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) rng: SimRng,
    pub(super) files: BTreeMap<Inode, Content>,
    pub(super) dirs: BTreeMap<PathBuf, Names>,
    /// Directories that a power cut would keep for certain.
    pub(super) dirs_durable: BTreeMap<PathBuf, bool>,
    pub(super) in_flight: BTreeMap<u64, WriteInFlight>,
    pub(super) locks: Vec<HeldLock>,
    pub(super) stale: Vec<Vec<u8>>,
    /// The process whose handles work.
    pub(super) process: u64,
    pub(super) crashed: bool,
    pub(super) next_id: u64,
    pub(super) operations: u64,
    pub(super) crash_at: Option<u64>,
    pub(super) faults: Vec<(Fault, u64)>,
    pub(super) direct_refused: bool,
    pub(super) allocation_refused: bool,
    /// A directory on another file system.
    pub(super) apart: Option<PathBuf>,
    /// What is raised once a file has this name.
    pub(super) flag: Option<(PathBuf, Arc<AtomicBool>)>,
    /// What the next listing of a directory gives.
    pub(super) listed_before: Option<(PathBuf, Vec<String>)>,
    pub(super) space_bytes_max: Option<usize>,
    pub(super) writes_into_blocks: u64,
}

impl State {
    pub(super) fn find(&self, path: &Path) -> io::Result<Inode> {
        let (dir, name) = split(path)?;
        let names = self.dirs.get(&dir).ok_or(io::ErrorKind::NotFound)?;
        names.get(&name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn names(&mut self, dir: &Path) -> io::Result<&mut Names> {
        self.dirs.get_mut(dir).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn file(&mut self, inode: Inode) -> &mut Content {
        self.files.get_mut(&inode).expect("a file lives while it is open")
    }

    /// A file has got a name.
    pub(super) fn note_named(&mut self, path: &Path) {
        if let Some((_, flag)) = self.flag.take_if(|(awaited, _)| awaited == path) {
            flag.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Whether a fault strikes the operation that `fault` fits and that is happening now.
    pub(super) fn strikes(&mut self, fault: Fault) -> bool {
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

    pub(super) fn space_bytes(&self) -> usize {
        let named = self.dirs.values().flat_map(|names| {
            names.list().into_iter().filter_map(|name| names.get(&name)).collect::<Vec<_>>()
        });
        // A file with two names takes its space once.
        let named: BTreeSet<Inode> = named.collect();
        named.into_iter().map(|inode| self.files[&inode].space_bytes()).sum()
    }

    pub(super) fn end_process(&mut self) {
        self.process += 1;
        self.crashed = false;
        self.crash_at = None;
        self.faults.clear();
        self.locks.clear();
    }

    pub(super) fn late_ids(&self) -> Vec<u64> {
        let late = self.in_flight.iter().filter(|(_, write)| write.process != self.process);
        late.map(|(id, _)| *id).collect()
    }

    pub(super) fn land(&mut self, id: u64) {
        let write = self.in_flight.remove(&id).expect("a write in flight");
        let WriteInFlight { inode, position, buffer, durable, .. } = write;
        if let Some(content) = self.files.get_mut(&inode) {
            content.write(position, buffer.as_slice(), durable);
        }
    }

    /// The sectors that are `taken` of a write in flight reach the device, by their place in it, and no others ever will.
    pub(super) fn land_sectors(&mut self, id: u64, taken: impl Fn(usize) -> bool) {
        let write = self.in_flight.remove(&id).expect("a write in flight");
        let WriteInFlight { inode, position, buffer, .. } = write;
        let sectors = buffer.as_slice().chunks(content::SECTOR_BYTES).enumerate();
        for (place, sector) in sectors.filter(|(place, _)| taken(*place)) {
            let position = position + place * content::SECTOR_BYTES;
            self.file(inode).write(position, sector, true);
        }
    }

    /// Some sectors of late writes to a file that is about to be read land before the read.
    pub(super) fn land_some_sectors(&mut self, inode: Inode) {
        for id in self.late_ids() {
            let write = &self.in_flight[&id];
            if write.inode == inode && self.rng.chance(30) {
                let (position, buffer) = (write.position, Arc::clone(&write.buffer));
                let content = self.files.get_mut(&inode).expect("a file that is read");
                content.write_some_sectors(position, buffer.as_slice(), &mut self.rng);
            }
        }
    }

    pub(super) fn lose_power(&mut self) {
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
    pub(super) fn drop_nameless(&mut self) {
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

    /// How much space is left, if that is limited.
    fn free_bytes(&self) -> Option<usize> {
        self.space_bytes_max.map(|max| max.saturating_sub(self.space_bytes()))
    }

    /// Whether there is no place for `needed` more bytes.
    pub(super) fn lacks(&self, needed: usize) -> bool {
        self.free_bytes().is_some_and(|free| needed > free)
    }

    /// A disk that has too few of the blocks between two positions of a file gives some of them.
    pub(super) fn allocate_some(&mut self, inode: Inode, from: usize, to: usize) {
        let free_bytes = self.free_bytes().unwrap_or(usize::MAX);
        let content = self.files.get_mut(&inode).expect("a file lives while it is open");
        content.allocate_some(from, to, free_bytes, &mut self.rng);
    }

    /// Takes a write of this process, or says why not.
    pub(super) fn write(&mut self, write: &WriteInFlight) -> io::Result<usize> {
        let WriteInFlight { inode, position, durable, .. } = *write;
        let bytes = write.buffer.as_slice();
        let mut taken = bytes.len();
        let mut outcome = Ok(bytes.len());
        let needed = self.files[&inode].space_needed(position, bytes.len());
        if self.strikes(Fault::WriteFindsNoSpace) || self.lacks(needed) {
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
        let is_into_blocks = durable && self.file(inode).is_unwritten(position, taken);
        self.writes_into_blocks += u64::from(is_into_blocks);
        self.file(inode).write(position, &bytes[..taken], durable);
        outcome
    }
}
