//! The index of a segment whose events are all gone: a stub. It says which offsets are missing on
//! purpose, so that a hole that retention made is not taken for a lost file, and it keeps what the
//! segment had added to the state of the log and is still of use.
//!
//! It has the header of the index as it was, without events, frames and topics, and these sections: IDS
//! and PRODUCERS, as far as they are young enough to matter, CONTROLS, GONE with all topics, and STUB, of 8
//! bytes: `retired\0`. Where a stub stands beside its log file, a removal was cut short, and is finished
//! by the next start.

use std::collections::BTreeMap;

use crate::{
    index::{
        Carried, INDEX_HEADER_BYTES, IndexError, IndexHeader, REMADE, ResidentIndex, Section,
        SectionKind, check_all,
        cut::{Cut, Said},
        delta,
        gone::{self, GoneTopic},
        topics::{TOPIC_BLOCK_BYTES, TopicBlocks},
    },
    offset::Position,
    parts::{Part, Parts},
};

const CONTENT: [u8; 8] = *b"retired\0";

impl IndexHeader {
    /// Whether the events are gone on purpose.
    pub fn is_stub(&self) -> bool {
        self.sections.iter().any(|section| section.kind == SectionKind::STUB)
    }
}

/// What is too old to be kept in a stub.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StubLimits {
    /// Ids of events before it are forgotten by now: milliseconds since 1970.
    pub ids_since_ms: u64,
    /// And producers that were silent since: seconds since 1970.
    pub producers_since_s: u32,
}

/// The stub of an index, which is given whole.
pub fn make_stub(bytes: &[u8], limits: &StubLimits) -> Result<Vec<u8>, IndexError> {
    let header = IndexHeader::decode(bytes)?;
    if header.is_stub() {
        return Ok(bytes.to_vec());
    }
    if header.index_bytes != bytes.len() as u64 {
        let bytes_expected = header.index_bytes;
        return Err(IndexError::Length { bytes: bytes.len() as u64, bytes_expected });
    }
    let section = |kind| header.checked(kind, bytes[header.section(kind).range()].to_vec());
    let sections = Sections::read(section)?;
    let producers = section(SectionKind::PRODUCERS)?;
    let mut producers = delta::decode_producers(&producers, header.end_offset)?;
    producers.retain(|entry| entry.time_s >= limits.producers_since_s);
    let producers = delta::encode_producers(producers.into_iter()).into();
    Ok(stub_of(&ResidentIndex::decode(bytes)?, sections, producers, limits)?.to_vec())
}

/// The sections of an index that a stub needs, beside PRODUCERS.
pub(crate) struct Sections {
    ids: Vec<u8>,
    controls: Vec<u8>,
    gone: Vec<u8>,
    topics: Vec<u8>,
}

impl Sections {
    /// `read` reads each of them, and checks it.
    pub fn read<E>(read: impl Fn(SectionKind) -> Result<Vec<u8>, E>) -> Result<Sections, E> {
        Ok(Sections {
            ids: read(SectionKind::IDS)?,
            controls: read(SectionKind::CONTROLS)?,
            gone: read(SectionKind::GONE)?,
            topics: read(SectionKind::TOPICS)?,
        })
    }
}

/// The stub of an index in parts; `producers` is its PRODUCERS, without those that are too old.
pub(crate) fn stub_of<'a>(
    resident: &ResidentIndex,
    sections: Sections,
    producers: Part<'a>,
    limits: &StubLimits,
) -> Result<Parts<'a>, IndexError> {
    let header = resident.header();
    let (base, end) = (header.base_offset, header.end_offset);
    let mut ids = delta::decode_ids(&sections.ids, base, end)?;
    ids.retain(|entry| entry.time_ms >= limits.ids_since_ms);
    let gone = gone::decode_gone(&sections.gone, base, end)?;
    let topics = all_topics(header, gone, &sections.topics)?;
    let contents = [
        (SectionKind::IDS, delta::encode_ids(ids.iter(), base).into()),
        (SectionKind::PRODUCERS, producers),
        (SectionKind::CONTROLS, sections.controls.into()),
        (SectionKind::GONE, gone::encode_gone(&topics, base).into()),
    ];
    Ok(assemble(header.clone(), header.last_time_ms, header.is_remade(), contents))
}

/// What a stub, which is given whole, says of the events before a cut inside it, and the header of that; `None` if nothing of
/// it surely lies before. Where the cut is a time it ends behind the last event that is known to be older.
pub(crate) fn cut_stub(
    bytes: &[u8],
    cut: Cut,
) -> Result<Option<(IndexHeader, Vec<u8>)>, IndexError> {
    let header = check_all(bytes)?.header().clone();
    let base = header.base_offset;
    let mut said = Said::decode(&Carried::of_index(&header, bytes), &header)?;
    let end = match cut {
        Cut::Offset(offset) => offset,
        Cut::TimeMs(time_ms) => said.end_before(time_ms, base),
    };
    if end <= base {
        return Ok(None);
    }
    said.retain_before(end, end);
    // Compaction may have taken the first event, of which the header says the time, from behind the cut.
    let last_time_ms = said.last_time_ms().unwrap_or(header.first_time_ms);
    let first_time_ms = header.first_time_ms.min(last_time_ms);
    let Carried { ids, producers, controls, gone, is_remade, .. } = said.encode(base, last_time_ms);
    let header = IndexHeader { end_offset: end, first_time_ms, ..header };
    let contents = [
        (SectionKind::IDS, ids.into()),
        (SectionKind::PRODUCERS, producers.into()),
        (SectionKind::CONTROLS, controls.into()),
        (SectionKind::GONE, gone.into()),
    ];
    let bytes = assemble(header, last_time_ms, is_remade, contents).to_vec();
    Ok(Some((IndexHeader::decode(&bytes)?, bytes)))
}

/// The parts of a stub.
fn assemble<'a>(
    header: IndexHeader,
    last_time_ms: u64,
    is_remade: bool,
    state: [(SectionKind, Part<'a>); 4],
) -> Parts<'a> {
    let remade = is_remade.then(|| (SectionKind::REMADE, Part::from(&REMADE[..])));
    let mark = (SectionKind::STUB, Part::from(&CONTENT[..]));
    let state: Vec<_> = state.into_iter().chain(remade).chain([mark]).collect();
    let mut position = Position::new(INDEX_HEADER_BYTES as u64);
    let mut sections = Vec::new();
    for (kind, content) in state.iter().filter(|(_, content)| !content.is_empty()) {
        let checksum = content.crc(header.seed());
        let section = Section { kind: *kind, checksum, position, bytes: content.len() };
        position = section.end();
        sections.push(section);
    }
    let stub = IndexHeader {
        event_count: 0,
        frame_count: 0,
        topic_count: 0,
        resident_bytes: INDEX_HEADER_BYTES as u64,
        index_bytes: position.get(),
        last_time_ms,
        sections,
        ..header
    };
    let contents = state.into_iter().map(|(_, content)| content);
    Parts([Part::from(stub.encode().to_vec())].into_iter().chain(contents).collect())
}

/// Every topic that the index knows, with its last event: those of `gone` and of its blocks.
pub(crate) fn all_topics(
    header: &IndexHeader,
    gone: Vec<GoneTopic>,
    blocks: &[u8],
) -> Result<Vec<GoneTopic>, IndexError> {
    let mut topics: BTreeMap<String, GoneTopic> =
        gone.into_iter().map(|topic| (topic.name.clone(), topic)).collect();
    let mut entries = TopicBlocks::new(header, blocks, 0..blocks.len() / TOPIC_BLOCK_BYTES)?;
    while let Some(entry) = entries.next_entry()? {
        let is_newer = topics
            .get(entry.name)
            .is_none_or(|known| known.last_offset < entry.summary.last_offset);
        if is_newer {
            topics.insert(
                entry.name.to_owned(),
                GoneTopic {
                    name: entry.name.to_owned(),
                    number: entry.summary.number,
                    last_offset: entry.summary.last_offset,
                    last_time_ms: entry.summary.last_time_ms,
                },
            );
        }
    }
    Ok(topics.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        index::check_all,
        io::{Access, Disk, DiskFile},
        segment::SegmentFile,
        testing::TestLog,
    };

    #[test]
    fn a_stub_keeps_the_topics_and_is_short() {
        let mut log = TestLog::new(1);
        let name = log.add_sealed(&vec![vec![("a", vec![1]), ("b/c", vec![2])]; 3_000]);
        let path = log.path(name, SegmentFile::Index);
        let file = log.disk.open(&path, Access::Read).expect("an index");
        let mut bytes = vec![0; usize::try_from(file.size().expect("a size")).expect("small")];
        file.read_exact_at(&mut bytes, Position::default()).expect("readable");
        let stub = make_stub(&bytes, &StubLimits::default()).expect("a stub");
        assert!(stub.len() < 700 && bytes.len() > 5_000, "{} of {}", stub.len(), bytes.len());
        let resident = check_all(&stub).expect("a sound index");
        let (was, header) = (IndexHeader::decode(&bytes).expect("an index"), resident.header());
        assert!(header.is_stub() && !was.is_stub());
        assert_eq!((header.base_offset, header.end_offset), (was.base_offset, was.end_offset));
        assert_eq!(header.last_time_ms, was.last_time_ms);
        let gone = &stub[header.section(SectionKind::GONE).range()];
        let gone = gone::decode_gone(gone, header.base_offset, header.end_offset).expect("topics");
        let known: Vec<_> =
            gone.iter().map(|topic| (topic.name.as_str(), topic.last_offset.get())).collect();
        assert_eq!(known, [("a", 5_998), ("b/c", 5_999)]);
        assert_eq!(make_stub(&stub, &StubLimits::default()).as_ref(), Ok(&stub), "once is enough");
    }
}
