//! TOPICS: every topic that a log has numbered, and what of it was visible.

use crate::{
    index::varint,
    offset::Offset,
    snapshot::SnapshotError,
    topic::{TOPIC_BYTES_MAX, TopicNumber},
};

const HAS_EVENTS: u8 = 1;
const IS_LESSENED: u8 = 2;

/// A topic at the offset of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicAt<'a> {
    /// Its number.
    pub number: TopicNumber,
    /// Its name.
    pub name: &'a str,
    /// How many events it has, or had.
    pub count: u64,
    /// The first of them; the last one ever if there is none.
    pub first: Offset,
    /// The last one ever.
    pub last: Offset,
    /// When the first was appended, 0 if there is none.
    pub first_time_ms: u64,
    /// When the last was.
    pub last_time_ms: u64,
    /// There may be fewer, and the first may be a later one: a segment was rewritten since they were counted.
    pub is_lessened: bool,
}

/// Appends the entry of a topic; `next` is the smallest number that it can have.
pub(super) fn encode(bytes: &mut Vec<u8>, topic: &TopicAt<'_>, next: u64) {
    varint::write(bytes, u64::from(topic.number.get()) - next);
    let flags = if topic.count > 0 { HAS_EVENTS } else { 0 };
    bytes.push(flags | if topic.is_lessened { IS_LESSENED } else { 0 });
    varint::write(bytes, topic.name.len() as u64);
    bytes.extend_from_slice(topic.name.as_bytes());
    if topic.count > 0 {
        varint::write(bytes, topic.count);
        varint::write(bytes, topic.first.get());
        varint::write(bytes, topic.last.since(topic.first));
        varint::write(bytes, topic.first_time_ms);
        varint::write(bytes, topic.last_time_ms.saturating_sub(topic.first_time_ms));
    } else {
        varint::write(bytes, topic.last.get());
        varint::write(bytes, topic.last_time_ms);
    }
}

/// Hands over the entries of TOPICS, whose events must lie below `end`. The outer error is that of the bytes,
/// the inner one that of `take`.
pub(super) fn walk<E>(
    mut bytes: &[u8],
    end: Offset,
    mut take: impl FnMut(&TopicAt<'_>) -> Result<(), E>,
) -> Result<Result<(), E>, SnapshotError> {
    let mut next = 0;
    while !bytes.is_empty() {
        let topic = decode(&mut bytes, next, end)?;
        next = u64::from(topic.number.get()) + 1;
        if let Err(error) = take(&topic) {
            return Ok(Err(error));
        }
    }
    Ok(Ok(()))
}

fn decode<'a>(bytes: &mut &'a [u8], next: u64, end: Offset) -> Result<TopicAt<'a>, SnapshotError> {
    let wrong = || SnapshotError::Content { what: "TOPICS" };
    let number = next.checked_add(varint::read(bytes)?).ok_or_else(wrong)?;
    let number = TopicNumber::new(u32::try_from(number).map_err(|_| wrong())?);
    let (flags, rest) = bytes.split_first().ok_or_else(wrong)?;
    *bytes = rest;
    if flags & !(HAS_EVENTS | IS_LESSENED) != 0 {
        return Err(wrong());
    }
    let len = usize::try_from(varint::read(bytes)?).unwrap_or(usize::MAX);
    if len > TOPIC_BYTES_MAX {
        return Err(wrong());
    }
    let (name, rest) = bytes.split_at_checked(len).ok_or_else(wrong)?;
    *bytes = rest;
    let name = std::str::from_utf8(name).map_err(|_| wrong())?;
    let is_lessened = flags & IS_LESSENED != 0;
    if flags & HAS_EVENTS == 0 {
        let last = Offset::new(varint::read(bytes)?);
        let last_time_ms = varint::read(bytes)?;
        if last >= end {
            return Err(wrong());
        }
        let (count, first, first_time_ms) = (0, last, 0);
        return Ok(TopicAt {
            number,
            name,
            count,
            first,
            last,
            first_time_ms,
            last_time_ms,
            is_lessened,
        });
    }
    let count = varint::read(bytes)?;
    let first = Offset::new(varint::read(bytes)?);
    let last = first.get().checked_add(varint::read(bytes)?).map(Offset::new);
    let last = last.filter(|last| *last < end).ok_or_else(wrong)?;
    let first_time_ms = varint::read(bytes)?;
    let last_time_ms = first_time_ms.checked_add(varint::read(bytes)?).ok_or_else(wrong)?;
    if count == 0 || count - 1 > last.since(first) {
        return Err(wrong());
    }
    Ok(TopicAt { number, name, count, first, last, first_time_ms, last_time_ms, is_lessened })
}
