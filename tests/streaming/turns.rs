//! Sixteen searches of the whole log, all that read it at once, keep nobody else from it.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use crate::client::{self, SILENT, Sse, append_lines, get_json};
use crate::patience::Patience;
use crate::running::Running;

const SEARCHES: usize = 16;

/// Bodies of a MiB each: what sixteen searches take a second for, also where the compiler has done its best.
const BODIES: usize = if cfg!(debug_assertions) { 24 } else { 96 };

/// Matches nothing, whatever the data.
const NOTHING: &str = "where=data.none%20%3D%3D%201";

fn fill(address: SocketAddr) {
    let lines = format!("{{\"padding\":\"{}\"}}\n", "z".repeat(1000)).repeat(1000);
    for _ in 0..BODIES {
        append_lines(address, "big", &lines);
    }
}

/// One that searches, and what it was told so far.
struct Searcher {
    socket: TcpStream,
    told: Vec<u8>,
    /// With this its search has ended.
    last: &'static [u8],
}

impl Searcher {
    fn begin(address: SocketAddr, target: &str, accept: &str, last: &'static [u8]) -> Searcher {
        let socket = client::ask(address, target, accept);
        Searcher { socket, told: Vec::new(), last }
    }

    fn has_ended(&self) -> bool {
        self.told.windows(self.last.len()).any(|window| window == self.last)
    }

    /// Takes what has come, without waiting for more.
    fn look(&mut self) {
        self.socket.set_nonblocking(true).expect("a socket");
        let result = self.socket.read_to_end(&mut self.told).map_err(|error| error.kind());
        let told = String::from_utf8_lossy(&self.told);
        assert_eq!(result, Err(ErrorKind::WouldBlock), "it goes on: {told}");
        self.socket.set_nonblocking(false).expect("a socket");
    }

    fn wait(&mut self) {
        let patience = Patience::new(6 * client::PATIENCE);
        while !self.has_ended() {
            assert!(!patience.is_over(), "{}", String::from_utf8_lossy(&self.told));
            self.look();
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// While all of them search, a page is answered and somebody who is behind gets events.
fn others_have_their_turn(address: SocketAddr, begin: impl Fn() -> Vec<Searcher>) {
    // On a busy machine this thread may have its own turn only when some have found what there is, which says nothing: that
    // may be so four times. But of those who have to wait for these most would see it.
    let (mut turns, mut waits) = (0, 0);
    while turns < 3 {
        match has_a_turn(address, begin()) {
            true => turns += 1,
            false => waits += 1,
        }
        assert!(waits < 5, "others waited for these, and {turns} did not");
    }
}

/// Whether both came before any of them had found what there is; then all find it.
fn has_a_turn(address: SocketAddr, mut searchers: Vec<Searcher>) -> bool {
    // They are connected by a connection of their own each: all have begun once each has its head.
    while searchers.iter().any(|searcher| searcher.told.is_empty()) {
        thread::sleep(Duration::from_millis(1));
        searchers.iter_mut().for_each(Searcher::look);
    }
    let page = get_json(address, "/api/v1/events/history?limit=1");
    assert_eq!(page["events"][0]["offset"], 0);
    let mut behind = Sse::open(address, &format!("topic=**&from=earliest&{SILENT}"), "");
    behind.established();
    assert_eq!(behind.next().expect("it goes on").offset(), 0);
    searchers.iter_mut().for_each(Searcher::look);
    let is_first = !searchers.iter().any(Searcher::has_ended);
    searchers.iter_mut().for_each(Searcher::wait);
    is_first
}

#[test]
fn histories_that_find_nothing_keep_nobody_from_the_log() {
    let running = Running::start("turns-lines", 1);
    let address = running.address();
    fill(address);
    let target = format!("/api/v1/events/history?{NOTHING}");
    let begin = |_| Searcher::begin(address, &target, "application/x-ndjson", b"\r\n\r\n0\r\n\r\n");
    others_have_their_turn(address, || (0..SEARCHES).map(begin).collect());
}

#[test]
fn streams_that_look_for_their_start_keep_nobody_from_the_log() {
    let running = Running::start("turns-last", 1);
    let address = running.address();
    fill(address);
    let target = format!("/api/v1/events/stream?topic=**&from=-10000&{NOTHING}");
    let begin =
        |_| Searcher::begin(address, &target, "text/event-stream", b"connection.established");
    others_have_their_turn(address, || (0..SEARCHES).map(begin).collect());
}
