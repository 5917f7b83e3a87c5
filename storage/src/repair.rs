//! Cuts a damaged last segment where its damage begins, and keeps what was cut.
//!
//! Recovery refuses to open a log whose last segment is damaged below what had been synced: only a
//! person may give that up. The cut is made by giving the segment a *successor*:
//!
//! ```text
//! 1  <segment>.log.cut-<n>     what lies behind the cut, copied and synced
//! 2  <offset of the cut>.1.log a new last segment without frames, under a new tag: written and synced
//!                              under a temporary name, then renamed, and the directory synced
//! 3  the damaged file          shortened to the cut
//! ```
//! Step 2 is the cut: a segment that is not the last ends at its successor's first offset, whatever
//! lies behind. It is one rename, so after a crash the log is either as it was or has been cut *and* has
//! its new tag; never one without the other. If nothing is left before the cut, the new file takes the
//! damaged one's name.
//!
//! The new tag is what tells readers with old cursors that events they may have seen are gone.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    buffer::{ALIGN_BYTES, DiskBuffer},
    clock::Now,
    config::SyncMode,
    error::{Corruption, OpenError},
    frame::Seed,
    index::{self, IndexHeader, SegmentEnd},
    io::{Access, Disk, DiskFile, LockMode},
    log::NEXT_FILE_NAME,
    offset::{Offset, Position},
    op::{PrepareJob, RollJob, WriteMode},
    scan::{self, FrameScan},
    segment::{
        FIRST_FRAME_POSITION, Incarnation, SEGMENT_HEADER_BYTES, SEGMENT_VERSION, SegmentFile,
        SegmentHeader, SegmentName, Tag,
    },
    verify::lock_shared,
};

/// How much is copied at once.
const COPY_BYTES: usize = 1 << 20;

/// What a repair would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RepairPlan {
    /// Nothing: the last segment is sound, or there is none.
    Sound,
    /// Cut the last segment.
    Cut(Cut),
    /// Nothing, though the last segment is damaged: it is sealed. Readers step over such damage.
    Sealed(Corruption),
}

/// Where the last segment is cut, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The damage: in which file, and where its cut-off part begins (0: all of it goes).
    pub corruption: Corruption,
    /// Where the log ends afterwards.
    pub end: Offset,
    /// Everything below it had been synced, so at least the events from `end` to here are given up;
    /// `None` if nobody knows.
    pub synced: Option<Offset>,
    name: SegmentName,
}

/// What a repair did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repaired {
    /// Where it cut.
    pub cut: Cut,
    /// Where the cut-off part is kept.
    pub kept: PathBuf,
    /// How many bytes it has.
    pub kept_bytes: u64,
    /// How many of them could not be read, and are zeroes in the copy.
    pub unreadable_bytes: u64,
    /// The log's tag from now on.
    pub tag: Tag,
}

/// Says what a repair of the log in `dir` would do, and changes nothing.
pub fn plan<D: Disk>(disk: &D, dir: &Path) -> Result<RepairPlan, OpenError> {
    let _lock = lock_shared(disk, dir)?;
    find_cut(disk, dir)
}

/// Cuts the last segment of the log in `dir` if [`plan`] says so, and gives the log a new tag.
/// `None` if there was nothing to cut.
pub fn repair<D: Disk>(disk: &D, dir: &Path, now: Now) -> Result<Option<Repaired>, OpenError> {
    let _lock = disk.lock_dir(dir, LockMode::Exclusive).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked { dir: dir.to_owned() },
        _ => OpenError::io("locking", dir)(error),
    })?;
    let RepairPlan::Cut(cut) = find_cut(disk, dir)? else { return Ok(None) };
    let path = cut.corruption.file.clone();
    let (kept, kept_bytes, unreadable_bytes) = keep_aside(disk, dir, &cut)?;
    let tag = Tag::random();
    let replaces = cut.end == cut.name.base_offset;
    let name = if replaces { cut.name } else { SegmentName::first_generation(cut.end) };
    begin_successor(disk, dir, name, tag, now)?;
    if replaces {
        remove_index(disk, dir, name)?;
    } else {
        let shorten = || {
            let file = disk.open(&path, Access::Write)?;
            file.set_size(cut.corruption.position.get())?;
            file.sync_data()
        };
        shorten().map_err(OpenError::io("shortening", &path))?;
    }
    Ok(Some(Repaired { cut, kept, kept_bytes, unreadable_bytes, tag }))
}

fn find_cut<D: Disk>(disk: &D, dir: &Path) -> Result<RepairPlan, OpenError> {
    let names = disk.list(dir).map_err(OpenError::io("listing", dir))?;
    let last = names
        .iter()
        .filter_map(|name| SegmentName::parse(name))
        .filter(|(_, file)| *file == SegmentFile::Log)
        .map(|(name, _)| name)
        .max();
    let Some(name) = last else { return Ok(RepairPlan::Sound) };
    let path = dir.join(name.log_file_name());
    let file = disk.open(&path, Access::Read).map_err(OpenError::io("opening", &path))?;
    let index = if names.contains(&name.index_file_name()) {
        read_index_header(disk, &dir.join(name.index_file_name()))?
    } else {
        None
    };

    let mut bytes = vec![0; SEGMENT_HEADER_BYTES];
    match file.read_exact_at(&mut bytes, Position::default()) {
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
            return Err(OpenError::io("reading", &path)(error));
        }
        _ => {}
    }
    let header = SegmentHeader::decode(&bytes).map_err(|error| error.to_string());
    let header = header.and_then(|header| match header.base_offset == name.base_offset {
        true => Ok(header),
        false => Err(format!("its header says that it begins at {}", header.base_offset)),
    });
    let corruption = |position, what| Corruption { file: path.clone(), position, what };
    let header = match header {
        Ok(header) => header,
        Err(what) if index.is_some() => {
            return Ok(RepairPlan::Sealed(corruption(Position::default(), what)));
        }
        Err(what) => {
            let corruption = corruption(Position::default(), what);
            let end = name.base_offset;
            return Ok(RepairPlan::Cut(Cut { corruption, end, synced: None, name }));
        }
    };

    let sealed_end =
        index.filter(|index| index.belongs_to(&header)).map(|index| index.end_position);
    let (end, what) =
        scan_to_damage(&file, &header, sealed_end).map_err(OpenError::io("reading", &path))?;
    let (end_position, end_offset) = (end.end_position, end.end_offset);
    if let Some(sealed_end) = sealed_end {
        return Ok(match end_position < sealed_end {
            true => RepairPlan::Sealed(corruption(end_position, what)),
            false => RepairPlan::Sound,
        });
    }
    let seed = Seed::of(&header.incarnation);
    let proof = scan::synced_beyond(&file, seed, end_position, end_offset)
        .map_err(OpenError::io("reading", &path))?;
    let Some((_, synced)) = proof else { return Ok(RepairPlan::Sound) };
    let position = if end_offset == name.base_offset { Position::default() } else { end_position };
    let corruption = corruption(position, what);
    Ok(RepairPlan::Cut(Cut { corruption, end: end_offset, synced: Some(synced), name }))
}

/// The header of an index, if all of it is sound: otherwise recovery does not believe it either.
fn read_index_header<D: Disk>(disk: &D, path: &Path) -> Result<Option<IndexHeader>, OpenError> {
    let read = || {
        let file = disk.open(path, Access::Read)?;
        let mut bytes = vec![0; usize::try_from(file.size()?).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, Position::default())?;
        Ok(bytes)
    };
    let bytes = read().map_err(OpenError::io("reading", path))?;
    Ok(index::check_all(&bytes).ok().map(|index| index.header().clone()))
}

/// Goes over the frames up to the first that is damaged, or to `end`: where that is, and what stands
/// there.
fn scan_to_damage<F: DiskFile>(
    file: &F,
    header: &SegmentHeader,
    end: Option<Position>,
) -> io::Result<(SegmentEnd, String)> {
    let mut frames = FrameScan::new(file, header);
    loop {
        let last = frames.end();
        if end.is_some_and(|end| last.end_position >= end) {
            return Ok((last, String::new()));
        }
        if let Err(why) = frames.next_frame()? {
            return Ok((last, why.to_string()));
        }
    }
}

/// Copies what lies behind the cut into a file beside the segment, durably. Returns its path, its
/// length, and how much of it could not be read.
fn keep_aside<D: Disk>(disk: &D, dir: &Path, cut: &Cut) -> Result<(PathBuf, u64, u64), OpenError> {
    let path = &cut.corruption.file;
    let (kept_path, kept) = create_aside(disk, dir, cut.name)?;
    let file = disk.open(path, Access::Read).map_err(OpenError::io("opening", path))?;
    let size = file.size().map_err(OpenError::io("reading", path))?;
    let start = cut.corruption.position;
    let (mut at, mut used, mut unreadable) = (start, 0, 0);
    let mut buffer = DiskBuffer::zeroed(COPY_BYTES);
    while at.get() < size {
        let rest = usize::try_from(size - at.get()).unwrap_or(usize::MAX);
        buffer.clear();
        buffer.extend_zeroes(rest.min(COPY_BYTES));
        if file.read_exact_at(buffer.as_mut_slice(), at).is_err() {
            unreadable += read_piecewise(&file, buffer.as_mut_slice(), at);
        }
        let target = at.get() - start.get();
        if let Some(last) = buffer.as_slice().iter().rposition(|byte| *byte != 0) {
            let bytes = &buffer.as_slice()[..=last];
            write_all(&kept, bytes, Position::new(target))
                .map_err(OpenError::io("writing", &kept_path))?;
            used = target + bytes.len() as u64;
        }
        at = at.plus(buffer.len() as u64);
    }
    kept.sync_data().map_err(OpenError::io("syncing", &kept_path))?;
    disk.sync_dir(dir).map_err(OpenError::io("syncing the directory", dir))?;
    Ok((kept_path, used, unreadable))
}

/// A new file for what is cut off a segment.
fn create_aside<D: Disk>(
    disk: &D,
    dir: &Path,
    name: SegmentName,
) -> Result<(PathBuf, D::File), OpenError> {
    let mut number = 1;
    loop {
        let path = dir.join(format!("{}.cut-{number}", name.log_file_name()));
        match disk.create(&path, Access::Write) {
            Ok(file) => return Ok((path, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(OpenError::io("creating", &path)(error)),
        }
    }
}

/// Reads what can be read, in pieces of a block; the rest becomes zeroes. Returns how much that is.
fn read_piecewise<F: DiskFile>(file: &F, bytes: &mut [u8], position: Position) -> u64 {
    let mut unreadable = 0;
    for (index, piece) in bytes.chunks_mut(ALIGN_BYTES).enumerate() {
        if file.read_exact_at(piece, position.plus((index * ALIGN_BYTES) as u64)).is_err() {
            piece.fill(0);
            unreadable += piece.len() as u64;
        }
    }
    unreadable
}

fn write_all<F: DiskFile>(file: &F, bytes: &[u8], position: Position) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match file.write_at(&bytes[done..], position.plus(done as u64))? {
            0 => return Err(io::ErrorKind::StorageFull.into()),
            written => done += written,
        }
    }
    Ok(())
}

/// Removes an index that was of no use, and whose log file is gone.
fn remove_index<D: Disk>(disk: &D, dir: &Path, name: SegmentName) -> Result<(), OpenError> {
    let path = dir.join(name.index_file_name());
    match disk.remove(&path) {
        Ok(()) => disk.sync_dir(dir).map_err(OpenError::io("syncing the directory", dir)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(OpenError::io("removing", &path)(error)),
    }
}

/// Makes a new last segment without frames. Its sync mode is `commit`: that nothing is lost of it
/// holds, as nothing is in it, and so the next start keeps its tag.
fn begin_successor<D: Disk>(
    disk: &D,
    dir: &Path,
    name: SegmentName,
    tag: Tag,
    now: Now,
) -> Result<(), OpenError> {
    let temporary = dir.join(NEXT_FILE_NAME);
    let path = dir.join(name.log_file_name());
    let prepare =
        PrepareJob { path: temporary.clone(), mode: WriteMode::Buffered, to: FIRST_FRAME_POSITION };
    let next = prepare.run(disk).map_err(OpenError::io("preparing", &temporary))?;
    let header = SegmentHeader {
        version: SEGMENT_VERSION,
        base_offset: name.base_offset,
        created_at_ms: now.wall_ms,
        incarnation: Incarnation::random(),
        tag,
        sync: SyncMode::Commit,
    };
    let roll = RollJob { next, header, dir: dir.to_owned(), from: temporary, to: path.clone() };
    roll.run(disk).map_err(OpenError::io("creating", &path)).map(|_| ())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        config::LogConfig,
        event::NewEvent,
        io::sim::{SimDisk, rng::SimRng},
        log::Log,
        reader::{ReadQuery, Reader},
        selection::Order,
        topic::Topic,
        verify::verify,
    };

    const DIR: &str = "/log";

    fn now() -> Now {
        Now { wall_ms: 1_700_000_000_000, boot_ms: 1 }
    }

    fn config() -> LogConfig {
        LogConfig {
            segment_bytes: 128 << 10,
            preallocate_bytes_min: 16 << 10,
            preallocate_bytes_max: 32 << 10,
            ..LogConfig::default()
        }
    }

    fn open(disk: &SimDisk) -> Result<Log<SimDisk>, OpenError> {
        Log::open(disk.clone(), Path::new(DIR), config(), now()).map(|(log, _)| log)
    }

    /// A log of so many events, each in a frame of its own, whose process was killed. Its tag, and
    /// the disk as the next process has it.
    fn killed_log(seed: u64, events: usize) -> (Tag, SimDisk) {
        let disk = SimDisk::new(seed);
        let mut log = open(&disk).expect("a new log");
        for number in 0..events {
            let topic = Topic::parse("a").expect("a topic");
            let data = Bytes::from(number.to_string().into_bytes());
            log.append(vec![NewEvent::json(topic, data)], now()).expect("staged");
            log.run_ops(now());
        }
        assert_eq!(log.visible(), Offset::new(events as u64));
        (*log.tag(), disk.kill())
    }

    fn events_of(log: &Log<SimDisk>) -> Vec<String> {
        let query = ReadQuery {
            topics: Vec::new(),
            from: Offset::ZERO,
            end: Offset::MAX,
            order: Order::Ascending,
        };
        let mut reader = Reader::new(log.segments().clone(), &query);
        let mut events = Vec::new();
        while let Some(hits) = reader.next_blocking().expect("a sound log") {
            let data =
                hits.events().map(|event| String::from_utf8_lossy(event.data()).into_owned());
            events.extend(data);
        }
        events
    }

    fn last_log_path(disk: &SimDisk) -> PathBuf {
        let mut names = disk.list(Path::new(DIR)).expect("the directory");
        names.retain(|name| name.ends_with(".log"));
        Path::new(DIR).join(names.iter().max().expect("a segment"))
    }

    fn cut_of(disk: &SimDisk) -> Cut {
        match plan(disk, Path::new(DIR)).expect("not in use") {
            RepairPlan::Cut(cut) => cut,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_sound_log_needs_no_repair() {
        let disk = SimDisk::new(1);
        disk.create_dir(Path::new(DIR)).expect("an empty disk");
        assert_eq!(plan(&disk, Path::new(DIR)).expect("not in use"), RepairPlan::Sound);
        let (tag, disk) = killed_log(1, 10);
        assert_eq!(plan(&disk, Path::new(DIR)).expect("not in use"), RepairPlan::Sound);
        assert_eq!(repair(&disk, Path::new(DIR), now()).expect("not in use"), None);
        assert_eq!(*open(&disk).expect("sound").tag(), tag);
    }

    /// Damage in the middle of the last segment: what was before it stays, what was behind it is kept
    /// aside, the log opens, and has another tag.
    #[test]
    fn a_damaged_last_segment_is_cut_and_the_rest_kept() {
        for seed in 0..20 {
            let rng = &mut SimRng::new(seed);
            let (tag, disk) = killed_log(seed, 10);
            let path = last_log_path(&disk);
            let before = disk.bytes(&path).expect("a file");
            let frame = rng.between(0, 8);
            let position = Position::new((frame + 1) * 4096 + rng.below(64));
            disk.flip_bit(&path, position, 2);
            assert!(matches!(open(&disk), Err(OpenError::Corrupt(_))), "seed {seed}");

            let cut = cut_of(&disk);
            assert_eq!(cut.end, Offset::new(frame), "seed {seed}");
            assert!(cut.synced > Some(cut.end), "seed {seed}");
            let repaired = repair(&disk, Path::new(DIR), now()).expect("a disk that works");
            let repaired = repaired.expect("something to cut");
            assert_eq!((&repaired.cut, repaired.unreadable_bytes), (&cut, 0));
            let kept = disk.bytes(&repaired.kept).expect("the part that was cut off");
            let start = usize::try_from(cut.corruption.position.get()).expect("small");
            let mut expected = before[start..].to_vec();
            let flipped = usize::try_from(position.get()).expect("small") - start;
            expected[flipped] ^= 1 << 2;
            expected.truncate(kept.len());
            assert_eq!(kept, expected, "seed {seed}");
            assert!(before[start + kept.len()..].iter().all(|byte| *byte == 0));

            let found = verify(&disk, Path::new(DIR), &mut |finding| panic!("{finding}"));
            assert_eq!(found.expect("not in use").end, Offset::new(frame));
            let log = open(&disk).expect("it was repaired");
            assert_eq!((*log.tag(), log.visible()), (repaired.tag, Offset::new(frame)));
            assert_ne!(*log.tag(), tag);
            let expected: Vec<String> = (0..frame).map(|number| number.to_string()).collect();
            assert_eq!(events_of(&log), expected, "seed {seed}");
        }
    }

    #[test]
    fn a_segment_without_a_header_goes_whole() {
        let (tag, disk) = killed_log(3, 10);
        let path = last_log_path(&disk);
        disk.flip_bit(&path, Position::new(30), 1);
        let cut = cut_of(&disk);
        assert_eq!((cut.end, cut.synced), (Offset::ZERO, None));
        let repaired = repair(&disk, Path::new(DIR), now()).expect("works").expect("cut");
        assert!(repaired.kept_bytes > 10 * 4096);
        let log = open(&disk).expect("it was repaired");
        assert_eq!((*log.tag(), log.next()), (repaired.tag, Offset::ZERO));
        assert_ne!(*log.tag(), tag);
    }

    #[test]
    fn what_cannot_be_read_is_zeroes_in_the_copy() {
        let (_, disk) = killed_log(4, 10);
        let path = last_log_path(&disk);
        disk.flip_bit(&path, Position::new(30), 1);
        disk.make_unreadable(&path, 3 * 4096 + 5..3 * 4096 + 6);
        let repaired = repair(&disk, Path::new(DIR), now()).expect("works").expect("cut");
        assert_eq!(repaired.unreadable_bytes, 4096);
        assert!(open(&disk).is_ok());
    }

    #[test]
    fn a_sealed_segment_is_left_alone() {
        let (_, disk) = killed_log(5, 10);
        drop(open(&disk).expect("recovery seals it"));
        let disk = disk.kill();
        let sealed =
            Path::new(DIR).join(SegmentName::first_generation(Offset::ZERO).log_file_name());
        disk.remove(&last_log_path(&disk)).expect("the new segment, which is empty");
        disk.flip_bit(&sealed, Position::new(3 * 4096 + 10), 1);
        let before = disk.bytes(&sealed);
        let plan = plan(&disk, Path::new(DIR)).expect("not in use");
        assert!(matches!(&plan, RepairPlan::Sealed(damage) if damage.position.get() == 3 * 4096));
        assert_eq!(repair(&disk, Path::new(DIR), now()).expect("not in use"), None);
        assert_eq!(disk.bytes(&sealed), before);
    }

    /// A power cut in the middle of a repair: the log is as it was, or it has been cut and has its new
    /// tag.
    #[test]
    fn a_crash_never_leaves_a_cut_log_with_its_old_tag() {
        let damaged_log = |seed| {
            let (tag, disk) = killed_log(seed, 6);
            disk.flip_bit(&last_log_path(&disk), Position::new(3 * 4096 + 10), 1);
            (tag, disk)
        };
        let (_, disk) = damaged_log(0);
        let before = disk.operations();
        repair(&disk, Path::new(DIR), now()).expect("works").expect("cut");
        let operations = disk.operations() - before;
        let mut cut_ones = 0;
        for seed in 1..=operations {
            let (tag, disk) = damaged_log(seed);
            disk.crash_after(Some(seed));
            let repaired = repair(&disk, Path::new(DIR), now());
            let disk = disk.power_cut();
            match open(&disk) {
                Ok(log) => {
                    cut_ones += 1;
                    assert_ne!(*log.tag(), tag, "seed {seed}");
                    assert_eq!(log.visible(), Offset::new(2), "seed {seed}");
                }
                Err(error) => {
                    assert!(matches!(error, OpenError::Corrupt(_)), "seed {seed}: {error}");
                    assert!(repaired.is_err(), "seed {seed}");
                    let again = repair(&disk, Path::new(DIR), now()).expect("works");
                    assert!(again.is_some(), "seed {seed}");
                    assert_ne!(*open(&disk).expect("it was repaired").tag(), tag, "seed {seed}");
                }
            }
        }
        assert!(cut_ones > 0 && cut_ones < operations, "{cut_ones} of {operations}");
    }
}
