use bytes::Bytes;

use super::*;
use crate::{
    clock::Now,
    config::LogConfig,
    event::NewEvent,
    io::sim::{SimDisk, rng::SimRng},
    log::Log,
    reader::{ReadQuery, Reader},
    segment::SegmentFile,
    selection::Order,
    testing::TestLog,
    topic::Topic,
    verify::verify,
};

const DIR: &str = "/log";
const TO: &str = "/backup";

fn now() -> Now {
    Now { wall_ms: 1_700_000_000_000, boot_ms: 1 }
}

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 128 << 10,
        preallocate_bytes_min: 16 << 10,
        preallocate_bytes_max: 32 << 10,
        ..LogConfig::default()
    }
}

fn append(log: &mut Log<SimDisk>, count: usize) {
    for _ in 0..count {
        let topic = Topic::parse("a").expect("a topic");
        let data = Bytes::from(log.next().to_string().into_bytes());
        log.append(vec![NewEvent::json(topic, data)], now()).expect("staged");
        log.run_ops(now());
    }
}

/// What a directory holds once it is opened: its tag, and the data of its events.
fn opened(disk: &SimDisk, dir: &str) -> (Tag, Vec<String>) {
    let (log, report) = Log::open(disk.fork(9), Path::new(dir), config(), now()).expect("it opens");
    let query = ReadQuery {
        topics: Vec::new(),
        from: Offset::ZERO,
        end: Offset::MAX,
        order: Order::Ascending,
    };
    let mut reader = Reader::new(log.segments().clone(), &query);
    let mut events = Vec::new();
    while let Some(hits) = reader.next_blocking().expect("a sound log") {
        events
            .extend(hits.events().map(|event| String::from_utf8_lossy(event.data()).into_owned()));
    }
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
        let (mut log, _) = Log::open(disk.clone(), Path::new(DIR), config(), now()).expect("new");
        append(&mut log, rng.index(90));
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
        append(&mut log, 60);
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

/// A part of the log that was taken when it was not sealed yet is taken whole by the next attempt, and
/// what is gone from the log goes.
#[test]
fn an_attempt_goes_on_where_the_one_before_ended() {
    let disk = SimDisk::new(3);
    let (mut log, _) = Log::open(disk.clone(), Path::new(DIR), config(), now()).expect("new");
    append(&mut log, 10);
    back_up(&disk, TO, None, Reach::Synced(Offset::new(7)));
    append(&mut log, 70);
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
