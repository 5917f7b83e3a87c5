//! How what is read and written in the background leaves the disk to commits: a little at a time, and then a rest.
//!
//! ```text
//!   somebody appends    piece | rest: nine times as long | piece | rest ...
//!   nobody does         as much as asked for, at once
//! ```
//! A commit waits for what is under way. There is the more of that the longer pieces take, and a disk may take ten
//! times as long from one minute to the next: a rest that is measured by the piece before it leaves the commits the
//! same share of any disk. No rest is longer than [`REST_MAX`], so that a rewrite comes to its end on the slowest.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    buffer::ALIGN_BYTES,
    io::{
        DiskFile,
        in_flight::{Errand, InFlight},
    },
    offset::Position,
    parts::Parts,
};

/// So much is written before it is synced: a commit waits for the drive's cache to be written back.
pub(crate) const PACE_BYTES: usize = 1 << 20;

/// Beside somebody who appends no more is read or written at a time. (64 KiB did no better, and halved the rate.)
const PIECE_BYTES: usize = 256 << 10;
const _: () = assert!(PIECE_BYTES.is_multiple_of(ALIGN_BYTES));

/// After each piece it rests so many times as long as that took: it has a tenth of the disk's time, up to [`REST_MAX`].
/// (Four times: p99 of acknowledgements 1.23 times that alone beside a rewrite, medians of 9 rounds; nine: 1.13.)
const REST_TIMES: u32 = 9;

/// It rests no longer: at the least, 13 MB are read and written a second beside what the disk takes for them.
const REST_MAX: Duration = Duration::from_millis(20);

/// Nobody is taken to append any more who has not for so long.
pub(crate) const QUIET: Duration = Duration::from_secs(1);

/// How many frames a log has begun to write, for all who want to know whether any.
#[derive(Clone, Debug, Default)]
pub(crate) struct FramesBegun(Arc<Begun>);

#[derive(Debug, Default)]
struct Begun {
    frames: AtomicU64,
    is_ending: AtomicBool,
}

impl FramesBegun {
    pub(crate) fn add_one(&self) {
        self.0.frames.fetch_add(1, Ordering::Relaxed);
    }

    /// The log ends: nobody is left to rest for, and it waits for who works.
    pub(crate) fn end(&self) {
        self.0.is_ending.store(true, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.frames.load(Ordering::Relaxed)
    }

    fn is_ending(&self) -> bool {
        self.0.is_ending.load(Ordering::Relaxed)
    }
}

/// When somebody who works in the background rests, and for how long. It is told the time.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    frames: FramesBegun,
    frames_seen: u64,
    /// Until then somebody is taken to append.
    busy_until: Option<Instant>,
    is_urgent: bool,
}

impl Pace {
    /// Beside a log that begins these `frames`; without any rest if `is_urgent`.
    pub(crate) fn beside(frames: &FramesBegun, is_urgent: bool) -> Self {
        Pace { frames: frames.clone(), frames_seen: frames.get(), busy_until: None, is_urgent }
    }

    /// Beside nobody.
    pub(crate) fn alone() -> Self {
        Pace::beside(&FramesBegun::default(), true)
    }

    /// Whether it rests no more.
    pub(crate) fn is_urgent(&self) -> bool {
        self.is_urgent || self.frames.is_ending()
    }

    /// As if somebody had just appended: for what is short and has time.
    pub(crate) fn assuming_appends(self) -> Self {
        Pace { frames_seen: self.frames_seen.wrapping_sub(1), ..self }
    }

    /// Whether somebody appends.
    fn is_beside(&mut self, now: Instant) -> bool {
        let frames = self.frames.get();
        if std::mem::replace(&mut self.frames_seen, frames) != frames {
            self.busy_until = Some(now + QUIET);
        }
        !self.is_urgent() && self.busy_until.is_some_and(|until| now < until)
    }

    /// How much of `bytes` is read or written now.
    fn piece_of(&mut self, bytes: usize, now: Instant) -> usize {
        if self.is_beside(now) { bytes.min(PIECE_BYTES) } else { bytes }
    }

    /// How long to rest after a piece that took so long.
    fn rest_after(&mut self, took: Duration, now: Instant) -> Duration {
        match self.is_beside(now) {
            true => took.saturating_mul(REST_TIMES).min(REST_MAX),
            false => Duration::ZERO,
        }
    }
}

/// After work on so many bytes others have their turn on the core: some 0.1 ms of a rewrite.
const TURN_BYTES: u64 = 16 << 10;

/// Lets others have this thread's core now and then, for work that keeps it busy.
///
/// A commit ends with steps of the kernel's workers, on the core that gets the disk's interrupts. One that finds a busy
/// thread there waits for its slice to end, up to a tick: that the thread is `SCHED_IDLE` counts only beside threads of
/// its own group (sched(7): a session's, a container's), and the workers are in another. (Beside a thread that computes
/// for 1.2 ms of 6: p99 of acknowledgements 1.5 ms, with a turn's end each 0.1 ms 0.6, beside none 0.66.)
#[derive(Debug)]
pub(crate) struct Turns {
    pace: Pace,
    bytes: u64,
}

impl Turns {
    /// While somebody appends.
    pub(crate) fn beside(pace: Pace) -> Self {
        Turns { pace, bytes: 0 }
    }

    /// It has worked on so many bytes more.
    pub(crate) fn worked_on(&mut self, bytes: u64) {
        if self.is_over_after(bytes) && self.pace.is_beside(Instant::now()) {
            std::thread::yield_now();
        }
    }

    fn is_over_after(&mut self, bytes: u64) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        let is_over = self.bytes >= TURN_BYTES;
        if is_over {
            self.bytes = 0;
        }
        is_over
    }
}

/// A file that is read and written at a [`Pace`], by one thread.
pub(crate) struct PacedFile<F> {
    file: Arc<F>,
    pace: Mutex<Pace>,
}

impl<F: DiskFile> PacedFile<F> {
    pub(crate) fn new(file: Arc<F>, pace: Pace) -> Self {
        PacedFile { file, pace: Mutex::new(pace) }
    }

    /// The turns of who computes with what the file holds.
    pub(crate) fn turns(&self) -> Turns {
        Turns::beside(self.pace.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Reads or writes of it that go on meanwhile, at no pace.
    pub(crate) fn in_flight(&self, what: Errand) -> Option<Box<dyn InFlight>> {
        self.file.in_flight(what)
    }

    /// Whether somebody appends, so that it rests.
    pub(crate) fn is_beside_appends(&self) -> bool {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner).is_beside(Instant::now())
    }

    /// Writes all of a file from its start, and syncs it: a little at a time, unless that is urgent.
    pub(crate) fn write_synced(&self, parts: &Parts<'_>) -> io::Result<()> {
        let mut position = Position::default();
        let len = usize::try_from(parts.len()).unwrap_or(usize::MAX);
        let mut held = Vec::with_capacity(len.min(PACE_BYTES));
        parts.take_pieces(|mut piece| {
            while held.len() + piece.len() > PACE_BYTES {
                let (fits, rest) = piece.split_at(PACE_BYTES - held.len());
                held.extend_from_slice(fits);
                self.write_held(&mut held, &mut position)?;
                piece = rest;
            }
            held.extend_from_slice(piece);
            Ok(())
        })?;
        self.write_all_at(&held, position)?;
        self.sync_data()
    }

    /// Writes what is held where it belongs, and syncs it, unless that is urgent.
    fn write_held(&self, held: &mut Vec<u8>, position: &mut Position) -> io::Result<()> {
        self.write_all_at(held, *position)?;
        *position = position.plus(held.len() as u64);
        held.clear();
        let is_urgent = self.pace.lock().unwrap_or_else(PoisonError::into_inner).is_urgent();
        if is_urgent { Ok(()) } else { self.sync_data() }
    }

    /// Does something with as many of `bytes` as it is told, and rests.
    fn piece<T>(&self, bytes: usize, work: impl FnOnce(&F, usize) -> T) -> T {
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let began = Instant::now();
        let bytes = pace.piece_of(bytes, began);
        let result = work(&self.file, bytes);
        let rest = pace.rest_after(began.elapsed(), Instant::now());
        if !rest.is_zero() {
            std::thread::sleep(rest);
        }
        result
    }
}

impl<F: DiskFile> DiskFile for PacedFile<F> {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read_at(&self, bytes: &mut [u8], position: Position) -> io::Result<usize> {
        self.piece(bytes.len(), |file, len| file.read_at(&mut bytes[..len], position))
    }

    fn write_at(&self, bytes: &[u8], position: Position) -> io::Result<usize> {
        self.piece(bytes.len(), |file, len| file.write_at(&bytes[..len], position))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.piece(0, |file, _| file.sync_data())
    }

    fn set_size(&self, size_bytes: u64) -> io::Result<()> {
        self.file.set_size(size_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{Access, Disk, sim::SimDisk};

    const MS: Duration = Duration::from_millis(1);

    /// A log that has begun frames, and one who works beside it.
    fn beside(is_urgent: bool) -> (FramesBegun, Pace) {
        let frames = FramesBegun::default();
        frames.add_one();
        let pace = Pace::beside(&frames, is_urgent);
        (frames, pace)
    }

    #[test]
    fn it_rests_by_what_a_piece_took_while_somebody_appends() {
        let (frames, mut pace) = beside(false);
        let start = Instant::now();
        assert_eq!(pace.rest_after(MS, start), Duration::ZERO, "nobody did since it began");
        frames.add_one();
        assert_eq!(pace.rest_after(MS, start), 9 * MS);
        assert_eq!(pace.rest_after(2 * MS, start), 18 * MS);
        assert_eq!(pace.rest_after(Duration::ZERO, start), Duration::ZERO);
        assert_eq!(pace.rest_after(1_000 * MS, start), REST_MAX, "it comes to its end");
        assert_eq!(pace.rest_after(Duration::MAX, start), REST_MAX);
    }

    #[test]
    fn it_goes_on_at_once_when_nobody_has_appended_for_long_enough() {
        let (frames, mut pace) = beside(false);
        let start = Instant::now();
        frames.add_one();
        assert_eq!(pace.rest_after(MS, start), 9 * MS);
        assert_eq!(pace.rest_after(MS, start + QUIET - MS), 9 * MS, "few appends need it as well");
        assert_eq!(pace.rest_after(MS, start + QUIET), Duration::ZERO);
        frames.add_one();
        assert_eq!(pace.rest_after(MS, start + 3 * QUIET), 9 * MS);
    }

    #[test]
    fn pieces_are_short_while_somebody_appends() {
        let (frames, mut pace) = beside(false);
        let start = Instant::now();
        assert_eq!(pace.piece_of(4 * PIECE_BYTES, start), 4 * PIECE_BYTES);
        frames.add_one();
        let pieces = [4 * PIECE_BYTES, PIECE_BYTES, 1, 0].map(|bytes| pace.piece_of(bytes, start));
        assert_eq!(pieces, [PIECE_BYTES, PIECE_BYTES, 1, 0]);
    }

    #[test]
    fn what_is_urgent_never_rests() {
        let (frames, mut pace) = beside(true);
        let start = Instant::now();
        frames.add_one();
        assert_eq!(pace.rest_after(MS, start), Duration::ZERO);
        assert_eq!(pace.piece_of(4 * PIECE_BYTES, start), 4 * PIECE_BYTES);
        assert_eq!(Pace::alone().rest_after(MS, start), Duration::ZERO);
    }

    #[test]
    fn what_has_time_rests_from_its_first_piece_on() {
        let (_, pace) = beside(false);
        let (mut pace, start) = (pace.assuming_appends(), Instant::now());
        assert_eq!(pace.rest_after(MS, start), 9 * MS);
        assert_eq!(pace.rest_after(MS, start + QUIET), Duration::ZERO);
    }

    #[test]
    fn a_file_that_is_written_in_pieces_holds_the_same() {
        let disk = SimDisk::new(1);
        let path = std::path::Path::new("/a");
        let file = Arc::new(disk.create(path, Access::Write).expect("created"));
        let (_, pace) = beside(false);
        let paced = PacedFile::new(Arc::clone(&file), pace.assuming_appends());
        let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(2 * PIECE_BYTES + 1).collect();
        assert_eq!(paced.write_at(&bytes, Position::default()).expect("a piece"), PIECE_BYTES);
        paced.write_all_at(&bytes, Position::default()).expect("written");
        paced.sync_data().expect("synced");
        assert_eq!(paced.size().expect("a size"), bytes.len() as u64);
        let mut back = vec![0; bytes.len()];
        paced.read_exact_at(&mut back, Position::default()).expect("read");
        assert!(back == bytes);
        file.read_exact_at(&mut back, Position::default()).expect("read");
        assert!(back == bytes);
    }

    #[test]
    fn what_is_written_is_synced_a_little_at_a_time() {
        let (dir, path) = (std::path::Path::new("/"), std::path::Path::new("/a"));
        let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(2 * PACE_BYTES + 1).collect();
        let write = |disk: &SimDisk, is_urgent| {
            let file = Arc::new(disk.create(path, Access::Write)?);
            disk.sync_dir(dir)?;
            PacedFile::new(file, beside(is_urgent).1).write_synced(&bytes[..].into())
        };
        let whole = SimDisk::new(1);
        write(&whole, false).expect("written");
        assert_eq!(whole.power_cut().bytes(path), Some(bytes.clone()));

        let cut = SimDisk::new(1);
        cut.crash_after(Some(whole.operations() - 1));
        write(&cut, false).expect_err("the last sync fails");
        let left = cut.power_cut().bytes(path).expect("it has its name");
        assert!(left[..2 * PACE_BYTES] == bytes[..2 * PACE_BYTES]);

        let at_once = SimDisk::new(1);
        write(&at_once, true).expect("written");
        assert_eq!(at_once.power_cut().bytes(path), Some(bytes.clone()));
        assert!(at_once.operations() < whole.operations(), "one sync");
    }

    #[test]
    fn a_turn_is_over_after_so_many_bytes() {
        let mut turns = Turns::beside(Pace::alone());
        let over = [TURN_BYTES - 1, 1, TURN_BYTES - 1, 0, 1, 5 * TURN_BYTES, 1, u64::MAX]
            .map(|bytes| turns.is_over_after(bytes));
        assert_eq!(over, [false, true, false, false, true, true, false, true]);
    }

    #[test]
    fn nobody_rests_for_a_log_that_ends() {
        let (frames, mut pace) = beside(false);
        let start = Instant::now();
        frames.add_one();
        assert_ne!(pace.rest_after(MS, start), Duration::ZERO);
        frames.end();
        frames.add_one();
        assert!(pace.is_urgent() && pace.rest_after(MS, start).is_zero());
        assert!(pace.clone().assuming_appends().rest_after(MS, start).is_zero());
    }
}
