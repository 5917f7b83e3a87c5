//! What the index of a segment becomes: the bytes of its file.

use super::{Carried, IndexBuilder, LOOKED_AT, SegmentEnd, TopicState};
use crate::{
    frame::Seed,
    index::{
        INDEX_HEADER_BYTES, IndexHeader, REMADE, Section, SectionKind, delta,
        filter::FilterWriter,
        resident::{FRAME_PLACE_BYTES, FRAMES_STEP_BYTES},
        topics::{TOPIC_BLOCK_BYTES, TopicsWriter, write_list_entry},
    },
    offset::Position,
    once::hashes::Hashes,
    parts::{Part, Parts},
    topics::names::{Names, look},
};

mod by_name;
#[cfg(test)]
mod tests;

use by_name::{ByName, Item};

/// A topic takes no more in TOPICS, FENCE and FILTER: its name, of 512 bytes at most, and its numbers, in a block that
/// may be filled to three quarters, and once more for each block.
const TOPIC_BYTES_MAX_STORED: u64 = 800;
/// Three numbers: where the next frame is, the topic's first offset there, how many events; each event is in one frame.
const LIST_ENTRY_BYTES_MAX: u64 = 15;

/// Of topics that may be in more frames beside their first the list is read when it is written: it may be too
/// long to be copied, and would be read in vain.
const COPIED_FRAMES_MORE_MAX: u32 = 9;

impl IndexBuilder {
    /// The bytes of the `.idx` file; of frames that [`IndexBuilder::add`] has added. Takes some 0.25 us a
    /// topic.
    pub fn finish(&self, end: &SegmentEnd) -> Vec<u8> {
        self.parts(end).to_vec()
    }

    /// The same in parts.
    pub(crate) fn parts(&self, end: &SegmentEnd) -> Parts<'_> {
        self.parts_named(end, &self.names, self.delta.own_hashes())
    }

    /// No more than so many bytes the file will have, as far as counts say: often much fewer, and where there are many
    /// topics a quarter more than the frames have is less ([`crate::reserve`]).
    pub(crate) fn bytes_max(&self) -> u64 {
        let topics_bytes = self.topics.len() as u64 * TOPIC_BYTES_MAX_STORED;
        let entries_max = self.event_count.min(self.frames.len() as u64 * self.topics.len() as u64);
        let lists_bytes = entries_max * LIST_ENTRY_BYTES_MAX;
        let frames_bytes = (self.frames.len() + self.gaps.len()) as u64 * FRAME_PLACE_BYTES as u64;
        let fixed_bytes = 2 * INDEX_HEADER_BYTES as u64 + TOPIC_BLOCK_BYTES as u64;
        fixed_bytes + topics_bytes + lists_bytes + frames_bytes + self.delta.bytes_max()
    }

    /// The same of frames that [`IndexBuilder::add_ours`] has added; `names` and the hashes of producers are
    /// those of their log.
    pub(crate) fn parts_named<'a>(
        &'a self,
        end: &SegmentEnd,
        names: &Names,
        producers: &'a Hashes,
    ) -> Parts<'a> {
        let base = self.header.base_offset;
        let state = [
            (SectionKind::IDS, delta::encode_ids(self.delta.ids(), base).into()),
            (SectionKind::PRODUCERS, Part::Producers(self.delta.producers_named(producers))),
            (SectionKind::CONTROLS, delta::encode_controls(self.delta.controls(), base).into()),
        ];
        self.write(end, self.last_time_ms, state, names)
    }

    /// The same for a segment that was rewritten.
    pub fn finish_carrying(&self, end: &SegmentEnd, carried: &Carried) -> Vec<u8> {
        let producers = Part::from(&carried.producers[..]);
        self.parts_carrying(end, carried, producers).to_vec()
    }

    /// The same in parts, with PRODUCERS from elsewhere.
    pub(crate) fn parts_carrying<'a>(
        &self,
        end: &SegmentEnd,
        carried: &'a Carried,
        producers: Part<'a>,
    ) -> Parts<'a> {
        let state = [
            (SectionKind::IDS, Part::from(&carried.ids[..])),
            (SectionKind::PRODUCERS, producers),
            (SectionKind::CONTROLS, Part::from(&carried.controls[..])),
            (SectionKind::GONE, Part::from(&carried.gone[..])),
            (
                SectionKind::REMADE,
                Part::from(&REMADE[..REMADE.len() * usize::from(carried.is_remade)]),
            ),
        ];
        self.write(end, carried.last_time_ms, state, &self.names)
    }

    /// The parts of the file; `state` is what the segment adds to that of its log.
    fn write<'a>(
        &self,
        end: &SegmentEnd,
        last_time_ms: u64,
        state: impl IntoIterator<Item = (SectionKind, Part<'a>)>,
        names: &Names,
    ) -> Parts<'a> {
        assert!(end.end_offset >= self.end_offset, "a segment ends behind its frames");
        assert!(end.end_position >= self.end_position, "a segment ends behind its frames");
        let seed = Seed::of(&self.header.incarnation);
        let (writer, filter) = self.write_topics(names, seed);
        let TopicsWriter { topics, lists, fence, .. } = writer;
        let mut other: Vec<(SectionKind, Part<'a>)> =
            vec![(SectionKind::TOPICS, topics.into()), (SectionKind::LISTS, lists.into())];
        other.extend(state.into_iter().filter(|(_, content)| !content.is_empty()));
        let gaps = self.encoded_gaps();
        let mut resident: Vec<(SectionKind, Part<'a>)> = vec![
            (SectionKind::FRAMES, self.sparse_frames().into()),
            (SectionKind::FENCE, fence.into()),
            (SectionKind::FILTER, filter.into()),
        ];
        if !gaps.is_empty() {
            resident.push((SectionKind::GAPS, gaps.into()));
        }
        if let Some(kept_from) = self.kept_from {
            resident.push((SectionKind::KEPT, kept_from.get().to_le_bytes().to_vec().into()));
        }
        self.assemble(end, self.last_time_ms.max(last_time_ms), seed, resident, other)
    }

    /// Writes all topics in the order of their names; returns them and their filter.
    fn write_topics(&self, names: &Names, seed: Seed) -> (TopicsWriter, Vec<u8>) {
        let mut writer = TopicsWriter::new(self.header.base_offset, self.first_time_ms, seed);
        let mut filter = FilterWriter::new(self.topics.len());
        let by_name = self.by_name(names, &mut writer);
        writer.topics.reserve(by_name.bytes());
        let (mut list, mut details) = (Vec::new(), Vec::new());
        let name_at = |place: u32| names.bytes(self.topics.get(place).name);
        by_name.take_all(LOOKED_AT, name_at, |items| {
            let far = items.iter().filter_map(|item| match item {
                Item::Whole { .. } => None,
                Item::At(place) => Some(*place),
            });
            let mut far = self.look_at(far, names).into_iter();
            let written = items.iter().map(|item| match *item {
                Item::Whole { name, details } => {
                    writer.add(name, details);
                    name
                }
                Item::At(_) => {
                    let (topic, name) = far.next().expect("each was looked at");
                    self.read_list(topic, &mut list);
                    details.clear();
                    writer.write_details(&self.summary(topic), &list, &mut details);
                    writer.add(name, &details);
                    name
                }
            });
            filter.add_all(&written.collect::<Vec<_>>());
        });
        writer.finish();
        (writer, filter.finish())
    }

    /// Reads all topics where they lie, in the order in which they came.
    fn by_name<'a>(&self, names: &'a Names, writer: &mut TopicsWriter) -> ByName<'a> {
        let count = u32::try_from(self.topics.len()).expect("places are u32");
        let step = self.topics.len() / by_name::sample_count(self.topics.len()).max(1);
        let sample = (0..count).step_by(step.max(1));
        let sample = sample.map(|place| names.bytes(self.topics.get(place).name));
        let sample: Vec<&[u8]> = sample.collect();
        look(sample.iter().copied());
        let mut by_name = ByName::new(self.topics.len(), &sample);
        let mut list = Vec::new();
        let mut places = 0..count;
        while !places.is_empty() {
            let some = self.look_at(places.clone().take(LOOKED_AT), names);
            for ((topic, name), place) in some.into_iter().zip(places.by_ref()) {
                if self.is_copied(topic, name) {
                    self.read_list(topic, &mut list);
                    if TopicsWriter::has_room_for(&list) {
                        let summary = self.summary(topic);
                        by_name.add(name, |item| writer.write_details(&summary, &list, item));
                        continue;
                    }
                }
                by_name.add_place(name, place);
            }
        }
        by_name
    }

    /// Whether so little is written of a topic that it is copied.
    fn is_copied(&self, topic: &TopicState, name: &[u8]) -> bool {
        let frames_more_max = topic.event_count - u32::from(topic.first_events);
        name.len() <= by_name::NAME_BYTES_MAX && frames_more_max <= COPIED_FRAMES_MORE_MAX
    }

    fn read_list(&self, topic: &TopicState, list: &mut Vec<u8>) {
        list.clear();
        let first = self.offset_at(topic.first_offset);
        let events = u64::from(topic.first_events);
        write_list_entry(list, (0, first), (topic.first_block, first), events);
        self.lists.read(&topic.more, list);
    }

    /// Looks at what is known of some topics, as [`IndexBuilder::find_places`] does; returns it with their
    /// names.
    fn look_at<'a>(
        &'a self,
        places: impl Iterator<Item = u32> + Clone,
        names: &'a Names,
    ) -> Vec<(&'a TopicState, &'a [u8])> {
        let topics = || places.clone().map(|place| self.topics.get(place));
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

    fn assemble<'a>(
        &self,
        end: &SegmentEnd,
        last_time_ms: u64,
        seed: Seed,
        resident: Vec<(SectionKind, Part<'a>)>,
        other: Vec<(SectionKind, Part<'a>)>,
    ) -> Parts<'a> {
        let mut position = Position::new(INDEX_HEADER_BYTES as u64);
        let mut sections = Vec::new();
        let mut resident_bytes = position.get();
        for (index, (kind, content)) in resident.iter().chain(&other).enumerate() {
            let section = Section {
                kind: *kind,
                checksum: content.crc(seed),
                position,
                bytes: content.len(),
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
        let contents = resident.into_iter().chain(other).map(|(_, content)| content);
        Parts([Part::from(header.encode().to_vec())].into_iter().chain(contents).collect())
    }
}
