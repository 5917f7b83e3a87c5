//! One read of a file that goes on while its owner does something else.
//!
//! By an io_uring of its own: a thread for it would have to be woken, and a thread that is `SCHED_IDLE` as its waker is
//! is woken on the same core and waits there until that one rests (a rewrite that was to wait no more for its reads
//! waited 0.28 ms of 1.4 for each).

use std::{
    io, mem,
    os::fd::{AsRawFd, BorrowedFd},
};

use io_uring::{IoUring, opcode, types};

use crate::{buffer::DiskBuffer, offset::Position};

/// See the [module](self). Whoever drops it waits until the read has ended.
pub(crate) struct InFlight {
    ring: IoUring,
    has_failed: bool,
    /// What the kernel reads into until it has said that it is done.
    buffer: Option<DiskBuffer>,
}

impl InFlight {
    /// Nothing is read yet. Fails where there is no io_uring.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(InFlight { ring: IoUring::new(2)?, has_failed: false, buffer: None })
    }

    /// Begins to fill a buffer, as long as it is, with what stands at `position`; whether it did, which it does no more
    /// once the ring has failed. The file stays open until that has ended.
    ///
    /// # Panics
    ///
    /// If a read is under way.
    pub(crate) fn begin(
        &mut self,
        file: BorrowedFd<'_>,
        buffer: DiskBuffer,
        position: Position,
    ) -> bool {
        assert!(self.buffer.is_none(), "one read at a time");
        if self.has_failed {
            return false;
        }
        let buffer = self.buffer.insert(buffer);
        let len = u32::try_from(buffer.len()).expect("short");
        let bytes = buffer.as_mut_slice().as_mut_ptr();
        let read = opcode::Read::new(types::Fd(file.as_raw_fd()), bytes, len);
        // SAFETY: the memory is ours, stays where it is while `buffer` has it, and is not touched, nor freed, before the
        // kernel says that it is done with it: `wait` alone takes it out, and leaks it where it cannot know.
        let pushed = unsafe { self.ring.submission().push(&read.offset(position.get()).build()) };
        pushed.expect("it has room for two");
        // One that is not taken now is with the wait for it.
        let _ = self.ring.submit();
        true
    }

    /// Waits until what was begun has ended: the buffer, and how many bytes were read. `None` if nothing was begun, or the
    /// ring has failed.
    pub(crate) fn wait(&mut self) -> Option<(DiskBuffer, io::Result<usize>)> {
        let buffer = self.buffer.take()?;
        loop {
            if let Some(done) = self.ring.completion().next() {
                let read = usize::try_from(done.result())
                    .map_err(|_| io::Error::from_raw_os_error(-done.result()));
                return Some((buffer, read));
            }
            match self.ring.submit_and_wait(1) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => break,
                _ => {}
            }
        }
        // The kernel may still write to it.
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
