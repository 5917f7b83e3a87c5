//! Which segments a directory holds, for those who read it beside or without a server.

use std::{collections::BTreeMap, io, path::Path};

use crate::{
    error::OpenError,
    index::{INDEX_HEADER_BYTES, IndexHeader},
    io::{Access, Disk, DiskFile},
    offset::{Offset, Position},
    segment::{SegmentFile, SegmentName},
    segment_set::SealedSegment,
    stored_index::StoredIndex,
};

/// A segment by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub name: SegmentName,
    pub has_index: bool,
}

/// The segments among these names in offset order, of each the newest generation that has an index: a
/// rewrite counts from then on.
pub(crate) fn segments(file_names: &[String]) -> Vec<Listed> {
    let mut all: BTreeMap<SegmentName, bool> = BTreeMap::new();
    for (name, file) in file_names.iter().filter_map(|name| SegmentName::parse(name)) {
        *all.entry(name).or_insert(false) |= file == SegmentFile::Index;
    }
    let mut chosen: Vec<Listed> = Vec::with_capacity(all.len());
    for (name, has_index) in all {
        match chosen.last_mut() {
            Some(last) if last.name.base_offset == name.base_offset => {
                if has_index {
                    *last = Listed { name, has_index };
                }
            }
            _ => chosen.push(Listed { name, has_index }),
        }
    }
    chosen
}

/// The same of those that begin at an offset or behind it: where a snapshot says that nothing before is kept.
pub(crate) fn segments_from(file_names: &[String], begin: Offset) -> Vec<Listed> {
    let mut all = segments(file_names);
    all.retain(|listed| listed.name.base_offset >= begin);
    all
}

/// The stubs among these names that lie before `begin`, where the newest snapshot says that a log begins: an older
/// one may need them, should that be damaged.
pub(crate) fn stubs_before<D: Disk>(
    disk: &D,
    dir: &Path,
    file_names: &[String],
    begin: Offset,
) -> Result<Vec<SegmentName>, OpenError> {
    let mut stubs = Vec::new();
    for Listed { name, has_index } in segments(file_names) {
        if name.base_offset < begin && has_index && is_stub(disk, dir, name)? {
            stubs.push(name);
        }
    }
    Ok(stubs)
}

/// Whether a segment is a sound stub, as far as its header says. One that cannot be read is none; one that is gone is
/// another matter.
pub(crate) fn is_stub<D: Disk>(disk: &D, dir: &Path, name: SegmentName) -> Result<bool, OpenError> {
    match index_header(disk, dir, name) {
        Ok(header) => Ok(header.is_some_and(|header| header.is_stub())),
        Err(OpenError::Io { source, .. }) if source.kind() != io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether a generation, of which these files are there, has its log file, and an index that is sound and belongs to it; or is a
/// stub.
pub(crate) fn is_whole<D: Disk>(
    disk: &D,
    dir: &Path,
    name: SegmentName,
    has_log: bool,
    has_index: bool,
) -> Result<bool, OpenError> {
    if !has_index {
        return Ok(false);
    }
    let Some(index) = StoredIndex::read(disk, &dir.join(name.index_file_name()))? else {
        return Ok(false);
    };
    if index.header().is_stub() || !has_log {
        return Ok(index.header().is_stub());
    }
    match SealedSegment::open(disk, dir, name) {
        Ok(_) => Ok(true),
        Err(OpenError::Corrupt(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The header of a segment's index; `None` if it is damaged.
pub(crate) fn index_header<D: Disk>(
    disk: &D,
    dir: &Path,
    name: SegmentName,
) -> Result<Option<IndexHeader>, OpenError> {
    let path = dir.join(name.index_file_name());
    let file = disk.open(&path, Access::Read).map_err(OpenError::io("opening", &path))?;
    let mut bytes = vec![0; INDEX_HEADER_BYTES];
    match file.read_exact_at(&mut bytes, Position::default()) {
        Ok(()) => Ok(IndexHeader::decode(&bytes).ok()),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(OpenError::io("reading", &path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_generation_with_an_index_counts() {
        let names = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| format!("{name:0>26}")).collect();
            let listed = segments(&names);
            listed
                .iter()
                .map(|listed| {
                    let SegmentName { base_offset, generation } = listed.name;
                    (base_offset.get(), generation, listed.has_index)
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&["9.1.log", "9.1.idx", "9.2.log"]), [(9, 1, true)]);
        assert_eq!(names(&["9.1.log", "9.2.idx", "9.2.log"]), [(9, 2, true)]);
        assert_eq!(names(&["9.1.log", "9.2.log", "0.3.log"]), [(0, 3, false), (9, 1, false)]);
        assert_eq!(names(&["9.1.idx", "x", "next.log.tmp"]), [(9, 1, true)]);
    }
}
