//! Takes hold of processes while they are on their way into the container.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

struct Watch {
    /// Texts in memory that belong to others.
    secrets: Vec<String>,
    own_exes: HashSet<PathBuf>,
    root: (u64, u64),
    /// Capabilities that every process of the container may have.
    capabilities: u64,
    got: HashSet<String>,
    seen: HashSet<i32>,
    refused: u64,
    early: u64,
    foreign: u64,
}

pub(crate) fn run(secrets: &[String]) {
    let root = fs::metadata("/").map(|m| (m.dev(), m.ino())).unwrap_or_default();
    let mut watch = Watch {
        secrets: secrets.to_vec(),
        own_exes: [PathBuf::from("/bin/busybox"), PathBuf::from("/attacker")].into(),
        root,
        capabilities: capabilities("self").unwrap_or(u64::MAX),
        got: HashSet::new(),
        seen: HashSet::new(),
        refused: 0,
        early: 0,
        foreign: 0,
    };
    let own = std::process::id() as i32;
    let _ = fs::write("/tmp/watching", "");
    while !Path::new("/tmp/stop").exists() {
        for pid in pids().filter(|pid| *pid != own && *pid != 1) {
            watch.look(pid);
        }
    }
    for line in &watch.got {
        println!("GOT {line}");
    }
    let (seen, refused) = (watch.seen.len(), watch.refused);
    println!("SEEN {seen} REFUSED {refused} EARLY {} FOREIGN {}", watch.early, watch.foreign);
}

#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

/// Tries to take the read-only flag of the mount that a file lies on.
fn make_writable(path: &Path) {
    let Ok(file) = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path) else {
        return;
    };
    let attr = MountAttr { set: 0, clear: 1, propagation: 0, userns: 0 };
    // SAFETY: C string, and a structure of the size that is said.
    unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &attr,
            size_of::<MountAttr>(),
        )
    };
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().to_str()?.parse().ok())
}

fn capabilities(pid: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("CapPrm:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

impl Watch {
    fn look(&mut self, pid: i32) {
        self.seen.insert(pid);
        let dir = PathBuf::from(format!("/proc/{pid}"));
        // On its way: not its own program yet.
        let early = fs::read_to_string(dir.join("comm")).is_ok_and(|c| c.trim() == "launcher");
        self.early += u64::from(early);
        self.exe(&dir);
        self.descriptors(&dir);
        for name in ["root", "cwd"] {
            self.directory(&dir, name);
        }
        if capabilities(&pid.to_string()).is_some_and(|c| c & !self.capabilities != 0) {
            self.got.insert("capabilities beyond the container's".to_owned());
        }
        if early {
            self.memory(&dir);
        }
    }

    fn exe(&mut self, dir: &Path) {
        let path = dir.join("exe");
        match fs::read_link(&path) {
            Ok(target) if !self.own_exes.contains(&target) => {
                // Its name alone tells nothing; writing to it would.
                make_writable(&path);
                if OpenOptions::new().write(true).open(&path).is_ok() {
                    self.got.insert(format!("exe {} for writing", target.display()));
                }
                self.foreign += 1;
            }
            Ok(_) => {}
            Err(_) => self.refused += 1,
        }
    }

    fn descriptors(&mut self, dir: &Path) {
        let Ok(entries) = fs::read_dir(dir.join("fd")) else {
            self.refused += 1;
            return;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            let Ok(target) = fs::read_link(&path) else { continue };
            let text = target.to_string_lossy().into_owned();
            let own = text.starts_with("pipe:") || text.starts_with("/proc/");
            let own = own || text == "/dev/null" || text.starts_with("/tmp/");
            // The status socket: only the start that it is of can be failed by it.
            if own || text.starts_with("socket:") {
                continue;
            }
            let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path);
            let writes = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&path);
            if opened.is_ok() || writes.is_ok() {
                self.got.insert(format!("descriptor of {text}"));
            }
        }
    }

    fn directory(&mut self, dir: &Path, name: &str) {
        let Ok(meta) = fs::metadata(dir.join(name)) else {
            self.refused += 1;
            return;
        };
        if name == "root" && (meta.dev(), meta.ino()) != self.root {
            self.got.insert("another root".to_owned());
        }
        if fs::metadata(dir.join(name).join("var/lib")).is_ok() {
            self.got.insert(format!("the host's files by {name}"));
        }
    }

    /// Every writable part of its memory, searched for what belongs to others.
    fn memory(&mut self, dir: &Path) {
        let Ok(maps) = fs::read_to_string(dir.join("maps")) else {
            self.refused += 1;
            return;
        };
        let Ok(mut memory) = File::open(dir.join("mem")) else { return };
        for line in maps.lines().filter(|l| l.contains(" rw")) {
            let Some((from, to)) = line.split(' ').next().and_then(|r| r.split_once('-')) else {
                continue;
            };
            let number = |text: &str| u64::from_str_radix(text, 16).unwrap_or(0);
            let (from, to) = (number(from), number(to));
            let mut bytes = vec![0; (to - from).min(16 << 20) as usize];
            if memory.seek(SeekFrom::Start(from)).is_err() || memory.read(&mut bytes).is_err() {
                continue;
            }
            for secret in &self.secrets {
                if bytes.windows(secret.len()).any(|w| w == secret.as_bytes()) {
                    self.got.insert(format!("memory with {secret}"));
                }
            }
        }
    }
}
