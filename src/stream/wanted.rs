//! Which events a reader wants.

use strandline_storage::event::{EventKind, EventType, EventView};
use strandline_storage::topic::TopicPattern;

use super::filter::Filter;

/// Which events of a log a reader wants.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Wanted {
    patterns: Vec<TopicPattern>,
    types: Vec<EventType>,
    filter: Option<Filter>,
}

impl Wanted {
    /// Events whose topic matches any of `patterns` (none: all) and whose type is one of `types`
    /// (none: all). Order and repetition make no difference.
    pub fn new(mut patterns: Vec<TopicPattern>, mut types: Vec<EventType>) -> Self {
        patterns.sort_unstable();
        patterns.dedup();
        if patterns.is_empty() || patterns.contains(&TopicPattern::all()) {
            patterns = vec![TopicPattern::all()];
        }
        types.sort_unstable();
        types.dedup();
        Wanted { patterns, types, filter: None }
    }

    /// Of these events only those that `filter` matches.
    #[must_use]
    pub fn filtered(self, filter: Option<Filter>) -> Self {
        Wanted { filter, ..self }
    }

    /// Sorted; never empty.
    pub fn patterns(&self) -> &[TopicPattern] {
        &self.patterns
    }

    /// Sorted; empty for all.
    pub fn types(&self) -> &[EventType] {
        &self.types
    }

    /// Whether any pattern matches a topic.
    pub fn matches(&self, topic: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(topic))
    }

    /// Whether an event of a topic that matches is wanted: readers get data, of their types, that their
    /// filter matches.
    pub fn takes(&self, event: &EventView<'_>) -> bool {
        let is_of_type =
            |wanted: &EventType| -> bool { AsRef::<str>::as_ref(wanted) == event.event_type() };
        event.kind() == EventKind::Data
            && (self.types.is_empty() || self.types.iter().any(is_of_type))
            && self.filter.as_ref().is_none_or(|filter| filter.matches(event))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use strandline_storage::event::NewEvent;

    use super::super::filter;
    use super::*;
    use crate::event_json::sample;

    fn patterns(texts: &[&str]) -> Vec<TopicPattern> {
        texts.iter().map(|text| TopicPattern::parse(text).expect("a pattern")).collect()
    }

    #[test]
    fn order_and_repetition_do_not_make_another_view() {
        let one = Wanted::new(patterns(&["a/*", "b", "a/*"]), vec![]);
        assert_eq!(one, Wanted::new(patterns(&["b", "a/*"]), vec![]));
        assert_ne!(one, Wanted::new(patterns(&["b"]), vec![]));
        let all = Wanted::new(vec![], vec![]);
        assert_eq!(all, Wanted::new(patterns(&["a", "**"]), vec![]));
        let typed = |names: &[&str]| {
            let types = names.iter().map(|name| EventType::parse(name).expect("a type"));
            Wanted::new(vec![], types.collect())
        };
        assert_eq!(typed(&["b", "a", "b"]), typed(&["a", "b"]));
        assert_ne!(typed(&["a"]), typed(&["a", "b"]));
    }

    #[test]
    fn a_filter_makes_another_view_and_its_spelling_does_not() {
        let filter = |text: &str| Filter::new(vec![filter::parse_text(text).unwrap()]).unwrap();
        let filtered = |text: &str| Wanted::new(vec![], vec![]).filtered(filter(text));
        assert_eq!(
            filtered("data.a == 1 and exists key"),
            filtered("exists key and data.a == 1.0")
        );
        assert_ne!(filtered("data.a == 1"), filtered("data.a == 2"));
        assert_ne!(filtered("data.a == 1"), Wanted::new(vec![], vec![]));
    }

    #[test]
    fn what_is_taken_is_of_a_type_and_matches_the_filter() {
        let event = |event_type: &str, data: &'static [u8]| NewEvent {
            event_type: EventType::parse(event_type).unwrap(),
            ..sample::json("a", Bytes::from_static(data))
        };
        let events = vec![event("t", b"1"), event("t", b"2"), event("u", b"2")];
        let frame = sample::frame(0, 0, events);
        let filter = Filter::new(vec![filter::parse_text("data == 2").unwrap()]).unwrap();
        let types = vec![EventType::parse("t").unwrap()];
        let wanted = Wanted::new(vec![], types).filtered(filter);
        let taken: Vec<bool> = frame.events().map(|event| wanted.takes(&event)).collect();
        assert_eq!(taken, [false, true, false]);
    }
}
