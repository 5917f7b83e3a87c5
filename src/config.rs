//! Addresses, limits and timeouts of the server, each with its unit, default and reason.

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
    num::NonZeroUsize,
    path::PathBuf,
    thread::available_parallelism,
};

use strandline_storage::config::LogConfig;

use crate::runtime::Driver;

/// Where to listen: an address, and the name by which it was given, if it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddress {
    /// What is bound. Port 0 lets the system pick one.
    pub address: SocketAddr,
    /// The name before the port, where that is not an address.
    pub name: Option<String>,
}

impl ListenAddress {
    /// Resolves `host:port`, `address:port`, `[v6]:port`, `:port` or a port alone (both on
    /// 127.0.0.1).
    pub fn parse(text: &str) -> io::Result<ListenAddress> {
        let given = match text.strip_prefix(':').unwrap_or(text) {
            port if port.parse::<u16>().is_ok() => format!("127.0.0.1:{port}"),
            _ => text.to_owned(),
        };
        if let Ok(address) = given.parse() {
            return Ok(ListenAddress { address, name: None });
        }
        // 127.0.0.1 comes first where a name has both: it is what the examples use.
        let mut addresses: Vec<SocketAddr> = given.to_socket_addrs()?.collect();
        addresses.sort_by_key(SocketAddr::is_ipv6);
        let address = *addresses.first().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let name = given.rsplit_once(':').map(|(name, _)| name.to_owned());
        Ok(ListenAddress { address, name })
    }
}

/// How much one client may ask for, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From the first byte of a request's head to its last: who is slower is cut off with 408.
    pub head_ms: u64,
    /// A connection without a request is closed after so long.
    pub idle_ms: u64,
    /// A body of which nothing comes for so long is given up with 408; one of lines only inside a line.
    pub body_stall_ms: u64,
    /// A client that takes nothing of its answers for so long is gone.
    pub send_stall_ms: u64,
    /// After an early refusal the rest of the body is read for so long, so that the client can read
    /// the answer instead of a broken pipe.
    pub linger_ms: u64,
    /// Requests of one connection that have no answer so far: beyond it no more are read.
    pub pipelined_requests_max: usize,
    /// The same in bytes of events.
    pub pipelined_bytes_max: usize,
    /// A JSON array of events, or an event object, in bytes.
    pub array_bytes_max: u64,
    /// Events of a stream of lines that wait for the disk, in bytes: beyond it no more is read.
    pub lines_in_flight_bytes_max: usize,
    /// Lines of a stream are appended in batches of about so many bytes.
    pub line_batch_bytes: usize,
    /// Connections of the whole server; without a number, as many as the limit of open files leaves
    /// when the log has its share, and never more. Others are refused.
    pub connections_max: Option<NonZeroUsize>,
    /// Connections that a shard is refusing at a time, at least 1: each costs a file and nothing else.
    /// Others wait in the kernel's backlog. Fewer where there are few files.
    pub refusals_max: usize,
    /// A connection that is refused has so long to send its head. Less than one that is served, since
    /// it keeps others from being refused; a lost packet is sent again within it.
    pub refused_head_ms: u64,
    /// After the signal to stop, connections have so long to end by themselves.
    pub drain_ms: u64,
    /// Of it, a head that is still coming has so long to end; what has not is cut. Nothing was promised to it.
    pub drain_head_ms: u64,
    /// A body that is still coming has so long to end; what has not is answered with 503 then.
    /// Together with `linger_ms` less than `drain_ms`, so that the answer is read.
    pub drain_body_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            head_ms: 10_000,
            idle_ms: 75_000,
            body_stall_ms: 30_000,
            send_stall_ms: 60_000,
            linger_ms: 2_000,
            pipelined_requests_max: 512,
            pipelined_bytes_max: 4 << 20,
            array_bytes_max: 4 << 20,
            lines_in_flight_bytes_max: 4 << 20,
            line_batch_bytes: 64 << 10,
            connections_max: None,
            refusals_max: 256,
            refused_head_ms: 3_000,
            drain_ms: 7_000,
            drain_head_ms: 1_000,
            drain_body_ms: 2_000,
        }
    }
}

/// Everything that a server is started with.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where to listen.
    pub listen: ListenAddress,
    /// The data directory; made if it is not there.
    pub data_dir: PathBuf,
    /// How many shards; each is a thread on a core of its own.
    pub shards: NonZeroUsize,
    /// The limits of the log.
    pub log: LogConfig,
    /// Origins whose pages may append; `*` is all.
    pub cors_origins: Vec<String>,
    /// What a client may ask for.
    pub limits: Limits,
    /// Whether threads are pinned to cores.
    pub is_pinned: bool,
    /// Which driver to use, instead of the best that the machine allows.
    pub driver: Option<Driver>,
}

impl ServerConfig {
    /// The address of a server that was not told any other.
    pub const LISTEN: &str = "127.0.0.1:7400";
    /// Its data directory.
    pub const DATA_DIR: &str = "./strandline-data";

    /// The defaults, with a data directory and an address of one's own choice.
    pub fn new(listen: ListenAddress, data_dir: impl Into<PathBuf>) -> Self {
        ServerConfig {
            listen,
            data_dir: data_dir.into(),
            shards: available_parallelism().unwrap_or(NonZeroUsize::MIN),
            log: LogConfig::default(),
            cors_origins: Vec::new(),
            limits: Limits::default(),
            is_pinned: true,
            driver: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_be_a_port_an_address_or_a_name() {
        let plain = |text| ListenAddress::parse(text).unwrap();
        assert_eq!(plain("7400").address.to_string(), "127.0.0.1:7400");
        assert_eq!(plain(":7400").address.to_string(), "127.0.0.1:7400");
        assert_eq!(plain("0.0.0.0:80").address.to_string(), "0.0.0.0:80");
        assert_eq!(plain("[::1]:80").address.to_string(), "[::1]:80");
        assert_eq!(plain("[::1]:80").name, None);
        assert_eq!(plain("localhost:80").name.as_deref(), Some("localhost"));
        for wrong in ["", "127.0.0.1", "127.0.0.1:70000", "localhost"] {
            assert!(ListenAddress::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
