//! Reading of a damaged file what can be read.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{buffer::ALIGN_BYTES, io::DiskFile, offset::Position};

/// A file of which what cannot be read is zeroes, in pieces of a block: no frame is made of those.
pub(crate) struct Lenient<F> {
    file: F,
    /// Behind the last byte at which a read has failed; 0 if none has.
    failed_end: AtomicU64,
}

impl<F> Lenient<F> {
    pub(crate) fn new(file: F) -> Self {
        Lenient { file, failed_end: AtomicU64::new(0) }
    }

    /// Whether anything of what was read so far could not be, also by itself.
    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed_behind(Position::default())
    }

    /// The same of what lies at a position or behind it.
    pub(crate) fn has_failed_behind(&self, position: Position) -> bool {
        self.failed_end.load(Ordering::Relaxed) > position.get()
    }
}

impl<F: DiskFile> DiskFile for Lenient<F> {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read_at(&self, bytes: &mut [u8], position: Position) -> io::Result<usize> {
        match self.file.read_at(bytes, position) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {}
            read => return read,
        }
        // Up to the next block, so that the pieces behind are whole blocks of the file.
        let align_bytes = ALIGN_BYTES as u64;
        let to_block = usize::try_from(align_bytes - position.get() % align_bytes);
        let piece = to_block.expect("at most a block").min(bytes.len());
        match self.file.read_at(&mut bytes[..piece], position) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                self.failed_end.fetch_max(position.get() + piece as u64, Ordering::Relaxed);
                bytes[..piece].fill(0);
                let left = self.file.size()?.saturating_sub(position.get());
                Ok(usize::try_from(left).map_or(piece, |left| left.min(piece)))
            }
            read => read,
        }
    }

    fn write_at(&self, _bytes: &[u8], _position: Position) -> io::Result<usize> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn set_size(&self, _size_bytes: u64) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::io::{
        Access, Disk,
        sim::{Fault, SimDisk},
    };

    /// What a second read gives back is not what the disk has lost.
    #[test]
    fn an_error_that_passes_is_none() {
        let disk = SimDisk::new(1);
        let path = Path::new("/file");
        let file = disk.create(path, Access::Write).expect("an empty disk");
        file.write_all_at(&[7; 3 * ALIGN_BYTES], Position::default()).expect("space");
        let lenient = Lenient::new(disk.open(path, Access::Read).expect("a file"));
        let mut bytes = vec![0; 3 * ALIGN_BYTES];
        disk.arm(Fault::ReadFails, 0);
        lenient.read_exact_at(&mut bytes, Position::default()).expect("all of it");
        assert_eq!((disk.disarm(), lenient.has_failed()), (0, false));
        assert_eq!(bytes, [7; 3 * ALIGN_BYTES]);
        disk.make_unreadable(path, ALIGN_BYTES as u64..ALIGN_BYTES as u64 + 1);
        lenient.read_exact_at(&mut bytes, Position::default()).expect("zeroes");
        assert!(lenient.has_failed());
        let blocks = [1, 2].map(|block| Position::new(block * ALIGN_BYTES as u64));
        assert_eq!(blocks.map(|position| lenient.has_failed_behind(position)), [true, false]);
    }
}
