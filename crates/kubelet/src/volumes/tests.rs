//! Atomic updates on a real directory, also on one that a container has spoilt.

use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use super::atomic::{self, File, Files};
use super::{message, subpath};
use crate::beneath::Dir;

fn files(of: &[(&str, &str)]) -> Files {
    let file = |text: &str| File { content: text.as_bytes().to_vec(), mode: 0o640, user: None };
    of.iter().map(|(path, text)| (PathBuf::from(path), file(text))).collect()
}

fn write(dir: &Path, of: &[(&str, &str)], group: Option<u32>) {
    atomic::write(&Dir::root(dir).unwrap(), &files(of), group).unwrap();
}

#[test]
fn a_switch_shows_all_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).ok();
    write(dir.path(), &[("a", "1"), ("d/b", "2")], None);
    let first = std::fs::read_link(dir.path().join("..data")).unwrap();
    assert_eq!((read("a"), read("d/b")), (Some("1".into()), Some("2".into())));
    write(dir.path(), &[("a", "1"), ("d/b", "2")], None);
    assert_eq!(std::fs::read_link(dir.path().join("..data")).unwrap(), first, "unchanged");
    write(dir.path(), &[("a", "3")], None);
    assert_eq!((read("a"), read("d/b")), (Some("3".into()), None));
    assert!(!dir.path().join(&first).exists(), "the old set is gone");
}

#[test]
fn a_set_that_cannot_be_written_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let both = files(&[("a", "1"), ("a/b", "2")]);
    assert!(atomic::write(&Dir::root(dir.path()).unwrap(), &both, None).is_err());
    assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none());
}

#[test]
fn a_group_may_read_files_and_pass_directories() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &[("d/b", "2")], Some(7));
    let of = |name: &str| {
        let meta = std::fs::metadata(dir.path().join(name)).unwrap();
        (meta.gid(), meta.mode() & 0o7777)
    };
    assert_eq!((of("d"), of("d/b")), ((7, 0o2755), (7, 0o640)));
}

/// CVE-2017-1002102: what `..data` points to is not removed unless it is the writer's own.
#[test]
fn a_spoilt_directory_is_put_right_and_costs_the_host_nothing() {
    for target in ["../host", "/", ".", "..", "", "..data", "a/b"] {
        let top = tempfile::tempdir().unwrap();
        let (host, volume) = (top.path().join("host"), top.path().join("volume"));
        std::fs::create_dir(&host).unwrap();
        std::fs::write(host.join("a"), "host").unwrap();
        std::fs::create_dir(&volume).unwrap();
        match target {
            "" => std::fs::create_dir_all(volume.join("..data/x")).unwrap(),
            target => symlink(target, volume.join("..data")).unwrap(),
        }
        symlink(&host, volume.join("..old")).unwrap();
        symlink(&host, volume.join("a")).unwrap();
        std::fs::create_dir_all(volume.join("more/and/more")).unwrap();
        write(&volume, &[("a", "1")], None);
        assert_eq!(std::fs::read_to_string(volume.join("a")).unwrap(), "1", "{target}");
        assert_eq!(std::fs::read_to_string(host.join("a")).unwrap(), "host", "{target}");
        let mut left: Vec<_> =
            std::fs::read_dir(&volume).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left.len(), 3, "{target}: {left:?}");
    }
}

#[test]
fn a_message_is_the_end_of_the_runs_own_file() {
    let root = tempfile::tempdir().unwrap();
    let read = |attempt| message::read(root.path(), "u", "c", attempt).unwrap();
    assert_eq!(read(0), None);
    let path = message::make(root.path(), "u", "c", 0).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o666);
    let text = "x".repeat(5000) + "end";
    std::fs::write(&path, &text).unwrap();
    assert_eq!(read(0).unwrap(), text.as_bytes()[text.len() - 4096..]);
    for attempt in 1..4 {
        message::make(root.path(), "u", "c", attempt).unwrap();
    }
    assert_eq!((read(0), read(1)), (None, Some(vec![])), "old runs' files go");
}

#[test]
fn a_part_of_a_volume_is_bound_and_released() {
    let root = tempfile::tempdir().unwrap();
    let volume: k8s_openapi::api::core::v1::Volume =
        serde_json::from_value(serde_json::json!({"name": "v", "emptyDir": {}})).unwrap();
    let dir = super::path(root.path(), "u", &volume).unwrap();
    std::fs::create_dir_all(dir.join("a")).unwrap();
    std::fs::write(dir.join("a/file"), "x").unwrap();
    let prepare = |index, sub: &str| {
        let sub = Path::new(sub);
        let mount = subpath::Mount { volume: &volume, place: &dir, container: "c", index, sub };
        subpath::prepare(root.path(), "u", &mount)
    };
    let bound = prepare(0, "a").unwrap();
    assert_eq!(std::fs::read_to_string(bound.join("file")).unwrap(), "x");
    let file = prepare(1, "a/file").unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "x");
    // Once more, as after a crash in between.
    assert!(std::fs::read_dir(prepare(0, "new").unwrap()).unwrap().next().is_none());
    symlink("/etc", dir.join("out")).unwrap();
    let said = |sub| prepare(2, sub).unwrap_err().to_string();
    assert_eq!(
        said("out/x/y"),
        "failed to prepare subPath for volumeMount \"v\" of container \"c\""
    );
    subpath::release(root.path(), "u", "c").unwrap();
    assert!(!bound.exists() && !file.exists() && dir.join("a/file").exists());
}
