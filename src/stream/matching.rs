//! Which values are kept for a topic: from the name of a topic to the views that may want its events.
//!
//! ```text
//! rooms/42/messages --> exact topics: one hash table of whole names
//!                   \-> patterns:     a trie, one level a step
//!                         root --rooms--> . --*---------> . --messages--> [rooms/*/messages]
//!                          |               '--**: [rooms/**]
//!                          '--**: [**]
//! ```
//! So a topic costs one look-up, whatever the number of exact topics, and nothing for patterns that
//! part from it at an earlier level. Names come from strangers: all hashes are keyed at random
//! ([`RandomState`]), so that nobody can choose names that collide. A level's hash is computed at most
//! once a topic, and serves every node of the trie at that depth.
//!
//! **What a hostile set of patterns can cost.** At each node a topic goes on to at most two others: the
//! one with the name of its level, and `*`. So at depth `d` it visits at most `2^d` nodes, and no more
//! than there are patterns with so many levels: [`TopicMatcher::visits_max`], in all at most
//! 2^17 - 1 and at most 16 times the number of patterns, plus one. The worst set has every mix of `*`
//! and the very names of one topic; each visit is a look-up in a small table (`benches/matching.rs`).
//! What a long walk found is kept until a pattern comes or goes, so that whoever makes such a set pays for
//! each change of it, and not the shard for each event.

mod long_walks;
mod values;

use std::{
    hash::{BuildHasher, RandomState},
    mem,
    str::Split,
};

use hashbrown::HashTable;
use strandline_storage::topic::{LEVELS_MAX, TopicPattern};

use long_walks::LongWalks;
use values::Values;

/// A walk that visits more nodes than this is a long one: some 10 us.
const SHORT_WALK_NODES: usize = 256;

/// From topics to the values that were inserted under patterns that match them.
///
/// A value is whatever names a reader, such as the number of a view. It may stand under several
/// patterns, and under the same one several times: each [`TopicMatcher::remove`] takes out one.
#[derive(Debug)]
pub struct TopicMatcher<V> {
    hasher: RandomState,
    exact: HashTable<Exact<V>>,
    root: Node<V>,
    /// How many nodes of the trie have so many levels above them, the root not counted.
    nodes: [usize; LEVELS_MAX],
    values: usize,
    long_walks: LongWalks<V>,
}

#[derive(Debug)]
struct Exact<V> {
    topic: Box<str>,
    values: Values<V>,
}

/// What is known of the topics that begin with the same levels.
#[derive(Debug)]
struct Node<V> {
    /// By the name of the next level.
    named: HashTable<Box<(Box<str>, Node<V>)>>,
    /// Whatever the next level is.
    any: Option<Box<Node<V>>>,
    /// For the topics that end here.
    here: Values<V>,
    /// For the topics that end here or below (`**`).
    below: Values<V>,
}

impl<V: Copy + Ord> TopicMatcher<V> {
    /// A matcher that matches nothing.
    pub fn new() -> Self {
        TopicMatcher {
            hasher: RandomState::new(),
            exact: HashTable::new(),
            root: Node::new(),
            nodes: [0; LEVELS_MAX],
            values: 0,
            long_walks: LongWalks::new(),
        }
    }

    /// Keeps `value` for the topics that `pattern` matches.
    pub fn insert(&mut self, pattern: &TopicPattern, value: V) {
        self.values += 1;
        self.long_walks.forget();
        let Some(topic) = pattern.exact() else {
            return self.insert_levels(pattern.as_str(), value);
        };
        let hash = self.hasher.hash_one(topic);
        let entry = self.exact.entry(
            hash,
            |exact| *exact.topic == *topic,
            |exact| self.hasher.hash_one(&*exact.topic),
        );
        let entry = entry.or_insert_with(|| Exact { topic: topic.into(), values: Values::None });
        entry.into_mut().values.push(value);
    }

    fn insert_levels(&mut self, pattern: &str, value: V) {
        let mut node = &mut self.root;
        for (depth, level) in pattern.split('/').enumerate() {
            if level == "**" {
                return node.below.push(value);
            }
            let nodes = &mut self.nodes[depth];
            node = if level == "*" {
                node.any.get_or_insert_with(|| {
                    *nodes += 1;
                    Box::new(Node::new())
                })
            } else {
                let entry = node.named.entry(
                    self.hasher.hash_one(level),
                    |child| *child.0 == *level,
                    |child| self.hasher.hash_one(&*child.0),
                );
                let entry = entry.or_insert_with(|| {
                    *nodes += 1;
                    Box::new((level.into(), Node::new()))
                });
                &mut entry.into_mut().1
            };
        }
        node.here.push(value);
    }

    /// Takes `value` out from under `pattern`, and gives back the memory that was for it alone. Returns
    /// whether it was there. The time hardly grows with the number of values under the very same pattern.
    pub fn remove(&mut self, pattern: &TopicPattern, value: V) -> bool {
        let was_there = match pattern.exact() {
            Some(topic) => self.remove_exact(topic, value),
            None => {
                let mut levels = pattern.as_str().split('/');
                self.root.remove(&mut levels, value, &self.hasher, &mut self.nodes)
            }
        };
        self.values -= usize::from(was_there);
        self.long_walks.forget();
        was_there
    }

    fn remove_exact(&mut self, topic: &str, value: V) -> bool {
        let hash = self.hasher.hash_one(topic);
        let Ok(mut entry) = self.exact.find_entry(hash, |exact| *exact.topic == *topic) else {
            return false;
        };
        let was_there = entry.get_mut().values.remove(value);
        if entry.get().values.is_empty() {
            entry.remove();
            shrink(&mut self.exact, |exact| self.hasher.hash_one(&*exact.topic));
        }
        was_there
    }

    /// Puts into `out`, in place of what is in it, the values whose pattern matches `topic`, in no
    /// order: one that stands under several matching patterns comes as often. Topics with a level that
    /// begins with `$` are matched by exact patterns alone.
    pub fn matches(&self, topic: &str, out: &mut Vec<V>) {
        out.clear();
        self.matches_counted(topic, out);
    }

    /// Like [`TopicMatcher::matches`], but each value comes once, and they are sorted.
    pub fn matches_distinct(&mut self, topic: &str, out: &mut Vec<V>) {
        out.clear();
        if let Some(found) = self.long_walks.of(topic) {
            return out.extend_from_slice(found);
        }
        let visited = self.matches_counted(topic, out);
        // Most topics have one reader or none.
        if out.len() > 1 {
            out.sort_unstable();
            out.dedup();
        }
        if visited > SHORT_WALK_NODES {
            self.long_walks.keep(topic, out);
        }
    }

    /// Returns how many nodes of the trie it visited.
    fn matches_counted(&self, topic: &str, out: &mut Vec<V>) -> usize {
        if !self.exact.is_empty() {
            let hash = self.hasher.hash_one(topic);
            if let Some(exact) = self.exact.find(hash, |exact| *exact.topic == *topic) {
                exact.values.copy_into(out);
            }
        }
        // Here no name of a level in the trie begins with `$`: patterns with wildcards have none.
        if self.root.is_empty() || topic.starts_with('$') || topic.contains("/$") {
            return 0;
        }
        let mut walk = Walk::new(topic, &self.hasher, out);
        walk.visit(&self.root, 0);
        walk.visited
    }

    /// At most so many nodes of the trie are visited for a topic, whatever it is.
    pub fn visits_max(&self) -> usize {
        let depths = (1..).zip(self.nodes);
        1 + depths.map(|(depth, nodes)| nodes.min(1 << depth)).sum::<usize>()
    }

    /// How many values it keeps, under however many patterns.
    pub fn len(&self) -> usize {
        self.values
    }

    /// Whether it matches nothing.
    pub fn is_empty(&self) -> bool {
        self.values == 0
    }
}

impl<V: Copy + Ord> Default for TopicMatcher<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V: Copy + Ord> Node<V> {
    fn new() -> Self {
        Node { named: HashTable::new(), any: None, here: Values::None, below: Values::None }
    }

    fn is_empty(&self) -> bool {
        self.named.is_empty() && self.any.is_none() && self.here.is_empty() && self.below.is_empty()
    }

    /// Takes out `value` at the end of `levels`, and on the way back every node that is empty then.
    /// `nodes` counts those below this one, by their depth below it.
    fn remove(
        &mut self,
        levels: &mut Split<'_, char>,
        value: V,
        hasher: &RandomState,
        nodes: &mut [usize],
    ) -> bool {
        match levels.next() {
            None => self.here.remove(value),
            Some("**") => self.below.remove(value),
            Some("*") => {
                let Some(child) = &mut self.any else { return false };
                let was_there = child.remove(levels, value, hasher, &mut nodes[1..]);
                if child.is_empty() {
                    self.any = None;
                    nodes[0] -= 1;
                }
                was_there
            }
            Some(level) => {
                let hash = hasher.hash_one(level);
                let found = self.named.find_entry(hash, |child| *child.0 == *level);
                let Ok(mut entry) = found else { return false };
                let child = &mut entry.get_mut().1;
                let was_there = child.remove(levels, value, hasher, &mut nodes[1..]);
                if child.is_empty() {
                    entry.remove();
                    nodes[0] -= 1;
                    shrink(&mut self.named, |child| hasher.hash_one(&*child.0));
                }
                was_there
            }
        }
    }
}

/// The levels of a topic on their way through the trie.
struct Walk<'a, V> {
    /// The first levels: a trie has no more.
    levels: [&'a str; LEVELS_MAX],
    /// How many the topic has.
    count: usize,
    /// Of the first `hashed` levels.
    hashes: [u64; LEVELS_MAX],
    hashed: usize,
    hasher: &'a RandomState,
    visited: usize,
    out: &'a mut Vec<V>,
}

impl<'a, V: Copy + Ord> Walk<'a, V> {
    fn new(topic: &'a str, hasher: &'a RandomState, out: &'a mut Vec<V>) -> Self {
        let mut levels = [""; LEVELS_MAX];
        let mut count = 0;
        for level in topic.split('/') {
            if let Some(place) = levels.get_mut(count) {
                *place = level;
            }
            count += 1;
        }
        Walk { levels, count, hashes: [0; LEVELS_MAX], hashed: 0, hasher, visited: 0, out }
    }

    /// Takes what stands at and below `node`, the first `depth` levels being behind.
    fn visit(&mut self, node: &Node<V>, depth: usize) {
        self.visited += 1;
        node.below.copy_into(self.out);
        if depth == self.count {
            return node.here.copy_into(self.out);
        }
        if !node.named.is_empty() {
            let (hash, level) = (self.hash(depth), self.levels[depth]);
            if let Some(child) = node.named.find(hash, |child| *child.0 == *level) {
                self.visit(&child.1, depth + 1);
            }
        }
        if let Some(child) = &node.any {
            self.visit(child, depth + 1);
        }
    }

    fn hash(&mut self, depth: usize) -> u64 {
        while self.hashed <= depth {
            self.hashes[self.hashed] = self.hasher.hash_one(self.levels[self.hashed]);
            self.hashed += 1;
        }
        self.hashes[depth]
    }
}

/// Gives memory back once most of it is free; what is left stays for growth.
fn shrink<T>(table: &mut HashTable<T>, hash: impl Fn(&T) -> u64) {
    if table.is_empty() {
        drop(mem::take(table));
    } else if table.len() <= table.capacity() / 4 {
        table.shrink_to(table.len() * 2, hash);
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn pattern(text: &str) -> TopicPattern {
        TopicPattern::parse(text).expect(text)
    }

    fn matcher(patterns: &[&str]) -> TopicMatcher<usize> {
        let mut matcher = TopicMatcher::new();
        for (value, text) in patterns.iter().enumerate() {
            matcher.insert(&pattern(text), value);
        }
        matcher
    }

    /// Every mix of the levels of a topic and `*`, for so many levels; without the topic itself.
    fn mixes(levels: usize) -> Vec<String> {
        let mix = |bits: usize| {
            let level = |at: usize| {
                if bits & (1 << at) == 0 { "*".into() } else { format!("l{at}") }
            };
            (0..levels).map(level).collect::<Vec<String>>().join("/")
        };
        (0..(1 << levels) - 1).map(mix).collect()
    }

    #[test]
    fn every_kind_of_pattern_is_found() {
        let mut matcher =
            matcher(&["a/b", "a/*", "a/**", "**", "*/b", "a/b/**", "a/*/c", "*", "x/y"]);
        let mut found = |topic| {
            let mut out = vec![77];
            matcher.matches_distinct(topic, &mut out);
            out
        };
        assert_eq!(found("a/b"), [0, 1, 2, 3, 4, 5]);
        assert_eq!(found("a"), [2, 3, 7]);
        assert_eq!(found("a/b/c"), [2, 3, 5, 6]);
        assert_eq!(found("a/$b"), [0; 0]);
        assert_eq!(found("z/b"), [3, 4]);
        assert_eq!(found(&["a"; 40].join("/")), [2, 3]);
    }

    #[test]
    fn a_value_comes_once_for_each_pattern_or_once_in_all() {
        let mut matcher = matcher(&[]);
        for text in ["a/b", "a/*", "**", "**"] {
            matcher.insert(&pattern(text), 5);
        }
        let mut out = Vec::new();
        matcher.matches("a/b", &mut out);
        assert_eq!((out.len(), matcher.len()), (4, 4));
        matcher.matches_distinct("a/b", &mut out);
        assert_eq!(out, [5]);
        assert!(matcher.remove(&pattern("**"), 5));
        matcher.matches("a/b", &mut out);
        assert_eq!(out.len(), 3);
    }

    #[test]
    fn what_is_not_there_is_not_removed() {
        let mut matcher = matcher(&["a/b", "a/*", "a/*/c/**"]);
        for (text, value) in [("a/b", 1), ("a", 0), ("a/*", 0), ("*", 1), ("a/*/c", 2), ("**", 2)] {
            assert!(!matcher.remove(&pattern(text), value), "{text}");
        }
        assert_eq!(matcher.len(), 3);
    }

    #[test]
    fn memory_is_given_back() {
        let texts: Vec<String> = (0..10_000)
            .flat_map(|number| {
                [format!("t{number}/a"), format!("t{number}/*/b"), "common/**".to_owned()]
            })
            .collect();
        let mut matcher = matcher(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(matcher.exact.capacity() >= 10_000 && matcher.root.named.capacity() >= 10_000);
        for (value, text) in texts.iter().enumerate().skip(30) {
            assert!(matcher.remove(&pattern(text), value));
        }
        assert!(matcher.exact.capacity() <= 64 && matcher.root.named.capacity() <= 64);
        let hash = matcher.hasher.hash_one("common");
        let common = matcher.root.named.find(hash, |child| &*child.0 == "common").expect("kept");
        assert!(matches!(&common.1.below, Values::Many(values) if values.capacity() <= 64));
        for (value, text) in texts.iter().enumerate().take(30) {
            assert!(matcher.remove(&pattern(text), value));
        }
        assert!(matcher.is_empty() && matcher.root.is_empty());
        assert_eq!((matcher.exact.capacity(), matcher.root.named.capacity()), (0, 0));
        assert_eq!((matcher.nodes, matcher.visits_max()), ([0; LEVELS_MAX], 1));
    }

    #[test]
    fn the_worst_patterns_cost_no_more_than_is_said() {
        let texts = mixes(10);
        let matcher = matcher(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        let topic = (0..10).map(|at| format!("l{at}")).collect::<Vec<_>>().join("/");
        let mut out = Vec::new();
        let visited = matcher.matches_counted(&topic, &mut out);
        assert_eq!(out.len(), texts.len());
        assert_eq!(matcher.visits_max(), (1 << 11) - 2, "a full tree without the topic itself");
        assert_eq!(visited, matcher.visits_max());
        // Another topic with as many levels shares no name with them.
        assert_eq!(matcher.matches_counted(&["x"; 10].join("/"), &mut out), 11);
    }

    #[test]
    fn what_a_long_walk_found_is_kept_until_anything_changes() {
        let texts = mixes(10);
        let mut matcher = matcher(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        let topic = (0..10).map(|at| format!("l{at}")).collect::<Vec<_>>().join("/");
        let (mut first, mut again) = (Vec::new(), Vec::new());
        matcher.matches_distinct(&topic, &mut first);
        matcher.matches_distinct("l0", &mut again);
        assert_eq!(matcher.long_walks.of(&topic), Some(&first[..]));
        assert_eq!(matcher.long_walks.of("l0"), None, "that one was short");
        matcher.matches_distinct(&topic, &mut again);
        assert_eq!(again, first);
        matcher.insert(&pattern(&topic), 7_000);
        matcher.matches_distinct(&topic, &mut again);
        assert_eq!((again.len(), again.last()), (first.len() + 1, Some(&7_000)));
        assert!(matcher.remove(&pattern(&texts[0]), 0));
        matcher.matches_distinct(&topic, &mut again);
        assert_eq!((again.len(), again[0]), (first.len(), 1));
    }

    fn levels() -> impl Strategy<Value = Vec<&'static str>> {
        let level = prop_oneof![3 => Just("a"), 2 => Just("b"), 1 => Just("ab"), 3 => Just("*")];
        vec(level, 1..5)
    }

    fn any_pattern() -> impl Strategy<Value = TopicPattern> {
        (levels(), prop::bool::weighted(0.3)).prop_map(|(mut levels, is_open)| {
            if is_open {
                *levels.last_mut().expect("a level") = "**";
            }
            pattern(&levels.join("/"))
        })
    }

    fn any_topic() -> impl Strategy<Value = String> {
        let level = prop_oneof![5 => Just("a"), 4 => Just("b"), 2 => Just("ab"), 1 => Just("$a")];
        vec(level, 1..6).prop_map(|levels| levels.join("/"))
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(TopicPattern, u8),
        Remove(usize),
        RemoveAnything(TopicPattern, u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (any_pattern(), 0..4_u8).prop_map(|(pattern, value)| Step::Insert(pattern, value)),
            3 => any::<usize>().prop_map(Step::Remove),
            1 => (any_pattern(), 0..4_u8)
                .prop_map(|(pattern, value)| Step::RemoveAnything(pattern, value)),
        ]
    }

    proptest! {
        /// The same as asking each pattern, whatever was put in and taken out before.
        #[test]
        fn it_is_a_list_of_patterns_that_is_faster(
            steps in vec(step(), 0..100),
            topics in vec(any_topic(), 1..20),
        ) {
            let mut matcher = TopicMatcher::new();
            let mut model: Vec<(TopicPattern, u8)> = Vec::new();
            for step in steps {
                match step {
                    Step::Insert(pattern, value) => {
                        matcher.insert(&pattern, value);
                        model.push((pattern, value));
                    }
                    Step::Remove(_) if model.is_empty() => (),
                    Step::Remove(at) => {
                        let (pattern, value) = model.swap_remove(at % model.len());
                        prop_assert!(matcher.remove(&pattern, value));
                    }
                    Step::RemoveAnything(pattern, value) => {
                        let at = model.iter().position(|one| *one == (pattern.clone(), value));
                        at.map(|at| model.swap_remove(at));
                        prop_assert_eq!(matcher.remove(&pattern, value), at.is_some());
                    }
                }
                prop_assert_eq!(matcher.len(), model.len());
                prop_assert_eq!(matcher.is_empty(), model.is_empty());
                prop_assert!(matcher.visits_max() <= 1 + LEVELS_MAX * model.len());
            }
            for topic in &topics {
                let matching = model.iter().filter(|(pattern, _)| pattern.matches(topic));
                let mut wanted: Vec<u8> = matching.map(|(_, value)| *value).collect();
                wanted.sort_unstable();
                let mut found = Vec::new();
                let visited = matcher.matches_counted(topic, &mut found);
                prop_assert!(visited <= matcher.visits_max());
                found.sort_unstable();
                prop_assert_eq!(&found, &wanted);
                matcher.matches_distinct(topic, &mut found);
                wanted.dedup();
                prop_assert_eq!(&found, &wanted);
            }
            for (pattern, value) in model {
                prop_assert!(matcher.remove(&pattern, value));
            }
            prop_assert!(matcher.root.is_empty() && matcher.exact.is_empty());
            prop_assert_eq!(matcher.nodes, [0; LEVELS_MAX]);
        }
    }
}
