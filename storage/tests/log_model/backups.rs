//! Backups of a log in the middle of its life, by hard links, and what is restored of them: a backup has what was synced
//! when it was made, whatever becomes of the log, and a restored log what was before the place where it was cut.

use std::{
    collections::BTreeSet,
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use strandline_storage::{
    backup::{Beginning, Reach, back_up_log, beginning_of},
    error::OpenError,
    event::NewEvent,
    io::{
        Disk,
        sim::{SimDisk, rng::SimRng},
    },
    log::Now,
    offset::Offset,
    restore::{Until, first_cut, restore_log},
    segment::Tag,
    topic::Topic,
};

use crate::{
    Life, rot,
    simulation::{
        DIR, Process,
        model::{Fate, Model},
        to_usize,
    },
};

/// Where a stopped log is backed up to.
const STOPPED: &str = "/stopped";
/// Where a backup is restored to.
const RESTORED: &str = "/restored";

/// A backup that is whole.
pub struct Backup {
    dir: PathBuf,
    tag: Option<Tag>,
    /// What the log kept nothing before.
    start: usize,
    /// What the log had, up to the end of the backup.
    model: Model,
}

impl Life {
    /// Backs up the log beside its process; where none has it open, a copy of its disk is looked at.
    pub fn back_up(&mut self) {
        match &self.process {
            None => self.back_up_stopped(),
            Some(process) if process.disk.is_crashed() => {}
            Some(_) => self.back_up_running(),
        }
    }

    fn back_up_running(&mut self) {
        let process = self.process.as_ref().expect("it is running");
        let (synced, start) = (process.log.synced(), to_usize(process.log.start()));
        let dir = PathBuf::from(format!("/backup-{}", self.model.tally.backups + 1));
        let previous = self.backup.as_ref().map(|backup| backup.dir.as_path());
        let reach = Reach::Synced(synced);
        let done = loop {
            let begun = begin(&self.disk, &dir);
            match begun.and_then(|()| back_up_log(&self.disk, DIR.as_ref(), previous, &dir, reach))
            {
                Ok(done) => break done,
                Err(error) => {
                    assert!(self.trouble, "nothing was wrong, but: {error}");
                    self.tell(&format!("not backed up: {error}"));
                    // What it has left is there when it is tried again.
                    if self.disk.is_crashed() || self.rng.chance(50) {
                        return;
                    }
                }
            }
        };
        assert_eq!(done.end, synced, "what was synced is in a backup, and nothing else");
        self.tell(&format!("backed up to {}, up to {synced}", dir.display()));
        let tally = &mut self.model.tally;
        tally.backups += 1;
        tally.backups_renewed += u64::from(previous.is_some());
        if let Some(previous) = &self.backup
            && previous.tag == done.tag
        {
            let disk = stopped(&self.disk, &mut self.rng);
            let beginning = beginning_of(&disk, &previous.dir, &dir, &BTreeSet::new());
            let beginning = beginning.expect("both are whole");
            assert!(!matches!(beginning, Beginning::Differs { .. }), "{beginning:?}");
        }
        // Sometimes the one before is looked at for the last time.
        if self.rng.chance(30) {
            self.check_backup();
        }
        let model = self.model.cut(to_usize(synced));
        self.backup = Some(Backup { dir, tag: done.tag, start, model });
        if self.rng.chance(50) {
            self.check_backup();
        }
    }

    /// A crash leaves nothing that `verify` finds, and what is backed up is what a start would keep.
    fn back_up_stopped(&mut self) {
        let Life { rng, disk, model, config, now, .. } = self;
        let disk = stopped(disk, rng);
        assert_eq!(rot::findings(&disk, DIR.as_ref()), [], "a crash is no damage");
        let to = Path::new(STOPPED);
        begin(&disk, to).expect("a disk that works");
        let done = back_up_log(&disk, DIR.as_ref(), None, to, Reach::Stopped);
        let done = done.expect("a crash is no damage");
        assert_eq!(rot::findings(&disk, to), [], "a backup is sound");
        put_in_place(&disk, to);
        let mut model = model.clone();
        let process = Process::open(&disk, config.clone(), *now, &mut model);
        let process = process.expect("a backup is sound");
        assert_eq!(process.log.visible(), done.end);
        process.check_reads(rng, &model);
    }

    /// The newest backup is as it was when it was made, and so is what is restored of it.
    pub fn check_backup(&mut self) {
        let Life { rng, disk, config, now, backup, model, .. } = self;
        let Some(backup) = backup else { return };
        let disk = stopped(disk, rng);
        assert_eq!(rot::findings(&disk, &backup.dir), [], "a backup is sound");
        let is_cut = backup.check_restored(&disk.fork(rng.next_u64()), rng, *now, |disk, model| {
            Process::open(disk, config.clone(), *now, model).expect("what is restored is sound")
        });
        model.tally.cuts += u64::from(is_cut);
        put_in_place(&disk, &backup.dir);
        let mut model = backup.model.clone();
        let process = Process::open(&disk, config.clone(), *now, &mut model);
        let mut process = process.expect("a backup is sound");
        process.check_reads(rng, &model);
        // Ids and producers are known in it.
        for _ in 0..10 {
            process.append(rng, &mut model, *now);
            process.settle(rng, &mut model, *now);
        }
        process.check_reads(rng, &model);
    }
}

impl Backup {
    /// Restores it on this disk, up to any place; tells whether that is before its end.
    fn check_restored(
        &self,
        disk: &SimDisk,
        rng: &mut SimRng,
        now: Now,
        open: impl Fn(&SimDisk, &mut Model) -> Process,
    ) -> bool {
        let end = self.model.events.len();
        let first = first_cut(disk, &self.dir).expect("a backup is sound");
        let first = first.map_or(0, |first| to_usize(first.cut));
        assert!(first <= end, "it can be cut where it ends");
        let until = match rng.below(3) {
            0 => Until::End,
            1 => Until::Offset(at(first + rng.index(end - first + 1))),
            _ if end == 0 => return false,
            _ => Until::TimeMs(self.model.events[rng.index(end)].time_ms + rng.below(2)),
        };
        let to = Path::new(RESTORED);
        begin(disk, to).expect("a disk that works");
        let restored = match restore_log(disk, &self.dir, to, until, now) {
            Ok(restored) => restored,
            Err(OpenError::Io { source, .. })
                if source.kind() == io::ErrorKind::InvalidInput
                    && matches!(until, Until::TimeMs(_)) =>
            {
                return false; // Nobody knows any more what the log was then.
            }
            Err(error) => panic!("{until:?}: {error}"),
        };
        assert_eq!(rot::findings(disk, to), [], "{until:?}: what is restored is sound");
        let cut = to_usize(restored.end);
        let mut model = self.model.cut(cut);
        match until {
            Until::End => assert_eq!(cut, end),
            Until::Offset(until) => {
                assert!(restored.end <= until, "restored up to {}, not {until}", restored.end);
                self.check_cut(cut, to_usize(until));
            }
            Until::TimeMs(time_ms) => {
                let older = self.model.events.partition_point(|kept| kept.time_ms < time_ms);
                self.check_cut(cut, older);
                model.leave_out(older.min(cut)..cut);
            }
        }
        if cut < end {
            // How far limits had reached when the log ended there nobody has noted.
            model.start = 0;
            model.events.iter_mut().take(self.start).for_each(|kept| kept.may_be_gone = true);
            let behind = self.model.events[cut..].iter();
            model.cut_topics = behind.map(|kept| kept.event.topic.as_str().to_owned()).collect();
        }
        assert_ne!(Some(restored.tag), self.tag, "it is another log");
        model.tag = Some(restored.tag.as_str().to_owned());
        model.tag_may_change = false;
        model.showed_early = false;
        put_in_place(disk, to);
        let disk = disk.power_cut();
        let mut process = open(&disk, &mut model);
        process.check_events(rng, &model);
        process.append_new(rng, &mut model, now);
        process.settle(rng, &mut model, now);
        process.check_events(rng, &model);
        cut < end
    }

    /// A log that is cut at a time, or in a segment that was rewritten, ends where nothing of what is left lies between that
    /// and the place where it was to be cut.
    fn check_cut(&self, cut: usize, wanted: usize) {
        let fates = self.model.fates(self.model.events.len());
        let mut between = (cut.min(wanted)..cut.max(wanted)).filter(|at| *at >= self.start);
        let stays = between.find(|offset| fates.of(*offset) == Fate::Stays);
        assert_eq!(stays, None, "cut at {cut}, not {wanted}");
    }
}

impl Model {
    /// What a log has that was made of this one and ends at `end`. Of what may be gone from this one nobody knows whether
    /// it was there.
    pub fn cut(&self, end: usize) -> Model {
        let fates = self.fates(self.events.len());
        let mut cut = self.clone();
        for (offset, kept) in cut.events.iter_mut().enumerate() {
            kept.may_be_gone |= fates.of(offset) != Fate::Stays;
        }
        cut.truncate(end);
        (cut.safe, cut.seen) = (end, end);
        cut.start = cut.start.min(end);
        cut
    }

    /// None of these was there, so that nothing is as they say.
    fn leave_out(&mut self, offsets: Range<usize>) {
        let nothing = NewEvent::json(Topic::parse("left/out").expect("a topic"), Bytes::new());
        let before = offsets.start.checked_sub(1);
        let time_ms = before.map_or(0, |at| self.events[at].time_ms);
        for kept in &mut self.events[offsets] {
            (kept.event, kept.time_ms, kept.may_be_gone) = (nothing.clone(), time_ms, true);
        }
    }
}

/// The disk as whoever looks at it finds it who has no part in the life of the log.
fn stopped(disk: &SimDisk, rng: &mut SimRng) -> SimDisk {
    let disk = disk.fork(rng.next_u64());
    match rng.chance(50) {
        true => disk.kill(),
        false => disk.power_cut(),
    }
}

fn begin(disk: &SimDisk, dir: &Path) -> Result<(), OpenError> {
    disk.create_dir(dir).map_err(|source| OpenError::io("making", dir)(source))
}

/// What is in `dir` takes the place of the log.
fn put_in_place(disk: &SimDisk, dir: &Path) {
    let list = |dir: &Path| disk.list(dir).expect("a directory");
    for name in list(DIR.as_ref()) {
        disk.remove(&Path::new(DIR).join(name)).expect("a file");
    }
    for name in list(dir) {
        disk.rename(&dir.join(&name), &Path::new(DIR).join(&name)).expect("a file");
    }
    disk.sync_dir(DIR.as_ref()).expect("a directory");
}

fn at(offset: usize) -> Offset {
    Offset::new(offset as u64)
}
