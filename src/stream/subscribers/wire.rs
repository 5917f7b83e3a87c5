//! One subscriber's way out: a socket, and the little that waits for it.
//!
//! A send is one non-blocking vectored `sendmsg`. The kernel has taken its bytes or has not when it
//! returns, so nothing is ever in flight, and a subscriber that stalls keeps no more than its place in
//! the one chunk that the kernel took half of: chunks it had not begun are found again from its
//! place, and that one is kept for it only as long as there is room ([`super::begun`]). (An io_uring
//! send costs the same per byte and per call on a socket with space, and would pin its whole batch.)
//!
//! Invariant: the bytes on the wire end between two chunks exactly when `rest` is empty.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use bytes::{Buf, Bytes};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};
use strandline_storage::offset::Offset;

use super::super::catch_up::PAGE_BYTES;
use super::super::chunk::{Chunk, PAGE_CHUNK_BYTES};
use super::super::subscription::Subscription;
use super::super::view::View;
use super::begun::{Begun, BegunChunks, Owed};

/// A send carries at most this many bytes: a page with the event that made it long enough. That is so much that
/// the fixed cost of a send vanishes, and so little that it ends within a slice.
const SEND_BYTES_MAX: usize = PAGE_BYTES + PAGE_CHUNK_BYTES;

/// A send carries at most this many chunks.
const SEND_CHUNKS_MAX: usize = 256;

/// The kernel may hold so much for a subscriber that it cannot send yet: about one send. A send buffer grows to
/// 4 MiB by itself, and 500 stalled subscribers had it hold 1.6 GB, at the expense of all others.
const UNSENT_BYTES_MAX: std::ffi::c_int = 256 * 1024;

/// A rest of so much is copied: the record of where it stands in its chunk costs as much.
const SHORT_REST_BYTES: usize = 512;

/// Asks how many bytes of the send queue the peer has not acknowledged (`linux/sockios.h`).
const SIOCOUTQ: rustix::ioctl::Opcode = 0x5411;

/// A socket to which bytes are pushed.
pub(super) struct Wire {
    socket: OwnedFd,
    /// The socket took no more when it was last tried; it says when it has space again.
    pub(super) is_full: bool,
    /// What is left of something that it has begun to take. Boxed: nearly nobody has any.
    rest: Option<Box<Rest>>,
    sent_bytes: u64,
}

/// What is left of what was begun.
#[derive(Default)]
struct Rest {
    /// The rest of a chunk.
    chunk: Option<Owed>,
    /// Then this: words and answers, which are nobody else's.
    own: Bytes,
}

impl Rest {
    /// What is to be sent first; `None` while it is gone.
    fn first(&self) -> Option<Bytes> {
        match &self.chunk {
            Some(owed) => owed.first(),
            None => Some(self.own.clone()),
        }
    }

    fn advance(&mut self, count: usize) {
        match &mut self.chunk {
            Some(owed) => {
                owed.advance(count);
                if owed.is_over() {
                    self.chunk = None;
                }
            }
            None => self.own.advance(count),
        }
    }

    fn is_over(&self) -> bool {
        self.chunk.is_none() && self.own.is_empty()
    }
}

/// Where chunks come from, and where one that is begun is kept.
pub(super) struct Source<'a> {
    pub(super) view: &'a View,
    pub(super) begun: &'a Rc<BegunChunks>,
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

    /// Sends what is left of what was begun; false if the socket is full, or what it wants is
    /// [missing](Wire::ask).
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        while let Some(rest) = &mut self.rest {
            if self.is_full {
                return Ok(false);
            }
            let Some(first) = rest.first() else { return Ok(false) };
            match send_one(self.socket.as_fd(), &first) {
                Ok(count) => {
                    self.sent_bytes += count as u64;
                    self.is_full = count < first.len();
                    rest.advance(count);
                    if rest.is_over() {
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

    /// The chunk that has to come back before anything can be sent, where the socket would take it and it was
    /// not asked for before.
    pub(super) fn ask(&mut self) -> Option<Rc<Begun>> {
        if self.is_full { None } else { self.owed_mut()?.ask() }
    }

    /// What it [asked](Wire::ask) for is there; returns how much of it was sent before.
    pub(super) fn go_on(&mut self) -> Option<usize> {
        let owed = self.owed_mut()?;
        owed.go_on();
        Some(owed.sent())
    }

    /// Whether it waits for what it [asked](Wire::ask) for: its client could take more, and gets nothing.
    pub(super) fn is_waiting(&self) -> bool {
        self.rest.as_ref().and_then(|rest| rest.chunk.as_ref()).is_some_and(Owed::is_waiting)
    }

    fn owed_mut(&mut self) -> Option<&mut Owed> {
        self.rest.as_mut()?.chunk.as_mut()
    }

    /// Sends `bytes`, keeping what the socket does not take. Nothing may be left of what was before.
    pub(super) fn send(&mut self, bytes: Bytes) -> io::Result<bool> {
        assert!(self.rest.is_none(), "what was begun is ended first");
        if bytes.is_empty() {
            return Ok(!self.is_full);
        }
        self.rest = Some(Box::new(Rest { chunk: None, own: bytes }));
        self.flush()
    }

    /// Sends `bytes` behind what was begun, whatever the socket takes now.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<bool> {
        if bytes.is_empty() && self.rest.is_none() {
            return Ok(!self.is_full);
        }
        let rest = self.rest.get_or_insert_default();
        rest.own = [&rest.own[..], bytes].concat().into();
        self.flush()
    }

    /// Sends what stands in `chunks` of `view`, as far as the socket takes it, for a subscriber at `place`.
    /// The first chunk may be joined in its middle, at `inside`; one that is begun is kept in `begun`.
    /// Returns whether all of it was taken.
    pub(super) fn push<'a>(
        &mut self,
        place: &mut Subscription,
        view: &View,
        begun: &Rc<BegunChunks>,
        inside: Option<usize>,
        mut chunks: impl ExactSizeIterator<Item = &'a Chunk>,
    ) -> io::Result<bool> {
        assert!(self.rest.is_none(), "what was begun is ended first");
        let source = &Source { view, begun };
        if let Some(at) = inside.filter(|at| *at > 0)
            && let Some(chunk) = chunks.next()
            && !self.push_tail(place, source, chunk, at)?
        {
            return Ok(false);
        }
        if chunks.len() == 1
            && let Some(chunk) = chunks.next()
        {
            return self.push_one(place, source, chunk);
        }
        let mut batch: Vec<&Chunk> = Vec::new();
        let mut batch_bytes = 0;
        loop {
            let next = chunks.next();
            let is_over = next.is_none_or(|chunk| {
                batch.len() == SEND_CHUNKS_MAX || batch_bytes + chunk.bytes.len() > SEND_BYTES_MAX
            });
            if is_over && !batch.is_empty() {
                if !self.push_batch(place, source, &batch, batch_bytes)? {
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

    fn push_tail(
        &mut self,
        place: &mut Subscription,
        source: &Source<'_>,
        chunk: &Chunk,
        at: usize,
    ) -> io::Result<bool> {
        if self.is_full {
            return Ok(false);
        }
        let tail = source.view.render.tail(&chunk.bytes, at);
        let count = self.offer(tail.len(), |socket| send_one(socket, &tail))?;
        if count > 0 {
            let events = place.next()..chunk.end;
            place.took_rest_of(chunk);
            if count < tail.len() {
                // It may be a part of the chunk, all of which it would keep.
                self.keep_rest(source, events, &Bytes::copy_from_slice(&tail), count);
            }
        }
        Ok(!self.is_full)
    }

    fn push_one(
        &mut self,
        place: &mut Subscription,
        source: &Source<'_>,
        chunk: &Chunk,
    ) -> io::Result<bool> {
        let bytes = &chunk.bytes;
        let count = self.offer(bytes.len(), |socket| send_one(socket, bytes))?;
        self.took(place, source, &[chunk], count);
        Ok(!self.is_full)
    }

    fn push_batch(
        &mut self,
        place: &mut Subscription,
        source: &Source<'_>,
        batch: &[&Chunk],
        batch_bytes: usize,
    ) -> io::Result<bool> {
        let slices: Vec<IoSlice<'_>> =
            batch.iter().map(|chunk| IoSlice::new(&chunk.bytes)).collect();
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let count = self.offer(batch_bytes, |socket| {
            let mut none = SendAncillaryBuffer::default();
            rustix::net::sendmsg(socket, &slices, &mut none, flags)
        })?;
        self.took(place, source, batch, count);
        Ok(!self.is_full)
    }

    /// Offers the kernel `bytes` by `send`, unless the socket is full. Returns how many it took; it is full
    /// if these are not all.
    fn offer(
        &mut self,
        bytes: usize,
        send: impl Fn(BorrowedFd<'_>) -> Result<usize, Errno>,
    ) -> io::Result<usize> {
        if self.is_full {
            return Ok(0);
        }
        loop {
            match send(self.socket.as_fd()) {
                Ok(count) => {
                    self.sent_bytes += count as u64;
                    self.is_full = count < bytes;
                    return Ok(count);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.is_full = true;
                    return Ok(0);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The kernel took `count` bytes of `batch`: a chunk of which it took a part is owed to its end.
    fn took(
        &mut self,
        place: &mut Subscription,
        source: &Source<'_>,
        batch: &[&Chunk],
        mut count: usize,
    ) {
        for chunk in batch {
            if count == 0 {
                return;
            }
            place.took(chunk);
            if count < chunk.bytes.len() {
                return self.keep_rest(source, chunk.start..chunk.end, &chunk.bytes, count);
            }
            count -= chunk.bytes.len();
        }
    }

    /// Of `bytes`, the chunk of these events, some have left; the others are owed.
    pub(super) fn keep_rest(
        &mut self,
        source: &Source<'_>,
        events: Range<Offset>,
        bytes: &Bytes,
        sent: usize,
    ) {
        let rest = if bytes.len() - sent <= SHORT_REST_BYTES {
            Rest { chunk: None, own: Bytes::copy_from_slice(&bytes[sent..]) }
        } else {
            let owed = source.begun.begin(source.view, events, bytes, sent);
            Rest { chunk: Some(owed), own: Bytes::new() }
        };
        self.rest = Some(Box::new(rest));
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

    /// How many bytes the socket has taken.
    pub(super) fn sent_bytes(&self) -> u64 {
        self.sent_bytes
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
