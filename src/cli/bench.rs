//! `strandline bench`: how fast a server is, every delivery checked.

mod common;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use common::{CommonArguments, Failure, LoadArguments, parse_rate};

use super::number::number;
use crate::bench::{
    append::{self, Append},
    fan_out::{self, FanOut},
    idle::{self, Idle},
    outcome::Outcome,
    replay::{self, Replay},
    storm::{self, Churn, Storm},
    strandline::{KnownBy, Strandline},
};
use crate::stderr::tell;

/// Measures a server: appends, fan-out, replay, idle subscribers, storms of reconnections.
///
/// Without --url it starts a server of its own on a new data directory, on one core, and is itself on
/// another. Every delivery is checked for gaps, repeats and order, and every byte of it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  strandline bench append --publishers 64
  strandline bench append --publishers 64 --topics 1000000
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
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = number::<u32>(1..=15_000))]
    publishers: u32,
    /// Events in NDJSON bodies of so many lines, a request a body, instead of one event a request
    #[arg(long, value_name = "LINES", value_parser = number::<u32>(1..=1_000_000))]
    ndjson: Option<u32>,
    /// Spreads events over so many topics, each of which got one before, at random
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "ndjson", value_parser = number::<u32>(1..=10_000_000))]
    topics: u32,
    /// Gives each event an id, so that it would happen once
    #[arg(long, conflicts_with = "ndjson")]
    event_ids: bool,
    /// Makes each connection a producer, whose appends are numbered
    #[arg(long, conflicts_with_all = ["ndjson", "event_ids", "topics"])]
    producers: bool,
    #[command(flatten)]
    load: LoadArguments,
    #[command(flatten)]
    common: CommonArguments,
}

/// How soon every subscriber of a topic has an event, and what that costs.
#[derive(Debug, Args)]
struct FanOutBench {
    /// Connections that receive
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = number::<u32>(1..=100_000))]
    subscribers: u32,
    /// Connections that append
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = number::<u32>(1..=15_000))]
    publishers: u32,
    /// So many subscribers stop reading at half time, and get the rest at the end
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = number(0..=u32::MAX))]
    stall: u32,
    /// What the kernel may keep for a subscriber that is to stall, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 10, value_parser = number(0..=usize::MAX))]
    stall_buffer: usize,
    #[command(flatten)]
    load: LoadArguments,
    #[command(flatten)]
    common: CommonArguments,
}

/// How fast readers get a long history, from its first event on.
#[derive(Debug, Args)]
struct ReplayBench {
    /// Events of the history, at least: it is loaded in bodies of 1,000
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = number::<u64>(1..=1_000_000_000))]
    events: u64,
    /// Connections that read it, all at the same time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = number::<u32>(1..=15_000))]
    readers: u32,
    /// How often each reads it: sealed segments come from the page cache from the second time on
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = number::<u32>(1..=1000))]
    readings: u32,
    #[command(flatten)]
    common: CommonArguments,
}

/// What a subscriber costs that gets nothing, and how soon one that hangs up is noticed.
#[derive(Debug, Args)]
struct IdleBench {
    /// Connections that receive nothing
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = number::<u32>(1..=100_000))]
    subscribers: u32,
    /// How many of them hang up at the end
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = number(0..=u32::MAX))]
    hang_ups: u32,
    #[command(flatten)]
    common: CommonArguments,
}

/// Everybody reconnects at once, or with --churn people come and go without end.
///
/// A subscriber is live again once it has all that was acknowledged a quarter of a second before.
#[derive(Debug, Args)]
struct StormBench {
    /// Connections that receive
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = number::<u32>(1..=100_000))]
    subscribers: u32,
    /// Events that the cursors of those who reconnect are spread over
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = number::<u32>(1..=10_000_000))]
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
            tell!(
                "error: {} deliveries were not as they should be, the first: {}",
                outcome.violation_count,
                outcome.violations.first().map_or("", String::as_str)
            );
            ExitCode::FAILURE
        }
        Err(failure) => {
            let place = match &failure {
                Failure::Bench(_) => common.place(),
                Failure::Usage(_) | Failure::Io(_) => String::new(),
            };
            tell!("error: {place}{failure}");
            if matches!(failure, Failure::Usage(_)) { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

impl AppendBench {
    fn run(&self) -> Result<Outcome, Failure> {
        let Self { publishers, topics, ndjson, event_ids, producers, load, common } = self;
        let rates = load.rates(ndjson.unwrap_or(1))?;
        let append = Append { publishers: *publishers, topics: *topics, rates };
        let (_server, target) = common.target(*ndjson, *publishers)?;
        let known_by = match (event_ids, producers) {
            (true, _) => KnownBy::Id,
            (_, true) => KnownBy::Producer,
            _ => KnownBy::Nothing,
        };
        let target = Strandline { known_by, topics: *topics, ..target };
        Ok(append::run(&target, &common.options()?, &append)?)
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
        Ok(fan_out::run(&target, &common.options()?, &fan_out)?)
    }
}

/// A history is loaded by so many connections, in bodies of so many lines, so many of them in flight.
const LOAD_PUBLISHERS: u32 = 2;
const LOAD_LINES: u32 = 1000;
const LOAD_BODIES: u32 = 4;

impl ReplayBench {
    fn run(&self) -> Result<Outcome, Failure> {
        let Self { events, readers, readings, common } = self;
        let lines = u32::try_from(*events).unwrap_or(u32::MAX).min(LOAD_LINES);
        let replay = Replay {
            events: *events,
            publishers: LOAD_PUBLISHERS,
            window: lines * LOAD_BODIES,
            readers: *readers,
            readings: *readings,
        };
        let (_server, target) = common.target(Some(lines), readers + LOAD_PUBLISHERS)?;
        Ok(replay::run(&target, &common.options()?, &replay)?)
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
        Ok(idle::run(&target, &common.options()?, &idle)?)
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
            return Ok(storm::run_churn(&target, &common.options()?, &churn)?);
        }
        let storm = Storm { subscribers: *subscribers, history: *history, rate_per_s: *rate };
        Ok(storm::run(&target, &common.options()?, &storm)?)
    }
}
