//! A publisher, who goes on whatever becomes of the server. One whose appends are known again sends what
//! was not answered once more, and asks again about what was: at every return of the server, now and
//! then in between, and about all of it, as far as ids are remembered, in the end.

use std::{
    io::{self, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use strandline_storage::io::sim::rng::SimRng;

use crate::{
    client::{Head, MORTAL_TOPICS, PATIENCE, PAUSE, connect},
    ledger::{Asked, EventName, Ledger, MORTAL, ROOMS},
    once::{Answer, Batch, Claim, IdsKnown, Producer, Reply, Way, check_ids, id_window_s},
};

/// The events of a long append, of [`PADDING_BYTES_MAX`] each.
const LONG_EVENTS: u32 = 40;
const PADDING_BYTES_MAX: usize = 6000;

/// Of events that must never be stored.
const NEVER: u32 = u32::MAX;

/// A new epoch of a producer: after so many appends, on average.
const EPOCH_BATCHES: u64 = 50;

/// How many of a hundred appends are sent again at once, without waiting for the answer.
const IMPATIENT: u64 = 6;

/// What is asked when the server is there again.
const ASKED_AGAIN: u32 = 3;
/// What is asked in the end at most.
const ASKED_LAST: usize = 200;
/// Ids that are forgotten within this time are not asked for any more.
const WINDOW_MARGIN: Duration = Duration::from_secs(60);

/// One publisher.
pub struct Publisher {
    address: SocketAddr,
    ledger: Arc<Ledger>,
    number: u32,
    way: Way,
    rng: SimRng,
    connection: Option<BufReader<TcpStream>>,
    batches: u32,
    pending: Option<Pending>,
    producer: Producer,
    told: Vec<Told>,
    /// How long ids are remembered.
    window: Duration,
    /// An answer was lost since something was acknowledged last.
    is_back: bool,
}

/// What was sent, or is to be, and is not acknowledged.
struct Pending {
    batch: Batch,
    /// It may be in the log.
    is_in_doubt: bool,
    /// An answer was lost, or said nothing.
    is_lost: bool,
    began: Instant,
}

impl Pending {
    fn lose(&mut self) {
        (self.is_in_doubt, self.is_lost) = (true, true);
    }
}

/// What was acknowledged.
#[derive(Clone, Copy)]
struct Told {
    batch: Batch,
    first: u64,
    began: Instant,
}

/// Why there is no answer.
enum NoAnswer {
    /// Nobody has listened.
    NotSent,
    Lost,
    /// It cannot be true, and that was said.
    Wrong,
}

impl Publisher {
    pub fn new(address: SocketAddr, ledger: &Arc<Ledger>, number: u32, rng: SimRng) -> Publisher {
        Publisher {
            address,
            ledger: Arc::clone(ledger),
            number,
            way: Way::of(number),
            rng,
            connection: None,
            batches: 0,
            pending: None,
            producer: Producer::default(),
            told: Vec::new(),
            window: Duration::MAX,
            is_back: false,
        }
    }

    /// Appends a batch, or tries to; perhaps a long one. How many events were acknowledged.
    pub fn step(&mut self, is_long: bool) -> u32 {
        if self.is_back
            && let Some(last) = self.told.last().copied()
            && let Err(NoAnswer::NotSent | NoAnswer::Lost) = self.ask_again(last, false)
        {
            thread::sleep(PAUSE);
            return 0;
        }
        let pending = self.pending.take().unwrap_or_else(|| self.next(is_long));
        let events = pending.batch.first.of;
        if !self.publish(pending) {
            thread::sleep(PAUSE);
            return 0;
        }
        let asked = match std::mem::take(&mut self.is_back) {
            true => ASKED_AGAIN,
            false => u32::from(self.rng.chance(6)),
        };
        for _ in 0..asked {
            // Who has no answer asks when the server is back.
            let _ = self.ask();
        }
        // Fast enough for frames in flight at every moment, slow enough to read it all later.
        thread::sleep(Duration::from_micros(self.rng.below(1500)));
        events
    }

    /// All that was acknowledged, if nothing else is on its way: the offsets of the first events, and the names of all.
    pub fn settled(&self) -> Option<impl Iterator<Item = (u64, Vec<EventName>)>> {
        let told = self.told.iter().map(|told| (told.first, told.batch.names()));
        self.pending.is_none().then_some(told)
    }

    /// The offset of the last event that was acknowledged.
    pub fn last_told(&self) -> Option<u64> {
        self.told.last().map(|told| told.first + u64::from(told.batch.first.of) - 1)
    }

    /// Sends what is not answered until it is, and asks once more about what was acknowledged.
    pub fn finish(&mut self) {
        let began = Instant::now();
        while let Some(pending) = self.pending.take() {
            if began.elapsed() > PATIENCE {
                let what = format!("{} has no answer after {PATIENCE:?}", pending.batch.first);
                return self.ledger.break_off(what);
            }
            if !self.publish(pending) {
                thread::sleep(PAUSE);
            }
        }
        if self.way == Way::Plain {
            return;
        }
        let told = self.told[self.forgotten()..].to_vec();
        for told in told.iter().step_by(told.len() / ASKED_LAST + 1) {
            let _ = self.ask_again(*told, false);
        }
    }

    fn next(&mut self, is_long: bool) -> Pending {
        let of = if is_long { LONG_EVENTS } else { *self.rng.pick(&[1, 1, 1, 2, 5]) };
        let padding_bytes = if is_long {
            PADDING_BYTES_MAX
        } else {
            *self.rng.pick(&[0, 10, 100, 1000, PADDING_BYTES_MAX])
        };
        let first = EventName { publisher: self.number, batch: self.batches, at: 0, of };
        self.batches += 1;
        let mut batch = Batch { first, padding_bytes, claim: None };
        if self.way == Way::Producer {
            batch.claim = Some(match self.producer.last(batch.scope()) {
                None => Claim { epoch: 0, seq: 0 },
                Some(last) if self.rng.below(EPOCH_BATCHES) == 0 => {
                    Claim { epoch: last.epoch + 1, seq: 0 }
                }
                Some(last) => Claim { epoch: last.epoch, seq: last.seq + 1 },
            });
        }
        Pending { batch, is_in_doubt: false, is_lost: false, began: Instant::now() }
    }

    /// Whether it was acknowledged.
    fn publish(&mut self, mut pending: Pending) -> bool {
        let Pending { batch, began, .. } = pending;
        let has_left = !pending.is_in_doubt && self.rng.chance(IMPATIENT) && self.leave(&batch);
        pending.is_in_doubt |= has_left;
        let known = if pending.is_in_doubt { IdsKnown::InDoubt } else { IdsKnown::Never };
        match self.send(&batch, known, false) {
            Ok(Reply::Refused | Reply::Full) => self.ledger.refused(),
            Ok(Reply::InFlight) => {}
            Ok(Reply::InDoubt) => {
                self.ledger.refused();
                pending.lose();
            }
            Ok(reply) => {
                let (Reply::Stored { first } | Reply::Known { first: Some(first), .. }) = reply
                else {
                    self.ledger.break_off(format!("{} was answered {reply:?}", batch.first));
                    return false;
                };
                match (pending.is_lost, matches!(reply, Reply::Known { .. })) {
                    (true, true) => self.ledger.asked(Asked::WasThere),
                    (true, false) => self.ledger.asked(Asked::WasNotThere),
                    (false, true) => self.ledger.asked(Asked::Twice),
                    (false, false) => {}
                }
                self.ledger.acknowledged(first, &batch.names());
                self.told.push(Told { batch, first, began });
                return true;
            }
            Err(NoAnswer::NotSent) => {}
            Err(NoAnswer::Lost) => pending.lose(),
            Err(NoAnswer::Wrong) => return false,
        }
        if self.way != Way::Plain {
            self.pending = Some(pending);
        }
        false
    }

    /// Asks about something that was acknowledged, with its own bytes or others; or sends as a producer
    /// what is not its turn.
    fn ask(&mut self) -> Result<(), NoAnswer> {
        let forgotten = self.forgotten();
        let told = self.told[forgotten..].len();
        match self.way {
            Way::Producer if self.rng.chance(50) => self.ask_out_of_turn(),
            Way::Ids | Way::Producer if told > 0 => {
                // Half of it of what came last.
                let among = if self.rng.chance(50) { told.min(10) } else { told } as u64;
                let back = usize::try_from(self.rng.below(among)).expect("an index");
                let is_other = self.rng.chance(50);
                self.ask_again(self.told[self.told.len() - 1 - back], is_other)
            }
            _ => Ok(()),
        }
    }

    /// Sends once more what was acknowledged, or other bytes in its place.
    fn ask_again(&mut self, told: Told, is_other: bool) -> Result<(), NoAnswer> {
        if self.way == Way::Plain || told.began.elapsed() > self.remembered() {
            return Ok(());
        }
        match self.send(&told.batch, IdsKnown::At(told.first), is_other)? {
            Reply::Known { .. } => self.ledger.asked(Asked::Again),
            Reply::Refused | Reply::Full | Reply::InDoubt | Reply::InFlight => {}
            _ => self.ledger.asked(Asked::Wrong),
        }
        Ok(())
    }

    /// Sends a sequence that leaves some out, or of an epoch that has ended.
    fn ask_out_of_turn(&mut self) -> Result<(), NoAnswer> {
        let of = *self.rng.pick(&[1, 2]);
        let first = EventName { publisher: self.number, batch: NEVER, at: 0, of };
        let mut batch = Batch { first, padding_bytes: 0, claim: None };
        let last = self.producer.last(batch.scope()).unwrap_or(Claim { epoch: 0, seq: 0 });
        let ahead = Claim { seq: last.seq + self.rng.between(2, 5), ..last };
        batch.claim = Some(match last.epoch.checked_sub(1) {
            Some(epoch) if self.rng.chance(50) => Claim { epoch, ..ahead },
            _ => ahead,
        });
        if let Reply::Gap { .. } | Reply::Stale { .. } =
            self.send(&batch, IdsKnown::Never, false)?
        {
            self.ledger.asked(Asked::Wrong);
        }
        Ok(())
    }

    /// How many of what was acknowledged nobody need know any more.
    fn forgotten(&self) -> usize {
        self.told.partition_point(|told| told.began.elapsed() > self.remembered())
    }

    fn remembered(&self) -> Duration {
        self.window.saturating_sub(WINDOW_MARGIN)
    }

    /// What the server says to a batch, if it can be true.
    fn send(&mut self, batch: &Batch, known: IdsKnown, is_other: bool) -> Result<Reply, NoAnswer> {
        let answer = match self.exchange(batch, is_other) {
            Ok(answer) => answer,
            Err(no_answer) => {
                (self.connection, self.is_back) = (None, true);
                if let (NoAnswer::Lost, Way::Producer) = (&no_answer, self.way) {
                    self.producer.lost(batch);
                }
                return Err(no_answer);
            }
        };
        let checked = Reply::of(batch, &answer).and_then(|reply| {
            match self.way {
                Way::Plain => check_ids(batch, IdsKnown::Never, false, reply)?,
                Way::Ids => check_ids(batch, known, is_other, reply)?,
                Way::Producer => self.producer.answered(batch, reply)?,
            }
            Ok(reply)
        });
        if let Some(seconds) = id_window_s(&answer) {
            self.window = Duration::from_secs(seconds);
        }
        checked.map_err(|wrong| {
            self.ledger.break_off(wrong);
            NoAnswer::Wrong
        })
    }

    /// Sends a batch and goes without an answer, which is not to say that the server is gone: what is
    /// sent next may overtake it, so nothing else may be asked before it is answered. Whether it was sent.
    fn leave(&mut self, batch: &Batch) -> bool {
        if self.way == Way::Plain || self.connect().is_err() {
            return false;
        }
        let mut stream = self.connection.take().expect("it was just made").into_inner();
        let _ = stream.write_all(request(batch, false).as_bytes());
        if self.way == Way::Producer {
            self.producer.lost(batch);
        }
        true
    }

    fn connect(&mut self) -> Result<&mut BufReader<TcpStream>, NoAnswer> {
        if self.connection.is_none() {
            let connection = connect(self.address).map_err(|_| NoAnswer::NotSent)?;
            self.connection = Some(BufReader::new(connection));
        }
        Ok(self.connection.as_mut().expect("it was just made"))
    }

    fn exchange(&mut self, batch: &Batch, is_other: bool) -> Result<Answer, NoAnswer> {
        let stream = self.connect()?;
        let mut exchange = || {
            stream.get_mut().write_all(request(batch, is_other).as_bytes())?;
            read_answer(stream)
        };
        exchange().map_err(|_: io::Error| NoAnswer::Lost)
    }
}

fn read_answer(stream: &mut BufReader<TcpStream>) -> io::Result<Answer> {
    let head = Head::read(stream)?;
    let mut body = vec![0; head.body_bytes().unwrap_or(0)];
    stream.read_exact(&mut body)?;
    let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body)? };
    Ok(Answer { head, body })
}

/// The topic of a publisher.
pub fn topic_of(publisher: u32) -> String {
    let topics = match publisher {
        ROOMS.. => "rooms",
        MORTAL..ROOMS => MORTAL_TOPICS,
        _ => "load",
    };
    format!("{topics}/{publisher}")
}

/// One event as a raw body, several as an array. In place of what the last one says something else, if
/// `is_other`.
fn request(batch: &Batch, is_other: bool) -> String {
    let Batch { first, padding_bytes, claim } = *batch;
    let padding = "x".repeat(padding_bytes);
    let topic = topic_of(first.publisher);
    let has_ids = Way::of(first.publisher) == Way::Ids;
    let data = |name: &EventName| {
        let batch = if is_other && name.at + 1 == name.of { NEVER } else { name.batch };
        let name = EventName { batch, ..*name };
        format!(r#"{{"id":"{name}","padding":"{padding}"}}"#)
    };
    let mut fields = String::new();
    if let Some(Claim { epoch, seq }) = claim {
        fields = format!(
            "Producer-Id: p{}\r\nProducer-Epoch: {epoch}\r\nProducer-Seq: {seq}\r\n",
            first.publisher
        );
    }
    let (target, body) = match &*batch.names() {
        [name] => {
            if has_ids {
                fields = format!("Event-Id: {name}\r\n");
            }
            (format!("/api/v1/topics/{topic}/events"), data(name))
        }
        names => {
            let events = names.iter().map(|name| {
                let id = if has_ids { format!(r#""id":"{name}","#) } else { String::new() };
                format!(r#"{{"topic":"{topic}",{id}"data":{}}}"#, data(name))
            });
            ("/api/v1/events".to_owned(), format!("[{}]", events.collect::<Vec<_>>().join(",")))
        }
    };
    format!(
        "POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{fields}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}
