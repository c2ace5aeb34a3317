//! Attacks on a directory while it is read, filled and removed. The attacker is a thread that swaps
//! names with `renameat2(EXCHANGE)` as fast as it can. Mounts need root.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::*;

/// Attempts under attack: a check by name loses within a few dozen.
const ATTEMPTS: usize = 2000;

/// Swaps two names until dropped.
struct Swapper {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Swapper {
    fn start(a: PathBuf, b: PathBuf) -> Swapper {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = stop.clone();
        let thread = std::thread::spawn(move || {
            while !seen.load(Ordering::Relaxed) {
                // One of them may be missing for a moment.
                let _missing = renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE);
            }
        });
        Swapper { stop, thread: Some(thread) }
    }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// A host directory with something to lose, and a volume beside it.
fn ground() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (host, volume) = (dir.path().join("host"), dir.path().join("volume"));
    std::fs::create_dir(&host).unwrap();
    std::fs::create_dir(&volume).unwrap();
    std::fs::write(host.join("secret"), "host").unwrap();
    (dir, host, volume)
}

/// Repeats until the attack was there and was not there, and often enough.
fn until_both_are_seen(mut attempt: impl FnMut(usize) -> bool) {
    let (mut good, mut refused) = (0, 0);
    for turn in 0..usize::MAX {
        match attempt(turn) {
            true => good += 1,
            false => refused += 1,
        }
        if turn > ATTEMPTS && good > 0 && refused > 0 {
            return;
        }
    }
}

fn part(volume: &Volume, sub: &str) -> io::Result<Held> {
    match volume.find(Path::new(sub))? {
        Some(held) => Ok(held),
        None => volume.make(Path::new(sub)),
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn links_fifos_and_devices_are_never_opened() {
    let (_dir, host, volume) = ground();
    symlink(host.join("secret"), volume.join("link")).unwrap();
    symlink(&host, volume.join("dir")).unwrap();
    rustix::fs::mknodat(CWD, volume.join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let dir = Dir::root(&volume).unwrap();
    for bad in ["link", "dir/secret", "../host/secret", "/etc/passwd", "fifo"] {
        assert!(dir.file(bad).is_err(), "{bad}");
    }
    for bad in ["dir", "..", "/"] {
        assert!(dir.open(bad).is_err() && dir.make(bad, 0o700).is_err(), "{bad}");
    }
}

#[test]
fn a_file_is_read_as_far_as_the_limit_says() {
    let (_dir, _host, volume) = ground();
    let dir = Dir::root(&volume).unwrap();
    // Four GiB that take no space.
    let big = File::create(volume.join("big")).unwrap();
    big.set_len(4 << 30).unwrap();
    (&big).seek(SeekFrom::End(0)).unwrap();
    (&big).write_all(b"end").unwrap();
    assert!(dir.read("big", 1000).is_err());
    let end = dir.read_end("big", 5).unwrap();
    assert_eq!(end, b"\0\0end");
}

#[test]
fn reading_under_attack_never_shows_the_host() {
    let (_dir, host, volume) = ground();
    std::fs::create_dir(volume.join("d")).unwrap();
    std::fs::write(volume.join("d/secret"), "own").unwrap();
    symlink(&host, volume.join("l")).unwrap();
    let _attack = Swapper::start(volume.join("d"), volume.join("l"));
    let dir = Dir::root(&volume).unwrap();
    until_both_are_seen(|_| match dir.read("d/secret", 100) {
        Ok(content) => {
            assert_eq!(content, b"own");
            true
        }
        Err(_) => false,
    });
}

#[test]
fn removal_under_attack_never_touches_the_host() {
    let (_dir, host, volume) = ground();
    std::fs::create_dir(host.join("below")).unwrap();
    let dir = Dir::root(&volume).unwrap();
    for _ in 0..ATTEMPTS / 10 {
        for path in ["v/a/b/c", "v/a/d", "v/x"] {
            std::fs::create_dir_all(volume.join(path)).unwrap();
        }
        symlink(&host, volume.join("v/a/l")).unwrap();
        let attack = Swapper::start(volume.join("v/a/b"), volume.join("v/a/l"));
        // Whether it ends at once depends on the race; the host must not.
        let _raced = dir.remove("v");
        drop(attack);
        dir.remove("v").unwrap();
        assert_eq!(std::fs::read_to_string(host.join("secret")).unwrap(), "host");
        assert!(host.join("below").exists());
    }
    assert!(names(&volume).is_empty());
}

#[test]
fn a_tree_of_any_depth_is_measured_and_removed() {
    let (_dir, _host, volume) = ground();
    let dir = Dir::root(&volume).unwrap();
    let mut at = dir.make("deep", 0o755).unwrap();
    for _ in 0..3000 {
        at = at.make("some-name-of-a-directory", 0o755).unwrap();
    }
    at.create("file", &[1; 8192], Access::mode(0o644)).unwrap();
    let usage = dir.open("deep").unwrap().usage().unwrap();
    assert_eq!(usage.inodes, 3001);
    assert!(usage.bytes >= 8192, "{usage:?}");
    dir.remove("deep").unwrap();
    assert!(names(&volume).is_empty());
}

#[test]
fn hard_links_count_once_and_links_lead_nowhere() {
    let (_dir, host, volume) = ground();
    std::fs::write(volume.join("a"), vec![1; 64 << 10]).unwrap();
    std::fs::hard_link(volume.join("a"), volume.join("b")).unwrap();
    symlink(&host, volume.join("l")).unwrap();
    std::fs::write(host.join("much"), vec![1; 1 << 20]).unwrap();
    let usage = Dir::root(&volume).unwrap().usage().unwrap();
    assert_eq!(usage.inodes, 2);
    assert!((64 << 10..128 << 10).contains(&usage.bytes), "{usage:?}");
}

#[test]
fn a_sub_path_follows_links_inside_and_none_outside() {
    let (_dir, host, volume) = ground();
    std::fs::create_dir_all(volume.join("real/dir")).unwrap();
    symlink("real", volume.join("inside")).unwrap();
    symlink("../real/dir", volume.join("real/up")).unwrap();
    symlink("../host", volume.join("out")).unwrap();
    symlink(&host, volume.join("absolute")).unwrap();
    let root = Volume::of(Dir::root(&volume).unwrap());
    for good in ["real/dir", "inside/dir", "real/up", ""] {
        assert!(part(&root, good).unwrap().is_directory().unwrap(), "{good}");
    }
    for bad in ["out", "absolute", "out/new", "absolute/secret", "../host", "real/../../host"] {
        assert!(part(&root, bad).is_err(), "{bad}");
    }
    assert_eq!(names(&host), ["secret"]);
}

#[test]
fn missing_directories_of_a_sub_path_have_the_mode_of_the_volume() {
    let (_dir, _host, volume) = ground();
    std::fs::set_permissions(&volume, std::fs::Permissions::from_mode(0o2777)).unwrap();
    symlink("made", volume.join("dangling")).unwrap();
    let root = Volume::of(Dir::root(&volume).unwrap());
    assert!(part(&root, "a/b").unwrap().is_directory().unwrap());
    for made in ["a", "a/b"] {
        let mode = std::fs::metadata(volume.join(made)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o2777, "{made}");
    }
    assert!(part(&root, "dangling/x").is_err(), "a link to nothing is not filled in");
}

#[test]
fn a_sub_path_under_attack_is_the_volumes_or_nothing() {
    let (_dir, host, volume) = ground();
    std::fs::create_dir(volume.join("d")).unwrap();
    symlink("../host", volume.join("l")).unwrap();
    let inside = std::fs::metadata(volume.join("d")).unwrap();
    let _attack = Swapper::start(volume.join("d"), volume.join("l"));
    let root = Volume::of(Dir::root(&volume).unwrap());
    until_both_are_seen(|turn| {
        let sub = if turn % 2 == 0 { "d" } else { "d/new" };
        let Ok(part) = part(&root, sub) else { return false };
        let stat = fstat(&part.fd).unwrap();
        assert!(sub != "d" || stat.st_ino == inside.ino());
        true
    });
    assert_eq!(names(&host), ["secret"], "nothing was made on the host");
}

#[test]
fn what_was_bound_stays_what_was_checked() {
    let (dir, _host, volume) = ground();
    std::fs::create_dir(volume.join("d")).unwrap();
    std::fs::write(volume.join("d/own"), "own").unwrap();
    symlink("../host", volume.join("l")).unwrap();
    let held = part(&Volume::of(Dir::root(&volume).unwrap()), "d").unwrap();
    renameat_with(CWD, volume.join("d"), CWD, volume.join("l"), RenameFlags::EXCHANGE).unwrap();
    let top = Dir::root(dir.path()).unwrap();
    top.make("bound", 0o755).unwrap();
    bind(&held, &top, Path::new("bound")).unwrap();
    let seen = names(&dir.path().join("bound"));
    unmount(&top, Path::new("bound")).unwrap();
    assert_eq!(seen, ["own"]);
    assert!(!top.is_mount("bound").unwrap());
}

#[test]
fn nothing_is_removed_through_a_mount() {
    let (dir, host, volume) = ground();
    std::fs::create_dir_all(volume.join("a/m")).unwrap();
    let held = part(&Volume::host(&host).unwrap(), "").unwrap();
    let top = Dir::root(dir.path()).unwrap();
    bind(&held, &top, Path::new("volume/a/m")).unwrap();
    assert!(top.remove("volume").is_err(), "a mount is in the way");
    assert_eq!(names(&host), ["secret"]);
    // Two on top of each other, and one with a name that is no text.
    bind(&held, &top.open_mount("volume").unwrap(), Path::new("a")).unwrap();
    unmount_and_remove(dir.path(), Path::new("volume")).unwrap();
    assert_eq!((volume.exists(), names(&host)), (false, vec!["secret".to_owned()]));
}

#[test]
fn a_tmpfs_is_told_from_a_directory() {
    let (dir, _host, volume) = ground();
    let top = Dir::root(dir.path()).unwrap();
    tmpfs(&top.open("volume").unwrap(), Some(1 << 20), 0o777).unwrap();
    assert!(top.is_mount("volume").unwrap());
    assert!(top.open("volume").is_err() && top.open_mount("volume").is_ok());
    assert_eq!(std::fs::metadata(&volume).unwrap().permissions().mode() & 0o7777, 0o777);
    unmount(&top, Path::new("volume")).unwrap();
}
