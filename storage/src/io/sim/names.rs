//! The names of a simulated directory: as the running system sees them, and as the device has them.

use std::collections::BTreeMap;

use super::{content::Survival, rng::SimRng};

/// A file, whatever it is called.
pub type Inode = u64;

/// A change of names that the device has not confirmed.
#[derive(Clone, Debug)]
enum NameChange {
    Link { name: String, inode: Inode },
    Rename { from: String, to: String, inode: Inode },
    Exchange { names: [String; 2] },
    Unlink { name: String },
}

/// One directory.
#[derive(Clone, Debug, Default)]
pub struct Names {
    current: BTreeMap<String, Inode>,
    durable: BTreeMap<String, Inode>,
    changes: Vec<NameChange>,
}

impl Names {
    /// The file of that name.
    pub fn get(&self, name: &str) -> Option<Inode> {
        self.current.get(name).copied()
    }

    /// How many names a file has here.
    pub fn count_of(&self, inode: Inode) -> usize {
        self.current.values().filter(|known| **known == inode).count()
    }

    /// All names.
    pub fn list(&self) -> Vec<String> {
        self.current.keys().cloned().collect()
    }

    /// All files that have a name now, or may have one after a power cut.
    pub fn inodes(&self) -> impl Iterator<Item = Inode> {
        let changes = self.changes.iter().filter_map(|change| match change {
            NameChange::Link { inode, .. } | NameChange::Rename { inode, .. } => Some(*inode),
            NameChange::Exchange { .. } | NameChange::Unlink { .. } => None,
        });
        self.current.values().chain(self.durable.values()).copied().chain(changes)
    }

    /// Gives a file a name, taking it from whatever had it.
    pub fn link(&mut self, name: &str, inode: Inode) {
        self.change(NameChange::Link { name: name.to_owned(), inode });
    }

    /// Renames within the directory.
    pub fn rename(&mut self, from: &str, to: &str, inode: Inode) {
        self.change(NameChange::Rename { from: from.to_owned(), to: to.to_owned(), inode });
    }

    /// Gives each of two files the name of the other.
    pub fn exchange(&mut self, names: [&str; 2]) {
        self.change(NameChange::Exchange { names: names.map(str::to_owned) });
    }

    /// Takes a name away.
    pub fn unlink(&mut self, name: &str) {
        self.change(NameChange::Unlink { name: name.to_owned() });
    }

    /// Makes all names durable.
    pub fn sync(&mut self) {
        self.changes.clear();
        self.durable.clone_from(&self.current);
    }

    /// Loses power: of the changes since the last sync all, none, the first few or any survive.
    pub fn lose_power(&mut self, survival: Survival, rng: &mut SimRng) {
        let changes = std::mem::take(&mut self.changes);
        let in_order = rng.chance(50);
        let prefix = rng.index(changes.len() + 1);
        for (index, change) in changes.iter().enumerate() {
            let survives = match survival {
                Survival::Nothing => false,
                Survival::Everything => true,
                Survival::Mixed if in_order => index < prefix,
                Survival::Mixed => rng.chance(50),
            };
            if survives {
                apply(&mut self.durable, change);
            }
        }
        self.current.clone_from(&self.durable);
    }

    fn change(&mut self, change: NameChange) {
        apply(&mut self.current, &change);
        self.changes.push(change);
    }
}

fn apply(names: &mut BTreeMap<String, Inode>, change: &NameChange) {
    match change {
        NameChange::Link { name, inode } => {
            names.insert(name.clone(), *inode);
        }
        NameChange::Rename { from, to, inode } => {
            names.remove(from);
            names.insert(to.clone(), *inode);
        }
        NameChange::Exchange { names: [one, other] } => {
            // One of which a cut has taken another change has no name to give.
            if let (Some(one_inode), Some(other_inode)) = (names.get(one), names.get(other)) {
                let (one_inode, other_inode) = (*one_inode, *other_inode);
                names.insert(one.clone(), other_inode);
                names.insert(other.clone(), one_inode);
            }
        }
        NameChange::Unlink { name } => {
            names.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_synced_names_are_sure_to_survive() {
        let mut outcomes = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let mut names = Names::default();
            names.link("old", 1);
            names.sync();
            names.link("new", 2);
            names.rename("new", "newer", 2);
            names.unlink("old");
            assert_eq!(names.list(), ["newer"]);
            names.lose_power(Survival::Mixed, &mut SimRng::new(seed));
            outcomes.insert(names.list());
        }
        for possible in [vec!["old"], vec!["newer"], vec!["new", "old"], vec![]] {
            assert!(
                outcomes.contains(&possible.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>())
            );
        }
    }

    #[test]
    fn two_names_are_exchanged_or_not() {
        let mut outcomes = std::collections::BTreeSet::new();
        for seed in 0..50 {
            let mut names = Names::default();
            names.link("a", 1);
            names.link("b", 2);
            names.sync();
            names.exchange(["a", "b"]);
            assert_eq!((names.get("a"), names.get("b")), (Some(2), Some(1)));
            names.lose_power(Survival::Mixed, &mut SimRng::new(seed));
            outcomes.insert((names.get("a"), names.get("b")));
        }
        assert_eq!(Vec::from_iter(outcomes), [(Some(1), Some(2)), (Some(2), Some(1))]);
    }

    #[test]
    fn a_sync_keeps_all_of_them() {
        let mut names = Names::default();
        names.link("a", 1);
        names.rename("a", "b", 1);
        names.sync();
        names.lose_power(Survival::Nothing, &mut SimRng::new(1));
        assert_eq!(names.list(), ["b"]);
        assert_eq!(names.get("b"), Some(1));
        assert_eq!(names.get("a"), None);
    }
}
