//! From a directory to a log that takes appends: what recovery has found, and a new segment behind it.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Close, Log, NEXT_FILE_NAME, Notice, Tail, compacting::Compaction, filling::Filling, jobs::Jobs,
    keeping::Kept, marking::Marked, scrubbing::Scrubbing, snapshots::Snapshots,
};
use crate::{
    active_file::{Fill, NewFile, PrepareJob, RollJob, WriteMode},
    clock::{EventClock, Now},
    config::{LogConfig, SyncMode},
    earliest,
    error::OpenError,
    group_commit::{CommitDepth, Durability, GroupCommit},
    io::{Disk, is_full},
    mutation::{self, Mutation},
    offset::Offset,
    once::Fingerprints,
    pace::FramesBegun,
    recovery::{self, OpenReport},
    reserve::{self, ReserveRule},
    segment::{
        FIRST_FRAME_POSITION, Incarnation, SEGMENT_VERSION, SegmentHeader, SegmentName, Tag,
    },
    staging::Staging,
    unsealed::{RecentFrames, Unsealed},
};

impl<D: Disk> Log<D> {
    /// Opens the log in `dir`, which is made if it is missing: locks it, recovers what is there, and
    /// begins a new segment. Blocks.
    pub fn open(
        disk: D,
        dir: &Path,
        config: LogConfig,
        now: Now,
    ) -> Result<(Self, OpenReport), OpenError> {
        config.check()?;
        let lock = recovery::lock(&disk, dir)?;
        let config =
            LogConfig { segment_bytes: reserve::segment_bytes(&disk, dir, &config), ..config };
        let reserve_rule = ReserveRule::of(&disk, dir, &config);
        let mut reserve_bytes = reserve::find(&disk, dir, &reserve_rule)?;
        let mut owes_reserve = false;
        // What a start needs is what it is for.
        let mut give_back = |error: OpenError| match &error {
            OpenError::Io { source, .. } if is_full(source) && reserve_bytes > 0 => {
                (reserve_bytes, owes_reserve) = (0, true);
                reserve::give_back(&disk, dir)
            }
            _ => Err(error),
        };
        let mut made = recovery::Made::default();
        let mut recover = || recovery::recover(&disk, dir, config.id_window(), &mut made);
        let recovered = recover().or_else(|error| give_back(error).and_then(|()| recover()))?;
        let (tag, end) = (recovered.report.tag, recovered.end);
        let known = recovered.kept_from().min(end);
        let take = || earliest::take(&disk, dir, end, known);
        let taken = take().or_else(|error| give_back(error).and_then(|()| take()))?;
        // What rewritten segments alone say goes with them.
        let durable = recovered.kept_for_good().min(end).max(taken);
        let keep_from = match mutation::is_planted(Mutation::KeptForgotten) {
            true => recovered.start,
            false => known.max(taken),
        };
        let begin = || Begun::new(&disk, dir, &config, now, tag, end);
        let Begun { header, path, file } =
            begin().or_else(|error| give_back(error).and_then(|()| begin()))?;
        let name = SegmentName::first_generation(end);
        // Now that the segment has its name for good.
        let clock = EventClock::new(now, recovered.last_time_ms, &recovered.steps);
        let marked = Marked::at_start(&disk, dir, end, &clock, now)?;

        let durability = match (config.sync, file.mode) {
            (SyncMode::Commit, WriteMode::Direct) => Durability::EachWrite,
            (SyncMode::Commit, WriteMode::Buffered) => Durability::FollowingSync,
            (SyncMode::Interval { interval_ms }, _) => {
                Durability::Deferred { interval_ms: Some(u64::from(interval_ms)) }
            }
            (SyncMode::Never, _) => Durability::Deferred { interval_ms: None },
        };
        let damaged_mark = recovered.damaged_mark.map(Notice::EndMarkDamaged);
        let damaged_steps = recovered.damaged_steps.map(Notice::StepsDamaged);
        // Appends are refused from the first on, so nothing later would say it.
        let full = owes_reserve.then_some(Notice::DiskFull);
        let report = OpenReport { write_mode: file.mode, ..recovered.report };
        let filling = Filling::new(config.blocks_from_bytes, file.prepared, file.fill);
        let tail = Tail::new(&header, file);
        let active = Unsealed::new(name, header, path, Arc::clone(&tail.file.file));
        let mut log = Log {
            disk,
            dir: dir.to_owned(),
            lock: Some(lock),
            tag,
            keep_from,
            kept: Kept::new(keep_from, durable),
            retention_boot_ms: 0,
            expiry_boot_ms: 0,
            rules_wait_since_boot_ms: None,
            expiry_from: 0,
            is_expiry_refused: false,
            last_control: Offset::ZERO,
            last_log_setting: Offset::ZERO,
            next: end,
            clock,
            topics: recovered.topics,
            state: recovered.state,
            fingerprints: Fingerprints::default(),
            novelties: Vec::new(),
            staging: Staging::new(config.staged_bytes_max),
            commit: GroupCommit::new(durability, end),
            depth: CommitDepth::new(config.writes_in_flight_max),
            frames_begun: FramesBegun::default(),
            has_waited: false,
            counts_on_idle: false,
            is_idle: false,
            segments: Arc::new(recovered.segments),
            unsealed: VecDeque::from([active]),
            tail,
            filling,
            recent: RecentFrames::new(config.recent_frames_bytes_max),
            published: Vec::new(),
            notices: damaged_mark.into_iter().chain(damaged_steps).chain(full).collect(),
            jobs: Jobs::new(&config, now, reserve_bytes, owes_reserve),
            compaction: Compaction::new(recovered.lessened),
            gone: Vec::new(),
            written: Vec::new(),
            scrubbing: Scrubbing::new(now),
            snapshots: Snapshots::new(recovered.snapshot),
            marked,
            reserve_rule,
            ops: 0,
            outstanding: 0,
            stated: end,
            last_append_boot_ms: now.boot_ms,
            close: Close::Open,
            is_ending: Arc::default(),
            poison: None,
            config,
        };
        log.take_rest();
        Ok((log, report))
    }
}

/// The new segment that each start begins.
struct Begun<D: Disk> {
    header: SegmentHeader,
    path: PathBuf,
    file: NewFile<D>,
}

impl<D: Disk> Begun<D> {
    fn new(
        disk: &D,
        dir: &Path,
        config: &LogConfig,
        now: Now,
        tag: Tag,
        end: Offset,
    ) -> Result<Self, OpenError> {
        let mode = match config.sync {
            SyncMode::Commit => WriteMode::Direct,
            SyncMode::Interval { .. } | SyncMode::Never => WriteMode::Buffered,
        };
        let header = SegmentHeader {
            version: SEGMENT_VERSION,
            base_offset: end,
            created_at_ms: now.wall_ms,
            incarnation: Incarnation::random(),
            tag,
            sync: config.sync,
        };
        let name = SegmentName::first_generation(end);
        let path = dir.join(name.log_file_name());
        let temporary = dir.join(NEXT_FILE_NAME);
        let first_step = config.preallocate_bytes_min.min(config.segment_bytes);
        let to = FIRST_FRAME_POSITION.plus(first_step);
        if mutation::is_planted(Mutation::OldFileAppendedTo) {
            let _ = disk.rename(&path, &temporary);
        }
        let file = PrepareJob { path: temporary.clone(), mode, to, fill: Fill::Zeroes }
            .run(disk)
            .map_err(OpenError::io("preparing", &temporary))?;
        let job = RollJob {
            next: file,
            header: header.clone(),
            dir: dir.to_owned(),
            from: temporary,
            to: path.clone(),
        };
        let file = job.run(disk).map_err(OpenError::io("creating", &path))?;
        Ok(Begun { header, path, file })
    }
}
