//! From a method and a path to an operation.
//!
//! A path is first taken for what it names, then asked what the method does there: so a path that
//! exists answers 405 with what it takes, and OPTIONS knows it too.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use strandline_storage::topic::Topic;

use super::head::Method;
use crate::pages::Asset;
use crate::problem::{self, Problem, ProblemEntry, ProblemKind};

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
    /// `GET /api/v1/events/stream`, `/sse`, `/ws`
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
    /// OPTIONS of a path that exists, or of `*`.
    Options {
        /// The methods that the path takes.
        allow: &'static str,
    },
}

/// What a path names.
enum Resource<'a> {
    Read(Operation),
    AppendEvents,
    /// A topic, or an operation on one: what follows `/api/v1/topics/`.
    Topic(&'a str),
    /// Part of the interface, but not of this version.
    Later(&'static str),
}

const ALLOW_READ: &str = "GET, HEAD, OPTIONS";
const ALLOW_APPEND: &str = "POST, OPTIONS";
const ALLOW_TOPIC: &str = "GET, HEAD, PUT, DELETE, OPTIONS";
const ALLOW_ALL: &str = "GET, HEAD, POST, PUT, DELETE, OPTIONS";

/// Returns what this method does at this path, which is not decoded yet and has no query.
///
/// Fails with 404, 405, 501 for what is not there yet and for unknown methods, and 400 when the path
/// holds something that is no topic.
pub fn route(method: Method, path: &str) -> Result<Operation, Problem> {
    if method == Method::Unknown {
        return Err(Problem::new(ProblemKind::UnknownMethod, "this method is not known"));
    }
    if path == "*" {
        return Ok(Operation::Options { allow: ALLOW_ALL });
    }
    let resource = find(path)?;
    match (method, resource) {
        (Method::Options, resource) => Ok(Operation::Options { allow: allow(&resource) }),
        (_, Resource::Later(what)) => Err(not_yet(what)),
        (Method::Get | Method::Head, Resource::Read(operation)) => Ok(operation),
        (Method::Post, Resource::AppendEvents) => Ok(Operation::AppendEvents),
        (Method::Get | Method::Head, Resource::Topic(path)) => {
            Ok(Operation::Topic { topic: topic(path)? })
        }
        (Method::Post, Resource::Topic(path)) => topic_operation(path),
        (Method::Put, Resource::Topic(_)) => Err(not_yet("settings of topics")),
        (Method::Delete, Resource::Topic(_)) => Err(not_yet("deleting topics")),
        (_, resource) => Err(not_allowed(&resource, "this path does not take this method")),
    }
}

fn find(path: &str) -> Result<Resource<'_>, Problem> {
    let no_such_path = || Problem::new(ProblemKind::NotFound, "there is nothing at this path");
    if let Some(rest) = path.strip_prefix("/api/v1/") {
        if let Some(topic_path) = rest.strip_prefix("topics/") {
            return Ok(Resource::Topic(topic_path));
        }
        return Ok(match rest {
            "events" => Resource::AppendEvents,
            "events/stream" => Resource::Read(Operation::Stream { force: StreamForce::Any }),
            "events/history" => Resource::Read(Operation::History),
            "topics" => Resource::Read(Operation::Topics),
            _ if rest == "logs" || rest.starts_with("logs/") => Resource::Later("logs by name"),
            _ => return Err(no_such_path()),
        });
    }
    Ok(Resource::Read(match path {
        "/sse" => Operation::Stream { force: StreamForce::Sse },
        "/ws" => Operation::Stream { force: StreamForce::WebSocket },
        "/" => Operation::Home,
        "/livez" => Operation::Live,
        "/readyz" => Operation::Ready,
        "/healthz" => Operation::Healthy,
        "/problems" => Operation::Problems,
        "/metrics" => return Ok(Resource::Later("metrics")),
        "/openapi.json" => return Ok(Resource::Later("the OpenAPI description")),
        "/asyncapi.json" => return Ok(Resource::Later("the AsyncAPI description")),
        "/llms.txt" => return Ok(Resource::Later("llms.txt")),
        _ => {
            if let Some(slug) = path.strip_prefix("/problems/") {
                Operation::ProblemPage(problem::find(slug).ok_or_else(no_such_path)?)
            } else {
                Operation::Asset(Asset::find(path).ok_or_else(no_such_path)?)
            }
        }
    }))
}

/// POST below `/api/v1/topics/`: the operation is the path's last segment, as it stands. A topic
/// whose own last level is `events` can be written `a%2Fevents`, and its operation is one more.
fn topic_operation(path: &str) -> Result<Operation, Problem> {
    if let Some(topic_path) = path.strip_suffix("/events") {
        return Ok(Operation::AppendRaw { topic: topic(topic_path)? });
    }
    if path.ends_with("/trim") {
        return Err(not_yet("trimming topics"));
    }
    let hint = "to append to a topic, POST to /api/v1/topics/{topic}/events";
    Err(not_allowed(&Resource::Topic(path), hint))
}

/// Decodes a topic as it stands in a path. All of it is decoded at once: `%2F` separates levels just
/// as `/` does, and nothing that the first decoding brings forth is decoded again.
fn topic(path: &str) -> Result<Topic, Problem> {
    let invalid = |detail: String| Problem::new(ProblemKind::InvalidTopic, detail);
    let decoded = decode(path)
        .ok_or_else(|| invalid("the topic in the path is not percent-encoded UTF-8".into()))?;
    Topic::parse(&decoded).map_err(|error| invalid(format!("the topic in the path {error}")))
}

/// Decodes percent-encoded UTF-8; None when a `%` is not followed by two hexadecimal digits, or when
/// the result is not UTF-8.
fn decode(text: &str) -> Option<Cow<'_, str>> {
    let mut after_percent = text.split('%');
    after_percent.next();
    let is_hex = |part: &str| {
        part.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if !after_percent.all(is_hex) {
        return None;
    }
    percent_decode_str(text).decode_utf8().ok()
}

fn allow(resource: &Resource<'_>) -> &'static str {
    match resource {
        Resource::Read(_) | Resource::Later(_) => ALLOW_READ,
        Resource::AppendEvents => ALLOW_APPEND,
        Resource::Topic(path) if path.ends_with("/events") || path.ends_with("/trim") => ALLOW_ALL,
        Resource::Topic(_) => ALLOW_TOPIC,
    }
}

fn not_allowed(resource: &Resource<'_>, detail: &'static str) -> Problem {
    Problem::new(ProblemKind::MethodNotAllowed, detail).allowing(allow(resource))
}

fn not_yet(what: &'static str) -> Problem {
    Problem::new(ProblemKind::NotYet, format!("{what}: not in this version"))
}
