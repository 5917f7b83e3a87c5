//! What a disk does without telling: bits that rot, sectors that are garbled or cannot be read any more,
//! and writes that land where they were not meant to. A log with damage opens with all its events, or
//! names the range that it lost, or is not opened and not changed. It never gives other bytes, and
//! nothing is missing in silence.

use std::{ops::Range, path::Path};

use strandline_storage::{
    error::OpenError,
    io::{
        Access, Disk, DiskFile,
        sim::{Fault, SimDisk, rng::SimRng},
    },
    log::Log,
    offset::{Offset, Position},
    segment::SegmentName,
    selection::Order,
};

use crate::{
    config, files,
    simulation::{BEGIN, DIR, Process, from_environment, model::Model, read_offsets, to_usize},
};

/// How many logs are damaged in each way without being told.
const RUNS: u64 = 120;

/// How damaged logs fared.
#[derive(Debug, Default)]
struct Tally {
    refused: u64,
    gaps: u64,
    harmless: u64,
}

impl Tally {
    /// The damage of a test is such that some logs show it and some do not.
    fn check(&self) {
        let is_one = from_environment("STRANDLINE_SEED").is_some();
        assert!(self.refused > 5 && self.gaps + self.harmless > 5 || is_one, "{self:?}");
    }
}

/// Makes a log, lets `damage` befall it (before it is filled, and after it ended), and looks at it.
fn each_log(
    before: impl Fn(&SimDisk, &mut SimRng),
    after: impl Fn(&SimDisk, &mut SimRng, &Path, u64),
) -> Tally {
    let mut tally = Tally::default();
    let seeds = match from_environment("STRANDLINE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..from_environment("STRANDLINE_RUNS").unwrap_or(RUNS),
    };
    for seed in seeds {
        let mut rng = SimRng::new(seed);
        // What this disk does the model is not told.
        let mut model = Model { may_misread: true, ..Model::default() };
        let disk = SimDisk::new(seed);
        disk.create_dir(DIR.as_ref()).expect("an empty disk");
        before(&disk, &mut rng);
        let opened = Process::open(&disk, config(), BEGIN, &mut model);
        let mut process = opened.expect("an empty log");
        for _ in 0..rng.between(8, 24) {
            process.append(&mut rng, &mut model, BEGIN);
            process.settle(&mut rng, &mut model, BEGIN);
        }
        // Idle or closed: without either the very last frames are stated by no header to be synced, nor by the end mark.
        if rng.chance(50) {
            assert!(process.close(&mut rng, &mut model, BEGIN));
        } else {
            let mut now = BEGIN;
            now.boot_ms += 15_000;
            process.settle(&mut rng, &mut model, now);
        }
        let disk = disk.kill();
        let files = files(&disk);
        let (name, bytes) = rng.pick(&files);
        after(&disk, &mut rng, &Path::new(DIR).join(name), bytes.len() as u64);
        look(&disk, &model, seed, &mut tally);
    }
    tally
}

/// Opens a log that may be damaged: all is there, or named.
fn look(disk: &SimDisk, model: &Model, seed: u64, tally: &mut Tally) {
    let before = files(disk);
    let all = 0..model.events.len();
    match Log::open(disk.clone(), Path::new(DIR), config(), BEGIN) {
        Ok((log, _)) => {
            assert_eq!(to_usize(log.visible()), all.end, "cut in silence, seed {seed}");
            let mut lost = Vec::new();
            for order in [Order::Ascending, Order::Descending] {
                let (mut found, gaps) = read_offsets(&log, Vec::new(), all.clone(), order, model);
                found.sort_unstable();
                let is_lost = |offset: &u64| {
                    gaps.iter().any(|gap: &Range<Offset>| gap.contains(&Offset::new(*offset)))
                };
                let expected: Vec<u64> =
                    (0..all.end as u64).filter(|offset| !is_lost(offset)).collect();
                assert_eq!(found, expected, "what is not lost is there, seed {seed}");
                lost.extend(gaps);
            }
            if lost.is_empty() { tally.harmless += 1 } else { tally.gaps += 1 }
        }
        Err(error) => {
            let after = files(disk);
            let is_segment = |name: &str| SegmentName::parse(name).is_some();
            let mut segments = before.iter().filter(|(name, _)| is_segment(name));
            let changed = segments.find(|file| !after.contains(file)).map(|(name, _)| name);
            assert_eq!(
                changed, None,
                "a log that is not opened is not changed: {error}, seed {seed}"
            );
            tally.refused += 1;
            assert!(
                matches!(error, OpenError::Corrupt(_) | OpenError::Io { .. })
                    || matches!(
                        error,
                        OpenError::NewerVersion { .. } | OpenError::MissingSegment { .. }
                    ),
                "{error}, seed {seed}"
            );
        }
    }
}

#[test]
fn a_write_that_landed_elsewhere_is_found() {
    let tally =
        each_log(|disk, rng| disk.arm(Fault::WriteIsMisdirected, rng.below(20)), |_, _, _, _| {});
    tally.check();
}

#[test]
fn a_flipped_bit_is_found_or_harmless() {
    let tally = each_log(
        |_, _| {},
        |disk, rng, path, bytes| disk.flip_bit(path, Position::new(rng.below(bytes)), 3),
    );
    tally.check();
}

#[test]
fn a_garbled_sector_is_found_or_harmless() {
    let tally = each_log(
        |_, _| {},
        |disk, rng, path, bytes| disk.garble_sector(path, Position::new(rng.below(bytes))),
    );
    tally.check();
}

#[test]
fn sectors_that_cannot_be_read_are_found_or_harmless() {
    let tally = each_log(
        |_, _| {},
        |disk, rng, path, bytes| {
            let start = rng.below(bytes);
            disk.make_unreadable(path, start..start + 512);
        },
    );
    tally.check();
}

/// The last segments are gone, or the last ends where a frame does: what is left is sound in itself.
#[test]
fn an_end_that_is_gone_is_found() {
    let tally = each_log(
        |_, _| {},
        |disk, rng, _, _| {
            let mut names = disk.list(DIR.as_ref()).expect("the log's directory");
            names.retain(|name| name.ends_with(".log"));
            names.sort();
            let path = |name: &String| Path::new(DIR).join(name);
            if rng.chance(40) {
                for name in names.iter().rev().take(to_usize(Offset::new(rng.between(1, 2)))) {
                    disk.remove(&path(name)).expect("a file");
                    disk.remove_if_there(&path(name).with_extension("idx")).expect("removed");
                }
                return;
            }
            let last = path(names.last().expect("a segment"));
            let file = disk.open(&last, Access::Write).expect("a file");
            let size = file.size().expect("a size");
            file.set_size(4096 * rng.between(1, size / 4096)).expect("shorter");
            if rng.chance(50) {
                file.set_size(size).expect("zeroes");
            }
            file.sync_data().expect("synced");
        },
    );
    tally.check();
}
