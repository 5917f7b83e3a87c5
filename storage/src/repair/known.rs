//! What a repair can tell of the state of a log where an index cannot.

use std::{ops::Range, path::Path};

use super::salvage::{Damaged, Survey};
use crate::{
    config::SyncMode,
    error::OpenError,
    frame::Seed,
    index::{
        IndexBuilder, SegmentEnd,
        delta::IDS_MAX,
        stub::{StubLimits, make_stub},
    },
    io::{Disk, DiskFile},
    offset::Offset,
    once::IdWindow,
    remains::{Forgotten, Remains},
    segment::{
        FIRST_FRAME_POSITION, Incarnation, SEGMENT_VERSION, SegmentHeader, SegmentName, Tag,
    },
    snapshot::{LiveSegment, Snapshot, read},
    state::LogState,
};

/// The newest snapshot that is whole, and the state that it says.
struct Known {
    snapshot: Snapshot,
    state: LogState,
}

impl Known {
    fn read<D: Disk>(disk: &D, dir: &Path) -> Result<Option<Known>, OpenError> {
        let names = disk.list(dir).map_err(OpenError::io("listing", dir))?;
        for offset in read::offsets(&names) {
            if let Some(mut snapshot) = read::passed_over(read::read(disk, dir, offset))? {
                // What it has kept was young enough.
                let window = IdWindow { events: IDS_MAX, time_ms: u64::MAX };
                let mut state = LogState::new(window);
                snapshot.give_to(&mut state);
                return Ok(Some(Known { snapshot, state }));
            }
        }
        Ok(None)
    }
}

/// What the frames say of a segment whose events are gone, if its removal was cut short before they were, and all are
/// sound.
fn frames_left<D: Disk>(
    disk: &D,
    dir: &Path,
    name: SegmentName,
    end: Offset,
) -> Result<Option<(IndexBuilder, SegmentEnd)>, OpenError> {
    let names = disk.list(dir).map_err(OpenError::io("listing", dir))?;
    if !names.contains(&name.log_file_name()) {
        return Ok(None);
    }
    let damaged = Damaged::open(disk, dir, name, false, Some(end), end)?;
    let Some(header) = damaged.header.as_ref().filter(|_| damaged.has_good_header) else {
        return Ok(None);
    };
    let mut survey = Survey::new(header);
    damaged.read(&mut survey)?;
    let is_whole = survey.lost.is_empty();
    let (index, found) = survey.into_index();
    Ok(Some((index, found)).filter(|(_, found)| is_whole && found.end_offset == end))
}

/// Reads the snapshot once it is asked for.
#[derive(Default)]
pub(super) struct Knowing {
    known: Option<Option<Known>>,
}

impl Knowing {
    /// What is left of the state delta of a segment that ends there, and of which events are lost, or none.
    pub fn remains<D: Disk, F: DiskFile>(
        &mut self,
        disk: &D,
        dir: &Path,
        name: SegmentName,
        damaged: &Damaged<F>,
        end: Offset,
        has_lost: bool,
    ) -> Result<Remains, OpenError> {
        let path = dir.join(name.index_file_name());
        let mut remains = match &damaged.header {
            Some(header) if has_lost => Remains::read_with_lost(disk, &path, header)?,
            Some(header) => Remains::read(disk, &path, header)?,
            None => Remains::default(),
        };
        self.complete(disk, dir, &mut remains, &(name.base_offset..end))?;
        Ok(remains)
    }

    /// What is left of the state delta of a segment all events of which are lost.
    pub fn remains_of_lost<D: Disk>(
        &mut self,
        disk: &D,
        dir: &Path,
        name: SegmentName,
        end: Offset,
    ) -> Result<Remains, OpenError> {
        let segment = name.base_offset..end;
        let mut remains = Remains::read_of_lost(disk, &dir.join(name.index_file_name()), &segment)?;
        self.complete(disk, dir, &mut remains, &segment)?;
        Ok(remains)
    }

    /// Whether a snapshot says that all events from the first to the last of these offsets are gone on purpose.
    pub fn are_gone<D: Disk>(
        &mut self,
        disk: &D,
        dir: &Path,
        offsets: &Range<Offset>,
    ) -> Result<bool, OpenError> {
        let Some(Known { snapshot, .. }) = self.known(disk, dir)? else { return Ok(false) };
        let held_events =
            |segment: &LiveSegment| segment.base < offsets.end && segment.end > offsets.start;
        Ok(offsets.end <= snapshot.offset() && !snapshot.segments().iter().any(held_events))
    }

    /// What takes the place of a damaged stub, and what nobody knows any more that it said.
    pub fn stub<D: Disk>(
        &mut self,
        disk: &D,
        dir: &Path,
        name: SegmentName,
        end: Offset,
    ) -> Result<(Vec<u8>, Forgotten), OpenError> {
        let segment = name.base_offset..end;
        let path = dir.join(name.index_file_name());
        let mut remains = Remains::read_stub(disk, &path, &segment)?;
        self.complete(disk, dir, &mut remains, &segment)?;
        let header = SegmentHeader {
            version: SEGMENT_VERSION,
            base_offset: segment.start,
            created_at_ms: 0,
            incarnation: Incarnation::random(),
            // Of a segment without a log file it says nothing.
            tag: Tag::random(),
            sync: SyncMode::Commit,
        };
        // Where no frame of it is left none says its settings and deletions, as if a repair had named them lost.
        let frames = frames_left(disk, dir, name, end)?;
        let has_gaps = frames.as_ref().is_none_or(|(index, _)| index.has_gaps());
        let (index, end) = frames.unwrap_or_else(|| {
            let end = SegmentEnd {
                end_offset: end,
                end_position: FIRST_FRAME_POSITION,
                end_checksum: Seed::of(&header.incarnation).chain_start(),
            };
            (IndexBuilder::carrying(&header), end)
        });
        let forgotten = remains.forgotten(&index, end.end_offset, has_gaps);
        let carried = remains.carried(&index, end.end_offset);
        let index = index.finish_carrying(&end, &carried);
        let stub = make_stub(&index, &StubLimits::default()).expect("an index of ours");
        Ok((stub, forgotten))
    }

    /// Adds what the snapshot knows of what is damaged, if it lies behind the segment.
    fn complete<D: Disk>(
        &mut self,
        disk: &D,
        dir: &Path,
        remains: &mut Remains,
        segment: &Range<Offset>,
    ) -> Result<(), OpenError> {
        let known = self.known(disk, dir)?;
        if let Some(Known { snapshot, state }) =
            known.filter(|one| segment.end <= one.snapshot.offset())
        {
            remains.learn(snapshot, state, segment);
        }
        Ok(())
    }

    fn known<D: Disk>(&mut self, disk: &D, dir: &Path) -> Result<Option<&Known>, OpenError> {
        let known = match self.known.take() {
            Some(known) => known,
            None => Known::read(disk, dir)?,
        };
        Ok(self.known.insert(known).as_ref())
    }
}
