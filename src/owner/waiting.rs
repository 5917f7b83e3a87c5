//! Answers that wait until readers see what they rest on. Pure.
//!
//! They are in the order of that: nearly all come in it, since the log gives offsets in the order of
//! appends. What rests on an earlier event (a duplicate of it) does not wait for those behind, nor is it
//! refused with them.

use std::collections::VecDeque;

use strandline_storage::offset::Offset;

/// The answers, each with the offset below which readers have to see everything.
pub(super) struct Waiting<T> {
    answers: VecDeque<(Offset, T)>,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Waiting { answers: VecDeque::new() }
    }
}

impl<T> Waiting<T> {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.answers.len()
    }

    /// Another one, behind those that wait for as much.
    pub fn push(&mut self, wait: Offset, answer: T) {
        let is_last = self.answers.back().is_none_or(|(last, _)| *last <= wait);
        let at = match is_last {
            true => self.answers.len(),
            false => self.answers.partition_point(|(known, _)| *known <= wait),
        };
        self.answers.insert(at, (wait, answer));
    }

    /// The next one that may leave now.
    pub fn take_up_to(&mut self, visible: Offset) -> Option<T> {
        let (wait, _) = self.answers.front()?;
        if *wait > visible {
            return None;
        }
        self.answers.pop_front().map(|(_, answer)| answer)
    }

    /// All that wait for something from `end` on.
    pub fn take_behind(&mut self, end: Offset) -> impl Iterator<Item = (Offset, T)> + use<T> {
        let kept = self.answers.partition_point(|(wait, _)| *wait <= end);
        self.answers.split_off(kept).into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_leave_in_the_order_of_what_they_rest_on() {
        let mut waiting = Waiting::default();
        for (wait, answer) in [(3, "a"), (7, "b"), (3, "of a"), (5, "before b"), (7, "of b")] {
            waiting.push(Offset::new(wait), answer);
        }
        assert_eq!(waiting.take_up_to(Offset::new(2)), None);
        let mut left = || waiting.take_up_to(Offset::new(5));
        assert_eq!(
            [left(), left(), left(), left()],
            [Some("a"), Some("of a"), Some("before b"), None]
        );
        assert_eq!(waiting.len(), 2);
    }

    /// A duplicate of what is on its way to the disk came behind what has no room there.
    #[test]
    fn what_rests_on_an_earlier_event_is_not_refused_with_those_behind() {
        let mut waiting = Waiting::default();
        for (wait, answer) in [(6, "written"), (9, "staged"), (6, "duplicate"), (9, "refusal")] {
            waiting.push(Offset::new(wait), answer);
        }
        let refused: Vec<_> =
            waiting.take_behind(Offset::new(6)).map(|(_, answer)| answer).collect();
        assert_eq!(refused, ["staged", "refusal"]);
        let mut left = || waiting.take_up_to(Offset::new(6));
        assert_eq!([left(), left(), left()], [Some("written"), Some("duplicate"), None]);
    }
}
