use bytes::Bytes;

use super::*;
use crate::{
    backup::{Reach, back_up_log, copy_file},
    clock::Now,
    control::{Control, TopicsDeleted},
    event::NewEvent,
    io::{DiskFile, sim::SimDisk},
    log::Log,
    offset::Position,
    repair::repair,
    settings::{LogRetention, LogSettings},
    testing::{append_numbers, now, small_segments},
    topic::Topic,
};

const DIR: &str = "/log";
const TO: &str = "/backup";

/// Another clock than that of the log that was backed up.
fn later(seconds: u64) -> Now {
    Now { wall_ms: now().wall_ms + seconds * 1000, boot_ms: now().boot_ms }
}

fn open(disk: &SimDisk, dir: &str, now: Now) -> Log<SimDisk> {
    Log::open(disk.clone(), Path::new(dir), small_segments(), now).expect("it opens").0
}

fn back_up(disk: &SimDisk, from: &str, to: &str, reach: Reach) {
    disk.create_dir(Path::new(to)).expect("a free name");
    back_up_log(disk, Path::new(from), None, Path::new(to), reach).expect("a sound log");
}

fn copy_dir(disk: &SimDisk, from: &str, to: &str) {
    disk.create_dir(Path::new(to)).expect("a free name");
    for name in disk.list(Path::new(from)).expect("the directory") {
        let (from, to) = (Path::new(from).join(&name), Path::new(to).join(&name));
        let file = disk.open(&from, Access::Read).expect("a file");
        let copy = disk.create(&to, Access::Write).expect("a free name");
        let end = Position::new(file.size().expect("a size"));
        copy_file((&file, &from), (&copy, &to), end).expect("space");
    }
}

fn is_beginning(disk: &SimDisk, new: &str) -> Beginning {
    beginning_of(disk, Path::new(TO), Path::new(new), &BTreeSet::new()).expect("readable")
}

fn append(log: &mut Log<SimDisk>, topic: &str, now: Now) {
    let topic = Topic::parse(topic).expect("a topic");
    let data = Bytes::from(format!("\"{:->700}\"", log.next().to_string()).into_bytes());
    log.append(vec![NewEvent::json(topic, data)], now).expect("staged");
    log.run_ops(now);
}

/// Whatever the backup was made of, and whatever became of the log since.
#[test]
fn a_backup_is_the_beginning_of_a_log_that_went_on() {
    for (first, more, is_stopped) in
        [(0, 9, false), (5, 0, false), (5, 3, false), (5, 90, false), (70, 90, true), (70, 1, true)]
    {
        let disk = SimDisk::new(1);
        let mut log = open(&disk, DIR, now());
        append_numbers(&mut log, first);
        let end = log.visible();
        if is_stopped {
            drop(log);
            back_up(&disk, DIR, TO, Reach::Stopped);
            log = open(&disk, DIR, later(1));
        } else {
            back_up(&disk, DIR, TO, Reach::Synced(end));
        }
        append_numbers(&mut log, more);
        back_up(&disk, DIR, "/next", Reach::Synced(log.visible()));
        assert_eq!(is_beginning(&disk, "/next"), Beginning::Proven, "{first} {more}");
        drop(log);
        let log = open(&disk, DIR, later(2));
        back_up(&disk, DIR, "/restarted", Reach::Synced(log.visible()));
        assert_eq!(is_beginning(&disk, "/restarted"), Beginning::Proven, "{first} {more}");
    }
}

/// A copy of the directory that went another way, from a clean stop or out of a running log, which is how a log that
/// lost its last file looks, too. All have the tag, and more events.
#[test]
fn a_log_that_went_another_way_is_another() {
    for (first, more) in [(5, 5), (5, 90), (70, 3), (0, 3), (12, 40)] {
        for is_stopped in [true, false] {
            let disk = SimDisk::new(2);
            let mut log = open(&disk, DIR, now());
            append_numbers(&mut log, first);
            if is_stopped {
                drop(log);
                log = open(&disk, DIR, later(1));
            }
            copy_dir(&disk, DIR, "/copy");
            append_numbers(&mut log, more);
            back_up(&disk, DIR, TO, Reach::Synced(log.visible()));

            let mut other = open(&disk, "/copy", later(2));
            assert_eq!(other.tag(), log.tag());
            append_numbers(&mut other, 200);
            back_up(&disk, "/copy", "/next", Reach::Synced(other.visible()));
            let found = is_beginning(&disk, "/next");
            assert!(matches!(found, Beginning::Differs { .. }), "{first} {more} {found:?}");
            // And the other way round.
            let found = beginning_of(&disk, Path::new("/next"), Path::new(TO), &BTreeSet::new())
                .expect("readable");
            assert!(matches!(found, Beginning::Differs { .. }), "{first} {more} {found:?}");
        }
    }
}

/// Retention and compaction take out events of a backup, at first some and in the end all; the log stays the same, and
/// a copy that went another way stays another as long as there is anything to tell it by.
#[test]
fn what_is_taken_out_on_purpose_makes_no_other_log() {
    let disk = SimDisk::new(3);
    let mut log = open(&disk, DIR, now());
    for _ in 0..100 {
        append(&mut log, "keep", now());
        append(&mut log, "gone", now());
    }
    copy_dir(&disk, DIR, "/copy");
    drop(log);
    let go_on = |dir: &str, begun: Now| {
        let mut log = open(&disk, dir, begun);
        for _ in 0..100 {
            append(&mut log, "keep", begun);
            append(&mut log, "gone", begun);
        }
        log
    };
    let compact = |log: &mut Log<SimDisk>, begun: Now| {
        let deleted = TopicsDeleted::of(vec!["gone".into()]);
        log.append_control(&Control::Deleted(deleted), begun).expect("staged");
        for minutes in [0, 20, 40] {
            for _ in 0..200 {
                append(log, "keep", begun);
            }
            log.run_ops(Now { boot_ms: begun.boot_ms + minutes * 60_000, ..begun });
        }
    };
    let is_rewritten = |dir: &str, name: SegmentName| {
        let names = disk.list(Path::new(dir)).expect("the directory");
        let all = listing::segments(&names);
        let now = all.iter().find(|listed| listed.name.base_offset == name.base_offset);
        now.is_some_and(|now| now.name.generation > name.generation)
    };

    let mut log = go_on(DIR, later(1));
    let mut other = go_on("/copy", later(2));
    // Up to the middle of a segment.
    back_up(&disk, DIR, TO, Reach::Synced(log.visible()));
    for (log, dir, to, begun) in
        [(&mut log, DIR, "/compacted", later(1)), (&mut other, "/copy", "/other", later(2))]
    {
        append(log, "keep", begun);
        let end = log.visible();
        compact(log, begun);
        let names = disk.list(Path::new(TO)).expect("the directory");
        let last = listing::segments(&names).last().expect("a segment").name;
        assert!(dir != DIR || (is_rewritten(dir, last) && last.base_offset < end), "{names:?}");
        back_up(&disk, dir, to, Reach::Synced(log.visible()));
    }
    assert_eq!(is_beginning(&disk, "/compacted"), Beginning::Proven);
    let found = is_beginning(&disk, "/other");
    assert!(matches!(found, Beginning::Differs { .. }), "{found:?}");

    let retain = LogRetention { count: Some(5), ..LogRetention::default() };
    log.append_control(&Control::Log(LogSettings { retain }), now()).expect("staged");
    for minutes in [60, 80, 100] {
        for _ in 0..200 {
            append(&mut log, "other", now());
        }
        log.run_ops(Now { boot_ms: now().boot_ms + minutes * 60_000, ..now() });
    }
    back_up(&disk, DIR, "/retained", Reach::Synced(log.visible()));
    let end = crate::backup::end_of(&disk, Path::new(TO)).expect("a log");
    let found = is_beginning(&disk, "/retained");
    assert!(matches!(&found, Beginning::TakenOut(taken) if taken.end == end), "{found:?}");
}

/// The one before was exchanged for one in which they are a gap, and removed: nobody had them any more.
#[test]
fn a_backup_that_has_what_a_repair_has_lost_is_not_replaced() {
    for is_removed in [false, true] {
        let disk = SimDisk::new(1);
        disk.keep_apart(Path::new(TO));
        let mut log = open(&disk, DIR, now());
        append_numbers(&mut log, 70);
        back_up(&disk, DIR, TO, Reach::Synced(log.visible()));
        append_numbers(&mut log, 10);
        let end = log.visible();
        let second = log.segments().iter().nth(1).expect("several").name();
        drop(log);
        let lost = Path::new(DIR).join(second.log_file_name());
        match is_removed {
            true => disk.remove(&lost).expect("it was there"),
            false => disk.flip_bit(&lost, Position::new(4096 + 100), 1),
        }
        let disk = disk.kill();
        repair(&disk, Path::new(DIR), now()).expect("nobody has it").expect("it is mended");
        let log = open(&disk, DIR, later(1));
        back_up(&disk, DIR, "/next", Reach::Synced(end));
        let found = is_beginning(&disk, "/next");
        let Beginning::Lost(lost) = &found else { panic!("{found:?}") };
        assert_eq!((lost.len(), lost[0].start), (1, second.base_offset));

        // One that has the gap as well has nothing that would be gone.
        back_up(&disk, DIR, "/later", Reach::Synced(log.visible()));
        let found = beginning_of(&disk, Path::new("/next"), Path::new("/later"), &BTreeSet::new());
        assert_eq!(found.expect("readable"), Beginning::Proven);
    }
}

/// Two gaps are both told of. A backup that cannot read what is lost has nothing that would be gone with it (its file may be
/// the very same), nor has one of what the log's limits have passed since.
#[test]
fn a_backup_is_replaced_that_has_nothing_of_what_a_repair_has_lost() {
    let flip = |disk: &SimDisk, name: SegmentName| {
        let path = Path::new(DIR).join(name.log_file_name());
        disk.flip_bit(&path, Position::new(4096 + 100), 1);
    };
    for (is_rotten, is_passed) in [(false, false), (true, false), (false, true)] {
        let disk = SimDisk::new(1);
        if !is_rotten {
            disk.keep_apart(Path::new(TO));
        }
        let mut log = open(&disk, DIR, now());
        append_numbers(&mut log, 110);
        back_up(&disk, DIR, TO, Reach::Synced(log.visible()));
        let names: Vec<_> = log.segments().iter().skip(1).map(|segment| segment.name()).collect();
        drop(log);
        names.iter().take(2).for_each(|name| flip(&disk, *name));
        let disk = disk.kill();
        repair(&disk, Path::new(DIR), now()).expect("nobody has it").expect("it is mended");
        let mut log = open(&disk, DIR, later(1));
        if is_passed {
            // Up to the second event of the second one that is damaged.
            let count = log.visible().since(names[1].base_offset);
            let retain = LogRetention { count: Some(count), ..LogRetention::default() };
            log.append_control(&Control::Log(LogSettings { retain }), later(2)).expect("staged");
            log.run_ops(later(2));
            assert_eq!(log.start(), names[1].base_offset.plus(1));
        }
        back_up(&disk, DIR, "/next", Reach::Synced(log.visible()));
        let found = is_beginning(&disk, "/next");
        match &found {
            Beginning::Lost(lost) if !is_rotten && !is_passed => {
                let starts: Vec<_> = lost.iter().map(|lost| lost.start).collect();
                assert_eq!(starts, [names[0].base_offset, names[1].base_offset]);
            }
            found => assert!(*found == Beginning::Proven && (is_rotten || is_passed), "{found:?}"),
        }
    }
}

/// A backup that is kept with damage in it takes the place of none that can read what it cannot: not in a file that was
/// still growing when the one before was made, nor where limits have passed that since.
#[test]
fn a_backup_that_can_read_what_is_damaged_now_is_not_replaced() {
    for (is_rotten, is_passed) in [(false, false), (true, false), (false, true)] {
        let disk = SimDisk::new(1);
        let mut log = open(&disk, DIR, now());
        append_numbers(&mut log, 30);
        let end = log.visible();
        back_up(&disk, DIR, TO, Reach::Synced(end));
        let names = disk.list(Path::new(TO)).expect("the directory");
        let last = listing::segments(&names).last().expect("a segment").name;
        append_numbers(&mut log, 80);
        let name = last.log_file_name();
        for dir in if is_rotten { &[DIR, TO][..] } else { &[DIR] } {
            disk.flip_bit(&Path::new(dir).join(&name), Position::new(4096 + 100), 1);
        }
        if is_passed {
            let count = log.visible().since(end);
            let retain = LogRetention { count: Some(count), ..LogRetention::default() };
            log.append_control(&Control::Log(LogSettings { retain }), later(2)).expect("staged");
            log.run_ops(later(2));
        }
        back_up(&disk, DIR, "/next", Reach::Synced(log.visible()));
        let found = |damaged: &[&String]| {
            let damaged = damaged.iter().map(|name| (*name).clone()).collect();
            beginning_of(&disk, Path::new(TO), Path::new("/next"), &damaged).expect("readable")
        };
        assert_eq!(found(&[]), Beginning::Proven, "nothing was found");
        match found(&[&name]) {
            Beginning::Lost(lost) if !is_rotten && !is_passed => {
                assert_eq!(lost.first().map(|lost| lost.start), Some(last.base_offset));
                assert!(lost.last().is_some_and(|lost| lost.end <= end), "{lost:?}");
            }
            found => assert!(found == Beginning::Proven && (is_rotten || is_passed), "{found:?}"),
        }
    }
}
