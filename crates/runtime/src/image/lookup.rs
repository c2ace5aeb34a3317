//! One path in an image as a container would see it: its layers laid over each other.
//!
//! Only entries' kinds are looked at, in layers that nobody changes. Links are followed inside the image; a
//! path that leads nowhere is an error, as is one through too many links.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

/// Links followed on the way (the kernel's number).
const LINKS_MAX: usize = 40;
const OPAQUE: &std::ffi::CStr = c"trusted.overlay.opaque";

/// What lies at a path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A file, in the one layer that shows it.
    File(PathBuf),
    /// A directory: its part in each layer that adds to it, topmost first.
    Directory(Vec<PathBuf>),
}

enum Entry {
    Link(PathBuf),
    Found(Found),
}

/// Looks `path` up in these layers, topmost first.
pub(crate) fn lookup(layers: &[PathBuf], path: &Path) -> io::Result<Found> {
    let mut left: VecDeque<OsString> = names(path);
    let mut at: Vec<OsString> = Vec::new();
    let mut links = 0;
    let mut found = Found::Directory(layers.to_vec());
    while let Some(name) = left.pop_front() {
        if name == ".." {
            at.pop();
            found = walk(layers, &at)?;
            continue;
        }
        match entry(&found, &name)? {
            Entry::Found(next) => {
                at.push(name);
                found = next;
            }
            Entry::Link(to) => {
                links += 1;
                if links > LINKS_MAX {
                    return Err(io::Error::other("too many links"));
                }
                if to.is_absolute() {
                    at.clear();
                }
                for name in names(&to).into_iter().rev() {
                    left.push_front(name);
                }
                found = walk(layers, &at)?;
            }
        }
    }
    Ok(found)
}

fn names(path: &Path) -> VecDeque<OsString> {
    let name = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().filter_map(name).collect()
}

/// A way that is known to have no links.
fn walk(layers: &[PathBuf], at: &[OsString]) -> io::Result<Found> {
    let mut found = Found::Directory(layers.to_vec());
    for name in at {
        match entry(&found, name)? {
            Entry::Found(next) => found = next,
            Entry::Link(_) => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
    Ok(found)
}

/// What `name` is in a directory: a file or link of the topmost layer that has one, or all directories
/// down to what hides those below.
fn entry(parent: &Found, name: &OsString) -> io::Result<Entry> {
    let Found::Directory(parts) = parent else { return Err(io::ErrorKind::NotADirectory.into()) };
    let mut directories = Vec::new();
    for part in parts {
        let path = part.join(name);
        let meta = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        let kind = meta.file_type();
        if kind.is_dir() {
            let hides = is_opaque(&path)?;
            directories.push(path);
            if hides {
                break;
            }
            continue;
        }
        let whiteout = kind.is_char_device() && meta.rdev() == 0;
        if whiteout || !directories.is_empty() {
            break;
        }
        return Ok(match kind.is_symlink() {
            true => Entry::Link(fs::read_link(&path)?),
            false => Entry::Found(Found::File(path)),
        });
    }
    match directories.is_empty() {
        true => Err(io::ErrorKind::NotFound.into()),
        false => Ok(Entry::Found(Found::Directory(directories))),
    }
}

fn is_opaque(dir: &Path) -> io::Result<bool> {
    let mut value = [0u8; 1];
    match rustix::fs::lgetxattr(dir, OPAQUE, &mut value) {
        Ok(length) => Ok(length == 1 && value == *b"y"),
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOTSUP) => Ok(false),
        // Longer than the one letter that counts.
        Err(rustix::io::Errno::RANGE) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};

    use super::*;

    /// Layers `top` and `low`, filled by the test. Needs root: whiteouts are devices.
    fn layers(fill: impl FnOnce(&Path, &Path)) -> (tempfile::TempDir, Vec<PathBuf>) {
        let dir = tempfile::tempdir().unwrap();
        let (top, low) = (dir.path().join("top"), dir.path().join("low"));
        fs::create_dir_all(&top).unwrap();
        fs::create_dir_all(&low).unwrap();
        fill(&top, &low);
        (dir, vec![top, low])
    }

    fn shown(layers: &[PathBuf], path: &str) -> String {
        match lookup(layers, Path::new(path)) {
            Ok(Found::File(path)) => format!("file of {}", layer(&path)),
            Ok(Found::Directory(parts)) => {
                format!("dirs of {}", parts.iter().map(|p| layer(p)).collect::<Vec<_>>().join(" "))
            }
            Err(error) => error.kind().to_string(),
        }
    }

    fn layer(path: &Path) -> &'static str {
        if path.components().any(|c| c.as_os_str() == "top") { "top" } else { "low" }
    }

    #[test]
    fn upper_layers_add_to_hide_and_replace_what_is_below() {
        let (_dir, layers) = layers(|top, low| {
            for path in ["both/a", "gone/a", "opaque/a", "replaced/a", "low-only"] {
                fs::create_dir_all(low.join(path)).unwrap();
            }
            fs::write(low.join("both/f"), "").unwrap();
            fs::create_dir_all(top.join("both")).unwrap();
            let white = |path: &str| {
                mknodat(CWD, top.join(path), FileType::CharacterDevice, Mode::RUSR, 0).unwrap();
            };
            white("gone");
            fs::create_dir(top.join("opaque")).unwrap();
            setxattr(top.join("opaque"), OPAQUE, b"y", XattrFlags::empty()).unwrap();
            fs::write(top.join("replaced"), "").unwrap();
        });
        assert_eq!(shown(&layers, ""), "dirs of top low");
        assert_eq!(shown(&layers, "both"), "dirs of top low");
        assert_eq!(shown(&layers, "both/a"), "dirs of low");
        assert_eq!(shown(&layers, "both/f"), "file of low");
        assert_eq!(shown(&layers, "gone/a"), "entity not found");
        assert_eq!(shown(&layers, "opaque"), "dirs of top");
        assert_eq!(shown(&layers, "opaque/a"), "entity not found");
        assert_eq!(shown(&layers, "replaced"), "file of top");
        assert_eq!(shown(&layers, "replaced/a"), "not a directory");
    }

    #[test]
    fn links_stay_inside() {
        let (_dir, layers) = layers(|top, low| {
            fs::create_dir_all(low.join("real/sub")).unwrap();
            symlink("/real", top.join("absolute")).unwrap();
            symlink("../../../real/sub", top.join("up")).unwrap();
            symlink("loop", top.join("loop")).unwrap();
            symlink("/etc/passwd", top.join("host")).unwrap();
        });
        assert_eq!(shown(&layers, "absolute/sub"), "dirs of low");
        assert_eq!(shown(&layers, "up"), "dirs of low");
        assert_eq!(shown(&layers, "up/.."), "dirs of low");
        assert_eq!(shown(&layers, "host"), "entity not found");
        assert_eq!(shown(&layers, "loop"), "other error");
    }
}
