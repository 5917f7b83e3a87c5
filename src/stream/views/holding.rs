//! The views that hold something, in the order in which they are to give it up: each can be taken out
//! wherever it stands, in the time of a look-up. 100,000 views may forget what they hold at once.
//!
//! ```text
//!      the end  <-->  view 7  <-->  view 0  <-->  view 3  <-->  the end
//! ```
//! The links lie by the views' numbers, that of the end first; who is not in it is linked to itself.

use super::ViewId;

/// A view's number plus one; 0 is the end.
type Place = u32;

const END: Place = 0;

#[derive(Clone, Copy)]
struct Link {
    before: Place,
    after: Place,
}

/// Views in a row.
pub(super) struct Holding {
    links: Vec<Link>,
}

impl Holding {
    /// Nobody yet.
    pub(super) fn new() -> Self {
        Holding { links: vec![Link { before: END, after: END }] }
    }

    /// Adds a view, which is not in it, behind all others.
    pub(super) fn push_back(&mut self, view_id: ViewId) {
        let place = view_id.0 + 1;
        while self.links.len() <= place as usize {
            let itself = Place::try_from(self.links.len()).expect("views are numbered by 32 bits");
            self.links.push(Link { before: itself, after: itself });
        }
        assert!(self.link(place).after == place, "a view is in it once");
        let last = self.link(END).before;
        *self.link(place) = Link { before: last, after: END };
        self.link(last).after = place;
        self.link(END).before = place;
    }

    /// Takes a view out, if it is in it.
    pub(super) fn remove(&mut self, view_id: ViewId) {
        let place = view_id.0 + 1;
        if place as usize >= self.links.len() {
            return;
        }
        let Link { before, after } = *self.link(place);
        self.link(before).after = after;
        self.link(after).before = before;
        *self.link(place) = Link { before: place, after: place };
    }

    /// Takes the first one out.
    pub(super) fn pop_front(&mut self) -> Option<ViewId> {
        let first = self.link(END).after.checked_sub(1).map(ViewId)?;
        self.remove(first);
        Some(first)
    }

    fn link(&mut self, place: Place) -> &mut Link {
        &mut self.links[place as usize]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_queue_from_whose_middle_one_can_leave(
            steps in vec((0..3_u8, 0..12_u32), 1..200),
        ) {
            let (mut holding, mut model) = (Holding::new(), VecDeque::new());
            for (kind, number) in steps {
                let view_id = ViewId(number);
                match kind {
                    0 if !model.contains(&view_id) => {
                        holding.push_back(view_id);
                        model.push_back(view_id);
                    }
                    0 | 1 => {
                        holding.remove(view_id);
                        model.retain(|other| *other != view_id);
                    }
                    _ => prop_assert_eq!(holding.pop_front(), model.pop_front()),
                }
            }
            while let Some(first) = model.pop_front() {
                prop_assert_eq!(holding.pop_front(), Some(first));
            }
            prop_assert_eq!(holding.pop_front(), None);
        }
    }
}
