//! What happens in a log's life, and what is asked of it.

use strandline_storage::{
    config::SyncMode,
    control::Control,
    io::sim::rng::SimRng,
    settings::{LogRetention, LogSettings},
};

use crate::simulation::AGES_S;

/// Something that happens in a log's life. What needs an open log is passed over without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub kind: StepKind,
    /// What its random choices follow from.
    pub seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// The log is opened, perhaps with a crash or a fault while it recovers.
    Open,
    /// From the next open on another sync mode holds.
    ChangeSync,
    Append,
    /// One of the operations under way completes.
    Complete,
    Settle,
    /// Time passes, perhaps much, with whatever is under way: the disk may be slow.
    Wait,
    CheckReads,
    /// The log is told to keep fewer events, or more.
    Retain,
    /// A topic is deleted or trimmed.
    Remove,
    /// A topic, or some of them, may have so many events, or one of each key.
    Limit,
    /// Writes of killed processes land or do not, and the page cache forgets.
    DiskSettles,
    /// Sealed bytes are not any more what was written.
    Rot,
    /// Nor is a file beside the frames.
    RotBeside,
    /// What is damaged of a stopped log is repaired.
    Repair,
    /// Others leave the disk hardly any space from now on.
    FillDisk,
    /// On a full disk somebody deletes what is there.
    MakeRoom,
    /// There is space again.
    FreeDisk,
    /// The log is backed up, beside its process or without one.
    BackUp,
    /// Readers that are under way go on for a bit.
    ReadOn,
    /// A later operation will fail.
    Arm,
    /// A later operation will be the last.
    Fuse,
    Close,
    Kill,
    PowerCut,
}

/// The life that a seed gives.
pub fn life(seed: u64) -> Vec<Step> {
    let mut rng = SimRng::new(seed);
    let mut steps = Vec::new();
    let (rots, fills) = (rng.chance(20), rng.chance(20));
    for _ in 0..rng.between(1, 8) {
        let mut kinds = Vec::new();
        if rng.chance(20) {
            kinds.push(StepKind::ChangeSync);
        }
        kinds.push(StepKind::Open);
        for _ in 0..*rng.pick(&[3, 10, 30, 100]) {
            kinds.push(match rng.below(100) {
                0 if rots => StepKind::Rot,
                1 | 2 if fills => StepKind::FillDisk,
                3..8 if fills => StepKind::MakeRoom,
                8 if fills => StepKind::FreeDisk,
                0..33 => StepKind::Append,
                33 => StepKind::Remove,
                34 => StepKind::Limit,
                35..80 => StepKind::Complete,
                80..85 => StepKind::Settle,
                85..91 => StepKind::Wait,
                91..95 => StepKind::CheckReads,
                95 => StepKind::DiskSettles,
                96 => StepKind::Retain,
                97 => StepKind::Arm,
                _ => StepKind::Fuse,
            });
        }
        if rng.chance(30) {
            kinds.push(StepKind::Close);
        }
        kinds.push(*rng.pick(&[StepKind::Kill, StepKind::PowerCut]));
        steps.extend(kinds.into_iter().map(|kind| Step { kind, seed: rng.next_u64() }));
    }
    match (rots, fills) {
        (true, false) => with_damage(seed, steps),
        (_, true) => steps,
        (false, false) => with_guests(seed, steps),
    }
}

/// Of lives with rot most also have some in the files beside the frames, of a log that runs or is stopped, and some are
/// repaired and go on.
fn with_damage(seed: u64, steps: Vec<Step>) -> Vec<Step> {
    let mut rng = SimRng::new(seed.rotate_left(16));
    let (rots_beside, is_repaired) = (rng.chance(70), rng.chance(60));
    let mut with_damage = Vec::new();
    for step in steps {
        with_damage.push(step);
        let is_stopped = matches!(step.kind, StepKind::Kill | StepKind::PowerCut);
        let mut more = Vec::new();
        if rots_beside && rng.chance(if is_stopped { 40 } else { 2 }) {
            more.push(StepKind::RotBeside);
        }
        if is_repaired && is_stopped && rng.chance(50) {
            more.push(StepKind::Repair);
        }
        with_damage.extend(more.into_iter().map(|kind| Step { kind, seed: rng.next_u64() }));
    }
    with_damage
}

/// In some lives there are backups, in some readers that are under way while the log goes on. They come of a seed of
/// their own: without them a life is what it was.
fn with_guests(seed: u64, steps: Vec<Step>) -> Vec<Step> {
    let mut rng = SimRng::new(seed.rotate_left(32));
    let (has_backups, has_readers) = (rng.chance(30), rng.chance(30));
    let mut with_guests = Vec::new();
    for step in steps {
        with_guests.push(step);
        let is_stopped = matches!(step.kind, StepKind::Kill | StepKind::PowerCut | StepKind::Close);
        let mut guests = Vec::new();
        if has_backups && rng.chance(if is_stopped { 30 } else { 4 }) {
            guests.push(StepKind::BackUp);
        }
        if has_readers && !is_stopped && rng.chance(30) {
            guests.push(StepKind::ReadOn);
        }
        with_guests.extend(guests.into_iter().map(|kind| Step { kind, seed: rng.next_u64() }));
    }
    with_guests
}

/// Mostly as a log is by default.
pub fn sync_mode(rng: &mut SimRng) -> SyncMode {
    match rng.below(10) {
        0 => SyncMode::Never,
        1 | 2 => SyncMode::Interval { interval_ms: 50 },
        _ => SyncMode::Commit,
    }
}

/// Lets the log keep so many events, or bytes, or for so long, or as many as come.
pub fn retention(rng: &mut SimRng) -> Control {
    let mut retain = LogRetention::default();
    match rng.below(4) {
        0 | 1 => retain.count = *rng.pick(&[None, Some(1), Some(5), Some(20), Some(100)]),
        2 => retain.bytes = Some(*rng.pick(&[8, 64, 128, 300]) << 10),
        _ => retain.age_s = Some(*rng.pick(&AGES_S)),
    }
    Control::Log(LogSettings { retain })
}
