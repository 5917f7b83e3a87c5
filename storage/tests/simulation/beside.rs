//! Files beside the frames of which the disk has lost something without telling: what that is, and whether it is still there.

use std::{
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use strandline_storage::{
    end_mark::{END_MARK_FILE_NAME, Latest, steps::LatestSteps},
    io::{Access, Disk, DiskFile, sim::SimDisk},
    offset::Position,
    recovery::OpenReport,
    remains::Forgotten,
    segment::{SegmentFile, SegmentName},
};

use super::{DIR, model::Model};

/// Of `earliest` and of the end mark each half has a block of its own.
pub const SLOT_BYTES: usize = 4096;

/// A file of which the disk has lost something.
#[derive(Clone, Debug)]
pub struct RottenFile {
    pub path: PathBuf,
    /// Where.
    pub touched: Range<usize>,
    /// What is written at once: all of it, or a half.
    pub part: Range<usize>,
    /// What that was, and what it is since.
    pub before: Vec<u8>,
    pub after: Vec<u8>,
}

/// The disk as one has it who has no part in what goes on there, and whom nothing fails.
pub fn looked_at(disk: &SimDisk) -> SimDisk {
    let disk = disk.fork(0).kill();
    disk.disarm();
    disk.crash_after(None);
    disk
}

/// The bytes of a file; those that cannot be read, in blocks, are zeroes.
pub fn readable_bytes(disk: &SimDisk, path: &Path) -> io::Result<Vec<u8>> {
    let file = looked_at(disk).open(path, Access::Read)?;
    let mut bytes = vec![0; usize::try_from(file.size()?).expect("small")];
    for (block, bytes) in (0_u64..).zip(bytes.chunks_mut(SLOT_BYTES)) {
        let position = Position::new(block * SLOT_BYTES as u64);
        if file.read_exact_at(bytes, position).is_err() {
            bytes.fill(0);
        }
    }
    Ok(bytes)
}

impl RottenFile {
    /// The segment of which it is the index.
    pub fn index_of(&self) -> Option<SegmentName> {
        let (name, file) = SegmentName::parse(self.file_name())?;
        (file == SegmentFile::Index).then_some(name)
    }

    /// Whether it cannot be read there any more.
    pub fn is_unreadable(&self) -> bool {
        self.before == self.after
    }

    pub fn file_name(&self) -> &str {
        self.path.file_name().and_then(|name| name.to_str()).expect("a name of ours")
    }

    /// Whether it is still so: nobody has removed or replaced the file.
    fn is_there(&self, disk: &SimDisk) -> bool {
        let bytes = disk.bytes(&self.path).unwrap_or_default();
        let is_same = bytes.get(self.part.clone()) == Some(&self.after[..]);
        let is_whole = |disk: &SimDisk| {
            let position = Position::new(self.touched.start as u64);
            let file = looked_at(disk).open(&self.path, Access::Read).expect("it is there");
            file.read_exact_at(&mut [0], position).is_ok()
        };
        is_same && (!self.is_unreadable() || !is_whole(disk))
    }
}

impl Model {
    /// What a start says that it has mended, or that it can do without, is rotten. (Or a read has failed.)
    pub fn check_report(&mut self, report: &OpenReport, is_crashed: bool) {
        for damage in report.remade.iter().chain(&report.damaged) {
            let is_true = self.is_rotten_file(&damage.file) || self.may_misread || is_crashed;
            assert!(is_true, "nothing is wrong there, but: {damage}");
        }
        self.tally.remade += report.remade.len() as u64;
    }

    /// Tells those that are there from those that somebody has removed or replaced.
    pub fn look_at_files(&mut self, disk: &SimDisk) {
        let all = self.rotten_files.drain(..).chain(self.rotten_before.drain(..));
        (self.rotten_files, self.rotten_before) = all.partition(|file| file.is_there(disk));
    }

    /// A start has mended what it could. An index that it has made anew ends before rotten frames at the end that hold no
    /// event.
    pub fn note_mended(&mut self, disk: &SimDisk) {
        let names = |files: &[RottenFile]| {
            files.iter().filter_map(RottenFile::index_of).collect::<Vec<_>>()
        };
        let before = names(&self.rotten_files);
        self.look_at_files(disk);
        let after = names(&self.rotten_files);
        let is_anew = |name: &SegmentName| before.contains(name) && !after.contains(name);
        self.rotten.retain(|rotten| !rotten.offsets.is_empty() || !is_anew(&rotten.name));
    }

    pub fn rotten_index(&self, name: SegmentName) -> Option<&RottenFile> {
        self.rotten_files.iter().find(|file| file.index_of() == Some(name))
    }

    pub fn is_rotten_file(&self, path: &Path) -> bool {
        self.rotten_files.iter().any(|file| file.path == path)
    }

    /// Whether it was said of an event that something of it is forgotten.
    pub fn has_forgotten(&self, offset: usize, what: impl Fn(&Forgotten) -> bool) -> bool {
        let holds = |segment: &Range<usize>| segment.contains(&offset);
        self.forgotten.iter().any(|(segment, forgotten)| holds(segment) && what(forgotten))
    }

    /// The end mark says nothing any more.
    pub fn is_mark_rotten(&self, disk: &SimDisk) -> bool {
        let path = Path::new(DIR).join(END_MARK_FILE_NAME);
        let is_touched = self.rotten_files.iter().any(|file| file.path == path);
        let says = |bytes: Vec<u8>| Latest::decode(&bytes).is_ok();
        is_touched && !readable_bytes(disk, &path).is_ok_and(says)
    }

    /// What the file says of steps of the clock is lost.
    pub fn are_steps_rotten(&self, disk: &SimDisk) -> bool {
        let path = Path::new(DIR).join(END_MARK_FILE_NAME);
        let says = |bytes: Vec<u8>| {
            bytes.get(2 * SLOT_BYTES..).is_some_and(|steps| LatestSteps::decode(steps).is_ok())
        };
        self.is_rotten_file(&path) && !readable_bytes(disk, &path).is_ok_and(says)
    }
}
