//! What a rewritten segment alone says of how far limits have reached, behind one that is damaged and so stays.

use super::{settings_alone::one_segment_with_settings, *};
use crate::{settings::LogRetention, verify::verify};

fn config() -> LogConfig {
    LogConfig { segment_bytes: 1 << 20, compress_after_s: 1, ..tiny() }
}

/// Runs all that there is to do, but how far limits reach cannot be written down.
fn run_without_earliest(log: &mut Log<SimDisk>, disk: &SimDisk, boot_ms: u64) {
    while let Some(op) = log.next_op(now(boot_ms)) {
        if matches!(&op, Op::Job { job: Job::Keep(_), .. }) {
            disk.arm(Fault::CreateFails, 0);
        }
        let outcome = op.run(disk);
        log.complete(outcome, now(boot_ms));
    }
}

/// A log of a segment of 10 events, one of 40 with settings at an offset, if that lies in it, into which a limit has reached,
/// and one that was begun behind. Nothing but the second says how far.
fn reached(settings_at: u64) -> SimDisk {
    let disk = SimDisk::new(4);
    let (mut log, _) = open_with(&disk, config());
    for _ in 0..10 {
        log.append(vec![event("a", "x")], now(1)).expect("staged");
    }
    log.run_ops(now(1));
    close(&mut log);
    drop(log);
    let mut log = one_segment_with_settings(&disk, &config(), settings_at, "b");
    damage_first(&mut log);
    keep(&mut log, LogRetention { count: Some(21), ..Default::default() });
    log.run_ops(now(60_000));
    assert_eq!((bases(&log), log.start()), (vec![0, 10], Offset::new(30)));
    close(&mut log);
    drop(log);
    disk.remove(&Path::new(DIR).join("earliest")).expect("it was written down");
    disk
}

fn damage_first(log: &mut Log<SimDisk>) {
    let first = log.segments().iter().next().expect("a segment").name();
    assert_eq!(first.base_offset, Offset::ZERO);
    log.note_damage(first, "rot".to_owned());
}

fn bases(log: &Log<SimDisk>) -> Vec<u64> {
    log.segments().iter().map(|segment| segment.base().get()).collect()
}

/// It went with the last of its events, or once all of it lay before what the log keeps: with nothing that said it, what readers
/// were told is gone from the damaged segment was back.
#[test]
fn the_only_word_of_how_far_limits_have_reached_stays_until_another_is_written() {
    for (settings_at, left) in [(3, 1), (99, 0)] {
        let mut disk = reached(settings_at);
        let mut told = Offset::new(30);
        for life in 0..4 {
            let (mut log, _) = open_with(&disk, config());
            assert!(log.start() >= told, "{settings_at}, {life}: {} after {told}", log.start());
            told = log.start();
            damage_first(&mut log);
            if life == 0 {
                let deleted = TopicsDeleted::of(vec!["b".into()]);
                log.append_control(&Control::Deleted(deleted), now(2)).expect("staged");
            }
            for boot_ms in [2, 60_000, 120_000] {
                run_without_earliest(&mut log, &disk, boot_ms);
            }
            assert_eq!(bases(&log)[..2], [0, 10], "{settings_at}, {life}: nothing else says it");
            let segment = log.segments().iter().nth(1).expect("two").clone();
            assert_eq!(segment.index().header().event_count, left, "{settings_at}, {life}");
            let rewrites = log.compaction_totals().segments;
            run_without_earliest(&mut log, &disk, 300_000);
            assert_eq!(log.compaction_totals().segments, rewrites, "nor is it written again");
            drop(log);
            disk = disk.power_cut();
            verify(&disk, Path::new(DIR), &mut |finding| panic!("{finding}")).expect("not in use");
        }
        let (mut log, _) = open_with(&disk, config());
        damage_first(&mut log);
        for boot_ms in [2, 60_000, 120_000] {
            log.run_ops(now(boot_ms));
        }
        assert!(!bases(&log).contains(&10), "{settings_at}: it is written down");
        drop(log);
        let (log, _) = open_with(&disk.power_cut(), config());
        assert!(log.start() >= told, "{settings_at}: {} after {told}", log.start());
    }
}
