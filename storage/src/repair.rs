//! Makes a damaged log one that opens again, and loses nothing that can be read.
//!
//! Recovery refuses a log that is damaged below what had been synced, and readers pass over rotten frames of
//! sealed segments: only a person may decide that what is gone is gone. What a repair then does, by what it
//! finds in each segment:
//!
//! ```text
//! its .idx is damaged, its frames are not   the index is made anew from them; of events that compaction has taken
//!                                           from what is left of it, or from a snapshot behind the segment
//! its .idx is a damaged stub                it is made anew from what is left of it, and a snapshot behind it
//! frames are damaged, or its header is      it is written anew as its next generation: every frame that can
//!                                           be read, and a gap frame for what lies between (frame/gap.rs); a
//!                                           header is made anew from that of the index, or guessed from the frames
//! its .log is missing, or all of it         a segment that holds nothing but a gap frame; what its index, or what
//!                                           is left of that, or a snapshot behind it remembers of its events stays
//! the last one, which holds no frame more   it goes whole, and the log has another tag
//! an older generation beside a sound one    it goes: a repair before was interrupted
//! a snapshot is damaged, or not readable,   it goes: the one before it and the indexes say the same
//! or has the name of another offset
//! the log ends before a snapshot of it, or  a gap frame for what lies between
//! before its end mark
//! its end mark is damaged                   it goes: a start writes another
//! ```
//! Nothing is written over, and nothing that is sound is taken out but what a newer generation stands for. Where a file is
//! not what its name says, or is of another log (`belonging.rs`), nothing is done at all; and what is done is looked at
//! again before it is called repaired, in the same way.
//!
//! What the events that compaction took, or that are lost, had added to the state of the log, and neither the index nor
//! a snapshot says any more, is forgotten, and is named before that ([`Forgotten`]).
//!
//! Offsets never change, and a gap is named to whoever reads over it. So the log keeps its tag, and cursors
//! stay good, but where its end is lost, so that nobody knows whether offsets will be given out a second time, or
//! where the header of its last segment is, which alone says whether readers may have seen more.
//!
//! What goes has a second name in a directory `damaged-<ms since 1970>` inside the log's, durably, *before* anything takes
//! its place, and loses the first *after* what replaces it has its name and is synced. After a crash or an error in between
//! both generations are there. A second repair takes out the older one, and keeps it once more; a start before that takes
//! the newer one, and removes the older, which is kept. (Where a file system has no second names a file is moved once
//! it is replaced, and such a start removes it.)

use std::{
    fmt,
    path::{Path, PathBuf},
};

use crate::{
    clock::Now,
    data_dir::lock,
    error::{Corruption, OpenError},
    io::{Disk, LockMode},
    offset::Offset,
    remains::Forgotten,
    segment::{SegmentName, Tag},
    verify::lock_shared,
};

mod aside;
mod belonging;
mod known;
pub(crate) mod mend;
mod planner;
pub(crate) mod salvage;
#[cfg(test)]
mod tests;

use mend::{Mended, Mender};
use planner::Planner;

/// What a repair would do, segment by segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepairPlan {
    /// In the order of the log.
    pub steps: Vec<Step>,
    /// Damage that no repair can mend: frames that contradict those of other segments, segments that
    /// overlap, files that do not belong to the log. With any of it nothing is done.
    pub beyond: Vec<Corruption>,
    /// The log's tag from then on, if its end is lost.
    new_tag: Option<Tag>,
    /// How far the log had been synced at least, by what is outside of its segments.
    synced: Offset,
}

impl RepairPlan {
    /// Of events that are lost from one generation of a segment another may hold some: who reads the plan is told.
    fn name_what_others_may_hold(&mut self) {
        let has_lost = |step: &Step| match &step.action {
            Action::Rewrite { lost, .. } => !lost.is_empty(),
            Action::Fill { .. } => true,
            _ => false,
        };
        let lost = self.steps.iter().filter(|step| has_lost(step));
        let lost: Vec<Offset> = lost.map(|step| step.name.base_offset).collect();
        for step in &mut self.steps {
            if step.action == Action::Discard && lost.contains(&step.name.base_offset) {
                step.damage.what += ", some of which are lost there: this one may hold them still";
            }
        }
    }
}

/// What a repair does about one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which: one of its files, and what is wrong with it.
    pub damage: Corruption,
    /// What is done.
    pub action: Action,
    name: SegmentName,
    successor: Option<Offset>,
}

/// What is done about a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Its index is made anew.
    Reindex {
        /// What of the state of the log nobody knows any more.
        forgotten: Forgotten,
    },
    /// It is written anew.
    Rewrite {
        /// How many events can be read, and stay.
        kept_events: u64,
        /// What cannot, in offset order.
        lost: Vec<Lost>,
        /// What nobody knows any more that these, and events before them, had added to the state of the log.
        forgotten: Forgotten,
    },
    /// It was a stub, of events that are gone on purpose, and is made anew.
    Restub {
        /// What of the state of the log nobody knows any more.
        forgotten: Forgotten,
    },
    /// A segment takes its place that only says what is lost.
    Fill {
        /// All of it.
        lost: Lost,
        /// The tag to be written into it, that of a segment beside it.
        tag: Tag,
        /// What nobody knows any more that they had added to the state of the log; the gap says it, too.
        forgotten: Forgotten,
    },
    /// It goes: nobody knows what was in it, not even how much. The log ends before it, under a new tag.
    Abandon,
    /// It goes: the next generation holds all of it.
    Discard,
    /// It goes: its index cannot be read, and the generation before it is whole. A start does not choose between the two.
    Unread,
    /// A snapshot goes: the log is opened from another, or from its indexes. Or the end mark does.
    SetAside,
}

/// Events that are lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The first.
    pub from: Offset,
    /// The first behind them.
    pub to: Offset,
    /// What stands there instead.
    pub what: String,
}

impl fmt::Display for Lost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "events from {} to {} are lost: {}", self.from, self.to, self.what)
    }
}

/// What a repair did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repaired {
    /// What it did; of a round that failed, what that had to do.
    pub plan: RepairPlan,
    /// Where the files are that it took out: one directory for each round that took out any.
    pub asides: Vec<PathBuf>,
    /// Where it failed: the files that newer ones have replaced, and that it could neither take out nor, as the file system
    /// has no second names, keep before that. A start removes them, and another repair keeps them.
    pub in_place: Vec<PathBuf>,
    /// The log's tag from now on, if it is another.
    pub new_tag: Option<Tag>,
    /// What is wrong all the same: the log does not open, or not as it should.
    pub left: Vec<Corruption>,
}

/// Says what a repair of the log in `dir` would do, and changes nothing. Reads all of it.
pub fn plan<D: Disk>(disk: &D, dir: &Path) -> Result<RepairPlan, OpenError> {
    let _lock = lock_shared(disk, dir)?;
    Planner::run(disk, dir)
}

/// So often it mends what shows: damage hides other damage.
const ROUNDS_MAX: usize = 4;

/// Does what is to be done, round by round, and then looks at all of it again. The inner error is the first plan, if there
/// is nothing to do by it, or something is beyond repair: the log would not open after it either, and what is there now
/// tells a person more than what a repair makes of it.
pub fn repair<D: Disk>(
    disk: &D,
    dir: &Path,
    now: Now,
) -> Result<Result<Repaired, RepairPlan>, OpenError> {
    let mut repair = Repair::begin(disk, dir)?;
    while !repair.steps().is_empty() {
        repair.mend(now)?;
    }
    Ok(repair.end())
}

/// A repair under way, of a log that nobody else has meanwhile: what is shown before a round is what that does.
pub struct Repair<'a, D: Disk> {
    disk: &'a D,
    dir: &'a Path,
    next: RepairPlan,
    rounds: usize,
    done: Option<Repaired>,
    is_unseen: bool,
    _lock: D::Lock,
}

impl<'a, D: Disk> Repair<'a, D> {
    /// Looks at the log in `dir`, and changes nothing yet.
    pub fn begin(disk: &'a D, dir: &'a Path) -> Result<Repair<'a, D>, OpenError> {
        let lock = lock(disk, dir, LockMode::Exclusive)?;
        let next = Planner::run(disk, dir)?;
        Ok(Repair { disk, dir, next, rounds: 0, done: None, is_unseen: false, _lock: lock })
    }

    /// What the next round does. None if there is nothing to do, if something is beyond repair, or after too many of them.
    pub fn steps(&self) -> &[Step] {
        match self.next.beyond.is_empty() && self.rounds < ROUNDS_MAX {
            true => &self.next.steps,
            false => &[],
        }
    }

    /// Does that, and looks for what shows behind it. Where it fails [`Repair::done`] says what was done all the same.
    pub fn mend(&mut self, now: Now) -> Result<(), OpenError> {
        assert!(!self.steps().is_empty(), "there is something to do");
        let (mended, outcome) = Mender::run(self.disk, self.dir, now, &self.next);
        self.rounds += 1;
        if !mended.is_nothing() {
            self.note(mended);
        }
        outcome?;
        self.is_unseen = true;
        self.next = Planner::run(self.disk, self.dir)?;
        self.is_unseen = false;
        Ok(())
    }

    /// What the last round has done, or a part of it.
    fn note(&mut self, mended: Mended) {
        let done = self.done.get_or_insert_with(|| {
            let plan = RepairPlan { steps: Vec::new(), ..self.next.clone() };
            let (asides, in_place, left) = (Vec::new(), Vec::new(), Vec::new());
            Repaired { plan, asides, in_place, new_tag: None, left }
        });
        done.plan.steps.extend(self.next.steps.iter().cloned());
        done.asides.extend(mended.aside);
        done.in_place = mended.in_place;
        done.new_tag = mended.new_tag.or(done.new_tag);
    }

    /// What was done so far, if anything was.
    pub fn done(&self) -> Option<&Repaired> {
        self.done.as_ref()
    }

    /// Whether all of the last round was done, and it was the look behind it that failed.
    pub fn is_unseen(&self) -> bool {
        self.is_unseen
    }

    /// What was done, and what is wrong all the same. The error: nothing was, by that plan.
    pub fn end(self) -> Result<Repaired, RepairPlan> {
        let Some(done) = self.done else { return Err(self.next) };
        let mut left = self.next.beyond;
        if left.is_empty() {
            left.extend(self.next.steps.into_iter().map(|step| step.damage));
        }
        Ok(Repaired { left, ..done })
    }
}
