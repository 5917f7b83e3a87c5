//! One read or write of a file that goes on while its owner does something else.
//!
//! By an io_uring of its own: a thread for it would have to be woken, and a thread that is `SCHED_IDLE` as its waker is
//! is woken on the same core and waits there until that one rests (a rewrite that was to wait no more for its reads
//! waited 0.28 ms of 1.4 for each).

use std::{
    io, mem,
    os::fd::{AsRawFd, BorrowedFd},
    sync::OnceLock,
};

use io_uring::{IoUring, opcode, types};

use crate::{buffer::DiskBuffer, io::uring::check_available, offset::Position};

/// Of a FUSE file system (`linux/magic.h`).
const FUSE_MAGIC: u64 = 0x6573_5546;

/// What it does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Errand {
    Read,
    Write,
}

/// Whether a ring is to write to a file. Of a write that a FUSE file system has taken in part Linux (6.18) has it write the
/// rest once more where the first part is, and calls it whole: what `pwrite` does right.
pub(crate) fn takes_writes(file: BorrowedFd<'_>) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|system| i64::try_from(FUSE_MAGIC) != Ok(system.f_type))
}

/// See the [module](self). Whoever drops it waits until what was begun has ended.
pub(crate) struct InFlight {
    ring: IoUring,
    has_failed: bool,
    /// What the kernel reads into, or writes, until it has said that it is done.
    buffer: Option<DiskBuffer>,
}

impl InFlight {
    /// Nothing is begun yet. Fails where a shard has no io_uring either.
    pub(crate) fn new() -> io::Result<Self> {
        static IS_AVAILABLE: OnceLock<bool> = OnceLock::new();
        if !IS_AVAILABLE.get_or_init(|| check_available().is_ok()) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(InFlight { ring: IoUring::new(2)?, has_failed: false, buffer: None })
    }

    /// Whether it can begin anything: no more once the ring has failed.
    pub(crate) fn is_usable(&self) -> bool {
        !self.has_failed
    }

    /// Begins to fill `buffer`, as long as it is, with what stands at `position`, or to write it there. The file stays open
    /// until that has ended.
    ///
    /// # Panics
    ///
    /// If something is under way, or the ring has failed.
    pub(crate) fn begin(
        &mut self,
        what: Errand,
        file: BorrowedFd<'_>,
        buffer: DiskBuffer,
        position: Position,
    ) {
        assert!(self.buffer.is_none() && self.is_usable(), "one at a time");
        let buffer = self.buffer.insert(buffer);
        let len = u32::try_from(buffer.len()).expect("short");
        let bytes = buffer.as_mut_slice().as_mut_ptr();
        let (file, at) = (types::Fd(file.as_raw_fd()), position.get());
        let entry = match what {
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

    /// Waits until what was begun has ended: the buffer, and how many bytes were read or written. `None` if nothing was begun, or the
    /// ring has failed.
    pub(crate) fn wait(&mut self) -> Option<(DiskBuffer, io::Result<usize>)> {
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

impl Drop for InFlight {
    fn drop(&mut self) {
        self.wait();
    }
}
