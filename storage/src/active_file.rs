//! The file that frames are written to, from its making to its end: always some zeroes ahead of the tail,
//! so that a commit changes no length and no block of the file.
//!
//! ```text
//! prepare   next.log.tmp made, zeroed, synced; opened for zeroes and, apart, for frames
//! roll      its header written and synced; then it gets its name, and the directory is synced
//! extend    more zeroes, 256 KiB at a time, with rests as long as nobody waits for them; most of them while the
//!           log rests, as long as it does
//! ```

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{
    buffer::{ALIGN_BYTES, DiskBuffer},
    io::{Access, Disk, DiskFile},
    mutation::{self, Mutation},
    offset::Position,
    segment::{FIRST_FRAME_POSITION, SegmentHeader},
};

/// How frames reach the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteMode {
    /// `O_DIRECT | O_DSYNC`: a frame is on the device when its write completes.
    Direct,
    /// Through the page cache, with `fdatasync`: where `O_DIRECT` is refused (tmpfs), and where the
    /// log was told not to sync each commit.
    Buffered,
}

impl fmt::Display for WriteMode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            WriteMode::Direct => "direct",
            WriteMode::Buffered => "buffered",
        })
    }
}

/// A segment file that frames can be written to.
pub struct NewFile<D: Disk> {
    /// For frames: `DirectSync`, or buffered.
    pub file: Arc<D::File>,
    /// For zeroing and the header: `Direct`, or buffered. Always opened for itself: the kernel tells
    /// a failed write-back once for each open file, so of two syncs of the same one that run side by
    /// side only the first would fail, and the other would vouch for frames that were lost.
    pub zeroing: Arc<D::File>,
    /// How frames go into `file`.
    pub mode: WriteMode,
    /// Up to here the file is zeroed, and its size and blocks are durable.
    pub prepared: Position,
}

impl<D: Disk> Clone for NewFile<D> {
    fn clone(&self) -> Self {
        let NewFile { file, zeroing, mode, prepared } = self;
        NewFile {
            file: Arc::clone(file),
            zeroing: Arc::clone(zeroing),
            mode: *mode,
            prepared: *prepared,
        }
    }
}

/// Zeroes are written in pieces of this size: a commit beside them waits for one at most.
pub const ZEROING_BYTES: usize = 256 << 10;

/// Between two pieces the disk is left to the commits, while there is time ([`Headway`]): five times as long as a
/// piece takes on a fast disk. Beside zeroing without a rest each commit takes 0.6 to 0.9 ms instead of 0.15.
const ZEROING_REST: Duration = Duration::from_millis(1);

/// How far an extension has come, beside what its log has used meanwhile of what it had left.
///
/// The log says what is left, the disk thread looks. Zeroing keeps half as far again ahead of the use as it
/// would need to: 64 publishers never take its rests away, frames at the disk's own speed do at once.
#[derive(Debug, Default)]
pub(crate) struct Headway {
    /// What was left when the extension began.
    began_bytes: u64,
    /// What is left now, of that.
    left_bytes: AtomicU64,
    /// Somebody waits for it.
    is_urgent: AtomicBool,
    /// There is enough without the rest of it.
    is_enough: AtomicBool,
}

impl Headway {
    /// Of an extension that begins while there are still `left_bytes`.
    pub(crate) fn begin(left_bytes: u64) -> Self {
        let left = AtomicU64::new(left_bytes);
        Headway { began_bytes: left_bytes, left_bytes: left, ..Headway::default() }
    }

    /// So much is left by now.
    pub(crate) fn note_left(&self, left_bytes: u64) {
        self.left_bytes.store(left_bytes, Ordering::Relaxed);
    }

    /// From now on there is no time for rests.
    pub(crate) fn hurry(&self) {
        self.is_urgent.store(true, Ordering::Relaxed);
    }

    /// Nobody needs more than what is done: it may end behind the piece that is under way.
    pub(crate) fn stop(&self) {
        self.is_enough.store(true, Ordering::Relaxed);
    }

    /// Whether it may end before it is done.
    pub(crate) fn is_enough(&self) -> bool {
        self.is_enough.load(Ordering::Relaxed)
    }

    /// Whether there is time for a rest after `done_bytes` of `all_bytes`.
    pub(crate) fn has_time(&self, done_bytes: u64, all_bytes: u64) -> bool {
        let left_bytes = self.left_bytes.load(Ordering::Relaxed);
        let used_bytes = self.began_bytes.saturating_sub(left_bytes);
        let product = |a: u64, b: u64| u128::from(a) * u128::from(b);
        !self.is_urgent.load(Ordering::Relaxed)
            && 2 * product(done_bytes, self.began_bytes) >= 3 * product(used_bytes, all_bytes)
    }
}

/// See [`crate::op::Job::Extend`].
pub struct ExtendJob<D: Disk> {
    pub(crate) file: Arc<D::File>,
    pub(crate) from: Position,
    pub(crate) to: Position,
    pub(crate) headway: Arc<Headway>,
    /// Nothing is done where the disk of that directory has less than so many bytes left.
    pub(crate) free_bytes_min: Option<(PathBuf, u64)>,
}

impl<D: Disk> ExtendJob<D> {
    /// Writes zeroes and syncs: when frames are written there, nothing but data changes on the disk. Returns how
    /// far there are zeroes now, which is `from` where the disk has too little space for that.
    pub(crate) fn run(self, disk: &D) -> io::Result<Position> {
        if let Some((dir, bytes_min)) = &self.free_bytes_min
            && disk.space(dir).map_or(true, |space| space.free_bytes < *bytes_min)
        {
            return Ok(self.from);
        }
        // A write that lengthens the file keeps the commits off it until it is done: they are all asked for
        // again, by threads of the kernel's that have to be woken (30 to 100 us, one of 35 commits).
        // A hint: what it finds is met again by the writes.
        let _ = self.file.allocate(self.from, self.to);
        let all_bytes = self.to.get().saturating_sub(self.from.get());
        let end = write_zeroes(&*self.file, self.from, self.to, |done_bytes| {
            if self.headway.is_enough() {
                return false;
            }
            if self.headway.has_time(done_bytes, all_bytes) {
                thread::sleep(ZEROING_REST);
            }
            true
        })?;
        // A write that finds the disk full can be tried again. A sync cannot, whatever it failed
        // for: frames may have been among what it lost.
        self.file.sync_data().map_err(|error| io::Error::other(format!("sync: {error}")))?;
        Ok(end)
    }
}

/// Asks `rest` between two pieces, with how many bytes are done, whether there is to be another. Returns where the
/// zeroes end.
pub(crate) fn write_zeroes(
    file: &impl DiskFile,
    from: Position,
    to: Position,
    rest: impl Fn(u64) -> bool,
) -> io::Result<Position> {
    let align_bytes = ALIGN_BYTES as u64;
    assert!(from.get().is_multiple_of(align_bytes) && to.get().is_multiple_of(align_bytes));
    let mut left = to.get().saturating_sub(from.get());
    let zeroes = DiskBuffer::zeroed(ZEROING_BYTES.min(usize::try_from(left).unwrap_or(usize::MAX)));
    let mut position = from;
    while left > 0 {
        let bytes = usize::try_from(left).unwrap_or(usize::MAX).min(zeroes.len());
        let written = file.write_at(&zeroes.as_slice()[..bytes], position)?;
        // A full disk first takes less and then nothing. Going on behind whole blocks writes no byte
        // twice, and these are only zeroes.
        let whole = written - written % ALIGN_BYTES;
        if whole == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        position = position.plus(whole as u64);
        left -= whole as u64;
        if left > 0 && !rest(position.get() - from.get()) {
            break;
        }
    }
    Ok(position)
}

/// See [`crate::op::Job::Prepare`].
pub struct PrepareJob {
    /// The temporary name; what has it is removed.
    pub(crate) path: PathBuf,
    pub(crate) mode: WriteMode,
    pub(crate) to: Position,
}

impl PrepareJob {
    /// Makes the file with zeroes up to `to`, the header's place included, and syncs it.
    pub(crate) fn run<D: Disk>(self, disk: &D) -> io::Result<NewFile<D>> {
        let is_kept = mutation::is_planted(Mutation::OldFileAppendedTo);
        let kept = if is_kept { disk.open(&self.path, Access::Write).ok() } else { None };
        let created = match kept {
            Some(file) => file,
            None => self.create(disk)?,
        };
        let direct = match self.mode {
            WriteMode::Buffered => None,
            WriteMode::Direct => match direct_files(disk, &self.path) {
                Ok(files) => Some(files),
                Err(error) if is_refusal(&error) => None,
                Err(error) => return Err(error),
            },
        };
        let (zeroing, file, mode) = match direct {
            Some([zeroing, file]) => (zeroing, file, WriteMode::Direct),
            None => {
                let zeroing = Arc::new(disk.open(&self.path, Access::Write)?);
                (zeroing, Arc::new(created), WriteMode::Buffered)
            }
        };
        write_zeroes(&*zeroing, Position::default(), self.to, |_| true)?;
        zeroing.sync_data()?;
        Ok(NewFile { file, zeroing, mode, prepared: self.to })
    }

    fn create<D: Disk>(&self, disk: &D) -> io::Result<D::File> {
        disk.remove_if_there(&self.path)?;
        disk.create(&self.path, Access::Write)
    }
}

/// The handles for zeroing and for frames, if a first direct write succeeds: some file systems refuse only
/// that.
fn direct_files<D: Disk>(disk: &D, path: &Path) -> io::Result<[Arc<D::File>; 2]> {
    let zeroing = disk.open(path, Access::Direct)?;
    write_zeroes(&zeroing, Position::default(), FIRST_FRAME_POSITION, |_| true)?;
    let file = disk.open(path, Access::DirectSync)?;
    Ok([Arc::new(zeroing), Arc::new(file)])
}

pub(crate) fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
}

/// See [`crate::op::Job::Roll`].
pub struct RollJob<D: Disk> {
    pub(crate) next: NewFile<D>,
    pub(crate) header: SegmentHeader,
    pub(crate) dir: PathBuf,
    pub(crate) from: PathBuf,
    pub(crate) to: PathBuf,
}

impl<D: Disk> RollJob<D> {
    /// Writes the header and syncs, *then* gives the file its name and syncs the directory: a file
    /// with a segment's name always has a header, so that a rotten one is told from a torn one.
    pub(crate) fn run(self, disk: &D) -> io::Result<NewFile<D>> {
        let mut header = DiskBuffer::default();
        header.extend_from_slice(&self.header.encode());
        let written = self.next.zeroing.write_at(header.as_slice(), Position::default())?;
        if written != header.len() {
            return Err(io::Error::new(io::ErrorKind::WriteZero, "short write of a header"));
        }
        self.next.zeroing.sync_data()?;
        disk.rename(&self.from, &self.to)?;
        if !mutation::is_planted(Mutation::DirectoryNotSynced) {
            disk.sync_dir(&self.dir)?;
        }
        Ok(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroing_rests_while_it_is_half_as_far_again_as_what_was_used() {
        let headway = Headway::begin(1200);
        assert!(headway.has_time(0, 400), "nothing is used");
        headway.note_left(900);
        assert!(!headway.has_time(149, 400), "a quarter is used: three eighths should be done");
        assert!(headway.has_time(150, 400));
        headway.note_left(0);
        assert!(!headway.has_time(399, 400));
        headway.note_left(1200);
        assert!(headway.has_time(1, 400));
        headway.hurry();
        assert!(!headway.has_time(399, 400));
    }

    #[test]
    fn zeroing_does_not_rest_where_nothing_was_left() {
        let headway = Headway::begin(0);
        headway.hurry();
        assert!(!headway.has_time(1, 2));
    }
}
