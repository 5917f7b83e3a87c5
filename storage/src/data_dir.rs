//! The root of all data: a directory with a marker file, and below it `<tenant>/<log>/`.
//!
//! The marker keeps a typing error from filling somebody's home directory with segments, and tells an
//! old program that a newer one has been here: `STRANDLINE` holds `strandline data 1\n`.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    error::OpenError,
    io::{Access, Disk, DiskFile, LockMode},
    offset::Position,
    segment::SegmentName,
};

/// The marker's name.
pub const MARKER_FILE_NAME: &str = "STRANDLINE";
/// The layout that is written, and the newest that is read.
pub const DATA_VERSION: u32 = 1;
/// The tenant of requests that name none.
pub const DEFAULT_TENANT: &str = "default";
/// The log of requests that name none.
pub const DEFAULT_LOG: &str = "main";

/// What the directory begins with, inside a log's, into which a repair puts what it takes out; a number follows.
pub(crate) const ASIDE_PREFIX: &str = "damaged-";

const MARKER_PREFIX: &str = "strandline data ";
const MARKER_BYTES_MAX: usize = 64;
/// What it is called while it is written.
pub const MARKER_TEMPORARY_FILE_NAME: &str = "STRANDLINE.tmp";
/// So many directories are looked into for logs below one that has no marker, before it is refused.
const LISTED_MAX: usize = 200;
/// What a new file system has at its root.
const LOST_AND_FOUND: &str = "lost+found";

/// Locks a directory, and says so if another process has it.
pub fn lock<D: Disk>(disk: &D, dir: &Path, mode: LockMode) -> Result<D::Lock, OpenError> {
    disk.lock_dir(dir, mode).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked { dir: dir.to_owned() },
        _ => OpenError::io("locking", dir)(error),
    })
}

/// Whether a repair names a directory so in which it keeps what it takes out.
pub(crate) fn is_aside(name: &str) -> bool {
    let number = name.strip_prefix(ASIDE_PREFIX).unwrap_or_default();
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// A directory that is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataDir {
    path: PathBuf,
}

impl DataDir {
    /// Opens a data directory, and makes it (and those above it) if it is missing or empty. One
    /// that holds something else is refused.
    pub fn open<D: Disk>(disk: &D, path: &Path) -> Result<DataDir, OpenError> {
        let names = match disk.list(path) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create_with_parents(disk, path)?;
                Vec::new()
            }
            Err(error) => return Err(listing_error(error, path)),
        };
        if !names.iter().any(|name| name == MARKER_FILE_NAME) {
            let is_strange =
                |name: &&String| **name != MARKER_TEMPORARY_FILE_NAME && **name != LOST_AND_FOUND;
            if has_logs(disk, path, &names) {
                return Err(OpenError::MarkerLost { dir: path.to_owned(), what: "is missing" });
            }
            if names.iter().any(|name| is_strange(&name)) {
                let what = "it is not empty, and has no STRANDLINE file";
                return Err(OpenError::NotOurs { dir: path.to_owned(), what });
            }
            write_marker(disk, path)?;
        }
        check_marker(disk, path, &names)?;
        Ok(DataDir { path: path.to_owned() })
    }

    /// Opens one that is there, for tools that change nothing.
    pub fn open_existing<D: Disk>(disk: &D, path: &Path) -> Result<DataDir, OpenError> {
        let names = disk.list(path).map_err(|error| listing_error(error, path))?;
        if !names.iter().any(|name| name == MARKER_FILE_NAME) {
            if has_logs(disk, path, &names) {
                return Err(OpenError::MarkerLost { dir: path.to_owned(), what: "is missing" });
            }
            let what = "it has no STRANDLINE file";
            return Err(OpenError::NotOurs { dir: path.to_owned(), what });
        }
        check_marker(disk, path, &names)?;
        Ok(DataDir { path: path.to_owned() })
    }

    /// The root itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a log is or will be. Both names are checked by whoever has them from outside.
    pub fn log_dir(&self, tenant: &str, log: &str) -> PathBuf {
        self.path.join(tenant).join(log)
    }

    /// Makes the directory of a log, if it is missing.
    pub fn create_log_dir<D: Disk>(
        &self,
        disk: &D,
        tenant: &str,
        log: &str,
    ) -> Result<PathBuf, OpenError> {
        let tenant_dir = self.path.join(tenant);
        let log_dir = tenant_dir.join(log);
        for dir in [&tenant_dir, &log_dir] {
            disk.create_dir(dir).map_err(OpenError::io("making the directory", dir))?;
        }
        Ok(log_dir)
    }
}

/// Whether logs lie where they do in a data directory, below a directory that holds `names`.
fn has_logs<D: Disk>(disk: &D, path: &Path, names: &[String]) -> bool {
    look_for_logs(path, names, |dir| disk.list(dir).unwrap_or_default())
}

/// The same, with what lists a directory. It looks where the usual log is first, and gives up after
/// [`LISTED_MAX`] directories: it may be anybody's disk, with other machines' below it. What a repair keeps below a log is
/// none: else the directory of its tenant would be taken for a data directory.
fn look_for_logs(
    path: &Path,
    names: &[String],
    mut list: impl FnMut(&Path) -> Vec<String>,
) -> bool {
    let mut left = LISTED_MAX;
    let mut list = |dir: &Path| {
        let is_allowed = left > 0;
        left = left.saturating_sub(1);
        is_allowed.then(|| list(dir))
    };
    for tenant in usual_first(names, DEFAULT_TENANT).map(|name| path.join(name)) {
        let Some(logs) = list(&tenant) else { return false };
        let logs = usual_first(&logs, DEFAULT_LOG).filter(|name| !is_aside(name));
        for log in logs.map(|name| tenant.join(name)) {
            let Some(files) = list(&log) else { return false };
            if files.iter().any(|name| SegmentName::parse(name).is_some()) {
                return true;
            }
        }
    }
    false
}

/// These names, and the usual one before all others if it is among them.
fn usual_first<'a>(names: &'a [String], usual: &'a str) -> impl Iterator<Item = &'a String> {
    let is_usual = move |name: &&String| *name == usual;
    names.iter().filter(is_usual).chain(names.iter().filter(move |name| !is_usual(name)))
}

fn listing_error(error: io::Error, path: &Path) -> OpenError {
    match error.kind() {
        io::ErrorKind::NotADirectory => {
            OpenError::NotOurs { dir: path.to_owned(), what: "it is not a directory" }
        }
        _ => OpenError::io("listing", path)(error),
    }
}

fn create_with_parents<D: Disk>(disk: &D, path: &Path) -> Result<(), OpenError> {
    match disk.create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) else {
                return Err(OpenError::io("making the directory", path)(error));
            };
            create_with_parents(disk, parent)?;
            disk.create_dir(path).map_err(OpenError::io("making the directory", path))
        }
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            let what = "a part of its path is not a directory";
            Err(OpenError::NotOurs { dir: path.to_owned(), what })
        }
        outcome => outcome.map_err(OpenError::io("making the directory", path)),
    }
}

/// Writes the marker under a temporary name first: a marker is whole or not there.
fn write_marker<D: Disk>(disk: &D, dir: &Path) -> Result<(), OpenError> {
    let temporary = dir.join(MARKER_TEMPORARY_FILE_NAME);
    let path = dir.join(MARKER_FILE_NAME);
    let text = format!("{MARKER_PREFIX}{DATA_VERSION}\n");
    let write = || {
        disk.remove_if_there(&temporary)?;
        let file = disk.create(&temporary, Access::Write)?;
        if file.write_at(text.as_bytes(), Position::default())? != text.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        file.sync_data()?;
        disk.rename(&temporary, &path)?;
        disk.sync_dir(dir)
    };
    write().map_err(OpenError::io("writing", &path))
}

/// Checks the marker of a directory that holds `names`. One that is damaged is no reason to leave a log behind.
fn check_marker<D: Disk>(disk: &D, dir: &Path, names: &[String]) -> Result<(), OpenError> {
    let path = dir.join(MARKER_FILE_NAME);
    let read = || {
        let file = disk.open(&path, Access::Read)?;
        let size = file.size()?;
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(usize::MAX).min(MARKER_BYTES_MAX)];
        file.read_exact_at(&mut bytes, Position::default())?;
        Ok(bytes)
    };
    let bytes = read().map_err(OpenError::io("reading", &path))?;
    let version = str::from_utf8(&bytes)
        .ok()
        .and_then(|text| text.strip_prefix(MARKER_PREFIX)?.strip_suffix('\n')?.parse::<u32>().ok());
    match version {
        Some(DATA_VERSION) => Ok(()),
        Some(version) if version > DATA_VERSION => {
            Err(OpenError::NewerVersion { file: path, version, version_max: DATA_VERSION })
        }
        _ if has_logs(disk, dir, names) => Err(OpenError::MarkerLost {
            dir: dir.to_owned(),
            what: "is empty, damaged or another's",
        }),
        _ => Err(OpenError::NotOurs {
            dir: dir.to_owned(),
            what: "its STRANDLINE file says something else",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{real::RealDisk, sim::SimDisk};

    fn path() -> &'static Path {
        Path::new("/srv/strandline/data")
    }

    fn write<D: Disk>(disk: &D, path: &Path, text: &str) {
        let file = disk.create(path, Access::Write).expect("a new file");
        assert_eq!(file.write_at(text.as_bytes(), Position::default()).expect("room"), text.len());
    }

    #[test]
    fn a_missing_directory_is_made_with_those_above_it() {
        let disk = SimDisk::new(1);
        let data = DataDir::open(&disk, path()).expect("made");
        assert_eq!(DataDir::open(&disk, path()).expect("there"), data);
        assert_eq!(DataDir::open_existing(&disk, path()).expect("there"), data);
        let log = data.create_log_dir(&disk, DEFAULT_TENANT, DEFAULT_LOG).expect("made");
        assert_eq!(log, path().join("default/main"));
        assert_eq!(disk.list(&log).expect("a directory"), Vec::<String>::new());
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        let disk = SimDisk::new(1);
        assert!(matches!(
            DataDir::open_existing(&disk, path()),
            Err(OpenError::Io { .. } | OpenError::NotOurs { .. })
        ));
        disk.create_dir(Path::new("/home")).expect("made");
        write(&disk, Path::new("/home/letter"), "dear");
        let refused = DataDir::open(&disk, Path::new("/home"));
        assert!(matches!(refused, Err(OpenError::NotOurs { .. })), "{refused:?}");
        assert_eq!(disk.list(Path::new("/home")).expect("listed"), ["letter"], "nothing was added");
    }

    /// It is refused still, since nothing says of which version it is, and told what it is.
    #[test]
    fn a_directory_that_has_lost_its_marker_is_told_so() {
        let dir = std::env::temp_dir().join(format!("strandline-marker-{}", std::process::id()));
        let (disk, dir) = (RealDisk, dir.as_path());
        let data = DataDir::open(&disk, dir).expect("made");
        let log = data.create_log_dir(&disk, DEFAULT_TENANT, DEFAULT_LOG).expect("made");
        write(&disk, &log.join("00000000000000000000.1.log"), "x");
        disk.remove(&dir.join(MARKER_FILE_NAME)).expect("a file");
        let mut refused = vec![DataDir::open(&disk, dir), DataDir::open_existing(&disk, dir)];
        for damaged in ["", "strandline data 1", "\0\0"] {
            write(&disk, &dir.join(MARKER_FILE_NAME), damaged);
            refused.extend([DataDir::open(&disk, dir), DataDir::open_existing(&disk, dir)]);
            disk.remove(&dir.join(MARKER_FILE_NAME)).expect("a file");
        }
        write(&disk, &dir.join(MARKER_FILE_NAME), "strandline data 2\n");
        let newer = DataDir::open(&disk, dir);
        disk.remove(&dir.join(MARKER_FILE_NAME)).expect("a file");
        write(&disk, &dir.join(MARKER_FILE_NAME), "strandline data 1\n");
        let opened = DataDir::open(&disk, dir);
        std::fs::remove_dir_all(dir).expect("ours");
        assert!(matches!(newer, Err(OpenError::NewerVersion { .. })), "{newer:?}");
        for refused in refused {
            let Err(error @ OpenError::MarkerLost { .. }) = refused else { panic!("{refused:?}") };
            assert!(error.to_string().contains("echo 'strandline data 1' > "), "{error}");
        }
        assert_eq!(opened.expect("there"), data);
    }

    /// A typing error must not become a walk over all disks of this machine and those that it mounts.
    #[test]
    fn few_directories_are_looked_into_before_a_refusal() {
        let many: Vec<String> = (0..1_000).map(|number| number.to_string()).collect();
        let listed = std::cell::Cell::new(0);
        let looked = |names: &[String], with_usual: bool| {
            listed.set(0);
            look_for_logs(Path::new("/"), names, |dir| {
                listed.set(listed.get() + 1);
                match dir.ends_with("default/main") {
                    true if with_usual => vec!["00000000000000000000.1.log".to_owned()],
                    _ => [&many[..], &["main".to_owned()]].concat(),
                }
            })
        };
        assert!(!looked(&many, false));
        assert_eq!(listed.get(), LISTED_MAX);
        let with_default = [&many[..], &["default".to_owned()]].concat();
        assert!(looked(&with_default, true), "the usual log is found among many");
        assert_eq!(listed.get(), 2);
    }

    /// Who gave the directory of a tenant, with a repaired log in it, was told to make it a data directory.
    #[test]
    fn what_a_repair_has_kept_makes_no_data_directory_of_a_tenants() {
        let list = |dir: &Path| -> Vec<String> {
            let names: &[&str] = match dir.to_str() {
                Some("/data") => &["default"],
                Some("/data/default") => &["main"],
                Some("/data/default/main") => &["damaged-1763700000000", "end.mark"],
                Some("/data/default/main/damaged-1763700000000") => &["00000000000000000000.1.log"],
                _ => &[],
            };
            names.iter().map(|name| (*name).to_owned()).collect()
        };
        let looked = |path: &str| look_for_logs(Path::new(path), &list(Path::new(path)), list);
        assert!(!looked("/data/default"));
        assert!(!looked("/data"), "there is no segment but those");
        assert!(!looked("/data/default/main"));
    }

    /// Only what a repair makes is passed over: not each name that begins so.
    #[test]
    fn a_log_whose_name_only_begins_as_what_a_repair_keeps_is_one() {
        let looked = |log: &str| {
            look_for_logs(Path::new("/data"), &["default".to_owned()], |dir| match dir.to_str() {
                Some("/data/default") => vec![log.to_owned()],
                _ => vec!["00000000000000000000.1.log".to_owned()],
            })
        };
        for log in ["damaged-goods", "damaged-", "damaged-17x", "main"] {
            assert!(looked(log), "{log}");
        }
        assert!(!looked("damaged-1763700000000"));
    }

    #[test]
    fn a_marker_that_says_something_else_is_refused() {
        for (text, is_newer) in [
            ("strandline data 2\n", true),
            ("strandline data 1", false),
            ("strandline data 0\n", false),
            ("", false),
        ] {
            let disk = SimDisk::new(1);
            disk.create_dir(Path::new("/data")).expect("made");
            write(&disk, Path::new("/data/STRANDLINE"), text);
            match DataDir::open(&disk, Path::new("/data")) {
                Err(OpenError::NewerVersion { .. }) if is_newer => {}
                Err(OpenError::NotOurs { .. }) if !is_newer => {}
                other => panic!("{text:?} gave {other:?}"),
            }
        }
    }
}
