//! What makes an append happen once: the ids of the newest events, and how far each producer has come.
//! Pure.
//!
//! Neither keeps a name: ids and producers are known by 128 bits of their hash (XXH3), and what an
//! event of an id says by 64 more. Somebody who makes two names collide on purpose gains what he could
//! have by using one name twice.
//!
//! Both are functions of the events of the log. What a segment adds to them stands in its index (IDS
//! and PRODUCERS), so that they outlive the events.

use std::hash::{BuildHasher, RandomState};

use twox_hash::{XxHash3_64, XxHash3_128};

use crate::event::{DataForm, EventView, NewEvent};

pub(crate) mod hashes;
pub mod ids;
pub mod producers;

pub use ids::{IdEntry, IdWindow, Ids};
pub(crate) use producers::NumberedProducer;
pub use producers::{PRODUCERS_MAX, ProducerEntry, Producers};

/// 128 bits that stand for a name.
pub type NameHash = [u64; 2];

/// The hash of a name, of parts that are not mixed up with one another.
pub(crate) fn hash_name(text: &str) -> NameHash {
    split(XxHash3_128::oneshot(text.as_bytes()))
}

fn split(hash: u128) -> NameHash {
    let bytes = hash.to_le_bytes();
    let half = |at: usize| u64::from_le_bytes(*bytes[at..].first_chunk().expect("16 bytes"));
    [half(0), half(8)]
}

/// Mixes hashes to what nobody outside can foresee: the hashes themselves anybody can make alike.
#[derive(Debug)]
struct Mixer {
    secret: [u64; 2],
}

impl Mixer {
    fn random() -> Mixer {
        let random = RandomState::new();
        Mixer { secret: [random.hash_one(0), random.hash_one(1)] }
    }

    fn mix(&self, hash: &NameHash) -> u64 {
        let half = |at: usize| u128::from(hash[at] ^ self.secret[at]);
        let [low, high] = split(half(0) * half(1));
        low ^ high
    }
}

/// Makes fingerprints of events: of everything but the time.
#[derive(Debug, Default)]
pub(crate) struct Fingerprints {
    scratch: Vec<u8>,
}

impl Fingerprints {
    /// The fingerprint of an event that is to be appended.
    pub fn of_new(&mut self, event: &NewEvent) -> u64 {
        let own = event.headers.iter().filter(|(name, _)| !name.starts_with(':'));
        let headers = own.map(|(name, value)| (&**name, &**value));
        let key = event.key.as_deref().unwrap_or_default();
        let content_type = match &*event.content_type {
            "" => NewEvent::JSON,
            content_type => content_type,
        };
        let texts = [&*event.topic, &*event.event_type, key, content_type];
        self.make(texts, event.form, headers, &event.data)
    }

    /// The same of one that was read.
    pub fn of_stored(&mut self, event: &EventView<'_>) -> u64 {
        let key = event.key().unwrap_or_default();
        let texts = [event.topic(), event.event_type(), key, event.content_type()];
        self.make(texts, event.form(), event.headers(), event.data())
    }

    fn make<'a>(
        &mut self,
        texts: [&str; 4],
        form: DataForm,
        headers: impl Iterator<Item = (&'a str, &'a str)>,
        data: &[u8],
    ) -> u64 {
        let scratch = &mut self.scratch;
        scratch.clear();
        let mut push = |bytes: &[u8]| {
            scratch.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            scratch.extend_from_slice(bytes);
        };
        for text in texts {
            push(text.as_bytes());
        }
        for (name, value) in headers {
            push(name.as_bytes());
            push(value.as_bytes());
        }
        push(match form {
            DataForm::Json => b"json",
            DataForm::Text => b"text",
            DataForm::Binary => b"data",
        });
        push(&XxHash3_128::oneshot(data).to_le_bytes());
        XxHash3_64::oneshot(scratch)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{event::EventKey, topic::Topic};

    fn event() -> NewEvent {
        let topic = Topic::parse("a/b").expect("a topic");
        NewEvent { ..NewEvent::json(topic, Bytes::from_static(b"{}")) }
    }

    #[test]
    fn every_part_of_an_event_but_its_time_is_in_its_fingerprint() {
        let mut prints = Fingerprints::default();
        let other_topic = NewEvent { topic: Topic::parse("a/c").expect("a topic"), ..event() };
        let others = [
            other_topic,
            NewEvent {
                event_type: crate::event::EventType::parse("t").expect("a type"),
                ..event()
            },
            NewEvent { key: Some(EventKey::parse("t").expect("a key")), ..event() },
            NewEvent { headers: vec![("t".into(), "".into())], ..event() },
            NewEvent { headers: vec![("".into(), "t".into())], ..event() },
            NewEvent { content_type: "text/json".into(), ..event() },
            NewEvent { form: DataForm::Text, ..event() },
            NewEvent { data: Bytes::from_static(b"{ }"), ..event() },
        ];
        let mut seen = vec![prints.of_new(&event())];
        for other in &others {
            let print = prints.of_new(other);
            assert!(!seen.contains(&print), "{other:?}");
            seen.push(print);
        }
        let explicit = NewEvent { content_type: NewEvent::JSON.into(), ..event() };
        assert_eq!(prints.of_new(&explicit), seen[0], "the default is the same, spelt out");
    }
}
