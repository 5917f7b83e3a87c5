//! What a restored log knows of producers.

use super::*;
use crate::{
    append::{Append, OffsetScope, ProducerClaim, ProducerId},
    control::{Control, TopicTrimmed},
    error::AppendError,
    settings::{LogRetention, LogSettings},
};

/// Appends of two events each, 10 ms after each other: in one second.
const APPENDS: u64 = 20;

fn claim(name: &str, seq: u64) -> ProducerClaim {
    let id = ProducerId::parse(name).expect("a name");
    ProducerClaim { id, epoch: 0, seq, scope: OffsetScope::Log }
}

/// An event of each of these topics.
fn append(topics: &[&str], producer: ProducerClaim) -> Append {
    let events = topics.iter().map(|topic| crate::testing::event(topic, &[1; 1_000])).collect();
    Append { events, expected: None, producer: Some(producer) }
}

fn at(number: u64) -> Now {
    Now { wall_ms: BEGIN_MS + number * 10, boot_ms: 1 + number * 10 }
}

/// A log that begins with those appends, the number of each of which says the topics of its events and whose it is, and goes
/// on with events of nobody in topic `z`; and what a control event has done to it.
fn log_of(
    append_at: impl Fn(u64) -> Append,
    control: impl Fn(Offset) -> Control,
) -> (SimDisk, LogConfig) {
    // The first holds all of them.
    let config = LogConfig { segment_bytes: 128 << 10, ..small_segments() };
    let disk = SimDisk::new(1);
    let (mut log, _) =
        Log::open(disk.clone(), Path::new("/log"), config.clone(), now()).expect("new");
    for number in 0..APPENDS {
        log.append(append_at(number), at(number)).expect("staged");
        log.run_ops(at(number));
    }
    for number in APPENDS..4 * APPENDS {
        log.append(vec![crate::testing::event("z", &[1; 1_000])], at(number)).expect("staged");
        log.run_ops(at(number));
    }
    let end = at(4 * APPENDS);
    log.append_control(&control(log.next()), end).expect("staged");
    log.run_ops(end);
    log.run_ops(Now { boot_ms: 100_000, ..end });
    drop(log);
    (disk.kill(), config)
}

/// The log as it is once it was restored up to before the append of this number, by time.
fn cut_before(disk: &SimDisk, config: &LogConfig, number: u64) -> Log<SimDisk> {
    let (disk, to) = (disk.fork(number), Path::new("/restored"));
    disk.create_dir(to).expect("a free name");
    let until = Until::TimeMs(at(number).wall_ms - 3);
    restore_log(&disk, Path::new("/log"), to, until, now()).expect("restored");
    verify(&disk, to, &mut |finding| panic!("{number}: {finding}")).expect("not in use");
    Log::open(disk, to, config.clone(), at(number)).expect("it opens").0
}

/// What it knows of a producer, by what it answers: `seq` is a duplicate and the next one follows, or the first one is
/// awaited.
fn assert_stands_at(log: &mut Log<SimDisk>, name: &str, seq: Option<u64>, what: &str) {
    let later = at(APPENDS);
    let mut answer = |seq| {
        let appended = log.append(append(&["z"], claim(name, seq)), later);
        appended.map(|appended| appended.duplicates)
    };
    let next = seq.map_or(0, |seq| seq + 1);
    let gap = AppendError::ProducerGap { expected_seq: next, given_seq: next + 1 };
    assert_eq!(answer(next + 1), Err(gap), "{what}: {name}");
    if let Some(seq) = seq {
        assert_eq!(answer(seq), Ok(1), "{what}: {name}");
    }
    assert_eq!(answer(next), Ok(0), "{what}: {name}");
}

/// Of events that are gone, and of whose time no more than the second is known, those are known that lie before an event
/// that is left: their producers were forgotten, or stood further behind than they had come.
#[test]
fn producers_stand_where_what_is_left_before_a_cut_in_time_shows_them() {
    // Whose it is, and the how-manieth of his: the events of 6 and 12 have others behind them in their append.
    let name_of = |number: u64| match number {
        6 | 12 => format!("only {number}"),
        _ => format!("p{}", number % 7),
    };
    let whose = |number: u64| {
        let name = name_of(number);
        let seq = (0..number).filter(|before| name_of(*before) == name).count();
        (name, seq as u64)
    };
    let topics = |number: u64| {
        let first = if number.is_multiple_of(2) { "a" } else { "b" };
        [first, if number.is_multiple_of(3) { "c" } else { "a" }]
    };
    let append_at = |number: u64| {
        let (name, seq) = whose(number);
        append(&topics(number), claim(&name, seq))
    };
    let trimmed_before = 2 * 18;
    let (disk, config) = log_of(append_at, |_| {
        Control::Trimmed(TopicTrimmed { topic: "a".to_owned(), before: trimmed_before })
    });
    let names = disk.list(Path::new("/log")).expect("the directory");
    assert_eq!(listing::segments(&names)[0].name.generation, 2, "it was rewritten");
    let is_kept = |number: u64, place: usize| {
        topics(number)[place] != "a" || 2 * number + place as u64 >= trimmed_before
    };
    for cut in 1..APPENDS {
        let left = (0..cut).rev().find(|number| is_kept(*number, 0) || is_kept(*number, 1));
        let mut log = cut_before(&disk, &config, cut);
        let mut names: Vec<String> = (0..APPENDS).map(name_of).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let of_it = (0..APPENDS).rev().filter(|number| name_of(*number) == name);
            let last_of_all = of_it.clone().next();
            // Its last append, be it gone, or what is left says it.
            let mut known = of_it.filter(|number| {
                let is_left = Some(*number) <= left;
                is_left && (is_kept(*number, 0) || Some(*number) == last_of_all)
            });
            let seq = known.next().map(|number| whose(number).1);
            assert_stands_at(&mut log, &name, seq, &format!("before append {cut}"));
        }
    }
}

/// An append of which one event is known to be older is older as a whole.
#[test]
fn a_cut_in_a_stub_leaves_no_append_out_of_which_an_event_is_known() {
    let name_of = |number: u64| format!("p{number}");
    let append_at = |number: u64| append(&[&format!("t{number}"), "s"], claim(&name_of(number), 0));
    let (disk, config) = log_of(append_at, |_| {
        let retain = LogRetention { count: Some(5), ..LogRetention::default() };
        Control::Log(LogSettings { retain })
    });
    for cut in 1..APPENDS {
        let mut log = cut_before(&disk, &config, cut);
        for number in 0..APPENDS {
            let seq = (number < cut).then_some(0);
            assert_stands_at(&mut log, &name_of(number), seq, &format!("before append {cut}"));
        }
    }
}

/// An append of which some events lie behind the cut made an index that says of events that are not there.
#[test]
fn an_append_that_is_cut_in_two_is_nobodys() {
    let (config, disk) = (small_segments(), SimDisk::new(1));
    let dir = Path::new("/log");
    let (mut log, _) = Log::open(disk.clone(), dir, config.clone(), now()).expect("new");
    for number in 0..3 {
        log.append(append(&["a", "b", "c"], claim("p", number)), at(number)).expect("staged");
        log.run_ops(at(number));
    }
    drop(log);
    let disk = disk.kill();
    for cut in 1..9 {
        let (_, events, _) = restored(&disk, Until::Offset(Offset::new(cut)));
        assert_eq!(events.len() as u64, cut);
        let (disk, to) = (disk.fork(cut), Path::new("/restored"));
        disk.create_dir(to).expect("a free name");
        restore_log(&disk, dir, to, Until::Offset(Offset::new(cut)), now()).expect("restored");
        let mut log = Log::open(disk, to, config.clone(), at(9)).expect("it opens").0;
        let seq = (cut / 3).checked_sub(1);
        assert_stands_at(&mut log, "p", seq, &format!("cut at {cut}"));
    }
}

/// Compaction spreads an append over frames: the one that names its producer stayed whole, and with it the name, of which
/// an index was made that says of events that are not there.
#[test]
fn an_append_of_several_frames_that_is_cut_in_two_is_nobodys() {
    let config = LogConfig {
        frame_bytes_max: 512 << 10,
        event_bytes_max: 64 << 10,
        compress_after_s: 0,
        ..small_segments()
    };
    let (disk, dir) = (SimDisk::new(1), Path::new("/log"));
    let (mut log, _) = Log::open(disk.clone(), dir, config.clone(), now()).expect("new");
    let mut rng = crate::io::sim::rng::SimRng::new(1);
    let events = (0..6).map(|_| crate::testing::event("a", &rng.bytes(40_000))).collect();
    let whole = Append { events, expected: None, producer: Some(claim("p", 0)) };
    log.append(whole, at(0)).expect("staged");
    log.run_ops(at(0));
    for number in 1..4 {
        log.append(vec![crate::testing::event("z", &[1; 20_000])], at(number)).expect("staged");
        log.run_ops(at(number));
    }
    log.run_ops(Now { boot_ms: 100_000, ..at(4) });
    drop(log);
    let disk = disk.kill();
    let names = disk.list(dir).expect("the directory");
    let first = listing::segments(&names)[0].name;
    assert_eq!(first.generation, 2, "it was rewritten");
    let file = disk.open(&dir.join(first.log_file_name()), Access::Read).expect("a segment");
    let header = rewrite::read_header(&file).expect("readable").expect("sound");
    let (frame, _) = FrameScan::new(&file, &header).next_frame().expect("readable").expect("one");
    assert_eq!(frame.end_offset(), Offset::new(3), "and its frame has the half of it");
    for cut in 1..=6 {
        let (disk, to) = (disk.fork(cut), Path::new("/restored"));
        disk.create_dir(to).expect("a free name");
        restore_log(&disk, dir, to, Until::Offset(Offset::new(cut)), now()).expect("restored");
        // The frames alone say it then.
        disk.remove(&to.join(first.index_file_name())).expect("an index");
        let mut log = Log::open(disk.clone(), to, config.clone(), at(9)).expect("it opens").0;
        assert_stands_at(&mut log, "p", (cut == 6).then_some(0), &format!("cut at {cut}"));
        drop(log);
        verify(&disk.kill(), to, &mut |finding| panic!("{cut}: {finding}")).expect("not in use");
    }
}
