//! What is still known of the state delta of a segment whose index is damaged, or missing.
//!
//! The frames of a segment say all that its events had added to the state of the log, as long as compaction has taken
//! none of them and no repair has named any lost. What those had added its index alone says, in IDS, PRODUCERS,
//! CONTROLS and GONE. Each has a checksum of its own: where another part of the index is damaged these hold. And a
//! snapshot that is newer than the segment knows what of them still matters at its offset, as no log is opened that
//! ends before its snapshot. So the index that is made anew of them says the truth without that snapshot too, but for
//! one thing: which topics had events here that are gone, if they have others behind. REMADE says that wherever GONE is
//! not what the index said, for who has counted the topics of a generation before (`Snapshot::lessened_by`).

use std::{convert::Infallible, fmt, io, ops::Range, path::Path};

use crate::{
    error::OpenError,
    index::{
        Carried, INDEX_HEADER_BYTES, IndexBuilder, IndexHeader, SectionKind, StoredControl,
        cut::Said,
        delta,
        gone::{self, GoneTopic},
        stub::all_topics,
    },
    io::{Access, Disk, DiskFile, lenient::Lenient},
    offset::{Offset, Position},
    once::{IdEntry, ProducerEntry},
    segment::SegmentHeader,
    snapshot::Snapshot,
    state::LogState,
};

/// What of the state of a log nobody knows any more, of events that are gone from one of its segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Their ids: who sends one again appends it again.
    pub ids: bool,
    /// How far their producers had come.
    pub producers: bool,
    /// The last offsets of topics whose last events they were, and which topics there were.
    pub last_offsets: bool,
    /// Settings and deletions: compaction takes none, but they can be among events that a repair has named lost. (What
    /// came of them a snapshot knows, but not where they stood.)
    pub settings: bool,
}

impl Forgotten {
    /// Whether it is nothing.
    pub fn is_nothing(&self) -> bool {
        *self == Forgotten::default()
    }
}

impl fmt::Display for Forgotten {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [
            (self.ids, "their ids"),
            (self.producers, "how far their producers had come"),
            (self.last_offsets, "the last offsets of their topics"),
            (self.settings, "settings and deletions among what is lost"),
        ];
        let said: Vec<_> = all.into_iter().filter_map(|(is, what)| is.then_some(what)).collect();
        match said.split_last() {
            Some((last, [])) => formatter.write_str(last),
            Some((last, before)) => write!(formatter, "{} and {last}", before.join(", ")),
            None => formatter.write_str("nothing"),
        }
    }
}

/// See the head of this file. `None`: it is damaged.
#[derive(Debug, Default)]
pub(crate) struct Remains {
    ids: Option<Vec<IdEntry>>,
    producers: Option<Vec<ProducerEntry>>,
    controls: Option<Vec<StoredControl>>,
    gone: Option<Vec<GoneTopic>>,
    /// What is known of them where that is not all.
    gone_in_part: Vec<GoneTopic>,
    /// Among these are topics that have their last event, if that is not lost.
    has_lost: bool,
    last_time_ms: u64,
    is_remade: bool,
}

impl Remains {
    /// What holds of the index at `path`, if there is one and it belongs to the log file with this header.
    pub fn read<D: Disk>(disk: &D, path: &Path, log: &SegmentHeader) -> Result<Remains, OpenError> {
        Remains::read_index(disk, path, |header| header.belongs_to(log), false)
    }

    /// The same where events of the segment are lost: topics whose last event in it may be among these count as those of
    /// which that is gone.
    pub fn read_with_lost<D: Disk>(
        disk: &D,
        path: &Path,
        log: &SegmentHeader,
    ) -> Result<Remains, OpenError> {
        Remains::read_index(disk, path, |header| header.belongs_to(log), true)
    }

    /// The same where all events of a segment are lost, that begins and ends there, and its log file with them.
    pub fn read_of_lost<D: Disk>(
        disk: &D,
        path: &Path,
        segment: &Range<Offset>,
    ) -> Result<Remains, OpenError> {
        let is_its = |header: &IndexHeader| (header.base_offset..header.end_offset) == *segment;
        Remains::read_index(disk, path, is_its, true)
    }

    fn read_index<D: Disk>(
        disk: &D,
        path: &Path,
        is_its: impl FnOnce(&IndexHeader) -> bool,
        has_lost: bool,
    ) -> Result<Remains, OpenError> {
        let file = match disk.open(path, Access::Read) {
            Ok(file) => Lenient::new(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Remains::default()),
            Err(error) => return Err(OpenError::io("opening", path)(error)),
        };
        read_sections(&file, is_its, has_lost).map_err(OpenError::io("reading", path))
    }

    /// What holds of the stub at `path`, of a segment that begins and ends there.
    pub fn read_stub<D: Disk>(
        disk: &D,
        path: &Path,
        segment: &Range<Offset>,
    ) -> Result<Remains, OpenError> {
        let file = disk.open(path, Access::Read).map_err(OpenError::io("opening", path))?;
        let is_its = |header: &IndexHeader| {
            header.is_stub() && (header.base_offset..header.end_offset) == *segment
        };
        read_sections(&Lenient::new(file), is_its, false).map_err(OpenError::io("reading", path))
    }

    /// Takes what is damaged from a snapshot behind the `segment`, and the state that it says.
    pub fn learn(&mut self, snapshot: &Snapshot, state: &LogState, segment: &Range<Offset>) {
        assert!(segment.end <= snapshot.offset(), "it knows what was before it");
        self.ids.get_or_insert_with(|| {
            state.ids.iter().filter(|entry| segment.contains(&entry.offset)).copied().collect()
        });
        self.producers.get_or_insert_with(|| {
            state.producers.iter().filter(|entry| segment.contains(&entry.first)).collect()
        });
        if self.gone.is_none() {
            let mut gone = Vec::new();
            let walked = snapshot.for_each_topic(|topic| {
                if segment.contains(&topic.last) {
                    gone.push(GoneTopic {
                        name: topic.name.to_owned(),
                        number: topic.number,
                        last_offset: topic.last,
                        last_time_ms: topic.last_time_ms,
                    });
                }
                Ok::<(), Infallible>(())
            });
            let Ok(()) = walked;
            gone.sort_unstable_by(|left: &GoneTopic, right| left.name.cmp(&right.name));
            (self.gone, self.is_remade) = (Some(gone), true);
        }
    }

    /// The topics whose events are gone, or lost, as far as they are known.
    pub fn gone(&self) -> &[GoneTopic] {
        self.gone.as_ref().unwrap_or(&self.gone_in_part)
    }

    /// What neither these nor the frames say, of a segment that ends there, and may have gaps.
    pub fn forgotten(&self, frames: &IndexBuilder, end: Offset, has_gaps: bool) -> Forgotten {
        match frames.says_all(end) {
            true => Forgotten::default(),
            false => self.lacking(has_gaps),
        }
    }

    /// What these do not say, of a segment whose frames say nothing, and which may have gaps.
    pub fn lacking(&self, has_gaps: bool) -> Forgotten {
        Forgotten {
            ids: self.ids.is_none(),
            producers: self.producers.is_none(),
            last_offsets: self.gone.is_none(),
            settings: self.controls.is_none() && has_gaps,
        }
    }

    /// What an index carries of a segment that ends there, with what its frames say.
    pub fn carried(self, frames: &IndexBuilder, end: Offset) -> Carried {
        let base = frames.header().base_offset;
        let mut said = Said {
            ids: self.ids.unwrap_or_default(),
            producers: self.producers.unwrap_or_default(),
            controls: self.controls.unwrap_or_default(),
            is_remade: self.is_remade || self.gone.is_none(),
            gone: self.gone.unwrap_or(self.gone_in_part),
        };
        said.retain_before(end, end);
        said.add_frames(frames.delta(), |_| true);
        if said.is_remade || self.has_lost {
            said.gone.retain(|topic| {
                let kept = frames.topic(topic.number);
                kept.is_none_or(|kept| kept.last_offset < topic.last_offset)
            });
        }
        let known_ms = said.last_time_ms().unwrap_or_default();
        let last_time_ms = known_ms.max(self.last_time_ms).max(frames.last_time_ms());
        said.encode(base, last_time_ms)
    }
}

fn read_sections<F: DiskFile>(
    file: &F,
    is_its: impl FnOnce(&IndexHeader) -> bool,
    has_lost: bool,
) -> io::Result<Remains> {
    let size = file.size()?;
    let read = |position: Position, bytes: u64| {
        if position.get().saturating_add(bytes) > size {
            return Ok(None);
        }
        let mut content = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
        file.read_exact_at(&mut content, position)?;
        Ok::<_, io::Error>(Some(content))
    };
    let header = read(Position::default(), INDEX_HEADER_BYTES as u64)?;
    let header = header.and_then(|bytes| IndexHeader::decode(&bytes).ok());
    let Some(header) = header.filter(is_its) else {
        return Ok(Remains::default());
    };
    let section = |kind| {
        let section = header.section(kind);
        let content = read(section.position, section.bytes)?;
        Ok::<_, io::Error>(content.and_then(|content| header.checked(kind, content).ok()))
    };
    let (base, end) = (header.base_offset, header.end_offset);
    let (ids, producers) = (section(SectionKind::IDS)?, section(SectionKind::PRODUCERS)?);
    let (controls, gone) = (section(SectionKind::CONTROLS)?, section(SectionKind::GONE)?);
    let mut gone = gone.and_then(|gone| gone::decode_gone(&gone, base, end).ok());
    let mut gone_in_part = Vec::new();
    if has_lost && !header.is_stub() {
        let topics = section(SectionKind::TOPICS)?;
        let known = gone.clone().unwrap_or_default();
        let all = topics.and_then(|topics| all_topics(&header, known, &topics).ok());
        gone_in_part = all.clone().or_else(|| gone.take()).unwrap_or_default();
        gone = gone.and(all);
    }
    Ok(Remains {
        ids: ids.and_then(|ids| delta::decode_ids(&ids, base, end).ok()),
        producers: producers.and_then(|bytes| delta::decode_producers(&bytes, end).ok()),
        controls: controls.and_then(|bytes| delta::decode_controls(&bytes, base, end).ok()),
        gone,
        gone_in_part,
        has_lost,
        last_time_ms: header.last_time_ms,
        is_remade: header.is_remade(),
    })
}
