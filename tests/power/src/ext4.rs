//! ext4 with a journal on a loop device: kills, a disk that is full, and power cuts below the journal.

use std::{
    fs::{self, File},
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use strandline_storage::io::sim::rng::SimRng;

use crate::{
    check::check,
    client::{self, Load, Retention},
    disk::PowerDisk,
    kills,
    ledger::{EventName, Ledger},
    mount::Mounted,
    server::Server,
};

const IMAGE_BYTES: u64 = 96 << 20;
const BALLAST_BYTES: usize = 24 << 20;
const PUBLISHERS: u32 = 3;
/// Who asks whether an append is taken, beside the load.
const PROBE: u32 = 1000;
/// When there is space again, appends go on within this time.
const SPACE_BACK_MAX: Duration = Duration::from_secs(30);

/// Runs everything that a small ext4 is for; says so and passes it over where nothing can be mounted.
pub fn run(program: &Path, work: &Path, count: u64, seed: u64) -> io::Result<()> {
    let image = work.join("ext4");
    make(&image)?;
    {
        let mounted = match Ext4::mount(&image, &work.join("disk")) {
            Ok(mounted) => mounted,
            Err(error) => {
                println!("SKIPPED: no ext4 on a loop device here: {error}");
                return Ok(());
            }
        };
        println!("kills on ext4:");
        kills::run(program, &mounted.dir, count, seed)?;
    }
    make(&image)?;
    {
        let mounted = Ext4::mount(&image, &work.join("disk"))?;
        full(program, &mounted.dir, seed)?;
    }
    fs::remove_file(&image)?;
    cuts(program, work, count, seed)
}

/// Cuts the power below an ext4 whose image lies on a file system that loses what was not synced: the
/// journal is replayed, then the log recovers.
fn cuts(program: &Path, work: &Path, cuts: u64, seed: u64) -> io::Result<()> {
    let disk = Arc::new(PowerDisk::new(seed));
    let mounted = Mounted::new(&disk, &work.join("power"))?;
    let image = mounted.dir().join("ext4");
    make(&image)?;
    File::open(&image)?.sync_all()?;
    File::open(mounted.dir())?.sync_all()?;
    let dir = work.join("disk");
    let server = Server::new(program, &dir.join("data"), &work.join("server.log"))?;
    let ledger = Arc::new(Ledger::default());
    let load = Load::start(server.address, &ledger, PUBLISHERS, Retention::OfMortals, seed);
    let mut rng = SimRng::new(seed);
    for cut in 0..cuts {
        disk.restore();
        let ext4 = Ext4::mount(&image, &dir)?;
        if rng.chance(25) {
            disk.cut_after(rng.between(1, 60));
        }
        let running = match server.start() {
            Ok(running) => Some(running),
            Err(_) if disk.is_cut() => None,
            Err(error) => return Err(error),
        };
        if !disk.is_cut() {
            match check(&server, &ledger, cut % 20 == 0) {
                Err(_) if disk.is_cut() => {}
                checked => checked?,
            }
            thread::sleep(Duration::from_millis(rng.between(1, 150)));
        }
        disk.cut();
        if let Some(running) = running {
            running.kill();
        }
        drop(ext4);
    }
    disk.restore();
    let ext4 = Ext4::mount(&image, &dir)?;
    let running = server.start()?;
    check(&server, &ledger, true)?;
    load.stop();
    check(&server, &ledger, true)?;
    running.kill();
    drop(ext4);
    println!("{cuts} power cuts below ext4: {}, {} operations", ledger.counts(), disk.operations());
    Ok(())
}

/// Fills the disk, and makes room again.
fn full(program: &Path, dir: &Path, seed: u64) -> io::Result<()> {
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
    let mut probe = Probe { address: server.address, ledger: &ledger, sent: 0 };
    probe.until(507, Duration::from_secs(120))?;
    let before = ledger.counts();
    check(&server, &ledger, true)?;
    fs::remove_file(&ballast[0])?;
    let began = Instant::now();
    probe.until(201, SPACE_BACK_MAX)?;
    let waited = began.elapsed();
    check(&server, &ledger, true)?;
    probe.until(507, Duration::from_secs(120))?;
    running.kill();
    let running = server.start()?;
    check(&server, &ledger, true)?;
    fs::remove_file(&ballast[1])?;
    probe.until(201, SPACE_BACK_MAX)?;
    load.stop();
    check(&server, &ledger, true)?;
    running.kill();
    println!("a full disk: {before} when full; appends went on {waited:?} after there was space");
    Ok(())
}

struct Probe<'a> {
    address: SocketAddr,
    ledger: &'a Ledger,
    sent: u32,
}

impl Probe<'_> {
    /// Appends until it is answered with `status`.
    fn until(&mut self, status: u16, patience: Duration) -> io::Result<()> {
        let began = Instant::now();
        let mut answered = 0;
        while began.elapsed() < patience {
            let name = EventName { publisher: PROBE, batch: self.sent, at: 0, of: 1 };
            self.sent += 1;
            let body = format!(r#"{{"id":"{name}","padding":"{}"}}"#, "x".repeat(20_000));
            let line = "POST /api/v1/topics/probe/events";
            let (got, answer) = client::request(self.address, line, "*/*", body.as_bytes())?;
            answered = got;
            if got == 201 {
                let answer: serde_json::Value = serde_json::from_slice(&answer)?;
                let offset = answer["offset"].as_u64();
                self.ledger.acknowledged(offset.ok_or(io::ErrorKind::InvalidData)?, &[name]);
            }
            if got == status {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Err(io::Error::other(format!("still {answered}, not {status}, after {patience:?}")))
    }
}

/// A mounted ext4; unmounted when it goes.
struct Ext4 {
    dir: PathBuf,
    device: String,
}

impl Ext4 {
    fn mount(image: &Path, dir: &Path) -> io::Result<Ext4> {
        fs::create_dir_all(dir)?;
        let device = run_command(Command::new("losetup").args(["--find", "--show"]).arg(image))?;
        let ext4 = Ext4 { dir: dir.to_owned(), device: device.trim().to_owned() };
        run_command(Command::new("mount").args(["-t", "ext4", &ext4.device]).arg(dir))?;
        Ok(ext4)
    }
}

impl Drop for Ext4 {
    fn drop(&mut self) {
        // A killed server's ring may hold its files a moment longer.
        for _ in 0..200 {
            if run_command(Command::new("umount").arg(&self.dir)).is_ok() {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        if let Err(error) = run_command(Command::new("losetup").args(["--detach", &self.device])) {
            eprintln!("{error}");
        }
    }
}

/// Makes an image with an ext4 that has a journal.
fn make(image: &Path) -> io::Result<()> {
    let _ = fs::remove_file(image);
    File::create(image)?.set_len(IMAGE_BYTES)?;
    run_command(Command::new("mkfs.ext4").args(["-q", "-F", "-b", "4096", "-m", "0"]).arg(image))?;
    Ok(())
}

fn run_command(command: &mut Command) -> io::Result<String> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let what = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(io::Error::other(format!("{command:?}: {}", what.trim())))
}
