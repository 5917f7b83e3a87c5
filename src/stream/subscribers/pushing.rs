//! What a connection is sent: whatever its views have that it has not got, for as long as its socket takes it.

use super::behind::Job;
use super::serving::{SEND_STEPS, STEPS_PER_LOOK};
use super::slot::{Phase, Served, SubState};
use super::{Inner, SlotId, Subscribers};
use crate::runtime::Slice;
use crate::stream::view::Member;

impl Inner {
    /// Serves members of the view whose turn it is, for as long as the slice lasts; returns how many
    /// steps that took since the clock was looked at.
    pub(super) fn serve_due(&mut self, slice: &Slice) -> u32 {
        let (mut steps, mut is_over) = (0_u32, false);
        let Some(view_id) = self.views.first_due() else { return 0 };
        while let Some(events) = self.views.look_at_next(view_id) {
            steps =
                steps.saturating_add(u32::try_from(events).unwrap_or(u32::MAX)).saturating_add(1);
            if steps >= STEPS_PER_LOOK {
                steps = 0;
                is_over = !self.ready.is_empty() || slice.is_over();
                if is_over {
                    // Some of its members have a turn all the same: there may always be more to look at.
                    break;
                }
            }
        }
        loop {
            let members = &mut self.views.get_mut(view_id).members;
            // Whoever is the only one may leave, and take the view along.
            let is_only_one = members.len() == 1;
            let Some(member) = members.next() else { break };
            steps += if self.serve(member) { SEND_STEPS } else { 1 };
            if is_only_one {
                break;
            }
            if steps >= STEPS_PER_LOOK {
                // Who has something to do by itself waits for a few sends, not for a whole round.
                if !self.ready.is_empty() || slice.is_over() {
                    self.views.served(false);
                    return steps;
                }
                steps = 0;
            }
        }
        self.views.served(true);
        if is_over { STEPS_PER_LOOK } else { steps }
    }

    /// Serves one member of a view from its ring; returns whether that took a send.
    pub(super) fn serve(&mut self, member: Member) -> bool {
        let Some((id, slot)) = self.slots.at_mut(member.slot) else { return false };
        let Some(sub) = slot.sub_mut(member.number) else { return false };
        let is_open = sub.state == SubState::Live && matches!(slot.phase, Phase::Open);
        if !is_open || slot.wire.is_full {
            return false;
        }
        let sent_before = slot.wire.sent_bytes();
        let served = match slot.prepare() {
            Ok(true) => slot.serve(member.number, &mut self.views, &self.begun, self.tick),
            Ok(false) => return true,
            Err(error) => Err(error),
        };
        let is_full = slot.wire.is_full;
        self.sends.note(slot.wire.sent_bytes() - sent_before);
        self.go_on_reading(id);
        match served {
            Ok(Served::Sent) => true,
            Ok(Served::Done) => is_full,
            Ok(Served::Behind) => {
                self.fall_behind(id, member.number);
                false
            }
            Err(_) => {
                self.remove(id);
                true
            }
        }
    }

    /// Does what a connection has to do: reads, sends what waited, serves its subscriptions.
    pub(super) fn run(&mut self, owner: &Subscribers, id: SlotId) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        slot.is_queued = false;
        if self.take_input(owner, id).is_err() {
            return self.remove(id);
        }
        let Some(slot) = self.slots.get_mut(id) else { return };
        let prepared = slot.prepare();
        self.go_on_reading(id);
        match prepared {
            Ok(true) => {}
            Ok(false) => return self.ask_for_rest(owner, id),
            Err(_) => return self.remove(id),
        }
        let Some(slot) = self.slots.get_mut(id) else { return };
        match slot.phase {
            Phase::Open => {}
            Phase::Settling(_) => return self.settle_or_leave(id),
            Phase::Leaving { .. } => return self.leave(id),
        }
        // Another begins each time: the first one may have more than the socket takes.
        let subs = slot.all_subs_mut();
        let numbers = subs.len();
        if numbers > 1 {
            subs.rotate_left(1);
        }
        for at in 0..numbers {
            let Some(slot) = self.slots.get_mut(id) else { return };
            let Some(sub) = slot.all_subs_mut().get_mut(at) else { break };
            let (number, state) = (sub.number, sub.state);
            match state {
                SubState::Live => {
                    self.serve(Member { slot: id.index, number });
                }
                SubState::Stalled if !slot.wire.is_full => self.fall_behind(id, number),
                _ => {}
            }
        }
    }

    pub(super) fn fall_behind(&mut self, id: SlotId, number: u16) {
        if let Some(sub) = self.slots.get_mut(id).and_then(|slot| slot.sub_mut(number)) {
            sub.state = SubState::Behind;
            self.behind.push(Job { id, number });
        }
    }

    /// A session whose answers have left takes up what came in meanwhile.
    pub(super) fn go_on_reading(&mut self, id: SlotId) {
        if let Some(slot) = self.slots.get_mut(id)
            && std::mem::take(&mut slot.has_room_again)
        {
            self.queue(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use bytes::Bytes;
    use strandline_storage::offset::Offset;

    use super::super::slot::Slot;
    use super::super::testing;
    use super::*;

    /// Only sends were counted: after a lost frame all of 100,000 members fell behind in one go.
    #[test]
    fn members_who_fall_behind_end_a_slice_too() {
        let mut inner = Inner::new(Offset::new(1));
        let clients: Vec<UnixStream> =
            (0..100).map(|_| testing::add(&mut inner, SubState::Live).1).collect();
        inner.views.advance(Offset::new(2));
        while inner.views.is_going_round() {
            inner.views.go_round();
        }
        let slice = Slice::begin();
        std::thread::sleep(Duration::from_millis(1));
        assert!(inner.views.has_due() && slice.is_over());
        assert!(inner.serve_due(&slice) >= STEPS_PER_LOOK);
        assert!(inner.views.has_due(), "the round is not over");
        inner.serve_due(&slice);
        assert!(!inner.views.has_due());
        drop(clients);
    }

    #[test]
    fn the_next_slice_is_longer_after_long_sends_to_members() {
        let mut inner = Inner::new(Offset::new(1));
        let (id, mut client) = testing::add(&mut inner, SubState::Live);
        let usual = inner.sends.next_slice();
        let wire = &mut inner.slots.get_mut(id).expect("it was added").wire;
        wire.send(Bytes::from(vec![b'x'; 300_000])).expect("the client is there");
        assert!(wire.is_full, "it takes less than that");
        client.set_nonblocking(true).expect("a socket");
        while client.read(&mut [0; 64 << 10]).is_ok() {}
        wire.is_full = false;
        inner.serve(Member { slot: id.index, number: 0 });
        let is_drained = |slot: &mut Slot| slot.wire.is_drained();
        assert_eq!(inner.slots.get_mut(id).map(is_drained), Some(true), "it takes the rest");
        assert!(inner.sends.next_slice() > usual);
    }
}
