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
    let file = disk.open(&path, Access::Read).map_err(OpenError::io("opening", &path))?;
    let size = file.size().map_err(OpenError::io("reading", &path))?;
    let read = |position, bytes: &mut [u8]| read_at(&file, bytes, position);
    let decoded = Snapshot::read(size, read).map_err(OpenError::io("reading", &path))?;
    check(&path, offset, decoded, |snapshot| snapshot.offset())
}

/// The same of its header alone.
pub(crate) fn read_header<D: Disk>(
    disk: &D,
    dir: &Path,
    offset: Offset,
) -> Result<Result<SnapshotHeader, Damage>, OpenError> {
    let path = dir.join(file_name(offset));
    check(&path, offset, decode_header(disk, &path)?, |header| header.offset)
}

/// Whether a file is a snapshot of another offset than its name says, of which nothing is known then.
pub(crate) fn is_misnamed<D: Disk>(
    disk: &D,
    dir: &Path,
    offset: Offset,
) -> Result<bool, OpenError> {
    let decoded = passed_over(decode_header(disk, &dir.join(file_name(offset))))?;
    Ok(decoded.is_some_and(|header| header.offset != offset))
}

fn decode_header<D: Disk>(
    disk: &D,
    path: &Path,
) -> Result<Result<SnapshotHeader, SnapshotError>, OpenError> {
    let file = disk.open(path, Access::Read).map_err(OpenError::io("opening", path))?;
    let size = file.size().map_err(OpenError::io("reading", path))?;
    let len = usize::try_from(size);
    let len = len.map_or(SNAPSHOT_HEADER_BYTES, |size| size.min(SNAPSHOT_HEADER_BYTES));
    let mut bytes = vec![0; len];
    read_at(&file, &mut bytes, 0).map_err(OpenError::io("reading", path))?;
    Ok(SnapshotHeader::decode(&bytes))
}

/// Where a log begins whose snapshots, the newest first, are these: as a start would believe them. Files of segments
/// before it count for nothing: removing them may have been cut short. 0 if none is whole.
///
/// The newest that is whole knows all that was before it. What is damaged or cannot be read says nothing.
pub(crate) fn begin<D: Disk>(
    disk: &D,
    dir: &Path,
    offsets: &[Offset],
) -> Result<Offset, OpenError> {
    Ok(known_begin(disk, dir, offsets)?.unwrap_or_default())
}

/// The same; `None` if none is whole, so that nobody knows.
pub(crate) fn known_begin<D: Disk>(
    disk: &D,
    dir: &Path,
    offsets: &[Offset],
) -> Result<Option<Offset>, OpenError> {
    for (place, offset) in offsets.iter().enumerate() {
        if let Some(whole) = passed_over(read(disk, dir, *offset))? {
            return begin_by(disk, dir, whole.header(), &offsets[place + 1..]).map(Some);
        }
    }
    Ok(None)
}

/// The same, by one that is whole and those before it: of them the headers alone are read, as it knows what they do.
pub(crate) fn begin_by<D: Disk>(
    disk: &D,
    dir: &Path,
    whole: &SnapshotHeader,
    older: &[Offset],
) -> Result<Offset, OpenError> {
    let mut begin = whole.kept_from;
    for offset in older {
        if let Some(header) = passed_over(read_header(disk, dir, *offset))? {
            begin = begin.max(header.kept_from);
        }
    }
    Ok(begin)
}

/// `None` of what is damaged or cannot be read. One that is gone is another matter: beside a server another has come
/// in its place.
pub(crate) fn passed_over<T, E>(
    result: Result<Result<T, E>, OpenError>,
) -> Result<Option<T>, OpenError> {
    match result {
        Ok(read) => Ok(read.ok()),
        Err(OpenError::Io { source, .. }) if source.kind() != io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The error for a log that ends before a snapshot of it.
pub(crate) fn ends_before(dir: &Path, newest: Offset, end: Offset) -> OpenError {
    OpenError::Corrupt(lost_behind(&dir.join(file_name(newest)), newest, end))
}

/// What is wrong with a log that ends before what this file says of it: a snapshot, or the end mark.
pub(crate) fn lost_behind(file: &Path, synced: Offset, end: Offset) -> Damage {
    let what = format!(
        "the log ends at offset {end}, but had been synced up to {synced} when this was made"
    );
    Corruption { file: file.to_owned(), position: Position::default(), what }
}

/// Reads a part of a snapshot.
fn read_at(file: &impl DiskFile, bytes: &mut [u8], position: u64) -> io::Result<()> {
    match file.read_exact_at(bytes, Position::new(position)) {
        // It became shorter meanwhile: it will not be found to be whole.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            bytes.fill(0);
            Ok(())
        }
        result => result,
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
