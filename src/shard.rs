//! What all tasks of one core share: its log as they see it, its connections, its limits.
//!
//! It belongs to one thread (`server/thread` makes it, and runs it to its end).

mod connections;

use std::{cell::Cell, io, rc::Rc, sync::Arc};

use crate::{
    clock,
    config::ServerConfig,
    http::{origin::OriginRules, response::HttpDate},
    log_handle::LogHandle,
    metrics::ShardCounts,
    runtime::Driver,
    shutdown::Drain,
    socket::Sockets,
    stream::live::LiveLog,
    workspace::Workspace,
};

pub use connections::{ConnectionLimit, Connections, Place};

/// What every task of a shard may use.
pub struct Shard {
    driver: Driver,
    config: Arc<ServerConfig>,
    origins: Arc<OriginRules>,
    live: Rc<LiveLog>,
    drain: Drain,
    sockets: Rc<Sockets>,
    connections: Rc<Connections>,
    workspace: Workspace,
    date: DateCache,
    counts: ShardCounts,
}

impl Shard {
    /// A shard that has no connection yet. To be made on its thread.
    pub(crate) fn new(
        counts: ShardCounts,
        driver: Driver,
        config: Arc<ServerConfig>,
        origins: Arc<OriginRules>,
        live: Rc<LiveLog>,
        drain: Drain,
        connections: Connections,
    ) -> io::Result<Self> {
        let sockets = Sockets::start(drain.clone())?;
        let (connections, date) = (Rc::new(connections), DateCache::default());
        let workspace = Workspace::default();
        Ok(Shard {
            driver,
            config,
            origins,
            live,
            drain,
            sockets,
            connections,
            workspace,
            date,
            counts,
        })
    }

    /// Its number, from 0.
    pub fn index(&self) -> usize {
        self.counts.index()
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

    /// The sockets of its HTTP connections.
    pub fn sockets(&self) -> &Rc<Sockets> {
        &self.sockets
    }

    /// The connections of this shard.
    pub fn connections(&self) -> &Rc<Connections> {
        &self.connections
    }

    /// What it counts, and what all shards have counted.
    pub fn counts(&self) -> &ShardCounts {
        &self.counts
    }

    /// Memory for whoever has its turn.
    pub fn workspace(&self) -> &Workspace {
        &self.workspace
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
        let second = clock::unix_s();
        let (known, date) = self.0.get();
        if known == second {
            return date;
        }
        let date = i64::try_from(second).ok().and_then(HttpDate::at);
        self.0.set((second, date));
        date
    }
}
