//! Sockets that never block, and one place to sleep.

use std::{
    io,
    mem::MaybeUninit,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use rustix::{
    event::epoll::{self, EventData, EventFlags},
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto::TCP, recv, send,
        socket_with, sockopt,
    },
    time::{
        ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec,
        clock_gettime, timerfd_create, timerfd_settime,
    },
};

/// Events taken from epoll at once.
const EVENTS_MAX: usize = 1024;
/// Connections from one address: well below the 28,232 ports that the kernel gives out by default.
const CONNECTIONS_PER_SOURCE: u64 = 15_000;

/// A clock that only goes forward, in ns; all times of a run are its.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).expect("a monotonic clock is not negative");
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).expect("less than a second")
}

/// A duration in ns.
pub fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).expect("less than 584 years")
}

/// Begins a connection; it is made once the socket can be written to. `number` counts a run's
/// connections: on loopback many addresses are used in turn, since one has too few ports.
/// `receive_buffer_bytes` bounds what the kernel receives for us.
pub fn connect(
    address: SocketAddr,
    number: u64,
    receive_buffer_bytes: Option<usize>,
) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, Some(TCP))?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    if let Some(bytes) = receive_buffer_bytes {
        sockopt::set_socket_recv_buffer_size(&socket, bytes)?;
    }
    if let Some(source) = source(address.ip(), number) {
        rustix::net::bind(&socket, &SocketAddr::new(source.into(), 0))?;
    }
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

/// The address to connect from, where there is a choice: any of 127.0.0.0/8.
fn source(server: IpAddr, number: u64) -> Option<Ipv4Addr> {
    let IpAddr::V4(server) = server else { return None };
    let block = number / CONNECTIONS_PER_SOURCE;
    if !server.is_loopback() || block == 0 {
        return None;
    }
    let [low, high] =
        [block % 250, block / 250 % 250].map(|part| u8::try_from(part).expect("< 250"));
    Some(Ipv4Addr::new(127, 1, high, low + 1))
}

/// What came of a connection that was begun.
pub fn connect_result(socket: &OwnedFd) -> io::Result<()> {
    sockopt::socket_error(socket)?.map_err(io::Error::from)
}

/// Sends what the socket takes at once; returns how many bytes.
pub fn send_some(socket: &OwnedFd, bytes: &[u8]) -> io::Result<usize> {
    match send(socket, bytes, SendFlags::NOSIGNAL) {
        Ok(sent) => Ok(sent),
        Err(Errno::AGAIN | Errno::INTR) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// Receives what has come; `None` if nothing has, 0 at the end of the connection.
pub fn receive_some(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    match recv(socket, buffer, RecvFlags::empty()) {
        Ok((_, received)) => Ok(Some(received)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What a socket is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Something to receive, for as long as there is.
    Read,
    /// Something to receive or room to send *comes to be*: it is told once, and whoever is told does all
    /// that can be done. The kernel looks at a socket half as often.
    Edge,
}

impl Interest {
    fn flags(self) -> EventFlags {
        match self {
            Interest::Read => EventFlags::IN,
            Interest::Edge => EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET,
        }
    }
}

/// One socket that is ready.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    /// What it was added with.
    pub token: u64,
    /// There is something to receive, an end, or an error.
    pub readable: bool,
    /// There is room to send.
    pub writable: bool,
    /// The end of the connection stands behind what there is to receive.
    pub ended: bool,
}

/// Where the thread sleeps until a socket is ready. An epoll can itself be waited for in another.
#[derive(Debug)]
pub struct Poll {
    epoll: OwnedFd,
    events: Vec<MaybeUninit<epoll::Event>>,
}

impl Poll {
    /// One that waits for nothing yet.
    pub fn new() -> io::Result<Poll> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Poll { epoll, events: vec![MaybeUninit::uninit(); EVENTS_MAX] })
    }

    /// Waits for a socket from now on.
    pub fn add(&self, socket: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, socket, EventData::new_u64(token), interest.flags())?)
    }

    /// Waits for it no longer.
    pub fn remove(&self, socket: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, socket)?)
    }

    /// Replaces `ready` by the sockets that are ready; sleeps until one is, or looks only.
    pub fn wait(&mut self, ready: &mut Vec<Ready>, sleep: bool) -> io::Result<()> {
        ready.clear();
        let timeout = (!sleep).then_some(Timespec { tv_sec: 0, tv_nsec: 0 });
        let (events, _) = match epoll::wait(&self.epoll, &mut self.events[..], timeout.as_ref()) {
            Ok(events) => events,
            Err(Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        ready.extend(events.iter().map(|event| {
            let flags = event.flags;
            let ends = EventFlags::HUP | EventFlags::RDHUP | EventFlags::ERR;
            Ready {
                token: event.data.u64(),
                readable: flags.intersects(EventFlags::IN | ends),
                writable: flags.intersects(EventFlags::OUT | EventFlags::ERR),
                ended: flags.intersects(ends),
            }
        }));
        Ok(())
    }
}

impl AsFd for Poll {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

/// A timer that makes an epoll return at a time of [`now_ns`], exact where a timeout is not.
#[derive(Debug)]
pub struct Timer {
    timer: OwnedFd,
    armed_ns: u64,
}

impl Timer {
    /// One that is not set.
    pub fn new() -> io::Result<Timer> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Timer { timer: timerfd_create(TimerfdClockId::Monotonic, flags)?, armed_ns: u64::MAX })
    }

    /// Sets it to a time, which may be past.
    pub fn arm(&mut self, at_ns: u64) -> io::Result<()> {
        if self.armed_ns == at_ns {
            return Ok(());
        }
        // A time of zero would mean never.
        let (seconds, rest) = (at_ns.max(1) / 1_000_000_000, at_ns.max(1) % 1_000_000_000);
        let value = Timespec {
            tv_sec: i64::try_from(seconds).expect("a u64 of ns has 2^34 seconds"),
            tv_nsec: i64::try_from(rest).expect("less than a second"),
        };
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let times = Itimerspec { it_interval: never, it_value: value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &times)?;
        self.armed_ns = at_ns;
        Ok(())
    }

    /// Takes note that it rang: until it is set again it is silent.
    pub fn take(&mut self) -> io::Result<()> {
        match rustix::io::read(&self.timer, &mut [0; 8]) {
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        self.armed_ns = u64::MAX;
        Ok(())
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_wakes_the_poll_at_its_time() {
        let (mut poll, mut timer) = (Poll::new().unwrap(), Timer::new().unwrap());
        poll.add(&timer, 7, Interest::Read).unwrap();
        let mut ready = Vec::new();
        poll.wait(&mut ready, false).unwrap();
        assert!(ready.is_empty());
        let at_ns = now_ns() + 3_000_000;
        timer.arm(at_ns).unwrap();
        poll.wait(&mut ready, true).unwrap();
        assert!(now_ns() >= at_ns);
        assert_eq!(ready[0].token, 7);
        timer.take().unwrap();
        poll.wait(&mut ready, false).unwrap();
        assert!(ready.is_empty());
    }

    #[test]
    fn sources_change_before_ports_run_out() {
        let loopback = Ipv4Addr::LOCALHOST.into();
        assert_eq!(source(loopback, CONNECTIONS_PER_SOURCE - 1), None);
        assert_eq!(source(loopback, CONNECTIONS_PER_SOURCE), Some(Ipv4Addr::new(127, 1, 0, 2)));
        assert_eq!(source(loopback, u64::MAX).map(|ip| ip.is_loopback()), Some(true));
        assert_eq!(source(Ipv4Addr::new(10, 0, 0, 1).into(), u64::MAX), None);
    }
}
