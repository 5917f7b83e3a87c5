//! A [`PowerDisk`] as a mounted file system.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime},
};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, KernelConfig, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs,
    ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use strandline_storage::io::sim::names::Inode;

use crate::disk::{Kind, PowerDisk};

/// The kernel keeps nothing: after a cut it must ask again.
const KEPT: Duration = Duration::ZERO;
/// Whoever opens a file reads and writes past the kernel's page cache, which would survive the cut.
const OPENED: FopenFlags =
    FopenFlags::FOPEN_DIRECT_IO.union(FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES);
const WRITE_BYTES_MAX: u32 = 1 << 20;

/// Names what must be possible to mount here, `fuse` or `loop`, or both with a comma between them.
const MUST_MOUNT: &str = "STRANDLINE_MUST_MOUNT";

/// What cannot be mounted here is passed over, and said to be, unless the environment says that it must be possible.
pub fn pass_over(kind: &str, what: &str, error: &io::Error) -> io::Result<()> {
    let must = std::env::var(MUST_MOUNT).unwrap_or_default();
    if must.split(',').any(|must| must == kind) {
        return Err(io::Error::other(format!("no {what} here, and {MUST_MOUNT}={must}: {error}")));
    }
    println!("SKIPPED: no {what} here: {error}");
    Ok(())
}

/// The same of a [`PowerDisk`].
pub fn pass_over_power_disk(error: &io::Error) -> io::Result<()> {
    pass_over("fuse", "file system in user space", error)
}

/// A mounted [`PowerDisk`]; unmounted when it goes.
pub struct Mounted {
    dir: PathBuf,
    session: Option<BackgroundSession>,
}

impl Mounted {
    /// Mounts a disk on a directory, which is made. Needs `/dev/fuse` and the right to mount.
    pub fn new(disk: &Arc<PowerDisk>, dir: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("strandline-power".to_owned())];
        config.n_threads = Some(2);
        let session = fuser::spawn_mount(Served(Arc::clone(disk), Mutex::default()), dir, &config)?;
        Ok(Mounted { dir: dir.to_owned(), session: Some(session) })
    }

    /// Where it is mounted.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            // A killed server's ring may hold its files a moment longer: without waiting for that.
            let dir = std::ffi::CString::new(self.dir.as_os_str().as_encoded_bytes());
            let dir = dir.expect("a path has no zero byte");
            // SAFETY: the path is a string that ends with a zero, and lives during the call.
            unsafe { libc::umount2(dir.as_ptr(), libc::MNT_DETACH) };
            drop(session);
        }
    }
}

struct Served(Arc<PowerDisk>, Mutex<Listings>);

fn attributes(inode: Inode, kind: Kind) -> FileAttr {
    let now = SystemTime::UNIX_EPOCH;
    let (file_type, perm, size, space, nlink) = match kind {
        Kind::Directory => (FileType::Directory, 0o755, 0, 0, 1),
        Kind::File { size_bytes, space_bytes, names } => {
            (FileType::RegularFile, 0o644, size_bytes, space_bytes, names)
        }
    };
    FileAttr {
        ino: INodeNo(inode),
        size: size as u64,
        blocks: space as u64 / 512,
        atime: now,
        mtime: now,
        ctime: now,
        crtime: now,
        kind: file_type,
        perm,
        nlink,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn text(name: &OsStr) -> Result<&str, Errno> {
    name.to_str().ok_or(Errno::EINVAL)
}

fn answer_entry(reply: ReplyEntry, outcome: Result<(Inode, Kind), Errno>) {
    match outcome {
        Ok((inode, kind)) => reply.entry(&KEPT, &attributes(inode, kind), Generation(0)),
        Err(error) => reply.error(error),
    }
}

fn answer_empty(reply: ReplyEmpty, outcome: Result<(), Errno>) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn has(flags: OpenFlags, flag: i32) -> bool {
    flags.0 & flag == flag
}

/// What directories held when somebody began to list them, by handle: whoever removes what he is told misses none of the
/// others.
#[derive(Default)]
struct Listings {
    opened: u64,
    open: BTreeMap<u64, Vec<(String, Inode, Kind)>>,
}

impl Served {
    fn listings(&self) -> MutexGuard<'_, Listings> {
        self.1.lock().expect("no panic while it is locked")
    }
}

impl Filesystem for Served {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // What the server writes at once is one write: the kernel would cut a longer one in two.
        config.set_max_write(WRITE_BYTES_MAX).ok();
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        answer_entry(reply, text(name).and_then(|name| self.0.lookup(parent.0, name)));
    }

    fn getattr(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        match self.0.kind(inode.0) {
            Ok(kind) => reply.attr(&KEPT, &attributes(inode.0, kind)),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _request: &Request,
        inode: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let resized = size.map_or(Ok(()), |size| self.0.resize(inode.0, size));
        match resized.and_then(|()| self.0.kind(inode.0)) {
            Ok(kind) => reply.attr(&KEPT, &attributes(inode.0, kind)),
            Err(error) => reply.error(error),
        }
    }

    fn mkdir(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let made = text(name).and_then(|name| self.0.create(parent.0, name, true));
        answer_entry(reply, made.map(|(inode, _)| (inode, Kind::Directory)));
    }

    fn create(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        match text(name).and_then(|name| self.0.create(parent.0, name, false)) {
            Ok((inode, handle)) => {
                let empty = Kind::File { size_bytes: 0, space_bytes: 0, names: 1 };
                let attributes = attributes(inode, empty);
                reply.created(&KEPT, &attributes, Generation(0), FileHandle(handle), OPENED);
            }
            Err(error) => reply.error(error),
        }
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer_empty(reply, text(name).and_then(|name| self.0.remove(parent.0, name, false)));
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer_empty(reply, text(name).and_then(|name| self.0.remove(parent.0, name, true)));
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let is_exchange = flags == RenameFlags::RENAME_EXCHANGE && parent == new_parent;
        if !flags.is_empty() && !is_exchange {
            return reply.error(Errno::EINVAL);
        }
        let renamed = text(name).and_then(|name| {
            let new_name = text(new_name)?;
            match is_exchange {
                true => self.0.exchange(parent.0, [name, new_name]),
                false => self.0.rename((parent.0, name), (new_parent.0, new_name)),
            }
        });
        answer_empty(reply, renamed);
    }

    fn link(
        &self,
        _request: &Request,
        inode: INodeNo,
        new_parent: INodeNo,
        new_name: &OsStr,
        reply: ReplyEntry,
    ) {
        let linked = text(new_name).and_then(|name| self.0.link(inode.0, new_parent.0, name));
        answer_entry(reply, linked.map(|kind| (inode.0, kind)));
    }

    fn open(&self, _request: &Request, inode: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.0.open(inode.0) {
            Ok(handle) => reply.opened(FileHandle(handle), OPENED),
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut bytes = vec![0; size as usize];
        let is_direct = has(flags, libc::O_DIRECT);
        match self.0.read((inode.0, handle.0), offset, &mut bytes, is_direct) {
            Ok(count) => reply.data(&bytes[..count]),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let is_synced = has(flags, libc::O_DSYNC);
        match self.0.write((inode.0, handle.0), offset, data, is_synced) {
            Ok(count) => reply.written(u32::try_from(count).expect("no more than was given")),
            Err(error) => reply.error(error),
        }
    }

    fn fallocate(
        &self,
        _request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        if mode != 0 {
            return reply.error(Errno::EOPNOTSUPP);
        }
        answer_empty(reply, self.0.allocate((inode.0, handle.0), offset, length));
    }

    fn flush(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _handle: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn fsync(
        &self,
        _request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        answer_empty(reply, self.0.sync((inode.0, handle.0)));
    }

    fn opendir(&self, _request: &Request, _inode: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if let Err(error) = self.0.open_dir() {
            return reply.error(error);
        }
        let mut listings = self.listings();
        listings.opened += 1;
        reply.opened(FileHandle(listings.opened), FopenFlags::empty());
    }

    fn releasedir(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.listings().open.remove(&handle.0);
        reply.ok();
    }

    fn readdir(
        &self,
        _request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        if offset == 0 {
            match self.0.list(inode.0) {
                Ok(listed) => _ = self.listings().open.insert(handle.0, listed),
                Err(error) => return reply.error(error),
            }
        } else if let Err(error) = self.0.list_on() {
            return reply.error(error);
        }
        let listings = self.listings();
        let listed = listings.open.get(&handle.0).map_or(&[][..], Vec::as_slice);
        let skipped = usize::try_from(offset).unwrap_or(usize::MAX);
        for (at, (name, inode, kind)) in (1..).zip(listed).skip(skipped) {
            if reply.add(INodeNo(*inode), at, attributes(*inode, *kind).kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        answer_empty(reply, self.0.sync_dir(inode.0));
    }

    fn statfs(&self, _request: &Request, _inode: INodeNo, reply: ReplyStatfs) {
        let (total, free) = match self.0.space() {
            Ok(space) => space,
            Err(error) => return reply.error(error),
        };
        let (total, free) = (total as u64 / 4096, free as u64 / 4096);
        reply.statfs(total, free, free, 1 << 20, 1 << 20, 4096, 255, 4096);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    #[test]
    fn what_is_removed_while_it_is_listed_hides_nothing_of_the_rest() {
        let dir = std::env::temp_dir().join(format!("strandline-listed-{}", std::process::id()));
        let mounted = match Mounted::new(&Arc::new(PowerDisk::new(1)), &dir) {
            Ok(mounted) => mounted,
            Err(error) => return pass_over_power_disk(&error).expect("it may be mounted"),
        };
        let many = mounted.dir().join("many");
        fs::create_dir(&many).expect("made");
        (0..2_000).for_each(|number| {
            File::create(many.join(number.to_string())).expect("made");
        });
        fs::remove_dir_all(&many).expect("nothing is left");
        drop(mounted);
        fs::remove_dir(&dir).expect("it was unmounted");
    }
}
