//! Any text is a topic, a pattern or an error, and patterns match as the shortest definition says.
//!
//! The input is a pattern and a topic, with a line feed between them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use strandline_storage::topic::{Topic, TopicPattern};

fuzz_target!(|data: &str| {
    let (pattern, topic) = data.split_once('\n').unwrap_or((data, data));
    let topic = Topic::parse_reserved(topic);
    let pattern = TopicPattern::parse(pattern);
    if let Ok(pattern) = &pattern {
        assert_eq!(TopicPattern::parse(pattern.as_str()).as_ref(), Ok(pattern));
        if let Some(exact) = pattern.exact() {
            assert!(pattern.matches(exact) && Topic::parse(exact).is_ok());
        }
    }
    if let (Ok(pattern), Ok(topic)) = (pattern, topic) {
        let levels: Vec<&str> = topic.split('/').collect();
        let wanted: Vec<&str> = pattern.as_str().split('/').collect();
        let matches = pattern.matches(&topic);
        assert_eq!(matches, defined(&wanted, &levels), "{pattern} {topic}");
        assert!(!matches || topic.starts_with(pattern.literal_prefix()), "{pattern} {topic}");
    }
});

fn defined(pattern: &[&str], topic: &[&str]) -> bool {
    match (pattern, topic) {
        (["**"], rest) => rest.iter().all(|level| !level.starts_with('$')),
        (["*", pattern @ ..], [level, topic @ ..]) => {
            !level.starts_with('$') && defined(pattern, topic)
        }
        ([wanted, pattern @ ..], [level, topic @ ..]) => wanted == level && defined(pattern, topic),
        ([], []) => true,
        _ => false,
    }
}
