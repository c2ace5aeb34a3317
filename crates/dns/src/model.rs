//! Services, endpoints and pods as far as names look at them.

use std::net::IpAddr;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;

/// What the caller has seen change.
#[derive(Debug, Clone)]
pub enum Change {
    /// Added or modified.
    Service(Box<core::Service>),
    ServiceDeleted {
        namespace: String,
        name: String,
    },
    /// Added or modified.
    EndpointSlice(Box<discovery::EndpointSlice>),
    EndpointSliceDeleted {
        namespace: String,
        name: String,
    },
    /// Added or modified; only the addresses in its status matter.
    Pod(Box<core::Pod>),
    PodDeleted {
        namespace: String,
        name: String,
    },
    /// There is a namespace of this name, whether anything is in it or not.
    Namespace(String),
    NamespaceDeleted(String),
}

/// Namespace and name, lower case as all API names are.
pub(crate) type Key = (String, String);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Service {
    /// It has addresses of its own.
    Addresses { ips: Vec<IpAddr>, ports: Vec<Port> },
    /// Its endpoints' addresses are the answer.
    Headless,
    /// Another name is the answer.
    External(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Port {
    pub name: String,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    pub number: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slice {
    pub service: Key,
    pub ports: Vec<Port>,
    pub endpoints: Vec<Endpoint>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub ip: IpAddr,
    /// The endpoint's name below its service: its own, or made from its address.
    pub host: String,
}

const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

impl Service {
    pub(crate) fn from_api(service: &core::Service) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        if spec.type_.as_deref() == Some("ExternalName") {
            let target = spec.external_name.as_deref()?.trim_end_matches('.').to_lowercase();
            return Some(Service::External(target));
        }
        if spec.cluster_ip.as_deref() == Some("None") {
            return Some(Service::Headless);
        }
        let one = spec.cluster_ip.iter();
        let texts: Vec<_> = spec.cluster_ips.iter().flatten().chain(one).collect();
        let mut ips: Vec<IpAddr> = texts.into_iter().filter_map(|ip| ip.parse().ok()).collect();
        ips.sort_unstable();
        ips.dedup();
        let ports = spec.ports.iter().flatten();
        let ports = ports.filter_map(|p| port(p.name.as_deref(), p.protocol.as_deref(), p.port));
        // A service without an address yet answers nothing, but its name exists.
        Some(Service::Addresses { ips, ports: ports.collect() })
    }
}

impl Slice {
    pub(crate) fn from_api(slice: &discovery::EndpointSlice) -> Option<Self> {
        let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?;
        let namespace = slice.metadata.namespace.clone()?;
        let ports = slice.ports.iter().flatten();
        let ports = ports.filter_map(|p| port(p.name.as_deref(), p.protocol.as_deref(), p.port?));
        let endpoints = slice.endpoints.iter().flatten();
        Some(Slice {
            service: (namespace, name.clone()),
            ports: ports.collect(),
            endpoints: endpoints.flat_map(endpoint_hosts).collect(),
        })
    }
}

/// The addresses of a pod that other pods can reach.
pub(crate) fn pod_ips(pod: &core::Pod) -> Vec<IpAddr> {
    let Some(status) = &pod.status else { return Vec::new() };
    // The address of a pod that has ended may belong to another one by now.
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return Vec::new();
    }
    let all = status.pod_ips.iter().flatten().map(|ip| &ip.ip).chain(status.pod_ip.iter());
    let mut ips: Vec<IpAddr> = all.filter_map(|ip| ip.parse().ok()).collect();
    ips.sort_unstable();
    ips.dedup();
    ips
}

/// An address as a label: 10.1.2.3 is `10-1-2-3`, and `fd00::1` is `fd00--1`.
pub(crate) fn dashed(ip: IpAddr) -> String {
    let label = ip.to_string().replace(['.', ':'], "-");
    // A label must not begin or end in a dash (`::1`).
    let label = if label.starts_with('-') { format!("0{label}") } else { label };
    if label.ends_with('-') { format!("{label}0") } else { label }
}

fn endpoint_hosts(endpoint: &discovery::Endpoint) -> Vec<Endpoint> {
    let conditions = endpoint.conditions.as_ref();
    if conditions.and_then(|conditions| conditions.ready) == Some(false) {
        return Vec::new();
    }
    let ips = endpoint.addresses.iter().filter_map(|ip| ip.parse().ok());
    ips.map(|ip| Endpoint { ip, host: endpoint.hostname.clone().unwrap_or_else(|| dashed(ip)) })
        .collect()
}

fn port(name: Option<&str>, protocol: Option<&str>, number: i32) -> Option<Port> {
    Some(Port {
        name: name.unwrap_or_default().to_owned(),
        protocol: protocol.unwrap_or("TCP").to_lowercase(),
        number: u16::try_from(number).ok()?,
    })
}
