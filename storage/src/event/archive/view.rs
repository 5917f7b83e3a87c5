//! Reading a body: checked once, then each event where it lies.

use std::{borrow::Cow, fmt};

use bytes::Bytes;
use rkyv::{boxed::ArchivedBox, rancor};

use super::{
    BodyRecord, DetailsRecord, EventRecord, HeaderRecord, PRODUCER_HEADER, TopicRecord, form_of,
    kind_of,
};
use crate::{
    event::{DataForm, EventId, EventKey, EventKind, EventType, NewEvent},
    offset::Offset,
    topic::{self, Topic, TopicNumber},
};

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
    /// aligned to [`BODY_ALIGN_BYTES`](super::BODY_ALIGN_BYTES), and they have not changed since.
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
