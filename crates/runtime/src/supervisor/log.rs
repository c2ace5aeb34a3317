//! A container's log file in the CRI's format: `<time> <stream> <F|P> <text>`.
//!
//! Lines are cut at 16 KiB, as other runtimes do; the pieces carry `P`, the last one `F`. The file is
//! reopened when the kubelet has renamed it. As a backstop for the time that no kubelet runs, the file is
//! renamed here when it passes a limit; the names are those that the kubelet gives and cleans up.

use std::fs::{File, OpenOptions, read_dir, remove_file, rename};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Bytes of text in one record: the limit of containerd and CRI-O, which log readers expect.
const MAX_LINE: usize = 16 << 10;

pub(super) struct LogFile {
    path: PathBuf,
    file: Option<File>,
    size: u64,
    max_bytes: u64,
    max_files: u32,
}

/// The unfinished line of one stream.
#[derive(Default)]
pub(super) struct Partial {
    text: Vec<u8>,
}

impl LogFile {
    pub(super) fn open(path: &Path, max_bytes: u64, max_files: u32) -> LogFile {
        let mut log = LogFile { path: path.to_owned(), file: None, size: 0, max_bytes, max_files };
        if let Err(e) = log.reopen() {
            eprintln!("log {}: {e}", path.display());
        }
        log
    }

    pub(super) fn reopen(&mut self) -> io::Result<()> {
        let file = OpenOptions::new().create(true).append(true).mode(0o640).open(&self.path)?;
        self.size = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    /// Writes what a read gave as records; keeps the unfinished rest in `partial`.
    pub(super) fn write(&mut self, stream: &str, partial: &mut Partial, mut bytes: &[u8]) {
        let now = timestamp(super::now_ns());
        let mut out = Vec::with_capacity(bytes.len() + 128);
        while let Some(at) = bytes.iter().position(|b| *b == b'\n') {
            partial.take(&mut out, &now, stream, &bytes[..at]);
            partial.end(&mut out, &now, stream);
            bytes = &bytes[at + 1..];
        }
        partial.take(&mut out, &now, stream, bytes);
        self.append(&out);
    }

    /// The stream has ended: an unfinished line stays one, so that readers add no newline.
    pub(super) fn finish(&mut self, stream: &str, partial: &mut Partial) {
        if !partial.text.is_empty() {
            let mut out = Vec::new();
            let text = std::mem::take(&mut partial.text);
            record(&mut out, &timestamp(super::now_ns()), stream, b'P', &text);
            self.append(&out);
        }
    }

    fn append(&mut self, out: &[u8]) {
        if out.is_empty() {
            return;
        }
        if self.max_bytes > 0 && self.size > 0 && self.size + out.len() as u64 > self.max_bytes {
            self.rotate();
        }
        let Some(file) = &mut self.file else { return };
        match file.write_all(out) {
            Ok(()) => self.size += out.len() as u64,
            // A full disk must not stop the container; the lines are lost, and it is said where.
            Err(e) => eprintln!("log {}: {e}", self.path.display()),
        }
    }

    fn rotate(&mut self) {
        let aside = format!("{}.{}", self.path.display(), stamp_for_name(super::now_ns()));
        if let Err(e) = rename(&self.path, &aside).and_then(|()| self.reopen()) {
            eprintln!("rotate {}: {e}", self.path.display());
        }
        self.prune();
    }

    /// Removes the oldest rotated files; their names sort by time.
    fn prune(&self) {
        let (Some(dir), Some(name)) = (self.path.parent(), self.path.file_name()) else { return };
        let prefix = format!("{}.", name.to_string_lossy());
        let Ok(entries) = read_dir(dir) else { return };
        let mut old: Vec<PathBuf> = entries
            .flatten()
            .filter(|e| e.file_name().to_string_lossy().starts_with(&prefix))
            .map(|e| e.path())
            .collect();
        old.sort();
        let surplus = old.len().saturating_sub(self.max_files as usize);
        for path in &old[..surplus] {
            if let Err(e) = remove_file(path) {
                eprintln!("remove {}: {e}", path.display());
            }
        }
    }
}

impl Partial {
    /// Adds text without a newline; writes out what passes the limit.
    fn take(&mut self, out: &mut Vec<u8>, now: &str, stream: &str, mut text: &[u8]) {
        while self.text.len() + text.len() > MAX_LINE {
            let room = MAX_LINE - self.text.len();
            self.text.extend_from_slice(&text[..room]);
            text = &text[room..];
            record(out, now, stream, b'P', &self.text);
            self.text.clear();
        }
        self.text.extend_from_slice(text);
    }

    fn end(&mut self, out: &mut Vec<u8>, now: &str, stream: &str) {
        record(out, now, stream, b'F', &self.text);
        // Most lines are whole in one read: no memory is kept for those that were not.
        self.text = Vec::new();
    }
}

fn record(out: &mut Vec<u8>, now: &str, stream: &str, tag: u8, text: &[u8]) {
    out.extend_from_slice(now.as_bytes());
    out.push(b' ');
    out.extend_from_slice(stream.as_bytes());
    out.extend_from_slice(&[b' ', tag, b' ']);
    out.extend_from_slice(text);
    out.push(b'\n');
}

/// Year, month, day, hour, minute, second of a moment, in UTC.
fn civil(ns: i64) -> [i64; 6] {
    let seconds = ns.div_euclid(1_000_000_000);
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days since 0000-03-01, in eras of 400 years: leap days then come last.
    let z = days + 719_468;
    let (era, doe) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    [year, month, doy - (153 * mp + 2) / 5 + 1, rest / 3600, rest / 60 % 60, rest % 60]
}

/// RFC 3339 with nanoseconds.
pub(super) fn timestamp(ns: i64) -> String {
    let [y, mo, d, h, mi, s] = civil(ns);
    let fraction = ns.rem_euclid(1_000_000_000);
    format!("{y:04}-{mo:02}-{d:02}T{h:02}:{mi:02}:{s:02}.{fraction:09}Z")
}

fn stamp_for_name(ns: i64) -> String {
    let [y, mo, d, h, mi, s] = civil(ns);
    format!("{y:04}{mo:02}{d:02}-{h:02}{mi:02}{s:02}")
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
