//! Heads that come again and again, byte for byte: a publisher's requests seldom differ in more than
//! their bodies. What a head means is found out once.
//!
//! It depends on its bytes alone, and on rules that do not change while the server runs; so the same bytes
//! mean the same. Whatever does change (the date, a drain) is not kept. Both the places and what is kept
//! in one are bounded, and a head takes a place only when it comes a second time: a thousand different ones
//! neither cost memory nor throw out those that repeat, but by chance.

use std::{cell::RefCell, rc::Rc};

use memchr::memmem;

use super::WholeForm;
use crate::http::response::AnswerTo;

/// How many heads are known at most: with [`HEAD_BYTES_MAX`], some 512 KiB a shard.
const PLACES: usize = 512;

/// Longer heads are parsed each time.
const HEAD_BYTES_MAX: usize = 1024;

/// What a head says that asks for an append in one go, and was found to be fine.
pub(crate) struct RepeatedAppend {
    /// How its body becomes events.
    pub(crate) form: WholeForm,
    /// How its answer looks, but for the date.
    pub(crate) to: AnswerTo,
    /// How long its body is.
    pub(crate) body_bytes: usize,
}

/// Heads of appends that a shard has seen more than once.
pub(crate) struct RepeatedHeads {
    places: RefCell<Box<[Place]>>,
    end: memmem::Finder<'static>,
}

#[derive(Default)]
struct Place {
    /// The hash of the last head that was parsed for this place.
    seen: u32,
    known: Option<(Box<[u8]>, Rc<RepeatedAppend>)>,
}

impl Default for RepeatedHeads {
    fn default() -> Self {
        let places = (0..PLACES).map(|_| Place::default()).collect();
        RepeatedHeads { places: RefCell::new(places), end: memmem::Finder::new(b"\r\n\r\n") }
    }
}

impl RepeatedHeads {
    /// What the head means that `bytes` begin with, and how long it is; `None` if that is not known.
    pub(crate) fn find(&self, bytes: &[u8]) -> Option<(usize, Rc<RepeatedAppend>)> {
        let window = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
        let head = &window[..self.end.find(window)? + 4];
        let places = self.places.borrow();
        let (known, append) = places[place_of(crc32fast::hash(head))].known.as_ref()?;
        (**known == *head).then(|| (head.len(), append.clone()))
    }

    /// A head was parsed that [`RepeatedHeads::find`] does not know, and this is what it means.
    pub(crate) fn learn(&self, head: &[u8], append: impl FnOnce() -> RepeatedAppend) {
        if head.len() > HEAD_BYTES_MAX {
            return;
        }
        let hash = crc32fast::hash(head);
        let place = &mut self.places.borrow_mut()[place_of(hash)];
        if place.seen == hash {
            place.known = Some((head.into(), Rc::new(append())));
        }
        place.seen = hash;
    }
}

fn place_of(hash: u32) -> usize {
    hash as usize % PLACES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::ServerConfig,
        http::{request::HeadParser, request::Parsed, route},
    };

    fn append(head: &[u8], body_bytes: usize) -> RepeatedAppend {
        let Parsed::Request { head, .. } = HeadParser::default().parse(head) else {
            panic!("a head")
        };
        let Ok(route::Operation::AppendRaw { topic }) = route::route(head.method(), head.path())
        else {
            panic!("an append")
        };
        let listen = crate::config::ListenAddress::parse(ServerConfig::LISTEN).unwrap();
        let config = ServerConfig::new(listen, "data");
        let form = super::super::AppendForm::of_topic(&head, topic, &config);
        let Ok(super::super::AppendForm::Whole(form)) = form else { panic!("a whole one") };
        RepeatedAppend { form, to: AnswerTo::new(&head), body_bytes }
    }

    fn head(topic: &str) -> Vec<u8> {
        format!(
            "POST /api/v1/topics/{topic}/events HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n"
        )
        .into()
    }

    fn input(topic: &str) -> Vec<u8> {
        [head(topic), b"\"b\"POST".to_vec()].concat()
    }

    #[test]
    fn a_head_is_known_when_it_came_twice() {
        let (heads, first) = (RepeatedHeads::default(), head("a"));
        for _ in 0..2 {
            assert!(heads.find(&input("a")).is_none());
            heads.learn(&first, || append(&first, 3));
        }
        let (head_bytes, known) = heads.find(&input("a")).expect("it came twice");
        assert_eq!((head_bytes, known.body_bytes), (first.len(), 3));
    }

    /// One byte more, less or other is another head; so is half of one.
    #[test]
    fn only_the_same_bytes_are_the_same_head() {
        let (heads, first) = (RepeatedHeads::default(), head("a"));
        for _ in 0..2 {
            heads.learn(&first, || append(&first, 3));
        }
        for at in 0..first.len() {
            let mut other = input("a");
            other[at] ^= 1;
            assert!(heads.find(&other).is_none(), "byte {at}");
            assert!(heads.find(&first[..at]).is_none(), "{at} bytes");
        }
        assert!(heads.find(&first).is_some());
        let other = input("b");
        assert!(heads.find(&other).is_none());
        let long = [b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![b'x'; HEAD_BYTES_MAX]].concat();
        heads.learn(&long, || unreachable!("it is too long"));
    }

    /// Two that share a place: that which comes twice in a row has it.
    #[test]
    fn a_place_belongs_to_whoever_repeats() {
        let heads = RepeatedHeads::default();
        let place = |topic: &str| place_of(crc32fast::hash(&head(topic)));
        let one = "a".to_owned();
        let two = (0..).map(|number| format!("b{number}")).find(|two| place(two) == place(&one));
        let two = two.expect("there are more topics than places");
        for topic in [&one, &one, &two] {
            heads.learn(&head(topic), || append(&head(topic), 3));
        }
        assert!(heads.find(&input(&one)).is_some() && heads.find(&input(&two)).is_none());
        heads.learn(&head(&two), || append(&head(&two), 3));
        assert!(heads.find(&input(&one)).is_none() && heads.find(&input(&two)).is_some());
    }
}
