//! The index of a segment: where an offset, a time and a topic are found without reading the log.
//! Written whole when the segment is sealed, and never changed.
//!
//! Little-endian throughout; a `varint` is described in `varint.rs`.
//! ```text
//! 0      512                                      resident bytes               index bytes
//! +--------+---------+--------+---------+----------------+-----------+--------------+
//! | header | FRAMES  | FENCE  | FILTER  |  other, later  |  TOPICS   | LISTS, other |
//! +--------+---------+--------+---------+----------------+-----------+--------------+
//!
//! header:  0 magic   8 version u32   12 crc32 u32   16 base offset   24 end offset
//!         32 end position   40 end checksum u32   44 section count u32   48 incarnation 16
//!         64 tag 16   80 first event's time ms   88 last event's time ms   96 event count
//!        104 frame count  112 topic count  120 resident bytes  128 index bytes  136 sections
//! section: 0 kind u32   4 crc32 u32   8 position   16 bytes        (24 bytes; at most 15 of them)
//! ```
//! Sections lie one behind the other without a gap, so every byte is in the header or in one of
//! them. The header's checksum covers its 512 bytes but for itself. All others begin with the
//! [`Seed`] of the log's incarnation. Sections of an unknown kind are skipped.
//!
//! A reader keeps the first `resident bytes` ([`ResidentIndex`]): for a full segment of 256 MiB at
//! most 96 KiB of FRAMES, and some 2 bytes a topic. With them it finds the frames of a topic by
//! reading one block of TOPICS (4 KiB), and one list if the topic is in many frames. The sections
//! are described where they are encoded: FRAMES and FENCE in [`resident`], FILTER in `filter.rs`,
//! TOPICS and LISTS in [`topics`].
//!
//! The topics, IDS, PRODUCERS and CONTROLS are also the segment's *state delta*: what it adds to the
//! state of the log. The last three (`delta.rs`) are there only where there is something to say; where
//! compaction has taken events, they are those of the segment as it was, and GONE names the topics whose
//! last event it took. What holds of them where an index is damaged is told in [`crate::remains`].

use std::{fmt, ops::Range};

use crate::{
    fields::{CRC_AT, crc_without_field, u32_at, u64_at},
    frame::Seed,
    mutation::{self, Mutation},
    offset::{Offset, Position},
    segment::{Incarnation, SegmentHeader, Tag},
};

mod blocks;
pub mod builder;
pub(crate) mod cut;
pub mod delta;
pub(crate) mod filter;
pub mod gone;
pub mod resident;
pub mod stub;
pub mod topics;
pub(crate) mod varint;

pub use builder::{Carried, IndexBuilder, SegmentEnd};
pub use delta::{StateDelta, StoredControl};
pub use resident::{FramePlace, ResidentIndex};
pub use topics::{StoredList, TopicBlocks, TopicEntry, TopicFrame, TopicList, TopicSummary};

/// The header's length.
pub const INDEX_HEADER_BYTES: usize = 512;
/// The format that is written, and the newest that is read.
pub const INDEX_VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"STRLNIDX";
/// The content of REMADE.
const REMADE: [u8; 8] = *b"remade\0\0";
const SECTIONS_AT: usize = 136;
const SECTION_BYTES: usize = 24;
const SECTIONS_MAX: usize = (INDEX_HEADER_BYTES - SECTIONS_AT) / SECTION_BYTES;

/// What a section holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SectionKind(u32);

impl SectionKind {
    /// The first frame in each 64 KiB of the log. Resident.
    pub const FRAMES: SectionKind = SectionKind(1);
    /// What each block of TOPICS begins with. Resident.
    pub const FENCE: SectionKind = SectionKind(2);
    /// Which topics are not in here. Resident.
    pub const FILTER: SectionKind = SectionKind(3);
    /// The topics, sorted by name, in blocks.
    pub const TOPICS: SectionKind = SectionKind(4);
    /// The frames of topics that are in many.
    pub const LISTS: SectionKind = SectionKind(5);
    /// The ids of events.
    pub const IDS: SectionKind = SectionKind(6);
    /// How far producers have come.
    pub const PRODUCERS: SectionKind = SectionKind(7);
    /// The control events.
    pub const CONTROLS: SectionKind = SectionKind(8);
    /// The topics whose last event is gone.
    pub const GONE: SectionKind = SectionKind(10);
    /// That GONE may lack topics that have events behind the segment ([`crate::remains`]).
    pub const REMADE: SectionKind = SectionKind(18);
    /// That the events are gone.
    pub const STUB: SectionKind = SectionKind(9);
    /// What a repair found to be lost; only where there is something. Resident.
    pub const GAPS: SectionKind = SectionKind(16);
    /// From where on the log kept anything; only where that lies in the segment. Resident.
    pub const KEPT: SectionKind = SectionKind(17);
}

impl fmt::Display for SectionKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            SectionKind::FRAMES => formatter.write_str("FRAMES"),
            SectionKind::FENCE => formatter.write_str("FENCE"),
            SectionKind::FILTER => formatter.write_str("FILTER"),
            SectionKind::TOPICS => formatter.write_str("TOPICS"),
            SectionKind::LISTS => formatter.write_str("LISTS"),
            SectionKind::IDS => formatter.write_str("IDS"),
            SectionKind::PRODUCERS => formatter.write_str("PRODUCERS"),
            SectionKind::CONTROLS => formatter.write_str("CONTROLS"),
            SectionKind::GONE => formatter.write_str("GONE"),
            SectionKind::REMADE => formatter.write_str("REMADE"),
            SectionKind::STUB => formatter.write_str("STUB"),
            SectionKind::GAPS => formatter.write_str("GAPS"),
            SectionKind::KEPT => formatter.write_str("KEPT"),
            SectionKind(other) => write!(formatter, "section {other}"),
        }
    }
}

/// Why bytes are no index, or no part of one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// It ends too early, or goes on too long.
    #[error("{bytes} bytes instead of {bytes_expected}")]
    Length {
        /// How many there are.
        bytes: u64,
        /// How many there must be.
        bytes_expected: u64,
    },
    /// It is another kind of file.
    #[error("not an index of strandline")]
    Magic,
    /// A newer program wrote it.
    #[error("index format {version} is newer than {INDEX_VERSION}")]
    NewerVersion {
        /// Its format.
        version: u32,
    },
    /// The header is damaged.
    #[error("checksum of the index header does not match")]
    HeaderChecksum,
    /// A section, or a part of it, is damaged.
    #[error("checksum in {section} does not match")]
    Checksum {
        /// Which section.
        section: SectionKind,
    },
    /// The checksum holds and the content does not: no program of ours wrote it.
    #[error("{what} in the index is out of range")]
    Content {
        /// What is wrong.
        what: &'static str,
    },
}

/// Where a section lies, and its checksum as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// What it holds.
    pub kind: SectionKind,
    /// The checksum of all of it.
    pub checksum: u32,
    /// Where it begins in the file.
    pub position: Position,
    /// Its length.
    pub bytes: u64,
}

impl Section {
    /// The position behind it.
    pub fn end(&self) -> Position {
        self.position.plus(self.bytes)
    }

    /// Where it lies in a file that is in memory; decoding the header has checked that it can be.
    pub(crate) fn range(&self) -> Range<usize> {
        let start = usize::try_from(self.position.get()).unwrap_or(usize::MAX);
        let end = usize::try_from(self.end().get()).unwrap_or(usize::MAX);
        start..end
    }
}

/// The first 512 bytes of an index: which log file it belongs to, how that ends, what is where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexHeader {
    /// The first offset that the segment stands for.
    pub base_offset: Offset,
    /// The first offset behind those.
    pub end_offset: Offset,
    /// Where the log file's last frame ends; what lies behind is not part of the log.
    pub end_position: Position,
    /// The checksum of the last frame, or [`Seed::chain_start`] if there is none.
    pub end_checksum: u32,
    /// The incarnation of the log file.
    pub incarnation: Incarnation,
    /// The tag in the log file's header.
    pub tag: Tag,
    /// The first event's time; 0 if there is none.
    pub first_time_ms: u64,
    /// The last event's time; 0 if there is none.
    pub last_time_ms: u64,
    /// How many events the segment holds.
    pub event_count: u64,
    /// How many frames.
    pub frame_count: u64,
    /// Of how many topics.
    pub topic_count: u64,
    /// The length of the header and of what is to be kept in memory, from the start of the file.
    pub resident_bytes: u64,
    /// The length of the file.
    pub index_bytes: u64,
    /// What is where, in file order.
    pub sections: Vec<Section>,
}

impl IndexHeader {
    /// The header that `bytes` begin with.
    pub fn decode(bytes: &[u8]) -> Result<IndexHeader, IndexError> {
        let Some(bytes) = bytes.first_chunk::<INDEX_HEADER_BYTES>() else {
            let bytes_expected = INDEX_HEADER_BYTES as u64;
            return Err(IndexError::Length { bytes: bytes.len() as u64, bytes_expected });
        };
        if bytes[0..8] != MAGIC {
            return Err(IndexError::Magic);
        }
        if crc_without_field(bytes) != u32_at(bytes, CRC_AT) {
            return Err(IndexError::HeaderChecksum);
        }
        let version = u32_at(bytes, 8);
        if version > INDEX_VERSION {
            return Err(IndexError::NewerVersion { version });
        }
        if version == 0 {
            return Err(IndexError::Content { what: "version" });
        }
        let section_count = u32_at(bytes, 44) as usize;
        if section_count > SECTIONS_MAX {
            return Err(IndexError::Content { what: "section count" });
        }
        let (table, reserved) = bytes[SECTIONS_AT..].split_at(section_count * SECTION_BYTES);
        if reserved.iter().any(|byte| *byte != 0) {
            return Err(IndexError::Content { what: "reserved bytes" });
        }
        let sections = table
            .chunks_exact(SECTION_BYTES)
            .map(|entry| Section {
                kind: SectionKind(u32_at(entry, 0)),
                checksum: u32_at(entry, 4),
                position: Position::new(u64_at(entry, 8)),
                bytes: u64_at(entry, 16),
            })
            .collect();
        let mut incarnation = [0; 16];
        incarnation.copy_from_slice(&bytes[48..64]);
        let mut tag = [0; Tag::BYTES_MAX];
        tag.copy_from_slice(&bytes[64..80]);
        let header = IndexHeader {
            base_offset: Offset::new(u64_at(bytes, 16)),
            end_offset: Offset::new(u64_at(bytes, 24)),
            end_position: Position::new(u64_at(bytes, 32)),
            end_checksum: u32_at(bytes, 40),
            incarnation: Incarnation::new(incarnation),
            tag: Tag::decode(&tag).map_err(|_| IndexError::Content { what: "tag" })?,
            first_time_ms: u64_at(bytes, 80),
            last_time_ms: u64_at(bytes, 88),
            event_count: u64_at(bytes, 96),
            frame_count: u64_at(bytes, 104),
            topic_count: u64_at(bytes, 112),
            resident_bytes: u64_at(bytes, 120),
            index_bytes: u64_at(bytes, 128),
            sections,
        };
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<(), IndexError> {
        let wrong = |what| Err(IndexError::Content { what });
        if self.end_offset < self.base_offset || self.end_offset > Offset::MAX {
            return wrong("end offset");
        }
        if self.event_count > self.end_offset.since(self.base_offset) {
            return wrong("event count");
        }
        if self.topic_count > self.event_count {
            return wrong("topic count");
        }
        if self.last_time_ms < self.first_time_ms {
            return wrong("last time");
        }
        let mut end = INDEX_HEADER_BYTES as u64;
        if self.index_bytes < end {
            return wrong("index length");
        }
        let mut resident = end == self.resident_bytes;
        for section in &self.sections {
            if section.position.get() != end || section.bytes > self.index_bytes - end {
                return wrong("section");
            }
            end += section.bytes;
            resident |= end == self.resident_bytes;
        }
        if end != self.index_bytes {
            return wrong("index length");
        }
        if !resident {
            return wrong("resident length");
        }
        Ok(())
    }

    /// The header's bytes.
    fn encode(&self) -> [u8; INDEX_HEADER_BYTES] {
        assert!(self.sections.len() <= SECTIONS_MAX, "{} sections", self.sections.len());
        let section_count = u32::try_from(self.sections.len()).expect("at most 15");
        let mut bytes = [0; INDEX_HEADER_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&INDEX_VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.base_offset.get().to_le_bytes());
        bytes[24..32].copy_from_slice(&self.end_offset.get().to_le_bytes());
        bytes[32..40].copy_from_slice(&self.end_position.get().to_le_bytes());
        bytes[40..44].copy_from_slice(&self.end_checksum.to_le_bytes());
        bytes[44..48].copy_from_slice(&section_count.to_le_bytes());
        bytes[48..64].copy_from_slice(&self.incarnation.bits());
        bytes[64..80].copy_from_slice(&self.tag.encode());
        bytes[80..88].copy_from_slice(&self.first_time_ms.to_le_bytes());
        bytes[88..96].copy_from_slice(&self.last_time_ms.to_le_bytes());
        bytes[96..104].copy_from_slice(&self.event_count.to_le_bytes());
        bytes[104..112].copy_from_slice(&self.frame_count.to_le_bytes());
        bytes[112..120].copy_from_slice(&self.topic_count.to_le_bytes());
        bytes[120..128].copy_from_slice(&self.resident_bytes.to_le_bytes());
        bytes[128..136].copy_from_slice(&self.index_bytes.to_le_bytes());
        for (section, entry) in
            self.sections.iter().zip(bytes[SECTIONS_AT..].chunks_exact_mut(SECTION_BYTES))
        {
            entry[0..4].copy_from_slice(&section.kind.0.to_le_bytes());
            entry[4..8].copy_from_slice(&section.checksum.to_le_bytes());
            entry[8..16].copy_from_slice(&section.position.get().to_le_bytes());
            entry[16..24].copy_from_slice(&section.bytes.to_le_bytes());
        }
        let crc = crc_without_field(&bytes);
        bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The section of a kind; an empty one at the end if the index has none.
    pub fn section(&self, kind: SectionKind) -> Section {
        let none =
            Section { kind, checksum: 0, position: Position::new(self.index_bytes), bytes: 0 };
        self.sections.iter().copied().find(|section| section.kind == kind).unwrap_or(none)
    }

    /// What was read of a section, if it is what was written there.
    pub(crate) fn checked(
        &self,
        kind: SectionKind,
        content: Vec<u8>,
    ) -> Result<Vec<u8>, IndexError> {
        let is_good =
            content.is_empty() || self.seed().crc(&content) == self.section(kind).checksum;
        if is_good { Ok(content) } else { Err(IndexError::Checksum { section: kind }) }
    }

    /// Whether the index belongs to the log file with this header.
    pub fn belongs_to(&self, log: &SegmentHeader) -> bool {
        let is_same =
            self.incarnation == log.incarnation || mutation::is_planted(Mutation::OldIndexBelieved);
        is_same && self.base_offset == log.base_offset
    }

    /// Whether GONE may lack topics that have events behind the segment.
    pub(crate) fn is_remade(&self) -> bool {
        self.sections.iter().any(|section| section.kind == SectionKind::REMADE)
    }

    /// What its checksums begin with.
    pub fn seed(&self) -> Seed {
        Seed::of(&self.incarnation)
    }
}

/// Checks all of an index that is in memory: every section's checksum, every block and every list.
///
/// Whether it says what the log says is found by building it again: the same frames give the same
/// bytes.
pub fn check_all(bytes: &[u8]) -> Result<ResidentIndex, IndexError> {
    let header = IndexHeader::decode(bytes)?;
    if header.index_bytes != bytes.len() as u64 {
        let bytes_expected = header.index_bytes;
        return Err(IndexError::Length { bytes: bytes.len() as u64, bytes_expected });
    }
    let seed = header.seed();
    for section in &header.sections {
        if seed.crc(&bytes[section.range()]) != section.checksum {
            return Err(IndexError::Checksum { section: section.kind });
        }
    }
    let resident = ResidentIndex::decode(bytes)?;
    let mut topic_count = 0;
    let mut event_count = 0;
    let mut last_name = String::new();
    let all = 0..resident.topic_block_count();
    let topics = &bytes[header.section(SectionKind::TOPICS).range()];
    let mut blocks = resident.read_topics(topics, all)?;
    while let Some(entry) = blocks.next_entry()? {
        if topic_count > 0 && *entry.name <= *last_name {
            return Err(IndexError::Content { what: "order of topics" });
        }
        if !resident.may_contain(entry.name) {
            return Err(IndexError::Content { what: "filter" });
        }
        last_name.clear();
        last_name.push_str(entry.name);
        topic_count += 1;
        event_count += entry.summary.event_count;
        if let TopicList::Stored(list) = entry.list()? {
            list.decode(&bytes[list.range()])?;
        }
    }
    if topic_count != header.topic_count || event_count != header.event_count {
        return Err(IndexError::Content { what: "event count" });
    }
    let section = |kind| &bytes[header.section(kind).range()];
    let (base, end) = (header.base_offset, header.end_offset);
    delta::decode_ids(section(SectionKind::IDS), base, end)?;
    delta::decode_producers(section(SectionKind::PRODUCERS), end)?;
    delta::decode_controls(section(SectionKind::CONTROLS), base, end)?;
    gone::decode_gone(section(SectionKind::GONE), base, end)?;
    Ok(resident)
}
