//! CONTROLS and FLOORS: what control events had come to.

use crate::{
    control::{self, Control, TopicRule, TopicTrimmed},
    event::{EventKind, archive},
    index::{StoredControl, varint},
    offset::Offset,
    rules::Rules,
    settings::LogSettings,
    snapshot::SnapshotError,
    topic::TOPIC_BYTES_MAX,
};

/// The rules of a snapshot as they are stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StoredRules {
    controls: Vec<(EventKind, Box<[u8]>)>,
    floors: Vec<StoredFloor>,
}

/// What is kept of a topic, and the event that says so.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct StoredFloor {
    topic: String,
    floor: Offset,
    said_at: Offset,
}

impl StoredRules {
    /// Of rules in which no floor lies at or below `kept_from` that need be remembered.
    pub(super) fn of(rules: &Rules, kept_from: Offset) -> StoredRules {
        let mut controls = Vec::new();
        if *rules.log() != LogSettings::default() || rules.keep_from() > Offset::ZERO {
            let mut event = Control::Log(*rules.log()).event();
            control::add_kept_from(&mut event, rules.keep_from());
            controls.push((event.kind, event.data.as_ref().into()));
        }
        for (pattern, settings) in rules.topics() {
            let rule = TopicRule { pattern: pattern.to_owned(), settings: Some(*settings) };
            let event = Control::Topic(rule).event();
            controls.push((event.kind, event.data.as_ref().into()));
        }
        // A longer name is that of no topic.
        let is_needed = |topic: &str, floor| floor > kept_from && topic.len() <= TOPIC_BYTES_MAX;
        let floors = rules.floors().iter().filter(|(topic, floor)| is_needed(topic, *floor));
        let mut floors: Vec<_> = floors
            .map(|(topic, floor)| {
                let (topic, said_at) = (topic.to_owned(), rules.floors().said_at(topic));
                StoredFloor { topic, floor, said_at }
            })
            .collect();
        floors.sort_unstable();
        StoredRules { controls, floors }
    }

    /// Applies them to rules that are empty, as of an offset.
    pub(super) fn add_to(&self, rules: &mut Rules, offset: Offset) {
        for (kind, data) in &self.controls {
            rules.apply_stored(&StoredControl { offset, kind: *kind, data: data.clone() });
        }
        for StoredFloor { topic, floor, said_at } in &self.floors {
            let trimmed = TopicTrimmed { topic: topic.clone(), before: floor.get() };
            rules.apply(&Control::Trimmed(trimmed), *said_at);
        }
    }

    /// The bytes of CONTROLS and of FLOORS.
    pub(super) fn encode(&self) -> (Vec<u8>, Vec<u8>) {
        let (mut controls, mut floors) = (Vec::new(), Vec::new());
        for (kind, data) in &self.controls {
            controls.push(archive::kind_code(*kind));
            varint::write(&mut controls, data.len() as u64);
            controls.extend_from_slice(data);
        }
        for StoredFloor { topic, floor, said_at } in &self.floors {
            varint::write(&mut floors, topic.len() as u64);
            floors.extend_from_slice(topic.as_bytes());
            varint::write(&mut floors, floor.get());
            varint::write(&mut floors, said_at.since(*floor));
        }
        (controls, floors)
    }

    /// The entries of CONTROLS and FLOORS; all of it was said before `end`.
    pub(super) fn decode(
        mut controls: &[u8],
        mut floors: &[u8],
        end: Offset,
    ) -> Result<StoredRules, SnapshotError> {
        let mut rules = StoredRules::default();
        let wrong = || SnapshotError::Content { what: "CONTROLS" };
        while let Some((code, rest)) = controls.split_first() {
            controls = rest;
            let kind = archive::kind_of(*code).filter(|kind| !kind.is_data()).ok_or_else(wrong)?;
            let data = take_bytes(&mut controls, usize::MAX).ok_or_else(wrong)?;
            rules.controls.push((kind, data.into()));
        }
        let wrong = || SnapshotError::Content { what: "FLOORS" };
        while !floors.is_empty() {
            let name = take_bytes(&mut floors, TOPIC_BYTES_MAX).ok_or_else(wrong)?;
            let name = std::str::from_utf8(name).map_err(|_| wrong())?.to_owned();
            let floor = Offset::new(varint::read(&mut floors)?);
            let said_at = floor.get().checked_add(varint::read(&mut floors)?).map(Offset::new);
            let said_at = said_at.filter(|said_at| *said_at < end).ok_or_else(wrong)?;
            rules.floors.push(StoredFloor { topic: name, floor, said_at });
        }
        Ok(rules)
    }
}

/// A length and so many bytes, at most `len_max`.
fn take_bytes<'a>(bytes: &mut &'a [u8], len_max: usize) -> Option<&'a [u8]> {
    let len = usize::try_from(varint::read(bytes).ok()?).ok().filter(|len| *len <= len_max)?;
    let (taken, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(taken)
}
