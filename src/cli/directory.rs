//! The directory that a command is given: a data directory, or, to `verify`, `dump` and `repair`, a log's in one.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use clap::Args;
use strandline_storage::{
    data_dir::{DataDir, MARKER_FILE_NAME},
    error::OpenError,
    io::{Disk, real::RealDisk},
    segment::SegmentName,
};

/// A server that was killed is gone a little later than it seems, so a directory in use is tried again
/// so often, with so long between.
const TRIES: u32 = 20;
const TRY_EVERY: Duration = Duration::from_millis(50);

/// The directory that a command works on, written in either way.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct DirectoryArguments {
    /// A data directory, or the directory of one log in it
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The same, as `serve`, `backup` and `export` take it
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

impl DirectoryArguments {
    /// What was given.
    pub fn path(&self) -> &Path {
        self.dir.as_deref().or(self.data.as_deref()).expect("the parser wants one of them")
    }
}

/// Why a command could not do its work; the text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The log could not be opened.
    #[error("{0}{hint}", hint = hint_of(.0))]
    Open(#[from] OpenError),
    /// It is neither of the two.
    #[error(
        "{} is neither a data directory nor the directory of a log: give what `strandline serve --data` \
         was given, or a directory with .log files inside it",
        dir.display()
    )]
    NotOurs {
        /// What was given.
        dir: PathBuf,
    },
    /// It holds several, and one is wanted.
    #[error("{} holds several logs: give the directory of one, such as {}", dir.display(), example.display())]
    SeveralLogs {
        /// What was given.
        dir: PathBuf,
        /// One of them.
        example: PathBuf,
    },
    /// A data directory is wanted.
    #[error("{} is the directory of one log: give the data directory that it lies in", dir.display())]
    OneLog {
        /// What was given.
        dir: PathBuf,
    },
    /// The result could not be written.
    #[error(transparent)]
    Output(io::Error),
}

fn hint_of(error: &OpenError) -> &'static str {
    match error {
        OpenError::Locked { .. } => {
            ": stop the server first, or look at a backup of it (`strandline backup`)"
        }
        OpenError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            ": run this as the user that runs the server"
        }
        OpenError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            ": give what `strandline serve --data` was given"
        }
        _ => "",
    }
}

/// The directories of the logs in `dir`, which is a data directory or itself a log's.
pub fn logs_in(dir: &Path) -> Result<Vec<PathBuf>, DirectoryError> {
    let names = list(dir)?;
    if names.iter().any(|name| name == MARKER_FILE_NAME) {
        DataDir::open_existing(&RealDisk, dir)?;
        let mut logs = Vec::new();
        for tenant in directories(dir, names)? {
            let names = list(&tenant)?;
            logs.extend(directories(&tenant, names)?);
        }
        return Ok(logs);
    }
    if names.iter().any(|name| is_of_segment(name)) {
        return Ok(vec![dir.to_owned()]);
    }
    match DataDir::open_existing(&RealDisk, dir) {
        Err(error @ OpenError::MarkerLost { .. }) => Err(error.into()),
        _ => Err(DirectoryError::NotOurs { dir: dir.to_owned() }),
    }
}

/// The data directory `dir`, where the directory of one log will not do.
pub fn data_dir(dir: &Path) -> Result<DataDir, DirectoryError> {
    DataDir::open_existing(&RealDisk, dir).map_err(|error| {
        let has_segments =
            || list(dir).is_ok_and(|names| names.iter().any(|name| is_of_segment(name)));
        match error {
            OpenError::NotOurs { .. } if has_segments() => {
                DirectoryError::OneLog { dir: dir.to_owned() }
            }
            error => error.into(),
        }
    })
}

/// The tenants and logs in a data directory, by their names.
pub fn names_in(data: &Path) -> Result<Vec<(String, String)>, DirectoryError> {
    let name = |path: &Path| {
        path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    };
    let logs = logs_in(data)?;
    Ok(logs.iter().map(|log| (name(log.parent().unwrap_or(data)), name(log))).collect())
}

/// The one log in `dir`.
pub fn log_in(dir: &Path) -> Result<Option<PathBuf>, DirectoryError> {
    let mut logs = logs_in(dir)?;
    match logs.len() {
        0 | 1 => Ok(logs.pop()),
        _ => Err(DirectoryError::SeveralLogs { dir: dir.to_owned(), example: logs.swap_remove(0) }),
    }
}

fn is_of_segment(file_name: &str) -> bool {
    SegmentName::parse(file_name).is_some()
}

fn list(dir: &Path) -> Result<Vec<String>, DirectoryError> {
    RealDisk.list(dir).map_err(|source| match source.kind() {
        io::ErrorKind::NotADirectory => DirectoryError::NotOurs { dir: dir.to_owned() },
        _ => OpenError::Io { action: "listing", file: dir.to_owned(), source }.into(),
    })
}

/// What `open` gives, once no server has the directory that it opens, or after a second.
pub fn when_free<T>(mut open: impl FnMut() -> Result<T, OpenError>) -> Result<T, OpenError> {
    for _ in 1..TRIES {
        match open() {
            Err(OpenError::Locked { .. }) => thread::sleep(TRY_EVERY),
            outcome => return outcome,
        }
    }
    open()
}

/// What of `names` in `dir` are directories that can be a tenant's or a log's, in order. A data directory is neither.
fn directories(dir: &Path, mut names: Vec<String>) -> Result<Vec<PathBuf>, DirectoryError> {
    names.sort_unstable();
    names.retain(|name| name != "lost+found");
    let is_ours = |path: &Path| Ok(is_dir(path)? && !path.join(MARKER_FILE_NAME).try_exists()?);
    let mut ours = Vec::new();
    for path in names.into_iter().map(|name| dir.join(name)) {
        if is_ours(&path).map_err(OpenError::io("looking at", &path))? {
            ours.push(path);
        }
    }
    Ok(ours)
}

/// Whether there is a directory of that name. Not to be able to look is another thing: it may be a log's.
pub fn is_dir(path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.is_dir()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
