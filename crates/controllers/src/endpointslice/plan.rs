//! A Service's pods in, the slices that shall exist out, with as few slices touched as possible.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::figures::endpoint_slices::Counts;
use crate::meta::{Map, managed_by, name, namespace};
use crate::pods;

pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub(crate) const MANAGER: &str = "endpointslice-controller.k8s.io";
pub(crate) const HEADLESS: &str = "service.kubernetes.io/headless";
/// Endpoints in a slice at most (upstream's default): bounds the cost of one change.
const ENDPOINTS_MAX: usize = 100;

/// Slices to write; the rest stays.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    pub(crate) create: Vec<EndpointSlice>,
    pub(crate) update: Vec<EndpointSlice>,
    /// Names.
    pub(crate) delete: Vec<String>,
}

impl Plan {
    /// What the Service has when the plan is applied to `present`, and how many endpoints are added and removed.
    pub(crate) fn counts(&self, present: &[Arc<EndpointSlice>]) -> (Counts, (usize, usize)) {
        type Addresses<'a> = HashSet<(&'a str, &'a str)>;
        fn addresses(slice: &EndpointSlice) -> impl Iterator<Item = (&str, &str)> {
            let all = slice.endpoints.iter().flatten();
            all.filter_map(|e| Some((slice.address_type.as_str(), e.addresses.first()?.as_str())))
        }
        let written = |slice: &EndpointSlice| {
            let own = name(&slice.metadata);
            self.delete.iter().any(|gone| gone == own)
                || self.update.iter().any(|new| name(&new.metadata) == own)
        };
        let stay = present.iter().map(|slice| &**slice).filter(|slice| !written(slice));
        let after: Vec<&EndpointSlice> = stay.chain(&self.update).chain(&self.create).collect();
        let old: Addresses<'_> = present.iter().flat_map(|slice| addresses(slice)).collect();
        let new: Addresses<'_> = after.iter().flat_map(|slice| addresses(slice)).collect();
        let mut groups: BTreeMap<String, usize> = BTreeMap::new();
        for slice in &after {
            let group = format!("{} {:?}", slice.address_type, slice.ports);
            *groups.entry(group).or_default() += slice.endpoints.as_ref().map_or(0, Vec::len);
        }
        let desired: usize = groups.values().map(|n| n.div_ceil(ENDPOINTS_MAX)).sum();
        let counts = Counts {
            endpoints: groups.values().sum(),
            slices: after.len(),
            // A Service without endpoints has one slice.
            desired: desired.max(1),
            traffic_distribution: None,
        };
        (counts, (new.difference(&old).count(), old.difference(&new).count()))
    }
}

/// Address family and ports: what all endpoints of a slice share.
pub(crate) type Group = (String, Vec<EndpointPort>);
/// Endpoints by address, by what they share.
pub(crate) type Wanted = Vec<(Group, BTreeMap<String, Endpoint>)>;

/// What all slices of one owner have in common.
pub(crate) struct Frame {
    /// For new slices.
    pub(crate) owner: OwnerReference,
    pub(crate) namespace: Option<String>,
    pub(crate) prefix: String,
    pub(crate) labels: Map,
    /// `None` leaves those that are there.
    pub(crate) annotations: Option<Map>,
    /// Endpoints in a slice at most.
    pub(crate) size: usize,
}

pub(crate) fn plan(
    service: &Service,
    pods: &[Arc<Pod>],
    zone: &dyn Fn(&str) -> Option<String>,
    present: &[Arc<EndpointSlice>],
) -> Plan {
    let mut wanted: Wanted = Vec::new();
    for family in families(service) {
        for pod in pods.iter().filter(|p| !pods::finished(p)) {
            let Some(endpoint) = endpoint(service, pod, &family, zone) else { continue };
            let group = (family.clone(), ports(service, pod));
            let at = wanted.iter().position(|(g, _)| *g == group).unwrap_or_else(|| {
                wanted.push((group, BTreeMap::new()));
                wanted.len() - 1
            });
            wanted[at].1.insert(endpoint.addresses[0].clone(), endpoint);
        }
        if !wanted.iter().any(|((f, _), _)| *f == family) {
            // A service without endpoints has one empty slice, so that readers see it is known.
            wanted.push(((family.clone(), Vec::new()), BTreeMap::new()));
        }
    }
    let frame = Frame {
        owner: managed_by(service),
        namespace: service.metadata.namespace.clone(),
        prefix: format!("{}-", name(&service.metadata)),
        labels: labels(service),
        annotations: None,
        size: ENDPOINTS_MAX,
    };
    arrange(&frame, wanted, present)
}

/// Puts what is wanted into slices, the present ones first.
pub(crate) fn arrange(frame: &Frame, wanted: Wanted, present: &[Arc<EndpointSlice>]) -> Plan {
    let mut plan = Plan::default();
    let mut used = HashSet::new();
    for ((family, ports), mut endpoints) in wanted {
        let same = |s: &&Arc<EndpointSlice>| {
            s.address_type == family
                && s.ports.as_deref().unwrap_or_default() == ports
                && s.metadata.deletion_timestamp.is_none()
        };
        let mut slices: Vec<(&Arc<EndpointSlice>, Vec<Endpoint>)> = Vec::new();
        for slice in present.iter().filter(same) {
            let kept = slice.endpoints.iter().flatten();
            let kept = kept.filter_map(|e| endpoints.remove(e.addresses.first()?)).collect();
            slices.push((slice, kept));
        }
        let mut rest = endpoints.into_values();
        // Fullest first, so that emptied slices can go.
        slices.sort_by_key(|(_, kept)| std::cmp::Reverse(kept.len()));
        let many = slices.len() > 1;
        for (slice, kept) in &mut slices {
            kept.extend(rest.by_ref().take(frame.size.saturating_sub(kept.len())));
            if kept.is_empty() && many {
                continue;
            }
            used.insert(name(&slice.metadata).to_owned());
            let new = fill(frame, EndpointSlice::clone(slice), std::mem::take(kept));
            if new != ***slice {
                plan.update.push(new);
            }
        }
        let fresh = slices.iter().all(|(s, _)| !used.contains(name(&s.metadata)));
        let mut rest: Vec<Endpoint> = rest.collect();
        if fresh || !rest.is_empty() {
            loop {
                let tail = rest.split_off(rest.len().min(frame.size));
                plan.create.push(fill(frame, blank(frame, &family, &ports), rest));
                rest = tail;
                if rest.is_empty() {
                    break;
                }
            }
        }
    }
    let unused = present.iter().map(|s| name(&s.metadata)).filter(|n| !used.contains(*n));
    plan.delete = unused.map(str::to_owned).collect();
    plan
}

fn blank(frame: &Frame, family: &str, ports: &[EndpointPort]) -> EndpointSlice {
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(frame.prefix.clone()),
            namespace: frame.namespace.clone(),
            owner_references: Some(vec![frame.owner.clone()]),
            ..ObjectMeta::default()
        },
        address_type: family.to_owned(),
        endpoints: None,
        ports: Some(ports.to_vec()).filter(|p| !p.is_empty()),
    }
}

fn fill(frame: &Frame, mut slice: EndpointSlice, endpoints: Vec<Endpoint>) -> EndpointSlice {
    slice.metadata.labels = Some(frame.labels.clone());
    if let Some(annotations) = &frame.annotations {
        slice.metadata.annotations = Some(annotations.clone()).filter(|a| !a.is_empty());
    }
    let same = |a: &[Endpoint]| {
        let key = |e: &Endpoint| e.addresses.first().cloned();
        let old: HashMap<_, _> = a.iter().map(|e| (key(e), e)).collect();
        a.len() == endpoints.len() && endpoints.iter().all(|e| old.get(&key(e)) == Some(&e))
    };
    if !slice.endpoints.as_deref().is_some_and(same) {
        slice.endpoints = Some(endpoints);
    }
    slice
}

fn labels(service: &Service) -> Map {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    for reserved in [SERVICE_NAME, MANAGED_BY, HEADLESS] {
        labels.remove(reserved);
    }
    if headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(SERVICE_NAME.into(), name(&service.metadata).into());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    labels
}

pub(crate) fn headless(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|s| s.cluster_ip.as_deref() == Some("None"))
}

fn families(service: &Service) -> Vec<String> {
    let spec = service.spec.as_ref();
    let families = spec.and_then(|s| s.ip_families.clone()).filter(|f| !f.is_empty());
    families.unwrap_or_else(|| vec!["IPv4".into()])
}

/// The pod's address of a family.
pub(crate) fn address<'a>(pod: &'a Pod, family: &str) -> Option<&'a str> {
    let status = pod.status.as_ref()?;
    let all =
        status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()).chain(status.pod_ip.as_deref());
    all.into_iter().find(|ip| !ip.is_empty() && ip.contains(':') == (family == "IPv6"))
}

fn endpoint(
    service: &Service,
    pod: &Pod,
    family: &str,
    zone: &dyn Fn(&str) -> Option<String>,
) -> Option<Endpoint> {
    let address = address(pod, family)?;
    let publish =
        service.spec.as_ref().is_some_and(|s| s.publish_not_ready_addresses == Some(true));
    let serving = pods::ready(pod);
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let node = Some(pods::node(pod)).filter(|n| !n.is_empty());
    Some(Endpoint {
        addresses: vec![address.to_owned()],
        conditions: Some(EndpointConditions {
            ready: Some(publish || serving && !terminating),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(service, pod),
        node_name: node.map(str::to_owned),
        target_ref: Some(target(pod)),
        zone: node.and_then(zone),
        ..Endpoint::default()
    })
}

pub(crate) fn target(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// The name a pod has below its headless service.
pub(crate) fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let below = spec.subdomain.as_deref() == Some(name(&service.metadata))
        && namespace(&pod.metadata) == namespace(&service.metadata);
    spec.hostname.clone().filter(|h| below && !h.is_empty())
}

fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let resolved = |port: &ServicePort| {
        Some(EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(target_port(port, pod)?),
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
            app_protocol: port.app_protocol.clone(),
        })
    };
    let all = service.spec.iter().flat_map(|s| s.ports.iter().flatten());
    all.filter_map(resolved).collect()
}

/// The number of the port that a service port leads to; a name is looked up in the pod.
pub(crate) fn target_port(port: &ServicePort, pod: &Pod) -> Option<i32> {
    let wanted = match &port.target_port {
        None | Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let spec = pod.spec.as_ref()?;
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let mut ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    let found = ports.find(|p| {
        p.name.as_ref() == Some(wanted) && p.protocol.as_deref().unwrap_or("TCP") == protocol
    });
    found.map(|p| p.container_port)
}
