//! Readers that come, go and are served beside what a log may do: each has what it wants, once and in order.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::super::subscription::Subscription;
use super::*;

const TOPICS: [&str; 5] = ["a", "a x", "b", "c", "c x"];
const READERS: usize = 6;

#[derive(Clone, Debug)]
enum Step {
    /// A frame becomes visible, and is published, or its news is lost.
    Publish {
        topics: Vec<usize>,
        is_lost: bool,
    },
    /// The shard learns how far the log has come.
    Advance,
    /// A reader comes, from so many offsets before the end.
    Join {
        reader: usize,
        key: usize,
        back: u64,
    },
    Leave {
        reader: usize,
    },
    /// The view whose turn it is looks at so many frames, and serves so many members.
    Turn {
        frames: usize,
        members: usize,
    },
    /// A reader's socket has space.
    Serve {
        reader: usize,
    },
    /// Some views are brought up to date.
    GoRound,
    /// Everything of a topic is deleted, also what is on its way.
    Delete {
        topic: usize,
    },
    /// A rewrite drops every third event.
    Rewrite {
        back: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (vec(0..TOPICS.len(), 1..5), prop::bool::weighted(0.15))
            .prop_map(|(topics, is_lost)| Step::Publish { topics, is_lost }),
        1 => Just(Step::Advance),
        3 => (0..READERS, 0..6_usize, 0..8_u64)
            .prop_map(|(reader, key, back)| Step::Join { reader, key, back }),
        2 => (0..READERS).prop_map(|reader| Step::Leave { reader }),
        6 => (0..4_usize, 0..3_usize)
            .prop_map(|(frames, members)| Step::Turn { frames, members }),
        2 => (0..READERS).prop_map(|reader| Step::Serve { reader }),
        1 => Just(Step::GoRound),
        1 => (0..TOPICS.len()).prop_map(|topic| Step::Delete { topic }),
        1 => (0..6_u64).prop_map(|back| Step::Rewrite { back }),
    ]
}

fn key_of(number: usize) -> ViewKey {
    match number {
        0 => key(&["a"], &[]),
        1 => key(&["a", "c"], &[]),
        2 => key(&["b", "c"], &["message"]),
        3 => key(&["*"], &["x"]),
        4 => key(&["**"], &[]),
        _ => key(&["c"], &["x"]),
    }
}

struct Reader {
    key: ViewKey,
    view_id: ViewId,
    position: u32,
    from: u64,
    place: Subscription,
    seen: Vec<u64>,
}

struct World {
    views: Views,
    /// Of each event of the log, the topic and type.
    log: Vec<&'static str>,
    floors: Floors,
    /// Deleted, or dropped.
    gone: Vec<bool>,
    readers: Vec<Option<Reader>>,
}

fn matches(key: &ViewKey, text: &str) -> bool {
    let (topic, event_type) = text.split_once(' ').unwrap_or((text, "message"));
    let types = key.wanted.types();
    let is_of_type = types.iter().any(|wanted| AsRef::<str>::as_ref(wanted) == event_type);
    key.wanted.matches(topic) && (types.is_empty() || is_of_type)
}

impl World {
    fn new() -> Self {
        World {
            views: Views::with_limits(
                Offset::ZERO,
                Limits { ring_bytes: 1_500, waiting_bytes: 4 * 4096, pairs: 3, look_bytes: 2 },
            ),
            log: Vec::new(),
            floors: Floors::default(),
            gone: Vec::new(),
            readers: (0..READERS).map(|_| None).collect(),
        }
    }

    fn end(&self) -> u64 {
        self.log.len() as u64
    }

    /// As a connection does: what the ring has, and the log where it has not.
    fn serve(&mut self, reader: usize) {
        let end = self.end();
        loop {
            let Some(one) = &mut self.readers[reader] else { return };
            let next = one.place.next();
            let view = self.views.up_to_date(one.view_id);
            let (first, inside) = match view.ring.place_of(next) {
                RingPlace::Chunks(first) => (first, None),
                RingPlace::Inside(first, at) => (first, Some(at)),
                RingPlace::Behind(until) => {
                    assert!(until.get() <= end, "the log has so much");
                    for at in next.get()..until.get() {
                        let index = usize::try_from(at).expect("a small log");
                        if matches(&one.key, self.log[index]) && !self.gone[index] {
                            one.seen.push(at);
                        }
                    }
                    one.place.considered(until);
                    continue;
                }
            };
            let mut skip = inside.unwrap_or(0);
            for chunk in view.ring.chunks_from(first) {
                let text = std::str::from_utf8(&chunk.bytes[skip..]).expect("digits");
                for at in text.split_whitespace() {
                    let at: u64 = at.parse().expect("an offset");
                    let index = usize::try_from(at).expect("a small log");
                    assert!(!self.gone[index], "{at} has gone");
                    one.seen.push(at);
                }
                if skip > 0 {
                    one.place.took_rest_of(chunk);
                } else {
                    one.place.took(chunk);
                }
                skip = 0;
            }
            one.place.considered(self.views.considered(one.view_id));
            return;
        }
    }

    fn turn(&mut self, frames: usize, members: usize) {
        let Some(view_id) = self.views.first_due() else { return };
        for _ in 0..frames {
            if self.views.look_at_next(view_id).is_none() {
                break;
            }
        }
        for _ in 0..members {
            let Some(member) = self.views.get_mut(view_id).members.next() else {
                return self.views.served(true);
            };
            self.serve(member.slot as usize);
        }
        self.views.served(false);
    }

    fn leave(&mut self, reader: usize) {
        let Some(one) = self.readers[reader].take() else { return };
        self.check(&one);
        if let Some(Moved { member, is_owed_news }) = self.views.leave(one.view_id, one.position) {
            let other = self.readers[member.slot as usize].as_mut().expect("it is a member");
            other.position = one.position;
            if is_owed_news {
                self.serve(member.slot as usize);
            }
        }
    }

    /// Everything so far, in order, once; what has gone meanwhile may be missing.
    fn check(&self, one: &Reader) {
        let mut seen = one.seen.iter().copied().peekable();
        for at in one.from..one.place.next().get() {
            let index = usize::try_from(at).expect("a small log");
            let is_seen = seen.next_if_eq(&at).is_some();
            let is_wanted = matches(&one.key, self.log[index]);
            assert!(is_seen <= is_wanted, "{at} is nothing for it");
            assert!(is_seen || !is_wanted || self.gone[index], "{at} is missing");
        }
        assert_eq!(seen.next(), None, "nothing twice, nothing from before");
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Publish { topics, is_lost } => {
                let base = self.end();
                let topics: Vec<&str> = topics.into_iter().map(|topic| TOPICS[topic]).collect();
                self.log.extend_from_slice(&topics);
                self.gone.resize(self.log.len(), false);
                for index in usize::try_from(base).expect("small")..self.log.len() {
                    let topic = self.log[index].split(' ').next().expect("a topic");
                    self.gone[index] = self.floors.of(topic).get() > index as u64;
                }
                if !is_lost {
                    self.views.publish(&frame(base, &topics));
                }
            }
            Step::Advance => self.views.advance(Offset::new(self.end())),
            Step::Join { reader, key, back } => {
                self.leave(reader);
                let key = key_of(key);
                let slot = u32::try_from(reader).expect("a few");
                let member = Member { slot, number: 0 };
                let (view_id, position) = self.views.join(&key, member, || Rc::new(Numbers));
                let from = self.end().saturating_sub(back);
                let place = Subscription::new(Offset::new(from));
                let seen = Vec::new();
                self.readers[reader] = Some(Reader { key, view_id, position, from, place, seen });
                self.serve(reader);
            }
            Step::Leave { reader } => self.leave(reader),
            Step::Turn { frames, members } => self.turn(frames, members),
            Step::Serve { reader } => self.serve(reader),
            Step::GoRound => {
                self.views.go_round();
            }
            Step::Delete { topic } => {
                let topic = TOPICS[topic].split(' ').next().expect("a topic");
                // One behind the end: the next frame may be on its way.
                let end = Offset::new(self.end() + 1);
                self.floors.raise(topic, end, end);
                for (index, text) in self.log.iter().enumerate() {
                    self.gone[index] |= text.split(' ').next() == Some(topic);
                }
                self.views.hide(&Arc::new(self.floors.clone()));
            }
            Step::Rewrite { back } => {
                let settled = self.end().saturating_sub(back);
                self.floors.settle_to(Offset::new(settled));
                for at in (0..settled).filter(|at| at % 3 == 0) {
                    self.gone[usize::try_from(at).expect("small")] = true;
                }
                self.views.hide(&Arc::new(self.floors.clone()));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever comes between: everybody gets what it wants, once and in order, without being asked in the end.
    #[test]
    fn nobody_lacks_anything(steps in vec(step(), 1..80)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
            prop_assert!(world.views.ring_bytes <= 1_500);
            prop_assert!(world.views.waiting.held_bytes() <= 4 * 4096);
        }
        world.take(Step::Advance);
        while world.views.is_going_round() {
            world.views.go_round();
        }
        while world.views.has_due() {
            world.turn(3, 2);
        }
        prop_assert!(world.views.waiting.is_empty());
        let held = world.views.views.iter().flatten().map(|view| view.ring.held_bytes());
        prop_assert_eq!(world.views.ring_bytes, held.sum::<usize>());
        for reader in 0..READERS {
            if let Some(one) = &world.readers[reader] {
                world.check(one);
                // What lies behind it is nothing for it.
                let next = usize::try_from(one.place.next().get()).expect("a small log");
                let rest = world.log.iter().zip(&world.gone).skip(next);
                for (text, is_gone) in rest {
                    prop_assert!(!matches(&one.key, text) || *is_gone);
                }
            }
            world.leave(reader);
        }
        prop_assert_eq!((world.views.len(), world.views.ring_bytes), (0, 0));
        prop_assert_eq!(world.views.holding.pop_front(), None);
    }
}
