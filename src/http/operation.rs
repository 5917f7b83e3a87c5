//! What a request asks for: every operation of the interface, and what it is about.

use strandline_storage::topic::{Topic, TopicPattern};

use super::head::{FieldName, Head};
use crate::input::LogName;
use crate::problem::ProblemEntry;

/// Over what a stream is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamForce {
    /// WebSocket if the request asks for it, else Server-Sent Events.
    Any,
    /// Server-Sent Events, whatever `Upgrade` says.
    Sse,
    /// WebSocket, or 426.
    WebSocket,
}

impl StreamForce {
    /// Whether this request is to be answered as one for a WebSocket, be it by a refusal.
    pub fn is_websocket(self, head: &Head) -> bool {
        match self {
            Self::Sse => false,
            Self::WebSocket => true,
            // A key without `Upgrade` is what is left of a WebSocket behind a proxy that lost the rest.
            Self::Any => {
                head.asks_for_websocket() || head.value(FieldName::SecWebsocketKey).is_some()
            }
        }
    }
}

/// What the built-in pages are made of, beside themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asset {
    /// `/assets/style.css`
    Style,
    /// `/assets/app.js`
    Script,
    /// `/assets/icon.svg`, also `/favicon.ico`, which browsers ask for by themselves.
    Icon,
}

impl Asset {
    /// Returns the asset at this path.
    pub fn find(path: &str) -> Option<Self> {
        match path {
            "/assets/style.css" => Some(Self::Style),
            "/assets/app.js" => Some(Self::Script),
            "/assets/icon.svg" | "/favicon.ico" => Some(Self::Icon),
            _ => None,
        }
    }
}

/// What a request does to a log beside appending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// `PUT /api/v1/logs/{log}`
    SetLog {
        /// Which.
        log: LogName,
    },
    /// `PUT /api/v1/topics/{topic or pattern}`
    SetTopics {
        /// Which.
        pattern: TopicPattern,
        /// The path ends like an operation: the topic is meant only if it is there.
        is_operation: bool,
    },
    /// `DELETE /api/v1/topics/{topic or pattern}`
    Delete {
        /// Which.
        pattern: TopicPattern,
        /// As above.
        is_operation: bool,
    },
    /// `POST /api/v1/topics/{topic}/trim`
    Trim {
        /// Which.
        topic: Topic,
    },
}

/// What a request asks for. HEAD is GET here: whoever answers leaves the body away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `POST /api/v1/topics/{topic}/events`
    AppendRaw {
        /// Where to.
        topic: Topic,
    },
    /// `POST /api/v1/events`
    AppendEvents,
    /// `GET /api/v1/events/stream`, and `sse` and `ws` beside it; `/sse`, `/ws`
    Stream {
        /// Over what.
        force: StreamForce,
    },
    /// `GET /api/v1/events/history`
    History,
    /// `GET /api/v1/topics`
    Topics,
    /// `GET /api/v1/topics/{topic}`
    Topic {
        /// Which.
        topic: Topic,
    },
    /// `GET /api/v1/topics/{pattern}`
    Pattern {
        /// Which.
        pattern: TopicPattern,
    },
    /// `GET /api/v1/logs`
    Logs,
    /// `GET /api/v1/logs/{log}`
    Log {
        /// Which.
        log: LogName,
    },
    /// Something that changes a log beside appending.
    Change(Change),
    /// `GET /`
    Home,
    /// What the pages are made of.
    Asset(Asset),
    /// `GET /problems`
    Problems,
    /// `GET /problems/{slug}`
    ProblemPage(&'static ProblemEntry),
    /// `GET /livez`
    Live,
    /// `GET /readyz`
    Ready,
    /// `GET /healthz`
    Healthy,
    /// `GET /metrics`
    Metrics,
    /// OPTIONS of a path that exists, or of `*`.
    Options {
        /// The methods that the path takes.
        allow: &'static str,
    },
}
