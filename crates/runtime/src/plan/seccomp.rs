//! System call filters: the default profile, and profiles from files.
//!
//! The default is Docker's and containerd's in effect: a list of allowed calls, EPERM for the rest, and
//! ENOSYS for clone3 (its flags cannot be looked at; the C libraries then use clone). Deviations:
//! 32-bit and x32 programs are refused as a whole (one architecture per filter), and `keyctl` with
//! its family is refused. Programs are compiled once for each set of capabilities.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};
use serde::Deserialize;

use super::caps;
use super::syscalls::{ALLOWED, NUMBERS};
use crate::error::{Error, IoContext, Result};

#[cfg(target_arch = "x86_64")]
const ARCH: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCH: TargetArch = TargetArch::aarch64;
const OCI_ARCH: &str =
    if cfg!(target_arch = "aarch64") { "SCMP_ARCH_AARCH64" } else { "SCMP_ARCH_X86_64" };

/// What a capability adds to the allowed calls.
const BY_CAPABILITY: &[(&str, &str)] = &[
    ("DAC_READ_SEARCH", "name_to_handle_at open_by_handle_at"),
    (
        "SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount \
         mount_setattr move_mount open_tree perf_event_open pivot_root quotactl quotactl_fd \
         setdomainname sethostname setns syslog umount2 unshare",
    ),
    ("SYS_BOOT", "reboot"),
    ("SYS_CHROOT", "chroot"),
    ("SYS_MODULE", "delete_module finit_module init_module"),
    ("SYS_PACCT", "acct"),
    ("SYS_PTRACE", "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev"),
    ("SYS_RAWIO", "ioperm iopl"),
    ("SYS_TIME", "clock_settime settimeofday"),
    ("SYS_TTY_CONFIG", "vhangup"),
    ("SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("SYSLOG", "syslog"),
    ("BPF", "bpf"),
    ("PERFMON", "perf_event_open"),
];

/// Namespace flags of clone (0x7e020000): without CAP_SYS_ADMIN none of them may be set.
const CLONE_NEW: u64 = 0x7e02_0000;
/// Execution domains a program may choose: Linux, and Linux with 32-bit addresses or names; and asking.
const PERSONALITIES: [u64; 5] = [0, 8, 0x20000, 0x20008, 0xffff_ffff];
/// `AF_VSOCK` reaches the hypervisor from within: refused, as in Docker's profile.
const AF_VSOCK: u64 = 40;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Compiled programs, as the bytes that the supervisor loads.
pub(crate) type Programs = Vec<Vec<u8>>;

/// Compiles on first use.
#[derive(Default)]
pub(crate) struct Cache {
    defaults: Mutex<HashMap<u64, Programs>>,
}

impl Cache {
    /// The default profile for a container with these capabilities.
    pub(crate) fn default_for(&self, capabilities: u64) -> Result<Programs> {
        let mut cache = self.defaults.lock().expect("no holder panics");
        if let Some(found) = cache.get(&capabilities) {
            return Ok(found.clone());
        }
        let programs = default_profile(capabilities)?;
        cache.insert(capabilities, programs.clone());
        Ok(programs)
    }
}

fn number(name: &str) -> Option<i64> {
    NUMBERS.iter().find(|(n, _)| *n == name).map(|(_, number)| *number)
}

fn invalid(e: impl std::fmt::Display) -> Error {
    Error::Invalid(format!("seccomp profile: {e}"))
}

fn condition(arg: u8, op: Op, value: u64) -> Result<SeccompCondition> {
    // Comparisons are of whole registers only where the kernel's parameter is one.
    SeccompCondition::new(arg, Len::Dword, op, value).map_err(invalid)
}

fn rule(conditions: Vec<SeccompCondition>) -> Result<SeccompRule> {
    SeccompRule::new(conditions).map_err(invalid)
}

fn default_profile(capabilities: u64) -> Result<Programs> {
    let mut rules = Rules::new();
    let mut allow = |names: &str| {
        for number in names.split_whitespace().filter_map(number) {
            rules.insert(number, Vec::new());
        }
    };
    allow(ALLOWED);
    for (capability, names) in BY_CAPABILITY {
        if capabilities & caps::bit(capability)? != 0 {
            allow(names);
        }
    }
    rules.insert(libc::SYS_socket, vec![rule(vec![condition(0, Op::Ne, AF_VSOCK)?])?]);
    let domains = PERSONALITIES.iter().map(|p| rule(vec![condition(0, Op::Eq, *p)?]));
    rules.insert(libc::SYS_personality, domains.collect::<Result<_>>()?);
    let otherwise = SeccompAction::Errno(libc::EPERM as u32);
    let admin = capabilities & caps::bit("SYS_ADMIN")? != 0;
    if admin {
        return Ok(vec![compile(rules, SeccompAction::Allow, otherwise)?, absent(&[])]);
    }
    let plain = condition(0, Op::MaskedEq(CLONE_NEW), 0)?;
    rules.insert(libc::SYS_clone, vec![rule(vec![plain])?]);
    rules.insert(libc::SYS_clone3, Vec::new());
    let allowed = compile(rules, SeccompAction::Allow, otherwise)?;
    Ok(vec![allowed, absent(&[libc::SYS_clone3])])
}

/// Answers ENOSYS to some calls, and to those that are newer than our table: C libraries take only that
/// as a sign to use the older call. Of two errors the kernel takes the later filter's.
fn absent(calls: &[i64]) -> Vec<u8> {
    let last = NUMBERS.iter().map(|(_, number)| *number).max().unwrap_or(0);
    let instruction = |code: u16, jt: u8, jf: u8, k: u32| {
        let [c0, c1] = code.to_ne_bytes();
        let [k0, k1, k2, k3] = k.to_ne_bytes();
        [c0, c1, jt, jf, k0, k1, k2, k3]
    };
    // The last but one instruction answers ENOSYS: jumps count from the one after them.
    let to_absent = |index: usize| (calls.len() - index + 1) as u8;
    let mut program = vec![instruction(0x20, 0, 0, 0)];
    for (index, call) in calls.iter().enumerate() {
        program.push(instruction(0x15, to_absent(index), 0, *call as u32));
    }
    program.push(instruction(0x25, 1, 0, last as u32));
    program.push(instruction(0x06, 0, 0, ALLOW));
    program.push(instruction(0x06, 0, 0, SECCOMP_ERRNO | libc::ENOSYS as u32));
    program.concat()
}

/// `SECCOMP_RET_ERRNO`.
const SECCOMP_ERRNO: u32 = 0x0005_0000;

/// The default profile in OCI's form, for runtimes that compile it themselves.
pub(crate) fn default_in_oci(capabilities: u64) -> Result<serde_json::Value> {
    use serde_json::{Value, json};
    let allow = "SCMP_ACT_ALLOW";
    let named = |names: &str| names.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let with = |name: &str, arg: Value| json!({"names": [name], "action": allow, "args": [arg]});
    let mut names = named(ALLOWED);
    for (capability, more) in BY_CAPABILITY {
        if capabilities & caps::bit(capability)? != 0 {
            names.extend(named(more));
        }
    }
    let admin = capabilities & caps::bit("SYS_ADMIN")? != 0;
    // Those are allowed with some arguments only.
    let narrowed: &[&str] = match admin {
        true => &["socket", "personality"],
        false => &["socket", "personality", "clone", "clone3"],
    };
    names.retain(|name| !narrowed.contains(&name.as_str()));
    let mut calls = vec![
        json!({"names": names, "action": allow}),
        with("socket", json!({"index": 0, "value": AF_VSOCK, "op": "SCMP_CMP_NE"})),
    ];
    for domain in PERSONALITIES {
        calls.push(with("personality", json!({"index": 0, "value": domain, "op": "SCMP_CMP_EQ"})));
    }
    if !admin {
        // OCI's `value` is the mask here, and `valueTwo` what must be left.
        let plain =
            json!({"index": 0, "value": CLONE_NEW, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"});
        calls.push(with("clone", plain));
        let absent =
            json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS});
        calls.push(absent);
    }
    Ok(json!({
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": libc::EPERM,
        "architectures": [OCI_ARCH], "syscalls": calls,
    }))
}

/// A profile file in OCI's form, as it is.
pub(crate) fn file_in_oci(dir: &Path, reference: &str) -> Result<serde_json::Value> {
    // What cannot be used here is refused for every runtime.
    from_file(dir, reference)?;
    let path = dir.join(reference);
    let inside = path.strip_prefix(dir).map_err(invalid)?;
    let bytes = read_beneath(dir, inside).at("read seccomp profile", &path)?;
    let mut profile: serde_json::Value = serde_json::from_slice(&bytes).map_err(invalid)?;
    // Docker's own fields mean nothing to OCI runtimes.
    if let Some(fields) = profile.as_object_mut() {
        let known = ["defaultAction", "defaultErrnoRet", "architectures", "flags", "syscalls"];
        fields.retain(|name, _| known.contains(&name.as_str()));
    }
    Ok(profile)
}

fn compile(rules: Rules, matched: SeccompAction, otherwise: SeccompAction) -> Result<Vec<u8>> {
    let filter = SeccompFilter::new(rules, otherwise, matched, ARCH).map_err(invalid)?;
    let program = BpfProgram::try_from(filter).map_err(invalid)?;
    let bytes = |i: &seccompiler::sock_filter| {
        let [c0, c1] = i.code.to_ne_bytes();
        let [k0, k1, k2, k3] = i.k.to_ne_bytes();
        [c0, c1, i.jt, i.jf, k0, k1, k2, k3]
    };
    Ok(program.iter().flat_map(bytes).collect())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    syscalls: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Vec<Argument>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

/// Bytes of a profile: the largest known have some 50 KiB.
const MAX_PROFILE: u64 = 1 << 20;

/// A profile file in the OCI form, below `dir` and named from there or absolutely. No link is followed.
pub(crate) fn from_file(dir: &Path, reference: &str) -> Result<Programs> {
    let path: PathBuf = dir.join(reference);
    let inside = path
        .strip_prefix(dir)
        .map_err(|_| invalid(format!("{} is not below {}", path.display(), dir.display())))?;
    let bytes = read_beneath(dir, inside).at("read seccomp profile", &path)?;
    if bytes.len() as u64 > MAX_PROFILE {
        return Err(invalid(format!("{} is larger than {MAX_PROFILE} bytes", path.display())));
    }
    let profile: Profile = serde_json::from_slice(&bytes).map_err(invalid)?;
    from_profile(&profile)
}

/// At most one byte more than a profile may have.
fn read_beneath(dir: &Path, inside: &Path) -> std::io::Result<Vec<u8>> {
    use rustix::fs::{OFlags, ResolveFlags};
    let root = File::open(dir)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let file = File::from(crate::tree::open_resolved(&root, inside, flags, resolve)?);
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_PROFILE + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// One filter for the allowed calls, one more for each other action: the kernel takes the strictest
/// answer of all, so the first lets pass what the others decide.
fn from_profile(profile: &Profile) -> Result<Programs> {
    let otherwise = action(&profile.default_action, profile.default_errno_ret)?;
    let mut by_action: Vec<(SeccompAction, Rules)> = Vec::new();
    let mut listed = Rules::new();
    for entry in &profile.syscalls {
        let action = action(&entry.action, entry.errno_ret)?;
        let conditions =
            entry.args.iter().map(argument).collect::<Result<Vec<SeccompCondition>>>()?;
        let at = match by_action.iter().position(|(a, _)| *a == action) {
            Some(at) => at,
            None => {
                by_action.push((action, Rules::new()));
                by_action.len() - 1
            }
        };
        for number in entry.names.iter().filter_map(|n| number(n)) {
            add(&mut by_action[at].1, number, &conditions)?;
            add(&mut listed, number, &conditions)?;
        }
    }
    let mut programs = Vec::new();
    if otherwise != SeccompAction::Allow {
        programs.push(compile(listed, SeccompAction::Allow, otherwise)?);
    }
    for (action, rules) in by_action {
        if action != SeccompAction::Allow {
            programs.push(compile(rules, action, SeccompAction::Allow)?);
        }
    }
    Ok(programs)
}

/// No conditions means any arguments, which wins over entries with conditions.
fn add(rules: &mut Rules, number: i64, conditions: &[SeccompCondition]) -> Result<()> {
    if conditions.is_empty() {
        rules.insert(number, Vec::new());
        return Ok(());
    }
    match rules.entry(number) {
        std::collections::btree_map::Entry::Vacant(e) => {
            e.insert(vec![rule(conditions.to_vec())?]);
        }
        std::collections::btree_map::Entry::Occupied(mut e) if !e.get().is_empty() => {
            e.get_mut().push(rule(conditions.to_vec())?);
        }
        _ => {}
    }
    Ok(())
}

fn action(name: &str, errno: Option<u32>) -> Result<SeccompAction> {
    Ok(match name {
        "SCMP_ACT_ALLOW" => SeccompAction::Allow,
        "SCMP_ACT_ERRNO" => SeccompAction::Errno(errno.unwrap_or(libc::EPERM as u32)),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => SeccompAction::KillThread,
        "SCMP_ACT_KILL_PROCESS" => SeccompAction::KillProcess,
        "SCMP_ACT_LOG" => SeccompAction::Log,
        "SCMP_ACT_TRAP" => SeccompAction::Trap,
        "SCMP_ACT_TRACE" => SeccompAction::Trace(errno.unwrap_or(0)),
        other => return Err(invalid(format!("action {other:?} is not supported"))),
    })
}

fn argument(a: &Argument) -> Result<SeccompCondition> {
    let (op, value) = match a.op.as_str() {
        "SCMP_CMP_EQ" => (Op::Eq, a.value),
        "SCMP_CMP_NE" => (Op::Ne, a.value),
        "SCMP_CMP_LT" => (Op::Lt, a.value),
        "SCMP_CMP_LE" => (Op::Le, a.value),
        "SCMP_CMP_GT" => (Op::Gt, a.value),
        "SCMP_CMP_GE" => (Op::Ge, a.value),
        "SCMP_CMP_MASKED_EQ" => (Op::MaskedEq(a.value), a.value_two),
        other => return Err(invalid(format!("comparison {other:?}"))),
    };
    SeccompCondition::new(a.index, Len::Qword, op, value).map_err(invalid)
}

/// System calls after the filters are loaded: the last fork, a session, and the program.
const SET_UP: [(i64, [u64; 2]); 4] = [
    (libc::SYS_clone, [(libc::CLONE_PARENT | libc::SIGCHLD) as u64, 0]),
    (libc::SYS_setsid, [0, 0]),
    (libc::SYS_sendto, [0, 0]),
    (libc::SYS_exit_group, [0, 0]),
];

/// Whether a filter forbids a call that the set-up makes after it: it must be loaded later then.
pub(crate) fn refuse_set_up(programs: &[Vec<u8>], tty: bool) -> bool {
    let terminal = (libc::SYS_ioctl, [0, libc::TIOCSCTTY]);
    let calls = SET_UP.iter().copied().chain(tty.then_some(terminal));
    calls.into_iter().any(|(number, args)| {
        programs.iter().any(|program| super::bpf::run(program, number, args) != Some(ALLOW))
    })
}

/// `SECCOMP_RET_ALLOW`.
const ALLOW: u32 = 0x7fff_0000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_profile_fits_in_a_filter() {
        for capabilities in [0, u64::MAX >> 23] {
            for program in default_profile(capabilities).unwrap() {
                assert!(program.len() / 8 < 4096, "{} instructions", program.len() / 8);
            }
        }
    }

    #[test]
    fn profiles_of_several_actions_become_several_filters() {
        let json = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
            {"names":["mkdir"],"action":"SCMP_ACT_ERRNO","errnoRet":13},
            {"names":["kill"],"action":"SCMP_ACT_LOG"},
            {"names":["no_such_call"],"action":"SCMP_ACT_ALLOW"}]}"#;
        let profile: Profile = serde_json::from_str(json).unwrap();
        assert_eq!(from_profile(&profile).unwrap().len(), 2);
        assert!(action("SCMP_ACT_NOTIFY", None).is_err());
    }

    #[test]
    fn profiles_are_read_from_their_directory_only() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("seccomp");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
            {"names":["mkdir"],"action":"SCMP_ACT_ERRNO"}]}"#;
        std::fs::write(root.join("sub/good.json"), text).unwrap();
        std::fs::write(root.join("bad.json"), "{").unwrap();
        std::fs::write(root.join("large.json"), vec![b' '; 2 << 20]).unwrap();
        std::fs::write(dir.path().join("outside.json"), text).unwrap();
        std::os::unix::fs::symlink("../outside.json", root.join("link.json")).unwrap();
        let absolute = root.join("sub/good.json").to_string_lossy().into_owned();
        assert!(from_file(&root, "sub/good.json").is_ok() && from_file(&root, &absolute).is_ok());
        let outside = dir.path().join("outside.json").to_string_lossy().into_owned();
        let refused =
            ["../outside.json", "sub/../../outside.json", "link.json", "bad.json", "sub", ""];
        for name in refused.into_iter().chain([outside.as_str(), "large.json", "none.json"]) {
            assert!(from_file(&root, name).is_err(), "{name}");
        }
    }

    #[test]
    fn newer_calls_are_absent() {
        for capabilities in [0, u64::MAX >> 23] {
            let programs = default_profile(capabilities).unwrap();
            let last = programs.last().unwrap();
            let answer = |number| super::super::bpf::run(last, number, [0, 0]).unwrap();
            let absent = SECCOMP_ERRNO | libc::ENOSYS as u32;
            assert_eq!((answer(470), answer(1 << 30)), (absent, absent));
            assert_eq!((answer(libc::SYS_read), answer(libc::SYS_mount)), (ALLOW, ALLOW));
            let clone3 = if capabilities == 0 { absent } else { ALLOW };
            assert_eq!(answer(libc::SYS_clone3), clone3);
        }
    }

    #[test]
    fn filters_that_forbid_the_set_up_are_told() {
        let filters = |json: &str| from_profile(&serde_json::from_str(json).unwrap()).unwrap();
        assert!(!refuse_set_up(&default_profile(0).unwrap(), true));
        assert!(!refuse_set_up(&[], true));
        let forkless = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
            {"names":["clone"],"action":"SCMP_ACT_ERRNO"}]}"#;
        assert!(refuse_set_up(&filters(forkless), false));
        let no_terminal = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
            {"names":["ioctl"],"action":"SCMP_ACT_KILL_PROCESS",
             "args":[{"index":1,"value":21518,"op":"SCMP_CMP_EQ"}]}]}"#;
        assert!(!refuse_set_up(&filters(no_terminal), false));
        assert!(refuse_set_up(&filters(no_terminal), true));
    }
}
