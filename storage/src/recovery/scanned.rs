//! Segments that are scanned, as they have no valid index: then made durable, and indexed.

use std::path::Path;

use super::{Last, Recovery, ScannedSegment, corrupt, durable, files::Found, tail::TailScan};
use crate::{
    error::{Corruption, OpenError},
    frame::{FRAME_ALIGN_BYTES, FRAME_VERSION, FrameError, Seed},
    io::{Access, Disk, DiskFile},
    mutation::{self, Mutation},
    offset::Offset,
    pace::Pace,
    scan::{self, ScanEnd},
    seal,
    segment::SegmentHeader,
    segment_set::SealedSegment,
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
        durable::make_durable(
            self.disk,
            self.dir,
            &path,
            &file,
            header,
            &scan,
            successor.is_none(),
        )?;
        give_back_room(file, &scan);
        if scan.end.end_offset == header.base_offset {
            // Only the last can be without events; the new active segment takes its name.
            return Ok(last(scan.is_clean));
        }
        let is_clean = scan.is_clean;
        self.take_scanned(found, header, &path, scan)?;
        Ok(last(is_clean))
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
            self.cut = Some(Corruption {
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
        scan: TailScan,
    ) -> Result<(), OpenError> {
        let parts = scan.index.parts(&scan.end);
        seal::write_index(self.disk, self.dir, found.name, parts, Pace::alone())?;
        for (name, topic) in scan.index.topics() {
            self.add_topic(path, header, scan.end.end_offset, name, &topic)?;
        }
        if !self.is_known {
            self.state.add_delta(scan.index.delta());
        }
        self.push_sealed(SealedSegment::open(self.disk, self.dir, found.name)?);
        self.end = scan.end.end_offset;
        self.last_time_ms = self.last_time_ms.max(scan.index.last_time_ms());
        self.scanned.push(ScannedSegment {
            name: found.name,
            events: scan.index.event_count(),
            bytes: scan.end.end_position.get(),
        });
        Ok(())
    }
}

/// Gives back what was prepared behind the frames, but for the block behind the last one: on a full disk there is no
/// other space for the index. What stands in that block is why the frames end: a start that is cut off here leaves the
/// next one what it found itself. (Nothing was synced behind them: [`Recovery::check_cut`] has looked. Where the frames
/// were copied to another file, nothing names this one any more, and closing it gives back all of it.)
fn give_back_room<F: DiskFile>(file: F, scan: &TailScan) {
    let end = scan.end.end_position.plus(FRAME_ALIGN_BYTES as u64).get();
    if file.size().is_ok_and(|size| size > end) {
        let _ = file.set_size(end);
    }
}
