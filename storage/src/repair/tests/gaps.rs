//! Gaps that a repair has left: they are told for as long as the log would have kept what was there.

use super::*;
use crate::{
    data_dir::ASIDE_PREFIX,
    end_mark::{self, EndMark},
    frame::{Frame, Seed, Trust, kept},
    index::{IndexBuilder, SegmentEnd},
    io::{BlockingReads, sim::Fault},
    reader::offset_at_time,
    segment::{FIRST_FRAME_POSITION, SEGMENT_HEADER_BYTES, SegmentHeader},
    segment_set::{SealedSegment, SegmentSet},
};

/// Past the time at which a segment is rewritten.
fn much_later() -> Now {
    Now { wall_ms: now().wall_ms + 10_000_000, boot_ms: now().boot_ms + 10_000_000 }
}

/// A segment of gaps holds no event, and so none that is alive: compaction had taken it for dead, and readers
/// passed over what was lost without a word.
#[test]
fn a_gap_is_named_whatever_compaction_does() {
    let deleted = Control::Deleted(TopicsDeleted::of(vec!["a".into(), "b".into(), "c".into()]));
    let retain = TopicRetention { count: Some(1), ..TopicRetention::default() };
    let settings = Some(TopicSettings { retain, ..TopicSettings::default() });
    let counted = Control::Topic(TopicRule { pattern: "**".into(), settings });
    for control in [None, Some(deleted), Some(counted)] {
        for has_index in [false, true] {
            let log = log();
            // All of one is lost, and a part of another; of a third nothing.
            log.disk.remove(&path(&log, 1, SegmentFile::Log)).expect("a file");
            if !has_index {
                log.disk.remove(&path(&log, 1, SegmentFile::Index)).expect("a file");
            }
            flip(&log, 0, 2, 70);
            let lost = [(8, 12), (20, 32)];
            check_repair(&log.disk, 56, &lost);
            let mut opened = open(&log.disk).expect("it was repaired");
            let before = log.disk.bytes(&path(&log, 2, SegmentFile::Log));
            opened.run_ops(now());
            if let Some(control) = &control {
                opened.append_control(control, now()).expect("staged");
                opened.run_ops(now());
            }
            opened.run_ops(much_later());
            let after = log.disk.bytes(&path(&log, 2, SegmentFile::Log));
            assert!(after != before, "compaction has run, {control:?}");
            assert_eq!(read(&opened, &[]).1, lost, "{control:?}");
            assert_eq!(read(&opened, &["b"]).1, lost, "{control:?}");
            drop(opened);
            let disk = log.disk.power_cut();
            assert_eq!(exported_gaps(&disk), lost, "{control:?}");
            let found = verify(&disk, Path::new(DIR), &mut |finding| panic!("{finding}"));
            let notes = found.expect("not in use").notes;
            let named = |(from, to)| {
                let words = format!("events from {from} to {to} are lost");
                notes.iter().any(|note| note.contains(&words))
            };
            assert!(lost.into_iter().all(named), "{notes:?}");
            assert_eq!(read(&open(&disk).expect("sound"), &[]).1, lost, "{control:?}");
        }
    }
}

/// A segment of gaps has no event that is young: a limit by age, of however many years, passed it as soon as it was looked at,
/// and who read from a time on was led over it.
#[test]
fn a_gap_is_as_old_as_what_was_there() {
    for has_index in [true, false] {
        let log = log();
        log.disk.remove(&path(&log, 0, SegmentFile::Log)).expect("a file");
        if !has_index {
            log.disk.remove(&path(&log, 0, SegmentFile::Index)).expect("a file");
        }
        check_repair(&log.disk, 56, &[(0, 20)]);
        let mut opened = open(&log.disk).expect("it was repaired");
        let found = |log: &Log<SimDisk>, time_ms| {
            let found = offset_at_time(log.segments(), &BlockingReads, time_ms);
            BlockingReads::run(found).expect("readable").map(Offset::get)
        };
        let time_ms = |offset: usize| log.events[offset].time_ms;
        assert_eq!(found(&opened, time_ms(10)), Some(0), "has an index: {has_index}");
        assert_eq!(found(&opened, time_ms(24)), Some(24), "has an index: {has_index}");
        // Up to the time of one of them it is not led over the others.
        let behind = |offset| opened.segments().behind_timeless_gaps(Offset::new(offset)).get();
        assert_eq!([behind(0), behind(24)], [20, 24], "has an index: {has_index}");
        let years = LogRetention { age_s: Some(1_000_000_000), ..LogRetention::default() };
        let control = Control::Log(LogSettings { retain: years });
        opened.append_control(&control, now()).expect("staged");
        opened.run_ops(now());
        opened.run_ops(Now { boot_ms: now().boot_ms + 5_000, ..now() });
        assert_eq!(opened.start(), Offset::ZERO, "has an index: {has_index}");
        assert_eq!(read(&opened, &[]).1, [(0, 20)], "has an index: {has_index}");
    }
}

/// The mark says that there was more, and behind the last event that is there the disk gives nothing back: that file is written
/// anew, too, which was not said before the gap behind it was made.
#[test]
fn what_cannot_be_read_before_a_gap_at_the_end_is_left_out_at_once() {
    for (unreadable, is_index_damaged) in [(512, false), (u64::MAX / 2, false), (512, true)] {
        let log = log();
        let mark = EndMark { active: Offset::new(40), synced: Offset::new(60) };
        end_mark::write_anew(&log.disk, Path::new(DIR), &mark, &[]).expect("space");
        let last = log.segments[3].1[3].position;
        let path_of = |file| path(&log, 3, file);
        log.disk.make_unreadable(&path_of(SegmentFile::Log), last..last + unreadable);
        if is_index_damaged {
            log.write(&path_of(SegmentFile::Index), b"damaged");
        }
        let plan = check_repair(&log.disk, 60, &[(52, 60)]).plan;
        let [Step { action: Action::Rewrite { kept_events, lost, .. }, .. }, gap] = &plan.steps[..]
        else {
            panic!("{plan:?}");
        };
        assert_eq!((*kept_events, lost.len()), (12, 0));
        assert!(matches!(gap.action, Action::Fill { .. }), "{gap:?}");
    }
}

/// The copy was taken to end before the gap, and the log was not opened.
#[test]
fn a_gap_is_in_the_copy_that_a_start_makes_after_a_failed_sync() {
    for (segment, lost) in [(0, (8, 12)), (3, (48, 52))] {
        let log = log();
        flip(&log, segment, 2, 70);
        check_repair(&log.disk, 56, &[lost]);
        let name = log.segments[segment].0.next_generation().expect("the second");
        let index = log.path(name, SegmentFile::Index);
        let bytes = log.disk.bytes(&index).expect("an index").len() as u64;
        let (mut copied, dir) = (0, Path::new(DIR));
        for at in (0..bytes).step_by(61) {
            log.disk.flip_bit(&index, Position::new(at), 1);
            let (sound, failing) = (log.disk.fork(at), log.disk.fork(at));
            log.disk.flip_bit(&index, Position::new(at), 1);
            // Of some damage a start says what the index alone knew; other damage it does not see.
            let is_scanned = Log::open(sound, dir, small_segments(), now())
                .is_ok_and(|(_, report)| !report.scanned.is_empty());
            if is_scanned {
                failing.arm(Fault::SyncFails, 0);
                let opened = open(&failing).expect("as where the sync does not fail");
                assert_eq!((failing.disarm(), read(&opened, &[]).1), (0, vec![lost]), "at {at}");
                copied += 1;
            }
        }
        assert!(copied > 0, "in segment {segment}");
    }
}

/// Nothing sealed comes behind them by which one could say how old they are, and limits by age passed them at once.
#[test]
fn gaps_at_the_end_are_as_old_as_the_first_event_that_is_not_sealed() {
    let log = log();
    let mark = EndMark { active: Offset::new(40), synced: Offset::new(60) };
    end_mark::write_anew(&log.disk, Path::new(DIR), &mark, &[]).expect("space");
    log.disk.remove(&path(&log, 3, SegmentFile::Log)).expect("a file");
    check_repair(&log.disk, 60, &[(40, 60)]);
    let mut opened = open(&log.disk).expect("it was repaired");
    // Everything that is there, and has a time, is older; the clock has to last before it is believed.
    let later = |after_ms: u64| Now {
        wall_ms: now().wall_ms + after_ms,
        boot_ms: now().boot_ms + after_ms,
    };
    let day = LogRetention { age_s: Some(86_400), ..LogRetention::default() };
    let control = Control::Log(LogSettings { retain: day });
    assert_eq!(opened.segments().timeless_gaps_at_end(), Some(Offset::new(40)));
    let behind = |offset| opened.segments().behind_timeless_gaps(Offset::new(offset)).get();
    assert_eq!([behind(20), behind(30), behind(40), behind(60)], [20, 30, 60, 60]);
    opened.append_control(&control, later(0)).expect("staged");
    opened.run_ops(later(0));
    opened.run_ops(later(20_000_000));
    opened.run_ops(later(20_010_000));
    assert_eq!(opened.start(), Offset::new(40), "as old as the setting");
    opened.run_ops(later(200_000_000));
    opened.run_ops(later(200_010_000));
    assert!(opened.start() >= Offset::new(60), "which is too old as well");
}

/// The sealed segments of a repaired log that begin before an offset.
fn sealed_before(log: &TestLog, end: u64) -> SegmentSet<SimDisk> {
    let names = log.disk.list(Path::new(DIR)).expect("a directory");
    let mut names: Vec<_> =
        names.iter().filter_map(|name| SegmentName::parse(name)).map(|(name, _)| name).collect();
    names.sort_unstable();
    names.dedup();
    let sealed = names.into_iter().filter(|name| name.base_offset < Offset::new(end));
    let open = |name| SealedSegment::open(&log.disk, Path::new(DIR), name).expect("sealed");
    SegmentSet::new(sealed.map(open))
}

fn at_time(set: &SegmentSet<SimDisk>, time_ms: u64) -> Option<u64> {
    let found = offset_at_time(set, &BlockingReads, time_ms);
    BlockingReads::run(found).expect("readable").map(Offset::get)
}

/// Makes a segment one of which nothing is left but how far limits had reached when it was rewritten.
fn leave_the_word_alone(log: &TestLog, segment: usize) {
    let bytes = log.disk.bytes(&path(log, segment, SegmentFile::Log)).expect("a file");
    let header = SegmentHeader::decode(&bytes).expect("a segment");
    let seed = Seed::of(&header.incarnation);
    let end = Offset::new(log.segments[segment].1.last().expect("a frame").end);
    let (_, word) = kept::encode(header.base_offset, end, 5, seed, seed.chain_start());
    let frame = Frame::parse(word.clone(), seed, Trust::Checksum).expect("a frame of ours");
    let mut index = IndexBuilder::new(&header);
    index.add(&frame, FIRST_FRAME_POSITION).expect("a frame of ours");
    let end = SegmentEnd {
        end_offset: end,
        end_position: FIRST_FRAME_POSITION.plus(word.as_slice().len() as u64),
        end_checksum: frame.header().checksum,
    };
    let bytes = [&bytes[..SEGMENT_HEADER_BYTES], word.as_slice()].concat();
    log.write(&path(log, segment, SegmentFile::Log), &bytes);
    log.write_index(log.segments[segment].0, &index.finish(&end));
}

/// Whoever read up to a time was led over the second of them: a segment between whose events are gone for good, all but its
/// word or that as well, seemed to end them.
#[test]
fn gaps_of_any_time_go_on_behind_what_is_gone_on_purpose() {
    for is_word_left in [false, true] {
        let mut log = TestLog::new(1);
        for _ in 0..6 {
            log.add_sealed(&vec![vec![("a", vec![7; 100]); 4]; 2]);
        }
        log.add_unsealed(&[vec![("a", vec![7; 100])]]);
        if is_word_left {
            leave_the_word_alone(&log, 2);
        }
        for segment in [1, 3, 4] {
            log.disk.remove(&path(&log, segment, SegmentFile::Log)).expect("a file");
            log.disk.remove(&path(&log, segment, SegmentFile::Index)).expect("a file");
        }
        repaired(&log.disk);
        let middle = SegmentName::first_generation(Offset::new(16));
        let set = sealed_before(&log, 48);
        let set = if is_word_left { set } else { set.without(middle) };
        let behind = |offset| set.behind_timeless_gaps(Offset::new(offset)).get();
        let time_ms = |offset: usize| log.events[offset].time_ms;
        // From then on, and up to then.
        assert_eq!(at_time(&set, time_ms(20)), Some(8), "{is_word_left}");
        assert_eq!(behind(8), 40, "{is_word_left}");
        assert_eq!(at_time(&set, time_ms(43)), Some(43), "{is_word_left}");
        assert_eq!([behind(5), behind(43), behind(48)], [5, 43, 48], "{is_word_left}");
        // Nor does anything sealed come behind them, or only a word.
        let without_last = set.without(SegmentName::first_generation(Offset::new(40)));
        assert_eq!(without_last.timeless_gaps_at_end(), Some(Offset::new(8)), "{is_word_left}");
    }
}

/// Whoever read from a time on was led over what is lost at the end of a segment with events, and whoever read up to one
/// over what is lost at its begin, or between two of its events.
#[test]
fn a_gap_beside_events_of_its_segment_is_told_to_who_reads_by_time() {
    let (a_end, b_start) = ((0, 2), (1, 0));
    let cases = [
        (vec![a_end], false, (8, 12)),
        (vec![b_start], false, (12, 16)),
        (vec![a_end, b_start], false, (8, 16)),
        (vec![a_end, (2, 0)], true, (8, 28)),
        (vec![(1, 1)], false, (16, 20)),
    ];
    for (frames, is_one_gone, lost) in cases {
        let mut log = TestLog::new(1);
        for _ in 0..3 {
            log.add_sealed(&vec![vec![("a", vec![7; 100]); 4]; 3]);
        }
        log.add_unsealed(&[vec![("a", vec![7; 100])]]);
        for (segment, frame) in frames {
            flip(&log, segment, frame, 70);
            log.disk.remove(&path(&log, segment, SegmentFile::Index)).expect("a file");
        }
        if is_one_gone {
            log.disk.remove(&path(&log, 1, SegmentFile::Log)).expect("a file");
            log.disk.remove(&path(&log, 1, SegmentFile::Index)).expect("a file");
        }
        check_repair(&log.disk, 37, &[lost]);
        let set = sealed_before(&log, 36);
        let behind = |offset| set.behind_timeless_gaps(Offset::new(offset)).get();
        let time_ms = |offset: u64| log.events[usize::try_from(offset).expect("few")].time_ms;
        let (from, to) = lost;
        assert_eq!(at_time(&set, time_ms(from - 1)), Some(from - 1), "{lost:?}");
        for offset in from..=to {
            assert_eq!(at_time(&set, time_ms(offset)), Some(from), "{lost:?}, {offset}");
        }
        assert_eq!(at_time(&set, time_ms(to + 1)), Some(to + 1), "{lost:?}");
        assert_eq!(
            [from - 1, from, to, to + 1].map(behind),
            [from - 1, to, to, to + 1],
            "{lost:?}"
        );
    }
}

/// A repair makes a gap beside one that another has made, and in the index a new block begins between the two: whoever read from
/// a time on was told of the second alone.
#[test]
fn gaps_that_touch_over_the_edge_of_a_block_are_told_together() {
    let mut log = TestLog::new(1);
    log.add_sealed(&vec![vec![("a", vec![7; 100]); 4]; 20]);
    log.add_unsealed(&[vec![("a", vec![7; 100])]]);
    log.disk.remove(&path(&log, 0, SegmentFile::Index)).expect("a file");
    flip(&log, 0, 14, 70);
    check_repair(&log.disk, 81, &[(56, 60)]);
    // The frames lie where they did.
    let second = log.segments[0].0.next_generation().expect("the second");
    let position = Position::new(log.segments[0].1[15].position);
    assert_eq!(position, Position::new(64 << 10));
    log.disk.flip_bit(&log.path(second, SegmentFile::Log), position.plus(70), 1);
    log.disk.remove(&log.path(second, SegmentFile::Index)).expect("a file");
    check_repair(&log.disk, 81, &[(56, 64)]);
    let set = sealed_before(&log, 80);
    let gaps: Vec<_> = set.iter().flat_map(|segment| segment.index().gaps()).collect();
    assert_eq!(gaps.len(), 2, "{gaps:?}");
    for offset in 56..65 {
        assert_eq!(at_time(&set, log.events[offset].time_ms), Some(56), "{offset}");
    }
    assert_eq!(
        [55, 65].map(|offset| at_time(&set, log.events[offset].time_ms)),
        [Some(55), Some(65)]
    );
    assert_eq!(set.behind_timeless_gaps(Offset::new(56)), Offset::new(64));
}

/// Nor is anything sealed behind it. Limits by age take it for as old as the events before it.
#[test]
fn a_gap_behind_the_last_sealed_event_is_told_to_who_reads_from_a_later_time_on() {
    let mut log = TestLog::new(1);
    for _ in 0..2 {
        log.add_sealed(&vec![vec![("a", vec![7; 100]); 4]; 3]);
    }
    log.add_unsealed(&[vec![("a", vec![7; 100])]]);
    flip(&log, 0, 2, 70);
    log.disk.remove(&path(&log, 0, SegmentFile::Index)).expect("a file");
    check_repair(&log.disk, 25, &[(8, 12)]);
    let set = sealed_before(&log, 12);
    assert_eq!(at_time(&set, log.events[12].time_ms), None);
    assert_eq!(set.timeless_gaps_at_end(), Some(Offset::new(8)));
    assert_eq!(set.timeless_segments_at_end(), None);
    let kept = sealed_before(&log, 24).kept_at_time(log.events[12].time_ms);
    assert_eq!(kept, Some(Offset::new(12)));
}

/// A write of the disk has put a copy of it over another frame: whoever reads the segment whole took that one for lost before
/// the repair, which is no news to anybody.
#[test]
fn a_gap_stands_for_its_own_events_alone() {
    let mut log = TestLog::new(1);
    log.add_sealed(&vec![vec![("a", vec![7; 100])]; 6]);
    log.add_unsealed(&[vec![("a", vec![7; 100])]]);
    flip(&log, 0, 3, 70);
    check_repair(&log.disk, 7, &[(3, 4)]);
    let name = log.segments[0].0.next_generation().expect("the second");
    let path = log.path(name, SegmentFile::Log);
    let [to, gap] = [1, 3].map(|frame| log.segments[0].1[frame].position);
    let bytes = log.disk.bytes(&path).expect("a file");
    let gap = &bytes[usize::try_from(gap).expect("short")..][..4096];
    log.disk.misdirect(&path, Position::new(to), gap);

    let found = findings(&log.disk);
    assert!(matches!(&found[..], [one] if one.contains("events from 1 to 2")), "{found:?}");
    let config = LogConfig { scrub_interval_s: 100, ..small_segments() };
    let opened = Log::open(log.disk.fork(1), Path::new(DIR), config, now());
    let (mut opened, _) = opened.expect("its index is whole");
    let mut boot_ms = now().boot_ms;
    while opened.scrub_totals().passes == 0 {
        boot_ms += 1_000;
        opened.run_ops(Now { boot_ms, ..now() });
    }
    assert_eq!(opened.damaged_segments(), 1);
    check_repair(&log.disk, 7, &[(1, 2), (3, 4)]);
}

/// What the log as a whole keeps no more goes all the same, and readers are told that it has expired.
#[test]
fn the_limits_of_a_log_pass_its_gaps() {
    let none = LogRetention::default();
    for retain in [
        LogRetention { count: Some(17), ..none },
        LogRetention { bytes: Some(24 << 10), ..none },
        LogRetention { age_s: Some(100), ..none },
    ] {
        let log = log();
        flip(&log, 0, 2, 70);
        log.disk.remove(&path(&log, 1, SegmentFile::Log)).expect("a file");
        log.disk.remove(&path(&log, 2, SegmentFile::Log)).expect("a file");
        check_repair(&log.disk, 56, &[(8, 12), (20, 40)]);
        let mut opened = open(&log.disk).expect("it was repaired");
        let control = Control::Log(LogSettings { retain });
        opened.append_control(&control, now()).expect("staged");
        opened.run_ops(now());
        opened.run_ops(much_later());
        assert!(opened.start() >= Offset::new(40), "{retain:?}: {}", opened.start());
        let first = opened.segments().iter().next().map(|segment| segment.base());
        assert!(first.is_none_or(|base| base >= Offset::new(40)), "{retain:?}: {first:?}");
        let disk = log.disk.power_cut();
        let start = opened.start();
        drop(opened);
        let found = verify(&disk, Path::new(DIR), &mut |finding| panic!("{finding}"));
        assert_eq!(found.expect("not in use").notes, Vec::<String>::new(), "{retain:?}");
        assert_eq!(exported_gaps(&disk), [], "{retain:?}");
        let mut opened = open(&disk).expect("sound");
        opened.run_ops(much_later());
        assert!(opened.start() >= start, "{retain:?}");
    }
}

/// Where a file is missing nothing is taken out: an empty directory stayed, and it was said that files are kept in it.
#[test]
fn a_repair_that_takes_nothing_out_keeps_nothing() {
    let log = log();
    for file in [SegmentFile::Log, SegmentFile::Index] {
        log.disk.remove(&path(&log, 1, file)).expect("a file");
    }
    assert_eq!(check_repair(&log.disk, 56, &[(20, 32)]).asides, [] as [PathBuf; 0]);
    let aside = Path::new(DIR).join(format!("{ASIDE_PREFIX}{}", now().wall_ms));
    log.disk.list(&aside).expect_err("it is empty");
}
