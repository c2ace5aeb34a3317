//! Security contexts of pods and containers, and the annotations that said the same before.

use std::collections::HashSet;

use api::names;

use super::Pod;
use super::sources::descending;
use crate::check::At;

/// Fields of a container's context.
pub(super) fn container(context: &At<'_>, pod: &Pod<'_>) {
    if context.is_absent() {
        return;
    }
    id(&context.get("runAsUser"));
    id(&context.get("runAsGroup"));
    let mount = context.get("procMount");
    if !mount.is_absent() {
        mount.one_of(&["Default", "Unmasked"]);
        if pod.host_users && mount.text() == "Unmasked" {
            mount.invalid("`hostUsers` must be false to use `Unmasked`");
        }
    }
    seccomp(&context.get("seccompProfile"));
    escalation(context);
    windows_options(&context.get("windowsOptions"));
    app_armor(&context.get("appArmorProfile"));
}

fn id(at: &At<'_>) {
    if at.int().is_some_and(|id| !(0..=i64::from(i32::MAX)).contains(&id)) {
        at.invalid("must be between 0 and 2147483647, inclusive");
    }
}

fn escalation(context: &At<'_>) {
    if context.value()["allowPrivilegeEscalation"] != false {
        return;
    }
    if context.get("privileged").is_true() {
        context.invalid_struct(
            "core.SecurityContext",
            "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
        );
    }
    for capability in context.get("capabilities").get("add").items() {
        if capability.text() == "CAP_SYS_ADMIN" {
            context.invalid_struct("core.SecurityContext", "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN");
        }
    }
}

const PROFILES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];

fn seccomp(profile: &At<'_>) {
    if profile.is_absent() {
        return;
    }
    let (kind, local) = (profile.get("type"), profile.get("localhostProfile"));
    if kind.is_empty() {
        kind.required("type is required when seccompProfile is set");
    } else {
        kind.one_of(&PROFILES);
    }
    match (kind.text() == "Localhost", local.is_absent()) {
        (true, true) => local.required("must be set when seccomp type is Localhost"),
        (true, false) => descending(&local),
        (false, false) => local.with(profile.value()).invalid_struct(
            "core.SeccompProfile",
            "can only be set when seccomp type is Localhost",
        ),
        (false, true) => {}
    }
}

fn app_armor(profile: &At<'_>) {
    const LOCAL: &str = "must be set when AppArmor type is Localhost";
    if profile.is_absent() {
        return;
    }
    let (kind, local) = (profile.get("type"), profile.get("localhostProfile"));
    match kind.text() {
        "Localhost" if local.is_absent() => local.required(LOCAL),
        "Localhost" => {
            if local.text().trim() != local.text() {
                local.invalid("must not be padded with whitespace");
            } else if local.text().is_empty() {
                local.required(LOCAL);
            }
            if local.text().len() > 4095 {
                local.too_long(4095);
            }
        }
        "RuntimeDefault" | "Unconfined" => {
            if !local.is_absent() {
                local.invalid("can only be set when AppArmor type is Localhost");
            }
        }
        "" => kind.required("type is required when appArmorProfile is set"),
        _ => kind.not_supported(&PROFILES),
    }
}

/// A pod's context. Three of its fields stand in the spec itself.
pub(super) fn pod(spec: &At<'_>) {
    let context = spec.get("securityContext");
    for field in ["fsGroup", "runAsUser", "runAsGroup"] {
        id(&context.get(field));
    }
    for group in context.get("supplementalGroups").items() {
        id(&group);
    }
    if spec.get("shareProcessNamespace").is_true() && spec.get("hostPID").is_true() {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        context.get("shareProcessNamespace").invalid_as(&true.into(), detail);
    }
    sysctls(spec, &context.get("sysctls"));
    context.get("fsGroupChangePolicy").one_of_if_set(&["Always", "OnRootMismatch"]);
    seccomp(&context.get("seccompProfile"));
    windows_options(&context.get("windowsOptions"));
    app_armor(&context.get("appArmorProfile"));
    context.get("supplementalGroupsPolicy").one_of_if_set(&["Merge", "Strict"]);
    context.get("seLinuxChangePolicy").one_of_if_set(&["MountOption", "Recursive"]);
}

fn is_sysctl(name: &str) -> bool {
    let edge = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let segment = |part: &str| {
        let b = part.as_bytes();
        b.first().is_some_and(|c| edge(*c))
            && b.last().is_some_and(|c| edge(*c))
            && b.iter().all(|c| edge(*c) || matches!(c, b'-' | b'_'))
    };
    name.len() <= 253 && name.split(['.', '/']).all(segment)
}

fn sysctls(spec: &At<'_>, list: &At<'_>) {
    let mut seen: HashSet<String> = HashSet::new();
    for sysctl in list.items() {
        let name = sysctl.get("name");
        if name.need() {
            if !is_sysctl(name.text()) {
                name.invalid("must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$");
            } else if seen.contains(name.text()) {
                name.duplicate();
            }
        }
        let dotted = dotted(name.text());
        if spec.get("hostNetwork").is_true() && dotted.starts_with("net.") {
            name.invalid("may not be specified when 'hostNetwork' is true");
        } else if spec.get("hostIPC").is_true() && is_ipc(&dotted) {
            name.invalid("may not be specified when 'hostIPC' is true");
        }
        seen.insert(name.text().to_owned());
    }
}

/// A sysctl's name with dots between its parts: the first separator says which one separates.
fn dotted(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'/' => {
            let swap = |c| {
                if c == '/' {
                    '.'
                } else if c == '.' {
                    '/'
                } else {
                    c
                }
            };
            name.chars().map(swap).collect()
        }
        _ => name.to_owned(),
    }
}

fn is_ipc(name: &str) -> bool {
    name == "kernel.sem"
        || ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|p| name.starts_with(p))
}

fn windows_options(options: &At<'_>) {
    if options.is_absent() {
        return;
    }
    let (name, spec) = (options.get("gmsaCredentialSpecName"), options.get("gmsaCredentialSpec"));
    if !name.is_absent() {
        name.named(names::dns_subdomain);
    }
    match spec.value().as_str().map(str::len) {
        Some(0) => spec.invalid("gmsaCredentialSpec cannot be an empty string"),
        Some(length) if length > 65_536 => {
            spec.invalid("gmsaCredentialSpec size must be under 64 KiB");
        }
        _ => {}
    }
    if !options.get("runAsUserName").is_absent() {
        windows_user(&options.get("runAsUserName"));
    }
}

fn windows_user(at: &At<'_>) {
    let name = at.text();
    let parts: Vec<&str> = name.split('\\').collect();
    if name.is_empty() {
        return at.invalid("runAsUserName cannot be an empty string");
    } else if name.chars().any(|c| c.is_ascii_control()) {
        return at.invalid("runAsUserName cannot contain control characters");
    } else if parts.len() > 2 {
        return at.invalid("runAsUserName cannot contain more than one backslash");
    }
    let (domain, user) = if parts.len() == 2 { (Some(parts[0]), parts[1]) } else { (None, name) };
    if domain.is_some_and(|d| d.len() >= 256) {
        at.invalid("runAsUserName's Domain length must be under 256 characters");
    }
    if domain.is_some_and(|d| !is_netbios(d) && !is_windows_dns(d)) {
        at.invalid("runAsUserName's Domain doesn't match the NetBios nor the DNS format");
    }
    if user.is_empty() {
        at.invalid("runAsUserName's User cannot be empty");
    } else if user.len() > 104 {
        at.invalid("runAsUserName's User length must not be longer than 104 characters");
    }
    if !user.is_empty() && user.chars().all(|c| matches!(c, '.' | ' ')) {
        at.invalid("runAsUserName's User cannot contain only periods or spaces");
    }
    if user
        .contains(['"', '/', '\\', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>', '@', '[', ']'])
    {
        at.invalid(
            "runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]",
        );
    }
}

fn is_netbios(domain: &str) -> bool {
    let count = domain.chars().count();
    (1..=15).contains(&count)
        && !domain.starts_with('.')
        && !domain.contains(['\\', '/', ':', '*', '?', '"', '<', '>', '|'])
}

fn is_windows_dns(domain: &str) -> bool {
    let label = |part: &str| {
        let b = part.as_bytes();
        (1..=63).contains(&b.len())
            && b[0].is_ascii_alphanumeric()
            && b[b.len() - 1].is_ascii_alphanumeric()
            && b.iter().all(|c| c.is_ascii_alphanumeric() || *c == b'-')
    };
    domain.split('.').all(label)
}
