//! Whether all files are of one log. What is sound in itself can be of another, put there by a copy that went wrong: a
//! start finds that topics have other numbers, and refuses; so nothing is made of it that is called repaired.
//!
//! A segment and its index tell their log by the numbers of topics, and by what a snapshot says of the segments below it
//! (the incarnation of each file). An end mark tells nothing of its log, but where it may stand.

use std::{collections::BTreeMap, convert::Infallible, path::Path};

use super::salvage::Survey;
use crate::{
    end_mark::{END_MARK_FILE_NAME, EndMark},
    error::{Corruption, OpenError},
    index::{
        Carried, IndexHeader,
        gone::{GoneTopic, decode_gone},
    },
    io::{Access, Disk},
    offset::{Offset, Position},
    rewrite,
    segment::{Incarnation, SegmentName},
    snapshot::{self, LiveSegment, Snapshot, read},
    topic::TopicNumber,
    verify::{CheckedSegment, SegmentFiles, TopicNames, gone_of},
};

/// What two files that contradict each other tell.
const NOT_OF_THIS: &str = "it is not of this log, or that is not";

/// A segment that is there.
struct Seen {
    name: SegmentName,
    end: Offset,
    /// Of its log file, if that is there and has a header. (A stub may have been made anew.)
    incarnation: Option<Incarnation>,
}

/// What the files of a log have said that were looked at.
pub(super) struct Belonging<'a> {
    dir: &'a Path,
    names: TopicNames,
    segments: BTreeMap<Offset, Seen>,
    /// What is wrong: one thing of each file.
    pub(super) wrong: Vec<Corruption>,
}

impl<'a> Belonging<'a> {
    pub fn new(dir: &'a Path) -> Self {
        Belonging {
            dir,
            names: TopicNames::default(),
            segments: BTreeMap::new(),
            wrong: Vec::new(),
        }
    }

    fn wrong(&mut self, file_name: &str, what: String) {
        let file = self.dir.join(file_name);
        if !self.wrong.iter().any(|wrong| wrong.file == file) {
            self.wrong.push(Corruption { file, position: Position::default(), what });
        }
    }

    fn topic(&mut self, file_name: &str, number: TopicNumber, name: &str) {
        if let Some(what) = self.names.check(number, name) {
            let what = format!("{what}: it is not of this log, or those before it are not");
            self.wrong(file_name, what);
        }
    }

    /// A segment that is sound, and stays.
    pub fn sound(&mut self, files: &SegmentFiles, checked: &CheckedSegment) {
        let log_name = files.name.log_file_name();
        for (number, name, _) in &checked.topics {
            self.topic(&log_name, *number, name);
        }
        let index_name = files.name.index_file_name();
        for topic in &checked.gone {
            self.topic(&index_name, topic.number, &topic.name);
        }
    }

    /// What can be read of one that is damaged.
    pub fn read(&mut self, name: SegmentName, survey: &Survey, carried: Option<&Carried>) {
        for (topic, summary) in survey.index().topics() {
            self.topic(&name.log_file_name(), summary.number, topic);
        }
        let base = name.base_offset;
        if let Some(gone) = carried.and_then(|said| decode_gone(&said.gone, base, Offset::MAX).ok())
        {
            self.gone(name, &gone);
        }
    }

    /// What an index, or the rest of one, says of topics whose events are gone, or lost.
    pub fn gone(&mut self, name: SegmentName, gone: &[GoneTopic]) {
        for topic in gone {
            self.topic(&name.index_file_name(), topic.number, &topic.name);
        }
    }

    /// The same of a stub that is made anew.
    pub fn stub(&mut self, name: SegmentName, bytes: &[u8]) {
        let header = IndexHeader::decode(bytes).expect("an index of ours");
        self.gone(name, &gone_of(&header, bytes));
    }

    /// Where a segment ends, and which it is.
    pub fn segment<D: Disk>(
        &mut self,
        disk: &D,
        files: &SegmentFiles,
        end: Offset,
    ) -> Result<(), OpenError> {
        let name = files.name;
        let incarnation = incarnation_of(disk, self.dir, files)?;
        self.segments.insert(name.base_offset, Seen { name, end, incarnation });
        Ok(())
    }

    /// A sound snapshot: its topics, and the segments that it has counted. By the newest a start goes.
    pub fn snapshot(&mut self, snapshot: &Snapshot, is_newest: bool) {
        let file_name = snapshot::file_name(snapshot.offset());
        let Ok(()) = snapshot.for_each_topic(|topic| {
            self.topic(&file_name, topic.number, topic.name);
            Ok::<(), Infallible>(())
        });
        let at = snapshot.offset();
        let across =
            self.segments.range(..at).next_back().filter(|(_, seen)| is_newest && seen.end > at);
        let other = snapshot.segments().iter().find_map(|live| self.other_than(live));
        let what = match (across, other) {
            (Some((_, seen)), _) => format!(
                "{} goes on to {}, over what this is a snapshot of",
                seen.name.log_file_name(),
                seen.end
            ),
            (None, Some(name)) => {
                format!("{} is not the file that it has counted", name.log_file_name())
            }
            (None, None) => return,
        };
        self.wrong(&file_name, format!("{what}: {NOT_OF_THIS}"));
    }

    /// The segment that is there in the place of one that a snapshot has counted, and surely is not that.
    fn other_than(&self, live: &LiveSegment) -> Option<SegmentName> {
        let name = SegmentName { base_offset: live.base, generation: live.generation };
        let same = self.segments.get(&live.base).filter(|seen| seen.name == name);
        if same.is_some_and(|seen| seen.incarnation == Some(live.incarnation)) {
            // It may be shorter than it was, and gaps stand for the rest.
            return None;
        }
        let first = self.segments.range(..=live.base).next_back();
        let mut seen = first.into_iter().chain(self.segments.range(live.base..live.end));
        let is_inside = |offset| live.base < offset && offset < live.end;
        let is_other = |seen: &Seen| {
            // What was restored has files of its own with the names and the bounds of those that it was made of.
            let is_other_file = seen.name == name
                && seen.incarnation.is_some_and(|incarnation| incarnation != live.incarnation)
                && seen.end != live.end;
            is_other_file || is_inside(seen.name.base_offset) || is_inside(seen.end)
        };
        seen.find(|(_, seen)| is_other(seen)).map(|(_, seen)| seen.name)
    }
}

/// That of the log file of a segment, if there is one that has a header.
fn incarnation_of<D: Disk>(
    disk: &D,
    dir: &Path,
    files: &SegmentFiles,
) -> Result<Option<Incarnation>, OpenError> {
    if !files.has_log {
        return Ok(None);
    }
    let path = dir.join(files.name.log_file_name());
    let file = disk.open(&path, Access::Read).map_err(OpenError::io("opening", &path))?;
    let header = rewrite::read_header(&file).ok().and_then(Result::ok);
    let header = header.filter(|header| header.base_offset == files.name.base_offset);
    Ok(header.map(|header| header.incarnation))
}

/// What is wrong with an end mark that says that the log had been synced behind its `end`, if it cannot be of the log
/// whose `last` segment that is there is this.
pub(super) fn wrong_mark(
    dir: &Path,
    end: Offset,
    mark: Option<EndMark>,
    last: &SegmentFiles,
) -> Option<Corruption> {
    let EndMark { active, synced } = mark.filter(|mark| mark.synced > end)?;
    let (base, log_name) = (last.name.base_offset, last.name.log_file_name());
    let what = if active < base {
        // Where another segment began, the one before it had been synced to its end.
        format!(
            "it says that the log had been synced up to {synced} in its segment at {active}, and {log_name} is \
             behind that"
        )
    } else if active > end && is_unsealed(last) {
        format!(
            "it says that the log went on in a segment at {active}, and {log_name} was never sealed"
        )
    } else {
        return None;
    };
    let (file, position) = (dir.join(END_MARK_FILE_NAME), Position::default());
    let what = format!("{what}: {NOT_OF_THIS}");
    Some(Corruption { file, position, what })
}

/// The same of a snapshot at `newest`: it is of sealed segments, and has counted the last one that is there if that was
/// sealed once, though its index is gone.
pub(super) fn wrong_snapshot<D: Disk>(
    disk: &D,
    dir: &Path,
    newest: Offset,
    last: &SegmentFiles,
) -> Result<Option<Corruption>, OpenError> {
    if !is_unsealed(last) {
        return Ok(None);
    }
    let snapshot = read::passed_over(read::read(disk, dir, newest))?;
    let (Some(snapshot), Some(incarnation)) = (snapshot, incarnation_of(disk, dir, last)?) else {
        // What is damaged may be of this log.
        return Ok(None);
    };
    let SegmentName { base_offset, generation } = last.name;
    let counted = snapshot.segment(base_offset);
    if counted.is_some_and(|one| (one.generation, one.incarnation) == (generation, incarnation)) {
        return Ok(None);
    }
    let what = format!(
        "it is of sealed segments up to {newest}, and {} was never sealed: {NOT_OF_THIS}",
        last.name.log_file_name()
    );
    let (file, position) = (dir.join(snapshot::file_name(newest)), Position::default());
    Ok(Some(Corruption { file, position, what }))
}

/// As far as its files tell; what was rewritten had been sealed.
fn is_unsealed(last: &SegmentFiles) -> bool {
    last.name.generation == 1 && last.has_log && !last.has_index
}
