//! Nginx with Nchan: a channel in memory, published to by POST, read by Server-Sent Events. Not durable.

use std::net::SocketAddr;

use strandline::bench::{
    http::take_successes,
    target::{Delivery, From, PublisherWire, SubscriberWire, Target},
};

use crate::lines::Lines;

/// The server.
pub struct Nchan {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its processes.
    pub processes: Vec<u32>,
    /// The length of a payload.
    pub payload_bytes: usize,
}

impl Target for Nchan {
    type Publisher = Publisher;
    type Subscriber = Subscriber;

    fn name(&self) -> &str {
        "nchan"
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    fn processes(&self) -> Vec<u32> {
        self.processes.clone()
    }

    fn publisher(&self, _index: u32) -> Publisher {
        let head = format!(
            "POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n\
             Content-Length: {}\r\n\r\n",
            self.payload_bytes
        );
        Publisher { head: head.into_bytes() }
    }

    /// Begins with what comes from now on: what the channel still has is a matter of its buffer.
    fn subscriber(&self, _index: u32, _start: &From) -> Subscriber {
        Subscriber { lines: Lines::default() }
    }
}

/// A connection that publishes.
pub struct Publisher {
    head: Vec<u8>,
}

impl PublisherWire for Publisher {
    fn hello(&mut self, _out: &mut Vec<u8>) {}

    fn push_event(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head);
        out.extend_from_slice(payload);
    }

    fn take_acks(&mut self, input: &[u8], _out: &mut Vec<u8>) -> Result<(usize, u32), String> {
        take_successes(input)
    }
}

/// A subscription: `: hi`, then `id:` and `data:` lines.
pub struct Subscriber {
    lines: Lines,
}

impl SubscriberWire for Subscriber {
    fn hello(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(
            b"GET /subscribe HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n",
        );
    }

    fn is_ready(&self) -> bool {
        self.lines.has_begun()
    }

    fn is_between(&self) -> bool {
        self.lines.is_between()
    }

    fn take(
        &mut self,
        input: &[u8],
        _out: &mut Vec<u8>,
        mut on_event: impl FnMut(Delivery<'_>),
    ) -> Result<usize, String> {
        self.lines.take(input, |line, end| {
            if let Some(payload) = line.strip_prefix(b"data: ") {
                on_event(Delivery { payload, cursor: b"", end: Some(end) });
            }
        })
    }
}
