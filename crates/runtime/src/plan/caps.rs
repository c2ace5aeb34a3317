//! Capabilities by name, and the sets a container gets.

use crate::cri::{Capability, LinuxContainerSecurityContext};
use crate::error::{Error, Result};
use crate::wire::Capabilities;

/// In the kernel's order: the index is the bit.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a container has without asking: the same fourteen as Docker's and containerd's.
const DEFAULTS: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

const ALL: u64 = (1 << NAMES.len()) - 1;

/// The bit of a capability, with or without its `CAP_`, in any case.
pub(super) fn bit(name: &str) -> Result<u64> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    let at = NAMES.iter().position(|n| *n == short);
    at.map(|at| 1 << at).ok_or_else(|| Error::Invalid(format!("unknown capability {name:?}")))
}

/// The names of a set, as OCI has them.
pub(super) fn names(set: u64) -> Vec<String> {
    let held = NAMES.iter().enumerate().filter(|(bit, _)| set & (1 << bit) != 0);
    held.map(|(_, name)| format!("CAP_{name}")).collect()
}

/// `ALL` among the names means every one.
fn mask(names: &[String]) -> Result<u64> {
    names.iter().try_fold(0, |sum, name| {
        Ok(sum | if name.eq_ignore_ascii_case("ALL") { ALL } else { bit(name)? })
    })
}

pub(super) fn granted(context: &LinuxContainerSecurityContext) -> Result<u64> {
    if context.privileged {
        return Ok(ALL);
    }
    let defaults = DEFAULTS.iter().try_fold(0, |sum, name| Ok::<_, Error>(sum | bit(name)?))?;
    let none = Capability::default();
    let asked = context.capabilities.as_ref().unwrap_or(&none);
    let all = |names: &[String]| names.iter().any(|n| n.eq_ignore_ascii_case("ALL"));
    // `ALL` first, then single names: dropping all and adding one leaves that one, and the reverse.
    let mut set = if all(&asked.add_capabilities) { ALL } else { defaults };
    if all(&asked.drop_capabilities) {
        set = 0;
    }
    let single = |names: &[String]| -> Result<u64> {
        let names: Vec<String> =
            names.iter().filter(|n| !n.eq_ignore_ascii_case("ALL")).cloned().collect();
        mask(&names)
    };
    set |= single(&asked.add_capabilities)?;
    set &= !single(&asked.drop_capabilities)?;
    Ok(set | mask(&asked.add_ambient_capabilities)?)
}

/// A user other than root keeps none in effect, except the ambient ones.
pub(super) fn sets(context: &LinuxContainerSecurityContext, uid: u32) -> Result<Capabilities> {
    let granted = granted(context)?;
    let asked = context.capabilities.clone().unwrap_or_default();
    let ambient = mask(&asked.add_ambient_capabilities)? & granted;
    let held = if uid == 0 { granted } else { ambient };
    let inheritable = ambient;
    Ok(Capabilities { bounding: granted, effective: held, permitted: held, inheritable, ambient })
}
