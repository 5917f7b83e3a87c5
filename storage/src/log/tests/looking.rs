//! Segments that are looked through for what is dead in them, and rules that come meanwhile.

use super::{compacting::rule, *};
use crate::{compact::CompactOutcome, op::JobOutcome, settings::TopicRetention};

fn is_compaction(op: &Op<SimDisk>) -> bool {
    matches!(op, Op::Job { job: Job::Compact(_), .. })
}

/// Appends to some topics what the next start seals. Returns where it begins.
fn add(disk: &SimDisk, topics: &[&str]) -> SegmentName {
    let mut log = open(disk);
    let name = SegmentName::first_generation(log.visible());
    for number in 0..12 {
        let batch = topics.iter().map(|topic| event(topic, &format!("{number:->500}")));
        log.append(batch.collect::<Vec<_>>(), now(1)).expect("staged");
        hold(&mut log, disk, is_compaction);
    }
    name
}

fn delete(log: &mut Log<SimDisk>, topic: &str) {
    let deleted = TopicsDeleted::of(vec![topic.into()]);
    log.append_control(&Control::Deleted(deleted), now(1)).expect("staged");
}

/// Of which only the newest of a key is kept, and as many as there are: to know of any that is dead it has to be looked through.
fn newest_of_keys(count: u64) -> TopicRetention {
    TopicRetention { latest_per_key: true, count: Some(count), ..Default::default() }
}

/// What a look, a rewrite or a removal was of, and which; `None` if nothing was to be done.
fn step(
    log: &mut Log<SimDisk>,
    disk: &SimDisk,
    meanwhile: impl FnOnce(&mut Log<SimDisk>),
) -> Option<(&'static str, SegmentName)> {
    let mut held = hold(log, disk, is_compaction);
    let op = held.pop()?;
    assert!(held.is_empty(), "one at a time");
    meanwhile(log);
    hold(log, disk, |_| false);
    let outcome = op.run(disk);
    let OpOutcome::Job { outcome: JobOutcome::Compacted(Ok(done)), .. } = &outcome else {
        panic!("nothing fails")
    };
    let done = match done {
        CompactOutcome::Looked { name, .. } => Some(("look", *name)),
        CompactOutcome::Retired { name, .. } => Some(("stub", *name)),
        CompactOutcome::Replaced { segment, .. } => Some(("rewrite", segment.name())),
        _ => None,
    };
    log.complete(outcome, now(3));
    done
}

/// A log of four sealed segments: one is of a deleted topic, the others have to be looked through, and nothing in them is
/// dead. The deletion is sealed as well.
fn to_be_looked_through(disk: &SimDisk) -> (Log<SimDisk>, [SegmentName; 4]) {
    let names = ["keep", "gone", "keep", "keep"].map(|topic| add(disk, &[topic]));
    let mut log = open(disk);
    delete(&mut log, "gone");
    rule(&mut log, "keep", newest_of_keys(1_000));
    hold(&mut log, disk, is_compaction);
    drop(log);
    (open(disk), names)
}

/// Rules that came all the time had the first of them looked through for ever, and nothing else was done.
#[test]
fn looks_that_are_outdated_again_and_again_keep_nothing_waiting() {
    for is_full in [false, true] {
        let disk = SimDisk::new(7);
        let (mut log, [first, gone, second, third]) = to_be_looked_through(&disk);
        let mut done = Vec::new();
        for number in 1..20 {
            log.jobs.disk_full = is_full;
            let stricter = newest_of_keys(1_000 - number);
            done.extend(step(&mut log, &disk, |log| rule(log, "keep", stricter)));
        }
        assert_eq!(done[0], ("stub", gone));
        let round = [first, second, third].map(|name| ("look", name));
        // On a full disk the segment of the rules is only compressed, between two rounds.
        let looks: Vec<_> = done[1..].iter().filter(|(what, _)| *what == "look").collect();
        let rounds: Vec<_> = round.iter().cycle().take(18 - usize::from(is_full)).collect();
        assert_eq!(looks, rounds, "{is_full}");
        assert!(log.rules().floors().is_empty(), "that of the deletion is done with");
    }
}

/// One that had to be looked through was compressed once a look of it had counted.
#[test]
fn what_is_due_is_compressed_however_often_looks_are_outdated() {
    let disk = SimDisk::new(7);
    let (log, names) = to_be_looked_through(&disk);
    drop(log);
    let (mut log, _) = open_with(&disk, LogConfig { compress_after_s: 0, ..tiny() });
    let mut done = Vec::new();
    for number in 1..20 {
        let stricter = newest_of_keys(1_000 - number);
        done.extend(step(&mut log, &disk, |log| rule(log, "keep", stricter)));
    }
    assert_eq!(done[0], ("stub", names[1]));
    let rewritten =
        |name: &SegmentName| done.contains(&("rewrite", name.next_generation().expect("one")));
    assert!([0, 2, 3].iter().all(|at| rewritten(&names[*at])), "{done:?}");
}

/// On a full disk what is only compressed comes after what is to be looked through, which had no end.
#[test]
fn looks_come_round_behind_what_is_only_compressed() {
    let disk = SimDisk::new(7);
    let [first, plain, second] = ["keep", "plain", "keep"].map(|topic| add(&disk, &[topic]));
    let mut log = open(&disk);
    rule(&mut log, "keep", newest_of_keys(1_000));
    hold(&mut log, &disk, is_compaction);
    drop(log);
    let (mut log, _) = open_with(&disk, LogConfig { compress_after_s: 0, ..tiny() });
    let mut done = Vec::new();
    for number in 1..7 {
        log.jobs.disk_full = true;
        let stricter = newest_of_keys(1_000 - number);
        done.extend(step(&mut log, &disk, |log| rule(log, "keep", stricter)));
    }
    let (first, second) = (("look", first), ("look", second));
    let compressed = ("rewrite", plain.next_generation().expect("one"));
    let is_there = |what| done.iter().position(|one| *one == what);
    assert_eq!((is_there(first), is_there(second)), (Some(0), Some(1)), "{done:?}");
    assert!(is_there(compressed) >= Some(2), "{done:?}");
    assert!(done[3..].contains(&first), "{done:?}");
}

/// Rules of new rooms outdate no look: nothing of a room is sealed.
#[test]
fn what_is_said_of_what_has_nothing_sealed_outdates_no_look() {
    let disk = SimDisk::new(7);
    let (mut log, [first, gone, second, third]) = to_be_looked_through(&disk);
    log.append(vec![event("rooms/new", "1")], now(1)).expect("staged");
    let mut done = Vec::new();
    for number in 1..20 {
        let about_new = |log: &mut Log<SimDisk>| match number % 4 {
            0 => rule(log, &format!("rooms/{number}"), newest_of_keys(number)),
            1 => rule(log, "rooms/*", newest_of_keys(number)),
            2 => delete(log, "gone"),
            _ => {
                let trimmed = TopicTrimmed { topic: "rooms/new".into(), before: 1_000 };
                log.append_control(&Control::Trimmed(trimmed), now(1)).expect("staged");
            }
        };
        done.extend(step(&mut log, &disk, about_new));
    }
    let looks = [first, second, third].map(|name| ("look", name));
    assert_eq!(done, [&[("stub", gone)][..], &looks].concat());
    rule(&mut log, "*", newest_of_keys(900));
    let again = [(); 4].map(|()| step(&mut log, &disk, |_| ()));
    assert_eq!(again, [Some(looks[0]), Some(looks[1]), Some(looks[2]), None]);
}

/// What an index says of a topic that was deleted was looked for in all frames.
#[test]
fn a_topic_that_is_gone_as_a_whole_is_not_looked_for() {
    let disk = SimDisk::new(7);
    let topics = ["keep", "more", "most", "rest", "some", "gone"];
    let name = add(&disk, &topics);
    let mut log = open(&disk);
    log.run_ops(now(2));
    delete(&mut log, "gone");
    assert_eq!(step(&mut log, &disk, |_| ()), None);
    let trimmed = TopicTrimmed { topic: "some".into(), before: 8 };
    log.append_control(&Control::Trimmed(trimmed), now(1)).expect("staged");
    assert_eq!(step(&mut log, &disk, |_| ()), Some(("look", name)), "nobody knows how much");
}

/// How many events a topic has behind a segment was counted anew for each segment.
#[test]
fn a_limit_by_count_has_each_index_read_once() {
    let operations = |segments: usize| {
        let disk = SimDisk::new(7);
        for _ in 0..segments {
            add(&disk, &["keep", "more"]);
        }
        let mut log = open(&disk);
        let count = TopicRetention { count: Some(1_000_000), ..Default::default() };
        rule(&mut log, "**", count);
        let mut held = hold(&mut log, &disk, is_compaction);
        let op = held.pop().expect("it is looked at");
        assert_eq!((log.segments().len(), held.len()), (segments, 0));
        let before = disk.operations();
        let outcome = op.run(&disk);
        let is_nothing = matches!(
            &outcome,
            OpOutcome::Job {
                outcome: JobOutcome::Compacted(Ok(CompactOutcome::Nothing { .. })),
                ..
            }
        );
        assert!(is_nothing, "all of it stays");
        disk.operations() - before
    };
    let (few, many) = (operations(8), operations(16));
    assert!(few >= 8 && many <= 2 * few, "{few} operations became {many}");
}

/// Each one of them had every index read, as a limit of another topic may need it.
#[test]
fn what_is_dead_goes_before_others_are_counted() {
    let operations = |segments: usize| {
        let disk = SimDisk::new(7);
        let gone = add(&disk, &["gone"]);
        for _ in 0..segments {
            add(&disk, &["keep", "more"]);
        }
        let mut log = open(&disk);
        rule(&mut log, "keep", TopicRetention { count: Some(1_000_000), ..Default::default() });
        delete(&mut log, "gone");
        let mut held = hold(&mut log, &disk, is_compaction);
        let op = held.pop().expect("it is looked at");
        let before = disk.operations();
        let outcome = op.run(&disk);
        let OpOutcome::Job { outcome: JobOutcome::Compacted(Ok(done)), .. } = outcome else {
            panic!("nothing fails")
        };
        assert!(matches!(done, CompactOutcome::Retired { name, .. } if name == gone));
        disk.operations() - before
    };
    assert_eq!(operations(4), operations(12));
}

/// Of the oldest segments goes what is beyond the count, whichever segments the newer events are in.
#[test]
fn what_is_beyond_a_count_goes_from_the_oldest_segments() {
    let disk = SimDisk::new(7);
    let names = [["keep"], ["more"], ["keep"], ["keep"]].map(|topics| add(&disk, &topics));
    let mut log = open(&disk);
    rule(&mut log, "keep", TopicRetention { count: Some(20), ..Default::default() });
    let mut done = Vec::new();
    while let Some(one) = step(&mut log, &disk, |_| {}) {
        done.push(one);
    }
    let [first, _, third, _] = names;
    assert_eq!(done[0], ("stub", first));
    let third = SegmentName { generation: third.generation + 1, ..third };
    assert!(done[1..].contains(&("rewrite", third)), "{done:?}");
    assert_eq!(kept(&log).len(), 20 + 12, "{done:?}");
}
