//! TOPICS and LISTS: which topics a segment holds, and in which frames.
//!
//! TOPICS is a sequence of blocks of 4096 bytes with the topics sorted by the bytes of their names:
//! ```text
//! 0       4             6            8         used bytes  4096
//! +-------+-------------+------------+---------+-----------+
//! | crc32 | entry count | used bytes | entries | zeroes    |
//! +-------+-------------+------------+---------+-----------+
//!
//! entry (varints): shared, own, name[shared..]  its name; `shared` bytes are as in the entry before
//!                  number                       the topic's number in the log
//!                  event count                  its events in this segment
//!                  first offset                 - the segment's base offset
//!                  last offset                  - first offset
//!                  last time ms                 - the segment's first time
//!                  list bytes                   then the list, if it has at most 64 bytes; else
//!                  list position, list crc32    where it begins in LISTS, and its checksum (u32)
//! ```
//! A block's checksum covers its number (u32) and all of its bytes behind the checksum.
//!
//! A list has an entry for each *frame* that holds events of the topic, not for each event: whoever
//! wants one reads the frame, which says the rest; a busy topic costs some 4 bytes a frame. Varints:
//! ```text
//! frame's position / 4096 (of the first), or how far from the one before
//! the topic's first offset in the frame - its first offset in the frame before (0 in the first)
//! the topic's events in the frame - 1
//! ```
//! Blocks instead of fixed-size entries with names and lists elsewhere: one read of 4 KiB finds a
//! topic where those took three or more, and a topic with few events takes about 25 bytes and what
//! its name does not share, instead of 56 and its whole name.

use std::ops::Range;

use crate::{
    frame::Seed,
    index::{IndexError, IndexHeader, SectionKind, blocks::position_of, varint},
    offset::{Offset, Position},
    topic::{TOPIC_BYTES_MAX, TopicNumber},
};

/// The length of a block of TOPICS.
pub const TOPIC_BLOCK_BYTES: usize = 4096;

const BLOCK_HEADER_BYTES: usize = 8;
/// Longer lists lie in LISTS, so that a block holds many topics.
const LIST_BYTES_INLINE_MAX: usize = 64;

/// What a segment knows of a topic besides its name and its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicSummary {
    /// Its number in the log.
    pub number: TopicNumber,
    /// How many of its events the segment holds, at least 1.
    pub event_count: u64,
    /// The first of them.
    pub first_offset: Offset,
    /// The last of them, included.
    pub last_offset: Offset,
    /// The last one's time.
    pub last_time_ms: u64,
}

/// A frame that holds events of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicFrame {
    /// Where the frame begins in its log file.
    pub position: Position,
    /// The topic's first event in it.
    pub first_offset: Offset,
    /// How many of the topic's events it holds, at least 1.
    pub event_count: u64,
}

// ---------------------------------------------------------------------------------------------
// Writing.

/// Appends to a list the entry of a frame in block `block`, after one in `last_block` whose first
/// offset of the topic was `last_first`.
pub(super) fn write_list_entry(
    list: &mut Vec<u8>,
    (last_block, last_first): (u32, Offset),
    (block, first): (u32, Offset),
    event_count: u64,
) {
    varint::write(list, u64::from(block - last_block));
    varint::write(list, first.since(last_first));
    varint::write(list, event_count - 1);
}

/// TOPICS, LISTS and FENCE of an index while they are made.
pub(super) struct TopicsWriter {
    pub topics: Vec<u8>,
    pub lists: Vec<u8>,
    pub fence: Vec<u8>,
    base_offset: Offset,
    first_time_ms: u64,
    seed: Seed,
    block: Vec<u8>,
    block_entries: u16,
    last_name: Vec<u8>,
}

impl TopicsWriter {
    pub fn new(base_offset: Offset, first_time_ms: u64, seed: Seed) -> TopicsWriter {
        TopicsWriter {
            topics: Vec::new(),
            lists: Vec::new(),
            fence: Vec::new(),
            base_offset,
            first_time_ms,
            seed,
            block: vec![0; BLOCK_HEADER_BYTES],
            block_entries: 0,
            last_name: Vec::new(),
        }
    }

    /// Adds the next topic, of which `details` are written behind its name; names ascend.
    pub fn add(&mut self, name: &[u8], details: &[u8]) {
        let shared = if self.block_entries == 0 { 0 } else { shared_bytes(&self.last_name, name) };
        let own = name.len() - shared;
        let entry_bytes =
            varint::len(shared as u64) + varint::len(own as u64) + own + details.len();
        if self.block.len() + entry_bytes > TOPIC_BLOCK_BYTES {
            self.finish_block();
        }
        let shared = if self.block_entries == 0 { 0 } else { shared };
        if self.block_entries == 0 {
            let fence = &name[..fence_bytes(&self.last_name, name)];
            let len = u16::try_from(fence.len()).expect("a topic is at most 512 bytes");
            self.fence.extend_from_slice(&len.to_le_bytes());
            self.fence.extend_from_slice(fence);
        }
        let own = &name[shared..];
        varint::write(&mut self.block, shared as u64);
        varint::write(&mut self.block, own.len() as u64);
        self.block.extend_from_slice(own);
        self.block.extend_from_slice(details);
        self.block_entries += 1;
        self.last_name.clear();
        self.last_name.extend_from_slice(name);
    }

    /// Whether a list lies in TOPICS, with its topic.
    pub fn has_room_for(list: &[u8]) -> bool {
        list.len() <= LIST_BYTES_INLINE_MAX
    }

    /// Writes to `details` what is written of a topic behind its name. A list of more than
    /// [`LIST_BYTES_INLINE_MAX`] goes to LISTS, whose order is that of the topics.
    pub fn write_details(&mut self, summary: &TopicSummary, list: &[u8], details: &mut Vec<u8>) {
        varint::write(details, u64::from(summary.number.get()));
        varint::write(details, summary.event_count);
        varint::write(details, summary.first_offset.since(self.base_offset));
        varint::write(details, summary.last_offset.since(summary.first_offset));
        varint::write(details, summary.last_time_ms - self.first_time_ms);
        varint::write(details, list.len() as u64);
        if TopicsWriter::has_room_for(list) {
            details.extend_from_slice(list);
        } else {
            varint::write(details, self.lists.len() as u64);
            details.extend_from_slice(&self.seed.crc(list).to_le_bytes());
            self.lists.extend_from_slice(list);
        }
    }

    /// Ends the last block.
    pub fn finish(&mut self) {
        if self.block_entries > 0 {
            self.finish_block();
        }
    }

    fn finish_block(&mut self) {
        let number = block_number(self.topics.len() / TOPIC_BLOCK_BYTES);
        let used = u16::try_from(self.block.len()).expect("at most 4096");
        self.block.resize(TOPIC_BLOCK_BYTES, 0);
        self.block[4..6].copy_from_slice(&self.block_entries.to_le_bytes());
        self.block[6..8].copy_from_slice(&used.to_le_bytes());
        let crc = block_crc(self.seed, number, &self.block);
        self.block[0..4].copy_from_slice(&crc.to_le_bytes());
        self.topics.extend_from_slice(&self.block);
        self.block.clear();
        self.block.resize(BLOCK_HEADER_BYTES, 0);
        self.block_entries = 0;
    }
}

fn block_number(block: usize) -> u32 {
    u32::try_from(block).expect("fewer than 2^32 blocks")
}

fn block_crc(seed: Seed, number: u32, block: &[u8]) -> u32 {
    let mut hasher = seed.hasher();
    hasher.update(&number.to_le_bytes());
    hasher.update(&block[4..]);
    hasher.finalize()
}

fn shared_bytes(left: &[u8], right: &[u8]) -> usize {
    let (mut left_eights, mut right_eights) = (left.chunks_exact(8), right.chunks_exact(8));
    let mut shared = 0;
    for (left, right) in left_eights.by_ref().zip(right_eights.by_ref()) {
        let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        let differ = number(left) ^ number(right);
        if differ != 0 {
            return shared + differ.trailing_zeros() as usize / 8;
        }
        shared += 8;
    }
    let rest = left[shared..].iter().zip(&right[shared..]);
    shared + rest.take_while(|(left, right)| left == right).count()
}

/// How much of `name` is needed to be above `before`.
fn fence_bytes(before: &[u8], name: &[u8]) -> usize {
    if before.is_empty() { 0 } else { (shared_bytes(before, name) + 1).min(name.len()) }
}

// ---------------------------------------------------------------------------------------------
// Reading.

/// The topics in a run of blocks, in the order of their names.
pub struct TopicBlocks<'a> {
    bytes: &'a [u8],
    next_block: u32,
    entries_left: u16,
    rest: &'a [u8],
    name: Vec<u8>,
    context: ListContext,
}

/// What an entry is told relative to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ListContext {
    seed: Seed,
    base_offset: Offset,
    end_offset: Offset,
    first_time_ms: u64,
    lists_position: Position,
    lists_bytes: u64,
}

impl<'a> TopicBlocks<'a> {
    pub(super) fn new(
        header: &IndexHeader,
        bytes: &'a [u8],
        blocks: Range<usize>,
    ) -> Result<TopicBlocks<'a>, IndexError> {
        let bytes_expected = (blocks.len() * TOPIC_BLOCK_BYTES) as u64;
        if bytes.len() as u64 != bytes_expected {
            return Err(IndexError::Length { bytes: bytes.len() as u64, bytes_expected });
        }
        let lists = header.section(SectionKind::LISTS);
        Ok(TopicBlocks {
            bytes,
            next_block: block_number(blocks.start),
            entries_left: 0,
            rest: &[],
            name: Vec::new(),
            context: ListContext {
                seed: header.seed(),
                base_offset: header.base_offset,
                end_offset: header.end_offset,
                first_time_ms: header.first_time_ms,
                lists_position: lists.position,
                lists_bytes: lists.bytes,
            },
        })
    }

    /// The next topic, or `None` behind the last. After an error the rest cannot be read.
    pub fn next_entry(&mut self) -> Result<Option<TopicEntry<'_>>, IndexError> {
        while self.entries_left == 0 {
            if !self.rest.is_empty() {
                return Err(wrong("used bytes of a block"));
            }
            let Some((block, bytes)) = self.bytes.split_first_chunk::<TOPIC_BLOCK_BYTES>() else {
                return Ok(None);
            };
            self.begin_block(block)?;
            self.bytes = bytes;
        }
        self.entries_left -= 1;
        let (summary, list) = self.read_entry()?;
        let name = str::from_utf8(&self.name).map_err(|_| wrong("a topic's name"))?;
        Ok(Some(TopicEntry { name, summary, list, context: self.context }))
    }

    fn begin_block(&mut self, block: &'a [u8; TOPIC_BLOCK_BYTES]) -> Result<(), IndexError> {
        let crc = block_crc(self.context.seed, self.next_block, block);
        if crc.to_le_bytes() != block[0..4] {
            return Err(IndexError::Checksum { section: SectionKind::TOPICS });
        }
        self.next_block += 1;
        self.entries_left = u16::from_le_bytes([block[4], block[5]]);
        let used = usize::from(u16::from_le_bytes([block[6], block[7]]));
        self.rest =
            block.get(BLOCK_HEADER_BYTES..used).ok_or_else(|| wrong("used bytes of a block"))?;
        self.name.clear();
        Ok(())
    }

    fn read_entry(&mut self) -> Result<(TopicSummary, ListPlace<'a>), IndexError> {
        let rest = &mut self.rest;
        let shared = read_usize(rest)?;
        let own = read_usize(rest)?;
        let name = take(rest, own)?;
        if shared > self.name.len() || shared + own > TOPIC_BYTES_MAX {
            return Err(wrong("a topic's name"));
        }
        self.name.truncate(shared);
        self.name.extend_from_slice(name);
        let number = u32::try_from(varint::read(rest)?).map_err(|_| wrong("a topic's number"))?;
        let event_count = varint::read(rest)?;
        let first = self.context.base_offset.get().checked_add(varint::read(rest)?);
        let first = first.ok_or_else(|| wrong("a topic's first offset"))?;
        let last = first.checked_add(varint::read(rest)?);
        let last = last.filter(|last| *last < self.context.end_offset.get());
        let last = last.ok_or_else(|| wrong("a topic's last offset"))?;
        if event_count == 0 || event_count - 1 > last - first {
            return Err(wrong("a topic's event count"));
        }
        let last_time_ms = self.context.first_time_ms.checked_add(varint::read(rest)?);
        let list_bytes = read_usize(rest)?;
        let list = if list_bytes <= LIST_BYTES_INLINE_MAX {
            ListPlace::Here(take(rest, list_bytes)?)
        } else {
            let start = varint::read(rest)?;
            let end = start.checked_add(list_bytes as u64);
            if end.is_none_or(|end| end > self.context.lists_bytes) {
                return Err(wrong("a list's position"));
            }
            let crc = take(rest, 4)?.first_chunk().expect("took 4 bytes");
            ListPlace::Stored { start, list_bytes, checksum: u32::from_le_bytes(*crc) }
        };
        let summary = TopicSummary {
            number: TopicNumber::new(number),
            event_count,
            first_offset: Offset::new(first),
            last_offset: Offset::new(last),
            last_time_ms: last_time_ms.ok_or_else(|| wrong("a topic's last time"))?,
        };
        Ok((summary, list))
    }
}

#[derive(Clone, Copy, Debug)]
enum ListPlace<'a> {
    Here(&'a [u8]),
    Stored { start: u64, list_bytes: usize, checksum: u32 },
}

/// A topic of a segment.
#[derive(Clone, Copy, Debug)]
pub struct TopicEntry<'a> {
    /// Its name.
    pub name: &'a str,
    /// What else is known of it.
    pub summary: TopicSummary,
    list: ListPlace<'a>,
    context: ListContext,
}

impl TopicEntry<'_> {
    /// The frames that hold its events, or where to read which they are.
    pub fn list(&self) -> Result<TopicList, IndexError> {
        match self.list {
            ListPlace::Here(bytes) => Ok(TopicList::Here(decode_list(bytes, &self.summary)?)),
            ListPlace::Stored { start, list_bytes, checksum } => {
                Ok(TopicList::Stored(StoredList {
                    position: self.context.lists_position.plus(start),
                    list_bytes,
                    checksum,
                    seed: self.context.seed,
                    summary: self.summary,
                }))
            }
        }
    }
}

/// The frames that hold a topic's events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicList {
    /// These, in file order.
    Here(Vec<TopicFrame>),
    /// Read this part of the index file, and decode it.
    Stored(StoredList),
}

/// A list in LISTS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredList {
    /// Where it begins in the index file.
    pub position: Position,
    /// Its length.
    pub list_bytes: usize,
    checksum: u32,
    seed: Seed,
    summary: TopicSummary,
}

impl StoredList {
    /// The topic's last event in the segment.
    pub(crate) fn last_offset(&self) -> Offset {
        self.summary.last_offset
    }

    /// The frames in the list's bytes, in file order.
    pub fn decode(&self, bytes: &[u8]) -> Result<Vec<TopicFrame>, IndexError> {
        if bytes.len() != self.list_bytes {
            let bytes_expected = self.list_bytes as u64;
            return Err(IndexError::Length { bytes: bytes.len() as u64, bytes_expected });
        }
        if self.seed.crc(bytes) != self.checksum {
            return Err(IndexError::Checksum { section: SectionKind::LISTS });
        }
        decode_list(bytes, &self.summary)
    }

    /// Where it lies in an index that is in memory.
    pub(super) fn range(&self) -> Range<usize> {
        let start = usize::try_from(self.position.get()).unwrap_or(usize::MAX);
        start..start.saturating_add(self.list_bytes)
    }
}

fn decode_list(bytes: &[u8], summary: &TopicSummary) -> Result<Vec<TopicFrame>, IndexError> {
    let mut reader = ListReader::new(bytes, summary.first_offset);
    let mut frames = Vec::new();
    let mut event_count = 0u64;
    while let Some(frame) = reader.next_frame()? {
        event_count = event_count.saturating_add(frame.event_count);
        if frame.first_offset > summary.last_offset {
            return Err(wrong("an offset in a list"));
        }
        frames.push(frame);
    }
    if event_count != summary.event_count {
        return Err(wrong("the event count of a list"));
    }
    Ok(frames)
}

/// Reads a list entry by entry.
pub(super) struct ListReader<'a> {
    rest: &'a [u8],
    last: Option<u32>,
    first_offset: Offset,
}

impl<'a> ListReader<'a> {
    pub fn new(bytes: &'a [u8], first_offset: Offset) -> ListReader<'a> {
        ListReader { rest: bytes, last: None, first_offset }
    }

    /// Goes on behind an entry that was read elsewhere.
    pub fn after(bytes: &'a [u8], block: u32, first_offset: Offset) -> ListReader<'a> {
        ListReader { rest: bytes, last: Some(block), first_offset }
    }

    pub fn next_frame(&mut self) -> Result<Option<TopicFrame>, IndexError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (step, advance) = (varint::read(&mut self.rest)?, varint::read(&mut self.rest)?);
        let event_count = varint::read(&mut self.rest)?.checked_add(1);
        let block = u64::from(self.last.unwrap_or(0)).checked_add(step);
        let block = block.and_then(|block| u32::try_from(block).ok());
        let block = block.ok_or_else(|| wrong("a position in a list"))?;
        let ascends = if self.last.is_some() { step > 0 && advance > 0 } else { advance == 0 };
        if !ascends {
            return Err(wrong("the order of a list"));
        }
        let first = self.first_offset.get().checked_add(advance).map(Offset::new);
        self.first_offset = first.ok_or_else(|| wrong("an offset in a list"))?;
        self.last = Some(block);
        Ok(Some(TopicFrame {
            position: position_of(block),
            first_offset: self.first_offset,
            event_count: event_count.ok_or_else(|| wrong("the event count of a list"))?,
        }))
    }
}

fn wrong(what: &'static str) -> IndexError {
    IndexError::Content { what }
}

fn read_usize(bytes: &mut &[u8]) -> Result<usize, IndexError> {
    usize::try_from(varint::read(bytes)?).map_err(|_| wrong("a length"))
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Result<&'a [u8], IndexError> {
    let (taken, rest) = bytes.split_at_checked(count).ok_or_else(|| wrong("a length"))?;
    *bytes = rest;
    Ok(taken)
}
