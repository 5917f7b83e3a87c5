//! Topics and patterns as they stand in a path: percent-encoded, and decoded once.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use strandline_storage::topic::{Topic, TopicPattern};

use crate::problem::{Problem, ProblemKind};

/// Decodes a topic or pattern as it stands in a path.
pub(super) fn pattern(path: &str) -> Result<TopicPattern, Problem> {
    let decoded = decode(path).filter(|decoded| decoded.contains('*'));
    let Some(decoded) = decoded else { return Ok(TopicPattern::of_topic(&topic(path)?)) };
    TopicPattern::parse(&decoded).map_err(|error| {
        let detail = format!("the pattern in the path: {error}");
        Problem::new(ProblemKind::InvalidPattern, detail)
    })
}

/// Decodes a topic as it stands in a path. All of it is decoded at once: `%2F` separates levels just
/// as `/` does, and nothing that the first decoding brings forth is decoded again.
pub(crate) fn topic(path: &str) -> Result<Topic, Problem> {
    let invalid = |detail: String| Problem::new(ProblemKind::InvalidTopic, detail);
    let decoded = decode(path)
        .ok_or_else(|| invalid("the topic in the path is not percent-encoded UTF-8".into()))?;
    Topic::parse(&decoded).map_err(|error| invalid(format!("the topic in the path: {error}")))
}

/// Decodes percent-encoded UTF-8; None when a `%` is not followed by two hexadecimal digits, or when
/// the result is not UTF-8.
fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
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
