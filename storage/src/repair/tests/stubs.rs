//! Stubs that are damaged: what they say of events that are gone on purpose a snapshot behind them knows.

use super::*;
use crate::{
    config::LogConfig,
    index::{INDEX_HEADER_BYTES, IndexHeader, SectionKind},
    log::tests::{event, now, tiny},
};

fn open_with(disk: &SimDisk, snapshot_segments: usize) -> Log<SimDisk> {
    let config = LogConfig { snapshot_segments, compress_after_s: 1_000_000_000, ..tiny() };
    Log::open(disk.clone(), Path::new(DIR), config, now(0)).expect("the log opens").0
}

/// A log in the middle of which a segment has gone that had, among others, an event with an id and one of a producer; and
/// the name of that.
fn emptied(snapshot_segments: usize) -> (SimDisk, SegmentName) {
    let disk = SimDisk::new(6);
    let mut log = open_with(&disk, snapshot_segments);
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
    (disk, stub[0])
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
