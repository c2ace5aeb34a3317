//! Ends: reaping, what is left of a container's processes, exit statuses on disk.

use std::fs;
use std::io;
use std::path::Path;

use prost::Message;

use super::{Entry, Supervisor, now_ns};
use crate::cgroup::collect_pids;
use crate::wire::{Run, Tell};

/// The name of the status file in a run's directory.
pub(super) const STATUS_FILE: &str = "status";

impl Supervisor {
    /// Children have changed state: collects all of them.
    pub(super) fn reap(&mut self) {
        // One reading serves any number of children; what it says is not needed.
        let mut info = [0u8; 128];
        while rustix::io::read(&self.signals, &mut info).is_ok_and(|n| n > 0) {}
        self.hear_all();
        loop {
            let mut status = 0;
            // SAFETY: `status` is a local that the kernel writes.
            let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
            if pid <= 0 {
                return;
            }
            if pid == self.launcher.pid {
                // The next supervisor adopts everything, with a launcher of its own.
                eprintln!("the launcher has ended with status {status}");
                std::process::exit(1);
            }
            let Some(id) = self.pids.remove(&pid) else {
                self.unknown_end(pid, status);
                continue;
            };
            if let Some(creating) = self.creating.remove(&pid) {
                self.created(creating, status);
                continue;
            }
            match self.starting.values_mut().find(|s| s.pid() == pid) {
                Some(starting) => starting.ended = Some(status),
                None => self.finish(&id, status),
            }
        }
    }

    /// A child that is in no list: one that has handed over, an orphan that fell to us, or a
    /// successor that ended before its predecessor could name it.
    fn unknown_end(&mut self, pid: i32, status: i32) {
        if self.relieved.remove(&pid) {
            return;
        }
        if self.starting.is_empty() && self.creating.is_empty() {
            self.unnamed.clear();
        } else {
            self.unnamed.insert(pid, status);
        }
    }

    /// A process that was running has ended with this wait status.
    pub(super) fn finish(&mut self, id: &str, status: i32) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        let run = &mut entry.run;
        run.ended = true;
        run.finished_at = now_ns();
        run.exit_code = exit_code(status);
        if run.exec {
            let tell = Tell::Exited(run.clone());
            self.entries.remove(id);
            return self.broadcast(&tell);
        }
        kill_group(run);
        run.oom_killed = run.exit_code != 0 && oom_kills(run) > 0;
        let run = run.clone();
        self.drain(id);
        if let Some(entry) = self.entries.get_mut(id) {
            (entry.log, entry.stdin, entry.master, entry.pidfd) = (None, None, None, None);
        }
        self.persist(&run);
        self.broadcast(&Tell::Exited(run));
    }

    /// Reads what the container has left in its pipes; lets its stdin's sources go.
    fn drain(&mut self, id: &str) {
        let numbers: Vec<u32> =
            self.flows.iter().filter(|(_, f)| f.owner == id).map(|(n, _)| *n).collect();
        for number in numbers {
            let Some(flow) = self.flows.get_mut(&number) else { continue };
            if matches!(flow.role, super::flow::Role::Stdin { .. }) {
                self.flows.remove(&number);
                continue;
            }
            let log = self.entries.get_mut(id).and_then(|e| e.log.as_mut());
            let after = flow.drain(&mut self.buffer, log);
            self.settle_flow(number, after);
        }
    }

    /// Ends this process when its state is deleted and no agent is connected. What runs ends too: no
    /// later agent could know it.
    pub(super) fn end_without_state(&self) {
        if !self.lock.is_deleted() || !self.clients.is_empty() {
            return;
        }
        eprintln!("the state directory {} is deleted", self.state_dir.display());
        for entry in self.entries.values().filter(|entry| !entry.run.ended) {
            kill_entry(entry);
        }
        for starting in self.starting.values().chain(self.creating.values()) {
            // SAFETY: plain numbers; a child that is not reaped keeps its number.
            unsafe { libc::kill(starting.pid(), libc::SIGKILL) };
        }
        std::process::exit(0);
    }

    /// Writes a run's state so that it is either the old or the new one, whatever happens.
    pub(super) fn persist(&self, run: &Run) {
        let dir = self.run_dir(&run.id);
        let made = match fs::create_dir(&dir) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        };
        let written = made.and_then(|()| {
            let part = dir.join("status.part");
            fs::write(&part, run.encode_to_vec())?;
            fs::rename(part, dir.join(STATUS_FILE))
        });
        if let Err(e) = written {
            eprintln!("{}: {e}", dir.display());
        }
    }

    pub(super) fn forget(&mut self, id: &str) -> Result<Tell, (String, io::Error)> {
        if self.entries.get(id).is_some_and(|e| !e.run.ended) {
            return Err((format!("{id} still runs"), io::Error::from_raw_os_error(libc::EBUSY)));
        }
        self.entries.remove(id);
        match fs::remove_dir_all(self.run_dir(id)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(("forget".to_owned(), e)),
            _ => Ok(Tell::Done(true)),
        }
    }
}

pub(super) fn exit_code(status: i32) -> i32 {
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) }
}

/// A child that is not reaped keeps its number; one that was adopted is named by its pidfd.
fn kill_entry(entry: &Entry) {
    let signal = rustix::process::Signal::KILL;
    let killed = match (&entry.pidfd, rustix::process::Pid::from_raw(entry.run.pid)) {
        (Some(pidfd), _) => rustix::process::pidfd_send_signal(pidfd, signal),
        (None, Some(pid)) => rustix::process::kill_process(pid, signal),
        (None, None) => Ok(()),
    };
    if let Err(e) = killed {
        eprintln!("{} not killed: {e}", entry.run.id);
    }
    if !entry.run.exec {
        kill_group(&entry.run);
    }
}

/// Ends what is left of a container: nothing where the pid namespace was its own.
pub(super) fn kill_group(run: &Run) {
    if !run.cgroup_dir.is_empty() {
        // Absent before 5.14; the v1 list below or the pid namespace's end then do.
        let _ = fs::write(Path::new(&run.cgroup_dir).join("cgroup.kill"), "1");
    }
    let Some(dir) = run.cgroup_v1_dirs.first().filter(|_| run.cgroup_dir.is_empty()) else {
        return;
    };
    let mut pids = Vec::new();
    collect_pids(Path::new(dir), &mut pids);
    for pid in pids.into_iter().filter(|pid| *pid > 1) {
        // SAFETY: plain numbers; the list was read just now from the container's own group.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
}

/// How often the kernel has killed for memory in the container's group.
fn oom_kills(run: &Run) -> u64 {
    let v1 = run.cgroup_v1_dirs.iter().map(|d| Path::new(d).join("memory.oom_control"));
    let v2 = (!run.cgroup_dir.is_empty()).then(|| Path::new(&run.cgroup_dir).join("memory.events"));
    v1.chain(v2)
        .filter_map(|file| fs::read_to_string(file).ok())
        .flat_map(|text| {
            text.lines()
                .filter_map(|l| l.strip_prefix("oom_kill ")?.trim().parse().ok())
                .collect::<Vec<u64>>()
        })
        .sum()
}
