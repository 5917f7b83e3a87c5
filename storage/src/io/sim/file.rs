//! Files of a simulated disk, and what is in flight to them.

use std::{io, sync::Arc};

use super::{
    Fault, SimDisk, crash,
    names::Inode,
    state::{State, WriteInFlight},
    to_usize,
};
use crate::{
    buffer::{ALIGN_BYTES, DiskBuffer},
    io::{
        Access, DiskFile,
        in_flight::{Errand, InFlight},
    },
    offset::Position,
};

/// An open file of a simulated disk.
pub struct SimFile {
    pub(super) disk: SimDisk,
    pub(super) inode: Inode,
    pub(super) access: Access,
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
        let overlaps = |other: &WriteInFlight| {
            other.inode == self.inode
                && other.process == self.disk.process
                && other.position < end
                && position < other.position + other.buffer.len()
        };
        assert!(
            !state.in_flight.values().any(overlaps),
            "two writes in flight to the same bytes, at {position}: which one lands last is chance"
        );
        let write = WriteInFlight {
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

/// Writes that go on meanwhile: each lands when it is waited for.
struct Behind {
    file: Arc<SimFile>,
    begun: Option<(Arc<DiskBuffer>, PendingWrite)>,
}

impl InFlight for Behind {
    fn is_usable(&self) -> bool {
        true
    }

    fn begin(&mut self, buffer: DiskBuffer, position: Position) {
        assert!(self.begun.is_none(), "one at a time");
        let buffer = Arc::new(buffer);
        let write = self.file.begin_write(Arc::clone(&buffer), position);
        self.begun = Some((buffer, write));
    }

    fn wait(&mut self) -> Option<(DiskBuffer, io::Result<usize>)> {
        let (buffer, write) = self.begun.take()?;
        let written = write.complete();
        // One that a crash has left in flight keeps its bytes.
        let buffer = Arc::try_unwrap(buffer).unwrap_or_else(|kept| {
            let mut copy = DiskBuffer::with_capacity(kept.len());
            copy.extend_from_slice(kept.as_slice());
            copy
        });
        Some((buffer, written))
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        self.wait();
    }
}

impl DiskFile for SimFile {
    /// What is read is read in one order.
    fn in_flight(self: &Arc<Self>, what: Errand) -> Option<Box<dyn InFlight>> {
        let behind = || Behind { file: Arc::clone(self), begun: None };
        (what == Errand::Write).then(|| Box::new(behind()) as Box<dyn InFlight>)
    }

    fn size(&self) -> io::Result<u64> {
        let (mut state, crashes) = self.disk.begin()?;
        if crashes {
            return Err(crash());
        }
        if state.strikes(Fault::StatFails) {
            return Err(io::Error::other("simulated error of a status"));
        }
        Ok(state.file(self.inode).size_bytes() as u64)
    }

    fn allocated_bytes(&self) -> io::Result<u64> {
        let (mut state, crashes) = self.disk.begin()?;
        if crashes {
            return Err(crash());
        }
        if state.strikes(Fault::StatFails) {
            return Err(io::Error::other("simulated error of a status"));
        }
        Ok(state.file(self.inode).space_bytes() as u64)
    }

    fn name_count(&self) -> io::Result<u64> {
        let (mut state, crashes) = self.disk.begin()?;
        if crashes {
            return Err(crash());
        }
        if state.strikes(Fault::StatFails) {
            return Err(io::Error::other("simulated error of a status"));
        }
        Ok(state.dirs.values().map(|names| names.count_of(self.inode) as u64).sum())
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
        if state.strikes(Fault::SetSizeFails) {
            return Err(io::Error::other("simulated error of a length"));
        }
        if !crashes || state.rng.chance(50) {
            state.file(self.inode).resize(to_usize(size_bytes));
        }
        if crashes { Err(crash()) } else { Ok(()) }
    }

    fn allocate(&self, from: Position, to: Position) -> io::Result<bool> {
        let (mut state, crashes) = self.disk.begin()?;
        if self.access == Access::Read {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let (from, to) = (to_usize(from.get()), to_usize(to.get()));
        let needed = state.file(self.inode).space_needed(from, to.saturating_sub(from));
        let lacks = state.lacks(needed);
        if crashes {
            match state.rng.below(4) {
                _ if state.allocation_refused => {}
                0 | 1 if !lacks => state.file(self.inode).allocate(from, to),
                0..3 => state.allocate_some(self.inode, from, to),
                _ => {}
            }
            return Err(crash());
        }
        if state.allocation_refused {
            // One file system says that it cannot, another that something is wrong.
            let says_so = state.rng.chance(50);
            return if says_so { Ok(false) } else { Err(io::ErrorKind::InvalidInput.into()) };
        }
        if state.strikes(Fault::AllocateFindsNoSpace) || lacks {
            state.allocate_some(self.inode, from, to);
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.file(self.inode).allocate(from, to);
        Ok(true)
    }
}
