//! How long the server waits for a head, and for the next request.

use std::{
    io::{Read, Write},
    time::{Duration, Instant},
};

use strandline::server::Server;

use crate::TestDir;
use crate::client::{
    Stopping, append, append_request, connect, read, read_answer, start_without_deadline,
    wait_until_taken,
};

/// "10 s for a head": a slow one gets 408, and delays nobody else.
#[test]
fn a_slow_head_is_given_up() {
    let dir = TestDir::new();
    let mut config = dir.config(1);
    config.limits.head_ms = 400;
    let server = Server::start(config).expect("a server");
    let began = Instant::now();
    let mut slow = connect(&server);
    slow.write_all(b"GET /livez HT").expect("sent");
    append(&server, "a", "meanwhile");
    let (status, _) = read_answer(&mut slow, &mut Vec::new());
    assert_eq!(status, 408);
    assert!(began.elapsed() >= Duration::from_millis(300), "not before its time");
}

/// A head of which the rest does not come holds no drain: nothing was promised to it.
#[test]
fn half_a_head_does_not_hold_a_drain() {
    let dir = TestDir::new();
    let mut config = dir.config(1);
    config.limits.drain_head_ms = 4_000;
    let server = start_without_deadline(config);
    let mut half = connect(&server);
    half.write_all(b"GET /livez HTTP/1.1\r\nHost: lo").expect("sent");
    let mut in_time = connect(&server);
    in_time.write_all(b"GET /livez HTTP/1.1\r\nHost: lo").expect("sent");
    wait_until_taken(&half);
    wait_until_taken(&in_time);
    let stopping = Stopping::begin(server);
    std::thread::sleep(Duration::from_millis(100));
    in_time.write_all(b"calhost\r\n\r\n").expect("sent");
    assert_eq!(read_answer(&mut in_time, &mut Vec::new()).0, 200);
    drop(in_time);
    assert_eq!(half.read_to_end(&mut Vec::new()).expect("a proper end"), 0, "no answer");
    drop(half);
    stopping.end();
}

/// "429 and 503 with `Retry-After`": that is also what a server says that stops, asked whether it is ready.
#[test]
fn who_asks_a_server_that_stops_whether_it_is_ready_is_told_when_to_ask_again() {
    let dir = TestDir::new();
    let mut config = dir.config(1);
    config.limits.drain_head_ms = 6_000;
    let server = Server::start(config).expect("a server");
    let asking = ["/readyz", "/healthz"].map(|path| {
        let mut stream = connect(&server);
        let half = format!("GET {path} HTTP/1.1\r\nHost: lo");
        stream.write_all(half.as_bytes()).expect("sent");
        wait_until_taken(&stream);
        stream
    });
    let mut idle = connect(&server);
    idle.write_all(append_request("a", "1").as_bytes()).expect("sent");
    assert_eq!(read_answer(&mut idle, &mut Vec::new()).0, 201);
    let stopping = std::thread::spawn(move || server.stop());
    assert_eq!(read(&mut idle, &mut [0]).expect("a proper end"), 0, "it stops");
    for mut stream in asking {
        stream.write_all(b"calhost\r\n\r\n").expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("text");
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        let has_field = answer.lines().any(|line| line.starts_with("Retry-After: "));
        assert!(has_field, "{answer}");
    }
    stopping.join().expect("no panic").expect("in order");
}

/// An idle connection is closed without a word, and not before its time; one that asks now and then, or waits for
/// its answer, is not idle.
#[test]
fn an_idle_connection_is_closed() {
    let dir = TestDir::new();
    let mut config = dir.config(1);
    let idle = Duration::from_millis(500);
    config.limits.idle_ms = 500;
    config.limits.linger_ms = 100;
    let server = Server::start(config).expect("a server");
    // More than the kernel takes for who does not read.
    let data = "x".repeat(1_000_000);
    for _ in 0..10 {
        append(&server, "large", &data);
    }
    let mut waiting = connect(&server);
    waiting
        .write_all(b"GET /api/v1/events/history?topic=large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .expect("sent");
    let (mut stream, mut asked) = (connect(&server), Instant::now());
    // Longer than it may idle, so that its timer rings in between.
    let (mut began, mut late) = (asked, 0);
    while began.elapsed() < 2 * idle {
        if asked.elapsed() > idle / 2 {
            // This thread had to wait for its turn: it cannot say what the server has made of that.
            (stream, began) = (connect(&server), Instant::now());
            late += 1;
            assert!(late < 50, "each answer comes late");
        }
        asked = Instant::now();
        stream.write_all(append_request("a", "1").as_bytes()).expect("sent");
        assert_eq!(read_answer(&mut stream, &mut Vec::new()).0, 201);
        std::thread::sleep(Duration::from_millis(10));
    }
    // `read_to_end` goes on when the rings of this process signal its threads.
    assert_eq!(stream.read_to_end(&mut Vec::new()).expect("a proper end"), 0);
    // Its clock is coarse.
    assert!(asked.elapsed() >= idle * 9 / 10, "not before its time: {:?}", asked.elapsed());
    waiting.write_all(append_request("a", "1").as_bytes()).expect("sent");
    let mut rest = Vec::new();
    assert_eq!([(); 2].map(|()| read_answer(&mut waiting, &mut rest).0), [200, 201]);
    assert_eq!(waiting.read_to_end(&mut Vec::new()).expect("a proper end"), 0);
}
