//! What a pod's spec means to the runtime: pure functions from API objects to CRI messages.

pub(crate) mod container;
pub(crate) mod dns;
pub(crate) mod downward;
pub(crate) mod env;
pub(crate) mod env_file;
pub(crate) mod expand;
pub(crate) mod hosts;
pub(crate) mod labels;
pub(crate) mod mounts;
pub(crate) mod quantity;
pub(crate) mod resize;
pub(crate) mod resources;
pub(crate) mod sandbox;
pub(crate) mod security;

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec};

/// A configuration that cannot be turned into a container: `CreateContainerConfigError`.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub(crate) struct ConfigError(pub(crate) String);

/// A pod's spec; the API never stores a pod without one.
pub(crate) fn spec_of(pod: &Pod) -> Cow<'_, PodSpec> {
    pod.spec.as_ref().map_or_else(|| Cow::Owned(PodSpec::default()), Cow::Borrowed)
}

pub(crate) fn name_of(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or("")
}

pub(crate) fn namespace_of(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or("")
}

pub(crate) fn uid_of(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or("")
}

/// Whether nothing of the pod will run any more.
pub(crate) fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// `name_namespace(uid)`, as upstream's messages name a pod.
pub(crate) fn described(pod: &Pod) -> String {
    format!("{}_{}({})", name_of(pod), namespace_of(pod), uid_of(pod))
}

pub(crate) fn is_host_network(pod: &Pod) -> bool {
    spec_of(pod).host_network.unwrap_or(false)
}

/// An init container that keeps running beside the regular ones.
pub(crate) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// An ephemeral container as the container it is like.
pub(crate) fn as_container(ephemeral: &EphemeralContainer) -> Container {
    let e = ephemeral.clone();
    Container {
        args: e.args,
        command: e.command,
        env: e.env,
        env_from: e.env_from,
        image: e.image,
        image_pull_policy: e.image_pull_policy,
        name: e.name,
        resources: e.resources,
        security_context: e.security_context,
        stdin: e.stdin,
        stdin_once: e.stdin_once,
        termination_message_path: e.termination_message_path,
        termination_message_policy: e.termination_message_policy,
        tty: e.tty,
        volume_mounts: e.volume_mounts,
        working_dir: e.working_dir,
        ..Container::default()
    }
}

/// Any container of the pod by its name: init, regular or ephemeral.
pub(crate) fn find_container(pod: &Pod, name: &str) -> Option<Container> {
    let spec = pod.spec.as_ref()?;
    let plain = spec.init_containers.iter().flatten().chain(&spec.containers);
    plain.into_iter().find(|c| c.name == name).cloned().or_else(|| {
        let ephemeral = spec.ephemeral_containers.iter().flatten();
        ephemeral.into_iter().find(|c| c.name == name).map(as_container)
    })
}

#[cfg(test)]
mod tests;
