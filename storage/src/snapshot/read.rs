//! The snapshots of a log's directory: which there are, and what each says.

use std::{io, path::Path};

use crate::{
    error::{Corruption, OpenError},
    io::{Access, Disk, DiskFile},
    offset::{Offset, Position},
    snapshot::{
        SNAPSHOT_HEADER_BYTES, SNAPSHOT_VERSION, Snapshot, SnapshotError, SnapshotHeader,
        file_name, offset_of,
    },
};

/// The offsets of the snapshots among these names, the newest first.
pub(crate) fn offsets(file_names: &[String]) -> Vec<Offset> {
    let mut offsets: Vec<_> = file_names.iter().filter_map(|name| offset_of(name)).collect();
    offsets.sort_unstable_by(|left, right| right.cmp(left));
    offsets
}

/// What is wrong with a snapshot's file.
pub(crate) type Damage = Corruption;

/// Reads the snapshot at an offset, all of which is checked. The inner error says how it is damaged.
pub(crate) fn read<D: Disk>(
    disk: &D,
    dir: &Path,
    offset: Offset,
) -> Result<Result<Snapshot, Damage>, OpenError> {
    let path = dir.join(file_name(offset));
    let bytes = read_bytes(disk, &path, usize::MAX)?;
    let decoded = Snapshot::decode(&bytes);
    check(&path, offset, decoded, |snapshot| snapshot.offset())
}

/// The same of its header alone.
pub(crate) fn read_header<D: Disk>(
    disk: &D,
    dir: &Path,
    offset: Offset,
) -> Result<Result<SnapshotHeader, Damage>, OpenError> {
    let path = dir.join(file_name(offset));
    let bytes = read_bytes(disk, &path, SNAPSHOT_HEADER_BYTES)?;
    check(&path, offset, SnapshotHeader::decode(&bytes), |header| header.offset)
}

/// What snapshots say of the beginning of a log, by their headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    /// The offset of the newest that says that nothing before itself is kept; 0 if there is none. Files of
    /// segments below it count for nothing: it has taken in what they said, and removing them may have been cut
    /// short.
    pub(crate) ground: Offset,
    /// Before it nothing is kept, as any of them says. The stubs that say so too may have been merged into a ground
    /// that is lost.
    from: Offset,
}

impl Kept {
    /// As the good ones of the snapshots at these offsets say.
    pub(crate) fn read<D: Disk>(
        disk: &D,
        dir: &Path,
        offsets: &[Offset],
    ) -> Result<Kept, OpenError> {
        let mut kept = Kept::default();
        for offset in offsets {
            if let Ok(header) = read_header(disk, dir, *offset)? {
                kept.add(&header);
            }
        }
        Ok(kept)
    }

    /// As a start would believe it: those that lie behind the newest whole one say nothing.
    pub(crate) fn sound<D: Disk>(
        disk: &D,
        dir: &Path,
        offsets: &[Offset],
    ) -> Result<Kept, OpenError> {
        for (place, offset) in offsets.iter().enumerate() {
            if read(disk, dir, *offset)?.is_ok() {
                return Kept::read(disk, dir, &offsets[place..]);
            }
        }
        Ok(Kept::default())
    }

    /// Takes in what one more says.
    pub(crate) fn add(&mut self, header: &SnapshotHeader) {
        self.from = self.from.max(header.kept_from);
        if header.kept_from == header.offset {
            self.ground = self.ground.max(header.offset);
        }
    }

    /// Where a log must begin whose first segment, at the ground or behind it, begins at `first`: there, if all
    /// before it is gone on purpose.
    pub(crate) fn begin(&self, first: Option<Offset>) -> Offset {
        first.filter(|first| *first <= self.from).unwrap_or(self.ground).max(self.ground)
    }
}

fn read_bytes<D: Disk>(disk: &D, path: &Path, bytes_max: usize) -> Result<Vec<u8>, OpenError> {
    let file = disk.open(path, Access::Read).map_err(OpenError::io("opening", path))?;
    let size = file.size().map_err(OpenError::io("reading", path))?;
    let len = usize::try_from(size).expect("a file that fits in memory").min(bytes_max);
    let mut bytes = vec![0; len];
    match file.read_exact_at(&mut bytes, Position::default()) {
        // It became shorter meanwhile: it will not be found to be whole.
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
            Err(OpenError::io("reading", path)(error))
        }
        _ => Ok(bytes),
    }
}

fn check<T>(
    path: &Path,
    offset: Offset,
    decoded: Result<T, SnapshotError>,
    offset_in: impl Fn(&T) -> Offset,
) -> Result<Result<T, Damage>, OpenError> {
    let damage = |what: String| {
        Ok(Err(Corruption { file: path.to_owned(), position: Position::default(), what }))
    };
    match decoded {
        Ok(decoded) if offset_in(&decoded) == offset => Ok(Ok(decoded)),
        Ok(decoded) => damage(format!("it says that it is of offset {}", offset_in(&decoded))),
        Err(SnapshotError::NewerVersion { version }) => Err(OpenError::NewerVersion {
            file: path.to_owned(),
            version,
            version_max: SNAPSHOT_VERSION,
        }),
        Err(error) => damage(error.to_string()),
    }
}
