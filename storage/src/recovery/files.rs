//! Which files of a directory are the log: the newest whole generation of each segment, the newest good snapshot.

use std::{collections::BTreeMap, path::Path};

use crate::{
    error::OpenError,
    io::{Disk, is_unreadable},
    listing::{self, Taken},
    offset::Offset,
    reserve::RESERVE_FILE_NAME,
    seal,
    segment::{SegmentFile, SegmentName},
    snapshot::{self, Snapshot, read},
};

pub(super) use crate::listing::Found;

/// Removes temporary files, and lists the segments in offset order, and the offsets of the snapshots, the newest
/// first.
pub(super) fn list_files<D: Disk>(
    disk: &D,
    dir: &Path,
) -> Result<(Vec<Found>, Vec<Offset>), OpenError> {
    let mut snapshots = Vec::new();
    let mut segments: BTreeMap<SegmentName, Found> = BTreeMap::new();
    for file_name in disk.list(dir).map_err(OpenError::io("listing", dir))? {
        if file_name == RESERVE_FILE_NAME {
            // It is for a start that finds no space otherwise.
        } else if file_name.ends_with(seal::TEMPORARY_ENDING) {
            let path = dir.join(file_name);
            disk.remove(&path).map_err(OpenError::io("removing", &path))?;
        } else if let Some((name, file)) = SegmentName::parse(&file_name) {
            let found =
                segments.entry(name).or_insert(Found { name, has_log: false, has_index: false });
            match file {
                SegmentFile::Log => found.has_log = true,
                SegmentFile::Index => found.has_index = true,
            }
        } else if let Some(offset) = snapshot::offset_of(&file_name) {
            snapshots.push(offset);
        }
        // Whatever else lies there is not ours to judge: a person may have put it there.
    }
    snapshots.sort_unstable_by(|left, right| right.cmp(left));
    Ok((segments.into_values().collect(), snapshots))
}

/// The newest good one of the snapshots, which come newest first; and what is wrong with the newest that is not: it is
/// damaged, or the disk does not give it back. One that may be readable later keeps the log from being opened if no other
/// is good.
pub(super) fn newest_snapshot<D: Disk>(
    disk: &D,
    dir: &Path,
    offsets: &[Offset],
) -> Result<(Option<Snapshot>, Option<OpenError>), OpenError> {
    let (mut lost, mut hidden) = (None, None);
    for offset in offsets {
        match read::read(disk, dir, *offset) {
            Ok(Ok(snapshot)) => return Ok((Some(snapshot), lost)),
            Ok(Err(damage)) => lost = lost.or(Some(OpenError::Corrupt(damage))),
            Err(error) => match &error {
                OpenError::Io { source, .. } if is_unreadable(source) => {
                    lost = lost.or(Some(error))
                }
                OpenError::Io { .. } => hidden = hidden.or(Some(error)),
                _ => return Err(error),
            },
        }
    }
    hidden.map_or(Ok((None, lost)), Err)
}

/// Of each segment, the newest generation that is whole; the others are removed. A rewrite counts once
/// its index is whole: what is left of one that was cut short goes, and so does what it replaced. Generations that are to go
/// once the index of the one that counts is made anew are added to `outlived`.
pub(super) fn newest_generations<D: Disk>(
    disk: &D,
    dir: &Path,
    found: Vec<Found>,
    outlived: &mut Vec<SegmentName>,
) -> Result<Vec<Found>, OpenError> {
    let mut newest: Vec<Found> = Vec::with_capacity(found.len());
    let same_base = |left: &Found, right: &Found| left.name.base_offset == right.name.base_offset;
    for generations in found.chunk_by(same_base) {
        let [only] = generations else {
            newest.push(choose(disk, dir, generations, outlived)?);
            continue;
        };
        newest.push(*only);
    }
    Ok(newest)
}

fn choose<D: Disk>(
    disk: &D,
    dir: &Path,
    generations: &[Found],
    outlived: &mut Vec<SegmentName>,
) -> Result<Found, OpenError> {
    let found = match listing::taken(disk, dir, generations)? {
        Some(Taken::Whole(found)) => found,
        Some(Taken::Alone(alone)) => {
            let names = generations.iter().map(|found| found.name);
            outlived.extend(names.filter(|name| *name != alone.name));
            return Ok(alone);
        }
        None => return Err(listing::none_counts(dir, generations)),
    };
    // After a kill these names are perhaps what the kernel alone knows: a power cut could take them
    // back, and keep the removals.
    disk.sync_dir(dir).map_err(OpenError::io("syncing the directory", dir))?;
    for other in generations.iter().filter(|other| other.name != found.name) {
        let files = [
            (other.has_log, other.name.log_file_name()),
            (other.has_index, other.name.index_file_name()),
        ];
        for (_, file_name) in files.into_iter().filter(|(is_there, _)| *is_there) {
            let path = dir.join(file_name);
            disk.remove(&path).map_err(OpenError::io("removing", &path))?;
        }
    }
    Ok(found)
}
