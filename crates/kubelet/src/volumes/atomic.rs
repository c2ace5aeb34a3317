//! A set of files that changes all at once: they lie in a dated directory, `..data` points at it, and
//! the visible names point through `..data`. Switching is one rename.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::fs::set_mode;

const DATA: &str = "..data";
const DATA_NEXT: &str = "..data_tmp";

/// Content and permission bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) content: Vec<u8>,
    pub(crate) mode: u32,
}

/// By relative path, without `..`.
pub(crate) type Files = BTreeMap<PathBuf, File>;

/// Makes `dir` show exactly `files`; does nothing when it does so already.
pub(super) fn write(dir: &Path, files: &Files, group: Option<u32>) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let current = std::fs::read_link(dir.join(DATA)).ok();
    if current.as_ref().is_some_and(|name| same(&dir.join(name), files)) {
        return Ok(());
    }
    let stamp = jiff::Zoned::now().strftime("%Y_%m_%d_%H_%M_%S").to_string();
    let nanos = jiff::Timestamp::now().subsec_nanosecond();
    let name = format!("..{stamp}.{nanos:09}");
    let next = dir.join(&name);
    fill(&next, files, group)?;
    let link = dir.join(DATA_NEXT);
    if link.symlink_metadata().is_ok() {
        std::fs::remove_file(&link)?;
    }
    symlink(&name, &link)?;
    std::fs::rename(&link, dir.join(DATA))?;
    show(dir, files)?;
    match current {
        Some(old) => std::fs::remove_dir_all(dir.join(old)),
        None => Ok(()),
    }
}

fn same(dir: &Path, files: &Files) -> bool {
    let matches = |(path, file): (&PathBuf, &File)| {
        std::fs::read(dir.join(path)).is_ok_and(|content| content == file.content)
    };
    count(dir) == files.len() && files.iter().all(matches)
}

fn count(dir: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let each = entries.flatten().map(|e| match e.file_type() {
        Ok(kind) if kind.is_dir() => count(&e.path()),
        _ => 1,
    });
    each.sum()
}

fn fill(dir: &Path, files: &Files, group: Option<u32>) -> io::Result<()> {
    std::fs::create_dir(dir)?;
    set_mode(dir, 0o755)?;
    for (path, file) in files {
        let target = dir.join(path);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&target, &file.content)?;
        let mut mode = file.mode;
        if let Some(gid) = group {
            std::os::unix::fs::chown(&target, None, Some(gid))?;
            mode |= 0o440;
        }
        std::fs::set_permissions(&target, std::fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// The visible names: the first component of each path.
fn show(dir: &Path, files: &Files) -> io::Result<()> {
    let first = |p: &PathBuf| p.components().next().map(|c| c.as_os_str().to_owned());
    let wanted: BTreeSet<_> = files.keys().filter_map(first).collect();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        let hidden = name.to_string_lossy().starts_with("..");
        if !hidden && !wanted.contains(&name) {
            std::fs::remove_file(dir.join(&name))?;
        }
    }
    for name in wanted {
        let link = dir.join(&name);
        if link.symlink_metadata().is_err() {
            symlink(Path::new(DATA).join(&name), link)?;
        }
    }
    Ok(())
}
