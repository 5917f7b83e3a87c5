//! Power cuts on the real path, kills, full disks and disks that fail, each with real clients:
//!
//! ```text
//! strandline-power cuts  --server target/release/strandline [--count 200] [--seed N]
//! strandline-power kills --server target/release/strandline [--count 500] [--seed N] [--dir DIR]
//! strandline-power ext4  --server target/release/strandline [--count N] [--seed N]
//! strandline-power poisoned --server target/release/strandline [--seed N]
//! ```
//! A run prints its seed, which fixes where the power goes and what it leaves, though not how the
//! operating system schedules clients and server. What needs a right that this process does not have
//! (mounting) says so and is passed over.

mod backup;
mod check;
mod client;
mod cuts;
mod disk;
mod ext4;
mod full;
mod kills;
mod ledger;
mod let_go;
mod mount;
mod once;
mod poisoned;
mod publisher;
mod room;
mod server;
mod untold;

use std::{
    env, io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

struct Arguments {
    command: String,
    server: PathBuf,
    count: Option<u64>,
    seed: u64,
    dir: Option<PathBuf>,
}

fn main() -> ExitCode {
    let Some(arguments) = parse(env::args().skip(1)) else {
        eprintln!(
            "usage: strandline-power cuts|kills|ext4|poisoned --server FILE [--count N] [--seed N] [--dir DIR]"
        );
        return ExitCode::from(2);
    };
    println!("{}: seed {}", arguments.command, arguments.seed);
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!(
                "{} failed: {error}; repeat it with --seed {}",
                arguments.command, arguments.seed
            );
            ExitCode::FAILURE
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Option<Arguments> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_secs());
    let command = words.next()?;
    let mut arguments =
        Arguments { command, server: PathBuf::new(), count: None, seed: now, dir: None };
    while let Some(name) = words.next() {
        let value = words.next()?;
        match name.as_str() {
            "--server" => arguments.server = PathBuf::from(value).canonicalize().ok()?,
            "--count" => arguments.count = Some(value.parse().ok()?),
            "--seed" => arguments.seed = value.parse().ok()?,
            "--dir" => arguments.dir = Some(PathBuf::from(value)),
            _ => return None,
        }
    }
    arguments.server.is_file().then_some(arguments)
}

fn run(arguments: &Arguments) -> io::Result<()> {
    let work = Work::new(arguments.dir.as_deref())?;
    let Arguments { server, count, seed, .. } = arguments;
    match arguments.command.as_str() {
        "cuts" => cuts::run(server, &work.0, count.unwrap_or(200), *seed),
        "kills" => kills::run(server, &work.0, count.unwrap_or(500), *seed),
        "ext4" => ext4::run(server, &work.0, count.unwrap_or(50), *seed),
        "poisoned" => poisoned::run(server, &work.0, *seed),
        other => Err(io::Error::other(format!("no command {other}"))),
    }
}

/// A directory for what a run leaves, removed at its end.
struct Work(PathBuf);

impl Work {
    fn new(parent: Option<&Path>) -> io::Result<Work> {
        let parent = parent.map_or_else(env::temp_dir, Path::to_owned);
        let dir = parent.join(format!("strandline-power-{}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        Ok(Work(dir))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
