//! Readers that let go of what has gone from the log.

use std::{ops::Range, sync::Arc};

use crate::{
    io::Disk,
    offset::Offset,
    reader::{Plan, Reader, Run, Visit},
    segment::SegmentName,
    segment_set::SegmentSet,
    selection::{Order, Selection},
};

/// A [`Reader`] between two uses: it knows where it was, and has nothing open.
pub struct Resting {
    selection: Arc<Selection>,
    order: Order,
    left: Range<Offset>,
    expired: Option<Offset>,
    /// By its name: a segment that was rewritten has another.
    visit: Option<(SegmentName, Plan, Run)>,
}

impl<D: Disk> Reader<D> {
    /// The segments that it reads.
    pub fn set(&self) -> &Arc<SegmentSet<D>> {
        &self.set
    }

    /// Reads on in a later set of the same log, and lets go of the one before. Where limits of the log have passed
    /// the place of an ascending reader, it says [`ReadError::Expired`](crate::error::ReadError::Expired).
    pub fn follow(&mut self, set: Arc<SegmentSet<D>>) {
        self.visit.take_if(|visit| {
            let known = set.find(visit.segment.base());
            known.is_none_or(|known| !Arc::ptr_eq(known, &visit.segment))
        });
        self.set = set;
        self.pass_what_is_gone();
    }

    /// Lets go of everything, until it is [woken](Resting::wake).
    pub fn rest(self) -> Resting {
        let Reader { selection, order, left, expired, visit, .. } = self;
        let visit = visit.map(|Visit { segment, plan, run }| (segment.name(), plan, run));
        Resting { selection, order, left, expired, visit }
    }

    fn pass_what_is_gone(&mut self) {
        let start = self.set.start().min(self.left.end);
        if self.order == Order::Ascending && self.left.start < start {
            self.left.start = start;
            self.expired = Some(self.set.start());
        }
    }
}

impl Resting {
    /// The reader, as one that has [followed](Reader::follow): it goes on where it was, and begins anew with a
    /// segment that was rewritten meanwhile.
    pub fn wake<D: Disk>(self, set: Arc<SegmentSet<D>>) -> Reader<D> {
        let Resting { selection, order, left, expired, visit } = self;
        let visit = visit.and_then(|(name, plan, run)| {
            let segment = set.find(name.base_offset).filter(|segment| segment.name() == name)?;
            Some(Visit { segment: Arc::clone(segment), plan, run })
        });
        let mut reader = Reader { set, selection, order, left, expired, visit };
        reader.pass_what_is_gone();
        reader
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        error::ReadError,
        io::sim::SimDisk,
        reader::{Hits, ReadQuery},
        testing::{TestLog, Written},
    };

    /// Three segments of some runs each.
    fn three_segments() -> TestLog {
        let mut log = TestLog::new(5);
        for segment in 0..3_u8 {
            let data = |frame: u8| vec![segment * 40 + frame; 20_000];
            let frames = (0..40).map(|frame| vec![("a", data(frame)), ("b", data(frame))]);
            log.add_sealed(&frames.collect::<Vec<_>>());
        }
        log
    }

    fn query(order: Order) -> ReadQuery {
        let (from, end) = (Offset::ZERO, Offset::new(240));
        ReadQuery { topics: Vec::new(), from, end, order }
    }

    /// What a reader gives in so many steps.
    fn read(reader: &mut Reader<SimDisk>, steps: usize) -> Vec<Written> {
        let mut events = Vec::new();
        for _ in 0..steps {
            let Some(hits) = reader.next_blocking().expect("sound segments") else { break };
            events.extend(hits.events().map(|event| Written {
                offset: event.offset().get(),
                time_ms: event.time_ms(),
                topic: event.topic().to_owned(),
                data: event.data().to_vec(),
            }));
        }
        events
    }

    #[test]
    fn a_reader_that_rests_and_follows_gives_the_same() {
        let log = three_segments();
        for order in [Order::Ascending, Order::Descending] {
            let mut expected = log.events.clone();
            if order == Order::Descending {
                expected.reverse();
            }
            for steps in [1, 3, 7] {
                let mut reader = Reader::new(log.set(), &query(order));
                let mut events = Vec::new();
                loop {
                    let more = read(&mut reader, steps);
                    if more.is_empty() {
                        break;
                    }
                    events.extend(more);
                    // The same files opened anew: none of the segments is the one that it was in.
                    reader.follow(log.set());
                    events.extend(read(&mut reader, steps));
                    reader = reader.rest().wake(log.set());
                }
                assert_eq!(events.len(), expected.len());
                assert!(events == expected, "{order:?}, {steps} steps");
            }
        }
    }

    #[test]
    fn nothing_is_open_that_the_log_does_not_have() {
        let log = three_segments();
        let set = log.set();
        let mut reader = Reader::new(Arc::clone(&set), &query(Order::Ascending));
        assert_eq!(read(&mut reader, 3).len(), 6);
        let mut segments: Vec<_> = set.iter().map(Arc::clone).collect();
        let later = Arc::new(set.without(segments[0].name()));
        drop(set);
        let are_unread =
            |segments: &[Arc<_>]| segments.iter().all(crate::segment_set::SealedSegment::is_unread);
        assert!(!are_unread(&segments[..1]));
        reader.follow(Arc::clone(&later));
        assert!(are_unread(&segments[..1]));
        let error = reader.next_blocking().expect_err("what it was to read is gone");
        assert!(matches!(error, ReadError::Expired { earliest } if earliest == Offset::new(80)));
        assert_eq!(read(&mut reader, 1)[0].offset, 80);

        let resting = reader.rest();
        drop(later);
        assert!(are_unread(&segments));
        let mut rewritten = SegmentSet::default();
        rewritten.push_retired(Offset::ZERO..Offset::new(160));
        rewritten.push(segments.pop().expect("three"));
        let mut reader = resting.wake(Arc::new(rewritten));
        let error = reader.next_blocking().expect_err("what it was to read is gone");
        assert!(matches!(error, ReadError::Expired { earliest } if earliest == Offset::new(160)));
        assert_eq!(read(&mut reader, usize::MAX).len(), 80);
    }

    /// The segment before it is damaged and stays, so that the log begins where it did.
    #[test]
    fn limits_that_pass_a_reader_behind_a_segment_that_stays_are_told() {
        let log = three_segments();
        let set = log.set();
        let names: Vec<_> = set.iter().map(|segment| segment.name()).collect();
        let passed = |later: &SegmentSet<SimDisk>| {
            let mut reader = Reader::new(Arc::clone(&set), &query(Order::Ascending));
            assert_eq!(read(&mut reader, 45).len(), 90);
            reader.follow(Arc::new(later.clone()));
            let first = |hits: Hits| hits.events().next().map(|event| event.offset().get());
            let told = reader.next_blocking().map(|hits| hits.and_then(first));
            (told, read(&mut reader, usize::MAX))
        };
        let (told, rest) = passed(&set.expired(names[1]));
        assert!(
            matches!(told, Err(ReadError::Expired { earliest }) if earliest == Offset::new(160)),
            "{told:?}"
        );
        assert_eq!(rest[0].offset, 160);
        // Later sets know it, too; and what topics' rules have removed nobody lacks.
        let (told, _) = passed(&set.expired(names[1]).without(names[2]));
        assert!(matches!(told, Err(ReadError::Expired { .. })), "{told:?}");
        let (told, rest) = passed(&set.without(names[1]));
        assert_eq!((told.expect("nothing to tell"), rest[0].offset), (Some(160), 162));
    }

    #[test]
    fn what_is_gone_is_no_gap_to_a_reader_that_comes_from_behind() {
        let log = three_segments();
        let set = log.set();
        let names: Vec<_> = set.iter().map(|segment| segment.name()).collect();
        let mut reader = Reader::new(Arc::clone(&set), &query(Order::Descending));
        assert_eq!(read(&mut reader, 3).len(), 6);
        reader.follow(Arc::new(set.without(names[1])));
        let rest = read(&mut reader, usize::MAX);
        let offsets = (0..234).rev().filter(|offset| !(80..160).contains(offset));
        assert!(rest.iter().map(|event| event.offset).eq(offsets));
    }
}
