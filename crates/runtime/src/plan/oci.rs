//! A plan in the form of the OCI runtime specification, for runtimes that are not part of this program.
//!
//! The supervisor's steps become mounts, devices and paths of the specification; what OCI runtimes do by
//! themselves (the usual devices and links in `/dev`) is left out. Layers are put together before:
//! the specification knows no image.

use serde_json::{Value, json};

use super::seccomp;
use crate::cri::{ContainerConfig, LinuxContainerSecurityContext, ProfileType, SecurityProfile};
use crate::error::{Error, IoContext, Result};
use crate::wire::{Bind, MountFs, Plan, StepKind};

/// What a specification says beyond its plan.
#[derive(Debug, Default)]
pub(crate) struct Outside {
    /// The root, mounted.
    pub(crate) root: String,
    /// The pid namespace to join; `None`: the plan's own, or the host's.
    pub(crate) pid_ns: Option<String>,
    pub(crate) cgroups_path: String,
    /// Rules for devices, in OCI's form.
    pub(crate) devices: Vec<Value>,
    pub(crate) seccomp: Option<Value>,
    /// Mounts of images with several layers: where they go, and where they are mounted.
    pub(crate) overlays: Vec<(String, String)>,
    /// Capabilities that can be given at all.
    pub(crate) available: u64,
    /// The lowest score that can be set.
    pub(crate) least_oom_score: i32,
}

/// `MOUNT_ATTR_*` and OCI's words for them.
const ATTRIBUTES: [(u64, &str); 5] =
    [(1, "ro"), (2, "nosuid"), (4, "nodev"), (8, "noexec"), (0x20, "strictatime")];
/// Made by every OCI runtime.
const USUAL_DEVICES: [&str; 6] =
    ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];
const CGROUPS: &str = "/sys/fs/cgroup";

/// `config.json` of a bundle.
pub(crate) fn spec(plan: &Plan, outside: &Outside) -> Result<Value> {
    let mut lists = Lists::default();
    for step in plan.steps.iter().filter_map(|step| step.kind.as_ref()) {
        lists.add(step, plan, outside);
    }
    let shared = lists.is_shared;
    Ok(json!({
        "ociVersion": "1.0.2",
        "process": process(plan, outside)?,
        "root": { "path": outside.root, "readonly": lists.is_read_only },
        "mounts": lists.mounts,
        "linux": {
            "namespaces": namespaces(plan, outside),
            "cgroupsPath": outside.cgroups_path,
            "resources": { "devices": outside.devices },
            "devices": lists.devices,
            "maskedPaths": lists.masked,
            "readonlyPaths": lists.read_only,
            "rootfsPropagation": if shared { "rshared" } else { "rslave" },
            "seccomp": outside.seccomp,
        },
    }))
}

/// The process of a container, or of an exec in it.
pub(crate) fn process(plan: &Plan, outside: &Outside) -> Result<Value> {
    let env = plan.env.iter().map(|pair| {
        let text = std::str::from_utf8(pair);
        text.map_err(|_| Error::Invalid("an environment variable is not UTF-8".to_owned()))
    });
    let caps = |set: u64| super::caps::names(set & outside.available);
    let mut process = json!({
        "terminal": plan.tty,
        "user": { "uid": plan.uid, "gid": plan.gid, "additionalGids": plan.groups },
        "args": plan.args,
        "env": env.collect::<Result<Vec<&str>>>()?,
        "cwd": plan.cwd,
        "capabilities": {
            "bounding": caps(plan.caps.bounding),
            "effective": caps(plan.caps.effective),
            "permitted": caps(plan.caps.permitted),
            "inheritable": caps(plan.caps.inheritable),
            "ambient": caps(plan.caps.ambient),
        },
        "noNewPrivileges": plan.no_new_privs,
    });
    if let Some(score) = plan.oom_score_adj {
        process["oomScoreAdj"] = json!(score.max(outside.least_oom_score));
    }
    Ok(process)
}

fn namespaces(plan: &Plan, outside: &Outside) -> Vec<Value> {
    let mut all = vec![json!({ "type": "mount" })];
    match &outside.pid_ns {
        Some(path) => all.push(json!({ "type": "pid", "path": path })),
        None if plan.new_pid_ns => all.push(json!({ "type": "pid" })),
        None => {}
    }
    let pins = [("network", &plan.net_ns), ("ipc", &plan.ipc_ns), ("uts", &plan.uts_ns)];
    let pinned = pins.into_iter().filter(|(_, path)| !path.is_empty());
    all.extend(pinned.map(|(kind, path)| json!({ "type": kind, "path": path })));
    if plan.new_cgroup_ns {
        all.push(json!({ "type": "cgroup" }));
    }
    all
}

#[derive(Default)]
struct Lists {
    mounts: Vec<Value>,
    devices: Vec<Value>,
    masked: Vec<String>,
    read_only: Vec<String>,
    is_read_only: bool,
    is_shared: bool,
}

impl Lists {
    fn add(&mut self, step: &StepKind, plan: &Plan, outside: &Outside) {
        match step {
            StepKind::Root(overlay) if !overlay.target.is_empty() => {
                let found = outside.overlays.iter().find(|(target, _)| *target == overlay.target);
                let source = found.map_or("", |(_, place)| place.as_str()).to_owned();
                let target = overlay.target.clone();
                self.bind(&Bind { source, target, read_only: true, ..Bind::default() });
            }
            // Made by the caller, by the runtime itself, or with the process's directory.
            StepKind::Root(_)
            | StepKind::EmptyRoot(_)
            | StepKind::Symlink(_)
            | StepKind::Directory(_) => {}
            StepKind::Mount(m) if m.target == CGROUPS => self.cgroups(m, plan),
            StepKind::Mount(m) => {
                let mut options: Vec<&str> = words(m.attributes).collect();
                options.extend(m.options.iter().map(|option| option.as_str()));
                self.mount(&m.target, &m.fs_type, &m.fs_type, &options);
            }
            // OCI runtimes mount the container's own groups themselves.
            StepKind::Bind(b) if plan.cgroup_v1_dirs.contains(&b.source) => {}
            StepKind::Bind(b) => self.bind(b),
            StepKind::Node(node) if USUAL_DEVICES.contains(&node.path.as_str()) => {}
            StepKind::Node(node) => self.devices.push(json!({
                "path": node.path,
                "type": if node.mode & libc::S_IFMT == libc::S_IFBLK { "b" } else { "c" },
                "major": libc::major(node.device),
                "minor": libc::minor(node.device),
                "fileMode": node.mode & 0o7777,
                "uid": node.uid,
                "gid": node.gid,
            })),
            StepKind::Mask(path) => self.masked.push(path.clone()),
            StepKind::ReadOnly(path) => self.read_only.push(path.clone()),
            StepKind::ReadOnlyRoot(_) => self.is_read_only = true,
        }
    }

    fn mount(&mut self, target: &str, kind: &str, source: &str, options: &[&str]) {
        let options: Vec<&str> = options.to_vec();
        self.mounts.push(json!({
            "destination": target, "type": kind, "source": source, "options": options,
        }));
    }

    fn cgroups(&mut self, m: &MountFs, plan: &Plan) {
        let mut options: Vec<&str> = words(m.attributes | 1).collect();
        // Who may write on the host may write here, too.
        let locked = StepKind::ReadOnly(CGROUPS.to_owned());
        let is_locked = m.attributes & 1 != 0
            || plan.steps.iter().any(|step| step.kind.as_ref() == Some(&locked));
        if !is_locked {
            options.retain(|word| *word != "ro");
        }
        self.mount(CGROUPS, "cgroup", "cgroup", &options);
    }

    fn bind(&mut self, b: &Bind) {
        let propagation = match b.propagation {
            libc::MS_SHARED => "rshared",
            libc::MS_SLAVE => "rslave",
            _ => "rprivate",
        };
        self.is_shared |= b.propagation == libc::MS_SHARED;
        let mode = match (b.read_only, b.recursive_read_only) {
            (true, true) => "rro",
            (true, false) => "ro",
            _ => "rw",
        };
        self.mount(&b.target, "bind", &b.source, &["rbind", propagation, mode]);
    }
}

fn words(attributes: u64) -> impl Iterator<Item = &'static str> {
    ATTRIBUTES.iter().filter(move |(bit, _)| attributes & bit != 0).map(|(_, word)| *word)
}

/// Which devices a container may use, beside those that every one may.
pub(crate) fn devices(config: &ContainerConfig) -> Result<Vec<Value>> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    if super::context(config).privileged {
        return Ok(vec![json!({ "allow": true, "access": "rwm" })]);
    }
    let mut rules = vec![json!({ "allow": false, "access": "rwm" })];
    for device in &config.devices {
        let meta = std::fs::metadata(&device.host_path).at("inspect device", &device.host_path)?;
        let access = if device.permissions.is_empty() { "rwm" } else { &device.permissions };
        rules.push(json!({
            "allow": true,
            "type": if meta.file_type().is_block_device() { "b" } else { "c" },
            "major": libc::major(meta.rdev()),
            "minor": libc::minor(meta.rdev()),
            "access": access,
        }));
    }
    Ok(rules)
}

/// The filter that a container gets, as `super::filters` has it.
pub(crate) fn filter(
    context: &LinuxContainerSecurityContext,
    config: &crate::Config,
) -> Result<Option<Value>> {
    let fallback =
        SecurityProfile { profile_type: ProfileType::RuntimeDefault as i32, ..Default::default() };
    let profile = match &context.seccomp {
        _ if context.privileged => return Ok(None),
        Some(profile) => profile,
        None if config.seccomp_default => &fallback,
        None => return Ok(None),
    };
    match ProfileType::try_from(profile.profile_type) {
        Ok(ProfileType::RuntimeDefault) => {
            seccomp::default_in_oci(super::caps::granted(context)?).map(Some)
        }
        Ok(ProfileType::Unconfined) => Ok(None),
        Ok(ProfileType::Localhost) => {
            seccomp::file_in_oci(&config.seccomp_dir, &profile.localhost_ref).map(Some)
        }
        Err(_) => Err(Error::Invalid(format!("seccomp profile type {}", profile.profile_type))),
    }
}
