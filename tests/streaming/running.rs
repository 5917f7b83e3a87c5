//! A whole server in this process, in a directory that goes with it.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use strandline::config::{ListenAddress, ServerConfig};
use strandline::server::Server;

pub struct Running {
    pub server: Option<Server>,
    pub dir: PathBuf,
}

impl Running {
    /// A server with small segments, so that a test goes through all that a log is made of.
    pub fn start(name: &str, shards: usize) -> Running {
        Self::start_with(name, shards, |_| ())
    }

    pub fn start_with(
        name: &str,
        shards: usize,
        change: impl FnOnce(&mut ServerConfig),
    ) -> Running {
        let dir = std::env::temp_dir().join(format!("strandline-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        let listen = ListenAddress::parse("127.0.0.1:0").expect("an address");
        let mut config = ServerConfig::new(listen, dir.clone());
        config.shards = NonZeroUsize::new(shards).expect("not 0");
        config.is_pinned = false;
        config.log.segment_bytes = 1 << 20;
        config.log.recent_frames_bytes_max = 256 << 10;
        change(&mut config);
        Running { server: Some(Server::start(config).expect("it starts")), dir }
    }

    /// Stops it and starts another on a copy of its directory, after `between` has looked at that.
    pub fn restart(mut self, name: &str, between: impl FnOnce(&Path)) -> Running {
        self.server.take().expect("it runs").stop().expect("in order");
        Running::start_with(name, 1, |config| {
            copy(&self.dir, &config.data_dir);
            between(&config.data_dir);
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.server.as_ref().expect("it runs").address()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.server.take());
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a copy");
        }
    }
}
