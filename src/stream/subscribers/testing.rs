//! Subscribers to everything from the start on, for tests.

use std::os::unix::net::UnixStream;
use std::rc::Rc;

use strandline_storage::event::EventView;
use strandline_storage::offset::Offset;
use strandline_storage::topic::TopicPattern;

use super::slot::{Slot, Sub, Subs};
use super::{Inner, SlotId, SubState};
use crate::local::{Guard, Leave};
use crate::stream::chunk::{Render, Word};
use crate::stream::compression::Encoding;
use crate::stream::subscription::Subscription;
use crate::stream::view::{Member, Rendering, ViewId, ViewKey};
use crate::stream::wanted::Wanted;

/// Says nothing.
pub(super) struct Unsaid;

impl Render for Unsaid {
    fn event(&self, _: &EventView<'_>, _: &mut Vec<u8>) {}

    fn say(&self, _: Word, _: &mut Vec<u8>) {}
}

struct Nobody;

impl Leave for Nobody {
    fn left(&self) {}
}

/// What they want.
pub(super) fn everything() -> ViewKey {
    let all = TopicPattern::parse("**").expect("a pattern");
    let wanted = Rc::new(Wanted::new([all].into(), [].into()));
    let encoding = Encoding::Identity;
    ViewKey { wanted, rendering: Rendering::Sse { is_object: false, is_chunked: false, encoding } }
}

/// A subscriber with subscription 0, and its client.
pub(super) fn add(inner: &mut Inner, state: SubState) -> (SlotId, UnixStream) {
    let (socket, client) = UnixStream::pair().expect("a pair of sockets");
    let sub = Sub {
        number: 0,
        state,
        has_sent: false,
        view: ViewId(0),
        position: 0,
        place: Subscription::new(Offset::ZERO),
        told_deleted: Offset::ZERO,
    };
    let subs = Subs::One { sub, is_pinging: false };
    let slot = Slot::new(socket.into(), subs, 1, 0, Guard::new(Rc::new(Nobody)));
    let id = inner.slots.insert(slot);
    let member = Member { slot: id.index, number: 0 };
    let (view, position) = inner.views.join(&everything(), member, || Rc::new(Unsaid));
    let sub = inner.slots.get_mut(id).and_then(|slot| slot.sub_mut(0)).expect("it was added");
    (sub.view, sub.position) = (view, position);
    (id, client)
}
