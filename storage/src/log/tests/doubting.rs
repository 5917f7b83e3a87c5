//! What goes by its age after a start, which knows no clock but the wall's.

use std::ops::Range;

use super::*;
use crate::{
    clock::LEAP_HOLD_MS,
    settings::{LogRetention, LogSettings, TopicExpiry, TopicRetention, TopicSettings},
};

const AGE_S: u64 = 3_600;
const OPENED_MS: u64 = 10_000;
const WEEK_MS: u64 = 7 * 24 * 3_600_000;

/// Each lets all of topic `a` go after an hour.
fn limits() -> [Control; 3] {
    let of_topic =
        |settings| Control::Topic(TopicRule { pattern: "a".into(), settings: Some(settings) });
    let retain = LogRetention { age_s: Some(AGE_S), ..LogRetention::default() };
    let young = TopicRetention { age_s: Some(AGE_S), ..TopicRetention::default() };
    let expire = TopicExpiry { age_s: Some(AGE_S), idle_s: None };
    [
        Control::Log(LogSettings { retain }),
        of_topic(TopicSettings { retain: young, ..TopicSettings::default() }),
        of_topic(TopicSettings { expire, ..TopicSettings::default() }),
    ]
}

/// The wall clock is ahead of the right time by so much.
fn ahead(boot_ms: u64, ahead_ms: u64) -> Now {
    let Now { wall_ms, boot_ms } = now(boot_ms);
    Now { wall_ms: wall_ms + ahead_ms, boot_ms }
}

/// A disk with a log that has such a limit, and ten events.
fn limited(limit: &Control) -> SimDisk {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    append_each(&mut log, 10);
    log.append_control(limit, now(2)).expect("staged");
    log.run_ops(now(2));
    close(&mut log);
    disk
}

fn open_at(disk: &SimDisk, now: Now) -> Log<SimDisk> {
    Log::open(disk.clone(), Path::new(DIR), tiny(), now).expect("the log opens").0
}

fn pass(log: &mut Log<SimDisk>, boot_ms: Range<u64>, ahead_ms: u64) {
    boot_ms.step_by(5_000).for_each(|boot_ms| log.run_ops(ahead(boot_ms, ahead_ms)));
}

fn is_there(log: &Log<SimDisk>) -> bool {
    log.topics().get("a").is_some_and(|topic| topic.count >= 10)
        && kept(log).contains(&"0".to_owned())
}

#[test]
fn a_wrong_clock_at_a_start_takes_nothing_if_it_is_set_right_soon() {
    for limit in limits() {
        let (disk, wrong_ms) = (limited(&limit), 700 * WEEK_MS);
        let mut log = open_at(&disk, ahead(OPENED_MS, wrong_ms));
        let stamped = log.append(vec![event("b", "late")], ahead(OPENED_MS, wrong_ms));
        assert_eq!(stamped.expect("staged").time_ms, ahead(OPENED_MS, wrong_ms).wall_ms);
        pass(&mut log, OPENED_MS..300_000, wrong_ms);
        assert!(is_there(&log), "{limit:?}");
        pass(&mut log, 300_000..1_200_000, 0);
        assert!(is_there(&log), "{limit:?}");
        drop(log);
        let mut log = open_at(&disk.kill(), now(1_200_000));
        pass(&mut log, 1_200_000..3_500_000, 0);
        assert!(is_there(&log), "{limit:?}");
        pass(&mut log, 3_500_000..3_700_000, 0);
        assert!(!is_there(&log), "it is over an hour old: {limit:?}");
    }
}

#[test]
fn what_is_old_when_a_log_is_started_after_weeks_goes_ten_minutes_later() {
    for limit in limits() {
        let disk = limited(&limit);
        let mut log = open_at(&disk, ahead(OPENED_MS, WEEK_MS));
        let followed_ms = OPENED_MS + LEAP_HOLD_MS;
        pass(&mut log, OPENED_MS..followed_ms, WEEK_MS);
        assert!(is_there(&log), "{limit:?}");
        pass(&mut log, followed_ms..followed_ms + 30_000, WEEK_MS);
        assert!(!is_there(&log), "{limit:?}");
    }
}
