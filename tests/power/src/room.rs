//! A room: a topic with settings of its own that is made, filled, trimmed, deleted, and made again, whatever becomes of the
//! server. One client alone does all of that, one by one, and so knows to the event what has to be there.
//!
//! What has no answer is asked for again until it has one. Until then it may have been done: the events in question may be gone
//! (`let_go.rs`), and no others.

use std::{io, net::SocketAddr, sync::Arc, thread, time::Instant};

use serde_json::Value;
use strandline_storage::io::sim::rng::SimRng;

use crate::{
    client::{self, PATIENCE, PAUSE},
    ledger::{EventName, Ledger},
    let_go::Done,
    publisher::{Publisher, topic_of},
};

/// Of a hundred steps so many end with a trim, with a deletion, and with a look at what is there.
const TRIMS: u64 = 15;
const DELETIONS: u64 = 10;
const LOOKS: u64 = 15;

/// No log will ever come so far: a condition that is refused, with the offset that would be right.
const NEVER_EXPECTED: u64 = 1 << 53;

/// One room.
pub struct Room {
    address: SocketAddr,
    ledger: Arc<Ledger>,
    number: u32,
    topic: String,
    rng: SimRng,
    publisher: Publisher,
    /// How many of the publisher's appends were taken over.
    taken: usize,
    /// What has to be there, by offset.
    kept: Vec<(u64, EventName)>,
    /// What the room is set to, if it is there: no limit that would ever be reached.
    set: Option<u64>,
    lives: u64,
    /// What is asked for and has no answer,
    asked: Option<Ask>,
    /// and may have been done.
    is_in_doubt: bool,
    /// Something had no answer since it was looked at last.
    is_back: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    /// Settings of its own.
    Make { count: u64 },
    /// Nothing before this offset.
    Trim { before: u64 },
    /// Nothing at all, not even its settings.
    Delete,
}

impl Room {
    pub fn new(address: SocketAddr, ledger: &Arc<Ledger>, number: u32, seed: u64) -> Room {
        let rng = SimRng::new(seed);
        Room {
            address,
            ledger: Arc::clone(ledger),
            number,
            topic: topic_of(number),
            publisher: Publisher::new(address, ledger, number, SimRng::new(seed + 1)),
            rng,
            taken: 0,
            kept: Vec::new(),
            set: None,
            lives: 0,
            asked: None,
            is_in_doubt: false,
            is_back: false,
        }
    }

    /// Does one thing, or tries to; how many events were acknowledged.
    pub fn step(&mut self) -> u32 {
        if self.asked.is_none() && self.set.is_none() {
            self.lives += 1;
            self.asked = Some(Ask::Make { count: 1_000_000 + self.lives });
        }
        if let Some(ask) = self.asked {
            self.ask(ask);
            return 0;
        }
        let events = self.publisher.step(false);
        self.is_back |= events == 0;
        if self.take_over() {
            if self.is_back {
                self.is_back = self.look().is_err();
            }
            match self.rng.below(100) {
                at if at < TRIMS && self.kept.len() > 1 => {
                    let (before, _) = self.kept[1 + self.rng.index(self.kept.len() - 1)];
                    self.asked = Some(Ask::Trim { before });
                    self.ledger.let_go_asked(self.number, before);
                }
                at if (TRIMS..TRIMS + DELETIONS).contains(&at) => {
                    self.asked = Some(Ask::Delete);
                    self.ledger.let_go_asked(self.number, self.end());
                }
                at if at >= 100 - LOOKS => _ = self.look(),
                _ => {}
            }
        }
        events
    }

    /// Asks until all has an answer, and looks a last time.
    pub fn finish(&mut self) {
        let began = Instant::now();
        while let Some(ask) = self.asked {
            if began.elapsed() > PATIENCE {
                let what = format!("{}: {ask:?} has no answer after {PATIENCE:?}", self.topic);
                return self.ledger.break_off(what);
            }
            self.ask(ask);
        }
        self.publisher.finish();
        self.take_over();
        if let Err(error) = self.look() {
            self.ledger.break_off(format!("{}: {error}", self.topic));
        }
    }

    /// Takes over what was acknowledged; whether nothing is on its way.
    fn take_over(&mut self) -> bool {
        let Some(told) = self.publisher.settled() else { return false };
        self.kept.extend(told.skip(self.taken).flat_map(|(first, names)| (first..).zip(names)));
        self.taken = self.publisher.settled().map_or(0, Iterator::count);
        true
    }

    /// Behind the last event ever.
    fn end(&self) -> u64 {
        self.publisher.last_told().map_or(0, |last| last + 1)
    }

    /// Asks for it, once more if need be.
    fn ask(&mut self, ask: Ask) {
        let topic = &self.topic;
        let (line, body) = match ask {
            Ask::Make { count } => (format!("PUT /api/v1/topics/{topic}"), settings_of(count)),
            Ask::Trim { before } => {
                (format!("POST /api/v1/topics/{topic}/trim?before={before}"), String::new())
            }
            Ask::Delete => (format!("DELETE /api/v1/topics/{topic}"), String::new()),
        };
        let answered = client::request(self.address, &line, "*/*", body.as_bytes());
        let (status, answer) = match answered {
            // Full, read-only or about to stop; of what had been written when a write failed nobody knows.
            Err(_) | Ok((503 | 507, _)) => return self.ask_later(),
            Ok(answered) => answered,
        };
        match (ask, status) {
            (Ask::Make { count }, 200) => self.set = Some(count),
            (Ask::Trim { before }, 200) => {
                self.kept.retain(|(offset, _)| *offset >= before);
                self.ledger.let_go(self.number, Done::Trimmed);
            }
            // The log has let all of it go by a limit of its own.
            (Ask::Trim { .. }, 404) if self.ledger.is_limited() => {}
            // It was done by a request without an answer.
            (Ask::Delete, 404) if !self.is_in_doubt => {
                self.ledger.break_off(format!("{line}: nothing is there, of {:?}", self.kept));
            }
            (Ask::Delete, 204 | 404) => {
                (self.set, self.kept) = (None, Vec::new());
                self.ledger.let_go(self.number, Done::Deleted);
            }
            _ => {
                let answer = String::from_utf8_lossy(&answer);
                self.ledger.break_off(format!("{line} was answered {status} {answer}"));
            }
        }
        (self.asked, self.is_in_doubt) = (None, false);
    }

    fn ask_later(&mut self) {
        (self.is_in_doubt, self.is_back) = (true, true);
        thread::sleep(PAUSE);
    }

    /// Looks at all that can be asked about the room, while nothing of it is on its way. An error says that nobody has answered.
    fn look(&mut self) -> io::Result<()> {
        let earliest = |room: &Room| match room.ledger.is_limited() {
            true => client::earliest(room.address),
            false => Ok(0),
        };
        let before = earliest(self)?;
        let topic = self.get(&format!("/api/v1/topics/{}", self.topic))?;
        let page = format!("/api/v1/events/history?topic={}&limit=10000", self.topic);
        let page = self.get(&page)?;
        let last_ever = self.last_ever()?;
        // What goes by a limit of the log may be gone by now, and is not known to be.
        let after = earliest(self)?;
        let found = Found { topic, page, last_ever };
        match found.check(&self.kept, self.set, self.end(), before..=after) {
            Ok(()) => self.ledger.looked(),
            Err(what) => self.ledger.break_off(format!("{}: {what}", self.topic)),
        }
        Ok(())
    }

    fn get(&self, target: &str) -> io::Result<(u16, Value)> {
        let (status, body) =
            client::request(self.address, &format!("GET {target}"), "application/json", b"")?;
        match status {
            200 | 404 => Ok((status, serde_json::from_slice(&body)?)),
            _ => Err(io::Error::other(format!("{target}: {status}"))),
        }
    }

    /// One more than the offset of the last event that the room ever had, as a condition that cannot hold is told.
    fn last_ever(&self) -> io::Result<u64> {
        let line = format!("POST /api/v1/topics/{}/events", self.topic);
        let fields = format!("Expected-Offset: {NEVER_EXPECTED}\r\n");
        let (status, body) = client::request_with(self.address, &line, "*/*", &fields, b"1")?;
        let body: Value = serde_json::from_slice(&body)?;
        match (status, body["expected_offset"].as_u64()) {
            (412, Some(expected)) => Ok(expected),
            _ => Err(io::Error::other(format!("{line}: {status} {body}"))),
        }
    }
}

fn settings_of(count: u64) -> String {
    format!(r#"{{"retain":{{"count":{count}}}}}"#)
}

/// What was found of a room.
struct Found {
    topic: (u16, Value),
    page: (u16, Value),
    last_ever: u64,
}

impl Found {
    /// Whether that is all that is kept, and what is set; of the log everything is gone before some offset that lay in `earliest`
    /// meanwhile.
    fn check(
        &self,
        kept: &[(u64, EventName)],
        set: Option<u64>,
        end: u64,
        earliest: std::ops::RangeInclusive<u64>,
    ) -> Result<(), String> {
        let wrong = |what: String| {
            Err(format!("{what}, though it has {kept:?}, set {set:?}: {:?}", self.topic))
        };
        let ((status, topic), (_, page)) = (&self.topic, &self.page);
        let count_of = |from: u64| kept.iter().filter(|(offset, _)| *offset >= from).count() as u64;
        let (count_max, count_min) = (count_of(*earliest.start()), count_of(*earliest.end()));
        let count = topic["count"].as_u64().unwrap_or(0);
        if !(count_min..=count_max).contains(&count) {
            return wrong(format!("it is said to have {count} events"));
        }
        let first = kept
            .iter()
            .find(|(offset, _)| earliest.start() == earliest.end() && offset >= earliest.end());
        if let Some((first, _)) = first {
            let last = kept.last().map(|(offset, _)| *offset);
            if (topic["first"].as_u64(), topic["last"].as_u64()) != (Some(*first), last) {
                return wrong("it is said to begin or end elsewhere".to_owned());
            }
        }
        if (*status == 200) != (set.is_some() || count > 0) {
            return wrong(format!("it is answered {status}"));
        }
        if set.is_some() && topic["settings"]["retain"]["count"].as_u64() != set {
            return wrong("other settings hold".to_owned());
        }
        if self.last_ever != end {
            return wrong(format!("the next is to be {}, not {end}", self.last_ever));
        }
        if !page["next"].is_null() || !page["gap"].is_null() {
            // Reading failed, which says nothing of what is there.
            return Ok(());
        }
        let events = page["events"].as_array().map_or(&[][..], Vec::as_slice);
        let read: Option<Vec<_>> = events
            .iter()
            .map(|event| Some((event["offset"].as_u64()?, EventName::of_data(&event["data"])?)))
            .collect();
        let Some(read) = read else { return wrong(format!("it was read as {page}")) };
        let skipped = kept.len() - kept.len().min(read.len());
        let is_end = kept[skipped..] == read[..];
        if !is_end || !(count_min..=count_max).contains(&(read.len() as u64)) {
            return wrong(format!("it was read as {read:?}"));
        }
        Ok(())
    }
}
