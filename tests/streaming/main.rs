//! From the log to its subscribers, through a whole server in this process.

mod chance;
mod client;
mod history;
#[path = "../common/patience.rs"]
mod patience;
mod race;
mod rotten;
mod running;
mod space;
mod stalled;
mod turns;

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use client::{Frame, PATIENCE, SILENT, Sse, WebSocket, append_lines, get_json};
use patience::{NEVER_MS, Patience};
use running::Running;
use serde_json::json;
use strandline::config::ServerConfig;

const TOPICS: [&str; 4] = ["race/a", "race/b", "race/c/d", "other"];

/// Fills a log over several segments; returns how many events it has.
fn fill(address: SocketAddr, count: u64) -> u64 {
    let mut n = 0;
    while n < count {
        for (topic, name) in TOPICS.iter().enumerate() {
            let mut lines = String::new();
            for _ in 0..50 {
                let padding = "y".repeat(400);
                lines.push_str(&format!(
                    "{{\"topic\":{topic},\"n\":{n},\"padding\":\"{padding}\"}}\n"
                ));
                n += 1;
            }
            append_lines(address, name, &lines);
        }
    }
    n
}

/// API §4: "hang-up": a reader that stops reading costs the others nothing, and gets everything later.
#[test]
fn a_stalled_reader_delays_nobody_and_gets_everything_later() {
    let running = Running::start("stalled", 1);
    let address = running.address();
    let query = format!("topic=**&from=earliest&{SILENT}");
    let mut stalled = Sse::open(address, &query, "");
    stalled.established();
    let mut quick = Sse::open(address, &query, "");
    quick.established();
    // More than any socket's buffers hold.
    let count = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let lines = format!("\"{}\"\n", "z".repeat(1000)).repeat(1000);
            (0..16).for_each(|_| {
                append_lines(address, "big", &lines);
            });
            append_lines(address, "big", "\"the end\"\n") + 1
        });
        let mut seen = 0;
        while quick.next().expect("it goes on").data != "\"the end\"" {
            seen += 1;
        }
        let count = writer.join().expect("the writer writes");
        assert_eq!(seen + 1, count);
        count
    });
    for offset in 0..count {
        assert_eq!(stalled.next().expect("it goes on").offset(), offset);
    }
    append_lines(address, "big", "\"live\"\n");
    assert_eq!(stalled.next().expect("it goes on").data, "\"live\"");
}

/// API §5: several subscriptions of one connection, numbered; publishes acknowledged in order.
#[test]
fn one_websocket_carries_many_subscriptions() {
    let running = Running::start("socket", 2);
    let address = running.address();
    fill(address, 400);
    let mut socket = WebSocket::open(address, SILENT);
    for (number, topic) in TOPICS.iter().enumerate() {
        socket.send(
            &json!({"type": "subscribe", "id": number, "topics": [topic], "from": "earliest"}),
        );
    }
    let mut counts = [0; TOPICS.len()];
    let mut subscribed = 0;
    while counts.iter().sum::<u64>() < 400 {
        let message = socket.json();
        if message["type"] == "subscribed" {
            subscribed += 1;
            assert_eq!(message["subscription"].as_u64(), Some(subscribed));
            continue;
        }
        let number = message["subscription"].as_u64().expect("a number");
        assert!(number <= subscribed, "`subscribed` precedes its events");
        assert_eq!(message["data"]["topic"].as_u64(), Some(number - 1));
        counts[usize::try_from(number - 1).expect("small")] += 1;
    }
    assert_eq!(subscribed, 4);
    socket.send(&json!({"type": "unsubscribe", "subscription": 2}));
    assert_eq!(socket.json_of("unsubscribed")["subscription"], 2);
    for n in 0..2000 {
        socket.send(&json!({"type": "publish", "id": n, "topic": "race/b", "data": n}));
    }
    let mut last = None;
    for n in 0..2000 {
        let ack = socket.json_of("ack");
        assert_eq!(ack["id"], n);
        assert!(ack["offset"].as_u64() > last);
        last = ack["offset"].as_u64();
    }
    socket.send_frame(8, &1000_u16.to_be_bytes());
    loop {
        match socket.frame() {
            Frame::Close(code) => break assert_eq!(code, 1000),
            other => drop(other),
        }
    }
}

/// API §4 and §5, at the end of the server: `connection.closing`, and close code 4000.
#[test]
fn a_drain_tells_every_subscriber() {
    let no_deadline = |config: &mut ServerConfig| config.limits.drain_ms = NEVER_MS;
    let mut running = Running::start_with("drain", 2, no_deadline);
    let address = running.address();
    let mut streams: Vec<Sse> = (0..8).map(|_| Sse::open(address, "", "")).collect();
    let mut sockets: Vec<WebSocket> = (0..8).map(|_| WebSocket::open(address, "topic=a")).collect();
    streams.iter_mut().for_each(|stream| drop(stream.established()));
    let server = running.server.take().expect("it runs");
    let stopping = thread::spawn(move || server.stop());
    for stream in &mut streams {
        let closing = stream.next().expect("a last event");
        assert_eq!(closing.event.as_deref(), Some("connection.closing"));
        assert_eq!((closing.id.clone(), closing.json()["code"].as_u64()), (None, Some(4000)));
        assert_eq!(stream.next(), None);
    }
    for socket in &mut sockets {
        loop {
            match socket.frame() {
                Frame::Close(code) => break assert_eq!(code, 4000),
                other => drop(other),
            }
        }
    }
    drop((streams, sockets));
    let patience = Patience::new(PATIENCE);
    while !stopping.is_finished() {
        assert!(!patience.is_over(), "something holds it");
        thread::sleep(Duration::from_millis(10));
    }
    stopping.join().expect("it stops").expect("in order");
}

/// API §4: heartbeats run, and carry a cursor when others' events passed.
#[test]
fn heartbeats_tell_how_far_a_silent_stream_has_come() {
    let running = Running::start("beat", 2);
    let address = running.address();
    let mut stream = Sse::open(address, "topic=mine&heartbeat=1", "");
    stream.established();
    assert_eq!(stream.line().as_deref(), Some(":"));
    let offset = append_lines(address, "others", "1\n2\n3\n");
    let ping = stream.next().expect("a ping");
    assert_eq!((ping.event.as_deref(), ping.offset()), (Some("ping"), offset));
    assert_eq!(stream.line().as_deref(), Some(":"));
    let mine = append_lines(address, "mine", "4\n");
    assert_eq!(stream.next().expect("an event").offset(), mine);
}

/// A hang-up is noticed without anything being sent: subscribers that are gone are no weight.
#[test]
fn a_hang_up_is_noticed() {
    let running = Running::start("hang", 1);
    let address = running.address();
    // Longer than anybody waits here.
    let streams: Vec<Sse> = (0..20).map(|_| Sse::open(address, SILENT, "")).collect();
    let sockets: Vec<WebSocket> = (0..20).map(|_| WebSocket::open(address, SILENT)).collect();
    let open = || get_json(address, "/readyz")["connections"]["open"].as_u64();
    assert!(open() > Some(40));
    drop((streams, sockets));
    let patience = Patience::new(PATIENCE);
    // Who asks has one.
    while open() != Some(1) {
        assert!(!patience.is_over(), "{:?} are open", open());
        thread::sleep(Duration::from_millis(10));
    }
}

/// An event as large as they come: larger than a chunk, than a view's ring, than a socket's buffer.
#[test]
fn large_events_reach_everyone() {
    let running = Running::start("large", 2);
    let address = running.address();
    let mut live = Sse::open(address, "topic=large", "");
    live.established();
    let mut socket = WebSocket::open(address, "topic=large");
    assert_eq!(socket.json()["type"], "subscribed");
    let data: Vec<String> = (0..6)
        .map(|n| format!("\"{}\"", char::from(b'a' + n).to_string().repeat((1 << 20) - 2)))
        .collect();
    thread::scope(|scope| {
        scope.spawn(|| {
            for data in &data {
                append_lines(address, "large", data);
            }
        });
        for data in &data {
            assert_eq!(&live.next().expect("it goes on").data, data);
            assert_eq!(&socket.json_of("event")["data"].to_string(), data);
        }
    });
    let mut late = Sse::open(address, "topic=large&from=earliest", "");
    late.established();
    late.read_bytes = 30_000;
    for data in &data {
        assert_eq!(&late.next().expect("it goes on").data, data);
    }
}

/// What a topic's index lets a reader pass over gives no frame: catching up must come to its end all the
/// same. Readers of a topic that was quiet for whole segments read them again and again, each with one of
/// the shard's turns.
#[test]
fn a_topic_that_was_quiet_for_segments_is_caught_up_and_goes_on() {
    let running = Running::start("quiet", 1);
    let lines: String = (0..10).map(|at| format!("{at}\n")).collect();
    append_lines(running.address(), "quiet", &lines);
    let noise = format!("\"{}\"\n", "x".repeat(1000)).repeat(1000);
    for _ in 0..4 {
        append_lines(running.address(), "loud", &noise);
    }
    let running = running.restart("quiet-again", |_| ());
    let address = running.address();
    let encodings = ["", "Accept-Encoding: zstd\r\n"];
    let quiet = format!("topic=quiet&from=earliest&{SILENT}");
    let mut readers: Vec<Sse> =
        (0..40).map(|at| Sse::open(address, &quiet, encodings[at % 2])).collect();
    for reader in &mut readers {
        reader.established();
        for at in 0..10 {
            assert_eq!(reader.next().expect("the stream goes on").data, at.to_string());
        }
    }
    let page = get_json(address, "/api/v1/events/history?topic=quiet&limit=3");
    assert_eq!(page["events"].as_array().map(Vec::len), Some(3));
    append_lines(address, "quiet", "10\n");
    for reader in &mut readers {
        assert_eq!(reader.next().expect("the stream goes on").data, "10");
    }
}
