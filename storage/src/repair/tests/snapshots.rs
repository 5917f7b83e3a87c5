//! Snapshots say where segments end.

use super::{foreign::snapshotted, *};
use crate::log::tests::{now as log_now, tiny};

/// [`snapshotted`], which has gone on behind its newest snapshot since. Where that is, and where the log ends.
fn gone_on() -> (SimDisk, Offset, u64) {
    let disk = snapshotted("a", 100);
    let config = LogConfig { snapshot_segments: NEVER, ..tiny() };
    let opened = Log::open(disk.clone(), Path::new(DIR), config, log_now(3));
    let mut log = opened.expect("sound").0;
    for number in 0..100 {
        log.append(vec![event("a", &format!("{number:->500}"))], log_now(4)).expect("staged");
        log.run_ops(log_now(5));
    }
    drop(log);
    let disk = disk.kill();
    let names = disk.list(Path::new(DIR)).expect("a directory");
    (disk, snapshot::read::offsets(&names)[0], 200)
}

/// The segment before the snapshot was written anew with a gap up to the next file that was there, over the snapshot; and
/// then it was said that the log would not open.
#[test]
fn no_segment_is_made_longer_than_up_to_a_snapshot() {
    for damage in ["none", "a frame", "the header", "the .log is gone"] {
        let (disk, at, end) = gone_on();
        let mut bases = BTreeSet::new();
        let names = disk.list(Path::new(DIR)).expect("a directory");
        bases
            .extend(names.iter().filter_map(|name| SegmentName::parse(name)).map(|(name, _)| name));
        let before = *bases.range(..SegmentName::first_generation(at)).next_back().expect("one");
        let mut behind = bases.range(SegmentName::first_generation(at)..).copied();
        let (first, next) = (behind.next().expect("one"), behind.next().expect("another"));
        assert_eq!(first.base_offset, at);
        for name in [before.index_file_name(), first.log_file_name(), first.index_file_name()] {
            disk.remove(&Path::new(DIR).join(name)).expect("a file");
        }
        let log = Path::new(DIR).join(before.log_file_name());
        let mut lost = vec![(at.get(), next.base_offset.get())];
        match damage {
            "a frame" => {
                disk.flip_bit(&log, Position::new(4096 + 70), 1);
                let base = before.base_offset.get();
                lost.insert(0, (base, base + 1));
            }
            "the header" => disk.flip_bit(&log, Position::new(40), 0),
            "the .log is gone" => {
                disk.remove(&log).expect("a file");
                lost[0].0 = before.base_offset.get();
            }
            _ => {}
        }
        check_repair(&disk, end, &lost);
    }
}
