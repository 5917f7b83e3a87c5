//! What the disk holds, what is to happen to it, and what a cut leaves.

use std::collections::BTreeMap;

use fuser::Errno;
use strandline_storage::io::sim::{
    Fault,
    content::{Content, Survival},
    names::{Inode, Names},
    rng::SimRng,
};

use super::{Kind, ROOT};

pub(super) struct State {
    pub(super) rng: SimRng,
    pub(super) files: BTreeMap<Inode, Content>,
    pub(super) dirs: BTreeMap<Inode, Names>,
    pub(super) next_inode: Inode,
    /// How often the power came back: part of every file handle.
    pub(super) epoch: u64,
    pub(super) operations: u64,
    pub(super) cut_at: Option<u64>,
    pub(super) is_cut: bool,
    pub(super) faults: Vec<(Fault, u64)>,
    pub(super) struck: Vec<Fault>,
    pub(super) space_bytes_max: Option<usize>,
    pub(super) writes_into_blocks: u64,
}

impl State {
    pub(super) fn dir(&self, inode: Inode) -> Result<&Names, Errno> {
        self.dirs.get(&inode).ok_or(Errno::ENOTDIR)
    }

    pub(super) fn dir_mut(&mut self, inode: Inode) -> Result<&mut Names, Errno> {
        self.dirs.get_mut(&inode).ok_or(Errno::ENOTDIR)
    }

    pub(super) fn file(&mut self, inode: Inode) -> Result<&mut Content, Errno> {
        self.files.get_mut(&inode).ok_or(Errno::ENOENT)
    }

    pub(super) fn kind(&self, inode: Inode) -> Result<Kind, Errno> {
        if self.dirs.contains_key(&inode) {
            return Ok(Kind::Directory);
        }
        let content = self.files.get(&inode).ok_or(Errno::ENOENT)?;
        let (size_bytes, space_bytes) = (content.size_bytes(), content.space_bytes());
        Ok(Kind::File { size_bytes, space_bytes, names: self.names_of(inode) })
    }

    /// How many names a file has.
    fn names_of(&self, inode: Inode) -> u32 {
        let count: usize = self.dirs.values().map(|names| names.count_of(inode)).sum();
        u32::try_from(count).expect("few names")
    }

    /// Ends an operation that was done whole.
    pub(super) fn end(&mut self, crashes: bool) -> Result<(), Errno> {
        if crashes {
            self.cut();
            return Err(Errno::EIO);
        }
        Ok(())
    }

    pub(super) fn strikes(&mut self, fault: Fault) -> bool {
        let mut struck = false;
        self.faults.retain_mut(|(armed, after)| {
            if *armed != fault || struck {
                return true;
            }
            struck = *after == 0;
            *after = after.saturating_sub(1);
            !struck
        });
        if struck {
            self.struck.push(fault);
        }
        struck
    }

    /// The error of an operation that a fault strikes before it has done anything.
    pub(super) fn fail_if(&mut self, fault: Fault) -> Result<(), Errno> {
        if self.strikes(fault) { Err(Errno::EIO) } else { Ok(()) }
    }

    /// How much space is left, if that is limited.
    pub(super) fn free_bytes(&self) -> Option<usize> {
        self.space_bytes_max.map(|max| max.saturating_sub(self.space_bytes()))
    }

    /// Whether there is no place for so many more bytes.
    pub(super) fn lacks(&self, needed: usize) -> bool {
        self.free_bytes().is_some_and(|free| needed > free)
    }

    /// What all files with a name take up.
    pub(super) fn space_bytes(&self) -> usize {
        let named = self.dirs.values().flat_map(|names| {
            names.list().into_iter().filter_map(|name| names.get(&name)).collect::<Vec<_>>()
        });
        named.filter_map(|inode| self.files.get(&inode)).map(Content::space_bytes).sum()
    }

    pub(super) fn cut(&mut self) {
        if self.is_cut {
            return;
        }
        self.is_cut = true;
        let survival = *self.rng.pick(&[
            Survival::Nothing,
            Survival::Everything,
            Survival::Mixed,
            Survival::Mixed,
            Survival::Mixed,
            Survival::Mixed,
        ]);
        for content in self.files.values_mut() {
            content.lose_power(&[], survival, &[], &mut self.rng);
        }
        for names in self.dirs.values_mut() {
            names.lose_power(survival, &mut self.rng);
        }
        self.drop_unreachable();
    }

    fn drop_unreachable(&mut self) {
        let mut kept = std::collections::BTreeSet::from([ROOT]);
        let mut next = vec![ROOT];
        while let Some(dir) = next.pop() {
            for inode in self.dirs[&dir].inodes() {
                if kept.insert(inode) && self.dirs.contains_key(&inode) {
                    next.push(inode);
                }
            }
        }
        self.files.retain(|inode, _| kept.contains(inode));
        self.dirs.retain(|inode, _| kept.contains(inode));
    }
}
