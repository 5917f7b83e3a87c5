//! A stream that many subscribers receive alike, kept for a while as it came to whoever had it first.
//!
//! ```text
//!        mark         mark        follower            end = mark
//! bytes --|------------|--------------|-------------------|      what comes behind the end is parsed by whoever
//! events     e   e   e    e     e   e     e     e   e    e       gets it, and makes the stream longer
//! ```
//! A follower's bytes are compared with these and not parsed: where they are the same, so is what they mean.
//! That holds because it began at a *mark*, where what a connection has received says nothing about what
//! comes next ([`SubscriberWire::is_between`](super::target::SubscriberWire::is_between)). Where they differ
//! it leaves, and is given what it must parse to know where it stands: the bytes behind the last mark.
//!
//! Invariants:
//! 1. The end is a mark, and so is the begin.
//! 2. There is an event that ends at or before the first mark, so that a mark can be found by what came
//!    before it.

use std::collections::VecDeque;

use super::payload::Stamp;

/// So many bytes are kept: as much as a subscriber may be behind the first. Then the older half is forgotten.
const BYTES_MAX: usize = 4 << 20;
/// Who joins looks at so many marks, the newest first.
const MARKS_LOOKED_AT_MAX: usize = 64;

/// The stream.
#[derive(Debug, Default)]
pub struct SharedStream {
    bytes: Vec<u8>,
    /// The place of the first of them: places are counted over the whole run.
    begin: u64,
    events: VecDeque<Event>,
    /// The number of the first of them.
    first_event: u64,
    marks: VecDeque<Mark>,
    followers: usize,
}

#[derive(Clone, Copy, Debug)]
struct Event {
    /// The place behind it.
    end: u64,
    stamp: Stamp,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    at: u64,
    /// The number of the event that comes next.
    event: u64,
}

/// Where a subscriber stands that has received what the stream says.
#[derive(Debug)]
pub struct Follower {
    at: u64,
    /// The number of the event that it gets next.
    event: u64,
}

/// What came of comparing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Followed {
    /// All of it is the same.
    Whole,
    /// So many bytes are the same, and nobody has had the rest yet.
    ToTheEnd(usize),
    /// It is something else; the follower has not moved.
    Other,
}

impl SharedStream {
    /// A place for a subscriber whose last event was `last` and whose connection says nothing about what
    /// comes next. If nobody follows, the stream begins anew with it.
    pub fn join(&mut self, last: Stamp) -> Option<Follower> {
        if self.followers == 0 {
            self.begin_behind(last);
        }
        let mark = self
            .marks
            .iter()
            .rev()
            .take(MARKS_LOOKED_AT_MAX)
            .find(|mark| self.event(mark.event - 1).is_some_and(|event| event.stamp == last))?;
        let follower = Follower { at: mark.at, event: mark.event };
        self.followers += 1;
        Some(follower)
    }

    fn begin_behind(&mut self, last: Stamp) {
        (self.begin, self.first_event) = (self.end(), self.first_event + self.event_count());
        self.bytes.clear();
        self.events = [Event { end: self.begin, stamp: last }].into();
        self.marks = [Mark { at: self.begin, event: self.first_event + 1 }].into();
    }

    /// Compares what a follower received with what stands at its place, moves it behind what is the same, and
    /// calls `on_event` for each event that it has whole now.
    #[inline]
    pub fn follow(
        &self,
        follower: &mut Follower,
        input: &[u8],
        mut on_event: impl FnMut(Stamp),
    ) -> Followed {
        let known = &self.bytes[index(follower.at - self.begin)..];
        let common = known.len().min(input.len());
        if known[..common] != input[..common] {
            return Followed::Other;
        }
        follower.at += length(common);
        for event in self.events.range(index(follower.event - self.first_event)..) {
            if event.end > follower.at {
                break;
            }
            follower.event += 1;
            on_event(event.stamp);
        }
        if common == input.len() { Followed::Whole } else { Followed::ToTheEnd(common) }
    }

    /// A follower at the end has received `bytes`, with events that end at these places in them, and its
    /// connection says nothing about what comes next.
    pub fn extend(&mut self, follower: &mut Follower, bytes: &[u8], events: &[(usize, Stamp)]) {
        assert_eq!(follower.at, self.end(), "only the end can be moved");
        let place = |end: usize| follower.at + length(end);
        self.events
            .extend(events.iter().map(|(end, stamp)| Event { end: place(*end), stamp: *stamp }));
        self.bytes.extend_from_slice(bytes);
        *follower = Follower { at: self.end(), event: self.first_event + self.event_count() };
        self.marks.push_back(Mark { at: follower.at, event: follower.event });
    }

    /// The event that a follower got last.
    pub fn last_of(&self, follower: &Follower) -> Stamp {
        self.event(follower.event - 1).expect("one stands before each mark").stamp
    }

    /// Lets a follower go: returns what it has received behind the last mark.
    pub fn leave(&mut self, follower: &Follower) -> &[u8] {
        self.followers -= 1;
        let behind = self.marks.partition_point(|mark| mark.at <= follower.at);
        let mark = self.marks[behind - 1];
        &self.bytes[index(mark.at - self.begin)..index(follower.at - self.begin)]
    }

    /// The place up to which the stream is to be forgotten, if it has become too long. Who stands before it
    /// has to leave first.
    pub fn to_forget(&self) -> Option<u64> {
        if self.bytes.len() <= BYTES_MAX {
            return None;
        }
        let middle = self.begin + length(BYTES_MAX / 2);
        self.marks.iter().find(|mark| mark.at >= middle).map(|mark| mark.at)
    }

    /// Forgets what stands before `place`, a mark.
    pub fn forget(&mut self, place: u64) {
        self.marks.retain(|mark| mark.at >= place);
        let first = self.marks.front().expect("the end is a mark");
        assert_eq!(first.at, place, "the begin is a mark");
        let events = index(first.event - 1 - self.first_event);
        self.events.drain(..events);
        self.first_event += length(events);
        self.bytes.drain(..index(place - self.begin));
        self.begin = place;
    }

    fn event(&self, number: u64) -> Option<&Event> {
        self.events.get(index(number.checked_sub(self.first_event)?))
    }

    fn event_count(&self) -> u64 {
        length(self.events.len())
    }

    fn end(&self) -> u64 {
        self.begin + length(self.bytes.len())
    }
}

impl Follower {
    /// Whether it stands before a place.
    pub fn is_before(&self, place: u64) -> bool {
        self.at < place
    }
}

fn index(count: u64) -> usize {
    usize::try_from(count).expect("what is kept is in memory")
}

fn length(count: usize) -> u64 {
    u64::try_from(count).expect("usize has at most 64 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(sequence: u32) -> Stamp {
        Stamp { publisher: 0, sequence, due_ns: 0 }
    }

    /// A stream behind event 0 with events 1 to 3 (`one.two.three.`, in two pieces), and who brought them.
    fn stream() -> (SharedStream, Follower) {
        let mut stream = SharedStream::default();
        let mut first = stream.join(stamp(0)).unwrap();
        stream.extend(&mut first, b"one.two.", &[(4, stamp(1)), (8, stamp(2))]);
        stream.extend(&mut first, b"three.", &[(6, stamp(3))]);
        (stream, first)
    }

    fn followed(
        stream: &SharedStream,
        follower: &mut Follower,
        input: &str,
    ) -> (Followed, Vec<u32>) {
        let mut got = Vec::new();
        let followed = stream.follow(follower, input.as_bytes(), |stamp| got.push(stamp.sequence));
        (followed, got)
    }

    #[test]
    fn a_follower_gets_each_event_once_wherever_its_bytes_are_cut() {
        let (mut stream, _) = stream();
        let all = "one.two.three.";
        for piece in 1..=all.len() {
            let mut follower = stream.join(stamp(0)).unwrap();
            let mut got = Vec::new();
            for piece in all.as_bytes().chunks(piece) {
                let (outcome, more) =
                    followed(&stream, &mut follower, str::from_utf8(piece).unwrap());
                assert_eq!(outcome, Followed::Whole);
                got.extend(more);
            }
            assert_eq!(got, [1, 2, 3]);
            stream.leave(&follower);
        }
    }

    #[test]
    fn what_differs_moves_nobody_and_what_is_new_is_left() {
        let (mut stream, _) = stream();
        let mut follower = stream.join(stamp(0)).unwrap();
        assert_eq!(followed(&stream, &mut follower, "one.tw"), (Followed::Whole, vec![1]));
        assert_eq!(followed(&stream, &mut follower, "O."), (Followed::Other, vec![]));
        assert_eq!(stream.last_of(&follower), stamp(1));
        let (outcome, got) = followed(&stream, &mut follower, "o.three.four.");
        assert_eq!((outcome, got), (Followed::ToTheEnd(8), vec![2, 3]));
        stream.extend(&mut follower, b"four.", &[(5, stamp(4))]);
        assert_eq!(stream.last_of(&follower), stamp(4));
    }

    #[test]
    fn who_leaves_gets_what_came_behind_the_last_mark() {
        let (mut stream, first) = stream();
        let mut follower = stream.join(stamp(0)).unwrap();
        followed(&stream, &mut follower, "one.two.thr");
        assert_eq!(stream.leave(&follower), b"thr");
        assert_eq!(stream.leave(&first), b"");
    }

    #[test]
    fn places_are_found_by_what_came_before_them() {
        let (mut stream, _) = stream();
        assert!(stream.join(stamp(1)).is_none(), "in the middle of a piece");
        let mut follower = stream.join(stamp(2)).unwrap();
        assert_eq!(followed(&stream, &mut follower, "three."), (Followed::Whole, vec![3]));
        assert!(stream.join(stamp(9)).is_none());
    }

    #[test]
    fn it_begins_anew_when_nobody_follows() {
        let (mut stream, first) = stream();
        stream.leave(&first);
        let mut other = stream.join(stamp(7)).unwrap();
        assert_eq!(followed(&stream, &mut other, "eight."), (Followed::ToTheEnd(0), vec![]));
        stream.extend(&mut other, b"eight.", &[(6, stamp(8))]);
        assert_eq!(stream.last_of(&other), stamp(8));
        assert!(stream.join(stamp(3)).is_none());
    }

    #[test]
    fn what_is_old_is_forgotten_and_the_rest_is_where_it_was() {
        let mut stream = SharedStream::default();
        let mut first = stream.join(stamp(0)).unwrap();
        let piece = vec![b'x'; 100_000];
        let mut late = stream.join(stamp(0)).unwrap();
        for sequence in 1..=42 {
            assert_eq!(stream.to_forget(), None);
            stream.extend(&mut first, &piece, &[(piece.len(), stamp(sequence))]);
        }
        let place = stream.to_forget().unwrap();
        assert!(late.is_before(place) && !first.is_before(place));
        for _ in 0..30 {
            stream.follow(&mut late, &piece, |_| ());
        }
        assert!(!late.is_before(place));
        stream.forget(place);
        assert!(stream.bytes.len() < BYTES_MAX && stream.to_forget().is_none());
        let mut got = Vec::new();
        for _ in 0..12 {
            stream.follow(&mut late, &piece, |stamp| got.push(stamp.sequence));
        }
        assert_eq!(got, (31..=42).collect::<Vec<u32>>());
        assert_eq!(stream.last_of(&late), stamp(42));
    }
}
