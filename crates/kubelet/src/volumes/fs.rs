//! Directories, tmpfs mounts, ownership, host paths.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use super::HostPathVolumeSource;
use crate::beneath::{self, Access, Dir};

/// A container of any user may write to its volume.
const OPEN: u32 = 0o777;
/// With a group, what is made inside belongs to the group too.
const OPEN_TO_GROUP: u32 = 0o2777;

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

/// A directory `name` that anybody may write to; `memory` makes it a tmpfs, with an optional size.
/// One that is there already is left as its containers have made it.
pub(super) fn empty_dir(
    parent: &Dir,
    name: &str,
    memory: Option<Option<u64>>,
    group: Option<u32>,
) -> io::Result<Dir> {
    let mode = if group.is_some() { OPEN_TO_GROUP } else { OPEN };
    let access = Access { mode, user: None, group };
    if parent.stat(name)?.is_none() {
        // Under another name first: a crash leaves no directory with the wrong mode.
        let next = format!(".{name}.new");
        parent.remove(&next)?;
        parent.make(&next, OPEN)?.set_access(access)?;
        parent.rename(&next, name)?;
    }
    let Some(limit) = memory else { return parent.open(name) };
    if !parent.is_mount(name)? {
        beneath::tmpfs(&parent.open(name)?, limit, OPEN)?;
        parent.open_mount(name)?.set_access(access)?;
    }
    parent.open_mount(name)
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
            std::fs::File::create_new(path).map_err(failed)?;
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
