use std::ops::ControlFlow;

use super::*;
use crate::{
    config::LogConfig,
    event::EventView,
    io::sim::SimDisk,
    log::Log,
    repair,
    segment::SegmentFile,
    stopped::StoppedLog,
    testing::{TestLog, everything, now, read_all},
    verify::verify,
};

mod producers;

fn log() -> TestLog {
    let frames = |count: usize| {
        let topics = ["a", "b", "c", "a"];
        vec![topics.iter().map(|topic| (*topic, vec![7; 300])).collect::<Vec<_>>(); count]
    };
    let mut log = TestLog::new(1);
    log.add_sealed(&frames(3));
    log.add_sealed(&frames(2));
    log.add_unsealed(&frames(1));
    log.add_unsealed(&frames(2));
    log
}

/// Offsets and times, or from where to where.
type Pairs = Vec<(u64, u64)>;

/// Restores, and gives the offsets and times of the events that are there then, and the gaps.
fn restored(disk: &SimDisk, until: Until) -> (Restored, Pairs, Pairs) {
    let disk = disk.fork(2);
    let to = Path::new("/restored");
    disk.create_dir(to).expect("a free name");
    let restored = restore_log(&disk, Path::new("/log"), to, until, now()).expect("a sound log");
    let found = verify(&disk, to, &mut |finding| panic!("{finding}")).expect("not in use");
    assert_eq!(found.end, restored.end);
    let config = LogConfig::default();
    let (log, report) = Log::open(disk, to, config, now()).expect("it opens");
    assert_eq!((report.tag, report.end), (restored.tag, restored.end));
    assert_ne!(report.tag, Tag::parse("test1").expect("a tag"), "its history is another one");
    let pair = |event: EventView<'_>| (event.offset().get(), event.time_ms());
    let (events, gaps) = read_all(log.segments(), &everything(), pair);
    (restored, events, gaps)
}

#[test]
fn a_log_is_cut_at_any_offset_and_any_time() {
    let log = log();
    let all: Vec<(u64, u64)> =
        log.events.iter().map(|event| (event.offset, event.time_ms)).collect();
    assert_eq!(restored(&log.disk, Until::End).1, all);
    for cut in 0..=33 {
        let (restored, events, _) = restored(&log.disk, Until::Offset(Offset::new(cut)));
        let expected = &all[..usize::try_from(cut).expect("small").min(32)];
        assert_eq!(events, expected, "cut {cut}");
        assert_eq!(restored.end, Offset::new(cut.min(32)));
    }
    for cut_ms in (1_000..1_340).step_by(5) {
        let (_, events, _) = restored(&log.disk, Until::TimeMs(cut_ms));
        let expected: Vec<_> = all.iter().copied().filter(|(_, time)| *time < cut_ms).collect();
        assert_eq!(events, expected, "cut {cut_ms}");
    }
}

/// It took the newest generation that has an index, be that damaged.
#[test]
fn a_restored_log_has_the_generations_that_a_start_takes() {
    // In the header of the index, and behind it.
    for damaged_at in [100, 600] {
        let log = log();
        log.add_cut_short(1, damaged_at);
        for cut in [0, 12, 14, 20, 32] {
            let (restored, events, gaps) = restored(&log.disk, Until::Offset(Offset::new(cut)));
            assert_eq!((restored.end, gaps), (Offset::new(cut), vec![]), "{damaged_at}");
            assert_eq!(events.len() as u64, cut, "{damaged_at}");
        }
        // Nobody knows which counts: what lies before needs none of them.
        let index = log.path(log.segments[1].0, SegmentFile::Index);
        log.disk.flip_bit(&index, Position::new(damaged_at), 1);
        assert_eq!(restored(&log.disk, Until::Offset(Offset::new(12))).1.len(), 12);
    }
}

#[test]
fn a_torn_end_is_left_out_and_damage_refused() {
    let log = log();
    let (name, places) = &log.segments[3];
    let path = log.path(*name, SegmentFile::Log);
    log.disk.flip_bit(&path, Position::new(places[1].position + 90), 0);
    assert_eq!(restored(&log.disk, Until::End).0.end, Offset::new(28));
    log.disk.flip_bit(&path, Position::new(places[1].position + 90), 0);
    log.disk.flip_bit(&path, Position::new(places[0].position + 90), 0);
    let to = Path::new("/restored");
    log.disk.create_dir(to).expect("a free name");
    let refused = restore_log(&log.disk, &log.dir, to, Until::End, now());
    assert!(matches!(refused, Err(OpenError::Corrupt(_))), "{refused:?}");
}

/// It was a panic.
#[test]
fn a_file_under_the_name_of_another_is_refused() {
    let log = log();
    let [from, name] = [2, 3].map(|segment| log.path(log.segments[segment].0, SegmentFile::Log));
    let bytes = log.disk.bytes(&from).expect("a file");
    let file = log.disk.open(&name, Access::Write).expect("a file");
    file.write_all_at(&bytes, Position::default()).expect("a disk that works");
    let to = Path::new("/restored");
    log.disk.create_dir(to).expect("a free name");
    let refused = restore_log(&log.disk, &log.dir, to, Until::End, now());
    let Err(OpenError::Corrupt(corruption)) = refused else { panic!("{refused:?}") };
    assert_eq!(
        (corruption.file, corruption.what),
        (name, "its header says that it begins at 20".to_owned())
    );
}

/// What a repair found to be lost stays a gap, and is cut with the rest.
#[test]
fn a_repaired_backup_is_restored_with_its_gaps() {
    let log = log();
    for segment in [0, 3] {
        let (name, places) = &log.segments[segment];
        let path = log.path(*name, SegmentFile::Log);
        log.disk.flip_bit(&path, Position::new(places[0].position + 90), 0);
    }
    repair::repair(&log.disk, &log.dir, now()).expect("a disk that works").expect("damage");
    for (until, gaps) in [
        (Until::End, vec![(0, 4), (24, 28)]),
        (Until::Offset(Offset::new(26)), vec![(0, 4), (24, 26)]),
        (Until::Offset(Offset::new(24)), vec![(0, 4)]),
        (Until::Offset(Offset::new(3)), vec![(0, 3)]),
    ] {
        assert_eq!(restored(&log.disk, until).2, gaps, "{until:?}");
    }
}

fn small_segments() -> LogConfig {
    LogConfig {
        segment_bytes: 64 << 10,
        frame_bytes_target: 8 << 10,
        frame_bytes_max: 64 << 10,
        event_bytes_max: 32 << 10,
        preallocate_bytes_min: 16 << 10,
        preallocate_bytes_max: 32 << 10,
        compress_after_s: 1_000_000,
        ..LogConfig::default()
    }
}

/// Ids of events before the cut are known, though compaction has taken the events; those behind it are not.
#[test]
fn a_cut_in_a_rewritten_segment_keeps_what_it_carries() {
    let config = small_segments();
    let disk = SimDisk::new(1);
    let open = |disk: &SimDisk, dir: &Path| {
        Log::open(disk.clone(), dir, config.clone(), now()).expect("it opens").0
    };
    let dir = Path::new("/log");
    let mut log = open(&disk, dir);
    for number in 0..40 {
        let topic = if number % 2 == 0 { "kept" } else { "gone" };
        let mut event = crate::testing::event(topic, &vec![1; 1_000]);
        event.id = Some(crate::event::EventId::parse(&format!("id-{number}")).expect("an id"));
        let id = crate::append::ProducerId::parse(&format!("p{}", number % 10)).expect("a name");
        let scope = crate::append::OffsetScope::Log;
        let producer = crate::append::ProducerClaim { id, epoch: 0, seq: number / 10, scope };
        let (events, expected) = (vec![event], None);
        let append = crate::append::Append { events, expected, producer: Some(producer) };
        log.append(append, now()).expect("staged");
        log.run_ops(now());
    }
    let deleted = crate::control::TopicsDeleted::of(vec!["gone".into()]);
    log.append_control(&crate::control::Control::Deleted(deleted), now()).expect("staged");
    log.run_ops(now());
    let later = Now { boot_ms: 100_000, ..now() };
    log.run_ops(later);
    let first = log.segments().iter().next().expect("sealed").clone();
    assert_eq!((first.name().generation, first.base()), (2, Offset::ZERO), "it was rewritten");
    let end = first.end();
    drop(log);
    let disk = disk.kill();
    for cut in 1..end.get() {
        let (disk, to) = (disk.fork(cut), Path::new("/restored"));
        disk.create_dir(to).expect("a free name");
        let until = Until::Offset(Offset::new(cut));
        restore_log(&disk, dir, to, until, now()).expect("restored");
        let log = open(&disk, to);
        let ids: Vec<_> = log.ids().iter().map(|id| id.offset.get()).collect();
        assert_eq!(ids, (0..cut).collect::<Vec<_>>(), "cut at {cut}");
        // Of a producer that went on behind the cut what is left of its events says how far it had come.
        for known in log.producers().iter() {
            assert!(known.first.get() < cut, "cut at {cut}");
        }
        assert!(log.producers().len() as u64 >= cut.min(10) / 2, "cut at {cut}");
    }
}

/// A log of which each event is 10 ms later than the one before and has an id, or is one of a producer's, and the first
/// of which are gone. At offset 7 something is set.
fn log_with_what_is_gone(gone: Gone) -> (SimDisk, LogConfig) {
    use crate::{
        append::{Append, OffsetScope, ProducerClaim, ProducerId},
        control::{Control, TopicRule, TopicsDeleted},
        event::EventId,
        settings::{LogRetention, LogSettings, TopicSettings},
    };
    let config = small_segments();
    let (disk, dir) = (SimDisk::new(1), Path::new("/log"));
    let (mut log, _) = Log::open(disk.clone(), dir, config.clone(), now()).expect("new");
    let at = |offset: u64| Now { wall_ms: BEGIN_MS + offset * 10, boot_ms: 1 + offset * 10 };
    for offset in 0..60 {
        let topic = if gone == Gone::DeletedButSome && offset % 3 == 0 { "kept" } else { "gone" };
        if offset == 7 {
            let (pattern, settings) = ("x".to_owned(), Some(TopicSettings::default()));
            let rule = Control::Topic(TopicRule { pattern, settings });
            log.append_control(&rule, at(offset)).expect("staged");
        } else {
            let mut event = crate::testing::event(topic, &[1; 1_000]);
            let producer = (offset % 4 == 1).then(|| {
                let id = ProducerId::parse("p").expect("a name");
                ProducerClaim { id, epoch: 0, seq: offset / 4, scope: OffsetScope::Log }
            });
            if producer.is_none() {
                event.id = Some(EventId::parse(&format!("id-{offset}")).expect("an id"));
            }
            let append = Append { events: vec![event], expected: None, producer };
            log.append(append, at(offset)).expect("staged");
        }
        log.run_ops(at(offset));
    }
    let retain = LogRetention { count: Some(5), ..LogRetention::default() };
    let control = match gone {
        Gone::Limited => Control::Log(LogSettings { retain }),
        _ => Control::Deleted(TopicsDeleted::of(vec!["gone".into()])),
    };
    log.append_control(&control, at(60)).expect("staged");
    log.run_ops(at(60));
    log.run_ops(Now { boot_ms: 100_000, ..at(60) });
    drop(log);
    (disk.kill(), config)
}

const BEGIN_MS: u64 = 1_700_000_000_000;

/// What has become of its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gone {
    /// A limit of the log has passed them.
    Limited,
    /// Their topic was deleted,
    Deleted,
    /// but each third is of another one.
    DeletedButSome,
}

/// Restores that log up to each place and each time, and looks at what the restored one knows.
fn nothing_behind_a_cut_is_known(gone: Gone) {
    let (disk, config) = log_with_what_is_gone(gone);
    let (dir, to) = (Path::new("/log"), Path::new("/restored"));
    let names = disk.list(dir).expect("the directory");
    let mut listed = listing::segments(&names);
    listed.retain(|listed| listed.has_index);
    listed.retain(|listed| listing::is_stub(&disk, dir, listed.name).expect("readable"));
    let stubs = match gone {
        Gone::Limited => 3..=4,
        Gone::Deleted => 2..=3, // What is set stays with its segment.
        Gone::DeletedButSome => 0..=0,
    };
    assert!(stubs.contains(&listed.len()), "{listed:?}");
    let stubs_from = listed.first().map_or(u64::MAX, |first| first.name.base_offset.get());
    let headers = listed.iter().map(|stub| listing::index_header(&disk, dir, stub.name));
    let ends: Vec<_> =
        headers.map(|header| header.expect("readable").expect("sound").end_offset.get()).collect();
    // (cut, the first offset behind it)
    let offsets = (1..40).map(|cut| (Until::Offset(Offset::new(cut)), cut));
    let times = (1..40).map(|cut| (Until::TimeMs(BEGIN_MS + cut * 10 - 3), cut));
    for (until, cut) in offsets.chain(times) {
        let disk = disk.fork(cut);
        disk.create_dir(to).expect("a free name");
        let restored = restore_log(&disk, dir, to, until, now()).expect("restored");
        let is_before_all = gone == Gone::Limited && cut < ends[ends.len() - 1];
        if is_before_all && matches!(until, Until::Offset(_)) && !ends.contains(&cut) {
            assert!(restored.end.get() > cut, "{until:?}: {} is refused", restored.end);
            continue;
        }
        verify(&disk, to, &mut |finding| panic!("{until:?}: {finding}")).expect("not in use");
        let (log, _) = Log::open(disk.clone(), to, config.clone(), now()).expect("it opens");
        let ids: Vec<_> = log.ids().iter().map(|id| id.offset.get()).collect();
        if gone == Gone::Deleted && cut <= 7 {
            // Before the first event that is left of its segment: there the log ends.
            assert_eq!((ids.len(), restored.end), (0, Offset::ZERO), "{until:?}");
            continue;
        }
        let expected: Vec<_> = (0..cut).filter(|at| *at != 7 && at % 4 != 1).collect();
        assert_eq!(ids, expected, "{until:?}: of events with an id");
        // As far as is known of it; what is appended behind the cut is not.
        let known = log.producers().iter().next().map(|known| known.first.get());
        assert!(known < Some(cut), "{until:?}: {known:?}");
        let last = (0..cut).rev().find(|at| at % 4 == 1);
        assert!(known.is_none_or(|known| known % 4 == 1), "{known:?}");
        assert!(known.is_none() || known <= last, "{until:?}: {known:?}");
        let is_set = log.rules().set_for("x").is_some();
        let end = restored.end.get();
        match until {
            Until::Offset(_) => assert_eq!((is_set, end), (cut > 7, cut), "{until:?}"),
            // What is right before the cut in time may not be known, and what has no time of its own with it.
            _ => assert!(is_set <= (cut > 7) && (is_set || cut < 10), "{until:?}: {is_set}"),
        }
        assert!(cut <= stubs_from || end <= cut, "{until:?}: ends at {end}");
    }
}

/// Whatever is asked for, the first cut that leaves events is the one that is named.
#[test]
fn the_first_cut_leaves_events_and_none_before_it_does() {
    let (dir, to) = (Path::new("/log"), Path::new("/restored"));
    for gone in [Gone::Limited, Gone::Deleted, Gone::DeletedButSome] {
        let (disk, _) = log_with_what_is_gone(gone);
        let first = first_cut(&disk, dir).expect("readable");
        if gone != Gone::Limited {
            assert_eq!(first, None, "{gone:?}: what is set, at offset 7, stays with its segment");
            continue;
        }
        let first = first.expect("its beginning is gone");
        assert!(first.begin < first.cut && first.begin > Offset::ZERO, "{first:?}");
        for cut in 1..60 {
            let disk = disk.fork(cut);
            disk.create_dir(to).expect("a free name");
            let until = Until::Offset(Offset::new(cut));
            restore_log(&disk, dir, to, until, now()).expect("restored");
            let log = StoppedLog::open(&disk, to).expect("it opens");
            let mut events = Vec::new();
            log.read(&everything(), &mut |part| {
                let hits = part.expect("sound");
                events.extend(hits.events().map(|event| event.offset().get()));
                ControlFlow::Continue(())
            })
            .expect("of this version");
            assert_eq!(!events.is_empty(), cut >= first.cut.get(), "{first:?}: {cut}: {events:?}");
            let begin = log.kept_from().expect("readable");
            assert!(events.is_empty() || begin == first.begin, "{first:?}: {cut}: {begin}");
        }
    }
    // Nothing is gone, or there never was anything.
    assert_eq!(first_cut(&log().disk, dir).expect("readable"), None);
    let disk = SimDisk::new(1);
    drop(Log::open(disk.clone(), dir, LogConfig::default(), now()).expect("new"));
    assert_eq!(first_cut(&disk.kill(), dir).expect("readable"), None);
}

/// All of it was taken over, and who sent again what came behind the cut was told that it is there.
#[test]
fn a_cut_in_a_stub_leaves_out_what_is_behind_it() {
    nothing_behind_a_cut_is_known(Gone::Limited);
    nothing_behind_a_cut_is_known(Gone::Deleted);
}

/// The same where some events are left: those that are gone may lie behind the cut, and before the first of which that is
/// seen.
#[test]
fn a_cut_in_a_rewritten_segment_leaves_out_what_is_behind_it() {
    nothing_behind_a_cut_is_known(Gone::DeletedButSome);
}
