//! A set of files that changes all at once: they lie in a dated directory, `..data` points at it, and
//! the visible names point through `..data`. Switching is one rename.
//!
//! Containers see these volumes read-only. Still nothing here trusts what lies in the directory:
//! `..data` is read as the name of a directory beside it or not at all, and removal follows nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::beneath::{Access, Dir};

const DATA: &str = "..data";
const DATA_NEXT: &str = "..data_tmp";
const DIR_MODE: u32 = 0o755;
/// What a volume's group gets: its files to read, its directories to pass on (upstream's masks).
const GROUP_FILE: u32 = 0o440;
const GROUP_DIR: u32 = 0o2550;

/// Content, permission bits, and an owner that is not root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) content: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) user: Option<u32>,
}

/// By relative path, without `..`.
pub(crate) type Files = BTreeMap<PathBuf, File>;

/// Makes `dir` show exactly `files`; does nothing when it does so already.
pub(super) fn write(dir: &Dir, files: &Files, group: Option<u32>) -> io::Result<()> {
    let current = current(dir)?;
    if let Some(name) = &current
        && dir.open(name).is_ok_and(|at| same(&at, files))
    {
        return Ok(());
    }
    let stamp = jiff::Zoned::now().strftime("%Y_%m_%d_%H_%M_%S").to_string();
    let nanos = jiff::Timestamp::now().subsec_nanosecond();
    let name = format!("..{stamp}.{nanos:09}");
    dir.remove(&name)?;
    if let Err(error) = fill(&dir.make(&name, DIR_MODE)?, files, group) {
        // Half a set would stay for every time that this is tried again.
        dir.remove(&name)?;
        return Err(error);
    }
    dir.remove(DATA_NEXT)?;
    dir.symlink(&name, DATA_NEXT)?;
    switch(dir)?;
    show(dir, files, OsStr::new(&name))
}

/// A directory in the place of the link would not give way to it.
fn switch(dir: &Dir) -> io::Result<()> {
    if dir.stat(DATA)?.is_some() && dir.read_link(DATA)?.is_none() {
        dir.remove(DATA)?;
    }
    dir.rename(DATA_NEXT, DATA)
}

/// The dated directory that is shown: one name, hidden as the writer names them.
fn current(dir: &Dir) -> io::Result<Option<PathBuf>> {
    let name = dir.read_link(DATA)?.filter(|to| {
        let mut parts = to.components();
        let first = parts.next();
        let hidden = to.to_string_lossy().starts_with("..") && to != Path::new(DATA);
        matches!(first, Some(Component::Normal(_))) && parts.next().is_none() && hidden
    });
    Ok(name)
}

fn same(dir: &Dir, files: &Files) -> bool {
    let matches = |(path, file): (&PathBuf, &File)| {
        dir.read(path, file.content.len()).is_ok_and(|content| content == file.content)
    };
    let shown = dir.usage().map(|usage| usage.inodes).unwrap_or_default();
    shown == entries(files) && files.iter().all(matches)
}

/// Files, and the directories that they lie in.
fn entries(files: &Files) -> u64 {
    let above = files.keys().flat_map(|p| p.ancestors().skip(1));
    let dirs: BTreeSet<&Path> = above.filter(|p| !p.as_os_str().is_empty()).collect();
    (files.len() + dirs.len()) as u64
}

fn fill(dir: &Dir, files: &Files, group: Option<u32>) -> io::Result<()> {
    let shared = group.map(|_| DIR_MODE | GROUP_DIR);
    let access = |at: &Dir| match shared {
        Some(mode) => at.set_access(Access { mode, user: None, group }),
        None => Ok(()),
    };
    access(dir)?;
    for (path, file) in files {
        let parent = path.parent().unwrap_or(Path::new(""));
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let mut at = dir.open("")?;
        for part in parent {
            at = at.make(part, DIR_MODE)?;
            access(&at)?;
        }
        let mode = if group.is_some() { file.mode | GROUP_FILE } else { file.mode };
        at.create(name, &file.content, Access { mode, user: file.user, group })?;
    }
    Ok(())
}

/// The visible names: the first component of each path. Everything else goes, older sets too.
fn show(dir: &Dir, files: &Files, current: &OsStr) -> io::Result<()> {
    let first = |p: &PathBuf| p.components().next().map(|c| c.as_os_str().to_owned());
    let wanted: BTreeSet<_> = files.keys().filter_map(first).collect();
    for name in dir.names()? {
        let kept = name == DATA || name == current || wanted.contains(&name);
        if !kept {
            dir.remove(&name)?;
        }
    }
    for name in wanted {
        let target = Path::new(DATA).join(&name);
        if dir.read_link(&name)?.is_none_or(|to| to != target) {
            dir.remove(&name)?;
            dir.symlink(&target, &name)?;
        }
    }
    Ok(())
}
