//! `MSG_ZEROCOPY` beside plain sends, as pushes use them: one thread sends to many loopback sockets in
//! turn, another on the next core reads them.
//!
//! ```text
//! cargo bench --bench send
//! ```
//! What a send costs is the processor time of the sending thread. With zero-copy it includes reading the
//! kernel's word that it is done with the memory, once a round over the sockets: until then the memory may not be
//! given back. Over loopback the kernel copies such data after all; over a network card it does not.

use std::{
    io,
    net::{TcpListener, TcpStream},
    os::fd::{AsFd, AsRawFd},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

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

fn main() -> io::Result<()> {
    let cores = allowed_cores();
    if let Some(first) = cores.first() {
        pin_to(*first)?;
    }
    println!("{:>10} {:>22} {:>22}", "bytes", "send, µs of CPU", "zero-copy, µs of CPU");
    for bytes in SIZES {
        let [plain, zero_copy] = [false, true].map(|is| measure(bytes, is, cores.last().copied()));
        println!("{bytes:>10} {:>22.2} {:>22.2}", plain?, zero_copy?);
    }
    Ok(())
}

/// Processor time of a send of `bytes`, in µs.
fn measure(bytes: usize, zero_copy: bool, reader_core: Option<usize>) -> io::Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..SOCKETS {
        theirs.push(TcpStream::connect(listener.local_addr()?)?);
        let socket = listener.accept()?.0;
        if zero_copy {
            ask_for_zero_copy(&socket)?;
        }
        ours.push(socket);
    }
    let (is_over, read_bytes) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let reader = scope.spawn(|| read_all(&theirs, reader_core, &is_over, &read_bytes));
        let sent = send_on(&ours, bytes, zero_copy, &read_bytes);
        is_over.store(true, Ordering::Relaxed);
        reader.join().expect("the reader does not panic")?;
        sent
    })
}

/// Sends in rounds; each begins when the last has been read, so that no socket is full at its beginning.
fn send_on(
    sockets: &[TcpStream],
    bytes: usize,
    zero_copy: bool,
    read_bytes: &AtomicUsize,
) -> io::Result<f64> {
    let data = vec![b'x'; bytes];
    let flags = SendFlags::NOSIGNAL | if zero_copy { MSG_ZEROCOPY } else { SendFlags::empty() };
    let (begin, mut cpu_us, mut sends) = (Instant::now(), 0.0, 0_u32);
    let mut sent_bytes = 0;
    while begin.elapsed() < MEASURE {
        let cpu_begin_us = thread_cpu_us();
        for socket in sockets {
            // It blocks while the socket is full: asleep it costs nothing.
            sent_bytes += send(socket, &data, flags)?;
            sends += 1;
        }
        if zero_copy {
            sockets.iter().try_for_each(take_completions)?;
        }
        cpu_us += thread_cpu_us() - cpu_begin_us;
        while read_bytes.load(Ordering::Relaxed) < sent_bytes {
            thread::sleep(Duration::from_micros(50));
        }
    }
    Ok(cpu_us / f64::from(sends))
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
