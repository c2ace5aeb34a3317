//! The cluster's folder is root's alone: Secrets of pods, and set-uid files of images, lie in it for
//! everyone who may enter (CVE-2021-41103).

use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::{Context, Result, bail};

const MODE: u32 = 0o700;

/// Makes the folder, or takes over one that is there: it must be ours, and is closed to others.
pub(crate) fn make_private(folder: &Path) -> Result<()> {
    let shown = folder.display();
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(MODE)
        .create(folder)
        .with_context(|| format!("create {shown}"))?;
    let found = std::fs::symlink_metadata(folder).with_context(|| format!("look at {shown}"))?;
    if !found.is_dir() {
        bail!("{shown} is not a directory");
    }
    let own = rustix::process::geteuid().as_raw();
    if found.uid() != own {
        bail!(
            "{shown} belongs to user {}, not to {own}: its owner could read every Secret",
            found.uid()
        );
    }
    if found.mode() & 0o077 != 0 {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(MODE))
            .with_context(|| format!("close {shown} to other users"))?;
    }
    Ok(())
}

/// Whether the folder is there; an error when the caller may not know.
pub(crate) fn exists(folder: &Path) -> Result<bool> {
    match std::fs::metadata(folder.join(".")) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            bail!("no permission to look into {}: run this as root", folder.display())
        }
        Err(error) => Err(error).with_context(|| format!("look at {}", folder.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_folder_is_closed_and_anothers_refused() {
        let parent = tempfile::tempdir().expect("a folder");
        let folder = parent.path().join("a/b");
        make_private(&folder).expect("made");
        let mode = |path: &Path| std::fs::metadata(path).expect("there").mode() & 0o7777;
        assert_eq!((mode(&folder), mode(&parent.path().join("a"))), (0o700, 0o700));
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).expect("opened");
        make_private(&folder).expect("closed");
        assert_eq!(mode(&folder), 0o700);
        std::os::unix::fs::chown(&folder, Some(1234), None).expect("given away");
        let refused = make_private(&folder).expect_err("refused").to_string();
        assert!(refused.contains("belongs to user 1234"), "{refused}");
        let link = parent.path().join("link");
        std::os::unix::fs::symlink("/etc", &link).expect("a link");
        assert!(make_private(&link).expect_err("refused").to_string().contains("not a directory"));
        assert!(!exists(&parent.path().join("none")).expect("known"));
    }
}
