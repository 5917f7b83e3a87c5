//! One shard's thread, from its plan to its end.
//!
//! Everything here belongs to that thread. What reaches it from others comes by the mesh, and the
//! doorbell's task looks into every mailbox when it was rung.

use std::{
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
    config::ServerConfig,
    http::origin::OriginRules,
    listener::Door,
    local::{Either, either},
    log_calls::{Answer, Call, Guest},
    log_handle::{LogHandle, Seat},
    log_shared::LogShared,
    mesh::{Caller, Doorbell, Receiver},
    metrics::ShardCounts,
    owner::{Follower, GuestSeat, Owner},
    runtime::{self, Driver},
    shard::{ConnectionLimit, Connections, Shard},
    shutdown::{Control, Drain},
    stream::{gaps::ReportedGaps, live::LiveLog},
};

/// What a shard's thread is started with.
pub(super) struct Plan {
    pub(super) counts: ShardCounts,
    pub(super) core: Option<usize>,
    pub(super) driver: Driver,
    /// There is no other shard.
    pub(super) is_alone: bool,
    pub(super) config: Arc<ServerConfig>,
    pub(super) origins: Arc<OriginRules>,
    pub(super) gaps: Arc<ReportedGaps>,
    pub(super) control: Arc<Control>,
    pub(super) doorbell: Arc<Doorbell>,
    pub(super) listener: TcpListener,
    pub(super) connections: Arc<ConnectionLimit>,
    pub(super) shared: Arc<LogShared>,
    pub(super) role: Role,
    /// Told once the shard serves, or why it does not.
    pub(super) started: mpsc::Sender<io::Result<()>>,
}

/// What a shard is to the log.
pub(super) enum Role {
    /// It appends.
    Owner { log: Box<Log<RealDisk>>, disk: RealDisk, guests: Vec<GuestSeat> },
    /// It asks the owner.
    Guest { caller: Caller<Call, Answer>, frames: Receiver<Arc<Frame>> },
}

/// The body of a shard's thread: returns when the server has ended, or with what keeps the shard from starting.
pub(super) fn run(plan: Plan) -> io::Result<()> {
    if let Some(core) = plan.core
        && let Err(error) = runtime::pin_to(core)
    {
        tracing::warn!(%error, core, "cannot pin a shard to its core");
    }
    if let Err(error) = runtime::let_others_first() {
        tracing::debug!(%error, "a busy shard may keep the disk's completions waiting");
    }
    let (driver, is_alone) = (plan.driver, plan.is_alone);
    let (started, control) = (plan.started.clone(), plan.control.clone());
    let is_owner = matches!(plan.role, Role::Owner { .. });
    let outcome = runtime::block_on(driver, is_alone, run_shard(plan)).and_then(|outcome| outcome);
    if let Err(error) = &outcome {
        // The other shards serve for as long as they wait for this one.
        control.cannot_start(1, is_owner);
        let _ = started.send(Err(io::Error::new(error.kind(), error.to_string())));
    }
    outcome
}

async fn run_shard(plan: Plan) -> io::Result<()> {
    let Plan { counts, driver, config, origins, control, doorbell, shared, .. } = plan;
    let index = counts.index();
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
        let follower: Rc<dyn Follower> = log.clone();
        owner.set_follower(Rc::downgrade(&follower));
    }
    let drain = Drain::new(control.clone());
    let live = LiveLog::start(log.clone(), drain.clone(), plan.gaps)?;
    let connections = Connections::new(plan.connections);
    let shard =
        Rc::new(Shard::new(counts, driver, config.clone(), origins, live, drain, connections)?);
    let door = Door::open(shard.clone(), plan.listener)?;
    // Nothing fails from here on: who waits for the start believes that all shards serve.
    let committing = owner.as_ref().map(|owner| monoio::spawn(owner.clone().run()));
    let mail = monoio::spawn(take_mail(shard.clone(), owner.clone(), doorbell.clone()));
    let accepting = monoio::spawn(door.run());
    let _ = plan.started.send(Ok(()));

    shard.drain().begun().await;
    accepting.await;
    let patience = Duration::from_millis(config.limits.drain_ms);
    let quiet = either(shard.connections().none_left(), monoio::time::sleep(patience)).await;
    if let Either::Right(()) = quiet {
        let open = shard.connections().open();
        tracing::warn!(
            shard = index,
            open,
            "ending with connections that did not end by themselves"
        );
    }
    control.shard_is_quiet();
    if let (Some(owner), Some(committing)) = (owner, committing) {
        shard.drain().all_quiet().await;
        owner.close();
        committing.await;
        control.end();
    }
    shard.drain().ended().await;
    mail.await;
    doorbell.forget_sleeper();
    Ok(())
}

/// Looks into the mailboxes each time the doorbell was rung, until the server has ended.
async fn take_mail(shard: Rc<Shard>, owner: Option<Rc<Owner>>, doorbell: Arc<Doorbell>) {
    let mut seen = (0, 0);
    loop {
        poll_fn(|context| doorbell.poll_rung(context)).await;
        shard.log().take_mail();
        if let Some(owner) = &owner {
            owner.take_mail();
        }
        if shard.drain().look(&mut seen) {
            return;
        }
    }
}
