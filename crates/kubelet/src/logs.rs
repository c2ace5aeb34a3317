//! Container logs on disk: the CRI's line format, and reading their end.
//!
//! Logs are files that the runtime makes; a pod with the host's log directory mounted could put
//! anything in their place, so they are opened as regular files below the log directory or not at all.

use std::fs::{self, DirEntry, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use jiff::Timestamp;

use crate::beneath::Dir;

/// Most bytes looked at for the last lines: 80 of the longest lines that the runtime writes.
const END_MAX: u64 = 2 << 20;

/// Most entries of a container's log directory that are looked at.
const ENTRIES_MAX: usize = 10_000;

/// The number of the run after those that a container's log directory has logs of. The runtime may have
/// forgotten them (a cluster that was down): a number is not given to two runs, nor a log written by both.
pub(crate) fn next_run(dir: &Path) -> u32 {
    let number = |entry: io::Result<DirEntry>| {
        let entry = entry.ok().filter(|e| e.file_type().is_ok_and(|kind| kind.is_file()))?;
        let name = entry.file_name();
        let (number, rest) = name.to_str()?.split_once('.')?;
        let is_log = rest == "log" || rest.starts_with("log.");
        number.parse::<u32>().ok().filter(|_| is_log)
    };
    let entries = fs::read_dir(dir).into_iter().flatten().take(ENTRIES_MAX);
    entries.filter_map(number).max().map_or(0, |last| last.saturating_add(1))
}

/// One line of the CRI's format: `<time> <stream> <P|F> <content>`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    pub(crate) time: &'a str,
    pub(crate) stderr: bool,
    /// The line goes on in the next entry.
    pub(crate) partial: bool,
    pub(crate) content: &'a [u8],
}

/// `None` when the line is not of the format.
pub(crate) fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |b| *b == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stderr = parts.next()? == b"stderr";
    let partial = parts.next()?.starts_with(b"P");
    Some(Line { time, stderr, partial, content: parts.next().unwrap_or_default() })
}

impl Line<'_> {
    pub(crate) fn is_before(&self, since: Timestamp) -> bool {
        self.time.parse::<Timestamp>().is_ok_and(|at| at < since)
    }
}

/// Offset of the last `count` lines of a file, not before `least`.
pub(crate) fn tail_offset(file: &mut File, count: usize, least: u64) -> io::Result<u64> {
    const BLOCK: u64 = 64 << 10;
    let length = file.metadata()?.len();
    let (mut at, mut seen) = (length, 0);
    if count == 0 {
        return Ok(length);
    }
    while at > least {
        let from = at.saturating_sub(BLOCK).max(least);
        let mut block = vec![0; usize::try_from(at - from).unwrap_or(0)];
        file.seek(SeekFrom::Start(from))?;
        file.read_exact(&mut block)?;
        for (i, _) in block.iter().enumerate().rev().filter(|(_, b)| **b == b'\n') {
            let place = from + i as u64 + 1;
            if place == length {
                continue;
            }
            seen += 1;
            if seen == count {
                return Ok(place);
            }
        }
        at = from;
    }
    Ok(least)
}

/// Opens a log. Other runtimes may keep logs elsewhere than below `log_dir`.
pub(crate) fn open(log_dir: &Path, path: &Path) -> io::Result<File> {
    if let Ok(below) = path.strip_prefix(log_dir) {
        return Dir::root(log_dir)?.file(below);
    }
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    Dir::root(dir)?.file(name)
}

/// The end of a log's text: at most so many lines, and so many bytes.
pub(crate) fn last_lines(file: &mut File, lines: usize, bytes: usize) -> io::Result<String> {
    let length = file.metadata()?.len();
    let from = tail_offset(file, lines, length.saturating_sub(END_MAX))?;
    file.seek(SeekFrom::Start(from))?;
    let mut raw = Vec::new();
    file.take(END_MAX).read_to_end(&mut raw)?;
    let mut text = Vec::new();
    for line in raw.split(|b| *b == b'\n').filter_map(parse) {
        text.extend_from_slice(line.content);
        if !line.partial {
            text.push(b'\n');
        }
    }
    let from = text.len().saturating_sub(bytes);
    Ok(String::from_utf8_lossy(&text[from..]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_numbered_after_those_that_have_logs() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(next_run(&folder.path().join("absent")), 0);
        assert_eq!(next_run(folder.path()), 0);
        for name in ["0.log", "2.log.20261128-080000.gz", "x.log", "7.txt", "log", "-1.log"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        fs::create_dir(folder.path().join("9.log")).unwrap();
        std::os::unix::fs::symlink("0.log", folder.path().join("8.log")).unwrap();
        assert_eq!(next_run(folder.path()), 3);
    }

    #[test]
    fn only_regular_files_below_the_log_directory_are_logs() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("logs");
        fs::create_dir_all(logs.join("pod")).unwrap();
        fs::write(dir.path().join("secret"), "x").unwrap();
        fs::write(logs.join("pod/0.log"), "x").unwrap();
        std::os::unix::fs::symlink(dir.path().join("secret"), logs.join("pod/1.log")).unwrap();
        std::os::unix::fs::symlink(dir.path(), logs.join("link")).unwrap();
        assert!(open(&logs, &logs.join("pod/0.log")).is_ok());
        for bad in ["pod/1.log", "link/secret", "pod", "../secret"] {
            assert!(open(&logs, &logs.join(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_end_of_a_log_is_short_whatever_its_lines_are() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let file = File::create(&path).unwrap();
        file.set_len(3 << 30).unwrap();
        let mut log = open(dir.path(), &path).unwrap();
        assert_eq!(last_lines(&mut log, 80, 2048).unwrap(), "");
        let line = "2026-01-01T00:00:00Z stdout F hello\n";
        fs::write(&path, line.repeat(100)).unwrap();
        let mut log = open(dir.path(), &path).unwrap();
        assert_eq!(last_lines(&mut log, 80, 2048).unwrap(), "hello\n".repeat(80));
    }
}
