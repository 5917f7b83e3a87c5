//! What connections do when their alarm rings: a heartbeat, or the end of a deadline.

use std::io;

use strandline_storage::offset::Offset;

use super::slot::{Phase, Sub, SubState, Subs};
use super::{Inner, SlotId, Subscribers};
use crate::clock;
use crate::stream::chunk::{RingPlace, Word};
use crate::stream::views::Views;

/// Alarms left behind that are not worth a sweep.
const SPARE_ALARMS: usize = 1024;

impl Inner {
    pub(super) fn set_alarm(&mut self, id: SlotId, tick: u32) {
        if let Some(slot) = self.slots.get_mut(id)
            && slot.alarm_tick != tick
        {
            slot.alarm_tick = tick;
            self.wheel.set(tick, id);
            self.sweep_alarms();
        }
    }

    /// Connections that come and go leave an alarm behind for as long as five minutes. When one is set, there are no more of
    /// those than of connections, but for a few.
    fn sweep_alarms(&mut self) {
        if self.wheel.len() > 2 * self.slots.len() + SPARE_ALARMS {
            let slots = &mut self.slots;
            self.wheel
                .retain(|tick, id| slots.get_mut(id).is_some_and(|slot| slot.alarm_tick == tick));
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
        // What it does has changed since, and its alarm was set anew: it is for that to say what a deadline means.
        let Some(slot) = self.slots.get_mut(id).filter(|slot| slot.alarm_tick == 0) else { return };
        match slot.phase {
            Phase::Settling(_) => {
                if slot.has_appends() {
                    tracing::warn!("publishes of a connection end without an acknowledgement");
                }
                self.say_goodbye(id);
            }
            Phase::Leaving { .. } => self.remove(id),
            Phase::Open => self.beat_if_due(owner, id),
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
    /// for it, which there is none of before it is known where the stream begins. Where something waits to be taken, that is sign enough.
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
            None if *is_pinging => Word::Ping { next: None, now_ms: clock::unix_ms() },
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

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::rc::Rc;

    use bytes::Bytes;
    use strandline_storage::event::EventView;

    use super::super::{CloseCode, End, StreamStart, testing};
    use super::*;
    use crate::stream::chunk::Render;

    /// Says by name what kind of heartbeat it is.
    struct Names;

    impl Render for Names {
        fn event(&self, _: &EventView<'_>, _: &mut Vec<u8>) {}

        fn say(&self, word: Word, out: &mut Vec<u8>) {
            let name = match word {
                Word::Ping { next: None, .. } => "ping without a cursor",
                Word::Heartbeat => "heartbeat",
                _ => "something else",
            };
            out.extend_from_slice(name.as_bytes());
        }
    }

    /// A stream whose beginning is being searched for, and its client.
    fn add_searching(subscribers: &Subscribers, is_pinging: bool) -> (SlotId, UnixStream) {
        let (socket, client) = UnixStream::pair().expect("a pair of sockets");
        let start = StreamStart {
            key: testing::everything(),
            render: Rc::new(Names),
            from: None,
            is_resumed: false,
            text: Bytes::from_static(b"head, "),
            heartbeat_s: 300,
            is_pinging,
        };
        let id =
            subscribers.add_stream(socket.into(), start, testing::guard()).expect("it is watched");
        (id, client)
    }

    #[test]
    fn who_asked_for_pings_gets_them_while_its_beginning_is_searched_for() {
        testing::on_a_shard(|subscribers| {
            for (is_pinging, wanted) in
                [(true, "head, ping without a cursor"), (false, "head, heartbeat")]
            {
                let (id, mut client) = add_searching(&subscribers, is_pinging);
                let mut inner = subscribers.inner.borrow_mut();
                inner.beat_stream(&subscribers, id).expect("it is sent");
                let mut got = [0; 100];
                let count = client.read(&mut got).expect("it was sent");
                assert_eq!(std::str::from_utf8(&got[..count]), Ok(wanted));
            }
        });
    }

    /// Its heartbeat was due when it began to end: the alarm counted as the end of its deadline, which is two seconds off.
    #[test]
    fn a_heartbeat_that_was_due_ends_nobody_who_has_begun_to_leave() {
        testing::on_a_shard(|subscribers| {
            let (id, _client) = add_searching(&subscribers, false);
            let mut inner = subscribers.inner.borrow_mut();
            let slot = inner.slots.get_mut(id).expect("it is there");
            let due = slot.alarm_tick;
            // Its client reads nothing, so that it is some time on its way out.
            slot.wire.send(Bytes::from(vec![b'x'; 4 << 20])).expect("it is sent");
            inner.tick = due;
            inner.take_alarms();
            assert_eq!(inner.rung, [id]);
            inner.end(id, End::Close(CloseCode::Drained));
            inner.ring(&subscribers, id);
            assert!(inner.slots.get_mut(id).is_some(), "it has its two seconds");
            inner.tick = inner.wheel.next_tick().expect("its deadline");
            inner.take_alarms();
            inner.ring(&subscribers, id);
            assert!(inner.slots.get_mut(id).is_none());
        });
    }

    /// They left an alarm each behind for as long as their heartbeat.
    #[test]
    fn connections_that_came_and_went_leave_few_alarms_behind() {
        testing::on_a_shard(|subscribers| {
            let (stays, _client) = add_searching(&subscribers, false);
            for _ in 0..3 * SPARE_ALARMS {
                let (id, _client) = add_searching(&subscribers, false);
                subscribers.inner.borrow_mut().remove(id);
            }
            let mut inner = subscribers.inner.borrow_mut();
            assert!(inner.wheel.len() <= SPARE_ALARMS + 4, "{} alarms", inner.wheel.len());
            let tick = inner.slots.get_mut(stays).map(|slot| slot.alarm_tick).expect("it is there");
            inner.tick = tick;
            inner.take_alarms();
            assert!(inner.rung.contains(&stays), "the alarm that counts was swept away");
        });
    }
}
