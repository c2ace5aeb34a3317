//! A command's output while it runs: its log, read from where the last look at it has ended.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Bytes of output that are shown.
const SHOWN_BYTES: usize = 8 << 20;
/// Bytes that are kept for the error of a command that fails, and the lines of them that it shows.
const LAST_BYTES: usize = 64 << 10;
const LAST_LINES: usize = 20;
/// Bytes of a line of the log: longer ones come in parts.
const LINE_BYTES: usize = 64 << 10;

/// Follows a log of the CRI's form; one that is put aside is read to its end first.
pub(crate) struct Follower<'a> {
    path: PathBuf,
    file: Option<File>,
    /// Bytes of a line that is not whole yet.
    rest: Vec<u8>,
    /// Text of a line whose further parts are still to come.
    line: String,
    last: String,
    shown: usize,
    tell: &'a (dyn Fn(&str) + Send + Sync),
}

impl<'a> Follower<'a> {
    pub(crate) fn new(path: &Path, tell: &'a (dyn Fn(&str) + Send + Sync)) -> Follower<'a> {
        Follower {
            path: path.to_owned(),
            file: None,
            rest: Vec::new(),
            line: String::new(),
            last: String::new(),
            shown: 0,
            tell,
        }
    }

    /// Tells what has come since.
    pub(crate) fn read(&mut self) -> io::Result<()> {
        loop {
            if self.file.is_none() {
                self.file = match File::open(&self.path) {
                    Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
                    opened => Some(opened?),
                };
            }
            let Some(mut file) = self.file.take() else { return Ok(()) };
            let mut bytes = vec![0; LINE_BYTES];
            loop {
                match file.read(&mut bytes)? {
                    0 => break,
                    count => self.take(&bytes[..count]),
                }
            }
            if !self.is_put_aside(&file)? {
                self.file = Some(file);
                return Ok(());
            }
        }
    }

    /// The rest at the end of the command, also a line without a newline.
    pub(crate) fn finish(mut self) -> io::Result<String> {
        self.read()?;
        if !self.line.is_empty() {
            let line = std::mem::take(&mut self.line);
            self.show(&line);
        }
        Ok(last_lines(&self.last))
    }

    fn is_put_aside(&self, file: &File) -> io::Result<bool> {
        match std::fs::metadata(&self.path) {
            Ok(there) => Ok(there.ino() != file.metadata()?.ino()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        while let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line[..end]).into_owned();
            self.entry(&line);
        }
    }

    /// `<time> <stream> <F or P> <text>`.
    fn entry(&mut self, entry: &str) {
        let mut parts = entry.splitn(4, ' ').skip(2);
        let (tag, text) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        self.line.push_str(text);
        // A program that never ends its line must not fill the memory.
        if !tag.starts_with('P') || self.line.len() > LINE_BYTES {
            let line = std::mem::take(&mut self.line);
            self.show(&line);
        }
    }

    fn show(&mut self, line: &str) {
        self.last.push_str(line);
        self.last.push('\n');
        if self.last.len() > 2 * LAST_BYTES {
            let start = self.last.len() - LAST_BYTES;
            let start = (start..).find(|i| self.last.is_char_boundary(*i)).unwrap_or(start);
            self.last.drain(..start);
        }
        let before = self.shown;
        self.shown = before.saturating_add(line.len() + 1);
        match (before < SHOWN_BYTES, self.shown < SHOWN_BYTES) {
            (true, true) => (self.tell)(line),
            (true, false) => (self.tell)("(the rest of the output is not shown)"),
            _ => {}
        }
    }
}

/// The end of a command's output.
fn last_lines(output: &str) -> String {
    let lines: Vec<&str> = output.lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn lines_come_as_they_are_written_also_over_a_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let said = Mutex::new(Vec::new());
        let tell = |text: &str| said.lock().unwrap().push(text.to_owned());
        let taken = || std::mem::take(&mut *said.lock().unwrap());
        let mut follower = Follower::new(&path, &tell);
        follower.read().unwrap();
        let mut log = File::create(&path).unwrap();
        log.write_all(b"t stdout F one\nt stderr P tw").unwrap();
        follower.read().unwrap();
        assert_eq!(taken(), ["one"]);
        log.write_all(b"o\nt stderr F  halves\n").unwrap();
        std::fs::rename(&path, dir.path().join("log.1")).unwrap();
        let mut next = File::create(&path).unwrap();
        next.write_all(b"t stdout F \nt stdout P unended\n").unwrap();
        follower.read().unwrap();
        assert_eq!(taken(), ["two halves", ""]);
        assert_eq!(follower.finish().unwrap(), "one\ntwo halves\n\nunended");
        assert_eq!(taken(), ["unended"]);
    }

    #[test]
    fn a_flood_is_told_once_and_keeps_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let line = format!("t stdout F {}\n", "x".repeat(60_000));
        let mut text = line.repeat(200);
        text += "t stdout F the end\n";
        std::fs::write(&path, text).unwrap();
        let said = Mutex::new(Vec::new());
        let tell = |text: &str| said.lock().unwrap().push(text.len());
        let last = Follower::new(&path, &tell).finish().unwrap();
        assert!(last.ends_with("\nthe end"));
        let said = said.into_inner().unwrap();
        assert_eq!((said.len(), said[139]), (140, 37));
    }
}
