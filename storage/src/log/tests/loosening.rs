//! Limits that become looser at the very moment at which something goes by the stricter ones.

use super::{
    compacting::{MUCH_LATER_MS, offsets_of, rule},
    *,
};
use crate::{seal::TEMPORARY_ENDING, settings::TopicRetention};

const TOPICS: [&str; 3] = ["keep", "keys", "gone"];

/// A limit of `pattern` to one event for each topic becomes none as soon as the first segment has a file of this name: what
/// was read before is read from then on, and after a power cut.
fn check_loosened_at(pattern: &str, file_name: impl Fn(SegmentName) -> String) {
    let disk = SimDisk::new(7);
    let mut log = mixed(&disk, 200);
    let first = log.segments().iter().next().expect("a sealed one").name();
    rule(&mut log, pattern, TopicRetention { count: Some(1), ..Default::default() });
    let is_compaction = |op: &Op<SimDisk>| matches!(op, Op::Job { job: Job::Compact(_), .. });
    let mut held = hold(&mut log, &disk, is_compaction);
    let before = TOPICS.map(|topic| offsets_of(&log, topic));
    let compaction = held.pop().expect("one is under way");
    let Op::Job { job: Job::Compact(job), .. } = &compaction else { panic!("it is held") };
    let path = Path::new(DIR).join(file_name(first));
    disk.raise_when_named(&path, Arc::clone(&job.is_cancelled));
    let outcome = compaction.run(&disk);
    rule(&mut log, pattern, TopicRetention::default());
    hold(&mut log, &disk, |_| false);
    log.complete(outcome, now(3));
    log.run_ops(now(MUCH_LATER_MS));
    assert_eq!(TOPICS.map(|topic| offsets_of(&log, topic)), before);
    let log = open(&disk.power_cut());
    for (topic, before) in TOPICS.iter().zip(before) {
        assert!(offsets_of(&log, topic).starts_with(&before), "{topic}");
    }
}

#[test]
fn a_looser_limit_that_comes_when_a_rewrite_has_its_names_takes_it_back() {
    check_loosened_at("gone", |first| first.next_generation().expect("one").index_file_name());
}

#[test]
fn a_looser_limit_that_comes_while_a_stub_is_written_keeps_the_segment() {
    check_loosened_at("*", |first| format!("{}{TEMPORARY_ENDING}", first.index_file_name()));
}
