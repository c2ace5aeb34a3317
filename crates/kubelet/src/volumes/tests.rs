//! Atomic updates and sub-paths on a real directory.

use std::path::{Path, PathBuf};

use super::atomic::{self, File, Files};
use super::subpath;

fn files(of: &[(&str, &str)]) -> Files {
    let file = |text: &str| File { content: text.as_bytes().to_vec(), mode: 0o640 };
    of.iter().map(|(path, text)| (PathBuf::from(path), file(text))).collect()
}

#[test]
fn a_switch_shows_all_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).ok();
    atomic::write(dir.path(), &files(&[("a", "1"), ("d/b", "2")]), None).unwrap();
    let first = std::fs::read_link(dir.path().join("..data")).unwrap();
    assert_eq!((read("a"), read("d/b")), (Some("1".into()), Some("2".into())));
    atomic::write(dir.path(), &files(&[("a", "1"), ("d/b", "2")]), None).unwrap();
    assert_eq!(std::fs::read_link(dir.path().join("..data")).unwrap(), first, "unchanged");
    atomic::write(dir.path(), &files(&[("a", "3")]), None).unwrap();
    assert_eq!((read("a"), read("d/b")), (Some("3".into()), None));
    assert!(!dir.path().join(&first).exists(), "the old set is gone");
}

#[test]
fn a_link_does_not_lead_out_of_the_volume() {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/etc", dir.path().join("out")).unwrap();
    assert!(subpath::resolve(dir.path(), Path::new("out/x")).is_err());
    let made = subpath::resolve(dir.path(), Path::new("new/dir")).unwrap();
    assert!(made.is_dir());
}
