//! Connections for which there is no place: read, answered, and closed so that the answer can be read.
//!
//! ```text
//! accepted --> head: waits until its head lies whole in the kernel (peeked at in the one scratch buffer)
//!                |--late, or after too many looks: cut
//!                v
//!              rest: answered, and told that nothing follows; what is still to come of the request is
//!                |   thrown away, since a socket that is closed with unread bytes takes the answer with it
//!                v
//!              closed: all of it came, the client closed, or it is late
//! ```
//! Each is a file and a deadline: its bytes stay with the kernel, and one task looks after all of them. No
//! ring waits for them and none has a waker; while there are any, the task asks an epoll every few
//! milliseconds. Beyond `refusals_max` a shard accepts no more: the rest wait in the kernel's backlog.

use std::{
    cell::RefCell,
    convert::Infallible,
    io,
    os::fd::OwnedFd,
    rc::Rc,
    time::{Duration, Instant},
};

use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
    io::Errno,
    net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown},
};

use crate::{
    http::request::HEAD_BYTES_MAX,
    local::{Signal, SignalWait},
    refusal,
    runtime::end_slice,
    shard::Shard,
};

/// How often those that wait are looked after: a request comes a round trip after its connection.
const TICK_MS: u64 = 5;

/// Sockets that are looked after in a row: about 20 us each, and a slice is 1 ms.
const SOCKETS_PER_SLICE: usize = 32;

/// A head may come in so many parts. Each look copies and scans what has come so far: without this
/// bound, one that comes byte by byte would cost as much as its square.
const LOOKS_MAX: u8 = 32;

/// Reads of a rest in a row; more of it is for the next time.
const READS_MAX: usize = 4;

/// The connections of a shard that are being refused.
pub(super) struct Refusals {
    shard: Rc<Shard>,
    desk: RefCell<Desk>,
    /// Raised when there is one more, and when there are fewer.
    changed: Signal,
    max: usize,
    head: Duration,
    linger: Duration,
}

/// Who is being refused, and what that needs once.
struct Desk {
    epoll: OwnedFd,
    /// By the number under which `epoll` knows them.
    sockets: Vec<Option<Socket>>,
    free: Vec<usize>,
    ready: Vec<epoll::Event>,
    scratch: Box<[u8]>,
    out: Vec<u8>,
}

struct Socket {
    fd: OwnedFd,
    until: Instant,
    stage: Stage,
}

enum Stage {
    /// The head has not come whole; it was looked at so many times.
    Head { looks: u8 },
    /// It was answered. So much of the request is still to be thrown away, if that is known.
    Rest { bytes: Option<u64> },
}

/// What became of a socket that was looked after.
#[derive(PartialEq, Eq)]
enum Outcome {
    Waits,
    /// It can be closed.
    Done,
}

impl Refusals {
    pub(super) fn new(shard: Rc<Shard>) -> io::Result<Self> {
        let limits = &shard.config().limits;
        let [head, linger] = [limits.refused_head_ms, limits.linger_ms].map(Duration::from_millis);
        Ok(Refusals {
            desk: RefCell::new(Desk {
                epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
                sockets: Vec::new(),
                free: Vec::new(),
                ready: Vec::with_capacity(SOCKETS_PER_SLICE),
                scratch: vec![0; HEAD_BYTES_MAX].into_boxed_slice(),
                out: Vec::new(),
            }),
            changed: Signal::new(),
            max: shard.connections().limit().refusals_max(),
            head,
            linger,
            shard,
        })
    }

    /// Whether one more can be refused now.
    pub(super) fn has_room(&self) -> bool {
        self.desk.borrow().count() < self.max
    }

    /// Resolves once there are more or fewer, after this call.
    pub(super) fn changed(&self) -> SignalWait<'_> {
        self.changed.wait()
    }

    /// Refuses a connection that was just accepted: at once, if its request is there.
    pub(super) fn take(&self, fd: OwnedFd) {
        let now = Instant::now();
        let mut socket = Socket { fd, until: now + self.head, stage: Stage::Head { looks: 0 } };
        let mut desk = self.desk.borrow_mut();
        if self.look(&mut desk, &mut socket, now) == Outcome::Done {
            return;
        }
        match desk.keep(socket) {
            Ok(()) => self.changed.raise(),
            Err(error) => tracing::debug!(%error, "a connection was dropped unrefused"),
        }
    }

    /// Looks after them for as long as it is polled.
    pub(super) async fn run(&self) -> Infallible {
        loop {
            let changed = self.changed.wait();
            if self.desk.borrow().count() == 0 {
                changed.await;
                continue;
            }
            monoio::time::sleep(Duration::from_millis(TICK_MS)).await;
            loop {
                let may_be_more = self.look_after_some();
                self.end_late(Instant::now());
                if !may_be_more {
                    break;
                }
                end_slice().await;
            }
        }
    }

    /// Looks at those for which something came, up to a slice's share; returns whether it was that many.
    fn look_after_some(&self) -> bool {
        let now = Instant::now();
        let mut desk = self.desk.borrow_mut();
        let desk = &mut *desk;
        desk.ready.clear();
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        if let Err(error) =
            epoll::wait(&desk.epoll, spare_capacity(&mut desk.ready), Some(&at_once))
        {
            tracing::debug!(%error, "cannot ask which refused connections go on");
            return false;
        }
        for at in 0..desk.ready.len() {
            let number = desk.ready[at].data.u64();
            let number = usize::try_from(number).expect("the place of a socket");
            let Some(mut socket) = desk.sockets[number].take() else { continue };
            let was_answered = socket.is_answered();
            let mut outcome = self.look(desk, &mut socket, now);
            let goes_on = outcome == Outcome::Waits && socket.is_answered() && !was_answered;
            if goes_on && desk.watch_rest(number, &socket).is_err() {
                outcome = Outcome::Done;
            }
            match outcome {
                Outcome::Waits => desk.sockets[number] = Some(socket),
                Outcome::Done => self.end(desk, number),
            }
        }
        desk.ready.len() == SOCKETS_PER_SLICE
    }

    fn end_late(&self, now: Instant) {
        let mut desk = self.desk.borrow_mut();
        for number in 0..desk.sockets.len() {
            if desk.sockets[number].as_ref().is_some_and(|socket| socket.until <= now) {
                desk.sockets[number] = None;
                self.end(&mut desk, number);
            }
        }
    }

    /// The place `number` is empty now: its file is closed, and so the epoll has forgotten it.
    fn end(&self, desk: &mut Desk, number: usize) {
        desk.free.push(number);
        self.changed.raise();
    }

    /// Goes on with a socket as far as what has come allows.
    fn look(&self, desk: &mut Desk, socket: &mut Socket, now: Instant) -> Outcome {
        if let Stage::Head { looks } = &mut socket.stage {
            *looks += 1;
            let peek = RecvFlags::PEEK | RecvFlags::DONTWAIT;
            let came = match recv(&socket.fd, &mut *desk.scratch, peek) {
                Err(Errno::AGAIN | Errno::INTR) => return Outcome::Waits,
                Ok((0, _)) | Err(_) => return Outcome::Done,
                Ok((bytes, _)) => &desk.scratch[..bytes],
            };
            let Some(refused) = refusal::answer(&self.shard, came, &mut desk.out) else {
                return if *looks < LOOKS_MAX { Outcome::Waits } else { Outcome::Done };
            };
            // A new socket has room for an answer; one that has none is not worth a buffer.
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            let is_sent = send(&socket.fd, &desk.out, flags) == Ok(desk.out.len());
            if !is_sent || shutdown(&socket.fd, Shutdown::Write).is_err() {
                return Outcome::Done;
            }
            socket.stage = Stage::Rest { bytes: refused.request_bytes };
            socket.until = now + self.linger;
        }
        let Stage::Rest { bytes: left } = &mut socket.stage else {
            unreachable!("it was answered")
        };
        for _ in 0..READS_MAX {
            let bytes = match recv(&socket.fd, &mut *desk.scratch, RecvFlags::DONTWAIT) {
                Err(Errno::AGAIN | Errno::INTR) => return Outcome::Waits,
                Ok((0, _)) | Err(_) => return Outcome::Done,
                Ok((bytes, _)) => u64::try_from(bytes).expect("a buffer's size"),
            };
            *left = left.map(|left| left.saturating_sub(bytes));
            if *left == Some(0) {
                return Outcome::Done;
            }
        }
        Outcome::Waits
    }
}

impl Socket {
    fn is_answered(&self) -> bool {
        matches!(self.stage, Stage::Rest { .. })
    }
}

impl Desk {
    fn count(&self) -> usize {
        self.sockets.len() - self.free.len()
    }

    /// Keeps a socket for which something has to come.
    fn keep(&mut self, socket: Socket) -> io::Result<()> {
        let number = self.free.pop().unwrap_or_else(|| {
            self.sockets.push(None);
            self.sockets.len() - 1
        });
        let events = match socket.stage {
            // A part of a head stays where it is, and is no news.
            Stage::Head { .. } => epoll::EventFlags::IN | epoll::EventFlags::ET,
            Stage::Rest { .. } => epoll::EventFlags::IN,
        };
        if let Err(error) = epoll::add(&self.epoll, &socket.fd, data(number), events) {
            self.free.push(number);
            return Err(error.into());
        }
        self.sockets[number] = Some(socket);
        Ok(())
    }

    /// From now on what is there is to be read, until nothing is.
    fn watch_rest(&self, number: usize, socket: &Socket) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, &socket.fd, data(number), epoll::EventFlags::IN)?)
    }
}

fn data(number: usize) -> epoll::EventData {
    epoll::EventData::new_u64(u64::try_from(number).expect("a small number"))
}
