//! Where one subscriber stands, and what it does next: pure, so that a model can race it.
//!
//! ```text
//!               Behind                         chunks end
//!   live <-----------------> catching up      (both) ---> closed by the edge
//!        ----- Through ---->
//! ```
//! A subscriber is `next`: every offset below it has been considered for its view, and what matched
//! has been handed to its socket, once and in order. It takes chunks from the view's ring while that
//! covers `next`, and reads the log while it does not. Nothing else is remembered, so a subscriber
//! that falls off the ring, or whose view missed a frame, goes on without a gap or a repeat.

use strandline_storage::offset::Offset;

use super::chunk::Chunk;

/// The place of a subscriber in its view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscription {
    next: Offset,
    told: Offset,
}

impl Subscription {
    /// A subscriber that wants everything from `next` on, and whose client knows so.
    pub fn new(next: Offset) -> Self {
        Subscription { next, told: next }
    }

    /// The first offset that has not been considered.
    pub fn next(&self) -> Offset {
        self.next
    }

    /// A chunk has been handed to the socket.
    pub fn took(&mut self, chunk: &Chunk) {
        assert!(chunk.start >= self.next, "an event is never handed out twice");
        (self.next, self.told) = (chunk.end, chunk.end);
    }

    /// The part of a chunk that holds what it had not considered has been handed to the socket.
    pub fn took_rest_of(&mut self, chunk: &Chunk) {
        assert!(chunk.end > self.next, "an event is never handed out twice");
        (self.next, self.told) = (chunk.end, chunk.end);
    }

    /// Everything below `end` has been considered, and all that matched was handed to the socket.
    pub fn considered(&mut self, end: Offset) {
        self.next = self.next.max(end);
    }

    /// The client has been told of a jump to `from`, over a part of the log that it cannot get.
    pub fn jumped(&mut self, from: Offset) {
        assert!(from >= self.next, "a jump goes forward");
        (self.next, self.told) = (from, from);
    }

    /// Whether a client that resumes from the last cursor it got would look again at offsets that
    /// hold nothing for it: then a heartbeat carries a cursor.
    pub fn has_moved_silently(&self) -> bool {
        self.told < self.next
    }

    /// A cursor that stands at `next` has been handed to the socket.
    pub fn told(&mut self) {
        self.told = self.next;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::chunk::{Ring, RingPlace};
    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        /// A frame of so many events becomes visible; bits say which match; perhaps its news is lost.
        Publish { matches: Vec<bool>, chunk_events: usize, missed: bool },
        /// The frames that became visible reach the view, perhaps after others were lost.
        Deliver,
        /// A subscriber takes what the ring has, up to so many chunks.
        Take { subscriber: usize, chunks_max: usize },
        /// A subscriber that is behind reads so many offsets of the log.
        Read { subscriber: usize, offsets: u64 },
        /// Memory is short.
        Evict,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (vec(any::<bool>(), 1..6), 1..4_usize, prop::bool::weighted(0.2))
                .prop_map(|(matches, chunk_events, missed)| Step::Publish { matches, chunk_events, missed }),
            3 => Just(Step::Deliver),
            5 => (0..4_usize, 1..4_usize).prop_map(|(subscriber, chunks_max)| Step::Take { subscriber, chunks_max }),
            5 => (0..4_usize, 1..9_u64).prop_map(|(subscriber, offsets)| Step::Read { subscriber, offsets }),
            1 => Just(Step::Evict),
        ]
    }

    struct Frame {
        base: u64,
        end: u64,
        chunk_events: usize,
        missed: bool,
    }

    struct World {
        matches: Vec<bool>,
        on_their_way: Vec<Frame>,
        ring: Ring,
        considered: Offset,
    }

    impl World {
        fn matches(&self, at: u64) -> bool {
            self.matches[usize::try_from(at).expect("a small log")]
        }

        fn deliver(&mut self) {
            for frame in std::mem::take(&mut self.on_their_way) {
                if frame.missed {
                    continue;
                }
                if frame.base > self.considered.get() {
                    self.ring.restart(Offset::new(frame.base));
                }
                let matching: Vec<u64> =
                    (frame.base..frame.end).filter(|at| self.matches(*at)).collect();
                for run in matching.chunks(frame.chunk_events) {
                    self.ring.push(chunk(run));
                }
                self.considered = Offset::new(frame.end);
            }
        }
    }

    /// A chunk whose bytes are the offsets of its events, which cannot be divided.
    fn chunk(offsets: &[u64]) -> Chunk {
        let (start, end) = (offsets[0], offsets[offsets.len() - 1] + 1);
        let bytes = Bytes::from_iter(offsets.iter().flat_map(|at| at.to_le_bytes()));
        Chunk::whole(Offset::new(start), Offset::new(end), bytes)
    }

    fn offsets(chunk: &Chunk) -> Vec<u64> {
        let numbers = chunk.bytes.chunks(8);
        numbers.map(|bytes| u64::from_le_bytes(bytes.try_into().expect("8 bytes"))).collect()
    }

    fn take(world: &World, one: &mut Subscription, seen: &mut Vec<u64>, chunks_max: usize) -> bool {
        let RingPlace::Chunks(first) = world.ring.place_of(one.next()) else { return false };
        let chunks = world.ring.chunks_from(first);
        let is_all = chunks.len() <= chunks_max;
        for chunk in chunks.take(chunks_max) {
            one.took(chunk);
            seen.extend(offsets(chunk));
        }
        if is_all {
            one.considered(world.considered);
        }
        true
    }

    fn read(world: &World, one: &mut Subscription, seen: &mut Vec<u64>, count: u64) {
        let end = (one.next().get() + count).min(world.matches.len() as u64);
        for at in one.next().get()..end {
            if world.matches(at) {
                let chunk = chunk(&[at]);
                one.took(&chunk);
                seen.push(at);
            }
        }
        one.considered(Offset::new(end));
    }

    proptest! {
        /// Whatever is lost, evicted or late: each matching event exactly once, in order.
        #[test]
        fn no_gap_and_no_repeat(steps in vec(step(), 1..120), joins in vec(0..40_u64, 4)) {
            let mut world = World {
                matches: Vec::new(),
                on_their_way: Vec::new(),
                ring: Ring::new(Offset::ZERO),
                considered: Offset::ZERO,
            };
            let mut ones: Vec<(Subscription, Vec<u64>)> =
                joins.iter().map(|at| (Subscription::new(Offset::new(*at)), Vec::new())).collect();
            for step in steps {
                match step {
                    Step::Publish { matches, chunk_events, missed } => {
                        let base = world.matches.len() as u64;
                        world.matches.extend(matches);
                        let end = world.matches.len() as u64;
                        world.on_their_way.push(Frame { base, end, chunk_events, missed });
                    }
                    Step::Deliver => world.deliver(),
                    Step::Take { subscriber, chunks_max } => {
                        let (one, seen) = &mut ones[subscriber];
                        take(&world, one, seen, chunks_max);
                    }
                    Step::Read { subscriber, offsets } => {
                        let (one, seen) = &mut ones[subscriber];
                        if matches!(world.ring.place_of(one.next()), RingPlace::Behind(_)) {
                            read(&world, one, seen, offsets);
                        }
                    }
                    Step::Evict => { world.ring.evict_oldest(); }
                }
            }
            // In the end the shard learns how far the log has come, and everyone gets the rest.
            world.deliver();
            let end = Offset::new(world.matches.len() as u64);
            if world.considered < end {
                world.ring.restart(end);
                world.considered = end;
            }
            for ((one, seen), join) in ones.iter_mut().zip(joins) {
                while !take(&world, one, seen, 3) || one.next() < end {
                    read(&world, one, seen, 1);
                }
                let wanted: Vec<u64> =
                    (join..end.get()).filter(|at| world.matches(*at)).collect();
                prop_assert_eq!(&*seen, &wanted);
                prop_assert_eq!(one.next(), end.max(Offset::new(join)));
            }
        }
    }

    #[test]
    fn a_cursor_is_due_when_only_others_events_passed() {
        let mut one = Subscription::new(Offset::new(5));
        assert!(!one.has_moved_silently());
        one.considered(Offset::new(9));
        assert!(one.has_moved_silently());
        one.told();
        assert!(!one.has_moved_silently());
        one.took(&chunk(&[11]));
        assert!(!one.has_moved_silently());
        assert_eq!(one.next(), Offset::new(12));
        one.considered(Offset::new(3));
        assert_eq!(one.next(), Offset::new(12));
        one.jumped(Offset::new(20));
        assert_eq!((one.next(), one.has_moved_silently()), (Offset::new(20), false));
    }
}
