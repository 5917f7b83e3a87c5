//! Indexes of segments from which compaction has taken events: they alone say what those had added to the state of the
//! log, so what is lost with them is lost, and said.

mod headers;

use std::collections::BTreeSet;

use super::*;
use crate::{
    config::LogConfig,
    index::{
        INDEX_HEADER_BYTES, IndexHeader, SectionKind,
        cut::Cut,
        stub::{StubLimits, cut_stub, make_stub},
    },
    io::sim::Fault,
    log::tests::{event, now, tiny},
    recovery::OpenReport,
    restore::{Until, restore_log},
};

/// Long enough after all appends for every sealed segment to be rewritten.
const MUCH_LATER_MS: u64 = 700_000;
/// Of the log that is filled.
const TOPICS: [&str; 4] = ["gone", "seldom", "often", "kept"];
/// The first segment, once rewritten.
const REWRITTEN: &str = "00000000000000000000.2";

fn open_with(disk: &SimDisk, snapshot_segments: usize) -> (Log<SimDisk>, OpenReport) {
    let config = LogConfig { snapshot_segments, ..tiny() };
    Log::open(disk.clone(), Path::new(DIR), config, now(0)).expect("the log opens")
}

/// A log whose first segment had, among others, an event with an id and one of a producer, of a topic that was deleted,
/// and events of topics of which the newest is kept alone.
fn filled(snapshot_segments: usize) -> SimDisk {
    let disk = SimDisk::new(6);
    let (mut log, _) = open_with(&disk, snapshot_segments);
    let rule = |pattern: &str, retain| {
        let settings = Some(TopicSettings { retain, ..TopicSettings::default() });
        Control::Topic(TopicRule { pattern: pattern.into(), settings })
    };
    log.append(vec![with_id()], now(1)).expect("new");
    log.append(claimed(), now(1)).expect("the first");
    let many = TopicRetention { count: Some(1_000), ..TopicRetention::default() };
    log.append_control(&rule("early", many), now(1)).expect("staged");
    log.append(vec![event("seldom", "0")], now(1)).expect("staged");
    let fill = |log: &mut Log<SimDisk>, events: usize| {
        for number in 0..events {
            let topic = if number % 10 == 5 { "often" } else { "kept" };
            log.append(vec![event(topic, &format!("{number:->500}"))], now(1)).expect("staged");
            log.run_ops(now(2));
        }
    };
    fill(&mut log, 300);
    let deleted = Control::Deleted(TopicsDeleted::of(vec!["gone".into()]));
    log.append_control(&deleted, now(1)).expect("staged");
    let retain = TopicRetention { count: Some(1), ..TopicRetention::default() };
    log.append_control(&rule("often", retain), now(1)).expect("staged");
    log.append_control(&rule("seldom", retain), now(1)).expect("staged");
    log.append(vec![event("seldom", "1")], now(1)).expect("staged");
    fill(&mut log, 100);
    drop(log);
    disk.kill()
}

/// The same once that is gone.
fn compacted(snapshot_segments: usize) -> SimDisk {
    let disk = filled(snapshot_segments);
    // Nothing is rewritten to be compressed alone.
    let config = LogConfig { snapshot_segments: NEVER, compress_after_s: 1_000_000_000, ..tiny() };
    let opened = Log::open(disk.clone(), Path::new(DIR), config, now(0));
    let mut log = opened.expect("the log opens").0;
    log.run_ops(now(MUCH_LATER_MS));
    drop(log);
    let disk = disk.kill();
    let header = header(&disk);
    assert!(header.event_count < header.end_offset.since(header.base_offset), "{header:?}");
    for kind in [SectionKind::IDS, SectionKind::PRODUCERS, SectionKind::CONTROLS, SectionKind::GONE]
    {
        assert!(header.section(kind).bytes > 0, "{kind} of {header:?}");
    }
    assert_eq!(snapshots(&disk).is_empty(), snapshot_segments == NEVER);
    disk
}

fn path_of(ending: &str) -> PathBuf {
    Path::new(DIR).join(format!("{REWRITTEN}.{ending}"))
}

fn index(disk: &SimDisk) -> Vec<u8> {
    disk.bytes(&path_of("idx")).expect("a file")
}

/// What a file holds, in short.
fn sum(bytes: &[u8]) -> (usize, u32) {
    (bytes.len(), crate::frame::Seed::of(&crate::segment::Incarnation::new([0; 16])).crc(bytes))
}

fn header(disk: &SimDisk) -> IndexHeader {
    IndexHeader::decode(&index(disk)).expect("an index")
}

/// How an index is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    Missing,
    /// The disk gives nothing of it back.
    Unreadable,
    Header,
    Section(SectionKind),
}

const ALL: [Damage; 10] = [
    Damage::Missing,
    Damage::Unreadable,
    Damage::Header,
    Damage::Section(SectionKind::FRAMES),
    Damage::Section(SectionKind::FILTER),
    Damage::Section(SectionKind::TOPICS),
    Damage::Section(SectionKind::IDS),
    Damage::Section(SectionKind::PRODUCERS),
    Damage::Section(SectionKind::CONTROLS),
    Damage::Section(SectionKind::GONE),
];

/// Damages the index of the rewritten segment; `false` if it has no such section.
fn damage(disk: &SimDisk, damage: Damage) -> bool {
    damage_index(disk, &path_of("idx"), damage)
}

fn damage_index(disk: &SimDisk, path: &Path, damage: Damage) -> bool {
    let bytes = disk.bytes(path).expect("an index");
    let at = match damage {
        Damage::Missing => {
            disk.remove(path).expect("a file");
            return true;
        }
        Damage::Unreadable => {
            disk.make_unreadable(path, 0..bytes.len() as u64);
            return true;
        }
        Damage::Header => INDEX_HEADER_BYTES as u64 / 2,
        Damage::Section(kind) => {
            let section = IndexHeader::decode(&bytes).expect("an index").section(kind);
            if section.bytes == 0 {
                return false;
            }
            section.position.get() + section.bytes / 2
        }
    };
    disk.flip_bit(path, Position::new(at), 3);
    true
}

/// What of the events that are gone is forgotten.
fn forgotten(log: &mut Log<SimDisk>) -> Forgotten {
    let last = log.last_of("gone");
    assert!(last.is_none_or(|last| last == Offset::new(1)), "{last:?}");
    let (ids, producers) = asked_again(log);
    let settings = log.rules().for_topic("early").is_none();
    Forgotten { ids, producers, last_offsets: last.is_none(), settings }
}

/// What a damage takes that no snapshot knows.
fn taken_by(damage: Damage) -> Forgotten {
    let is = |kind| match damage {
        Damage::Missing | Damage::Unreadable | Damage::Header => true,
        Damage::Section(damaged) => damaged == kind,
    };
    Forgotten {
        ids: is(SectionKind::IDS),
        producers: is(SectionKind::PRODUCERS),
        last_offsets: is(SectionKind::GONE),
        settings: false,
    }
}

fn check_sound(disk: &SimDisk, context: &str) {
    verify(disk, Path::new(DIR), &mut |finding| panic!("{context}: {finding}"))
        .expect("not in use");
    let plan = planned(disk);
    assert!(plan.steps.is_empty() && plan.beyond.is_empty(), "{context}: {plan:?}");
}

/// Where a snapshot knows all that the index said the log opens, and with the index that is made anew it does without
/// that snapshot as well.
#[test]
fn a_rotten_index_whose_state_a_snapshot_knows_stops_no_start() {
    let sound = compacted(1);
    let (log, report) = open_with(&sound.fork(1), NEVER);
    assert_eq!(report.remade, []);
    let expected = read(&log, &[]);
    for kind in ALL {
        let disk = sound.fork(2);
        if !damage(&disk, kind) {
            continue;
        }
        let (mut log, report) = open_with(&disk, NEVER);
        let remade: Vec<_> = report.remade.iter().map(|damage| damage.file.clone()).collect();
        assert_eq!(remade, [path_of("idx")], "{kind:?}");
        assert_eq!(read(&log, &[]), expected, "{kind:?}");
        assert_eq!(forgotten(&mut log), Forgotten::default(), "{kind:?}");
        drop(log);
        let disk = disk.power_cut();
        check_sound(&disk, &format!("{kind:?}"));
        snapshots(&disk).iter().for_each(|path| disk.remove(path).expect("a file"));
        let (mut log, report) = open_with(&disk, NEVER);
        assert_eq!(report.remade, [], "{kind:?}");
        assert_eq!(forgotten(&mut log), Forgotten::default(), "{kind:?}, without the snapshots");
    }
}

/// Whoever is to be counted anew, as the snapshot had counted the generation before, still is after the next snapshot.
#[test]
fn topics_of_an_index_that_was_made_anew_are_counted_anew() {
    for kind in [Damage::Missing, Damage::Unreadable, Damage::Header] {
        let disk = compacted(1);
        damage(&disk, kind);
        for start in 0..2 {
            let (mut log, report) = open_with(&disk, if start == 0 { 1 } else { NEVER });
            assert_eq!(report.remade.len(), usize::from(start == 0), "{kind:?}");
            let number = log.topics().number_of("seldom").expect("known");
            assert!(log.take_lessened(number), "{kind:?}, start {start}");
            for number in 0..400 {
                log.append(vec![event("kept", &format!("{number:->500}"))], now(3))
                    .expect("staged");
                log.run_ops(now(3));
            }
            assert_eq!(log.snapshot_totals().made > 0, start == 0, "{kind:?}");
        }
    }
}

#[test]
fn what_nobody_knows_any_more_is_forgotten_by_a_person_alone() {
    for kind in ALL {
        let disk = compacted(NEVER);
        if !damage(&disk, kind) {
            continue;
        }
        let (context, taken) = (format!("{kind:?}"), taken_by(kind));
        let (before, is_nothing) = (disk.bytes(&path_of("idx")), taken.is_nothing());
        match Log::open(disk.fork(1), Path::new(DIR), tiny(), now(0)) {
            Ok((mut log, report)) => {
                assert!(is_nothing, "{context}: {report:?}");
                assert_eq!(report.remade.len(), 1, "{context}");
                assert_eq!(forgotten(&mut log), taken, "{context}");
            }
            Err(error) => {
                let (text, name) = (error.to_string(), format!("{REWRITTEN}.idx"));
                assert!(!is_nothing && text.contains(&name), "{context}: {text}");
                assert!(text.contains("strandline repair"), "{context}: {text}");
            }
        }
        let plan = planned(&disk);
        assert!(plan.beyond.is_empty(), "{context}: {plan:?}");
        let [step] = &plan.steps[..] else { panic!("{context}: {plan:?}") };
        assert_eq!(step.action, Action::Reindex { forgotten: taken }, "{context}");
        assert_eq!(disk.bytes(&path_of("idx")), before, "{context}: a plan changes nothing");
        let repaired = repaired(&disk);
        assert_eq!(repaired.plan, plan, "{context}");
        let aside = repaired.asides.first();
        let aside = aside.and_then(|aside| disk.bytes(&aside.join(format!("{REWRITTEN}.idx"))));
        let is_kept = match kind {
            Damage::Unreadable => aside.is_some_and(|bytes| bytes.iter().all(|byte| *byte == 0)),
            _ => aside == before,
        };
        assert!(is_kept, "{context}");
        check_sound(&disk, &context);
        // Who had counted its topics before counts them anew.
        assert_eq!(header(&disk).is_remade(), taken.last_offsets, "{context}");
        let (mut log, report) = open_with(&disk, NEVER);
        assert_eq!(report.remade, [], "{context}");
        assert_eq!(forgotten(&mut log), taken, "{context}");
    }
}

/// What holds of a damaged index is taken over to the byte.
#[test]
fn an_index_that_lacks_nothing_of_the_state_is_made_as_it_was() {
    for (kind, by_repair) in [SectionKind::FRAMES, SectionKind::FILTER, SectionKind::TOPICS]
        .into_iter()
        .flat_map(|kind| [(kind, false), (kind, true)])
    {
        let disk = compacted(NEVER);
        let before = index(&disk);
        assert!(damage(&disk, Damage::Section(kind)));
        if by_repair {
            repaired(&disk);
        } else {
            drop(open_with(&disk, NEVER));
        }
        assert_eq!(sum(&index(&disk)), sum(&before), "{kind}, {by_repair}");
    }
}

/// A segment that was rewritten to be compressed says all that it ever said.
#[test]
fn where_no_event_is_gone_the_frames_say_all() {
    let of_a_part = Damage::Section(SectionKind::IDS);
    for kind in [Damage::Missing, Damage::Unreadable, Damage::Header, of_a_part] {
        let disk = SimDisk::new(6);
        let (mut log, _) = open_with(&disk, NEVER);
        log.append(vec![with_id()], now(1)).expect("new");
        log.append(claimed(), now(1)).expect("the first");
        for number in 0..200 {
            log.append(vec![event("kept", &format!("{number:->500}"))], now(1)).expect("staged");
            log.run_ops(now(2));
        }
        log.run_ops(now(MUCH_LATER_MS));
        drop(log);
        let disk = disk.kill();
        // (GONE names topics there of which nothing is gone: those of the last frame.)
        let said = |disk: &SimDisk| {
            let mut sections = header(disk).sections;
            sections.retain(|section| section.kind != SectionKind::GONE);
            sections
        };
        let before = said(&disk);
        assert!(damage(&disk, kind));
        let repairing = disk.fork(1);
        if repair(&repairing, Path::new(DIR), crate::testing::now()).expect("it works").is_ok() {
            assert_eq!(said(&repairing), before, "{kind:?}");
        }
        let (mut log, report) = open_with(&disk, NEVER);
        assert_eq!(report.remade.len(), 1, "{kind:?}");
        assert_eq!(said(&disk), before, "{kind:?}");
        assert!(log.append(vec![with_id()], now(3)).expect("known").duplicates == 1, "{kind:?}");
        assert!(log.append(claimed(), now(3)).expect("known").duplicates == 1, "{kind:?}");
    }
}

/// A repair has what a snapshot knows, so that the log opens without that as well.
#[test]
fn a_repair_takes_from_a_snapshot_what_an_index_has_lost() {
    for kind in ALL {
        let disk = compacted(1);
        if !damage(&disk, kind) {
            continue;
        }
        let repaired = repaired(&disk);
        let [Step { action: Action::Reindex { forgotten: told }, .. }] = &repaired.plan.steps[..]
        else {
            panic!("{kind:?}: {repaired:?}");
        };
        assert!(told.is_nothing(), "{kind:?}: {told}");
        check_sound(&disk, &format!("{kind:?}"));
        snapshots(&disk).iter().for_each(|path| disk.remove(path).expect("a file"));
        let (mut log, _) = open_with(&disk, NEVER);
        assert_eq!(forgotten(&mut log), Forgotten::default(), "{kind:?}");
    }
}

/// Frames are damaged as well: the segment is written anew, and what holds of its index is taken over.
#[test]
fn a_segment_that_is_written_anew_keeps_what_is_left_of_its_index() {
    for (snapshot_segments, kind) in [1, NEVER].into_iter().flat_map(|n| ALL.map(|kind| (n, kind)))
    {
        let disk = compacted(snapshot_segments);
        disk.flip_bit(&path_of("log"), Position::new(4096 + 70), 1);
        if !damage(&disk, kind) {
            continue;
        }
        let taken = match snapshot_segments {
            NEVER => taken_by(kind),
            _ => Forgotten::default(),
        };
        // The first frame is lost, and a setting in it; where it stood no snapshot says.
        let is_said = matches!(kind, Damage::Section(kind) if kind != SectionKind::CONTROLS);
        let taken = Forgotten { settings: !is_said, ..taken };
        let context = format!("{kind:?}, {snapshot_segments}");
        let repaired = repaired(&disk);
        let [Step { action: Action::Rewrite { forgotten: told, lost, .. }, .. }] =
            &repaired.plan.steps[..]
        else {
            panic!("{context}: {repaired:?}");
        };
        // Which topics the lost events were of TOPICS says alone.
        let are_topics_lost =
            kind == Damage::Section(SectionKind::TOPICS) && snapshot_segments == NEVER;
        let last_offsets = taken.last_offsets || are_topics_lost;
        assert_eq!((*told, lost.len()), (Forgotten { last_offsets, ..taken }, 1), "{context}");
        check_sound(&disk, &context);
        snapshots(&disk).iter().for_each(|path| disk.remove(path).expect("a file"));
        let (mut log, _) = open_with(&disk, NEVER);
        assert_eq!(forgotten(&mut log), taken, "{context}");
    }
}

/// A restore makes no log that has forgotten what the backup knew once.
#[test]
fn a_restore_forgets_nothing_in_silence() {
    let to = Path::new("/restored");
    for kind in [Damage::Missing, Damage::Header] {
        let disk = compacted(NEVER);
        damage(&disk, kind);
        disk.create_dir(to).expect("a free name");
        let restored = restore_log(&disk, Path::new(DIR), to, Until::End, now(3));
        let error = restored.expect_err("it does not know it").to_string();
        assert!(error.contains("the index of this rewritten segment"), "{kind:?}: {error}");
    }
}

/// A cut of a segment whose index was made anew knows no more of its topics than that.
#[test]
fn an_index_that_was_made_anew_is_said_to_be_so_where_it_is_cut() {
    let disk = compacted(1);
    damage(&disk, Damage::Header);
    drop(open_with(&disk, NEVER));
    assert!(header(&disk).is_remade());
    let to = Path::new("/restored");
    disk.create_dir(to).expect("a free name");
    let until = Until::Offset(Offset::new(header(&disk).end_offset.get() - 1));
    restore_log(&disk, Path::new(DIR), to, until, now(3)).expect("nothing is forgotten");
    let cut = disk.bytes(&to.join(format!("{REWRITTEN}.idx"))).expect("it is cut there");
    assert!(IndexHeader::decode(&cut).expect("an index").is_remade());

    let stub = make_stub(&index(&disk), &StubLimits::default()).expect("a sound index");
    let cut = cut_stub(&stub, Cut::Offset(Offset::new(3))).expect("sound").expect("not empty");
    assert!(cut.0.is_stub() && cut.0.is_remade());
}

/// Its events are lost, and what is remembered of them is not.
#[test]
fn a_segment_whose_log_file_alone_is_lost_is_remembered() {
    for (disk, generation) in [(filled(NEVER), 1), (compacted(NEVER), 2)] {
        let name = SegmentName { base_offset: Offset::ZERO, generation };
        let expected = open_with(&disk.fork(1), NEVER).0;
        let topics = |log: &Log<SimDisk>| {
            TOPICS.map(|topic| (log.topics().number_of(topic), log.last_of(topic)))
        };
        disk.remove(&Path::new(DIR).join(name.log_file_name())).expect("a file");
        let repaired = repaired(&disk);
        let [Step { action: Action::Fill { lost, .. }, .. }] = &repaired.plan.steps[..] else {
            panic!("{generation}: {repaired:?}");
        };
        check_sound(&disk, &format!("generation {generation}"));
        let mut log = open_with(&disk.power_cut(), NEVER).0;
        assert_eq!(read(&log, &[]).1, [(lost.from.get(), lost.to.get())]);
        assert_eq!(topics(&log), topics(&expected), "{generation}");
        assert_eq!(forgotten(&mut log), Forgotten::default(), "{generation}");
    }
}

/// Its index is damaged as well: what holds of that, and what a snapshot knows, is remembered, and the rest named, before
/// it is done and in the log itself.
#[test]
fn a_segment_whose_log_file_is_lost_is_remembered_by_what_is_left_of_its_index() {
    for (snapshot_segments, generation, kind) in [1, NEVER]
        .into_iter()
        .flat_map(|n| [1, 2].map(|one| (n, one)))
        .flat_map(|(n, generation)| ALL.map(|kind| (n, generation, kind)))
    {
        let context = format!("{kind:?}, {generation}, {snapshot_segments}");
        let disk = match generation {
            1 => filled(snapshot_segments),
            _ => compacted(snapshot_segments),
        };
        let name = SegmentName { base_offset: Offset::ZERO, generation };
        let index_path = Path::new(DIR).join(name.index_file_name());
        if !damage_index(&disk, &index_path, kind) {
            continue;
        }
        disk.remove(&Path::new(DIR).join(name.log_file_name())).expect("a file");
        let repaired = repaired(&disk);
        let [Step { action: Action::Fill { lost, forgotten: told, .. }, .. }] =
            &repaired.plan.steps[..]
        else {
            panic!("{context}: {repaired:?}");
        };
        let is_whole = matches!(kind, Damage::Section(_));
        let settings = !is_whole || matches!(kind, Damage::Section(SectionKind::CONTROLS));
        let of_topics = [SectionKind::TOPICS, SectionKind::GONE];
        let expected = match (snapshot_segments, kind) {
            (NEVER, Damage::Section(section)) => {
                Forgotten { last_offsets: of_topics.contains(&section), ..taken_by(kind) }
            }
            (NEVER, _) => taken_by(kind),
            _ => Forgotten::default(),
        };
        let expected = Forgotten { settings, ..expected };
        assert_eq!(*told, expected, "{context}");

        let mut notes = Vec::new();
        let found = verify(&disk, Path::new(DIR), &mut |finding| panic!("{context}: {finding}"));
        notes.extend(found.expect("not in use").notes);
        let said = format!("forgotten with what is lost: {told}");
        assert_eq!(notes.iter().any(|note| note.contains(&said)), !told.is_nothing(), "{notes:?}");
        check_sound(&disk, &context);
        let disk = disk.power_cut();
        snapshots(&disk).iter().for_each(|path| disk.remove(path).expect("a file"));
        let mut log = open_with(&disk, NEVER).0;
        assert_eq!(read(&log, &[]).1, [(lost.from.get(), lost.to.get())], "{context}");
        // Where its rest alone says it, some topics may be known.
        let last_offsets = told.last_offsets && log.last_of("gone").is_none();
        assert_eq!(forgotten(&mut log), Forgotten { last_offsets, ..*told }, "{context}");
        let is_in_part = kind == Damage::Section(SectionKind::TOPICS) && generation == 2;
        assert!(!is_in_part || !last_offsets, "{context}: GONE is sound");
    }
}

/// The last event of a topic is lost alone, and the index is sound: it knows that there was one.
#[test]
fn a_lost_last_event_of_a_topic_is_remembered_by_a_sound_index() {
    for generation in [1, 2] {
        let disk = if generation == 1 { filled(NEVER) } else { compacted(NEVER) };
        let name = SegmentName { base_offset: Offset::ZERO, generation };
        let expected = open_with(&disk.fork(1), NEVER).0;
        disk.flip_bit(&Path::new(DIR).join(name.log_file_name()), Position::new(4096 + 70), 1);
        let repaired = repaired(&disk);
        let [Step { action: Action::Rewrite { lost, forgotten: told, .. }, .. }] =
            &repaired.plan.steps[..]
        else {
            panic!("{generation}: {repaired:?}");
        };
        assert!(lost.len() == 1 && told.is_nothing(), "{generation}: {repaired:?}");
        check_sound(&disk, &format!("generation {generation}"));
        let mut log = open_with(&disk, NEVER).0;
        for topic in TOPICS {
            assert_eq!(log.last_of(topic), expected.last_of(topic), "{generation}: {topic}");
        }
        assert_eq!(forgotten(&mut log), Forgotten::default(), "{generation}");
    }
}

/// What is said of it can be read.
#[test]
fn what_is_forgotten_is_named() {
    let all = Forgotten { ids: true, producers: true, last_offsets: true, settings: true };
    let texts: BTreeSet<String> = [
        Forgotten::default(),
        Forgotten { ids: true, ..Forgotten::default() },
        Forgotten { ids: true, producers: true, ..Forgotten::default() },
        all,
    ]
    .map(|forgotten| forgotten.to_string())
    .into();
    assert_eq!(
        texts.into_iter().collect::<Vec<_>>(),
        [
            "nothing",
            "their ids",
            "their ids and how far their producers had come",
            "their ids, how far their producers had come, the last offsets of their topics and settings and \
             deletions among what is lost",
        ]
    );
}

/// A read that fails is no damage, also one of what was written a moment before.
#[test]
fn a_start_that_ends_while_it_makes_an_index_anew_names_no_damage() {
    let disk = compacted(NEVER);
    let path = Path::new(DIR).join(format!("{REWRITTEN}.idx"));
    disk.flip_bit(&path, header(&disk).section(SectionKind::TOPICS).position, 1);
    for operations in 1.. {
        let disk = disk.fork(operations);
        disk.crash_after(Some(operations));
        match Log::open(disk, Path::new(DIR), tiny(), now(0)) {
            Ok(_) => {
                assert!(operations > 50, "it is over after {operations}");
                break;
            }
            Err(OpenError::Io { .. }) => {}
            Err(error) => panic!("after {operations} operations: {error}"),
        }
    }
}

/// Nor is one that fails once: what was written is read again, and is sound.
#[test]
fn a_read_that_fails_once_while_an_index_is_made_anew_names_no_damage() {
    let disk = compacted(NEVER);
    let path = Path::new(DIR).join(format!("{REWRITTEN}.idx"));
    disk.flip_bit(&path, header(&disk).section(SectionKind::TOPICS).position, 1);
    for after in 0.. {
        let disk = disk.fork(after);
        disk.arm(Fault::ReadFails, after);
        let opened = Log::open(disk.clone(), Path::new(DIR), tiny(), now(0));
        if let Err(error) = opened {
            assert!(matches!(error, OpenError::Io { .. }), "the read after {after}: {error}");
        }
        if disk.disarm() > 0 {
            assert!(after > 10, "it is over after {after}");
            break;
        }
    }
}
