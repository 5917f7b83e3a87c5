//! Segments of which settings alone are left.

use super::*;

/// Of a segment into which a limit of the log reached and whose events behind that were deleted settings stay alone, and
/// its frames ended where the limit did: readers were told of damage, and the segment was never rewritten again.
#[test]
fn what_is_kept_of_a_segment_may_be_settings_alone() {
    use crate::testing::{everything, read_all};
    // Settings that the log keeps no longer stay as long as something else does.
    for (settings_at, last, left) in [(3, "c", 2), (18, "c", 2), (19, "c", 2), (25, "b", 1)] {
        let config = LogConfig { segment_bytes: 1 << 20, compress_after_s: 1, ..tiny() };
        let disk = SimDisk::new(4);
        let mut log = one_segment_with_settings(&disk, &config, settings_at, last);
        keep(&mut log, crate::settings::LogRetention { count: Some(22), ..Default::default() });
        delete_b(&mut log);
        let segment = log.segments().iter().next().expect("a segment").clone();
        let index = segment.index().header();
        assert_eq!((segment.base(), index.end_offset), (Offset::ZERO, Offset::new(40)));
        assert_eq!((segment.name().generation > 1, index.event_count), (true, left));
        // A reader from before is told what is gone, and passes over settings there.
        let back = ReadQuery { order: Order::Descending, ..everything() };
        let (events, gaps) = read_all(log.segments(), &back, |event| event.offset().get());
        assert_eq!((events.contains(&settings_at), gaps), (true, vec![]));
        let start = log.start();
        drop(log);
        let disk = disk.power_cut();
        crate::verify::verify(&disk, Path::new(DIR), &mut |finding| panic!("{finding}"))
            .expect("not in use");
        let (log, _) = open_with(&disk, config);
        assert!(log.start() >= start && log.start() <= Offset::new(40), "from {}", log.start());
        assert!(log.rules().set_for("a/b").is_some(), "what was set stays so");
    }
}

/// A log whose last sealed segment has 40 events: of topic a, from the 20th on of b, but for settings and the last.
pub(super) fn one_segment_with_settings(
    disk: &SimDisk,
    config: &LogConfig,
    settings_at: u64,
    last: &str,
) -> Log<SimDisk> {
    let (mut log, _) = open_with(disk, config.clone());
    for number in 0..40 {
        if number == settings_at {
            let settings = Some(crate::settings::TopicSettings::default());
            let rule = TopicRule { pattern: "a/b".into(), settings };
            log.append_control(&Control::Topic(rule), now(1)).expect("staged");
        } else {
            let topic = if number < 20 { "a" } else { "b" };
            let topic = if number == 39 { last } else { topic };
            log.append(vec![event(topic, "x")], now(1)).expect("staged");
        }
        log.run_ops(now(1));
    }
    close(&mut log);
    drop(log);
    open_with(disk, config.clone()).0
}

fn delete_b(log: &mut Log<SimDisk>) {
    let deleted = crate::control::TopicsDeleted::of(vec!["b".into()]);
    log.append_control(&Control::Deleted(deleted), now(2)).expect("staged");
    log.run_ops(now(60_000));
    log.run_ops(now(120_000));
}

/// Such settings alone kept it for ever, on a full disk too.
#[test]
fn a_segment_goes_whole_if_all_that_is_left_are_settings_that_the_log_has_passed() {
    for settings_at in [3, 18, 19] {
        let config = LogConfig { segment_bytes: 1 << 20, compress_after_s: 1, ..tiny() };
        let disk = SimDisk::new(4);
        let mut log = one_segment_with_settings(&disk, &config, settings_at, "b");
        keep(&mut log, crate::settings::LogRetention { count: Some(22), ..Default::default() });
        assert_eq!(log.start(), Offset::new(19));
        delete_b(&mut log);
        assert_eq!((log.segments().len(), log.start()), (0, Offset::new(40)));
        drop(log);
        let (log, _) = open_with(&disk.power_cut(), config);
        assert_eq!(log.start(), Offset::new(40));
        assert!(log.rules().set_for("a/b").is_some(), "what was set stays so");
    }
}

/// Where a damaged segment before it stays, it goes all the same if settings of the log say how far limits have reached.
#[test]
fn settings_alone_behind_a_damaged_segment_go_where_later_ones_say_how_far_limits_have_reached() {
    use crate::settings::LogRetention;
    let config = LogConfig { segment_bytes: 1 << 20, compress_after_s: 1, ..tiny() };
    let disk = SimDisk::new(4);
    let (mut log, _) = open_with(&disk, config.clone());
    for _ in 0..10 {
        log.append(vec![event("a", "x")], now(1)).expect("staged");
    }
    log.run_ops(now(1));
    close(&mut log);
    drop(log);
    let mut log = one_segment_with_settings(&disk, &config, 3, "b");
    let names: Vec<_> = log.segments().iter().map(|segment| segment.name()).collect();
    let [damaged, _] = names[..] else { panic!("two segments, not {names:?}") };
    let bases = |log: &Log<SimDisk>| -> Vec<u64> {
        log.segments().iter().map(|segment| segment.base().get()).collect()
    };
    log.note_damage(damaged, "rot".to_owned());
    keep(&mut log, LogRetention { count: Some(21), ..Default::default() });
    log.run_ops(now(60_000));
    assert_eq!((bases(&log), log.start()), (vec![0, 10], Offset::new(30)));
    // From here on it goes no further.
    keep(&mut log, LogRetention::default());
    close(&mut log);
    drop(log);
    disk.remove(&Path::new(DIR).join("earliest")).expect("it was written down");
    let (mut log, _) = open_with(&disk, config.clone());
    log.note_damage(damaged, "rot".to_owned());
    delete_b(&mut log);
    assert!(bases(&log)[0] == 0 && !bases(&log).contains(&10), "{:?}", bases(&log));
    let start = log.start();
    drop(log);
    let (log, _) = open_with(&disk.power_cut(), config);
    assert!(log.start() >= start, "from {}, not {start}", log.start());
}
