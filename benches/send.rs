//! Plain sends, as pushes use them, beside `MSG_ZEROCOPY` and beside what a ring has: its own sends, zero-copy or
//! not, from memory that the kernel looks up each time or that is registered with it (a fixed buffer). One thread
//! sends to many loopback sockets in turn, another on the next core reads them.
//!
//! ```text
//! cargo bench --bench send
//! ```
//! What a send costs is the processor time of the sending thread. With zero-copy it includes reading the
//! kernel's word that it is done with the memory, once a round over the sockets: until then the memory may not be
//! given back. Over loopback the kernel copies such data after all; over a network card it does not. A ring gets a
//! round in one system call.

use std::{
    io,
    net::{TcpListener, TcpStream},
    os::fd::{AsFd, AsRawFd},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use io_uring::{IoUring, cqueue, opcode, squeue, types::Fd};
use rustix::{
    event::epoll::{self, CreateFlags, EventData, EventFlags},
    io::{Errno, IoSliceMut},
    net::{RecvAncillaryBuffer, RecvFlags, SendFlags, recv, recvmsg, send},
    time::{ClockId, clock_gettime},
};
use strandline::runtime::{allowed_cores, pin_to};

const SOCKETS: usize = 500;
const MEASURE: Duration = Duration::from_millis(400);
const SIZES: [usize; 5] = [300, 4 << 10, 16 << 10, 64 << 10, 256 << 10];
/// Of `linux/socket.h`: rustix has no name for it.
const MSG_ZEROCOPY: SendFlags = SendFlags::from_bits_retain(0x400_0000);

/// How a round of sends is done.
#[derive(Clone, Copy)]
enum Way {
    Call { zero_copy: bool },
    Ring { zero_copy: bool, fixed: bool },
}

const WAYS: [(&str, Way); 6] = [
    ("send", Way::Call { zero_copy: false }),
    ("MSG_ZEROCOPY", Way::Call { zero_copy: true }),
    ("ring", Way::Ring { zero_copy: false, fixed: false }),
    ("ring, fixed", Way::Ring { zero_copy: false, fixed: true }),
    ("ring, SEND_ZC", Way::Ring { zero_copy: true, fixed: false }),
    ("SEND_ZC, fixed", Way::Ring { zero_copy: true, fixed: true }),
];

fn main() -> io::Result<()> {
    let cores = allowed_cores();
    if let Some(first) = cores.first() {
        pin_to(*first)?;
    }
    print!("µs of CPU a send\n{:>10}", "bytes");
    WAYS.iter().for_each(|(name, _)| print!(" {name:>15}"));
    for bytes in SIZES {
        print!("\n{bytes:>10}");
        for (_, way) in WAYS {
            print!(" {:>15.2}", measure(bytes, way, cores.last().copied())?);
        }
    }
    println!();
    Ok(())
}

/// Processor time of a send of `bytes`, in µs.
fn measure(bytes: usize, way: Way, reader_core: Option<usize>) -> io::Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..SOCKETS {
        theirs.push(TcpStream::connect(listener.local_addr()?)?);
        let socket = listener.accept()?.0;
        if matches!(way, Way::Call { zero_copy: true }) {
            ask_for_zero_copy(&socket)?;
        }
        ours.push(socket);
    }
    let (is_over, read_bytes) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let reader = scope.spawn(|| read_all(&theirs, reader_core, &is_over, &read_bytes));
        let data = vec![b'x'; bytes];
        let sent = match way {
            Way::Call { zero_copy } => {
                send_on(&read_bytes, || send_by_calls(&ours, &data, zero_copy))
            }
            Way::Ring { zero_copy, fixed } => RingSends::new(&data, zero_copy, fixed)
                .and_then(|mut ring| send_on(&read_bytes, || ring.send(&ours))),
        };
        is_over.store(true, Ordering::Relaxed);
        reader.join().expect("the reader does not panic")?;
        sent
    })
}

/// Sends in rounds; each begins when the last has been read, so that no socket is full at its beginning.
fn send_on(
    read_bytes: &AtomicUsize,
    mut round: impl FnMut() -> io::Result<usize>,
) -> io::Result<f64> {
    let (begin, mut cpu_us, mut rounds) = (Instant::now(), 0.0, 0_u32);
    let mut sent_bytes = 0;
    while begin.elapsed() < MEASURE {
        let cpu_begin_us = thread_cpu_us();
        sent_bytes += round()?;
        cpu_us += thread_cpu_us() - cpu_begin_us;
        rounds += 1;
        while read_bytes.load(Ordering::Relaxed) < sent_bytes {
            thread::sleep(Duration::from_micros(50));
        }
    }
    let sockets = u32::try_from(SOCKETS).expect("few");
    Ok(cpu_us / f64::from(rounds * sockets))
}

/// A call for each socket; returns how many bytes have left. It blocks while a socket is full: asleep it costs
/// nothing.
fn send_by_calls(sockets: &[TcpStream], data: &[u8], zero_copy: bool) -> io::Result<usize> {
    let flags = SendFlags::NOSIGNAL | if zero_copy { MSG_ZEROCOPY } else { SendFlags::empty() };
    let mut sent_bytes = 0;
    for socket in sockets {
        sent_bytes += send(socket, data, flags)?;
    }
    if zero_copy {
        sockets.iter().try_for_each(take_completions)?;
    }
    Ok(sent_bytes)
}

/// Sends by a ring that is set up as a shard's is.
struct RingSends<'d> {
    ring: IoUring,
    data: &'d [u8],
    zero_copy: bool,
    fixed: bool,
}

impl<'d> RingSends<'d> {
    fn new(data: &'d [u8], zero_copy: bool, fixed: bool) -> io::Result<Self> {
        let entries = u32::try_from(SOCKETS.next_power_of_two()).expect("few");
        let ring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(entries)?;
        if fixed {
            let memory =
                libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
            // SAFETY: the memory outlives the ring, which borrows it, and is only read.
            unsafe { ring.submitter().register_buffers(&[memory])? };
        }
        Ok(RingSends { ring, data, zero_copy, fixed })
    }

    /// A round in one call; returns how many bytes have left once the kernel is done with the memory.
    fn send(&mut self, sockets: &[TcpStream]) -> io::Result<usize> {
        let mut to_come = 0_usize;
        for socket in sockets {
            let entry = self.entry(socket);
            // SAFETY: socket and memory are borrowed until all that was begun has come back, below.
            unsafe { self.ring.submission().push(&entry).expect("a place for each socket") };
            to_come += 1;
        }
        let mut sent_bytes = 0;
        while to_come > 0 {
            self.ring.submit_and_wait(1)?;
            for completion in self.ring.completion() {
                let result = completion.result();
                sent_bytes +=
                    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))?;
                // Of zero-copy a second word follows, that the memory is no longer used.
                to_come -= usize::from(!cqueue::more(completion.flags()));
            }
        }
        Ok(sent_bytes)
    }

    fn entry(&self, socket: &TcpStream) -> squeue::Entry {
        let descriptor = Fd(socket.as_raw_fd());
        let (start, count) = (self.data.as_ptr(), u32::try_from(self.data.len()).expect("small"));
        match (self.zero_copy, self.fixed) {
            (false, false) => opcode::Send::new(descriptor, start, count).build(),
            (false, true) => opcode::WriteFixed::new(descriptor, start, count, 0).build(),
            (true, false) => opcode::SendZc::new(descriptor, start, count).build(),
            (true, true) => {
                opcode::SendZc::new(descriptor, start, count).buf_index(Some(0)).build()
            }
        }
    }
}

/// Reads what the kernel says of memory that it is done with.
fn take_completions(socket: &TcpStream) -> io::Result<()> {
    let mut space = [std::mem::MaybeUninit::uninit(); 128];
    loop {
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let none: &mut [IoSliceMut<'_>] = &mut [];
        match recvmsg(socket, none, &mut control, RecvFlags::ERRQUEUE | RecvFlags::DONTWAIT) {
            Ok(_) => {}
            Err(Errno::AGAIN) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn read_all(
    sockets: &[TcpStream],
    core: Option<usize>,
    is_over: &AtomicBool,
    read_bytes: &AtomicUsize,
) -> io::Result<()> {
    if let Some(core) = core {
        pin_to(core)?;
    }
    let poll = epoll::create(CreateFlags::CLOEXEC)?;
    for (index, socket) in sockets.iter().enumerate() {
        let data = EventData::new_u64(u64::try_from(index).expect("few"));
        epoll::add(&poll, socket, data, EventFlags::IN)?;
    }
    let (mut events, mut buffer) = (Vec::with_capacity(SOCKETS), vec![0_u8; 256 << 10]);
    let timeout = Duration::from_millis(10).try_into().expect("10 ms");
    while !is_over.load(Ordering::Relaxed) {
        events.clear();
        epoll::wait(poll.as_fd(), rustix::buffer::spare_capacity(&mut events), Some(&timeout))?;
        for event in &events {
            let index = usize::try_from(event.data.u64()).expect("few");
            let (_, count) = recv(&sockets[index], &mut buffer[..], RecvFlags::DONTWAIT)?;
            read_bytes.fetch_add(count, Ordering::Relaxed);
        }
    }
    Ok(())
}

fn ask_for_zero_copy(socket: &TcpStream) -> io::Result<()> {
    let on: std::ffi::c_int = 1;
    let size = libc::socklen_t::try_from(size_of_val(&on)).expect("a few bytes");
    // SAFETY: the descriptor is open while it is borrowed, and the option is one C `int`, which the
    // kernel only reads, in the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ZEROCOPY,
            std::ptr::from_ref(&on).cast(),
            size,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What this thread has used of its processor, in µs.
fn thread_cpu_us() -> f64 {
    let used = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(used).expect("it is not negative").as_secs_f64() * 1e6
}
