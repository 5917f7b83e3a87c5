//! What goes from the log gives its space back, whoever was about to read it.

use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use strandline::config::ServerConfig;

use crate::client::{self, SILENT, Sse, append_lines, ask, request};
use crate::patience::Patience;
use crate::running::Running;

/// Segments of a MiB: more than the sockets' buffers hold.
const SEGMENTS: u64 = 24;

/// Events of a segment, about, and their bytes.
const EVENTS: u64 = 1000;
const EVENT_BYTES: usize = 1000;

fn fill_segments(address: SocketAddr) {
    let count = usize::try_from(EVENTS).expect("few");
    let lines = format!("\"{}\"\n", "z".repeat(EVENT_BYTES)).repeat(count);
    for _ in 0..SEGMENTS {
        append_lines(address, "big", &lines);
    }
}

/// The log files that have a name, and the files that are open without one.
fn files(running: &Running) -> (usize, Vec<String>) {
    let log_dir = running.dir.join("default/main");
    let names = std::fs::read_dir(log_dir).expect("a log");
    let is_log = |name: &std::path::PathBuf| name.extension().is_some_and(|kind| kind == "log");
    let logs = names.filter(|entry| is_log(&entry.as_ref().expect("an entry").path())).count();
    let links = std::fs::read_dir("/proc/self/fd").expect("descriptors");
    let targets = links.filter_map(|link| std::fs::read_link(link.ok()?.path()).ok());
    let targets = targets.map(|target| target.to_string_lossy().into_owned());
    let dir = running.dir.to_string_lossy().into_owned();
    let gone = targets.filter(|name| name.starts_with(&dir) && name.ends_with(" (deleted)"));
    (logs, gone.collect())
}

/// Waits until no more than so many log files are there, and nothing is open that is not.
fn wait_for_space(running: &Running, logs_max: usize) {
    let patience = Patience::new(client::PATIENCE);
    loop {
        let (logs, gone) = files(running);
        if logs <= logs_max && gone.is_empty() {
            return;
        }
        assert!(!patience.is_over(), "{logs} log files, and open without a name: {gone:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until the sockets of those who take nothing hold all that they can.
pub fn wait_until_full<'a>(sockets: impl Iterator<Item = &'a TcpStream> + Clone) {
    let held =
        || sockets.clone().map(|socket| rustix::io::ioctl_fionread(socket).expect("a socket"));
    let patience = Patience::new(client::PATIENCE);
    let (mut known, mut since) = (Vec::new(), Instant::now());
    // Nothing has come for so long that nothing is on its way.
    while since.elapsed() < Duration::from_millis(250) || known.contains(&0) {
        let now: Vec<u64> = held().collect();
        if now != known {
            (known, since) = (now, Instant::now());
        }
        assert!(!patience.is_over(), "they hold {known:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn keep(address: SocketAddr, retain: &str) {
    let head = "PUT /api/v1/logs/main HTTP/1.1\r\nContent-Type: application/json";
    let body = format!("{{\"retain\":{retain}}}");
    assert_eq!(request(address, head, body.as_bytes()).0, 200);
}

/// Space is there again soon, also where nothing is published any more, on any shard.
#[test]
fn who_reads_no_more_keeps_no_file_that_is_gone() {
    let running = Running::start("space-stalled", 2);
    let address = running.address();
    fill_segments(address);
    let mut stalled: Vec<Sse> = (0..6)
        .map(|number| {
            let topics = ["**", "big", "*"][number % 3];
            let mut stream =
                Sse::open(address, &format!("topic={topics}&from=earliest&{SILENT}"), "");
            stream.established();
            stream
        })
        .collect();
    // They ask for a history in lines, and take none.
    let ask_for_lines = |_| ask(address, "/api/v1/events/history", "application/x-ndjson");
    let lines: Vec<TcpStream> = (0..2).map(ask_for_lines).collect();
    wait_until_full(stalled.iter().map(Sse::socket).chain(&lines));
    assert!(files(&running).0 as u64 >= SEGMENTS);
    keep(address, "{\"count\":100}");
    wait_for_space(&running, 2);

    // They are told, and go on.
    let end = append_lines(address, "big", "\"the end\"\n");
    for stream in &mut stalled {
        let mut next = 0;
        let reset = loop {
            let event = stream.next().expect("it goes on");
            if event.event.as_deref() == Some("connection.reset") {
                break event.json();
            }
            assert_eq!(event.offset(), next);
            next += 1;
        };
        assert!(0 < next && next < SEGMENTS * EVENTS, "what its socket had taken: {next}");
        assert_eq!(reset["reason"], "expired");
        // The settings' own event has an offset, too.
        let from = reset["from"].as_u64().expect("an offset");
        assert!(next < from && from <= SEGMENTS * EVENTS + 1, "{from}");
        let rest: Vec<u64> = std::iter::from_fn(|| stream.next())
            .map(|event| event.offset())
            .take_while(|offset| *offset < end)
            .collect();
        let expected = (from..end).filter(|offset| *offset != SEGMENTS * EVENTS);
        assert!(rest.iter().copied().eq(expected), "from {from}: {rest:?}");
    }
}

/// A view with other subscribers lives on when one that read for it has left.
#[test]
fn who_has_left_keeps_no_file_that_is_gone() {
    let running = Running::start("space-left", 1);
    let address = running.address();
    fill_segments(address);
    let mut live = Sse::open(address, &format!("topic=**&{SILENT}"), "");
    live.established();
    let mut reader = Sse::open(address, &format!("topic=**&from=earliest&{SILENT}"), "");
    reader.established();
    assert_eq!(reader.next().expect("an event").offset(), 0);
    drop(reader);
    thread::sleep(Duration::from_millis(200));
    keep(address, "{\"count\":100}");
    wait_for_space(&running, 2);
    append_lines(address, "big", "\"the end\"\n");
    assert_eq!(live.next().expect("it goes on").data, "\"the end\"");
}

/// Rewritten segments take the place of those that readers are in; these notice nothing.
#[test]
fn who_reads_no_more_goes_on_in_what_was_rewritten() {
    let change = |config: &mut ServerConfig| config.log.compress_after_s = 3;
    let running = Running::start_with("space-rewritten", 2, change);
    let address = running.address();
    fill_segments(address);
    let mut stalled: Vec<Sse> = (0..4)
        .map(|number| {
            let topic = ["**", "big"][number % 2];
            let mut stream =
                Sse::open(address, &format!("topic={topic}&from=earliest&{SILENT}"), "");
            stream.established();
            stream
        })
        .collect();
    let rewritten = || {
        let names = std::fs::read_dir(running.dir.join("default/main")).expect("a log");
        let is_later = |name: String| name.ends_with(".2.log");
        names
            .filter(|entry| {
                is_later(
                    entry.as_ref().expect("an entry").file_name().to_string_lossy().into_owned(),
                )
            })
            .count()
    };
    let patience_of_one = || Patience::new(2 * client::PATIENCE);
    let (mut done, mut patience) = (0, patience_of_one());
    while (done as u64) < SEGMENTS - 2 {
        assert!(!patience.is_over(), "{done} are rewritten");
        thread::sleep(Duration::from_millis(100));
        if rewritten() > done {
            (done, patience) = (rewritten(), patience_of_one());
        }
    }
    wait_for_space(&running, usize::MAX);
    for stream in &mut stalled {
        for offset in 0..SEGMENTS * EVENTS {
            assert_eq!(stream.next().expect("it goes on").offset(), offset);
        }
    }
}
