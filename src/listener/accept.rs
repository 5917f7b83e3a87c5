//! The accept loop of a shard.

use std::{io, net::TcpListener, pin::pin, rc::Rc, time::Duration};

use crate::{
    connection,
    local::{Either, either},
    runtime::Driver,
    shard::Shard,
};

/// How long a shard waits when it cannot accept for want of files or memory: others must end first.
const ACCEPT_PAUSE_MS: u64 = 100;

/// Accepts connections on this shard until the server drains.
pub(crate) async fn accept(shard: Rc<Shard>, listener: TcpListener) -> io::Result<()> {
    // A ring waits by itself, and would not on a socket that says not to; epoll needs it.
    listener.set_nonblocking(shard.driver() == Driver::Epoll)?;
    let listener = monoio::net::TcpListener::from_std(listener)?;
    let mut draining = pin!(shard.drain().begun());
    loop {
        let mut admitted = pin!(shard.connections().admit());
        let place = match either(draining.as_mut(), admitted.as_mut()).await {
            Either::Left(()) => return Ok(()),
            Either::Right(place) => place,
        };
        // Dropped only when the server drains: then what it might accept has no use.
        let mut accepted = pin!(listener.accept());
        match either(draining.as_mut(), accepted.as_mut()).await {
            Either::Left(()) => return Ok(()),
            Either::Right(Ok((stream, _))) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "a connection ended before it was served");
                    continue;
                }
                monoio::spawn(connection::serve(shard.clone(), stream, place));
            }
            Either::Right(Err(error)) => {
                drop(place);
                if is_of_one_connection(&error) {
                    continue;
                }
                tracing::warn!(%error, "cannot accept connections for now");
                let pause = monoio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS));
                if let Either::Left(()) = either(draining.as_mut(), pause).await {
                    return Ok(());
                }
            }
        }
    }
}

/// Whether an error of `accept` says something of the connection alone (see accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let error = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(
        error,
        Some(
            Errno::CONNABORTED
                | Errno::INTR
                | Errno::AGAIN
                | Errno::NETDOWN
                | Errno::PROTO
                | Errno::NOPROTOOPT
                | Errno::HOSTDOWN
                | Errno::NONET
                | Errno::HOSTUNREACH
                | Errno::OPNOTSUPP
                | Errno::NETUNREACH
        )
    )
}
