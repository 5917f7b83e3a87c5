//! What long walks through the trie have found, until a pattern comes or goes.

use std::collections::HashMap;

/// What long walks found is kept up to so many values and topics, then it begins anew: some 0.5 MiB.
const KEPT_VALUES_MAX: usize = 64 << 10;
const KEPT_TOPICS_MAX: usize = 256;

/// Topics whose walks were long, and what they found: each value once, in order.
///
/// Invariant: nothing was inserted or removed since.
#[derive(Debug)]
pub(super) struct LongWalks<V> {
    found: HashMap<Box<str>, Box<[V]>>,
    /// How many in all.
    values: usize,
}

impl<V: Copy> LongWalks<V> {
    /// None yet.
    pub(super) fn new() -> Self {
        LongWalks { found: HashMap::new(), values: 0 }
    }

    /// What the walk of a topic found, if that is kept.
    pub(super) fn of(&self, topic: &str) -> Option<&[V]> {
        if self.found.is_empty() {
            return None;
        }
        self.found.get(topic).map(|found| &**found)
    }

    /// Keeps what a walk found, if that is little enough.
    pub(super) fn keep(&mut self, topic: &str, found: &[V]) {
        if found.len() > KEPT_VALUES_MAX {
            return;
        }
        if self.values + found.len() > KEPT_VALUES_MAX || self.found.len() >= KEPT_TOPICS_MAX {
            self.forget();
        }
        self.values += found.len();
        self.found.insert(topic.into(), found.into());
    }

    /// Something was inserted or removed.
    pub(super) fn forget(&mut self) {
        if !self.found.is_empty() {
            (self.found, self.values) = (HashMap::new(), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_long_walks_is_bounded() {
        let mut walks = LongWalks::new();
        walks.keep("too many", &vec![1; KEPT_VALUES_MAX + 1]);
        assert!(walks.found.is_empty());
        for number in 0..2_000 {
            walks.keep(&number.to_string(), &[number; 100]);
            assert!(walks.values <= KEPT_VALUES_MAX && walks.found.len() <= KEPT_TOPICS_MAX);
            assert_eq!(walks.values, walks.found.len() * 100);
        }
    }
}
