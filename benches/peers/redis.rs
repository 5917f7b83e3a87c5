//! Redis: `XADD` as the durable append (acknowledged once the append-only file is synced), `PUBLISH` and
//! `SUBSCRIBE` as the fan-out that keeps nothing, `XREAD BLOCK` as the one that does.

use std::{io::Write, net::SocketAddr};

use memchr::memchr;
use strandline::bench::target::{Delivery, From, PublisherWire, SubscriberWire, Target};

/// The stream's key, and the channel.
const KEY: &str = "bench";
/// How much of a stream one `XREAD` brings.
const READ_EVENTS_MAX: u32 = 1000;

/// How Redis is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// `XADD`, `XREAD BLOCK`: what was acknowledged is kept.
    Streams,
    /// `PUBLISH`, `SUBSCRIBE`: nothing is kept.
    PubSub,
}

/// The server.
pub struct Redis {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its processes.
    pub processes: Vec<u32>,
    /// With which commands.
    pub used: Use,
    /// The length of a payload.
    pub payload_bytes: usize,
}

impl Target for Redis {
    type Publisher = Publisher;
    type Subscriber = Subscriber;

    fn name(&self) -> &str {
        match self.used {
            Use::Streams => "redis-streams",
            Use::PubSub => "redis-pubsub",
        }
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    fn processes(&self) -> Vec<u32> {
        self.processes.clone()
    }

    fn publisher(&self, _index: u32) -> Publisher {
        let command = match self.used {
            Use::Streams => "*5\r\n$4\r\nXADD\r\n$5\r\nbench\r\n$1\r\n*\r\n$1\r\nd\r\n",
            Use::PubSub => "*3\r\n$7\r\nPUBLISH\r\n$5\r\nbench\r\n",
        };
        Publisher { head: format!("{command}${}\r\n", self.payload_bytes).into_bytes() }
    }

    fn subscriber(&self, _index: u32, start: &From) -> Subscriber {
        let last_id = match start {
            From::Latest => Vec::new(),
            From::Earliest => b"0".to_vec(),
            From::After(cursor) => cursor.to_vec(),
        };
        Subscriber { used: self.used, is_ready: false, last_id, left: 0 }
    }
}

/// A connection that appends or publishes.
pub struct Publisher {
    head: Vec<u8>,
}

impl PublisherWire for Publisher {
    fn hello(&mut self, _out: &mut Vec<u8>) {}

    fn push_event(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head);
        out.extend_from_slice(payload);
        out.extend_from_slice(b"\r\n");
    }

    fn take_acks(&mut self, input: &[u8], _out: &mut Vec<u8>) -> Result<(usize, u32), String> {
        let (mut done, mut acks) = (0, 0);
        while let Some(reply) = Value::parse(&input[done..])? {
            done += reply.bytes;
            acks += 1;
        }
        Ok((done, acks))
    }
}

/// A connection that receives.
pub struct Subscriber {
    used: Use,
    is_ready: bool,
    /// Behind which entry the next `XREAD` goes on; empty until the end of the stream is known.
    last_id: Vec<u8>,
    /// Entries of the current answer that are still to come.
    left: u64,
}

impl SubscriberWire for Subscriber {
    fn hello(&mut self, out: &mut Vec<u8>) {
        match self.used {
            Use::PubSub => out.extend_from_slice(b"*2\r\n$9\r\nSUBSCRIBE\r\n$5\r\nbench\r\n"),
            // `$` means "what comes after this command": between two it would lose events. So where the
            // end is is asked once.
            Use::Streams if self.last_id.is_empty() => {
                let bounds = "$1\r\n+\r\n$1\r\n-\r\n$5\r\nCOUNT\r\n$1\r\n1\r\n";
                write!(out, "*6\r\n$9\r\nXREVRANGE\r\n$5\r\n{KEY}\r\n{bounds}")
                    .expect("memory takes it");
            }
            Use::Streams => {
                self.is_ready = true;
                self.read_on(out);
            }
        }
    }

    fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// A message stands for itself; an `XREAD` is asked for by what came before.
    fn is_between(&self) -> bool {
        self.is_ready && self.used == Use::PubSub
    }

    fn take(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        on_event: impl FnMut(Delivery<'_>),
    ) -> Result<usize, String> {
        match self.used {
            Use::PubSub => self.take_messages(input, on_event),
            Use::Streams => self.take_entries(input, out, on_event),
        }
    }
}

impl Subscriber {
    fn take_messages(
        &mut self,
        input: &[u8],
        mut on_event: impl FnMut(Delivery<'_>),
    ) -> Result<usize, String> {
        const MESSAGE: &[u8] = b"*3\r\n$7\r\nmessage\r\n$5\r\nbench\r\n";
        const SUBSCRIBED: &[u8] = b"*3\r\n$9\r\nsubscribe\r\n$5\r\nbench\r\n:1\r\n";
        let mut done = 0;
        loop {
            let rest = &input[done..];
            if let Some(value) = rest.strip_prefix(MESSAGE) {
                let Some(value) = Value::parse(value)? else { return Ok(done) };
                done += MESSAGE.len() + value.bytes;
                on_event(Delivery { payload: value.text, cursor: b"", end: Some(done) });
            } else if rest.starts_with(SUBSCRIBED) {
                self.is_ready = true;
                done += SUBSCRIBED.len();
            } else if MESSAGE.starts_with(rest) || SUBSCRIBED.starts_with(rest) {
                return Ok(done);
            } else {
                return Err(format!("not a message: {}", String::from_utf8_lossy(rest)));
            }
        }
    }

    /// Appends the request for what lies behind `last_id`, waiting for it if there is nothing.
    fn read_on(&self, out: &mut Vec<u8>) {
        let count = READ_EVENTS_MAX.to_string();
        let (digits, id) = (count.len(), &self.last_id);
        let wait = "$5\r\nBLOCK\r\n$1\r\n0\r\n$7\r\nSTREAMS";
        write!(out, "*8\r\n$5\r\nXREAD\r\n$5\r\nCOUNT\r\n${digits}\r\n{count}\r\n{wait}\r\n")
            .and_then(|()| write!(out, "${}\r\n{KEY}\r\n${}\r\n", KEY.len(), id.len()))
            .expect("memory takes it");
        out.extend_from_slice(id);
        out.extend_from_slice(b"\r\n");
    }

    /// Entries one by one, so that an answer of many need not be whole: `*2 $id *2 $d $payload`.
    fn take_entries(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        mut on_event: impl FnMut(Delivery<'_>),
    ) -> Result<usize, String> {
        let mut done = 0;
        if !self.is_ready {
            // XREVRANGE: `*0`, or `*1` and an entry.
            let Some(list) = Value::parse(input)? else { return Ok(0) };
            self.last_id = b"0-0".to_vec();
            done = list.bytes;
            if list.items == 1 {
                let Some(last) = entry(&input[done..])? else { return Ok(0) };
                self.last_id = last.id.to_vec();
                done += last.bytes;
            }
            self.is_ready = true;
            self.read_on(out);
        }
        loop {
            if self.left == 0 {
                // `*1 *2 $bench *n`
                let Some(heads) = all(&input[done..], &mut [Value::EMPTY; 4])? else {
                    return Ok(done);
                };
                self.left = heads.1;
                done += heads.0;
            }
            while self.left > 0 {
                let Some(entry) = entry(&input[done..])? else { return Ok(done) };
                done += entry.bytes;
                on_event(Delivery { payload: entry.payload, cursor: entry.id, end: Some(done) });
                self.last_id.clear();
                self.last_id.extend_from_slice(entry.id);
                self.left -= 1;
            }
            self.read_on(out);
        }
    }
}

/// Reads as many values as `values` has room for: (their bytes, the items that the last one announces).
fn all<'a>(input: &'a [u8], values: &mut [Value<'a>]) -> Result<Option<(usize, u64)>, String> {
    let (mut done, mut items) = (0, 0);
    for place in values {
        let Some(value) = Value::parse(&input[done..])? else { return Ok(None) };
        done += value.bytes;
        items = value.items;
        *place = value;
    }
    Ok(Some((done, items)))
}

/// One entry of a stream.
struct Entry<'a> {
    bytes: usize,
    id: &'a [u8],
    /// The value of its one field.
    payload: &'a [u8],
}

/// The entry at the start of `input`; `None` if it is not whole yet.
fn entry(input: &[u8]) -> Result<Option<Entry<'_>>, String> {
    let mut values = [Value::EMPTY; 5];
    let Some((bytes, _)) = all(input, &mut values)? else { return Ok(None) };
    Ok(Some(Entry { bytes, id: values[1].text, payload: values[4].text }))
}

/// One value of the protocol, or the head of an array.
#[derive(Clone, Copy)]
struct Value<'a> {
    /// With its line ends; of an array its head alone.
    bytes: usize,
    text: &'a [u8],
    /// Of an array.
    items: u64,
}

impl<'a> Value<'a> {
    const EMPTY: Self = Self { bytes: 0, text: b"", items: 0 };

    /// Parses the value at the start of `input`; `None` if it is not whole yet, an error if it is one.
    fn parse(input: &'a [u8]) -> Result<Option<Self>, String> {
        let Some(end) = memchr(b'\n', input) else { return Ok(None) };
        if end < 2 || input[end - 1] != b'\r' {
            return Err(format!("not a value: {}", String::from_utf8_lossy(input)));
        }
        let line = &input[1..end - 1];
        let number = || {
            let text = str::from_utf8(line).ok().and_then(|text| text.parse::<u64>().ok());
            text.ok_or_else(|| format!("not a number: {}", String::from_utf8_lossy(line)))
        };
        let value = |bytes, text, items| Ok(Some(Self { bytes, text, items }));
        match input[0] {
            b'+' | b':' => value(end + 1, line, 0),
            b'*' => value(end + 1, b"", number()?),
            b'$' => {
                let text_bytes = usize::try_from(number()?).map_err(|error| error.to_string())?;
                let whole = end + 1 + text_bytes + 2;
                if input.len() < whole {
                    return Ok(None);
                }
                value(whole, &input[end + 1..whole - 2], 0)
            }
            _ => Err(String::from_utf8_lossy(line).into_owned()),
        }
    }
}
