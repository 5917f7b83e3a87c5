mod any_damage;
mod asides;
mod foreign;
mod full_disk;
mod gaps;
mod generations;
mod last_segment;
mod later_rounds;
mod misdirected;
mod rewritten;
mod rounds;
mod snapshots;
mod strays;
mod stubs;

use std::{collections::BTreeSet, ops::ControlFlow};

use super::*;
use crate::{
    append::{Append, OffsetScope, ProducerClaim, ProducerId},
    config::LogConfig,
    control::{Control, TopicRule, TopicsDeleted},
    error::ReadError,
    event::{EventId, NewEvent},
    io::{
        Access, DiskFile,
        sim::{SimDisk, rng::SimRng},
    },
    log::{
        Log,
        tests::{event, now as log_now},
    },
    offset::Position,
    reader::ReadQuery,
    segment::SegmentFile,
    settings::{LogRetention, LogSettings, TopicRetention, TopicSettings},
    snapshot,
    stopped::StoppedLog,
    testing::{TestLog, append_numbers, everything, now, read_all, small_segments},
    topic::TopicPattern,
    verify::verify,
};

const DIR: &str = "/log";
/// Segments until a snapshot.
const NEVER: usize = usize::MAX;

fn with_id() -> NewEvent {
    NewEvent { id: Some(EventId::parse("x").expect("an id")), ..event("gone", "0") }
}

fn claimed() -> Append {
    let id = ProducerId::parse("p").expect("a name");
    let producer = Some(ProducerClaim { id, epoch: 0, seq: 0, scope: OffsetScope::Topic });
    Append { events: vec![event("gone", "1")], expected: None, producer }
}

/// Whether the id of [`with_id`] and the producer of [`claimed`] are forgotten.
fn asked_again(log: &mut Log<SimDisk>) -> (bool, bool) {
    let mut is_new = |append: Append| {
        log.append(append, log_now(3)).expect("it is known, or new").duplicates == 0
    };
    let id = Append { events: vec![with_id()], expected: None, producer: None };
    (is_new(id), is_new(claimed()))
}

fn snapshots(disk: &SimDisk) -> Vec<PathBuf> {
    let names = disk.list(Path::new(DIR)).expect("a directory");
    let offsets = snapshot::read::offsets(&names).into_iter();
    offsets.map(|offset| Path::new(DIR).join(snapshot::file_name(offset))).collect()
}

fn open(disk: &SimDisk) -> Result<Log<SimDisk>, OpenError> {
    Log::open(disk.clone(), Path::new(DIR), small_segments(), now()).map(|(log, _)| log)
}

/// A log of so many events, each in a frame of its own, whose process was killed. Its tag, and
/// the disk as the next process has it.
fn killed_log(seed: u64, events: usize) -> (Tag, SimDisk) {
    let disk = SimDisk::new(seed);
    let mut log = open(&disk).expect("a new log");
    append_numbers(&mut log, events);
    assert_eq!(log.visible(), Offset::new(events as u64));
    (*log.tag(), disk.kill())
}

/// Three sealed segments and one that is not, with 20, 12, 8 and 16 events of three topics in frames of 4.
fn log() -> TestLog {
    let frames = |count: usize| {
        let topics = ["a", "b", "c", "a"];
        let frame = |frame| topics.iter().map(move |topic| (*topic, vec![7; frame * 900 % 5000]));
        (0..count).map(|at| frame(at).collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    let mut log = TestLog::new(1);
    for count in [5, 3, 2] {
        log.add_sealed(&frames(count));
    }
    log.add_unsealed(&frames(4));
    log
}

fn path(log: &TestLog, segment: usize, file: SegmentFile) -> PathBuf {
    log.path(log.segments[segment].0, file)
}

/// Flips a bit in the header (at 10) or the body (at 70) of a frame.
fn flip(log: &TestLog, segment: usize, frame: usize, at: u64) {
    let position = Position::new(log.segments[segment].1[frame].position + at);
    log.disk.flip_bit(&path(log, segment, SegmentFile::Log), position, 1);
}

/// The offsets that an opened log gives of a topic, or of all, and the gaps.
fn read(log: &Log<SimDisk>, topics: &[&str]) -> (Vec<u64>, Vec<(u64, u64)>) {
    let topics = topics.iter().map(|text| TopicPattern::parse(text).expect("a pattern")).collect();
    let query = ReadQuery { topics, ..everything() };
    read_all(log.segments(), &query, |event| event.offset().get())
}

/// The gaps that a program without a server finds.
fn exported_gaps(disk: &SimDisk) -> Vec<(u64, u64)> {
    let mut gaps = Vec::new();
    let stopped = StoppedLog::open(disk, Path::new(DIR)).expect("not in use");
    stopped
        .read(&everything(), &mut |part| {
            if let Err(ReadError::Gap { from, to, .. }) = part {
                gaps.push((from.get(), to.get()));
            }
            ControlFlow::Continue(())
        })
        .expect("of this version");
    gaps
}

/// What `verify` finds.
fn findings(disk: &SimDisk) -> Vec<String> {
    let mut found = Vec::new();
    verify(disk, Path::new(DIR), &mut |finding| found.push(finding.to_string()))
        .expect("not in use");
    found
}

fn planned(disk: &SimDisk) -> RepairPlan {
    plan(disk, Path::new(DIR)).expect("not in use")
}

fn repaired(disk: &SimDisk) -> Repaired {
    repair(disk, Path::new(DIR), now()).expect("a disk that works").expect("something to repair")
}

/// Gaps that touch are one.
fn merged(gaps: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (from, to) in gaps {
        match merged.last_mut() {
            Some(last) if last.1 == from => last.1 = to,
            _ => merged.push((from, to)),
        }
    }
    merged
}

/// A plan without the tags that are made up anew each time.
fn without_tags(plan: &RepairPlan) -> RepairPlan {
    let mut plan = plan.clone();
    if plan.new_tag.take().is_some() {
        for step in &mut plan.steps {
            if let Action::Fill { tag, .. } = &mut step.action {
                *tag = Tag::parse("test1").expect("a tag");
            }
        }
    }
    plan
}

/// Repairs what is damaged, and gives what is left: it is sound, and all but `lost` can be read.
fn check_repair(disk: &SimDisk, events: u64, lost: &[(u64, u64)]) -> Repaired {
    let plan = planned(disk);
    assert!(plan.beyond.is_empty(), "{plan:?}");
    let repaired = repaired(disk);
    assert_eq!(without_tags(&repaired.plan), without_tags(&plan), "what is done is what was said");
    assert_eq!(repaired.left, []);
    let found = verify(disk, Path::new(DIR), &mut |finding| panic!("{finding}"));
    assert_eq!(found.expect("not in use").end, Offset::new(events));
    let again = planned(disk);
    assert!(again.steps.is_empty() && again.beyond.is_empty(), "{again:?}");
    let log = open(&disk.fork(3)).expect("it was repaired");
    let (offsets, gaps) = read(&log, &[]);
    assert_eq!(merged(gaps), lost);
    let is_lost = |offset: &u64| lost.iter().any(|(from, to)| (*from..*to).contains(offset));
    assert_eq!(offsets, (0..events).filter(|offset| !is_lost(offset)).collect::<Vec<_>>());
    repaired
}

/// How many events the one segment has that is written anew, by a plan that loses none.
fn rewritten_whole(plan: &RepairPlan) -> u64 {
    match &plan.steps[..] {
        [Step { action: Action::Rewrite { kept_events, lost, .. }, .. }] if lost.is_empty() => {
            *kept_events
        }
        _ => panic!("{plan:?}"),
    }
}

#[test]
fn a_sound_log_needs_no_repair() {
    let disk = SimDisk::new(1);
    disk.create_dir(Path::new(DIR)).expect("an empty disk");
    assert_eq!(planned(&disk), RepairPlan::default());
    let (tag, disk) = killed_log(1, 10);
    assert_eq!(planned(&disk), RepairPlan::default());
    let done = repair(&disk, Path::new(DIR), now()).expect("not in use");
    assert_eq!(done, Err(RepairPlan::default()));
    assert_eq!(*open(&disk).expect("sound").tag(), tag);
    assert_eq!(planned(&log().disk), RepairPlan::default());
}

/// No checksum covers what lies behind a body, and no reader looks at it: what `verify` finds there costs no event.
#[test]
fn a_frame_whose_padding_alone_is_damaged_keeps_its_events() {
    let log = log();
    for (segment, frame) in [(0, 1), (0, 4), (2, 0), (3, 2)] {
        let bytes = log.segments[segment].1[frame].bytes;
        flip(&log, segment, frame, bytes - 1);
    }
    let plan = check_repair(&log.disk, 56, &[]).plan;
    let kept = plan.steps.iter().map(|step| match &step.action {
        Action::Rewrite { kept_events, lost, .. } if lost.is_empty() => *kept_events,
        action => panic!("{action:?}"),
    });
    assert_eq!(kept.collect::<Vec<_>>(), [20, 8, 16]);
}

#[test]
fn frames_of_sealed_segments_are_lost_alone() {
    for at in [10, 70] {
        let log = log();
        flip(&log, 0, 1, at);
        flip(&log, 0, 2, at);
        flip(&log, 1, 2, at);
        let repaired = check_repair(&log.disk, 56, &[(4, 12), (28, 32)]);
        assert_eq!(repaired.plan.steps.len(), 2);
        let Action::Rewrite { kept_events, lost, .. } = &repaired.plan.steps[0].action else {
            panic!("{repaired:?}");
        };
        assert_eq!((*kept_events, lost.len()), (12, 1));
        // Who reads one topic is told too: nobody knows of what topics the lost events were.
        let log = open(&log.disk).expect("it was repaired");
        let (offsets, gaps) = read(&log, &["b"]);
        assert!(offsets.starts_with(&[1, 13, 17, 21]), "{offsets:?}");
        assert_eq!((gaps[0].0, gaps[gaps.len() - 1]), (4, (28, 32)));
        assert_eq!(read(&log, &["nobody"]).1, gaps);
    }
}

#[test]
fn a_damaged_index_is_made_anew() {
    let log = log();
    log.disk.flip_bit(&path(&log, 1, SegmentFile::Index), Position::new(600), 0);
    assert_eq!(
        planned(&log.disk).steps[0].action,
        Action::Reindex { forgotten: Forgotten::default() }
    );
    check_repair(&log.disk, 56, &[]);
    // Together with damaged frames, which alone keep a log without an index from opening.
    flip(&log, 1, 0, 70);
    log.disk.flip_bit(&path(&log, 1, SegmentFile::Index), Position::new(600), 0);
    assert!(open(&log.disk.fork(1)).is_err());
    check_repair(&log.disk, 56, &[(20, 24)]);
}

/// The index of a repaired segment is lost: of the events in its gap that had taken over what they had added to the state
/// of the log. Its frames, gap frames among them, say the rest.
#[test]
fn a_repaired_segment_opens_without_its_index_once_a_person_has_said_so() {
    let log = log();
    flip(&log, 1, 0, 70);
    check_repair(&log.disk, 56, &[(20, 24)]);
    let name = log.segments[1].0.next_generation().expect("the second");
    log.disk.remove(&log.dir.join(name.index_file_name())).expect("a file");
    assert!(matches!(open(&log.disk.fork(1)), Err(OpenError::Corrupt(_))), "not by itself");
    let repaired = check_repair(&log.disk, 56, &[(20, 24)]);
    let [Step { action: Action::Rewrite { forgotten, .. }, .. }] = &repaired.plan.steps[..] else {
        panic!("{repaired:?}");
    };
    let all = Forgotten { ids: true, producers: true, last_offsets: true, settings: true };
    assert_eq!(*forgotten, all);
    let opened = open(&log.disk).expect("its frames say the rest");
    assert_eq!(read(&opened, &[]).1, [(20, 24)]);
}

#[test]
fn a_header_is_made_anew_from_the_index() {
    let log = log();
    log.disk.flip_bit(&path(&log, 1, SegmentFile::Log), Position::new(40), 0);
    assert!(open(&log.disk.fork(1)).is_err());
    check_repair(&log.disk, 56, &[]);
    // Where that is damaged too, from the frames: the checksum of one tells what all were begun with.
    for segment in [1, 3] {
        let log = self::log();
        flip(&log, segment, 0, 70);
        log.disk.flip_bit(&path(&log, segment, SegmentFile::Log), Position::new(40), 0);
        if segment == 1 {
            log.disk.flip_bit(&path(&log, 1, SegmentFile::Index), Position::new(40), 0);
        }
        let from = log.segments[segment].1[0].base;
        let repaired = check_repair(&log.disk, 56, &[(from, from + 4)]);
        assert_eq!(repaired.new_tag.is_some(), segment == 3, "in what mode it was is not known");
        let opened = open(&log.disk).expect("it was repaired");
        assert_eq!(repaired.new_tag.unwrap_or(Tag::parse("test1").expect("a tag")), *opened.tag());
    }
}

#[test]
fn missing_files_become_gaps_once_somebody_says_so() {
    for (segment, lost) in [(0, (0, 20)), (1, (20, 32)), (2, (32, 40))] {
        for files in [&[SegmentFile::Log][..], &[SegmentFile::Log, SegmentFile::Index]] {
            let log = log();
            for file in files {
                log.disk.remove(&path(&log, segment, *file)).expect("a file");
            }
            assert!(open(&log.disk.fork(1)).is_err(), "not by itself");
            check_repair(&log.disk, 56, &[lost]);
        }
    }
}

/// Where a last segment ended its index says, be that damaged elsewhere: no other tag is needed.
#[test]
fn the_sound_header_of_a_damaged_index_says_where_a_lost_segment_ended() {
    for is_file_there in [false, true] {
        let mut log = TestLog::new(1);
        log.add_sealed(&[vec![("a", vec![7; 100]); 4]]);
        log.add_sealed(&[vec![("b", vec![7; 100]); 4]]);
        let file = path(&log, 1, SegmentFile::Log);
        if is_file_there {
            log.disk.flip_bit(&file, Position::new(30), 1);
            flip(&log, 1, 0, 70);
        } else {
            log.disk.remove(&file).expect("a file");
        }
        log.disk.flip_bit(&path(&log, 1, SegmentFile::Index), Position::new(600), 0);
        let repaired = check_repair(&log.disk, 8, &[(4, 8)]);
        assert_eq!(repaired.new_tag, None, "{is_file_there}");
    }
}

/// The last segment without a header or a whole frame, and no index says what it was.
#[test]
fn a_last_segment_of_which_nothing_is_known_goes_whole_and_the_tag_with_it() {
    let log = log();
    let last = path(&log, 3, SegmentFile::Log);
    log.disk.flip_bit(&last, Position::new(30), 1);
    (0..4).for_each(|frame| flip(&log, 3, frame, 70));
    log.disk.make_unreadable(&last, 3 * 4096 + 5..3 * 4096 + 6);
    let before = log.disk.bytes(&last).expect("a file");
    assert_eq!(planned(&log.disk).steps[0].action, Action::Abandon);
    let repaired = check_repair(&log.disk, 40, &[]);
    let opened = open(&log.disk).expect("it was repaired");
    assert_eq!(Some(*opened.tag()), repaired.new_tag);
    let kept = log.disk.bytes(&repaired.asides[0].join(last.file_name().expect("a name")));
    let kept = kept.expect("the file");
    assert_eq!(kept[..3 * 4096], before[..3 * 4096]);
    assert!(kept[3 * 4096..4 * 4096].iter().all(|byte| *byte == 0), "what cannot be read");
    assert_eq!(kept[4 * 4096..], before[4 * 4096..kept.len()]);
}

#[test]
fn what_the_disk_cannot_read_is_lost_to_the_block() {
    let log = log();
    let frame = &log.segments[0].1[2];
    log.disk.make_unreadable(&path(&log, 0, SegmentFile::Log), frame.position..frame.position + 1);
    let frame = &log.segments[3].1[0];
    log.disk.make_unreadable(&path(&log, 3, SegmentFile::Log), frame.position..frame.position + 1);
    check_repair(&log.disk, 56, &[(8, 12), (40, 44)]);
}

#[test]
fn segments_that_overlap_are_beyond_repair() {
    let log = log();
    let name = SegmentName::first_generation(Offset::new(25));
    let bytes = log.disk.bytes(&path(&log, 3, SegmentFile::Log)).expect("a file");
    log.write(&log.path(name, SegmentFile::Log), &bytes);
    assert!(!planned(&log.disk).beyond.is_empty());
}

/// A stray empty file, as a copy that went wrong leaves it, had got an index and another name, and the log did not
/// open afterwards either.
#[test]
fn nothing_is_touched_where_something_is_beyond_repair() {
    let log = log();
    let stray = SegmentName::first_generation(Offset::new(25));
    log.write(&log.path(stray, SegmentFile::Log), &[]);
    flip(&log, 0, 1, 70);
    let plan = planned(&log.disk);
    assert!(!plan.beyond.is_empty() && !plan.steps.is_empty(), "{plan:?}");
    let state = || {
        let mut names = log.disk.list(Path::new(DIR)).expect("a directory");
        names.sort_unstable();
        let bytes = |name: &String| log.disk.bytes(&Path::new(DIR).join(name)).expect("a file");
        names.iter().map(|name| (name.clone(), bytes(name))).collect::<Vec<_>>()
    };
    let before = state();
    assert_eq!(repair(&log.disk, Path::new(DIR), now()).expect("a disk that works"), Err(plan));
    assert_eq!(state(), before);
    assert!(open(&log.disk).is_err());
    log.disk.remove(&log.path(stray, SegmentFile::Log)).expect("a file");
    check_repair(&log.disk, 56, &[(4, 8)]);
}

/// A power cut anywhere in a repair: a second one ends as the first would have, and nothing more is lost.
#[test]
fn a_crash_at_any_step_of_a_repair_loses_nothing() {
    let damaged = |seed| {
        let log = log();
        let disk = log.disk.fork(seed);
        for (segment, frame, at) in [(0, 1, 70), (3, 1, 10)] {
            let position = Position::new(log.segments[segment].1[frame].position + at);
            disk.flip_bit(&path(&log, segment, SegmentFile::Log), position, 1);
        }
        disk.remove(&path(&log, 2, SegmentFile::Log)).expect("a file");
        disk.flip_bit(&path(&log, 1, SegmentFile::Index), Position::new(600), 0);
        disk.sync_dir(Path::new(DIR)).expect("a disk that works");
        disk
    };
    let lost = [(4, 8), (32, 40), (44, 48)];
    let disk = damaged(0);
    let before = disk.operations();
    check_repair(&disk, 56, &lost);
    let operations = disk.operations() - before;
    let mut again = 0;
    for crash_after in 1..=operations {
        let disk = damaged(crash_after);
        disk.crash_after(Some(crash_after));
        let outcome = repair(&disk, Path::new(DIR), now());
        let disk = disk.power_cut();
        if planned(&disk) != RepairPlan::default() {
            again += 1;
            assert!(outcome.is_err(), "crash after {crash_after}");
            check_repair(&disk, 56, &lost);
        } else {
            let log = open(&disk).expect("it was repaired");
            assert_eq!(read(&log, &[]).1, lost, "crash after {crash_after}");
        }
    }
    assert!(again > 0);
}

/// A whole snapshot knows what was there before the files that are, be it that all of it was kept.
#[test]
fn a_missing_first_file_is_no_more_than_that_where_a_snapshot_is_whole() {
    let log = log();
    let config = crate::config::LogConfig {
        snapshot_segments: 1,
        compress_after_s: u64::MAX,
        ..small_segments()
    };
    let opened = Log::open(log.disk.clone(), Path::new(DIR), config, now());
    let mut opened = opened.expect("sound").0;
    opened.run_ops(now());
    assert!(opened.snapshot_totals().made > 0);
    drop(opened);
    let disk = &log.disk;
    for file in [SegmentFile::Log, SegmentFile::Index] {
        disk.remove(&path(&log, 0, file)).expect("a file");
    }
    let repaired = check_repair(disk, 56, &[(0, 20)]);
    let [Step { action: Action::Fill { lost, .. }, .. }] = &repaired.plan.steps[..] else {
        panic!("{repaired:?}");
    };
    assert_eq!(lost.what, "a file is missing");
    assert!(open(disk).expect("it was repaired").topics().get("c").is_some());
}
/// A file with the name of a segment far behind the end, of which nothing shows that it is one: no gap is made up to it.
#[test]
fn a_stray_file_behind_the_end_is_beyond_repair() {
    let stray = Path::new(DIR).join("00000000000000000999.1.log");
    for kind in ["empty", "zeroes", "a copy of the first", "a copy of the last"] {
        let log = log();
        let last = log.segments.len() - 1;
        let content = match kind {
            "empty" => Vec::new(),
            "zeroes" => vec![0; 8192],
            "a copy of the first" => log.disk.bytes(&path(&log, 0, SegmentFile::Log)).expect("it"),
            _ => log.disk.bytes(&path(&log, last, SegmentFile::Log)).expect("it"),
        };
        let file = log.disk.create(&stray, Access::Write).expect("a free name");
        file.write_all_at(&content, Position::default()).expect("space");
        // The whole log is damaged elsewhere as well: nothing is done about that either.
        flip(&log, 0, 1, 70);
        let planned = planned(&log.disk);
        assert!(planned.beyond.iter().any(|damage| damage.file == stray), "{kind}: {planned:?}");
        let names = || {
            let mut names = log.disk.list(Path::new(DIR)).expect("listed");
            names.sort_unstable();
            names
        };
        let before = names();
        let done = repair(&log.disk, Path::new(DIR), now()).expect("not in use");
        assert_eq!(done, Err(planned), "{kind}");
        assert_eq!(names(), before, "nothing is changed");
    }
}
