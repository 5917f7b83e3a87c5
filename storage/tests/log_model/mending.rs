//! Logs of which something is rotten are repaired, in the middle of their lives and at the end, and go on.

use strandline_storage::log::Log;

use crate::{
    Life, rot, rot_beside,
    simulation::{DIR, Process, Tally},
};

impl Life {
    /// A log that is stopped is repaired, if anything is wrong with it.
    pub fn repair(&mut self) {
        self.model.look_at_files(&self.disk);
        if self.model.rotten.is_empty() && self.model.rotten_files.is_empty() {
            return;
        }
        if self.disk.is_crashed() {
            self.disk = self.disk.kill();
        }
        self.end_trouble();
        // As whoever would read it before that finds it.
        let Life { rng, disk, model, config, now, .. } = self;
        let (copy, mut seen) = (disk.fork(rng.next_u64()).kill(), model.clone());
        seen.forget_start(&copy);
        let lost = match Process::open(&copy, config.clone(), *now, &mut seen) {
            Ok(process) => Some(process.lost(&seen)),
            Err(error) => {
                assert!(rot_beside::may_refuse(disk, model, &error), "nothing was wrong: {error}");
                None
            }
        };
        let told = rot::check_repair(disk, model, *now, lost.as_ref());
        self.tell(&told);
    }

    /// A log of which too much is lost is repaired before it opens.
    pub fn mend_if_refused(&mut self) {
        self.model.look_at_files(&self.disk);
        if self.model.rotten_files.is_empty() {
            return;
        }
        if self.disk.is_crashed() {
            self.disk = self.disk.kill();
        }
        let Life { rng, disk, model, config, now, .. } = self;
        let (copy, mut seen) = (disk.fork(rng.next_u64()).kill(), model.clone());
        seen.forget_start(&copy);
        let opened = Process::open(&copy, config.clone(), *now, &mut seen);
        let Err(error) = opened else { return };
        assert!(rot_beside::may_refuse(disk, model, &error), "there is no more trouble: {error}");
        self.repair();
    }

    /// What is rotten at the end is found, by whoever looks for it, and mended without losing more.
    pub fn find_rot(&mut self) {
        let Life { rng, disk, model, config, now, .. } = self;
        let mut process =
            Process::open(disk, config.clone(), *now, model).expect("there is no more trouble");
        process.check_scrub(rng, model, now);
        process.check_reads(rng, model);
        let lost = process.lost(model);
        assert!(process.close(rng, model, *now), "nothing is in the way");
        rot::check_repair(disk, model, *now, Some(&lost));
        if model.has_lost_settings() {
            return;
        }
        let mut process =
            Process::open(disk, config.clone(), *now, model).expect("it was repaired");
        process.check_reads(rng, model);
        process.append_new(rng, model, *now);
        process.settle(rng, model, *now);
        process.check_reads(rng, model);
    }

    /// What came of settings that are lost nobody can tell: a log that was repaired opens, and that is all.
    pub fn end_without_settings(self) -> Tally {
        let Life { disk, config, now, .. } = &self;
        let opened = Log::open(disk.clone(), DIR.as_ref(), config.clone(), *now);
        drop(opened.expect("it was repaired"));
        self.tally()
    }
}
