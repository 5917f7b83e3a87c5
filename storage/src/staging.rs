//! Appends that wait for the next frame, with their offsets and times already given. Pure.
//!
//! Invariants:
//! 1. A batch goes into one frame, whole: a crash keeps all of it or nothing.
//! 2. What waits is bounded, in encoded bytes; past the limit an append is refused, not queued.
//! 3. A frame takes batches from the front, as many as fit its target size, and at least one.
//! 4. What waits has no topic number yet: those of a frame are looked up together when it is begun.

use std::{
    collections::VecDeque,
    iter::{self, Peekable},
};

use crate::{error::AppendError, event::StagedEvent, offset::Offset};

/// The appends that wait.
#[derive(Debug)]
pub struct Staging {
    events: VecDeque<StagedEvent>,
    batches: VecDeque<Batch>,
    /// The sum over `batches`.
    staged_bytes: usize,
    staged_bytes_max: usize,
}

#[derive(Clone, Copy, Debug)]
struct Batch {
    events: usize,
    /// An upper bound of what it adds to a frame.
    bytes: usize,
}

/// What the next frame will hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gathered {
    /// How many batches.
    pub batches: usize,
    /// How many events.
    pub events: usize,
    /// An upper bound of their encoded bytes.
    pub bytes: usize,
}

impl Gathered {
    /// The first of these batches that a frame takes.
    fn from(
        batches: &mut Peekable<impl Iterator<Item = Batch>>,
        bytes_target: usize,
        events_max: usize,
    ) -> Self {
        let mut gathered = Gathered::default();
        while let Some(batch) = batches.next_if(|batch| {
            let fits = gathered.bytes + batch.bytes <= bytes_target
                && gathered.events + batch.events <= events_max;
            gathered.batches == 0 || fits
        }) {
            gathered.batches += 1;
            gathered.events += batch.events;
            gathered.bytes += batch.bytes;
        }
        gathered
    }
}

impl Staging {
    /// Nothing waits; at most `staged_bytes_max` encoded bytes ever will.
    pub fn new(staged_bytes_max: usize) -> Self {
        Staging {
            events: VecDeque::new(),
            batches: VecDeque::new(),
            staged_bytes: 0,
            staged_bytes_max,
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// How many encoded bytes wait, at most.
    pub fn staged_bytes(&self) -> usize {
        self.staged_bytes
    }

    /// The offset of the last event of a topic that waits.
    pub fn last_of(&self, topic: &str) -> Option<Offset> {
        let last = self.events.iter().rev().find(|staged| *staged.event.topic == *topic);
        last.map(|staged| staged.offset)
    }

    /// Refuses a batch of `bytes` for which there is no room.
    pub fn check_room(&self, bytes: usize) -> Result<(), AppendError> {
        if self.staged_bytes + bytes > self.staged_bytes_max {
            return Err(AppendError::Overloaded { staged_bytes: self.staged_bytes as u64 });
        }
        Ok(())
    }

    /// Adds a batch that encodes to at most `bytes`.
    pub fn push(&mut self, batch: impl IntoIterator<Item = StagedEvent>, bytes: usize) {
        let before = self.events.len();
        self.events.extend(batch);
        let events = self.events.len() - before;
        assert!(events > 0, "a batch has events");
        self.batches.push_back(Batch { events, bytes });
        self.staged_bytes += bytes;
    }

    /// Which batches the next frame takes: from the front while their bytes stay within
    /// `bytes_target` and their events within `events_max`, and always the first.
    pub fn gather(&self, bytes_target: usize, events_max: usize) -> Gathered {
        let mut batches = self.batches.iter().copied().peekable();
        Gathered::from(&mut batches, bytes_target, events_max)
    }

    /// What the frames take, one after the other, until nothing waits any more, and no other batch behind one of so many
    /// `events` and `bytes`.
    pub fn gather_all_before(
        &self,
        (events, bytes): (usize, usize),
        bytes_target: usize,
        events_max: usize,
    ) -> impl Iterator<Item = Gathered> {
        let last = Batch { events, bytes };
        let mut batches = self.batches.iter().copied().chain([last]).peekable();
        iter::from_fn(move || {
            batches.peek()?;
            Some(Gathered::from(&mut batches, bytes_target, events_max))
        })
    }

    /// Every event that waits, in order.
    pub fn events(&self) -> impl Iterator<Item = &StagedEvent> {
        self.events.iter()
    }

    /// Every batch, in order, with its bytes.
    pub fn into_batches(mut self) -> impl Iterator<Item = (Vec<StagedEvent>, usize)> {
        let batches = std::mem::take(&mut self.batches).into_iter();
        batches.map(move |Batch { events, bytes }| (self.events.drain(..events).collect(), bytes))
    }

    /// The first `events` events, for the frame's encoder, which needs the numbers of their topics.
    pub fn front(&mut self, events: usize) -> &mut [StagedEvent] {
        if self.events.as_slices().0.len() < events {
            self.events.make_contiguous();
        }
        &mut self.events.as_mut_slices().0[..events]
    }

    /// Forgets what has gone into a frame.
    pub fn release(&mut self, gathered: Gathered) {
        self.events.drain(..gathered.events);
        self.batches.drain(..gathered.batches);
        self.staged_bytes -= gathered.bytes;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        event::NewEvent,
        offset::Offset,
        topic::{Topic, TopicNumber},
    };

    fn batch(events: usize) -> Vec<StagedEvent> {
        let topic = Topic::parse("a").expect("a topic");
        let event = NewEvent::json(topic, Bytes::from_static(b"1"));
        let staged = StagedEvent {
            offset: Offset::ZERO,
            time_ms: 0,
            topic_number: TopicNumber::new(0),
            event,
        };
        vec![staged; events]
    }

    fn gathered(batches: usize, events: usize, bytes: usize) -> Gathered {
        Gathered { batches, events, bytes }
    }

    #[test]
    fn a_frame_takes_whole_batches_up_to_its_target_and_at_least_one() {
        let mut staging = Staging::new(1_000);
        for (events, bytes) in [(2, 40), (1, 60), (3, 1), (1, 500)] {
            staging.push(batch(events), bytes);
        }
        assert_eq!(staging.gather(100, 99), gathered(2, 3, 100));
        assert_eq!(staging.gather(101, 99), gathered(3, 6, 101));
        assert_eq!(staging.gather(101, 5), gathered(2, 3, 100), "as many events as a frame holds");
        assert_eq!(staging.gather(1, 1), gathered(1, 2, 40), "a batch is never split");
        let frames = |last| staging.gather_all_before(last, 100, 99).collect::<Vec<_>>();
        let first = [gathered(2, 3, 100), gathered(1, 3, 1), gathered(1, 1, 500)];
        assert_eq!(frames((1, 2)), [&first[..], &[gathered(1, 1, 2)]].concat());
        let first = staging.gather(100, 99);
        assert_eq!(staging.front(first.events).len(), 3);
        staging.release(first);
        assert_eq!(staging.staged_bytes(), 501);
        staging.release(staging.gather(1, 1));
        staging.release(staging.gather(1, 1));
        assert!(staging.is_empty() && staging.staged_bytes() == 0);
        assert_eq!(staging.gather(1, 1), Gathered::default());
    }

    #[test]
    fn what_waits_is_bounded_to_the_byte() {
        let mut staging = Staging::new(100);
        staging.push(batch(1), 60);
        assert_eq!(staging.check_room(40), Ok(()));
        let refused = Err(AppendError::Overloaded { staged_bytes: 60 });
        assert_eq!(staging.check_room(41), refused);
        staging.release(staging.gather(1, 1));
        assert_eq!(staging.check_room(100), Ok(()));
    }

    #[test]
    fn the_front_is_in_one_piece_however_often_the_queue_has_wrapped() {
        let mut staging = Staging::new(1_000);
        for round in 0..100 {
            staging.push(batch(3), 3);
            staging.push(batch(2), 2);
            let next = staging.gather(3, 99);
            assert_eq!(staging.front(next.events).len(), next.events, "round {round}");
            staging.release(next);
        }
    }
}
