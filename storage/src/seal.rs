//! A full segment becomes a sealed one: its index is written beside it.
//!
//! The index goes into a temporary file, which is synced before it is renamed, and the directory is
//! synced after it: an `.idx` that has its name is whole. It is also a promise: it says where the
//! segment ends, so whatever a killed process still writes behind that end is not part of the log.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    error::OpenError,
    index::{IndexBuilder, SegmentEnd},
    io::{Access, Disk},
    once::{Producers, hashes::Hashes},
    pace::{Pace, PacedFile},
    parts::Parts,
    segment::{SegmentHeader, SegmentName},
    segment_set::SealedSegment,
    topics::{TopicTable, names::Names},
    unsealed::Unsealed,
};

/// How the names of files end that count for nothing: a start removes them.
pub const TEMPORARY_ENDING: &str = ".tmp";

/// See [`crate::op::Job::Seal`].
pub struct SealJob<D: Disk> {
    name: SegmentName,
    dir: PathBuf,
    index: Arc<IndexBuilder>,
    names: Names,
    /// The hashes of producers.
    producers: Hashes,
    end: SegmentEnd,
    header: Box<SegmentHeader>,
    /// How the index is written.
    pace: Pace,
    /// The segments are of this kind of disk.
    disk: std::marker::PhantomData<fn(D)>,
}

/// A segment that has been sealed.
pub struct SealOutcome<D: Disk> {
    /// Its name.
    pub name: SegmentName,
    /// The segment, opened for reading.
    pub segment: Arc<SealedSegment<D>>,
    /// What is wrong with its log file: the header cannot be read any more, or is damaged.
    pub damage: Option<String>,
}

impl<D: Disk> SealJob<D> {
    /// The job for a full segment, all of whose frames are visible and synced.
    pub(crate) fn of(
        full: &Unsealed<D>,
        dir: &Path,
        topics: &TopicTable,
        producers: &Producers,
        pace: Pace,
    ) -> Self {
        SealJob {
            name: full.name,
            dir: dir.to_owned(),
            index: Arc::clone(&full.index),
            names: topics.names().clone(),
            producers: producers.hashes().clone(),
            end: full.end,
            header: Box::new(full.header.clone()),
            pace,
            disk: std::marker::PhantomData,
        }
    }

    /// Whether it is made without rests.
    pub(crate) fn is_urgent(&self) -> bool {
        self.pace.is_urgent()
    }

    /// Writes the index, and opens the segment as a sealed one.
    pub(crate) fn run(self, disk: &D) -> Result<SealOutcome<D>, OpenError> {
        let SealJob { name, dir, header, pace, .. } = self;
        let parts = self.index.parts_named(&self.end, &self.names, &self.producers);
        write_index(disk, &dir, name, parts, pace)?;
        disk.sync_dir(&dir).map_err(OpenError::io("syncing the directory", &dir))?;
        let (segment, damage) = SealedSegment::open_known(disk, &dir, name, *header)?;
        Ok(SealOutcome { name, segment: Arc::new(segment), damage })
    }
}

/// Writes an index under its name, at this `pace`; the caller syncs the directory.
pub(crate) fn write_index<D: Disk>(
    disk: &D,
    dir: &Path,
    name: SegmentName,
    index: Parts<'_>,
    pace: Pace,
) -> Result<(), OpenError> {
    write_index_aside(disk, dir, name, index, pace)?;
    name_index(disk, dir, name)
}

/// The first half of that: it is durable, under a temporary name.
pub(crate) fn write_index_aside<D: Disk>(
    disk: &D,
    dir: &Path,
    name: SegmentName,
    index: Parts<'_>,
    pace: Pace,
) -> Result<(), OpenError> {
    let temporary = temporary_index(dir, name);
    disk.remove_if_there(&temporary).map_err(OpenError::io("removing", &temporary))?;
    let write = || {
        let file = disk.create(&temporary, Access::Write)?;
        PacedFile::new(Arc::new(file), pace).write_synced(&index)
    };
    write().map_err(|error| {
        // What is there of it takes the space that was missing.
        forget_index(disk, dir, name);
        OpenError::io("writing", &temporary)(error)
    })
}

/// The second half.
pub(crate) fn name_index<D: Disk>(
    disk: &D,
    dir: &Path,
    name: SegmentName,
) -> Result<(), OpenError> {
    let temporary = temporary_index(dir, name);
    let path = dir.join(name.index_file_name());
    disk.rename(&temporary, &path).map_err(|error| {
        // A directory may lack a block for the name: what is written takes the space that is missing.
        forget_index(disk, dir, name);
        OpenError::io("renaming", &temporary)(error)
    })
}

/// What the first half has written is not to be used.
pub(crate) fn forget_index<D: Disk>(disk: &D, dir: &Path, name: SegmentName) {
    let _ = disk.remove(&temporary_index(dir, name));
}

fn temporary_index(dir: &Path, name: SegmentName) -> PathBuf {
    dir.join(format!("{}{TEMPORARY_ENDING}", name.index_file_name()))
}
