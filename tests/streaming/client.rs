//! Clients as plain as can be: sockets and strings.

use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::patience::{self, LOOK};

/// Nothing takes longer than this unless something hangs.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// No heartbeat comes between events, however long a busy machine takes, nor wakes anybody: what goes on does so by itself.
pub const SILENT: &str = "heartbeat=300";

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the server accepts");
    stream.set_read_timeout(Some(LOOK)).expect("a socket takes a timeout");
    stream.set_nodelay(true).expect("a socket takes nodelay");
    stream
}

/// A request for which the connection ends; returns status, head and body.
pub fn request(address: SocketAddr, head: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
    let mut stream = connect(address);
    let length =
        if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let text = format!("{head}\r\nHost: localhost\r\nConnection: close\r\n{length}\r\n");
    stream.write_all(text.as_bytes()).expect("the request leaves");
    stream.write_all(body).expect("the body leaves");
    let mut answer = read_to_end(&mut stream).expect("the answer comes");
    let end = find(&answer, b"\r\n\r\n").expect("the answer has a head");
    let head = String::from_utf8(answer[..end].to_vec()).expect("a head is ASCII");
    let mut body = answer.split_off(end + 4);
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        let mut decoded = Vec::new();
        let mut chunks = Chunks::default();
        assert!(chunks.decode(&mut body, &mut decoded), "the answer ends properly");
        body = decoded;
    }
    let status = head[9..12].parse().expect("a status");
    (status, head, body)
}

pub fn get_json(address: SocketAddr, target: &str) -> serde_json::Value {
    let (status, _, body) = request(address, &format!("GET {target} HTTP/1.1"), b"");
    assert_eq!(status, 200, "{target}: {}", String::from_utf8_lossy(&body));
    serde_json::from_slice(&body).expect("JSON")
}

/// All pages of a history: each says where the next one is.
pub fn get_pages(address: SocketAddr, target: &str) -> Vec<serde_json::Value> {
    let mut pages = Vec::new();
    let mut next = Some(target.to_owned());
    while let Some(target) = next {
        let page = get_json(address, &target);
        next = page["next"].as_str().map(str::to_owned);
        pages.push(page);
    }
    pages
}

/// Asks for something that may be long; nothing of the answer is read yet.
pub fn ask(address: SocketAddr, target: &str, accept: &str) -> TcpStream {
    let mut stream = connect(address);
    let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("the request leaves");
    stream
}

/// Appends lines of JSON to a topic; returns the offset of the last.
pub fn append_lines(address: SocketAddr, topic: &str, lines: &str) -> u64 {
    let head = format!(
        "POST /api/v1/topics/{topic}/events HTTP/1.1\r\nContent-Type: application/x-ndjson"
    );
    let (status, _, body) = request(address, &head, lines.as_bytes());
    let text = String::from_utf8_lossy(&body);
    assert_eq!(status, 201, "{text}");
    let answer: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    let last = answer.get("last").unwrap_or(&answer["offset"]);
    last.as_u64().expect("an offset")
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// The chunked coding.
#[derive(Default)]
pub struct Chunks {
    ended: bool,
}

impl Chunks {
    /// Moves the data of all whole chunks of `raw` to `out`; returns whether the last one has come.
    fn decode(&mut self, raw: &mut Vec<u8>, out: &mut Vec<u8>) -> bool {
        let mut at = 0;
        while !self.ended {
            let Some(line) = find(&raw[at..], b"\r\n") else { break };
            let size = std::str::from_utf8(&raw[at..at + line]).expect("a size is ASCII");
            let size = usize::from_str_radix(size, 16).expect("a size is hexadecimal");
            let start = at + line + 2;
            if raw.len() < start + size + 2 {
                break;
            }
            out.extend_from_slice(&raw[start..start + size]);
            assert_eq!(&raw[start + size..start + size + 2], b"\r\n");
            at = start + size + 2;
            self.ended = size == 0;
        }
        raw.drain(..at);
        self.ended
    }
}

/// One event of an event stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SseEvent {
    pub id: Option<String>,
    pub event: Option<String>,
    pub data: String,
}

impl SseEvent {
    pub fn offset(&self) -> u64 {
        let id = self.id.as_deref().expect("it has an id");
        let offset = id.split('.').next().expect("a cursor has an offset");
        offset.parse().expect("a number")
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.data).expect("JSON")
    }
}

/// A reader of an event stream.
pub struct Sse {
    stream: TcpStream,
    raw: Vec<u8>,
    text: Vec<u8>,
    at: usize,
    chunks: Chunks,
    decoder: Decoder,
    /// Bytes taken by one read; small for a slow reader.
    pub read_bytes: usize,
    /// A pause before each read.
    pub pause: Duration,
    pub comments: usize,
    /// A connection that ends without a word is an end as well.
    pub may_be_cut: bool,
}

impl Sse {
    pub fn socket(&self) -> &TcpStream {
        &self.stream
    }

    /// How the stream is coded; empty if it is not.
    pub fn coding(&self) -> &'static str {
        match self.decoder {
            Decoder::Identity => "",
            Decoder::Gzip(_) => "gzip",
            Decoder::Zstd(_) => "zstd",
        }
    }

    /// Opens a stream and reads its head.
    pub fn open(address: SocketAddr, query: &str, fields: &str) -> Sse {
        let mut stream = connect(address);
        let request = format!(
            "GET /api/v1/events/stream?{query} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n{fields}\r\n"
        );
        stream.write_all(request.as_bytes()).expect("the request leaves");
        let (head, raw) = read_head(&mut stream);
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        Sse {
            stream,
            raw,
            text: Vec::new(),
            at: 0,
            chunks: Chunks::default(),
            decoder: Decoder::of(&head),
            read_bytes: 64 * 1024,
            pause: Duration::ZERO,
            comments: 0,
            may_be_cut: false,
        }
    }

    /// The next event, `None` at the stream's proper end.
    pub fn next(&mut self) -> Option<SseEvent> {
        let mut event = SseEvent::default();
        let mut has_data = false;
        loop {
            let line = self.line()?;
            if line.is_empty() {
                if has_data || event.event.is_some() {
                    return Some(event);
                }
                continue;
            }
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match name {
                "" => self.comments += 1,
                "id" => event.id = Some(value.to_owned()),
                "event" => event.event = Some(value.to_owned()),
                "data" => {
                    if has_data {
                        event.data.push('\n');
                    }
                    event.data.push_str(value);
                    has_data = true;
                }
                "retry" => (),
                other => panic!("a field {other:?}"),
            }
        }
    }

    pub fn established(&mut self) -> serde_json::Value {
        let event = self.next().expect("a stream begins");
        assert_eq!(event.event.as_deref(), Some("connection.established"));
        event.json()
    }

    /// The next line, heartbeats too.
    pub fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.text[self.at..]) {
                let line = self.text[self.at..self.at + end].to_vec();
                self.at += end + 1;
                return Some(String::from_utf8(line).expect("UTF-8"));
            }
            self.text.drain(..self.at);
            self.at = 0;
            let mut packed = Vec::new();
            let has_ended = self.chunks.decode(&mut self.raw, &mut packed);
            self.decoder.decode(&packed, &mut self.text);
            if has_ended && self.text.is_empty() {
                return None;
            }
            if memchr::memchr(b'\n', &self.text).is_some() {
                continue;
            }
            std::thread::sleep(self.pause);
            let mut part = vec![0; self.read_bytes];
            let count = match read(&mut self.stream, &mut part) {
                Ok(0) if self.may_be_cut => return None,
                Err(error) if self.may_be_cut && error.kind() == ErrorKind::ConnectionReset => {
                    return None;
                }
                count => count.expect("more of the stream"),
            };
            assert!(count > 0, "the stream was cut");
            self.raw.extend_from_slice(&part[..count]);
        }
    }
}

/// Undoes the coding of a stream, as its bytes come.
enum Decoder {
    Identity,
    Gzip(Box<flate2::Decompress>),
    Zstd(zstd_safe::DCtx<'static>),
}

impl Decoder {
    /// What the head of an answer asks for.
    fn of(head: &str) -> Decoder {
        match head.split("Content-Encoding: ").nth(1).and_then(|rest| rest.lines().next()) {
            None => Decoder::Identity,
            Some("gzip") => Decoder::Gzip(Box::new(flate2::Decompress::new_gzip(15))),
            Some("zstd") => Decoder::Zstd(zstd_safe::DCtx::create()),
            Some(other) => panic!("coded as {other}"),
        }
    }

    fn decode(&mut self, packed: &[u8], text: &mut Vec<u8>) {
        match self {
            Decoder::Identity => text.extend_from_slice(packed),
            Decoder::Gzip(gzip) => inflate(gzip, packed, text),
            Decoder::Zstd(zstd) => decompress(zstd, packed, text),
        }
    }
}

fn inflate(gzip: &mut flate2::Decompress, packed: &[u8], text: &mut Vec<u8>) {
    let mut at = 0;
    let mut part = vec![0; 64 * 1024];
    loop {
        let (input, output) = (gzip.total_in(), gzip.total_out());
        let none = flate2::FlushDecompress::None;
        // It complains where there is nothing to do.
        match gzip.decompress(&packed[at..], &mut part, none) {
            Ok(flate2::Status::Ok | flate2::Status::BufError) => {}
            other => panic!("gzip: {other:?}"),
        }
        at += usize::try_from(gzip.total_in() - input).expect("at most all");
        let count = usize::try_from(gzip.total_out() - output).expect("at most a part");
        text.extend_from_slice(&part[..count]);
        if at == packed.len() && count < part.len() {
            return;
        }
    }
}

fn decompress(zstd: &mut zstd_safe::DCtx<'_>, packed: &[u8], text: &mut Vec<u8>) {
    let mut input = zstd_safe::InBuffer::around(packed);
    let mut part = vec![0; 64 * 1024];
    loop {
        let mut output = zstd_safe::OutBuffer::around(&mut part[..]);
        zstd.decompress_stream(&mut output, &mut input).expect("zstd");
        text.extend_from_slice(output.as_slice());
        if input.pos() == packed.len() && output.as_slice().len() < 64 * 1024 {
            return;
        }
    }
}

/// Reads once.
fn read(stream: &mut TcpStream, part: &mut [u8]) -> io::Result<usize> {
    patience::read(stream, part, PATIENCE)
}

/// Reads all that comes until the connection ends.
pub fn read_to_end(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    patience::read_to_end(stream, PATIENCE)
}

/// The head of an answer without the empty line, and what came behind it.
fn read_head(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let mut raw = Vec::new();
    let end = loop {
        if let Some(end) = find(&raw, b"\r\n\r\n") {
            break end;
        }
        let mut part = [0; 4096];
        let count = read(stream, &mut part).expect("a head comes");
        assert!(count > 0, "the connection ended before its head did");
        raw.extend_from_slice(&part[..count]);
    };
    let behind = raw.split_off(end + 4);
    raw.truncate(end);
    (String::from_utf8(raw).expect("ASCII"), behind)
}

/// A WebSocket client: masks with zeroes.
pub struct WebSocket {
    stream: TcpStream,
    raw: Vec<u8>,
    pub pause: Duration,
    pub read_bytes: usize,
}

/// What a WebSocket got.
#[derive(Debug)]
pub enum Frame {
    Json(serde_json::Value),
    Ping(Vec<u8>),
    Pong,
    Close(u16),
}

impl WebSocket {
    pub fn socket(&self) -> &TcpStream {
        &self.stream
    }

    pub fn open(address: SocketAddr, query: &str) -> WebSocket {
        let mut stream = connect(address);
        let request = format!(
            "GET /api/v1/events/ws?{query} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).expect("the request leaves");
        let (head, raw) = read_head(&mut stream);
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        let mut socket = WebSocket { stream, raw, pause: Duration::ZERO, read_bytes: 64 * 1024 };
        assert_eq!(socket.json()["type"], "connection.established");
        socket
    }

    pub fn send(&mut self, message: &serde_json::Value) {
        let payload = message.to_string().into_bytes();
        self.send_frame(1, &payload);
    }

    pub fn send_frame(&mut self, opcode: u8, payload: &[u8]) {
        let mut frame = vec![0x80 | opcode];
        match payload.len() {
            len @ 0..=125 => frame.push(0x80 | u8::try_from(len).expect("short")),
            len => {
                let len = u16::try_from(len).expect("not that long");
                frame.push(0x80 | 126);
                frame.extend_from_slice(&len.to_be_bytes());
            }
        }
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(payload);
        self.stream.write_all(&frame).expect("a frame leaves");
    }

    /// The next message, pings answered.
    pub fn json(&mut self) -> serde_json::Value {
        loop {
            match self.frame() {
                Frame::Json(value) => return value,
                Frame::Ping(payload) => self.send_frame(10, &payload),
                Frame::Pong => (),
                Frame::Close(code) => panic!("closed with {code}"),
            }
        }
    }

    pub fn json_of(&mut self, kind: &str) -> serde_json::Value {
        loop {
            let value = self.json();
            if value["type"] == kind {
                return value;
            }
        }
    }

    pub fn frame(&mut self) -> Frame {
        loop {
            if let Some((opcode, payload)) = self.take_frame() {
                return match opcode {
                    1 => Frame::Json(serde_json::from_slice(&payload).expect("JSON")),
                    8 => Frame::Close(u16::from_be_bytes([payload[0], payload[1]])),
                    9 => Frame::Ping(payload),
                    10 => Frame::Pong,
                    other => panic!("opcode {other}"),
                };
            }
            std::thread::sleep(self.pause);
            let mut part = vec![0; self.read_bytes];
            let count = read(&mut self.stream, &mut part).expect("more frames");
            assert!(count > 0, "the socket was cut");
            self.raw.extend_from_slice(&part[..count]);
        }
    }

    fn take_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let raw = &self.raw;
        let short = usize::from(*raw.get(1)?);
        let (start, length) = match short {
            126 => (4, usize::from(u16::from_be_bytes(raw.get(2..4)?.try_into().ok()?))),
            127 => {
                let length = u64::from_be_bytes(raw.get(2..10)?.try_into().ok()?);
                (10, usize::try_from(length).expect("it fits into memory"))
            }
            length => (2, length),
        };
        let payload = raw.get(start..start + length)?.to_vec();
        let opcode = raw[0] & 15;
        self.raw.drain(..start + length);
        Some((opcode, payload))
    }
}
