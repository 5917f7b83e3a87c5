//! Patterns of topics as arguments.

use strandline_storage::topic::TopicPattern;

/// Parses a topic or a pattern; the error says what is wrong with it.
pub fn pattern(text: &str) -> Result<TopicPattern, String> {
    TopicPattern::parse(text).map_err(|error| format!("the pattern {error}"))
}
