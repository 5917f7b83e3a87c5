//! A bag of values, small while there is one.

/// The values under one pattern, of which there is mostly one.
#[derive(Debug)]
pub(super) enum Values<V> {
    None,
    One(V),
    /// Two or more.
    Many(Vec<V>),
}

impl<V: Copy + Eq> Values<V> {
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Values::None)
    }

    pub(super) fn push(&mut self, value: V) {
        match self {
            Values::None => *self = Values::One(value),
            Values::One(first) => *self = Values::Many(vec![*first, value]),
            Values::Many(values) => values.push(value),
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
        }
        true
    }

    pub(super) fn copy_into(&self, out: &mut Vec<V>) {
        match self {
            Values::None => (),
            Values::One(value) => out.push(*value),
            Values::Many(values) => out.extend_from_slice(values),
        }
    }
}
