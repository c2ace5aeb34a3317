//! A part of a volume, reached without following a link out of it.

use std::io;
use std::path::{Path, PathBuf};

use super::fs::set_mode;

/// The host path of `sub` inside `volume`; made as a directory when it is not there. A link inside
/// that leads out of the volume is refused.
pub(crate) fn resolve(volume: &Path, sub: &Path) -> io::Result<PathBuf> {
    if sub.as_os_str().is_empty() {
        return Ok(volume.to_owned());
    }
    let root = volume.canonicalize()?;
    let mut at = root.clone();
    for part in sub.components() {
        let next = at.join(part);
        if next.symlink_metadata().is_err() {
            std::fs::create_dir(&next)?;
            set_mode(&next, 0o750)?;
        }
        at = next.canonicalize()?;
        if !at.starts_with(&root) {
            let text = format!("{} is outside of the volume", next.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
    }
    Ok(at)
}
