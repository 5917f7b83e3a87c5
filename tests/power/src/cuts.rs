//! Power cuts under a running server: at random moments, in the middle of any operation, while it
//! recovers, and after operations that failed.

use std::{io, path::Path, process::Command, sync::Arc, thread, time::Duration};

use strandline_storage::io::sim::{Fault, rng::SimRng};

use crate::{
    backup::Backups,
    check::{Segments, check},
    client::{Load, Retention, Who},
    disk::PowerDisk,
    ledger::Ledger,
    mount::{Mounted, pass_over_power_disk},
    server::{Running, Server},
};

const PUBLISHERS: u32 = 3;
/// So much a log keeps that is limited itself: some of the longest appends.
const LIMITED_BYTES: u64 = 2 << 20;

/// So much is appended in a life at most, the start of the next and its check included: on a slow machine these take long,
/// and what is appended meanwhile would have the one behind them take longer still.
const EVENTS_MAX: u32 = 2_000;

/// Long appends go into blocks without zeroes within this time.
const LONG_MAX_MS: u64 = 5_000;

/// A run of so many cuts has all that a run is for,
const CUTS_FOR_ALL: u64 = 20;
/// but what depends on where an append is cut off comes later.
const CUTS_FOR_ALL_ASKED: u64 = 100;

/// What happened in a run.
#[derive(Debug, Default)]
struct Tally {
    cuts: u64,
    cuts_in_recovery: u64,
    kills: u64,
    faults: u64,
    starts_refused: u64,
}

impl Tally {
    /// A run in which one of these never happened shows less than it should.
    fn check(&self) -> io::Result<()> {
        let Tally { cuts_in_recovery, kills, faults, .. } = self;
        match [cuts_in_recovery, kills, faults].contains(&&0) {
            true => Err(io::Error::other(format!("not all has happened: {self:?}"))),
            false => Ok(()),
        }
    }
}

/// Says what happens, for whoever looks into a failed run.
struct Story(Vec<String>);

impl Story {
    fn tell(&mut self, what: String) {
        self.0.push(what);
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        if thread::panicking() || !self.0.is_empty() {
            for line in &self.0[self.0.len().saturating_sub(40)..] {
                eprintln!("  {line}");
            }
        }
    }
}

/// Cuts the power `cuts` times.
pub fn run(program: &Path, work: &Path, cuts: u64, seed: u64) -> io::Result<()> {
    let disk = Arc::new(PowerDisk::new(seed));
    let mounted = match Mounted::new(&disk, &work.join("mounted")) {
        Ok(mounted) => mounted,
        Err(error) => return pass_over_power_disk(&error),
    };
    let outcome = run_on(&disk, &mounted, program, work, cuts, seed);
    if outcome.is_err() {
        // A cut that is still to come would come while it is copied.
        disk.restore();
        let kept = std::env::temp_dir().join(format!("strandline-power-failed-{seed}"));
        let copied = Command::new("cp").arg("-r").arg(mounted.dir()).arg(&kept).status();
        eprintln!("what the disk held is in {} ({copied:?})", kept.display());
    }
    outcome
}

fn run_on(
    disk: &Arc<PowerDisk>,
    mounted: &Mounted,
    program: &Path,
    work: &Path,
    cuts: u64,
    seed: u64,
) -> io::Result<()> {
    let server = Server::new(program, &mounted.dir().join("data"), &work.join("server.log"))?;
    let ledger = Arc::new(Ledger::default());
    let mut load = Load::start(server.address, &ledger, PUBLISHERS, Retention::OfMortals, seed);
    let mut rng = SimRng::new(seed);
    let mut tally = Tally::default();
    let mut story = Story(Vec::new());
    let data = mounted.dir().join("data");
    let (mut backups, mut segments) = (Backups::new(program, &data), Segments::default());
    while tally.cuts < cuts {
        // What no life of the first half has had comes in the second.
        let is_second_half = tally.cuts >= cuts / 2;
        let lacks_long = is_second_half && disk.writes_into_blocks() == 0;
        let lacks_backup = is_second_half && backups.made == 0;
        let is_calm = lacks_long || lacks_backup;
        let started = start(&server, disk, &mut rng, is_calm, &mut tally, &mut story)?;
        let Some(running) = started else { continue };
        if !disk.is_cut() && rng.chance(30) {
            let restored = || backups.check().and_then(|()| backups.check_restored(work, &ledger));
            match unless_struck(disk, restored) {
                Err(_) if disk.is_cut() => {}
                checked => checked?,
            }
        }
        let is_limited_next = tally.cuts >= cuts * 2 / 3 && !ledger.is_limited();
        let is_whole = tally.cuts % 20 == 0 || is_limited_next;
        if !disk.is_cut() {
            let looked = unless_struck(disk, || segments.look(&data));
            let checked =
                looked.and_then(|()| unless_struck(disk, || check(&server, &ledger, is_whole)));
            match checked {
                // The fuse of this start may burn while the log is read.
                Err(_) if disk.is_cut() => ledger.promised().map(drop).map_err(io::Error::other)?,
                Ok(()) if is_limited_next => load.limit(LIMITED_BYTES),
                checked => checked?,
            }
        }
        let who = match lacks_long {
            true => Who::Mortals,
            false => *rng.pick(&[Who::All, Who::All, Who::Mortals, Who::Mortals, Who::Nobody]),
        };
        let are_long = lacks_long || rng.chance(25);
        story.tell(format!("{who:?} publish, mortals long appends: {are_long}"));
        load.let_publish(who);
        load.lengthen(are_long);
        load.allow(EVENTS_MAX);
        if who == Who::Nobody {
            thread::sleep(Duration::from_millis(rng.between(0, 1000)));
        }
        if lacks_backup || rng.chance(20) {
            let may_cut = !lacks_backup && rng.chance(50);
            if ledger.is_limited() {
                // Segments that go as fast as they come leave no backup the time to link them.
                load.let_publish(Who::Nobody);
            }
            make_backup(
                &mut backups,
                &server,
                &ledger,
                disk,
                may_cut.then_some(&mut rng),
                &mut story,
            )?;
            load.let_publish(who);
        }
        let mut waits = 0..if lacks_long { LONG_MAX_MS } else { 0 };
        while disk.writes_into_blocks() == 0 && waits.next().is_some() {
            load.allow(EVENTS_MAX);
            thread::sleep(Duration::from_millis(1));
        }
        live(running, disk, &mut rng, &mut tally, &mut story);
    }
    disk.restore();
    load.let_publish(Who::All);
    let running = server.start()?;
    check(&server, &ledger, true)?;
    load.stop();
    check(&server, &ledger, true)?;
    backups.check()?;
    backups.check_restored(work, &ledger)?;
    if cuts >= CUTS_FOR_ALL {
        segments.wait(&data)?;
    }
    segments.look(&data)?;
    running.kill();
    story.0.clear();
    let Backups { made, verified, restored, .. } = backups;
    println!(
        "{made} backups made, verified {verified} times, a log restored of them and read {restored} times"
    );
    println!("{segments}");
    println!("{}", ledger.gone());
    let (operations, into_blocks) = (disk.operations(), disk.writes_into_blocks());
    println!(
        "{tally:?}: {}, {operations} operations, {into_blocks} writes into blocks never written",
        ledger.counts()
    );
    if cuts < CUTS_FOR_ALL {
        return Ok(());
    }
    segments.check()?;
    ledger.check_limited().map_err(io::Error::other)?;
    if made.min(verified) == 0 {
        return Err(io::Error::other("no backup was made, and verified after a cut"));
    }
    if into_blocks == 0 {
        return Err(io::Error::other("no long append went into blocks without zeroes"));
    }
    if cuts >= CUTS_FOR_ALL_ASKED {
        ledger.counts().check_all_asked().map_err(io::Error::other)?;
        ledger.check_let_go().map_err(io::Error::other)?;
        tally.check()?;
    }
    Ok(())
}

/// Starts the server, if it is not to be calm perhaps with a cut while it recovers: then `None`.
fn start(
    server: &Server,
    disk: &PowerDisk,
    rng: &mut SimRng,
    is_calm: bool,
    tally: &mut Tally,
    story: &mut Story,
) -> io::Result<Option<Running>> {
    disk.restore();
    if !is_calm && rng.chance(30) {
        let operations = rng.between(1, 40);
        story.tell(format!("the power goes {operations} operations after the start"));
        disk.cut_after(operations);
    }
    if !is_calm && rng.chance(10) {
        let fault = *rng.pick(&[
            Fault::SyncFails,
            Fault::WriteFails,
            Fault::WriteFindsNoSpace,
            Fault::AllocateFindsNoSpace,
            Fault::SyncDirFails,
            Fault::ReadFails,
            Fault::CreateFails,
            Fault::RemoveFails,
            Fault::OpenFails,
            Fault::ListFails,
            Fault::RenameFails,
            Fault::RenameFindsNoSpace,
            Fault::SetSizeFails,
            Fault::StatFails,
            Fault::SpaceFails,
            Fault::LinkFails,
        ]);
        let after = rng.below(10);
        story.tell(format!("a start with {fault:?} after {after}"));
        disk.arm(fault, after);
    }
    match server.start() {
        Ok(running) => {
            story.tell(format!("started; struck by {:?}", disk.struck()));
            Ok(Some(running))
        }
        Err(error) => {
            let struck = disk.struck();
            story.tell(format!("not started, struck by {struck:?}: {error}"));
            if !disk.is_cut() && struck.is_empty() {
                return Err(io::Error::other(format!("nothing was wrong, but {error}")));
            }
            if disk.is_cut() {
                tally.cuts += 1;
                tally.cuts_in_recovery += 1;
            }
            tally.faults += struck.len() as u64;
            tally.starts_refused += 1;
            Ok(None)
        }
    }
}

/// What is there is looked at. It may meet what a start was armed with, which fails once: then that is looked at again, but
/// not what was read and is wrong.
fn unless_struck(disk: &PowerDisk, mut look: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    loop {
        let struck = disk.struck().len();
        let looked = look();
        let is_wrong = |error: &io::Error| error.kind() == io::ErrorKind::InvalidData;
        let is_told = looked.as_ref().err().is_none_or(is_wrong);
        if is_told || disk.is_cut() || disk.struck().len() == struck {
            return looked;
        }
    }
}

/// Makes a backup, with a cut in the middle of that if there is an `rng` to say where. Nothing else keeps it from being
/// made, unless it meets what a start was armed with.
fn make_backup(
    backups: &mut Backups,
    server: &Server,
    ledger: &Ledger,
    disk: &PowerDisk,
    cut: Option<&mut SimRng>,
    story: &mut Story,
) -> io::Result<()> {
    if let Some(rng) = cut {
        disk.cut_after(rng.between(1, 400));
    }
    let promised = ledger.promised().map_err(io::Error::other)?;
    let made = backups.make(server, promised)?;
    story.tell(format!("a backup of all below {promised}: {made:?}; cut: {}", disk.is_cut()));
    match made {
        Err(error) if !disk.is_cut() && disk.struck().is_empty() => Err(io::Error::other(error)),
        _ => Ok(()),
    }
}

/// Lets the server work, perhaps meet a fault, and ends it.
fn live(
    mut running: Running,
    disk: &PowerDisk,
    rng: &mut SimRng,
    tally: &mut Tally,
    story: &mut Story,
) {
    thread::sleep(Duration::from_millis(rng.between(1, 150)));
    if rng.chance(30) {
        let fault = *rng.pick(&[
            Fault::WriteFails,
            Fault::WriteIsShort,
            Fault::WriteFindsNoSpace,
            Fault::AllocateFindsNoSpace,
            Fault::SyncFails,
            Fault::SyncDirFails,
            Fault::ReadFails,
            Fault::CreateFails,
            Fault::RemoveFails,
            Fault::RenameFails,
            Fault::RenameFindsNoSpace,
            Fault::OpenFails,
            Fault::ListFails,
            Fault::SetSizeFails,
            Fault::StatFails,
            Fault::SpaceFails,
            Fault::LinkFails,
        ]);
        let after = rng.below(20);
        story.tell(format!("{fault:?} after {after}"));
        disk.arm(fault, after);
        thread::sleep(Duration::from_millis(rng.between(1, 200)));
        assert!(!running.has_ended() || disk.is_cut(), "a fault of the disk ended the server");
    }
    if rng.chance(10) {
        let more = to_usize(rng.below(1 << 20));
        story.tell(format!("a disk that is full {more} bytes from now"));
        disk.limit_space(more);
        thread::sleep(Duration::from_millis(rng.between(100, 500)));
        if rng.chance(50) {
            disk.end_limit();
            thread::sleep(Duration::from_millis(rng.between(100, 1500)));
        }
    }
    if rng.chance(15) {
        running.kill();
        story.tell(format!("killed; struck by {:?}", disk.struck()));
        tally.faults += disk.struck().len() as u64;
        tally.kills += 1;
        return;
    }
    // At one instant: the server has no time to answer for what the disk has taken.
    let (mut running, ends_at_once) = (Some(running), rng.chance(30));
    if ends_at_once {
        running.take().expect("it runs").kill();
    } else if rng.chance(70) {
        disk.cut_after(rng.between(1, 30));
        let mut waits = 0..200;
        while !disk.is_cut() && waits.next().is_some() {
            thread::sleep(Duration::from_millis(1));
        }
    }
    disk.cut();
    story.tell(format!("a power cut, at once: {ends_at_once}; struck by {:?}", disk.struck()));
    tally.faults += disk.struck().len() as u64;
    tally.cuts += 1;
    drop(running);
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).expect("it fits in memory")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::ROOT;

    #[test]
    fn what_a_start_was_armed_with_is_no_damage_and_damage_is_not_looked_at_twice() {
        let disk = PowerDisk::new(1);
        let list = || {
            disk.list(ROOT).map(drop).map_err(|errno| io::Error::from_raw_os_error(errno.into()))
        };
        disk.arm(Fault::ListFails, 1);
        assert!(unless_struck(&disk, list).is_ok() && unless_struck(&disk, list).is_ok());
        assert_eq!(disk.struck(), [Fault::ListFails]);
        let mut looks = 0;
        let damage = unless_struck(&disk, || {
            looks += 1;
            Err(io::Error::other("damage"))
        });
        assert_eq!((damage.is_err(), looks), (true, 1));
        disk.arm(Fault::ListFails, 0);
        let lost = unless_struck(&disk, || match (looks == 1, looks += 1) {
            (true, ()) => {
                list().expect_err("it strikes");
                Err(io::Error::new(io::ErrorKind::InvalidData, "an event is lost"))
            }
            (false, ()) => Ok(()),
        });
        assert_eq!((lost.is_err(), looks), (true, 2), "while something strikes as well");
    }
}
