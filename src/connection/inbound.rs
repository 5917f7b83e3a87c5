//! What comes in on a connection: a buffer that grows only while much comes, and bodies out of it.

use std::{io, pin::pin, time::Duration};

use bytes::Bytes;
use monoio::{
    buf::IoBufMut,
    io::{AsyncReadRent, OwnedReadHalf},
    net::TcpStream,
    time::{Instant, sleep_until},
};

use crate::{
    http::body::{BodyDecoder, BodyPiece},
    local::{Either, either},
    problem::{Problem, ProblemKind},
    shutdown::Drain,
};

/// What an idle connection holds: most requests with their small events fit.
const BUFFER_BYTES_MIN: usize = 2 * 1024;

/// The buffer of a connection on which much comes: a read's fixed cost vanishes.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Bytes that have come and were not taken yet.
///
/// Invariant: `start <= buffer.len()`; what is before `start` was taken.
pub(super) struct Inbound {
    half: OwnedReadHalf<TcpStream>,
    buffer: Vec<u8>,
    start: usize,
    /// How much the next read asks for at least.
    read_bytes: usize,
    is_ended: bool,
}

/// How a wait for bytes ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// There are more.
    Bytes,
    /// There will be no more.
    End,
    /// The deadline has passed.
    Late,
    /// The server began to drain.
    Draining,
}

/// Why a body did not come whole.
#[derive(Debug)]
pub(super) enum BodyFault {
    /// The client ended, or was lost: nobody is there for an answer.
    Cut,
    /// The request is refused.
    Refused(Problem),
}

impl From<Problem> for BodyFault {
    fn from(problem: Problem) -> Self {
        BodyFault::Refused(problem)
    }
}

impl Inbound {
    pub(super) fn new(half: OwnedReadHalf<TcpStream>) -> Self {
        Inbound {
            half,
            buffer: Vec::with_capacity(BUFFER_BYTES_MIN),
            start: 0,
            read_bytes: BUFFER_BYTES_MIN,
            is_ended: false,
        }
    }

    /// What has come and was not taken.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// Takes bytes off the front.
    pub(super) fn take(&mut self, bytes: usize) {
        self.start += bytes;
        assert!(self.start <= self.buffer.len(), "only what has come can be taken");
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        }
    }

    /// The socket's half, and what has come beyond the last request.
    pub(super) fn into_parts(mut self) -> (OwnedReadHalf<TcpStream>, Vec<u8>) {
        self.buffer.drain(..self.start);
        (self.half, self.buffer)
    }

    /// Waits for more bytes until `deadline`. When that has passed, `extend` may give a later one. With
    /// `drain`, the begin of the drain ends the wait too.
    pub(super) async fn fill(
        &mut self,
        mut deadline: Instant,
        drain: Option<&Drain>,
        extend: impl Fn() -> Option<Instant>,
    ) -> io::Result<Came> {
        if self.is_ended {
            return Ok(Came::End);
        }
        self.make_room();
        let (from, buffer) = (self.buffer.len(), std::mem::take(&mut self.buffer));
        let to = buffer.capacity();
        let outcome = {
            // The operation stays the same until it ends. It is dropped, and so perhaps cancelled,
            // only where nothing more is read from this connection.
            let mut read = pin!(self.half.read(buffer.slice_mut(from..to)));
            loop {
                let moved = async {
                    match drain {
                        Some(drain) => drain.begun().await,
                        None => std::future::pending().await,
                    }
                };
                match either(read.as_mut(), either(sleep_until(deadline), moved)).await {
                    Either::Left(outcome) => break outcome,
                    Either::Right(Either::Left(())) => match extend() {
                        Some(later) => deadline = later,
                        None => return Ok(Came::Late),
                    },
                    Either::Right(Either::Right(())) => return Ok(Came::Draining),
                }
            }
        };
        let (result, slice) = outcome;
        self.buffer = slice.into_inner();
        let read_bytes = result?;
        // Asks for more after a read that was filled, and for less when little comes.
        self.read_bytes = match read_bytes {
            _ if read_bytes == to - from => (self.read_bytes * 4).min(BUFFER_BYTES_MAX),
            _ if read_bytes < self.read_bytes / 4 => (self.read_bytes / 4).max(BUFFER_BYTES_MIN),
            _ => self.read_bytes,
        };
        self.is_ended = read_bytes == 0;
        Ok(if self.is_ended { Came::End } else { Came::Bytes })
    }

    /// Makes room for a read, and gives back a large buffer of which little is used.
    fn make_room(&mut self) {
        let held = self.buffer.len() - self.start;
        let fits = self.buffer.capacity() - self.buffer.len() >= self.read_bytes / 2;
        let is_too_large = self.buffer.capacity() > 4 * (held + self.read_bytes);
        if fits && !is_too_large && self.buffer.len() < self.buffer.capacity() {
            return;
        }
        if is_too_large || self.buffer.capacity() < held + self.read_bytes {
            let mut buffer = Vec::with_capacity(held + self.read_bytes);
            buffer.extend_from_slice(self.bytes());
            self.buffer = buffer;
        } else {
            self.buffer.drain(..self.start);
        }
        self.start = 0;
    }

    /// Reads on until more of a body has come.
    pub(super) async fn fill_body(&mut self, stall_ms: u64) -> Result<(), BodyFault> {
        let deadline = Instant::now() + Duration::from_millis(stall_ms);
        match self.fill(deadline, None, || None).await {
            Ok(Came::Bytes) => Ok(()),
            Ok(Came::Late) => {
                let detail = format!("nothing of the body came for {stall_ms} ms");
                Err(Problem::new(ProblemKind::RequestTimeout, detail).closing().into())
            }
            Ok(_) | Err(_) => Err(BodyFault::Cut),
        }
    }

    /// A whole body.
    pub(super) async fn body(
        &mut self,
        mut decoder: BodyDecoder,
        stall_ms: u64,
    ) -> Result<Bytes, BodyFault> {
        let stated = decoder.sized_bytes_left().map(usize::try_from);
        // A stated size is believed as far as the bytes that go with it have come.
        let mut body = match stated {
            Some(Ok(bytes)) => Vec::with_capacity(bytes.min(2 * self.bytes().len() + 4096)),
            _ => Vec::new(),
        };
        loop {
            let before = self.bytes();
            let mut input = before;
            let mut is_whole = false;
            loop {
                match decoder.next(&mut input)? {
                    BodyPiece::Data(data) => body.extend_from_slice(data),
                    BodyPiece::More => break,
                    BodyPiece::End => {
                        is_whole = true;
                        break;
                    }
                }
            }
            let taken = before.len() - input.len();
            self.take(taken);
            if is_whole {
                return Ok(Bytes::from(body));
            }
            self.fill_body(stall_ms).await?;
        }
    }

    /// Reads and drops whatever comes, until the client ends or `linger_ms` after all answers are with
    /// the kernel: a socket closed with unread bytes would take the answers with it.
    pub(super) async fn linger(&mut self, linger_ms: u64, is_flushed: impl Fn() -> bool) {
        let linger = Duration::from_millis(linger_ms);
        let flushed_before = std::cell::Cell::new(false);
        loop {
            self.take(self.bytes().len());
            let extend = || {
                // The wait counts from the moment when the answers have left.
                let again = !flushed_before.get();
                flushed_before.set(is_flushed());
                again.then(|| Instant::now() + linger)
            };
            flushed_before.set(is_flushed());
            match self.fill(Instant::now() + linger, None, extend).await {
                Ok(Came::Bytes) => {}
                _ => return,
            }
        }
    }
}
