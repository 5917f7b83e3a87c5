//! What a log asks of its driver: operations that wait for the disk.
//!
//! ```text
//!   Log::next_op() -> Op -> the driver: io_uring on the shard, the disk thread, a simulation
//!   Log::complete() <- OpOutcome <-+
//! ```
//! A write or sync is handed out once, and its outcome is reported once, whatever it was. Operations
//! may complete in any order. Whoever gives up on a log drains what is under way first: the kernel
//! may still write from a frame's memory.

use std::{fmt, io, path::PathBuf, sync::Arc};

use crate::{
    active_file::{ExtendJob, Fill, NewFile, PrepareJob, RollJob},
    buffer::DiskBuffer,
    compact::{CompactJob, CompactOutcome},
    earliest::KeepJob,
    end_mark::{MarkJob, MarkWritten},
    error::OpenError,
    group_commit::OpId,
    io::{Disk, DiskFile},
    offset::Position,
    reserve::ReserveJob,
    retire::{CloseJob, Leftover, RetireJob},
    scrub::{ScrubJob, ScrubOutcome},
    seal::{SealJob, SealOutcome},
    segment::{SegmentHeader, SegmentName},
    snapshot::job::{SnapshotJob, SnapshotOutcome},
};

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

/// Which thread does a job. None waits behind what another does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobThread {
    /// What appends may wait for: filling, names, directories; and seals that are behind.
    Prompt,
    /// What has to keep up with appends: of a million topics it takes tenths of a second, in which there have to be
    /// more room for frames. And what frees a full disk, beside which indexes are made by the first: what appends wait
    /// for is not to depend on what others leave of the cores.
    Seal,
    /// What may take minutes.
    Background,
    /// What mostly rests.
    Close,
}

/// Work that blocks. Each is one step of a segment's life.
pub enum Job<D: Disk> {
    /// Fill more of the active segment, ahead of its tail.
    Extend(ExtendJob<D>),
    /// Make the file of the next segment, under a temporary name.
    Prepare(PrepareJob),
    /// Make that file the active segment.
    Roll(RollJob<D>),
    /// Write down how far the log has been synced, outside of its segments.
    Mark(MarkJob),
    /// Write the index of a full segment. For a thread of its own, unless it is urgent.
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
    ///
    /// Up to where the file is filled now, durably, and what the new part is filled with.
    Extended(io::Result<(Position, Fill)>),
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
        job: MarkJob,
        /// Whether it is, durably, and what of it.
        result: io::Result<MarkWritten>,
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
        /// What was to be done.
        job: ReserveJob,
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
            Job::Extend(job) => JobOutcome::Extended(job.run(disk)),
            Job::Prepare(job) => JobOutcome::Prepared(job.run(disk)),
            Job::Roll(job) => {
                let header = job.header.clone();
                JobOutcome::Rolled { next: job.run(disk), header }
            }
            Job::Mark(job) => JobOutcome::Marked { result: job.run(disk), job },
            Job::Seal(job) => JobOutcome::Sealed(job.run(disk)),
            Job::Clear { dir, left } => JobOutcome::Cleared(left.clear(disk, &dir)),
            Job::Close(job) => {
                job.run();
                JobOutcome::Closed
            }
            Job::Scrub(job) => JobOutcome::Scrubbed(Box::new(job.run(disk))),
            Job::Reserve(job) => JobOutcome::Reserved { result: job.run(disk), job },
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

    /// Which thread it is for.
    pub fn thread(&self) -> JobThread {
        match self {
            // It is not to depend on what others leave of the cores.
            Job::Seal(job) if job.is_urgent() => JobThread::Prompt,
            Job::Seal(_) => JobThread::Seal,
            Job::Compact(job) if job.is_disk_full => JobThread::Seal,
            Job::Close(job) if job.is_urgent => JobThread::Seal,
            Job::Compact(_) | Job::Scrub(_) | Job::Snapshot(_) => JobThread::Background,
            Job::Close(_) => JobThread::Close,
            _ => JobThread::Prompt,
        }
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
