//! A set of views: by their numbers, which are small.

use super::ViewId;

/// Some views, each once.
#[derive(Default)]
pub(super) struct ViewSet {
    words: Vec<u64>,
}

impl ViewSet {
    /// Adds a view.
    pub(super) fn add(&mut self, view_id: ViewId) {
        let number = view_id.0 as usize;
        if self.words.len() <= number / 64 {
            self.words.resize(number / 64 + 1, 0);
        }
        self.words[number / 64] |= 1 << (number % 64);
    }

    /// All of them, by number.
    pub(super) fn iter(&self) -> impl Iterator<Item = ViewId> {
        (0..).step_by(64).zip(&self.words).flat_map(|(first, word)| {
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| ViewId(first + bit))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_view_comes_once_and_in_order() {
        let mut set = ViewSet::default();
        assert_eq!(set.iter().count(), 0);
        for number in [700, 0, 64, 63, 700, 64] {
            set.add(ViewId(number));
        }
        assert!(set.iter().map(|view_id| view_id.0).eq([0, 63, 64, 700]));
    }
}
