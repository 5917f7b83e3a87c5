//! The wires of the peers in `benches/peers/`: what a server says is understood the same however the network
//! divides it, and a refusal ends the run instead of being counted.

use strandline::bench::{
    http::take_successes,
    target::{Delivery, From, PublisherWire, SubscriberWire, Target},
};

#[path = "../benches/peers/durable_streams.rs"]
mod durable_streams;
#[path = "../benches/peers/lines.rs"]
mod lines;
#[path = "../benches/peers/nats.rs"]
mod nats;
#[path = "../benches/peers/nchan.rs"]
mod nchan;
#[path = "../benches/peers/redis.rs"]
mod redis;

use durable_streams::{DurableStreams, Read};
use nats::{Nats, Receive};
use nchan::Nchan;
use redis::{Redis, Use};

fn address() -> std::net::SocketAddr {
    "127.0.0.1:1".parse().expect("an address")
}

fn redis(used: Use) -> Redis {
    Redis { address: address(), processes: Vec::new(), used, payload_bytes: 3 }
}

fn nats(receive: Receive) -> Nats {
    Nats { address: address(), processes: Vec::new(), receive, payload_bytes: 3 }
}

fn durable_streams(batch_events: u32) -> DurableStreams {
    DurableStreams {
        address: address(),
        processes: Vec::new(),
        read: Read::Live,
        batch_events,
        payload_bytes: 3,
    }
}

/// What came, as (payload, cursor), and what was answered.
type Came = (Vec<(String, String)>, String);

/// Gives `said` in pieces that end at `cuts`, as a connection would, and collects what came.
fn receive(
    wire: &mut impl SubscriberWire,
    said: &[u8],
    cuts: impl Iterator<Item = usize>,
) -> Result<Came, String> {
    let (mut events, mut out, mut start) = (Vec::new(), Vec::new(), 0);
    for end in cuts.chain([said.len()]) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let on_event = |event: Delivery<'_>| events.push((text(event.payload), text(event.cursor)));
        start += wire.take(&said[start..end], &mut out, on_event)?;
    }
    assert_eq!(start, said.len(), "something was left");
    Ok((events, String::from_utf8(out).expect("text")))
}

/// Every division into two pieces, and into single bytes.
fn receive_all_ways<W: SubscriberWire>(new: impl Fn() -> W, said: &str) -> Came {
    let said = said.as_bytes();
    let whole = receive(&mut new(), said, 0..0).expect("understood");
    for cut in 0..said.len() {
        let divided = receive(&mut new(), said, cut..cut + 1).expect("understood");
        assert_eq!(divided, whole, "cut at {cut}");
    }
    let mut wire = new();
    assert_eq!(receive(&mut wire, said, 0..said.len()), Ok(whole.clone()), "byte by byte");
    assert!(wire.is_ready());
    whole
}

/// Acknowledgements counted, whatever the division.
fn acks_all_ways<W: PublisherWire>(new: impl Fn() -> W, said: &str) -> u32 {
    let said = said.as_bytes();
    let count = |cuts: &mut dyn Iterator<Item = usize>| {
        let (mut wire, mut out, mut start, mut acks) = (new(), Vec::new(), 0, 0);
        for end in cuts.chain([said.len()]) {
            let (done, more) = wire.take_acks(&said[start..end], &mut out).expect("understood");
            start += done;
            acks += more;
        }
        assert_eq!(start, said.len(), "something was left");
        assert!(wire.is_ready());
        acks
    };
    let whole = count(&mut (0..0));
    for cut in 0..said.len() {
        assert_eq!(count(&mut (cut..cut + 1)), whole, "cut at {cut}");
    }
    assert_eq!(count(&mut (0..said.len())), whole, "byte by byte");
    whole
}

fn payloads(came: &Came) -> Vec<&str> {
    came.0.iter().map(|(payload, _)| payload.as_str()).collect()
}

/// A body in chunks that end anywhere.
fn chunked(body: &str, chunk_bytes: usize) -> String {
    let head =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n\r\n";
    let chunk = |part: &[u8]| format!("{:x}\r\n{}\r\n", part.len(), str::from_utf8(part).unwrap());
    body.as_bytes().chunks(chunk_bytes).fold(head.to_owned(), |all, part| all + &chunk(part))
}

#[test]
fn durable_streams_events_are_lines_of_chunks_that_end_anywhere() {
    let control = "event: control\ndata:{\"streamNextOffset\":\"0_6\",\"upToDate\":true}\n\n";
    let body = format!(
        "{control}event: data\ndata:one\ndata:two\ndata:\n\n{control}event: data\ndata:three\ndata:\n\n{control}"
    );
    for chunk_bytes in [1, 2, 7, 40, 1000] {
        let new = || durable_streams(1).subscriber(0, &From::Latest);
        // The last line end of a chunk comes with the next chunk.
        let said = chunked(&body, chunk_bytes);
        let said = said.strip_suffix("\r\n").expect("a chunk's end");
        let came = receive_all_ways(new, said);
        assert_eq!(payloads(&came), ["one", "two", "three"], "chunks of {chunk_bytes}");
    }
}

#[test]
fn a_plain_read_of_durable_streams_is_lines() {
    let new = || {
        DurableStreams { read: Read::Plain, ..durable_streams(1) }.subscriber(0, &From::Earliest)
    };
    let said = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\none\ntwo\n";
    assert_eq!(payloads(&receive_all_ways(new, said)), ["one", "two"]);
}

#[test]
fn durable_streams_acknowledges_a_batch_by_one_answer() {
    let said = "HTTP/1.1 204 No Content\r\nstream-next-offset: 0_6\r\n\r\n".repeat(3);
    assert_eq!(acks_all_ways(|| durable_streams(10).publisher(0), &said), 30);
    let mut wire = durable_streams(2).publisher(0);
    let mut out = Vec::new();
    wire.push_event(b"one", &mut out);
    wire.push_event(b"two", &mut out);
    assert!(out.ends_with(b"Content-Length: 8\r\n\r\none\ntwo\n"));
}

#[test]
fn nchan_events_are_data_lines() {
    let new = || {
        Nchan { address: address(), processes: Vec::new(), payload_bytes: 3 }
            .subscriber(0, &From::Latest)
    };
    let said = "HTTP/1.1 200 OK\r\nServer: nginx\r\n\r\n: hi\n\nid: 1:0\ndata: one\n\nid: 1:1\ndata: two\n\n";
    assert_eq!(payloads(&receive_all_ways(new, said)), ["one", "two"]);
}

#[test]
fn nchan_answers_have_a_body() {
    let new = || Nchan { address: address(), processes: Vec::new(), payload_bytes: 3 }.publisher(0);
    let said = "HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\nabcd\n\
                HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(acks_all_ways(new, said), 2);
}

#[test]
fn redis_messages() {
    let message =
        |text: &str| format!("*3\r\n$7\r\nmessage\r\n$5\r\nbench\r\n${}\r\n{text}\r\n", text.len());
    let said = format!(
        "*3\r\n$9\r\nsubscribe\r\n$5\r\nbench\r\n:1\r\n{}{}",
        message("one"),
        message("three")
    );
    let new = || redis(Use::PubSub).subscriber(0, &From::Latest);
    assert_eq!(payloads(&receive_all_ways(new, &said)), ["one", "three"]);
}

#[test]
fn redis_entries_are_read_on_behind_the_last_one() {
    let entry = |id: &str, text: &str| {
        format!("*2\r\n${}\r\n{id}\r\n*2\r\n$1\r\nd\r\n${}\r\n{text}\r\n", id.len(), text.len())
    };
    let answer = |entries: &[String]| {
        format!("*1\r\n*2\r\n$5\r\nbench\r\n*{}\r\n{}", entries.len(), entries.concat())
    };
    let new = || redis(Use::Streams).subscriber(0, &From::Latest);
    let said = format!(
        "*1\r\n{}{}{}",
        entry("5-0", "old"),
        answer(&[entry("5-1", "one"), entry("6-0", "two")]),
        answer(&[entry("7-0", "three")])
    );
    let came = receive_all_ways(new, &said);
    assert_eq!(payloads(&came), ["one", "two", "three"]);
    assert_eq!(came.0[1].1, "6-0", "an entry's id is its cursor");
    let asked: Vec<&str> = came.1.matches("STREAMS\r\n$5\r\nbench\r\n$3\r\n5-0").collect();
    assert_eq!(asked.len(), 1, "first behind what was there: {}", came.1);
    assert!(came.1.ends_with("$3\r\n7-0\r\n"), "then behind the last: {}", came.1);
    assert_eq!(came.1.matches("XREAD").count(), 3, "once for each answer");
    // A stream that does not exist yet.
    assert_eq!(
        payloads(&receive_all_ways(new, &format!("*0\r\n{}", answer(&[entry("1-0", "one")])))),
        ["one"]
    );
}

#[test]
fn redis_acknowledgements_and_errors() {
    let added = || redis(Use::Streams).publisher(0);
    assert_eq!(acks_all_ways(added, "$15\r\n1795715459998-0\r\n$15\r\n1795715459998-1\r\n"), 2);
    let published = || redis(Use::PubSub).publisher(0);
    assert_eq!(acks_all_ways(published, ":1000\r\n:999\r\n"), 2);
    let refused = added().take_acks(b"-ERR no\r\n", &mut Vec::new());
    assert_eq!(refused, Err("ERR no".to_owned()));
}

#[test]
fn nats_messages_with_and_without_a_reply_subject() {
    let said = "INFO {\"server_id\":\"x\"}\r\nPONG\r\nMSG bench 1 3\r\none\r\nMSG bench 1 _INBOX.a 3\r\ntwo\r\nPING\r\n";
    let came = receive_all_ways(|| nats(Receive::Core).subscriber(0, &From::Latest), said);
    assert_eq!(payloads(&came), ["one", "two"]);
    assert_eq!(came.1, "PONG\r\n");
}

#[test]
fn nats_ordered_consumers_answer_flow_control() {
    let status = |subject: &str, headers: &str| {
        let headers = format!("NATS/1.0 100 \r\n{headers}\r\n");
        format!("HMSG {subject} {} {}\r\n{headers}\r\n", headers.len(), headers.len())
    };
    let said = format!(
        "INFO {{}}\r\nMSG _INBOX.consumer0 2 19\r\n{{\"stream_name\":\"B\"}}\r\n\
         MSG bench 1 $JS.ACK.BENCH.c.1.42.1.1795.0 3\r\none\r\n{}{}{}",
        status("_DELIVER.0 1 $JS.FC.a", ""),
        status("_DELIVER.0 1", "Nats-Consumer-Stalled: $JS.FC.b\r\n"),
        status("_DELIVER.0 1", "Nats-Last-Stream: 42\r\n"),
    );
    let came = receive_all_ways(|| nats(Receive::Ordered).subscriber(0, &From::Latest), &said);
    assert_eq!(came.0, [("one".to_owned(), "42".to_owned())]);
    assert_eq!(came.1, "PUB $JS.FC.a 0\r\n\r\nPUB $JS.FC.b 0\r\n\r\n");
}

#[test]
fn nats_acknowledgements_and_refusals() {
    let ack = |text: &str| format!("MSG _INBOX.publisher0 1 {}\r\n{text}\r\n", text.len());
    let new = || nats(Receive::Core).publisher(0);
    let stored = ack("{\"stream\":\"BENCH\",\"seq\":1}");
    assert_eq!(acks_all_ways(new, &format!("INFO {{}}\r\nPONG\r\n{stored}{stored}")), 2);
    let refused = ack("{\"error\":{\"code\":503}}");
    assert!(new().take_acks(refused.as_bytes(), &mut Vec::new()).is_err());
    // Nobody listens: there is no stream.
    let nobody = "HMSG _INBOX.publisher0 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n";
    assert!(new().take_acks(nobody.as_bytes(), &mut Vec::new()).is_err());
}

#[test]
fn an_answer_that_is_no_success_ends_the_run() {
    let refused = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
    assert!(take_successes(refused).is_err());
    let mut wire = durable_streams(1).subscriber(0, &From::Latest);
    assert!(receive(&mut wire, refused, 0..0).is_err());
    assert!(take_successes(b"not http\r\n\r\n").is_err());
}
