//! durable-streams-server: one stream of text, appended to by POST, read by Server-Sent Events.
//!
//! An event is a line of the stream. Its live reads merge what was appended meanwhile into one SSE event:
//! ```text
//! event: data
//! data:<line>
//! data:<line>
//! data:                        (behind the last line end)
//!
//! event: control
//! data:{"streamNextOffset":"..","streamCursor":"..","upToDate":true}
//!
//! ```
//! A plain read answers what there is, byte for byte.

use std::net::SocketAddr;

use strandline::bench::{
    http::take_successes,
    target::{Delivery, From, PublisherWire, SubscriberWire, Target},
};

use crate::lines::Lines;

/// How a reader asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// `live=sse`.
    Live,
    /// `GET`: the history and no more.
    Plain,
}

/// The server.
pub struct DurableStreams {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its processes.
    pub processes: Vec<u32>,
    /// How readers ask.
    pub read: Read,
    /// How many events a request appends.
    pub batch_events: u32,
    /// The length of a payload.
    pub payload_bytes: usize,
}

impl Target for DurableStreams {
    type Publisher = Publisher;
    type Subscriber = Subscriber;

    fn name(&self) -> &str {
        match self.read {
            Read::Live => "durable-streams",
            Read::Plain => "durable-streams-get",
        }
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    fn processes(&self) -> Vec<u32> {
        self.processes.clone()
    }

    fn publisher(&self, _index: u32) -> Publisher {
        let batch_events = usize::try_from(self.batch_events).expect("few");
        let body_bytes = batch_events * (self.payload_bytes + 1);
        let head = format!(
            "POST /bench HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n\
             Content-Length: {body_bytes}\r\n\r\n"
        );
        Publisher { head: head.into_bytes(), batch_events: self.batch_events, batch_left: 0 }
    }

    fn subscriber(&self, _index: u32, start: &From) -> Subscriber {
        let offset = match start {
            From::Latest => "now".to_owned(),
            From::Earliest => "-1".to_owned(),
            From::After(cursor) => String::from_utf8_lossy(cursor).into_owned(),
        };
        Subscriber {
            read: self.read,
            offset,
            lines: Lines::default(),
            is_control: false,
            is_ready: false,
        }
    }
}

/// A connection that appends.
pub struct Publisher {
    head: Vec<u8>,
    batch_events: u32,
    batch_left: u32,
}

impl PublisherWire for Publisher {
    fn hello(&mut self, _out: &mut Vec<u8>) {}

    fn push_event(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        if self.batch_left == 0 {
            self.batch_left = self.batch_events;
            out.extend_from_slice(&self.head);
        }
        self.batch_left -= 1;
        out.extend_from_slice(payload);
        out.push(b'\n');
    }

    fn batch_events(&self) -> u32 {
        self.batch_events
    }

    fn take_acks(&mut self, input: &[u8], _out: &mut Vec<u8>) -> Result<(usize, u32), String> {
        let (done, answers) = take_successes(input)?;
        Ok((done, answers * self.batch_events))
    }
}

/// A reader.
pub struct Subscriber {
    read: Read,
    offset: String,
    lines: Lines,
    is_control: bool,
    is_ready: bool,
}

impl SubscriberWire for Subscriber {
    fn hello(&mut self, out: &mut Vec<u8>) {
        let live = match self.read {
            Read::Live => "&live=sse",
            Read::Plain => "",
        };
        let request = format!("GET /bench?offset={}{live} HTTP/1.1\r\n", self.offset);
        out.extend_from_slice(request.as_bytes());
        out.extend_from_slice(b"Host: localhost\r\n\r\n");
    }

    fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// A live read is, behind what it says of itself after each event.
    fn is_between(&self) -> bool {
        self.lines.is_between() && (self.is_control || self.read == Read::Plain)
    }

    fn take(
        &mut self,
        input: &[u8],
        _out: &mut Vec<u8>,
        mut on_event: impl FnMut(Delivery<'_>),
    ) -> Result<usize, String> {
        let Self { lines, is_control, is_ready, .. } = self;
        if self.read == Read::Plain {
            let taken = lines.take(input, |payload, end| {
                on_event(Delivery { payload, cursor: b"", end: Some(end) });
            })?;
            *is_ready = lines.has_begun();
            return Ok(taken);
        }
        lines.take(input, |line, end| {
            if let Some(payload) = line.strip_prefix(b"data:") {
                if *is_control {
                    // The first one says that it has caught up, or that there is history.
                    *is_ready = true;
                } else if !payload.is_empty() {
                    *is_ready = true;
                    on_event(Delivery { payload, cursor: b"", end: Some(end) });
                }
            } else if let Some(name) = line.strip_prefix(b"event: ") {
                *is_control = name == b"control";
            }
        })
    }
}
