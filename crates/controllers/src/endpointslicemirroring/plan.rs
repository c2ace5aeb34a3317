//! Endpoints in, the slices that shall show them out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};

use crate::endpointslice::plan::{Frame, MANAGED_BY, Plan, SERVICE_NAME, Wanted, arrange};
use crate::meta::{managed_by, name};

pub(crate) const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations that speak of the Endpoints object alone.
const OWN: [&str; 2] = [
    "endpoints.kubernetes.io/last-change-trigger-time",
    "kubectl.kubernetes.io/last-applied-configuration",
];
/// Addresses of a subset at most (upstream's --mirroring-max-endpoints-per-subset).
const ADDRESSES_MAX: usize = 1000;

/// Whether nobody else makes slices for these.
pub(crate) fn is_mirrored(endpoints: &Endpoints, service: &Service) -> bool {
    let meta = &endpoints.metadata;
    let skipped = meta.labels.as_ref().and_then(|l| l.get(SKIP)).is_some_and(|v| v == "true");
    let elects = meta.annotations.as_ref().is_some_and(|a| a.contains_key(LEADER));
    let selects = service.spec.as_ref().is_some_and(|s| s.selector.is_some());
    !skipped && !elects && !selects
}

/// No slice stays.
pub(crate) fn nothing(present: &[Arc<EndpointSlice>]) -> Plan {
    let delete = present.iter().map(|slice| name(&slice.metadata).to_owned()).collect();
    Plan { delete, ..Plan::default() }
}

pub(crate) fn plan(endpoints: &Endpoints, present: &[Arc<EndpointSlice>]) -> Plan {
    let mut wanted: Wanted = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ports = ports(subset);
        for (family, endpoint) in mirrored(subset) {
            let group = (family.to_owned(), ports.clone());
            let at = wanted.iter().position(|(g, _)| *g == group).unwrap_or_else(|| {
                wanted.push((group, BTreeMap::new()));
                wanted.len() - 1
            });
            // Ready ones come first: what is both is ready.
            wanted[at].1.entry(endpoint.addresses[0].clone()).or_insert(endpoint);
        }
    }
    arrange(&frame(endpoints), wanted, present)
}

/// Reasons and messages of what is not shown.
pub(crate) fn faults(endpoints: &Endpoints) -> Vec<(&'static str, String)> {
    let (mut invalid, mut skipped) = (0, 0);
    for subset in endpoints.subsets.iter().flatten() {
        let total = addresses(subset).count();
        let valid = addresses(subset).filter(|(a, _)| a.ip.parse::<IpAddr>().is_ok()).count();
        invalid += total - valid;
        skipped += valid.saturating_sub(ADDRESSES_MAX);
    }
    let mut faults = Vec::new();
    if invalid > 0 {
        let message =
            format!("Skipped {invalid} invalid IP addresses when mirroring to EndpointSlices");
        faults.push(("InvalidIPAddress", message));
    }
    if skipped > 0 {
        let message = format!(
            "A max of {ADDRESSES_MAX} addresses can be mirrored to EndpointSlices per Endpoints subset. {} addresses were skipped",
            skipped + invalid
        );
        faults.push(("TooManyAddressesToMirror", message));
    }
    faults
}

fn frame(endpoints: &Endpoints) -> Frame {
    let meta = &endpoints.metadata;
    let mut labels = meta.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.into(), name(meta).into());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    let mut annotations = meta.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| !OWN.contains(&&**key));
    Frame {
        owner: managed_by(endpoints),
        namespace: meta.namespace.clone(),
        prefix: format!("{}-", name(meta)),
        labels,
        annotations: Some(annotations),
        size: ADDRESSES_MAX,
    }
}

fn addresses(subset: &EndpointSubset) -> impl Iterator<Item = (&EndpointAddress, bool)> {
    let ready = subset.addresses.iter().flatten().map(|a| (a, true));
    ready.chain(subset.not_ready_addresses.iter().flatten().map(|a| (a, false)))
}

fn mirrored(subset: &EndpointSubset) -> impl Iterator<Item = (&'static str, Endpoint)> {
    let valid = addresses(subset).filter_map(|(a, ready)| Some((a, ready, a.ip.parse().ok()?)));
    valid.take(ADDRESSES_MAX).map(|(address, ready, ip): (_, _, IpAddr)| {
        let endpoint = Endpoint {
            addresses: vec![ip.to_string()],
            conditions: Some(EndpointConditions {
                ready: Some(ready),
                ..EndpointConditions::default()
            }),
            hostname: address.hostname.clone().filter(|h| !h.is_empty()),
            node_name: address.node_name.clone(),
            target_ref: address.target_ref.clone(),
            ..Endpoint::default()
        };
        (if ip.is_ipv4() { "IPv4" } else { "IPv6" }, endpoint)
    })
}

fn ports(subset: &EndpointSubset) -> Vec<EndpointPort> {
    let all = subset.ports.iter().flatten().map(|port| EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
        app_protocol: port.app_protocol.clone(),
    });
    all.collect()
}
