//! One error: where it is, what it is, and how to fix it.

use std::fmt;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A mistake in a Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The file's name; empty until the reader of the file sets it.
    pub file: String,
    /// The first line of the instruction, from 1; 0 when no line is to blame.
    pub line: usize,
    pub message: String,
    /// What to write instead.
    pub fix: Option<String>,
}

impl Error {
    pub fn new(message: impl Into<String>) -> Error {
        Error { file: String::new(), line: 0, message: message.into(), fix: None }
    }

    pub fn with_fix(mut self, fix: impl Into<String>) -> Error {
        self.fix = Some(fix.into());
        self
    }

    /// Names the line, unless one is named already.
    pub fn at_line(mut self, line: usize) -> Error {
        if self.line == 0 {
            self.line = line;
        }
        self
    }

    pub fn in_file(mut self, file: &str) -> Error {
        if self.file.is_empty() {
            self.file = file.to_owned();
        }
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.file.is_empty(), self.line) {
            (false, 0) => write!(f, "{}: ", self.file)?,
            (false, line) => write!(f, "{}:{line}: ", self.file)?,
            (true, 0) => {}
            (true, line) => write!(f, "line {line}: ")?,
        }
        f.write_str(&self.message)?;
        self.fix.as_ref().map_or(Ok(()), |fix| write!(f, " ({fix})"))
    }
}

impl std::error::Error for Error {}
