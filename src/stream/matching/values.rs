//! A bag of values, small while there is one.

use std::collections::BTreeMap;

/// From here on it costs less to find one in order.
const LIST_MAX: usize = 64;

/// The values under one pattern, of which there is mostly one.
#[derive(Debug)]
pub(super) enum Values<V> {
    None,
    One(V),
    /// Two or more.
    Many(Vec<V>),
    /// So many that whoever takes one out is not to look at all of them: each, and how often it is there.
    Counted(BTreeMap<V, u32>),
}

impl<V: Copy + Ord> Values<V> {
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Values::None)
    }

    pub(super) fn push(&mut self, value: V) {
        match self {
            Values::None => *self = Values::One(value),
            Values::One(first) => *self = Values::Many(vec![*first, value]),
            Values::Many(values) if values.len() < LIST_MAX => values.push(value),
            Values::Many(values) => {
                let mut counted = BTreeMap::new();
                values.iter().chain([&value]).for_each(|one| count(&mut counted, *one));
                *self = Values::Counted(counted);
            }
            Values::Counted(values) => count(values, value),
        }
    }

    /// Takes out one that equals `value`.
    pub(super) fn remove(&mut self, value: V) -> bool {
        match self {
            Values::One(only) if *only == value => *self = Values::None,
            Values::None | Values::One(_) => return false,
            Values::Many(values) => {
                let Some(at) = values.iter().position(|one| *one == value) else { return false };
                values.swap_remove(at);
                if let [last] = values[..] {
                    *self = Values::One(last);
                } else if values.len() <= values.capacity() / 4 {
                    values.shrink_to(values.len() * 2);
                }
            }
            Values::Counted(values) => {
                let Some(times) = values.get_mut(&value) else { return false };
                *times -= 1;
                if *times == 0 {
                    values.remove(&value);
                    if values.len() <= LIST_MAX / 4 && values.values().all(|times| *times == 1) {
                        let list: Vec<V> = values.keys().copied().collect();
                        *self = match list[..] {
                            [] => Values::None,
                            [last] => Values::One(last),
                            _ => Values::Many(list),
                        };
                    }
                }
            }
        }
        true
    }

    pub(super) fn copy_into(&self, out: &mut Vec<V>) {
        match self {
            Values::None => (),
            Values::One(value) => out.push(*value),
            Values::Many(values) => out.extend_from_slice(values),
            Values::Counted(values) => {
                for (value, times) in values {
                    out.extend((0..*times).map(|_| *value));
                }
            }
        }
    }
}

fn count<V: Ord>(values: &mut BTreeMap<V, u32>, value: V) {
    *values.entry(value).or_default() += 1;
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::cmp::Ordering;

    use proptest::prelude::*;

    use super::*;

    thread_local! {
        static LOOKS: Cell<u64> = const { Cell::new(0) };
    }

    /// A value that counts how often one is looked at.
    #[derive(Clone, Copy, Debug)]
    struct Looked(u32);

    impl Ord for Looked {
        fn cmp(&self, other: &Self) -> Ordering {
            LOOKS.set(LOOKS.get() + 1);
            self.0.cmp(&other.0)
        }
    }

    impl PartialOrd for Looked {
        fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
            Some(self.cmp(other))
        }
    }

    impl PartialEq for Looked {
        fn eq(&self, other: &Self) -> bool {
            self.cmp(other).is_eq()
        }
    }

    impl Eq for Looked {}

    /// Each of thousands under one pattern that hang up together looked at all of the others.
    #[test]
    fn who_goes_does_not_look_at_all_others() {
        let count: u32 = 20_000;
        let mut values = Values::None;
        (0..count).for_each(|value| values.push(Looked(value)));
        // In another order than that in which they came.
        for step in 0..count {
            assert!(values.remove(Looked(step * 7_919 % count)));
        }
        assert!(values.is_empty());
        let looks = LOOKS.get() / u64::from(2 * count);
        assert!(looks < 200, "{looks} for each that comes or goes");
    }

    proptest! {
        #[test]
        fn it_is_a_bag(steps in prop::collection::vec((0..9_u8, 0..150_u8), 0..600)) {
            let (mut values, mut model) = (Values::None, Vec::new());
            let half = steps.len() / 2;
            for (at, (kind, value)) in steps.into_iter().enumerate() {
                // First more come than go, and then the other way about.
                if (kind < 7) == (at < half) {
                    values.push(value);
                    model.push(value);
                } else {
                    let place = model.iter().position(|one| *one == value);
                    place.map(|place| model.swap_remove(place));
                    prop_assert_eq!(values.remove(value), place.is_some());
                }
                prop_assert_eq!(values.is_empty(), model.is_empty());
            }
            let mut found = Vec::new();
            values.copy_into(&mut found);
            found.sort_unstable();
            model.sort_unstable();
            prop_assert_eq!(&found, &model);
            for value in model {
                prop_assert!(values.remove(value));
            }
            prop_assert!(values.is_empty());
        }
    }
}
