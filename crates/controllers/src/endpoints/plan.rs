//! The one Endpoints object of a Service: ready and unready addresses, grouped by ports.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::endpointslice::plan::{HEADLESS, address, headless, hostname, target, target_port};
use crate::pods;

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Addresses in one object at most (upstream's).
const ADDRESSES_MAX: usize = 1000;

/// Whether this controller made the object.
pub(crate) fn is_ours(object: &Endpoints) -> bool {
    let labels = object.metadata.labels.as_ref();
    labels.and_then(|l| l.get(MANAGED_BY)).is_some_and(|m| m == MANAGER)
}

/// The object as it shall be, if it must be written.
pub(crate) fn plan(
    service: &Service,
    pods: &[Arc<Pod>],
    present: Option<&Endpoints>,
) -> Option<Endpoints> {
    let mut object = present.cloned().unwrap_or_else(|| Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            ..ObjectMeta::default()
        },
        subsets: None,
    });
    let mut subsets = subsets(service, pods);
    let over = truncate(&mut subsets);
    object.subsets = Some(subsets).filter(|s| !s.is_empty());
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    object.metadata.labels = Some(labels);
    let mut annotations = object.metadata.annotations.take().unwrap_or_default();
    match over {
        true => drop(annotations.insert(OVER_CAPACITY.into(), "truncated".into())),
        false => drop(annotations.remove(OVER_CAPACITY)),
    }
    object.metadata.annotations = Some(annotations).filter(|a| !a.is_empty());
    (present != Some(&object)).then_some(object)
}

fn subsets(service: &Service, pods: &[Arc<Pod>]) -> Vec<EndpointSubset> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let family = spec.ip_families.as_ref().and_then(|f| f.first()).map_or("IPv4", String::as_str);
    let publish = spec.publish_not_ready_addresses == Some(true);
    let mut subsets: Vec<EndpointSubset> = Vec::new();
    let mut pods: Vec<(&str, &Arc<Pod>)> = pods
        .iter()
        .filter(|p| !pods::finished(p) && (publish || p.metadata.deletion_timestamp.is_none()))
        .filter_map(|p| Some((address(p, family)?, p)))
        .collect();
    pods.sort_by_key(|(ip, pod)| (*ip, pod.metadata.uid.clone()));
    for (ip, pod) in pods {
        let ports = ports(service, pod);
        if ports.is_none() && spec.ports.iter().flatten().next().is_some() {
            continue;
        }
        let entry = EndpointAddress {
            ip: ip.to_owned(),
            hostname: hostname(service, pod),
            node_name: Some(pods::node(pod).to_owned()).filter(|n| !n.is_empty()),
            target_ref: Some(target(pod)),
        };
        let at = subsets.iter().position(|s| s.ports == ports).unwrap_or_else(|| {
            subsets.push(EndpointSubset { ports, ..EndpointSubset::default() });
            subsets.len() - 1
        });
        let subset = &mut subsets[at];
        let list = match publish || pods::ready(pod) {
            true => &mut subset.addresses,
            false => &mut subset.not_ready_addresses,
        };
        list.get_or_insert_default().push(entry);
    }
    subsets
}

/// Resolved ports in order of name; `None` when there are none.
fn ports(service: &Service, pod: &Pod) -> Option<Vec<EndpointPort>> {
    let all = service.spec.iter().flat_map(|s| s.ports.iter().flatten());
    let resolved = all.filter_map(|port| {
        Some(EndpointPort {
            name: port.name.clone(),
            port: target_port(port, pod)?,
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
            app_protocol: port.app_protocol.clone(),
        })
    });
    let mut ports: Vec<EndpointPort> = resolved.collect();
    ports.sort_by_key(|p| (p.name.clone(), p.port));
    Some(ports).filter(|p| !p.is_empty())
}

/// Drops what is over the limit, unready addresses first; whether anything was.
fn truncate(subsets: &mut [EndpointSubset]) -> bool {
    let mut room = ADDRESSES_MAX;
    let mut over = false;
    let mut cut = |list: &mut Option<Vec<EndpointAddress>>| {
        let have = list.as_ref().map_or(0, Vec::len);
        over |= have > room;
        if let Some(list) = list {
            list.truncate(room);
        }
        room -= have.min(room);
    };
    subsets.iter_mut().for_each(|s| cut(&mut s.addresses));
    subsets.iter_mut().for_each(|s| cut(&mut s.not_ready_addresses));
    over
}
