//! The part of an index that a reader keeps in memory.
//!
//! FRAMES has an entry for the first frame in each 64 KiB of the log file, in file order:
//! ```text
//! 0             8         16                       20                     24
//! +-------------+---------+------------------------+----------------------+
//! | base offset | time ms | position / 4096    u32 | frame bytes / 4096   |
//! +-------------+---------+------------------------+----------------------+
//! ```
//! `time ms` is that of the frame's first event, or of the last event before it (0 if there is none)
//! where it holds no events; so it never descends.
//!
//! GAPS, where there is one, has for each frame that stands for lost events ([`crate::frame::gap`]) its base
//! offset (u64) and its end offset (u64), in file order. What topics they were of is not known, so every
//! reader of the segment has to be told of them.
//!
//! KEPT, where there is one, is the end (u64) of the last frame that says how far the limits of the log had
//! reached ([`crate::frame::kept`]).
//!
//! FENCE has for each block of TOPICS, in order, a length (u16) and so many bytes: the shortest
//! string that is above every name in the block before and not above any name in this one.

use std::ops::Range;

use crate::{
    buffer::ALIGN_BYTES,
    fields::{u32_at, u64_at},
    index::{
        IndexError, IndexHeader, Section, SectionKind, filter,
        topics::{TOPIC_BLOCK_BYTES, TopicBlocks},
    },
    offset::{Offset, Position},
    topic::TopicPattern,
};

pub(super) use super::blocks::{block_of, position_of};

/// How far apart the frames of FRAMES are at least in the log file. A seek reads at most so much,
/// and the frame, more than it needs; entries take 0.04 % of the log.
pub const FRAMES_STEP_BYTES: u64 = 64 << 10;

pub(super) const FRAME_PLACE_BYTES: usize = 24;
pub(super) const GAP_BYTES: usize = 16;
pub(super) const KEPT_BYTES: usize = 8;

/// Where a frame lies in its log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FramePlace {
    /// The first offset that it stands for.
    pub base_offset: Offset,
    /// Its first event's time, or the last one's before it, in milliseconds since 1970.
    pub time_ms: u64,
    /// Where it begins.
    pub position: Position,
    /// Its length.
    pub frame_bytes: usize,
}

impl FramePlace {
    pub(super) fn encode(&self) -> [u8; FRAME_PLACE_BYTES] {
        let mut bytes = [0; FRAME_PLACE_BYTES];
        bytes[0..8].copy_from_slice(&self.base_offset.get().to_le_bytes());
        bytes[8..16].copy_from_slice(&self.time_ms.to_le_bytes());
        bytes[16..20].copy_from_slice(&block_of(self.position).to_le_bytes());
        bytes[20..24].copy_from_slice(&blocks_in(self.frame_bytes).to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> FramePlace {
        FramePlace {
            base_offset: Offset::new(u64_at(bytes, 0)),
            time_ms: u64_at(bytes, 8),
            position: position_of(u32_at(bytes, 16)),
            frame_bytes: u32_at(bytes, 20) as usize * ALIGN_BYTES,
        }
    }
}

fn blocks_in(frame_bytes: usize) -> u32 {
    u32::try_from(frame_bytes / ALIGN_BYTES).expect("a frame is below 16 MiB")
}

/// FRAMES, FENCE and FILTER of an index, checked, and what finds its other parts.
#[derive(Debug)]
pub struct ResidentIndex {
    header: IndexHeader,
    /// The file up to `resident_bytes`.
    bytes: Box<[u8]>,
    frames: Section,
    filter: Section,
    gaps: Section,
    kept_from: Option<Offset>,
    /// Where in `bytes` the fence of each block of TOPICS lies.
    fences: Vec<(u32, u16)>,
}

impl ResidentIndex {
    /// The resident part of an index; `bytes` are the file's first `resident_bytes`, or more.
    pub fn decode(bytes: &[u8]) -> Result<ResidentIndex, IndexError> {
        let header = IndexHeader::decode(bytes)?;
        let resident_bytes = usize::try_from(header.resident_bytes).unwrap_or(usize::MAX);
        let Some(bytes) = bytes.get(..resident_bytes) else {
            let bytes_expected = header.resident_bytes;
            return Err(IndexError::Length { bytes: bytes.len() as u64, bytes_expected });
        };
        let seed = header.seed();
        for section in &header.sections {
            let Some(content) = bytes.get(section.range()) else { break };
            if seed.crc(content) != section.checksum {
                return Err(IndexError::Checksum { section: section.kind });
            }
        }
        let resident = |kind, what| {
            let section = header.section(kind);
            let inside = section.bytes > 0 && section.end().get() <= header.resident_bytes;
            let none = Section { position: Position::default(), bytes: 0, ..section };
            match (inside, section.bytes) {
                (true, _) => Ok(section),
                (false, 0) => Ok(none),
                (false, _) => Err(IndexError::Content { what }),
            }
        };
        let frames = resident(SectionKind::FRAMES, "FRAMES")?;
        let filter = resident(SectionKind::FILTER, "FILTER")?;
        let fence = resident(SectionKind::FENCE, "FENCE")?;
        let gaps = resident(SectionKind::GAPS, "GAPS")?;
        if !gaps.bytes.is_multiple_of(GAP_BYTES as u64) {
            return Err(IndexError::Content { what: "GAPS" });
        }
        let kept_from = decode_kept(&bytes[resident(SectionKind::KEPT, "KEPT")?.range()], &header)?;
        check_frames(&bytes[frames.range()], &header)?;
        if filter.bytes > 0 {
            filter::check(&bytes[filter.range()])?;
        }
        let topics = header.section(SectionKind::TOPICS);
        if !topics.bytes.is_multiple_of(TOPIC_BLOCK_BYTES as u64) {
            return Err(IndexError::Content { what: "TOPICS" });
        }
        let fences = decode_fences(bytes, fence, topics.bytes / TOPIC_BLOCK_BYTES as u64)?;
        let bytes = bytes.into();
        Ok(ResidentIndex { header, bytes, frames, filter, gaps, kept_from, fences })
    }

    /// The index's header.
    pub fn header(&self) -> &IndexHeader {
        &self.header
    }

    /// How much memory it takes.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.bytes.len() + self.fences.len() * size_of::<(u32, u16)>()
    }

    /// Where to begin to look for an offset: a frame that holds it, or one shortly before. `None` if
    /// it lies outside the segment.
    pub fn frame_at(&self, offset: Offset) -> Option<FramePlace> {
        if offset < self.header.base_offset || offset >= self.header.end_offset {
            return None;
        }
        let before = self.frames().partition_point(|frame| frame.base_offset <= offset);
        self.frames().get(before.checked_sub(1)?)
    }

    /// Where to begin to look for the first event appended at `time_ms` or later: in the frame that
    /// holds it, or shortly before. `None` if there is no such event.
    pub fn frame_at_time(&self, time_ms: u64) -> Option<FramePlace> {
        if self.header.event_count == 0 || time_ms > self.header.last_time_ms {
            return None;
        }
        let before = self.frames().partition_point(|frame| frame.time_ms < time_ms);
        self.frames().get(before.saturating_sub(1))
    }

    /// What a repair found to be lost, in offset order.
    pub fn gaps(&self) -> impl DoubleEndedIterator<Item = Range<Offset>> + ExactSizeIterator {
        self.bytes[self.gaps.range()]
            .chunks_exact(GAP_BYTES)
            .map(|gap| Offset::new(u64_at(gap, 0))..Offset::new(u64_at(gap, 8)))
    }

    /// From where on the log kept anything when the segment was rewritten, if that lies in it.
    pub fn kept_from(&self) -> Option<Offset> {
        self.kept_from
    }

    /// The sparse table of frames, in file order.
    pub fn frames(&self) -> FramePlaces<'_> {
        FramePlaces { bytes: &self.bytes[self.frames.range()] }
    }

    /// Whether the segment may hold events of a topic; if not, it holds none.
    pub fn may_contain(&self, topic: &str) -> bool {
        self.header.topic_count > 0
            && (self.filter.bytes == 0
                || filter::may_contain(&self.bytes[self.filter.range()], topic.as_bytes()))
    }

    /// How many blocks TOPICS has.
    pub fn topic_block_count(&self) -> usize {
        self.fences.len()
    }

    /// The blocks that hold the topics that a pattern may match; none if the filter excludes it.
    pub fn topic_blocks(&self, pattern: &TopicPattern) -> Range<usize> {
        if let Some(topic) = pattern.exact()
            && !self.may_contain(topic)
        {
            return 0..0;
        }
        let prefix = pattern.literal_prefix().as_bytes();
        let start = self.partition_point(|fence| fence <= prefix).saturating_sub(1);
        let end = match pattern.exact() {
            Some(_) => self.partition_point(|fence| fence <= prefix),
            None => self.partition_point(|fence| fence < prefix || fence.starts_with(prefix)),
        };
        start..end
    }

    /// The block that holds a topic, if any does; with luck, found in the one that held the topic before
    /// or next to it.
    pub(crate) fn topic_block(&self, topic: &str, guess: usize) -> Option<usize> {
        let begins_by = |block: usize| {
            let (at, len) = self.fences[block];
            self.bytes[at as usize..at as usize + usize::from(len)] <= *topic.as_bytes()
        };
        for block in guess..guess.saturating_add(2) {
            if block < self.fences.len()
                && begins_by(block)
                && (block + 1 == self.fences.len() || !begins_by(block + 1))
            {
                return Some(block);
            }
        }
        self.partition_point(|fence| fence <= topic.as_bytes()).checked_sub(1)
    }

    /// Where these blocks lie in the index file, and how many bytes they are.
    pub fn topic_blocks_place(&self, blocks: &Range<usize>) -> (Position, usize) {
        assert!(blocks.end <= self.fences.len(), "blocks of this index");
        let start = (blocks.start * TOPIC_BLOCK_BYTES) as u64;
        let topics = self.header.section(SectionKind::TOPICS);
        (topics.position.plus(start), blocks.len() * TOPIC_BLOCK_BYTES)
    }

    /// The topics in `bytes`, which were read from [`ResidentIndex::topic_blocks_place`].
    pub fn read_topics<'a>(
        &self,
        bytes: &'a [u8],
        blocks: Range<usize>,
    ) -> Result<TopicBlocks<'a>, IndexError> {
        TopicBlocks::new(&self.header, bytes, blocks)
    }

    fn partition_point(&self, before: impl Fn(&[u8]) -> bool) -> usize {
        self.fences.partition_point(|(at, len)| {
            let at = *at as usize;
            before(&self.bytes[at..at + usize::from(*len)])
        })
    }
}

fn decode_kept(bytes: &[u8], header: &IndexHeader) -> Result<Option<Offset>, IndexError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let kept_from =
        Some(bytes).filter(|bytes| bytes.len() == KEPT_BYTES).map(|bytes| u64_at(bytes, 0));
    let kept_from = kept_from.map(Offset::new);
    let inside = kept_from.filter(|from| (header.base_offset..=header.end_offset).contains(from));
    inside.map(Some).ok_or(IndexError::Content { what: "KEPT" })
}

fn check_frames(bytes: &[u8], header: &IndexHeader) -> Result<(), IndexError> {
    let wrong = || Err(IndexError::Content { what: "FRAMES" });
    let frames = FramePlaces { bytes };
    if !bytes.len().is_multiple_of(FRAME_PLACE_BYTES) {
        return wrong();
    }
    if frames.is_empty() != (header.frame_count == 0) || frames.len() as u64 > header.frame_count {
        return wrong();
    }
    let mut last = None;
    for frame in frames.iter() {
        let end = frame.position.plus(frame.frame_bytes as u64);
        let ascends = last.is_none_or(|last: FramePlace| {
            frame.base_offset >= last.base_offset
                && frame.time_ms >= last.time_ms
                && frame.position >= last.position.plus(last.frame_bytes as u64)
        });
        let inside =
            frame.base_offset >= header.base_offset && frame.base_offset <= header.end_offset;
        if !ascends || !inside || end > header.end_position || frame.frame_bytes == 0 {
            return wrong();
        }
        last = Some(frame);
    }
    Ok(())
}

fn decode_fences(
    bytes: &[u8],
    fence: Section,
    block_count: u64,
) -> Result<Vec<(u32, u16)>, IndexError> {
    let wrong = || IndexError::Content { what: "FENCE" };
    let mut at = fence.range().start;
    let end = fence.range().end;
    let mut fences: Vec<(u32, u16)> = Vec::new();
    let mut last: &[u8] = &[];
    while at < end {
        let len = bytes[at..end].first_chunk().map(|len| u16::from_le_bytes(*len));
        let len = len.ok_or_else(wrong)?;
        at += 2;
        let name = bytes[at..end].get(..usize::from(len)).ok_or_else(wrong)?;
        if !fences.is_empty() && name <= last {
            return Err(wrong());
        }
        last = name;
        fences.push((u32::try_from(at).map_err(|_| wrong())?, len));
        at += usize::from(len);
    }
    if fences.len() as u64 != block_count {
        return Err(wrong());
    }
    Ok(fences)
}

/// The sparse table of frames.
#[derive(Clone, Copy, Debug)]
pub struct FramePlaces<'a> {
    bytes: &'a [u8],
}

impl<'a> FramePlaces<'a> {
    /// How many entries it has.
    pub fn len(&self) -> usize {
        self.bytes.len() / FRAME_PLACE_BYTES
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An entry, from 0.
    pub fn get(&self, index: usize) -> Option<FramePlace> {
        self.bytes.chunks_exact(FRAME_PLACE_BYTES).nth(index).map(FramePlace::decode)
    }

    /// Its entries in file order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = FramePlace> + DoubleEndedIterator + 'a {
        self.bytes.chunks_exact(FRAME_PLACE_BYTES).map(FramePlace::decode)
    }

    /// How many entries come before the first for which `before` is false.
    pub fn partition_point(&self, before: impl Fn(&FramePlace) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            let frame = self.get(middle).expect("below the length");
            if before(&frame) { low = middle + 1 } else { high = middle }
        }
        low
    }
}
