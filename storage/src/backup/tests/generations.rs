//! Generations of a segment of which a start takes none.

use super::*;
use crate::{
    fields::{CRC_AT, crc_without_field},
    index::{INDEX_HEADER_BYTES, INDEX_VERSION},
};

/// A log, its first segment, and the next generation of that, which was killed before its index had a name.
fn log_with_remains() -> (TestLog, SegmentName, SegmentName) {
    let mut log = TestLog::new(1);
    let frames = vec![vec![("a", vec![7; 700])]; 3];
    let first = log.add_sealed(&frames);
    log.add_unsealed(&frames);
    let newer = log.add_cut_short(0, 100);
    log.disk.remove(&log.path(newer, SegmentFile::Index)).expect("a file");
    (log, first, newer)
}

/// A rewrite was killed before it gave its index a name, and the index of what counts rots: it was refused, though nothing
/// else can count.
#[test]
fn what_a_rewrite_has_left_without_an_index_never_counts_for_a_backup() {
    for damage in ["its header", "behind that", "not read"] {
        let (log, first, newer) = log_with_remains();
        let index = log.path(first, SegmentFile::Index);
        match damage {
            "its header" => log.disk.flip_bit(&index, Position::new(100), 1),
            "behind that" => log.disk.flip_bit(&index, Position::new(600), 1),
            _ => log.disk.make_unreadable(&index, 512..4096),
        }
        let to = Path::new(TO);
        log.disk.create_dir(to).expect("a free name");
        let done = back_up_log(&log.disk, &log.dir, None, to, Reach::Stopped);
        assert_eq!(done.expect("the older one").end, Offset::new(6), "{damage}");
        let names = log.disk.list(to).expect("a directory");
        assert!(names.contains(&first.log_file_name()), "{damage}: {names:?}");
        assert!(!names.contains(&newer.log_file_name()), "{damage}: {names:?}");
        // Whoever verifies it is told; of the header alone there is nothing to tell, as all frames are there.
        let mut findings = Vec::new();
        verify(&log.disk, to, &mut |finding| findings.push(finding.file.clone()))
            .expect("not in use");
        let told: &[_] =
            if damage == "its header" { &[] } else { &[to.join(first.index_file_name())] };
        assert_eq!(findings, told, "{damage}");
    }
}

/// The disk does not give back which counts: what is made of it is verified, and was refused before that.
#[test]
fn a_newer_generation_that_cannot_be_read_is_left_to_who_verifies_the_backup() {
    let mut log = TestLog::new(1);
    let frames = vec![vec![("a", vec![7; 700])]; 3];
    log.add_sealed(&frames);
    log.add_unsealed(&frames);
    let newer = log.add_cut_short(0, 600);
    log.disk.make_unreadable(&log.path(newer, SegmentFile::Index), 512..4096);
    let to = Path::new(TO);
    log.disk.create_dir(to).expect("a free name");
    back_up_log(&log.disk, &log.dir, None, to, Reach::Stopped).expect("it can be linked");
    let mut findings = Vec::new();
    verify(&log.disk, to, &mut |finding| findings.push(finding.file.clone())).expect("not in use");
    assert!(findings.contains(&to.join(newer.index_file_name())), "{findings:?}");
}

/// It was taken for damage, and for the frames without it.
#[test]
fn an_index_of_a_newer_version_is_refused_beside_what_never_counts() {
    let (log, first, _) = log_with_remains();
    let mut index = log.disk.bytes(&log.path(first, SegmentFile::Index)).expect("a file");
    index[8..12].copy_from_slice(&(INDEX_VERSION + 1).to_le_bytes());
    let crc = crc_without_field(&index[..INDEX_HEADER_BYTES]);
    index[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    log.write_index(first, &index);
    let to = Path::new(TO);
    log.disk.create_dir(to).expect("a free name");
    let refused = back_up_log(&log.disk, &log.dir, None, to, Reach::Stopped);
    assert!(matches!(refused, Err(OpenError::NewerVersion { .. })), "{refused:?}");
}
