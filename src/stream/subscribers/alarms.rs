//! What connections do when their alarm rings: a heartbeat, or the end of a deadline.

use std::io;

use strandline_storage::offset::Offset;

use super::slot::{Phase, Sub, SubState, Subs};
use super::wheel::TICK_MS;
use super::{Inner, SlotId, Subscribers};
use crate::clock;
use crate::stream::chunk::{RingPlace, Word};
use crate::stream::views::Views;

impl Inner {
    pub(super) fn set_alarm(&mut self, id: SlotId, tick: u32) {
        if let Some(slot) = self.slots.get_mut(id)
            && slot.alarm_tick != tick
        {
            slot.alarm_tick = tick;
            self.wheel.set(tick, id);
        }
    }

    /// Takes the alarms that are due; thousands may be, so they ring one after the other.
    pub(super) fn take_alarms(&mut self) {
        while let Some((tick, ids)) = self.wheel.take_due(self.tick) {
            for id in ids {
                if let Some(slot) = self.slots.get_mut(id)
                    && slot.alarm_tick == tick
                {
                    slot.alarm_tick = 0;
                    self.rung.push(id);
                }
            }
        }
    }

    pub(super) fn ring(&mut self, owner: &Subscribers, id: SlotId) {
        match self.slots.get_mut(id).map(|slot| &slot.phase) {
            None => {}
            Some(Phase::Settling(_)) => {
                tracing::warn!("publishes of a connection end without an acknowledgement");
                self.say_goodbye(id);
            }
            Some(Phase::Leaving { .. }) => self.remove(id),
            Some(Phase::Open) => self.beat_if_due(owner, id),
        }
    }

    fn beat_if_due(&mut self, owner: &Subscribers, id: SlotId) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        let due = slot.beat_tick.saturating_add(slot.heartbeat_ticks);
        if due > self.tick {
            return self.set_alarm(id, due);
        }
        slot.beat_tick = self.tick;
        let next = self.tick + slot.heartbeat_ticks;
        self.set_alarm(id, next);
        let slot = self.slots.get_mut(id).expect("it is there");
        match &slot.subs {
            // Its client, who waits for us, shows no sign of life, nor would it get any words.
            Subs::Many(_) if slot.wire.is_waiting() => {}
            Subs::Many(_) => {
                self.call(owner, id, |session, port| session.beat(port));
                self.queue(id);
            }
            Subs::One { .. } => {
                if self.beat_stream(owner, id).is_err() {
                    self.remove(id);
                }
            }
        }
    }

    /// A stream's heartbeat: with a cursor if the client's would take it back over what held nothing
    /// for it. Where something waits to be taken, that is sign enough.
    fn beat_stream(&mut self, owner: &Subscribers, id: SlotId) -> io::Result<()> {
        let Some(slot) = self.slots.get_mut(id) else { return Ok(()) };
        if !slot.prepare()? {
            return Ok(());
        }
        let Subs::One { sub, is_pinging } = &mut slot.subs else { return Ok(()) };
        let word = match look_ahead(sub, &mut self.views) {
            Some(next) if *is_pinging || sub.place.has_moved_silently() => {
                sub.place.told();
                let next = Some(next).filter(|next| *next <= owner.log.visible());
                Word::Ping { next, now_ms: clock::unix_ms() }
            }
            _ => Word::Heartbeat,
        };
        let mut text = Vec::new();
        self.views.get(sub.view).render.say(word, &mut text);
        slot.wire.send(text.into()).map(|_| ())
    }
}

/// How far a subscription has come, nothing that its view has seen since being for it; `None` before it
/// has begun.
pub(super) fn look_ahead(sub: &mut Sub, views: &mut Views) -> Option<Offset> {
    match sub.state {
        SubState::Searching => return None,
        SubState::Live => {
            let ring = &views.up_to_date(sub.view).ring;
            if let RingPlace::Chunks(first) = ring.place_of(sub.place.next())
                && ring.chunks_from(first).len() == 0
            {
                sub.place.considered(views.considered(sub.view));
            }
        }
        SubState::Behind | SubState::Stalled => {}
    }
    Some(sub.place.next())
}

/// Milliseconds as ticks, at least one.
pub(super) fn ticks(ms: u64) -> u32 {
    u32::try_from((ms / TICK_MS).max(1)).unwrap_or(u32::MAX)
}
