//! Heads that come again and again: a publisher's requests seldom differ in more than their bodies, and
//! those of many topics or with ids of their own in little more. What a head means is found out once.
//!
//! It depends on its bytes alone, and on rules that do not change while the server runs; so the same bytes
//! mean the same, and those of one [`Shape`] the same but for its values. Whatever does change (the date, a
//! drain) is not kept. Heads and shapes are both bounded in number and length, and take a place only when
//! they come a second time: a thousand different ones neither cost memory nor throw out those that repeat,
//! but by chance.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use memchr::memmem;
use strandline_storage::topic::Topic;

use super::{
    WholeForm,
    shape::{Places, Shape, Values},
};
use crate::{
    event_json::FieldValues,
    http::{
        body::{BodyDecoder, BodyLimit},
        head::{BodyLength, Head},
        response::AnswerTo,
    },
};

/// How many heads are known at most: with [`HEAD_BYTES_MAX`], some 512 KiB a shard.
const PLACES: usize = 512;

/// How many shapes are known at most. They are tried one after the other: there are about as many as kinds of
/// clients.
const SHAPES_MAX: usize = 8;

/// So many heads are looked for by their shapes first, behind one that was found so.
const SHAPES_FIRST: u8 = 32;

/// Of how many heads it is remembered that a shape was seen.
const SEEN_SHAPES: usize = 64;

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
    /// How long it might be.
    pub(crate) body_limit: BodyLimit,
}

/// What another head says beside what a known one does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OwnValues {
    /// Its topic.
    pub(crate) topic: Option<Topic>,
    /// Of its fields.
    pub(crate) fields: FieldValues,
}

/// A head that is known, itself or by its shape.
#[derive(Clone)]
pub(crate) struct KnownHead {
    /// How long it is.
    pub(crate) head_bytes: usize,
    /// How long its body is.
    pub(crate) body_bytes: usize,
    /// What it says, or one of its shape,
    pub(crate) append: Rc<RepeatedAppend>,
    /// but for these.
    pub(crate) own: OwnValues,
}

/// Heads of appends that a shard has seen more than once.
pub(crate) struct RepeatedHeads {
    places: RefCell<Box<[HeadPlace]>>,
    shapes: RefCell<Shapes>,
    /// For so many heads more shapes are tried first: the last one that was looked for among heads was
    /// found by its shape. Where heads differ in their topics each would have another place, which is not near.
    shapes_first: Cell<u8>,
    end: memmem::Finder<'static>,
}

#[derive(Default)]
struct HeadPlace {
    /// The hash of the last head that came for this place and was not known.
    seen: u32,
    known: Option<(Box<[u8]>, KnownHead)>,
}

/// In no order but that those which are used come first.
struct Shapes {
    /// Hashes of shapes that were parsed.
    seen: [u32; SEEN_SHAPES],
    known: Vec<(Shape, Rc<RepeatedAppend>)>,
}

impl Default for RepeatedHeads {
    fn default() -> Self {
        let places = (0..PLACES).map(|_| HeadPlace::default()).collect();
        let shapes = Shapes { seen: [0; SEEN_SHAPES], known: Vec::new() };
        RepeatedHeads {
            places: RefCell::new(places),
            shapes: RefCell::new(shapes),
            shapes_first: Cell::new(0),
            end: memmem::Finder::new(b"\r\n\r\n"),
        }
    }
}

impl RepeatedHeads {
    /// What the head means that `bytes` begin with; `None` if that is not known.
    pub(crate) fn find(&self, bytes: &[u8]) -> Option<KnownHead> {
        let window = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
        if let Some(times) = self.shapes_first.get().checked_sub(1) {
            self.shapes_first.set(times);
            if let Some(found) = self.shapes.borrow_mut().find(window) {
                return Some(found);
            }
        }
        let head = &window[..self.end.find(window)? + 4];
        let hash = crc32fast::hash(head);
        let place = &mut self.places.borrow_mut()[place_of(hash)];
        if let Some((known, append)) = &place.known
            && **known == *head
        {
            return Some(append.clone());
        }
        let found = self.shapes.borrow_mut().find(head)?;
        place.saw(hash, head, || found.clone());
        self.shapes_first.set(SHAPES_FIRST);
        Some(found)
    }

    /// A head was parsed that [`RepeatedHeads::find`] does not know, and this is what it means.
    pub(crate) fn learn(&self, head: &Head, append: RepeatedAppend) {
        let bytes = head.bytes();
        if bytes.len() > HEAD_BYTES_MAX {
            return;
        }
        let append = Rc::new(append);
        self.shapes.borrow_mut().saw(head, &append);
        let hash = crc32fast::hash(bytes);
        self.places.borrow_mut()[place_of(hash)].saw(hash, bytes, || {
            let (head_bytes, body_bytes) = (bytes.len(), append.body_bytes);
            KnownHead { head_bytes, body_bytes, append, own: OwnValues::default() }
        });
    }
}

impl HeadPlace {
    fn saw(&mut self, hash: u32, head: &[u8], append: impl FnOnce() -> KnownHead) {
        if self.seen == hash {
            self.known = Some((head.into(), append()));
        }
        self.seen = hash;
    }
}

impl Shapes {
    /// What the head means that `bytes` begin with.
    fn find(&mut self, bytes: &[u8]) -> Option<KnownHead> {
        let mut shapes = self.known.iter().enumerate();
        let (at, (head_bytes, values)) =
            shapes.find_map(|(at, (shape, _))| shape.read(bytes).map(|found| (at, found)))?;
        let append = self.known[at].1.clone();
        if at > 0 {
            self.known.swap(at, at - 1);
        }
        let Values { topic, body_bytes, fields } = values;
        let body_bytes = match body_bytes {
            None => append.body_bytes,
            Some(bytes) => {
                BodyDecoder::new(BodyLength::Sized(bytes), append.body_limit).ok()?;
                usize::try_from(bytes).ok()?
            }
        };
        let own = OwnValues { topic, fields };
        Some(KnownHead { head_bytes, body_bytes, append, own })
    }

    fn saw(&mut self, head: &Head, append: &Rc<RepeatedAppend>) {
        let Some(places) = Places::of(head) else { return };
        let hash = places.hash(head.bytes());
        let seen = &mut self.seen[hash as usize % SEEN_SHAPES];
        if *seen == hash {
            self.known.truncate(SHAPES_MAX - 1);
            self.known.push((Shape::new(head.bytes(), places), append.clone()));
        }
        *seen = hash;
    }
}

fn place_of(hash: u32) -> usize {
    hash as usize % PLACES
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::append::assert_known_heads_agree;

    fn head(topic: &str, fields: &str) -> Vec<u8> {
        format!(
            "POST /api/v1/topics/{topic}/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\
             {fields}\r\n\"b\"POST"
        )
        .into()
    }

    fn known<'a>(heads: impl IntoIterator<Item = &'a Vec<u8>>) -> usize {
        assert_known_heads_agree(heads.into_iter().map(Vec::as_slice))
    }

    #[test]
    fn a_head_is_known_when_it_came_twice() {
        let head = head("a", "");
        for times in 0..6_usize {
            assert_eq!(known(vec![&head; times]), times.saturating_sub(2));
        }
    }

    #[test]
    fn heads_of_one_shape_are_known_when_two_of_them_came() {
        let with = |field: &str, values: &[&str]| {
            let heads: Vec<_> =
                values.iter().map(|value| head("a", &format!("{field}: {value}\r\n"))).collect();
            assert_eq!(known(&heads), values.len() - 2, "{field}");
        };
        let topics = ["a", "b", "c/d/events", "e%2Ff", "%C3%A4", "g-._~!$&'()+,;=:@"];
        assert_eq!(known(&topics.map(|topic| head(topic, ""))), topics.len() - 2);
        let with_query = |topic| {
            let text = String::from_utf8(head(topic, "")).unwrap();
            text.replace("/events ", "/events?log=main ").into_bytes()
        };
        assert_eq!(known(&topics.map(with_query)), topics.len() - 2);
        let ids = ["a", "\"a\"", "b", "a%20b", "\"c\"", "\"\"c\"\"", "%22c%22", "\"", "d\"", "?#"];
        with("Event-Id", &ids);
        with("idempotency-key", &ids);
        with("Event-Type", &["a", "b", "message"]);
        with("Event-Key", &["a", "b", "c%0d"].map(|key| key.trim_end_matches("%0d")));
        with("Expected-Offset", &["0", "1", "18446744073709551613"].map(|n| &n[..n.len().min(9)]));
        let claim = "Producer-Id: p\r\nProducer-Epoch: 0\r\nProducer-Seq";
        with(claim, &["0", "1", "2", "99999"]);
        // Of a publisher each is another, and there are more of them than shapes.
        let producers: Vec<_> = (0..3 * SHAPES_MAX).map(|number| format!("p%20{number}")).collect();
        let producers: Vec<_> = producers.iter().map(String::as_str).collect();
        with("Producer-Epoch: 0\r\nProducer-Seq: 0\r\nProducer-Id", &producers);
        with("Producer-Seq: 0\r\nProducer-Id: p\r\nProducer-Epoch", &["0", "1", "20"]);
        with("X-Request-Id", &["1", "2", "a b c"]);
        let lengths = ["3", "0", "2", "1000000"].map(|bytes| {
            format!(
                "POST /api/v1/events?topic=a HTTP/1.1\r\nHost: localhost\r\nContent-Length:{bytes}\r\n\r\n"
            )
            .into_bytes()
        });
        assert_eq!(known(&lengths), 2);
    }

    /// What decides more than a value is no place: another of it is another head.
    #[test]
    fn what_decides_more_than_a_value_makes_another_shape() {
        for (one, other) in [
            ("Content-Type: a/b\r\n", "Content-Type: a/c\r\n"),
            ("Prefer: return=minimal\r\n", "Prefer: return=maximal\r\n"),
            ("Origin: https://app.example\r\n", "Origin: http://app.example1\r\n"),
            ("Event-Header-A: 1\r\n", "Event-Header-A: 2\r\n"),
            ("Expect: 100-continue\r\n", "Expect: 100-Continue\r\n"),
            ("X: 1\r\n", "Y: 1\r\n"),
            ("Event-Id: 1\r\n", "Event-Id:  1\r\n"),
            ("X: 1\r\n", "X: \u{e4}\r\n"),
            ("", "X: 1\r\n"),
        ] {
            let heads = [head("a", one), head("b", one), head("c", other), head("d", other)];
            assert_eq!(known(&heads), 0, "{one:?} {other:?}");
            assert_eq!(known(heads.iter().chain([&head("e", one)])), 1, "{one:?}");
        }
    }

    /// What would be refused is refused by who parses it.
    #[test]
    fn what_is_refused_is_not_known() {
        let claim = "Producer-Id: p\r\nProducer-Epoch: 0\r\n";
        let cases = [
            (
                "Producer-Id",
                "Producer-Epoch: 0\r\nProducer-Seq: 0\r\n",
                ["", "%", "%ff", "a b", "\u{e4}", "\x7f", "%0a", &"x".repeat(257), "%20"],
            ),
            (
                "Producer-Epoch",
                "Producer-Id: p\r\nProducer-Seq: 0\r\n",
                ["-1", "01", "1.5", "", "1e3", "0x1", "+1", "9007199254740992", "\"1\""],
            ),
            (
                "Event-Id",
                "",
                ["", "%", "%ff", "a b", "\u{e4}", "\x7f", "%0a", &"x".repeat(257), "\"\""],
            ),
            (
                "Event-Type",
                "",
                ["error", "open", "ping", "connection.x", "%00", "", " ", "\t", "\"%20\"%0a"],
            ),
            (
                "Producer-Seq",
                claim,
                ["-1", "01", "1.5", "", "1e3", "0x1", "+1", "99999999999999999999", "\"1\""],
            ),
        ];
        for (field, other_fields, refused) in cases {
            let of = |value: &str| head("a", &format!("{other_fields}{field}: {value}\r\n"));
            for value in refused {
                let heads = [of("1"), of("2"), of(value), of("3")];
                assert_eq!(known(&heads), 1, "{field}: {value:?}");
            }
        }
        let levels = "a/".repeat(16) + "a";
        for topic in
            ["", "a//b", ".", "a/..", "$a", "*", "%", "%ff", "a%2F", "a?b", "a#b", "a b", &levels]
        {
            let heads = [head("a", ""), head("b", ""), head(topic, ""), head("c", "")];
            assert_eq!(known(&heads), 1, "{topic:?}");
        }
        for length in ["", "-1", "+3", "3,3", "03x", "18446744073709551616", "999999999999"] {
            let mut heads = ["a", "b", "c", "d"].map(|topic| head(topic, ""));
            let text = String::from_utf8(heads[2].clone()).unwrap();
            heads[2] = text.replace("Length: 3", &format!("Length: {length}")).into();
            assert_eq!(known(&heads), 1, "{length:?}");
        }
        let twice = |id: &str| head("a", &format!("Event-Id: {id}\r\nIdempotency-Key: a\r\n"));
        assert_eq!(known(&[twice("a"), twice("a"), twice("b"), twice("a")]), 1, "only itself");
    }

    /// Half of a head says nothing, and a long one is not kept.
    #[test]
    fn heads_come_whole_and_are_short() {
        let whole = head("a", "");
        let heads = RepeatedHeads::default();
        for end in 0..whole.len() - 8 {
            assert_eq!(known([&whole, &whole, &whole[..end].to_vec()]), 0, "{end} bytes");
        }
        let long = head("a", &format!("X: {}\r\n", "x".repeat(HEAD_BYTES_MAX)));
        assert_eq!(known(vec![&long; 4]), 0);
        assert!(heads.find(&[]).is_none());
    }

    /// A place belongs to whoever repeats, and shapes that are used stay.
    #[test]
    fn heads_that_do_not_repeat_throw_out_nothing() {
        let once: Vec<_> = (0..1_000).map(|at| head("a", &format!("X-{at}: 1\r\n"))).collect();
        let of_shape = |number: u32| head(&number.to_string(), "");
        let mut heads = vec![of_shape(0), of_shape(1), of_shape(2)];
        heads.extend(once.iter().cloned());
        heads.push(of_shape(3));
        assert_eq!(known(&heads), 2);
        let twice: Vec<_> = (0..SHAPES_MAX * 4)
            .flat_map(|at| once[at..=at].iter().cycle().take(2).cloned())
            .collect();
        let used = twice.chunks(2).enumerate().flat_map(|(at, pair)| {
            [pair[0].clone(), pair[1].clone(), of_shape(u32::try_from(at).unwrap() + 10)]
        });
        let heads: Vec<_> = [of_shape(0), of_shape(1)].into_iter().chain(used).collect();
        assert_eq!(known(&heads), SHAPES_MAX * 4);
    }

    /// Parts of which heads are made; most are fine, some are refused.
    fn field() -> impl Strategy<Value = (usize, usize)> {
        (0..FIELDS.len(), 0..6_usize)
    }

    const FIELDS: &[(&str, &[&str])] = &[
        ("Event-Id", &["a", "\"a\"", "c%20d", "%zz", "\"q\"", " \"e\" "]),
        ("idempotency-KEY", &["\"a\"", "a", "\"b", "%0a", "%22q%22", "\"\""]),
        ("Event-Type", &["a", "trade", "error", "b%C3%A4", "\u{e4}", "c"]),
        ("Event-Key", &["k", "l", "m", "n", " o", "%"]),
        ("Expected-Offset", &["0", "7", "08", "-1", "9999999", "1"]),
        ("Producer-Id", &["p", "q", "r%20s", "", "%ff", "p"]),
        ("Producer-Epoch", &["0", "1", "0", "22", "", "00"]),
        ("Producer-Seq", &["0", "1", "2", "30", "x", "00"]),
        (
            "Content-Type",
            &[
                "text/plain",
                "application/json",
                "image/png",
                "application/x-ndjson",
                "x",
                "text/html",
            ],
        ),
        ("Prefer", &["return=minimal", "return=minimal", "a", "", "return=\"minimal\"", "b"]),
        ("X-Request-Id", &["1", "22", "333 4", "", "\u{e4}", "\t5 "]),
        ("Expect", &["100-continue", "100-continue", "x", "100-continue", "", "100-CONTINUE"]),
        ("Connection", &["keep-alive", "close", "", "upgrade", "x", "keep-alive"]),
        ("Content-Length", &["3", "4", "5", "x", "", "0"]),
        ("Transfer-Encoding", &["chunked", "chunked", "x", "", "gzip", "chunked"]),
        (
            "Origin",
            &["https://app.example", "https://app.example", "null", "http://localhost", "x", ""],
        ),
    ];

    const PATHS: &[&str] = &[
        "/api/v1/topics/a/events",
        "/api/v1/topics/b/c/events",
        "/api/v1/topics/d%2Fe/events",
        "/api/v1/topics/events/events",
        "/api/v1/topics/a/events?log=main",
        "/api/v1/topics/b/events?log=main",
        "/api/v1/topics/b/events?scope=log",
        "/api/v1/topics//events",
        "/api/v1/topics/$a/events",
        "/api/v1/topics/f/trim",
        "http://localhost/api/v1/topics/f/events",
        "http://localhost/api/v1/topics/g/events",
        "/api/v1/events",
        "/api/v1/events?topic=a",
    ];

    fn assembled(path: usize, fields: &[(usize, usize)], length: usize) -> Vec<u8> {
        let fields: String = fields
            .iter()
            .map(|(field, value)| format!("{}: {}\r\n", FIELDS[*field].0, FIELDS[*field].1[*value]))
            .collect();
        let path = PATHS[path];
        format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{fields}\r\nabcdefghij"
        )
        .into()
    }

    proptest! {
        /// Whatever is known of a head is what parsing it says.
        #[test]
        fn what_is_known_is_what_parsing_says(
            names in prop::collection::vec(field(), 0..5),
            heads in prop::collection::vec(
                (0..PATHS.len(), prop::collection::vec(0..6_usize, 5), 0..8_usize, any::<bool>()),
                2..12,
            ),
            edits in prop::collection::vec(
                (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 0..6,
            ),
        ) {
            let mut first_path = None;
            let mut inputs: Vec<Vec<u8>> = heads
                .iter()
                .map(|(path, values, length, is_alike)| {
                    let first = *first_path.get_or_insert(*path);
                    let path = if *is_alike { first } else { *path };
                    let fields: Vec<_> = names
                        .iter()
                        .zip(values)
                        .map(|((field, value), other)| {
                            (*field, if *is_alike && other % 2 == 0 { *value } else { *other })
                        })
                        .collect();
                    assembled(path, &fields, *length)
                })
                .collect();
            // Each comes three times, and then perhaps with a byte that is another.
            inputs = inputs.iter().flat_map(|input| [input, input, input]).cloned().collect();
            for (input, at, byte) in edits {
                let mut edited = inputs[input.index(inputs.len())].clone();
                let at = at.index(edited.len());
                edited[at] = byte;
                inputs.push(edited);
            }
            known(&inputs);
        }
    }
}
