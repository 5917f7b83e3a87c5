//! No server: whatever comes on a connection is answered at once as an append that was acknowledged. Nothing of it is
//! looked at and nothing is kept, so this is what sockets alone cost, and the most that any server can do here.

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
};

use strandline::bench::net::{Interest, Poll, receive_some, send_some};

/// As long as an answer of ours.
const ANSWER: &[u8] =
    b"HTTP/1.1 201 Created\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nEvent-Offset: 1000000\r\n\
    Content-Type: application/json\r\nContent-Length: 65\r\n\r\n\
    {\"offset\":1000000,\"cursor\":\"1000000.bare\",\"count\":1,\"sync\":\"no\"}\n";
const LISTENER: u64 = u64::MAX;
/// A request of the load is smaller, and comes whole: it is sent in one piece.
const REQUEST_BYTES_MAX: usize = 64 << 10;

/// Answers until the process is stopped. Clients have one request in flight each.
pub fn serve(address: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let mut poll = Poll::new()?;
    poll.add(&listener, LISTENER, Interest::Read)?;
    let mut connections: HashMap<u64, OwnedFd> = HashMap::new();
    let (mut ready, mut asked, mut next) = (Vec::new(), Vec::new(), 0);
    let mut buffer = vec![0; REQUEST_BYTES_MAX];
    loop {
        poll.wait(&mut ready, true)?;
        for socket in &ready {
            if socket.token == LISTENER {
                let (connection, _) = listener.accept()?;
                connection.set_nonblocking(true)?;
                connection.set_nodelay(true)?;
                poll.add(&connection, next, Interest::Read)?;
                connections.insert(next, connection.into());
                next += 1;
                continue;
            }
            match receive_some(&connections[&socket.token], &mut buffer) {
                Ok(Some(1..)) => asked.push(socket.token),
                Ok(None) => {}
                Ok(Some(0)) | Err(_) => drop(connections.remove(&socket.token)),
            }
        }
        // As whoever commits many together: first all are read, then all are answered.
        for token in asked.drain(..) {
            if send_some(&connections[&token], ANSWER).is_err() {
                connections.remove(&token);
            }
        }
    }
}
