//! The child between clone and execve: raw system calls only, no allocation, no lock, no panic.
//!
//! Order matters and is that of the steps below: namespaces, sources of bind mounts (while the host's
//! tree is in view), file system, terminal, cgroups (late, so that a small CPU limit does not
//! throttle the set-up), then credentials and filters, then the program. What fails is told to the
//! supervisor by one packet on the status socket, which closes by itself at execve.

use std::os::fd::{AsRawFd, RawFd};

use super::build;
use super::prepare::Prepared;
use super::sys::{self, Fail, Stage};
use crate::wire::{Capabilities, Plan};

/// What the child inherits: all numbers valid in it.
pub(super) struct Inherited {
    pub(super) status: RawFd,
    /// stdin, stdout, stderr; unused with a terminal.
    pub(super) stdio: [RawFd; 3],
    /// The init whose namespaces an exec joins.
    pub(super) join: RawFd,
}

/// Runs the plan; never returns.
pub(super) fn run(plan: &Plan, prepared: &mut Prepared, inherited: &Inherited) -> ! {
    let fail = match go(plan, prepared, inherited) {
        Ok(()) => 0,
        Err(fail) => {
            sys::report(inherited.status, sys::FAILED, fail.stage as u8, fail.index, fail.errno);
            1
        }
    };
    // SAFETY: ends this process at once; nothing of it is used after.
    unsafe { libc::_exit(fail) }
}

fn go(plan: &Plan, prepared: &mut Prepared, inherited: &Inherited) -> Result<(), Fail> {
    sys::default_signals();
    // SAFETY: no arguments; fails only for a group leader, which a fresh child is not.
    unsafe { libc::setsid() };
    oom_score(prepared, inherited);
    if inherited.join >= 0 {
        let kinds = libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC;
        let kinds = kinds | libc::CLONE_NEWUTS | libc::CLONE_NEWCGROUP;
        sys::setns(inherited.join, kinds).map_err(|e| Fail::new(Stage::Namespaces, e))?;
    }
    for (fd, kind) in &prepared.namespaces {
        sys::setns(fd.as_raw_fd(), *kind).map_err(|e| Fail::new(Stage::Namespaces, e))?;
    }
    if plan.new_cgroup_ns {
        join_cgroups(prepared)?;
        sys::unshare(libc::CLONE_NEWCGROUP).map_err(|e| Fail::new(Stage::Namespaces, e))?;
    }
    if !prepared.ops.is_empty() {
        build::root(prepared)?;
    }
    if plan.pause {
        join_cgroups(prepared)?;
        return pause(inherited);
    }
    streams(plan, inherited)?;
    if !plan.new_cgroup_ns {
        join_cgroups(prepared)?;
    }
    // SAFETY: plain numbers.
    unsafe { libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as libc::c_int) };
    credentials(plan, prepared)?;
    execute(prepared)
}

/// Refused for negative values without CAP_SYS_RESOURCE: told as a note, and on it goes.
fn oom_score(prepared: &Prepared, inherited: &Inherited) {
    let Some(value) = &prepared.oom_score_adj else { return };
    if let Err(e) = sys::write_path(c"/proc/self/oom_score_adj", value.to_bytes()) {
        sys::report(inherited.status, sys::NOTE, Stage::OomScore as u8, 0, e);
    }
}

fn join_cgroups(prepared: &Prepared) -> Result<(), Fail> {
    for (index, procs) in prepared.cgroup_procs.iter().enumerate() {
        sys::write(procs.as_raw_fd(), b"0").map_err(|e| Fail::at(Stage::Cgroup, index, e))?;
    }
    Ok(())
}

fn streams(plan: &Plan, inherited: &Inherited) -> Result<(), Fail> {
    let at = |e| Fail::new(Stage::Streams, e);
    if plan.tty {
        let slave = sys::open_terminal(inherited.status, plan.uid).map_err(at)?;
        if plan.exec_in.is_empty() {
            build::console(slave).map_err(at)?;
        }
        sys::control_terminal(slave).map_err(at)?;
        for target in 0..3 {
            sys::dup2(slave, target).map_err(at)?;
        }
        return Ok(());
    }
    for (target, fd) in inherited.stdio.iter().enumerate() {
        sys::dup2(*fd, target as RawFd).map_err(at)?;
        sys::own(target as RawFd, plan.uid);
    }
    Ok(())
}

fn credentials(plan: &Plan, prepared: &Prepared) -> Result<(), Fail> {
    let at = |e| Fail::new(Stage::Credentials, e);
    let cwd_first = sys::chdir(&prepared.cwd);
    if plan.no_new_privs {
        sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).map_err(at)?;
    } else {
        // Needs CAP_SYS_ADMIN, which goes below.
        load_filters(prepared)?;
    }
    drop_bounding(plan.caps.bounding).map_err(at)?;
    sys::prctl(libc::PR_SET_KEEPCAPS, 1).map_err(at)?;
    sys::set_ids(plan.uid, plan.gid, &prepared.groups).map_err(at)?;
    set_caps(&plan.caps).map_err(at)?;
    // A directory of the user's own may be closed to a root without DAC_OVERRIDE, and the other way round.
    if cwd_first.is_err() {
        sys::chdir(&prepared.cwd).map_err(|e| Fail::new(Stage::Cwd, e))?;
    }
    if plan.no_new_privs {
        load_filters(prepared)?;
    }
    Ok(())
}

fn load_filters(prepared: &Prepared) -> Result<(), Fail> {
    for filter in &prepared.filters {
        sys::seccomp(&filter.program).map_err(|e| Fail::new(Stage::Seccomp, e))?;
    }
    Ok(())
}

/// Capabilities the kernel may know: it refuses numbers past its last one with EINVAL.
const CAPABILITY_BITS: u32 = 64;

fn drop_bounding(keep: u64) -> Result<(), i32> {
    for bit in 0..CAPABILITY_BITS {
        if keep & (1 << bit) == 0 {
            match sys::prctl(libc::PR_CAPBSET_DROP, u64::from(bit)) {
                Ok(()) => {}
                Err(libc::EINVAL) => break,
                Err(e) => return Err(e),
            }
        }
    }
    Ok(())
}

fn set_caps(caps: &Capabilities) -> Result<(), i32> {
    let available = sys::capget()?;
    let permitted = caps.permitted & available;
    sys::capset(caps.effective & permitted, permitted, caps.inheritable & available)?;
    for bit in 0..CAPABILITY_BITS {
        if caps.ambient & available & (1 << bit) != 0 {
            sys::raise_ambient(bit)?;
        }
    }
    Ok(())
}

fn execute(prepared: &Prepared) -> Result<(), Fail> {
    let mut worst = libc::ENOENT;
    for program in &prepared.programs {
        // SAFETY: both arrays end in null and point to strings that `prepared` owns.
        unsafe { libc::execve(program.as_ptr(), prepared.argv.as_ptr(), prepared.envp.as_ptr()) };
        match sys::errno() {
            libc::ENOENT | libc::ENOTDIR => {}
            libc::EACCES => worst = libc::EACCES,
            other => return Err(Fail::new(Stage::Execute, other)),
        }
    }
    Err(Fail::new(Stage::Execute, worst))
}

/// The init of a shared pid namespace: no privileges, no files, children reaped by the kernel.
fn pause(inherited: &Inherited) -> Result<(), Fail> {
    let at = |e| Fail::new(Stage::Credentials, e);
    drop_bounding(0).map_err(at)?;
    sys::set_ids(sys::NOBODY, sys::NOBODY, &[]).map_err(at)?;
    sys::capset(0, 0, 0).map_err(at)?;
    sys::prctl(libc::PR_SET_DUMPABLE, 0).map_err(at)?;
    // SAFETY: plain numbers, a static string, and calls that touch no memory of ours.
    unsafe {
        libc::prctl(libc::PR_SET_NAME, c"pause".as_ptr());
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
        // The status socket closes here: the supervisor takes that for a successful start.
        libc::close_range(0, u32::MAX, 0);
        let _ = inherited;
        loop {
            libc::pause();
        }
    }
}
