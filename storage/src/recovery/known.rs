//! Segments that lie below the snapshot: what they say is known, and they are opened at most.

use super::{Last, Recovery, corrupt, files::Found, unless_unreadable};
use crate::{
    error::OpenError,
    io::Disk,
    listing,
    offset::Position,
    segment_set::SealedSegment,
    snapshot::{self, Snapshot},
    stored_index::StoredIndex,
    topics::TopicConflict,
};

impl<D: Disk> Recovery<'_, D> {
    /// Begins with the state of a snapshot.
    pub(super) fn load(&mut self, snapshot: &mut Snapshot) -> Result<(), OpenError> {
        let path = self.dir.join(snapshot::file_name(snapshot.offset()));
        let conflict =
            |error: TopicConflict| corrupt(&path, Position::default(), error.to_string());
        snapshot.for_each_topic(|topic| {
            let number = topic.number;
            self.topics.declare(number, topic.name).map_err(conflict)?;
            if topic.count > 0 {
                let (first, last) = (topic.first, topic.last);
                self.topics.add_events(number, topic.count, first, last, topic.first_time_ms);
            }
            self.topics.note_last(number, topic.last, topic.last_time_ms);
            if topic.is_lessened {
                self.lessened.insert(number);
            }
            Ok::<(), OpenError>(())
        })?;
        snapshot.give_to(&mut self.state);
        self.last_time_ms = snapshot.header().last_time_ms;
        self.behind.bytes = snapshot.header().file_bytes;
        Ok(())
    }

    /// Takes in a segment that lies below the snapshot by opening it. `false` if it must be looked at like any
    /// other: its index is missing or damaged, and is made anew.
    pub(super) fn known(
        &mut self,
        found: &Found,
        snapshot: &Snapshot,
        last: &mut Last,
    ) -> Result<bool, OpenError> {
        self.check_contiguity(found)?;
        if !found.has_index {
            return Ok(false);
        }
        let path = self.dir.join(found.name.index_file_name());
        let header = listing::index_header(self.disk, self.dir, found.name);
        let Some(header) = unless_unreadable(found, &path, header)? else { return Ok(false) };
        if header.base_offset != found.name.base_offset {
            return Ok(false);
        }
        if header.is_stub() {
            self.known_stub(found, &header, snapshot)?;
            return Ok(true);
        }
        if !found.has_log || header.end_offset == header.base_offset {
            return Ok(false);
        }
        let segment = match SealedSegment::open(self.disk, self.dir, found.name) {
            Err(OpenError::Corrupt(_)) => return Ok(false),
            opened => unless_unreadable(found, &path, opened.map(Some))?,
        };
        let Some(segment) = segment else { return Ok(false) };
        self.check_length(found, header.end_position)?;
        let counted = snapshot.segment(found.name.base_offset);
        let is_as_counted = counted.is_some_and(|counted| {
            counted.generation == found.name.generation
                && counted.incarnation == segment.header().incarnation
        });
        if !is_as_counted {
            let read = unless_unreadable(found, &path, StoredIndex::read(self.disk, &path))?;
            let Some(index) = read else { return Ok(false) };
            let has_gaps = segment.index().gaps().len() > 0;
            self.lessened.extend(snapshot.lessened_by(&index, has_gaps));
        }
        *last = Last::Segment { header: segment.header().clone(), is_clean: false };
        self.end = segment.end();
        self.segments.push(segment);
        Ok(true)
    }
}
