//! A disk that does not say what it is asked (how much space it has, what a directory holds, what a file is), or that
//! refuses to open or to link. A start goes on or is refused, and says why; a server that runs goes on; a backup is whole or
//! there is none, and the one before stays; and nothing is lost.

use std::{io, path::Path, sync::Arc};

use strandline_storage::io::sim::Fault;

use crate::{
    backup::Backups,
    check::check,
    client,
    disk::PowerDisk,
    ledger::Ledger,
    mount::{Mounted, pass_over_power_disk},
    poisoned::{Appends, ready},
    server::{Running, Server},
};

/// More than anybody asks in a run.
const ALWAYS: usize = 100_000;
/// The kernel asks for what a name is once more before it believes an error.
const IN_A_ROW: usize = 2;
/// What a start and a backup meet at each place where they can.
const ASKED: [Fault; 3] = [Fault::ListFails, Fault::StatFails, Fault::OpenFails];

/// Lets all of that fail; says so and passes it over where nothing can be mounted.
pub fn run(program: &Path, work: &Path, seed: u64) -> io::Result<()> {
    let disk = Arc::new(PowerDisk::new(seed));
    let mounted = match Mounted::new(&disk, &work.join("untold")) {
        Ok(mounted) => mounted,
        Err(error) => return pass_over_power_disk(&error),
    };
    let data = mounted.dir().join("data");
    let server = Server::new(program, &data, &work.join("untold.log"))?;
    let ledger = Ledger::default();
    let mut appends = Appends::new(&server, &ledger);
    ask_for_space(&server, &disk, &mut appends)?;
    println!("SpaceFails: it starts, appends go on, and it is said that nobody knows");
    for fault in ASKED {
        let (places, refused) = start(&server, &disk, &ledger, fault)?;
        println!(
            "{fault:?}: at each of {places} places in a start, which was refused {refused} times"
        );
    }
    let running = server.start()?;
    (0..20).try_for_each(|_| appends.expect(201).map(drop))?;
    for fault in [&[Fault::LinkFails, Fault::SpaceFails][..], &ASKED].concat() {
        for is_renewed in [true, false] {
            let mut backing_up = BackingUp {
                backups: Backups::new(program, &data),
                server: &server,
                disk: &disk,
                ledger: &ledger,
            };
            let (places, refused) = backing_up.meet(fault, is_renewed)?;
            println!(
                "{fault:?}: at each of {places} places in a backup, renewed: {is_renewed}; it was refused {refused} times"
            );
            if fault == Fault::LinkFails && (places == 0 || refused > 0) {
                return Err(io::Error::other("what cannot be linked is to be copied"));
            }
        }
    }
    check(&server, &ledger, true)?;
    running.kill();
    Ok(())
}

fn arm(disk: &PowerDisk, fault: Fault, after: u64, count: usize) {
    (0..count).for_each(|_| disk.arm(fault, after));
}

/// A disk that does not say how much space it has, from the start on.
fn ask_for_space(server: &Server, disk: &PowerDisk, appends: &mut Appends<'_>) -> io::Result<()> {
    arm(disk, Fault::SpaceFails, 0, ALWAYS);
    let running = server.start()?;
    (0..20).try_for_each(|_| appends.expect(201).map(drop))?;
    let (ready, metrics) = (ready(server)?, metrics(server)?);
    let is_said = ready["status"] == "ok"
        && ready["appends"] == true
        && !metrics.contains(FREE_BYTES)
        && server.has_said("the disk does not say how much space it has");
    if disk.struck().is_empty() || !is_said {
        return Err(io::Error::other(format!("{ready}, {}, {metrics}", server.last_words())));
    }
    disk.disarm();
    // The first who asks may be told what was known before.
    let told =
        (0..10).find_map(|_| self::metrics(server).ok().filter(|text| text.contains(FREE_BYTES)));
    if told.is_none() {
        return Err(io::Error::other("it does not ask again"));
    }
    running.kill();
    Ok(())
}

const FREE_BYTES: &str = "\nstrandline_disk_free_bytes ";

fn metrics(server: &Server) -> io::Result<String> {
    let text = client::get(server.address, "/metrics", "*/*")?;
    String::from_utf8(text).map_err(io::Error::other)
}

/// Starts with a fault at each place where it can strike: how many there are, and how often the start was refused.
fn start(
    server: &Server,
    disk: &PowerDisk,
    ledger: &Ledger,
    fault: Fault,
) -> io::Result<(u64, u64)> {
    let mut refused = 0;
    for after in 0.. {
        disk.restore();
        arm(disk, fault, after, IN_A_ROW);
        let started = server.start();
        let has_struck = !disk.struck().is_empty();
        disk.disarm();
        match started {
            Ok(running) => check_and_end(server, ledger, running)?,
            Err(error) if has_struck && says_why(&error.to_string(), server.data()) => refused += 1,
            Err(error) => {
                let what = format!("{fault:?} after {after}, not why it was refused: {error}");
                return Err(io::Error::other(what));
            }
        }
        if !has_struck {
            return Ok((after, refused));
        }
    }
    unreachable!("a start asks so often and not oftener")
}

/// Whether the last line that was said refuses, and names a file in this directory and what it met there. A backup may name that
/// in a finding above.
fn says_why(told: &str, dir: &Path) -> bool {
    let mut lines = told.rsplit(['|', '\n']);
    let last = lines.next().unwrap_or_default();
    let dir = dir.display().to_string();
    let names = |line: &str| line.contains(&dir) && line.contains("Input/output error");
    last.contains("error: ") && (names(last) || last.contains("as above") && lines.any(names))
}

fn check_and_end(server: &Server, ledger: &Ledger, mut running: Running) -> io::Result<()> {
    check(server, ledger, true)?;
    if running.has_ended() {
        return Err(io::Error::other("it has ended"));
    }
    running.kill();
    Ok(())
}

struct BackingUp<'a> {
    backups: Backups,
    server: &'a Server,
    disk: &'a PowerDisk,
    ledger: &'a Ledger,
}

impl BackingUp<'_> {
    /// Makes a backup with a fault at each place where it can strike, over one that is there if it `is_renewed`: how many
    /// there are, and how often it was refused.
    fn meet(&mut self, fault: Fault, is_renewed: bool) -> io::Result<(u64, u64)> {
        let mounted = self.server.data().parent().expect("it lies in what is mounted");
        let promised = self.ledger.promised().map_err(io::Error::other)?;
        let failed = |what| io::Error::other(format!("{fault:?}, renewed: {is_renewed}: {what}"));
        let mut refused = 0;
        for after in 0.. {
            self.disk.restore_faults();
            if !is_renewed {
                self.backups.remove()?;
            } else if !self.backups.is_there() {
                self.backups.make(self.server, promised)?.map_err(failed)?;
            }
            arm(self.disk, fault, after, IN_A_ROW);
            let made = self.backups.make(self.server, promised)?;
            let has_struck = !self.disk.struck().is_empty();
            self.disk.disarm();
            match made {
                Err(error) if has_struck && says_why(&error, mounted) => {
                    refused += 1;
                    self.backups.check_refused(promised)
                }
                Err(error) => {
                    return Err(failed(format!("after {after}, not why it was refused: {error}")));
                }
                Ok(()) => self.backups.check(),
            }
            .map_err(|error| failed(format!("after {after}: {error}")))?;
            if !has_struck {
                return Ok((after, refused));
            }
        }
        unreachable!("a backup asks so often and not oftener")
    }
}
