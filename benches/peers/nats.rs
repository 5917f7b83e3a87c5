//! NATS with JetStream: published with a reply subject, which gets the acknowledgement once the message
//! is stored (and, with `sync_interval: always`, synced).
//!
//! Two ways to receive what is published to a stream's subject:
//! - a core subscription: pushed at once, beside the storing; nothing is sent again;
//! - an ordered consumer of the stream: pushed once it is stored, from any place, with flow control.

use std::{io::Write, net::SocketAddr};

use memchr::memchr;
use strandline::bench::target::{Delivery, From, PublisherWire, SubscriberWire, Target};

/// The stream and its subject.
const STREAM: &str = "BENCH";
const SUBJECT: &str = "bench";
/// What a client sends first: quiet, with the headers that flow control needs.
const CONNECT: &str = "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"lang\":\"rust\",\"version\":\"0\",\"protocol\":1}\r\n";
/// Longer lines are not NATS.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// How a subscriber receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receive {
    /// `SUB` of the subject.
    Core,
    /// An ordered push consumer of the stream.
    Ordered,
}

/// The server.
pub struct Nats {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its processes.
    pub processes: Vec<u32>,
    /// How subscribers receive.
    pub receive: Receive,
    /// The length of a payload.
    pub payload_bytes: usize,
}

impl Target for Nats {
    type Publisher = Publisher;
    type Subscriber = Subscriber;

    fn name(&self) -> &str {
        match self.receive {
            Receive::Core => "nats-core",
            Receive::Ordered => "nats-ordered",
        }
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    fn processes(&self) -> Vec<u32> {
        self.processes.clone()
    }

    fn publisher(&self, index: u32) -> Publisher {
        let inbox = format!("_INBOX.publisher{index}");
        let head = format!("PUB {SUBJECT} {inbox} {}\r\n", self.payload_bytes).into_bytes();
        Publisher { inbox, head, is_ready: false }
    }

    fn subscriber(&self, index: u32, start: &From) -> Subscriber {
        Subscriber { index, receive: self.receive, start: start.clone(), is_ready: false }
    }
}

/// A connection that publishes.
pub struct Publisher {
    inbox: String,
    head: Vec<u8>,
    is_ready: bool,
}

impl PublisherWire for Publisher {
    fn hello(&mut self, out: &mut Vec<u8>) {
        write!(out, "{CONNECT}SUB {} 1\r\nPING\r\n", self.inbox).expect("memory takes it");
    }

    fn is_ready(&self) -> bool {
        self.is_ready
    }

    fn push_event(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head);
        out.extend_from_slice(payload);
        out.extend_from_slice(b"\r\n");
    }

    fn take_acks(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(usize, u32), String> {
        let (mut done, mut acks) = (0, 0);
        while let Some((bytes, message)) = Message::parse(&input[done..])? {
            match message {
                Message::Pong => self.is_ready = true,
                Message::Ping => out.extend_from_slice(b"PONG\r\n"),
                Message::Other => {}
                Message::Event { payload, .. } if payload.starts_with(b"{\"stream\"") => acks += 1,
                Message::Event { payload, .. } | Message::Status { text: payload, .. } => {
                    return Err(format!("refused: {}", String::from_utf8_lossy(payload)));
                }
            }
            done += bytes;
        }
        Ok((done, acks))
    }
}

/// A connection that receives.
pub struct Subscriber {
    index: u32,
    receive: Receive,
    start: From,
    is_ready: bool,
}

impl SubscriberWire for Subscriber {
    fn hello(&mut self, out: &mut Vec<u8>) {
        let index = self.index;
        let written = match self.receive {
            Receive::Core => write!(out, "{CONNECT}SUB {SUBJECT} 1\r\nPING\r\n"),
            Receive::Ordered => {
                let policy = match &self.start {
                    From::Latest => "\"deliver_policy\":\"new\"".to_owned(),
                    From::Earliest => "\"deliver_policy\":\"all\"".to_owned(),
                    From::After(sequence) => {
                        let sequence = str::from_utf8(sequence).ok();
                        let next =
                            sequence.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0) + 1;
                        format!("\"deliver_policy\":\"by_start_sequence\",\"opt_start_seq\":{next}")
                    }
                };
                // What a client library's ordered consumer asks for: nothing acknowledged, kept in memory,
                // one replica, flow control, a heartbeat by which a gap is noticed.
                let config = format!(
                    "{{\"stream_name\":\"{STREAM}\",\"config\":{{\"deliver_subject\":\"_DELIVER.{index}\",{policy},\
                     \"ack_policy\":\"none\",\"max_deliver\":1,\"mem_storage\":true,\"num_replicas\":1,\
                     \"flow_control\":true,\"idle_heartbeat\":5000000000}}}}"
                );
                write!(
                    out,
                    "{CONNECT}SUB _DELIVER.{index} 1\r\nSUB _INBOX.consumer{index} 2\r\n\
                     PUB $JS.API.CONSUMER.CREATE.{STREAM} _INBOX.consumer{index} {}\r\n{config}\r\n",
                    config.len()
                )
            }
        };
        written.expect("memory takes it");
    }

    fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// An ordered consumer's messages are numbered for it alone.
    fn is_between(&self) -> bool {
        self.is_ready && matches!(self.receive, Receive::Core)
    }

    fn take(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        mut on_event: impl FnMut(Delivery<'_>),
    ) -> Result<usize, String> {
        let mut done = 0;
        while let Some((bytes, message)) = Message::parse(&input[done..])? {
            let end = done + bytes;
            match message {
                Message::Event { subscription: b"1", reply, payload } => {
                    // `$JS.ACK.<stream>.<consumer>.<delivered>.<stream sequence>.<..>` names its place.
                    let cursor = match self.receive {
                        Receive::Core => b"",
                        Receive::Ordered => reply.split(|byte| *byte == b'.').nth(5).unwrap_or(b""),
                    };
                    on_event(Delivery { payload, cursor, end: Some(end) });
                }
                Message::Event { payload, .. }
                    if payload.windows(7).any(|text| text == b"\"error\"") =>
                {
                    return Err(format!("refused: {}", String::from_utf8_lossy(payload)));
                }
                // The consumer is made.
                Message::Event { .. } => self.is_ready = true,
                Message::Pong => self.is_ready = true,
                Message::Ping => out.extend_from_slice(b"PONG\r\n"),
                Message::Status { reply, text } => answer_flow_control(reply, text, out),
                Message::Other => {}
            }
            done = end;
        }
        Ok(done)
    }
}

/// Tells the server to go on: it asks by a reply subject, or in a heartbeat that names where it is stuck.
fn answer_flow_control(reply: &[u8], text: &[u8], out: &mut Vec<u8>) {
    const STALLED: &[u8] = b"Nats-Consumer-Stalled: ";
    let stalled = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(STALLED));
    let subject = if reply.is_empty() { stalled.unwrap_or(b"").trim_ascii_end() } else { reply };
    if !subject.is_empty() {
        out.extend_from_slice(b"PUB ");
        out.extend_from_slice(subject);
        out.extend_from_slice(b" 0\r\n\r\n");
    }
}

/// What a server says.
enum Message<'a> {
    Event {
        subscription: &'a [u8],
        reply: &'a [u8],
        payload: &'a [u8],
    },
    /// Headers without an event: a heartbeat, flow control.
    Status {
        reply: &'a [u8],
        text: &'a [u8],
    },
    Ping,
    Pong,
    /// INFO and `+OK`.
    Other,
}

impl<'a> Message<'a> {
    /// Parses the message at the start of `input` and returns it with its bytes; `None` if it is not whole yet.
    fn parse(input: &'a [u8]) -> Result<Option<(usize, Self)>, String> {
        let Some(end) = memchr(b'\n', input) else {
            return if input.len() > LINE_BYTES_MAX {
                Err("a line without an end".to_owned())
            } else {
                Ok(None)
            };
        };
        let line = input[..end].trim_ascii_end();
        let odd = || format!("not understood: {}", String::from_utf8_lossy(line));
        let has_headers = line.starts_with(b"HMSG ");
        if !has_headers && !line.starts_with(b"MSG ") {
            let message = match line {
                b"PING" => Self::Ping,
                b"PONG" => Self::Pong,
                b"+OK" => Self::Other,
                _ if line.starts_with(b"INFO ") => Self::Other,
                _ => return Err(odd()),
            };
            return Ok(Some((end + 1, message)));
        }
        // `MSG <subject> <subscription> [reply] <bytes>`, `HMSG <..> [reply] <header bytes> <bytes>`
        let mut words: [&[u8]; 6] = [b""; 6];
        let mut count = 0;
        for word in line.split(|byte| *byte == b' ') {
            *words.get_mut(count).ok_or_else(odd)? = word;
            count += 1;
        }
        let numbers = if has_headers { 2 } else { 1 };
        let has_reply = match count - numbers {
            3 => false,
            4 => true,
            _ => return Err(odd()),
        };
        let number = |at: usize| {
            let text = str::from_utf8(words[at]).ok().and_then(|text| text.parse::<usize>().ok());
            text.ok_or_else(odd)
        };
        let payload_bytes = number(count - 1)?;
        let header_bytes = if has_headers { number(count - 2)? } else { 0 };
        let whole = end + 1 + payload_bytes + 2;
        if input.len() < whole {
            return Ok(None);
        }
        let body = &input[end + 1..whole - 2];
        let reply = if has_reply { words[3] } else { b"" };
        let (headers, payload) = body.split_at_checked(header_bytes).ok_or_else(odd)?;
        let message = if has_headers && payload.is_empty() {
            Self::Status { reply, text: headers }
        } else {
            Self::Event { subscription: words[2], reply, payload }
        };
        Ok(Some((whole, message)))
    }
}
