//! How many events of some topics the sealed part keeps, from the indexes alone as far as they say it.
//!
//! A page of topics lies close together in every index, which is sorted as the page is: so each index
//! is asked once for all that are counted together, and not once for each. A frame is read only where the events of a
//! topic in that very frame are kept in part.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use crate::{
    error::ReadError,
    index::{IndexError, StoredList, TopicFrame, TopicList},
    io::{Disk, ReadIo},
    offset::{Offset, Position},
    reader::{RUN_BYTES_MAX, ReadQuery, Reader},
    segment_set::{SealedSegment, SegmentSet},
    selection::Order,
    topic::{Topic, TopicPattern},
};

/// So many blocks of topics are read at once.
const BLOCKS_PER_READ: usize = 16;
/// Lists are read together if no more than this lies between them.
const LIST_HOLE_BYTES_MAX: u64 = 4096;
/// Of so many topics at most it is asked first whether a segment holds them at all: more of them lie
/// side by side, and the next block is found without a search.
const FILTERED_MAX: usize = 16;

/// Some events of a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicCount {
    /// How many.
    pub count: u64,
    /// The first of them.
    pub first: Option<Offset>,
}

impl TopicCount {
    /// Adds events that lie behind those so far.
    pub fn add(&mut self, more: TopicCount) {
        self.count += more.count;
        self.first = self.first.or(more.first);
    }

    fn add_frame(&mut self, event_count: u64, first: Offset) {
        self.add(TopicCount { count: event_count, first: Some(first) });
    }
}

/// What lists of frames say of a topic's events at or behind an offset: those of all frames that lie
/// behind it, and the one frame, with the offsets it may have some at, of which nobody knows without
/// reading it.
pub(crate) fn count_frames(
    frames: &[TopicFrame],
    last_offset: Offset,
    from: Offset,
) -> (TopicCount, Option<(Position, Range<Offset>)>) {
    let mut counted = TopicCount::default();
    let begun = frames.partition_point(|frame| frame.first_offset < from);
    for frame in &frames[begun..] {
        counted.add_frame(frame.event_count, frame.first_offset);
    }
    let straddling = begun.checked_sub(1).map(|before| &frames[before]).and_then(|frame| {
        let end = frames.get(begun).map_or(last_offset.plus(1), |next| next.first_offset);
        (frame.event_count > 1 && from < end).then_some((frame.position, from..end))
    });
    (counted, straddling)
}

/// The events of each topic at or behind its offset. The topics are in the order of their names, each
/// once.
pub async fn count_topics<D: Disk, I: ReadIo<D>>(
    set: &SegmentSet<D>,
    io: &I,
    wanted: &[(Topic, Offset)],
) -> Result<Vec<TopicCount>, ReadError> {
    assert!(wanted.windows(2).all(|pair| pair[0].0 < pair[1].0), "topics in order");
    let mut counts = vec![TopicCount::default(); wanted.len()];
    let Some(from) = wanted.iter().map(|(_, from)| *from).min() else { return Ok(counts) };
    for segment in set.iter().filter(|segment| segment.end() > from) {
        let mut counting =
            Counting { segment, wanted, counts: &mut counts, parts: BTreeMap::new() };
        let mut stored = counting.read_blocks(io).await?;
        stored.sort_unstable_by_key(|(_, list)| list.position);
        counting.read_lists(io, &stored).await?;
        counting.read_frames(io).await?;
    }
    Ok(counts)
}

/// Counting in one segment.
struct Counting<'a, D: Disk> {
    segment: &'a Arc<SealedSegment<D>>,
    wanted: &'a [(Topic, Offset)],
    counts: &'a mut [TopicCount],
    /// What is to be read, by frame: offsets of topics.
    parts: BTreeMap<Position, Vec<(usize, Range<Offset>)>>,
}

impl<D: Disk> Counting<'_, D> {
    /// Counts what the entries of topics say; returns the lists that are to be read, and whose they are.
    async fn read_blocks<I: ReadIo<D>>(
        &mut self,
        io: &I,
    ) -> Result<Vec<(usize, StoredList)>, ReadError> {
        let mut stored = Vec::new();
        for blocks in self.blocks() {
            let (position, len) = self.segment.index().topic_blocks_place(&blocks);
            let bytes = io.read(self.segment.index_file(), position, len).await;
            let bytes = bytes.map_err(|source| self.failed(source))?;
            let taken = self.take_blocks(blocks, bytes.as_slice(), &mut stored);
            taken.map_err(|error| self.damaged(&error))?;
        }
        Ok(stored)
    }

    /// Runs of blocks that may hold the topics.
    fn blocks(&self) -> Vec<Range<usize>> {
        let index = self.segment.index();
        let is_filtered = self.wanted.len() <= FILTERED_MAX;
        let mut runs: Vec<Range<usize>> = Vec::new();
        for (topic, from) in self.wanted {
            if *from >= self.segment.end() || (is_filtered && !index.may_contain(topic)) {
                continue;
            }
            let last = runs.last().map_or(0, |run| run.end - 1);
            let Some(block) = index.topic_block(topic, last) else { continue };
            match runs.last_mut() {
                Some(run) if block < run.end => {}
                Some(run) if block == run.end && run.len() < BLOCKS_PER_READ => run.end += 1,
                _ => runs.push(block..block + 1),
            }
        }
        runs
    }

    fn take_blocks(
        &mut self,
        blocks: Range<usize>,
        bytes: &[u8],
        stored: &mut Vec<(usize, StoredList)>,
    ) -> Result<(), IndexError> {
        let mut at = 0;
        let mut entries = self.segment.index().read_topics(bytes, blocks)?;
        while let Some(entry) = entries.next_entry()? {
            at += match self.wanted.get(at) {
                // They lie side by side, but for the first.
                Some((topic, _)) if **topic < *entry.name => {
                    self.wanted[at..].partition_point(|(topic, _)| **topic < *entry.name)
                }
                Some(_) => 0,
                None => break,
            };
            let Some((topic, from)) = self.wanted.get(at) else { break };
            let summary = entry.summary;
            if **topic != *entry.name || summary.last_offset < *from {
                continue;
            }
            if summary.first_offset >= *from {
                self.counts[at].add_frame(summary.event_count, summary.first_offset);
                continue;
            }
            match entry.list()? {
                TopicList::Here(frames) => self.take_frames(at, &frames, summary.last_offset),
                TopicList::Stored(list) => stored.push((at, list)),
            }
        }
        Ok(())
    }

    fn take_frames(&mut self, at: usize, frames: &[TopicFrame], last: Offset) {
        let (counted, straddling) = count_frames(frames, last, self.wanted[at].1);
        self.counts[at].add(counted);
        if let Some((position, offsets)) = straddling {
            self.parts.entry(position).or_default().push((at, offsets));
        }
    }

    /// Reads lists that are in file order.
    async fn read_lists<I: ReadIo<D>>(
        &mut self,
        io: &I,
        mut lists: &[(usize, StoredList)],
    ) -> Result<(), ReadError> {
        while let Some((_, first)) = lists.first() {
            let start = first.position.get();
            let end_of = |list: &StoredList| list.position.get() + list.list_bytes as u64;
            let mut end = end_of(first);
            let joined = lists[1..].iter().take_while(|(_, list)| {
                let fits = list.position.get() <= end.saturating_add(LIST_HOLE_BYTES_MAX)
                    && end_of(list) - start <= RUN_BYTES_MAX;
                if fits {
                    end = end.max(end_of(list));
                }
                fits
            });
            let count = 1 + joined.count();
            let len = usize::try_from(end - start).expect("a list, or less than a run");
            let bytes = io.read(self.segment.index_file(), first.position, len).await;
            let bytes = bytes.map_err(|source| self.failed(source))?;
            for (at, list) in &lists[..count] {
                let begin = usize::try_from(list.position.get() - start).expect("within the run");
                let bytes = bytes.as_slice().get(begin..begin + list.list_bytes);
                let frames = list.decode(bytes.unwrap_or_default());
                let frames = frames.map_err(|error| self.damaged(&error))?;
                self.take_frames(*at, &frames, list.last_offset());
            }
            lists = &lists[count..];
        }
        Ok(())
    }

    /// Reads the frames that are kept in part.
    async fn read_frames<I: ReadIo<D>>(&mut self, io: &I) -> Result<(), ReadError> {
        for parts in std::mem::take(&mut self.parts).into_values() {
            let of = |(at, _): &(usize, Range<Offset>)| TopicPattern::of_topic(&self.wanted[*at].0);
            let topics: Vec<TopicPattern> = parts.iter().map(of).collect();
            let from = parts.iter().map(|(_, offsets)| offsets.start).min();
            let end = parts.iter().map(|(_, offsets)| offsets.end).max();
            let (from, end) = from.zip(end).expect("a part has offsets");
            let mut here: BTreeMap<&str, (&Range<Offset>, TopicCount)> = parts
                .iter()
                .map(|(at, offsets)| (&*self.wanted[*at].0, (offsets, TopicCount::default())))
                .collect();
            let alone = Arc::new(SegmentSet::default().with(Arc::clone(self.segment)));
            let query = ReadQuery { topics, from, end, order: Order::Ascending };
            let mut reader = Reader::new(alone, &query);
            loop {
                let hits = match reader.next(io).await {
                    Ok(Some(hits)) => hits,
                    Ok(None) => break,
                    Err(ReadError::Gap { .. } | ReadError::Expired { .. }) => continue,
                    Err(error) => return Err(error),
                };
                for event in hits.events() {
                    if let Some((offsets, counted)) = here.get_mut(event.topic())
                        && offsets.contains(&event.offset())
                    {
                        counted.add_frame(1, event.offset());
                    }
                }
            }
            for (at, _) in &parts {
                // Nothing of the topic lies before them that is kept.
                let (_, mut counted) = here[&*self.wanted[*at].0];
                counted.add(self.counts[*at]);
                self.counts[*at] = counted;
            }
        }
        Ok(())
    }

    fn failed(&self, source: std::io::Error) -> ReadError {
        ReadError::Io { file: self.segment.index_path(), source }
    }

    fn damaged(&self, error: &IndexError) -> ReadError {
        self.failed(std::io::Error::other(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{io::BlockingReads, testing::TestLog};

    /// Names of many lengths, so that they lie in many blocks.
    fn name(number: usize) -> String {
        format!("{:03}/{}", number * 37 % 400, "long/".repeat(number % 14) + "end")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// The same as reading everything, wherever in a frame the kept part begins.
        #[test]
        fn topics_are_counted_as_they_would_be_read(
            seed in any::<u64>(),
            segments in prop::collection::vec(prop::collection::vec((0..400_usize, 1..40_usize), 1..40), 1..5),
            wanted in prop::collection::btree_set(0..400_usize, 1..60),
            shares in prop::collection::vec(0..100_u64, 60),
        ) {
            let mut log = TestLog::new(seed);
            for frames in &segments {
                // A frame has few topics, some again and again; one is in most frames.
                let names: Vec<Vec<String>> = frames.iter().map(|(first, events)| {
                    (0..*events).map(|event| name(match event % 5 {
                        0 => 7,
                        other => (first + other) % 400,
                    })).collect()
                }).collect();
                let frames: Vec<Vec<(&str, Vec<u8>)>> = names.iter().map(|names| {
                    names.iter().map(|name| (name.as_str(), vec![1])).collect()
                }).collect();
                log.add_sealed(&frames);
            }
            let mut names: Vec<String> = wanted.iter().map(|number| name(*number)).collect();
            names.push(name(7));
            names.sort_unstable();
            names.dedup();
            let end = log.end().get();
            let wanted: Vec<(Topic, Offset)> = names.iter().zip(shares.iter().cycle())
                .map(|(name, share)| (Topic::parse(name).expect("a topic"), Offset::new(end * share / 100)))
                .collect();
            let set = log.set();
            let counted = BlockingReads::run(count_topics(&set, &BlockingReads, &wanted));
            let counted = counted.expect("a disk that works");
            for ((topic, from), counted) in wanted.iter().zip(counted) {
                let kept: Vec<u64> = log.events.iter()
                    .filter(|event| event.topic == **topic && event.offset >= from.get())
                    .map(|event| event.offset)
                    .collect();
                let first = kept.first().copied().map(Offset::new);
                prop_assert_eq!(counted, TopicCount { count: kept.len() as u64, first }, "{} from {}", topic, from);
            }
        }
    }
}
