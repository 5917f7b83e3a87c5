//! Every kind of crash and fault, once.

use super::*;
use crate::{
    buffer::{ALIGN_BYTES, DiskBuffer},
    io::{Disk, DiskFile, LockMode},
};

fn aligned(byte: u8, blocks: usize) -> Arc<DiskBuffer> {
    let mut buffer = DiskBuffer::zeroed(blocks * ALIGN_BYTES);
    buffer.as_mut_slice().fill(byte);
    Arc::new(buffer)
}

fn disk(seed: u64) -> (SimDisk, PathBuf) {
    let disk = SimDisk::new(seed);
    disk.create_dir(Path::new("/log")).expect("a directory");
    (disk, PathBuf::from("/log/a"))
}

#[test]
fn writes_in_flight_complete_in_any_order_and_are_durable() {
    for seed in 0..50 {
        let (disk, path) = disk(seed);
        let file = disk.create(&path, Access::DirectSync).expect("a file");
        disk.sync_dir(Path::new("/log")).expect("names");
        let first = file.begin_write(aligned(1, 1), Position::new(0));
        let second = file.begin_write(aligned(2, 1), Position::new(4096));
        assert_eq!(second.complete().expect("the second"), 4096);
        let disk = disk.power_cut();
        let bytes = disk.bytes(&path).expect("its name was synced");
        assert!(bytes[4096..].iter().all(|byte| *byte == 2));
        assert!(bytes[..4096].iter().all(|byte| *byte <= 1), "whole sectors or none");
        assert!(SimDisk::is_crash(&first.complete().expect_err("of a dead process")));
        assert!(SimDisk::is_crash(&file.size().expect_err("of a dead process")));
    }
}

#[test]
fn a_write_lands_after_its_process_was_killed() {
    let (disk, path) = disk(1);
    let file = disk.create(&path, Access::DirectSync).expect("a file");
    assert_eq!(file.write_at(aligned(1, 2).as_slice(), Position::new(0)).expect("8192"), 8192);
    let pending = file.begin_write(aligned(2, 1), Position::new(4096));
    let disk = disk.kill();
    drop(pending);
    assert_eq!((disk.late_writes(), disk.bytes(&path).expect("a")[4096]), (1, 1));
    disk.land_late(0);
    assert_eq!((disk.late_writes(), disk.bytes(&path).expect("a")[4096]), (0, 2));
}

#[test]
fn a_late_write_lands_in_the_sectors_that_are_told() {
    let (disk, path) = disk(1);
    let file = disk.create(&path, Access::DirectSync).expect("a file");
    let all = (Position::new(0), Position::new(8192));
    assert!(file.allocate(all.0, all.1).expect("space"));
    file.sync_data().expect("its length");
    disk.sync_dir(Path::new("/log")).expect("names");
    let _pending = file.begin_write(aligned(2, 1), Position::new(4096));
    let disk = disk.kill();
    let (buffer, position, is_into_blocks) = disk.late_write(0);
    assert_eq!((buffer.len(), position.get(), is_into_blocks), (4096, 4096, true));
    disk.land_late_sectors(0, |place| place == 1 || place == 7);
    assert_eq!(disk.late_writes(), 0);
    let bytes = disk.power_cut().bytes(&path).expect("its name was synced");
    let landed: Vec<bool> = bytes[4096..].chunks(512).map(|sector| sector == [2; 512]).collect();
    assert_eq!(landed, [false, true, false, false, false, false, false, true]);
    assert_eq!(bytes.iter().filter(|byte| **byte != 0).count(), 1024);
}

#[test]
fn writes_into_blocks_alone_are_counted_when_they_are_durable() {
    let (disk, path) = disk(1);
    let file = disk.create(&path, Access::DirectSync).expect("a file");
    let zeroing = disk.open(&path, Access::Direct).expect("a file");
    assert!(zeroing.allocate(Position::new(0), Position::new(16384)).expect("space"));
    zeroing.write_at(aligned(0, 1).as_slice(), Position::new(0)).expect("zeroes");
    for (position, count) in [(0, 0), (4096, 1), (4096, 1), (8192, 2)] {
        file.write_at(aligned(1, 1).as_slice(), Position::new(position)).expect("space");
        assert_eq!(disk.writes_into_blocks(), count, "at {position}");
    }
}

#[test]
fn a_late_write_hits_the_old_file_when_a_new_one_took_its_name() {
    let (disk, path) = disk(1);
    let file = disk.create(&path, Access::DirectSync).expect("a file");
    let _pending = file.begin_write(aligned(2, 1), Position::new(0));
    let disk = disk.kill();
    let temporary = Path::new("/log/b");
    disk.create(temporary, Access::Write).expect("a file").set_size(4096).expect("a size");
    disk.rename(temporary, &path).expect("a rename");
    disk.land_late(0);
    assert_eq!(disk.bytes(&path).expect("a"), [0; 4096]);
}

#[test]
fn killing_keeps_what_was_not_synced_and_a_later_power_cut_takes_it() {
    let mut lost = 0;
    for seed in 0..50 {
        let (disk, path) = disk(seed);
        let file = disk.create(&path, Access::Write).expect("a file");
        file.write_at(b"hello", Position::new(0)).expect("5");
        let disk = disk.kill();
        assert_eq!(disk.bytes(&path).expect("a"), b"hello");
        lost += usize::from(disk.power_cut().bytes(&path).is_none_or(|bytes| bytes != b"hello"));
    }
    assert!((10..50).contains(&lost));
}

#[test]
fn a_fuse_crashes_in_the_middle_of_an_operation() {
    let (mut kept, mut lost) = (0, 0);
    for seed in 0..100 {
        let (disk, path) = disk(seed);
        disk.crash_after(Some(2));
        let file = disk.create(&path, Access::Write).expect("the first");
        let error = disk.rename(&path, Path::new("/log/b")).expect_err("the second");
        assert!(SimDisk::is_crash(&error) && disk.is_crashed());
        assert!(SimDisk::is_crash(&file.sync_data().expect_err("after the crash")));
        let disk = disk.kill();
        match disk.list(Path::new("/log")).expect("names")[0].as_str() {
            "a" => lost += 1,
            _ => kept += 1,
        }
    }
    assert!(kept > 10 && lost > 10);
}

#[test]
fn what_a_crash_leaves_of_an_allocation_fits_on_the_disk() {
    let (mut none, mut some) = (0, 0);
    for seed in 0..100 {
        let (disk, path) = disk(seed);
        let file = disk.create(&path, Access::DirectSync).expect("a file");
        disk.sync_dir(Path::new("/log")).expect("names");
        disk.limit_space(Some(8192));
        disk.crash_after(Some(1));
        assert!(file.allocate(Position::new(0), Position::new(16384)).is_err());
        match disk.space_bytes() {
            0 => none += 1,
            4096 | 8192 => some += 1,
            more => panic!("{more} bytes of 8,192"),
        }
    }
    assert!(none > 10 && some > 10, "{none} and {some}");
}

#[test]
fn armed_faults_strike_once() {
    let (disk, path) = disk(1);
    let file = disk.create(&path, Access::Write).expect("a file");
    disk.arm(Fault::WriteIsShort, 1);
    assert_eq!(file.write_at(&[1; 1024], Position::new(0)).expect("whole"), 1024);
    assert!(file.write_at(&[1; 1024], Position::new(0)).expect("short") < 1024);
    assert_eq!(file.write_at(&[1; 1024], Position::new(0)).expect("whole"), 1024);
    disk.arm(Fault::SyncFails, 0);
    assert!(file.sync_data().is_err() && file.sync_data().is_ok());
    disk.arm(Fault::RemoveFails, 0);
    assert!(disk.remove(&path).is_err() && disk.bytes(&path).is_some());
    (0..2).for_each(|_| disk.arm(Fault::StatFails, 0));
    assert!(file.size().is_err() && file.allocated_bytes().is_err());
    assert!(file.size().is_ok() && file.allocated_bytes().is_ok());
    let (dir, link) = (Path::new("/log"), Path::new("/log/b"));
    disk.arm(Fault::SpaceFails, 0);
    assert!(disk.space(dir).is_err() && disk.space(dir).is_ok());
    disk.arm(Fault::LinkFails, 0);
    assert!(disk.link(&path, link).is_err() && disk.bytes(link).is_none());
    disk.link(&path, link).expect("a second name");
    disk.arm(Fault::OpenFails, 0);
    let lock = || disk.lock_dir(dir, LockMode::Exclusive);
    assert!(lock().is_err() && lock().is_ok());
    disk.arm(Fault::CreateFails, 0);
    disk.create_dir(dir).expect("it is there");
    let other = Path::new("/other");
    assert!(disk.create_dir(other).is_err() && disk.create_dir(other).is_ok());
    let allocate = || file.allocate(Position::new(0), Position::new(8192));
    disk.arm(Fault::WriteFindsNoSpace, 0);
    assert!(allocate().expect("a write was meant") && disk.disarm() == 1);
    disk.arm(Fault::AllocateFindsNoSpace, 0);
    let error = allocate().expect_err("full");
    assert_eq!((error.kind(), disk.disarm()), (io::ErrorKind::StorageFull, 0));
    assert!(allocate().expect("space"));
    file.set_size(4096).expect("a size");
    disk.limit_space(Some(4096));
    let error = file.write_at(&[1; 10], Position::new(4096)).expect_err("full");
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(file.write_at(&[1; 10], Position::new(0)).expect("space it has"), 10);
}

#[test]
fn direct_access_wants_alignment_and_may_be_refused() {
    let (disk, path) = disk(1);
    let file = disk.create(&path, Access::Direct).expect("a file");
    let buffer = aligned(1, 1);
    for (from, to, position) in [(0, 512, 0), (512, 4096, 0), (0, 4096, 512)] {
        let bytes = &buffer.as_slice()[from..to];
        let error = file.write_at(bytes, Position::new(position)).expect_err("not aligned");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
    disk.refuse_direct(true);
    assert!(disk.open(&path, Access::DirectSync).is_err());
    assert!(disk.open(&path, Access::Write).is_ok());
}

#[test]
fn locks_exclude_and_die_with_their_process() {
    let (disk, _) = disk(1);
    let dir = Path::new("/log");
    let shared = disk.lock_dir(dir, LockMode::Shared).expect("free");
    assert!(disk.lock_dir(dir, LockMode::Shared).is_ok());
    assert!(disk.lock_dir(dir, LockMode::Exclusive).is_err());
    drop(shared);
    let held = disk.lock_dir(dir, LockMode::Exclusive).expect("free");
    let disk = disk.kill();
    let _taken = disk.lock_dir(dir, LockMode::Exclusive).expect("free again");
    drop(held);
    assert!(disk.lock_dir(dir, LockMode::Shared).is_err(), "the old lock took nothing along");
}

#[test]
#[should_panic(expected = "two writes in flight to the same bytes")]
fn writes_in_flight_must_not_overlap() {
    let (disk, path) = disk(1);
    let file = disk.create(&path, Access::DirectSync).expect("a file");
    let _first = file.begin_write(aligned(1, 2), Position::new(0));
    let _second = file.begin_write(aligned(1, 1), Position::new(4096));
}
