//! Recovery over the simulated disk: one test for each rule, with the crash that made it necessary.

use super::*;
use crate::{
    config::LogConfig,
    error::OpenError,
    io::sim::{Fault, SimDisk, SimFile},
    log::{
        Log, Op,
        tests::{
            DIR, append, append_each, close, hold_writes, log_files, now, numbers, open,
            open_error, open_with, stored, tiny,
        },
    },
    op::OpOutcome,
    segment::SEGMENT_VERSION,
};

/// Hands a write to the disk, and leaves it in flight.
fn begin(op: Op<SimDisk>) -> crate::io::sim::PendingWrite {
    match op {
        Op::Write { file, buffer, position, .. } => SimFile::begin_write(&file, buffer, position),
        other => panic!("{other:?} is not a write"),
    }
}

/// A disk as the next process finds it, after one that appended so many events was killed.
fn killed_after(events: usize) -> SimDisk {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    append_each(&mut log, events);
    drop(log);
    disk.kill()
}

fn overwrite(disk: &SimDisk, path: &Path, position: u64, bytes: &[u8]) {
    let file = disk.open(path, Access::Write).expect("the file");
    file.write_at(bytes, Position::new(position)).expect("room");
    file.sync_data().expect("synced");
}

#[test]
fn a_write_that_lands_after_its_process_was_killed_changes_nothing() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    append_each(&mut log, 3);
    append(&mut log, "late");
    let held = hold_writes(&mut log, &disk).into_iter().map(begin).collect::<Vec<_>>();
    let disk = disk.kill();
    assert_eq!((held.len(), disk.late_writes()), (1, 1));
    let mut log = open(&disk);
    assert_eq!(log.visible(), Offset::new(3), "it has not landed yet");
    append(&mut log, "3");
    log.run_ops(now(2));
    disk.land_late(0);
    assert_eq!(stored(&disk, log.visible()), numbers(4));
    drop(log);
    // Neither with the index of the old segment nor without it.
    let index = log_files(&disk)[0].with_extension("idx");
    let disk = disk.kill();
    drop(open(&disk));
    disk.remove(&index).expect("removed");
    let disk = disk.kill();
    let log = open(&disk);
    assert_eq!(log.visible(), Offset::new(4));
    assert_eq!(stored(&disk, log.visible()), numbers(4));
}

#[test]
fn a_late_write_into_a_file_without_frames_hits_the_old_inode() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    append(&mut log, "late");
    let _held = hold_writes(&mut log, &disk).into_iter().map(begin).collect::<Vec<_>>();
    let disk = disk.kill();
    let mut log = open(&disk);
    assert_eq!((log.visible(), log_files(&disk).len()), (Offset::ZERO, 1));
    append(&mut log, "0");
    log.run_ops(now(2));
    disk.land_late(0);
    drop(log);
    let disk = disk.kill();
    let log = open(&disk);
    assert_eq!(stored(&disk, log.visible()), numbers(1));
}

#[test]
fn a_crash_at_any_step_of_an_open_loses_nothing() {
    for seed in 0..30 {
        let disk = SimDisk::new(seed);
        let mut log = open(&disk);
        append_each(&mut log, 40);
        let tag = *log.tag();
        drop(log);
        let mut disk = if seed % 2 == 0 { disk.power_cut() } else { disk.kill() };
        for step in 1.. {
            disk.crash_after(Some(step));
            let opened = crate::log::Log::open(disk.clone(), Path::new(DIR), tiny(), now(0));
            let is_done = opened.is_ok();
            drop(opened);
            disk = if step % 3 == 0 { disk.kill() } else { disk.power_cut() };
            if is_done {
                break;
            }
        }
        let log = open(&disk);
        assert_eq!((log.visible(), *log.tag()), (Offset::new(40), tag), "seed {seed}");
        assert_eq!(stored(&disk, log.visible()), numbers(40), "seed {seed}");
        assert_eq!(log.topics().get("a").expect("listed").count, 40);
    }
}

#[test]
fn a_failed_sync_of_what_was_read_copies_it_to_a_new_file() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let mut log = open(&disk);
        append_each(&mut log, 5);
        drop(log);
        let disk = disk.kill();
        disk.arm(Fault::SyncFails, 0);
        let log = open(&disk);
        assert_eq!(disk.disarm(), 0, "the sync has failed");
        assert_eq!(log.visible(), Offset::new(5));
        drop(log);
        let disk = disk.power_cut();
        assert_eq!(stored(&disk, open(&disk).visible()), numbers(5));
    }
}

#[test]
fn a_segment_that_is_not_the_last_must_reach_its_successor() {
    let disk = killed_after(40);
    let files = log_files(&disk);
    // The second lost its index, and one of its frames.
    disk.remove(&files[1].with_extension("idx")).expect("removed");
    disk.flip_bit(&files[1], Position::new(4096 * 2 + 80), 0);
    match open_error(&disk) {
        OpenError::Corrupt(corruption) => {
            assert_eq!(
                (corruption.file, corruption.position),
                (files[1].clone(), Position::new(8192))
            );
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_truncated_sealed_segment_is_named() {
    let disk = killed_after(40);
    let path = log_files(&disk)[0].clone();
    disk.open(&path, Access::Write).expect("the file").set_size(8192).expect("truncated");
    assert!(matches!(open_error(&disk), OpenError::Corrupt(_)));
}

#[test]
fn what_a_newer_version_wrote_is_left_alone() {
    let disk = killed_after(2);
    let path = log_files(&disk)[0].clone();
    let header = SegmentHeader::decode(&disk.bytes(&path).expect("the file")).expect("a header");
    let newer = SegmentHeader { version: SEGMENT_VERSION + 1, ..header };
    overwrite(&disk, &path, 0, &newer.encode());
    let before = disk.bytes(&path);
    match open_error(&disk) {
        OpenError::NewerVersion { version, .. } => assert_eq!(version, SEGMENT_VERSION + 1),
        other => panic!("{other}"),
    }
    assert_eq!(disk.bytes(&path), before);
}

#[test]
fn a_header_that_names_another_place_is_refused() {
    let disk = killed_after(2);
    let path = log_files(&disk)[0].clone();
    disk.rename(&path, &path.with_file_name("00000000000000000001.1.log")).expect("renamed");
    assert!(matches!(open_error(&disk), OpenError::Corrupt(_)));
}

#[test]
fn temporary_files_are_removed_and_strange_ones_left() {
    let disk = SimDisk::new(1);
    close(&mut open(&disk));
    let dir = Path::new(DIR);
    let disk = disk.kill();
    for name in ["00000000000000000000.1.idx.tmp", "next.log.tmp", "notes.txt", "1.1.log"] {
        if disk.open(&dir.join(name), Access::Read).is_err() {
            disk.create(&dir.join(name), Access::Write).expect("created");
        }
    }
    drop(open(&disk));
    let mut names = disk.list(dir).expect("listed");
    names.sort();
    assert_eq!(names, ["00000000000000000000.1.log", "1.1.log", "end.mark", "notes.txt"]);
}

#[test]
fn an_index_of_another_file_is_not_believed() {
    let disk = killed_after(40);
    let files = log_files(&disk);
    let (first, second) = (files[0].with_extension("idx"), files[1].with_extension("idx"));
    let bytes = disk.bytes(&second).expect("an index");
    disk.remove(&first).expect("removed");
    let file = disk.create(&first, Access::Write).expect("created");
    file.write_at(&bytes, Position::default()).expect("room");
    drop(file);
    let (log, report) = open_with(&disk, tiny());
    assert_eq!(
        (log.visible(), report.scanned[0].name.base_offset),
        (Offset::new(40), Offset::ZERO)
    );
}

#[test]
fn topics_and_times_go_on_where_they_ended() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open_with(&disk, LogConfig { segment_bytes: 128 << 10, ..tiny() });
    for (index, topic) in ["b", "a/x", "b", "c"].into_iter().cycle().take(60).enumerate() {
        log.append(vec![crate::log::tests::event(topic, "1")], now(index as u64)).expect("staged");
        log.run_ops(now(index as u64));
    }
    let before = log.topics().page("", None, 10);
    assert_eq!(before.len(), 3);
    drop(log);
    let disk = disk.power_cut();
    let mut log = open(&disk);
    assert_eq!(log.topics().page("", None, 10), before);
    let appended = log.append(vec![crate::log::tests::event("d", "1")], now(0)).expect("staged");
    assert_eq!(appended.time_ms, before.iter().map(|topic| topic.last_time_ms).max().expect("3"));
    log.run_ops(now(1));
    assert_eq!(log.topics().get("d").expect("listed").number.get(), 3, "numbers go on");
}

/// Out of order completions, and a power cut while frames are in flight.
#[test]
fn what_is_behind_a_hole_is_cut() {
    for seed in 0..60 {
        let disk = SimDisk::new(seed);
        let mut log = open(&disk);
        append_each(&mut log, 2);
        append(&mut log, "2");
        let first = hold_writes(&mut log, &disk).pop().expect("a write");
        append(&mut log, "3");
        let second = hold_writes(&mut log, &disk).pop().expect("a write beside it");
        let (Op::Write { id, .. }, in_flight) = (&second, begin(first)) else { panic!("a write") };
        let id = *id;
        let result = begin(second).complete();
        log.complete(OpOutcome::Write { id, result }, now(2));
        assert_eq!(log.synced(), Offset::new(2), "the one before it is in flight");
        drop((log, in_flight));
        let disk = disk.power_cut();
        let log = open(&disk);
        let visible = log.visible();
        assert!(visible == Offset::new(2) || visible == Offset::new(4), "seed {seed}: {visible}");
        assert_eq!(
            stored(&disk, visible),
            numbers(usize::try_from(visible.get()).expect("4 at most"))
        );
    }
}

#[test]
fn errors_say_what_to_do() {
    let disk = killed_after(3);
    disk.flip_bit(&log_files(&disk)[0], Position::new(4096 * 2 + 70), 0);
    let text = open_error(&disk).to_string();
    assert!(text.contains("position 8192") && text.contains("strandline repair"), "{text}");
}

/// What was prepared is given back before the index is written: why the frames end where they do is still seen then.
#[test]
fn a_start_that_is_cut_off_before_its_index_leaves_the_next_what_it_found() {
    for is_torn in [false, true] {
        let disk = killed_after(3);
        if is_torn {
            overwrite(&disk, &log_files(&disk)[0], 4 * 4096, &[7; 4096]);
        }
        let path = log_files(&disk).remove(0);
        let size = |disk: &SimDisk| disk.bytes(&path).expect("the segment").len();
        let found = open_with(&disk.fork(1), tiny()).1;
        assert_eq!(found.cut.is_some(), is_torn);
        let mut shortened = 0;
        for operation in 1.. {
            let disk = disk.fork(operation);
            let before = size(&disk);
            disk.crash_after(Some(operation));
            let opened = Log::open(disk.clone(), Path::new(DIR), tiny(), now(0)).is_ok();
            if opened && !disk.is_crashed() {
                break;
            }
            let disk = disk.kill();
            let is_shorter = size(&disk) < before;
            let report = open_with(&disk, tiny()).1;
            assert_eq!(report.end, found.end);
            if !report.scanned.is_empty() {
                assert_eq!(report.cut, found.cut, "after operation {operation}");
                shortened += usize::from(is_shorter);
            }
        }
        assert!(shortened > 0, "some are cut off between the two");
    }
}

/// It took the index for damaged, gave back the frames without events behind the last one that has some, and found no space for
/// another index: the one that was there said of frames from then on that were gone.
#[test]
fn a_start_that_cannot_make_an_index_anew_leaves_the_segment_as_it_is() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    append_each(&mut log, 3);
    // One frame without events says that they are synced, another that the log was closed.
    log.run_ops(now(1_000));
    close(&mut log);
    drop(log);
    drop(open(&disk));
    let disk = disk.kill();
    let bytes = disk.bytes(&log_files(&disk)[0]).expect("the segment").len();
    assert_eq!(bytes, (1 + 3 + 2) * 4096);
    let check = |disk: &SimDisk, what: &str| {
        let disk = disk.kill();
        let log = open(&disk);
        assert_eq!(log.visible(), Offset::new(3), "{what}");
        assert_eq!(stored(&disk, log.visible()), numbers(3), "{what}");
    };
    let mut copied = 0;
    for fault in [Fault::ReadFails, Fault::StatFails] {
        for after in 0.. {
            let full = disk.fork(after);
            // What is given back is not enough.
            full.limit_space(Some(full.space_bytes() / 2));
            full.arm(fault, after);
            drop(Log::open(full.clone(), Path::new(DIR), tiny(), now(0)));
            if full.disarm() > 0 {
                break;
            }
            full.limit_space(None);
            check(&full, &format!("{fault:?} after {after}"));
            // Where the segment is copied, its index is the second file that is made.
            let failing = disk.fork(after);
            for (fault, after) in [(fault, after), (Fault::SyncFails, 0), (Fault::CreateFails, 1)] {
                failing.arm(fault, after);
            }
            drop(Log::open(failing.clone(), Path::new(DIR), tiny(), now(0)));
            copied += usize::from(failing.disarm() == 0);
            check(&failing, &format!("{fault:?} after {after}, and a sync"));
        }
    }
    assert!(copied > 0, "and it ended before there was another index");
}
