//! One subscriber's way out: a socket, and the little that waits for it.
//!
//! A send is one non-blocking vectored `sendmsg`. The kernel has taken its bytes or has not when it
//! returns, so nothing is ever in flight, and a subscriber that stalls keeps no more than the rest of
//! the one chunk that the kernel took half of: chunks it had not begun are found again from its
//! place. (An io_uring send costs the same per byte and per call on a socket with space, and would pin
//! its whole batch.)
//!
//! Invariant: the bytes on the wire end between two chunks exactly when `rest` is empty.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use bytes::{Buf, Bytes};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};

use super::super::catch_up::PAGE_BYTES;
use super::super::chunk::{Chunk, PAGE_CHUNK_BYTES, Render};
use super::super::subscription::Subscription;

/// A send carries at most this many bytes: a page with the event that made it long enough. That is so much that
/// the fixed cost of a send vanishes, and so little that it ends within a slice.
const SEND_BYTES_MAX: usize = PAGE_BYTES + PAGE_CHUNK_BYTES;

/// A send carries at most this many chunks.
const SEND_CHUNKS_MAX: usize = 256;

/// The kernel may hold so much for a subscriber that it cannot send yet: about one send. A send buffer grows to
/// 4 MiB by itself, and 500 stalled subscribers had it hold 1.6 GB, at the expense of all others.
const UNSENT_BYTES_MAX: std::ffi::c_int = 256 * 1024;

/// Asks how many bytes of the send queue the peer has not acknowledged (`linux/sockios.h`).
const SIOCOUTQ: rustix::ioctl::Opcode = 0x5411;

/// A socket to which bytes are pushed.
pub(super) struct Wire {
    socket: OwnedFd,
    /// The socket took no more when it was last tried; it says when it has space again.
    pub(super) is_full: bool,
    /// What is left of something that it has begun to take. Boxed: nearly nobody has any.
    rest: Option<Box<Bytes>>,
    sent_bytes: u64,
}

impl Wire {
    pub(super) fn new(socket: OwnedFd) -> Self {
        if let Err(error) = limit_unsent(socket.as_fd()) {
            tracing::debug!(%error, "the kernel keeps what it likes for a subscriber");
        }
        Wire { socket, is_full: false, rest: None, sent_bytes: 0 }
    }

    /// Whether the kernel has everything that was begun.
    pub(super) fn is_drained(&self) -> bool {
        self.rest.is_none()
    }

    /// Sends what is left of what was begun; false if the socket is full.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        while let Some(rest) = &mut self.rest {
            if self.is_full {
                return Ok(false);
            }
            match send_one(self.socket.as_fd(), rest) {
                Ok(count) => {
                    self.sent_bytes += count as u64;
                    self.is_full = count < rest.len();
                    rest.advance(count);
                    if rest.is_empty() {
                        self.rest = None;
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.is_full = true,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(!self.is_full)
    }

    /// Sends `bytes`, keeping what the socket does not take. Nothing may be left of what was before.
    pub(super) fn send(&mut self, bytes: Bytes) -> io::Result<bool> {
        assert!(self.rest.is_none(), "what was begun is ended first");
        if bytes.is_empty() {
            return Ok(!self.is_full);
        }
        self.rest = Some(Box::new(bytes));
        self.flush()
    }

    /// Sends `bytes` behind what was begun, whatever the socket takes now.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<bool> {
        let rest = self.rest.take().unwrap_or_default();
        self.send([&rest[..], bytes].concat().into())
    }

    /// Sends what stands in `chunks`, as far as the socket takes it, for a subscriber at `place`. The
    /// first chunk may be joined in its middle, at `inside`. Returns whether all of it was taken.
    pub(super) fn push<'a>(
        &mut self,
        place: &mut Subscription,
        render: &dyn Render,
        inside: Option<usize>,
        mut chunks: impl ExactSizeIterator<Item = &'a Chunk>,
    ) -> io::Result<bool> {
        assert!(self.rest.is_none(), "what was begun is ended first");
        if let Some(at) = inside.filter(|at| *at > 0)
            && let Some(chunk) = chunks.next()
        {
            if self.is_full {
                return Ok(false);
            }
            let is_taken = self.send(render.tail(&chunk.bytes, at))?;
            place.took_rest_of(chunk);
            if !is_taken {
                return Ok(false);
            }
        }
        if chunks.len() == 1
            && let Some(chunk) = chunks.next()
        {
            return self.push_one(place, chunk);
        }
        let mut batch: Vec<&Chunk> = Vec::new();
        let mut batch_bytes = 0;
        loop {
            let next = chunks.next();
            let is_over = next.is_none_or(|chunk| {
                batch.len() == SEND_CHUNKS_MAX || batch_bytes + chunk.bytes.len() > SEND_BYTES_MAX
            });
            if is_over && !batch.is_empty() {
                if !self.push_batch(place, &batch, batch_bytes)? {
                    return Ok(false);
                }
                batch.clear();
                batch_bytes = 0;
            }
            let Some(chunk) = next else { return Ok(true) };
            batch.push(chunk);
            batch_bytes += chunk.bytes.len();
        }
    }

    fn push_one(&mut self, place: &mut Subscription, chunk: &Chunk) -> io::Result<bool> {
        let bytes = &chunk.bytes;
        self.offer(place, &[chunk], bytes.len(), |socket| send_one(socket, bytes))
    }

    fn push_batch(
        &mut self,
        place: &mut Subscription,
        batch: &[&Chunk],
        batch_bytes: usize,
    ) -> io::Result<bool> {
        let slices: Vec<IoSlice<'_>> =
            batch.iter().map(|chunk| IoSlice::new(&chunk.bytes)).collect();
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        self.offer(place, batch, batch_bytes, |socket| {
            let mut none = SendAncillaryBuffer::default();
            rustix::net::sendmsg(socket, &slices, &mut none, flags)
        })
    }

    /// Offers the kernel a batch by `send`, unless the socket is full. Returns whether all of it was taken.
    fn offer(
        &mut self,
        place: &mut Subscription,
        batch: &[&Chunk],
        batch_bytes: usize,
        send: impl Fn(BorrowedFd<'_>) -> Result<usize, Errno>,
    ) -> io::Result<bool> {
        if self.is_full {
            return Ok(false);
        }
        loop {
            match send(self.socket.as_fd()) {
                Ok(count) => {
                    self.took(place, batch, count);
                    self.is_full = count < batch_bytes;
                    return Ok(!self.is_full);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.is_full = true;
                    return Ok(false);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The kernel took `count` bytes of `batch`: a chunk of which it took a part is kept to its end.
    fn took(&mut self, place: &mut Subscription, batch: &[&Chunk], mut count: usize) {
        self.sent_bytes += count as u64;
        for chunk in batch {
            if count == 0 {
                return;
            }
            place.took(chunk);
            if count < chunk.bytes.len() {
                self.rest = Some(Box::new(chunk.bytes.slice(count..)));
                return;
            }
            count -= chunk.bytes.len();
        }
    }

    /// Reads what has come in: `None` if nothing has for now, 0 bytes at the end.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((_, count)) => return Ok(Some(count)),
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// How many bytes the peer has acknowledged: when that grows, somebody is there.
    pub(super) fn taken_bytes(&self) -> io::Result<u64> {
        // SAFETY: this request writes one C `int`, and nothing else.
        let unsent = unsafe {
            rustix::ioctl::ioctl(
                &self.socket,
                rustix::ioctl::Getter::<SIOCOUTQ, std::ffi::c_int>::new(),
            )?
        };
        Ok(self.sent_bytes.saturating_sub(u64::try_from(unsent).unwrap_or(0)))
    }

    /// Ends our side of the connection: the peer reads everything that was sent, then the end.
    pub(super) fn shut_down(&self) -> io::Result<()> {
        Ok(rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Write)?)
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Lets the kernel hold no more than [`UNSENT_BYTES_MAX`] that it cannot send yet (tcp(7),
/// `TCP_NOTSENT_LOWAT`): what is beyond it waits in the log.
fn limit_unsent(socket: BorrowedFd<'_>) -> io::Result<()> {
    let bytes = UNSENT_BYTES_MAX;
    let size = libc::socklen_t::try_from(size_of_val(&bytes)).expect("a few bytes");
    // SAFETY: the descriptor is open while it is borrowed, and the option is one C `int`, which the
    // kernel only reads, in the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_NOTSENT_LOWAT,
            std::ptr::from_ref(&bytes).cast(),
            size,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn send_one(socket: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    rustix::net::send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
}
