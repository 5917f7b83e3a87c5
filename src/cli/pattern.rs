//! Topics and patterns of them as arguments.

use strandline_storage::topic::{Topic, TopicPattern};

/// Parses a topic; the error says what is wrong with it.
pub fn topic(text: &str) -> Result<Topic, String> {
    Topic::parse(text).map_err(|error| error.to_string())
}

/// Parses a topic or a pattern; the error says what is wrong with it.
pub fn pattern(text: &str) -> Result<TopicPattern, String> {
    TopicPattern::parse(text).map_err(|error| format!("the pattern {error}"))
}
