//! A snapshot: the state of a log at exactly one offset, so that opening it need not read what every
//! segment below has added. Its file is `<offset, 20 digits>.snap`.
//!
//! Little-endian throughout; a `varint` is described in `index/varint.rs`.
//! ```text
//! 0        8         12      16       24          32             40            56           64
//! +--------+---------+-------+--------+-----------+--------------+-------------+------------+---
//! | magic  | version | crc32 | offset | kept from | last time ms | incarnation | file bytes | ..
//! +--------+---------+-------+--------+-----------+--------------+-------------+------------+---
//! 64         72                                168      256
//! +----------+---------------------------------+--------+----------+--------+-----+-----------+
//! | topics   | 6 sections: bytes u64, crc32    | zeroes | SEGMENTS | TOPICS | IDS | PRODUCERS | ..
//! +----------+ u32, zero u32                   +--------+----------+--------+-----+-----------+
//!
//! SEGMENTS   those below the offset that hold events, in offset order (varints): base - the end of the one
//!            before, end - base, generation; then the incarnation of the log file, 16 bytes
//! TOPICS     in the order of their numbers (varints): number - the one before - 1 (of the first: number);
//!            flags: 1 it has events, 2 it may have less than is said; name bytes, name; with events: count,
//!            first offset, last - first, first time ms, last time - first; without: last offset ever, time
//! IDS        as in an index, whose segment begins at 0
//! PRODUCERS  as in an index
//! CONTROLS   control events that come to the settings that hold: kind, one byte; length, varint; data
//! FLOORS     the first kept offset of topics that were deleted or trimmed, by name (varints): name bytes,
//!            name, offset, that of the event that says so - that
//! ```
//! The header's checksum covers its 256 bytes but for itself; those of the sections, which lie one behind the
//! other, begin with the [`Seed`] of the incarnation: that of the segment that ends at the offset.
//!
//! Nothing below `kept from` is kept, and no file need be there to say so. From there on every segment or stub
//! must be. What a topic's count and first event say was true when the segments named here held what they did:
//! where one has been rewritten or retired since, it may be less.
//!
//! A snapshot is made of the one before it and of what the indexes of sealed segments say (`fold.rs`), never of
//! a running log's memory, which knows what no device has yet.

use std::{convert::Infallible, ops::Range};

use crate::{
    fields::{CRC_AT, crc_without_field, u32_at, u64_at},
    frame::Seed,
    index::{
        IndexError,
        delta::{self, ProducersReader},
    },
    io::DiskFile,
    offset::Offset,
    once::{IdEntry, Producers},
    parts::{Part, Parts},
    segment::Incarnation,
    state::LogState,
    stored_index::StoredIndex,
    topic::TopicNumber,
};

pub(crate) mod fold;
pub mod job;
pub(crate) mod read;
mod rules;
pub(crate) mod segments;
pub mod topics;

pub use segments::LiveSegment;
pub use topics::TopicAt;

/// The header's length.
pub const SNAPSHOT_HEADER_BYTES: usize = 256;
/// The format that is written, and the newest that is read.
pub const SNAPSHOT_VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"STRLNSNP";
const SECTIONS_AT: usize = 72;
const SECTION_BYTES: usize = 16;
const SECTIONS: usize = 6;
/// The place of PRODUCERS among them.
const PRODUCERS: usize = 3;
const USED_BYTES: usize = SECTIONS_AT + SECTIONS * SECTION_BYTES;

const _: () = assert!(USED_BYTES <= SNAPSHOT_HEADER_BYTES);

/// Why bytes are no snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// It ends too early, or goes on too long.
    #[error("{bytes} bytes instead of {bytes_expected}")]
    Length {
        /// How many there are.
        bytes: u64,
        /// How many there must be.
        bytes_expected: u64,
    },
    /// It is another kind of file.
    #[error("not a snapshot of strandline")]
    Magic,
    /// A newer program wrote it.
    #[error("snapshot format {version} is newer than {SNAPSHOT_VERSION}")]
    NewerVersion {
        /// Its format.
        version: u32,
    },
    /// The header is damaged.
    #[error("checksum of the snapshot's header does not match")]
    HeaderChecksum,
    /// A section is damaged.
    #[error("checksum of section {section} does not match")]
    Checksum {
        /// Which, from 0.
        section: usize,
    },
    /// The checksum holds and the content does not: no program of ours wrote it.
    #[error("{what} in the snapshot is out of range")]
    Content {
        /// What is wrong.
        what: &'static str,
    },
}

impl From<IndexError> for SnapshotError {
    fn from(error: IndexError) -> Self {
        match error {
            IndexError::Content { what } => SnapshotError::Content { what },
            _ => SnapshotError::Content { what: "a section" },
        }
    }
}

/// The first 256 bytes of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotHeader {
    /// The state is that of the log before this offset.
    pub offset: Offset,
    /// Nothing before this offset was kept any more.
    pub kept_from: Offset,
    /// The last event's time.
    pub last_time_ms: u64,
    /// That of the segment that ends at the offset.
    pub incarnation: Incarnation,
    /// The length of the file.
    pub file_bytes: u64,
    /// How many topics it knows.
    pub topic_count: u64,
    sections: [(u64, u32); SECTIONS],
}

impl SnapshotHeader {
    /// The header that `bytes` begin with.
    pub fn decode(bytes: &[u8]) -> Result<SnapshotHeader, SnapshotError> {
        let Some(bytes) = bytes.first_chunk::<SNAPSHOT_HEADER_BYTES>() else {
            let bytes_expected = SNAPSHOT_HEADER_BYTES as u64;
            return Err(SnapshotError::Length { bytes: bytes.len() as u64, bytes_expected });
        };
        if bytes[0..8] != MAGIC {
            return Err(SnapshotError::Magic);
        }
        if crc_without_field(bytes) != u32_at(bytes, CRC_AT) {
            return Err(SnapshotError::HeaderChecksum);
        }
        let version = u32_at(bytes, 8);
        if version > SNAPSHOT_VERSION {
            return Err(SnapshotError::NewerVersion { version });
        }
        let mut incarnation = [0; 16];
        incarnation.copy_from_slice(&bytes[40..56]);
        let mut sections = [(0, 0); SECTIONS];
        let table = bytes[SECTIONS_AT..USED_BYTES].chunks_exact(SECTION_BYTES);
        let mut reserved = bytes[USED_BYTES..].iter().any(|byte| *byte != 0);
        for (section, entry) in sections.iter_mut().zip(table) {
            *section = (u64_at(entry, 0), u32_at(entry, 8));
            reserved |= u32_at(entry, 12) != 0;
        }
        let header = SnapshotHeader {
            offset: Offset::new(u64_at(bytes, 16)),
            kept_from: Offset::new(u64_at(bytes, 24)),
            last_time_ms: u64_at(bytes, 32),
            incarnation: Incarnation::new(incarnation),
            file_bytes: u64_at(bytes, 56),
            topic_count: u64_at(bytes, 64),
            sections,
        };
        let wrong = |what| Err(SnapshotError::Content { what });
        if version == 0 {
            return wrong("version");
        }
        if reserved {
            return wrong("reserved bytes");
        }
        if header.offset > Offset::MAX || header.kept_from > header.offset {
            return wrong("offset");
        }
        let ends = sections
            .iter()
            .try_fold(SNAPSHOT_HEADER_BYTES as u64, |end, (bytes, _)| end.checked_add(*bytes));
        if ends != Some(header.file_bytes) {
            return wrong("length");
        }
        Ok(header)
    }

    fn encode(&self) -> [u8; SNAPSHOT_HEADER_BYTES] {
        let mut bytes = [0; SNAPSHOT_HEADER_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&SNAPSHOT_VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.offset.get().to_le_bytes());
        bytes[24..32].copy_from_slice(&self.kept_from.get().to_le_bytes());
        bytes[32..40].copy_from_slice(&self.last_time_ms.to_le_bytes());
        bytes[40..56].copy_from_slice(&self.incarnation.bits());
        bytes[56..64].copy_from_slice(&self.file_bytes.to_le_bytes());
        bytes[64..72].copy_from_slice(&self.topic_count.to_le_bytes());
        let table = bytes[SECTIONS_AT..USED_BYTES].chunks_exact_mut(SECTION_BYTES);
        for (entry, (section_bytes, checksum)) in table.zip(self.sections) {
            entry[0..8].copy_from_slice(&section_bytes.to_le_bytes());
            entry[8..12].copy_from_slice(&checksum.to_le_bytes());
        }
        let crc = crc_without_field(&bytes);
        bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }
}

/// A snapshot that was read and checked.
#[derive(Debug)]
pub struct Snapshot {
    header: SnapshotHeader,
    segments: Vec<LiveSegment>,
    /// TOPICS, which was walked through once.
    topics: Vec<u8>,
    ids: Vec<IdEntry>,
    producers: Producers,
    rules: rules::StoredRules,
}

impl Snapshot {
    /// The snapshot that `bytes` are, all of which is checked.
    pub fn decode(bytes: &[u8]) -> Result<Snapshot, SnapshotError> {
        let read = |position: u64, to: &mut [u8]| {
            let start = usize::try_from(position).expect("a place in memory");
            to.copy_from_slice(&bytes[start..start + to.len()]);
            Ok::<(), Infallible>(())
        };
        let Ok(decoded) = Snapshot::read(bytes.len() as u64, read);
        decoded
    }

    /// The snapshot that a file of so many bytes is, all of which is checked; `read` reads from a place in it.
    pub(crate) fn read<E>(
        file_bytes: u64,
        mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<Result<Snapshot, SnapshotError>, E> {
        let mut start = vec![0; SNAPSHOT_HEADER_BYTES.min(to_usize(file_bytes))];
        read(0, &mut start)?;
        let header = match SnapshotHeader::decode(&start) {
            Ok(header) if header.file_bytes == file_bytes => header,
            Ok(SnapshotHeader { file_bytes: bytes_expected, .. }) => {
                return Ok(Err(SnapshotError::Length { bytes: file_bytes, bytes_expected }));
            }
            Err(error) => return Ok(Err(error)),
        };
        let seed = Seed::of(&header.incarnation);
        let mut contents: [Vec<u8>; SECTIONS] = Default::default();
        let mut producers = Ok(Producers::default());
        let mut position = SNAPSHOT_HEADER_BYTES as u64;
        for (section, (bytes, checksum)) in header.sections.iter().enumerate() {
            let mut hasher = seed.hasher();
            if section == PRODUCERS {
                // Piece by piece: a million are never in memory twice.
                let mut reader = ProducersReader::new(header.offset);
                let (mut left, mut piece) = (*bytes, Vec::new());
                while left > 0 {
                    piece.resize(to_usize(left).min(delta::PRODUCERS_READ_BYTES), 0);
                    read(position + (bytes - left), &mut piece)?;
                    hasher.update(&piece);
                    left -= piece.len() as u64;
                    if let Ok(producers) = &mut producers {
                        reader.take(&piece, |entry| producers.put(entry));
                    }
                }
                if let Err(error) = reader.finish() {
                    producers = Err(error);
                }
            } else {
                let mut content = vec![0; to_usize(*bytes)];
                read(position, &mut content)?;
                hasher.update(&content);
                contents[section] = content;
            }
            if hasher.finalize() != *checksum {
                return Ok(Err(SnapshotError::Checksum { section }));
            }
            position += bytes;
        }
        Ok(Snapshot::decode_sections(header, contents, producers))
    }

    fn decode_sections(
        header: SnapshotHeader,
        contents: [Vec<u8>; SECTIONS],
        producers: Result<Producers, IndexError>,
    ) -> Result<Snapshot, SnapshotError> {
        let [segments, topics, ids, _, controls, floors] = contents;
        let offset = header.offset;
        let mut topic_count = 0;
        topics::walk(&topics, offset, |_| {
            topic_count += 1;
            Ok::<(), SnapshotError>(())
        })??;
        if topic_count != header.topic_count {
            return Err(SnapshotError::Content { what: "topic count" });
        }
        Ok(Snapshot {
            segments: segments::decode(&segments, offset)?,
            topics,
            ids: delta::decode_ids(&ids, Offset::ZERO, offset)?,
            producers: producers?,
            rules: rules::StoredRules::decode(&controls, &floors, offset)?,
            header,
        })
    }

    /// What it begins with.
    pub fn header(&self) -> &SnapshotHeader {
        &self.header
    }

    /// The state is that of the log before this offset.
    pub fn offset(&self) -> Offset {
        self.header.offset
    }

    /// The segments below that held events.
    pub fn segments(&self) -> &[LiveSegment] {
        &self.segments
    }

    /// What it says of the segment that begins at an offset, if that held events.
    pub(crate) fn segment(&self, base: Offset) -> Option<&LiveSegment> {
        let place = self.segments.binary_search_by_key(&base, |segment| segment.base).ok()?;
        self.segments.get(place)
    }

    /// Hands over every topic that it knows, in the order of their numbers.
    pub fn for_each_topic<E>(
        &self,
        take: impl FnMut(&TopicAt<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        topics::walk(&self.topics, self.header.offset, take).expect("it was walked through before")
    }

    /// The topics that may have fewer events than it says, as a segment is not the one any more that was counted: what
    /// is left of it names them, but for those of events that a repair has found to be lost, and where its index was made
    /// anew. Then all that may have had some there.
    pub(crate) fn lessened_by<F: DiskFile>(
        &self,
        index: &StoredIndex<F>,
        has_gaps: bool,
    ) -> Vec<TopicNumber> {
        let mut numbers = index.topic_numbers();
        if !has_gaps && !index.header().is_remade() && !numbers.is_empty() {
            return numbers;
        }
        let header = index.header();
        numbers.extend(self.topics_in(&(header.base_offset..header.end_offset)));
        numbers
    }

    /// The topics that may have had events in a segment.
    pub(crate) fn topics_in(&self, segment: &Range<Offset>) -> Vec<TopicNumber> {
        let mut numbers = Vec::new();
        let walked = self.for_each_topic(|topic| {
            if topic.count > 0 && topic.first < segment.end && topic.last >= segment.start {
                numbers.push(topic.number);
            }
            Ok::<(), Infallible>(())
        });
        let Ok(()) = walked;
        numbers
    }

    /// Gives an empty state what it says beside topics: the producers it does not have any more.
    pub fn give_to(&mut self, state: &mut LogState) {
        assert!(state.producers.is_empty(), "an empty state");
        state.add(self.ids.iter(), std::iter::empty(), &[]);
        state.producers = std::mem::take(&mut self.producers);
        self.rules.add_to(&mut state.rules, self.header.offset);
    }
}

/// What a snapshot that is to be written says.
struct Assembled<'a> {
    offset: Offset,
    kept_from: Offset,
    last_time_ms: u64,
    incarnation: Incarnation,
    topic_count: u64,
    /// SEGMENTS, TOPICS, IDS, PRODUCERS, CONTROLS, FLOORS.
    sections: [Part<'a>; SECTIONS],
}

impl<'a> Assembled<'a> {
    /// The parts of the file.
    fn assemble(self) -> Parts<'a> {
        let seed = Seed::of(&self.incarnation);
        let mut sections = [(0, 0); SECTIONS];
        for (section, content) in sections.iter_mut().zip(&self.sections) {
            *section = (content.len(), content.crc(seed));
        }
        let bytes: u64 = sections.iter().map(|(bytes, _)| bytes).sum();
        let header = SnapshotHeader {
            offset: self.offset,
            kept_from: self.kept_from,
            last_time_ms: self.last_time_ms,
            incarnation: self.incarnation,
            file_bytes: SNAPSHOT_HEADER_BYTES as u64 + bytes,
            topic_count: self.topic_count,
            sections,
        };
        let header = Part::from(header.encode().to_vec());
        Parts([header].into_iter().chain(self.sections).collect())
    }
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a file that fits in memory")
}

/// The name of the snapshot at an offset.
pub fn file_name(offset: Offset) -> String {
    format!("{:020}.snap", offset.get())
}

/// The offset of a snapshot, by its file's name.
pub fn offset_of(file_name: &str) -> Option<Offset> {
    let digits = file_name.strip_suffix(".snap")?;
    let is_offset = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_offset.then(|| digits.parse().ok().map(Offset::new)).flatten()
}

#[cfg(test)]
mod tests;
