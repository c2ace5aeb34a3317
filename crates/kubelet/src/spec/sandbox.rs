//! The sandbox a pod runs in.

use k8s_openapi::api::core::v1::Pod;
use runtime::cri::{
    DNSConfig, Int64Value, LinuxContainerResources, LinuxPodSandboxConfig,
    LinuxSandboxSecurityContext, PodSandboxConfig, PodSandboxMetadata, PortMapping, ProfileType,
    Protocol, SecurityProfile, UserNamespace,
};

use super::{
    ConfigError, hosts, is_host_network, labels, name_of, namespace_of, resources, security,
    spec_of, uid_of,
};

/// What the sandbox depends on beside the pod.
#[derive(Debug)]
pub(crate) struct Inputs<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) attempt: u32,
    pub(crate) dns: DNSConfig,
    pub(crate) cluster_domain: &'a str,
    pub(crate) log_directory: String,
    pub(crate) cgroup_root: &'a str,
    /// Most processes of a pod, if there is a limit.
    pub(crate) pids_max: Option<u64>,
    pub(crate) users: UserNamespace,
}

pub(crate) fn config(inputs: Inputs<'_>) -> Result<PodSandboxConfig, ConfigError> {
    let pod = inputs.pod;
    let hostname = match is_host_network(pod) {
        true => String::new(),
        false => hosts::kernel_hostname(pod, inputs.cluster_domain)?,
    };
    Ok(PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: name_of(pod).into(),
            uid: uid_of(pod).into(),
            namespace: namespace_of(pod).into(),
            attempt: inputs.attempt,
        }),
        hostname,
        log_directory: inputs.log_directory,
        dns_config: Some(inputs.dns),
        port_mappings: port_mappings(pod),
        labels: labels::sandbox_labels(pod),
        annotations: pod.metadata.annotations.clone().unwrap_or_default(),
        linux: Some(linux(pod, inputs.cgroup_root, inputs.pids_max, inputs.users)),
    })
}

/// The values of the pod's own group.
fn resources_of(pod: &Pod, pids_max: Option<u64>) -> LinuxContainerResources {
    let mut values = resources::pod_resources(pod);
    values.unified.extend(pids_max.map(|most| ("pids.max".to_owned(), most.to_string())));
    values
}

fn linux(
    pod: &Pod,
    cgroup_root: &str,
    pids_max: Option<u64>,
    users: UserNamespace,
) -> LinuxPodSandboxConfig {
    let spec = spec_of(pod);
    let sc = spec.security_context.clone().unwrap_or_default();
    let (supplemental_groups, supplemental_groups_policy) = security::groups(pod);
    let privileged = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
        .any(|c| c.security_context.as_ref().and_then(|s| s.privileged).unwrap_or(false));
    let context = LinuxSandboxSecurityContext {
        namespace_options: Some(security::namespaces(pod, None, users)),
        run_as_user: sc.run_as_user.map(|value| Int64Value { value }),
        run_as_group: sc.run_as_group.map(|value| Int64Value { value }),
        supplemental_groups,
        supplemental_groups_policy,
        privileged,
        seccomp: Some(SecurityProfile {
            profile_type: ProfileType::RuntimeDefault as i32,
            localhost_ref: String::new(),
        }),
        ..LinuxSandboxSecurityContext::default()
    };
    LinuxPodSandboxConfig {
        cgroup_parent: resources::cgroup_parent(cgroup_root, pod),
        security_context: Some(context),
        sysctls: sc
            .sysctls
            .into_iter()
            .flatten()
            .map(|s| (crate::admission::sysctl_name(&s.name), s.value))
            .collect(),
        overhead: None,
        resources: Some(resources_of(pod, pids_max)),
    }
}

fn port_mappings(pod: &Pod) -> Vec<PortMapping> {
    let spec = spec_of(pod);
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let ports = containers.flat_map(|c| c.ports.iter().flatten());
    ports
        .map(|p| PortMapping {
            protocol: match p.protocol.as_deref() {
                Some("UDP") => Protocol::Udp,
                Some("SCTP") => Protocol::Sctp,
                _ => Protocol::Tcp,
            } as i32,
            container_port: p.container_port,
            host_port: p.host_port.unwrap_or(0),
            host_ip: p.host_ip.clone().unwrap_or_default(),
        })
        .collect()
}
