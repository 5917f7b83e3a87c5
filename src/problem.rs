//! Errors of storage and protocol as answers: one table (`problem/table.rs`), and [`Problem`], a row
//! of it with what is particular to this time.
//!
//! ```text
//! {"type":"/problems/event-too-large","title":"The event is too large","status":413,
//!  "detail":"event of 1048577 bytes exceeds the limit of 1048576 bytes", ..further members}
//! ```
//! as `application/problem+json` (RFC 9457), and `"status":413,"problem":"event-too-large",
//! "message":"event of .."` inside a WebSocket `error` message.

mod storage_errors;
mod table;

use std::borrow::Cow;

use serde_json::Value;

pub use table::{CLOSE_CODES, CloseCode, CloseEntry, PROBLEMS, ProblemEntry, ProblemKind, find};

/// A problem that this request or message has.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    kind: ProblemKind,
    detail: Cow<'static, str>,
    members: Vec<(&'static str, Value)>,
    fields: Vec<(&'static str, String)>,
    retry_after_s: Option<u32>,
    allow: Option<&'static str>,
    closes: bool,
}

/// How long a client should wait when nothing better is known: long enough for a queue of frames to
/// reach the disk, short enough that nobody gives up.
pub const RETRY_AFTER_S: u32 = 1;

/// How long to wait for a server that is stopping to be back.
pub const RESTART_RETRY_AFTER_S: u32 = 5;

impl Problem {
    /// A problem of this kind. `detail` is for people: it names the value and the limit.
    pub fn new(kind: ProblemKind, detail: impl Into<Cow<'static, str>>) -> Self {
        let retry_after_s = matches!(kind.entry().status, 429 | 503).then_some(RETRY_AFTER_S);
        Self {
            kind,
            detail: detail.into(),
            members: Vec::new(),
            fields: Vec::new(),
            retry_after_s,
            allow: None,
            closes: false,
        }
    }

    /// Adds a member to the answer, such as `line` or `expected_offset`.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.members.push((name, value.into()));
        self
    }

    /// Adds a header field to the answer. `value` is ours, and holds no control character.
    #[must_use]
    pub fn with_field(mut self, name: &'static str, value: impl ToString) -> Self {
        self.fields.push((name, value.to_string()));
        self
    }

    /// States the seconds after which to try again, in place of [`RETRY_AFTER_S`].
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// States the methods that the path takes, as the `Allow` field has them.
    #[must_use]
    pub fn allowing(mut self, methods: &'static str) -> Self {
        self.allow = Some(methods);
        self
    }

    /// Says that the connection cannot be used after this answer, since it is not certain, or not
    /// worth knowing, where the next request begins.
    #[must_use]
    pub fn closing(mut self) -> Self {
        self.closes = true;
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ProblemKind {
        self.kind
    }

    /// HTTP status; the `status` of a WebSocket `error` message.
    pub fn status(&self) -> u16 {
        self.kind.entry().status
    }

    /// The last part of `type`; the `problem` of a WebSocket `error` message.
    pub fn slug(&self) -> &'static str {
        self.kind.entry().slug
    }

    /// What is particular to this time; the `message` of a WebSocket `error` message.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// Further members, in the order in which they were added.
    pub fn members(&self) -> &[(&'static str, Value)] {
        &self.members
    }

    /// Further header fields, in the order in which they were added. A WebSocket has no place for them.
    pub fn fields(&self) -> &[(&'static str, String)] {
        &self.fields
    }

    /// The value of the `Retry-After` field, in seconds.
    pub fn retry_after_s(&self) -> Option<u32> {
        self.retry_after_s
    }

    /// The value of the `Allow` field.
    pub fn allow(&self) -> Option<&'static str> {
        self.allow
    }

    /// Whether the connection ends with this answer.
    pub fn closes(&self) -> bool {
        self.closes
    }

    /// Appends the problem as `application/problem+json`.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        let entry = self.kind.entry();
        out.extend_from_slice(b"{\"type\":\"/problems/");
        out.extend_from_slice(entry.slug.as_bytes());
        out.extend_from_slice(b"\",\"title\":");
        write_string(entry.title, out);
        out.extend_from_slice(b",\"status\":");
        out.extend_from_slice(entry.status.to_string().as_bytes());
        out.extend_from_slice(b",\"detail\":");
        write_string(&self.detail, out);
        self.write_members(out);
        out.push(b'}');
    }

    /// Appends the members that a WebSocket `error` message has for this problem, without braces:
    /// `"status":413,"problem":"event-too-large","message":".."` and the further members.
    pub fn write_websocket_members(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\"status\":");
        out.extend_from_slice(self.status().to_string().as_bytes());
        out.extend_from_slice(b",\"problem\":\"");
        out.extend_from_slice(self.slug().as_bytes());
        out.extend_from_slice(b"\",\"message\":");
        write_string(&self.detail, out);
        self.write_members(out);
    }

    fn write_members(&self, out: &mut Vec<u8>) {
        for (name, value) in &self.members {
            out.extend_from_slice(b",\"");
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b"\":");
            serde_json::to_writer(&mut *out, value).expect("a vector takes every byte");
        }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} {}: {}", self.status(), self.slug(), self.detail)
    }
}

impl std::error::Error for Problem {}

fn write_string(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("a vector takes every byte");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// API §9: `{"type":"/problems/event-too-large","title":..,"status":413,"detail":"event of
    /// 1048577 bytes exceeds the limit of 1048576 bytes",..}`.
    #[test]
    fn a_problem_is_a_json_object_of_rfc_9457() {
        let detail = "event of 1048577 bytes exceeds the limit of 1048576 bytes";
        let problem = Problem::new(ProblemKind::EventTooLarge, detail).with("line", 3);
        let mut out = Vec::new();
        problem.write_json(&mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"type\":\"/problems/event-too-large\",\"title\":\"The event is too large\",\
             \"status\":413,\"detail\":\"event of 1048577 bytes exceeds the limit of 1048576 bytes\",\
             \"line\":3}"
        );
    }

    #[test]
    fn text_of_others_inside_a_detail_stays_inside_its_string() {
        let problem = Problem::new(ProblemKind::UnknownParameter, "unknown parameter \"a\\\u{1}\"");
        let mut out = Vec::new();
        problem.write_json(&mut out);
        let parsed: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(parsed["detail"], "unknown parameter \"a\\\u{1}\"");
    }

    /// API §5: `{"type":"error","id":8,"status":413,"problem":"event-too-large","message":"..."}`.
    #[test]
    fn a_websocket_error_carries_status_problem_and_message() {
        let mut out = b"{\"type\":\"error\",\"id\":8,".to_vec();
        Problem::new(ProblemKind::EventTooLarge, "too large").write_websocket_members(&mut out);
        out.push(b'}');
        let parsed: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(
            parsed,
            serde_json::json!({"type":"error","id":8,"status":413,"problem":"event-too-large","message":"too large"})
        );
    }

    /// API §9: "429 and 503 with `Retry-After`".
    #[test]
    fn problems_that_pass_say_when_to_try_again() {
        for entry in PROBLEMS {
            let problem = Problem::new(entry.kind, "");
            assert_eq!(
                problem.retry_after_s().is_some(),
                entry.status == 429 || entry.status == 503,
                "{}",
                entry.slug
            );
        }
    }
}
