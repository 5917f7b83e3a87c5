//! Numbers of topics in the order of their names. Pure.
//!
//! Runs of at most [`RUN_MAX`] numbers, in place of a map with the names in it: at a million topics some
//! 12 bytes a topic. Each run has the begin of its first name beside it, and four bytes of each, those
//! behind what all of them begin with: so the right place is mostly found without a look at a name,
//! each of which lies somewhere else in memory. (With two bytes some three of a run's 170 were looked at,
//! at a million names of eight digits.)

use std::ops::ControlFlow;

/// A run with more is halved.
const RUN_MAX: usize = 256;
/// A run with fewer is joined with its neighbour if both have room in half of one.
const RUN_MIN: usize = RUN_MAX / 8;
/// The first bytes of a run's first name, and zeroes behind it: no name has one. As numbers, which are compared at once.
type Head = [u64; 3];
const HEAD_BYTES: usize = size_of::<Head>();

/// Numbers in the order of names, which are asked for by number.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// Of each run. Beside each other, as they are what a search looks at.
    heads: Vec<Head>,
    runs: Vec<Run>,
    len: usize,
}

#[derive(Debug)]
struct Run {
    /// At least one.
    numbers: Vec<u32>,
    /// So many bytes all names of the run begin with, and what comes behind them in each.
    shared: usize,
    hints: Vec<u32>,
}

fn head_of(name: &[u8]) -> Head {
    let mut head = [0; HEAD_BYTES];
    let len = name.len().min(HEAD_BYTES);
    head[..len].copy_from_slice(&name[..len]);
    let (words, _) = head.as_chunks();
    [0, 1, 2].map(|at| u64::from_be_bytes(words[at]))
}

/// Whether the first so many bytes of both are the same.
fn begin_alike(one: &Head, other: &Head, bytes: usize) -> bool {
    one.iter().zip(other).enumerate().all(|(word, (one, other))| {
        let compared = bytes.saturating_sub(word * 8).min(8);
        compared == 0 || (one ^ other) >> (64 - 8 * compared) == 0
    })
}

/// Four bytes of a name: of two names that are the same before, the larger one's are not smaller.
fn hint_of(name: &[u8], shared: usize) -> u32 {
    let behind = name.get(shared..).unwrap_or_default();
    let mut hint = [0; 4];
    let len = behind.len().min(hint.len());
    hint[..len].copy_from_slice(&behind[..len]);
    u32::from_be_bytes(hint)
}

fn shared_bytes(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

impl Run {
    /// The run of these numbers, at least one.
    fn new<'a>(numbers: Vec<u32>, name_of: impl Fn(u32) -> &'a [u8]) -> Run {
        let mut run = Run { numbers, shared: 0, hints: Vec::new() };
        run.look(name_of);
        run
    }

    /// The first or the last name is another.
    fn look<'a>(&mut self, name_of: impl Fn(u32) -> &'a [u8]) {
        let (first, last) =
            (name_of(self.numbers[0]), name_of(self.numbers[self.numbers.len() - 1]));
        let shared = shared_bytes(first, last);
        if shared != self.shared || self.hints.len() != self.numbers.len() {
            self.shared = shared;
            self.hints.clear();
            self.hints.extend(self.numbers.iter().map(|number| hint_of(name_of(*number), shared)));
        }
    }

    /// Takes the second half out. Hints stay as they are, unless the names of a half have more in common.
    fn split<'a>(&mut self, name_of: impl Fn(u32) -> &'a [u8]) -> Run {
        let mut behind = Run {
            numbers: self.numbers.split_off(RUN_MAX / 2),
            shared: self.shared,
            hints: self.hints.split_off(RUN_MAX / 2),
        };
        self.look(&name_of);
        behind.look(&name_of);
        behind
    }

    /// Where `name`, which is not below the first, is or belongs. `head` is that of the run.
    fn find<'a>(
        &self,
        name: &[u8],
        head: &Head,
        name_of: impl Fn(u32) -> &'a [u8],
    ) -> Result<usize, usize> {
        let shared = self.shared;
        let has_shared = match shared <= HEAD_BYTES {
            true => begin_alike(head, &head_of(name), shared),
            false => name.starts_with(&name_of(self.numbers[0])[..shared]),
        };
        if !has_shared {
            // Above the first, and not like all: above all.
            return Err(self.numbers.len());
        }
        let hint = hint_of(name, shared);
        // All of them are near each other, and none is: they are waited for at once, and not each step of a search.
        let start = self.hints.iter().filter(|other| **other < hint).count();
        let same = self.hints[start..].iter().take_while(|other| **other == hint).count();
        let end = start + same;
        let found = self.numbers[start..end].binary_search_by(|number| name_of(*number).cmp(name));
        found.map(|at| start + at).map_err(|at| start + at)
    }

    fn insert<'a>(
        &mut self,
        place: usize,
        number: u32,
        name: &[u8],
        name_of: impl Fn(u32) -> &'a [u8],
    ) {
        let is_edge = place == 0 || place == self.numbers.len();
        self.numbers.insert(place, number);
        self.hints.insert(place, hint_of(name, self.shared));
        if is_edge {
            self.look(name_of);
        }
    }

    fn remove<'a>(&mut self, place: usize, name_of: impl Fn(u32) -> &'a [u8]) {
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
        self.runs.capacity() * size_of::<(Head, Run)>() + numbers * size_of::<(u32, u32)>()
    }

    /// The run in which `name` is or belongs, and its place there.
    fn find<'a>(
        &self,
        name: &[u8],
        name_of: impl Fn(u32) -> &'a [u8],
    ) -> (usize, Result<usize, usize>) {
        let head = head_of(name);
        let begin = self.heads.partition_point(|other| *other < head);
        let alike = self.heads[begin..].partition_point(|other| *other == head);
        let behind = begin
            + self.runs[begin..begin + alike]
                .partition_point(|run| name_of(run.numbers[0]) <= name);
        match behind.checked_sub(1) {
            Some(at) => (at, self.runs[at].find(name, &self.heads[at], name_of)),
            None => (0, Err(0)),
        }
    }

    /// Puts the number of a name in; one that is there already stays.
    pub fn insert<'a>(&mut self, number: u32, name: &[u8], name_of: impl Fn(u32) -> &'a [u8]) {
        let (mut at, found) = self.find(name, &name_of);
        let Err(mut place) = found else { return };
        self.len += 1;
        let is_last = at + 1 >= self.runs.len();
        let is_full = self.runs.get(at).is_none_or(|run| run.numbers.len() == RUN_MAX);
        if is_full && is_last && self.runs.get(at).is_none_or(|run| place == run.numbers.len()) {
            // Names that ascend fill every run.
            return self.put(self.runs.len(), Run::new(vec![number], &name_of), &name_of);
        }
        if is_full {
            let behind = self.runs[at].split(&name_of);
            self.put(at + 1, behind, &name_of);
            if let Some(rest) = place.checked_sub(RUN_MAX / 2).filter(|rest| *rest > 0) {
                (at, place) = (at + 1, rest);
            }
        }
        self.runs[at].insert(place, number, name, &name_of);
        if place == 0 {
            self.heads[at] = head_of(name);
        }
    }

    fn put<'a>(&mut self, at: usize, run: Run, name_of: impl Fn(u32) -> &'a [u8]) {
        self.heads.insert(at, head_of(name_of(run.numbers[0])));
        self.runs.insert(at, run);
    }

    /// Takes the number of a name out, if it is there.
    pub fn remove<'a>(&mut self, name: &[u8], name_of: impl Fn(u32) -> &'a [u8]) {
        let (at, found) = self.find(name, &name_of);
        let Ok(place) = found else { return };
        self.len -= 1;
        let run = &mut self.runs[at];
        run.remove(place, &name_of);
        let len = run.numbers.len();
        if let Some(first) = run.numbers.first().filter(|_| place == 0) {
            self.heads[at] = head_of(name_of(*first));
        }
        let is_joined =
            len < RUN_MIN && at > 0 && self.runs[at - 1].numbers.len() + len <= RUN_MAX / 2;
        if len == 0 || is_joined {
            self.heads.remove(at);
            let run = self.runs.remove(at);
            if len > 0 {
                let before = &mut self.runs[at - 1];
                before.numbers.extend(run.numbers);
                before.look(name_of);
            }
        }
    }

    /// Hands over numbers in order, from the first whose name is not below `from` on, until told to
    /// stop.
    pub fn walk<'a>(
        &self,
        from: &[u8],
        name_of: impl Fn(u32) -> &'a [u8],
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
            let name_of = |number: u32| names[number as usize].as_bytes();
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
            let heads = order.runs.iter().map(|run| head_of(name_of(run.numbers[0])));
            prop_assert!(heads.eq(order.heads.iter().copied()));
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
        let name_of = |number: u32| names[number as usize].as_bytes();
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
