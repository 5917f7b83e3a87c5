//! What a session may do with its connection while it is called.

use std::rc::Rc;

use strandline_storage::offset::Offset;

use super::alarms::look_ahead;
use super::behind::Job;
use super::slot::{Sub, SubState, Subs};
use super::{Inner, SlotId, Subscribers};
use crate::stream::chunk::Render;
use crate::stream::search;
use crate::stream::start::StartPlace;
use crate::stream::subscription::Subscription;
use crate::stream::view::{Member, ViewKey};
use crate::stream::wanted::Wanted;

/// A session's hands.
pub struct Port<'a> {
    pub(super) inner: &'a mut Inner,
    pub(super) owner: &'a Subscribers,
    pub(super) id: SlotId,
}

impl Port<'_> {
    /// Looks up where `place` is, in what is visible below `end`;
    /// [`Session::found`](super::Session::found) is called with it, and with the search's number, which
    /// is returned.
    pub fn search(&self, wanted: Rc<Wanted>, place: StartPlace, end: Offset) -> u32 {
        let search = self.owner.searches.get().wrapping_add(1);
        self.owner.searches.set(search);
        let Some(owner) = self.owner.me.upgrade() else { return search };
        let (id, log, turns) = (self.id, owner.log.clone(), owner.turns.clone());
        monoio::spawn(async move {
            let is_there = || owner.has(id);
            let found = search::find(&log, &turns, wanted, place, end, is_there).await;
            owner.found(id, search, found);
        });
        search
    }

    /// Begins a subscription, from an offset on. One whose client has been here before, `is_resumed`, is told
    /// of what was deleted since.
    pub fn join(
        &mut self,
        number: u16,
        key: &ViewKey,
        render: Rc<dyn Render>,
        from: Offset,
        is_resumed: bool,
    ) {
        self.inner.views.hide(&self.owner.log.floors());
        let member = Member { slot: self.id.index, number };
        let (view, position) = self.inner.views.join(key, member, || render);
        let place = Subscription::new(from);
        let state = SubState::Live;
        let told_deleted = self.inner.known_deleted(is_resumed);
        let sub = Sub { number, state, has_sent: false, view, position, place, told_deleted };
        let Some(Subs::Many(many)) = self.inner.slots.get_mut(self.id).map(|slot| &mut slot.subs)
        else {
            unreachable!("a session is called while it is there");
        };
        many.subs.push(sub);
        self.inner.queue(self.id);
    }

    /// Ends a subscription; false if there is none of this number.
    pub fn leave(&mut self, number: u16) -> bool {
        let Some(Subs::Many(many)) = self.inner.slots.get_mut(self.id).map(|slot| &mut slot.subs)
        else {
            unreachable!("a session is called while it is there");
        };
        let Some(at) = many.subs.iter().position(|sub| sub.number == number) else { return false };
        let sub = many.subs.swap_remove(at);
        if sub.state == SubState::Behind {
            self.inner.behind.leave(Job { id: self.id, number });
        }
        self.inner.quit(&sub);
        true
    }

    /// The subscriptions of which nothing left since this was asked last, each with how far it has
    /// come; the session tells its client. Those that wait beyond the end have no cursor yet.
    pub fn silent(&mut self) -> Vec<(u16, Offset)> {
        let Inner { slots, views, .. } = &mut *self.inner;
        let Some(slot) = slots.get_mut(self.id) else { return Vec::new() };
        let visible = self.owner.log.visible();
        let mut silent = Vec::new();
        for sub in slot.all_subs_mut() {
            if std::mem::take(&mut sub.has_sent) {
                continue;
            }
            if let Some(next) = look_ahead(sub, views)
                && next <= visible
            {
                sub.place.told();
                silent.push((sub.number, next));
            }
        }
        silent
    }

    /// Whether it is time for others: what else has come in is done later.
    pub fn is_over(&self) -> bool {
        self.inner.slice.is_over()
    }

    /// Whether its socket takes nothing more now.
    pub fn is_full(&mut self) -> bool {
        self.inner.slots.get_mut(self.id).is_none_or(|slot| slot.wire.is_full)
    }

    /// How many bytes the client has acknowledged; `None` if nobody can tell.
    pub fn taken_bytes(&mut self) -> Option<u64> {
        self.inner.slots.get_mut(self.id)?.wire.taken_bytes().ok()
    }
}
