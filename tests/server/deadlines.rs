//! How long the server waits for a head, and for the next request.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use strandline::server::Server;

use crate::TestDir;
use crate::client::{
    ANSWER_PATIENCE, Stopping, append, append_request, connect, is_answered, read, read_answer,
    read_to_end, start_without_deadline, wait_until_taken,
};
use crate::patience::NEVER_MS;

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
    let mut drain_head = Duration::from_secs(8);
    // This thread may have to wait for its turn for longer than it has, and then nobody was in time.
    while !half_a_head_ends_and_a_whole_one_is_answered(drain_head) {
        drain_head *= 2;
        assert!(drain_head < ANSWER_PATIENCE, "each is cut as late");
    }
}

/// Whether the whole one was there in time.
fn half_a_head_ends_and_a_whole_one_is_answered(drain_head: Duration) -> bool {
    let dir = TestDir::new();
    let mut config = dir.config(1);
    config.limits.head_ms = NEVER_MS;
    config.limits.drain_head_ms = u64::try_from(drain_head.as_millis()).expect("short");
    let server = start_without_deadline(config);
    let mut half = connect(&server);
    half.write_all(b"GET /livez HTTP/1.1\r\nHost: lo").expect("sent");
    let mut in_time = connect(&server);
    in_time.write_all(b"GET /livez HTTP/1.1\r\nHost: lo").expect("sent");
    wait_until_taken(&half);
    wait_until_taken(&in_time);
    let began = Instant::now();
    let stopping = Stopping::begin(server);
    std::thread::sleep(Duration::from_millis(100));
    let sent = in_time.write_all(b"calhost\r\n\r\n");
    let sent_after = began.elapsed();
    let answer = sent.and_then(|()| read_to_end(&mut in_time)).unwrap_or_default();
    let is_late = answer.is_empty() && sent_after >= drain_head / 2;
    assert!(
        is_late || answer.starts_with("HTTP/1.1 200 "),
        "{answer:?}, sent after {sent_after:?}"
    );
    drop(in_time);
    assert_eq!(read_to_end(&mut half).expect("a proper end"), "", "no answer");
    drop(half);
    stopping.end();
    !is_late
}

/// "429 and 503 with `Retry-After`": that is also what a server says that stops, asked whether it is ready.
#[test]
fn who_asks_a_server_that_stops_whether_it_is_ready_is_told_when_to_ask_again() {
    let dir = TestDir::new();
    let mut config = dir.config(1);
    config.limits.head_ms = NEVER_MS;
    config.limits.drain_head_ms = NEVER_MS;
    let server = start_without_deadline(config);
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
    let stopping = Stopping::begin(server);
    assert_eq!(read(&mut idle, &mut [0]).expect("a proper end"), 0, "it stops");
    for mut stream in asking {
        stream.write_all(b"calhost\r\n\r\n").expect("sent");
        let answer = read_to_end(&mut stream).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        let has_field = answer.lines().any(|line| line.starts_with("Retry-After: "));
        assert!(has_field, "{answer}");
    }
    stopping.end();
}

/// An idle connection is closed without a word, and not before its time; one that asks now and then, or waits for
/// its answer, is not idle.
#[test]
fn an_idle_connection_is_closed() {
    let dir = TestDir::new();
    let server = dir.start(1);
    // More than the kernel takes for who does not read.
    let data = "x".repeat(1_000_000);
    for _ in 0..10 {
        append(&server, "large", &data);
    }
    server.stop().expect("stopped");
    let mut config = dir.config(1);
    let idle = Duration::from_millis(500);
    config.limits.idle_ms = 500;
    config.limits.linger_ms = 100;
    config.limits.send_stall_ms = NEVER_MS;
    let server = Server::start(config).expect("a server");
    // Its clock is coarse.
    let is_over = |since: Instant| since.elapsed() >= idle * 9 / 10;
    let mut late = 0;
    // Whoever is cut all the same had to wait too long for its turn to say something.
    let mut was_cut = |since, silent: Duration| {
        assert!(is_over(since), "not before its time: {:?}", since.elapsed());
        assert!(silent >= idle / 2, "it has asked in time, after {silent:?}");
        late += 1;
        assert!(late < 50, "each comes late");
    };
    let mut waiting = loop {
        let since = Instant::now();
        let mut stream = connect(&server);
        let page = "GET /api/v1/events/history?topic=large HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let is_sent = stream.write_all(page.as_bytes()).is_ok();
        let silent = since.elapsed();
        if is_sent && is_answered(&stream) {
            break stream;
        }
        was_cut(since, silent);
    };
    let mut since = Instant::now();
    let mut stream = connect(&server);
    // Longer than it may idle, so that its timer rings in between.
    let mut began = since;
    while began.elapsed() < 2 * idle {
        let asked = Instant::now();
        let is_sent = stream.write_all(append_request("a", "1").as_bytes()).is_ok();
        let silent = since.elapsed();
        if is_sent && is_answered(&stream) {
            since = asked;
            assert_eq!(read_answer(&mut stream, &mut Vec::new()).0, 201);
            std::thread::sleep(Duration::from_millis(10));
        } else {
            was_cut(since, silent);
            since = Instant::now();
            (stream, began) = (connect(&server), since);
        }
    }
    assert_eq!(read_to_end(&mut stream).expect("a proper end"), "");
    assert!(is_over(since), "not before its time: {:?}", since.elapsed());
    waiting.write_all(append_request("a", "1").as_bytes()).expect("sent");
    let mut rest = Vec::new();
    assert_eq!([(); 2].map(|()| read_answer(&mut waiting, &mut rest).0), [200, 201]);
    assert_eq!(read_to_end(&mut waiting).expect("a proper end"), "");
}
