//! A file that is read from its start to its end, a step ahead of who works on what it holds.
//!
//! ```text
//!   who works   | read 1 | work on 1 | work on 2 | work on 3 |
//!   the disk             | read 2 |    read 3 |    read 4 |
//! ```
//! Without, a rewrite waited for its reads for a quarter of its time.
//!
//! Only while nobody appends: else whoever reads at a [`Pace`](crate::pace::Pace) rests meanwhile, and would read more
//! beside commits if it worked in its rests.

use std::{
    io,
    sync::{Mutex, PoisonError},
};

use crate::{
    buffer::{ALIGN_BYTES, DiskBuffer},
    io::{
        DiskFile,
        in_flight::{Errand, InFlight},
    },
    offset::Position,
    pace::{PacedFile, Turns},
};

/// So much is read ahead.
const STEP_BYTES: usize = 256 << 10;
const _: () = assert!(STEP_BYTES.is_multiple_of(ALIGN_BYTES));

/// See the [module](self).
pub(crate) struct AheadFile<F> {
    ahead: Option<Mutex<Ahead>>,
    file: PacedFile<F>,
}

struct Ahead {
    /// What has been read and is to be taken.
    held: Step,
    /// What is read meanwhile, and where, if anything is.
    in_flight: Box<dyn InFlight>,
    asked: Option<Position>,
    /// What is read into next.
    spare: DiskBuffer,
}

/// Bytes of the file.
#[derive(Default)]
struct Step {
    position: Position,
    buffer: DiskBuffer,
    /// How many were taken.
    taken: usize,
}

impl Step {
    fn end(&self) -> Position {
        self.position.plus(self.buffer.len() as u64)
    }

    /// Whether the next one to be taken stands there.
    fn goes_on_at(&self, position: Position) -> bool {
        self.taken < self.buffer.len() && self.position.plus(self.taken as u64) == position
    }

    fn take(&mut self, bytes: &mut [u8]) -> usize {
        let left = &self.buffer.as_slice()[self.taken..];
        let len = left.len().min(bytes.len());
        bytes[..len].copy_from_slice(&left[..len]);
        self.taken += len;
        len
    }
}

impl<F: DiskFile> AheadFile<F> {
    pub(crate) fn new(file: PacedFile<F>) -> Self {
        // Where none is in flight it is read as it would be.
        let ahead = file.in_flight(Errand::Read).map(|in_flight| Ahead {
            held: Step::default(),
            in_flight,
            asked: None,
            spare: DiskBuffer::default(),
        });
        AheadFile { ahead: ahead.map(Mutex::new), file }
    }

    /// The turns of who computes with what the file holds.
    pub(crate) fn turns(&self) -> Turns {
        self.file.turns()
    }
}

impl Ahead {
    /// Takes what stands at `position` if that was read ahead.
    fn take(&mut self, bytes: &mut [u8], position: Position) -> Option<usize> {
        if !self.held.goes_on_at(position)
            && let Some(asked) = self.asked.take()
        {
            let (buffer, read) = self.in_flight.wait()?;
            // Whoever needs what could not be read reads it, and has the error.
            let is_whole = read.is_ok_and(|read| read == STEP_BYTES);
            self.spare = match is_whole && asked == position {
                true => {
                    let step = Step { position, buffer, taken: 0 };
                    std::mem::replace(&mut self.held, step).buffer
                }
                false => buffer,
            };
        }
        self.held.goes_on_at(position).then(|| self.held.take(bytes))
    }

    /// Reads from `position` while somebody works on what comes before.
    fn ask(&mut self, position: Position) {
        if !self.in_flight.is_usable() {
            return;
        }
        let mut buffer = std::mem::take(&mut self.spare);
        if buffer.len() != STEP_BYTES {
            buffer = DiskBuffer::zeroed(STEP_BYTES);
        }
        self.in_flight.begin(buffer, position);
        self.asked = Some(position);
    }
}

impl<F: DiskFile> DiskFile for AheadFile<F> {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read_at(&self, bytes: &mut [u8], position: Position) -> io::Result<usize> {
        let Some(ahead) = &self.ahead else { return self.file.read_at(bytes, position) };
        let mut ahead = ahead.lock().unwrap_or_else(PoisonError::into_inner);
        let (read, end) = match ahead.take(bytes, position) {
            Some(read) => (read, ahead.held.end()),
            None => {
                let read = self.file.read_at(bytes, position)?;
                (read, position.plus(read as u64))
            }
        };
        if ahead.asked.is_none() && read > 0 && !self.file.is_beside_appends() {
            ahead.ask(end);
        }
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], position: Position) -> io::Result<usize> {
        self.file.write_at(bytes, position)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn set_size(&self, size_bytes: u64) -> io::Result<()> {
        self.file.set_size(size_bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf, sync::Arc, time::Instant};

    use super::*;
    use crate::{
        io::{
            Access, Disk,
            real::{RealDisk, RealFile},
            sim::{SimDisk, rng::SimRng},
            uring::check_available,
        },
        pace::{FramesBegun, Pace, QUIET},
    };

    const STEP: u64 = STEP_BYTES as u64;
    const BLOCK: u64 = ALIGN_BYTES as u64;

    /// A file of its own for a test, without a name.
    fn file_of(name: &str, content: &[u8]) -> Option<Arc<RealFile>> {
        if let Err(error) = check_available() {
            eprintln!("skipped: no io_uring here: {error}");
            return None;
        }
        let name = format!("strandline-ahead-{name}-{}", std::process::id());
        let path: PathBuf = std::env::temp_dir().join(name);
        fs::write(&path, content).expect("space");
        let file = RealDisk.open(&path, Access::Direct);
        let file = file.or_else(|_| RealDisk.open(&path, Access::Write)).expect("it is there");
        fs::remove_file(&path).expect("it was there");
        Some(Arc::new(file))
    }

    fn alone<F: DiskFile>(file: &Arc<F>) -> AheadFile<F> {
        AheadFile::new(PacedFile::new(Arc::clone(file), Pace::alone()))
    }

    fn asked<F>(file: &AheadFile<F>) -> Option<u64> {
        let ahead = file.ahead.as_ref()?.lock().expect("no panic");
        ahead.asked.map(Position::get)
    }

    #[test]
    fn what_is_asked_for_is_what_stands_there() {
        let mut rng = SimRng::new(1);
        for case in 0..20 {
            let size = usize::try_from(rng.below(6 * STEP)).expect("short");
            let content = rng.bytes(size);
            let Some(file) = file_of("all", &content) else { return };
            let file = alone(&file);
            let (blocks, mut position, mut was_ahead) = (size as u64 / BLOCK + 1, 0, false);
            for _ in 0..100 {
                // Mostly on from where the last one ended, as a scan reads, and sometimes from elsewhere.
                if position >= size as u64 || rng.chance(15) {
                    position = rng.below(blocks) * BLOCK;
                }
                let len = usize::try_from((1 + rng.below(80)) * BLOCK).expect("short");
                let mut buffer = DiskBuffer::zeroed(len);
                let at = Position::new(position);
                let read = file.read_all_at(buffer.as_mut_slice(), at).expect("a good disk");
                let from = usize::try_from(position).expect("short").min(size);
                let expected = &content[from..size.min(from + len)];
                let found = &buffer.as_slice()[..read];
                assert!(found == expected, "case {case}: {len} bytes at {position}");
                position += len as u64;
                was_ahead |= asked(&file).is_some();
            }
            assert!(was_ahead || size == 0);
        }
    }

    #[test]
    fn the_next_step_is_read_only_where_that_disturbs_nobody() {
        let content = vec![1; 6 * STEP_BYTES];
        let Some(file) = file_of("pace", &content) else { return };
        let mut buffer = DiskBuffer::zeroed(2 * ALIGN_BYTES);
        let mut read = |file: &AheadFile<RealFile>, position| {
            let at = Position::new(position);
            file.read_exact_at(buffer.as_mut_slice(), at).expect("a good disk");
            asked(file)
        };
        let ahead = alone(&file);
        assert_eq!(read(&ahead, 0), Some(2 * BLOCK));
        let next = 2 * BLOCK + STEP;
        assert_eq!(read(&ahead, 2 * BLOCK), Some(next), "the step was taken, and the next is read");
        assert_eq!(read(&ahead, 4 * BLOCK), Some(next), "the rest of it is there");

        // On a busy machine who has appended may have been quiet for long when that is looked at.
        loop {
            let frames = FramesBegun::default();
            let pace = Pace::beside(&frames, false);
            frames.add_one();
            let ahead = AheadFile::new(PacedFile::new(Arc::clone(&file), pace));
            let began = Instant::now();
            let asked = read(&ahead, 0);
            if asked.is_none() {
                break;
            }
            assert!(began.elapsed() >= QUIET, "beside somebody who appends");
        }
    }

    #[test]
    fn a_simulated_disk_is_read_in_one_order() {
        let disk = SimDisk::new(1);
        let file = disk.create(std::path::Path::new("/a"), Access::Write).expect("a free name");
        file.write_all_at(&[7; 3 * ALIGN_BYTES], Position::default()).expect("space");
        let file = alone(&Arc::new(file));
        let mut bytes = [0; ALIGN_BYTES];
        file.read_exact_at(&mut bytes, Position::default()).expect("a good disk");
        assert_eq!((bytes, asked(&file)), ([7; ALIGN_BYTES], None));
    }

    /// What was read ahead in part, as where the disk failed, is read anew: its reader alone has the error.
    #[test]
    fn a_step_that_is_not_whole_is_read_again() {
        let content = vec![1; 3 * STEP_BYTES];
        let Some(file) = file_of("part", &content) else { return };
        let ahead = alone(&file);
        let mut buffer = DiskBuffer::zeroed(STEP_BYTES);
        for (position, left) in [(0, STEP_BYTES), (STEP, STEP_BYTES), (2 * STEP, 5 * ALIGN_BYTES)] {
            if position == STEP {
                file.set_size(2 * STEP + 5 * BLOCK).expect("shorter");
            }
            let read = ahead.read_all_at(buffer.as_mut_slice(), Position::new(position));
            assert_eq!(read.expect("a good disk"), left);
        }
        let end = Position::new(2 * STEP + 5 * BLOCK);
        assert_eq!(ahead.read_at(buffer.as_mut_slice(), end).expect("the end"), 0);
    }
}
