//! State files in upstream's form: JSON with a checksum of Go's dump of the structure.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Longest state file: thousands of pods have less.
const FILE_MAX: u64 = 64 << 20;

/// 32-bit FNV-1a.
pub(crate) fn checksum(dump: &str) -> u32 {
    dump.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Upstream's words for a checksum that is not that of the content.
pub(crate) const CORRUPT: &str = "checkpoint is corrupted";

/// One state file.
#[derive(Clone, Debug)]
pub(crate) struct StateFile {
    path: PathBuf,
    /// Whose state it is, as errors name it.
    manager: &'static str,
}

impl StateFile {
    pub(crate) fn new(dir: &Path, name: &str, manager: &'static str) -> StateFile {
        StateFile { path: dir.join(name), manager }
    }

    pub(crate) fn read(&self) -> io::Result<Option<String>> {
        let file = match fs::File::open(&self.path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let mut text = String::new();
        file.take(FILE_MAX).read_to_string(&mut text)?;
        Ok(Some(text))
    }

    /// Replaces the file as a whole. A failure is logged and the state kept in memory, as upstream does.
    pub(crate) fn write(&self, text: &str) {
        if let Err(error) = self.replace(text) {
            let file = self.path.display();
            tracing::error!(%file, %error, "state not written; a restart would not know of it");
        }
    }

    fn replace(&self, text: &str) -> io::Result<()> {
        let dir = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(dir)?;
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let fresh = dir.join(name);
        let mut file = fs::File::create(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, &self.path)?;
        fs::File::open(dir)?.sync_all()
    }

    /// An error of reading the state, with upstream's advice.
    pub(crate) fn refused(&self, why: impl std::fmt::Display) -> String {
        format!(
            "could not restore state from checkpoint: {why}, please drain this node and delete the {} manager checkpoint file {:?} before restarting Kubelet",
            self.manager,
            self.path.display().to_string()
        )
    }
}
