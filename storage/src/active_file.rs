//! The file that frames are written to, from its making to its end: ahead of the tail there are always some blocks
//! that read as zeroes, so that a commit changes no length of the file and meets no full disk.
//!
//! ```text
//! prepare   next.log.tmp made, filled, synced; opened for filling and, apart, for frames
//! roll      its header written and synced; then it gets its name, and the directory is synced
//! extend    filled further: with zeroes, 256 KiB at a time, with rests as long as nobody waits for them, most of
//!           them while the log rests, as long as it does; or with blocks alone, all at once
//! ```
//!
//! With which of the two is chosen elsewhere (log/filling.rs). Over zeroes a commit changes nothing but data. Into
//! blocks alone it also changes which of them count as written, and `O_DSYNC` covers that: without it the data could
//! not be read back, so the write does not return before it is on the device. A frame that was acknowledged is as
//! durable there.

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
    io::{Access, Disk, DiskFile, is_full},
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

/// What lies ahead of the tail. It reads as zeroes either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Zeroes that were written.
    Zeroes,
    /// Blocks that nothing was written to.
    Blocks,
}

/// A segment file that frames can be written to.
pub struct NewFile<D: Disk> {
    /// For frames: `DirectSync`, or buffered.
    pub file: Arc<D::File>,
    /// For filling and the header: `Direct`, or buffered. Always opened for itself: the kernel tells
    /// a failed write-back once for each open file, so of two syncs of the same one that run side by
    /// side only the first would fail, and the other would vouch for frames that were lost.
    pub zeroing: Arc<D::File>,
    /// How frames go into `file`.
    pub mode: WriteMode,
    /// Up to here the file has blocks and reads as zeroes, and both its size and its blocks are durable.
    pub prepared: Position,
    /// What it was made with, up to there; later steps may differ.
    pub fill: Fill,
}

impl<D: Disk> Clone for NewFile<D> {
    fn clone(&self) -> Self {
        let NewFile { file, zeroing, mode, prepared, fill } = self;
        NewFile {
            file: Arc::clone(file),
            zeroing: Arc::clone(zeroing),
            mode: *mode,
            prepared: *prepared,
            fill: *fill,
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
    /// With what, if the file system can.
    pub(crate) fill: Fill,
    pub(crate) headway: Arc<Headway>,
    /// Nothing is done where the disk of that directory has less than so many bytes left.
    pub(crate) free_bytes_min: Option<(PathBuf, u64)>,
}

impl<D: Disk> ExtendJob<D> {
    /// Fills the file further, and syncs it. Returns how far it is filled now, which is `from` where the disk has
    /// too little space for that, and with what.
    pub(crate) fn run(self, disk: &D) -> io::Result<(Position, Fill)> {
        if let Some((dir, bytes_min)) = &self.free_bytes_min
            && disk.space(dir).map_or(true, |space| space.free_bytes < *bytes_min)
        {
            return Ok((self.from, self.fill));
        }
        // Before zeroes too: a write that lengthens the file keeps the commits off it until it is done. They are
        // all asked for again, by threads of the kernel's that have to be woken (30 to 100 us, one of 35 commits).
        let allocated = allocate(&*self.file, self.from, self.to);
        let (end, fill) = match self.fill {
            Fill::Blocks if allocated? => (self.to, Fill::Blocks),
            // That the disk is full is met again by the writes.
            Fill::Blocks | Fill::Zeroes => (self.write_zeroes()?, Fill::Zeroes),
        };
        // Frames may be among what it loses.
        self.file.sync_data().map_err(sync_failed)?;
        Ok((end, fill))
    }

    fn write_zeroes(&self) -> io::Result<Position> {
        let all_bytes = self.to.get().saturating_sub(self.from.get());
        write_zeroes(&*self.file, self.from, self.to, |done_bytes| {
            if self.headway.is_enough() {
                return false;
            }
            if self.headway.has_time(done_bytes, all_bytes) {
                thread::sleep(ZEROING_REST);
            }
            true
        })
    }
}

/// Whether the file has blocks there now. A full disk says so; whatever else is wrong with blocks alone (a file system of
/// somebody's that passes an error of its own on, a sandbox that forbids the call) is no reason not to write zeroes,
/// which meet what is wrong with the disk.
pub(crate) fn allocate(file: &impl DiskFile, from: Position, to: Position) -> io::Result<bool> {
    match file.allocate(from, to) {
        Err(error) if !is_full(&error) => Ok(false),
        allocated => allocated,
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
    /// With what, if frames are written directly and the file system can.
    pub(crate) fill: Fill,
}

impl PrepareJob {
    /// Makes the file, fills it up to `to`, and syncs it. In the header's place there are zeroes in any case, from
    /// which a missing header is told. What could not be made whole takes no space.
    pub(crate) fn run<D: Disk>(self, disk: &D) -> io::Result<NewFile<D>> {
        let made = self.make(disk);
        if made.is_err() {
            let _ = disk.remove(&self.path);
        }
        made
    }

    fn make<D: Disk>(&self, disk: &D) -> io::Result<NewFile<D>> {
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
        let is_allocated = mode == WriteMode::Direct
            && self.fill == Fill::Blocks
            && allocate(&*zeroing, FIRST_FRAME_POSITION, self.to)?;
        let fill = match is_allocated {
            true => Fill::Blocks,
            false => {
                write_zeroes(&*zeroing, Position::default(), self.to, |_| true)?;
                Fill::Zeroes
            }
        };
        zeroing.sync_data()?;
        Ok(NewFile { file, zeroing, mode, prepared: self.to, fill })
    }

    fn create<D: Disk>(&self, disk: &D) -> io::Result<D::File> {
        disk.remove_if_there(&self.path)?;
        disk.create(&self.path, Access::Write)
    }
}

/// The handles for filling and for frames, if a first direct write succeeds, of zeroes in the header's place: some
/// file systems refuse only that.
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
    ///
    /// If it failed for want of space ([`is_full`]) nothing has the name: it can be tried again, with another file.
    pub(crate) fn run(self, disk: &D) -> io::Result<NewFile<D>> {
        if let Err(error) = self.give_name(disk) {
            if is_full(&error) {
                // It takes the space that was missing.
                let _ = disk.remove(&self.from);
            }
            return Err(error);
        }
        if !mutation::is_planted(Mutation::DirectoryNotSynced) {
            disk.sync_dir(&self.dir).map_err(sync_failed)?;
        }
        Ok(self.next)
    }

    fn give_name(&self, disk: &D) -> io::Result<()> {
        let mut header = DiskBuffer::default();
        header.extend_from_slice(&self.header.encode());
        let written = self.next.zeroing.write_at(header.as_slice(), Position::default())?;
        if written != header.len() {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "short write of a header"));
        }
        // Whatever it loses is in a file that has no name yet, and gets none.
        self.next.zeroing.sync_data()?;
        // A directory that is full to the block takes another for it.
        disk.rename(&self.from, &self.to)
    }
}

/// A write that finds the disk full can be tried again. A sync cannot, whatever it failed for: nobody knows what it lost.
fn sync_failed(error: io::Error) -> io::Error {
    io::Error::other(format!("sync: {error}"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::io::{
        real::RealDisk,
        sim::{Fault, SimDisk},
    };

    const FROM: Position = Position::new(64 << 10);
    const TO: Position = Position::new(320 << 10);

    /// A file that is filled up to `FROM`, and what fills it up to `TO`.
    fn extension<D: Disk>(disk: &D, path: &Path, fill: Fill) -> (NewFile<D>, ExtendJob<D>) {
        let (path, mode) = (path.to_owned(), WriteMode::Direct);
        let prepare = PrepareJob { path, mode, to: FROM, fill: Fill::Zeroes };
        let file = prepare.run(disk).expect("there is space");
        let job = extension_of(&file, fill);
        (file, job)
    }

    fn extension_of<D: Disk>(file: &NewFile<D>, fill: Fill) -> ExtendJob<D> {
        let (file, headway) = (Arc::clone(&file.zeroing), Arc::default());
        ExtendJob { file, from: FROM, to: TO, fill, headway, free_bytes_min: None }
    }

    fn simulated(seed: u64) -> (SimDisk, &'static Path) {
        let disk = SimDisk::new(seed);
        disk.create_dir(Path::new("/log")).expect("an empty disk");
        (disk, Path::new("/log/a"))
    }

    #[test]
    fn blocks_are_durable_once_they_count_and_read_as_zeroes() {
        for seed in 0..50 {
            let (disk, path) = simulated(seed);
            let (_, job) = extension(&disk, path, Fill::Blocks);
            disk.sync_dir(Path::new("/log")).expect("its name");
            assert_eq!(job.run(&disk).expect("there is space"), (TO, Fill::Blocks));
            let disk = disk.power_cut();
            let bytes = disk.bytes(path).expect("its name was synced");
            assert!(bytes.len() as u64 == TO.get() && bytes.iter().all(|byte| *byte == 0));
            assert_eq!(disk.space_bytes(), bytes.len());
        }
    }

    #[test]
    fn a_crash_before_the_sync_of_blocks_leaves_the_file_as_it_was_or_longer() {
        let (mut short, mut long) = (0, 0);
        for seed in 0..100 {
            let (disk, path) = simulated(seed);
            let (_, job) = extension(&disk, path, Fill::Blocks);
            disk.sync_dir(Path::new("/log")).expect("its name");
            // What asks for blocks is the first operation.
            disk.crash_after(Some(2));
            job.run(&disk).expect_err("it crashes in the sync");
            let bytes = disk.power_cut().bytes(path).expect("its name was synced");
            assert!(bytes.iter().all(|byte| *byte == 0));
            let size = bytes.len() as u64;
            assert!(size == FROM.get() || size == TO.get());
            (short, long) = if size == TO.get() { (short, long + 1) } else { (short + 1, long) };
        }
        assert!(short > 10 && long > 10, "{short} and {long}");
    }

    /// Those that it gave before it said no lie behind what counts, whatever the length of the file says.
    #[test]
    fn a_full_disk_gives_some_blocks_or_none_and_all_of_them_later() {
        let (mut none, mut as_long, mut longer) = (0, 0, 0);
        for seed in 0..200 {
            let (disk, path) = simulated(seed);
            let (file, job) = extension(&disk, path, Fill::Blocks);
            disk.sync_dir(Path::new("/log")).expect("its name");
            let space_bytes = disk.space_bytes();
            let most_bytes = match seed % 2 {
                0 => {
                    disk.arm(Fault::AllocateFindsNoSpace, 0);
                    space_bytes + (252 << 10)
                }
                _ => {
                    disk.limit_space(Some(space_bytes + (200 << 10)));
                    space_bytes + (200 << 10)
                }
            };
            let error = job.run(&disk).expect_err("there are not all of them");
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
            let size_bytes = file.file.size().expect("it is there");
            assert!(disk.space_bytes() <= most_bytes);
            match disk.space_bytes() > space_bytes {
                true if size_bytes > FROM.get() => longer += 1,
                true => as_long += 1,
                false => none += 1,
            }
            if seed % 4 < 2 {
                let bytes = disk.power_cut().bytes(path).expect("its name was synced");
                assert!(bytes.len() as u64 >= FROM.get() && bytes.iter().all(|byte| *byte == 0));
                continue;
            }
            disk.limit_space(None);
            let job = extension_of(&file, Fill::Blocks);
            assert_eq!(job.run(&disk).expect("there is space"), (TO, Fill::Blocks));
            assert_eq!(disk.space_bytes() as u64, TO.get());
        }
        assert!(none > 20 && as_long > 20 && longer > 20, "{none}, {as_long} and {longer}");
    }

    /// What asks for blocks before zeroes is a hint. The zeroes meet the full disk themselves.
    #[test]
    fn zeroes_need_no_blocks_that_were_asked_for_before() {
        for seed in 0..50 {
            let (disk, path) = simulated(seed);
            let (file, job) = extension(&disk, path, Fill::Zeroes);
            disk.arm(Fault::AllocateFindsNoSpace, 0);
            assert_eq!(job.run(&disk).expect("there is space"), (TO, Fill::Zeroes));
            assert_eq!((disk.disarm(), disk.space_bytes() as u64), (0, TO.get()));
            let bytes = disk.bytes(path).expect("it is there");
            assert!(bytes.len() as u64 == TO.get() && bytes.iter().all(|byte| *byte == 0));

            disk.arm(Fault::WriteFindsNoSpace, 0);
            let error = extension_of(&file, Fill::Zeroes).run(&disk).expect_err("a full disk");
            assert_eq!((error.kind(), disk.disarm()), (io::ErrorKind::StorageFull, 0));
        }
    }

    #[test]
    fn a_sync_of_blocks_that_fails_is_not_for_want_of_space() {
        let (disk, path) = simulated(1);
        let (_, job) = extension(&disk, path, Fill::Blocks);
        disk.arm(Fault::SyncFails, 0);
        assert_eq!(job.run(&disk).expect_err("it fails").kind(), io::ErrorKind::Other);
    }

    #[test]
    fn there_are_zeroes_where_there_can_be_no_blocks() {
        let (disk, path) = simulated(1);
        disk.refuse_allocation(true);
        let (_, job) = extension(&disk, path, Fill::Blocks);
        assert_eq!(job.run(&disk).expect("there is space"), (TO, Fill::Zeroes));
        assert_eq!(disk.space_bytes() as u64, TO.get());
        let prepare = |mode| {
            let job = PrepareJob { path: path.to_owned(), mode, to: TO, fill: Fill::Blocks };
            let NewFile { prepared, fill, .. } = job.run(&disk).expect("there is space");
            (prepared, fill)
        };
        assert_eq!(prepare(WriteMode::Direct), (TO, Fill::Zeroes));
        disk.refuse_allocation(false);
        assert_eq!(prepare(WriteMode::Direct), (TO, Fill::Blocks));
        assert_eq!(prepare(WriteMode::Buffered), (TO, Fill::Zeroes));
        disk.refuse_direct(true);
        assert_eq!(prepare(WriteMode::Direct), (TO, Fill::Zeroes));
    }

    #[test]
    fn a_file_of_blocks_has_zeroes_for_a_header_and_then_the_header() {
        let (disk, path) = simulated(1);
        let (mode, fill) = (WriteMode::Direct, Fill::Blocks);
        let job = PrepareJob { path: path.to_owned(), mode, to: TO, fill };
        let next = job.run(&disk).expect("there is space");
        let header = SegmentHeader {
            version: crate::segment::SEGMENT_VERSION,
            base_offset: crate::offset::Offset::ZERO,
            created_at_ms: 1,
            incarnation: crate::segment::Incarnation::new([7; 16]),
            tag: crate::segment::Tag::parse("a").expect("a tag"),
            sync: crate::config::SyncMode::Commit,
        };
        let to = PathBuf::from("/log/b");
        let (dir, from) = (PathBuf::from("/log"), path.to_owned());
        let roll = RollJob { next, header: header.clone(), dir, from, to: to.clone() };
        roll.run(&disk).expect("nothing is wrong");
        let bytes = disk.power_cut().bytes(&to).expect("its name is durable");
        assert_eq!(bytes.len() as u64, TO.get());
        let (head, rest) = bytes.split_at(header.encode().len());
        assert!(head == header.encode() && rest.iter().all(|byte| *byte == 0));
    }

    /// How many bytes this thread has given to the kernel, where it tells.
    fn written_bytes() -> Option<u64> {
        let told = fs::read_to_string("/proc/thread-self/io").ok()?;
        let line = told.lines().find_map(|line| line.strip_prefix("wchar: "));
        Some(line.expect("it is always among them").parse().expect("a number"))
    }

    #[test]
    fn blocks_of_a_real_disk_are_there_and_nothing_is_written() {
        let name = format!("strandline-blocks-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        for asked in [Fill::Blocks, Fill::Zeroes] {
            let (file, job) = extension(&RealDisk, &path, asked);
            let before = (written_bytes(), file.file.allocated_bytes().expect("some"));
            let (to, fill) = job.run(&RealDisk).expect("there is space");
            let after = (written_bytes(), file.file.allocated_bytes().expect("some"));
            assert!(to == TO && (fill == asked || fill == Fill::Zeroes), "as the disk can");
            assert_eq!(file.file.size().expect("a size"), TO.get());
            let all_bytes = TO.get() - FROM.get();
            // (Zeroes may take none, where the file system compresses.)
            let has_blocks = after.1 >= before.1 + all_bytes;
            assert!(has_blocks || fill == Fill::Zeroes, "{before:?} and {after:?}");
            let expected_bytes = if fill == Fill::Zeroes { all_bytes } else { 0 };
            assert_eq!(after.0, before.0.map(|bytes| bytes + expected_bytes));
            let mut bytes = DiskBuffer::zeroed(256 << 10);
            bytes.as_mut_slice().fill(1);
            file.file.read_exact_at(bytes.as_mut_slice(), FROM).expect("it is all there");
            assert!(bytes.as_slice().iter().all(|byte| *byte == 0));
        }
        fs::remove_file(&path).expect("it is there");
    }

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
