//! Whether a range may go, and its condition.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::meta::name;

/// A condition `Ready`: its status, reason and message.
pub(crate) type Said = (&'static str, &'static str, &'static str);

pub(crate) const READY: Said = ("True", "", "Kubernetes Service CIDR is ready");
pub(crate) const TERMINATING: Said = (
    "False",
    "Terminating",
    "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new \
     ServiceCIDR",
);
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const ALLOCATOR: &str = "ipallocator.k8s.io";

fn ranges(cidr: &ServiceCIDR) -> Vec<IpNet> {
    let texts = cidr.spec.iter().flat_map(|s| s.cidrs.iter().flatten());
    texts.filter_map(|text| text.parse().ok()).collect()
}

/// The condition, if it is not there as it is.
pub(crate) fn condition(cidr: &ServiceCIDR, said: Said, now: Time) -> Option<Condition> {
    let conditions = cidr.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let old = conditions.into_iter().find(|c| c.type_ == "Ready");
    let (status, reason, message) = said;
    if old.is_some_and(|c| c.status == status && c.reason == reason && c.message == message) {
        return None;
    }
    Some(Condition {
        type_: "Ready".into(),
        status: status.into(),
        reason: reason.into(),
        message: message.into(),
        last_transition_time: now,
        observed_generation: None,
    })
}

/// Whether addresses of Services would be in no range without this one.
pub(crate) fn orphans(
    cidr: &ServiceCIDR,
    all: &[Arc<ServiceCIDR>],
    addresses: &[Arc<IPAddress>],
) -> bool {
    let others = all.iter().filter(|c| c.metadata.name != cidr.metadata.name);
    let others: Vec<IpNet> = others.flat_map(|c| ranges(c)).collect();
    let own = ranges(cidr);
    if own.iter().all(|range| others.iter().any(|other| other.contains(range))) {
        return false;
    }
    let given = |a: &&Arc<IPAddress>| {
        let labels = a.metadata.labels.as_ref();
        labels.and_then(|l| l.get(MANAGED_BY)).is_some_and(|m| m == ALLOCATOR)
    };
    addresses.iter().filter(given).any(|address| {
        let Ok(ip) = name(&address.metadata).parse::<IpAddr>() else { return false };
        own.iter().any(|range| range.contains(&ip)) && !others.iter().any(|r| r.contains(&ip))
    })
}
