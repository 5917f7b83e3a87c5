//! Bodies: what is asked for, refused, cut, and appended while it comes.

use std::{io::Write, net::TcpStream, time::Duration};

use strandline::server::Server;

use crate::TestDir;
use crate::client::{
    Stopping, append, ask, connect, get, member, read_answer, read_to_end, server_end,
    start_without_deadline, wait_until,
};
use crate::patience::NEVER_MS;

/// "`100 Continue` only once the head is accepted."
#[test]
fn a_body_that_waits_is_asked_for_only_if_it_is_wanted() {
    let dir = TestDir::new();
    let server = dir.start(1);
    let mut stream = connect(&server);
    let head =
        "POST /api/v1/topics/a/events HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n";
    write!(stream, "{head}Content-Length: 5\r\n\r\n").expect("sent");
    let mut rest = Vec::new();
    assert_eq!(read_answer(&mut stream, &mut rest).0, 100);
    stream.write_all(b"hello").expect("sent");
    assert_eq!(read_answer(&mut stream, &mut rest).0, 201);
    write!(stream, "{head}Content-Length: 9999999\r\n\r\n").expect("sent");
    assert_eq!(read_answer(&mut stream, &mut rest).0, 413);
}

/// "Early refusal answers at once, and drains the body for up to 2 s so that the client can read it."
#[test]
fn a_refusal_can_be_read_by_who_is_still_sending() {
    let dir = TestDir::new();
    let mut config = dir.config(1);
    // However long this takes to send it on a busy machine.
    config.limits.linger_ms = NEVER_MS;
    let server = Server::start(config).expect("a server");
    let mut stream = connect(&server);
    let bytes = 3 << 20;
    write!(
        stream,
        "POST /api/v1/topics/a/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: {bytes}\r\n\r\n"
    )
    .expect("sent");
    stream.write_all(&vec![b'x'; bytes]).expect("everything is taken");
    let (status, body) = read_answer(&mut stream, &mut Vec::new());
    assert_eq!(status, 413, "{body}");
    assert_eq!(read_to_end(&mut stream).expect("a proper end"), "");
}

/// "A body cut short appends nothing", and whoever can still read is told so.
#[test]
fn a_body_that_is_cut_appends_nothing() {
    let dir = TestDir::new();
    let server = dir.start(1);
    let cut = |request: &str| {
        let mut stream = connect(&server);
        stream.write_all(request.as_bytes()).expect("sent");
        stream.shutdown(std::net::Shutdown::Write).expect("cut");
        let (status, body) = read_answer(&mut stream, &mut Vec::new());
        assert!(status == 400 && body.contains("\"/problems/invalid-body\""), "{body}");
        assert_eq!(read_to_end(&mut stream).expect("a proper end"), "");
        body
    };
    for request in [
        "POST /api/v1/topics/a/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhello",
        "POST /api/v1/topics/a/events HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "PUT /api/v1/topics/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{",
    ] {
        cut(request);
    }
    assert_eq!(append(&server, "a", "whole"), 0);
    let body = cut(&(LINES.to_owned() + "5\r\n1\n2\n3\r\n"));
    assert_eq!(
        (member(&body, "line"), member(&body, "appended"), member(&body, "last")),
        (3, 2, 2)
    );
    assert_eq!(append(&server, "a", "whole"), 3);
}

/// The head of an append of lines in chunks.
const LINES: &str = "POST /api/v1/topics/a/events HTTP/1.1\r\nHost: localhost\r\n\
                     Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n";

/// "lines .. any length, streamed": between lines a client may be silent as long as it likes, and is asked
/// whether it is there; inside one it may not, wherever the chunks begin and end.
#[test]
fn lines_come_when_there_is_something_to_tell() {
    let dir = TestDir::new();
    let mut config = dir.config(1);
    config.limits.body_stall_ms = 200;
    let server = start_without_deadline(config);
    let silence = Duration::from_millis(900);
    let sized = LINES.replace("Transfer-Encoding: chunked", "Content-Length: 4");
    for (head, parts, last) in [
        (LINES, &["", "2\r\n1\n\r\n", "2\r\n2\n\r\n0\r\n\r\n"][..], 1),
        (LINES, &["4\r\n1\n", "2\n\r\n0\r\n\r\n"], 3),
        (LINES, &["1\r\n1\r\n3\r\n\n2\n", "\r\n", "0\r\n\r\n"], 5),
        (sized.as_str(), &["1\n", "2\n"], 7),
    ] {
        let mut stream = connect(&server);
        let mut answer = Vec::new();
        stream.write_all(head.as_bytes()).expect("sent");
        for part in parts {
            stream.write_all(part.as_bytes()).expect("sent");
            std::thread::sleep(silence);
            if *part == parts[0] {
                wait_until("it is asked whether it is there", || is_probed(&stream));
            }
        }
        let (status, body) = read_answer(&mut stream, &mut answer);
        assert_eq!((status, member(&body, "last")), (201, last), "{parts:?}: {body}");
    }
    for (parts, line) in [("3\r\n1\n2\r\n", 2), ("1\r\n1\r\n", 1), ("3\r\n1\n \r\n", 2)] {
        let mut stream = connect(&server);
        stream.write_all((LINES.to_owned() + parts).as_bytes()).expect("sent");
        let (status, body) = read_answer(&mut stream, &mut Vec::new());
        assert_eq!((status, member(&body, "line")), (408, line), "{parts:?}: {body}");
    }
    let mut silent = connect(&server);
    let appended = || member(&get(&server, "/api/v1/topics/a").1, "count");
    let before = appended();
    silent.write_all((LINES.to_owned() + "2\r\n1\n\r\n").as_bytes()).expect("sent");
    wait_until("its line is appended", || appended() > before);
    std::thread::sleep(silence);
    let stopping = Stopping::begin(server);
    let (status, body) = read_answer(&mut silent, &mut Vec::new());
    assert_eq!((status, member(&body, "appended")), (503, 1), "{body}");
    drop(silent);
    stopping.end();
}

/// "with `line`, `appended`, `duplicates`, `last`": also where it is no line that fails but how the body is framed, and
/// whatever came with the same read.
#[test]
fn lines_before_a_chunk_that_is_none_are_appended() {
    let dir = TestDir::new();
    let server = dir.start(1);
    for (parts, line) in
        [("2\r\n1\n\r\n2\r\n2\n\r\nx\r\n", 3), ("3\r\n1\n2\r\nx\r\n", 2), ("x\r\n", 1)]
    {
        let mut stream = connect(&server);
        stream.write_all((LINES.to_owned() + parts).as_bytes()).expect("sent");
        let (status, body) = read_answer(&mut stream, &mut Vec::new());
        let told = (status, member(&body, "line"), member(&body, "appended"));
        assert_eq!(told, (400, line, line - 1), "{parts:?}: {body}");
    }
    let (_, topic) = get(&server, "/api/v1/topics/a");
    assert_eq!(member(&topic, "count"), 3, "{topic}");
}

/// Whether the kernel has a timer for the server's end of this connection (proc(5): a 2 in `tr`).
fn is_probed(stream: &TcpStream) -> bool {
    server_end(stream).is_some_and(|columns| columns[5].starts_with("02:"))
}

/// Lines are appended while others still come; a line that is none ends the stream, and what was
/// appended stays.
#[test]
fn lines_are_appended_while_the_body_comes() {
    let dir = TestDir::new();
    let server = dir.start(1);
    let mut stream = connect(&server);
    stream.write_all(LINES.as_bytes()).expect("sent");
    stream.write_all(b"4\r\n1\n2\n\r\n").expect("sent");
    wait_until("the first lines are appended before the last has come", || {
        get(&server, "/api/v1/topics/a").0 == 200
    });
    stream.write_all(b"7\r\n\r\n3\nno\n\r\n").expect("sent");
    let (status, body) = read_answer(&mut stream, &mut Vec::new());
    assert_eq!(status, 400, "{body}");
    assert_eq!(
        (member(&body, "line"), member(&body, "appended"), member(&body, "last")),
        (5, 3, 2)
    );
    assert_eq!(append(&server, "a", "next"), 3);
}

/// API §2, half-way failure: "the status and problem of the failing line ...; what was appended stays".
/// A log with hardly any room refuses some batch of a long body: nothing behind it may be taken, or a
/// client that goes on from the named line would append those lines twice.
#[test]
fn what_a_refused_body_left_is_what_stands_before_the_named_line() {
    for shards in [1, 2] {
        let dir = TestDir::new();
        let mut config = dir.config(shards);
        config.log.event_bytes_max = 16 << 10;
        config.log.frame_bytes_target = 64 << 10;
        config.log.frame_bytes_max = 256 << 10;
        config.log.staged_bytes_max = 256 << 10;
        config.limits.line_batch_bytes = 16 << 10;
        config.limits.lines_in_flight_bytes_max = 4 << 20;
        config.limits.linger_ms = NEVER_MS;
        let server = Server::start(config).expect("a server");
        let mut refused = 0;
        // Which shard takes a connection is the kernel's choice: several bodies meet both.
        for body in 0..6 {
            let lines: String = (0..30_000).map(|line| format!("\"{line:0>100}\"\n")).collect();
            let (status, answer) = ask(
                &server,
                &format!(
                    "POST /api/v1/topics/body/{body}/events HTTP/1.1\r\nHost: localhost\r\n\
                     Content-Type: application/x-ndjson\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{lines}",
                    lines.len()
                ),
            );
            let (path, before) = (format!("/api/v1/topics/body/{body}"), 30_000);
            let stored = match get(&server, &path) {
                (200, topic) => member(&topic, "count"),
                _ => 0,
            };
            if status == 201 {
                assert_eq!(stored, before);
            } else {
                assert_eq!(status, 503, "{answer}");
                refused += 1;
                assert_eq!(member(&answer, "appended"), stored, "{answer}");
                assert_eq!(member(&answer, "line"), stored + 1, "{answer}");
            }
        }
        assert!(refused > 0, "the room was meant to be too small, with {shards} shards");
        server.stop().expect("it stops");
    }
}
