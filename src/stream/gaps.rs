//! Which damaged parts of the log the server's log has been told of: each once, however many readers
//! pass over it, and on whichever shard.

use std::fmt::Display;
use std::ops::Range;
use std::sync::Mutex;

use strandline_storage::offset::Offset;

/// So many are reported one by one; a log with more has been damaged as a whole.
const GAPS_MAX: usize = 1024;

/// The gaps that were reported; shared by all shards. Readers meet one seldom enough for a lock.
#[derive(Debug, Default)]
pub struct ReportedGaps(Mutex<Vec<Range<Offset>>>);

impl ReportedGaps {
    /// A reader has met a gap. Says so in the server's log, if it is the first that did.
    pub fn report(&self, from: Offset, to: Offset, why: &dyn Display) {
        match self.note(from..to) {
            Some(GAPS_MAX) => tracing::error!(
                %from, %to, %why,
                "the log is damaged: readers pass over this gap; further ones are not named here"
            ),
            Some(_) => tracing::error!(
                %from, %to, %why,
                "the log is damaged: readers are told of this gap and pass over it"
            ),
            None => tracing::debug!(%from, %to, "a reader passes over a gap that is known"),
        }
    }

    /// How many have been reported.
    pub fn count(&self) -> usize {
        self.0.lock().expect("no holder panics").len()
    }

    /// Remembers a gap; returns which one it is, from 1, if it is to be reported. One that lies within
    /// another is that other's: a reader may have begun inside it.
    fn note(&self, gap: Range<Offset>) -> Option<usize> {
        let mut gaps = self.0.lock().expect("no holder panics");
        let covers = |known: &Range<Offset>| known.start <= gap.start && gap.end <= known.end;
        if gaps.len() == GAPS_MAX || gaps.iter().any(covers) {
            return None;
        }
        gaps.push(gap);
        Some(gaps.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_reported_once_and_there_is_an_end_to_it() {
        let gaps = ReportedGaps::default();
        let note = |from: u64, to: u64| gaps.note(Offset::new(from)..Offset::new(to));
        assert_eq!(
            (note(10, 20), note(10, 20), note(15, 20), note(10, 12)),
            (Some(1), None, None, None)
        );
        assert_eq!((note(20, 30), note(5, 20)), (Some(2), Some(3)), "more than was known");
        let reported = (0..2000).filter(|at| note(100 + at * 10, 105 + at * 10).is_some()).count();
        assert_eq!(reported, GAPS_MAX - 3);
    }
}
