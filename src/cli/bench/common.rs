//! What all benches take: the server, the load, the core, where the outcome goes.

use std::{
    fs,
    io::{self, Write},
    net::{SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::{Args, ValueEnum};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

use crate::{
    bench::{
        engine::BenchError,
        options::{Options, Rate},
        outcome::Outcome,
        page,
        payload::{PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MIN},
        process::{ServerOptions, ServerProcess, pin},
        strandline::{KnownBy, Strandline, Transport},
    },
    cli::{number::number, progress::nobody_reads_is_fine},
    runtime::{allowed_cores, let_others_first, raise_file_limit},
};

/// How events are sent.
#[derive(Debug, Args)]
pub struct LoadArguments {
    /// Events a second in all, whatever the server does; without it as fast as they are acknowledged
    #[arg(long, value_name = "EVENTS", value_parser = parse_rate, conflicts_with = "rates")]
    rate: Option<f64>,
    /// Several rates, one after the other, such as 50,100,200
    #[arg(long, value_name = "LIST", value_parser = parse_rate, value_delimiter = ',', allow_hyphen_values = true)]
    rates: Vec<f64>,
    /// Requests of each publisher without an answer, at most [default: 1, or 1000 at a rate]
    #[arg(long, value_name = "N", value_parser = number::<u32>(1..=100_000))]
    pipeline: Option<u32>,
}

/// What all benches take.
#[derive(Debug, Args)]
pub struct CommonArguments {
    /// Measures the server at this URL instead of starting one; what it appends there stays
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The process of that server, whose CPU and memory are read
    #[arg(long, value_name = "PID", requires = "url", value_parser = number(1..=u32::MAX))]
    server_pid: Option<u32>,
    /// How long is measured
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = parse_interval)]
    seconds: Duration,
    /// How long the load runs before
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = parse_seconds)]
    warmup: Duration,
    /// The data of an event, in bytes
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = number(PAYLOAD_BYTES_MIN..=PAYLOAD_BYTES_MAX))]
    bytes: usize,
    /// The topic: one that has no events yet [default: a new one]
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// How subscribers are connected
    #[arg(long, value_name = "HOW", value_enum, default_value_t = TransportName::Sse)]
    transport: TransportName,
    /// What subscribers of event streams accept
    #[arg(long, value_name = "CODING", value_enum, default_value_t = Compression::None)]
    compression: Compression,
    /// Seconds between two lines of progress, and between the points of a plot
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = parse_interval)]
    interval: Duration,
    /// Connections that are being made at the same time, at most
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = number::<u32>(1..=4096))]
    connecting: u32,
    /// Gives up when nothing has happened for so long
    #[arg(long, value_name = "SECONDS", default_value = "20", value_parser = parse_interval)]
    patience: Duration,
    /// The cores of the server that is started, such as 0 or 0,1
    #[arg(
        long,
        value_name = "CORES",
        value_delimiter = ',',
        default_value = "0",
        conflicts_with = "url",
        value_parser = number(0..=usize::MAX)
    )]
    server_core: Vec<usize>,
    /// The core of the load [default: the last one, where there are several]
    #[arg(long, value_name = "CORE", value_parser = number(0..=usize::MAX))]
    client_core: Option<usize>,
    /// The shards of the server that is started
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "url", value_parser = number(1..=SHARDS_MAX))]
    shards: u32,
    /// Its data directory, which has no log yet and stays [default: a new one, removed at the end]
    #[arg(long, value_name = "DIR", conflicts_with = "url")]
    data: Option<PathBuf>,
    /// Further arguments of `serve`, such as '--sync never'
    #[arg(long, value_name = "ARGUMENTS", allow_hyphen_values = true, conflicts_with = "url")]
    server_args: Option<String>,
    /// Watches whether the machine stands still, as a virtual one may, and tells latencies also without what was
    /// under way then; wakes its cores a thousand times a second, and needs the right to real-time threads
    #[arg(long)]
    watch_stops: bool,
    /// Prints JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Writes a page with plots, which needs nothing else
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TransportName {
    /// Server-Sent Events
    Sse,
    /// WebSocket
    Ws,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Compression {
    None,
    Gzip,
    Zstd,
}

/// As `serve` has it.
const SHARDS_MAX: u32 = 1024;

/// Events a second.
pub fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.001..=1e8).contains(&rate) => Ok(rate),
        _ => Err("give events a second, from 0.001 to 100000000".to_owned()),
    }
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("give seconds, from 0 to 86400".to_owned()),
    }
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let is_enough = |interval: &Duration| *interval >= Duration::from_millis(10);
    let interval = parse_seconds(text).ok().filter(is_enough);
    interval.ok_or_else(|| "give seconds, at least 0.01 and at most 86400".to_owned())
}

/// Why there is no outcome.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The arguments contradict each other, or what there is.
    #[error("{0}")]
    Usage(String),
    /// The run did not come to its end.
    #[error(transparent)]
    Bench(#[from] BenchError),
    /// The server did not start, or a file could not be written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl LoadArguments {
    /// The loads, where requests hold `batch` events each.
    pub fn rates(&self, batch: u32) -> Result<Vec<Rate>, Failure> {
        let window = |default: u32| {
            let window = self.pipeline.unwrap_or(default).checked_mul(batch);
            window.ok_or_else(|| Failure::Usage("so many events in flight are too many".to_owned()))
        };
        let fixed: Vec<f64> = self.rate.iter().chain(&self.rates).copied().collect();
        if fixed.is_empty() {
            // Bodies one behind the other: one is on its way while the server works on the last.
            let default = if batch > 1 { 2 } else { 1 };
            return Ok(vec![Rate::Closed { window: window(default)? }]);
        }
        let window = window(1000)?;
        Ok(fixed.into_iter().map(|per_s| Rate::Open { per_s, window }).collect())
    }
}

/// File descriptors that are not connections.
const FILES_OF_OURS: u64 = 64;

impl CommonArguments {
    /// How the run is done.
    pub fn options(&self) -> Result<Options, Failure> {
        // Ctrl-C ends in order, so that the server that was started goes and its data with it; the second
        // ends at once.
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            flag::register_conditional_shutdown(signal, 1, stop.clone())?;
            flag::register(signal, stop.clone())?;
        }
        Ok(Options {
            seconds: self.seconds,
            warmup: self.warmup,
            payload_bytes: self.bytes,
            interval: self.interval,
            connecting_max: usize::try_from(self.connecting).expect("at most 4096"),
            patience: self.patience,
            progress: true,
            watch_stops: self.watch_stops,
            stop,
        })
    }

    /// The server that is measured, started if need be, and this thread on its core.
    pub fn target(
        &self,
        lines: Option<u32>,
        connections: u32,
    ) -> Result<(Option<ServerProcess>, Strandline), Failure> {
        let files = raise_file_limit().unwrap_or(u64::MAX);
        if files < u64::from(connections) + FILES_OF_OURS {
            return Err(Failure::Usage(format!(
                "{connections} connections need as many open files, and {files} are allowed: see `ulimit -n`"
            )));
        }
        if self.compression_name().is_some() && self.is_websocket() {
            return Err(Failure::Usage("--compression goes with --transport sse".to_owned()));
        }
        if let Some(path) = &self.report {
            // A run may be long: a page that cannot be written is told before.
            let opened = fs::File::options().append(true).create(true).open(path);
            opened.map_err(|error| report_failure(path, &error))?;
        }
        let cores = allowed_cores();
        let (server, address, host, processes) = match &self.url {
            Some(url) => {
                let (address, host) = parse_url(url)?;
                (None, address, host, self.server_pid.into_iter().collect())
            }
            None => {
                let server = self.start(&cores)?;
                let (address, id) = (server.address(), server.id());
                (Some(server), address, "localhost".to_owned(), vec![id])
            }
        };
        let core = self.client_core.or(cores.last().copied().filter(|_| cores.len() > 1));
        pin(core.as_slice())?;
        // Else the server's commits may wait for the load.
        if let Err(error) = let_others_first() {
            tracing::debug!(%error, "this thread may keep the disk's completions waiting");
        }
        let unix_ms =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis());
        let target = Strandline {
            address,
            host,
            topic: self.topic.clone().unwrap_or_else(|| format!("bench/{unix_ms:x}")),
            topics: 1,
            transport: match self.transport {
                TransportName::Sse => Transport::Sse,
                TransportName::Ws => Transport::WebSocket,
            },
            compression: self.compression_name(),
            lines,
            known_by: KnownBy::Nothing,
            payload_bytes: self.bytes,
            processes,
        };
        Ok((server, target))
    }

    fn start(&self, cores: &[usize]) -> Result<ServerProcess, Failure> {
        let mut arguments = vec!["--shards".to_owned(), self.shards.to_string()];
        if let Some(dir) = &self.data
            && fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some())
        {
            let what = "is not empty, and a run leaves its events there";
            return Err(Failure::Usage(format!("--data {}: {what}", dir.display())));
        }
        let further = self.server_args.as_deref().unwrap_or_default();
        arguments.extend(further.split_whitespace().map(str::to_owned));
        // On a machine with one core there is nothing to choose.
        let pinned = if cores.len() > 1 { self.server_core.clone() } else { Vec::new() };
        let options = ServerOptions { cores: pinned, data: self.data.clone(), arguments };
        Ok(ServerProcess::start(&std::env::current_exe()?, &options)?)
    }

    fn is_websocket(&self) -> bool {
        matches!(self.transport, TransportName::Ws)
    }

    fn compression_name(&self) -> Option<&'static str> {
        match self.compression {
            Compression::None => None,
            Compression::Gzip => Some("gzip"),
            Compression::Zstd => Some("zstd"),
        }
    }

    /// What stands before a failure: the server that was named, since a connection is told by its number.
    pub fn place(&self) -> String {
        self.url.as_ref().map_or_else(String::new, |url| format!("{url}: "))
    }

    /// Adds what only the command line knows to what a report says of its options.
    pub fn say_options(&self, outcome: &mut Outcome) {
        let mut say = |name, value: &str| outcome.options.insert(name, value.to_owned());
        say("transport", if self.is_websocket() { "ws" } else { "sse" });
        say("compression", self.compression_name().unwrap_or("none"));
        match &self.url {
            Some(url) => say("url", url),
            None => say("shards", &self.shards.to_string()),
        };
        if let Some(arguments) = &self.server_args {
            say("server arguments", arguments);
        }
    }

    /// Prints the outcome, and writes the page.
    pub fn tell(&self, outcome: &Outcome) -> Result<(), Failure> {
        if self.json {
            let json = serde_json::to_string_pretty(outcome).expect("numbers and strings are JSON");
            nobody_reads_is_fine(writeln!(io::stdout(), "{json}"))?;
        } else {
            nobody_reads_is_fine(write!(io::stdout(), "{}", outcome.table()))?;
        }
        if let Some(path) = &self.report {
            let written = fs::write(path, page::render(outcome));
            written.map_err(|error| report_failure(path, &error))?;
        }
        Ok(())
    }
}

fn report_failure(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("--report {}: {error}", path.display()))
}

fn parse_url(url: &str) -> Result<(SocketAddr, String), Failure> {
    let usage = |what: &str| Failure::Usage(format!("--url {url}: {what}"));
    let host = url.strip_prefix("http://").ok_or_else(|| usage("write it as http://HOST:PORT"))?;
    let host = host.trim_end_matches('/');
    let named = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let address = named.to_socket_addrs().map_err(|error| usage(&error.to_string()))?.next();
    Ok((address.ok_or_else(|| usage("no such host"))?, host.to_owned()))
}
