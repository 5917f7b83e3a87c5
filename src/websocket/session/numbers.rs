//! The numbers that tell a connection's subscriptions apart.

/// Subscriptions of one connection.
pub const SUBSCRIPTIONS_MAX: u16 = 256;

/// Which numbers the subscriptions of a connection have: a bit for each.
#[derive(Default)]
pub struct Numbers {
    first: u64,
    /// Of those beyond 64. Boxed: nearly nobody has so many.
    more: Option<Box<[u64; SUBSCRIPTIONS_MAX as usize / 64 - 1]>>,
}

impl Numbers {
    /// Takes the lowest that is free, from 1.
    pub fn take(&mut self) -> Option<u16> {
        if self.first == u64::MAX {
            self.more.get_or_insert_default();
        }
        let (at, word) = self.words().enumerate().find(|(_, word)| **word != u64::MAX)?;
        let bit = word.trailing_ones();
        *word |= 1 << bit;
        let number = at * 64 + bit as usize + 1;
        Some(u16::try_from(number).expect("at most 256"))
    }

    /// Gives one back; false if nobody has it.
    pub fn give_back(&mut self, number: u16) -> bool {
        let Some(index) = number.checked_sub(1).map(usize::from) else { return false };
        let Some(word) = self.words().nth(index / 64) else { return false };
        let bit = 1 << (index % 64);
        let was_taken = *word & bit != 0;
        *word &= !bit;
        was_taken
    }

    fn words(&mut self) -> impl Iterator<Item = &mut u64> {
        let more = self.more.iter_mut().flat_map(|words| words.iter_mut());
        std::iter::once(&mut self.first).chain(more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscriptions_have_the_lowest_free_number() {
        let mut numbers = Numbers::default();
        assert!((1..=SUBSCRIPTIONS_MAX).all(|number| numbers.take() == Some(number)));
        assert_eq!(numbers.take(), None);
        assert!(numbers.give_back(200) && numbers.give_back(65) && !numbers.give_back(65));
        assert!(!numbers.give_back(0) && !numbers.give_back(257));
        assert_eq!((numbers.take(), numbers.take(), numbers.take()), (Some(65), Some(200), None));
    }
}
