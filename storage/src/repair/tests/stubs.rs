//! Stubs that are damaged: what they say of events that are gone on purpose a snapshot behind them knows.

use super::*;
use crate::{
    config::LogConfig,
    control::Control,
    index::{INDEX_HEADER_BYTES, IndexHeader, SectionKind},
    log::{
        Notice,
        tests::{event, now, tiny},
    },
    settings::{LogRetention, LogSettings},
};

fn open_with(disk: &SimDisk, snapshot_segments: usize) -> Log<SimDisk> {
    let config = LogConfig { snapshot_segments, compress_after_s: 1_000_000_000, ..tiny() };
    Log::open(disk.clone(), Path::new(DIR), config, now(0)).expect("the log opens").0
}

/// A log in the middle of which a segment has gone that had, among others, an event with an id and one of a producer; and
/// the name of that.
fn emptied(snapshot_segments: usize) -> (SimDisk, SegmentName) {
    let (disk, name, _) = emptied_with(snapshot_segments, snapshot_segments);
    (disk, name)
}

/// The same with other snapshots from before it went on, and its frames.
fn emptied_with(until_then: usize, snapshot_segments: usize) -> (SimDisk, SegmentName, Vec<u8>) {
    let disk = SimDisk::new(6);
    let mut log = open_with(&disk, until_then);
    let fill = |log: &mut Log<SimDisk>, topic: &str, events: usize| {
        for number in 0..events {
            log.append(vec![event(topic, &format!("{number:->500}"))], now(1)).expect("staged");
            log.run_ops(now(2));
        }
    };
    fill(&mut log, "kept", 30);
    fill(&mut log, "gone", 20);
    log.append(vec![with_id()], now(1)).expect("new");
    log.append(claimed(), now(1)).expect("the first");
    fill(&mut log, "gone", 30);
    fill(&mut log, "kept", 30);
    drop(log);
    let disk = disk.kill();
    let before = disk.fork(1);
    let mut log = open_with(&disk, snapshot_segments);
    let deleted = Control::Deleted(TopicsDeleted::of(vec!["gone".into()]));
    log.append_control(&deleted, now(1)).expect("staged");
    log.run_ops(now(1_000_000));
    fill(&mut log, "kept", 60);
    log.run_ops(now(2_000_000));
    drop(log);
    let disk = disk.kill();
    let names = disk.list(Path::new(DIR)).expect("a directory");
    let indexes = names.iter().filter_map(|name| SegmentName::parse(name));
    let stub = indexes.filter(|(_, file)| *file == SegmentFile::Index).map(|(name, _)| name);
    let stub = stub.filter(|name| {
        let header = header(&disk, *name);
        header.is_stub() && header.section(SectionKind::IDS).bytes > 0
    });
    let stub: Vec<SegmentName> = stub.collect();
    assert_eq!(stub.len(), 1, "{names:?}");
    assert!(header(&disk, stub[0]).section(SectionKind::PRODUCERS).bytes > 0);
    let frames = before.bytes(&Path::new(DIR).join(stub[0].log_file_name()));
    (disk, stub[0], frames.expect("it was there"))
}

fn path_of(name: SegmentName) -> PathBuf {
    Path::new(DIR).join(name.index_file_name())
}

fn header(disk: &SimDisk, name: SegmentName) -> IndexHeader {
    IndexHeader::decode(&disk.bytes(&path_of(name)).expect("a file")).expect("an index")
}

/// What is not known any more of the events that are gone.
fn forgotten(log: &mut Log<SimDisk>, last: Option<Offset>) -> Forgotten {
    let last_offsets = log.last_of("gone") != last;
    let (ids, producers) = asked_again(log);
    Forgotten { ids, producers, last_offsets, settings: false }
}

/// How a stub is damaged.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Header,
    Ids,
    Unreadable,
}

/// Events that are gone came back by a repair, as the stub has no log file.
#[test]
fn a_stub_counts_beside_what_a_rewrite_has_left_that_was_cut_short() {
    for damaged in [None, Some(SectionKind::IDS)] {
        let (disk, name, frames) = emptied_with(1, 1);
        let expected = read(&open_with(&disk.fork(1), NEVER), &[]);
        let next = name.next_generation().expect("the next");
        let path = Path::new(DIR).join(next.log_file_name());
        let file = disk.create(&path, Access::Write).expect("a free name");
        file.write_all_at(&frames, Position::default()).expect("space");
        file.sync_data().expect("a disk that works");
        if let Some(kind) = damaged {
            disk.flip_bit(&path_of(name), header(&disk, name).section(kind).position, 3);
        }
        assert_eq!(repaired(&disk).plan.steps[0].action, Action::Discard, "{damaged:?}");
        assert!(header(&disk, name).is_stub(), "{damaged:?}");
        assert_eq!(read(&open_with(&disk, NEVER), &[]), expected, "{damaged:?}");
    }
}

/// The plan was a gap: events were named lost that nobody had lost, and nothing was remembered of them.
#[test]
fn a_damaged_stub_is_made_anew_where_a_snapshot_or_its_rest_knows_what_it_said() {
    for (snapshot_segments, kind) in [1, NEVER]
        .into_iter()
        .flat_map(|n| [Damage::Header, Damage::Ids, Damage::Unreadable].map(|kind| (n, kind)))
    {
        let context = format!("{kind:?}, {snapshot_segments}");
        let (disk, name) = emptied(snapshot_segments);
        let expected = open_with(&disk.fork(1), NEVER);
        let (last, events) = (expected.last_of("gone"), read(&expected, &[]));
        assert!(last.is_some() && events.1.is_empty(), "{context}");
        let ids = header(&disk, name).section(SectionKind::IDS).position.get();
        match kind {
            Damage::Header => {
                disk.flip_bit(&path_of(name), Position::new(INDEX_HEADER_BYTES as u64 / 2), 3)
            }
            Damage::Ids => disk.flip_bit(&path_of(name), Position::new(ids), 3),
            Damage::Unreadable => disk.make_unreadable(&path_of(name), 0..4_096),
        }
        let plan = planned(&disk);
        let is_known = snapshot_segments == 1 || matches!(kind, Damage::Ids);
        assert!(plan.beyond.is_empty(), "{context}: {plan:?}");
        let [Step { action, .. }] = &plan.steps[..] else { panic!("{context}: {plan:?}") };
        if !is_known {
            let Action::Fill { forgotten: told, .. } = action else {
                panic!("{context}: {plan:?}");
            };
            let all = Forgotten { ids: true, producers: true, last_offsets: true, settings: true };
            assert_eq!(*told, all, "{context}");
            assert_eq!(repaired(&disk).plan, plan, "{context}");
            let notes = verify(&disk, Path::new(DIR), &mut |finding| panic!("{finding}"));
            let notes = notes.expect("not in use").notes;
            let said = format!("forgotten with what is lost: {all}");
            assert!(notes.iter().any(|note| note.contains(&said)), "{context}: {notes:?}");
            continue;
        }
        let ids = snapshot_segments == NEVER;
        // Where they stood no snapshot says.
        let settings = !matches!(kind, Damage::Ids);
        let told = Forgotten { ids, settings, ..Forgotten::default() };
        assert_eq!(*action, Action::Restub { forgotten: told }, "{context}");
        assert_eq!(repaired(&disk).plan, plan, "{context}");
        verify(&disk, Path::new(DIR), &mut |finding| panic!("{context}: {finding}"))
            .expect("not in use");
        let again = planned(&disk);
        assert!(again.steps.is_empty() && again.beyond.is_empty(), "{context}: {again:?}");
        assert!(header(&disk, name).is_stub(), "{context}");
        let disk = disk.power_cut();
        for has_snapshots in [true, false] {
            if !has_snapshots {
                snapshots(&disk).iter().for_each(|path| disk.remove(path).expect("a file"));
            }
            let mut log = open_with(&disk.fork(2), NEVER);
            assert_eq!(read(&log, &[]), events, "{context}, {has_snapshots}");
            let expected = Forgotten { ids: told.ids, ..Forgotten::default() };
            assert_eq!(forgotten(&mut log, last), expected, "{context}, {has_snapshots}");
        }
    }
}

/// Puts back the frames of the segment, as if its removal had been cut short, and damages what comes behind the header of
/// its stub.
fn damage_body(disk: &SimDisk, name: SegmentName, frames: Option<&[u8]>, damage: Damage) {
    if let Some(frames) = frames {
        let path = Path::new(DIR).join(name.log_file_name());
        let file = disk.create(&path, Access::Write).expect("it is gone");
        file.write_all_at(frames, Position::default()).expect("space");
        file.sync_data().expect("a disk that works");
        disk.sync_dir(Path::new(DIR)).expect("a disk that works");
    }
    let section = |kind| header(disk, name).section(kind).position;
    match damage {
        Damage::Ids => disk.flip_bit(&path_of(name), section(SectionKind::IDS), 3),
        Damage::Unreadable => {
            let len = disk.bytes(&path_of(name)).expect("a file").len() as u64;
            disk.make_unreadable(&path_of(name), INDEX_HEADER_BYTES as u64..len);
        }
        Damage::Header => unreachable!("nobody knows then that it is one"),
    }
}

/// A stub that lies below a snapshot, and is not counted in it yet: the start failed, or took the frames that a removal had
/// left for the segment, and deleted events were there again.
#[test]
fn a_stub_that_is_damaged_or_unreadable_behind_its_header_stops_no_start_that_has_a_snapshot() {
    for (has_frames, kind) in
        [false, true].into_iter().flat_map(|is| [Damage::Ids, Damage::Unreadable].map(|k| (is, k)))
    {
        let context = format!("{kind:?}, frames: {has_frames}");
        let (disk, name, frames) = emptied_with(1, NEVER);
        let mut expected = open_with(&disk.fork(1), NEVER);
        let events = read(&expected, &[]);
        damage_body(&disk, name, has_frames.then_some(&frames), kind);
        let config = LogConfig { snapshot_segments: 1, ..tiny() };
        let opened = Log::open(disk.clone(), Path::new(DIR), config, now(0));
        let (mut log, report) = opened.expect(&context);
        let told = if has_frames { &report.remade } else { &report.damaged };
        assert_eq!(told.len(), 1, "{context}: {report:?}");
        assert_eq!(told[0].file, path_of(name), "{context}");
        assert_eq!(report.remade.len() + report.damaged.len(), 1, "{context}");
        assert_eq!(read(&log, &[]), events, "{context}");
        assert_eq!(forgotten(&mut log, expected.last_of("gone")), Forgotten::default());
        for topic in ["gone", "kept"] {
            let number = log.topics().number_of(topic).expect("known");
            assert!(!expected.take_lessened(number) || log.take_lessened(number), "{topic}");
        }
        // Nor does it keep snapshots from being made.
        for number in 0..200 {
            log.append(vec![event("kept", &format!("{number:->500}"))], now(3)).expect("staged");
            log.run_ops(now(3));
        }
        assert!(log.snapshot_totals().made > 0, "{context}");
        drop(log);
        let disk = disk.power_cut();
        assert!(!disk.list(Path::new(DIR)).expect("it").contains(&name.log_file_name()));
        let log = open_with(&disk, NEVER);
        assert_eq!(read(&log, &["gone"]), (vec![], vec![]), "{context}");
    }
}

/// Nor does it keep snapshots from being made once it lies before all that is kept: whatever limit it is that has reached it.
#[test]
fn a_damaged_stub_before_all_that_is_kept_keeps_no_snapshot_from_being_made() {
    for (kind, count) in [Damage::Ids, Damage::Unreadable]
        .into_iter()
        .flat_map(|kind| (1..12).map(move |n| (kind, n * 10)))
    {
        let (disk, name, _) = emptied_with(1, NEVER);
        damage_body(&disk, name, None, kind);
        let config = LogConfig { snapshot_segments: 2, ..tiny() };
        let (mut log, _) =
            Log::open(disk.clone(), Path::new(DIR), config, now(0)).expect("a snapshot knows it");
        let retain = LogRetention { count: Some(count), ..LogRetention::default() };
        let limit = Control::Log(LogSettings { retain });
        log.append_control(&limit, now(3)).expect("staged");
        for number in 0..60 {
            log.append(vec![event("kept", &format!("{number:->500}"))], now(3)).expect("staged");
            log.run_ops(now(60_000 * (number + 1)));
            let notices = log.take_notices();
            let failed =
                notices.iter().find(|notice| matches!(notice, Notice::SnapshotFailed { .. }));
            assert_eq!(failed, None, "{kind:?}, {count}");
        }
    }
}

/// Without a snapshot the frames that a removal has left say what the stub said; they are not the segment again.
#[test]
fn a_damaged_stub_is_made_anew_from_the_frames_that_its_removal_has_left() {
    for (kind, by_repair) in
        [Damage::Ids, Damage::Unreadable].into_iter().flat_map(|k| [(k, false), (k, true)])
    {
        let context = format!("{kind:?}, {by_repair}");
        let (disk, name, frames) = emptied_with(NEVER, NEVER);
        let expected = open_with(&disk.fork(1), NEVER);
        let (last, events) = (expected.last_of("gone"), read(&expected, &[]));
        damage_body(&disk, name, Some(&frames), kind);
        if by_repair {
            let repaired = repaired(&disk);
            let actions: Vec<_> = repaired.plan.steps.iter().map(|step| &step.action).collect();
            let nothing = Forgotten::default();
            assert_eq!(actions, [&Action::Restub { forgotten: nothing }], "{context}");
        }
        let opened = Log::open(disk.clone(), Path::new(DIR), tiny(), now(0));
        let (mut log, report) = opened.expect(&context);
        assert_eq!(report.remade.len(), usize::from(!by_repair), "{context}: {report:?}");
        assert_eq!(read(&log, &[]), events, "{context}");
        assert_eq!(forgotten(&mut log, last), Forgotten::default(), "{context}");
        assert!(!disk.list(Path::new(DIR)).expect("it").contains(&name.log_file_name()));
    }
}

/// Where the frames are damaged as well, nobody knows the ids and producers of the segment: a person decides.
#[test]
fn a_damaged_stub_whose_left_frames_are_damaged_too_is_for_a_person() {
    let (disk, name, mut frames) = emptied_with(NEVER, NEVER);
    frames[4096 + 70] ^= 1;
    damage_body(&disk, name, Some(&frames), Damage::Ids);
    let error = Log::open(disk.fork(1), Path::new(DIR), tiny(), now(0)).map(drop);
    let error = error.expect_err("its ids are not known").to_string();
    assert!(error.contains(&name.index_file_name()), "{error}");
    let plan = repaired(&disk).plan;
    let [Step { action, .. }] = &plan.steps[..] else { panic!("{plan:?}") };
    assert_eq!(
        *action,
        Action::Restub { forgotten: Forgotten { ids: true, ..Default::default() } }
    );
    assert_eq!(read(&open_with(&disk, NEVER), &["gone"]), (vec![], vec![]));
}

/// It was believed to end where that ends, and gaps were made from there on, over sound segments.
#[test]
fn a_stub_that_has_become_another_index_is_made_anew_or_a_gap() {
    for snapshot_segments in [1, NEVER] {
        let (disk, name) = emptied(snapshot_segments);
        let expected = read(&open_with(&disk.fork(1), NEVER), &[]);
        let names = disk.list(Path::new(DIR)).expect("a directory");
        let indexes = names.iter().filter_map(|name| SegmentName::parse(name));
        let others = indexes.filter(|(_, file)| *file == SegmentFile::Index);
        let others: Vec<_> =
            others.map(|(other, _)| other).filter(|other| *other != name).collect();
        assert!(
            others.iter().any(|other| *other < name) && others.iter().any(|other| *other > name)
        );
        let stub = header(&disk, name);
        for other in others {
            let context = format!("{snapshot_segments}, {other:?}");
            let disk = disk.fork(2);
            let bytes = disk.bytes(&path_of(other)).expect("a file");
            disk.remove(&path_of(name)).expect("a file");
            let file = disk.create(&path_of(name), Access::Write).expect("a free name");
            file.write_all_at(&bytes, Position::default()).expect("space");
            let plan = planned(&disk);
            let [Step { action, .. }] = &plan.steps[..] else { panic!("{context}: {plan:?}") };
            assert_eq!(plan.beyond, [], "{context}");
            let repaired = repaired(&disk);
            assert_eq!(repaired.plan, plan, "{context}");
            let kept = repaired.asides[0].join(name.index_file_name());
            assert_eq!(disk.bytes(&kept), Some(bytes), "{context}");
            let log = open_with(&disk, NEVER);
            let gap = (stub.base_offset.get(), stub.end_offset.get());
            match snapshot_segments {
                1 => assert!(matches!(action, Action::Restub { .. }), "{context}: {action:?}"),
                _ => assert!(
                    matches!(action, Action::Fill { lost, .. } if (lost.from.get(), lost.to.get()) == gap),
                    "{context}: {action:?}"
                ),
            }
            let (events, gaps) = read(&log, &[]);
            assert_eq!(events, expected.0, "{context}");
            let told = if snapshot_segments == 1 { vec![] } else { vec![gap] };
            assert_eq!(gaps, told, "{context}");
        }
    }
}
