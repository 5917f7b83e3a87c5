//! The disk of the machine.
//!
//! Direct files take `O_DIRECT`, which some file systems refuse, and some accept and ignore: tmpfs
//! does since Linux 6.6. Both are refused here with the error that an old tmpfs gives, so that the
//! log says that it writes through the page cache where it does. So is a file system that wants more
//! than [`ALIGN_BYTES`] of alignment.
//!
//! A signal may interrupt a call before it did anything: opening, locking, reading and writing are
//! then called again. A sync is not: after one that did not succeed nobody knows what is durable.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{AtFlags, FallocateFlags, FlockOperation, Mode, OFlags, StatxFlags},
    io::retry_on_intr,
};

use super::{
    Access, Disk, DiskFile, LockMode, Space,
    in_flight::{ByRing, Errand, InFlight},
};
use crate::{buffer::ALIGN_BYTES, offset::Position};

/// `f_type` of the file systems that live in memory.
const IN_MEMORY_MAGIC: [u64; 2] = [0x0102_1994 /* tmpfs */, 0x8584_58f6 /* ramfs */];

/// A file that goes is given back in steps of so many bytes.
const GIVE_BACK_BYTES: u64 = 1 << 20;

/// Data may be secret: the group may read it, as is usual for logs, and others may not.
const FILE_MODE: Mode = Mode::from_raw_mode(0o640);
const DIR_MODE: Mode = Mode::from_raw_mode(0o750);

/// The file systems of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

/// An open file.
#[derive(Debug)]
pub struct RealFile {
    file: File,
    access: Access,
}

impl RealFile {
    /// How it was opened.
    pub fn access(&self) -> Access {
        self.access
    }

    /// Another handle of the same open file, for a shard's ring to own.
    pub fn duplicate(&self) -> io::Result<File> {
        self.file.try_clone()
    }
}

impl AsFd for RealFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A lock on a directory: an open, locked descriptor of it.
#[derive(Debug)]
pub struct DirLock {
    _dir: File,
}

impl Disk for RealDisk {
    type File = RealFile;
    type Lock = DirLock;

    fn lock_dir(&self, dir: &Path, mode: LockMode) -> io::Result<DirLock> {
        let opened = open(dir, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let operation = match mode {
            LockMode::Exclusive => FlockOperation::NonBlockingLockExclusive,
            LockMode::Shared => FlockOperation::NonBlockingLockShared,
        };
        retry_on_intr(|| rustix::fs::flock(&opened, operation))?;
        Ok(DirLock { _dir: opened })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let names = fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.file_name()));
        // A name that is not UTF-8 is none of ours: it is told as well as can be.
        names.map(|name| name.map(|name| name.to_string_lossy().into_owned())).collect()
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        match rustix::fs::mkdir(dir, DIR_MODE) {
            Err(rustix::io::Errno::EXIST) if fs::metadata(dir)?.is_dir() => {}
            made => made?,
        }
        // Also when it was there: whoever made it may have crashed before this.
        self.sync_dir(&parent(dir))
    }

    fn create(&self, path: &Path, access: Access) -> io::Result<RealFile> {
        // The kernel makes the file before it refuses O_DIRECT, so that flag is tried afterwards.
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let file = retry_on_intr(|| rustix::fs::open(path, flags | OFlags::CLOEXEC, FILE_MODE))?;
        if access == Access::Write {
            return Ok(RealFile { file: file.into(), access });
        }
        let opened = self.open(path, access);
        if opened.is_err() {
            // If this fails too, an empty file stays; the error that is returned is the first.
            fs::remove_file(path).ok();
        }
        opened
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<RealFile> {
        let flags = match access {
            Access::Read => OFlags::RDONLY,
            Access::Write => OFlags::RDWR,
            Access::Direct => OFlags::RDWR | OFlags::DIRECT,
            Access::DirectSync => OFlags::RDWR | OFlags::DIRECT | OFlags::DSYNC,
        };
        let file = open(path, flags)?;
        if flags.contains(OFlags::DIRECT) && !takes_direct(&file) {
            return Err(rustix::io::Errno::INVAL.into());
        }
        Ok(RealFile { file, access })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        fs::remove_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let opened = open(dir, OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok(rustix::fs::fsync(&opened)?)
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        let disk = rustix::fs::statvfs(dir)?;
        // What is kept for others is neither: as `df` counts.
        let used = disk.f_blocks.saturating_sub(disk.f_bfree);
        Ok(Space {
            total_bytes: used.saturating_add(disk.f_bavail).saturating_mul(disk.f_frsize),
            free_bytes: disk.f_bavail.saturating_mul(disk.f_frsize),
        })
    }
}

impl DiskFile for RealFile {
    fn hold(&self) -> io::Result<()> {
        hold(&self.file)
    }

    fn in_flight(self: &Arc<Self>, what: Errand) -> Option<Box<dyn InFlight>> {
        let ring = ByRing::new(self, what).ok()?;
        Some(Box::new(ring))
    }

    fn give_back(&self, rest: &mut dyn FnMut() -> bool) {
        // What stays is given back when the file is closed.
        let _ = give_back(&self.file, rest);
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn allocated_bytes(&self) -> io::Result<u64> {
        // In units of 512 bytes, whatever the file system's are.
        Ok(self.file.metadata()?.blocks().saturating_mul(512))
    }

    fn name_count(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.nlink())
    }

    fn read_at(&self, bytes: &mut [u8], position: Position) -> io::Result<usize> {
        Ok(retry_on_intr(|| rustix::io::pread(&self.file, &mut *bytes, position.get()))?)
    }

    fn write_at(&self, bytes: &[u8], position: Position) -> io::Result<usize> {
        Ok(retry_on_intr(|| rustix::io::pwrite(&self.file, bytes, position.get()))?)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(&self.file)?)
    }

    fn set_size(&self, size_bytes: u64) -> io::Result<()> {
        Ok(retry_on_intr(|| rustix::fs::ftruncate(&self.file, size_bytes))?)
    }

    fn allocate(&self, from: Position, to: Position) -> io::Result<bool> {
        let len = to.get().saturating_sub(from.get());
        let flags = FallocateFlags::empty();
        match retry_on_intr(|| rustix::fs::fallocate(&self.file, flags, from.get(), len)) {
            // The second is what a sandbox says that does not know the call.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(false),
            allocated => Ok(allocated.map(|()| true)?),
        }
    }
}

/// See [`DiskFile::hold`].
fn hold(file: &File) -> io::Result<()> {
    let locked = rustix::fs::flock(file, FlockOperation::NonBlockingLockShared);
    // It is being given back. (Where there are no such locks, nothing is.)
    let is_going = locked.is_err_and(|error| error == rustix::io::Errno::WOULDBLOCK);
    if is_going || file.metadata()?.nlink() == 0 {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(())
}

/// See [`DiskFile::give_back`]. Pages and blocks of 256 MiB take the kernel 0.1 to 0.2 s, in which a commit
/// beside it waits; in steps with rests it does not.
fn give_back(file: &File, rest: &mut dyn FnMut() -> bool) -> io::Result<()> {
    // The file was opened for reading; this is another way to the same one.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let Ok(file) = File::options().write(true).open(path) else { return Ok(()) };
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    let facts = file.metadata()?;
    // A backup may have a link to it.
    if facts.nlink() > 0 {
        return Ok(());
    }
    let mut left_bytes = facts.len();
    while left_bytes > 0 {
        left_bytes = left_bytes.saturating_sub(GIVE_BACK_BYTES);
        file.set_len(left_bytes)?;
        if !rest() {
            break;
        }
    }
    Ok(())
}

fn open(path: &Path, flags: OFlags) -> io::Result<File> {
    let opened = retry_on_intr(|| rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()))?;
    Ok(opened.into())
}

/// The directory that a path lies in.
fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) => parent.to_owned(),
        None => path.to_owned(),
    }
}

/// Whether a file that was opened with `O_DIRECT` really goes past the page cache with our alignment.
fn takes_direct(file: &File) -> bool {
    // One that lives in memory always says so; whoever fails to is on a disk, of which nobody needs to know more here.
    let is_in_memory = rustix::fs::fstatfs(file).is_ok_and(|file_system| {
        IN_MEMORY_MAGIC.iter().any(|magic| i64::try_from(*magic) == Ok(file_system.f_type))
    });
    if is_in_memory {
        return false;
    }
    match rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN) {
        Ok(facts) if facts.stx_mask & StatxFlags::DIOALIGN.bits() != 0 => {
            let (memory, position) = (facts.stx_dio_mem_align, facts.stx_dio_offset_align);
            let fits = |align: u32| align != 0 && align as usize <= ALIGN_BYTES;
            fits(memory) && fits(position)
        }
        // Before Linux 6.1 nobody tells: opening with the flag worked, so it is believed.
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::DiskBuffer;

    /// A directory of its own for a test, removed at its end.
    struct TestDir(PathBuf);

    impl TestDir {
        fn new(parent: &Path, name: &str) -> Self {
            let dir = parent.join(format!("strandline-{name}-{}", std::process::id()));
            fs::create_dir(&dir).expect("a directory for the test");
            TestDir(dir)
        }
    }

    impl Drop for TestDir {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    #[test]
    fn names_are_made_changed_and_listed() {
        let dir = TestDir::new(&std::env::temp_dir(), "names");
        let (disk, log) = (RealDisk, dir.0.join("log"));
        disk.create_dir(&log).expect("made");
        disk.create_dir(&log).expect("there already");
        let (first, second) = (log.join("a"), log.join("b"));
        disk.create(&first, Access::Write).expect("created");
        let error = disk.create(&first, Access::Write).expect_err("there already");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        disk.create_dir(&first).expect_err("a file is no directory");
        disk.rename(&first, &second).expect("renamed");
        disk.sync_dir(&log).expect("synced");
        assert_eq!(disk.list(&log).expect("names"), ["b"]);
        disk.remove(&second).expect("removed");
        let error = disk.open(&second, Access::Read).expect_err("gone");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_is_written_read_resized_and_synced() {
        let dir = TestDir::new(&std::env::temp_dir(), "file");
        let file = RealDisk.create(&dir.0.join("a"), Access::Write).expect("created");
        assert_eq!(file.write_at(b"hello", Position::new(3)).expect("5"), 5);
        file.sync_data().expect("synced");
        file.set_size(10).expect("grown");
        assert_eq!(file.size().expect("a size"), 10);
        let mut bytes = [1; 20];
        assert_eq!(file.read_at(&mut bytes, Position::new(0)).expect("10"), 10);
        assert_eq!(&bytes[..10], b"\0\0\0hello\0\0");
        let error = file.read_exact_at(&mut bytes, Position::new(0)).expect_err("too short");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let can = file.allocate(Position::new(10), Position::new(1 << 20)).expect("space");
        assert_eq!(file.size().expect("a size"), if can { 1 << 20 } else { 10 });
        assert!(!can || file.allocated_bytes().expect("some") >= 1 << 20);
        file.read_exact_at(&mut bytes[..10], Position::new(0)).expect("what was there");
        assert_eq!(&bytes[..10], b"\0\0\0hello\0\0");
        let reader = RealDisk.open(&dir.0.join("a"), Access::Read).expect("opened");
        assert!(reader.write_at(b"no", Position::new(0)).is_err());
        assert!(reader.allocate(Position::new(0), Position::new(1 << 21)).is_err());
    }

    #[test]
    fn a_file_is_given_back_once_nobody_names_or_holds_it() {
        let dir = TestDir::new(&std::env::temp_dir(), "give-back");
        let (path, link) = (dir.0.join("a"), dir.0.join("b"));
        let written = RealDisk.create(&path, Access::Write).expect("created");
        written.set_size(2 * GIVE_BACK_BYTES + 1).expect("grown");
        let file = RealDisk.open(&path, Access::Read).expect("opened");
        let copied = RealDisk.open(&path, Access::Read).expect("opened");
        let size = || {
            file.give_back(&mut || true);
            file.size().expect("a size")
        };
        RealDisk.link(&path, &link).expect("a backup's link");
        assert_eq!(file.name_count().expect("it is known"), 2);
        RealDisk.remove(&path).expect("removed");
        assert_eq!(size(), 2 * GIVE_BACK_BYTES + 1, "it has another name");
        copied.hold().expect("it has a name");
        RealDisk.remove(&link).expect("removed");
        assert_eq!(size(), 2 * GIVE_BACK_BYTES + 1, "it is held");
        drop(copied);
        file.give_back(&mut || false);
        assert_eq!(file.size().expect("a size"), GIVE_BACK_BYTES + 1, "a step, and no other");
        assert_eq!(size(), 0);
        let error = written.hold().expect_err("it has no name");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn direct_writes_are_taken_where_the_file_system_takes_them() {
        let dir = TestDir::new(&std::env::temp_dir(), "direct");
        let path = dir.0.join("a");
        let file = match RealDisk.create(&path, Access::DirectSync) {
            Ok(file) => file,
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "refused as documented");
                assert!(!path.exists(), "a refused file is not left behind");
                return;
            }
        };
        let mut buffer = DiskBuffer::zeroed(8192);
        buffer.as_mut_slice().fill(7);
        assert_eq!(file.write_at(buffer.as_slice(), Position::new(4096)).expect("8192"), 8192);
        assert!(file.write_at(&buffer.as_slice()[..100], Position::new(0)).is_err());
        let mut back = DiskBuffer::zeroed(4096);
        file.read_exact_at(back.as_mut_slice(), Position::new(8192)).expect("4096");
        assert_eq!(back.as_slice(), &[7; 4096]);
        // What was cut short within a block is read to its end, and no further.
        for end in [8192 + 512, 8192 + 100] {
            file.set_size(end).expect("shortened");
            let mut back = DiskBuffer::zeroed(16 << 10);
            let read = file.read_all_at(back.as_mut_slice(), Position::new(4096)).expect("read");
            assert_eq!(read as u64, end - 4096);
            assert!(back.as_slice()[..read].iter().all(|byte| *byte == 7));
        }
    }

    #[test]
    fn a_file_system_in_memory_is_no_place_for_direct_writes() {
        let memory = Path::new("/dev/shm");
        if !memory.is_dir() {
            return;
        }
        let dir = TestDir::new(memory, "memory");
        for access in [Access::Direct, Access::DirectSync] {
            let error = RealDisk.create(&dir.0.join("a"), access).expect_err("refused");
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
        assert!(RealDisk.list(&dir.0).expect("names").is_empty());
        RealDisk.create(&dir.0.join("a"), Access::Write).expect("created");
    }

    #[test]
    fn a_lock_excludes_and_is_released() {
        let dir = TestDir::new(&std::env::temp_dir(), "lock");
        let lock = |mode| RealDisk.lock_dir(&dir.0, mode);
        let shared = (lock(LockMode::Shared).expect("free"), lock(LockMode::Shared).expect("both"));
        let error = lock(LockMode::Exclusive).expect_err("readers hold it");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(shared);
        let held = lock(LockMode::Exclusive).expect("free");
        assert!(lock(LockMode::Shared).is_err());
        drop(held);
        lock(LockMode::Shared).expect("free again");
    }

    #[test]
    fn the_parent_of_a_bare_name_is_here() {
        assert_eq!(parent(Path::new("data")), Path::new("."));
        assert_eq!(parent(Path::new("/data")), Path::new("/"));
        assert_eq!(parent(Path::new("/")), Path::new("/"));
    }
}
