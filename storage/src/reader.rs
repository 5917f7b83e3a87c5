//! Events from a place up to an end, across segments, in either direction.

use std::{ops::Range, sync::Arc};

use crate::{
    event::EventView,
    frame::Frame,
    offset::Offset,
    selection::{Order, Picks, Selection},
    topic::TopicPattern,
};

/// What a reader wants.
#[derive(Clone, Debug)]
pub struct ReadQuery {
    /// Events whose topic any of these matches; with none, all events, also of reserved topics.
    pub topics: Vec<TopicPattern>,
    /// The first offset wanted.
    pub from: Offset,
    /// The first offset not wanted any more; never past the visible offset.
    pub end: Offset,
    /// Which end is read first.
    pub order: Order,
}

/// What one step of a reader found.
#[derive(Clone, Debug)]
pub struct Hits {
    /// The frame with the events; `None` if there are none, because the step ended before.
    pub frame: Option<Arc<Frame>>,
    /// Which of its events.
    pub picks: Picks,
    /// Ascending: everything from the query's `from` up to here (not included) has been looked at.
    /// Descending: everything from here (included) up to the query's `end` has been.
    pub considered: Offset,
    /// The order of [`Hits::events`].
    pub order: Order,
}

impl Hits {
    /// What `selection` finds in a frame, for frames that no [`Reader`] gave: live and unsealed ones.
    pub fn of_frame(
        frame: &Arc<Frame>,
        selection: &Selection,
        range: Range<Offset>,
        order: Order,
    ) -> Hits {
        let considered = match order {
            Order::Ascending => frame.end_offset().clamp(range.start, range.end),
            Order::Descending => frame.base_offset().clamp(range.start, range.end),
        };
        let picks = selection.pick(frame, range);
        Hits { frame: (!picks.is_empty()).then(|| frame.clone()), picks, considered, order }
    }

    /// Nothing found up to `considered`.
    pub fn none(considered: Offset, order: Order) -> Hits {
        Hits { frame: None, picks: Picks::NONE, considered, order }
    }

    /// How many events were found.
    pub fn len(&self) -> usize {
        self.picks.len()
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.picks.is_empty()
    }

    /// The events found, in the order asked for.
    pub fn events(&self) -> impl ExactSizeIterator<Item = EventView<'_>> {
        let len = self.len();
        (0..len).map(move |nth| {
            let nth = if self.order == Order::Ascending { nth } else { len - 1 - nth };
            let frame = self.frame.as_ref().expect("there is a frame if there are picks");
            frame.event(self.picks.index(nth))
        })
    }
}
