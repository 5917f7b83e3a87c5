//! The server under test: a process that is started and killed.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

/// Ports below are asked for by name too often.
const OWN_PORT_MIN: u16 = 10_000;

/// A start takes no longer, whatever it has to recover.
const START_MAX: Duration = Duration::from_secs(30);

/// How the line begins that it prints once it can be reached.
const LISTENS: &str = "strandline listening";

/// How to start a server.
pub struct Server {
    program: PathBuf,
    data: PathBuf,
    log: PathBuf,
    /// Where it listens, each time.
    pub address: SocketAddr,
}

/// A running server; killed when it goes.
pub struct Running(Child);

/// A free address whose port no connection is given for its own end (`ip_local_port_range`): else it may be taken
/// while the server is down.
fn own_address() -> io::Result<SocketAddr> {
    let given = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")?;
    let first = given.split_whitespace().next().and_then(|first| first.parse().ok());
    let own = OWN_PORT_MIN..first.unwrap_or(OWN_PORT_MIN);
    let begin = process::id() as usize % own.len().max(1);
    // Any, where the system gives them all.
    let ports = own.clone().skip(begin).chain(own).chain([0]);
    let listener = ports.map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)));
    listener.filter_map(Result::ok).next().ok_or(io::ErrorKind::AddrInUse)?.local_addr()
}

impl Server {
    /// A server of this program on a data directory; what it logs goes into a file.
    pub fn new(program: &Path, data: &Path, log: &Path) -> io::Result<Server> {
        Ok(Server {
            program: program.to_owned(),
            data: data.to_owned(),
            log: log.to_owned(),
            address: own_address()?,
        })
    }

    /// Its data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    fn spawn(&self) -> io::Result<(Child, u64)> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let said_before = log.metadata()?.len();
        let child = Command::new(&self.program)
            .arg("serve")
            .args(["--listen", &self.address.to_string(), "--segment-bytes", "1048576"])
            .arg("--data")
            .arg(&self.data)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()?;
        Ok((child, said_before))
    }

    /// Starts it, and kills it so long after that. Whether it listened by then. An error if it ended before.
    pub fn start_and_kill(&self, life: Duration) -> io::Result<bool> {
        let (mut child, said_before) = self.spawn()?;
        thread::sleep(life);
        let ended = child.try_wait()?;
        let output = child.stdout.take().expect("it was asked for");
        Running(child).kill();
        if let Some(status) = ended {
            let words = self.last_words_from(said_before);
            return Err(io::Error::other(format!("the server ended: {status}, {words}")));
        }
        let lines = BufReader::new(output).lines().map_while(Result::ok);
        Ok(lines.into_iter().any(|line| line.starts_with(LISTENS)))
    }

    /// Starts it and waits until it listens. An error if it ends before, with what this start has said.
    pub fn start(&self) -> io::Result<Running> {
        let (mut child, said_before) = self.spawn()?;
        let output = child.stdout.take().expect("it was asked for");
        let mut running = Running(child);
        let (told, heard) = mpsc::channel();
        // Reads on to the end: a server whose pipe is full would stand still.
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if line.starts_with(LISTENS) {
                    let _ = told.send(());
                }
            }
        });
        match heard.recv_timeout(START_MAX) {
            Ok(()) => Ok(running),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                let status = running.0.wait()?;
                let words = self.last_words_from(said_before);
                Err(io::Error::other(format!("the server ended: {status}, {words}")))
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                Err(io::Error::other(format!("it does not start within {START_MAX:?}")))
            }
        }
    }

    /// Whether it has logged that.
    pub fn has_said(&self, what: &str) -> bool {
        fs::read_to_string(&self.log).is_ok_and(|text| text.contains(what))
    }

    /// The end of what it logged.
    pub fn last_words(&self) -> String {
        self.last_words_from(0)
    }

    /// The same of what it logged behind so many bytes.
    fn last_words_from(&self, said_before: u64) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let from = usize::try_from(said_before).map_or(log.len(), |from| from.min(log.len()));
        let text = String::from_utf8_lossy(&log[from..]);
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join(" | ")
    }
}

impl Running {
    /// `kill -9`, and waits until it is gone.
    pub fn kill(mut self) {
        self.end();
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(Some(_)))
    }

    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}
