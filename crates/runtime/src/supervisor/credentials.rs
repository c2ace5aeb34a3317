//! User, capabilities, filters and working directory of a launched process.

use super::prepare::Prepared;
use super::sys::{self, Fail};
use crate::wire::{Capabilities, Plan};

/// Capabilities the kernel may know: it refuses numbers past its last one with EINVAL.
const CAPABILITY_BITS: u32 = 64;
/// Bytes of the longest path that the kernel tells.
const PATH_BYTES: usize = 4096;

fn failed(errno: i32) -> Fail {
    Fail::new("set user and capabilities", errno)
}

/// Takes the container's credentials. Without `no_new_privs` a filter needs CAP_SYS_ADMIN, so it is
/// loaded before that goes.
pub(super) fn credentials(plan: &Plan, prepared: &Prepared) -> Result<(), Fail> {
    let entered = change_directory(prepared);
    if plan.no_new_privs {
        sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).map_err(failed)?;
    } else {
        load_filters(prepared)?;
    }
    drop_bounding(plan.caps.bounding).map_err(failed)?;
    sys::prctl(libc::PR_SET_KEEPCAPS, 1).map_err(failed)?;
    sys::set_ids(plan.uid, plan.gid, &prepared.groups).map_err(failed)?;
    set_caps(&plan.caps).map_err(failed)?;
    sys::undumpable().map_err(failed)?;
    // A directory of the user's own may be closed to a root without DAC_OVERRIDE, and the other way round.
    if entered.is_err() {
        change_directory(prepared).map_err(|e| Fail::new(prepared.change_directory.clone(), e))?;
    }
    if plan.no_new_privs {
        load_filters(prepared)?;
    }
    Ok(())
}

/// A working directory outside of the root (through a descriptor that leads there) has a path that does
/// not begin with a slash: CVE-2024-21626.
fn change_directory(prepared: &Prepared) -> Result<(), i32> {
    sys::chdir(&prepared.cwd)?;
    let mut path = [0u8; PATH_BYTES];
    // SAFETY: the buffer is as long as said.
    let length = unsafe { libc::syscall(libc::SYS_getcwd, path.as_mut_ptr(), path.len()) };
    match sys::check(length) {
        Ok(_) if path[0] == b'/' => Ok(()),
        Ok(_) => sys::chdir(c"/").and(Err(libc::EXDEV)),
        Err(e) => Err(e),
    }
}

fn load_filters(prepared: &Prepared) -> Result<(), Fail> {
    for filter in &prepared.filters {
        let loaded = sys::seccomp(&filter.program);
        loaded.map_err(|e| Fail::new("load the seccomp filter", e))?;
    }
    Ok(())
}

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

/// A process that needs nothing: nobody's, without capabilities, closed to others.
pub(super) fn drop_everything() -> Result<(), Fail> {
    drop_bounding(0)
        .and_then(|()| sys::set_ids(sys::NOBODY, sys::NOBODY, &[]))
        .and_then(|()| sys::capset(0, 0, 0))
        .and_then(|()| sys::undumpable())
        .map_err(failed)
}
