//! One read or write of a file that goes on while its owner does something else.
//!
//! By an io_uring of its own: a thread for it would have to be woken, and a thread that is `SCHED_IDLE` as its waker is
//! is woken on the same core and waits there until that one rests (a rewrite that was to wait no more for its reads
//! waited 0.28 ms of 1.4 for each).

use std::{
    io, mem,
    os::fd::{AsFd, AsRawFd},
    sync::{Arc, OnceLock},
};

use io_uring::{IoUring, opcode, types};

use crate::{buffer::DiskBuffer, io::uring::check_available, offset::Position};

/// Of a FUSE file system (`linux/magic.h`).
const FUSE_MAGIC: u64 = 0x6573_5546;

/// What it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errand {
    /// It reads.
    Read,
    /// It writes.
    Write,
}

/// See the [module](self). Whoever drops it waits until what was begun has ended.
pub trait InFlight: Send {
    /// Whether it can begin anything.
    fn is_usable(&self) -> bool;

    /// Begins to fill `buffer`, as long as it is, with what stands at `position`, or to write it there.
    ///
    /// # Panics
    ///
    /// If something is under way, or it is not usable.
    fn begin(&mut self, buffer: DiskBuffer, position: Position);

    /// Waits until what was begun has ended: the buffer, and how many bytes were read or written. `None` if nothing was begun, or
    /// nobody can know any more.
    fn wait(&mut self) -> Option<(DiskBuffer, io::Result<usize>)>;
}

/// One of a real file.
pub(super) struct ByRing<F> {
    ring: IoUring,
    has_failed: bool,
    what: Errand,
    file: Arc<F>,
    /// What the kernel reads into, or writes, until it has said that it is done.
    buffer: Option<DiskBuffer>,
}

impl<F: AsFd> ByRing<F> {
    /// Nothing is begun yet. Fails where a shard has no io_uring either, and where one is not to write.
    pub(super) fn new(file: &Arc<F>, what: Errand) -> io::Result<Self> {
        static IS_AVAILABLE: OnceLock<bool> = OnceLock::new();
        let is_available = IS_AVAILABLE.get_or_init(|| check_available().is_ok());
        if !is_available || (what == Errand::Write && !takes_writes(file)) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let (ring, file) = (IoUring::new(2)?, Arc::clone(file));
        Ok(ByRing { ring, has_failed: false, what, file, buffer: None })
    }
}

/// Whether a ring is to write to a file. Of a write that a FUSE file system has taken in part Linux (6.18) has it write the
/// rest once more where the first part is, and calls it whole: what `pwrite` does right.
fn takes_writes(file: &impl AsFd) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|system| i64::try_from(FUSE_MAGIC) != Ok(system.f_type))
}

impl<F: AsFd + Send + Sync> InFlight for ByRing<F> {
    /// No more once the ring has failed.
    fn is_usable(&self) -> bool {
        !self.has_failed
    }

    fn begin(&mut self, buffer: DiskBuffer, position: Position) {
        assert!(self.buffer.is_none() && self.is_usable(), "one at a time");
        let buffer = self.buffer.insert(buffer);
        let len = u32::try_from(buffer.len()).expect("short");
        let bytes = buffer.as_mut_slice().as_mut_ptr();
        let (file, at) = (types::Fd(self.file.as_fd().as_raw_fd()), position.get());
        let entry = match self.what {
            Errand::Read => opcode::Read::new(file, bytes, len).offset(at).build(),
            Errand::Write => opcode::Write::new(file, bytes, len).offset(at).build(),
        };
        // SAFETY: the memory is ours, stays where it is while `buffer` has it, and is not touched, nor freed, before the
        // kernel says that it is done with it: `wait` alone takes it out, and leaks it where it cannot know.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        pushed.expect("it has room for two");
        // One that is not taken now is with the wait for it.
        let _ = self.ring.submit();
    }

    fn wait(&mut self) -> Option<(DiskBuffer, io::Result<usize>)> {
        self.end()
    }
}

impl<F> ByRing<F> {
    /// As [`InFlight::wait`].
    fn end(&mut self) -> Option<(DiskBuffer, io::Result<usize>)> {
        let buffer = self.buffer.take()?;
        loop {
            if let Some(done) = self.ring.completion().next() {
                let bytes = usize::try_from(done.result())
                    .map_err(|_| io::Error::from_raw_os_error(-done.result()));
                return Some((buffer, bytes));
            }
            match self.ring.submit_and_wait(1) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => break,
                _ => {}
            }
        }
        // The kernel may still use it.
        mem::forget(buffer);
        self.has_failed = true;
        None
    }
}

impl<F> Drop for ByRing<F> {
    fn drop(&mut self) {
        self.end();
    }
}
