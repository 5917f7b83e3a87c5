//! Segments that are taken in from their indexes: sealed ones, and stubs of those whose events are gone.

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
    /// Takes in a segment whose events are gone on purpose; `false` if it is another.
    pub(super) fn stub(&mut self, found: &Found) -> Result<bool, OpenError> {
        let path = self.dir.join(found.name.index_file_name());
        let read = unless_unreadable(found, &path, StoredIndex::read(self.disk, &path))?;
        let Some(index) = read else { return Ok(false) };
        let header = index.header();
        if !header.is_stub() {
            return Ok(false);
        }
        if header.base_offset != found.name.base_offset {
            let what = format!("it says that it begins at {}", header.base_offset);
            return Err(corrupt(&path, Position::default(), what));
        }
        self.check_contiguity(found)?;
        let (base, end) = (header.base_offset, header.end_offset);
        index.for_each_topic(|name, topic| {
            self.topics
                .declare(topic.number, name)
                .map_err(|conflict| corrupt(&path, Position::default(), conflict.to_string()))?;
            self.topics.note_last(topic.number, topic.last_offset, topic.last_time_ms);
            Ok::<_, OpenError>(())
        })?;
        self.add_gone(&path, &index)?;
        if !mutation::is_planted(Mutation::StubDeltasNotReplayed) {
            self.add_state(&path, &index)?;
        }
        self.segments.push_retired(base..end);
        self.end = end;
        self.last_time_ms = self.last_time_ms.max(index.header().last_time_ms);
        self.note_behind(index.header().index_bytes);
        self.remove_retired_log(found)?;
        Ok(true)
    }

    /// Finishes a removal that was cut short.
    pub(super) fn remove_retired_log(&self, found: &Found) -> Result<(), OpenError> {
        if !found.has_log {
            return Ok(());
        }
        // The stub's name comes first, and may be what the kernel alone knows.
        self.disk.sync_dir(self.dir).map_err(OpenError::io("syncing the directory", self.dir))?;
        let path = self.dir.join(found.name.log_file_name());
        self.disk.remove(&path).map_err(OpenError::io("removing", &path))
    }

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

    fn add_gone(&mut self, path: &Path, index: &StoredIndex<D::File>) -> Result<(), OpenError> {
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
