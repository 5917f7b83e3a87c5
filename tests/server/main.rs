//! The server in this process, spoken to in bytes: pipelining, bodies, deadlines, shards, start and stop.

mod bodies;
mod client;
mod deadlines;
#[path = "../common/patience.rs"]
mod patience;
mod places;
mod untold;

use std::{
    fs,
    io::Write,
    num::NonZeroUsize,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
};

use client::{
    Stopping, append, append_request, connect, get, member, read, read_answer, read_to_end,
    start_without_deadline, wait_until,
};
use strandline::{
    config::{ListenAddress, ServerConfig},
    runtime::Driver,
    server::{Server, StartError},
};

/// A directory that goes with the test.
struct TestDir(PathBuf);

impl TestDir {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("strandline-server-{}-{number}", std::process::id());
        TestDir(std::env::temp_dir().join(name))
    }

    fn config(&self, shards: usize) -> ServerConfig {
        let listen = ListenAddress::parse("127.0.0.1:0").expect("an address");
        let mut config = ServerConfig::new(listen, &self.0);
        config.shards = NonZeroUsize::new(shards).expect("a shard");
        config.is_pinned = false;
        config.log.segment_bytes = 4 << 20;
        config
    }

    fn start(&self, shards: usize) -> Server {
        Server::start(self.config(shards)).expect("a server")
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// "Many requests in one read are parsed together, their answers leave in order."
#[test]
fn pipelined_requests_are_answered_in_order() {
    for shards in [1, 2] {
        let dir = TestDir::new();
        let server = dir.start(shards);
        let mut stream = connect(&server);
        let mut requests = String::new();
        for number in 0..300 {
            requests.push_str(&append_request("a", &number.to_string()));
            if number % 100 == 50 {
                requests.push_str("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n");
            }
        }
        stream.write_all(requests.as_bytes()).expect("sent");
        let (mut rest, mut offsets) = (Vec::new(), Vec::new());
        for number in 0..300 {
            let (status, body) = read_answer(&mut stream, &mut rest);
            assert_eq!(status, 201, "{body}");
            offsets.push(member(&body, "offset"));
            if number % 100 == 50 {
                assert_eq!(read_answer(&mut stream, &mut rest).0, 200);
            }
        }
        assert!(offsets.iter().copied().eq(0..300), "{offsets:?}");
        server.stop().expect("stopped");
    }
}

/// "Who got an acknowledgement finds the event everywhere", and nothing of what was asked for later.
#[test]
fn what_is_read_behind_an_append_has_it_and_nothing_that_stands_behind() {
    for (shards, driver) in
        [(1, None), (2, None), (1, Some(Driver::Epoll)), (2, Some(Driver::Epoll))]
    {
        let dir = TestDir::new();
        let mut config = dir.config(shards);
        config.driver = driver;
        let server = Server::start(config).expect("a server");
        let mut stream = connect(&server);
        let mut rest = Vec::new();
        for round in 0..20 {
            let targets = [
                "/api/v1/events/history?topic=a&order=desc&limit=1",
                "/api/v1/topics/a",
                "/api/v1/topics",
                "/api/v1/logs/main",
                "/readyz",
            ];
            let gets =
                targets.map(|target| format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
            // The page stands first too: then nothing else waits before it. Both appends could become
            // readable with one write.
            let requests =
                append_request("a", "1") + &gets[0] + &append_request("a", "2") + &gets.concat();
            stream.write_all(requests.as_bytes()).expect("sent");
            let mut answer = |place: &str| {
                let body = read_answer(&mut stream, &mut rest).1;
                let value: serde_json::Value = serde_json::from_str(&body).expect("JSON");
                value.pointer(place).and_then(serde_json::Value::as_u64).expect(&body)
            };
            let first = round * 2;
            assert_eq!(answer("/offset"), first);
            assert_eq!(answer("/events/0/offset"), first, "the page behind the first");
            assert_eq!(answer("/offset"), first + 1);
            assert_eq!(answer("/events/0/offset"), first + 1, "the page behind both");
            assert_eq!(answer("/last"), first + 1);
            assert_eq!(answer("/topics/0/last"), first + 1);
            assert_eq!(answer("/durable"), first + 2);
            assert_eq!(answer("/durable"), first + 2);
        }
    }
}

/// An append that waits for an answer which its client never takes ends with it, and is not begun.
#[test]
fn an_append_behind_what_is_not_taken_ends_with_its_connection() {
    for driver in [None, Some(Driver::Epoll)] {
        let dir = TestDir::new();
        let mut config = dir.config(2);
        config.driver = driver;
        config.limits.send_stall_ms = 300;
        let server = Server::start(config).expect("a server");
        let large = "x".repeat(1 << 20);
        for _ in 0..48 {
            append(&server, "large", &large);
        }
        let mut stream = connect(&server);
        let lines = "GET /api/v1/events/history?topic=large HTTP/1.1\r\nHost: localhost\r\n\
                     Accept: application/x-ndjson\r\n\r\n";
        stream.write_all((lines.to_owned() + &append_request("a", "1")).as_bytes()).expect("sent");
        // Only who has been begun with can be cut: one connection is open before the server knows of this one, too.
        let mut bytes = [0; 64 * 1024];
        let mut came = read(&mut stream, &mut bytes[..1]).expect("the answer begins");
        wait_until("it is cut", || {
            let ready: serde_json::Value =
                serde_json::from_str(&get(&server, "/readyz").1).expect("JSON");
            ready["connections"]["open"] == 1
        });
        // What the kernel has of the answer is still there to be read, and then the end.
        while let Ok(count @ 1..) = read(&mut stream, &mut bytes) {
            came += count;
        }
        assert!(came < 48 << 20, "the answer was cut, and not followed by another");
        assert_eq!(get(&server, "/api/v1/topics/a").0, 404, "it has never been begun");
        server.stop().expect("stopped");
    }
}

/// ... and whoever asks elsewhere, once it is acknowledged.
#[test]
fn an_acknowledged_event_is_found_on_every_shard() {
    let dir = TestDir::new();
    let server = dir.start(2);
    for number in 0..60 {
        let offset = append(&server, "a", &number.to_string());
        // A connection of its own: the kernel picks the shard.
        let (status, body) = get(&server, &format!("/api/v1/events/history?from={offset}"));
        assert_eq!(status, 200);
        assert!(body.contains(&format!("\"offset\":{offset},")), "{offset} is not in {body}");
    }
}

/// SIGTERM without the signal: idle connections and streams do not hold up the end, nothing is lost,
/// and the address is free at once.
#[test]
fn a_stop_ends_everything_and_a_start_goes_on() {
    let dir = TestDir::new();
    let server = start_without_deadline(dir.config(2));
    let first_tag = server.tag();
    let idle = connect(&server);
    let mut watching = connect(&server);
    watching
        .write_all(b"GET /sse?from=earliest HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .expect("sent");
    for number in 0..20 {
        append(&server, "a", &number.to_string());
    }
    let mut seen = String::new();
    while !seen.contains("data: 19\n") {
        let mut bytes = [0; 4096];
        let count = read(&mut watching, &mut bytes).expect("events");
        seen.push_str(std::str::from_utf8(&bytes[..count]).expect("text"));
    }
    let address = server.address();
    Stopping::begin(server).end();
    seen.push_str(&read_to_end(&mut watching).expect("a proper end"));
    assert!(seen.contains("connection.closing"), "{seen}");
    drop(idle);

    let mut config = dir.config(1);
    config.listen = ListenAddress::parse(&address.to_string()).expect("an address");
    let server = Server::start(config).expect("the address is free, and so is the directory");
    assert_eq!(server.tag(), first_tag, "a clean end keeps the history");
    assert_eq!(append(&server, "a", "more"), 20);
}

#[test]
fn a_second_server_is_told_what_is_in_use() {
    let dir = TestDir::new();
    let server = dir.start(1);
    let mut config = TestDir::new().config(1);
    config.listen = ListenAddress::parse(&server.address().to_string()).expect("an address");
    let error = Server::start(config).expect_err("the address is in use");
    assert!(matches!(error, StartError::Claim(_)), "{error}");
    assert!(error.to_string().contains("is in use"), "{error}");
    let error = Server::start(dir.config(1)).expect_err("the directory is in use");
    assert!(matches!(error, StartError::Open(_)), "{error}");
    assert!(error.to_string().contains("in use by another process"), "{error}");
}

/// Where io_uring is refused, everything works by epoll and disk threads.
#[test]
fn the_epoll_driver_serves_too() {
    let dir = TestDir::new();
    let mut config = dir.config(2);
    config.driver = Some(Driver::Epoll);
    let server = Server::start(config).expect("a server");
    for number in 0..50 {
        assert_eq!(append(&server, "a", &number.to_string()), number);
    }
    let (status, body) = get(&server, "/api/v1/events/history?order=desc&limit=2");
    assert_eq!(status, 200);
    assert!(body.contains("\"offset\":49,"), "{body}");
    server.stop().expect("stopped");
    assert_eq!(append(&dir.start(1), "a", "more"), 50);
}
