//! The two files of a segment that is written anew: by compaction, a repair, a restore.
//!
//! ```text
//! 1  <name>.log.tmp                written whole, and synced; renamed to <name>.log
//! 2  <name>.idx.tmp -> <name>.idx  the same
//! 3  the directory synced          from here on it is the segment
//! ```
//! What is not finished takes no space: it is removed when it is dropped, and a start removes temporary files.

use std::{
    io, mem,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    buffer::{ALIGN_BYTES, DiskBuffer},
    error::OpenError,
    io::{
        Access, Disk, DiskFile,
        in_flight::{Errand, InFlight},
    },
    mutation::{self, Mutation},
    offset::Position,
    pace::{Pace, PacedFile},
    parts::Parts,
    seal::{self, TEMPORARY_ENDING},
    segment::{SegmentHeader, SegmentName},
};

/// So much is written at once: a frame alone may be a few KiB.
const WRITE_BYTES: usize = 256 << 10;

/// What is written while more is gathered.
struct Behind {
    in_flight: Box<dyn InFlight>,
    /// Where, if anything is.
    at: Option<Position>,
    /// What is gathered into next.
    spare: DiskBuffer,
}

impl Behind {
    fn new(in_flight: Box<dyn InFlight>) -> Self {
        Behind { in_flight, at: None, spare: DiskBuffer::with_capacity(WRITE_BYTES) }
    }

    /// Waits until that has ended. What a short write has left, or one that failed, is written as
    /// [`DiskFile::write_all_at`] does it, which says why if it cannot be.
    fn finish(&mut self, file: &impl DiskFile) -> io::Result<()> {
        let Some(at) = self.at.take() else { return Ok(()) };
        let lost = || io::Error::other("nobody knows what has become of a write");
        let (mut buffer, written) = self.in_flight.wait().ok_or_else(lost)?;
        let written = written.unwrap_or(0);
        let whole = written - written % ALIGN_BYTES;
        if written < buffer.len() {
            file.write_all_at(&buffer.as_slice()[whole..], at.plus(whole as u64))?;
        }
        buffer.clear();
        self.spare = buffer;
        Ok(())
    }
}

/// The log file of a segment, under a temporary name.
pub(crate) struct NewSegment<D: Disk> {
    disk: D,
    dir: PathBuf,
    name: SegmentName,
    temporary: PathBuf,
    pace: Pace,
    behind: Option<Behind>,
    file: PacedFile<D::File>,
    /// What is still to be written, and where.
    gathered: DiskBuffer,
    gathered_at: Position,
    is_named: bool,
}

impl<D: Disk> Drop for NewSegment<D> {
    fn drop(&mut self) {
        if !self.is_named {
            let _ = self.disk.remove(&self.temporary);
        }
    }
}

impl<D: Disk> NewSegment<D> {
    /// Begins a segment in `dir` with its header. `is_direct`: past the page cache where that is possible, so
    /// that what is written pushes nothing out, and no sync of a frame waits for it; everything that is
    /// written then is aligned as [`Access::Direct`] says. It is written at this `pace`.
    pub(crate) fn create(
        disk: &D,
        dir: &Path,
        name: SegmentName,
        header: &SegmentHeader,
        is_direct: bool,
        pace: Pace,
    ) -> Result<Self, OpenError> {
        assert_eq!(name.base_offset, header.base_offset, "a segment is named by its base");
        let temporary = dir.join(format!("{}{TEMPORARY_ENDING}", name.log_file_name()));
        disk.remove_if_there(&temporary).map_err(OpenError::io("removing", &temporary))?;
        let created = disk
            .create(&temporary, Access::Write)
            .map_err(OpenError::io("creating", &temporary))?;
        let mut block = DiskBuffer::default();
        block.extend_from_slice(&header.encode());
        let start = Position::default();
        let file = match is_direct.then(|| disk.open(&temporary, Access::Direct)) {
            Some(Ok(direct)) if direct.write_at(block.as_slice(), start).is_ok() => direct,
            _ => created,
        };
        let file = PacedFile::new(Arc::new(file), pace.clone());
        let (disk, dir) = (disk.clone(), dir.to_owned());
        let gathered_at = start.plus(block.len() as u64);
        let gathered = DiskBuffer::with_capacity(WRITE_BYTES);
        let behind = file.in_flight(Errand::Write).map(Behind::new);
        let new = NewSegment {
            disk,
            dir,
            name,
            temporary,
            pace,
            behind,
            file,
            gathered,
            gathered_at,
            is_named: false,
        };
        new.file
            .write_all_at(block.as_slice(), start)
            .map_err(OpenError::io("writing", &new.temporary))?;
        Ok(new)
    }

    /// What it is called until it is finished.
    pub(crate) fn path(&self) -> &Path {
        &self.temporary
    }

    /// Writes all of `bytes` behind what was written before, with the next [`NewSegment::sync`] at the latest.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), OpenError> {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    /// Makes durable what was written.
    pub(crate) fn sync(&mut self) -> Result<(), OpenError> {
        self.flush()?;
        if !mutation::is_planted(Mutation::RewriteNotAwaited) {
            self.await_written()?;
        }
        self.file.sync_data().map_err(OpenError::io("syncing", &self.temporary))
    }

    /// Writes what is gathered. While nobody appends it begins to, and more is gathered meanwhile.
    fn flush(&mut self) -> Result<(), OpenError> {
        self.await_written()?;
        let at = self.gathered_at;
        self.gathered_at = at.plus(self.gathered.len() as u64);
        if let Some(behind) = &mut self.behind
            && behind.in_flight.is_usable()
            && !self.gathered.is_empty()
            && !self.file.is_beside_appends()
        {
            let gathered = mem::replace(&mut self.gathered, mem::take(&mut behind.spare));
            behind.at = Some(at);
            behind.in_flight.begin(gathered, at);
            return Ok(());
        }
        self.file
            .write_all_at(self.gathered.as_slice(), at)
            .map_err(OpenError::io("writing", &self.temporary))?;
        self.gathered.clear();
        Ok(())
    }

    /// Waits until what was begun to be written has been.
    fn await_written(&mut self) -> Result<(), OpenError> {
        let Some(behind) = &mut self.behind else { return Ok(()) };
        let written = behind.finish(&self.file);
        written.map_err(OpenError::io("writing", &self.temporary))
    }

    /// Makes it the segment, durably, with its index.
    pub(crate) fn finish(self, index: Parts<'_>) -> Result<(), OpenError> {
        self.finish_if(index, || true).map(|_| ())
    }

    /// The same if, with all of it written, it `is_wanted` still; whether it was.
    pub(crate) fn finish_if(
        mut self,
        index: Parts<'_>,
        is_wanted: impl FnOnce() -> bool,
    ) -> Result<bool, OpenError> {
        self.sync()?;
        let NewSegment { disk, dir, name, .. } = &self;
        seal::write_index_aside(disk, dir, *name, index, self.pace.clone())?;
        if !is_wanted() {
            seal::forget_index(disk, dir, *name);
            return Ok(false);
        }
        let path = dir.join(name.log_file_name());
        if let Err(error) = disk.rename(&self.temporary, &path) {
            seal::forget_index(disk, dir, *name);
            return Err(OpenError::io("renaming", &self.temporary)(error));
        }
        self.is_named = true;
        let NewSegment { disk, dir, name, .. } = &self;
        if let Err(error) = seal::name_index(disk, dir, *name) {
            // Without its index it counts for nothing, and would keep the space that was missing.
            let _ = disk.remove(&path);
            return Err(error);
        }
        disk.sync_dir(dir).map_err(OpenError::io("syncing the directory", dir))?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::SyncMode,
        io::{
            real::RealDisk,
            sim::{SimDisk, rng::SimRng},
            uring::check_available,
        },
        offset::Offset,
        pace::FramesBegun,
        segment::{Incarnation, SEGMENT_VERSION, Tag},
    };

    fn header() -> SegmentHeader {
        SegmentHeader {
            version: SEGMENT_VERSION,
            base_offset: Offset::ZERO,
            created_at_ms: 1,
            incarnation: Incarnation::new([7; 16]),
            tag: Tag::parse("test1").expect("a tag"),
            sync: SyncMode::Commit,
        }
    }

    /// A limit that is looser may come while all of it is being written: the last look is when nothing has its name.
    #[test]
    fn what_is_not_wanted_any_more_gets_no_name_and_leaves_nothing() {
        let (disk, dir) = (SimDisk::new(1), Path::new("/log"));
        disk.create_dir(dir).expect("an empty disk");
        let header = header();
        let name = SegmentName::first_generation(Offset::ZERO);
        let index = || Parts::from(vec![1; 100]);
        let names = || {
            let mut names = disk.list(dir).expect("a directory");
            names.sort_unstable();
            names
        };
        for is_wanted in [false, true] {
            let new = NewSegment::create(&disk, dir, name, &header, true, Pace::alone());
            let mut is_written = false;
            let finished = new.expect("space").finish_if(index(), || {
                is_written = names().iter().all(|name| name.ends_with(TEMPORARY_ENDING));
                is_wanted
            });
            assert_eq!((finished.expect("a disk that works"), is_written), (is_wanted, true));
            let named = [name.index_file_name(), name.log_file_name()];
            assert_eq!(names(), if is_wanted { &named[..] } else { &[] });
        }
    }

    /// Some of it is in flight when the power goes, or the process ends, and lands then or never does.
    #[test]
    fn what_has_its_name_is_whole_whatever_operation_is_the_last() {
        let (dir, header) = (Path::new("/log"), header());
        let name = SegmentName::first_generation(Offset::ZERO);
        let mut rng = SimRng::new(1);
        let pieces = [rng.bytes(WRITE_BYTES), rng.bytes(WRITE_BYTES), rng.bytes(5 * ALIGN_BYTES)];
        let mut whole = header.encode().to_vec();
        whole.resize(whole.len().next_multiple_of(ALIGN_BYTES), 0);
        whole.extend(pieces.concat());
        let write = |disk: &SimDisk| {
            let mut new = NewSegment::create(disk, dir, name, &header, true, Pace::alone())?;
            for piece in &pieces {
                new.write(piece)?;
            }
            new.finish(Parts::from(vec![1; 100]))
        };
        let mut named = 0;
        for last in 1.. {
            let disk = SimDisk::new(last);
            disk.create_dir(dir).expect("an empty disk");
            disk.crash_after(Some(last));
            let written = write(&disk);
            let cut = disk.fork(last).power_cut();
            let killed = disk.kill();
            while killed.late_writes() > 0 {
                killed.land_late(0);
            }
            for left in [cut, killed] {
                if let Some(found) = left.bytes(&dir.join(name.log_file_name())) {
                    assert!(found == whole, "operation {last}");
                    named += 1;
                }
            }
            if written.is_ok() {
                break;
            }
        }
        assert!(named > 4);
    }

    /// Beside somebody who appends a piece is written at once, else while the next is gathered.
    #[test]
    fn whether_it_is_written_at_once_or_meanwhile_it_is_the_same() {
        let dir = std::env::temp_dir().join(format!("strandline-behind-{}", std::process::id()));
        RealDisk.create_dir(&dir).expect("a directory for the test");
        let header = header();
        let name = SegmentName::first_generation(Offset::ZERO);
        let mut rng = SimRng::new(1);
        let pieces: Vec<_> = (1..40).map(|blocks| rng.bytes(blocks * ALIGN_BYTES)).collect();
        let frames = FramesBegun::default();
        for (is_direct, is_beside) in [(true, false), (true, true), (false, false)] {
            let pace = Pace::beside(&frames, false);
            let mut new =
                NewSegment::create(&RealDisk, &dir, name, &header, is_direct, pace).expect("space");
            let (mut was_meanwhile, mut expected) = (false, header.encode().to_vec());
            expected.resize(expected.len().next_multiple_of(ALIGN_BYTES), 0);
            for (at, piece) in pieces.iter().enumerate() {
                if is_beside {
                    frames.add_one();
                }
                new.write(piece).expect("space");
                expected.extend_from_slice(piece);
                was_meanwhile |= new.behind.as_ref().is_some_and(|behind| behind.at.is_some());
                if at % 7 == 0 {
                    new.sync().expect("a good disk");
                }
            }
            let has_ring = check_available().is_ok();
            assert_eq!(was_meanwhile, has_ring && !is_beside);
            new.finish(Parts::from(vec![1; 100])).expect("a good disk");
            let written = std::fs::read(dir.join(name.log_file_name())).expect("the segment");
            assert!(written == expected, "direct: {is_direct}, beside appends: {is_beside}");
        }
        std::fs::remove_dir_all(&dir).expect("cleaned up");
    }

    /// As where it was interrupted, or the kernel's memory was short just then.
    #[test]
    fn what_a_ring_has_not_written_is_written_otherwise() {
        let path = std::env::temp_dir().join(format!("strandline-other-{}", std::process::id()));
        let file = RealDisk.create(&path, Access::Write).expect("a free name");
        let other = Arc::new(RealDisk.open(&path, Access::Read).expect("it is there"));
        std::fs::remove_file(&path).expect("it was there");
        // The kernel refuses to write to what was opened for reading.
        let Some(in_flight) = other.in_flight(Errand::Write) else {
            eprintln!("skipped: no io_uring here");
            return;
        };
        let mut behind = Behind::new(in_flight);
        let mut buffer = DiskBuffer::default();
        buffer.extend_from_slice(&[7; ALIGN_BYTES]);
        let at = Position::new(ALIGN_BYTES as u64);
        behind.at = Some(at);
        behind.in_flight.begin(buffer, at);
        behind.finish(&file).expect("there is space");
        let mut bytes = [0; ALIGN_BYTES];
        file.read_exact_at(&mut bytes, at).expect("it was written");
        assert_eq!(bytes, [7; ALIGN_BYTES]);
        assert!(behind.spare.is_empty() && behind.at.is_none());
    }
}
