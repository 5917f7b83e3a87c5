//! A second directory of a log, made of a first that a server may be writing to.
//!
//! What is sealed never changes, so it is linked, or copied where links are refused. What is not is copied
//! frame by frame, and every frame is checked:
//! ```text
//! sealed               .log and .idx, linked or copied; on another file system linked from the backup before
//! stubs                .idx: the events are gone on purpose; those as well that an older snapshot alone needs
//! snapshots            as they are, up to the offset to which the backup reaches
//! earliest             as it was when all this began, written anew
//! not sealed           a .log of the same name with the frames below the synced offset, and no more
//! end mark             its own
//! ```
//! Beside a server nothing is locked, so a file may be gone between listing and linking: it was compacted, or
//! retention took it. Then all begins anew with another list; what is there already, and still counts, stays.
//!
//! Of a sealed segment that the backup before has the index says that it is the same, and the log itself is not read: it may have
//! rotted there since. So whoever verifies a backup asks for what is damaged and came from there once more ([`back_up_again`]).
//!
//! The target counts once this has returned: its files and names are synced then, and not before.

use std::{
    collections::BTreeSet,
    io, mem,
    path::{Path, PathBuf},
};

use crate::{
    buffer::{ALIGN_BYTES, DiskBuffer},
    earliest::{self, EARLIEST_FILE_NAME},
    end_mark::{self, END_MARK_FILE_NAME, EndMark},
    error::{Corruption, OpenError},
    io::{Access, Disk, DiskFile},
    listing::{self, Listed},
    offset::{Offset, Position},
    seal::TEMPORARY_ENDING,
    segment::{SegmentName, Tag},
    snapshot::{self, read},
};

mod attempts;
mod beginning;
mod held;
mod unsealed;

use attempts::{Attempts, is_gone};
pub use beginning::{Beginning, beginning_of};
pub use held::{LastSegment, SegmentsSeen, end_of, last_segment};

/// So often what looks like damage is looked at beside a server.
const DAMAGED_ATTEMPTS_MAX: u32 = 3;
/// How much is copied at once.
const COPY_BYTES: usize = 1 << 20;

const _: () = assert!(COPY_BYTES.is_multiple_of(ALIGN_BYTES));

/// How far a log is backed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// A server writes it: up to what it says has been synced, or to the end of what is sealed.
    Synced(Offset),
    /// Nobody writes it, and the caller has its lock: all that the next start would keep.
    Stopped,
}

/// What a backup of a log came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackedUp {
    /// Where it ends.
    pub end: Offset,
    /// The log's tag; `None` if it has no segment.
    pub tag: Option<Tag>,
    /// How many files were linked,
    pub linked: u64,
    /// how many were copied,
    pub copied: u64,
    /// and how many bytes of those.
    pub copied_bytes: u64,
    /// The names of those that the backup before had: nobody has read what the log has.
    pub second_hand: BTreeSet<String>,
}

/// Backs up the log in `from` into the directory `to`, which is there and may hold what an attempt before
/// left. `previous` is an older backup of it: what that has already is not copied again.
pub fn back_up_log<D: Disk>(
    disk: &D,
    from: &Path,
    previous: Option<&Path>,
    to: &Path,
    reach: Reach,
) -> Result<BackedUp, OpenError> {
    back_up_again(disk, from, previous, to, reach, &[])
}

/// The same once more, over what is in `to` by now: the files with these names are taken anew, and from the log alone.
pub fn back_up_again<D: Disk>(
    disk: &D,
    from: &Path,
    previous: Option<&Path>,
    to: &Path,
    reach: Reach,
    distrusted: &[String],
) -> Result<BackedUp, OpenError> {
    // A server whose limits move writes it each second, and then it says more than the backup has.
    let kept = earliest::records(disk, from)?;
    let mut second_hand = BTreeSet::new();
    let mut attempts = Attempts::default();
    loop {
        let mut backup = Backup {
            disk,
            from,
            previous,
            to,
            reach,
            distrusted,
            kept: &kept,
            second_hand: &mut second_hand,
            done: BackedUp::default(),
            last: None,
        };
        let Err(error) = backup.run() else {
            let done = mem::take(&mut backup.done);
            return Ok(BackedUp { second_hand, ..done });
        };
        let may_pass = attempts.may_pass(&error);
        let is_tried_again = match error {
            // Or several are gone, and a listing has seen some of them and not what came in their place.
            OpenError::MissingSegment { .. } => may_pass && reach != Reach::Stopped,
            // A read beside a write may have seen the state before it.
            OpenError::Corrupt(_) => {
                reach != Reach::Stopped && attempts.failed() < DAMAGED_ATTEMPTS_MAX
            }
            _ => may_pass && is_gone(&error),
        };
        if !is_tried_again {
            return Err(error);
        }
    }
}

struct Backup<'a, D: Disk> {
    disk: &'a D,
    from: &'a Path,
    previous: Option<&'a Path>,
    to: &'a Path,
    reach: Reach,
    /// What is there of these, or in the backup before, is damaged.
    distrusted: &'a [String],
    /// What the log said of where it begins before all was copied.
    kept: &'a [earliest::Record],
    /// Of this attempt and those before it.
    second_hand: &'a mut BTreeSet<String>,
    done: BackedUp,
    /// The first offset of the last segment that was taken.
    last: Option<Offset>,
}

impl<D: Disk> Backup<'_, D> {
    fn run(&mut self) -> Result<(), OpenError> {
        let names = self.list(self.from)?;
        let there = self.let_go(self.list(self.to)?, &names)?;
        let snapshots = read::offsets(&names);
        let begin = read::begin(self.disk, self.from, &snapshots)?;
        let mut wanted = Vec::new();
        for name in listing::stubs_before(self.disk, self.from, &names, begin)? {
            self.put(&name.index_file_name(), &[], false, None)?;
            wanted.push(name.index_file_name());
        }
        let segments = match self.reach {
            Reach::Synced(_) => listing::segments_from(&names, begin),
            Reach::Stopped => listing::stopped_from(self.disk, self.from, &names, begin)?,
        };
        self.done.end = begin;
        let mark = self.read_mark(&segments)?;
        for (index, listed) in segments.iter().enumerate() {
            let successor = segments.get(index + 1).map(|next| next.name.base_offset);
            if !self.segment(listed, successor, &names, &there, &mut wanted)? {
                break;
            }
        }
        let end = self.done.end;
        if let Some(newest) = snapshots.first().filter(|newest| **newest > end)
            && self.reach == Reach::Stopped
        {
            // No start would open it either; and what proves the loss would not be in the backup.
            return Err(read::ends_before(self.from, *newest, end));
        }
        if let Some(mark) = mark.filter(|mark| mark.synced > end) {
            let file = self.from.join(END_MARK_FILE_NAME);
            return Err(OpenError::Corrupt(read::lost_behind(&file, mark.synced, end)));
        }
        for offset in snapshots.iter().filter(|offset| **offset <= end) {
            let name = snapshot::file_name(*offset);
            // Another of the same offset may have come in the place of a damaged one.
            self.put(&name, &[], false, None)?;
            wanted.push(name);
        }
        // Written anew: a server goes on writing to its own.
        let kept = [self.kept, &earliest::records(self.disk, self.from)?].concat();
        if earliest::copy(self.disk, &kept, self.to, end)? {
            wanted.push(EARLIEST_FILE_NAME.to_owned());
        }
        for name in there.iter().filter(|name| !wanted.contains(name)) {
            let path = self.to.join(name);
            self.disk.remove_if_there(&path).map_err(OpenError::io("removing", &path))?;
        }
        self.disk.sync_dir(self.to).map_err(OpenError::io("syncing the directory", self.to))?;
        if let Some(active) = self.last {
            // Its end is its own, whatever the log goes on to.
            let steps = end_mark::read_steps(self.disk, self.from)?.unwrap_or_default();
            let mark = EndMark { active, synced: end };
            end_mark::write_anew(self.disk, self.to, &mark, &steps)?;
        }
        Ok(())
    }

    /// Removes what an attempt before this one took that the log has let go of: a link keeps all its space. Returns what is
    /// left.
    fn let_go(&self, there: Vec<String>, names: &[String]) -> Result<Vec<String>, OpenError> {
        let (kept, gone): (Vec<_>, Vec<_>) =
            there.into_iter().partition(|name| names.contains(name));
        for name in gone {
            let path = self.to.join(name);
            self.disk.remove_if_there(&path).map_err(OpenError::io("removing", &path))?;
        }
        Ok(kept)
    }

    /// The end mark, of a log that nobody writes: no start would open one that is not all there, and what proves
    /// the loss would not be in the backup.
    fn read_mark(&self, segments: &[Listed]) -> Result<Option<EndMark>, OpenError> {
        if self.reach != Reach::Stopped {
            return Ok(None);
        }
        let mark = end_mark::read_sound(self.disk, self.from)?;
        let last_base = segments.last().map(|listed| listed.name.base_offset);
        let Some((name, synced)) = end_mark::missing(mark, last_base) else { return Ok(mark) };
        let (file, position) = (self.from.join(name.log_file_name()), Position::default());
        let what = end_mark::lost_with_last(synced);
        Err(OpenError::Corrupt(Corruption { file, position, what }))
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>, OpenError> {
        self.disk.list(dir).map_err(OpenError::io("listing", dir))
    }

    /// Takes the next segment, unless it is behind what had been synced and has no index in this list. (One may be sealed
    /// while the list is made, and so may those behind it that are found sealed.)
    fn segment(
        &mut self,
        listed: &Listed,
        successor: Option<Offset>,
        names: &[String],
        there: &[String],
        wanted: &mut Vec<String>,
    ) -> Result<bool, OpenError> {
        let name = listed.name;
        let (log_name, index_name) = (name.log_file_name(), name.index_file_name());
        let index = match listed.has_index {
            true => listing::index_header(self.disk, self.from, name)?,
            false => None,
        };
        if index.is_none() && matches!(self.reach, Reach::Synced(limit) if name.base_offset > limit)
        {
            return Ok(false);
        }
        let (from, to) = (self.done.end, name.base_offset);
        if from < to && self.reach != Reach::Stopped {
            return Err(OpenError::MissingSegment { dir: self.from.to_owned(), from, to });
        }
        let Some(index) = index else {
            self.unsealed(name, successor)?;
            self.last = Some(name.base_offset);
            wanted.push(log_name);
            return Ok(true);
        };
        if !index.is_stub() {
            let is_known = self.previous_has(name)?;
            self.put(&log_name, there, is_known, Some(index.end_position))?;
            wanted.push(log_name);
        }
        // An index is small, and a stub takes the name of what it was made of.
        let there = if names.contains(&index_name) { &[] } else { there };
        self.put(&index_name, there, false, None)?;
        wanted.push(index_name);
        self.last = Some(name.base_offset);
        self.done.end = index.end_offset;
        self.done.tag = Some(index.tag);
        Ok(true)
    }

    /// Whether the backup before has this very segment, by its index. One that cannot be read there has it not.
    fn previous_has(&self, name: SegmentName) -> Result<bool, OpenError> {
        let Some(previous) = self.previous else { return Ok(false) };
        let old = listing::index_header(self.disk, previous, name).unwrap_or(None);
        Ok(old.is_some() && old == listing::index_header(self.disk, self.from, name)?)
    }

    /// Puts a file that never changes into the backup.
    fn put(
        &mut self,
        file_name: &str,
        there: &[String],
        previous_has_it: bool,
        end: Option<Position>,
    ) -> Result<(), OpenError> {
        let (from, to) = (self.from.join(file_name), self.to.join(file_name));
        let is_trusted = self.distrusted.iter().all(|name| name != file_name);
        if is_trusted && there.iter().any(|name| name == file_name) {
            // An attempt before may have found it not sealed yet, and taken less of it.
            let there = self.disk.open(&to, Access::Read).and_then(|file| file.size());
            let bytes = there.map_err(OpenError::io("opening", &to))?;
            if end.is_none_or(|end| bytes >= end.get()) {
                return Ok(());
            }
        }
        let temporary = self.temporary(file_name)?;
        self.second_hand.remove(file_name);
        match self.disk.link(&from, &temporary) {
            Ok(()) => return self.name_linked(&temporary, &to),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(OpenError::io("linking", &from)(error));
            }
            // Another file system, one without links, too many links, not ours: copied.
            Err(_) => {}
        }
        if is_trusted
            && let Some(previous) = self.previous.map(|previous| previous.join(file_name))
            && (previous_has_it || (end.is_none() && self.is_same(&from, &previous)))
            && self.disk.link(&previous, &temporary).is_ok()
        {
            self.second_hand.insert(file_name.to_owned());
            return self.name_linked(&temporary, &to);
        }
        let file = self.open_held(&from, Access::Read).map_err(OpenError::io("opening", &from))?;
        let size = file.size().map_err(OpenError::io("reading", &from))?;
        let end = Position::new(end.map_or(size, |end| end.get().min(size)));
        let copy = self
            .disk
            .create(&temporary, Access::Write)
            .map_err(OpenError::io("creating", &temporary))?;
        copy_file((&file, &from), (&copy, &temporary), end)?;
        self.done.copied += 1;
        self.done.copied_bytes += end.get();
        self.name(&temporary, &to)
    }

    /// Whether two small files are equal. A repair may have written one anew under the same name, or a segment
    /// have become a stub since. What cannot be read is told when it is copied.
    fn is_same(&self, left: &Path, right: &Path) -> bool {
        let open = |path| {
            let file = self.open_held(path, Access::Read)?;
            let size = file.size()?;
            Ok::<_, io::Error>((file, size))
        };
        let (Ok((right, right_bytes)), Ok((left, left_bytes))) = (open(right), open(left)) else {
            return false;
        };
        let mut at = 0;
        while left_bytes == right_bytes && at < left_bytes {
            let bytes = usize::try_from(left_bytes - at).unwrap_or(usize::MAX).min(COPY_BYTES);
            let piece = |file| read_bytes(file, Position::new(at), bytes);
            match (piece(&left), piece(&right)) {
                (Ok(left), Ok(right)) if left.as_slice() == right.as_slice() => at += bytes as u64,
                _ => return false,
            }
        }
        left_bytes == right_bytes
    }

    /// A free temporary name.
    fn temporary(&self, file_name: &str) -> Result<PathBuf, OpenError> {
        let temporary = self.to.join(format!("{file_name}{TEMPORARY_ENDING}"));
        self.disk.remove_if_there(&temporary).map_err(OpenError::io("removing", &temporary))?;
        Ok(temporary)
    }

    fn name_linked(&mut self, temporary: &Path, to: &Path) -> Result<(), OpenError> {
        self.done.linked += 1;
        self.name(temporary, to)
    }

    fn name(&self, temporary: &Path, to: &Path) -> Result<(), OpenError> {
        // A rename between two names of one file does nothing.
        self.disk.remove_if_there(to).map_err(OpenError::io("removing", to))?;
        self.disk.rename(temporary, to).map_err(OpenError::io("renaming", temporary))
    }

    /// Opens a file that a server beside may remove while it is read.
    fn open_held(&self, path: &Path, access: Access) -> io::Result<D::File> {
        let file = self.disk.open(path, access)?;
        file.hold()?;
        Ok(file)
    }
}

fn read_bytes<F: DiskFile>(file: &F, position: Position, bytes: usize) -> io::Result<DiskBuffer> {
    let mut buffer = DiskBuffer::zeroed(bytes);
    file.read_exact_at(buffer.as_mut_slice(), position)?;
    Ok(buffer)
}

/// Copies a file up to `end`, and syncs the copy. Which of the two failed is told: the other may be on another disk.
pub(crate) fn copy_file<F: DiskFile>(
    (file, from): (&F, &Path),
    (copy, to): (&F, &Path),
    end: Position,
) -> Result<(), OpenError> {
    let mut at = Position::default();
    while at < end {
        let left = usize::try_from(end.get() - at.get()).unwrap_or(usize::MAX);
        let piece = read_bytes(file, at, left.min(COPY_BYTES));
        let piece = piece.map_err(OpenError::io("reading", from))?;
        copy.write_all_at(piece.as_slice(), at).map_err(OpenError::io("writing", to))?;
        at = at.plus(piece.len() as u64);
    }
    copy.sync_data().map_err(OpenError::io("syncing", to))
}

#[cfg(test)]
mod tests;
