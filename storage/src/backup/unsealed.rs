//! What of a segment that is not sealed goes into a backup: its frames one by one, each checked, as far as they
//! count.

use std::{io, path::Path};

use super::{Backup, Reach, read_bytes};
use crate::{
    buffer::{ALIGN_BYTES, DiskBuffer},
    error::{Corruption, OpenError},
    frame::{Frame, Seed},
    io::{Access, Disk, DiskFile},
    offset::{Offset, Position},
    rewrite,
    scan::{self, FrameScan, SCAN_BYTES},
    segment::{SEGMENT_HEADER_BYTES, SegmentHeader, SegmentName},
};

impl<D: Disk> Backup<'_, D> {
    /// Copies the frames up to the synced offset or to its successor, or to where a start would cut it.
    pub(super) fn unsealed(
        &mut self,
        name: SegmentName,
        successor: Option<Offset>,
    ) -> Result<(), OpenError> {
        let file_name = name.log_file_name();
        let path = self.from.join(&file_name);
        let temporary = self.temporary(&file_name)?;
        let file = self.open_unsealed(&path)?;
        let corrupt = |position, what: String| {
            OpenError::Corrupt(Corruption { file: path.clone(), position, what })
        };
        let header = rewrite::read_header(&file)
            .map_err(OpenError::io("reading", &path))?
            .map_err(|what| corrupt(Position::default(), what))?;
        let copy = self
            .disk
            .create(&temporary, Access::Write)
            .map_err(OpenError::io("creating", &temporary))?;
        let mut out = Copied::new(copy, &header);
        let limit = match self.reach {
            Reach::Synced(limit) => Some(limit),
            Reach::Stopped => None,
        };
        let limit = match (successor, limit) {
            (Some(successor), Some(limit)) => Some(successor.min(limit)),
            (successor, limit) => successor.or(limit),
        };
        let mut frames = FrameScan::new(&file, &header);
        loop {
            let at = frames.end();
            if limit.is_some_and(|limit| at.end_offset >= limit) {
                break;
            }
            let next = frames.next_frame().map_err(OpenError::io("reading", &path))?;
            let lost = match &next {
                Ok(_) => None,
                Err(_) => frames.step_over_lost().map_err(OpenError::io("reading", &path))?,
            };
            let (bytes, end) = match (next, lost) {
                (Ok((frame, position)), _) => (stored(&frame, &file, position), frame.end_offset()),
                (Err(_), Some((lost, position, frame_bytes))) => {
                    (read_bytes(&file, position, frame_bytes), lost.end)
                }
                (Err(why), None) if limit.is_none() => {
                    let seed = Seed::of(&header.incarnation);
                    let proof = scan::synced_beyond(&file, seed, at.end_position, at.end_offset);
                    match proof.map_err(OpenError::io("reading", &path))? {
                        None => break,
                        Some(_) => return Err(corrupt(at.end_position, why.to_string())),
                    }
                }
                (Err(why), None) => return Err(corrupt(at.end_position, why.to_string())),
            };
            if limit.is_some_and(|limit| end > limit) {
                let what = format!("a frame goes on to {end}, past what had been synced");
                return Err(corrupt(at.end_position, what));
            }
            let bytes = bytes.map_err(OpenError::io("reading", &path))?;
            out.write(&bytes).map_err(OpenError::io("writing", &temporary))?;
            self.done.end = end;
        }
        let bytes = out.finish().map_err(OpenError::io("writing", &temporary))?;
        self.done.end = self.done.end.max(name.base_offset);
        self.done.tag = Some(header.tag);
        self.done.copied += 1;
        self.done.copied_bytes += bytes;
        self.name(&temporary, &self.to.join(&file_name))
    }

    /// Beside a server past the page cache, where direct writes leave what was there before; without one
    /// after a sync of what is there.
    fn open_unsealed(&self, path: &Path) -> Result<D::File, OpenError> {
        let access = match self.reach {
            Reach::Synced(_) => Access::Direct,
            Reach::Stopped => Access::Write,
        };
        let opened = self.open_held(path, access);
        if let (Ok(file), Reach::Stopped) = (&opened, self.reach) {
            file.sync_data().map_err(OpenError::io("syncing", path))?;
        }
        if let Ok(file) = opened
            && (access != Access::Direct || is_readable(&file))
        {
            return Ok(file);
        }
        self.open_held(path, Access::Read).map_err(OpenError::io("opening", path))
    }
}

/// Whether a direct file can be read as it is read here: some file systems refuse only that.
fn is_readable<F: DiskFile>(file: &F) -> bool {
    let aligned = file.size().is_ok_and(|size| size.is_multiple_of(ALIGN_BYTES as u64));
    let mut block = DiskBuffer::zeroed(SEGMENT_HEADER_BYTES);
    aligned && file.read_exact_at(block.as_mut_slice(), Position::default()).is_ok()
}

/// A frame's bytes as they are stored: a compressed one is in memory as it is read.
fn stored<F: DiskFile>(frame: &Frame, file: &F, position: Position) -> io::Result<DiskBuffer> {
    read_bytes(file, position, frame.frame_bytes())
}

/// A file that grows by frames.
struct Copied<F> {
    file: F,
    pending: Vec<u8>,
    at: Position,
}

impl<F: DiskFile> Copied<F> {
    fn new(file: F, header: &SegmentHeader) -> Self {
        Copied { file, pending: header.encode().to_vec(), at: Position::default() }
    }

    fn write(&mut self, bytes: &DiskBuffer) -> io::Result<()> {
        self.pending.extend_from_slice(bytes.as_slice());
        if self.pending.len() >= SCAN_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.pending, self.at)?;
        self.at = self.at.plus(self.pending.len() as u64);
        self.pending.clear();
        Ok(())
    }

    /// Syncs it, and gives its length.
    fn finish(mut self) -> io::Result<u64> {
        self.flush()?;
        self.file.sync_data()?;
        Ok(self.at.get())
    }
}
