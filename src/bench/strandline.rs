//! Strandline as a target: appends over HTTP, streams over SSE or WebSocket.

use std::{io, net::SocketAddr, sync::LazyLock};

use memchr::{
    memchr,
    memmem::{self, Finder},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{
    http::{Answer, excerpt},
    sse::{SseEvent, SseStream},
    target::{Delivery, From, PublisherWire, SubscriberWire, Target},
    topics::{self, Draw},
    websocket::WebSocket,
};

/// How subscribers are connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// Server-Sent Events.
    #[default]
    Sse,
    /// WebSocket.
    WebSocket,
}

/// A Strandline server, and how it is used.
#[derive(Clone, Debug)]
pub struct Strandline {
    /// Where it listens.
    pub address: SocketAddr,
    /// What `Host` says.
    pub host: String,
    /// The topic of all events; a new one for each run.
    pub topic: String,
    /// Appends go to so many topics below it, at random, if they are more than one.
    pub topics: u32,
    /// How subscribers are connected.
    pub transport: Transport,
    /// `Accept-Encoding` of event streams, if any.
    pub compression: Option<&'static str>,
    /// Appends go as NDJSON bodies of so many lines.
    pub lines: Option<u32>,
    /// How an append that is one event is known again.
    pub known_by: KnownBy,
    /// The length of a payload.
    pub payload_bytes: usize,
    /// Its processes, where they are known.
    pub processes: Vec<u32>,
}

/// How an append is known when it is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownBy {
    /// It is not.
    Nothing,
    /// Its event has an id.
    Id,
    /// Its connection is a producer, and numbers its appends.
    Producer,
}

/// All but what stands for itself in a path and in a query, as clients write it.
const IN_TOPIC: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

impl Strandline {
    fn encoded_topic(&self) -> String {
        utf8_percent_encode(&self.topic, IN_TOPIC).to_string()
    }
}

impl Target for Strandline {
    type Publisher = Appends;
    type Subscriber = Events;

    fn name(&self) -> &str {
        "strandline"
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    fn processes(&self) -> Vec<u32> {
        self.processes.clone()
    }

    fn prepare(&self) -> io::Result<()> {
        if self.topics <= 1 {
            return Ok(());
        }
        topics::load(self.address, &self.host, &self.topic, self.topics, self.payload_bytes)
    }

    fn publisher(&self, index: u32) -> Appends {
        // A line is a JSON string.
        let (content_type, body_bytes) = match self.lines {
            Some(lines) => {
                let lines = usize::try_from(lines).expect("usize has at least 32 bits");
                ("application/x-ndjson", lines * (self.payload_bytes + 3))
            }
            None => ("text/plain", self.payload_bytes),
        };
        let mut head = format!("POST /api/v1/topics/{}", self.encoded_topic());
        let draw = (self.topics > 1).then(|| {
            head.push_str("/00000000");
            (head.len() - 8, Draw::new(self.topics, index))
        });
        head.push_str(&format!(
            "/events HTTP/1.1\r\nHost: {}\r\nContent-Type: {content_type}\r\n\
             Content-Length: {body_bytes}\r\n",
            self.host
        ));
        if self.known_by == KnownBy::Producer {
            head.push_str(&format!("Producer-Id: {index}\r\nProducer-Epoch: 0\r\n"));
        }
        let known_by = if self.lines.is_none() { self.known_by } else { KnownBy::Nothing };
        let (lines, lines_left) = (self.lines, 0);
        Appends { head: head.into_bytes(), draw, known_by, index, next: 0, lines, lines_left }
    }

    fn subscriber(&self, _: u32, start: &From) -> Events {
        let topic = self.encoded_topic();
        let cursor = match start {
            From::After(cursor) => Some(String::from_utf8_lossy(cursor)),
            _ => None,
        };
        let from = match start {
            From::Earliest => "&from=earliest",
            _ => "",
        };
        let host = &self.host;
        match self.transport {
            Transport::Sse => {
                let encoding =
                    self.compression.map(|coding| format!("Accept-Encoding: {coding}\r\n"));
                let cursor = cursor.map(|cursor| format!("Last-Event-ID: {cursor}\r\n"));
                let request = format!(
                    "GET /api/v1/events/stream?topic={topic}{from} HTTP/1.1\r\nHost: {host}\r\n\
                     Accept: text/event-stream\r\n{}{}\r\n",
                    encoding.unwrap_or_default(),
                    cursor.unwrap_or_default()
                );
                Events::Sse(Box::new(SseEvents {
                    request,
                    stream: SseStream::default(),
                    ready: false,
                }))
            }
            Transport::WebSocket => {
                let cursor = cursor.map(|cursor| {
                    format!("&last_event_id={}", utf8_percent_encode(&cursor, NON_ALPHANUMERIC))
                });
                let cursor = cursor.unwrap_or_default();
                let target = format!("/api/v1/events/ws?topic={topic}{from}{cursor}");
                let socket = WebSocket::default();
                let host = host.clone();
                Events::WebSocket(Box::new(SocketEvents { host, target, socket, ready: false }))
            }
        }
    }
}

/// A connection that appends.
#[derive(Debug)]
pub struct Appends {
    /// Without the empty line at its end.
    head: Vec<u8>,
    /// Where in it the topic's last level stands, and what it is the next time, if topics are many.
    draw: Option<(usize, Draw)>,
    known_by: KnownBy,
    /// Its own number among all connections that append.
    index: u32,
    /// The number of its next append.
    next: u64,
    lines: Option<u32>,
    lines_left: u32,
}

impl PublisherWire for Appends {
    fn hello(&mut self, _: &mut Vec<u8>) {}

    fn batch_events(&self) -> u32 {
        self.lines.unwrap_or(1)
    }

    fn push_event(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        if let Some((at, draw)) = &mut self.draw
            && self.lines_left == 0
        {
            self.head[*at..*at + 8].copy_from_slice(&draw.next_level());
        }
        let Some(lines) = self.lines else {
            out.extend_from_slice(&self.head);
            let (index, next) = (self.index, self.next);
            let field = match self.known_by {
                KnownBy::Nothing => String::new(),
                KnownBy::Id => format!("Event-Id: {index}-{next}\r\n"),
                KnownBy::Producer => format!("Producer-Seq: {next}\r\n"),
            };
            out.extend_from_slice(field.as_bytes());
            self.next += 1;
            out.extend_from_slice(b"\r\n");
            out.extend_from_slice(payload);
            return;
        };
        if self.lines_left == 0 {
            self.lines_left = lines;
            out.extend_from_slice(&self.head);
            out.extend_from_slice(b"\r\n");
        }
        self.lines_left -= 1;
        out.push(b'"');
        out.extend_from_slice(payload);
        out.extend_from_slice(b"\"\n");
    }

    fn take_acks(&mut self, input: &[u8], _: &mut Vec<u8>) -> Result<(usize, u32), String> {
        let (mut bytes, mut events) = (0, 0);
        while bytes < input.len()
            && let Some(answer) = Answer::parse(&input[bytes..])?
        {
            let said = || format!("answered {}: {}", answer.status, excerpt(answer.body));
            if answer.status != 201 {
                return Err(said());
            }
            let count = member(answer.body, &COUNT).and_then(number).ok_or_else(said)?;
            if count != u64::from(self.batch_events()) {
                return Err(format!("{} events were sent, {}", self.batch_events(), said()));
            }
            events += self.batch_events();
            bytes += answer.bytes;
        }
        Ok((bytes, events))
    }
}

/// A connection that receives.
#[derive(Debug)]
pub enum Events {
    /// Server-Sent Events.
    Sse(Box<SseEvents>),
    /// WebSocket.
    WebSocket(Box<SocketEvents>),
}

/// An event stream.
#[derive(Debug)]
pub struct SseEvents {
    request: String,
    stream: SseStream,
    ready: bool,
}

/// A WebSocket with one subscription.
#[derive(Debug)]
pub struct SocketEvents {
    host: String,
    target: String,
    socket: WebSocket,
    ready: bool,
}

impl SubscriberWire for Events {
    fn hello(&mut self, out: &mut Vec<u8>) {
        match self {
            Events::Sse(events) => {
                out.extend_from_slice(events.request.as_bytes());
                events.request = String::new();
            }
            Events::WebSocket(events) => {
                events.socket.push_upgrade(&events.host, &events.target, out);
                (events.host, events.target) = (String::new(), String::new());
            }
        }
    }

    fn is_ready(&self) -> bool {
        match self {
            Events::Sse(events) => events.ready,
            Events::WebSocket(events) => events.ready,
        }
    }

    fn is_between(&self) -> bool {
        match self {
            Events::Sse(events) => events.ready && events.stream.is_between(),
            Events::WebSocket(events) => events.ready,
        }
    }

    #[inline]
    fn take(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        on_event: impl FnMut(Delivery<'_>),
    ) -> Result<usize, String> {
        match self {
            Events::Sse(events) => events.take(input, on_event),
            Events::WebSocket(events) => events.take(input, out, on_event),
        }
    }
}

impl SseEvents {
    #[inline]
    fn take(
        &mut self,
        input: &[u8],
        mut on_event: impl FnMut(Delivery<'_>),
    ) -> Result<usize, String> {
        let (ready, mut said) = (&mut self.ready, None);
        let taken = self.stream.take(input, |event| match event.event {
            b"" => {
                let SseEvent { id: cursor, data, end, .. } = event;
                on_event(Delivery { payload: unquoted(data), cursor, end });
            }
            b"ping" => {}
            b"connection.established" if memmem::find(event.data, b"\"reset\"").is_none() => {
                *ready = true;
            }
            name => said = Some(format!("{}: {}", excerpt(name), excerpt(event.data))),
        });
        match said {
            Some(said) => Err(said),
            None => taken,
        }
    }
}

impl SocketEvents {
    #[inline]
    fn take(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        mut on_event: impl FnMut(Delivery<'_>),
    ) -> Result<usize, String> {
        let ready = &mut self.ready;
        self.socket.take(input, out, |message, end| {
            if message.starts_with(b"{\"type\":\"event\"") {
                let payload = member(message, &DATA).map(unquoted).unwrap_or_default();
                let cursor = member(message, &OFFSET).unwrap_or_default();
                on_event(Delivery { payload, cursor, end: Some(end) });
                return Ok(());
            }
            match member(message, &TYPE).map(unquoted).unwrap_or_default() {
                b"subscribed" if memmem::find(message, b"\"reset\"").is_none() => *ready = true,
                b"connection.established" | b"cursor" => {}
                _ => return Err(excerpt(message)),
            }
            Ok(())
        })
    }
}

static TYPE: Name = LazyLock::new(|| Finder::new(b"\"type\":"));
static DATA: Name = LazyLock::new(|| Finder::new(b"\"data\":"));
static OFFSET: Name = LazyLock::new(|| Finder::new(b"\"offset\":"));
static COUNT: Name = LazyLock::new(|| Finder::new(b"\"count\":"));

type Name = LazyLock<Finder<'static>>;

/// What follows a member's name, up to the end of the value: a number, or a string without escapes.
#[inline]
fn member<'a>(json: &'a [u8], name: &Finder<'_>) -> Option<&'a [u8]> {
    let value = &json[name.find(json)? + name.needle().len()..];
    let end = match value.first()? {
        b'"' => memchr(b'"', &value[1..])? + 2,
        _ => value.iter().position(|byte| !byte.is_ascii_digit())?,
    };
    Some(&value[..end])
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The characters of a JSON string without escapes; what is none is itself.
#[inline]
fn unquoted(data: &[u8]) -> &[u8] {
    match data {
        [b'"', inner @ .., b'"'] => inner,
        _ => data,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strandline(transport: Transport, lines: Option<u32>) -> Strandline {
        Strandline {
            address: ([127, 0, 0, 1], 1).into(),
            host: "localhost".to_owned(),
            topic: "a/b c".to_owned(),
            topics: 1,
            transport,
            compression: None,
            lines,
            known_by: KnownBy::Nothing,
            payload_bytes: 5,
            processes: Vec::new(),
        }
    }

    fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn one_event_is_one_request_and_lines_share_one() {
        let mut out = Vec::new();
        let mut single = strandline(Transport::Sse, None).publisher(0);
        single.push_event(b"@1234", &mut out);
        assert!(text(&out).starts_with("POST /api/v1/topics/a/b%20c/events HTTP/1.1\r\n"));
        assert!(text(&out).ends_with("Content-Length: 5\r\n\r\n@1234"), "{}", text(&out));
        out.clear();
        let mut lines = strandline(Transport::Sse, Some(2)).publisher(0);
        for _ in 0..4 {
            lines.push_event(b"@1234", &mut out);
        }
        let bodies = "Content-Length: 16\r\n\r\n\"@1234\"\n\"@1234\"\n";
        assert_eq!(text(&out).matches(bodies).count(), 2, "{}", text(&out));
    }

    #[test]
    fn each_request_goes_to_a_topic_of_many() {
        let target = Strandline { topics: 1_000, ..strandline(Transport::Sse, None) };
        let mut wire = target.publisher(0);
        let mut draw = Draw::new(1_000, 0);
        for _ in 0..3 {
            let mut out = Vec::new();
            wire.push_event(b"@1234", &mut out);
            let level = draw.next_level();
            let line = format!("POST /api/v1/topics/a/b%20c/{}/events HTTP/1.1\r\n", text(&level));
            assert!(text(&out).starts_with(&line), "{}", text(&out));
        }
    }

    #[test]
    fn ids_are_each_publishers_own() {
        let mut out = Vec::new();
        let target = Strandline { known_by: KnownBy::Id, ..strandline(Transport::Sse, None) };
        for publisher in [0, 7] {
            let mut wire = target.publisher(publisher);
            wire.push_event(b"@1234", &mut out);
            wire.push_event(b"@1234", &mut out);
        }
        for id in ["0-0", "0-1", "7-0", "7-1"] {
            let field = format!("\r\nEvent-Id: {id}\r\n\r\n@1234");
            assert_eq!(text(&out).matches(&field).count(), 1, "{}", text(&out));
        }
    }

    #[test]
    fn each_connection_is_a_producer_that_numbers_its_appends() {
        let mut out = Vec::new();
        let target = Strandline { known_by: KnownBy::Producer, ..strandline(Transport::Sse, None) };
        let mut wire = target.publisher(7);
        wire.push_event(b"@1234", &mut out);
        wire.push_event(b"@1234", &mut out);
        for number in 0..2 {
            let claim = format!(
                "Producer-Id: 7\r\nProducer-Epoch: 0\r\nProducer-Seq: {number}\r\n\r\n@1234"
            );
            assert_eq!(text(&out).matches(&claim).count(), 1, "{}", text(&out));
        }
    }

    #[test]
    fn answers_must_count_what_was_sent() {
        let answer = |body: &str| {
            format!("HTTP/1.1 201 Created\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        };
        let two = answer("{\"offset\":0,\"last\":1,\"count\":2,\"sync\":\"commit\"}").repeat(2);
        let mut lines = strandline(Transport::Sse, Some(2)).publisher(0);
        assert_eq!(lines.take_acks(two.as_bytes(), &mut Vec::new()), Ok((two.len(), 4)));
        let one = answer("{\"offset\":0,\"count\":1}");
        assert!(lines.take_acks(one.as_bytes(), &mut Vec::new()).unwrap_err().contains("2 events"));
        let refused = "HTTP/1.1 507 Full\r\nContent-Length: 4\r\n\r\nfull";
        let refusal = lines.take_acks(refused.as_bytes(), &mut Vec::new()).unwrap_err();
        assert!(refusal.contains("507"), "{refusal}");
    }

    fn taken(wire: &mut Events, input: &str) -> Result<Vec<(String, String)>, String> {
        let mut all = Vec::new();
        let taken = wire.take(input.as_bytes(), &mut Vec::new(), |delivery| {
            all.push((text(delivery.payload).to_owned(), text(delivery.cursor).to_owned()));
        })?;
        assert_eq!(taken, input.len());
        Ok(all)
    }

    #[test]
    fn a_stream_is_ready_when_it_says_so() {
        let target = strandline(Transport::Sse, None);
        let mut wire = target.subscriber(0, &From::After((*b"7.abc").into()));
        let mut out = Vec::new();
        wire.hello(&mut out);
        assert!(text(&out).contains("\r\nLast-Event-ID: 7.abc\r\n"), "{}", text(&out));
        assert_eq!(taken(&mut wire, "HTTP/1.1 200 OK\r\n\r\nretry: 1\n"), Ok(Vec::new()));
        assert!(!wire.is_ready());
        let established =
            "id: 7.abc\nevent: connection.established\ndata: {\"state\":\"resumed\"}\n\n";
        assert_eq!(taken(&mut wire, established), Ok(Vec::new()));
        assert!(wire.is_ready());
        let events = "id: 8.abc\ndata: \"@one\"\n\n:\nid: 9.abc\ndata: @two\n\n";
        let wanted = [("@one", "8.abc"), ("@two", "9.abc")].map(|(a, b)| (a.into(), b.into()));
        assert_eq!(taken(&mut wire, events), Ok(wanted.to_vec()));
        let closing = "event: connection.closing\ndata: {\"code\":4000}\n\n";
        assert!(taken(&mut wire, closing).unwrap_err().contains("4000"));
    }

    #[test]
    fn a_socket_is_ready_when_it_is_subscribed() {
        let frame = |json: &str| {
            let length = char::from(u8::try_from(json.len()).unwrap());
            [b"\x81", format!("{length}{json}").as_bytes()].concat()
        };
        let mut wire = strandline(Transport::WebSocket, None).subscriber(0, &From::Earliest);
        let mut all = b"HTTP/1.1 101 Switching Protocols\r\n\r\n".to_vec();
        all.extend(frame("{\"type\":\"connection.established\",\"tag\":\"a\"}"));
        all.extend(frame("{\"type\":\"subscribed\",\"subscription\":1,\"state\":\"live\"}"));
        all.extend(frame("{\"type\":\"event\",\"subscription\":1,\"offset\":12,\"data\":\"@x\"}"));
        let mut got = Vec::new();
        let taken = wire.take(&all, &mut Vec::new(), |delivery| {
            got.push((delivery.payload.to_vec(), delivery.cursor.to_vec()));
        });
        assert_eq!(taken, Ok(all.len()));
        assert!(wire.is_ready());
        assert_eq!(got, [(b"@x".to_vec(), b"12".to_vec())]);
        let error = frame("{\"type\":\"error\",\"status\":400}");
        assert!(wire.take(&error, &mut Vec::new(), |_| ()).unwrap_err().contains("400"));
    }
}
