//! What the index of a segment becomes: the bytes of its file.

use super::{Carried, IndexBuilder, LOOKED_AT, SegmentEnd, TopicState};
use crate::{
    frame::Seed,
    index::{
        INDEX_HEADER_BYTES, IndexHeader, Section, SectionKind, delta,
        filter::FilterWriter,
        resident::FRAMES_STEP_BYTES,
        topics::{TopicsWriter, write_list_entry},
    },
    offset::Position,
    topics::names::{Names, look},
};

impl IndexBuilder {
    /// The bytes of the `.idx` file; of frames that [`IndexBuilder::add`] has added. Takes some 0.3 us a
    /// topic.
    pub fn finish(&self, end: &SegmentEnd) -> Vec<u8> {
        self.finish_named(end, &self.names)
    }

    /// The same of frames that [`IndexBuilder::add_ours`] has added; `names` are those of their log.
    pub(crate) fn finish_named(&self, end: &SegmentEnd, names: &Names) -> Vec<u8> {
        let base = self.header.base_offset;
        let carried = Carried {
            ids: delta::encode_ids(self.delta.ids(), base),
            producers: delta::encode_producers(self.delta.producers().iter()),
            controls: delta::encode_controls(self.delta.controls(), base),
            gone: Vec::new(),
            last_time_ms: self.last_time_ms,
        };
        self.write(end, &carried, names)
    }

    /// The same for a segment that was rewritten.
    pub fn finish_carrying(&self, end: &SegmentEnd, carried: &Carried) -> Vec<u8> {
        self.write(end, carried, &self.names)
    }

    fn write(&self, end: &SegmentEnd, carried: &Carried, names: &Names) -> Vec<u8> {
        assert!(end.end_offset >= self.end_offset, "a segment ends behind its frames");
        assert!(end.end_position >= self.end_position, "a segment ends behind its frames");
        let seed = Seed::of(&self.header.incarnation);
        let mut writer = TopicsWriter::new(self.header.base_offset, self.first_time_ms, seed);
        let mut filter = FilterWriter::new(self.topics.len());
        let mut list = Vec::new();
        for places in self.places_by_name(names).chunks(LOOKED_AT) {
            let some = self.look_at(places, names);
            for (topic, name) in &some {
                list.clear();
                let first = self.offset_at(topic.first_offset);
                let events = u64::from(topic.first_events);
                write_list_entry(&mut list, (0, first), (topic.first_block, first), events);
                self.lists.read(&topic.more, &mut list);
                writer.add(name, &self.summary(topic), &list);
            }
            filter.add_all(&some.iter().map(|(_, name)| *name).collect::<Vec<_>>());
        }
        writer.finish();
        let filter = filter.finish();
        let mut other: Vec<(SectionKind, &[u8])> =
            vec![(SectionKind::TOPICS, &writer.topics), (SectionKind::LISTS, &writer.lists)];
        for (kind, content) in [
            (SectionKind::IDS, &carried.ids),
            (SectionKind::PRODUCERS, &carried.producers),
            (SectionKind::CONTROLS, &carried.controls),
            (SectionKind::GONE, &carried.gone),
        ] {
            if !content.is_empty() {
                other.push((kind, content));
            }
        }
        let (frames, gaps) = (self.sparse_frames(), self.encoded_gaps());
        let kept_from = self.kept_from.map(|from| from.get().to_le_bytes());
        let mut resident: Vec<(SectionKind, &[u8])> = vec![
            (SectionKind::FRAMES, &frames),
            (SectionKind::FENCE, &writer.fence),
            (SectionKind::FILTER, &filter),
        ];
        if !gaps.is_empty() {
            resident.push((SectionKind::GAPS, &gaps));
        }
        if let Some(kept_from) = &kept_from {
            resident.push((SectionKind::KEPT, kept_from));
        }
        self.assemble(end, self.last_time_ms.max(carried.last_time_ms), seed, &resident, &other)
    }

    /// The places of all topics in the order of their names, each with the eight bytes of its name that come
    /// behind what all have in common. Those decide nearly always, and lie beside each other; names lie
    /// anywhere.
    fn places_by_name(&self, names: &Names) -> Vec<(u64, u32)> {
        let count = u32::try_from(self.topics.len()).expect("places are u32");
        let name_of = |place: u32| names.bytes(self.topics.get(place).name);
        let key_of = |name: &[u8]| {
            let mut key = [0; 8];
            let bytes = name.len().min(key.len());
            key[..bytes].copy_from_slice(&name[..bytes]);
            // No name holds a zero: one that ends here comes before those that go on.
            u64::from_be_bytes(key)
        };
        // None if not all begin so.
        let places_behind = |common: &[u8]| {
            let mut places = Vec::with_capacity(self.topics.len());
            let mut rest = 0..count;
            while !rest.is_empty() {
                let some = rest.by_ref().take(LOOKED_AT).map(|place| (name_of(place), place));
                let some: Vec<(&[u8], u32)> = some.collect();
                look(some.iter().map(|(name, _)| *name));
                for (name, place) in some {
                    places.push((key_of(name.strip_prefix(common)?), place));
                }
            }
            Some(places)
        };
        // What some have in common is nearly always what all have.
        let some = places_behind(in_common((0..count).take(LOOKED_AT).map(name_of)));
        let all = || places_behind(in_common((0..count).map(name_of)));
        let mut places: Vec<(u64, u32)> = some.or_else(all).expect("all begin as all do");
        let name_at = |place: u32| names.get(self.topics.get(place).name);
        places.sort_unstable_by_key(|(key, _)| *key);
        for same in places.chunk_by_mut(|(key, _), (next, _)| key == next) {
            if same.len() > 1 {
                same.sort_unstable_by_key(|(_, place)| name_at(*place));
            }
        }
        places
    }

    /// Looks at what is known of some topics, as [`IndexBuilder::find_places`] does; returns it with their
    /// names.
    fn look_at<'a>(
        &'a self,
        places: &[(u64, u32)],
        names: &'a Names,
    ) -> Vec<(&'a TopicState, &'a [u8])> {
        let topics = || places.iter().map(|(_, place)| self.topics.get(*place));
        // The first of its fields and the last, as they may lie in two lines of the cache.
        let ends = topics().map(|topic| topic.last_time_ms + u64::from(topic.first_events));
        std::hint::black_box(ends.sum::<u64>());
        let links =
            topics().map(|topic| u64::from(self.lists.look_first(&topic.more))).sum::<u64>();
        std::hint::black_box(links);
        let some: Vec<_> = topics().map(|topic| (topic, names.bytes(topic.name))).collect();
        look(some.iter().map(|(_, name)| *name));
        some
    }

    fn encoded_gaps(&self) -> Vec<u8> {
        let ends = self.gaps.iter().flat_map(|lost| [lost.start, lost.end]);
        ends.flat_map(|offset| offset.get().to_le_bytes()).collect()
    }

    fn sparse_frames(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut step = None;
        for frame in &self.frames {
            let this_step = Some(frame.position.get() / FRAMES_STEP_BYTES);
            if this_step > step {
                bytes.extend_from_slice(&frame.encode());
                step = this_step;
            }
        }
        bytes
    }

    fn assemble(
        &self,
        end: &SegmentEnd,
        last_time_ms: u64,
        seed: Seed,
        resident: &[(SectionKind, &[u8])],
        other: &[(SectionKind, &[u8])],
    ) -> Vec<u8> {
        let mut position = Position::new(INDEX_HEADER_BYTES as u64);
        let mut sections = Vec::new();
        let mut resident_bytes = position.get();
        for (index, (kind, content)) in resident.iter().chain(other).enumerate() {
            let section = Section {
                kind: *kind,
                checksum: seed.crc(content),
                position,
                bytes: content.len() as u64,
            };
            position = section.end();
            sections.push(section);
            if index < resident.len() {
                resident_bytes = position.get();
            }
        }
        let header = IndexHeader {
            base_offset: self.header.base_offset,
            end_offset: end.end_offset,
            end_position: end.end_position,
            end_checksum: end.end_checksum,
            incarnation: self.header.incarnation,
            tag: self.header.tag,
            first_time_ms: self.first_time_ms,
            last_time_ms,
            event_count: self.event_count,
            frame_count: self.frames.len() as u64,
            topic_count: self.topics.len() as u64,
            resident_bytes,
            index_bytes: position.get(),
            sections,
        };
        let mut bytes = header.encode().to_vec();
        for (_, content) in resident.iter().chain(other) {
            bytes.extend_from_slice(content);
        }
        bytes
    }
}

/// What all of some names begin with.
fn in_common<'a>(mut names: impl Iterator<Item = &'a [u8]>) -> &'a [u8] {
    let first = names.next().unwrap_or_default();
    names.fold(first, |common, name| {
        let shared = || common.iter().zip(name).take_while(|(one, other)| one == other).count();
        if name.starts_with(common) { common } else { &common[..shared()] }
    })
}
