//! `kill -9` under load, on a real file system.

use std::{io, path::Path, sync::Arc, thread, time::Duration};

use strandline_storage::io::sim::rng::SimRng;

use crate::{
    check::{Segments, check},
    client::{Load, Retention, Who},
    ledger::Ledger,
    server::Server,
};

const PUBLISHERS: u32 = 3;
/// So much a log keeps that is limited itself: what comes in a few lives.
const LIMITED_BYTES: u64 = 512 << 10;

/// Some are killed so soon that they have not come up.
const START_MS: u64 = 50;

/// A run of so many kills has all that a run is for.
const KILLS_FOR_ALL: u64 = 20;

/// Kills a server on a data directory below `work` `kills` times, and now and then another one while it starts.
pub fn run(program: &Path, work: &Path, kills: u64, seed: u64) -> io::Result<()> {
    let server = Server::new(program, &work.join("data"), &work.join("server.log"))?;
    let ledger = Arc::new(Ledger::default());
    let mut load = Load::start(server.address, &ledger, PUBLISHERS, Retention::OfMortals, seed);
    let mut rng = SimRng::new(seed);
    let (data, mut segments) = (work.join("data"), Segments::default());
    let mut in_starts = 0;
    for kill in 0..kills {
        let lacks_one = in_starts == 0 && kill >= kills / 2;
        let life_ms = rng.between(0, START_MS);
        if lacks_one || rng.chance(30) {
            let life = Duration::from_millis(if lacks_one { 0 } else { life_ms });
            in_starts += u64::from(!server.start_and_kill(life)?);
        }
        let running = server.start()?;
        segments.look(&data)?;
        let is_limited_now = kill == kills * 2 / 3;
        // Reading all of it each time would take most of the time, but what is limited may be gone by the next.
        if kill % 4 == 0 || is_limited_now || ledger.is_limited() {
            check(&server, &ledger, kill % 100 == 0 || is_limited_now)?;
        }
        if is_limited_now {
            load.limit(LIMITED_BYTES);
        }
        let mut who = *rng.pick(&[Who::All, Who::All, Who::Mortals, Who::Mortals, Who::Nobody]);
        let mut life_ms = rng.between(0, if who == Who::Nobody { 1500 } else { 200 });
        // On a busy machine the first half may have had no time for that.
        if segments.lack_rewritten() && kill >= kills / 2 {
            (who, life_ms) = (Who::Nobody, 1500);
        }
        load.let_publish(who);
        thread::sleep(Duration::from_millis(life_ms));
        running.kill();
    }
    load.let_publish(Who::All);
    let running = server.start()?;
    check(&server, &ledger, true)?;
    load.stop();
    check(&server, &ledger, true)?;
    if kills >= KILLS_FOR_ALL {
        segments.wait(&data)?;
    }
    segments.look(&data)?;
    running.kill();
    println!("{segments}");
    println!("{}", ledger.gone());
    println!("{kills} kills, and {in_starts} before it listened: {}", ledger.counts());
    if kills >= KILLS_FOR_ALL {
        if in_starts == 0 {
            return Err(io::Error::other("none was killed before it listened"));
        }
        segments.check()?;
        ledger.check_limited().map_err(io::Error::other)?;
        ledger.check_let_go().map_err(io::Error::other)?;
        ledger.counts().check_all_asked().map_err(io::Error::other)?;
    }
    Ok(())
}
