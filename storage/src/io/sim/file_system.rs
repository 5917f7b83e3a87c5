//! A simulated disk as a file system: names and locks.

use std::{io, path::Path};

use super::{Fault, SimDisk, SimFile, content::Content, crash, split, state::HeldLock};
use crate::io::{Access, Disk, LockMode, Space};

/// A lock on a directory of a simulated disk.
pub struct SimLock {
    disk: SimDisk,
    id: u64,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.lock().locks.retain(|lock| lock.id != self.id);
    }
}

impl Disk for SimDisk {
    type File = SimFile;
    type Lock = SimLock;

    fn lock_dir(&self, dir: &Path, mode: LockMode) -> io::Result<SimLock> {
        let (mut state, crashes) = self.begin()?;
        state.names(dir)?;
        if crashes {
            return Err(crash());
        }
        if state.strikes(Fault::OpenFails) {
            return Err(io::Error::other("simulated error of an opening"));
        }
        let free_for = |held: &HeldLock| {
            held.dir != dir || (mode == LockMode::Shared && held.mode == LockMode::Shared)
        };
        if !state.locks.iter().all(free_for) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let id = state.new_id();
        state.locks.push(HeldLock { dir: dir.to_owned(), mode, id });
        Ok(SimLock { disk: self.clone(), id })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let (mut state, crashes) = self.begin()?;
        if crashes {
            return Err(crash());
        }
        if state.strikes(Fault::ListFails) {
            return Err(io::Error::other("simulated error of a directory"));
        }
        let before = state.listed_before.take_if(|(listed, _)| listed == dir);
        let now = state.names(dir)?.list();
        let mut names = before.map_or(now, |(_, names)| names);
        // A directory lists its names in no order.
        for index in (1..names.len()).rev() {
            let other = state.rng.index(index + 1);
            names.swap(index, other);
        }
        Ok(names)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let (mut state, crashes) = self.begin()?;
        let parent = dir.parent().ok_or(io::ErrorKind::InvalidInput)?;
        if !state.dirs.contains_key(parent) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if !state.dirs.contains_key(dir) && state.strikes(Fault::CreateFails) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if !crashes || state.rng.chance(50) {
            state.dirs.entry(dir.to_owned()).or_default();
            state.dirs_durable.insert(dir.to_owned(), !crashes);
        }
        if crashes { Err(crash()) } else { Ok(()) }
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        let (mut state, crashes) = self.begin()?;
        if !state.names(dir)?.list().is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        if state.strikes(Fault::RemoveFails) {
            return Err(io::Error::other("simulated error of a removal"));
        }
        if !crashes || state.rng.chance(50) {
            state.dirs.remove(dir);
            state.dirs_durable.remove(dir);
        }
        if crashes { Err(crash()) } else { Ok(()) }
    }

    fn create(&self, path: &Path, access: Access) -> io::Result<SimFile> {
        let (mut state, crashes) = self.begin()?;
        if state.direct_refused && matches!(access, Access::Direct | Access::DirectSync) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let (dir, name) = split(path)?;
        if state.names(&dir)?.get(&name).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if state.strikes(Fault::CreateFails) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let inode = state.new_id();
        if !crashes || state.rng.chance(50) {
            state.files.insert(inode, Content::default());
            state.names(&dir)?.link(&name, inode);
            state.note_named(path);
        }
        if crashes { Err(crash()) } else { Ok(self.file(inode, access)) }
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<SimFile> {
        let (mut state, crashes) = self.begin()?;
        if crashes {
            return Err(crash());
        }
        if state.direct_refused && matches!(access, Access::Direct | Access::DirectSync) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if state.strikes(Fault::OpenFails) {
            return Err(io::Error::other("simulated error of an opening"));
        }
        Ok(self.file(state.find(path)?, access))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (mut state, crashes) = self.begin()?;
        let inode = state.find(from)?;
        let ((from_dir, from_name), (to_dir, to_name)) = (split(from)?, split(to)?);
        state.names(&to_dir)?;
        if state.strikes(Fault::RenameFails) {
            return Err(io::Error::other("simulated error of a renaming"));
        }
        if state.strikes(Fault::RenameFindsNoSpace) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if !crashes || state.rng.chance(50) {
            if from_dir == to_dir {
                state.names(&to_dir)?.rename(&from_name, &to_name, inode);
            } else {
                state.names(&to_dir)?.link(&to_name, inode);
                state.names(&from_dir)?.unlink(&from_name);
            }
            state.note_named(to);
        }
        if crashes { Err(crash()) } else { Ok(()) }
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (mut state, crashes) = self.begin()?;
        let inode = state.find(from)?;
        let is_apart = |path: &Path| state.apart.as_ref().is_some_and(|dir| path.starts_with(dir));
        if is_apart(from) != is_apart(to) {
            return Err(io::ErrorKind::CrossesDevices.into());
        }
        let (dir, name) = split(to)?;
        if state.names(&dir)?.get(&name).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if state.strikes(Fault::LinkFails) {
            return Err(io::Error::other("simulated error of a link"));
        }
        if !crashes || state.rng.chance(50) {
            state.names(&dir)?.link(&name, inode);
        }
        if crashes { Err(crash()) } else { Ok(()) }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let (mut state, crashes) = self.begin()?;
        state.find(path)?;
        if state.strikes(Fault::RemoveFails) {
            return Err(io::Error::other("simulated removal error"));
        }
        let (dir, name) = split(path)?;
        if !crashes || state.rng.chance(50) {
            state.names(&dir)?.unlink(&name);
        }
        if crashes { Err(crash()) } else { Ok(()) }
    }

    fn space(&self, _: &Path) -> io::Result<Space> {
        let mut state = self.lock();
        if state.strikes(Fault::SpaceFails) {
            return Err(io::Error::other("simulated error of a disk's space"));
        }
        // A large disk on which others have left little.
        let total_bytes = 1 << 40;
        let free_bytes = match state.space_bytes_max {
            Some(bytes_max) => bytes_max.saturating_sub(state.space_bytes()) as u64,
            None => total_bytes,
        };
        Ok(Space { total_bytes, free_bytes })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let (mut state, crashes) = self.begin()?;
        if state.strikes(Fault::SyncDirFails) {
            return Err(io::Error::other("simulated sync error"));
        }
        if !crashes || state.rng.chance(50) {
            state.names(dir)?.sync();
        }
        if crashes { Err(crash()) } else { Ok(()) }
    }
}
