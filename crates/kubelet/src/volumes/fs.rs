//! Directories, tmpfs mounts, ownership, host paths.

use std::ffi::CString;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use super::{HostPathVolumeSource, NO_FLAGS};

pub(super) fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

/// A directory anybody may write to; `memory` makes it a tmpfs, with an optional size.
pub(super) fn empty_dir(
    dir: &Path,
    memory: Option<Option<u64>>,
    group: Option<u32>,
) -> io::Result<()> {
    let fresh = !dir.is_dir();
    std::fs::create_dir_all(dir)?;
    if let Some(limit) = memory.filter(|_| !is_mount_point(dir)) {
        let options = limit.map(|bytes| format!("size={bytes}")).unwrap_or_default();
        let options = CString::new(options).map_err(io::Error::other)?;
        rustix::mount::mount("tmpfs", dir, "tmpfs", NO_FLAGS, Some(options.as_c_str()))?;
    } else if !fresh {
        return Ok(());
    }
    match group {
        Some(gid) => {
            std::os::unix::fs::chown(dir, None, Some(gid))?;
            set_mode(dir, 0o2777)
        }
        None => set_mode(dir, 0o777),
    }
}

fn is_mount_point(dir: &Path) -> bool {
    let device = |p: &Path| std::fs::metadata(p).map(|m| m.dev()).ok();
    dir.parent().is_some_and(|parent| device(dir) != device(parent))
}

/// Checks, or makes, what a hostPath volume names.
pub(super) fn host_path(source: &HostPathVolumeSource) -> Result<(), String> {
    let path = Path::new(&source.path);
    let kind = source.type_.as_deref().unwrap_or("");
    let failed = |e: io::Error| format!("hostPath {}: {e}", path.display());
    match kind {
        "DirectoryOrCreate" if !path.exists() => {
            std::fs::create_dir_all(path).map_err(failed)?;
            return set_mode(path, 0o755).map_err(failed);
        }
        "FileOrCreate" if !path.exists() => {
            std::fs::write(path, b"").map_err(failed)?;
            return set_mode(path, 0o644).map_err(failed);
        }
        _ => {}
    }
    let found = std::fs::metadata(path).map(|m| m.file_type());
    let (fits, name) = match kind {
        "" => return Ok(()),
        "Directory" | "DirectoryOrCreate" => (found.map(|t| t.is_dir()), "a directory"),
        "File" | "FileOrCreate" => (found.map(|t| t.is_file()), "a file"),
        "Socket" => (found.map(|t| t.is_socket()), "a socket file"),
        "CharDevice" => (found.map(|t| t.is_char_device()), "a character device"),
        "BlockDevice" => (found.map(|t| t.is_block_device()), "a block device"),
        _ => return Err(format!("{kind} is an invalid volume type")),
    };
    match fits {
        Ok(true) => Ok(()),
        _ => Err(format!("hostPath type check failed: {} is not {name}", source.path)),
    }
}
