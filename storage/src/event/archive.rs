//! The body of a frame: the events of one commit as an rkyv archive, read in place.
//!
//! rkyv 0.8 with the features `little_endian`, `pointer_width_32` and `aligned`, which must be set
//! explicitly because they unify over the whole build; golden files pin the bytes. A `text` is rkyv's
//! archived string: 8 bytes, which hold it if it has at most 8 bytes and else its length and where it
//! is; a `list` is 4 bytes of where and 4 of how many. "Where" is relative and points backwards, as
//! what is pointed to is written first. Everything is aligned to 4 bytes.
//! ```text
//! body     | names and topic records | data, texts, details of each event | event records | root |
//!
//! root     16 bytes  0 topics: list of topic records   8 events: list of event records
//! topic    12 bytes  0 number u32   4 name text
//! event    36 bytes  0 offset - the frame's base offset u32   4 time in ms, low 32 bits u32
//!                    8 time, high 16 bits u16   10 index into topics u16   12 form u8   13 kind u8
//!                    14 zero u16   16 type text, empty is `message`   24 data list of bytes
//!                    32 details: where, or 1 if there are none
//! details  32 bytes  0 id text   8 key text   16 content type text, empty is `application/json`
//!                    24 headers: list of header records           (an empty id or key is none)
//! header   16 bytes  0 name text   8 value text
//! ```
//! Form is 0 JSON, 1 text, 2 binary; kind is 0 data, 1 settings of the log, 2 settings of a topic or
//! pattern, 3 topics deleted, 4 topic trimmed. A header whose name begins with `:` is none of the
//! publisher's (whose names are tokens) and stands behind those: `:producer` says whose append begins
//! with the event. An event without id, key, headers and content
//! type costs 36 bytes and its data. Times are whole, not deltas to the frame: a clock that was set
//! between two events of a frame may put decades between them.
//!
//! Invariants, beyond what bytecheck sees: offsets ascend, times do not descend, every topic index is
//! in the table, forms and kinds are known.

use std::{borrow::Cow, fmt, iter, mem};

use bytes::Bytes;

use rkyv::{
    Archive, Place, Portable, Serialize,
    boxed::ArchivedBox,
    bytecheck::CheckBytes,
    munge::munge,
    niche::option_box::{ArchivedOptionBox, OptionBoxResolver},
    rancor::{self, Fallible, Panic, Source},
    rend::{u16_le, u32_le},
    ser::{Allocator, Positional, Serializer, Writer},
    string::{ArchivedString, StringResolver},
    util::with_arena,
    vec::{ArchivedVec, VecResolver},
};

use crate::{
    buffer::DiskBuffer,
    event::{DataForm, EventId, EventKey, EventKind, EventType, NewEvent, StagedEvent},
    offset::Offset,
    topic::{self, Topic, TopicNumber},
};

/// The header by which the first event of a producer's append says whose it is.
pub const PRODUCER_HEADER: &str = ":producer";

/// A time of an event is below this: 48 bits, the year 10889.
pub const TIME_MS_END: u64 = 1 << 48;

#[derive(Portable, CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
struct BodyRecord {
    topics: ArchivedVec<TopicRecord>,
    events: ArchivedVec<EventRecord>,
}

#[derive(Portable, CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
struct TopicRecord {
    number: u32_le,
    name: ArchivedString,
}

#[derive(Portable, CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
struct EventRecord {
    offset_delta: u32_le,
    time_low_ms: u32_le,
    time_high_ms: u16_le,
    topic_index: u16_le,
    form: u8,
    kind: u8,
    reserved: u16_le,
    event_type: ArchivedString,
    data: ArchivedVec<u8>,
    details: ArchivedOptionBox<DetailsRecord>,
}

#[derive(Portable, CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
struct DetailsRecord {
    id: ArchivedString,
    key: ArchivedString,
    content_type: ArchivedString,
    headers: ArchivedVec<HeaderRecord>,
}

#[derive(Portable, CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
struct HeaderRecord {
    name: ArchivedString,
    value: ArchivedString,
}

/// The alignment of a body, and so of where it begins in memory.
pub(crate) const BODY_ALIGN_BYTES: usize = mem::align_of::<BodyRecord>();

const ROOT_BYTES: usize = mem::size_of::<BodyRecord>();

const _: () = assert!(BODY_ALIGN_BYTES == 4);
const _: () = assert!(ROOT_BYTES == 16);
const _: () = assert!(mem::size_of::<TopicRecord>() == 12);
const _: () = assert!(mem::size_of::<EventRecord>() == 36);
const _: () = assert!(mem::size_of::<DetailsRecord>() == 32);
const _: () = assert!(mem::size_of::<HeaderRecord>() == 16);

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

pub(crate) fn kind_code(kind: EventKind) -> u8 {
    match kind {
        EventKind::Data => 0,
        EventKind::LogSettings => 1,
        EventKind::TopicSettings => 2,
        EventKind::TopicsDeleted => 3,
        EventKind::TopicTrimmed => 4,
    }
}

pub(crate) fn kind_of(code: u8) -> Option<EventKind> {
    match code {
        0 => Some(EventKind::Data),
        1 => Some(EventKind::LogSettings),
        2 => Some(EventKind::TopicSettings),
        3 => Some(EventKind::TopicsDeleted),
        4 => Some(EventKind::TopicTrimmed),
        _ => None,
    }
}

fn form_code(form: DataForm) -> u8 {
    match form {
        DataForm::Json => 0,
        DataForm::Text => 1,
        DataForm::Binary => 2,
    }
}

fn form_of(code: u8) -> Option<DataForm> {
    match code {
        0 => Some(DataForm::Json),
        1 => Some(DataForm::Text),
        2 => Some(DataForm::Binary),
        _ => None,
    }
}

// ---------------------------------------------------------------------------------------------
// Writing.

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

// ---------------------------------------------------------------------------------------------
// Reading.

/// Why bytes are no body, though their checksum may hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The archive points outside itself, overlaps, or holds a text that is not UTF-8.
    #[error("archive is malformed: {what}")]
    Archive {
        /// What rkyv says.
        what: String,
    },
    /// A value is not what it must be.
    #[error("{what} of event {index} is out of range")]
    Event {
        /// Which value.
        what: &'static str,
        /// Of which event in the frame, from 0.
        index: usize,
    },
    /// A topic's name is none.
    #[error("topic {index} of the frame has a bad name")]
    Topic {
        /// Which topic in the frame's table.
        index: usize,
    },
}

/// What a frame's header says about its body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyBounds {
    pub base_offset: Offset,
    pub end_offset: Offset,
    pub event_count: usize,
}

/// The events of a frame, in place.
#[derive(Clone, Copy)]
pub(crate) struct Body<'a> {
    record: &'a BodyRecord,
    base_offset: Offset,
}

impl<'a> Body<'a> {
    /// Checks a body: the archive by bytecheck, then every invariant of this file, but the spelling
    /// of topics only if asked to.
    ///
    /// Bytecheck is cheap enough to be done always (on 128 KiB frames of 400 events: 5 ns an event
    /// without details, 30 ns with id, key, type and a header), so no checksum has to vouch for
    /// memory safety. Spelling is not: 50 ns a topic.
    pub fn check(
        bytes: &'a [u8],
        bounds: BodyBounds,
        spelling: bool,
    ) -> Result<Body<'a>, BodyError> {
        let record = rkyv::access::<BodyRecord, rancor::Error>(bytes)
            .map_err(|error| BodyError::Archive { what: error.to_string() })?;
        if spelling {
            check_topics(record)?;
        }
        check_invariants(record, bounds)?;
        Ok(Body { record, base_offset: bounds.base_offset })
    }

    /// The body in bytes that were checked before.
    ///
    /// # Safety
    ///
    /// [`Body::check`] returned `Ok` for the same bytes, at the same place in memory or another one
    /// aligned to [`BODY_ALIGN_BYTES`], and they have not changed since.
    pub unsafe fn access_checked(bytes: &'a [u8], base_offset: Offset) -> Body<'a> {
        // SAFETY: the caller's promise is what rkyv asks for: a valid archive, aligned.
        let record = unsafe { rkyv::access_unchecked::<BodyRecord>(bytes) };
        Body { record, base_offset }
    }

    /// The event with this index, which is below the event count.
    pub fn event(self, index: usize) -> EventView<'a> {
        EventView { record: &self.record.events[index], body: self }
    }
}

/// The topics of a frame, in the order of the indexes; none if it has no body.
pub(crate) fn topics(body: Option<Body<'_>>) -> impl ExactSizeIterator<Item = (TopicNumber, &str)> {
    let topics = body.map_or(&[][..], |body| body.record.topics.as_slice());
    topics.iter().map(|topic| (TopicNumber::new(topic.number.to_native()), topic.name.as_str()))
}

fn check_topics(record: &BodyRecord) -> Result<(), BodyError> {
    for (index, topic) in record.topics.iter().enumerate() {
        topic::check_name(&topic.name).map_err(|_| BodyError::Topic { index })?;
    }
    Ok(())
}

fn check_invariants(record: &BodyRecord, bounds: BodyBounds) -> Result<(), BodyError> {
    if record.events.len() != bounds.event_count {
        return Err(BodyError::Archive {
            what: "event count differs from the header's".to_owned(),
        });
    }
    let span = bounds.end_offset.since(bounds.base_offset);
    let mut next_delta = 0;
    let mut last_time_ms = 0;
    for (index, event) in record.events.iter().enumerate() {
        let wrong = |what| Err(BodyError::Event { what, index });
        let delta = u64::from(event.offset_delta.to_native());
        if delta < next_delta || delta >= span {
            return wrong("offset");
        }
        next_delta = delta + 1;
        if event.time_ms() < last_time_ms {
            return wrong("time");
        }
        last_time_ms = event.time_ms();
        if usize::from(event.topic_index.to_native()) >= record.topics.len() {
            return wrong("topic");
        }
        if form_of(event.form).is_none() {
            return wrong("form");
        }
        if kind_of(event.kind).is_none() {
            return wrong("kind");
        }
        if event.reserved != 0 {
            return wrong("reserved field");
        }
    }
    Ok(())
}

impl EventRecord {
    fn time_ms(&self) -> u64 {
        u64::from(self.time_low_ms.to_native()) | u64::from(self.time_high_ms.to_native()) << 32
    }
}

/// An event in its frame. Everything is read in place; nothing is copied.
#[derive(Clone, Copy)]
pub struct EventView<'a> {
    record: &'a EventRecord,
    body: Body<'a>,
}

impl<'a> EventView<'a> {
    /// Its place in the log.
    pub fn offset(&self) -> Offset {
        self.body.base_offset.plus(u64::from(self.record.offset_delta.to_native()))
    }

    /// When it was appended, in milliseconds since 1970; never less than the event's before it.
    pub fn time_ms(&self) -> u64 {
        self.record.time_ms()
    }

    /// The name of its topic.
    pub fn topic(&self) -> &'a str {
        self.topic_record().name.as_str()
    }

    /// The number of its topic in the log.
    pub fn topic_number(&self) -> TopicNumber {
        TopicNumber::new(self.topic_record().number.to_native())
    }

    /// The place of its topic in [`crate::frame::Frame::topics`]: whoever picks events by topic
    /// matches each name of the table once.
    pub fn topic_index(&self) -> usize {
        usize::from(self.record.topic_index.to_native())
    }

    fn topic_record(&self) -> &'a TopicRecord {
        &self.body.record.topics[self.topic_index()]
    }

    /// Its type, `message` if none was given.
    pub fn event_type(&self) -> &'a str {
        match self.record.event_type.as_str() {
            "" => EventType::MESSAGE,
            event_type => event_type,
        }
    }

    /// The publisher's own id.
    pub fn id(&self) -> Option<&'a str> {
        self.details().map(|details| details.id.as_str()).filter(|id| !id.is_empty())
    }

    /// What it is about.
    pub fn key(&self) -> Option<&'a str> {
        self.details().map(|details| details.key.as_str()).filter(|key| !key.is_empty())
    }

    /// Names and values, in the order in which they were given.
    pub fn headers(&self) -> impl ExactSizeIterator<Item = (&'a str, &'a str)> {
        let headers = self.all_headers();
        let own = headers.iter().rev().take_while(|header| header.name.starts_with(':')).count();
        let headers = &headers[..headers.len() - own];
        headers.iter().map(|header| (header.name.as_str(), header.value.as_str()))
    }

    /// Whose append begins with this event (decoded by `ProducerClaim`).
    pub fn producer(&self) -> Option<&'a str> {
        let last = self.all_headers().last()?;
        (last.name == PRODUCER_HEADER).then(|| last.value.as_str())
    }

    /// The event as it was appended, of a topic whose name is its own.
    pub(crate) fn to_new(self, topic: &Topic) -> NewEvent {
        NewEvent {
            topic: topic.clone(),
            event_type: EventType::of_stored(self.event_type()),
            id: self.id().map(EventId::of_stored),
            key: self.key().map(EventKey::of_stored),
            headers: self
                .all_headers()
                .iter()
                .map(|header| (header.name.as_str().into(), header.value.as_str().into()))
                .collect(),
            content_type: match self.details().map_or("", |details| details.content_type.as_str()) {
                "" => Cow::Borrowed(""),
                content_type => Cow::Owned(content_type.to_owned()),
            },
            form: self.form(),
            kind: self.kind(),
            data: Bytes::copy_from_slice(self.data()),
        }
    }

    fn all_headers(&self) -> &'a [HeaderRecord] {
        self.details().map_or(&[][..], |details| details.headers.as_slice())
    }

    /// The media type of the data.
    pub fn content_type(&self) -> &'a str {
        match self.details().map_or("", |details| details.content_type.as_str()) {
            "" => NewEvent::JSON,
            content_type => content_type,
        }
    }

    /// How the data is shown inside JSON.
    pub fn form(&self) -> DataForm {
        form_of(self.record.form).expect("checked when the frame was parsed")
    }

    /// What it is for.
    pub fn kind(&self) -> EventKind {
        kind_of(self.record.kind).expect("checked when the frame was parsed")
    }

    /// The data, byte for byte.
    pub fn data(&self) -> &'a [u8] {
        self.record.data.as_slice()
    }

    fn details(&self) -> Option<&'a DetailsRecord> {
        self.record.details.as_ref().map(ArchivedBox::get)
    }
}

impl fmt::Debug for EventView<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("EventView")
            .field("offset", &self.offset())
            .field("topic", &self.topic())
            .field("event_type", &self.event_type())
            .field("data_bytes", &self.data().len())
            .finish_non_exhaustive()
    }
}
