//! Files beside the frames that the disk loses without telling (an index, a snapshot, `earliest`, the end mark), of a log
//! that runs or is stopped, and what must become of the log then: it opens, unless what is lost is said nowhere else, and
//! then the file is named; and a repair brings back a log that opens, and names what it has forgotten.

use std::{
    collections::HashSet,
    ops::Range,
    path::{Path, PathBuf},
};

use strandline_storage::{
    end_mark::END_MARK_FILE_NAME,
    error::OpenError,
    index::{INDEX_HEADER_BYTES, IndexHeader},
    io::sim::{SimDisk, rng::SimRng},
    offset::Position,
    segment::{SegmentFile, SegmentName},
    snapshot,
};

use super::{
    losses::{EARLIEST_FILE_NAME, names},
    simulation::{
        DIR,
        beside::{RottenFile, SLOT_BYTES},
        model::Model,
    },
};

/// What the disk gives back of itself, in bytes.
const SECTOR_BYTES: usize = 512;

/// Damages one of the files beside the frames that is sound; tells how.
pub fn rot_beside(disk: &SimDisk, rng: &mut SimRng, model: &mut Model) -> Option<String> {
    model.look_at_files(disk);
    let path = pick(disk, rng, model)?;
    let bytes = disk.bytes(&path)?;
    let at = rng.index(bytes.len().max(1));
    let sector = at / SECTOR_BYTES * SECTOR_BYTES;
    let sector = sector..bytes.len().min(sector + SECTOR_BYTES);
    let is_slotted =
        [EARLIEST_FILE_NAME, END_MARK_FILE_NAME].iter().any(|name| path.ends_with(name));
    let part = match is_slotted {
        true => at / SLOT_BYTES * SLOT_BYTES..bytes.len().min((at / SLOT_BYTES + 1) * SLOT_BYTES),
        false => 0..bytes.len(),
    };
    // One that is rotten already is lost.
    if model.rotten_files.iter().any(|file| file.path == path && file.part == part) {
        return None;
    }
    let position = Position::new(at as u64);
    let (what, touched) = match rng.below(3) {
        0 => ("a bit flips", at..at + 1),
        1 => ("a sector is garbled", sector),
        _ => ("a sector cannot be read any more", sector),
    };
    if is_beyond_what_is_promised(disk, &path, &touched, &bytes) {
        return None;
    }
    if path.ends_with(EARLIEST_FILE_NAME) {
        model.note_let_go(&bytes);
    }
    match what {
        "a bit flips" => disk.flip_bit(&path, position, 3),
        "a sector is garbled" => disk.garble_sector(&path, position),
        _ => disk.make_unreadable(&path, touched.start as u64..touched.end as u64),
    }
    let told = format!("{what} in {}, at {at}", path.display());
    let after = disk.bytes(&path).expect("it is there")[part.clone()].to_vec();
    let before = bytes[part.clone()].to_vec();
    model.rotten_files.push(RottenFile { path, touched, part, before, after });
    Some(told)
}

/// A file that is sound. Of snapshots one stays so that is behind files that are gone: without any nobody knows why.
fn pick(disk: &SimDisk, rng: &mut SimRng, model: &Model) -> Option<PathBuf> {
    let names = names(disk);
    let segments: Vec<_> = names.iter().filter_map(|name| SegmentName::parse(name)).collect();
    let first = segments.iter().map(|(name, _)| name.base_offset.get()).min();
    let is_index =
        |name: &str| SegmentName::parse(name).is_some_and(|(_, file)| file == SegmentFile::Index);
    let is_snapshot = |name: &str| snapshot::offset_of(name).is_some();
    let may_lose_snapshot = first == Some(0) || model.sound_snapshots(disk).len() > 1;
    let kind = rng.below(10);
    let is_wanted = |name: &&String| match kind {
        0..5 => is_index(name),
        5..7 => is_snapshot(name) && may_lose_snapshot,
        7 => **name == EARLIEST_FILE_NAME,
        _ => **name == END_MARK_FILE_NAME,
    };
    let paths = names.iter().filter(is_wanted).map(|name| Path::new(DIR).join(name));
    let is_slotted = kind >= 7;
    let paths: Vec<_> = paths.filter(|path| is_slotted || !model.is_rotten_file(path)).collect();
    (!paths.is_empty()).then(|| rng.pick(&paths).clone())
}

/// A stub without its header, beside the frames that a removal has left, is taken for a segment.
fn is_beyond_what_is_promised(
    disk: &SimDisk,
    path: &Path,
    touched: &Range<usize>,
    bytes: &[u8],
) -> bool {
    let is_stub = IndexHeader::decode(bytes).is_ok_and(|header| header.is_stub());
    let has_log = disk.bytes(&path.with_extension("log")).is_some();
    is_stub && has_log && touched.start < INDEX_HEADER_BYTES
}

/// What a start that has refused a log may say of it, in which nothing is wrong but that something is rotten.
pub fn may_refuse(disk: &SimDisk, model: &Model, error: &OpenError) -> bool {
    let is_named = |name: &SegmentName, file: &Path| {
        let path = |file| Path::new(DIR).join(name.file_name(file));
        *file == path(SegmentFile::Log) || *file == path(SegmentFile::Index)
    };
    match error {
        OpenError::Corrupt(damage) => model.rotten_files.iter().any(|rotten| {
            let Some(name) = rotten.index_of() else { return false };
            // What its frames would say is lost as well, or what they do not say.
            let is_lost = model.is_rotten(name) || model.only_that_knows(disk, rotten);
            // Or none of two generations is whole.
            let generations = with_log(disk, name);
            let is_none_whole = generations.len() > 1;
            (is_lost && is_named(&name, &damage.file))
                || (is_none_whole && generations.iter().any(|name| is_named(name, &damage.file)))
        }),
        OpenError::Io { file, .. } => model.rotten_files.iter().any(|rotten| {
            if let Some(name) = rotten.index_of()
                && *file == Path::new(DIR).join(name.log_file_name())
            {
                return model.is_rotten(name);
            }
            rotten.is_unreadable()
                && rotten.path == *file
                && match rotten.index_of() {
                    // Nobody knows which generation counts.
                    Some(name) => {
                        generations(disk, name).len() > 1 || model.only_that_knows(disk, rotten)
                    }
                    None => file.ends_with(END_MARK_FILE_NAME) && model.is_mark_rotten(disk),
                }
        }),
        _ => false,
    }
}

/// The generations of a segment that have a file, and those that have one for frames.
fn generations(disk: &SimDisk, name: SegmentName) -> HashSet<SegmentName> {
    let names = names(disk);
    let names = names.iter().filter_map(|name| SegmentName::parse(name)).map(|(name, _)| name);
    names.filter(|other| other.base_offset == name.base_offset).collect()
}

fn with_log(disk: &SimDisk, name: SegmentName) -> HashSet<SegmentName> {
    let names = names(disk);
    let has_log = |name: &SegmentName| names.contains(&name.log_file_name());
    generations(disk, name).into_iter().filter(has_log).collect()
}
