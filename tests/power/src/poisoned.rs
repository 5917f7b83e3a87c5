//! A disk that fails under a running server. Where a write or a sync fails the log takes no more writes, says why, and is
//! read on; where reads fail it goes on, and what was not read is there once they work again.

use std::{io, path::Path, sync::Arc};

use serde_json::Value;
use strandline_storage::io::sim::Fault;

use crate::{
    check::check,
    client,
    disk::PowerDisk,
    ledger::{EventName, Ledger},
    mount::{Mounted, pass_over_power_disk},
    server::Server,
    untold,
};

/// Who appends; its events stay.
const PUBLISHER: u32 = 0;
/// So many appends at the most meet the fault.
const APPENDS_MAX: u32 = 1000;
/// So many reads in a row fail: more than anybody tries again.
const READS_FAIL: usize = 10_000;

/// Lets a write fail, a sync, and reads; says so and passes it over where nothing can be mounted.
pub fn run(program: &Path, work: &Path, seed: u64) -> io::Result<()> {
    for (fault, part) in [(Fault::WriteFails, "write"), (Fault::SyncFails, "sync")] {
        let disk = Arc::new(PowerDisk::new(seed));
        let mounted = match Mounted::new(&disk, &work.join(part)) {
            Ok(mounted) => mounted,
            Err(error) => return pass_over_power_disk(&error),
        };
        let data = mounted.dir().join("data");
        let server = Server::new(program, &data, &work.join("server.log"))?;
        let reason = poison(&server, &disk, fault, work)?;
        if fault == Fault::SyncFails && !reason.contains("sync") {
            return Err(io::Error::other(format!("a sync failed, and the reason is {reason:?}")));
        }
        println!("{fault:?}: \"{reason}\", read on, and appended to after a restart");
    }
    let disk = Arc::new(PowerDisk::new(seed));
    let mounted = Mounted::new(&disk, &work.join("read"))?;
    let server = Server::new(program, &mounted.dir().join("data"), &work.join("server.log"))?;
    fail_reads(&server, &disk)?;
    println!("ReadFails: a gap is told, and all is there once reads work again");
    untold::run(program, work, seed)
}

/// Lets one read fail, which is tried again, and then all of them: what is missing is told, and appends go on.
fn fail_reads(server: &Server, disk: &PowerDisk) -> io::Result<()> {
    let ledger = Ledger::default();
    let mut appends = Appends::new(server, &ledger);
    let running = server.start()?;
    for _ in 0..20 {
        appends.expect(201)?;
    }
    // Of what another process wrote nothing is in memory.
    running.kill();
    let running = server.start()?;
    disk.arm(Fault::ReadFails, 0);
    check(server, &ledger, true)?;
    if disk.struck().is_empty() {
        return Err(io::Error::other("nothing was read from the disk"));
    }
    (0..READS_FAIL).for_each(|_| disk.arm(Fault::ReadFails, 0));
    let page = client::get(server.address, "/api/v1/events/history?from=0", "application/json")?;
    let page: Value = serde_json::from_slice(&page)?;
    if page["gap"]["from"] != 0 {
        return Err(io::Error::other(format!("reads fail, and no gap is told: {page}")));
    }
    appends.expect(201)?;
    disk.disarm();
    check(server, &ledger, true)?;
    let ready = ready(server)?;
    if ready["appends"] != true {
        return Err(io::Error::other(format!("/readyz says {ready}")));
    }
    running.kill();
    Ok(())
}

/// What `/readyz` says.
pub fn ready(server: &Server) -> io::Result<Value> {
    Ok(serde_json::from_slice(&client::get(server.address, "/readyz", "application/json")?)?)
}

/// Starts the server, lets the fault strike, looks at what it says, and starts it again. Returns the reason.
fn poison(server: &Server, disk: &PowerDisk, fault: Fault, work: &Path) -> io::Result<String> {
    let ledger = Ledger::default();
    let mut appends = Appends::new(server, &ledger);
    let mut running = server.start()?;
    for _ in 0..20 {
        appends.expect(201)?;
    }
    let refused = loop {
        // What is not the log's may meet it too.
        disk.arm(fault, 0);
        match appends.next()? {
            (201, _) if appends.sent < APPENDS_MAX => {}
            (503, answer) => break answer,
            (status, answer) => return Err(io::Error::other(format!("{status} {answer}"))),
        }
    };
    let ready = ready(server)?;
    let reason = ready["reason"].as_str().unwrap_or_default().to_owned();
    let is_said = ready["status"] == "read-only"
        && ready["reads"] == true
        && ready["appends"] == false
        && !reason.is_empty();
    if !is_said {
        return Err(io::Error::other(format!("/readyz says {ready}")));
    }
    for answer in [refused, appends.expect(503)?] {
        let detail = answer["detail"].as_str().unwrap_or_default();
        let is_told = answer["type"] == "/problems/read-only"
            && detail.contains(&reason)
            && !detail.contains(&*work.to_string_lossy());
        if !is_told {
            return Err(io::Error::other(format!("not told that {reason:?}: {answer}")));
        }
    }
    for (line, body) in [
        ("DELETE /api/v1/topics/failing", ""),
        ("PUT /api/v1/logs/main", r#"{"retain":{"count":1}}"#),
    ] {
        let (status, _) = client::request(server.address, line, "*/*", body.as_bytes())?;
        if status != 503 {
            return Err(io::Error::other(format!("{line}: {status}")));
        }
    }
    // All that was acknowledged, and so was visible, can be read.
    check(server, &ledger, true)?;
    if running.has_ended() {
        return Err(io::Error::other("it has ended"));
    }
    running.kill();
    disk.restore();
    let running = server.start()?;
    check(server, &ledger, true)?;
    appends.expect(201)?;
    check(server, &ledger, true)?;
    running.kill();
    Ok(reason)
}

/// Appends events one by one.
pub struct Appends<'a> {
    server: &'a Server,
    ledger: &'a Ledger,
    sent: u32,
}

impl<'a> Appends<'a> {
    pub fn new(server: &'a Server, ledger: &'a Ledger) -> Appends<'a> {
        Appends { server, ledger, sent: 0 }
    }

    /// Appends one event: the status, and the body.
    fn next(&mut self) -> io::Result<(u16, Value)> {
        let name = EventName { publisher: PUBLISHER, batch: self.sent, at: 0, of: 1 };
        self.sent += 1;
        let body = format!(r#"{{"id":"{name}","padding":"{}"}}"#, "x".repeat(3000));
        let line = "POST /api/v1/topics/failing/events";
        let (status, answer) = client::request(self.server.address, line, "*/*", body.as_bytes())?;
        let answer: Value = serde_json::from_slice(&answer)?;
        if status == 201 {
            let offset = answer["offset"].as_u64().ok_or(io::ErrorKind::InvalidData)?;
            self.ledger.acknowledged(offset, &[name]);
        }
        Ok((status, answer))
    }

    /// Appends one, and that is the status: the body.
    pub fn expect(&mut self, status: u16) -> io::Result<Value> {
        match self.next()? {
            (answered, answer) if answered == status => Ok(answer),
            (answered, answer) => {
                Err(io::Error::other(format!("{answered} instead of {status}: {answer}")))
            }
        }
    }
}
