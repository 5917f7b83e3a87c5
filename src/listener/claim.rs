//! The claim to an address.
//!
//! Every shard has a listening socket of its own on the same address (`SO_REUSEPORT`), among which the
//! kernel spreads the connections. It would do the same with those of a second server, and half of the
//! requests would go astray. So a claim proves that we are alone:
//!
//! 1. a lock, held while we run: an abstract unix socket named after the address;
//! 2. a first bind without `SO_REUSEPORT`, which fails beside *any* other listener.
//!
//! Both are tried for `CLAIM_MS`, since a killed server's ring holds its sockets a little longer.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::{
        fd::OwnedFd,
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr as UnixAddress, UnixListener},
    },
    time::{Duration, Instant},
};

use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, getsockname, ipproto, listen, socket_with,
    sockopt,
};

/// How long a claim waits for a server that was just killed.
const CLAIM_MS: u64 = 2_000;

/// Connections that the kernel keeps for a shard that is busy: as many as it allows at all
/// (`net.core.somaxconn`, 4,096 by default). When it is full, a client's SYN is lost and sent again
/// after a second.
const BACKLOG: i32 = 65_535;

/// Why an address is not ours.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// A server of ours listens there.
    #[error(
        "{address} is in use: a Strandline server listens there; stop it, or choose another address with --listen"
    )]
    Served {
        /// The address.
        address: SocketAddr,
    },
    /// Somebody else does, or one of ours by another name of the address.
    #[error(
        "{address} is in use: stop the server that listens there, or choose another address with --listen"
    )]
    InUse {
        /// The address.
        address: SocketAddr,
    },
    /// The system refuses it.
    #[error("cannot listen on {address}: {source}; choose another address with --listen")]
    Refused {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

/// An address that is ours alone.
pub struct Claim {
    address: SocketAddr,
    sockets: Vec<OwnedFd>,
    lock: UnixListener,
}

/// Keeps other servers from the address for as long as it lives.
#[derive(Debug)]
pub struct ClaimLock {
    _socket: UnixListener,
}

impl Claim {
    /// Claims `address` with a socket for each shard. Nobody can connect before [`Claim::listen`].
    pub fn new(address: SocketAddr, shards: usize) -> Result<Claim, ClaimError> {
        let give_up = Instant::now() + Duration::from_millis(CLAIM_MS);
        loop {
            match Self::try_new(address, shards) {
                Ok(claim) => return Ok(claim),
                Err(error @ ClaimError::Refused { .. }) => return Err(error),
                Err(error) if Instant::now() >= give_up => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    fn try_new(mut address: SocketAddr, shards: usize) -> Result<Claim, ClaimError> {
        let mut sockets = Vec::with_capacity(shards);
        let bound = |address, reuse_port| {
            bound(address, reuse_port).map_err(|error| match error.kind() {
                io::ErrorKind::AddrInUse => ClaimError::InUse { address },
                _ => ClaimError::Refused { address, source: error },
            })
        };
        let lock = if address.port() == 0 {
            // The system picks a port that nobody has; what the others bind is then that port.
            let first = bound(address, true)?;
            address = getsockname(&first)
                .and_then(SocketAddr::try_from)
                .map_err(|error| ClaimError::Refused { address, source: error.into() })?;
            sockets.push(first);
            lock(address)?
        } else {
            let lock = lock(address)?;
            drop(bound(address, false)?);
            lock
        };
        while sockets.len() < shards {
            sockets.push(bound(address, true)?);
        }
        Ok(Claim { address, sockets, lock })
    }

    /// The address, with the port that the system picked if it was to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets clients connect: a listener for each shard, and the lock to hold.
    pub fn listen(self) -> Result<(Vec<TcpListener>, ClaimLock), ClaimError> {
        let mut listeners = Vec::with_capacity(self.sockets.len());
        for socket in self.sockets {
            listen(&socket, BACKLOG).map_err(|error| match error {
                rustix::io::Errno::ADDRINUSE => ClaimError::InUse { address: self.address },
                error => ClaimError::Refused { address: self.address, source: error.into() },
            })?;
            listeners.push(TcpListener::from(socket));
        }
        Ok((listeners, ClaimLock { _socket: self.lock }))
    }
}

/// A socket that is bound and does not listen.
fn bound(address: SocketAddr, reuse_port: bool) -> io::Result<OwnedFd> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, Some(ipproto::TCP))?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if reuse_port {
        sockopt::set_socket_reuseport(&socket, true)?;
    }
    if address.ip().is_loopback() {
        // Accepted sockets inherit it. Nothing is lost or queued on the way to this machine: where the system
        // prefers BBR, its pacing, a timer for each send of a history, would only cost. Reno is in every kernel;
        // a sandbox may not know the option, and loses nothing but that.
        let _ = sockopt::set_tcp_congestion(&socket, "reno");
    }
    bind(&socket, &address)?;
    Ok(socket)
}

fn lock(address: SocketAddr) -> Result<UnixListener, ClaimError> {
    let name = format!("strandline-listens-on-{address}");
    let name = UnixAddress::from_abstract_name(name);
    name.and_then(|name| UnixListener::bind_addr(&name)).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => ClaimError::Served { address },
        _ => ClaimError::Refused { address, source: error },
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use super::*;

    fn any_port() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    #[test]
    fn port_0_gives_all_shards_the_same_port() {
        let claim = Claim::new(any_port(), 3).unwrap();
        assert_ne!(claim.address().port(), 0);
        let address = claim.address();
        let (listeners, _lock) = claim.listen().unwrap();
        assert_eq!(listeners.len(), 3);
        assert!(listeners.iter().all(|listener| listener.local_addr().unwrap() == address));
    }

    #[test]
    fn connections_of_this_machine_are_not_paced() {
        let (listeners, _lock) = Claim::new(any_port(), 1).unwrap().listen().unwrap();
        let client = std::net::TcpStream::connect(listeners[0].local_addr().unwrap()).unwrap();
        let (accepted, _) = listeners[0].accept().unwrap();
        assert_eq!(sockopt::tcp_congestion(&accepted).unwrap(), "reno");
        drop(client);
    }

    #[test]
    fn a_second_server_is_refused_beside_ours_and_beside_a_stranger() {
        let claim = Claim::new(any_port(), 2).unwrap();
        let address = claim.address();
        let running = claim.listen().unwrap();
        assert!(matches!(Claim::new(address, 2), Err(ClaimError::Served { .. })));
        drop(running);
        let stranger = TcpListener::bind(address).unwrap();
        assert!(matches!(Claim::new(address, 2), Err(ClaimError::InUse { .. })));
        drop(stranger);
        Claim::new(address, 2).unwrap();
    }

    #[test]
    fn a_claim_waits_for_a_server_that_is_ending() {
        let claim = Claim::new(any_port(), 1).unwrap();
        let address = claim.address();
        let running = claim.listen().unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let ended = is_over.clone();
        let ending = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            drop(running);
            ended.store(true, Ordering::Release);
        });
        loop {
            let (was_over, began) = (is_over.load(Ordering::Acquire), Instant::now());
            let Err(error) = Claim::new(address, 1) else { break };
            // That thread has had to wait for its turn for longer.
            let has_waited = began.elapsed() >= Duration::from_millis(CLAIM_MS);
            assert!(has_waited && !was_over, "{error}");
        }
        ending.join().unwrap();
    }
}
