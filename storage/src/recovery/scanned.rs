//! Segments that are scanned, as they have no valid index: then made durable, and indexed.

use std::path::Path;

use super::{Last, Recovery, ScannedSegment, corrupt, durable, files::Found, tail::TailScan};
use crate::{
    error::{Corruption, OpenError},
    frame::{FRAME_ALIGN_BYTES, FRAME_VERSION, FrameError, Seed},
    index::Carried,
    io::{Access, Disk, DiskFile},
    mutation::{self, Mutation},
    offset::{Offset, Position},
    pace::Pace,
    remains::Remains,
    scan::{self, ScanEnd},
    seal,
    segment::SegmentHeader,
    segment_set::SealedSegment,
    stored_index::StoredIndex,
};

impl<D: Disk> Recovery<'_, D> {
    /// Takes in one segment: from its index if that is valid, else by scanning it.
    pub(super) fn segment(
        &mut self,
        found: &Found,
        header: &SegmentHeader,
        successor: Option<Offset>,
    ) -> Result<Last, OpenError> {
        let path = self.dir.join(found.name.log_file_name());
        let last = |is_clean| Last::Segment { header: header.clone(), is_clean };
        if found.has_index && self.take_from_index(found, header)? {
            // A last segment that is sealed was sealed by a start that went no further: whether the
            // run before it ended cleanly is not known any more.
            return Ok(last(false));
        }
        let index_path = self.dir.join(found.name.index_file_name());
        let file = self.disk.open(&path, Access::Write).map_err(OpenError::io("opening", &path))?;
        let scan =
            TailScan::run(&file, header, successor).map_err(OpenError::io("reading", &path))?;
        if let ScanEnd::Invalid(FrameError::NewerVersion { version, .. }) = &scan.why {
            return Err(OpenError::NewerVersion {
                file: path,
                version: u32::from(*version),
                version_max: u32::from(FRAME_VERSION),
            });
        }
        if let Some(successor) = successor {
            if scan.end.end_offset != successor {
                let what = format!("{}, but the next segment begins at {successor}", scan.why);
                return Err(corrupt(&path, scan.end.end_position, what));
            }
        } else {
            self.check_cut(&path, &file, header, &scan)?;
        }
        let carried = self.carried(found, header, &index_path, &scan)?;
        if mutation::is_planted(Mutation::IndexAheadOfSegment) && scan.index.event_count() > 0 {
            seal::write_index(
                self.disk,
                self.dir,
                found.name,
                scan.index.parts(&scan.end),
                Pace::alone(),
            )?;
            self.disk.sync_dir(self.dir).map_err(OpenError::io("syncing", self.dir))?;
        }
        // Its index can be read the next time, perhaps, and goes on to frames without events behind where the other begins.
        let keeps_rest = successor.is_some() && found.has_index;
        durable::make_durable(self.disk, self.dir, &path, &file, header, &scan, keeps_rest)?;
        if !keeps_rest && may_shorten(&file, successor.is_some()) {
            give_back_room(file, &scan);
        }
        if scan.end.end_offset == header.base_offset {
            // Only the last can be without events; the new active segment takes its name.
            return Ok(last(scan.is_clean));
        }
        let is_clean = scan.is_clean;
        self.take_scanned(found, header, &path, &scan, carried.as_ref())?;
        if found.has_index || found.name.generation > 1 {
            let what = match found.has_index {
                true => {
                    "it was damaged or could not be read, and is made anew from the frames of its segment"
                }
                false => "it was missing, and is made anew from the frames of its segment",
            };
            let (file, position, what) = (index_path, Position::default(), what.to_owned());
            self.made.note_remade(Corruption { file, position, what });
        }
        Ok(last(is_clean))
    }

    /// What the events that compaction has taken from a scanned segment had added to the state of the log. Without it
    /// who retries an append would append it again, so where nobody knows it any more the log is not opened.
    fn carried(
        &self,
        found: &Found,
        header: &SegmentHeader,
        index_path: &Path,
        scan: &TailScan,
    ) -> Result<Option<Carried>, OpenError> {
        let (base, end) = (header.base_offset, scan.end.end_offset);
        if found.name.generation == 1 || scan.index.says_all(end) {
            return Ok(None);
        }
        let mut remains = Remains::read(self.disk, index_path, header)?;
        if let Some(snapshot) = self.known_by.filter(|snapshot| end <= snapshot.offset()) {
            // Up to here the state is the snapshot's.
            remains.learn(snapshot, &self.state, &(base..end));
        }
        let forgotten = remains.forgotten(&scan.index, end, scan.index.has_gaps());
        if !forgotten.is_nothing() {
            let how = if found.has_index { "damaged" } else { "missing" };
            let what = format!(
                "the index of a rewritten segment is {how}: of events that are gone from it, it alone knows {forgotten}"
            );
            return Err(corrupt(index_path, Position::default(), what));
        }
        Ok(Some(remains.carried(&scan.index, end)))
    }

    /// Nothing that was synced is cut.
    fn check_cut(
        &mut self,
        path: &Path,
        file: &D::File,
        header: &SegmentHeader,
        scan: &TailScan,
    ) -> Result<(), OpenError> {
        let seed = Seed::of(&header.incarnation);
        let proof = scan::synced_beyond(file, seed, scan.end.end_position, scan.end.end_offset)
            .map_err(OpenError::io("reading", path))?;
        let proof = proof.filter(|_| !mutation::is_planted(Mutation::NoHoleCheck));
        if proof.is_none()
            && let Some((synced, says)) = self.synced_beyond(scan.end.end_offset)
        {
            let what = format!(
                "{}: the log ends at offset {} here, but had been synced up to {synced}, as {} says",
                scan.why,
                scan.end.end_offset,
                says.display()
            );
            return Err(corrupt(path, scan.end.end_position, what));
        }
        if let Some((position, synced)) = proof {
            let what = format!(
                "{}: the log ends at offset {} here, but the frame at position {position} says that \
                 everything below {synced} had been synced",
                scan.why, scan.end.end_offset
            );
            return Err(corrupt(path, scan.end.end_position, what));
        }
        if scan.why != ScanEnd::Invalid(FrameError::Blank) {
            self.made.cut = Some(Corruption {
                file: path.to_owned(),
                position: scan.end.end_position,
                what: scan.why.to_string(),
            });
        }
        Ok(())
    }

    fn take_scanned(
        &mut self,
        found: &Found,
        header: &SegmentHeader,
        path: &Path,
        scan: &TailScan,
        carried: Option<&Carried>,
    ) -> Result<(), OpenError> {
        let write =
            |parts| seal::write_index(self.disk, self.dir, found.name, parts, Pace::alone());
        match carried {
            Some(carried) => {
                write(scan.index.finish_carrying(&scan.end, carried).into())?;
                // It says more than the frames do. A read that failed is told where it fails again.
                let index_path = self.dir.join(found.name.index_file_name());
                if !self.take_from_index(found, header)?
                    && (StoredIndex::read(self.disk, &index_path)?.is_none()
                        || !self.take_from_index(found, header)?)
                {
                    let what = "it cannot be read, and was just written".to_owned();
                    return Err(corrupt(&index_path, Position::default(), what));
                }
            }
            None => {
                write(scan.index.parts(&scan.end))?;
                for (name, topic) in scan.index.topics() {
                    self.add_topic(path, header, scan.end.end_offset, name, &topic)?;
                }
                if !self.is_known() {
                    self.state.add_delta(scan.index.delta());
                }
                self.push_sealed(SealedSegment::open(self.disk, self.dir, found.name)?);
                self.end = scan.end.end_offset;
                self.last_time_ms = self.last_time_ms.max(scan.index.last_time_ms());
            }
        }
        self.made.note_scanned(ScannedSegment {
            name: found.name,
            events: scan.index.event_count(),
            bytes: scan.end.end_position.get(),
        });
        Ok(())
    }
}

/// Whether a segment that was scanned may be shortened to what its frames take. Not a file that a backup shares, where another
/// segment begins behind it: the index that the backup has of it may go on to frames without events, before which the scan
/// has stopped.
pub(super) fn may_shorten(file: &impl DiskFile, has_successor: bool) -> bool {
    !has_successor || file.name_count().is_ok_and(|count| count == 1)
}

/// Gives back what was prepared behind the frames, but for the block behind the last one: on a full disk there is no
/// other space for the index. What stands in that block is why the frames end: a start that is cut off here leaves the
/// next one what it found itself. (Nothing was synced behind them: [`Recovery::check_cut`] has looked. Where the frames
/// were copied to another file, nothing names this one any more, and closing it gives back all of it.)
///
/// Not of a segment behind which another begins and that has an index, which perhaps can be read the next time: what a start
/// sealed had given all back, and what lies behind the frames of others was prepared while the log ran.
fn give_back_room<F: DiskFile>(file: F, scan: &TailScan) {
    let end = scan.end.end_position.plus(FRAME_ALIGN_BYTES as u64).get();
    if file.size().is_ok_and(|size| size > end) {
        let _ = file.set_size(end);
    }
}
