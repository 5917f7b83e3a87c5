//! What a repair takes out is kept: what is damaged lies where it was, or aside, whatever happens and whoever comes between.

use super::{generations::with_two, later_rounds::aside, *};
use crate::{end_mark::END_MARK_FILE_NAME, io::sim::Fault};

/// What a repair does something about that a start alone leaves as it is.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// A frame of a sealed segment.
    Frame,
    /// One of the last segment.
    LastFrame,
    /// A log file is missing: its index is all that is left.
    Missing,
    /// Of the last segment nothing can be read, and of its index neither.
    End,
}

const DAMAGES: [Damage; 4] = [Damage::Frame, Damage::LastFrame, Damage::Missing, Damage::End];

/// The log with that damage, and the files that it is about.
fn damaged(damage: Damage) -> (SimDisk, Vec<(PathBuf, Vec<u8>)>) {
    let log = log();
    let file = |segment| path(&log, segment, SegmentFile::Log);
    let index = |segment| path(&log, segment, SegmentFile::Index);
    let files = match damage {
        Damage::Frame => {
            flip(&log, 0, 1, 70);
            vec![file(0), index(0)]
        }
        Damage::LastFrame => {
            flip(&log, 3, 1, 10);
            vec![file(3)]
        }
        Damage::Missing => {
            log.disk.remove(&file(2)).expect("a file");
            vec![index(2)]
        }
        Damage::End => {
            log.disk.flip_bit(&file(3), Position::new(30), 1);
            (0..4).for_each(|frame| flip(&log, 3, frame, 70));
            log.write(&index(3), &[7; 5000]);
            vec![file(3), index(3)]
        }
    };
    log.disk.sync_dir(Path::new(DIR)).expect("a disk that works");
    let bytes = |path: PathBuf| (path.clone(), log.disk.bytes(&path).expect("a file"));
    let files = files.into_iter().map(bytes).collect();
    (log.disk, files)
}

/// Whether a file has these bytes; the zeroes at its end need not be kept.
fn has(disk: &SimDisk, path: &Path, bytes: &[u8]) -> bool {
    let trimmed = |bytes: &[u8]| {
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        bytes[..end].to_vec()
    };
    disk.bytes(path).is_some_and(|found| trimmed(&found) == trimmed(bytes))
}

/// Whether a repair has a file aside, of those that were begun at the same time.
fn is_aside(disk: &SimDisk, path: &Path, bytes: &[u8]) -> bool {
    let name = path.file_name().expect("a name");
    (0..4).any(|round| has(disk, &aside(round).join(name), bytes))
}

/// How many of the files are not in their place any more: those are aside.
fn check_kept(disk: &SimDisk, files: &[(PathBuf, Vec<u8>)], when: &str) -> usize {
    let gone = files.iter().filter(|(path, bytes)| !has(disk, path, bytes));
    gone.inspect(|(path, bytes)| {
        assert!(is_aside(disk, path, bytes), "{}: {when}\n{disk:?}", path.display());
    })
    .count()
}

/// What a directory holds, and how long each file is; nothing if it is not there.
fn held(disk: &SimDisk, dir: &Path) -> BTreeSet<(String, Option<usize>)> {
    let names = disk.list(dir).unwrap_or_default().into_iter();
    let size = |name: &String| disk.bytes(&dir.join(name)).map(|bytes| bytes.len());
    names.map(|name| (name.clone(), size(&name))).collect()
}

/// The process ends, and the power may go with it.
fn ended(disk: &SimDisk, is_cut: bool) -> SimDisk {
    if is_cut { disk.power_cut() } else { disk.kill() }
}

/// Both generations were there when a repair was killed between the two, and a start removed the damaged one, of which
/// nothing was aside.
#[test]
fn a_crash_anywhere_in_a_repair_and_in_the_start_behind_it_loses_no_file() {
    let mut removed = 0;
    // Without second names the files of a last segment that goes whole are copied; others are moved too late.
    let cases = DAMAGES.map(|damage| (damage, false)).into_iter().chain([(Damage::End, true)]);
    let cases =
        cases.flat_map(|(damage, is_apart)| [false, true].map(|cut| (damage, is_apart, cut)));
    for (damage, is_apart, is_cut) in cases {
        let mut seen = BTreeSet::new();
        for crash_after in 1.. {
            let (disk, files) = damaged(damage);
            if is_apart {
                disk.keep_apart(&aside(0));
            }
            disk.reseed(crash_after);
            disk.crash_after(Some(crash_after));
            let _ = repair(&disk, Path::new(DIR), now());
            let is_done = !disk.is_crashed();
            let disk = ended(&disk, is_cut);
            let links = if is_apart { "no links" } else { "links" };
            let when =
                format!("{damage:?}, {links}, crash after {crash_after}, power cut: {is_cut}");
            let before = check_kept(&disk, &files, &when);
            // Each state that a crash leaves meets a start, and a crash at each step of one.
            let is_new = seen.insert([held(&disk, Path::new(DIR)), held(&disk, &aside(0))]);
            for start_crash in if is_new { 1..u64::MAX } else { 0..0 } {
                let disk = disk.fork(start_crash);
                disk.crash_after(Some(start_crash));
                let opened = open(&disk);
                let is_crashed = disk.is_crashed();
                let when = format!("{when}, and of the start after {start_crash}");
                if let (Ok(mut log), false) = (opened, is_crashed) {
                    disk.crash_after(None);
                    append_numbers(&mut log, 40);
                }
                let disk = ended(&disk, is_cut);
                removed += check_kept(&disk, &files, &when) - before;
                if !planned(&disk).steps.is_empty() {
                    assert_eq!(repaired(&disk).left, [], "{when}");
                    check_kept(&disk, &files, &when);
                }
                open(&disk).expect("it was repaired");
                if !is_crashed {
                    break;
                }
            }
            if is_done {
                break;
            }
        }
    }
    assert!(removed > 0, "a start removes what is replaced");
}

/// What could not be taken out is kept all the same, and a start may come.
#[test]
fn what_is_replaced_and_not_taken_out_is_aside_already() {
    for fault in [Fault::RemoveFails, Fault::SyncDirFails] {
        let (disk, files) = damaged(Damage::Frame);
        let mut repair = Repair::begin(&disk, Path::new(DIR)).expect("not in use");
        // The directory aside is synced first, and then that of the newer generation.
        disk.arm(fault, u64::from(fault == Fault::SyncDirFails));
        repair.mend(now()).expect_err("it is told");
        assert_eq!(disk.disarm(), 0, "{fault:?} has struck");
        let done = repair.done().expect("the newer one").clone();
        assert_eq!((&done.asides[..], &done.in_place[..]), (&[aside(0)][..], &[][..]), "{fault:?}");
        drop(repair);
        assert_eq!(check_kept(&disk, &files, "in its place"), 0, "{fault:?}");
        open(&disk).expect("by the newer one");
        assert_eq!(check_kept(&disk, &files, "a start removes it"), 2, "{fault:?}");
    }
}

/// Where nothing takes its place it is not aside either.
#[test]
fn what_is_not_replaced_is_not_kept_aside() {
    for fault in [Fault::LinkFails, Fault::SyncFails, Fault::RenameFails, Fault::RenameFindsNoSpace]
    {
        for after in 0..2 {
            let (disk, files) = damaged(Damage::Frame);
            let mut repair = Repair::begin(&disk, Path::new(DIR)).expect("not in use");
            disk.arm(fault, after);
            repair.mend(now()).expect_err("it is told");
            assert_eq!(disk.disarm(), 0, "{fault:?} has struck");
            assert_eq!(repair.done(), None, "{fault:?} after {after}");
            drop(repair);
            disk.list(&aside(0)).expect_err("it is empty");
            assert_eq!(check_kept(&disk, &files, "in its place"), 0);
            repaired(&disk);
            assert_eq!(check_kept(&disk, &files, "taken out"), 2);
        }
    }
}

/// Nothing takes its place: each repair that could not remove it left one more directory, and said that files are kept there.
#[test]
fn what_could_not_be_removed_is_not_kept_aside_either() {
    for action in [Action::Discard, Action::Unread, Action::SetAside] {
        let (log, files) = match action {
            Action::SetAside => {
                let log = log();
                let mark = Path::new(DIR).join(END_MARK_FILE_NAME);
                log.write(&mark, &[7; 100]);
                (log, vec![mark])
            }
            _ => {
                let (log, older, newer) = with_two();
                let [older, newer] = [older, newer].map(|name| {
                    [SegmentFile::Log, SegmentFile::Index].map(|file| log.path(name, file)).to_vec()
                });
                if action == Action::Unread {
                    log.disk.make_unreadable(&newer[1], 0..4096);
                }
                (log, if action == Action::Unread { newer } else { older })
            }
        };
        let disk = &log.disk;
        // The first file that is removed, and the next.
        for removed in (0..files.len()).rev() {
            let disk = &disk.fork(1);
            let mut repair = Repair::begin(disk, Path::new(DIR)).expect("not in use");
            assert_eq!(repair.steps().len(), 1);
            assert_eq!(repair.steps()[0].action, action);
            disk.arm(Fault::RemoveFails, removed as u64);
            repair.mend(now()).expect_err("it is told");
            assert_eq!(disk.disarm(), 0, "it has struck");
            let asides = repair.done().map(|done| done.asides.clone());
            drop(repair);
            for (index, path) in files.iter().enumerate() {
                let name = path.file_name().expect("a name");
                let places = [path.clone(), aside(0).join(name)];
                let is_there = places.map(|place| disk.bytes(&place).is_some());
                assert_eq!(is_there, [index >= removed, index < removed], "{action:?}, {removed}");
            }
            assert_eq!(asides.is_some(), removed > 0, "{action:?}");
            assert_eq!(disk.list(&aside(0)).is_ok(), removed > 0, "{action:?}");
            assert_eq!(repaired(disk).left, [], "{action:?}");
        }
    }
}

/// Some file systems give no file a second name.
#[test]
fn without_second_names_files_are_moved_once_they_are_replaced() {
    for damage in DAMAGES {
        let (disk, files) = damaged(damage);
        disk.keep_apart(&aside(0));
        let repaired = repaired(&disk);
        assert_eq!((&repaired.left[..], &repaired.asides[..]), (&[][..], &[aside(0)][..]));
        assert_eq!(check_kept(&disk, &files, "taken out"), files.len(), "{damage:?}");
        open(&disk).expect("it was repaired");
    }
}
