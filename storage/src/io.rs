//! The few things that a log asks of a disk, so that a real one and a simulated one can answer.
//!
//! Everything here blocks: it is called at open, and by jobs on threads for them (create, zero, seal,
//! rename). The hot path does not call it. A commit leaves the log as an [`crate::log::Op`] that the
//! driver starts in its own way (io_uring on a shard, [`DiskFile::write_at`] on a disk thread, a
//! delayed write in the simulation) and reports back. Reads go through [`ReadIo`], which a shard
//! answers by io_uring and a tool by blocking.
//!
//! A method returns what the kernel said. Nobody retries a write or a sync: a short write is
//! returned as the short length, and it is the log that decides that it is poisoned.

use std::{
    future::Future,
    io,
    path::Path,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use rustix::io::Errno;

use self::in_flight::{Errand, InFlight};
use crate::{
    buffer::{ALIGN_BYTES, DiskBuffer},
    offset::Position,
};

pub mod in_flight;
pub(crate) mod lenient;
pub mod real;
pub mod sim;
pub mod thread;
pub mod uring;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Buffered, for reading alone.
    Read,
    /// Buffered, for reading and writing; nothing is durable before [`DiskFile::sync_data`].
    Write,
    /// `O_DIRECT`, for reading and writing without making anything durable: memory, length and
    /// position are multiples of [`crate::buffer::ALIGN_BYTES`]. Zeroing ahead uses it.
    Direct,
    /// `O_DIRECT | O_DSYNC`: a write that returns is on the device. Aligned like `Direct`.
    /// `ErrorKind::InvalidInput` (or `Unsupported`) where the file system refuses it, as tmpfs does.
    DirectSync,
}

/// Who else may hold a directory's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Nobody: the one process that appends.
    Exclusive,
    /// Other readers: `verify` and `dump`.
    Shared,
}

/// A file system.
pub trait Disk: Clone + Send + Sync + 'static {
    /// An open file.
    type File: DiskFile;
    /// A held lock, released when it is dropped.
    type Lock: Send + 'static;

    /// Locks the directory itself (`flock`); `ErrorKind::WouldBlock` if another process has it.
    fn lock_dir(&self, dir: &Path, mode: LockMode) -> io::Result<Self::Lock>;
    /// The names in a directory, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Makes a directory, and syncs its parent; no error if it is there.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes a new file; `ErrorKind::AlreadyExists` if the name is taken. The name is not durable
    /// before [`Disk::sync_dir`].
    fn create(&self, path: &Path, access: Access) -> io::Result<Self::File>;
    /// Opens a file that is there.
    fn open(&self, path: &Path, access: Access) -> io::Result<Self::File>;
    /// Renames, replacing what `to` named. Not durable before [`Disk::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file a second name; `ErrorKind::CrossesDevices` or another error where that cannot be. Not
    /// durable before [`Disk::sync_dir`].
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file's name. Not durable before [`Disk::sync_dir`].
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes a file that may be gone already, or never was.
    fn remove_if_there(&self, path: &Path) -> io::Result<()> {
        match self.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
    /// Removes a directory in which nothing is. Not durable.
    fn remove_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes the names of a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// How much space the disk of a directory has.
    fn space(&self, dir: &Path) -> io::Result<Space>;
}

/// The space of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// What is used and what is left to us.
    pub total_bytes: u64,
    /// Left to us.
    pub free_bytes: u64,
}

/// Whether an operation failed for want of space.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether the disk has lost what was to be read; else the same read may succeed later.
pub(crate) fn is_unreadable(error: &io::Error) -> bool {
    use io::ErrorKind::{NotFound, PermissionDenied};
    !is_passing(error) && !matches!(error.kind(), NotFound | PermissionDenied)
}

/// Whether it says that the machine had too little of something just then, and nothing of the disk.
pub(crate) fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, OutOfMemory, TimedOut, WouldBlock};
    let is_short_of_handles =
        matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE));
    is_short_of_handles || matches!(error.kind(), Interrupted | OutOfMemory | TimedOut | WouldBlock)
}

/// An open file, shared by whoever reads it.
pub trait DiskFile: Send + Sync + 'static {
    /// Its length in bytes.
    fn size(&self) -> io::Result<u64>;
    /// How much of the disk it takes: less than its length where it has holes, or is compressed.
    fn allocated_bytes(&self) -> io::Result<u64> {
        self.size()
    }
    /// How many names it has, in whichever directories.
    fn name_count(&self) -> io::Result<u64> {
        Ok(1)
    }
    /// Reads once; may return fewer bytes than asked for, 0 at the end.
    fn read_at(&self, bytes: &mut [u8], position: Position) -> io::Result<usize>;
    /// Writes once; may write fewer bytes than asked to.
    fn write_at(&self, bytes: &[u8], position: Position) -> io::Result<usize>;
    /// `fdatasync`: all writes that had *completed before* the call, and the file's size, are on
    /// the device when it returns `Ok`.
    fn sync_data(&self) -> io::Result<()>;
    /// While this handle is open nobody [gives back](Self::give_back) what it reads, in this process or
    /// another. `ErrorKind::NotFound` if it has no name any more.
    fn hold(&self) -> io::Result<()> {
        Ok(())
    }
    /// Reads or writes of it that go on while whoever begins them does something else, where there are any.
    fn in_flight(self: &Arc<Self>, _what: Errand) -> Option<Box<dyn InFlight>>
    where
        Self: Sized,
    {
        None
    }
    /// Gives back its pages and, if it has no name any more, its blocks, a little at a time: nobody here
    /// needs it, and whoever closes such a file last does all of that at once. After each step `rest` is
    /// asked whether there is to be another, and takes its time for that. A hint.
    fn give_back(&self, _rest: &mut dyn FnMut() -> bool) {}
    /// Sets the length, filling with zeroes.
    fn set_size(&self, size_bytes: u64) -> io::Result<()>;
    /// Gives the file a length of `to`, if it was shorter, and blocks from `from` to there, which read as zeroes
    /// until something is written: writes lengthen nothing then, for which file systems keep all others off the
    /// file, and find space. Not durable before [`DiskFile::sync_data`].
    ///
    /// `Ok(false)` where the file system cannot; `ErrorKind::StorageFull` (or `QuotaExceeded`) on a full disk.
    fn allocate(&self, _from: Position, _to: Position) -> io::Result<bool> {
        Ok(false)
    }

    /// Reads `bytes.len()` bytes, fewer if the file ends before, and gives how many.
    ///
    /// Behind a short read it goes on where a direct read may begin, on the last boundary that was reached: what it has
    /// of that block is read again.
    fn read_all_at(&self, bytes: &mut [u8], position: Position) -> io::Result<usize> {
        let (mut from, mut done) = (0, 0);
        while done < bytes.len() {
            match self.read_at(&mut bytes[from..], position.plus(from as u64)) {
                Ok(read) if from + read > done => {
                    done = from + read;
                    from = done - done % ALIGN_BYTES;
                }
                Ok(_) if from == done || self.size()? <= position.plus(done as u64).get() => break,
                // Less than a block at a time: such a file is not read directly.
                Ok(_) => from = done,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Reads exactly `bytes.len()` bytes; `UnexpectedEof` if the file ends before.
    fn read_exact_at(&self, bytes: &mut [u8], position: Position) -> io::Result<()> {
        match self.read_all_at(bytes, position)? {
            read if read < bytes.len() => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Writes all of `bytes` where a short write says no more than that the disk is nearly full: beside the
    /// log, never to its active segment.
    fn write_all_at(&self, bytes: &[u8], position: Position) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            match self.write_at(&bytes[done..], position.plus(done as u64))? {
                0 => return Err(io::ErrorKind::StorageFull.into()),
                written => done += written,
            }
        }
        Ok(())
    }
}

/// Reads a part of a file without blocking the caller's thread, if the caller has a way to.
///
/// The result holds `len` bytes, or fewer if the file ends before.
pub trait ReadIo<D: Disk> {
    /// Reads `len` bytes from `position`. For a file opened with `Access::Direct*` both are multiples
    /// of [`crate::buffer::ALIGN_BYTES`].
    fn read(
        &self,
        file: &Arc<D::File>,
        position: Position,
        len: usize,
    ) -> impl Future<Output = io::Result<DiskBuffer>>;
}

/// [`ReadIo`] by blocking: for tools and tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct BlockingReads;

impl BlockingReads {
    /// The outcome of a future that awaits nothing but blocking reads.
    ///
    /// # Panics
    ///
    /// If it awaits something else, which nobody would wake it for.
    pub fn run<F: Future>(future: F) -> F::Output {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => panic!("a future of blocking reads waits for something else"),
        }
    }
}

impl<D: Disk> ReadIo<D> for BlockingReads {
    async fn read(
        &self,
        file: &Arc<D::File>,
        position: Position,
        len: usize,
    ) -> io::Result<DiskBuffer> {
        let mut buffer = DiskBuffer::zeroed(len);
        let done = file.read_all_at(buffer.as_mut_slice(), position)?;
        buffer.truncate(done);
        Ok(buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::{ops::RangeInclusive, sync::Mutex};

    use super::*;
    use crate::io::sim::{SimDisk, SimFile, rng::SimRng};

    #[test]
    fn what_may_pass_is_not_lost() {
        assert!(is_unreadable(&Errno::IO.into()));
        for error in [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::AGAIN, Errno::INTR] {
            assert!(is_passing(&error.into()) && !is_unreadable(&error.into()), "{error}");
        }
        for error in [Errno::NOENT, Errno::ACCESS] {
            assert!(!is_passing(&error.into()) && !is_unreadable(&error.into()), "{error}");
        }
    }

    /// A file that gives so many sectors at a time, and now and then is interrupted.
    struct Short {
        file: SimFile,
        sectors: RangeInclusive<u64>,
        rng: Mutex<SimRng>,
    }

    impl DiskFile for Short {
        fn size(&self) -> io::Result<u64> {
            self.file.size()
        }

        fn read_at(&self, bytes: &mut [u8], position: Position) -> io::Result<usize> {
            let mut rng = self.rng.lock().expect("no panic");
            if rng.chance(10) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let most =
                usize::try_from(512 * rng.between(*self.sectors.start(), *self.sectors.end()))
                    .expect("few");
            // As the kernel does it: the whole request is judged, and then a part of it done.
            Ok(self.file.read_at(bytes, position)?.min(most))
        }

        fn write_at(&self, bytes: &[u8], position: Position) -> io::Result<usize> {
            self.file.write_at(bytes, position)
        }

        fn sync_data(&self) -> io::Result<()> {
            self.file.sync_data()
        }

        fn set_size(&self, size_bytes: u64) -> io::Result<()> {
            self.file.set_size(size_bytes)
        }
    }

    #[test]
    fn short_reads_are_gone_on_with_to_the_end_of_the_file() {
        let mut rng = SimRng::new(1);
        for seed in 0..300 {
            let disk = SimDisk::new(seed);
            let path = Path::new("/a");
            let size = usize::try_from(512 * rng.below(80)).expect("short");
            let content = rng.bytes(size);
            let file = disk.create(path, Access::Write).expect("a free name");
            file.write_all_at(&content, Position::default()).expect("space");
            // A direct file gives a block at least, or all there is.
            for (access, sectors) in
                [(Access::Read, 1..=3), (Access::Read, 1..=40), (Access::Direct, 8..=40)]
            {
                let file = disk.open(path, access).expect("it is there");
                let rng = Mutex::new(SimRng::new(seed));
                let file = Short { file, sectors, rng };
                let from = ALIGN_BYTES * usize::from(seed % 2 == 1);
                let mut buffer = DiskBuffer::zeroed(10 * ALIGN_BYTES);
                let position = Position::new(from as u64);
                let read = file.read_all_at(buffer.as_mut_slice(), position).expect("it works");
                let expected = &content[from.min(size)..];
                assert_eq!(
                    &buffer.as_slice()[..read],
                    &expected[..expected.len().min(buffer.len())]
                );
                let exact = file.read_exact_at(&mut buffer.as_mut_slice()[..], position);
                assert_eq!(exact.is_ok(), expected.len() >= buffer.len(), "seed {seed}");
            }
        }
    }
}
