//! `strandline bench`: how fast a server is, every delivery checked.

use std::{
    fs, io,
    net::{SocketAddr, ToSocketAddrs},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::{Args, Subcommand, ValueEnum};

use crate::{
    bench::{
        append::{self, Append},
        engine::BenchError,
        fan_out::{self, FanOut},
        idle::{self, Idle},
        outcome::Outcome,
        page,
        payload::{PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MIN},
        process::{ServerOptions, ServerProcess, pin},
        replay::{self, Replay},
        session::{Options, Rate},
        storm::{self, Churn, Storm},
        strandline::{Strandline, Transport},
    },
    runtime::{allowed_cores, raise_file_limit},
};

/// Measures a server: appends, fan-out, replay, idle subscribers, storms of reconnections.
///
/// Without --url it starts a server of its own on a new data directory, on one core, and is itself on
/// another. Every delivery is checked for gaps, repeats and order, and every byte of it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  strandline bench append --publishers 64
  strandline bench append --publishers 4 --ndjson 10000
  strandline bench fanout --subscribers 1000 --rate 150
  strandline bench fanout --subscribers 1000 --rates 50,100,200,400 --report fanout.html
  strandline bench fanout --subscribers 1000 --publishers 16

A run at a rate is an open loop: latencies count from when an event was due, so that a server that \
stalls cannot hide it. The table goes to standard output, progress to standard error.

Exit codes: 0 fine, 1 failure or a delivery that was not as it should be, 2 usage.")]
pub struct BenchArguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    Append(AppendBench),
    Fanout(FanOutBench),
    Replay(ReplayBench),
    Idle(IdleBench),
    Storm(StormBench),
}

/// How fast events are acknowledged as durable.
#[derive(Debug, Args)]
struct AppendBench {
    /// Connections that append
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=15_000))]
    publishers: u32,
    /// Events in NDJSON bodies of so many lines, a request a body, instead of one event a request
    #[arg(long, value_name = "LINES", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    ndjson: Option<u32>,
    #[command(flatten)]
    load: LoadArguments,
    #[command(flatten)]
    common: CommonArguments,
}

/// How soon every subscriber of a topic has an event, and what that costs.
#[derive(Debug, Args)]
struct FanOutBench {
    /// Connections that receive
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    subscribers: u32,
    /// Connections that append
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=15_000))]
    publishers: u32,
    /// So many subscribers stop reading at half time, and get the rest at the end
    #[arg(long, value_name = "N", default_value_t = 0)]
    stall: u32,
    /// What the kernel may keep for a subscriber that is to stall, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 10)]
    stall_buffer: usize,
    #[command(flatten)]
    load: LoadArguments,
    #[command(flatten)]
    common: CommonArguments,
}

/// How fast readers get a long history, from its first event on.
#[derive(Debug, Args)]
struct ReplayBench {
    /// Events of the history
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    events: u64,
    /// Connections that read it, all at the same time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=15_000))]
    readers: u32,
    #[command(flatten)]
    common: CommonArguments,
}

/// What a subscriber costs that gets nothing, and how soon one that hangs up is noticed.
#[derive(Debug, Args)]
struct IdleBench {
    /// Connections that receive nothing
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    subscribers: u32,
    /// How many of them hang up at the end
    #[arg(long, value_name = "N", default_value_t = 100)]
    hang_ups: u32,
    #[command(flatten)]
    common: CommonArguments,
}

/// Everybody reconnects at once, or with --churn people come and go without end.
#[derive(Debug, Args)]
struct StormBench {
    /// Connections that receive
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    subscribers: u32,
    /// Events that the cursors of those who reconnect are spread over
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    history: u32,
    /// Connects and hang-ups a second, for --seconds, instead of a storm
    #[arg(long, value_name = "N", value_parser = parse_rate)]
    churn: Option<f64>,
    /// What one publisher goes on with meanwhile, in events a second
    #[arg(long, value_name = "EVENTS", default_value = "100", value_parser = parse_rate)]
    rate: f64,
    #[command(flatten)]
    common: CommonArguments,
}

/// How events are sent.
#[derive(Debug, Args)]
struct LoadArguments {
    /// Events a second in all, whatever the server does; without it as fast as they are acknowledged
    #[arg(long, value_name = "EVENTS", value_parser = parse_rate, conflicts_with = "rates")]
    rate: Option<f64>,
    /// Several rates, one after the other, such as 50,100,200
    #[arg(long, value_name = "LIST", value_parser = parse_rate, value_delimiter = ',')]
    rates: Vec<f64>,
    /// Requests of each publisher without an answer, at most [default: 1, or 1000 at a rate]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pipeline: Option<u32>,
}

/// What all benches take.
#[derive(Debug, Args)]
struct CommonArguments {
    /// Measures the server at this URL instead of starting one
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The process of that server, whose CPU and memory are read
    #[arg(long, value_name = "PID", requires = "url")]
    server_pid: Option<u32>,
    /// How long is measured
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = parse_seconds)]
    seconds: Duration,
    /// How long the load runs before
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = parse_seconds)]
    warmup: Duration,
    /// The data of an event, in bytes
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = parse_bytes)]
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
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=4096))]
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
        conflicts_with = "url"
    )]
    server_core: Vec<usize>,
    /// The core of the load [default: the last one, where there are several]
    #[arg(long, value_name = "CORE")]
    client_core: Option<usize>,
    /// The shards of the server that is started
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "url")]
    shards: u32,
    /// Its data directory [default: a new one, removed at the end]
    #[arg(long, value_name = "DIR", conflicts_with = "url")]
    data: Option<PathBuf>,
    /// Further arguments of `serve`, such as '--sync never'
    #[arg(long, value_name = "ARGUMENTS", allow_hyphen_values = true, conflicts_with = "url")]
    server_args: Option<String>,
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

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.001..=1e8).contains(&rate) => Ok(rate),
        _ => Err("give events a second, from 0.001 to 100000000".to_owned()),
    }
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("give seconds, at most 86400".to_owned()),
    }
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = parse_seconds(text)?;
    if interval < Duration::from_millis(10) {
        Err("at least 0.01".to_owned())
    } else {
        Ok(interval)
    }
}

fn parse_bytes(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(bytes) if (PAYLOAD_BYTES_MIN..=PAYLOAD_BYTES_MAX).contains(&bytes) => Ok(bytes),
        _ => Err(format!("give a number from {PAYLOAD_BYTES_MIN} to {PAYLOAD_BYTES_MAX}")),
    }
}

/// Why there is no outcome.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The arguments contradict each other, or what there is.
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Bench(#[from] BenchError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Runs the command.
pub fn run(arguments: &BenchArguments) -> ExitCode {
    let (common, result) = match &arguments.bench {
        Bench::Append(bench) => (&bench.common, bench.run()),
        Bench::Fanout(bench) => (&bench.common, bench.run()),
        Bench::Replay(bench) => (&bench.common, bench.run()),
        Bench::Idle(bench) => (&bench.common, bench.run()),
        Bench::Storm(bench) => (&bench.common, bench.run()),
    };
    let told = result.and_then(|mut outcome| {
        common.say_options(&mut outcome);
        common.tell(&outcome)?;
        Ok(outcome)
    });
    match told {
        Ok(outcome) if outcome.is_clean() => ExitCode::SUCCESS,
        Ok(outcome) => {
            eprintln!(
                "error: {} deliveries were not as they should be, the first: {}",
                outcome.violation_count,
                outcome.violations.first().map_or("", String::as_str)
            );
            ExitCode::FAILURE
        }
        Err(failure) => {
            eprintln!("error: {failure}");
            if matches!(failure, Failure::Usage(_)) { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

impl AppendBench {
    fn run(&self) -> Result<Outcome, Failure> {
        let Self { publishers, ndjson, load, common } = self;
        let append = Append { publishers: *publishers, rates: load.rates(ndjson.unwrap_or(1))? };
        let (_server, target) = common.target(*ndjson, *publishers)?;
        Ok(append::run(&target, &common.options(), &append)?)
    }
}

impl FanOutBench {
    fn run(&self) -> Result<Outcome, Failure> {
        let Self { subscribers, publishers, stall, stall_buffer, load, common } = self;
        if stall >= subscribers {
            return Err(Failure::Usage(format!(
                "--stall {stall} of --subscribers {subscribers}: somebody must go on reading"
            )));
        }
        let fan_out = FanOut {
            subscribers: *subscribers,
            publishers: *publishers,
            rates: load.rates(1)?,
            stalled: *stall,
            stalled_buffer_bytes: *stall_buffer,
        };
        if fan_out.stalled > 0 && fan_out.rates.len() > 1 {
            return Err(Failure::Usage("--stall goes with one rate".to_owned()));
        }
        let (_server, target) = common.target(None, subscribers.saturating_add(*publishers))?;
        Ok(fan_out::run(&target, &common.options(), &fan_out)?)
    }
}

/// A history is loaded by so many connections, in bodies of so many lines, so many of them in flight.
const LOAD_PUBLISHERS: u32 = 2;
const LOAD_LINES: u32 = 1000;
const LOAD_BODIES: u32 = 4;

impl ReplayBench {
    fn run(&self) -> Result<Outcome, Failure> {
        let Self { events, readers, common } = self;
        let lines = u32::try_from(*events).unwrap_or(u32::MAX).min(LOAD_LINES);
        let replay = Replay {
            events: *events,
            publishers: LOAD_PUBLISHERS,
            window: lines * LOAD_BODIES,
            readers: *readers,
        };
        let (_server, target) = common.target(Some(lines), readers + LOAD_PUBLISHERS)?;
        Ok(replay::run(&target, &common.options(), &replay)?)
    }
}

impl IdleBench {
    fn run(&self) -> Result<Outcome, Failure> {
        let Self { subscribers, hang_ups, common } = self;
        if hang_ups > subscribers {
            return Err(Failure::Usage(format!(
                "--hang-ups {hang_ups} of --subscribers {subscribers}"
            )));
        }
        let idle = Idle { subscribers: *subscribers, hang_ups: *hang_ups };
        let (_server, target) = common.target(None, *subscribers)?;
        Ok(idle::run(&target, &common.options(), &idle)?)
    }
}

impl StormBench {
    fn run(&self) -> Result<Outcome, Failure> {
        let Self { subscribers, history, churn, rate, common } = self;
        let (_server, target) = common.target(None, subscribers.saturating_add(2))?;
        if let Some(connects_per_s) = churn {
            let churn = Churn {
                subscribers: *subscribers,
                connects_per_s: *connects_per_s,
                rate_per_s: *rate,
            };
            return Ok(storm::run_churn(&target, &common.options(), &churn)?);
        }
        let storm = Storm { subscribers: *subscribers, history: *history, rate_per_s: *rate };
        Ok(storm::run(&target, &common.options(), &storm)?)
    }
}

impl LoadArguments {
    /// The loads, where requests hold `batch` events each.
    fn rates(&self, batch: u32) -> Result<Vec<Rate>, Failure> {
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
    fn options(&self) -> Options {
        Options {
            seconds: self.seconds,
            warmup: self.warmup,
            payload_bytes: self.bytes,
            interval: self.interval,
            connecting_max: usize::try_from(self.connecting).expect("at most 4096"),
            patience: self.patience,
            progress: true,
        }
    }

    /// The server that is measured, started if need be, and this thread on its core.
    fn target(
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
        let unix_ms =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis());
        let target = Strandline {
            address,
            host,
            topic: self.topic.clone().unwrap_or_else(|| format!("bench/{unix_ms:x}")),
            transport: match self.transport {
                TransportName::Sse => Transport::Sse,
                TransportName::Ws => Transport::WebSocket,
            },
            compression: self.compression_name(),
            lines,
            payload_bytes: self.bytes,
            processes,
        };
        Ok((server, target))
    }

    fn start(&self, cores: &[usize]) -> Result<ServerProcess, Failure> {
        let mut arguments = vec!["--shards".to_owned(), self.shards.to_string()];
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

    /// Adds what only the command line knows to what a report says of its options.
    fn say_options(&self, outcome: &mut Outcome) {
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

    fn tell(&self, outcome: &Outcome) -> Result<(), Failure> {
        if self.json {
            let json = serde_json::to_string_pretty(outcome).expect("numbers and strings are JSON");
            println!("{json}");
        } else {
            print!("{}", outcome.table());
        }
        if let Some(path) = &self.report {
            let written = fs::write(path, page::render(outcome));
            written.map_err(|error| {
                io::Error::new(error.kind(), format!("--report {}: {error}", path.display()))
            })?;
        }
        Ok(())
    }
}

fn parse_url(url: &str) -> Result<(SocketAddr, String), Failure> {
    let usage = |what: &str| Failure::Usage(format!("--url {url}: {what}"));
    let host = url.strip_prefix("http://").ok_or_else(|| usage("write it as http://HOST:PORT"))?;
    let host = host.trim_end_matches('/');
    let named = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let address = named.to_socket_addrs().map_err(|error| usage(&error.to_string()))?.next();
    Ok((address.ok_or_else(|| usage("no such host"))?, host.to_owned()))
}
