//! Kernel parameters that pods may set: those known to be safe, and those the node's owner allows.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;

use super::Refusal;
use crate::spec::{is_host_network, spec_of};

const REASON: &str = "SysctlForbidden";
const NAME_MAX: usize = 253;

/// Safe ones, with the first kernel that keeps them apart by namespace.
const SAFE: [(&str, (u32, u32)); 12] = [
    ("kernel.shm_rmid_forced", (0, 0)),
    ("net.ipv4.ip_local_port_range", (0, 0)),
    ("net.ipv4.tcp_syncookies", (0, 0)),
    ("net.ipv4.ping_group_range", (0, 0)),
    ("net.ipv4.ip_unprivileged_port_start", (0, 0)),
    ("net.ipv4.ip_local_reserved_ports", (3, 16)),
    ("net.ipv4.tcp_keepalive_time", (4, 5)),
    ("net.ipv4.tcp_fin_timeout", (4, 6)),
    ("net.ipv4.tcp_keepalive_intvl", (4, 5)),
    ("net.ipv4.tcp_keepalive_probes", (4, 5)),
    ("net.ipv4.tcp_rmem", (4, 15)),
    ("net.ipv4.tcp_wmem", (4, 15)),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Namespace {
    Ipc,
    Net,
}

impl Namespace {
    fn of(name: &str) -> Option<Namespace> {
        const IPC: [&str; 10] = [
            "kernel.sem",
            "kernel.shmall",
            "kernel.shmmax",
            "kernel.shmmni",
            "kernel.shm_rmid_forced",
            "kernel.shm",
            "kernel.msgmax",
            "kernel.msgmnb",
            "kernel.msgmni",
            "kernel.msg",
        ];
        if IPC.contains(&name) || name.starts_with("fs.mqueue.") {
            return Some(Namespace::Ipc);
        }
        name.starts_with("net.").then_some(Namespace::Net)
    }

    fn name(self) -> &'static str {
        match self {
            Namespace::Ipc => "IPC",
            Namespace::Net => "Net",
        }
    }
}

/// The parameters that pods may set.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sysctls {
    names: BTreeMap<String, Namespace>,
    prefixes: BTreeMap<String, Namespace>,
}

/// With dots: `net/ipv4/conf/eth0.1` and `net.ipv4.conf.eth0/1` are the same.
pub(crate) fn normalized(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name[at..].starts_with('/') => {
            let swap = |c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            };
            name.chars().map(swap).collect()
        }
        _ => name.to_owned(),
    }
}

fn kernel() -> (u32, u32) {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy().into_owned();
    let digits = |part: Option<&str>| {
        let part = part.unwrap_or("");
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        part[..end].parse().unwrap_or(0)
    };
    let mut parts = release.split('.');
    (digits(parts.next()), digits(parts.next()))
}

fn is_pattern(text: &str) -> bool {
    let body = text.strip_suffix('*').unwrap_or(text);
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_./".contains(c);
    !text.is_empty() && text.len() <= NAME_MAX && body.chars().all(fine)
}

impl Sysctls {
    /// The safe ones of this kernel.
    pub(crate) fn safe() -> Sysctls {
        let version = kernel();
        let known = SAFE.iter().filter(|(_, since)| version >= *since);
        let names = known.filter_map(|(name, _)| Some(((*name).to_owned(), Namespace::of(name)?)));
        Sysctls { names: names.collect(), prefixes: BTreeMap::new() }
    }

    /// Also these; each may end with `*`.
    pub(crate) fn allow(&mut self, patterns: &[String]) -> Result<(), String> {
        for pattern in patterns {
            if !is_pattern(pattern) {
                return Err(format!("sysctl {pattern:?} is no name, nor a beginning and *"));
            }
            let name = normalized(pattern);
            let (name, into) = match name.strip_suffix('*') {
                Some(prefix) => (prefix.to_owned(), &mut self.prefixes),
                None => (name, &mut self.names),
            };
            let unknown = || format!("the sysctls {name:?} are not known to be namespaced");
            let namespace = Namespace::of(&name).ok_or_else(unknown)?;
            into.insert(name, namespace);
        }
        Ok(())
    }

    pub(super) fn check(&self, pod: &Pod) -> Result<(), Refusal> {
        let spec = spec_of(pod);
        let asked = spec.security_context.as_ref().and_then(|s| s.sysctls.as_deref());
        let host_ipc = spec.host_ipc.unwrap_or(false);
        for sysctl in asked.unwrap_or_default() {
            self.allowed(&normalized(&sysctl.name), is_host_network(pod), host_ipc)
                .map_err(|why| Refusal::new(REASON, format!("forbidden sysctl: {why}")))?;
        }
        Ok(())
    }

    fn allowed(&self, name: &str, host_network: bool, host_ipc: bool) -> Result<(), String> {
        let by_prefix = || self.prefixes.iter().find(|(prefix, _)| name.starts_with(*prefix));
        let found = self.names.get(name).or_else(|| by_prefix().map(|(_, ns)| ns));
        let Some(namespace) = found else { return Err(format!("{name:?} not allowlisted")) };
        let on_host = match namespace {
            Namespace::Ipc => host_ipc,
            Namespace::Net => host_network,
        };
        match on_host {
            true => Err(format!("{name:?} not allowed with host {} enabled", namespace.name())),
            false => Ok(()),
        }
    }
}
