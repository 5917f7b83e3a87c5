//! Numbers of topics in the order of their names. Pure.
//!
//! Runs of at most [`RUN_MAX`] numbers, in place of a map with the names in it: at a million topics some
//! 9 bytes a topic. Each run has the begin of its first name beside it, and two bytes of each, those
//! behind what all of them begin with: so the right place is mostly found without a look at a name,
//! each of which lies somewhere else in memory.

use std::{cmp::Ordering, ops::ControlFlow};

/// A run with more is halved.
const RUN_MAX: usize = 256;
/// A run with fewer is joined with its neighbour if both have room in half of one.
const RUN_MIN: usize = RUN_MAX / 8;
/// So many bytes of its first name a run has beside it.
const HEAD_BYTES: usize = 24;

/// Numbers in the order of names, which are asked for by number.
#[derive(Debug, Default)]
pub(super) struct Order {
    runs: Vec<Run>,
    len: usize,
}

#[derive(Debug)]
struct Run {
    /// The first name as far as it goes in, and zeroes: no name has one.
    head: [u8; HEAD_BYTES],
    /// At least one.
    numbers: Vec<u32>,
    /// So many bytes all names of the run begin with, and what comes behind them in each.
    shared: usize,
    hints: Vec<u16>,
}

fn head_of(name: &str) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    let len = name.len().min(HEAD_BYTES);
    head[..len].copy_from_slice(&name.as_bytes()[..len]);
    head
}

/// Two bytes of a name: of two names that are the same before, the larger one's are not smaller.
fn hint_of(name: &str, shared: usize) -> u16 {
    let byte = |at| name.as_bytes().get(at).copied().unwrap_or(0);
    u16::from_be_bytes([byte(shared), byte(shared + 1)])
}

fn shared_bytes(one: &str, other: &str) -> usize {
    one.bytes().zip(other.bytes()).take_while(|(one, other)| one == other).count()
}

impl Run {
    /// The run of these numbers, at least one.
    fn new<'a>(numbers: Vec<u32>, name_of: impl Fn(u32) -> &'a str) -> Run {
        let mut run = Run { head: [0; HEAD_BYTES], numbers, shared: 0, hints: Vec::new() };
        run.look(name_of);
        run
    }

    /// The first or the last name is another.
    fn look<'a>(&mut self, name_of: impl Fn(u32) -> &'a str) {
        let (first, last) =
            (name_of(self.numbers[0]), name_of(self.numbers[self.numbers.len() - 1]));
        let shared = shared_bytes(first, last);
        self.head = head_of(first);
        if shared != self.shared || self.hints.len() != self.numbers.len() {
            self.shared = shared;
            self.hints.clear();
            self.hints.extend(self.numbers.iter().map(|number| hint_of(name_of(*number), shared)));
        }
    }

    /// Takes the second half out. Hints stay as they are, unless the names of a half have more in common.
    fn split<'a>(&mut self, name_of: impl Fn(u32) -> &'a str) -> Run {
        let mut behind = Run {
            head: self.head,
            numbers: self.numbers.split_off(RUN_MAX / 2),
            shared: self.shared,
            hints: self.hints.split_off(RUN_MAX / 2),
        };
        self.look(&name_of);
        behind.look(&name_of);
        behind
    }

    /// Where `name`, which is not below the first, is or belongs.
    fn find<'a>(&self, name: &str, name_of: impl Fn(u32) -> &'a str) -> Result<usize, usize> {
        let (bytes, shared) = (name.as_bytes(), self.shared);
        let has_shared = match self.head.get(..shared) {
            Some(head) => bytes.starts_with(head),
            None => bytes.starts_with(&name_of(self.numbers[0]).as_bytes()[..shared]),
        };
        if !has_shared {
            // Above the first, and not like all: above all.
            return Err(self.numbers.len());
        }
        let hint = hint_of(name, shared);
        let start = self.hints.partition_point(|other| *other < hint);
        let end = start + self.hints[start..].partition_point(|other| *other == hint);
        let found = self.numbers[start..end].binary_search_by(|number| name_of(*number).cmp(name));
        found.map(|at| start + at).map_err(|at| start + at)
    }

    fn insert<'a>(
        &mut self,
        place: usize,
        number: u32,
        name: &str,
        name_of: impl Fn(u32) -> &'a str,
    ) {
        let is_edge = place == 0 || place == self.numbers.len();
        self.numbers.insert(place, number);
        self.hints.insert(place, hint_of(name, self.shared));
        if is_edge {
            self.look(name_of);
        }
    }

    fn remove<'a>(&mut self, place: usize, name_of: impl Fn(u32) -> &'a str) {
        self.numbers.remove(place);
        self.hints.remove(place);
        if !self.numbers.is_empty() && (place == 0 || place == self.numbers.len()) {
            self.look(name_of);
        }
    }
}

impl Order {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// About how much memory they take.
    pub fn memory_bytes(&self) -> usize {
        let numbers: usize = self.runs.iter().map(|run| run.numbers.capacity()).sum();
        self.runs.capacity() * size_of::<Run>() + numbers * size_of::<(u32, u16)>()
    }

    /// The run in which `name` is or belongs, and its place there.
    fn find<'a>(
        &self,
        name: &str,
        name_of: impl Fn(u32) -> &'a str,
    ) -> (usize, Result<usize, usize>) {
        let head = head_of(name);
        let behind = self.runs.partition_point(|run| match run.head.cmp(&head) {
            Ordering::Equal => name_of(run.numbers[0]) <= name,
            other => other == Ordering::Less,
        });
        match behind.checked_sub(1) {
            Some(at) => (at, self.runs[at].find(name, name_of)),
            None => (0, Err(0)),
        }
    }

    /// Puts the number of a name in; one that is there already stays.
    pub fn insert<'a>(&mut self, number: u32, name: &str, name_of: impl Fn(u32) -> &'a str) {
        let (mut at, found) = self.find(name, &name_of);
        let Err(mut place) = found else { return };
        self.len += 1;
        let is_last = at + 1 >= self.runs.len();
        let is_full = self.runs.get(at).is_none_or(|run| run.numbers.len() == RUN_MAX);
        if is_full && is_last && self.runs.get(at).is_none_or(|run| place == run.numbers.len()) {
            // Names that ascend fill every run.
            return self.runs.push(Run::new(vec![number], name_of));
        }
        if is_full {
            let run = &mut self.runs[at];
            let behind = run.split(&name_of);
            self.runs.insert(at + 1, behind);
            if let Some(rest) = place.checked_sub(RUN_MAX / 2).filter(|rest| *rest > 0) {
                (at, place) = (at + 1, rest);
            }
        }
        self.runs[at].insert(place, number, name, name_of);
    }

    /// Takes the number of a name out, if it is there.
    pub fn remove<'a>(&mut self, name: &str, name_of: impl Fn(u32) -> &'a str) {
        let (at, found) = self.find(name, &name_of);
        let Ok(place) = found else { return };
        self.len -= 1;
        let run = &mut self.runs[at];
        run.remove(place, &name_of);
        let len = run.numbers.len();
        if len == 0 {
            self.runs.remove(at);
        } else if len < RUN_MIN && at > 0 && self.runs[at - 1].numbers.len() + len <= RUN_MAX / 2 {
            let run = self.runs.remove(at);
            let before = &mut self.runs[at - 1];
            before.numbers.extend(run.numbers);
            before.look(name_of);
        }
    }

    /// Hands over numbers in order, from the first whose name is not below `from` on, until told to
    /// stop.
    pub fn walk<'a>(
        &self,
        from: &str,
        name_of: impl Fn(u32) -> &'a str,
        mut take: impl FnMut(u32) -> ControlFlow<()>,
    ) {
        let (at, found) = self.find(from, &name_of);
        let mut skip = found.unwrap_or_else(|place| place);
        for run in self.runs.get(at..).unwrap_or_default() {
            for number in run.numbers.get(skip..).unwrap_or_default() {
                if take(*number).is_break() {
                    return;
                }
            }
            skip = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn name(number: u32) -> String {
        match number % 3 {
            0 => format!("{:05}", number * 7919 % 5_000),
            1 => format!("a/long/common/begin/of/names/{}", number * 31 % 700),
            _ => format!("é{number}"),
        }
    }

    proptest! {
        /// The same as a map, whatever the order of steps.
        #[test]
        fn it_is_a_map_by_name(
            steps in prop::collection::vec((0..2_000_u32, prop::bool::weighted(0.7)), 0..3_000),
            from in 0..2_000_u32,
        ) {
            let names: Vec<String> = (0..2_000).map(name).collect();
            let name_of = |number: u32| names[number as usize].as_str();
            let (mut order, mut model) = (Order::default(), BTreeMap::new());
            for (number, is_new) in steps {
                if is_new {
                    order.insert(number, name_of(number), name_of);
                    model.entry(name_of(number)).or_insert(number);
                } else {
                    order.remove(name_of(number), name_of);
                    model.remove(name_of(number));
                }
            }
            prop_assert_eq!(order.len(), model.len());
            prop_assert!(order.runs.iter().all(|run| (1..=RUN_MAX).contains(&run.numbers.len())));
            let mut walked = Vec::new();
            order.walk(name_of(from), name_of, |number| {
                walked.push(number);
                ControlFlow::Continue(())
            });
            let wanted: Vec<u32> = model.range(name_of(from)..).map(|(_, number)| *number).collect();
            prop_assert_eq!(walked, wanted);
        }
    }

    #[test]
    fn ascending_names_fill_their_runs_and_few_that_are_left_share_one() {
        let names: Vec<String> = (0..2_560).map(|number| format!("{number:06}")).collect();
        let name_of = |number: u32| names[number as usize].as_str();
        let mut order = Order::default();
        for number in 0..2_560 {
            order.insert(number, name_of(number), name_of);
        }
        assert_eq!(order.runs.len(), 10);
        for number in (0..2_560).filter(|number| number % 256 > 2) {
            order.remove(name_of(number), name_of);
        }
        assert!(order.runs.len() < 5, "{} runs", order.runs.len());
    }
}
