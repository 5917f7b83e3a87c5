//! The file of an end mark: read, written anew, written in place.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    END_MARK_FILE_NAME, END_MARK_VERSION, EndMark, EndMarkError, Latest, SLOT_BYTES, SLOTS,
    steps::{self, LatestSteps, STEPS_VERSION},
};
use crate::{
    active_file::is_refusal,
    buffer::DiskBuffer,
    clock::PastStep,
    error::{Corruption, OpenError},
    io::{Access, Disk, DiskFile, is_full},
    offset::{Offset, Position},
    seal::TEMPORARY_ENDING,
    segment::SegmentName,
};

/// See [`crate::op::Job::Mark`].
pub struct MarkJob {
    pub(crate) dir: PathBuf,
    pub(crate) mark: EndMark,
    /// All that are known.
    pub(crate) steps: Vec<PastStep>,
    /// How often they had changed by then.
    pub(crate) steps_noted: u64,
    /// The file does not say them yet.
    pub(crate) has_new_steps: bool,
    /// The write before this one failed. The page cache may show of it what the device does not have, and so the
    /// wrong slot as the one that counts: a new file it is.
    pub(crate) is_anew: bool,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkWritten {
    /// All of it.
    All,
    /// But for the steps: they have no place in the file, and the disk has none for another.
    WithoutSteps,
}

impl MarkJob {
    /// Writes the mark, durably, into the slot that does not count, and steps likewise. That needs no space; a file that is
    /// gone, or is none any more, or has no place for steps, is made anew.
    pub(crate) fn run<D: Disk>(&self, disk: &D) -> io::Result<MarkWritten> {
        let anew = || anew(disk, &self.dir, &self.mark, &self.steps).map(|()| MarkWritten::All);
        if self.is_anew {
            return anew();
        }
        let path = self.dir.join(END_MARK_FILE_NAME);
        let slots = match disk.open(&path, Access::Read) {
            Ok(file) => read_slots(&file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Slots::default(),
            Err(error) => return Err(error),
        };
        let Ok(latest) = slots.mark() else { return anew() };
        let steps = slots.steps();
        if self.has_new_steps && steps.is_err() {
            match anew() {
                // The mark has its place all the same.
                Err(error) if is_full(&error) => {}
                written => return written,
            }
        }
        let (slot, sequence) = latest.next();
        write_slot(disk, &path, slot, &self.mark.encode(sequence))?;
        if !self.has_new_steps {
            return Ok(MarkWritten::All);
        }
        let Ok(latest) = steps else { return Ok(MarkWritten::WithoutSteps) };
        let (slot, sequence) = latest.next();
        write_slot(disk, &path, SLOTS + slot, &steps::encode(&self.steps, sequence))?;
        Ok(MarkWritten::All)
    }
}

fn write_slot<D: Disk>(disk: &D, path: &Path, slot: usize, content: &[u8]) -> io::Result<()> {
    let mut bytes = DiskBuffer::default();
    bytes.extend_from_slice(content);
    let position = Position::new((slot * SLOT_BYTES) as u64);
    let direct = disk
        .open(path, Access::DirectSync)
        .and_then(|file| write_whole(&file, bytes.as_slice(), position));
    match direct {
        Err(error) if is_refusal(&error) => {
            let file = disk.open(path, Access::Write)?;
            write_whole(&file, bytes.as_slice(), position)?;
            file.sync_data()
        }
        written => written,
    }
}

fn write_whole<F: DiskFile>(file: &F, bytes: &[u8], position: Position) -> io::Result<()> {
    match file.write_at(bytes, position)? {
        written if written == bytes.len() => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::WriteZero, "short write")),
    }
}

/// Makes a new file of a mark and of steps, both slots of which say the same, and renames it over the old one, durably.
pub(crate) fn write_anew<D: Disk>(
    disk: &D,
    dir: &Path,
    mark: &EndMark,
    steps: &[PastStep],
) -> Result<(), OpenError> {
    anew(disk, dir, mark, steps).map_err(OpenError::io("writing", &dir.join(END_MARK_FILE_NAME)))
}

fn anew<D: Disk>(disk: &D, dir: &Path, mark: &EndMark, steps: &[PastStep]) -> io::Result<()> {
    let temporary = dir.join(format!("{END_MARK_FILE_NAME}{TEMPORARY_ENDING}"));
    disk.remove_if_there(&temporary)?;
    let write = || {
        let file = disk.create(&temporary, Access::Write)?;
        let marks = [1, 2].map(|sequence| mark.encode(sequence));
        let steps = [1, 2].map(|sequence| steps::encode(steps, sequence));
        file.write_all_at(&[marks, steps].concat().concat(), Position::default())?;
        file.sync_data()?;
        disk.rename(&temporary, &dir.join(END_MARK_FILE_NAME))
    };
    if let Err(error) = write() {
        // What is there of it takes the space that was missing.
        let _ = disk.remove(&temporary);
        return Err(error);
    }
    disk.sync_dir(dir)
}

/// What the mark of a log says; `None` if it has none, as those of before. The inner error says how it is damaged.
///
/// Fails if a newer version wrote it, or if it cannot be read.
pub(crate) fn read<D: Disk>(
    disk: &D,
    dir: &Path,
) -> Result<Option<Result<EndMark, Corruption>>, OpenError> {
    let path = dir.join(END_MARK_FILE_NAME);
    let file = match disk.open(&path, Access::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(OpenError::io("opening", &path)(error)),
    };
    let slots = read_slots(&file);
    match (slots.mark(), slots.unreadable) {
        (Ok(latest), _) => Ok(Some(Ok(latest.mark))),
        (Err(EndMarkError::NewerVersion { version }), _) => {
            Err(OpenError::NewerVersion { file: path, version, version_max: END_MARK_VERSION })
        }
        (Err(_), Some(error)) => Err(OpenError::io("reading", &path)(error)),
        (Err(damage), None) => {
            let (position, what) = (Position::default(), damage.to_string());
            Ok(Some(Err(Corruption { file: path, position, what })))
        }
    }
}

/// The same for those who say elsewhere that it is damaged.
pub(crate) fn read_sound<D: Disk>(disk: &D, dir: &Path) -> Result<Option<EndMark>, OpenError> {
    Ok(read(disk, dir)?.and_then(Result::ok))
}

/// The last segment, if a mark says that it had its name and none that is there is it or one behind it; and up to
/// where the log had been synced.
pub(crate) fn missing(
    mark: Option<EndMark>,
    last_base: Option<Offset>,
) -> Option<(SegmentName, Offset)> {
    let EndMark { active, synced } = mark?;
    let is_missing = last_base.is_none_or(|base| base < active);
    is_missing.then(|| (SegmentName::first_generation(active), synced))
}

/// What is wrong with a last segment that is missing, which only the mark knows of.
pub(crate) fn lost_with_last(synced: Offset) -> String {
    format!("is missing: the log went on in it, and had been synced up to {synced} at least")
}

/// The steps of a log, as far as its file has any. The inner error says how they are damaged.
///
/// Fails if a newer version wrote them, or if the file cannot be opened.
pub(crate) fn read_steps<D: Disk>(
    disk: &D,
    dir: &Path,
) -> Result<Result<Vec<PastStep>, Corruption>, OpenError> {
    let path = dir.join(END_MARK_FILE_NAME);
    let file = match disk.open(&path, Access::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ok(Vec::new())),
        Err(error) => return Err(OpenError::io("opening", &path)(error)),
    };
    let slots = read_slots(&file);
    if slots.bytes.len() <= SLOTS * SLOT_BYTES {
        return Ok(Ok(Vec::new()));
    }
    match slots.steps() {
        Ok(latest) => Ok(Ok(latest.steps)),
        Err(EndMarkError::NewerVersion { version }) => {
            Err(OpenError::NewerVersion { file: path, version, version_max: STEPS_VERSION })
        }
        Err(EndMarkError::Damaged { what }) => {
            let position = Position::new((SLOTS * SLOT_BYTES) as u64);
            let what = format!("what it says of steps of the clock is damaged: {what}");
            Ok(Err(Corruption { file: path, position, what }))
        }
    }
}

/// The bytes of a file, as far as there are any; a slot that cannot be read is zeroes.
#[derive(Default)]
struct Slots {
    bytes: Vec<u8>,
    unreadable: Option<io::Error>,
}

impl Slots {
    fn mark(&self) -> Result<Latest, EndMarkError> {
        Latest::decode(&self.bytes)
    }

    fn steps(&self) -> Result<LatestSteps, EndMarkError> {
        LatestSteps::decode(self.bytes.get(SLOTS * SLOT_BYTES..).unwrap_or_default())
    }
}

fn read_slots<F: DiskFile>(file: &F) -> Slots {
    let mut slots = Slots::default();
    for slot in 0..2 * SLOTS {
        let mut bytes = vec![0; SLOT_BYTES];
        let position = Position::new((slot * SLOT_BYTES) as u64);
        let mut read = || file.read_all_at(&mut bytes, position);
        // A fault of the disk may pass, and a start makes the file anew of what it could read.
        let done = read().or_else(|_| read()).unwrap_or_else(|error| {
            if slot < SLOTS {
                slots.unreadable = Some(error);
            }
            bytes.fill(0);
            SLOT_BYTES
        });
        bytes.truncate(done);
        slots.bytes.extend_from_slice(&bytes);
        if done < SLOT_BYTES {
            break;
        }
    }
    slots
}
