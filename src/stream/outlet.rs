//! One subscriber's way out: a socket, and the little that waits for it.
//!
//! A send is one non-blocking vectored `sendmsg`. The kernel has taken its bytes or has not when it
//! returns, so nothing is ever in flight that a dropped future could cancel, and a stalled
//! subscriber keeps no more than the rest of the one chunk that the kernel took half of: chunks it
//! had not begun are given back, to be read again from the ring or the log. (An io_uring send costs
//! the same per byte and per call on a socket with space, and would pin its whole batch.)
//!
//! Invariant: the bytes on the wire end between two chunks exactly when `rest` is empty.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use monoio::net::TcpStream;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};

use super::chunk::Chunk;

/// A send carries at most this many bytes: enough that its fixed cost vanishes, and little enough
/// that it ends within a slice.
pub const SEND_BYTES_MAX: usize = 256 * 1024;

/// A send carries at most this many chunks; with [`SEND_BYTES_MAX`] the bound of a batch.
pub const SEND_CHUNKS_MAX: usize = 128;

/// Who only listens has nothing to say; more than a pipelined request or two is a mistake or a flood.
/// (After a WebSocket's close it is what the client had sent before it could know.)
pub const THROWN_AWAY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Asks how many bytes of the send queue the peer has not acknowledged (`linux/sockios.h`).
const SIOCOUTQ: rustix::ioctl::Opcode = 0x5411;

type Readiness = Pin<Box<dyn Future<Output = io::Result<()>>>>;

/// What became of a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// How many of the chunks are on the wire or in the outlet's keeping; the others are untouched.
    pub chunks: usize,
    /// Whether the socket is full; [`Outlet::poll_writable`] tells when it has space again.
    pub is_full: bool,
}

/// A socket to which bytes are pushed.
pub struct Outlet {
    stream: Rc<TcpStream>,
    rest: Bytes,
    sent_bytes: u64,
    thrown_away_bytes: usize,
    readable: Option<Readiness>,
    writable: Option<Readiness>,
}

impl Outlet {
    /// An outlet that owns `stream`.
    pub fn new(stream: TcpStream) -> Self {
        Outlet {
            stream: Rc::new(stream),
            rest: Bytes::new(),
            sent_bytes: 0,
            thrown_away_bytes: 0,
            readable: None,
            writable: None,
        }
    }

    /// Whether the kernel has everything that was accepted: the wire stands between two chunks.
    pub fn is_drained(&self) -> bool {
        self.rest.is_empty()
    }

    /// Bytes that are kept for the socket.
    pub fn kept_bytes(&self) -> usize {
        self.rest.len()
    }

    /// Sends `bytes` whole, in as many turns as it takes; the future may be dropped, and then a part
    /// is on the wire and the rest in the outlet's keeping.
    pub async fn send(&mut self, bytes: Bytes) -> io::Result<()> {
        self.drain().await?;
        self.rest = bytes;
        self.drain().await
    }

    /// Waits until everything that was accepted is with the kernel.
    pub async fn drain(&mut self) -> io::Result<()> {
        while self.push(&[])?.is_full {
            std::future::poll_fn(|context| self.poll_writable(context)).await?;
        }
        Ok(())
    }

    /// Accepts `bytes` if nothing waits before them: sends what the socket takes and keeps the rest.
    /// Returns false if something waits; then nothing was accepted.
    pub fn offer(&mut self, bytes: &Bytes) -> io::Result<bool> {
        if self.push(&[])?.is_full {
            return Ok(false);
        }
        self.rest = bytes.clone();
        self.push(&[])?;
        Ok(true)
    }

    /// Sends what is kept and then `chunks`, as far as the socket takes them.
    pub fn push(&mut self, chunks: &[Chunk]) -> io::Result<Sent> {
        let mut sent = Sent { chunks: 0, is_full: false };
        while !(self.rest.is_empty() && sent.chunks == chunks.len()) {
            let (count, asked) = match self.send_some(&chunks[sent.chunks..]) {
                Ok(counts) => counts,
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::AGAIN) => {
                    sent.is_full = true;
                    return Ok(sent);
                }
                Err(error) => return Err(error.into()),
            };
            sent.chunks += self.account(count, &chunks[sent.chunks..]);
            if count < asked {
                sent.is_full = true;
                return Ok(sent);
            }
        }
        Ok(sent)
    }

    fn send_some(&self, chunks: &[Chunk]) -> Result<(usize, usize), rustix::io::Errno> {
        let slices: Vec<IoSlice<'_>> = std::iter::once(&self.rest)
            .chain(chunks.iter().take(SEND_CHUNKS_MAX).map(|chunk| &chunk.bytes))
            .filter(|bytes| !bytes.is_empty())
            .map(|bytes| IoSlice::new(bytes))
            .collect();
        let asked = slices.iter().map(|slice| slice.len()).sum();
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let mut none = SendAncillaryBuffer::default();
        let count = rustix::net::sendmsg(fd(&self.stream), &slices, &mut none, flags)?;
        Ok((count, asked))
    }

    /// The kernel took `count` bytes of what is kept and of `chunks`; returns how many chunks were
    /// begun.
    fn account(&mut self, mut count: usize, chunks: &[Chunk]) -> usize {
        self.sent_bytes += u64::try_from(count).expect("usize has at most 64 bits");
        let kept = count.min(self.rest.len());
        self.rest.advance(kept);
        count -= kept;
        if !self.rest.is_empty() {
            return 0;
        }
        for (index, chunk) in chunks.iter().enumerate() {
            if count == 0 {
                return index;
            }
            if count < chunk.bytes.len() {
                self.rest = chunk.bytes.slice(count..);
                return index + 1;
            }
            count -= chunk.bytes.len();
        }
        chunks.len()
    }

    /// How many bytes the peer has acknowledged: when that grows, somebody is there.
    pub fn taken_bytes(&self) -> io::Result<u64> {
        // SAFETY: this request writes one C `int`, and nothing else.
        let unsent = unsafe {
            rustix::ioctl::ioctl(fd(&self.stream), rustix::ioctl::Getter::<SIOCOUTQ, i32>::new())?
        };
        Ok(self.sent_bytes.saturating_sub(u64::try_from(unsent).unwrap_or(0)))
    }

    /// Ready when the socket may have space, or has failed.
    pub fn poll_writable(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = &self.stream;
        let readiness = self.writable.get_or_insert_with(|| {
            let stream = stream.clone();
            Box::pin(async move { stream.writable(false).await })
        });
        let result = std::task::ready!(readiness.as_mut().poll(context));
        self.writable = None;
        Poll::Ready(result)
    }

    /// Ready with an error once the peer has hung up. What it says meanwhile is thrown away, up to
    /// [`THROWN_AWAY_BYTES_MAX`]: beyond it the peer counts as gone.
    pub fn poll_hang_up(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        let mut scratch = [0; 512];
        loop {
            match self.poll_receive(context, &mut scratch) {
                Poll::Ready(Ok(0)) => return Poll::Ready(io::ErrorKind::UnexpectedEof.into()),
                Poll::Ready(Ok(count)) => {
                    self.thrown_away_bytes += count;
                    if self.thrown_away_bytes > THROWN_AWAY_BYTES_MAX {
                        return Poll::Ready(io::ErrorKind::InvalidData.into());
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(error),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Ready with what has come in, 0 bytes at the end. No buffer is lent to the kernel meanwhile,
    /// so an idle peer costs none.
    pub fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let stream = &self.stream;
            let readiness = self.readable.get_or_insert_with(|| {
                let stream = stream.clone();
                Box::pin(async move { stream.readable(false).await })
            });
            let result = std::task::ready!(readiness.as_mut().poll(context));
            self.readable = None;
            result?;
            match rustix::net::recv(fd(&self.stream), &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((_, count)) => return Poll::Ready(Ok(count)),
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => (),
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Ends our side of the connection: the peer reads everything that was sent, then the end.
    pub fn shut_down(&self) -> io::Result<()> {
        Ok(rustix::net::shutdown(fd(&self.stream), rustix::net::Shutdown::Write)?)
    }
}

fn fd(stream: &TcpStream) -> BorrowedFd<'_> {
    // SAFETY: the stream owns the descriptor and is borrowed for as long as the result lives.
    unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) }
}
