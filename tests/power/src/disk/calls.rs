//! What the system calls of a server come to: each is one operation, under the disk's lock.

use fuser::Errno;
use strandline_storage::io::sim::{
    Fault,
    content::{BLOCK_BYTES, Content, SECTOR_BYTES},
    names::{Inode, Names},
};

use super::{Kind, Locked, PowerDisk, state::State};

/// How large a disk is whose space is not limited.
const DISK_BYTES: usize = 16 << 30;

const _: () = assert!(BLOCK_BYTES.is_multiple_of(SECTOR_BYTES));

impl PowerDisk {
    /// What a file handle of today carries.
    pub fn open(&self, inode: Inode) -> Result<u64, Errno> {
        let (mut state, crashes) = self.begin()?;
        state.end(crashes)?;
        state.fail_if(Fault::OpenFails)?;
        if state.files.contains_key(&inode) { Ok(state.epoch) } else { Err(Errno::ENOENT) }
    }

    /// The inode of that name.
    pub fn lookup(&self, dir: Inode, name: &str) -> Result<(Inode, Kind), Errno> {
        let (mut state, _) = self.begin_quietly()?;
        state.fail_if(Fault::StatFails)?;
        let inode = state.dir(dir)?.get(name).ok_or(Errno::ENOENT)?;
        Ok((inode, state.kind(inode)?))
    }

    /// What an inode is.
    pub fn kind(&self, inode: Inode) -> Result<Kind, Errno> {
        let (mut state, _) = self.begin_quietly()?;
        state.fail_if(Fault::StatFails)?;
        state.kind(inode)
    }

    /// Space: all that there is, and what is free, in bytes.
    pub fn space(&self) -> Result<(usize, usize), Errno> {
        let (mut state, _) = self.begin_quietly()?;
        state.fail_if(Fault::SpaceFails)?;
        let total = state.space_bytes_max.unwrap_or(DISK_BYTES);
        Ok((total, total.saturating_sub(state.space_bytes())))
    }

    /// Opens a directory, to list, lock or sync it.
    pub fn open_dir(&self) -> Result<(), Errno> {
        let (mut state, crashes) = self.begin()?;
        state.end(crashes)?;
        state.fail_if(Fault::OpenFails)
    }

    /// Goes on with a list that somebody has begun to read.
    pub fn list_on(&self) -> Result<(), Errno> {
        let (mut state, crashes) = self.begin()?;
        state.end(crashes)?;
        state.fail_if(Fault::ListFails)
    }

    /// The names in a directory.
    pub fn list(&self, dir: Inode) -> Result<Vec<(String, Inode, Kind)>, Errno> {
        let (mut state, crashes) = self.begin()?;
        state.end(crashes)?;
        state.fail_if(Fault::ListFails)?;
        let names = state.dir(dir)?;
        let mut listed = Vec::new();
        for name in names.list() {
            let inode = names.get(&name).ok_or(Errno::EIO)?;
            listed.push((name, inode, state.kind(inode)?));
        }
        Ok(listed)
    }

    /// Makes a file or a directory.
    pub fn create(&self, dir: Inode, name: &str, is_dir: bool) -> Result<(Inode, u64), Errno> {
        let (mut state, crashes) = self.begin()?;
        if state.dir(dir)?.get(name).is_some() {
            return Err(Errno::EEXIST);
        }
        if state.strikes(Fault::CreateFails) {
            return Err(Errno::ENOSPC);
        }
        let inode = state.next_inode;
        state.next_inode += 1;
        if is_dir {
            state.dirs.insert(inode, Names::default());
        } else {
            state.files.insert(inode, Content::default());
        }
        state.dir_mut(dir)?.link(name, inode);
        state.end(crashes)?;
        Ok((inode, state.epoch))
    }

    /// Gives a file another name.
    pub fn link(&self, inode: Inode, dir: Inode, name: &str) -> Result<Kind, Errno> {
        let (mut state, crashes) = self.begin()?;
        if state.dir(dir)?.get(name).is_some() {
            return Err(Errno::EEXIST);
        }
        state.fail_if(Fault::LinkFails)?;
        state.dir_mut(dir)?.link(name, inode);
        state.end(crashes)?;
        state.kind(inode)
    }

    /// Takes a name away.
    pub fn remove(&self, dir: Inode, name: &str, is_dir: bool) -> Result<(), Errno> {
        let (mut state, crashes) = self.begin()?;
        let inode = state.dir(dir)?.get(name).ok_or(Errno::ENOENT)?;
        if is_dir && !state.dir(inode)?.list().is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        state.fail_if(Fault::RemoveFails)?;
        state.dir_mut(dir)?.unlink(name);
        state.end(crashes)
    }

    /// Renames, replacing what has the new name.
    pub fn rename(&self, from: (Inode, &str), to: (Inode, &str)) -> Result<(), Errno> {
        let (mut state, crashes) = self.begin()?;
        let inode = state.dir(from.0)?.get(from.1).ok_or(Errno::ENOENT)?;
        state.fail_if(Fault::RenameFails)?;
        if state.strikes(Fault::RenameFindsNoSpace) {
            return Err(Errno::ENOSPC);
        }
        if from.0 == to.0 {
            state.dir_mut(from.0)?.rename(from.1, to.1, inode);
        } else {
            state.dir_mut(to.0)?.link(to.1, inode);
            state.dir_mut(from.0)?.unlink(from.1);
        }
        state.end(crashes)
    }

    /// Gives each of two names in a directory what the other has.
    pub fn exchange(&self, dir: Inode, names: [&str; 2]) -> Result<(), Errno> {
        let (mut state, crashes) = self.begin()?;
        let all = state.dir(dir)?;
        if names.iter().any(|name| all.get(name).is_none()) {
            return Err(Errno::ENOENT);
        }
        state.fail_if(Fault::RenameFails)?;
        state.dir_mut(dir)?.exchange(names);
        state.end(crashes)
    }

    /// Reads; `is_direct` looks past the page cache.
    pub fn read(
        &self,
        (inode, handle): (Inode, u64),
        position: u64,
        into: &mut [u8],
        is_direct: bool,
    ) -> Result<usize, Errno> {
        let (mut state, crashes) = self.begin()?;
        state.end(crashes)?;
        if state.epoch != handle || state.strikes(Fault::ReadFails) {
            return Err(Errno::EIO);
        }
        let position = usize::try_from(position).map_err(|_| Errno::EFBIG)?;
        state.file(inode)?.read(position, into, is_direct).ok_or(Errno::EIO)
    }

    /// Writes; durable when it returns if `is_synced`.
    pub fn write(
        &self,
        (inode, handle): (Inode, u64),
        position: u64,
        bytes: &[u8],
        is_synced: bool,
    ) -> Result<usize, Errno> {
        let (mut state, crashes) = self.begin()?;
        if state.epoch != handle {
            return Err(Errno::EIO);
        }
        let position = usize::try_from(position).map_err(|_| Errno::EFBIG)?;
        let State { files, rng, .. } = &mut *state;
        let content = files.get_mut(&inode).ok_or(Errno::ENOENT)?;
        if crashes {
            content.write_some_sectors(position, bytes, rng);
            state.end(true)?;
        }
        let content = state.file(inode)?;
        let needed = content.space_needed(position, bytes.len());
        if state.strikes(Fault::WriteFindsNoSpace) || state.lacks(needed) {
            return Err(Errno::ENOSPC);
        }
        if state.strikes(Fault::WriteFails) {
            let State { files, rng, .. } = &mut *state;
            let content = files.get_mut(&inode).ok_or(Errno::ENOENT)?;
            content.write_some_sectors(position, bytes, rng);
            return Err(Errno::EIO);
        }
        let mut taken = bytes.len();
        // Not for what a ring writes: the kernel then goes on by itself, and where a file system in
        // user space wrote short, at the wrong position (seen with Linux 6.18: `ki_pos` stands still).
        if !is_synced && taken > SECTOR_BYTES && state.strikes(Fault::WriteIsShort) {
            taken = SECTOR_BYTES * (1 + state.rng.index(taken.div_ceil(SECTOR_BYTES) - 1));
        }
        let content = state.file(inode)?;
        let is_into_blocks = is_synced && content.is_unwritten(position, taken);
        content.write(position, &bytes[..taken], is_synced);
        state.writes_into_blocks += u64::from(is_into_blocks);
        Ok(taken)
    }

    /// Gives a file blocks, and the length to their end if it was shorter; they read as zeroes.
    pub fn allocate(
        &self,
        (inode, handle): (Inode, u64),
        position: u64,
        bytes: u64,
    ) -> Result<(), Errno> {
        let (mut state, crashes) = self.begin()?;
        if state.epoch != handle {
            return Err(Errno::EIO);
        }
        let position = usize::try_from(position).map_err(|_| Errno::EFBIG)?;
        let bytes = usize::try_from(bytes).map_err(|_| Errno::EFBIG)?;
        let needed = state.file(inode)?.space_needed(position, bytes);
        let end = position.saturating_add(bytes);
        if state.strikes(Fault::AllocateFindsNoSpace) || state.lacks(needed) {
            let free_bytes = state.free_bytes().unwrap_or(usize::MAX);
            let State { files, rng, .. } = &mut *state;
            let content = files.get_mut(&inode).ok_or(Errno::ENOENT)?;
            content.allocate_some(position, end, free_bytes, rng);
            return Err(Errno::ENOSPC);
        }
        if !crashes || state.rng.chance(50) {
            state.file(inode)?.allocate(position, end);
        }
        state.end(crashes)
    }

    /// Sets the length of a file.
    pub fn resize(&self, inode: Inode, size_bytes: u64) -> Result<(), Errno> {
        let (mut state, crashes) = self.begin()?;
        let size = usize::try_from(size_bytes).map_err(|_| Errno::EFBIG)?;
        state.fail_if(Fault::SetSizeFails)?;
        state.file(inode)?.resize(size);
        state.end(crashes)
    }

    /// `fsync` and `fdatasync` of a file.
    pub fn sync(&self, (inode, handle): (Inode, u64)) -> Result<(), Errno> {
        let (mut state, crashes) = self.begin()?;
        if state.epoch != handle {
            return Err(Errno::EIO);
        }
        if state.strikes(Fault::SyncFails) {
            let State { files, rng, .. } = &mut *state;
            let content = files.get_mut(&inode).ok_or(Errno::ENOENT)?;
            let mark = content.sync_mark();
            content.fail_sync_to(mark, rng);
            return Err(Errno::EIO);
        }
        if !crashes || state.rng.chance(50) {
            let content = state.file(inode)?;
            content.sync_to(content.sync_mark());
        }
        state.end(crashes)
    }

    /// `fsync` of a directory.
    pub fn sync_dir(&self, dir: Inode) -> Result<(), Errno> {
        let (mut state, crashes) = self.begin()?;
        state.fail_if(Fault::SyncDirFails)?;
        if !crashes || state.rng.chance(50) {
            state.dir_mut(dir)?.sync();
        }
        state.end(crashes)
    }

    /// Begins an operation; the flag says that the power goes in the middle of it.
    fn begin(&self) -> Result<(Locked<'_>, bool), Errno> {
        let (mut state, _) = self.begin_quietly()?;
        state.operations += 1;
        // An operation that fails for another reason is not cut in the middle: the next one is.
        let crashes = state.cut_at.is_some_and(|at| at <= state.operations);
        Ok((state, crashes))
    }

    /// Begins what changes nothing and that the kernel does as often as it likes.
    fn begin_quietly(&self) -> Result<(Locked<'_>, bool), Errno> {
        let state = self.lock();
        if state.is_cut { Err(Errno::EIO) } else { Ok((state, false)) }
    }
}
