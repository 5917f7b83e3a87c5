//! The sockets of a shard's HTTP connections, waited for in bulk.
//!
//! ```text
//! recv, send --EAGAIN--> asleep --[epoll, itself watched by the ring]--> woken, with all others of the turn
//! ```
//! A socket is registered once, for everything, edge-triggered: the kernel tells of what *comes to be*.
//! So a request costs one `recv` and its answer one `send`, neither of which is in flight when the future
//! that asked for it is dropped. An operation of the ring for each wait costs more (an attempt that
//! fails, a poll to arm, a completion, a timer) and a buffer lent to the kernel while nothing comes.
//! And as sockets are woken together, their requests are parsed in one turn of the loop and share a
//! commit.
//!
//! Invariants:
//! 1. `is_readable` and `is_writable` are false only if the kernel has said so since it last told of a
//!    change: a wait cannot miss what it waits for.
//! 2. A socket belongs to one task, whose waker is kept.

use std::{
    cell::{Cell, RefCell},
    io,
    os::fd::OwnedFd,
    pin::pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags, Shutdown, sockopt},
};

use crate::{
    epoll::{Change, Epoll},
    local::{Either, either},
    shutdown::Drain,
};

/// How many changes are taken at once; then everything else of the shard has its turn.
const CHANGES_MAX: usize = 64;

/// A peer that is asked whether it is still there is asked after so long a silence,
const PROBE_IDLE_S: u64 = 30;

/// again and again after so long,
const PROBE_INTERVAL_S: u64 = 15;

/// and is gone when it has not answered so many times: after two minutes, in which a link may be down and
/// come back.
const PROBES_MAX: u32 = 6;

/// After an error of the kernel's that nobody expects, the next attempt waits so long.
const RETRY_MS: u64 = 10;

/// The watched sockets of one shard.
pub struct Sockets {
    epoll: Epoll,
    places: RefCell<Places>,
}

#[derive(Default)]
struct Places {
    states: Vec<Option<Rc<State>>>,
    free: Vec<usize>,
}

/// What is known of one socket.
struct State {
    /// There may be something to read.
    is_readable: Cell<bool>,
    /// There may be space to send into.
    is_writable: Cell<bool>,
    /// Nothing comes behind what there is to read.
    has_ended: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// A watched socket. It belongs to one task.
pub struct Socket {
    /// Closed before its place is given back.
    socket: OwnedFd,
    place: Place,
}

/// A socket's place among those that are watched.
struct Place {
    state: Rc<State>,
    index: usize,
    sockets: Rc<Sockets>,
}

impl Sockets {
    /// None yet; a task of this shard will watch those that come. To be made on the shard's thread.
    pub fn start(drain: Drain) -> io::Result<Rc<Self>> {
        let epoll = Epoll::new(CHANGES_MAX)?;
        let sockets = Rc::new(Sockets { epoll, places: RefCell::default() });
        monoio::spawn(watch(sockets.clone(), drain));
        Ok(sockets)
    }

    /// Watches a connected socket.
    pub fn add(self: &Rc<Self>, socket: OwnedFd) -> io::Result<Socket> {
        let state = Rc::new(State {
            // Often a request comes with the connection.
            is_readable: Cell::new(true),
            is_writable: Cell::new(true),
            has_ended: Cell::new(false),
            waker: RefCell::new(None),
        });
        let index = self.places.borrow_mut().add(state.clone());
        let place = Place { state, index, sockets: self.clone() };
        self.epoll.add(&socket, index as u64)?;
        Ok(Socket { socket, place })
    }

    /// Wakes those to whom something has happened, up to [`CHANGES_MAX`].
    fn wake_changed(&self) -> io::Result<()> {
        let taken = self.epoll.take(|change| {
            let index = usize::try_from(change.token).expect("it was a usize");
            if let Some(state) = self.places.borrow().get(index) {
                state.change(change);
            }
        });
        // What is more is told of at once.
        taken.map(|_has_more| ())
    }
}

/// Watches until the server has ended.
async fn watch(sockets: Rc<Sockets>, drain: Drain) {
    let mut ended = pin!(drain.ended());
    loop {
        let outcome = match either(ended.as_mut(), sockets.epoll.changed()).await {
            Either::Left(()) => return,
            Either::Right(Ok(())) => sockets.wake_changed(),
            Either::Right(Err(error)) => Err(error),
        };
        if let Err(error) = outcome {
            tracing::error!(%error, "cannot watch sockets for now");
            monoio::time::sleep(Duration::from_millis(RETRY_MS)).await;
        }
    }
}

impl Places {
    fn add(&mut self, state: Rc<State>) -> usize {
        match self.free.pop() {
            Some(index) => {
                self.states[index] = Some(state);
                index
            }
            None => {
                self.states.push(Some(state));
                self.states.len() - 1
            }
        }
    }

    /// The one at `index`. An event that was on its way when a socket left may meet its successor,
    /// whom it does not harm: all that it says is "look again".
    fn get(&self, index: usize) -> Option<&State> {
        self.states.get(index)?.as_deref()
    }
}

impl State {
    fn change(&self, change: Change) {
        if change.is_end {
            self.has_ended.set(true);
        }
        if change.is_readable {
            self.is_readable.set(true);
        }
        if change.is_writable {
            self.is_writable.set(true);
        }
        // The waker stays: its task will wait again.
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    fn wait<T>(&self, context: &Context<'_>) -> Poll<T> {
        let mut known = self.waker.borrow_mut();
        if !known.as_ref().is_some_and(|known| known.will_wake(context.waker())) {
            *known = Some(context.waker().clone());
        }
        Poll::Pending
    }
}

impl Socket {
    /// Whether there may be something to read: [`Socket::poll_recv`] would look.
    pub fn may_read(&self) -> bool {
        self.place.state.is_readable.get()
    }

    /// Reads into the space that `buffer` has, which must have some, and returns how many bytes came; 0
    /// when nothing more will come.
    pub fn poll_recv(
        &self,
        buffer: &mut Vec<u8>,
        context: &Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let space = buffer.capacity() - buffer.len();
        assert!(space > 0, "a read needs space");
        loop {
            if !self.place.state.is_readable.get() {
                return self.place.state.wait(context);
            }
            let spare = rustix::buffer::spare_capacity(buffer);
            match rustix::net::recv(&self.socket, spare, RecvFlags::DONTWAIT) {
                Ok((count, _)) => {
                    // A read that did not fill its space has taken all that there was (epoll(7)).
                    if count < space && !self.place.state.has_ended.get() {
                        self.place.state.is_readable.set(false);
                    }
                    return Poll::Ready(Ok(count));
                }
                Err(Errno::AGAIN) => self.place.state.is_readable.set(false),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Sends as much of `bytes` as there is space for now; returns how many.
    pub fn send_now(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::net::send(&self.socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
            {
                Ok(count) => return Ok(count),
                Err(Errno::AGAIN) => {
                    self.place.state.is_writable.set(false);
                    return Ok(0);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Ready when there may be space to send into.
    pub fn poll_writable(&self, context: &Context<'_>) -> Poll<()> {
        if self.place.state.is_writable.get() {
            Poll::Ready(())
        } else {
            self.place.state.wait(context)
        }
    }

    /// From now on the kernel asks while nothing comes whether the peer is still there. A read fails once it
    /// is not.
    pub fn probe_peer(&self) -> io::Result<()> {
        sockopt::set_tcp_keepidle(&self.socket, Duration::from_secs(PROBE_IDLE_S))?;
        sockopt::set_tcp_keepintvl(&self.socket, Duration::from_secs(PROBE_INTERVAL_S))?;
        sockopt::set_tcp_keepcnt(&self.socket, PROBES_MAX)?;
        Ok(sockopt::set_socket_keepalive(&self.socket, true)?)
    }

    /// Tells the client that nothing more comes.
    pub fn shut_down_writing(&self) -> io::Result<()> {
        Ok(rustix::net::shutdown(&self.socket, Shutdown::Write)?)
    }

    /// The socket itself, not watched any more.
    pub fn into_fd(self) -> io::Result<OwnedFd> {
        self.place.sockets.epoll.remove(&self.socket)?;
        Ok(self.socket)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.sockets.places.borrow_mut();
        places.states[self.index] = None;
        places.free.push(self.index);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        io::{Read, Write},
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use std::sync::Arc;

    use crate::{
        runtime::{Driver, block_on},
        shutdown::Control,
    };

    /// Both ends of a connection; ours is watched.
    fn connected(sockets: &Rc<Sockets>) -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        (sockets.add(server.into()).unwrap(), client)
    }

    async fn recv(socket: &Socket, space: usize) -> io::Result<Vec<u8>> {
        let mut buffer = Vec::with_capacity(space);
        poll_fn(|context| socket.poll_recv(&mut buffer, context)).await?;
        Ok(buffer)
    }

    fn on_both_drivers(test: impl AsyncFn(Rc<Sockets>) + Copy + Send + 'static) {
        for driver in [Driver::detect().0, Driver::Epoll] {
            let thread = std::thread::spawn(move || {
                block_on(driver, true, async move {
                    let drain = Drain::new(Arc::new(Control::new(Vec::new())));
                    test(Sockets::start(drain).unwrap()).await;
                })
                .unwrap();
            });
            thread.join().unwrap();
        }
    }

    #[test]
    fn what_comes_wakes_its_reader_and_an_end_follows_the_data_before_it() {
        on_both_drivers(async |sockets| {
            let (socket, mut client) = connected(&sockets);
            let later = std::thread::spawn(move || {
                for _ in 0..50 {
                    std::thread::sleep(Duration::from_millis(1));
                    client.write_all(b"abcd").unwrap();
                }
                client.write_all(b"!").unwrap();
            });
            let mut came = Vec::new();
            loop {
                let part = recv(&socket, 3).await.unwrap();
                if part.is_empty() {
                    break;
                }
                came.extend_from_slice(&part);
            }
            assert_eq!(came, [b"abcd".repeat(50).as_slice(), b"!"].concat());
            later.join().unwrap();
        });
    }

    #[test]
    fn a_full_socket_says_when_it_has_space_again() {
        on_both_drivers(async |sockets| {
            let (socket, mut client) = connected(&sockets);
            let bytes = vec![7; 1 << 20];
            let mut sent = 0;
            loop {
                match socket.send_now(&bytes).unwrap() {
                    0 => break,
                    count => sent += count,
                }
            }
            let reader = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(20));
                let mut all = Vec::new();
                client.read_to_end(&mut all).unwrap();
                all.len()
            });
            poll_fn(|context| socket.poll_writable(context)).await;
            sent += socket.send_now(&bytes).unwrap();
            socket.shut_down_writing().unwrap();
            assert_eq!(reader.join().unwrap(), sent);
        });
    }

    #[test]
    fn places_are_given_back_and_a_socket_can_be_taken_out() {
        on_both_drivers(async |sockets| {
            for _ in 0..10 {
                let (socket, mut client) = connected(&sockets);
                client.write_all(b"x").unwrap();
                assert_eq!(recv(&socket, 8).await.unwrap(), b"x");
                let mut taken_out = TcpStream::from(socket.into_fd().unwrap());
                taken_out.write_all(b"y").unwrap();
                let mut byte = [0];
                client.read_exact(&mut byte).unwrap();
                assert_eq!(&byte, b"y");
            }
            assert_eq!(sockets.places.borrow().states.len(), 1);
        });
    }
}
