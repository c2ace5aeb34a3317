//! Tells what a container is made of: one fact a line, the same way for every runtime.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

/// Numbers of system calls that are tried: past the last one that this kernel knows.
const CALLS: i64 = 480;
/// Paths that a runtime hides or makes read-only.
const PROTECTED: [&str; 19] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/bus",
    "/proc/fs",
    "/proc/interrupts",
    "/proc/irq",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/sys",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/cgroup",
    "/sys",
];

pub(crate) fn run() {
    devices();
    mounts();
    PROTECTED.iter().for_each(|path| protected(path));
    process();
    descriptors();
    calls();
}

fn kind(meta: &fs::Metadata) -> &'static str {
    let kind = meta.file_type();
    match () {
        () if kind.is_char_device() => "char",
        () if kind.is_block_device() => "block",
        () if kind.is_dir() => "dir",
        () if kind.is_symlink() => "link",
        () => "file",
    }
}

fn devices() {
    for entry in fs::read_dir("/dev").into_iter().flatten().flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let Ok(meta) = path.symlink_metadata() else { continue };
        let name = name.to_string_lossy();
        if let Ok(target) = fs::read_link(&path) {
            println!("dev {name} -> {}", target.display());
            continue;
        }
        let number = (libc::major(meta.rdev()), libc::minor(meta.rdev()));
        let (mode, owner) = (meta.mode() & 0o7777, (meta.uid(), meta.gid()));
        println!("dev {name} {} {number:?} {mode:o} {owner:?}", kind(&meta));
    }
}

fn mounts() {
    for line in fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let left: Vec<&str> = left.split(' ').collect();
        println!("mount {} {} {}", left[4], right.split(' ').next().unwrap_or(""), left[5]);
    }
}

fn protected(path: &str) {
    let Ok(meta) = fs::symlink_metadata(path) else { return println!("path {path} absent") };
    let c = std::ffi::CString::new(path).unwrap_or_default();
    // SAFETY: a C string, and a structure that the kernel fills before it is read.
    let read_only = unsafe {
        let mut stat: libc::statvfs = std::mem::zeroed();
        libc::statvfs(c.as_ptr(), &mut stat) == 0 && stat.f_flag & libc::ST_RDONLY != 0
    };
    let hidden = match kind(&meta) {
        "dir" => fs::read_dir(path).is_ok_and(|mut d| d.next().is_none()),
        "char" => true,
        _ => false,
    };
    println!("path {path} {} hidden={hidden} read-only={read_only}", kind(&meta));
}

fn process() {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let keys = ["Uid:", "Gid:", "Groups:", "Cap", "NoNewPrivs:", "Seccomp", "Umask:"];
    for line in status.lines().filter(|l| keys.iter().any(|k| l.starts_with(k))) {
        println!("status {}", line.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    for file in ["limits", "oom_score_adj", "uid_map", "cgroup", "loginuid"] {
        for line in fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default().lines() {
            println!("{file} {}", line.split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }
    let mut env: Vec<String> = std::env::vars().map(|(k, v)| format!("env {k}={v}")).collect();
    env.sort();
    env.iter().for_each(|line| println!("{line}"));
    println!("cwd {}", std::env::current_dir().unwrap_or_default().display());
    // SAFETY: no arguments that point anywhere.
    unsafe {
        let session = (libc::getpid(), libc::getpgid(0), libc::getsid(0), libc::getppid());
        println!("process {session:?} dumpable {}", libc::prctl(libc::PR_GET_DUMPABLE));
    }
}

fn descriptors() {
    for entry in fs::read_dir("/proc/self/fd").into_iter().flatten().flatten() {
        let target = fs::read_link(entry.path()).unwrap_or_default();
        let shown = target.display().to_string();
        if !shown.starts_with("/proc/") {
            println!("fd {} {shown}", entry.file_name().display());
        }
    }
}

/// Every call with arguments that mean nothing, each in a process of its own: which are refused.
fn calls() {
    let mut refused = [Vec::new(), Vec::new()];
    for number in 0..CALLS {
        // SAFETY: this process has one thread; the child makes one call and ends, or is ended in time.
        let status = unsafe {
            let pid = libc::fork();
            if pid == 0 {
                libc::alarm(1);
                let bad = -1i64;
                let done = libc::syscall(number, bad, bad, bad, bad, bad, bad);
                libc::_exit(if done < 0 { *libc::__errno_location() } else { 0 });
            }
            let mut status = 0;
            libc::waitpid(pid, &mut status, 0);
            status
        };
        match libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)) {
            Some(libc::EPERM) => refused[0].push(number),
            Some(libc::ENOSYS) => refused[1].push(number),
            _ => {}
        }
    }
    println!("calls EPERM {:?}", refused[0]);
    println!("calls ENOSYS {:?}", refused[1]);
}
