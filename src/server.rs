//! A whole server in this process: started, found at its address, stopped.

mod thread;

use std::{
    io,
    net::SocketAddr,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread::JoinHandle,
};

use strandline_storage::{
    data_dir::{DEFAULT_LOG, DEFAULT_TENANT, DataDir},
    error::OpenError,
    io::real::RealDisk,
    log::{Log, WriteMode},
    recovery::OpenReport,
    segment::Tag,
};

use crate::{
    clock,
    config::ServerConfig,
    http::origin::{OriginError, OriginRules},
    listener::{Claim, ClaimError, ClaimLock},
    log_calls::{Answer, Call},
    log_shared::{LogFacts, LogShared},
    memory,
    mesh::{CallLimits, Doorbell, MailboxLimits, call_pair, mailbox},
    metrics::{ServerMetrics, ShardCounts},
    owner::{GuestSeat, Outbox},
    runtime::{self, Driver},
    shard::ConnectionLimit,
    shutdown::Control,
    stream::gaps::ReportedGaps,
};
use thread::{Plan, Role};

/// Requests from one shard to the owner of a log that were not looked at yet, and all without answer.
const CALLS: CallLimits = CallLimits {
    requests: MailboxLimits { messages_max: 4096, bytes_max: 32 << 20 },
    unanswered_max: 16 * 1024,
};

/// Published frames on their way to one shard, by the memory that they hold: beyond it they are read from the log.
const FRAMES: MailboxLimits = MailboxLimits { messages_max: 1024, bytes_max: 16 << 20 };

/// Of the files that the process may open, one in so many is no connection: rings, eventfds, and the
/// segments still to come. A log that cannot open its next segment takes no more writes.
const FILES_RESERVED_SHARE: usize = 5;

/// What is kept at least.
const FILES_RESERVED_MIN: usize = 512;

/// Of what is kept, one in so many is for connections that are being refused.
const FILES_REFUSED_SHARE: usize = 8;

/// A sealed segment and its index are open once, and once more on each shard that has read them.
const FILES_PER_SEGMENT: usize = 2;

/// Why a server does not start. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The data directory, or the log in it.
    #[error("{0}{hint}", hint = hint_of(.0))]
    Open(#[from] OpenError),
    /// `--cors-origin`.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// Threads or rings.
    #[error("cannot start a shard: {0}")]
    Shard(io::Error),
}

/// What to do about a data directory that does not open, where the error itself does not say.
fn hint_of(error: &OpenError) -> &'static str {
    match error {
        OpenError::Locked { .. } => {
            ": stop the server that has it, or choose another directory with --data"
        }
        OpenError::NotOurs { .. } => ": choose another directory with --data, new or empty",
        OpenError::NewerVersion { .. } => {
            ": start that version, or choose another directory with --data"
        }
        OpenError::MissingSegment { .. } => {
            ": put it back from a backup; `strandline verify` lists what is wrong"
        }
        OpenError::Io { source, .. } => match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                ": the disk is full, and every start begins a new file: make room first, or choose another \
                 directory with --data; `strandline dump` reads the events without a server"
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                ": it must be writable; --data chooses another directory"
            }
            _ => "",
        },
        OpenError::MarkerLost { .. } | OpenError::Corrupt(_) | OpenError::Config(_) => "",
    }
}

/// A server that serves. Dropping it stops it as [`Server::stop`] does.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    data_dir: PathBuf,
    shards: usize,
    driver: Driver,
    write_mode: WriteMode,
    tag: Tag,
    control: Arc<Control>,
    threads: Vec<JoinHandle<io::Result<()>>>,
    _lock: ClaimLock,
}

impl Server {
    /// Opens the data directory, which recovers it if need be, and serves it. Returns once clients can
    /// connect.
    pub fn start(config: ServerConfig) -> Result<Server, StartError> {
        runtime::abort_on_shard_panic();
        let files_max = runtime::raise_file_limit();
        let driver = choose_driver(&config);
        let shards = config.shards.get();
        let listen = &config.listen;
        let origins =
            OriginRules::new(listen.address, listen.name.as_deref(), &config.cors_origins)?;
        let claim = Claim::new(listen.address, shards)?;
        let address = claim.address();

        let disk = RealDisk;
        let was_there = DataDir::open_existing(&disk, &config.data_dir).is_ok();
        let log_dir = DataDir::open(&disk, &config.data_dir)?.create_log_dir(
            &disk,
            DEFAULT_TENANT,
            DEFAULT_LOG,
        )?;
        let (log, report) = Log::open(disk, &log_dir, config.log.clone(), clock::now())?;
        memory::give_back();
        tell_report(&report);
        if was_there && report.is_new_tag && report.is_clean {
            tracing::warn!(
                dir = %log_dir.display(),
                "the data directory was there already and holds no log: a new one begins. If there was one, stop the \
                 server and bring its files back"
            );
        }
        let (tag, write_mode) = (*log.tag(), log.write_mode());
        let segments = log.segments().len();
        let shared = Arc::new(LogShared::new(LogFacts::of(&log), shards));

        let doorbells: Vec<_> = (0..shards).map(|_| Arc::new(Doorbell::new())).collect();
        let control = Arc::new(Control::new(doorbells.clone()));
        let (listeners, lock) = claim.listen()?;
        let connections = Arc::new(connection_limit(&config, files_max, segments));
        let metrics = Arc::new(ServerMetrics::new(shards));
        let cores = if config.is_pinned { runtime::allowed_cores() } else { Vec::new() };
        let roles = roles(log, disk, &doorbells);
        let (config, origins) = (Arc::new(config), Arc::new(origins));
        let gaps = Arc::new(ReportedGaps::default());
        let (started, starts) = mpsc::channel();
        let mut server = Server {
            address,
            data_dir: config.data_dir.clone(),
            shards,
            driver,
            write_mode,
            tag,
            control: control.clone(),
            threads: Vec::with_capacity(shards),
            _lock: lock,
        };
        for (index, (role, listener)) in roles.into_iter().zip(listeners).enumerate() {
            let plan = Plan {
                counts: ShardCounts::new(index, metrics.clone()),
                core: (!cores.is_empty()).then(|| cores[index % cores.len()]),
                driver,
                is_alone: shards == 1,
                config: config.clone(),
                origins: origins.clone(),
                gaps: gaps.clone(),
                control: control.clone(),
                doorbell: doorbells[index].clone(),
                listener,
                connections: connections.clone(),
                shared: shared.clone(),
                role,
                started: started.clone(),
            };
            let thread = std::thread::Builder::new().name(format!("shard-{index}"));
            match thread.spawn(move || thread::run(plan)) {
                Ok(thread) => server.threads.push(thread),
                Err(error) => {
                    // The first is the owner.
                    control.cannot_start(shards - index, index == 0);
                    return Err(StartError::Shard(error));
                }
            }
        }
        drop(started);
        for _ in 0..shards {
            let start = starts.recv().unwrap_or_else(|_| Err(io::Error::other("it ended at once")));
            start.map_err(StartError::Shard)?;
        }
        Ok(server)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://` and where it listens.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// How many shards it has.
    pub fn shards(&self) -> usize {
        self.shards
    }

    /// What carries its I/O.
    pub fn driver(&self) -> Driver {
        self.driver
    }

    /// How its log is written.
    pub fn write_mode(&self) -> WriteMode {
        self.write_mode
    }

    /// The name of its log's history.
    pub fn tag(&self) -> Tag {
        self.tag
    }

    /// What stops it from elsewhere, such as a thread that waits for signals.
    pub fn control(&self) -> Arc<Control> {
        self.control.clone()
    }

    /// Stops it, in order, and waits until it has ended.
    pub fn stop(self) -> io::Result<()> {
        self.control.stop();
        self.wait()
    }

    /// Waits until it was stopped through its control and has ended.
    pub fn wait(mut self) -> io::Result<()> {
        let mut outcome = Ok(());
        for thread in std::mem::take(&mut self.threads) {
            outcome = outcome.and(thread.join().expect("a shard's panic ends the process"));
        }
        outcome
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.control.stop();
        for thread in std::mem::take(&mut self.threads) {
            if let Ok(Err(error)) = thread.join() {
                tracing::error!(%error, "a shard has failed");
            }
        }
    }
}

fn choose_driver(config: &ServerConfig) -> Driver {
    if let Some(driver) = config.driver {
        return driver;
    }
    let (driver, refusal) = Driver::detect();
    if let Some(error) = refusal {
        tracing::warn!(%error, "io_uring is not available here: epoll and a disk thread take its place");
    }
    driver
}

/// How many connections there may be, and be refused, so that what the process may open lasts for the
/// log as well.
fn connection_limit(
    config: &ServerConfig,
    files_max: Option<u64>,
    segments: usize,
) -> ConnectionLimit {
    let shards = config.shards.get();
    let files = files_max.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX);
    let sealed = segments.saturating_mul(FILES_PER_SEGMENT * (1 + shards));
    let spare = (files / FILES_RESERVED_SHARE).max(FILES_RESERVED_MIN);
    let allowed = files.saturating_sub(spare.saturating_add(sealed)).max(1);
    let wanted = config.limits.connections_max.map_or(allowed, NonZeroUsize::get);
    if wanted > allowed {
        tracing::warn!(
            wanted,
            allowed,
            files,
            "fewer connections than asked for: raise the limit of open files (ulimit -Hn)"
        );
    }
    let refused = (spare / FILES_REFUSED_SHARE / shards).min(config.limits.refusals_max).max(1);
    ConnectionLimit::new(wanted.min(allowed), refused)
}

fn tell_report(report: &OpenReport) {
    let OpenReport { tag, is_new_tag, write_mode, end, is_clean, scanned, .. } = report;
    let OpenReport { remade, damaged, cut, .. } = report;
    for segment in scanned {
        let (name, events, bytes) = (segment.name.log_file_name(), segment.events, segment.bytes);
        tracing::info!(name, events, bytes, "recovered a segment that had no index");
    }
    for index in remade {
        tracing::warn!(%index, "an index was not there as it should be; nothing is lost");
    }
    for stub in damaged {
        tracing::warn!(%stub, "what says that events are gone is damaged; nothing is lost");
    }
    if let Some(cut) = cut {
        tracing::warn!(%cut, "cut what was being written when the last run ended");
    }
    if !is_clean && *is_new_tag {
        tracing::warn!(%tag, "the last run may have shown events that are lost: the log has a new tag");
    }
    tracing::info!(%tag, end = end.get(), is_clean, %write_mode, "the log is open");
}

/// The first shard owns the log; the others ask it through a pair of mailboxes each.
fn roles(log: Log<RealDisk>, disk: RealDisk, doorbells: &[Arc<Doorbell>]) -> Vec<Role> {
    let mut links = Vec::new();
    let mut guests = Vec::new();
    for (index, doorbell) in doorbells.iter().enumerate().skip(1) {
        let (caller, calls) =
            call_pair::<Call, Answer>(CALLS, doorbell.clone(), doorbells[0].clone());
        let (frame_sender, frames) = mailbox(FRAMES, doorbell.clone());
        links.push(GuestSeat { shard: index, calls, frames: Outbox::new(frame_sender) });
        guests.push(Role::Guest { caller, frames });
    }
    let mut roles = vec![Role::Owner { log: Box::new(log), disk, guests: links }];
    roles.append(&mut guests);
    roles
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ListenAddress;

    #[test]
    fn connections_leave_files_for_the_log() {
        let listen = ListenAddress::parse("127.0.0.1:0").expect("an address");
        let config = ServerConfig {
            shards: NonZeroUsize::new(2).expect("shards"),
            ..ServerConfig::new(listen, "data")
        };
        let limit = |config: &ServerConfig, files, segments| {
            let limit = connection_limit(config, files, segments);
            (limit.max(), limit.refusals_max())
        };
        assert_eq!(limit(&config, None, 0).1, config.limits.refusals_max);
        assert_eq!(limit(&config, Some(20_000), 0), (16_000, 250));
        assert_eq!(limit(&config, Some(20_000), 1_000), (10_000, 250));
        assert_eq!(limit(&config, Some(1_024), 0), (512, 32));
        assert_eq!(limit(&config, Some(1_024), 1_000), (1, 32));
        let mut asked = config;
        for (connections_max, granted) in [(7, 7), (16_000, 16_000), (16_001, 16_000)] {
            asked.limits.connections_max = NonZeroUsize::new(connections_max);
            assert_eq!(limit(&asked, Some(20_000), 0).0, granted);
        }
    }
}
