//! Which segments a directory holds, for those who read it beside or without a server.

use std::{collections::BTreeMap, io, path::Path};

use crate::{
    error::{Corruption, OpenError},
    index::{INDEX_HEADER_BYTES, IndexHeader},
    io::{Access, Disk, DiskFile, is_unreadable},
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

/// A generation of a segment, and which of its files are there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub name: SegmentName,
    pub has_log: bool,
    pub has_index: bool,
}

/// What a start takes of the generations of a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Taken {
    /// It is whole.
    Whole(Found),
    /// The newest that has an index, which is damaged: it alone can count. No older one has a log file, and that of a
    /// generation that another stands for goes before its index; a newer one without an index never counted.
    Alone(Found),
}

/// Those of some generations that can have counted: a rewrite has its index last, so what is behind the newest that has one
/// never did. All of them if none has.
pub(crate) fn counting<T>(generations: &[T], has_index: impl Fn(&T) -> bool) -> &[T] {
    let indexed = generations.iter().rposition(has_index);
    &generations[..indexed.map_or(generations.len(), |newest| newest + 1)]
}

/// What a start takes of several generations of a segment, which come in order: the newest that is whole. `None` if it takes
/// none. Fails by what cannot be read and may be that.
pub(crate) fn taken<D: Disk>(
    disk: &D,
    dir: &Path,
    generations: &[Found],
) -> Result<Option<Taken>, OpenError> {
    let counting = counting(generations, |found| found.has_index);
    let alone = counting.last().filter(|newest| {
        let with_log = counting.iter().filter(|found| found.has_log).count();
        newest.has_log && newest.has_index && with_log == 1
    });
    for found in generations.iter().rev() {
        let is_older = alone.is_some_and(|newest| newest.name != found.name);
        match is_whole(disk, dir, found.name, found.has_log, found.has_index) {
            Ok(true) => return Ok(Some(Taken::Whole(*found))),
            Ok(false) => {}
            Err(OpenError::Io { source, .. }) if is_older && is_unreadable(&source) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(alone.copied().map(Taken::Alone))
}

/// None of the generations of a segment counts for a start.
pub(crate) fn none_counts(dir: &Path, generations: &[Found]) -> OpenError {
    let file = dir.join(generations[0].name.log_file_name());
    let what = format!("none of its {} generations has a sound index", generations.len());
    OpenError::Corrupt(Corruption { file, position: Position::default(), what })
}

/// The segments among these names that begin at `begin` or behind it, in offset order, of each the generation that a start
/// takes: of a log that nobody writes. Where only one can count that one, be its index damaged; where the disk does not give
/// back which, the newest with an index: what is made of it is verified. Else it fails, as nobody knows which counts.
pub(crate) fn stopped_from<D: Disk>(
    disk: &D,
    dir: &Path,
    file_names: &[String],
    begin: Offset,
) -> Result<Vec<Listed>, OpenError> {
    choose_from(file_names, begin, |generations| match taken(disk, dir, generations) {
        Ok(Some(Taken::Whole(found) | Taken::Alone(found))) => Ok(found),
        Ok(None) => Err(none_counts(dir, generations)),
        Err(error) if is_of_unreadable(&error) => {
            newest_indexed(disk, dir, generations)?.ok_or(error)
        }
        Err(error) => Err(error),
    })
}

/// The same for who reads what can be read, or not all of it: where a start takes none, or the disk does not give back which,
/// the newest that has an index.
pub(crate) fn readable_from<D: Disk>(
    disk: &D,
    dir: &Path,
    file_names: &[String],
    begin: Offset,
) -> Result<Vec<Listed>, OpenError> {
    choose_from(file_names, begin, |generations| match taken(disk, dir, generations) {
        Ok(Some(Taken::Whole(found) | Taken::Alone(found))) => Ok(found),
        Err(error) if !is_of_unreadable(&error) => Err(error),
        Ok(None) | Err(_) => {
            let with_log = || generations.iter().find(|found| found.has_log).copied();
            let found = newest_indexed(disk, dir, generations)?.or_else(with_log);
            Ok(found.unwrap_or(generations[0]))
        }
    })
}

/// Whether the disk does not give back a file, and not for now alone.
fn is_of_unreadable(error: &OpenError) -> bool {
    matches!(error, OpenError::Io { source, .. } if is_unreadable(source))
}

/// The newest of some generations that has an index, unless its log file has gone since; be that index damaged.
fn newest_indexed<D: Disk>(
    disk: &D,
    dir: &Path,
    generations: &[Found],
) -> Result<Option<Found>, OpenError> {
    for found in generations.iter().rev().filter(|found| found.has_index) {
        // An error that may pass says nothing of it.
        let is_stub = || match index_header(disk, dir, found.name) {
            Ok(header) => Ok(header.is_some_and(|header| header.is_stub())),
            Err(error) if is_of_unreadable(&error) => Ok(false),
            Err(error) => Err(error),
        };
        if found.has_log || is_stub()? {
            return Ok(Some(*found));
        }
    }
    Ok(None)
}

fn choose_from(
    file_names: &[String],
    begin: Offset,
    choose: impl Fn(&[Found]) -> Result<Found, OpenError>,
) -> Result<Vec<Listed>, OpenError> {
    let mut all: BTreeMap<SegmentName, Found> = BTreeMap::new();
    for (name, file) in file_names.iter().filter_map(|name| SegmentName::parse(name)) {
        let found = all.entry(name).or_insert(Found { name, has_log: false, has_index: false });
        match file {
            SegmentFile::Log => found.has_log = true,
            SegmentFile::Index => found.has_index = true,
        }
    }
    let all: Vec<Found> =
        all.into_values().filter(|found| found.name.base_offset >= begin).collect();
    let same_base = |left: &Found, right: &Found| left.name.base_offset == right.name.base_offset;
    let chosen = all.chunk_by(same_base).map(|generations| {
        let Found { name, has_index, .. } = match generations {
            [only] => *only,
            _ => choose(generations)?,
        };
        Ok(Listed { name, has_index })
    });
    chosen.collect()
}

/// The segments among these names in offset order, of each the newest generation that has an index: a
/// rewrite counts from then on, beside a server.
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
    use crate::testing::TestLog;

    /// Any error at all was taken for damage, and another generation for the one that counts.
    #[test]
    fn an_error_that_may_pass_chooses_no_generation() {
        let mut log = TestLog::new(1);
        log.add_sealed(&vec![vec![("a", vec![7; 700])]; 3]);
        let newer = log.add_cut_short(0, 600);
        let names = log.disk.list(&log.dir).expect("a directory");
        let index = log.path(newer, SegmentFile::Index);
        let readable = || readable_from(&log.disk, &log.dir, &names, Offset::ZERO);
        log.disk.make_unreadable(&index, 512..4096);
        assert_eq!(readable().expect("one of them")[0].name, newer);
        log.disk.remove(&index).expect("a file");
        let error = readable().expect_err("it is gone since it was listed");
        let OpenError::Io { source, .. } = &error else { panic!("{error}") };
        assert_eq!(source.kind(), io::ErrorKind::NotFound);
    }

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
