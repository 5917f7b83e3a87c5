//! What may be set of a log, and of topics: how long events are kept, and what ends a topic. Pure.
//!
//! Settings are part of the log itself: each change is a control event, whose data is these types as
//! JSON, so they are as durable as everything else and part of every copy. A member that is absent, or
//! null, is no limit. Names of members are part of the format: they are never renamed, and never given
//! another meaning.

use serde::{Deserialize, Serialize};

/// The settings of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogSettings {
    /// What of the log is kept.
    pub retain: LogRetention,
}

/// What of a log is kept: an event goes once any limit lets it go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogRetention {
    /// Events that are older go, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_s: Option<u64>,
    /// The oldest events go while the log's files are longer than this, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The newest so many events are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

/// The settings of a topic, or of all topics that a pattern matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TopicSettings {
    /// What of the topic is kept.
    pub retain: TopicRetention,
    /// What ends the topic as a whole.
    pub expire: TopicExpiry,
}

/// What of a topic is kept: an event goes once any limit lets it go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TopicRetention {
    /// Events that are older go, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_s: Option<u64>,
    /// The newest so many events are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Of events with the same key only the newest is kept; those without a key are not concerned.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub latest_per_key: bool,
}

impl TopicRetention {
    /// Whether there may be events that this keeps and `other` lets go.
    pub fn is_looser_than(&self, other: &TopicRetention) -> bool {
        let is_more = |ours: Option<u64>, theirs: Option<u64>| {
            theirs.is_some_and(|theirs| ours.is_none_or(|ours| ours > theirs))
        };
        is_more(self.age_s, other.age_s)
            || is_more(self.count, other.count)
            || (other.latest_per_key && !self.latest_per_key)
    }
}

/// What ends a topic as a whole, as if it were deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TopicExpiry {
    /// So long after its first event, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_s: Option<u64>,
    /// So long after its last event, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_s: Option<u64>,
}
