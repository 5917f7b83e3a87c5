//! Subscribers that come while others append: each gets all, once and in order.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use strandline::runtime::Driver;

use crate::TOPICS;
use crate::chance::Chance;
use crate::client::{PATIENCE, SILENT, Sse, WebSocket, append_lines, get_json};
use crate::patience::Patience;
use crate::running::Running;

/// So many events are there before it ends, however long a busy machine takes for them,
const EVENTS_MIN: u64 = 5000;
/// and so many of each topic: enough for a few subscriptions, one after the other.
const EVENTS_OF_EACH_MIN: u64 = 800;
/// So many readers come at the most.
const READERS_MAX: usize = 75;

/// Appends numbered events to each topic by a thread of its own until told to stop; each event is
/// `{"topic":i,"n":n}`. Tells how many there are.
fn append_until(
    address: SocketAddr,
    stop: &AtomicBool,
    topic: usize,
    count: &AtomicU64,
    mut chance: Chance,
) {
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut lines = String::new();
        for _ in 0..=chance.below(40) {
            let padding = "x".repeat(usize::try_from(chance.below(600)).expect("small"));
            lines.push_str(&format!("{{\"topic\":{topic},\"n\":{n},\"padding\":\"{padding}\"}}\n"));
            n += 1;
        }
        append_lines(address, TOPICS[topic], &lines);
        count.store(n, Ordering::Relaxed);
        if chance.below(8) == 0 {
            thread::sleep(Duration::from_millis(chance.below(15)));
        }
    }
}

/// What a reader got: the offset, topic and number of each event.
type Got = Vec<(u64, u64, u64)>;

fn got(offset: u64, data: &serde_json::Value) -> (u64, u64, u64) {
    (offset, data["topic"].as_u64().expect("a topic"), data["n"].as_u64().expect("a number"))
}

/// How a reader of an event stream reads.
#[derive(Clone, Copy)]
struct Reading {
    /// What it takes for coding; none if it is empty.
    coding: &'static str,
    is_slow: bool,
    /// Whether it hangs up now and then, and comes back by its cursor: to anywhere within a chunk.
    is_leaving: bool,
}

/// Reads until the marker comes.
fn read_sse(address: SocketAddr, query: &str, mut chance: Chance, how: Reading) -> Got {
    let mut all = Vec::new();
    let mut cursor = String::new();
    loop {
        let mut fields = cursor.clone();
        if !how.coding.is_empty() {
            fields.push_str(&format!("Accept-Encoding: {}\r\n", how.coding));
        }
        let mut sse = Sse::open(address, query, &fields);
        assert_eq!(sse.coding(), how.coding);
        sse.established();
        if how.is_slow {
            sse.read_bytes = 256 + usize::try_from(chance.below(20_000)).expect("small");
            sse.pause = Duration::from_micros(chance.below(3000));
        }
        let mut left = if how.is_leaving { 1 + chance.below(300) } else { u64::MAX };
        while left > 0 {
            let event = sse.next().expect("the stream goes on");
            if event.data == "\"the end\"" {
                return all;
            }
            all.push(got(event.offset(), &event.json()));
            left -= 1;
            if left == 0 {
                let id = event.id.expect("an event has a cursor");
                cursor = format!("Last-Event-ID: {id}\r\n");
            }
            if how.is_slow && chance.below(2000) == 0 {
                thread::sleep(Duration::from_millis(chance.below(200)));
            }
        }
    }
}

fn read_websocket(address: SocketAddr, query: &str, mut chance: Chance, is_slow: bool) -> Got {
    let mut socket = WebSocket::open(address, query);
    assert_eq!(socket.json()["type"], "subscribed");
    if is_slow {
        socket.read_bytes = 256 + usize::try_from(chance.below(20_000)).expect("small");
        socket.pause = Duration::from_micros(chance.below(3000));
    }
    let mut all = Vec::new();
    loop {
        let event = socket.json_of("event");
        if event["data"] == "the end" {
            return all;
        }
        all.push(got(event["offset"].as_u64().expect("an offset"), &event["data"]));
    }
}

/// What one subscription after the other, all of the same number, got: where each began, and what came.
type Rounds = Vec<(&'static str, u64, Got)>;

/// Ends its subscription and begins another again and again, until the marker comes: at once, or once it is
/// told of the end. What comes before that is the old one's, and the new one's what comes after it.
fn resubscribe(address: SocketAddr, mut chance: Chance) -> Rounds {
    let mut socket = WebSocket::open(address, "");
    let subscribe = |pattern: &str, from: u64| {
        let topics = [pattern, "the/end"];
        json!({"type": "subscribe", "topics": topics, "from": from})
    };
    let patterns = ["race/a", "race/b", "race/**", "other"];
    let mut rounds = Vec::new();
    let (mut pattern, mut from) = (patterns[0], 0);
    socket.send(&subscribe(pattern, from));
    loop {
        let subscribed = socket.json();
        assert_eq!(subscribed["type"], "subscribed", "nothing comes before its beginning");
        assert_eq!(subscribed["subscription"], 1, "the number is used again");
        let mut this = Vec::new();
        let mut left = 1 + chance.below(200);
        let next_pattern = patterns[usize::try_from(chance.below(4)).expect("small")];
        let (at_once, back) = (chance.below(2) == 0, chance.below(3) * chance.below(50));
        let (mut is_ended, mut next_from) = (false, 0);
        loop {
            let message = socket.json();
            match message["type"].as_str().expect("a type") {
                "event" if message["data"] == "the end" => {
                    rounds.push((pattern, from, this));
                    return rounds;
                }
                "event" => {
                    assert_eq!(message["subscription"], 1);
                    let offset = message["offset"].as_u64().expect("an offset");
                    this.push(got(offset, &message["data"]));
                    left = left.saturating_sub(1);
                    if left == 0 && !is_ended {
                        (is_ended, next_from) = (true, (offset + 1).saturating_sub(back));
                        socket.send(&json!({"type": "unsubscribe", "subscription": 1}));
                        if at_once {
                            socket.send(&subscribe(next_pattern, next_from));
                        }
                    }
                }
                "unsubscribed" => break,
                "cursor" => {}
                other => panic!("{other}: {message}"),
            }
        }
        if !at_once {
            socket.send(&subscribe(next_pattern, next_from));
        }
        rounds.push((pattern, from, this));
        (pattern, from) = (next_pattern, next_from);
    }
}

/// A subscriber catches up from the log and joins the live edge with no gap and no repeat, even when appends race
/// with it and when it is slow.
#[test]
fn joins_race_with_appends_and_nothing_is_lost_or_repeated() {
    race(Running::start("race1", 1));
    race(Running::start("race2", 2));
}

/// Where there is no io_uring (containers often refuse it), the same holds.
#[test]
fn joins_race_with_appends_on_epoll_too() {
    race(Running::start_with("race-epoll", 2, |config| config.driver = Some(Driver::Epoll)));
}

fn race(running: Running) {
    let address = running.address();
    let mut chance = Chance::new();
    let mut seed = || Chance(chance.below(u64::MAX) | 1);
    let (stop, counts) = (AtomicBool::new(false), TOPICS.map(|_| AtomicU64::new(0)));
    thread::scope(|scope| {
        // Where anything fails it stops first, and with it those that would read on for ever.
        let _running = running;
        let (stop, counts) = (&stop, &counts);
        let writers: Vec<_> = (0..TOPICS.len())
            .map(|topic| {
                let chance = seed();
                scope.spawn(move || append_until(address, stop, topic, &counts[topic], chance))
            })
            .collect();
        let (began, patience) = (Instant::now(), Patience::new(PATIENCE));
        let mut readers = Vec::new();
        let resubscribers: Vec<_> = (0..4)
            .map(|_| {
                let chance = seed();
                scope.spawn(move || resubscribe(address, chance))
            })
            .collect();
        let queries = [
            "topic=race/*&topic=the/end",
            "topic=**",
            "topic=race/**&topic=the/end",
            "topic=race/b&topic=the/end",
            "topic=other&topic=race/c/d&topic=the/end",
        ];
        loop {
            let mut chance = seed();
            let durable = get_json(address, "/api/v1/events/history?limit=1")["durable"]
                .as_u64()
                .expect("a number");
            let has_each = |count: &AtomicU64| count.load(Ordering::Relaxed) >= EVENTS_OF_EACH_MIN;
            let is_enough = began.elapsed() > Duration::from_secs(3)
                && durable >= EVENTS_MIN
                && counts.iter().all(has_each);
            // A writer that has ended has failed.
            let is_failing = writers.iter().any(|writer| writer.is_finished());
            if is_enough || is_failing || patience.is_over() {
                break;
            }
            thread::sleep(Duration::from_millis(40));
            if readers.len() >= READERS_MAX {
                continue;
            }
            let from = match chance.below(4) {
                0 => 0,
                1 => durable,
                2 => durable.saturating_sub(chance.below(100)),
                _ => chance.below(durable + 1),
            };
            let pattern = queries[usize::try_from(chance.below(5)).expect("small")];
            let query = format!("{pattern}&from={from}&{SILENT}");
            let is_slow = chance.below(3) == 0;
            let coding = match chance.below(6) {
                0 => Some(""),
                1 | 2 => Some("zstd"),
                3 | 4 => Some("gzip"),
                _ => None,
            };
            let is_leaving = chance.below(2) == 0;
            readers.push(scope.spawn(move || {
                let got = match coding {
                    Some(coding) => {
                        let how = Reading { coding, is_slow, is_leaving };
                        read_sse(address, &query, chance, how)
                    }
                    None => read_websocket(address, &query, chance, is_slow),
                };
                (query, from, got)
            }));
        }
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.join().expect("a writer writes");
        }
        append_lines(address, "the/end", "\"the end\"\n");
        let how = Reading { coding: "", is_slow: false, is_leaving: false };
        let all = read_sse(address, &format!("topic=**&from=earliest&{SILENT}"), seed(), how);
        assert!(all.len() as u64 >= EVENTS_MIN, "only {} events", all.len());
        check_order(&all);
        for reader in readers {
            let (query, from, got) = reader.join().expect("a reader reads");
            let wanted = wanted_of(&all, &query, from);
            assert_eq!(got.len(), wanted.len(), "{query}");
            assert_eq!(got, wanted, "{query}");
        }
        for resubscriber in resubscribers {
            let rounds = resubscriber.join().expect("a reader reads");
            assert!(rounds.len() > 3, "only {} subscriptions", rounds.len());
            let last = rounds.len() - 1;
            for (number, (pattern, from, got)) in rounds.into_iter().enumerate() {
                let wanted = wanted_of(&all, &format!("topic={pattern}&"), from);
                let ended = if number == last { wanted.len() } else { got.len() };
                assert_eq!(got, wanted[..ended], "{pattern} from {from}");
            }
        }
    });
}

/// What of all events a query asks for, from an offset on.
fn wanted_of(all: &Got, query: &str, from: u64) -> Got {
    let wants = |topic: u64| {
        let name = TOPICS[usize::try_from(topic).expect("small")];
        query.contains("topic=**")
            || query.contains("race/**") && name.starts_with("race/")
            || query.contains("race/*&") && ["race/a", "race/b"].contains(&name)
            || query.contains(&format!("topic={name}&"))
    };
    let wanted = all.iter().filter(|(offset, topic, _)| *offset >= from && wants(*topic));
    wanted.copied().collect()
}

/// Offsets ascend without a hole, and the numbers of each topic too.
fn check_order(all: &Got) {
    let mut next = [0; TOPICS.len()];
    for (place, (offset, topic, n)) in all.iter().enumerate() {
        assert_eq!(u64::try_from(place).ok(), Some(*offset));
        let next = &mut next[usize::try_from(*topic).expect("small")];
        assert_eq!(*n, *next);
        *next += 1;
    }
}
