//! Whether every subscriber got every event, once, in order.
//!
//! Each publisher numbers its events, and each subscriber must see each publisher's numbers grow by one.
//! Subscribers of one topic must agree on the order of events of *different* publishers too: a hash over
//! what each has seen, in its order, is compared at the end.

use std::fmt;

use super::payload::Stamp;

/// So many violations are told in words; the others are counted.
const TOLD_MAX: usize = 10;
/// Whatever comes first is what was expected: for a subscriber that joins in mid-stream.
const ANY: u32 = u32::MAX;

/// What was promised and did not happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Events were left out.
    Gap {
        /// Who noticed.
        subscriber: u32,
        /// Whose events.
        publisher: u32,
        /// The first that is missing.
        expected: u32,
        /// What came instead.
        found: u32,
    },
    /// An event came again, or later than one that was sent after it.
    Repeat {
        /// Who noticed.
        subscriber: u32,
        /// Whose event.
        publisher: u32,
        /// What could come next.
        expected: u32,
        /// What came.
        found: u32,
    },
    /// An event whose bytes are not those of any that was sent.
    Foreign {
        /// Who got it.
        subscriber: u32,
        /// How it begins.
        begin: String,
    },
    /// Nothing came any more, though events were acknowledged.
    Missing {
        /// Who waits.
        subscriber: u32,
        /// For whose events.
        publisher: u32,
        /// The first that did not come.
        expected: u32,
        /// How many of this publisher's events there are.
        published: u32,
    },
    /// Two subscribers saw the same events in different orders.
    Order {
        /// One of them.
        one: u32,
        /// The other.
        other: u32,
    },
    /// A connection was ended, or broke, or was never made.
    HangUp {
        /// Whose.
        subscriber: u32,
        /// In whose words.
        reason: String,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Gap { subscriber, publisher, expected, found } => write!(
                formatter,
                "gap: subscriber {subscriber} got event {found} of publisher {publisher} where \
                 {expected} was due"
            ),
            Violation::Repeat { subscriber, publisher, expected, found } => write!(
                formatter,
                "repeat or disorder: subscriber {subscriber} got event {found} of publisher \
                 {publisher} after event {}",
                i64::from(*expected) - 1
            ),
            Violation::Foreign { subscriber, begin } => {
                write!(
                    formatter,
                    "changed: subscriber {subscriber} got an event nobody sent: {begin}"
                )
            }
            Violation::Missing { subscriber, publisher, expected, published } => write!(
                formatter,
                "missing: subscriber {subscriber} got events of publisher {publisher} up to {}, \
                 and {published} were acknowledged",
                i64::from(*expected) - 1
            ),
            Violation::Order { one, other } => write!(
                formatter,
                "order: subscribers {one} and {other} saw the same events in different orders"
            ),
            Violation::HangUp { subscriber, reason } => {
                write!(formatter, "hang-up: subscriber {subscriber}: {reason}")
            }
        }
    }
}

/// What has been seen so far, and what of it should not have been.
#[derive(Debug)]
pub struct Checker {
    publishers: usize,
    /// The next sequence of each publisher for each subscriber: a row a subscriber.
    expected: Vec<u32>,
    /// Over all events in the order in which each subscriber saw them.
    order_hashes: Vec<u64>,
    /// What each subscriber began with: orders are compared among those that began alike.
    begins: Vec<Option<u32>>,
    violations: Vec<Violation>,
    violation_count: u64,
}

impl Checker {
    /// For `subscribers` subscribers that see each of `publishers` publishers from its first event on.
    pub fn new(subscribers: usize, publishers: usize) -> Checker {
        Checker {
            publishers,
            expected: vec![0; subscribers * publishers],
            order_hashes: vec![0; subscribers],
            begins: vec![Some(0); subscribers],
            violations: Vec::new(),
            violation_count: 0,
        }
    }

    /// From now on the subscriber sees each publisher from this sequence on; `None`: from any.
    pub fn begin_at(&mut self, subscriber: u32, sequence: Option<u32>) {
        let at = index(subscriber);
        self.expected[at * self.publishers..][..self.publishers].fill(sequence.unwrap_or(ANY));
        self.order_hashes[at] = 0;
        self.begins[at] = sequence;
    }

    /// Takes one event that a subscriber got.
    #[inline]
    pub fn deliver(&mut self, subscriber: u32, stamp: Stamp) {
        let (at, publisher) = (index(subscriber), index(stamp.publisher));
        let place = at * self.publishers + publisher;
        let is_next = publisher < self.publishers && self.expected[place] == stamp.sequence;
        if is_next && stamp.sequence != ANY {
            self.expected[place] += 1;
            let event = u64::from(stamp.publisher) << 32 | u64::from(stamp.sequence);
            let hash = self.order_hashes[at].rotate_left(5) ^ event;
            self.order_hashes[at] = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        } else {
            self.deliver_unexpected(subscriber, stamp);
        }
    }

    #[cold]
    fn deliver_unexpected(&mut self, subscriber: u32, stamp: Stamp) {
        let Stamp { publisher, sequence: found, .. } = stamp;
        if index(publisher) >= self.publishers || found == ANY {
            return self
                .foreign(subscriber, format!("publisher {publisher}, event {found}").as_bytes());
        }
        let place = index(subscriber) * self.publishers + index(publisher);
        let expected = self.expected[place];
        if expected == ANY {
            self.expected[place] = found + 1;
        } else if found > expected {
            self.expected[place] = found + 1;
            self.report(Violation::Gap { subscriber, publisher, expected, found });
        } else {
            self.report(Violation::Repeat { subscriber, publisher, expected, found });
        }
    }

    /// Takes an event that is none of ours.
    #[cold]
    pub fn foreign(&mut self, subscriber: u32, payload: &[u8]) {
        let begin = String::from_utf8_lossy(&payload[..payload.len().min(60)]).into_owned();
        self.report(Violation::Foreign { subscriber, begin });
    }

    /// Notes a violation.
    pub fn report(&mut self, violation: Violation) {
        self.violation_count += 1;
        if self.violations.len() < TOLD_MAX {
            self.violations.push(violation);
        }
    }

    /// What the subscriber expects next of a publisher; `None` if it has seen nothing and may begin
    /// anywhere.
    pub fn expected(&self, subscriber: u32, publisher: u32) -> Option<u32> {
        let sequence = self.expected[index(subscriber) * self.publishers + index(publisher)];
        (sequence != ANY).then_some(sequence)
    }

    /// Whether the subscriber has got everything up to `published`, the number of events of each
    /// publisher.
    pub fn has_all(&self, subscriber: u32, published: &[u32]) -> bool {
        let row = &self.expected[index(subscriber) * self.publishers..][..self.publishers];
        row.iter().zip(published).all(|(expected, published)| expected == published)
    }

    /// The same for at least so many: more may have come meanwhile.
    pub fn has_at_least(&self, subscriber: u32, published: &[u32]) -> bool {
        let row = &self.expected[index(subscriber) * self.publishers..][..self.publishers];
        row.iter().zip(published).all(|(next, published)| *next != ANY && next >= published)
    }

    /// At the end: each of `subscribers` must have got all that was `published` by each publisher, and
    /// all must have seen it in one order.
    pub fn finish(&mut self, subscribers: impl Iterator<Item = u32>, published: &[u32]) {
        let mut first: Option<u32> = None;
        for subscriber in subscribers {
            if !self.has_all(subscriber, published) {
                self.report_missing(subscriber, published);
                continue;
            }
            if self.begins[index(subscriber)] != Some(0) {
                continue;
            }
            let one = *first.get_or_insert(subscriber);
            if self.order_hashes[index(one)] != self.order_hashes[index(subscriber)] {
                self.report(Violation::Order { one, other: subscriber });
            }
        }
    }

    fn report_missing(&mut self, subscriber: u32, published: &[u32]) {
        for (publisher, published) in (0..).zip(published.iter().copied()) {
            let expected = self.expected(subscriber, publisher).unwrap_or(0);
            if expected < published {
                self.report(Violation::Missing { subscriber, publisher, expected, published });
            }
        }
    }

    /// The first violations, in words.
    pub fn violations(&self) -> Vec<String> {
        self.violations.iter().map(Violation::to_string).collect()
    }

    /// How many there were.
    pub fn violation_count(&self) -> u64 {
        self.violation_count
    }
}

fn index(number: u32) -> usize {
    usize::try_from(number).expect("usize has at least 32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(events: &[(u32, u32)]) -> Checker {
        let mut checker = Checker::new(1, 2);
        deliver(&mut checker, 0, events);
        checker
    }

    fn deliver(checker: &mut Checker, subscriber: u32, events: &[(u32, u32)]) {
        for (publisher, sequence) in events.iter().copied() {
            checker.deliver(subscriber, Stamp { publisher, sequence, due_ns: 0 });
        }
    }

    #[test]
    fn each_publishers_order_is_checked_and_any_interleaving_is_right() {
        let mut checker = seen(&[(0, 0), (1, 0), (1, 1), (0, 1), (0, 2)]);
        checker.finish(0..1, &[3, 2]);
        assert_eq!(checker.violations(), [""; 0]);
    }

    #[test]
    fn a_gap_is_caught_and_counted_once() {
        let checker = seen(&[(0, 0), (0, 2), (0, 3)]);
        let gap = Violation::Gap { subscriber: 0, publisher: 0, expected: 1, found: 2 };
        assert_eq!(checker.violations, [gap]);
    }

    #[test]
    fn a_repeat_is_caught() {
        let checker = seen(&[(0, 0), (0, 1), (0, 1), (0, 2)]);
        let repeat = Violation::Repeat { subscriber: 0, publisher: 0, expected: 2, found: 1 };
        assert_eq!(checker.violations, [repeat]);
    }

    #[test]
    fn a_swap_is_caught() {
        let checker = seen(&[(1, 0), (1, 2), (1, 1), (1, 3)]);
        assert_eq!(checker.violation_count(), 2, "{:?}", checker.violations());
    }

    #[test]
    fn what_is_missing_at_the_end_is_caught() {
        let mut checker = seen(&[(0, 0), (1, 0)]);
        checker.finish(0..1, &[1, 3]);
        let missing = Violation::Missing { subscriber: 0, publisher: 1, expected: 1, published: 3 };
        assert_eq!(checker.violations, [missing]);
    }

    #[test]
    fn two_orders_of_the_same_events_are_caught() {
        let mut checker = Checker::new(3, 2);
        for subscriber in [0, 1] {
            deliver(&mut checker, subscriber, &[(0, 0), (1, 0), (0, 1)]);
        }
        deliver(&mut checker, 2, &[(0, 0), (0, 1), (1, 0)]);
        checker.finish(0..3, &[2, 1]);
        assert_eq!(checker.violations, [Violation::Order { one: 0, other: 2 }]);
    }

    #[test]
    fn a_subscriber_may_begin_in_the_middle() {
        let mut checker = Checker::new(2, 1);
        checker.begin_at(0, None);
        checker.begin_at(1, Some(5));
        deliver(&mut checker, 0, &[(0, 7), (0, 8)]);
        deliver(&mut checker, 1, &[(0, 5), (0, 6), (0, 7), (0, 8)]);
        checker.finish(0..2, &[9]);
        assert_eq!(checker.violation_count(), 0, "{:?}", checker.violations());
        deliver(&mut checker, 0, &[(0, 10)]);
        deliver(&mut checker, 1, &[(0, 8)]);
        assert_eq!(checker.violation_count(), 2);
    }

    #[test]
    fn foreign_events_are_caught() {
        let mut checker = seen(&[(2, 0)]);
        checker.foreign(0, b"hello");
        assert_eq!(checker.violation_count(), 2);
    }
}
