//! Events in a file, a line each, which is replaced when it is large (the flags `--audit-log-*`).

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

/// When a file is replaced, and how many former ones stay.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rotation {
    /// Bytes of a file (`--audit-log-maxsize` is in megabytes); 0 is 100 MB.
    pub max_size: u64,
    /// Former files that stay (`--audit-log-maxbackup`); 0 is all.
    pub max_backups: usize,
    /// Days that former files stay (`--audit-log-maxage`); 0 is for ever.
    pub max_age: u32,
    /// Whether former files are compressed (`--audit-log-compress`).
    pub compress: bool,
}

const USUAL_SIZE: u64 = 100 << 20;
/// The time in a former file's name: `audit-2006-01-02T15-04-05.000.log`.
const NAMED: &str = "%Y-%m-%dT%H-%M-%S%.3f";

/// A file of events, or standard output.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    rotation: Rotation,
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    size: u64,
}

impl LogFile {
    /// Opens a file to append to, with its folder; `-` is standard output. Events are read by root alone.
    pub fn open(path: &Path, rotation: Rotation) -> io::Result<LogFile> {
        let open = Mutex::new(open(path)?);
        Ok(LogFile { path: path.to_owned(), rotation, open })
    }

    /// Writes one line. The file is replaced first when the line would make it too large.
    pub(crate) fn write(&self, line: &str) -> io::Result<()> {
        let mut line = line.to_owned();
        line.push('\n');
        let mut held = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let max = if self.rotation.max_size == 0 { USUAL_SIZE } else { self.rotation.max_size };
        if held.size > 0 && held.size + line.len() as u64 > max && !is_output(&self.path) {
            self.replace(&mut held)?;
        }
        held.file.write_all(line.as_bytes())?;
        held.size += line.len() as u64;
        Ok(())
    }

    fn replace(&self, held: &mut Open) -> io::Result<()> {
        let former = self.former(Timestamp::now());
        std::fs::rename(&self.path, &former)?;
        *held = open(&self.path)?;
        // What fails here costs space, not events.
        if let Err(error) = self.tidy(&former) {
            tracing::warn!(%error, path = %self.path.display(), "former audit logs were not tidied");
        }
        Ok(())
    }

    /// `folder/stem-TIME.ext`.
    fn former(&self, at: Timestamp) -> PathBuf {
        let (stem, extension) = self.parts();
        self.path.with_file_name(format!("{stem}-{}{extension}", at.strftime(NAMED)))
    }

    fn parts(&self) -> (String, String) {
        let text = |part: Option<&std::ffi::OsStr>| part.map(|p| p.to_string_lossy().into_owned());
        let extension = text(self.path.extension()).map_or(String::new(), |e| format!(".{e}"));
        (text(self.path.file_stem()).unwrap_or_default(), extension)
    }

    fn tidy(&self, newest: &Path) -> io::Result<()> {
        if self.rotation.compress {
            compress(newest)?;
        }
        let mut all = self.backups()?;
        all.sort_unstable_by_key(|(at, _)| std::cmp::Reverse(*at));
        let Rotation { max_backups, max_age, .. } = self.rotation;
        let oldest = Timestamp::now() - SignedDuration::from_hours(24 * i64::from(max_age));
        for (index, (at, path)) in all.iter().enumerate() {
            let many = max_backups > 0 && index >= max_backups;
            if many || (max_age > 0 && *at < oldest) {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Former files, with the times in their names.
    fn backups(&self) -> io::Result<Vec<(Timestamp, PathBuf)>> {
        let (stem, extension) = self.parts();
        let folder =
            self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let bare = name.strip_suffix(".gz").unwrap_or(&name);
            let time = bare
                .strip_prefix(&format!("{stem}-"))
                .and_then(|rest| rest.strip_suffix(&extension));
            let time = time.and_then(|time| jiff::civil::DateTime::strptime(NAMED, time).ok());
            if let Some(at) = time.and_then(|t| t.to_zoned(jiff::tz::TimeZone::UTC).ok()) {
                found.push((at.timestamp(), entry.path()));
            }
        }
        Ok(found)
    }
}

fn is_output(path: &Path) -> bool {
    path == Path::new("-")
}

fn open(path: &Path) -> io::Result<Open> {
    if is_output(path) {
        let file = OpenOptions::new().append(true).open("/proc/self/fd/1")?;
        return Ok(Open { file, size: 0 });
    }
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)?;
    }
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let size = file.metadata()?.len();
    Ok(Open { file, size })
}

fn compress(path: &Path) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".gz");
    let packed = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&name)?;
    let mut encoder = flate2::write::GzEncoder::new(packed, flate2::Compression::default());
    io::copy(&mut File::open(path)?, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    std::fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).expect("a folder").flatten();
        let mut names: Vec<String> =
            entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_file_that_is_full_becomes_a_former_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("deep/audit.log");
        let rotation =
            Rotation { max_size: 10, max_backups: 2, compress: true, ..Rotation::default() };
        let log = LogFile::open(&path, rotation).expect("opened");
        let old = path.with_file_name("audit-2001-01-01T00-00-00.000.log");
        let other = path.with_file_name("audit-of-others.log");
        std::fs::write(&old, "old").expect("written");
        std::fs::write(&other, "other").expect("written");
        for line in ["first", "second", "third"] {
            log.write(line).expect("written");
        }
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "third\n");
        let names = names(path.parent().expect("a folder"));
        assert_eq!(names.iter().filter(|name| name.ends_with(".log.gz")).count(), 2, "{names:?}");
        assert!(!old.exists(), "one more than may stay");
        assert!(other.exists(), "no former file of ours");
        // A line larger than a file is still told.
        log.write("longer than ten bytes").expect("written");
        let again = LogFile::open(&path, rotation).expect("opened");
        again.write("x").expect("written");
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "x\n");
    }

    #[test]
    fn old_files_go_by_their_age() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.log");
        let log = LogFile::open(&path, Rotation { max_size: 1, max_age: 1, ..Rotation::default() });
        let old = path.with_file_name("a-2001-01-01T00-00-00.000.log");
        std::fs::write(&old, "old").expect("written");
        let log = log.expect("opened");
        log.write("1").expect("written");
        log.write("2").expect("written");
        assert!(!old.exists());
        assert_eq!(names(folder.path()).len(), 2, "the present one and the one before it");
    }
}
