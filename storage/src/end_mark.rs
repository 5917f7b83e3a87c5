//! The end mark of a log: how far it had been synced, said in a place of its own, so that a last segment that is
//! gone, or cut where a frame ends, is told from a log that never went further. Its file is `end.mark`.
//!
//! It begins with two slots of 4096 bytes, written in turn, each in place; the one with the higher sequence counts. Little-endian.
//! ```text
//! 0        8         12      16         24       32       40       4096
//! +--------+---------+-------+----------+--------+--------+--------+
//! | magic  | version | crc32 | sequence | active | synced | zeroes |   and the same again
//! +--------+---------+-------+----------+--------+--------+--------+
//! ```
//! The checksum covers the slot but for itself.
//!
//! Invariants:
//! 1. A mark never says more than what is on the device when its write begins: the name of the active segment, and
//!    every event below the synced offset. So it may be old, and never wrong, whatever a crash leaves of it.
//! 2. A write touches one slot, and never the one that counts: a torn one leaves that.
//! 3. Every opening writes a new file, renamed over the old one: what a killed process still writes hits the old one.
//!
//! Behind them are two more, of another kind ([`steps`]); files of before have none.

use crate::{
    fields::{CRC_AT, crc_without_field, u32_at, u64_at},
    offset::Offset,
};

mod file;
pub mod steps;
#[cfg(test)]
mod tests;

pub use file::{MarkJob, MarkWritten};
pub(crate) use file::{lost_with_last, missing, read, read_sound, read_steps, write_anew};

/// The mark's file.
pub const END_MARK_FILE_NAME: &str = "end.mark";
/// The format that is written, and the newest that is read.
pub const END_MARK_VERSION: u32 = 1;
/// A slot's length.
pub const SLOT_BYTES: usize = 4096;

const SLOTS: usize = 2;
const MAGIC: [u8; 8] = *b"STRLNEND";
const USED_BYTES: usize = 40;

/// How far a log had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndMark {
    /// The first offset of the last segment, which had its name.
    pub active: Offset,
    /// Every event below it had been synced; at least `active`.
    pub synced: Offset,
}

/// Why bytes are no end mark.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndMarkError {
    /// Neither slot is whole.
    #[error("neither of its two slots is sound: {what}")]
    Damaged {
        /// What is wrong with the last of them.
        what: &'static str,
    },
    /// A newer version wrote it.
    #[error("version {version} is newer than {END_MARK_VERSION}")]
    NewerVersion {
        /// Its version.
        version: u32,
    },
}

/// The mark that counts, and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latest {
    /// What it says.
    pub mark: EndMark,
    sequence: u64,
    slot: usize,
}

impl Latest {
    /// Of the two slots of a file. What is missing of them is damaged, and so is what could not be read and is zeroes.
    pub fn decode(bytes: &[u8]) -> Result<Latest, EndMarkError> {
        let mut latest: Option<Latest> = None;
        let mut damage = EndMarkError::Damaged { what: "the file is empty" };
        for (slot, bytes) in bytes.chunks(SLOT_BYTES).take(SLOTS).enumerate() {
            match decode_slot(bytes) {
                Ok((sequence, mark)) => {
                    if latest.is_none_or(|latest| latest.sequence < sequence) {
                        latest = Some(Latest { mark, sequence, slot });
                    }
                }
                Err(newer @ EndMarkError::NewerVersion { .. }) => return Err(newer),
                Err(damaged) => damage = damaged,
            }
        }
        latest.ok_or(damage)
    }

    /// Where the next mark goes, and its sequence.
    fn next(&self) -> (usize, u64) {
        ((self.slot + 1) % SLOTS, self.sequence.saturating_add(1))
    }
}

impl EndMark {
    /// A slot of it.
    pub fn encode(&self, sequence: u64) -> [u8; SLOT_BYTES] {
        assert!(
            self.active <= self.synced,
            "a segment begins where the one before it was synced to"
        );
        let mut bytes = [0; SLOT_BYTES];
        let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
        put(0, &MAGIC);
        put(8, &END_MARK_VERSION.to_le_bytes());
        put(16, &sequence.to_le_bytes());
        put(24, &self.active.get().to_le_bytes());
        put(32, &self.synced.get().to_le_bytes());
        let checksum = crc_without_field(&bytes);
        bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }
}

fn decode_slot(bytes: &[u8]) -> Result<(u64, EndMark), EndMarkError> {
    let damaged = |what| Err(EndMarkError::Damaged { what });
    if bytes.len() != SLOT_BYTES {
        return damaged("it ends too early");
    }
    if bytes[..8] != MAGIC {
        return damaged("it does not begin as a mark does");
    }
    if u32_at(bytes, CRC_AT) != crc_without_field(bytes) {
        return damaged("its checksum is wrong");
    }
    let version = u32_at(bytes, 8);
    if version > END_MARK_VERSION {
        return Err(EndMarkError::NewerVersion { version });
    }
    let mark =
        EndMark { active: Offset::new(u64_at(bytes, 24)), synced: Offset::new(u64_at(bytes, 32)) };
    let is_zero = bytes[USED_BYTES..].iter().all(|byte| *byte == 0);
    if version == 0 || mark.active > mark.synced || !is_zero {
        return damaged("its fields contradict each other");
    }
    Ok((u64_at(bytes, 16), mark))
}
