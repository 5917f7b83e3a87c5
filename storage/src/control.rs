//! Control events: what is said about the log itself, in the log, and so as durable as the rest.
//!
//! Their data is JSON, and their topic [`TOPIC`], which no pattern of a reader matches:
//! ```text
//! kind             data
//! log settings     {"retain":{"age_s":..,"bytes":..,"count":..},"keep_from":4711}
//! topic settings   {"pattern":"a/*","settings":{"retain":{..},"expire":{..}}}     null: none any more
//! topics deleted   {"topics":["a/b",..]}             their events before this one are gone; with
//!                                                    "with_settings":true so is what was set for them
//! topic trimmed    {"topic":"a/b","before":4711}     its events before that offset are
//! ```
//! `keep_from` is what the settings before had let go, which a looser limit does not bring back: the log
//! adds it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    event::{EventKind, NewEvent},
    offset::Offset,
    settings::{LogSettings, TopicSettings},
    topic::Topic,
};

/// The topic of control events.
pub const TOPIC: &str = "$log";

/// What a control event says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// The log has these settings from now on.
    Log(LogSettings),
    /// A topic or pattern has these settings from now on, or none.
    Topic(TopicRule),
    /// The events of these topics that stand before this one are gone.
    Deleted(TopicsDeleted),
    /// The events of a topic before an offset are gone.
    Trimmed(TopicTrimmed),
}

/// The member by which the settings of a log say what those before had let go.
const KEEP_FROM: &str = "keep_from";

/// Adds to the settings of a log what those before have let go.
pub(crate) fn add_kept_from(event: &mut NewEvent, keep_from: Offset) {
    let Ok(mut settings) = serde_json::from_slice::<serde_json::Value>(&event.data) else { return };
    settings[KEEP_FROM] = keep_from.get().into();
    event.data = Bytes::from(settings.to_string());
}

/// What the settings before had let go.
pub(crate) fn kept_from(data: &[u8]) -> Offset {
    let settings = serde_json::from_slice::<serde_json::Value>(data).unwrap_or_default();
    Offset::new(settings[KEEP_FROM].as_u64().unwrap_or(0))
}

/// See [`Control::Topic`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicRule {
    /// The topic or pattern.
    pub pattern: String,
    /// Its settings; `None` takes them away.
    pub settings: Option<TopicSettings>,
}

/// See [`Control::Deleted`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicsDeleted {
    /// Their names.
    pub topics: Vec<String>,
    /// What was set for just them goes with them. (Topics that are over keep it for their next life.)
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub with_settings: bool,
}

impl TopicsDeleted {
    /// Their events alone.
    pub fn of(topics: Vec<String>) -> TopicsDeleted {
        TopicsDeleted { topics, with_settings: false }
    }
}

/// See [`Control::Trimmed`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicTrimmed {
    /// Its name.
    pub topic: String,
    /// The first offset that is kept.
    pub before: u64,
}

impl TopicTrimmed {
    /// The first offset that is kept.
    pub fn before(&self) -> Offset {
        Offset::new(self.before)
    }
}

impl Control {
    /// The event that says so.
    pub fn event(&self) -> NewEvent {
        let (kind, data) = match self {
            Control::Log(settings) => (EventKind::LogSettings, serde_json::to_vec(settings)),
            Control::Topic(rule) => (EventKind::TopicSettings, serde_json::to_vec(rule)),
            Control::Deleted(topics) => (EventKind::TopicsDeleted, serde_json::to_vec(topics)),
            Control::Trimmed(topic) => (EventKind::TopicTrimmed, serde_json::to_vec(topic)),
        };
        let data = data.expect("these types are JSON");
        let topic = Topic::parse_reserved(TOPIC).expect("a topic");
        NewEvent { kind, ..NewEvent::json(topic, Bytes::from(data)) }
    }

    /// What an event says; `None` if it is no control event, or says nothing that can be understood.
    pub fn decode(kind: EventKind, data: &[u8]) -> Option<Control> {
        match kind {
            EventKind::Data => None,
            EventKind::LogSettings => serde_json::from_slice(data).ok().map(Control::Log),
            EventKind::TopicSettings => serde_json::from_slice(data).ok().map(Control::Topic),
            EventKind::TopicsDeleted => serde_json::from_slice(data).ok().map(Control::Deleted),
            EventKind::TopicTrimmed => serde_json::from_slice(data).ok().map(Control::Trimmed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{LogRetention, TopicExpiry, TopicRetention};

    /// The data of each kind of control event as it has always been: a member that is not known any more is not an error, and
    /// what was said with it would be forgotten.
    #[test]
    fn what_is_said_has_these_words() {
        let retain = LogRetention { age_s: Some(1), bytes: Some(2), count: Some(u64::MAX) };
        let settings = TopicSettings {
            retain: TopicRetention { age_s: Some(4), count: Some(5), latest_per_key: true },
            expire: TopicExpiry { age_s: Some(6), idle_s: Some(7) },
        };
        let rule = |settings| TopicRule { pattern: "a/*".to_owned(), settings };
        let deleted = TopicsDeleted::of(vec!["a".into(), "é".into()]);
        let whole = TopicsDeleted { with_settings: true, ..deleted.clone() };
        let trimmed = TopicTrimmed { topic: "a".into(), before: 7 };
        for (control, kind, text) in [
            (Control::Log(LogSettings::default()), EventKind::LogSettings, r#"{"retain":{}}"#),
            (
                Control::Log(LogSettings { retain }),
                EventKind::LogSettings,
                r#"{"retain":{"age_s":1,"bytes":2,"count":18446744073709551615}}"#,
            ),
            (
                Control::Topic(rule(Some(settings))),
                EventKind::TopicSettings,
                r#"{"pattern":"a/*","settings":{"retain":{"age_s":4,"count":5,"latest_per_key":true},"expire":{"age_s":6,"idle_s":7}}}"#,
            ),
            (
                Control::Topic(rule(Some(TopicSettings::default()))),
                EventKind::TopicSettings,
                r#"{"pattern":"a/*","settings":{"retain":{},"expire":{}}}"#,
            ),
            (
                Control::Topic(rule(None)),
                EventKind::TopicSettings,
                r#"{"pattern":"a/*","settings":null}"#,
            ),
            (Control::Deleted(deleted), EventKind::TopicsDeleted, r#"{"topics":["a","é"]}"#),
            (
                Control::Deleted(whole),
                EventKind::TopicsDeleted,
                r#"{"topics":["a","é"],"with_settings":true}"#,
            ),
            (Control::Trimmed(trimmed), EventKind::TopicTrimmed, r#"{"topic":"a","before":7}"#),
        ] {
            let event = control.event();
            assert_eq!((event.kind, &*event.topic), (kind, "$log"));
            assert_eq!(std::str::from_utf8(&event.data), Ok(text));
            assert_eq!(Control::decode(kind, text.as_bytes()), Some(control));
        }
    }

    #[test]
    fn settings_of_a_log_say_what_those_before_had_let_go() {
        let mut event = Control::Log(LogSettings::default()).event();
        add_kept_from(&mut event, Offset::new(4711));
        assert_eq!(&*event.data, br#"{"keep_from":4711,"retain":{}}"#);
        assert_eq!(kept_from(br#"{"retain":{},"keep_from":4711}"#), Offset::new(4711));
        assert_eq!(kept_from(br#"{"retain":{}}"#), Offset::ZERO);
    }

    #[test]
    fn what_is_said_is_understood() {
        let retain = LogRetention { age_s: Some(1), bytes: None, count: Some(u64::MAX) };
        let settings = TopicSettings {
            retain: TopicRetention { age_s: None, count: Some(3), latest_per_key: true },
            expire: TopicExpiry { age_s: Some(0), idle_s: None },
        };
        let pattern = "a/*".to_owned();
        for control in [
            Control::Log(LogSettings { retain }),
            Control::Topic(TopicRule { pattern: pattern.clone(), settings: Some(settings) }),
            Control::Topic(TopicRule { pattern, settings: None }),
            Control::Deleted(TopicsDeleted::of(vec!["a".into(), "é".into()])),
            Control::Trimmed(TopicTrimmed { topic: "a".into(), before: 7 }),
        ] {
            let event = control.event();
            assert_eq!(Control::decode(event.kind, &event.data), Some(control));
        }
        assert_eq!(Control::decode(EventKind::TopicTrimmed, b"{}"), None);
        assert_eq!(Control::decode(EventKind::Data, b"{}"), None);
    }
}
