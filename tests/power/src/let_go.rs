//! What of rooms was deleted or trimmed, as their clients know it. Pure.
//!
//! ```text
//! offsets of a room    0 ............ gone ............ may be gone ............
//!                        never again        either             must be there
//! ```
//! What is asked for may be gone from then on, and is once that was answered, or once somebody found an event to be gone: from then
//! on none of it may be read, whatever becomes of the server.

use std::{collections::BTreeMap, fmt};

/// By room, which is the number of its publisher.
#[derive(Clone, Debug, Default)]
pub struct LetGo {
    floors: BTreeMap<u32, Floor>,
    done: [u64; 3],
}

#[derive(Clone, Copy, Debug, Default)]
struct Floor {
    gone: u64,
    may_be_gone: u64,
}

/// What was done with a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// All of its events were deleted, with its settings.
    Deleted = 0,
    /// Those before some offset were.
    Trimmed = 1,
    /// All that can be asked about it was, and is as it has to be.
    Looked = 2,
}

impl LetGo {
    /// Somebody asks for all of a room below an offset to go.
    pub fn asked(&mut self, room: u32, below: u64) {
        let floor = self.floors.entry(room).or_default();
        floor.may_be_gone = floor.may_be_gone.max(below);
    }

    /// That was answered: all that may be gone is.
    pub fn answered(&mut self, room: u32) {
        let floor = self.floors.entry(room).or_default();
        floor.gone = floor.may_be_gone;
    }

    /// An event that was there is not any more.
    pub fn found_gone(&mut self, room: u32, offset: u64) {
        let floor = self.floors.entry(room).or_default();
        floor.gone = floor.gone.max(offset + 1);
    }

    /// So much was done.
    pub fn count(&mut self, done: Done) {
        self.done[done as usize] += 1;
    }

    /// Whether a room's event must not be read any more.
    pub fn is_gone(&self, room: u32, offset: u64) -> bool {
        self.floors.get(&room).is_some_and(|floor| offset < floor.gone)
    }

    /// Whether it need not be there.
    pub fn may_be_gone(&self, room: u32, offset: u64) -> bool {
        self.floors.get(&room).is_some_and(|floor| offset < floor.may_be_gone)
    }

    /// Whether there was some of everything.
    pub fn has_all(&self) -> bool {
        self.done.iter().all(|count| *count > 0)
    }
}

impl fmt::Display for LetGo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [deleted, trimmed, looked] = self.done;
        write!(formatter, "rooms deleted {deleted} times, trimmed {trimmed}, looked at {looked}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_may_be_gone_and_what_was_answered_is() {
        let mut let_go = LetGo::default();
        let of =
            |let_go: &LetGo, offset| (let_go.is_gone(7, offset), let_go.may_be_gone(7, offset));
        assert_eq!(of(&let_go, 0), (false, false));
        let_go.asked(7, 5);
        assert_eq!((of(&let_go, 4), of(&let_go, 5)), ((false, true), (false, false)));
        let_go.found_gone(7, 2);
        assert_eq!((of(&let_go, 2), of(&let_go, 3)), ((true, true), (false, true)));
        let_go.answered(7);
        assert_eq!((of(&let_go, 4), of(&let_go, 5)), ((true, true), (false, false)));
        assert!(!let_go.is_gone(8, 0), "another room");
    }

    #[test]
    fn a_run_has_some_of_everything() {
        let mut let_go = LetGo::default();
        for done in [Done::Deleted, Done::Trimmed, Done::Looked] {
            assert!(!let_go.has_all());
            let_go.count(done);
        }
        assert!(let_go.has_all(), "{let_go}");
    }
}
