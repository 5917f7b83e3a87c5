//! What the events of a log come to beside the events themselves, and beside its topics: what has
//! happened once and must not happen again, and the rules that hold. Pure.
//!
//! It is a fold over the log: of frames as they become visible, and of what the index of each segment
//! says of it (its *state delta*), in offset order. Both give the same.

use crate::{
    index::{StateDelta, StoredControl},
    offset::Offset,
    once::{IdEntry, IdWindow, Ids, ProducerEntry, Producers},
    rules::Rules,
};

/// The state of a log at one offset.
#[derive(Debug)]
pub struct LogState {
    /// The ids of the newest events.
    pub ids: Ids,
    /// How far producers have come.
    pub producers: Producers,
    /// Settings, deletions and trims.
    pub rules: Rules,
}

impl LogState {
    /// Of a log without events.
    pub fn new(window: IdWindow) -> LogState {
        LogState { ids: Ids::new(window), producers: Producers::default(), rules: Rules::default() }
    }

    /// Takes in what a segment that was scanned adds.
    pub fn add_delta(&mut self, delta: &StateDelta) {
        self.add(delta.ids(), delta.producers(), delta.controls());
    }

    /// Takes in what the next part of the log adds.
    pub fn add<'a>(
        &mut self,
        ids: impl Iterator<Item = &'a IdEntry>,
        producers: impl Iterator<Item = ProducerEntry>,
        controls: &[StoredControl],
    ) {
        for entry in ids {
            self.ids.push(*entry);
            self.ids.settle(entry.offset.plus(1));
        }
        for entry in producers {
            self.producers.put(entry);
        }
        for control in controls {
            self.rules.apply_stored(control);
        }
    }

    /// Takes back what was staged from an offset on and never written.
    pub fn take_back(&mut self, from: Offset) {
        self.ids.take_back(from);
        self.producers.take_back(from);
    }
}
