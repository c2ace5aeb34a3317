//! A sandbox's namespaces: made by a thread that then ends, kept alive by bind mounts.
//!
//! `unshare` and `setns` change the calling thread for good, so none of this may run on a thread that
//! anyone uses again.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount,
};

use crate::cri::{NamespaceMode, NamespaceOption};
use crate::error::{Error, IoContext, Result};

/// Far more than any `/etc/hostname` and `/etc/resolv.conf` together.
const FILES_BYTES: u64 = 256 << 10;

/// What a sandbox's namespaces shall be.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) net: bool,
    pub(crate) ipc: bool,
    pub(crate) hostname: String,
    pub(crate) sysctls: Vec<(String, String)>,
    /// The namespace that a host-network sandbox joins, for its sysctls only.
    pub(crate) node_net: Option<PathBuf>,
    pub(crate) shm_bytes: u64,
    /// With a user namespace: it and those that it owns, instead of new ones.
    pub(crate) made: Option<Made>,
}

/// Namespaces that exist already: the user namespace, uts, and net and ipc where the sandbox has its own.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) fds: Vec<OwnedFd>,
    /// The host's numbers for the root of the user namespace.
    pub(crate) root: (u32, u32),
}

pub(crate) fn user(dir: &Path) -> PathBuf {
    dir.join("user")
}

pub(crate) fn net(dir: &Path) -> PathBuf {
    dir.join("net")
}

pub(crate) fn ipc(dir: &Path) -> PathBuf {
    dir.join("ipc")
}

pub(crate) fn uts(dir: &Path) -> PathBuf {
    dir.join("uts")
}

pub(crate) fn shm(dir: &Path) -> PathBuf {
    dir.join("shm")
}

/// Where the files lie that the sandbox gives to its containers.
pub(crate) fn files(dir: &Path) -> PathBuf {
    dir.join("files")
}

/// Makes the place of the sandbox's files, unless it is there. Containers may write to these files, so
/// they lie in a small file system of their own, which bounds them; what is written is charged to the
/// writer's memory.
pub(crate) fn make_files(dir: &Path) -> Result<PathBuf> {
    let place = files(dir);
    fs::create_dir_all(&place).at("make", &place)?;
    if is_mount(&place)? {
        return Ok(place);
    }
    let options = std::ffi::CString::new(format!("mode=0700,size={FILES_BYTES},nr_inodes=16"));
    let options = options.expect("no NUL");
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("files", &place, "tmpfs", flags, options.as_c_str()).at("mount", &place)?;
    Ok(place)
}

fn is_mount(path: &Path) -> Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let of = |path: &Path| fs::metadata(path).at("inspect", path).map(|meta| meta.dev());
    Ok(of(path)? != of(path.parent().unwrap_or(path))?)
}

/// The kernel's number for namespaces as files.
const NAMESPACES: i64 = 0x6e73_6673;

/// Whether a sandbox's namespaces are there. After a start of the machine only the files' names are.
pub(crate) fn are_alive(dir: &Path) -> bool {
    rustix::fs::statfs(uts(dir)).is_ok_and(|found| found.f_type == NAMESPACES)
}

/// Makes the state directory a mount of its own that shares nothing with others: pins must not
/// propagate into containers or other namespaces.
pub(crate) fn private_mount(dir: &Path) -> Result<()> {
    // Others' mounts may have names that are no text.
    let info = fs::read("/proc/self/mountinfo").at("read", "/proc/self/mountinfo")?;
    let info = String::from_utf8_lossy(&info);
    let dir = fs::canonicalize(dir).at("resolve", dir)?;
    let mounted = info.lines().any(|l| l.split(' ').nth(4).is_some_and(|p| Path::new(p) == dir));
    if !mounted {
        mount_bind(&dir, &dir).at("mount", &dir)?;
    }
    mount_change(&dir, MountPropagationFlags::PRIVATE).at("make private", &dir)
}

/// Undoes [`private_mount`], with whatever is still mounted below.
pub(crate) fn unmount_state(dir: &Path) -> Result<()> {
    unmount(dir, UnmountFlags::DETACH).at("unmount", dir)
}

/// Runs `work` on a thread of its own, which ends after.
pub(crate) async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let body = move || drop(sender.send(work()));
    std::thread::Builder::new()
        .name("namespaces".to_owned())
        .spawn(body)
        .doing("start a thread")?;
    receiver.await.map_err(|_| Error::Supervisor("namespace thread ended early".to_owned()))?
}

/// Makes and pins. Call on a throw-away thread.
pub(crate) fn make(dir: &Path, wanted: &Wanted) -> Result<()> {
    fs::create_dir_all(dir).at("make", dir)?;
    match &wanted.made {
        Some(made) => join_made(dir, made)?,
        None => unshare(wanted)?,
    }
    rustix::system::sethostname(wanted.hostname.as_bytes()).doing("set the host name")?;
    if wanted.net {
        loopback_up().doing("set loopback up")?;
        pin(&net(dir), "net")?;
    } else if let Some(path) = &wanted.node_net {
        enter(path)?;
    }
    if wanted.ipc {
        pin(&ipc(dir), "ipc")?;
        let place = shm(dir);
        fs::create_dir_all(&place).at("make", &place)?;
        let (uid, gid) = wanted.made.as_ref().map_or((0, 0), |made| made.root);
        let options = format!("mode=1777,size={},uid={uid},gid={gid}", wanted.shm_bytes);
        let options = std::ffi::CString::new(options).expect("no NUL");
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("shm", &place, "tmpfs", flags, options.as_c_str())
            .at("mount shared memory at", &place)?;
    }
    pin(&uts(dir), "uts")?;
    for (name, value) in &wanted.sysctls {
        sysctl(name, value)?;
    }
    Ok(())
}

fn unshare(wanted: &Wanted) -> Result<()> {
    let mut kinds = libc::CLONE_NEWUTS;
    kinds |= if wanted.net { libc::CLONE_NEWNET } else { 0 };
    kinds |= if wanted.ipc { libc::CLONE_NEWIPC } else { 0 };
    // SAFETY: changes this thread only, which ends after.
    match unsafe { libc::unshare(kinds) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()).doing("make namespaces"),
    }
}

/// Pins the user namespace, and moves this thread into the others, which are pinned from there.
fn join_made(dir: &Path, made: &Made) -> Result<()> {
    let Some((first, others)) = made.fds.split_first() else {
        return Err(Error::Supervisor("no user namespace came".to_owned()));
    };
    let path = user(dir);
    File::create(&path).at("make", &path)?;
    mount_bind(format!("/proc/self/fd/{}", first.as_raw_fd()), &path)
        .at("pin a namespace at", &path)?;
    for fd in others {
        // SAFETY: changes this thread only, which ends after; each is of a kind that a thread may join.
        if unsafe { libc::setns(fd.as_raw_fd(), 0) } != 0 {
            return Err(io::Error::last_os_error()).doing("join a namespace");
        }
    }
    Ok(())
}

fn pin(path: &Path, kind: &str) -> Result<()> {
    File::create(path).at("make", path)?;
    mount_bind(format!("/proc/thread-self/ns/{kind}"), path).at("pin a namespace at", path)
}

/// Moves this thread into a pinned network namespace.
pub(crate) fn enter(path: &Path) -> Result<()> {
    let fd: OwnedFd = File::open(path).at("open namespace", path)?.into();
    // SAFETY: changes this thread only, which ends after.
    match unsafe { libc::setns(fd.as_raw_fd(), libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()).at("enter namespace", path),
    }
}

/// The path of a sysctl, by a name in dots or slashes. A slash in a name with dots is a dot in a
/// component, as in `net.ipv4.conf.eth0/1.forwarding`; when the first sign is a slash it is the reverse.
fn sysctl_path(name: &str) -> String {
    let slashes = name.find(['.', '/']).is_some_and(|at| name.as_bytes()[at] == b'/');
    let other = |c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    if slashes { name.to_owned() } else { name.chars().map(other).collect() }
}

/// Refuses what is not the sandbox's own: it would be set for the host.
pub(crate) fn check_sysctl(name: &str, options: &NamespaceOption) -> Result<()> {
    let path = sysctl_path(name);
    let refuse = |why: &str| Err(Error::Invalid(format!("sysctl {name:?} {why}")));
    if path.split('/').any(|part| ["", ".", ".."].contains(&part)) {
        return refuse("is no name");
    }
    let ipc = ["kernel/shm", "kernel/msg", "fs/mqueue/"].iter().any(|p| path.starts_with(p));
    if ipc || path == "kernel/sem" {
        let node = options.ipc == NamespaceMode::Node as i32;
        return if node { refuse("is not allowed with the host's ipc namespace") } else { Ok(()) };
    }
    if path.starts_with("net/") {
        let node = options.network == NamespaceMode::Node as i32;
        return if node { refuse("is not allowed with the host's network") } else { Ok(()) };
    }
    refuse("is not namespaced")
}

fn sysctl(name: &str, value: &str) -> Result<()> {
    let path = Path::new("/proc/sys").join(sysctl_path(name));
    fs::write(&path, value).at("write", &path)
}

fn loopback_up() -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: a zeroed request is valid; the kernel reads the name and the flags.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        match libc::ioctl(socket.as_fd().as_raw_fd(), libc::SIOCSIFFLAGS, &request) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Lets go of everything pinned in `dir`, and removes it; what is not there is no error.
pub(crate) fn release(dir: &Path) -> Result<()> {
    for path in [net(dir), ipc(dir), uts(dir), shm(dir), user(dir), files(dir)] {
        match unmount(&path, UnmountFlags::DETACH) {
            Ok(()) | Err(rustix::io::Errno::NOENT | rustix::io::Errno::INVAL) => {}
            Err(e) => return Err(e).at("unmount", &path),
        }
    }
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).at("remove", dir),
        _ => Ok(()),
    }
}
