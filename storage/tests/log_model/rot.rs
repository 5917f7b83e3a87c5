//! Sealed and synced bytes that the disk loses without telling, and what must be said of them: what was in those
//! frames is a gap, which is said once to whoever reads over it; everything else is there; a scrub finds it, `verify`
//! finds it, and a repair loses no more than readers had lost already.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    slice,
};

use strandline_storage::{
    end_mark::END_MARK_FILE_NAME,
    error::Corruption,
    frame::{FRAME_HEADER_BYTES, FrameHeader},
    index::IndexHeader,
    io::sim::{SimDisk, rng::SimRng},
    log::{Log, Now},
    offset::{Offset, Position},
    remains::Forgotten,
    repair::{self, Action},
    segment::{FIRST_FRAME_POSITION, SegmentFile, SegmentName},
    segment_set::SealedSegment,
    selection::Order,
    verify::verify,
};

use super::losses::{EARLIEST_FILE_NAME, names};
use super::simulation::{
    DIR, Process,
    model::{Model, Rotten},
    read_offsets, to_usize,
};

/// What the disk gives back of itself, in bytes.
const SECTOR_BYTES: u64 = 512;
/// What frames, and writes, begin on.
const BLOCK_BYTES: u64 = 4096;

/// When a log begins to read all of itself again, and longer than any step of that takes.
const SCRUB_MS: u64 = 2 * 3_600_000;

/// Where a frame lies in its file, and what it stands for.
struct FramePlace {
    position: u64,
    bytes: u64,
    offsets: Range<usize>,
    /// How much of it says something.
    used_bytes: u64,
}

impl FramePlace {
    fn end(&self) -> u64 {
        self.position + self.bytes
    }
}

/// Damages a frame of a sealed segment that is whole, if there is one; tells how.
pub fn rot(
    disk: &SimDisk,
    log: &Log<SimDisk>,
    rng: &mut SimRng,
    model: &mut Model,
) -> Option<String> {
    let sealed = log.segments().iter().filter(|segment| !model.is_rotten(segment.name()));
    let sealed: Vec<_> = sealed.collect();
    let segment = *sealed.get(rng.index(sealed.len().max(1)))?;
    let path = segment.log_path();
    // A poisoned log is not told any more that a job has removed or replaced one.
    let bytes = disk.bytes(&path)?;
    // What a killed process still writes of it would be right again.
    let may_land = (0..disk.late_writes()).any(|index| {
        let (written, position, _) = disk.late_write(index);
        let there = bytes.get(to_index(position.get())..);
        there.is_some_and(|there| there.starts_with(written.as_slice()))
    });
    if may_land {
        return None;
    }
    let frames = frames(segment, &bytes);
    let frame = frames.get(rng.index(frames.len().max(1)))?;
    let at = frame.position + rng.below(frame.used_bytes);
    let (what, touched) = match rng.below(4) {
        0 => {
            disk.flip_bit(&path, Position::new(at), 3);
            ("a bit flips", at..at + 1)
        }
        1 => {
            disk.garble_sector(&path, Position::new(at));
            ("a sector is garbled", at..at + 1)
        }
        2 => {
            let start = at / SECTOR_BYTES * SECTOR_BYTES;
            disk.make_unreadable(&path, start..start + SECTOR_BYTES);
            // Of what cannot be read only the index says where the next frame is.
            let places = segment.index().frames();
            let before = places.partition_point(|place| place.position.get() <= at);
            let begin = places.get(before - 1).expect("a frame is in a block").position.get();
            let end = places.get(before).map_or(u64::MAX, |place| place.position.get());
            ("a sector cannot be read any more", begin..end)
        }
        _ => {
            let other = rng.pick(&frames);
            let to = at / BLOCK_BYTES * BLOCK_BYTES;
            let end = frames.last()?.end();
            let len = other.bytes.min(end - to);
            if to == other.position {
                return None;
            }
            let from = to_index(other.position);
            disk.misdirect(&path, Position::new(to), &bytes[from..from + to_index(len)]);
            ("a write lands elsewhere", to..to + len)
        }
    };
    let touched =
        frames.iter().filter(|frame| frame.position < touched.end && touched.start < frame.end());
    let offsets =
        touched.map(|frame| frame.offsets.clone()).reduce(|all, next| all.start..next.end);
    let offsets = offsets.expect("a frame is touched");
    let told = format!("{what} in {}, at {at}, events {offsets:?}", path.display());
    model.rotten.push(Rotten { name: segment.name(), offsets });
    Some(told)
}

/// The frames of a segment that is whole.
fn frames(segment: &SealedSegment<SimDisk>, bytes: &[u8]) -> Vec<FramePlace> {
    let end = segment.index().header().end_position;
    let mut frames = Vec::new();
    let mut position = FIRST_FRAME_POSITION;
    while position < end {
        let header = FrameHeader::decode(&bytes[to_index(position.get())..], segment.seed());
        let header = header.expect("a frame follows the one before");
        let offsets = to_usize(header.base_offset)..to_usize(header.end_offset);
        let frame_bytes = header.frame_bytes() as u64;
        let body = &bytes[to_index(position.get()) + FRAME_HEADER_BYTES..];
        // What is behind the reason of a gap nobody looks at.
        let used_bytes = (FRAME_HEADER_BYTES + header.body_bytes as usize) as u64;
        let is_gap = body.starts_with(b"STRLNGAP");
        let used_bytes = if is_gap { used_bytes } else { frame_bytes };
        let position_now = position.get();
        frames.push(FramePlace { position: position_now, bytes: frame_bytes, offsets, used_bytes });
        position = position.plus(frame_bytes);
    }
    frames
}

fn to_index(position: u64) -> usize {
    usize::try_from(position).expect("a simulated file is short")
}

/// What readers have lost of all from an offset on.
pub struct Lost {
    start: usize,
    ranges: Vec<Range<Offset>>,
}

impl Process {
    /// What is lost of all that is there.
    pub fn lost(&self, model: &Model) -> Lost {
        let start = to_usize(self.log.start());
        let range = start..to_usize(self.log.visible());
        let (_, ranges) = read_offsets(&self.log, Vec::new(), range, Order::Ascending, model);
        Lost { start, ranges }
    }

    /// Time passes until all that is sealed has been read again: what is rotten is known then.
    pub fn check_scrub(&mut self, rng: &mut SimRng, model: &mut Model, now: &mut Now) {
        now.boot_ms += SCRUB_MS;
        now.wall_ms += SCRUB_MS;
        model.passes(*now);
        let passes = self.log.scrub_totals().passes;
        while self.log.scrub_totals().passes == passes && !self.log.segments().is_empty() {
            self.settle(rng, model, *now);
            let Some(deadline_ms) = self.log.deadline() else { break };
            let passed_ms = deadline_ms.saturating_sub(now.boot_ms);
            assert!(passed_ms < SCRUB_MS, "a scrub does not come to its end");
            now.boot_ms += passed_ms;
            now.wall_ms += passed_ms;
            model.passes(*now);
        }
        for segment in self.log.segments().iter() {
            let name = segment.name();
            let is_rotten = model.is_rotten(name) || model.rotten_index(name).is_some();
            assert_eq!(self.damaged.contains(&name), is_rotten, "damage of {name:?}");
        }
        model.look_at_files(&self.disk);
        // Without a segment to read none are read.
        let snapshots = model.rotten_files.iter().filter(|_| !self.log.segments().is_empty());
        for file in snapshots.filter(|file| file.snapshot_of().is_some()) {
            let is_told = self.damaged_snapshots.contains(&file.path);
            assert!(is_told, "nobody says that {} is damaged", file.path.display());
        }
    }
}

/// The log is stopped. What of it is rotten `verify` finds, and nothing else; a repair makes of it one that has none of
/// that, where no more is lost than readers had `lost` before, if the log could be read. Tells what it did.
pub fn check_repair(disk: &SimDisk, model: &mut Model, now: Now, lost: Option<&Lost>) -> String {
    model.look_at_files(disk);
    let found = findings(disk, DIR.as_ref());
    let (rotten, must_be_found) = rotten_files(disk, model);
    for damage in &found {
        assert!(rotten.contains(&damage.file), "nothing is wrong there: {damage}");
    }
    for path in &must_be_found {
        let is_found = found.iter().any(|damage| damage.file == *path);
        assert!(is_found, "{} is rotten, and only this is found: {found:?}", path.display());
    }
    if found.is_empty() {
        return "nothing is to be repaired".to_owned();
    }
    let plan = repair::plan(disk, Path::new(DIR)).expect("a disk that works");
    let mut may_be_lost = model.may_be_lost(names_of_segments(disk).into_iter());
    let unknown = model.taken_for_lost(disk);
    may_be_lost.extend(unknown.iter().cloned());
    let mut given_up = Vec::new();
    for step in &plan.steps {
        let (said, forgotten) = match &step.action {
            Action::Rewrite { lost, forgotten, .. } => (&lost[..], *forgotten),
            Action::Fill { lost, forgotten, .. } => (slice::from_ref(lost), *forgotten),
            Action::Reindex { forgotten } | Action::Restub { forgotten } => (&[][..], *forgotten),
            Action::Abandon | Action::Discard | Action::Unread | Action::SetAside => {
                (&[][..], Forgotten::default())
            }
        };
        let said: Vec<_> = said.iter().map(|lost| lost.from..lost.to).collect();
        model.check_lost(&said, &may_be_lost);
        given_up.extend(said.iter().map(|lost| to_usize(lost.start)..to_usize(lost.end)));
        model.check_forgotten(disk, &step.damage, &forgotten);
    }
    if model.is_mark_rotten(disk) {
        // It goes with all that it says.
        model.in_use.forget_starts();
    }
    let repaired = repair::repair(disk, Path::new(DIR), now).expect("a disk that works");
    let repaired = repaired.unwrap_or_else(|plan| panic!("{found:?} is not repaired: {plan:?}"));
    assert_eq!(repaired.new_tag, None, "the end of the log is whole");
    assert_eq!(repaired.left, [], "of {found:?}");
    assert_eq!(findings(disk, DIR.as_ref()), [], "what is repaired is sound");
    // What was gone is a gap now.
    let first = unknown.iter().map(|stub| stub.start).min();
    first.into_iter().for_each(|first| model.start_goes_back(first));
    model.rotten.clear();
    model.look_at_files(disk);
    if let Some(Lost { start, ranges }) = lost {
        let is_lost = |at: usize| {
            ranges.iter().any(|lost| (to_usize(lost.start)..to_usize(lost.end)).contains(&at))
        };
        let more = given_up.iter().cloned().flatten().find(|at| at >= start && !is_lost(*at));
        assert_eq!(more, None, "a repair loses what could be read: {:?}", repaired.plan.steps);
    }
    model.tally.repairs += 1;
    model.given_up.extend(given_up);
    format!("repaired: {:?}", repaired.plan.steps)
}

/// The files that are rotten; and those of them that the log is made of.
fn rotten_files(disk: &SimDisk, model: &Model) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let logs = model.rotten.iter().map(|rotten| rotten.name.file_name(SegmentFile::Log));
    let logs = logs.map(|name| Path::new(DIR).join(name));
    let mut rotten: Vec<PathBuf> = logs.filter(|path| disk.bytes(path).is_some()).collect();
    let begin = model.begin(disk);
    // What lies before all that is kept, or another generation stands for, the next start removes.
    let counts = |name: SegmentName| name.base_offset >= begin && !model.is_superseded(disk, name);
    // Where its index does not say how far a segment goes, nothing is looked for behind its events.
    let is_behind =
        |rotten: &Rotten| rotten.offsets.is_empty() && model.rotten_index(rotten.name).is_some();
    // A power cut may bring the frames of a stub back.
    let is_gone = |rotten: &Rotten| {
        let path = Path::new(DIR).join(rotten.name.file_name(SegmentFile::Index));
        let header = disk.bytes(&path).map(|bytes| IndexHeader::decode(&bytes));
        header.is_some_and(|header| header.is_ok_and(|header| header.is_stub()))
    };
    let mut must_be_found = Vec::new();
    for rotten in &model.rotten {
        let path = Path::new(DIR).join(rotten.name.file_name(SegmentFile::Log));
        let is_there = disk.bytes(&path).is_some() && !is_gone(rotten);
        if counts(rotten.name) && !is_behind(rotten) && is_there {
            must_be_found.push(path);
        }
    }
    for file in &model.rotten_files {
        let path = &file.path;
        if path.ends_with(EARLIEST_FILE_NAME) || path.ends_with(END_MARK_FILE_NAME) {
            continue;
        }
        rotten.push(path.clone());
        if file.index_of().is_none_or(counts) {
            must_be_found.push(path.clone());
        }
    }
    if model.is_mark_rotten(disk) {
        let path = Path::new(DIR).join(END_MARK_FILE_NAME);
        rotten.push(path.clone());
        must_be_found.push(path);
    }
    (rotten, must_be_found)
}

fn names_of_segments(disk: &SimDisk) -> Vec<SegmentName> {
    names(disk).iter().filter_map(|name| SegmentName::parse(name)).map(|(name, _)| name).collect()
}

/// What `verify` finds in a directory.
pub fn findings(disk: &SimDisk, dir: &Path) -> Vec<Corruption> {
    let mut found = Vec::new();
    verify(disk, dir, &mut |damage| found.push(damage.clone())).expect("not in use");
    found
}
