//! Many SSE subscribers of one topic at a fixed rate of durable events: how long from publish to
//! receipt, what a delivery costs the server, what memory it takes.
//!
//! ```text
//! cargo bench --bench fan_out -- [--subscribers 1000] [--rate 100] [--seconds 20] [--server-core 0]
//!                                [--client-core 1] [--bytes 256]
//! ```
//! Starts the release server with one shard on one core, and is itself on the other. One thread
//! waits for all sockets in epoll and sleeps there (a client that spins delays the server's disk);
//! another publishes at the fixed rate. An event carries the time at which it was *due*, so that a
//! publisher that falls behind does not hide delay. Every subscriber must get every event, in order.

use std::{
    env, fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::fd::AsFd,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::event::epoll;

/// What to measure, from the command line.
struct Options {
    subscribers: u32,
    rate: u32,
    seconds: u32,
    bytes: u32,
    server_core: String,
    client_core: String,
}

impl Options {
    fn parse() -> Self {
        let arguments: Vec<String> = env::args().collect();
        let value = |name: &str, default: &str| {
            let at = arguments.iter().position(|argument| argument == name);
            at.and_then(|at| arguments.get(at + 1)).map_or(default.to_owned(), Clone::clone)
        };
        let number = |name: &str, default: &str| value(name, default).parse().expect("a number");
        Self {
            subscribers: number("--subscribers", "1000"),
            rate: number("--rate", "100"),
            seconds: number("--seconds", "20"),
            bytes: number("--bytes", "256"),
            server_core: value("--server-core", "0"),
            client_core: value("--client-core", "1"),
        }
    }
}

/// The server under load; killed when dropped.
struct Server {
    process: Child,
    address: String,
    data: String,
}

impl Server {
    fn start(core: &str) -> io::Result<Self> {
        let data =
            format!("{}/strandline-fan-out-{}", env::temp_dir().display(), std::process::id());
        let mut process = Command::new("taskset")
            .args(["-c", core, env!("CARGO_BIN_EXE_strandline"), "serve", "--shards", "1"])
            .args(["--listen", "127.0.0.1:0", "--data", &data])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("piped")).read_line(&mut line)?;
        let address = line.split("http://").nth(1).and_then(|rest| rest.split(' ').next());
        let address =
            address.ok_or_else(|| io::Error::other("the server did not start"))?.to_owned();
        Ok(Self { process, address, data })
    }

    /// (resident KiB, CPU seconds used so far).
    fn usage(&self) -> (u64, f64) {
        let pid = self.process.id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let resident = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok())
            .unwrap_or(0);
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let ticks: u32 = fields
            .get(11..13)
            .map_or(0, |times| times.iter().filter_map(|time| time.parse::<u32>().ok()).sum());
        (resident, f64::from(ticks) / 100.0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.data);
    }
}

/// One subscriber: its socket, and the part of a line that has come.
struct Subscriber {
    stream: TcpStream,
    pending: Vec<u8>,
    received: u64,
}

impl Subscriber {
    fn connect(address: &str) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        write!(
            stream,
            "GET /api/v1/events/stream?topic=bench/fan-out HTTP/1.1\r\nHost: localhost\r\n\r\n"
        )?;
        let (mut pending, mut bytes) = (Vec::new(), [0; 4096]);
        while !pending.windows(22).any(|window| window == b"connection.established") {
            let read = stream.read(&mut bytes)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            pending.extend_from_slice(&bytes[..read]);
        }
        stream.set_nonblocking(true)?;
        Ok(Self { stream, pending: Vec::new(), received: 0 })
    }

    /// Reads what has come; calls `event` with the due time in ns of each event.
    fn receive(&mut self, bytes: &mut [u8], mut event: impl FnMut(u64)) -> io::Result<()> {
        match self.stream.read(bytes) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => self.pending.extend_from_slice(&bytes[..read]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
        let mut consumed = 0;
        while let Some(end) = self.pending[consumed..].iter().position(|byte| *byte == b'\n') {
            let line = &self.pending[consumed..consumed + end];
            consumed += end + 1;
            let Some(data) = line.strip_prefix(b"data: @") else { continue };
            let text = std::str::from_utf8(data).map_err(io::Error::other)?;
            let mut fields = text.split(' ');
            let mut number = || fields.next().and_then(|field| field.parse::<u64>().ok());
            let (Some(sequence), Some(due)) = (number(), number()) else {
                return Err(io::Error::other(format!("an odd event: {text}")));
            };
            if sequence != self.received {
                let expected = self.received;
                return Err(io::Error::other(format!("event {sequence} where {expected} was due")));
            }
            self.received += 1;
            event(due);
        }
        self.pending.drain(..consumed);
        Ok(())
    }
}

fn nanoseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).expect("584 years")
}

/// Publishes at the rate; returns the delays of the acknowledgements in microseconds.
fn publish(address: &str, options: &Options, started: Instant) -> io::Result<Vec<u64>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut answer = [0; 4096];
    let mut delays = Vec::new();
    let first_due = nanoseconds(started) + 200_000_000;
    let bytes = usize::try_from(options.bytes).expect("fits");
    for sequence in 0..u64::from(options.rate) * u64::from(options.seconds) {
        let due = first_due + sequence * 1_000_000_000 / u64::from(options.rate);
        thread::sleep(Duration::from_nanos(due.saturating_sub(nanoseconds(started))));
        let data = format!("{:<1$}", format!("@{sequence} {due} "), bytes);
        let request = format!(
            "POST /api/v1/topics/bench/fan-out/events HTTP/1.1\r\nHost: localhost\r\n\
             Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n{data}",
            data.len()
        );
        stream.write_all(request.as_bytes())?;
        let read = stream.read(&mut answer)?;
        if !answer[..read].starts_with(b"HTTP/1.1 201") {
            return Err(io::Error::other(String::from_utf8_lossy(&answer[..read]).into_owned()));
        }
        delays.push(nanoseconds(started).saturating_sub(due) / 1000);
    }
    Ok(delays)
}

/// A percentile in milliseconds of sorted microseconds.
fn percentile(sorted: &[u64], percent: usize) -> f64 {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    f64::from(u32::try_from(sorted.get(at).copied().unwrap_or(0)).unwrap_or(u32::MAX)) / 1000.0
}

fn main() -> io::Result<()> {
    if env::args().any(|argument| argument == "--test") {
        return Ok(()); // `cargo test --benches` only wants to know that it builds
    }
    let options = Options::parse();
    Command::new("taskset")
        .args(["-a", "-c", "-p", &options.client_core, &std::process::id().to_string()])
        .stdout(Stdio::null())
        .status()?;
    let server = Server::start(&options.server_core)?;
    let started = Instant::now();
    let idle = server.usage();
    let mut subscribers = (0..options.subscribers)
        .map(|_| Subscriber::connect(&server.address))
        .collect::<io::Result<Vec<_>>>()?;
    let connected = server.usage();
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for (index, subscriber) in subscribers.iter().enumerate() {
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(&poll, subscriber.stream.as_fd(), data, epoll::EventFlags::IN)?;
    }
    let wanted =
        u64::from(options.rate) * u64::from(options.seconds) * u64::from(options.subscribers);
    let mut delays: Vec<u64> = Vec::with_capacity(usize::try_from(wanted).expect("fits"));
    let (mut acks, memory_max) = thread::scope(|scope| -> io::Result<(Vec<u64>, u64)> {
        let publisher = scope.spawn(|| publish(&server.address, &options, started));
        let mut bytes = vec![0; 64 << 10];
        let mut ready = Vec::with_capacity(1024);
        let (mut memory_max, mut looked) = (0, Instant::now());
        while (delays.len() as u64) < wanted {
            ready.clear();
            let timeout = rustix::time::Timespec { tv_sec: 10, tv_nsec: 0 };
            epoll::wait(&poll, rustix::buffer::spare_capacity(&mut ready), Some(&timeout))?;
            if ready.is_empty() {
                let missing = wanted - delays.len() as u64;
                return Err(io::Error::other(format!("silence, and {missing} deliveries missing")));
            }
            for event in &ready {
                let index = usize::try_from(event.data.u64()).expect("an index");
                subscribers[index].receive(&mut bytes, |due| {
                    delays.push(nanoseconds(started).saturating_sub(due) / 1000);
                })?;
            }
            if looked.elapsed() > Duration::from_millis(500) {
                memory_max = memory_max.max(server.usage().0);
                looked = Instant::now();
            }
        }
        Ok((publisher.join().expect("no panic")?, memory_max))
    })?;
    let loaded = server.usage();
    delays.sort_unstable();
    acks.sort_unstable();
    println!(
        "{} subscribers, {} events/s of {} bytes, {} s: {wanted} deliveries, each checked",
        options.subscribers, options.rate, options.bytes, options.seconds
    );
    let [p50, p95, p99, max] = [50, 95, 99, 100].map(|percent| percentile(&delays, percent));
    println!("publish to receipt  p50 {p50:.2}  p95 {p95:.2}  p99 {p99:.2}  max {max:.2} ms");
    println!(
        "acknowledgement     p50 {:.2}  p99 {:.2} ms",
        percentile(&acks, 50),
        percentile(&acks, 99)
    );
    let cpu_us = (loaded.1 - connected.1) * 1e6;
    let per_delivery = cpu_us / f64::from(u32::try_from(wanted).unwrap_or(u32::MAX));
    println!(
        "server              {per_delivery:.2} us CPU a delivery; memory {} KiB idle, {} KiB with \
         subscribers, {} KiB at most",
        idle.0,
        connected.0,
        memory_max.max(loaded.0)
    );
    Ok(())
}
