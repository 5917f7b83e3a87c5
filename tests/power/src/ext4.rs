//! ext4 with a journal on a loop device: kills, a disk that is full (`full.rs`), and power cuts below the journal.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    thread,
    time::Duration,
};

use strandline_storage::io::sim::rng::SimRng;

use crate::{
    check::check,
    client::{Load, Retention},
    disk::PowerDisk,
    full::{self, Freeing},
    kills,
    ledger::Ledger,
    mount::{Mounted, pass_over},
    server::Server,
};

const IMAGE_BYTES: u64 = 96 << 20;
const PUBLISHERS: u32 = 3;

/// Runs everything that a small ext4 is for; says so and passes it over where nothing can be mounted.
pub fn run(program: &Path, work: &Path, count: u64, seed: u64) -> io::Result<()> {
    let image = work.join("ext4");
    make(&image)?;
    {
        let mounted = match Ext4::mount(&image, &work.join("disk")) {
            Ok(mounted) => mounted,
            Err(error) => return pass_over("loop", "ext4 on a loop device", &error),
        };
        println!("kills on ext4:");
        kills::run(program, &mounted.dir, count, seed)?;
    }
    make(&image)?;
    {
        let mounted = Ext4::mount(&image, &work.join("disk"))?;
        full::run(program, &mounted.dir, seed)?;
    }
    for freeing in Freeing::ALL {
        make(&image)?;
        let mounted = Ext4::mount(&image, &work.join("disk"))?;
        full::freed(program, &mounted.dir, freeing)?;
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
