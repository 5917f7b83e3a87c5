//! The disk of the machine through a shard's own io_uring.
//!
//! monoio 0.2.4 as its source has it, and what follows from that here:
//!
//! - Dropping the future of an operation *cancels* it in the kernel (`async-cancel`): a write or a
//!   sync is a task of its own, which nobody holds. Dropping the future that is returned only forgets
//!   the outcome. A shard awaits all outcomes before its runtime ends.
//! - `write_all_at` would submit the rest of a short write again: `write_at` is called once, and the
//!   short length is returned.
//! - A file belongs to the runtime that it was attached to and owns its descriptor: each shard
//!   duplicates a file's descriptor once, and keeps it for as long as the file is open elsewhere.
//! - Dropping an attached file submits a close and cancels it at once: it is closed by
//!   `File::close` instead, which is awaited.
//! - Its epoll driver calls the kernel in place, which blocks the shard: where [`check_available`]
//!   says no, a [`crate::io::thread::DiskThread`] does the work.

use std::{
    cell::RefCell,
    collections::HashMap,
    future::Future,
    io,
    rc::Rc,
    sync::{Arc, Weak},
};

use io_uring::{IoUring, Probe, opcode};
use monoio::{buf::IoBufMut, fs::File};

use super::{
    Access, ReadIo,
    real::{RealDisk, RealFile},
};
use crate::{
    buffer::{ALIGN_BYTES, DiskBuffer, SharedBuffer},
    offset::Position,
};

/// The operations that a shard needs, with their names.
const NEEDED: [(u8, &str); 10] = [
    (opcode::Read::CODE, "read"),
    (opcode::Write::CODE, "write"),
    (opcode::Fsync::CODE, "fsync"),
    (opcode::Close::CODE, "close"),
    (opcode::Accept::CODE, "accept"),
    (opcode::Recv::CODE, "recv"),
    (opcode::Send::CODE, "send"),
    (opcode::Writev::CODE, "writev"),
    (opcode::PollAdd::CODE, "poll"),
    (opcode::AsyncCancel::CODE, "cancel"),
];

/// Whether this process may use io_uring, or why not: an old kernel, `io_uring_disabled`, a
/// container's filter, or that monoio was told not to.
pub fn check_available() -> io::Result<()> {
    let ring = IoUring::new(2)?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    if let Some((_, name)) = NEEDED.iter().find(|(code, _)| !probe.is_supported(*code)) {
        let what = format!("this kernel's io_uring does not know `{name}`");
        return Err(io::Error::new(io::ErrorKind::Unsupported, what));
    }
    if !monoio::utils::detect_uring() {
        let what =
            "MONOIO_FORCE_LEGACY_DRIVER is set, or an operation that monoio needs is missing";
        return Err(io::Error::new(io::ErrorKind::Unsupported, what));
    }
    Ok(())
}

/// The files of one shard, attached to its runtime. Used on that runtime's thread alone.
#[derive(Debug, Default)]
pub struct UringFiles {
    attached: RefCell<HashMap<*const RealFile, Attached>>,
}

/// Invariant: `file` keeps the allocation that the key points to, so no other file has its address.
#[derive(Debug)]
struct Attached {
    file: Weak<RealFile>,
    ring: Rc<File>,
}

impl UringFiles {
    /// No files yet.
    pub fn new() -> Self {
        UringFiles::default()
    }

    /// Writes the whole buffer at `position`, once, and gives how many bytes were written. It begins
    /// by itself in this turn of the runtime; dropping the future neither stops nor undoes it.
    pub fn write(
        &self,
        file: &Arc<RealFile>,
        buffer: Arc<DiskBuffer>,
        position: Position,
    ) -> impl Future<Output = io::Result<usize>> + use<> {
        let ring = self.attach(file);
        monoio::spawn(async move {
            let (result, _buffer) = ring?.write_at(SharedBuffer(buffer), position.get()).await;
            result
        })
    }

    /// Makes what was written before durable (`fdatasync`). It begins by itself in this turn of the
    /// runtime; dropping the future does not stop it.
    pub fn sync(&self, file: &Arc<RealFile>) -> impl Future<Output = io::Result<()>> + use<> {
        let ring = self.attach(file);
        monoio::spawn(async move { ring?.sync_data().await })
    }

    /// Reads `len` bytes from `position`, fewer if the file ends before. Dropping the future cancels
    /// the read.
    pub async fn read(
        &self,
        file: &Arc<RealFile>,
        position: Position,
        len: usize,
    ) -> io::Result<DiskBuffer> {
        let ring = self.attach(file)?;
        let mut buffer = DiskBuffer::with_capacity(len);
        while buffer.len() < len {
            let done = buffer.len();
            let rest = buffer.slice_mut(done..);
            let (result, rest) = ring.read_at(rest, position.plus(done as u64).get()).await;
            buffer = rest.into_inner();
            match result {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            // A direct read that ends within a block has met the end of the file, and could not be
            // continued from there.
            if file.access() != Access::Read && !buffer.len().is_multiple_of(ALIGN_BYTES) {
                break;
            }
        }
        buffer.truncate(len);
        Ok(buffer)
    }

    /// Closes the descriptors of files that nobody has open any more. Happens by itself when another
    /// file is attached; call it when segments are retired.
    pub fn sweep(&self) {
        let mut attached = self.attached.borrow_mut();
        attached.retain(|_, entry| {
            // One that is still in use by an operation goes at the next sweep.
            if entry.file.strong_count() > 0 || Rc::strong_count(&entry.ring) > 1 {
                return true;
            }
            let ring = Rc::clone(&entry.ring);
            monoio::spawn(async move {
                if let Ok(ring) = Rc::try_unwrap(ring) {
                    // A descriptor is gone even if closing it fails, and all its data is synced.
                    ring.close().await.ok();
                }
            });
            false
        });
    }

    /// How many files are attached.
    pub fn attached_count(&self) -> usize {
        self.attached.borrow().len()
    }

    fn attach(&self, file: &Arc<RealFile>) -> io::Result<Rc<File>> {
        let key = Arc::as_ptr(file);
        if let Some(entry) = self.attached.borrow().get(&key) {
            return Ok(Rc::clone(&entry.ring));
        }
        self.sweep();
        let ring = Rc::new(File::from_std(file.duplicate()?)?);
        let entry = Attached { file: Arc::downgrade(file), ring: Rc::clone(&ring) };
        self.attached.borrow_mut().insert(key, entry);
        Ok(ring)
    }
}

/// Reads by a shard's io_uring. Clones share the shard's files.
#[derive(Clone, Debug, Default)]
pub struct UringReads {
    files: Rc<UringFiles>,
}

impl UringReads {
    /// Reads through the files of a shard.
    pub fn new(files: Rc<UringFiles>) -> Self {
        UringReads { files }
    }

    /// Closes the descriptors of files that nobody has open any more; see [`UringFiles::sweep`].
    pub fn sweep(&self) {
        self.files.sweep();
    }
}

impl ReadIo<RealDisk> for UringReads {
    async fn read(
        &self,
        file: &Arc<RealFile>,
        position: Position,
        len: usize,
    ) -> io::Result<DiskBuffer> {
        self.files.read(file, position, len).await
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf, time::Duration};

    use super::*;
    use crate::io::Disk;

    /// Runs `test` with a directory on a runtime with io_uring, if there is one here.
    fn with_ring<F: Future<Output = ()>>(name: &str, test: impl FnOnce(PathBuf) -> F) {
        if let Err(error) = check_available() {
            eprintln!("skipped: no io_uring here: {error}");
            return;
        }
        let dir =
            std::env::temp_dir().join(format!("strandline-ring-{name}-{}", std::process::id()));
        fs::create_dir(&dir).expect("a directory for the test");
        let mut runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new()
            .enable_timer()
            .build()
            .expect("a runtime");
        runtime.block_on(test(dir.clone()));
        fs::remove_dir_all(&dir).expect("cleaned up");
    }

    fn filled(byte: u8, len: usize) -> Arc<DiskBuffer> {
        let mut buffer = DiskBuffer::zeroed(len);
        buffer.as_mut_slice().fill(byte);
        Arc::new(buffer)
    }

    /// Direct where the file system takes it, else buffered.
    fn create(dir: &std::path::Path) -> Arc<RealFile> {
        let direct = RealDisk.create(&dir.join("a"), Access::DirectSync);
        Arc::new(direct.unwrap_or_else(|_| {
            RealDisk.create(&dir.join("a"), Access::Write).expect("a buffered file")
        }))
    }

    #[test]
    fn several_writes_in_flight_and_reads() {
        with_ring("writes", |dir| async move {
            let files = Rc::new(UringFiles::new());
            let file = create(&dir);
            let writes: Vec<_> = (0..8_u8)
                .map(|index| {
                    let position = Position::new(u64::from(index) * 8192);
                    files.write(&file, filled(index, 8192), position)
                })
                .collect();
            for write in writes.into_iter().rev() {
                assert_eq!(write.await.expect("written"), 8192);
            }
            files.sync(&file).await.expect("synced");
            assert_eq!(files.attached_count(), 1);

            let reads = UringReads::new(Rc::clone(&files));
            let middle = reads.read(&file, Position::new(4096), 12288).await.expect("read");
            assert_eq!(middle.len(), 12288);
            assert_eq!(&middle.as_slice()[..4096], &[0; 4096]);
            assert_eq!(&middle.as_slice()[4096..], &[1; 8192]);
            let end = reads.read(&file, Position::new(61440), 8192).await.expect("read");
            assert_eq!(end.as_slice(), &[7; 4096], "the file ends there");

            let buffered = Arc::new(RealDisk.open(&dir.join("a"), Access::Read).expect("opened"));
            let part = reads.read(&buffered, Position::new(8190), 4).await.expect("read");
            assert_eq!(part.as_slice(), [0, 0, 1, 1]);
            let behind = reads.read(&buffered, Position::new(1 << 20), 4).await.expect("read");
            assert!(behind.is_empty());
        });
    }

    #[test]
    fn a_write_whose_future_is_dropped_is_not_cancelled() {
        with_ring("dropped", |dir| async move {
            let files = UringFiles::new();
            let file = create(&dir);
            for index in 0..32_u8 {
                let position = Position::new(u64::from(index) * 65536);
                drop(files.write(&file, filled(index + 1, 65536), position));
            }
            let mut missing = (0..32_u8).collect::<Vec<_>>();
            for _ in 0..12_000 {
                let mut still = Vec::new();
                for index in missing {
                    let position = Position::new(u64::from(index) * 65536);
                    let back = files.read(&file, position, 65536).await.expect("read");
                    let is_there = back.as_slice() == filled(index + 1, 65536).as_slice();
                    (!is_there).then(|| still.push(index));
                }
                missing = still;
                if missing.is_empty() {
                    break;
                }
                monoio::time::sleep(Duration::from_millis(5)).await;
            }
            assert!(missing.is_empty(), "{missing:?} were cancelled");
        });
    }

    #[test]
    fn a_file_that_nobody_has_open_is_let_go() {
        with_ring("sweep", |dir| async move {
            let files = UringFiles::new();
            let file = create(&dir);
            files.write(&file, filled(1, 4096), Position::new(0)).await.expect("written");
            files.sweep();
            assert_eq!(files.attached_count(), 1, "it is still open");
            drop(file);
            let other = Arc::new(RealDisk.create(&dir.join("b"), Access::Write).expect("a file"));
            files.write(&other, filled(1, 10), Position::new(0)).await.expect("written");
            assert_eq!(files.attached_count(), 1, "the first went when the second came");
            // Its descriptor is closed, too: the kernel would still list it.
            let listed = || {
                let links = fs::read_dir("/proc/self/fd").expect("descriptors");
                let targets = links.filter_map(|link| fs::read_link(link.ok()?.path()).ok());
                targets.filter(|target| *target == dir.join("a")).count()
            };
            for _ in 0..100 {
                if listed() == 0 {
                    return;
                }
                monoio::time::sleep(Duration::from_millis(5)).await;
            }
            panic!("the descriptor of a file that is gone stays open");
        });
    }

    #[test]
    fn errors_and_short_files_are_told() {
        with_ring("errors", |dir| async move {
            let files = UringFiles::new();
            fs::write(dir.join("a"), b"hello").expect("a file");
            let file = Arc::new(RealDisk.open(&dir.join("a"), Access::Read).expect("opened"));
            let error = files.write(&file, filled(1, 10), Position::new(0)).await;
            assert!(error.is_err(), "it was opened for reading");
            let bytes = files.read(&file, Position::new(1), 100).await.expect("read");
            assert_eq!(bytes.as_slice(), b"ello");
        });
    }
}
