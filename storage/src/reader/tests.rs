use std::{cell::RefCell, io, ops::Range, sync::Arc};

use super::*;
use crate::{
    buffer::DiskBuffer,
    io::{
        BlockingReads, DiskFile,
        sim::{SimDisk, SimFile, rng::SimRng},
    },
    segment::SegmentFile,
    testing::{TestLog, Written, read_all},
    topic::Topic,
};

/// Reads, and remembers how much of which file.
#[derive(Default)]
struct CountedReads {
    reads: RefCell<Vec<usize>>,
}

impl ReadIo<SimDisk> for CountedReads {
    async fn read(
        &self,
        file: &Arc<SimFile>,
        position: Position,
        len: usize,
    ) -> io::Result<DiskBuffer> {
        self.reads.borrow_mut().push(len);
        ReadIo::<SimDisk>::read(&BlockingReads, file, position, len).await
    }
}

/// What a reader gave: the events in its order, and the gaps.
#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    events: Vec<Written>,
    gaps: Vec<(u64, u64)>,
}

fn query(topics: &[&str], range: Range<u64>, order: Order) -> ReadQuery {
    let topics = topics.iter().map(|text| {
        let reserved = || TopicPattern::of_topic(&Topic::parse_reserved(text).expect("a topic"));
        TopicPattern::parse(text).unwrap_or_else(|_| reserved())
    });
    ReadQuery {
        topics: topics.collect(),
        from: Offset::new(range.start),
        end: Offset::new(range.end),
        order,
    }
}

fn read_with(io: &CountedReads, set: &Arc<SegmentSet<SimDisk>>, query: &ReadQuery) -> Read {
    let mut reader = Reader::new(set.clone(), query);
    let mut read = Read::default();
    let mut considered = match query.order {
        Order::Ascending => query.from,
        Order::Descending => query.end,
    };
    let mut steps = 0;
    loop {
        let before = io.reads.borrow().iter().sum::<usize>();
        let next = BlockingReads::run(reader.next(io));
        let step_bytes = io.reads.borrow().iter().sum::<usize>() - before;
        assert!(step_bytes as u64 <= STEP_BYTES_MAX + (1 << 20), "a step of {step_bytes} bytes");
        steps += 1;
        assert!(steps < 100_000, "it does not end");
        match next {
            Ok(None) => return read,
            Ok(Some(hits)) => {
                assert_eq!(hits.frame.is_some(), !hits.is_empty());
                match query.order {
                    Order::Ascending => assert!(hits.considered >= considered),
                    Order::Descending => assert!(hits.considered <= considered),
                }
                considered = hits.considered;
                let known = read.events.len();
                read.events.extend(hits.events().map(|event| Written {
                    offset: event.offset().get(),
                    time_ms: event.time_ms(),
                    topic: event.topic().to_owned(),
                    data: event.data().to_vec(),
                }));
                for event in &read.events[known..] {
                    let offset = Offset::new(event.offset);
                    match query.order {
                        Order::Ascending => assert!(offset < considered),
                        Order::Descending => assert!(offset >= considered),
                    }
                }
            }
            Err(ReadError::Gap { from, to, .. }) => {
                assert!(from < to, "{from} to {to}");
                read.gaps.push((from.get(), to.get()));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn read(set: &Arc<SegmentSet<SimDisk>>, query: &ReadQuery) -> Read {
    read_with(&CountedReads::default(), set, query)
}

/// What the log holds of a query, without what lies in `gaps`.
fn expected(log: &TestLog, query: &ReadQuery, end: u64, gaps: &[(u64, u64)]) -> Vec<Written> {
    let wanted = |event: &&Written| {
        event.offset >= query.from.get()
            && event.offset < query.end.get().min(end)
            && (query.topics.is_empty()
                || query.topics.iter().any(|pattern| pattern.matches(&event.topic)))
            && !gaps.iter().any(|(from, to)| (*from..*to).contains(&event.offset))
    };
    let mut events: Vec<Written> = log.events.iter().filter(wanted).cloned().collect();
    if query.order == Order::Descending {
        events.reverse();
    }
    events
}

const PATTERNS: [&[&str]; 14] = [
    &[],
    &["**"],
    &["busy"],
    &["rare/1"],
    &["rare/*"],
    &["rooms/*/messages"],
    &["rooms/7/**"],
    &["rooms/7/messages"],
    &["rooms/7/messages", "rare/2", "rooms/11/messages"],
    &["nobody"],
    &["nobody/*"],
    &["busy", "rare/3"],
    &["*/7/*", "rare/**"],
    &["$own/x"],
];

/// Some segments, each with many frames of various lengths.
fn random_log(rng: &mut SimRng) -> TestLog {
    let mut log = TestLog::new(rng.next_u64());
    for segment in 0..rng.between(1, 4) {
        let mut frames = Vec::new();
        let long_frames = rng.chance(30);
        for _ in 0..rng.between(1, 250) {
            let mut frame = Vec::new();
            for _ in 0..rng.below(12) {
                let topic = match rng.below(1000) {
                    0 => format!("rare/{}", rng.below(5)),
                    1 => "$own/x".to_owned(),
                    2..600 => "busy".to_owned(),
                    600..700 => format!("only/{segment}"),
                    _ => format!("rooms/{}/messages", rng.below(60)),
                };
                let len = if rng.chance(3) { 30_000 } else { 300 };
                let len = if long_frames { len * 4 } else { len };
                let data_len = rng.index(len);
                frame.push((topic, rng.bytes(data_len)));
            }
            frames.push(frame);
        }
        let frames: Vec<Vec<(&str, Vec<u8>)>> = frames
            .iter()
            .map(|frame| frame.iter().map(|(topic, data)| (topic.as_str(), data.clone())).collect())
            .collect();
        log.add_sealed(&frames);
    }
    log
}

fn random_query(rng: &mut SimRng, end: u64) -> ReadQuery {
    let order = if rng.chance(50) { Order::Ascending } else { Order::Descending };
    let range = match rng.below(3) {
        0 => 0..end + 5,
        1 => rng.below(end + 1)..end,
        _ => {
            let from = rng.below(end + 1);
            from..from + rng.below(end + 1)
        }
    };
    query(PATTERNS[rng.index(PATTERNS.len())], range, order)
}

#[test]
fn random_queries_give_what_the_model_gives() {
    for seed in 0..12 {
        let rng = &mut SimRng::new(seed);
        let log = random_log(rng);
        let set = log.set();
        for round in 0..25 {
            let query = random_query(rng, log.end().get());
            let read = read(&set, &query);
            assert_eq!(read.gaps, [], "seed {seed} round {round} {query:?}");
            let expected = expected(&log, &query, u64::MAX, &[]);
            assert!(read.events == expected, "seed {seed} round {round} {query:?}");
        }
    }
}

/// Whatever is damaged: nothing that is not in a named gap is missing, and nothing wrong is given.
#[test]
fn damage_is_named_and_nothing_else_is_lost() {
    for seed in 100..130 {
        let rng = &mut SimRng::new(seed);
        let log = random_log(rng);
        let set = log.set();
        for _ in 0..rng.between(1, 6) {
            let (name, frames) = rng.pick(&log.segments).clone();
            let path = log.path(name, SegmentFile::Log);
            let frame = rng.pick(&frames).clone();
            match rng.below(4) {
                0 => {
                    let at = rng.below(64);
                    log.disk.flip_bit(&path, Position::new(frame.position + at), 3);
                }
                1 => {
                    let at = rng.below(frame.bytes);
                    log.disk.flip_bit(&path, Position::new(frame.position + at), 0);
                }
                2 if rng.chance(20) => {
                    log.open(name, SegmentFile::Log).set_size(frame.position + 10).expect("a disk");
                }
                _ => {
                    let path = log.path(name, SegmentFile::Index);
                    let size = log.disk.bytes(&path).expect("an index").len() as u64;
                    log.disk.flip_bit(&path, Position::new(rng.below(size)), 5);
                }
            }
        }
        for round in 0..10 {
            let query = random_query(rng, log.end().get());
            let read = read(&set, &query);
            let expected = expected(&log, &query, u64::MAX, &read.gaps);
            assert!(read.events == expected, "seed {seed} round {round} {query:?} {:?}", read.gaps);
        }
    }
}

#[test]
fn a_rotten_body_and_a_rotten_header_cost_their_frame_alone() {
    let mut log = TestLog::new(1);
    let frames: Vec<_> = (0..40).map(|_| vec![("a", vec![1; 9000]), ("b", vec![2; 100])]).collect();
    let name = log.add_sealed(&frames);
    let places = log.segments[0].1.clone();
    let set = log.set();
    let all = query(&[], 0..80, Order::Ascending);

    let path = log.path(name, SegmentFile::Log);
    log.disk.flip_bit(&path, Position::new(places[7].position + 5000), 1);
    assert_eq!(read(&set, &all).gaps, [(14, 16)]);
    log.disk.flip_bit(&path, Position::new(places[7].position + 5000), 1);

    // Frames are 12 KiB long, and a block holds five or six: whichever it is, the others are found.
    for place in &places {
        log.disk.flip_bit(&path, Position::new(place.position + 20), 1);
        let gap = [(place.base, place.end)];
        for (topics, order) in [
            (&[][..], Order::Ascending),
            (&[][..], Order::Descending),
            (&["b"][..], Order::Ascending),
        ] {
            let read = read(&set, &query(topics, 0..80, order));
            assert_eq!(read.gaps, gap);
            assert_eq!(read.events.len(), if topics.is_empty() { 78 } else { 39 });
        }
        log.disk.flip_bit(&path, Position::new(place.position + 20), 1);
    }
    // Of two in a row, and of the body of the one behind, each is named.
    log.disk.flip_bit(&path, Position::new(places[7].position + 20), 1);
    log.disk.flip_bit(&path, Position::new(places[8].position + 20), 1);
    log.disk.flip_bit(&path, Position::new(places[9].position + 5000), 1);
    assert_eq!(read(&set, &all).gaps, [(14, 18), (18, 20)]);
    let descending = read(&set, &query(&[], 0..80, Order::Descending));
    assert_eq!(descending.gaps, [(18, 20), (14, 18)]);
    assert_eq!(read(&set, &query(&[], 0..15, Order::Ascending)).gaps, [(14, 15)], "of the query");
    assert_eq!(read(&set, &query(&[], 0..14, Order::Ascending)).gaps, []);
}

/// A write of the disk has landed on a frame. What it has put there may be a frame that could stand there, of no events:
/// then the next one is where it should be, and begins farther on than is expected.
#[test]
fn a_write_that_landed_on_a_frame_costs_that_one_alone() {
    let frames = |frame: usize| if frame == 1 { vec![] } else { vec![("a", vec![1; 100])] };
    let frames: Vec<_> = (0..12).map(frames).collect();
    for (from, to) in (0..12).flat_map(|from| (2..12).map(move |to| (from, to))) {
        let mut log = TestLog::new(1);
        let name = log.add_sealed(&frames);
        let set = log.set();
        let (path, places) = (log.path(name, SegmentFile::Log), &log.segments[0].1);
        let bytes = log.disk.bytes(&path).expect("a file");
        let copy = usize::try_from(places[from].position).expect("short");
        log.disk.misdirect(&path, Position::new(places[to].position), &bytes[copy..copy + 4096]);
        let gaps = if from == to { vec![] } else { vec![(places[to].base, places[to].end)] };
        for order in [Order::Ascending, Order::Descending] {
            for topics in [&[][..], &["a"]] {
                let query = query(topics, 0..11, order);
                let read = read(&set, &query);
                assert_eq!(read.gaps, gaps, "{from} on {to}");
                assert_eq!(read.events, expected(&log, &query, u64::MAX, &gaps), "{from} on {to}");
            }
        }
    }
}

#[test]
fn a_missing_segment_is_a_gap() {
    let mut log = TestLog::new(2);
    for _ in 0..3 {
        log.add_sealed(&[vec![("a", vec![]), ("a", vec![])]]);
    }
    let set = log.set();
    let kept = set.iter().filter(|segment| segment.base() != Offset::new(2));
    let mut holed = SegmentSet::default();
    kept.for_each(|segment| holed.push(segment.clone()));
    let holed = Arc::new(holed);
    for order in [Order::Ascending, Order::Descending] {
        let read = read(&holed, &query(&["a"], 0..6, order));
        assert_eq!(read.gaps, [(2, 4)]);
        assert_eq!(read.events.len(), 4);
    }
}

#[test]
fn what_is_gone_is_said_once() {
    let mut log = TestLog::new(3);
    for _ in 0..2 {
        log.add_sealed(&[vec![("a", vec![]), ("a", vec![])]]);
    }
    let mut kept = SegmentSet::default();
    kept.push(log.set().iter().last().expect("two segments").clone());
    let mut reader = Reader::new(Arc::new(kept), &query(&[], 0..4, Order::Ascending));
    let next = reader.next_blocking();
    assert!(matches!(next, Err(ReadError::Expired { earliest }) if earliest == Offset::new(2)));
    let next = reader.next_blocking().expect("a read").expect("hits");
    assert_eq!(next.len(), 2);
}

#[test]
fn a_read_that_fails_once_is_repeated() {
    let mut log = TestLog::new(4);
    log.add_sealed(&[vec![("a", vec![]), ("a", vec![])]]);
    let mut reader = Reader::new(log.set(), &query(&[], 0..2, Order::Ascending));
    log.disk.arm(crate::io::sim::Fault::ReadFails, 0);
    let next = reader.next_blocking().expect("a read").expect("hits");
    assert_eq!(next.len(), 2);
}

/// It is reported once, and the reader goes on behind it.
#[test]
fn what_the_disk_does_not_give_back_is_a_gap() {
    let mut log = TestLog::new(4);
    let frame = vec![("a", vec![7; 9_000]), ("b", vec![7; 9_000])];
    let name = log.add_sealed(&vec![frame; 40]);
    let path = log.path(name, SegmentFile::Log);
    let bad = 300 << 10;
    log.disk.make_unreadable(&path, bad..bad + 512);
    for (topics, order) in [
        (&[][..], Order::Ascending),
        (&[], Order::Descending),
        (&["a"], Order::Ascending),
        (&["b"], Order::Descending),
    ] {
        let asked = query(topics, 0..80, order);
        let (offsets, gaps) = read_all(&log.set(), &asked, |event| event.offset().get());
        let [(from, to)] = gaps[..] else { panic!("one gap: {gaps:?}") };
        assert!(to > from && to - from < 12, "of one block: {gaps:?}");
        let wanted = |offset: &u64| topics.is_empty() || (offset % 2 == 1) == (topics == ["b"]);
        let mut expected: Vec<u64> = (0..from).chain(to..80).filter(wanted).collect();
        if order == Order::Descending {
            expected.reverse();
        }
        assert_eq!(offsets, expected, "{topics:?}");
    }
}

/// A log of a busy topic and one that is in few frames.
fn log_with_needles(needles: &[usize]) -> TestLog {
    let mut log = TestLog::new(5);
    let mut haystack = vec![vec![("busy", vec![0; 1000]); 20]; 200];
    for needle in needles {
        haystack[*needle][3].0 = "needle";
    }
    log.add_sealed(&haystack);
    log.add_sealed(&vec![vec![("busy", vec![0; 1000]); 20]; 200]);
    log
}

#[test]
fn a_small_topic_reads_only_what_it_needs() {
    let log = log_with_needles(&[5, 100, 101, 199]);
    let set = log.set();
    for order in [Order::Ascending, Order::Descending] {
        let io = CountedReads::default();
        let query = query(&["needle"], 0..8000, order);
        let read = read_with(&io, &set, &query);
        assert_eq!(read.events, expected(&log, &query, u64::MAX, &[]));
        // One block of topics, and three reads for four frames, two of which are neighbours.
        let reads = io.reads.take();
        assert_eq!(reads.len(), 4, "{reads:?}");
        assert!(reads.iter().sum::<usize>() < 300_000, "{reads:?}");
    }
}

#[test]
fn a_topic_that_is_not_there_reads_nothing_and_a_busy_one_is_scanned() {
    let log = log_with_needles(&[5]);
    let io = CountedReads::default();
    for number in 0..50 {
        let nobody = format!("nobody/{number}");
        read_with(&io, &log.set(), &query(&[&nobody], 0..8000, Order::Ascending));
    }
    // The filters of so few topics are small, and let some names through to one block of the index.
    let reads = io.reads.take();
    assert!(reads.len() < 20 && reads.iter().all(|bytes| *bytes == 4096), "{reads:?}");
    read_with(&io, &log.set(), &query(&["busy"], 0..8000, Order::Ascending));
    let reads = io.reads.take();
    assert!(reads.iter().all(|bytes| *bytes as u64 <= RUN_BYTES_MAX), "{reads:?}");
    assert!(reads.len() < 60, "{reads:?}");
}

#[test]
fn the_last_events_are_found_from_the_end() {
    let log = log_with_needles(&[5, 100]);
    let io = CountedReads::default();
    let mut reader = Reader::new(log.set(), &query(&["busy"], 0..8000, Order::Descending));
    let hits = BlockingReads::run(reader.next(&io)).expect("a read").expect("hits");
    assert_eq!(hits.events().next().map(|event| event.offset().get()), Some(7999));
    assert!(io.reads.take().iter().sum::<usize>() as u64 <= RUN_BYTES_MAX + 4096);
}

#[test]
fn times_lead_to_offsets() {
    let mut rng = SimRng::new(6);
    let mut log = random_log(&mut rng);
    while log.events.is_empty() {
        log = random_log(&mut rng);
    }
    let set = log.set();
    let last = log.events.last().expect("not empty").time_ms;
    for _ in 0..300 {
        let time_ms = rng.below(last + 20);
        let expected = log.events.iter().find(|event| event.time_ms >= time_ms);
        let found = BlockingReads::run(offset_at_time(&set, &BlockingReads, time_ms));
        let found = found.expect("a disk that works").map(Offset::get);
        assert_eq!(found, expected.map(|event| event.offset), "{time_ms}");
    }
}

/// A read by time failed for ever where a reader of the same place is told of a gap and goes on.
#[test]
fn a_time_in_what_the_disk_does_not_give_back_leads_to_where_that_begins() {
    let mut log = TestLog::new(4);
    let frame = vec![("a", vec![7; 9_000]), ("b", vec![7; 9_000])];
    let name = log.add_sealed(&vec![frame; 40]);
    let bad = 300 << 10;
    log.disk.make_unreadable(&log.path(name, SegmentFile::Log), bad..bad + 512);
    let set = log.set();
    let mut reader = Reader::new(Arc::clone(&set), &query(&[], 0..80, Order::Ascending));
    let (from, to) = loop {
        match reader.next_blocking() {
            Err(ReadError::Gap { from, to, .. }) => break (from.get(), to.get()),
            other => assert!(other.expect("a read").is_some(), "no gap was met"),
        }
    };
    for event in &log.events {
        let found = BlockingReads::run(offset_at_time(&set, &BlockingReads, event.time_ms))
            .expect("a place");
        let found = found.expect("in the sealed part").get();
        let first =
            log.events.iter().find(|other| other.time_ms >= event.time_ms).expect("itself").offset;
        // Whether what is behind it is the first of that time, nobody knows.
        let expected = if (from..=to).contains(&first) { from } else { first };
        assert_eq!(found, expected, "{}", event.time_ms);
    }
}

/// An event behind the damage that is of before that time says that nothing is hidden: all that stood from the damage to there
/// would be read by who asks for later ones.
#[test]
fn a_time_behind_what_is_damaged_is_found_where_it_is() {
    let mut log = TestLog::new(4);
    let name = log.add_sealed(&vec![vec![("a", vec![7; 10])]; 12]);
    let third = 4096 + 2 * 4096 + 100;
    log.disk.flip_bit(&log.path(name, SegmentFile::Log), Position::new(third), 0);
    let set = log.set();
    for event in &log.events {
        let found = BlockingReads::run(offset_at_time(&set, &BlockingReads, event.time_ms));
        let found = found.expect("a place").expect("in the sealed part").get();
        let first =
            log.events.iter().find(|other| other.time_ms >= event.time_ms).expect("itself").offset;
        // The first behind it, nobody knows whether it is the first of its time.
        let expected = if first == 3 { 2 } else { first };
        assert_eq!(found, expected, "{}", event.time_ms);
    }
}
