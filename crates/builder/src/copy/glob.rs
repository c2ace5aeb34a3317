//! Sources with `*`, `?`, `[…]` and `**`.

use std::io;

use dockerfile::ignore::Patterns;
use rustix::fs::FileType;

use super::root::{Root, lstat, names};
use crate::error::{Error, IoContext, Result};

/// Matches of one pattern.
const MOST: usize = 1 << 20;

pub(crate) fn has_wildcards(pattern: &str) -> bool {
    pattern.contains(['*', '?', '['])
}

/// The paths below `root` that a pattern names, sorted. One without wildcards names itself.
pub(crate) fn expand(root: &Root, pattern: &str) -> Result<Vec<String>> {
    let pattern = pattern.trim_matches('/');
    if !has_wildcards(pattern) {
        return Ok(vec![pattern.to_owned()]);
    }
    let mut found = vec![String::new()];
    for part in pattern.split('/') {
        let mut next = Vec::new();
        for dir in &found {
            if part == "**" {
                next.push(dir.clone());
                below(root, dir, &mut next)?;
            } else if has_wildcards(part) {
                let matcher = Patterns::new(&[part.to_owned()])?;
                next.extend(
                    list(root, dir)?
                        .into_iter()
                        .filter(|n| matcher.excludes(n))
                        .map(|n| join(dir, &n)),
                );
            } else if root.stat(&join(dir, part)).is_ok() {
                next.push(join(dir, part));
            }
            if next.len() > MOST {
                return Err(Error::refused(format!("{pattern} fits more than {MOST} files")));
            }
        }
        found = next;
    }
    found.retain(|p| !p.is_empty());
    found.sort();
    found.dedup();
    Ok(found)
}

pub(crate) fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}

fn list(root: &Root, dir: &str) -> Result<Vec<String>> {
    let fd = match root.directory(dir) {
        // A file in the middle of a pattern fits nothing.
        Err(e) if matches!(e.kind(), io::ErrorKind::NotADirectory | io::ErrorKind::NotFound) => {
            return Ok(Vec::new());
        }
        other => other.at("open", dir)?,
    };
    let names = names(&fd).at("list", dir)?;
    Ok(names.into_iter().filter_map(|n| n.into_string().ok()).collect())
}

/// All directories below one; links are not followed.
fn below(root: &Root, dir: &str, out: &mut Vec<String>) -> Result<()> {
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        let fd = root.directory(&dir).at("open", &dir)?;
        for name in names(&fd).at("list", &dir)? {
            let stat = lstat(&fd, &name).at("inspect", &name)?;
            let Ok(name) = name.into_string() else { continue };
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                open.push(join(&dir, &name));
                out.push(join(&dir, &name));
            }
        }
        if out.len() > MOST {
            return Err(Error::refused(format!("more than {MOST} directories below {dir:?}")));
        }
    }
    Ok(())
}
