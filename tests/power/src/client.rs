//! Publishers and a subscriber, as plain as can be: sockets and strings.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::Value;
use strandline_storage::io::sim::rng::SimRng;

use crate::{
    ledger::{EventName, Ledger, MORTAL, ROOMS},
    let_go::LetGo,
    once::Way,
    publisher::Publisher,
    room::Room,
};

/// Nothing takes longer than this unless something hangs.
pub const PATIENCE: Duration = Duration::from_secs(30);
pub const PAUSE: Duration = Duration::from_millis(5);

/// Rooms, one whose events have ids and one that is a producer: of no append it stays unknown whether it is there.
const ROOMS_KNOWN_AGAIN: [u32; 2] = [ROOMS + 1, ROOMS + 2];

/// The topics of mortal publishers, above one for each.
pub const MORTAL_TOPICS: &str = "mortal";

/// Puts settings until that is answered with 200, or `stop` is set.
fn put_until_set(address: SocketAddr, path: &str, settings: &str, stop: &AtomicBool) {
    let line = format!("PUT {path}");
    while !stop.load(Ordering::Relaxed) {
        match request(address, &line, "*/*", settings.as_bytes()) {
            Ok((200, _)) => return,
            _ => thread::sleep(PAUSE),
        }
    }
}

/// Who publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Everybody.
    All = 0,
    /// Mortal publishers alone: their segments come to hold nothing that stays.
    Mortals = 1,
    /// Nobody: work in the background, which runs when nothing else wants to, comes to its turn.
    Nobody = 2,
}

/// What stays in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// Everything.
    None,
    /// Of topics of mortal publishers a few events.
    OfMortals,
}

/// Clients that go on whatever becomes of the server, until they are told to stop.
pub struct Load {
    address: SocketAddr,
    ledger: Arc<Ledger>,
    stop: Arc<AtomicBool>,
    who: Arc<AtomicU32>,
    are_long: Arc<AtomicBool>,
    /// How many events may still be appended.
    left: Arc<AtomicU32>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts `publishers` publishers whose events stay, as many of others, two rooms, and a subscriber.
    pub fn start(
        address: SocketAddr,
        ledger: &Arc<Ledger>,
        publishers: u32,
        retention: Retention,
        seed: u64,
    ) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let who = Arc::new(AtomicU32::new(Who::All as u32));
        let are_long = Arc::new(AtomicBool::new(false));
        let left = Arc::new(AtomicU32::new(u32::MAX));
        let mut threads = Vec::new();
        for publisher in (0..publishers).chain(MORTAL..MORTAL + publishers) {
            let (stop, who) = (Arc::clone(&stop), Arc::clone(&who));
            let (are_long, left) = (Arc::clone(&are_long), Arc::clone(&left));
            let rng = SimRng::new(seed + u64::from(publisher));
            let last = if publisher >= MORTAL { Who::Mortals } else { Who::All };
            let mut publisher = Publisher::new(address, ledger, publisher, rng);
            threads.push(thread::spawn(move || {
                let is_on = || who.load(Ordering::Relaxed) <= last as u32;
                go_on(is_on, &left, &stop, || {
                    publisher.step(last == Who::Mortals && are_long.load(Ordering::Relaxed))
                });
                publisher.finish();
            }));
        }
        for room in ROOMS_KNOWN_AGAIN {
            let (stop, who, left) = (Arc::clone(&stop), Arc::clone(&who), Arc::clone(&left));
            let mut room = Room::new(address, ledger, room, seed + u64::from(room));
            threads.push(thread::spawn(move || {
                let is_on = || who.load(Ordering::Relaxed) == Who::All as u32;
                go_on(is_on, &left, &stop, || room.step());
                room.finish();
            }));
        }
        let ledger = Arc::clone(ledger);
        let (stop_subscriber, told) = (Arc::clone(&stop), Arc::clone(&ledger));
        threads.push(thread::spawn(move || subscribe(address, &told, &stop_subscriber)));
        let mut load = Load { address, ledger, stop, who, are_long, left, threads };
        if retention == Retention::OfMortals {
            // The newest events alone of some topics stay, so that segments are rewritten and removed.
            let path = format!("/api/v1/topics/{MORTAL_TOPICS}/**");
            load.put(path, r#"{"retain":{"count":20}}"#.to_owned());
        }
        load
    }

    /// From now on the log itself keeps no more than so many bytes, whoever appends them.
    pub fn limit(&mut self, bytes: u64) {
        self.ledger.limit();
        let settings = format!(r#"{{"retain":{{"bytes":{bytes}}}}}"#);
        self.put("/api/v1/logs/main".to_owned(), settings);
    }

    fn put(&mut self, path: String, settings: String) {
        let (address, stop) = (self.address, Arc::clone(&self.stop));
        let put = move || put_until_set(address, &path, &settings, &stop);
        self.threads.push(thread::spawn(put));
    }

    /// Says who publishes from now on.
    pub fn let_publish(&self, who: Who) {
        self.who.store(who as u32, Ordering::Relaxed);
    }

    /// From now on mortal publishers append a quarter of a megabyte at a time, or as little as the others.
    pub fn lengthen(&self, are_long: bool) {
        self.are_long.store(are_long, Ordering::Relaxed);
    }

    /// From now on so many events are appended, or hardly more: a log grows by as much on a slow machine as on a fast one,
    /// however long others take for what they do meanwhile.
    pub fn allow(&self, events: u32) {
        self.left.store(events, Ordering::Relaxed);
    }

    /// Stops all and waits for them.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("a client has panicked");
        }
    }
}

/// Steps, each of which says how many events were appended, whenever it is its turn and some may be.
fn go_on(
    is_on: impl Fn() -> bool,
    left: &AtomicU32,
    stop: &AtomicBool,
    mut step: impl FnMut() -> u32,
) {
    while !stop.load(Ordering::Relaxed) {
        if !is_on() || left.load(Ordering::Relaxed) == 0 {
            thread::sleep(PAUSE);
            continue;
        }
        let events = step();
        let _ = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            Some(left.saturating_sub(events))
        });
    }
}

/// Reads everything from the beginning, and resumes behind the last event whenever it is cut.
fn subscribe(address: SocketAddr, ledger: &Ledger, stop: &AtomicBool) {
    let mut cursor = None;
    while !stop.load(Ordering::Relaxed) {
        // An error is a cut: the ledger knows what was seen before it.
        let _ = read_stream(address, ledger, &mut cursor, stop);
        thread::sleep(PAUSE);
    }
}

fn read_stream(
    address: SocketAddr,
    ledger: &Ledger,
    cursor: &mut Option<String>,
    stop: &AtomicBool,
) -> io::Result<()> {
    // What is let go by now is not sent any more.
    let gone = ledger.gone();
    let mut stream = connect(address)?;
    let resumes = match cursor {
        Some(cursor) => format!("Last-Event-ID: {cursor}\r\n"),
        None => String::new(),
    };
    // HTTP/1.0: the stream ends with the connection, and is not cut into chunks.
    write!(
        stream,
        "GET /api/v1/events/stream?from=earliest&heartbeat=1&compression=false HTTP/1.0\r\nHost: localhost\r\n{resumes}\r\n"
    )?;
    let mut lines = BufReader::new(stream);
    if Head::read(&mut lines)?.status != 200 {
        return Err(io::Error::other("refused"));
    }
    let (mut id, mut event, mut data) = (None, String::new(), String::new());
    let mut line = String::new();
    while !stop.load(Ordering::Relaxed) {
        line.clear();
        if lines.read_line(&mut line)? == 0 || !line.ends_with('\n') {
            return Ok(());
        }
        let text = line.trim_end_matches('\n');
        if let Some(value) = text.strip_prefix("id: ") {
            id = Some(value.to_owned());
        } else if let Some(value) = text.strip_prefix("event: ") {
            value.clone_into(&mut event);
        } else if let Some(value) = text.strip_prefix("data: ") {
            data.push_str(value);
        } else if text.is_empty() {
            take_event(ledger, &gone, cursor, id.take(), &event, &data);
            event.clear();
            data.clear();
        }
    }
    Ok(())
}

fn take_event(
    ledger: &Ledger,
    gone: &LetGo,
    cursor: &mut Option<String>,
    id: Option<String>,
    event: &str,
    data: &str,
) {
    let json: Value = serde_json::from_str(data).unwrap_or_default();
    match event {
        "" => {
            let offset = id.as_deref().and_then(|id| id.split('.').next()?.parse().ok());
            match (offset, EventName::of_data(&json)) {
                (Some(offset), Some(name)) => {
                    ledger.seen(offset, name);
                    if let Err(back) = ledger.check_gone(gone, &[(offset, name)]) {
                        ledger.break_off(format!("a subscriber was sent {back}"));
                    }
                }
                _ => ledger.break_off(format!("a subscriber was sent {id:?} {data:?}")),
            }
            *cursor = id;
        }
        "connection.established" | "connection.reset" if json["reason"] == "expired" => {
            match json["from"].as_u64() {
                Some(from) => ledger.passed_over(from),
                None => ledger.break_off(format!("a subscriber was told {data}")),
            }
        }
        "connection.established" if json["state"] == "reset" => {
            ledger.break_off(format!("a subscriber's cursor {cursor:?} was not believed: {data}"));
        }
        // Of what rooms have let go, by which it is passed over.
        "connection.reset" if json["reason"] == "deleted" => *cursor = id,
        "connection.reset" => ledger.break_off(format!("events were passed over: {data}")),
        _ => {}
    }
}

/// The first offset that the log keeps.
pub fn earliest(address: SocketAddr) -> io::Result<u64> {
    let settings: Value = serde_json::from_slice(&get(address, "/api/v1/logs/main", "*/*")?)?;
    Ok(settings["earliest"].as_u64().ok_or(io::ErrorKind::InvalidData)?)
}

/// All events from an offset to where the log ended when it was asked, with their offsets, and that end.
pub fn read_log(address: SocketAddr, from: u64) -> io::Result<(Vec<(u64, EventName)>, u64)> {
    let page = get(address, "/api/v1/events/history?limit=1", "application/json")?;
    let page: Value = serde_json::from_slice(&page)?;
    let end = page["durable"].as_u64().ok_or_else(|| io::Error::other("no durable offset"))?;
    let mut events = Vec::new();
    let mut next = from;
    while next < end {
        let target = format!("/api/v1/events/history?from={next}");
        let lines = get(address, &target, "application/x-ndjson")?;
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            let event: Value = serde_json::from_slice(line)?;
            let (offset, name) = (event["offset"].as_u64(), EventName::of_data(&event["data"]));
            let (Some(offset), Some(name)) = (offset, name) else {
                return Err(io::Error::other(format!("no event of ours: {event}")));
            };
            let id = (Way::of(name.publisher) == Way::Ids).then(|| name.to_string());
            if event["id"].as_str() != id.as_deref() {
                return Err(io::Error::other(format!("its id is not {id:?}: {event}")));
            }
            if offset < end {
                events.push((offset, name));
            }
            next = offset + 1;
        }
        // All that is left is gone, or cannot be read: which, whoever knows what was there can tell.
        if lines.is_empty() {
            break;
        }
    }
    Ok((events, end))
}

/// The body of a `GET` that is answered with 200.
pub fn get(address: SocketAddr, target: &str, accept: &str) -> io::Result<Vec<u8>> {
    let (status, body) = request(address, &format!("GET {target}"), accept, b"")?;
    if status == 200 {
        return Ok(body);
    }
    Err(io::Error::other(format!("{target}: {status} {}", String::from_utf8_lossy(&body))))
}

/// One request on a connection of its own: status and body.
pub fn request(
    address: SocketAddr,
    line: &str,
    accept: &str,
    body: &[u8],
) -> io::Result<(u16, Vec<u8>)> {
    request_with(address, line, accept, "", body)
}

/// The same with more fields in its head, a line each.
pub fn request_with(
    address: SocketAddr,
    line: &str,
    accept: &str,
    fields: &str,
    body: &[u8],
) -> io::Result<(u16, Vec<u8>)> {
    let mut stream = connect(address)?;
    write!(
        stream,
        "{line} HTTP/1.0\r\nHost: localhost\r\nAccept: {accept}\r\nContent-Type: application/json\r\n{fields}Content-Length: {}\r\n\r\n",
        body.len()
    )?;
    stream.write_all(body)?;
    let mut stream = BufReader::new(stream);
    let head = Head::read(&mut stream)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    match head.body_bytes() {
        Some(length) if length != answer.len() => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok((head.status, answer)),
    }
}

/// Connects to the server.
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The head of an answer.
#[derive(Debug)]
pub struct Head {
    pub status: u16,
    /// Names are in lower case.
    pub fields: Vec<(String, String)>,
}

impl Head {
    /// Reads one.
    pub fn read(stream: &mut impl BufRead) -> io::Result<Head> {
        let mut head = Head { status: 0, fields: Vec::new() };
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = line.trim_end();
            if line.is_empty() {
                return Ok(head);
            }
            if let Some((name, value)) = line.split_once(": ") {
                head.fields.push((name.to_ascii_lowercase(), value.to_owned()));
            } else if line.starts_with("HTTP/1.") {
                head.status =
                    line.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
            }
        }
    }

    /// The value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|field| field.0 == name).map(|field| &*field.1)
    }

    /// The same of a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.field(name)?.parse().ok()
    }

    /// How long the body is, if that is stated.
    pub fn body_bytes(&self) -> Option<usize> {
        self.field("content-length")?.parse().ok()
    }
}
