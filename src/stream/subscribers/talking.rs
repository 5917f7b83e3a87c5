//! What connections say: a session is given it, of the others it is thrown away.
//!
//! A session is called by one at a time, with nothing of it borrowed: it is out of its slot meanwhile.

use std::rc::Rc;

use strandline_storage::error::ReadError;
use strandline_storage::offset::Offset;

use super::slot::{Phase, Slot, Subs};
use super::{End, Inner, Port, Session, SlotId, Subscribers};
use crate::log_calls::AckFuture;

/// Who only listens has nothing to say; more than a pipelined request or two is a mistake or a flood.
/// (After a WebSocket's close it is what the client had sent before it could know.)
const THROWN_AWAY_BYTES_MAX: u32 = 8 * 1024 * 1024;

impl Subscribers {
    pub(super) fn found(&self, id: SlotId, search: u32, found: Result<Offset, ReadError>) {
        let mut inner = self.inner.borrow_mut();
        if inner.slots.get_mut(id).is_none_or(|slot| !matches!(slot.phase, Phase::Open)) {
            return;
        }
        inner.call(self, id, |session, port| session.found(search, found, port));
        inner.queue(id);
        drop(inner);
        self.wake();
    }

    /// Hands a session the answers to what it appended, one after the other.
    async fn settle(self: Rc<Self>, id: SlotId) {
        loop {
            let append = self.inner.borrow_mut().next_append(id);
            let Some(append) = append else { return };
            let result = append.await;
            let mut inner = self.inner.borrow_mut();
            let Some(slot) = inner.slots.get_mut(id) else { return };
            // Nothing follows a goodbye.
            if matches!(slot.phase, Phase::Leaving { .. }) {
                return;
            }
            let Subs::Many(many) = &mut slot.subs else { return };
            many.session.as_mut().expect("it is not called now").acknowledged(result);
            inner.queue(id);
            drop(inner);
            self.wake();
        }
    }

    fn spawn_settle(&self, id: SlotId) {
        if let Some(me) = self.me.upgrade() {
            monoio::spawn(me.settle(id));
        }
    }
}

impl Inner {
    /// Reads what has come in, once; an error is the end of the connection.
    pub(super) fn take_input(&mut self, owner: &Subscribers, id: SlotId) -> Result<(), ()> {
        let Some(slot) = self.slots.get_mut(id) else { return Ok(()) };
        if matches!((&slot.phase, &slot.subs), (Phase::Open, Subs::Many(_))) {
            // What waited for room is taken up first.
            self.call(owner, id, |session, port| session.resume(port));
        }
        let Some(slot) = self.slots.get_mut(id) else { return Ok(()) };
        if let (Phase::Open, Subs::Many(many)) = (&slot.phase, &slot.subs)
            && !many.session.as_ref().expect("it is not called now").may_receive()
        {
            self.queue_for_rest(id);
            return Ok(());
        }
        if !slot.has_input {
            return Ok(());
        }
        let mut input = std::mem::take(&mut self.input);
        let received = slot.wire.receive(&mut input);
        let outcome = match received {
            Ok(None) => {
                slot.has_input = false;
                Ok(())
            }
            Ok(Some(0)) | Err(_) => Err(()),
            Ok(Some(count)) => {
                // Less than there was room for: nothing is left, and whatever comes is told of.
                slot.has_input = count == input.len() || slot.has_end;
                let is_open = matches!(slot.phase, Phase::Open);
                if is_open && matches!(slot.subs, Subs::Many(_)) {
                    self.call(owner, id, |session, port| session.receive(&input[..count], port));
                    Ok(())
                } else {
                    let count = u32::try_from(count).expect("a buffer is small");
                    slot.thrown_away_bytes = slot.thrown_away_bytes.saturating_add(count);
                    if slot.thrown_away_bytes > THROWN_AWAY_BYTES_MAX { Err(()) } else { Ok(()) }
                }
            }
        };
        self.input = input;
        if self.slots.get_mut(id).is_some_and(|slot| slot.has_input) {
            self.queue(id);
        }
        self.queue_for_rest(id);
        outcome
    }

    /// A session that has let others go first has its turn behind them.
    fn queue_for_rest(&mut self, id: SlotId) {
        if let Some(Slot { phase: Phase::Open, subs: Subs::Many(many), .. }) =
            self.slots.get_mut(id)
            && many.session.as_ref().expect("it is not called now").lets_others_first()
        {
            self.queue(id);
        }
    }

    /// Calls a session, and does what follows from it.
    pub(super) fn call(
        &mut self,
        owner: &Subscribers,
        id: SlotId,
        call: impl FnOnce(&mut dyn Session, &mut Port<'_>) -> Result<(), End>,
    ) {
        let Some(Subs::Many(many)) = self.slots.get_mut(id).map(|slot| &mut slot.subs) else {
            return;
        };
        let mut session = many.session.take().expect("it is called by one at a time");
        let outcome = call(session.as_mut(), &mut Port { inner: self, owner, id });
        let has_appends = session.has_appends();
        let Some(Subs::Many(many)) = self.slots.get_mut(id).map(|slot| &mut slot.subs) else {
            unreachable!("a session does not remove itself");
        };
        many.session = Some(session);
        if has_appends && !std::mem::replace(&mut many.is_settling, true) {
            owner.spawn_settle(id);
        }
        if let Err(end) = outcome {
            self.end(id, end);
        }
    }

    fn next_append(&mut self, id: SlotId) -> Option<AckFuture> {
        let Subs::Many(many) = &mut self.slots.get_mut(id)?.subs else { return None };
        let append = many.session.as_mut().expect("it is not called now").next_append();
        many.is_settling = append.is_some();
        if append.is_none() {
            self.queue(id);
        }
        append
    }
}
