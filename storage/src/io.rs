//! The few things that a log asks of a disk, so that a real one and a simulated one can answer.
//!
//! Everything here blocks: it is called at open, and by jobs on the disk thread (create, zero, seal,
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

use crate::{buffer::DiskBuffer, offset::Position};

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

/// An open file, shared by whoever reads it.
pub trait DiskFile: Send + Sync + 'static {
    /// Its length in bytes.
    fn size(&self) -> io::Result<u64>;
    /// How much of the disk it takes: less than its length where it has holes, or is compressed.
    fn allocated_bytes(&self) -> io::Result<u64> {
        self.size()
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
    /// Gives back its pages and, if it has no name any more, its blocks, a little at a time: nobody here
    /// needs it, and whoever closes such a file last does all of that at once. After each step `rest` is
    /// asked whether there is to be another, and takes its time for that. A hint.
    fn give_back(&self, _rest: &mut dyn FnMut() -> bool) {}
    /// Sets the length, filling with zeroes.
    fn set_size(&self, size_bytes: u64) -> io::Result<()>;
    /// Gives the file a length and blocks up to `to` for writes from `from` on: they lengthen nothing then,
    /// for which file systems keep all others off the file. It reads as zeroes until they come. A hint.
    fn allocate(&self, _from: Position, _to: Position) {}

    /// Reads exactly `bytes.len()` bytes; `UnexpectedEof` if the file ends before.
    fn read_exact_at(&self, bytes: &mut [u8], position: Position) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            match self.read_at(&mut bytes[done..], position.plus(done as u64)) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
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
        let mut done = 0;
        while done < len {
            match file.read_at(&mut buffer.as_mut_slice()[done..], position.plus(done as u64)) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        buffer.truncate(done);
        Ok(buffer)
    }
}
