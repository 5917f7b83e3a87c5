//! One pinned core: its runtime, its logs, its connections, its run loop.
//!
//! Everything here belongs to one thread. What reaches it from others comes by the mesh, and the
//! doorbell's task looks into every mailbox when it was rung.

use std::{
    cell::Cell,
    future::poll_fn,
    io,
    net::TcpListener,
    rc::Rc,
    sync::{Arc, mpsc},
    time::Duration,
};

use strandline_storage::{
    frame::Frame,
    io::{
        real::RealDisk,
        uring::{UringFiles, UringReads},
    },
    log::Log,
};

use crate::{
    clock,
    config::ServerConfig,
    http::{origin::OriginRules, response::HttpDate},
    listener,
    local::{Either, Signal, either},
    log_handle::{Answer, Call, Guest, LogHandle, LogShared, Seat},
    mesh::{Caller, Doorbell, Receiver},
    owner::{GuestSeat, Owner},
    runtime::{self, Driver},
    shutdown::{Control, Drain},
    stream::live::LiveLog,
};

/// What a shard's thread is started with.
pub(crate) struct Plan {
    pub(crate) index: usize,
    pub(crate) core: Option<usize>,
    pub(crate) driver: Driver,
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) origins: Arc<OriginRules>,
    pub(crate) control: Arc<Control>,
    pub(crate) doorbell: Arc<Doorbell>,
    pub(crate) listener: TcpListener,
    pub(crate) connections_max: usize,
    pub(crate) shared: Arc<LogShared>,
    pub(crate) role: Role,
    /// Told once the shard serves, or why it does not.
    pub(crate) started: mpsc::Sender<io::Result<()>>,
}

/// What a shard is to the log.
pub(crate) enum Role {
    /// It appends.
    Owner { log: Box<Log<RealDisk>>, disk: RealDisk, guests: Vec<GuestSeat> },
    /// It asks the owner.
    Guest { caller: Caller<Call, Answer>, frames: Receiver<Arc<Frame>> },
}

/// What every task of a shard may use.
pub struct Shard {
    index: usize,
    driver: Driver,
    config: Arc<ServerConfig>,
    origins: Arc<OriginRules>,
    live: Rc<LiveLog>,
    drain: Drain,
    connections: Rc<Connections>,
    date: DateCache,
}

impl Shard {
    /// Its number, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// What carries its I/O.
    pub fn driver(&self) -> Driver {
        self.driver
    }

    /// What the server was started with.
    pub fn config(&self) -> &ServerConfig {
        &self.config
    }

    /// Which hosts and origins may do what.
    pub fn origins(&self) -> &OriginRules {
        &self.origins
    }

    /// The log `main` of the tenant `default`.
    pub fn log(&self) -> &Rc<LogHandle> {
        self.live.log()
    }

    /// The same with the views of it, and who subscribed to them on this shard.
    pub fn live(&self) -> &Rc<LiveLog> {
        &self.live
    }

    /// Whether and when the server ends.
    pub fn drain(&self) -> &Drain {
        &self.drain
    }

    /// The connections of this shard.
    pub fn connections(&self) -> &Rc<Connections> {
        &self.connections
    }

    /// The Date of an answer that is written now.
    pub fn date(&self) -> Option<HttpDate> {
        self.date.now()
    }
}

/// The text of the present second.
#[derive(Default)]
struct DateCache(Cell<(u64, Option<HttpDate>)>);

impl DateCache {
    fn now(&self) -> Option<HttpDate> {
        let second = clock::unix_ms() / 1000;
        let (known, date) = self.0.get();
        if known == second {
            return date;
        }
        let date = i64::try_from(second).ok().and_then(HttpDate::at);
        self.0.set((second, date));
        date
    }
}

/// How many connections a shard has, and room for how many.
#[derive(Debug)]
pub struct Connections {
    open: Cell<usize>,
    max: usize,
    changed: Signal,
}

impl Connections {
    fn new(max: usize) -> Self {
        Connections { open: Cell::new(0), max, changed: Signal::new() }
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        self.open.get()
    }

    /// A place for one more, as soon as there is one; until then clients wait in the kernel's queue.
    pub async fn admit(self: &Rc<Self>) -> Place {
        while self.open.get() >= self.max {
            self.changed.wait().await;
        }
        self.open.set(self.open.get() + 1);
        Place(self.clone())
    }

    async fn none_left(&self) {
        while self.open.get() > 0 {
            self.changed.wait().await;
        }
    }
}

/// A connection's place, for as long as it is open.
#[derive(Debug)]
pub struct Place(Rc<Connections>);

impl Drop for Place {
    fn drop(&mut self) {
        let open = self.0.open.get();
        self.0.open.set(open - 1);
        // Only these two states have waiters.
        if open == 1 || open == self.0.max {
            self.0.changed.raise();
        }
    }
}

/// The body of a shard's thread: returns when the server has ended.
pub(crate) fn run(plan: Plan) -> io::Result<()> {
    if let Some(core) = plan.core
        && let Err(error) = runtime::pin_to(core)
    {
        tracing::warn!(%error, core, "cannot pin a shard to its core");
    }
    let (driver, started) = (plan.driver, plan.started.clone());
    let outcome = runtime::block_on(driver, run_shard(plan));
    match outcome {
        Ok(result) => result,
        Err(error) => {
            // The runtime could not be made; whoever waits for the start is told.
            let _ = started.send(Err(io::Error::new(error.kind(), error.to_string())));
            Err(error)
        }
    }
}

async fn run_shard(plan: Plan) -> io::Result<()> {
    let Plan { index, driver, config, origins, control, doorbell, shared, .. } = plan;
    let files = Rc::new(UringFiles::new());
    let seat = match plan.role {
        Role::Owner { log, disk, guests } => {
            let files = files.clone();
            Seat::Owner(Owner::new(*log, disk, driver, files, shared.clone(), guests)?)
        }
        Role::Guest { caller, frames } => Seat::Guest(Guest::new(caller, frames)),
    };
    let owner = match &seat {
        Seat::Owner(owner) => Some(owner.clone()),
        Seat::Guest(_) => None,
    };
    let recent_bytes_max = config.log.recent_frames_bytes_max;
    let log = LogHandle::new(index, shared, seat, recent_bytes_max, UringReads::new(files));
    let log = Rc::new(log);
    if let Some(owner) = &owner {
        owner.set_handle(&log);
    }
    let drain = Drain::new(control.clone());
    let live = LiveLog::start(log.clone(), drain.clone())?;
    let shard = Rc::new(Shard {
        index,
        driver,
        config,
        origins,
        live,
        drain,
        connections: Rc::new(Connections::new(plan.connections_max)),
        date: DateCache::default(),
    });
    let committing = owner.as_ref().map(|owner| monoio::spawn(owner.clone().run()));
    let mail =
        monoio::spawn(take_mail(shard.clone(), owner.clone(), doorbell.clone(), control.clone()));
    let accepting = monoio::spawn(listener::accept(shard.clone(), plan.listener));
    let _ = plan.started.send(Ok(()));

    shard.drain.begun().await;
    accepting.await?;
    let patience = Duration::from_millis(shard.config.limits.drain_ms);
    let quiet = either(shard.connections.none_left(), monoio::time::sleep(patience)).await;
    if let Either::Right(()) = quiet {
        let open = shard.connections.open();
        tracing::warn!(
            shard = index,
            open,
            "ending with connections that did not end by themselves"
        );
    }
    control.shard_is_quiet();
    if let (Some(owner), Some(committing)) = (owner, committing) {
        shard.drain.all_quiet().await;
        owner.close();
        committing.await;
        control.end();
    }
    shard.drain.ended().await;
    mail.await;
    doorbell.forget_sleeper();
    Ok(())
}

/// Looks into the mailboxes each time the doorbell was rung, until the server has ended.
async fn take_mail(
    shard: Rc<Shard>,
    owner: Option<Rc<Owner>>,
    doorbell: Arc<Doorbell>,
    control: Arc<Control>,
) {
    let mut seen = (0, 0);
    loop {
        poll_fn(|context| doorbell.poll_rung(context)).await;
        shard.log().take_mail();
        if let Some(owner) = &owner {
            owner.take_mail();
        }
        shard.drain.look(&mut seen);
        if control.has_ended() {
            return;
        }
    }
}
