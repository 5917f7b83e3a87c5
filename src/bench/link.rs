//! One connection's bytes: what waits to be sent, and the little that waits for more to come.

use std::{io, os::fd::OwnedFd};

use super::net::{self, Interest, Poll, Ready};

/// The buffer that all connections of a thread receive into, one after the other.
pub const BUFFER_BYTES: usize = 256 << 10;
/// It grows for larger events up to this.
const BUFFER_BYTES_MAX: usize = 8 << 20;
/// A connection keeps memory for the beginning of an event up to this size; more is given back.
const TAIL_BYTES_KEPT: usize = 4 << 10;
/// Sent bytes are dropped from the front of what waits once there are so many.
const SENT_BYTES_KEPT: usize = 64 << 10;

/// A socket with its bytes.
#[derive(Debug)]
pub struct Link {
    socket: OwnedFd,
    /// What it has in the poll.
    token: u64,
    connected: bool,
    /// There may be more to receive, of which the poll tells no more.
    may_have_more: bool,
    has_ended: bool,
    paused: bool,
    /// Bytes to send, from `sent` on.
    pub out: Vec<u8>,
    sent: usize,
    /// The beginning of something that has not come whole.
    tail: Vec<u8>,
}

impl Link {
    /// A socket whose connection was begun; `out` leaves once it is made.
    pub fn new(socket: OwnedFd, token: u64, poll: &Poll, out: Vec<u8>) -> io::Result<Link> {
        poll.add(&socket, token, Interest::Edge)?;
        Ok(Link {
            socket,
            token,
            connected: false,
            may_have_more: false,
            has_ended: false,
            paused: false,
            out,
            sent: 0,
            tail: Vec::new(),
        })
    }

    /// How many bytes wait to be sent.
    pub fn unsent_bytes(&self) -> usize {
        self.out.len() - self.sent
    }

    /// Sends what the socket takes; it tells when it has room for the rest.
    pub fn flush(&mut self) -> io::Result<()> {
        if !self.connected {
            return Ok(());
        }
        while self.sent < self.out.len() {
            match net::send_some(&self.socket, &self.out[self.sent..])? {
                0 => break,
                sent => self.sent += sent,
            }
        }
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
        } else if self.sent > SENT_BYTES_KEPT {
            self.out.drain(..self.sent);
            self.sent = 0;
        }
        Ok(())
    }

    /// Takes what the poll tells: sends, if there is room for what waits.
    pub fn note(&mut self, ready: Ready) -> io::Result<()> {
        self.may_have_more |= ready.readable;
        self.has_ended |= ready.ended;
        if ready.writable && !self.connected {
            net::connect_result(&self.socket)?;
            self.connected = true;
        }
        if ready.writable && self.unsent_bytes() > 0 {
            return self.flush();
        }
        Ok(())
    }

    /// Whether there may be something to receive: once the poll has told of it, until a receive has
    /// found less than there was room for.
    pub fn may_have_more(&self) -> bool {
        self.may_have_more && !self.paused
    }

    /// Receives once, behind what waited for more: returns how many bytes of `buffer` are to be looked
    /// at, `None` if nothing has come. The end of the connection is an error.
    pub fn receive(&mut self, buffer: &mut Vec<u8>) -> io::Result<Option<usize>> {
        let tail_bytes = self.tail.len();
        if tail_bytes > buffer.len() / 2 {
            if buffer.len() >= BUFFER_BYTES_MAX {
                return Err(io::Error::other(format!("an event of more than {tail_bytes} bytes")));
            }
            buffer.resize(buffer.len() * 2, 0);
        }
        match net::receive_some(&self.socket, &mut buffer[tail_bytes..])? {
            None => {
                self.may_have_more = false;
                Ok(None)
            }
            Some(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the server")),
            Some(received) => {
                // The end is not told of again, so it is waited for there.
                self.may_have_more = received == buffer.len() - tail_bytes || self.has_ended;
                buffer[..tail_bytes].copy_from_slice(&self.tail);
                Ok(Some(tail_bytes + received))
            }
        }
    }

    /// How many bytes wait for more.
    pub fn kept_bytes(&self) -> usize {
        self.tail.len()
    }

    /// Keeps what was not done with for the next [`receive`](Self::receive).
    pub fn keep(&mut self, rest: &[u8]) {
        self.tail.clear();
        if rest.is_empty() && self.tail.capacity() > TAIL_BYTES_KEPT {
            self.tail = Vec::new();
        }
        self.tail.extend_from_slice(rest);
    }

    /// Receives nothing until [`resume`](Self::resume): the server finds a full socket.
    pub fn pause(&mut self, poll: &Poll) -> io::Result<()> {
        self.paused = true;
        poll.remove(&self.socket)
    }

    /// Receives again.
    pub fn resume(&mut self, poll: &Poll) -> io::Result<()> {
        self.paused = false;
        poll.add(&self.socket, self.token, Interest::Edge)
    }
}
