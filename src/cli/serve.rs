//! `strandline serve`: runs the server until a signal stops it.

use std::{
    io::{self, IsTerminal, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroUsize,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
    low_level,
};
use strandline_storage::config::{LogConfig, SyncMode};
use tracing_subscriber::{
    EnvFilter,
    filter::{Directive, LevelFilter},
};

use super::number::number;
use crate::{
    config::{ListenAddress, ServerConfig},
    http::origin::OriginRules,
    server::{Server, StartError},
    shutdown::Control,
    stderr::tell,
};

/// A stop that takes longer than this is cut short: whoever stops us would do so with SIGKILL.
const STOP_MS_MAX: u64 = 9_500;

/// A signal that comes so soon behind the first is the same one: `timeout`, and others that start us, signal both us
/// and our process group. Nobody asks twice by hand in so short a time.
const SAME_SIGNAL: Duration = Duration::from_millis(500);

/// Runs the server: appends are durable when they are answered, and pushed from then on.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  strandline serve
  strandline serve --listen 127.0.0.1:0 --data /var/lib/strandline
  strandline serve --listen 0.0.0.0:7400 --cors-origin https://app.example

When it is ready, one line on standard output says where:
  strandline listening http://127.0.0.1:7400 data=./strandline-data shards=2 write=direct

SIGTERM and SIGINT stop it in order, within 10 seconds; a second one, half a second later or more,
ends it at once.
STRANDLINE_LOG (or RUST_LOG) says what is logged to standard error: error, warn, info, debug.

Exit codes: 0 fine, 1 failure (address or data directory in use, disk, ...), 2 usage.")]
pub struct ServeArguments {
    /// Address and port to listen on, or a port alone, which is on 127.0.0.1; port 0 lets the system pick one
    #[arg(long, value_name = "ADDRESS", default_value = ServerConfig::LISTEN, value_parser = parse_listen)]
    listen: ListenAddress,
    /// The data directory; made if it is not there
    #[arg(long, value_name = "DIR", default_value = ServerConfig::DATA_DIR)]
    data: PathBuf,
    /// How many threads serve, each on a core of its own [default: one for each core]
    #[arg(long, value_name = "N", value_parser = number(NonZeroUsize::MIN..=SHARDS_MAX))]
    shards: Option<NonZeroUsize>,
    /// How many connections there may be at a time; more are told to come back [default: what the limit
    /// of open files leaves, once it is raised to its hard limit and the log has its share]
    #[arg(long, value_name = "N", value_parser = number(NonZeroUsize::MIN..=CONNECTIONS_MAX))]
    connections_max: Option<NonZeroUsize>,
    /// A segment file is full at this many bytes: a multiple of 4096, at least 1048576
    #[arg(long, value_name = "N", default_value_t = LogConfig::default().segment_bytes, value_parser = parse_segment_bytes)]
    segment_bytes: u64,
    /// A full segment is rewritten, compressed, once its last event is so many seconds old
    #[arg(long, value_name = "SECONDS", default_value_t = LogConfig::default().compress_after_s, value_parser = number(0..=SECONDS_MAX))]
    compress_after: u64,
    /// All full segments are read again every so many seconds, to find rot in time
    #[arg(long, value_name = "SECONDS", default_value_t = LogConfig::default().scrub_interval_s, value_parser = number(1..=SECONDS_MAX))]
    scrub_interval: u64,
    /// When an append is answered: `commit` (it is on the device), `interval:MS` or `never`
    #[arg(long, value_name = "MODE", default_value_t = SyncMode::Commit)]
    sync: SyncMode,
    /// An origin whose web pages may append and read, such as `https://app.example`; `*` is any. May be
    /// repeated
    #[arg(long = "cors-origin", value_name = "ORIGIN", value_parser = parse_origin)]
    cors_origins: Vec<String>,
}

/// More than three hundred years, as ages in settings have it: what is more overflows as milliseconds.
const SECONDS_MAX: u64 = 10_000_000_000;

/// The exit code of wrong arguments, as `clap` has it.
const EXIT_USAGE: u8 = 2;

/// More shards than any machine has cores are a typing error.
const SHARDS_MAX: NonZeroUsize = NonZeroUsize::new(1024).expect("it is not zero");

/// And so are more connections than one machine has memory for.
const CONNECTIONS_MAX: NonZeroUsize = NonZeroUsize::new(10_000_000).expect("it is not zero");

fn parse_listen(text: &str) -> Result<ListenAddress, String> {
    ListenAddress::parse(text).map_err(|error| {
        format!("{error}; give an address and a port, such as {}", ServerConfig::LISTEN)
    })
}

fn parse_segment_bytes(text: &str) -> Result<u64, String> {
    let least = LogConfig::SEGMENT_BYTES_MIN;
    // What the log itself takes is less, for tests.
    let is_fine = |bytes: &u64| *bytes >= least && bytes.is_multiple_of(4096);
    let bytes = text.parse().ok().filter(is_fine);
    let bytes = bytes.ok_or_else(|| format!("give a multiple of 4096, at least {least}"))?;
    let config = LogConfig { segment_bytes: bytes, ..LogConfig::default() };
    config.check().map_err(|error| error.to_string())?;
    Ok(bytes)
}

fn parse_origin(text: &str) -> Result<String, String> {
    let address = ([127, 0, 0, 1], 0).into();
    let rules = OriginRules::new(address, None, &[text.to_owned()]);
    rules.map(|_| text.to_owned()).map_err(|error| error.to_string())
}

impl ServeArguments {
    fn into_config(self) -> ServerConfig {
        let mut config = ServerConfig::new(self.listen, self.data);
        config.shards = self.shards.unwrap_or(config.shards);
        config.log.segment_bytes = self.segment_bytes;
        config.log.sync = self.sync;
        config.log.compress_after_s = self.compress_after;
        config.log.scrub_interval_s = self.scrub_interval;
        config.limits.connections_max = self.connections_max;
        config.cors_origins = self.cors_origins;
        config
    }
}

/// Runs the command.
pub fn run(arguments: ServeArguments) -> ExitCode {
    if let Err(what) = log_to_stderr() {
        tell!("error: {what}");
        return ExitCode::from(EXIT_USAGE);
    }
    match serve(arguments.into_config()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Why it failed: at the start, or later.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn serve(config: ServerConfig) -> Result<(), ServeError> {
    if config.cors_origins.iter().any(|origin| origin == "*") {
        tracing::warn!(
            "--cors-origin '*': EVERY WEB PAGE that somebody here opens may append and read"
        );
    }
    // Signals that come while the log is recovered stop the server as soon as it runs.
    let signals = Signals::new([SIGINT, SIGTERM])?;
    let server = Server::start(config)?;
    if !server.address().ip().is_loopback() {
        tracing::warn!(
            "there is no authentication yet: whoever reaches {} may append and read",
            server.address()
        );
    }
    stop_on_signals(signals, server.control())?;
    tell_ready(&server)?;
    server.wait()?;
    tracing::info!("stopped");
    Ok(())
}

/// The line that whoever started us waits for, and what to try next.
fn tell_ready(server: &Server) -> io::Result<()> {
    let url = server.url();
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "strandline listening {url} data={} shards={} write={}",
        server.data_dir().display(),
        server.shards(),
        server.write_mode()
    )?;
    out.flush()?;
    let url = url_from_here(server.address());
    let (bold, plain) = if is_styled() { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    tell!(
        "
{bold}Watch{plain}   curl -N '{url}/api/v1/events/stream?from=earliest'
{bold}Append{plain}  curl -d 'hello' '{url}/api/v1/topics/demo/events'
{bold}Look{plain}    {url}/
{bold}Stop{plain}    Ctrl-C
"
    );
    Ok(())
}

/// Whether standard error is a terminal that wants colours and bold letters (<https://no-color.org>).
fn is_styled() -> bool {
    let said = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let is_plain = said("NO_COLOR").is_some() || said("TERM").is_some_and(|term| term == "dumb");
    io::stderr().is_terminal() && !is_plain
}

/// The URL for whoever sits at this machine: every address (`0.0.0.0`) is none to connect to.
fn url_from_here(mut address: SocketAddr) -> String {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    format!("http://{address}")
}

fn stop_on_signals(mut signals: Signals, control: Arc<Control>) -> io::Result<()> {
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut coming = signals.forever();
        coming.next();
        let first = Instant::now();
        tracing::info!("stopping; a second signal ends at once");
        control.stop();
        let watchdog = std::thread::Builder::new().name("watchdog".to_owned()).spawn(|| {
            std::thread::sleep(Duration::from_millis(STOP_MS_MAX));
            tell!("error: the server did not stop in time; the next start recovers the log");
            low_level::exit(1);
        });
        if let Err(error) = watchdog {
            tracing::warn!(%error, "nobody watches how long the stop takes");
        }
        while coming.next().is_some() && first.elapsed() < SAME_SIGNAL {}
        tell!("error: a second signal ended the server; the next start recovers the log");
        low_level::exit(1);
    })?;
    Ok(())
}

fn log_to_stderr() -> Result<(), String> {
    let said = |name| std::env::var(name).ok().filter(|said| !said.is_empty());
    let filter = match (said("STRANDLINE_LOG"), said("RUST_LOG")) {
        (Some(ours), _) => our_filter(&ours)?,
        // Meant for other programs as well: what it says of them leaves us as we are.
        (None, Some(all)) => filter_for_all(&all),
        (None, None) => EnvFilter::new("info"),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        // It would tell of a line that cannot be written where that cannot be written either, and panic.
        .log_internal_errors(false)
        .with_ansi(is_styled())
        .with_target(false)
        .init();
    Ok(())
}

/// What `RUST_LOG` says, but for what is wrong in it: that is told, as the filter itself would with a panic where nobody
/// takes it.
fn filter_for_all(said: &str) -> EnvFilter {
    let is_good = |part: &&str| match part.parse::<Directive>() {
        Ok(_) => true,
        Err(error) => {
            tell!("warning: RUST_LOG: ignoring `{part}`: {error}");
            false
        }
    };
    let parts = said.split(',').filter(|part| !part.is_empty()).filter(is_good);
    EnvFilter::new(["info"].into_iter().chain(parts).collect::<Vec<_>>().join(","))
}

/// What `STRANDLINE_LOG` says: levels, and `target=level`. A lone word that is no level is a target to the filter, and
/// would silence everything else, warnings of a full disk among it.
fn our_filter(said: &str) -> Result<EnvFilter, String> {
    for part in said.split(',') {
        let is_good = match part.contains('=') {
            true => part.parse::<Directive>().is_ok(),
            false => part.parse::<LevelFilter>().is_ok(),
        };
        if !is_good {
            return Err(format!(
                "STRANDLINE_LOG={said}: `{part}` is no level: give error, warn, info or debug"
            ));
        }
    }
    Ok(EnvFilter::new(format!("info,{said}")))
}

#[cfg(test)]
mod tests {
    use super::our_filter;

    #[test]
    fn a_level_that_is_none_is_refused_and_silences_nothing() {
        let filter = |said| our_filter(said).map(|filter| filter.to_string());
        assert_eq!(filter("warn").unwrap(), "warn");
        assert_eq!(filter("DEBUG").unwrap(), "debug");
        assert_eq!(filter("off").unwrap(), "off");
        assert_eq!(filter("strandline_storage=debug").unwrap(), "strandline_storage=debug,info");
        for wrong in ["verbose", "warning", "warn,loud", "=", "strandline=loud", "warn, info=x=y"] {
            let told = filter(wrong).unwrap_err();
            assert!(told.contains("error, warn, info or debug"), "{wrong}: {told}");
        }
    }
}
