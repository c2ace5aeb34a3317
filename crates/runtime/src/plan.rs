//! Pure planning: from what the CRI asks, and what the image says, to a [`Plan`] the supervisor carries
//! out. Nothing here touches the system except to look at a host path's kind.

mod bpf;
mod caps;
mod mounts;
pub(crate) mod oci;
pub(crate) mod seccomp;
mod syscalls;
pub(crate) mod users;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::cdi::Edits;
use crate::cgroup::Leaf;
use crate::cri::{
    ContainerConfig, LinuxContainerSecurityContext, NamespaceMode, ProfileType, SecurityProfile,
    UserNamespace,
};
use crate::error::{Error, Result};
use crate::wire::{MountFs, Overlay, Plan, Step, StepKind};
use users::User;

pub(crate) use mounts::Layout;

/// What an image says about how to run it.
#[derive(Clone, Debug, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ImageProcess {
    #[serde(deserialize_with = "nullable")]
    pub(crate) env: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) entrypoint: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) cmd: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) working_dir: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) user: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) stop_signal: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) exposed_ports: BTreeMap<String, serde_json::Value>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) labels: BTreeMap<String, String>,
}

/// Image configurations write `null` where they mean nothing.
fn nullable<'de, D, T>(deserializer: D) -> std::result::Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + serde::Deserialize<'de>,
{
    Ok(<Option<T> as serde::Deserialize>::deserialize(deserializer)?.unwrap_or_default())
}

/// Everything a container's plan depends on.
pub(crate) struct Input<'a> {
    pub(crate) id: &'a str,
    pub(crate) config: &'a ContainerConfig,
    /// Of its CDI devices.
    pub(crate) edits: &'a Edits,
    pub(crate) image: &'a ImageProcess,
    pub(crate) user: &'a User,
    pub(crate) hostname: &'a str,
    pub(crate) namespaces: Namespaces,
    /// The pod's user namespace, if it has one.
    pub(crate) users: Option<UserNamespace>,
    /// The host's number for the user, in a user namespace.
    pub(crate) host_uid: Option<u32>,
    pub(crate) layout: Layout,
    pub(crate) v1_dirs: Vec<PathBuf>,
    pub(crate) unified_dir: Option<PathBuf>,
    pub(crate) is_v2: bool,
    pub(crate) seccomp: Vec<Vec<u8>>,
    pub(crate) log_path: String,
    pub(crate) log_max_bytes: u64,
    pub(crate) log_max_files: u32,
}

/// Paths of pins; an empty one means the supervisor's own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Namespaces {
    pub(crate) net: String,
    pub(crate) ipc: String,
    pub(crate) uts: String,
    pub(crate) user: String,
    pub(crate) pid_of: String,
    pub(crate) new_pid: bool,
}

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(crate) fn context(config: &ContainerConfig) -> LinuxContainerSecurityContext {
    config.linux.as_ref().and_then(|l| l.security_context.clone()).unwrap_or_default()
}

pub(crate) fn pid_mode(context: &LinuxContainerSecurityContext) -> NamespaceMode {
    let mode =
        context.namespace_options.as_ref().map_or(NamespaceMode::Container as i32, |o| o.pid);
    NamespaceMode::try_from(mode).unwrap_or(NamespaceMode::Container)
}

/// The command line: the CRI's command replaces the entry point and drops the image's arguments.
pub(crate) fn arguments(config: &ContainerConfig, image: &ImageProcess) -> Result<Vec<String>> {
    let mut line =
        if config.command.is_empty() { image.entrypoint.clone() } else { config.command.clone() };
    if !config.args.is_empty() {
        line.extend(config.args.iter().cloned());
    } else if config.command.is_empty() {
        line.extend(image.cmd.iter().cloned());
    }
    if line.is_empty() {
        return Err(Error::Invalid("no command specified".to_owned()));
    }
    Ok(line)
}

/// The image's variables, then the CRI's over them; PATH, HOSTNAME and HOME when nobody sets them.
fn environment(input: &Input<'_>) -> Vec<Vec<u8>> {
    let mut list: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut set = |key: &[u8], value: &[u8]| match list.iter_mut().find(|(k, _)| k == key) {
        Some(entry) => entry.1 = value.to_vec(),
        None => list.push((key.to_vec(), value.to_vec())),
    };
    let defaults = [DEFAULT_PATH.to_owned(), format!("HOSTNAME={}", input.hostname)];
    let terminal = input.config.tty.then(|| "TERM=xterm".to_owned());
    for pair in defaults.iter().chain(&terminal).chain(&input.image.env) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        set(key.as_bytes(), value.as_bytes());
    }
    for pair in &input.config.envs {
        set(pair.key.as_bytes(), &pair.value);
    }
    if !list.iter().any(|(k, _)| k == b"HOME") {
        list.push((b"HOME".to_vec(), input.user.home.clone().into_bytes()));
    }
    list.into_iter().map(|(k, v)| [&k[..], b"=", &v[..]].concat()).collect()
}

pub(crate) fn container(input: &Input<'_>) -> Result<Plan> {
    let context = context(input.config);
    let resources = input.config.linux.as_ref().and_then(|l| l.resources.as_ref());
    let cwd =
        [&input.config.working_dir, &input.image.working_dir].into_iter().find(|d| !d.is_empty());
    let cwd = cwd.map_or("/", String::as_str).to_owned();
    let text = |p: &PathBuf| p.to_string_lossy().into_owned();
    Ok(Plan {
        id: input.id.to_owned(),
        new_pid_ns: input.namespaces.new_pid,
        pid_ns_of: input.namespaces.pid_of.clone(),
        net_ns: input.namespaces.net.clone(),
        ipc_ns: input.namespaces.ipc.clone(),
        uts_ns: input.namespaces.uts.clone(),
        new_cgroup_ns: input.is_v2 && !context.privileged,
        cgroup_dir: input.unified_dir.as_ref().map(text).unwrap_or_default(),
        cgroup_v1_dirs: input.v1_dirs.iter().map(text).collect(),
        steps: mounts::steps(input, &context, &cwd)?,
        mount_point: text(&input.layout.mount_point),
        tty: input.config.tty,
        stdin: input.config.stdin,
        stdin_once: input.config.stdin_once,
        args: arguments(input.config, input.image)?,
        env: environment(input),
        cwd,
        uid: input.user.uid,
        gid: input.user.gid,
        groups: input.user.groups.clone(),
        caps: caps::sets(&context, input.user.uid)?,
        no_new_privs: context.no_new_privs,
        seccomp: input.seccomp.clone(),
        oom_score_adj: resources.map(|r| r.oom_score_adj.clamp(-1000, 1000) as i32),
        log_path: input.log_path.clone(),
        log_max_bytes: input.log_max_bytes,
        log_max_files: input.log_max_files,
        user_ns: input.namespaces.user.clone(),
        host_uid: input.host_uid,
        filters_last: seccomp::refuse_set_up(&input.seccomp, input.config.tty),
        ..Plan::default()
    })
}

/// Another process in a container: what its first one has, without the file system.
pub(crate) fn exec(
    container: &Plan,
    id: String,
    args: Vec<String>,
    tty: bool,
    leaf: Option<&Leaf>,
) -> Plan {
    let text = |p: &Path| p.to_string_lossy().into_owned();
    let unified = leaf.and_then(Leaf::unified_dir);
    let below = |dir: &String| match leaf.and_then(Leaf::v1_dir) {
        Some(v1) if v1.parent() == Some(Path::new(dir)) => text(v1),
        _ => dir.clone(),
    };
    let mut env = container.env.clone();
    if tty && !env.iter().any(|e| e.starts_with(b"TERM=")) {
        env.push(b"TERM=xterm".to_vec());
    }
    Plan {
        id,
        exec_in: container.id.clone(),
        cgroup_dir: unified.map_or_else(|| container.cgroup_dir.clone(), text),
        cgroup_v1_dirs: container.cgroup_v1_dirs.iter().map(below).collect(),
        tty,
        args,
        env,
        cwd: container.cwd.clone(),
        uid: container.uid,
        gid: container.gid,
        groups: container.groups.clone(),
        caps: container.caps,
        no_new_privs: container.no_new_privs,
        seccomp: container.seccomp.clone(),
        oom_score_adj: container.oom_score_adj,
        user_ns: container.user_ns.clone(),
        host_uid: container.host_uid,
        filters_last: seccomp::refuse_set_up(&container.seccomp, tty),
        ..Plan::default()
    }
}

/// The init of a shared pid namespace.
pub(crate) fn pause(
    id: &str,
    mount_point: String,
    unified: String,
    v1: Vec<String>,
    user_ns: String,
) -> Plan {
    let step = |kind| Step { kind: Some(kind) };
    Plan {
        id: id.to_owned(),
        new_pid_ns: true,
        cgroup_dir: unified,
        cgroup_v1_dirs: v1,
        steps: vec![step(StepKind::EmptyRoot(true)), step(StepKind::ReadOnlyRoot(true))],
        mount_point,
        cwd: "/".to_owned(),
        pause: true,
        user_ns,
        ..Plan::default()
    }
}

/// A process that does nothing, in a user namespace, on a root of mapped layers below `dir`.
pub(crate) fn probe(id: &str, dir: &Path, user_ns: String) -> Plan {
    let text = |name: &str| dir.join(name).to_string_lossy().into_owned();
    let root = Overlay {
        lowers: vec![text("lower")],
        upper: text("upper"),
        work: text("work"),
        target: String::new(),
        mapped: true,
    };
    let step = |kind| Step { kind: Some(kind) };
    let proc = |fs_type: &str, target: &str| {
        let (fs_type, target) = (fs_type.to_owned(), target.to_owned());
        StepKind::Mount(MountFs { fs_type, target, ..MountFs::default() })
    };
    let steps = vec![step(StepKind::Root(root)), step(proc("proc", "/proc"))];
    Plan { steps, user_ns, ..pause(id, text("lower"), String::new(), Vec::new(), String::new()) }
}

/// Which filter a container gets: what it asks, or the node's default for those that ask nothing.
pub(crate) fn filters(
    cache: &seccomp::Cache,
    context: &LinuxContainerSecurityContext,
    config: &crate::Config,
) -> Result<Vec<Vec<u8>>> {
    let fallback =
        SecurityProfile { profile_type: ProfileType::RuntimeDefault as i32, ..Default::default() };
    let profile = match &context.seccomp {
        _ if context.privileged => return Ok(Vec::new()),
        Some(profile) => profile,
        None if config.seccomp_default => &fallback,
        None => return Ok(Vec::new()),
    };
    match ProfileType::try_from(profile.profile_type) {
        Ok(ProfileType::RuntimeDefault) => cache.default_for(caps::granted(context)?),
        Ok(ProfileType::Unconfined) => Ok(Vec::new()),
        Ok(ProfileType::Localhost) => {
            seccomp::from_file(&config.seccomp_dir, &profile.localhost_ref)
        }
        Err(_) => Err(Error::Invalid(format!("seccomp profile type {}", profile.profile_type))),
    }
}
