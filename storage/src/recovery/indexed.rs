//! Sealed segments, which are taken in from their indexes.

use std::path::Path;

use super::{Recovery, corrupt, files::Found, unless_unreadable};
use crate::{
    error::OpenError,
    index::TopicSummary,
    io::Disk,
    mutation::{self, Mutation},
    offset::{Offset, Position},
    segment::SegmentHeader,
    segment_set::SealedSegment,
    stored_index::StoredIndex,
};

impl<D: Disk> Recovery<'_, D> {
    /// Takes in a segment from its index, if it has a valid one: its state delta, and where it ends.
    pub(super) fn take_from_index(
        &mut self,
        found: &Found,
        header: &SegmentHeader,
    ) -> Result<bool, OpenError> {
        let path = self.dir.join(found.name.index_file_name());
        let read = unless_unreadable(found, &path, StoredIndex::read(self.disk, &path))?;
        let Some(index) = read else { return Ok(false) };
        let end = index.header().end_offset;
        if !index.header().belongs_to(header) || end == header.base_offset {
            return Ok(false);
        }
        self.check_length(found, index.header().end_position)?;
        // Some at a time, so that the waits for what is known of them overlap.
        let mut some = SomeTopics::default();
        index.for_each_topic(|name, topic| {
            some.push(name, topic);
            if some.topics.len() < SomeTopics::COUNT {
                return Ok(());
            }
            self.add_topics(&path, header, end, &mut some)
        })?;
        self.add_topics(&path, header, end, &mut some)?;
        self.add_gone(&path, &index)?;
        if let Some(snapshot) = self.known_by {
            self.lessened.extend(snapshot.lessened_by(&index, index.has_gaps()));
        }
        if !mutation::is_planted(Mutation::DeltasNotReplayed) {
            self.add_state(&path, &index)?;
        }
        self.push_sealed(SealedSegment::open(self.disk, self.dir, found.name)?);
        self.end = end;
        self.last_time_ms = self.last_time_ms.max(index.header().last_time_ms);
        Ok(true)
    }

    pub(super) fn add_gone(
        &mut self,
        path: &Path,
        index: &StoredIndex<D::File>,
    ) -> Result<(), OpenError> {
        for topic in index.gone() {
            self.topics
                .declare(topic.number, &topic.name)
                .map_err(|conflict| corrupt(path, Position::default(), conflict.to_string()))?;
            self.topics.note_last(topic.number, topic.last_offset, topic.last_time_ms);
        }
        Ok(())
    }

    fn add_topics(
        &mut self,
        path: &Path,
        header: &SegmentHeader,
        end: Offset,
        some: &mut SomeTopics,
    ) -> Result<(), OpenError> {
        self.topics.look_at_names(some.topics.iter().map(|(_, topic)| topic.number));
        let mut start = 0;
        for (name_end, topic) in &some.topics {
            self.add_topic(path, header, end, &some.names[start..*name_end], topic)?;
            start = *name_end;
        }
        some.clear();
        Ok(())
    }
}

/// Topics of an index, with the ends of their names among all of those.
#[derive(Default)]
struct SomeTopics {
    names: String,
    topics: Vec<(usize, TopicSummary)>,
}

impl SomeTopics {
    const COUNT: usize = 64;

    fn push(&mut self, name: &str, topic: &TopicSummary) {
        self.names.push_str(name);
        self.topics.push((self.names.len(), *topic));
    }

    fn clear(&mut self) {
        self.names.clear();
        self.topics.clear();
    }
}
