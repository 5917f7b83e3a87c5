//! A repair that finds the disk full leaves the log as it was.

use super::*;
use crate::data_dir::ASIDE_PREFIX;

/// What the directory holds, and how long each file is.
fn held(disk: &SimDisk) -> BTreeSet<(String, Option<usize>)> {
    let names = disk.list(Path::new(DIR)).expect("a directory");
    let size = |name: &String| disk.bytes(&Path::new(DIR).join(name)).map(|bytes| bytes.len());
    names.into_iter().map(|name| (name.clone(), size(&name))).collect()
}

fn aside() -> PathBuf {
    Path::new(DIR).join(format!("{ASIDE_PREFIX}{}", now().wall_ms))
}

/// Refuses all space, and then gives a block more, until there is enough. How often there was too little.
fn tries_until_there_is_space(log: &TestLog, events: u64, lost: &[(u64, u64)]) -> u64 {
    let before = held(&log.disk);
    for blocks in 0.. {
        let disk = log.disk.fork(blocks);
        let free = usize::try_from(blocks * 4096).expect("few");
        disk.limit_space(Some(disk.space_bytes() + free));
        let Err(refused) = repair(&disk, Path::new(DIR), now()) else {
            assert!(blocks > 0, "it takes space");
            return blocks;
        };
        let OpenError::Io { source, .. } = refused else { panic!("{refused:?}") };
        assert_eq!(source.kind(), std::io::ErrorKind::StorageFull, "{blocks} blocks");
        assert_eq!(held(&disk), before, "{blocks} blocks");
        disk.list(&aside()).expect_err("it is empty");
        disk.limit_space(None);
        assert_eq!(check_repair(&disk, events, lost).asides, [aside()]);
    }
    unreachable!("it takes no more than there is")
}

/// Each try on a full disk left an empty directory, of which `verify` said that a repair had kept something there.
#[test]
fn a_segment_that_is_not_written_anew_leaves_nothing() {
    let log = log();
    flip(&log, 0, 1, 70);
    tries_until_there_is_space(&log, 56, &[(4, 8)]);
}

/// Each left a copy of the index that was still in its place, or a part of one.
#[test]
fn an_index_that_is_not_made_anew_leaves_no_copy() {
    let log = log();
    log.disk.flip_bit(&path(&log, 1, SegmentFile::Index), Position::new(600), 0);
    let tries = tries_until_there_is_space(&log, 56, &[]);
    let copy = log.disk.bytes(&path(&log, 1, SegmentFile::Index)).expect("a file").len();
    assert!(tries > copy.div_ceil(4096) as u64, "once there was space for the copy alone");
}

/// The same of the file that goes with the end of the log.
#[test]
fn a_last_segment_that_is_not_taken_out_leaves_no_copy() {
    let log = log();
    let last = path(&log, 3, SegmentFile::Log);
    log.disk.flip_bit(&last, Position::new(30), 1);
    (0..4).for_each(|frame| flip(&log, 3, frame, 70));
    let tries = tries_until_there_is_space(&log, 40, &[]);
    assert!(tries > 4, "and there was space for a part of the copy, and for all of it");
}
