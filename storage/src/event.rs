//! An event: what an append hands in, the names on it, and how it is read back from a frame.
//!
//! A name is parsed once, at the edge, into a type that cannot be wrong. How events lie inside a
//! frame is in [`archive`], which alone knows rkyv.

use std::{borrow::Cow, fmt, ops::Deref, sync::Arc};

use bytes::Bytes;

use crate::{
    offset::Offset,
    topic::{Topic, TopicNumber},
};

pub mod archive;

pub use archive::EventView;

/// Why a text is no type, key or id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// There is nothing in it: leave it out instead.
    #[error("is empty")]
    Empty,
    /// It is too long.
    #[error("has {bytes} bytes, more than {bytes_max}")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// It holds a control character (Unicode Cc), which would end a line of an SSE stream.
    #[error("holds a control character")]
    ControlCharacter,
    /// It begins or ends with white space, which header fields would lose.
    #[error("begins or ends with white space")]
    OuterSpace,
    /// `error`, `open`, `ping` and `connection.*` are the protocol's own.
    #[error("is a reserved type")]
    Reserved,
}

pub(crate) fn check_name(text: &str, bytes_max: usize) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > bytes_max {
        return Err(NameError::TooLong { bytes: text.len(), bytes_max });
    }
    // Nearly all are, and this looks at many bytes at once.
    if text.bytes().fold(true, |is_graphic, byte| is_graphic & byte.is_ascii_graphic()) {
        return Ok(());
    }
    if text.chars().any(char::is_control) {
        return Err(NameError::ControlCharacter);
    }
    if text.trim().len() != text.len() {
        return Err(NameError::OuterSpace);
    }
    Ok(())
}

macro_rules! name {
    ($name:ident, $what:literal) => {
        #[doc = $what]
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name that a frame holds: it was checked when it was appended.
            pub(crate) fn of_stored(text: &str) -> $name {
                $name(text.into())
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }
    };
}

name!(EventType, "What kind of event it is: SSE `event:`. At most 128 bytes.");
name!(EventKey, "What an event is about, for compaction by key. At most 128 bytes.");
name!(EventId, "The publisher's own id of an event, unique in its log. At most 256 bytes.");

impl EventType {
    /// The longest type.
    pub const BYTES_MAX: usize = 128;
    /// The type of events that name none.
    pub const MESSAGE: &str = "message";

    /// The type that a request names.
    pub fn parse(text: &str) -> Result<EventType, NameError> {
        check_name(text, EventType::BYTES_MAX)?;
        if matches!(text, "error" | "open" | "ping") || text.starts_with("connection.") {
            return Err(NameError::Reserved);
        }
        Ok(EventType(text.into()))
    }

    /// `message`.
    pub fn message() -> EventType {
        static MESSAGE: std::sync::LazyLock<EventType> =
            std::sync::LazyLock::new(|| EventType(EventType::MESSAGE.into()));
        MESSAGE.clone()
    }

    /// Whether it is `message`.
    pub fn is_message(&self) -> bool {
        &*self.0 == EventType::MESSAGE
    }
}

impl Default for EventType {
    fn default() -> Self {
        EventType::message()
    }
}

impl EventKey {
    /// The longest key.
    pub const BYTES_MAX: usize = 128;

    /// The key that a request names.
    pub fn parse(text: &str) -> Result<EventKey, NameError> {
        check_name(text, EventKey::BYTES_MAX)?;
        Ok(EventKey(text.into()))
    }
}

impl EventId {
    /// The longest id.
    pub const BYTES_MAX: usize = 256;

    /// The id that a request names.
    pub fn parse(text: &str) -> Result<EventId, NameError> {
        check_name(text, EventId::BYTES_MAX)?;
        Ok(EventId(text.into()))
    }
}

/// How an event's data is shown inside JSON. Decided once, when it is appended, so that no reader
/// has to look into the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DataForm {
    /// It is a JSON value: shown as itself.
    Json,
    /// It is UTF-8: shown as a string. Frames are not searched for text that is none.
    Text,
    /// Anything: shown as base64.
    Binary,
}

/// What an event is for. All but data are control events ([`crate::control`]), which say something
/// about the log itself; a program that does not know a kind does not read the frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum EventKind {
    /// What a publisher appended.
    #[default]
    Data,
    /// The settings of the log.
    LogSettings,
    /// The settings of a topic or pattern.
    TopicSettings,
    /// Topics whose events are gone.
    TopicsDeleted,
    /// A topic whose older events are gone.
    TopicTrimmed,
}

impl EventKind {
    /// Whether a publisher appended it.
    pub fn is_data(self) -> bool {
        self == EventKind::Data
    }
}

/// An event to append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    /// Where it belongs.
    pub topic: Topic,
    /// What kind of event it is for its readers.
    pub event_type: EventType,
    /// The publisher's own id.
    pub id: Option<EventId>,
    /// What it is about.
    pub key: Option<EventKey>,
    /// Names and values, in this order.
    pub headers: Vec<(Box<str>, Box<str>)>,
    /// The media type of the data; empty is `application/json`.
    pub content_type: Cow<'static, str>,
    /// How the data is shown inside JSON.
    pub form: DataForm,
    /// What it is for.
    pub kind: EventKind,
    /// The data, byte for byte.
    pub data: Bytes,
}

impl NewEvent {
    /// The media type that an empty `content_type` stands for.
    pub const JSON: &str = "application/json";

    /// An event of JSON data with nothing else set.
    pub fn json(topic: Topic, data: Bytes) -> NewEvent {
        NewEvent {
            topic,
            event_type: EventType::message(),
            id: None,
            key: None,
            headers: Vec::new(),
            content_type: Cow::Borrowed(""),
            form: DataForm::Json,
            kind: EventKind::Data,
            data,
        }
    }
}

/// An event that has its place and its time, and waits for its frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagedEvent {
    /// Its place in the log.
    pub offset: Offset,
    /// When it was appended: milliseconds since 1970, below 2^48, never less than the event's before it.
    pub time_ms: u64,
    /// The number of its topic, once its frame is begun.
    pub topic_number: TopicNumber,
    /// What was appended.
    pub event: NewEvent,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_to_the_byte() {
        assert!(EventType::parse(&"t".repeat(128)).is_ok());
        assert_eq!(
            EventType::parse(&"t".repeat(129)),
            Err(NameError::TooLong { bytes: 129, bytes_max: 128 })
        );
        assert!(EventKey::parse(&"k".repeat(128)).is_ok());
        assert!(EventKey::parse(&"k".repeat(129)).is_err());
        assert!(EventId::parse(&"i".repeat(256)).is_ok());
        assert!(EventId::parse(&"i".repeat(257)).is_err());
        assert_eq!(EventKey::parse(""), Err(NameError::Empty));
        assert_eq!(EventKey::parse(" a"), Err(NameError::OuterSpace));
        assert_eq!(EventKey::parse("a\u{a0}"), Err(NameError::OuterSpace));
        assert_eq!(EventKey::parse("a\nb"), Err(NameError::ControlCharacter));
        assert_eq!(EventKey::parse("a\u{0}"), Err(NameError::ControlCharacter));
        assert!(EventKey::parse("a b").is_ok());
    }

    #[test]
    fn types_of_the_protocol_are_reserved() {
        for text in ["error", "open", "ping", "connection.reset", "connection."] {
            assert_eq!(EventType::parse(text), Err(NameError::Reserved), "{text}");
        }
        for text in ["errors", "Error", "connection", "message"] {
            assert!(EventType::parse(text).is_ok(), "{text}");
        }
        assert!(EventType::default().is_message());
    }
}
