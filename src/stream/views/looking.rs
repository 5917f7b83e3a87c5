//! What a view makes of a frame: it looks at the events of topics that it wants, some at a time, and encodes what it takes.

use std::collections::VecDeque;

use strandline_storage::event::EventView;
use strandline_storage::frame::Frame;
use strandline_storage::rules::Floors;

use super::waiting::{Indexes, Lacked};
use super::{VIEW_RING_BYTES_MAX, ViewId, Views};
use crate::stream::chunk::{ChunkBuilder, LIVE_CHUNK_BYTES};
use crate::stream::view::{Pending, View};

/// So many bytes of events are a step more.
const STEP_BYTES: usize = 1024;

/// What an event takes to be looked at and rendered, as bytes, however short it is.
const EVENT_BYTES: usize = 128;

/// So many topics and patterns are compared in a step.
const COMPARED_A_STEP: usize = 16;

impl Views {
    /// Lets a view, which has members, look at the oldest frame that it has not looked at, or at some more of it; returns
    /// how many steps that took, one for an event of a topic that it wants, and more for large ones; `None` if it has looked at all.
    pub fn look_at_next(&mut self, view_id: ViewId) -> Option<usize> {
        self.bring_up_to_date(view_id);
        let Views { views, waiting, floors, encoded, limits, .. } = self;
        let view = views[view_id.0 as usize].as_mut().expect("it has members");
        let pending = view.pending.pop_front()?;
        let (held, was_empty) = (view.ring.held_bytes(), view.ring.is_empty());
        let mut looked = Looked::default();
        let has_news = match waiting.find(view_id, &view.key.wanted, pending) {
            // Nothing but what a rewrite has left may be shown of it, and that is in the log alone.
            Lacked::Frame(frame, ..) if frame.base_offset() < floors.settled() => {
                view.ring.restart(frame.end_offset());
                true
            }
            Lacked::Frame(frame, indexes, compared) => {
                looked =
                    encode(view, frame, &indexes, pending.seen, limits.look_bytes, floors, encoded);
                looked.steps += compared / COMPARED_A_STEP;
                looked.has_news
            }
            Lacked::Lost(lost_to) => {
                view.ring.restart(lost_to);
                while view.pending.front().is_some_and(|pending| pending.from < lost_to) {
                    view.pending.pop_front();
                }
                true
            }
        };
        if let Some(seen) = looked.stopped_at {
            view.pending.push_front(Pending { seen, ..pending });
        }
        if view.pending.is_empty() {
            // Most views have something to look at for a moment, once in a while.
            view.pending = VecDeque::new();
        }
        let (holds, is_empty) = (view.ring.held_bytes(), view.ring.is_empty());
        if looked.stopped_at.is_none() {
            waiting.looked_at(pending);
        }
        self.ring_bytes = self.ring_bytes - held + holds;
        match (was_empty, is_empty) {
            (true, false) => self.holding.push_back(view_id),
            (false, true) => self.holding.remove(view_id),
            _ => (),
        }
        if has_news {
            self.start_round(view_id);
        }
        self.evict();
        Some(looked.steps)
    }
}

/// About how long an event's text is.
fn bytes_of(event: &EventView<'_>) -> usize {
    let headers: usize = event.headers().map(|(name, value)| name.len() + value.len()).sum();
    EVENT_BYTES + headers + event.data().len()
}

/// What came of looking at a frame.
#[derive(Default)]
struct Looked {
    /// Whether anything has changed for the view's members.
    has_news: bool,
    steps: usize,
    /// Where among the events it goes on, if there are more.
    stopped_at: Option<u32>,
}

/// Adds to the ring of a view what it takes of these events, of which it has `seen` some: until it has looked at
/// `bytes_max` of them.
fn encode(
    view: &mut View,
    frame: &Frame,
    indexes: &Indexes<'_>,
    seen: u32,
    bytes_max: usize,
    floors: &Floors,
    encoded: &mut Vec<u8>,
) -> Looked {
    let hiding = floors.concern(frame).then_some(floors);
    let render = view.render.clone();
    let mut builder = ChunkBuilder::new(render.as_ref(), LIVE_CHUNK_BYTES, encoded);
    let (mut looked, mut bytes) = (Looked::default(), 0);
    for place in seen as usize..indexes.len() {
        if bytes >= bytes_max {
            looked.stopped_at = Some(u32::try_from(place).expect("events of a frame have 32 bits"));
            break;
        }
        let event = frame.event(indexes.at(place));
        bytes += bytes_of(&event);
        looked.steps += 1;
        if !view.key.wanted.takes(&event) {
            continue;
        }
        looked.has_news = true;
        if hiding.is_some_and(|floors| floors.hide(&event)) {
            // It was deleted before anybody could see it, and whoever wanted it is told: by who
            // reads the log.
            builder.discard();
            view.ring.restart(event.offset().plus(1));
        } else if let Some(chunk) = builder.push(&event) {
            view.ring.push(chunk);
        }
    }
    if let Some(chunk) = builder.finish() {
        view.ring.push(chunk);
    }
    // The newest stays, however long one event is: it would have to be encoded anew from the log.
    while view.ring.held_bytes() > VIEW_RING_BYTES_MAX && view.ring.len() > 1 {
        view.ring.evict_oldest();
    }
    looked.steps += bytes / STEP_BYTES;
    looked
}
