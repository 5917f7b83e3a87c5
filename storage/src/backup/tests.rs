use bytes::Bytes;

use super::*;
use crate::{
    clock::Now,
    event::{EventView, NewEvent},
    io::sim::{Fault, SimDisk, rng::SimRng},
    log::Log,
    op::{Job, Op},
    reader::ReadQuery,
    segment::SegmentFile,
    testing::{TestLog, append_numbers, everything, now, read_all, small_segments},
    topic::Topic,
    verify::verify,
};

mod generations;
mod links;

const DIR: &str = "/log";
const TO: &str = "/backup";

/// What a directory holds once it is opened: its tag, and the data of its events.
fn opened(disk: &SimDisk, dir: &str) -> (Tag, Vec<String>) {
    let (log, report) =
        Log::open(disk.fork(9), Path::new(dir), small_segments(), now()).expect("it opens");
    let data = |event: EventView<'_>| String::from_utf8_lossy(event.data()).into_owned();
    let (events, gaps) = read_all(log.segments(), &everything(), data);
    assert_eq!(gaps, [], "a sound log");
    (report.tag, events)
}

fn back_up(disk: &SimDisk, to: &str, previous: Option<&str>, reach: Reach) -> BackedUp {
    disk.create_dir(Path::new(to)).expect("a free name");
    let previous = previous.map(Path::new);
    let done = back_up_log(disk, Path::new(DIR), previous, Path::new(to), reach);
    let done = done.expect("a log that is sound");
    let found = verify(disk, Path::new(to), &mut |finding| panic!("{finding}"));
    assert_eq!(found.expect("not in use").end, done.end);
    done
}

/// Beside a log that goes on, at any moment: what had been synced is there, what had not is not, and the
/// tag is the same.
#[test]
fn a_backup_of_a_running_log_is_what_had_been_synced() {
    for seed in 0..30 {
        let rng = &mut SimRng::new(seed);
        let disk = SimDisk::new(seed);
        let (mut log, _) =
            Log::open(disk.clone(), Path::new(DIR), small_segments(), now()).expect("new");
        append_numbers(&mut log, rng.index(90));
        let all = log.visible();
        // What the server said a while ago, when frames behind it were still on their way.
        let synced = Offset::new(rng.between(all.get().saturating_sub(9), all.get()));
        let done = back_up(&disk, TO, None, Reach::Synced(synced));
        let sealed = log.segments().end();
        assert_eq!(done.end, synced.max(sealed), "seed {seed}");
        let (tag, events) = opened(&disk, TO);
        assert_eq!((tag, done.tag), (*log.tag(), Some(*log.tag())));
        let expected: Vec<String> = (0..done.end.get()).map(|at| at.to_string()).collect();
        assert_eq!(events, expected, "seed {seed}");
        // It is not touched by what comes later, and the next one has all of it.
        append_numbers(&mut log, 60);
        assert_eq!(opened(&disk, TO).1, expected, "seed {seed}");
        let next = back_up(&disk, "/backup2", Some(TO), Reach::Synced(log.visible()));
        assert_eq!(next.end, log.visible(), "seed {seed}");
        assert_eq!(next.copied, 1, "the tail alone");
        assert_eq!(opened(&disk, "/backup2").1.len() as u64, log.visible().get());
    }
}

#[test]
fn a_backup_of_a_stopped_log_is_what_the_next_start_keeps() {
    let mut log = TestLog::new(1);
    let frames = |count: usize| vec![vec![("a", vec![7; 700]), ("b", Vec::new())]; count];
    log.add_sealed(&frames(5));
    log.add_unsealed(&frames(3));
    log.add_unsealed(&frames(4));
    let last = log.segments[2].clone();
    let path = log.path(last.0, SegmentFile::Log);
    // Its last frame is torn.
    log.disk.flip_bit(&path, Position::new(last.1[3].position + 90), 0);
    let done = back_up(&log.disk, TO, None, Reach::Stopped);
    assert_eq!((done.end, done.linked, done.copied), (Offset::new(22), 2, 2));
    assert_eq!(opened(&log.disk, TO).1.len(), 22);
    // Damage below what had been synced is not copied in silence.
    log.disk.flip_bit(&path, Position::new(last.1[0].position + 90), 0);
    let again = Path::new("/again");
    log.disk.create_dir(again).expect("a free name");
    let refused = back_up_log(&log.disk, &log.dir, None, again, Reach::Stopped);
    assert!(matches!(refused, Err(OpenError::Corrupt(_))), "{refused:?}");
}

/// Two segments that are sealed while the list is made: it may show the second as sealed, and the first not. The backup had a
/// hole, and the log was said to be damaged.
#[test]
fn a_backup_of_a_running_log_ends_before_what_it_cannot_tell_to_be_sealed() {
    let frames = vec![vec![("a", vec![7; 700])]; 3];
    let mut log = TestLog::new(1);
    log.add_sealed(&frames);
    log.add_unsealed(&frames);
    log.add_sealed(&frames);
    let done = back_up(&log.disk, TO, None, Reach::Synced(Offset::new(2)));
    assert_eq!((done.end, done.linked), (Offset::new(3), 2));
    assert_eq!(opened(&log.disk, TO).1.len(), 3);
    // Nor does it go on where the list has lost one, wherever that is: it is listed anew, and here that stays so.
    for file in [SegmentFile::Log, SegmentFile::Index] {
        let path = log.path(log.segments[1].0, file);
        log.disk.remove_if_there(&path).expect("a disk that works");
    }
    for synced in [2, 3, 6, 9] {
        let to = PathBuf::from(format!("/to{synced}"));
        log.disk.create_dir(&to).expect("a free name");
        let reach = Reach::Synced(Offset::new(synced));
        let made = back_up_log(&log.disk, &log.dir, None, &to, reach);
        let Err(OpenError::MissingSegment { from, to, .. }) = made else { panic!("{made:?}") };
        assert_eq!((from, to), (Offset::new(3), Offset::new(6)));
    }
}

/// It took the newest generation that has an index, be that damaged.
#[test]
fn a_backup_of_a_stopped_log_has_the_generations_that_a_start_takes() {
    // In the header of the index, and behind it.
    for damaged_at in [100, 600] {
        let mut log = TestLog::new(1);
        let frames = vec![vec![("a", vec![7; 700])]; 3];
        let first = log.add_sealed(&frames);
        log.add_unsealed(&frames);
        let newer = log.add_cut_short(0, damaged_at);
        back_up(&log.disk, TO, None, Reach::Stopped);
        assert_eq!(opened(&log.disk, TO).1.len(), 6, "{damaged_at}");
        let names = log.disk.list(Path::new(TO)).expect("a directory");
        assert!(!names.contains(&newer.log_file_name()), "{damaged_at}: {names:?}");
        // Where nobody knows which counts a start refuses the log.
        let index = log.path(first, SegmentFile::Index);
        log.disk.flip_bit(&index, Position::new(damaged_at), 1);
        let again = Path::new("/again");
        log.disk.create_dir(again).expect("a free name");
        let refused = back_up_log(&log.disk, &log.dir, None, again, Reach::Stopped);
        assert!(matches!(refused, Err(OpenError::Corrupt(_))), "{damaged_at}: {refused:?}");
    }
}

/// A file system may refuse any link: that file is copied. What else fails is told, and tried again it goes on; nothing
/// is ever left out in silence.
#[test]
fn what_cannot_be_linked_is_copied_and_what_cannot_be_asked_is_told() {
    let disk = SimDisk::new(3);
    let (mut log, _) =
        Log::open(disk.clone(), Path::new(DIR), small_segments(), now()).expect("new");
    append_numbers(&mut log, 240);
    let reach = Reach::Synced(log.visible());
    let whole = back_up(&disk, TO, None, reach);
    append_numbers(&mut log, 240);
    let reach = Reach::Synced(log.visible());
    let expected: Vec<String> = (0..480).map(|at| at.to_string()).collect();
    assert!(whole.linked > 5, "{whole:?}");
    let faults = [
        Fault::LinkFails,
        Fault::ListFails,
        Fault::StatFails,
        Fault::OpenFails,
        Fault::ReadFails,
        Fault::CreateFails,
        Fault::RenameFails,
        Fault::SyncDirFails,
    ];
    for fault in faults {
        let (mut after, mut refused) = (0, 0);
        loop {
            let disk = disk.fork(after).kill();
            let to = Path::new("/next");
            disk.create_dir(to).expect("a free name");
            let make = || back_up_log(&disk, Path::new(DIR), Some(Path::new(TO)), to, reach);
            disk.arm(fault, after);
            let mut made = make();
            let has_struck = disk.disarm() == 0;
            if let Err(error) = &made {
                assert!(has_struck && matches!(error, OpenError::Io { .. }), "{fault:?} {error}");
                refused += 1;
                made = make();
            }
            let made = made.expect("nothing fails any more");
            assert_eq!(made.end, log.visible(), "{fault:?} after {after}");
            assert_eq!(opened(&disk, "/next").1, expected, "{fault:?} after {after}");
            if !has_struck {
                break;
            }
            after += 1;
        }
        assert!(after > 0, "{fault:?}");
        assert_eq!(refused == 0, fault == Fault::LinkFails, "{fault:?}: {refused} of {after}");
    }
    (0..1_000).for_each(|_| disk.arm(Fault::LinkFails, 0));
    let done = back_up(&disk, "/copied", Some(TO), reach);
    disk.disarm();
    assert_eq!((done.linked, opened(&disk, "/copied").1), (0, expected));
}

/// The log's file was named, where the disk of the copy had no space: they may be two.
#[test]
fn what_finds_no_space_is_named_and_not_what_is_copied() {
    use crate::restore::{Until, restore_log};
    let disk = SimDisk::new(3);
    let (mut log, _) =
        Log::open(disk.clone(), Path::new(DIR), small_segments(), now()).expect("new");
    append_numbers(&mut log, 240);
    drop(log);
    let (dir, to) = (Path::new(DIR), Path::new(TO));
    disk.keep_apart(dir);
    disk.create_dir(to).expect("a free name");
    disk.limit_space(Some(disk.space_bytes() + 4096));
    let backed_up = back_up_log(&disk, dir, None, to, Reach::Stopped).expect_err("it is full");
    for name in disk.list(to).expect("a directory") {
        disk.remove(&to.join(name)).expect("a file");
    }
    let restored = restore_log(&disk, dir, to, Until::End, now()).expect_err("it is full");
    for error in [backed_up, restored] {
        let OpenError::Io { file, source, .. } = &error else { panic!("{error}") };
        assert!(file.starts_with(to) && source.kind() == io::ErrorKind::StorageFull, "{error}");
    }
}

/// What is asked before a backup takes the place of another directory.
#[test]
fn a_directory_says_which_log_it_holds_and_how_far() {
    let disk = SimDisk::new(4);
    let dir = Path::new(DIR);
    disk.create_dir(dir).expect("a free name");
    assert_eq!(last_segment(&disk, dir).expect("listed"), LastSegment::default());
    assert_eq!(end_of(&disk, dir).expect("listed"), Offset::ZERO);
    for count in [1, 20, 40, 40] {
        let (mut log, _) = Log::open(disk.clone(), dir, small_segments(), now()).expect("it opens");
        append_numbers(&mut log, count);
        let said = last_segment(&disk, dir).expect("a log");
        assert_eq!((said.tag, said.sync), (Some(*log.tag()), Some(small_segments().sync)));
        let end = log.visible();
        drop(log);
        assert_eq!(end_of(&disk, dir).expect("a log"), end);
    }
    // Sealed segments alone, as the backup of a server that has just begun a file.
    let mut sealed = TestLog::new(1);
    sealed.add_sealed(&vec![vec![("a", vec![7; 700])]; 3]);
    let said = last_segment(&sealed.disk, &sealed.dir).expect("a log");
    assert!(said.tag.is_some() && said.sync.is_none(), "{said:?}");
    assert_eq!(end_of(&sealed.disk, &sealed.dir).expect("a log"), Offset::new(3));
}

/// The server's file was taken for that of a copy where another had its name already, as while one begins, and where that has
/// failed.
#[test]
fn what_takes_appends_is_among_what_has_no_index_at_any_moment() {
    let dir = Path::new(DIR);
    let is_there = |log: &Log<SimDisk>, disk: &SimDisk| {
        let seen = SegmentsSeen::now(disk, dir).expect("listed");
        (seen.begun().contains(&log.active()), seen.begun().len())
    };
    let mut rolls = 0;
    for fails in [false, true] {
        let disk = SimDisk::new(6);
        let (mut log, _) =
            Log::open(disk.clone(), dir, small_segments(), now()).expect("a new log");
        let mut most = 0;
        for _ in 0..120 {
            if log.poisoned().is_some() {
                break;
            }
            log.append(vec![crate::testing::event("a", &[1; 900])], now()).expect("staged");
            while let Some(op) = log.next_op(now()) {
                let is_roll = matches!(&op, Op::Job { job: Job::Roll(_), .. });
                if is_roll && fails {
                    disk.arm(Fault::SyncDirFails, 0);
                }
                let outcome = op.run(&disk);
                // The new one has its name, and the log does not know of it yet.
                let (is_among, count) = is_there(&log, &disk);
                assert!(is_among, "{count} have no index");
                log.complete(outcome, now());
                assert!(is_there(&log, &disk).0);
                most = most.max(count);
                rolls += usize::from(is_roll);
            }
        }
        assert!(most > 1, "{most}");
    }
    assert!(rolls > 2, "{rolls}");
}

/// A copy has its tag, and what takes appends there is another file.
#[test]
fn what_a_copy_appends_to_is_not_among_what_has_no_index() {
    let disk = SimDisk::new(7);
    let dir = Path::new(DIR);
    let (mut log, _) = Log::open(disk.clone(), dir, small_segments(), now()).expect("new");
    append_numbers(&mut log, 20);
    drop(log);
    let copy = disk.fork(8);
    let later = Now { wall_ms: now().wall_ms + 1, ..now() };
    let (log, _) = Log::open(disk.clone(), dir, small_segments(), now()).expect("it opens");
    let (other, _) = Log::open(copy.clone(), dir, small_segments(), later).expect("it opens");
    let seen = |disk: &SimDisk| SegmentsSeen::now(disk, dir).expect("listed");
    assert_eq!(seen(&disk).begun(), [log.active()]);
    assert_eq!(seen(&copy).begun(), [other.active()]);
    assert_ne!(log.active(), other.active());
    let again = seen(&copy).since(&copy, dir).expect("listed");
    assert_eq!(again.begun(), [other.active()], "what it has of the log that it is a copy of");
}

/// A backup beside a busy server, on a processor with no time for it, was told of a segment that had an index by the time
/// when it looked: it took the server for that of another log.
#[test]
fn what_takes_appends_between_two_looks_is_seen_though_many_were_begun_and_sealed() {
    let (disk, dir) = (SimDisk::new(9), Path::new(DIR));
    let (mut log, _) = Log::open(disk.clone(), dir, small_segments(), now()).expect("a new log");
    append_numbers(&mut log, 50);
    for count in [1, 10, 100] {
        let before = SegmentsSeen::now(&disk, dir).expect("listed");
        let mut said = vec![log.active()];
        for _ in 0..count {
            append_numbers(&mut log, 1);
            said.push(log.active());
        }
        let after = before.since(&disk, dir).expect("listed");
        let is_in = |seen: &SegmentsSeen, said| seen.begun().contains(said);
        assert!(said.iter().all(|said| is_in(&before, said) || is_in(&after, said)), "{said:?}");
        let one_look = SegmentsSeen::now(&disk, dir).expect("listed");
        assert!(count < 100 || said.iter().any(|said| !is_in(&one_look, said)), "none was sealed");
    }
}

/// On another file system sealed segments come from the backup before, of which nobody has read what rotted since: one bad
/// block there was in every later backup, and the log was blamed.
#[test]
fn what_rotted_in_the_backup_before_is_taken_from_the_log() {
    let disk = SimDisk::new(7);
    let (mut log, _) =
        Log::open(disk.clone(), Path::new(DIR), small_segments(), now()).expect("new");
    append_numbers(&mut log, 80);
    disk.keep_apart(Path::new(DIR));
    let sealed = log.segments().iter().next().expect("a sealed one").name();
    let rotten = sealed.log_file_name();
    let first = back_up(&disk, TO, None, Reach::Synced(log.visible()));
    assert_eq!((first.linked, first.second_hand), (0, BTreeSet::new()), "another file system");
    disk.flip_bit(&Path::new(TO).join(&rotten), Position::new(4096 + 90), 1);

    let (next, previous) = (Path::new("/next"), Some(Path::new(TO)));
    disk.create_dir(next).expect("a free name");
    let reach = Reach::Synced(log.visible());
    let done = back_up_log(&disk, Path::new(DIR), previous, next, reach).expect("a sound log");
    assert!(done.second_hand.contains(&rotten), "{done:?}");
    let mut found = Vec::new();
    let mut note = |finding: &Corruption| found.push(finding.file.clone());
    verify(&disk, next, &mut note).expect("not in use");
    assert_eq!(found, [next.join(&rotten)]);

    let distrusted = [rotten.clone()];
    let again = back_up_again(&disk, Path::new(DIR), previous, next, reach, &distrusted);
    let again = again.expect("a sound log");
    assert!(!again.second_hand.contains(&rotten) && again.copied > 0, "{again:?}");
    verify(&disk, next, &mut |finding| panic!("{finding}")).expect("not in use");
    assert_eq!(opened(&disk, "/next").1.len(), 80);
    // What the backup before does not give back is copied as well.
    let index = Path::new(TO).join(sealed.index_file_name());
    disk.make_unreadable(&index, 0..4096);
    back_up(&disk, "/last", Some(TO), reach);
}

/// A server whose limits move writes down once a second how far they have come. What it had written while a backup was made
/// said more than that had, and so the backup said nothing.
#[test]
fn what_was_gone_when_a_backup_began_is_gone_in_it() {
    use crate::{
        control::Control,
        settings::{LogRetention, LogSettings},
    };
    let disk = SimDisk::new(8);
    let dir = Path::new(DIR);
    let (mut log, _) = Log::open(disk.clone(), dir, small_segments(), now()).expect("new");
    let retain = LogRetention { count: Some(3), ..LogRetention::default() };
    log.append_control(&Control::Log(LogSettings { retain }), now()).expect("staged");
    let mut boot_ms = now().boot_ms;
    let mut go_on = |log: &mut Log<SimDisk>| {
        append_numbers(log, 3);
        boot_ms += 10_000;
        log.run_ops(Now { boot_ms, ..now() });
        log.start()
    };
    let start = (0..3).map(|_| go_on(&mut log)).last().expect("it is kept from there");
    assert!(start > Offset::ZERO);
    let (reach, kept) =
        (Reach::Synced(log.visible()), earliest::records(&disk, dir).expect("readable"));
    (0..3).for_each(|_| assert!(go_on(&mut log) > start));
    let to = Path::new(TO);
    disk.create_dir(to).expect("a free name");
    let mut backup = Backup {
        disk: &disk,
        from: dir,
        previous: None,
        to,
        reach,
        distrusted: &[],
        kept: &kept,
        second_hand: &mut BTreeSet::new(),
        done: BackedUp::default(),
        last: None,
    };
    backup.run().expect("a sound log");
    assert_eq!(backup.done.end, Offset::new(10));
    assert!(
        earliest::records(&disk, to)
            .expect("readable")
            .iter()
            .any(|record| record.kept_from >= start)
    );
}

/// A server whose limits move takes files away that were listed a moment ago: a backup beside it was refused where that was
/// the last one, before it had begun.
#[test]
fn what_is_gone_since_it_was_listed_is_listed_anew() {
    use crate::{
        control::Control,
        settings::{LogRetention, LogSettings},
    };
    let (disk, dir) = (SimDisk::new(8), Path::new(DIR));
    let (mut log, _) = Log::open(disk.clone(), dir, small_segments(), now()).expect("new");
    let retain = LogRetention { count: Some(3), ..LogRetention::default() };
    log.append_control(&Control::Log(LogSettings { retain }), now()).expect("staged");
    let mut boot_ms = now().boot_ms;
    let mut take_away_what_is_listed = |log: &mut Log<SimDisk>| {
        let active = SegmentName { base_offset: log.segments().end(), generation: 1 };
        let active = dir.join(active.log_file_name());
        assert!(disk.bytes(&active).is_some(), "{}", active.display());
        disk.list_as_of_now(dir);
        append_numbers(log, 60);
        for _ in 0..3 {
            boot_ms += 10_000;
            log.run_ops(Now { boot_ms, ..now() });
        }
        assert!(disk.bytes(&active).is_none(), "{}", active.display());
    };
    take_away_what_is_listed(&mut log);
    let said = last_segment(&disk, dir).expect("a log");
    assert_eq!((said.tag, said.sync), (Some(*log.tag()), Some(small_segments().sync)));
    take_away_what_is_listed(&mut log);
    let done = back_up(&disk, TO, None, Reach::Synced(log.visible()));
    assert_eq!((done.tag, done.end), (Some(*log.tag()), log.visible()));
}

/// A part of the log that was taken when it was not sealed yet is taken whole by the next attempt, and
/// what is gone from the log goes.
#[test]
fn an_attempt_goes_on_where_the_one_before_ended() {
    let disk = SimDisk::new(3);
    let (mut log, _) =
        Log::open(disk.clone(), Path::new(DIR), small_segments(), now()).expect("new");
    append_numbers(&mut log, 10);
    back_up(&disk, TO, None, Reach::Synced(Offset::new(7)));
    append_numbers(&mut log, 70);
    assert!(log.segments().len() > 1);
    let target = Path::new(TO);
    let stray = disk.create(&target.join("00000000000000000003.1.log"), Access::Write);
    drop(stray.expect("a free name"));
    let reach = Reach::Synced(log.visible());
    let done = back_up_log(&disk, Path::new(DIR), None, target, reach).expect("a sound log");
    assert_eq!(done.end, log.visible());
    verify(&disk, target, &mut |finding| panic!("{finding}")).expect("not in use");
    assert_eq!(opened(&disk, TO).1.len(), 80);
}

/// A link keeps all the space of a segment that has gone from the log since, for as long as attempts fail.
#[test]
fn an_attempt_lets_go_of_what_has_gone_from_the_log() {
    let disk = SimDisk::new(4);
    let (mut log, _) =
        Log::open(disk.clone(), Path::new(DIR), small_segments(), now()).expect("new");
    append_numbers(&mut log, 80);
    let reach = Reach::Synced(log.visible());
    back_up(&disk, TO, None, reach);
    let name = log.segments().iter().next().expect("sealed segments").name();
    for file in [name.log_file_name(), name.index_file_name()] {
        disk.remove(&Path::new(DIR).join(file)).expect("it is there");
    }
    back_up_log(&disk, Path::new(DIR), None, Path::new(TO), reach)
        .expect_err("its events are missing");
    let left = disk.list(Path::new(TO)).expect("a directory");
    assert!(!left.contains(&name.log_file_name()), "{left:?}");
}

/// After retention and compaction: stubs, compressed frames, offsets without events. Such a log is sound,
/// backed up, restored up to any place, and repaired.
#[test]
fn what_compaction_has_been_at_is_verified_backed_up_restored_and_repaired() {
    use crate::{
        control::{Control, TopicsDeleted},
        repair,
        restore::{Until, restore_log},
        settings::{LogRetention, LogSettings},
    };
    let disk = SimDisk::new(5);
    let (mut log, _) =
        Log::open(disk.clone(), Path::new(DIR), small_segments(), now()).expect("new");
    for number in 0..240 {
        let event = |topic: &str| {
            let data = format!("\"{number:->700}\"");
            NewEvent::json(Topic::parse(topic).expect("a topic"), Bytes::from(data.into_bytes()))
        };
        log.append(vec![event("keep"), event("gone"), event("keep")], now()).expect("staged");
        log.run_ops(now());
    }
    let retain = LogRetention { count: Some(500), ..LogRetention::default() };
    log.append_control(&Control::Log(LogSettings { retain }), now()).expect("staged");
    let deleted = TopicsDeleted::of(vec!["gone".into()]);
    log.append_control(&Control::Deleted(deleted), now()).expect("staged");
    for minutes in [0, 20, 40] {
        log.run_ops(Now { boot_ms: now().boot_ms + minutes * 60_000, ..now() });
    }
    let names = disk.list(Path::new(DIR)).expect("the directory");
    assert!(names.iter().any(|name| name.ends_with(".2.log")), "rewritten: {names:?}");
    let listed = listing::segments(&names);
    assert!(listed.iter().any(|listed| !names.contains(&listed.name.log_file_name())), "stubs");
    let end = log.visible();

    let done = back_up(&disk, TO, None, Reach::Synced(end));
    assert_eq!(done.end, end);
    let from_start = |disk: &SimDisk, dir: &str| {
        let disk = disk.fork(9);
        let (log, _) = Log::open(disk, Path::new(dir), small_segments(), now()).expect("it opens");
        let query = ReadQuery { from: log.start(), ..everything() };
        read_all(log.segments(), &query, |event| event.offset().get())
    };
    let (all, gaps) = from_start(&disk, TO);
    assert!(all.len() > 200 && gaps.is_empty());
    for cut in [0, 1, 300, 301, 302, 500, 719, 720, 9999] {
        let disk = disk.fork(cut);
        let target = Path::new("/restored");
        disk.create_dir(target).expect("a free name");
        let until = Until::Offset(Offset::new(cut));
        restore_log(&disk, Path::new(TO), target, until, now()).expect("a sound backup");
        verify(&disk, target, &mut |finding| panic!("{finding}")).expect("not in use");
        let (offsets, gaps) = from_start(&disk, "/restored");
        let expected: Vec<u64> = all.iter().copied().filter(|offset| *offset < cut).collect();
        assert_eq!((offsets, gaps), (expected, Vec::new()), "cut {cut}");
    }
    // Damage in a rewritten segment costs one frame, and nothing that compaction had carried over.
    let rewritten = names.iter().filter(|name| name.ends_with(".2.log")).max().expect("one");
    let path = Path::new(TO).join(rewritten);
    disk.flip_bit(&path, Position::new(4096 + 100), 1);
    let repaired = repair::repair(&disk, Path::new(TO), now()).expect("works").expect("damage");
    assert!(repaired.plan.beyond.is_empty(), "{repaired:?}");
    verify(&disk, Path::new(TO), &mut |finding| panic!("{finding}")).expect("not in use");
    let (offsets, gaps) = from_start(&disk, TO);
    assert!(gaps.len() == 1 && offsets.len() < all.len() && offsets.len() > 50, "{gaps:?}");
}
