//! `kill -9` under load, on a real file system.

use std::{io, path::Path, sync::Arc, thread, time::Duration};

use strandline_storage::io::sim::rng::SimRng;

use crate::{
    check::{check, rewritten},
    client::{Load, Retention, Who},
    ledger::Ledger,
    server::Server,
};

const PUBLISHERS: u32 = 3;

/// Kills a server on a data directory below `work` `kills` times, some of them while it starts.
pub fn run(program: &Path, work: &Path, kills: u64, seed: u64) -> io::Result<()> {
    let server = Server::new(program, &work.join("data"), &work.join("server.log"))?;
    let ledger = Arc::new(Ledger::default());
    let load = Load::start(server.address, &ledger, PUBLISHERS, Retention::OfMortals, seed);
    let mut rng = SimRng::new(seed);
    for kill in 0..kills {
        let running = server.start()?;
        // Reading all of it each time would take most of the time.
        if kill % 4 == 0 {
            check(&server, &ledger, kill % 100 == 0)?;
        }
        let who = *rng.pick(&[Who::All, Who::All, Who::Mortals, Who::Mortals, Who::Nobody]);
        load.let_publish(who);
        let life_ms_max = if who == Who::Nobody { 1500 } else { 200 };
        thread::sleep(Duration::from_millis(rng.between(0, life_ms_max)));
        running.kill();
    }
    load.let_publish(Who::All);
    let running = server.start()?;
    check(&server, &ledger, true)?;
    load.stop();
    check(&server, &ledger, true)?;
    running.kill();
    println!("{}", rewritten(&work.join("data"))?);
    println!("{kills} kills: {}", ledger.counts());
    if kills >= 20 {
        ledger.counts().check_all_asked().map_err(io::Error::other)?;
    }
    Ok(())
}
