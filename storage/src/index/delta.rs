//! IDS, PRODUCERS and CONTROLS: what a segment adds to the state of its log beside topics, so that a
//! retried append is recognised and settings hold, whatever became of the events that say so.
//!
//! ```text
//! IDS        entries of the events that had an id, in offset order, as many as the widest window holds:
//!            0 hash u64, u64   16 fingerprint u64   24 offset - the one before (of the first: - the
//!            segment's base), varint   then time ms - the one before (of the first: - 0), varint
//! PRODUCERS  the last append of each producer, ordered by first offset, 48 bytes each:
//!            0 hash u64, u64   16 epoch u64   24 seq u64   32 first offset u64   40 events u32
//!            44 time s u32
//! CONTROLS   the control events in offset order: offset - the one before (of the first: - the segment's
//!            base), varint; kind, one byte; length, varint; the event's data
//! ```
//! Hashes and fingerprints are those of [`crate::once`]; kinds those of events.

use std::collections::VecDeque;

use crate::{
    append::ProducerClaim,
    event::{EventKind, archive},
    fields::u64_at,
    frame::Frame,
    index::{IndexError, varint},
    offset::Offset,
    once::{
        Fingerprints, IdEntry, NumberedProducer, ProducerEntry, hash_name,
        hashes::{HashNumbers, Hashes},
        producers::producer_hash,
    },
    parts::ProducerList,
    pieces::{Pieces, Places},
};

/// A segment's index holds no more ids: no window is wider.
pub const IDS_MAX: usize = 1_000_000;

const ID_FIXED_BYTES: usize = 24;
/// With two numbers beside that, in their widest form.
const ID_BYTES_MAX: usize = ID_FIXED_BYTES + 20;
/// What a control event takes beside its data: in memory; stored, two numbers and a byte are less.
const CONTROL_FIXED_BYTES_MAX: usize = 32;

/// A control event as a segment's index keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredControl {
    /// Its place in the log.
    pub offset: Offset,
    /// What it is about.
    pub kind: EventKind,
    /// What it says ([`crate::control::Control::decode`]).
    pub data: Box<[u8]>,
}

/// What a segment adds to the state of its log, beside topics.
#[derive(Debug)]
pub struct StateDelta {
    ids: NewestIds,
    producers: LastAppends,
    /// The numbers of producers, of frames that were added by [`StateDelta::add`].
    numbers: HashNumbers,
    controls: Vec<StoredControl>,
    /// They take no more in memory, or stored.
    controls_bytes: usize,
    fingerprints: Fingerprints,
}

impl StateDelta {
    /// Of a segment that begins at `base` and holds no frame yet.
    pub fn new(base: Offset) -> StateDelta {
        StateDelta {
            ids: NewestIds::default(),
            producers: LastAppends { base, places: Places::default(), appends: Pieces::default() },
            numbers: HashNumbers::default(),
            controls: Vec::new(),
            controls_bytes: 0,
            fingerprints: Fingerprints::default(),
        }
    }

    /// Adds what the next frame says.
    pub fn add(&mut self, frame: &Frame) {
        let ids = self.ids_of(frame);
        let numbers = &mut self.numbers;
        let numbered = producers_of(frame).into_iter().map(|entry| NumberedProducer {
            number: numbers.find(&entry.hash).unwrap_or_else(|| numbers.add(entry.hash)),
            entry,
        });
        let producers: Vec<_> = numbered.collect();
        self.add_known(frame, &ids, &producers);
    }

    /// The events of a frame that have an id.
    fn ids_of(&mut self, frame: &Frame) -> Vec<IdEntry> {
        let ids = frame.events().filter_map(|event| {
            Some(IdEntry {
                hash: hash_name(event.id()?),
                fingerprint: self.fingerprints.of_stored(&event),
                offset: event.offset(),
                time_ms: event.time_ms(),
            })
        });
        ids.collect()
    }

    /// The same of a frame of which somebody knows the events that have an id, and the appends of
    /// producers, whose numbers are those of the log.
    pub(crate) fn add_known(
        &mut self,
        frame: &Frame,
        ids: &[IdEntry],
        producers: &[NumberedProducer],
    ) {
        debug_assert_eq!(self.ids_of(frame), ids, "it knows what the frame says");
        debug_assert!(
            producers_of(frame).into_iter().eq(producers.iter().map(|known| known.entry)),
            "it knows what the frame says"
        );
        self.ids.extend(ids);
        producers.iter().for_each(|producer| self.producers.put(producer));
        for event in frame.events().filter(|event| !event.kind().is_data()) {
            let (offset, kind, data) = (event.offset(), event.kind(), event.data().into());
            self.controls_bytes += event.data().len() + CONTROL_FIXED_BYTES_MAX;
            self.controls.push(StoredControl { offset, kind, data });
        }
    }

    /// The events with an id, in offset order.
    pub fn ids(&self) -> impl Iterator<Item = &IdEntry> {
        self.ids.iter()
    }

    /// The last append of each producer, in offset order; of frames that [`StateDelta::add`] has added.
    pub fn producers(&self) -> impl ExactSizeIterator<Item = ProducerEntry> {
        let sorted = self.producers.sorted().into_iter();
        sorted.map(|(_, number)| self.producers.entry(number, self.own_hashes()))
    }

    /// The same of frames that [`StateDelta::add_known`] has added; `hashes` are those of their log.
    pub(crate) fn producers_named<'a>(&'a self, hashes: &'a Hashes) -> ProducerList<'a> {
        let sorted = self.producers.sorted();
        ProducerList::new(sorted.len(), move |place| self.producers.entry(sorted[place].1, hashes))
    }

    /// The hashes of producers, of frames that [`StateDelta::add`] has added.
    pub(crate) fn own_hashes(&self) -> &Hashes {
        self.numbers.hashes()
    }

    /// The control events, in offset order.
    pub fn controls(&self) -> &[StoredControl] {
        &self.controls
    }

    /// No more than so many bytes IDS, PRODUCERS and CONTROLS have together: numbers take their widest form.
    pub(crate) fn bytes_max(&self) -> u64 {
        let ids_bytes = self.ids.count * ID_BYTES_MAX;
        let producers_bytes = self.producers.appends.len() * ProducerEntry::BYTES;
        (ids_bytes + producers_bytes + self.controls_bytes) as u64
    }

    /// About how much memory it takes.
    pub fn memory_bytes(&self) -> usize {
        self.ids.memory_bytes()
            + self.producers.memory_bytes()
            + self.numbers.memory_bytes()
            + self.controls_bytes
    }
}

/// The last append of each producer of a segment, by the producers' numbers: 32 bytes each.
#[derive(Debug)]
struct LastAppends {
    /// Offsets count from here.
    base: Offset,
    /// By number.
    places: Places,
    appends: Pieces<LastAppend>,
}

/// Eight bytes lie on the border of four: 28 in all.
#[derive(Clone, Copy, Debug)]
#[repr(C, packed(4))]
struct LastAppend {
    epoch: u64,
    seq: u64,
    first: u32,
    events: u32,
    time_s: u32,
}

const _: () = assert!(size_of::<LastAppend>() == 28);

impl LastAppends {
    fn put(&mut self, producer: &NumberedProducer) {
        let NumberedProducer { number, entry } = producer;
        let ProducerEntry { hash: _, epoch, seq, first, events, time_s } = *entry;
        let first = u32::try_from(first.since(self.base)).expect("a segment's span is checked");
        let append = LastAppend { epoch, seq, first, events, time_s };
        match self.places.get(*number) {
            Some(place) => *self.appends.get_mut(place) = append,
            None => self.places.put(*number, self.appends.push(append)),
        }
    }

    fn at(&self, number: u32) -> &LastAppend {
        self.appends.get(self.places.get(number).expect("it has an append"))
    }

    /// Where each begins, from the segment's base, and whose it is: by that offset, which no two share.
    fn sorted(&self) -> Vec<(u32, u32)> {
        let mut sorted = Vec::with_capacity(self.appends.len());
        for (number, place) in self.places.iter() {
            sorted.push((self.appends.get(place).first, number));
        }
        sorted.sort_unstable();
        sorted
    }

    fn entry(&self, number: u32, hashes: &Hashes) -> ProducerEntry {
        let LastAppend { epoch, seq, first, events, time_s } = *self.at(number);
        let first = self.base.plus(u64::from(first));
        ProducerEntry { hash: *hashes.get(number), epoch, seq, first, events, time_s }
    }

    fn memory_bytes(&self) -> usize {
        self.places.memory_bytes() + self.appends.memory_bytes()
    }
}

/// The appends of producers that a frame has.
fn producers_of(frame: &Frame) -> Vec<ProducerEntry> {
    let producers = frame.events().filter_map(|event| {
        let (claim, events) = ProducerClaim::decode(event.producer()?)?;
        Some(ProducerEntry {
            hash: producer_hash(&claim, event.topic()),
            epoch: claim.epoch,
            seq: claim.seq,
            first: event.offset(),
            events,
            time_s: seconds(event.time_ms()),
        })
    });
    producers.collect()
}

/// The newest [`IDS_MAX`] entries, in pieces: growing copies nothing.
#[derive(Debug, Default)]
struct NewestIds {
    pieces: VecDeque<Vec<IdEntry>>,
    /// In all pieces.
    count: usize,
}

impl NewestIds {
    const PIECE: usize = 1024;

    fn extend(&mut self, mut entries: &[IdEntry]) {
        self.count += entries.len();
        while !entries.is_empty() {
            let is_first = self.pieces.is_empty();
            let last = match self.pieces.back_mut().filter(|last| last.len() < Self::PIECE) {
                Some(last) => last,
                None => {
                    let room = if is_first { entries.len().min(Self::PIECE) } else { Self::PIECE };
                    self.pieces.push_back(Vec::with_capacity(room));
                    self.pieces.back_mut().expect("it was just added")
                }
            };
            let (fits, rest) = entries.split_at(entries.len().min(Self::PIECE - last.len()));
            last.extend_from_slice(fits);
            entries = rest;
        }
        while self.count - self.pieces.front().map_or(0, Vec::len) >= IDS_MAX {
            self.count -= self.pieces.pop_front().map_or(0, |first| first.len());
        }
    }

    fn iter(&self) -> impl Iterator<Item = &IdEntry> {
        self.pieces.iter().flatten().skip(self.count.saturating_sub(IDS_MAX))
    }

    fn memory_bytes(&self) -> usize {
        let entries: usize = self.pieces.iter().map(Vec::capacity).sum();
        entries * size_of::<IdEntry>() + self.pieces.capacity() * size_of::<Vec<IdEntry>>()
    }
}

/// A time of an event in whole seconds, as long as they fit: until 2106.
pub(crate) fn seconds(time_ms: u64) -> u32 {
    u32::try_from(time_ms / 1_000).unwrap_or(u32::MAX)
}

/// The bytes of IDS. Offsets count from `base`.
pub fn encode_ids<'a>(ids: impl Iterator<Item = &'a IdEntry>, base: Offset) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut before = (base, 0);
    for entry in ids {
        bytes.extend_from_slice(&entry.hash[0].to_le_bytes());
        bytes.extend_from_slice(&entry.hash[1].to_le_bytes());
        bytes.extend_from_slice(&entry.fingerprint.to_le_bytes());
        varint::write(&mut bytes, entry.offset.since(before.0));
        varint::write(&mut bytes, entry.time_ms - before.1);
        before = (entry.offset, entry.time_ms);
    }
    bytes
}

/// The entries of IDS, which must lie below `end`.
pub fn decode_ids(mut bytes: &[u8], base: Offset, end: Offset) -> Result<Vec<IdEntry>, IndexError> {
    let wrong = IndexError::Content { what: "IDS" };
    let mut ids: Vec<IdEntry> = Vec::new();
    let mut before = (base, 0);
    while !bytes.is_empty() {
        if bytes.len() < ID_FIXED_BYTES || ids.len() == IDS_MAX {
            return Err(wrong);
        }
        let (fixed, rest) = bytes.split_at(ID_FIXED_BYTES);
        bytes = rest;
        let (offset_step, time_step_ms) = (varint::read(&mut bytes)?, varint::read(&mut bytes)?);
        let offset = before.0.get().checked_add(offset_step).map(Offset::new);
        let offset = offset.filter(|offset| *offset < end).ok_or(wrong.clone())?;
        let time_ms = u64::checked_add(before.1, time_step_ms).ok_or(wrong.clone())?;
        if !ids.is_empty() && offset_step == 0 {
            return Err(wrong);
        }
        ids.push(IdEntry {
            hash: [u64_at(fixed, 0), u64_at(fixed, 8)],
            fingerprint: u64_at(fixed, 16),
            offset,
            time_ms,
        });
        before = (offset, time_ms);
    }
    Ok(ids)
}

/// The bytes of PRODUCERS.
pub fn encode_producers(producers: impl Iterator<Item = ProducerEntry>) -> Vec<u8> {
    producers.flat_map(|entry| entry.encode()).collect()
}

/// The entries of PRODUCERS, which must lie below `end`.
pub fn decode_producers(bytes: &[u8], end: Offset) -> Result<Vec<ProducerEntry>, IndexError> {
    let mut entries = Vec::with_capacity(bytes.len() / ProducerEntry::BYTES);
    let mut reader = ProducersReader::new(end);
    reader.take(bytes, |entry| entries.push(entry));
    reader.finish().map(|()| entries)
}

/// So much of PRODUCERS is read at a time: whole entries.
pub(crate) const PRODUCERS_READ_BYTES: usize = 4096 * ProducerEntry::BYTES;

/// Reads PRODUCERS in pieces, all of which but the last are whole entries.
#[derive(Debug)]
pub(crate) struct ProducersReader {
    end: Offset,
    is_good: bool,
}

impl ProducersReader {
    /// Of entries that must lie below `end`.
    pub fn new(end: Offset) -> ProducersReader {
        ProducersReader { end, is_good: true }
    }

    /// Hands over the entries of the next piece, while all are good.
    pub fn take(&mut self, piece: &[u8], mut take: impl FnMut(ProducerEntry)) {
        self.is_good &= piece.len().is_multiple_of(ProducerEntry::BYTES);
        for entry in piece.chunks_exact(ProducerEntry::BYTES).map(ProducerEntry::decode) {
            let behind = entry.first.get().checked_add(u64::from(entry.events));
            let is_inside = behind.is_some_and(|behind| behind <= self.end.get());
            self.is_good &= entry.events > 0 && is_inside;
            if !self.is_good {
                return;
            }
            take(entry);
        }
    }

    /// Whether all were good: if not, what was taken says nothing.
    pub fn finish(self) -> Result<(), IndexError> {
        if self.is_good { Ok(()) } else { Err(IndexError::Content { what: "PRODUCERS" }) }
    }
}

/// The bytes of CONTROLS. Offsets count from `base`.
pub fn encode_controls(controls: &[StoredControl], base: Offset) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut before = base;
    for control in controls {
        varint::write(&mut bytes, control.offset.since(before));
        bytes.push(archive::kind_code(control.kind));
        varint::write(&mut bytes, control.data.len() as u64);
        bytes.extend_from_slice(&control.data);
        before = control.offset;
    }
    bytes
}

/// The entries of CONTROLS, which must lie below `end`.
pub fn decode_controls(
    mut bytes: &[u8],
    base: Offset,
    end: Offset,
) -> Result<Vec<StoredControl>, IndexError> {
    let wrong = || IndexError::Content { what: "CONTROLS" };
    let mut controls: Vec<StoredControl> = Vec::new();
    let mut before = base;
    while !bytes.is_empty() {
        let step = varint::read(&mut bytes)?;
        let offset = before.get().checked_add(step).map(Offset::new);
        let offset = offset.filter(|offset| *offset < end).ok_or_else(wrong)?;
        if !controls.is_empty() && step == 0 {
            return Err(wrong());
        }
        let (code, rest) = bytes.split_first().ok_or_else(wrong)?;
        let kind = archive::kind_of(*code).filter(|kind| !kind.is_data()).ok_or_else(wrong)?;
        bytes = rest;
        let len = usize::try_from(varint::read(&mut bytes)?).unwrap_or(usize::MAX);
        let (data, rest) = bytes.split_at_checked(len).ok_or_else(wrong)?;
        bytes = rest;
        controls.push(StoredControl { offset, kind, data: data.into() });
        before = offset;
    }
    Ok(controls)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_newest_million_ids_are_kept() {
        let mut ids = NewestIds::default();
        let entry = |number| IdEntry {
            hash: [number, 0],
            fingerprint: 0,
            offset: Offset::new(number),
            time_ms: 0,
        };
        let mut next = 0;
        for count in [1, 1_023, 1, 0, 5_000, IDS_MAX as u64 - 6_025, 1, 1_500, 1_100_000] {
            let more: Vec<_> = (next..next + count).map(entry).collect();
            ids.extend(&more);
            next += count;
            let kept = next.min(IDS_MAX as u64);
            assert!(ids.iter().copied().eq((next - kept..next).map(entry)), "{next}");
        }
        assert!(ids.memory_bytes() < (IDS_MAX + 3_000) * 40 + 100_000, "{}", ids.memory_bytes());
    }

    proptest! {
        #[test]
        fn all_sections_are_read_as_they_were_written(
            steps in prop::collection::vec((any::<[u64; 3]>(), 0_u64..500, 0_u64..1 << 40), 0..50),
        ) {
            let base = Offset::new(7);
            let (mut ids, mut producers, mut controls) = (Vec::new(), Vec::new(), Vec::new());
            let (mut offset, mut time_ms) = (base, 0);
            for ([a, b, c], step, wait_ms) in steps {
                time_ms += wait_ms;
                ids.push(IdEntry { hash: [a, b], fingerprint: c, offset, time_ms });
                producers.push(ProducerEntry {
                    hash: [a, b], epoch: c, seq: step, first: offset, events: 3,
                    time_s: seconds(time_ms),
                });
                let data = vec![7; usize::try_from(step).expect("small")].into();
                controls.push(StoredControl { offset, kind: EventKind::TopicTrimmed, data });
                offset = offset.plus(step + 1);
            }
            let end = offset.plus(3);
            let bytes = encode_ids(ids.iter(), base);
            prop_assert_eq!(decode_ids(&bytes, base, end), Ok(ids));
            for cut in 1..bytes.len().min(26) {
                prop_assert!(decode_ids(&bytes[..cut], base, end).is_err());
            }
            let bytes = encode_producers(producers.iter().copied());
            prop_assert_eq!(decode_producers(&bytes, end), Ok(producers));
            let bytes = encode_controls(&controls, base);
            prop_assert_eq!(decode_controls(&bytes, base, end), Ok(controls));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_ids(&bytes, Offset::new(5), Offset::new(500));
            let _ = decode_producers(&bytes, Offset::new(500));
            let _ = decode_controls(&bytes, Offset::new(5), Offset::new(500));
        }
    }
}
