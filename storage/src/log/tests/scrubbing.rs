//! Reading sealed segments again.

use super::*;
use crate::log::scrubbing::SCRUB_FIRST_MS;

#[test]
fn a_scrub_finds_rot_reports_it_once_and_sees_when_it_is_gone() {
    let disk = SimDisk::new(8);
    let config = LogConfig { scrub_interval_s: 100, scrub_bytes_per_s: 1 << 20, ..tiny() };
    let (mut log, _) = open_with(&disk, config);
    append_each(&mut log, 100);
    let notices = |log: &mut Log<SimDisk>, boot_ms: u64| {
        let mut now_ms = boot_ms;
        while now_ms < boot_ms + 90_000 {
            log.run_ops(now(now_ms));
            now_ms = log.deadline().expect("limits of time").max(now_ms + 1);
        }
        let notices = log.take_notices();
        let of_scrub = notices.into_iter().filter(|notice| {
            matches!(
                notice,
                Notice::Scrubbed { .. } | Notice::Damaged { .. } | Notice::SoundAgain { .. }
            )
        });
        of_scrub.collect::<Vec<_>>()
    };
    let first = notices(&mut log, 100_000);
    assert!(
        matches!(first[..], [Notice::Scrubbed { damaged: 0, bytes }] if bytes > 100_000),
        "{first:?}"
    );
    let path = log_files(&disk)[1].clone();
    disk.flip_bit(&path, Position::new(9_000), 3);
    let second = notices(&mut log, 210_000);
    assert!(
        matches!(second[..], [Notice::Damaged { .. }, Notice::Scrubbed { damaged: 1, .. }]),
        "{second:?}"
    );
    let third = notices(&mut log, 320_000);
    assert!(matches!(third[..], [Notice::Scrubbed { damaged: 1, .. }]), "{third:?}");
    // Whatever it was, the disk gives back what was written.
    disk.flip_bit(&path, Position::new(9_000), 3);
    let fourth = notices(&mut log, 430_000);
    assert!(
        matches!(fourth[..], [Notice::SoundAgain { .. }, Notice::Scrubbed { damaged: 0, .. }]),
        "{fourth:?}"
    );
}

/// One sealed segment, of which a scrub has taken the first step at 100 s and rests for some seconds.
fn half_scrubbed(disk: &SimDisk) -> Log<SimDisk> {
    let config = LogConfig {
        segment_bytes: 6 << 20,
        scrub_interval_s: 100,
        scrub_bytes_per_s: 1 << 20,
        ..tiny()
    };
    let (mut log, _) = open_with(disk, config);
    let data = "x".repeat(50_000);
    for _ in 0..150 {
        append(&mut log, &data);
        log.run_ops(now(2));
    }
    assert_eq!(log.segments().len(), 1);
    log.run_ops(now(100_000));
    let ScrubTotals { bytes, passes } = log.scrub_totals();
    assert!((4 << 20..5 << 20).contains(&bytes) && passes == 0, "in the middle: {bytes}");
    log
}

/// Somebody else has found damage where a scrub had been already.
#[test]
fn a_scrub_calls_nothing_sound_that_was_found_damaged_meanwhile() {
    let disk = SimDisk::new(9);
    let mut log = half_scrubbed(&disk);
    let pass_from = |log: &mut Log<SimDisk>, mut now_ms: u64| {
        let passes = log.scrub_totals().passes;
        while log.scrub_totals().passes == passes {
            now_ms += 1_000;
            log.run_ops(now(now_ms));
        }
        now_ms
    };
    let name = log.segments().iter().next().expect("one is sealed").name();
    log.note_damage(name, "its first half".to_owned());
    let now_ms = pass_from(&mut log, 100_000);
    assert_eq!(log.damaged_segments(), 1, "its second half alone was read since");
    pass_from(&mut log, now_ms);
    assert_eq!(log.damaged_segments(), 0);
}

/// A scrub rests for seconds between two steps, and would keep the segment open all that time.
#[test]
fn a_scrub_keeps_no_segment_that_is_gone() {
    let disk = SimDisk::new(9);
    let mut log = half_scrubbed(&disk);
    let retain = crate::settings::LogRetention { count: Some(10), ..Default::default() };
    let control = Control::Log(crate::settings::LogSettings { retain });
    log.append_control(&control, now(100_001)).expect("staged");
    log.run_ops(now(101_100));
    log.run_ops(now(102_200));
    assert_eq!((log.segments().len(), log.gone.len()), (0, 0));
    let scrubbed = log.scrub_totals().bytes;
    assert!((4 << 20..5 << 20).contains(&scrubbed), "it was in the middle: {scrubbed}");
}

/// Every start began with the first segment: of a server that is restarted often the last ones were never read.
#[test]
fn restarts_that_end_each_pass_keep_no_segment_from_being_read() {
    let mut disk = SimDisk::new(8);
    // Nothing else reads the segments.
    let config = || LogConfig { compress_after_s: 1_000_000_000, ..tiny() };
    let (mut log, _) = open_with(&disk, config());
    append_each(&mut log, 100);
    let names: Vec<_> = log.segments().iter().map(|segment| segment.name()).collect();
    assert!(names.len() > 4, "{names:?}");
    for path in &log_files(&disk)[..names.len()] {
        disk.flip_bit(path, Position::new(9_000), 3);
    }
    drop(log);
    let mut found = std::collections::BTreeSet::new();
    for start in 1..=50 {
        disk = disk.kill();
        let opened_at = start * 24 * SCRUB_FIRST_MS;
        let opened = Log::open(disk.clone(), Path::new(DIR), config(), now(opened_at));
        let (mut log, _) = opened.expect("the log opens");
        log.run_ops(now(opened_at));
        log.run_ops(now(opened_at + SCRUB_FIRST_MS));
        let damaged = log.take_notices().into_iter().filter_map(|notice| match notice {
            Notice::Damaged { name, .. } => Some(name),
            _ => None,
        });
        let damaged: Vec<_> = damaged.collect();
        assert!(damaged.len() <= 1, "one step: {damaged:?}");
        found.extend(damaged);
    }
    assert!(names.iter().all(|name| found.contains(name)), "{found:?} of {names:?}");
}

/// Wherever the first pass begins, it reads each segment once.
#[test]
fn a_pass_that_begins_in_the_middle_reads_all() {
    for opened_at in [1, 2, 3, 5, 8, 13, 21] {
        let disk = SimDisk::new(8);
        let config = LogConfig { scrub_bytes_per_s: 1 << 20, ..tiny() };
        let opened = Log::open(disk.clone(), Path::new(DIR), config, now(opened_at));
        let (mut log, _) = opened.expect("a new log");
        append_each(&mut log, 100);
        let mut now_ms = SCRUB_FIRST_MS;
        while log.scrub_totals().passes == 0 {
            log.run_ops(now(now_ms));
            now_ms = log.deadline().expect("limits of time").max(now_ms + 1);
        }
        let bytes: u64 = log.segments().iter().map(|segment| read_bytes(segment)).sum();
        let read = log.scrub_totals().bytes;
        assert_eq!(read, bytes, "opened at {opened_at}");
    }
}

/// A pass that looked for more behind the last segment that is there began anew, at once and for ever.
#[test]
fn a_pass_ends_where_the_newest_segments_are_gone() {
    let disk = SimDisk::new(8);
    let config = LogConfig { scrub_interval_s: 100, scrub_bytes_per_s: 1 << 20, ..tiny() };
    let (mut log, _) = open_with(&disk, config);
    for number in 0..60 {
        let topic = if number < 30 { "stays" } else { "goes" };
        log.append(vec![event(topic, &noise(number, 5_000))], now(1)).expect("staged");
        log.run_ops(now(2));
    }
    let deleted = Control::Deleted(TopicsDeleted::of(vec!["goes".into()]));
    log.append_control(&deleted, now(3)).expect("staged");
    let mut now_ms = 3;
    while now_ms < 190_000 {
        log.run_ops(now(now_ms));
        now_ms = log.deadline().expect("limits of time").max(now_ms + 1);
    }
    let last = log.segments().iter().next_back().expect("some are left").end();
    assert!(last < log.segments().end(), "the newest is gone");
    assert_eq!(log.scrub_totals().passes, 1);
}

/// How much of a segment a pass reads: its frames and its index.
fn read_bytes(segment: &SealedSegment<SimDisk>) -> u64 {
    let header = segment.index().header();
    header.end_position.get() - 4_096 + header.index_bytes
}

/// A log kept the segment until the next pass, a week later, whatever its limits were.
#[test]
fn a_read_that_fails_once_in_a_pass_damages_nothing() {
    for after in 0.. {
        let disk = SimDisk::new(8);
        let config = LogConfig { scrub_bytes_per_s: 1 << 20, ..tiny() };
        let (mut log, _) = open_with(&disk, config);
        append_each(&mut log, 60);
        log.run_ops(now(SCRUB_FIRST_MS - 1));
        disk.arm(Fault::ReadFails, after);
        let mut now_ms = SCRUB_FIRST_MS;
        while log.scrub_totals().passes == 0 {
            log.run_ops(now(now_ms));
            now_ms = log.deadline().expect("limits of time").max(now_ms + 1);
        }
        assert_eq!(log.damaged_segments(), 0, "read {after}: {:?}", log.take_notices());
        if disk.disarm() > 0 {
            assert!(after > 10, "it struck {after} times");
            return;
        }
    }
}

/// The first pass comes soon, the next one never: an interval of more milliseconds than there are overflowed.
#[test]
fn an_interval_without_end_does_not_overflow() {
    let disk = SimDisk::new(8);
    let scrub_interval_s = u64::MAX / 1_000 + 1;
    let config = LogConfig { scrub_interval_s, scrub_bytes_per_s: 1 << 20, ..tiny() };
    let (mut log, _) = open_with(&disk, config);
    append_each(&mut log, 100);
    let mut scrubs_until = |until_ms: u64| {
        let mut now_ms = 1;
        while now_ms < until_ms {
            log.run_ops(now(now_ms));
            now_ms = log.deadline().unwrap_or(until_ms).max(now_ms + 1);
        }
        let notices = log.take_notices();
        notices.iter().filter(|notice| matches!(notice, Notice::Scrubbed { .. })).count()
    };
    assert_eq!(scrubs_until(SCRUB_FIRST_MS - 1), 0);
    assert_eq!(scrubs_until(100 * SCRUB_FIRST_MS), 1);
}
