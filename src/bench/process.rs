//! The server as a process: started for a run, and what it uses.

use std::{
    fs,
    io::{self, BufRead, BufReader},
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    param::clock_ticks_per_second,
    process::{Pid, Signal, kill_process, set_parent_process_death_signal},
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

use super::number::as_f64;
use crate::stderr::tell;

/// A server that has not stopped after this is killed.
const STOP_MAX: Duration = Duration::from_secs(10);

/// So much is kept of what a server says beside its warnings.
const SAID_BYTES_MAX: usize = 4096;

/// What processes have used since they began, and hold now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// CPU time in seconds, of user and kernel.
    pub cpu_s: f64,
    /// Resident memory in KiB.
    pub resident_kib: u64,
    /// The most that was ever resident, in KiB.
    pub resident_kib_max: u64,
}

/// What the processes use together; `None` if there are none, or one has gone.
pub fn usage(processes: &[u32]) -> Option<Usage> {
    let mut sum = Usage::default();
    for process in processes {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        sum.cpu_s += cpu_s(&stat)?;
        sum.resident_kib += kib(&status, "VmRSS:")?;
        sum.resident_kib_max += kib(&status, "VmHWM:")?;
    }
    (!processes.is_empty()).then_some(sum)
}

/// User and system time out of `/proc/PID/stat`; the name in it may hold anything.
fn cpu_s(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11).map_while(|field| field.parse::<u64>().ok());
    let ticks = times.next()? + times.next()?;
    Some(as_f64(ticks) / as_f64(clock_ticks_per_second()))
}

fn kib(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Lets this thread, and what it starts from now on, run on these cores only; returns what it might
/// before.
pub fn pin(cores: &[usize]) -> io::Result<CpuSet> {
    let before = sched_getaffinity(None)?;
    let mut set = CpuSet::new();
    for core in cores {
        if *core >= CpuSet::MAX_CPU || !before.is_set(*core) {
            return Err(io::Error::other(format!("this process may not run on core {core}")));
        }
        set.set(*core);
    }
    if !cores.is_empty() {
        sched_setaffinity(None, &set)?;
    }
    Ok(before)
}

/// How to start a server.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    /// The cores that it may use; all if empty.
    pub cores: Vec<usize>,
    /// Its data directory; a new one, removed at the end, if it is not given.
    pub data: Option<PathBuf>,
    /// Further arguments of `serve`.
    pub arguments: Vec<String>,
}

/// A server of this very binary, stopped when dropped, and when this thread ends without that.
#[derive(Debug)]
pub struct ServerProcess {
    process: Child,
    address: SocketAddr,
    /// Goes after the process has ended.
    _scratch: Option<Scratch>,
}

impl ServerProcess {
    /// Starts `binary serve` on a free port, and waits until it listens.
    pub fn start(binary: &Path, options: &ServerOptions) -> io::Result<ServerProcess> {
        let before = pin(&options.cores)?;
        let started = Self::start_here(binary, options);
        sched_setaffinity(None, &before)?;
        started
    }

    /// The same, on the cores of this thread.
    fn start_here(binary: &Path, options: &ServerOptions) -> io::Result<ServerProcess> {
        let scratch = match &options.data {
            Some(_) => None,
            None => Some(Scratch::new()?),
        };
        let data = scratch.as_ref().map(|scratch| scratch.0.clone());
        let data = data.or_else(|| options.data.clone()).expect("one of them");
        let mut command = Command::new(binary);
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(&data)
            .args(&options.arguments)
            .env("STRANDLINE_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // SAFETY: between fork and exec the child makes one system call, and touches nothing that another thread may hold.
        unsafe {
            command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::TERM))?));
        }
        let mut process = command.spawn()?;
        let told = process.stderr.take().expect("it is piped");
        let told = thread::spawn(move || pass_on(told));
        let mut line = String::new();
        let out = process.stdout.take().expect("it is piped");
        let read = BufReader::new(out).read_line(&mut line);
        let address = line.split("http://").nth(1).and_then(|rest| rest.split(' ').next());
        let address = address.and_then(|address| address.parse().ok());
        let mut server = ServerProcess { process, address: ([0; 4], 0).into(), _scratch: scratch };
        read?;
        let Some(address) = address else {
            let why = told.join().unwrap_or_default();
            let (binary, arguments) = (binary.display(), options.arguments.join(" "));
            let what = format!("the server did not start: {binary} serve {arguments}\n{why}");
            return Err(io::Error::other(what.trim_end().to_owned()));
        };
        server.address = address;
        Ok(server)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw);
        let asked = pid.map(|pid| kill_process(pid, Signal::TERM));
        let until = Instant::now() + STOP_MAX;
        while matches!(asked, Some(Ok(())))
            && matches!(self.process.try_wait(), Ok(None))
            && Instant::now() < until
        {
            thread::sleep(Duration::from_millis(10));
        }
        // It has ended, or it will not: then nothing of it is wanted any more.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Passes on the warnings and errors of a server until it has ended; returns what else it said, of which the beginning: why it
/// did not start, or what one could do with one that did.
fn pass_on(told: ChildStderr) -> String {
    let mut else_said = String::new();
    for line in BufReader::new(told).lines().map_while(Result::ok) {
        if line.contains(" WARN ") || line.contains(" ERROR ") {
            tell!("{line}");
        } else if else_said.len() < SAID_BYTES_MAX {
            else_said.push_str(&line);
            else_said.push('\n');
        }
    }
    else_said
}

/// A directory for a run's data, removed when dropped.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> io::Result<Scratch> {
        for number in 0..1000 {
            let name = format!("strandline-bench-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Scratch(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_process_uses_is_read() {
        let usage = usage(&[std::process::id()]).expect("it is there");
        assert!(usage.resident_kib > 100 && usage.resident_kib_max >= usage.resident_kib);
        assert_eq!(super::usage(&[]), None);
        assert_eq!(super::usage(&[u32::MAX]), None);
    }

    #[test]
    fn odd_names_do_not_confuse() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20";
        assert_eq!(cpu_s(stat), Some(300.0 / as_f64(clock_ticks_per_second())));
    }
}
