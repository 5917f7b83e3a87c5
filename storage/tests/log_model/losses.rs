//! What nobody knows without a rotten file, and what may become of a log for that.

use std::{ops::Range, path::Path};

use strandline_storage::{
    error::Corruption,
    index::{INDEX_HEADER_BYTES, IndexHeader, SectionKind},
    io::{Access, Disk, DiskFile, sim::SimDisk},
    offset::{Offset, Position},
    remains::Forgotten,
    segment::{SegmentFile, SegmentName},
    snapshot::{self, SNAPSHOT_HEADER_BYTES, Snapshot, SnapshotHeader},
};

use crate::simulation::{
    DIR,
    beside::{RottenFile, SLOT_BYTES, looked_at, readable_bytes},
    model::Model,
    to_usize,
};

/// How far limits have reached, which is said twice.
pub const EARLIEST_FILE_NAME: &str = "earliest";
/// What of an index no frame says, of events that are gone.
const OF_GONE: [SectionKind; 4] =
    [SectionKind::IDS, SectionKind::PRODUCERS, SectionKind::CONTROLS, SectionKind::GONE];

/// The names in the log's directory.
pub fn names(disk: &SimDisk) -> Vec<String> {
    looked_at(disk).list(DIR.as_ref()).expect("the log's directory")
}

impl RottenFile {
    /// The offset of which it is the snapshot.
    pub fn snapshot_of(&self) -> Option<Offset> {
        snapshot::offset_of(self.file_name())
    }

    /// Whether it is the index of a segment all of whose events are gone.
    pub fn is_stub(&self) -> bool {
        IndexHeader::decode(&self.before).is_ok_and(|header| header.is_stub())
    }

    /// Of an index, where its segment ends.
    pub fn end(&self) -> Offset {
        IndexHeader::decode(&self.before).expect("it was sound").end_offset
    }

    pub fn touches_header(&self) -> bool {
        self.index_of().is_some() && self.lost().start < INDEX_HEADER_BYTES
    }

    /// What of it says nothing any more: where it cannot be read, that goes by blocks.
    fn lost(&self) -> Range<usize> {
        let Range { start, end } = self.touched;
        match self.is_unreadable() {
            true => start / SLOT_BYTES * SLOT_BYTES..end.next_multiple_of(SLOT_BYTES),
            false => start..end,
        }
    }

    /// Whether something of a part of the index is lost.
    fn loses(&self, kind: SectionKind) -> bool {
        let section = IndexHeader::decode(&self.before).expect("it was sound").section(kind);
        let at = |position: Position| usize::try_from(position.get()).expect("small");
        section.bytes > 0
            && at(section.position) < self.lost().end
            && self.lost().start < at(section.end())
    }

    /// Whether what is lost of the index is said by no frame where events of the segment are gone.
    fn lacks_what_no_frame_says(&self, name: SegmentName) -> bool {
        let may_lack = name.generation > 1 || self.is_stub();
        may_lack && (self.touches_header() || OF_GONE.iter().any(|kind| self.loses(*kind)))
    }
}

impl Model {
    /// The snapshots that are sound.
    pub fn sound_snapshots(&self, disk: &SimDisk) -> Vec<SnapshotHeader> {
        let names = names(disk);
        let names = names.iter().filter(|name| snapshot::offset_of(name).is_some());
        let paths = names.map(|name| Path::new(DIR).join(name));
        let sound = paths.filter(|path| !self.is_rotten_file(path));
        let headers = sound.map(|path| {
            let bytes = disk.bytes(&path).expect("it is listed");
            SnapshotHeader::decode(&bytes).expect("it is sound")
        });
        headers.collect()
    }

    /// Files of segments before it count for nothing, as the newest snapshot that is sound says, and the headers of those
    /// before it, be the rest of them rotten.
    pub fn begin(&self, disk: &SimDisk) -> Offset {
        let Some(newest) =
            self.sound_snapshots(disk).into_iter().max_by_key(|header| header.offset)
        else {
            return Offset::ZERO;
        };
        let names = names(disk);
        let headers = names.iter().filter(|name| snapshot::offset_of(name).is_some()).map(|name| {
            let mut bytes = vec![0; SNAPSHOT_HEADER_BYTES];
            let file = looked_at(disk).open(&Path::new(DIR).join(name), Access::Read).ok()?;
            file.read_exact_at(&mut bytes, Position::default()).ok()?;
            SnapshotHeader::decode(&bytes).ok()
        });
        let older = headers.flatten().filter(|header| header.offset < newest.offset);
        older.fold(newest.kept_from, |begin, header| begin.max(header.kept_from))
    }

    /// Of rotten stubs that nobody knows any more to be some, the events seem to be lost: the newest snapshot was made
    /// before they went, or does not lie behind them.
    pub fn taken_for_lost(&self, disk: &SimDisk) -> Vec<Range<usize>> {
        let newest = self.sound_snapshots(disk).into_iter().max_by_key(|header| header.offset);
        let newest = newest.map(|header| {
            let path = Path::new(DIR).join(snapshot::file_name(header.offset));
            Snapshot::decode(&disk.bytes(&path).expect("it is there")).expect("it is sound")
        });
        let is_known = |file: &RottenFile| {
            newest.as_ref().is_some_and(|newest| {
                let base = file.index_of().expect("it is an index").base_offset;
                let held = newest.segments().iter().any(|segment| segment.base == base);
                newest.offset() >= file.end() && !held
            })
        };
        let stubs = self.rotten_files.iter().filter(|file| file.is_stub() && file.touches_header());
        let unknown = stubs.filter(|file| !is_known(file));
        let range = |file: &RottenFile| {
            let name = file.index_of().expect("it is an index");
            to_usize(name.base_offset)..to_usize(file.end())
        };
        unknown.map(range).collect()
    }

    /// Whether another generation stands for it, and the next start removes it.
    pub fn is_superseded(&self, disk: &SimDisk, name: SegmentName) -> bool {
        let names = names(disk);
        let parsed = || names.iter().filter_map(|name| SegmentName::parse(name));
        let has = |name: SegmentName, file| parsed().any(|known| known == (name, file));
        let mut newer = parsed().map(|(name, _)| name).filter(|other| {
            other.base_offset == name.base_offset && other.generation > name.generation
        });
        newer.any(|name| has(name, SegmentFile::Index))
    }

    fn is_snapshot_behind(&self, disk: &SimDisk, file: &RottenFile) -> bool {
        self.sound_snapshots(disk).iter().any(|header| header.offset >= file.end())
    }

    /// Whether a repair has named events of a segment lost.
    fn has_gaps(&self, name: SegmentName, index: &RottenFile) -> bool {
        let segment = to_usize(name.base_offset)..to_usize(index.end());
        self.given_up.iter().any(|lost| lost.start < segment.end && segment.start < lost.end)
    }

    /// Whether a rotten file, and nothing else that is there, knows what the events had added to the state of the log that
    /// are gone from its segment.
    pub fn only_that_knows(&self, disk: &SimDisk, file: &RottenFile) -> bool {
        let Some(name) = file.index_of() else { return false };
        let behind = self.is_snapshot_behind(disk, file);
        let has_gaps = self.has_gaps(name, file);
        // What a snapshot does not know of lost settings is where they stood; and of a stub without a header it does not know
        // that it is one.
        file.lacks_what_no_frame_says(name)
            && (!behind || has_gaps || (file.is_stub() && file.touches_header()))
    }

    /// A repair says, of a damaged file, what nobody knows any more: is that so?
    pub fn check_forgotten(&mut self, disk: &SimDisk, damage: &Corruption, forgotten: &Forgotten) {
        if forgotten.is_nothing() {
            return;
        }
        let name = damage.file.file_name().and_then(|name| SegmentName::parse(name.to_str()?));
        let name = name.unwrap_or_else(|| panic!("{forgotten} are forgotten by {damage}")).0;
        let index = self.rotten_index(name);
        let index = index.unwrap_or_else(|| panic!("its index is sound: {damage}, {forgotten}"));
        // Settings that a stub had said stand nowhere else; what came of them a snapshot knows.
        let is_setting = *forgotten == Forgotten { settings: true, ..Forgotten::default() };
        // Beside gaps a repair does not go by what the index says of topics that have no events any more alone.
        let is_topics = *forgotten == Forgotten { last_offsets: true, ..Forgotten::default() };
        let loses_topics = self.has_gaps(name, index) && index.loses(SectionKind::TOPICS);
        let is_true = self.is_rotten(name)
            || self.only_that_knows(disk, index)
            || (is_setting && index.is_stub())
            || (is_topics && loses_topics);
        assert!(is_true, "{forgotten} are not forgotten: {damage}");
        let segment = to_usize(name.base_offset)..to_usize(index.end());
        self.tally.forgotten_by_repairs += 1;
        self.forgotten.push((segment, *forgotten));
    }

    /// Where `earliest` is damaged, a start knows what limits had let go only as far as the rest of it says so, and by
    /// what is not there any more; between the two it may lead readers over what is gone.
    pub fn forget_start(&mut self, disk: &SimDisk) {
        let path = Path::new(DIR).join(EARLIEST_FILE_NAME);
        if !self.rotten_files.iter().any(|file| file.path == path) {
            return;
        }
        let said = said_of_start(&readable_bytes(disk, &path).unwrap_or_default());
        let parsed = |name: &String| SegmentName::parse(name);
        let logs = names(disk).iter().filter_map(parsed).collect::<Vec<_>>();
        let logs = logs.into_iter().filter(|(_, file)| *file == SegmentFile::Log);
        let first = logs.map(|(name, _)| to_usize(name.base_offset)).min();
        let known = said.unwrap_or(0).max(first.unwrap_or(0)).min(self.start);
        self.start_goes_back(known);
    }

    /// What `earliest` says before it rots is known to nobody else perhaps: the model holds it for gone once all is synced
    /// by which that is so, and files may have gone by then.
    pub fn note_let_go(&mut self, earliest: &[u8]) {
        let said = said_of_start(earliest).unwrap_or(0);
        self.events.iter_mut().take(said).skip(self.start).for_each(|kept| kept.may_be_gone = true);
    }

    /// Nobody knows any more that limits had reached further: what they let go may be there or not.
    pub fn start_goes_back(&mut self, to: usize) {
        for kept in self.events.iter_mut().take(self.start).skip(to) {
            kept.may_be_gone = true;
        }
        self.start = self.start.min(to);
    }

    /// Whether there were settings or deletions among what is forgotten: what is gone since, and what is there, nobody can
    /// tell.
    pub fn has_lost_settings(&self) -> bool {
        let is_control =
            |at: usize| self.events.get(at).is_some_and(|kept| !kept.event.kind.is_data());
        let mut forgotten = self.forgotten.iter().filter(|(_, forgotten)| forgotten.settings);
        forgotten.any(|(segment, _)| segment.clone().any(is_control))
    }
}

/// What `earliest` says that nothing is kept before, as far as it is sound.
fn said_of_start(bytes: &[u8]) -> Option<usize> {
    bytes.chunks_exact(SLOT_BYTES).filter_map(kept_from).max()
}

/// What a half of it says.
fn kept_from(slot: &[u8]) -> Option<usize> {
    let number = |at: usize| u64::from_le_bytes(slot[at..at + 8].try_into().expect("8 bytes"));
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&slot[..12]);
    hasher.update(&slot[16..]);
    let is_sound = slot.starts_with(b"STRLNEAR") && slot[12..16] == hasher.finalize().to_le_bytes();
    is_sound.then(|| to_usize(Offset::new(number(16))))
}
