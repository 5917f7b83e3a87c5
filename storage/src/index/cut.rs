//! The state delta of a segment that is cut: what it said of the events before the cut, be they gone, and no
//! more.
//!
//! Of what was appended behind the cut nothing may be known: who sends it again would be told that it is there. So where
//! nobody can tell on which side a thing lies it is left out.

use std::collections::{BTreeMap, HashMap};

use crate::{
    index::{
        Carried, IndexBuilder, IndexError, IndexHeader, StateDelta, StoredControl,
        delta::{self, IDS_MAX},
        gone::{self, GoneTopic},
    },
    offset::Offset,
    once::{IdEntry, NameHash, ProducerEntry},
};

/// Where a segment is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Before this offset.
    Offset(Offset),
    /// Before the first event of this time or a later one, in milliseconds since 1970.
    TimeMs(u64),
}

/// What an index says of events that may be gone.
#[derive(Debug)]
pub(crate) struct Said {
    pub ids: Vec<IdEntry>,
    pub producers: Vec<ProducerEntry>,
    pub controls: Vec<StoredControl>,
    pub gone: Vec<GoneTopic>,
    /// REMADE.
    pub is_remade: bool,
}

impl Said {
    pub fn decode(carried: &Carried, header: &IndexHeader) -> Result<Said, IndexError> {
        let (base, end) = (header.base_offset, header.end_offset);
        Ok(Said {
            ids: delta::decode_ids(&carried.ids, base, end)?,
            producers: delta::decode_producers(&carried.producers, end)?,
            controls: delta::decode_controls(&carried.controls, base, end)?,
            gone: gone::decode_gone(&carried.gone, base, end)?,
            is_remade: carried.is_remade,
        })
    }

    /// Up to where all events are surely older than this time, as those before `from` are, by those of which the time is
    /// known: of producers' to the second. An append of which one event is older is older as a whole.
    pub fn end_before(&self, time_ms: u64, from: Offset) -> Offset {
        let ids = self.ids.iter().map(|entry| (entry.offset.plus(1), entry.time_ms));
        let gone = self.gone.iter().map(|topic| (topic.last_offset.plus(1), topic.last_time_ms));
        let producers = self.producers.iter().map(|entry| (behind(entry), latest_ms(entry)));
        let older = ids.chain(gone).chain(producers).filter(|(_, known_ms)| *known_ms < time_ms);
        let end = older.map(|(end, _)| end).fold(from, Offset::max);
        let begun = self.producers.iter().filter(|entry| entry.first < end);
        begun.map(behind).fold(end, Offset::max)
    }

    /// Leaves out what does not lie before `cut`, or is not reached by a segment that ends at `end`.
    pub fn retain_before(&mut self, cut: Offset, end: Offset) {
        let last = cut.min(end);
        self.ids.retain(|entry| entry.offset < last);
        self.producers.retain_mut(|entry| is_kept(entry, cut, end));
        self.controls.retain(|control| control.offset < last);
        self.gone.retain(|topic| topic.last_offset < last);
    }

    /// Adds what frames say of the events that are there; of appends of producers those that `is_kept` says, and may
    /// shorten.
    pub fn add_frames(
        &mut self,
        frames: &StateDelta,
        is_kept: impl FnMut(&mut ProducerEntry) -> bool,
    ) {
        let mut ids: BTreeMap<Offset, _> =
            frames.ids().map(|entry| (entry.offset, *entry)).collect();
        ids.extend(self.ids.iter().map(|entry| (entry.offset, *entry)));
        let too_many = ids.len().saturating_sub(IDS_MAX);
        self.ids = ids.into_values().skip(too_many).collect();

        let mut of_frames: Vec<ProducerEntry> = frames.producers().collect();
        of_frames.retain_mut(is_kept);
        let mut producers: HashMap<NameHash, ProducerEntry> =
            of_frames.into_iter().map(|entry| (entry.hash, entry)).collect();
        for entry in &self.producers {
            let last = producers.entry(entry.hash).or_insert(*entry);
            if last.first < entry.first {
                *last = *entry;
            }
        }
        self.producers = producers.into_values().collect();
        self.producers.sort_unstable_by_key(|entry| (entry.first, entry.hash));

        let mut controls: BTreeMap<Offset, _> =
            frames.controls().iter().map(|control| (control.offset, control.clone())).collect();
        controls.extend(self.controls.drain(..).map(|control| (control.offset, control)));
        self.controls = controls.into_values().collect();
    }

    /// The last time that is known.
    pub fn last_time_ms(&self) -> Option<u64> {
        let gone = self.gone.iter().map(|topic| topic.last_time_ms);
        gone.chain(self.ids.iter().map(|entry| entry.time_ms)).max()
    }

    pub fn encode(&self, base: Offset, last_time_ms: u64) -> Carried {
        Carried {
            ids: delta::encode_ids(self.ids.iter(), base),
            producers: delta::encode_producers(self.producers.iter().copied()),
            controls: delta::encode_controls(&self.controls, base),
            gone: gone::encode_gone(&self.gone, base),
            last_time_ms,
            is_remade: self.is_remade,
        }
    }
}

/// The offset behind the append that it says.
fn behind(entry: &ProducerEntry) -> Offset {
    entry.first.plus(u64::from(entry.events))
}

/// Whether an append lies before `cut` and is reached by a segment that ends at `end`, which may have no more than its
/// first events, where the others are gone.
fn is_kept(entry: &mut ProducerEntry, cut: Offset, end: Offset) -> bool {
    let is_kept = entry.first < end && behind(entry) <= cut;
    if is_kept && behind(entry) > end {
        entry.events = u32::try_from(end.since(entry.first)).expect("fewer than it had");
    }
    is_kept
}

/// The latest that its append can be of.
fn latest_ms(entry: &ProducerEntry) -> u64 {
    u64::from(entry.time_s) * 1_000 + 999
}

/// What of `carried`, which the index with this header says, holds for a segment that is cut there; its frames are
/// those of `kept`, and it ends at `end`.
///
/// A producer whose last append lies behind the cut is known by what its frames before it say: compaction keeps
/// no more than the last one beside them. Where the cut is a time, what is gone is known to be older if it lies before
/// something that is, be that an event that is left.
pub(crate) fn carried_below(
    carried: &Carried,
    header: &IndexHeader,
    cut: Cut,
    end: Offset,
    kept: &IndexBuilder,
) -> Result<Carried, IndexError> {
    let mut said = Said::decode(carried, header)?;
    let cut_at = match cut {
        Cut::Offset(offset) => offset,
        Cut::TimeMs(_) => Offset::MAX,
    };
    said.retain_before(cut_at, end);
    if let Cut::TimeMs(time_ms) = cut {
        let kept_ends = kept.topics().map(|(_, topic)| topic.last_offset.plus(1));
        let from = kept_ends.fold(header.base_offset, Offset::max);
        // Control events stay as long as their segment: frames say which of them are older.
        let controls = std::mem::take(&mut said.controls);
        said.retain_before(said.end_before(time_ms, from), end);
        said.controls = controls;
    }

    said.add_frames(kept.delta(), |entry| is_kept(entry, cut_at, end));
    let last_time_ms = said
        .last_time_ms()
        .map_or(kept.last_time_ms(), |known_ms| known_ms.max(kept.last_time_ms()));
    Ok(said.encode(header.base_offset, last_time_ms))
}
