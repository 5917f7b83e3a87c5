//! Sealed and synced bytes that the disk loses without telling, and what must be said of them: what was in those
//! frames is a gap, which is said once to whoever reads over it; everything else is there; a scrub finds it, `verify`
//! finds it, and a repair loses no more than readers had lost already.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use strandline_storage::{
    error::Corruption,
    frame::FrameHeader,
    io::sim::{SimDisk, rng::SimRng},
    log::{Log, Now},
    offset::{Offset, Position},
    repair,
    segment::{FIRST_FRAME_POSITION, SegmentFile},
    segment_set::SealedSegment,
    selection::Order,
    verify::verify,
};

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
    let at = frame.position + rng.below(frame.bytes);
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
        let bytes = header.frame_bytes() as u64;
        frames.push(FramePlace { position: position.get(), bytes, offsets });
        position = position.plus(bytes);
    }
    frames
}

fn to_index(position: u64) -> usize {
    usize::try_from(position).expect("a simulated file is short")
}

impl Process {
    /// What is lost of all that is there.
    pub fn lost(&self, model: &Model) -> Vec<Range<Offset>> {
        let range = to_usize(self.log.start())..to_usize(self.log.visible());
        read_offsets(&self.log, Vec::new(), range, Order::Ascending, model).1
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
            assert_eq!(self.damaged.contains(&name), model.is_rotten(name), "damage of {name:?}");
        }
    }
}

/// The log is closed. What of it is rotten `verify` finds, and nothing else; a repair makes of it one that has none of
/// that, where no more is lost than readers had `lost` before.
pub fn check_repair(disk: &SimDisk, model: &mut Model, now: Now, lost: &[Range<Offset>]) {
    let found = findings(disk, DIR.as_ref());
    let paths = model
        .rotten
        .iter()
        .map(|rotten| Path::new(DIR).join(rotten.name.file_name(SegmentFile::Log)));
    let rotten: Vec<PathBuf> = paths.filter(|path| disk.bytes(path).is_some()).collect();
    for damage in &found {
        assert!(rotten.contains(&damage.file), "nothing is wrong there: {damage}");
    }
    for path in &rotten {
        let is_found = found.iter().any(|damage| damage.file == *path);
        assert!(is_found, "{} is rotten, and only this is found: {found:?}", path.display());
    }
    if found.is_empty() {
        return;
    }
    let repaired = repair::repair(disk, Path::new(DIR), now).expect("a disk that works");
    let repaired = repaired.unwrap_or_else(|plan| panic!("{found:?} is not repaired: {plan:?}"));
    assert_eq!(repaired.new_tag, None, "the end of the log is whole");
    assert_eq!(findings(disk, DIR.as_ref()), [], "what is repaired is sound");
    model.rotten.clear();
    model.given_up = lost.iter().map(|lost| to_usize(lost.start)..to_usize(lost.end)).collect();
}

/// What `verify` finds in a directory.
pub fn findings(disk: &SimDisk, dir: &Path) -> Vec<Corruption> {
    let mut found = Vec::new();
    verify(disk, dir, &mut |damage| found.push(damage.clone())).expect("not in use");
    found
}
