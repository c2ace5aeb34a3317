//! Directories that only we may enter: below them lie images' set-uid files, pods' names and logs' pipes
//! (CVE-2021-41103).

use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use crate::error::{Error, IoContext, Result};

/// Makes the directory, or takes everybody else's rights on it away. One that is a link, or another
/// user's, is refused: whoever owns it can put anything in its place.
pub(super) fn directory(path: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).at("make", path)?;
    let meta = fs::symlink_metadata(path).at("inspect", path)?;
    let refuse = |why: String| Err(Error::Precondition(format!("{} {why}", path.display())));
    if !meta.is_dir() {
        return refuse("must be a directory and no link".to_owned());
    }
    let own = rustix::process::geteuid().as_raw();
    if meta.uid() != own {
        return refuse(format!("belongs to user {}, and must belong to {own}", meta.uid()));
    }
    if meta.mode() & 0o077 != 0 {
        tracing::warn!("{} was open to others: closed", path.display());
        fs::set_permissions(path, Permissions::from_mode(0o700)).at("close", path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_closed_or_refused() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = dir.path().join("a/b");
        directory(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&path), mode(&dir.path().join("a"))), (0o700, 0o700));
        fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
        directory(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(directory(&link).unwrap_err().chain().contains("no link"));
        std::os::unix::fs::chown(&path, Some(1000), None).unwrap();
        assert!(directory(&path).unwrap_err().chain().contains("belongs to user 1000"));
    }
}
