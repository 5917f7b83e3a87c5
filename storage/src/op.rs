//! What a log asks of its driver: operations that wait for the disk.
//!
//! ```text
//!   Log::next_op() -> Op -> the driver: io_uring on the shard, the disk thread, a simulation
//!   Log::complete() <- OpOutcome <-+
//! ```
//! A write or sync is handed out once, and its outcome is reported once, whatever it was. Operations
//! may complete in any order. Whoever gives up on a log drains what is under way first: the kernel
//! may still write from a frame's memory.

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
    compact::{CompactJob, CompactOutcome},
    earliest::KeepJob,
    end_mark::{EndMark, MarkJob},
    error::OpenError,
    group_commit::OpId,
    io::{Access, Disk, DiskFile},
    mutation::{self, Mutation},
    offset::Position,
    reserve::ReserveJob,
    retire::{CloseJob, Leftover, RetireJob},
    scrub::{ScrubJob, ScrubOutcome},
    seal::{SealJob, SealOutcome},
    segment::{FIRST_FRAME_POSITION, SegmentHeader, SegmentName},
    snapshot::job::{SnapshotJob, SnapshotOutcome},
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

/// Something for the driver to do.
pub enum Op<D: Disk> {
    /// Write the whole buffer at `position`, in one piece: anything but the full length is an
    /// outcome to report, not to mend.
    Write {
        /// Names the operation in its outcome.
        id: OpId,
        /// Where to.
        file: Arc<D::File>,
        /// What.
        buffer: Arc<DiskBuffer>,
        /// Where in the file.
        position: Position,
    },
    /// `fdatasync`.
    Sync {
        /// Names the operation in its outcome.
        id: OpId,
        /// Of which file.
        file: Arc<D::File>,
    },
    /// Something that blocks: on a thread that may.
    Job {
        /// Names the operation in its outcome.
        id: OpId,
        /// What.
        job: Job<D>,
    },
}

/// How an operation ended.
pub enum OpOutcome<D: Disk> {
    /// A write: how many bytes the kernel took, or why none.
    Write {
        /// Which.
        id: OpId,
        /// What the kernel said.
        result: io::Result<usize>,
    },
    /// A sync.
    Sync {
        /// Which.
        id: OpId,
        /// What the kernel said.
        result: io::Result<()>,
    },
    /// A job.
    Job {
        /// Which.
        id: OpId,
        /// What it gave.
        outcome: JobOutcome<D>,
    },
}

impl<D: Disk> Op<D> {
    /// Its id.
    pub fn id(&self) -> OpId {
        match self {
            Op::Write { id, .. } | Op::Sync { id, .. } | Op::Job { id, .. } => *id,
        }
    }

    /// Does it here and now, blocking.
    pub fn run(self, disk: &D) -> OpOutcome<D> {
        match self {
            Op::Write { id, file, buffer, position } => {
                OpOutcome::Write { id, result: file.write_at(buffer.as_slice(), position) }
            }
            Op::Sync { id, file } => OpOutcome::Sync { id, result: file.sync_data() },
            Op::Job { id, job } => OpOutcome::Job { id, outcome: job.run(disk) },
        }
    }
}

impl<D: Disk> fmt::Debug for Op<D> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::Write { id, buffer, position, .. } => {
                write!(formatter, "Write({id}: {} bytes at {position})", buffer.len())
            }
            Op::Sync { id, .. } => write!(formatter, "Sync({id})"),
            Op::Job { id, job } => write!(formatter, "Job({id}: {})", job.name()),
        }
    }
}

/// Work that blocks. Each is one step of a segment's life.
pub enum Job<D: Disk> {
    /// Zero more of the active segment, ahead of its tail.
    Extend(ExtendJob<D>),
    /// Make the file of the next segment, under a temporary name.
    Prepare(PrepareJob),
    /// Make that file the active segment.
    Roll(RollJob<D>),
    /// Write down how far the log has been synced, outside of its segments.
    Mark(MarkJob),
    /// Write the index of a full segment.
    Seal(SealJob<D>),
    /// Write down how far limits have reached.
    Keep(KeepJob),
    /// Remove a segment whose events are gone.
    Retire(RetireJob<D>),
    /// Remove what could not be removed when it should have been.
    Clear {
        /// The log's directory.
        dir: PathBuf,
        /// What.
        left: Leftover,
    },
    /// Close a segment that is gone. For a thread of its own.
    Close(CloseJob<D>),
    /// Read a part of a sealed segment again. For a thread of its own.
    Scrub(ScrubJob<D>),
    /// Keep some space for the day when there is none, or give it back.
    Reserve(ReserveJob),
    /// Rewrite a sealed segment that needs it. May take seconds: for a thread of its own.
    Compact(Box<CompactJob<D>>),
    /// Write down the state at the end of the sealed part. For a thread of its own.
    Snapshot(Box<SnapshotJob<D>>),
}

/// What a job gave.
pub enum JobOutcome<D: Disk> {
    /// Of [`Job::Extend`].
    Extended {
        /// Up to where the file was to be zeroed.
        to: Position,
        /// Whether it is, durably.
        result: io::Result<()>,
    },
    /// Of [`Job::Prepare`].
    Prepared(io::Result<NewFile<D>>),
    /// Of [`Job::Roll`].
    Rolled {
        /// The file, which has its name now, if all went well.
        next: io::Result<NewFile<D>>,
        /// Its header.
        header: SegmentHeader,
    },
    /// Of [`Job::Mark`].
    Marked {
        /// What was to be written.
        mark: EndMark,
        /// Whether it is, durably.
        result: io::Result<()>,
    },
    /// Of [`Job::Seal`].
    Sealed(Result<SealOutcome<D>, OpenError>),
    /// Of [`Job::Keep`].
    Kept {
        /// What was to be written.
        job: KeepJob,
        /// Whether it is, durably.
        result: io::Result<()>,
    },
    /// Of [`Job::Retire`].
    Retired {
        /// Which segment.
        name: SegmentName,
        /// Whether it is gone, durably.
        result: Result<(), OpenError>,
    },
    /// Of [`Job::Clear`].
    Cleared(Result<(), OpenError>),
    /// Of [`Job::Close`].
    Closed,
    /// Of [`Job::Scrub`].
    Scrubbed(Box<ScrubOutcome<D>>),
    /// Of [`Job::Reserve`].
    Reserved {
        /// Whether it was to be kept, not given back.
        keep: bool,
        /// How that went.
        result: io::Result<()>,
    },
    /// Of [`Job::Compact`].
    Compacted(Result<CompactOutcome<D>, OpenError>),
    /// Of [`Job::Snapshot`]; `None` if it was cancelled.
    Snapshot(Result<Option<SnapshotOutcome>, OpenError>),
}

impl<D: Disk> Job<D> {
    /// Does it, blocking.
    pub fn run(self, disk: &D) -> JobOutcome<D> {
        match self {
            Job::Extend(job) => JobOutcome::Extended { to: job.to, result: job.run() },
            Job::Prepare(job) => JobOutcome::Prepared(job.run(disk)),
            Job::Roll(job) => {
                let header = job.header.clone();
                JobOutcome::Rolled { next: job.run(disk), header }
            }
            Job::Mark(job) => JobOutcome::Marked { mark: job.mark, result: job.run(disk) },
            Job::Seal(job) => JobOutcome::Sealed(job.run(disk)),
            Job::Clear { dir, left } => JobOutcome::Cleared(left.clear(disk, &dir)),
            Job::Close(job) => {
                job.run();
                JobOutcome::Closed
            }
            Job::Scrub(job) => JobOutcome::Scrubbed(Box::new(job.run(disk))),
            Job::Reserve(job) => JobOutcome::Reserved { keep: job.keep, result: job.run(disk) },
            Job::Compact(job) => JobOutcome::Compacted(job.run(disk)),
            Job::Snapshot(job) => JobOutcome::Snapshot(job.run(disk)),
            Job::Keep(job) => {
                let result = job.run(disk);
                JobOutcome::Kept { job, result }
            }
            Job::Retire(job) => {
                JobOutcome::Retired { name: job.segment.name(), result: job.run(disk) }
            }
        }
    }

    /// Whether it may take long, and nothing waits for it.
    pub fn is_background(&self) -> bool {
        matches!(self, Job::Compact(_) | Job::Close(_) | Job::Scrub(_) | Job::Snapshot(_))
    }

    /// Its name, for diagnostics.
    pub fn name(&self) -> &'static str {
        match self {
            Job::Extend(_) => "extend",
            Job::Prepare(_) => "prepare",
            Job::Roll(_) => "roll",
            Job::Mark(_) => "mark",
            Job::Seal(_) => "seal",
            Job::Keep(_) => "keep",
            Job::Retire(_) => "retire",
            Job::Clear { .. } => "clear",
            Job::Close(_) => "close",
            Job::Scrub(_) => "scrub",
            Job::Reserve(_) => "reserve",
            Job::Compact(_) => "compact",
            Job::Snapshot(_) => "snapshot",
        }
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
}

impl Headway {
    /// Of an extension that begins while there are still `left_bytes`.
    pub(crate) fn begin(left_bytes: u64) -> Self {
        let (left, is_urgent) = (AtomicU64::new(left_bytes), AtomicBool::new(false));
        Headway { began_bytes: left_bytes, left_bytes: left, is_urgent }
    }

    /// So much is left by now.
    pub(crate) fn note_left(&self, left_bytes: u64) {
        self.left_bytes.store(left_bytes, Ordering::Relaxed);
    }

    /// From now on there is no time for rests.
    pub(crate) fn hurry(&self) {
        self.is_urgent.store(true, Ordering::Relaxed);
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

/// See [`Job::Extend`].
pub struct ExtendJob<D: Disk> {
    pub(crate) file: Arc<D::File>,
    pub(crate) from: Position,
    pub(crate) to: Position,
    pub(crate) headway: Arc<Headway>,
}

impl<D: Disk> ExtendJob<D> {
    /// Writes zeroes and syncs: when frames are written there, nothing but data changes on the disk.
    fn run(self) -> io::Result<()> {
        // A write that lengthens the file keeps the commits off it until it is done: they are all asked for
        // again, by threads of the kernel's that have to be woken (30 to 100 us, one of 35 commits).
        self.file.allocate(self.from, self.to);
        let all_bytes = self.to.get().saturating_sub(self.from.get());
        write_zeroes(&*self.file, self.from, self.to, |done_bytes| {
            if self.headway.has_time(done_bytes, all_bytes) {
                thread::sleep(ZEROING_REST);
            }
        })?;
        // A write that finds the disk full can be tried again. A sync cannot, whatever it failed
        // for: frames may have been among what it lost.
        self.file.sync_data().map_err(|error| io::Error::other(format!("sync: {error}")))
    }
}

/// Calls `rest` between two pieces, with how many bytes are done.
pub(crate) fn write_zeroes(
    file: &impl DiskFile,
    from: Position,
    to: Position,
    rest: impl Fn(u64),
) -> io::Result<()> {
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
        if left > 0 {
            rest(position.get() - from.get());
        }
    }
    Ok(())
}

/// See [`Job::Prepare`].
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
        write_zeroes(&*zeroing, Position::default(), self.to, |_| {})?;
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
    write_zeroes(&zeroing, Position::default(), FIRST_FRAME_POSITION, |_| {})?;
    let file = disk.open(path, Access::DirectSync)?;
    Ok([Arc::new(zeroing), Arc::new(file)])
}

pub(crate) fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
}

/// See [`Job::Roll`].
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
