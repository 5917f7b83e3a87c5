//! What `append` and `import` read: a file, or standard input.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use super::client::ClientError;

/// Whether an argument, or that there is none, stands for standard input.
pub fn is_standard_input(file: Option<&Path>) -> bool {
    file.is_none_or(|path| path.as_os_str() == "-")
}

/// Opens it; gives its size, if that is known.
pub fn open(file: Option<&Path>) -> Result<(Box<dyn Read + Send>, Option<u64>), ClientError> {
    let Some(path) = file.filter(|_| !is_standard_input(file)) else {
        return Ok((Box::new(io::stdin()), None));
    };
    let local = |error: io::Error| ClientError::Local(format!("{}: {error}", path.display()));
    let file = File::open(path).map_err(local)?;
    let metadata = file.metadata().map_err(local)?;
    if metadata.is_dir() {
        return Err(local(io::ErrorKind::IsADirectory.into()));
    }
    Ok((Box::new(file), metadata.is_file().then_some(metadata.len())))
}
