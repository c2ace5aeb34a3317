//! Whose cluster a folder is: a lock that its process holds for as long as it lives.
//!
//! The kernel gives the lock back when the process ends, however it ends, and tells who holds it
//! (`F_GETLK`, fcntl(2)); so it tells the truth where a recorded process id does not: ids are used again,
//! and programs are renamed. To ask takes nothing: who asks is in nobody's way.
//!
//! These locks belong to a process: to close any descriptor of the file gives its own lock back. Nobody
//! but this module opens it.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;
use rustix::process::{
    Flock, FlockType, Pid, PidfdFlags, Signal, fcntl_getlk, pidfd_open, pidfd_send_signal,
};

const FILE: &str = "trireme.lock";
/// A killed process gives its files back within milliseconds, unless the machine stands still.
const ENDING_MAX: Duration = Duration::from_secs(5);

/// The lock of a cluster's folder. Dropping it, or the end of the process, gives it back.
#[derive(Debug)]
pub(crate) struct ClusterLock(#[expect(dead_code, reason = "holds the lock")] File);

fn open(folder: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(folder.join(FILE))
}

/// The id of the process that holds the lock of a file.
fn held_by(file: &File) -> Result<Option<Pid>> {
    let asked = Flock::from(FlockType::WriteLock);
    match fcntl_getlk(file, &asked).context("ask for the cluster's lock")? {
        None => Ok(None),
        Some(Flock { pid: Some(pid), .. }) => Ok(Some(pid)),
        Some(_) => bail!("the cluster's process is in another process namespace"),
    }
}

/// The process that holds a lock: the same one even if its id is used again.
#[derive(Debug)]
pub(crate) struct Holder {
    pub(crate) pid: u32,
    process: OwnedFd,
}

impl ClusterLock {
    /// Takes the lock; `None` when another process has it.
    pub(crate) fn take(folder: &Path) -> Result<Option<ClusterLock>> {
        let at = || format!("open {}", folder.join(FILE).display());
        let file = open(folder).with_context(at)?;
        match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(ClusterLock(file))),
            Err(Errno::AGAIN | Errno::ACCESS) => Ok(None),
            Err(error) => Err(error).context("lock the cluster's folder"),
        }
    }
}

impl Holder {
    /// The process that holds the lock; `None` when nobody does.
    pub(crate) fn find(folder: &Path) -> Result<Option<Holder>> {
        if !folder.join(FILE).exists() {
            return Ok(None);
        }
        let file = open(folder).context("open the cluster's lock")?;
        let Some(pid) = held_by(&file)? else {
            return Ok(None);
        };
        let process = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(process) => process,
            Err(Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error).context("open the cluster's process"),
        };
        // Still held by the same id: then that was the holder when its descriptor was opened, and not a
        // later process that was given the id of one that had ended.
        if held_by(&file)? != Some(pid) {
            return Ok(None);
        }
        let holder = Holder { pid: pid.as_raw_nonzero().get().unsigned_abs(), process };
        match holder.is_ending() && holder.ends_within(ENDING_MAX)? {
            true => Ok(None),
            false => Ok(Some(holder)),
        }
    }

    /// Killed already: it has no memory any more, but some of its files are still open.
    fn is_ending(&self) -> bool {
        std::fs::read_link(format!("/proc/{}/exe", self.pid)).is_err()
    }

    fn ends_within(&self, time: Duration) -> Result<bool> {
        let mut ended = [PollFd::from_borrowed_fd(self.process.as_fd(), PollFlags::IN)];
        let time = Timespec {
            tv_sec: time.as_secs().cast_signed(),
            tv_nsec: i64::from(time.subsec_nanos()),
        };
        Ok(poll(&mut ended, Some(&time)).context("wait for the cluster's process")? > 0)
    }

    /// Asks the process to end, and waits until it has.
    pub(crate) fn end(&self, within: Duration) -> Result<()> {
        match pidfd_send_signal(&self.process, Signal::TERM) {
            Ok(()) => {}
            Err(Errno::SRCH) => return Ok(()),
            Err(error) => return Err(error).context("stop the cluster's process"),
        }
        if !self.ends_within(within)? {
            bail!("process {} has not ended after {} s", self.pid, within.as_secs());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// Another process that holds the lock: it never conflicts with one of this process.
    fn other(folder: &Path) -> Child {
        let script = "import fcntl, sys, time; file = open(sys.argv[1], 'w'); \
                      fcntl.lockf(file, fcntl.LOCK_EX); print('held', flush=True); time.sleep(600)";
        let mut child = Command::new("python3")
            .args(["-c", script])
            .arg(folder.join(FILE))
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 runs");
        let mut line = String::new();
        let out = child.stdout.take().expect("piped");
        BufReader::new(out).read_line(&mut line).expect("a line");
        assert_eq!(line, "held\n");
        child
    }

    #[test]
    fn the_holder_is_told_ended_and_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(Holder::find(folder.path()).expect("readable").is_none());
        let mut child = other(folder.path());
        assert!(ClusterLock::take(folder.path()).expect("readable").is_none(), "held");
        let holder = Holder::find(folder.path()).expect("readable").expect("held");
        assert_eq!(holder.pid, child.id());
        holder.end(Duration::from_secs(10)).expect("it ends");
        // Nobody has reaped it yet.
        assert!(Holder::find(folder.path()).expect("readable").is_none());
        assert!(ClusterLock::take(folder.path()).expect("readable").is_some());
        child.wait().expect("reaped");
    }

    #[test]
    fn to_ask_takes_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut child = other(folder.path());
        for _ in 0..1000 {
            assert!(Holder::find(folder.path()).expect("readable").is_some());
        }
        child.kill().expect("ours");
        child.wait().expect("reaped");
        let lock = ClusterLock::take(folder.path()).expect("readable").expect("free");
        drop(lock);
        assert!(ClusterLock::take(folder.path()).expect("readable").is_some());
    }

    #[test]
    fn a_recorded_id_alone_is_nobody() {
        let folder = tempfile::tempdir().expect("a folder");
        // Process 1 lives, and has nothing to do with it.
        std::fs::write(folder.path().join(FILE), "1").expect("written");
        assert!(Holder::find(folder.path()).expect("readable").is_none());
    }
}
