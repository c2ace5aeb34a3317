//! A file that cannot be used, by file and field.

use std::fmt;
use std::path::{Path, PathBuf};

/// Why a registry's configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {place}{why}", file.display())]
pub struct Error {
    pub file: PathBuf,
    pub place: Place,
    pub why: String,
}

/// The field at fault; empty for the file as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place(pub String);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "{}: ", self.0) }
    }
}

impl Error {
    pub(crate) fn new(file: &Path, field: &str, why: impl Into<String>) -> Error {
        Error { file: file.to_owned(), place: Place(field.to_owned()), why: why.into() }
    }
}

/// Bytes of a configuration file: some hundred mirrors.
pub(crate) const FILE_MAX: u64 = 1 << 20;

/// A file's text; `None` when there is none.
pub(crate) fn read(path: &Path) -> Result<Option<String>, Error> {
    use std::io::Read as _;
    let failed = |e: std::io::Error| Error::new(path, "", e.to_string());
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let mut text = String::new();
    file.take(FILE_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    match text.len() as u64 > FILE_MAX {
        true => Err(Error::new(path, "", format!("it has more than {FILE_MAX} bytes"))),
        false => Ok(Some(text)),
    }
}
