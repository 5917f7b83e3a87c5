//! Clients as plain as can be: requests as text, answers as status and body.

use std::{
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::mpsc,
    thread,
    time::Duration,
};

use strandline::{config::ServerConfig, server::Server};

use crate::patience::{self, LOOK, NEVER_MS, Patience};

/// Nothing takes longer than this unless something hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// No answer does.
pub const ANSWER_PATIENCE: Duration = Duration::from_secs(20);

/// A server that a stop does not end before all connections have ended by themselves, or by what was told to them.
pub fn start_without_deadline(mut config: ServerConfig) -> Server {
    config.limits.drain_ms = NEVER_MS;
    Server::start(config).expect("a server")
}

/// A stop that has begun.
pub struct Stopping(mpsc::Receiver<io::Result<()>>);

impl Stopping {
    pub fn begin(server: Server) -> Stopping {
        let (ended, end) = mpsc::channel();
        thread::spawn(move || ended.send(server.stop()));
        Stopping(end)
    }

    /// Waits for its end.
    pub fn end(self) {
        let patience = Patience::new(PATIENCE);
        let ended = loop {
            match self.0.recv_timeout(LOOK) {
                Err(mpsc::RecvTimeoutError::Timeout) if !patience.is_over() => {}
                ended => break ended,
            }
        };
        ended.expect("nothing holds it").expect("in order");
    }
}

pub fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.address()).expect("it listens");
    stream.set_read_timeout(Some(LOOK)).expect("a timeout");
    stream
}

pub fn append_request(topic: &str, data: &str) -> String {
    format!(
        "POST /api/v1/topics/{topic}/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{data}",
        data.len()
    )
}

/// Waits until something is so.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let patience = Patience::new(PATIENCE);
    while !is_so() {
        assert!(!patience.is_over(), "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// What the kernel has of the server's end of a connection (proc(5), `/proc/net/tcp`), by columns.
pub fn server_end(stream: &TcpStream) -> Option<Vec<String>> {
    end_of([stream.peer_addr().expect("bound"), stream.local_addr().expect("bound")])
}

/// The same of our own end.
fn own_end(stream: &TcpStream) -> Option<Vec<String>> {
    end_of([stream.local_addr().expect("bound"), stream.peer_addr().expect("bound")])
}

fn end_of(addresses: [SocketAddr; 2]) -> Option<Vec<String>> {
    let sockets = fs::read_to_string("/proc/net/tcp").expect("the kernel's table");
    let ends = addresses.map(|address| format!(":{:04X}", address.port()));
    let mut lines =
        sockets.lines().map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    lines.find(|columns| columns[1].ends_with(&ends[0]) && columns[2].ends_with(&ends[1]))
}

/// Waits until the server has taken all that was sent: first nothing is on its way any more, then nothing is left there.
pub fn wait_until_taken(stream: &TcpStream) {
    wait_until("it leaves", || {
        own_end(stream).is_some_and(|columns| columns[4].starts_with("00000000:"))
    });
    wait_until("it reads", || {
        server_end(stream).is_some_and(|columns| columns[4].ends_with(":00000000"))
    });
}

/// Reads once.
pub fn read(stream: &mut TcpStream, bytes: &mut [u8]) -> io::Result<usize> {
    patience::read(stream, bytes, ANSWER_PATIENCE)
}

/// Whether something comes, which is still there to be read, or the server has cut this; one of both has to be.
pub fn is_answered(stream: &TcpStream) -> bool {
    struct Peek<'a>(&'a TcpStream);
    impl Read for Peek<'_> {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            self.0.peek(bytes)
        }
    }
    match patience::read(&mut Peek(stream), &mut [0], ANSWER_PATIENCE) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => panic!("neither is so: {error}"),
        outcome => outcome.is_ok_and(|count| count > 0),
    }
}

/// All that comes until the server closes.
pub fn read_to_end(stream: &mut TcpStream) -> io::Result<String> {
    let came = patience::read_to_end(stream, ANSWER_PATIENCE)?;
    Ok(String::from_utf8(came).expect("text"))
}

/// One answer: status and body.
pub fn read_answer(stream: &mut TcpStream, rest: &mut Vec<u8>) -> (u16, String) {
    let mut more = |rest: &mut Vec<u8>| {
        let mut bytes = [0; 16 * 1024];
        let count = read(stream, &mut bytes).expect("an answer");
        assert!(count > 0, "cut after {:?}", String::from_utf8_lossy(rest));
        rest.extend_from_slice(&bytes[..count]);
    };
    let head_end = loop {
        if let Some(at) = rest.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        more(rest);
    };
    let head = String::from_utf8(rest[..head_end].to_vec()).expect("a head is text");
    let status = head[9..12].parse().expect("a status");
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.parse::<usize>().expect("a length"))
    });
    let end = head_end + length.unwrap_or(0);
    while rest.len() < end {
        more(rest);
    }
    let body = String::from_utf8(rest[head_end..end].to_vec()).expect("text");
    rest.drain(..end);
    (status, body)
}

pub fn ask(server: &Server, request: &str) -> (u16, String) {
    let mut stream = connect(server);
    stream.write_all(request.as_bytes()).expect("sent");
    read_answer(&mut stream, &mut Vec::new())
}

pub fn get(server: &Server, path: &str) -> (u16, String) {
    ask(server, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
}

pub fn append(server: &Server, topic: &str, data: &str) -> u64 {
    let (status, body) = ask(server, &append_request(topic, data));
    assert_eq!(status, 201, "{body}");
    member(&body, "offset")
}

pub fn member(body: &str, name: &str) -> u64 {
    let value: serde_json::Value = serde_json::from_str(body).expect("JSON");
    value[name].as_u64().unwrap_or_else(|| panic!("no {name} in {body}"))
}
