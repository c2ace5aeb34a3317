//! Network namespaces: pinned by bind mounts, entered only on threads that then end.
//!
//! Why so: a thread that has entered a namespace stays there, so async workers must never do it;
//! a socket on the other hand belongs for ever to the namespace it was made in. So everything here
//! runs a closure on a short-lived thread and hands its result (mostly a socket) back.
//!
//! The pins live in a directory that is a private mount of its own: `/run/netns` is shared between
//! mount namespaces, and a pin that propagates cannot be removed any more.
//!
//! It does not configure what is inside a namespace, except `lo` on request.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// What can go wrong with a namespace; the path says which one.
#[derive(Debug, thiserror::Error)]
pub enum NetNsError {
    #[error("prepare the directory {path} for network namespaces: {source}")]
    PrepareDir { path: PathBuf, source: io::Error },
    #[error("create the network namespace {path}: {source}")]
    Create { path: PathBuf, source: io::Error },
    #[error("open the network namespace {path}: {source}")]
    Open { path: PathBuf, source: io::Error },
    #[error("enter the network namespace {path}: {source}")]
    Enter { path: PathBuf, source: io::Error },
    #[error("remove the network namespace {path}: {source}")]
    Remove { path: PathBuf, source: io::Error },
}

/// A directory that holds pins, mounted privately onto itself.
#[derive(Debug, Clone)]
pub struct PinDir {
    path: PathBuf,
}

/// An open network namespace. Cheap to clone; holding one keeps the namespace alive.
#[derive(Debug, Clone)]
pub struct NetNs {
    file: Arc<File>,
    path: PathBuf,
}

impl PinDir {
    /// Makes `path` if it is missing and turns it into a private mount. Doing so twice is harmless.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, NetNsError> {
        let path = path.into();
        let fail = |source: io::Error| NetNsError::PrepareDir { path: path.clone(), source };
        std::fs::create_dir_all(&path).map_err(fail)?;
        let path = path.canonicalize().map_err(fail)?;
        if !is_mount_point(&path).map_err(fail)? {
            mount_bind(&path, &path).map_err(|e| fail(e.into()))?;
        }
        mount_change(&path, MountPropagationFlags::PRIVATE).map_err(|e| fail(e.into()))?;
        Ok(PinDir { path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A new, empty namespace pinned as `name`. An existing pin of that name is an error.
    pub fn create(&self, name: &str) -> Result<NetNs, NetNsError> {
        let path = self.path.join(name);
        pin_new(&path).map_err(|source| NetNsError::Create { path: path.clone(), source })?;
        NetNs::open(&path)
    }

    /// The namespace pinned as `name`, made if there is none. A left-over file is replaced.
    pub fn open_or_create(&self, name: &str) -> Result<NetNs, NetNsError> {
        let path = self.path.join(name);
        match NetNs::open(&path) {
            Ok(ns) => Ok(ns),
            Err(_) => {
                self.remove(name)?;
                self.create(name)
            }
        }
    }

    /// Removes the pin `name`; what still uses the namespace keeps it alive. Idempotent.
    pub fn remove(&self, name: &str) -> Result<(), NetNsError> {
        remove_pin(&self.path.join(name))
    }

    /// Names of all pins.
    pub fn names(&self) -> Result<Vec<String>, NetNsError> {
        let fail = |source| NetNsError::Open { path: self.path.clone(), source };
        let entries = std::fs::read_dir(&self.path).map_err(fail)?;
        let name = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        entries.map(|entry| entry.map(name).map_err(fail)).collect()
    }

    /// Unmounts the directory itself (the pins in it go with it) and removes it when empty.
    pub fn close(self) -> Result<(), NetNsError> {
        let fail = |source| NetNsError::Remove { path: self.path.clone(), source };
        match unmount(&self.path, UnmountFlags::DETACH) {
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(e) => return Err(fail(e.into())),
        }
        for entry in std::fs::read_dir(&self.path).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            std::fs::remove_file(entry.path()).map_err(fail)?;
        }
        std::fs::remove_dir(&self.path).map_err(fail)
    }
}

impl NetNs {
    /// Opens a namespace by path: a pin, or `/proc/<pid>/ns/net`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, NetNsError> {
        let path = path.as_ref().to_path_buf();
        let fail = |source| NetNsError::Open { path: path.clone(), source };
        let file = File::open(&path).map_err(fail)?;
        // A pin whose mount is gone is an ordinary empty file; setns on it would fail much later.
        let kind = rustix::fs::fstatfs(&file).map_err(|e| fail(e.into()))?.f_type;
        if kind != NSFS_MAGIC {
            return Err(fail(io::Error::new(io::ErrorKind::InvalidInput, "not a namespace")));
        }
        Ok(NetNs { file: Arc::new(file), path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Runs `work` inside the namespace on a thread made for it, and waits for the result
    /// (about 50 µs besides the work itself).
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetNsError> {
        let fail = |source| NetNsError::Enter { path: self.path.clone(), source };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new()
                .name("netns".into())
                .stack_size(THREAD_STACK_BYTES)
                .spawn_scoped(scope, || -> io::Result<T> {
                    move_into_link_name_space(self.as_fd(), Some(LinkNameSpaceType::Network))?;
                    Ok(work())
                })
                .map_err(fail)?;
            match thread.join() {
                Ok(result) => result.map_err(fail),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Brings the loopback link up: a fresh namespace has it down.
    pub fn loopback_up(&self) -> Result<(), crate::netlink::NetlinkError> {
        let mut route = crate::netlink::route::Route::open(Some(self))?;
        route.set_up(LOOPBACK_INDEX)
    }
}

/// Runs `work` in `ns`, or right here when there is none (the node uses the host's own network).
pub fn run_in<T: Send>(
    ns: Option<&NetNs>,
    work: impl FnOnce() -> T + Send,
) -> Result<T, NetNsError> {
    match ns {
        Some(ns) => ns.run(work),
        None => Ok(work()),
    }
}

/// A TCP listener inside `ns`, ready for tokio. Call from inside a tokio runtime.
pub fn tcp_listen(ns: Option<&NetNs>, at: SocketAddr) -> io::Result<tokio::net::TcpListener> {
    let socket = tcp_socket(ns, at)?;
    socket.set_reuseaddr(true)?;
    socket.bind(at)?;
    socket.listen(LISTEN_BACKLOG)
}

/// A bound UDP socket inside `ns`, ready for tokio. Call from inside a tokio runtime.
pub fn udp_bind(ns: Option<&NetNs>, at: SocketAddr) -> io::Result<tokio::net::UdpSocket> {
    let socket = run_in(ns, || std::net::UdpSocket::bind(at)).map_err(io::Error::other)??;
    socket.set_nonblocking(true)?;
    tokio::net::UdpSocket::from_std(socket)
}

/// A TCP connection opened from inside `ns`.
pub async fn tcp_connect(ns: Option<&NetNs>, to: SocketAddr) -> io::Result<tokio::net::TcpStream> {
    tcp_socket(ns, to)?.connect(to).await
}

/// An unconnected TCP socket of the namespace, of the address family of `like`.
pub fn tcp_socket(ns: Option<&NetNs>, like: SocketAddr) -> io::Result<tokio::net::TcpSocket> {
    run_in(ns, || match like {
        SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4(),
        SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6(),
    })
    .map_err(io::Error::other)?
}

/// Kernel's queue of connections not yet accepted; the usual `somaxconn` caps it anyway.
const LISTEN_BACKLOG: u32 = 1024;

/// Bytes of stack for a helper thread: it makes a few system calls and small buffers.
const THREAD_STACK_BYTES: usize = 256 * 1024;

/// `NSFS_MAGIC` of linux/magic.h: the file system of namespace files.
const NSFS_MAGIC: rustix::fs::FsWord = 0x6e73_6673;

/// The kernel gives `lo` index 1 in every namespace.
const LOOPBACK_INDEX: u32 = 1;

fn pin_new(path: &Path) -> io::Result<()> {
    File::options().write(true).create_new(true).open(path)?;
    let pinned = std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("netns-new".into())
            .stack_size(THREAD_STACK_BYTES)
            .spawn_scoped(scope, || -> io::Result<()> {
                // SAFETY: the thread is ours, holds no borrowed descriptors of the old namespace
                // and ends right after, so nobody observes the change.
                unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET)? };
                mount_bind("/proc/thread-self/ns/net", path)?;
                Ok(())
            })?
            .join()
            .map_err(|_| io::Error::other("the thread that makes the namespace panicked"))?
    });
    if pinned.is_err() {
        std::fs::remove_file(path)?;
    }
    pinned
}

fn remove_pin(path: &Path) -> Result<(), NetNsError> {
    let fail = |source| NetNsError::Remove { path: path.to_path_buf(), source };
    match unmount(path, UnmountFlags::DETACH) {
        // Not a mount point: a pin left behind by a crash between its two steps.
        Ok(()) | Err(rustix::io::Errno::INVAL) => {}
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(e) => return Err(fail(e.into())),
    }
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(fail(e)),
        _ => Ok(()),
    }
}

fn is_mount_point(path: &Path) -> io::Result<bool> {
    // Others' mounts may have names that are no text.
    let table = std::fs::read("/proc/self/mountinfo")?;
    let table = String::from_utf8_lossy(&table);
    let wanted = path.as_os_str().to_string_lossy();
    // The kernel writes blanks as \040; our own state directories hold no other such character.
    let wanted = wanted.replace(' ', "\\040");
    Ok(table.lines().any(|line| line.split(' ').nth(4) == Some(wanted.as_str())))
}
