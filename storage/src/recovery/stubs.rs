//! Stubs: the indexes of segments whose events are gone on purpose.
//!
//! Where the header of one is sound its events are gone, whatever became of the rest of it: deleted events never come
//! back. Where a removal was cut short the frames are still there, and a damaged stub is made anew from them, from its
//! sound parts and from a snapshot behind it. Where they are not, and a snapshot knows what it said, it stands as it is, and
//! is reported. Otherwise the log is not opened: nobody knows the ids and producers of the segment any more.

use std::path::Path;

use super::{Recovery, corrupt, files::Found, tail::TailScan, unless_unreadable};
use crate::{
    error::{Corruption, OpenError},
    index::{
        IndexHeader,
        stub::{StubLimits, make_stub},
    },
    io::{Access, Disk, is_unreadable},
    listing,
    mutation::{self, Mutation},
    offset::Position,
    pace::Pace,
    remains::Remains,
    seal,
    snapshot::Snapshot,
    stored_index::StoredIndex,
};

impl<D: Disk> Recovery<'_, D> {
    /// Takes in a segment whose events are gone on purpose; `false` if it is another.
    pub(super) fn stub(&mut self, found: &Found) -> Result<bool, OpenError> {
        let path = self.dir.join(found.name.index_file_name());
        let Some(index) = self.sound_stub(found, &path)? else { return Ok(false) };
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

    /// Takes in a stub of which the `header` is sound, and a snapshot knows what it says, but for which topics have fewer
    /// events since.
    pub(super) fn known_stub(
        &mut self,
        found: &Found,
        header: &IndexHeader,
        snapshot: &Snapshot,
    ) -> Result<(), OpenError> {
        let path = self.dir.join(found.name.index_file_name());
        let segment = header.base_offset..header.end_offset;
        // Before all that is kept it is known that events are gone.
        if snapshot.segment(segment.start).is_some() && !self.segments.is_empty() {
            let read = match self.sound_stub(found, &path) {
                Err(OpenError::Corrupt(_)) => None,
                Err(OpenError::Io { action: "reading", source, .. }) if is_unreadable(&source) => {
                    None
                }
                read => read?,
            };
            match read {
                Some(index) => self.lessened.extend(snapshot.lessened_by(&index, false)),
                None => {
                    self.lessened.extend(snapshot.topics_in(&segment));
                    let what = "it is damaged or cannot be read, and a snapshot knows what it said: \
                                `strandline repair` makes it anew";
                    let (file, position, what) = (path, Position::default(), what.to_owned());
                    self.damaged.push(Corruption { file, position, what });
                }
            }
        }
        self.remove_retired_log(found)?;
        self.end = segment.end;
        self.segments.push_retired(segment);
        Ok(())
    }

    /// The index of a segment, if all of it is sound. A stub of which the header is, beside its log file, is made anew.
    fn sound_stub(
        &mut self,
        found: &Found,
        path: &Path,
    ) -> Result<Option<StoredIndex<D::File>>, OpenError> {
        let read = unless_unreadable(found, path, StoredIndex::read(self.disk, path))?;
        if read.is_some() || !found.has_log {
            return Ok(read);
        }
        let header = listing::index_header(self.disk, self.dir, found.name);
        let header = unless_unreadable(found, path, header)?;
        let Some(header) = header.filter(IndexHeader::is_stub) else { return Ok(None) };
        self.remake_stub(found, path, &header)?;
        StoredIndex::read(self.disk, path)
    }

    /// Makes a damaged stub anew from the frames of its segment, and from what is left of it.
    fn remake_stub(
        &mut self,
        found: &Found,
        path: &Path,
        stub: &IndexHeader,
    ) -> Result<(), OpenError> {
        let damaged = |why: &str| {
            let what = format!("the stub of a segment whose events are gone is damaged, and {why}");
            corrupt(path, Position::default(), what)
        };
        let log = self.check_header(found)?;
        let log_path = self.dir.join(found.name.log_file_name());
        let file = self.disk.open(&log_path, Access::Read);
        let file = file.map_err(OpenError::io("opening", &log_path))?;
        let end = stub.end_offset;
        let scan = TailScan::run(&file, &log, Some(end));
        let scan = scan.map_err(OpenError::io("reading", &log_path))?;
        if !stub.belongs_to(&log) || scan.end.end_offset != end {
            return Err(damaged("so are the frames that it belonged to"));
        }
        let segment = stub.base_offset..end;
        let mut remains = Remains::read_stub(self.disk, path, &segment)?;
        if let Some(snapshot) = self.known_by.filter(|snapshot| end <= snapshot.offset()) {
            remains.learn(snapshot, &self.state, &segment);
        }
        let forgotten = remains.forgotten(&scan.index, end, scan.index.has_gaps());
        if !forgotten.is_nothing() {
            return Err(damaged(&format!("it alone knows {forgotten}")));
        }
        let index = scan.index.finish_carrying(&scan.end, &remains.carried(&scan.index, end));
        let stub = make_stub(&index, &StubLimits::default()).expect("an index of ours");
        seal::write_index(self.disk, self.dir, found.name, stub.into(), Pace::alone())?;
        let what = "the stub of a segment whose events are gone was damaged or could not be read, and is made anew \
                    from the frames that its removal had left";
        let (file, position, what) = (path.to_owned(), Position::default(), what.to_owned());
        self.made.note_remade(Corruption { file, position, what });
        Ok(())
    }
}
