//! A disk that is full: appends are refused, and go on by themselves once there is space, be it that somebody removes
//! other files, or that the log itself lets some of its events go.

use std::{
    fs::{self, File},
    io::{self, Write},
    net::SocketAddr,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use strandline_storage::io::sim::rng::SimRng;

use crate::{
    check::check,
    client::{self, Load, Retention},
    ledger::{EventName, Ledger, MORTAL},
    server::Server,
};

const BALLAST_BYTES: usize = 24 << 20;
/// What else is on a disk that the log itself frees.
const FIXED_BALLAST_BYTES: usize = 60 << 20;
const PUBLISHERS: u32 = 3;
/// Who asks whether an append is taken, beside the load.
const PROBE: u32 = 102;
const PROBE_BYTES: usize = 20_000;
/// When there is space again, appends go on within this time.
const SPACE_BACK_MAX: Duration = Duration::from_secs(30);
/// A disk stays full for so long: what compression alone gives is used up.
const STAYS_FULL: Duration = Duration::from_secs(3);
/// A disk is filled within this time.
const FULL_MAX: Duration = Duration::from_secs(120);

/// How old events become in a log that frees its disk by their age; longer than it takes to fill that.
const AGE_S: u64 = 20;
/// So much a log keeps that is to have little left.
const FEW_BYTES: u64 = 4 << 20;
/// Of so many events one is in a topic that stays.
const OF_WHICH_STAYS: u32 = 8;
/// How long an event is that fills the disk.
const BULK_BYTES: usize = 16_000;
/// So many of these are taken once there is space: far more than what any compression could give.
const TAKEN_AFTERWARDS: u32 = 400;

/// The topic whose events go, and the one whose events stay unless those of the whole log go.
const BULK: &str = "bulk";
const STAYS: &str = "stays";

/// Fills the disk, and makes room again.
pub fn run(program: &Path, dir: &Path, seed: u64) -> io::Result<()> {
    let server = Server::new(program, &dir.join("data"), &dir.join("server.log"))?;
    let ballast = [dir.join("ballast-0"), dir.join("ballast-1")];
    for path in &ballast {
        let mut file = File::create(path)?;
        file.write_all(&vec![1; BALLAST_BYTES])?;
        file.sync_all()?;
    }
    let ledger = Arc::new(Ledger::default());
    let running = server.start()?;
    let load = Load::start(server.address, &ledger, PUBLISHERS, Retention::None, seed);
    let mut probe = Probe::new(&server, &ledger, "probe", PROBE);
    probe.until(507, PROBE_BYTES, FULL_MAX)?;
    let before = ledger.counts();
    check(&server, &ledger, true)?;
    fs::remove_file(&ballast[0])?;
    let began = Instant::now();
    probe.until(201, PROBE_BYTES, SPACE_BACK_MAX)?;
    let waited = began.elapsed();
    check(&server, &ledger, true)?;
    probe.until(507, PROBE_BYTES, FULL_MAX)?;
    running.kill();
    let running = server.start()?;
    check(&server, &ledger, true)?;
    fs::remove_file(&ballast[1])?;
    probe.until(201, PROBE_BYTES, SPACE_BACK_MAX)?;
    load.stop();
    check(&server, &ledger, true)?;
    running.kill();
    println!("a full disk: {before} when full; appends went on {waited:?} after there was space");
    Ok(())
}

/// By what a full disk has space again, with no other file removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freeing {
    /// The log keeps events for some seconds, as it did before.
    Age,
    /// The log is told to keep few bytes.
    Bytes,
    /// The topic with most of the events is deleted.
    Delete,
    /// It is trimmed.
    Trim,
}

impl Freeing {
    pub const ALL: [Freeing; 4] = [Freeing::Age, Freeing::Bytes, Freeing::Delete, Freeing::Trim];

    /// What is set before the disk is full.
    fn before(self) -> Option<(&'static str, String)> {
        let settings = format!(r#"{{"retain":{{"age_s":{AGE_S}}}}}"#);
        (self == Freeing::Age).then_some(("PUT /api/v1/logs/main", settings))
    }

    /// What is asked for when it is.
    fn when_full(self) -> Option<(String, String)> {
        match self {
            Freeing::Age => None,
            Freeing::Bytes => {
                let settings = format!(r#"{{"retain":{{"bytes":{FEW_BYTES}}}}}"#);
                Some(("PUT /api/v1/logs/main".to_owned(), settings))
            }
            Freeing::Delete => Some((format!("DELETE /api/v1/topics/{BULK}"), String::new())),
            Freeing::Trim => {
                let line = format!("POST /api/v1/topics/{BULK}/trim?before=1000000");
                Some((line, String::new()))
            }
        }
    }

    /// Whether all events of the log may be gone.
    fn is_of_all(self) -> bool {
        matches!(self, Freeing::Age | Freeing::Bytes)
    }

    /// What does not go by this is there, and so is the newest event.
    fn check(self, server: &Server, ledger: &Ledger, all: [&Probe<'_>; 2]) -> io::Result<()> {
        let [bulk, stays] = all;
        let (earliest, read) = read_all(server.address)?;
        ledger.check(earliest, &read, false).map_err(io::Error::other)?;
        let of = |who: &Probe<'_>| {
            read.iter().filter(|(_, name)| name.publisher == who.publisher).count()
        };
        let (of_bulk, of_stays) = (of(bulk), of(stays));
        let is_freed = of_bulk < bulk.taken as usize;
        let is_kept = self.is_of_all() || of_stays == stays.taken as usize;
        let newest = read.last().map(|(_, name)| *name);
        if is_freed && is_kept && newest == bulk.last {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "{of_bulk} of {} are there, {of_stays} of {}, the newest {newest:?}, not {:?}",
            bulk.taken, stays.taken, bulk.last
        )))
    }
}

/// Fills the disk with events, lets the log free it in one way, and appends go on by themselves. What was acknowledged
/// and does not go by that is there, also after a restart.
pub fn freed(program: &Path, dir: &Path, freeing: Freeing) -> io::Result<()> {
    let server = Server::new(program, &dir.join("data"), &dir.join("server.log"))?;
    let mut ballast = File::create(dir.join("ballast"))?;
    ballast.write_all(&vec![1; FIXED_BALLAST_BYTES])?;
    ballast.sync_all()?;
    let ledger = Arc::new(Ledger::default());
    let running = server.start()?;
    if let Some((line, body)) = freeing.before() {
        ask(server.address, line, &body)?;
    }
    let who_stays = if freeing.is_of_all() { MORTAL + 3 } else { PROBE };
    let mut bulk = Probe::new(&server, &ledger, BULK, MORTAL);
    let mut stays = Probe::new(&server, &ledger, STAYS, who_stays);
    let began = Instant::now();
    let mut refused_since: Option<Instant> = None;
    while refused_since.is_none_or(|since| since.elapsed() < STAYS_FULL) {
        match bulk.append(BULK_BYTES)? {
            201 => refused_since = None,
            _ => _ = refused_since.get_or_insert_with(Instant::now),
        }
        if refused_since.is_some() {
            thread::sleep(Duration::from_millis(20));
        } else if bulk.sent.is_multiple_of(OF_WHICH_STAYS) {
            stays.append(2_000)?;
        }
        if began.elapsed() > FULL_MAX {
            return Err(io::Error::other("the disk is never full"));
        }
    }
    let taken = bulk.taken + stays.taken;
    let (filled, began) = (began.elapsed(), Instant::now());
    if let Some((line, body)) = freeing.when_full() {
        ask(server.address, &line, &body)?;
    }
    let patience = match freeing {
        Freeing::Age => SPACE_BACK_MAX + Duration::from_secs(AGE_S),
        _ => SPACE_BACK_MAX,
    };
    bulk.until(201, BULK_BYTES, patience)?;
    let waited = began.elapsed();
    for _ in 0..TAKEN_AFTERWARDS {
        bulk.until(201, BULK_BYTES, SPACE_BACK_MAX)?;
    }
    freeing.check(&server, &ledger, [&bulk, &stays])?;
    running.kill();
    let running = server.start()?;
    freeing.check(&server, &ledger, [&bulk, &stays])?;
    bulk.until(201, BULK_BYTES, SPACE_BACK_MAX)?;
    running.kill();
    println!(
        "a full disk, {freeing:?}: {taken} events in {filled:?} until it was full; appends went on {waited:?} later"
    );
    Ok(())
}

/// From where on there are events, and those.
fn read_all(address: SocketAddr) -> io::Result<(u64, Vec<(u64, EventName)>)> {
    let began = Instant::now();
    loop {
        let earliest = client::earliest(address)?;
        match client::read_log(address, earliest) {
            // More may go meanwhile.
            Err(_) if began.elapsed() < client::PATIENCE => {}
            read => return Ok((earliest, read?.0)),
        }
    }
}

/// What a full disk has to take.
fn ask(address: SocketAddr, line: &str, body: &str) -> io::Result<()> {
    let (status, answer) = client::request(address, line, "*/*", body.as_bytes())?;
    match status {
        200 | 204 => Ok(()),
        _ => {
            let answer = String::from_utf8_lossy(&answer);
            Err(io::Error::other(format!("{line} {body}: {status} {answer}")))
        }
    }
}

/// Appends events of a topic, one by one.
struct Probe<'a> {
    address: SocketAddr,
    ledger: &'a Ledger,
    line: String,
    publisher: u32,
    sent: u32,
    taken: u32,
    /// What was taken last.
    last: Option<EventName>,
    rng: SimRng,
}

impl<'a> Probe<'a> {
    fn new(server: &Server, ledger: &'a Ledger, topic: &str, publisher: u32) -> Probe<'a> {
        let line = format!("POST /api/v1/topics/{topic}/events");
        Probe {
            address: server.address,
            ledger,
            line,
            publisher,
            sent: 0,
            taken: 0,
            last: None,
            rng: SimRng::new(1),
        }
    }

    /// Appends an event of so many bytes; what the answer was.
    fn append(&mut self, bytes: usize) -> io::Result<u16> {
        let name = EventName { publisher: self.publisher, batch: self.sent, at: 0, of: 1 };
        self.sent += 1;
        // As little of it as can be gets shorter: a full disk has space again by compression alone.
        let noise = self.rng.bytes(bytes);
        let padding: String = noise.iter().map(|byte| char::from(byte % 91 + 35)).collect();
        let padding = padding.replace('\\', "!");
        let body = format!(r#"{{"id":"{name}","padding":"{padding}"}}"#);
        let (status, answer) = client::request(self.address, &self.line, "*/*", body.as_bytes())?;
        if status == 201 {
            self.taken += 1;
            self.last = Some(name);
            let answer: serde_json::Value = serde_json::from_slice(&answer)?;
            let offset = answer["offset"].as_u64();
            self.ledger.acknowledged(offset.ok_or(io::ErrorKind::InvalidData)?, &[name]);
        }
        Ok(status)
    }

    /// Appends events of so many bytes until one is answered with `status`.
    fn until(&mut self, status: u16, bytes: usize, patience: Duration) -> io::Result<()> {
        let began = Instant::now();
        let mut answered = 0;
        while began.elapsed() < patience {
            answered = self.append(bytes)?;
            if answered == status {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Err(io::Error::other(format!("still {answered}, not {status}, after {patience:?}")))
    }
}
