//! A segment: one append-only file that holds a contiguous run of a log's frames. Its name and its
//! header; what happens to it is the business of others.
//!
//! The name is `<base offset, 20 digits>.<generation>.log`; the index has the same with `.idx`. Each
//! rewrite (compaction) is the next generation, from 1. Little-endian throughout:
//! ```text
//! 0        8         12      16            24              32            48    64          68
//! +--------+---------+-------+-------------+---------------+-------------+-----+-----------+--
//! | magic  | version | crc32 | base_offset | created_at_ms | incarnation | tag | sync mode | ..
//! +--------+---------+-------+-------------+---------------+-------------+-----+-----------+--
//! 68                 72      4096
//! +------------------+--------+---------+---
//! | sync interval ms | zeroes | frame 0 | ..
//! +------------------+--------+---------+---
//! ```
//! `crc32` (IEEE) covers the 4096 bytes but for itself. The tag is padded with zeroes. The sync mode
//! is 0 `commit`, 1 `interval`, 2 `never`: recovery must know whether readers may have seen what a
//! crash took back.
//!
//! Invariants:
//! 1. A frame holds a run of events and begins at the offset where the one before it ended.
//! 2. A segment's `base_offset` is the end offset of the segment before it (compaction may have
//!    taken events out between the two, never the boundary).
//! 3. Bytes below the synced position never change. Only the last segment, the active one, grows.
//! 4. The first invalid frame ends the *last* segment: a torn write, unless a later frame proves
//!    that it had been synced. In any other segment it is corruption, and readers are told.

use std::fmt;

use crate::{
    buffer::ALIGN_BYTES,
    fields::{CRC_AT, crc_without_field, u32_at, u64_at},
    offset::{Offset, Position},
    sync_mode::{SYNC_INTERVAL_MS_MAX, SyncMode},
};

/// The header's length: the position of the first frame.
pub const SEGMENT_HEADER_BYTES: usize = 4096;
/// The position of the first frame.
pub const FIRST_FRAME_POSITION: Position = Position::new(SEGMENT_HEADER_BYTES as u64);
/// The format that is written, and the newest that is read.
pub const SEGMENT_VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"STRLNSEG";
const USED_BYTES: usize = 72;

const _: () = assert!(SEGMENT_HEADER_BYTES.is_multiple_of(ALIGN_BYTES));

/// The name of a log's history, in every cursor: `[a-z0-9]{1,16}`. A new one says that offsets given
/// out before may mean other events now.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag {
    /// The text, padded with zeroes.
    bytes: [u8; Tag::BYTES_MAX],
}

/// A text that is no tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a tag is 1 to 16 of the characters a-z and 0-9")]
pub struct TagError;

impl Tag {
    /// The longest tag.
    pub const BYTES_MAX: usize = 16;

    /// The tag with this text.
    pub fn parse(text: &str) -> Result<Tag, TagError> {
        if text.is_empty() || text.len() > Tag::BYTES_MAX {
            return Err(TagError);
        }
        if !text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
            return Err(TagError);
        }
        let mut bytes = [0; Tag::BYTES_MAX];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Tag { bytes })
    }

    /// A tag of 6 characters, 31 bits, made from `random`. Short, since it is in every `id:` line;
    /// two histories of the *same* log must not share one, and a log has few.
    pub fn of_random(random: u64) -> Tag {
        const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
        let mut bytes = [0; Tag::BYTES_MAX];
        let mut rest = random;
        for byte in &mut bytes[..6] {
            let digit = usize::try_from(rest % 36).expect("below 36");
            *byte = DIGITS[digit];
            rest /= 36;
        }
        Tag { bytes }
    }

    /// A new tag, from the kernel's randomness.
    pub fn random() -> Tag {
        Tag::of_random(getrandom::u64().expect("the kernel gives random bytes"))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        let len = self.bytes.iter().position(|byte| *byte == 0).unwrap_or(Tag::BYTES_MAX);
        str::from_utf8(&self.bytes[..len]).expect("a tag is ASCII")
    }

    /// The tag in a fixed field, or an error if the field holds none.
    pub(crate) fn decode(bytes: &[u8; Tag::BYTES_MAX]) -> Result<Tag, TagError> {
        let len = bytes.iter().position(|byte| *byte == 0).unwrap_or(Tag::BYTES_MAX);
        if bytes[len..].iter().any(|byte| *byte != 0) {
            return Err(TagError);
        }
        Tag::parse(str::from_utf8(&bytes[..len]).map_err(|_| TagError)?)
    }

    /// Its text, padded with zeroes.
    pub(crate) fn encode(&self) -> [u8; Tag::BYTES_MAX] {
        self.bytes
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(formatter)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Tag({self})")
    }
}

/// 128 random bits of a segment file: they seed the checksums of all its frames, so that neither a
/// frame inside an event's data nor an old frame in a reused file is ever taken for one of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Incarnation([u8; 16]);

impl Incarnation {
    /// The incarnation with these bits.
    pub const fn new(bits: [u8; 16]) -> Incarnation {
        Incarnation(bits)
    }

    /// A new one, from the kernel's randomness.
    pub fn random() -> Incarnation {
        let mut bits = [0; 16];
        getrandom::fill(&mut bits).expect("the kernel gives random bytes");
        Incarnation(bits)
    }

    /// Its bits.
    pub const fn bits(&self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Incarnation({self})")
    }
}

/// The first 4096 bytes of a segment file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The format of the file, [`SEGMENT_VERSION`] when it is written.
    pub version: u32,
    /// The offset of the first event that it may hold.
    pub base_offset: Offset,
    /// Wall clock when it was made.
    pub created_at_ms: u64,
    /// What seeds its checksums.
    pub incarnation: Incarnation,
    /// The log's tag while it is written.
    pub tag: Tag,
    /// When appends to it count as done.
    pub sync: SyncMode,
}

impl SegmentHeader {
    /// Tells the file from all others, to anybody.
    pub fn begun(&self) -> SegmentBegun {
        SegmentBegun { base_offset: self.base_offset, created_at_ms: self.created_at_ms }
    }
}

/// Where and when a segment was begun. Every start begins one, so that it tells copies of a log from each other. Its
/// incarnation would too, and is nobody's business: who knows that can append what looks like a frame of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentBegun {
    base_offset: Offset,
    created_at_ms: u64,
}

impl fmt::Display for SegmentBegun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.base_offset, self.created_at_ms)
    }
}

/// Why bytes are no segment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// The file ends before the header does, or has only zeroes there: the header was never written.
    #[error("no segment header was written")]
    Blank,
    /// It is another kind of file.
    #[error("not a segment of strandline")]
    Magic,
    /// A newer program wrote it.
    #[error("segment format {version} is newer than {SEGMENT_VERSION}")]
    NewerVersion {
        /// Its format.
        version: u32,
    },
    /// The header is damaged.
    #[error("checksum of the segment header does not match")]
    Checksum,
    /// The checksum holds and the content does not: no program of ours wrote it.
    #[error("{what} in the segment header is out of range")]
    Content {
        /// Which field.
        what: &'static str,
    },
}

impl SegmentHeader {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        let (sync_mode, sync_interval_ms) = match self.sync {
            SyncMode::Commit => (0u32, 0u32),
            SyncMode::Interval { interval_ms } => (1, interval_ms),
            SyncMode::Never => (2, 0),
        };
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&self.version.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.base_offset.get().to_le_bytes());
        bytes[24..32].copy_from_slice(&self.created_at_ms.to_le_bytes());
        bytes[32..48].copy_from_slice(&self.incarnation.bits());
        bytes[48..64].copy_from_slice(&self.tag.encode());
        bytes[64..68].copy_from_slice(&sync_mode.to_le_bytes());
        bytes[68..72].copy_from_slice(&sync_interval_ms.to_le_bytes());
        let crc = crc_without_field(&bytes);
        bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header that `bytes` begin with.
    pub fn decode(bytes: &[u8]) -> Result<SegmentHeader, SegmentError> {
        let Some(bytes) = bytes.first_chunk::<SEGMENT_HEADER_BYTES>() else {
            return Err(SegmentError::Blank);
        };
        if bytes.iter().all(|byte| *byte == 0) {
            return Err(SegmentError::Blank);
        }
        if bytes[0..8] != MAGIC {
            return Err(SegmentError::Magic);
        }
        if crc_without_field(bytes) != u32_at(bytes, CRC_AT) {
            return Err(SegmentError::Checksum);
        }
        let version = u32_at(bytes, 8);
        if version > SEGMENT_VERSION {
            return Err(SegmentError::NewerVersion { version });
        }
        if version == 0 {
            return Err(SegmentError::Content { what: "version" });
        }
        let base_offset = Offset::new(u64_at(bytes, 16));
        if base_offset > Offset::MAX {
            return Err(SegmentError::Content { what: "base offset" });
        }
        let mut incarnation = [0; 16];
        incarnation.copy_from_slice(&bytes[32..48]);
        let mut tag = [0; Tag::BYTES_MAX];
        tag.copy_from_slice(&bytes[48..64]);
        let sync = match (u32_at(bytes, 64), u32_at(bytes, 68)) {
            (0, 0) => SyncMode::Commit,
            (1, interval_ms @ 1..=SYNC_INTERVAL_MS_MAX) => SyncMode::Interval { interval_ms },
            (2, 0) => SyncMode::Never,
            _ => return Err(SegmentError::Content { what: "sync mode" }),
        };
        if bytes[USED_BYTES..].iter().any(|byte| *byte != 0) {
            return Err(SegmentError::Content { what: "reserved bytes" });
        }
        Ok(SegmentHeader {
            version,
            base_offset,
            created_at_ms: u64_at(bytes, 24),
            incarnation: Incarnation(incarnation),
            tag: Tag::decode(&tag).map_err(|_| SegmentError::Content { what: "tag" })?,
            sync,
        })
    }
}

/// Which of a segment's two files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SegmentFile {
    /// `.log`: its frames.
    Log,
    /// `.idx`: its index, there once it is sealed.
    Index,
}

/// The name of a segment, which its two files share. Ordered by base offset, then generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    /// The offset of the first event that it may hold.
    pub base_offset: Offset,
    /// How often it was written: 1, and one more for each rewrite.
    pub generation: u32,
}

impl SegmentName {
    /// The name of a segment that was never rewritten.
    pub fn first_generation(base_offset: Offset) -> SegmentName {
        SegmentName { base_offset, generation: 1 }
    }

    /// The name of its next rewrite; `None` once there were 2^32 of them.
    pub fn next_generation(&self) -> Option<SegmentName> {
        let generation = self.generation.checked_add(1)?;
        Some(SegmentName { base_offset: self.base_offset, generation })
    }

    /// The name of one of its files.
    pub fn file_name(&self, file: SegmentFile) -> String {
        let ending = match file {
            SegmentFile::Log => "log",
            SegmentFile::Index => "idx",
        };
        format!("{:020}.{}.{ending}", self.base_offset.get(), self.generation)
    }

    /// The name of the file with its frames.
    pub fn log_file_name(&self) -> String {
        self.file_name(SegmentFile::Log)
    }

    /// The name of the file with its index.
    pub fn index_file_name(&self) -> String {
        self.file_name(SegmentFile::Index)
    }

    /// What a file name names, or `None` if it is not exactly as [`SegmentName::file_name`] writes it.
    pub fn parse(file_name: &str) -> Option<(SegmentName, SegmentFile)> {
        let mut parts = file_name.split('.');
        let base_offset = Offset::new(parts.next()?.parse().ok()?);
        let generation = parts.next()?.parse().ok()?;
        let file = match parts.next()? {
            "log" => SegmentFile::Log,
            "idx" => SegmentFile::Index,
            _ => return None,
        };
        let name = SegmentName { base_offset, generation };
        let canonical =
            base_offset <= Offset::MAX && generation > 0 && name.file_name(file) == file_name;
        canonical.then_some((name, file))
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:020}.{}", self.base_offset.get(), self.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            version: SEGMENT_VERSION,
            base_offset: Offset::new(4_711_000),
            created_at_ms: 1_763_700_000_000,
            incarnation: Incarnation::new(*b"0123456789abcdef"),
            tag: Tag::parse("k3f9q").expect("a tag"),
            sync: SyncMode::Interval { interval_ms: 50 },
        }
    }

    #[test]
    fn a_header_is_read_as_it_was_written() {
        for sync in [SyncMode::Commit, SyncMode::Interval { interval_ms: 50 }, SyncMode::Never] {
            let header = SegmentHeader { sync, ..header() };
            assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
        }
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_found() {
        let good = header().encode();
        for bit in 0..good.len() * 8 {
            let mut bytes = good;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn what_is_no_header_is_named() {
        assert_eq!(SegmentHeader::decode(&[]), Err(SegmentError::Blank));
        assert_eq!(SegmentHeader::decode(&[1; 4095]), Err(SegmentError::Blank));
        assert_eq!(SegmentHeader::decode(&[0; 4096]), Err(SegmentError::Blank));
        assert_eq!(SegmentHeader::decode(&[1; 4096]), Err(SegmentError::Magic));
        let newer = SegmentHeader { version: 2, ..header() };
        assert_eq!(
            SegmentHeader::decode(&newer.encode()),
            Err(SegmentError::NewerVersion { version: 2 })
        );
    }

    #[test]
    fn file_names_are_read_exactly_as_they_are_written() {
        let name = SegmentName { base_offset: Offset::new(4_711_000), generation: 2 };
        assert_eq!(name.log_file_name(), "00000000000004711000.2.log");
        assert_eq!(SegmentName::parse(&name.log_file_name()), Some((name, SegmentFile::Log)));
        assert_eq!(SegmentName::parse(&name.index_file_name()), Some((name, SegmentFile::Index)));
        for other in [
            "",
            "4711000.2.log",
            "00000000000004711000.02.log",
            "00000000000004711000.0.log",
            "+0000000000004711000.2.log",
            "00000000000004711000.2.log.tmp",
            "00000000000004711000.2.snap",
            "99999999999999999999.1.log",
            "18446744073709551615.1.log",
        ] {
            assert_eq!(SegmentName::parse(other), None, "{other}");
        }
    }

    #[test]
    fn tags_are_lower_case_letters_and_digits() {
        for text in ["a", "k3f9q", "0123456789abcdef"] {
            assert_eq!(Tag::parse(text).expect("a tag").as_str(), text);
        }
        for text in ["", "K", "a-b", "0123456789abcdefg", "ä"] {
            assert_eq!(Tag::parse(text), Err(TagError), "{text}");
        }
        assert_eq!(Tag::of_random(0).as_str(), "000000");
        assert_eq!(Tag::of_random(u64::MAX).as_str().len(), 6);
        assert!(Tag::parse(Tag::random().as_str()).is_ok());
    }
}
