//! Backups of a log with snapshots, and what is restored of them.

use super::*;

/// What proves a loss is not left out, as if there was none.
#[test]
fn a_log_that_ends_before_its_snapshot_is_not_copied_as_a_shorter_one() {
    let disk = filled(3, 200);
    let newest = read::offsets(&names(&disk))[0];
    let short = cut_short(&disk);
    assert!(matches!(refused(&short), OpenError::Corrupt(_)));
    match backed_up(&short) {
        Err(OpenError::Corrupt(damage)) => assert_eq!(damage.file, snapshots(&short)[0]),
        other => panic!("{other:?}"),
    }
    let to = Path::new("/restored");
    for (until, is_refused) in [
        (Until::End, true),
        (Until::Offset(newest), true),
        (Until::TimeMs(u64::MAX), true),
        (Until::Offset(Offset::new(10)), false),
    ] {
        let short = short.fork(1);
        short.create_dir(to).expect("a free name");
        let restored = restore_log(&short, Path::new(DIR), to, until, now(1));
        match restored {
            Err(OpenError::Corrupt(_)) => assert!(is_refused, "{until:?}"),
            Ok(restored) => assert!(!is_refused, "{until:?}: {restored:?}"),
            Err(error) => panic!("{until:?}: {error}"),
        }
    }
    let stopped = StoppedLog::open(&short, Path::new(DIR)).expect("not in use");
    let read = |range: std::ops::Range<u64>| {
        let (mut end, mut gaps) = (0, Vec::new());
        let query = ReadQuery {
            topics: Vec::new(),
            from: Offset::new(range.start),
            end: Offset::new(range.end),
            order: Order::Ascending,
        };
        let take: Taker<'_> = &mut |part| {
            match part {
                Ok(hits) => end = hits.events().last().map_or(end, |e| e.offset().get() + 1),
                Err(ReadError::Gap { from, to, .. }) => gaps.push((from.get(), to.get())),
                Err(error) => panic!("{error}"),
            }
            ControlFlow::Continue(())
        };
        stopped.read(&query, take).expect("of this version");
        (end, gaps)
    };
    let (end, gaps) = read(0..u64::MAX);
    assert_eq!(gaps, [(end, newest.get())]);
    assert_eq!(read(end + 1..u64::MAX).1, [(end + 1, newest.get())]);
    assert_eq!(read(0..end).1, []);
    assert_eq!(read(newest.get()..u64::MAX).1, []);
}

/// An attempt before may have copied a snapshot that was damaged, and made anew since.
#[test]
fn a_backup_that_is_tried_again_takes_snapshots_anew() {
    let disk = filled(4, 100);
    let backup = backed_up(&disk).expect("backed up");
    let name = file_name(read::offsets(&names(&disk))[0]);
    remove(&disk, &backup.join(&name));
    write(&disk, &backup.join(&name), b"an old one");
    backed_up(&disk).expect("backed up");
    assert_eq!(disk.bytes(&backup.join(&name)), disk.bytes(&Path::new(DIR).join(&name)));
}

/// A backup of a log whose stubs were merged is one that opens, and can be cut wherever the log still is.
#[test]
fn a_backup_is_restored_to_any_offset_that_is_kept() {
    let disk = retained(8);
    let (from, to) = (Path::new("/backup"), Path::new("/restored"));
    disk.create_dir(from).expect("a free name");
    let done = back_up_log(&disk, Path::new(DIR), None, from, Reach::Stopped).expect("backed up");
    let found = verify(&disk, from, &mut |finding| panic!("{finding}")).expect("not in use");
    assert_eq!(found.end, done.end);
    let begin = ground(&disk);
    for cut in (begin.get()..=done.end.get()).step_by(7).map(Offset::new) {
        let disk = disk.fork(1);
        disk.create_dir(to).expect("a free name");
        let restored = restore_log(&disk, from, to, Until::Offset(cut), now(1)).expect("restored");
        let found = verify(&disk, to, &mut |finding| panic!("{finding}")).expect("not in use");
        let kept = disk.list(to).expect("listed");
        assert!(read::offsets(&kept).iter().all(|offset| *offset <= restored.end), "{kept:?}");
        let (log, report) = Log::open(disk, to, config(), now(1)).expect("it opens");
        assert_eq!((report.end, found.end), (restored.end, restored.end));
        assert!(restored.end >= cut.min(log.segments().end()), "{cut}: {restored:?}");
        assert!(log.start() >= begin, "{cut}: nothing is kept before {begin}, not {}", log.start());
        assert!(log.ids().iter().all(|id| id.offset < restored.end));
    }
    disk.create_dir(to).expect("a free name");
    let before = Until::Offset(Offset::new(begin.get() - 1));
    let refused = restore_log(&disk, from, to, before, now(1)).expect_err("nothing is kept there");
    assert!(refused.to_string().contains("cut later"), "{refused}");
}

/// Where the last event before a snapshot was gone, and behind the cut in time, the log ended where the snapshot is all the same:
/// that was copied, and what it knew of that event with it.
#[test]
fn no_snapshot_from_behind_a_cut_in_time_is_copied() {
    let disk = SimDisk::new(5);
    let compacting = LogConfig { snapshot_segments: 1, ..config() };
    let opened = Log::open(disk.clone(), Path::new(DIR), compacting, now(1));
    let (mut log, _) = opened.expect("a new log");
    for at_ms in (0..1_200).step_by(10) {
        let topic = if at_ms % 30 == 0 { "kept" } else { "gone" };
        let id = Some(EventId::parse(&format!("id-{at_ms}")).expect("an id"));
        log.append(vec![NewEvent { id, ..event(topic, "1") }], now(at_ms)).expect("staged");
        log.run_ops(now(at_ms));
    }
    let deleted = Control::Deleted(TopicsDeleted::of(vec!["gone".into()]));
    log.append_control(&deleted, now(1_200)).expect("staged");
    log.run_ops(now(1_200));
    log.run_ops(now(60_000));
    assert!(log.compaction_totals().segments > 3, "{:?}", log.compaction_totals());
    drop(log);
    let disk = disk.kill();
    let (to, mut ends_there) = (Path::new("/restored"), 0);
    for offset in read::offsets(&names(&disk)) {
        let header = read::read_header(&disk, Path::new(DIR), offset).expect("readable");
        let cut_ms = header.expect("sound").last_time_ms;
        let disk = disk.fork(1);
        disk.create_dir(to).expect("a free name");
        let until = Until::TimeMs(cut_ms);
        let restored = restore_log(&disk, Path::new(DIR), to, until, now(1)).expect("restored");
        ends_there += usize::from(restored.end == offset);
        let copied = read::offsets(&disk.list(to).expect("listed"));
        assert!(!copied.contains(&offset), "{offset}: {copied:?}");
        let (log, _) = Log::open(disk, to, config(), now(1)).expect("it opens");
        let is_known = |at: Offset| log.ids().iter().any(|id| id.offset == at);
        let last = Offset::new(offset.get() - 1);
        assert!(!is_known(last), "{last} lies behind the cut");
        assert!(is_known(Offset::new(last.get() - 1)), "and the one before it does not");
    }
    assert!(ends_there > 0, "no snapshot was in the way");
}
