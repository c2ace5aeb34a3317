//! A launched process on its way to its program.
//!
//! It begins outside of its container: it decodes its plan, opens what comes from the host, and closes
//! everything else *before* it joins any of the container's namespaces. Where others may already live in
//! the pid namespace (an exec, a shared one), it is born there by a last fork, when it has nothing left
//! that its container must not have: its user, capabilities and filter are the container's, its
//! descriptors are the three streams and the status socket, and it is not dumpable until execve. A
//! neighbour with CAP_SYS_PTRACE then finds a process that can do no more than the neighbour's own.
//!
//! Order otherwise: mounts' sources, namespaces, file system, cgroups (late, so that a small CPU limit
//! does not throttle the set-up), streams, credentials and filters, the program. A failure is told to
//! the supervisor by one packet on the status socket, which closes by itself at execve.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::fs::FileExt;

use prost::Message;

use super::build;
use super::credentials::{credentials, drop_everything};
use super::prepare::{Prepared, prepare};
use super::streams::{self, Stdio};
use super::sys::{self, Fail};
use crate::wire::Plan;

/// Descriptors that a launched process is given; -1 where there is none.
pub(super) struct Inherited {
    pub(super) plan: RawFd,
    pub(super) status: RawFd,
    /// stdin, stdout, stderr; none with a terminal.
    pub(super) stdio: [RawFd; 3],
    /// The process whose namespaces an exec joins, or whose pid namespace a container does.
    pub(super) join: RawFd,
}

/// Runs the plan; never returns.
pub(super) fn run(inherited: &Inherited) -> ! {
    let Err(fail) = begin(inherited);
    sys::report(inherited.status, sys::FAILED, fail.errno, &fail.text);
    // SAFETY: ends this process at once; nothing of it is used after.
    unsafe { libc::_exit(1) }
}

/// Keeps the namespaces it was born in until the supervisor has taken hold of them.
pub(super) fn hold(status: RawFd) -> ! {
    sys::close_others(&mut [status]);
    let mut byte = 0u8;
    // SAFETY: a local of the length that is said; ends this process at once.
    unsafe {
        libc::recv(status, (&raw mut byte).cast(), 1, 0);
        libc::_exit(0)
    }
}

fn begin(inherited: &Inherited) -> Result<Infallible, Fail> {
    sys::undumpable().map_err(|e| Fail::new("become undumpable", e))?;
    let plan = read_plan(inherited.plan)
        .map_err(|e| Fail::new("read the plan", e.raw_os_error().unwrap_or(libc::EINVAL)))?;
    let mut prepared = prepare(&plan, inherited.join)
        .map_err(|(text, e)| Fail::new(text, e.raw_os_error().unwrap_or(libc::EIO)))?;
    go(&plan, &mut prepared, inherited)
}

/// The file's position is shared with the supervisor, so it is not used.
fn read_plan(fd: RawFd) -> io::Result<Plan> {
    // SAFETY: the descriptor is open and belongs to this process alone.
    let file = unsafe { File::from_raw_fd(fd) };
    let size = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    let mut bytes = vec![0; size];
    file.read_exact_at(&mut bytes, 0)?;
    Plan::decode(&bytes[..]).map_err(io::Error::other)
}

fn go(plan: &Plan, prepared: &mut Prepared, inherited: &Inherited) -> Result<Infallible, Fail> {
    sys::default_signals();
    oom_score(prepared, inherited.status);
    if let Some(uid) = plan.host_uid {
        inherited.stdio.iter().for_each(|fd| sys::own_pipe(*fd, uid));
    }
    build::open_sources(plan, prepared)?;
    sys::close_others(&mut prepared.descriptors(inherited));
    if plan.foreign.is_some() {
        return run_foreign(plan, prepared, inherited);
    }
    let handed_over = join_namespaces(plan, prepared, inherited)?;
    if plan.new_cgroup_ns {
        join_cgroups(prepared)?;
        sys::unshare(libc::CLONE_NEWCGROUP).map_err(namespaces)?;
    }
    if !prepared.ops.is_empty() {
        build::root(plan, prepared)?;
    }
    if !plan.new_cgroup_ns {
        join_cgroups(prepared)?;
    }
    if plan.pause {
        return pause();
    }
    let stdio = Stdio { plan, status: inherited.status, given: inherited.stdio };
    streams::set_up(&stdio)?;
    sys::close_others(&mut [inherited.status]);
    let shared = !handed_over && inherited.join >= 0;
    if shared && plan.filters_last {
        hand_over(inherited.status)?;
    }
    credentials(plan, prepared)?;
    if shared && !plan.filters_last {
        hand_over(inherited.status)?;
    }
    execute(plan, prepared)
}

/// The host's own program: it joins nothing and gives nothing up.
fn run_foreign(
    plan: &Plan,
    prepared: &mut Prepared,
    inherited: &Inherited,
) -> Result<Infallible, Fail> {
    let stdio = Stdio { plan, status: inherited.status, given: inherited.stdio };
    streams::set_up(&stdio)?;
    sys::close_others(&mut [inherited.status]);
    sys::chdir(&prepared.cwd).map_err(|e| Fail::new(prepared.change_directory.clone(), e))?;
    execute(plan, prepared)
}

fn namespaces(errno: i32) -> Fail {
    Fail::new("join namespaces", errno)
}

/// Returns whether the last fork is done already.
fn join_namespaces(plan: &Plan, prepared: &Prepared, inherited: &Inherited) -> Result<bool, Fail> {
    let user = if plan.user_ns.is_empty() { 0 } else { libc::CLONE_NEWUSER };
    if !plan.exec_in.is_empty() {
        let kinds = libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC;
        let kinds = kinds | libc::CLONE_NEWUTS | libc::CLONE_NEWCGROUP | libc::CLONE_NEWPID;
        sys::setns(inherited.join, kinds | user).map_err(namespaces)?;
        if user != 0 {
            become_root()?;
        }
        return Ok(false);
    }
    if inherited.join >= 0 {
        sys::setns(inherited.join, libc::CLONE_NEWPID).map_err(namespaces)?;
    }
    for (fd, kind) in &prepared.namespaces {
        sys::setns(fd.as_raw_fd(), *kind).map_err(namespaces)?;
    }
    let pid = if user != 0 && plan.new_pid_ns { libc::CLONE_NEWPID } else { 0 };
    if user != 0 {
        become_root()?;
        let own = sys::unshare(libc::CLONE_NEWNS | pid);
        own.map_err(|e| Fail::new("make namespaces of the user namespace's", e))?;
    }
    // A kernel that shows a pid namespace only to those in it (before 6.18) leaves no choice.
    let early = pid != 0 || (inherited.join >= 0 && prepared.pid_ns.is_none());
    if early {
        hand_over(inherited.status)?;
    }
    Ok(early)
}

/// In a user namespace one has every capability in it, but is still the host's user, who is nobody there.
fn become_root() -> Result<(), Fail> {
    let mapped = sys::set_ids(0, 0, &[]).and_then(|()| sys::undumpable());
    mapped.map_err(|e| Fail::new("become root of the user namespace", e))
}

/// The process that runs the program is born here; this one tells of it and ends.
fn hand_over(status: RawFd) -> Result<(), Fail> {
    match sys::fork_sibling().map_err(|e| Fail::new("clone", e))? {
        0 => Ok(()),
        pid => {
            sys::report(status, sys::HANDED_OVER, pid, "");
            // SAFETY: ends this process at once; nothing of it is used after.
            unsafe { libc::_exit(0) }
        }
    }
}

/// Refused for negative values without CAP_SYS_RESOURCE: told as a note, and on it goes.
fn oom_score(prepared: &Prepared, status: RawFd) {
    let Some(value) = &prepared.oom_score_adj else { return };
    if let Err(e) = sys::write_path(c"/proc/self/oom_score_adj", value.to_bytes()) {
        sys::report(status, sys::NOTE, e, "oom_score_adj is left as it is");
    }
}

fn join_cgroups(prepared: &Prepared) -> Result<(), Fail> {
    for procs in &prepared.cgroup_procs {
        sys::write(procs.as_raw_fd(), b"0").map_err(|e| Fail::new("join cgroups", e))?;
    }
    Ok(())
}

fn execute(plan: &Plan, prepared: &mut Prepared) -> Result<Infallible, Fail> {
    // SAFETY: no arguments; fails only for a group leader, which a fresh process is not.
    unsafe { libc::setsid() };
    if plan.tty {
        sys::control_terminal(0).map_err(|e| Fail::new("set up the streams", e))?;
    }
    let mut worst = libc::ENOENT;
    for program in &prepared.programs {
        // SAFETY: both arrays end in null and point to strings that `prepared` owns.
        unsafe { libc::execve(program.as_ptr(), prepared.argv.as_ptr(), prepared.envp.as_ptr()) };
        match sys::errno() {
            libc::ENOENT | libc::ENOTDIR => {}
            libc::EACCES => worst = libc::EACCES,
            other => return Err(Fail::new(std::mem::take(&mut prepared.execute), other)),
        }
    }
    let text = if worst == libc::ENOENT { &mut prepared.not_found } else { &mut prepared.execute };
    Err(Fail::new(std::mem::take(text), worst))
}

/// The init of a shared pid namespace: no privileges, no files, children reaped by the kernel.
fn pause() -> Result<Infallible, Fail> {
    drop_everything()?;
    // SAFETY: plain numbers, a static string, and calls that touch no memory of ours.
    unsafe {
        libc::setsid();
        libc::prctl(libc::PR_SET_NAME, c"pause".as_ptr());
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
        // The status socket closes here: the supervisor takes that for a successful start.
        libc::close_range(0, u32::MAX, 0);
        loop {
            libc::pause();
        }
    }
}
