//! A container as the runtime is asked to make it.

use std::path::Path;

use k8s_openapi::api::core::v1::{Container, Pod};
use runtime::cri::{
    ContainerConfig, ContainerMetadata, ImageSpec, KeyValue, LinuxContainerConfig,
    LinuxContainerSecurityContext, Mount, ProfileType, SecurityProfile, Signal, UserNamespace,
};

use super::resources::NodeResources;
use super::security::ImageUser;
use super::{ConfigError, expand, labels, resources, security};

/// Everything a container's configuration is made of.
#[derive(Debug)]
pub(crate) struct Inputs<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) container: &'a Container,
    pub(crate) attempt: u32,
    pub(crate) image_ref: &'a str,
    pub(crate) image_user: &'a ImageUser,
    pub(crate) environment: &'a [(String, Vec<u8>)],
    pub(crate) mounts: Vec<Mount>,
    pub(crate) node: &'a NodeResources,
    /// The container whose processes an ephemeral container joins.
    pub(crate) target: Option<&'a str>,
    pub(crate) users: UserNamespace,
    /// Containers without a seccomp profile have the runtime's.
    pub(crate) seccomp_default: bool,
    /// Where profiles of the node's own lie, for runtimes that must be told.
    pub(crate) seccomp_root: Option<&'a Path>,
}

pub(crate) fn config(inputs: Inputs<'_>) -> Result<ContainerConfig, ConfigError> {
    let (pod, c) = (inputs.pod, inputs.container);
    let lookup = |name: &str| {
        let found = inputs.environment.iter().find(|(n, _)| n == name);
        found.map(|(_, v)| String::from_utf8_lossy(v).into_owned())
    };
    let expanded = |list: &Option<Vec<String>>| {
        let all = list.iter().flatten().map(|text| expand::expand(text, lookup));
        all.collect::<Result<Vec<_>, _>>().map_err(|_| {
            let most = expand::STRING_MAX;
            ConfigError(format!("a command or argument is longer than {most} bytes"))
        })
    };
    let envs = inputs.environment.iter();
    Ok(ContainerConfig {
        metadata: Some(ContainerMetadata { name: c.name.clone(), attempt: inputs.attempt }),
        image: Some(ImageSpec {
            image: inputs.image_ref.into(),
            user_specified_image: c.image.clone().unwrap_or_default(),
            ..ImageSpec::default()
        }),
        command: expanded(&c.command)?,
        args: expanded(&c.args)?,
        working_dir: c.working_dir.clone().unwrap_or_default(),
        envs: envs.map(|(k, v)| KeyValue { key: k.clone(), value: v.clone() }).collect(),
        mounts: inputs.mounts.iter().cloned().map(|m| mapped(m, &inputs.users)).collect(),
        labels: labels::container_labels(pod, c),
        annotations: labels::container_annotations(pod, c, inputs.attempt),
        log_path: format!("{}/{}.log", c.name, inputs.attempt),
        stdin: c.stdin.unwrap_or(false),
        stdin_once: c.stdin_once.unwrap_or(false),
        tty: c.tty.unwrap_or(false),
        linux: Some(LinuxContainerConfig {
            resources: Some(resources::container_resources(pod, c, inputs.node)),
            security_context: Some(context(&inputs)?),
        }),
        stop_signal: stop_signal(c),
        ..ContainerConfig::default()
    })
}

fn context(inputs: &Inputs<'_>) -> Result<LinuxContainerSecurityContext, ConfigError> {
    let (pod, c) = (inputs.pod, inputs.container);
    let (user, users) = (inputs.image_user, inputs.users.clone());
    let mut context = security::security_context(pod, c, user, inputs.target, users)?;
    let unsaid = security::effective(pod, c).seccomp_profile.is_none();
    if inputs.seccomp_default && unsaid && !context.privileged {
        let profile_type = ProfileType::RuntimeDefault as i32;
        context.seccomp = Some(SecurityProfile { profile_type, ..SecurityProfile::default() });
    }
    if let (Some(root), Some(profile)) = (inputs.seccomp_root, &mut context.seccomp)
        && profile.profile_type == ProfileType::Localhost as i32
    {
        profile.localhost_ref = root.join(&profile.localhost_ref).to_string_lossy().into_owned();
    }
    Ok(context)
}

/// Files of a mount belong, for the container, to the ids that it sees.
fn mapped(mount: Mount, users: &UserNamespace) -> Mount {
    Mount { uid_mappings: users.uids.clone(), gid_mappings: users.gids.clone(), ..mount }
}

fn stop_signal(container: &Container) -> i32 {
    let wanted = container.lifecycle.as_ref().and_then(|l| l.stop_signal.as_deref());
    let Some(wanted) = wanted else { return Signal::RuntimeDefault as i32 };
    // The enumeration's values are dense.
    let mut all = (0..).map_while(|n| Signal::try_from(n).ok());
    all.find(|s| s.name() == wanted).unwrap_or(Signal::RuntimeDefault) as i32
}
