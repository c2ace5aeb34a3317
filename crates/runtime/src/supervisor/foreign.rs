//! Processes that an OCI runtime starts: its program runs like any other, with the container's streams, and
//! ends; the process that it leaves falls to the supervisor, the parent of orphans, and takes its place.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::exit::exit_code;
use super::prepare::Problem;
use super::start::{Starting, pidfd_open};
use super::{Supervisor, TOKEN_ADOPTED};
use crate::packet;
use crate::wire::{CONSOLE, Plan};

/// Bytes of a pid file.
const PID_FILE: usize = 32;

/// The socket that the runtime sends the terminal to.
pub(super) fn console(plan: &Plan) -> Result<Option<OwnedFd>, Problem> {
    if !plan.foreign.as_ref().is_some_and(|foreign| foreign.terminal) {
        return Ok(None);
    }
    listen(&plan.cwd).map(Some).map_err(|e| ("console socket".to_owned(), e))
}

/// By a descriptor, because the directory's name may be longer than a socket's may.
fn listen(dir: &str) -> io::Result<OwnedFd> {
    let path = std::path::Path::new(dir).join(CONSOLE);
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let dir = fs::File::open(dir)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let name = format!("/proc/self/fd/{}/{CONSOLE}", dir.as_raw_fd());
    rustix::net::bind(&socket, &rustix::net::SocketAddrUnix::new(name)?)?;
    rustix::net::listen(&socket, 1)?;
    Ok(socket)
}

/// The terminal that was sent.
fn terminal(console: &OwnedFd) -> io::Result<OwnedFd> {
    let sender = rustix::net::accept_with(console, SocketFlags::CLOEXEC)?;
    // It was sent before its sender ended: nothing is waited for.
    rustix::io::ioctl_fionbio(&sender, true)?;
    let mut name = [0u8; 4096];
    let (_, fds) = packet::receive(sender.as_fd(), &mut name)?;
    fds.into_iter().next().ok_or_else(|| io::Error::other("no terminal came"))
}

impl Supervisor {
    /// The runtime's program has ended with this wait status.
    pub(super) fn created(&mut self, mut starting: Starting, status: i32) {
        let (client, serial) = (starting.client, starting.serial);
        match self.succeed(&mut starting, status) {
            Ok(()) => self.started(starting),
            Err(problem) => {
                let _ = fs::remove_dir_all(self.run_dir(&starting.plan.id));
                self.reply(client, serial, super::serve::failure(&problem), &[]);
            }
        }
    }

    /// Puts the process that was left in the place of the one that has ended.
    fn succeed(&mut self, starting: &mut Starting, status: i32) -> Result<(), Problem> {
        if exit_code(status) != 0 {
            let text = format!("the OCI runtime has ended with {}", exit_code(status));
            return Err((text, io::Error::from_raw_os_error(libc::EIO)));
        }
        let file = starting.plan.foreign.as_ref().map_or("", |f| f.pid_file.as_str());
        let pid = read_pid(file).map_err(|e| (format!("read {file}"), e))?;
        if let Some(console) = starting.console.take() {
            let master = terminal(&console).map_err(|e| ("terminal".to_owned(), e))?;
            starting.master = Some(master);
        }
        starting.pid = pid;
        starting.ended = self.unnamed.remove(&pid);
        if starting.ended.is_some() {
            return Ok(());
        }
        if parent(pid) == Some(std::process::id()) {
            self.pids.insert(pid, starting.plan.id.clone());
            return Ok(());
        }
        // Somebody else's child: its end is told as that of an adopted one is.
        let pidfd = pidfd_open(pid).map_err(|e| (format!("process {pid}"), e))?;
        let number = self.number();
        self.listen(&pidfd, TOKEN_ADOPTED | number).map_err(|e| ("epoll".to_owned(), e))?;
        self.adopted.insert(number, starting.plan.id.clone());
        starting.pidfd = Some(pidfd);
        Ok(())
    }

    /// Ends an OCI runtime that does not come to its end.
    pub(super) fn end_creation(&self, id: &str) -> bool {
        let Some(creating) = self.creating.values().find(|s| s.plan.id == id) else { return false };
        // SAFETY: plain numbers; a child that is not reaped keeps its number.
        unsafe { libc::kill(creating.pid, libc::SIGKILL) };
        true
    }
}

fn read_pid(file: &str) -> io::Result<i32> {
    use io::Read as _;
    let mut text = String::new();
    fs::File::open(file)?.take(PID_FILE as u64).read_to_string(&mut text)?;
    let pid = text.trim().parse::<i32>().ok().filter(|pid| *pid > 1);
    pid.ok_or_else(|| io::Error::other(format!("{text:?} is no process")))
}

/// The fourth field, counted after the name, which may hold anything.
fn parent(pid: i32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}
