//! Writing a body: rkyv is led over the events where they are staged, without a copy of them between.

use std::{iter, mem};

use rkyv::{
    Archive, Place, Serialize,
    munge::munge,
    niche::option_box::{ArchivedOptionBox, OptionBoxResolver},
    rancor::{Fallible, Panic, Source},
    rend::{u16_le, u32_le},
    ser::{Allocator, Positional, Serializer, Writer},
    string::{ArchivedString, StringResolver},
    util::with_arena,
    vec::{ArchivedVec, VecResolver},
};

use super::{
    BODY_ALIGN_BYTES, BodyRecord, DetailsRecord, EventRecord, HeaderRecord, ROOT_BYTES,
    TopicRecord, form_code, kind_code,
};
use crate::{
    buffer::DiskBuffer,
    event::{NewEvent, StagedEvent},
    offset::Offset,
    topic::TopicNumber,
};

/// Appends the body of a frame to `buffer`, whose length is a multiple of [`BODY_ALIGN_BYTES`].
///
/// `topics` is the frame's table in the order of the indexes; `topic_indexes` has one for each event.
/// Event data goes from its `Bytes` straight to its place in `buffer`.
pub(crate) fn encode_body(
    base_offset: Offset,
    topics: &[(TopicNumber, &str)],
    events: &[StagedEvent],
    topic_indexes: &[u16],
    buffer: &mut DiskBuffer,
) {
    assert!(buffer.len().is_multiple_of(BODY_ALIGN_BYTES), "a body begins aligned");
    assert_eq!(events.len(), topic_indexes.len(), "one topic index for each event");
    let body = BodySource { base_offset, topics, events, topic_indexes };
    let start = buffer.len();
    with_arena(|arena| {
        let writer = BodyWriter { buffer, start };
        let mut serializer = Serializer::new(writer, arena.acquire(), ());
        let root = rkyv::api::serialize_using::<_, Panic>(&body, &mut serializer)
            .unwrap_or_else(|never| match never {});
        assert_eq!(root + ROOT_BYTES, serializer.pos(), "the root ends the body");
    });
}

/// An upper bound of what a body holds besides the shares of its events: the root, and the alignment
/// of two lists.
pub(crate) const BODY_OVERHEAD_BYTES_MAX: usize = ROOT_BYTES + 2 * (BODY_ALIGN_BYTES - 1);

/// An upper bound of an event's share of a body, its topic's name included.
pub(crate) fn share_bytes_max(event: &NewEvent) -> usize {
    let mut bytes = mem::size_of::<EventRecord>()
        + mem::size_of::<TopicRecord>()
        + event.topic.len()
        + event.event_type.len()
        + event.data.len();
    if has_details(event) {
        let texts = event.id.as_deref().map_or(0, str::len)
            + event.key.as_deref().map_or(0, str::len)
            + event.content_type.len();
        let headers: usize = event
            .headers
            .iter()
            .map(|(name, value)| mem::size_of::<HeaderRecord>() + name.len() + value.len())
            .sum();
        bytes += mem::size_of::<DetailsRecord>() + texts + headers + 2 * (BODY_ALIGN_BYTES - 1);
    }
    bytes
}

fn has_details(event: &NewEvent) -> bool {
    event.id.is_some()
        || event.key.is_some()
        || !event.headers.is_empty()
        || !is_json(&event.content_type)
}

/// Whether a content type is the one that is not stored.
fn is_json(content_type: &str) -> bool {
    content_type.is_empty() || content_type == NewEvent::JSON
}

/// Lets rkyv write behind the frame header, counting from the start of the body.
struct BodyWriter<'a> {
    buffer: &'a mut DiskBuffer,
    start: usize,
}

impl Positional for BodyWriter<'_> {
    fn pos(&self) -> usize {
        self.buffer.len() - self.start
    }
}

impl<E> Writer<E> for BodyWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), E> {
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }
}

struct BodySource<'a> {
    base_offset: Offset,
    topics: &'a [(TopicNumber, &'a str)],
    events: &'a [StagedEvent],
    topic_indexes: &'a [u16],
}

impl<'a> BodySource<'a> {
    fn event_sources(&self) -> impl ExactSizeIterator<Item = EventSource<'a>> + Clone {
        let base_offset = self.base_offset;
        iter::zip(self.events, self.topic_indexes).map(move |(staged, topic_index)| EventSource {
            staged,
            topic_index: *topic_index,
            offset_delta: u32::try_from(staged.offset.since(base_offset))
                .expect("a frame spans fewer than 2^32 offsets"),
        })
    }

    fn topic_sources(&self) -> impl ExactSizeIterator<Item = TopicSource<'a>> + Clone {
        self.topics.iter().map(|(number, name)| TopicSource { number: *number, name })
    }
}

impl Archive for BodySource<'_> {
    type Archived = BodyRecord;
    type Resolver = (VecResolver, VecResolver);

    fn resolve(&self, (topics_at, events_at): Self::Resolver, out: Place<BodyRecord>) {
        munge!(let BodyRecord { topics, events } = out);
        ArchivedVec::resolve_from_len(self.topics.len(), topics_at, topics);
        ArchivedVec::resolve_from_len(self.events.len(), events_at, events);
    }
}

impl<S> Serialize<S> for BodySource<'_>
where
    S: Fallible<Error: Source> + Allocator + Writer + ?Sized,
{
    fn serialize(&self, serializer: &mut S) -> Result<Self::Resolver, S::Error> {
        let topics = ArchivedVec::<TopicRecord>::serialize_from_iter::<TopicSource<'_>, _, _>(
            self.topic_sources(),
            serializer,
        )?;
        let events = ArchivedVec::<EventRecord>::serialize_from_iter::<EventSource<'_>, _, _>(
            self.event_sources(),
            serializer,
        )?;
        Ok((topics, events))
    }
}

struct TopicSource<'a> {
    number: TopicNumber,
    name: &'a str,
}

impl Archive for TopicSource<'_> {
    type Archived = TopicRecord;
    type Resolver = StringResolver;

    fn resolve(&self, name_at: StringResolver, out: Place<TopicRecord>) {
        munge!(let TopicRecord { number, name } = out);
        number.write(u32_le::from_native(self.number.get()));
        ArchivedString::resolve_from_str(self.name, name_at, name);
    }
}

impl<S> Serialize<S> for TopicSource<'_>
where
    S: Fallible<Error: Source> + Writer + ?Sized,
{
    fn serialize(&self, serializer: &mut S) -> Result<StringResolver, S::Error> {
        ArchivedString::serialize_from_str(self.name, serializer)
    }
}

struct EventSource<'a> {
    staged: &'a StagedEvent,
    offset_delta: u32,
    topic_index: u16,
}

impl EventSource<'_> {
    fn event_type(&self) -> &str {
        let event_type = &self.staged.event.event_type;
        if event_type.is_message() { "" } else { event_type.as_str() }
    }

    fn details(&self) -> Option<DetailsSource<'_>> {
        let event = &self.staged.event;
        has_details(event).then_some(DetailsSource { event })
    }
}

struct EventResolver {
    event_type: StringResolver,
    data: VecResolver,
    details: OptionBoxResolver,
}

impl Archive for EventSource<'_> {
    type Archived = EventRecord;
    type Resolver = EventResolver;

    fn resolve(&self, at: EventResolver, out: Place<EventRecord>) {
        munge!(let EventRecord {
            offset_delta, time_low_ms, time_high_ms, topic_index, form, kind, reserved,
            event_type, data, details,
        } = out);
        let time_ms = self.staged.time_ms;
        let low_ms = u32::try_from(time_ms & u64::from(u32::MAX)).expect("masked to 32 bits");
        let high_ms = u16::try_from(time_ms >> 32).expect("times are below 2^48");
        offset_delta.write(u32_le::from_native(self.offset_delta));
        time_low_ms.write(u32_le::from_native(low_ms));
        time_high_ms.write(u16_le::from_native(high_ms));
        topic_index.write(u16_le::from_native(self.topic_index));
        form.write(form_code(self.staged.event.form));
        kind.write(kind_code(self.staged.event.kind));
        reserved.write(u16_le::from_native(0));
        ArchivedString::resolve_from_str(self.event_type(), at.event_type, event_type);
        ArchivedVec::resolve_from_len(self.staged.event.data.len(), at.data, data);
        ArchivedOptionBox::resolve_from_option(self.details().as_ref(), at.details, details);
    }
}

impl<S> Serialize<S> for EventSource<'_>
where
    S: Fallible<Error: Source> + Allocator + Writer + ?Sized,
{
    fn serialize(&self, serializer: &mut S) -> Result<EventResolver, S::Error> {
        Ok(EventResolver {
            event_type: ArchivedString::serialize_from_str(self.event_type(), serializer)?,
            data: ArchivedVec::<u8>::serialize_from_slice(&self.staged.event.data, serializer)?,
            details: ArchivedOptionBox::serialize_from_option(self.details().as_ref(), serializer)?,
        })
    }
}

struct DetailsSource<'a> {
    event: &'a NewEvent,
}

impl DetailsSource<'_> {
    fn id(&self) -> &str {
        self.event.id.as_deref().unwrap_or_default()
    }

    fn key(&self) -> &str {
        self.event.key.as_deref().unwrap_or_default()
    }

    fn content_type(&self) -> &str {
        if is_json(&self.event.content_type) { "" } else { &self.event.content_type }
    }

    fn headers(&self) -> impl ExactSizeIterator<Item = HeaderSource<'_>> + Clone {
        self.event.headers.iter().map(|(name, value)| HeaderSource { name, value })
    }
}

struct DetailsResolver {
    id: StringResolver,
    key: StringResolver,
    content_type: StringResolver,
    headers: VecResolver,
}

impl Archive for DetailsSource<'_> {
    type Archived = DetailsRecord;
    type Resolver = DetailsResolver;

    fn resolve(&self, at: DetailsResolver, out: Place<DetailsRecord>) {
        munge!(let DetailsRecord { id, key, content_type, headers } = out);
        ArchivedString::resolve_from_str(self.id(), at.id, id);
        ArchivedString::resolve_from_str(self.key(), at.key, key);
        ArchivedString::resolve_from_str(self.content_type(), at.content_type, content_type);
        ArchivedVec::resolve_from_len(self.event.headers.len(), at.headers, headers);
    }
}

impl<S> Serialize<S> for DetailsSource<'_>
where
    S: Fallible<Error: Source> + Allocator + Writer + ?Sized,
{
    fn serialize(&self, serializer: &mut S) -> Result<DetailsResolver, S::Error> {
        Ok(DetailsResolver {
            id: ArchivedString::serialize_from_str(self.id(), serializer)?,
            key: ArchivedString::serialize_from_str(self.key(), serializer)?,
            content_type: ArchivedString::serialize_from_str(self.content_type(), serializer)?,
            headers: ArchivedVec::<HeaderRecord>::serialize_from_iter::<HeaderSource<'_>, _, _>(
                self.headers(),
                serializer,
            )?,
        })
    }
}

struct HeaderSource<'a> {
    name: &'a str,
    value: &'a str,
}

impl Archive for HeaderSource<'_> {
    type Archived = HeaderRecord;
    type Resolver = (StringResolver, StringResolver);

    fn resolve(&self, (name_at, value_at): Self::Resolver, out: Place<HeaderRecord>) {
        munge!(let HeaderRecord { name, value } = out);
        ArchivedString::resolve_from_str(self.name, name_at, name);
        ArchivedString::resolve_from_str(self.value, value_at, value);
    }
}

impl<S> Serialize<S> for HeaderSource<'_>
where
    S: Fallible<Error: Source> + Writer + ?Sized,
{
    fn serialize(&self, serializer: &mut S) -> Result<Self::Resolver, S::Error> {
        let name = ArchivedString::serialize_from_str(self.name, serializer)?;
        Ok((name, ArchivedString::serialize_from_str(self.value, serializer)?))
    }
}
