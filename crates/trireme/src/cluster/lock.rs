//! Whose cluster a folder is: a lock that its process holds for as long as it lives.
//!
//! The kernel gives the lock back when the process ends, however it ends; so it tells the truth where
//! a recorded process id does not: ids are used again, and programs are renamed.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

const FILE: &str = "trireme.lock";
/// The id is written right after the lock is taken: a holder without one has just begun.
const TEXT_MAX: u64 = 32;
/// A killed process gives its files back within milliseconds, unless the machine stands still.
const ENDING_MAX: Duration = Duration::from_secs(5);

/// The lock of a cluster's folder. Dropping it, or the end of the process, gives it back.
#[derive(Debug)]
pub(crate) struct ClusterLock(#[expect(dead_code, reason = "holds the lock")] File);

/// The process that holds a lock: the same one even if its id is used again.
#[derive(Debug)]
pub(crate) struct Holder {
    pub(crate) pid: u32,
    process: OwnedFd,
}

fn open(folder: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(folder.join(FILE))
}

fn try_lock(file: &File) -> Result<bool> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error).context("lock the cluster's folder"),
    }
}

impl ClusterLock {
    /// Takes the lock; `None` when another process has it.
    pub(crate) fn take(folder: &Path) -> Result<Option<ClusterLock>> {
        let at = || format!("open {}", folder.join(FILE).display());
        let mut file = open(folder).with_context(at)?;
        if !try_lock(&file)? {
            return Ok(None);
        }
        file.set_len(0).and_then(|()| file.write_all(std::process::id().to_string().as_bytes()))?;
        Ok(Some(ClusterLock(file)))
    }
}

impl Holder {
    /// The process that holds the lock; `None` when nobody does.
    pub(crate) fn find(folder: &Path) -> Result<Option<Holder>> {
        if !folder.join(FILE).exists() {
            return Ok(None);
        }
        let mut file = open(folder).context("open the cluster's lock")?;
        if try_lock(&file)? {
            return Ok(None);
        }
        let mut text = String::new();
        file.rewind()?;
        (&file).take(TEXT_MAX).read_to_string(&mut text)?;
        let Some(pid) = text.trim().parse().ok().and_then(Pid::from_raw) else {
            bail!("the cluster is being started or ended by another process; try again");
        };
        let process = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(process) => process,
            Err(Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error).context("open the cluster's process"),
        };
        // Still held: then it was the holder when its descriptor was opened, and not a later process
        // that was given the id of one that had ended.
        if try_lock(&file)? {
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
    use super::*;

    #[test]
    fn one_at_a_time() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(Holder::find(folder.path()).expect("readable").is_none());
        let lock = ClusterLock::take(folder.path()).expect("a lock").expect("free");
        assert!(ClusterLock::take(folder.path()).expect("a lock").is_none());
        let holder = Holder::find(folder.path()).expect("readable").expect("held");
        assert_eq!(holder.pid, std::process::id());
        drop(lock);
        assert!(Holder::find(folder.path()).expect("readable").is_none());
        assert!(ClusterLock::take(folder.path()).expect("a lock").is_some());
    }

    #[test]
    fn a_recorded_id_alone_is_nobody() {
        let folder = tempfile::tempdir().expect("a folder");
        // Process 1 lives, and has nothing to do with it.
        std::fs::write(folder.path().join(FILE), "1").expect("written");
        assert!(Holder::find(folder.path()).expect("readable").is_none());
    }

    #[test]
    fn the_holder_is_ended_and_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let script =
            "exec 9<>\"$1/trireme.lock\"; flock -x 9; echo $$ >&9; echo held; exec sleep 600";
        let mut child = std::process::Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(folder.path())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut line = String::new();
        let out = child.stdout.take().expect("piped");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).expect("a line");
        let holder = Holder::find(folder.path()).expect("readable").expect("held");
        assert_eq!(holder.pid, child.id());
        holder.end(Duration::from_secs(10)).expect("it ends");
        child.wait().expect("reaped");
    }
}
