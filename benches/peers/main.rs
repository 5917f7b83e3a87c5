//! The load of `benches/peers/run.py`: the generator of `strandline bench`, speaking to others too.
//!
//! ```text
//! cargo bench --bench peers -- append --target redis-streams --address 127.0.0.1:6379 --publishers 64
//! ```
//! The server runs already, alone, with nothing in it; `run.py` starts it and writes down what is printed here: one
//! line of JSON. Loop, payload, schedule and checks are the same for every server: here is only how each speaks.

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde_json::{Map, Value};
use strandline::bench::{
    append::{self, Append},
    engine::BenchError,
    fan_out::{self, FanOut},
    number::as_f64,
    options::{Options, Rate},
    outcome::Outcome,
    record::Latency,
    replay::{self, Replay},
    strandline::{KnownBy, Strandline, Transport},
    target::Target,
};

mod bare;
mod durable_streams;
mod lines;
mod nats;
mod nchan;
mod redis;

const PAYLOAD_BYTES: usize = 256;
/// A history is loaded in requests of so many events.
const BATCH_EVENTS: u32 = 500;
/// With a fixed rate a publisher may have so many events without an answer; the next is late then.
const WINDOW: u32 = 1000;
/// So many subscribers connect at the same time. With 500 durable-streams resets some of them; that is not what is
/// compared.
const CONNECTING_MAX: usize = 64;
/// A server that is silent for this long has collapsed.
const PATIENCE: Duration = Duration::from_secs(8);

#[derive(Parser)]
#[command(about = "The load of benches/peers/run.py, against one server")]
struct Command {
    #[command(subcommand)]
    work: Work,
    /// What cargo says to every bench.
    #[arg(long, global = true, hide = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Work {
    #[command(flatten)]
    Load(Load),
    /// No load but something to load: every append is answered at once, and nothing is kept
    Bare {
        #[arg(long)]
        listen: SocketAddr,
    },
}

#[derive(Subcommand)]
enum Load {
    /// Events acknowledged as durable, as fast as they are
    Append {
        #[command(flatten)]
        server: Server,
        #[command(flatten)]
        time: Time,
        #[arg(long, default_value_t = 64)]
        publishers: u32,
        /// Requests in flight of each
        #[arg(long, default_value_t = 1)]
        in_flight: u32,
    },
    /// Every event to every subscriber
    Fanout {
        #[command(flatten)]
        server: Server,
        #[command(flatten)]
        time: Time,
        #[arg(long, default_value_t = 1000)]
        subscribers: u32,
        #[arg(long, default_value_t = 1)]
        publishers: u32,
        /// Events a second in all; without it as fast as they are acknowledged
        #[arg(long)]
        rate: Option<f64>,
    },
    /// A history, read from its beginning
    Replay {
        #[command(flatten)]
        server: Server,
        #[arg(long, default_value_t = 1)]
        readers: u32,
        #[arg(long, default_value_t = 250_000)]
        events: u64,
        /// How often it is read; the last time counts
        #[arg(long, default_value_t = 1)]
        readings: u32,
    },
}

#[derive(Args)]
struct Server {
    /// How it speaks
    #[arg(long)]
    target: Speaks,
    #[arg(long)]
    address: SocketAddr,
    /// The server's processes, whose CPU time is counted
    #[arg(long, value_delimiter = ',')]
    processes: Vec<u32>,
}

#[derive(Args)]
struct Time {
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    #[arg(long, default_value_t = 1.0)]
    warm_up_seconds: f64,
    /// Tells latencies also without what was under way while the machine stood still
    #[arg(long)]
    watch_stops: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Speaks {
    Strandline,
    Bare,
    DurableStreams,
    DurableStreamsGet,
    RedisStreams,
    RedisPubsub,
    NatsCore,
    NatsOrdered,
    Nchan,
}

fn main() -> ExitCode {
    if std::env::args().skip(1).all(|argument| argument == "--bench") {
        println!("peers: benches/peers/run.py starts the servers that this is the load of");
        return ExitCode::SUCCESS;
    }
    let command = Command::parse();
    let said = match command.work {
        Work::Bare { listen } => bare::serve(listen).map_err(|error| error.to_string()),
        Work::Load(load) => load.measure().map_err(|error| error.to_string()),
    };
    if let Err(error) = said {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

impl Load {
    fn measure(&self) -> Result<(), BenchError> {
        if let Err(error) = strandline::runtime::let_others_first() {
            eprintln!("the disk's completions may wait for the load: {error}");
        }
        println!("{}", row(&self.run()?));
        Ok(())
    }

    fn run(&self) -> Result<Outcome, BenchError> {
        let (Load::Append { server, .. }
        | Load::Fanout { server, .. }
        | Load::Replay { server, .. }) = self;
        let (address, payload_bytes) = (server.address, PAYLOAD_BYTES);
        let processes = server.processes.clone();
        let lines = match self {
            Load::Replay { .. } => Some(BATCH_EVENTS),
            _ => None,
        };
        let batch_events = lines.unwrap_or(1);
        let redis = |used, processes| redis::Redis { address, processes, used, payload_bytes };
        let nats = |receive, processes| nats::Nats { address, processes, receive, payload_bytes };
        let durable_streams = |read, processes| durable_streams::DurableStreams {
            address,
            processes,
            read,
            batch_events,
            payload_bytes,
        };
        match server.target {
            Speaks::Strandline | Speaks::Bare => self.run_against(&Strandline {
                address,
                host: address.to_string(),
                topic: "bench/peers".to_owned(),
                topics: 1,
                transport: Transport::Sse,
                compression: None,
                lines,
                known_by: KnownBy::Nothing,
                payload_bytes,
                processes,
            }),
            Speaks::DurableStreams => {
                self.run_against(&durable_streams(durable_streams::Read::Live, processes))
            }
            Speaks::DurableStreamsGet => {
                self.run_against(&durable_streams(durable_streams::Read::Plain, processes))
            }
            Speaks::RedisStreams => self.run_against(&redis(redis::Use::Streams, processes)),
            Speaks::RedisPubsub => self.run_against(&redis(redis::Use::PubSub, processes)),
            Speaks::NatsCore => self.run_against(&nats(nats::Receive::Core, processes)),
            Speaks::NatsOrdered => self.run_against(&nats(nats::Receive::Ordered, processes)),
            Speaks::Nchan => self.run_against(&nchan::Nchan { address, processes, payload_bytes }),
        }
    }

    fn run_against<T: Target>(&self, target: &T) -> Result<Outcome, BenchError> {
        let options = Options {
            payload_bytes: PAYLOAD_BYTES,
            connecting_max: CONNECTING_MAX,
            patience: PATIENCE,
            ..Options::default()
        };
        match self {
            Load::Append { time, publishers, in_flight, .. } => {
                let rates = vec![Rate::Closed { window: *in_flight }];
                append::run(
                    target,
                    &time.options(options),
                    &Append { publishers: *publishers, topics: 1, rates },
                )
            }
            Load::Fanout { time, subscribers, publishers, rate, .. } => {
                let rate = match rate {
                    Some(per_s) => Rate::Open { per_s: *per_s, window: WINDOW },
                    None => Rate::Closed { window: 1 },
                };
                let fan_out = FanOut {
                    subscribers: *subscribers,
                    publishers: *publishers,
                    rates: vec![rate],
                    stalled: 0,
                    stalled_buffer_bytes: 0,
                };
                fan_out::run(target, &time.options(options), &fan_out)
            }
            Load::Replay { readers, events, readings, .. } => {
                let (publishers, window) = (1, 4 * BATCH_EVENTS);
                let replay = Replay {
                    events: *events,
                    publishers,
                    window,
                    readers: *readers,
                    readings: *readings,
                };
                replay::run(target, &options, &replay)
            }
        }
    }
}

impl Time {
    fn options(&self, options: Options) -> Options {
        Options {
            seconds: Duration::from_secs_f64(self.seconds),
            warmup: Duration::from_secs_f64(self.warm_up_seconds),
            watch_stops: self.watch_stops,
            ..options
        }
    }
}

/// The figures of a run that tables show.
fn row(outcome: &Outcome) -> Value {
    let mut row = Map::new();
    let mut put = |name: &str, value: Option<f64>| {
        if let Some(value) = value {
            row.insert(name.to_owned(), value.into());
        }
    };
    let some = |value: f64| (value > 0.0).then_some(value);
    for point in &outcome.points {
        put("load_cores", Some(point.client_cpu_cores));
        put("held_share", Some(point.held_share));
        put("acks_per_s", some(point.appends_per_s));
        put("deliveries_per_s", some(point.deliveries_per_s));
        put("ack_p50_ms", point.ack.as_ref().map(|latency| latency.p50_ms));
        put("ack_p99_ms", point.ack.as_ref().map(|latency| latency.p99_ms));
        let apart = |latency: &Option<Latency>| Some(latency.as_ref()?.apart_from_stops?.p99_ms);
        put("ack_p99_apart_ms", apart(&point.ack));
        put("p99_apart_ms", apart(&point.receipt));
        put("stops", point.stops.map(|stops| as_f64(stops.count)));
        put("stopped_ms_per_s", point.stops.map(|stops| stops.total_ms / point.seconds));
        put("p50_ms", point.receipt.as_ref().map(|latency| latency.p50_ms));
        put("p99_ms", point.receipt.as_ref().map(|latency| latency.p99_ms));
        put("max_ms", point.receipt.as_ref().map(|latency| latency.max_ms));
        if let Some(server) = &point.server {
            put("cpu_cores", Some(server.cpu_cores));
            put("cpu_us_each", server.cpu_us_per_append);
            put("cpu_us_delivery", server.cpu_us_per_delivery);
        }
    }
    if !outcome.is_clean() {
        let first = outcome.violations.first().map_or("", String::as_str);
        let note = format!("{} faults, the first: {first}", outcome.violation_count);
        row.insert("note".to_owned(), note.into());
    }
    row.into()
}
