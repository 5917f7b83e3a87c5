//! From a method and a path to an operation.
//!
//! A path is first taken for what it names, then asked what the method does there: so a path that
//! exists answers 405 with what it takes, and OPTIONS knows it too.

use super::head::Method;
use super::operation::{Asset, Change, Operation, StreamForce};
use super::topic_path::{pattern, topic};
use crate::input::{LogName, quoted};
use crate::problem::{self, Problem, ProblemKind};

/// What a path names.
enum Resource<'a> {
    Read(Operation),
    AppendEvents,
    /// A topic or pattern, or an operation on one: what follows `/api/v1/topics/`.
    Topic(&'a str),
    /// A log: what follows `/api/v1/logs/`.
    Log(&'a str),
    /// Part of the interface, but not of this version.
    Later(&'static str),
}

const ALLOW_READ: &str = "GET, HEAD, OPTIONS";
const ALLOW_APPEND: &str = "POST, OPTIONS";
const ALLOW_TOPIC: &str = "GET, HEAD, PUT, DELETE, OPTIONS";
const ALLOW_LOG: &str = "GET, HEAD, PUT, OPTIONS";
const ALLOW_ALL: &str = "GET, HEAD, POST, PUT, DELETE, OPTIONS";

/// For who sends an event to where it cannot go.
const TO_APPEND: &str = "to append to a topic, POST to /api/v1/topics/{topic}/events";

/// For who looks for something that is not there.
const WHERE_THINGS_ARE: &str = "the interface is at /api/v1/events, /api/v1/topics and /api/v1/logs, and \
    GET / shows how to begin";

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
        (Method::Get | Method::Head, Resource::Topic(path)) => match pattern(path)? {
            pattern if pattern.exact().is_none() => Ok(Operation::Pattern { pattern }),
            _ => Ok(Operation::Topic { topic: topic(path)? }),
        },
        (Method::Post, resource @ Resource::Topic(path)) => topic_operation(path, &resource),
        (Method::Put, Resource::Topic(path)) => {
            let (pattern, is_operation) = (pattern(path)?, is_operation(path));
            Ok(Operation::Change(Change::SetTopics { pattern, is_operation }))
        }
        (Method::Delete, Resource::Topic(path)) => {
            let (pattern, is_operation) = (pattern(path)?, is_operation(path));
            Ok(Operation::Change(Change::Delete { pattern, is_operation }))
        }
        (Method::Get | Method::Head, Resource::Log(name)) => {
            Ok(Operation::Log { log: LogName::parse(name)? })
        }
        (Method::Put, Resource::Log(name)) => {
            Ok(Operation::Change(Change::SetLog { log: LogName::parse(name)? }))
        }
        (Method::Get | Method::Head, resource @ Resource::AppendEvents) => {
            let hint = "events are appended here; they are read at /api/v1/events/history and, as they \
                        come, at /api/v1/events/stream";
            Err(not_allowed(method, &resource, hint))
        }
        (Method::Post, resource @ Resource::Read(_)) => {
            Err(not_allowed(method, &resource, TO_APPEND))
        }
        (_, resource) => Err(not_allowed(method, &resource, "")),
    }
}

fn find(path: &str) -> Result<Resource<'_>, Problem> {
    let no_such_path = || {
        let detail = format!("nothing has the path {}: {WHERE_THINGS_ARE}", quoted(path));
        Problem::new(ProblemKind::NotFound, detail)
    };
    if let Some(rest) = path.strip_prefix("/api/v1/") {
        if let Some(topic_path) = rest.strip_prefix("topics/") {
            return Ok(Resource::Topic(topic_path));
        }
        if let Some(name) = rest.strip_prefix("logs/") {
            return Ok(Resource::Log(name));
        }
        return Ok(match rest {
            "events" => Resource::AppendEvents,
            "events/stream" => Resource::Read(Operation::Stream { force: StreamForce::Any }),
            "events/sse" => Resource::Read(Operation::Stream { force: StreamForce::Sse }),
            "events/ws" => Resource::Read(Operation::Stream { force: StreamForce::WebSocket }),
            "events/history" => Resource::Read(Operation::History),
            "topics" => Resource::Read(Operation::Topics),
            "logs" => Resource::Read(Operation::Logs),
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
        "/metrics" => Operation::Metrics,
        "/openapi.json" => return Ok(Resource::Later("the OpenAPI description")),
        "/asyncapi.json" => return Ok(Resource::Later("the AsyncAPI description")),
        "/llms.txt" => return Ok(Resource::Later("llms.txt")),
        _ => {
            if let Some(slug) = path.strip_prefix("/problems/") {
                Operation::ProblemPage(problem::find(slug).ok_or_else(|| no_such_problem(slug))?)
            } else {
                Operation::Asset(Asset::find(path).ok_or_else(no_such_path)?)
            }
        }
    }))
}

fn no_such_problem(slug: &str) -> Problem {
    let detail = format!("there is no problem {}: /problems has all of them", quoted(slug));
    Problem::new(ProblemKind::NotFound, detail)
}

/// POST below `/api/v1/topics/`: the operation is the path's last segment, as it stands. A topic
/// whose own last level is `events` can be written `a%2Fevents`, and its operation is one more.
fn topic_operation(path: &str, resource: &Resource<'_>) -> Result<Operation, Problem> {
    if let Some(topic_path) = path.strip_suffix("/events") {
        return Ok(Operation::AppendRaw { topic: topic(topic_path)? });
    }
    if let Some(topic_path) = path.strip_suffix("/trim") {
        return Ok(Operation::Change(Change::Trim { topic: topic(topic_path)? }));
    }
    Err(not_allowed(Method::Post, resource, TO_APPEND))
}

/// Whether a path ends like an operation on a topic, as it stands.
fn is_operation(path: &str) -> bool {
    path.ends_with("/events") || path.ends_with("/trim")
}

fn allow(resource: &Resource<'_>) -> &'static str {
    match resource {
        Resource::Read(_) | Resource::Later(_) => ALLOW_READ,
        Resource::AppendEvents => ALLOW_APPEND,
        Resource::Topic(path) if is_operation(path) => ALLOW_ALL,
        Resource::Topic(_) => ALLOW_TOPIC,
        Resource::Log(_) => ALLOW_LOG,
    }
}

/// The 405 of a path that is there; `hint`, if it is not empty, says what was looked for.
fn not_allowed(method: Method, resource: &Resource<'_>, hint: &str) -> Problem {
    let allow = allow(resource);
    let mut detail = format!("this path takes {allow}, and not {}", method.as_str());
    if !hint.is_empty() {
        detail.push_str("; ");
        detail.push_str(hint);
    }
    Problem::new(ProblemKind::MethodNotAllowed, detail).allowing(allow)
}

fn not_yet(what: &'static str) -> Problem {
    Problem::new(ProblemKind::NotYet, format!("{what}: not in this version"))
}

#[cfg(test)]
mod tests {
    use strandline_storage::topic::{Topic, TopicPattern};

    use super::*;

    fn routed(method: Method, path: &str) -> Operation {
        route(method, path).unwrap_or_else(|problem| panic!("{path}: {problem}"))
    }

    fn refused(method: Method, path: &str) -> (u16, &'static str) {
        let problem = route(method, path).expect_err(path);
        (problem.status(), problem.slug())
    }

    fn parsed(topic: &str) -> Topic {
        Topic::parse(topic).expect(topic)
    }

    #[test]
    fn every_path_leads_to_its_operation() {
        for (path, operation) in [
            ("/", Operation::Home),
            ("/sse", Operation::Stream { force: StreamForce::Sse }),
            ("/api/v1/events/sse", Operation::Stream { force: StreamForce::Sse }),
            ("/api/v1/events/ws", Operation::Stream { force: StreamForce::WebSocket }),
            ("/ws", Operation::Stream { force: StreamForce::WebSocket }),
            ("/api/v1/events/stream", Operation::Stream { force: StreamForce::Any }),
            ("/api/v1/events/history", Operation::History),
            ("/api/v1/topics", Operation::Topics),
            ("/api/v1/topics/a/b", Operation::Topic { topic: parsed("a/b") }),
            ("/api/v1/topics/a/events", Operation::Topic { topic: parsed("a/events") }),
            ("/livez", Operation::Live),
            ("/readyz", Operation::Ready),
            ("/healthz", Operation::Healthy),
            ("/metrics", Operation::Metrics),
            ("/problems", Operation::Problems),
            ("/assets/app.js", Operation::Asset(Asset::Script)),
            (
                "/problems/event-too-large",
                Operation::ProblemPage(ProblemKind::EventTooLarge.entry()),
            ),
        ] {
            assert_eq!(routed(Method::Get, path), operation);
            assert_eq!(routed(Method::Head, path), operation, "HEAD is taken where GET is");
        }
        assert_eq!(routed(Method::Post, "/api/v1/events"), Operation::AppendEvents);
        assert_eq!(
            routed(Method::Post, "/api/v1/topics/a/b/events"),
            Operation::AppendRaw { topic: parsed("a/b") }
        );
    }

    /// API §1: "In a URL path each level is percent-decoded once and `%2F` separates like `/`
    /// (`encodeURIComponent(topic)` works)".
    #[test]
    fn topics_in_paths_are_decoded_once() {
        for (path, topic) in [
            ("a%2Fb", "a/b"),
            ("a%2fb/c", "a/b/c"),
            ("caf%C3%A9", "caf\u{e9}"),
            ("caf\u{e9}", "caf\u{e9}"),
            ("a%20b", "a b"),
            ("a+b", "a+b"),
            ("a%2541", "a%41"),
            ("a%252Fb", "a%2Fb"),
            ("%65vents", "events"),
        ] {
            let expected = Operation::AppendRaw { topic: parsed(topic) };
            let path = format!("/api/v1/topics/{path}/events");
            assert_eq!(routed(Method::Post, &path), expected, "{path}");
        }
    }

    /// API §1: "A level is not `.` or `..`, does not begin with `$` (reserved), and holds no `*`, `/`
    /// or control character (Unicode Cc)"; "empty levels are 400".
    #[test]
    fn paths_that_hold_no_topic_are_400() {
        let longest = "a".repeat(129);
        for topic in [
            "", "/", "a/", "/a", "a//b", "a%2F", "%2Fa", "a%2F%2Fb", ".", "..", "a/../b", "%2e%2e",
            "a/%2E", "$a", "a/$b", "%24a", "a%00", "a%0A", "a%7F", "a%C2%85", "%ff", "a%C3", "%",
            "a%2", "a%zz", "a%+1", &longest,
        ] {
            let path = format!("/api/v1/topics/{topic}/events");
            let invalid = (400, "invalid-topic");
            assert_eq!(refused(Method::Post, &path), invalid, "{path}");
            assert_eq!(refused(Method::Post, &path.replace("events", "trim")), invalid, "{path}");
            for method in [Method::Get, Method::Put, Method::Delete] {
                assert_eq!(refused(method, &path.replace("/events", "")), invalid, "{path}");
            }
        }
        for pattern in ["*", "a/**", "a%2F*"] {
            let path = format!("/api/v1/topics/{pattern}/events");
            assert_eq!(refused(Method::Post, &path), (400, "invalid-topic"), "{path}");
        }
        for pattern in ["a%2A", "a/**/b", "$a/*", "*/../a"] {
            let path = format!("/api/v1/topics/{pattern}");
            for method in [Method::Get, Method::Put, Method::Delete] {
                assert_eq!(refused(method, &path), (400, "invalid-pattern"), "{path}");
            }
        }
        let problem = route(Method::Get, "/api/v1/topics/a/$b").unwrap_err();
        assert_eq!(
            problem.detail(),
            "the topic in the path: level 2 begins with `$`, which is reserved"
        );
    }

    /// API §1: "1 to 16 levels of 1 to 128 bytes, at most 512 bytes in all".
    #[test]
    fn topics_as_long_as_they_may_be() {
        let levels = |levels: usize, bytes: usize| vec!["a".repeat(bytes); levels].join("/");
        let path = |topic: &str| format!("/api/v1/topics/{topic}/events");
        let most = [levels(16, 31), levels(3, 128)];
        for topic in
            most.iter().map(String::as_str).chain([format!("{}a", levels(16, 31)).as_str()])
        {
            let expected = Operation::AppendRaw { topic: parsed(topic) };
            assert_eq!(routed(Method::Post, &path(topic)), expected);
        }
        for topic in [levels(17, 1), levels(1, 129), format!("{}aa", levels(16, 31))] {
            assert_eq!(refused(Method::Post, &path(&topic)), (400, "invalid-topic"), "{topic}");
        }
    }

    /// API §4: "405 carries `Allow`".
    #[test]
    fn other_methods_are_405_and_told_what_is_allowed() {
        for (method, path, allow) in [
            (Method::Post, "/", "GET, HEAD, OPTIONS"),
            (Method::Post, "/api/v1/events/stream", "GET, HEAD, OPTIONS"),
            (Method::Delete, "/ws", "GET, HEAD, OPTIONS"),
            (Method::Get, "/api/v1/events", "POST, OPTIONS"),
            (Method::Head, "/api/v1/events", "POST, OPTIONS"),
            (Method::Put, "/api/v1/events", "POST, OPTIONS"),
            (Method::Post, "/api/v1/topics", "GET, HEAD, OPTIONS"),
            (Method::Post, "/api/v1/topics/a", "GET, HEAD, PUT, DELETE, OPTIONS"),
            (Method::Post, "/api/v1/topics/events", "GET, HEAD, PUT, DELETE, OPTIONS"),
            (Method::Patch, "/api/v1/topics/a", "GET, HEAD, PUT, DELETE, OPTIONS"),
            (Method::Patch, "/api/v1/topics/a/events", "GET, HEAD, POST, PUT, DELETE, OPTIONS"),
        ] {
            let problem = route(method, path).expect_err(path);
            assert_eq!(
                (problem.status(), problem.allow()),
                (405, Some(allow)),
                "{method:?} {path}"
            );
            assert_eq!(routed(Method::Options, path), Operation::Options { allow });
        }
    }

    /// API §8: "A path that ends in `/events` or `/trim` under `POST` is the operation". It ends so
    /// as it stands: an encoded slash belongs to the topic.
    #[test]
    fn an_operation_is_not_hidden_in_a_topic() {
        assert_eq!(refused(Method::Post, "/api/v1/topics/a%2Fevents"), (405, "method-not-allowed"));
        assert_eq!(
            routed(Method::Post, "/api/v1/topics/a%2Fevents/events"),
            Operation::AppendRaw { topic: parsed("a/events") }
        );
    }

    /// API §8.
    #[test]
    fn what_changes_a_log() {
        let pattern = |text: &str| TopicPattern::parse(text).expect(text);
        for (path, text, is_operation) in [
            ("a/b", "a/b", false),
            ("a/*", "a/*", false),
            ("%2A%2A", "**", false),
            ("a/events", "a/events", true),
            ("a/trim", "a/trim", true),
            ("*/trim", "*/trim", true),
            ("a%2Fevents", "a/events", false),
            ("events", "events", false),
        ] {
            let (path, pattern) = (format!("/api/v1/topics/{path}"), pattern(text));
            let set = Change::SetTopics { pattern: pattern.clone(), is_operation };
            assert_eq!(routed(Method::Put, &path), Operation::Change(set), "{path}");
            let delete = Change::Delete { pattern, is_operation };
            assert_eq!(routed(Method::Delete, &path), Operation::Change(delete), "{path}");
        }
        assert_eq!(
            routed(Method::Get, "/api/v1/topics/a/*"),
            Operation::Pattern { pattern: pattern("a/*") }
        );
        let trim = Change::Trim { topic: parsed("a/b") };
        assert_eq!(routed(Method::Post, "/api/v1/topics/a/b/trim"), Operation::Change(trim));
        let log = LogName::default();
        let main = "/api/v1/logs/main";
        assert_eq!(routed(Method::Get, main), Operation::Log { log: log.clone() });
        assert_eq!(routed(Method::Put, main), Operation::Change(Change::SetLog { log }));
        assert_eq!(routed(Method::Get, "/api/v1/logs"), Operation::Logs);
        assert_eq!(refused(Method::Get, "/api/v1/logs/"), (400, "invalid-name"));
        assert_eq!(refused(Method::Delete, main), (405, "method-not-allowed"));
    }

    /// API: "a part that is not there yet answers `501` with a problem, never something half".
    #[test]
    fn what_comes_later_is_501() {
        for (method, path) in [
            (Method::Get, "/openapi.json"),
            (Method::Get, "/asyncapi.json"),
            (Method::Get, "/llms.txt"),
        ] {
            assert_eq!(refused(method, path), (501, "not-yet"), "{method:?} {path}");
        }
        assert_eq!(refused(Method::Unknown, "/"), (501, "unknown-method"));
    }

    #[test]
    fn other_paths_are_404() {
        for path in [
            "",
            "/x",
            "/api",
            "/api/v1",
            "/api/v1/",
            "/api/v1/event",
            "/api/v1/events/",
            "/api/v2/events",
            "//",
            "/problems/",
            "/problems/none",
            "/assets/",
            "/assets/../livez",
            "/livez/",
            "/API/v1/events",
            "/api/v1/topicsx",
        ] {
            for method in [Method::Get, Method::Post, Method::Options] {
                assert_eq!(refused(method, path), (404, "not-found"), "{path}");
            }
        }
    }

    #[test]
    fn options_of_the_server() {
        let allow = "GET, HEAD, POST, PUT, DELETE, OPTIONS";
        assert_eq!(routed(Method::Options, "*"), Operation::Options { allow });
    }
}
