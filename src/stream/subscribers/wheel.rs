//! When connections want to be looked at: heartbeats and last deadlines, thousands for one timer.
//!
//! Time goes in ticks of [`TICK_MS`]. A connection has one alarm; putting it off costs nothing: when
//! it rings, its owner says for when it is set anew. An alarm that was set earlier, or whose connection
//! has ended, leaves its old entry behind, which its owner does not recognise any more: once most are
//! such, they are taken out together.

use std::collections::BTreeMap;

use super::slab::SlotId;

/// How fine time is.
pub(super) const TICK_MS: u64 = 100;

/// Milliseconds as ticks, at least one.
pub(super) fn ticks(ms: u64) -> u32 {
    u32::try_from((ms / TICK_MS).max(1)).unwrap_or(u32::MAX)
}

/// Alarms by tick.
#[derive(Debug, Default)]
pub(super) struct Wheel {
    by_tick: BTreeMap<u32, Vec<SlotId>>,
    /// How many there are, with those that were left behind.
    len: usize,
}

impl Wheel {
    /// Sets an alarm.
    pub(super) fn set(&mut self, tick: u32, id: SlotId) {
        self.by_tick.entry(tick).or_default().push(id);
        self.len += 1;
    }

    /// How many alarms there are, with those that were left behind.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Keeps the alarms that `is_set` recognises.
    pub(super) fn retain(&mut self, mut is_set: impl FnMut(u32, SlotId) -> bool) {
        self.by_tick.retain(|tick, ids| {
            ids.retain(|id| is_set(*tick, *id));
            ids.shrink_to_fit();
            !ids.is_empty()
        });
        self.len = self.by_tick.values().map(Vec::len).sum();
    }

    /// The next tick with an alarm.
    pub(super) fn next_tick(&self) -> Option<u32> {
        self.by_tick.first_key_value().map(|(tick, _)| *tick)
    }

    /// Takes the alarms of the earliest tick, if that is not behind `now`.
    pub(super) fn take_due(&mut self, now: u32) -> Option<(u32, Vec<SlotId>)> {
        let first = self.by_tick.first_entry().filter(|first| *first.key() <= now)?;
        let (tick, ids) = first.remove_entry();
        self.len -= ids.len();
        Some((tick, ids))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_ring_in_order_and_not_before_their_time() {
        let mut wheel = Wheel::default();
        let id = |index| SlotId { index, generation: 0 };
        wheel.set(7, id(1));
        wheel.set(3, id(2));
        wheel.set(7, id(3));
        assert_eq!((wheel.next_tick(), wheel.take_due(2)), (Some(3), None));
        assert_eq!(wheel.take_due(9), Some((3, vec![id(2)])));
        assert_eq!(wheel.take_due(9), Some((7, vec![id(1), id(3)])));
        assert_eq!((wheel.take_due(9), wheel.next_tick(), wheel.len()), (None, None, 0));
    }

    #[test]
    fn alarms_that_are_not_recognised_leave_no_tick_behind() {
        let mut wheel = Wheel::default();
        let id = |index| SlotId { index, generation: 0 };
        for (tick, index) in [(3, 1), (7, 1), (7, 2)] {
            wheel.set(tick, id(index));
        }
        wheel.retain(|tick, of| (tick, of) == (7, id(1)));
        assert_eq!((wheel.len(), wheel.next_tick()), (1, Some(7)));
        assert_eq!(wheel.take_due(9), Some((7, vec![id(1)])));
        assert_eq!(wheel.len(), 0);
    }
}
