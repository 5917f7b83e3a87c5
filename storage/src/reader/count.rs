//! How many events of one topic the sealed part keeps, from the indexes alone as far as they say it.

use std::sync::Arc;

use crate::{
    error::ReadError,
    index::TopicSummary,
    io::{Disk, ReadIo},
    offset::Offset,
    reader::{ReadQuery, Reader},
    segment_set::{SealedSegment, SegmentSet},
    selection::Order,
    topic::TopicPattern,
};

/// The events of a topic at or behind `from`: how many, and the first of them.
pub async fn count_topic<D: Disk, I: ReadIo<D>>(
    set: &SegmentSet<D>,
    io: &I,
    topic: &TopicPattern,
    from: Offset,
) -> Result<(u64, Option<Offset>), ReadError> {
    let (mut count, mut first) = (0, None);
    for segment in set.iter().filter(|segment| segment.end() > from) {
        let summary = summary_of(segment, io, topic).await?;
        let Some(summary) = summary.filter(|summary| summary.last_offset >= from) else { continue };
        if summary.first_offset >= from {
            count += summary.event_count;
            first = first.or(Some(summary.first_offset));
            continue;
        }
        let alone = Arc::new(SegmentSet::default().with(Arc::clone(segment)));
        let (topics, end, order) = (vec![topic.clone()], segment.end(), Order::Ascending);
        let mut reader = Reader::new(alone, &ReadQuery { topics, from, end, order });
        loop {
            match reader.next(io).await {
                Ok(Some(hits)) => {
                    count += hits.len() as u64;
                    first = first.or_else(|| hits.events().next().map(|event| event.offset()));
                }
                Ok(None) => break,
                Err(ReadError::Gap { .. } | ReadError::Expired { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok((count, first))
}

/// What the index of a segment says of a topic.
async fn summary_of<D: Disk, I: ReadIo<D>>(
    segment: &SealedSegment<D>,
    io: &I,
    topic: &TopicPattern,
) -> Result<Option<TopicSummary>, ReadError> {
    let index = segment.index();
    let blocks = index.topic_blocks(topic);
    if blocks.is_empty() {
        return Ok(None);
    }
    let (position, len) = index.topic_blocks_place(&blocks);
    let io_error = |source| ReadError::Io { file: segment.index_path(), source };
    let bytes = io.read(segment.index_file(), position, len).await.map_err(io_error)?;
    let mut found = None;
    let mut look = || {
        let mut entries = index.read_topics(bytes.as_slice(), blocks.clone())?;
        while let Some(entry) = entries.next_entry()? {
            if topic.exact() == Some(entry.name) {
                found = Some(entry.summary);
            }
        }
        Ok::<_, crate::index::IndexError>(())
    };
    let damage = |error: crate::index::IndexError| std::io::Error::other(error.to_string());
    look().map_err(|error| io_error(damage(error)))?;
    Ok(found)
}
