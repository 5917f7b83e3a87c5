//! What is read of the segment that is to be rewritten.

use std::collections::HashMap;

use crate::{
    frame::{Frame, Seed},
    index::{
        Carried, IndexBuilder, IndexError, IndexHeader, SectionKind, TopicSummary,
        gone::{self, GoneTopic},
    },
    io::{Disk, DiskFile},
    parts::Part,
    read_ahead::AheadFile,
    scan::FrameScan,
    segment_set::SealedSegment,
    stored_producers::taken_over,
    topic::TopicNumber,
};

/// So much is read at once: a commit that comes meanwhile waits for it.
const READ_BYTES: usize = 256 << 10;

/// The topics of a segment, from its index.
pub(super) type Topics = Vec<(String, TopicSummary)>;

pub(super) fn numbers_of(topics: &Topics) -> Vec<TopicNumber> {
    topics.iter().map(|(_, summary)| summary.number).collect()
}

/// Every frame of a segment, up to its end; what is wrong where one cannot be read.
pub(super) fn frames_of<'a, D: Disk>(
    segment: &SealedSegment<D>,
    file: &'a AheadFile<D::File>,
) -> impl Iterator<Item = Result<Frame, String>> + use<'a, D> {
    let mut scan = FrameScan::new(file, segment.header()).in_steps_of(READ_BYTES);
    let end = segment.index().header().end_position;
    let (mut is_over, mut turns) = (false, file.turns());
    std::iter::from_fn(move || {
        let from = scan.end().end_position;
        if is_over || from >= end {
            return None;
        }
        let frame = match scan.next_frame() {
            Ok(Ok((frame, _))) => Ok(frame),
            Ok(Err(why)) => Err(format!("at position {}: {why}", scan.end().end_position)),
            Err(error) => Err(error.to_string()),
        };
        turns.worked_on(scan.end().end_position.get() - from.get());
        is_over = frame.is_err();
        Some(frame)
    })
}

/// All topics of a segment.
pub(super) fn read_topics<D: Disk>(segment: &SealedSegment<D>) -> Result<Topics, String> {
    let index = segment.index();
    let blocks = 0..index.topic_block_count();
    let (position, len) = index.topic_blocks_place(&blocks);
    let mut bytes = vec![0; len];
    segment.index_file().read_exact_at(&mut bytes, position).map_err(|error| error.to_string())?;
    let read = || {
        let mut topics = Vec::new();
        let mut entries = index.read_topics(&bytes, blocks)?;
        while let Some(entry) = entries.next_entry()? {
            topics.push((entry.name.to_owned(), entry.summary));
        }
        Ok(topics)
    };
    read().map_err(|error: IndexError| error.to_string())
}

/// What the rewritten segment's index takes over from the old one's, beside PRODUCERS.
pub(super) fn carried<D: Disk>(
    segment: &SealedSegment<D>,
    topics: &Topics,
    index: &IndexBuilder,
) -> Result<Carried, IndexError> {
    let header = segment.index().header();
    let section = |kind| read_section(segment, header, kind);
    let base = segment.base();
    let old_gone = gone::decode_gone(&section(SectionKind::GONE)?, base, segment.end())?;
    let mut gone: HashMap<String, GoneTopic> =
        old_gone.into_iter().map(|topic| (topic.name.clone(), topic)).collect();
    for (name, summary) in topics {
        let is_last_kept =
            index.topic(summary.number).is_some_and(|kept| kept.last_offset == summary.last_offset);
        let is_newer = gone.get(name).is_none_or(|known| known.last_offset < summary.last_offset);
        if !is_last_kept && is_newer {
            gone.insert(
                name.clone(),
                GoneTopic {
                    name: name.clone(),
                    number: summary.number,
                    last_offset: summary.last_offset,
                    last_time_ms: summary.last_time_ms,
                },
            );
        }
    }
    let mut gone: Vec<_> = gone.into_values().collect();
    gone.sort_unstable_by(|left, right| left.name.cmp(&right.name));
    Ok(Carried {
        ids: section(SectionKind::IDS)?,
        producers: Vec::new(),
        controls: section(SectionKind::CONTROLS)?,
        gone: gone::encode_gone(&gone, base),
        last_time_ms: header.last_time_ms,
        is_remade: header.is_remade(),
    })
}

/// PRODUCERS of a segment's index, for another one with this seed.
pub(super) fn producers<D: Disk>(
    segment: &SealedSegment<D>,
    seed: Seed,
) -> Result<Part<'static>, IndexError> {
    let taken = taken_over(segment.index_file(), segment.index().header(), 0, seed);
    taken.unwrap_or(Err(IndexError::Checksum { section: SectionKind::PRODUCERS }))
}

/// The content of a section of a segment's index.
fn read_section<D: Disk>(
    segment: &SealedSegment<D>,
    header: &IndexHeader,
    kind: SectionKind,
) -> Result<Vec<u8>, IndexError> {
    let section = header.section(kind);
    let mut bytes = vec![0; usize::try_from(section.bytes).expect("an index fits in memory")];
    let read = segment.index_file().read_exact_at(&mut bytes, section.position);
    read.map_err(|_| IndexError::Checksum { section: kind })?;
    header.checked(kind, bytes)
}
