//! What a log remembers beside its events: ids, producers, settings, deletions and trims. `data-<n>-once` has of each in a
//! stub, a segment that was rewritten, a sealed one, one that is full and has no index, and the last one.
//! `data-<n>-once-closed` is the same log after it was opened and closed, with all of it in a snapshot.
//!
//! A member of a control event or a word of a producer's claim that is not understood any more is no error: it is passed over as a
//! newer program's, what was trimmed is read again, and a retry is stored twice. So each is asked about.

use std::{env, fs, path::Path};

use bytes::Bytes;

use super::{Copy, LOG, Segment, bless_copy, close, golden};
use strandline_storage::{
    append::{Append, Appended, OffsetScope, ProducerClaim, ProducerId},
    clock::Now,
    config::LogConfig,
    control::{Control, TopicRule, TopicTrimmed, TopicsDeleted},
    error::AppendError,
    event::{EventId, EventKind, NewEvent},
    index::{SectionKind, check_all, delta::decode_controls},
    io::real::RealDisk,
    log::{Job, Log, Op},
    offset::Offset,
    reader::{ReadQuery, Reader},
    selection::Order,
    settings::{LogRetention, LogSettings, TopicExpiry, TopicRetention, TopicSettings},
    topic::{Topic, TopicPattern},
    verify::verify,
};

const NEWEST: &str = "data-1-once";
const NEWEST_CLOSED: &str = "data-1-once-closed";

/// So many segments there are, and so many events in each.
const ROUNDS: u64 = 5;
const ROUND: u64 = 18;
const END: u64 = ROUNDS * ROUND;
/// The first one is gone by a limit of the log.
const START: u64 = ROUND;
/// In which round that was set.
const LIMITED: u64 = 2;

/// When the first event came, when the log was closed, and when it is looked at: ids are still remembered.
const BEGAN: Now = Now { wall_ms: 1_800_000_000_000, boot_ms: 1 };
const CLOSED: Now = at_ms(60_000);
const LOOKED: Now = at_ms(120_000);

const fn at_ms(ms: u64) -> Now {
    Now { wall_ms: BEGAN.wall_ms + ms, boot_ms: BEGAN.boot_ms + ms }
}

/// Whether it is one of these.
pub(super) fn is_one(from: &Path) -> bool {
    from.ends_with(NEWEST) || from.ends_with(NEWEST_CLOSED)
}

fn event(topic: &str, data: &str) -> NewEvent {
    let topic = Topic::parse(topic).expect("a topic");
    NewEvent::json(topic, Bytes::copy_from_slice(data.as_bytes()))
}

fn named(topic: &str, id: &str) -> NewEvent {
    NewEvent { id: Some(EventId::parse(id).expect("an id")), ..event(topic, "1") }
}

fn control(control: &Control) -> Append {
    vec![control.event()].into()
}

fn claim(name: &str, scope: OffsetScope, epoch: u64, seq: u64) -> ProducerClaim {
    ProducerClaim { id: ProducerId::parse(name).expect("a name"), epoch, seq, scope }
}

fn produced(events: Vec<NewEvent>, claim: ProducerClaim) -> Append {
    Append { events, expected: None, producer: Some(claim) }
}

/// The settings of the log from a round on.
fn log_settings(round: u64) -> LogSettings {
    let count = if round == LIMITED { (LIMITED + 1) * ROUND - START } else { 10_000 };
    let (age_s, bytes) = (Some(1_000_000 + round), Some(1 << 30));
    LogSettings { retain: LogRetention { age_s, bytes, count: Some(count) } }
}

/// The settings of a round's topic that stays, and of its pattern.
fn topic_settings(round: u64) -> [(String, TopicSettings); 2] {
    let retain = TopicRetention {
        age_s: Some(1_000_000 + round),
        count: Some(1_000 + round),
        latest_per_key: true,
    };
    let expire = TopicExpiry { age_s: Some(2_000_000 + round), idle_s: Some(3_000_000 + round) };
    let of_pattern = TopicRetention { count: Some(2_000 + round), ..TopicRetention::default() };
    [
        (format!("{round}/rooms"), TopicSettings { retain, expire }),
        (format!("{round}/**"), TopicSettings { retain: of_pattern, ..TopicSettings::default() }),
    ]
}

/// What is appended in a round, in two frames: the number before is that of the first event.
fn appends(round: u64) -> [Vec<(u64, Append)>; 2] {
    let topic = |name: &str| format!("{round}/{name}");
    let [rooms, gone, trimmed, ended] = ["rooms", "gone", "trimmed", "ended"].map(topic);
    let set = |(pattern, settings)| {
        control(&Control::Topic(TopicRule { pattern, settings: Some(settings) }))
    };
    let [of_rooms, of_pattern] = topic_settings(round);
    let of_ended = (ended.clone(), of_rooms.1);
    // The patterns of every other round are taken away again.
    let unset = if round % 2 == 1 { format!("{}/**", round - 1) } else { "never/set".to_owned() };
    let deleted = TopicsDeleted::of(vec![gone.clone(), topic("never")]);
    let whole = TopicsDeleted { topics: vec![ended.clone()], with_settings: true };
    let before = round * ROUND + 11;
    let first = vec![
        (0, control(&Control::Log(log_settings(round)))),
        (1, set(of_rooms)),
        (2, set(of_pattern)),
        (3, set(of_ended)),
        (4, vec![named(&rooms, &topic("stays"))].into()),
        (5, vec![named(&gone, &topic("gone"))].into()),
        (6, produced(vec![event(&gone, "6"), event(&gone, "7")], in_topic(round, 0))),
        (8, produced(vec![event(&gone, "8")], in_topic(round, 1))),
        (9, produced(vec![event(&rooms, "9")], in_log(round))),
    ];
    let second = vec![
        (10, vec![event(&trimmed, "10"), event(&trimmed, "11")].into()),
        (12, vec![event(&ended, "12")].into()),
        (13, control(&Control::Trimmed(TopicTrimmed { topic: trimmed, before }))),
        (14, control(&Control::Deleted(deleted))),
        (15, control(&Control::Deleted(whole))),
        (16, control(&Control::Topic(TopicRule { pattern: unset, settings: None }))),
        (17, produced(vec![event(&rooms, "17")], late())),
    ];
    [first, second].map(|appends| {
        appends.into_iter().map(|(at, append)| (round * ROUND + at, append)).collect()
    })
}

/// A producer of a round's topic that was deleted, another that goes on over all rounds, and one whose event is there in each.
fn in_topic(round: u64, seq: u64) -> ProducerClaim {
    claim("p", OffsetScope::Topic, round + 1, seq)
}

fn in_log(seq: u64) -> ProducerClaim {
    claim("of all rounds", OffsetScope::Log, 1, seq)
}

fn late() -> ProducerClaim {
    claim("p", OffsetScope::Topic, 7, 0)
}

#[test]
fn the_newest_is_there() {
    for (name, bless) in [(NEWEST, bless as fn()), (NEWEST_CLOSED, bless_closed)] {
        if !golden(name).exists() && env::var_os("STRANDLINE_BLESS").is_some() {
            bless();
        }
        assert!(golden(name).join("STRANDLINE").exists());
    }
    let names = |name| {
        let files = fs::read_dir(golden(name).join(LOG)).expect("a directory");
        let mut names: Vec<_> = files
            .map(|file| file.expect("a file").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    };
    let segments = [
        "00000000000000000000.2.idx",
        "00000000000000000018.2.idx",
        "00000000000000000018.2.log",
        "00000000000000000036.1.idx",
        "00000000000000000036.1.log",
        "00000000000000000054.1.log",
        "00000000000000000072.1.log",
        "earliest",
        "end.mark",
    ];
    assert_eq!(names(NEWEST), segments);
    assert!(names(NEWEST_CLOSED).iter().any(|name| name == "00000000000000000090.snap"));
    for (index, is_stub, events) in
        [(segments[0], true, 0), (segments[1], false, 12), (segments[3], false, ROUND)]
    {
        let bytes = fs::read(golden(NEWEST).join(LOG).join(index)).expect("an index");
        let resident = check_all(&bytes).expect("a sound index");
        let header = resident.header();
        assert_eq!((header.is_stub(), header.event_count), (is_stub, events), "{index}");
        let section = |kind| {
            let section = header.section(kind);
            let [from, to] = [section.position, section.end()].map(|at| at.get().try_into());
            &bytes[from.expect("in the file")..to.expect("in the file")]
        };
        assert!(!section(SectionKind::IDS).is_empty(), "{index}");
        assert!(!section(SectionKind::PRODUCERS).is_empty(), "{index}");
        let (base, end) = (header.base_offset, header.end_offset);
        let controls = decode_controls(section(SectionKind::CONTROLS), base, end);
        let kinds = controls.expect("control events").into_iter().map(|control| control.kind);
        let (log, topic) = (EventKind::LogSettings, EventKind::TopicSettings);
        let (deleted, trimmed) = (EventKind::TopicsDeleted, EventKind::TopicTrimmed);
        let all = [log, topic, topic, topic, trimmed, deleted, deleted, topic];
        assert_eq!(kinds.collect::<Vec<_>>(), all, "{index}");
    }
}

/// All that was said is known.
pub(super) fn check(from: &Path) {
    let copy = Copy::of(from);
    let dir = copy.0.join(LOG);
    let found = verify(&RealDisk, &dir, &mut |finding| panic!("{}: {finding}", from.display()));
    assert_eq!(found.expect("nobody uses it").end, Offset::new(END));
    let opened = Log::open(RealDisk, &dir, LogConfig::default(), LOOKED);
    let (mut log, report) = opened.expect("it opens");
    assert_eq!((report.end, report.tag.as_str()), (Offset::new(END), "k3f9q"));
    assert_eq!((report.remade, report.damaged), (vec![], vec![]));
    assert_eq!(log.start(), Offset::new(START));
    check_settings(&log);
    check_gone(&log);
    check_ids(&mut log);
    check_producers(&mut log);
    // And it goes on.
    let next = produced(vec![event("next", "1")], in_log(ROUNDS));
    assert_eq!(first_of(log.append(next, LOOKED)), (END, 0));
    log.run_ops(LOOKED);
    assert_eq!(log.visible(), Offset::new(END + 1));
}

fn check_settings(log: &Log<RealDisk>) {
    let rules = log.rules();
    assert_eq!(*rules.log(), log_settings(ROUNDS - 1));
    assert_eq!(rules.keep_from(), Offset::new(START), "what limits that were tighter let go");
    let of_rounds = (0..ROUNDS).flat_map(topic_settings);
    let mut expected: Vec<_> =
        of_rounds.filter(|(pattern, _)| !["0/**", "2/**"].contains(&&**pattern)).collect();
    expected.sort_by(|one, other| one.0.cmp(&other.0));
    let set = rules.topics().map(|(pattern, settings)| (pattern.to_owned(), *settings));
    assert_eq!(set.collect::<Vec<_>>(), expected);
}

/// What was deleted or trimmed, or went by the limit of the log, is not read, and all else is.
fn check_gone(log: &Log<RealDisk>) {
    let topics = vec![TopicPattern::parse("**").expect("a pattern")];
    let (from, end) = (Offset::new(START), Offset::MAX);
    let query = ReadQuery { topics, from, end, order: Order::Ascending };
    let mut reader = Reader::new(log.segments().clone(), &query);
    let mut read = Vec::new();
    while let Some(hits) = reader.next_blocking().expect("all of it is sound") {
        read.extend(log.rules().floors().filter(hits).events().map(|event| event.offset().get()));
    }
    let of_round = |round| [4, 9, 11, 17].map(|at| round * ROUND + at);
    assert_eq!(read, (1..ROUNDS).flat_map(of_round).collect::<Vec<_>>());
    for round in 0..ROUNDS {
        for (topic, last) in [("rooms", 17), ("gone", 8), ("trimmed", 11), ("ended", 12)] {
            let last_ever = log.last_of(&format!("{round}/{topic}"));
            assert_eq!(last_ever, Some(Offset::new(round * ROUND + last)), "{round}/{topic}");
        }
    }
}

/// The offset of its first event, and how many of its events were there.
fn first_of(appended: Result<Appended, AppendError>) -> (u64, u64) {
    let Appended { first, duplicates, .. } = appended.expect("an append that is taken");
    (first.get(), duplicates)
}

fn check_ids(log: &mut Log<RealDisk>) {
    for round in 0..ROUNDS {
        for (topic, id, offset) in [("rooms", "stays", 4), ("gone", "gone", 5)] {
            let [topic, id] = [topic, id].map(|name| format!("{round}/{name}"));
            let offset = round * ROUND + offset;
            let retry = log.append(vec![named(&topic, &id)], LOOKED);
            assert_eq!(first_of(retry), (offset, 1), "{id}");
            let other = NewEvent { data: Bytes::from_static(b"2"), ..named(&topic, &id) };
            let conflict = log.append(vec![other], LOOKED);
            let offset = Offset::new(offset);
            assert_eq!(conflict, Err(AppendError::IdConflict { id, offset }));
        }
    }
}

fn check_producers(log: &mut Log<RealDisk>) {
    let mut send = |topic: &str, events: u64, claim| {
        let events = (0..events).map(|_| event(topic, "1")).collect();
        log.append(produced(events, claim), LOOKED)
    };
    for round in 0..ROUNDS {
        let (gone, rooms) = (format!("{round}/gone"), format!("{round}/rooms"));
        let base = round * ROUND;
        for (seq, events) in [(0, 2), (1, 1)] {
            let retry = first_of(send(&gone, events, in_topic(round, seq)));
            assert_eq!(retry, (base + 8, events), "{gone}");
        }
        let gap = AppendError::ProducerGap { expected_seq: 2, given_seq: 9 };
        assert_eq!(send(&gone, 1, in_topic(round, 9)), Err(gap));
        let (epoch, given_epoch) = (round + 1, round);
        let stale = claim("p", OffsetScope::Topic, given_epoch, 2);
        assert_eq!(send(&gone, 1, stale), Err(AppendError::StaleEpoch { epoch, given_epoch }));
        assert_eq!(first_of(send(&rooms, 1, late())), (base + 17, 1), "{rooms}");
        let of_all = first_of(send(&rooms, 1, in_log(round)));
        assert_eq!(of_all, ((ROUNDS - 1) * ROUND + 9, 1), "the last one");
    }
    let gap = AppendError::ProducerGap { expected_seq: ROUNDS, given_seq: ROUNDS + 1 };
    assert_eq!(send("next", 1, in_log(ROUNDS + 1)), Err(gap));
}

// ---------------------------------------------------------------------------------------------
// How they were made.

/// Two frames fill a segment.
fn config(snapshot_segments: usize) -> LogConfig {
    LogConfig {
        segment_bytes: 12_288,
        preallocate_bytes_min: 8192,
        reserve_bytes: 0,
        idle_frame_ms: 1_000_000,
        snapshot_segments,
        ..LogConfig::default()
    }
}

fn bless() {
    let to = golden(NEWEST);
    let dir = to.join(LOG);
    fs::create_dir_all(&dir).expect("a free name");
    fs::write(to.join("STRANDLINE"), "strandline data 1\n").expect("space");
    // Nothing in it yet, but the tag.
    let first = Segment::new(0, 1);
    fs::write(dir.join(first.name.log_file_name()), &first.bytes).expect("space");
    let (mut log, _) = Log::open(RealDisk, &dir, config(usize::MAX), BEGAN).expect("it opens");
    // When each round is, and whether segments are rewritten in it. From the third on they are not any more.
    for (round, ms) in (0..).zip([0, 1_000, 12_000, 14_000, 15_000]) {
        for frame in appends(round) {
            for (offset, append) in frame {
                assert_eq!(first_of(log.append(append, at_ms(ms))), (offset, 0));
            }
            run(&mut log, at_ms(ms), round <= LIMITED);
        }
        if round == LIMITED {
            // Limits are looked at again.
            run(&mut log, at_ms(ms + 1_000), true);
            assert_eq!(log.start(), Offset::new(START));
        }
    }
    // As a kill leaves it, before the last segment but one had its index.
    drop(log);
    for entry in fs::read_dir(&dir).expect("the log") {
        let path = entry.expect("a file").path();
        let name = path.file_name().expect("a name").to_string_lossy();
        if name.ends_with(".tmp") || name == "00000000000000000054.1.idx" {
            fs::remove_file(path).expect("it is ours");
        }
    }
}

/// Does what there is to do; a rewrite stays to be done unless `compacts`.
fn run(log: &mut Log<RealDisk>, now: Now, compacts: bool) {
    while let Some(op) = log.next_op(now) {
        if compacts || !matches!(op, Op::Job { job: Job::Compact(_), .. }) {
            log.complete(op.run(&RealDisk), now);
        }
    }
}

fn bless_closed() {
    let copy = Copy::named(&golden(NEWEST), "closing");
    let opened = Log::open(RealDisk, &copy.0.join(LOG), config(1), CLOSED);
    let (mut log, _) = opened.expect("it opens");
    log.run_ops(CLOSED);
    assert!(log.snapshot_totals().made > 0);
    close(log);
    bless_copy(&copy, NEWEST_CLOSED);
}
