//! What a repair can tell of the state of a log where an index cannot.

use std::path::Path;

use super::salvage::Damaged;
use crate::{
    error::OpenError,
    index::delta::IDS_MAX,
    io::{Disk, DiskFile},
    offset::Offset,
    once::IdWindow,
    remains::Remains,
    segment::SegmentName,
    snapshot::{Snapshot, read},
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

/// Reads the snapshot once it is asked for.
#[derive(Default)]
pub(super) struct Knowing {
    known: Option<Option<Known>>,
}

impl Knowing {
    /// What is left of the state delta of a segment that ends there.
    pub fn remains<D: Disk, F: DiskFile>(
        &mut self,
        disk: &D,
        dir: &Path,
        name: SegmentName,
        damaged: &Damaged<F>,
        end: Offset,
    ) -> Result<Remains, OpenError> {
        let mut remains = match &damaged.header {
            Some(header) => Remains::read(disk, &dir.join(name.index_file_name()), header)?,
            None => Remains::default(),
        };
        let known = match self.known.take() {
            Some(known) => known,
            None => Known::read(disk, dir)?,
        };
        let known = self.known.insert(known).as_ref();
        if let Some(Known { snapshot, state }) = known.filter(|one| end <= one.snapshot.offset()) {
            remains.learn(snapshot, state, &(name.base_offset..end));
        }
        Ok(remains)
    }
}
