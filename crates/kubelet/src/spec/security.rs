//! Security contexts: the container's over the pod's, as the runtime takes them.

use k8s_openapi::api::core::v1::{
    AppArmorProfile, Capabilities, Container, Pod, SeccompProfile, SecurityContext,
};
use runtime::cri::{
    Capability, Int64Value, LinuxContainerSecurityContext, NamespaceMode, NamespaceOption,
    ProfileType, SELinuxOption, SecurityProfile, SupplementalGroupsPolicy, UserNamespace,
};

use super::{ConfigError, described, spec_of};

/// Upstream's lists; an unmasked `/proc` has none.
const MASKED: &[&str] = &[
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/acpi",
    "/proc/asound",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: &[&str] =
    &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The user an image runs as: a number or a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ImageUser {
    pub(crate) uid: Option<i64>,
    pub(crate) name: String,
}

/// The pod's namespaces. `target` is the container whose processes an ephemeral container sees.
pub(crate) fn namespaces(pod: &Pod, target: Option<&str>, users: UserNamespace) -> NamespaceOption {
    let spec = spec_of(pod);
    let node = |on: Option<bool>, other: NamespaceMode| {
        (if on.unwrap_or(false) { NamespaceMode::Node } else { other }) as i32
    };
    let shared = spec.share_process_namespace.unwrap_or(false);
    let own = if shared { NamespaceMode::Pod } else { NamespaceMode::Container };
    let mut options = NamespaceOption {
        network: node(spec.host_network, NamespaceMode::Pod),
        ipc: node(spec.host_ipc, NamespaceMode::Pod),
        pid: node(spec.host_pid, own),
        userns_options: Some(users),
        ..NamespaceOption::default()
    };
    if let Some(id) = target {
        options.pid = NamespaceMode::Target as i32;
        options.target_id = id.to_owned();
    }
    options
}

pub(crate) fn groups(pod: &Pod) -> (Vec<i64>, i32) {
    let spec = spec_of(pod);
    let Some(sc) = spec.security_context.as_ref() else { return (Vec::new(), 0) };
    let all = sc.fs_group.into_iter().chain(sc.supplemental_groups.iter().flatten().copied());
    let policy = match sc.supplemental_groups_policy.as_deref() {
        Some("Strict") => SupplementalGroupsPolicy::Strict,
        _ => SupplementalGroupsPolicy::Merge,
    };
    (all.collect(), policy as i32)
}

/// The container's security context over the pod's.
pub(crate) fn effective(pod: &Pod, container: &Container) -> SecurityContext {
    let mut own = container.security_context.clone().unwrap_or_default();
    let spec = spec_of(pod);
    let Some(pod) = spec.security_context.as_ref() else { return own };
    own.run_as_user = own.run_as_user.or(pod.run_as_user);
    own.run_as_group = own.run_as_group.or(pod.run_as_group);
    own.run_as_non_root = own.run_as_non_root.or(pod.run_as_non_root);
    own.se_linux_options = own.se_linux_options.or_else(|| pod.se_linux_options.clone());
    own.seccomp_profile = own.seccomp_profile.or_else(|| pod.seccomp_profile.clone());
    own.app_armor_profile = own.app_armor_profile.or_else(|| pod.app_armor_profile.clone());
    own
}

pub(crate) fn security_context(
    pod: &Pod,
    container: &Container,
    user: &ImageUser,
    target: Option<&str>,
    users: UserNamespace,
) -> Result<LinuxContainerSecurityContext, ConfigError> {
    let sc = effective(pod, container);
    check_non_root(pod, container, &sc, user)?;
    check_proc_mount(pod, container, &sc)?;
    let privileged = sc.privileged.unwrap_or(false);
    let unmasked = sc.proc_mount.as_deref() == Some("Unmasked") || privileged;
    let paths = |list: &[&str]| match unmasked {
        true => Vec::new(),
        false => list.iter().map(|p| (*p).to_owned()).collect(),
    };
    let (supplemental_groups, supplemental_groups_policy) = groups(pod);
    // An image without a user runs as root.
    let of_image = user.uid.or(user.name.is_empty().then_some(0));
    let run_as_user = sc.run_as_user.or(of_image).map(|value| Int64Value { value });
    let by_name = run_as_user.is_none();
    Ok(LinuxContainerSecurityContext {
        capabilities: sc.capabilities.as_ref().map(capability),
        privileged,
        namespace_options: Some(namespaces(pod, target, users)),
        selinux_options: sc.se_linux_options.map(|o| SELinuxOption {
            user: o.user.unwrap_or_default(),
            role: o.role.unwrap_or_default(),
            r#type: o.type_.unwrap_or_default(),
            level: o.level.unwrap_or_default(),
        }),
        run_as_user,
        run_as_group: sc.run_as_group.map(|value| Int64Value { value }),
        run_as_username: if by_name { user.name.clone() } else { String::new() },
        readonly_rootfs: sc.read_only_root_filesystem.unwrap_or(false),
        supplemental_groups,
        supplemental_groups_policy,
        no_new_privs: sc.allow_privilege_escalation == Some(false),
        masked_paths: paths(MASKED),
        readonly_paths: paths(READ_ONLY),
        seccomp: Some(seccomp(sc.seccomp_profile.as_ref(), privileged)?),
        apparmor: apparmor(sc.app_armor_profile.as_ref()),
        ..LinuxContainerSecurityContext::default()
    })
}

fn check_non_root(
    pod: &Pod,
    container: &Container,
    sc: &SecurityContext,
    user: &ImageUser,
) -> Result<(), ConfigError> {
    if !sc.run_as_non_root.unwrap_or(false) {
        return Ok(());
    }
    let who = format!("(pod: \"{}\", container: {})", described(pod), container.name);
    let fail = |text: String| Err(ConfigError(text));
    match (sc.run_as_user, user.uid, user.name.as_str()) {
        (Some(0), ..) => fail(format!("container's runAsUser breaks non-root policy {who}")),
        (Some(_), ..) => Ok(()),
        (None, Some(0), _) => {
            fail(format!("container has runAsNonRoot and image will run as root {who}"))
        }
        (None, Some(_), _) => Ok(()),
        // An image without a user runs as root.
        (None, None, "") => {
            fail(format!("container has runAsNonRoot and image will run as root {who}"))
        }
        (None, None, name) => fail(format!(
            "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root {who}"
        )),
    }
}

/// An unmasked `/proc` is for pods whose root is not the host's.
fn check_proc_mount(
    pod: &Pod,
    container: &Container,
    sc: &SecurityContext,
) -> Result<(), ConfigError> {
    let unmasked = sc.proc_mount.as_deref() == Some("Unmasked");
    if !unmasked || sc.privileged == Some(true) || spec_of(pod).host_users == Some(false) {
        return Ok(());
    }
    let who = format!("(pod: \"{}\", container: {})", described(pod), container.name);
    Err(ConfigError(format!("procMount Unmasked needs `hostUsers` to be false {who}")))
}

/// The profile that the spec names; `None` where it names none.
fn apparmor(profile: Option<&AppArmorProfile>) -> Option<SecurityProfile> {
    let profile = profile?;
    let kind = match profile.type_.as_str() {
        "RuntimeDefault" => ProfileType::RuntimeDefault,
        "Localhost" => ProfileType::Localhost,
        _ => ProfileType::Unconfined,
    };
    let localhost_ref = profile.localhost_profile.clone().unwrap_or_default();
    Some(SecurityProfile { profile_type: kind as i32, localhost_ref })
}

fn capability(own: &Capabilities) -> Capability {
    Capability {
        add_capabilities: own.add.clone().unwrap_or_default(),
        drop_capabilities: own.drop.clone().unwrap_or_default(),
        ..Capability::default()
    }
}

fn seccomp(
    profile: Option<&SeccompProfile>,
    privileged: bool,
) -> Result<SecurityProfile, ConfigError> {
    let local = profile.and_then(|p| p.localhost_profile.clone()).unwrap_or_default();
    let kind = match profile.map(|p| p.type_.as_str()) {
        _ if privileged => ProfileType::Unconfined,
        Some("RuntimeDefault") => ProfileType::RuntimeDefault,
        Some("Localhost") if local.is_empty() => {
            let text = "localhostProfile must be set if seccompProfile type is Localhost.";
            return Err(ConfigError(text.into()));
        }
        Some("Localhost") => ProfileType::Localhost,
        None | Some("Unconfined") => ProfileType::Unconfined,
        Some(other) => {
            return Err(ConfigError(format!("unknown seccompProfile type \"{other}\"")));
        }
    };
    Ok(SecurityProfile { profile_type: kind as i32, localhost_ref: local })
}
