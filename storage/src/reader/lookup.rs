//! Which frames of a segment hold the topics that are wanted, from its index, or that scanning all
//! of them costs no more.

use std::{collections::VecDeque, ops::Range};

use crate::{
    index::{IndexError, StoredList, TopicFrame, TopicList},
    io::{Disk, ReadIo},
    offset::{Offset, Position},
    reader::{RUN_BYTES_MAX, run::FrameAt},
    segment_set::SealedSegment,
    selection::Selection,
};

/// So many blocks of topics are read at once.
const BLOCKS_PER_READ: usize = 16;
/// Lists are read together if no more than this lies between them.
const LIST_HOLE_BYTES_MAX: u64 = 4096;
/// Reading frames one by one instead of all in order pays while they are at most one of so many.
/// Measured with frames of 128 KiB in the page cache (`benches/read.rs`): 39 us a frame fetched, 36 us a
/// frame scanned, so there lists would pay up to nearly all of them; a disk reads ahead of a scan only.
const SCAN_SHARE: u64 = 2;
/// Asking the index pays while its blocks are at most one of so many bytes of the log.
const INDEX_SHARE: u64 = 8;

/// An inquiry at the index of a segment that is under way.
pub(super) struct Lookup {
    /// Runs of blocks of topics that were not read yet, the next one last.
    blocks: Vec<Range<usize>>,
    /// Lists that were not read yet, in file order.
    stored: VecDeque<StoredList>,
    /// What is wanted: offsets, and the positions between which their frames begin.
    offsets: Range<Offset>,
    positions: Range<Position>,
    frames: Vec<FrameAt>,
    /// With so many frames scanning costs no more.
    frames_max: usize,
}

/// What the index says.
pub(super) enum Asked {
    /// Not known yet.
    More,
    /// Scan.
    Scan,
    /// Read these frames, ascending.
    Frames(VecDeque<FrameAt>),
}

impl Lookup {
    /// An inquiry after what `selection` wants of `offsets`, some of which are in the segment; `None`
    /// if that costs more than scanning. Nothing is wanted if there are no entries.
    pub fn new<D: Disk>(
        segment: &SealedSegment<D>,
        selection: &Selection,
        offsets: &Range<Offset>,
    ) -> Option<Self> {
        let index = segment.index();
        let mut blocks: Vec<Range<usize>> = selection
            .sources()
            .iter()
            .map(|pattern| index.topic_blocks(pattern))
            .filter(|blocks| !blocks.is_empty())
            .collect();
        blocks.sort_unstable_by_key(|blocks| (blocks.start, blocks.end));
        blocks.dedup_by(|next, last| {
            let joins = next.start <= last.end;
            if joins {
                last.end = last.end.max(next.end);
            }
            joins
        });
        blocks.reverse();
        let first = segment.blocks().holding(offsets.start.max(segment.base()))?;
        let last = segment.blocks().holding(offsets.end.min(segment.end()).previous()?)?;
        let positions =
            segment.blocks().edge(first).position..segment.blocks().edge(last + 1).position;
        let log_bytes = positions.end.get() - positions.start.get();
        let index_bytes: usize =
            blocks.iter().map(|blocks| index.topic_blocks_place(blocks).1).sum();
        let frames = log_bytes / segment.mean_frame_bytes() / SCAN_SHARE;
        (index_bytes as u64 <= log_bytes / INDEX_SHARE).then(|| Lookup {
            blocks,
            stored: VecDeque::new(),
            offsets: offsets.clone(),
            positions,
            frames: Vec::new(),
            frames_max: usize::try_from(frames).unwrap_or(usize::MAX).max(1),
        })
    }

    /// Goes on by one read. An index that cannot be read is not asked again: scanning finds all that
    /// it would have said, and says what is wrong with the log itself.
    pub async fn step<D: Disk, I: ReadIo<D>>(
        &mut self,
        segment: &SealedSegment<D>,
        selection: &Selection,
        io: &I,
        spent_bytes: &mut u64,
    ) -> Asked {
        if let Some(lists) = self.next_lists() {
            let position = self.stored[0].position;
            let Ok(bytes) = io.read(segment.index_file(), position, lists.1).await else {
                return Asked::Scan;
            };
            *spent_bytes += bytes.len() as u64;
            if self.take_lists(lists.0, position, bytes.as_slice()).is_err() {
                return Asked::Scan;
            }
        } else if let Some(blocks) = self.blocks.last() {
            let blocks = blocks.start..blocks.end.min(blocks.start + BLOCKS_PER_READ);
            let (position, len) = segment.index().topic_blocks_place(&blocks);
            let Ok(bytes) = io.read(segment.index_file(), position, len).await else {
                return Asked::Scan;
            };
            *spent_bytes += bytes.len() as u64;
            if self.take_blocks(segment, selection, blocks, bytes.as_slice()).is_err() {
                return Asked::Scan;
            }
        } else {
            self.sort();
            return match self.frames.len() > self.frames_max {
                true => Asked::Scan,
                false => Asked::Frames(std::mem::take(&mut self.frames).into()),
            };
        }
        // Topics that share frames name them again and again.
        if self.frames.len() > 2 * self.frames_max {
            self.sort();
            if self.frames.len() > self.frames_max {
                return Asked::Scan;
            }
        }
        Asked::More
    }

    /// How many of the stored lists the next read fetches, and its length.
    fn next_lists(&self) -> Option<(usize, usize)> {
        let first = self.stored.front()?;
        let start = first.position.get();
        let mut end = start + first.list_bytes as u64;
        let mut count = 1;
        for list in self.stored.iter().skip(1) {
            let list_end = list.position.get() + list.list_bytes as u64;
            let follows = list.position.get() >= end;
            if !follows
                || list.position.get() - end > LIST_HOLE_BYTES_MAX
                || list_end - start > RUN_BYTES_MAX
            {
                break;
            }
            end = list_end;
            count += 1;
        }
        Some((count, usize::try_from(end - start).expect("a list, or less than a run")))
    }

    fn take_lists(
        &mut self,
        count: usize,
        start: Position,
        bytes: &[u8],
    ) -> Result<(), IndexError> {
        for list in self.stored.drain(..count).collect::<Vec<_>>() {
            let at = usize::try_from(list.position.get() - start.get()).unwrap_or(usize::MAX);
            let bytes = bytes.get(at..).unwrap_or_default();
            self.add(list.decode(&bytes[..bytes.len().min(list.list_bytes)])?);
        }
        Ok(())
    }

    fn take_blocks<D: Disk>(
        &mut self,
        segment: &SealedSegment<D>,
        selection: &Selection,
        blocks: Range<usize>,
        bytes: &[u8],
    ) -> Result<(), IndexError> {
        let end = blocks.end;
        let mut topics = segment.index().read_topics(bytes, blocks)?;
        while let Some(entry) = topics.next_entry()? {
            let summary = &entry.summary;
            let outside = summary.last_offset < self.offsets.start
                || summary.first_offset >= self.offsets.end;
            if outside || !selection.matches(entry.name) {
                continue;
            }
            match entry.list()? {
                TopicList::Here(frames) => self.add(frames),
                TopicList::Stored(list) => self.stored.push_back(list),
            }
        }
        let last = self.blocks.last_mut().expect("these blocks are part of it");
        last.start = end;
        if Range::is_empty(last) {
            self.blocks.pop();
        }
        Ok(())
    }

    fn add(&mut self, frames: Vec<TopicFrame>) {
        let wanted = |frame: &TopicFrame| {
            self.positions.contains(&frame.position) && frame.first_offset < self.offsets.end
        };
        let frames = frames.into_iter().filter(wanted);
        let frames =
            frames.map(|frame| FrameAt { position: frame.position, offset: frame.first_offset });
        self.frames.extend(frames);
    }

    fn sort(&mut self) {
        self.frames.sort_unstable_by_key(|frame| frame.position);
        self.frames.dedup_by_key(|frame| frame.position);
    }
}
