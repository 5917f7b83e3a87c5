//! How a connection ends.
//!
//! ```text
//!            a stream                       last words --> taken --> our side ends, and it is gone
//!   Open --<
//!            a session --> Settling: its appends are answered --> goodbye --> Leaving: the client's end
//! ```
//! Each step has a deadline in the wheel; who is lost is gone at once.

use super::slot::{Phase, Sub, Subs};
use super::wheel::ticks;
use super::{End, Inner, SlotId};
use crate::stream::chunk::Word;
use crate::stream::view::Moved;

/// At the end, publishes that were taken have so long to be acknowledged: a commit's time, many times.
const SETTLE_MS: u64 = 2_000;

/// A stream that is told of its end has so long to take it, or a session to end its side.
const LEAVING_MS: u64 = 2_000;

impl Inner {
    /// Begins the end of a connection.
    pub(super) fn end(&mut self, id: SlotId, end: End) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        if end == End::Lost {
            return self.remove(id);
        }
        if !matches!(slot.phase, Phase::Open) {
            return;
        }
        if let Subs::Many(_) = slot.subs {
            slot.phase = Phase::Settling(end);
            self.set_alarm(id, self.tick + ticks(SETTLE_MS));
            return self.settle_or_leave(id);
        }
        let Subs::One { sub, .. } = &slot.subs else { return };
        let mut text = Vec::new();
        if let End::Close(code) = end {
            self.views.get(sub.view).render.say(Word::Closing(code), &mut text);
        }
        slot.phase = Phase::Leaving { is_shut: false };
        self.set_alarm(id, self.tick + ticks(LEAVING_MS));
        let slot = self.slots.get_mut(id).expect("it is there");
        match slot.wire.append(&text) {
            Ok(_) => self.leave(id),
            Err(_) => self.remove(id),
        }
    }

    /// A session that ends says goodbye once everything it appended has its answer.
    pub(super) fn settle_or_leave(&mut self, id: SlotId) {
        if self.slots.get_mut(id).is_some_and(|slot| !slot.has_appends()) {
            self.say_goodbye(id);
        }
    }

    pub(super) fn say_goodbye(&mut self, id: SlotId) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        let Phase::Settling(end) = slot.phase else { return };
        slot.phase = Phase::Leaving { is_shut: false };
        let Subs::Many(many) = &mut slot.subs else { return };
        let session = many.session.as_mut().expect("it is not called now");
        session.close(end);
        let answers = session.take_answers();
        let is_sent = slot.wire.append(&answers).is_ok();
        for sub in std::mem::take(&mut many.subs) {
            self.quit(&sub);
        }
        self.set_alarm(id, self.tick + ticks(LEAVING_MS));
        if is_sent { self.leave(id) } else { self.remove(id) }
    }

    /// Ends our side once everything has been taken; a session's client is waited for.
    pub(super) fn leave(&mut self, id: SlotId) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        let Phase::Leaving { is_shut } = &mut slot.phase else { return };
        if *is_shut || !slot.wire.is_drained() {
            return;
        }
        *is_shut = true;
        let is_shut = slot.wire.shut_down().is_ok();
        if !is_shut || matches!(slot.subs, Subs::One { .. }) {
            self.remove(id);
        }
    }

    /// Drops a connection as it stands.
    pub(super) fn remove(&mut self, id: SlotId) {
        let Some(mut slot) = self.slots.remove(id) else { return };
        match &mut slot.subs {
            Subs::One { sub, .. } => self.quit(sub),
            Subs::Many(many) => {
                for sub in std::mem::take(&mut many.subs) {
                    self.quit(&sub);
                }
            }
        }
    }

    /// Takes a subscription, which its connection has let go of, out of its view.
    pub(super) fn quit(&mut self, sub: &Sub) {
        let Some(Moved { member, is_owed_news }) = self.views.leave(sub.view, sub.position) else {
            return;
        };
        let Some((id, slot)) = self.slots.at_mut(member.slot) else { return };
        if let Some(other) = slot.sub_mut(member.number) {
            other.position = sub.position;
        }
        if is_owed_news {
            self.queue(id);
        }
    }
}
