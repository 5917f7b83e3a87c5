//! Subscribers that stop in the middle of large events, more than a shard keeps these for: what it does not
//! keep is encoded anew, and goes on at the very byte.

use std::net::{SocketAddr, TcpStream};

use crate::chance::Chance;
use crate::client::{SILENT, Sse, SseEvent, WebSocket, append_lines, request};
use crate::running::Running;
use crate::space::wait_until_full;

/// What a large event's data has: about a megabyte, and no coding makes it less than a half of it.
const DATA_BYTES: usize = 1_000_000;

/// Large events of either topic.
const EVENTS: u64 = 80;

/// Of the topic that is kept, whose events come first: two small ones and a large one make a chunk, and some begin
/// at the second.
const GROUP: u64 = 3;

/// So many are read of each stream: those of the chunk that it stands in, and what comes behind it.
const READ: usize = 4;

fn is_small(number: u64) -> bool {
    match number.checked_sub(GROUP * EVENTS) {
        None => number % GROUP + 1 < GROUP,
        Some(behind) => behind % 2 == 0,
    }
}

fn data(number: u64) -> String {
    if is_small(number) {
        return format!("\"small {number}\"");
    }
    let mut chance = Chance(number + 1);
    let mut text = String::with_capacity(DATA_BYTES);
    while text.len() < DATA_BYTES {
        text.push_str(&format!("{:016x}", chance.below(u64::MAX)));
    }
    format!("\"{text}\"")
}

enum Stalled {
    Sse(Box<Sse>),
    WebSocket(WebSocket),
}

impl Stalled {
    /// Begins at an offset; the kind tells how.
    fn open(address: SocketAddr, topic: &str, from: u64, kind: u64) -> Stalled {
        let query = format!("topic={topic}&from={from}&{SILENT}");
        let fields = match kind % 4 {
            0 => "",
            1 => "Accept-Encoding: zstd\r\n",
            2 => "Accept-Encoding: gzip\r\n",
            _ => return Stalled::WebSocket(WebSocket::open(address, &query)),
        };
        let mut sse = Sse::open(address, &query, fields);
        sse.read_bytes = 1 << 20;
        Stalled::Sse(Box::new(sse))
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Stalled::Sse(sse) => sse.socket(),
            Stalled::WebSocket(socket) => socket.socket(),
        }
    }

    fn next(&mut self) -> (u64, String) {
        match self {
            Stalled::Sse(sse) => loop {
                let event = sse.next().expect("it goes on");
                if event.event.is_none() {
                    return (event.offset(), event.data);
                }
            },
            Stalled::WebSocket(socket) => {
                let event = socket.json_of("event");
                (event["offset"].as_u64().expect("an offset"), event["data"].to_string())
            }
        }
    }
}

/// They hold far more than may be kept, so that most of them have what they stand in encoded anew. Where that
/// is gone as well, the connection ends, and its client is told when it comes back.
#[test]
fn who_stalls_within_a_large_event_goes_on_at_the_very_byte_or_comes_back() {
    let running = Running::start("stalled-large", 1);
    let address = running.address();
    let gone_from = GROUP * EVENTS;
    let all: Vec<String> = (0..gone_from + 2 * EVENTS).map(data).collect();
    let (kept, gone) = all.split_at(usize::try_from(gone_from).expect("small"));
    for (group, data) in (1..).zip(kept.chunks(usize::try_from(GROUP).expect("small"))) {
        assert_eq!(append_lines(address, "kept", &data.join("\n")), group * GROUP - 1);
    }
    // Of each of their chunks a small event stays, and a large one goes.
    for (offset, data) in (gone_from..).zip(gone) {
        let topic = if is_small(offset) { "left" } else { "gone" };
        assert_eq!(append_lines(address, topic, data), offset);
    }
    let data_of = |offset: u64| &all[usize::try_from(offset).expect("small")];
    // The oldest go first: all of the first, nearly all that are deleted, none of the last.
    let of_kept = |more: u64, firsts: &[u64]| {
        let froms = (0..EVENTS - 10).flat_map(|group| firsts.iter().map(move |at| (group, at)));
        let open = |(group, at): (u64, &u64)| {
            let from = group * GROUP + at;
            (from, Stalled::open(address, "kept", from, group + more))
        };
        let stalled: Vec<_> = froms.map(open).collect();
        wait_until_full(stalled.iter().map(|(_, stalled)| stalled.socket()));
        stalled
    };
    let mut stalled = of_kept(0, &[0, 1]);
    let of_gone = "topic=left&topic=gone";
    let froms = || (gone_from..).step_by(2).take(usize::try_from(EVENTS - 10).expect("small"));
    let mut deleted: Vec<Sse> = froms()
        .map(|from| {
            let mut sse = Sse::open(address, &format!("{of_gone}&from={from}&{SILENT}"), "");
            (sse.read_bytes, sse.may_be_cut) = (1 << 20, true);
            sse
        })
        .collect();
    wait_until_full(deleted.iter().map(Sse::socket));
    stalled.append(&mut of_kept(1, &[0]));
    let (status, _, _) = request(address, "DELETE /api/v1/topics/gone HTTP/1.1", b"");
    assert!((200..300).contains(&status), "{status}");

    for (from, mut stalled) in stalled {
        for offset in (from..).take(READ) {
            let (got, data) = stalled.next();
            assert_eq!(got, offset);
            assert!(&data == data_of(offset), "event {offset} of who began at {from}");
        }
    }
    let mut cut = 0;
    // Each is told of the deletion where it comes to what is gone, or has passed it: of what compaction has taken
    // since nobody is told.
    let is_past = |event: &SseEvent, next: u64| {
        if event.event.is_some() {
            assert_eq!(event.event.as_deref(), Some("connection.reset"));
            assert_eq!(event.json()["reason"], "deleted");
            return true;
        }
        let offset = event.offset();
        let is_over_gone = offset == next + 1 && !is_small(next);
        assert!(offset == next || is_over_gone, "{offset} behind {next}");
        assert!(&event.data == data_of(offset), "event {offset}");
        is_over_gone
    };
    for (from, sse) in froms().zip(&mut deleted) {
        sse.established();
        let (mut next, mut id) = (from, None);
        let is_cut = loop {
            let Some(event) = sse.next() else { break true };
            if is_past(&event, next) {
                break false;
            }
            (next, id) = (next + 1, event.id);
        };
        cut += u64::from(is_cut);
        let Some(id) = id.filter(|_| is_cut) else { continue };
        let again = format!("Last-Event-ID: {id}\r\n");
        let mut sse = Sse::open(address, &format!("{of_gone}&{SILENT}"), &again);
        sse.established();
        loop {
            let event = sse.next().expect("it goes on");
            if is_past(&event, next) {
                break;
            }
            next += 1;
        }
    }
    assert!(cut > 0, "what was deleted is not sent again");
}
