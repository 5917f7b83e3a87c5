//! What does the log's operations: the ring, or threads that may block.

use std::{io, rc::Rc, time::Instant};

use strandline_storage::{
    io::{real::RealDisk, thread::DiskThread, uring::UringFiles},
    log::{Job, JobThread, Op, OpOutcome},
};

use super::Owner;
use crate::runtime::{Driver, run_behind_others, run_when_idle};

/// What does the log's operations.
pub(super) struct Hands {
    pub(super) driver: Driver,
    pub(super) disk: RealDisk,
    pub(super) files: Rc<UringFiles>,
    /// Zeroing, rolling.
    pub(super) jobs: DiskThread,
    /// Making indexes; on a full disk what frees it instead.
    sealing: DiskThread,
    /// Rewriting segments.
    background: DiskThread,
    /// Giving back what they took: mostly rests.
    closing: DiskThread,
    /// Writes and syncs, where there is no io_uring: none of them waits behind a job.
    commits: Option<DiskThread>,
}

impl Hands {
    pub(super) fn new(driver: Driver, disk: RealDisk, files: Rc<UringFiles>) -> io::Result<Hands> {
        let commits = match driver {
            Driver::IoUring => None,
            Driver::Epoll => Some(DiskThread::start("commits")?),
        };
        let jobs = DiskThread::start("disk")?;
        let sealing = DiskThread::start("sealing")?;
        sealing.run(run_behind_others, |()| {});
        let background = DiskThread::start("background")?;
        let closing = DiskThread::start("closing")?;
        for thread in [&background, &closing] {
            thread.run(run_when_idle, |()| {});
        }
        Ok(Hands { driver, disk, files, jobs, sealing, background, closing, commits })
    }
}

/// A write or sync that began at a time. What fails is not counted: it ends the log.
pub(super) struct Timed {
    since: Instant,
    owner: Rc<Owner>,
}

impl Timed {
    fn write(self, result: io::Result<usize>) -> io::Result<usize> {
        if let Ok(bytes) = result {
            let took = self.since.elapsed();
            self.owner.write_took.set(took);
            self.owner.shared.metrics().write_time.add(took);
            self.owner.shared.metrics().written_bytes.add(bytes as u64);
        }
        result
    }

    fn sync(self, result: io::Result<()>) -> io::Result<()> {
        if result.is_ok() {
            self.owner.shared.metrics().sync_time.add(self.since.elapsed());
        }
        result
    }
}

impl Owner {
    fn time(self: &Rc<Self>) -> Timed {
        Timed { since: Instant::now(), owner: self.clone() }
    }

    /// Starts an operation as a task that nobody can drop.
    pub(super) fn start(self: &Rc<Self>, operation: Op<RealDisk>) {
        let Hands { driver, disk, files, jobs, sealing, background, closing, commits } =
            &self.hands;
        match operation {
            Op::Write { id, file, buffer, position } if *driver == Driver::IoUring => {
                let (timed, write) = (self.time(), files.write(&file, buffer, position));
                self.complete_with(async move {
                    let result = write.await;
                    OpOutcome::Write { id, result: timed.write(result) }
                });
            }
            Op::Sync { id, file } if *driver == Driver::IoUring => {
                let (timed, sync) = (self.time(), files.sync(&file));
                self.complete_with(async move {
                    let result = sync.await;
                    OpOutcome::Sync { id, result: timed.sync(result) }
                });
            }
            operation => {
                let (job_thread, is_close) = match &operation {
                    Op::Job { job, .. } => (Some(job.thread()), matches!(job, Job::Close(_))),
                    _ => (None, false),
                };
                let thread = match job_thread {
                    Some(JobThread::Prompt) => jobs,
                    Some(JobThread::Seal) => sealing,
                    Some(JobThread::Background) => background,
                    Some(JobThread::Close) => closing,
                    None => commits.as_ref().unwrap_or(jobs),
                };
                let (disk, timed) = (*disk, self.time());
                let run = thread.call(move || operation.run(&disk));
                let owner = self.clone();
                self.complete_with(async move {
                    let outcome = run.await;
                    if is_close {
                        owner.tell_segment_closed();
                    }
                    match outcome {
                        OpOutcome::Write { id, result } => {
                            OpOutcome::Write { id, result: timed.write(result) }
                        }
                        OpOutcome::Sync { id, result } => {
                            OpOutcome::Sync { id, result: timed.sync(result) }
                        }
                        job => job,
                    }
                });
            }
        }
    }
}
