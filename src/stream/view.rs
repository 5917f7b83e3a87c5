//! What many subscribers share: which events they want, how these are rendered, and the recent ones
//! already encoded.

use std::rc::Rc;
use std::task::Waker;

use strandline_storage::event::{EventKind, EventType, EventView};
use strandline_storage::offset::Offset;
use strandline_storage::selection::Selection;
use strandline_storage::topic::TopicPattern;

use super::chunk::{Render, Ring};

/// How the bytes of a view's events look; two that differ are two views.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rendering {
    /// Server-Sent Events.
    Sse {
        /// Whether data is the whole event object.
        is_object: bool,
        /// Whether each chunk is an HTTP/1.1 chunk too.
        is_chunked: bool,
    },
    /// WebSocket text frames, which name the subscription.
    WebSocket {
        /// The number of the subscription on its connection.
        subscription: u16,
    },
}

/// Which events of a log a reader wants.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Wanted {
    patterns: Vec<TopicPattern>,
    types: Vec<EventType>,
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
        Wanted { patterns, types }
    }

    /// Sorted; never empty.
    pub fn patterns(&self) -> &[TopicPattern] {
        &self.patterns
    }

    /// Sorted; empty for all.
    pub fn types(&self) -> &[EventType] {
        &self.types
    }

    /// Whether an event of a topic that matches is wanted: readers get data, and of their types.
    pub fn takes(&self, event: &EventView<'_>) -> bool {
        let is_of_type =
            |wanted: &EventType| -> bool { AsRef::<str>::as_ref(wanted) == event.event_type() };
        event.kind() == EventKind::Data
            && (self.types.is_empty() || self.types.iter().any(is_of_type))
    }
}

/// What makes two subscribers of a log share a view.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ViewKey {
    /// Which events.
    pub wanted: Wanted,
    /// How they look.
    pub rendering: Rendering,
}

/// The number of a view on its shard; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ViewId(pub(super) u64);

/// A view with subscribers.
pub(super) struct View {
    pub(super) key: Rc<ViewKey>,
    pub(super) selection: Selection,
    pub(super) render: Rc<dyn Render>,
    pub(super) ring: Ring,
    pub(super) waiters: Waiters,
}

impl View {
    pub(super) fn new(key: Rc<ViewKey>, render: Rc<dyn Render>, start: Offset) -> Self {
        let selection = Selection::new(key.wanted.patterns());
        View { key, selection, render, ring: Ring::new(start), waiters: Waiters::default() }
    }
}

/// The subscribers of a view: each has a place, in which it leaves a waker when it has nothing to do.
#[derive(Default)]
pub(super) struct Waiters {
    places: Vec<Place>,
    free: Vec<usize>,
}

enum Place {
    Free,
    Busy,
    Waiting(Waker),
}

impl Waiters {
    /// Takes a place.
    pub(super) fn enter(&mut self) -> usize {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place::Free);
            self.places.len() - 1
        });
        self.places[place] = Place::Busy;
        place
    }

    /// Gives a place back. The waker in it is returned and not dropped here: it may be the last thing
    /// that keeps a task, whose end comes back to the view.
    pub(super) fn leave(&mut self, place: usize) -> Option<Waker> {
        let left = std::mem::replace(&mut self.places[place], Place::Free);
        self.free.push(place);
        if let Place::Waiting(waker) = left { Some(waker) } else { None }
    }

    /// Leaves `waker` to be woken once; returns the one it replaces.
    pub(super) fn wait(&mut self, place: usize, waker: &Waker) -> Option<Waker> {
        match &self.places[place] {
            Place::Waiting(old) if old.will_wake(waker) => return None,
            Place::Free => unreachable!("only who has entered waits"),
            _ => (),
        }
        let left = std::mem::replace(&mut self.places[place], Place::Waiting(waker.clone()));
        if let Place::Waiting(waker) = left { Some(waker) } else { None }
    }

    /// Takes out every waker.
    pub(super) fn take(&mut self, out: &mut impl Extend<Waker>) {
        out.extend(self.places.iter_mut().filter_map(|place| match place {
            Place::Waiting(_) => match std::mem::replace(place, Place::Busy) {
                Place::Waiting(waker) => Some(waker),
                _ => None,
            },
            _ => None,
        }));
    }

    /// Whether nobody has a place.
    pub(super) fn is_empty(&self) -> bool {
        self.free.len() == self.places.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    }

    #[test]
    fn places_are_used_again_and_wake_once() {
        let mut waiters = Waiters::default();
        assert!(waiters.is_empty());
        let (first, second) = (waiters.enter(), waiters.enter());
        assert!(waiters.wait(first, Waker::noop()).is_none());
        let mut woken = Vec::new();
        waiters.take(&mut woken);
        waiters.take(&mut woken);
        assert_eq!(woken.len(), 1);
        assert!(waiters.leave(first).is_none());
        assert_eq!(waiters.enter(), first);
        waiters.wait(second, Waker::noop());
        assert!(waiters.leave(second).is_some());
        waiters.leave(first);
        assert!(waiters.is_empty());
    }
}
