//! A server whose places are all taken: who is told what, at what cost, and for how long.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    num::NonZeroUsize,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use strandline::{
    config::ServerConfig, http::request::HEAD_BYTES_MAX, runtime::Driver, server::Server,
};

use crate::TestDir;
use crate::client::{
    ANSWER_PATIENCE, Stopping, append_request, connect, member, read, read_answer, read_to_end,
    start_without_deadline, wait_until,
};
use crate::patience::NEVER_MS;

const STREAM: &str = "GET /api/v1/events/stream?topic=a HTTP/1.1\r\nHost: localhost\r\n\r\n";
const LIVE: &str = "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn config(dir: &TestDir, shards: usize, connections_max: usize) -> ServerConfig {
    let mut config = dir.config(shards);
    config.limits.connections_max = NonZeroUsize::new(connections_max);
    // Nobody here is cut for what a busy machine takes to send.
    config.limits.refused_head_ms = NEVER_MS;
    config.limits.linger_ms = NEVER_MS;
    config
}

/// A subscriber that has a place.
fn subscribe(server: &Server) -> TcpStream {
    let mut stream = connect(server);
    stream.write_all(STREAM.as_bytes()).expect("sent");
    let mut came = Vec::new();
    while !came.windows(22).any(|window| window == b"connection.established") {
        let mut bytes = [0; 4096];
        let count = read(&mut stream, &mut bytes).expect("an event stream");
        assert!(count > 0, "refused: {:?}", String::from_utf8_lossy(&came));
        came.extend_from_slice(&bytes[..count]);
    }
    stream
}

/// What a client that finds no place is told, to the end.
fn told(server: &Server, request: &str) -> String {
    let mut stream = connect(server);
    stream.write_all(request.as_bytes()).expect("sent");
    read_to_end(&mut stream).expect("an answer, and a proper end")
}

fn is_stream_refusal(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 200 OK\r\n")
        && answer.contains("\r\nContent-Type: text/event-stream\r\n")
        && answer.contains("\nretry: ")
        && answer.contains("event: connection.closing\ndata: {\"code\":1013,")
}

/// Waits until a request is served in the usual way.
fn wait_for_a_place(server: &Server) -> TcpStream {
    let mut found = None;
    wait_until("the place is given back", || {
        let mut stream = connect(server);
        stream.write_all(STREAM.as_bytes()).expect("sent");
        let mut bytes = [0; 4096];
        let count = read(&mut stream, &mut bytes).expect("an answer");
        assert!(count > 0, "neither served nor refused");
        found = (!is_stream_refusal(&String::from_utf8_lossy(&bytes[..count]))).then_some(stream);
        found.is_some()
    });
    found.expect("it has waited for it")
}

/// API §4: "**Not now** is not an error to an `EventSource`, which gives up for ever at 503 or 429
/// (measured): where the request accepts `text/event-stream`, overload, drain and rate limits answer
/// `200`, `retry: <ms>`, `connection.closing`, end." §9: "503 with `Retry-After`".
#[test]
fn without_a_place_a_stream_is_told_to_come_back_and_the_rest_is_503() {
    let (best, _) = Driver::detect();
    for driver in [best, Driver::Epoll] {
        let dir = TestDir::new();
        let mut config = config(&dir, 1, 2);
        config.driver = Some(driver);
        config.cors_origins = vec!["https://app.example".to_owned()];
        let server = Server::start(config).expect("a server");
        let mut publisher = connect(&server);
        let mut rest = Vec::new();
        publisher.write_all(append_request("a", "1").as_bytes()).expect("sent");
        assert_eq!(read_answer(&mut publisher, &mut rest).0, 201);
        let subscriber = subscribe(&server);

        let stream = told(&server, STREAM);
        assert!(is_stream_refusal(&stream), "{stream}");
        assert!(stream.contains("\r\nConnection: close\r\n"), "{stream}");
        assert!(stream.ends_with("\n\n\r\n0\r\n\r\n"), "a proper end: {stream:?}");
        let old = told(&server, "GET /sse HTTP/1.0\r\nHost: localhost\r\n\r\n");
        assert!(is_stream_refusal(&old) && old.ends_with("}\n\n"), "{old}");
        let head = told(&server, "HEAD /sse HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
        let page =
            STREAM.replace("\r\n\r\n", "\r\nOrigin: https://app.example\r\nAccept: */*\r\n\r\n");
        let page = told(&server, &page);
        assert!(is_stream_refusal(&page), "{page}");
        assert!(page.contains("\r\nAccess-Control-Allow-Origin: https://app.example\r\n"));

        for request in [
            append_request("a", "2"),
            "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
            "GET /api/v1/events/history HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
            "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
                .to_owned(),
        ] {
            let answer = told(&server, &request);
            assert!(answer.starts_with("HTTP/1.1 503 "), "{request} {answer}");
            for part in [
                "\r\nRetry-After: 2\r\n",
                "\r\nContent-Type: application/problem+json\r\n",
                "\r\nConnection: close\r\n",
                "{\"type\":\"/problems/overloaded\",",
                "\"detail\":\"all 2 places for connections are taken\"",
            ] {
                assert!(answer.contains(part), "{part:?} of {answer}");
            }
        }

        // What needs no place, and what a place would not help.
        assert!(told(&server, LIVE).starts_with("HTTP/1.1 200 "));
        let ready = told(&server, "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert!(ready.starts_with("HTTP/1.1 200 "), "{ready}");
        assert!(ready.contains("\"connections\":{\"max\":2,\"open\":2}"), "{ready}");
        let options = told(&server, "OPTIONS /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert!(options.starts_with("HTTP/1.1 204 "), "{options}");
        assert!(told(&server, &LIVE.replace("livez", "nothing")).starts_with("HTTP/1.1 404 "));
        let other_form = STREAM.replace("\r\n\r\n", "\r\nAccept: application/json\r\n\r\n");
        assert!(told(&server, &other_form).starts_with("HTTP/1.1 406 "));
        assert!(told(&server, &STREAM.replace("topic", "topik")).starts_with("HTTP/1.1 400 "));
        assert!(told(&server, &LIVE.replace("localhost", "evil")).starts_with("HTTP/1.1 421 "));
        assert!(told(&server, "no request\r\n\r\n").starts_with("HTTP/1.1 400 "));

        // Who has a place is served as ever.
        publisher.write_all(append_request("a", "3").as_bytes()).expect("sent");
        assert_eq!(member(&read_answer(&mut publisher, &mut rest).1, "offset"), 1);
        drop(subscriber);
        wait_for_a_place(&server);
    }
}

/// API §2: "**Early refusal** answers at once, `Connection: close`, and drains the body".
#[test]
fn a_refusal_can_be_read_by_who_sends_a_body() {
    let dir = TestDir::new();
    let server = Server::start(config(&dir, 1, 1)).expect("a server");
    let _subscriber = subscribe(&server);
    let body = "x".repeat(3 << 20);
    // As an event it is too large anyway, as an array it might have a place.
    let event = append_request("a", &body);
    assert!(told(&server, &event).starts_with("HTTP/1.1 413 "));
    let answer = told(&server, &event.replace("/topics/a/events", "/events"));
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    let chunked = "POST /api/v1/topics/a/events HTTP/1.1\r\nHost: localhost\r\n\
        Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    assert!(told(&server, chunked).starts_with("HTTP/1.1 503 "));
    // In parts, as from far away: the second one comes after a look at the first.
    let (first, second) = STREAM.split_at(40);
    let mut stream = connect(&server);
    stream.write_all(first.as_bytes()).expect("sent");
    std::thread::sleep(Duration::from_millis(50));
    stream.write_all(second.as_bytes()).expect("sent");
    assert!(is_stream_refusal(&read_to_end(&mut stream).expect("an answer")));
}

/// "a bounded number of such connections at a time", "slow senders cut off by a deadline", "beyond even
/// that bound they wait in the kernel's backlog".
#[test]
fn who_is_slow_to_be_refused_is_cut_and_others_wait_no_longer_than_that() {
    let mut head = Duration::from_millis(500);
    // This thread may have to wait for its turn for longer: then whoever was to be quick was slow.
    while !who_is_slow_is_cut_and_a_third_waits(head) {
        head *= 4;
        assert!(head < ANSWER_PATIENCE, "all are slow");
    }
}

/// Whether all was sent before the deadline of who came first.
fn who_is_slow_is_cut_and_a_third_waits(head: Duration) -> bool {
    let dir = TestDir::new();
    let mut config = config(&dir, 1, 1);
    config.limits.refused_head_ms = u64::try_from(head.as_millis()).expect("short");
    config.limits.refusals_max = 2;
    let server = Server::start(config).expect("a server");
    let _subscriber = subscribe(&server);
    let began = Instant::now();
    let mut silent = connect(&server);
    let mut slow = connect(&server);
    let mut third = connect(&server);
    let are_sent = slow.write_all(b"GET / HTTP/1.1\r\nHost: loc").is_ok()
        && third.write_all(LIVE.as_bytes()).is_ok();
    if began.elapsed() >= head {
        return false;
    }
    assert!(are_sent, "nobody is cut yet");
    assert!(read_to_end(&mut third).expect("an answer").starts_with("HTTP/1.1 200 "));
    assert!(began.elapsed() >= head, "it waits: {:?}", began.elapsed());
    assert_eq!(read_to_end(&mut silent).expect("an end"), "");
    // It is closed with bytes that nobody read.
    assert!(
        read_to_end(&mut slow).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
    );
    true
}

/// A place that comes free is taken although others are being refused.
#[test]
fn who_is_being_refused_keeps_no_place() {
    let dir = TestDir::new();
    let mut config = config(&dir, 1, 1);
    config.limits.refusals_max = 2;
    let server = Server::start(config).expect("a server");
    let subscriber = subscribe(&server);
    let _silent = connect(&server);
    // Whoever comes behind it is told when it is being refused itself: else the place might be its own.
    assert!(is_stream_refusal(&told(&server, STREAM)));
    drop(subscriber);
    wait_for_a_place(&server);
}

/// Who sends a head byte by byte is cut after so many looks at it, long before the deadline.
#[test]
fn who_drips_a_head_is_cut_before_the_deadline() {
    let dir = TestDir::new();
    let server = Server::start(config(&dir, 1, 1)).expect("a server");
    let _subscriber = subscribe(&server);
    let mut drips = connect(&server);
    drips.set_nodelay(true).expect("set");
    // Much more than the looks at it, and less than what is cut for its length.
    let mut bytes = 0..HEAD_BYTES_MAX / 2;
    while drips.write_all(b"G").is_ok() {
        assert!(bytes.next().is_some(), "it may go on");
        std::thread::sleep(Duration::from_millis(7));
    }
}

#[test]
fn shards_share_the_places() {
    let dir = TestDir::new();
    let server = Server::start(config(&dir, 3, 12)).expect("a server");
    let mut held: Vec<TcpStream> = (0..12).map(|_| subscribe(&server)).collect();
    for _ in 0..12 {
        assert!(is_stream_refusal(&told(&server, STREAM)));
    }
    held.truncate(11);
    held.push(wait_for_a_place(&server));
}

#[test]
fn a_stop_does_not_wait_for_who_is_being_refused() {
    let dir = TestDir::new();
    let server = start_without_deadline(config(&dir, 2, 1));
    let subscriber = subscribe(&server);
    let waiting: Vec<TcpStream> = (0..20).map(|_| connect(&server)).collect();
    std::thread::sleep(Duration::from_millis(50));
    drop(subscriber);
    Stopping::begin(server).end();
    drop(waiting);
}

/// A server in a process of its own, whose memory and files can be counted.
pub struct Apart {
    pub process: Child,
    pub address: String,
    _dir: TestDir,
}

impl Apart {
    fn start(options: &[&str]) -> Self {
        Self::start_with(options, &[], Stdio::null())
    }

    /// The same in an environment with these variables; it tells what it does to `stderr`.
    pub fn start_with(options: &[&str], environment: &[(&str, &str)], stderr: Stdio) -> Self {
        let dir = TestDir::new();
        let mut process = Command::new(env!("CARGO_BIN_EXE_strandline"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(&dir.0)
            .args(options)
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .expect("the server's binary");
        let mut line = String::new();
        let said = process.stdout.take().expect("piped");
        BufReader::new(said).read_line(&mut line).expect("a line");
        let address = line.split("http://").nth(1).and_then(|rest| rest.split(' ').next());
        let address = address.expect("it says where it listens").to_owned();
        Apart { process, address, _dir: dir }
    }

    /// The files that it has open.
    fn files(&self) -> usize {
        let path = format!("/proc/{}/fd", self.process.id());
        fs::read_dir(&path).expect("it runs").count()
    }

    fn resident_kib(&self) -> u64 {
        let path = format!("/proc/{}/status", self.process.id());
        let status = fs::read_to_string(path).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).expect("a size")
    }

    /// So many clients, a hundred at a time, that each ask for a stream or append.
    fn refuse(&self, clients: usize) {
        for _ in 0..clients / 100 {
            let connected = (0..100).map(|number| {
                let mut stream = TcpStream::connect(&self.address).expect("it listens");
                let request =
                    if number % 2 == 0 { STREAM.to_owned() } else { append_request("a", "1") };
                stream.write_all(request.as_bytes()).expect("sent");
                stream
            });
            let connected: Vec<TcpStream> = connected.collect();
            for (number, mut stream) in connected.into_iter().enumerate() {
                let answer = read_to_end(&mut stream).expect("an answer");
                let is_refused = match number % 2 {
                    0 => is_stream_refusal(&answer),
                    _ => answer.starts_with("HTTP/1.1 503 "),
                };
                assert!(is_refused, "{answer}");
            }
        }
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A request for which there is no place is read into a buffer that all share, and refused.
#[test]
fn refusals_leave_neither_files_nor_memory_behind() {
    let server = Apart::start(&["--shards", "1", "--connections-max", "1"]);
    let mut subscriber = TcpStream::connect(&server.address).expect("it listens");
    subscriber.write_all(STREAM.as_bytes()).expect("sent");
    assert!(subscriber.read(&mut [0; 512]).expect("a head") > 0);
    let files = server.files();
    // A client may read the end of an answer before the server closes the socket.
    let closes_all = || wait_until("all are closed", || server.files() <= files);
    server.refuse(2_000);
    closes_all();
    let kib = server.resident_kib();
    server.refuse(20_000);
    closes_all();
    let grown = server.resident_kib().saturating_sub(kib);
    assert!(grown < 512, "{grown} KiB after 20,000 refusals");
}
