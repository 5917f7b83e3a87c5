//! A disk that fails under a running server: the log takes no more writes, says why, and is read on.

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
};

/// Who appends; its events stay.
const PUBLISHER: u32 = 0;
/// So many appends at the most meet the fault.
const APPENDS_MAX: u32 = 1000;

/// Lets a write fail, and a sync; says so and passes it over where nothing can be mounted.
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
    Ok(())
}

/// Starts the server, lets the fault strike, looks at what it says, and starts it again. Returns the reason.
fn poison(server: &Server, disk: &PowerDisk, fault: Fault, work: &Path) -> io::Result<String> {
    let ledger = Ledger::default();
    let mut appends = Appends { server, ledger: &ledger, sent: 0 };
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
    let ready: Value =
        serde_json::from_slice(&client::get(server.address, "/readyz", "application/json")?)?;
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

struct Appends<'a> {
    server: &'a Server,
    ledger: &'a Ledger,
    sent: u32,
}

impl Appends<'_> {
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

    fn expect(&mut self, status: u16) -> io::Result<Value> {
        match self.next()? {
            (answered, answer) if answered == status => Ok(answer),
            (answered, answer) => {
                Err(io::Error::other(format!("{answered} instead of {status}: {answer}")))
            }
        }
    }
}
