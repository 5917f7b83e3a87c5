//! How long a test waits on a machine that others keep busy.

use std::{
    fs, io,
    time::{Duration, Instant},
};

/// How long something is waited for that others may keep from the processors: until one was free for so long. Beside
/// programs that take all there is that may be minutes.
pub struct Patience {
    free_until_s: f64,
    began: Instant,
}

/// What nothing takes, however busy the machine is.
const HANGS: Duration = Duration::from_secs(900);

/// What is only over after so long is waited for by nobody.
pub const NEVER_MS: u64 = 1_000_000;
const _: () = assert!(NEVER_MS > 1000 * HANGS.as_secs());

/// Whoever waits for something to come looks as often whether it waits in vain.
pub const LOOK: Duration = Duration::from_secs(1);

impl Patience {
    pub fn new(free: Duration) -> Patience {
        Patience { free_until_s: free_s() + free.as_secs_f64(), began: Instant::now() }
    }

    pub fn is_over(&self) -> bool {
        free_s() > self.free_until_s || self.began.elapsed() > HANGS
    }
}

/// For how long a processor has had nothing to do since the machine was started, on average (proc(5), `/proc/stat`).
fn free_s() -> f64 {
    let stat = fs::read_to_string("/proc/stat").expect("the kernel says it");
    let is_one = |line: &&str| line.starts_with("cpu") && !line.starts_with("cpu ");
    // `idle` and `iowait`: where somebody waits for a ring, as a server that hangs does, nothing is `idle`, nor in `/proc/uptime`.
    let of_all = stat.split_whitespace().skip(4).take(2);
    let hundredths: f64 = of_all.map(|text| text.parse::<f64>().expect("a number")).sum();
    hundredths
        / 100.0
        / f64::from(u32::try_from(stat.lines().filter(is_one).count().max(1)).expect("few"))
}

/// Reads once from a socket that gives up each [`LOOK`], until `free` has passed. Goes on when the rings of this process
/// signal its threads.
pub fn read(stream: &mut impl io::Read, bytes: &mut [u8], free: Duration) -> io::Result<usize> {
    let mut patience = None;
    loop {
        match stream.read(bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if patience.get_or_insert_with(|| Patience::new(free)).is_over() {
                    return Err(error);
                }
            }
            outcome => return outcome,
        }
    }
}

/// All that comes until the other side closes, no part of it later than [`read`] waits for.
pub fn read_to_end(stream: &mut impl io::Read, free: Duration) -> io::Result<Vec<u8>> {
    let (mut all, mut part) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        match read(stream, &mut part, free)? {
            0 => return Ok(all),
            count => all.extend_from_slice(&part[..count]),
        }
    }
}
