//! A segment whose events are all gone is removed: its index becomes a stub, then its log file goes.
//!
//! In this order, with the directory synced in between: a log file that is missing is always explained. Once the stub
//! has its name the next start takes the segment for gone, so it is gone for this process too, whatever fails behind
//! that: what stays ([`Leftover`]) is removed later.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{
    error::{Corruption, OpenError},
    index::{
        IndexError,
        stub::{Sections, StubLimits, stub_of},
    },
    io::{Disk, DiskFile, is_unreadable},
    offset::Position,
    pace::Pace,
    seal,
    segment::SegmentName,
    segment_set::SealedSegment,
    stored_producers::taken_over,
};

/// Between two steps of giving a file back the disk has so long for others.
const GIVE_BACK_REST: Duration = Duration::from_millis(2);

/// See [`crate::op::Job::Retire`].
pub struct RetireJob<D: Disk> {
    pub(crate) dir: PathBuf,
    pub(crate) segment: Arc<SealedSegment<D>>,
    pub(crate) limits: StubLimits,
}

impl<D: Disk> RetireJob<D> {
    /// Removes the segment. Readers that have it open go on.
    pub(crate) fn run(&self, disk: &D) -> Result<(), OpenError> {
        let put = || self.put_stub_if(disk, || true);
        let left = match put() {
            // A read may fail, or bring a wrong bit, and the next one be right: what is called damaged stays until a scrub.
            Err(OpenError::Corrupt(_)) => put(),
            done => done,
        };
        let left = left?.expect("it is wanted");
        left.clear(disk, &self.dir)
    }

    /// Makes the next start take the segment for gone, if that `is_wanted` still once its stub is written; `None` if it was
    /// not. What of it stays is still to be removed.
    pub(crate) fn put_stub_if(
        &self,
        disk: &D,
        is_wanted: impl FnOnce() -> bool,
    ) -> Result<Option<Leftover>, OpenError> {
        let name = self.segment.name();
        // A newer generation, be it what a rewrite could not take back, would count, and not the stub. (Should a
        // power cut keep the stub and lose the removal, what comes back is what was there a moment before.)
        if let Some(next) = name.next_generation() {
            Leftover::Rewrite(next).remove(disk, &self.dir)?;
        }
        write_stub(disk, &self.dir, &self.segment, &self.limits)?;
        if !is_wanted() {
            seal::forget_index(disk, &self.dir, name);
            return Ok(None);
        }
        seal::name_index(disk, &self.dir, name)?;
        Ok(Some(Leftover::Stubbed(name)))
    }
}

/// See [`crate::op::Job::Clear`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// The log file of a segment whose index is a stub, which may not be durable yet.
    Stubbed(SegmentName),
    /// A generation, whole or not, which does not count: the one before it is the segment.
    Rewrite(SegmentName),
}

impl Leftover {
    /// Removes it, durably.
    pub(crate) fn clear<D: Disk>(self, disk: &D, dir: &Path) -> Result<(), OpenError> {
        let sync = || disk.sync_dir(dir).map_err(OpenError::io("syncing the directory", dir));
        if matches!(self, Leftover::Stubbed(_)) {
            sync()?;
        }
        self.remove(disk, dir)?;
        sync()
    }

    fn remove<D: Disk>(self, disk: &D, dir: &Path) -> Result<(), OpenError> {
        if let Leftover::Rewrite(name) = self {
            // Without its index it counts for nothing, here and for who looks at the names beside this process.
            remove(disk, &dir.join(name.index_file_name()))?;
        }
        let (Leftover::Stubbed(name) | Leftover::Rewrite(name)) = self;
        remove(disk, &dir.join(name.log_file_name()))
    }
}

/// See [`crate::op::Job::Close`].
pub struct CloseJob<D: Disk> {
    pub(crate) segment: Arc<SealedSegment<D>>,
    /// The disk is full: others wait for its space, and not for the disk.
    pub(crate) is_urgent: bool,
    /// The log ends: what is left is given back all at once, when the files are closed.
    pub(crate) is_cancelled: Arc<AtomicBool>,
}

impl<D: Disk> CloseJob<D> {
    /// Closes a segment whose files have no name any more. Who closes such a file last gives its blocks
    /// and its pages back: 256 MiB take a shard 45 ms, measured, and here nobody waits.
    pub(crate) fn run(self) {
        let rest = if self.is_urgent { Duration::ZERO } else { GIVE_BACK_REST };
        self.run_with(|| thread::sleep(rest));
    }

    /// The same with a rest of any kind.
    pub(crate) fn run_with(self, mut rest: impl FnMut()) {
        let goes_on = || !self.is_cancelled.load(Ordering::Relaxed);
        if goes_on() {
            self.segment.log_file().give_back(&mut || {
                if goes_on() {
                    rest();
                }
                goes_on()
            });
        }
    }
}

/// Removes a file that may be gone already: a removal that was cut short is tried again.
pub(crate) fn remove<D: Disk>(disk: &D, path: &Path) -> Result<(), OpenError> {
    disk.remove_if_there(path).map_err(OpenError::io("removing", path))
}

/// Writes what is to take the place of a segment's index: aside, durably.
fn write_stub<D: Disk>(
    disk: &D,
    dir: &Path,
    segment: &SealedSegment<D>,
    limits: &StubLimits,
) -> Result<(), OpenError> {
    let name = segment.name();
    let path = dir.join(name.index_file_name());
    let (file, index) = (segment.index_file(), segment.index());
    let header = index.header();
    let corrupt = |error: IndexError| {
        let what = error.to_string();
        OpenError::Corrupt(Corruption { file: path.clone(), position: Position::default(), what })
    };
    // What the disk does not give back is never made a stub of: as damage it keeps no other segment. Should it be lost
    // between the two readings of PRODUCERS, that comes out as a failed writing, and the next try finds it in the first.
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => corrupt(IndexError::Content { what: "index length" }),
        _ if is_unreadable(&error) => {
            let (file, position) = (path.clone(), Position::default());
            OpenError::Corrupt(Corruption { file, position, what: error.to_string() })
        }
        _ => OpenError::io("reading", &path)(error),
    };
    let sections = Sections::read(|kind| {
        let section = header.section(kind);
        let mut content = vec![0; usize::try_from(section.bytes).expect("it fits in memory")];
        file.read_exact_at(&mut content, section.position).map_err(failed)?;
        header.checked(kind, content).map_err(corrupt)
    })?;
    let producers = taken_over(file, header, limits.producers_since_s, header.seed());
    let producers = producers.map_err(failed)?.map_err(corrupt)?;
    let stub = stub_of(index, sections, producers, limits).map_err(corrupt)?;
    seal::write_index_aside(disk, dir, name, stub, Pace::alone())
}
