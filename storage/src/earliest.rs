//! How far the limits of a log have reached, for the next start: the file `earliest`.
//!
//! What readers were told is gone must not come back. Limits alone do not say it again: files get shorter and
//! clocks are put back. Little-endian, twice:
//! ```text
//! 0        8         12      16          24    32       4096
//! +--------+---------+-------+-----------+-----+--------+-----
//! | magic  | version | crc32 | kept from | end | zeroes | ..
//! +--------+---------+-------+-----------+-----+--------+-----
//! ```
//! `crc32` (IEEE) covers the 4096 bytes but for itself. The log kept nothing before `kept from`, and was synced up
//! to `end`. The second begins at 4096. They are written in turn, so that a torn write leaves the other; the
//! larger one that is whole counts.
//!
//! Where events are gone their segments say so as well (`frame/kept.rs`, stubs), but for stubs behind a damaged segment,
//! which stays when limits pass it: without this file readers are led over those. So what is damaged is passed over. One that says more than the log has is not this log's (a copy of its directory
//! may share the file by a link) and goes. A process begins with a file of its own, as it does with a segment.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    buffer::ALIGN_BYTES,
    error::OpenError,
    fields::{CRC_AT, crc_without_field, u32_at, u64_at},
    io::{Access, Disk, DiskFile},
    offset::{Offset, Position},
    retire,
    seal::TEMPORARY_ENDING,
};

/// Its name.
pub(crate) const EARLIEST_FILE_NAME: &str = "earliest";
/// The format that is written, and the newest that is read.
const EARLIEST_VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"STRLNEAR";
const USED_BYTES: usize = 32;
/// Neither shares a block of the disk with the other.
const SLOT_BYTES: usize = ALIGN_BYTES;
const SLOTS: usize = 2;

/// See [`crate::op::Job::Keep`].
pub struct KeepJob {
    pub(crate) dir: PathBuf,
    pub(crate) record: Record,
    /// Which of the two is written; `None`: a new file begins with the first.
    pub(crate) slot: Option<usize>,
    /// What the log keeps nothing before, once that is written.
    pub(crate) keep_from: Offset,
}

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// The log kept nothing before it.
    pub(crate) kept_from: Offset,
    /// And was synced up to here.
    pub(crate) end: Offset,
}

impl KeepJob {
    /// Writes it down, durably.
    pub(crate) fn run<D: Disk>(&self, disk: &D) -> io::Result<()> {
        let path = self.dir.join(EARLIEST_FILE_NAME);
        let bytes = self.record.encode();
        if let Some(slot) = self.slot {
            let file = disk.open(&path, Access::Write)?;
            file.write_all_at(&bytes, Position::new((slot * SLOT_BYTES) as u64))?;
            return file.sync_data();
        }
        let temporary = self.dir.join(format!("{EARLIEST_FILE_NAME}{TEMPORARY_ENDING}"));
        disk.remove_if_there(&temporary)?;
        let file = disk.create(&temporary, Access::Write)?;
        let written = file
            .write_all_at(&[&bytes[..], &[0; SLOT_BYTES]].concat(), Position::default())
            .and_then(|()| file.sync_data())
            .and_then(|()| disk.rename(&temporary, &path));
        if written.is_err() {
            let _ = disk.remove(&temporary);
        }
        written.and_then(|()| disk.sync_dir(&self.dir))
    }

    /// Which is written next.
    pub(crate) fn next_slot(&self) -> usize {
        self.slot.map_or(1, |slot| (slot + 1) % SLOTS)
    }
}

impl Record {
    fn encode(&self) -> [u8; SLOT_BYTES] {
        let mut bytes = [0; SLOT_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&EARLIEST_VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.kept_from.get().to_le_bytes());
        bytes[24..32].copy_from_slice(&self.end.get().to_le_bytes());
        let crc = crc_without_field(&bytes);
        bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// What these bytes say, if they are whole; or the version of a newer program that has written them.
    fn decode(bytes: &[u8; SLOT_BYTES]) -> Result<Option<Record>, u32> {
        if bytes[0..8] != MAGIC || crc_without_field(bytes) != u32_at(bytes, CRC_AT) {
            return Ok(None);
        }
        match u32_at(bytes, 8) {
            EARLIEST_VERSION => {}
            version if version > EARLIEST_VERSION => return Err(version),
            _ => return Ok(None),
        }
        let record = Record {
            kept_from: Offset::new(u64_at(bytes, 16)),
            end: Offset::new(u64_at(bytes, 24)),
        };
        let is_sound = record.kept_from <= record.end
            && record.end <= Offset::MAX
            && bytes[USED_BYTES..].iter().all(|byte| *byte == 0);
        Ok(is_sound.then_some(record))
    }
}

/// What the file of a log that ends at `end` says it keeps nothing before, durably; 0 if it says nothing more than is
/// `known` without it. One that is not this log's goes, durably: the log may become as long one day.
pub(crate) fn take<D: Disk>(
    disk: &D,
    dir: &Path,
    end: Offset,
    known: Offset,
) -> Result<Offset, OpenError> {
    let path = dir.join(EARLIEST_FILE_NAME);
    let (mut kept_from, mut is_ours) = (Offset::ZERO, true);
    for slot in read(disk, &path)? {
        let record = Record::decode(&slot).map_err(|version| OpenError::NewerVersion {
            file: path.clone(),
            version,
            version_max: EARLIEST_VERSION,
        })?;
        match record {
            Some(record) if record.end <= end => kept_from = kept_from.max(record.kept_from),
            Some(_) => is_ours = false,
            None => {}
        }
    }
    if kept_from <= known {
        if !is_ours {
            retire::remove(disk, &path)?;
            disk.sync_dir(dir).map_err(OpenError::io("syncing the directory", dir))?;
        }
        return Ok(Offset::ZERO);
    }
    // A process that was killed may not have synced it, or not with success: readers are told, and a power cut would
    // take it back. And what is not this log's goes in one step with this, or a crash in between would forget both.
    let record = Record { kept_from, end };
    let job = KeepJob { dir: dir.to_owned(), record, slot: None, keep_from: kept_from };
    let sync = || {
        disk.open(&path, Access::Write)?.sync_data()?;
        disk.sync_dir(dir)
    };
    let written = match job.run(disk) {
        // Where there is no space for another one this must do.
        Err(_) if is_ours => sync(),
        written => written,
    };
    written.map_err(OpenError::io("writing", &path))?;
    Ok(kept_from)
}

/// What the file of a log says now.
pub(crate) fn records<D: Disk>(disk: &D, dir: &Path) -> Result<Vec<Record>, OpenError> {
    let slots = read(disk, &dir.join(EARLIEST_FILE_NAME))?;
    Ok(slots.iter().filter_map(|slot| Record::decode(slot).ok().flatten()).collect())
}

/// Takes over what the file of one log says, or has said, to another that is made of it and ends at `end`, durably.
/// Whether there is one then.
pub(crate) fn copy<D: Disk>(
    disk: &D,
    records: &[Record],
    to: &Path,
    end: Offset,
) -> Result<bool, OpenError> {
    let records = records.iter().copied();
    let ours = records.filter(|record| record.end <= end).max_by_key(|record| record.kept_from);
    let Some(record) = ours else { return Ok(false) };
    let job = KeepJob { dir: to.to_owned(), record, slot: None, keep_from: record.kept_from };
    job.run(disk).map_err(OpenError::io("writing", &to.join(EARLIEST_FILE_NAME)))?;
    Ok(true)
}

/// Those of the two that can be read. A file that is there and cannot be opened says something all the same.
fn read<D: Disk>(disk: &D, path: &Path) -> Result<Vec<[u8; SLOT_BYTES]>, OpenError> {
    let file = match disk.open(path, Access::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(OpenError::io("opening", path)(error)),
    };
    let read = |slot: usize| {
        let mut bytes = [0; SLOT_BYTES];
        let at = Position::new((slot * SLOT_BYTES) as u64);
        // Nobody asks for it again before readers are told: a disk that hesitated once is asked twice.
        let read = file.read_exact_at(&mut bytes, at);
        read.or_else(|_| file.read_exact_at(&mut bytes, at)).ok()?;
        Some(bytes)
    };
    Ok((0..SLOTS).filter_map(read).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::sim::{Fault, SimDisk};

    fn dir() -> &'static Path {
        Path::new("/log")
    }

    /// The bytes of version 1: a change of any of them is a new version, with a new file beside this one.
    #[test]
    fn its_first_version_is_written_and_read_for_ever() {
        let golden = include_bytes!("../tests/golden/earliest.bin");
        let record = Record { kept_from: Offset::new(4_711_000), end: Offset::new(4_711_004) };
        assert_eq!(&record.encode(), golden);
        assert_eq!(Record::decode(golden), Ok(Some(record)));
    }

    fn record(disk: &SimDisk, slot: Option<usize>, kept_from: u64, end: u64) -> Option<usize> {
        let (kept_from, end) = (Offset::new(kept_from), Offset::new(end));
        let record = Record { kept_from, end };
        let job = KeepJob { dir: dir().to_owned(), record, slot, keep_from: kept_from };
        job.run(disk).expect("a disk that works");
        Some(job.next_slot())
    }

    fn taken(disk: &SimDisk, end: u64) -> u64 {
        take(disk, dir(), Offset::new(end), Offset::ZERO).expect("of this version").get()
    }

    fn disk() -> SimDisk {
        let disk = SimDisk::new(1);
        disk.create_dir(dir()).expect("an empty disk");
        disk
    }

    #[test]
    fn what_was_written_last_survives_a_power_cut_and_the_loss_of_either() {
        let disk = disk();
        assert_eq!(taken(&disk, 100), 0);
        let mut slot = None;
        for kept_from in [3, 5, 8, 9] {
            slot = record(&disk, slot, kept_from, 20 + kept_from);
            assert_eq!(taken(&disk.fork(kept_from).power_cut(), 100), kept_from);
        }
        let path = dir().join(EARLIEST_FILE_NAME);
        for (at, left) in [(0, 9), (4096, 8)] {
            let disk = disk.fork(at);
            disk.flip_bit(&path, Position::new(at + 20), 3);
            assert_eq!(taken(&disk.fork(at), 100), left);
            disk.flip_bit(&path, Position::new(4096 - at + 20), 3);
            assert_eq!(taken(&disk, 100), 0);
        }
    }

    /// Whatever operation is the last.
    #[test]
    fn a_crash_leaves_the_one_before_or_the_new_one() {
        for begun in 0..3 {
            for crash_after in 1.. {
                let disk = disk();
                let slot = (0..begun).fold(None, |slot, at| record(&disk, slot, 10 + at, 50));
                disk.crash_after(Some(crash_after));
                let (kept_from, end) = (Offset::new(20), Offset::new(60));
                let record = Record { kept_from, end };
                let job = KeepJob { dir: dir().to_owned(), record, slot, keep_from: kept_from };
                let outcome = job.run(&disk);
                let is_done = !disk.is_crashed();
                let before = if begun == 0 { 0 } else { 9 + begun };
                let found = taken(&disk.power_cut(), 60);
                assert!(found == 20 || (found == before && outcome.is_err()), "{found}");
                if is_done {
                    assert!(crash_after > 2);
                    break;
                }
            }
        }
    }

    /// What the next process has told readers of what a killed one had not synced, a power cut does not take back.
    #[test]
    fn what_was_taken_from_the_page_cache_stays() {
        let mut taken_over = 0;
        for (seed, begun) in (0..40).flat_map(|seed| [0, 1, 2].map(|begun| (seed, begun))) {
            for (fault, crash_after) in [(Some(Fault::SyncFails), None), (None, Some(2 + seed % 6))]
            {
                let disk = SimDisk::new(seed);
                disk.create_dir(dir()).expect("an empty disk");
                let slot = (0..begun).fold(None, |slot, at| record(&disk, slot, 10 + at, 50));
                fault.into_iter().for_each(|fault| disk.arm(fault, 0));
                disk.crash_after(crash_after);
                let (kept_from, end) = (Offset::new(20), Offset::new(60));
                let record = Record { kept_from, end };
                let job = KeepJob { dir: dir().to_owned(), record, slot, keep_from: kept_from };
                let _ = job.run(&disk);
                let disk = disk.kill();
                let found = taken(&disk, 60);
                taken_over += u64::from(found == 20);
                assert!(taken(&disk.power_cut(), 60) >= found, "seed {seed}, {begun} before it");
            }
        }
        assert!(taken_over > 40, "it was found {taken_over} times");
    }

    #[test]
    fn what_says_more_than_the_log_has_is_not_its_own() {
        let disk = disk();
        let slot = record(&disk, None, 10, 20);
        record(&disk, slot, 15, 30);
        let none = take(&disk.fork(1), dir(), Offset::new(25), Offset::new(10));
        assert_eq!(none.expect("of this version"), Offset::ZERO);
        assert_eq!(taken(&disk, 25), 10);
        assert_eq!(taken(&disk.power_cut(), 99), 10, "and not 15");
        let disk = self::disk();
        record(&disk, None, 10, 30);
        assert_eq!(taken(&disk, 25), 0);
        assert_eq!(disk.list(dir()).expect("listed"), Vec::<String>::new());
        assert_eq!(taken(&disk.power_cut(), 99), 0);
    }

    /// Beside one that is this log's: whatever ends a start, the next one finds it.
    #[test]
    fn what_is_not_its_own_goes_without_what_is() {
        let mut ends = 0;
        for (is_power_cut, fault) in [false, true]
            .into_iter()
            .flat_map(|cut| [None, Some(Fault::CreateFails)].map(|f| (cut, f)))
        {
            for crash_after in 1.. {
                let disk = disk();
                let slot = record(&disk, None, 10, 20);
                record(&disk, slot, 15, 30);
                fault.into_iter().for_each(|fault| disk.arm(fault, 0));
                disk.crash_after(fault.is_none().then_some(crash_after));
                let is_taken = take(&disk, dir(), Offset::new(25), Offset::ZERO).is_ok();
                let is_whole = is_taken && !disk.is_crashed();
                ends += usize::from(!is_whole);
                let disk = if is_power_cut { disk.power_cut() } else { disk.kill() };
                assert_eq!(taken(&disk, 25), 10, "{fault:?}, or a crash after {crash_after}");
                if is_whole || fault.is_some() {
                    break;
                }
            }
        }
        assert!(ends > 10, "{ends} starts were cut short");
    }

    /// It was taken for none, and what readers had been told is gone came back.
    #[test]
    fn one_that_cannot_be_opened_is_not_passed_over() {
        let disk = disk();
        record(&disk, None, 10, 20);
        disk.arm(Fault::OpenFails, 0);
        let failed = take(&disk, dir(), Offset::new(25), Offset::ZERO);
        assert!(matches!(failed, Err(OpenError::Io { .. })), "{failed:?}");
        assert_eq!(taken(&disk, 25), 10);
    }

    #[test]
    fn the_layout_is_as_described_and_a_newer_one_is_refused() {
        let record = Record { kept_from: Offset::new(0x0102), end: Offset::new(0x0304) };
        let mut bytes = record.encode();
        assert_eq!(&bytes[..12], b"STRLNEAR\x01\0\0\0");
        assert_eq!(bytes[16..32], [2, 1, 0, 0, 0, 0, 0, 0, 4, 3, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[12..16], crc_without_field(&bytes).to_le_bytes());
        assert_eq!(Record::decode(&bytes), Ok(Some(record)));
        for (at, what) in [(40, 1), (24, 1), (8, 0)] {
            let mut other = bytes;
            other[at] = what;
            assert_eq!(Record::decode(&other), Ok(None), "its checksum does not hold");
            if at != 24 {
                let crc = crc_without_field(&other);
                other[12..16].copy_from_slice(&crc.to_le_bytes());
                assert_eq!(Record::decode(&other), Ok(None));
            }
        }
        bytes[8] = 2;
        let crc = crc_without_field(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Record::decode(&bytes), Err(2));
    }
}
