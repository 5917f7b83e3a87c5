//! The end of a log is lost in every way that leaves what is left sound in itself; and the mark through crashes and
//! faults.

use std::{ops::ControlFlow, path::Path};

use super::*;
use crate::{
    backup::{Reach, back_up_log},
    clock::{Now, PastStep},
    config::{LogConfig, SyncMode},
    error::{OpenError, ReadError},
    frame::FRAME_ALIGN_BYTES,
    io::{
        Access, Disk, DiskFile,
        sim::{Fault, SimDisk},
    },
    log::{
        Log, Notice, Op,
        tests::{
            DIR, append, append_each, close, event, hold_writes, log_files, now, open, open_error,
            open_with, tiny,
        },
    },
    offset::Position,
    reader::Hits,
    repair::{self, Action},
    restore::{Until, restore_log},
    segment::Tag,
    stopped::StoppedLog,
    testing::{everything, read_all},
    verify::verify,
};

fn dir() -> &'static Path {
    Path::new(DIR)
}

fn mark_of(disk: &SimDisk) -> EndMark {
    read(disk, dir()).expect("readable").expect("a mark").expect("sound")
}

fn mark(active: u64, synced: u64) -> EndMark {
    EndMark { active: Offset::new(active), synced: Offset::new(synced) }
}

#[test]
fn the_higher_sequence_counts_and_a_torn_slot_leaves_the_other() {
    let slots = [mark(5, 7).encode(8), mark(5, 9).encode(9)].concat();
    let latest = Latest::decode(&slots).expect("sound");
    assert_eq!((latest.mark, latest.next()), (mark(5, 9), (0, 10)));
    let swapped = [mark(5, 9).encode(9), mark(5, 7).encode(8)].concat();
    assert_eq!(Latest::decode(&swapped).expect("sound").next(), (1, 10));
    for at in 0..2 * SLOT_BYTES {
        let mut torn = slots.clone();
        torn[at] ^= 4;
        let expected = if at < SLOT_BYTES { mark(5, 9) } else { mark(5, 7) };
        assert_eq!(Latest::decode(&torn).map(|latest| latest.mark), Ok(expected), "byte {at}");
    }
    for bytes in [0, 1, 4095] {
        let damaged = Latest::decode(&slots[..bytes]).expect_err("no whole slot");
        assert!(matches!(damaged, EndMarkError::Damaged { .. }), "{damaged}");
        let latest = Latest::decode(&slots[..SLOT_BYTES + bytes]).expect("the first is whole");
        assert_eq!(latest.mark, mark(5, 7));
    }
    assert!(Latest::decode(&[0; 2 * SLOT_BYTES]).is_err());
}

#[test]
fn what_a_newer_version_wrote_is_refused_by_name_and_other_fields_by_what_they_say() {
    let with = |at: usize, part: &[u8]| {
        let mut slot = mark(5, 7).encode(1);
        slot[at..at + part.len()].copy_from_slice(part);
        let checksum = crc_without_field(&slot).to_le_bytes();
        slot[CRC_AT..CRC_AT + 4].copy_from_slice(&checksum);
        Latest::decode(&slot).map(|latest| latest.mark)
    };
    assert_eq!(with(8, &1u32.to_le_bytes()), Ok(mark(5, 7)));
    assert_eq!(with(8, &2u32.to_le_bytes()), Err(EndMarkError::NewerVersion { version: 2 }));
    let what = "its fields contradict each other";
    for (at, part) in [(8, &[0; 4][..]), (24, &[8]), (USED_BYTES, &[1]), (4095, &[1])] {
        assert_eq!(with(at, part), Err(EndMarkError::Damaged { what }), "at {at}");
    }
}

/// A log of two lives that were ended cleanly, in one segment each: 5 events, and 5 more, each in its own frame.
fn two_lives() -> (SimDisk, Tag) {
    let disk = SimDisk::new(1);
    for _ in 0..2 {
        let mut log = open(&disk);
        append_each(&mut log, 5);
        close(&mut log);
    }
    let tag = *open_with(&disk.fork(2), tiny()).0.tag();
    (disk.kill(), tag)
}

#[test]
fn a_mark_follows_the_log() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    assert_eq!(mark_of(&disk), mark(0, 0), "at the start");
    append_each(&mut log, 3);
    assert_eq!(mark_of(&disk), mark(0, 0), "not with each commit");
    log.run_ops(now(9_000));
    assert_eq!(mark_of(&disk), mark(0, 0));
    assert_eq!(log.deadline(), Some(10_000));
    log.run_ops(now(10_000));
    assert_eq!(mark_of(&disk), mark(0, 3), "some seconds later");
    append_each(&mut log, 30);
    let rolled = mark_of(&disk);
    assert!(rolled.active > Offset::new(3) && rolled.synced >= rolled.active, "{rolled:?}");
    close(&mut log);
    assert_eq!(mark_of(&disk), EndMark { synced: Offset::new(33), ..rolled }, "at the end");
    drop(log);
    drop(open(&disk));
    assert_eq!(mark_of(&disk), mark(33, 33));
}

/// What is synced alone counts, whatever readers have seen.
#[test]
fn a_mark_never_says_more_than_is_synced() {
    let disk = SimDisk::new(1);
    let config = LogConfig { sync: SyncMode::Never, ..tiny() };
    let (mut log, _) = open_with(&disk, config);
    append_each(&mut log, 3);
    log.run_ops(now(20_000));
    assert_eq!((log.visible(), mark_of(&disk)), (Offset::new(3), mark(0, 0)));
    close(&mut log);
    assert_eq!(mark_of(&disk), mark(0, 3));

    // A frame that is on its way when the mark is written.
    let disk = SimDisk::new(2);
    let mut log = open(&disk);
    append_each(&mut log, 3);
    append(&mut log, "late");
    let held = hold_writes(&mut log, &disk);
    assert_eq!(held.len(), 1);
    while let Some(op) = log.next_op(now(20_000)) {
        log.complete(op.run(&disk), now(20_000));
    }
    assert_eq!(mark_of(&disk), mark(0, 3));
}

/// Removes a file of the log, or both of a segment.
fn remove(disk: &SimDisk, path: &Path) {
    disk.remove(path).expect("a file");
    disk.remove_if_there(&path.with_extension("idx")).expect("removed");
}

/// Of a log that was closed behind `events`, all but the first `left` are gone, and nothing but the mark says so: it
/// is not opened, not changed, and all who read it name the loss; a repair makes a gap of it, under another tag.
fn is_a_named_loss(disk: &SimDisk, tag: Tag, left: u64, events: u64) {
    let names = || {
        let mut names = disk.list(dir()).expect("listed");
        names.retain(|name| !name.ends_with(".tmp"));
        names.sort();
        names
    };
    let before = names();
    let refused = open_error(disk);
    let told = refused.to_string();
    assert!(told.contains(&events.to_string()), "how far it went: {told}");
    assert!(matches!(refused, OpenError::Corrupt(_) | OpenError::MissingSegment { .. }), "{told}");
    assert_eq!(names(), before, "nothing is changed");
    let mut findings = Vec::new();
    let verified = verify(disk, dir(), &mut |finding| findings.push(finding.to_string()));
    assert!(verified.expect("not in use").findings > 0);
    assert!(findings.iter().any(|line| line.contains(&events.to_string())), "{findings:?}");

    let mut lost = Vec::new();
    let mut found = 0;
    let stopped = StoppedLog::open(disk, dir()).expect("not in use");
    let mut take = |read: Result<Hits, ReadError>| {
        match read {
            Ok(hits) => found += hits.events().count() as u64,
            Err(ReadError::Gap { from, to, .. }) => lost.push((from.get(), to.get())),
            Err(error) => panic!("{error}"),
        }
        ControlFlow::Continue(())
    };
    stopped.read(&everything(), &mut take).expect("readable");
    drop(stopped);
    assert_eq!(found, left);
    assert_eq!(lost.iter().map(|(_, to)| *to).max(), Some(events), "export names it: {lost:?}");

    for (name, refused) in [
        ("/backup", back_up_log(disk, dir(), None, Path::new("/backup"), Reach::Stopped).err()),
        ("/restored", restore_log(disk, dir(), Path::new("/restored"), Until::End, now(0)).err()),
    ] {
        assert!(refused.is_some(), "{name}");
    }

    let plan = repair::plan(disk, dir()).expect("not in use");
    assert!(plan.beyond.is_empty() && !plan.steps.is_empty(), "{plan:?}");
    let repaired = repair::repair(disk, dir(), now(0)).expect("works").expect("something to do");
    let new_tag = repaired.new_tag.expect("another tag");
    assert_ne!(new_tag, tag);
    let sound = verify(disk, dir(), &mut |finding| panic!("{finding}")).expect("not in use");
    assert_eq!(sound.end, Offset::new(events));
    let again = repair::plan(disk, dir()).expect("not in use");
    assert!(again.steps.is_empty(), "{again:?}");
    let (log, report) = open_with(&disk.power_cut(), tiny());
    assert_eq!((report.tag, log.visible()), (new_tag, Offset::new(events)));
    let (offsets, gaps) = read_all(log.segments(), &everything(), |event| event.offset().get());
    assert_eq!(offsets, (0..left).collect::<Vec<_>>());
    assert_eq!(gaps.iter().map(|(from, to)| to - from).sum::<u64>(), events - left, "{gaps:?}");
}

/// Directories that a backup and a restore may write into.
fn targets(disk: &SimDisk) {
    for name in ["/backup", "/restored"] {
        disk.create_dir(Path::new(name)).expect("a free name");
    }
}

#[test]
fn a_last_segment_that_is_gone_is_a_named_loss() {
    let (disk, tag) = two_lives();
    remove(&disk, &log_files(&disk)[1]);
    targets(&disk);
    is_a_named_loss(&disk, tag, 5, 10);
}

#[test]
fn segments_at_the_end_that_are_gone_are_a_named_loss() {
    for gone in 1.. {
        let disk = SimDisk::new(1);
        let mut log = open(&disk);
        append_each(&mut log, 60);
        let tag = *log.tag();
        close(&mut log);
        drop(log);
        let files = log_files(&disk);
        assert!(files.len() > 3, "{files:?}");
        if gone > files.len() {
            break;
        }
        let kept = files.len() - gone;
        let left = files.get(kept).map_or(0, |path| {
            let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
            name[..20].parse().expect("its base")
        });
        for path in &files[kept..] {
            remove(&disk, path);
        }
        targets(&disk);
        is_a_named_loss(&disk.kill(), tag, left, 60);
    }
}

/// At every boundary of a frame, shortened or zeroes from there on, closed cleanly or killed once the mark had been
/// written.
#[test]
fn a_last_segment_that_is_cut_where_a_frame_ends_is_a_named_loss() {
    for is_clean in [true, false] {
        for is_zeroed in [true, false] {
            for left in 0..10 {
                let disk = SimDisk::new(1);
                let mut log = open(&disk);
                append_each(&mut log, 10);
                let tag = *log.tag();
                match is_clean {
                    true => close(&mut log),
                    false => log.run_ops(now(60_000)),
                }
                drop(log);
                let disk = disk.kill();
                targets(&disk);
                let path = &log_files(&disk)[0];
                let file = disk.open(path, Access::Write).expect("a file");
                let size = file.size().expect("a size");
                let cut = FRAME_ALIGN_BYTES as u64 * (1 + left);
                file.set_size(cut).expect("shorter");
                if is_zeroed {
                    file.set_size(size).expect("as long as before");
                }
                file.sync_data().expect("synced");
                is_a_named_loss(&disk, tag, left, 10);
            }
        }
    }
}

/// A frame whose loss only the mark knows of: the one behind it was begun before it was synced.
#[test]
fn what_is_sound_behind_a_hole_is_kept_by_a_repair() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open_with(&disk, LogConfig { idle_frame_ms: 1_000_000, ..tiny() });
    append_each(&mut log, 1);
    let mut held = Vec::new();
    for data in ["1", "2"] {
        append(&mut log, data);
        held.extend(hold_writes(&mut log, &disk));
    }
    assert_eq!(held.len(), 2);
    for op in held {
        log.complete(op.run(&disk), now(2));
    }
    log.run_ops(now(10_000));
    drop(log);
    let disk = disk.kill();
    assert_eq!(mark_of(&disk), mark(0, 3));
    let path = &log_files(&disk)[0];
    let file = disk.open(path, Access::Write).expect("a file");
    file.write_at(&[0; FRAME_ALIGN_BYTES], Position::new(2 * 4096)).expect("zeroes");
    file.sync_data().expect("synced");
    let refused = open_error(&disk).to_string();
    assert!(refused.contains("had been synced up to 3"), "{refused}");
    let repaired = repair::repair(&disk, dir(), now(0)).expect("works").expect("something to do");
    assert_eq!(repaired.new_tag, None, "the end is known");
    let (log, _) = open_with(&disk, tiny());
    assert_eq!(log.visible(), Offset::new(3));
    let read = read_all(log.segments(), &everything(), |event| event.offset().get());
    assert_eq!(read, (vec![0, 2], vec![(1, 2)]));
}

/// A server that was killed in a segment of which the mark says no more than that it had its name.
#[test]
fn a_last_segment_that_had_been_begun_and_is_gone_gives_another_tag() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    append_each(&mut log, 5);
    close(&mut log);
    drop(log);
    let mut log = open(&disk);
    append_each(&mut log, 5);
    let tag = *log.tag();
    drop(log);
    let disk = disk.kill();
    remove(&disk, &log_files(&disk)[1]);
    let refused = open_error(&disk).to_string();
    assert!(refused.contains("5.1.log") && refused.contains("is missing"), "{refused}");
    let mut findings = 0;
    let verified = verify(&disk, dir(), &mut |_| findings += 1).expect("not in use");
    assert_eq!((verified.findings, findings), (1, 1));
    let repaired = repair::repair(&disk, dir(), now(0)).expect("works").expect("something to do");
    assert_eq!(repaired.plan.steps[0].action, Action::Abandon);
    let (log, report) = open_with(&disk, tiny());
    assert_eq!((log.visible(), Some(report.tag)), (Offset::new(5), repaired.new_tag));
    assert_ne!(report.tag, tag);
}

#[test]
fn a_log_of_before_opens_and_gets_a_mark() {
    let (disk, tag) = two_lives();
    disk.remove(&dir().join(END_MARK_FILE_NAME)).expect("a mark");
    verify(&disk, dir(), &mut |finding| panic!("{finding}")).expect("not in use");
    assert_eq!(*open(&disk).tag(), tag);
    assert_eq!(mark_of(&disk), mark(10, 10));
}

/// Nothing shows a loss then, so it is told and the log opens.
#[test]
fn a_damaged_mark_is_told_and_made_anew() {
    let (disk, tag) = two_lives();
    let path = dir().join(END_MARK_FILE_NAME);
    for slot in 0..2 {
        disk.flip_bit(&path, Position::new(slot * 4096 + 30), 0);
    }
    let mut findings = Vec::new();
    verify(&disk, dir(), &mut |finding| findings.push(finding.to_string())).expect("not in use");
    assert!(findings.len() == 1 && findings[0].contains("end.mark"), "{findings:?}");
    let repaired = disk.fork(3);
    let done = repair::repair(&repaired, dir(), now(0)).expect("works").expect("something to do");
    assert_eq!((done.plan.steps[0].action.clone(), done.new_tag), (Action::SetAside, None));
    verify(&repaired, dir(), &mut |finding| panic!("{finding}")).expect("not in use");
    let mut log = open(&disk);
    assert_eq!(*log.tag(), tag);
    assert!(matches!(log.take_notices()[..], [Notice::EndMarkDamaged(_)]), "it is told");
    assert_eq!(mark_of(&disk), mark(10, 10));
}

/// A log can do without them.
#[test]
fn damaged_steps_are_told_and_made_anew() {
    let (disk, tag) = two_lives();
    let path = dir().join(END_MARK_FILE_NAME);
    let flip = |slot: u64| disk.flip_bit(&path, Position::new(slot * 4096 + 30), 0);
    flip(2);
    let verified = || verify(&disk, dir(), &mut |finding| panic!("{finding}")).expect("not in use");
    assert_eq!(verified().notes, [""; 0], "the other slot is sound");
    flip(3);
    assert!(verified().notes.len() == 1 && verified().notes[0].contains("steps of the clock"));
    let mut log = open(&disk);
    assert_eq!((*log.tag(), mark_of(&disk)), (tag, mark(10, 10)));
    assert!(matches!(log.take_notices()[..], [Notice::StepsDamaged(_)]), "it is told");
    assert_eq!(read_steps(&disk, dir()).expect("readable"), Ok(Vec::new()));
}

/// The other half of them was damaged, and a start forgot for good what could be read a moment later.
#[test]
fn a_read_that_fails_once_costs_nothing_that_the_file_says() {
    let (disk, _) = two_lives();
    let path = dir().join(END_MARK_FILE_NAME);
    let said = |disk: &SimDisk, fails: Option<u64>| {
        let arm = || fails.into_iter().for_each(|after| disk.arm(Fault::ReadFails, after));
        arm();
        let steps = read_steps(disk, dir()).expect("readable").expect("one half is sound");
        arm();
        let mark = mark_of(disk);
        assert_eq!(disk.disarm(), 0, "all have failed");
        (mark, steps)
    };
    for (rotten, fails) in [(0, 1), (1, 0), (2, 3), (3, 2)] {
        let disk = disk.fork(1);
        disk.flip_bit(&path, Position::new(rotten * 4096 + 30), 0);
        assert_eq!(said(&disk, Some(fails)), said(&disk, None), "{rotten}");
    }
}

/// Written by a version that knew no steps. A full disk has no place for them.
#[test]
fn a_mark_without_steps_gets_some_when_there_are() {
    for is_full in [false, true] {
        let disk = SimDisk::new(1);
        let mut log = open(&disk);
        append(&mut log, "1");
        let path = dir().join(END_MARK_FILE_NAME);
        let file = disk.open(&path, Access::Write).expect("a mark");
        file.set_size(2 * 4096).expect("shorter");
        file.sync_data().expect("works");
        let at = |boot_ms| Now { wall_ms: now(boot_ms).wall_ms + 20_000, boot_ms };
        disk.limit_space(is_full.then(|| disk.space_bytes()));
        log.append(vec![event("a", "later")], at(2_000)).expect("open");
        log.run_ops(at(2_000));
        let written = |disk: &SimDisk| {
            let disk = disk.fork(2).power_cut();
            let steps = read_steps(&disk, dir()).expect("readable").expect("sound");
            (mark_of(&disk), steps)
        };
        let steps = vec![PastStep { time_ms: at(2_000).wall_ms, ahead_ms: 20_000 }];
        if is_full {
            assert_eq!(written(&disk), (mark(0, 2), vec![]), "what has its place is written");
            disk.limit_space(None);
            log.run_ops(at(62_000));
        }
        assert_eq!(written(&disk), (mark(0, 2), steps));
    }
}

#[test]
fn a_mark_of_a_newer_version_is_left_alone() {
    let (disk, _) = two_lives();
    let mut slot = mark(5, 10).encode(9);
    slot[8] = 2;
    let sum = crc_without_field(&slot).to_le_bytes();
    slot[CRC_AT..CRC_AT + 4].copy_from_slice(&sum);
    let file = disk.open(&dir().join(END_MARK_FILE_NAME), Access::Write).expect("a mark");
    file.write_at(&slot, Position::default()).expect("written");
    assert!(matches!(open_error(&disk), OpenError::NewerVersion { version: 2, .. }));
    let verified = verify(&disk, dir(), &mut |_| {});
    assert!(matches!(verified, Err(OpenError::NewerVersion { .. })), "{verified:?}");
    let planned = repair::plan(&disk, dir());
    assert!(matches!(planned, Err(OpenError::NewerVersion { .. })), "{planned:?}");
}

/// The log goes on without, and the mark is written again later; a failed sync leaves a page cache that shows what the
/// device does not have, so that it is a new file then.
#[test]
fn a_mark_that_cannot_be_written_holds_nothing_up() {
    for is_direct in [true, false] {
        let disk = SimDisk::new(1);
        disk.refuse_direct(!is_direct);
        let mut log = open(&disk);
        append_each(&mut log, 3);
        log.run_ops(now(5_000));
        disk.arm(if is_direct { Fault::WriteFails } else { Fault::SyncFails }, 0);
        while let Some(op) = log.next_op(now(10_000)) {
            log.complete(op.run(&disk), now(10_000));
        }
        assert_eq!(disk.disarm(), 0);
        assert!(log.poisoned().is_none());
        let notices = log.take_notices();
        assert!(
            notices.iter().any(|notice| matches!(notice, Notice::MarkFailed { .. })),
            "{notices:?}"
        );
        append_each(&mut log, 3);
        assert_eq!(log.visible(), Offset::new(6), "appends go on");
        let cut = disk.fork(5).power_cut();
        assert!(mark_of(&cut).synced <= Offset::new(3), "what is there of it is true");
        drop(open(&cut));
        log.run_ops(now(80_000));
        assert_eq!(mark_of(&disk), mark(0, 6), "written again");
        assert_eq!(mark_of(&disk.fork(6).power_cut()), mark(0, 6));
        // A close does not wait for it either.
        append_each(&mut log, 1);
        log.begin_close();
        while let Some(op) = log.next_op(now(80_001)) {
            if matches!(op, Op::Job { .. }) {
                disk.arm(Fault::WriteFails, 0);
            }
            log.complete(op.run(&disk), now(80_001));
        }
        assert!(log.is_closed() && log.poisoned().is_none());
    }
}

#[test]
fn a_mark_needs_no_space_of_a_full_disk() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    append_each(&mut log, 2);
    disk.limit_space(Some(disk.space_bytes()));
    log.run_ops(now(10_000));
    assert_eq!(mark_of(&disk), mark(0, 2));
    close(&mut log);
    drop(log);
    assert_eq!(mark_of(&disk), mark(0, 2));
}

/// A crash in any operation of a start, of a roll and of a close: the log opens, with all that was synced.
#[test]
fn a_crash_at_any_step_leaves_a_mark_that_is_true() {
    for direct_refused in [false, true] {
        for operation in 1.. {
            let disk = SimDisk::new(operation);
            disk.create_dir(dir()).expect("an empty disk");
            disk.refuse_direct(direct_refused);
            disk.crash_after(Some(operation));
            let mut acknowledged = Offset::ZERO;
            for _ in 0..2 {
                let Ok((mut log, _)) = Log::open(disk.clone(), dir(), tiny(), now(0)) else {
                    break;
                };
                for number in 0..20 {
                    let _ = log.append(vec![event("a", &format!("{number}"))], now(1));
                    log.run_ops(now(2 + 3_000 * number));
                }
                log.begin_close();
                log.run_ops(now(70_000));
                acknowledged = acknowledged.max(log.synced());
            }
            let is_crashed = disk.is_crashed();
            let disk = if operation % 2 == 0 { disk.power_cut() } else { disk.kill() };
            let mark = read(&disk, dir()).expect("readable");
            let mark = mark.map(|mark| mark.expect("a crash leaves one slot whole"));
            let (log, _) = Log::open(disk.clone(), dir(), tiny(), now(0))
                .unwrap_or_else(|error| panic!("{error}, crashed at {operation}"));
            assert!(log.visible() >= acknowledged, "crashed at {operation}");
            assert!(mark.is_none_or(|mark| mark.synced <= log.visible()), "{mark:?}");
            if !is_crashed {
                assert!(operation > 60, "{operation}");
                break;
            }
        }
    }
}

#[test]
fn backups_and_restored_logs_have_marks_of_their_own() {
    let (disk, _) = two_lives();
    targets(&disk);
    let to = Path::new("/backup");
    let done = back_up_log(&disk, dir(), None, to, Reach::Stopped).expect("sound");
    assert_eq!(done.end, Offset::new(10));
    assert_eq!(read_sound(&disk, to).expect("readable"), Some(mark(5, 10)));
    restore_log(&disk, to, Path::new("/restored"), Until::Offset(Offset::new(7)), now(0))
        .expect("sound");
    assert_eq!(read_sound(&disk, Path::new("/restored")).expect("readable"), Some(mark(7, 7)));

    // A backup beside a server goes no further than what had been synced when it was asked, whatever the log's mark
    // says by now.
    let mut log = open(&disk);
    append_each(&mut log, 5);
    log.run_ops(now(20_000));
    let reach = Reach::Synced(Offset::new(12));
    let beside = Path::new("/beside");
    disk.create_dir(beside).expect("a free name");
    back_up_log(&disk, dir(), None, beside, reach).expect("sound");
    assert_eq!(read_sound(&disk, beside).expect("readable"), Some(mark(10, 12)));
    // A backup whose end is lost is no shorter backup.
    disk.remove(&beside.join("00000000000000000010.1.log")).expect("a file");
    let again = Path::new("/again");
    disk.create_dir(again).expect("a free name");
    restore_log(&disk, beside, again, Until::End, now(0)).expect_err("the end is missing");
    let cut = Until::Offset(Offset::new(9));
    let again = Path::new("/cut");
    disk.create_dir(again).expect("a free name");
    assert_eq!(restore_log(&disk, beside, again, cut, now(0)).expect("before").end, Offset::new(9));
}
