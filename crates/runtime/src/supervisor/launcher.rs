//! The launcher: the process that containers' processes are forked from.
//!
//! It is forked from the supervisor before that has read a plan or opened a stream, and it never learns
//! any: a plan is decoded by the forked process alone. So a process on its way into a container carries
//! neither the memory nor the descriptors of anything else, whatever the container can do to it. Its
//! forks are the supervisor's children (`CLONE_PARENT`); it has one socket, and ends with it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use prost::Message;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::child::{self, Inherited};
use super::sys;
use crate::packet;

/// How long a clone may take: it waits for nothing but the kernel's locks.
const LIMIT: Duration = Duration::from_secs(10);
/// Bytes of a job or of its answer.
const PACKET: usize = 64;

/// What to clone. Descriptors: the plan, the status socket, then those that are said, in this order.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Job {
    /// `CLONE_*`.
    #[prost(uint64, tag = "1")]
    pub(super) flags: u64,
    /// stdin, stdout, stderr.
    #[prost(bool, tag = "2")]
    pub(super) streams: bool,
    /// The process whose namespaces are joined.
    #[prost(bool, tag = "3")]
    pub(super) join: bool,
    /// The cgroup to be born in.
    #[prost(bool, tag = "4")]
    pub(super) cgroup: bool,
    /// No plan: the process only keeps its namespaces until the status socket closes.
    #[prost(bool, tag = "5")]
    pub(super) hold: bool,
    /// Always set: an empty packet means that the other side has gone.
    #[prost(bool, tag = "6")]
    pub(super) present: bool,
}

pub(super) struct Launcher {
    socket: OwnedFd,
    pub(super) pid: i32,
}

impl Launcher {
    pub(super) fn start() -> io::Result<Launcher> {
        let flags = SocketFlags::CLOEXEC;
        let (socket, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(LIMIT))?;
        // SAFETY: the process has one thread; the child has a copy of everything and never returns.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => serve(theirs.as_raw_fd()),
            pid => Ok(Launcher { socket, pid }),
        }
    }

    /// Clones a process, and tells its pid.
    pub(super) fn launch(&self, job: &Job, fds: &[&OwnedFd]) -> io::Result<i32> {
        let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
        packet::send(self.socket.as_fd(), &job.encode_to_vec(), &fds)?;
        let mut answer = [0u8; 4];
        match packet::receive(self.socket.as_fd(), &mut answer)? {
            (4, _) => {}
            _ => return Err(io::Error::other("the launcher is gone")),
        }
        match i32::from_ne_bytes(answer) {
            pid if pid > 0 => Ok(pid),
            errno => Err(io::Error::from_raw_os_error(-errno)),
        }
    }
}

/// Only the socket stays, and null devices for streams.
fn settle(socket: RawFd) {
    // SAFETY: C strings and plain numbers; nothing of the supervisor's is used after.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::prctl(libc::PR_SET_NAME, c"launcher".as_ptr());
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
        for target in 0..3 {
            libc::dup2(null, target);
        }
    }
    sys::close_others(&mut [socket]);
}

fn serve(socket: RawFd) -> ! {
    settle(socket);
    // SAFETY: the descriptor is open, and this process's own from here on.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    loop {
        let mut buffer = [0u8; PACKET];
        let answer = match packet::receive(socket.as_fd(), &mut buffer) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            // The supervisor has gone.
            Ok((0, _)) | Err(_) => std::process::exit(0),
            Ok((count, fds)) => clone(&buffer[..count], &fds).unwrap_or_else(|errno| -errno),
        };
        if packet::send(socket.as_fd(), &answer.to_ne_bytes(), &[]).is_err() {
            std::process::exit(0);
        }
    }
}

/// `CLONE_INTO_CGROUP`, which libc has only as an overflowing `c_int`.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

fn clone(job: &[u8], fds: &[OwnedFd]) -> Result<i32, i32> {
    let job = Job::decode(job).map_err(|_| libc::EINVAL)?;
    let mut fds = fds.iter().map(AsRawFd::as_raw_fd);
    let mut next = |wanted: bool| match wanted {
        true => fds.next().ok_or(libc::EINVAL),
        false => Ok(-1),
    };
    let (plan, status) = (next(!job.hold)?, next(true)?);
    let stdio = [next(job.streams)?, next(job.streams)?, next(job.streams)?];
    let inherited = Inherited { plan, status, stdio, join: next(job.join)? };
    let cgroup = next(job.cgroup)?;
    // SAFETY: a zeroed structure is valid. Without CLONE_VM the child has a copy of everything; it
    // only runs `child::run`, which never returns.
    unsafe {
        let mut args: libc::clone_args = std::mem::zeroed();
        args.flags = job.flags | libc::CLONE_PARENT as u64;
        if cgroup >= 0 {
            args.flags |= CLONE_INTO_CGROUP;
            args.cgroup = cgroup as u64;
        }
        let pid = libc::syscall(libc::SYS_clone3, &mut args, size_of::<libc::clone_args>());
        match pid {
            0 if job.hold => child::hold(status),
            0 => child::run(&inherited),
            pid if pid > 0 => Ok(pid as i32),
            _ => Err(sys::errno()),
        }
    }
}
