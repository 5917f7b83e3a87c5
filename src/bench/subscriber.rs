//! One connection that receives, and what all of them have seen.
//!
//! ```text
//! received --> as others had it already? --yes--> its events are known      (SharedStream)
//!                          \--no or new---------> parsed in full            (SubscriberWire)
//! ```
//! Either way each event of each subscriber is counted, checked against what that subscriber has to get next,
//! and its latency recorded.

use super::{
    check::Checker,
    link::Link,
    payload::{Payloads, Stamp},
    record::Meter,
    shared::{Followed, Follower, SharedStream},
    target::{Delivery, SubscriberWire},
};

/// One connection that receives.
#[derive(Debug)]
pub struct Subscriber<W> {
    /// Its socket.
    pub link: Link,
    /// How it speaks.
    pub wire: W,
    /// Its subscription holds.
    pub ready: bool,
    /// It stands among those that may have more.
    pub queued: bool,
    /// How many events it has got.
    pub received: u64,
    /// Where it stands in the stream that all share, if it does.
    follower: Option<Follower>,
    /// What it got last, while it does not.
    last: Option<Stamp>,
}

/// What a subscriber has received.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// Which subscriber.
    pub index: u32,
    /// What its link had kept, and what came behind it.
    pub bytes: &'a [u8],
    /// When it came.
    pub now_ns: u64,
}

/// What subscribers have seen.
#[derive(Debug)]
pub struct Seen {
    /// What payloads are made of.
    pub payloads: Payloads,
    /// What has come, and what should not have.
    pub checker: Checker,
    /// Deliveries.
    pub receipts: Meter,
    /// What subscribers from this one on receive is late by design: it is counted, and is no latency.
    pub late_from: u32,
    /// Deliveries since the beginning.
    pub delivered: u64,
    /// Set to keep the cursor of each delivery.
    pub keep_cursors: bool,
    /// Those that were kept.
    pub cursors: Vec<Box<[u8]>>,
    /// What all receive alike; of one subscriber alone nothing is kept.
    stream: Option<SharedStream>,
    /// Events of the bytes that nobody had before, by where they end.
    ahead: Vec<(usize, Stamp)>,
}

impl Seen {
    /// Nothing yet.
    pub fn new(payload_bytes: usize, subscribers: usize, publishers: usize) -> Seen {
        Seen {
            payloads: Payloads::new(payload_bytes),
            checker: Checker::new(subscribers, publishers),
            receipts: Meter::default(),
            late_from: u32::MAX,
            delivered: 0,
            keep_cursors: false,
            cursors: Vec::new(),
            stream: (subscribers > 1).then(SharedStream::default),
            ahead: Vec::new(),
        }
    }

    /// The place up to which what all share is to be forgotten, if there is too much of it.
    pub fn to_forget(&self) -> Option<u64> {
        self.stream.as_ref()?.to_forget()
    }

    /// Forgets what all share up to a place; nobody stands before it any more.
    pub fn forget(&mut self, place: u64) {
        if let Some(stream) = &mut self.stream {
            stream.forget(place);
        }
    }

    /// Takes an event that was parsed; returns what it says if it is one of ours.
    #[inline]
    fn take(&mut self, subscriber: u32, delivery: Delivery<'_>, now_ns: u64) -> Option<Stamp> {
        if self.keep_cursors {
            self.cursors.push(delivery.cursor.into());
        }
        let stamp = self.payloads.read(delivery.payload);
        match stamp {
            Some(stamp) => {
                let is_late = subscriber >= self.late_from;
                deliver(&mut self.checker, &mut self.receipts, subscriber, stamp, now_ns, is_late);
            }
            None => self.checker.foreign(subscriber, delivery.payload),
        }
        self.delivered += 1;
        stamp
    }
}

#[inline]
fn deliver(
    checker: &mut Checker,
    receipts: &mut Meter,
    subscriber: u32,
    stamp: Stamp,
    now_ns: u64,
    is_late: bool,
) {
    checker.deliver(subscriber, stamp);
    if is_late {
        receipts.count_one();
    } else {
        receipts.record(stamp.due_ns, now_ns);
    }
}

impl<W: SubscriberWire> Subscriber<W> {
    /// One whose connection was begun.
    pub fn new(link: Link, wire: W) -> Self {
        Subscriber {
            link,
            wire,
            ready: false,
            queued: false,
            received: 0,
            follower: None,
            last: None,
        }
    }

    /// Takes what it has received; what it cannot be done with yet, the link keeps. An error says why the
    /// connection can go on no longer.
    pub fn take(&mut self, arrival: Arrival<'_>, seen: &mut Seen) -> Result<(), String> {
        let before = seen.delivered;
        let done = self.follow_or_parse(arrival, seen);
        self.received += seen.delivered - before;
        done
    }

    fn follow_or_parse(&mut self, arrival: Arrival<'_>, seen: &mut Seen) -> Result<(), String> {
        let (Some(follower), Some(stream)) = (&mut self.follower, &seen.stream) else {
            return self.parse(arrival, seen);
        };
        let (checker, receipts, delivered) =
            (&mut seen.checker, &mut seen.receipts, &mut seen.delivered);
        let is_late = arrival.index >= seen.late_from;
        let followed = stream.follow(follower, arrival.bytes, |stamp| {
            *delivered += 1;
            deliver(checker, receipts, arrival.index, stamp, arrival.now_ns, is_late);
        });
        match followed {
            Followed::Whole => {
                self.link.keep(&[]);
                Ok(())
            }
            Followed::ToTheEnd(known) => {
                self.parse_ahead(Arrival { bytes: &arrival.bytes[known..], ..arrival }, seen)
            }
            Followed::Other => {
                let mut begun = self.leave(seen)?;
                if begun.is_empty() {
                    return self.parse(arrival, seen);
                }
                begun.extend_from_slice(arrival.bytes);
                self.parse(Arrival { bytes: &begun, ..arrival }, seen)
            }
        }
    }

    /// Parses what nobody has had yet, and lets the others have it, if it can.
    fn parse_ahead(&mut self, arrival: Arrival<'_>, seen: &mut Seen) -> Result<(), String> {
        let Arrival { index, bytes: input, now_ns } = arrival;
        let mut ahead = std::mem::take(&mut seen.ahead);
        ahead.clear();
        let mut is_known = true;
        let unsent_bytes = self.link.out.len();
        let taken = self.wire.take(input, &mut self.link.out, |delivery| {
            match (seen.take(index, delivery, now_ns), delivery.end) {
                (Some(stamp), Some(end)) => ahead.push((end, stamp)),
                _ => is_known = false,
            }
        })?;
        self.link.keep(&input[taken..]);
        // What it had to answer is its own.
        let is_shared = is_known && self.wire.is_between() && self.link.out.len() == unsent_bytes;
        if let (Some(follower), Some(stream)) = (&mut self.follower, &mut seen.stream) {
            let last = ahead.last().map_or_else(|| stream.last_of(follower), |(_, stamp)| *stamp);
            if !is_shared {
                stream.leave(follower);
                (self.follower, self.last) = (None, Some(last));
            } else if !ahead.is_empty() {
                stream.extend(follower, &input[..taken], &ahead);
            }
        }
        seen.ahead = ahead;
        Ok(())
    }

    /// Parses what it has for itself, and joins the others if it can.
    fn parse(&mut self, arrival: Arrival<'_>, seen: &mut Seen) -> Result<(), String> {
        let Arrival { index, bytes: input, now_ns } = arrival;
        let last = &mut self.last;
        let taken = self.wire.take(input, &mut self.link.out, |delivery| {
            *last = seen.take(index, delivery, now_ns);
        })?;
        self.link.keep(&input[taken..]);
        if let (Some(last), Some(stream)) = (*last, &mut seen.stream)
            && self.wire.is_between()
            && !seen.keep_cursors
        {
            self.follower = stream.join(last);
        }
        Ok(())
    }

    /// Goes its own way: returns what it has received of something that has not come whole.
    fn leave(&mut self, seen: &mut Seen) -> Result<Vec<u8>, String> {
        let (Some(follower), Some(stream)) = (self.follower.take(), &mut seen.stream) else {
            return Ok(Vec::new());
        };
        self.last = Some(stream.last_of(&follower));
        let mut begun = stream.leave(&follower).to_vec();
        // The events in it have been counted.
        let taken = self.wire.take(&begun, &mut self.link.out, |_| ())?;
        begun.drain(..taken);
        Ok(begun)
    }

    /// Whether it stands before a place of what all share.
    pub fn is_before(&self, place: u64) -> bool {
        self.follower.as_ref().is_some_and(|follower| follower.is_before(place))
    }

    /// Goes its own way from now on.
    pub fn go_apart(&mut self, seen: &mut Seen) -> Result<(), String> {
        let begun = self.leave(seen)?;
        if !begun.is_empty() {
            self.link.keep(&begun);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use proptest::prelude::*;

    use super::super::{
        net::Poll,
        strandline::{Events, KnownBy, Strandline, Transport},
        target::{From, Target},
    };
    use super::*;

    const SUBSCRIBERS: u32 = 4;
    const PUBLISHERS: usize = 2;

    /// What a subscriber receives, and in which pieces.
    #[derive(Clone, Debug)]
    struct Received {
        /// A heartbeat stands before so many of the chunks.
        beats: Vec<usize>,
        /// A chunk that does not come, one that comes twice, and one of which a byte is another.
        lost: Option<usize>,
        twice: Option<usize>,
        changed: Option<usize>,
        /// How many chunks come at once, over and over.
        chunks: Vec<usize>,
        /// How many bytes of those come at once.
        bytes_max: usize,
    }

    fn received() -> impl Strategy<Value = Received> {
        let chunk = || prop_oneof![9 => Just(None), 1 => (0..30_usize).prop_map(Some)];
        let chunks = prop::collection::vec(1..4_usize, 1..4);
        let bytes_max = prop_oneof![3 => Just(100_000_usize), 1 => 50..400_usize];
        let beats = prop::collection::vec(0..30_usize, 0..3);
        (beats, chunk(), chunk(), chunk(), chunks, bytes_max).prop_map(
            |(beats, lost, twice, changed, chunks, bytes_max)| Received {
                beats,
                lost,
                twice,
                changed,
                chunks,
                bytes_max,
            },
        )
    }

    #[test]
    fn what_is_late_by_design_is_counted_and_is_no_latency() {
        let mut seen = Seen::new(40, 4, 1);
        seen.late_from = 3;
        let mut payload = Vec::new();
        seen.payloads.write(Stamp { publisher: 0, sequence: 0, due_ns: 5 }, &mut payload);
        for subscriber in 0..4 {
            let delivery = Delivery { payload: &payload, cursor: b"", end: None };
            seen.take(subscriber, delivery, 10_000_000);
        }
        assert_eq!(seen.receipts.count(), 4);
        assert_eq!(seen.receipts.latency().map(|latency| latency.count), Some(3));
    }

    fn chunk(text: &[u8]) -> Vec<u8> {
        [format!("{:x}\r\n", text.len()).as_bytes(), text, b"\r\n"].concat()
    }

    /// The stream of one subscriber, in pieces. `sizes` are the events of each chunk.
    fn pieces(received: &Received, sizes: &[usize]) -> Vec<Vec<u8>> {
        let payloads = Payloads::new(40);
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let established = b"event: connection.established\ndata: {}\n\n";
        let mut all = vec![[head.as_bytes(), &chunk(established)].concat()];
        let (mut number, mut payload) = (0_u32, Vec::new());
        for (at, size) in sizes.iter().enumerate() {
            let mut text = Vec::new();
            for _ in 0..*size {
                let stamp = Stamp { publisher: number % 2, sequence: number / 2, due_ns: 5 };
                payloads.write(stamp, &mut payload);
                text.extend_from_slice(format!("id: {number}.a\ndata: ").as_bytes());
                text.extend_from_slice(&payload);
                text.extend_from_slice(b"\n\n");
                number += 1;
            }
            if received.changed == Some(at) {
                *text.iter_mut().rev().nth(2).unwrap() ^= 1;
            }
            if received.beats.contains(&at) {
                all.push(chunk(b":\n"));
            }
            let times =
                usize::from(received.lost != Some(at)) + usize::from(received.twice == Some(at));
            for _ in 0..times {
                all.push(chunk(&text));
            }
        }
        let (mut all, mut pieces) = (all.into_iter().peekable(), Vec::new());
        let mut sizes = received.chunks.iter().cycle();
        while all.peek().is_some() {
            let size = *sizes.next().expect("there are some");
            let together = all.by_ref().take(size).collect::<Vec<_>>().concat();
            pieces.extend(together.chunks(received.bytes_max).map(<[u8]>::to_vec));
        }
        pieces
    }

    /// What is found when all receive in turns: (deliveries, violations, what each got).
    fn found(mut seen: Seen, all: &[Vec<Vec<u8>>]) -> (u64, Vec<String>, Vec<u64>, bool) {
        let target = Strandline {
            address: ([127, 0, 0, 1], 1).into(),
            host: "h".to_owned(),
            topic: "t".to_owned(),
            topics: 1,
            transport: Transport::Sse,
            compression: None,
            lines: None,
            known_by: KnownBy::Nothing,
            payload_bytes: 40,
            processes: Vec::new(),
        };
        let poll = Poll::new().unwrap();
        let mut peers = Vec::new();
        let mut subscribers: Vec<Subscriber<Events>> = (0..SUBSCRIBERS)
            .map(|index| {
                let (ours, theirs) = UnixStream::pair().unwrap();
                ours.set_nonblocking(true).unwrap();
                peers.push(theirs);
                let link = Link::new(ours.into(), u64::from(index), &poll, Vec::new()).unwrap();
                Subscriber::new(link, target.subscriber(index, &From::Latest))
            })
            .collect();
        let mut has_shared = false;
        let mut buffer = vec![0; 1 << 20];
        for turn in 0..all.iter().map(Vec::len).max().unwrap() {
            for (index, subscriber) in (0..SUBSCRIBERS).zip(&mut subscribers) {
                let at = usize::try_from(index).unwrap();
                let Some(piece) = all[at].get(turn) else { continue };
                std::io::Write::write_all(&mut peers[at], piece).unwrap();
                let bytes = subscriber.link.receive(&mut buffer).unwrap().unwrap();
                has_shared |= subscriber.follower.is_some();
                let arrival = Arrival { index, bytes: &buffer[..bytes], now_ns: 9 };
                subscriber.take(arrival, &mut seen).unwrap();
                if turn % 7 == 3 {
                    subscriber.go_apart(&mut seen).unwrap();
                }
            }
        }
        seen.checker.finish(0..SUBSCRIBERS, &[0, 0]);
        let got = subscribers.iter().map(|subscriber| subscriber.received).collect();
        (seen.delivered, seen.checker.violations(), got, has_shared)
    }

    proptest! {
        /// Comparing finds what parsing finds, whatever differs between subscribers and wherever reads cut it.
        #[test]
        fn what_is_compared_is_checked_as_what_is_parsed(
            all in prop::collection::vec(received(), 4),
            sizes in prop::collection::vec(1..4_usize, 30),
        ) {
            let all: Vec<_> = all.iter().map(|received| pieces(received, &sizes)).collect();
            let seen = || Seen::new(40, 4, PUBLISHERS);
            let mut apart = seen();
            apart.stream = None;
            let shared = found(seen(), &all);
            let (delivered, violations, got, _) = found(apart, &all);
            prop_assert_eq!((shared.0, shared.1, shared.2), (delivered, violations, got));
        }
    }

    #[test]
    fn subscribers_that_receive_alike_share() {
        let received = Received {
            beats: Vec::new(),
            lost: None,
            twice: None,
            changed: None,
            chunks: vec![1, 2],
            bytes_max: 1_000,
        };
        let all = vec![pieces(&received, &[2; 30]); 4];
        let (delivered, _, got, has_shared) = found(Seen::new(40, 4, PUBLISHERS), &all);
        assert_eq!((delivered, got, has_shared), (240, vec![60; 4], true));
    }
}
