//! Services and endpoints as far as load balancing looks at them.
//!
//! The full API objects are not kept: with thousands of services their annotations and managed
//! fields would be most of the memory. Fields that are not here are not looked at.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
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
}

/// A service's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    pub namespace: String,
    pub name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// A service that is load-balanced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    pub cluster_ips: Vec<IpAddr>,
    pub external_ips: Vec<IpAddr>,
    pub load_balancer_ips: Vec<IpAddr>,
    /// Who may reach the load balancer's addresses; empty means everybody.
    pub source_ranges: Vec<IpNet>,
    pub ports: Vec<Port>,
    /// Seconds for which a client stays with its endpoint.
    pub affinity_seconds: Option<u32>,
    pub internal_local: bool,
    pub external_local: bool,
    pub health_check_node_port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
    pub node_port: Option<u16>,
}

/// One slice of a service's endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    pub service: ServiceKey,
    pub ports: Vec<(String, Protocol, u16)>,
    pub endpoints: Vec<Endpoint>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub address: IpAddr,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    pub node: Option<String>,
    pub zone_hints: Vec<String>,
    pub node_hints: Vec<String>,
}

/// A pod's port offered on its node's addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Chosen by the caller; adding the same one again replaces it. The pod's uid with the
    /// container port's number does.
    pub id: String,
    /// One address of the node, or none for all of them.
    pub host_ip: Option<IpAddr>,
    pub host_port: u16,
    pub protocol: Protocol,
    /// The pod's addresses with the container's port, at most one per family.
    pub targets: Vec<SocketAddr>,
}

/// Another program looks after services with this label.
const OTHER_PROXY_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// Nobody load-balances services and slices with this label.
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// The API server's default for ClientIP affinity, should the field be missing: three hours.
const DEFAULT_AFFINITY_SECONDS: i32 = 10_800;

impl ServiceKey {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        ServiceKey { namespace: namespace.into(), name: name.into() }
    }
}

impl std::fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl Protocol {
    /// By its name in the API; a missing one means TCP.
    pub fn parse(name: Option<&str>) -> Option<Self> {
        match name.unwrap_or("TCP") {
            "TCP" => Some(Protocol::Tcp),
            "UDP" => Some(Protocol::Udp),
            "SCTP" => Some(Protocol::Sctp),
            _ => None,
        }
    }

    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

impl Service {
    /// What to balance, or nothing: headless, ExternalName, or another program's business.
    pub fn from_api(service: &core::Service) -> Option<Self> {
        let labels = service.metadata.labels.as_ref();
        let marked = |label| labels.is_some_and(|labels| labels.contains_key(label));
        let spec = service.spec.as_ref()?;
        if marked(OTHER_PROXY_LABEL)
            || marked(HEADLESS_LABEL)
            || spec.type_.as_deref() == Some("ExternalName")
        {
            return None;
        }
        let cluster_ips = cluster_ips(spec);
        if cluster_ips.is_empty() {
            return None;
        }
        let local = |policy: &Option<String>| policy.as_deref() == Some("Local");
        let health = spec.health_check_node_port.and_then(port_number);
        Some(Service {
            cluster_ips,
            external_ips: addresses(spec.external_ips.as_deref()),
            load_balancer_ips: load_balancer_ips(service),
            source_ranges: source_ranges(spec),
            ports: spec.ports.iter().flatten().filter_map(Port::from_api).collect(),
            affinity_seconds: affinity(spec),
            internal_local: local(&spec.internal_traffic_policy),
            external_local: local(&spec.external_traffic_policy),
            health_check_node_port: health,
        })
    }
}

impl Port {
    fn from_api(port: &core::ServicePort) -> Option<Self> {
        Some(Port {
            name: port.name.clone().unwrap_or_default(),
            protocol: Protocol::parse(port.protocol.as_deref())?,
            port: port_number(port.port)?,
            node_port: port.node_port.and_then(port_number),
        })
    }
}

impl Slice {
    /// The slice, or nothing: of no service, headless, or of names instead of addresses.
    pub fn from_api(slice: &discovery::EndpointSlice) -> Option<Self> {
        let labels = slice.metadata.labels.as_ref()?;
        if labels.contains_key(HEADLESS_LABEL) || labels.contains_key(OTHER_PROXY_LABEL) {
            return None;
        }
        let name = labels.get(SERVICE_NAME_LABEL)?;
        let namespace = slice.metadata.namespace.as_ref()?;
        let ports = slice.ports.iter().flatten().filter_map(|port| {
            let protocol = Protocol::parse(port.protocol.as_deref())?;
            let number = port.port.and_then(port_number)?;
            Some((port.name.clone().unwrap_or_default(), protocol, number))
        });
        Some(Slice {
            service: ServiceKey::new(namespace, name),
            ports: ports.collect(),
            endpoints: slice.endpoints.iter().flatten().filter_map(Endpoint::from_api).collect(),
        })
    }
}

impl Endpoint {
    fn from_api(endpoint: &discovery::Endpoint) -> Option<Self> {
        // Several addresses of one endpoint are the same endpoint: the first one stands for it.
        let address = endpoint.addresses.first()?.parse().ok()?;
        let conditions = endpoint.conditions.clone().unwrap_or_default();
        // A missing "ready" means ready, a missing "serving" means the same as "ready".
        let ready = conditions.ready.unwrap_or(true);
        let hints = endpoint.hints.clone().unwrap_or_default();
        let zones = hints.for_zones.unwrap_or_default();
        let nodes = hints.for_nodes.unwrap_or_default();
        Some(Endpoint {
            address,
            ready,
            serving: conditions.serving.unwrap_or(ready),
            terminating: conditions.terminating.unwrap_or(false),
            node: endpoint.node_name.clone(),
            zone_hints: zones.into_iter().map(|zone| zone.name).collect(),
            node_hints: nodes.into_iter().map(|node| node.name).collect(),
        })
    }
}

fn cluster_ips(spec: &core::ServiceSpec) -> Vec<IpAddr> {
    match spec.cluster_ips.as_deref() {
        Some(list) if !list.is_empty() => addresses(Some(list)),
        _ => spec.cluster_ip.iter().filter_map(|ip| ip.parse().ok()).collect(),
    }
}

/// The addresses in a list of strings; "None" and broken ones are left out (the API validates them).
fn addresses(list: Option<&[String]>) -> Vec<IpAddr> {
    list.unwrap_or_default().iter().filter_map(|text| text.parse().ok()).collect()
}

fn load_balancer_ips(service: &core::Service) -> Vec<IpAddr> {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_deref()).unwrap_or_default();
    ingress
        .iter()
        // Mode "Proxy" means: let the traffic go to the balancer and come back.
        .filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"))
        .filter_map(|ingress| ingress.ip.as_ref()?.parse().ok())
        .collect()
}

fn source_ranges(spec: &core::ServiceSpec) -> Vec<IpNet> {
    let ranges = spec.load_balancer_source_ranges.as_deref().unwrap_or_default();
    ranges.iter().filter_map(|range| range.trim().parse().ok()).collect()
}

fn affinity(spec: &core::ServiceSpec) -> Option<u32> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let config = spec.session_affinity_config.as_ref();
    let client = config.and_then(|config| config.client_ip.as_ref());
    let seconds = client.and_then(|client| client.timeout_seconds);
    u32::try_from(seconds.unwrap_or(DEFAULT_AFFINITY_SECONDS)).ok()
}

fn port_number(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|number| *number != 0)
}
